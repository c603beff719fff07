package notification_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/notification"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

var (
	when     = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	delivery = time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)
)

func event(id, data string) mirror.Event {
	return mirror.Event{
		Project: "default", Room: "board", ID: id, Type: "notification", ReceiveTime: delivery,
		Payload: []byte(`{"type":"notification","data":` + data + "}"),
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	times := `,"createdAt":"2026-01-02T03:04:05.678Z","triggeredAt":"2026-01-02T03:04:05.678Z"}`
	long := strings.Repeat("x", 129)
	roomless := event("m3",
		`{"channel":"webPush","kind":"$fileUpload","roomId":null,"userId":"bob","subjectId":"file-1","inboxNotificationId":"in_2"`+times)
	roomless.Room = ""
	odd := event("m6", `{"channel":7,"kind":null,"userId":"\ud83d","threadId":"`+long+
		`","inboxNotificationId":"","createdAt":"soon","roomId":"board"}`)
	odd.SourceTime = when
	events := []mirror.Event{
		event("m1", `{"channel":"email","kind":"thread","roomId":"board","userId":"bob","threadId":"th_1","inboxNotificationId":"in_1"`+times),
		event("m2", `{"channel":"slack","kind":"textMention","roomId":"board","userId":"bob","mentionId":"m1","inboxNotificationId":"in_3"`+times),
		roomless,
		event("m4", `{"channel":"pigeon","kind":"digest","new":{"a":1},"projectId":"p"}`),
		event("m5", "7"),
		odd,
		{ID: "m7", Type: "notification", Payload: []byte("{")},
		{ID: "m8", Type: "roomCreated", Payload: []byte(`{"data":{"kind":"thread"}}`)},
	}
	rows, folded := notification.Fold(events)
	if diff := cmp.Diff([]string{"m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"}, folded); diff != "" {
		t.Errorf("folded (-want +got):\n%s", diff)
	}
	want := []mirror.Notification{
		{
			EventID: "m1", ID: "in_1", Channel: "email", Kind: "thread", UserID: "bob", ThreadID: "th_1", CreateTime: when,
			TriggerTime: when,
		},
		{
			EventID: "m2", ID: "in_3", Channel: "slack", Kind: "textMention", UserID: "bob", MentionID: "m1", CreateTime: when,
			TriggerTime: when,
		},
		{
			EventID: "m3", ID: "in_2", Channel: "webPush", Kind: "$fileUpload", UserID: "bob", SubjectID: "file-1",
			CreateTime: when, TriggerTime: when,
		},
		{EventID: "m4", ID: "m4", Channel: "pigeon", Kind: "digest", CreateTime: delivery},
		{EventID: "m6", ID: "m6", CreateTime: when},
	}
	for i := range want {
		want[i].Project, want[i].Room = "default", "board"
	}
	want[2].Room = ""
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if rows, folded := notification.Fold(nil); rows != nil || folded != nil {
		t.Errorf("Fold of nothing = %v, %v; want nothing", rows, folded)
	}
}

func TestParseInbox(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/inbox-notifications.json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Data []json.RawMessage }
	if err := json.Unmarshal(raw, &list); err != nil || len(list.Data) != 3 {
		t.Fatalf("the fixture has %d notifications, %v", len(list.Data), err)
	}
	for i, read := range []time.Time{{}, when, {}} {
		got, err := notification.ParseInbox(list.Data[i])
		if err != nil {
			t.Fatalf("ParseInbox = %v", err)
		}
		if diff := cmp.Diff(mirror.Inbox{Source: list.Data[i], ReadTime: read, NotifyTime: when}, got); diff != "" {
			t.Errorf("ParseInbox (-want +got):\n%s", diff)
		}
	}
	got, err := notification.ParseInbox([]byte(` {"readAt":7,"a":"\ud83d\u0000"} `))
	if diff := cmp.Diff(mirror.Inbox{Source: []byte(`{"readAt":7,"a":"\ud83d\u0000"}`)}, got); err != nil || diff != "" {
		t.Errorf("ParseInbox = %v (-want +got):\n%s", err, diff)
	}
	for raw, want := range map[string]error{
		"": rawjson.ErrSyntax, "{": rawjson.ErrSyntax, "[]": notification.ErrObject,
		"null": notification.ErrObject,
	} {
		if got, err := notification.ParseInbox([]byte(raw)); !errors.Is(err, want) {
			t.Errorf("ParseInbox(%s) = %v, %v; want %v", raw, got, err, want)
		}
	}
}
