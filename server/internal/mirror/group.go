package mirror

import "time"

// Group is a group of users that comments can mention and rooms can admit. It
// belongs to the project.
type Group struct {
	Project ProjectID
	ID      string
	// Source is the group's JSON, byte for byte.
	Source []byte
	// SHA256 is the hash of Source in canonical form: a group has one hash, whether
	// it was fetched alone or in a list.
	SHA256         [32]byte
	OrganizationID string
	// CreateTime and UpdateTime are those that Liveblocks reports.
	CreateTime, UpdateTime time.Time
	// Scopes name what the group may be used for, such as "mention", in byte order.
	Scopes []string
	// Members are in the order of the source.
	Members   []GroupMember
	Freshness Freshness
}

// GroupMember is a user in a group.
type GroupMember struct {
	UserID  string
	AddTime time.Time
}
