package storetest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var sweepCases = []testCase{
	{"sweep is planned, saved and done", sweepLife},
	{"sweep under way goes on", sweepUnderWay},
	{"fuller sweep begins anew", sweepFuller},
	{"only the lease saves a sweep", sweepLease},
	{"sweep without a next", sweepNoNext},
	{"sweep fields may hold anything", sweepFields},
	{"each project has its sweep", sweepProjects},
	{"rooms by id", roomsByID},
	{"odd rooms by id", roomsByOddID},
	{"what is stored is told", stored},
	{"what is not trusted is written anew", distrust},
	{"background comes last", backgroundLast},
	{"event lifts out of the background", backgroundEvent},
	{"request in the background delays nothing", backgroundRequest},
	{"retry lifts out of the background", backgroundRetry},
	{"room wakes others as urgent as it is", backgroundWoken},
	{"background is counted", backgroundCounts},
	{"sweep is no task that waits", sweepCounts},
	{"background is over when the work is done", backgroundDone},
	{"unlisted counts as a delete event", unlisted},
	{"request of 500", requestBulk},
}

func sweepOf(p mirror.ProjectID) mirror.Resource {
	return mirror.Resource{Project: p, Kind: mirror.KindSweep}
}

func (e *env) sweep() mirror.Sweep {
	e.Helper()
	s, err := e.Sweep(e.ctx(), project)
	e.must("Sweep", err)
	return s
}

func (e *env) plan(id string, full bool) mirror.Sweep {
	e.Helper()
	s, err := e.PlanSweep(e.ctx(), project, id, full, e.now)
	e.must("PlanSweep", err)
	e.want("Sweep", e.sweep(), s)
	return s
}

func (e *env) requestAll(requests ...mirror.Request) []mirror.Pending {
	e.Helper()
	pending, err := e.Request(e.ctx(), requests, e.now)
	e.must("Request", err)
	return pending
}

func inBackground(resources ...mirror.Resource) []mirror.Request {
	var requests []mirror.Request
	for _, r := range resources {
		requests = append(requests, mirror.Request{Resource: r, Background: true})
	}
	return requests
}

func sweepLife(e *env) {
	r := sweepOf(project)
	e.want("Sweep before the first", e.sweep(), mirror.Sweep{Project: project})
	e.wantNotDue(r)
	want := mirror.Sweep{Project: project, ID: "sweep-1", Full: true, BeginTime: e.now}
	e.want("PlanSweep", e.plan("sweep-1", true), want)
	e.want("Due", e.dueList(10), dueList{Resources: []mirror.Resource{r}})
	lease := e.claim(r)
	if lease.Epoch != 0 || lease.Gone || lease.Background {
		e.Fatalf("lease = %+v; want it of no room, and not in the background", lease)
	}
	e.pass(time.Second)
	want.Cursor, want.Listed, want.Known, want.MarkedStale, want.Vanished, want.Problem = "page-2", 100, 90, 13, 2,
		"too many rooms vanished"
	e.must("SaveSweep", e.SaveSweep(e.ctx(), lease, want))
	e.want("Sweep", e.sweep(), want)
	e.wantState(r, mirror.TaskRunning) // the lease is kept
	want.Done, want.Cursor, want.Problem, want.EndTime, want.FullTime = true, "", "", e.now, want.BeginTime
	applied, err := e.ApplySweep(e.ctx(), lease, want, e.now.Add(time.Hour), e.now)
	e.must("ApplySweep", err)
	e.want("ApplySweep", e.caughtUp(lease, applied), mirror.Applied{Due: e.now.Add(time.Hour)})
	e.want("Sweep", e.sweep(), want)
	e.wantNotDue(r)
	e.pass(time.Hour)
	e.claim(r)

	// The next remembers when everything was looked at last.
	next := e.plan("sweep-2", false)
	e.want("PlanSweep after one", next, mirror.Sweep{
		Project: project, ID: "sweep-2", BeginTime: e.now,
		FullTime: want.FullTime,
	})
}

func sweepUnderWay(e *env) {
	r := sweepOf(project)
	e.plan("sweep-1", true)
	lease := e.claim(r)
	s := e.sweep()
	s.Cursor, s.Listed = "page-2", 100
	e.must("SaveSweep", e.SaveSweep(e.ctx(), lease, s))
	e.pass(time.Second)
	e.want("PlanSweep of less", e.plan("sweep-2", false), s)
	e.want("PlanSweep of as much", e.plan("sweep-3", true), s)
	e.must("SaveSweep", e.SaveSweep(e.ctx(), lease, s))
	// One that waits for its next attempt waits no longer.
	f := e.failure()
	f.NotBefore = e.now.Add(time.Hour)
	e.fail(lease, f)
	e.wantNotDue(r)
	e.want("PlanSweep of as much", e.plan("sweep-4", true), s)
	lease = e.claim(r)
	f = e.failure()
	f.Final = true
	e.fail(lease, f)
	e.want("PlanSweep of one that failed", e.plan("sweep-5", true), s)
	lease = e.claim(r)
	// What was asked for is done: nothing is due at once after it.
	s.Done = true
	applied, err := e.ApplySweep(e.ctx(), lease, s, e.now.Add(time.Hour), e.now)
	e.must("ApplySweep", err)
	e.want("ApplySweep", e.caughtUp(lease, applied), mirror.Applied{Due: e.now.Add(time.Hour)})
}

func sweepFuller(e *env) {
	r := sweepOf(project)
	e.plan("sweep-1", false)
	lease := e.claim(r)
	s := e.sweep()
	s.Cursor, s.Listed, s.FullTime = "page-2", 100, e.now.Add(-time.Hour)
	e.must("SaveSweep", e.SaveSweep(e.ctx(), lease, s))
	e.pass(time.Second)
	want := mirror.Sweep{Project: project, ID: "sweep-2", Full: true, BeginTime: e.now, FullTime: s.FullTime}
	e.want("PlanSweep of more", e.plan("sweep-2", true), want)
	// Whoever is at the one before must not write over it.
	e.wantErr("SaveSweep of the one before", e.SaveSweep(e.ctx(), lease, s), store.ErrLeaseLost)
	_, err := e.ApplySweep(e.ctx(), lease, s, time.Time{}, e.now)
	e.wantErr("ApplySweep of the one before", err, store.ErrLeaseLost)
	e.want("Sweep", e.sweep(), want)
	e.claim(r)
	e.want("Sweep", e.sweep(), want)
}

func sweepLease(e *env) {
	r := sweepOf(project)
	s := e.plan("sweep-1", false)
	old := e.claim(r)
	e.now = old.Until
	lease := e.claim(r)
	changed := s
	changed.Cursor = "old"
	e.wantErr("SaveSweep under an old token", e.SaveSweep(e.ctx(), old, changed), store.ErrLeaseLost)
	_, err := e.ApplySweep(e.ctx(), old, changed, e.now, e.now)
	e.wantErr("ApplySweep under an old token", err, store.ErrLeaseLost)
	e.want("Sweep", e.sweep(), s)
	s.Done = true
	_, err = e.ApplySweep(e.ctx(), lease, s, e.now.Add(time.Hour), e.now)
	e.must("ApplySweep", err)
	e.wantErr("SaveSweep under a lease given back", e.SaveSweep(e.ctx(), lease, changed), store.ErrLeaseLost)
	e.want("Sweep", e.sweep(), s)
	stranger := mirror.Lease{Resource: sweepOf("other"), Token: newToken()}
	e.wantErr("SaveSweep without a lease", e.SaveSweep(e.ctx(), stranger, changed), store.ErrLeaseLost)
}

func sweepNoNext(e *env) {
	s := e.plan("sweep-1", false)
	s.Done = true
	lease := e.claim(sweepOf(project))
	applied, err := e.ApplySweep(e.ctx(), lease, s, time.Time{}, e.now)
	e.must("ApplySweep", err)
	e.want("ApplySweep", e.caughtUp(lease, applied), mirror.Applied{})
	e.wantState(sweepOf(project), mirror.TaskDone)
	e.want("PlanSweep of as much as was done", e.plan("sweep-2", false),
		mirror.Sweep{Project: project, ID: "sweep-2", BeginTime: e.now})
	e.claim(sweepOf(project))
}

func sweepFields(e *env) {
	s := e.plan("sweep-1", false)
	lease := e.claim(sweepOf(project))
	s.Cursor = strings.Repeat("ü/+='\\", 2000)
	s.Listed, s.Known, s.MarkedStale, s.Vanished = 1<<40, 1<<41, 1<<42, 1<<43
	s.Problem = strings.Repeat("why ", 1000)
	e.must("SaveSweep", e.SaveSweep(e.ctx(), lease, s))
	e.want("Sweep", e.sweep(), s)
	bad := s
	bad.Problem = "a\x00b\xff"
	e.must("SaveSweep with words that are no text", e.SaveSweep(e.ctx(), lease, bad))
}

func sweepProjects(e *env) {
	e.plan("sweep-1", true)
	other, err := e.PlanSweep(e.ctx(), "other", "sweep-2", false, e.now)
	e.must("PlanSweep", err)
	e.want("PlanSweep of another project", other, mirror.Sweep{Project: "other", ID: "sweep-2", BeginTime: e.now})
	e.want("Sweep", e.sweep(), mirror.Sweep{Project: project, ID: "sweep-1", Full: true, BeginTime: e.now})
	e.want("Due", e.dueList(10), dueList{Resources: []mirror.Resource{sweepOf(project)}})
	for _, p := range []mirror.ProjectID{"", "Default"} {
		s, err := e.Sweep(e.ctx(), p)
		e.must("Sweep", err)
		e.want(fmt.Sprintf("Sweep of project %q", p), s, mirror.Sweep{Project: p})
	}
}

// byID asks for rooms and sorts them.
func (e *env) byID(p mirror.ProjectID, ids ...mirror.RoomID) []mirror.Room {
	e.Helper()
	rooms, err := e.RoomsByID(e.ctx(), p, ids, true)
	e.must("RoomsByID", err)
	light, err := e.RoomsByID(e.ctx(), p, ids, false)
	e.must("RoomsByID without the JSON", err)
	byID := func(a, b mirror.Room) int { return strings.Compare(string(a.ID), string(b.ID)) }
	slices.SortFunc(rooms, byID)
	slices.SortFunc(light, byID)
	without := slices.Clone(rooms)
	for i := range without {
		without[i].Source = nil
	}
	e.want("RoomsByID without the JSON", light, without)
	return rooms
}

func roomsByID(e *env) {
	e.mirrorRoom("a", e.roomContent(`{"n":1}`))
	e.mirrorRoom("b", e.roomContent(`{"n":2}`))
	e.deleteRoom("b")
	e.mirrorRoom("c", e.roomContent(`{"n":3}`))
	e.raise(roomOf("c"), roomOf("known")) // one stale, one that has only a state
	foreign := mirror.Resource{Project: "other", Room: "d", Kind: mirror.KindRoom}
	e.raise(foreign)
	e.applyRoom(e.claim(foreign), e.roomContent(`{}`))
	e.want("RoomsByID", e.byID(project, "never heard of", "c", "known", "a", "d", "b", "a"),
		[]mirror.Room{e.room("a"), e.tombstone("b"), e.room("c")})
	e.want("RoomsByID of none", e.byID(project), []mirror.Room{})
	e.want("RoomsByID of what is not there", e.byID(project, "d", "A"), []mirror.Room{})
	if got := e.byID("other", "a", "d"); len(got) != 1 || got[0].Project != "other" || got[0].ID != "d" {
		e.Fatalf("RoomsByID of another project = %+v; want its own", got)
	}
	for _, p := range []mirror.ProjectID{"", "Default"} {
		e.want(fmt.Sprintf("RoomsByID of project %q", p), e.byID(p, "a", "b", "c", "d"), []mirror.Room{})
	}
}

func roomsByOddID(e *env) {
	ids := oddIDs()
	var even, want []mirror.RoomID
	for i, id := range ids {
		if i%2 == 0 {
			e.mirrorRoom(id, e.roomContent(fmt.Sprintf(`{"n":%d}`, i)))
			even = append(even, id)
		}
	}
	for _, r := range e.byID(project, ids...) {
		want = append(want, r.ID)
		if i := slices.Index(ids, r.ID); string(r.Source) != fmt.Sprintf(`{"n":%d}`, i) {
			e.Fatalf("room %q = %s; want that of number %d", r.ID, r.Source, i)
		}
	}
	e.want("RoomsByID", want, even)
	for i, id := range ids {
		if got := e.byID(project, id); len(got) != (i+1)%2 {
			e.Fatalf("RoomsByID %q = %+v; want %d", id, got, (i+1)%2)
		}
	}
	// A page of the list, and more than that.
	many := slices.Clone(even)
	for i := range 500 {
		many = append(many, mirror.RoomID(fmt.Sprintf("unheard-%d", i)))
	}
	if got := e.byID(project, many...); len(got) != len(even) {
		e.Fatalf("RoomsByID of %d = %d rooms; want %d", len(many), len(got), len(even))
	}
}

func (e *env) stored(r mirror.Resource) mirror.Stored {
	e.Helper()
	s, err := e.Stored(e.ctx(), r)
	e.must("Stored", err)
	return s
}

// wantData compares JSON however it is spelled.
func (e *env) wantData(what string, got []byte, want string) {
	e.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		e.Fatalf("%s = %q: %v", what, got, err)
	}
	e.must("Unmarshal", json.Unmarshal([]byte(want), &w))
	e.want(what, g, w)
}

func stored(e *env) {
	for _, r := range []mirror.Resource{roomOf("room"), storageOf("room")} {
		_, err := e.Stored(e.ctx(), r)
		e.wantErr("Stored of nothing", err, store.ErrNotFound)
	}
	const source = `{ "id" : "room", "n": [1, null] }`
	e.mirrorRoom("room", e.roomContent(source))
	room := e.stored(roomOf("room"))
	e.wantData("queryable JSON of the room", room.Data, source)
	room.Data = nil
	e.want("Stored of a room", room, mirror.Stored{Content: []byte(source), SHA256: sha256.Sum256([]byte(source))})

	content := mirror.DocumentContent{
		FetchTime: e.now, Content: []byte("\x00 binary"), DeriveVersion: 3, Data: []byte(`{"a":{"b":"ü"}}`), Text: "words ü",
	}
	for _, r := range []mirror.Resource{storageOf("room"), documentOf("room", "guid")} {
		e.raise(r)
		e.applyDocument(e.claim(r), content)
		doc := e.stored(r)
		e.wantData("queryable JSON of a document", doc.Data, `{"a":{"b":"ü"}}`)
		doc.Data = nil
		e.want("Stored of a document", doc, mirror.Stored{
			Content: content.Content, SHA256: sha256.Sum256(content.Content),
			DeriveVersion: 3, Text: "words ü",
		})
	}
	content.Data, content.DataProblem = nil, "too large"
	e.raise(storageOf("room"))
	content.DeriveVersion = 4
	e.applyDocument(e.claim(storageOf("room")), content)
	if doc := e.stored(storageOf("room")); doc.Data != nil || doc.DataProblem != "too large" {
		e.Fatalf("Stored of a document without data = %+v; want none, and why", doc)
	}
	_, err := e.Stored(e.ctx(), ydocOf("room"))
	e.wantErr("Stored of a document never fetched", err, store.ErrNotFound)
	other := storageOf("room")
	other.Project = "other"
	_, err = e.Stored(e.ctx(), other)
	e.wantErr("Stored of another project", err, store.ErrNotFound)
}

func distrust(e *env) {
	e.mirrorBoth("room")
	e.mirrorBoth("other")
	for _, r := range []mirror.Resource{roomOf("room"), storageOf("room")} {
		before, room, doc := e.stored(r), e.room("room"), e.document(storageOf("room"))
		e.must("Invalidate", e.Invalidate(e.ctx(), r))
		if got := e.room("room"); string(got.Source) != string(room.Source) {
			e.Fatalf("Room = %s; want it as it was", got.Source)
		}
		if got := e.document(storageOf("room")); string(got.Content) != string(doc.Content) {
			e.Fatalf("Document = %s; want it as it was", got.Content)
		}
		e.pass(time.Second)
		again := func() mirror.Applied {
			e.Helper()
			if r.Kind == mirror.KindRoom {
				return e.mirrorRoom("room", e.roomContent(string(room.Source)))
			}
			return e.mirrorDocument(r, string(doc.Content))
		}
		if applied := again(); !applied.Changed || len(applied.AlsoDue) != 0 {
			e.Fatalf("Apply of the same %s = %+v; want it written anew, in the same epoch", r.Kind, applied)
		}
		e.want("Stored", e.stored(r), before)
		if applied := again(); applied.Changed {
			e.Fatalf("Apply of the same %s once more = %+v; want no change", r.Kind, applied)
		}
	}
	for _, r := range []mirror.Resource{roomOf("other"), storageOf("other")} {
		var applied mirror.Applied
		if r.Kind == mirror.KindRoom {
			applied = e.mirrorRoom("other", e.roomContent(`{"id":"r"}`))
		} else {
			applied = e.mirrorDocument(r, `{"a":1}`)
		}
		e.want("Apply of what was trusted", applied, mirror.Applied{})
	}
	e.must("Invalidate of nothing", e.Invalidate(e.ctx(), storageOf("never heard of")))
}

func backgroundLast(e *env) {
	var background, live []mirror.Resource
	for i := range 4 {
		r := storageOf(mirror.RoomID(fmt.Sprintf("swept-%d", i)))
		background = append(background, r)
		e.requestAll(inBackground(r)...)
		e.pass(time.Second)
	}
	for i := range 3 {
		r := storageOf(mirror.RoomID(fmt.Sprintf("live-%d", i)))
		live = append(live, r)
		e.raise(r)
		e.pass(time.Second)
	}
	e.want("Due", e.dueList(10), dueList{Resources: live, Background: background})
	for limit := 1; limit < 4; limit++ {
		// What waits in the background does not crowd out what is urgent, nor the other way round.
		e.want(fmt.Sprintf("Due, at most %d", limit), e.dueList(limit), dueList{
			Resources: live[:limit], Background: background[:limit], More: limit < 3, MoreBackground: true,
		})
	}
	if lease := e.claim(background[0]); !lease.Background {
		e.Fatalf("lease = %+v; want it in the background", lease)
	}
	if lease := e.claim(live[0]); lease.Background {
		e.Fatalf("lease = %+v; want it live", lease)
	}
	e.want("Due beside leases", e.dueList(10), dueList{
		Resources: live[1:], Background: background[1:],
		Next: e.now.Add(leaseTTL),
	})

	// What is due later is told, of both kinds.
	e.now = e.now.Add(-time.Hour)
	if got := e.dueList(10); len(got.Resources)+len(got.Background) != 0 || got.Next.IsZero() {
		e.Fatalf("Due an hour ago = %+v; want nothing yet", got)
	}
	swept := storageOf("later-swept")
	e.requestAll(inBackground(swept)...)
	e.fail(e.claim(swept), e.failure())
	e.want("Due", e.dueList(10), dueList{Next: e.now.Add(time.Minute)})
	e.raise(storageOf("later-live"))
	f := e.failure()
	f.NotBefore = e.now.Add(time.Second)
	e.fail(e.claim(storageOf("later-live")), f)
	e.want("Due", e.dueList(10), dueList{Next: e.now.Add(time.Second)})
	e.pass(time.Minute)
	if lease := e.claim(swept); !lease.Background {
		e.Fatalf("lease after a failure = %+v; want it in the background still", lease)
	}
}

// wantBackground looks at how urgent what is due is.
func (e *env) wantBackground(what string, r mirror.Resource, want bool) {
	e.Helper()
	list := e.dueList(1000)
	if live, back := slices.Contains(list.Resources, r), slices.Contains(list.Background, r); live == back ||
		back != want {
		e.Fatalf("%s: %s of room %q live = %t, in the background = %t; want background = %t", what, r.Kind, r.Room, live,
			back, want)
	}
}

func backgroundEvent(e *env) {
	r := storageOf("room")
	e.requestAll(inBackground(r)...)
	e.wantBackground("requested", r, true)
	e.raise(r)
	e.wantBackground("after an event", r, false)
	// And one that comes in during the fetch.
	swept := storageOf("swept")
	e.mirrorRoom("swept", e.roomContent(`{}`))
	e.applyDocument(e.claim(swept), e.documentContent(`{}`))
	e.requestAll(inBackground(swept)...)
	lease := e.claim(swept)
	e.raise(swept)
	e.applyDocument(lease, e.documentContent(`{}`))
	e.wantBackground("raised during the fetch", swept, false)
	lease = e.claim(swept)
	e.requestAll(inBackground(swept)...)
	e.applyDocument(lease, e.documentContent(`{}`))
	e.wantBackground("swept during a live fetch", swept, false)
}

func backgroundRequest(e *env) {
	r := storageOf("room")
	e.raise(r)
	e.pass(time.Second)
	pending := e.requestAll(inBackground(r)...)
	e.want("Request in the background", pending, []mirror.Pending{{Resource: r, Generation: 2}})
	e.wantBackground("wanted at once before", r, false)
	if task := e.task(r); !task.DueTime.Equal(e.now.Add(-time.Second)) {
		e.Fatalf("task = %+v; want it due as it was", task)
	}
	swept := storageOf("swept")
	e.requestAll(inBackground(swept)...)
	e.requestAll(inBackground(swept)...)
	e.wantBackground("swept twice", swept, true)
	e.requestAll(mirror.Request{Resource: swept})
	e.wantBackground("requested at once", swept, false)
	e.requestAll(inBackground(swept)...)
	e.wantBackground("swept again", swept, false)
	both := storageOf("both")
	pending = e.requestAll(mirror.Request{Resource: both, Background: true}, mirror.Request{Resource: both})
	e.want("Request of one twice", pending, []mirror.Pending{{Resource: both, Generation: 1}})
	e.wantBackground("requested both ways", both, false)
	failed := storageOf("failed")
	e.raise(failed)
	f := e.failure()
	f.Final = true
	e.fail(e.claim(failed), f)
	e.requestAll(inBackground(failed)...)
	e.wantBackground("a failed one swept", failed, true)
	if task := e.task(failed); !task.FailTime.IsZero() || task.Attempts != 0 {
		e.Fatalf("task = %+v; want its failure lifted", task)
	}
}

func backgroundRetry(e *env) {
	r := storageOf("room")
	e.requestAll(inBackground(r)...)
	e.fail(e.claim(r), e.failure())
	_, err := e.Retry(e.ctx(), r, e.now)
	e.must("Retry", err)
	e.wantBackground("retried by an operator", r, false)
}

func backgroundWoken(e *env) {
	// A room in the background brings its children in the background, but for one
	// that is wanted at once.
	e.raise(ydocOf("swept"))
	e.requestAll(inBackground(roomOf("swept"))...)
	applied := e.applyRoom(e.claim(roomOf("swept")), e.roomContent(`{}`))
	slices.SortFunc(applied.AlsoDue, mirror.Resource.Compare)
	e.want("ApplyRoom", applied, mirror.Applied{Changed: true, AlsoDue: childrenOf("swept")})
	e.wantBackground("child of a swept room", storageOf("swept"), true)
	e.wantBackground("child that was wanted at once", ydocOf("swept"), false)
	// A live one brings them live, swept before or not.
	e.requestAll(inBackground(ydocOf("live"))...)
	e.mirrorRoom("live", e.roomContent(`{}`))
	for _, r := range childrenOf("live") {
		e.wantBackground("child of a live room", r, false)
	}
	// A child that waits for its room, and one that did not find it, wake it.
	for _, background := range []bool{true, false} {
		parked := storageOf(mirror.RoomID(fmt.Sprintf("parked %t", background)))
		e.requestAll(mirror.Request{Resource: parked, Background: background})
		e.want("Park", e.park(e.claim(parked)), mirror.Applied{AlsoDue: []mirror.Resource{parked.RoomResource()}})
		e.wantBackground("room of a parked child", parked.RoomResource(), background)

		lost := storageOf(mirror.RoomID(fmt.Sprintf("lost %t", background)))
		e.mirrorBoth(lost.Room)
		e.requestAll(mirror.Request{Resource: lost, Background: background})
		e.applyMissing(e.claim(lost))
		e.wantBackground("room of a child that is not found", lost.RoomResource(), background)
	}
}

func backgroundCounts(e *env) {
	want := func(what string, want store.Counts) {
		e.Helper()
		got, err := e.Counts(e.ctx(), project)
		e.must("Counts", err)
		e.want("Counts "+what, got, want)
	}
	first := e.now
	e.requestAll(inBackground(storageOf("a"), storageOf("b"))...)
	want("of the background", store.Counts{Pending: 2, Background: 2, OldestDue: first})
	e.pass(time.Second)
	e.raise(storageOf("c"))
	live := e.now
	want("of both", store.Counts{Pending: 3, Background: 2, OldestDue: first, OldestLive: live})
	e.claim(storageOf("a"))
	want("with one leased", store.Counts{Pending: 3, Background: 2, OldestDue: first, OldestLive: live})
	f := e.failure()
	f.Final = true
	e.fail(e.claim(storageOf("b")), f)
	want("with one failed", store.Counts{Pending: 2, Background: 1, Failed: 1, OldestDue: first, OldestLive: live})
	foreign := storageOf("a")
	foreign.Project = "other"
	e.requestAll(inBackground(foreign)...)
	want("beside another project", store.Counts{Pending: 2, Background: 1, Failed: 1, OldestDue: first, OldestLive: live})
	e.requestAll(inBackground(storageOf("d").RoomResource())...)
	want("with a room", store.Counts{
		Pending: 3, Background: 2, BackgroundRooms: 1, Failed: 1, OldestDue: first, OldestLive: live,
	})
	e.raise(storageOf("d").RoomResource())
	want("with a room wanted at once", store.Counts{
		Pending: 3, Background: 1, Failed: 1, OldestDue: first, OldestLive: live,
	})
}

func sweepCounts(e *env) {
	e.plan("sweep", true)
	want := store.Counts{Pending: 1, OldestDue: e.now}
	got, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	e.want("Counts with a sweep that is due", got, want)
	e.claim(sweepOf(project))
	got, err = e.Counts(e.ctx(), project)
	e.must("Counts", err)
	e.want("Counts with a sweep that runs", got, want)
}

func backgroundDone(e *env) {
	r := storageOf("room")
	e.mirrorBoth("room")
	e.requestAll(inBackground(r)...)
	e.applyDocument(e.claim(r), e.documentContent(`{"a":1}`))
	e.wantState(r, mirror.TaskDone)
	got, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	if got.Background != 0 {
		e.Fatalf("Counts = %+v; want nothing in the background", got)
	}
	e.requestAll(mirror.Request{Resource: r})
	e.wantBackground("requested afterwards", r, false)
}

func unlisted(e *env) {
	e.mirrorBoth("room")
	e.mirrorBoth("kept")
	e.requestAll(mirror.Request{Resource: roomOf("room"), Unlisted: true, Background: true},
		mirror.Request{Resource: roomOf("kept"), Background: true})
	applied := e.applyMissing(e.claim(roomOf("room")))
	e.want("ApplyMissing of an unlisted room", applied, mirror.Applied{Changed: true})
	e.wantNoRoom("room")
	e.want("ApplyMissing of a listed room", e.applyMissing(e.claim(roomOf("kept"))), mirror.Applied{})
	e.room("kept")
	// A fetch that finds it contradicts the list.
	e.requestAll(mirror.Request{Resource: roomOf("kept"), Unlisted: true})
	e.applyRoom(e.claim(roomOf("kept")), e.roomContent(`{"id":"r"}`))
	e.raise(roomOf("kept"))
	e.want("ApplyMissing after a 200", e.applyMissing(e.claim(roomOf("kept"))), mirror.Applied{})
	e.room("kept")
	// Nobody heard of it before.
	e.requestAll(mirror.Request{Resource: roomOf("unheard"), Unlisted: true})
	e.want("ApplyMissing of a room never mirrored", e.applyMissing(e.claim(roomOf("unheard"))), mirror.Applied{})
	// Told twice in one request, once as unlisted.
	e.mirrorBoth("twice")
	e.requestAll(mirror.Request{Resource: roomOf("twice"), Unlisted: true}, mirror.Request{Resource: roomOf("twice")})
	e.want("ApplyMissing", e.applyMissing(e.claim(roomOf("twice"))), mirror.Applied{Changed: true})
}

func requestBulk(e *env) {
	var requests []mirror.Request
	want := make(map[mirror.Resource]int64)
	for i := range 500 {
		r := storageOf(mirror.RoomID(fmt.Sprintf("%s%d", strings.Repeat("ü", i%200), i)))
		requests = append(requests, mirror.Request{Resource: r, Background: i%2 == 0, Unlisted: i%3 == 0})
		want[r] = 1
		if i%5 == 0 {
			e.raise(r)
			want[r] = 2
		}
	}
	got := make(map[mirror.Resource]int64)
	for _, r := range e.requestAll(requests...) {
		got[r.Resource] = r.Generation
	}
	e.want("Request", got, want)
	list := e.dueList(1000)
	if len(list.Resources) != 300 || len(list.Background) != 200 {
		e.Fatalf("Due = %d live and %d in the background; want 300 and 200", len(list.Resources), len(list.Background))
	}
}
