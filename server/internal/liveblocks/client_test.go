package liveblocks

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const testKey = "sk_test-Key_123"

// serve runs h behind a real HTTP server.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// testConfig is that of a client of the API at base, with values that no test
// waits for.
func testConfig(t *testing.T, base string) Config {
	t.Helper()
	key, err := ParseKey(testKey)
	if err != nil {
		t.Fatalf("ParseKey = %v", err)
	}
	url, err := ParseBaseURL(base)
	if err != nil {
		t.Fatalf("ParseBaseURL(%q) = %v", base, err)
	}
	return Config{
		BaseURL: url, SecretKey: key, IdleTimeout: 30 * time.Second, Timeout: 30 * time.Second, MaxBody: 64 << 20,
		RatePerSecond: 1000,
		ProbeMin:      5 * time.Second, ProbeMax: 5 * time.Minute, UserAgent: "liveblocks-mirror", Now: time.Now,
		Logger: slog.New(slog.DiscardHandler), OnPause: func(string) {}, Transport: NewTransport(64),
	}
}

// newClient returns a client of the API at base, changed by the edits.
func newClient(t *testing.T, base string, edits ...func(*Config)) *Client {
	t.Helper()
	cfg := testConfig(t, base)
	for _, edit := range edits {
		edit(&cfg)
	}
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

// newFake returns a fake that holds one room, "r", and a client of it.
func newFake(t *testing.T, edits ...func(*Config)) (*fake.Server, *Client) {
	t.Helper()
	upstream := fake.New(testKey)
	createRoom(t, upstream, "r", fake.RoomOptions{})
	return upstream, newClient(t, serve(t, upstream).URL, edits...)
}

func createRoom(t *testing.T, upstream *fake.Server, id string, opts fake.RoomOptions) {
	t.Helper()
	if err := upstream.CreateRoom(id, opts); err != nil {
		t.Fatalf("CreateRoom(%q) = %v; want nil", id, err)
	}
}

// wantFault asserts the classification of err.
func wantFault(t *testing.T, err error, kind fault.Kind, reason fault.Reason) {
	t.Helper()
	_ = asFault(t, err, kind, reason)
}

// asFault asserts the classification of err and returns it.
func asFault(t *testing.T, err error, kind fault.Kind, reason fault.Reason) *fault.Error {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != kind || f.Reason != reason {
		t.Fatalf("error = %v (%+v); want kind %d, reason %s", err, f, kind, reason)
	}
	return f
}

func TestRoom(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	upstream, c := newFake(t, func(cfg *Config) { cfg.Now = func() time.Time { return begin } })
	// As the dev server answers, with what no re-encoding would keep.
	source := []byte(`{"type":"room",  "id":"mirror:storage","organizationId":"acme",` +
		`"createdAt":"2026-11-22T03:34:17.545Z","lastConnectionAt":"2026-11-22T05:34:17.5+02:00",` +
		`"metadata":{"name":"\ud83d \u0000","tags":["alpha","beta"]},"defaultAccesses":["room:write"],` +
		`"groupsAccesses":{},"usersAccesses":{"bob":["room:read"]},"later":9007199254740993}`)
	createRoom(t, upstream, "mirror:storage", fake.RoomOptions{})
	if err := upstream.SetRoomSource("mirror:storage", source); err != nil {
		t.Fatalf("SetRoomSource = %v; want nil", err)
	}

	got, err := c.Room(t.Context(), "mirror:storage")
	if err != nil {
		t.Fatalf("Room = %v; want nil", err)
	}
	want := mirror.RoomContent{
		FetchTime:          begin,
		Source:             source,
		CreateTime:         time.Date(2026, 11, 22, 3, 34, 17, 545e6, time.UTC),
		LastConnectionTime: time.Date(2026, 11, 22, 3, 34, 17, 5e8, time.UTC),
		OrganizationID:     "acme",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("Room (-want +got):\n%s", diff)
	}
}

func TestRoomIsReadLeniently(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source string
		want   mirror.RoomContent
	}{
		"only the id":   {`{"id":"r"}`, mirror.RoomContent{}},
		"odd forms":     {`{"id":"r","createdAt":17,"lastConnectionAt":null,"organizationId":["x"]}`, mirror.RoomContent{}},
		"not a time":    {`{"id":"r","createdAt":"yesterday"}`, mirror.RoomContent{}},
		"old name":      {`{"id":"r","tenantId":"t"}`, mirror.RoomContent{OrganizationID: "t"}},
		"keys by case":  {`{"id":"r","ID":"x","OrganizationId":"x"}`, mirror.RoomContent{}},
		"escaped id":    {`{"id":"\u0072"}`, mirror.RoomContent{}},
		"outer padding": {" {\"id\":\"r\"}\n", mirror.RoomContent{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream, c := newFake(t)
			upstream.Script(fake.Match{}, fake.Answer(200, "text/plain", []byte(test.source)))
			got, err := c.Room(t.Context(), "r")
			if err != nil {
				t.Fatalf("Room = %v; want nil", err)
			}
			test.want.Source, test.want.FetchTime = []byte(test.source), got.FetchTime
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Fatalf("Room (-want +got):\n%s", diff)
			}
		})
	}
}

// An answer about another room would be filed under the wrong id.
func TestRoomOfAnotherID(t *testing.T) {
	t.Parallel()
	for _, source := range []string{`{"id":"R"}`, `{"id":"r "}`, `{}`, `[]`, `null`, `{"data":[]}`} {
		upstream, c := newFake(t)
		upstream.Script(fake.Match{}, fake.Answer(200, "application/json", []byte(source)))
		_, err := c.Room(t.Context(), "r")
		wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid)
	}
}

func TestStorageIsExact(t *testing.T) {
	t.Parallel()
	nested := strings.Repeat("[", 3*maxStdDepth) + `"\"]"` + strings.Repeat("]", 3*maxStdDepth)
	object := func(value string) string { return `{"liveblocksType":"LiveObject","data":{"x":` + value + `}}` }
	for name, doc := range map[string]string{
		"empty":     fake.EmptyStorage,
		"odd":       `{"liveblocksType":"LiveObject","data":{"":"\u0000 \ud83d","n":9007199254740993,"z":-0,"a":1e400, "a":2}}`,
		"raw bytes": "{\"liveblocksType\":\"LiveObject\",\"data\":{\"\":\"\xff\xfe\u2028\"}}",
		"nested":    object(nested),
		"large":     object(`"` + strings.Repeat("0123456789abcdef", 1<<18) + `"`),
	} {
		for how, step := range map[string]fake.Step{
			"plain": fake.Usual(), "chunked": fake.Usual().Chunked(), "gzip": fake.Usual().Gzip(),
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				upstream, c := newFake(t)
				if err := upstream.SetStorage("r", []byte(doc)); err != nil {
					t.Fatalf("SetStorage = %v; want nil", err)
				}
				upstream.Script(fake.Match{}, step)
				before := time.Now()
				got, err := c.Storage(t.Context(), "r")
				if err != nil {
					t.Fatalf("Storage = %v; want nil", err)
				}
				if string(got.Body) != doc {
					t.Fatalf("Storage = %d bytes; want the %d bytes as served", len(got.Body), len(doc))
				}
				if call := upstream.Log()[0]; got.FetchTime.Before(before) || got.FetchTime.After(call.Begin) {
					t.Fatalf("FetchTime = %v; want between %v and %v", got.FetchTime, before, call.Begin)
				}
			})
		}
	}
}

// JSON that is no Storage document would replace the copy.
func TestStorageMustBeALiveObject(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"status":"maintenance"}`, `[]`, `{}`, `null`, `"LiveObject"`, `{"data":{}}`, `{"liveblocksType":"LiveObject"}`,
		`{"liveblocksType":"LiveObject","data":[]}`, `{"liveblocksType":"LiveMap","data":{}}`,
		`{"liveblocksType":"LiveList","data":[]}`, `{"error":"LiveObject","data":{}}`,
		`{"liveblocksType":"LiveObject","data":{}`, `{"liveblocksType":"LiveObject","data":{},"data":[]}`,
		`{"liveblocksType":"LiveObject","data":{"a":nul}}`, strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001),
	} {
		upstream, c := newFake(t)
		upstream.Script(fake.Match{}, fake.Answer(200, "application/json", []byte(body)))
		_, err := c.Storage(t.Context(), "r")
		wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid)
	}
	for name, body := range map[string]string{
		"white space":         " {\"data\" : {}, \"liveblocksType\":\t\"LiveObject\"}\r\n",
		"no UTF-8":            "{\"liveblocksType\":\"LiveObject\",\"data\":{\"a\":\"\xff\"}}",
		"the last one counts": `{"liveblocksType":"LiveMap","liveblocksType":"LiveObject","data":[],"data":{}}`,
		"nested too deeply": `{"liveblocksType":"LiveObject","data":{"a":` + strings.Repeat("[", 10_001) +
			strings.Repeat("]", 10_001) + `}}`,
	} {
		upstream, c := newFake(t)
		upstream.Script(fake.Match{}, fake.Answer(200, "application/json", []byte(body)))
		if got, err := c.Storage(t.Context(), "r"); err != nil || string(got.Body) != body {
			t.Errorf("%s: Storage = %.50q, %v; want it as it is", name, got.Body, err)
		}
	}
}

func TestYdocIsExact(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	update := "\x01\x01\xff\x00\x80 {}\n"
	for guid, content := range map[string]string{"": update, "a&b=c#d/é": update + update} {
		if err := upstream.SetYdoc("r", guid, []byte(content)); err != nil {
			t.Fatalf("SetYdoc = %v; want nil", err)
		}
	}
	for guid, want := range map[string]string{"": update, "a&b=c#d/é": update + update, "nobody's": fake.EmptyYdoc} {
		got, err := c.Ydoc(t.Context(), "r", guid)
		if err != nil || string(got.Body) != want || got.FetchTime.IsZero() {
			t.Errorf("Ydoc(%q) = %q, %v; want %q", guid, got.Body, err, want)
		}
	}
	if _, err := c.Ydoc(t.Context(), "nowhere", ""); !fault.Is(err, fault.ReasonUpstreamNotFound) {
		t.Errorf("Ydoc of no room = %v; want it not found", err)
	}
}

// A page of some proxy is bytes too, and would be stored as the document.
func TestYdocMustBeDeclared(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]fake.Step{
		"a page": fake.Answer(200, "text/html", []byte("<h1>Welcome</h1>")),
		"JSON":   fake.Answer(200, "application/json", []byte(`{}`)),
		"empty":  fake.Answer(200, "application/octet-stream", nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream, c := newFake(t)
			upstream.Script(fake.Match{}, step)
			if got, err := c.Ydoc(t.Context(), "r", ""); !fault.Is(err, fault.ReasonUpstreamAnswerInvalid) {
				t.Errorf("Ydoc = %q, %v; want the answer refused", got.Body, err)
			}
		})
	}
}

// Ids are bytes: each of these is a room of its own, on the wire as well.
func TestIDsOnTheWire(t *testing.T) {
	t.Parallel()
	ids := map[mirror.RoomID]string{
		"plain":                        "plain",
		"Plain":                        "Plain",
		"plain ":                       "plain%20",
		"a/b":                          "a%2Fb",
		"a/../plain":                   "a%2F..%2Fplain",
		"/":                            "%2F",
		"//":                           "%2F%2F",
		"a%2Fb":                        "a%252Fb",
		".":                            "%2E",
		"..":                           "%2E%2E",
		"...":                          "...",
		"%2E":                          "%252E",
		"a?b=c&d":                      "a%3Fb=c&d",
		"a#b":                          "a%23b",
		"a:b;c,d+e=f@g$h":              "a:b%3Bc%2Cd+e=f@g$h",
		"100%":                         "100%25",
		"roöm":                         "ro%C3%B6m",
		"roo\u0308m":                   "roo%CC%88m",
		"\U0001F600\u2028":             "%F0%9F%98%80%E2%80%A8",
		"line\r\nX-Injected: yes":      "line%0D%0AX-Injected:%20yes",
		`"quoted"\back`:                "%22quoted%22%5Cback",
		"storage":                      "storage",
		"r/storage?format=plain-lson#": "r%2Fstorage%3Fformat=plain-lson%23",
	}
	for _, prefix := range []string{"", "/some%2Fproxy"} {
		upstream := fake.New(testKey)
		for id := range ids {
			createRoom(t, upstream, string(id), fake.RoomOptions{
				Storage: []byte(`{"liveblocksType":"LiveObject","data":{"id":"` + segment(string(id)) + `"}}`),
			})
		}
		c := newClient(t, serve(t, stripRaw(prefix, upstream)).URL+prefix+"/")
		for id, escaped := range ids {
			room, err := c.Room(t.Context(), id)
			if err != nil {
				t.Fatalf("Room(%q) = %v; want nil", id, err)
			}
			if want, _ := upstream.RoomSource(string(id)); !bytes.Equal(room.Source, want) {
				t.Fatalf("Room(%q) = %s; want %s", id, room.Source, want)
			}
			doc, err := c.Storage(t.Context(), id)
			if err != nil {
				t.Fatalf("Storage(%q) = %v; want nil", id, err)
			}
			if want, _ := upstream.Storage(string(id)); !bytes.Equal(doc.Body, want) {
				t.Fatalf("Storage(%q) = %s; want %s", id, doc.Body, want)
			}
			log := upstream.Log()
			last := log[len(log)-1]
			if want := "/v2/rooms/" + escaped + "/storage?format=plain-lson"; last.Path != want || last.Room != string(id) {
				t.Fatalf("the server saw %s as %q; want %s", last.Path, last.Room, want)
			}
			if n := upstream.Calls(string(id), ""); n != 2 {
				t.Fatalf("Calls(%q) = %d; want 2", id, n)
			}
		}
	}
}

// stripRaw takes prefix off the path as it was sent.
func stripRaw(prefix string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := r.URL.Parse("http://fake" + strings.TrimPrefix(r.RequestURI, prefix))
		if err != nil {
			http.Error(w, "bad path", http.StatusBadRequest)
			return
		}
		r.URL = u
		h.ServeHTTP(w, r)
	})
}

func TestIDThatCannotBe(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	for _, id := range []mirror.RoomID{"", "a\x00b", "\xff", mirror.RoomID(strings.Repeat("x", mirror.MaxRoomID+1))} {
		_, err := c.Room(t.Context(), id)
		wantFault(t, err, fault.Invalid, fault.ReasonIDInvalid)
		_, err = c.Storage(t.Context(), id)
		wantFault(t, err, fault.Invalid, fault.ReasonIDInvalid)
	}
	if n := upstream.Calls("", ""); n != 0 {
		t.Fatalf("Calls = %d; want none", n)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	page := []byte("<html>ROOM_NOT_FOUND</html>")
	long := strings.Repeat("A", 65)
	type refusal struct {
		step   fake.Step
		kind   fault.Kind
		reason fault.Reason
		code   string
		min    time.Duration
		max    time.Duration
		// everywhere means that the ping is answered in the same way.
		everywhere bool
	}
	notFound := func(step fake.Step, code string) refusal {
		return refusal{step, fault.NotFound, fault.ReasonUpstreamNotFound, code, 0, 0, false}
	}
	denied := func(code string, reason fault.Reason) refusal {
		return refusal{fake.Status(404, code), fault.NotFound, reason, code, 0, 0, false}
	}
	paused := func(status int, code, shown string) refusal {
		return refusal{
			fake.Status(status, code), fault.Busy, fault.ReasonProjectPaused, shown,
			5 * time.Second, 5 * time.Second, true,
		}
	}
	// alone is a refusal of one call that a ping contradicts.
	alone := func(status int, code, shown string) refusal {
		return refusal{
			fake.Status(status, code), fault.Unavailable, fault.ReasonUpstreamUnavailable, shown, 0, 0, false,
		}
	}
	limited := func(header string, least, most time.Duration) refusal {
		return refusal{
			fake.TooMany(header), fault.Busy, fault.ReasonUpstreamRateLimited, "SCRIPTED_TROUBLE", least, most, false,
		}
	}
	trouble := func(step fake.Step, code string) refusal {
		return refusal{step, fault.Unavailable, fault.ReasonUpstreamUnavailable, code, 0, 0, false}
	}
	// outage is trouble that the ping meets as well.
	outage := func(step fake.Step, code string) refusal {
		return refusal{step, fault.Unavailable, fault.ReasonUpstreamOutage, code, time.Second, 2 * time.Second, true}
	}
	odd := func(step fake.Step, code string) refusal {
		return refusal{step, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, code, 0, 0, false}
	}
	for name, want := range map[string]refusal{
		"room not found":            denied("ROOM_NOT_FOUND", fault.ReasonUpstreamRoomNotFound),
		"resource not found":        denied("RESOURCE_NOT_FOUND", fault.ReasonUpstreamResourceNotFound),
		"unknown path":              notFound(fake.Status(404, "Not Found"), "HTTP_404"),
		"proxy's 404":               notFound(fake.Answer(404, "text/html", page), "HTTP_404"),
		"empty 404":                 notFound(fake.Answer(404, "", nil), "HTTP_404"),
		"404 that is half JSON":     notFound(fake.Answer(404, "", []byte(`{"error":"ROOM_NOT_FOUND"`)), "HTTP_404"),
		"404 in a list":             notFound(fake.Answer(404, "", []byte(`[{"error":"ROOM_NOT_FOUND"}]`)), "HTTP_404"),
		"404 with an odd code":      notFound(fake.Answer(404, "", []byte(`{"error":{"ROOM_NOT_FOUND":1}}`)), "HTTP_404"),
		"404 with a long code":      notFound(fake.Status(404, long), "HTTP_404"),
		"404 with two lines":        notFound(fake.Status(404, "ROOM_NOT_FOUND\n"), "HTTP_404"),
		"no key":                    paused(401, "MISSING_SECRET_KEY", "MISSING_SECRET_KEY"),
		"public key":                paused(401, "WRONG_KEY_USED", "WRONG_KEY_USED"),
		"dev server: no key":        paused(401, "Unauthorized", "HTTP_401"),
		"wrong key":                 paused(403, "INVALID_SECRET_KEY", "INVALID_SECRET_KEY"),
		"wrong public key":          paused(403, "INVALID_PUBLIC_KEY", "INVALID_PUBLIC_KEY"),
		"no key by 403":             paused(403, "MISSING_SECRET_KEY", "MISSING_SECRET_KEY"),
		"key of another kind":       paused(403, "WRONG_KEY_USED", "WRONG_KEY_USED"),
		"dev server: wrong key":     paused(403, "Forbidden", "HTTP_403"),
		"dev server: no key by 403": paused(403, "Unauthorized", "HTTP_403"),
		"no access": {
			fake.Status(403, "UNAUTHORIZED_ROOM_ACCESS"), fault.Precondition, fault.ReasonUpstreamAccessDenied,
			"UNAUTHORIZED_ROOM_ACCESS", 0, 0, false,
		},
		"firewall": {
			fake.Answer(403, "text/html", page), fault.Unavailable, fault.ReasonUpstreamUnavailable,
			"HTTP_403", 0, 0, false,
		},
		"403 with a new code": {
			fake.Status(403, "PLAN_ENDED"), fault.Unavailable, fault.ReasonUpstreamUnavailable,
			"PLAN_ENDED", 0, 0, false,
		},
		"429":                limited("7", 7*time.Second, 7*time.Second),
		"429 without a time": limited("", time.Second, 2*time.Second),
		"429 without sense":  limited("soon", time.Second, 2*time.Second),
		"429 for no time":    limited("0", time.Second, time.Second),
		"429 back in time":   limited("-5", time.Second, time.Second),
		"429 for ever":       limited("99999999999999999999", time.Hour, time.Hour),
		"429 until a date": limited(time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 30*time.Second,
			time.Minute),
		"429 until a past date": limited("Thu, 01 Jan 1970 00:00:00 GMT", time.Second, time.Second),
		"500":                   trouble(fake.Status(500, "INTERNAL"), "INTERNAL"),
		"501": {
			fake.Status(501, "Not implemented"), fault.Precondition, fault.ReasonUpstreamUnsupported,
			"HTTP_501", 0, 0, false,
		},
		"501 of a proxy":       trouble(fake.Answer(501, "text/html", page), "HTTP_501"),
		"502":                  trouble(fake.Answer(502, "text/html", page), "HTTP_502"),
		"401 for one":          alone(401, "MISSING_SECRET_KEY", "MISSING_SECRET_KEY"),
		"403 for one":          alone(403, "Forbidden", "HTTP_403"),
		"403 of a key for one": alone(403, "INVALID_SECRET_KEY", "INVALID_SECRET_KEY"),
		"500 for all":          outage(fake.Status(500, "INTERNAL"), "INTERNAL"),
		"502 for all":          outage(fake.Answer(502, "text/html", page), "HTTP_502"),
		"422 for all":          outage(fake.Status(422, "UNPROCESSABLE_ENTITY"), "UNPROCESSABLE_ENTITY"),
		"503 with a time": {
			fake.StatusRetry(503, "9"), fault.Unavailable, fault.ReasonUpstreamOutage, "SCRIPTED_TROUBLE",
			9 * time.Second, 9 * time.Second, false,
		},
		"422":      odd(fake.Status(422, "UNPROCESSABLE_ENTITY"), "UNPROCESSABLE_ENTITY"),
		"204":      odd(fake.Answer(204, "", nil), "HTTP_204"),
		"redirect": odd(fake.Redirect("/v2/rooms/r"), "HTTP_307"),
		"304":      odd(fake.Answer(304, "", nil), "HTTP_304"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream, c := newFake(t)
			upstream.Script(fake.Match{Room: "r"}, want.step)
			if want.everywhere {
				upstream.Script(fake.Match{}, want.step)
			}
			_, err := c.Storage(t.Context(), "r")
			f := asFault(t, err, want.kind, want.reason)
			if f.Meta["code"] != want.code {
				t.Errorf("code = %q; want %q", f.Meta["code"], want.code)
			}
			if f.RetryAfter < want.min || f.RetryAfter > want.max {
				t.Errorf("RetryAfter = %v; want %v to %v", f.RetryAfter, want.min, want.max)
			}
			s := c.Status()
			slowed := want.reason == fault.ReasonUpstreamRateLimited || want.reason == fault.ReasonUpstreamOutage
			if got := s.RatePerSecond < startRate; got != slowed {
				t.Errorf("slowed down = %t; want %t", got, slowed)
			}
			if got := s.PauseReason != ""; got != (want.reason == fault.ReasonProjectPaused) {
				t.Errorf("PauseReason = %q; want one only if the key is refused", s.PauseReason)
			}
			if got := !s.ThrottledUntil.IsZero(); got != (want.max > 0 && want.reason != fault.ReasonProjectPaused) {
				t.Errorf("ThrottledUntil = %v; want a time only if there is one to wait for", s.ThrottledUntil)
			}
			if strings.Contains(err.Error(), "scripted") || strings.Contains(err.Error(), "html") {
				t.Errorf("error = %v; want nothing of the body", err)
			}
		})
	}
}

// The fake refuses as the real one does, by key and by room.
func TestRefusalsOfTheFake(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	_, err := c.Room(t.Context(), "R")
	wantFault(t, err, fault.NotFound, fault.ReasonUpstreamRoomNotFound)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v; want nil", err)
	}
	upstream.SetSecret("sk_other")
	if f := asFault(t, c.Ping(t.Context()), fault.Busy,
		fault.ReasonProjectPaused); f.Meta["code"] != "INVALID_SECRET_KEY" {
		t.Fatalf("code = %q; want INVALID_SECRET_KEY", f.Meta["code"])
	}
	if reason := c.Status().PauseReason; reason != "ping: status 403, code INVALID_SECRET_KEY" {
		t.Fatalf("PauseReason = %q; want status and code", reason)
	}
}

// A 403 that says nothing pauses the project only if a call that concerns no
// room is refused as well.
func TestForbiddenToEverything(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	upstream.Script(fake.Match{}, fake.Status(403, "PLAN_ENDED").Always())
	_, err := c.Room(t.Context(), "r")
	wantFault(t, err, fault.Busy, fault.ReasonProjectPaused)
	if n := upstream.Calls("", ""); n != 2 {
		t.Fatalf("Calls = %d; want the room's and a ping", n)
	}
	if c.Status().PauseReason == "" {
		t.Fatal("PauseReason is empty; want the pause")
	}
}

func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	doc := []byte(`{"liveblocksType":"LiveObject","data":{"x":"` + strings.Repeat("0123456789", 10_000) + `"}}`)
	half := doc[:len(doc)/2]
	for name, test := range map[string]struct {
		step   fake.Step
		kind   fault.Kind
		reason fault.Reason
	}{
		"reset":              {fake.ResetMidBody(), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"reset of chunks":    {fake.ResetMidBody().Chunked(), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"short":              {fake.Truncate(), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"short of chunks":    {fake.Truncate().Chunked(), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"short gzip":         {fake.Truncate().Gzip(), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"half JSON":          {fake.Answer(200, "", half), fault.Unavailable, fault.ReasonUpstreamAnswerInvalid},
		"empty":              {fake.Answer(200, "", nil), fault.Unavailable, fault.ReasonUpstreamAnswerInvalid},
		"blank":              {fake.Answer(200, "", []byte(" \n")), fault.Unavailable, fault.ReasonUpstreamAnswerInvalid},
		"garbage":            {fake.Garbage(), fault.Unavailable, fault.ReasonUpstreamAnswerInvalid},
		"too large":          {fake.TooLarge(1<<20 + 1), fault.Precondition, fault.ReasonUpstreamAnswerTooLarge},
		"too large, chunked": {fake.TooLarge(1<<20 + 1).Chunked(), fault.Precondition, fault.ReasonUpstreamAnswerTooLarge},
		"too large, gzip":    {fake.TooLarge(1<<20 + 1).Gzip(), fault.Precondition, fault.ReasonUpstreamAnswerTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream, c := newFake(t, func(cfg *Config) { cfg.MaxBody = 1 << 20 })
			if err := upstream.SetStorage("r", doc); err != nil {
				t.Fatalf("SetStorage = %v; want nil", err)
			}
			upstream.Script(fake.Match{}, test.step)
			_, err := c.Storage(t.Context(), "r")
			wantFault(t, err, test.kind, test.reason)
			wantRate(t, c, startRate)
			// Nothing of it outlives the call.
			if got, err := c.Storage(t.Context(), "r"); err != nil || !bytes.Equal(got.Body, doc) {
				t.Fatalf("next Storage = %v; want the document", err)
			}
		})
	}
}

func TestLargestAnswer(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t, func(cfg *Config) { cfg.MaxBody = 1 << 20 })
	const root = `{"liveblocksType":"LiveObject","data":{"x":""}}`
	doc := strings.Replace(root, `""`, `"`+strings.Repeat("x", 1<<20-len(root))+`"`, 1)
	if err := upstream.SetStorage("r", []byte(doc)); err != nil {
		t.Fatalf("SetStorage = %v", err)
	}
	upstream.Script(fake.Match{}, fake.Usual(), fake.Usual().Gzip(), fake.Usual().Chunked())
	for range 3 {
		if got, err := c.Storage(t.Context(), "r"); err != nil || len(got.Body) != 1<<20 {
			t.Fatalf("Storage = %d bytes, %v; want all of them", len(got.Body), err)
		}
	}
}

// A length above the limit is believed: not a byte of the body is awaited.
func TestTooLargeIsFoundByLength(t *testing.T) {
	t.Parallel()
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(1<<40))
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	_, err := newClient(t, srv.URL).Storage(t.Context(), "r")
	f := asFault(t, err, fault.Precondition, fault.ReasonUpstreamAnswerTooLarge)
	if f.Meta["limit_bytes"] != "67108864" {
		t.Fatalf("limit_bytes = %q; want the default", f.Meta["limit_bytes"])
	}
}

// A small answer that unpacks into a huge one is not unpacked to the end: this
// one has none.
func TestGzipBomb(t *testing.T) {
	t.Parallel()
	var member bytes.Buffer
	zw := gzip.NewWriter(&member)
	_, _ = zw.Write(make([]byte, 1<<18))
	_ = zw.Close()
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		for {
			if _, err := w.Write(member.Bytes()); err != nil {
				return
			}
		}
	}))
	_, err := newClient(t, srv.URL, func(cfg *Config) { cfg.MaxBody = 1 << 20 }).Storage(t.Context(), "r")
	wantFault(t, err, fault.Precondition, fault.ReasonUpstreamAnswerTooLarge)
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { // the ping that comes next must not be late, too
			upstream, c := newBubble(t, func(cfg *Config) { cfg.IdleTimeout = 50 * time.Millisecond })
			upstream.Script(fake.Match{}, fake.NewHold().Step())
			_, err := c.Room(t.Context(), "r")
			if !fault.Is(err, fault.ReasonUpstreamUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
				!strings.Contains(err.Error(), "within 50ms") {
				t.Fatalf("error = %v; want our own timeout, not the caller's deadline", err)
			}
		})
	})
	for status := range map[int]bool{200: true, 404: true} {
		t.Run("half a body of "+strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"error":"ROOM_NOT_FOUND"`)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}))
			c := newClient(t, srv.URL, func(cfg *Config) { cfg.IdleTimeout = 50 * time.Millisecond })
			_, err := c.Room(t.Context(), "r")
			wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamOutage)
		})
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		upstream, c := newFake(t)
		hold := fake.NewHold()
		upstream.Script(fake.Match{}, hold.Step())
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-hold.Arrived(); cancel() }() // ends with the call that is held
		_, err := c.Storage(ctx, "r")
		if _, isFault := errors.AsType[*fault.Error](err); isFault || !errors.Is(err, context.Canceled) {
			t.Fatalf("Storage = %v; want the context's error and no fault", err)
		}
		wantRate(t, c, startRate)
	})
	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		upstream, c := newFake(t)
		upstream.Script(fake.Match{}, fake.NewHold().Step())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		_, err := c.Storage(ctx, "r")
		if _, isFault := errors.AsType[*fault.Error](err); isFault || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Storage = %v; want the context's error and no fault", err)
		}
	})
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		upstream, c := newFake(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Ping(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("Ping = %v; want the context's error", err)
		}
		if n := upstream.Calls("", ""); n != 0 {
			t.Fatalf("Calls = %d; want none", n)
		}
	})
}

// lateContext is a context just past its deadline that has not noticed yet.
type lateContext struct {
	context.Context //nolint:containedctx // it is a context
}

func (lateContext) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// A connection knows the deadline too and can be the first to give up.
func TestConnectionNoticesTheDeadlineFirst(t *testing.T) {
	t.Parallel()
	c := newClient(t, "http://localhost", func(cfg *Config) { cfg.Transport = failing{os.ErrDeadlineExceeded} })
	_, err := c.Room(lateContext{t.Context()}, "r")
	if _, isFault := errors.AsType[*fault.Error](err); isFault || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Room = %v; want the context's error and no fault", err)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	err := newClient(t, srv.URL).Ping(t.Context())
	wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamOutage)
	if !strings.Contains(err.Error(), "connection refused") {
		t.Fatalf("Ping = %v; want the cause", err)
	}
}

// A redirect would carry the key to another host.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	elsewhere := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	upstream, c := newFake(t)
	upstream.Script(fake.Match{}, fake.Redirect(elsewhere.URL+"/v2/rooms/r"))
	_, err := c.Room(t.Context(), "r")
	wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid)
	if !strings.Contains(err.Error(), "redirect") || reached.Load() != 0 {
		t.Fatalf("Room = %v after %d calls elsewhere; want none and the reason", err, reached.Load())
	}
}

// Whatever a server sends back, the key included, stays out of errors and logs.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("Listen = %v; want nil", err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() { _ = lis.Close(); served.Wait() })
	answers := []string{
		"HTTP/1.1 " + testKey + " payload\r\n\r\n",
		testKey + " payload\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + testKey + " payload\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: " + testKey + "\r\n\r\npayload",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + testKey + "\r\n\r\npayload",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + testKey + "\r\npayload",
		"HTTP/1.1 302 payload\r\nLocation: :" + testKey + "\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 " + testKey + "\r\nContent-Length: 40\r\n\r\n\"" + testKey + " payload",
		"HTTP/1.1 403 " + testKey + "\r\nConnection: close\r\n\r\n{\"error\":\"" + testKey + "\",\"message\":\"payload\"}",
		"HTTP/1.1 401 " + testKey + "\r\nConnection: close\r\n\r\n{\"error\":\"" + testKey + "\",\"message\":\"payload\"}",
	}
	var answer atomic.Pointer[string]
	served.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(conn))
			if err == nil {
				_ = req.Body.Close()
				_, _ = io.WriteString(conn, *answer.Load())
			}
			_ = conn.Close()
		}
	})
	var logged bytes.Buffer
	var c *Client
	for i := range answers {
		answer.Store(&answers[i])
		c = newClient(t, "http://"+lis.Addr().String(), func(cfg *Config) {
			cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		_, err := c.Storage(t.Context(), "r")
		if err == nil {
			t.Fatal("Storage = nil; want an error")
		}
		f := fault.Of(err)
		for _, text := range append([]string{err.Error(), f.Public, logged.String(), c.Status().PauseReason},
			f.Meta["code"]) {
			if strings.Contains(text, testKey) || strings.Contains(text, "payload") {
				t.Fatalf("%q repeats what the server sent", text)
			}
		}
	}
	if c.Status().PauseReason == "" {
		t.Fatal("PauseReason is empty; want the last answer, a 401, to have been read")
	}
}

// Answers of every kind leave their connection fit for the next call.
func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	upstream := fake.New(testKey)
	createRoom(t, upstream, "r", fake.RoomOptions{})
	var opened atomic.Int32
	srv := httptest.NewUnstartedServer(upstream)
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c := newClient(t, srv.URL)
	upstream.Script(fake.Match{Endpoint: fake.EndpointRoom},
		fake.Usual().Times(5), fake.Status(404, "ROOM_NOT_FOUND").Times(5),
		fake.Status(500, "X").Times(5), fake.Redirect("/").Times(5), fake.Garbage().Times(5),
		fake.Usual().Chunked().Times(5), fake.Usual().Gzip().Times(5))
	for range 35 {
		_, _ = c.Room(t.Context(), "r") // every kind is judged elsewhere
	}
	if left := upstream.StepsLeft(); left != 0 {
		t.Fatalf("StepsLeft = %d; want none", left)
	}
	if n := opened.Load(); n != 1 {
		t.Fatalf("%d connections were opened; want 1", n)
	}

	// As many workers as the pool is large keep their connections.
	const workers = 8
	for range 5 {
		hold := fake.NewHold()
		upstream.Script(fake.Match{}, hold.Step().Times(workers))
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				if _, err := c.Storage(t.Context(), "r"); err != nil {
					t.Errorf("Storage = %v; want nil", err)
				}
			})
		}
		for range workers {
			<-hold.Arrived()
		}
		hold.Release()
		wg.Wait()
	}
	if n := opened.Load(); n != workers {
		t.Fatalf("%d connections were opened; want %d", n, workers)
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	upstream := fake.New(testKey)
	createRoom(t, upstream, "a/b", fake.RoomOptions{})
	var major atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		major.Store(int32(r.ProtoMajor))
		upstream.ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)

	err := newClient(t, srv.URL).Ping(t.Context())
	wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamOutage)
	if !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("Ping = %v; want the certificate refused", err)
	}

	transport := NewTransport(4)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	c := newClient(t, srv.URL, func(cfg *Config) { cfg.Transport = transport })
	if _, err := c.Storage(t.Context(), "a/b"); err != nil || major.Load() != 2 {
		t.Fatalf("Storage = %v over HTTP/%d; want nil over HTTP/2", err, major.Load())
	}
	upstream.Script(fake.Match{Room: "a/b"}, fake.ResetMidBody(), fake.Truncate())
	for range 2 {
		_, err := c.Storage(t.Context(), "a/b")
		wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamUnavailable)
	}
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	var got http.Header
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		_, _ = io.WriteString(w, `{"data":[]}`)
	}))
	c := newClient(t, srv.URL, func(cfg *Config) { cfg.UserAgent = "mirror/1" })
	if err := c.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v; want nil", err)
	}
	want := http.Header{
		"Authorization": {"Bearer " + testKey}, "User-Agent": {"mirror/1"},
		"Accept": {"application/json, application/octet-stream"}, "Accept-Encoding": {"gzip"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("headers (-want +got):\n%s", diff)
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{
		"no key": "", "a blank": " ", "public key": "pk_hunter2", "key with a line": "sk_hunter2\n", "bare prefix": "sk_",
		"quotes": `"sk_hunter2"`,
	} {
		if _, err := ParseKey(key); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseKey with %s = %v; want an error without it", name, err)
		}
	}
	key, err := ParseKey("sk_hunter2")
	if err != nil {
		t.Fatalf("ParseKey = %v", err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		shown := fmt.Sprintf(format, struct{ cfg Config }{Config{SecretKey: key}}) // as a Client holds it
		if strings.Contains(shown, "hunter2") ||
			strings.Contains(shown, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s shows the key", format)
		}
	}
}

func TestParseBaseURL(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"nothing":        "",
		"no scheme":      "api.liveblocks.io",
		"other scheme":   "ftp://api.liveblocks.io",
		"no host":        "http://:80",
		"user":           "https://u:hunter2@api.liveblocks.io",
		"user, unparsed": "https://u:hunter2@api liveblocks",
		"query":          "https://api.liveblocks.io?hunter2",
		"fragment":       "https://api.liveblocks.io#hunter2",
	} {
		if _, err := ParseBaseURL(url); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseBaseURL with %s = %v; want an error without secrets", name, err)
		}
	}
}

// Liveblocks' clock and ours need not agree: its date counts from its own time.
func TestRetryAfterDateBySendersClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	h := http.Header{"Retry-After": {now.Add(90 * time.Second).Format(http.TimeFormat)}}
	for date, want := range map[string]time.Duration{
		"": 90 * time.Second,
		now.Add(time.Minute).Format(http.TimeFormat): 30 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):  time.Hour,
		"noon": 90 * time.Second,
	} {
		h.Set("Date", date)
		if got := retryAfter(h, now); got != want {
			t.Errorf("retryAfter sent at %q = %v; want %v", date, got, want)
		}
	}
}

func TestDeepJSON(t *testing.T) {
	t.Parallel()
	deep := func(inner string) string {
		return strings.Repeat(`{"a":[`, maxStdDepth) + inner + strings.Repeat("]}", maxStdDepth)
	}
	for body, want := range map[string]bool{
		deep(`"]}\""`):             true,
		deep(``):                   true,
		deep(`"`):                  false,
		deep(`]`):                  false,
		deep(`[}`):                 false,
		deep(`"\`):                 false,
		deep(`1`)[:6*maxStdDepth]:  false,
		deep(`1`)[:8*maxStdDepth]:  false,
		`[1`:                       false,
		`[1]`:                      false, // not deep: encoding/json has the say
		strings.Repeat("[", 1<<20): false,
		deep(`1`) + "]":            false,
	} {
		if got := deepJSON([]byte(body)); got != want {
			t.Errorf("deepJSON(%.20q.. of %d bytes) = %t; want %t", body, len(body), got, want)
		}
	}
}

// The calls for what is in a room besides documents, each with what it answers
// and where.
func TestReadsOfRoomsContents(t *testing.T) {
	t.Parallel()
	const odd = "a/b ?#%ö" // an id in a path
	begin := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	upstream, c := newFake(t, func(cfg *Config) { cfg.Now = func() time.Time { return begin } })
	createRoom(t, upstream, odd, fake.RoomOptions{})
	if _, err := upstream.CreateThread(odd, fake.ThreadOptions{ID: odd}); err != nil {
		t.Fatalf("CreateThread = %v; want nil", err)
	}
	source := []byte(` {"id":"a\/b ?#%\u00f6",  "roomId":"a/b ?#%ö","metadata":{"n":9007199254740993,"s":"\ud83d\u0000"}}`)
	if err := upstream.SetThreadSource(odd, odd, source); err != nil {
		t.Fatalf("SetThreadSource = %v; want nil", err)
	}
	if err := upstream.Enter(odd, fake.Connection{ID: 7}); err != nil {
		t.Fatalf("Enter = %v; want nil", err)
	}
	inbox := []byte(`{"kind":"$x","id":"a/b ?#%ö", "readAt":null}`)
	upstream.SetInbox(odd, odd, inbox)
	users, _ := upstream.ActiveUsers(odd)
	upstream.PutGroup(odd, "alice", odd)
	group, _ := upstream.GroupSource(odd)
	for name, test := range map[string]struct {
		get  func() (mirror.Fetched, error)
		want string
	}{
		"Threads": {
			func() (mirror.Fetched, error) { return bodyOf(c.Threads(t.Context(), odd)) },
			`{"data":[` + strings.TrimSpace(string(source)) + `]}`,
		},
		"Thread":      {func() (mirror.Fetched, error) { return c.Thread(t.Context(), odd, odd) }, string(source)},
		"ActiveUsers": {func() (mirror.Fetched, error) { return c.ActiveUsers(t.Context(), odd) }, string(users)},
		"InboxNotification": {
			func() (mirror.Fetched, error) { return c.InboxNotification(t.Context(), odd, odd) },
			string(inbox),
		},
		"Group":  {func() (mirror.Fetched, error) { return c.Group(t.Context(), odd) }, string(group)},
		"Groups": {func() (mirror.Fetched, error) { return bodyOf(c.Groups(t.Context())) }, `{"data":[` + string(group) + `]}`},
	} {
		got, err := test.get()
		if err != nil {
			t.Fatalf("%s = %v; want nil", name, err)
		}
		if diff := cmp.Diff(mirror.Fetched{Body: []byte(test.want), FetchTime: begin}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	_, err := c.ActiveUsers(t.Context(), "r")
	if got := upstream.Log()[upstream.Calls("", "")-1].Path; err != nil || got != "/v2/rooms/r/active_users" {
		t.Errorf("ActiveUsers asked %s, %v; want the documented path", got, err)
	}
}

// bodyOf is the body that has such a list.
func bodyOf(list mirror.List, err error) (mirror.Fetched, error) {
	if err != nil {
		return mirror.Fetched{}, err
	}
	body := []byte(`{"data":[`)
	for i, item := range list.Items {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, item.Source...)
	}
	return mirror.Fetched{Body: append(body, "]}"...), FetchTime: list.FetchTime}, nil
}

// A list of threads may exceed the limit, a thread may not.
func TestThreadsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t, func(cfg *Config) { cfg.MaxBody = 10_000 })
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf(`{"id":"th_%02d","text":%q}`, i, strings.Repeat("x", 1000)))
	}
	answer := func(list ...string) {
		upstream.Script(fake.Match{}, fake.Answer(200, "application/json", []byte(`{"data":[`+strings.Join(list, ",")+`]}`)))
	}
	answer(list...)
	got, err := c.Threads(t.Context(), "r")
	if err != nil || len(got.Items) != 100 || got.Items[0].Source == nil || got.Items[99].Source != nil {
		t.Fatalf("Threads = %d, %v; want all, the first ones with their source", len(got.Items), err)
	}
	answer(list[0], fmt.Sprintf(`{"id":"long","text":%q}`, strings.Repeat("x", 50_000)))
	_, err = c.Threads(t.Context(), "r")
	wantFault(t, err, fault.Precondition, fault.ReasonUpstreamAnswerTooLarge)
}

// What is not there, and whether the room is.
func TestNotFoundTellsWhat(t *testing.T) {
	t.Parallel()
	_, c := newFake(t)
	for name, test := range map[string]struct {
		get    func() (mirror.Fetched, error)
		reason fault.Reason
	}{
		"Threads without a room": {
			func() (mirror.Fetched, error) { return bodyOf(c.Threads(t.Context(), "R")) },
			fault.ReasonUpstreamRoomNotFound,
		},
		"Thread without a room": {
			func() (mirror.Fetched, error) { return c.Thread(t.Context(), "R", "th") },
			fault.ReasonUpstreamRoomNotFound,
		},
		"Thread": {
			func() (mirror.Fetched, error) { return c.Thread(t.Context(), "r", "th") },
			fault.ReasonUpstreamResourceNotFound,
		},
		"ActiveUsers without a room": {
			func() (mirror.Fetched, error) { return c.ActiveUsers(t.Context(), "R") },
			fault.ReasonUpstreamRoomNotFound,
		},
		"InboxNotification": {
			func() (mirror.Fetched, error) { return c.InboxNotification(t.Context(), "u", "in") },
			fault.ReasonUpstreamResourceNotFound,
		},
		"Group": {
			func() (mirror.Fetched, error) { return c.Group(t.Context(), "g") },
			fault.ReasonUpstreamResourceNotFound,
		},
	} {
		if _, err := test.get(); fault.Of(err).Reason != test.reason || fault.Of(err).Kind != fault.NotFound {
			t.Errorf("%s = %v; want reason %s", name, err, test.reason)
		}
	}
}

// An answer that is about something else, or that is none, is not taken.
func TestAnswersAboutSomethingElse(t *testing.T) {
	t.Parallel()
	threads := func(c *Client) (mirror.Fetched, error) { return bodyOf(c.Threads(t.Context(), "r")) }
	thread := func(c *Client) (mirror.Fetched, error) { return c.Thread(t.Context(), "r", "th") }
	users := func(c *Client) (mirror.Fetched, error) { return c.ActiveUsers(t.Context(), "r") }
	inbox := func(c *Client) (mirror.Fetched, error) { return c.InboxNotification(t.Context(), "u", "in") }
	for name, test := range map[string]struct {
		get     func(*Client) (mirror.Fetched, error)
		answers []string
	}{
		"Threads": {threads, []string{
			``, `{}`, `[]`, `null`, `{"data":null}`, `{"data":{}}`, `{"Data":[]}`,
			`{"data":[`,
		}},
		"ActiveUsers": {users, []string{``, `{}`, `[]`, `{"data":"x"}`, `<html>`}},
		"Thread": {thread, []string{
			``, `{}`, `[]`, `null`, `{"id":"TH"}`, `{"id":"th "}`, `{"ID":"th"}`, `{"id":7}`, `{"id":"th","roomId":"R"}`,
			`{"id":"th","roomId":null}`,
			`{"data":[{"id":"th"}]}`,
		}},
		"InboxNotification": {inbox, []string{``, `{}`, `{"id":"IN"}`, `{"nextCursor":null,"data":[]}`}},
	} {
		for _, answer := range test.answers {
			upstream, c := newFake(t)
			upstream.Script(fake.Match{}, fake.Answer(200, "application/json", []byte(answer)))
			_, err := test.get(c)
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Kind != fault.Unavailable || f.Reason != fault.ReasonUpstreamAnswerInvalid {
				t.Errorf("%s of %s = %v; want UPSTREAM_ANSWER_INVALID", name, answer, err)
			}
		}
	}
	upstream, c := newFake(t)
	upstream.Script(fake.Match{}, fake.Answer(200, "application/json", []byte(`{"id":"th"}`)))
	if _, err := thread(c); err != nil {
		t.Errorf("Thread that does not say its room = %v; want nil", err)
	}
}

// An id that Liveblocks cannot have might ask for something else.
func TestIDsOfContentsAreChecked(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	for _, id := range []string{"", "a\x00", "\xff", strings.Repeat("i", mirror.MaxResourceID+1)} {
		_, inThread := c.Thread(t.Context(), "r", id)
		_, inInbox := c.InboxNotification(t.Context(), "u", id)
		for _, err := range []error{inThread, inInbox} {
			wantFault(t, err, fault.Invalid, fault.ReasonIDInvalid)
		}
	}
	_, noUser := c.InboxNotification(t.Context(), "", "in")
	_, noRoom := c.Threads(t.Context(), "")
	for _, err := range []error{noUser, noRoom} {
		wantFault(t, err, fault.Invalid, fault.ReasonIDInvalid)
	}
	if n := upstream.Calls("", ""); n != 0 {
		t.Fatalf("calls = %d; want 0", n)
	}
}

func TestListRooms(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	upstream := fake.New(testKey)
	c := newClient(t, serve(t, upstream).URL, func(cfg *Config) { cfg.Now = func() time.Time { return begin } })
	if page, err := c.ListRooms(t.Context(), "", 100); err != nil || len(page.Rooms) != 0 || page.Next != "" {
		t.Fatalf("ListRooms of nothing = %+v, %v; want nothing", page, err)
	}
	ids := []string{"e", "d/ ö", "c", "b", "a"} // newest first
	for i := range ids {
		createRoom(t, upstream, ids[len(ids)-1-i], fake.RoomOptions{LastConnectionTime: begin})
	}
	var got []mirror.ListedRoom
	pages := 0
	for cursor := ""; pages == 0 || cursor != ""; pages++ {
		page, err := c.ListRooms(t.Context(), cursor, 2)
		if err != nil {
			t.Fatalf("ListRooms = %v; want nil", err)
		}
		got, cursor = append(got, page.Rooms...), page.Next
	}
	if pages != 3 || len(got) != len(ids) {
		t.Fatalf("ListRooms = %d rooms on %d pages; want %d on 3", len(got), pages, len(ids))
	}
	for i, room := range got {
		want, err := c.Room(t.Context(), mirror.RoomID(ids[i]))
		if err != nil {
			t.Fatalf("Room = %v; want nil", err)
		}
		if diff := cmp.Diff(mirror.ListedRoom{ID: mirror.RoomID(ids[i]), Content: want}, room); diff != "" {
			t.Errorf("room %d of the list (-want +got):\n%s", i, diff)
		}
	}
}

func TestListRoomsIsReadLeniently(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]mirror.RoomPage{
		`{"data":[]}`: {Rooms: []mirror.ListedRoom{}},
		`{"nextCursor":"n+/=","nextPage":"x","data":[]}`: {Rooms: []mirror.ListedRoom{}, Next: "n+/="},
		`{"nextCursor":"","data":[]}`:                    {Rooms: []mirror.ListedRoom{}},
		// What has no id that can be stored is left out.
		`{"data":[{"id":"a", "x":1e2},{"id":""},{"id":7},{},7,null,[],{"ID":"b"},{"id":"\u0000"},{"id":"c\ud83d"},{"id":"c\ufffd"},{"id":"d�\\ufffd"}]}`: {
			Rooms: []mirror.ListedRoom{
				{ID: "a", Content: mirror.RoomContent{Source: []byte(`{"id":"a", "x":1e2}`)}},
				{ID: "c\ufffd", Content: mirror.RoomContent{Source: []byte(`{"id":"c\ufffd"}`)}},
				{ID: `d�\ufffd`, Content: mirror.RoomContent{Source: []byte(`{"id":"d�\\ufffd"}`)}},
			},
		},
		"{\"data\":[{\"id\":\"\xff\"}]}": {Rooms: []mirror.ListedRoom{}},
	} {
		upstream, c := newFake(t, func(cfg *Config) { cfg.Now = func() time.Time { return time.Time{} } })
		upstream.Script(fake.Match{}, fake.Answer(200, "application/json", []byte(answer)))
		got, err := c.ListRooms(t.Context(), "", 100)
		if err != nil {
			t.Errorf("ListRooms of %s = %v; want nil", answer, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ListRooms of %s (-want +got):\n%s", answer, diff)
		}
	}
}

// Half a list is worse than none: it would tell of rooms as vanished.
func TestListRoomsThatFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		step   fake.Step
		kind   fault.Kind
		reason fault.Reason
	}{
		"no list": {
			fake.Answer(200, "", []byte(`{"nextCursor":null}`)), fault.Unavailable,
			fault.ReasonUpstreamAnswerInvalid,
		},
		"list is null": {
			fake.Answer(200, "", []byte(`{"data":null}`)), fault.Unavailable,
			fault.ReasonUpstreamAnswerInvalid,
		},
		"list is an object": {
			fake.Answer(200, "", []byte(`{"data":{}}`)), fault.Unavailable,
			fault.ReasonUpstreamAnswerInvalid,
		},
		"half": {
			fake.Answer(200, "", []byte(`{"data":[{"id":"a"}`)), fault.Unavailable,
			fault.ReasonUpstreamAnswerInvalid,
		},
		"odd cursor": {
			fake.Answer(200, "", []byte(`{"data":[],"nextCursor":7}`)), fault.Unavailable,
			fault.ReasonUpstreamAnswerInvalid,
		},
		"cursor to itself": {
			fake.Answer(200, "", []byte(`{"data":[],"nextCursor":"c"}`)), fault.Unavailable,
			fault.ReasonUpstreamAnswerInvalid,
		},
		"not found":          {fake.Status(404, "NOT_FOUND"), fault.NotFound, fault.ReasonUpstreamCursorInvalid},
		"gone":               {fake.Status(410, "GONE"), fault.Unavailable, fault.ReasonUpstreamCursorInvalid},
		"unprocessable":      {fake.Status(422, "X"), fault.Unavailable, fault.ReasonUpstreamCursorInvalid},
		"broken off":         {fake.Truncate(), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"server trouble":     {fake.Status(500, "X"), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"slow down":          {fake.TooMany("1"), fault.Busy, fault.ReasonUpstreamRateLimited},
		"refused":            {fake.Status(401, "MISSING_SECRET_KEY").Times(2), fault.Busy, fault.ReasonProjectPaused},
		"refused, unusually": {fake.Status(403, "NEW_CODE").Times(2), fault.Busy, fault.ReasonProjectPaused},
		"refused once":       {fake.Status(401, "X"), fault.Unavailable, fault.ReasonUpstreamUnavailable},
		"trouble everywhere": {fake.Status(500, "X").Times(2), fault.Unavailable, fault.ReasonUpstreamOutage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream, c := newFake(t)
			upstream.Script(fake.Match{}, test.step)
			page, err := c.ListRooms(t.Context(), "c", 100)
			wantFault(t, err, test.kind, test.reason)
			if page.Rooms != nil || page.Next != "" {
				t.Errorf("ListRooms = %+v; want nothing beside the error", page)
			}
			if paused := c.Status().PauseReason != ""; paused != (test.reason == fault.ReasonProjectPaused) {
				t.Errorf("paused = %t", paused)
			}
		})
	}
}

// While the limiter is closed nothing is sent.
func TestListRoomsIsHeld(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	upstream.Script(fake.Match{}, fake.TooMany("60"))
	_, err := c.ListRooms(t.Context(), "", 100)
	wantFault(t, err, fault.Busy, fault.ReasonUpstreamRateLimited)
	_, err = c.ListRooms(t.Context(), "", 100)
	wantFault(t, err, fault.Busy, fault.ReasonUpstreamRateLimited)
	_, err = c.Threads(t.Context(), "r")
	wantFault(t, err, fault.Busy, fault.ReasonUpstreamRateLimited)
	if n := upstream.Calls("", ""); n != 1 {
		t.Fatalf("calls = %d; want 1", n)
	}
}

// Without a cursor there is none to blame.
func TestFirstPageRefused(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	upstream.Script(fake.Match{}, fake.Status(422, "UNPROCESSABLE_ENTITY"))
	_, err := c.ListRooms(t.Context(), "", 100)
	wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid)
}

// The list of groups is read page by page, and whole or not at all.
func TestGroupsAreReadPageByPage(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	for i := range 250 {
		upstream.PutGroup(fmt.Sprintf("g%03d", i))
	}
	got, err := c.Groups(t.Context())
	if err != nil || len(got.Items) != 250 || got.Items[249].ID != "g249" {
		t.Fatalf("Groups = %d groups, %v; want 250 in order", len(got.Items), err)
	}
	if calls := upstream.Calls("", fake.EndpointGroups); calls != 3 {
		t.Errorf("calls = %d; want 3", calls)
	}
	upstream.SetGroup("g200", []byte(`no JSON`))
	if got, err := c.Groups(t.Context()); err == nil {
		t.Errorf("Groups with a broken third page = %d groups; want an error", len(got.Items))
	}
}
