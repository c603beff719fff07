package mirror

import "time"

// Thread is a comment thread in a room.
type Thread struct {
	Project ProjectID
	Room    RoomID
	ID      string
	// Source is the thread's JSON with its comments, byte for byte.
	Source []byte
	// SHA256 is the hash of Source in canonical form, so a thread has the same hash
	// whether it was fetched alone or in a list.
	SHA256 [32]byte
	// CreateTime and UpdateTime are Liveblocks' times.
	CreateTime, UpdateTime time.Time
	Resolved               bool
	// Visibility is "public" or "private"; empty if Liveblocks does not say.
	Visibility string
	// Metadata is a JSON object of strings, numbers and booleans; nil if there is
	// none.
	Metadata []byte
	// Comments are in the order of the thread. Deleted comments stay in it until
	// the last one is deleted.
	Comments []Comment
	// CommentCount is how many comments are not deleted. Only threads that are read from
	// the store have it.
	CommentCount int
	// DataProblem says why Metadata or JSON of a comment is not stored for queries.
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
	// CreateTime is when the comment was created; EditTime and DeleteTime are zero
	// if it was not edited or deleted.
	CreateTime, EditTime, DeleteTime time.Time
	// Body is its JSON as Liveblocks returned it; nil if the comment is deleted.
	Body []byte
	// Text and Markdown are derived from Body.
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

// Attachment is a file attached to a comment. Its URL is not stored because it
// expires.
type Attachment struct {
	ID       string
	Name     string
	MIMEType string
	// Size is in bytes.
	Size int64
}

// Mention is a user or group that a comment mentions.
type Mention struct {
	// Kind is "user" or "group".
	Kind string
	// ID is the id of the user or group.
	ID string
	// UserIDs are the members of the group that the mention lists.
	UserIDs []string
}
