package fake

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
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
	// AuthorID is who has mentioned the user, of a textMention.
	AuthorID string
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
		m["mentionId"], m["createdBy"] = n.SubjectID, n.AuthorID
		m["mention"] = map[string]any{"kind": "user", "id": n.UserID}
	default:
		m["subjectId"], m["activities"] = n.SubjectID, []any{map[string]any{
			"id": "ac_" + n.InboxID, "createdAt": moment(n.TriggerTime), "data": map[string]any{"subject": n.SubjectID},
		}}
	}
	// Strings can always be encoded.
	b, _ := marshal(m)
	return b
}

// inboxPath reads the ids out of the path of a notification; that of it is empty for the list.
func inboxPath(r *http.Request) (user, id string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v2/users/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] != "inbox-notifications" {
		return "", "", false
	}
	user, _ = url.PathUnescape(parts[0]) // net/http has refused what cannot be
	if len(parts) == 3 {
		id, _ = url.PathUnescape(parts[2])
		ok = id != ""
	}
	return user, id, ok
}

// listInbox answers a page of a user's inbox, what was notified last first. The cursor
// is the last id of the page before.
func (s *Server) listInbox(user string, q url.Values) answer {
	limit, err := pageLimitOf(q, 50, 50)
	if err != nil {
		return unprocessable(err.Error())
	}
	unread := q.Get("query")
	if !slices.Contains([]string{"", "unread:true", "unread:false"}, unread) {
		return errorAnswer(http.StatusUnprocessableEntity, "INVALID_QUERY", "the fake does not know this query")
	}
	type entry struct {
		id, notified string
		source       []byte
	}
	var all []entry
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, p := range s.inboxes {
		var of struct {
			NotifiedAt string
			ReadAt     *string
		}
		if key.user != user || p.now == nil || s.foreign || json.Unmarshal(p.now, &of) != nil ||
			unread != "" && (of.ReadAt == nil) != (unread == "unread:true") {
			continue
		}
		all = append(all, entry{key.id, of.NotifiedAt, p.now})
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(strings.Compare(b.notified, a.notified), strings.Compare(a.id, b.id))
	})
	if after := q.Get("startingAfter"); after != "" {
		all = all[slices.IndexFunc(all, func(e entry) bool { return e.id == after })+1:]
	}
	cursor := ""
	if len(all) > limit {
		all = all[:limit]
		cursor = all[limit-1].id
	}
	page := make([][]byte, len(all))
	for i, e := range all {
		page[i] = e.source
	}
	return pageAnswer(cursor, page)
}
