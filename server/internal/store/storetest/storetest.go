// Package storetest is the contract of package store as tests. An engine calls
// [Run] with a function that opens it. A sentence of the contract without a case
// here is not part of it.
//
// Cases use a [T], which is a test or a recorder. The recorder tests the suite
// itself: for each mutant, an engine with one deliberate defect, certain cases must
// fail.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// T is what a case needs of a test.
type T interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
	TempDir() string
}

// Database opens one more store on one database and closes it when t ends. Two
// stores share nothing but the database, just as two replicas do.
type Database func(t T) store.Store

// Opener makes a fresh database with the current schema. It lives until t ends.
type Opener func(t testing.TB) Database

// testCase is one obligation of an engine, or a few that cannot be had apart.
type testCase struct {
	name string
	run  func(e *env)
}

// group is the cases of one file.
type group struct {
	name  string
	cases []testCase
}

// groups holds every case: what is not listed does not run.
func groups() []group {
	return []group{
		{"ledger", ledgerCases},
		{"project", projectCases},
		{"tasks", taskCases},
		{"room", roomCases},
		{"document", documentCases},
		{"thread", threadCases},
		{"presence", presenceCases},
		{"notification", notificationCases},
		{"group", groupCases},
		{"item", itemCases()},
		{"sweep", sweepCases},
		{"purge", purgeCases},
		{"retention", retentionCases},
		{"erasure", erasureCases},
		{"audit", auditCases},
		{"query", queryCases},
		{"list", listCases},
		{"latest", latestCases},
		{"feed", feedCases},
		{"large", largeCases(large)},
		{"concurrency", concurrencyCases},
	}
}

// Run holds an engine to the contract, each case on a database of its own.
func Run(t *testing.T, open Opener) {
	t.Helper()
	for _, g := range groups() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			g.run(t, open)
		})
	}
}

// RunGroup runs the cases of one group only, for an engine that is held to the
// whole contract elsewhere and to a part of it under other circumstances too.
func RunGroup(t *testing.T, name string, open Opener) {
	t.Helper()
	i := slices.IndexFunc(groups(), func(g group) bool { return g.name == name })
	if i < 0 {
		t.Fatalf("there is no group %q", name)
	}
	groups()[i].run(t, open)
}

func (g group) run(t *testing.T, open Opener) {
	t.Helper()
	for _, c := range g.cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(newEnv(t, open(t)))
		})
	}
}

const (
	project = mirror.ProjectID("default")
	// leaseTTL is longer than any pause a case makes by itself.
	leaseTTL = time.Minute
	settle   = 5 * time.Second
)

// env is what a case works with: a store on its database, a clock that only the
// case moves, and the steps every case is made of.
type env struct {
	T
	store.Store

	open Database
	// now is the time of the case. It is not moved while goroutines run.
	now    time.Time
	events atomic.Int64
}

func newEnv(t T, open Database) *env {
	return &env{
		T: t, Store: open(t), open: open,
		now: time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC),
	}
}

// another opens a second store on the same database.
func (e *env) another() store.Store {
	e.Helper()
	return e.open(e)
}

func (e *env) pass(d time.Duration) { e.now = e.now.Add(d) }

// ctx is the context of the case.
func (e *env) ctx() context.Context { return e.Context() }

func roomOf(id mirror.RoomID) mirror.Resource {
	return mirror.Resource{Project: project, Room: id, Kind: mirror.KindRoom}
}

func storageOf(id mirror.RoomID) mirror.Resource {
	return mirror.Resource{Project: project, Room: id, Kind: mirror.KindStorage}
}

func ydocOf(id mirror.RoomID) mirror.Resource {
	return mirror.Resource{Project: project, Room: id, Kind: mirror.KindYdoc}
}

// threadOf is a thread of the room, or without an id the list of all of them.
func threadOf(room mirror.RoomID, id string) mirror.Resource {
	return mirror.Resource{Project: project, Room: room, Kind: mirror.KindThread, ID: id}
}

// childrenOf is what every room has in it.
func childrenOf(id mirror.RoomID) []mirror.Resource {
	return []mirror.Resource{storageOf(id), ydocOf(id), threadOf(id, "")}
}

// requestsFor asks for the resources as somebody does who waits.
func requestsFor(resources ...mirror.Resource) []mirror.Request {
	requests := make([]mirror.Request, len(resources))
	for i, r := range resources {
		requests[i] = mirror.Request{Resource: r}
	}
	return requests
}

func invalidatedAt(r mirror.Resource) mirror.Invalidation { return mirror.Invalidation{Resource: r} }

// must ends the case if an operation that has to work did not.
func (e *env) must(what string, err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s = %v; want no error", what, err)
	}
}

// wantErr ends the case if err is not target.
func (e *env) wantErr(what string, err, target error) {
	e.Helper()
	if !errors.Is(err, target) {
		e.Fatalf("%s = %v; want %v", what, err, target)
	}
}

// want ends the case if got is not want. Times are equal if they are the same
// instant; an empty list equals none. What generation an Applied tells of is
// compared by caughtUp, as are its change entries, and whether a settle fetch follows by
// a case of its own.
func (e *env) want(what string, got, want any) {
	e.Helper()
	others := cmpopts.IgnoreFields(mirror.Applied{}, "Generation", "Settles", "Changes")
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), others); d != "" {
		e.Fatalf("%s is not what it should be (-want +got):\n%s", what, d)
	}
}

// delivery is a delivery that was never seen before. All that it makes stale is in one
// room, as with every event of Liveblocks.
func (e *env) delivery(invalidations ...mirror.Invalidation) mirror.Delivery {
	e.Helper()
	a := mirror.Delivery{
		Event: mirror.Event{
			Project: project, ID: fmt.Sprintf("msg_%04d", e.events.Add(1)), Type: "storageUpdated",
			Payload: []byte(`{"type":"storageUpdated"}`), LiveblocksProject: "6605",
			SendTime: e.now, ReceiveTime: e.now, SourceTime: e.now.Add(-time.Millisecond),
			Outcome: mirror.OutcomeQueued,
		},
		Invalidations: invalidations,
	}
	if len(invalidations) > 0 {
		a.Event.Project, a.Event.Room = invalidations[0].Resource.Project, invalidations[0].Resource.Room
	}
	for _, i := range invalidations {
		if i.Resource.RoomResource() != invalidations[0].Resource.RoomResource() {
			e.Fatalf("a delivery about %+v and %+v; want one about one room", invalidations[0].Resource, i.Resource)
		}
	}
	return a
}

// Accept records deliveries as the ledger does: it repeats those for which another
// session has locked a row.
func Accept(ctx context.Context, s store.Store, batch []mirror.Delivery) ([]store.Accepted, error) {
	answers, err := s.Accept(ctx, batch)
	for i := 0; err == nil && i < len(answers); i++ {
		err = answers[i].Err
		for err == nil && answers[i].Locked {
			var again []store.Accepted
			if again, err = s.Accept(ctx, batch[i:i+1]); err == nil {
				answers[i] = again[0]
			}
		}
	}
	return answers, err
}

func (e *env) accept(batch ...mirror.Delivery) []store.Accepted {
	e.Helper()
	answers, err := e.Accept(e.ctx(), batch)
	e.must("Accept", err)
	if len(answers) != len(batch) {
		e.Fatalf("Accept of %d events gave %d answers", len(batch), len(answers))
	}
	return answers
}

// raise accepts an event for each room that makes the resources in it stale, in one batch.
func (e *env) raise(resources ...mirror.Resource) {
	e.Helper()
	rooms := make(map[mirror.Resource][]mirror.Invalidation)
	for _, r := range resources {
		rooms[r.RoomResource()] = append(rooms[r.RoomResource()], invalidatedAt(r))
	}
	var batch []mirror.Delivery
	for _, room := range slices.SortedFunc(maps.Keys(rooms), mirror.Resource.Compare) {
		batch = append(batch, e.delivery(rooms[room]...))
	}
	e.accept(batch...)
}

// request asks for the resources.
func (e *env) request(requests ...mirror.Request) []mirror.Pending {
	e.Helper()
	pending, err := e.Request(e.ctx(), requests, e.now)
	e.must("Request", err)
	return pending
}

// raiseDeleted accepts the event that announces a room's deletion.
func (e *env) raiseDeleted(id mirror.RoomID) {
	e.Helper()
	e.accept(e.delivery(mirror.Invalidation{Resource: roomOf(id), Deleted: true}))
}

// fail gives a lease back after a failure.
func (e *env) fail(lease mirror.Lease, f store.Failure) mirror.Applied {
	e.Helper()
	applied, err := e.Fail(e.ctx(), lease, f)
	e.must("Fail", err)
	return e.caughtUp(lease, applied)
}

// park gives a lease back to wait for the room.
func (e *env) park(lease mirror.Lease) mirror.Applied {
	e.Helper()
	applied, err := e.Park(e.ctx(), lease, e.now)
	e.must("Park", err)
	return e.caughtUp(lease, applied)
}

func newToken() (token [16]byte) {
	rand.Read(token[:])
	return token
}

func (e *env) tryClaim(r mirror.Resource) (mirror.Lease, error) {
	return e.Claim(e.ctx(), r, newToken(), e.now, leaseTTL)
}

func (e *env) claim(r mirror.Resource) mirror.Lease {
	e.Helper()
	lease, err := e.tryClaim(r)
	e.must(fmt.Sprintf("Claim %s of room %q", r.Kind, r.Room), err)
	return lease
}

func (e *env) wantNotDue(r mirror.Resource) {
	e.Helper()
	_, err := e.tryClaim(r)
	e.wantErr(fmt.Sprintf("Claim %s of room %q", r.Kind, r.Room), err, store.ErrNotDue)
}

// born is the createdAt of rooms that were not deleted and created anew.
var born = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

func (e *env) roomContent(source string) mirror.RoomContent {
	return mirror.RoomContent{FetchTime: e.now, Source: []byte(source), CreateTime: born}
}

func (e *env) documentContent(content string) mirror.DocumentContent {
	return mirror.DocumentContent{FetchTime: e.now, Content: []byte(content), DeriveVersion: 1, Data: []byte(content)}
}

// caughtUp returns applied if it tells the generation and the change entries that are
// stored.
func (e *env) caughtUp(lease mirror.Lease, applied mirror.Applied) mirror.Applied {
	e.Helper()
	if task := e.task(lease.Resource); applied.Generation != task.Applied {
		e.Fatalf("generation of %+v = %d; want %d", applied, applied.Generation, task.Applied)
	}
	if applied.Changed != (len(applied.Changes) > 0) {
		e.Fatalf("result = %+v; want it changed by changes", applied)
	}
	if applied.Changed {
		first, last := applied.Changes[0].Number, applied.Changes[len(applied.Changes)-1].Number
		e.want("changes returned", applied.Changes, e.entries(lease.Resource.Bucket(), first-1, last))
	}
	return applied
}

// applyRoom applies under a lease, without a settle fetch.
func (e *env) applyRoom(lease mirror.Lease, content mirror.RoomContent) mirror.Applied {
	e.Helper()
	applied, err := e.ApplyRoom(e.ctx(), lease, content, e.now, 0)
	e.must("ApplyRoom", err)
	return e.caughtUp(lease, applied)
}

// applyDocument applies under a lease, without a settle fetch.
func (e *env) applyDocument(lease mirror.Lease, content mirror.DocumentContent) mirror.Applied {
	e.Helper()
	applied, err := e.ApplyDocument(e.ctx(), lease, content, e.now, 0)
	e.must("ApplyDocument", err)
	return e.caughtUp(lease, applied)
}

// failure is an ordinary one, with another attempt in a minute.
func (e *env) failure() store.Failure {
	return store.Failure{Now: e.now, NotBefore: e.now.Add(time.Minute), Cause: "upstream said no"}
}

// applyMissing records a 404 under a lease, without a settle fetch.
func (e *env) applyMissing(lease mirror.Lease) mirror.Applied {
	e.Helper()
	applied, err := e.ApplyMissing(e.ctx(), lease, e.failure(), 0)
	e.must("ApplyMissing", err)
	return e.caughtUp(lease, applied)
}

// mirrorRoom has an event raise the room and applies content.
func (e *env) mirrorRoom(id mirror.RoomID, content mirror.RoomContent) mirror.Applied {
	e.Helper()
	e.raise(roomOf(id))
	return e.applyRoom(e.claim(roomOf(id)), content)
}

// mirrorDocument has an event raise the document and applies content.
func (e *env) mirrorDocument(r mirror.Resource, content string) mirror.Applied {
	e.Helper()
	e.raise(r)
	return e.applyDocument(e.claim(r), e.documentContent(content))
}

// mirrorBoth mirrors a room and its storage.
func (e *env) mirrorBoth(id mirror.RoomID) {
	e.Helper()
	e.mirrorRoom(id, e.roomContent(`{"id":"r"}`))
	e.mirrorDocument(storageOf(id), `{"a":1}`)
}

// deleteRoom deletes a mirrored room: the event, then the 404.
func (e *env) deleteRoom(id mirror.RoomID) mirror.Applied {
	e.Helper()
	e.raiseDeleted(id)
	return e.applyMissing(e.claim(roomOf(id)))
}

func (e *env) task(r mirror.Resource) mirror.Task {
	e.Helper()
	task, err := e.Task(e.ctx(), r, e.now)
	e.must(fmt.Sprintf("Task %s of room %q", r.Kind, r.Room), err)
	return task
}

func (e *env) wantState(r mirror.Resource, want mirror.TaskState) {
	e.Helper()
	if task := e.task(r); task.State != want {
		e.Fatalf("task %s of room %q = %+v; want it %s", r.Kind, r.Room, task, want)
	}
}

func (e *env) room(id mirror.RoomID) mirror.Room {
	e.Helper()
	room, err := e.Room(e.ctx(), roomOf(id), false)
	e.must(fmt.Sprintf("Room %q", id), err)
	return room
}

// tombstone reads a room, deleted or not.
func (e *env) tombstone(id mirror.RoomID) mirror.Room {
	e.Helper()
	room, err := e.Room(e.ctx(), roomOf(id), true)
	e.must(fmt.Sprintf("Room %q, deleted or not", id), err)
	return room
}

func (e *env) document(r mirror.Resource) mirror.Document {
	e.Helper()
	doc, err := e.Document(e.ctx(), r, false)
	e.must(fmt.Sprintf("Document of room %q", r.Room), err)
	return doc
}

func (e *env) wantNoRoom(id mirror.RoomID) {
	e.Helper()
	_, err := e.Room(e.ctx(), roomOf(id), false)
	e.wantErr(fmt.Sprintf("Room %q", id), err, store.ErrNotFound)
}

func (e *env) wantNoDocument(r mirror.Resource) {
	e.Helper()
	_, err := e.Document(e.ctx(), r, false)
	e.wantErr(fmt.Sprintf("Document of room %q", r.Room), err, store.ErrNotFound)
}

// changes are all entries of the bucket.
func (e *env) changes(bucket int16) []mirror.Change {
	e.Helper()
	return e.entries(bucket, 0, e.lastChange(bucket))
}

// entries are those of the bucket after one number, up to another.
func (e *env) entries(bucket int16, after, to int64) []mirror.Change {
	e.Helper()
	entries, err := e.Changes(e.ctx(), []store.ChangeRange{{Bucket: bucket, After: after, To: to}})
	e.must("Changes", err)
	return entries
}

func (e *env) heads() mirror.Position {
	e.Helper()
	heads, err := e.Heads(e.ctx())
	e.must("Heads", err)
	return heads
}

// lastChange is the number of the latest entry of the bucket.
func (e *env) lastChange(bucket int16) int64 {
	e.Helper()
	return e.heads()[bucket]
}

// dueList is a store.DueList without the due times.
type dueList struct {
	Resources, Background []mirror.Resource
	More, MoreBackground  bool
	Next                  time.Time
}

func (e *env) dueList(limit int) dueList {
	e.Helper()
	list, err := e.Due(e.ctx(), lookAt(project, e.now, limit))
	e.must("Due", err)
	return dueList{
		Resources: resourcesOf(list.Resources), Background: resourcesOf(list.Background),
		More: list.More, MoreBackground: list.MoreBackground, Next: list.Next,
	}
}

// lookAt looks for resources of every kind.
func lookAt(project mirror.ProjectID, now time.Time, limit int) store.Look {
	return store.Look{Project: project, Kinds: mirror.Kinds(), Now: now, LeaseTTL: leaseTTL, Limit: limit}
}

func resourcesOf(due []store.DueResource) []mirror.Resource {
	var out []mirror.Resource
	for _, r := range due {
		out = append(out, r.Resource)
	}
	return out
}

// snapshot is all that a refused write might have touched.
type snapshot struct {
	Task     mirror.Task
	Room     mirror.Room
	Document mirror.Document
	Changes  []mirror.Change
}

func (e *env) snapshot(r mirror.Resource) snapshot {
	e.Helper()
	s := snapshot{Task: e.task(r), Changes: e.changes(r.Bucket())}
	var err error
	if s.Room, err = e.Room(e.ctx(), r, true); err != nil {
		e.wantErr("Room", err, store.ErrNotFound)
	}
	if s.Document, err = e.Document(e.ctx(), r, true); err != nil {
		e.wantErr("Document", err, store.ErrNotFound)
	}
	return s
}

// parallel runs f n times at once and waits for all.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// oddIDs are ids that a database is tempted to take for one another, to trim, to
// cut off or to read as part of a path, in byte order.
func oddIDs() []mirror.RoomID {
	ids := []mirror.RoomID{
		"Room", "room", "room ", " room", "ro\u00f6m", "roo\u0308m", "ROOM", "room\t", "room/", "room%", "room_", "rooms",
		"a/b:c?d#e%f", "a%2Fb", "\\", "'; --", `"`, "ß", "ss", "ı", "i", "\u200b", "\uffff",
		mirror.RoomID(strings.Repeat("\U0010FFFF", 128)),
		mirror.RoomID(strings.Repeat("😀", 128)),
		mirror.RoomID(strings.Repeat("😀", 127) + "😁"),
	}
	slices.Sort(ids)
	return ids
}

// inTwoBuckets returns the ids of two rooms that share no bucket.
func inTwoBuckets() [2]mirror.RoomID { return [2]mirror.RoomID{"here", "there"} }

// inOneBucket returns n room ids that share a bucket.
func inOneBucket(n int) []mirror.RoomID {
	ids := []mirror.RoomID{"room-0"}
	bucket := mirror.Bucket(project, "room-0")
	for i := 1; len(ids) < n; i++ {
		id := fmt.Sprintf("room-%d", i)
		if mirror.Bucket(project, id) == bucket {
			ids = append(ids, mirror.RoomID(id))
		}
	}
	return ids
}
