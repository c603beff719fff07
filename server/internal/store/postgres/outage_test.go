package postgres_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// The server is killed while calls are made. Every failure says that the
// database is away, no acknowledged event is lost, and one store outlives it all.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	needServer(t)
	server := pgtest.Start(t)
	migrate(t, server.URL())
	s := open(t, postgres.Config{URL: server.URL(), MaxConns: 4})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var acknowledged []string
	refused, n := 0, 0
	accept := func() error {
		n++
		ev := mirror.Event{Project: "default", ID: fmt.Sprintf("msg_%d", n), ReceiveTime: now, SendTime: now}
		r := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
		_, err := s.Accept(t.Context(), []mirror.Delivery{{Event: ev, Invalidations: []mirror.Invalidation{{Resource: r}}}})
		if err == nil {
			acknowledged = append(acknowledged, ev.ID)
		}
		return err
	}
	check := func(what string, err error) bool {
		t.Helper()
		if err == nil {
			return true
		}
		refused++
		if f := fault.Of(err); f.Kind != fault.Unavailable || f.Reason != fault.ReasonStoreUnavailable {
			t.Fatalf("%s while the server is away = %v (kind %d); want it unavailable", what, err, f.Kind)
		}
		return false
	}
	for range 3 {
		for range 10 {
			if err := accept(); err != nil {
				t.Fatalf("Accept = %v", err)
			}
		}
		pid := server.Pid()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("Kill = %v", err)
		}
		eventually(t, "calls after a restart", func() bool {
			ok := check("Accept", accept())
			ok = check("Ping", s.Ping(t.Context())) && ok
			_, err := s.Request(t.Context(),
				[]mirror.Request{{Resource: mirror.Resource{Project: "default", Room: "other", Kind: mirror.KindRoom}}}, now)
			ok = check("Request", err) && ok
			return ok && server.Pid() != pid && server.Pid() != 0
		})
	}
	if refused == 0 {
		t.Fatal("no call failed while the server was away; the test shows nothing")
	}
	eventually(t, "quiet", func() bool { return accept() == nil })
	for _, id := range acknowledged {
		if _, err := s.Event(t.Context(), "default", id); err != nil {
			t.Fatalf("acknowledged event %s = %v; want it there", id, err)
		}
	}
	t.Logf("%d events were acknowledged, %d calls refused", len(acknowledged), refused)
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	s := open(t, postgres.Config{URL: "postgres:///mirror?host=" + t.TempDir() + "&user=nobody"})
	err := s.Ping(t.Context())
	if f := fault.Of(err); f.Kind != fault.Unavailable || f.Reason != fault.ReasonStoreUnavailable {
		t.Fatalf("Ping without a server = %v; want it unavailable", err)
	}
}
