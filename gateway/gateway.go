// Package gateway is the HTTP front of the service: it turns HTTP requests into
// gRPC calls and knows the service through its published API alone.
//
// Webhook bodies pass through as the bytes that arrived, because their
// signature covers those; documents come out as the bytes that are stored.
// Everything else is proto3 JSON by way of grpc-gateway.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

const (
	// DefaultMaxBody is the limit on webhook bodies if none is set. Liveblocks'
	// events are a few hundred bytes; a notification with its text is the largest.
	DefaultMaxBody = 1 << 20
	// DefaultBodyTimeout is how long a body may take to arrive if nothing else is
	// set. The sender of webhooks gives the whole delivery 15 seconds.
	DefaultBodyTimeout = 10 * time.Second
	// DefaultBodyBudget is how much memory the bodies that are arriving may take
	// together if nothing else is set: 64 of the largest.
	DefaultBodyBudget = 64 << 20
	// DefaultWriteStall is how long a client may leave its connection full before
	// it is given up, if nothing else is set. It may hold a stream of the service
	// open meanwhile.
	DefaultWriteStall = time.Minute
	// maxRequest limits the bodies of every other request, which name a few ids.
	maxRequest = 64 << 10
)

// Config is what a [Gateway] needs.
type Config struct {
	// Conn leads to the service. It has to take requests of MaxBody plus 64 KiB.
	// A request belongs to the service once it is sent; the gateway never touches
	// it again.
	Conn grpc.ClientConnInterface
	// MaxBody limits webhook bodies, in bytes; zero means [DefaultMaxBody].
	MaxBody int64
	// BodyTimeout limits how long a body may take to arrive; zero means
	// [DefaultBodyTimeout].
	BodyTimeout time.Duration
	// BodyBudget limits the memory that bodies take together while they arrive and
	// nobody knows yet who sent them, in bytes; zero means [DefaultBodyBudget]. Who
	// comes when it is used up is told to try again.
	BodyBudget int64
	// WriteStall limits how long a client may take to make room for more of an
	// answer; zero means [DefaultWriteStall].
	WriteStall time.Duration
	// Authorize decides by a request's Authorization header, empty if it has
	// none, whether it may pass: nil lets it, any error refuses it. It is asked
	// for everything but webhooks and /healthz. Nil lets everybody pass.
	Authorize func(authorization string) error
	// LocalOnly refuses requests that were not made to this machine by its own
	// name, webhooks and /healthz aside. It is for a gateway that asks for no
	// credential: a web page in a browser on this machine could otherwise reach
	// it, by a name that leads to the loopback address.
	LocalOnly bool
	// Ready tells whether the service is ready and, if not, why. It is asked by
	// every probe, so it has to answer from memory. Nil means always.
	Ready func() (ok bool, reason string)
	// OpenAPI is served as /openapi.json.
	OpenAPI []byte
	// Logger gets what no caller is told. Nil means nobody does.
	Logger *slog.Logger
}

// Gateway serves the HTTP API.
type Gateway struct {
	mux         *runtime.ServeMux
	routes      *routes
	documents   mirrorv1.MirrorServiceClient
	events      mirrorv1.EventServiceClient
	receipts    receipts
	maxBody     int64
	bodyTimeout time.Duration
	budget      budget
	writeStall  time.Duration
	authorize   func(string) error
	localOnly   bool
	ready       func() (bool, string)
	openAPI     []byte
	log         *slog.Logger
}

// New returns a gateway to the service behind cfg.Conn.
func New(cfg Config) (*Gateway, error) {
	if cfg.Conn == nil {
		return nil, errors.New("new gateway: no connection to the service")
	}
	g := &Gateway{
		documents:   mirrorv1.NewMirrorServiceClient(cfg.Conn),
		events:      mirrorv1.NewEventServiceClient(cfg.Conn),
		maxBody:     cmp.Or(cfg.MaxBody, DefaultMaxBody),
		bodyTimeout: cmp.Or(cfg.BodyTimeout, DefaultBodyTimeout),
		writeStall:  cmp.Or(cfg.WriteStall, DefaultWriteStall),
		authorize:   cfg.Authorize,
		localOnly:   cfg.LocalOnly,
		ready:       cfg.Ready,
		openAPI:     cfg.OpenAPI,
		log:         cfg.Logger,
	}
	allowance := cmp.Or(cfg.BodyBudget, DefaultBodyBudget)
	if g.maxBody < 0 || g.bodyTimeout < 0 || g.writeStall < 0 || allowance < 0 {
		return nil, errors.New("new gateway: a limit is negative")
	}
	if allowance < g.maxBody {
		return nil, errors.New("new gateway: the budget for bodies is less than one may have")
	}
	g.budget.left.Store(allowance)
	if g.authorize == nil {
		g.authorize = func(string) error { return nil }
	}
	if g.ready == nil {
		g.ready = func() (bool, string) { return true, "" }
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if err := g.route(cfg.Conn); err != nil {
		return nil, fmt.Errorf("new gateway: %w", err)
	}
	var err error
	if g.receipts, err = newReceipts(newMarshaler()); err != nil {
		return nil, fmt.Errorf("new gateway: %w", err)
	}
	return g, nil
}

func (g *Gateway) route(conn grpc.ClientConnInterface) error {
	g.mux = runtime.NewServeMux(
		// Ids are single segments, and those are unescaped as a whole whatever the
		// mode; this one keeps the mux from splitting a segment at an escaped slash.
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		// No form and no header may turn one method into another.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		// For every media type: the marshaler is chosen by Content-Type, and a
		// webhook is raw whatever it calls itself.
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithIncomingHeaderMatcher(matchIncoming),
		runtime.WithOutgoingHeaderMatcher(matchOutgoing),
		runtime.WithErrorHandler(g.callFailed),
		runtime.WithStreamErrorHandler(func(ctx context.Context, err error) *status.Status {
			return status.FromProto(g.public(ctx, err))
		}),
		runtime.WithWriteContentLength(),
	)
	// The context is only used by the generated code that dials for itself.
	ctx := context.Background()
	if err := errors.Join(
		mirrorv1.RegisterAdminServiceHandlerClient(ctx, g.mux, mirrorv1.NewAdminServiceClient(conn)),
		mirrorv1.RegisterMirrorServiceHandlerClient(ctx, g.mux, g.documents),
		mirrorv1.RegisterEventServiceHandlerClient(ctx, g.mux, g.events),
	); err != nil {
		return err
	}
	for _, route := range documentRoutes {
		if err := g.mux.HandlePath(http.MethodGet, route.path, g.readDocument(route)); err != nil {
			return err
		}
	}
	var err error
	g.routes, err = newRoutes([]protoreflect.FileDescriptor{
		mirrorv1.File_liveblocks_mirror_v1_admin_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_event_service_proto,
	})
	return err
}

// Handler serves everything.
func (g *Gateway) Handler() http.Handler { return g.handler(g.guarded) }

// WebhookHandler serves the webhook paths and /healthz, and knows nothing else:
// it is the one to expose.
func (g *Gateway) WebhookHandler() http.Handler {
	return g.handler(func(w http.ResponseWriter, _ *http.Request) { g.refuse(w, unknownPath) })
}

// handler serves what needs no credential, and leaves the rest to rest.
func (g *Gateway) handler(rest http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w = newWriter(w, g.writeStall)
		secure(w.Header())
		switch path := rawPath(r.URL); {
		case isWebhook(path):
			g.webhook(w, r)
		case path == "/healthz":
			g.health(w, r)
		default:
			rest(w, r)
		}
	})
}

// guarded serves what needs a credential.
func (g *Gateway) guarded(w http.ResponseWriter, r *http.Request) {
	given := r.Header["Authorization"]
	switch {
	case g.localOnly && !local(r):
		g.refuse(w, notLocal)
		return
	case len(given) > 1: // which one would count is anybody's guess
		g.refuse(w, credentialInvalid)
		return
	case len(given) == 0:
		if g.authorize("") != nil {
			g.refuse(w, credentialMissing)
			return
		}
	case g.authorize(given[0]) != nil:
		g.refuse(w, credentialInvalid)
		return
	}
	switch rawPath(r.URL) {
	case "/readyz":
		g.readiness(w, r)
	case "/openapi.json":
		if g.readOnly(w, r) {
			writeJSON(w, http.StatusOK, g.openAPI)
		}
	default:
		g.api(w, r)
	}
}

// api serves the calls of the API.
func (g *Gateway) api(w http.ResponseWriter, r *http.Request) {
	if !storable(r.URL.Path) {
		g.refuse(w, pathInvalid)
		return
	}
	ctx := r.Context()
	if r.Method == http.MethodHead {
		ctx = context.WithValue(ctx, headOnly{}, true)
	}
	in := r.WithContext(ctx) // a shallow copy
	if r.Method == http.MethodHead {
		in.Method = http.MethodGet // net/http still leaves the body of the answer out
	}
	in.URL = literalColon(r.URL)
	in.Body = http.NoBody
	in.Host = ""
	in.Header = apiHeader(r.Header)
	rt := g.routes.match(in)
	if rt == nil {
		if allow := g.routes.allowed(in); allow != "" {
			g.wrongMethod(w, allow)
			return
		}
		g.refuse(w, unknownPath)
		return
	}
	query, p := parseQuery(r.URL.RawQuery)
	if p != nil {
		g.refuse(w, *p)
		return
	}
	if name, ok := rt.stranger(query); ok {
		g.refuse(w, invalid(fmt.Sprintf("there is no query parameter %q here", name)))
		return
	}
	in.Form, in.PostForm = query, noValues
	if in.Method != http.MethodGet {
		data, p := g.readBody(w, r, maxRequest)
		if p != nil {
			g.refuse(w, *p)
			return
		}
		in.Body = &body{data: data}
	}
	w.Header()["Cache-Control"] = noStore
	g.mux.ServeHTTP(w, in)
}

// local reports whether the request names this machine as its target and, if a
// web page made it, as the page's origin.
func local(r *http.Request) bool {
	if !loopback(r.Host) {
		return false
	}
	for _, origin := range r.Header["Origin"] {
		if u, err := url.Parse(origin); err != nil || !loopback(u.Host) {
			return false
		}
	}
	return true
}

func loopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// health tells that the process serves.
func (g *Gateway) health(w http.ResponseWriter, r *http.Request) {
	if g.readOnly(w, r) {
		writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
	}
}

// readiness tells whether the service can do its work.
func (g *Gateway) readiness(w http.ResponseWriter, r *http.Request) {
	if !g.readOnly(w, r) {
		return
	}
	w.Header()["Cache-Control"] = noStore
	if ok, reason := g.ready(); !ok {
		g.refuse(w, problem{code: codes.Unavailable, text: reason})
		return
	}
	writeJSON(w, http.StatusOK, []byte(`{"status":"ready"}`))
}

// readOnly answers 405 to everything but GET and HEAD.
func (g *Gateway) readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	g.wrongMethod(w, "GET, HEAD")
	return false
}

// rawPath returns the path as it was sent. The mux routes by the same string,
// so that no spelling of a path can look like one thing here and another there.
func rawPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.Path // the standard encoding of Path is what was sent
}

// storable reports whether s is text the service can keep: valid UTF-8 without
// NUL. Protobuf refuses the former late and unclearly, Postgres the latter.
func storable(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// literalColon returns u with the colon that begins the last segment escaped.
// The mux takes such a segment for a verb without a name before it and answers
// 404, although it is the id of a room named ":read".
func literalColon(u *url.URL) *url.URL {
	path := rawPath(u)
	last := strings.LastIndexByte(path, '/') + 1
	if !strings.HasPrefix(path[last:], ":") {
		return u
	}
	escaped := u.EscapedPath()
	last = strings.LastIndexByte(escaped, '/') + 1
	v := *u
	v.RawPath = escaped[:last] + "%3A" + escaped[last+1:]
	return &v
}

// noValues stands for a form or query without values. Nobody writes to it.
var noValues = url.Values{}

// parseQuery parses a query string whose values can become fields of a message.
func parseQuery(raw string) (url.Values, *problem) {
	if raw == "" {
		return noValues, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &queryInvalid
	}
	for name, list := range values {
		if !storable(name) {
			return nil, &queryInvalid
		}
		for _, v := range list {
			if !storable(v) {
				return nil, &queryInvalid
			}
		}
	}
	return values, nil
}
