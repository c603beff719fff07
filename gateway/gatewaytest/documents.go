package gatewaytest

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var documentCases = []testCase{
	{"DocumentIsStreamed", documentStreamed},
	{"DocumentParameters", documentParameters},
	{"DocumentNotModified", documentNotModified},
	{"DocumentHead", documentHead},
	{"DocumentErrorsBefore", documentErrorsBefore},
	{"DocumentErrorsAmid", documentErrorsAmid},
	{"DocumentReaderGone", documentReaderGone},
}

const (
	document    = "/v1/rooms/r/storage:read"
	yjsDocument = "/v1/rooms/r/ydoc:read"
)

// chunked sends data in chunks after header metadata, then returns err.
func chunked(data []byte, size int, err error, pairs ...string) readFunc {
	return func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
		if err := stream.SetHeader(metadata.Pairs(pairs...)); err != nil {
			return err
		}
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			if err := stream.Send(&httpbody.HttpBody{ContentType: "application/json", Data: rest[:n]}); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return err
	}
}

func documentStreamed(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	for _, length := range []string{strconv.Itoa(len(data)), ""} {
		r.onRead(chunked(data, 256<<10-1, nil,
			"mirror-content-length", length, "mirror-etag", `"json-1"`, "mirror-revision", "42", "mirror-fetch-time",
			"2026-01-02T03:04:05Z", "mirror-refresh-error", "PROJECT_PAUSED: paused", "x-request-id", "one"))
		a := r.get(t, document)
		a.accepted(t, nil)
		if !bytes.Equal(a.body, data) {
			t.Errorf("%d bytes came; want the %d of the document", len(a.body), len(data))
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "Content-Length": length, "Etag": `"json-1"`, "Mirror-Revision": "42",
			"X-Request-Id": "one", "Mirror-Refresh-Error": "PROJECT_PAUSED: paused",
			"Mirror-Fetch-Time": "2026-01-02T03:04:05Z", "Cache-Control": "private, no-cache",
			"X-Content-Type-Options": "nosniff",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s = %q; want %q", name, got, want)
			}
		}
	}
	// A small one, an empty one and a tag without quotes.
	r.onRead(chunked([]byte("{}"), 1, nil, "mirror-content-length", "2", "mirror-etag", "abc"))
	a := r.get(t, document)
	a.accepted(t, nil)
	if string(a.body) != "{}" || a.header.Get("Etag") != `"abc"` {
		t.Errorf("document = %s, tag %s; want {} and \"abc\"", a.body, a.header.Get("Etag"))
	}
	r.onRead(chunked(nil, 1, nil, "mirror-content-length", "0"))
	a = r.get(t, document)
	a.accepted(t, nil)
	if len(a.body) != 0 || a.header.Get("Content-Length") != "0" {
		t.Errorf("document = %q; want nothing", a.body)
	}
}

func documentParameters(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	storage := mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE
	for query, want := range map[string]*mirrorv1.ReadDocumentRequest{
		"":                                   {},
		"?format=json":                       {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON},
		"?format=plain-lson":                 {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON},
		"?format=DOCUMENT_FORMAT_PLAIN_LSON": {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON},
		"?kind=DOCUMENT_KIND_STORAGE":        {},
		"?kind=storage&format=DOCUMENT_FORMAT_JSON": {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON},
		"?max_age=5s&require_fresh=true":            {MaxAge: durationpb.New(5 * time.Second), RequireFresh: true},
		"?showDeleted=true&project_id=p":            {ShowDeleted: true, ProjectId: "p"},
		"?projectId=p&maxAge=0s&show_deleted=false": {ProjectId: "p", MaxAge: durationpb.New(0)},
		"?format=text":   {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT},
		"?format=editor": {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR},
	} {
		r.get(t, document+query).accepted(t, nil)
		want.RoomId, want.Kind = "r", storage
		if diff := cmp.Diff(want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
			t.Errorf("request of %q (-want +got):\n%s", query, diff)
		}
	}
	for query, want := range map[string]*mirrorv1.ReadDocumentRequest{
		"":                             {},
		"?format=json&guid=a%2Fb":      {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON, Guid: "a/b"},
		"?format=binary":               {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY},
		"?format=text":                 {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT},
		"?format=editor":               {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR},
		"?format=DOCUMENT_FORMAT_TEXT": {Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT},
		"?kind=DOCUMENT_KIND_YDOC":     {},
	} {
		r.get(t, yjsDocument+query).accepted(t, nil)
		want.RoomId, want.Kind = "r", mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC
		if diff := cmp.Diff(want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
			t.Errorf("request of %q (-want +got):\n%s", query, diff)
		}
	}
	for _, name := range []string{"room_id", "roomId"} {
		r.get(t, "/v1/ydoc:read?format=text&guid=g&"+name+"=a%2F..%2Fb").accepted(t, nil)
		want := &mirrorv1.ReadDocumentRequest{
			RoomId: "a/../b", Guid: "g", Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC,
			Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT,
		}
		if diff := cmp.Diff(want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
			t.Errorf("request with %s in the query (-want +got):\n%s", name, diff)
		}
		r.get(t, "/v1/storage:read?room_id=a&"+name+"=b").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	}
	for _, query := range []string{"format=plain-lson", "format=xml", "kind=DOCUMENT_KIND_STORAGE", "kind=storage"} {
		r.get(t, yjsDocument+"?"+query).refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	}
	for _, query := range []string{
		"format=binary", "format=DOCUMENT_FORMAT_BINARY", "format=xml", "format=", "format=JSON",
		"format=json&format=json", "formats=json",
		"kind=DOCUMENT_KIND_YDOC", "kind=1", "room_id=s",
		"max_age=5", "require_fresh=perhaps", "max_age=1s&maxAge=2s",
	} {
		r.get(t, document+"?"+query).refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	}
	r.noCall(t)
}

func documentNotModified(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onRead(func(req *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		if tags := md.Get("if-none-match"); len(tags) == 1 && tags[0] == `"x", W/"y"` {
			return stream.SendHeader(metadata.Pairs("mirror-not-modified", "1", "mirror-etag", `"x"`, "mirror-revision", "42",
				"mirror-fetch-time", "now"))
		}
		return chunked([]byte("{}"), 2, nil)(req, stream)
	})
	for _, fields := range [][]string{
		{"If-None-Match", `"x", W/"y"`},
		{"If-None-Match", `"x"`, "If-None-Match", `W/"y"`},
	} {
		a := r.get(t, document, fields...)
		if a.code != http.StatusNotModified || len(a.body) != 0 {
			t.Fatalf("answer = %d %q; want 304 without a body", a.code, a.body)
		}
		for name, want := range map[string]string{
			"Etag": `"x"`, "Mirror-Revision": "42", "Mirror-Fetch-Time": "now",
			"Cache-Control": "private, no-cache", "Content-Length": "", "Content-Type": "",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s = %q; want %q", name, got, want)
			}
		}
	}
	a := r.get(t, document, "If-None-Match", `"z"`)
	a.accepted(t, nil)
	if string(a.body) != "{}" {
		t.Errorf("document = %s; want {}", a.body)
	}
}

func documentHead(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onRead(chunked(make([]byte, 1<<20), 64<<10, nil, "mirror-content-length", strconv.Itoa(1<<20), "mirror-etag", `"x"`))
	a := r.do(t, http.MethodHead, r.url+document, nil)
	if a.code != http.StatusOK || len(a.body) != 0 || a.header.Get("Content-Length") != strconv.Itoa(1<<20) ||
		a.header.Get("Etag") != `"x"` || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD = %d, %d bytes, %v; want what GET would tell", a.code, len(a.body), a.header)
	}
	r.onRead(chunked(nil, 1, fail(codes.NotFound, "DOCUMENT_NOT_MIRRORED", 0)))
	if a := r.do(t, http.MethodHead, r.url+document, nil); a.code != http.StatusNotFound || len(a.body) != 0 {
		t.Errorf("HEAD = %d, %d bytes; want 404 and none", a.code, len(a.body))
	}
}

func documentErrorsBefore(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, c := range []struct {
		read   readFunc
		code   int
		reason string
	}{
		{
			chunked(nil, 1, fail(codes.NotFound, "DOCUMENT_NOT_MIRRORED", 0), "mirror-content-length", "5", "mirror-etag", "x"),
			404, "DOCUMENT_NOT_MIRRORED",
		},
		{chunked(nil, 1, fail(codes.Unavailable, "STORE_UNAVAILABLE", time.Second)), 503, "STORE_UNAVAILABLE"},
		{chunked(nil, 1, nil, "mirror-content-length", "5"), 500, "INTERNAL"},
		// Nothing is out yet while the first chunk waits for what follows it.
		{
			chunked([]byte("ab"), 2, fail(codes.Unavailable, "STORE_UNAVAILABLE", time.Second), "mirror-content-length", "5"),
			503, "STORE_UNAVAILABLE",
		},
		{chunked([]byte("ab"), 2, nil, "mirror-content-length", "5"), 500, "INTERNAL"},
		{chunked([]byte("abcdef"), 6, nil, "mirror-content-length", "5"), 500, "INTERNAL"},
	} {
		r.onRead(c.read)
		a := r.get(t, document)
		a.refused(t, c.code, c.reason)
		if a.header.Get("Etag") != "" || a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
			t.Errorf("header = %v; want nothing of the document", a.header)
		}
		if got, want := a.header.Get("Retry-After") != "", c.code == http.StatusServiceUnavailable; got != want {
			t.Errorf("Retry-After on %d: %t; want %t", c.code, got, want)
		}
	}
}

func documentErrorsAmid(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	data := bytes.Repeat([]byte("x"), 100_000)
	full := strconv.Itoa(len(data))
	broken := fail(codes.Unavailable, "STORE_UNAVAILABLE", 0)
	for name, read := range map[string]readFunc{
		"amid":                   chunked(data[:50_000], 10_000, broken, "mirror-content-length", full),
		"amid, length unknown":   chunked(data[:50_000], 10_000, broken),
		"at the end":             chunked(data, 10_000, broken, "mirror-content-length", full),
		"at the end, unknown":    chunked(data, 10_000, broken),
		"small":                  chunked([]byte("abc"), 1, broken, "mirror-content-length", "3"),
		"small, length unknown":  chunked([]byte("abc"), 1, broken),
		"too short":              chunked(data[:99_999], 10_000, nil, "mirror-content-length", full),
		"too long":               chunked(data, 10_000, nil, "mirror-content-length", "99999"),
		"plain error":            chunked(data, 10_000, context.DeadlineExceeded, "mirror-content-length", full),
		"error without a reason": chunked(data, 10_000, status.Error(codes.Internal, "x")),
	} {
		r.onRead(read)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+document, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			continue // broken before the header was out
		}
		var got bytes.Buffer
		_, err = got.ReadFrom(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s: the client took %d bytes for the whole document", name, got.Len())
		}
	}
}

func documentReaderGone(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	ended := make(chan error, 1)
	r.onRead(func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
		chunk := &httpbody.HttpBody{Data: make([]byte, 64<<10)}
		for {
			if err := stream.Send(chunk); err != nil {
				<-stream.Context().Done()
				ended <- err
				return err
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+document, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resp.Body.Read(make([]byte, 1<<10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	if err := <-ended; err == nil {
		t.Error("the stream went on without a reader")
	}
}
