package storetest

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var taskCases = []testCase{
	{"claim tells what to fetch", claimLease},
	{"only what is due can be claimed", claimNotDue},
	{"live lease excludes", claimExcludes},
	{"expired lease is taken over", claimTakesOver},
	{"old token writes nothing", oldToken},
	{"lease given back is lost", leaseGivenBack},
	{"the token decides, not the clock", tokenDecides},
	{"renewed lease lasts longer", renew},
	{"due lists the most urgent first", dueOrder},
	{"due leaves out what is leased", dueLeased},
	{"due tells when the next one is due", dueNext},
	{"due knows its project", dueProject},
	{"due tells each lane and its times", dueLanes},
	{"due tells settle fetches from what is stale", dueSettles},
	{"due leaves alone kinds that are not asked for", dueKinds},
	{"lease too far away does not count", leaseTooFar},
	{"fetch in the future counts as one just now", fetchTooFar},
	{"what was never fetched waits for no interval", neverFetched},
	{"death of the process counts as an attempt", deaths},
	{"what is given back is no death", deathsGivenBack},
	{"settle fetch is left out after a late fetch", settleLate},
	{"what comes in during the fetch is due again", raisedDuringLease},
	{"settle fetch comes once", settleOnce},
	{"request settles if it shall", settleRequest},
	{"settle fetch stays owed while the room is away", settleOutlivesQuiet},
	{"settle fetch begins anew with an event", settleAnew},
	{"settle fetch that is brought forward is still owed", settleBroughtForward},
	{"no settle fetch with zero", settleZero},
	{"no settle fetch without an event", settleNoEvent},
	{"burst costs one more fetch", burst},
	{"failure counts and backs off", failCounts},
	{"spare failure costs no attempt", failSpare},
	{"unsupported resource waits without a failure", failUnsupported},
	{"final failure ends the attempts", failFinal},
	{"final failure of old news begins anew", failFinalRaised},
	{"failure keeps its backoff when raised meanwhile", failRaised},
	{"failure may tell anything", failCause},
	{"success forgets failures", successForgets},
	{"request raises and lifts", request},
	{"request during a fetch", requestLeased},
	{"retry makes due at once", retry},
	{"retry of what cannot be", retryRefused},
	{"retry ends a lease", retryLeased},
	{"discard ends a task without a fetch", discard},
	{"discard of what cannot be", discardRefused},
	{"discard ends a lease", discardLeased},
	{"discarded task begins anew", discardAnew},
	{"generations in order", generations},
	{"tasks by key", tasksByKey},
	{"parked child waits for its room", park},
	{"park leaves a pending room alone", parkPendingRoom},
	{"park of a room never heard of", parkUnknownRoom},
	{"child wanted at once brings its room to the fore", parkHastens},
	{"child wanted at once by now brings its room to the fore", parkHastensMeanwhile},
	{"park after the room came", parkLate},
	{"event on a parked child", parkedRaised},
	{"parked child of a room that is not there", parkedQuiet},
}

func claimLease(e *env) {
	e.raise(storageOf("room"))
	token := newToken()
	lease, err := e.Claim(e.ctx(), storageOf("room"), token, e.now, leaseTTL)
	e.must("Claim", err)
	lease.Seen = nil // an engine may see more
	e.want("lease of a new resource", lease, mirror.Lease{
		Resource: storageOf("room"), Token: token, Until: e.now.Add(leaseTTL), Generation: 1,
		SourceTime: e.now.Add(-time.Millisecond), Settle: true, NoticeTime: e.now,
	})
	if task := e.task(storageOf("room")); task.State != mirror.TaskRunning || !task.LeaseUntil.Equal(lease.Until) {
		e.Fatalf("task = %+v; want it running until %v", task, lease.Until)
	}
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.fail(lease, e.failure())
	e.pass(time.Hour)
	lease = e.claim(storageOf("room"))
	if lease.Epoch != 1 || lease.Gone || lease.Attempts != 1 || lease.Applied != 0 || lease.Generation < 2 ||
		!lease.FetchTime.IsZero() {
		e.Fatalf("lease = %+v; want epoch 1, one attempt, nothing applied, and raised by the room", lease)
	}
	content := e.documentContent(`{}`)
	e.applyDocument(lease, content)
	e.raise(storageOf("room"))
	e.deleteRoom("room")
	e.raise(storageOf("room"))
	last := e.claim(storageOf("room"))
	if !last.FetchTime.Equal(content.FetchTime) {
		e.Fatalf("fetch time in the lease = %v; want that of the copy, %v", last.FetchTime, content.FetchTime)
	}
	if !last.Gone || last.Epoch <= 1 || last.Applied < lease.Generation || last.Generation <= last.Applied {
		e.Fatalf("lease in a deleted room = %+v; want it gone, of another epoch, and %d applied", last, lease.Generation)
	}
}

func claimNotDue(e *env) {
	e.wantNotDue(storageOf("never heard of"))
	e.raise(storageOf("room"))
	e.pass(-time.Microsecond)
	e.wantNotDue(storageOf("room"))
	e.pass(time.Microsecond)
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.wantNotDue(roomOf("room"))
}

func claimExcludes(e *env) {
	other := e.another()
	e.raise(storageOf("room"), roomOf("room"))
	lease := e.claim(storageOf("room"))
	for _, s := range []store.Store{e.Store, other} {
		_, err := s.Claim(e.ctx(), storageOf("room"), newToken(), e.now, leaseTTL)
		e.wantErr("Claim of what is leased", err, store.ErrNotDue)
	}
	e.now = lease.Until.Add(-time.Microsecond)
	e.wantNotDue(storageOf("room"))
	e.claim(roomOf("room")) // another resource is free
}

func claimTakesOver(e *env) {
	e.raise(storageOf("room"))
	old := e.claim(storageOf("room"))
	e.now = old.Until
	if lease := e.claim(storageOf("room")); lease.Token == old.Token || lease.Generation != old.Generation {
		e.Fatalf("lease taken over = %+v; want the same work under another token", lease)
	}
}

// leaseEnds are all the ways to end or prolong a lease.
func leaseEnds(e *env, lease mirror.Lease) map[string]error {
	ends := make(map[string]error)
	if lease.Resource.Kind == mirror.KindRoom {
		_, ends["ApplyRoom"] = e.ApplyRoom(e.ctx(), lease, e.roomContent(`{"by":"old"}`), e.now, settle)
	} else {
		_, ends["ApplyDocument"] = e.ApplyDocument(e.ctx(), lease, e.documentContent(`{"by":"old"}`), e.now, settle)
		_, ends["Park"] = e.Park(e.ctx(), lease, e.now)
	}
	_, ends["ApplyMissing"] = e.ApplyMissing(e.ctx(), lease, e.failure(), settle)
	f := e.failure()
	f.Final = true
	_, ends["Fail"] = e.Fail(e.ctx(), lease, f)
	ends["Renew"] = e.Renew(e.ctx(), lease, e.now.Add(time.Hour))
	return ends
}

func wantLeaseLost(e *env, lease mirror.Lease) {
	e.Helper()
	before := e.snapshot(lease.Resource)
	room := e.snapshot(lease.Resource.RoomResource())
	for what, err := range leaseEnds(e, lease) {
		e.wantErr(what+" under an old token", err, store.ErrLeaseLost)
	}
	e.want("resource after writes under an old token", e.snapshot(lease.Resource), before)
	e.want("room after writes under an old token", e.snapshot(lease.Resource.RoomResource()), room)
}

func oldToken(e *env) {
	e.mirrorBoth("room")
	for _, r := range []mirror.Resource{storageOf("room"), roomOf("room")} {
		e.raise(r)
		old := e.claim(r)
		e.now = old.Until
		e.claim(r)
		wantLeaseLost(e, old)
	}
	stranger := mirror.Lease{Resource: storageOf("never heard of"), Token: newToken()}
	e.wantErr("Renew", e.Renew(e.ctx(), stranger, e.now), store.ErrLeaseLost)
	_, err := e.ApplyDocument(e.ctx(), stranger, e.documentContent(`{}`), e.now, 0)
	e.wantErr("ApplyDocument", err, store.ErrLeaseLost)
	_, err = e.Fail(e.ctx(), stranger, e.failure())
	e.wantErr("Fail", err, store.ErrLeaseLost)
}

func leaseGivenBack(e *env) {
	e.mirrorBoth("room")
	e.raise(roomOf("room"), storageOf("room"))
	room, child := e.claim(roomOf("room")), e.claim(storageOf("room"))
	e.applyRoom(room, e.roomContent(`{"v":2}`))
	e.applyDocument(child, e.documentContent(`{"v":2}`))
	wantLeaseLost(e, room)
	wantLeaseLost(e, child)
	// No token is not a token that fits.
	room.Token = [16]byte{}
	wantLeaseLost(e, room)
}

func tokenDecides(e *env) {
	e.raise(roomOf("room"))
	lease := e.claim(roomOf("room"))
	e.pass(2 * leaseTTL)
	e.must("Renew of an expired lease that nobody took", e.Renew(e.ctx(), lease, e.now.Add(leaseTTL)))
	e.wantNotDue(roomOf("room"))
	e.pass(2 * leaseTTL)
	e.applyRoom(lease, e.roomContent(`{}`))
	e.room("room")
}

func renew(e *env) {
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	until := lease.Until.Add(leaseTTL)
	e.must("Renew", e.Renew(e.ctx(), lease, until))
	e.now = lease.Until
	e.wantNotDue(storageOf("room"))
	if task := e.task(storageOf("room")); task.State != mirror.TaskRunning || !task.LeaseUntil.Equal(until) {
		e.Fatalf("task = %+v; want it running until %v", task, until)
	}
	e.now = until
	e.claim(storageOf("room"))
}

func dueOrder(e *env) {
	var want []mirror.Resource
	for i := range 5 {
		e.pass(time.Second)
		r := storageOf(mirror.RoomID(fmt.Sprintf("room-%d", (i*3)%5)))
		e.raise(r)
		want = append(want, r)
	}
	e.want("Due", e.dueList(10), dueList{Resources: want})
	e.want("Due, at most 3", e.dueList(3).Resources, want[:3])
	e.pass(-time.Second)
	e.want("Due a second ago", e.dueList(10), dueList{Resources: want[:4], Next: e.now.Add(time.Second)})
	e.wantState(want[0], mirror.TaskPending) // reading claims nothing
}

func dueLeased(e *env) {
	e.raise(storageOf("a"), storageOf("b"))
	lease := e.claim(storageOf("a"))
	list := e.dueList(10)
	e.want("Due beside a lease", list, dueList{Resources: []mirror.Resource{storageOf("b")}, Next: lease.Until})
	e.now = lease.Until
	if list = e.dueList(10); len(list.Resources) != 2 {
		e.Fatalf("Due after the lease = %+v; want both", list)
	}
}

func dueNext(e *env) {
	e.want("Due with nothing to do", e.dueList(10), dueList{})
	e.raise(storageOf("a"), storageOf("b"), storageOf("c"))
	if list := e.dueList(3); len(list.Resources) != 3 || list.More || !list.Next.IsZero() {
		e.Fatalf("Due = %+v; want three, and none beyond", list)
	}
	if list := e.dueList(2); len(list.Resources) != 2 || !list.More || list.MoreBackground {
		e.Fatalf("Due, at most 2 = %+v; want it to tell that there are more", list)
	}
	lease := e.claim(storageOf("a"))
	f := e.failure()
	f.NotBefore = e.now.Add(leaseTTL / 2)
	e.fail(e.claim(storageOf("b")), f)
	e.want("Due", e.dueList(10), dueList{Resources: []mirror.Resource{storageOf("c")}, Next: f.NotBefore})
	e.claim(storageOf("c"))
	e.must("Renew", e.Renew(e.ctx(), lease, e.now.Add(time.Second)))
	e.want("Due with all leased or backing off", e.dueList(10), dueList{Next: e.now.Add(time.Second)})
}

func dueProject(e *env) {
	other := mirror.Resource{Project: "other", Room: "room", Kind: mirror.KindStorage}
	e.raise(other)
	e.want("Due", e.dueList(10), dueList{})
	list, err := e.Due(e.ctx(), lookAt("other", e.now, 10))
	e.must("Due of the other project", err)
	e.want("Due of the other project", list, store.DueList{Resources: []store.DueResource{{Resource: other, Due: e.now}}})
	e.wantNotDue(storageOf("room"))
}

func dueLanes(e *env) {
	begun := e.now
	for i := range 3 {
		e.request(mirror.Request{Resource: storageOf(mirror.RoomID(fmt.Sprintf("b-%d", i))), Background: true})
		e.raise(storageOf(mirror.RoomID(fmt.Sprintf("l-%d", i))))
		e.pass(time.Second)
	}
	due := func(lane string, n int) (out []store.DueResource) {
		for i := range n {
			r := storageOf(mirror.RoomID(fmt.Sprintf("%s-%d", lane, i)))
			out = append(out, store.DueResource{Resource: r, Due: begun.Add(time.Duration(i) * time.Second)})
		}
		return out
	}
	list, err := e.Due(e.ctx(), lookAt(project, e.now, 3))
	e.must("Due", err)
	e.want("Due, at most 3", list, store.DueList{Resources: due("l", 3), Background: due("b", 3)})
	list, err = e.Due(e.ctx(), lookAt(project, e.now, 2))
	e.must("Due", err)
	e.want("Due, at most 2", list, store.DueList{
		Resources: due("l", 2), Background: due("b", 2), More: true, MoreBackground: true,
	})
}

func dueSettles(e *env) {
	due := func(background bool) (stale, settles []mirror.Resource) {
		e.Helper()
		list, err := e.Due(e.ctx(), lookAt(project, e.now, 10))
		e.must("Due", err)
		part := list.Resources
		if background {
			part = list.Background
		}
		for _, r := range part {
			if r.Kind != mirror.KindRoom {
				continue // it became due with its room
			}
			if r.Settles {
				settles = append(settles, r.Resource)
			} else {
				stale = append(stale, r.Resource)
			}
		}
		return stale, settles
	}
	want := func(what string, background bool, stale, settles []mirror.Resource) {
		e.Helper()
		gotStale, gotSettles := due(background)
		e.want(what+": stale", gotStale, stale)
		e.want(what+": only to be fetched once more", gotSettles, settles)
	}
	a, b := roomOf("a"), roomOf("b")
	e.raise(a)
	want("event", false, []mirror.Resource{a}, nil)
	if applied := e.fetch(a); !applied.Settles {
		e.Fatalf("Apply = %+v; want it to tell of a settle fetch", applied)
	}
	e.pass(settle)
	e.raise(b)
	want("settle fetch", false, []mirror.Resource{b}, []mirror.Resource{a})
	if applied := e.fail(e.claim(a), e.failure()); !applied.Settles {
		e.Fatalf("Fail of a settle fetch = %+v; want it to be one still", applied)
	}
	e.pass(time.Second)
	if applied := e.fail(e.claim(b), e.failure()); applied.Settles {
		e.Fatalf("Fail = %+v; want it to be no settle fetch", applied)
	}
	e.pass(time.Hour)
	e.raise(a)
	want("event before the settle fetch", false, []mirror.Resource{a, b}, nil)
	e.fetch(b)
	if applied := e.fetch(a); !applied.Settles {
		e.Fatalf("Apply = %+v; want it to tell of a settle fetch", applied)
	}
	e.pass(settle)
	if applied := e.fetch(a); applied.Settles || !applied.Due.IsZero() {
		e.Fatalf("Apply = %+v; want nothing left to do", applied)
	}
	e.request(mirror.Request{Resource: a, Background: true})
	want("sweep", true, []mirror.Resource{a}, nil)
}

// A replica of an older version runs beside a newer one.
func dueKinds(e *env) {
	e.raise(storageOf("a"), ydocOf("a"))
	e.fail(e.claim(ydocOf("a")), store.Failure{Now: e.now, NotBefore: e.now.Add(time.Second)})
	e.raise(ydocOf("b"))
	e.claim(ydocOf("b"))
	look := lookAt(project, e.now, 10)
	look.Kinds = []mirror.Kind{mirror.KindRoom, mirror.KindStorage}
	list, err := e.Due(e.ctx(), look)
	e.must("Due", err)
	e.want("Due of two kinds", list, store.DueList{Resources: []store.DueResource{{Resource: storageOf("a"), Due: e.now}}})
	look.Now = e.now.Add(2 * leaseTTL)
	list, err = e.Due(e.ctx(), look)
	e.must("Due", err)
	if len(list.Resources) != 1 {
		e.Fatalf("Due of two kinds later = %+v; want one of them", list)
	}
}

// A clock that was ahead for a while has written a lease that nobody will renew.
func leaseTooFar(e *env) {
	e.raise(storageOf("room"))
	ahead := e.now.Add(365 * 24 * time.Hour)
	old, err := e.Claim(e.ctx(), storageOf("room"), newToken(), ahead, leaseTTL)
	e.must("Claim by a clock that is ahead", err)
	e.want("Due", e.dueList(10), dueList{Resources: []mirror.Resource{storageOf("room")}})
	lease := e.claim(storageOf("room"))
	if lease.Attempts != 0 || lease.Deaths != 0 {
		e.Fatalf("lease = %+v; want no attempt counted", lease)
	}
	_, err = e.Fail(e.ctx(), old, e.failure())
	e.wantErr("Fail with the old lease", err, store.ErrLeaseLost)
	e.fail(lease, store.Failure{Now: e.now, NotBefore: e.now, Uncounted: true})
	// Somewhat ahead, or longer leases, are usual.
	_, err = e.Claim(e.ctx(), storageOf("room"), newToken(), e.now.Add(leaseTTL), leaseTTL)
	e.must("Claim", err)
	e.wantNotDue(storageOf("room"))
	e.want("Due", e.dueList(10), dueList{Next: e.now.Add(2 * leaseTTL)})
}

func fetchTooFar(e *env) {
	e.mirrorBoth("room")
	e.raise(storageOf("room"))
	content := e.documentContent(`{"v":2}`)
	content.FetchTime = e.now.Add(365 * 24 * time.Hour)
	e.applyDocument(e.claim(storageOf("room")), content)
	h := invalidatedAt(storageOf("room"))
	h.MinInterval = 10 * time.Second
	e.accept(e.delivery(h))
	if task := e.task(storageOf("room")); !task.DueTime.Equal(e.now.Add(10 * time.Second)) {
		e.Fatalf("due time = %v; want ten seconds from now", task.DueTime)
	}
}

func neverFetched(e *env) {
	e.raise(storageOf("room"))
	_, err := e.Park(e.ctx(), e.claim(storageOf("room")), e.now) // its room comes first
	e.must("Park", err)
	h := invalidatedAt(storageOf("room"))
	h.MinInterval = 10 * time.Second
	e.accept(e.delivery(h))
	if task := e.task(storageOf("room")); !task.DueTime.Equal(e.now) {
		e.Fatalf("due time = %v; want now, %v", task.DueTime, e.now)
	}
}

func deaths(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(storageOf("room"))
	for n := range 5 {
		lease := e.claim(storageOf("room"))
		if lease.Deaths != n || lease.Attempts != n {
			e.Fatalf("lease after %d deaths = %+v; want them counted", n, lease)
		}
		if task := e.task(storageOf("room")); task.Attempts != n {
			e.Fatalf("attempts of the task after %d deaths = %d", n, task.Attempts)
		}
		e.now = lease.Until
	}
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{}`))
	e.raise(storageOf("room"))
	if lease := e.claim(storageOf("room")); lease.Deaths != 0 || lease.Attempts != 0 {
		e.Fatalf("lease after a success = %+v; want a new count", lease)
	}
}

func deathsGivenBack(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(storageOf("room"))
	e.now = e.claim(storageOf("room")).Until
	for range 3 {
		e.fail(e.claim(storageOf("room")), store.Failure{Now: e.now, NotBefore: e.now, Uncounted: true})
	}
	_, err := e.Park(e.ctx(), e.claim(storageOf("room")), e.now) // the room lives, so it is due again
	e.must("Park", err)
	lease := e.claim(storageOf("room"))
	if lease.Deaths != 1 || lease.Attempts != 1 {
		e.Fatalf("lease = %+v; want the one death", lease)
	}
	e.must("Renew", e.Renew(e.ctx(), lease, lease.Until.Add(leaseTTL)))
	e.now = lease.Until.Add(leaseTTL / 2)
	e.fail(lease, store.Failure{Now: e.now, NotBefore: e.now, Uncounted: true})
	if lease := e.claim(storageOf("room")); lease.Deaths != 1 {
		e.Fatalf("lease = %+v; want a renewed lease to be no death", lease)
	}
}

// A fetch that begins long enough after the last event reads the state after it.
func settleLate(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := storageOf("room")
	for _, c := range []struct {
		after time.Duration
		more  bool
	}{{settle - time.Microsecond, true}, {settle, false}} {
		e.raise(r)
		e.pass(time.Second)
		e.raise(r)
		e.pass(c.after)
		lease := e.claim(r)
		content := e.documentContent(`{}`)
		e.pass(time.Hour) // the time of the fetch counts, not that of its end
		content.FetchTime = e.now.Add(-time.Hour)
		applied, err := e.ApplyDocument(e.ctx(), lease, content, e.now, settle)
		e.must("ApplyDocument", err)
		if applied.Due.IsZero() == c.more {
			e.Fatalf("Apply of a fetch %v after the last event = %+v; want a settle fetch: %t", c.after, applied, c.more)
		}
		if store.Settled(lease, content.FetchTime, settle) == c.more {
			e.Fatalf("Settled of a fetch %v after the last event = %t", c.after, c.more)
		}
		if c.more {
			e.now = applied.Due
			if applied = e.fetch(r); !applied.Due.IsZero() {
				e.Fatalf("settle Apply = %+v; want nothing more to do", applied)
			}
		}
	}
}

func retryLeased(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(storageOf("room"))
	for range store.MaxDeaths + 2 {
		e.now = e.claim(storageOf("room")).Until
	}
	old := e.claim(storageOf("room"))
	task, err := e.Retry(e.ctx(), storageOf("room"), e.now)
	e.must("Retry", err)
	if task.State != mirror.TaskPending || !task.LeaseUntil.IsZero() || task != e.task(storageOf("room")) {
		e.Fatalf("Retry of a leased task = %+v; want it pending", task)
	}
	_, err = e.ApplyDocument(e.ctx(), old, e.documentContent(`{}`), e.now, settle)
	e.wantErr("ApplyDocument with the old lease", err, store.ErrLeaseLost)
	if lease := e.claim(storageOf("room")); lease.Deaths != store.MaxDeaths || lease.Attempts != 0 {
		e.Fatalf("lease = %+v; want one more run alone", lease)
	}
}

func raisedDuringLease(e *env) {
	e.mirrorBoth("room")
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	e.pass(time.Second)
	e.raise(storageOf("room"))
	applied := e.applyDocument(lease, e.documentContent(`{"v":2}`))
	if !applied.Due.Equal(e.now) {
		e.Fatalf("ApplyDocument = %+v; want it due again at once", applied)
	}
	task := e.task(storageOf("room"))
	if task.State != mirror.TaskPending || task.Applied != lease.Generation || task.Generation != lease.Generation+1 {
		e.Fatalf("task = %+v; want it pending, %d applied of %d", task, lease.Generation, lease.Generation+1)
	}
	if doc := e.document(storageOf("room")); !doc.Freshness.Stale {
		e.Fatalf("document = %+v; want it stale", doc.Freshness)
	}
	again := e.claim(storageOf("room"))
	if again.Generation != task.Generation || again.Applied != task.Applied {
		e.Fatalf("lease = %+v; want generation %d, %d applied", again, task.Generation, task.Applied)
	}
	if applied = e.applyDocument(again, e.documentContent(`{"v":3}`)); !applied.Due.IsZero() {
		e.Fatalf("ApplyDocument = %+v; want nothing more to do", applied)
	}
	e.wantState(storageOf("room"), mirror.TaskDone)
}

// fetch claims and applies, with a settle fetch to follow if one is owed.
func (e *env) fetch(r mirror.Resource) mirror.Applied {
	e.Helper()
	var applied mirror.Applied
	var err error
	switch {
	case r.Kind == mirror.KindRoom:
		applied, err = e.ApplyRoom(e.ctx(), e.claim(r), e.roomContent(`{}`), e.now, settle)
	case r.Kind == mirror.KindThread && r.ID == "":
		applied, err = applyThreads(e.ctx(), e.Store, e.claim(r), e.now, nil, e.now, settle)
	default:
		applied, err = e.ApplyDocument(e.ctx(), e.claim(r), e.documentContent(`{}`), e.now, settle)
	}
	e.must("Apply", err)
	return applied
}

func settleOnce(e *env) {
	for _, r := range []mirror.Resource{roomOf("room"), storageOf("room")} {
		e.raise(r)
		first := e.fetch(r)
		if !first.Due.Equal(e.now.Add(settle)) {
			e.Fatalf("first Apply of %s = %+v; want a settle fetch at %v", r.Kind, first, e.now.Add(settle))
		}
		task := e.task(r)
		if task.State != mirror.TaskPending || task.Applied != task.Generation {
			e.Fatalf("task = %+v; want it pending with nothing newer known", task)
		}
		e.pass(settle - time.Microsecond)
		e.wantNotDue(r)
		e.pass(time.Microsecond)
		if second := e.fetch(r); !second.Due.IsZero() || second.Changed {
			e.Fatalf("settle Apply of %s = %+v; want no change and no more to do", r.Kind, second)
		}
		e.pass(time.Hour)
		e.wantNotDue(r)
	}
}

func settleRequest(e *env) {
	for _, settles := range []bool{false, true} {
		room := mirror.RoomID(fmt.Sprintf("room %v", settles))
		for _, r := range []mirror.Resource{roomOf(room), storageOf(room)} {
			e.requestAll(mirror.Request{Resource: r, Settle: settles})
			var want time.Time
			if settles {
				want = e.now.Add(settle)
			}
			if first := e.fetch(r); !first.Due.Equal(want) {
				e.Fatalf("Apply of %s = %+v; want a settle fetch: %v", r.Kind, first, settles)
			}
		}
	}
}

func settleAnew(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := storageOf("room")
	e.raise(r)
	lease := e.claim(r)
	e.raise(r)
	applied, err := e.ApplyDocument(e.ctx(), lease, e.documentContent(`{}`), e.now, settle)
	e.must("ApplyDocument", err)
	if !applied.Due.Equal(e.now) {
		e.Fatalf("ApplyDocument with news = %+v; want it due at once", applied)
	}
	if applied = e.fetch(r); !applied.Due.Equal(e.now.Add(settle)) {
		e.Fatalf("Apply = %+v; want a settle fetch", applied)
	}
	e.pass(settle / 2)
	e.raise(r) // it need not wait for the settle fetch
	if applied = e.fetch(r); !applied.Due.Equal(e.now.Add(settle)) {
		e.Fatalf("Apply of an event before the settle fetch = %+v; want one settle fetch for both", applied)
	}
	e.pass(settle)
	lease = e.claim(r)
	e.raise(r) // during the settle fetch
	applied, err = e.ApplyDocument(e.ctx(), lease, e.documentContent(`{}`), e.now, settle)
	e.must("ApplyDocument", err)
	if !applied.Due.Equal(e.now) {
		e.Fatalf("settle Apply with news = %+v; want it due at once", applied)
	}
	if applied = e.fetch(r); !applied.Due.Equal(e.now.Add(settle)) {
		e.Fatalf("Apply = %+v; want a settle fetch of its own", applied)
	}
	e.pass(settle)
	if applied = e.fetch(r); !applied.Due.IsZero() {
		e.Fatalf("last Apply = %+v; want nothing more to do", applied)
	}
}

// What makes a resource due before its settle fetch takes that one's place, and
// comes too soon after the event to be it.
func settleBroughtForward(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := storageOf("room")
	for what, f := range map[string]func(){
		"request": func() {
			e.request(requestsFor(r)...)
		},
		"retry": func() {
			_, err := e.Retry(e.ctx(), r, e.now)
			e.must("Retry", err)
		},
		"room that is back": func() {
			e.raise(roomOf("room"))
			e.applyMissing(e.claim(roomOf("room")))
			e.mirrorRoom("room", e.roomContent(`{}`))
		},
	} {
		e.raise(r)
		e.fetch(r)
		f()
		if applied := e.fetch(r); !applied.Due.Equal(e.now.Add(settle)) {
			e.Fatalf("Apply after a %s = %+v; want the settle fetch still to come", what, applied)
		}
		e.pass(settle)
		if applied := e.fetch(r); !applied.Due.IsZero() {
			e.Fatalf("settle Apply after a %s = %+v; want nothing more to do", what, applied)
		}
	}
}

func settleZero(e *env) {
	for _, r := range []mirror.Resource{roomOf("room"), storageOf("room")} {
		e.raise(r)
		lease := e.claim(r)
		var applied mirror.Applied
		if r.Kind == mirror.KindRoom {
			applied = e.applyRoom(lease, e.roomContent(`{}`))
		} else {
			applied = e.applyDocument(lease, e.documentContent(`{}`))
		}
		if !applied.Due.IsZero() {
			e.Fatalf("Apply of %s = %+v; want nothing more to do", r.Kind, applied)
		}
		e.wantState(r, mirror.TaskDone)
	}
}

func settleNoEvent(e *env) {
	e.request(requestsFor(roomOf("room"))...)
	if applied := e.fetch(roomOf("room")); !applied.Due.IsZero() {
		e.Fatalf("Apply of a request = %+v; want no settle fetch", applied)
	}
}

func burst(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	for range 10 {
		var batch []mirror.Delivery
		for range 100 {
			batch = append(batch, e.delivery(invalidatedAt(storageOf("room"))))
		}
		e.accept(batch...)
	}
	fetches := 1
	applied, err := e.ApplyDocument(e.ctx(), lease, e.documentContent(`{}`), e.now, settle)
	e.must("ApplyDocument", err)
	for !applied.Due.IsZero() {
		e.now = applied.Due
		applied = e.fetch(storageOf("room"))
		fetches++
	}
	if fetches != 3 {
		e.Fatalf("1,000 events during a fetch led to %d fetches; want that one, one more and the settle fetch", fetches)
	}
	progress, err := e.Generations(e.ctx(), []mirror.Resource{storageOf("room")})
	e.must("Generations", err)
	if task := e.task(storageOf("room")); task.State != mirror.TaskDone || progress[0].Applied != task.Generation {
		e.Fatalf("task = %+v, progress = %+v; want all applied", task, progress)
	}
}

func failCounts(e *env) {
	e.raise(storageOf("room"))
	for attempt := 1; attempt <= 3; attempt++ {
		lease := e.claim(storageOf("room"))
		if lease.Attempts != attempt-1 {
			e.Fatalf("attempts of lease = %d; want %d", lease.Attempts, attempt-1)
		}
		f := e.failure()
		applied := e.fail(lease, f)
		e.want("Fail", applied, mirror.Applied{Due: f.NotBefore})
		task := e.task(storageOf("room"))
		e.want("task", task, mirror.Task{
			Resource: storageOf("room"), State: mirror.TaskPending, Generation: 1, Attempts: attempt,
			DueTime: f.NotBefore, NotBefore: f.NotBefore, LastError: f.Cause,
		})
		e.now = f.NotBefore.Add(-time.Microsecond)
		e.wantNotDue(storageOf("room"))
		e.now = f.NotBefore
	}
	// A time in the past means at once.
	f := e.failure()
	f.NotBefore = time.Time{}
	applied := e.fail(e.claim(storageOf("room")), f)
	if !applied.Due.Equal(e.now) {
		e.Fatalf("Fail without a backoff = %+v; want it due at once", applied)
	}
	e.claim(storageOf("room"))
}

func failSpare(e *env) {
	e.raise(storageOf("room"))
	e.fail(e.claim(storageOf("room")), e.failure())
	for range 5 {
		e.pass(time.Hour)
		f := e.failure()
		f.Uncounted = true
		applied := e.fail(e.claim(storageOf("room")), f)
		if task := e.task(storageOf("room")); task.Attempts != 1 || !applied.Due.Equal(f.NotBefore) ||
			task.State != mirror.TaskPending {
			e.Fatalf("Fail = %+v, task = %+v; want one attempt as before, due at %v", applied, task, f.NotBefore)
		}
	}
}

func failUnsupported(e *env) {
	r := storageOf("room")
	e.raise(r)
	e.fail(e.claim(r), e.failure())
	e.pass(time.Hour)
	lease := e.claim(r)
	e.raise(r) // what arrives meanwhile cannot be fetched either
	f := e.failure()
	f.Uncounted, f.Unsupported, f.Cause = true, true, "UPSTREAM_UNSUPPORTED: not here"
	e.want("Fail", e.fail(lease, f), mirror.Applied{})
	task := e.task(r)
	if task.State != mirror.TaskWaiting || task.Attempts != 0 || task.LastError != f.Cause || !task.FailTime.IsZero() {
		e.Fatalf("task = %+v; want it waiting, without attempts, and the cause", task)
	}
	progress, err := e.Generations(e.ctx(), []mirror.Resource{r})
	e.must("Generations", err)
	if len(progress) != 1 || !progress[0].Waiting || !progress[0].Unsupported || progress[0].Failed {
		e.Fatalf("progress = %+v; want it waiting and unsupported", progress)
	}
	counts, err := e.Counts(e.ctx(), r.Project)
	e.must("Counts", err)
	if counts.Failed != 0 || counts.Pending != 0 {
		e.Fatalf("counts = %+v; want nothing failed and nothing pending", counts)
	}
	e.pass(time.Hour)
	e.wantNotDue(r)
	e.raise(r)
	lease = e.claim(r)
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.fail(lease, e.failure())
	progress, err = e.Generations(e.ctx(), []mirror.Resource{r})
	e.must("Generations", err)
	if progress[0].Waiting || progress[0].Unsupported {
		e.Fatalf("progress = %+v; want it pending again", progress)
	}
}

func failFinal(e *env) {
	e.raise(storageOf("room"))
	noticed := e.now
	f := e.failure()
	f.Final = true
	applied := e.fail(e.claim(storageOf("room")), f)
	e.want("Fail", applied, mirror.Applied{})
	task := e.task(storageOf("room"))
	if task.State != mirror.TaskFailed || !task.FailTime.Equal(e.now) || !task.DueTime.IsZero() ||
		task.LastError != f.Cause {
		e.Fatalf("task = %+v; want it failed now, with its cause and nothing due", task)
	}
	e.pass(24 * time.Hour)
	e.wantNotDue(storageOf("room"))
	e.want("Due", e.dueList(10), dueList{})
	counts, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	e.want("Counts", counts, store.Counts{Failed: 1})
	progress, err := e.Generations(e.ctx(), []mirror.Resource{storageOf("room")})
	e.must("Generations", err)
	e.want("Generations", progress, []store.Progress{{Failed: true, NoticeTime: noticed}})
}

func failFinalRaised(e *env) {
	e.raise(storageOf("room"))
	e.fail(e.claim(storageOf("room")), e.failure())
	e.pass(time.Hour)
	lease := e.claim(storageOf("room"))
	e.raise(storageOf("room"))
	f := e.failure()
	f.Final = true
	applied := e.fail(lease, f)
	task := e.task(storageOf("room"))
	if !applied.Due.Equal(f.NotBefore) || task.State != mirror.TaskPending || task.Attempts != 0 {
		e.Fatalf("Fail = %+v, task = %+v; want it to begin anew at %v", applied, task, f.NotBefore)
	}
}

func failRaised(e *env) {
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	e.raise(storageOf("room"))
	f := e.failure()
	e.fail(lease, f)
	if task := e.task(storageOf("room")); !task.DueTime.Equal(f.NotBefore) || task.Attempts != 1 {
		e.Fatalf("task = %+v; want it due after the backoff, at %v", task, f.NotBefore)
	}
}

func failCause(e *env) {
	for _, cause := range []string{"", "a\x00b", "\xff\xfe", "\u2028 \U0001F600", fmt.Sprintf("%0*d", 10_000, 7)} {
		e.raise(storageOf("room"))
		f := e.failure()
		f.NotBefore, f.Cause = e.now, cause
		_, err := e.Fail(e.ctx(), e.claim(storageOf("room")), f)
		e.must(fmt.Sprintf("Fail because of %.20q", cause), err)
		e.wantState(storageOf("room"), mirror.TaskPending)
	}
}

func successForgets(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(storageOf("room"))
	e.fail(e.claim(storageOf("room")), e.failure())
	e.pass(time.Hour)
	fetched := e.now
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{}`))
	task := e.task(storageOf("room"))
	e.want("task", task, mirror.Task{
		Resource: storageOf("room"), State: mirror.TaskDone, Generation: task.Generation, Applied: task.Generation,
		FetchTime: fetched,
	})
	e.raise(storageOf("room"))
	if lease := e.claim(storageOf("room")); lease.Attempts != 0 {
		e.Fatalf("lease = %+v; want no attempts", lease)
	}
}

func request(e *env) {
	// Backing off, failed, done and never heard of.
	resources := []mirror.Resource{storageOf("backing off"), storageOf("failed"), roomOf("done"), storageOf("new")}
	e.raise(resources[0], resources[1])
	e.fail(e.claim(resources[0]), e.failure())
	f := e.failure()
	f.Final = true
	e.fail(e.claim(resources[1]), f)
	e.mirrorRoom("done", e.roomContent(`{}`))
	e.pass(time.Second)

	pending := e.request(requestsFor(append(resources, resources[0])...)...)
	want := map[mirror.Resource]int64{resources[0]: 2, resources[1]: 2, resources[2]: 2, resources[3]: 1}
	got := make(map[mirror.Resource]int64)
	for _, r := range pending {
		got[r.Resource] = r.Generation
	}
	e.want("Request", got, want)
	for _, r := range resources {
		task := e.task(r)
		if task.State != mirror.TaskPending || !task.DueTime.Equal(e.now) || task.Attempts != 0 ||
			!task.NotBefore.IsZero() || !task.FailTime.IsZero() || task.Generation != want[r] {
			e.Fatalf("task = %+v; want it pending at once, with all its attempts", task)
		}
		e.claim(r)
	}
	e.want("Request of nothing", e.request(), []mirror.Pending{})
}

func requestLeased(e *env) {
	e.raise(roomOf("room"))
	lease := e.claim(roomOf("room"))
	pending := e.request(requestsFor(roomOf("room"))...)
	applied := e.applyRoom(lease, e.roomContent(`{}`))
	if !applied.Due.Equal(e.now) {
		e.Fatalf("ApplyRoom = %+v; want it due again for the request", applied)
	}
	progress, err := e.Generations(e.ctx(), []mirror.Resource{roomOf("room")})
	e.must("Generations", err)
	if progress[0].Applied >= pending[0].Generation {
		e.Fatalf("applied = %d; want less than the requested %d: that fetch began before", progress[0].Applied,
			pending[0].Generation)
	}
}

func retry(e *env) {
	e.raise(storageOf("failed"), storageOf("backing off"), storageOf("waiting"))
	f := e.failure()
	e.fail(e.claim(storageOf("backing off")), f)
	f.Final = true
	e.fail(e.claim(storageOf("failed")), f)
	e.park(e.claim(storageOf("waiting")))
	e.pass(time.Second)
	for _, r := range []mirror.Resource{storageOf("failed"), storageOf("backing off"), storageOf("waiting")} {
		task, err := e.Retry(e.ctx(), r, e.now)
		e.must("Retry", err)
		e.want("Retry", task, e.task(r))
		if task.State != mirror.TaskPending || !task.DueTime.Equal(e.now) || task.Attempts != 0 ||
			!task.NotBefore.IsZero() || !task.FailTime.IsZero() || task.Generation != 1 {
			e.Fatalf("Retry = %+v; want it pending at once, of the same generation", task)
		}
		if lease := e.claim(r); lease.Attempts != 0 {
			e.Fatalf("lease = %+v; want no attempts", lease)
		}
	}
}

func retryRefused(e *env) {
	_, err := e.Retry(e.ctx(), storageOf("room"), e.now)
	e.wantErr("Retry of a task that is not there", err, store.ErrNotFound)
	e.mirrorRoom("room", e.roomContent(`{}`))
	before := e.task(roomOf("room"))
	_, err = e.Retry(e.ctx(), roomOf("room"), e.now)
	e.wantErr("Retry of a task that is done", err, store.ErrNotDue)
	e.want("task", e.task(roomOf("room")), before)
}

func discard(e *env) {
	e.mirrorBoth("room")
	e.raise(roomOf("room"), storageOf("room"), ydocOf("room"), threadOf("room", ""))
	f := e.failure()
	e.fail(e.claim(ydocOf("room")), f)
	f.Final = true
	e.fail(e.claim(threadOf("room", "")), f)
	before := e.changes(storageOf("room").Bucket())
	for _, r := range []mirror.Resource{storageOf("room"), ydocOf("room"), threadOf("room", "")} {
		old := e.task(r)
		task, err := e.Discard(e.ctx(), r, e.now)
		e.must("Discard", err)
		e.want("Discard", task, e.task(r))
		want := old
		want.State, want.DueTime, want.NotBefore, want.FailTime = mirror.TaskWaiting, time.Time{}, time.Time{}, time.Time{}
		want.Attempts = 0
		e.want("discarded task", task, want)
		e.wantNotDue(r)
	}
	e.want("due", e.dueList(10), dueList{Resources: []mirror.Resource{roomOf("room")}})
	if !e.document(storageOf("room")).Freshness.Stale {
		e.Fatalf("the copy of a discarded task is shown as current")
	}
	e.want("changes", e.changes(storageOf("room").Bucket()), before)
	// What is only to be fetched once more is done without it.
	e.fetch(roomOf("room"))
	e.wantState(roomOf("room"), mirror.TaskPending)
	_, err := e.Discard(e.ctx(), roomOf("room"), e.now)
	e.must("Discard", err)
	e.wantState(roomOf("room"), mirror.TaskDone)
	counts, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	e.want("counts", counts, store.Counts{})
}

func discardRefused(e *env) {
	_, err := e.Discard(e.ctx(), storageOf("room"), e.now)
	e.wantErr("Discard of a task that is not there", err, store.ErrNotFound)
	e.mirrorRoom("room", e.roomContent(`{}`))
	before := e.task(roomOf("room"))
	_, err = e.Discard(e.ctx(), roomOf("room"), e.now)
	e.wantErr("Discard of a task that is done", err, store.ErrNotDue)
	e.want("task", e.task(roomOf("room")), before)
}

func discardLeased(e *env) {
	e.mirrorBoth("room")
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	task, err := e.Discard(e.ctx(), storageOf("room"), e.now)
	e.must("Discard", err)
	if task.State != mirror.TaskWaiting || !task.LeaseUntil.IsZero() || task != e.task(storageOf("room")) {
		e.Fatalf("Discard of a leased task = %+v; want it waiting, without the lease", task)
	}
	_, err = e.ApplyDocument(e.ctx(), lease, e.documentContent(`{"late":1}`), e.now, settle)
	e.wantErr("ApplyDocument with the old lease", err, store.ErrLeaseLost)
	_, err = e.Fail(e.ctx(), lease, e.failure())
	e.wantErr("Fail with the old lease", err, store.ErrLeaseLost)
	e.wantState(storageOf("room"), mirror.TaskWaiting)
}

// An event, a request or a retry begins a discarded task anew, and a delete event that
// was discarded still counts.
func discardAnew(e *env) {
	r := storageOf("room")
	e.mirrorBoth("room")
	for what, begin := range map[string]func(){
		"event":   func() { e.raise(r) },
		"request": func() { e.request(requestsFor(r)...) },
		"retry": func() {
			_, err := e.Retry(e.ctx(), r, e.now)
			e.must("Retry", err)
		},
	} {
		e.raise(r)
		_, err := e.Discard(e.ctx(), r, e.now)
		e.must("Discard", err)
		begin()
		if task := e.task(r); task.State != mirror.TaskPending || task.Attempts != 0 {
			e.Fatalf("task after the %s = %+v; want it pending", what, task)
		}
		e.applyDocument(e.claim(r), e.documentContent(`{}`))
		e.wantState(r, mirror.TaskDone)
	}
	e.raiseDeleted("room")
	_, err := e.Discard(e.ctx(), roomOf("room"), e.now)
	e.must("Discard", err)
	e.room("room")
	e.request(requestsFor(roomOf("room"))...)
	e.applyMissing(e.claim(roomOf("room")))
	e.wantNoRoom("room")
}

func generations(e *env) {
	e.mirrorRoom("a", e.roomContent(`{}`))
	e.raise(roomOf("a"))
	e.applyRoom(e.claim(roomOf("a")), e.roomContent(`{}`))
	e.raise(roomOf("a"))
	e.raise(storageOf("b"))
	noticed := e.now
	e.park(e.claim(storageOf("b")))
	got, err := e.Generations(e.ctx(), []mirror.Resource{
		storageOf("never"), roomOf("a"), storageOf("b"), roomOf("a"),
		roomOf("never"),
	})
	e.must("Generations", err)
	e.want("Generations", got, []store.Progress{
		{},
		{Applied: 2, NoticeTime: noticed},
		{Waiting: true, NoticeTime: noticed},
		{Applied: 2, NoticeTime: noticed},
		{},
	})
	got, err = e.Generations(e.ctx(), nil)
	e.must("Generations of nothing", err)
	e.want("Generations of nothing", got, []store.Progress{})
}

func park(e *env) {
	e.raise(roomOf("room"))
	f := e.failure()
	f.Final = true
	e.fail(e.claim(roomOf("room")), f)
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	if lease.Epoch != 0 {
		e.Fatalf("lease = %+v; want epoch 0 in a room that is not mirrored", lease)
	}
	applied := e.park(lease)
	e.want("Park", applied, mirror.Applied{AlsoDue: []mirror.Resource{roomOf("room")}})
	e.wantState(storageOf("room"), mirror.TaskWaiting)
	e.wantNotDue(storageOf("room"))
	if task := e.task(roomOf("room")); task.State != mirror.TaskPending || !task.DueTime.Equal(e.now) ||
		task.Generation != 2 {
		e.Fatalf("task of the room = %+v; want it due at once, raised", task)
	}
	e.pass(time.Hour)
	e.wantNotDue(storageOf("room"))

	applied = e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	e.want("resources woken by the room", applied.AlsoDue, childrenOf("room"))
	lease = e.claim(storageOf("room"))
	if lease.Epoch != 1 {
		e.Fatalf("lease = %+v; want epoch 1", lease)
	}
	e.applyDocument(lease, e.documentContent(`{}`))
	e.wantState(storageOf("room"), mirror.TaskDone)
}

func parkPendingRoom(e *env) {
	e.raise(roomOf("room"), storageOf("room"))
	applied := e.park(e.claim(storageOf("room")))
	e.want("Park", applied, mirror.Applied{})
	if task := e.task(roomOf("room")); task.Generation != 1 || task.State != mirror.TaskPending {
		e.Fatalf("task of the room = %+v; want it as it was", task)
	}
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	e.claim(storageOf("room"))
}

func parkUnknownRoom(e *env) {
	e.raise(storageOf("room"))
	applied := e.park(e.claim(storageOf("room")))
	e.want("Park", applied, mirror.Applied{AlsoDue: []mirror.Resource{roomOf("room")}})
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	e.claim(storageOf("room"))
}

func parkHastens(e *env) {
	for what, end := range map[string]func(lease mirror.Lease) mirror.Applied{
		"parked":    e.park,
		"not found": e.applyMissing,
	} {
		room, child := roomOf(mirror.RoomID(what)), storageOf(mirror.RoomID(what))
		if what == "not found" {
			e.mirrorRoom(room.Room, e.roomContent(`{}`))
		}
		e.request(mirror.Request{Resource: room, Background: true})
		task := e.task(room)
		e.raise(child)
		applied := end(e.claim(child))
		e.want("resources woken by a child "+what, applied.AlsoDue, []mirror.Resource{room})
		e.want("task of the room", e.task(room), task) // it was due already
		if list := e.dueList(10); !slices.Contains(list.Resources, room) {
			e.Fatalf("Due = %+v; want the room of a child %s among what is wanted at once", list, what)
		}
		if lease := e.claim(room); lease.Background {
			e.Fatalf("lease of the room = %+v; want it in the fore", lease)
		}
		// A child in the background hastens nothing.
		quiet := ydocOf(room.Room)
		e.request(mirror.Request{Resource: quiet, Background: true})
		lease := e.claim(quiet)
		lease.Background = true
		e.want("resources woken by a child in the background", end(lease).AlsoDue, []mirror.Resource(nil))
	}
}

// A fetch begins in the background, and an event comes in before its end. The room
// is as urgent as the child is by then.
func parkHastensMeanwhile(e *env) {
	for what, end := range map[string]func(lease mirror.Lease) mirror.Applied{
		"parked":    e.park,
		"not found": e.applyMissing,
	} {
		for _, pending := range []bool{true, false} {
			room := roomOf(mirror.RoomID(fmt.Sprintf("%s, pending %t", what, pending)))
			child := storageOf(room.Room)
			if what == "not found" {
				e.mirrorBoth(room.Room)
			}
			if pending {
				e.request(mirror.Request{Resource: room, Background: true})
			}
			e.request(mirror.Request{Resource: child, Background: true})
			lease := e.claim(child)
			e.raise(child)
			e.want("resources woken by a child "+what, end(lease).AlsoDue, []mirror.Resource{room})
			if list := e.dueList(10); !slices.Contains(list.Resources, room) {
				e.Fatalf("Due = %+v; want room %q among what is wanted at once", list, room.Room)
			}
		}
	}
}

func parkLate(e *env) {
	e.raise(roomOf("room"), storageOf("room"))
	child := e.claim(storageOf("room"))
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	applied := e.park(child)
	e.want("Park in a room that is mirrored by now", applied, mirror.Applied{Due: e.now})
	if lease := e.claim(storageOf("room")); lease.Epoch != 1 {
		e.Fatalf("lease = %+v; want epoch 1", lease)
	}
	e.wantState(roomOf("room"), mirror.TaskDone)
}

func parkedRaised(e *env) {
	e.raise(roomOf("room"), storageOf("room"))
	lease := e.claim(storageOf("room"))
	e.raise(storageOf("room")) // while leased: the room wakes it all the same
	applied := e.park(lease)
	e.want("Park", applied, mirror.Applied{})
	e.wantState(storageOf("room"), mirror.TaskWaiting)
	e.raise(storageOf("room")) // while parked
	e.park(e.claim(storageOf("room")))
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	lease = e.claim(storageOf("room"))
	if applied = e.applyDocument(lease, e.documentContent(`{}`)); !applied.Due.IsZero() {
		e.Fatalf("ApplyDocument = %+v; want nothing more to do", applied)
	}
}

func parkedQuiet(e *env) {
	e.raise(storageOf("room"))
	e.park(e.claim(storageOf("room")))
	e.applyMissing(e.claim(roomOf("room")))
	e.wantState(storageOf("room"), mirror.TaskDone)
	e.wantState(roomOf("room"), mirror.TaskDone)
	e.want("Due", e.dueList(math.MaxInt16), dueList{})
	// The next event begins anew.
	e.raise(storageOf("room"))
	applied := e.park(e.claim(storageOf("room")))
	e.want("Park", applied.AlsoDue, []mirror.Resource{roomOf("room")})
}

// The answer that denied the room may have been an old one, and so may be the
// document's if the room is found a moment later.
func settleOutlivesQuiet(e *env) {
	e.raise(storageOf("room"))
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	e.wantNotDue(storageOf("room"))
	e.raise(roomOf("room"))
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	if first := e.fetch(storageOf("room")); !first.Due.Equal(e.now.Add(settle)) {
		e.Fatalf("Apply once the room is there = %+v; want a settle fetch at %v", first, e.now.Add(settle))
	}
	e.pass(settle)
	if second := e.fetch(storageOf("room")); !second.Due.IsZero() {
		e.Fatalf("settle Apply = %+v; want no more to do", second)
	}
}

func tasksByKey(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(storageOf("room"), threadOf("room", "th_1"), threadOf("room", "th_2"), storageOf("Room"))
	list := []mirror.Resource{threadOf("room", "th_2"), threadOf("room", "th_3"), storageOf("room"), roomOf("room")}
	got, err := e.Tasks(e.ctx(), list, e.now)
	e.must("Tasks", err)
	e.want("Tasks", got, []mirror.Task{
		e.task(roomOf("room")), e.task(storageOf("room")), e.task(threadOf("room", "th_2")),
	})
	none, err := e.Tasks(e.ctx(), nil, e.now)
	e.must("Tasks", err)
	e.want("Tasks of nothing", len(none), 0)
	others := []mirror.Resource{{Project: "other", Room: "room", Kind: mirror.KindStorage}}
	none, err = e.Tasks(e.ctx(), others, e.now)
	e.must("Tasks", err)
	e.want("Tasks of another project", len(none), 0)
}
