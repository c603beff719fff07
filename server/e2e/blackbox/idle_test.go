package blackbox_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/liveblockstest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/pgembed"
)

const (
	// idleFor is how long nothing may be heard of the service. A host that suspends
	// idle databases does so after minutes; any query on a shorter round keeps them up.
	idleFor = 2 * time.Minute
	// settled is how long the log has to be quiet for the work to count as done: six
	// times what a busy service waits between two looks for work.
	settled = 3 * time.Second
)

// idleService is a service on a PostgreSQL that logs every statement and connection.
type idleService struct {
	*harness.Service
	log  string
	conn *grpc.ClientConn
}

func startIdle(t *testing.T) (idleService, *harness.Fake) {
	t.Helper()
	dir := harness.Dir(t, nil)
	i := idleService{log: filepath.Join(dir, "statements.log")}
	pg, err := pgembed.Start(t.Context(), pgembed.Config{
		DataDir: filepath.Join(dir, "data"), LogPath: i.log, Settings: map[string]string{
			"log_statement": "all", "log_connections": "on", "log_min_duration_statement": "0", "fsync": "off", "shared_buffers": "16MB",
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
	fake := harness.NewFake(t)
	i.Service = harness.Start(t, harness.Options{DatabaseURL: pg.URL(), UpstreamURL: fake.URL})
	i.conn = i.Dial(t)
	return i, fake
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
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json"} {
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
// the hour can sleep. Probes do not count as work.
func TestIdleSendsNoQuery(t *testing.T) {
	t.Parallel()
	needServers(t)
	s, fake := startIdle(t)
	for n := range 20 {
		room := fmt.Sprintf("room %d", n%4)
		if n < 4 {
			create(t, s.Service, fake, room, liveblockstest.RoomOptions{})
		}
		if err := fake.SetStorage(room, storage(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		tell(t, s.Service, liveblockstest.StorageUpdated, room)
	}
	for n := range 4 {
		awaitStorage(t, s.Service, fmt.Sprintf("room %d", n), storage(fmt.Sprint(16+n)))
	}
	if log := mustRead(t, s.log); bytes.Count(log, []byte("insert into mirror_event")) == 0 {
		t.Fatalf("the log has nothing of the work that was done:\n%.2000s", log)
	}

	// The last of the work: settle fetches, and the look that finds nothing more.
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
			if strings.Contains(line, "statement:") || strings.Contains(line, "execute ") || strings.Contains(line, "connection") || strings.Contains(line, "duration:") {
				t.Errorf("while idle: %s", line)
			}
		}
		t.Logf("all of what the log gained in %s:\n%s", idleFor, said)
	}

	// It was idle and not dead.
	if err := fake.SetStorage("room 0", storage(`"awake"`)); err != nil {
		t.Fatal(err)
	}
	tell(t, s.Service, liveblockstest.StorageUpdated, "room 0")
	awaitStorage(t, s.Service, "room 0", storage(`"awake"`))
}
