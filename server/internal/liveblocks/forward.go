package liveblocks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// ErrNoAnswer means that a call was made and got no answer: whether it was done is not known.
var ErrNoAnswer = errors.New("no answer from Liveblocks")

const (
	// forwardsAtOnce is how many calls are made for others at a time, fewer than a connection
	// of HTTP/2 usually carries, and forwardsWaiting how many wait for that.
	forwardsAtOnce  = 64
	forwardsWaiting = 256
	// shareAtOnce is how many of them are those of one caller, and shareWaiting how many of one
	// wait for that: who reads long answers slowly keeps nobody else waiting.
	shareAtOnce  = 16
	shareWaiting = 64
	// forwardPatience is how long one waits for its turn: its caller has no more than some
	// seconds, and may try again.
	forwardPatience = 3 * time.Second
	// doubtEvery is the time between two pings that failed calls for others cause: their
	// failures may be due to what they ask for.
	doubtEvery = 10 * time.Second
)

// forwards are the calls that are made for others.
type forwards struct {
	waiting chan struct{} // of those who wait for a turn
	places  chan struct{} // of those under way
	// first is held by the one that waits at the limiter. The others wait for it, so that of
	// the rate they have no more than the workers, who are one there, too.
	first chan struct{}

	mu sync.Mutex
	// shares are those of the callers who have calls, by name.
	shares map[string]*share
	// doubted is when a failed call was last followed by a ping.
	doubted time.Time
}

// share is what one caller may have of the forwards.
type share struct {
	calls  int           // that wait or are under way
	places chan struct{} // of those that go on
}

func newForwards() forwards {
	return forwards{
		waiting: make(chan struct{}, forwardsWaiting), places: make(chan struct{}, forwardsAtOnce),
		first: make(chan struct{}, 1), shares: make(map[string]*share),
	}
}

// join adds a call of a caller, unless too many of its calls wait. The caller must call leave
// when the call has ended.
func (f *forwards) join(caller string) (s *share, leave func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s = f.shares[caller]
	if s == nil {
		s = &share{places: make(chan struct{}, shareAtOnce)}
		f.shares[caller] = s
	}
	if s.calls == shareAtOnce+shareWaiting {
		return nil, nil, false
	}
	s.calls++
	return s, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if s.calls--; s.calls == 0 {
			delete(f.shares, caller)
		}
	}, true
}

// doubt reports whether a failed call may be followed by a ping, and counts it.
func (f *forwards) doubt() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.doubted) < doubtEvery {
		return false
	}
	f.doubted = now
	return true
}

// forwardTurn waits, but not for long, until a call for somebody else may be made. The caller must
// call release when the call has ended.
func (c *Client) forwardTurn(ctx context.Context, caller, op string) (release func(), err error) {
	c.lookSometimes(ctx)
	if f := c.held(); f != nil {
		return nil, notSent(op, f)
	}
	share, leave, ok := c.forwards.join(caller)
	if !ok {
		return nil, notSent(op, tooManyForwards())
	}
	patient, cancel := context.WithTimeout(ctx, forwardPatience)
	defer cancel()
	giveBack, err := c.awaitShare(patient, share)
	if err == nil {
		return func() { giveBack(); leave() }, nil
	}
	leave()
	switch f := c.held(); {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", op, ctx.Err())
	case f != nil:
		return nil, notSent(op, f)
	default:
		return nil, notSent(op, tooManyForwards())
	}
}

// awaitShare takes a place of a caller's share, and then one of all, for which not too many may
// wait.
func (c *Client) awaitShare(ctx context.Context, s *share) (release func(), err error) {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case c.forwards.waiting <- struct{}{}:
		err = c.awaitForward(ctx)
		<-c.forwards.waiting
	default:
		err = tooManyForwards()
	}
	if err != nil {
		<-s.places
		return nil, err
	}
	return func() { <-c.forwards.places; <-s.places }, nil
}

// awaitForward takes a place and a turn.
func (c *Client) awaitForward(ctx context.Context) error {
	select {
	case c.forwards.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := func() error {
		select {
		case c.forwards.first <- struct{}{}:
			defer func() { <-c.forwards.first }()
		case <-ctx.Done():
			return ctx.Err()
		}
		// After trouble one is let through, like a worker.
		if err := c.limiter.awaitOpen(ctx, c.lookSometimes); err != nil {
			return err
		}
		return c.limiter.take(ctx)
	}()
	if err != nil {
		<-c.forwards.places
	}
	return err
}

func tooManyForwards() *fault.Error {
	return fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "other calls to Liveblocks wait for their turn").
		After(forwardPatience)
}

// Forward makes a call for somebody else. The request names the path and the query below the
// base URL, and its header holds nothing but what Liveblocks may see; the project's key is
// added. It waits for its turn, but not for long, and takes no more than half of the rate from
// the workers; each caller, who has a name, has a share of that. It is made once, and a redirect
// is an answer. before is called once it is sure that the call will be made: its error keeps it
// from being made.
//
// The body of the answer must be closed. Reading it fails if it is too long, stalls, or holds
// the key. Forward fails with [ErrNoAnswer] if the call was made, also if the request's context
// or body has ended it, and otherwise with a [*fault.Error], the context's error or that of before.
func (c *Client) Forward(caller string, r *http.Request, before func() error) (*http.Response, error) {
	ctx, op := r.Context(), "rest read"
	if r.Method != http.MethodGet {
		op = "rest write"
	}
	release, err := c.forwardTurn(ctx, caller, op)
	if err != nil {
		return nil, err
	}
	if err := before(); err != nil {
		release()
		return nil, err
	}
	ctx, span := tracing.BeginCall(ctx, op)
	begun := time.Now()
	watched, w, stop := c.watchFor(ctx, c.cfg.Timeout)
	sent := &feeding{r: r.Body, w: w}
	resp, err := c.forward(watched, r, sent)
	sent.end()
	w.pause()
	var res result
	switch {
	case err != nil && sent.err() != nil: // that of the caller
		res = result{outcome: outcomeCancelled, err: fmt.Errorf("%s: %w: %w", op, ErrNoAnswer, sent.err())}
	case err != nil:
		res = c.broken(ctx, op, outcomeNoAnswer, late(watched, err))
		res.err = fmt.Errorf("%w: %w", ErrNoAnswer, res.err)
	default:
		w.slowAt = time.Now().Add(c.cfg.Timeout) // what was sent took its own time
		res = forwarded(resp)
	}
	span.Set("mirror.code", res.word())
	if c.cfg.Called != nil {
		c.cfg.Called(Call{Route: strings.ReplaceAll(op, " ", "_"), Code: res.word(), Took: time.Since(begun)})
	}
	c.learn(ctx, begun, res)
	if err != nil {
		stop()
		release()
		span.End(res.err)
		return nil, res.err
	}
	for name, values := range resp.Header {
		if strings.Contains(strings.Join(values, "\n"), *c.cfg.SecretKey.secret) {
			delete(resp.Header, name)
		}
	}
	resp.Body = &forwardedBody{
		ctx: watched, from: resp.Body, w: w, left: c.cfg.MaxBody, key: []byte(*c.cfg.SecretKey.secret),
		end: sync.OnceFunc(func() { stop(); release(); span.End(nil) }),
	}
	return resp, nil
}

// late returns why a call was cut off, and otherwise the error.
func late(watched context.Context, err error) error {
	if e, ok := errors.AsType[*timeoutError](context.Cause(watched)); ok {
		return e
	}
	return err
}

// forward sends the request of a call that is made for somebody else.
func (c *Client) forward(ctx context.Context, r *http.Request, body *feeding) (*http.Response, error) {
	to, err := url.Parse(c.cfg.BaseURL.url + r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	to.RawQuery = r.URL.RawQuery
	out := (&http.Request{
		Method: r.Method, URL: to, Host: to.Host, Header: r.Header.Clone(), Body: body, ContentLength: r.ContentLength,
	}).WithContext(ctx)
	if r.ContentLength == 0 || r.Body == nil {
		out.Body, out.ContentLength = http.NoBody, 0
	}
	out.GetBody = r.GetBody // what was not begun to be done may be sent on another connection
	out.Header.Set("Authorization", "Bearer "+*c.cfg.SecretKey.secret)
	out.Header.Set("User-Agent", c.cfg.UserAgent)
	return c.http.Do(out)
}

// forwarded classifies the answer of a call that was made for somebody else.
func forwarded(resp *http.Response) result {
	r := result{outcome: outcomeInvalid, status: resp.StatusCode}
	if r.status < http.StatusMultipleChoices {
		r.outcome = outcomeOK
	}
	return r
}

// learn tells the limiter of the result of a call that was made for somebody else. What was
// refused says nothing of other calls: it may be the caller's mistake, and a limit may be that
// of one room. So a ping finds out if the whole project is concerned, for which the caller
// does not wait; Close does.
func (c *Client) learn(ctx context.Context, begun time.Time, r result) {
	switch {
	case r.outcome == outcomeOK:
		c.note(ctx, &r)
		return
	case r.outcome == outcomeCancelled:
		return
	case r.status == http.StatusUnauthorized, r.status == http.StatusForbidden, r.status == http.StatusTooManyRequests:
	case r.status >= http.StatusBadRequest && r.status < http.StatusInternalServerError:
		return
	}
	if !c.forwards.doubt() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	c.calls.Go(func() { c.pinged(ctx, begun) }) // which tells the limiter
}

// feeding is the body of a request that arrives while it is sent. The time that its caller
// takes is not Liveblocks'.
type feeding struct {
	r      io.ReadCloser
	w      *watchdog
	mu     sync.Mutex
	over   bool  // the call has been answered, or has failed
	failed error // how r did, perhaps while nobody waits for it any more
}

func (f *feeding) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// end says that what is read from now on is of no account.
func (f *feeding) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
}

func (f *feeding) Read(p []byte) (int, error) {
	f.watch(func(t *time.Timer) { t.Stop() })
	n, err := f.r.Read(p)
	f.watch(func(t *time.Timer) { t.Reset(f.w.patience) })
	if err != nil && !errors.Is(err, io.EOF) {
		f.mu.Lock()
		f.failed = err
		f.mu.Unlock()
	}
	return n, err
}

// watch changes the timer while the body is being sent.
func (f *feeding) watch(change func(*time.Timer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.over {
		change(f.w.timer)
	}
}

// Close tells who has given the body that nothing more is read.
func (f *feeding) Close() error { return f.r.Close() }

// ErrHoldsKey means that an answer holds the project's key.
var ErrHoldsKey = errors.New("the answer holds the secret key")

// forwardedBody is the body of an answer. It gives out no part of the key: the end of what has
// arrived waits if the key could begin there.
type forwardedBody struct {
	ctx  context.Context //nolint:containedctx // io.Reader has none; that of the watchdog
	from io.ReadCloser
	w    *watchdog
	left int64 // bytes that may arrive
	key  []byte
	// buf holds what was read, of which the first clear bytes may be given out.
	buf   []byte
	clear int
	err   error
	end   func() // ends the call, once
}

// forwardBuffer is how much is read at a time.
const forwardBuffer = 64 << 10

func (b *forwardedBody) Read(p []byte) (int, error) {
	for b.clear == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.fill()
	}
	n := copy(p, b.buf[:b.clear])
	b.buf, b.clear = b.buf[n:], b.clear-n
	return n, nil
}

// fill reads on, behind the bytes that wait.
func (b *forwardedBody) fill() {
	waiting := len(b.buf)
	b.buf = append(make([]byte, 0, waiting+forwardBuffer), b.buf...)
	b.w.resume()
	n, err := b.from.Read(b.buf[waiting:cap(b.buf)])
	b.buf = b.buf[:waiting+n]
	b.w.fed(n)
	b.w.pause() // who reads this may take its time
	b.left -= int64(n)
	switch {
	case bytes.Contains(b.buf, b.key):
		b.buf, err = nil, ErrHoldsKey
	case b.left < 0:
		b.buf, err = nil, errTooLarge
	}
	b.err, b.clear = b.failure(err), len(b.buf)
	if err != nil {
		b.end()
	} else {
		b.clear -= begun(b.buf, b.key)
	}
}

// failure reduces an error to what may be logged.
func (b *forwardedBody) failure(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, ErrHoldsKey), errors.Is(err, errTooLarge):
		return err
	default:
		return cause(late(b.ctx, err))
	}
}

// begun returns how many bytes of the key, but not all, are at the end of b.
func begun(b, key []byte) int {
	for n := min(len(key)-1, len(b)); n > 0; n-- {
		if bytes.HasPrefix(key, b[len(b)-n:]) {
			return n
		}
	}
	return 0
}

// Close ends the call.
func (b *forwardedBody) Close() error {
	err := b.from.Close()
	b.end()
	if err != nil {
		return fmt.Errorf("end a call: %w", err)
	}
	return nil
}
