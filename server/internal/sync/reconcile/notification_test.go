package reconcile_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func notificationOf(room, id string) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(room), Kind: mirror.KindNotification, ID: id}
}

// notifications are those of a user, the latest first.
func (b *bench) notifications(user string) []mirror.Notification {
	b.Helper()
	list, err := b.store.Notifications(b.Context(), store.NotificationFilter{Project: project, User: user, Limit: 100})
	if err != nil {
		b.Fatalf("Notifications of %q = %v", user, err)
	}
	return list
}

// wantInbox checks that all rows of a notification show what the inbox holds.
func (b *bench) wantInbox(n fake.Notification, count int) []mirror.Notification {
	b.Helper()
	want, _ := b.upstream.Inbox(n.UserID, n.InboxID)
	list := b.notifications(n.UserID)
	if len(list) != count {
		b.Fatalf("notifications = %+v; want %d; tasks: %s", list, count, b.tasks())
	}
	for _, got := range list {
		if got.ID != n.InboxID || string(got.Inbox.Source) != string(want) || got.Freshness.Stale {
			b.Fatalf("notification = %+v with inbox %s; want %s", got, got.Inbox.Source, want)
		}
	}
	return list
}

func TestNotifications(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		at := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		var n fake.Notification
		send := func(next fake.Notification) {
			b.told(r, func() { n = b.upstream.Notify(next) })
			b.quiet()
		}
		send(fake.Notification{UserID: "alice", RoomID: "r", SubjectID: "th_1", TriggerTime: at})
		got := b.wantInbox(n, 1)[0]
		if got.Channel != "email" || got.Kind != "thread" || got.ThreadID != "th_1" || !got.TriggerTime.Equal(at) ||
			got.Room != "r" ||
			!got.Inbox.NotifyTime.Equal(at) || !got.Inbox.ReadTime.IsZero() || got.CreateTime.IsZero() {
			t.Fatalf("notification = %+v; want what was sent", got)
		}

		// Over another channel it is another event, and the same place in the inbox.
		again := n
		again.Channel = "slack"
		b.upstream.Read(n, at.Add(time.Minute))
		send(again)
		for _, got := range b.wantInbox(n, 2) {
			if !got.Inbox.ReadTime.Equal(at.Add(time.Minute)) {
				t.Fatalf("notification = %+v; want both rows to show that it was read", got)
			}
		}
		b.upstream.SetInbox("alice", n.InboxID, []byte(`{"id":"`+n.InboxID+`", "odd":"\u0000\ud83d","readAt":7}`))
		b.refresh(r, notificationOf("r", n.InboxID))
		b.wantInbox(n, 2)
		b.upstream.SetInbox("alice", n.InboxID, nil) // the user has deleted it
		b.refresh(r, notificationOf("r", n.InboxID))
		for _, got := range b.wantInbox(n, 2) {
			if got.Inbox.Source != nil || !got.Inbox.ReadTime.IsZero() || !got.Inbox.NotifyTime.IsZero() {
				t.Fatalf("inbox = %+v; want nothing of one that is deleted", got.Inbox)
			}
		}

		// Kinds of one's own may belong to no room.
		send(fake.Notification{UserID: "bob", Kind: "$fileUpload", Channel: "webPush", SubjectID: "file-1"})
		if got := b.wantInbox(n, 1)[0]; got.Room != "" || got.SubjectID != "file-1" || got.Kind != "$fileUpload" {
			t.Fatalf("notification = %+v; want one of no room", got)
		}
		send(fake.Notification{UserID: "carol", Kind: "textMention", Channel: "teams", RoomID: "r", SubjectID: "m1"})
		if got := b.wantInbox(n, 1)[0]; got.MentionID != "m1" || got.Channel != "teams" {
			t.Fatalf("notification = %+v; want that of a mention", got)
		}

		// They outlive their room.
		b.told(r, func() { b.remove("r") })
		b.quiet()
		b.wantTombstone("r")
		b.wantInbox(n, 1)
		late := n
		late.UserID, late.InboxID = "dave", "in_late"
		send(late)
		b.wantInbox(n, 1)
	})
}

// The inbox may not show yet what the event has told of.
func TestInboxReadTooEarly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(early, func(p *parts) { p.reconcile.Now = p.client.Now })
		b.upstream.Script(fake.Match{Endpoint: fake.EndpointInbox}, fake.Stale(1))
		var n fake.Notification
		b.told(r, func() { n = b.upstream.Notify(fake.Notification{UserID: "u", Kind: "$x"}) })
		b.eventually("the row is there, without the inbox", func() bool { return len(b.notifications("u")) == 1 })
		b.quiet()
		b.wantInbox(n, 1)
		if n := b.upstream.StepsLeft(); n != 0 {
			t.Fatalf("stale answers not served = %d; want 0, or the test proves nothing", n)
		}
	})
}

// Without an inbox id, or a user, there is nobody to ask.
func TestNotificationWithoutAnInbox(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		now := time.Now()
		for id, body := range map[string]string{
			"msg_a": `{"type":"notification","data":{"channel":"email","kind":"$x","userId":"alice","roomId":null,"inboxNotificationId":null}}`,
			"msg_b": `{"type":"notification","data":{"channel":"email","kind":"$x","userId":"alice"}}`,
			"msg_c": `{"type":"notification","data":{"channel":"email","kind":"$x","inboxNotificationId":"in_1"}}`,
		} {
			b.accept(r, decode(id, body, now))
		}
		b.quiet()
		list := b.notifications("")
		if len(list) != 3 {
			t.Fatalf("notifications = %+v; want 3", list)
		}
		for _, n := range list {
			if n.Inbox.Source != nil || n.ID != n.EventID && n.ID != "in_1" {
				t.Fatalf("notification = %+v; want one without an inbox", n)
			}
		}
		if n := b.upstream.Calls("", fake.EndpointInbox); n != 0 {
			t.Fatalf("calls for inboxes = %d; want 0", n)
		}
	})
}

// What is wrong with the inbox keeps the events waiting, and loses none.
func TestInboxTrouble(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) { p.queue.Policy.MaxAttempts = 1 })
		for name, step := range map[string]fake.Step{
			"foreign 404":  fake.Status(http.StatusNotFound, "NOT_FOUND"),
			"no user":      fake.Status(http.StatusNotFound, "ROOM_NOT_FOUND"),
			"another":      fake.Answer(http.StatusOK, "application/json", []byte(`{"id":"in_other"}`)),
			"no object":    fake.Answer(http.StatusOK, "application/json", []byte(`[]`)),
			"server error": fake.Status(http.StatusInternalServerError, "INTERNAL_ERROR"),
		} {
			b.upstream.Script(fake.Match{Endpoint: fake.EndpointInbox}, step, step)
			var n fake.Notification
			b.told(r, func() { n = b.upstream.Notify(fake.Notification{UserID: name, Kind: "$x"}) })
			b.quiet()
			b.wantState(notificationOf("", n.InboxID), mirror.TaskFailed, "UPSTREAM_")
			if list := b.notifications(name); len(list) != 1 || list[0].Inbox.Source != nil {
				t.Fatalf("notifications = %+v; want what the event told, without the inbox", list)
			}
			b.told(r, func() { b.upstream.Notify(n) }) // the next event begins anew
			b.quiet()
			b.wantInbox(n, 2)
		}
		if _, err := r.client.InboxNotification(t.Context(), "u", "in"); !fault.Is(err, fault.ReasonUpstreamNotFound) {
			t.Fatalf("InboxNotification = %v; want it not found", err)
		}
	})
}
