package liveblocks

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// outcome says how a call ended.
type outcome string

// The outcomes.
const (
	// outcomeOK: an answer that can be used.
	outcomeOK outcome = "ok"
	// outcomeNotFound: status 404, of whatever kind.
	outcomeNotFound outcome = "not_found"
	// outcomeAccessDenied: this room is closed to the key.
	outcomeAccessDenied outcome = "access_denied"
	// outcomeForbidden: status 403 without a reason that is known.
	outcomeForbidden outcome = "forbidden"
	// outcomeKeyRefused: the key itself is refused; the project is paused.
	outcomeKeyRefused outcome = "key_refused"
	// outcomeRateLimited: status 429.
	outcomeRateLimited outcome = "rate_limited"
	// outcomeServerError: status 5xx.
	outcomeServerError outcome = "server_error"
	// outcomeNoAnswer: no connection, or no answer in time.
	outcomeNoAnswer outcome = "no_answer"
	// outcomeTruncated: the answer broke off.
	outcomeTruncated outcome = "truncated"
	// outcomeTooLarge: the answer is above the size limit.
	outcomeTooLarge outcome = "too_large"
	// outcomeInvalid: an answer that is not what was asked for.
	outcomeInvalid outcome = "invalid"
	// outcomeCancelled: the caller's context ended first.
	outcomeCancelled outcome = "cancelled"
	// outcomeHeld: not sent, because the limiter was closed.
	outcomeHeld outcome = "held"
)

// result is what one call came to, for the caller and for the limiter.
type result struct {
	outcome outcome
	// status and code are of the answer, zero without one.
	status int
	code   string
	// retryAfter is how long Liveblocks, or our own default, says to wait.
	retryAfter time.Duration
	// err is nil, a *fault.Error or wraps the caller's context error.
	err error
}

// Codes with which Liveblocks refuses a call. They are read here and nowhere else.
const (
	codeRoomAccess = "UNAUTHORIZED_ROOM_ACCESS" // 403: the key may not read the room
	// 404: there is no such room, or nothing of the kind in it. A 404 with another
	// code may come from a proxy or a wrong path and proves nothing.
	codeRoomNotFound     = "ROOM_NOT_FOUND"
	codeResourceNotFound = "RESOURCE_NOT_FOUND"
)

// keyCodes are the 403 codes that concern the key and not one room. The last
// two are the dev server's words.
var keyCodes = map[string]bool{
	"MISSING_SECRET_KEY": true,
	"WRONG_KEY_USED":     true,
	"INVALID_SECRET_KEY": true,
	"INVALID_PUBLIC_KEY": true,
	"Forbidden":          true,
	"Unauthorized":       true,
}

// refused judges an answer whose status is not 200.
func (c *Client) refused(ctx context.Context, op string, resp *http.Response) result {
	status := resp.StatusCode
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	raw := errorCode(body)
	code := sanitise(raw, status)
	after, told := retryAfter(resp.Header, c.cfg.Now())

	switch {
	case status == http.StatusTooManyRequests:
		if !told {
			after = defaultRetryAfter + rand.N(defaultRetryAfter)
		}
		r := answered(op, outcomeRateLimited, status, code,
			fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "Liveblocks asks to slow down").After(after))
		r.retryAfter = after
		return r
	case status >= http.StatusInternalServerError:
		r := answered(op, outcomeServerError, status, code,
			fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable, "Liveblocks has trouble answering").After(after))
		r.retryAfter = after
		return r
	case readErr != nil:
		// What was refused, and why, is in the part that did not arrive.
		return c.broken(ctx, op, outcomeTruncated, readErr)
	case status == http.StatusUnauthorized, status == http.StatusForbidden && keyCodes[raw]:
		return c.keyRefused(op, status, code)
	case status == http.StatusForbidden && raw == codeRoomAccess:
		return answered(op, outcomeAccessDenied, status, code,
			fault.New(fault.Precondition, fault.ReasonUpstreamAccessDenied, "Liveblocks denies access to the room"))
	case status == http.StatusForbidden:
		// It may come from a firewall on the way or be a code that is new. It
		// proves nothing about the room, so the task is retried and fails for
		// good only after its last attempt; whether everything is refused is
		// found out by a ping.
		return answered(op, outcomeForbidden, status, code,
			fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable, "Liveblocks refused the call without a known reason"))
	case status == http.StatusNotFound:
		return answered(op, outcomeNotFound, status, code,
			fault.New(fault.NotFound, notFoundReason(raw), "Liveblocks does not have it"))
	case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		return answered(op, outcomeInvalid, status, code, fault.New(fault.Unavailable, fault.ReasonUpstreamAnswerInvalid,
			"Liveblocks answered with a redirect, which is not followed so that the key stays with the configured host"))
	default:
		return answered(op, outcomeInvalid, status, code,
			fault.New(fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, "Liveblocks gave an unexpected answer"))
	}
}

// notFoundReason tells what Liveblocks says is not there.
func notFoundReason(code string) fault.Reason {
	switch code {
	case codeRoomNotFound:
		return fault.ReasonUpstreamRoomNotFound
	case codeResourceNotFound:
		return fault.ReasonUpstreamResourceNotFound
	default:
		return fault.ReasonUpstreamNotFound
	}
}

// cursorRefused is the result of a call for a later page of a list: a cursor need
// not be good for ever, and asking again would not help then.
func cursorRefused(op string, r result) result {
	f := fault.Of(r.err)
	refused := r.status >= http.StatusBadRequest && r.status < http.StatusInternalServerError
	if !refused || f.Kind == fault.Busy {
		return r
	}
	return answered(op, r.outcome, r.status, r.code, fault.New(f.Kind, fault.ReasonUpstreamCursorInvalid,
		"Liveblocks does not continue the list"))
}

// answered attaches to f what is known of the answer.
func answered(op string, outcome outcome, status int, code string, f *fault.Error) result {
	f.Err = fmt.Errorf("%s: status %d, code %s", op, status, code)
	return result{
		outcome: outcome, status: status, code: code,
		err: f.With("status", strconv.Itoa(status)).With("code", code),
	}
}

// keyRefused is the result that pauses the project.
func (c *Client) keyRefused(op string, status int, code string) result {
	return answered(op, outcomeKeyRefused, status, code, pausedFault().After(c.cfg.ProbeMin))
}

func pausedFault() *fault.Error {
	return fault.New(fault.Busy, fault.ReasonProjectPaused, "fetching is paused because Liveblocks refuses the secret key")
}

// held is the result on a call that the closed limiter keeps from being sent; its
// err is nil while the limiter is open.
func (c *Client) held(op string) result {
	reason, until := c.limiter.closed()
	var f *fault.Error
	switch left := time.Until(until); {
	case reason != "":
		f = pausedFault().After(c.cfg.ProbeMin)
	case left > 0:
		f = fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "waiting as Liveblocks asked").After(left)
	default:
		return result{}
	}
	f.Err = fmt.Errorf("%s: not sent", op)
	return result{outcome: outcomeHeld, err: f}
}

// broken judges a call that ended without a whole answer.
func (c *Client) broken(ctx context.Context, op string, outcome outcome, err error) result {
	ctxErr := ctx.Err()
	if d, ok := ctx.Deadline(); ok && ctxErr == nil && !time.Now().Before(d) {
		ctxErr = context.DeadlineExceeded // the connection noticed before the context did
	}
	if ctxErr != nil {
		return result{outcome: outcomeCancelled, err: fmt.Errorf("%s: %w", op, ctxErr)}
	}
	public := "Liveblocks cannot be reached"
	if outcome == outcomeTruncated {
		public = "the answer of Liveblocks broke off"
	}
	return result{outcome: outcome, err: fault.Wrap(fmt.Errorf("%s: %w", op, c.cause(err)),
		fault.Unavailable, fault.ReasonUpstreamUnavailable, public)}
}

// cause reduces err to what may be logged. The text of other errors of net/http
// can quote what the server sent, and a server could send back the key.
func (c *Client) cause(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no complete answer within %v", c.cfg.Timeout)
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.OpError](err); ok { // address lookups too
		return e
	}
	for _, known := range []error{io.ErrUnexpectedEOF, io.EOF, http.ErrSchemeMismatch} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errors.New("connection or protocol failure")
}

func (c *Client) tooLarge(op string) result {
	return result{outcome: outcomeTooLarge, err: fault.Wrap(
		fmt.Errorf("%s: more than %d bytes", op, c.cfg.MaxBody),
		fault.Precondition, fault.ReasonUpstreamAnswerTooLarge, "the answer of Liveblocks is above the size limit",
	).With("limit_bytes", strconv.FormatInt(c.cfg.MaxBody, 10))}
}

func invalidAnswer(op string, status int, err error) result {
	return result{outcome: outcomeInvalid, status: status, err: fault.Wrap(fmt.Errorf("%s: %w", op, err),
		fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, "the answer of Liveblocks cannot be used")}
}

// maxErrorBody bounds what is read of a refusal; a real one has some 100 bytes.
const maxErrorBody = 64 << 10

// errorCode returns the error code in a refusal, empty if it has none, as the
// page of a proxy.
func errorCode(body []byte) (code string) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) == nil {
		_ = json.Unmarshal(fields["error"], &code) // an odd form is no code
	}
	return code
}

var codeForm = regexp.MustCompile(`^[A-Z_]{1,64}$`)

// sanitise returns code if it is shaped like a code, else one made of status:
// what a server says is not repeated unseen.
func sanitise(code string, status int) string {
	if codeForm.MatchString(code) {
		return code
	}
	return "HTTP_" + strconv.Itoa(status)
}

const (
	// defaultRetryAfter, once or up to twice, is how long a 429 without
	// Retry-After closes the limiter. Liveblocks documents no window; its
	// management API counts by the minute, and the halved rate does the rest.
	defaultRetryAfter = 5 * time.Second
	// minRetryAfter stands in for a Retry-After of zero or in the past.
	minRetryAfter = time.Second
	// maxRetryAfter bounds what one odd header can do.
	maxRetryAfter = time.Hour
)

// retryAfter reads the Retry-After header, seconds or a date, and reports
// whether there is one. A date counts from the answer's own Date, if it has
// one, so that clocks need not agree.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		seconds = min(seconds, int64(maxRetryAfter/time.Second))
		return max(time.Duration(seconds)*time.Second, minRetryAfter), true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), minRetryAfter), maxRetryAfter), true
}
