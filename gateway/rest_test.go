package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
)

// Liveblocks' own API has the paths below /v2/, is not on the address of the webhooks, and
// is no more open to web pages than the rest.
func TestRESTHasItsPaths(t *testing.T) {
	t.Parallel()
	conn := dial(t, func(grpc.ServiceRegistrar) {})
	rest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Mirror-Source", r.URL.EscapedPath())
	})
	for _, c := range []struct {
		path, host string
		rest       http.Handler
		webhooks   bool
		status     int
	}{
		{path: "/v2/rooms/a%2F..%2Fb", host: "127.0.0.1", rest: rest, status: http.StatusOK},
		{path: "/v2/rooms/..", host: "127.0.0.1", rest: rest, status: http.StatusOK},
		{path: "/v2/rooms/a", host: "attacker.example", rest: rest, status: http.StatusForbidden},
		{path: "/v2/rooms/a", host: "127.0.0.1", status: http.StatusNotFound},
		{path: "/v2/rooms/a", host: "127.0.0.1", rest: rest, webhooks: true, status: http.StatusNotFound},
		{path: "/v2", host: "127.0.0.1", rest: rest, status: http.StatusNotFound},
		{path: "/v20/rooms", host: "127.0.0.1", rest: rest, status: http.StatusNotFound},
	} {
		g, err := gateway.New(gateway.Config{Conn: conn, MaxBody: 1 << 20, LocalOnly: true, REST: c.rest})
		if err != nil {
			t.Fatal(err)
		}
		handler := g.Handler()
		if c.webhooks {
			handler = g.WebhookHandler()
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Host = c.host
		handler.ServeHTTP(w, r)
		source := ""
		if c.status == http.StatusOK {
			source = c.path
		}
		if w.Code != c.status || w.Header().Get("Mirror-Source") != source ||
			w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("GET %s at %s = %d %v; want %d", c.path, c.host, w.Code, w.Header(), c.status)
		}
	}
}
