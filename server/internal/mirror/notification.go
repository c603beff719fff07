package mirror

import "time"

// Notification is one notification to a user over one channel.
type Notification struct {
	Project ProjectID
	// Room is empty for a notification that belongs to no room.
	Room RoomID
	// EventID is the event that announced the notification.
	EventID string
	// ID is that of the inbox notification, which several channels and repetitions
	// share.
	ID string
	// Channel is "email", "slack", "teams" or "webPush".
	Channel string
	// Kind is "thread", "textMention", or a custom kind that starts with "$".
	Kind   string
	UserID string
	// ThreadID, MentionID and SubjectID are set for the kinds that have them.
	ThreadID, MentionID, SubjectID string
	// CreateTime is when the event was created, TriggerTime when the notification
	// was triggered.
	CreateTime, TriggerTime time.Time
	// Inbox is the inbox notification.
	Inbox Inbox
	// Freshness is that of the inbox notification.
	Freshness Freshness
}

// Inbox is the entry of a notification in the user's inbox.
type Inbox struct {
	// Source is its JSON, byte for byte; nil if the inbox does not contain it.
	Source []byte
	// ReadTime is zero while it is unread.
	ReadTime time.Time
	// NotifyTime is when the user was last notified.
	NotifyTime time.Time
}

// NotificationFold is the result of folding waiting events into a notification.
type NotificationFold struct {
	// FetchTime is when the inbox was fetched; zero if it could not be.
	FetchTime time.Time
	// Rows holds the notifications that the events announce.
	Rows []Notification
	// Folded lists the events that need not wait any longer. None of them happened
	// after Until; if that is zero, it is unknown.
	Folded []string
	Until  time.Time
	// Inbox is the current entry of the inbox.
	Inbox Inbox
}
