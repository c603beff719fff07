package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// delay is how long the calls of a source take.
const delay = 50 * time.Millisecond

// source plays Liveblocks for a pool: it has versions of documents, which its answers
// show as they were at some time during the call.
type source struct {
	*bench
	pool *Pool
	// read returns when during a call the document is read, and how long the call takes.
	read func() (after, took time.Duration)

	mu       sync.Mutex
	versions map[mirror.Resource]int
	shown    map[mirror.Resource]int // by the row
	calls    int
	waiting  map[mirror.Resource][]event
	late     []time.Duration // how late rows showed events
}

// event is one that a row does not show yet.
type event struct {
	at                  time.Time
	version, generation int
}

func newSource(b *bench, change func(*Config)) *source {
	s := &source{
		bench: b, read: func() (after, took time.Duration) { return 0, delay },
		versions: make(map[mirror.Resource]int), shown: make(map[mirror.Resource]int),
		waiting: make(map[mirror.Resource][]event),
	}
	s.pool = New(b.config(change))
	b.run(s.pool, map[mirror.Kind]Handler{mirror.KindStorage: s.fetch})
	return s
}

func (s *source) fetch(ctx context.Context, lease mirror.Lease) (Apply, error) {
	called(ctx)
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	after, took := s.read()
	version := 0
	for i, wait := range []time.Duration{after, took - after} {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("fetch: %w", ctx.Err())
		}
		if i == 0 {
			s.mu.Lock()
			version = s.versions[lease.Resource]
			s.mu.Unlock()
		}
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		applied, err := s.tasks.apply(ctx, lease)
		if err == nil {
			s.show(lease.Resource, version, int(applied.Generation))
		}
		return applied, err
	}, nil
}

// show notes what the row shows from now on, and checks it.
func (s *source) show(r mirror.Resource, version, generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.shown[r]; version < before {
		s.Errorf("%s: version %d was written over %d", r.Room, version, before)
	}
	s.shown[r] = version
	s.waiting[r] = slices.DeleteFunc(s.waiting[r], func(e event) bool {
		switch {
		case version >= e.version:
			s.late = append(s.late, time.Since(e.at))
			return true
		case generation >= e.generation:
			s.Errorf("%s: generation %d is done by version %d; its event was sent for version %d", r.Room, generation, version,
				e.version)
		}
		return false
	})
}

// change changes a document and delivers the event.
func (s *source) change(r mirror.Resource) {
	s.mu.Lock()
	s.versions[r]++
	version := s.versions[r]
	s.mu.Unlock()
	s.tasks.raise(time.Now(), r)
	generation := s.tasks.state(r).Generation
	s.mu.Lock()
	s.waiting[r] = append(s.waiting[r], event{time.Now(), version, int(generation)})
	s.mu.Unlock()
	s.pool.Push([]mirror.Pending{{Resource: r, Generation: generation}})
}

// settle makes the resource due once more, for nobody.
func (s *source) settle(r mirror.Resource) {
	s.tasks.mu.Lock()
	defer s.tasks.mu.Unlock()
	st := s.tasks.states[r]
	st.Due = time.Now()
	s.tasks.states[r] = st
	s.pool.Push(marked(r))
}

// want checks when events were shown, and how many calls were made, since the last time.
func (s *source) want(calls int, late ...time.Duration) {
	s.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.late, late) || s.calls != calls {
		s.Fatalf("events were shown after %v, by %d calls; want %v, by %d", s.late, s.calls, late, calls)
	}
	s.late, s.calls = nil, 0
}

// know lets the pool find out how long calls take.
func (s *source) know(r mirror.Resource) {
	s.change(r)
	pass(time.Second)
	s.want(1, delay)
}

// An event that arrives during a fetch is shown as soon as it can be, without making
// those wait longer for whom the fetch began.
func TestEventDuringAFetch(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	r := resource(0)
	for name, c := range map[string]struct {
		act   func(s *source)
		calls int
		late  []time.Duration
	}{
		"early": {func(s *source) {
			s.change(r)
			pass(10 * ms)
			s.change(r)
		}, 2, []time.Duration{60 * ms, 50 * ms}},
		"late": {func(s *source) {
			s.change(r)
			pass(40 * ms)
			s.change(r)
		}, 2, []time.Duration{50 * ms, 60 * ms}},
		"during a settle fetch": {func(s *source) {
			s.settle(r)
			pass(45 * ms)
			s.change(r)
		}, 2, []time.Duration{50 * ms}},
		"again": {func(s *source) {
			for range 3 { // a burst costs one call more
				s.change(r)
				pass(10 * ms)
			}
		}, 3, []time.Duration{60 * ms, 50 * ms, 90 * ms}},
		"of what may end the process": {func(s *source) {
			s.tasks.mu.Lock()
			st := s.tasks.states[r]
			st.Deaths = store.MaxDeaths
			s.tasks.states[r] = st
			s.tasks.mu.Unlock()
			s.change(r) // it runs while nothing else does, and would have to wait for that again
			pass(10 * ms)
			s.change(r)
		}, 2, []time.Duration{50 * ms, 90 * ms}},
		"the same one": {func(s *source) {
			s.change(r)
			pass(10 * ms)
			s.pool.Push([]mirror.Pending{{Resource: r, Generation: s.tasks.state(r).Generation}})
		}, 1, []time.Duration{50 * ms}},
		"of a sweep": {func(s *source) {
			s.change(r)
			pass(10 * ms)
			s.tasks.raise(time.Now(), r)
			s.pool.PushBackground([]mirror.Pending{{Resource: r, Generation: s.tasks.state(r).Generation}})
		}, 2, []time.Duration{50 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				s := newSource(b, nil)
				s.know(r)
				c.act(s)
				pass(time.Second)
				s.want(c.calls, c.late...)
				s.wantDone(r)
				if st := s.tasks.state(r); st.Attempts != 0 || st.Deaths != 0 {
					s.Fatalf("state = %+v; want no attempt counted", st)
				}
			})
		})
	}
}

// While calls wait for their turns, a fetch is not given up: the next one would wait too.
func TestNoFetchIsGivenUpWhileCallsWait(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		s := newSource(b, nil)
		r := resource(0)
		s.know(r)
		s.change(r)
		pass(10 * time.Millisecond)
		b.limiter.close()
		s.change(resource(1))
		synctest.Wait()
		s.change(r)
		pass(delay)
		s.want(1, delay)
		b.limiter.open()
		pass(delay)
		s.want(2, 2*delay, 2*delay)
	})
}

// However many events arrive, the row is written, for each call or two, and the calls
// follow one another.
func TestSteadyEventsStarveNoRow(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, every := range []time.Duration{ms, 7 * ms, 20 * ms, 30 * ms} {
		t.Run(every.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				s := newSource(b, nil)
				r := resource(0)
				s.know(r)
				for begun := time.Now(); time.Since(begun) < 10*time.Second; {
					s.change(r)
					pass(every)
				}
				pass(time.Second)
				s.wantDone(r)
				if most := slices.Max(s.late); most > 2*delay {
					b.Fatalf("an event was shown after %v; want at most two calls", most)
				}
				if most := int(10*time.Second/delay) + 3; s.calls > most {
					b.Fatalf("calls = %d; want at most %d", s.calls, most)
				}
			})
		})
	}
}

// Whenever during a call the document is read: nothing stale is taken for fresh, and no
// older version is written over a newer one.
func TestAnswersAreWrittenInOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				random, reads := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
				s := newSource(b, nil)
				s.read = func() (after, took time.Duration) {
					s.mu.Lock()
					defer s.mu.Unlock()
					took = delay/2 + time.Duration(reads.Int64N(int64(delay)))
					return time.Duration(reads.Int64N(int64(took))), took
				}
				for range 500 {
					r := resource(random.IntN(4))
					if random.IntN(4) == 0 && s.tasks.state(r).Generation > 0 {
						s.settle(r)
					} else {
						s.change(r)
					}
					pass(time.Duration(random.Int64N(int64(30 * time.Millisecond))))
				}
				pass(time.Second)
				if n := len(s.late); n == 0 || len(s.waiting[resource(0)]) > 0 {
					b.Fatalf("%d events were shown, and of one room not %v", n, s.waiting[resource(0)])
				}
			})
		})
	}
}

// At 400 events a second over 500 rooms, the tail is near that of events that come alone.
func TestTailOfEvents(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		random := rand.New(rand.NewPCG(1, 0))
		s := newSource(b, func(c *Config) { c.Fetches = 64 })
		const events = 5000
		for range events {
			s.change(resource(random.IntN(500)))
			pass(time.Duration(random.ExpFloat64() * float64(time.Second) / 400))
		}
		pass(time.Second)
		slices.Sort(s.late)
		if p99 := s.late[len(s.late)*99/100]; p99 > delay*3/2 {
			t.Errorf("99th percentile = %v; want at most %v", p99, delay*3/2)
		}
		if s.calls > events*101/100 {
			t.Errorf("calls = %d for %d events; want at most one in a hundred more", s.calls, events)
		}
	})
}
