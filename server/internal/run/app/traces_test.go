package app_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// collector receives traces by OTLP over HTTP.
type collector struct {
	*httptest.Server

	mu    sync.Mutex
	raw   bytes.Buffer
	auth  string
	spans []*tracev1.Span
	about string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var sent collectorv1.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &sent)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("received %s %s: %v", r.URL.Path, r.Header.Get("Content-Type"), err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		c.auth = r.Header.Get("Authorization")
		for _, resource := range sent.GetResourceSpans() {
			c.about = resource.GetResource().String()
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// trace is what was received of one trace.
type trace []*tracev1.Span

// of returns the trace of a span.
func (c *collector) of(s *tracev1.Span) (list trace) {
	for _, o := range c.spans {
		if bytes.Equal(o.GetTraceId(), s.GetTraceId()) {
			list = append(list, o)
		}
	}
	return list
}

func (t trace) String() string {
	var out strings.Builder
	for _, s := range t {
		fmt.Fprintf(&out, "\n%x %x<-%x %s %v", s.GetTraceId()[:4], s.GetSpanId()[:4], s.GetParentSpanId(), s.GetName(),
			s.GetAttributes())
	}
	return out.String()
}

// path returns the last span of a path of names from the root of a trace; "*" is any name.
func (t trace) path(names ...string) *tracev1.Span {
	var parent []byte
	var found *tracev1.Span
	for _, name := range names {
		found = nil
		for _, s := range t {
			if (name == "*" || s.GetName() == name) && bytes.Equal(s.GetParentSpanId(), parent) {
				found = s
			}
		}
		if found == nil {
			return nil
		}
		parent = found.GetSpanId()
	}
	return found
}

// One delivery is one connected trace, from the request to the statement that commits it.
// What is fetched because of it is in traces of their own, linked to it, from the claim to
// the statement that writes. Log lines have the id of their trace, and no trace has an id of
// ours, content or a secret. What was not sent before is sent at the shutdown.
func TestTracesOfOneDelivery(t *testing.T) {
	t.Parallel()
	const room, user = "traced-room-7f3a", "traced-user-91bc"
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		t.Helper()
		for _, ids := range []bool{false, true} {
			t.Run(fmt.Sprintf("ids=%t", ids), func(t *testing.T) {
				received := newCollector(t)
				upstream := fake.New(apiKey)
				for _, id := range []string{room, "before"} {
					if err := upstream.CreateRoom(id, fake.RoomOptions{
						Storage: []byte(`{"liveblocksType":"LiveObject","data":{"v":"traced-content"}}`),
					}); err != nil {
						t.Fatal(err)
					}
				}
				api := httptest.NewServer(upstream)
				t.Cleanup(api.Close)
				var log lockedLog
				s := serveWith(t, func(cfg *config.Serve) {
					cfg.DatabaseURL = config.NewSecret(e.Database(t))
					// What a query finds due has no link, so only the first one, at the start, is made.
					cfg.BaseURL, cfg.Ack, cfg.BusyPoll = api.URL, "synced", time.Hour
					cfg.OTLPEndpoint, cfg.TraceIDs = received.URL, ids
					cfg.OTLPHeaders = config.NewSecret("authorization=Bearer%20traced-token")
				}, runLogged(config.Log{LogLevel: slog.LevelDebug, LogFormat: "json"}, &log))
				for _, d := range []struct{ event, room string }{{"before", "before"}, {"traced-event-55", room}} {
					if status := deliverAs(t, s.client, "http://"+s.HTTPAddr+"/v1/webhooks/liveblocks", d.event, fake.Event{
						Type: fake.StorageUpdated, RoomID: d.room, UserID: user, Time: time.Now(),
					}); status != http.StatusOK {
						t.Fatalf("the delivery was answered with %d; want 200", status)
					}
				}
				s.stop()

				received.mu.Lock()
				defer received.mu.Unlock()
				var delivery, fetch *tracev1.Span
				later := func(s, than *tracev1.Span) bool {
					return than == nil || s.GetStartTimeUnixNano() > than.GetStartTimeUnixNano()
				}
				for _, s := range received.spans {
					switch {
					case s.GetName() == "HTTP POST webhook" && later(s, delivery):
						delivery = s
					case s.GetName() == "fetch storage" && strings.Contains(s.String(), `"applied"`) && later(s, fetch):
						fetch = s
					}
				}
				if delivery == nil || fetch == nil {
					t.Fatalf("received %v", trace(received.spans))
				}
				of := received.of(delivery)
				accept := []string{
					"HTTP POST webhook", "liveblocks.mirror.v1.EventService/ReceiveWebhook", "commit deliveries", "accept",
				}
				written := of.path(append(accept, map[bool]string{true: "commit", false: "*"}[e == dbtest.MySQL])...)
				if written == nil {
					t.Errorf("no path to the commit in %v", of)
				}
				for _, s := range of {
					all := fmt.Sprintf("%x ", spanIDs(of))
					if id := s.GetParentSpanId(); len(id) > 0 && !strings.Contains(all, hex.EncodeToString(id)) {
						t.Errorf("%s is not connected: %v", s.GetName(), of)
					}
				}
				rpc := of.path(accept[:2]...)
				work := received.of(fetch)
				if bytes.Equal(fetch.GetTraceId(), delivery.GetTraceId()) || len(fetch.GetLinks()) != 1 ||
					!bytes.Equal(fetch.GetLinks()[0].GetSpanId(), rpc.GetSpanId()) ||
					!bytes.Equal(fetch.GetLinks()[0].GetTraceId(), delivery.GetTraceId()) {
					t.Errorf("the fetch has the links %v; want the delivery %x", fetch.GetLinks(), rpc.GetSpanId())
				}
				for _, names := range [][]string{
					{"fetch storage", "claim", "*"}, {"fetch storage", "get storage"}, {"fetch storage", "apply_document", "*"},
				} {
					if work.path(names...) == nil {
						t.Errorf("no %v in %v", names, work)
					}
				}
				if !strings.Contains(received.about, "liveblocks-mirror") || received.auth != "Bearer traced-token" {
					t.Errorf("the resource is %s, the credential %q", received.about, received.auth)
				}
				if want := fmt.Sprintf(`"trace_id":"%x"`, delivery.GetTraceId()); !strings.Contains(log.String(), want) {
					t.Errorf("no log line has %s: %s", want, log.String())
				}
				for _, text := range []string{
					user, "traced-content", apiKey, secret, "traced-token", "605a50b01a36d5ea7a2e9104", "select ",
				} {
					if bytes.Contains(received.raw.Bytes(), []byte(text)) {
						t.Errorf("%q is in the traces", text)
					}
				}
				for _, id := range []string{room, "traced-event-55"} {
					if bytes.Contains(received.raw.Bytes(), []byte(id)) != ids {
						t.Errorf("%q is in the traces: %t; want %t", id, !ids, ids)
					}
				}
			})
		}
	})
}

func spanIDs(t trace) (ids []byte) {
	for _, s := range t {
		ids = append(ids, s.GetSpanId()...)
	}
	return ids
}

// runLogged runs the service as the command does, with its log in out.
func runLogged(settings config.Log, out io.Writer) func(context.Context, config.Serve) error {
	return func(ctx context.Context, cfg config.Serve) error {
		return app.Run(ctx, cfg, "test", settings.Logger(out))
	}
}
