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
const errorDomain = "liveblocks.mirror.v1"

// problem is why the gateway itself refuses a request.
type problem struct {
	http   int // zero for the one that goes with code
	code   codes.Code
	reason mirrorv1.ErrorReason // unspecified for none
	text   string
	retry  time.Duration // when to try again; zero for no word on it
}

// invalid is the caller's mistake.
func invalid(text string) problem {
	return problem{code: codes.InvalidArgument, reason: mirrorv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, text: text}
}

var (
	unknownPath = problem{code: codes.NotFound, reason: mirrorv1.ErrorReason_ERROR_REASON_ROUTE_NOT_FOUND,
		text: "there is nothing at this path"}
	credentialMissing = problem{code: codes.Unauthenticated, reason: mirrorv1.ErrorReason_ERROR_REASON_CREDENTIAL_MISSING,
		text: "a bearer token is needed"}
	credentialInvalid = problem{code: codes.Unauthenticated, reason: mirrorv1.ErrorReason_ERROR_REASON_CREDENTIAL_INVALID,
		text: "the bearer token is not valid"}
	notLocal = problem{code: codes.PermissionDenied,
		reason: mirrorv1.ErrorReason_ERROR_REASON_CREDENTIAL_MISSING,
		text:   "without a configured token, requests have to be made to localhost"}
	signatureRepeated = problem{code: codes.Unauthenticated, reason: mirrorv1.ErrorReason_ERROR_REASON_SIGNATURE_MISSING,
		text: "a signature header is repeated or not plain text"}
	payloadTooLarge = problem{http: http.StatusRequestEntityTooLarge, code: codes.InvalidArgument,
		reason: mirrorv1.ErrorReason_ERROR_REASON_PAYLOAD_TOO_LARGE, text: "the body is over the limit"}
	bodiesTooMany = problem{code: codes.Unavailable, reason: mirrorv1.ErrorReason_ERROR_REASON_ACCEPT_QUEUE_FULL,
		text: "too many bodies are arriving at once", retry: time.Second}
	bodyTooSlow = problem{http: http.StatusRequestTimeout, code: codes.DeadlineExceeded,
		reason: mirrorv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, text: "the body took too long to arrive"}
	bodyBroken   = invalid("the body ended early or is malformed")
	queryInvalid = invalid("the query string is malformed, or holds what is not UTF-8 or NUL")
	pathInvalid  = problem{code: codes.InvalidArgument, reason: mirrorv1.ErrorReason_ERROR_REASON_ID_INVALID,
		text: "the path holds what is not UTF-8 or NUL"}
)

// refuse answers with p.
func (g *Gateway) refuse(w http.ResponseWriter, p problem) {
	g.fail(w, p.http, p.status(), false)
}

// refuseWebhook answers a delivery with p.
func (g *Gateway) refuseWebhook(w http.ResponseWriter, p problem) {
	g.fail(w, p.http, p.status(), true)
}

// wrongMethod answers 405.
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

// callFailed answers for a call that failed. It has the form of the mux's error
// handler.
func (g *Gateway) callFailed(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter,
	_ *http.Request, err error) {
	md, _ := runtime.ServerMetadataFromContext(ctx)
	g.answerFailure(ctx, w, md.HeaderMD, err, false)
}

// answerFailure answers for a call that failed after it had sent header.
func (g *Gateway) answerFailure(ctx context.Context, w http.ResponseWriter, header metadata.MD, err error,
	webhook bool) {
	if id := header.Get("x-request-id"); len(id) > 0 {
		w.Header().Set("X-Request-Id", id[0])
	}
	g.fail(w, 0, g.public(ctx, err), webhook)
}

// public is what the caller may read of err. The service classifies its
// failures; what comes without a reason was made on the way, by grpc-gateway
// where the request could not be a message, or by the connection.
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
		return problem{code: codes.Internal, reason: mirrorv1.ErrorReason_ERROR_REASON_INTERNAL,
			text: "internal error"}.status()
	case codes.Unavailable:
		// The connection's text names addresses of ours.
		g.log.DebugContext(ctx, "service not reached", slog.Any("error", err))
		return problem{code: codes.Unavailable, text: "the service cannot be reached"}.status()
	default:
	}
	return st
}

// inspect returns the details of a status that decide how it is answered.
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

// fail answers with a status. Where httpCode is zero, the status decides.
func (g *Gateway) fail(w http.ResponseWriter, httpCode int, st *spb.Status, webhook bool) {
	info, retry := inspect(st)
	if httpCode == 0 {
		httpCode = runtime.HTTPStatusFromCode(status.FromProto(st).Code())
		if info.GetReason() == "PAYLOAD_TOO_LARGE" {
			httpCode = http.StatusRequestEntityTooLarge
		}
	}
	h := w.Header()
	switch httpCode {
	case http.StatusUnauthorized:
		// A webhook's credential is its signature; a token would not help it. Nor
		// is it told to give up: a wrong secret can be mended.
		if !webhook {
			h.Set("WWW-Authenticate", "Bearer")
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if retry > 0 {
			h.Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.Seconds()))))
		}
	}
	// These two no other attempt can mend. The latter is only said of a delivery
	// whose signature is good.
	if webhook && (httpCode == http.StatusRequestEntityTooLarge || info.GetReason() == "EVENT_ID_INVALID") {
		h.Set("Webhook-Delivery", "abort-message")
	}
	st.Message = strings.ToValidUTF8(st.GetMessage(), "\ufffd") // it may quote the request
	data, err := protojson.Marshal(st)
	if err != nil { // a detail this version does not know
		data, err = protojson.Marshal(&spb.Status{Code: st.GetCode(), Message: st.GetMessage()})
	}
	if err != nil {
		data = []byte(`{"code":13,"message":"internal error"}`)
	}
	h["Cache-Control"] = noStore
	writeJSON(w, httpCode, data)
}

// writeJSON answers with JSON. Whoever does not read the answer misses it, and
// that is all that can be said of a failure to write.
func writeJSON(w http.ResponseWriter, httpCode int, data []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(httpCode)
	_, _ = w.Write(data) //nolint:gosec // JSON, said to be nothing else
}
