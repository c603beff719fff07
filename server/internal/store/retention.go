package store

import (
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

// AgingTables are the tables that age.
var AgingTables = []Aging{AgingEvents, AgingSessions, AgingNotifications, AgingAudit}

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
	}
	panic("store: no table that ages: " + string(a))
}

// AgedRow is what decides whether a row has to stay.
type AgedRow struct {
	// Time is when the event was received, the session began, the notification was created,
	// or the call was made.
	Time time.Time
	// End is when the session ended; zero while it lasts, and of other rows.
	End time.Time
	// Waits means that the event has not been folded yet.
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
	// Limit is the maximum number of rows that are looked at.
	Limit int
}

// Mark is a place among the rows of a table, from the oldest on. Of rows with the same
// time, the one with the highest id comes first, as in the index.
type Mark struct {
	Time time.Time
	ID   string
}

// Expired is the result of [Retention.Expire].
type Expired struct {
	// Deleted is how many rows were deleted.
	Deleted int
	// More means that there may be more rows older than Before, behind Last.
	More bool
	Last Mark
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
