package storetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var latestCases = []testCase{
	{"list of the latest rooms by any filters", latestRoomList},
	{"latest rooms by terms", latestRoomsByTerms},
	{"latest rooms follow what is written", latestRoomsFollow},
	{"latest rooms of all pages", latestRoomPages},
	{"terms of what is there are kept", termsAreKept},
}

func term(kind store.TermKind, name, value string) store.Term {
	return store.Term{Kind: kind, Name: name, Value: value}
}

// latestKeys returns the ids of all rooms that a filter selects, in order, page by page.
func (e *env) latestKeys(f store.LatestRoomFilter, page int) []mirror.RoomID {
	e.Helper()
	keys := []mirror.RoomID{}
	for f.Project, f.Limit = project, page; ; {
		rooms, err := e.LatestRooms(e.ctx(), f)
		e.must("LatestRooms", err)
		for _, r := range rooms {
			keys = append(keys, r.ID)
			f.AfterTime, f.AfterID = r.CreateTime, r.ID
		}
		if len(rooms) < page {
			return keys
		}
	}
}

func latestRoomList(e *env) {
	for i, id := range []mirror.RoomID{"a", "a ", "a%", "A", "ab", "á", "b", "B", "ac", "W", "waiting "} {
		c := e.roomContent(fmt.Sprintf(`{"metadata":{"n":"%d"},"organizationId":"%d"}`, i%2, i%3))
		c.CreateTime = []time.Time{born, {}, born.Add(time.Microsecond), born.Add(time.Hour)}[i%4]
		e.mirrorRoom(id, c)
	}
	e.deleteRoom("ac")
	listing[store.LatestRoomFilter, mirror.Room]{
		e.LatestRooms, func(r mirror.Room) string { return string(r.ID) },
		func(a, b mirror.Room) int {
			return cmp.Or(store.ListTime(b.CreateTime).Compare(store.ListTime(a.CreateTime)), cmp.Compare(a.ID, b.ID))
		},
		func(f *store.LatestRoomFilter, limit int, after *mirror.Room) {
			if f.Limit = limit; after != nil {
				f.AfterTime, f.AfterID = after.CreateTime, after.ID
			}
		},
		func(r mirror.Room) mirror.RoomID { return r.ID },
		func(f *store.LatestRoomFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}.hold(e, "LatestRooms", store.LatestRoomFilter{
		Project: project, Rooms: store.Prefixes{"W", "a", "waiting"}, Prefix: "a",
		Terms: [][]store.Term{
			{term(store.TermMetadata, "n", "0")},
			{term(store.TermOrganization, "", "0"), term(store.TermOrganization, "", "1")},
		},
		AfterTime: born.Add(time.Hour), AfterID: "A", Limit: 100,
	})
}

// latestRoomsByTerms says what a term of a room is.
func latestRoomsByTerms(e *env) {
	for id, source := range map[mirror.RoomID]string{
		"string":   `{"metadata":{"color":"red","a":"1"}}`,
		"other":    `{"metadata":{"color":"blue"}}`,
		"case":     `{"metadata":{"Color":"red","color":"Red"}}`,
		"list":     `{"metadata":{"color":["red"]}}`,
		"number":   `{"metadata":{"color":1,"a":null}}`,
		"twice":    `{"metadata":{"color":"blue","color":"red"}}`,
		"odd":      `{"metadata":{"":"","a.b":"% \u0000 \"' ü","lone":"\ud800"}}`,
		"moved":    `{"metadata":{"re":"dcolor"}}`,
		"long":     `{"metadata":{"color":"` + strings.Repeat("red", 2000) + `"}}`,
		"alice":    `{"usersAccesses":{"alice":["room:write"],"bob":["room:read"]},"organizationId":"acme"}`,
		"no alice": `{"usersAccesses":{"alice":[],"bob":["room:read"]},"tenantId":"acme"}`,
		"group":    `{"groupsAccesses":{"alice":["room:write"],"team":["room:read"]},"defaultAccesses":["room:write"]}`,
		"both":     `{"usersAccesses":{"alice":["room:write"]},"groupsAccesses":{"team":["room:read"]}}`,
		"nothing":  `{"metadata":[],"usersAccesses":null,"groupsAccesses":7}`,
	} {
		e.mirrorRoom(id, e.roomContent(source))
	}
	red, team := term(store.TermMetadata, "color", "red"), term(store.TermGroup, "", "team")
	alice, bob := term(store.TermUser, "", "alice"), term(store.TermUser, "", "bob")
	for _, c := range []struct {
		terms [][]store.Term
		want  []mirror.RoomID
	}{
		{[][]store.Term{{red}}, []mirror.RoomID{"string", "twice"}},
		{[][]store.Term{{red}, {term(store.TermMetadata, "a", "1")}}, []mirror.RoomID{"string"}},
		{[][]store.Term{{red}, {term(store.TermMetadata, "a", "2")}}, nil},
		{[][]store.Term{{term(store.TermMetadata, "color", strings.Repeat("red", 2000))}}, []mirror.RoomID{"long"}},
		{[][]store.Term{{term(store.TermMetadata, "color", "1")}}, nil},
		{[][]store.Term{{term(store.TermMetadata, "", "")}}, []mirror.RoomID{"odd"}},
		{[][]store.Term{{term(store.TermMetadata, "a.b", "% \x00 \"' ü")}}, []mirror.RoomID{"odd"}},
		{[][]store.Term{{term(store.TermMetadata, "lone", "\ufffd")}}, nil},
		{[][]store.Term{{alice}}, []mirror.RoomID{"alice", "both"}},
		{[][]store.Term{{bob}}, []mirror.RoomID{"alice", "no alice"}},
		{[][]store.Term{{alice}, {bob}}, []mirror.RoomID{"alice"}},
		{[][]store.Term{{team}}, []mirror.RoomID{"both", "group"}},
		{[][]store.Term{{alice, bob, team}}, []mirror.RoomID{"alice", "both", "group", "no alice"}},
		{[][]store.Term{{term(store.TermOrganization, "", "acme")}}, []mirror.RoomID{"alice", "no alice"}},
		{[][]store.Term{{}}, nil},
	} {
		for _, page := range []int{1, 2, 100} {
			want := append([]mirror.RoomID{}, c.want...)
			e.want(fmt.Sprintf("LatestRooms by %+v", c.terms), e.latestKeys(store.LatestRoomFilter{Terms: c.terms}, page), want)
		}
	}
	rooms, err := e.LatestRooms(e.ctx(), store.LatestRoomFilter{
		Project: project, Terms: [][]store.Term{{red}}, Limit: 9,
	})
	e.must("LatestRooms", err)
	e.want("rooms as they are read one by one", rooms, []mirror.Room{e.room("string"), e.room("twice")})
	if _, n, err := e.IndexRooms(e.ctx(), project, store.IndexPlace{}, 100); n != 0 || err != nil {
		e.Fatalf("IndexRooms of what ApplyRoom wrote = %d, %v; want none", n, err)
	}
}

// latestRoomsFollow changes a room in every way.
func latestRoomsFollow(e *env) {
	by := func(value string) []mirror.RoomID {
		return e.latestKeys(store.LatestRoomFilter{Terms: [][]store.Term{{term(store.TermMetadata, "n", value)}}}, 10)
	}
	none := []mirror.RoomID{}
	e.mirrorRoom("other", e.roomContent(`{"metadata":{"n":"1"}}`))
	e.mirrorRoom("room", e.roomContent(`{"metadata":{"n":"1","same":"x"}}`))
	e.want("rooms by the value", by("1"), []mirror.RoomID{"other", "room"})
	e.mirrorRoom("room", e.roomContent(`{"metadata":{"n":"2","same":"x"}}`))
	e.want("rooms by the old value", by("1"), []mirror.RoomID{"other"})
	e.want("rooms by the new value", by("2"), []mirror.RoomID{"room"})
	e.deleteRoom("room")
	e.want("deleted rooms", by("2"), none)
	rows, err := e.Remains(e.ctx(), roomOf("room"))
	e.must("Remains", err)
	e.want("terms of a deleted room, past which each list would have to read", rows["mirror_room_term"], int64(0))
	e.mirrorRoom("room", e.roomContent(`{"metadata":{"n":"2","same":"x"}}`))
	e.want("rooms that are back", by("2"), []mirror.RoomID{"room"})
	later := e.roomContent(`{"metadata":{"n":"1","same":"x"}}`)
	later.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", later)
	e.want("rooms, of which one was created anew", by("1"), []mirror.RoomID{"room", "other"})
	e.want("all rooms", e.latestKeys(store.LatestRoomFilter{}, 1), []mirror.RoomID{"room", "other"})
	e.must("Invalidate", e.Invalidate(e.ctx(), roomOf("room")))
	e.want("rooms that are to be written again", by("1"), []mirror.RoomID{"room", "other"})
	e.mirrorRoom("room", later)
	e.want("rooms that were written again", by("1"), []mirror.RoomID{"room", "other"})
}

// latestRoomPages compares pages with a plain filter over what was mirrored.
func latestRoomPages(e *env) {
	type fixture struct {
		id       mirror.RoomID
		created  time.Time
		metadata map[string]string
		users    []string
		deleted  bool
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var all []fixture
	for i := range 150 {
		f := fixture{
			id:       mirror.RoomID(fmt.Sprintf("%c-%d", 'a'+r.IntN(3), i)),
			created:  born.Add(time.Duration(r.IntN(20)) * time.Second),
			metadata: map[string]string{}, deleted: r.IntN(20) == 0,
		}
		for name, values := range map[string]int{"rare": 60, "half": 2, "some": 8} {
			f.metadata[name] = fmt.Sprint(r.IntN(values))
		}
		accesses := map[string][]string{}
		for u := range 4 {
			if r.IntN(4) == 0 {
				f.users = append(f.users, fmt.Sprint("u", u))
				accesses[fmt.Sprint("u", u)] = []string{"room:write"}
			}
		}
		source, err := json.Marshal(map[string]any{"metadata": f.metadata, "usersAccesses": accesses})
		e.must("Marshal", err)
		c := e.roomContent(string(source))
		c.CreateTime = f.created
		e.mirrorRoom(f.id, c)
		if f.deleted {
			e.deleteRoom(f.id)
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b fixture) int {
		return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.id, b.id))
	})
	found := 0
	for range 150 {
		var f store.LatestRoomFilter
		metadata := map[string]string{}
		for name, values := range map[string]int{"rare": 60, "half": 2, "some": 8} {
			if r.IntN(2) == 0 {
				metadata[name] = fmt.Sprint(r.IntN(values))
			}
		}
		var users []string
		for range r.IntN(3) {
			users = append(users, fmt.Sprint("u", r.IntN(4)))
		}
		f.Terms = store.SelectedBy(metadata, "", "", nil)
		if len(users) > 0 {
			var some []store.Term
			for _, u := range users {
				some = append(some, term(store.TermUser, "", u))
			}
			f.Terms = append(f.Terms, some)
		}
		f.Prefix = []string{"", "", "a", "b-", "c-1"}[r.IntN(5)]
		want := []mirror.RoomID{}
		for _, room := range all {
			if room.deleted || !strings.HasPrefix(string(room.id), f.Prefix) {
				continue
			}
			if len(users) > 0 && !slices.ContainsFunc(users, func(u string) bool { return slices.Contains(room.users, u) }) {
				continue
			}
			fits := true
			for name, value := range metadata {
				fits = fits && room.metadata[name] == value
			}
			if fits {
				want = append(want, room.id)
			}
		}
		found += len(want)
		e.want(fmt.Sprintf("rooms by %+v (seed %d)", f, seed), e.latestKeys(f, 1+r.IntN(30)), want)
	}
	if found < 150 {
		e.Fatalf("only %d rooms were found", found)
	}
}

// termsAreKept cleans up where nothing is gone but what takes its terms with it, at once and
// piece by piece.
func termsAreKept(e *env) {
	byValue := store.LatestRoomFilter{Terms: [][]store.Term{{term(store.TermMetadata, "n", "1")}}}
	for _, id := range []mirror.RoomID{"a", "b", "gone"} {
		e.mirrorRoom(id, e.roomContent(`{"metadata":{"n":"1"}}`))
		for _, id2 := range []string{"here", "deleted"} {
			th := threadIn(id2, 1)
			th.Metadata = []byte(`{"n":"1","m":"2"}`)
			e.mirrorThread(id, th)
		}
		e.deleteThread(threadOf(id, "deleted"))
	}
	e.deleteRoom("gone")
	look := func() (rooms []mirror.RoomID, threads []string) {
		e.Helper()
		return e.latestKeys(byValue, 10), e.threads(store.ThreadFilter{Metadata: map[string]string{"n": "1"}, Deleted: true})
	}
	rooms, threads := look()
	e.want("threads with terms", len(threads), 6)
	deleted, err := store.CleanAllTerms(e.ctx(), e, project)
	e.must("CleanTerms", err)
	e.want("terms deleted", deleted, 0)
	for kind, terms := range map[mirror.Kind]int{mirror.KindRoom: 2 * 2, mirror.KindThread: 6 * 2} {
		looked := 0
		for _, bucket := range slices.Compact(slices.Sorted(slices.Values([]int16{
			mirror.Bucket(project, "a"), mirror.Bucket(project, "b"), mirror.Bucket(project, "gone"),
		}))) {
			for piece := (store.CleanedTerms{More: true}); piece.More; {
				last := piece.Last
				piece, err = e.CleanTerms(e.ctx(), project, kind, bucket, last, 1)
				e.must("CleanTerms", err)
				e.want("terms deleted", piece.Deleted, 0)
				if piece.Last != last {
					looked++
				}
			}
		}
		e.want(fmt.Sprintf("terms of %s looked at one by one", kind), looked, terms)
	}
	after, threadsAfter := look()
	e.want("rooms after a clean-up", after, rooms)
	e.want("threads after a clean-up", threadsAfter, threads)
}
