package rpc

import (
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// spliceFrom is the size from which a document is spliced into its message instead
// of copied. The standard codec copies it to a pooled buffer, after clearing all of
// its 1 MiB.
const spliceFrom = 8 << 10

// codec is gRPC's codec for protobuf, except that it sends documents without
// copying them. The bytes on the wire are a normal protobuf message with the large
// field last.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Marshal returns the wire form of v. v must not change until it is sent.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case documentResponse:
		if doc := m.GetDocument(); len(doc.GetContent()) >= spliceFrom && onlyDocument(m) {
			return spliceDocument(doc)
		}
	case *httpbody.HttpBody:
		if len(m.GetData()) >= spliceFrom && len(m.GetExtensions()) == 0 && len(m.ProtoReflect().GetUnknown()) == 0 {
			return spliceBody(m)
		}
	}
	return c.CodecV2.Marshal(v)
}

// Numbers of the fields written by hand. A test compares the result with the
// standard codec for messages with every field set.
const (
	responseDocument protowire.Number = 1
	documentContent  protowire.Number = 4
	bodyContentType  protowire.Number = 1
	bodyData         protowire.Number = 2
)

// documentResponse is a response that holds only a document.
type documentResponse interface {
	proto.Message
	GetDocument() *mirrorv1.Document
}

func onlyDocument(m documentResponse) bool {
	return len(m.ProtoReflect().GetUnknown()) == 0 && len(m.GetDocument().ProtoReflect().GetUnknown()) == 0
}

func spliceDocument(doc *mirrorv1.Document) (mem.BufferSlice, error) {
	content := doc.GetContent()
	rest := &mirrorv1.Document{
		ProjectId:   doc.GetProjectId(),
		RoomId:      doc.GetRoomId(),
		Kind:        doc.GetKind(),
		Format:      doc.GetFormat(),
		ContentType: doc.GetContentType(),
		SourceSize:  doc.GetSourceSize(),
		DataProblem: doc.GetDataProblem(),
		Freshness:   doc.GetFreshness(),
		Guid:        doc.GetGuid(),
	}
	size := proto.Size(rest)
	whole := size + protowire.SizeTag(documentContent) + protowire.SizeBytes(len(content))
	head := make([]byte, 0, size+32)
	head = protowire.AppendTag(head, responseDocument, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(whole)) //nolint:gosec // a size
	head, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(head, rest)
	if err != nil {
		return nil, err
	}
	head = protowire.AppendTag(head, documentContent, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(content)))
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(content)}, nil
}

func spliceBody(body *httpbody.HttpBody) (mem.BufferSlice, error) {
	head := make([]byte, 0, len(body.GetContentType())+32)
	head = protowire.AppendTag(head, bodyContentType, protowire.BytesType)
	head = protowire.AppendString(head, body.GetContentType())
	head = protowire.AppendTag(head, bodyData, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(body.GetData())))
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(body.GetData())}, nil
}
