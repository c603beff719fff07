package mirror

import "cmp"

// Kind is a kind of resource. The numbers are stored and define the lock order
// within a room: a room comes before its children.
type Kind int16

// The kinds of resource.
const (
	KindRoom    Kind = 1
	KindStorage Kind = 2
	// KindYdoc is a Yjs document: the room's own, without an id, or a subdocument
	// with its guid as id.
	KindYdoc Kind = 3
	// KindThread is a comment thread or, without an id, the list of the room's
	// threads, which finds threads that no event announced.
	KindThread Kind = 4
	// KindActiveUsers is the list of users in the room now.
	KindActiveUsers Kind = 5
	// KindUserSessions is the history of users in the room. It is folded from
	// events.
	KindUserSessions Kind = 6
	// KindNotification is a notification to a user, folded from events. Its id is
	// that of the inbox notification. Its room may be empty.
	KindNotification Kind = 7
	// KindSweep is the comparison with Liveblocks' list of rooms. It has no room.
	KindSweep Kind = 8
	// KindGroup is a group of users, or without an id the list of all groups. It has
	// no room, and no event reports it.
	KindGroup Kind = 9
)

// Scope says what a resource belongs to.
type Scope int

// The scopes.
const (
	// ScopeRoom: to one room.
	ScopeRoom Scope = iota
	// ScopeUser: to one user. Its room may be empty.
	ScopeUser
	// ScopeProject: to the project as a whole. It has no room.
	ScopeProject
)

// IDRule says whether resources of a kind have an id.
type IDRule int

// The rules for ids.
const (
	// IDNone: there is only one resource in its scope.
	IDNone IDRule = iota
	// IDOptional: without an id, it is the room's own resource or the list of all.
	IDOptional
	// IDRequired: every resource has an id.
	IDRequired
)

// CallRule says whether the task of a kind calls Liveblocks.
type CallRule int

// The call rules.
const (
	// CallsAlways: it can do nothing without a call.
	CallsAlways CallRule = iota
	// CallsPart: a part of its work needs no call.
	CallsPart
	// CallsNone: it makes no call.
	CallsNone
)

// SweepRule says when a sweep requests a resource, always in the background.
type SweepRule int

// The rules of sweeps.
const (
	// SweepNever: no sweep requests it.
	SweepNever SweepRule = iota
	// SweepListed: if the list of rooms differs from the mirror.
	SweepListed
	// SweepConnected: if a user has connected to the room since its last fetch.
	SweepConnected
	// SweepFull: like SweepConnected, and for every room in a full sweep.
	SweepFull
	// SweepProject: at the end of every sweep whose list of rooms is believed.
	SweepProject
)

// EventRule says which changes of a resource events report.
type EventRule int

// The rules of events.
const (
	// EventsSome: not all of them, or it is made of events.
	EventsSome EventRule = iota
	// EventsBirth: that there is a new one.
	EventsBirth
	// EventsEach: each one. Subdocuments are an exception, and lists: events report
	// what is in them.
	EventsEach
)

// Traits describes a kind. Nothing else in the program lists the kinds: all
// differences between them are traits, or are in tables that tests compare with
// [Kinds].
type Traits struct {
	// Name is the kind's name in logs and, in upper case, in the API.
	Name string
	// Scope is what a resource of the kind belongs to; ID says whether it has an
	// id.
	Scope Scope
	ID    IDRule
	// NeedsRoom means that it is fetched only while its room is mirrored, and
	// applied only to the incarnation of the room that it was fetched for.
	NeedsRoom bool
	// OutlivesRoom means that it stays when its room is deleted, because it is
	// history that cannot be fetched again.
	OutlivesRoom bool
	// WithRoom means that every room has it: it is fetched as soon as the room is
	// known, without an id.
	WithRoom bool
	// Apart means that its task takes minutes and gets its own worker.
	Apart bool
	// Calls says whether its task calls Liveblocks.
	Calls CallRule
	// Sweep says when a sweep requests it.
	Sweep SweepRule
	// Events says which of its changes events report.
	Events EventRule
	// Verified means that a verification compares it with Liveblocks. Active users
	// change too fast for that, and sessions and notifications come from events.
	Verified bool

	// Title is its name in documents, and List its name without an id if that is a
	// list.
	Title, List string
	// Source is the call to Liveblocks that fetches it, or its other source.
	Source string
	// Tables are the tables that hold its rows.
	Tables []string
}

// Announced reports whether an event is sent for each change of the resource.
func (r Resource) Announced() bool {
	t := r.Kind.Traits()
	return t.Events == EventsEach && (r.ID == "") == (t.List == "")
}

// kinds is the table of kinds.
var kinds = [...]Traits{
	KindRoom: {
		Name: "room", Sweep: SweepListed, Events: EventsBirth, Verified: true,
		Title: "room", Source: "`GET /v2/rooms/{roomId}`", Tables: []string{"mirror_room", "mirror_room_term"},
	},
	KindStorage: {
		Name: "storage", NeedsRoom: true, WithRoom: true, Sweep: SweepFull, Events: EventsEach, Verified: true,
		Title: "Storage document", Source: "`GET …/storage?format=plain-lson`", Tables: []string{"mirror_document"},
	},
	KindYdoc: {
		Name: "ydoc", ID: IDOptional, NeedsRoom: true, WithRoom: true, Sweep: SweepFull, Events: EventsEach, Verified: true,
		Title: "Yjs documents", Source: "`GET …/ydoc-binary`, with `?guid=` for subdocuments",
		Tables: []string{"mirror_document"},
	},
	KindThread: {
		Name: "thread", ID: IDOptional, NeedsRoom: true, WithRoom: true, Sweep: SweepFull, Events: EventsEach, Verified: true,
		Title: "thread", List: "list of all threads", Source: "`GET …/threads/{threadId}`, `GET …/threads`",
		Tables: []string{
			"mirror_thread", "mirror_comment", "mirror_comment_reaction", "mirror_comment_attachment", "mirror_comment_mention",
			"mirror_thread_term",
		},
	},
	KindActiveUsers: {
		Name: "active_users", NeedsRoom: true, Sweep: SweepConnected,
		Title: "active users", Source: "`GET …/active_users`",
		// A fetch without a connection ends the connection's session, whose event
		// must have been lost.
		Tables: []string{"mirror_active_user", "mirror_user_session"},
	},
	KindUserSessions: {
		Name: "user_sessions", OutlivesRoom: true, Calls: CallsNone,
		Title: "sessions", Source: "none; folded from `userEntered` and `userLeft`", Tables: []string{"mirror_user_session"},
	},
	KindNotification: {
		Name: "notification", Scope: ScopeUser, ID: IDRequired, OutlivesRoom: true, Calls: CallsPart,
		Title:  "notification",
		Source: "the event itself, and `GET /v2/users/{userId}/inbox-notifications/{inboxNotificationId}`",
		Tables: []string{"mirror_notification"},
	},
	KindSweep: {
		Name: "sweep", Scope: ScopeProject, OutlivesRoom: true, Apart: true,
		Title: "list of all rooms", Source: "`GET /v2/rooms`, hourly; no event", Tables: []string{"mirror_sweep"},
	},
	KindGroup: {
		Name: "group", Scope: ScopeProject, ID: IDOptional, OutlivesRoom: true, Sweep: SweepProject, Verified: true,
		Title: "group", List: "list of all groups", Source: "`GET /v2/groups/{groupId}`, `GET /v2/groups`; no event",
		Tables: []string{"mirror_group", "mirror_group_member"},
	},
}

// Traits returns the traits of the kind, or zero Traits if the kind is not in the
// table.
func (k Kind) Traits() Traits {
	if k < 0 || int(k) >= len(kinds) {
		return Traits{}
	}
	return kinds[k]
}

// String returns the kind's name in logs.
func (k Kind) String() string { return cmp.Or(k.Traits().Name, "unknown") }

// Kinds lists every kind, in key order.
func Kinds() []Kind { return kindsWith(func(Kind, Traits) bool { return true }) }

// RoomKinds lists what every room has, in key order, each without an id.
func RoomKinds() []Kind { return kindsWith(func(_ Kind, t Traits) bool { return t.WithRoom }) }

// ChildKinds lists what is in a room and goes with it, in key order.
func ChildKinds() []Kind {
	return kindsWith(func(k Kind, t Traits) bool { return k != KindRoom && !t.OutlivesRoom })
}

// SweptKinds lists what sweeps request by the rule, in key order.
func SweptKinds(rule SweepRule) []Kind {
	return kindsWith(func(_ Kind, t Traits) bool { return t.Sweep == rule })
}

func kindsWith(has func(Kind, Traits) bool) (out []Kind) {
	for i, t := range kinds {
		if k := Kind(i); t.Name != "" && has(k, t) {
			out = append(out, k)
		}
	}
	return out
}
