package mirror

import "time"

// AuditEntry is a call that changes something for operators, or calls that were refused.
type AuditEntry struct {
	// Project is the one that the call was for; empty for refused calls of unknown callers
	// and of those that see all projects, if several are configured.
	Project ProjectID
	// ID identifies the entry in its project.
	ID string
	// Time is when the call began, or the minute of the refused ones. EndTime is when it
	// ended, or when the latest was refused; zero while it goes on, and if the service was
	// stopped meanwhile.
	Time, EndTime time.Time
	// Denied means that the entry is about refused calls.
	Denied bool
	// Method is the name of the RPC; empty for refused calls of unknown callers, and of too
	// many.
	Method string
	// Caller is the name of the credential, empty if it is unknown, and Address where the
	// call came from, empty if that is unknown or one of too many; of refused calls over IPv6
	// the network.
	Caller, Address string
	// RequestID is that of the call, as in the log.
	RequestID string
	// Room is the room that the request names; empty if it names none.
	Room RoomID
	// Kind and ResourceID are those of the task, or of what the request names in the room.
	Kind       Kind
	ResourceID string
	// Options are the names of the fields that the request sets to true, such as "confirm".
	Options string
	// Code is the status code, such as "OK", and Reason the reason of a failure. Both are
	// empty while the call goes on.
	Code, Reason string
	// Calls is how many calls the entry is about: 1, or the number of those refused.
	Calls int64
}
