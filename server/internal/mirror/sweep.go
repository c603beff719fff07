package mirror

import "time"

// Sweep is the progress and result of the latest comparison of a project's rooms
// with Liveblocks' list of rooms.
type Sweep struct {
	Project ProjectID
	// ID identifies the sweep; empty if there has been none.
	ID string
	// Full means that the sweep fetches everything in every room, not only what the
	// list shows to have changed.
	Full bool
	// Done means that the list is complete.
	Done bool
	// Cursor is where the list continues.
	Cursor string
	// Listed counts the rooms listed so far, Known those of them that the mirror
	// already had, MarkedStale the resources that the sweep marked as stale.
	Listed, Known, MarkedStale int64
	// Vanished counts the mirrored rooms that the list did not contain.
	Vanished int64
	// BeginTime is when the sweep began, EndTime when it was done; zero if it is
	// not.
	BeginTime, EndTime time.Time
	// FullTime is when the last completed full sweep began.
	FullTime time.Time
	// Problem says why the mirror does not follow the list, such as too many rooms
	// having vanished at once; empty if there is no problem.
	Problem string
}

// Stored holds the columns of a resource, for verification: the copy, and what was
// derived from it.
type Stored struct {
	// Content is the copy: a document, or the JSON of a room.
	Content []byte
	// SHA256 is the stored hash.
	SHA256        [32]byte
	DeriveVersion int
	// Data is the queryable JSON as the engine spells it; nil if there is none,
	// which DataProblem explains.
	Data        []byte
	DataProblem string
	// Text is a document's plain text.
	Text string
}

// Unannounced counts the changes in resources of a kind that sweeps found and no
// event reported.
type Unannounced struct {
	Kind  Kind
	Count int64
	// FirstTime and LastTime are when the first and the latest of them were counted.
	FirstTime, LastTime time.Time
}

// UnannouncedLife is how long after the latest unannounced change another one is
// counted together with it. After that, the count starts over.
const UnannouncedLife = 24 * time.Hour

// RoomPage is one page of the list of all rooms.
type RoomPage struct {
	Rooms []ListedRoom
	// Next is where the list continues; empty on the last page.
	Next string
}

// ListedRoom is a room as listed.
type ListedRoom struct {
	ID      RoomID
	Content RoomContent
}

// Backfill is the latest sweep and the progress of its fetches.
type Backfill struct {
	Sweep Sweep
	// Pending counts the resources that wait in the background, Done those fetched
	// since the sweep began.
	Pending, Done int64
	// PerSecond is the number of fetches per second, Remaining the estimated time
	// for the pending ones; zero if unknown.
	PerSecond float64
	Remaining time.Duration
}

// VerifyOptions says what to compare with Liveblocks.
type VerifyOptions struct {
	Project ProjectID
	// Prefix limits the verification to rooms whose id starts with it.
	Prefix string
	// Repair requests that what differs be fetched and rewritten.
	Repair bool
}

// VerifyReport is one message of a verification; exactly one of its members is set.
type VerifyReport struct {
	Difference *Difference
	Skip       *VerifySkip
	Progress   *VerifyProgress
	// Summary is the last report of a complete verification.
	Summary *VerifySummary
}

// Difference is one between the mirror and Liveblocks, or between a copy and
// the columns derived from it.
type Difference struct {
	Resource Resource
	Kind     DifferenceKind
	// Detail says what differs: no secrets, no payloads.
	Detail string
	// Repair means that a repair was requested.
	Repair bool
}

// DifferenceKind is a kind of difference.
type DifferenceKind string

// The kinds of difference.
const (
	// DifferenceMissing: Liveblocks has the resource; the mirror does not.
	DifferenceMissing DifferenceKind = "missing"
	// DifferenceSurplus: the mirror has the resource; Liveblocks does not.
	DifferenceSurplus DifferenceKind = "surplus"
	// DifferenceContent: the copy differs from Liveblocks.
	DifferenceContent DifferenceKind = "content"
	// DifferenceDerived: the copy is correct, but the derived columns are not.
	DifferenceDerived DifferenceKind = "derived"
)

// VerifySkip is a resource that could not be compared.
type VerifySkip struct {
	Resource Resource
	// Reason says why: no secrets, no payloads. Status is the HTTP status with which
	// Liveblocks answered; 0 if it did not.
	Reason string
	Status int
}

// VerifyProgress is the progress of a verification.
type VerifyProgress struct {
	// Rooms counts the compared rooms, Listed those known so far.
	Rooms, Listed int64
	// Resources counts the compared resources, including rooms.
	Resources   int64
	Differences int64
	// Waiting says what the verification waits for; empty while it proceeds.
	Waiting string
}

// VerifySummary is the result of a verification.
type VerifySummary struct {
	// Rooms and Resources count what was compared; rooms are resources too.
	Rooms, Resources int64
	Differences      int64
	// Repairs counts the requested repairs.
	Repairs int64
	// Skipped counts the resources that could not be compared because fetching them
	// failed. SkipReason says why the first one failed, without secrets or
	// payloads.
	Skipped    int64
	SkipReason string
	// Pending counts the resources that differed but are waiting for their next
	// fetch or kept changing.
	Pending int64
	// Unsupported are the kinds that Liveblocks does not have.
	Unsupported []Kind
}
