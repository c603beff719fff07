package presence

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Connections returns the connections of the events, in order and without
// duplicates.
func Connections(events []mirror.Event) []int64 {
	var out []int64
	for _, ev := range events {
		if f, ok := factOf(ev); ok {
			out = append(out, f.connection)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Fold computes sessions from events and the stored sessions of the same
// connections.
//
// Events arrive in any order, and some never arrive. The result therefore depends
// only on the set of events, not on how it is divided into calls: a session
// consists of an enter, a leave, or both, so the stored sessions record which
// events were folded. A leave belongs to the latest earlier enter of the same
// connection and user that has no leave yet. Without one, it is a session of its
// own until its enter arrives. Connection ids restart when a room has been empty,
// so the user id is needed to distinguish a leave from that of a user whose enter
// was lost.
//
// An inferred end is replaced when a leave arrives. Events that cannot be read
// count as folded and make no session.
func Fold(stored []mirror.UserSession, events []mirror.Event) mirror.SessionFold {
	var fold mirror.SessionFold
	before := map[string]mirror.UserSession{}
	facts := map[factKey]fact{}
	for _, s := range stored {
		before[s.ID] = s
		for _, f := range factsOf(s) {
			facts[f.factKey] = f
		}
	}
	for _, ev := range events {
		fold.Folded = append(fold.Folded, ev.ID)
		if f, ok := factOf(ev); ok {
			facts[f.factKey] = f
		}
	}

	after := map[string]mirror.UserSession{}
	for _, s := range match(slices.SortedFunc(maps.Values(facts), fact.compare)) {
		if old, ok := before[s.ID]; ok && s.End == mirror.SessionOpen && old.LeaveEventID == "" {
			s.End, s.LeaveTime = old.End, old.LeaveTime
		}
		after[s.ID] = s
	}
	for _, id := range slices.Sorted(maps.Keys(after)) {
		if old, ok := before[id]; !ok || !equal(old, after[id]) {
			fold.Upserts = append(fold.Upserts, after[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[id]; !ok {
			fold.Deletes = append(fold.Deletes, id)
		}
	}
	return fold
}

// factKey identifies a fact. Each event states one.
type factKey struct {
	event string
	leave bool
}

// fact is one enter or leave.
type fact struct {
	factKey
	user
	time time.Time
	// session holds what the fact says about the user.
	session mirror.UserSession
}

// user is the connection and user of a fact.
type user struct {
	connection int64
	id         string
}

// compare orders facts by time. At equal times enters come first, so a stay without
// duration is one session.
func (f fact) compare(o fact) int {
	return cmp.Or(
		f.time.Compare(o.time),
		cmp.Compare(rank(f.leave), rank(o.leave)),
		cmp.Compare(f.event, o.event),
	)
}

func rank(leave bool) int {
	if leave {
		return 1
	}
	return 0
}

// factOf returns the fact that an event states, and whether it can be read.
func factOf(ev mirror.Event) (fact, bool) {
	v, err := rawjson.Parse(ev.Payload)
	if err != nil || ev.ID == "" {
		return fact{}, false
	}
	data := v.Get("data")
	f := fact{factKey: factKey{event: ev.ID}}
	switch ev.Type {
	case "userEntered":
		f.time = data.Get("enteredAt").Time()
	case "userLeft":
		f.leave = true
		f.time = data.Get("leftAt").Time()
	default:
		return fact{}, false
	}
	for _, t := range []time.Time{ev.SourceTime, ev.ReceiveTime} {
		if f.time.IsZero() {
			f.time = t
		}
	}
	var ok bool
	if f.user, ok = userOf(data, "userId"); !ok || f.time.IsZero() {
		return fact{}, false
	}
	f.session = mirror.UserSession{
		Project: ev.Project, Room: ev.Room, ConnectionID: f.connection, UserID: f.id, Info: info(data.Get("userInfo")),
	}
	return f, true
}

// factsOf returns the facts of a session.
func factsOf(s mirror.UserSession) []fact {
	who := user{connection: s.ConnectionID, id: s.UserID}
	told := mirror.UserSession{
		Project: s.Project, Room: s.Room, ConnectionID: s.ConnectionID, UserID: s.UserID,
		Info: s.Info,
	}
	var facts []fact
	if !s.EnterTime.IsZero() {
		facts = append(facts, fact{factKey: factKey{event: s.ID}, user: who, time: s.EnterTime, session: told})
	}
	if s.LeaveEventID != "" {
		facts = append(facts, fact{
			factKey: factKey{event: s.LeaveEventID, leave: true}, user: who, time: s.LeaveTime,
			session: told,
		})
	}
	return facts
}

// match pairs facts, which are in order, into sessions.
func match(facts []fact) []mirror.UserSession {
	var sessions []mirror.UserSession
	open := map[user][]int{} // the sessions of a user that wait for a leave, the latest last
	for _, f := range facts {
		waiting := open[f.user]
		switch n := len(waiting); {
		case !f.leave:
			s := f.session
			s.ID, s.EnterTime = f.event, f.time
			open[f.user] = append(waiting, len(sessions))
			sessions = append(sessions, s)
		case n > 0:
			s := &sessions[waiting[n-1]]
			s.LeaveTime, s.LeaveEventID, s.End = f.time, f.event, mirror.SessionLeft
			open[f.user] = waiting[:n-1]
		default:
			s := f.session
			s.ID, s.LeaveTime, s.LeaveEventID, s.End = f.event, f.time, f.event, mirror.SessionLeft
			sessions = append(sessions, s)
		}
	}
	return sessions
}

// equal reports whether two sessions with one id are the same.
func equal(a, b mirror.UserSession) bool {
	return a.EnterTime.Equal(b.EnterTime) && a.LeaveTime.Equal(b.LeaveTime) && a.LeaveEventID == b.LeaveEventID &&
		a.End == b.End && a.UserID == b.UserID && bytes.Equal(a.Info, b.Info)
}
