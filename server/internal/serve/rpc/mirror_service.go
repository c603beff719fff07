package rpc

import (
	"context"
	"strconv"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

type mirrorService struct {
	mirrorv1.UnimplementedMirrorServiceServer

	s *Services
}

// pageBudget bounds the items of a page in bytes, with a quarter of the message
// to spare for clients that count otherwise.
func (s *Services) pageBudget() int { return s.MaxMessage / 4 * 3 }

// GetRoom returns a room.
func (m *mirrorService) GetRoom(ctx context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	room, err := read(ctx, m.s, req, copyOf[mirror.Room]{
		resource:  mirror.Resource{Project: project, Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindRoom},
		get:       m.s.Query.Room,
		freshness: func(r *mirror.Room) mirror.Freshness { return r.Freshness },
	})
	if err != nil {
		return nil, notFound(err, roomNotMirrored(err, req.GetRoomId()))
	}
	return &mirrorv1.GetRoomResponse{Room: showRoom(&room, true)}, nil
}

// roomBatch bounds how many rooms one query brings: with all the accesses and
// metadata Liveblocks allows, a room is some hundred KB.
const roomBatch = 100

// ListRooms lists rooms by id, in byte order.
func (m *mirrorService) ListRooms(ctx context.Context, req *mirrorv1.ListRoomsRequest) (*mirrorv1.ListRoomsResponse,
	error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	full := req.GetView() == mirrorv1.RoomView_ROOM_VIEW_FULL
	rooms, next, err := page(ctx, req, listing[mirror.Room, *mirrorv1.Room]{
		list:    listRooms,
		project: project,
		batch:   roomBatch,
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.Room, error) {
			return m.s.Query.Rooms(ctx, store.RoomFilter{
				Project: project,
				Prefix:  req.GetRoomIdPrefix(),
				Deleted: req.GetShowDeleted(),
				After:   after.Room,
				Limit:   limit,
			})
		},
		key:  func(row *mirror.Room) cursor { return cursor{Room: row.ID} },
		show: func(row *mirror.Room) *mirrorv1.Room { return showRoom(row, full) },
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListRoomsResponse{Rooms: rooms, NextPageToken: next}, nil
}

// GetStorageDocument returns a room's Storage document.
func (m *mirrorService) GetStorageDocument(ctx context.Context,
	req *mirrorv1.GetStorageDocumentRequest) (*mirrorv1.GetStorageDocumentResponse, error) {
	document, err := m.getDocument(ctx, req, mirror.KindStorage, "", req.GetFormat(), req.GetView())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.GetStorageDocumentResponse{Document: document}, nil
}

// GetYjsDocument returns a Yjs document of a room.
func (m *mirrorService) GetYjsDocument(ctx context.Context,
	req *mirrorv1.GetYjsDocumentRequest) (*mirrorv1.GetYjsDocumentResponse, error) {
	document, err := m.getDocument(ctx, req, mirror.KindYdoc, req.GetGuid(), req.GetFormat(), req.GetView())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.GetYjsDocumentResponse{Document: document}, nil
}

func (m *mirrorService) getDocument(ctx context.Context, req documentRequest, kind mirror.Kind, id string,
	format mirrorv1.DocumentFormat, view mirrorv1.DocumentView) (*mirrorv1.Document, error) {
	format, form, err := formOf(kind, format)
	if err != nil {
		return nil, err
	}
	doc, kept, err := m.document(ctx, req, kind, id, form)
	if err != nil {
		return nil, err
	}
	if view == mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC {
		return showDocument(&doc), nil
	}
	content, release, err := m.s.documents.represent(ctx, &doc, req.GetShowDeleted(), form, kept)
	if err != nil {
		return nil, documentFault(err, req.GetRoomId(), kind)
	}
	defer release()
	if limit := m.s.MaxMessage - envelope; len(content) > limit {
		return nil, fault.New(fault.Precondition, fault.ReasonDocumentTooLarge,
			"the document does not fit one message: read it as a stream").
			With("size", strconv.Itoa(len(content))).With("limit", strconv.Itoa(limit))
	}
	shown := showDocument(&doc)
	shown.Content, shown.Format, shown.ContentType = content, format, form.mediaType
	return shown, nil
}

// documentRequest is what the reads of one document have in common.
type documentRequest interface {
	freshRequest
	GetProjectId() string
	GetRoomId() string
}

// document describes a document. Its content comes along if it is short, unless
// that is the source of what the cache holds in the form wanted.
func (m *mirrorService) document(ctx context.Context, req documentRequest, kind mirror.Kind, id string,
	f form) (mirror.Document, derived, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return mirror.Document{}, derived{}, err
	}
	resource := mirror.Resource{Project: project, Room: mirror.RoomID(req.GetRoomId()), Kind: kind, ID: id}
	var kept derived
	if f.derive != nil {
		kept = m.s.documents.cache.get(derivedKey{resource, f.tag})
	}
	doc, err := read(ctx, m.s, req, copyOf[mirror.Document]{
		resource: resource,
		get: func(ctx context.Context, r mirror.Resource, deleted bool) (mirror.Document, error) {
			return m.s.documents.describe(ctx, store.DocumentRead{Resource: r, Deleted: deleted, Have: kept.sha256})
		},
		freshness: func(d *mirror.Document) mirror.Freshness { return d.Freshness },
	})
	if err != nil {
		return doc, kept, documentFault(err, req.GetRoomId(), kind)
	}
	return doc, kept, nil
}

// documentFault says of a document that is not there that it is not.
func documentFault(err error, room string, kind mirror.Kind) error {
	return notFound(err, fault.Wrap(err, fault.NotFound, fault.ReasonDocumentNotMirrored,
		"the mirror holds no such document").With("room_id", room).With("kind", kind.String()))
}

// chunkSize is how much of a document one message of a stream holds: large
// enough that the cost of a message does not count, small enough that a slow
// reader pins little. The chunks are slices of the document, and the codec
// sends them as they lie.
const chunkSize = 256 << 10

// ReadDocument streams a document's bytes, or nothing but metadata if the
// caller has them.
func (m *mirrorService) ReadDocument(req *mirrorv1.ReadDocumentRequest,
	stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	ctx := stream.Context()
	kind := mirror.KindStorage
	if req.GetKind() != mirrorv1.DocumentKind_DOCUMENT_KIND_UNSPECIFIED {
		kind = wordOf(documentKinds, req.GetKind())
	}
	_, form, err := formOf(kind, req.GetFormat())
	if err != nil {
		return err
	}
	if kind != mirror.KindYdoc && req.GetGuid() != "" {
		bad := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "only Yjs documents have a guid")
		bad.Fields = []fault.Field{{Path: "guid", Problem: "must be empty for this kind of document"}}
		return bad
	}
	doc, kept, err := m.document(ctx, req, kind, req.GetGuid(), form)
	if err != nil {
		return err
	}
	held := metadata.ValueFromIncomingContext(ctx, "if-none-match")
	if tag := form.etag(&doc); matches(held, tag) {
		header := documentHeader(&doc, tag)
		header.Set("mirror-not-modified", "1")
		return stream.SetHeader(header)
	}
	content, release, err := m.s.documents.represent(ctx, &doc, req.GetShowDeleted(), form, kept)
	if err != nil {
		return documentFault(err, req.GetRoomId(), kind)
	}
	defer release()
	header := documentHeader(&doc, form.etag(&doc))
	header.Set("mirror-content-length", strconv.Itoa(len(content)))
	if err := stream.SetHeader(header); err != nil {
		return err
	}
	// An empty document is one empty chunk, which still tells the type.
	for first := true; first || len(content) > 0; first = false {
		chunk := content[:min(len(content), chunkSize)]
		content = content[len(chunk):]
		if err := stream.Send(&httpbody.HttpBody{ContentType: form.mediaType, Data: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func documentHeader(doc *mirror.Document, tag string) metadata.MD {
	return metadata.Pairs(
		"mirror-etag", tag,
		"mirror-revision", strconv.FormatInt(doc.Freshness.Revision, 10),
		"mirror-fetch-time", doc.Freshness.FetchTime.UTC().Format(timeFormat),
	)
}

// ListDocuments lists documents by room id, in byte order, then by kind.
func (m *mirrorService) ListDocuments(ctx context.Context,
	req *mirrorv1.ListDocumentsRequest) (*mirrorv1.ListDocumentsResponse, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	documents, next, err := page(ctx, req, listing[mirror.Document, *mirrorv1.Document]{
		list:    listDocuments,
		project: project,
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.Document, error) {
			return m.s.Query.Documents(ctx, store.DocumentFilter{
				Project:   project,
				Prefix:    req.GetRoomIdPrefix(),
				Kind:      wordOf(documentKinds, req.GetKind()),
				AfterRoom: after.Room,
				AfterKind: after.Kind,
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key:  func(row *mirror.Document) cursor { return cursor{Room: row.Room, Kind: row.Kind, ID: row.ID} },
		show: showDocument,
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListDocumentsResponse{Documents: documents, NextPageToken: next}, nil
}
