package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// changesPath is the stream of changes, which watchChanges serves instead of the generated
// handler: that one knows no server-sent events.
const changesPath = "/v1/changes:watch"

const (
	eventStream = "text/event-stream"
	// reconnectMillis is how long a browser waits before it connects again.
	reconnectMillis = 3000
)

// watchChanges sends changes as server-sent events to who accepts them, otherwise as the
// generated handler sends a stream.
func (g *Gateway) watchChanges(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	in, marshal := runtime.MarshalerForRequest(g.mux, r)
	fail := func(err error) { runtime.HTTPError(ctx, g.mux, marshal, w, r, err) }

	out := &changeStream{w: w, control: http.NewResponseController(w), events: acceptsEvents(r)}
	req := &mirrorv1.WatchChangesRequest{}
	var err error
	if r.Method == http.MethodGet {
		err = runtime.PopulateQueryParameters(req, r.Form, utilities.NewDoubleArray(nil))
	} else if err = in.NewDecoder(r.Body).Decode(req); errors.Is(err, io.EOF) {
		err = nil
	}
	if err != nil {
		fail(status.Error(codes.InvalidArgument, err.Error()))
		return
	}
	if last := r.Header.Get("Last-Event-Id"); last != "" && out.events {
		req.Start = &mirrorv1.WatchChangesRequest_Token{Token: last}
	}
	if r.Context().Value(headOnly{}) != nil {
		_ = out.begin()
		return
	}
	ctx, err = runtime.AnnotateContext(ctx, g.mux, r, mirrorv1.ChangeService_WatchChanges_FullMethodName,
		runtime.WithHTTPPathPattern(changesPath))
	if err != nil {
		fail(err)
		return
	}
	stream, err := g.changes.WatchChanges(ctx, req)
	if err != nil {
		fail(err)
		return
	}
	for {
		message, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil && !out.begun:
			header, _ := stream.Header() // there is none if there was no connection
			runtime.HTTPError(runtime.NewServerMetadataContext(ctx, runtime.ServerMetadata{HeaderMD: header}), g.mux, marshal, w,
				r, err)
			return
		case err != nil:
			if ctx.Err() == nil {
				_ = out.send("error", "", g.public(ctx, err)) // or the reader is gone
			}
			return
		}
		event := message.ProtoReflect().WhichOneof(message.ProtoReflect().Descriptor().Oneofs().ByName("event"))
		name := "message" // of a later version
		if event != nil {
			name = string(event.Name())
		}
		if out.send(name, message.GetToken(), message) != nil {
			return // the reader is gone
		}
	}
}

// acceptsEvents reports whether a request asks for server-sent events.
func acceptsEvents(r *http.Request) bool {
	for _, accepted := range strings.Split(strings.Join(r.Header["Accept"], ","), ",") {
		if media, _, err := mime.ParseMediaType(accepted); err == nil && media == eventStream {
			return true
		}
	}
	return false
}

// changeStream is a response of changes.
type changeStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	events  bool
	begun   bool
	buffer  bytes.Buffer
}

func (s *changeStream) begin() error {
	s.begun = true
	h := s.w.Header()
	h["Content-Type"] = jsonType
	if s.events {
		h.Set("Content-Type", eventStream)
	}
	// Proxies shall neither keep nor gather what is to arrive at once.
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
	if s.events {
		if _, err := fmt.Fprintf(s.w, "retry: %d\n\n", reconnectMillis); err != nil {
			return err
		}
	}
	return s.control.Flush()
}

// send writes one message. Errors end the stream.
func (s *changeStream) send(event, id string, message proto.Message) error {
	if !s.begun {
		if err := s.begin(); err != nil {
			return err
		}
	}
	b := &s.buffer
	b.Reset()
	if !s.events {
		name := "result"
		if event == "error" {
			name = event
		}
		data, err := envelope(name, message)
		if err != nil {
			return err
		}
		b.Write(append(inLine(data), '\n'))
	} else {
		data, err := apijson.Marshal(message)
		if err != nil {
			return err
		}
		if id != "" {
			fmt.Fprintf(b, "id: %s\n", id)
		}
		fmt.Fprintf(b, "event: %s\ndata: %s\n\n", event, inLine(data))
	}
	if _, err := s.w.Write(b.Bytes()); err != nil {
		return err
	}
	return s.control.Flush()
}

// inLine makes JSON fit a line: resources that come with changes hold JSON as Liveblocks wrote
// it, which may have breaks between its tokens. Within a token there are none.
func inLine(data []byte) []byte {
	for i, c := range data {
		if c == '\n' || c == '\r' {
			data[i] = ' '
		}
	}
	return data
}
