package sweep

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// events is what a Watch asks the store for.
type events struct {
	mu      sync.Mutex
	noticed map[mirror.Resource]time.Time
	created map[mirror.RoomID]time.Time
	noted   map[mirror.Kind]int64
	asked   int
	err     error
}

// with calls do while the Watch asks nothing.
func (e *events) with(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
}

func (e *events) Generations(_ context.Context, resources []mirror.Resource) ([]store.Progress, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	out := make([]store.Progress, len(resources))
	for i, r := range resources {
		out[i].NoticeTime = e.noticed[r]
	}
	return out, e.err
}

func (e *events) RoomsByID(_ context.Context, _ mirror.ProjectID, ids []mirror.RoomID, _ bool) (rooms []mirror.Room,
	_ error,
) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		if at, ok := e.created[id]; ok {
			rooms = append(rooms, mirror.Room{Project: project, ID: id, CreateTime: at})
		}
	}
	return rooms, nil
}

func (e *events) NoteUnannounced(_ context.Context, _ mirror.ProjectID, kind mirror.Kind, count int64, _ time.Time,
) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.noted[kind] += count
	return nil
}

// pass lets the bubble's clock go on.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble
	synctest.Wait()
}

func TestChangesWithoutAnEventAreCounted(t *testing.T) {
	t.Parallel()
	of := func(kind mirror.Kind, id string) mirror.Resource {
		return mirror.Resource{Project: project, Room: "r", Kind: kind, ID: id}
	}
	storage, room := of(mirror.KindStorage, ""), of(mirror.KindRoom, "")
	one := func(kind mirror.Kind) map[mirror.Kind]int64 { return map[mirror.Kind]int64{kind: 1} }
	for name, c := range map[string]struct {
		resource mirror.Resource
		epoch    int64
		// before is how long ago the resource was fetched before the sweep did: an hour
		// if zero. noticed is when an event came, missed when a delivery was not recorded,
		// and created when the room was, relative to the sweep's fetch.
		before, noticed time.Duration
		unnoticed       bool
		unchanged       bool
		first           bool // nothing was fetched before
		missed          time.Duration
		created         time.Duration
		added           []mirror.Resource
		want            map[mirror.Kind]int64
	}{
		"Storage": {
			resource: storage, epoch: 1, unnoticed: true,
			want: one(mirror.KindStorage),
		},
		"Yjs document": {
			resource: of(mirror.KindYdoc, ""), epoch: 1, unnoticed: true,
			want: one(mirror.KindYdoc),
		},
		"subdocument": {resource: of(mirror.KindYdoc, "guid"), epoch: 1, unnoticed: true},
		"thread": {
			resource: of(mirror.KindThread, "t"), epoch: 1, unnoticed: true,
			want: one(mirror.KindThread),
		},
		"new threads": {
			resource: of(mirror.KindThread, ""), epoch: 1, unnoticed: true,
			added: []mirror.Resource{of(mirror.KindThread, "t"), of(mirror.KindThread, "u")},
			want:  map[mirror.Kind]int64{mirror.KindThread: 2},
		},
		"list without new threads": {resource: of(mirror.KindThread, ""), epoch: 1, unnoticed: true},
		"group":                    {resource: of(mirror.KindGroup, "g"), epoch: 1, unnoticed: true},
		"active users":             {resource: of(mirror.KindActiveUsers, ""), epoch: 1, unnoticed: true},
		"metadata of a room":       {resource: room, epoch: 1, unnoticed: true},
		"new room": {
			resource: room, unnoticed: true, created: -time.Minute,
			want: one(mirror.KindRoom),
		},
		"new room, event on its way": {resource: room, noticed: 5 * time.Second, created: -time.Minute},
		"room of before the start":   {resource: room, unnoticed: true, created: -30 * time.Hour},
		"unchanged":                  {resource: storage, epoch: 1, unnoticed: true, unchanged: true},
		"first fetch":                {resource: storage, epoch: 1, unnoticed: true, first: true},
		"fetched before the start":   {resource: storage, epoch: 1, unnoticed: true, before: 25 * time.Hour},
		"event before the fetch before": {
			resource: storage, epoch: 1, noticed: -2 * time.Hour,
			want: one(mirror.KindStorage),
		},
		"event of a change that was read late": {resource: storage, epoch: 1, noticed: -time.Hour - time.Minute},
		"event on its way":                     {resource: storage, epoch: 1, noticed: 70 * time.Second},
		"a delivery missed before both fetches": {
			resource: storage, epoch: 1, unnoticed: true, missed: -2 * time.Hour,
			want: one(mirror.KindStorage),
		},
		"a delivery missed between them": {resource: storage, epoch: 1, unnoticed: true, missed: -30 * time.Minute},
		"a delivery missed afterwards":   {resource: storage, epoch: 1, unnoticed: true, missed: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				pass(24 * time.Hour)
				now := time.Now()
				since := start
				var log bytes.Buffer
				e := &events{
					noticed: make(map[mirror.Resource]time.Time), noted: make(map[mirror.Kind]int64),
					created: map[mirror.RoomID]time.Time{"r": now.Add(c.created)},
				}
				told := make(map[mirror.Kind]int64)
				w := NewWatch(WatchConfig{
					Project: project, Store: e, Now: time.Now,
					Counted: func(kind mirror.Kind, n int64) { e.with(func() { told[kind] += n }) },
					Since: func() (at time.Time) {
						e.with(func() { at = since })
						return at
					},
					Logger: slog.New(slog.NewTextHandler(&log, nil)),
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = w.Run(ctx) }()
				lease := mirror.Lease{Resource: c.resource, Epoch: c.epoch, Background: true}
				if c.epoch > 0 && !c.first {
					lease.FetchTime = now.Add(-cmp.Or(c.before, time.Hour))
				}
				if c.missed < 0 {
					e.with(func() { since = now.Add(c.missed) })
				}
				w.Swept(lease, mirror.Applied{Changed: !c.unchanged, Added: c.added})
				e.with(func() {
					if c.missed > 0 {
						since = now.Add(c.missed)
					}
					if !c.unnoticed {
						e.noticed[c.resource] = now.Add(c.noticed)
					}
				})
				pass(3 * underway)
				if !maps.Equal(e.noted, c.want) || !maps.Equal(told, c.want) {
					t.Errorf("counted = %v, told = %v; want %v", e.noted, told, c.want)
				}
				if warned := strings.Contains(log.String(), "level=WARN"); warned != (len(c.want) > 0) {
					t.Errorf("log = %q; want a warning: %t", log.String(), len(c.want) > 0)
				}
			})
		})
	}
}

// What one sweep finds is one line of the log. Without findings nothing is asked, and
// what could not be looked up is looked up later.
func TestWatchIsQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := &events{noted: make(map[mirror.Kind]int64), err: errors.New("the database is away")}
		start := time.Now()
		w := NewWatch(WatchConfig{
			Project: project, Store: e, Since: func() time.Time { return start }, Now: time.Now,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = w.Run(ctx) }()
		pass(time.Hour)
		if e.asked != 0 {
			t.Fatalf("the store was asked %d times without a reason", e.asked)
		}
		for i, id := range ids(300) {
			for _, kind := range []mirror.Kind{mirror.KindStorage, mirror.KindYdoc} {
				r := mirror.Resource{Project: project, Room: id, Kind: kind}
				w.Swept(mirror.Lease{Resource: r, Epoch: 1, FetchTime: start.Add(time.Minute)}, mirror.Applied{Changed: i < 250})
			}
			pass(time.Second)
		}
		pass(2 * time.Hour)
		if len(e.noted) > 0 || e.asked < 5 {
			t.Fatalf("counted = %v after %d questions; want nothing counted, and the question repeated", e.noted, e.asked)
		}
		e.with(func() { e.err = nil })
		pass(time.Hour)
		want := map[mirror.Kind]int64{mirror.KindStorage: 250, mirror.KindYdoc: 250}
		if !maps.Equal(e.noted, want) {
			t.Errorf("counted = %v; want %v", e.noted, want)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 1 ||
			!strings.Contains(log.String(), "storage=250 ydoc=250") {
			t.Errorf("log = %q; want one line with the numbers", log.String())
		}
		asked := e.asked
		pass(24 * time.Hour)
		if e.asked != asked {
			t.Errorf("the store was asked %d times more without a reason", e.asked-asked)
		}
	})
}
