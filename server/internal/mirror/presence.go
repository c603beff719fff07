package mirror

import "time"

// ActiveUsersInterval is how often at most the active users of a room are
// fetched: Liveblocks asks for no more than that.
const ActiveUsersInterval = 10 * time.Second

// ActiveUser is one connection to a room. A user with two tabs has two.
type ActiveUser struct {
	ConnectionID int64
	// UserID is empty for an anonymous user.
	UserID string
	// Info is the user's info as JSON, byte for byte; nil if there is none.
	Info []byte
}

// ActiveUsers are the connections to a room as mirrored, by connection id.
type ActiveUsers struct {
	Project   ProjectID
	Room      RoomID
	Users     []ActiveUser
	Freshness Freshness
}

// ActiveUsersContent is the connections to a room as fetched.
type ActiveUsersContent struct {
	FetchTime time.Time
	Users     []ActiveUser
}

// UserSession is one stay of a user in a room, told by events: one announces that
// he entered, another that he left.
type UserSession struct {
	Project ProjectID
	Room    RoomID
	// ID is that of the event that announced the entry, or of the one that announced
	// the leaving if no entry is known (yet).
	ID           string
	ConnectionID int64
	// UserID is empty for an anonymous user.
	UserID string
	// Info is the user's info as JSON, byte for byte; nil if there is none.
	Info []byte
	// EnterTime is zero if no event told of it.
	EnterTime time.Time
	// LeaveTime is zero while the user is in the room.
	LeaveTime time.Time
	// LeaveEventID is the event that announced the leaving; empty if none did.
	LeaveEventID string
	// End says how the end is known.
	End SessionEnd
}

// BeginTime is where the session stands in lists: the earliest moment of it that
// is known.
func (s UserSession) BeginTime() time.Time {
	if s.EnterTime.IsZero() {
		return s.LeaveTime
	}
	return s.EnterTime
}

// SessionEnd says how the end of a session is known.
type SessionEnd string

// The ends of sessions.
const (
	// SessionOpen: the user is in the room.
	SessionOpen SessionEnd = ""
	// SessionLeft: an event announced it.
	SessionLeft SessionEnd = "left"
	// SessionAbsent: a later fetch of the active users lacked the connection, whose
	// event must have been lost. LeaveTime is that of the fetch.
	SessionAbsent SessionEnd = "absent"
	// SessionRoomDeleted: the room was deleted. LeaveTime is when that was found.
	SessionRoomDeleted SessionEnd = "room_deleted"
)

// SessionFold is what events that waited make of a room's sessions.
type SessionFold struct {
	// Upserts are sessions that are new or changed, Deletes the ids of those that
	// turned out to be part of another.
	Upserts []UserSession
	Deletes []string
	// Folded are the events that need not wait any longer.
	Folded []string
}
