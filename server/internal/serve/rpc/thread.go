package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"strconv"

	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// threadBatch bounds how many threads one query brings: with hundreds of
	// comments, one is some hundred KB.
	threadBatch = 25
	// commentBatch does so for comments, whose bodies are a few KB.
	commentBatch = 100
)

// GetThread returns a thread, with its comments unless only the thread itself is
// wanted.
func (m *mirrorService) GetThread(ctx context.Context, req *mirrorv1.GetThreadRequest) (*mirrorv1.GetThreadResponse,
	error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	row, err := read(ctx, m.s, req, copyOf[mirror.Thread]{
		resource: mirror.Resource{Project: project, Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindThread,
			ID: req.GetThreadId()},
		get:       m.s.Query.Thread,
		freshness: func(t *mirror.Thread) mirror.Freshness { return t.Freshness },
	})
	if err != nil {
		return nil, notFound(err, fault.Wrap(err, fault.NotFound, fault.ReasonThreadNotMirrored,
			"the mirror holds no such thread").With("room_id", req.GetRoomId()).With("thread_id", req.GetThreadId()))
	}
	shown := showThread(&row)
	switch req.GetView() {
	case mirrorv1.ThreadView_THREAD_VIEW_BASIC:
	case mirrorv1.ThreadView_THREAD_VIEW_SOURCE:
		shown.SourceJson = row.Source
	default:
		parsed, err := thread.ParseExact(row.Source)
		if err != nil {
			return nil, unreadable(err, "thread")
		}
		for i := range parsed.Comments {
			c := &parsed.Comments[i]
			c.Project, c.Room, c.Thread, c.Freshness = row.Project, row.Room, row.ID, row.Freshness
			shown.Comments = append(shown.Comments, showComment(c))
		}
	}
	if err := m.s.fits(shown,
		"the thread does not fit one message: ask for its basic view, and for its comments by ListComments"); err != nil {
		return nil, err
	}
	return &mirrorv1.GetThreadResponse{Thread: shown}, nil
}

// fits refuses an answer that does not fit one message; public says how else it
// can be read.
func (s *Services) fits(answer proto.Message, public string) error {
	size, limit := proto.Size(answer), s.MaxMessage-envelope
	if size <= limit {
		return nil
	}
	return fault.New(fault.Precondition, fault.ReasonDocumentTooLarge, public).
		With("size", strconv.Itoa(size)).With("limit", strconv.Itoa(limit))
}

// unreadable says of a copy that its source cannot be read.
func unreadable(err error, what string) error {
	return fault.Wrap(err, fault.Precondition, fault.ReasonDocumentUnreadable,
		"the "+what+" was fetched and is kept, but cannot be read as what it should be")
}

// ListThreads lists threads by room id, in byte order, then by id.
func (m *mirrorService) ListThreads(ctx context.Context,
	req *mirrorv1.ListThreadsRequest) (*mirrorv1.ListThreadsResponse, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	threads, next, err := page(ctx, req, listing[mirror.Thread, *mirrorv1.Thread]{
		list:    listThreads,
		project: project,
		batch:   threadBatch,
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.Thread, error) {
			return m.s.Query.Threads(ctx, store.ThreadFilter{
				Project:      project,
				Room:         mirror.RoomID(req.GetRoomId()),
				Resolved:     req.Resolved, //nolint:protogetter // the getter does not tell absent from false
				Metadata:     req.GetMetadata(),
				Author:       req.GetAuthorUserId(),
				Mentioned:    req.GetMentionedUserId(),
				UpdatedSince: bound(req.GetUpdatedSinceTime()),
				Deleted:      req.GetShowDeleted(),
				AfterRoom:    after.Room,
				AfterID:      after.ID,
				Limit:        limit,
			})
		},
		key:  func(row *mirror.Thread) cursor { return cursor{Room: row.Room, ID: row.ID} },
		show: showThread,
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListThreadsResponse{Threads: threads, NextPageToken: next}, nil
}

// GetComment returns a comment.
func (m *mirrorService) GetComment(ctx context.Context, req *mirrorv1.GetCommentRequest) (*mirrorv1.GetCommentResponse,
	error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	row, err := read(ctx, m.s, req, copyOf[mirror.Comment]{
		// Comments are fetched with their thread.
		resource: mirror.Resource{Project: project, Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindThread,
			ID: req.GetThreadId()},
		get: func(ctx context.Context, thread mirror.Resource, deleted bool) (mirror.Comment, error) {
			return m.s.Query.Comment(ctx, thread, req.GetCommentId(), deleted)
		},
		freshness: func(c *mirror.Comment) mirror.Freshness { return c.Freshness },
	})
	if err != nil {
		return nil, notFound(err, fault.Wrap(err, fault.NotFound, fault.ReasonCommentNotMirrored,
			"the mirror holds no such comment").
			With("room_id", req.GetRoomId()).With("thread_id", req.GetThreadId()).With("comment_id", req.GetCommentId()))
	}
	shown := showComment(withSource(&row))
	shown.SourceJson = row.Source
	return &mirrorv1.GetCommentResponse{Comment: shown}, nil
}

// ListComments lists comments by room id, in byte order, then by thread, creation
// and id.
func (m *mirrorService) ListComments(ctx context.Context,
	req *mirrorv1.ListCommentsRequest) (*mirrorv1.ListCommentsResponse, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	if req.GetThreadId() != "" && req.GetRoomId() == "" {
		bad := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "a thread is named by its room and its id")
		bad.Fields = []fault.Field{{Path: "room_id", Problem: "must be given with a thread_id"}}
		return nil, bad
	}
	comments, next, err := page(ctx, req, listing[mirror.Comment, *mirrorv1.Comment]{
		list:    listComments,
		project: project,
		batch:   commentBatch,
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.Comment, error) {
			return m.s.Query.Comments(ctx, store.CommentFilter{
				Project:      project,
				Room:         mirror.RoomID(req.GetRoomId()),
				Thread:       req.GetThreadId(),
				Author:       req.GetAuthorUserId(),
				Mentioned:    req.GetMentionedUserId(),
				UpdatedSince: bound(req.GetUpdatedSinceTime()),
				Deleted:      req.GetShowDeleted(),
				AfterRoom:    after.Room,
				AfterThread:  after.Thread,
				AfterTime:    after.stored(),
				AfterID:      after.ID,
				Limit:        limit,
			})
		},
		key: func(row *mirror.Comment) cursor {
			return cursor{Room: row.Room, Thread: row.Thread, Time: row.CreateTime, ID: row.ID}
		},
		show: func(row *mirror.Comment) *mirrorv1.Comment { return showComment(withSource(row)) },
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListCommentsResponse{Comments: comments, NextPageToken: next}, nil
}

// withSource reads the typed fields of a stored comment from its source. Of one
// that cannot be read, what is stored beside it is shown.
func withSource(row *mirror.Comment) *mirror.Comment {
	parsed, err := thread.ParseComment(row.Source)
	if err != nil {
		return row
	}
	parsed.Project, parsed.Room, parsed.Thread, parsed.ID = row.Project, row.Room, row.Thread, row.ID
	parsed.Source, parsed.Freshness = row.Source, row.Freshness
	return &parsed
}

// showThread shows a thread without its comments. The metadata is read from the
// source, where that came along: not all of it can be kept as queryable JSON.
func showThread(t *mirror.Thread) *mirrorv1.Thread {
	metadata := t.Metadata
	if t.Source != nil {
		source, _ := parse[map[string]json.RawMessage](t.Source)
		metadata = source["metadata"]
	}
	return &mirrorv1.Thread{
		ProjectId:   string(t.Project),
		RoomId:      string(t.Room),
		ThreadId:    t.ID,
		CreateTime:  timestamp(t.CreateTime),
		UpdateTime:  timestamp(t.UpdateTime),
		Resolved:    t.Resolved,
		Visibility:  t.Visibility,
		Metadata:    showMetadata(metadata),
		DataProblem: t.DataProblem,
		Freshness:   showFreshness(t.Freshness, &t.SHA256),
	}
}

// showComment shows a comment with everything but its source.
func showComment(c *mirror.Comment) *mirrorv1.Comment {
	hash := sha256.Sum256(c.Source)
	shown := &mirrorv1.Comment{
		ProjectId:  string(c.Project),
		RoomId:     string(c.Room),
		ThreadId:   c.Thread,
		CommentId:  c.ID,
		UserId:     c.UserID,
		CreateTime: timestamp(c.CreateTime),
		EditTime:   timestamp(c.EditTime),
		DeleteTime: timestamp(c.DeleteTime),
		BodyJson:   c.Body,
		Text:       c.Text,
		Markdown:   c.Markdown,
		Metadata:   showMetadata(c.Metadata),
		Freshness:  showFreshness(c.Freshness, &hash),
	}
	for _, r := range c.Reactions {
		shown.Reactions = append(shown.Reactions, &mirrorv1.CommentReaction{
			Emoji: r.Emoji, UserId: r.UserID, CreateTime: timestamp(r.CreateTime),
		})
	}
	for _, a := range c.Attachments {
		shown.Attachments = append(shown.Attachments, &mirrorv1.CommentAttachment{
			AttachmentId: a.ID, Name: a.Name, MimeType: a.MIMEType, Size: a.Size,
		})
	}
	for _, m := range c.Mentions {
		shown.Mentions = append(shown.Mentions, &mirrorv1.CommentMention{
			Kind: mentionKinds[m.Kind], MentionedId: m.ID, UserIds: m.UserIDs,
		})
	}
	return shown
}
