package app

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener without a network, whose connections have no buffers. Time
// stands still in a synctest bubble only where nobody waits for a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// get begins a download and returns its connection, of which the caller reads as
// slowly as he likes.
func (p *pipes) get(t *testing.T) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { _ = client.Close() })
	p.conns <- server
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return client
}

// Downloads have half of the grace period, and what stands behind them the rest.
func TestStopLeavesHalfToDownloads(t *testing.T) {
	t.Parallel()
	const grace = 20 * time.Second
	for name, c := range map[string]struct {
		size       int           // of the download; its reader takes a byte a second
		cut        bool          // whether it is cut
		ends, took time.Duration // when the download ends, and the stop
	}{
		"one that ends in time": {size: 6, ends: 6 * time.Second, took: 6 * time.Second},
		"one that does not":     {size: 1 << 20, cut: true, ends: grace / 2, took: grace / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				stop := newStopper(slog.New(slog.DiscardHandler), grace)
				var behind time.Time
				stop.goRun("behind", func(ctx context.Context) error {
					<-ctx.Done()
					behind = time.Now()
					return nil
				})
				l := newPipes()
				server := newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					for range c.size {
						if _, err := w.Write([]byte{'x'}); err != nil {
							return
						}
						if err := http.NewResponseController(w).Flush(); err != nil {
							return
						}
					}
				}), time.Minute, nil, slog.New(slog.DiscardHandler))
				stop.goServe("HTTP server", func() error { return server.Serve(l) },
					func(ctx context.Context) { stopHTTP(ctx, server) })

				conn := l.get(t)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // it is, below
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				began := time.Now()
				type end struct {
					bytes int
					err   error
					at    time.Time
				}
				ended := make(chan end, 1)
				go func() { // collected below
					for n := 0; ; n++ {
						if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
							ended <- end{n, err, time.Now()}
							return
						}
						<-time.After(time.Second)
					}
				}()
				stop.all()
				took := time.Since(began)
				got := <-ended
				if cut := !errors.Is(got.err, io.EOF); cut != c.cut || !cut && got.bytes != c.size {
					t.Errorf("the download ended with %v after %d bytes; want it cut: %t", got.err, got.bytes, c.cut)
				}
				near := func(got, want time.Duration) bool { return got >= want-time.Second && got <= want+time.Second }
				if at := got.at.Sub(began); !near(at, c.ends) {
					t.Errorf("the download ended after %s; want about %s", at, c.ends)
				}
				if at := behind.Sub(began); !near(at, c.took) {
					t.Errorf("what stands behind was told to stop after %s; want about %s", at, c.took)
				}
				if !near(took, c.took) {
					t.Errorf("it took %s to stop; want about %s", took, c.took)
				}
			})
		})
	}
}

// Each door takes half of what is left, so that two of them do not use all of it up.
func TestStopLeavesTimeBehindEveryDoor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const grace = 20 * time.Second
		stop := newStopper(slog.New(slog.DiscardHandler), grace)
		began, told := time.Now(), time.Duration(0)
		stop.goRun("behind", func(ctx context.Context) error {
			<-ctx.Done()
			told = time.Since(began)
			return errors.New("ended with an error")
		})
		for range 2 {
			l := newPipes()
			server := newHTTPServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
				time.Minute, nil, slog.New(slog.DiscardHandler))
			stop.goServe("HTTP server", func() error { return server.Serve(l) },
				func(ctx context.Context) { stopHTTP(ctx, server) })
			l.get(t)
		}
		synctest.Wait()
		stop.all()
		if want := grace * 3 / 4; told != want {
			t.Errorf("what stands behind two doors was told to stop after %s; want %s", told, want)
		}
	})
}
