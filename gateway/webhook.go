package gateway

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// IsWebhook reports whether a path accepts webhooks.
func IsWebhook(path string) bool {
	if path == "/v1/webhooks/liveblocks" || path == "/api/liveblocks-webhook" {
		return true
	}
	project, ok := projectOf(path)
	return ok && strings.IndexByte(project, '/') < 0
}

// slashAtEnd refuses a delivery to a path with a slash at its end, and tells of it
// once: only the sender sees the response.
func (g *Gateway) slashAtEnd(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	g.toldSlash.Do(func() {
		g.log.WarnContext(ctx, "deliveries go to a path with a slash at its end and are refused; remove the slash "+
			"from the endpoint's URL")
	})
	g.refuseWebhook(w, slashAtEnd)
}

// projectOf returns the project that a path names.
func projectOf(path string) (project string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v1/projects/")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "/webhooks/liveblocks")
}

// noBody is the field of a delivery that the query cannot set.
var noBody = utilities.NewDoubleArray([][]string{{"body"}})

// webhook receives a delivery. Its credential is the signature, which only the
// service can verify.
//
// This path must be fast, so it implements what the generated handlers do for other
// calls. A test keeps the two equal.
func (g *Gateway) webhook(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		g.wrongMethod(w, http.MethodPost)
		return
	}
	if g.deliver != nil {
		if err := g.deliver(r); err != nil {
			g.answerFailure(r.Context(), w, nil, err, true)
			return
		}
	}
	md, ok := webhookMetadata(r)
	if !ok {
		g.refuseWebhook(w, signatureUnprintable)
		return
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		// The signature covers the bytes before a proxy has packed them.
		g.refuseWebhook(w, bodyEncoded)
		return
	}
	if !g.storable(r.URL.Path) {
		g.refuseWebhook(w, pathInvalid)
		return
	}
	query, p := g.parseQuery(r.URL.RawQuery)
	if p != nil {
		g.refuseWebhook(w, *p)
		return
	}
	data, p := g.readBody(w, r, g.maxBody)
	if p != nil {
		g.refuseWebhook(w, *p)
		return
	}
	var header metadata.MD
	var resp *mirrorv1.ReceiveWebhookResponse
	var answer []byte
	ctx, req, err := g.webhookCall(metadata.NewOutgoingContext(r.Context(), md), r, query, data)
	if err == nil {
		resp, err = g.events.ReceiveWebhook(ctx, req, grpc.Header(&header))
	}
	if err == nil {
		answer, err = g.receipts.json(resp)
	}
	if err != nil {
		g.answerFailure(ctx, w, header, err, true)
		return
	}
	if ids := header["x-request-id"]; len(ids) > 0 {
		w.Header()["X-Request-Id"] = ids
	}
	writeJSON(w, http.StatusOK, answer)
}

// webhookCall returns the call that passes a delivery to the service.
func (g *Gateway) webhookCall(ctx context.Context, r *http.Request, query url.Values, data []byte) (context.Context,
	*mirrorv1.ReceiveWebhookRequest, error,
) {
	if timeout, ok := r.Header["Grpc-Timeout"]; ok {
		// Only grpc-gateway knows its format. The context it derives ends with the
		// request's.
		annotated, err := runtime.AnnotateContext(ctx, g.mux, &http.Request{Header: http.Header{"Grpc-Timeout": timeout}},
			mirrorv1.EventService_ReceiveWebhook_FullMethodName)
		if err != nil {
			return ctx, nil, err
		}
		ctx = annotated
	}
	req := &mirrorv1.ReceiveWebhookRequest{Body: &httpbody.HttpBody{Data: data}}
	if project, ok := projectOf(r.URL.Path); ok {
		req.ProjectId = project
	} else if err := runtime.PopulateQueryParameters(req, query, noBody); err != nil {
		return ctx, nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return ctx, req, nil
}
