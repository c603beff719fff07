// Package gateway is the HTTP front end of the service. It translates HTTP requests
// to gRPC calls and depends only on the published API.
//
// Webhook bodies are passed on byte for byte, because the signature covers them,
// and documents are returned byte for byte. Everything else passes through grpc-gateway,
// with the JSON of package apijson.
package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	mirrorgw "github.com/liveblocks-mirror/liveblocks-mirror/gen/gateway/liveblocks/mirror/v1"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

const (
	// DefaultBodyTimeout is the default time in which a body must arrive. The
	// sender allows 15 seconds for the whole delivery.
	DefaultBodyTimeout = 10 * time.Second
	// DefaultBodyBudget is the default memory for all bodies that are arriving: 64
	// of the largest.
	DefaultBodyBudget = 64 << 20
	// DefaultWriteStall is the default time after which a client that does not read
	// its response is disconnected. It may hold a stream of the service open until
	// then.
	DefaultWriteStall = time.Minute
	// maxRequest limits the bodies of all other requests, which hold a few ids.
	maxRequest = 64 << 10
)

// Config configures a [Gateway].
type Config struct {
	// Conn connects to the service. It must accept requests of MaxBody plus 64 KiB.
	// The gateway does not touch a request after sending it.
	Conn grpc.ClientConnInterface
	// MaxBody is the maximum size of a webhook body in bytes. It must be that of the
	// service, so the gateway reads no more than the service accepts.
	MaxBody int64
	// BodyTimeout is the time in which a body must arrive; zero means
	// [DefaultBodyTimeout].
	BodyTimeout time.Duration
	// BodyBudget is the memory in bytes for all bodies that are arriving and not
	// authenticated yet; zero means [DefaultBodyBudget]. When it is exhausted,
	// requests get 503 with Retry-After.
	BodyBudget int64
	// WriteStall is the longest time that one write to a client may block; zero
	// means [DefaultWriteStall].
	WriteStall time.Duration
	// Authorize finds out who sent a request, from its header, its address and its
	// connection. It returns the context of the calls that the request makes, in which
	// Conn may look who calls. An error is a gRPC status and refuses the request. It is
	// called for everything except webhooks and [OpenPaths]. Nil accepts every request.
	// The service decides what the caller may do.
	Authorize func(r *http.Request) (context.Context, error)
	// Deliver refuses webhooks by their address, with a gRPC status. Nil refuses none.
	Deliver func(r *http.Request) error
	// Storable reports whether the service can store a string. Paths and query
	// strings are checked with it. Nil requires valid UTF-8, as protobuf does.
	Storable func(s string) bool
	// LocalOnly refuses requests whose Host or Origin is not this machine, except
	// webhooks and /healthz. It protects a gateway without credentials from web
	// pages in a local browser, which could otherwise reach it through a name that
	// resolves to the loopback address.
	LocalOnly bool
	// Ready returns whether the service is ready and, if not, why. Every probe
	// calls it, so it must answer from memory. Nil means always ready.
	Ready func() (ok bool, reason string)
	// Metrics returns what serves /metrics to the caller of the context, which is that of
	// Authorize. An error is a gRPC status and refuses the request. Nil serves no metrics.
	Metrics func(ctx context.Context) (http.Handler, error)
	// MetricsApart means that /metrics is served by [Gateway.MetricsHandler] alone.
	MetricsApart bool
	// REST serves the paths below /v2/, which are those of Liveblocks' own API, and asks
	// for credentials itself. Nil serves none.
	REST http.Handler
	// OpenAPI is served as /openapi.json, to everybody.
	OpenAPI []byte
	// Descriptors is the definition of the API as a google.protobuf.FileDescriptorSet,
	// served as /mirror.binpb, to everybody.
	Descriptors []byte
	// Version of the service is on the page at the root.
	Version string
	// Logger receives what callers must not see. Nil discards it.
	Logger *slog.Logger
}

// Gateway serves the HTTP API.
type Gateway struct {
	mux         *runtime.ServeMux
	routes      *routes
	documents   mirrorv1.MirrorServiceClient
	changes     mirrorv1.ChangeServiceClient
	events      mirrorv1.EventServiceClient
	receipts    receipts
	maxBody     int64
	bodyTimeout time.Duration
	budget      budget
	writeStall  time.Duration
	authorize   func(*http.Request) (context.Context, error)
	deliver     func(*http.Request) error
	storable    func(string) bool
	localOnly   bool
	ready       func() (bool, string)
	metrics     func(context.Context) (http.Handler, error)
	apart       bool
	rest        http.Handler
	openAPI     spec
	descriptors []byte
	setTag      string
	page        page
	log         *slog.Logger
	toldSlash   sync.Once
}

// New returns a gateway to the service behind cfg.Conn.
func New(cfg Config) (*Gateway, error) {
	if cfg.Conn == nil {
		return nil, errors.New("new gateway: no connection to the service")
	}
	g := &Gateway{
		documents:   mirrorv1.NewMirrorServiceClient(cfg.Conn),
		changes:     mirrorv1.NewChangeServiceClient(cfg.Conn),
		events:      mirrorv1.NewEventServiceClient(cfg.Conn),
		maxBody:     cfg.MaxBody,
		bodyTimeout: cmp.Or(cfg.BodyTimeout, DefaultBodyTimeout),
		writeStall:  cmp.Or(cfg.WriteStall, DefaultWriteStall),
		authorize:   cfg.Authorize,
		deliver:     cfg.Deliver,
		storable:    cfg.Storable,
		localOnly:   cfg.LocalOnly,
		ready:       cfg.Ready,
		metrics:     cfg.Metrics,
		apart:       cfg.MetricsApart,
		rest:        cfg.REST,
		descriptors: cfg.Descriptors,
		setTag:      fmt.Sprintf(`"%x"`, sha256.Sum256(cfg.Descriptors)),
		log:         cfg.Logger,
	}
	allowance := cmp.Or(cfg.BodyBudget, DefaultBodyBudget)
	if g.maxBody <= 0 {
		return nil, errors.New("new gateway: no limit for webhook bodies")
	}
	if g.bodyTimeout < 0 || g.writeStall < 0 || allowance < 0 {
		return nil, errors.New("new gateway: a limit is negative")
	}
	if allowance < g.maxBody {
		return nil, errors.New("new gateway: the budget for bodies is less than one may have")
	}
	g.budget.left.Store(allowance)
	if g.authorize == nil {
		g.authorize = func(r *http.Request) (context.Context, error) { return r.Context(), nil }
	}
	if g.storable == nil {
		g.storable = utf8.ValidString
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
	if g.openAPI, err = newSpec(cfg.OpenAPI); err != nil {
		return nil, fmt.Errorf("new gateway: %w", err)
	}
	if g.page, err = newPage(cfg.Version); err != nil {
		return nil, fmt.Errorf("new gateway: %w", err)
	}
	if g.receipts, err = newReceipts(); err != nil {
		return nil, fmt.Errorf("new gateway: %w", err)
	}
	return g, nil
}

func (g *Gateway) route(conn grpc.ClientConnInterface) error {
	g.mux = runtime.NewServeMux(
		// Ids are single segments, which every mode unescapes completely. This mode
		// keeps the mux from splitting a segment at an escaped slash.
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		// No form or header may override the method.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		// For every media type: Content-Type selects the marshaler, and a webhook
		// is raw whatever its type.
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{}),
		runtime.WithIncomingHeaderMatcher(matchIncoming),
		runtime.WithOutgoingHeaderMatcher(matchOutgoing),
		runtime.WithErrorHandler(g.callFailed),
		runtime.WithStreamErrorHandler(func(ctx context.Context, err error) *status.Status {
			return status.FromProto(g.public(ctx, err))
		}),
		runtime.WithWriteContentLength(),
	)
	// Only the generated code that dials uses the context.
	ctx := context.Background()
	if err := errors.Join(
		mirrorgw.RegisterAdminServiceHandlerClient(ctx, g.mux, mirrorv1.NewAdminServiceClient(conn)),
		mirrorgw.RegisterMirrorServiceHandlerClient(ctx, g.mux, g.documents),
		mirrorgw.RegisterChangeServiceHandlerClient(ctx, g.mux, g.changes),
		mirrorgw.RegisterEventServiceHandlerClient(ctx, g.mux, g.events),
	); err != nil {
		return err
	}
	for _, route := range documentRoutes {
		for _, path := range route.paths {
			if err := g.mux.HandlePath(http.MethodGet, path, g.readDocument(route, path)); err != nil {
				return err
			}
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if err := g.mux.HandlePath(method, changesPath, g.watchChanges); err != nil {
			return err
		}
	}
	var err error
	g.routes, err = newRoutes([]protoreflect.FileDescriptor{
		mirrorv1.File_liveblocks_mirror_v1_admin_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_change_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_event_service_proto,
	})
	return err
}

// Handler returns the handler of the whole API.
func (g *Gateway) Handler() http.Handler { return g.handler(g.guarded) }

// WebhookHandler returns a handler of only the webhook paths and /healthz, the one
// to expose.
func (g *Gateway) WebhookHandler() http.Handler {
	return g.handler(func(w http.ResponseWriter, _ *http.Request) { g.refuse(w, unknownPath) })
}

// MetricsHandler returns a handler of /metrics alone.
func (g *Gateway) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w = newWriter(w, g.writeStall)
		secure(w.Header())
		switch {
		case g.localOnly && !local(r):
			g.refuse(w, notLocal)
		case rawPath(r.URL) != metricsPath || g.metrics == nil:
			g.refuse(w, unknownPath)
		default:
			g.guard(w, r, g.sendMetrics)
		}
	})
}

// metricsPath is where the metrics are.
const metricsPath = "/metrics"

// restPrefix begins the paths of Liveblocks' own API.
const restPrefix = "/v2/"

// handler serves what needs no credential, and passes other requests to rest.
func (g *Gateway) handler(rest http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w = newWriter(w, g.writeStall)
		secure(w.Header())
		switch path := rawPath(r.URL); {
		case IsWebhook(path):
			g.webhook(w, r)
		case r.Method == http.MethodPost && strings.HasSuffix(path, "/") && IsWebhook(path[:len(path)-1]):
			g.slashAtEnd(w, r)
		case path == "/healthz":
			g.health(w, r)
		default:
			rest(w, r)
		}
	})
}

// guarded serves what needs no credential beside the webhooks, and passes on what does.
func (g *Gateway) guarded(w http.ResponseWriter, r *http.Request) {
	if g.localOnly && !local(r) {
		g.refuse(w, notLocal)
		return
	}
	if serve := openPaths[rawPath(r.URL)]; serve != nil {
		serve(g, w, r)
		return
	}
	if g.rest != nil && strings.HasPrefix(rawPath(r.URL), restPrefix) {
		g.rest.ServeHTTP(w, r)
		return
	}
	serve := g.api
	if rawPath(r.URL) == metricsPath && g.metrics != nil && !g.apart {
		serve = g.sendMetrics
	}
	g.guard(w, r, serve)
}

// guard serves a request that needs a credential.
func (g *Gateway) guard(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	ctx, err := g.authorize(r)
	if err != nil {
		g.answerFailure(r.Context(), w, nil, err, false)
		return
	}
	serve(w, r.WithContext(ctx)) //nolint:contextcheck // it is that of r, with the caller
}

// sendMetrics sends the metrics that the caller may see.
func (g *Gateway) sendMetrics(w http.ResponseWriter, r *http.Request) {
	if !g.readOnly(w, r) {
		return
	}
	metrics, err := g.metrics(r.Context())
	if err != nil {
		g.answerFailure(r.Context(), w, nil, err, false)
		return
	}
	w.Header()["Cache-Control"] = noStore
	metrics.ServeHTTP(w, r)
}

// openPaths are served without a credential. Probes have none, and the others describe
// the program and hold no data.
var openPaths = map[string]func(*Gateway, http.ResponseWriter, *http.Request){
	"/":        (*Gateway).root,
	"/healthz": (*Gateway).health,
	"/readyz":  (*Gateway).readiness,
	"/openapi.json": func(g *Gateway, w http.ResponseWriter, r *http.Request) {
		if g.readOnly(w, r) {
			g.openAPI.send(w, r)
		}
	},
	"/mirror.binpb": func(g *Gateway, w http.ResponseWriter, r *http.Request) {
		if g.readOnly(w, r) {
			g.describe(w, r)
		}
	},
}

// OpenPaths returns the paths that are served without a credential, beside those of
// webhooks. All others are calls of the API.
func OpenPaths() []string { return slices.Sorted(maps.Keys(openPaths)) }

// describe sends the definition of the API.
func (g *Gateway) describe(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/protobuf")
	h.Set("ETag", g.setTag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(g.descriptors))
}

// api serves the calls of the API.
func (g *Gateway) api(w http.ResponseWriter, r *http.Request) {
	if !g.storable(r.URL.Path) {
		g.refuse(w, pathInvalid)
		return
	}
	ctx := r.Context()
	if r.Method == http.MethodHead {
		ctx = context.WithValue(ctx, headOnly{}, true)
	}
	in := r.WithContext(ctx) // a shallow copy
	if r.Method == http.MethodHead {
		in.Method = http.MethodGet // net/http still omits the response body
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
	query, p := g.parseQuery(r.URL.RawQuery)
	if p != nil {
		g.refuse(w, *p)
		return
	}
	if err := rt.check(query); err != nil {
		g.refuse(w, invalid(err.Error()))
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

// local reports whether the request's target is this machine and so is, for a
// request of a web page, its origin.
func local(r *http.Request) bool {
	if !Loopback(r.Host) {
		return false
	}
	for _, origin := range r.Header["Origin"] {
		if u, err := url.Parse(origin); err != nil || !Loopback(u.Host) {
			return false
		}
	}
	return true
}

// Loopback reports whether a host, with or without a port, is this machine.
func Loopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// health reports that the process is serving.
func (g *Gateway) health(w http.ResponseWriter, r *http.Request) {
	if g.readOnly(w, r) {
		writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
	}
}

// readiness reports whether the service is ready.
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

// readOnly responds with 405 to all methods except GET and HEAD.
func (g *Gateway) readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	g.wrongMethod(w, "GET, HEAD")
	return false
}

// rawPath returns the path as it was sent. The mux routes by the same string, so
// both always agree on what a path means.
func rawPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.Path // the path was sent in the standard encoding
}

// literalColon returns u with a leading colon of the last segment escaped. The mux
// would treat the segment as a verb without a name and respond with 404, although
// it is an id, such as that of a room named ":read".
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

// noValues is a form or query without values. It is never written to.
var noValues = url.Values{}

// parseQuery parses a query string and checks that its values fit in a message.
func (g *Gateway) parseQuery(raw string) (url.Values, *problem) {
	if raw == "" {
		return noValues, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &queryInvalid
	}
	for name, list := range values {
		if !g.storable(name) {
			return nil, &queryInvalid
		}
		for _, v := range list {
			if !g.storable(v) {
				return nil, &queryInvalid
			}
		}
	}
	return values, nil
}
