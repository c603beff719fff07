package liveblocks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
)

// answering is a transport that answers every call with a body.
type answering struct {
	body  string
	known bool // the length is
}

func (a answering) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/octet-stream"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(a.body)), ContentLength: -1,
	}
	if a.known {
		resp.ContentLength = int64(len(a.body))
	}
	return resp, nil
}

// A long body is read once there is memory for it, however long that takes, and holds
// that until its work ends. A short one waits for nothing.
func TestBodiesWaitForMemory(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	lson := func(n int) string {
		return `{"liveblocksType":"LiveObject","data":{"x":"` + strings.Repeat("x", n) + `"}}`
	}
	storage := func(ctx context.Context, c *Client) (int, error) {
		got, err := c.Storage(ctx, "r")
		return len(got.Body), err
	}
	threads := func(ctx context.Context, c *Client) (n int, err error) {
		got, err := c.Threads(ctx, "r")
		for _, item := range got.Items {
			n += len(item.Source)
		}
		return n, err
	}
	list := strings.Repeat(`,{"id":"th_1234567890","text":"`+strings.Repeat("x", 1000)+`"}`, 3000)
	for name, c := range map[string]struct {
		answer answering
		call   func(context.Context, *Client) (int, error)
		waits  bool
		holds  int64 // at least
	}{
		"known":         {answering{lson(3 * mib), true}, storage, true, 3 * mib},
		"unknown":       {answering{lson(3 * mib), false}, storage, true, 3 * mib},
		"list":          {answering{`{"data":[` + list[1:] + `]}`, false}, threads, true, 3 * mib},
		"short":         {answering{lson(mib / 2), true}, storage, false, 0},
		"short unknown": {answering{lson(mib / 4), false}, storage, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				budget := memory.New(32 * mib)
				others, free := budget.Begin(t.Context())
				if err := memory.ForDecoding(others, 32*mib); err != nil {
					t.Fatal(err)
				}
				client := newClient(t, "http://liveblocks.test", func(cfg *Config) {
					cfg.Transport, cfg.IdleTimeout, cfg.Timeout = c.answer, time.Second, 10*time.Second
				})
				ctx, end := budget.Begin(t.Context())
				var n int
				var err error
				done := make(chan struct{})
				go func() {
					defer close(done)
					n, err = c.call(ctx, client)
				}()
				<-time.After(time.Hour) // of the bubble
				select {
				case <-done:
					if c.waits {
						t.Fatalf("the body was read without memory for it: %d bytes, %v", n, err)
					}
				default:
					if !c.waits {
						t.Fatal("a short body waits")
					}
				}
				free()
				<-done
				if err != nil || c.holds > 0 && n == 0 {
					t.Fatalf("call = %d bytes, %v", n, err)
				}
				if used := budget.Used(); used < c.holds || used > 4*c.holds {
					t.Errorf("%d bytes are held for a body of %d", used, n)
				}
				end()
				if used := budget.Used(); used != 0 {
					t.Errorf("%d bytes are held after the end", used)
				}
			})
		})
	}
}

// Who stops waiting for memory gets the error of the context.
func TestWaitForMemoryEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		budget := memory.New(1 << 20)
		others, free := budget.Begin(t.Context())
		defer free()
		if err := memory.ForDecoding(others, 1<<20); err != nil {
			t.Fatal(err)
		}
		c := newClient(t, "http://liveblocks.test", func(cfg *Config) {
			cfg.Transport = answering{body: string(bytes.Repeat([]byte("x"), 2<<20)), known: true}
		})
		ctx, end := budget.Begin(t.Context())
		defer end()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if _, err := c.Ydoc(ctx, "r", ""); err == nil || fmt.Sprint(err) != "get ydoc: context deadline exceeded" {
			t.Fatalf("Ydoc = %v; want the error of the context", err)
		}
	})
}
