package queue

import (
	"slices"
	"sync"
)

// Shared is what the pools of several projects share: workers, and places among the
// fetches. No project can keep the others from working:
//
//   - A project that holds no place gets one, even if all are taken.
//   - A free worker goes to the project that has the fewest of those which wait for one.
//     Tasks hold workers briefly.
//   - A project never holds more fetches than it leaves free, because calls that hang
//     hold theirs for long. The more projects fetch, the less each of them may hold, and
//     something is left for one that was idle.
//
// The zero value is ready for use.
type Shared struct {
	mu               sync.Mutex
	workers, fetches places
	// alone are the pools with a task that begins while nothing else runs, in order.
	alone []*Pool
}

// places are of one kind.
type places struct {
	shared *Shared
	// spare means that a member leaves as many free as it holds.
	spare   bool
	total   int
	used    int
	members []*share
}

// share is what one pool has of the places. Its own methods are called with the pool's
// lock.
type share struct {
	of   *places
	pool *Pool
	held int
	// waits means that the pool was refused a place, and could use one.
	waits bool
}

// join returns the shares of a pool.
func (s *Shared) join(p *Pool) (workers, fetches *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.workers.shared == nil { // once: pools that run read it without the lock, to take it
		s.workers.shared, s.fetches.shared, s.fetches.spare = s, s, true
	}
	return s.workers.join(p, p.cfg.Workers), s.fetches.join(p, p.cfg.Fetches)
}

func (p *places) join(pool *Pool, total int) *share {
	p.total = max(p.total, total)
	s := &share{of: p, pool: pool}
	p.members = append(p.members, s)
	return s
}

// most is how many places the pool can have at most.
func (s *share) most() int {
	s.of.shared.mu.Lock()
	defer s.of.shared.mu.Unlock()
	if s.of.spare && len(s.of.members) > 1 {
		return max(s.of.total/2, 1)
	}
	return s.of.total
}

// free reports whether the pool may have another place. If it may not, it is woken when
// it perhaps may.
func (s *share) free() bool {
	s.of.shared.mu.Lock()
	defer s.of.shared.mu.Unlock()
	if len(s.of.shared.alone) > 0 {
		return false
	}
	s.waits = !s.may()
	return !s.waits
}

// take takes a place if the pool may have another one; see free. begun means that the
// task has begun, or begins alone; others do not begin beside one that is to run alone.
func (s *share) take(begun bool) bool {
	s.of.shared.mu.Lock()
	defer s.of.shared.mu.Unlock()
	switch {
	case !begun && len(s.of.shared.alone) > 0:
		s.pass() // it must not hold up what that one waits for
		return false
	case !s.may():
		s.waits = true
		return false
	}
	s.held++
	s.of.used++
	s.pass()
	return true
}

func (s *share) may() bool {
	p := s.of
	switch {
	case s.held == 0:
		return true
	case p.used >= p.total:
		return false
	case p.spare:
		return len(p.members) == 1 || s.held < p.total-p.used
	}
	return !slices.ContainsFunc(p.members, func(o *share) bool { return o.waits && o.held < s.held })
}

// give returns a place.
func (s *share) give() {
	s.of.shared.mu.Lock()
	defer s.of.shared.mu.Unlock()
	s.held--
	s.of.used--
	s.of.wake(s)
	s.of.shared.wakeAlone()
}

// done says that the pool could use no place that it was refused.
func (s *share) done() {
	s.of.shared.mu.Lock()
	defer s.of.shared.mu.Unlock()
	s.pass()
}

// pass ends the wait for a place, and lets those go on who waited behind it.
func (s *share) pass() {
	if s.waits {
		s.waits = false
		s.of.wake(s)
	}
}

// wake wakes the pools that wait, except one.
func (p *places) wake(except *share) {
	for _, o := range p.members {
		if o != except && o.waits {
			o.pool.signal()
		}
	}
}

// beAlone reports whether a task of the pool may begin which is to run while nothing else
// does. Until it has run, no other begins.
func (s *Shared) beAlone(p *Pool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.alone, p) {
		s.alone = append(s.alone, p)
	}
	return s.alone[0] == p && s.workers.used+s.fetches.used == 0
}

// wakeAlone wakes the pool whose task is to run alone once nothing else runs.
func (s *Shared) wakeAlone() {
	if len(s.alone) > 0 && s.workers.used+s.fetches.used == 0 {
		s.alone[0].signal()
	}
}

// wasAlone says that the task of the pool that ran alone has ended.
func (s *Shared) wasAlone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alone = s.alone[1:]
	for _, of := range []*places{&s.workers, &s.fetches} {
		for _, m := range of.members {
			m.pool.signal()
		}
	}
}
