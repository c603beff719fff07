package crash_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

func storageUpdated(room string) fake.Event {
	return fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: time.Now()}
}

// setStorage changes documents; their events are on their way afterwards.
func (s *site) setStorage(n int, rooms ...string) {
	s.t.Helper()
	for i, room := range rooms {
		if err := s.upstream.SetStorage(room, document(n+i)); err != nil {
			s.t.Fatalf("SetStorage = %v", err)
		}
	}
}

// hold keeps the next fetches of the rooms' documents from being answered, with
// what they read on delivery.
func (s *site) hold(rooms ...string) *fake.Hold {
	h := fake.NewHold()
	s.t.Cleanup(h.Release)
	for _, room := range rooms {
		s.upstream.Script(fake.Match{Room: room, Endpoint: fake.EndpointStorage}, h.Step())
	}
	return h
}

// awaitHeld waits until n calls are held.
func (s *site) awaitHeld(h *fake.Hold, n int) {
	s.t.Helper()
	for i := range n {
		select {
		case <-h.Arrived():
		case <-time.After(patience):
			s.t.Fatalf("%d calls arrived; want %d", i, n)
		}
	}
}

// fetches are the fake's calls for a resource, in order.
func (s *site) fetches(room string, endpoint fake.Endpoint) []fake.Call {
	calls := slices.DeleteFunc(s.upstream.Log(),
		func(c fake.Call) bool { return c.Room != room || c.Endpoint != endpoint })
	slices.SortFunc(calls, func(a, b fake.Call) int { return a.Begin.Compare(b.Begin) })
	return calls
}

// leases are the ends of the leases on documents that are due, by room.
func (s *site) leases() map[string]time.Time {
	s.t.Helper()
	ends := make(map[string]time.Time)
	s.each("select room_id, lease_until from mirror_resource_state where kind = 2 and due_time is not null and "+
		"lease_until is not null",
		func(scan func(dest ...any) error) error {
			var room string
			var end time.Time
			if err := scan(&room, &end); err != nil {
				return err
			}
			ends[room] = end
			return nil
		})
	return ends
}

// leftBy kills a replica and returns the ends of its leases, which no process renews any more.
// The other one, if it runs already, stands still meanwhile: it could take them over before
// they are read.
func (s *site) leftBy(dead, other *harness.Service, rooms []string) map[string]time.Time {
	s.t.Helper()
	if other != nil {
		s.signal(other, syscall.SIGSTOP)
	}
	s.kill(dead)
	ends := s.leases()
	if other != nil {
		s.signal(other, syscall.SIGCONT)
	}
	if len(ends) != len(rooms) {
		s.t.Fatalf("leases = %v; want one for each of %v", ends, rooms)
	}
	return ends
}

// last is the latest of some times.
func last(times map[string]time.Time) time.Time {
	var t time.Time
	for _, u := range times {
		if u.After(t) {
			t = u
		}
	}
	return t
}

// Invariant 6: as long as replicas live, and so renew their leases, no resource
// is fetched by two of them at once.
func TestReplicasShareWork(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := newSite(t, e)
		s.env["MIRROR_LEASE_TTL"] = "20s" // however slow the machine
		a, b := s.start(), s.start()
		s.populate(a)
		s.upstream.SetDelay(func(fake.Call) fake.Delay {
			return fake.Delay{Before: rand.N(10 * time.Millisecond), After: rand.N(20 * time.Millisecond)}
		})
		stop := s.load()
		s.more(300)
		stop()
		s.upstream.SetDelay(nil)
		s.converge(b)
		for _, service := range []interface{ Log() string }{a, b} {
			if strings.Contains(service.Log(), "lease lost") {
				t.Errorf("a replica that was alive has lost a lease:\n%s", service.Log())
			}
		}

		type resource struct {
			room     string
			endpoint fake.Endpoint
		}
		calls := s.upstream.Log()
		slices.SortFunc(calls, func(a, b fake.Call) int { return cmp.Or(a.Begin.Compare(b.Begin), a.End.Compare(b.End)) })
		latest := make(map[resource]fake.Call)
		for _, c := range calls {
			r := resource{c.Room, c.Endpoint}
			if before, ok := latest[r]; ok && c.Begin.Before(before.End) {
				t.Errorf("%v is fetched at %v while a fetch begun at %v lasts until %v", r, c.Begin, before.Begin, before.End)
			}
			latest[r] = c
		}
	})
}

// A replica that dies keeps its work to itself until its leases end, and no
// longer. The other one is awake and asks for the very same work all the time.
func TestReplicaTakesOver(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := newSite(t, e)
		a := s.start()
		s.populate(a)
		b := s.start()
		rooms := []string{"plan", "Plan", "plan ", "a/b?c#d%e", "room-08", "room-09", "room-10", "room-11"}
		before := make(map[string]int)
		for _, room := range rooms {
			before[room] = s.upstream.Calls(room, fake.EndpointStorage)
		}

		s.aim(a)
		hold := s.hold(rooms...)
		s.setStorage(1000, rooms...)
		s.awaitHeld(hold, len(rooms)) // as many as a replica does at once
		s.senders.Wait()
		first := s.leases()
		if len(first) != len(rooms) {
			t.Fatalf("leases = %v; want one for each of %v", first, rooms)
		}

		// News of the same rooms reaches the other replica, which looks for them now
		// and again and again.
		s.aim(b)
		claims, looks := s.proxy.executed("Claim"), s.proxy.executed("Due")
		s.setStorage(2000, rooms...)
		s.senders.Wait()
		eventually(t, func() error {
			tried := s.proxy.executed("Claim") - claims
			looked := s.proxy.executed("Due") - looks
			over := last(first).Add(time.Second)
			renewed := time.Now().After(over)
			for _, end := range s.leases() {
				renewed = renewed && end.After(over)
			}
			return unless(tried >= len(rooms) && looked >= 2 && renewed, "%d claims, %d looks, leases renewed: %v", tried,
				looked, renewed)
		})
		for _, room := range rooms {
			if n := s.upstream.Calls(room, fake.EndpointStorage); n != before[room]+1 {
				t.Errorf("room %q was fetched %d times under one lease; want once", room, n-before[room])
			}
		}

		ends := s.leftBy(a, b, rooms)
		s.converge(b)
		for _, room := range rooms {
			for _, c := range s.fetches(room, fake.EndpointStorage)[before[room]+1:] {
				if c.Begin.Before(ends[room]) {
					t.Errorf("room %q was fetched at %v; want that after the lease, at %v", room, c.Begin, ends[room])
				}
			}
		}
	})
}

// An idle replica sends no query, so it does not notice that another one has
// died. It finds what that one left behind as soon as anything comes in, or at
// its safety poll; a replica that starts looks at once.
func TestIdleReplicaTakesOver(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, c := range []struct {
			name string
			// setup is of the replica that lives; fresh starts it after the death.
			setup        string
			fresh, woken bool
		}{
			{name: "at the next webhook", setup: "MIRROR_SAFETY_POLL=1h", woken: true},
			{name: "at the safety poll", setup: "MIRROR_SAFETY_POLL=2s"},
			{name: "at its start", setup: "MIRROR_SAFETY_POLL=1h", fresh: true},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				a := s.start()
				s.populate(a)
				rooms := []string{"plan", "Plan", "plan "}
				hold := s.hold(rooms...)
				var b *harness.Service
				if !c.fresh {
					b = s.start(c.setup)
					s.idle(time.Second)
					s.aim(a)
				}
				s.setStorage(1000, rooms...)
				s.awaitHeld(hold, len(rooms))
				s.senders.Wait()
				ends := s.leftBy(a, b, rooms)
				if c.fresh {
					b = s.start(c.setup)
				}
				s.aim(b)
				if c.woken {
					s.wantAsleep(last(ends), len(rooms))
					s.setStorage(3000, "room-20")
				}
				s.converge(b)
				for _, room := range rooms {
					calls := s.fetches(room, fake.EndpointStorage)
					if at := calls[len(calls)-1].Begin; at.Before(ends[room]) {
						t.Errorf("room %q was fetched at %v; want that after the lease, at %v", room, at, ends[room])
					}
				}
			})
		}
	})
}

// wantAsleep checks that the living replica leaves the tasks of the dead one
// alone long after their leases have ended.
func (s *site) wantAsleep(end time.Time, tasks int) {
	s.t.Helper()
	queries := s.proxy.total()
	eventually(s.t, func() error {
		return unless(time.Since(end) > 1500*time.Millisecond, "the leases have not ended for long") // three busy polls
	})
	if n := s.proxy.total(); n != queries {
		s.t.Errorf("an idle replica sent %d statements; want none", n-queries)
	}
	if n := one[int](s, "select count(*) from mirror_resource_state where due_time is not null"); n != tasks {
		s.t.Errorf("%d tasks are pending; want the %d of the dead replica", n, tasks)
	}
}

// Replicas whose clocks disagree: one takes over a lease that the other believes
// in until it renews it next. The token decides whose result counts.
func TestReplicaOfAnotherTime(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := newSite(t, e)
		s.env["MIRROR_LEASE_TTL"] = "60s" // renewed after 20 s, and all is over by then
		a := s.start()
		s.populate(a)
		b := s.start()
		s.aim(a)
		hold := s.hold("plan")
		s.setStorage(1000, "plan")
		s.awaitHeld(hold, 1)
		s.senders.Wait()
		const end = "update mirror_resource_state set lease_until = ? where room_id = 'plan' and kind = 2 and " +
			"lease_token is not null"
		if n, err := s.db.Exec(t.Context(), end, time.Now()); err != nil || n != 1 {
			t.Fatalf("end the lease = %d, %v; want one row", n, err)
		}
		s.aim(b)
		s.setStorage(2000, "plan")
		s.converge(b) // the newer answer is there, and nothing is left to do

		begun := s.proxy.executed("LockChild")
		hold.Release()
		eventually(t, func() error {
			return unless(s.proxy.executed("LockChild") > begun, "the late answer is not applied yet")
		})
		s.idle(time.Second)
		s.converge(b)
		if !strings.Contains(a.Log(), "lease lost") {
			t.Error("the replica that was late did not notice that it had lost its lease")
		}
	})
}

// A replica that only seemed dead comes back with an old answer in its hands,
// just before it writes it. The other one has written a newer one by then.
func TestReplicaComesBack(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := newSite(t, e)
		// Taken over before the database ends the transaction that is held, after 10 s.
		s.env["MIRROR_LEASE_TTL"] = "3s"
		a := s.start()
		s.populate(a)
		tr := s.proxy.set(beforeSend, applyChild)
		s.setStorage(1000, "plan")
		tr.await(t)
		if !tr.holds("plan") {
			t.Fatal("the transaction that is held is not about the room that changed")
		}
		s.senders.Wait()
		if err := syscall.Kill(a.Pid(), syscall.SIGSTOP); err != nil {
			t.Fatalf("SIGSTOP = %v", err)
		}
		b := s.start()
		s.aim(b)
		s.setStorage(2000, "plan")
		s.converge(b) // the newer answer is there

		tr.release()
		if err := syscall.Kill(a.Pid(), syscall.SIGCONT); err != nil {
			t.Fatalf("SIGCONT = %v", err)
		}
		eventually(t, func() error {
			return unless(strings.Contains(a.Log(), "lease lost"),
				"the replica that came back has not noticed that it lost its lease")
		})
		s.converge(b)
	})
}

// A process that stops for good in the middle of a transaction, like one whose host is
// lost, keeps the rows that it has locked only for a while.
func TestReplicaThatFreezes(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const room = "room"
		direct := e.Database(t)
		if e == dbtest.Postgres && pgtest.Fronted() { // no session there is the service's, so an operator has to say it
			direct = e.Own(t)
			dbtest.Script(t, direct, `do $$ begin execute format(
				'alter database %I set idle_in_transaction_session_timeout = 10000', current_database()); end $$`)
		}
		s := newSiteAt(t, e, direct)
		s.http.Timeout = 2 * time.Second // a delivery to the frozen one is repeated
		frozen := s.start()
		s.create(room, document(1))
		s.converge(frozen)

		tr := s.proxy.set(beforeReply, "LockChildren")
		if err := s.upstream.RecreateRoom(room, fake.RoomOptions{Storage: document(2)}); err != nil {
			t.Fatalf("RecreateRoom = %v", err)
		}
		tr.await(t)
		if err := syscall.Kill(frozen.Pid(), syscall.SIGSTOP); err != nil {
			t.Fatalf("SIGSTOP = %v", err)
		}
		t.Cleanup(tr.cut)
		t.Cleanup(frozen.Kill)
		other := s.start()
		s.aim(other)
		began := time.Now()
		s.converge(other)
		t.Logf("the other replica had done everything after %v", time.Since(began))
	})
}
