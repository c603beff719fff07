package rpc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/flow"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/fresh"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// MirrorDeps holds the dependencies of the mirror service.
type MirrorDeps struct {
	Query     store.MirrorQuery
	Refresher fresh.Refresher
	// Documents is the memory for documents that are read.
	Documents documents.Memory
}

// mirrorService reads what is mirrored.
type mirrorService struct {
	mirrorv1.UnimplementedMirrorServiceServer
	common
	MirrorDeps

	fresh     *fresh.Reader
	documents *documents.Reader
}

// freshRequest is the common part of all read requests.
type freshRequest interface {
	GetProjectId() string
	GetShowDeleted() bool
	GetMaxAge() *durationpb.Duration
	GetRequireFresh() bool
}

func freshness(req freshRequest) fresh.Options {
	o := fresh.Options{Deleted: req.GetShowDeleted(), Required: req.GetRequireFresh()}
	if req.GetMaxAge() != nil {
		age := req.GetMaxAge().AsDuration()
		o.MaxAge = &age
	}
	return o
}

// in returns the resource in the project that a request names or implies, or
// [store.ErrNotFound] if the caller does not see its room.
func (c *common) in(ctx context.Context, projectID string, of mirror.Resource) (mirror.Resource, error) {
	in, err := c.scope(ctx, projectID)
	if err != nil {
		return of, err
	}
	of.Project = in.project
	if !in.sees(of.Room) {
		return of, store.ErrNotFound
	}
	return of, nil
}

// read returns a row of a resource, which the caller names without its project.
func read[T any](ctx context.Context, m *mirrorService, req freshRequest, of mirror.Resource,
	get func(context.Context, mirror.Resource, bool) (T, error), freshnessOf func(*T) *mirror.Freshness,
) (row T, err error) {
	if of, err = m.in(ctx, req.GetProjectId(), of); err != nil {
		return row, err
	}
	return fresh.Read(ctx, m.fresh, freshness(req), fresh.Spec[T]{Resource: of, Get: get, Freshness: freshnessOf})
}

// notMirrored returns err, or that the mirror holds no such resource. Its ids are pairs
// of a name and an id.
func notMirrored(err error, reason fault.Reason, what string, ids ...string) error {
	f := fault.New(fault.NotFound, reason, "the mirror holds no such "+what)
	for pair := range slices.Chunk(ids, 2) {
		f = f.With(pair[0], pair[1])
	}
	return fault.Translate(err, store.ErrNotFound, f)
}

// GetRoom returns a room.
func (m *mirrorService) GetRoom(ctx context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
	room, err := read(ctx, m, req, mirror.Resource{Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindRoom},
		m.Query.Room, func(r *mirror.Room) *mirror.Freshness { return &r.Freshness })
	if err != nil {
		return nil, roomNotMirrored(err, req.GetRoomId())
	}
	return &mirrorv1.GetRoomResponse{Room: roomToProto(&room, true)}, nil
}

// roomBatch is the maximum number of rooms of one query: with all permissions and
// metadata that Liveblocks allows, a room takes some hundred KB.
const roomBatch = 100

// ListRooms lists rooms, ordered by the bytes of the id, or newest first.
func (m *mirrorService) ListRooms(ctx context.Context, req *mirrorv1.ListRoomsRequest) (*mirrorv1.ListRoomsResponse,
	error,
) {
	full := req.GetView() == mirrorv1.RoomView_ROOM_VIEW_FULL
	of := listing[mirror.Room, *mirrorv1.Room]{
		list:  listRooms,
		batch: roomBatch,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Room, error) {
			return m.Query.Rooms(ctx, store.RoomFilter{
				Project: in.project,
				Rooms:   in.rooms,
				Prefix:  req.GetRoomIdPrefix(),
				Deleted: req.GetShowDeleted(),
				After:   after.Room,
				Limit:   limit,
			})
		},
		key:     func(row *mirror.Room) cursor { return cursor{Room: row.ID} },
		toProto: func(row *mirror.Room) *mirrorv1.Room { return roomToProto(row, full) },
	}
	terms := store.SelectedBy(req.GetMetadata(), req.GetOrganizationId(), req.GetUserId(), req.GetGroupIds())
	if len(terms) > 0 || req.GetOrderBy() != "" {
		if req.GetShowDeleted() {
			f := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "deleted rooms are only listed by id")
			f.Fields = []fault.Field{{Path: "show_deleted", Problem: "must not be set with such a filter or order_by"}}
			return nil, f
		}
		of.list = listLatestRooms
		of.fetch = func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Room, error) {
			rooms, err := m.Query.LatestRooms(ctx, store.LatestRoomFilter{
				Project: in.project, Rooms: in.rooms, Prefix: req.GetRoomIdPrefix(), Terms: terms,
				AfterTime: after.Time, AfterID: after.Room, Limit: limit,
			})
			if errors.Is(err, store.ErrNotIndexed) {
				err = fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
					"the rooms are being indexed after an upgrade; run migrate if that does not end").After(10 * time.Second)
			}
			return rooms, err
		}
		of.key = func(row *mirror.Room) cursor {
			return cursor{Time: store.ListTime(row.CreateTime), Room: row.ID}
		}
	}
	rooms, next, err := page(ctx, &m.common, req, of)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListRoomsResponse{Rooms: rooms, NextPageToken: next}, nil
}

// GetStorageDocument returns a room's Storage document.
func (m *mirrorService) GetStorageDocument(ctx context.Context,
	req *mirrorv1.GetStorageDocumentRequest,
) (*mirrorv1.GetStorageDocumentResponse, error) {
	document, err := m.getDocument(ctx, req, mirror.KindStorage, "", req.GetFormat(), req.GetView())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.GetStorageDocumentResponse{Document: document}, nil
}

// GetYjsDocument returns a Yjs document of a room.
func (m *mirrorService) GetYjsDocument(ctx context.Context,
	req *mirrorv1.GetYjsDocumentRequest,
) (*mirrorv1.GetYjsDocumentResponse, error) {
	document, err := m.getDocument(ctx, req, mirror.KindYdoc, req.GetGuid(), req.GetFormat(), req.GetView())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.GetYjsDocumentResponse{Document: document}, nil
}

// documentRequest is the common part of all reads of one document.
type documentRequest interface {
	freshRequest
	GetRoomId() string
}

func (m *mirrorService) getDocument(ctx context.Context, req documentRequest, kind mirror.Kind, id string,
	name mirrorv1.DocumentFormat, view mirrorv1.DocumentView,
) (*mirrorv1.Document, error) {
	name, format, err := documents.FormatOf(kind, name)
	if err != nil {
		return nil, err
	}
	head := view == mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC
	doc, err := m.readDocument(ctx, req, documents.Request{
		Resource: mirror.Resource{Room: mirror.RoomID(req.GetRoomId()), Kind: kind, ID: id},
		Format:   format, Freshness: freshness(req), HeadOnly: head,
	})
	if err != nil {
		return nil, err
	}
	defer doc.Release()
	message := documentToProto(&doc.Document)
	if head {
		return message, nil
	}
	if limit := m.maxMessage - envelope; len(doc.Body) > limit {
		return nil, tooLarge("the document does not fit one message: read it as a stream", len(doc.Body), limit)
	}
	message.Content, message.Format, message.ContentType = doc.Body, name, format.MediaType
	return message, nil
}

// readDocument reads the document of a request, which names it without its project.
func (m *mirrorService) readDocument(ctx context.Context, req documentRequest, want documents.Request) (
	doc *documents.Document, err error,
) {
	if want.Resource, err = m.in(ctx, req.GetProjectId(), want.Resource); err == nil {
		doc, err = m.documents.Read(ctx, want)
	}
	if err != nil {
		return nil, notMirrored(err, fault.ReasonDocumentNotMirrored, "document", "room_id", string(want.Resource.Room),
			"kind", want.Resource.Kind.String())
	}
	return doc, nil
}

// chunkSize is the size of the part of a document in one message of a stream: large
// enough to make the cost of a message negligible, small enough that a slow reader
// holds little memory. The chunks are slices of the document, which the codec sends
// without copying.
const chunkSize = 256 << 10

// ReadDocument streams a document's bytes, or only metadata if the caller has them.
func (m *mirrorService) ReadDocument(req *mirrorv1.ReadDocumentRequest,
	stream grpc.ServerStreamingServer[httpbody.HttpBody],
) error {
	ctx := stream.Context()
	kind := mirror.KindStorage
	if req.GetKind() != mirrorv1.DocumentKind_DOCUMENT_KIND_UNSPECIFIED {
		kind = wordOf(documentKinds, req.GetKind())
	}
	_, format, err := documents.FormatOf(kind, req.GetFormat())
	if err != nil {
		return err
	}
	if kind != mirror.KindYdoc && req.GetGuid() != "" {
		bad := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "only Yjs documents have a guid")
		bad.Fields = []fault.Field{{Path: "guid", Problem: "must be empty for this kind of document"}}
		return bad
	}
	doc, err := m.readDocument(ctx, req, documents.Request{
		Resource: mirror.Resource{Room: mirror.RoomID(req.GetRoomId()), Kind: kind, ID: req.GetGuid()},
		Format:   format, Freshness: freshness(req), IfNoneMatch: metadata.ValueFromIncomingContext(ctx, "if-none-match"),
	})
	if err != nil {
		return err
	}
	defer doc.Release()
	header := metadata.Pairs(
		"mirror-etag", doc.ETag,
		"mirror-revision", strconv.FormatInt(doc.Freshness.Revision, 10),
		"mirror-fetch-time", doc.Freshness.FetchTime.UTC().Format(timeFormat),
	)
	if doc.Freshness.Stale {
		header.Set("mirror-stale", "1")
	}
	if doc.Freshness.RefreshError != "" {
		header.Set("mirror-refresh-error", doc.Freshness.RefreshError)
	}
	if doc.NotModified {
		header.Set("mirror-not-modified", "1")
		return stream.SetHeader(header)
	}
	header.Set("mirror-content-length", strconv.Itoa(len(doc.Body)))
	if err := stream.SetHeader(header); err != nil {
		return err
	}
	// An empty document is one empty chunk, which still carries the type.
	for first, rest := true, doc.Body; first || len(rest) > 0; first = false {
		chunk := rest[:min(len(rest), chunkSize)]
		rest = rest[len(chunk):]
		if err := stream.Send(&httpbody.HttpBody{ContentType: format.MediaType, Data: chunk}); err != nil {
			return err
		}
	}
	return nil
}

// timeFormat is the format of times in metadata, with microseconds as stored.
const timeFormat = time.RFC3339Nano

// ListDocuments lists documents, ordered by the bytes of the room id, then by kind.
func (m *mirrorService) ListDocuments(ctx context.Context,
	req *mirrorv1.ListDocumentsRequest,
) (*mirrorv1.ListDocumentsResponse, error) {
	documents, next, err := page(ctx, &m.common, req, listing[mirror.Document, *mirrorv1.Document]{
		list: listDocuments,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Document, error) {
			return m.Query.Documents(ctx, store.DocumentFilter{
				Project:   in.project,
				Rooms:     in.rooms,
				Prefix:    req.GetRoomIdPrefix(),
				Kind:      wordOf(documentKinds, req.GetKind()),
				AfterRoom: after.Room,
				AfterKind: after.Kind,
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key:     func(row *mirror.Document) cursor { return cursor{Room: row.Room, Kind: row.Kind, ID: row.ID} },
		toProto: documentToProto,
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListDocumentsResponse{Documents: documents, NextPageToken: next}, nil
}

const (
	// defaultStorageKey is where Liveblocks' React Flow package keeps a diagram
	// unless told otherwise.
	defaultStorageKey = "flow"
	// maxStorageKey is the longest key that is listed, so that a page token can hold
	// it.
	maxStorageKey = 2048
	// keyMark begins the id of a diagram in a cursor: its key may be empty.
	keyMark = "="
)

// GetFlow returns a React Flow diagram from a room's Storage.
func (m *mirrorService) GetFlow(ctx context.Context, req *mirrorv1.GetFlowRequest) (*mirrorv1.GetFlowResponse, error) {
	doc, flows, err := m.flows(ctx, req)
	if err != nil {
		return nil, err
	}
	key := cmp.Or(req.GetStorageKey(), defaultStorageKey)
	i := slices.IndexFunc(flows, func(f flow.Flow) bool { return f.StorageKey == key })
	if i < 0 {
		return nil, fault.New(fault.NotFound, fault.ReasonFlowNotFound,
			"the room's Storage holds no React Flow diagram under this key").
			With("room_id", req.GetRoomId()).With("storage_key", key)
	}
	shown := flowToProto(&doc, &flows[i])
	for j := range flows[i].Nodes {
		shown.Nodes = append(shown.Nodes, nodeToProto(&flows[i].Nodes[j]))
	}
	for j := range flows[i].Edges {
		shown.Edges = append(shown.Edges, edgeToProto(&flows[i].Edges[j]))
	}
	if err := m.fits(shown, "the diagram does not fit one message: read the Storage document as a stream"); err != nil {
		return nil, err
	}
	return &mirrorv1.GetFlowResponse{Flow: shown}, nil
}

// ListFlows lists the React Flow diagrams in a room's Storage by their keys.
func (m *mirrorService) ListFlows(ctx context.Context, req *mirrorv1.ListFlowsRequest) (*mirrorv1.ListFlowsResponse,
	error,
) {
	var doc mirror.Document
	flows, next, err := page(ctx, &m.common, req, listing[flow.Flow, *mirrorv1.Flow]{
		list: listFlows,
		// All of them are in one document, so a page is one read.
		fetch: func(ctx context.Context, _ scope, after cursor, limit int) ([]flow.Flow, error) {
			var all []flow.Flow
			var err error
			if doc, all, err = m.flows(ctx, req); err != nil {
				return nil, err
			}
			var rest []flow.Flow
			for i := range all {
				if id := keyMark + all[i].StorageKey; id > after.ID && len(all[i].StorageKey) <= maxStorageKey &&
					len(rest) < limit {
					rest = append(rest, all[i])
				}
			}
			return rest, nil
		},
		key:     func(row *flow.Flow) cursor { return cursor{ID: keyMark + row.StorageKey} },
		toProto: func(row *flow.Flow) *mirrorv1.Flow { return flowToProto(&doc, row) },
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListFlowsResponse{Flows: flows, NextPageToken: next}, nil
}

// flows reads the diagrams in a room's Storage.
func (m *mirrorService) flows(ctx context.Context, req documentRequest) (mirror.Document, []flow.Flow, error) {
	doc, err := m.readDocument(ctx, req, documents.Request{
		Resource: mirror.Resource{Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindStorage},
		Format:   derive.StorageJSON, Freshness: freshness(req),
	})
	if err != nil {
		return mirror.Document{}, nil, err
	}
	defer doc.Release()
	found, err := flow.Find(doc.Body)
	if err != nil {
		return mirror.Document{}, nil, unreadable(err, "document")
	}
	return doc.Document, found, nil
}

const (
	// threadBatch is the maximum number of threads of one query: with hundreds of
	// comments, a thread takes some hundred KB.
	threadBatch = 25
	// commentBatch is the same for comments, whose bodies take a few KB.
	commentBatch = 100
)

// threadRequest is the common part of all reads of a thread.
type threadRequest interface {
	GetRoomId() string
	GetThreadId() string
}

// threadOf returns the thread that a request names, without its project.
func threadOf(req threadRequest) mirror.Resource {
	return mirror.Resource{Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindThread, ID: req.GetThreadId()}
}

// GetThread returns a thread, with its comments unless the basic view is requested.
func (m *mirrorService) GetThread(ctx context.Context, req *mirrorv1.GetThreadRequest) (*mirrorv1.GetThreadResponse,
	error,
) {
	row, err := read(ctx, m, req, threadOf(req), m.Query.Thread,
		func(t *mirror.Thread) *mirror.Freshness { return &t.Freshness })
	if err != nil {
		return nil, notMirrored(err, fault.ReasonThreadNotMirrored, "thread", "room_id", req.GetRoomId(),
			"thread_id", req.GetThreadId())
	}
	shown := threadToProto(&row)
	switch req.GetView() {
	case mirrorv1.ThreadView_THREAD_VIEW_BASIC:
	case mirrorv1.ThreadView_THREAD_VIEW_SOURCE:
		shown.SourceJson = row.Source
	default:
		if shown.Comments, err = commentsToProto(&row); err != nil {
			return nil, unreadable(err, "thread")
		}
	}
	if err := m.fits(shown,
		"the thread does not fit one message: ask for its basic view, and for its comments by ListComments"); err != nil {
		return nil, err
	}
	return &mirrorv1.GetThreadResponse{Thread: shown}, nil
}

// ListThreads lists threads, ordered by the bytes of the room id, then by id.
func (m *mirrorService) ListThreads(ctx context.Context,
	req *mirrorv1.ListThreadsRequest,
) (*mirrorv1.ListThreadsResponse, error) {
	threads, next, err := page(ctx, &m.common, req, listing[mirror.Thread, *mirrorv1.Thread]{
		list:  listThreads,
		batch: threadBatch,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Thread, error) {
			return m.Query.Threads(ctx, store.ThreadFilter{
				Project:      in.project,
				Rooms:        in.rooms,
				Room:         mirror.RoomID(req.GetRoomId()),
				Resolved:     req.Resolved, //nolint:protogetter // the getter does not distinguish absent from false
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
		key: func(row *mirror.Thread) cursor { return cursor{Room: row.Room, ID: row.ID} },
		toProto: func(row *mirror.Thread) *mirrorv1.Thread {
			shown := threadToProto(row)
			if req.GetView() == mirrorv1.ThreadView_THREAD_VIEW_SOURCE {
				shown.SourceJson = row.Source
			}
			return shown
		},
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListThreadsResponse{Threads: threads, NextPageToken: next}, nil
}

// GetComment returns a comment.
func (m *mirrorService) GetComment(ctx context.Context, req *mirrorv1.GetCommentRequest) (*mirrorv1.GetCommentResponse,
	error,
) {
	// Comments are fetched with their thread.
	row, err := read(ctx, m, req, threadOf(req),
		func(ctx context.Context, thread mirror.Resource, deleted bool) (mirror.Comment, error) {
			return m.Query.Comment(ctx, thread, req.GetCommentId(), deleted)
		}, func(c *mirror.Comment) *mirror.Freshness { return &c.Freshness })
	if err != nil {
		return nil, notMirrored(err, fault.ReasonCommentNotMirrored, "comment", "room_id", req.GetRoomId(),
			"thread_id", req.GetThreadId(), "comment_id", req.GetCommentId())
	}
	shown := commentToProto(withSource(&row))
	shown.SourceJson = row.Source
	return &mirrorv1.GetCommentResponse{Comment: shown}, nil
}

// ListComments lists comments, ordered by the bytes of the room id, then by thread,
// creation time and id.
func (m *mirrorService) ListComments(ctx context.Context,
	req *mirrorv1.ListCommentsRequest,
) (*mirrorv1.ListCommentsResponse, error) {
	if req.GetThreadId() != "" && req.GetRoomId() == "" {
		bad := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "a thread is named by its room and its id")
		bad.Fields = []fault.Field{{Path: "room_id", Problem: "must be given with a thread_id"}}
		return nil, bad
	}
	comments, next, err := page(ctx, &m.common, req, listing[mirror.Comment, *mirrorv1.Comment]{
		list:  listComments,
		batch: commentBatch,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Comment, error) {
			return m.Query.Comments(ctx, store.CommentFilter{
				Project:      in.project,
				Rooms:        in.rooms,
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
		toProto: func(row *mirror.Comment) *mirrorv1.Comment { return commentToProto(withSource(row)) },
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListCommentsResponse{Comments: comments, NextPageToken: next}, nil
}

// ListActiveUsers lists the active users of a room, ordered by connection id and user.
func (m *mirrorService) ListActiveUsers(ctx context.Context,
	req *mirrorv1.ListActiveUsersRequest,
) (*mirrorv1.ListActiveUsersResponse, error) {
	var row mirror.ActiveUsers
	users, next, err := page(ctx, &m.common, req, listing[mirror.ActiveUser, *mirrorv1.ActiveUser]{
		list: listActiveUsers,
		// All users are one copy, so one read serves every page.
		fetch: func(ctx context.Context, _ scope, after cursor, limit int) ([]mirror.ActiveUser, error) {
			var err error
			room := mirror.Resource{Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindActiveUsers}
			row, err = read(ctx, m, req, room, m.Query.ActiveUsers,
				func(u *mirror.ActiveUsers) *mirror.Freshness { return &u.Freshness })
			if err != nil {
				return nil, roomNotMirrored(err, req.GetRoomId())
			}
			last, ok := activeUserOf(after.ID)
			rest := slices.DeleteFunc(slices.Clone(row.Users),
				func(u mirror.ActiveUser) bool { return ok && u.Compare(last) <= 0 })
			return rest[:min(limit, len(rest))], nil
		},
		key:     func(u *mirror.ActiveUser) cursor { return cursor{ID: activeUserKey(*u)} },
		toProto: activeUserToProto,
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListActiveUsersResponse{
		ActiveUsers: users, NextPageToken: next, Freshness: freshnessToProto(row.Freshness, nil),
	}, nil
}

// ListUserSessions lists the sessions of users in rooms, newest first.
func (m *mirrorService) ListUserSessions(ctx context.Context,
	req *mirrorv1.ListUserSessionsRequest,
) (*mirrorv1.ListUserSessionsResponse, error) {
	sessions, next, err := page(ctx, &m.common, req, listing[mirror.UserSession, *mirrorv1.UserSession]{
		list: listUserSessions,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.UserSession, error) {
			return m.Query.UserSessions(ctx, store.SessionFilter{
				Project:   in.project,
				Rooms:     in.rooms,
				Room:      mirror.RoomID(req.GetRoomId()),
				User:      req.GetUserId(),
				Open:      req.GetOpenOnly(),
				From:      bound(req.GetStartTime()),
				To:        bound(req.GetEndTime()),
				AfterTime: after.stored(),
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key:     func(row *mirror.UserSession) cursor { return cursor{Time: row.BeginTime(), ID: row.ID} },
		toProto: sessionToProto,
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListUserSessionsResponse{UserSessions: sessions, NextPageToken: next}, nil
}

// notificationBatch is the maximum number of notifications of one query: custom
// ones contain data of the application.
const notificationBatch = 100

// ListNotifications lists notifications, newest first.
func (m *mirrorService) ListNotifications(ctx context.Context,
	req *mirrorv1.ListNotificationsRequest,
) (*mirrorv1.ListNotificationsResponse, error) {
	notifications, next, err := page(ctx, &m.common, req, listing[mirror.Notification, *mirrorv1.Notification]{
		list:  listNotifications,
		batch: notificationBatch,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Notification, error) {
			return m.Query.Notifications(ctx, store.NotificationFilter{
				Project:   in.project,
				Rooms:     in.rooms,
				Room:      mirror.RoomID(req.GetRoomId()),
				User:      req.GetUserId(),
				ID:        req.GetNotificationId(),
				Channel:   req.GetChannel(),
				Kind:      req.GetKind(),
				Thread:    req.GetThreadId(),
				From:      bound(req.GetStartTime()),
				To:        bound(req.GetEndTime()),
				AfterTime: after.stored(),
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key:     func(row *mirror.Notification) cursor { return cursor{Time: row.CreateTime, ID: row.EventID} },
		toProto: notificationToProto,
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListNotificationsResponse{Notifications: notifications, NextPageToken: next}, nil
}

func roomNotMirrored(err error, room string) error {
	return notMirrored(err, fault.ReasonRoomNotMirrored, "room", "room_id", room)
}

// unreadable returns the failure for a source that cannot be read.
func unreadable(err error, what string) error {
	return fault.Wrap(err, fault.Precondition, fault.ReasonDocumentUnreadable,
		"the "+what+" was fetched and is kept, but cannot be read as what it should be")
}

// groupBatch bounds how many groups one query brings: with a thousand members, one
// is some hundred KB.
const groupBatch = 50

// GetGroup returns a group of users.
func (m *mirrorService) GetGroup(ctx context.Context, req *mirrorv1.GetGroupRequest) (*mirrorv1.GetGroupResponse,
	error,
) {
	row, err := read(ctx, m, req, mirror.Resource{Kind: mirror.KindGroup, ID: req.GetGroupId()}, m.Query.Group,
		func(g *mirror.Group) *mirror.Freshness { return &g.Freshness })
	if err != nil {
		return nil, notMirrored(err, fault.ReasonGroupNotMirrored, "group", "group_id", req.GetGroupId())
	}
	shown := groupToProto(&row)
	if err := m.fits(shown, "the group does not fit one message"); err != nil {
		return nil, err
	}
	return &mirrorv1.GetGroupResponse{Group: shown}, nil
}

// ListGroups lists groups by id, in byte order.
func (m *mirrorService) ListGroups(ctx context.Context, req *mirrorv1.ListGroupsRequest) (*mirrorv1.ListGroupsResponse,
	error,
) {
	groups, next, err := page(ctx, &m.common, req, listing[mirror.Group, *mirrorv1.Group]{
		list:  listGroups,
		batch: groupBatch,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Group, error) {
			return m.Query.Groups(ctx, store.GroupFilter{
				Project: in.project, User: req.GetUserId(), Deleted: req.GetShowDeleted(), After: after.ID, Limit: limit,
			})
		},
		key:     func(row *mirror.Group) cursor { return cursor{ID: row.ID} },
		toProto: groupToProto,
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListGroupsResponse{Groups: groups, NextPageToken: next}, nil
}
