package crash_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

const (
	// randomKills is how many kills TestRandomKills does on all its databases together,
	// unless TEST_KILLS says otherwise.
	randomKills = 50
	// killsPerRound is how many there are until everything has to be there again.
	killsPerRound = 5
)

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s = %q; want a number", name, text)
	}
	return n
}

// victim is a service with its database, either of which can be killed.
type victim struct {
	s       *site
	service *harness.Service
	// crash kills the database and returns when it runs again; with the service's own,
	// that is the service's work.
	crash func()
	// own says that the database ends with the service.
	own bool
}

func separate(e *dbtest.Engine) func(t *testing.T) *victim {
	return func(t *testing.T) *victim {
		t.Helper()
		server := e.Server(t)
		v := &victim{s: newSiteAt(t, e, server.URL)}
		v.crash = func() {
			server.Kill(t)
			server.Restart(t)
			// A service that finds nobody at the address would not start.
			eventually(t, func() error { return v.s.db.PingContext(t.Context()) })
		}
		return v
	}
}

func together(t *testing.T) *victim {
	t.Helper()
	s, service, dataDir := embedded(t, nil)
	return &victim{s: s, service: service, own: true, crash: func() {
		pid, _, err := embeddedServer(dataDir)
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatalf("kill PostgreSQL = %v", err)
		}
		eventually(t, func() error {
			next, _, err := embeddedServer(dataDir)
			if err != nil {
				return err
			}
			return unless(next != pid, "no new server yet")
		})
	}}
}

// The service, its database or both are killed at random moments, with the settings
// that they have by default. After each round everything that was acknowledged is
// there, and soon after the last start nothing is stale. TEST_KILLS and TEST_SEED
// choose how many and which.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	seed := number(t, "TEST_SEED", rand.Uint64())
	total := int(number(t, "TEST_KILLS", randomKills))
	places := []struct {
		name string
		at   func(t *testing.T) *victim
	}{
		{dbtest.Postgres.Name, separate(dbtest.Postgres)},
		{dbtest.MySQL.Name, separate(dbtest.MySQL)},
		{"embedded", together},
	}
	for i, place := range places {
		t.Run(place.name, func(t *testing.T) {
			t.Parallel()
			n := (total + i) / len(places)
			t.Logf("%d kills with seed %d", n, seed)
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			v := place.at(t)
			for _, setting := range []string{"LEASE_TTL", "BUSY_POLL", "BACKOFF_MIN", "BACKOFF_MAX"} {
				v.s.env["MIRROR_"+setting] = "" // the default
			}
			if v.service == nil {
				v.service = v.s.start()
			}
			v.s.populate(v.service)
			var slowest time.Duration
			counts := map[string]int{}
			for done := 0; done < n; {
				stop := v.s.load()
				var started time.Time
				for range min(killsPerRound, n-done) {
					v.s.more(1 + rng.Int64N(30))
					counts[v.kill(rng.IntN(3))]++
					started = time.Now()
					done++
				}
				stop()
				v.s.converge(v.service)
				slowest = max(slowest, time.Since(started))
				if t.Failed() {
					t.Fatalf("after %d kills: %v", done, counts)
				}
			}
			t.Logf("kills: %v; %d deliveries acknowledged; everything was fresh at most %s after the last start, with the "+
				"load's end in it", counts, v.s.acked.Load(), slowest.Round(time.Millisecond))
			if v.own {
				v.s.end(v.service)
			}
		})
	}
}

// kill kills one of the two, or both, and starts them again.
func (v *victim) kill(which int) string {
	v.s.t.Helper()
	switch which {
	case 0:
		v.s.kill(v.service)
		v.service = v.s.start()
		return "service"
	case 1:
		v.crash()
		return "database"
	default:
		if !v.own {
			v.s.kill(v.service)
			v.crash()
		} else {
			v.crash()
			v.s.kill(v.service)
		}
		v.service = v.s.start()
		return "both"
	}
}
