package liveblocks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// post returns a request to be forwarded.
func post(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/v2/rooms", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Calls for others have their turn at the limiter, which learns of their results, and none is
// made while it is closed.
func TestForwardHeedsTheLimiter(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	do := func() (int, error) {
		resp, err := c.Forward("", post(t, strings.NewReader(`{"id":"new","defaultAccesses":[]}`)), atOnce)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	if status, err := do(); err != nil || status != http.StatusOK || len(upstream.Rooms()) != 2 {
		t.Fatalf("Forward = %d, %v and %d rooms; want one made", status, err, len(upstream.Rooms()))
	}
	// A limit may be that of one room, which must not stop the others.
	upstream.Script(fake.Match{Endpoint: fake.EndpointCreateRoom}, fake.TooMany("60").Times(3))
	rate := c.Status().RatePerSecond
	for range 3 {
		status, err := do()
		c.calls.Wait() // the ping
		if s := c.Status(); err != nil || status != http.StatusTooManyRequests || !s.ThrottledUntil.IsZero() ||
			s.RatePerSecond < rate {
			t.Fatalf("Forward = %d, %v, Status %+v; want 429, which is the caller's", status, err, s)
		}
	}
	if pings := upstream.Calls("", fake.EndpointListRooms); pings != 1 {
		t.Errorf("%d pings after 3 refused calls; want 1", pings)
	}
	c.forwards.doubted = time.Time{}
	upstream.Script(fake.Match{Endpoint: fake.EndpointCreateRoom}, fake.TooMany("60"))
	upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms}, fake.TooMany("60"))
	status, err := do()
	c.calls.Wait()
	if err != nil || status != http.StatusTooManyRequests || c.Status().ThrottledUntil.IsZero() {
		t.Fatalf("Forward = %d, %v, Status %+v; want 429, which closes the limiter if a ping gets it, too", status, err,
			c.Status())
	}
	calls := upstream.Calls("", "")
	_, err = do()
	wantFault(t, err, fault.Busy, fault.ReasonUpstreamRateLimited)
	if errors.Is(err, ErrNoAnswer) || upstream.Calls("", "") != calls {
		t.Errorf("Forward while the limiter is closed = %v, and %d calls; want none", err, upstream.Calls("", "")-calls)
	}
}

// roundTrip is a transport without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// withBody answers with a body, which ends with its call.
func withBody(body io.Reader) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		read := readerFunc(func(p []byte) (int, error) {
			if err := r.Context().Err(); err != nil {
				return 0, err
			}
			return body.Read(p)
		})
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(read)}, nil
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// forward makes a call for somebody else. The answer must be closed.
func forward(ctx context.Context, c *Client, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/v2/rooms", body)
	if err != nil {
		return nil, err
	}
	return c.Forward(fmt.Sprint(callers.Add(1)), r, atOnce)
}

// callers counts those of forward, of whom each makes one call.
var callers atomic.Int64

// atOnce has nothing to do before a call.
func atOnce() error { return nil }

// forwardEmpty makes a call without a body, and closes its answer.
func forwardEmpty(ctx context.Context, c *Client) error {
	resp, err := forward(ctx, c, nil)
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// Whatever is called for others, the workers have half of the rate, and who waits for too long
// is told.
func TestForwardLeavesTheRateToWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 10
		c := newClient(t, "http://upstream", func(cfg *Config) {
			cfg.RatePerSecond = perSecond
			cfg.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
			})
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var made, refused atomic.Int64
		for range 100 {
			wg.Go(func() {
				for ctx.Err() == nil {
					begin := time.Now()
					err := forwardEmpty(ctx, c)
					took := time.Since(begin)
					switch {
					case err == nil:
						made.Add(1)
					case ctx.Err() == nil:
						wantFault(t, err, fault.Busy, fault.ReasonUpstreamRateLimited)
						refused.Add(1)
					}
					if took > forwardPatience+time.Second {
						t.Errorf("Forward took %v; want it told after %v", took, forwardPatience)
					}
				}
			})
		}
		for range 50 {
			<-time.After(time.Second)
			begin := time.Now()
			if err := c.Wait(ctx); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > 2*time.Second/perSecond {
				t.Errorf("a worker waited %v for its turn; want no more than two calls", took)
			}
		}
		cancel()
		wg.Wait()
		if made.Load() < 50*perSecond/2 || refused.Load() == 0 {
			t.Errorf("%d calls were made and %d refused; want the rest of the rate used, and refusals", made.Load(),
				refused.Load())
		}
	})
}

// No more calls are under way at a time than there are places, which answers hold until they
// are closed, and no more wait than may.
func TestForwardIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, "http://upstream", func(cfg *Config) {
			cfg.RatePerSecond = MaxRatePerSecond
			cfg.Transport = withBody(strings.NewReader(""))
		})
		c.limiter.rate = MaxRatePerSecond
		var open []io.Closer
		for range forwardsAtOnce {
			resp, err := forward(t.Context(), c, nil) //nolint:bodyclose // below
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, resp.Body)
		}
		begin := time.Now()
		results := make(chan error)
		for range forwardsWaiting {
			go func() { results <- forwardEmpty(t.Context(), c) }()
		}
		synctest.Wait()
		wantFault(t, forwardEmpty(t.Context(), c), fault.Busy, fault.ReasonUpstreamRateLimited)
		if took := time.Since(begin); took > 0 {
			t.Errorf("one more waited for %v; want it refused at once", took)
		}
		for _, resp := range open[:1] {
			_ = resp.Close()
		}
		for range forwardsWaiting {
			if err := <-results; err != nil { // one place is enough for all of them
				t.Error(err)
			}
		}
		for _, resp := range open[1:] {
			_ = resp.Close()
		}
	})
}

// Whoever reads answers slowly, and asks for ever more, keeps nobody else from calling.
func TestForwardIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, "http://upstream", func(cfg *Config) {
			cfg.RatePerSecond = MaxRatePerSecond
			cfg.Transport = withBody(strings.NewReader(""))
		})
		c.limiter.rate = MaxRatePerSecond
		var open []io.Closer
		for range shareAtOnce {
			resp, err := c.Forward("slow", post(t, nil), atOnce) //nolint:bodyclose // below
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, resp.Body)
		}
		results := make(chan error)
		for range shareWaiting {
			go func() {
				resp, err := c.Forward("slow", post(t, nil), atOnce)
				if err == nil {
					err = resp.Body.Close()
				}
				results <- err
			}()
		}
		synctest.Wait()
		begin := time.Now()
		_, err := c.Forward("slow", post(t, nil), atOnce) //nolint:bodyclose // there is none
		wantFault(t, err, fault.Busy, fault.ReasonUpstreamRateLimited)
		if took := time.Since(begin); took > 0 {
			t.Errorf("one more of the caller waited for %v; want it refused at once", took)
		}
		for range forwardsAtOnce {
			if err := forwardEmpty(t.Context(), c); err != nil {
				t.Errorf("a call of somebody else = %v; want it made", err)
			}
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("calls of others took %v; want them made at once", took)
		}
		for range shareWaiting { // they give up
			wantFault(t, <-results, fault.Busy, fault.ReasonUpstreamRateLimited)
		}
		for _, resp := range open[1:] {
			_ = resp.Close()
		}
		for range shareAtOnce {
			if resp, err := c.Forward("slow", post(t, nil), atOnce); err != nil {
				t.Errorf("a call of a caller whose answers were read = %v; want it made", err)
			} else {
				_ = resp.Body.Close()
			}
		}
		_ = open[0].Close()
		if n := len(c.forwards.shares); n > 0 {
			t.Errorf("%d shares are kept; want none", n)
		}
	})
}

// What has to be done before a call is done only if it will be made, and keeps it from being
// made if it fails.
func TestForwardAfterWhatMustBeDone(t *testing.T) {
	t.Parallel()
	var o order
	upstream, c := newFake(t, func(cfg *Config) { cfg.Stopped = o.stopped })
	done := 0
	want := errors.New("not recorded")
	before := func() error { done++; return want }
	_, err := c.Forward("", post(t, strings.NewReader(`{"id":"new"}`)), before) //nolint:bodyclose // there is none
	if !errors.Is(err, want) || errors.Is(err, ErrNoAnswer) || len(upstream.Rooms()) != 1 || done != 1 {
		t.Errorf("Forward = %v, %d rooms, %d times before; want it not made", err, len(upstream.Rooms()), done)
	}
	if n := len(c.forwards.places); n != 0 {
		t.Errorf("%d places are held; want none", n)
	}
	o.reason.Store("for a while")
	if err := c.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = nil
	_, err = c.Forward("", post(t, strings.NewReader(`{"id":"new"}`)), before) //nolint:bodyclose // there is none
	wantFault(t, err, fault.Busy, fault.ReasonProjectPaused)
	if done != 1 {
		t.Error("something was done before a call that was not made")
	}
}

// An answer that has been read as a whole holds no place.
func TestForwardEndsWithItsAnswer(t *testing.T) {
	t.Parallel()
	c := newClient(t, "http://upstream", func(cfg *Config) {
		cfg.Transport = withBody(strings.NewReader(""))
	})
	for range forwardsAtOnce + 1 {
		resp, err := forward(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(c.forwards.places); got != 0 {
		t.Errorf("%d places are held; want none", got)
	}
}

// After trouble one call is let through, not all that wait.
func TestForwardProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		c := newClient(t, "http://upstream", func(cfg *Config) {
			cfg.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				calls.Add(1)
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
		})
		c.limiter.strikes = 1
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { _ = forwardEmpty(ctx, c) })
		}
		<-time.After(probeFor / 2)
		if got := calls.Load(); got != 1 {
			t.Errorf("%d calls after trouble; want one", got)
		}
		cancel()
		wg.Wait()
	})
}

// Who reads an answer slowly, or is slow to send what is passed on, is not taken for a
// Liveblocks that does not answer; one that stalls is cut off.
func TestForwardWaitsForItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("x", 4*forwardBuffer)
		var transport roundTrip
		c := newClient(t, "http://upstream", func(cfg *Config) {
			cfg.Timeout = 10 * time.Second
			cfg.Transport = roundTrip(func(r *http.Request) (*http.Response, error) { return transport(r) })
		})
		transport = func(r *http.Request) (*http.Response, error) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil || r.Context().Err() != nil {
				return nil, cmp.Or(err, r.Context().Err())
			}
			return withBody(strings.NewReader(long))(r)
		}
		request := post(t, slowly{strings.NewReader("abc"), time.Minute})
		request.ContentLength = -1 // unknown
		resp, err := c.Forward("", request, atOnce)
		if err != nil {
			t.Fatalf("Forward of a slow body = %v", err)
		}
		got, err := io.ReadAll(slowly{resp.Body, time.Minute})
		if err != nil || string(got) != long {
			t.Errorf("an answer that is read slowly = %d bytes, %v", len(got), err)
		}
		_ = resp.Body.Close()
		transport = func(r *http.Request) (*http.Response, error) {
			stalls := readerFunc(func([]byte) (int, error) { <-r.Context().Done(); return 0, r.Context().Err() })
			return withBody(io.MultiReader(strings.NewReader("x"), stalls))(r)
		}
		if resp, err = c.Forward("", post(t, nil), atOnce); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if _, ok := errors.AsType[*timeoutError](err); !ok {
			t.Errorf("an answer that stalls ends with %v; want the time-out", err)
		}
	})
}

// slowly waits before each byte or buffer.
type slowly struct {
	io.Reader

	pause time.Duration
}

func (s slowly) Read(p []byte) (int, error) {
	<-time.After(s.pause)
	return s.Reader.Read(p)
}

// Only what was answered well tells that Liveblocks answers, and the status is that of the
// answer.
func TestForwardLearns(t *testing.T) {
	t.Parallel()
	for status, recovers := range map[int]bool{200: true, 204: true, 301: false, 404: false, 409: false, 422: false} {
		var code string
		c := newClient(t, "http://upstream", func(cfg *Config) {
			cfg.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodGet {
					return nil, errors.New("no ping")
				}
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}, nil
			})
			cfg.Called = func(call Call) {
				if call.Route == "rest_write" {
					code = call.Code
				}
			}
		})
		c.limiter.strikes = 1
		resp, err := c.Forward("", post(t, nil), atOnce)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		c.calls.Wait()
		if got := c.limiter.strikes == 0; got != recovers || code != strconv.Itoa(status) {
			t.Errorf("%d ends the trouble: %t, with code %s; want %t", status, got, code, recovers)
		}
	}
}

// The error of a body does not repeat what Liveblocks has sent.
func TestForwardedErrorsQuoteNothing(t *testing.T) {
	t.Parallel()
	c := newClient(t, "http://upstream", func(cfg *Config) {
		malformed := errors.New("malformed trailer: " + testKey)
		cfg.Transport = withBody(iotest.ErrReader(malformed))
	})
	resp, err := c.Forward("", post(t, nil), atOnce)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil || strings.Contains(err.Error(), testKey) {
		t.Errorf("the body ends with %v; want an error that quotes nothing", err)
	}
}

// A call that was made is told from one that was not, also if its caller ends it.
func TestForwardSaysWhetherItWasMade(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	server := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}))
	c := newClient(t, server.URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := forwardEmpty(ctx, c); !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.Canceled) {
		t.Errorf("Forward that is ended = %v; want ErrNoAnswer", err)
	}
	if err := forwardEmpty(ctx, c); err == nil || errors.Is(err, ErrNoAnswer) {
		t.Errorf("Forward for a caller that is gone = %v; want an error, and no call", err)
	}
}

// A refused key pauses the project also if a call for somebody else finds it out.
func TestForwardFindsARefusedKey(t *testing.T) {
	t.Parallel()
	upstream, c := newFake(t)
	upstream.SetSecret("sk_another")
	resp, err := c.Forward("", post(t, strings.NewReader(`{}`)), atOnce)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Fatalf("Forward = %v, %v; want 403", resp, err)
	}
	_ = resp.Body.Close()
	c.calls.Wait() // the ping
	if c.Status().PauseReason == "" {
		t.Error("the project is not paused")
	}
}

// No part of the key comes out, wherever the body is parted. What only begins like it does.
func TestForwardedBodyHoldsTheKeyBack(t *testing.T) {
	t.Parallel()
	const key = "sk_secret"
	read := func(text string, part func(io.Reader) io.Reader) (string, error) {
		watched, w, stop := (&Client{cfg: Config{Timeout: time.Minute}}).watchFor(t.Context(), time.Minute)
		w.pause()
		body := &forwardedBody{
			ctx: watched, from: io.NopCloser(part(strings.NewReader(text))), w: w, left: 1 << 20, key: []byte(key), end: stop,
		}
		got, err := io.ReadAll(body)
		_ = body.Close()
		return string(got), err
	}
	for name, part := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "halves": iotest.HalfReader,
		"end with data": iotest.DataErrReader,
	} {
		for _, text := range []string{"", "x", "sk_", "a sk_secre", "sk_sk_secresk_s", "sk_secre\x00t"} {
			if got, err := read(text, part); err != nil || got != text {
				t.Errorf("%s: %q = %q, %v; want it as it is", name, text, got, err)
			}
		}
		for _, text := range []string{key, "x" + key, "sk_" + key + "x", strings.Repeat("y", 100_000) + key} {
			got, err := read(text, part)
			if !errors.Is(err, ErrHoldsKey) || strings.Contains(got, "sk_s") {
				t.Errorf("%s: %.20q = %.20q, %v; want nothing of the key", name, text, got, err)
			}
		}
	}
	long := bytes.Repeat([]byte("z"), 2<<20)
	got, err := read(string(long), func(r io.Reader) io.Reader { return r })
	if !errors.Is(err, errTooLarge) || len(got) > 1<<20 {
		t.Errorf("a body that is too long = %d bytes, %v; want errTooLarge", len(got), err)
	}
}

// The failure of a body that is being sent is its own, and no trouble of Liveblocks.
func TestForwardOfABrokenBody(t *testing.T) {
	t.Parallel()
	_, c := newFake(t)
	broken := errors.New("the caller is gone")
	r := post(t, io.MultiReader(strings.NewReader("{"), iotest.ErrReader(broken)))
	r.ContentLength = -1 // unknown, as a server has it
	resp, err := c.Forward("", r, atOnce)
	if !errors.Is(err, broken) || !errors.Is(err, ErrNoAnswer) {
		t.Errorf("Forward = %v; want the error of the body", err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
	if s := c.Status(); !s.FailingSince.IsZero() || !s.ThrottledUntil.IsZero() {
		t.Errorf("Status = %+v; want no trouble", s)
	}
}
