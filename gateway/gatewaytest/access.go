package gatewaytest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var accessCases = []testCase{
	{"CredentialComesFirst", credentialFirst},
	{"OpenWithoutAuthorize", openGateway},
	{"LocalOnly", localOnly},
	{"HeadersOfCalls", callHeaders},
	{"Health", health},
	{"Readiness", readiness},
	{"Page", page},
	{"OpenAPI", openAPI},
	{"Descriptors", descriptors},
	{"Metrics", metrics},
	{"MethodsAndPaths", methodsAndPaths},
}

// metrics need a credential, are what the caller may see, and can be served apart.
func metrics(t *testing.T, dial Dial) {
	type key struct{}
	with := func(cfg *gateway.Config) {
		secured(cfg)
		authorize := cfg.Authorize
		cfg.Authorize = func(r *http.Request) (context.Context, error) {
			ctx, err := authorize(r)
			if err != nil {
				return nil, err
			}
			return context.WithValue(ctx, key{}, r.Header.Get("X-Request-Id")), nil
		}
		cfg.Metrics = func(ctx context.Context) (http.Handler, error) {
			who, _ := ctx.Value(key{}).(string)
			if who == "nobody" {
				return nil, fail(codes.PermissionDenied, "SCOPE_MISSING", 0)
			}
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "of "+who) }), nil
		}
	}
	check := func(r *rig, base string) {
		t.Helper()
		r.do(t, http.MethodGet, base+"/metrics", nil).refused(t, http.StatusUnauthorized, "CREDENTIAL_MISSING")
		r.do(t, http.MethodGet, base+"/metrics", nil, "Authorization", "Bearer secret", "X-Request-Id", "nobody").refused(t,
			http.StatusForbidden, "SCOPE_MISSING")
		r.do(t, http.MethodPost, base+"/metrics", nil, "Authorization", "Bearer secret").refused(t,
			http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
		a := r.do(t, http.MethodGet, base+"/metrics", nil, "Authorization", "Bearer secret", "X-Request-Id", "me")
		if a.code != http.StatusOK || string(a.body) != "of me" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("metrics = %d %s, %v; want what I may see", a.code, a.body, a.header)
		}
	}
	none := func(r *rig, url string) {
		t.Helper()
		r.do(t, http.MethodGet, url, nil, "Authorization", "Bearer secret").refused(t, http.StatusNotFound, "ROUTE_NOT_FOUND")
	}

	r := newRig(t, dial, with)
	check(r, r.url)
	none(r, r.webhookURL+"/metrics")
	r.noCall(t)

	r = newRig(t, dial, func(cfg *gateway.Config) {
		with(cfg)
		cfg.MetricsApart = true
	})
	check(r, r.metricsURL)
	none(r, r.url+"/metrics")
	for _, path := range []string{"/", "/healthz", "/v1/rooms", "/metrics/", "/v1/webhooks/liveblocks"} {
		none(r, r.metricsURL+path)
	}
	r.noCall(t)

	r = newRig(t, dial, func(cfg *gateway.Config) {
		with(cfg)
		cfg.LocalOnly = true
	})
	for _, base := range []string{r.url, r.metricsURL} {
		r.do(t, http.MethodGet, base+"/metrics", nil, "Origin", "http://elsewhere.example", "Authorization",
			"Bearer secret").refused(t, http.StatusForbidden, "CREDENTIAL_MISSING")
	}

	r = newRig(t, dial, secured)
	none(r, r.url+"/metrics")
	none(r, r.metricsURL+"/metrics")
}

func secured(cfg *gateway.Config) {
	cfg.Authorize = func(r *http.Request) (context.Context, error) {
		switch given := r.Header["Authorization"]; {
		case len(given) == 0:
			return nil, fail(codes.Unauthenticated, "CREDENTIAL_MISSING", 0)
		case len(given) > 1 || given[0] != "Bearer secret":
			return nil, fail(codes.Unauthenticated, "CREDENTIAL_INVALID", 0)
		}
		return r.Context(), nil
	}
}

func credentialFirst(t *testing.T, dial Dial) {
	r := newRig(t, dial, secured)
	for _, c := range []struct{ method, path string }{
		{"GET", "/v1/rooms"},
		{"GET", "/v1/rooms/%00"},
		{"GET", "/v1/rooms/r/storage:read"},
		{"GET", "/v1/rooms/r/ydoc:read"},
		{"POST", "/v1/admin/tasks/t:retry"},
		{"DELETE", "/v1/rooms/r"},
		{"GET", "/v1/events?nonsense=1"},
		{"GET", "/readyz/"},
		{"GET", "/openapi.json/"},
		{"GET", "/mirror.binpb/"},
		{"GET", "/nowhere"},
		{"OPTIONS", "/v1/rooms"},
		{"POST", "/healthz/"},
	} {
		for reason, fields := range map[string][]string{
			"CREDENTIAL_MISSING": {"X-Authorization", "Bearer secret", "Grpc-Metadata-Authorization", "Bearer secret"},
			"CREDENTIAL_INVALID": {"Authorization", "Bearer wrong"},
		} {
			// A body over every limit, which must not even be looked at.
			a := r.do(t, c.method, r.url+c.path, strings.NewReader(strings.Repeat("x", 100<<10)), fields...)
			a.refused(t, http.StatusUnauthorized, reason)
			if got := a.header.Get("WWW-Authenticate"); got != "Bearer" {
				t.Errorf("WWW-Authenticate = %q; want Bearer", got)
			}
		}
		r.do(t, c.method, r.url+c.path, nil, "Authorization", "Bearer secret", "Authorization", "Bearer wrong").refused(t,
			http.StatusUnauthorized, "CREDENTIAL_INVALID")
	}
	r.noCall(t)
	r.get(t, "/v1/rooms", "Authorization", "Bearer secret").accepted(t, nil)
	r.get(t, "/healthz").accepted(t, nil)
	r.get(t, "/readyz").accepted(t, nil)
	r.get(t, "/readyz", "Authorization", "Bearer wrong").accepted(t, nil)
	for _, description := range []string{"/openapi.json", "/mirror.binpb"} {
		if a := r.get(t, description); a.code != http.StatusOK {
			t.Errorf("%s = %d; want 200", description, a.code)
		}
	}
	r.do(t, "POST", r.url+"/readyz", nil).refused(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")

	// The service may refuse as well.
	r.onGetRoom(func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		return nil, fail(codes.Unauthenticated, "CREDENTIAL_INVALID", 0)
	})
	a := r.get(t, "/v1/rooms/r", "Authorization", "Bearer secret")
	a.refused(t, http.StatusUnauthorized, "CREDENTIAL_INVALID")
	if got := a.header.Get("WWW-Authenticate"); got != "Bearer" {
		t.Errorf("WWW-Authenticate = %q; want Bearer", got)
	}
}

func openGateway(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.get(t, "/v1/rooms").accepted(t, nil)
	r.get(t, "/v1/rooms", "Authorization", "Basic whatever").accepted(t, nil)
}

func callHeaders(t *testing.T, dial Dial) {
	r := newRig(t, dial, secured)
	r.get(t, "/v1/rooms/r", "Authorization", "Bearer secret", "X-Request-Id", "one", "Traceparent", "00-1-2-00",
		"Tracestate", "a=b",
		"Grpc-Metadata-Authorization", "Bearer other", "Grpc-Metadata-Webhook-Id", "w", "Webhook-Id", "w",
		"Grpc-Metadata-If-None-Match", "x",
		"If-None-Match", "x", "Cookie", "c", "X-Forwarded-For", "203.0.113.9", "Grpc-Metadata-X-Forwarded-For",
		"203.0.113.9", "Grpc-Metadata-Foo-Bin", "!").accepted(t, nil)
	md := r.onlyCall(t).md
	for key, want := range map[string]string{
		"authorization": "Bearer secret", "x-request-id": "one", "traceparent": "00-1-2-00", "tracestate": "a=b",
		"x-forwarded-for": "127.0.0.1",
	} {
		if got := md.Get(key); len(got) != 1 || got[0] != want {
			t.Errorf("%s = %q; want %q alone", key, got, want)
		}
	}
	for _, key := range []string{
		"webhook-id", "if-none-match", "cookie", "grpcgateway-cookie",
		"grpcgateway-authorization", "foo-bin", "x-forwarded-host",
	} {
		if got := md.Get(key); len(got) != 0 {
			t.Errorf("%s = %q; want none", key, got)
		}
	}
	// Odd values of headers that only help to trace are left out.
	r.get(t, "/v1/rooms/r", "Authorization", "Bearer secret", "X-Request-Id", "a", "X-Request-Id", "b", "Traceparent",
		strings.Repeat("x", 513), "Tracestate", "ä").accepted(t, nil)
	md = r.onlyCall(t).md
	for _, key := range []string{"x-request-id", "traceparent", "tracestate"} {
		if got := md.Get(key); len(got) != 0 {
			t.Errorf("%s = %q; want none", key, got)
		}
	}
}

// page is at the root, for people. It needs no credential, since it holds no data.
func page(t *testing.T, dial Dial) {
	r := newRig(t, dial, func(cfg *gateway.Config) {
		secured(cfg)
		cfg.Version, cfg.LocalOnly = "v1<2", true
	})
	links := []string{"/healthz", "/readyz", "/openapi.json", "/mirror.binpb", "https://"}
	browser := []string{"Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Authorization", "Bearer wrong"}
	a := r.get(t, "/", browser...)
	if a.code != http.StatusOK || a.header.Get("Content-Type") != "text/html; charset=utf-8" ||
		!strings.HasPrefix(a.header.Get("Content-Security-Policy"), "default-src 'none'; ") ||
		a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Vary") != "Accept" {
		t.Errorf("page = %d, %v", a.code, a.header)
	}
	for _, link := range links {
		if !strings.Contains(string(a.body), `<a href="`+link) {
			t.Errorf("the page has no link to %s: %s", link, a.body)
		}
	}
	if !strings.Contains(string(a.body), "liveblocks-mirror v1&lt;2") || strings.Contains(string(a.body), "src=") {
		t.Errorf("page = %s; want the version, and nothing from elsewhere", a.body)
	}
	for _, fields := range [][]string{nil, {"Accept", "*/*"}, {"Accept", "application/json"}} {
		var got struct {
			About, Version string
			Links          map[string]string
		}
		a := r.get(t, "/", fields...)
		a.accepted(t, nil)
		if err := json.Unmarshal(a.body, &got); err != nil || got.About == "" || got.Version != "v1<2" ||
			got.Links["/openapi.json"] == "" {
			t.Errorf("page for %q = %s, %v", fields, a.body, err)
		}
	}
	if a := r.do(t, http.MethodHead, r.url+"/", nil, browser...); a.code != http.StatusOK || len(a.body) != 0 {
		t.Errorf("HEAD / = %d %q; want 200 without a body", a.code, a.body)
	}
	r.post(t, "/", "x").refused(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	r.do(t, http.MethodGet, r.webhookURL+"/", nil, browser...).refused(t, http.StatusNotFound, "ROUTE_NOT_FOUND")
	r.get(t, "/", append(browser, "Origin", "http://elsewhere.example")...).refused(t, http.StatusForbidden,
		"CREDENTIAL_MISSING")
	r.noCall(t)
}

func health(t *testing.T, dial Dial) {
	r := newRig(t, dial, func(cfg *gateway.Config) {
		secured(cfg)
		cfg.Ready = func() (bool, string) { return false, "no" }
	})
	for _, base := range []string{r.url, r.webhookURL} {
		a := r.do(t, http.MethodGet, base+"/healthz", nil)
		a.accepted(t, nil)
		if string(a.body) != `{"status":"ok"}` || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("healthz = %s, %v", a.body, a.header)
		}
		if a := r.do(t, http.MethodHead, base+"/healthz", nil); a.code != http.StatusOK || len(a.body) != 0 {
			t.Errorf("HEAD healthz = %d %q; want 200 without a body", a.code, a.body)
		}
		a = r.do(t, http.MethodPost, base+"/healthz", nil)
		a.refused(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	}
	r.noCall(t)
}

func readiness(t *testing.T, dial Dial) {
	const reason = "the schema is older than the binary"
	var ready atomic.Bool
	r := newRig(t, dial, func(cfg *gateway.Config) { cfg.Ready = func() (bool, string) { return ready.Load(), reason } })
	a := r.get(t, "/readyz")
	a.refused(t, http.StatusServiceUnavailable, "")
	if got := a.failure(t).Message; got != reason {
		t.Errorf("message = %q; want %q", got, reason)
	}
	ready.Store(true)
	r.get(t, "/readyz").accepted(t, nil)
	r.noCall(t)
	newRig(t, dial, nil).get(t, "/readyz").accepted(t, nil)
}

func openAPI(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	a := r.get(t, "/openapi.json")
	a.accepted(t, nil)
	if string(a.body) != `{"openapi":"3.1.0"}` || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("openapi.json = %s, %v", a.body, a.header)
	}
	a = r.get(t, "/openapi.json", "Accept-Encoding", "br, gzip")
	packed, err := gzip.NewReader(bytes.NewReader(a.body))
	if err != nil || a.header.Get("Content-Encoding") != "gzip" || a.header.Get("Vary") != "Accept-Encoding" {
		t.Fatalf("openapi.json for a client that takes gzip = %v, %v", a.header, err)
	}
	if plain, err := io.ReadAll(packed); err != nil || string(plain) != `{"openapi":"3.1.0"}` {
		t.Errorf("openapi.json unpacked = %s, %v", plain, err)
	}
	r.post(t, "/openapi.json", "").refused(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
}

func descriptors(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	a := r.get(t, "/mirror.binpb")
	if a.code != http.StatusOK || string(a.body) != "a set" || a.header.Get("Content-Type") != "application/protobuf" {
		t.Errorf("mirror.binpb = %d %q, %v", a.code, a.body, a.header)
	}
	tag := a.header.Get("ETag")
	if a = r.get(t, "/mirror.binpb", "If-None-Match", tag); tag == "" || a.code != http.StatusNotModified {
		t.Errorf("mirror.binpb with the tag %s = %d; want 304", tag, a.code)
	}
	if a = r.do(t, "HEAD", r.url+"/mirror.binpb", nil); a.code != http.StatusOK || a.header.Get("ETag") != tag {
		t.Errorf("HEAD of mirror.binpb = %d, %v; want 200 and %s", a.code, a.header, tag)
	}
	r.post(t, "/mirror.binpb", "").refused(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	r.noCall(t)
}

func methodsAndPaths(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/v1/rooms", "GET, HEAD"},
		{"DELETE", "/v1/rooms/r", "GET, HEAD"},
		{"OPTIONS", "/v1/rooms/r/storage", "GET, HEAD"},
		{"PUT", "/v1/rooms/r/storage:read", "GET, HEAD"},
		{"POST", "/v1/rooms/r/ydoc:read", "GET, HEAD"},
		{"GET", "/v1/admin/rooms/r/sync:request", "POST"},
		{"HEAD", "/v1/admin/rooms/r/sync:request", "POST"},
		// The same path is the task "t:retry" to some and a verb to others.
		{"PUT", "/v1/admin/tasks/t:retry", "GET, HEAD, POST"},
		{"POST", "/v1/admin/tasks/:retry", "GET, HEAD"},
		{"PUT", "/v1/rooms/r/threads/t/comments", "GET, HEAD"},
		{"POST", "/v1/rooms/r/active-users", "GET, HEAD"},
		{"DELETE", "/v1/admin/backfill", "GET, HEAD, POST"},
		{"GET", "/v1/admin/mirror:verify", "POST"},
		{"BREW", "/v1/admin/status", "GET, HEAD"},
	} {
		a := r.do(t, c.method, r.url+c.path, nil)
		if c.method != http.MethodHead {
			a.refused(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
		}
		if got := a.header.Get("Allow"); a.code != http.StatusMethodNotAllowed || got != c.allow {
			t.Errorf("%s %s = %d, Allow %q; want 405, %q", c.method, c.path, a.code, got, c.allow)
		}
	}
	for _, path := range []string{
		"//", "/v1", "/v1/", "/v1/roomies", "/v1/rooms/r/x", "/v1/rooms/r/storage:write", "/v1/rooms/r/storage/",
		"//v1/rooms",
		"/v1/rooms/a/b/storage",
		"/v1/x/../rooms", "/metrics", "/debug/pprof/", "/healthz/", "/v1/rooms:x", "/v2/rooms",
		"/v1/rooms/r/threads/t/x", "/v1/rooms/r/threads/t/comments/c/x", "/v1/rooms/r/active_users", "/v1/admin/mirror",
	} {
		r.get(t, path).refused(t, http.StatusNotFound, "ROUTE_NOT_FOUND")
	}
	// A form must not turn a POST into a GET.
	r.post(t, "/v1/rooms", "page_size=1", "Content-Type", "application/x-www-form-urlencoded").refused(t,
		http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	r.post(t, "/v1/rooms", "", "Content-Type", "application/x-www-form-urlencoded", "X-HTTP-Method-Override",
		"GET").refused(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	r.noCall(t)
	for _, path := range []string{"/v1/rooms", "/v1/rooms/r", "/v1/admin/status"} {
		a := r.do(t, http.MethodHead, r.url+path, nil)
		if a.code != http.StatusOK || len(a.body) != 0 || a.header.Get("Content-Length") == "0" {
			t.Errorf("HEAD %s = %d, %q, %v; want 200 and a length", path, a.code, a.body, a.header)
		}
		r.onlyCall(t)
	}
}

// localOnly checks that a web page cannot reach a gateway without credentials,
// neither by a name that resolves to this machine nor by blind POSTs.
func localOnly(t *testing.T, dial Dial) {
	t.Helper()
	r := newRig(t, dial, func(cfg *gateway.Config) { cfg.LocalOnly = true })
	for _, c := range []struct {
		path, host, origin string
		want               int
	}{
		{"/v1/rooms", "", "", http.StatusOK},
		{"/v1/rooms", "localhost:8080", "", http.StatusOK},
		{"/v1/rooms", "[::1]:8080", "http://127.0.0.1:3000", http.StatusOK},
		{"/v1/rooms", "rebound.example:8080", "", http.StatusForbidden},
		{"/v1/rooms", "localhost.example", "", http.StatusForbidden},
		{"/v1/rooms", "", "https://page.example", http.StatusForbidden},
		{"/v1/rooms", "", "null", http.StatusForbidden},
		{"/readyz", "rebound.example", "", http.StatusForbidden},
		{"/healthz", "rebound.example", "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+c.path, nil)
		if err != nil {
			t.Fatalf("NewRequest: %v", err)
		}
		req.Host = c.host
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatalf("Do: %v", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s with Host %q and Origin %q = %d; want %d", c.path, c.host, c.origin, resp.StatusCode, c.want)
		}
	}
}
