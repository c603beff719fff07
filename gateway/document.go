package gateway

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// documentRoute is a route that readDocument serves instead of the generated
// handler. The latter adds a newline after every chunk, sends no length, and writes
// an error in the middle as if it were part of the document.
type documentRoute struct {
	// paths are those with the room's id in the path or in the query.
	paths []string
	kind  mirrorv1.DocumentKind
	// formats are those of this kind of document.
	formats []mirrorv1.DocumentFormat
}

var documentRoutes = []documentRoute{
	{
		paths: []string{"/v1/rooms/{room_id}/storage:read", "/v1/storage:read"},
		kind:  mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE,
		formats: []mirrorv1.DocumentFormat{
			mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON, mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON,
			mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT, mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR,
		},
	},
	{
		paths: []string{"/v1/rooms/{room_id}/ydoc:read", "/v1/ydoc:read"},
		kind:  mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC,
		formats: []mirrorv1.DocumentFormat{
			mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON, mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY,
			mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT, mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR,
		},
	},
}

// notFromQuery is the field that the path sets.
var notFromQuery = utilities.NewDoubleArray([][]string{{"kind"}})

// readDocument responds with the document itself.
func (g *Gateway) readDocument(route documentRoute, path string) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		g.serveDocument(w, r, route, path, params)
	}
}

func (g *Gateway) serveDocument(w http.ResponseWriter, r *http.Request, route documentRoute, path string,
	params map[string]string,
) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	_, marshal := runtime.MarshalerForRequest(g.mux, r)
	fail := func(err error) { runtime.HTTPError(ctx, g.mux, marshal, w, r, err) }

	req, err := route.request(params, r.Form)
	if err != nil {
		fail(err)
		return
	}
	ctx, err = runtime.AnnotateContext(ctx, g.mux, r, mirrorv1.MirrorService_ReadDocument_FullMethodName,
		runtime.WithHTTPPathPattern(path))
	if err != nil {
		fail(err)
		return
	}
	// Several lines of this header form one list by definition.
	if tags := strings.Join(r.Header["If-None-Match"], ", "); tags != "" && printable(tags) {
		ctx = metadata.AppendToOutgoingContext(ctx, "if-none-match", tags)
	}
	stream, err := g.documents.ReadDocument(ctx, req)
	if err != nil {
		fail(err)
		return
	}
	d := &delivery{w: w, stream: stream, head: r.Context().Value(headOnly{}) != nil}
	first, err := stream.Recv()
	if err == nil || errors.Is(err, io.EOF) {
		var herr error
		if d.meta, herr = stream.Header(); herr != nil {
			err = herr
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		err = d.empty()
	case err == nil:
		err = d.send(first)
	}
	if err == nil {
		return
	}
	if !d.begun {
		fail(err)
		return
	}
	if ctx.Err() == nil && !errors.Is(err, errReaderGone) {
		g.log.WarnContext(ctx, "a document response was aborted", slog.Any("error", err))
	}
	// The status line said 200. Only breaking the connection can revoke it.
	panic(http.ErrAbortHandler)
}

// headOnly marks the context of a HEAD request, which is routed as a GET.
type headOnly struct{}

// request builds a request from the ids in the path and from the query, in which
// there are no others.
func (route documentRoute) request(params map[string]string, query url.Values) (*mirrorv1.ReadDocumentRequest, error) {
	req := &mirrorv1.ReadDocumentRequest{}
	if err := runtime.PopulateQueryParameters(req, query, notFromQuery); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if room, ok := params["room_id"]; ok {
		req.RoomId = room
	}
	req.Kind = route.kind
	if kinds, ok := query["kind"]; ok && (len(kinds) > 1 || kinds[0] != req.GetKind().String()) {
		return nil, status.Error(codes.InvalidArgument, "the path names the kind of the document")
	}
	if req.GetFormat() != 0 && !slices.Contains(route.formats, req.GetFormat()) {
		words := make([]string, len(route.formats))
		for i, format := range route.formats {
			words[i] = apijson.Word(format.Descriptor().Values().ByNumber(format.Number()))
		}
		return nil, status.Error(codes.InvalidArgument, apijson.UnknownWord("format", words).Error())
	}
	return req, nil
}

// errReaderGone means that the client no longer reads the document.
var errReaderGone = errors.New("the reader is gone")

// delivery is the state of one document response.
type delivery struct {
	w      http.ResponseWriter
	stream grpc.ServerStreamingClient[httpbody.HttpBody]
	head   bool // send the header only
	meta   metadata.MD
	begun  bool // whether the status line may have been sent
}

// empty responds to a stream without chunks: the client's copy is current, or the
// document is empty.
func (d *delivery) empty() error {
	if d.one("mirror-not-modified") == "1" {
		d.begin(http.StatusNotModified)
		return nil
	}
	if length, ok := d.length(); ok && length != 0 {
		return status.Errorf(codes.Internal, "document of %d bytes came without any", length)
	}
	d.w.Header().Set("Content-Length", "0")
	d.begin(http.StatusOK)
	return nil
}

// send writes the chunks. It holds each one back until the next one or the end
// arrives, so a stream that fails after its last byte leaves the response
// incomplete.
func (d *delivery) send(held *httpbody.HttpBody) error {
	contentType := cmp.Or(held.GetContentType(), "application/octet-stream")
	length, known := d.length()
	begin := func() {
		d.w.Header().Set("Content-Type", contentType)
		if known {
			d.w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
		}
		d.begin(http.StatusOK)
	}
	if d.head {
		begin()
		return nil
	}
	var total int64
	for last := false; !last; {
		total += int64(len(held.GetData()))
		next, err := d.stream.Recv()
		last = errors.Is(err, io.EOF)
		switch {
		case err != nil && !last:
			return err
		case known && (total > length || last && total != length):
			return status.Errorf(codes.Internal, "document of %d bytes came as %d or more", length, total)
		}
		if !d.begun {
			begin()
		}
		if _, err := d.w.Write(held.GetData()); err != nil { //nolint:gosec // of the declared type, and nosniff
			return errReaderGone
		}
		held = next
	}
	return nil
}

// begin sets the header fields that a document and "not modified" share, and sends
// them with the status.
func (d *delivery) begin(httpCode int) {
	h := d.w.Header()
	if tag := d.one("mirror-etag"); tag != "" {
		h.Set("ETag", entityTag(tag))
	}
	for key, name := range map[string]string{
		"mirror-revision":      "Mirror-Revision",
		"mirror-fetch-time":    "Mirror-Fetch-Time",
		"mirror-stale":         "Mirror-Stale",
		"mirror-refresh-error": "Mirror-Refresh-Error",
		"x-request-id":         "X-Request-Id",
	} {
		if v := d.one(key); v != "" {
			h.Set(name, v)
		}
	}
	// The client may cache it but must revalidate it before use.
	h.Set("Cache-Control", "private, no-cache")
	d.begun = true
	d.w.WriteHeader(httpCode)
}

// length returns the document's size, if the service sent it.
func (d *delivery) length() (int64, bool) {
	n, err := strconv.ParseInt(d.one("mirror-content-length"), 10, 64)
	return n, err == nil && n >= 0
}

// one returns the value of a header that the service sent exactly once.
func (d *delivery) one(key string) string {
	if v := d.meta.Get(key); len(v) == 1 {
		return v[0]
	}
	return ""
}

// entityTag returns tag in the form that HTTP requires.
func entityTag(tag string) string {
	if strings.HasSuffix(tag, `"`) && (strings.HasPrefix(tag, `"`) || strings.HasPrefix(tag, `W/"`)) {
		return tag
	}
	return `"` + tag + `"`
}
