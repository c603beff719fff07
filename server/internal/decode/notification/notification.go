// Package notification folds the events that announce notifications, and reads
// what a user's inbox holds of one.
package notification

import (
	"cmp"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrObject says that an inbox notification is no JSON object.
var ErrObject = errors.New("not an inbox notification")

// maxName bounds the name of a channel or kind in bytes.
const maxName = mirror.MaxResourceID

// Fold makes a row of each event, in their order, and returns the ids of all of
// them. Channels and kinds of any name are taken, and what an event lacks, or what
// cannot be stored, stays empty; one that is no notification makes no row.
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
			if n.CreateTime.IsZero() { // it has a place in lists by it
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
