package fake

import (
	"bytes"
	"compress/gzip"
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

// Match selects calls. An empty field matches everything.
type Match struct {
	Room     string
	Endpoint Endpoint
	// Thread is the id in the path of a thread.
	Thread string
	// Page is that of a listing of rooms, counted from 1.
	Page int
}

// hits reports whether m, which selects calls, selects the one that call
// describes.
func (m Match) hits(call Match) bool {
	return (m.Room == "" || m.Room == call.Room) && (m.Endpoint == "" || m.Endpoint == call.Endpoint) &&
		(m.Thread == "" || m.Thread == call.Thread) && (m.Page == 0 || m.Page == call.Page)
}

type script struct {
	match Match
	steps []Step
}

// Script lets the next calls that match take the given steps, one call each, in
// order. A call takes the first step of the earliest script that matches it and
// has steps left; without one it is answered as usual.
func (s *Server) Script(match Match, steps ...Step) {
	if len(steps) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts = append(s.scripts, &script{match: match, steps: slices.Clone(steps)})
}

// ClearScripts removes all scripts.
func (s *Server) ClearScripts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts = nil
}

// StepsLeft returns how many scripted calls have not come yet; [Step.Always]
// counts as one.
func (s *Server) StepsLeft() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, sc := range s.scripts {
		for _, st := range sc.steps {
			n += max(1, st.times)
		}
	}
	return n
}

// takeStep returns the step for a call; the zero Step answers as usual. s.mu is
// held.
func (s *Server) takeStep(call Match) Step {
	for i, sc := range s.scripts {
		if !sc.match.hits(call) {
			continue
		}
		st := &sc.steps[0]
		taken := *st
		switch {
		case st.times == always:
			return taken
		case st.times > 1:
			st.times--
			return taken
		}
		sc.steps = sc.steps[1:]
		if len(sc.steps) == 0 {
			s.scripts = slices.Delete(s.scripts, i, i+1)
		}
		return taken
	}
	return Step{}
}

// Delay is how long a call waits: Before the state is read, which makes the
// answer late but current, and After, which makes it an old answer that
// arrives late.
type Delay struct{ Before, After time.Duration }

// SetDelay lets every call wait as f says, on top of its script; nil ends it.
// Property tests give a random function. f may be called concurrently.
func (s *Server) SetDelay(f func(Call) Delay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = f
}

const always = -1

// Step is what happens to one call. The zero Step answers as usual.
type Step struct {
	times    int     // 0 and 1 mean once
	answer   *answer // instead of the usual one
	stale    bool
	delay    time.Duration
	hold     *Hold
	readLate bool // the state is read after the wait
	damage   damage
	chunked  bool // without Content-Length
	gzip     bool
}

type damage int

const (
	intact   damage = iota
	reset           // half the body, then a TCP reset
	truncate        // half the body, then an orderly end
)

// Times lets the step apply to n calls.
func (st Step) Times(n int) Step { st.times = n; return st }

// Always lets the step apply to every call from now on.
func (st Step) Always() Step { st.times = always; return st }

// Late lets [Slow] and a [Hold] read the state after the wait instead of before
// it: the answer comes late but is current.
func (st Step) Late() Step { st.readLate = true; return st }

// Chunked sends the answer without its length.
func (st Step) Chunked() Step { st.chunked = true; return st }

// Gzip compresses the answer, if the caller says that it can read that.
func (st Step) Gzip() Step { st.gzip = true; return st }

// Usual answers as if there were no script: a place to begin with, or a pause
// in a series of troubles.
func Usual() Step { return Step{} }

// Status answers an error with a code as the real API spells it.
func Status(status int, code string) Step {
	a := errorAnswer(status, code, "scripted")
	return Step{answer: &a}
}

// TooMany answers 429, with the Retry-After header if it is not empty.
func TooMany(retryAfter string) Step { return StatusRetry(http.StatusTooManyRequests, retryAfter) }

// StatusRetry answers an error status, with the Retry-After header if it is not
// empty.
func StatusRetry(status int, retryAfter string) Step {
	a := errorAnswer(status, "SCRIPTED_TROUBLE", "scripted")
	if retryAfter != "" {
		a.header = map[string]string{"Retry-After": retryAfter}
	}
	return Step{answer: &a}
}

// Answer answers exactly this.
func Answer(status int, contentType string, body []byte) Step {
	return Step{answer: &answer{status: status, contentType: contentType, body: slices.Clone(body)}}
}

// Redirect answers 307 to another address.
func Redirect(to string) Step {
	return Step{answer: &answer{status: http.StatusTemporaryRedirect, header: map[string]string{"Location": to}}}
}

// Garbage answers 200 with something that is not JSON.
func Garbage() Step {
	return Answer(http.StatusOK, "text/html", []byte("<!doctype html><title>Welcome to the hotel</title>"))
}

// TooLarge answers 200 with a JSON string of n bytes in all.
func TooLarge(n int) Step {
	body := bytes.Repeat([]byte("x"), max(n, 2))
	body[0], body[len(body)-1] = '"', '"'
	return Step{answer: &answer{status: http.StatusOK, contentType: "application/json", body: body}}
}

// Stale serves the room, or what is in it, as it was before its last change, to n
// calls.
func Stale(n int) Step { return Step{stale: true, times: n} }

// ResetMidBody breaks the connection with a reset in the middle of the usual
// answer.
func ResetMidBody() Step { return Step{damage: reset} }

// Truncate ends the connection in the middle of the usual answer, whose length
// was promised, or, with [Step.Chunked], before its last chunk.
func Truncate() Step { return Step{damage: truncate} }

// Slow waits between reading the state and answering: an old answer that
// arrives late.
func Slow(d time.Duration) Step { return Step{delay: d} }

// Hold keeps one call, or several, under way until it is released.
type Hold struct {
	arrived, released chan struct{}
	once              sync.Once
}

// NewHold returns a hold for use in scripts.
func NewHold() *Hold {
	return &Hold{arrived: make(chan struct{}, logLimit), released: make(chan struct{})}
}

// Step waits between reading the state and answering until Release: an old
// answer that finishes late.
func (h *Hold) Step() Step { return Step{hold: h} }

// Arrived receives once for each call that has reached the hold.
func (h *Hold) Arrived() <-chan struct{} { return h.arrived }

// Release lets all calls go on, those that have yet to come included.
func (h *Hold) Release() { h.once.Do(func() { close(h.released) }) }

// wait spends the step's delay and reports false if the caller went away.
func (st Step) wait(ctx context.Context) bool {
	if st.hold != nil {
		st.hold.arrived <- struct{}{}
		select {
		case <-st.hold.released:
		case <-ctx.Done():
			return false
		}
	}
	return clock.Sleep(ctx, st.delay) == nil
}

// write sends the answer, damaged as the step says.
func (st Step) write(w http.ResponseWriter, r *http.Request, ans answer) {
	body := ans.body
	h := w.Header()
	for k, v := range ans.header {
		h.Set(k, v)
	}
	if ans.contentType != "" {
		h.Set("Content-Type", ans.contentType)
	}
	if st.gzip && r.Header.Get("Accept-Encoding") == "gzip" {
		var packed bytes.Buffer
		zw := gzip.NewWriter(&packed)
		_, _ = zw.Write(body) // a buffer takes everything
		_ = zw.Close()
		body = packed.Bytes()
		h.Set("Content-Encoding", "gzip")
	}
	if !st.chunked && ans.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(ans.status)
	if st.damage != intact {
		body = body[:len(body)/2]
	}
	_, _ = w.Write(body) // a caller that has gone away is no concern of ours
	if st.chunked || st.damage != intact {
		_ = http.NewResponseController(w).Flush()
	}
	switch st.damage {
	case intact:
	case reset:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // closing now sends a reset
			}
			_ = conn.Close()
			return
		}
		panic(http.ErrAbortHandler)
	case truncate:
		panic(http.ErrAbortHandler)
	}
}
