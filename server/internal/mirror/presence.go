package mirror

import (
	"cmp"
	"strings"
	"time"
)

// ActiveUsersInterval is the minimal time between two fetches of a room's active
// users, as Liveblocks requires.
const ActiveUsersInterval = 10 * time.Second

// NoConnection is the connection id of users without a connection of their own, such
// as agents that act through the API. Several of them can be in a room.
const NoConnection = -1

// ActiveUser is one connection to a room. A user with two open tabs has two
// connections.
type ActiveUser struct {
	// ConnectionID is NoConnection if the user has none.
	ConnectionID int64
	// UserID is empty for an anonymous user.
	UserID string
	// Info is the user's info as JSON, byte for byte; nil if there is none.
	Info []byte
}

// Compare orders by connection and user, which identify an entry of a room.
func (u ActiveUser) Compare(o ActiveUser) int {
	return cmp.Or(cmp.Compare(u.ConnectionID, o.ConnectionID), strings.Compare(u.UserID, o.UserID))
}

// ActiveUsers are the connections to a room as mirrored, in order.
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

// UserSession is one stay of a user in a room, derived from two events: one
// announces the entry, the other the departure.
type UserSession struct {
	Project ProjectID
	Room    RoomID
	// ID is the id of the event that announced the entry or, while that is unknown,
	// of the event that announced the departure.
	ID           string
	ConnectionID int64
	// UserID is empty for an anonymous user.
	UserID string
	// Info is the user's info as JSON, byte for byte; nil if there is none.
	Info []byte
	// EnterTime is zero if no event announced it.
	EnterTime time.Time
	// LeaveTime is zero while the user is in the room.
	LeaveTime time.Time
	// LeaveEventID is the event that announced the departure; empty if none did.
	LeaveEventID string
	// End says how the service knows that the session ended.
	End SessionEnd
}

// BeginTime is the earliest known time of the session. Lists are ordered by it.
func (s UserSession) BeginTime() time.Time {
	if s.EnterTime.IsZero() {
		return s.LeaveTime
	}
	return s.EnterTime
}

// SessionEnd says how the service knows that a session ended.
type SessionEnd string

// The ends of sessions.
const (
	// SessionOpen: the user is in the room.
	SessionOpen SessionEnd = ""
	// SessionLeft: an event announced the departure.
	SessionLeft SessionEnd = "left"
	// SessionAbsent: a later fetch of the active users did not list the connection;
	// the event must have been lost. LeaveTime is the time of that fetch.
	SessionAbsent SessionEnd = "absent"
	// SessionRoomDeleted: the room was deleted. LeaveTime is when the deletion was
	// confirmed.
	SessionRoomDeleted SessionEnd = "room_deleted"
)

// SessionFold is the result of folding waiting events into a room's sessions.
type SessionFold struct {
	// Upserts holds new and changed sessions, Deletes the ids of sessions that
	// became part of another. No session is in both.
	Upserts []UserSession
	Deletes []string
	// Folded lists the events that need not wait any longer. None of them happened
	// after Until; if that is zero, it is unknown.
	Folded []string
	Until  time.Time
}
