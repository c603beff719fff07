package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var presenceCases = []testCase{
	{"event waits once at what it is folded into", foldWaits},
	{"events wait in the order in which they happened", foldOrder},
	{"refused batch leaves nothing waiting", foldRefused},
	{"only the lease folds", foldLease},
	{"due again at once while events wait", foldRest},
	{"sessions are stored, changed and taken away", sessionFields},
	{"session taken away and stored again is there", sessionDeletedFirst},
	{"sessions of connections, the latest first", sessionsOf},
	{"sessions by filter", sessionsFiltered},
	{"sessions in pages", sessionPages},
	{"sessions of odd rooms stay apart", sessionsOddIDs},
	{"active users are stored as fetched", activeUsers},
	{"unchanged active users move their times alone", activeUsersUnchanged},
	{"active users without info", activeUsersNoInfo},
	{"users who share a connection id are told apart", activeUsersShared},
	{"active users belong to an epoch", activeUsersEpoch},
	{"nobody after those of an earlier room is no change", activeUsersNobody},
	{"active users who are gone leave nothing to clean", activeUsersClean},
	{"absent users end their sessions", absentSessions},
	{"nobody ends sessions when it is said twice", absentNobody},
	{"deleted room ends its sessions", sessionsRoomDeleted},
	{"404 alone ends no session", sessionsRoomMissing},
	{"end that was inferred during a fold stays", sessionsInferred},
	{"what outlasts a room is neither quieted nor raised with it", lastingKinds},
	{"what outlasts a room needs none", lastingNeedsNoRoom},
	{"info is kept byte for byte", userInfo},
	{"much info goes in pieces", muchInfo},
}

func activeUsersOf(id mirror.RoomID) mirror.Resource {
	return mirror.Resource{Project: project, Room: id, Kind: mirror.KindActiveUsers}
}

func userSessionsOf(id mirror.RoomID) mirror.Resource {
	return mirror.Resource{Project: project, Room: id, Kind: mirror.KindUserSessions}
}

// foldEvent accepts a new event that waits at r, and returns it as it waits.
func (e *env) foldEvent(r mirror.Resource, sourceTime time.Time) mirror.Event {
	e.Helper()
	a := e.delivery(mirror.Invalidation{Resource: r, Fold: true})
	a.Event.Type, a.Event.SourceTime = "userEntered", sourceTime
	a.Event.Payload = fmt.Appendf(nil, "{\"type\":\"userEntered\",\"id\":%q,\"odd\":\"\\u0000 '\\\\\xff\"}", a.Event.ID)
	e.accept(a)
	return waiting(a.Event)
}

// waiting is what is kept of an event that waits.
func waiting(ev mirror.Event) mirror.Event {
	return mirror.Event{
		Project: ev.Project, ID: ev.ID, Type: ev.Type, Room: ev.Room, Payload: ev.Payload,
		SourceTime: ev.SourceTime, ReceiveTime: ev.ReceiveTime,
	}
}

// unfolded are the events that wait at r. Of what is kept beside them nothing is
// wanted.
func (e *env) unfolded(r mirror.Resource, limit int) []mirror.Event {
	e.Helper()
	events, err := e.Unfolded(e.ctx(), r, limit)
	e.must("Unfolded", err)
	for i := range events {
		events[i] = waiting(events[i])
	}
	return events
}

func eventIDs(events []mirror.Event) []string {
	var ids []string
	for _, ev := range events {
		ids = append(ids, ev.ID)
	}
	return ids
}

// applySessions raises a room's sessions and applies fold.
func (e *env) applySessions(r mirror.Resource, fold mirror.SessionFold) mirror.Applied {
	e.Helper()
	e.raise(r)
	lease := e.claim(r)
	applied, err := e.ApplySessions(e.ctx(), lease, fold, e.now)
	e.must("ApplySessions", err)
	return e.caughtUp(lease, applied)
}

func (e *env) upsertSessions(sessions ...mirror.UserSession) {
	e.Helper()
	byRoom := make(map[mirror.RoomID][]mirror.UserSession)
	for _, s := range sessions {
		byRoom[s.Room] = append(byRoom[s.Room], s)
	}
	for room, sessions := range byRoom {
		e.applySessions(userSessionsOf(room), mirror.SessionFold{Upserts: sessions})
	}
}

// session is one that is open since a minute.
func (e *env) session(room mirror.RoomID, id string, connection int64) mirror.UserSession {
	return mirror.UserSession{
		Project: project, Room: room, ID: id, ConnectionID: connection, UserID: "ann", EnterTime: e.now.Add(-time.Minute),
	}
}

func (e *env) sessions(f store.SessionFilter) []mirror.UserSession {
	e.Helper()
	f.Project = project
	if f.Limit == 0 {
		f.Limit = 1000
	}
	sessions, err := e.UserSessions(e.ctx(), f)
	e.must("UserSessions", err)
	return sessions
}

func sessionIDs(sessions []mirror.UserSession) []string {
	var ids []string
	for _, s := range sessions {
		ids = append(ids, s.ID)
	}
	return ids
}

func (e *env) usersContent(users ...mirror.ActiveUser) mirror.ActiveUsersContent {
	return mirror.ActiveUsersContent{FetchTime: e.now, Users: users}
}

func (e *env) applyUsers(lease mirror.Lease, content mirror.ActiveUsersContent) mirror.Applied {
	e.Helper()
	applied, err := e.ApplyActiveUsers(e.ctx(), lease, content, content.FetchTime.Add(-time.Minute), e.now, 0)
	e.must("ApplyActiveUsers", err)
	return e.caughtUp(lease, applied)
}

// mirrorUsers has an event raise a room's active users and applies them.
func (e *env) mirrorUsers(id mirror.RoomID, users ...mirror.ActiveUser) mirror.Applied {
	e.Helper()
	e.raise(activeUsersOf(id))
	return e.applyUsers(e.claim(activeUsersOf(id)), e.usersContent(users...))
}

func (e *env) activeUsers(id mirror.RoomID, deleted bool) mirror.ActiveUsers {
	e.Helper()
	users, err := e.ActiveUsers(e.ctx(), activeUsersOf(id), deleted)
	e.must("ActiveUsers", err)
	return users
}

func foldWaits(e *env) {
	r := userSessionsOf("room")
	a := e.delivery(mirror.Invalidation{Resource: r, Fold: true}, invalidatedAt(storageOf("room")))
	a.Event.Type = "userEntered"
	second := notificationOf("room", "n")
	other := e.delivery(mirror.Invalidation{Resource: r, Fold: true}, mirror.Invalidation{Resource: second, Fold: true})
	other.Event.SourceTime = time.Time{}
	e.accept(a)
	for range 2 {
		again := a
		again.Event.Payload = []byte(`{"delivered":"again"}`)
		answers := e.accept(again, other)
		if answers[0].Fresh || len(answers[0].Pending) != 2 {
			e.Fatalf("Accept of a duplicate = %+v; want it old, and what it raised", answers[0])
		}
	}
	e.want("what waits", e.unfolded(r, 10), []mirror.Event{waiting(a.Event), waiting(other.Event)})
	e.want("what waits elsewhere", e.unfolded(second, 10), []mirror.Event{waiting(other.Event)})
	for _, r := range []mirror.Resource{
		storageOf("room"), activeUsersOf("room"), userSessionsOf("Room"),
		userSessionsOf("room "), notificationOf("room", ""),
	} {
		e.want(fmt.Sprintf("what waits at %+v", r), e.unfolded(r, 10), []mirror.Event{})
	}
	foreign := r
	foreign.Project = "other"
	e.want("what waits in another project", e.unfolded(foreign, 10), []mirror.Event{})
	if ev, err := e.Event(e.ctx(), project, a.Event.ID); err != nil || string(ev.Payload) != string(a.Event.Payload) {
		e.Fatalf("Event = %+v, %v; want it recorded as well", ev, err)
	}
	e.wantState(r, mirror.TaskPending)
	// One that was folded does not wait once more because it is delivered once more.
	e.applySessions(r, mirror.SessionFold{Folded: []string{a.Event.ID, other.Event.ID}})
	e.accept(a, other)
	e.want("what waits of what was folded", e.unfolded(r, 10), []mirror.Event{})
}

func foldOrder(e *env) {
	r := userSessionsOf("room")
	start := e.now
	at := func(d time.Duration) time.Time { return start.Add(d) }
	late := e.foldEvent(r, at(time.Hour))
	second := e.foldEvent(r, at(time.Second))
	e.pass(2 * time.Second)
	unsaid := e.foldEvent(r, time.Time{}) // it came after two seconds
	first := e.foldEvent(r, at(time.Microsecond))
	tie := e.foldEvent(r, at(time.Microsecond))
	want := []mirror.Event{first, tie, second, unsaid, late}
	e.want("what waits", e.unfolded(r, 10), want)
	for limit := range 5 {
		e.want(fmt.Sprintf("what waits, at most %d", limit+1), e.unfolded(r, limit+1), want[:limit+1])
	}
}

func foldRefused(e *env) {
	r := userSessionsOf("room")
	good := e.delivery(mirror.Invalidation{Resource: r, Fold: true})
	bad := e.delivery(mirror.Invalidation{Resource: userSessionsOf("another"), Fold: true})
	bad.Event.ReceiveTime = time.Time{}
	answers, err := e.Accept(e.ctx(), []mirror.Delivery{good, bad})
	if err == nil && answers[1].Err == nil {
		e.Fatalf("Accept of an event without a receive time = %+v; want an error", answers)
	}
	e.want("what waits of the refused event", e.unfolded(userSessionsOf("another"), 10), []mirror.Event{})
	if err != nil || answers[0].Err != nil {
		e.want("what waits", e.unfolded(r, 10), []mirror.Event{})
	}
	e.accept(good)
	e.want("what waits", eventIDs(e.unfolded(r, 10)), []string{good.Event.ID})
}

func foldLease(e *env) {
	r := userSessionsOf("room")
	ev := e.foldEvent(r, e.now)
	old := e.claim(r)
	e.now = old.Until
	lease := e.claim(r)
	fold := mirror.SessionFold{Upserts: []mirror.UserSession{e.session("room", ev.ID, 1)}, Folded: []string{ev.ID}}
	_, err := e.ApplySessions(e.ctx(), old, fold, e.now)
	e.wantErr("ApplySessions under an old token", err, store.ErrLeaseLost)
	e.want("what waits", e.unfolded(r, 10), []mirror.Event{ev})
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{})
	applied, err := e.ApplySessions(e.ctx(), lease, fold, e.now)
	e.must("ApplySessions", err)
	e.want("ApplySessions", e.caughtUp(lease, applied), mirror.Applied{Changed: true})
	e.want("what waits", e.unfolded(r, 10), []mirror.Event{})
	e.want("UserSessions", e.sessions(store.SessionFilter{}), fold.Upserts)
	e.want("changes", e.changes(r.Bucket()), []mirror.Change{entry(1, r, mirror.ChangeUpserted, 0, e.now)})
	e.wantState(r, mirror.TaskDone)
	_, err = e.ApplySessions(e.ctx(), lease, mirror.SessionFold{Deletes: []string{ev.ID}}, e.now)
	e.wantErr("ApplySessions under a lease given back", err, store.ErrLeaseLost)
	if n := len(e.sessions(store.SessionFilter{})); n != 1 {
		e.Fatalf("sessions = %d; want the one", n)
	}
}

func foldRest(e *env) {
	r := userSessionsOf("room")
	var ids []string
	for i := range 3 {
		ids = append(ids, e.foldEvent(r, e.now.Add(time.Duration(i)*time.Second)).ID)
	}
	stays := e.foldEvent(userSessionsOf("another"), e.now)
	lease := e.claim(r)
	applied, err := e.ApplySessions(e.ctx(), lease,
		mirror.SessionFold{Folded: append(slices.Clone(ids[:2]), "never heard of")}, e.now)
	e.must("ApplySessions", err)
	e.want("ApplySessions with one left", e.caughtUp(lease, applied), mirror.Applied{Due: e.now})
	e.want("what waits", eventIDs(e.unfolded(r, 10)), ids[2:])
	lease = e.claim(r)
	late := e.foldEvent(r, e.now)
	applied, err = e.ApplySessions(e.ctx(), lease, mirror.SessionFold{Folded: ids}, e.now)
	e.must("ApplySessions", err)
	e.want("ApplySessions with one that came meanwhile", e.caughtUp(lease, applied), mirror.Applied{Due: e.now})
	lease = e.claim(r)
	applied, err = e.ApplySessions(e.ctx(), lease, mirror.SessionFold{Folded: []string{late.ID}}, e.now)
	e.must("ApplySessions", err)
	e.want("ApplySessions with nothing left", e.caughtUp(lease, applied), mirror.Applied{})
	e.want("what waits elsewhere", eventIDs(e.unfolded(userSessionsOf("another"), 10)), []string{stays.ID})
	if n := e.lastChange(r.Bucket()); n != 0 {
		e.Fatalf("last change = %d; want none, for no session changed", n)
	}
	// An event that waits and is folded away in bulk.
	var batch []mirror.Delivery
	for range 700 {
		batch = append(batch, e.delivery(mirror.Invalidation{Resource: r, Fold: true}))
	}
	e.accept(batch...)
	all := e.unfolded(r, 1000)
	if len(all) != 700 {
		e.Fatalf("%d events wait; want 700", len(all))
	}
	fold := mirror.SessionFold{Folded: eventIDs(all), Until: all[699].HappenTime()}
	e.want("ApplySessions of 700 events", e.applySessions(r, fold), mirror.Applied{})
	e.want("what waits", e.unfolded(r, 10), []mirror.Event{})
}

func sessionFields(e *env) {
	r := userSessionsOf("room")
	open := e.session("room", "msg_open", 7)
	open.Info = []byte(`{"name":"Ann","n":9007199254740993}`)
	left := mirror.UserSession{
		Project: project, Room: "room", ID: "msg_left", ConnectionID: 9_007_199_254_740_993,
		EnterTime: e.now.Add(-2 * time.Minute),
		LeaveTime: e.now.Add(-time.Minute), LeaveEventID: "msg_left_2", End: mirror.SessionLeft,
	}
	orphan := mirror.UserSession{
		Project: project, Room: "room", ID: "msg_orphan", ConnectionID: -1, UserID: "Bö b ",
		LeaveTime:    e.now.Add(-3 * time.Minute),
		LeaveEventID: "msg_orphan", End: mirror.SessionLeft,
	}
	e.want("ApplySessions", e.applySessions(r, mirror.SessionFold{Upserts: []mirror.UserSession{orphan, open, left}}),
		mirror.Applied{Changed: true})
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{open, left, orphan})
	e.pass(time.Second)

	entered := orphan
	entered.ID, entered.EnterTime = "msg_entered", orphan.LeaveTime.Add(-time.Microsecond)
	closed := open
	closed.LeaveTime, closed.LeaveEventID, closed.End, closed.Info, closed.UserID = e.now, "msg_x", mirror.SessionLeft,
		nil, "carl"
	e.want("ApplySessions", e.applySessions(r, mirror.SessionFold{
		Upserts: []mirror.UserSession{closed, entered}, Deletes: []string{"msg_orphan", "never heard of"},
	}), mirror.Applied{Changed: true})
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{closed, left, entered})
	e.want("changes", e.changes(r.Bucket()), []mirror.Change{
		entry(1, r, mirror.ChangeUpserted, 0, e.now.Add(-time.Second)), entry(2, r, mirror.ChangeUpserted, 0, e.now),
	})
	got, err := e.SessionsOf(e.ctx(), r, []int64{left.ConnectionID, 7, 8}, 10)
	e.must("SessionsOf", err)
	slices.SortFunc(got, func(a, b mirror.UserSession) int { return strings.Compare(a.ID, b.ID) })
	e.want("SessionsOf", got, []mirror.UserSession{left, closed})
}

func sessionDeletedFirst(e *env) {
	s := e.session("room", "msg_1", 1)
	e.upsertSessions(s)
	s.ConnectionID = 2
	fold := mirror.SessionFold{Upserts: []mirror.UserSession{s}, Deletes: []string{s.ID}}
	e.want("ApplySessions", e.applySessions(userSessionsOf("room"), fold), mirror.Applied{Changed: true})
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{s})
}

func sessionsOf(e *env) {
	var sessions []mirror.UserSession
	for connection := range int64(60) {
		for i := range 4 {
			s := e.session("room", fmt.Sprintf("msg_%02d_%d", connection, i), connection)
			s.EnterTime = e.now.Add(time.Duration((i*3)%4) * time.Second) // 0, 3, 2, 1
			sessions = append(sessions, s)
		}
	}
	foreign := e.session("Room", "msg_foreign", 1)
	e.upsertSessions(append(sessions, foreign)...)
	get := func(limit int, connections ...int64) map[int64][]string {
		e.Helper()
		got, err := e.SessionsOf(e.ctx(), userSessionsOf("room"), connections, limit)
		e.must("SessionsOf", err)
		ids := make(map[int64][]string)
		for _, s := range got {
			ids[s.ConnectionID] = append(ids[s.ConnectionID], s.ID)
		}
		return ids
	}
	e.want("SessionsOf two connections", get(10, 1, 5), map[int64][]string{
		1: {"msg_01_1", "msg_01_2", "msg_01_3", "msg_01_0"}, 5: {"msg_05_1", "msg_05_2", "msg_05_3", "msg_05_0"},
	})
	e.want("SessionsOf, at most 2 each", get(2, 5, 1),
		map[int64][]string{1: {"msg_01_1", "msg_01_2"}, 5: {"msg_05_1", "msg_05_2"}})
	e.want("SessionsOf nobody", get(2), map[int64][]string{})
	e.want("SessionsOf a connection never heard of", get(2, 1000), map[int64][]string{})
	var all []int64
	for connection := range int64(60) {
		all = append(all, connection)
	}
	if got := get(3, all...); len(got) != 60 || len(got[59]) != 3 || len(got[0]) != 3 {
		e.Fatalf("SessionsOf 60 connections, at most 3 each = %v", got)
	}
	got, err := e.SessionsOf(e.ctx(), userSessionsOf("Room"), []int64{1}, 10)
	e.must("SessionsOf", err)
	e.want("SessionsOf another room", got, []mirror.UserSession{foreign})
}

// manySessions are 12 sessions of two rooms and users, the latest first.
func (e *env) manySessions() []mirror.UserSession {
	e.Helper()
	var sessions []mirror.UserSession
	for i := range 12 {
		s := e.session("room", fmt.Sprintf("msg_s%02d", i), int64(i))
		s.EnterTime = e.now.Add(-time.Duration(i/2) * time.Minute) // two at a time
		if i%3 == 1 {
			s.Room = "another"
		}
		if i%4 == 2 {
			s.UserID = "bob"
		}
		if i%2 == 1 {
			s.LeaveTime, s.LeaveEventID, s.End = e.now.Add(time.Minute), "x", mirror.SessionLeft
		}
		sessions = append(sessions, s)
	}
	shuffled := slices.Clone(sessions)
	slices.Reverse(shuffled)
	e.upsertSessions(shuffled...)
	return sessions
}

func sessionsFiltered(e *env) {
	all := e.manySessions()
	foreign := e.session("room", "msg_foreign", 1)
	foreign.Project = "other"
	e.applySessions(mirror.Resource{Project: "other", Room: "room", Kind: mirror.KindUserSessions},
		mirror.SessionFold{Upserts: []mirror.UserSession{foreign}})
	minute := func(n int) time.Time { return e.now.Add(time.Duration(n) * time.Minute) }
	for _, f := range []store.SessionFilter{
		{},
		{Room: "room"},
		{Room: "Room"},
		{User: "bob"},
		{User: "bo"},
		{Room: "another", User: "bob"},
		{Open: true},
		{Room: "room", Open: true},
		{User: "ann", Open: true},
		{From: minute(-2)},
		{To: minute(-2)},
		{From: minute(-4), To: minute(-1)},
		{Room: "room", User: "ann", From: minute(-4), To: minute(-1), Open: true},
		{User: "ann", From: minute(-4).Add(time.Microsecond)},
	} {
		var want []mirror.UserSession
		for _, s := range all {
			if (f.Room == "" || s.Room == f.Room) && (f.User == "" || s.UserID == f.User) &&
				(!f.Open || s.End == mirror.SessionOpen) &&
				(f.From.IsZero() || !s.BeginTime().Before(f.From)) && (f.To.IsZero() || s.BeginTime().Before(f.To)) {
				want = append(want, s)
			}
		}
		e.want(fmt.Sprintf("UserSessions %+v", f), e.sessions(f), want)
		f.Limit = 2
		e.want(fmt.Sprintf("UserSessions %+v", f), e.sessions(f), want[:min(2, len(want))])
	}
	got, err := e.UserSessions(e.ctx(), store.SessionFilter{Project: "other", Limit: 10})
	e.must("UserSessions", err)
	e.want("UserSessions of another project", got, []mirror.UserSession{foreign})
	for _, p := range []mirror.ProjectID{"", "Default"} {
		got, err := e.UserSessions(e.ctx(), store.SessionFilter{Project: p, Limit: 10})
		e.must("UserSessions", err)
		e.want(fmt.Sprintf("UserSessions of project %q", p), got, []mirror.UserSession{})
	}
}

func sessionPages(e *env) {
	e.manySessions()
	for what, f := range map[string]store.SessionFilter{
		"all": {}, "a room's": {Room: "room"}, "a user's": {User: "ann"},
		"open": {Open: true},
	} {
		extra := 0
		insert := func() {
			if extra++; extra > 3 {
				return
			}
			for i, at := range []time.Time{e.now.Add(-3 * time.Minute), e.now.Add(time.Second), e.now.Add(-time.Hour)} {
				s := e.session("room", fmt.Sprintf("msg_%s_%d_%d", what, extra, i), 99)
				s.EnterTime = at
				e.upsertSessions(s)
			}
		}
		pages(e, "UserSessions, "+what, sessionIDs(e.sessions(f)), func(s mirror.UserSession) string { return s.ID }, insert,
			func(last *mirror.UserSession, limit int) ([]mirror.UserSession, error) {
				f := f
				f.Project, f.Limit = project, limit
				if last != nil {
					f.AfterTime, f.AfterID = last.BeginTime(), last.ID
				}
				return e.UserSessions(e.ctx(), f)
			})
	}
}

func sessionsOddIDs(e *env) {
	for i, id := range oddIDs() {
		s := e.session(id, fmt.Sprintf("msg_%d", i), 1)
		s.UserID = string(id)
		e.upsertSessions(s)
		e.foldEvent(userSessionsOf(id), e.now)
	}
	for i, id := range oddIDs() {
		want := []string{fmt.Sprintf("msg_%d", i)}
		e.want(fmt.Sprintf("UserSessions of room %q", id), sessionIDs(e.sessions(store.SessionFilter{Room: id})), want)
		e.want(fmt.Sprintf("UserSessions of user %q", id), sessionIDs(e.sessions(store.SessionFilter{User: string(id)})),
			want)
		got, err := e.SessionsOf(e.ctx(), userSessionsOf(id), []int64{1}, 10)
		e.must("SessionsOf", err)
		e.want(fmt.Sprintf("SessionsOf room %q", id), sessionIDs(got), want)
		if n := len(e.unfolded(userSessionsOf(id), 10)); n != 1 {
			e.Fatalf("%d events wait in room %q; want 1", n, id)
		}
	}
}

func activeUsers(e *env) {
	r := activeUsersOf("room")
	_, err := e.ActiveUsers(e.ctx(), r, true)
	e.wantErr("ActiveUsers without a room", err, store.ErrNotFound)
	e.mirrorRoom("room", e.roomContent(`{}`))
	if users := e.activeUsers("room", false); len(users.Users) != 0 || users.Room != "room" || users.Project != project ||
		!users.Freshness.FetchTime.IsZero() {
		e.Fatalf("ActiveUsers never fetched = %+v; want nobody, and no time", users)
	}
	e.raise(r)
	if users := e.activeUsers("room", false); !users.Freshness.Stale {
		e.Fatalf("ActiveUsers with an event = %+v; want them stale", users)
	}
	lease := e.claim(r)
	content := e.usersContent(
		mirror.ActiveUser{ConnectionID: 9_007_199_254_740_993, UserID: "ann", Info: []byte(`{"name":"Ann"}`)},
		mirror.ActiveUser{ConnectionID: 1},
		mirror.ActiveUser{ConnectionID: 20, UserID: "ann", Info: []byte(`null`)},
	)
	content.FetchTime = e.now.Add(-time.Second)
	applied := e.applyUsers(lease, content)
	e.want("ApplyActiveUsers", applied, mirror.Applied{Changed: true})
	want := mirror.ActiveUsers{
		Project: project, Room: "room", Users: []mirror.ActiveUser{content.Users[1], content.Users[2], content.Users[0]},
		Freshness: mirror.Freshness{
			FetchTime: content.FetchTime, SourceUpdateTime: lease.SourceTime,
			Revision: e.lastChange(r.Bucket()),
		},
	}
	e.want("ActiveUsers", e.activeUsers("room", false), want)
	entries := e.changes(r.Bucket())
	e.want("last change", entries[len(entries)-1], entry(want.Freshness.Revision, r, mirror.ChangeUpserted, 1, e.now))

	e.want("ApplyActiveUsers of others", e.mirrorUsers("room", content.Users[2],
		mirror.ActiveUser{ConnectionID: 1, UserID: "bob"}), mirror.Applied{Changed: true})
	e.want("ActiveUsers", e.activeUsers("room", false).Users,
		[]mirror.ActiveUser{{ConnectionID: 1, UserID: "bob"}, content.Users[2]})
	e.want("ApplyActiveUsers of nobody", e.mirrorUsers("room"), mirror.Applied{Changed: true})
	e.want("ActiveUsers", e.activeUsers("room", false).Users, []mirror.ActiveUser{})

	e.mirrorUsers("room", content.Users...)
	last := e.activeUsers("room", false)
	e.deleteRoom("room")
	_, err = e.ActiveUsers(e.ctx(), r, false)
	e.wantErr("ActiveUsers of a deleted room", err, store.ErrNotFound)
	last.Freshness.DeleteTime = e.now
	e.want("ActiveUsers of a deleted room", e.activeUsers("room", true), last)

	e.mirrorRoom("Room", e.roomContent(`{}`))
	e.want("ActiveUsers of another room", e.activeUsers("Room", false).Users, []mirror.ActiveUser{})
	e.raise(activeUsersOf("Room"))
	again, err := e.ApplyActiveUsers(e.ctx(), e.claim(activeUsersOf("Room")), e.usersContent(), e.now, e.now, settle)
	e.must("ApplyActiveUsers", err)
	e.want("ApplyActiveUsers with a settle fetch to come", again, mirror.Applied{Due: e.now.Add(settle)})
}

func activeUsersUnchanged(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	users := []mirror.ActiveUser{{ConnectionID: 2, UserID: "ann", Info: []byte(`{}`)}, {ConnectionID: 1}}
	e.mirrorUsers("room", users...)
	want := e.activeUsers("room", false)
	e.pass(time.Hour)
	e.want("ApplyActiveUsers of the same", e.mirrorUsers("room", users[1], users[0]), mirror.Applied{})
	want.Freshness.FetchTime, want.Freshness.SourceUpdateTime = e.now, e.now.Add(-time.Millisecond)
	e.want("ActiveUsers", e.activeUsers("room", false), want)
	for what, changed := range map[string][]mirror.ActiveUser{
		"another connection": {{ConnectionID: 3, UserID: "ann", Info: []byte(`{}`)}, {ConnectionID: 1}},
		"another user":       {{ConnectionID: 2, UserID: "Ann", Info: []byte(`{}`)}, {ConnectionID: 1}},
		"other info":         {{ConnectionID: 2, UserID: "ann", Info: []byte(`{ }`)}, {ConnectionID: 1}},
		"no info":            {{ConnectionID: 2, UserID: "ann"}, {ConnectionID: 1}},
		"one less":           {{ConnectionID: 2, UserID: "ann", Info: []byte(`{}`)}},
	} {
		e.want("ApplyActiveUsers of "+what, e.mirrorUsers("room", changed...), mirror.Applied{Changed: true})
		e.want("ApplyActiveUsers of the first", e.mirrorUsers("room", users...), mirror.Applied{Changed: true})
	}
}

// Empty info is none.
func activeUsersNoInfo(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	for _, info := range [][]byte{nil, {}} {
		first := e.lastChange(roomOf("room").Bucket())
		e.mirrorUsers("room")
		user := mirror.ActiveUser{ConnectionID: 1, UserID: "ann", Info: info}
		e.want("ApplyActiveUsers", e.mirrorUsers("room", user), mirror.Applied{Changed: true})
		for _, again := range [][]byte{{}, nil} {
			user.Info = again
			e.want(fmt.Sprintf("ApplyActiveUsers of info %#v after %#v", again, info), e.mirrorUsers("room", user),
				mirror.Applied{})
		}
		if users := e.activeUsers("room", false).Users; len(users) != 1 || users[0].Info != nil {
			e.Fatalf("ActiveUsers = %#v; want one without info", users)
		}
		if n := e.lastChange(roomOf("room").Bucket()) - first; n > 2 {
			e.Fatalf("changes = %d; want one of nobody at most, and one of the user", n)
		}
	}
}

// Users without a connection of their own share a number.
func activeUsersShared(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	session := func(id, user string) mirror.UserSession {
		s := e.session("room", id, mirror.NoConnection)
		s.UserID, s.EnterTime = user, e.now.Add(-time.Hour)
		return s
	}
	a, b, c := session("msg_a", "agent-a"), session("msg_b", "agent-b"), session("msg_c", "agent-c")
	e.upsertSessions(a, b, c)
	agent := func(user string) mirror.ActiveUser {
		return mirror.ActiveUser{ConnectionID: mirror.NoConnection, UserID: user}
	}
	anybody := mirror.ActiveUser{ConnectionID: mirror.NoConnection}
	users := []mirror.ActiveUser{agent("agent-c"), agent("agent-a"), anybody, agent("agent-a")}
	e.want("ApplyActiveUsers", e.mirrorUsers("room", users...), mirror.Applied{Changed: true})
	e.want("ActiveUsers", e.activeUsers("room", false).Users,
		[]mirror.ActiveUser{anybody, agent("agent-a"), agent("agent-c")})
	e.want("ApplyActiveUsers in another order", e.mirrorUsers("room", anybody, agent("agent-a"), agent("agent-c")),
		mirror.Applied{})
	b.LeaveTime, b.End = e.now, mirror.SessionAbsent
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{a, b, c})
	e.want("ApplyActiveUsers of one less", e.mirrorUsers("room", anybody, agent("agent-c")), mirror.Applied{Changed: true})
	e.want("ActiveUsers", e.activeUsers("room", false).Users, []mirror.ActiveUser{anybody, agent("agent-c")})
}

func activeUsersNobody(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorUsers("room", mirror.ActiveUser{ConnectionID: 1, UserID: "ann"})
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Second)
	e.mirrorRoom("room", content)
	before := e.changes(roomOf("room").Bucket())
	e.want("ApplyActiveUsers of nobody", e.mirrorUsers("room"), mirror.Applied{})
	e.want("changes", e.changes(roomOf("room").Bucket()), before)
	e.want("ActiveUsers", e.activeUsers("room", false).Users, []mirror.ActiveUser{})
}

func activeUsersEpoch(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	ann := mirror.ActiveUser{ConnectionID: 1, UserID: "ann"}
	e.mirrorUsers("room", ann)
	e.raise(activeUsersOf("room"))
	lease := e.claim(activeUsersOf("room"))
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Second)
	e.mirrorRoom("room", content)
	e.want("ActiveUsers of an earlier room", e.activeUsers("room", false).Users, []mirror.ActiveUser{})
	before := e.changes(roomOf("room").Bucket())
	_, err := e.ApplyActiveUsers(e.ctx(), lease, e.usersContent(ann), e.now, e.now, 0)
	e.wantErr("ApplyActiveUsers of an earlier room", err, store.ErrEpochChanged)
	e.want("changes", e.changes(roomOf("room").Bucket()), before)
	e.fail(lease, store.Failure{Now: e.now})
	e.want("ApplyActiveUsers", e.applyUsers(e.claim(activeUsersOf("room")), e.usersContent(ann)),
		mirror.Applied{Changed: true})
	e.want("ActiveUsers", e.activeUsers("room", false).Users, []mirror.ActiveUser{ann})
	e.raise(activeUsersOf("room"))
	old := e.claim(activeUsersOf("room"))
	e.now = old.Until
	e.claim(activeUsersOf("room"))
	_, err = e.ApplyActiveUsers(e.ctx(), old, e.usersContent(), e.now, e.now, 0)
	e.wantErr("ApplyActiveUsers under an old token", err, store.ErrLeaseLost)
	e.want("ActiveUsers", e.activeUsers("room", false).Users, []mirror.ActiveUser{ann})
}

func activeUsersClean(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorUsers("room", mirror.ActiveUser{ConnectionID: 1}, mirror.ActiveUser{ConnectionID: 2},
		mirror.ActiveUser{ConnectionID: 3})
	clean := func(limit, want int) {
		e.Helper()
		n, err := e.CleanRoom(e.ctx(), roomOf("room"), limit)
		e.must("CleanRoom", err)
		if n != want {
			e.Fatalf("CleanRoom at most %d = %d; want %d", limit, n, want)
		}
	}
	clean(10, 0)
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Second)
	e.mirrorRoom("room", content)
	clean(2, 2)
	e.mirrorUsers("room", mirror.ActiveUser{ConnectionID: 1})
	for range 2 {
		if n, err := e.CleanRoom(e.ctx(), roomOf("room"), 10); err != nil || n > 1 {
			e.Fatalf("CleanRoom = %d, %v; want what is left of the earlier room", n, err)
		}
	}
	clean(10, 0)
	e.want("ActiveUsers", e.activeUsers("room", false).Users, []mirror.ActiveUser{{ConnectionID: 1}})
}

func absentSessions(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	at := func(id string, room mirror.RoomID, connection int64, enter time.Time) mirror.UserSession {
		s := e.session(room, id, connection)
		s.EnterTime = enter
		return s
	}
	limit := e.now.Add(-time.Minute)
	before := limit.Add(-time.Microsecond)
	here := at("msg_here", "room", 1, before)
	gone := at("msg_gone", "room", 2, before)
	again := at("msg_again", "room", 2, before.Add(-time.Hour))
	young := at("msg_young", "room", 3, limit)
	left := at("msg_left", "room", 4, before)
	left.LeaveTime, left.LeaveEventID, left.End = e.now, "msg_bye", mirror.SessionLeft
	elsewhere := at("msg_elsewhere", "Room", 2, before)
	was := at("msg_was", "room", 7, before) // somebody else has the connection now
	all := []mirror.UserSession{here, gone, again, young, left, elsewhere, was}
	e.upsertSessions(all...)
	e.raise(activeUsersOf("room"))
	lease := e.claim(activeUsersOf("room"))
	content := e.usersContent(mirror.ActiveUser{ConnectionID: 1, UserID: "ann"},
		mirror.ActiveUser{ConnectionID: 7, UserID: "bob"})
	content.FetchTime = e.now.Add(-time.Second)

	stranger := lease
	stranger.Token = newToken()
	_, err := e.ApplyActiveUsers(e.ctx(), stranger, content, limit, e.now, 0)
	e.wantErr("ApplyActiveUsers under a strange token", err, store.ErrLeaseLost)
	if open := e.sessions(store.SessionFilter{Open: true}); len(open) != 6 {
		e.Fatalf("open sessions = %q; want all six", sessionIDs(open))
	}

	first := e.lastChange(lease.Resource.Bucket())
	applied, err := e.ApplyActiveUsers(e.ctx(), lease, content, limit, e.now, 0)
	e.must("ApplyActiveUsers", err)
	e.want("ApplyActiveUsers", e.caughtUp(lease, applied), mirror.Applied{Changed: true})
	for _, s := range []*mirror.UserSession{&gone, &again, &was} {
		s.LeaveTime, s.End = content.FetchTime, mirror.SessionAbsent
	}
	sorted := func(sessions ...mirror.UserSession) []mirror.UserSession {
		slices.SortFunc(sessions, func(a, b mirror.UserSession) int {
			if c := b.BeginTime().Compare(a.BeginTime()); c != 0 {
				return c
			}
			return strings.Compare(a.ID, b.ID)
		})
		return sessions
	}
	e.want("UserSessions", e.sessions(store.SessionFilter{}), sorted(here, gone, again, young, left, elsewhere, was))
	// Who follows the feed learns of the sessions as well as of the users.
	var kinds []mirror.Kind
	for _, c := range e.changes(lease.Resource.Bucket())[first:] {
		kinds = append(kinds, c.Resource.Kind)
	}
	slices.Sort(kinds)
	e.want("kinds of the changes", kinds, []mirror.Kind{mirror.KindActiveUsers, mirror.KindUserSessions})

	// Nothing is ended twice, and who is there has no end.
	e.pass(time.Hour)
	first = e.lastChange(lease.Resource.Bucket())
	e.want("ApplyActiveUsers of the same", e.mirrorUsers("room", content.Users...), mirror.Applied{Changed: true})
	young.LeaveTime, young.End = e.now, mirror.SessionAbsent
	e.want("UserSessions", e.sessions(store.SessionFilter{}), sorted(here, gone, again, young, left, elsewhere, was))
	entries := e.changes(lease.Resource.Bucket())[first:]
	e.want("changes", entries, []mirror.Change{entry(first+1, userSessionsOf("room"), mirror.ChangeUpserted, 0, e.now)})
	first = e.lastChange(lease.Resource.Bucket())
	e.want("ApplyActiveUsers of the same", e.mirrorUsers("room", content.Users...), mirror.Applied{})
	if n := e.lastChange(lease.Resource.Bucket()); n != first {
		e.Fatalf("last change = %d; want %d still, for nothing changed", n, first)
	}
}

// A response that lists nobody may be a fault of the moment, and what has ended stays so.
func absentNobody(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	users := []mirror.ActiveUser{{ConnectionID: 1, UserID: "ann"}, {ConnectionID: 2, UserID: "ann"}}
	e.mirrorUsers("room", users...)
	first, second := e.session("room", "msg_1", 1), e.session("room", "msg_2", 2)
	first.EnterTime, second.EnterTime = e.now.Add(-time.Hour), e.now.Add(-time.Hour)
	e.upsertSessions(first, second)
	r := activeUsersOf("room")
	nobody := func(background bool) mirror.Applied {
		e.Helper()
		e.request(mirror.Request{Resource: r, Background: background})
		return e.applyUsers(e.claim(r), e.usersContent())
	}

	again := e.now.Add(mirror.ActiveUsersInterval)
	e.want("ApplyActiveUsers of nobody", nobody(true), mirror.Applied{Changed: true, Due: again})
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{first, second})
	e.want("ActiveUsers", e.activeUsers("room", false).Users, []mirror.ActiveUser{})
	e.now = again
	lease := e.claim(r)
	if !lease.Background {
		e.Fatalf("Claim = %+v; want it as urgent as it was", lease)
	}
	e.want("ApplyActiveUsers of the users", e.applyUsers(lease, e.usersContent(users...)), mirror.Applied{Changed: true})
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{first, second})

	again = e.now.Add(mirror.ActiveUsersInterval)
	e.want("ApplyActiveUsers of nobody", nobody(false), mirror.Applied{Changed: true, Due: again})
	e.now = again
	e.want("ApplyActiveUsers of nobody again", e.applyUsers(e.claim(r), e.usersContent()), mirror.Applied{Changed: true})
	for _, s := range []*mirror.UserSession{&first, &second} {
		s.LeaveTime, s.End = e.now, mirror.SessionAbsent
	}
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{first, second})

	// The same where no fetch was before.
	e.mirrorRoom("new", e.roomContent(`{}`))
	s := e.session("new", "msg_3", 1)
	s.EnterTime = e.now.Add(-time.Hour)
	e.upsertSessions(s)
	e.want("ApplyActiveUsers of nobody", e.mirrorUsers("new"), mirror.Applied{Due: e.now.Add(mirror.ActiveUsersInterval)})
	e.want("UserSessions", e.sessions(store.SessionFilter{Room: "new"}), []mirror.UserSession{s})
	// Where nobody's session would end, nothing is asked for again.
	e.mirrorRoom("quiet", e.roomContent(`{}`))
	e.mirrorUsers("quiet", users...)
	e.want("ApplyActiveUsers of nobody", e.mirrorUsers("quiet"), mirror.Applied{Changed: true})
}

func sessionsRoomDeleted(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	open := e.session("room", "msg_open", 1)
	left := e.session("room", "msg_left", 2)
	left.LeaveTime, left.LeaveEventID, left.End = e.now.Add(-time.Second), "msg_bye", mirror.SessionLeft
	absent := e.session("room", "msg_z", 3)
	absent.LeaveTime, absent.End = e.now.Add(-time.Second), mirror.SessionAbsent
	elsewhere := e.session("room ", "msg_elsewhere", 1)
	e.upsertSessions(open, left, absent, elsewhere)
	e.pass(time.Second)
	e.deleteRoom("room")
	open.LeaveTime, open.End = e.now, mirror.SessionRoomDeleted
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{elsewhere, left, open, absent})
	e.want("UserSessions of the deleted room", e.sessions(store.SessionFilter{Room: "room"}),
		[]mirror.UserSession{left, open, absent})

	// An event that was folded too late for that is of a session that has ended too.
	gone := e.now
	e.pass(time.Second)
	late := e.session("room", "msg_zz", 4)
	late.EnterTime = open.EnterTime
	e.upsertSessions(late)
	late.LeaveTime, late.End = gone, mirror.SessionRoomDeleted
	e.want("UserSessions of the deleted room", e.sessions(store.SessionFilter{Room: "room"}),
		[]mirror.UserSession{left, open, absent, late})

	// They stay when the room comes back, and the real end replaces the inferred one.
	e.mirrorRoom("room", e.roomContent(`{}`))
	if n, err := e.CleanRoom(e.ctx(), roomOf("room"), 100); err != nil || n != 0 {
		e.Fatalf("CleanRoom = %d, %v; want nothing, for sessions are history", n, err)
	}
	open.LeaveTime, open.LeaveEventID, open.End = e.now.Add(-time.Hour), "msg_real", mirror.SessionLeft
	e.upsertSessions(open)
	e.want("UserSessions of the room", e.sessions(store.SessionFilter{Room: "room"}),
		[]mirror.UserSession{left, open, absent, late})
}

func sessionsRoomMissing(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	open := e.session("room", "msg_open", 1)
	e.upsertSessions(open)
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{open})
}

func sessionsInferred(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	absent, deleted := e.session("room", "msg_absent", 1), e.session("room", "msg_deleted", 2)
	absent.EnterTime = e.now.Add(-time.Hour)
	deleted.EnterTime = e.now.Add(-time.Second)
	e.upsertSessions(absent, deleted)
	e.mirrorUsers("room", mirror.ActiveUser{ConnectionID: 9})
	e.pass(time.Second)
	e.deleteRoom("room")
	// The fold has read both while they were open, and learned more about them.
	absent.UserID, deleted.UserID = "bob", "bob"
	e.upsertSessions(absent, deleted)
	absent.LeaveTime, absent.End = e.now.Add(-time.Second), mirror.SessionAbsent
	deleted.LeaveTime, deleted.End = e.now, mirror.SessionRoomDeleted
	e.want("UserSessions", e.sessions(store.SessionFilter{}), []mirror.UserSession{deleted, absent})
}

func lastingKinds(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	lasting := []mirror.Resource{userSessionsOf("room"), notificationOf("room", "in_1")}
	e.raise(append(lasting, activeUsersOf("room"))...)
	var before []mirror.Task
	for _, r := range lasting {
		before = append(before, e.task(r))
	}
	same := func(what string) {
		e.Helper()
		for i, r := range lasting {
			e.want("task after "+what, e.task(r), before[i])
		}
	}
	e.deleteRoom("room")
	same("the room's deletion")
	e.wantState(activeUsersOf("room"), mirror.TaskDone)
	applied := e.mirrorRoom("room", e.roomContent(`{}`))
	for _, r := range applied.AlsoDue {
		if r.Kind.Traits().OutlivesRoom {
			e.Fatalf("ApplyRoom woke %+v, which does not depend on it", r)
		}
	}
	if !slices.Contains(applied.AlsoDue, activeUsersOf("room")) {
		e.Fatalf("ApplyRoom woke %+v; want the active users, which are known, among them", applied.AlsoDue)
	}
	same("the room's birth")
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	same("a 404")
	e.mirrorRoom("room", e.roomContent(`{}`))
	same("the room's return")
	e.mirrorRoom("new", e.roomContent(`{}`))
	for _, r := range []mirror.Resource{userSessionsOf("new"), activeUsersOf("new")} {
		_, err := e.Task(e.ctx(), r, e.now)
		e.wantErr("Task of what nobody asked for", err, store.ErrNotFound)
	}
}

func lastingNeedsNoRoom(e *env) {
	e.applySessions(userSessionsOf("unheard"),
		mirror.SessionFold{Upserts: []mirror.UserSession{e.session("unheard", "msg_1", 1)}})
	e.mirrorRoom("gone", e.roomContent(`{}`))
	e.raise(userSessionsOf("gone"))
	lease := e.claim(userSessionsOf("gone"))
	e.deleteRoom("gone")
	applied, err := e.ApplySessions(e.ctx(), lease,
		mirror.SessionFold{Upserts: []mirror.UserSession{e.session("gone", "msg_2", 1)}}, e.now)
	e.must("ApplySessions in a deleted room", err)
	e.want("ApplySessions in a deleted room", e.caughtUp(lease, applied), mirror.Applied{Changed: true})
	e.want("UserSessions", sessionIDs(e.sessions(store.SessionFilter{})), []string{"msg_1", "msg_2"})
	e.wantNoRoom("unheard")
	// The deletion, found again, ends what it did not know of.
	e.raiseDeleted("gone")
	e.applyMissing(e.claim(roomOf("gone")))
	if got := e.sessions(store.SessionFilter{Room: "gone"}); len(got) != 1 || got[0].End != mirror.SessionRoomDeleted {
		e.Fatalf("UserSessions of the deleted room = %+v; want it ended", got)
	}
}

func userInfo(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	var users []mirror.ActiveUser
	var sessions []mirror.UserSession
	for what, source := range sources() {
		n := int64(len(users))
		info := []byte(source)
		users = append(users, mirror.ActiveUser{ConnectionID: n, UserID: what, Info: info})
		s := e.session("room", fmt.Sprintf("msg_%02d", n), n)
		s.UserID, s.Info = what, info
		sessions = append(sessions, s)
	}
	e.want("ApplyActiveUsers", e.mirrorUsers("room", users...), mirror.Applied{Changed: true})
	e.want("ActiveUsers", e.activeUsers("room", false).Users, users)
	e.want("ApplyActiveUsers of the same", e.mirrorUsers("room", users...), mirror.Applied{})
	e.upsertSessions(sessions...)
	e.want("UserSessions", e.sessions(store.SessionFilter{}), sessions)
}

// muchInfo is more than a database takes in one statement.
func muchInfo(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	var users []mirror.ActiveUser
	var sessions []mirror.UserSession
	for i := range 300 {
		info := fmt.Appendf(nil, `{"n":%d,"about":"%s"}`, i, strings.Repeat(`a\"`, 20_000))
		users = append(users, mirror.ActiveUser{ConnectionID: int64(i), UserID: "ann", Info: info})
		s := e.session("room", fmt.Sprintf("msg_%03d", i), int64(i))
		s.Info = info
		sessions = append(sessions, s)
	}
	e.mirrorUsers("room", users...)
	if got := e.activeUsers("room", false).Users; len(got) != 300 || string(got[299].Info) != string(users[299].Info) {
		e.Fatalf("ActiveUsers = %d users; want 300, as they were", len(got))
	}
	e.upsertSessions(sessions...)
	if got := e.sessions(store.SessionFilter{}); len(got) != 300 || string(got[299].Info) != string(users[299].Info) {
		e.Fatalf("UserSessions = %d; want 300, as they were", len(got))
	}
}
