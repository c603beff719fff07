package storetest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// historyMutants are defects in presence, notifications, sweeps and the background.
func historyMutants() []mutant {
	background := func(want func(was bool) bool) func(b base) store.Store {
		return func(b base) store.Store {
			return &altersRequests{b, func(r *mirror.Request) { r.Background = want(r.Background) }}
		}
	}
	return []mutant{
		{
			"keeps rows that an item lost",
			[]string{"thread: changed one has its new rows only", "group: changed one has its new rows only"},
			func(b base) store.Store { return &keepsRows{b} },
		},
		{
			"believes the 404 of an item",
			[]string{"thread: 404 alone deletes nothing", "group: 404 alone deletes nothing"},
			func(b base) store.Store { return &credulous{b} },
		},
		{
			"writes a document whenever its bytes differ",
			[]string{"document that is encoded differently is unchanged"},
			func(b base) store.Store { return &writesEncodings{b} },
		},
		{"refuses long data", []string{"data of 5 MiB can be queried"}, func(b base) store.Store {
			return &refusesLongData{b}
		}},
		{
			"believes any list",
			[]string{"list that lacks too much is not believed"},
			func(b base) store.Store { return &credulous{b} },
		},
		{
			"trusts an invalidated item",
			[]string{"thread: one that is not trusted is written again", "group: one that is not trusted is written again"},
			func(b base) store.Store { return &trusting{b} },
		},
		{"lets nothing wait", []string{"event waits once at what it is folded into"}, func(b base) store.Store {
			return &altersHints{b, func(h *mirror.Invalidation) { h.Fold = false }}
		}},
		{
			"lets duplicates wait",
			[]string{"event waits once at what it is folded into"},
			func(b base) store.Store { return &holdsDuplicates{b} },
		},
		{
			"folds in the order of arrival",
			[]string{"events wait in the order in which they happened"},
			func(b base) store.Store { return &arrivalOrder{b} },
		},
		{
			"takes sessions away last",
			[]string{"session taken away and stored again is there"},
			func(b base) store.Store { return &deletesLast{b} },
		},
		{
			"tells of nobody though nobody was there",
			[]string{"nobody after those of an earlier room is no change"},
			func(b base) store.Store { return &tellsOfNobody{b} },
		},
		{
			"tells empty info from none",
			[]string{"active users without info"},
			func(b base) store.Store { return &emptyInfo{b} },
		},
		{
			"changes rows of a notification in silence",
			[]string{"changed row of a notification is a change"},
			func(b base) store.Store { return &silentRows{b} },
		},
		{
			"folds under any lease",
			[]string{"only the lease folds", "only the lease writes notifications"},
			func(b base) store.Store { return &foldsAnyway{ignoresToken{b}} },
		},
		{"rests while events wait", []string{
			"due again at once while events wait",
			"notification is due again while events wait",
		}, func(b base) store.Store { return &restsEarly{b} }},
		{"takes all sessions for open", []string{"sessions by filter"}, func(b base) store.Store { return &everOpen{b} }},
		{
			"reads the oldest sessions",
			[]string{"sessions of connections, the latest first"},
			func(b base) store.Store { return &oldestSessions{b} },
		},
		{
			"ends sessions that have just begun",
			[]string{"absent users end their sessions"},
			func(b base) store.Store { return &movesAbsent{b, time.Hour} },
		},
		{
			"ends no session",
			[]string{"absent users end their sessions"},
			func(b base) store.Store { return &movesAbsent{b, -time.Hour * 24 * 365} },
		},
		{
			"ends sessions when it is told once that nobody is there",
			[]string{"nobody ends sessions when it is said twice"},
			func(b base) store.Store { return &endsAtOnce{b} },
		},
		{
			"tells users apart by their connection alone",
			[]string{"users who share a connection id are told apart"},
			func(b base) store.Store { return &oneOfEachConnection{b} },
		},
		{
			"rewrites active users",
			[]string{"unchanged active users move their times alone"},
			func(b base) store.Store { return &rewritesUsers{b} },
		},
		{"deletes the sessions of a deleted room", []string{"deleted room ends its sessions"}, func(b base) store.Store {
			return &afterMissing{b, "delete from mirror_user_session where room_id = ?", true}
		}},
		{"leaves the sessions of a deleted room open", []string{"deleted room ends its sessions"}, func(b base) store.Store {
			return &afterMissing{
				b,
				"update mirror_user_session set leave_time = null, end_cause = '' " +
					"where end_cause = 'room_deleted' and room_id = ?", true,
			}
		}},
		{"ends sessions on a 404 alone", []string{"404 alone ends no session"}, func(b base) store.Store {
			return &afterMissing{
				b,
				"update mirror_user_session set leave_time = begin_time, end_cause = 'room_deleted' where end_cause = '' and " +
					"room_id = ?", false,
			}
		}},
		{
			"quiets what outlasts a room",
			[]string{"what outlasts a room is neither quieted nor raised with it"},
			func(b base) store.Store {
				return &afterMissing{b, "update mirror_resource_state set due_time = null where kind > 5 and room_id = ?", true}
			},
		},
		{
			"reopens sessions",
			[]string{"end that was inferred during a fold stays"},
			func(b base) store.Store { return &reopens{b} },
		},
		{
			"keeps the inbox of earlier rows",
			[]string{"inbox is that of all rows of a notification"},
			func(b base) store.Store { return &oneInbox{b} },
		},
		{"ignores the channel", []string{"notifications by filter"}, func(b base) store.Store { return &everyChannel{b} }},
		{
			"ignores the inbox notification",
			[]string{"notifications by filter"},
			func(b base) store.Store { return &everyInbox{b} },
		},
		{"plans every sweep anew", []string{"sweep under way goes on"}, func(b base) store.Store { return &plansAnew{b} }},
		{"never plans more", []string{"fuller sweep begins anew"}, func(b base) store.Store { return &plansLess{b} }},
		{
			"saves a sweep under any lease",
			[]string{"only the lease saves a sweep", "fuller sweep begins anew"},
			func(b base) store.Store { return &savesAnyway{ignoresToken{b}} },
		},
		{"folds the case of rooms by id", []string{"odd rooms by id"}, func(b base) store.Store { return &foldsByID{b} }},
		{
			"trusts all",
			[]string{"what is not trusted is written anew", "thread that is not trusted is written anew"},
			func(b base) store.Store { return &trusts{b} },
		},
		{"does not know of a background", []string{
			"background comes last", "background is counted", "request of 500",
			"list raises as urgently as it was wanted",
		}, background(func(bool) bool { return false })},
		{
			"asks for all in the background",
			[]string{"request in the background delays nothing"},
			background(func(bool) bool { return true }),
		},
		{
			"delays what is wanted at once",
			[]string{"request in the background delays nothing"},
			func(b base) store.Store { return &demotes{b} },
		},
		{
			"leaves in the background what an event tells of",
			[]string{"event lifts out of the background"},
			func(b base) store.Store { return &staysBehind{b} },
		},
		{"settles no request", []string{"request settles if it shall"}, func(b base) store.Store {
			return &altersRequests{b, func(r *mirror.Request) { r.Settle = false }}
		}},
		{"believes no list", []string{"unlisted counts as a delete event"}, func(b base) store.Store {
			return &altersRequests{b, func(r *mirror.Request) { r.Unlisted = false }}
		}},
	}
}

type holdsDuplicates struct{ base }

func (m *holdsDuplicates) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	answers, err := m.Store.Accept(ctx, batch)
	if err != nil {
		return nil, err
	}
	for i, a := range batch {
		for _, h := range a.Invalidations {
			if !h.Fold || answers[i].Fresh {
				continue
			}
			key := append(keyArgs(h.Resource), a.Event.ID)
			if _, err := m.d.sql.Exec(ctx, "delete from mirror_unfolded_event"+whereKey+" and event_id = ?",
				key...); err != nil {
				return nil, err
			}
			if _, err := m.d.sql.Exec(ctx, `insert into mirror_unfolded_event
				(bucket, project_id, room_id, kind, resource_id, event_id, type, payload, receive_time) values (?, ?, ?, ?, ?, ?, '', '', ?)`,
				append(key, a.Event.ReceiveTime)...); err != nil {
				return nil, err
			}
		}
	}
	return answers, nil
}

type arrivalOrder struct{ base }

func (m *arrivalOrder) Unfolded(ctx context.Context, r mirror.Resource, limit int) ([]mirror.Event, error) {
	events, err := m.Store.Unfolded(ctx, r, limit)
	slices.SortFunc(events, func(a, b mirror.Event) int { return strings.Compare(a.ID, b.ID) })
	return events, err
}

type foldsAnyway struct{ ignoresToken }

func (m *foldsAnyway) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (mirror.Applied, error) {
	return m.Store.ApplySessions(ctx, m.held(ctx, lease), fold, now)
}

func (m *foldsAnyway) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	return m.Store.ApplyNotification(ctx, m.held(ctx, lease), fold, now, settle)
}

type restsEarly struct{ base }

func (m *restsEarly) rest(ctx context.Context, r mirror.Resource, applied mirror.Applied, err error) (mirror.Applied,
	error,
) {
	if err == nil {
		applied.Due = time.Time{}
		err = m.state(ctx, r, "due_time = null")
	}
	return applied, err
}

func (m *restsEarly) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplySessions(ctx, lease, fold, now)
	return m.rest(ctx, lease.Resource, applied, err)
}

func (m *restsEarly) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyNotification(ctx, lease, fold, now, settle)
	return m.rest(ctx, lease.Resource, applied, err)
}

type everOpen struct{ base }

func (m *everOpen) UserSessions(ctx context.Context, f store.SessionFilter) ([]mirror.UserSession, error) {
	f.Open = false
	return m.Store.UserSessions(ctx, f)
}

type oldestSessions struct{ base }

func (m *oldestSessions) SessionsOf(ctx context.Context, room mirror.Resource, connections []int64,
	limit int,
) ([]mirror.UserSession, error) {
	sessions, err := m.Store.SessionsOf(ctx, room, connections, 1000)
	slices.Reverse(sessions)
	seen := make(map[int64]int)
	return slices.DeleteFunc(sessions, func(s mirror.UserSession) bool {
		seen[s.ConnectionID]++
		return seen[s.ConnectionID] > limit
	}), err
}

type movesAbsent struct {
	base
	by time.Duration
}

func (m *movesAbsent) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	return m.Store.ApplyActiveUsers(ctx, lease, users, absentBefore.Add(m.by), now, settle)
}

type endsAtOnce struct{ base }

func (m *endsAtOnce) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyActiveUsers(ctx, lease, users, absentBefore, now, settle)
	if err == nil && len(users.Users) == 0 {
		_, err = m.d.sql.Exec(ctx, "update mirror_user_session set leave_time = begin_time, end_cause = 'absent' "+
			"where end_cause = '' and room_id = ?", []byte(lease.Resource.Room))
	}
	return applied, err
}

type oneOfEachConnection struct{ base }

func (m *oneOfEachConnection) ApplyActiveUsers(ctx context.Context, lease mirror.Lease,
	users mirror.ActiveUsersContent, absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	users.Users = slices.CompactFunc(slices.Clone(users.Users),
		func(a, b mirror.ActiveUser) bool { return a.ConnectionID == b.ConnectionID })
	return m.Store.ApplyActiveUsers(ctx, lease, users, absentBefore, now, settle)
}

type writesEncodings struct{ base }

func (m *writesEncodings) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	doc.StateSHA256 = [32]byte{}
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type refusesLongData struct{ base }

func (m *refusesLongData) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	if len(doc.Data) > 4<<20 {
		doc.Data, doc.DataProblem = nil, "refused"
	}
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type rewritesUsers struct{ base }

func (m *rewritesUsers) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	if _, err := m.d.sql.Exec(ctx, "update mirror_active_user set epoch = 0"); err != nil {
		return mirror.Applied{}, err
	}
	return m.Store.ApplyActiveUsers(ctx, lease, users, absentBefore, now, settle)
}

// afterMissing runs a statement about a room after each 404 of it, or after those
// only that made a tombstone.
type afterMissing struct {
	base
	text    string
	deleted bool
}

func (m *afterMissing) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyMissing(ctx, lease, f, settle)
	if err != nil || m.deleted && !applied.Changed {
		return applied, err
	}
	_, err = m.d.sql.Exec(ctx, m.text, []byte(lease.Resource.Room))
	return applied, err
}

type reopens struct{ base }

func (m *reopens) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplySessions(ctx, lease, fold, now)
	for _, s := range fold.Upserts {
		if err == nil && s.End == mirror.SessionOpen {
			_, err = m.d.sql.Exec(ctx, "update mirror_user_session set leave_time = null, end_cause = '' where session_id = ?",
				[]byte(s.ID))
		}
	}
	return applied, err
}

type oneInbox struct{ base }

func (m *oneInbox) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyNotification(ctx, lease, fold, now, settle)
	if err == nil && len(fold.Rows) == 1 {
		_, err = m.d.sql.Exec(ctx,
			"update mirror_notification set read_time = null where notification_id = ? and event_id <> ?",
			[]byte(lease.Resource.ID), []byte(fold.Rows[0].EventID))
	}
	return applied, err
}

type everyChannel struct{ base }

func (m *everyChannel) Notifications(ctx context.Context, f store.NotificationFilter) ([]mirror.Notification, error) {
	f.Channel = ""
	return m.Store.Notifications(ctx, f)
}

type everyInbox struct{ base }

func (m *everyInbox) Notifications(ctx context.Context, f store.NotificationFilter) ([]mirror.Notification, error) {
	f.ID = ""
	return m.Store.Notifications(ctx, f)
}

type plansAnew struct{ base }

func (m *plansAnew) PlanSweep(ctx context.Context, project mirror.ProjectID, id string, full bool,
	now time.Time,
) (mirror.Sweep, error) {
	if _, err := m.d.sql.Exec(ctx, "update mirror_sweep set sweep_id = ''"); err != nil {
		return mirror.Sweep{}, err
	}
	return m.Store.PlanSweep(ctx, project, id, full, now)
}

type plansLess struct{ base }

func (m *plansLess) PlanSweep(ctx context.Context, project mirror.ProjectID, id string, _ bool,
	now time.Time,
) (mirror.Sweep, error) {
	return m.Store.PlanSweep(ctx, project, id, false, now)
}

type savesAnyway struct{ ignoresToken }

func (m *savesAnyway) SaveSweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) error {
	return m.Store.SaveSweep(ctx, m.held(ctx, lease), sweep)
}

type foldsByID struct{ base }

func (m *foldsByID) RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID,
	source bool,
) ([]mirror.Room, error) {
	ids = slices.Clone(ids)
	for i := range ids {
		ids[i] = mirror.RoomID(strings.ToLower(string(ids[i])))
	}
	return m.Store.RoomsByID(ctx, project, ids, source)
}

type trusts struct{ base }

func (m *trusts) Invalidate(context.Context, mirror.Resource) error { return nil }

type altersRequests struct {
	base
	alter func(r *mirror.Request)
}

func (m *altersRequests) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending,
	error,
) {
	requests = slices.Clone(requests)
	for i := range requests {
		m.alter(&requests[i])
	}
	return m.Store.Request(ctx, requests, now)
}

type demotes struct{ base }

func (m *demotes) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	pending, err := m.Store.Request(ctx, requests, now)
	for _, r := range requests {
		if err == nil && r.Background {
			err = m.state(ctx, r.Resource, "background = true")
		}
	}
	return pending, err
}

type staysBehind struct{ base }

func (m *staysBehind) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	var behind []mirror.Resource
	for _, a := range batch {
		for _, h := range a.Invalidations {
			list, err := m.Due(ctx, lookAt(h.Resource.Project, a.Event.ReceiveTime, 1000))
			if err != nil {
				return nil, err
			}
			if slices.Contains(resourcesOf(list.Background), h.Resource) {
				behind = append(behind, h.Resource)
			}
		}
	}
	answers, err := m.Store.Accept(ctx, batch)
	for _, r := range behind {
		if err == nil {
			err = m.state(ctx, r, "background = true")
		}
	}
	return answers, err
}

type deletesLast struct{ base }

func (m *deletesLast) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplySessions(ctx, lease, fold, now)
	for _, id := range fold.Deletes {
		if err == nil {
			_, err = m.d.sql.Exec(ctx, "delete from mirror_user_session where session_id = ?", []byte(id))
		}
	}
	return applied, err
}

type tellsOfNobody struct{ base }

func (m *tellsOfNobody) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyActiveUsers(ctx, lease, users, absentBefore, now, settle)
	applied.Changed = applied.Changed || len(users.Users) == 0
	return applied, err
}

type emptyInfo struct{ base }

func (m *emptyInfo) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	users.Users = slices.Clone(users.Users)
	for i, u := range users.Users {
		if u.Info != nil && len(u.Info) == 0 {
			users.Users[i].Info = []byte("null")
		}
	}
	return m.Store.ApplyActiveUsers(ctx, lease, users, absentBefore, now, settle)
}

type silentRows struct{ base }

func (m *silentRows) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	before, err := m.Notifications(ctx, store.NotificationFilter{Project: lease.Resource.Project, Limit: 1000})
	if err != nil {
		return mirror.Applied{}, err
	}
	applied, err := m.Store.ApplyNotification(ctx, lease, fold, now, settle)
	applied.Changed = applied.Changed && len(before) == 0
	return applied, err
}

// credulous takes the word of one answer for a deletion.
type credulous struct{ base }

func (m *credulous) ApplyItemMissing(ctx context.Context, lease mirror.Lease, now time.Time, settle time.Duration) (
	mirror.Applied, error,
) {
	applied, err := m.Store.ApplyItemMissing(ctx, lease, now, settle)
	kind := store.ItemKindOf(lease.Resource)
	_, deleted := m.d.sql.Exec(ctx, "update "+kind.Head.Name+" set delete_time = ? where "+kind.ID+" = ?", now,
		lease.Resource.ID)
	return applied, errors.Join(err, deleted)
}

func (m *credulous) KnownItems(ctx context.Context, list mirror.Resource) (map[string]store.Known, error) {
	known, err := m.Store.KnownItems(ctx, list)
	for i := range 1000 {
		known["made-up-"+strconv.Itoa(i)] = store.Known{Copy: store.ItemCopy{Epoch: 1}}
	}
	return known, err
}

type trusting struct{ base }

func (m *trusting) Invalidate(ctx context.Context, r mirror.Resource) error {
	if store.ItemKindOf(r) != nil {
		return nil
	}
	return m.Store.Invalidate(ctx, r)
}
