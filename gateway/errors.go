package gateway

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// errorDomain is the domain of every reason of the API.
var errorDomain = string(mirrorv1.File_liveblocks_mirror_v1_error_reason_proto.Package())

// problem describes why the gateway itself refuses a request.
type problem struct {
	http   int // zero for the status that corresponds to code
	code   codes.Code
	reason mirrorv1.ErrorReason // unspecified for none
	text   string
	retry  time.Duration // when to try again; zero if unknown
}

// invalid is a problem with the request itself.
func invalid(text string) problem {
	return problem{code: codes.InvalidArgument, reason: mirrorv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, text: text}
}

var (
	unknownPath = problem{
		code: codes.NotFound, reason: mirrorv1.ErrorReason_ERROR_REASON_ROUTE_NOT_FOUND,
		text: "this path does not exist",
	}
	notLocal = problem{
		code:   codes.PermissionDenied,
		reason: mirrorv1.ErrorReason_ERROR_REASON_CREDENTIAL_MISSING,
		text:   "no token is configured, so only requests to localhost are accepted",
	}
	signatureUnprintable = problem{
		code: codes.Unauthenticated, reason: mirrorv1.ErrorReason_ERROR_REASON_SIGNATURE_MISSING,
		text: "a signature header is not plain text",
	}
	bodyEncoded = problem{
		http: http.StatusUnsupportedMediaType, code: codes.InvalidArgument,
		reason: mirrorv1.ErrorReason_ERROR_REASON_REQUEST_INVALID,
		text:   "the body has a Content-Encoding; send it without one, as it was signed",
	}
	slashAtEnd = problem{
		code: codes.NotFound, reason: mirrorv1.ErrorReason_ERROR_REASON_ROUTE_NOT_FOUND,
		text: "this path does not exist; webhooks are taken without the slash at its end",
	}
	payloadTooLarge = problem{
		http: http.StatusRequestEntityTooLarge, code: codes.InvalidArgument,
		reason: mirrorv1.ErrorReason_ERROR_REASON_PAYLOAD_TOO_LARGE, text: "the body exceeds the size limit",
	}
	bodiesTooMany = problem{
		code: codes.Unavailable, reason: mirrorv1.ErrorReason_ERROR_REASON_ACCEPT_QUEUE_FULL,
		text: "too many request bodies are arriving at once", retry: time.Second,
	}
	bodyTooSlow = problem{
		http: http.StatusRequestTimeout, code: codes.DeadlineExceeded,
		reason: mirrorv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, text: "the body took too long to arrive",
	}
	bodyBroken   = invalid("the body ended early or is malformed")
	queryInvalid = invalid("the query string is malformed, or contains NUL or invalid UTF-8")
	pathInvalid  = problem{
		code: codes.InvalidArgument, reason: mirrorv1.ErrorReason_ERROR_REASON_ID_INVALID,
		text: "the path contains NUL or invalid UTF-8",
	}
)

// refuse responds with p.
func (g *Gateway) refuse(w http.ResponseWriter, p problem) {
	g.fail(w, p.http, p.status(), false)
}

// refuseWebhook responds to a delivery with p.
func (g *Gateway) refuseWebhook(w http.ResponseWriter, p problem) {
	g.fail(w, p.http, p.status(), true)
}

// wrongMethod responds with 405.
func (g *Gateway) wrongMethod(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	g.refuse(w, problem{
		http: http.StatusMethodNotAllowed, code: codes.Unimplemented,
		reason: mirrorv1.ErrorReason_ERROR_REASON_METHOD_NOT_ALLOWED, text: "the path takes " + allow + " only",
	})
}

func (p problem) status() *spb.Status {
	st := status.New(p.code, p.text).Proto()
	if p.reason != mirrorv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		st.Details = withReason(nil, p.reason)
	}
	if p.retry > 0 {
		st.Details = with(st.GetDetails(), &errdetails.RetryInfo{RetryDelay: durationpb.New(p.retry)})
	}
	return st
}

func withReason(details []*anypb.Any, reason mirrorv1.ErrorReason) []*anypb.Any {
	return with(details, &errdetails.ErrorInfo{
		Reason: strings.TrimPrefix(reason.String(), "ERROR_REASON_"), Domain: errorDomain,
	})
}

func with(details []*anypb.Any, detail proto.Message) []*anypb.Any {
	packed, err := anypb.New(detail)
	if err != nil {
		return details // ours always marshal
	}
	return append(details, packed)
}

// callFailed responds to a failed call. It is the mux's error handler.
func (g *Gateway) callFailed(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter,
	_ *http.Request, err error,
) {
	md, _ := runtime.ServerMetadataFromContext(ctx)
	g.answerFailure(ctx, w, md.HeaderMD, err, false)
}

// answerFailure responds to a call that failed after it had sent header.
func (g *Gateway) answerFailure(ctx context.Context, w http.ResponseWriter, header metadata.MD, err error,
	webhook bool,
) {
	if id := header.Get("x-request-id"); len(id) > 0 {
		w.Header().Set("X-Request-Id", id[0])
	}
	g.fail(w, 0, g.public(ctx, err), webhook)
}

// public returns what the caller may read of err. The service classifies its
// failures; an error without a reason comes from grpc-gateway, which could not
// decode the request, or from the connection.
func (g *Gateway) public(ctx context.Context, err error) *spb.Status {
	st := status.Convert(err).Proto()
	if info, _ := inspect(st); info != nil {
		return st
	}
	switch status.FromProto(st).Code() {
	case codes.InvalidArgument:
		st.Details = withReason(st.GetDetails(), mirrorv1.ErrorReason_ERROR_REASON_REQUEST_INVALID)
	case codes.Internal, codes.Unknown, codes.DataLoss:
		g.log.ErrorContext(ctx, "call failed without a reason", slog.Any("error", err))
		return problem{
			code: codes.Internal, reason: mirrorv1.ErrorReason_ERROR_REASON_INTERNAL,
			text: "internal error",
		}.status()
	case codes.Unavailable:
		// The text of the connection error names internal addresses.
		g.log.DebugContext(ctx, "service not reached", slog.Any("error", err))
		return problem{code: codes.Unavailable, text: "the service cannot be reached"}.status()
	default:
	}
	return st
}

// inspect returns the details of a status that determine the response.
func inspect(st *spb.Status) (info *errdetails.ErrorInfo, retry time.Duration) {
	for _, detail := range st.GetDetails() {
		m, err := detail.UnmarshalNew()
		if err != nil {
			continue // of a type this version does not know
		}
		switch d := m.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration()
		}
	}
	return info, retry
}

// fail responds with a status. If httpCode is zero, the status determines the code.
func (g *Gateway) fail(w http.ResponseWriter, httpCode int, st *spb.Status, webhook bool) {
	info, retry := inspect(st)
	if httpCode == 0 {
		httpCode = runtime.HTTPStatusFromCode(status.FromProto(st).Code())
		switch {
		case info.GetReason() == "PAYLOAD_TOO_LARGE":
			httpCode = http.StatusRequestEntityTooLarge
		case codes.Code(st.GetCode()) == codes.OutOfRange: //nolint:gosec // a code
			// A place in the feed that is not there any more: the client shall not try again.
			httpCode = http.StatusGone
		}
	}
	h := w.Header()
	switch httpCode {
	case http.StatusUnauthorized:
		// A webhook's credential is its signature, so do not ask for a token. Do
		// not make the sender give up either: a wrong secret can be corrected.
		if !webhook {
			h.Set("WWW-Authenticate", "Bearer")
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if retry > 0 {
			h.Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.Seconds()))))
		}
	}
	// Retrying cannot help with these two. The latter occurs only with a valid
	// signature.
	if webhook && (httpCode == http.StatusRequestEntityTooLarge || info.GetReason() == "EVENT_ID_INVALID") {
		h.Set("Webhook-Delivery", "abort-message")
	}
	st.Message = strings.ToValidUTF8(st.GetMessage(), "\ufffd") // it may quote the request
	data, err := protojson.Marshal(st)
	if err != nil { // a detail that this version does not know
		data, err = protojson.Marshal(&spb.Status{Code: st.GetCode(), Message: st.GetMessage()})
	}
	if err != nil {
		data = []byte(`{"code":13,"message":"internal error"}`)
	}
	h["Cache-Control"] = noStore
	writeJSON(w, httpCode, data)
}

// writeJSON responds with JSON. A failed write means that the client has gone, so
// there is nothing to report.
func writeJSON(w http.ResponseWriter, httpCode int, data []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(httpCode)
	_, _ = w.Write(data) //nolint:gosec // JSON, said to be nothing else
}
