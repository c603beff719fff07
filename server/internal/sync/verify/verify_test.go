package verify

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/items"
)

const project = mirror.ProjectID("default")

// damaged is a mirror of one room whose copy is not what Liveblocks has.
type damaged struct {
	Store // what is not used here
}

func (d damaged) RoomIDs(context.Context, store.RoomFilter) ([]mirror.RoomID, error) { return nil, nil }

func (d damaged) Room(context.Context, mirror.Resource, bool) (mirror.Room, error) {
	return mirror.Room{Project: project, ID: "room"}, nil
}

func (d damaged) Stored(context.Context, mirror.Resource) (mirror.Stored, error) {
	return mirror.Stored{Content: []byte(`{}`)}, nil
}

func (d damaged) Documents(context.Context, store.DocumentFilter) ([]mirror.Document, error) {
	return nil, nil
}

func (d damaged) KnownItems(context.Context, mirror.Resource) (map[string]store.Known, error) {
	return nil, nil
}

func (d damaged) Task(context.Context, mirror.Resource, time.Time) (mirror.Task, error) {
	return mirror.Task{State: mirror.TaskDone}, nil
}

func (d damaged) Invalidate(context.Context, mirror.Resource) error { return nil }

// denying is a Liveblocks that lists a room, and denies what is in it.
type denying struct {
	room error // how it answers when it is asked for the room
}

// content is the room as Liveblocks has it.
var content = mirror.RoomContent{Source: []byte(`{"id":"room","metadata":{}}`)}

func (d denying) ListRooms(context.Context, string, int) (mirror.RoomPage, error) {
	return mirror.RoomPage{Rooms: []mirror.ListedRoom{{ID: "room", Content: content}}}, nil
}

func (d denying) Room(context.Context, mirror.RoomID) (mirror.RoomContent, error) {
	return content, d.room
}

func (d denying) Storage(context.Context, mirror.RoomID) (mirror.Fetched, error) {
	return mirror.Fetched{}, denied()
}

func (d denying) Ydoc(context.Context, mirror.RoomID, string) (mirror.Fetched, error) {
	return mirror.Fetched{}, denied()
}

func (d denying) Threads(context.Context, mirror.RoomID) (mirror.List, error) {
	return mirror.List{}, denied()
}

func (d denying) Groups(context.Context) (mirror.List, error) { return mirror.List{}, nil }

func denied() error {
	return fault.New(fault.Precondition, fault.ReasonUpstreamAccessDenied, "Liveblocks denies access to the room")
}

// open is a limiter that never closes until it is paused.
type open struct{ paused chan struct{} }

func (o open) UntilPaused(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	go func() { // ends when it is released
		select {
		case <-o.paused:
			cancel(fault.New(fault.Unavailable, fault.ReasonProjectPaused, "paused"))
		case <-stop:
		}
	}()
	return ctx, func() { close(stop); cancel(nil) }
}

// The table of kinds says which kinds are compared.
func TestVerifiedKindsAreCompared(t *testing.T) {
	t.Parallel()
	for _, kind := range mirror.Kinds() {
		_, items := items.Sources[kind]
		if compared := comparisons[kind] != nil || items; compared != kind.Traits().Verified {
			t.Errorf("%s is compared: %t; want %t", kind, compared, !compared)
		}
	}
}

// A pause lasts until somebody mends the key: no verification waits for that.
func TestPauseEndsAVerification(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter := open{paused: make(chan struct{})}
		v := New(Config{Store: damaged{}, Fetcher: denying{}, Limiter: limiter, Now: time.Now})
		done := make(chan error, 1)
		go func() { // received below
			done <- v.Verify(t.Context(), mirror.VerifyOptions{Project: project}, func(mirror.VerifyReport) error { return nil })
		}()
		synctest.Wait()
		close(limiter.paused)
		if err := <-done; !fault.Is(err, fault.ReasonProjectPaused) {
			t.Fatalf("Verify = %v; want PROJECT_PAUSED", err)
		}
	})
}

// A difference that could be looked at but once is no difference, and not none
// either: a verification that tells of nothing has compared everything.
func TestVerifyTellsWhatItCouldNotLookAtAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		room error
		want mirror.VerifySummary
	}{
		// Storage, Yjs and threads are skipped by the first look.
		"it is looked at again": {nil, mirror.VerifySummary{Differences: 1, Skipped: 3}},
		"it is denied":          {denied(), mirror.VerifySummary{Skipped: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := New(Config{Store: damaged{}, Fetcher: denying{c.room}, Limiter: open{}, Now: time.Now})
				var got mirror.VerifySummary
				err := v.Verify(t.Context(), mirror.VerifyOptions{Project: project}, func(report mirror.VerifyReport) error {
					if report.Summary != nil {
						got = *report.Summary
					}
					return nil
				})
				if err != nil || got.Differences != c.want.Differences || got.Skipped != c.want.Skipped {
					t.Fatalf("Verify = %v, %+v; want %+v", err, got, c.want)
				}
			})
		})
	}
}

// lacking is a Liveblocks that does not have threads and fails for Storage, until the
// third attempt for the Yjs document.
type lacking struct {
	denying

	ydocs *int
}

func (l lacking) Storage(context.Context, mirror.RoomID) (mirror.Fetched, error) {
	return mirror.Fetched{}, fault.New(fault.Precondition, fault.ReasonUpstreamAnswerTooLarge, "too long").
		With("status", "200")
}

func (l lacking) Ydoc(context.Context, mirror.RoomID, string) (mirror.Fetched, error) {
	if *l.ydocs++; *l.ydocs < 3 {
		return mirror.Fetched{}, fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable, "down").With("status", "502").
			After(2 * progressEvery)
	}
	return mirror.Fetched{}, denied()
}

func (l lacking) Threads(context.Context, mirror.RoomID) (mirror.List, error) {
	return mirror.List{}, fault.New(fault.Precondition, fault.ReasonUpstreamUnsupported, "not here").With("status", "501")
}

// What could not be compared is named, with the reason and the status; a kind that
// Liveblocks does not have is named once and counts for nothing. What hangs is named
// while it does.
func TestVerifyNamesWhatItSkips(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := New(Config{Store: damaged{}, Fetcher: lacking{ydocs: new(int)}, Limiter: open{}, Now: time.Now})
		var summary mirror.VerifySummary
		var skips []mirror.VerifySkip
		var waits []string
		begin := time.Now().UTC()
		err := v.Verify(t.Context(), mirror.VerifyOptions{Project: project}, func(report mirror.VerifyReport) error {
			switch {
			case report.Summary != nil:
				summary = *report.Summary
			case report.Skip != nil:
				skips = append(skips, *report.Skip)
			case report.Progress != nil && report.Progress.Waiting != "":
				waits = append(waits, report.Progress.Waiting)
			}
			return nil
		})
		of := func(kind mirror.Kind, room mirror.RoomID) mirror.Resource {
			return mirror.Resource{Project: project, Room: room, Kind: kind}
		}
		want := []mirror.VerifySkip{
			{Resource: of(mirror.KindStorage, "room"), Reason: "too long", Status: 200},
			{Resource: of(mirror.KindYdoc, "room"), Reason: fault.Of(denied()).Public},
			{Resource: of(mirror.KindThread, ""), Reason: "not here", Status: 501},
		}
		if diff := cmp.Diff(want, skips); err != nil || diff != "" {
			t.Errorf("Verify = %v; skips (-want +got):\n%s", err, diff)
		}
		if summary.Skipped != 2 || summary.SkipReason != "too long" ||
			!slices.Equal(summary.Unsupported, []mirror.Kind{mirror.KindThread}) {
			t.Errorf("summary = %+v; want two skipped and threads unsupported", summary)
		}
		hangs := `ydoc of room "room", since ` + begin.Format("15:04:05Z") + ": down (HTTP status 502)"
		if !slices.Equal(waits, []string{hangs, hangs}) {
			t.Errorf("waiting for %q; want %q twice", waits, hangs)
		}
	})
}
