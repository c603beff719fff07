package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var projectCases = []testCase{
	{"liveblocks project is pinned once", pinProject},
	{"concurrent pins have one winner", concurrentPins},
	{"pinned project is replaced", repinProject},
	{"events of another project are counted", foreignEvents},
	{"event that was set aside is taken up once", takeUp},
	{"event that was worked is not taken up", takeUpWorked},
	{"what is taken up is like new", takeUpLikeNew},
	{"replayed events make stale what they made stale", replay},
	{"replay does not delay what is urgent", replayInBackground},
	{"replayed event waits at what it is folded into", replayFolds},
	{"what was erased is neither replayed nor taken up", replayErased},
	{"project is stopped and goes on", stopProject},
	{"key and confirmations are kept", keyAndConfirmations},
	{"unannounced changes add up for a day", unannounced},
}

func pinProject(e *env) {
	for _, c := range []struct {
		project  mirror.ProjectID
		id, want string
	}{
		{project, "first", "first"}, {project, "second", "first"}, {"other", "second", "second"}, {project, "FIRST", "first"},
	} {
		got, err := e.PinProject(e.ctx(), c.project, c.id)
		e.must("PinProject", err)
		if got != c.want {
			e.Fatalf("PinProject(%q, %q) = %q; want %q", c.project, c.id, got, c.want)
		}
	}
}

func concurrentPins(e *env) {
	const n = 16
	stores := []store.Store{e.Store, e.another()}
	got := make([]string, n)
	errs := make([]error, n)
	parallel(n, func(i int) {
		got[i], errs[i] = stores[i%2].PinProject(e.ctx(), project, fmt.Sprintf("candidate-%d", i))
	})
	stored, err := e.Project(e.ctx(), project)
	e.must("Project", err)
	for i := range n {
		e.must("PinProject", errs[i])
		if got[i] != stored.LiveblocksID || stored.LiveblocksID == "" {
			e.Fatalf("PinProject %d = %q; want the winner %q", i, got[i], stored.LiveblocksID)
		}
	}
}

func (e *env) project(p mirror.ProjectID) mirror.Project {
	e.Helper()
	got, err := e.Project(e.ctx(), p)
	e.must("Project", err)
	return got
}

func repinProject(e *env) {
	for _, c := range []string{"first", "second", "SECOND"} {
		e.must("RepinProject", e.RepinProject(e.ctx(), project, c))
		e.want("project", e.project(project), mirror.Project{ID: project, LiveblocksID: c})
		e.want("project of another store", e.projectOf(e.another()), mirror.Project{ID: project, LiveblocksID: c})
		pinned, err := e.PinProject(e.ctx(), project, "late")
		e.must("PinProject", err)
		e.want("pinned", pinned, c)
	}
	e.want("other project", e.project("other"), mirror.Project{ID: "other"})
	e.must("RepinProject", e.RepinProject(e.ctx(), project, ""))
	e.want("project without a pin", e.project(project), mirror.Project{ID: project})
	pinned, err := e.PinProject(e.ctx(), project, "next")
	e.must("PinProject", err)
	e.want("pinned anew", pinned, "next")
}

func (e *env) projectOf(s store.Store) mirror.Project {
	e.Helper()
	got, err := s.Project(e.ctx(), project)
	e.must("Project", err)
	return got
}

func foreignEvents(e *env) {
	note := func(id string, n int64) {
		e.Helper()
		e.must("NoteForeign", e.NoteForeign(e.ctx(), project, mirror.ForeignEvents{LiveblocksID: id, Count: n, Time: e.now}))
	}
	note("6606", 1)
	e.want("first", e.project(project).Foreign, mirror.ForeignEvents{LiveblocksID: "6606", Count: 1, Time: e.now})
	e.pass(time.Minute)
	note("6607", 2)
	want := mirror.ForeignEvents{LiveblocksID: "6607", Count: 3, Time: e.now}
	e.want("next", e.project(project).Foreign, want)
	// The clock of another replica is behind.
	e.pass(-time.Hour)
	note("6607", 1)
	want.Count = 4
	e.want("late one", e.project(project).Foreign, want)
	pinned, err := e.PinProject(e.ctx(), project, "6605")
	e.must("PinProject", err)
	e.want("pinned", pinned, "6605")
	e.want("pinned beside", e.project(project), mirror.Project{ID: project, LiveblocksID: "6605", Foreign: want})
	e.must("RepinProject", e.RepinProject(e.ctx(), project, "6607"))
	e.want("replaced", e.project(project), mirror.Project{ID: project, LiveblocksID: "6607"})
	e.want("other project", e.project("other"), mirror.Project{ID: "other"})
}

// setAside records an event as one of another project, and returns it as it would
// have been without that.
func (e *env) setAside(invalidations ...mirror.Invalidation) mirror.Delivery {
	e.Helper()
	d := e.delivery(invalidations...)
	aside := d
	aside.Event.Outcome, aside.Invalidations = mirror.OutcomeForeignProject, nil
	e.accept(aside)
	return d
}

func (e *env) takeUp(batch ...mirror.Delivery) []mirror.Pending {
	e.Helper()
	pending, err := e.TakeUp(e.ctx(), batch)
	e.must("TakeUp", err)
	slices.SortFunc(pending, func(a, b mirror.Pending) int { return a.Resource.Compare(b.Resource) })
	return pending
}

func takeUp(e *env) {
	d := e.setAside(invalidatedAt(storageOf("room")))
	e.want("due while it is set aside", e.dueList(10), dueList{})
	const n = 8
	stores := []store.Store{e.Store, e.another()}
	pending := make([][]mirror.Pending, n)
	errs := make([]error, n)
	parallel(n, func(i int) { pending[i], errs[i] = stores[i%2].TakeUp(e.ctx(), []mirror.Delivery{d}) })
	var all []mirror.Pending
	for i := range n {
		e.must("TakeUp", errs[i])
		all = append(all, pending[i]...)
	}
	e.want("stale", all, []mirror.Pending{{Resource: storageOf("room"), Generation: 1}})
	e.want("due", e.dueList(10), dueList{Resources: []mirror.Resource{storageOf("room")}})
	got, err := e.Event(e.ctx(), project, d.Event.ID)
	e.must("Event", err)
	e.want("event", got, d.Event)
	e.want("stale once more", e.takeUp(d), []mirror.Pending{})
}

func takeUpWorked(e *env) {
	d := e.delivery(invalidatedAt(storageOf("room")))
	e.accept(d)
	before := e.snapshot(storageOf("room"))
	e.want("stale", e.takeUp(d), []mirror.Pending{})
	unknown := e.delivery(invalidatedAt(storageOf("room")))
	e.want("stale by an event that was never recorded", e.takeUp(unknown), []mirror.Pending{})
	e.want("storage", e.snapshot(storageOf("room")), before)
	e.want("nothing", e.takeUp(), []mirror.Pending{})
}

func takeUpLikeNew(e *env) {
	e.mirrorRoom("known", e.roomContent(`{"id":"known"}`))
	sessions := mirror.Resource{Project: project, Room: "known", Kind: mirror.KindUserSessions}
	batch := []mirror.Delivery{
		e.setAside(
			mirror.Invalidation{Resource: roomOf("known"), IfUnknown: true},
			mirror.Invalidation{Resource: sessions, Fold: true},
		),
		e.setAside(mirror.Invalidation{Resource: roomOf("new"), IfUnknown: true}, invalidatedAt(storageOf("new"))),
		e.setAside(mirror.Invalidation{Resource: roomOf("known"), Deleted: true}),
		e.setAside(mirror.Invalidation{Resource: sessions, Fold: true}),
	}
	want := []mirror.Pending{
		{Resource: roomOf("known"), Generation: 2},
		{Resource: sessions, Generation: 1},
		{Resource: roomOf("new"), Generation: 1},
		{Resource: storageOf("new"), Generation: 1},
	}
	slices.SortFunc(want, func(a, b mirror.Pending) int { return a.Resource.Compare(b.Resource) })
	e.want("stale", e.takeUp(batch...), want)
	var ids []string
	for _, ev := range e.unfolded(sessions, 10) {
		ids = append(ids, ev.ID)
	}
	slices.Sort(ids)
	e.want("waiting events", ids, []string{batch[0].Event.ID, batch[3].Event.ID})
	// The delete event counts: the 404 makes a tombstone.
	e.applyMissing(e.claim(roomOf("known")))
	e.wantNoRoom("known")
}

// replay replays events that are recorded as they are here.
func (e *env) replay(batch ...mirror.Delivery) []mirror.Pending {
	e.Helper()
	pending, n, err := e.Replay(e.ctx(), batch, e.now)
	e.must("Replay", err)
	e.want("replayed events", n, len(batch))
	slices.SortFunc(pending, func(a, b mirror.Pending) int { return a.Resource.Compare(b.Resource) })
	return pending
}

func replay(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	d := e.delivery(mirror.Invalidation{Resource: roomOf("room"), IfUnknown: true}, invalidatedAt(storageOf("room")))
	e.accept(d)
	e.fetch(storageOf("room"))
	e.pass(settle)
	e.fetch(storageOf("room"))
	e.wantState(storageOf("room"), mirror.TaskDone)
	before, notice := e.task(roomOf("room")), e.progressOf(storageOf("room")).NoticeTime
	e.pass(time.Hour)
	e.want("stale", e.replay(d), []mirror.Pending{{Resource: storageOf("room"), Generation: 3}})
	if task := e.task(storageOf("room")); task.State != mirror.TaskPending || !task.DueTime.Equal(e.now) {
		e.Fatalf("task = %+v; want it due now, not when the event came", task)
	}
	e.want("room that is known", e.task(roomOf("room")), before)
	e.want("time of the latest event", e.progressOf(storageOf("room")).NoticeTime, notice)
	// No settle fetch follows: what Liveblocks returns now is later than the event.
	if applied := e.fetch(storageOf("room")); !applied.Due.IsZero() {
		e.Fatalf("Apply = %+v; want nothing more to do", applied)
	}
	got, err := e.Event(e.ctx(), project, d.Event.ID)
	e.must("Event", err)
	e.want("event", got, d.Event)
	e.want("nothing", e.replay(), []mirror.Pending{})
	// A delete event counts once more, and proves nothing without a 404.
	deleted := e.setAside(mirror.Invalidation{Resource: roomOf("room"), Deleted: true})
	e.replay(deleted)
	e.fetch(roomOf("room"))
	e.room("room")
	e.replay(deleted)
	e.applyMissing(e.claim(roomOf("room")))
	e.wantNoRoom("room")
}

func (e *env) progressOf(r mirror.Resource) store.Progress {
	e.Helper()
	progress, err := e.Generations(e.ctx(), []mirror.Resource{r})
	e.must("Generations", err)
	return progress[0]
}

func replayInBackground(e *env) {
	e.raise(storageOf("urgent"))
	e.pass(time.Second)
	e.replay(e.setAside(invalidatedAt(storageOf("urgent"))), e.setAside(invalidatedAt(storageOf("other"))))
	e.want("due", e.dueList(10), dueList{
		Resources: []mirror.Resource{storageOf("urgent")}, Background: []mirror.Resource{storageOf("other")},
	})
	// A task that failed begins anew, and one that backs off goes on backing off.
	f := e.failure()
	e.fail(e.claim(storageOf("urgent")), f)
	f.Final = true
	e.fail(e.claim(storageOf("other")), f)
	e.replay(e.setAside(invalidatedAt(storageOf("urgent"))), e.setAside(invalidatedAt(storageOf("other"))))
	e.wantState(storageOf("other"), mirror.TaskPending)
	if task := e.task(storageOf("urgent")); !task.DueTime.Equal(f.NotBefore) || task.Attempts != 1 {
		e.Fatalf("task that backs off = %+v; want it due at %v", task, f.NotBefore)
	}
}

func replayFolds(e *env) {
	sessions := mirror.Resource{Project: project, Room: "room", Kind: mirror.KindUserSessions}
	first := e.delivery(mirror.Invalidation{Resource: sessions, Fold: true})
	e.accept(first)
	lease := e.claim(sessions)
	_, err := e.ApplySessions(e.ctx(), lease, mirror.SessionFold{Folded: []string{first.Event.ID}}, e.now)
	e.must("ApplySessions", err)
	second := e.delivery(mirror.Invalidation{Resource: sessions, Fold: true})
	e.accept(second)
	e.pass(time.Minute)
	e.replay(first, second) // one that was folded, and one that waits
	e.replay(first)
	events := e.unfolded(sessions, 10)
	e.want("waiting events", eventIDs(events), []string{first.Event.ID, second.Event.ID})
	e.want("time of a waiting event", events[0].ReceiveTime, first.Event.ReceiveTime)
	e.wantState(sessions, mirror.TaskPending)
}

// Whoever replays has read the events before. An erasure can have come in between.
func replayErased(e *env) {
	sessions := userSessionsOf("room")
	of := func(user, payload string) mirror.Delivery {
		d := e.delivery(mirror.Invalidation{Resource: sessions, Fold: true})
		d.Event.User, d.Event.Payload = user, []byte(payload)
		return d
	}
	hers, his := of("ann", `{"data":{"userId":"ann","n":1}}`), of("bob", `{"data":{"userId":"bob","createdBy":"ann"}}`)
	others, never := of("bob", `{"data":{"userId":"bob"}}`), of("bob", `{"data":{"userId":"bob"}}`)
	e.accept(hers, his, others)
	aside := of("ann", `{"data":{"userId":"ann","n":2}}`)
	set := aside
	set.Event.Outcome, set.Invalidations = mirror.OutcomeForeignProject, nil
	e.accept(set)
	_, err := e.ApplySessions(e.ctx(), e.claim(sessions),
		mirror.SessionFold{Folded: []string{hers.Event.ID, his.Event.ID, others.Event.ID}}, e.now)
	e.must("ApplySessions", err)
	e.erase(project, "ann", false)
	before := e.task(sessions)
	pending, n, err := e.Replay(e.ctx(), []mirror.Delivery{hers, his, never}, e.now)
	e.must("Replay", err)
	e.want("what is stale by a replay of what was erased", pending, []mirror.Pending{})
	e.want("replayed events", n, 0)
	e.want("stale by what was set aside and then erased", e.takeUp(aside), []mirror.Pending{})
	e.want("sessions", e.task(sessions), before)
	event, err := e.EventOf(e.ctx(), project, "room", aside.Event.ID)
	e.must("EventOf", err)
	e.want("outcome of what was set aside", event.Outcome, mirror.OutcomeForeignProject)
	// The rest of the batch is replayed.
	pending, n, err = e.Replay(e.ctx(), []mirror.Delivery{hers, others, his}, e.now)
	e.must("Replay", err)
	e.want("replayed events", n, 1)
	e.want("what is stale", len(pending), 1)
	e.want("waiting events", eventIDs(e.unfolded(sessions, 10)), []string{others.Event.ID})
}

func stopProject(e *env) {
	stop := func(reason string) {
		e.Helper()
		e.must("Stop", e.Stop(e.ctx(), project, reason, e.now))
	}
	stop("database is moved")
	want := mirror.Project{ID: project, StopReason: "database is moved", StopTime: e.now}
	e.want("stopped project", e.project(project), want)
	e.want("of another store", e.projectOf(e.another()), want)
	// A pause because of the key comes and goes beside it.
	for _, reason := range []string{"key refused", ""} {
		e.must("Pause", e.Pause(e.ctx(), project, reason, e.now))
		if got := e.project(project); got.StopReason != want.StopReason || got.PauseReason != reason {
			e.Fatalf("project = %+v; want it stopped, and paused because of %q", got, reason)
		}
	}
	e.pass(time.Hour)
	stop("odd \x00 \xff")
	if got := e.project(project); got.StopReason == "" || !got.StopTime.Equal(e.now) {
		e.Fatalf("project = %+v; want it stopped", got)
	}
	for range 2 {
		stop("")
		e.want("project that goes on", e.project(project), mirror.Project{ID: project})
	}
	e.want("other project", e.project("other"), mirror.Project{ID: "other"})
}

func keyAndConfirmations(e *env) {
	want := mirror.Project{ID: project, KeyHash: []byte("salt\x00\xff and hash")}
	e.must("SaveKeyHash", e.SaveKeyHash(e.ctx(), project, want.KeyHash))
	e.want("project with a key", e.project(project), want)
	want.KeyHash, want.KeyConfirmTime = []byte("another"), e.now
	e.must("SaveKeyHash", e.SaveKeyHash(e.ctx(), project, want.KeyHash))
	e.must("ConfirmKey", e.ConfirmKey(e.ctx(), project, e.now))
	e.want("project with a confirmed key", e.project(project), want)
	for i := range int64(2) {
		e.pass(time.Hour)
		want.Confirmed = mirror.Confirmation{Rooms: 30 + i, Groups: 21 - i, Time: e.now}
		e.must("ConfirmDeletions", e.ConfirmDeletions(e.ctx(), project, want.Confirmed))
		e.want("project with confirmed deletions", e.project(project), want)
	}
	e.must("ConfirmDeletions", e.ConfirmDeletions(e.ctx(), "other", want.Confirmed))
	e.want("other project", e.project("other"), mirror.Project{ID: "other", Confirmed: want.Confirmed})
	e.must("ConfirmKey", e.ConfirmKey(e.ctx(), "third", e.now))
	e.want("third project", e.project("third"), mirror.Project{ID: "third", KeyConfirmTime: e.now})
}

func unannounced(e *env) {
	note := func(p mirror.ProjectID, kind mirror.Kind, count int64) time.Time {
		e.Helper()
		e.must("NoteUnannounced", e.NoteUnannounced(e.ctx(), p, kind, count, e.now))
		return e.now
	}
	want := func(p mirror.ProjectID, want ...mirror.Unannounced) {
		e.Helper()
		got, err := e.Unannounced(e.ctx(), p)
		e.must("Unannounced", err)
		e.want("unannounced changes", got, append([]mirror.Unannounced{}, want...))
	}
	want(project)
	first := note(project, mirror.KindThread, 2)
	storage := note(project, mirror.KindStorage, 1)
	e.pass(mirror.UnannouncedLife - time.Second)
	last := note(project, mirror.KindThread, 3)
	want(project,
		mirror.Unannounced{Kind: mirror.KindStorage, Count: 1, FirstTime: storage, LastTime: storage},
		mirror.Unannounced{Kind: mirror.KindThread, Count: 5, FirstTime: first, LastTime: last})
	e.pass(mirror.UnannouncedLife)
	anew := note(project, mirror.KindThread, 7)
	want(project,
		mirror.Unannounced{Kind: mirror.KindStorage, Count: 1, FirstTime: storage, LastTime: storage},
		mirror.Unannounced{Kind: mirror.KindThread, Count: 7, FirstTime: anew, LastTime: anew})
	want("other")
}
