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
	// held already, Raised the resources made due.
	Listed, Known, Raised int64
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
