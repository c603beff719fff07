// Package mirror defines the domain: resources, events, leases and mirrored copies.
// It imports only the standard library, so every other package can use it without
// depending on a protocol or a driver.
package mirror

import (
	"cmp"
	"crypto/sha256"
	"strings"
	"time"
	"unicode/utf8"
)

// ProjectID is the local id of a Liveblocks project: [a-z0-9-], 1 to 64 bytes.
type ProjectID string

// RoomID is a room's id, byte for byte as in Liveblocks.
type RoomID string

// Maximum lengths of ids in bytes. Liveblocks allows 128 characters for a room id,
// which is 512 bytes at four bytes per character.
const (
	MaxProjectID = 64
	MaxRoomID    = 512
	MaxUserID    = 512
	MaxEventID   = 128
	// MaxResourceID is for everything inside a room.
	MaxResourceID = 128
	// MaxEmoji is for the emoji of a reaction; joined emoji are long.
	MaxEmoji = 64
)

// MaxSubdocuments is the maximum number of mirrored subdocuments of one document.
const MaxSubdocuments = 1000

// ValidProjectID reports whether s is valid as a project id.
func ValidProjectID(s string) bool {
	if s == "" || len(s) > MaxProjectID {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Storable reports whether every engine can store s as text: valid UTF-8 without
// NUL.
func Storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// ValidID reports whether s can be stored as an id: not empty and at most limit
// bytes. Ids are never trimmed, folded or normalised.
func ValidID(s string, limit int) bool { return s != "" && len(s) <= limit && Storable(s) }

// Resource identifies one unit of mirroring. ID distinguishes resources of the same
// kind in a room and is empty if there is only one.
type Resource struct {
	Project ProjectID
	Room    RoomID
	Kind    Kind
	ID      string
}

// Valid reports whether such a resource can exist: depending on the kind, a room
// and an id are required, optional or not allowed.
func (r Resource) Valid() bool {
	t := r.Kind.Traits()
	inRoom, named := ValidID(string(r.Room), MaxRoomID), ValidID(r.ID, MaxResourceID)
	room := map[Scope]bool{
		ScopeRoom: inRoom, ScopeUser: inRoom || r.Room == "", ScopeProject: r.Room == "",
	}[t.Scope]
	id := map[IDRule]bool{IDNone: r.ID == "", IDOptional: named || r.ID == "", IDRequired: named}[t.ID]
	return t.Name != "" && room && id
}

// Bucket returns the bucket of the resource's rows; see [Bucket].
func (r Resource) Bucket() int16 { return Bucket(r.Project, string(r.Room)) }

// RoomResource returns the resource of the room that r belongs to.
func (r Resource) RoomResource() Resource {
	return Resource{Project: r.Project, Room: r.Room, Kind: KindRoom}
}

// Compare orders resources by their primary key, the order in which rows are
// locked everywhere.
func (r Resource) Compare(o Resource) int {
	return cmp.Or(
		cmp.Compare(r.Bucket(), o.Bucket()),
		cmp.Compare(r.Project, o.Project),
		cmp.Compare(r.Room, o.Room),
		cmp.Compare(r.Kind, o.Kind),
		cmp.Compare(r.ID, o.ID),
	)
}

// Buckets is the number of buckets.
const Buckets = 256

// Bucket returns the first 8 bits of SHA-256(project, 0x00, room). Every primary key
// starts with it, so the rows of one room stay together on a sharded engine, and moving
// to one rewrites no key. What belongs to no room is in the bucket of the empty room id.
// It must never change; a test pins its values.
func Bucket(project ProjectID, room string) int16 {
	buf := make([]byte, 0, 256)
	buf = append(buf, project...)
	buf = append(buf, 0)
	buf = append(buf, room...)
	sum := sha256.Sum256(buf)
	return int16(sum[0])
}

// Event is one signed webhook delivery as recorded.
type Event struct {
	Project ProjectID
	// ID is the webhook-id header. It identifies the delivery.
	ID string
	// Type is the payload's type, empty if it could not be read.
	Type string
	// Room is the room that the payload names; empty if it names none or the id
	// cannot be stored.
	Room RoomID
	// User is the user that the payload names; empty if it names none or the id
	// cannot be stored.
	User string
	// Thread is the thread that the payload names; empty if it names none or the id cannot
	// be stored, and in events that earlier versions recorded.
	Thread string
	// LiveblocksProject is Liveblocks' id of the project, from the payload.
	LiveblocksProject string
	// Payload is the body as it was received and signed.
	Payload []byte
	// SendTime is the signed webhook-timestamp of the delivery.
	SendTime time.Time
	// ReceiveTime is when the delivery reached the service.
	ReceiveTime time.Time
	// SourceTime is when the change happened, according to the payload; zero if it
	// does not say.
	SourceTime time.Time
	// Outcome says what the service did with the event.
	Outcome Outcome
	// Secret tells which signing secret verified the delivery: the first digits of its
	// SHA-256. It is empty in events that earlier versions recorded.
	Secret string
}

// Bucket returns the bucket of the event's row; see [Bucket]. It is that of its room, and
// so of all that the event makes stale.
func (e Event) Bucket() int16 { return Bucket(e.Project, string(e.Room)) }

// HappenTime is when the change happened, as far as known. Waiting events are in its
// order.
func (e Event) HappenTime() time.Time {
	if e.SourceTime.IsZero() {
		return e.ReceiveTime
	}
	return e.SourceTime
}

// LastEvents says when the latest recorded events of a project were received.
type LastEvents struct {
	// Time is when the latest one of all was; zero if there is none.
	Time time.Time
	// ByType has the types of which there is one.
	ByType map[string]time.Time
}

// Outcome says what the service did with an event when it recorded it.
type Outcome string

// The outcomes.
const (
	// OutcomeQueued: what the event makes stale became due.
	OutcomeQueued Outcome = "queued"
	// OutcomeRecorded: the type is known and makes nothing stale. Also set by
	// earlier versions that mirrored fewer kinds.
	OutcomeRecorded Outcome = "recorded"
	// OutcomeUnknownType: signed, of a type that this version does not know.
	OutcomeUnknownType Outcome = "unknown_type"
	// OutcomeMalformed: signed, but not a well-formed event.
	OutcomeMalformed Outcome = "malformed"
	// OutcomeIDInvalid: names a resource whose id cannot be stored.
	OutcomeIDInvalid Outcome = "id_invalid"
	// OutcomeForeignProject: from a Liveblocks project other than the pinned one.
	OutcomeForeignProject Outcome = "foreign_project"
)

// Invalidation states that a resource may have changed in Liveblocks.
type Invalidation struct {
	Resource Resource
	// IfUnknown limits it to a resource that has no state yet.
	IfUnknown bool
	// Deleted means that the event announces the deletion of the resource.
	Deleted bool
	// MinInterval keeps the next fetch at least this long after the last one.
	MinInterval time.Duration
	// Fold means that the event itself is folded into the resource. It waits until
	// the resource's task does so.
	Fold bool
}

// Request requests a fetch of a resource.
type Request struct {
	Resource Resource
	// Unlisted means that a complete list does not contain the resource, which
	// counts like a delete event.
	Unlisted bool
	// Background gives the fetch a lower priority than all other work.
	Background bool
	// Settle means that it has changed just now. Liveblocks may still return the state before,
	// so a settle fetch follows.
	Settle bool
}

// Delivery is an event with what it makes stale.
type Delivery struct {
	Event         Event
	Invalidations []Invalidation
}

// Pending is a resource with the generation that an event or request gave it.
// Waiting for it means waiting until that generation is applied.
type Pending struct {
	Resource   Resource
	Generation int64
	// Cause is the span of the delivery that made it stale; zero if it is in no trace.
	Cause Span
}

// Span identifies a part of a trace.
type Span struct {
	Trace [16]byte
	ID    [8]byte
}

// Lease is the right to fetch one resource, and the fence around the result: it is
// applied only while Token and Epoch still hold.
type Lease struct {
	Resource Resource
	// Token is random and never used twice.
	Token [16]byte
	// Until is when the lease expires unless it is renewed.
	Until time.Time
	// Generation is the generation that the result will reflect.
	Generation int64
	// Applied is the generation of the copy in the mirror.
	Applied int64
	// Epoch is the incarnation of the room, 0 if the room is not mirrored.
	Epoch int64
	// Gone means that the room is a tombstone.
	Gone bool
	// Attempts counts the failures since the last success, and the deaths of the
	// process during the task.
	Attempts int
	// Deaths counts how often the process ended during the task since its last success.
	Deaths int
	// Settle means that an event arrived since the last settle fetch, NoticeTime when
	// the latest one did.
	Settle     bool
	NoticeTime time.Time
	// SourceTime is the latest time of change that an event reported.
	SourceTime time.Time
	// FetchTime is when the fetch of the mirrored copy began; zero if there is
	// none.
	FetchTime time.Time
	// Background means that only a sweep requested the fetch.
	Background bool
	// Joined are the leases on children of a room that were fetched together with it;
	// see Applied.Joined.
	Joined []Lease
	// Seen is what the claim has also read of a document; nil for other kinds.
	Seen *Seen
}

// Seen is the basis on which an engine may decide about a document, if it checks
// that it has not changed.
type Seen struct {
	// Due is when the document was due.
	Due time.Time
	// DeleteGeneration is the generation of a delete event that no fetch has contradicted.
	DeleteGeneration int64
	SourceUpdateTime time.Time
	// Copy identifies the stored copy.
	Copy DocumentCopy
}

// DocumentCopy identifies the stored copy of a document; the zero DocumentCopy
// means none.
type DocumentCopy struct {
	Epoch  int64
	SHA256 [32]byte
	// StateSHA256 is that of the content; see [DocumentContent].
	StateSHA256   [32]byte
	DeriveVersion int
}

// Same reports whether a document that was fetched is the stored one, whatever its
// encoding.
func (c DocumentCopy) Same(fetched DocumentCopy) bool {
	if c.Epoch != fetched.Epoch || c.DeriveVersion != fetched.DeriveVersion {
		return false
	}
	var none [32]byte
	return c.SHA256 == fetched.SHA256 || c.SHA256 != none && c.StateSHA256 != none && c.StateSHA256 == fetched.StateSHA256
}

// Fetched is a response of the Liveblocks API, not yet applied.
type Fetched struct {
	// Body is the response, byte for byte.
	Body []byte
	// FetchTime is when the request began. The response includes everything that
	// happened before.
	FetchTime time.Time
}

// RoomContent is a room as fetched.
type RoomContent struct {
	FetchTime time.Time
	// Source is the room's JSON, byte for byte.
	Source []byte
	// CreateTime is the room's createdAt. With the id, it identifies an incarnation
	// of the room.
	CreateTime         time.Time
	LastConnectionTime time.Time
	OrganizationID     string
	// DataProblem says why Source cannot be stored as queryable JSON.
	DataProblem string
}

// DocumentContent is a document as fetched, with its derived columns.
type DocumentContent struct {
	FetchTime time.Time
	// Content is the document byte for byte: plain-lson for Storage, an update in
	// encoding version 1 for Yjs.
	Content []byte
	// DeriveVersion is the version of the code that derived Data and Text.
	DeriveVersion int
	// Data is the queryable JSON, nil if it cannot be made.
	Data []byte
	// DataProblem says why Data is nil, or what it or another form of the document
	// lacks.
	DataProblem string
	// StateSHA256 is the same for contents that are only encoded differently; zero if
	// the content itself is all that can be compared.
	StateSHA256 [32]byte
	// Text is the document's plain text for search.
	Text string
	// Unchanged means that the claim has seen a copy of the same content, so nothing
	// was derived from it.
	Unchanged bool
}

// Applied says what a finished task did and when the resource is due again.
type Applied struct {
	// Generation is the generation that the copy now reflects.
	Generation int64
	// Changed means that change entries were written, which are Changes.
	Changed bool
	Changes []Change
	// Due is when the next fetch is due; zero if none is.
	Due time.Time
	// Settles means that this fetch is only to look once more.
	Settles bool
	// AlsoDue lists other resources that became due because of this one, with its
	// urgency, in key order.
	AlsoDue []Resource
	// Joined are the children of the lease's Joined that were fetched in the same
	// incarnation of the room. They have not become stale with the room, and are to be
	// applied in Epoch; zero if there are none.
	Epoch  int64
	Joined []Resource
	// AlsoBackground lists others that became due in the background.
	AlsoBackground []Resource
	// Added are the items that a list stored, because nothing was known of them.
	Added []Resource
}

// Freshness says how current a copy is.
type Freshness struct {
	// FetchTime is when the fetch that produced the copy began.
	FetchTime time.Time
	// SourceUpdateTime is the last change that an event reported; zero if none did.
	SourceUpdateTime time.Time
	// DeleteTime is when the deletion was confirmed; zero if the resource is not
	// deleted.
	DeleteTime time.Time
	// MissingSince is when Liveblocks first answered that the resource does not
	// exist, while nothing confirms its deletion.
	MissingSince time.Time
	// Revision is the number of the change entry that last altered the copy.
	Revision int64
	// Stale means that a newer change is known but not applied yet.
	Stale bool
	// RefreshError says why a read did not bring the copy up to the age that it asked
	// for: a reason and a sentence. The store does not set it.
	RefreshError string
}

// FetchedBetween reports whether the fetch began then. A time after to is of a clock
// that was ahead, and shows nothing.
func (f Freshness) FetchedBetween(from, to time.Time) bool {
	return !f.FetchTime.Before(from) && !f.FetchTime.After(to)
}

// Room is a mirrored room.
type Room struct {
	Project            ProjectID
	ID                 RoomID
	Epoch              int64
	Source             []byte
	SHA256             [32]byte
	CreateTime         time.Time
	LastConnectionTime time.Time
	OrganizationID     string
	Freshness          Freshness
}

// Document is a mirrored document. Content is nil if it was not requested.
type Document struct {
	Project ProjectID
	Room    RoomID
	Kind    Kind
	ID      string
	Content []byte
	// SHA256 is the hash of Content.
	SHA256 [32]byte
	// Size is the length of Content in bytes.
	Size          int64
	DeriveVersion int
	// DataProblem says why the queryable JSON column is null.
	DataProblem string
	Freshness   Freshness
	// Damage says why there is no Content although it was asked for: what is stored of it cannot
	// be unpacked.
	Damage error
}

// TaskState is the state of a task.
type TaskState string

// The states of a task.
const (
	// TaskPending waits for a worker, for the end of a backoff, or for the settle
	// fetch.
	TaskPending TaskState = "pending"
	// TaskRunning is leased to a worker.
	TaskRunning TaskState = "running"
	// TaskWaiting waits for its room to be mirrored.
	TaskWaiting TaskState = "waiting"
	// TaskFailed failed on its last attempt.
	TaskFailed TaskState = "failed"
	// TaskDone has nothing to do.
	TaskDone TaskState = "done"
)

// Task is the synchronisation state of one resource.
type Task struct {
	Resource     Resource
	State        TaskState
	Generation   int64
	Applied      int64
	DueTime      time.Time
	NotBefore    time.Time
	LeaseUntil   time.Time
	Attempts     int
	LastError    string
	FailTime     time.Time
	FetchTime    time.Time
	MissingSince time.Time
}

// ChangeKind says what happened to a resource.
type ChangeKind int16

// The kinds of change.
const (
	ChangeUpserted ChangeKind = 1
	ChangeDeleted  ChangeKind = 2
)

// Change is one entry of the feed. It names the resource without its content: when
// a reader acts, it reads the newest copy.
type Change struct {
	Bucket   int16
	Number   int64
	Resource Resource
	Kind     ChangeKind
	// Epoch is the incarnation of the room as of the change. It is 0 for what is not
	// deleted with its room, and for what was written before entries had one.
	Epoch      int64
	CommitTime time.Time
}

// Position is a place in the feed: the number of the last change of each bucket that
// comes before it.
type Position [Buckets]int64

// Project is a configured project as stored.
type Project struct {
	ID ProjectID
	// LiveblocksID is Liveblocks' id of the project. It is pinned when a fetch with
	// the project's key has shown what an event with this id names.
	LiveblocksID string
	// PauseReason says why fetching is paused; empty if it is not.
	PauseReason string
	PauseTime   time.Time
	// StopReason says why an operator has stopped fetching; empty if none has.
	StopReason string
	StopTime   time.Time
	// Foreign describes the events of other Liveblocks projects.
	Foreign ForeignEvents
	// Feed identifies the feed of the project in this database; zero if nobody has read
	// it. Positions are those of one feed.
	Feed [16]byte
	// KeyHash is a salted hash of the secret key that was shown to belong to the
	// mirrored rooms; nil if none was.
	KeyHash []byte
	// KeyConfirmTime is when an operator stated that the key is that of the mirrored
	// project; zero if never.
	KeyConfirmTime time.Time
	// Confirmed is the mass deletion that an operator confirmed last.
	Confirmed Confirmation
}

// Stopped says that and why an operator has stopped fetching, and how it goes on; empty if
// none has.
func (p Project) Stopped() string {
	if p.StopReason == "" {
		return ""
	}
	return StoppedByOperator + p.StopReason + "; `liveblocks-mirror resume` lets it go on"
}

// StoppedByOperator begins the reason of a pause that an operator has ordered.
const StoppedByOperator = "by an operator: "

// ForeignEvents describes the events that were set aside because they are from
// another Liveblocks project than the pinned one.
type ForeignEvents struct {
	// LiveblocksID is the project of the latest one; empty if there is none.
	LiveblocksID string
	Count        int64
	// Time is when the latest one was received.
	Time time.Time
}

// Confirmation is the statement of an operator that what Liveblocks' lists lack is
// really gone, up to a number.
type Confirmation struct {
	Rooms, Groups int64
	Time          time.Time
}

// ConfirmationLife is how long a statement of an operator counts.
const ConfirmationLife = 24 * time.Hour

// At returns the confirmation if it still counts at now; otherwise a zero
// Confirmation.
func (c Confirmation) At(now time.Time) Confirmation {
	if now.Sub(c.Time) >= ConfirmationLife {
		return Confirmation{}
	}
	return c
}
