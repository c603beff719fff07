package liveblocks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// call is what is asked of Liveblocks.
type call struct {
	op, path string
	check    checkFunc
	// stream reads a body of any length while it arrives, in place of check.
	stream func(body io.Reader) error
	// once means that further attempts would do harm.
	once bool
	// decides means that its failure stops all other calls.
	decides bool
}

const (
	// minThroughput is the least number of bytes a second of a body that takes longer
	// than [Config.Timeout].
	minThroughput = 64 << 10
	// firstBuffer is the buffer for a body of unknown length.
	firstBuffer = 64 << 10
)

// timeoutError is the cause of calls that were cut off. It is not a context's error,
// which would be the caller's.
type timeoutError struct{ problem string }

func (e *timeoutError) Error() string { return e.problem }

// watchdog cuts a call off when nothing has arrived for its patience, and when the body
// takes too long for what has arrived.
type watchdog struct {
	patience time.Duration
	timer    *time.Timer
	slowAt   time.Time // when the body is too slow, with what has arrived
	paused   time.Time // since when nothing is waited for
	cut      context.CancelCauseFunc
}

// pause says that nothing is waited for until resume is called.
func (w *watchdog) pause() {
	w.timer.Stop()
	w.paused = time.Now()
}

// resume ends a pause, which is not part of the body's time.
func (w *watchdog) resume() {
	w.slowAt = w.slowAt.Add(time.Since(w.paused))
	w.timer.Reset(w.patience)
}

// watch starts a watchdog, and returns the context that it cuts off. stop must be
// called.
func (c *Client) watch(ctx context.Context) (watched context.Context, w *watchdog, stop func()) {
	patience := c.cfg.Timeout
	if doubled := c.cfg.IdleTimeout << min(mirror.AttemptsOf(ctx), 16); doubled > 0 {
		patience = min(patience, doubled)
	}
	return c.watchFor(ctx, patience)
}

// watchFor starts a watchdog with some patience.
func (c *Client) watchFor(ctx context.Context, patience time.Duration) (watched context.Context, w *watchdog,
	stop func(),
) {
	watched, cut := context.WithCancelCause(ctx)
	w = &watchdog{patience: patience, cut: cut, slowAt: time.Now().Add(c.cfg.Timeout)}
	w.timer = time.AfterFunc(patience, func() {
		cut(&timeoutError{fmt.Sprintf("nothing arrived within %v", patience)})
	})
	return watched, w, func() { w.timer.Stop(); cut(nil) }
}

// fed notes that bytes of the body have arrived.
func (w *watchdog) fed(n int) {
	w.slowAt = w.slowAt.Add(time.Duration(n) * (time.Second / minThroughput))
	if time.Now().After(w.slowAt) {
		w.cut(&timeoutError{fmt.Sprintf("the body arrives at less than %d bytes a second", minThroughput)})
		return
	}
	w.timer.Reset(w.patience)
}

// attempt is one request and what came of it.
type attempt struct {
	resp *http.Response
	err  error
	// fetchTime is when it began, by the configured clock.
	fetchTime time.Time
	cancel    context.CancelFunc
	// number counts the attempts of a call from 0.
	number int
}

// discard drops an answer that is not needed.
func (a *attempt) discard() {
	a.cancel()
	if a.err == nil {
		_ = a.resp.Body.Close() // nothing is read
	}
}

// send makes one call, classifies the response, and tells of it.
func (c *Client) send(ctx context.Context, call call) (mirror.Fetched, result) {
	ctx, span := tracing.BeginCall(ctx, call.op)
	begun := time.Now()
	got, r := c.sendOnce(ctx, call)
	span.Set("mirror.code", r.word())
	span.End(r.err)
	if c.cfg.Called != nil {
		c.cfg.Called(Call{Route: strings.ReplaceAll(call.op, " ", "_"), Code: r.word(), Took: time.Since(begun)})
	}
	return got, r
}

func (c *Client) sendOnce(ctx context.Context, call call) (mirror.Fetched, result) {
	watched, w, stop := c.watch(ctx)
	defer stop()
	first, err := c.request(watched, call)
	if err != nil {
		err = fault.Wrap(fmt.Errorf("%s: build request", call.op), fault.Internal, fault.ReasonInternal, "internal error")
		return mirror.Fetched{}, result{outcome: outcomeNoAnswer, err: err}
	}
	a := c.exchange(first, call)
	defer a.cancel()
	broken := func(outcome outcome, err error) result {
		if late, ok := errors.AsType[*timeoutError](context.Cause(watched)); ok {
			err = late
		}
		return c.broken(ctx, call.op, outcome, err)
	}
	if a.err != nil {
		return mirror.Fetched{}, broken(outcomeNoAnswer, a.err)
	}
	resp := a.resp
	defer func() { _ = resp.Body.Close() }() // nothing more is read

	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		if err != nil && !tellsByStatus(resp.StatusCode) {
			// The missing part says what was refused, and why.
			return mirror.Fetched{}, broken(outcomeTruncated, err)
		}
		return mirror.Fetched{}, c.refused(call.op, resp, body)
	}
	var body []byte
	if call.stream != nil {
		arriving := &arrival{ctx: watched, r: resp.Body, w: w, most: 2 * c.cfg.MaxBody}
		if err = call.stream(arriving); err != nil && arriving.err == nil && !errors.Is(err, errTooLarge) {
			return mirror.Fetched{}, invalidAnswer(call.op, resp.StatusCode, err)
		}
	} else {
		body, err = c.read(watched, resp, w)
	}
	switch {
	case errors.Is(err, errTooLarge):
		return mirror.Fetched{}, c.tooLarge(call.op)
	case err != nil:
		return mirror.Fetched{}, broken(outcomeTruncated, err)
	}
	if call.check == nil {
		return mirror.Fetched{FetchTime: a.fetchTime}, result{outcome: outcomeOK}
	}
	if err := call.check(resp.Header.Get("Content-Type"), body); err != nil {
		return mirror.Fetched{}, invalidAnswer(call.op, resp.StatusCode, err)
	}
	return mirror.Fetched{Body: body, FetchTime: a.fetchTime}, result{outcome: outcomeOK}
}

// request builds the request of a call.
func (c *Client) request(ctx context.Context, call call) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.BaseURL.url+call.path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+*c.cfg.SecretKey.secret)
	req.Header.Set("Accept", "application/json, application/octet-stream")
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	return req, nil
}

// maxAttempts is the number of attempts of a call that may be under way.
const maxAttempts = 3

// exchange sends a request, and again if the answer is late: some calls hang, and those
// that follow seldom do. The first answer counts. The other attempts are cancelled.
func (c *Client) exchange(req *http.Request, call call) *attempt {
	answers := make(chan *attempt, maxAttempts)
	var cancels []context.CancelFunc
	start := func() { //nolint:contextcheck // the request has the context
		ctx, cancel := context.WithCancel(req.Context())
		a := &attempt{fetchTime: c.cfg.Now(), cancel: cancel, number: len(cancels)}
		cancels = append(cancels, cancel)
		c.calls.Go(func() { // Close waits for it
			begin := time.Now()
			a.resp, a.err = c.http.Do(req.Clone(ctx)) //nolint:bodyclose // discard and send close it
			if a.err == nil {
				c.routes.answered(call.op, time.Since(begin), a.number)
			}
			answers <- a
		})
	}
	patience := c.routes.begin(call.op)
	late := time.NewTimer(patience)
	defer late.Stop()
	start()
	for pending := 1; ; {
		select {
		case <-late.C:
			if call.once || len(cancels) == maxAttempts || req.Context().Err() != nil {
				continue
			}
			late.Reset(patience) // also if it may not be tried again yet
			if c.limiter.calm() && c.routes.hedge(call.decides) {
				c.limiter.spend()
				start()
				pending++
			}
		case a := <-answers:
			switch pending--; {
			case pending == 0:
				return a
			case a.err != nil:
				a.discard() // another one may be answered
				continue
			}
			for n, cancel := range cancels {
				if n != a.number {
					cancel()
				}
			}
			c.calls.Go(func() {
				for range pending {
					(<-answers).discard()
				}
			})
			return a
		}
	}
}

// arrival is a body that is read while it arrives, and kept up to a size.
type arrival struct {
	ctx  context.Context //nolint:containedctx // io.Reader has none
	r    io.Reader
	w    *watchdog
	most int64 // the memory that it may take
	read int64
	has  int64 // the memory that it has
	err  error // of the body
}

func (a *arrival) Read(p []byte) (int, error) {
	if need := min(a.read+int64(len(p)), a.most); need > a.has {
		a.has = min(2*need, a.most)
		if a.err = a.w.await(a.ctx, a.has); a.err != nil {
			return 0, a.err
		}
	}
	n, err := a.r.Read(p)
	a.read += int64(n)
	a.w.fed(n)
	if err != nil && !errors.Is(err, io.EOF) {
		a.err = err
	}
	return n, err
}

// await waits for memory for n bytes of a body. That is not part of its time.
func (w *watchdog) await(ctx context.Context, n int64) error {
	w.pause()
	err := memory.ForReading(ctx, n)
	w.resume()
	return err
}

// errTooLarge means that a body exceeds the size limit.
var errTooLarge = errors.New("the body exceeds the size limit")

// read reads a body once there is memory for it. A body whose length is known gets a
// buffer of that length.
func (c *Client) read(ctx context.Context, resp *http.Response, w *watchdog) ([]byte, error) {
	if resp.ContentLength > c.cfg.MaxBody {
		return nil, errTooLarge
	}
	size := resp.ContentLength
	if size < 0 {
		size = min(firstBuffer, c.cfg.MaxBody+1)
	}
	if err := w.await(ctx, size); err != nil {
		return nil, err
	}
	body := make([]byte, 0, size)
	for {
		if len(body) == cap(body) {
			if resp.ContentLength >= 0 {
				// Read to the end, so that the connection can be used again.
				if _, err := resp.Body.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
					return nil, err
				}
				return body, nil
			}
			longer := min(2*int64(cap(body)), c.cfg.MaxBody+1)
			if err := w.await(ctx, int64(len(body))+longer); err != nil {
				return nil, err
			}
			grown := make([]byte, len(body), longer)
			copy(grown, body)
			body = grown
		}
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		w.fed(n)
		switch {
		case int64(len(body)) > c.cfg.MaxBody:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}
