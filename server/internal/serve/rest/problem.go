package rest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// problem is a failure in the form of Liveblocks, of which their clients make a
// LiveblocksError: its message, and the suggestion as details.
type problem struct {
	status     int
	Code       string `json:"error"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
	// allow is the header Allow, retry when to try again.
	allow string
	retry time.Duration
}

// Error returns the message.
func (p *problem) Error() string { return p.Message }

// The codes of what the mirror does not hold.
const (
	codeNotMirrored    = "NOT_MIRRORED"
	codeNotMirroredYet = "NOT_MIRRORED_YET"
)

// codeReadOnly is the code of writes that are not done.
const codeReadOnly = "READ_ONLY_MIRROR"

// refused reports whether a write failed because the mirror alone does not do it.
func refused(err error) bool {
	p, ok := err.(*problem) //nolint:errorlint // it is never wrapped
	return ok && p.Code == codeReadOnly
}

func logError(err error) slog.Attr { return slog.Any("error", err) }

func roomMissing(id string) *problem {
	return &problem{
		status: http.StatusNotFound, Code: "ROOM_NOT_FOUND",
		Message: fmt.Sprintf("Room with id %q not found.", id),
	}
}

func resourceMissing(what string) *problem {
	return &problem{status: http.StatusNotFound, Code: "RESOURCE_NOT_FOUND", Message: what + " not found"}
}

func pathMissing(path string) *problem {
	p := &problem{status: http.StatusNotFound, Code: "NOT_FOUND", Message: "There is no such call."}
	if strings.HasPrefix(path, Prefix+"c/") {
		p.Message = "This is a call of browsers, which talk to Liveblocks itself."
		p.Suggestion = "Set the baseUrl of the mirror in the code of servers only, not in createClient or LiveblocksProvider."
	}
	return p
}

func methodMissing(methods []string) *problem {
	return &problem{
		status: http.StatusMethodNotAllowed, Code: "METHOD_NOT_ALLOWED", Message: "There is no such call.",
		allow: allowed(methods),
	}
}

// readOnly refuses a write to a path with these other methods. Its status is one after
// which nothing is tried again.
func readOnly(r *http.Request, methods []string) *problem {
	return &problem{
		status: http.StatusMethodNotAllowed, Code: codeReadOnly, allow: allowed(methods),
		Message:    "This is a read-only mirror: " + r.Method + " " + r.URL.EscapedPath() + " was not done.",
		Suggestion: "Send writes to Liveblocks, with a client without the baseUrl of the mirror, or set MIRROR_REST=write.",
	}
}

// notMirrored refuses a read of what the mirror does not hold.
func notMirrored(r *http.Request) *problem {
	return &problem{
		status: http.StatusNotImplemented, Code: codeNotMirrored,
		Message:    "The mirror does not hold what GET " + r.URL.EscapedPath() + " reads.",
		Suggestion: "Read it from Liveblocks, with a client without the baseUrl of the mirror.",
	}
}

// parameterInvalid refuses a call because of what is in the query of its URL.
func parameterInvalid(message string) *problem {
	return &problem{status: http.StatusUnprocessableEntity, Code: "UNPROCESSABLE_ENTITY", Message: message}
}

// unreadable refuses a read of something that the mirror holds and cannot give in this form.
func unreadable() *problem {
	return &problem{
		status: http.StatusNotImplemented, Code: codeNotMirrored,
		Message:    "The mirror holds this, but it is too large for this call or cannot be turned into this format.",
		Suggestion: "Read it from Liveblocks, with a client without the baseUrl of the mirror.",
	}
}

// never says that something may exist at Liveblocks and will not be fetched.
func never(what string) *problem {
	return &problem{
		status: http.StatusNotImplemented, Code: codeNotMirrored, Message: "The mirror does not hold " + what + ".",
		Suggestion: "Read it from Liveblocks, with a client without the baseUrl of the mirror.",
	}
}

// unfetched says why there is no copy of something: it has not been fetched yet, or cannot
// be.
func (h *Handler) unfetched(r *request, of mirror.Resource, what string) error {
	task, known, err := h.state(r, of)
	if err != nil {
		return err
	}
	if known && task.State == mirror.TaskFailed {
		return never(what)
	}
	return notYet(what)
}

// state returns the task of a resource, which is named without its project. Its caller has
// seen that it may know of it.
func (h *Handler) state(r *request, of mirror.Resource) (task mirror.Task, known bool, err error) {
	return h.cfg.State(r.ctx, h.of(r, of))
}

// of returns a resource, which is named without its project, with that of the call.
func (h *Handler) of(r *request, resource mirror.Resource) mirror.Resource {
	resource.Project = mirror.ProjectID(r.project)
	return resource
}

// notYet says that something exists and has not been fetched.
func notYet(what string) *problem {
	return &problem{
		status: http.StatusServiceUnavailable, Code: codeNotMirroredYet, retry: time.Second,
		Message: "The mirror has not fetched " + what + " yet.", Suggestion: "Try again in a moment.",
	}
}

// reasonOf returns the reason of a gRPC status, and when to try again.
func reasonOf(err error) (reason fault.Reason, retry time.Duration) {
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = fault.Reason(d.GetReason())
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration()
		}
	}
	return reason, retry
}

// absentHere reports whether a call failed because there is nothing with these ids, which
// may be ids that nothing has.
func absentHere(err error) bool {
	switch status.Code(err) {
	case codes.NotFound:
		return true
	case codes.InvalidArgument:
		reason, _ := reasonOf(err)
		return reason == fault.ReasonRequestInvalid || reason == fault.ReasonIDInvalid
	default:
		return false
	}
}

// problemOf puts the failure of a call into Liveblocks' form.
func problemOf(r *http.Request, err error) *problem {
	if p, ok := err.(*problem); ok { //nolint:errorlint // it is never wrapped
		return p
	}
	st := status.Convert(err)
	reason, retry := reasonOf(err)
	p := &problem{Message: st.Message(), retry: retry}
	switch reason {
	case fault.ReasonCredentialMissing:
		p.status, p.Code, p.Message = http.StatusUnauthorized, "MISSING_SECRET_KEY", "Missing secret key"
		return p
	case fault.ReasonCredentialInvalid, fault.ReasonCredentialExpired:
		p.status, p.Code = http.StatusForbidden, "INVALID_SECRET_KEY"
		if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer pk_") {
			p.Code = "INVALID_PUBLIC_KEY"
		}
		p.Message = "Invalid secret key: " + p.Message
		p.Suggestion = "Use a key of the mirror, which `liveblocks-mirror keys new` makes, not one of Liveblocks."
		return p
	case fault.ReasonProjectUnknown:
		p.status, p.Code = http.StatusForbidden, "FORBIDDEN"
		p.Message = "The key must be of exactly one project, because the paths of this API name none."
		p.Suggestion = "Make a key for each project."
		return p
	case fault.ReasonProjectPaused, fault.ReasonUpstreamRateLimited:
		// The words of an operator are for operators.
		p.status, p.Code = http.StatusServiceUnavailable, "UNAVAILABLE"
		p.Message = "The call was not made: calls to Liveblocks are paused, or wait for it."
		p.retry = max(p.retry, time.Second)
		return p
	case fault.ReasonPageTokenInvalid, fault.ReasonPageTokenMismatch:
		p.status, p.Code = http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY"
		p.Message = "startingAfter is not a nextCursor of this list."
		return p
	default: // the code decides
	}
	switch st.Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		p.status, p.Code = http.StatusForbidden, "FORBIDDEN"
	case codes.ResourceExhausted:
		p.status, p.Code = http.StatusTooManyRequests, "TOO_MANY_REQUESTS"
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		p.status, p.Code = http.StatusServiceUnavailable, "UNAVAILABLE"
		p.retry = max(p.retry, time.Second)
	case codes.InvalidArgument:
		p.status, p.Code = http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY"
	case codes.NotFound:
		p.status, p.Code = http.StatusNotFound, "RESOURCE_NOT_FOUND"
	case codes.FailedPrecondition:
		return unreadable()
	default:
		// Its text may be about the inside.
		p.status, p.Code, p.Message = http.StatusInternalServerError, "INTERNAL", "internal error"
	}
	return p
}

// fail answers with a failure.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(r, err)
	header := w.Header()
	if p.status == http.StatusInternalServerError {
		id := rand.Text()
		header.Set("X-Request-Id", id)
		h.cfg.Logger.WarnContext(r.Context(), "a call of the REST API failed", slog.String("request_id", id),
			logError(err))
	}
	body, _ := json.Marshal(p)             // of strings
	for _, name := range headersOfCopies { // the answer that failed may have begun
		header.Del(name)
	}
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", jsonType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if p.allow != "" {
		header.Set("Allow", p.allow)
	}
	if p.retry > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retry.Seconds()))))
	}
	if p.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(body) // a failed write: the reader is gone
}
