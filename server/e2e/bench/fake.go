package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fakeConfig is what the process that plays Liveblocks is told.
type fakeConfig struct {
	// Delay is how long every answer takes.
	Delay time.Duration
}

// runFake answers for every room a roomID can name: a document whose revision is the
// time when the call came, so that every fetch finds a change and shows how old it
// is. It does less than fake on purpose: it takes part in what is measured.
func runFake(ctx context.Context, cfg fakeConfig) error {
	return serve(ctx, &upstream{delay: cfg.Delay, documents: make(library)})
}

type upstream struct {
	delay time.Duration

	mu        sync.Mutex
	documents library
	hangs     float64 // the share of calls that hang
	hung      []hang  // those that did
	calls     int     // those that came
}

// hang is a call that was not answered.
type hang struct {
	Room string
	// From and Until are when it came and when the caller gave up, in microseconds
	// since 1970.
	From, Until int64
}

// callsMade is what came of the calls since it was last asked for.
type callsMade struct {
	Calls int
	Hung  []hang
}

// hangPath sets the share of calls that hang from now on, and answers with the
// callsMade until now. Calls that still hang are not among the Hung.
const hangPath = "/hang"

func (f *upstream) setHangs(w http.ResponseWriter, r *http.Request) {
	share, err := strconv.ParseFloat(r.URL.Query().Get("share"), 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	made := callsMade{Calls: f.calls, Hung: f.hung}
	f.hangs, f.calls, f.hung = share, 0, nil
	f.mu.Unlock()
	_ = json.NewEncoder(w).Encode(made) // who asked will complain
}

// hang keeps a call until its caller gives up.
func (f *upstream) hang(ctx context.Context, room string) {
	h := hang{Room: room, From: time.Now().UnixMicro()}
	<-ctx.Done()
	h.Until = time.Now().UnixMicro()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hung = append(f.hung, h)
}

// listSize is the size of the documents in rooms with threads: as many as the number of
// the room, with listComments comments each.
const listSize, listComments = 1<<10 + 1, 10

// threadList lists n threads.
func threadList(n int) []byte {
	const at = `"2026-11-22T03:34:17.545Z"`
	text := strings.Repeat(strings.Join(words[:20], " ")+" ", 2)
	body := []byte(`{"data":[`)
	for i := range n {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"type":"thread","id":"th_%d","createdAt":%s,"updatedAt":%s,"metadata":{"n":%d},`+
			`"resolved":false,"comments":[`, i, at, at, i)
		for c := range listComments {
			if c > 0 {
				body = append(body, ',')
			}
			body = fmt.Appendf(body, `{"type":"comment","id":"cm_%d","threadId":"th_%d","userId":"alice","createdAt":%s,`+
				`"reactions":[{"emoji":"+1","createdAt":%s,"users":[{"id":"bob"}]}],"attachments":[],`+
				`"body":{"version":1,"content":[{"type":"paragraph","children":[{"text":%q},{"type":"mention","id":"bob"}]}]}}`,
				c, i, at, at, text)
		}
		body = append(body, `]}`...)
	}
	return append(body, `]}`...)
}

func (f *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == hangPath {
		f.setHangs(w, r)
		return
	}
	revision := time.Now().UnixMicro()
	segment, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/v2/rooms/"), "/")
	id, _ := url.PathUnescape(segment) // net/http has refused what cannot be
	f.mu.Lock()
	f.calls++
	hangs := rand.Float64() < f.hangs
	f.mu.Unlock()
	if hangs {
		f.hang(r.Context(), id)
		return
	}
	if f.delay > 0 {
		timer := time.NewTimer(f.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	size, n, ok := parseRoomID(id)
	var body []byte
	contentType := "application/json; charset=utf-8"
	switch {
	case !ok || rest != "" && rest != "storage" && rest != "ydoc-binary" && rest != "threads":
		w.WriteHeader(http.StatusNotFound)
		return
	case rest == "threads" && size == listSize:
		body = threadList(n)
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
			body = d.json(revision)
		} else {
			body = d.lson(revision)
		}
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a caller that has gone away is no concern of ours
}
