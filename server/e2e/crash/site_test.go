package crash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/liveblockstest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/pgembed/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// site is one mirror under test: a fake Liveblocks, a database, and a sender
// that delivers each event as Svix does, under one id until it is accepted.
type site struct {
	t     *testing.T
	fake  *harness.Fake
	db    string // straight to the database
	proxy *proxy // nil where the service needs none
	env   map[string]string

	serviceURL string                                 // what the service is given
	targets    atomic.Pointer[[]*harness.Service]     // where deliveries go
	events     chan liveblockstest.Event              // what the fake has to tell
	senders    sync.WaitGroup                         // end when events is closed and sent
	onAnswer   atomic.Pointer[func(status int, h http.Header)]
	acked      atomic.Int64

	mu    sync.Mutex
	sent  map[string]*sent
	stray []string // answers that no delivery should get
}

// sent is one delivery.
type sent struct {
	body  []byte
	acked bool
}

// initialRooms is how many rooms are mirrored before anything goes wrong.
const initialRooms = 30

// senderCount is how many connections deliver at once.
const senderCount = 6

// clone is a database with the current schema, for one test.
func clone(t *testing.T) string {
	t.Helper()
	return pgtest.Clone(t, pgtest.Template(t, "schema", func(ctx context.Context, url string) error {
		return postgres.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	}))
}

// newSite makes a site with a database of its own behind a proxy.
func newSite(t *testing.T) *site {
	t.Helper()
	s := newSiteOn(t, clone(t))
	s.proxy = newProxy(t, s.db)
	s.serviceURL = s.proxy.url
	return s
}

// newSiteOn makes a site on a database that is there.
func newSiteOn(t *testing.T, db string) *site {
	t.Helper()
	s := &site{
		t: t, fake: harness.NewFake(t), db: db, serviceURL: db,
		env: map[string]string{"MIRROR_MIGRATE": "false", "MIRROR_LEASE_TTL": "1s"},
		events: make(chan liveblockstest.Event, 64), sent: make(map[string]*sent),
	}
	s.targets.Store(&[]*harness.Service{})
	s.fake.OnEvent(func(ev liveblockstest.Event) { s.events <- ev })
	for range senderCount {
		s.senders.Go(func() {
			for ev := range s.events {
				s.deliver(harness.SignEvent(t, ev))
			}
		})
	}
	t.Cleanup(s.drain)
	return s
}

// drain waits until every event was delivered. No change may come any more.
func (s *site) drain() {
	s.fake.OnEvent(nil)
	select {
	case <-s.t.Context().Done(): // the end of the test ends deliveries, too
	default:
	}
	s.closeEvents()
	s.senders.Wait()
}

func (s *site) closeEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events != nil {
		close(s.events)
		s.events = nil
	}
}

// start starts a service of the site; deliveries go to all that were started
// and not killed.
func (s *site) start(extra ...string) *harness.Service {
	s.t.Helper()
	env := maps.Clone(s.env)
	for _, kv := range extra {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	service := harness.Start(s.t, harness.Options{DatabaseURL: s.serviceURL, UpstreamURL: s.fake.URL, Env: env})
	now := append(slices.Clone(*s.targets.Load()), service)
	s.targets.Store(&now)
	return service
}

// kill ends a service with SIGKILL.
func (s *site) kill(service *harness.Service) {
	service.Kill()
	now := slices.DeleteFunc(slices.Clone(*s.targets.Load()), func(o *harness.Service) bool { return o == service })
	s.targets.Store(&now)
}
