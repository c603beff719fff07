package storetest

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var feedCases = []testCase{
	{"changes come in order from a number on", changesFrom},
	{"changes of many buckets come at once", changesOfBuckets},
	{"what is applied returns its changes", changesReturned},
	{"changes tell of the room's epoch", changesOfEpochs},
	{"changes are trimmed from the beginning", changesTrimmed},
	{"feed keeps its identity", feedIdentity},
	{"feed gets another identity", feedForgotten},
	{"copies are listed with their revisions and epochs", copiesListed},
	{"copies are listed in pages, by room", copiesInPages},
	{"page of copies is bounded by what it looks at", copiesAmongHidden},
	{"what fails takes no number", changesWithoutGaps},
	{"reader that follows writers misses nothing", changesFollowed},
}

func changesFrom(e *env) {
	ids := inOneBucket(5)
	bucket := roomOf(ids[0]).Bucket()
	e.want("Changes of nothing", e.entries(bucket, 0, 10), []mirror.Change{})
	e.want("Heads of nothing", e.heads(), mirror.Position{})
	var want []mirror.Change
	for i, id := range ids {
		e.mirrorRoom(id, e.roomContent(`{}`))
		want = append(want, entry(int64(i+1), roomOf(id), mirror.ChangeUpserted, 1, e.now))
		e.pass(time.Second)
	}
	e.deleteRoom(ids[0])
	want = append(want, entry(6, roomOf(ids[0]), mirror.ChangeDeleted, 2, e.now))
	heads := mirror.Position{}
	heads[bucket] = 6
	e.want("Heads", e.heads(), heads)
	for after := range int64(8) {
		for to := after; to < 9; to++ {
			got := e.entries(bucket, after, to)
			e.want(fmt.Sprintf("Changes after %d, up to %d", after, to), got, want[min(after, 6):min(to, 6)])
		}
	}
}

func changesOfBuckets(e *env) {
	for i := range 40 {
		id := mirror.RoomID(fmt.Sprintf("room-%d", i))
		e.mirrorRoom(id, e.roomContent(`{}`))
		if i%3 == 0 {
			e.mirrorDocument(storageOf(id), `{}`)
		}
	}
	heads := e.heads()
	var ranges []store.ChangeRange
	var want []mirror.Change
	total := 0
	for bucket := range int16(mirror.Buckets) {
		of := e.entries(bucket, 0, 1000)
		for i, c := range of {
			if c.Bucket != bucket || c.Resource.Bucket() != bucket || c.Number != int64(i+1) {
				e.Fatalf("entry %d of bucket %d = %+v; want its number to be %d", i, bucket, c, i+1)
			}
		}
		if heads[bucket] != int64(len(of)) {
			e.Fatalf("head of bucket %d = %d; want %d", bucket, heads[bucket], len(of))
		}
		total += len(of)
		after := min(int64(bucket%2), heads[bucket])
		ranges = append(ranges, store.ChangeRange{Bucket: bucket, After: after, To: heads[bucket]})
		want = append(want, of[after:]...)
	}
	if total != 54 {
		e.Fatalf("entries of all buckets = %d; want 54", total)
	}
	got, err := e.Changes(e.ctx(), ranges)
	e.must("Changes", err)
	e.want("Changes of all buckets", got, want)
	got, err = e.Changes(e.ctx(), nil)
	e.must("Changes", err)
	e.want("Changes of no bucket", got, []mirror.Change{})
	e.want("Heads of another store", heads, must(e, e.another().Heads))
}

// must returns what a method without arguments returns.
func must[V any](e *env, f func(context.Context) (V, error)) V {
	e.Helper()
	v, err := f(e.ctx())
	e.must("read", err)
	return v
}

// What is applied returns the entries that it has written, all of them and in order.
func changesReturned(e *env) {
	bucket := roomOf("room").Bucket()
	var want []mirror.Change
	note := func(what string, applied mirror.Applied, n int) {
		e.Helper()
		if len(applied.Changes) != n || applied.Changed != (n > 0) {
			e.Fatalf("%s returned %+v; want %d changes", what, applied, n)
		}
		want = append(want, applied.Changes...)
	}
	note("ApplyRoom", e.mirrorRoom("room", e.roomContent(`{}`)), 1)
	note("ApplyRoom of the same", e.mirrorRoom("room", e.roomContent(`{}`)), 0)
	note("ApplyDocument", e.mirrorDocument(storageOf("room"), `{"a":1}`), 1)
	note("ApplyDocument of the same", e.mirrorDocument(storageOf("room"), `{"a":1}`), 0)
	note("ApplyDocument of one that is refused", e.mirrorDocument(storageOf("room"), `{"a":"\u0000"}`), 1)
	note("ApplyDocument of a large one", e.mirrorDocument(storageOf("room"), `"`+strings.Repeat("x", 400_000)+`"`), 1)
	note("ApplyItem", e.mirrorThread("room", threadIn("th_1", 1)), 1)
	note("ApplyItemMissing", e.deleteThread(threadOf("room", "th_1")), 1)
	e.raise(threadOf("room", ""))
	list := []mirror.Thread{threadIn("th_3", 1), threadIn("th_2", 1)}
	applied, err := applyThreads(e.ctx(), e.Store, e.claim(threadOf("room", "")), e.now, list, e.now, 0)
	e.must("ApplyThreads", err)
	note("ApplyThreads", applied, 2)
	absent := e.session("room", "msg_0", 1)
	absent.EnterTime = e.now.Add(-time.Hour)
	fold := mirror.SessionFold{Upserts: []mirror.UserSession{absent}}
	note("ApplySessions", e.applySessions(userSessionsOf("room"), fold), 1)
	note("ApplyActiveUsers that end a session", e.mirrorUsers("room", mirror.ActiveUser{ConnectionID: 2}), 2)
	note("ApplyMissing", e.deleteRoom("room"), 1)
	e.want("all changes", want, e.changes(bucket))
}

func changesOfEpochs(e *env) {
	r := roomOf("room")
	var want []mirror.Change
	note := func(r mirror.Resource, kind mirror.ChangeKind, epoch int64) {
		want = append(want, entry(int64(len(want)+1), r, kind, epoch, e.now))
	}
	live := func(createTime time.Time, epoch int64) {
		e.pass(time.Minute)
		content := e.roomContent(`{}`)
		content.CreateTime = createTime
		e.mirrorRoom("room", content)
		note(r, mirror.ChangeUpserted, epoch)
		e.mirrorDocument(storageOf("room"), fmt.Sprintf(`{"epoch":%d}`, epoch))
		note(storageOf("room"), mirror.ChangeUpserted, epoch)
		e.mirrorThread("room", threadIn("th_1", int(epoch)))
		note(threadOf("room", "th_1"), mirror.ChangeUpserted, epoch)
		e.mirrorUsers("room", mirror.ActiveUser{ConnectionID: epoch, UserID: "alice"})
		note(activeUsersOf("room"), mirror.ChangeUpserted, epoch)
	}
	live(born, 1)
	live(born.Add(time.Hour), 2) // created anew, and nobody saw it deleted
	e.deleteRoom("room")
	note(r, mirror.ChangeDeleted, 3)
	live(born.Add(2*time.Hour), 4)
	e.upsertSessions(e.session("room", "msg_0", 1))
	note(userSessionsOf("room"), mirror.ChangeUpserted, 0)
	e.want("Changes", e.changes(r.Bucket()), want)
}

func changesTrimmed(e *env) {
	ids := inOneBucket(6)
	bucket := roomOf(ids[0]).Bucket()
	trim := func(through int64, limit, want int) {
		e.Helper()
		n, err := e.Trim(e.ctx(), bucket, through, limit)
		e.must("Trim", err)
		e.want(fmt.Sprintf("Trim through %d, at most %d", through, limit), n, want)
	}
	earliest := func(want int64) {
		e.Helper()
		p := must(e, e.Earliest)
		e.want("Earliest", p[bucket], want)
		p[bucket] = e.heads()[bucket]
		e.want("Earliest of the other buckets", p, e.heads())
	}
	earliest(0)
	trim(10, 10, 0)
	other := mirror.RoomID("other")
	e.mirrorRoom(other, e.roomContent(`{}`))
	before := e.changes(roomOf(other).Bucket())
	for _, id := range ids[:5] {
		e.mirrorRoom(id, e.roomContent(`{}`))
	}
	all := e.changes(bucket)
	e.want("Earliest", must(e, e.Earliest), mirror.Position{})
	trim(0, 10, 0)
	trim(3, 2, 2)
	e.want("Changes after a piece", e.entries(bucket, 0, 5), all[2:])
	e.want("Earliest", must(e, e.Earliest)[bucket], int64(2))
	trim(3, 2, 1)
	trim(3, 2, 0)
	e.want("Changes after all that was asked", e.entries(bucket, 0, 5), all[3:])
	e.want("Changes behind it", e.entries(bucket, 3, 5), all[3:])
	trim(100, 100, 2)
	e.want("Changes of an empty bucket", e.entries(bucket, 0, 5), []mirror.Change{})
	e.want("Heads", e.heads()[bucket], int64(5))
	e.want("Earliest", must(e, e.Earliest)[bucket], int64(5))
	e.mirrorRoom(ids[5], e.roomContent(`{}`))
	e.want("Changes after more", e.entries(bucket, 0, 6),
		[]mirror.Change{entry(6, roomOf(ids[5]), mirror.ChangeUpserted, 1, e.now)})
	e.want("Changes of another bucket", e.changes(roomOf(other).Bucket()), before)
}

func feedIdentity(e *env) {
	identify := func(s store.Store, project mirror.ProjectID, first byte) [16]byte {
		e.Helper()
		identity, err := s.IdentifyFeed(e.ctx(), project, [16]byte{first, 15: 0xff})
		e.must("IdentifyFeed", err)
		return identity
	}
	e.want("identity", identify(e.Store, project, 0), [16]byte{0, 15: 0xff})
	e.want("identity for another store", identify(e.another(), project, 2), [16]byte{0, 15: 0xff})
	e.want("identity for another project", identify(e.Store, "other", 3), [16]byte{3, 15: 0xff})
	e.must("RepinProject", e.RepinProject(e.ctx(), project, "6606"))
	for id, want := range map[mirror.ProjectID][16]byte{project: {0, 15: 0xff}, "other": {3, 15: 0xff}, "unread": {}} {
		p, err := e.Project(e.ctx(), id)
		e.must("Project", err)
		e.want("identity of "+string(id), p.Feed, want)
	}
}

func feedForgotten(e *env) {
	ids := []mirror.ProjectID{project, "other"}
	e.must("RepinProject", e.RepinProject(e.ctx(), project, "6606"))
	for round, want := range []int64{0, 2, 2} {
		n, err := e.ForgetFeeds(e.ctx())
		e.must("ForgetFeeds", err)
		e.want("feeds that had an identity", n, want)
		for _, id := range ids {
			identity := [16]byte{byte(round), 15: 1}
			got, err := e.IdentifyFeed(e.ctx(), id, identity)
			e.must("IdentifyFeed", err)
			e.want("identity", got, identity)
		}
	}
	p, err := e.Project(e.ctx(), project)
	e.must("Project", err)
	e.want("Liveblocks' id of the project", p.LiveblocksID, "6606")
}

func (e *env) copyPage(f store.CopyFilter) store.CopyPage {
	e.Helper()
	f.Project = project
	page, err := e.Copies(e.ctx(), f)
	e.must("Copies", err)
	if page.More && page.Last == (mirror.Resource{}) {
		e.Errorf("Copies(%+v) = %+v; want where it ends", f, page)
	}
	return page
}

func (e *env) copies(f store.CopyFilter) []mirror.Change {
	e.Helper()
	f.Limit = 100
	page := e.copyPage(f)
	e.want("more behind a page that is not full", page.More, false)
	return page.Copies
}

// The copies of a kind are what readers see of it, and what the feed told of them last.
func copiesListed(e *env) {
	const a, b, gone, anew = "a", "b", "gone", "anew"
	for _, id := range []mirror.RoomID{gone, anew, b, a} {
		e.mirrorBoth(id)
		e.mirrorDocument(mirror.Resource{Project: project, Room: id, Kind: mirror.KindYdoc, ID: "guid"}, "update")
		e.mirrorThread(id, threadIn("th_1", 1))
		e.mirrorThread(id, threadIn("th_2", 1))
		e.mirrorUsers(id, mirror.ActiveUser{ConnectionID: 1, UserID: "ann"})
		e.pass(time.Minute)
	}
	e.upsertSessions(e.session(a, "msg_0", 1))
	e.deleteThread(threadOf(a, "th_1"))
	e.mirrorDocument(storageOf(a), `{"a":2}`)
	e.mirrorThread(b, threadIn("th_1", 2))
	e.deleteRoom(gone)
	e.deleteRoom(anew)
	e.pass(time.Hour)
	content := e.roomContent(`{}`)
	content.CreateTime = e.now
	e.mirrorRoom(anew, content)
	e.mirrorDocument(storageOf(anew), `{"anew":1}`)
	e.mirrorGroup(groupIn("g_1", 1))
	e.mirrorGroup(groupIn("g_2", 1))
	e.request(mirror.Request{Resource: groupOf("g_1")})
	e.missItem(groupOf("g_1"))
	_, err := e.listItems(itemKits[mirror.KindGroup], store.GroupItem(groupIn("g_2", 1)))
	e.must("ApplyList", err)
	e.missItem(groupOf("g_1"))

	// What the feed tells, applied in order.
	held := make(map[mirror.Resource]mirror.Change)
	for bucket := range int16(mirror.Buckets) {
		for _, c := range e.entries(bucket, 0, 1000) {
			c.CommitTime = time.Time{}
			for r := range held {
				if r.Project == c.Resource.Project && r.Room == c.Resource.Room && held[r].Epoch < c.Epoch {
					delete(held, r)
				}
			}
			if held[c.Resource] = c; c.Kind == mirror.ChangeDeleted {
				delete(held, c.Resource)
			}
		}
	}
	for _, kind := range mirror.Kinds() {
		if kind == mirror.KindYdoc {
			continue // in the list of documents
		}
		want := []mirror.Change(nil)
		for _, c := range held {
			history := kind == mirror.KindUserSessions || kind == mirror.KindNotification
			if c.Resource.Kind == kind && !history || kind == mirror.KindStorage && c.Resource.Kind == mirror.KindYdoc {
				want = append(want, c)
			}
		}
		slices.SortFunc(want, func(a, b mirror.Change) int {
			return cmp.Or(cmp.Compare(a.Resource.Room, b.Resource.Room), cmp.Compare(a.Resource.Kind, b.Resource.Kind),
				cmp.Compare(a.Resource.ID, b.Resource.ID))
		})
		got := e.copies(store.CopyFilter{Kind: kind})
		if kind == mirror.KindActiveUsers { // readers see those of the new room too: nobody is there
			got = slices.DeleteFunc(got, func(c mirror.Change) bool { return c.Resource.Room == anew })
		}
		e.want("Copies of kind "+kind.String(), got, want)
	}
}

func copiesInPages(e *env) {
	for i := range 7 {
		id := mirror.RoomID(fmt.Sprint(i%2, "/", i))
		e.mirrorBoth(id)
		e.mirrorDocument(mirror.Resource{Project: project, Room: id, Kind: mirror.KindYdoc}, "update")
		for j := range i % 3 {
			e.mirrorThread(id, threadIn(fmt.Sprint("th_", j), 1))
		}
	}
	e.mirrorBoth("1")
	e.mirrorGroup(groupIn("g_1", 1))
	for _, kind := range []mirror.Kind{mirror.KindRoom, mirror.KindStorage, mirror.KindThread, mirror.KindGroup} {
		all := e.copies(store.CopyFilter{Kind: kind})
		for _, rooms := range []store.Prefixes{nil, {}, {"0/"}, {"0/2", "1/"}, {"1/3"}, {"2"}} {
			for _, room := range []mirror.RoomID{"", "1", "1/3", "2"} {
				want := slices.DeleteFunc(slices.Clone(all), func(c mirror.Change) bool {
					return !rooms.Select(c.Resource.Room) || room != "" && c.Resource.Room != room
				})
				for limit := range 4 {
					what := fmt.Sprintf("Copies of kind %v in %q and room %q, %d a page", kind, rooms, room, limit+1)
					var got []mirror.Change
					f := store.CopyFilter{Kind: kind, Rooms: rooms, Room: room, Limit: limit + 1}
					for more := true; more; {
						page := e.copyPage(f)
						got, more = append(got, page.Copies...), page.More
						f.AfterRoom, f.Kind, f.AfterID = page.Last.Room, page.Last.Kind, page.Last.ID
					}
					if len(got)+len(want) > 0 {
						e.want(what, got, want)
					}
				}
			}
		}
	}
}

// However much of a kind is hidden, a page looks at no more rows than it is told to, and says
// how far it came.
func copiesAmongHidden(e *env) {
	for i := range 5 {
		id := mirror.RoomID(fmt.Sprint("gone-", i))
		e.mirrorBoth(id)
		e.mirrorThread(id, threadIn("th_1", 1))
		e.mirrorUsers(id, mirror.ActiveUser{ConnectionID: 1, UserID: "ann"})
		e.deleteRoom(id)
	}
	e.mirrorBoth("room")
	for i := range 5 {
		e.mirrorThread("room", threadIn(fmt.Sprint("th_", i), 1))
		e.deleteThread(threadOf("room", fmt.Sprint("th_", i)))
	}
	e.mirrorThread("room", threadIn("th_5", 1))
	for kind, last := range map[mirror.Kind]mirror.Resource{
		mirror.KindRoom:        {Project: project, Room: "gone-2", Kind: mirror.KindRoom},
		mirror.KindStorage:     storageOf("gone-2"),
		mirror.KindActiveUsers: {Project: project, Room: "gone-2", Kind: mirror.KindActiveUsers},
		mirror.KindThread:      threadOf("gone-2", "th_1"),
	} {
		page := e.copyPage(store.CopyFilter{Kind: kind, Limit: 3})
		e.want("a page of hidden copies of kind "+kind.String(), page, store.CopyPage{Last: last, More: true})
	}
	page := e.copyPage(store.CopyFilter{Kind: mirror.KindThread, Room: "room", Limit: 3})
	e.want("a page of deleted threads", page, store.CopyPage{Last: threadOf("room", "th_2"), More: true})
	page = e.copyPage(store.CopyFilter{
		Kind: mirror.KindThread, Room: "room", AfterRoom: "room", AfterID: page.Last.ID, Limit: 4,
	})
	e.want("copies behind deleted threads", len(page.Copies), 1)
	page = e.copyPage(store.CopyFilter{Kind: mirror.KindActiveUsers, AfterRoom: "gone-2", Limit: 3})
	e.want("a page up to a room without users", page, store.CopyPage{
		Last: mirror.Resource{Project: project, Room: "room", Kind: mirror.KindActiveUsers}, More: true,
	})
}

func changesWithoutGaps(e *env) {
	e.mirrorBoth("room")
	for i := range 3 {
		e.raise(storageOf("room"))
		lease := e.claim(storageOf("room"))
		content := e.roomContent(`{}`)
		content.CreateTime = e.now
		e.pass(time.Second)
		e.mirrorRoom("room", content)
		e.wantEpochChanged(lease)
		e.mirrorDocument(storageOf("room"), fmt.Sprintf(`{"a":"\u0000","v":%d}`, i)) // retried without its data
		wantLeaseLost(e, lease)
		e.mirrorDocument(storageOf("room"), fmt.Sprintf(`{"a":"\u0000","v":%d}`, i)) // nothing new
	}
	for i, c := range e.changes(roomOf("room").Bucket()) {
		if c.Number != int64(i+1) {
			e.Fatalf("entry %d has number %d; want no gaps", i, c.Number)
		}
	}
	if n := e.lastChange(roomOf("room").Bucket()); n != 8 {
		e.Fatalf("last change = %d; want 8: two at first and six later", n)
	}
}

// Numbers handed out before the commit become visible in any order, and a reader
// that stores the last one it saw misses those that come late. Here a reader
// follows writers of one bucket from two stores.
func changesFollowed(e *env) {
	const writers, each = 8, 25
	ids := inOneBucket(writers + 1)
	shared, own := ids[writers], ids[:writers]
	bucket := roomOf(shared).Bucket()
	stores := []store.Store{e.Store, e.another()}
	e.mirrorRoom(shared, e.roomContent(`{}`))
	var written atomic.Int64
	written.Add(1)

	reading, stop := context.WithCancel(e.ctx())
	defer stop()
	var seen []mirror.Change
	var readErr error
	var at mirror.Position
	read := func(limit int) bool {
		heads, err := stores[1].Heads(e.ctx())
		if err != nil {
			readErr = err
			return false
		}
		after := at[bucket]
		ranges := store.Ranges(at, heads, limit)
		page, err := stores[1].Changes(e.ctx(), ranges)
		if err == nil {
			page, err = store.Advance(&at, ranges, page)
		}
		if seen = append(seen, page...); err == nil && int64(len(seen)) != at[bucket] {
			err = fmt.Errorf("%d entries after %d; want all of %v, of which the head tells", len(page), after, ranges)
		}
		readErr = err
		return err == nil && len(ranges) > 0
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for reading.Err() == nil && readErr == nil {
			read(1 + len(seen)%7)
		}
		for readErr == nil && read(100) { // what is left
		}
	})

	parallel(writers, func(w int) {
		s, rng := stores[w%2], rand.New(rand.NewPCG(uint64(w), 1))
		for i := range each {
			// Each has a room of its own and now and then writes into a common one,
			// so that some transactions fail and some have nothing to say.
			r := roomOf(own[w])
			if rng.IntN(4) == 0 {
				r = documentOf(shared, fmt.Sprintf("doc-%d", rng.IntN(3)))
			}
			if _, err := s.Request(e.ctx(), requestsFor(r), e.now); err != nil {
				e.Errorf("Request = %v; want no error", err)
				return
			}
			lease, err := s.Claim(e.ctx(), r, newToken(), e.now, leaseTTL)
			if err != nil {
				continue // somebody else has it
			}
			var applied mirror.Applied
			if r.Kind == mirror.KindRoom {
				applied, err = s.ApplyRoom(e.ctx(), lease, e.roomContent(fmt.Sprintf(`{"v":%d}`, i/2)), e.now, 0)
			} else {
				applied, err = s.ApplyDocument(e.ctx(), lease, e.documentContent(fmt.Sprintf(`{"v":%d}`, rng.IntN(4))), e.now, 0)
			}
			if err != nil {
				e.Errorf("Apply = %v; want no error", err)
				return
			}
			if applied.Changed {
				written.Add(1)
			}
		}
	})
	stop()
	reader.Wait()
	e.must("Changes", readErr)
	for i, c := range seen {
		if c.Number != int64(i+1) {
			e.Fatalf("entry %d that the reader saw has number %d; want %d: each once, in order", i, c.Number, i+1)
		}
	}
	if int64(len(seen)) != written.Load() || written.Load() < writers*each/4 {
		e.Fatalf("the reader saw %d entries; want the %d that were written", len(seen), written.Load())
	}
	e.want("Changes read at the end", e.changes(bucket), seen)
}
