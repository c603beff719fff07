package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/feed/feedtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// start runs a tailer until the test ends.
func start(t *testing.T, d *feedtest.Database, poll time.Duration) *Tailer {
	t.Helper()
	tailer := New(Config{
		Feed: d, Now: time.Now, Poll: poll, SafetyPoll: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tailer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return tailer
}

func follow(t *testing.T, tailer *Tailer, after *mirror.Position) *Follower {
	t.Helper()
	f, err := tailer.Follow(t.Context(), after)
	if err != nil {
		t.Fatalf("Follow = %v", err)
	}
	return f
}

// pass lets time go by, in the bubble.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // of the bubble

func everything(*mirror.Change) bool { return true }

// drain reads until there is nothing more.
func drain(t *testing.T, f *Follower, match func(*mirror.Change) bool) (all []mirror.Change) {
	t.Helper()
	for {
		page, err := f.Read(t.Context(), match, 100)
		if err != nil {
			t.Fatalf("Read = %v", err)
		}
		if all = append(all, page.Changes...); page.CaughtUp {
			return all
		}
	}
}

// What the process commits reaches followers without a query, and waiting costs none.
func TestOwnCommitsCostNoQuery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		d.Commit(3)
		tailer := start(t, d, 0)
		var followers []*Follower
		for range 10 {
			f := follow(t, tailer, nil)
			defer f.Close()
			followers = append(followers, f)
		}
		d.Asked()
		var want []mirror.Change
		for n := range 50 {
			c := d.Commit(n % 3)
			want = append(want, c)
			tailer.Committed([]mirror.Change{c})
			pass(10 * time.Second)
		}
		for _, f := range followers {
			if got := drain(t, f, everything); !slices.Equal(got, want) {
				t.Fatalf("changes = %v; want %v", got, want)
			}
		}
		if n := d.Asked(); n != 0 {
			t.Fatalf("there were %d queries; want none", n)
		}
		pass(2 * time.Hour)
		if n := d.Asked(); n == 0 || n > 3 {
			t.Fatalf("there were %d queries in two hours; want those of the safety poll", n)
		}
	})
}

// Nobody follows, nothing is read.
func TestNothingIsReadForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, time.Second)
		tailer.Committed([]mirror.Change{d.Commit(1)})
		tailer.Doubt()
		f := follow(t, tailer, nil)
		f.Close()
		d.Asked()
		pass(24 * time.Hour)
		if n := d.Asked(); n != 0 || len(tailer.ring)+len(tailer.early) > 0 {
			t.Fatalf("%d queries, %d changes kept; want none", n, len(tailer.ring)+len(tailer.early))
		}
	})
}

// Workers tell of commits in any order.
func TestCommitsOutOfOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, 0)
		f := follow(t, tailer, nil)
		defer f.Close()
		d.Asked()
		a, b, c := d.Commit(9), d.Commit(9), d.Commit(9)
		tailer.Committed([]mirror.Change{c})
		tailer.Committed([]mirror.Change{b})
		if got := drain(t, f, everything); len(got) != 0 {
			t.Fatalf("changes = %v; want none before the first", got)
		}
		tailer.Committed([]mirror.Change{a})
		if got, want := drain(t, f, everything), []mirror.Change{a, b, c}; !slices.Equal(got, want) {
			t.Fatalf("changes = %v; want %v", got, want)
		}
		pass(time.Minute)
		if n := d.Asked(); n != 0 {
			t.Fatalf("there were %d queries; want none", n)
		}
	})
}

// A number of another process is found by the next of ours, and then looked for.
func TestChangesOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, 0)
		f := follow(t, tailer, nil)
		defer f.Close()
		theirs, ours := d.Commit(7), d.Commit(7)
		tailer.Committed([]mirror.Change{ours})
		pass(2 * patience)
		if got, want := drain(t, f, everything), []mirror.Change{theirs, ours}; !slices.Equal(got, want) {
			t.Fatalf("changes = %v; want %v", got, want)
		}
		for range 5 {
			pass(2 * time.Second)
			more := d.Commit(8)
			pass(30 * time.Second) // as long as they were silent, at most
			if got, want := drain(t, f, everything), []mirror.Change{more}; !slices.Equal(got, want) {
				t.Fatalf("changes = %v; want %v", got, want)
			}
		}
		d.Asked()
		pass(24 * time.Hour)
		if n := d.Asked(); n > 40 {
			t.Fatalf("there were %d queries in a silent day; want few", n)
		}
	})
}

func TestRegularLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, time.Second)
		f := follow(t, tailer, nil)
		defer f.Close()
		pass(time.Hour)
		c := d.Commit(200)
		pass(1100 * time.Millisecond)
		if got, want := drain(t, f, everything), []mirror.Change{c}; !slices.Equal(got, want) {
			t.Fatalf("changes = %v; want %v", got, want)
		}
	})
}

// After a commit of which nobody knows the result, the database is asked.
func TestDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, 0)
		f := follow(t, tailer, nil)
		defer f.Close()
		c := d.Commit(1)
		tailer.Doubt()
		synctest.Wait()
		if got, want := drain(t, f, everything), []mirror.Change{c}; !slices.Equal(got, want) {
			t.Fatalf("changes = %v; want %v", got, want)
		}
	})
}

// A database that has gone back gives numbers again. Who follows is told, and starts again.
func TestDatabaseThatGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, time.Second)
		f := follow(t, tailer, nil)
		defer f.Close()
		for range 3 {
			tailer.Committed([]mirror.Change{d.Commit(4)})
		}
		if got := drain(t, f, everything); len(got) != 3 {
			t.Fatalf("changes = %v; want 3", got)
		}
		d.Restore(4, 2)
		pass(2 * time.Second)
		if page, err := f.Read(t.Context(), everything, 10); !errors.Is(err, ErrAhead) {
			t.Errorf("Read = %+v, %v; want %v", page, err, ErrAhead)
		}
	})
}

// Numbers that are given a second time are told too, however soon as many are committed again.
func TestDatabaseThatGoesBackAndCatchesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, 0)
		f := follow(t, tailer, nil)
		defer f.Close()
		for range 3 {
			tailer.Committed([]mirror.Change{d.Commit(4)})
		}
		if got := drain(t, f, everything); len(got) != 3 {
			t.Fatalf("changes = %v; want 3", got)
		}
		early := follow(t, tailer, &mirror.Position{4: 1})
		defer early.Close()
		if early.Outlived() || early.ReadTime() != time.Now() {
			t.Errorf("Outlived = %t, ReadTime = %v; want neither a life more nor an earlier look than this", early.Outlived(),
				early.ReadTime())
		}
		pass(time.Second)
		d.Restore(4, 2)
		second, third := d.Commit(4), d.Commit(4)
		tailer.Committed([]mirror.Change{second})
		tailer.Committed([]mirror.Change{third})
		if page, err := f.Read(t.Context(), everything, 10); !errors.Is(err, ErrAhead) {
			t.Errorf("Read = %+v, %v; want %v", page, err, ErrAhead)
		}
		if got, want := drain(t, early, everything), []mirror.Change{second, third}; !slices.Equal(got, want) {
			t.Errorf("changes of who had not come so far = %v; want %v", got, want)
		}
		if !early.Outlived() {
			t.Error("who had not come so far does not learn that the database has gone back")
		}
		pass(time.Minute)
		later := follow(t, tailer, nil)
		defer later.Close()
		fourth := d.Commit(4)
		tailer.Committed([]mirror.Change{fourth})
		if got, want := drain(t, later, everything), []mirror.Change{fourth}; !slices.Equal(got, want) {
			t.Errorf("changes of who came later = %v; want %v", got, want)
		}
	})
}

// What other processes commit all the time is not remembered for ever.
func TestChangesOfOthersAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, suspicion/2)
		defer follow(t, tailer, nil).Close()
		for range 1000 {
			d.Commit(4)
			pass(suspicion / 10)
		}
		tailer.mu.Lock()
		defer tailer.mu.Unlock()
		if n := len(tailer.strange); n > 30 {
			t.Fatalf("%d changes are remembered; want those of about two seconds", n)
		}
	})
}

// A connection that hangs, and a database that is away, keep nobody for long and are not
// asked again and again.
func TestDatabaseThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		tailer := start(t, d, 0)
		defer follow(t, tailer, nil).Close()
		begun := time.Now()
		d.Hang(true)
		_, err := tailer.Follow(t.Context(), nil)
		if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > readTimeout {
			t.Fatalf("Follow = %v after %v; want %v after %v", err, took, context.DeadlineExceeded, readTimeout)
		}
		d.Hang(false)
		d.Commit(9) // of another process
		tailer.Committed([]mirror.Change{d.Commit(9)})
		d.Fail(errAway)
		d.Asked()
		pass(time.Minute)
		if n := d.Asked(); n > 70 {
			t.Fatalf("the database was asked %d times within a minute; want about once a second", n)
		}
	})
}

// What is committed while the database is read is not taken for a database that has gone
// back, and not lost when the changes up to there cannot be kept.
func TestCommitsWhileHeadsAreRead(t *testing.T) {
	t.Parallel()
	for name, missing := range map[string]int{"nothing is missing": 0, "too many are missing": ringSize + 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &feedtest.Database{}
				tailer := start(t, d, time.Second)
				f := follow(t, tailer, nil)
				defer f.Close()
				for range missing {
					d.Commit(8)
				}
				var want, got []mirror.Change
				d.AfterHeads(sync.OnceFunc(func() {
					want = append(want, d.Commit(4))
					tailer.Committed(want)
					got = drain(t, f, everything)
				}))
				pass(1500 * time.Millisecond)
				synctest.Wait()
				want = append(want, d.Commit(4))
				tailer.Committed(want[1:])
				got = append(got, drain(t, f, func(c *mirror.Change) bool { return c.Bucket == 4 })...)
				if !slices.Equal(got, want) {
					t.Fatalf("changes = %v; want %v", got, want)
				}
			})
		})
	}
}

// A server that lags is not taken for a trim: the changes come, only later.
func TestServerThatLags(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{Lag: 2}
		want := []mirror.Change{d.Commit(4), d.Commit(4)}
		tailer := start(t, d, time.Second)
		f := follow(t, tailer, &mirror.Position{})
		defer f.Close()
		if page, err := f.Read(t.Context(), everything, 10); !fault.Is(err, fault.ReasonStoreUnavailable) {
			t.Fatalf("Read = %+v, %v; want %v", page, err, fault.ReasonStoreUnavailable)
		}
		d.Lag = 0
		if got := drain(t, f, everything); !slices.Equal(got, want) {
			t.Fatalf("changes = %v; want %v", got, want)
		}
	})
}

func TestPositionsThatAreNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		for range 10 {
			d.Commit(4)
		}
		tailer := start(t, d, 0)
		var ahead mirror.Position
		ahead[5] = 1
		if _, err := tailer.Follow(t.Context(), &ahead); !errors.Is(err, ErrAhead) {
			t.Fatalf("Follow from ahead = %v; want %v", err, ErrAhead)
		}
		d.TrimTo(4, 3)
		for from, want := range map[int64]error{2: store.ErrTrimmed, 3: nil, 10: nil} {
			var at mirror.Position
			at[4] = from
			f := follow(t, tailer, &at)
			page, err := f.Read(t.Context(), func(*mirror.Change) bool { return false }, 100)
			if !errors.Is(err, want) {
				t.Errorf("Read from %d = %+v, %v; want %v", from, page, err, want)
			}
			f.Close()
		}
		// A trim while somebody is on the way is found too, whatever the filter.
		var at mirror.Position
		at[4] = 3
		f := follow(t, tailer, &at)
		defer f.Close()
		if _, err := f.Read(t.Context(), everything, 2); err != nil {
			t.Fatalf("Read = %v", err)
		}
		d.TrimTo(4, 6)
		if _, err := f.Read(t.Context(), func(*mirror.Change) bool { return false }, 2); !errors.Is(err, store.ErrTrimmed) {
			t.Fatalf("Read after a trim = %v; want %v", err, store.ErrTrimmed)
		}
	})
}

func TestFollowFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		d.Fail(errAway)
		tailer := New(Config{Feed: d, Now: time.Now, SafetyPoll: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tailer.Run(ctx) }()
		if _, err := tailer.Follow(t.Context(), nil); !errors.Is(err, errAway) {
			t.Fatalf("Follow without a database = %v; want %v", err, errAway)
		}
		d.Fail(nil)
		f := follow(t, tailer, nil)
		for range MaxFollowers - 1 {
			defer follow(t, tailer, nil).Close()
		}
		if _, err := tailer.Follow(t.Context(), nil); !fault.Is(err, fault.ReasonWatchersLimited) {
			t.Fatalf("Follow of too many = %v; want %v", err, fault.ReasonWatchersLimited)
		}
		page, err := f.Read(t.Context(), everything, 1)
		if err != nil {
			t.Fatalf("Read = %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		select {
		case <-page.More():
		default:
			t.Error("who waits is not told that it is over")
		}
		if _, err := f.Read(t.Context(), everything, 1); !fault.Is(err, fault.ReasonShuttingDown) {
			t.Fatalf("Read at the end = %v; want %v", err, fault.ReasonShuttingDown)
		}
		f.Close()
		if _, err := tailer.Follow(t.Context(), nil); !fault.Is(err, fault.ReasonShuttingDown) {
			t.Fatalf("Follow at the end = %v; want %v", err, fault.ReasonShuttingDown)
		}
	})
}

func TestAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &feedtest.Database{}
		rng := rand.New(rand.NewPCG(3, 4))
		begin := time.Now()
		for range 300 {
			d.Commit(rng.IntN(5))
			pass(time.Second)
		}
		d.TrimTo(2, 20)
		for _, s := range []int{-1, 0, 1, 77, 150, 299, 300, 1000} {
			from := begin.Add(time.Duration(s) * time.Second)
			got, err := At(t.Context(), d, from)
			if err != nil {
				t.Fatalf("At = %v", err)
			}
			trimmed, _ := d.Earliest(t.Context())
			for bucket, n := range got {
				want := trimmed[bucket]
				for _, c := range d.Entries(bucket) {
					if c.CommitTime.Before(from) {
						want = max(want, c.Number)
					}
				}
				if n != want {
					t.Fatalf("At %ds, bucket %d = %d; want %d", s, bucket, n, want)
				}
			}
		}
	})
}

// Writers of this process and of another, and followers who are cut off after any page and
// go on from where they stood, while the beginning is trimmed: each sees all, once and in
// order, or learns that it cannot.
func TestFollowersMissNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { missNothing(t, seed) })
		})
	}
}

func missNothing(t *testing.T, seed uint64) {
	d := &feedtest.Database{}
	tailer := start(t, d, time.Duration(seed%2)*time.Second)
	var writers, followers sync.WaitGroup
	for w := range 8 {
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		writers.Go(func() {
			for range 200 {
				pass(time.Duration(rng.IntN(400)) * time.Millisecond)
				var changes []mirror.Change
				for range 1 + rng.IntN(3) {
					changes = append(changes, d.Commit(rng.IntN(6)*50))
				}
				pass(time.Duration(rng.IntN(30)) * time.Millisecond)
				if w%2 == 0 { // the others are another process
					tailer.Committed(changes)
				}
			}
		})
	}
	done := make(chan struct{})
	seen := make([][]mirror.Change, 4)
	for n := range seen {
		rng := rand.New(rand.NewPCG(seed, 100+uint64(n)))
		match := everything
		if n%2 == 1 {
			match = func(c *mirror.Change) bool { return c.Bucket != 50 }
		}
		followers.Go(func() {
			var at mirror.Position
			for ended := false; !ended; {
				f, err := tailer.Follow(t.Context(), &at)
				if err != nil {
					t.Errorf("Follow = %v", err)
					return
				}
				for rng.IntN(20) > 0 {
					page, err := f.Read(t.Context(), match, 1+rng.IntN(20))
					if err != nil {
						t.Errorf("Read = %v", err)
						return
					}
					seen[n], at = append(seen[n], page.Changes...), f.Position()
					if !page.CaughtUp {
						continue
					}
					select {
					case <-page.More():
					case <-time.After(5 * time.Second):
					case <-done:
						ended = covers(&at, ptr(heads(d)))
						pass(time.Second)
					}
				}
				f.Close()
				if n == 3 { // one is away for long, and others trim behind it only
					pass(time.Duration(rng.IntN(5000)) * time.Millisecond)
				}
				d.TrimTo(250, at[250]-1000)
			}
		})
	}
	writers.Wait()
	close(done)
	followers.Wait()
	byPlace := func(a, b mirror.Change) int {
		return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Number, b.Number))
	}
	for n, got := range seen {
		last := make(map[int16]int64)
		for _, c := range got {
			if c.Number <= last[c.Bucket] {
				t.Fatalf("follower %d saw %d of bucket %d after %d", n, c.Number, c.Bucket, last[c.Bucket])
			}
			last[c.Bucket] = c.Number
		}
		var want []mirror.Change
		for bucket := range mirror.Buckets {
			if n%2 == 0 || bucket != 50 {
				want = append(want, d.Entries(bucket)...)
			}
		}
		slices.SortFunc(got, byPlace)
		if !slices.Equal(got, want) {
			t.Fatalf("follower %d saw %d changes; want all %d", n, len(got), len(want))
		}
	}
}

// heads is where the feed ends by now.
func heads(d *feedtest.Database) mirror.Position {
	p, _ := d.Heads(context.Background())
	return p
}

var errAway = errors.New("away")

func ptr[T any](v T) *T { return &v }
