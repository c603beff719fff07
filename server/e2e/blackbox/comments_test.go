package blackbox_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// project is the name of the only project the service has in these tests.
const project = "default"

// must ends the test if a change at the fake cannot be made.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made ends the test if something cannot be made at the fake, else returns its id.
func made(t *testing.T) func(id string, err error) string {
	t.Helper()
	return func(id string, err error) string {
		t.Helper()
		must(t, err)
		return id
	}
}

// follow lets the service hear of everything that happens at the fake from now on.
func follow(t *testing.T, s *harness.Service, upstream *harness.Fake) {
	t.Helper()
	upstream.OnEvent(func(ev fake.Event) { deliver(t, s, ev) })
}

// sourceThread is a thread as Liveblocks publishes it, with reactions in both shapes.
type sourceThread struct {
	ID         string          `json:"id"`
	RoomID     string          `json:"roomId"`
	CreatedAt  time.Time       `json:"createdAt"`
	UpdatedAt  time.Time       `json:"updatedAt"`
	Resolved   bool            `json:"resolved"`
	Visibility string          `json:"visibility"`
	Metadata   map[string]any  `json:"metadata"`
	Comments   []sourceComment `json:"comments"`
}

type sourceComment struct {
	ID        string          `json:"id"`
	UserID    string          `json:"userId"`
	CreatedAt time.Time       `json:"createdAt"`
	EditedAt  *time.Time      `json:"editedAt"`
	DeletedAt *time.Time      `json:"deletedAt"`
	Body      json.RawMessage `json:"body"`
	Metadata  map[string]any  `json:"metadata"`
	Reactions []struct {
		Emoji     string    `json:"emoji"`
		CreatedAt time.Time `json:"createdAt"`
		UserID    string    `json:"userId"`
		Users     []struct {
			ID string `json:"id"`
		} `json:"users"`
	} `json:"reactions"`
	Attachments []struct {
		ID       string `json:"id"`
		Name     string `json:"name"`
		MIMEType string `json:"mimeType"`
		Size     int64  `json:"size"`
	} `json:"attachments"`
}

// metadataOf is metadata as the API answers it.
func metadataOf(metadata map[string]any) map[string]*mirrorv1.MetadataValue {
	if len(metadata) == 0 {
		return nil
	}
	out := make(map[string]*mirrorv1.MetadataValue, len(metadata))
	for key, value := range metadata {
		switch value := value.(type) {
		case string:
			out[key] = &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringValue{StringValue: value}}
		case float64:
			out[key] = &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: value}}
		case bool:
			out[key] = &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_BoolValue{BoolValue: value}}
		}
	}
	return out
}

func optionalTime(at *time.Time) *timestamppb.Timestamp {
	if at == nil {
		return nil
	}
	return timestamppb.New(*at)
}

// threadOf is a thread of Liveblocks as the API has to answer it.
func threadOf(t *testing.T, source []byte) *mirrorv1.Thread {
	t.Helper()
	var src sourceThread
	if err := json.Unmarshal(source, &src); err != nil {
		t.Fatal(err)
	}
	thread := &mirrorv1.Thread{
		ProjectId: project, RoomId: src.RoomID, ThreadId: src.ID, CreateTime: timestamppb.New(src.CreatedAt),
		UpdateTime: timestamppb.New(src.UpdatedAt),
		Resolved:   src.Resolved, Visibility: src.Visibility, Metadata: metadataOf(src.Metadata),
	}
	for _, c := range src.Comments {
		comment := &mirrorv1.Comment{
			ProjectId: project, RoomId: src.RoomID, ThreadId: src.ID, CommentId: c.ID, UserId: c.UserID,
			CreateTime: timestamppb.New(c.CreatedAt), EditTime: optionalTime(c.EditedAt), DeleteTime: optionalTime(c.DeletedAt),
			BodyJson: c.Body, Metadata: metadataOf(c.Metadata),
		}
		for _, r := range c.Reactions {
			users := []string{r.UserID}
			for _, u := range r.Users {
				users = append(users, u.ID)
			}
			for _, user := range users {
				if user != "" {
					comment.Reactions = append(comment.Reactions,
						&mirrorv1.CommentReaction{Emoji: r.Emoji, UserId: user, CreateTime: timestamppb.New(r.CreatedAt)})
				}
			}
		}
		for _, a := range c.Attachments {
			comment.Attachments = append(comment.Attachments, &mirrorv1.CommentAttachment{
				AttachmentId: a.ID, Name: a.Name,
				MimeType: a.MIMEType, Size: a.Size,
			})
		}
		readBody(t, comment)
		thread.Comments = append(thread.Comments, comment)
		if comment.GetDeleteTime() == nil {
			thread.CommentCount++
		}
	}
	return thread
}

// readBody fills in what a comment's body says and whom it mentions.
func readBody(t *testing.T, c *mirrorv1.Comment) {
	t.Helper()
	if len(c.GetBodyJson()) == 0 {
		return
	}
	var body struct {
		Content []struct {
			Children []struct {
				Type, Kind, ID, URL string
				Text                *string
				UserIDs             []string
			}
		}
	}
	if err := json.Unmarshal(c.GetBodyJson(), &body); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, paragraph := range body.Content {
		line := ""
		for _, child := range paragraph.Children {
			switch {
			case child.Type == "mention":
				kind := mirrorv1.MentionKind_MENTION_KIND_USER
				if child.Kind == "group" {
					kind = mirrorv1.MentionKind_MENTION_KIND_GROUP
				}
				line += "@" + child.ID
				c.Mentions = append(c.Mentions, &mirrorv1.CommentMention{Kind: kind, MentionedId: child.ID, UserIds: child.UserIDs})
			case child.Text != nil:
				line += *child.Text
			default:
				line += child.URL
			}
		}
		lines = append(lines, line)
	}
	c.Text = strings.Join(lines, "\n")
}

// inOrder compares answers of the API whatever the order of reactions and mentions is,
// and leaves out how fresh they are.
var inOrder = gocmp.Options{
	protocmp.Transform(),
	protocmp.IgnoreFields(&mirrorv1.Thread{}, "freshness"),
	protocmp.IgnoreFields(&mirrorv1.Comment{}, "freshness", "markdown"),
	protocmp.SortRepeated(func(a, b *mirrorv1.CommentReaction) bool {
		return cmp.Or(cmp.Compare(a.GetEmoji(), b.GetEmoji()), cmp.Compare(a.GetUserId(), b.GetUserId())) < 0
	}),
	protocmp.SortRepeated(func(a, b *mirrorv1.CommentMention) bool {
		return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetMentionedId(), b.GetMentionedId())) < 0
	}),
}

// diffThread says how a mirrored thread differs from the one at the fake.
func diffThread(t *testing.T, s *harness.Service, upstream *harness.Fake, room, id string) error {
	t.Helper()
	source, ok := upstream.ThreadSource(room, id)
	if !ok {
		t.Fatalf("the fake has no thread %q", id)
	}
	api := s.Mirror(t)
	exact, err := api.GetThread(t.Context(), &mirrorv1.GetThreadRequest{
		RoomId: room, ThreadId: id,
		View: mirrorv1.ThreadView_THREAD_VIEW_SOURCE,
	})
	if err != nil {
		return err
	}
	if got := exact.GetThread().GetSourceJson(); string(got) != string(source) {
		return fmt.Errorf("source of thread %q = %s; want %s", id, got, source)
	}
	full, err := api.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: room, ThreadId: id})
	if err != nil {
		return err
	}
	if diff := gocmp.Diff(threadOf(t, source), full.GetThread(), inOrder); diff != "" {
		return fmt.Errorf("thread %q (-Liveblocks +mirror):\n%s", id, diff)
	}
	return nil
}

// awaitThread waits until a thread is mirrored as it is at the fake.
func awaitThread(t *testing.T, s *harness.Service, upstream *harness.Fake, room, id string) {
	t.Helper()
	harness.Eventually(t, patience, func() error { return diffThread(t, s, upstream, room, id) })
}

// checkOverHTTP makes sure that HTTP answers what gRPC did, a list page by page too, but
// for how fresh that is: a fetch may have come between the two.
func checkOverHTTP(t *testing.T, s *harness.Service, path string, want proto.Message) {
	t.Helper()
	object := func(body []byte) (v map[string]any) {
		t.Helper()
		must(t, json.Unmarshal(body, &v))
		return v
	}
	read := func(path string) map[string]any {
		t.Helper()
		status, _, body := s.Get(t, path)
		if status != http.StatusOK {
			t.Fatalf("%s answered %d %s", path, status, body)
		}
		return object(body)
	}
	overGRPC, err := apijson.Marshal(want)
	must(t, err)
	check := func(how string, got map[string]any) {
		t.Helper()
		fresh := cmpopts.IgnoreMapEntries(func(name string, _ any) bool { return name == "freshness" })
		if diff := gocmp.Diff(object(overGRPC), got, fresh); diff != "" {
			t.Errorf("%s %s (-gRPC +HTTP):\n%s", path, how, diff)
		}
	}
	check("at once", read(path))
	if want.ProtoReflect().Descriptor().Fields().ByName("next_page_token") == nil {
		return
	}
	first := path + map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "pageSize=1"
	pages := map[string]any{}
	for page := first; page != ""; {
		got := read(page)
		page = ""
		if token, _ := got["nextPageToken"].(string); token != "" {
			page = first + "&pageToken=" + token
			got["nextPageToken"] = ""
		}
		for name, value := range got {
			if list, ok := value.([]any); ok {
				before, _ := pages[name].([]any)
				value = append(append([]any{}, before...), list...)
			}
			pages[name] = value
		}
	}
	check("page by page", pages)
}

// threadPath is the HTTP path of a thread, or of something in it.
func threadPath(room, thread, rest string) string {
	return roomPath(room, "/threads/"+url.PathEscape(thread)+rest)
}

// Each recorded webhook alone leads to the rows it should: what it tells of has happened
// at the fake, and nothing else tells the service.
func TestEveryEventLeadsToItsRows(t *testing.T) {
	t.Parallel()
	const room = "mirror:storage"
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		database := e.Database(t)
		// A fetch that settles what came before must not find what comes next.
		s, upstream := startOn(t, database, map[string]string{"MIRROR_SETTLE": "20ms"})
		db, api := e.Connect(t, database), s.Mirror(t)
		thread := func(show func(*mirrorv1.Thread) any) func() (any, error) {
			return func() (any, error) {
				got, err := api.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: room, ThreadId: "th_1"})
				return show(got.GetThread()), err
			}
		}
		comment := func(show func(*mirrorv1.Comment) any) func() (any, error) {
			return thread(func(th *mirrorv1.Thread) any {
				for _, c := range th.GetComments() {
					if c.GetCommentId() == "cm_1" {
						return show(c)
					}
				}
				return nil
			})
		}
		notification := func(channel string) func() (any, error) {
			return func() (any, error) {
				got, err := api.ListNotifications(t.Context(),
					&mirrorv1.ListNotificationsRequest{UserId: "alice", Channel: channel})
				if err != nil || len(got.GetNotifications()) != 1 {
					return len(got.GetNotifications()), err
				}
				n := got.GetNotifications()[0]
				return fmt.Sprint(n.GetKind(), n.GetThreadId(), n.GetMentionId(), n.GetSubjectId(), string(n.GetInboxJson())), nil
			}
		}
		const inbox = `{"id":"in_1","kind":"thread","readAt":null,"notifiedAt":"2026-01-02T02:34:05.678Z"}`
		must(t, upstream.CreateRoom(room, fake.RoomOptions{Metadata: map[string]any{"name": "first"}}))
		made(t)(upstream.CreateThread(room,
			fake.ThreadOptions{ID: "th_0", Comment: fake.Comment{UserID: "eve", Text: "found in the list"}}))
		upstream.SetInbox("alice", "in_1", []byte(inbox))

		recorded := make(map[string]vector)
		for _, v := range vectors(t) {
			recorded[v.Name] = v
		}
		for _, step := range []struct {
			vector string
			// change is what the event tells of.
			change func() error
			// rows are conditions after "from", each with the number of rows that meet it
			// afterwards. Each has the room's id as its one argument.
			rows map[string]int
			// read is what the API answers afterwards, which is want.
			read func() (any, error)
			want any
			// busy says that the tasks of the last event still wait for their interval.
			busy bool
		}{
			{
				vector: "roomCreated", change: func() error { return nil },
				rows: map[string]int{
					"mirror_room where room_id = ? and delete_time is null":                                1,
					"mirror_document where room_id = ?":                                                    2,
					"mirror_comment where room_id = ? and thread_id = 'th_0' and plain_text like 'found%'": 1,
				},
				read: func() (any, error) {
					got, err := api.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: room})
					return got.GetRoom().GetMetadata()["name"].GetStringValue(), err
				},
				want: "first",
			},
			{
				vector: "storageUpdated",
				change: func() error {
					return upstream.SetStorage(room, []byte(`{"liveblocksType":"LiveObject","data":{"title":"changed"}}`))
				},
				rows: map[string]int{"mirror_document where room_id = ? and " + e.JSON("data", "title") + " = 'changed'": 1},
				read: func() (any, error) {
					got, err := api.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{RoomId: room})
					return string(got.GetDocument().GetContent()), err
				},
				want: `{"title":"changed"}`,
			},
			{
				vector: "ydocUpdated",
				change: func() error {
					return upstream.SetYdoc(room, "", []byte("\x01\x01\x01\x00\x04\x01\x04note\x05hello\x00"))
				},
				rows: map[string]int{"mirror_document where room_id = ? and plain_text = 'hello'": 1},
				read: func() (any, error) {
					got, err := api.GetYjsDocument(t.Context(),
						&mirrorv1.GetYjsDocumentRequest{RoomId: room, Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT})
					return string(got.GetDocument().GetContent()), err
				},
				want: "hello",
			},
			{
				vector: "threadCreated",
				change: func() error {
					_, err := upstream.CreateThread(room,
						fake.ThreadOptions{ID: "th_1", Comment: fake.Comment{ID: "cm_1", UserID: "alice", Text: "hello"}})
					return err
				},
				rows: map[string]int{
					"mirror_thread where room_id = ? and thread_id = 'th_1' and comment_count = 1":                          1,
					"mirror_comment where room_id = ? and comment_id = 'cm_1' and user_id = 'alice' and markdown = 'hello'": 1,
				},
				read: thread(func(th *mirrorv1.Thread) any { return len(th.GetComments()) }), want: 1,
			},
			{
				vector: "threadMetadataUpdated",
				change: func() error {
					return upstream.SetThreadMetadata(room, "th_1", map[string]any{"color": "blue"}, "alice")
				},
				rows: map[string]int{"mirror_thread where room_id = ? and " + e.JSON("metadata", "color") + " = 'blue'": 1},
				read: thread(func(th *mirrorv1.Thread) any { return th.GetMetadata()["color"].GetStringValue() }), want: "blue",
			},
			{
				vector: "threadMarkedAsResolved",
				change: func() error { return upstream.SetResolved(room, "th_1", true, "alice") },
				rows:   map[string]int{"mirror_thread where room_id = ? and resolved": 1},
				read:   thread(func(th *mirrorv1.Thread) any { return th.GetResolved() }), want: true,
			},
			{
				vector: "threadMarkedAsUnresolved",
				change: func() error { return upstream.SetResolved(room, "th_1", false, "alice") },
				rows:   map[string]int{"mirror_thread where room_id = ? and resolved": 0},
				read:   thread(func(th *mirrorv1.Thread) any { return th.GetResolved() }), want: false,
			},
			{
				vector: "commentCreated",
				change: func() error {
					_, err := upstream.CreateComment(room, "th_1", fake.Comment{ID: "cm_2", UserID: "bob", Text: "an answer"})
					return err
				},
				rows: map[string]int{
					"mirror_comment where room_id = ? and thread_id = 'th_1'":                      2,
					"mirror_thread where room_id = ? and thread_id = 'th_1' and comment_count = 2": 1,
				},
				read: thread(func(th *mirrorv1.Thread) any { return len(th.GetComments()) }), want: 2,
			},
			{
				vector: "commentEdited",
				change: func() error { return upstream.EditComment(room, "th_1", "cm_1", "edited") },
				rows:   map[string]int{"mirror_comment where room_id = ? and plain_text = 'edited' and edit_time is not null": 1},
				read:   comment(func(c *mirrorv1.Comment) any { return c.GetText() }), want: "edited",
			},
			{
				vector: "commentMetadataUpdated",
				change: func() error {
					return upstream.SetCommentMetadata(room, "th_1", "cm_1", map[string]any{"n": 1.5}, "alice")
				},
				rows: map[string]int{"mirror_comment where room_id = ? and " + e.JSON("metadata", "n") + " = '1.5'": 1},
				read: comment(func(c *mirrorv1.Comment) any { return c.GetMetadata()["n"].GetNumberValue() }), want: 1.5,
			},
			{
				vector: "commentReactionAdded",
				change: func() error { return upstream.AddReaction(room, "th_1", "cm_1", "👍", "bob") },
				rows: map[string]int{"mirror_comment_reaction where room_id = ? and comment_id = 'cm_1' and emoji = '👍' and " +
					"user_id = 'bob'": 1},
				read: comment(func(c *mirrorv1.Comment) any { return len(c.GetReactions()) }), want: 1,
			},
			{
				vector: "commentReactionRemoved",
				change: func() error { return upstream.RemoveReaction(room, "th_1", "cm_1", "👍", "bob") },
				rows:   map[string]int{"mirror_comment_reaction where room_id = ?": 0},
				read:   comment(func(c *mirrorv1.Comment) any { return len(c.GetReactions()) }), want: 0,
			},
			{
				vector: "commentDeleted",
				change: func() error { return upstream.DeleteComment(room, "th_1", "cm_1") },
				rows: map[string]int{
					"mirror_comment where room_id = ? and comment_id = 'cm_1' and delete_time is not null and body is null and " +
						"plain_text = ''": 1,
					"mirror_thread where room_id = ? and thread_id = 'th_1' and comment_count = 1": 1,
				},
				read: comment(func(c *mirrorv1.Comment) any { return c.GetDeleteTime().IsValid() }), want: true,
			},
			{
				vector: "notification-thread", change: func() error { return nil },
				rows: map[string]int{"mirror_notification where room_id = ? and notification_id = 'in_1' and kind = 'thread' " +
					"and thread_id = 'th_1' and notify_time is not null": 1},
				read: notification("email"), want: "threadth_1" + inbox,
			},
			{
				vector: "notification-textMention", change: func() error { return nil },
				rows: map[string]int{"mirror_notification where room_id = ? and notification_id = 'in_1' and mention_id = " +
					"'in_m1' and inbox_json is not null": 1},
				read: notification("slack"), want: "textMentionin_m1" + inbox,
			},
			{
				vector: "notification-custom", change: func() error { return nil },
				rows: map[string]int{"mirror_notification where room_id <> ? and room_id = '' and subject_id = 'file-1' and " +
					"inbox_json is not null": 1},
				read: notification("webPush"), want: "$fileUploadfile-1" + inbox,
			},
			{
				vector: "threadDeleted",
				change: func() error { return upstream.DeleteThread(room, "th_1") },
				rows:   map[string]int{"mirror_thread where room_id = ? and thread_id = 'th_1' and delete_time is not null": 1},
				read: func() (any, error) {
					_, err := api.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: room, ThreadId: "th_1"})
					return reasonOf(err), nil
				},
				want: "THREAD_NOT_MIRRORED",
			},
			{
				vector: "userEntered",
				change: func() error { return upstream.Enter(room, fake.Connection{ID: 4, UserID: "alice"}) },
				rows: map[string]int{
					"mirror_active_user where room_id = ? and connection_id = 4 and user_id = 'alice'":            1,
					"mirror_user_session where room_id = ? and session_id = 'msg_userEntered' and end_cause = ''": 1,
				},
				read: func() (any, error) {
					got, err := api.ListActiveUsers(t.Context(), &mirrorv1.ListActiveUsersRequest{RoomId: room})
					return len(got.GetActiveUsers()), err
				},
				want: 1,
			},
			{
				// The recorded event names nobody, so that it is no end of alice's session: that
				// is found out by the next look at who is there.
				vector: "userLeft", busy: true,
				change: func() error { return upstream.Leave(room, 4) },
				rows: map[string]int{
					"mirror_active_user where room_id = ?": 0,
					"mirror_user_session where room_id = ? and leave_event_id = 'msg_userLeft' and end_cause = 'left'":  1,
					"mirror_user_session where room_id = ? and session_id = 'msg_userEntered' and end_cause = 'absent'": 1,
				},
				read: func() (any, error) {
					got, err := api.ListUserSessions(t.Context(), &mirrorv1.ListUserSessionsRequest{RoomId: room})
					return len(got.GetUserSessions()), err
				},
				want: 2,
			},
			{
				vector: "roomDeleted", busy: true,
				change: func() error { return upstream.DeleteRoom(room) },
				rows:   map[string]int{"mirror_room where room_id = ? and delete_time is not null": 1},
				read: func() (any, error) {
					_, err := api.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: room})
					return reasonOf(err), nil
				},
				want: "ROOM_NOT_MIRRORED",
			},
		} {
			mirrored := t.Run(step.vector, func(t *testing.T) {
				if !step.busy {
					awaitIdle(t, s)
				}
				must(t, step.change())
				there := func() error {
					for condition, want := range step.rows {
						if n := count(t, db, "select count(*) from "+condition, room); n != want {
							return fmt.Errorf("%d rows are from %s; want %d", n, condition, want)
						}
					}
					if got, err := step.read(); err != nil || got != step.want {
						return fmt.Errorf("the API answers %v, %w; want %v", got, err, step.want)
					}
					return nil
				}
				if there() == nil {
					t.Errorf("what %s leads to is there before it", step.vector)
				}
				v := recorded[step.vector]
				delete(recorded, step.vector)
				if status := s.Post(t, harness.SignAs(t, v.ID, time.Now(), []byte(v.Body))); status != http.StatusOK {
					t.Fatalf("%s answered %d; want 200", v.Name, status)
				}
				harness.Eventually(t, patience, func() error {
					if err := there(); err != nil {
						return fmt.Errorf("after %s: %w", step.vector, err)
					}
					return nil
				})
			})
			if !mirrored {
				t.Fatal("the steps after this one begin where it ends")
			}
		}
		for name := range recorded {
			t.Errorf("what %s leads to is not looked at", name)
		}
	})
}

// A thread lives as threads do, and the mirror follows: every kind of comment, reactions
// in both published shapes, answers, edits, and the end.
func TestThreadLife(t *testing.T) {
	t.Parallel()
	const room, id = "room with threads/é", "th_life"
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		database := e.Database(t)
		s, upstream := startOn(t, database, nil)
		db, api := e.Connect(t, database), s.Mirror(t)
		create(t, s, upstream, room, fake.RoomOptions{})
		follow(t, s, upstream)

		const body = `{"version":1,"content":[` +
			`{"type":"paragraph","children":[{"text":"Look, "},{"type":"mention","kind":"user","id":"bob"},{"text":" and "},{"type":"mention","kind":"group","id":"design","userIds":["eve","bob"]},{"text":":"}]},` +
			`{"type":"paragraph","children":[{"text":"bold","bold":true},{"text":" 👩‍👩‍👧 & "},{"type":"link","url":"https://example.com/?a=1&b=2","text":"a link"}]}]}`
		made(t)(upstream.CreateThread(room, fake.ThreadOptions{
			ID: id, Visibility: "private", Metadata: map[string]any{"color": "blue", "x": 1.5, "open": true, "quote": `"\é`},
			Comment: fake.Comment{
				ID: "cm_first", UserID: "alice", Body: json.RawMessage(body), Metadata: map[string]any{"pinned": true},
				Attachments: []fake.Attachment{
					{ID: "at_1", Name: "naïve <name>.png", Size: 1 << 40, MIMEType: "image/png"},
					{ID: "at_2", Name: "b.txt", Size: 0, MIMEType: "text/plain"},
				},
			},
		}))
		awaitThread(t, s, upstream, room, id)
		first, err := api.GetComment(t.Context(), &mirrorv1.GetCommentRequest{
			RoomId: room, ThreadId: id,
			CommentId: "cm_first",
		})
		if err != nil {
			t.Fatalf("GetComment: %v", err)
		}
		if got, want := first.GetComment().GetMarkdown(),
			"Look, @bob and @design:\n\n**bold** 👩‍👩‍👧 & [a link](https://example.com/?a=1&b=2)"; got != want {
			t.Errorf("Markdown = %q; want %q", got, want)
		}
		for where, want := range map[string]int{
			"mirror_comment_mention where room_id = ? and kind = 'user' and mentioned_id = 'bob' and via_group = ''":       1,
			"mirror_comment_mention where room_id = ? and kind = 'user' and mentioned_id = 'bob' and via_group = 'design'": 1,
			"mirror_comment_mention where room_id = ? and kind = 'user' and mentioned_id = 'eve' and via_group = 'design'": 1,
			"mirror_comment_mention where room_id = ? and kind = 'group' and mentioned_id = 'design'":                      1,
			"mirror_comment_attachment where room_id = ? and attachment_id = 'at_1' and size = 1099511627776":              1,
			"mirror_comment_attachment where room_id = ?":                                                                  2,
		} {
			if n := count(t, db, "select count(*) from "+where, room); n != want {
				t.Errorf("%d rows are from %s; want %d", n, where, want)
			}
		}

		for _, step := range []struct {
			name   string
			change func() error
		}{
			{"an answer", func() error {
				_, err := upstream.CreateComment(room, id, fake.Comment{ID: "cm_second", UserID: "bob", Text: "yes\nand no"})
				return err
			}},
			{"an edit", func() error { return upstream.EditComment(room, id, "cm_first", "edited") }},
			{"an edit with formats", func() error { return upstream.SetCommentBody(room, id, "cm_second", []byte(body)) }},
			{"a reaction", func() error { return upstream.AddReaction(room, id, "cm_first", "👍", "bob") }},
			{"one of another user", func() error { return upstream.AddReaction(room, id, "cm_first", "👍", "eve") }},
			{"another", func() error { return upstream.AddReaction(room, id, "cm_first", "👩‍👩‍👧", "eve") }},
			{"reactions in the other shape", func() error {
				upstream.SetFlatReactions(true)
				return upstream.AddReaction(room, id, "cm_second", "🎉", "alice")
			}},
			{"one reaction less", func() error { return upstream.RemoveReaction(room, id, "cm_first", "👍", "bob") }},
			{"the first shape again", func() error {
				upstream.SetFlatReactions(false)
				return upstream.RemoveReaction(room, id, "cm_first", "👍", "eve")
			}},
			{"a comment's metadata", func() error {
				return upstream.SetCommentMetadata(room, id, "cm_second", map[string]any{"n": 2 << 40, "s": "é"}, "bob")
			}},
			{
				"the thread's metadata",
				func() error { return upstream.SetThreadMetadata(room, id, map[string]any{"color": "red"}, "bob") },
			},
			{"resolved", func() error { return upstream.SetResolved(room, id, true, "bob") }},
			{"not resolved", func() error { return upstream.SetResolved(room, id, false, "bob") }},
			{"a comment less", func() error { return upstream.DeleteComment(room, id, "cm_first") }},
		} {
			must(t, step.change())
			t.Log(step.name) // tells with the failure which step it was
			awaitThread(t, s, upstream, room, id)
		}
		awaitIdle(t, s)

		thread, err := api.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: room, ThreadId: id})
		if err != nil {
			t.Fatalf("GetThread: %v", err)
		}
		checkOverHTTP(t, s, threadPath(room, id, ""), thread)
		living, err := api.ListComments(t.Context(), &mirrorv1.ListCommentsRequest{RoomId: room, ThreadId: id})
		if err != nil || len(living.GetComments()) != 1 {
			t.Errorf("ListComments = %v, %v; want the one comment that is not deleted", living, err)
		}
		checkOverHTTP(t, s, threadPath(room, id, "/comments"), living)
		all, err := api.ListComments(t.Context(), &mirrorv1.ListCommentsRequest{
			RoomId: room, ThreadId: id,
			ShowDeleted: true,
		})
		if err != nil || len(all.GetComments()) != 2 {
			t.Errorf("ListComments with deleted ones = %v, %v; want both", all, err)
		}
		_, err = api.GetComment(t.Context(), &mirrorv1.GetCommentRequest{RoomId: room, ThreadId: id, CommentId: "cm_first"})
		if got := reasonOf(err); got != "COMMENT_NOT_MIRRORED" {
			t.Errorf("GetComment of a deleted comment fails with %q (%v)", got, err)
		}

		// With its last comment the thread goes. What there was of it can still be seen.
		must(t, upstream.DeleteComment(room, id, "cm_second"))
		harness.Eventually(t, patience, func() error {
			_, err := api.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: room, ThreadId: id})
			if got := reasonOf(err); got != "THREAD_NOT_MIRRORED" {
				return fmt.Errorf("GetThread of a deleted thread fails with %q (%w)", got, err)
			}
			return nil
		})
		if status, _, body := s.Get(t, threadPath(room, id, "")); status != http.StatusNotFound {
			t.Errorf("deleted thread answered %d: %s; want 404", status, body)
		}
		gone, err := api.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: room, ThreadId: id, ShowDeleted: true})
		if err != nil || !gone.GetThread().GetFreshness().GetDeleteTime().IsValid() ||
			len(gone.GetThread().GetComments()) != 2 {
			t.Errorf("GetThread with deleted ones = %v, %v; want the thread as it was, with its delete time", gone, err)
		}
		for _, deleted := range []bool{false, true} {
			list, err := api.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{RoomId: room, ShowDeleted: deleted})
			if want := map[bool]int{true: 1}[deleted]; err != nil || len(list.GetThreads()) != want {
				t.Errorf("ListThreads, deleted ones %v = %v, %v; want %d", deleted, list, err, want)
			}
			comments, err := api.ListComments(t.Context(), &mirrorv1.ListCommentsRequest{RoomId: room, ShowDeleted: deleted})
			if want := map[bool]int{true: 2}[deleted]; err != nil || len(comments.GetComments()) != want {
				t.Errorf("ListComments, deleted ones %v = %v, %v; want %d", deleted, comments, err, want)
			}
		}
	})
}

// Threads and comments are found by everything they can be filtered by, over gRPC and
// HTTP alike.
func TestThreadsAndCommentsAreFound(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s, upstream := startOn(t, e.Database(t), nil)
		follow(t, s, upstream)
		mention := func(kind, id string, users ...string) json.RawMessage {
			b, err := json.Marshal(map[string]any{
				"version": 1,
				"content": []any{map[string]any{"type": "paragraph", "children": []any{
					map[string]any{"type": "mention", "kind": kind, "id": id, "userIds": users},
				}}},
			})
			must(t, err)
			return b
		}
		old := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
		for _, room := range []string{"one", "two"} {
			must(t, upstream.CreateRoom(room, fake.RoomOptions{}))
			made(t)(upstream.CreateThread(room, fake.ThreadOptions{
				ID: "th_blue", Metadata: map[string]any{"color": "blue", "n": 1, "open": true},
				Comment: fake.Comment{ID: "cm_blue", UserID: "alice", Body: mention("user", "bob"), CreateTime: old},
			}))
			made(t)(upstream.CreateThread(room, fake.ThreadOptions{
				ID: "th_red", Metadata: map[string]any{"color": "red", "n": "1"},
				Comment: fake.Comment{ID: "cm_red", UserID: "Alice", Body: mention("group", "team", "bob", "eve"), CreateTime: old},
			}))
		}
		must(t, upstream.SetResolved("two", "th_red", true, "alice"))
		awaitIdle(t, s)

		api := s.Mirror(t)
		for _, tt := range []struct {
			query string // over HTTP
			req   *mirrorv1.ListThreadsRequest
			want  string
		}{
			{"", &mirrorv1.ListThreadsRequest{}, "one/th_blue one/th_red two/th_blue two/th_red"},
			{"roomId=one", &mirrorv1.ListThreadsRequest{RoomId: "one"}, "one/th_blue one/th_red"},
			{"roomId=One", &mirrorv1.ListThreadsRequest{RoomId: "One"}, ""},
			{"resolved=true", &mirrorv1.ListThreadsRequest{Resolved: proto.Bool(true)}, "two/th_red"},
			{"resolved=false", &mirrorv1.ListThreadsRequest{Resolved: proto.Bool(false)}, "one/th_blue one/th_red two/th_blue"},
			{
				"metadata[color]=blue", &mirrorv1.ListThreadsRequest{Metadata: map[string]string{"color": "blue"}},
				"one/th_blue two/th_blue",
			},
			{"metadata[color]=Blue", &mirrorv1.ListThreadsRequest{Metadata: map[string]string{"color": "Blue"}}, ""},
			{
				"metadata[n]=1&roomId=one", &mirrorv1.ListThreadsRequest{RoomId: "one", Metadata: map[string]string{"n": "1"}},
				"one/th_blue one/th_red",
			},
			{
				"metadata[n]=1&metadata[open]=true",
				&mirrorv1.ListThreadsRequest{Metadata: map[string]string{"n": "1", "open": "true"}}, "one/th_blue two/th_blue",
			},
			{"authorUserId=alice", &mirrorv1.ListThreadsRequest{AuthorUserId: "alice"}, "one/th_blue two/th_blue"},
			{
				"mentionedUserId=bob&roomId=two", &mirrorv1.ListThreadsRequest{RoomId: "two", MentionedUserId: "bob"},
				"two/th_blue two/th_red",
			},
			{"mentionedUserId=eve", &mirrorv1.ListThreadsRequest{MentionedUserId: "eve"}, "one/th_red two/th_red"},
			{"mentionedUserId=team", &mirrorv1.ListThreadsRequest{MentionedUserId: "team"}, ""},
			{
				"updatedSinceTime=" + url.QueryEscape(old.Add(time.Second).UTC().Format(time.RFC3339Nano)),
				&mirrorv1.ListThreadsRequest{UpdatedSinceTime: timestamppb.New(old.Add(time.Second))},
				"two/th_red",
			},
		} {
			list, err := api.ListThreads(t.Context(), tt.req)
			if err != nil {
				t.Errorf("ListThreads %q: %v", tt.query, err)
				continue
			}
			var got []string
			for _, th := range list.GetThreads() {
				got = append(got, th.GetRoomId()+"/"+th.GetThreadId())
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("ListThreads %q = %v; want %s", tt.query, got, tt.want)
			}
			checkOverHTTP(t, s, "/v1/threads?"+tt.query, list)
		}
		for _, tt := range []struct {
			query string
			req   *mirrorv1.ListCommentsRequest
			want  string
		}{
			{"", &mirrorv1.ListCommentsRequest{}, "one/cm_blue one/cm_red two/cm_blue two/cm_red"},
			{"roomId=two&threadId=th_red", &mirrorv1.ListCommentsRequest{RoomId: "two", ThreadId: "th_red"}, "two/cm_red"},
			{"authorUserId=Alice", &mirrorv1.ListCommentsRequest{AuthorUserId: "Alice"}, "one/cm_red two/cm_red"},
			{
				"mentionedUserId=eve&roomId=one", &mirrorv1.ListCommentsRequest{RoomId: "one", MentionedUserId: "eve"},
				"one/cm_red",
			},
			{
				"updatedSinceTime=" + url.QueryEscape(old.Add(time.Second).UTC().Format(time.RFC3339Nano)),
				&mirrorv1.ListCommentsRequest{UpdatedSinceTime: timestamppb.New(old.Add(time.Second))},
				"",
			},
		} {
			list, err := api.ListComments(t.Context(), tt.req)
			if err != nil {
				t.Errorf("ListComments %q: %v", tt.query, err)
				continue
			}
			var got []string
			for _, c := range list.GetComments() {
				got = append(got, c.GetRoomId()+"/"+c.GetCommentId())
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("ListComments %q = %v; want %s", tt.query, got, tt.want)
			}
			checkOverHTTP(t, s, "/v1/comments?"+tt.query, list)
		}
	})
}

// Who is in a room, who was, and how each stay ended, when an event was lost as well.
func TestPresence(t *testing.T) {
	t.Parallel()
	const room = "present"
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s, upstream := startOn(t, e.Database(t), nil)
		api := s.Mirror(t)
		create(t, s, upstream, room, fake.RoomOptions{})
		awaitIdle(t, s)

		// Those who came long ago are the ones whose absence proves that they left. All are
		// there at the first look, as the second has to wait.
		var entered []fake.Event
		upstream.OnEvent(func(ev fake.Event) { entered = append(entered, ev) })
		upstream.SetClock(func() time.Time { return time.Now().Add(-10 * time.Minute) })
		for _, c := range []fake.Connection{
			{ID: 1, UserID: "alice", Info: json.RawMessage(`{"name":"Alice","n":9007199254740993}`)},
			{ID: 2, UserID: "alice"},
			{ID: 3},
			{ID: 4, UserID: "bob"},
		} {
			must(t, upstream.Enter(room, c))
		}
		upstream.SetClock(time.Now)
		follow(t, s, upstream)
		for _, ev := range entered {
			deliver(t, s, ev)
		}
		awaitPresent(t, s, upstream, room)
		users, err := api.ListActiveUsers(t.Context(), &mirrorv1.ListActiveUsersRequest{RoomId: room})
		if err != nil {
			t.Fatalf("ListActiveUsers: %v", err)
		}
		if got, want := string(users.GetActiveUsers()[0].GetInfoJson()),
			`{"name":"Alice","n":9007199254740993}`; got != want {
			t.Errorf("info = %s; want %s", got, want)
		}

		must(t, upstream.Leave(room, 2))
		upstream.OnEvent(nil)
		must(t, upstream.Leave(room, 4)) // which nobody is told
		follow(t, s, upstream)
		awaitPresent(t, s, upstream, room)
		sessions := func() map[int64]mirrorv1.SessionEndCause {
			list, err := api.ListUserSessions(t.Context(), &mirrorv1.ListUserSessionsRequest{RoomId: room})
			if err != nil {
				t.Fatalf("ListUserSessions: %v", err)
			}
			ends := make(map[int64]mirrorv1.SessionEndCause)
			for _, session := range list.GetUserSessions() {
				ends[session.GetConnectionId()] = session.GetEndCause()
			}
			return ends
		}
		awaitEnds := func(want map[int64]mirrorv1.SessionEndCause) {
			t.Helper()
			harness.Eventually(t, patience, func() error {
				if diff := gocmp.Diff(want, sessions()); diff != "" {
					return errors.New("ends of sessions by connection (-want +got):\n" + diff)
				}
				return nil
			})
		}
		const (
			open        = mirrorv1.SessionEndCause_SESSION_END_CAUSE_OPEN
			left        = mirrorv1.SessionEndCause_SESSION_END_CAUSE_LEFT
			absent      = mirrorv1.SessionEndCause_SESSION_END_CAUSE_ABSENT
			roomDeleted = mirrorv1.SessionEndCause_SESSION_END_CAUSE_ROOM_DELETED
		)
		awaitEnds(map[int64]mirrorv1.SessionEndCause{1: open, 2: left, 3: open, 4: absent})
		of := func(req *mirrorv1.ListUserSessionsRequest) int {
			list, err := api.ListUserSessions(t.Context(), req)
			if err != nil {
				t.Fatalf("ListUserSessions %v: %v", req, err)
			}
			return len(list.GetUserSessions())
		}
		if n := of(&mirrorv1.ListUserSessionsRequest{UserId: "alice"}); n != 2 {
			t.Errorf("alice has %d sessions; want 2", n)
		}
		if n := of(&mirrorv1.ListUserSessionsRequest{RoomId: room, OpenOnly: true}); n != 2 {
			t.Errorf("%d sessions are open; want 2", n)
		}
		done, err := api.ListUserSessions(t.Context(), &mirrorv1.ListUserSessionsRequest{RoomId: room, UserId: "alice"})
		if err != nil {
			t.Fatalf("ListUserSessions: %v", err)
		}
		for _, session := range done.GetUserSessions() {
			if session.GetConnectionId() == 2 && session.GetDuration().AsDuration() < 10*time.Minute {
				t.Errorf("session %v; want a duration of ten minutes", session)
			}
		}
		users, err = api.ListActiveUsers(t.Context(), &mirrorv1.ListActiveUsersRequest{RoomId: room})
		if err != nil {
			t.Fatalf("ListActiveUsers: %v", err)
		}
		checkOverHTTP(t, s, roomPath(room, "/active-users"), users)
		checkOverHTTP(t, s, roomPath(room, "/user-sessions?userId=alice"), done)

		// Sessions outlive their room.
		must(t, upstream.DeleteRoom(room))
		awaitEnds(map[int64]mirrorv1.SessionEndCause{1: roomDeleted, 2: left, 3: roomDeleted, 4: absent})
		_, err = api.ListActiveUsers(t.Context(), &mirrorv1.ListActiveUsersRequest{RoomId: room})
		if got := reasonOf(err); got != "ROOM_NOT_MIRRORED" {
			t.Errorf("ListActiveUsers of a deleted room fails with %q (%v)", got, err)
		}
	})
}

// awaitPresent waits until the mirror knows who is in a room at the fake.
func awaitPresent(t *testing.T, s *harness.Service, upstream *harness.Fake, room string) {
	t.Helper()
	var users []activeUser
	for _, c := range upstream.Connections(room) {
		users = append(users, activeUser{ConnectionID: c.ID, ID: c.UserID, Info: c.Info})
	}
	awaitUsers(t, s, room, users)
}

// Notifications of every kind over every channel, with what the inbox holds of them.
func TestNotifications(t *testing.T) {
	t.Parallel()
	const room = "told"
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s, upstream := startOn(t, e.Database(t), nil)
		api := s.Mirror(t)
		create(t, s, upstream, room, fake.RoomOptions{})
		follow(t, s, upstream)
		triggered := time.Now().Add(-30 * time.Minute).Truncate(time.Millisecond).UTC()
		type key struct{ channel, kind, room string }
		sent := make(map[key]fake.Notification)
		for _, channel := range []string{"email", "slack", "teams", "webPush"} {
			for _, k := range []key{
				{channel, "thread", room},
				{channel, "textMention", room},
				{channel, "$upload", room},
				{channel, "$upload", ""},
			} {
				sent[k] = upstream.Notify(fake.Notification{
					InboxID: "in_" + k.kind + k.room, UserID: "alice", Channel: channel, Kind: k.kind, RoomID: k.room,
					SubjectID: "subject of " + k.kind, TriggerTime: triggered,
				})
			}
		}
		upstream.Notify(fake.Notification{InboxID: "in_bob", UserID: "bob", Kind: "thread", RoomID: room, SubjectID: "th_1"})
		upstream.SetInbox("bob", "in_bob", nil) // which is normal for one that was deleted

		all := func(req *mirrorv1.ListNotificationsRequest) []*mirrorv1.Notification {
			list, err := api.ListNotifications(t.Context(), req)
			if err != nil {
				t.Fatalf("ListNotifications %v: %v", req, err)
			}
			return list.GetNotifications()
		}
		check := func(read *timestamppb.Timestamp) error {
			list := all(&mirrorv1.ListNotificationsRequest{UserId: "alice", PageSize: 500})
			if len(list) != len(sent) {
				return fmt.Errorf("alice has %d notifications; want %d", len(list), len(sent))
			}
			for _, got := range list {
				n, ok := sent[key{got.GetChannel(), got.GetKind(), got.GetRoomId()}]
				inbox, _ := upstream.Inbox("alice", n.InboxID)
				want := &mirrorv1.Notification{
					ProjectId: project, RoomId: n.RoomID, NotificationId: n.InboxID, Channel: n.Channel, Kind: n.Kind, UserId: "alice",
					TriggerTime: timestamppb.New(triggered), NotifyTime: timestamppb.New(triggered), InboxJson: inbox,
				}
				switch n.Kind {
				case "thread":
					want.ThreadId = n.SubjectID
					want.ReadTime = read
				case "textMention":
					want.MentionId = n.SubjectID
				default:
					want.SubjectId = n.SubjectID
				}
				if diff := gocmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(got, "event_id", "create_time",
					"freshness")); diff != "" || !ok || got.GetEventId() == "" || !got.GetCreateTime().IsValid() {
					return fmt.Errorf("notification %v (-want +got):\n%s", got, diff)
				}
			}
			return nil
		}
		harness.Eventually(t, patience, func() error { return check(nil) })

		// Nothing tells that one was read; the next notification of it does.
		read := time.Now().Truncate(time.Millisecond).UTC()
		n := sent[key{"email", "thread", room}]
		upstream.Read(n, read)
		n.Channel = "sms" // a channel of the future
		sent[key{"sms", "thread", room}] = upstream.Notify(n)
		harness.Eventually(t, patience, func() error { return check(timestamppb.New(read)) })

		for _, tt := range []struct {
			req  *mirrorv1.ListNotificationsRequest
			http string
			want int
		}{
			{&mirrorv1.ListNotificationsRequest{UserId: "bob"}, "userId=bob", 1},
			{&mirrorv1.ListNotificationsRequest{UserId: "alice", Channel: "slack"}, "userId=alice&channel=slack", 4},
			{&mirrorv1.ListNotificationsRequest{Kind: "$upload"}, "kind=$upload", 8},
			{&mirrorv1.ListNotificationsRequest{RoomId: room, Kind: "$upload"}, "roomId=told&kind=$upload", 4},
			{&mirrorv1.ListNotificationsRequest{ThreadId: "th_1"}, "threadId=th_1", 1},
			{
				&mirrorv1.ListNotificationsRequest{StartTime: timestamppb.New(time.Now().Add(time.Hour))},
				"startTime=2999-01-01T00:00:00Z", 0,
			},
		} {
			got := all(tt.req)
			if len(got) != tt.want {
				t.Errorf("ListNotifications %v = %d; want %d", tt.req, len(got), tt.want)
			}
			checkOverHTTP(t, s, "/v1/notifications?"+tt.http, &mirrorv1.ListNotificationsResponse{Notifications: got})
		}

		// They are history, and can be read after their room is gone.
		must(t, upstream.DeleteRoom(room))
		harness.Eventually(t, patience, func() error {
			_, err := api.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: room})
			if reasonOf(err) != "ROOM_NOT_MIRRORED" {
				return fmt.Errorf("GetRoom: %w", err)
			}
			return nil
		})
		if got := all(&mirrorv1.ListNotificationsRequest{RoomId: room}); len(got) != 14 {
			t.Errorf("%d notifications are left of a deleted room; want 14", len(got))
		}
	})
}
