package retention_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/retention"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

// rows is a store with rows of some age in each table of a project, and entries in some
// buckets of the feed. A statement takes a tenth of a second.
type rows struct {
	store.Store

	old     map[string]int // by project and table
	entries [mirror.Buckets][]mirror.Change
	heads   mirror.Position
	calls   []string
	most    int // rows deleted by one statement
	fails   error
}

func (s *rows) call(ctx context.Context, what string) error {
	_ = clock.Sleep(ctx, time.Second/10)
	s.calls = append(s.calls, what)
	return s.fails
}

func (s *rows) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	key := string(x.Project) + " " + string(x.Table)
	if err := s.call(ctx, "expire "+key); err != nil {
		return store.Expired{}, err
	}
	n := min(s.old[key], x.Limit)
	s.old[key] -= n
	s.most = max(s.most, n)
	// As of tombstones with many rows: the next look begins where this one did.
	return store.Expired{Deleted: n, More: n == x.Limit, Oldest: x.Before.Add(-time.Hour)}, nil
}

func (s *rows) Oldest(ctx context.Context, _ mirror.ProjectID) (map[store.Aging]time.Time, error) {
	return map[store.Aging]time.Time{store.AgingEvents: time.Now().Add(-day)}, s.call(ctx, "oldest")
}

func (s *rows) Heads(ctx context.Context) (mirror.Position, error) {
	return s.heads, s.call(ctx, "heads")
}

func (s *rows) Earliest(ctx context.Context) (mirror.Position, error) {
	position := s.heads
	for bucket, entries := range s.entries {
		if len(entries) > 0 {
			position[bucket] = entries[0].Number - 1
		}
	}
	return position, s.call(ctx, "earliest")
}

func (s *rows) Changes(ctx context.Context, ranges []store.ChangeRange) (list []mirror.Change, err error) {
	for _, r := range ranges {
		for _, c := range s.entries[r.Bucket] {
			if c.Number > r.After && c.Number <= r.To {
				list = append(list, c)
			}
		}
	}
	return list, s.call(ctx, "changes")
}

func (s *rows) Trim(ctx context.Context, bucket int16, through int64, limit int) (n int, err error) {
	for len(s.entries[bucket]) > 0 && s.entries[bucket][0].Number <= through && n < limit {
		s.entries[bucket] = s.entries[bucket][1:]
		n++
	}
	s.most = max(s.most, n)
	return n, s.call(ctx, "trim")
}

// fill puts entries of these ages into a bucket.
func (s *rows) fill(bucket int16, count int, age time.Duration) {
	for range count {
		s.heads[bucket]++
		s.entries[bucket] = append(s.entries[bucket], mirror.Change{
			Bucket: bucket, Number: s.heads[bucket], CommitTime: time.Now().Add(-age),
		})
	}
}

// run runs a Runner with everything kept for two days, until ctx ends.
func run(t *testing.T, s *rows, log *strings.Builder) *retention.Runner {
	t.Helper()
	keep := map[store.Aging]time.Duration{store.AgingEvents: 2 * day, store.AgingSessions: 2 * day}
	r := retention.New(retention.Config{
		Store: s, Projects: []retention.Project{{ID: "a", Keep: keep}, {ID: "b"}}, Changes: 2 * day, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v; want no error", err)
		}
	})
	return r
}

// look is what happens when the service looks for work.
func look(t *testing.T, r *retention.Runner, after time.Duration) {
	t.Helper()
	r.Wake()
	pass(t, after)
}

func pass(t *testing.T, d time.Duration) {
	t.Helper()
	_ = clock.Sleep(t.Context(), d)
	synctest.Wait()
}

func TestNothingHappensWhileNobodyLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &rows{old: map[string]int{"a mirror_event": 10}}
		r := run(t, s, new(strings.Builder))
		pass(t, 100*time.Hour)
		if len(s.calls) > 0 {
			t.Fatalf("calls = %q; want none", s.calls)
		}
		look(t, r, time.Hour)
		once := len(s.calls)
		if once == 0 || s.old["a mirror_event"] > 0 {
			t.Fatalf("calls after a look = %q; want all that is old gone", s.calls)
		}
		pass(t, 100*time.Hour)
		if len(s.calls) != once {
			t.Fatalf("calls = %q; want none after the first %d", s.calls, once)
		}
		// However often the service looks, there is a run an hour, and each hourly look has one.
		for range 60 {
			look(t, r, time.Minute)
		}
		if len(s.calls) < 2*once || len(s.calls) > 3*once {
			t.Fatalf("calls within an hour = %d; want those of one or two runs of %d", len(s.calls)-once, once)
		}
	})
}

func TestRowsAreDeletedInBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &rows{old: map[string]int{
			"a mirror_event": 2500, "a mirror_user_session": 1000, "a mirror_notification": 5, "b mirror_event": 7,
		}}
		s.fill(3, 2500, 3*day)
		s.fill(3, 2, day)
		s.fill(5, 3, 3*day)
		r := run(t, s, new(strings.Builder))
		look(t, r, time.Hour)
		if s.most > 1000 {
			t.Errorf("a statement deleted %d rows; want at most 1000", s.most)
		}
		for table, want := range map[string]int{
			"a mirror_event": 0, "a mirror_user_session": 0, "a mirror_notification": 5, "b mirror_event": 7,
		} {
			if s.old[table] != want {
				t.Errorf("old rows left of %s = %d; want %d", table, s.old[table], want)
			}
		}
		// The latest entry of a bucket stays, whatever its age.
		if n, m := len(s.entries[3]), len(s.entries[5]); n != 2 || m != 1 {
			t.Errorf("entries left = %d and %d; want 2 and 1", n, m)
		}
		status := r.Status("a")
		if len(status) != len(store.AgingTables) ||
			status[0].Deleted != 2500 || status[0].Behind != 0 || status[0].Keep != 2*day ||
			status[0].OldestTime.IsZero() || status[0].RunTime.IsZero() {
			t.Errorf("Status = %+v; want 2500 events deleted and none left", status)
		}
		if c := r.Changes(); c.Deleted != 2502 || c.Behind != 0 || !c.OldestTime.Equal(s.entries[3][0].CommitTime) {
			t.Errorf("Changes = %+v; want 2502 deleted, and the oldest of %v", c, s.entries[3][0].CommitTime)
		}
		if b := r.Status("b"); b[0].Deleted != 0 || b[0].Keep != 0 || b[0].RunTime.IsZero() {
			t.Errorf("Status of a project that keeps everything = %+v; want it looked at", b)
		}
	})
}

func TestRunsAreShortAndLeaveTimeToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &rows{old: map[string]int{"a mirror_event": 1_000_000, "a mirror_user_session": 4000}}
		s.fill(3, 10, 3*day)
		r := run(t, s, new(strings.Builder))
		look(t, r, 2*time.Minute)
		if n := len(s.calls); n > 70 {
			t.Fatalf("calls within a run of a minute = %d; want a second for each with its pause", n)
		}
		if b := r.Status("a")[0].Behind; b != time.Hour {
			t.Errorf("Behind = %v; want an hour", b)
		}
		// The others have their turn although the events take many runs.
		begun := len(s.calls)
		look(t, r, 3*time.Minute)
		look(t, r, 3*time.Minute)
		if s.old["a mirror_user_session"] > 0 || len(s.entries[3]) > 1 {
			t.Errorf("calls of later runs = %q; want sessions and changes gone", s.calls[begun:])
		}
	})
}

// No bucket of the feed waits for ever behind others that always have something old.
func TestBucketsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &rows{old: map[string]int{}}
		s.fill(255, 3, 3*day)
		r := run(t, s, new(strings.Builder))
		for range 20 {
			for bucket := range int16(200) {
				s.fill(bucket, 3, 3*day)
			}
			look(t, r, 3*time.Minute)
		}
		if n := len(s.entries[255]); n != 1 {
			t.Fatalf("entries left in the last bucket = %d; want the latest", n)
		}
	})
}

func TestFailuresAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &rows{old: map[string]int{"a mirror_event": 10}, fails: errors.New("disk full")}
		log := new(strings.Builder)
		r := run(t, s, log)
		look(t, r, time.Hour)
		if p := r.Status("a")[0].Problem; p == "" || strings.Contains(p, "disk") {
			t.Errorf("Problem = %q; want one that leaves the cause to the log", p)
		}
		if r.Changes().Problem == "" || !strings.Contains(log.String(), "old rows could not be deleted") ||
			!strings.Contains(log.String(), "disk full") {
			t.Errorf("log = %s; want the failure with its cause", log)
		}
		s.fails = nil
		look(t, r, time.Hour)
		if p := r.Status("a")[0].Problem; p != "" || s.old["a mirror_event"] > 0 {
			t.Errorf("Problem after the next run = %q; want none", p)
		}
	})
}
