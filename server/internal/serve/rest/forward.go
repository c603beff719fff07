package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// ErrNoAnswer means that a call to Liveblocks was made and got no answer.
var ErrNoAnswer = errors.New("no answer from Liveblocks")

const (
	// maxForwarded limits the body of a call that is forwarded. Files are uploaded in parts of
	// 5 MB.
	maxForwarded = 64 << 20
	// bodyPatience is how long a body may go on without a byte, and how long one that arrives at
	// less than minThroughput bytes a second.
	bodyPatience  = 30 * time.Second
	minThroughput = 64 << 10
	// readAhead is what is read of a body before the call: a short one is there when the call
	// has its turn, and the server then sees that a caller has gone away meanwhile.
	readAhead = 64 << 10
	// maxNaming limits a body that names what it makes, which is read ahead as a whole.
	maxNaming = 1 << 20
	// changedWait is how long after its arrival a write is answered although what it has changed
	// is not mirrored: Liveblocks' client for Python gives up after five seconds.
	changedWait = 4 * time.Second
	// bodyWait is how long a call waits for memory for a long body.
	bodyWait = 3 * time.Second
	// stateTimeout is how long is waited to learn whether a resource is known.
	stateTimeout = 2 * time.Second
)

// headerRefresh says that what a write has changed is not mirrored yet.
const headerRefresh = "Mirror-Refresh"

// Only these headers are passed on. All others are about a connection, or about who calls.
var (
	requestHeaders  = []string{"Accept", "Content-Type"}
	responseHeaders = []string{"Content-Type", "Retry-After", headerWarn}
)

// lacking reports whether a read failed because the mirror does not hold what it reads. A list
// goes on where it has begun, since its cursor means nothing elsewhere.
func lacking(r *request, err error) bool {
	if r.params.Get("startingAfter") != "" {
		reason, _ := reasonOf(err)
		return reason == fault.ReasonPageTokenInvalid // it is not one of the mirror
	}
	p, ok := err.(*problem) //nolint:errorlint // it is never wrapped
	return ok && (p.Code == codeNotMirrored || p.Code == codeNotMirroredYet)
}

// instead passes a read on that the mirror should answer and cannot. Who may not do that
// gets the failure.
func (h *Handler) instead(w http.ResponseWriter, r *request, failure error) error {
	caller, ok := access.From(r.ctx)
	if !ok || !caller.Allows(access.RESTUpstream) || !h.unambiguous(r) ||
		r.route.room(r.ids) == nil && caller.Limited() {
		return failure
	}
	return h.forward(w, r, access.RESTUpstream)
}

// forward makes a call to Liveblocks in place of its caller, and answers with what comes
// back. The path is one of the table, as it was sent.
func (h *Handler) forward(w http.ResponseWriter, r *request, scope access.Scope) (err error) {
	if !h.unambiguous(r) {
		return pathMissing(r.URL.Path)
	}
	room := r.route.room(r.ids)
	if r.project, err = h.cfg.Permit(r.ctx, scope, room); err != nil {
		if status.Code(err) == codes.NotFound {
			return roomMissing(r.ids[0])
		}
		return err
	}
	if r.params, err = paramsOf(r.URL.RawQuery); err != nil {
		return err
	}
	if r.ContentLength > maxForwarded {
		return bodyTooLong()
	}
	body := &sentBody{r: r.Body, left: maxForwarded, allowed: bodyPatience, until: func(deadline time.Time) {
		_ = http.NewResponseController(w).SetReadDeadline(deadline) // not every writer can
	}}
	if r.arrived || r.Body == nil || r.Body == http.NoBody { // it has ended for the server
		body.until = func(time.Time) {}
	}
	defer body.end() // before the server takes w back
	named, out, err := h.outgoing(r, body)
	if err != nil {
		return body.problem(err)
	}
	made := func(string) {}
	resp, err := h.cfg.Forward(r.project, out, func() (err error) {
		if !r.route.audited() {
			return nil
		}
		if r.route.path[0] == "rooms" && len(r.ids) > 0 {
			room = &r.ids[0] // also if the call is about more
		}
		made, err = h.cfg.Record(r.ctx, r.project, r.route.name(), room)
		return err
	})
	if err != nil {
		if errors.Is(err, ErrNoAnswer) { // it may have been done
			made("UNKNOWN")
			h.changed(r, named, time.Time{})
		}
		return body.problem(err)
	}
	made(auditCode(resp.StatusCode))
	defer func() { _ = resp.Body.Close() }() // nothing more is read
	return h.passOn(w, r, resp, named)
}

// unambiguous reports whether everybody on the way to Liveblocks reads the same ids in the
// path. A proxy may resolve "." and "..", and what is escaped in an id is not so for a proxy
// that decodes it: then it must not lead to other rooms than its caller may see, or to another
// call.
func (h *Handler) unambiguous(r *request) bool {
	if r.URL.RawPath != "" && r.URL.EscapedPath() != r.URL.RawPath {
		return false // it would be escaped anew
	}
	caller, ok := access.From(r.ctx)
	limited := !ok || caller.Limited()
	if limited {
		decoded := strings.ReplaceAll(r.URL.Path, "%", "%25")
		if other, ids, _ := h.calls.match(r.Method, decoded); other != nil && !slices.Equal(ids, r.ids) {
			return false
		}
	}
	for _, id := range r.ids {
		parts := []string{id}
		if limited {
			parts = strings.Split(strings.ReplaceAll(id, `\`, "/"), "/")
		}
		if slices.ContainsFunc(parts, func(s string) bool { return s == "" || s == "." || s == ".." }) {
			return false
		}
	}
	return true
}

// auditCode says in the audit how a call has ended.
func auditCode(status int) string {
	if status < http.StatusMultipleChoices {
		return codes.OK.String()
	}
	return strconv.Itoa(status)
}

// passOn answers with what Liveblocks has answered.
func (h *Handler) passOn(w http.ResponseWriter, r *request, resp *http.Response, named string) error {
	header := w.Header()
	for _, name := range headersOfCopies { // this read may have begun as one of a copy
		header.Del(name)
	}
	if err := h.told(r, resp, named, header); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices && resp.StatusCode < http.StatusBadRequest {
		return badAnswer("Liveblocks answered with a redirect, which is not followed.")
	}
	header.Set(headerSource, "liveblocks")
	header.Set("Cache-Control", "no-store")
	header["Content-Type"] = nil // without one, none is guessed
	for _, name := range responseHeaders {
		if v := resp.Header.Values(name); len(v) > 0 {
			header[name] = v
		}
	}
	if resp.ContentLength >= 0 && resp.StatusCode != http.StatusNoContent {
		header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	w.WriteHeader(resp.StatusCode)
	if r.Method != http.MethodHead {
		h.copyAnswer(r, w, resp.Body)
	}
	return nil
}

// outgoing returns the request to Liveblocks, and the name that its body gives to what it
// makes, if the route has one there.
func (h *Handler) outgoing(r *request, body *sentBody) (named string, out *http.Request, err error) {
	out = (&http.Request{
		Method: r.route.method, URL: &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery},
		Header: http.Header{}, Body: http.NoBody,
	}).WithContext(r.ctx)
	for _, name := range requestHeaders {
		if v := r.Header.Values(name); len(v) > 0 {
			out.Header[name] = v
		}
	}
	if r.route.method == http.MethodGet {
		return "", out, nil // a proxy might take its body for another request
	}
	limit := readAhead
	if r.route.sent != "" {
		limit = maxNaming
	}
	begin, err := h.ahead(r, body, limit)
	switch {
	case err != nil:
		return "", nil, err
	case len(begin) <= limit:
		out.ContentLength = int64(len(begin))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(begin)), nil }
		out.Body, _ = out.GetBody()
	case r.route.sent != "":
		return "", nil, errBodyTooLong
	default:
		out.ContentLength = r.ContentLength
		out.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(begin), body), body}
	}
	if r.route.sent != "" {
		named = member(begin, r.route.sent)
	}
	return named, out, nil
}

// errNoMemory means that there is no memory to read on. What was read is there.
var errNoMemory = errors.New("no memory for a long body")

// ahead reads a body until there is more than limit of it, or its end. What is longer than most
// takes memory, until the call has ended.
func (h *Handler) ahead(r *request, from io.Reader, limit int) (begin []byte, err error) {
	begin, err = io.ReadAll(io.LimitReader(from, readAhead+1))
	if err != nil || len(begin) <= readAhead || limit <= readAhead {
		return begin, err
	}
	if !r.holds {
		ctx, cancel := context.WithTimeout(r.ctx, bodyWait)
		defer cancel()
		if h.bodies.Acquire(ctx, maxNaming) != nil {
			return begin, errNoMemory
		}
		r.holds = true
	}
	rest, err := io.ReadAll(io.LimitReader(from, int64(limit-readAhead)))
	return append(begin, rest...), err
}

// member returns a member of an object that is a text.
func member(body []byte, name string) string {
	var members map[string]json.RawMessage
	var text string
	if json.Unmarshal(body, &members) != nil || json.Unmarshal(members[name], &text) != nil {
		return ""
	}
	return text
}

// told sees to it that the next read shows what a write has changed, or may have.
func (h *Handler) told(r *request, resp *http.Response, named string, header http.Header) error {
	switch {
	case resp.StatusCode >= http.StatusInternalServerError:
		h.changed(r, named, time.Time{})
		return nil
	case r.route.changes == nil, resp.StatusCode >= http.StatusMultipleChoices:
		return nil
	}
	// A short answer is read as a whole, so that the call is over while what it has changed is
	// fetched.
	limit := readAhead
	if r.route.answered != "" {
		limit = maxNaming
	}
	begin, err := h.ahead(r, resp.Body, limit)
	if err != nil && !errors.Is(err, errNoMemory) {
		h.logBroken(r, err)
		h.changed(r, named, time.Time{})
		return badAnswer("Liveblocks did the write, and its answer ended early.")
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(begin), resp.Body), resp.Body}
	if r.route.answered != "" {
		named = member(begin, r.route.answered)
	}
	if !h.changed(r, named, r.begin.Add(changedWait)) {
		header.Set(headerRefresh, "pending")
	}
	return nil
}

// changed notes what a write has changed, also if its caller is gone, and waits until a time
// for that to be mirrored. It reports whether it is. The zero time says that the write may have
// been done: then nothing is waited for, and nothing proves that something is gone.
func (h *Handler) changed(r *request, named string, until time.Time) bool {
	if r.route.changes == nil {
		return true
	}
	guid := r.params.Get("guid")
	if guid == rootGUID {
		guid = ""
	}
	ctx := context.WithoutCancel(r.ctx)
	known := func(of mirror.Resource) bool {
		ctx, cancel := context.WithTimeout(ctx, stateTimeout)
		defer cancel()
		_, known, err := h.cfg.State(ctx, of)
		return known || err != nil
	}
	var list []mirror.Request
	for _, c := range r.route.changes(change{ids: r.ids, named: named, guid: guid}) {
		if c.Resource = h.of(r, c.Resource); !c.Resource.Valid() {
			continue
		}
		if c.Unlisted && c.Resource.Kind == mirror.KindRoom && !known(c.Resource) {
			continue // a room of any name can be deleted, and would be remembered for ever
		}
		c.Unlisted = c.Unlisted && !until.IsZero()
		c.Settle = true // what is read right after a write may be older
		list = append(list, c)
	}
	if r.route.serve != nil && r.params.Has("idempotent") && len(list) > 0 && known(list[0].Resource) {
		list = list[:1] // it may well have existed; with a room that is new, what is in it is fetched
	}
	return len(list) == 0 || h.cfg.Changed(ctx, list, until)
}

// copyAnswer sends the body of an answer as it arrives. One that ends early breaks the
// connection off: the status line has said otherwise.
func (h *Handler) copyAnswer(r *request, w http.ResponseWriter, body io.Reader) {
	control := http.NewResponseController(w)
	buffer := make([]byte, 64<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return // the reader is gone
			}
			if !errors.Is(err, io.EOF) {
				_ = control.Flush() // not every writer can
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			h.logBroken(r, err)
			panic(http.ErrAbortHandler)
		}
	}
}

// logBroken logs why an answer is not passed on as a whole, unless nobody waits for it.
func (h *Handler) logBroken(r *request, err error) {
	if r.ctx.Err() == nil {
		h.cfg.Logger.WarnContext(r.ctx, "an answer of Liveblocks was broken off", logError(err))
	}
}

// errBodyTooLong means that the body of a call is too long.
var errBodyTooLong = errors.New("the body is too long")

var (
	// errBodySlow means that the body of a call arrives too slowly.
	errBodySlow = errors.New("the body arrives too slowly")
	// errBodyOver means that nobody waits for the rest of the body of a call.
	errBodyOver = errors.New("the call has ended")
)

// sentBody is the body of a call while it arrives. Who sends it on may read it in a goroutine
// of its own, and for a while after the call has ended.
type sentBody struct {
	r    io.ReadCloser
	left int64
	// allowed is how long may be waited for it, which grows with what arrives.
	allowed time.Duration
	ended   bool
	failed  atomic.Pointer[error] // how r did, perhaps while nobody waits for it any more

	mu sync.Mutex
	// until sets the deadline of reads, of which the zero time is none. Once the body has ended it
	// must not be called: the server then waits without a deadline for the client to go away. It
	// must not be called either once the server may have taken back what it uses, which over says.
	until func(time.Time)
	over  bool
}

// end says that nothing more is read.
func (b *sentBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

// next prepares the next read.
func (b *sentBody) next() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over:
		return errBodyOver
	case b.ended:
	case b.allowed <= 0:
		b.failed.Store(&errBodySlow)
		return errBodySlow
	default:
		b.until(time.Now().Add(min(bodyPatience, b.allowed)))
	}
	return nil
}

// rest removes the deadline until the next read: over HTTP/2 it would end the body meanwhile.
func (b *sentBody) rest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		b.until(time.Time{})
	}
}

func (b *sentBody) Read(p []byte) (int, error) {
	if err := b.next(); err != nil {
		return 0, err
	}
	begin := time.Now()
	n, err := b.r.Read(p)
	b.allowed += time.Duration(n)*(time.Second/minThroughput) - time.Since(begin)
	if b.ended = err != nil; !b.ended {
		b.rest()
	}
	if b.left -= int64(n); b.left < 0 {
		err = errBodyTooLong
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed.Store(&err)
	}
	return n, err
}

// Close ends it. The server closes what it is read from.
func (b *sentBody) Close() error {
	b.end()
	return nil
}

// problem returns the failure of a call whose body may have failed.
func (b *sentBody) problem(err error) error {
	failed := b.failed.Load()
	switch {
	case errors.Is(err, errNoMemory):
		return busy()
	case errors.Is(err, errBodyTooLong) || failed != nil && errors.Is(*failed, errBodyTooLong):
		return bodyTooLong()
	case failed != nil:
		return bodyBroken()
	case errors.Is(err, ErrNoAnswer):
		return badAnswer("Liveblocks gave no answer. If this is a write, it may have been done.")
	}
	return err
}

func bodyBroken() *problem {
	return &problem{
		status: http.StatusBadRequest, Code: "BAD_REQUEST",
		Message: "The body of the request did not arrive as a whole, or too slowly.",
	}
}

func bodyTooLong() *problem {
	return &problem{
		status: http.StatusRequestEntityTooLarge, Code: "PAYLOAD_TOO_LARGE",
		Message: "The body is longer than is passed on to Liveblocks.",
	}
}

func badAnswer(message string) *problem {
	return &problem{status: http.StatusBadGateway, Code: "BAD_GATEWAY", Message: message}
}
