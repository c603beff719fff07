package presence_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/presence"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// at returns the moment so many minutes after the start.
func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

// event returns an event of a user, "" for an anonymous one.
func event(id, typ string, connection int, user string, when time.Time) mirror.Event {
	field := map[string]string{"userEntered": "enteredAt", "userLeft": "leftAt"}[typ]
	who, info := "null", "null"
	if user != "" {
		who, info = `"`+user+`"`, `{"name":"`+user+`"}`
	}
	return mirror.Event{
		Project: "default", Room: "board", ID: id, Type: typ, ReceiveTime: start.Add(24 * time.Hour),
		Payload: fmt.Appendf(nil,
			`{"type":%q,"data":{"roomId":"board","connectionId":%d,"userId":%s,"userInfo":%s,%q:%q,"numActiveUsers":1}}`,
			typ, connection, who, info, field, when.Format(time.RFC3339Nano)),
	}
}

func enter(id string, connection int, user string, minutes int) mirror.Event {
	return event(id, "userEntered", connection, user, at(minutes))
}

func leave(id string, connection int, user string, minutes int) mirror.Event {
	return event(id, "userLeft", connection, user, at(minutes))
}

// table keeps sessions like a database.
type table map[string]mirror.UserSession

// fold folds events as a task does.
func (s table) fold(t interface {
	Helper()
	Fatalf(string, ...any)
}, events ...mirror.Event,
) mirror.SessionFold {
	t.Helper()
	connections := presence.Connections(events)
	var stored []mirror.UserSession
	for _, id := range slices.Sorted(maps.Keys(s)) {
		if slices.Contains(connections, s[id].ConnectionID) {
			stored = append(stored, s[id])
		}
	}
	fold := presence.Fold(stored, events)
	for _, id := range fold.Deletes {
		if _, ok := s[id]; !ok {
			t.Fatalf("Fold deletes %q, which is not stored", id)
		}
		if slices.ContainsFunc(fold.Upserts, func(u mirror.UserSession) bool { return u.ID == id }) {
			t.Fatalf("Fold deletes and writes %q", id)
		}
		delete(s, id)
	}
	for _, u := range fold.Upserts {
		if gocmp.Equal(s[u.ID], u) {
			t.Fatalf("Fold writes %+v, which is stored already", u)
		}
		s[u.ID] = u
	}
	if len(fold.Folded) != len(events) {
		t.Fatalf("Fold took up %d events; want all %d", len(fold.Folded), len(events))
	}
	for _, ev := range events {
		if !slices.Contains(fold.Folded, ev.ID) {
			t.Fatalf("Fold did not take up %s", ev.ID)
		}
	}
	return fold
}

// brief shows sessions as "id user enter-leave(leave event) end".
func (s table) brief() []string {
	minutes := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return fmt.Sprint(t.Sub(start).Minutes())
	}
	var out []string
	for _, id := range slices.Sorted(maps.Keys(s)) {
		u := s[id]
		out = append(out, fmt.Sprintf("%s %s %s-%s(%s) %s", u.ID, u.UserID, minutes(u.EnterTime), minutes(u.LeaveTime),
			u.LeaveEventID, u.End))
	}
	return out
}

func TestFold(t *testing.T) {
	t.Parallel()
	type batch = []mirror.Event
	for _, c := range []struct {
		name    string
		batches []batch
		want    []string
	}{
		{"enter and leave", []batch{{enter("e", 1, "ann", 0), leave("l", 1, "ann", 5)}}, []string{"e ann 0-5(l) left"}},
		{"still there", []batch{{enter("e", 1, "ann", 0)}}, []string{"e ann 0-() "}},
		{"leave first", []batch{{leave("l", 1, "ann", 5)}, {enter("e", 1, "ann", 0)}}, []string{"e ann 0-5(l) left"}},
		{"enter lost", []batch{{leave("l", 1, "ann", 5)}}, []string{"l ann -5(l) left"}},
		{"no stay at all", []batch{{leave("a", 1, "ann", 5)}, {enter("b", 1, "ann", 5)}}, []string{"b ann 5-5(a) left"}},
		{
			"leave before the enter",
			[]batch{{enter("e", 1, "ann", 5), leave("l", 1, "ann", 4)}},
			[]string{"e ann 5-() ", "l ann -4(l) left"},
		},
		{
			"connection used again",
			[]batch{
				{enter("e1", 1, "ann", 0), leave("l2", 1, "ann", 20)},
				{leave("l1", 1, "ann", 5)},
				{enter("e2", 1, "ann", 10)},
			},
			[]string{"e1 ann 0-5(l1) left", "e2 ann 10-20(l2) left"},
		},
		{
			"leave goes to the later enter",
			[]batch{{enter("e1", 1, "ann", 0), leave("l", 1, "ann", 20)}, {enter("e2", 1, "ann", 10)}},
			[]string{"e1 ann 0-() ", "e2 ann 10-20(l) left"},
		},
		{
			"later leave stays alone",
			[]batch{{enter("e", 1, "ann", 0), leave("l2", 1, "ann", 20)}, {leave("l1", 1, "ann", 10)}},
			[]string{"e ann 0-10(l1) left", "l2 ann -20(l2) left"},
		},
		{
			"connection of another user",
			[]batch{{enter("e1", 1, "ann", 0)}, {leave("l", 1, "bob", 20)}, {enter("e2", 1, "", 25), leave("l3", 1, "", 30)}},
			[]string{"e1 ann 0-() ", "e2  25-30(l3) left", "l bob -20(l) left"},
		},
		{
			"two tabs",
			[]batch{{enter("e1", 1, "ann", 0), enter("e2", 2, "ann", 1), leave("l", 1, "ann", 2)}},
			[]string{"e1 ann 0-2(l) left", "e2 ann 1-() "},
		},
		{
			"one event twice",
			[]batch{{enter("e", 1, "ann", 0), enter("e", 1, "ann", 0)}, {enter("e", 1, "ann", 0)}},
			[]string{"e ann 0-() "},
		},
	} {
		s := table{}
		for _, events := range c.batches {
			s.fold(t, events...)
		}
		if diff := gocmp.Diff(c.want, s.brief()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestFoldKeepsWhatIsKnownOfTheUser(t *testing.T) {
	t.Parallel()
	s := table{}
	s.fold(t, enter("e", 7, "ann", 0))
	want := mirror.UserSession{
		Project: "default", Room: "board", ID: "e", ConnectionID: 7, UserID: "ann", Info: []byte(`{"name":"ann"}`),
		EnterTime: at(0),
	}
	if diff := gocmp.Diff(want, s["e"]); diff != "" {
		t.Errorf("session (-want +got):\n%s", diff)
	}
	s.fold(t, leave("l", 7, "ann", 3))
	want.LeaveTime, want.LeaveEventID, want.End = at(3), "l", mirror.SessionLeft
	if diff := gocmp.Diff(want, s["e"]); diff != "" {
		t.Errorf("session after the end (-want +got):\n%s", diff)
	}
	if fold := s.fold(t, leave("l", 7, "ann", 3)); len(fold.Upserts)+len(fold.Deletes) != 0 {
		t.Errorf("Fold of an event that is folded = %+v; want nothing to write", fold)
	}
}

// An inferred end stands until a real one is known, and no other event moves it.
func TestFoldOfInferredEnds(t *testing.T) {
	t.Parallel()
	for _, end := range []mirror.SessionEnd{mirror.SessionAbsent, mirror.SessionRoomDeleted} {
		s := table{}
		s.fold(t, enter("e", 1, "ann", 0))
		u := s["e"]
		u.End, u.LeaveTime = end, at(60)
		s["e"] = u
		if fold := s.fold(t, enter("e2", 1, "ann", 90), leave("l", 1, "bob", 50)); len(fold.Upserts) != 2 {
			t.Errorf("Fold = %+v; want the session that ended by inference left alone", fold)
		}
		if got := s["e"]; got.End != end || !got.LeaveTime.Equal(at(60)) {
			t.Errorf("session = %+v; want its end kept", got)
		}
		s.fold(t, leave("l1", 1, "ann", 30))
		if got, want := s.brief()[0], "e ann 0-30(l1) left"; got != want {
			t.Errorf("session = %s; want %s", got, want)
		}
	}
}

func TestOddEventsMakeNothing(t *testing.T) {
	t.Parallel()
	odd := func(typ, data string) mirror.Event {
		return mirror.Event{
			ID: typ + data, Type: typ, Payload: []byte(`{"type":"` + typ + `","data":` + data + "}"),
			ReceiveTime: start,
		}
	}
	events := []mirror.Event{
		odd("userEntered", `{"enteredAt":"2026-01-02T03:00:00Z"}`),
		odd("userEntered", `{"connectionId":"1","enteredAt":"2026-01-02T03:00:00Z"}`),
		odd("userEntered", `{"connectionId":1.5}`),
		odd("userLeft", "[]"), odd("userLeft", "null"),
		odd("roomCreated", `{"connectionId":1}`),
		{ID: "broken", Type: "userEntered", Payload: []byte(`{"data":{"connectionId":1}`), ReceiveTime: start},
		{ID: "timeless", Type: "userEntered", Payload: []byte(`{"data":{"connectionId":1}}`)},
		{ID: "empty", Type: "userLeft"},
	}
	s := table{}
	fold := s.fold(t, events...)
	if len(s) != 0 || len(fold.Folded) != len(events) {
		t.Errorf("Fold = %+v; want all taken up and nothing made", fold)
	}
	if got := presence.Connections(events); len(got) != 0 {
		t.Errorf("Connections = %v; want none", got)
	}

	// Without a time of its own an event has that of its source, or of its delivery.
	one := odd("userEntered", `{"connectionId":1,"enteredAt":"now"}`)
	one.SourceTime = at(-10)
	s.fold(t, one, odd("userLeft", `{"connectionId":1}`))
	if diff := gocmp.Diff([]string{one.ID + "  -10-0(" + `userLeft{"connectionId":1}` + ") left"}, s.brief()); diff != "" {
		t.Errorf("sessions (-want +got):\n%s", diff)
	}
	// A user id that cannot be stored is as good as none.
	s.fold(t, odd("userEntered", `{"connectionId":9,"userId":"\u0000"}`))
	if got := s[`userEntered{"connectionId":9,"userId":"\u0000"}`]; got.ConnectionID != 9 || got.UserID != "" {
		t.Errorf("session = %+v; want an anonymous user's", got)
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	got := presence.Connections([]mirror.Event{
		leave("a", 5, "ann", 1), enter("b", -2, "", 1), enter("c", 5, "bob", 2),
		{ID: "d"},
	})
	if diff := gocmp.Diff([]int64{-2, 5}, got); diff != "" {
		t.Errorf("Connections (-want +got):\n%s", diff)
	}
}

// told is an event as the reference sees it.
type told struct {
	id, user   string
	leave      bool
	connection int
	minutes    int
}

// reference says what all events at once make: each leave, in order, looks among all
// enters for the one it belongs to.
func reference(all []told) table {
	s := table{}
	session := func(o told) mirror.UserSession {
		u := mirror.UserSession{
			Project: "default", Room: "board", ID: o.id, ConnectionID: int64(o.connection),
			UserID: o.user,
		}
		if o.user != "" {
			u.Info = []byte(`{"name":"` + o.user + `"}`)
		}
		return u
	}
	for _, o := range all {
		if !o.leave {
			u := session(o)
			u.EnterTime = at(o.minutes)
			s[o.id] = u
		}
	}
	leaves := slices.DeleteFunc(slices.Clone(all), func(o told) bool { return !o.leave })
	slices.SortFunc(leaves,
		func(a, b told) int { return cmp.Or(cmp.Compare(a.minutes, b.minutes), cmp.Compare(a.id, b.id)) })
	for _, l := range leaves {
		var best *mirror.UserSession
		for _, u := range s {
			fits := u.ConnectionID == int64(l.connection) && u.UserID == l.user && !u.EnterTime.IsZero() &&
				!u.EnterTime.After(at(l.minutes)) && u.LeaveEventID == ""
			if fits && (best == nil || u.EnterTime.After(best.EnterTime) || u.EnterTime.Equal(best.EnterTime) &&
				u.ID > best.ID) {
				best = &u
			}
		}
		if best == nil {
			u := session(l)
			best = &u
		}
		best.LeaveTime, best.LeaveEventID, best.End = at(l.minutes), l.id, mirror.SessionLeft
		s[best.ID] = *best
	}
	return s
}

// withoutInference opens again what was ended by inference.
func withoutInference(s table) table {
	out := maps.Clone(s)
	for id, u := range out {
		if u.LeaveEventID == "" {
			u.End, u.LeaveTime = mirror.SessionOpen, time.Time{}
			out[id] = u
		}
	}
	return out
}

// Whatever the order of events, however they are divided, repeated or lost, and
// whatever is inferred meanwhile, the sessions are what all events at once make.
func TestFoldConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var all []told
		for i := range rapid.IntRange(1, 14).Draw(t, "events") {
			all = append(all, told{
				// Ids do not tell the order.
				id:         fmt.Sprintf("%c%d", 'a'+rune(rapid.IntRange(0, 25).Draw(t, "letter")), i),
				leave:      rapid.Bool().Draw(t, "leave"),
				connection: rapid.IntRange(1, 2).Draw(t, "connection"),
				user:       rapid.SampledFrom([]string{"ann", "bob", ""}).Draw(t, "user"),
				minutes:    rapid.IntRange(0, 6).Draw(t, "minutes"),
			})
		}
		order := rapid.Permutation(all).Draw(t, "order")
		for range rapid.IntRange(0, 3).Draw(t, "repeated") {
			order = append(order, rapid.SampledFrom(all).Draw(t, "again"))
		}
		s := table{}
		for len(order) > 0 {
			var events []mirror.Event
			n := rapid.IntRange(1, len(order)).Draw(t, "batch")
			for _, o := range order[:n] {
				if o.leave {
					events = append(events, leave(o.id, o.connection, o.user, o.minutes))
				} else {
					events = append(events, enter(o.id, o.connection, o.user, o.minutes))
				}
			}
			order = order[n:]
			before := maps.Clone(s)
			s.fold(t, events...)
			for id, u := range before {
				inferred := u.End == mirror.SessionAbsent || u.End == mirror.SessionRoomDeleted
				if now := s[id]; inferred && now.LeaveEventID == "" && (now.End != u.End || !now.LeaveTime.Equal(u.LeaveTime)) {
					t.Fatalf("the end that was inferred of %+v became %+v", u, now)
				}
			}
			for _, id := range slices.Sorted(maps.Keys(s)) {
				if u := s[id]; u.End == mirror.SessionOpen && rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
					u.End, u.LeaveTime = mirror.SessionAbsent, at(100)
					s[id] = u
				}
			}
		}
		if diff := gocmp.Diff(reference(all), withoutInference(s)); diff != "" {
			t.Fatalf("sessions (-reference +folded):\n%s", diff)
		}
	})
}
