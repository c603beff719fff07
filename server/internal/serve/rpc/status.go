package rpc

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// errorDomain is the domain of every ErrorInfo: the name of the proto package.
var errorDomain = string(mirrorv1.File_liveblocks_mirror_v1_error_reason_proto.Package())

// codeOf maps kinds of failure to status codes. It is the only such table.
var codeOf = [...]codes.Code{
	fault.Internal:     codes.Internal,
	fault.Invalid:      codes.InvalidArgument,
	fault.Unauthentic:  codes.Unauthenticated,
	fault.NotFound:     codes.NotFound,
	fault.Precondition: codes.FailedPrecondition,
	fault.Busy:         codes.ResourceExhausted,
	fault.Unavailable:  codes.Unavailable,
	fault.Forbidden:    codes.PermissionDenied,
	fault.Gone:         codes.OutOfRange,
}

// statusError is a failure with a status for the caller and a cause for the log.
// The cause is not in the error chain, so nothing can reveal it by accident.
type statusError struct {
	status *status.Status
	cause  error
}

// Error returns the text for the caller.
func (e *statusError) Error() string { return e.status.String() }

// GRPCStatus returns the status that gRPC sends.
func (e *statusError) GRPCStatus() *status.Status { return e.status }

// Refusal returns err as the status that a caller gets: for what is refused before a call.
func Refusal(ctx context.Context, err error) error { return toStatus(ctx, err) }

// toStatus is the only function that chooses a gRPC code. ctx must be that of the
// call: an internal deadline that expires is a failure of the service, not the
// caller's deadline.
func toStatus(ctx context.Context, err error) error {
	// Keep a status of gRPC itself, such as that of a broken stream. A status
	// deeper in the chain is internal.
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	f := classify(err)
	if ended := ctx.Err(); ended != nil && f.Kind == fault.Unavailable {
		if errors.Is(ended, context.DeadlineExceeded) {
			return &statusError{status: status.New(codes.DeadlineExceeded, "the deadline passed"), cause: err}
		}
		return &statusError{status: status.New(codes.Canceled, "the call was cancelled"), cause: err}
	}

	public := strings.ToValidUTF8(f.Public, "\uFFFD")
	info := &errdetails.ErrorInfo{Reason: string(f.Reason.Public()), Domain: errorDomain, Metadata: maps.Clone(f.Meta)}
	for key, value := range info.GetMetadata() {
		info.Metadata[key] = strings.ToValidUTF8(value, "\uFFFD")
	}
	details := []protoadapt.MessageV1{info}
	if f.Kind == fault.Internal {
		public = "internal error"
		details = append(details, &errdetails.RequestInfo{RequestId: requestID(ctx)})
	}
	if f.Kind == fault.Busy || f.Kind == fault.Unavailable {
		wait := f.RetryAfter
		if wait <= 0 {
			// Jitter, so callers that were refused together do not retry together.
			wait = time.Second + rand.N(4*time.Second)
		}
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	if len(f.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, field := range f.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: field.Path, Description: field.Problem, Reason: string(f.Reason.Public()),
			})
		}
		details = append(details, bad)
	}
	st := status.New(codeOf[f.Kind], public)
	if detailed, err := st.WithDetails(details...); err == nil {
		st = detailed
	}
	return &statusError{status: st, cause: err}
}

// classify returns the fault for err.
func classify(err error) *fault.Error {
	f := fault.Of(err)
	if f.Reason != fault.ReasonInternal || f.Kind != fault.Internal {
		return f
	}
	switch {
	case errors.Is(err, store.ErrSchemaBehind):
		return fault.Wrap(err, fault.Unavailable, fault.ReasonSchemaBehind,
			"the database's schema is older than the service needs: run migrate")
	case isContextError(err):
		return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "the operation took too long")
	}
	return f
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// invalidIDs returns the failure for ids that cannot be stored.
func invalidIDs(paths ...string) error {
	f := fault.New(fault.Invalid, fault.ReasonIDInvalid, "an id is not valid")
	for _, path := range paths {
		f.Fields = append(f.Fields, fault.Field{Path: path, Problem: "must be an id: valid UTF-8 without NUL"})
	}
	return f
}
