package liveblocks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

const (
	// pingFor is how long a ping that failed answers further questions.
	pingFor = time.Second
	// routeWait limits after which time a resource is tried again while its route fails
	// for all: as long as the route has failed, but at least closeMin. Up to as much is
	// added at random.
	routeWait = 15 * time.Second
)

// judge decides whose failure a failed call is: that of the resource, or that of the
// whole upstream, which no task is to blame for. This is the only place that does.
//
//   - A 404, UNAUTHORIZED_ROOM_ACCESS, an answer over the size limit and 501, with which
//     the dev server answers what it lacks, are the resource's; the last also the kind's.
//   - A 429, and 503 that says when to come back, are the upstream's.
//   - Everything else can be either: a refused key, a server error, no answer, half an
//     answer, an answer that is not valid. A ping tells. If the ping is refused, the key
//     is; if it fails, so does the upstream. If it is answered, the failure is the
//     resource's, unless several resources of the kind have failed in a row, which is
//     trouble of the upstream too, though not of all of it.
//
// The call began at begun.
func (c *Client) judge(ctx context.Context, call call, begun time.Time, r result) result {
	switch r.outcome {
	case outcomeOK, outcomeNotFound, outcomeAccessDenied, outcomeTooLarge, outcomeUnsupported:
		c.routes.worked(call.op)
		return r
	case outcomeRateLimited, outcomeKeyRefused, outcomeCancelled:
		return r
	case outcomeServerError:
		if r.status == http.StatusNotImplemented {
			return r
		}
		if r.status == http.StatusServiceUnavailable && r.retryAfter > 0 {
			return upstreams(r)
		}
	case outcomeForbidden, outcomeNoAnswer, outcomeTruncated, outcomeInvalid:
	}
	var failing time.Duration
	if r.outcome != outcomeForbidden && r.outcome != outcomeInvalid {
		failing = c.routes.failed(call.op, call.path)
	}
	switch ping := c.pinged(ctx, begun); {
	case ping.outcome == outcomeKeyRefused:
		return c.keyRefused(call.op, r.status, r.code)
	case ping.outcome == outcomeRateLimited, ping.upstream:
		return upstreams(r)
	case failing > 0:
		f := outage(r.err)
		f.RetryAfter = failing + rand.N(failing)
		r.err = f
		return r
	}
	return r
}

// upstreams marks a failure as one of the whole upstream.
func upstreams(r result) result {
	r.upstream = true
	r.err = outage(r.err)
	return r
}

// outage returns the fault of a task that is not to blame for err.
func outage(err error) *fault.Error {
	cause := err
	f, ok := errors.AsType[*fault.Error](err)
	if ok {
		cause = f.Err
	}
	out := fault.Wrap(cause, fault.Unavailable, fault.ReasonUpstreamOutage, "Liveblocks is not available")
	if ok {
		out.Meta = f.Meta
	}
	return out
}

// Ping makes a call that only a valid key may make, even while the limiter is closed.
// A list of rooms concerns no particular room, so refusing it means refusing the
// project, whatever the response looks like.
func (c *Client) Ping(ctx context.Context) error { return c.ping(ctx).err }

func (c *Client) ping(ctx context.Context) result {
	const op = "ping"
	c.limiter.spend()
	_, r := c.send(ctx, call{op: op, path: "/v2/rooms?limit=1", check: checkPing, decides: true})
	switch r.outcome {
	case outcomeOK, outcomeRateLimited, outcomeKeyRefused, outcomeCancelled:
	case outcomeForbidden, outcomeAccessDenied:
		r = c.keyRefused(op, r.status, r.code)
	case outcomeNotFound, outcomeTooLarge, outcomeUnsupported, outcomeServerError, outcomeNoAnswer, outcomeTruncated,
		outcomeInvalid:
		r = upstreams(r)
	}
	c.note(ctx, &r)
	return r
}

// checkPing returns why body is no list of rooms. What is in the list does not matter:
// one odd room is no trouble of all.
func checkPing(_ string, body []byte) error {
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) || !bytes.Contains(body, []byte(`"data"`)) {
		return errors.New("the answer holds no list")
	}
	return nil
}

// pings shares pings between calls that fail at the same time.
type pings struct {
	busy  chan struct{} // of size 1, held during a ping
	begun time.Time     // of the last ping
	last  result
}

// pinged returns the result of a ping for a call that began at since and failed. It
// makes one unless one that began later was answered, or one of the last second failed:
// what was answered before the call says nothing about it.
func (c *Client) pinged(ctx context.Context, since time.Time) result {
	select {
	case c.pings.busy <- struct{}{}:
	case <-ctx.Done():
		return result{outcome: outcomeCancelled, err: fmt.Errorf("ping: %w", ctx.Err())}
	}
	defer func() { <-c.pings.busy }()
	begun := time.Now()
	known := c.pings.begun.After(since) || c.pings.last.err != nil && begun.Sub(c.pings.begun) <= pingFor
	if c.pings.begun.IsZero() || !known {
		r := c.ping(ctx)
		if r.outcome == outcomeCancelled {
			return r
		}
		c.pings.begun, c.pings.last = begun, r
	}
	return c.pings.last
}
