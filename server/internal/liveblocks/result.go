package liveblocks

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// outcome says how a call ended.
type outcome string

// The outcomes.
const (
	// outcomeOK: a usable response.
	outcomeOK outcome = "ok"
	// outcomeNotFound: status 404, of whatever kind.
	outcomeNotFound outcome = "not_found"
	// outcomeAccessDenied: the key has no access to this room.
	outcomeAccessDenied outcome = "access_denied"
	// outcomeForbidden: status 401, or 403 that is not about the room.
	outcomeForbidden outcome = "forbidden"
	// outcomeKeyRefused: the key itself is refused; the project is paused.
	outcomeKeyRefused outcome = "key_refused"
	// outcomeRateLimited: status 429.
	outcomeRateLimited outcome = "rate_limited"
	// outcomeServerError: status 5xx.
	outcomeServerError outcome = "server_error"
	// outcomeUnsupported: status 501 with an error of the API: this server has nothing
	// of the kind.
	outcomeUnsupported outcome = "unsupported"
	// outcomeNoAnswer: no connection, or no response in time.
	outcomeNoAnswer outcome = "no_answer"
	// outcomeTruncated: the response ended early.
	outcomeTruncated outcome = "truncated"
	// outcomeTooLarge: the response exceeds the size limit.
	outcomeTooLarge outcome = "too_large"
	// outcomeInvalid: the response is not the requested resource.
	outcomeInvalid outcome = "invalid"
	// outcomeCancelled: the caller's context ended first.
	outcomeCancelled outcome = "cancelled"
)

// result is the result of one call, for the caller and for the limiter.
type result struct {
	outcome outcome
	// status and code are those of the response; zero without one.
	status int
	code   string
	// retryAfter is how long Liveblocks asks to wait; zero if it does not say.
	retryAfter time.Duration
	// upstream means that the failure is not that of the resource, but of Liveblocks as
	// a whole; see [Client.judge].
	upstream bool
	// err is nil, a *fault.Error or wraps the caller's context error.
	err error
}

// word returns the status of the response, or why there is none that can be used.
func (r result) word() string {
	switch {
	case r.outcome == outcomeOK:
		return strconv.Itoa(cmp.Or(r.status, http.StatusOK))
	case r.status < http.StatusContinue, r.status == http.StatusOK, r.status > lastStatus:
		return string(r.outcome)
	default:
		return strconv.Itoa(r.status)
	}
}

// lastStatus is the last status code that HTTP has.
const lastStatus = 599

// answered reports whether the call shows that Liveblocks answers calls.
func (r result) answered() bool {
	switch r.outcome {
	case outcomeOK, outcomeNotFound, outcomeAccessDenied, outcomeTooLarge, outcomeUnsupported:
		return true
	default:
		return false
	}
}

// Codes with which Liveblocks refuses a call. Only this file reads them.
const (
	codeRoomAccess = "UNAUTHORIZED_ROOM_ACCESS" // 403: the key may not read the room
	// 404: there is no such room, or nothing of the kind in it. A 404 with another
	// code may come from a proxy or a wrong path and proves nothing.
	codeRoomNotFound     = "ROOM_NOT_FOUND"
	codeResourceNotFound = "RESOURCE_NOT_FOUND"
)

// keyCodes are the 403 codes that concern the key instead of one room. The last two
// are from the dev server.
var keyCodes = map[string]bool{
	"MISSING_SECRET_KEY": true,
	"WRONG_KEY_USED":     true,
	"INVALID_SECRET_KEY": true,
	"INVALID_PUBLIC_KEY": true,
	"Forbidden":          true,
	"Unauthorized":       true,
}

// tellsByStatus reports whether the status alone says what was refused, without the
// body.
func tellsByStatus(status int) bool {
	return status == http.StatusTooManyRequests ||
		status >= http.StatusInternalServerError && status != http.StatusNotImplemented
}

// refused classifies a response whose status is not 200.
func (c *Client) refused(op string, resp *http.Response, body []byte) result {
	status := resp.StatusCode
	raw := errorCode(body)
	code := sanitise(raw, status)

	switch {
	case status == http.StatusTooManyRequests:
		r := answered(op, outcomeRateLimited, status, code,
			fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "Liveblocks asks to slow down"))
		r.retryAfter = retryAfter(resp.Header, c.cfg.Now())
		return r
	case status == http.StatusNotImplemented && raw != "" && kinds[op] != 0:
		return answered(op, outcomeUnsupported, status, code, unsupportedFault(kinds[op]))
	case status >= http.StatusInternalServerError:
		r := answered(op, outcomeServerError, status, code,
			fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable, "Liveblocks reports a server error"))
		r.retryAfter = retryAfter(resp.Header, c.cfg.Now())
		return r
	case status == http.StatusUnauthorized, status == http.StatusForbidden && keyCodes[raw]:
		return answered(op, outcomeForbidden, status, code, fault.New(fault.Unavailable,
			fault.ReasonUpstreamUnavailable, "Liveblocks refuses the secret key for this call, but not for others"))
	case status == http.StatusForbidden && raw == codeRoomAccess:
		return answered(op, outcomeAccessDenied, status, code,
			fault.New(fault.Precondition, fault.ReasonUpstreamAccessDenied, "Liveblocks denies access to the room"))
	case status == http.StatusForbidden:
		// It may come from a firewall or be a new code. It proves nothing about the
		// room, so the task is retried until its last attempt.
		return answered(op, outcomeForbidden, status, code,
			fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable, "Liveblocks refused the call for an unknown reason"))
	case status == http.StatusNotFound:
		return answered(op, outcomeNotFound, status, code,
			fault.New(fault.NotFound, notFoundReason(raw), "Liveblocks has no such resource"))
	case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		return answered(op, outcomeInvalid, status, code, fault.New(fault.Unavailable, fault.ReasonUpstreamAnswerInvalid,
			"Liveblocks returned a redirect, which is not followed so that no other host gets the key"))
	default:
		return answered(op, outcomeInvalid, status, code,
			fault.New(fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, "Liveblocks returned an unexpected response"))
	}
}

// unsupportedFault is the failure of calls for a kind that the server does not have.
func unsupportedFault(kind mirror.Kind) *fault.Error {
	return fault.New(fault.Precondition, fault.ReasonUpstreamUnsupported, fmt.Sprintf(
		"this Liveblocks server does not support resources of kind %s", kind)).
		With("status", strconv.Itoa(http.StatusNotImplemented))
}

// notFoundReason returns the reason for what does not exist.
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

// cursorRefused is the result of a call for a later page of a list. A cursor can
// expire, and then retrying does not help.
func cursorRefused(op string, r result) result {
	f := fault.Of(r.err)
	refused := r.status >= http.StatusBadRequest && r.status < http.StatusInternalServerError
	if !refused || f.Kind == fault.Busy || r.outcome == outcomeForbidden {
		return r
	}
	return answered(op, r.outcome, r.status, r.code, fault.New(f.Kind, fault.ReasonUpstreamCursorInvalid,
		"Liveblocks refuses to continue the list"))
}

// answered adds the status and code of the response to f.
func answered(op string, outcome outcome, status int, code string, f *fault.Error) result {
	f.Err = fmt.Errorf("%s: status %d, code %s", op, status, code)
	return result{
		outcome: outcome, status: status, code: code,
		err: f.With("status", strconv.Itoa(status)).With("code", code),
	}
}

// keyRefused is the result that pauses the project.
func (c *Client) keyRefused(op string, status int, code string) result {
	reason := fmt.Sprintf("%s: status %d, code %s", op, status, code)
	return answered(op, outcomeKeyRefused, status, code, pausedFault(fault.Busy, reason).After(c.cfg.ProbeMin))
}

// pausedFault is the failure of calls during a pause. The reason is that of the status:
// what a call was refused with, or why the key must not be used.
func pausedFault(kind fault.Kind, reason string) *fault.Error {
	return fault.New(kind, fault.ReasonProjectPaused, "fetching is paused: "+reason)
}

// held is the failure of calls while the limiter is closed; nil if it is open.
func (c *Client) held() *fault.Error {
	reason, until := c.limiter.closed()
	switch left := time.Until(until); {
	case reason != "":
		return pausedFault(fault.Busy, reason).After(c.cfg.ProbeMin)
	case left > 0:
		return fault.New(fault.Busy, fault.ReasonUpstreamRateLimited,
			"waiting because Liveblocks asked for it, or is not available").After(left)
	default:
		return nil
	}
}

// notSent completes the failure of a call that was not made.
func notSent(op string, f *fault.Error) error {
	f.Err = fmt.Errorf("%s: not sent", op)
	return f
}

// broken classifies a call that ended without a complete response.
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
		public = "the response of Liveblocks ended early"
	}
	return result{outcome: outcome, err: fault.Wrap(fmt.Errorf("%s: %w", op, cause(err)),
		fault.Unavailable, fault.ReasonUpstreamUnavailable, public)}
}

// cause reduces err to what may be logged. Other errors of net/http can quote the
// server's response, and that could contain the key.
func cause(err error) error {
	if e, ok := errors.AsType[*timeoutError](err); ok {
		return e
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
		fault.Precondition, fault.ReasonUpstreamAnswerTooLarge, "the response of Liveblocks exceeds the size limit",
	).With("limit_bytes", strconv.FormatInt(c.cfg.MaxBody, 10))}
}

func invalidAnswer(op string, status int, err error) result {
	return result{outcome: outcomeInvalid, status: status, err: fault.Wrap(fmt.Errorf("%s: %w", op, err),
		fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, "the response of Liveblocks is not valid")}
}

// maxErrorBody limits what is read of an error response; real ones have about 100
// bytes.
const maxErrorBody = 64 << 10

// errorCode returns the error code in an error response, empty if it has none, such
// as a proxy's error page.
func errorCode(body []byte) string {
	v, err := rawjson.Parse(body)
	if err != nil {
		return ""
	}
	return v.Get("error").Exact() // a malformed code is no code
}

var codeForm = regexp.MustCompile(`^[A-Z_]{1,64}$`)

// sanitise returns code if it looks like a code, otherwise one made from status:
// text from a server is not repeated unchecked.
func sanitise(code string, status int) string {
	if codeForm.MatchString(code) {
		return code
	}
	return "HTTP_" + strconv.Itoa(status)
}

const (
	// minRetryAfter replaces a Retry-After of zero or in the past.
	minRetryAfter = time.Second
	// maxRetryAfter limits the effect of an odd header.
	maxRetryAfter = time.Hour
)

// retryAfter reads the Retry-After header, seconds or a date; zero means that there is
// none. A date is relative to the response's own Date, if present, so
// clocks need not agree.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		seconds = min(seconds, int64(maxRetryAfter/time.Second))
		return max(time.Duration(seconds)*time.Second, minRetryAfter)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), minRetryAfter), maxRetryAfter)
}
