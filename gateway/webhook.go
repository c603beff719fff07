package gateway

import (
	"net/http"
	"strings"
)

// isWebhook reports whether a path is one that takes webhooks.
func isWebhook(path string) bool {
	if path == "/v1/webhooks/liveblocks" || path == "/api/liveblocks-webhook" {
		return true
	}
	rest, ok := strings.CutPrefix(path, "/v1/projects/")
	if !ok {
		return false
	}
	project, ok := strings.CutSuffix(rest, "/webhooks/liveblocks")
	return ok && strings.IndexByte(project, '/') < 0
}

// webhook takes a delivery. The signature is its credential, and only the
// service can check it.
//
// It is the path that has to be fast, so what would cost on the way through the
// generated code is settled before: the headers are cut down to those that
// count, the form is parsed (it never is one), and the body is read.
func (g *Gateway) webhook(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		g.wrongMethod(w, http.MethodPost)
		return
	}
	header, ok := webhookHeader(r.Header)
	if !ok {
		g.refuseWebhook(w, signatureRepeated)
		return
	}
	if !storable(r.URL.Path) {
		g.refuseWebhook(w, pathInvalid)
		return
	}
	query, p := parseQuery(r.URL.RawQuery)
	if p != nil {
		g.refuseWebhook(w, *p)
		return
	}
	data, p := g.readBody(w, r, g.maxBody)
	if p != nil {
		g.refuseWebhook(w, *p)
		return
	}
	in := r.WithContext(r.Context()) // a shallow copy
	in.Header = header
	in.Host = ""
	in.Form, in.PostForm = query, noValues
	in.Body = &body{data: data}
	g.mux.ServeHTTP(w, in)
}
