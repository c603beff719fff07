package mirror

import "time"

// Sweep is the latest comparison of a project's rooms with the list that
// Liveblocks gives of them: how far it is, or what it found.
type Sweep struct {
	Project ProjectID
	// ID tells one sweep from the next; empty if there has been none.
	ID string
	// Full says that everything in every room is fetched anew, not only what the
	// list shows to have changed.
	Full bool
	// Done says that the list was read to its end.
	Done bool
	// Cursor is where the list goes on.
	Cursor string
	// Listed counts the rooms listed so far, Known those of them that the mirror
	// held already, MarkedStale the resources that it marked stale.
	Listed, Known, MarkedStale int64
	// Vanished counts the rooms that the mirror holds and the list lacked.
	Vanished int64
	// BeginTime is when it began, EndTime when it was done; zero if it is not.
	BeginTime, EndTime time.Time
	// FullTime is when the last full sweep that came to its end had begun.
	FullTime time.Time
	// Problem says what keeps the mirror from following the list, such as too many
	// rooms vanished at once; empty if nothing does.
	Problem string
}

// Stored is what the columns of the database hold of a resource: the copy, and
// what was derived from it for queries. It is for checking them.
type Stored struct {
	// Content is the copy: a document, or the JSON of a room or thread.
	Content []byte
	// SHA256 is the hash kept beside it.
	SHA256        [32]byte
	DeriveVersion int
	// Data is the queryable JSON as the engine spells it; nil if there is none,
	// which DataProblem explains.
	Data        []byte
	DataProblem string
	// Text is a document's plain text.
	Text string
	// MetadataText and CommentCount are columns of a thread beside Data.
	MetadataText []byte
	CommentCount int
	// Comments are a thread's, as their tables hold them.
	Comments []Comment
}

// RoomPage is one page of the list of all rooms.
type RoomPage struct {
	Rooms []ListedRoom
	// Next is where the list goes on; empty at its end.
	Next string
}

// ListedRoom is a room as the list shows it.
type ListedRoom struct {
	ID      RoomID
	Content RoomContent
}

// Backfill is the latest sweep, and how far what it wanted fetched is.
type Backfill struct {
	Sweep Sweep
	// Pending counts the resources that wait in the background, Done those that were
	// fetched since the sweep began.
	Pending, Done int64
	// PerSecond is how many are fetched in a second, Remaining how long the pending
	// ones will take at this rate; zero where it cannot be told.
	PerSecond float64
	Remaining time.Duration
}

// VerifyOptions say what to compare with Liveblocks.
type VerifyOptions struct {
	Project ProjectID
	// Prefix selects rooms whose id begins with it.
	Prefix string
	// Repair has what differs fetched and written anew.
	Repair bool
}

// VerifyReport is one word of a verification; one of its members is set.
type VerifyReport struct {
	Drift    *Drift
	Progress *VerifyProgress
	// Summary is the last report of a verification that came to its end.
	Summary *VerifySummary
}

// Drift is one difference between the mirror and Liveblocks, or between a copy
// and what the database derived from it.
type Drift struct {
	Resource Resource
	Kind     DriftKind
	// Detail says what differs: no secrets, no payloads.
	Detail string
	// Repair says that the resource was requested anew.
	Repair bool
}

// DriftKind says how a copy differs.
type DriftKind string

// The kinds of drift.
const (
	// DriftMissing: Liveblocks has the resource, and the mirror does not.
	DriftMissing DriftKind = "missing"
	// DriftSurplus: the mirror has the resource, and Liveblocks does not.
	DriftSurplus DriftKind = "surplus"
	// DriftContent: the copy is not what Liveblocks has.
	DriftContent DriftKind = "content"
	// DriftDerived: the copy is right, and what was derived from it is not.
	DriftDerived DriftKind = "derived"
)

// VerifyProgress tells how far a verification is.
type VerifyProgress struct {
	// Rooms were compared, of Listed that are known so far.
	Rooms, Listed int64
	// Resources were compared, rooms among them.
	Resources int64
	Drifts    int64
}

// VerifySummary is what a verification found.
type VerifySummary struct {
	// Rooms and Resources, rooms among them, were compared.
	Rooms, Resources int64
	Drifts           int64
	// Repairs counts the resources requested anew.
	Repairs int64
	// Skipped counts the resources that could not be compared, since they could not
	// be fetched. SkipReason says why of the first: no secrets, no payloads.
	Skipped    int64
	SkipReason string
	// Pending counts the resources that differed and wait for their next fetch, or
	// kept changing.
	Pending int64
}
