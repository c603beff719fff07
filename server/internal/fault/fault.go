// Package fault describes failures that leave the service: a kind that decides the
// status code, a reason that programs can branch on, and a sentence for people. The
// cause is only logged.
package fault

import (
	"errors"
	"time"
)

// Kind classifies a failure by what the caller can do about it. It alone determines
// the gRPC and HTTP status.
type Kind int

// The kinds. Internal is the zero value, so an unclassified error never passes for
// a mistake of the caller.
const (
	Internal     Kind = iota // a defect of the service; the cause is logged and hidden
	Invalid                  // the request can never succeed
	Unauthentic              // signature or credential is missing or wrong
	NotFound                 // the resource does not exist
	Precondition             // the request is valid, but the state does not allow it
	Busy                     // a limit is reached; try again later
	Unavailable              // a dependency is down; try again
	Forbidden                // the caller is known and may not do this
	Gone                     // the place in a feed that the request names is not there any more
)

// Reason names one failure in UPPER_SNAKE_CASE.
type Reason string

// The reasons of the API. Each is a value of its enum ErrorReason; a test holds
// the two lists equal.
const (
	ReasonInternal                Reason = "INTERNAL"
	ReasonRequestInvalid          Reason = "REQUEST_INVALID"
	ReasonIDInvalid               Reason = "ID_INVALID"
	ReasonProjectUnknown          Reason = "PROJECT_UNKNOWN"
	ReasonPageTokenInvalid        Reason = "PAGE_TOKEN_INVALID"
	ReasonPageTokenMismatch       Reason = "PAGE_TOKEN_MISMATCH"
	ReasonCredentialMissing       Reason = "CREDENTIAL_MISSING"
	ReasonCredentialInvalid       Reason = "CREDENTIAL_INVALID"
	ReasonSignatureMissing        Reason = "SIGNATURE_MISSING"
	ReasonSignatureInvalid        Reason = "SIGNATURE_INVALID"
	ReasonTimestampOutOfTolerance Reason = "TIMESTAMP_OUT_OF_TOLERANCE"
	ReasonPayloadTooLarge         Reason = "PAYLOAD_TOO_LARGE"
	ReasonRoomNotMirrored         Reason = "ROOM_NOT_MIRRORED"
	ReasonDocumentNotMirrored     Reason = "DOCUMENT_NOT_MIRRORED"
	ReasonEventNotFound           Reason = "EVENT_NOT_FOUND"
	ReasonTaskNotFound            Reason = "TASK_NOT_FOUND"
	ReasonTaskNotRetryable        Reason = "TASK_NOT_RETRYABLE"
	ReasonTaskNotDiscardable      Reason = "TASK_NOT_DISCARDABLE"
	ReasonDocumentTooLarge        Reason = "DOCUMENT_TOO_LARGE"
	ReasonDocumentUnreadable      Reason = "DOCUMENT_UNREADABLE"
	ReasonStoreUnavailable        Reason = "STORE_UNAVAILABLE"
	ReasonSchemaBehind            Reason = "SCHEMA_BEHIND"
	ReasonAcceptQueueFull         Reason = "ACCEPT_QUEUE_FULL"
	ReasonShuttingDown            Reason = "SHUTTING_DOWN"
	ReasonProjectPaused           Reason = "PROJECT_PAUSED"
	ReasonRefreshFailed           Reason = "REFRESH_FAILED"
	ReasonSyncFailed              Reason = "SYNC_FAILED"
	ReasonUpstreamNotFound        Reason = "UPSTREAM_NOT_FOUND"
	ReasonUpstreamAccessDenied    Reason = "UPSTREAM_ACCESS_DENIED"
	ReasonUpstreamRateLimited     Reason = "UPSTREAM_RATE_LIMITED"
	ReasonUpstreamUnavailable     Reason = "UPSTREAM_UNAVAILABLE"
	ReasonUpstreamAnswerTooLarge  Reason = "UPSTREAM_ANSWER_TOO_LARGE"
	ReasonUpstreamAnswerInvalid   Reason = "UPSTREAM_ANSWER_INVALID"
	ReasonEventIDInvalid          Reason = "EVENT_ID_INVALID"
	ReasonRouteNotFound           Reason = "ROUTE_NOT_FOUND"
	ReasonMethodNotAllowed        Reason = "METHOD_NOT_ALLOWED"
	ReasonThreadNotMirrored       Reason = "THREAD_NOT_MIRRORED"
	ReasonCommentNotMirrored      Reason = "COMMENT_NOT_MIRRORED"
	ReasonFlowNotFound            Reason = "FLOW_NOT_FOUND"
	ReasonGroupNotMirrored        Reason = "GROUP_NOT_MIRRORED"
	ReasonUpstreamUnsupported     Reason = "UPSTREAM_UNSUPPORTED"
	ReasonStoreLimitExceeded      Reason = "STORE_LIMIT_EXCEEDED"
	ReasonScopeMissing            Reason = "SCOPE_MISSING"
	ReasonRoomsLimited            Reason = "ROOMS_LIMITED"
	ReasonCredentialExpired       Reason = "CREDENTIAL_EXPIRED"
	ReasonCredentialsLimited      Reason = "CREDENTIALS_LIMITED"
	ReasonAddressNotAllowed       Reason = "ADDRESS_NOT_ALLOWED"
	ReasonIssuerUnavailable       Reason = "ISSUER_UNAVAILABLE"
	ReasonChangeTokenInvalid      Reason = "CHANGE_TOKEN_INVALID"
	ReasonChangeTokenMismatch     Reason = "CHANGE_TOKEN_MISMATCH"
	ReasonChangeTokenExpired      Reason = "CHANGE_TOKEN_EXPIRED"
	ReasonChangeTokenAhead        Reason = "CHANGE_TOKEN_AHEAD"
	ReasonWatcherTooSlow          Reason = "WATCHER_TOO_SLOW"
	ReasonWatchersLimited         Reason = "WATCHERS_LIMITED"
	ReasonRoomNotDeleted          Reason = "ROOM_NOT_DELETED"
)

// Reasons finer than those of the API, for decisions; see [Reason.Public].
const (
	// ReasonUpstreamRoomNotFound: Liveblocks says that it has no such room.
	ReasonUpstreamRoomNotFound Reason = "UPSTREAM_ROOM_NOT_FOUND"
	// ReasonUpstreamResourceNotFound: Liveblocks says that it has no such resource.
	ReasonUpstreamResourceNotFound Reason = "UPSTREAM_RESOURCE_NOT_FOUND"
	// ReasonUpstreamCursorInvalid: Liveblocks does not continue a list from this cursor.
	ReasonUpstreamCursorInvalid Reason = "UPSTREAM_CURSOR_INVALID"
	// ReasonUpstreamOutage: Liveblocks as a whole is in trouble, so no task is to blame.
	ReasonUpstreamOutage Reason = "UPSTREAM_OUTAGE"
	// ReasonTaskKillsProcess: the process ended each time that the task ran.
	ReasonTaskKillsProcess Reason = "TASK_KILLS_PROCESS"
)

// Public returns the reason of the API that r is, or is a case of.
func (r Reason) Public() Reason {
	switch r {
	case ReasonUpstreamRoomNotFound, ReasonUpstreamResourceNotFound:
		return ReasonUpstreamNotFound
	case ReasonUpstreamCursorInvalid:
		return ReasonUpstreamAnswerInvalid
	case ReasonUpstreamOutage:
		return ReasonUpstreamUnavailable
	case ReasonTaskKillsProcess:
		return ReasonInternal
	default:
		return r
	}
}

// Error is a classified failure. Error() is for operators and includes the cause;
// Public is for callers.
type Error struct {
	Kind   Kind
	Reason Reason
	// Public is one sentence for the caller: no secrets, no payloads, no driver
	// text.
	Public string
	// Meta holds the reason's documented metadata keys. It is for display: no decision
	// may rest on it.
	Meta map[string]string
	// Fields lists every bad field of an invalid request at once.
	Fields []Field
	// RetryAfter is how long to wait before trying again; zero means unknown.
	RetryAfter time.Duration
	// Err is the cause, for the log.
	Err error
}

// Field is one bad field of a request.
type Field struct {
	Path    string
	Problem string
}

// New returns a failure without a cause.
func New(kind Kind, reason Reason, public string) *Error {
	return &Error{Kind: kind, Reason: reason, Public: public}
}

// Wrap returns a failure caused by err.
func Wrap(err error, kind Kind, reason Reason, public string) *Error {
	return &Error{Kind: kind, Reason: reason, Public: public, Err: err}
}

// With adds a metadata entry and returns e.
func (e *Error) With(key, value string) *Error {
	if e.Meta == nil {
		e.Meta = make(map[string]string, 1)
	}
	e.Meta[key] = value
	return e
}

// After sets RetryAfter and returns e.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

// Error returns the public sentence and the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Public
	}
	return e.Public + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Of returns the outermost classified failure in err's chain. It wraps an
// unclassified error as Internal.
func Of(err error) *Error {
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	return &Error{Kind: Internal, Reason: ReasonInternal, Public: "internal error", Err: err}
}

// Is reports whether err is classified with the given reason, or with a finer one
// that is a case of it.
func Is(err error, reason Reason) bool {
	f, ok := errors.AsType[*Error](err)
	return ok && (f.Reason == reason || f.Reason.Public() == reason)
}

// Translate returns f, caused by err, if err is target and not classified yet, and
// err otherwise.
func Translate(err, target error, f *Error) error {
	if _, classified := errors.AsType[*Error](err); classified || !errors.Is(err, target) {
		return err
	}
	f.Err = err
	return f
}
