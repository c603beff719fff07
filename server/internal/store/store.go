// Package store is the contract of the SQL engines: the interfaces that an engine
// implements, and their errors. The suite in storetest is the same contract as
// tests. Where the two differ, the suite is right.
//
// Each method is one unit of atomicity; transactions do not leave it. Methods run
// the whole transaction again after serialization failures and deadlocks. The
// caller passes the time; times are stored with microseconds in UTC. Rows are
// locked in one order everywhere: events, resource states, rooms, children, feed
// heads, each in key order; ApplyDocument locks the document before its state.
//
// Engines decide nothing. [State.MarkStale] defines what it means to become stale,
// and the functions that return a [Plan] decide what happens to a resource when its
// lease ends: an engine loads and locks the rows, calls them, and writes the
// result. A row whose JSON the server refuses is stored without that JSON, and
// DataProblem says why if the row has one. Other rows are not affected.
package store

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The errors of the contract. Any other error is a failure of the database, which
// the engine classifies as unavailable.
var (
	// ErrLeaseLost: the lease ended or was taken over. Nothing was written.
	ErrLeaseLost = errors.New("store: lease lost")
	// ErrEpochChanged: the room is not mirrored, or was deleted or created again
	// since the claim, so the result belongs to another incarnation. Nothing was
	// written. The lease is still held; Fail releases it.
	ErrEpochChanged = errors.New("store: room incarnation changed")
	// ErrCopyChanged: a document was found unchanged, and its copy has changed since the
	// claim. Nothing was written. The lease is still held; Fail releases it.
	ErrCopyChanged = errors.New("store: the copy has changed since the claim")
	// ErrImplausible: a list lacks more resources than are accepted at once; see
	// TooManyVanished. Nothing was written. The lease is still held; Fail releases
	// it.
	ErrImplausible = errors.New("store: the list lacks too much")
	// ErrNotDue: the resource is not due, or another worker holds a lease on it.
	ErrNotDue = errors.New("store: not due")
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("store: not found")
	// ErrSchemaBehind: the database schema is older than this binary needs.
	ErrSchemaBehind = errors.New("store: schema is behind")
	// ErrStarting: the server is starting or recovering from a crash, and will answer.
	ErrStarting = errors.New("store: the database is starting")
	// ErrNotIndexed: a list cannot be read, because too many rooms are still to be indexed.
	ErrNotIndexed = errors.New("store: the rooms are being indexed")
	// ErrReadOnly: the server takes no writes, such as a standby or a primary that
	// was demoted. The sessions to it are closed, so the next call opens new ones.
	ErrReadOnly = errors.New("store: the database takes no writes")
)

// Store is the interface of an engine.
type Store interface {
	Ledger
	Projects
	Tasks
	Mirror
	Sweeps
	Purge
	Retention
	Erasure
	Audit
	Query
	Feed

	// Ping reports whether the database answers, its schema is current, and it takes
	// writes; ErrSchemaBehind or ErrReadOnly if not.
	Ping(ctx context.Context) error
	// Check finds out what the way to the database and the user's rights allow. It
	// adapts to a connection pooler, with a line in log, and returns an error that says
	// what to do about what would fail later. It is for the start.
	Check(ctx context.Context, log *slog.Logger) error
	// Engine returns the engine's name and version, such as "PostgreSQL 15.20".
	Engine(ctx context.Context) (string, error)
	// Inspect describes the server and the way to it, for a diagnosis. It needs no
	// schema.
	Inspect(ctx context.Context) (Server, error)
	// Pools describes the pools of connections. It asks no database.
	Pools() []Pool
	// Close ends all connections.
	Close()
}

// Server describes a database server and the way to it.
type Server struct {
	// Engine is what Store.Engine returns.
	Engine string
	// Encrypted means that the connection has TLS, and Local that it does not leave this
	// machine. Pooled means that it is known to go through a pooler in transaction mode;
	// Store.Check finds out.
	Encrypted, Local, Pooled bool
	// Now is the server's clock.
	Now time.Time
	// MaxPacket is how long a statement can be, in bytes; 0 if that is not limited.
	MaxPacket int64
	// Schema is the version of the schema, 0 if there is none, and Wanted the one that
	// this binary needs.
	Schema, Wanted int64
	// MayMigrate means that the user may create and alter tables, as far as the server
	// tells.
	MayMigrate bool
	// Inexact are columns of ids that do not compare bytes: in them, different ids can
	// be the same.
	Inexact []InexactColumn
}

// InexactColumn is a column of ids that does not compare bytes.
type InexactColumn struct {
	Table, Column string
	// Mend is the statement that mends it.
	Mend string
}

// Pool describes a pool of connections.
type Pool struct {
	// Use is what the connections are for: "work", or "accept", "renew" and "read" if
	// those have connections of their own.
	Use string
	// Max is the maximum number of open connections, InUse and Idle are the open ones.
	Max, InUse, Idle int
	// Waits counts how often somebody had to wait for a connection, and Waited is how long
	// all of them have waited.
	Waits  int64
	Waited time.Duration
}

// Ledger records events.
type Ledger interface {
	// Accept stores the events and marks what they make stale, in one transaction.
	// An event whose (project, id) is already stored in the bucket of its room writes
	// nothing and is reported as not fresh. When Accept returns nil, everything is
	// durable. A batch must not contain an id twice, and what an event makes stale
	// must be in its bucket.
	//
	// Each stale resource gets a new generation and becomes due immediately, but
	// not before its backoff ends and not within the MinInterval of an invalidation
	// after its last fetch. An invalidation with IfUnknown applies only to a
	// resource without a state. An event with a Fold invalidation waits at that
	// resource; see Unfolded.
	//
	// An event that needs a row which another session has locked, a state or the
	// event itself, is not recorded but reported as Locked after a short wait; see
	// LockWait. It keeps no other event of the batch from being recorded.
	//
	// On a sharded server, each bucket of the batch has a transaction of its own: an
	// event and what it makes stale are always committed together, the batch is not. If
	// some of the transactions fail, or all of them while another shard takes writes,
	// their events are reported with Err, and the others are durable.
	Accept(ctx context.Context, batch []mirror.Delivery) ([]Accepted, error)

	// TakeUp works events that were recorded with OutcomeForeignProject like new
	// ones: it stores their outcomes, marks what they make stale, and lets those
	// with a Fold invalidation wait at their resource, in one transaction. Events
	// with another outcome change nothing, nor do those that are not stored with the body
	// they have here: who has erased it meanwhile must not find it again. It returns what
	// became stale. On a sharded server, each bucket has a transaction of its own; after an
	// error some may have been committed, what they made stale is returned with it, and the
	// whole can be repeated.
	TakeUp(ctx context.Context, batch []mirror.Delivery) ([]mirror.Pending, error)

	// Replay marks what recorded events make stale once more, in the background, and
	// lets those with a Fold invalidation wait at their resource again, in one
	// transaction. It changes nothing of the events, and returns what became stale and how
	// many events it replayed: like TakeUp, it leaves out those that are not stored with the
	// body they have here. A sharded server is as there.
	Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) (pending []mirror.Pending, replayed int, err error)
}

// Projects stores what is known of the Liveblocks project behind a project.
type Projects interface {
	// Project returns a stored project, or a zero Project with the id if none is
	// stored.
	Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	// PinProject stores liveblocksID as that of the project unless one is pinned
	// already, and returns the pinned one.
	PinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) (string, error)
	// RepinProject replaces the pinned id, and forgets what NoteForeign stored. With an
	// empty id none is pinned any more.
	RepinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) error
	// NoteForeign adds events that were set aside.
	NoteForeign(ctx context.Context, project mirror.ProjectID, events mirror.ForeignEvents) error
	// NoteUnannounced adds changes of a kind that sweeps found and no event reported to
	// those of the same kind, unless the latest was mirror.UnannouncedLife before.
	NoteUnannounced(ctx context.Context, project mirror.ProjectID, kind mirror.Kind, count int64, now time.Time) error
	// Unannounced returns the unannounced changes of each kind of which there are some,
	// by kind.
	Unannounced(ctx context.Context, project mirror.ProjectID) ([]mirror.Unannounced, error)
	// SaveKeyHash stores the hash of the secret key.
	SaveKeyHash(ctx context.Context, project mirror.ProjectID, hash []byte) error
	// ConfirmKey stores that an operator vouches for the secret key.
	ConfirmKey(ctx context.Context, project mirror.ProjectID, now time.Time) error
	// IdentifyFeed stores the identity of the project's feed unless one is stored already,
	// and returns the stored one.
	IdentifyFeed(ctx context.Context, project mirror.ProjectID, identity [16]byte) ([16]byte, error)
	// ForgetFeeds takes their identities away from the feeds of all projects, and returns how
	// many had one.
	ForgetFeeds(ctx context.Context) (int64, error)
	// Stop stores that and why an operator has stopped fetching; an empty reason lets it
	// go on.
	Stop(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error
	// ConfirmDeletions stores what an operator confirmed to be gone, in place of an
	// earlier confirmation.
	ConfirmDeletions(ctx context.Context, project mirror.ProjectID, confirmed mirror.Confirmation) error
}

// Accepted is the result for one event of a batch.
type Accepted struct {
	// Locked means that the event was not recorded, because another session has
	// locked a row that it needs. The other fields are zero.
	Locked bool
	// Err says why the event was not recorded although others are, in this batch or
	// another. The other fields are zero.
	Err error
	// Fresh is false for an event that had been recorded before.
	Fresh bool
	// Outcome is the recorded outcome; for a duplicate, that of the first delivery.
	Outcome mirror.Outcome
	// Pending are the resources that the event made stale, with their current
	// generations. They are set for a duplicate too, so its sender can wait like
	// the first.
	Pending []mirror.Pending
}

// Tasks manages the right to fetch.
type Tasks interface {
	// Due returns the resources that are due and not leased, ordered by due time, and
	// when the next one will be. It locks nothing. With an error, the list has what the
	// shards that answered have, if any did.
	Due(ctx context.Context, look Look) (DueList, error)

	// Claim leases the resource until now+ttl under the given token if it is due
	// and not leased. Otherwise it returns ErrNotDue. A lease beyond LeaseTooFar does
	// not count. One that has expired without being given back counts as an attempt
	// and as a death.
	Claim(ctx context.Context, resource mirror.Resource, token [16]byte, now time.Time, ttl time.Duration) (mirror.Lease,
		error)

	// Renew moves the end of the lease to until. It returns ErrLeaseLost if the
	// lease is not held.
	Renew(ctx context.Context, lease mirror.Lease, until time.Time) error

	// Park releases the lease without a fetch, because the resource's room is not
	// mirrored. It makes the room due unless it is pending, with the current
	// urgency of the resource. The resource is due again once the room is mirrored.
	Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error)

	// Fail releases the lease after a failure.
	Fail(ctx context.Context, lease mirror.Lease, failure Failure) (mirror.Applied, error)

	// Request marks the resources as stale, as an event does, and clears failures
	// and backoffs. Unknown resources get a state. A background request does not
	// delay urgent work. It is one transaction, on a sharded server one for each bucket.
	Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error)

	// Retry makes a failed, waiting or pending task due immediately and resets its
	// attempts; the generation stays. A lease on it ends. It returns ErrNotFound if there is no such
	// task, ErrNotDue if it is done.
	Retry(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)

	// Discard ends a task without a fetch: nothing of it is due, and a lease on it ends.
	// The copy stays, and stays stale if it was. The next event or request starts it
	// again. It returns ErrNotFound if there is no such task, ErrNotDue if it is done.
	Discard(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)

	// Generations returns the progress of each resource, in order; zero for a
	// resource without a state.
	Generations(ctx context.Context, resources []mirror.Resource) ([]Progress, error)

	// Pause stores why the project is paused; an empty reason resumes it.
	Pause(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error
}

// Look says which resources [Tasks.Due] returns.
type Look struct {
	Project mirror.ProjectID
	// Kinds are those that the caller knows. Others are for a later version.
	Kinds []mirror.Kind
	// Now is the time at which they are due, LeaseTTL how long leases last.
	Now      time.Time
	LeaseTTL time.Duration
	// Limit is the maximum number of urgent resources, and of those in the background.
	Limit int
}

// DueResource is a resource with the time at which it became due.
type DueResource struct {
	mirror.Resource

	Due time.Time
	// Settles means that all that is known of has been applied: it is only to be
	// fetched once more.
	Settles bool
}

// DueList is the result of [Tasks.Due].
type DueList struct {
	// Resources are urgent, Background can wait.
	Resources, Background []DueResource
	// More and MoreBackground mean that there are more than Limit of them.
	More, MoreBackground bool
	// Next is when the next resource becomes due or the lease on a due one ends; zero
	// if there is none.
	Next time.Time
}

// Failure describes a failed fetch.
type Failure struct {
	Now time.Time
	// NotBefore is when the next attempt may begin.
	NotBefore time.Time
	// Uncounted means that the failure does not count as an attempt.
	Uncounted bool
	// Final means that there will be no further attempt.
	Final bool
	// Unsupported means that Liveblocks does not have resources of this kind, so none is
	// to blame: the task waits, without a failure, for an event, a request or Retry.
	Unsupported bool
	// Cause is the text for operators, without secrets or payloads.
	Cause string
}

// Progress says which generation of a resource is applied.
type Progress struct {
	Applied int64
	Failed  bool
	// Waiting means that the task is parked until its room is mirrored or, if
	// Unsupported is set too, because Liveblocks does not have resources of its kind.
	Waiting, Unsupported bool
	// NoticeTime is when the latest event about the resource arrived; zero if none did.
	NoticeTime time.Time
}

// Mirror applies what was fetched. Every method applies the lease's generation in
// the transaction that writes the result. It requires that the lease's token is
// still stored (ErrLeaseLost) and, for children, that the lease's epoch is the
// room's (ErrEpochChanged). It returns the change entries that it has written, with
// their numbers, so that who follows the feed need not read them.
//
// If an event was recorded since the last settle fetch and none is newer than the
// lease, the resource is due once more after settle, because a read soon after an
// event may return the state before it. Zero means no settle fetch.
type Mirror interface {
	// ApplyRoom stores a room as fetched. If the room is new, was a tombstone or
	// has another CreateTime than the stored one, a new epoch begins and everything
	// in the room becomes stale. The latter also applies to a room that was
	// missing. A change entry is written if Source or the epoch changed.
	ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// ApplyDocument stores a document as fetched. It may decide based on what the
	// lease has seen, if that is still true. If the same bytes, or others of the
	// same StateSHA256, are already stored in this epoch with the same derive
	// version, only the two times change and no change entry is written. If it is not
	// so, a document without derived columns is refused (ErrCopyChanged).
	ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// ApplyMissing records that, according to Liveblocks, there is no such room.
	//
	// On a room: if no fetch has contradicted an accepted delete event, the room
	// becomes a tombstone, its epoch increases, its children have nothing more to
	// do, its open sessions end, and a change entry is written. Otherwise
	// missing_since is set and nothing is deleted. Only a fetch after which nothing
	// is due contradicts: an earlier one may have read the state before the event.
	// Kinds that outlive their room are not its children.
	//
	// On a child: the room becomes due, with the current urgency of the child,
	// unless it is missing or deleted itself; then the child has nothing more to
	// do. While the room is not deleted, the response counts as a failed attempt,
	// described by failure.
	ApplyMissing(ctx context.Context, lease mirror.Lease, failure Failure, settle time.Duration) (mirror.Applied, error)

	// ApplyItem stores an item: a resource of a kind that [ItemKindOf] knows. It writes
	// nothing but times if the same item is stored, and otherwise the rows that differ.
	ApplyItem(ctx context.Context, lease mirror.Lease, item Item, fetchTime, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// PrepareItem writes a piece of the rows of a long item that differ, and reports
	// whether it did; see [WriteItem]. It leaves at most PieceRows to ApplyItem. Until
	// that has been called, readers do not see a new item and see an old one as stale.
	// It removes JSON from the item that the database refuses.
	PrepareItem(ctx context.Context, lease mirror.Lease, item *Item) (bool, error)

	// ApplyItemMissing records that Liveblocks does not have the item, but has its
	// room. If the deletion is confirmed as that of a room is (see ApplyMissing), the
	// item becomes a tombstone. Otherwise missing_since is set and nothing is deleted.
	ApplyItemMissing(ctx context.Context, lease mirror.Lease, now time.Time, settle time.Duration) (mirror.Applied, error)

	// KnownItems returns what is stored of the items of a list, by id. The list is the
	// resource without an id. It locks nothing.
	KnownItems(ctx context.Context, list mirror.Resource) (map[string]Known, error)

	// AddItems stores those of the items that have no state yet, and returns their change
	// entries, in order. The lease is that of their list, and goes on; see [ApplyList].
	AddItems(ctx context.Context, lease mirror.Lease, items []Item, fetchTime, now time.Time) ([]mirror.Change, error)

	// MarkListed marks resources stale under the lease of their list, which goes on.
	MarkListed(ctx context.Context, lease mirror.Lease, stale []Stale) error

	// ApplyListed marks the last resources stale and ends the lease of the list.
	ApplyListed(ctx context.Context, lease mirror.Lease, fetchTime time.Time, stale []Stale, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// ApplyActiveUsers stores the active users of the room. A change entry is
	// written if readers see other users than before; they do not see those of an
	// earlier epoch, and empty info equals no info. Open sessions that began before
	// absentBefore end with the fetch if their connection is missing or belongs to
	// another user. An empty list ends none if the one before it was not empty or
	// there was none: the resource is due again after ActiveUsersInterval instead.
	ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent, absentBefore,
		now time.Time, settle time.Duration) (mirror.Applied, error)

	// Unfolded returns at most limit events that wait at the resource, in the order
	// in which they happened. It costs the same however many wait.
	Unfolded(ctx context.Context, resource mirror.Resource, limit int) ([]mirror.Event, error)

	// SessionsOf returns the sessions of some connections to a room, at most limit
	// for each, newest first.
	SessionsOf(ctx context.Context, room mirror.Resource, connections []int64, limit int) ([]mirror.UserSession, error)

	// ApplySessions first deletes and then stores sessions of a room. Open ones in
	// a deleted room end with it. If events still wait, the resource is due again
	// immediately. It requires no room.
	ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold, now time.Time) (mirror.Applied, error)

	// NotificationUser returns the user of a stored notification; empty if none is
	// stored.
	NotificationUser(ctx context.Context, notification mirror.Resource) (string, error)

	// ApplyNotification stores the rows, and the inbox entry with all rows of the
	// notification. A change entry is written if a row or the inbox entry differs.
	// A zero FetchTime means that the inbox could not be fetched: the stored entry
	// stays, and the resource is due again immediately, as it is if events still
	// wait. It requires no room.
	ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold, now time.Time,
		settle time.Duration) (mirror.Applied, error)

	// CleanRoom deletes at most limit rows of earlier epochs of a room that is not
	// deleted, and returns how many it deleted. A thread with its comments counts
	// once.
	CleanRoom(ctx context.Context, room mirror.Resource, limit int) (int, error)

	// IndexRooms writes the terms of at most limit rooms behind a place of which they are
	// missing or of an earlier version, of a project or, if it is empty, of all. It returns
	// the last of them and how many rooms it has looked at; 0 if there are none.
	// ApplyRoom writes those of the rooms that it writes, but versions of the service
	// before schema 25 do not. Lists do not depend on it: they look at such rooms one by
	// one, as long as there are few.
	IndexRooms(ctx context.Context, project mirror.ProjectID, after IndexPlace, limit int) (last IndexPlace, n int,
		err error)

	// IndexThreads is IndexRooms for threads, whose terms versions before schema 26 do not
	// write.
	IndexThreads(ctx context.Context, project mirror.ProjectID, after IndexPlace, limit int) (last IndexPlace, n int,
		err error)

	// CleanTerms looks at no more than limit terms of a kind in a bucket, behind one, and
	// deletes those of rooms that are missing or deleted, or of threads that are missing.
	// What deletes rooms and threads deletes their terms, but in versions of the service
	// before schema 25 and 26 it does not.
	CleanTerms(ctx context.Context, project mirror.ProjectID, of mirror.Kind, bucket int16, after TermPlace, limit int) (
		CleanedTerms, error)
}

// Sweeps stores the progress of sweeps.
type Sweeps interface {
	// Sweep returns the project's latest sweep; the zero Sweep with the project if
	// there has been none.
	Sweep(ctx context.Context, project mirror.ProjectID) (mirror.Sweep, error)

	// PlanSweep makes the project's sweep due at now. It starts over with id unless
	// a sweep of at least the same extent is running. It returns the sweep.
	PlanSweep(ctx context.Context, project mirror.ProjectID, id string, full bool, now time.Time) (mirror.Sweep, error)

	// SaveSweep stores the progress of the sweep. It returns ErrLeaseLost if the
	// lease is not held.
	SaveSweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) error

	// ApplySweep stores a finished sweep and makes the next one due.
	ApplySweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep, next, now time.Time) (mirror.Applied, error)

	// RoomsByID returns the rooms with these ids that are mirrored, including
	// tombstones. They have their Source only if source is set.
	RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, source bool) ([]mirror.Room, error)

	// RoomIDs lists the ids of the rooms that [MirrorQuery.Rooms] lists.
	RoomIDs(ctx context.Context, filter RoomFilter) ([]mirror.RoomID, error)

	// Stored returns the stored columns of a room or document, or ErrNotFound.
	Stored(ctx context.Context, resource mirror.Resource) (mirror.Stored, error)

	// StoredItem returns an item as its tables hold it, without digests, or ErrNotFound.
	// A part is in no order. Of an item that is being written it can return rows of two
	// versions.
	StoredItem(ctx context.Context, resource mirror.Resource) (Item, error)

	// Invalidate makes the next apply rewrite the resource's copy and derived
	// columns, whatever is stored.
	Invalidate(ctx context.Context, resource mirror.Resource) error
}

// Purge removes what deleted rooms and removed projects have left.
type Purge interface {
	// DeletedRooms lists the rooms that were deleted before a time, ordered by the bytes
	// of the room id, from the first after the given one.
	DeletedRooms(ctx context.Context, project mirror.ProjectID, before time.Time, after mirror.RoomID,
		limit int) ([]mirror.RoomID, error)

	// Remains counts the rows that PurgeRoom would change for a deleted room, by table.
	Remains(ctx context.Context, room mirror.Resource) (TableRows, error)

	// PurgeRoom removes at most limit rows of what is left of a room that was deleted
	// before a time, and returns how many, by table: the rows of RoomTables, the bodies and users
	// of its events and, last, its JSON. It changes nothing, and returns ErrNotFound, of a room
	// that is alive, was deleted later, or is not mirrored, and while something is to be fetched of
	// the room itself: it may be there after all. What stays is the tombstone, the states and the events
	// without bodies and users, so that a late or repeated delivery means what it would have
	// meant. Leases on what is folded in the room end, so that nobody writes what was read
	// before. Events of another Liveblocks project keep theirs; see TakeUp.
	PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (TableRows, error)

	// ProjectIDs lists the projects of which something is stored, ordered by the bytes of
	// the id.
	ProjectIDs(ctx context.Context) ([]mirror.ProjectID, error)

	// RemainsOfProject counts the rows of a bucket that PurgeProject would change.
	RemainsOfProject(ctx context.Context, project mirror.ProjectID, bucket int16) (int64, error)

	// PurgeProject removes at most limit rows of a project and a bucket, and returns how
	// many: those of ProjectTables, and what its change entries name. The entries
	// themselves stay, because projects share the numbers of a bucket, and a number that
	// is missing would look to the followers of another project as if it had been missed.
	// The project must not be served.
	PurgeProject(ctx context.Context, project mirror.ProjectID, bucket int16, limit int) (int, error)

	// ForgetProject removes the rows of ProjectRows. It is the last step of a purge.
	ForgetProject(ctx context.Context, project mirror.ProjectID) error
}

// Retention removes what is old.
type Retention interface {
	// Expire looks at some rows of a table, the oldest first, and deletes those that are
	// [Aging.Expired], with what belongs to them. Of a room the row stays, without its JSON,
	// and so do all states, so that what comes late finds the room deleted. It waits for no
	// row that another session has locked: such rows stay, on MySQL with all others of the
	// look. Several replicas may do it at once. On a sharded server each bucket has a
	// transaction of its own; after an error some may have been committed, and the whole can
	// be repeated.
	Expire(ctx context.Context, expiry Expiry) (Expired, error)
	// Oldest returns the time of the oldest row of each table, as it ages; none of a table
	// without rows.
	Oldest(ctx context.Context, project mirror.ProjectID) (map[Aging]time.Time, error)
}

// Erasure finds and removes what the mirror has of a user. [Personal] says where that can
// be. Each call is about one bucket, and changes rows in one transaction.
type Erasure interface {
	// PersonalRows returns rows of a table and a bucket after the one with a key, in key
	// order; nil is before all. They are at most limit, and take at most size bytes, about,
	// unless the first one alone takes more; none means that there are no more. It locks
	// nothing.
	PersonalRows(ctx context.Context, project mirror.ProjectID, table *PersonalTable, bucket int16, after []any,
		limit int, size int64) ([]PersonalRow, error)

	// EraseRows judges the rows with some keys once more, while nobody can change them, and
	// does what is decided; see [PersonalTable.Judge]. With dryRun it changes nothing, but the
	// result is the same, without changes. If the table is one of what is folded, leases on
	// the resources of changed rows end, so that nobody writes what was read before, and each
	// resource that readers see gets a change entry. The attachments of the user's comments
	// go first, and a call ends early once EraseAttachments went.
	EraseRows(ctx context.Context, project mirror.ProjectID, table *PersonalTable, bucket int16, keys [][]any,
		subject Subject, dryRun bool, now time.Time) (Erased, error)
}

// Audit keeps who has changed something for operators, and who was refused.
type Audit interface {
	// RecordAudit writes entries, which differ in their project and id: all or none. If there is
	// one with that id in the project, its end moves to the later one, an entry with an end
	// replaces its code and reason, and refused calls are added.
	RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error
}

// Query reads. What a list's filter names selects together; zero values select
// nothing out, but a Limit of zero leaves no rows.
type Query interface {
	EventQuery
	MirrorQuery
	TaskQuery
	AuditQuery

	// LastEvents returns when the latest event was received, and when the latest one
	// of each of these types was.
	LastEvents(ctx context.Context, project mirror.ProjectID, types []string) (mirror.LastEvents, error)
}

// EventQuery reads the ledger.
type EventQuery interface {
	// Event returns one event; ErrNotFound. It looks in every bucket. Of several rooms
	// that have an event of the same id, the first one received counts.
	Event(ctx context.Context, project mirror.ProjectID, id string) (mirror.Event, error)
	// EventOf returns one event in the bucket of a room, which may be empty; ErrNotFound.
	EventOf(ctx context.Context, project mirror.ProjectID, room mirror.RoomID, id string) (mirror.Event, error)
	// Events lists events by receive time, newest first, then by id.
	Events(ctx context.Context, filter EventFilter) ([]mirror.Event, error)
}

// AuditQuery reads the audit.
type AuditQuery interface {
	// AuditEntries lists entries by time, newest first, then by id.
	AuditEntries(ctx context.Context, filter AuditFilter) ([]mirror.AuditEntry, error)
}

// MirrorQuery reads copies. It finds deleted rooms and their content only on
// request, and never children of earlier epochs.
type MirrorQuery interface {
	// Room returns one room; ErrNotFound.
	Room(ctx context.Context, room mirror.Resource, deleted bool) (mirror.Room, error)
	// Rooms lists rooms, ordered by the bytes of the room id.
	Rooms(ctx context.Context, filter RoomFilter) ([]mirror.Room, error)
	// LatestRooms lists rooms that are not deleted by ListTime, newest first, then by the
	// bytes of the room id. ErrNotIndexed if too many have no terms yet.
	LatestRooms(ctx context.Context, filter LatestRoomFilter) ([]mirror.Room, error)
	// Document returns one document with its content; ErrNotFound. Content that cannot be unpacked
	// is an error, and none of the database.
	Document(ctx context.Context, document mirror.Resource, deleted bool) (mirror.Document, error)
	// ReadDocuments answers many reads in order, as of one point in time; nil for a
	// document that does not exist. Content is nil if the reader already has it, if it is
	// longer than inline bytes, or if it cannot be unpacked, which is no failure of the others:
	// see [mirror.Document.Damage]. No document has nil content.
	ReadDocuments(ctx context.Context, reads []DocumentRead, inline int64) ([]*mirror.Document, error)
	// Documents lists documents without content, ordered by the bytes of the room
	// id, then by kind and id.
	Documents(ctx context.Context, filter DocumentFilter) ([]mirror.Document, error)
	// Thread returns one thread with its source, without its comments; ErrNotFound.
	Thread(ctx context.Context, thread mirror.Resource, deleted bool) (mirror.Thread, error)
	// ThreadsByID returns those of some threads that are mirrored and not deleted, in any
	// order, without their comments. The source of one that is longer than inline bytes is nil.
	ThreadsByID(ctx context.Context, project mirror.ProjectID, threads []mirror.Resource, inline int64) (
		[]mirror.Thread, error)
	// Threads lists threads without comments, ordered by the bytes of the room id,
	// then by thread id.
	Threads(ctx context.Context, filter ThreadFilter) ([]mirror.Thread, error)
	// Group returns one group without its members; ErrNotFound.
	Group(ctx context.Context, group mirror.Resource, deleted bool) (mirror.Group, error)
	// GroupsByID returns those of some groups that are mirrored and not deleted, in any order,
	// without their members.
	GroupsByID(ctx context.Context, project mirror.ProjectID, groups []mirror.Resource) ([]mirror.Group, error)
	// Groups lists groups without members, ordered by the bytes of the group id.
	Groups(ctx context.Context, filter GroupFilter) ([]mirror.Group, error)
	// Comment returns one comment with its source; ErrNotFound.
	Comment(ctx context.Context, thread mirror.Resource, id string, deleted bool) (mirror.Comment, error)
	// Comments lists comments, ordered by the bytes of the room id, then by thread,
	// creation time and id. It sets only ids, times and Source.
	Comments(ctx context.Context, filter CommentFilter) ([]mirror.Comment, error)
	// ActiveUsers returns the active users of a mirrored room; ErrNotFound if there
	// is no room. FetchTime is zero if they were never fetched.
	ActiveUsers(ctx context.Context, users mirror.Resource, deleted bool) (mirror.ActiveUsers, error)
	// ActiveUsersByRoom returns those of the rooms of some resources that are mirrored and not
	// deleted, in any order.
	ActiveUsersByRoom(ctx context.Context, project mirror.ProjectID, rooms []mirror.Resource) ([]mirror.ActiveUsers, error)
	// UserSessions lists sessions by BeginTime, newest first, then by id.
	UserSessions(ctx context.Context, filter SessionFilter) ([]mirror.UserSession, error)
	// Notifications lists notifications by CreateTime, newest first, then by event
	// id.
	Notifications(ctx context.Context, filter NotificationFilter) ([]mirror.Notification, error)
}

// TaskQuery reads the tasks of a project.
type TaskQuery interface {
	// Task returns one task as of now; ErrNotFound.
	Task(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)
	// Tasks returns those of some resources of a room of which there is a task, in key order.
	Tasks(ctx context.Context, resources []mirror.Resource, now time.Time) ([]mirror.Task, error)
	// TaskList lists tasks, ordered by the bytes of the room id, then by kind and
	// id.
	TaskList(ctx context.Context, filter TaskFilter) ([]mirror.Task, error)
	// Counts counts a project's tasks.
	Counts(ctx context.Context, project mirror.ProjectID) (Counts, error)
}

// Prefixes select what is in a room whose id begins with one of them. They are in order,
// and none begins with another. Nil selects everything, an empty list nothing.
type Prefixes []string

// Select reports whether something in the room is selected.
func (p Prefixes) Select(room mirror.RoomID) bool {
	return p == nil || slices.ContainsFunc(p, func(prefix string) bool { return strings.HasPrefix(string(room), prefix) })
}

// Within returns the prefixes that select what is selected and is in a room whose id begins
// with prefix.
func (p Prefixes) Within(prefix string) Prefixes {
	if p == nil {
		return Prefixes{prefix}
	}
	both := Prefixes{}
	for _, room := range p {
		switch {
		case strings.HasPrefix(room, prefix):
			both = append(both, room)
		case strings.HasPrefix(prefix, room):
			both = append(both, prefix)
		}
	}
	return both
}

// EventFilter selects events. Empty strings and zero times select all.
type EventFilter struct {
	Project   mirror.ProjectID
	Rooms     Prefixes
	Room      mirror.RoomID
	Type      string
	User      string
	Thread    string
	Outcome   mirror.Outcome
	From, To  time.Time // From inclusive, To exclusive
	AfterTime time.Time // keyset: list events after this one
	AfterID   string
	NoPayload bool
	Limit     int
}

// AuditFilter selects entries of the audit. Empty strings and zero times select all, but an
// empty project selects the entries that are of none.
type AuditFilter struct {
	Project mirror.ProjectID
	Method  string
	Caller  string
	// Denied selects refused calls only, or only others.
	Denied    *bool
	From, To  time.Time // From inclusive, To exclusive
	AfterTime time.Time // keyset: list entries after this one
	AfterID   string
	Limit     int
}

// RoomFilter selects rooms.
type RoomFilter struct {
	Project mirror.ProjectID
	Rooms   Prefixes
	Prefix  string
	Deleted bool
	// After is the last room id of the previous page.
	After mirror.RoomID
	Limit int
}

// DocumentRead names a document to read.
type DocumentRead struct {
	Resource mirror.Resource
	// Deleted includes the document of a deleted room.
	Deleted bool
	// Have is the hash of the content that the reader has; zero if it has none.
	Have [32]byte
}

// DocumentFilter selects documents.
type DocumentFilter struct {
	Project mirror.ProjectID
	Rooms   Prefixes
	Prefix  string
	// Kind selects one kind; zero selects all.
	Kind mirror.Kind
	// AfterRoom, AfterKind and AfterID name the last document of the previous page.
	AfterRoom mirror.RoomID
	AfterKind mirror.Kind
	AfterID   string
	Limit     int
}

// GroupFilter selects groups.
type GroupFilter struct {
	Project mirror.ProjectID
	// User selects groups that have this member; empty selects all.
	User    string
	Deleted bool
	// After is the last group id of the previous page.
	After string
	Limit int
}

// ThreadFilter selects threads. Empty strings and zero times select all.
type ThreadFilter struct {
	Project mirror.ProjectID
	Rooms   Prefixes
	Room    mirror.RoomID
	// Resolved selects resolved or unresolved threads; nil selects both.
	Resolved *bool
	// Metadata selects threads that have all of these members. Numbers are written
	// as in JSON, booleans as true or false.
	Metadata map[string]string
	// Author selects threads with a comment by that user.
	Author string
	// Mentioned selects threads with a comment that mentions that user, directly or
	// through a group.
	Mentioned string
	// UpdatedSince selects threads updated then or later, according to Liveblocks.
	UpdatedSince time.Time
	Deleted      bool
	AfterRoom    mirror.RoomID
	AfterID      string
	Limit        int
}

// CommentFilter selects comments. Empty strings and zero times select all.
type CommentFilter struct {
	Project   mirror.ProjectID
	Rooms     Prefixes
	Room      mirror.RoomID
	Thread    string
	Author    string
	Mentioned string
	// UpdatedSince selects comments created, edited or deleted then or later.
	UpdatedSince time.Time
	// Deleted includes deleted comments and comments of deleted threads and rooms.
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
	Rooms   Prefixes
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
	Rooms   Prefixes
	Room    mirror.RoomID
	User    string
	// ID is that of the inbox notification; no index serves it alone.
	ID      string
	Channel string
	Kind    string
	Thread  string
	// From and To select by CreateTime; From inclusive, To exclusive.
	From, To  time.Time
	AfterTime time.Time
	AfterID   string
	Limit     int
}

// TaskFilter selects tasks. An empty State selects every state except done.
type TaskFilter struct {
	Project   mirror.ProjectID
	Rooms     Prefixes
	Room      mirror.RoomID
	State     mirror.TaskState
	Now       time.Time
	AfterRoom mirror.RoomID
	AfterKind mirror.Kind
	AfterID   string
	Limit     int
}

// Counts holds numbers of tasks.
type Counts struct {
	// Pending tasks have a fetch ahead of them. Background tasks are those of them
	// that only a sweep requested. Failed tasks failed on their last attempt.
	Pending, Background, Failed int64
	// BackgroundRooms counts the rooms among Background.
	BackgroundRooms int64
	// OldestDue is the smallest due time; zero if nothing is pending. OldestLive is that of
	// the tasks that are neither of the background nor a sweep, which may take hours.
	OldestDue, OldestLive time.Time
}

// Feed reads change entries. Once [Feed.Heads] has told of a number, a later call reads all
// entries up to it, and what is missing at the beginning was trimmed; see [Advance].
//
// Numbers are given in commit order, but one read need not see commits in that order:
// MariaDB collects the transactions that are running one by one. If two commit meanwhile,
// the second after waiting for the first, it can take the first for running and the second
// for committed. What begins after a read that has seen the second sees both.
type Feed interface {
	// Heads returns the position after the latest entry of each bucket.
	Heads(ctx context.Context) (mirror.Position, error)
	// Earliest returns the position before the first entry of each bucket that was not
	// trimmed, or after the latest if there is none.
	Earliest(ctx context.Context) (mirror.Position, error)
	// Changes returns the entries in some ranges of different buckets, by bucket and
	// number. The ranges say how many they can be. The entries of a project that was purged
	// name nothing, and no project.
	Changes(ctx context.Context, ranges []ChangeRange) ([]mirror.Change, error)
	// Copies lists what is mirrored, of one kind and without deleted rooms and what is in
	// them, as if each had just become what it is: an upsert with the revision of the copy,
	// the epoch of its room, and no time. The list is ordered by the bytes of the room id,
	// then by kind and id. Of kinds that are history, and of lists, there are no copies. What
	// does not change after Heads is in a list that is read afterwards, page by page.
	Copies(ctx context.Context, filter CopyFilter) (CopyPage, error)
	// Trim deletes the first entries of a bucket, at most limit and none with a number
	// above through, and returns how many.
	Trim(ctx context.Context, bucket int16, through int64, limit int) (int, error)
}

// CopyFilter selects copies.
type CopyFilter struct {
	Project mirror.ProjectID
	Rooms   Prefixes
	// Room is the only room, if it is set.
	Room mirror.RoomID
	// Kind says what is listed. Documents of both kinds are one list, in which it is that of
	// the last one of the previous page.
	Kind mirror.Kind
	// AfterRoom and AfterID say where the previous page ended.
	AfterRoom mirror.RoomID
	AfterID   string
	// Limit is how many rows are looked at: those of what is deleted count.
	Limit int
}

// CopyPage is a page of copies.
type CopyPage struct {
	Copies []mirror.Change
	// Last is where the page ends, whether there is a copy or not.
	Last mirror.Resource
	// More means that there can be more behind it.
	More bool
}

// ChangeRange is the entries of a bucket with numbers above After, up to To.
type ChangeRange struct {
	Bucket    int16
	After, To int64
}
