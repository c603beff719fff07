package sqllist

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const eventColumns = `e.project_id, e.event_id, e.type, e.room_id, e.user_id, e.thread_id, e.liveblocks_project_id, e.send_time,
    e.receive_time, e.source_time, e.outcome, e.secret_sha, case when ? then '' else e.payload end`

const selectEvents = "select " + eventColumns + "\nfrom mirror_event e\n"

func scanEvent(row Row, e *mirror.Event) error {
	return row.Scan(&e.Project, &e.ID, &e.Type, &e.Room, &e.User, &e.Thread, &e.LiveblocksProject, at(&e.SendTime),
		at(&e.ReceiveTime), at(&e.SourceTime), &e.Outcome, &e.Secret, &e.Payload)
}

// anyBucket is a list of all buckets: a look-up by key in each of them.
var anyBucket = func() string {
	list := "0"
	for n := 1; n < mirror.Buckets; n++ {
		list += ", " + strconv.Itoa(n)
	}
	return "(" + list + ")"
}()

// Event looks for the key in every bucket. An index by id alone would cost each delivery
// an entry.
func (r *Reader) Event(ctx context.Context, project mirror.ProjectID, id string) (mirror.Event, error) {
	s := r.query(selectEvents, false).
		where("e.bucket in "+anyBucket+" and e.project_id = ? and e.event_id = ?", project, id)
	s.page([]string{"e.receive_time", "e.bucket"}, 1)
	return one(ctx, r, "read event", s, scanEvent)
}

// EventOf reads by key.
func (r *Reader) EventOf(ctx context.Context, project mirror.ProjectID, room mirror.RoomID, id string) (mirror.Event,
	error,
) {
	s := r.query(selectEvents, false).where("e.bucket = ? and e.project_id = ? and e.event_id = ?",
		mirror.Bucket(project, string(room)), project, id)
	return one(ctx, r, "read event", s, scanEvent)
}

// Events uses the index that fits the filter best.
func (r *Reader) Events(ctx context.Context, f store.EventFilter) ([]mirror.Event, error) {
	// Most events were queued: these are read by time, the few others by their index.
	byOutcome := f.Outcome != "" && f.Outcome != mirror.OutcomeQueued && f.Rooms == nil && f.Room == "" &&
		f.Thread == "" && f.User == ""
	l := latestList{
		room:    f.Room,
		columns: eventColumns, args: []any{f.NoPayload}, table: "mirror_event", as: "e",
		at: "e.receive_time", id: "e.event_id",
		// A thread has fewer events than its room.
		first:  []idFilter{{"e.thread_id", f.Thread}, {"e.room_id", string(f.Room)}, {"e.user_id", f.User}},
		others: []idFilter{{"e.type", f.Type}},
		also: func(s *statement) {
			if byOutcome {
				s.where("e.outcome = ? and e.outcome <> '"+string(mirror.OutcomeQueued)+"'", string(f.Outcome))
				s.where("(? = '' or e.type = ?)", f.Type, f.Type)
				return
			}
			s.where(unindexed("? = '' or e.outcome = ?"), string(f.Outcome), string(f.Outcome))
		},
		from: f.From, to: f.To, afterTime: f.AfterTime, afterID: f.AfterID, limit: f.Limit,
	}
	if byOutcome {
		l.others = nil
	}
	return latestOfRanges(f.Rooms, f.Room, f.Limit, func(e *mirror.Event) (time.Time, string) {
		return e.ReceiveTime, e.ID
	}, func(prefix string) ([]mirror.Event, error) {
		return list(ctx, r, "list events", r.latest(l, f.Project, prefix), scanEvent)
	})
}

// LastEvents reads one entry of an index for each type. The times are columns, for the
// reason that [Reader.Oldest] has.
func (r *Reader) LastEvents(ctx context.Context, project mirror.ProjectID, types []string) (mirror.LastEvents, error) {
	latest := func(n int, only string, args ...any) part {
		return part{"select " + strconv.Itoa(n) + ", e.receive_time from mirror_event e\nwhere e.project_id = ?" + only +
			"\n    order by e.receive_time desc limit 1", append([]any{project}, args...)}
	}
	parts := []part{latest(0, "")}
	for i, name := range types {
		parts = append(parts, latest(i+1, " and e.type = ? and e.type <> ''", name))
	}
	last := mirror.LastEvents{ByType: make(map[string]time.Time)}
	err := r.together(ctx, "read the times of the latest events", parts, func(row Row) error {
		var n int
		var received time.Time
		err := row.Scan(&n, at(&received))
		switch {
		case err != nil || received.IsZero():
		case n == 0:
			last.Time = received
		default:
			last.ByType[types[n-1]] = received
		}
		return err
	})
	if err != nil {
		return mirror.LastEvents{}, err
	}
	return last, nil
}

// roomUser is a row of a room with its connections: one for each connection, or one
// without a user if there are none.
type roomUser struct {
	room      mirror.RoomID
	epoch     int64
	freshness mirror.Freshness
	user      *mirror.ActiveUser
}

// sameUsers reports whether two rows are of the same users of one room.
func (u *roomUser) sameUsers(as *roomUser) bool {
	return u.room == as.room && u.epoch == as.epoch && u.freshness.Revision == as.freshness.Revision &&
		u.freshness.DeleteTime.Equal(as.freshness.DeleteTime)
}

// usersTries is how often the users of a room are read that change while they are read.
const usersTries = 5

// errUsersChanged means that pieces are not of the same users of the room.
var errUsersChanged = errors.New("the active users of the room changed while they were read")

// ActiveUsers reads by key.
func (r *Reader) ActiveUsers(ctx context.Context, users mirror.Resource, deleted bool) (mirror.ActiveUsers, error) {
	return only(r.usersByKey(ctx, users.Project, []mirror.Resource{users}, deleted))
}

// ActiveUsersByRoom uses one statement for all rooms.
func (r *Reader) ActiveUsersByRoom(ctx context.Context, project mirror.ProjectID, rooms []mirror.Resource) (
	[]mirror.ActiveUsers, error,
) {
	return r.usersByKey(ctx, project, rooms, false)
}

// usersByKey reads rooms with their connections. If those of a room change before all pieces
// have been read, it begins again.
func (r *Reader) usersByKey(ctx context.Context, project mirror.ProjectID, rooms []mirror.Resource, deleted bool) (
	[]mirror.ActiveUsers, error,
) {
	rows, err := byDistinctKeys(rooms, func(keys []rowKey) ([]roomUser, error) {
		rows, err := []roomUser(nil), errUsersChanged
		for try := 0; errors.Is(err, errUsersChanged) && try < usersTries; try++ {
			rows, err = inPieces(r, func(last *roomUser) ([]roomUser, error) {
				rest := keys
				if last != nil {
					rest = keys[slices.IndexFunc(keys, func(k rowKey) bool { return k.Room == last.room }):]
				}
				piece, err := r.roomUsers(ctx, project, rest, deleted, last)
				// A room has a row in each piece, if only one without a user.
				if err == nil && last != nil && (len(piece) == 0 || !piece[0].sameUsers(last)) {
					err = errUsersChanged
				}
				return piece, err
			})
		}
		return rows, err
	})
	switch {
	case errors.Is(err, errUsersChanged):
		return nil, fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
			"the active users of the room change faster than they can be read")
	case err != nil:
		return nil, err
	}
	var out []mirror.ActiveUsers
	for _, row := range rows {
		if len(out) == 0 || out[len(out)-1].Room != row.room {
			out = append(out, mirror.ActiveUsers{Project: project, Room: row.room})
		}
		of := &out[len(out)-1]
		of.Freshness = row.freshness
		if row.user != nil {
			of.Users = append(of.Users, *row.user)
		}
	}
	return out, nil
}

// roomUsers reads a piece: of the first room what is behind the last row, and of the others.
func (r *Reader) roomUsers(ctx context.Context, project mirror.ProjectID, keys []rowKey, deleted bool, last *roomUser) (
	[]roomUser, error,
) {
	table, args := r.keyTable(project, keys)
	s := r.query("select r.room_id, r.epoch, u.connection_id, u.user_id, u.info_json, r.delete_time,"+stateColumns+
		"\nfrom "+table+`
join mirror_room r on r.bucket = k.bucket and r.project_id = ? and r.room_id = k.room_id
`+r.state("r", "r.room_id", literal(mirror.KindActiveUsers), "''")+
		`left join mirror_active_user u
    on u.bucket = r.bucket and u.project_id = r.project_id and u.room_id = r.room_id
    and u.epoch = case when r.delete_time is null then r.epoch else r.epoch - 1 end`, append(args, project)...)
	if last != nil && last.user != nil {
		after := last.user
		s.add("\n    and (r.room_id <> ? or u.connection_id >= ? and (u.connection_id > ? or u.user_id > ?))",
			last.room, after.ConnectionID, after.ConnectionID, after.UserID)
	}
	s.add("\n")
	s.where("(r.delete_time is null or ?)", deleted).inBuckets("r", project, keys)
	s.add("\norder by r.room_id, u.connection_id, u.user_id")
	if r.dialect.Piece > 0 {
		s.add("\nlimit ?", r.dialect.Piece)
	}
	return list(ctx, r, "read active users", s, func(row Row, u *roomUser) error {
		var connection *int64
		var user *string
		var info []byte
		err := scanWithState(row, &u.freshness, &u.room, &u.epoch, &connection, &user, &info, at(&u.freshness.DeleteTime))
		if connection != nil && user != nil {
			u.user = &mirror.ActiveUser{ConnectionID: *connection, UserID: *user, Info: info}
		}
		return err
	})
}

// SessionColumns are the columns of a session u.
const SessionColumns = `u.room_id, u.session_id, u.connection_id, u.user_id, u.info_json, u.enter_time, u.leave_time,
    u.leave_event_id, u.end_cause`

func scanSession(project mirror.ProjectID) func(Row, *mirror.UserSession) error {
	return func(row Row, u *mirror.UserSession) error {
		u.Project = project
		return row.Scan(&u.Room, &u.ID, &u.ConnectionID, &u.UserID, &u.Info, at(&u.EnterTime), at(&u.LeaveTime),
			&u.LeaveEventID, &u.End)
	}
}

// openSessions returns the statement for the open sessions of a room: those of its
// connections, which are so few that they are sorted. As in [Reader.latest] the order is
// hidden from the planner, which would otherwise read the latest sessions of the room, of
// which most have ended.
func (r *Reader) openSessions(f store.SessionFilter) *statement {
	head, tail := "select "+SessionColumns+"\nfrom mirror_user_session u", ""
	if !r.dialect.ForceIndex {
		head = "select " + SessionColumns + "\nfrom (\nselect * from mirror_user_session u"
		tail = "\noffset 0\n) u"
	}
	s := r.query(head+r.by("mirror_user_session_open")).
		whereRoom("u", mirror.Resource{Project: f.Project, Room: f.Room}).
		where("u.end_cause = ''").where("(? = '' or u.user_id = ?)", f.User, f.User)
	s.between("u.begin_time", "u.session_id", f.From, f.To, f.AfterTime, f.AfterID)
	s.add(tail)
	return s.page([]string{"u.begin_time desc", "u.session_id"}, f.Limit)
}

// UserSessions uses the index that fits the filter best.
func (r *Reader) UserSessions(ctx context.Context, f store.SessionFilter) ([]mirror.UserSession, error) {
	l := latestList{
		room:    f.Room,
		columns: SessionColumns, table: "mirror_user_session", as: "u", at: "u.begin_time", id: "u.session_id",
		first: []idFilter{{"u.room_id", string(f.Room)}, {"u.user_id", f.User}},
		also:  func(s *statement) { s.whereIf(f.Open, "u.end_cause = ''") },
		from:  f.From, to: f.To, afterTime: f.AfterTime, afterID: f.AfterID, limit: f.Limit,
	}
	return latestOfRanges(f.Rooms, f.Room, f.Limit, func(u *mirror.UserSession) (time.Time, string) {
		return u.BeginTime(), u.ID
	}, func(prefix string) ([]mirror.UserSession, error) {
		s := r.latest(l, f.Project, prefix)
		if f.Open && f.Room != "" {
			s = r.openSessions(f)
		}
		return list(ctx, r, "list user sessions", s, scanSession(f.Project))
	})
}

// SessionsBy reads sessions with a statement that selects [SessionColumns].
func (r *Reader) SessionsBy(ctx context.Context, project mirror.ProjectID, text string,
	args ...any,
) ([]mirror.UserSession, error) {
	return list(ctx, r, "read sessions of connections", r.query(text, args...), scanSession(project))
}

const notificationColumns = `n.room_id, n.notification_id, n.event_id, n.channel, n.kind, n.user_id, n.thread_id,
    n.mention_id, n.subject_id, n.create_time, n.trigger_time, n.inbox_json, n.read_time, n.notify_time,` + stateColumns

// Notifications uses the index that fits the filter best.
func (r *Reader) Notifications(ctx context.Context, f store.NotificationFilter) ([]mirror.Notification, error) {
	l := latestList{
		room:    f.Room,
		columns: notificationColumns, table: "mirror_notification", as: "n",
		joins: r.state("n", "n.room_id", literal(mirror.KindNotification), "n.notification_id"),
		at:    "n.create_time", id: "n.event_id",
		first:  []idFilter{{"n.room_id", string(f.Room)}, {"n.user_id", f.User}, {"n.thread_id", f.Thread}},
		others: []idFilter{{"n.kind", f.Kind}, {"n.channel", f.Channel}},
		also:   func(s *statement) { s.where(unindexed("? = '' or n.notification_id = ?"), f.ID, f.ID) },
		from:   f.From, to: f.To, afterTime: f.AfterTime, afterID: f.AfterID, limit: f.Limit,
	}
	scan := func(row Row, n *mirror.Notification) error {
		n.Project = f.Project
		return scanWithState(row, &n.Freshness, &n.Room, &n.ID, &n.EventID, &n.Channel, &n.Kind, &n.UserID, &n.ThreadID,
			&n.MentionID, &n.SubjectID, at(&n.CreateTime), at(&n.TriggerTime), &n.Inbox.Source, at(&n.Inbox.ReadTime),
			at(&n.Inbox.NotifyTime))
	}
	return latestOfRanges(f.Rooms, f.Room, f.Limit, func(n *mirror.Notification) (time.Time, string) {
		return n.CreateTime, n.EventID
	}, func(prefix string) ([]mirror.Notification, error) {
		return list(ctx, r, "list notifications", r.latest(l, f.Project, prefix), scan)
	})
}
