package fake

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// Types of the events that the fake's changes lead to.
const (
	RoomCreated              = "roomCreated"
	RoomDeleted              = "roomDeleted"
	StorageUpdated           = "storageUpdated"
	YdocUpdated              = "ydocUpdated"
	UserEntered              = "userEntered"
	UserLeft                 = "userLeft"
	ThreadCreated            = "threadCreated"
	ThreadDeleted            = "threadDeleted"
	ThreadMetadataUpdated    = "threadMetadataUpdated"
	ThreadMarkedAsResolved   = "threadMarkedAsResolved"
	ThreadMarkedAsUnresolved = "threadMarkedAsUnresolved"
	CommentCreated           = "commentCreated"
	CommentEdited            = "commentEdited"
	CommentDeleted           = "commentDeleted"
	CommentMetadataUpdated   = "commentMetadataUpdated"
	CommentReactionAdded     = "commentReactionAdded"
	CommentReactionRemoved   = "commentReactionRemoved"
	NotificationSent         = "notification"
)

// Event is something that Liveblocks would send a webhook for. Two events can be
// compared.
type Event struct {
	Type   string
	RoomID string
	// Time is when it happened.
	Time time.Time
	// UserID is who did it, or for a notification who is told. An anonymous user has
	// none.
	UserID string
	// UserInfo is the info of a user who enters or leaves, as JSON.
	UserInfo string
	// ConnectionID and ActiveUsers are of those who enter or leave.
	ConnectionID int64
	ActiveUsers  int

	ThreadID, CommentID, Emoji string

	// Channel and NotificationKind are of a notification, and one of ThreadID,
	// MentionID and SubjectID is, as its kind says. TriggerTime is when it was made.
	Channel, NotificationKind, MentionID, SubjectID, InboxNotificationID string
	TriggerTime                                                          time.Time
}

// OnEvent lets f be told of every change, after it was made and before the
// method or call that made it returns. Nil ends it. f may be called
// concurrently, and then in any order, as webhooks arrive.
func (s *Server) OnEvent(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onEvent = f
}

// unlockAndTell releases s.mu, which is held, and tells of the events.
func (s *Server) unlockAndTell(events ...Event) {
	tell := s.onEvent
	s.mu.Unlock()
	if tell == nil {
		return
	}
	for _, ev := range events {
		tell(ev)
	}
}

// dataFields are the published fields of each type's data, beside projectId and
// roomId.
var dataFields = map[string][]string{
	RoomCreated:              {"createdAt"},
	RoomDeleted:              {"deletedAt"},
	StorageUpdated:           {"updatedAt"},
	YdocUpdated:              {"updatedAt"},
	UserEntered:              {"connectionId", "userId", "userInfo", "enteredAt", "numActiveUsers"},
	UserLeft:                 {"connectionId", "userId", "userInfo", "leftAt", "numActiveUsers"},
	ThreadCreated:            {"threadId", "createdAt", "createdBy"},
	ThreadDeleted:            {"threadId", "deletedAt"},
	ThreadMetadataUpdated:    {"threadId", "updatedAt", "updatedBy"},
	ThreadMarkedAsResolved:   {"threadId", "updatedAt", "updatedBy"},
	ThreadMarkedAsUnresolved: {"threadId", "updatedAt", "updatedBy"},
	CommentCreated:           {"threadId", "commentId", "createdAt", "createdBy"},
	CommentEdited:            {"threadId", "commentId", "editedAt"},
	CommentDeleted:           {"threadId", "commentId", "deletedAt"},
	CommentMetadataUpdated:   {"threadId", "commentId", "updatedAt", "updatedBy"},
	CommentReactionAdded:     {"threadId", "commentId", "emoji", "addedAt", "addedBy"},
	CommentReactionRemoved:   {"threadId", "commentId", "emoji", "removedAt", "removedBy"},
	NotificationSent:         {"channel", "kind", "userId", "inboxNotificationId", "createdAt", "triggeredAt"},
}

// Payload returns the body of the webhook that tells of an event, with the
// published fields of its type. It is not signed.
func Payload(ev Event, projectID string) []byte {
	names := dataFields[ev.Type]
	if ev.Type == NotificationSent {
		subject := map[string]string{"thread": "threadId", "textMention": "mentionId"}[ev.NotificationKind]
		if subject == "" {
			subject = "subjectId"
		}
		names = append(slices.Clip(names), subject)
	}
	data := map[string]any{"projectId": projectID, "roomId": ev.RoomID}
	if ev.RoomID == "" {
		data["roomId"] = nil
	}
	for _, name := range names {
		data[name] = ev.field(name)
	}
	// What is in there can always be encoded, if UserInfo is JSON.
	body, _ := marshal(struct {
		Type string         `json:"type"`
		Data map[string]any `json:"data"`
	}{ev.Type, data})
	return body
}

func (ev Event) field(name string) any {
	switch name {
	case "threadId":
		return ev.ThreadID
	case "commentId":
		return ev.CommentID
	case "emoji":
		return ev.Emoji
	case "channel":
		return ev.Channel
	case "kind":
		return ev.NotificationKind
	case "mentionId":
		return ev.MentionID
	case "subjectId":
		return ev.SubjectID
	case "inboxNotificationId":
		return ev.InboxNotificationID
	case "connectionId":
		return ev.ConnectionID
	case "numActiveUsers":
		return ev.ActiveUsers
	case "triggeredAt":
		return moment(ev.TriggerTime)
	case "userInfo":
		if ev.UserInfo == "" {
			return nil
		}
		return json.RawMessage(ev.UserInfo)
	case "userId", "createdBy", "updatedBy", "addedBy", "removedBy":
		if ev.UserID == "" {
			return nil
		}
		return ev.UserID
	default:
		return moment(ev.Time)
	}
}

// plainJSON reduces plain-lson to what format=json serves: live nodes without
// their wrapping. What it cannot read it leaves as it is.
func plainJSON(lson []byte) []byte {
	var out bytes.Buffer
	if writePlain(&out, lson) != nil {
		return lson
	}
	return out.Bytes()
}

func writePlain(out *bytes.Buffer, node json.RawMessage) error {
	data, plain := unwrap(bytes.TrimSpace(node))
	if plain {
		out.Write(data)
		return nil
	}
	// Members are read one by one, to keep their order.
	dec := json.NewDecoder(bytes.NewReader(data))
	open, err := dec.Token()
	if err != nil {
		return err
	}
	object := open == json.Delim('{')
	if _, nested := open.(json.Delim); !nested {
		out.Write(data)
		return nil
	}
	out.WriteByte(data[0])
	for first := true; dec.More(); first = false {
		if !first {
			out.WriteByte(',')
		}
		if object {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name, err := marshal(key)
			if err != nil {
				return err
			}
			out.Write(name)
			out.WriteByte(':')
		}
		var member json.RawMessage
		if err := dec.Decode(&member); err != nil {
			return err
		}
		if err := writePlain(out, member); err != nil {
			return err
		}
	}
	out.WriteByte(data[len(data)-1])
	return nil
}

// unwrap returns what a live node holds, or node itself if it is none, and
// whether that is plain JSON all the way down.
func unwrap(node []byte) (data []byte, plain bool) {
	var live struct {
		Type string          `json:"liveblocksType"`
		Data json.RawMessage `json:"data"`
	}
	if !bytes.HasPrefix(node, []byte("{")) || json.Unmarshal(node, &live) != nil || live.Data == nil {
		return node, true
	}
	switch live.Type {
	case "LiveObject", "LiveMap", "LiveList":
		return live.Data, false
	case "LiveText", "LiveFile":
		return live.Data, true
	default:
		return node, true
	}
}
