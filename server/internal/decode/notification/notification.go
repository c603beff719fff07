// Package notification builds notifications from the events that announce them, and
// reads their entries in a user's inbox.
package notification

import (
	"cmp"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrObject means that an inbox notification is not a JSON object.
var ErrObject = errors.New("not an inbox notification")

// maxName bounds the name of a channel or kind in bytes.
const maxName = mirror.MaxResourceID

// Fold returns one row for each event, in order, and the ids of all events. It
// accepts channels and kinds of any name. A field that an event lacks, or that
// cannot be stored, stays empty. An event that is not a notification makes no row.
func Fold(events []mirror.Event) (rows []mirror.Notification, folded []string) {
	for _, ev := range events {
		folded = append(folded, ev.ID)
		v, err := rawjson.Parse(ev.Payload)
		data := v.Get("data")
		if err != nil || ev.Type != "notification" || !data.IsObject() {
			continue
		}
		n := mirror.Notification{Project: ev.Project, Room: ev.Room, EventID: ev.ID}
		for name, value := range data.Members() {
			switch name {
			case "inboxNotificationId":
				n.ID = value.ID(mirror.MaxResourceID)
			case "channel":
				n.Channel = value.ID(maxName)
			case "kind":
				n.Kind = value.ID(maxName)
			case "userId":
				n.UserID = value.ID(mirror.MaxUserID)
			case "threadId":
				n.ThreadID = value.ID(mirror.MaxResourceID)
			case "mentionId":
				n.MentionID = value.ID(mirror.MaxResourceID)
			case "subjectId":
				n.SubjectID = value.ID(mirror.MaxResourceID)
			case "createdAt":
				n.CreateTime = value.Time()
			case "triggeredAt":
				n.TriggerTime = value.Time()
			}
		}
		n.ID = cmp.Or(n.ID, ev.ID)
		for _, t := range []time.Time{ev.SourceTime, ev.ReceiveTime} {
			if n.CreateTime.IsZero() { // lists are ordered by it
				n.CreateTime = t
			}
		}
		rows = append(rows, n)
	}
	return rows, folded
}

// ParseInbox reads an inbox notification of any kind. Its Source shares memory
// with raw. The errors are [rawjson.ErrSyntax] and [ErrObject].
func ParseInbox(raw []byte) (mirror.Inbox, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return mirror.Inbox{}, err
	}
	if !v.IsObject() {
		return mirror.Inbox{}, ErrObject
	}
	return mirror.Inbox{Source: v, ReadTime: v.Get("readAt").Time(), NotifyTime: v.Get("notifiedAt").Time()}, nil
}
