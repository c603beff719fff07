// Package rest answers Liveblocks' own REST API from the mirror, so that their packages for
// servers read from it without a change: a base URL is all that differs.
//
// It maps shapes and nothing else. What it answers, it reads from the services of the API,
// in the same process, so access, freshness and limits are theirs.
package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// Prefix is that of all paths. Liveblocks' client for Node drops every other path of its
// base URL.
const Prefix = "/v2/"

// Config configures a [Handler]. Every field is required.
type Config struct {
	// Conn leads to the services.
	Conn grpc.ClientConnInterface
	// Authorize finds out who sent a request. It returns the context of the calls that the
	// request makes, or a gRPC status that refuses it.
	Authorize func(r *http.Request) (context.Context, error)
	// Mode says what becomes of calls that the mirror does not answer.
	Mode Mode
	// Project returns the project that the caller of a context reads, or a gRPC status if
	// it may not read, or does not see exactly one: the paths name none.
	Project func(ctx context.Context) (string, error)
	// Permit returns the project of a call to Liveblocks for which its caller needs the scope,
	// or a gRPC status. Without a room the call is about all of them. A caller that does not see
	// the room gets the answer for one that does not exist.
	Permit func(ctx context.Context, scope access.Scope, room *string) (string, error)
	// Forward makes a call to Liveblocks for a project, of which the request has the path, the
	// query, the body and what may be passed on of the header. It follows no redirect. It fails
	// with [ErrNoAnswer] if the call was made, and otherwise with a gRPC status. Just before it
	// makes the call it calls before, whose error it returns in place of that.
	Forward func(project string, r *http.Request, before func() error) (*http.Response, error)
	// Changed marks as stale what a forwarded write has changed, and waits until a time for it
	// to be mirrored. It reports whether it is. The zero time has passed.
	Changed func(ctx context.Context, changed []mirror.Request, until time.Time) bool
	// Refresh fetches a resource again, and returns once that is applied.
	Refresh func(ctx context.Context, of mirror.Resource) error
	// Record records in the audit that a call is made, and with ended how it has ended. If it
	// fails, the call must not be made; it is a gRPC status.
	Record func(ctx context.Context, project, call string, room *string) (ended func(code string), err error)
	// Paused returns since when no call is made to Liveblocks for a project, and whether an
	// operator wants it so; a zero time if calls are made.
	Paused func(project string) (since time.Time, stopped bool)
	// Failing returns since when Liveblocks answers no call for a project; a zero time if it
	// does.
	Failing func(project string) (since time.Time)
	// State returns the task that fetches a resource, whatever its caller may see, and
	// whether there is one. An error is a gRPC status.
	State func(ctx context.Context, of mirror.Resource) (task mirror.Task, known bool, err error)
	// Unfetched reports whether something in a list has been announced of which the newest
	// version is not fetched, whatever its caller may see. An error is a gRPC status.
	Unfetched func(ctx context.Context, list mirror.Resource) (bool, error)
	// WarnAfter is how old a copy may be before a reader is warned that a newer version
	// is known, and how long Liveblocks may give no answer before a reader is warned of it.
	WarnAfter time.Duration
	// Decoding is the memory for decoding, which others share; nil is without limit.
	Decoding *memory.Budget
	// Memory is the number of bytes for all long answers that are put together here, until
	// they are sent. No answer may take more than half of it.
	Memory int64
	Now    func() time.Time
	Logger *slog.Logger
}

// Mode says what becomes of calls that the mirror does not answer.
type Mode struct {
	// Upstream passes reads on of what the mirror does not hold.
	Upstream bool
	// Writes forwards writes.
	Writes bool
}

// Handler answers the REST API.
type Handler struct {
	cfg    Config
	mirror mirrorv1.MirrorServiceClient
	calls  table
	long   *answers
	// bodies is the memory for long bodies that are read as a whole.
	bodies *semaphore.Weighted
}

// New returns a Handler.
func New(cfg Config) *Handler {
	return &Handler{
		cfg: cfg, mirror: mirrorv1.NewMirrorServiceClient(cfg.Conn), calls: newTable(), long: newAnswers(cfg.Memory),
		bodies: semaphore.NewWeighted(max(cfg.Memory/4, maxNaming)),
	}
}

// request is one call.
type request struct {
	*http.Request

	route   *route
	ctx     context.Context //nolint:containedctx // that of the calls, with the caller
	begin   time.Time
	project string
	// arrived means that the body has been read, and is kept.
	arrived bool
	// holds means that it holds memory for a long body.
	holds bool
	// ids are those in the path, in order.
	ids []string
	// params are those of the query.
	params url.Values
}

// ServeHTTP answers one call.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil { //nolint:contextcheck // it is that of r, with the caller
		h.fail(w, r, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	ctx, err := h.cfg.Authorize(r)
	if err != nil {
		return err
	}
	rt, ids, allow := h.calls.match(r.Method, r.URL.EscapedPath())
	switch {
	case rt == nil && len(allow) > 0:
		return methodMissing(allow)
	case rt == nil:
		return pathMissing(r.URL.Path)
	case rt.class == forwarded && !h.cfg.Mode.Writes && rt.serve == nil:
		return readOnly(r, h.calls.reads(rt.path))
	}
	call := &request{Request: r, route: rt, ctx: ctx, ids: ids, begin: time.Now()}
	defer func() {
		if call.holds {
			h.bodies.Release(maxNaming)
		}
	}()
	writes := rt.class == forwarded && h.cfg.Mode.Writes
	switch {
	case writes && (rt.serve == nil || !readsHere(ctx)):
		return h.forward(w, call, access.RESTWrite)
	case rt.class == passed && h.cfg.Mode.Upstream:
		return h.forward(w, call, access.RESTUpstream)
	}
	err = h.answer(w, call)
	switch {
	case writes && refused(err):
		return h.forward(w, call, access.RESTWrite)
	case h.cfg.Mode.Upstream && rt.class == served && !rt.seldom && lacking(call, err):
		return h.instead(w, call, err)
	}
	return err
}

// readsHere reports whether a caller may read from the mirror.
func readsHere(ctx context.Context) bool {
	caller, ok := access.From(ctx)
	return ok && caller.Allows(access.Read)
}

// answer answers a call from the mirror.
func (h *Handler) answer(w http.ResponseWriter, r *request) (err error) {
	if r.project, err = h.cfg.Project(r.ctx); err != nil {
		return err
	}
	if r.route.serve == nil {
		return notMirrored(r.Request)
	}
	if r.params, err = paramsOf(r.URL.RawQuery); err != nil {
		return err
	}
	return r.route.serve(h, w, r)
}

// paramsOf reads a query. What cannot be read is refused: without it, the call would be
// another one.
func paramsOf(raw string) (url.Values, error) {
	params, err := url.ParseQuery(raw)
	if err != nil {
		return nil, parameterInvalid("The query of the URL cannot be read: escape it as encodeURIComponent does.")
	}
	for name, values := range params {
		for _, s := range append(values, name) {
			if !mirror.Storable(s) {
				return nil, parameterInvalid("The query of the URL must be UTF-8 without NUL.")
			}
		}
	}
	return params, nil
}

// allowed writes a list of methods for the header Allow.
func allowed(methods []string) string {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(methods))), ", ")
}
