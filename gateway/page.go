package gateway

import (
	"encoding/json"
	"html"
	"net/http"
	"strconv"
	"strings"
)

// source is where the documentation is.
const source = "https://github.com/liveblocks-mirror/liveblocks-mirror"

// page is what the root of the API says: what this is, and where to go on. It holds no
// data, so it needs no credential.
type page struct{ html, json []byte }

// contentPolicy forbids the page everything that it does not need.
const contentPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func newPage(version string) (page, error) {
	const about = "liveblocks-mirror keeps a SQL database equal to a Liveblocks project. This is its HTTP API."
	links := []struct{ path, what string }{
		{"/healthz", "whether the process runs"},
		{"/readyz", "whether the service works"},
		{"/openapi.json", "the API, described in OpenAPI"},
		{"/mirror.binpb", "the same for gRPC, as a set of descriptors"},
		{"/v1/rooms", "the mirrored rooms"},
		{source, "the documentation"},
	}
	var text strings.Builder
	text.WriteString("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n" +
		"<meta name=\"viewport\" content=\"width=device-width\">\n<title>liveblocks-mirror</title>\n" +
		"<h1>liveblocks-mirror " + html.EscapeString(version) + "</h1>\n<p>" + about + "</p>\n<ul>\n")
	paths := map[string]string{}
	for _, l := range links {
		text.WriteString("<li><a href=\"" + l.path + "\">" + l.path + "</a>: " + l.what + "</li>\n")
		paths[l.path] = l.what
	}
	text.WriteString("</ul>\n</html>\n")
	data, err := json.Marshal(struct {
		About   string            `json:"about"`
		Version string            `json:"version"`
		Links   map[string]string `json:"links"`
	}{about, version, paths})
	return page{html: []byte(text.String()), json: data}, err
}

// root serves the page: as HTML to browsers, otherwise as JSON.
func (g *Gateway) root(w http.ResponseWriter, r *http.Request) {
	if !g.readOnly(w, r) {
		return
	}
	h := w.Header()
	h.Set("Vary", "Accept")
	if !strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html") {
		writeJSON(w, http.StatusOK, g.page.json)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Content-Length", strconv.Itoa(len(g.page.html)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(g.page.html) // a failed write means that the client has gone
}
