// Package store is the contract every SQL engine keeps: six small interfaces,
// one for each user of the database, and the errors they share. The suite in
// storetest is this contract as tests; where the two differ, the suite is right.
//
// Each method is one unit of atomicity, and no transaction leaves it. Methods
// retry what the engine asks to be retried (serialization failures, deadlocks)
// by running the whole transaction again. Times are the caller's and are kept to
// the microsecond in UTC. Rows are locked in one order everywhere: events,
// resource states, rooms, children, feed heads, each in key order.
//
// Engines decide nothing. What becomes stale and what that means says
// [State.MarkStale], and what becomes of a resource when its lease ends say the
// functions that make a [Plan]: an engine loads and locks the rows they ask for,
// and writes what they return. A row that holds JSON of which a server refuses
// some is stored without it, and DataProblem says why where there is one; no other
// row loses anything.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The errors of the contract. Anything else is a failure of the database and
// is classified as unavailable by the engine.
var (
	// ErrLeaseLost: the lease ended or was taken over. Nothing was written.
	ErrLeaseLost = errors.New("store: lease lost")
	// ErrEpochChanged: the room is not mirrored, or was deleted or created anew
	// since the claim, so what was fetched belongs to another incarnation. Nothing
	// was written; the lease is still held, and Fail gives it back.
	ErrEpochChanged = errors.New("store: room incarnation changed")
	// ErrNotDue: the resource is not due, or somebody holds a live lease on it.
	ErrNotDue = errors.New("store: not due")
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("store: not found")
	// ErrSchemaBehind: the database's schema is older than this binary needs.
	ErrSchemaBehind = errors.New("store: schema is behind")
)

// Store is everything an engine does.
type Store interface {
	Ledger
	Tasks
	Mirror
	Sweeps
	Query
	Feed

	// Ping reports whether the database answers and its schema is current;
	// ErrSchemaBehind if it is not.
	Ping(ctx context.Context) error
	// Engine returns the engine's name and version, such as "PostgreSQL 15.20".
	Engine(ctx context.Context) (string, error)
	// Close ends all connections.
	Close()
}

// Ledger records what arrived.
type Ledger interface {
	// Accept stores the events and marks what they make stale in one
	// transaction. An event whose (project, id) is already there writes nothing
	// and is reported as not fresh. When Accept returns nil, all of it survives a
	// crash. A batch never holds one event twice.
	//
	// Each stale resource gets a new generation and becomes due at once, but not
	// before its backoff ends, and, for an invalidation with a MinInterval, not
	// sooner after its last fetch than that. An invalidation marked IfUnknown counts
	// only for a resource without a state. An event with an invalidation marked Fold
	// waits at that resource; see Unfolded.
	Accept(ctx context.Context, batch []mirror.Delivery) ([]Accepted, error)

	// PinProject stores liveblocksID as the project's if none is pinned yet, and
	// returns the one that is pinned then.
	PinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) (string, error)
}

// Accepted is the answer to one event of a batch.
type Accepted struct {
	// Fresh is false for an event recorded before.
	Fresh bool
	// Outcome is the recorded one, which for a duplicate is that of the first.
	Outcome mirror.Outcome
	// Pending are the resources the event made stale and the generations they
	// have now, for a duplicate too, so that its sender can wait like the first.
	Pending []mirror.Pending
}

// Tasks hands out the right to fetch.
type Tasks interface {
	// Due returns resources of the project that are due at now and not leased,
	// those in the background last, and otherwise what was due first first, at most
	// limit; and when the next one will be due, zero if none will. It locks nothing.
	Due(ctx context.Context, project mirror.ProjectID, now time.Time, limit int) (DueList, error)

	// Claim leases the resource until now+ttl under the given token, if it is due
	// and nobody holds a live lease; otherwise ErrNotDue.
	Claim(ctx context.Context, resource mirror.Resource, token [16]byte, now time.Time, ttl time.Duration) (mirror.Lease,
		error)

	// Renew moves the end of the lease to until; ErrLeaseLost if it is not held.
	Renew(ctx context.Context, lease mirror.Lease, until time.Time) error

	// Park gives the lease back without a fetch because the resource's room is
	// not mirrored, and makes the room due unless it is already pending, as urgent as
	// the resource is by now. The resource is due again once the room is mirrored.
	Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error)

	// Fail gives the lease back after a failure.
	Fail(ctx context.Context, lease mirror.Lease, failure Failure) (mirror.Applied, error)

	// Request marks the resources stale, as an event does, and lifts failures and
	// backoffs. Resources that were never heard of get their state. A request in the
	// background does not delay what is wanted at once.
	Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error)

	// Retry makes a failed, waiting or pending task due at once with all its
	// attempts, in the generation it has. ErrNotFound if there is no such
	// task, ErrNotDue if it is done.
	Retry(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)

	// Generations returns the applied generation of each resource, in order, and
	// whether its task has failed; zero for a resource without state.
	Generations(ctx context.Context, resources []mirror.Resource) ([]Progress, error)

	// Pause stores why the project stands still; an empty reason resumes it.
	Pause(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error
}

// DueList is the answer of [Tasks.Due].
type DueList struct {
	// Resources are the ones wanted at once, Background those that can wait.
	Resources, Background []mirror.Resource
	// Next is when the first resource beyond these becomes due or its lease
	// ends; zero if there is none.
	Next time.Time
}

// Failure says how a fetch failed.
type Failure struct {
	Now time.Time
	// NotBefore is when the next attempt may begin.
	NotBefore time.Time
	// Uncounted says that the failure does not count as an attempt.
	Uncounted bool
	// Final says that no further attempt will be made.
	Final bool
	// Cause is what to show an operator: no secrets, no payloads.
	Cause string
}

// Progress tells how far a resource is.
type Progress struct {
	Applied int64
	Failed  bool
	// Waiting says that the task is parked until its room is mirrored.
	Waiting bool
}

// Mirror applies what was fetched. Every method settles the lease's generation
// in the transaction that writes the result, and needs the lease's token to be
// the one that is stored (ErrLeaseLost) and, for children, the lease's epoch to
// be the room's (ErrEpochChanged).
//
// If an event was recorded since the last settle fetch and none is newer than
// the lease, the resource is due once more after settle: a read soon after an
// event may show the state before it. Zero means no settle fetch.
type Mirror interface {
	// ApplyRoom stores a room as fetched. If the room is new, was a tombstone, or
	// has another CreateTime than the stored one, it begins a new epoch and
	// everything in it becomes stale, as it does in a room that was missing. A change
	// entry is written if Source or the epoch changed.
	ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// ApplyDocument stores a document as fetched. It may decide on what the lease has
	// seen, if that still stands. If its bytes and derive version
	// are those already stored in this epoch, only the two times move and no
	// change entry is written.
	ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// ApplyMissing records that Liveblocks answered that there is no such room.
	//
	// On a room: if a delete event was accepted that no fetch has contradicted
	// since, the room becomes a tombstone, its epoch rises, its children have
	// nothing more to do, its open sessions end, and a change entry is written;
	// otherwise missing_since is set and nothing is deleted. Only the fetch after
	// which nothing more is due contradicts: an earlier one may have read the state
	// before the event. Kinds that outlast their room are no children of it.
	//
	// On a child: the room is made due, as urgent as the child is by now, unless it is
	// missing or gone itself; in that case the child has nothing more to do. While the room still lives the
	// answer is a failed attempt, described by failure.
	ApplyMissing(ctx context.Context, lease mirror.Lease, failure Failure, settle time.Duration) (mirror.Applied, error)

	// ApplyThread stores a thread as package thread reads it, with all its comments,
	// if it is not the one already stored in this epoch.
	ApplyThread(ctx context.Context, lease mirror.Lease, thread mirror.ThreadContent, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// ApplyThreadMissing records that Liveblocks knows the room and not the thread.
	// Confirmed like that of a room (see ApplyMissing), the thread becomes a
	// tombstone; otherwise missing_since is set and nothing is deleted.
	ApplyThreadMissing(ctx context.Context, lease mirror.Lease, now time.Time, settle time.Duration) (mirror.Applied,
		error)

	// ApplyThreads settles the list of a room's threads. Threads that were never
	// heard of are stored as the list shows them. A thread whose copy differs becomes
	// stale, and so does one that the list lacks, as by a delete event: only its own
	// fetch tells how it is now. The lease is that of the thread without an id.
	ApplyThreads(ctx context.Context, lease mirror.Lease, list mirror.ThreadList, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// ApplyActiveUsers stores who is in the room. A change entry is written if
	// readers see others than before; those of an earlier epoch they did not see, and
	// empty info is none. Open sessions of connections that are not there, or are
	// somebody else's, and that began before absentBefore end with the fetch.
	ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent, absentBefore,
		now time.Time, settle time.Duration) (mirror.Applied, error)

	// Unfolded returns the events that wait at the resource, in the order in which
	// they happened, at most limit.
	Unfolded(ctx context.Context, resource mirror.Resource, limit int) ([]mirror.Event, error)

	// SessionsOf returns the sessions of some connections to a room, for each at most
	// limit, the latest first.
	SessionsOf(ctx context.Context, room mirror.Resource, connections []int64, limit int) ([]mirror.UserSession, error)

	// ApplySessions deletes and then stores what was folded into a room's sessions.
	// Those that are open in a deleted room end with it. If events still wait, the resource is due again at
	// once. It needs no room.
	ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold, now time.Time) (mirror.Applied, error)

	// NotificationUser returns whom a stored notification is for; empty if none is
	// stored.
	NotificationUser(ctx context.Context, notification mirror.Resource) (string, error)

	// ApplyNotification stores the rows, and with all rows of the notification what
	// the inbox holds. A change entry is written if a row or the inbox differs. A zero
	// FetchTime says that the inbox could not be asked: what is stored of it stays, and
	// the resource is due again at once, as it is if events still wait. It needs no
	// room.
	ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// CleanRoom removes at most limit rows of earlier epochs of a living room and
	// returns how many it removed. A thread goes with its comments and counts once.
	CleanRoom(ctx context.Context, room mirror.Resource, limit int) (int, error)
}

// Sweeps keeps how far the comparison with the list of all rooms is.
type Sweeps interface {
	// Sweep returns the project's latest sweep; the zero Sweep with the project if
	// there has been none.
	Sweep(ctx context.Context, project mirror.ProjectID) (mirror.Sweep, error)

	// PlanSweep makes the project's sweep due at now, from its beginning and with id
	// unless one is under way that is as full. It returns the sweep.
	PlanSweep(ctx context.Context, project mirror.ProjectID, id string, full bool, now time.Time) (mirror.Sweep, error)

	// SaveSweep stores how far the sweep is; ErrLeaseLost if the lease is not held.
	SaveSweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) error

	// ApplySweep stores a sweep that has come to its end, and makes the next due.
	ApplySweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep, next, now time.Time) (mirror.Applied, error)

	// RoomsByID returns those of the rooms that are mirrored, tombstones included.
	RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID) ([]mirror.Room, error)

	// Stored returns what the database holds of a room, document or thread;
	// ErrNotFound.
	Stored(ctx context.Context, resource mirror.Resource) (mirror.Stored, error)

	// Invalidate makes the next apply write the resource's copy and everything derived
	// from it anew, whatever is stored.
	Invalidate(ctx context.Context, resource mirror.Resource) error
}

// Query reads.
type Query interface {
	EventQuery
	MirrorQuery
	TaskQuery
}

// EventQuery reads the ledger.
type EventQuery interface {
	// Event returns one event; ErrNotFound.
	Event(ctx context.Context, project mirror.ProjectID, id string) (mirror.Event, error)
	// Events lists by receive time, latest first, then by id.
	Events(ctx context.Context, filter EventFilter) ([]mirror.Event, error)
}

// MirrorQuery reads copies. Deleted rooms and what was in them are not found unless
// asked for; children of earlier epochs never show.
type MirrorQuery interface {
	// Room returns one room; ErrNotFound.
	Room(ctx context.Context, room mirror.Resource, deleted bool) (mirror.Room, error)
	// Rooms lists by room id in byte order.
	Rooms(ctx context.Context, filter RoomFilter) ([]mirror.Room, error)
	// Document returns one document with its content; ErrNotFound.
	Document(ctx context.Context, document mirror.Resource, deleted bool) (mirror.Document, error)
	// ReadDocuments answers many reads at once, in order, as of one moment; nil
	// for a document that is not there. Content is nil, which no document's is,
	// where the reader holds it already or where it is longer than inline bytes.
	ReadDocuments(ctx context.Context, reads []DocumentRead, inline int64) ([]*mirror.Document, error)
	// Documents lists by room id in byte order, then by kind and id, without
	// content.
	Documents(ctx context.Context, filter DocumentFilter) ([]mirror.Document, error)
	// Thread returns one thread with its source, and without its comments;
	// ErrNotFound.
	Thread(ctx context.Context, thread mirror.Resource, deleted bool) (mirror.Thread, error)
	// Threads lists by room id in byte order, then by thread id, without comments.
	Threads(ctx context.Context, filter ThreadFilter) ([]mirror.Thread, error)
	// Comment returns one comment with its source; ErrNotFound.
	Comment(ctx context.Context, thread mirror.Resource, id string, deleted bool) (mirror.Comment, error)
	// Comments lists by room id in byte order, then by thread, creation and id. What
	// Source holds is not read out again: only ids, times and Source are set.
	Comments(ctx context.Context, filter CommentFilter) ([]mirror.Comment, error)
	// ActiveUsers returns who is in a mirrored room; ErrNotFound without a room. If
	// it was never fetched, its FetchTime is zero.
	ActiveUsers(ctx context.Context, users mirror.Resource, deleted bool) (mirror.ActiveUsers, error)
	// UserSessions lists by BeginTime, latest first, then by id.
	UserSessions(ctx context.Context, filter SessionFilter) ([]mirror.UserSession, error)
	// Notifications lists by CreateTime, latest first, then by event id.
	Notifications(ctx context.Context, filter NotificationFilter) ([]mirror.Notification, error)
}

// TaskQuery reads how a project's tasks stand.
type TaskQuery interface {
	// Task returns one task as of now; ErrNotFound.
	Task(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)
	// TaskList lists by room id in byte order, then by kind and id.
	TaskList(ctx context.Context, filter TaskFilter) ([]mirror.Task, error)
	// Project returns what is stored of a project; the zero Project with its id
	// if nothing is.
	Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	// Counts counts a project's tasks.
	Counts(ctx context.Context, project mirror.ProjectID) (Counts, error)
}

// EventFilter selects events. Empty strings and zero times select all.
type EventFilter struct {
	Project   mirror.ProjectID
	Room      mirror.RoomID
	Type      string
	User      string
	From, To  time.Time // From inclusive, To exclusive
	AfterTime time.Time // keyset: list what comes after this event
	AfterID   string
	NoPayload bool
	Limit     int
}

// RoomFilter selects rooms.
type RoomFilter struct {
	Project mirror.ProjectID
	Prefix  string
	Deleted bool
	// After is the last room id of the page before.
	After mirror.RoomID
	Limit int
}

// DocumentRead names a document somebody wants to read.
type DocumentRead struct {
	Resource mirror.Resource
	// Deleted shows the document of a deleted room too.
	Deleted bool
	// Have is the hash of the content the reader holds; zero if it holds none.
	Have [32]byte
}

// DocumentFilter selects documents.
type DocumentFilter struct {
	Project mirror.ProjectID
	Prefix  string
	// Kind selects one kind; zero selects all.
	Kind mirror.Kind
	// AfterRoom, AfterKind and AfterID name the last document of the page before.
	AfterRoom mirror.RoomID
	AfterKind mirror.Kind
	AfterID   string
	Limit     int
}

// ThreadFilter selects threads. Empty strings and zero times select all.
type ThreadFilter struct {
	Project mirror.ProjectID
	Room    mirror.RoomID
	// Resolved selects threads that are, or are not; nil selects both.
	Resolved *bool
	// Metadata selects threads that have each of these members. A number is spelled
	// as in JSON, a truth value is true or false.
	Metadata map[string]string
	// Author selects threads with a comment by that user.
	Author string
	// Mentioned selects threads with a comment that mentions that user, by himself or
	// as one of a group.
	Mentioned string
	// UpdatedSince selects threads that Liveblocks says were updated then or later.
	UpdatedSince time.Time
	Deleted      bool
	AfterRoom    mirror.RoomID
	AfterID      string
	Limit        int
}

// CommentFilter selects comments. Empty strings and zero times select all.
type CommentFilter struct {
	Project   mirror.ProjectID
	Room      mirror.RoomID
	Thread    string
	Author    string
	Mentioned string
	// UpdatedSince selects comments written, edited or deleted then or later.
	UpdatedSince time.Time
	// Deleted includes deleted comments, and those of deleted threads and rooms.
	Deleted     bool
	AfterRoom   mirror.RoomID
	AfterThread string
	AfterTime   time.Time
	AfterID     string
	Limit       int
}

// SessionFilter selects sessions. Empty strings and zero times select all.
type SessionFilter struct {
	Project mirror.ProjectID
	Room    mirror.RoomID
	User    string
	// Open selects sessions that have not ended.
	Open bool
	// From and To select sessions by BeginTime; From inclusive, To exclusive.
	From, To  time.Time
	AfterTime time.Time
	AfterID   string
	Limit     int
}

// NotificationFilter selects notifications. Empty strings and zero times select
// all.
type NotificationFilter struct {
	Project mirror.ProjectID
	Room    mirror.RoomID
	User    string
	Channel string
	Kind    string
	Thread  string
	// From and To select by CreateTime; From inclusive, To exclusive.
	From, To  time.Time
	AfterTime time.Time
	AfterID   string
	Limit     int
}

// TaskFilter selects tasks. An empty State selects every state but done.
type TaskFilter struct {
	Project   mirror.ProjectID
	Room      mirror.RoomID
	State     mirror.TaskState
	Now       time.Time
	AfterRoom mirror.RoomID
	AfterKind mirror.Kind
	AfterID   string
	Limit     int
}

// Counts are numbers of tasks.
type Counts struct {
	// Pending have a fetch ahead of them, Background are those of them that only a
	// sweep has asked for, Failed have used up their attempts.
	Pending, Background, Failed int64
	// BackgroundRooms are the rooms among Background.
	BackgroundRooms int64
	// OldestDue is the smallest due time; zero if nothing is pending.
	OldestDue time.Time
}

// Feed hands out change entries.
type Feed interface {
	// Changes returns the entries of a bucket with a number above after, in
	// order, at most limit. Numbers appear in commit order and without gaps.
	Changes(ctx context.Context, bucket int16, after int64, limit int) ([]mirror.Change, error)
}
