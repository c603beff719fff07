package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
)

// The headers of an answer from the mirror.
const (
	headerSource  = "Mirror-Source"
	headerFetched = "Mirror-Fetch-Time"
	headerVersion = "Mirror-Revision"
	headerStale   = "Mirror-Stale"
	// headerWarn is printed by Liveblocks' client for Node.
	headerWarn = "X-Lb-Warn"
)

// headersOfCopies are the headers that say something about a copy. A failure has none of
// them.
var headersOfCopies = []string{headerSource, headerFetched, headerVersion, headerStale, headerWarn, "Etag"}

const jsonType = "application/json; charset=utf-8"

// age says how old an answer is: of several copies, the oldest counts.
type age struct {
	fetched  time.Time
	revision int64
	stale    bool
}

// of adds a copy.
func (a *age) of(f *mirrorv1.Freshness) {
	b := age{revision: f.GetRevision(), stale: f.GetStale()}
	if t := f.GetFetchTime(); t != nil {
		b.fetched = t.AsTime()
	}
	a.and(b)
}

// and adds what has an age of its own.
func (a *age) and(b age) {
	if !b.fetched.IsZero() && (a.fetched.IsZero() || b.fetched.Before(a.fetched)) {
		a.fetched = b.fetched
	}
	a.revision = max(a.revision, b.revision)
	a.stale = a.stale || b.stale
}

// head sets the headers that say where an answer comes from and how old it is.
func (h *Handler) head(w http.ResponseWriter, project string, a age) {
	header := w.Header()
	for _, name := range headersOfCopies { // another copy may have been looked at before
		header.Del(name)
	}
	header.Set(headerSource, "mirror")
	// It may be kept, but has to be asked for again before it is used.
	header.Set("Cache-Control", "private, no-cache")
	if !a.fetched.IsZero() {
		header.Set(headerFetched, a.fetched.UTC().Format(time.RFC3339Nano))
	}
	if a.revision > 0 {
		header.Set(headerVersion, strconv.FormatInt(a.revision, 10))
	}
	if a.stale {
		header.Set(headerStale, "1")
	}
	if warning := h.warning(project, a); warning != "" {
		header.Set(headerWarn, warning)
	}
}

// warning says what a reader of a copy has to know; empty if there is nothing.
func (h *Handler) warning(project string, a age) string {
	of := "This answer is from a mirror"
	if !a.fetched.IsZero() {
		of = fmt.Sprintf("This answer is a copy of %s from a mirror", a.fetched.UTC().Format(time.RFC3339))
	}
	if since, stopped := h.cfg.Paused(project); !since.IsZero() {
		// The words of an operator and of Liveblocks are for operators.
		why := "Liveblocks refused a call"
		if stopped {
			why = "an operator paused it"
		}
		return fmt.Sprintf("%s that has not called Liveblocks since %s: %s", of, since.UTC().Format(time.RFC3339), why)
	}
	if since := h.cfg.Failing(project); !since.IsZero() && h.cfg.Now().Sub(since) > h.cfg.WarnAfter {
		return fmt.Sprintf("%s that has got no answer from Liveblocks since %s", of, since.UTC().Format(time.RFC3339))
	}
	if a.stale && !a.fetched.IsZero() && h.cfg.Now().Sub(a.fetched) > h.cfg.WarnAfter {
		return of + " that knows of a newer version and has not got it from Liveblocks yet"
	}
	return ""
}

// ascii replaces what a header cannot hold.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// sendJSON answers with JSON in parts, or says that the client has it already.
func (h *Handler) sendJSON(w http.ResponseWriter, r *request, a age, parts ...[]byte) error {
	return h.send(w, r, a, jsonType, parts)
}

// send answers with the parts of a body, which are not joined: they may be long.
func (h *Handler) send(w http.ResponseWriter, r *request, a age, mediaType string, parts [][]byte) error {
	sum, length := sha256.New(), 0
	for _, part := range parts {
		sum.Write(part)
		length += len(part)
	}
	tag := `"` + hex.EncodeToString(sum.Sum(nil)[:16]) + `"`
	if h.unmodified(w, r, a, tag) {
		return nil
	}
	header := w.Header()
	header.Set("Content-Type", mediaType)
	header.Set("Content-Length", strconv.Itoa(length))
	w.WriteHeader(http.StatusOK)
	writeAll(w, parts)
	return nil
}

// writeAll writes the parts until the reader is gone.
func writeAll(w http.ResponseWriter, parts [][]byte) {
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}

// unmodified sets the headers of an answer with a tag. It answers and returns true if the
// client has it already.
func (h *Handler) unmodified(w http.ResponseWriter, r *request, a age, tag string) bool {
	h.head(w, r.project, a)
	w.Header().Set("ETag", tag)
	if !documents.Matches(r.Header["If-None-Match"], tag) {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}
