package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// storedThread returns a thread and its comments as a store answers them.
func storedThread(t testing.TB, room mirror.RoomID, source string, f mirror.Freshness) (mirror.Thread,
	[]mirror.Comment,
) {
	t.Helper()
	row, err := thread.Parse([]byte(source))
	if err != nil {
		t.Fatalf("thread.Parse: %v", err)
	}
	row.Project, row.Room, row.Freshness = project, room, f
	var comments []mirror.Comment
	for _, c := range row.Comments {
		comments = append(comments, mirror.Comment{
			Project: project, Room: room, Thread: row.ID, ID: c.ID, Source: c.Source,
			CreateTime: c.CreateTime, EditTime: c.EditTime, DeleteTime: c.DeleteTime, Freshness: f,
		})
	}
	row.Comments = nil
	return row, comments
}

const (
	commentOne = `{"type":"comment","id":"cm_1","threadId":"th_1","userId":"alice","createdAt":"2026-01-02T03:04:05.678Z",` +
		`"body":{"version":1,"content":[{"type":"paragraph","children":[{"text":"Hello \u0000"},{"text":"world","bold":true},{"text":" "},` +
		`{"type":"mention","kind":"user","id":"bob"},{"type":"mention","kind":"group","id":"design","userIds":["u1","u2"]}]}]},` +
		`"metadata":{"priority":1,"odd":"\u0000"},"reactions":[{"emoji":"👍","createdAt":"2026-01-02T03:04:05.678Z","users":[{"id":"bob"},{"id":"carol"}]}],` +
		`"attachments":[{"type":"attachment","id":"at_1","name":"plan.pdf","size":12345,"mimeType":"application/pdf"}]}`
	commentTwo = `{"type":"comment","id":"cm_2","threadId":"th_1","userId":"bob","createdAt":"2026-01-02T03:04:06Z",` +
		`"editedAt":"2026-01-02T03:04:07Z","deletedAt":"2026-01-02T03:04:08Z","metadata":{},"reactions":[],"attachments":[]}`
	threadOne = `{"type":"thread","id":"th_1","roomId":"r","createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T03:04:08Z",` +
		`"metadata":{"x":1.50,"color":"blue","open":true,"odd":"\u0000"},"resolved":true,"visibility":"private","comments":[` + commentOne + `,` + commentTwo + `]}`
)

func at(s string) *timestamppb.Timestamp {
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return timestamppb.New(v)
}

// wantThread is threadOne without comments.
func wantThread(row *mirror.Thread) *mirrorv1.Thread {
	return &mirrorv1.Thread{
		ProjectId: "default", RoomId: "r", ThreadId: "th_1", CreateTime: at("2026-01-02T03:04:05.678Z"),
		UpdateTime: at("2026-01-02T03:04:08Z"),
		Resolved:   true, Visibility: "private", CommentCount: int32(row.CommentCount), DataProblem: row.DataProblem,
		Metadata: map[string]*mirrorv1.MetadataValue{
			"x":     {Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: 1.5}},
			"color": {Value: &mirrorv1.MetadataValue_StringValue{StringValue: "blue"}},
			"open":  {Value: &mirrorv1.MetadataValue_BoolValue{BoolValue: true}},
			"odd":   {Value: &mirrorv1.MetadataValue_StringValue{StringValue: "\x00"}},
		},
		Freshness: wantFreshness(row.SHA256),
	}
}

func wantFreshness(hash [32]byte) *mirrorv1.Freshness {
	return &mirrorv1.Freshness{
		FetchTime: timestamppb.New(noon), Revision: 7, Stale: true,
		ContentSha256: hex.EncodeToString(hash[:]),
	}
}

// wantComments are those of threadOne, without their sources.
func wantComments() []*mirrorv1.Comment {
	return []*mirrorv1.Comment{
		{
			ProjectId: "default", RoomId: "r", ThreadId: "th_1", CommentId: "cm_1", UserId: "alice",
			CreateTime: at("2026-01-02T03:04:05.678Z"),
			BodyJson:   []byte(commentOne[strings.Index(commentOne, `{"version"`):strings.Index(commentOne, `,"metadata"`)]),
			Text:       "Hello \uFFFDworld @bob@design", Markdown: "Hello \uFFFD**world** @bob@design",
			Metadata: map[string]*mirrorv1.MetadataValue{
				"priority": {Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: 1}},
				"odd":      {Value: &mirrorv1.MetadataValue_StringValue{StringValue: "\x00"}},
			},
			Reactions: []*mirrorv1.CommentReaction{
				{Emoji: "👍", UserId: "bob", CreateTime: at("2026-01-02T03:04:05.678Z")},
				{Emoji: "👍", UserId: "carol", CreateTime: at("2026-01-02T03:04:05.678Z")},
			},
			Attachments: []*mirrorv1.CommentAttachment{{
				AttachmentId: "at_1", Name: "plan.pdf", MimeType: "application/pdf",
				Size: 12345,
			}},
			Mentions: []*mirrorv1.CommentMention{
				{Kind: mirrorv1.MentionKind_MENTION_KIND_USER, MentionedId: "bob"},
				{Kind: mirrorv1.MentionKind_MENTION_KIND_GROUP, MentionedId: "design", UserIds: []string{"u1", "u2"}},
			},
			Freshness: wantFreshness(sha256.Sum256([]byte(commentOne))),
		},
		{
			ProjectId: "default", RoomId: "r", ThreadId: "th_1", CommentId: "cm_2", UserId: "bob",
			CreateTime: at("2026-01-02T03:04:06Z"),
			EditTime:   at("2026-01-02T03:04:07Z"), DeleteTime: at("2026-01-02T03:04:08Z"),
			Metadata:  map[string]*mirrorv1.MetadataValue{},
			Freshness: wantFreshness(sha256.Sum256([]byte(commentTwo))),
		},
	}
}

func TestThreadsAreReadFromTheirSource(t *testing.T) {
	t.Parallel()
	h := start(t)
	row, comments := storedThread(t, "r", threadOne, mirror.Freshness{FetchTime: noon, Revision: 7, Stale: true})
	if row.Metadata != nil || row.DataProblem == "" {
		t.Fatalf("the store has metadata %q of what it cannot keep, problem %q", row.Metadata, row.DataProblem)
	}
	row.CommentCount = 3
	h.query.threads, h.query.comments = []mirror.Thread{row}, comments

	basic, full, source := wantThread(&row), wantThread(&row), wantThread(&row)
	full.Comments = wantComments()
	source.SourceJson = []byte(threadOne)
	for view, want := range map[mirrorv1.ThreadView]*mirrorv1.Thread{
		mirrorv1.ThreadView_THREAD_VIEW_UNSPECIFIED: full,
		mirrorv1.ThreadView_THREAD_VIEW_FULL:        full,
		mirrorv1.ThreadView_THREAD_VIEW_BASIC:       basic,
		mirrorv1.ThreadView_THREAD_VIEW_SOURCE:      source,
	} {
		resp, err := h.mirror.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "th_1", View: view})
		if diff := gocmp.Diff(want, resp.GetThread(), protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("GetThread(%v) = %v; -want +got:\n%s", view, err, diff)
		}
	}
	list, err := h.mirror.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{RoomId: "r"})
	if diff := gocmp.Diff([]*mirrorv1.Thread{basic}, list.GetThreads(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListThreads = %v; -want +got:\n%s", err, diff)
	}
	for view, want := range map[mirrorv1.ThreadView]*mirrorv1.Thread{
		mirrorv1.ThreadView_THREAD_VIEW_BASIC: basic, mirrorv1.ThreadView_THREAD_VIEW_SOURCE: source,
	} {
		list, err = h.mirror.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{RoomId: "r", View: view})
		if diff := gocmp.Diff([]*mirrorv1.Thread{want}, list.GetThreads(), protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("ListThreads(%v) = %v; -want +got:\n%s", view, err, diff)
		}
	}
	_, err = h.mirror.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{View: mirrorv1.ThreadView_THREAD_VIEW_FULL})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	all, err := h.mirror.ListComments(t.Context(), &mirrorv1.ListCommentsRequest{
		RoomId: "r", ThreadId: "th_1",
		ShowDeleted: true,
	})
	if diff := gocmp.Diff(wantComments(), all.GetComments(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListComments = %v; -want +got:\n%s", err, diff)
	}
	one := wantComments()[0]
	one.SourceJson = []byte(commentOne)
	comment, err := h.mirror.GetComment(t.Context(), &mirrorv1.GetCommentRequest{
		RoomId: "r", ThreadId: "th_1",
		CommentId: "cm_1",
	})
	if diff := gocmp.Diff(one, comment.GetComment(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("GetComment = %v; -want +got:\n%s", err, diff)
	}

	// A list may come from a store that keeps no source for it.
	bare := row
	bare.Source, bare.Metadata = nil, []byte(`{"color":"red"}`)
	if got := threadToProto(&bare).GetMetadata()["color"].GetStringValue(); got != "red" {
		t.Errorf("metadata without a source = %q; want red", got)
	}
}

// Both published shapes of reactions are one here.
func TestReactionsHaveOneShape(t *testing.T) {
	t.Parallel()
	h := start(t)
	grouped := `[{"emoji":"👍","createdAt":"2026-01-02T03:04:05Z","users":[{"id":"bob"},{"id":"carol"}]}]`
	flat := `[{"emoji":"👍","createdAt":"2026-01-02T03:04:05Z","userId":"bob"},{"emoji":"👍","createdAt":"2026-01-02T03:04:05Z","userId":"carol"}]`
	var shown [2]*mirrorv1.Thread
	for i, reactions := range []string{grouped, flat} {
		row, _ := storedThread(t, "r", `{"id":"th_1","comments":[{"id":"cm_1","reactions":`+reactions+`}]}`,
			mirror.Freshness{})
		h.query.change(func() { h.query.threads = []mirror.Thread{row} })
		resp, err := h.mirror.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "th_1"})
		if err != nil || len(resp.GetThread().GetComments()) != 1 ||
			len(resp.GetThread().GetComments()[0].GetReactions()) != 2 {
			t.Fatalf("GetThread with %s = %v, %v", reactions, resp, err)
		}
		shown[i] = resp.GetThread()
	}
	if diff := gocmp.Diff(shown[0].GetComments()[0].GetReactions(), shown[1].GetComments()[0].GetReactions(),
		protocmp.Transform()); diff != "" {
		t.Errorf("reactions in the two shapes differ:\n%s", diff)
	}
}

func TestNoSuchThread(t *testing.T) {
	t.Parallel()
	h := start(t)
	row, comments := storedThread(t, "r", threadOne, mirror.Freshness{FetchTime: noon, DeleteTime: noon})
	live, liveComments := storedThread(t, "live", threadOne, mirror.Freshness{FetchTime: noon})
	broken := mirror.Thread{Project: project, Room: "r", ID: "broken", Source: []byte(`{"secret`)}
	brokenComment := mirror.Comment{
		Project: project, Room: "r", Thread: "broken", ID: "c", UserID: "u",
		Source: []byte(`{"secret`),
	}
	h.query.threads = []mirror.Thread{row, live, broken}
	h.query.comments = append(append(comments, liveComments...), brokenComment)

	ctx := t.Context()
	_, err := h.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "th_1"})
	wantStatus(t, err, codes.NotFound, fault.ReasonThreadNotMirrored)
	if meta := detail[*errdetails.ErrorInfo](err).GetMetadata(); meta["room_id"] != "r" || meta["thread_id"] != "th_1" {
		t.Errorf("metadata = %v; want the ids", meta)
	}
	resp, err := h.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "th_1", ShowDeleted: true})
	if err != nil || !resp.GetThread().GetFreshness().GetDeleteTime().AsTime().Equal(noon) {
		t.Errorf("GetThread of a tombstone on request = %v, %v", resp, err)
	}
	for _, shown := range []bool{false, true} {
		list, err := h.mirror.ListThreads(ctx, &mirrorv1.ListThreadsRequest{ShowDeleted: shown})
		if want := map[bool]int{false: 2, true: 3}[shown]; err != nil || len(list.GetThreads()) != want {
			t.Errorf("ListThreads, deleted shown %t = %d threads, %v; want %d", shown, len(list.GetThreads()), err, want)
		}
		_, err = h.mirror.GetComment(ctx, &mirrorv1.GetCommentRequest{
			RoomId: "live", ThreadId: "th_1", CommentId: "cm_2",
			ShowDeleted: shown,
		})
		if shown {
			wantStatus(t, err, codes.OK, "")
		} else {
			wantStatus(t, err, codes.NotFound, fault.ReasonCommentNotMirrored)
		}
	}
	_, err = h.mirror.GetComment(ctx, &mirrorv1.GetCommentRequest{RoomId: "live", ThreadId: "th_1", CommentId: "none"})
	wantStatus(t, err, codes.NotFound, fault.ReasonCommentNotMirrored)
	if meta := detail[*errdetails.ErrorInfo](err).GetMetadata(); meta["room_id"] != "live" ||
		meta["thread_id"] != "th_1" || meta["comment_id"] != "none" {
		t.Errorf("metadata = %v; want the ids", meta)
	}
	_, err = h.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "broken"})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonDocumentUnreadable)
	comment, err := h.mirror.GetComment(ctx, &mirrorv1.GetCommentRequest{RoomId: "r", ThreadId: "broken", CommentId: "c"})
	if err != nil || comment.GetComment().GetUserId() != "u" ||
		string(comment.GetComment().GetSourceJson()) != `{"secret` {
		t.Errorf("GetComment of what cannot be read = %v, %v; want what is stored", comment, err)
	}
	if strings.Contains(h.log.String(), "secret") {
		t.Error("the log quotes the thread")
	}

	_, err = h.mirror.ListComments(ctx, &mirrorv1.ListCommentsRequest{ThreadId: "th_1"})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	if fields := badFields(err); !slices.Equal(fields, []string{"room_id"}) {
		t.Errorf("bad fields = %v; want room_id", fields)
	}
}

func TestThreadsAreRefreshed(t *testing.T) {
	t.Parallel()
	resource := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindThread, ID: "th_1"}
	for name, get := range map[string]func(context.Context, *harness, *durationpb.Duration, bool) (string, error){
		"thread": func(ctx context.Context, h *harness, age *durationpb.Duration, insist bool) (string, error) {
			resp, err := h.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{
				RoomId: "r", ThreadId: "th_1", MaxAge: age,
				RequireFresh: insist,
			})
			if len(resp.GetThread().GetComments()) == 0 {
				return "", err
			}
			return resp.GetThread().GetComments()[0].GetUserId(), err
		},
		"comment": func(ctx context.Context, h *harness, age *durationpb.Duration, insist bool) (string, error) {
			resp, err := h.mirror.GetComment(ctx, &mirrorv1.GetCommentRequest{
				RoomId: "r", ThreadId: "th_1", CommentId: "cm_1",
				MaxAge: age, RequireFresh: insist,
			})
			return resp.GetComment().GetUserId(), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			put := func(source string, f mirror.Freshness) {
				row, comments := storedThread(t, "r", source, f)
				h.query.change(func() { h.query.threads, h.query.comments = []mirror.Thread{row}, comments })
			}
			old := mirror.Freshness{FetchTime: noon.Add(-time.Hour)}
			put(threadOne, old)
			h.worker.refresh = func(context.Context) error {
				put(strings.ReplaceAll(threadOne, "alice", "zoe"), mirror.Freshness{FetchTime: noon})
				return nil
			}
			if user, err := get(t.Context(), h, durationpb.New(2*time.Hour), true); err != nil || user != "alice" ||
				h.worker.refreshed != nil {
				t.Errorf("a young copy = %q, %v after refreshing %v; want alice as she is", user, err, h.worker.refreshed)
			}
			if user, err := get(t.Context(), h, durationpb.New(time.Minute), true); err != nil || user != "zoe" {
				t.Errorf("an old copy = %q, %v; want zoe", user, err)
			}
			if len(h.worker.refreshed) != 1 || !slices.Equal(h.worker.refreshed[0], []mirror.Resource{resource}) {
				t.Errorf("refreshed %v; want the thread", h.worker.refreshed)
			}
			put(threadOne, old)
			h.worker.refresh = func(context.Context) error {
				return fault.New(fault.Unavailable, fault.ReasonProjectPaused, "paused")
			}
			if user, err := get(t.Context(), h, durationpb.New(time.Minute), false); err != nil || user != "alice" {
				t.Errorf("a copy that cannot be refreshed = %q, %v; want alice", user, err)
			}
			_, err := get(t.Context(), h, durationpb.New(time.Minute), true)
			wantStatus(t, err, codes.Unavailable, fault.ReasonProjectPaused)
		})
	}
}

// A thread of 500 long comments is more than a message; its comments are not.
func TestLargeThreads(t *testing.T) {
	t.Parallel()
	h := start(t)
	var b strings.Builder
	b.WriteString(`{"id":"th_1","comments":[`)
	for i := range 500 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"cm_%03d","userId":"u","createdAt":"2026-01-02T03:04:05Z","body":{"version":1,"content":[{"type":"paragraph","children":[{"text":%q}]}]}}`,
			i, strings.Repeat("long ", 800))
	}
	b.WriteString(`]}`)
	row, comments := storedThread(t, "r", b.String(), mirror.Freshness{})
	h.query.threads, h.query.comments = []mirror.Thread{row}, comments
	_, err := h.mirror.GetThread(t.Context(), &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "th_1"})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonDocumentTooLarge)
	if !strings.Contains(err.Error(), "ListComments") || detail[*errdetails.ErrorInfo](err).GetMetadata()["limit"] == "" {
		t.Errorf("GetThread = %v; want a word on ListComments and the limit", err)
	}
	if _, err := h.mirror.GetThread(t.Context(), &mirrorv1.GetThreadRequest{
		RoomId: "r", ThreadId: "th_1",
		View: mirrorv1.ThreadView_THREAD_VIEW_BASIC,
	}); err != nil {
		t.Errorf("GetThread without comments = %v", err)
	}
	list, err := h.mirror.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{PageSize: 500})
	if err != nil || len(list.GetThreads()) != 1 || proto.Size(list) > 4096 {
		t.Errorf("ListThreads = %d bytes, %v; want the thread without comments", proto.Size(list), err)
	}
	h.query.limits = nil
	seen := 0
	for token := ""; ; {
		page, err := h.mirror.ListComments(t.Context(), &mirrorv1.ListCommentsRequest{
			RoomId: "r", ThreadId: "th_1",
			PageSize: 500, PageToken: token,
		})
		if err != nil {
			t.Fatal(err)
		}
		if proto.Size(page) > DefaultMaxMessage/4*3+4096 {
			t.Errorf("a page of comments has %d bytes", proto.Size(page))
		}
		for _, c := range page.GetComments() {
			if want := fmt.Sprintf("cm_%03d", seen); c.GetCommentId() != want || len(c.GetText()) < 3000 {
				t.Fatalf("comment %d = %s with %d bytes of text; want %s", seen, c.GetCommentId(), len(c.GetText()), want)
			}
			seen++
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if seen != 500 || slices.Max(h.query.limits) > commentBatch {
		t.Errorf("saw %d comments by queries of %v; want 500, at most %d at once", seen, h.query.limits, commentBatch)
	}
}

func TestThreadFilters(t *testing.T) {
	t.Parallel()
	h := start(t)
	no := false
	_, err := h.mirror.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{
		RoomId: "r", Resolved: &no, Metadata: map[string]string{"color": "blue", "n": "1"}, AuthorUserId: "alice",
		MentionedUserId:  "bob",
		UpdatedSinceTime: timestamppb.New(noon.Add(time.Nanosecond)), ShowDeleted: true, PageSize: 3,
	})
	want := store.ThreadFilter{
		Project: project, Room: "r", Resolved: &no, Metadata: map[string]string{"color": "blue", "n": "1"}, Author: "alice",
		Mentioned:    "bob",
		UpdatedSince: noon.Add(time.Microsecond), Deleted: true, Limit: 4,
	}
	if diff := gocmp.Diff(want, h.query.threadFilter); err != nil || diff != "" {
		t.Errorf("ListThreads = %v; filter -want +got:\n%s", err, diff)
	}
	if _, err := h.mirror.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{}); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(store.ThreadFilter{Project: project, Limit: threadBatch}, h.query.threadFilter); diff != "" {
		t.Errorf("filter of everything -want +got:\n%s", diff)
	}
	_, err = h.mirror.ListComments(t.Context(), &mirrorv1.ListCommentsRequest{
		RoomId: "r", ThreadId: "th_1", AuthorUserId: "alice", MentionedUserId: "bob",
		UpdatedSinceTime: timestamppb.New(noon), ShowDeleted: true, PageSize: 3,
	})
	if diff := gocmp.Diff(store.CommentFilter{
		Project: project, Room: "r", Thread: "th_1", Author: "alice", Mentioned: "bob", UpdatedSince: noon, Deleted: true,
		Limit: 4,
	}, h.query.commentFilter); err != nil || diff != "" {
		t.Errorf("ListComments = %v; filter -want +got:\n%s", err, diff)
	}
	h.query.reads = 0
	for _, bad := range []*mirrorv1.ListThreadsRequest{
		{UpdatedSinceTime: &timestamppb.Timestamp{Nanos: -1}},
		{Metadata: map[string]string{"a": "b\x00"}},
		{Metadata: map[string]string{"a\x00": "b"}},
		{Metadata: map[string]string{strings.Repeat("k", 257): "b"}},
		{AuthorUserId: strings.Repeat("x", 513)},
	} {
		_, err := h.mirror.ListThreads(t.Context(), bad)
		if reason := reasonOf(err); reason != string(fault.ReasonRequestInvalid) &&
			reason != string(fault.ReasonIDInvalid) || len(badFields(err)) != 1 {
			t.Errorf("ListThreads(%v) = %v; want a refusal that names the field", bad, err)
		}
	}
	if h.query.reads != 0 {
		t.Error("a bad filter reached the store")
	}
}
