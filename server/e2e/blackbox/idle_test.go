package blackbox_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/pgembed"
)

const (
	// idleFor is how long nothing may be heard of the service. A host that suspends
	// idle databases does so after minutes; any query on a shorter round keeps them up.
	idleFor = 2 * time.Minute
	// settled is how long the log has to be quiet for the work to count as done: forty
	// times what a busy service waits between two looks for work, so that the last
	// look is over on a machine that does much else, too.
	settled = 20 * time.Second
	// scrapes is how often the metrics are read meanwhile, beside the probes.
	scrapes = 1000
)

// idleService is a service on a database server that logs every statement and
// connection.
type idleService struct {
	*harness.Service
	log  string
	conn *grpc.ClientConn
}

// logging starts a database server that writes a log, and returns the URL of a
// database.
var logging = map[*dbtest.Engine]func(t *testing.T, log string) (url string){
	dbtest.Postgres: func(t *testing.T, log string) string {
		t.Helper()
		pg, err := pgembed.Start(t.Context(), pgembed.Config{
			DataDir: filepath.Join(filepath.Dir(log), "data"), LogPath: log, Settings: map[string]string{
				"log_statement": "all", "log_connections": "on", "log_min_duration_statement": "0", "fsync": "off",
				"shared_buffers": "16MB",
				// The checkpointer says when it has worked; that is not the service.
				"log_checkpoints": "off",
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
			defer cancel()
			if err := pg.Stop(ctx); err != nil {
				t.Errorf("stop PostgreSQL: %v", err)
			}
		})
		return pg.URL()
	},
	dbtest.MySQL: func(t *testing.T, log string) string {
		t.Helper()
		if err := os.Chmod(filepath.Dir(log), 0o777); err != nil { // the server may have an account of its own
			t.Fatal(err)
		}
		server := mysqltest.Start(t,
			mysqltest.Options{Settings: map[string]string{"general_log": "on", "general_log_file": log}})
		return server.Database(t, "mirror")
	},
}

// spoken reports whether a line of an engine's log is about something that a client
// did.
var spoken = map[*dbtest.Engine]func(line string) bool{
	dbtest.Postgres: func(line string) bool {
		return slices.ContainsFunc([]string{"statement:", "execute ", "connection", "duration:"},
			func(s string) bool { return strings.Contains(line, s) })
	},
	dbtest.MySQL: func(string) bool { return true }, // its general log has nothing else
}

func startIdle(t *testing.T, e *dbtest.Engine) (idleService, *harness.Fake) {
	t.Helper()
	e.Need(t)
	i := idleService{log: filepath.Join(harness.Dir(t, nil), "statements.log")}
	upstream := harness.NewFake(t)
	i.Service = harness.Start(t, harness.Options{
		DatabaseURL: logging[e](t, i.log), UpstreamURL: upstream.URL,
		Env: map[string]string{
			"MIRROR_SWEEP_INTERVAL": "1h", "MIRROR_FULL_SWEEP_INTERVAL": "24h",
		},
	})
	i.conn = i.Dial(t)
	return i, upstream
}

// size is how much the log holds.
func (i idleService) size(t *testing.T) int64 {
	t.Helper()
	info, err := os.Stat(i.log)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// probe asks what a platform's probes ask all the time.
func (i idleService) probe(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/metrics"} {
		if status, _, body := i.Get(t, path); status != http.StatusOK {
			t.Errorf("%s = %d %s; want 200", path, status, body)
		}
	}
	health, err := healthv1.NewHealthClient(i.conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health = %v, %v; want SERVING", health, err)
	}
}

// A service without work sends its database nothing at all, so that one that is paid by
// the hour can sleep. Probes and scrapes of the metrics do not count as work.
func TestIdleSendsNoQuery(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s, upstream := startIdle(t, e)
		followers := make([]*follower, 10)
		for n := range followers {
			followers[n] = followChanges(t, s.conn)
		}
		for n := range 20 {
			room := fmt.Sprintf("room %d", n%4)
			if n < 4 {
				create(t, s.Service, upstream, room, fake.RoomOptions{})
			}
			if err := upstream.SetStorage(room, storage(fmt.Sprint(n))); err != nil {
				t.Fatal(err)
			}
			tell(t, s.Service, fake.StorageUpdated, room)
		}
		for n := range 4 {
			awaitStorage(t, s.Service, fmt.Sprintf("room %d", n), storage(fmt.Sprint(16+n)))
		}
		if log := mustRead(t, s.log); bytes.Count(log, []byte("insert into mirror_event")) == 0 {
			t.Fatalf("the log has nothing of the work that was done:\n%.2000s", log)
		}

		// The last of the work: settle fetches, and the look that finds nothing more.
		awaitIdle(t, s.Service, mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP) // which is due in an hour
		var begun int64
		quiet := time.Now()
		harness.Eventually(t, patience, func() error {
			if size := s.size(t); size != begun {
				begun, quiet = size, time.Now()
			}
			if time.Since(quiet) < settled {
				return fmt.Errorf("the database was busy %s ago", time.Since(quiet))
			}
			return nil
		})

		for range scrapes {
			if status, _, body := s.Get(t, "/metrics"); status != http.StatusOK ||
				!bytes.Contains(body, []byte("\nmirror_webhook_deliveries_total{")) {
				t.Fatalf("/metrics = %d %.300s; want the count of deliveries", status, body)
			}
		}
		ticker := time.NewTicker(5 * time.Second)
		defer ticker.Stop()
		for end := time.Now().Add(idleFor); time.Now().Before(end); {
			s.probe(t)
			select {
			case <-ticker.C:
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			}
		}
		if said := mustRead(t, s.log)[begun:]; len(said) > 0 {
			for line := range strings.Lines(string(said)) {
				if spoken[e](line) {
					t.Errorf("while idle: %s", line)
				}
			}
			t.Logf("all of what the log gained in %s:\n%s", idleFor, said)
		}

		// It was idle and not dead.
		if err := upstream.SetStorage("room 0", storage(`"awake"`)); err != nil {
			t.Fatal(err)
		}
		before := make([]int, len(followers))
		for n, f := range followers {
			before[n] = f.count("room 0")
		}
		tell(t, s.Service, fake.StorageUpdated, "room 0")
		awaitStorage(t, s.Service, "room 0", storage(`"awake"`))
		for n, f := range followers {
			harness.Eventually(t, patience, func() error {
				if now := f.count("room 0"); now <= before[n] {
					return fmt.Errorf("follower %d saw %d changes of the room before and now", n, now)
				}
				return nil
			})
		}
	})
}

// follower counts the changes of documents that a stream has told of, by room.
type follower struct {
	mu   sync.Mutex
	seen map[string]int
}

func (f *follower) count(room string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[room]
}

// followChanges follows from now on until the test ends.
func followChanges(t *testing.T, conn *grpc.ClientConn) *follower {
	t.Helper()
	f := &follower{seen: make(map[string]int)}
	stream, err := mirrorv1.NewChangeServiceClient(conn).WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{
		Kinds: []mirrorv1.ResourceKind{mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE},
	})
	if err == nil {
		_, err = stream.Recv() // the first message comes at once
	}
	if err != nil {
		t.Fatalf("WatchChanges = %v", err)
	}
	go func() { // ends with the test
		for {
			message, err := stream.Recv()
			if err != nil {
				return
			}
			f.mu.Lock()
			for _, c := range message.GetChanges().GetChanges() {
				f.seen[c.GetRoomId()]++
			}
			f.mu.Unlock()
		}
	}()
	return f
}
