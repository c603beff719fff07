package crash_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// lead makes the next of the proxy's servers the one in use for new connections.
func (p *proxy) lead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.servers = append(p.servers[1:], p.servers[0])
}

// The primary of a pair fails under load: it dies, or it lives and refuses writes,
// with the service's sessions to it open. Until the replica is promoted, deliveries
// are answered 503 and the service is not ready. Afterwards it goes on by itself over
// new connections, and nothing that was acknowledged is lost.
func TestFailover(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, c := range []struct {
			name string
			fail func(t *testing.T, p *dbtest.Pair)
		}{
			{"primary dies", func(t *testing.T, p *dbtest.Pair) { t.Helper(); p.Kill(t) }},
			{"primary refuses writes", func(t *testing.T, p *dbtest.Pair) { t.Helper(); p.Demote(t) }},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				pair := e.Pair(t)
				s := newSiteAt(t, e, "")
				s.db = e.Connect(t, pair.Primary)
				s.through(newProxy(t, e, pair.Primary, pair.Replica))
				service := s.start()
				s.populate(service)
				stop := s.load()
				s.more(30)

				var refused atomic.Int64
				var promoted, again atomic.Pointer[time.Time]
				watch := func(status int, _ http.Header) {
					switch status {
					case http.StatusServiceUnavailable:
						refused.Add(1)
					case http.StatusOK:
						if now := time.Now(); promoted.Load() != nil {
							again.CompareAndSwap(nil, &now)
						}
					}
				}
				s.onAnswer.Store(&watch)
				failed := time.Now()
				c.fail(t, pair)
				eventually(t, func() error { return unless(refused.Load() >= 3, "%d deliveries refused", refused.Load()) })
				eventually(t, func() error {
					code, _, body := service.Get(t, "/readyz")
					return unless(code == http.StatusServiceUnavailable && strings.Contains(string(body), "takes no writes"),
						"/readyz = %d %s; want 503, because the database takes no writes", code, body)
				})

				pair.Promote(t)
				if c.name == "primary refuses writes" {
					s.proxy.lead() // what is open stays where it is
				}
				s.db = e.Connect(t, pair.Replica)
				now := time.Now()
				promoted.Store(&now)
				s.more(50)
				s.wantReady(service, http.StatusOK)
				t.Logf("deliveries were answered 503 for %s, %s of it after the replica was promoted",
					again.Load().Sub(failed).Round(time.Millisecond), again.Load().Sub(now).Round(time.Millisecond))
				stop()
				s.converge(service)
			})
		}
	})
}
