package mirror

import "time"

// Thread is a thread of comments in a room.
type Thread struct {
	Project ProjectID
	Room    RoomID
	ID      string
	// Source is the thread's JSON with its comments, byte for byte.
	Source []byte
	// SHA256 is the hash of Source in canonical form: one thread has one hash,
	// whether it was fetched by itself or in a list.
	SHA256 [32]byte
	// CreateTime and UpdateTime are Liveblocks' own words.
	CreateTime, UpdateTime time.Time
	Resolved               bool
	// Visibility is "public" or "private"; empty if Liveblocks does not say.
	Visibility string
	// Metadata is a JSON object of strings, numbers and truth values; nil if there
	// is none.
	Metadata []byte
	// Comments are in the order of the thread. Deleted ones stay in it until the
	// last is deleted.
	Comments []Comment
	// DataProblem says why Metadata, or what a comment has of JSON, is not stored
	// for queries.
	DataProblem string
	Freshness   Freshness
}

// Comment is one comment of a thread.
type Comment struct {
	Project ProjectID
	Room    RoomID
	Thread  string
	ID      string
	UserID  string
	// Source is the comment's JSON, byte for byte.
	Source []byte
	// CreateTime is when it was written; EditTime and DeleteTime are zero if it
	// was not edited or deleted.
	CreateTime, EditTime, DeleteTime time.Time
	// Body is its JSON as Liveblocks answered it; nil once the comment is deleted.
	Body []byte
	// Text and Markdown are made from Body.
	Text, Markdown string
	// Metadata is like that of a thread.
	Metadata    []byte
	Reactions   []Reaction
	Attachments []Attachment
	Mentions    []Mention
	// Freshness is that of its thread.
	Freshness Freshness
}

// Reaction is one user's reaction to a comment.
type Reaction struct {
	Emoji      string
	UserID     string
	CreateTime time.Time
}

// Attachment is a file attached to a comment. Its URL is not kept: it expires.
type Attachment struct {
	ID       string
	Name     string
	MIMEType string
	// Size is in bytes.
	Size int64
}

// Mention is somebody whom a comment mentions: a user, or a group.
type Mention struct {
	// Kind is "user" or "group".
	Kind string
	// ID is the user's or the group's.
	ID string
	// UserIDs are the members of a group that the mention tells.
	UserIDs []string
}

// ThreadContent is a thread as fetched.
type ThreadContent struct {
	FetchTime time.Time
	Thread    Thread
}

// ThreadList is all threads of a room as fetched.
type ThreadList struct {
	FetchTime time.Time
	Threads   []Thread
}
