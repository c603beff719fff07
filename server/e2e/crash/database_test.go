package crash_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
)

// refusals counts the deliveries of s that are refused from now on, which they
// are with 503 and Retry-After; any other answer fails in [site.converge].
func (s *site) refusals() *atomic.Int64 {
	var n atomic.Int64
	count := func(status int, _ http.Header) {
		if status == http.StatusServiceUnavailable {
			n.Add(1)
		}
	}
	s.onAnswer.Store(&count)
	return &n
}

// wantReady waits until /readyz answers so.
func (s *site) wantReady(service *harness.Service, status int) {
	s.t.Helper()
	eventually(s.t, func() error {
		code, _, body := service.Get(s.t, "/readyz")
		return unless(code == status, "/readyz = %d %s; want %d", code, body, status)
	})
}

// Invariant 1 while the database comes and goes: what cannot be recorded is
// refused, and what was acknowledged outlives a crash of the server.
func TestDatabaseKilled(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		server := e.Server(t)
		s := newSiteAt(t, e, server.URL)
		service := s.start()
		s.populate(service)
		s.wantReady(service, http.StatusOK)
		stop := s.load()
		s.more(20)

		// An outage that lasts: the server comes back, and the way to it stays cut
		// until all was seen.
		refused := s.refusals()
		s.proxy.shut()
		server.Kill(t)
		server.Restart(t)
		eventually(t, func() error { return unless(refused.Load() >= 3, "%d deliveries refused", refused.Load()) })
		s.wantReady(service, http.StatusServiceUnavailable)
		if code, _, _ := service.Get(t, "/healthz"); code != http.StatusOK {
			t.Fatalf("/healthz in an outage = %d; want 200, or the process would be restarted for nothing", code)
		}
		s.proxy.open()
		s.wantReady(service, http.StatusOK)
		s.more(50)

		// One as short as it can be.
		server.Kill(t)
		server.Restart(t)
		s.more(50)

		// Connections that break, wherever they are.
		for range 5 {
			s.proxy.shut()
			s.proxy.open()
			s.more(15)
		}
		s.wantReady(service, http.StatusOK)
		stop()
		s.converge(service)
	})
}

// embeddedServer reads from the pid file of the data folder who runs there, and
// in which folder the socket is.
func embeddedServer(dataDir string) (pid int, socket string, err error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "pgdata", "postmaster.pid"))
	if err != nil {
		return 0, "", err
	}
	lines := strings.Split(string(b), "\n")
	if err := unless(len(lines) > 7 && strings.HasPrefix(lines[7], "ready"), "the server is not ready"); err != nil {
		return 0, "", err
	}
	pid, err = strconv.Atoi(lines[0])
	return pid, lines[4], err
}

// embedded makes a site whose service runs a database of its own, and starts it.
func embedded(t *testing.T, as *syscall.Credential) (s *site, service *harness.Service, dataDir string) {
	t.Helper()
	dataDir = filepath.Join(harness.Dir(t, as), "data")
	s = newSiteAt(t, dbtest.Postgres, "")
	s.as = as
	s.env["MIRROR_DATA_DIR"] = dataDir
	service = s.start()
	_, socket, err := embeddedServer(dataDir)
	if err != nil {
		t.Fatalf("embedded server = %v", err)
	}
	query := url.Values{"host": {socket}, "port": {"5432"}, "user": {"postgres"}, "sslmode": {"disable"}}
	s.db = dbtest.Postgres.Connect(t, (&url.URL{Scheme: "postgres", Path: "/mirror", RawQuery: query.Encode()}).String())
	return s, service, dataDir
}

// end stops the service in order, so that no server is left in a folder that is
// about to go.
func (s *site) end(service *harness.Service) {
	s.t.Helper()
	_ = s.db.Close() // there is nothing to flush
	if _, err := service.Stop(s.t); err != nil {
		s.t.Fatalf("Stop = %v", err)
	}
}

func TestEmbeddedPostgresKilled(t *testing.T) {
	t.Parallel()
	s, service, dataDir := embedded(t, nil)
	s.populate(service)
	stop := s.load()
	s.more(20)
	refused := s.refusals()
	for range 2 {
		before := refused.Load()
		pid, _, err := embeddedServer(dataDir)
		if err != nil {
			t.Fatalf("embedded server = %v", err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill PostgreSQL = %v", err)
		}
		// A new server that is there before the outage was seen is killed too: the service may be
		// ready as soon as the new one answers.
		eventually(t, func() error {
			code, _, _ := service.Get(t, "/readyz")
			n := refused.Load() - before
			if code == http.StatusServiceUnavailable && n > 0 {
				return nil
			}
			if next, _, err := embeddedServer(dataDir); err == nil && next != pid {
				pid = next
				_ = syscall.Kill(pid, syscall.SIGKILL) // it has ended if this fails
			}
			return fmt.Errorf("/readyz = %d and %d deliveries refused since PostgreSQL was killed; want 503 and some", code, n)
		})
		eventually(t, func() error {
			next, _, err := embeddedServer(dataDir)
			if err != nil {
				return err
			}
			return unless(next != pid, "no new server yet")
		})
		s.wantReady(service, http.StatusOK)
		s.more(50)
	}
	stop()
	s.converge(service)
	s.end(service)
}

// The default needs no database of the user's: it is there after a crash, for
// root as for anybody else.
func TestEmbeddedServiceKilled(t *testing.T) {
	t.Parallel()
	accounts := map[string]*syscall.Credential{"own account": nil}
	if os.Geteuid() == 0 {
		const nobody = 65534
		accounts["nobody"] = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	for name, as := range accounts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, service, dataDir := embedded(t, as)
			s.populate(service)
			var st syscall.Stat_t
			if err := syscall.Stat(filepath.Join(dataDir, "pgdata"), &st); err != nil {
				t.Fatalf("Stat = %v", err)
			}
			if as != nil && st.Uid != as.Uid || st.Uid == 0 {
				t.Fatalf("the data belongs to account %d; want that of the service, and never root", st.Uid)
			}
			stop := s.load()
			for range 2 {
				s.more(30)
				s.kill(service)
				service = s.start()
			}
			s.more(50)
			stop()
			s.converge(service)
			s.end(service)
		})
	}
}

// A connection that breaks in the middle of a commit leaves the service not
// knowing. It must not claim what it does not know, and the next attempt settles
// it: the event counts once, and what it tells of is fetched although nothing
// else comes in. That attempt may reach another replica, because the first one
// has died of it.
func TestLedgerCommitCut(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		when moment
		// commit means the statement that commits, which may be the only one.
		commit   bool
		recorded int
		dies     bool
	}{
		{name: "statement not sent", when: beforeSend},
		{name: "statement half sent", when: halfSent},
		{name: "commit not sent", when: beforeSend, commit: true},
		{name: "commit half sent", when: halfSent, commit: true},
		{name: "reply lost", when: beforeReply, commit: true, recorded: 1},
		{name: "reply and service lost", when: beforeReply, commit: true, recorded: 1, dies: true},
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, c := range cases {
			statement := []string{wordsOf[e].ledger}
			if c.commit {
				if wordsOf[e].alone && c.recorded == 0 {
					continue // the same as the case of the statement
				}
				statement = append(statement, "commit")
			}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				service := s.start("MIRROR_BUSY_POLL=100ms")
				next := service
				s.create("room", document(1))
				s.converge(service)
				if c.dies {
					next = s.start("MIRROR_BUSY_POLL=100ms")
				}
				s.idle(500 * time.Millisecond) // no look for work of earlier days finds this one by chance

				s.upstream.OnEvent(nil) // this one is delivered by hand
				d := s.update("room", document(2))
				tr := s.proxy.set(c.when, statement...)
				type answer struct {
					code   int
					header http.Header
					err    error
				}
				first := make(chan answer, 1)
				go func() {
					code, header, err := s.post(service, d)
					first <- answer{code, header, err}
				}()
				tr.await(t)
				if n := recorded(s, []string{d.ID}); n != c.recorded {
					t.Fatalf("event recorded %d times; want %d", n, c.recorded)
				}
				if c.dies {
					s.kill(service)
				}
				tr.cut()
				switch got := <-first; {
				case c.dies && got.err == nil:
					t.Fatalf("answer of the dead = %d; want none", got.code)
				case !c.dies && (got.err != nil || got.code != http.StatusServiceUnavailable ||
					got.header.Get("Retry-After") == ""):
					t.Fatalf("answer after the cut = %d, %v, %v; want 503 with Retry-After", got.code, got.header, got.err)
				}
				generation := one[int64](s, "select generation from mirror_resource_state where kind = 2")

				code, _, body, err := s.exchange(next, d)
				var receipt struct{ Duplicate bool }
				if err != nil || code != http.StatusOK || json.Unmarshal(body, &receipt) != nil ||
					receipt.Duplicate != (c.recorded == 1) {
					t.Fatalf("second attempt = %d %s, %v; want 200, and a duplicate: %v", code, body, err, c.recorded == 1)
				}
				s.sent[d.ID] = &sent{body: d.Body, acked: true}
				want := generation + 1 - int64(c.recorded)
				if got := one[int64](s, "select generation from mirror_resource_state where kind = 2"); got != want {
					t.Fatalf("generation = %d; want %d: a duplicate raises none", got, want)
				}
				s.converge(next)
			})
		}
	})
}

// update changes a document whose event nobody delivers, and returns its signed
// webhook.
func (s *site) update(room string, lson []byte) harness.Delivery {
	s.t.Helper()
	if err := s.upstream.SetStorage(room, lson); err != nil {
		s.t.Fatalf("SetStorage = %v", err)
	}
	return harness.SignEvent(s.t, storageUpdated(room))
}

// changes is how many numbers the feed has given out.
func (s *site) changes() int64 {
	s.t.Helper()
	return one[int64](s, "select coalesce(sum(n), 0) from mirror_feed_head")
}

// The same for what was fetched: whether it was written or not, it ends up there
// once.
func TestApplyCommitCut(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for name, when := range map[string]moment{"commit not sent": beforeSend, "reply lost": beforeReply} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				service := s.start()
				s.create("room", document(1))
				s.converge(service)
				changes := s.changes()
				tr := s.proxy.set(when, writeDocument, "commit")
				if err := s.upstream.SetStorage("room", document(2)); err != nil {
					t.Fatalf("SetStorage = %v", err)
				}
				tr.await(t)
				want := 0
				if when == beforeReply {
					want = 1
				}
				if n := written(s, tr); n != want {
					t.Fatalf("document written %d times; want %d", n, want)
				}
				tr.cut()
				s.converge(service)
				if n := s.changes(); n != changes+1 {
					t.Fatalf("change entries = %d; want %d, since one thing changed once", n, changes+1)
				}
			})
		}
	})
}

// Through a pooler that hands every transaction another connection, with a
// straight way for the migrations.
func TestPooler(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Empty(t)
	pooler := pgtest.StartPooler(t, direct, pgtest.PoolerPort)
	s := newSiteAt(t, dbtest.Postgres, direct)
	s.url = pooler.URL
	s.env["DATABASE_DIRECT_URL"] = s.proxy.url
	s.env["MIRROR_MIGRATE"] = "true"
	first := s.start()
	if s.proxy.executed("create") == 0 {
		t.Fatal("no table was created over the straight way")
	}
	s.populate(first)
	stop := s.load()
	s.more(150)
	s.kill(first)
	second := s.start()
	s.more(150)
	stop()
	s.converge(second)
	if n := pooler.Transactions(t); n < s.acked.Load()/senderSlots {
		t.Fatalf("%d transactions went through the pooler for %d deliveries", n, s.acked.Load())
	}
	if n := s.proxy.executed("AcceptEvents"); n != 0 {
		t.Fatalf("%d ledger statements went the straight way; want them through the pooler", n)
	}
	for _, log := range []string{first.Log(), second.Log()} {
		for line := range strings.Lines(log) {
			if strings.Contains(line, "SQLSTATE") || strings.Contains(line, "prepared statement") ||
				strings.Contains(line, "level=ERROR") {
				t.Errorf("logged behind the pooler: %s", line)
			}
		}
	}
}
