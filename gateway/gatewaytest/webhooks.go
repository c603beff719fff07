package gatewaytest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var webhookCases = []testCase{
	{"WebhookBodyIsRaw", webhookBody},
	{"WebhookPaths", webhookPaths},
	{"WebhookHeaders", webhookHeaders},
	{"RepeatedSignatureHeaders", repeatedSignatures},
	{"EncodedBodies", encodedBodies},
	{"SlashAtTheEnd", slashAtTheEnd},
	{"WebhookBodyLimit", webhookLimit},
	{"BodyThatBreaksOff", brokenBody},
	{"BodyThatStalls", stalledBody},
	{"WebhookErrors", webhookErrors},
	{"ClientGone", clientGone},
	{"GRPCTimeout", grpcTimeout},
	{"ManyWebhooksAtOnce", manyWebhooks},
	{"BodiesAreBoundedTogether", bodiesTogether},
}

const hook = "/v1/webhooks/liveblocks"

// payload returns the body received by the echo.
func (c call) payload(t testing.TB) []byte {
	t.Helper()
	req, ok := c.req.(*mirrorv1.ReceiveWebhookRequest)
	if !ok {
		t.Fatalf("the service heard %T; want a webhook", c.req)
	}
	return req.GetBody().GetData()
}

func webhookBody(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	bodies := map[string]string{
		"empty": "", "spaces": "  \r\n\t{ \"a\" :\t1 }\n\n ",
		"numbers": `{"n":123456789012345678901234567890.10e+400,"x":1.0,"y":-0}`,
		"unicode": "{\"s\":\"\\u00e9 \xc3\xa9 e\xcc\x81 \\ud83d\\ude00 \xf0\x9f\x98\x80 \\/ \\u0000\"}",
		"bom":     "\xef\xbb\xbf{}",
		"keys":    `{"a":1,"a":2}`, "null": "null", "nul": "\x00\x00\x01", "invalid UTF-8": "{\"a\":\"\xff\xfe\"}",
		"form": "a=1&b=%20+",
		"two":  "{}{}", "HttpBody": `{"data":"aGk=","contentType":"x"}`, "html": `{"a":"<&>"}`, "noise": string(noise),
	}
	for name, sent := range bodies {
		for _, contentType := range []string{
			"", "application/json", "application/json; charset=utf-16",
			"application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "bad;;type",
		} {
			for _, chunked := range []bool{false, true} {
				var body io.Reader = strings.NewReader(sent)
				if chunked {
					body = io.MultiReader(body) // hides the length
				}
				r.do(t, http.MethodPost, r.url+hook, body, "Content-Type", contentType).accepted(t, nil)
				if got := r.onlyCall(t).payload(t); !bytes.Equal(got, []byte(sent)) {
					t.Errorf("%s as %q (chunked: %t): %d bytes arrived; want the %d sent", name, contentType, chunked, len(got),
						len(sent))
				}
			}
		}
	}
}

func webhookPaths(t *testing.T, dial Dial) {
	// Whoever asks for a credential here gets refused.
	r := newRig(t, dial, func(cfg *gateway.Config) {
		cfg.Authorize = func(*http.Request) (context.Context, error) {
			return nil, fail(codes.Unauthenticated, "CREDENTIAL_MISSING", 0)
		}
	})
	for _, base := range []string{r.url, r.webhookURL} {
		for path, project := range map[string]string{
			hook: "", "/api/liveblocks-webhook": "", "/v1/projects/blue/webhooks/liveblocks": "blue",
			hook + "?project_id=red": "red", hook + "?utm=x": "",
		} {
			var got struct {
				EventID   string `json:"eventId"`
				Duplicate *bool
				Outcome   string
			}
			r.do(t, http.MethodPost, base+path, strings.NewReader("{}"), "Webhook-Id", "msg_1").accepted(t, &got)
			if got.EventID != "msg_1" || got.Duplicate == nil || *got.Duplicate || got.Outcome != "queued" {
				t.Errorf("%s: answer = %+v; want msg_1, false, queued", path, got)
			}
			if p := field((*mirrorv1.ReceiveWebhookRequest).GetProjectId)(r.onlyCall(t).req); p != project {
				t.Errorf("%s: project = %q; want %q", path, p, project)
			}
		}
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
			a := r.do(t, method, base+hook, nil, "X-Http-Method-Override", "POST")
			if a.code != http.StatusMethodNotAllowed || a.header.Get("Allow") != "POST" {
				t.Errorf("%s %s = %d, Allow %q; want 405, POST", method, hook, a.code, a.header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{
		"/", "/v1/rooms", "/readyz", "/openapi.json", "/mirror.binpb", "/v1/admin/status", "/v1/webhooks",
		"/v1/webhooks/liveblocks//", "//v1/webhooks/liveblocks",
		"/v1/projects/a/b/webhooks/liveblocks", "/v1/projects/webhooks/liveblocks", "/v1/webhooks/live%62locks",
		"/v1/rooms/../webhooks/liveblocks", "/HEALTHZ",
	} {
		for _, method := range []string{"GET", "POST"} {
			r.do(t, method, r.webhookURL+path, nil).refused(t, http.StatusNotFound, "ROUTE_NOT_FOUND")
			public := []string{"/", "/readyz", "/openapi.json", "/mirror.binpb"}
			if !slices.Contains(public, path) {
				r.do(t, method, r.url+path, nil).refused(t, http.StatusUnauthorized, "CREDENTIAL_MISSING")
			}
		}
	}
	r.noCall(t)
}

func webhookHeaders(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.post(t, hook, "{}",
		"Webhook-Id", "a", "webhook-TIMESTAMP", "1", "webhook-signature", "v1,x v1,y", "svix-id", "b",
		"Grpc-Metadata-Svix-Timestamp", "2", "Grpc-Metadata-svix-signature", "z", "Grpc-Metadata-Authorization", "q",
		"Grpc-Metadata-X-Other", "q",
		"Grpcgateway-Cookie", "q", "Cookie", "q", "Authorization", "Bearer q", "X-Request-Id", "q", "Traceparent", "q",
		"If-None-Match", "q",
		"X-Forwarded-For", "203.0.113.9", "X-Forwarded-Host", "q", "Connection", "keep-alive", "Te", "trailers", "X-Bin", "q",
	).accepted(t, nil)
	md := r.onlyCall(t).md
	for _, wires := range []string{":authority", "content-type", "user-agent", "grpc-accept-encoding"} {
		delete(md, wires)
	}
	want := metadata.MD{
		"webhook-id": {"a"}, "webhook-timestamp": {"1"}, "webhook-signature": {"v1,x v1,y"}, "svix-id": {"b"},
		"x-forwarded-for": {"127.0.0.1"},
	}
	if diff := cmp.Diff(want, md); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func repeatedSignatures(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, name := range []string{
		"webhook-id", "webhook-timestamp", "webhook-signature", "svix-id", "svix-timestamp",
		"svix-signature",
	} {
		// The service decides about a header that is repeated, so it sees each value.
		for _, values := range [][]string{{"a", "a"}, {"a", "b"}} {
			r.post(t, hook, "{}", name, values[0], name, values[1]).accepted(t, nil)
			if got := r.onlyCall(t).md[name]; !slices.Equal(got, values) {
				t.Errorf("%s = %q; want %q", name, got, values)
			}
		}
		a := r.post(t, hook, "{}", name, "ä")
		a.refused(t, http.StatusUnauthorized, "SIGNATURE_MISSING")
		gone(t, a)
	}
	r.noCall(t)
}

// A body that a proxy has packed is not the one that was signed.
func encodedBodies(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	a := r.post(t, hook, "{}", "Content-Encoding", "gzip")
	a.refused(t, http.StatusUnsupportedMediaType, "REQUEST_INVALID")
	gone(t, a)
	r.noCall(t)
	r.post(t, hook, "{}", "Content-Encoding", "Identity").accepted(t, nil)
	r.onlyCall(t)
}

// A slash at the end of the path is a mistake in the endpoint's URL that only the
// sender would see.
func slashAtTheEnd(t *testing.T, dial Dial) {
	var log bytes.Buffer
	r := newRig(t, dial, func(cfg *gateway.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, path := range []string{hook, "/api/liveblocks-webhook", "/v1/projects/p/webhooks/liveblocks"} {
		a := r.post(t, path+"/", "{}")
		a.refused(t, http.StatusNotFound, "ROUTE_NOT_FOUND")
		gone(t, a)
	}
	r.noCall(t)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "remove the slash") {
		t.Errorf("log = %q; want one hint", got)
	}
}

// gone checks that the response does not make the sender give up.
func gone(t testing.TB, a answer) {
	t.Helper()
	if v, ok := a.header["Webhook-Delivery"]; ok {
		t.Errorf("webhook-delivery = %q on %d; want none", v, a.code)
	}
	if v, ok := a.header["Www-Authenticate"]; ok {
		t.Errorf("www-authenticate = %q on a webhook; want none", v)
	}
}

func webhookLimit(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	most := strings.Repeat("x", maxBody)
	for _, chunked := range []bool{false, true} {
		wrap := func(s string) io.Reader {
			if chunked {
				return io.MultiReader(strings.NewReader(s))
			}
			return strings.NewReader(s)
		}
		r.do(t, http.MethodPost, r.url+hook, wrap(most)).accepted(t, nil)
		if got := r.onlyCall(t).payload(t); string(got) != most {
			t.Errorf("chunked %t: %d bytes arrived; want 1 MiB", chunked, len(got))
		}
		for _, more := range []string{"x", most} {
			for _, path := range []string{hook, "/api/liveblocks-webhook", "/v1/projects/p/webhooks/liveblocks"} {
				a := r.do(t, http.MethodPost, r.url+path, wrap(most+more))
				a.refused(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
				if got := a.header.Get("Webhook-Delivery"); got != "abort-message" {
					t.Errorf("webhook-delivery = %q; want abort-message", got)
				}
			}
		}
		for _, path := range []string{"/v1/admin/tasks/t:retry", "/v1/admin/rooms/r/sync:request"} {
			a := r.do(t, http.MethodPost, r.url+path, wrap(strings.Repeat(" ", 64<<10)+"{}"))
			a.refused(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
			gone(t, a)
			r.noCall(t)
			r.do(t, http.MethodPost, r.url+path, wrap(strings.Repeat(" ", 64<<10-2)+"{}")).accepted(t, nil)
			r.onlyCall(t)
		}
	}
	small := newRig(t, dial, func(cfg *gateway.Config) { cfg.MaxBody = 3 })
	small.post(t, hook, "abc").accepted(t, nil)
	small.post(t, hook, "abcd").refused(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
}

// raw sends bytes on a connection of its own. Without more to come it closes
// its side before it reads the answer.
func (r *rig) raw(t testing.TB, request string, more bool) answer {
	t.Helper()
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if half, ok := conn.(*net.TCPConn); ok && !more {
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{request: request, code: resp.StatusCode, header: resp.Header, body: data, err: err}
}

func brokenBody(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, path := range []string{hook, "/v1/admin/rooms/r/sync:request"} {
		for _, rest := range []string{
			"Content-Length: 10\r\n\r\n{}",
			"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
			"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0",
			"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
		} {
			a := r.raw(t, "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+rest, false)
			a.refused(t, http.StatusBadRequest, "REQUEST_INVALID")
			gone(t, a)
		}
	}
	r.noCall(t)
}

func stalledBody(t *testing.T, dial Dial) {
	r := newRig(t, dial, func(cfg *gateway.Config) { cfg.BodyTimeout = 20 * time.Millisecond })
	a := r.raw(t, "POST "+hook+" HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{}", true)
	a.refused(t, http.StatusRequestTimeout, "REQUEST_INVALID")
	gone(t, a)
	r.noCall(t)

	// The limit is on the body alone: a call may take longer, on the same
	// connection and the next.
	r.onReceive(func(ctx context.Context, _ *mirrorv1.ReceiveWebhookRequest) (*mirrorv1.ReceiveWebhookResponse, error) {
		timer := time.NewTimer(60 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return &mirrorv1.ReceiveWebhookResponse{}, nil
		}
	})
	for range 3 {
		r.post(t, hook, "{}").accepted(t, nil)
	}
}

func webhookErrors(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, c := range []struct {
		err        error
		code       int
		reason     string
		retryAfter string
	}{
		{fail(codes.Unauthenticated, "SIGNATURE_INVALID", 0), 401, "SIGNATURE_INVALID", ""},
		{fail(codes.Unauthenticated, "TIMESTAMP_OUT_OF_TOLERANCE", 0), 401, "TIMESTAMP_OUT_OF_TOLERANCE", ""},
		{fail(codes.Unavailable, "STORE_UNAVAILABLE", 2500*time.Millisecond), 503, "STORE_UNAVAILABLE", "3"},
		{fail(codes.Unavailable, "ACCEPT_QUEUE_FULL", time.Millisecond), 503, "ACCEPT_QUEUE_FULL", "1"},
		{fail(codes.Unavailable, "SHUTTING_DOWN", 0), 503, "SHUTTING_DOWN", ""},
		{fail(codes.ResourceExhausted, "ACCEPT_QUEUE_FULL", time.Minute), 429, "ACCEPT_QUEUE_FULL", "60"},
		{fail(codes.Internal, "INTERNAL", time.Minute), 500, "INTERNAL", ""},
		{status.Error(codes.DeadlineExceeded, "the deadline passed"), 504, "", ""},
	} {
		r.onReceive(func(context.Context, *mirrorv1.ReceiveWebhookRequest) (*mirrorv1.ReceiveWebhookResponse, error) {
			return nil, c.err
		})
		a := r.post(t, hook, "{}")
		a.refused(t, c.code, c.reason)
		gone(t, a)
		if got := a.header.Get("Retry-After"); got != c.retryAfter {
			t.Errorf("%s: Retry-After = %q; want %q", c.reason, got, c.retryAfter)
		}
	}
	// Failures that a retry cannot fix, and those that it can.
	for reason, c := range map[string]struct {
		code int
		gone bool
	}{
		"PAYLOAD_TOO_LARGE": {http.StatusRequestEntityTooLarge, true},
		"EVENT_ID_INVALID":  {http.StatusBadRequest, true},
		"ID_INVALID":        {http.StatusBadRequest, false},
		"PROJECT_UNKNOWN":   {http.StatusBadRequest, false},
		"REQUEST_INVALID":   {http.StatusBadRequest, false},
	} {
		r.onReceive(func(context.Context, *mirrorv1.ReceiveWebhookRequest) (*mirrorv1.ReceiveWebhookResponse, error) {
			return nil, fail(codes.InvalidArgument, reason, 0)
		})
		a := r.post(t, hook, "{}")
		a.refused(t, c.code, reason)
		if !c.gone {
			gone(t, a)
		} else if got := a.header.Get("Webhook-Delivery"); got != "abort-message" {
			t.Errorf("%s: webhook-delivery = %q; want abort-message", reason, got)
		}
	}
	// Of anything else but a delivery it means nothing.
	r.onGetRoom(func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		return nil, fail(codes.InvalidArgument, "EVENT_ID_INVALID", 0)
	})
	gone(t, r.get(t, "/v1/rooms/r"))
}

func clientGone(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	began, ended := make(chan struct{}), make(chan error, 1)
	r.onReceive(func(ctx context.Context, _ *mirrorv1.ReceiveWebhookRequest) (*mirrorv1.ReceiveWebhookResponse, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+hook, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := r.client.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("the client got %d; want it gone", resp.StatusCode)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v; want context.Canceled", err)
	}
}

func grpcTimeout(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	wait := func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			return status.Error(codes.Internal, "no deadline")
		}
		<-ctx.Done()
		return ctx.Err()
	}
	r.onReceive(func(ctx context.Context, _ *mirrorv1.ReceiveWebhookRequest) (*mirrorv1.ReceiveWebhookResponse, error) {
		return nil, wait(ctx)
	})
	r.onGetRoom(func(ctx context.Context, _ *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		return nil, wait(ctx)
	})
	r.post(t, hook, "{}", "Grpc-Timeout", "20m").refused(t, http.StatusGatewayTimeout, "")
	r.get(t, "/v1/rooms/r", "Grpc-Timeout", "20m").refused(t, http.StatusGatewayTimeout, "")
	r.get(t, "/v1/rooms/r", "Grpc-Timeout", "soon").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
}

func manyWebhooks(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	failed := make(chan error, 8)
	for worker := range cap(failed) {
		go func() {
			failed <- func() error {
				for n := range 50 {
					id := fmt.Sprintf("msg_%d_%d", worker, n)
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+hook,
						strings.NewReader(strings.Repeat(id, n)))
					if err != nil {
						return err
					}
					req.Header.Set("Webhook-Id", id)
					resp, err := r.client.Do(req)
					if err != nil {
						return err
					}
					data, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || !strings.Contains(string(data), `"`+id+`"`) {
						return fmt.Errorf("%s was answered %s, %w", id, data, err)
					}
				}
				return nil
			}()
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	for _, c := range r.takeCalls() {
		var n int
		if _, err := fmt.Sscanf(c.md.Get("webhook-id")[0], "msg_%d_%d", new(int), &n); err != nil {
			t.Fatal(err)
		}
		if want := strings.Repeat(c.md.Get("webhook-id")[0], n); string(c.payload(t)) != want {
			t.Errorf("%s brought %q", c.md.Get("webhook-id")[0], c.payload(t))
		}
	}
}

// slow is a request whose body stays unfinished for as long as the test likes.
type slow struct {
	rest   *io.PipeWriter
	answer chan answer
}

// slowly announces a delivery of size bytes and sends the first of them.
func (r *rig) slowly(t testing.TB, size, first int) slow {
	t.Helper()
	body, rest := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+hook, body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(size)
	s := slow{rest: rest, answer: make(chan answer, 1)}
	go func() { // end or breakOff waits for it
		resp, err := r.client.Do(req)
		if err != nil {
			s.answer <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		s.answer <- answer{request: "a slow delivery", code: resp.StatusCode, header: resp.Header, body: data, err: err}
	}()
	if _, err := rest.Write(make([]byte, first)); err != nil {
		t.Fatal(err)
	}
	return s
}

// end sends the last byte, the others being sent, and returns the answer.
func (s slow) end() answer {
	_, _ = s.rest.Write([]byte{0}) // it may have been refused already
	_ = s.rest.Close()
	return <-s.answer
}

// breakOff never sends it.
func (s slow) breakOff() {
	_ = s.rest.CloseWithError(errors.New("broken off"))
	<-s.answer
}

// until repeats f until it is done.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not come about", what)
		case <-ticker.C:
		}
	}
}

// bodiesTogether checks that many senders of large bodies cannot fill the memory,
// and that senders of small ones are not affected.
func bodiesTogether(t *testing.T, dial Dial) {
	const size = 256 << 10
	r := newRig(t, dial, func(cfg *gateway.Config) {
		cfg.MaxBody, cfg.BodyBudget, cfg.BodyTimeout = size, 1<<20, time.Minute
	})
	large := strings.Repeat("x", size)
	// begin starts as many deliveries and waits until what they send has arrived.
	begin := func(n, first int) (senders []slow) {
		want := r.traffic.bytes.Load() + int64(n*first)
		for range n {
			senders = append(senders, r.slowly(t, size, first))
		}
		until(t, "the arrival of the bodies", func() bool { return r.traffic.bytes.Load() == want })
		return senders
	}
	end := func(s slow) { s.end().accepted(t, nil) }
	for _, c := range []struct {
		n, first int
		end      func(slow)
		full     bool
	}{
		// To announce much and send little takes nothing.
		{50, 1000, slow.breakOff, false},
		{4, size - 1, end, true},
		{4, size - 1, slow.breakOff, true},
		{4, size - 1, end, true},
	} {
		senders := begin(c.n, c.first)
		for _, body := range []io.Reader{strings.NewReader(large), io.MultiReader(strings.NewReader(large))} {
			a := r.do(t, http.MethodPost, r.url+hook, body)
			if !c.full {
				a.accepted(t, nil)
				continue
			}
			a.refused(t, http.StatusServiceUnavailable, "ACCEPT_QUEUE_FULL")
			gone(t, a)
			if got := a.header.Get("Retry-After"); got != "1" {
				t.Errorf("Retry-After = %q; want 1", got)
			}
		}
		r.post(t, hook, large[:4000]).accepted(t, nil)
		for _, s := range senders {
			c.end(s)
		}
		until(t, "the end of the deliveries", func() bool { return r.traffic.requests.Load() == 0 })
		r.post(t, hook, large).accepted(t, nil)
	}
}
