package fake

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// inboxKey names a notification in a user's inbox.
type inboxKey struct{ user, id string }

// Notification is a notification to a user over one channel.
type Notification struct {
	// InboxID is that of the inbox notification; made up if empty.
	InboxID string
	UserID  string
	// Channel is "email" if empty.
	Channel string
	// Kind is "thread", "textMention" or one that begins with "$"; "thread" if empty.
	Kind string
	// RoomID may be empty if the kind begins with "$".
	RoomID string
	// SubjectID is the thread's, the mention's or the subject's, as the kind says.
	SubjectID string
	// TriggerTime is now if zero.
	TriggerTime time.Time
}

// Notify puts a notification into a user's inbox, unless it is there already,
// and sends it. It returns the notification with its gaps filled.
func (s *Server) Notify(n Notification) Notification {
	s.mu.Lock()
	if n.InboxID == "" {
		n.InboxID = s.newID(inboxPrefix)
	}
	if n.Channel == "" {
		n.Channel = "email"
	}
	if n.Kind == "" {
		n.Kind = "thread"
	}
	if n.TriggerTime.IsZero() {
		n.TriggerTime = s.now()
	}
	key := inboxKey{n.UserID, n.InboxID}
	if _, ok := s.inboxes.get(key); !ok {
		s.inboxes.set(key, n.render(nil))
	}
	ev := Event{
		Type: NotificationSent, RoomID: n.RoomID, Time: s.now(), UserID: n.UserID, Channel: n.Channel,
		NotificationKind:    n.Kind,
		InboxNotificationID: n.InboxID, TriggerTime: n.TriggerTime,
	}
	switch n.Kind {
	case "thread":
		ev.ThreadID = n.SubjectID
	case "textMention":
		ev.MentionID = n.SubjectID
	default:
		ev.SubjectID = n.SubjectID
	}
	s.unlockAndTell(ev)
	return n
}

// SetInbox replaces a notification in a user's inbox byte for byte; nil deletes
// it. No event tells of it.
func (s *Server) SetInbox(user, id string, source []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inboxes.set(inboxKey{user, id}, source)
}

// Read marks a notification, as [Server.Notify] returned it, as read by its user.
// No event tells of it.
func (s *Server) Read(n Notification, at time.Time) {
	s.SetInbox(n.UserID, n.InboxID, n.render(&at))
}

// Inbox returns a notification of a user's inbox as the API serves it, and
// whether it is there.
func (s *Server) Inbox(user, id string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inboxes.get(inboxKey{user, id})
}

func (n Notification) render(read *time.Time) []byte {
	m := map[string]any{"id": n.InboxID, "kind": n.Kind, "readAt": nil, "notifiedAt": moment(n.TriggerTime), "roomId": nil}
	if n.RoomID != "" {
		m["roomId"] = n.RoomID
	}
	if read != nil {
		m["readAt"] = moment(*read)
	}
	switch n.Kind {
	case "thread":
		m["threadId"] = n.SubjectID
	case "textMention":
		m["mentionId"] = n.SubjectID
	default:
		m["subjectId"], m["activities"] = n.SubjectID, []any{}
	}
	// Strings can always be encoded.
	b, _ := marshal(m)
	return b
}

// inboxPath reads the ids out of the path of a notification.
func inboxPath(r *http.Request) (user, id string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v2/users/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 || parts[0] == "" || parts[1] != "inbox-notifications" || parts[2] == "" {
		return "", "", false
	}
	user, _ = url.PathUnescape(parts[0]) // net/http has refused what cannot be
	id, _ = url.PathUnescape(parts[2])
	return user, id, true
}
