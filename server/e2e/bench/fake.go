package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// fakeConfig is what the process that plays Liveblocks is told.
type fakeConfig struct {
	// Delay is how long every answer takes.
	Delay time.Duration
}

// runFake answers for every room a roomID can name: a document that is another
// version each time it is asked for, so that every fetch finds a change. It does
// less than fake on purpose: it takes part in what is measured.
func runFake(ctx context.Context, cfg fakeConfig) error {
	f := &upstream{delay: cfg.Delay, documents: make(library)}
	f.revision.Store(firstRevision)
	return serve(ctx, f)
}

type upstream struct {
	delay    time.Duration
	revision atomic.Int64

	mu        sync.Mutex
	documents library
}

func (f *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.delay > 0 {
		timer := time.NewTimer(f.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	segment, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/v2/rooms/"), "/")
	id, _ := url.PathUnescape(segment) // net/http has refused what cannot be
	size, n, ok := parseRoomID(id)
	var body []byte
	contentType := "application/json; charset=utf-8"
	switch {
	case !ok || rest != "" && rest != "storage" && rest != "ydoc-binary" && rest != "threads":
		w.WriteHeader(http.StatusNotFound)
		return
	case rest == "threads": // none, and listed only once
		body = []byte(`{"data":[]}`)
	case rest == "ydoc-binary": // empty, and fetched only once
		body, contentType = []byte{0, 0}, "application/octet-stream"
	case rest == "":
		body = []byte(`{"type":"room","id":"` + id + `","organizationId":"acme","createdAt":"2026-11-22T03:34:17.545Z",` +
			`"metadata":{"name":"Storage room","kind":"whiteboard","tags":["alpha","beta"],"color":"blue"},` +
			`"defaultAccesses":["room:write"],"groupsAccesses":{"design":["room:write"]},` +
			`"usersAccesses":{"alice":["room:write"],"bob":["room:read","room:presence:write"]}}`)
	default:
		f.mu.Lock()
		d, err := f.documents.get(size, n)
		f.mu.Unlock()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if r.URL.Query().Get("format") == "json" {
			body = d.json(f.revision.Add(1))
		} else {
			body = d.lson(f.revision.Add(1))
		}
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a caller that has gone away is no concern of ours
}
