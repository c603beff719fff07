// Package mirror holds the words of the domain: resources, events, leases and
// the copies the service keeps. It imports the standard library only, so every
// other package can speak these words without pulling in a wire or a driver.
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

// RoomID is a room's id, byte for byte as Liveblocks spells it.
type RoomID string

// Longest ids in bytes. Liveblocks allows 128 characters for a room id, which
// is 512 bytes at four bytes a character.
const (
	MaxProjectID = 64
	MaxRoomID    = 512
	MaxUserID    = 512
	MaxEventID   = 128
	// MaxResourceID is that of everything inside a room.
	MaxResourceID = 128
	// MaxEmoji is that of a reaction's emoji; joined ones are long.
	MaxEmoji = 64
)

// MaxSubdocuments bounds how many documents inside another are mirrored.
const MaxSubdocuments = 1000

// ValidProjectID reports whether s can name a project.
func ValidProjectID(s string) bool {
	if s == "" || len(s) > MaxProjectID {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Storable reports whether every engine can store s as text: valid UTF-8 without
// NUL.
func Storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// ValidID reports whether s can be stored as an id of at most limit bytes, which
// is not empty. Nothing is trimmed, folded or normalised.
func ValidID(s string, limit int) bool { return s != "" && len(s) <= limit && Storable(s) }

// Resource names one thing that is mirrored as a whole. ID tells apart
// resources of one kind in one room and is empty where there is only one.
type Resource struct {
	Project ProjectID
	Room    RoomID
	Kind    Kind
	ID      string
}

// Valid reports whether there can be such a resource: each kind has, may have or
// cannot have a room and an id of its own.
func (r Resource) Valid() bool {
	t := r.Kind.Traits()
	inRoom, named := ValidID(string(r.Room), MaxRoomID), ValidID(r.ID, MaxResourceID)
	room := map[Scope]bool{
		ScopeRoom: inRoom, ScopeUser: inRoom || r.Room == "", ScopeProject: r.Room == "",
	}[t.Scope]
	id := map[IDRule]bool{IDNone: r.ID == "", IDOptional: named || r.ID == "", IDRequired: named}[t.ID]
	return t.Name != "" && room && id
}

// Bucket is the resource's share of the key space; see [Bucket].
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

// Buckets is the number of shares of the key space.
const Buckets = 256

// Bucket returns the first 8 bits of SHA-256(project, 0x00, key), where key is
// the room id (the event id for events). Every primary key starts with it, so
// that the rows of one room stay together on a sharded engine and moving there
// rewrites no key. It is frozen for ever: a test pins its values.
func Bucket(project ProjectID, key string) int16 {
	buf := make([]byte, 0, 256)
	buf = append(buf, project...)
	buf = append(buf, 0)
	buf = append(buf, key...)
	sum := sha256.Sum256(buf)
	return int16(sum[0])
}

// Event is one signed webhook delivery as it is recorded.
type Event struct {
	Project ProjectID
	// ID is the webhook-id header, the key that makes a delivery unique.
	ID string
	// Type is the payload's type, empty if it could not be read.
	Type string
	// Room is the room the payload names, empty if none or not storable.
	Room RoomID
	// User is the user the payload names, empty if none or not storable.
	User string
	// LiveblocksProject is Liveblocks' own project id from the payload.
	LiveblocksProject string
	// Payload is the body as it was received and signed.
	Payload []byte
	// SendTime is the signed webhook-timestamp of the delivery.
	SendTime time.Time
	// ReceiveTime is when the delivery reached the service.
	ReceiveTime time.Time
	// SourceTime is when it happened by the payload's word; zero if unsaid.
	SourceTime time.Time
	// Outcome says what the event led to.
	Outcome Outcome
}

// Outcome says what became of an event when it was recorded.
type Outcome string

// The outcomes.
const (
	// OutcomeQueued: tasks were raised for what the event makes stale.
	OutcomeQueued Outcome = "queued"
	// OutcomeRecorded: known, and nothing mirrored is stale because of it. Events of an
	// earlier version have it, which mirrored less.
	OutcomeRecorded Outcome = "recorded"
	// OutcomeUnknownType: signed, of a type this version does not know.
	OutcomeUnknownType Outcome = "unknown_type"
	// OutcomeMalformed: signed, but not the JSON an event should be.
	OutcomeMalformed Outcome = "malformed"
	// OutcomeIDInvalid: names a resource whose id cannot be stored.
	OutcomeIDInvalid Outcome = "id_invalid"
	// OutcomeForeignProject: from another Liveblocks project than the pinned one.
	OutcomeForeignProject Outcome = "foreign_project"
)

// Invalidation says that a resource may have changed at the source.
type Invalidation struct {
	Resource Resource
	// IfUnknown raises the resource only if it was never heard of before.
	IfUnknown bool
	// Deleted says that the event announces the resource's deletion.
	Deleted bool
	// MinInterval keeps the next fetch at least this long after the last one.
	MinInterval time.Duration
	// Fold says that the event itself is folded into the resource: it waits there
	// until the resource's task has taken it up.
	Fold bool
}

// Request asks for a resource to be fetched.
type Request struct {
	Resource Resource
	// Unlisted says that a complete list lacks the resource, which tells as much as
	// an event that announces its deletion.
	Unlisted bool
	// Background lets everything that is not in the background go first.
	Background bool
}

// Delivery is an event together with what it makes stale.
type Delivery struct {
	Event         Event
	Invalidations []Invalidation
}

// Pending is a resource and the generation an event or a request gave it.
// Whoever waits for it waits until that generation is applied.
type Pending struct {
	Resource   Resource
	Generation int64
}

// Lease is the right to fetch one resource, and the fence that guards the
// result: what it fetched is applied only while Token and Epoch still hold.
type Lease struct {
	Resource Resource
	// Token is random and never used twice.
	Token [16]byte
	// Until is when the lease ends unless it is renewed.
	Until time.Time
	// Generation is what the fetch will have caught up with.
	Generation int64
	// Applied is the generation of the copy in the mirror.
	Applied int64
	// Epoch is the incarnation of the room, 0 if the room is not mirrored.
	Epoch int64
	// Gone says that the room is a tombstone.
	Gone bool
	// Attempts counts the failures since the last success.
	Attempts int
	// SourceTime is the latest time of change that an event told of.
	SourceTime time.Time
	// FetchTime is when the fetch of the copy in the mirror began; zero if there is
	// none.
	FetchTime time.Time
	// Background says that nobody but a sweep has asked for the fetch.
	Background bool
}

// Fetched is an answer of the Liveblocks API, not yet applied.
type Fetched struct {
	// Body is the answer, byte for byte.
	Body []byte
	// FetchTime is when the request began: whatever happened before it is in
	// the answer.
	FetchTime time.Time
}

// RoomContent is a room as fetched.
type RoomContent struct {
	FetchTime time.Time
	// Source is the room's JSON, byte for byte.
	Source []byte
	// CreateTime is the room's createdAt; together with the id it tells one
	// incarnation of a room from the next.
	CreateTime         time.Time
	LastConnectionTime time.Time
	OrganizationID     string
	// DataProblem says why Source cannot be stored as queryable JSON.
	DataProblem string
}

// DocumentContent is a document as fetched, and what was derived from it.
type DocumentContent struct {
	FetchTime time.Time
	// Content is the document byte for byte: plain-lson for Storage, an update in
	// encoding version 1 for Yjs.
	Content []byte
	// DeriveVersion is the version of the code that derived Data and Text.
	DeriveVersion int
	// Data is the queryable JSON, nil if it cannot be made.
	Data []byte
	// DataProblem says why Data is nil.
	DataProblem string
	// Text is the document's plain text for search.
	Text string
}

// Applied tells what a finished task did and when the resource is due again.
type Applied struct {
	// Generation is what the resource has caught up with.
	Generation int64
	// Changed says that a change entry was written.
	Changed bool
	// Due is when the resource wants its next fetch; zero means no more.
	Due time.Time
	// AlsoDue are other resources that became due by this one, as urgent as it is.
	AlsoDue []Resource
	// Stale says that children of earlier incarnations wait to be cleaned up.
	Stale bool
}

// Freshness tells how current a copy is.
type Freshness struct {
	// FetchTime is when the fetch whose result is shown began.
	FetchTime time.Time
	// SourceUpdateTime is the last change Liveblocks told of; zero if unsaid.
	SourceUpdateTime time.Time
	// DeleteTime is when the deletion was found; zero if the resource lives.
	DeleteTime time.Time
	// MissingSince is when Liveblocks first denied knowing the resource
	// without anything to confirm that it was deleted.
	MissingSince time.Time
	// Revision is the number of the change entry that last altered it.
	Revision int64
	// Stale says that something newer is known and not yet applied.
	Stale bool
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

// Document is a mirrored document. Content is nil where only the description
// was asked for.
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
}

// TaskState says where a task stands.
type TaskState string

// The states of a task.
const (
	// TaskPending waits for its turn, for a backoff or for the settle fetch.
	TaskPending TaskState = "pending"
	// TaskRunning is leased by a worker.
	TaskRunning TaskState = "running"
	// TaskWaiting waits for its room to be mirrored first.
	TaskWaiting TaskState = "waiting"
	// TaskFailed has used up its attempts.
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

// Change is one entry of the feed. It names the resource and does not carry
// it: by the time a reader acts, reading yields the newer copy.
type Change struct {
	Bucket     int16
	Number     int64
	Resource   Resource
	Kind       ChangeKind
	CommitTime time.Time
}

// Project is a configured project as the store knows it.
type Project struct {
	ID ProjectID
	// LiveblocksID is Liveblocks' own id, pinned on the first verified event.
	LiveblocksID string
	// PauseReason says why fetching stands still; empty if it does not.
	PauseReason string
	PauseTime   time.Time
}
