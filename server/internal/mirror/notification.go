package mirror

import "time"

// Notification is one notification that was sent to a user over one channel.
type Notification struct {
	Project ProjectID
	// Room is empty for a notification that belongs to no room.
	Room RoomID
	// EventID is the event that announced it.
	EventID string
	// ID is the inbox notification's, which several channels and repetitions share.
	ID string
	// Channel is "email", "slack", "teams" or "webPush".
	Channel string
	// Kind is "thread", "textMention", or a custom kind that begins with "$".
	Kind   string
	UserID string
	// ThreadID, MentionID and SubjectID are set for the kinds that have them.
	ThreadID, MentionID, SubjectID string
	// CreateTime is when the event was made, TriggerTime the notification.
	CreateTime, TriggerTime time.Time
	// Inbox is the inbox notification.
	Inbox Inbox
	// Freshness is that of the inbox notification.
	Freshness Freshness
}

// Inbox is what the user's inbox holds of a notification.
type Inbox struct {
	// Source is its JSON, byte for byte; nil if the inbox does not hold it.
	Source []byte
	// ReadTime is zero while it is unread.
	ReadTime time.Time
	// NotifyTime is when the user was last told.
	NotifyTime time.Time
}

// NotificationFold is what events that waited make of a notification.
type NotificationFold struct {
	// FetchTime is when the inbox was asked; zero if it could not be.
	FetchTime time.Time
	// Rows are the notifications the events announce.
	Rows []Notification
	// Folded are the events that need not wait any longer.
	Folded []string
	// Inbox is what the inbox holds now.
	Inbox Inbox
}
