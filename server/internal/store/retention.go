package store

import (
	"strconv"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Aging is a table whose rows are deleted by their age.
type Aging string

// The tables that age.
const (
	AgingEvents        Aging = "mirror_event"
	AgingSessions      Aging = "mirror_user_session"
	AgingNotifications Aging = "mirror_notification"
	AgingAudit         Aging = "mirror_audit"
)

// The tables of which only what is deleted at Liveblocks ages. It goes with what belongs to it.
const (
	AgingRooms   Aging = "mirror_room"
	AgingThreads Aging = "mirror_thread"
	AgingGroups  Aging = "mirror_group"
)

// AgingTables are the tables that age.
var AgingTables = []Aging{
	AgingEvents, AgingSessions, AgingNotifications, AgingAudit, AgingRooms, AgingThreads, AgingGroups,
}

// Tombstones are the tables that age of which only what is deleted does.
var Tombstones = []Aging{AgingRooms, AgingThreads, AgingGroups}

// maxStatements is how many statements a transaction about tombstones has, about: MySQL needs
// one for each of them and for each of its parts, and each is a way to the database and back.
const maxStatements = 100

// MaxExpired is how many bytes of long values a transaction about tombstones deletes, about, on
// MySQL, whose log has all of them: a cluster refuses a transaction of more than some 100 MiB.
const MaxExpired = 32 << 20

// Weights are the expressions for how many bytes a row takes, about, of those tables of parts
// whose rows can be long.
var Weights = map[string]string{
	"mirror_document": "2 * size", // its length would have to be read
	"mirror_thread":   "2 * octet_length(source_json)",
	"mirror_comment":  "2 * octet_length(source_json) + octet_length(plain_text) + octet_length(markdown)",
}

// AgingColumns describes a table that ages to the engines.
type AgingColumns struct {
	// Time is the column that the index Index has after the project, and ID the one after
	// that.
	Time, ID, Index string
	// Key are the columns of the primary key behind the bucket and the project.
	Key []string
	// End is when what the row tells of was over, or an expression that is null.
	End string
	// Waits are the rows that wait for the row t, as what follows "from"; empty if none can.
	Waits string
	// Parts are the tables with what belongs to the row and goes before it, in the order in
	// which they are locked. Their keys begin with that of the row.
	Parts []string
	// Empties means that the row itself stays, without content.
	Empties bool
}

// notDone are the tasks that a tombstone t waits for.
func notDone(kind mirror.Kind, room, id string) string {
	return `mirror_resource_state s
        where s.bucket = t.bucket and s.project_id = t.project_id and s.room_id = ` + room + `
            and s.kind = ` + strconv.Itoa(int(kind)) + ` and s.resource_id = ` + id + `
            and (s.due_time is not null or s.generation > s.applied_generation)`
}

// tombstones describes the tombstones of items.
func tombstones(kind *ItemKind, room string) AgingColumns {
	c := AgingColumns{
		Time: "delete_time", ID: kind.ID, Index: kind.Head.Name + "_by_delete", End: "null",
		Key: append(kind.Scope()[2:], kind.ID), Waits: notDone(kind.Kind, room, "t."+kind.ID),
	}
	for _, part := range kind.Parts {
		c.Parts = append(c.Parts, part.Name)
	}
	return c
}

// Columns returns the description of the table.
func (a Aging) Columns() AgingColumns {
	switch a {
	case AgingEvents:
		return AgingColumns{
			Time: "receive_time", ID: "event_id", Index: "mirror_event_by_time", Key: []string{"event_id"}, End: "null",
			Waits: `mirror_unfolded_event u
        where u.bucket = t.bucket and u.project_id = t.project_id and u.room_id = t.room_id and u.event_id = t.event_id`,
		}
	case AgingSessions:
		return AgingColumns{
			Time: "begin_time", ID: "session_id", Index: "mirror_user_session_by_time",
			Key: []string{"room_id", "session_id"}, End: "leave_time",
		}
	case AgingNotifications:
		return AgingColumns{
			Time: "create_time", ID: "event_id", Index: "mirror_notification_by_time",
			Key: []string{"room_id", "notification_id", "event_id"}, End: "null",
		}
	case AgingAudit:
		return AgingColumns{
			Time: "call_time", ID: "entry_id", Index: "mirror_audit_by_time", Key: []string{"entry_id"}, End: "null",
		}
	case AgingRooms:
		// Its epoch tells a later incarnation from this one, so the row stays.
		return AgingColumns{
			Time: "delete_time", ID: "room_id", Index: "mirror_room_by_delete", Key: []string{"room_id"}, End: "null",
			Waits: notDone(mirror.KindRoom, "t.room_id", "''"), Parts: contentTables, Empties: true,
		}
	case AgingThreads:
		return tombstones(threadKind, "t.room_id")
	case AgingGroups:
		return tombstones(groupKind, "''")
	}
	panic("store: no table that ages: " + string(a))
}

// AgedRow is what decides whether a row has to stay.
type AgedRow struct {
	// Time is when the event was received, the session began, the notification was created,
	// the call was made, or the room, thread or group was deleted.
	Time time.Time
	// End is when the session ended; zero while it lasts, and of other rows.
	End time.Time
	// Waits means that the event has not been folded yet, or that something is to be fetched
	// of what is deleted: it may be there after all.
	Waits bool
}

// Expired reports whether a row may go: it is older than before, and nothing needs it. A
// session is as old as its end, and one that lasts is not old.
func (a Aging) Expired(row AgedRow, before time.Time) bool {
	at := row.Time
	if a == AgingSessions {
		at = row.End
	}
	return !at.IsZero() && at.Before(before) && !row.Waits
}

// Expiry says what [Retention.Expire] deletes.
type Expiry struct {
	Project mirror.ProjectID
	Table   Aging
	// Before is the time from which on rows stay.
	Before time.Time
	// After is where the look at the rows goes on; zero at the beginning.
	After Mark
	// Limit is the maximum number of rows that are looked at, and of those that are deleted.
	Limit int
}

// Look returns how many rows are looked at.
func (x Expiry) Look() int {
	if parts := len(x.Table.Columns().Parts); parts > 0 {
		return min(x.Limit, maxStatements/(parts+1))
	}
	return x.Limit
}

// Mark is a place among the rows of a table, from the oldest on. Of rows with the same
// time, the one with the highest id comes first, as in the index.
type Mark struct {
	Time time.Time
	ID   string
}

// Expired is the result of [Retention.Expire].
type Expired struct {
	// Deleted is how many rows were deleted, those of the parts among them; a room that was
	// emptied counts as one.
	Deleted int
	// More means that there may be more rows older than Before, behind Last.
	More bool
	Last Mark
	// Oldest is the time of the first row that was looked at; zero if there is none.
	Oldest time.Time
}

// Cut returns the result if the limit was reached before all was gone of what was looked
// at: the next look begins where this one did.
func (e Expired) Cut(x Expiry) Expired {
	e.More, e.Last = true, x.After
	return e
}

// TrimThrough returns the number up to which entries of a bucket may be trimmed, of those
// that follow each other from the first on; 0 if none may. All of them are older than
// before, and neither is the first that is younger nor what follows it, because a clock of
// another replica may be behind. The latest entry of the bucket, which head tells, always
// stays: it says when the bucket last changed.
func TrimThrough(entries []mirror.Change, head int64, before time.Time) int64 {
	through := int64(0)
	for i, c := range entries {
		if c.Number >= head || !c.CommitTime.Before(before) || i > 0 && c.Number != through+1 {
			break
		}
		through = c.Number
	}
	return through
}
