package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// wantOutage wants an error that says the database is away, and no password.
func wantOutage(t *testing.T, what string, err error) {
	t.Helper()
	if f := fault.Of(err); f.Kind != fault.Unavailable || f.Reason != fault.ReasonStoreUnavailable ||
		strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("%s = %v (kind %d); want the store unavailable", what, err, f.Kind)
	}
}

// The server is killed while calls are made. Every failure says that the
// database is away, no acknowledged event is lost, and one store outlives it all.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		server := e.Server(t)
		s := open(t, engine.Config{URL: server.URL, MaxConns: 4})
		var acknowledged []string
		refused, n := 0, 0
		accept := func() error {
			n++
			id := fmt.Sprintf("msg_%d", n)
			room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
			_, err := s.Accept(t.Context(), []mirror.Delivery{deliveryOf(id, room)})
			if err == nil {
				acknowledged = append(acknowledged, id)
			}
			return err
		}
		works := func(what string, err error) bool {
			t.Helper()
			if err == nil {
				return true
			}
			refused++
			wantOutage(t, what+" while the server is away", err)
			return false
		}
		for range 3 {
			for range 10 {
				if err := accept(); err != nil {
					t.Fatalf("Accept = %v", err)
				}
			}
			seen := refused
			server.Kill(t)
			back := make(chan struct{})
			go func() { defer close(back); server.Restart(t) }()
			eventually(t, "calls after a restart", func() bool {
				ok := works("Accept", accept())
				ok = works("Ping", s.Ping(t.Context())) && ok
				other := mirror.Resource{Project: "default", Room: "other", Kind: mirror.KindRoom}
				_, err := s.Request(t.Context(), requestsFor(other), testTime)
				ok = works("Request", err) && ok
				return ok && refused > seen
			})
			<-back
		}
		eventually(t, "quiet", func() bool { return accept() == nil })
		for _, id := range acknowledged {
			if _, err := s.Event(t.Context(), "default", id); err != nil {
				t.Fatalf("acknowledged event %s = %v; want it there", id, err)
			}
		}
		t.Logf("%d events were acknowledged, %d calls refused", len(acknowledged), refused)
	})
}

// What was cut while it was idle is no outage: deliveries are recorded by a new session.
func TestIdleSessionsAreCut(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s := open(t, engine.Config{URL: url})
		room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
		for i := range 20 {
			if i > 0 {
				e.EndSessions(t, url)
			}
			if _, err := s.Accept(t.Context(), []mirror.Delivery{deliveryOf(fmt.Sprint("msg_", i), room)}); err != nil {
				t.Fatalf("Accept %d = %v; want it recorded", i, err)
			}
			if _, err := s.Request(t.Context(), requestsFor(room), testTime); err != nil {
				t.Fatalf("Request %d = %v; want it done", i, err)
			}
		}
	})
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"postgres", "mysql"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			var lc net.ListenConfig
			l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatalf("Listen = %v", err)
			}
			there := scheme + "://nobody:hunter2@" + l.Addr().String() + "/mirror"
			// It takes the connection, and says nothing.
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := open(t, engine.Config{URL: there}).Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Ping of a server that is silent = %v; want %v", err, context.DeadlineExceeded)
			}
			if err := l.Close(); err != nil {
				t.Fatalf("Close = %v", err)
			}
			wantOutage(t, "Ping without a server", open(t, engine.Config{URL: there}).Ping(t.Context()))
		})
	}
}

// A server that refuses the connection is away, whatever its reason: no
// statement is at fault, and waiting may mend it.
func TestRefusedConnectionIsAnOutage(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		there, err := url.Parse(e.Database(t))
		if err != nil {
			t.Fatalf("Parse = %v", err)
		}
		nowhere := *there
		nowhere.Path = "/no_such_database"
		for what, u := range map[string]url.URL{
			"no such database": nowhere, "no such user": as(there, "nobody-known", "hunter2"),
		} {
			s := open(t, engine.Config{URL: u.String()})
			wantOutage(t, "Ping with "+what, s.Ping(t.Context()))
			_, err := s.Accept(t.Context(), []mirror.Delivery{{}})
			wantOutage(t, "Accept with "+what, err)
		}
	})
}

// as is the URL of a database as another user has it.
func as(u *url.URL, user, password string) url.URL {
	to := *u
	if u.User != nil {
		to.User = url.UserPassword(user, password)
		return to
	}
	q := u.Query()
	q.Set("user", user)
	q.Set("password", password)
	to.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return to
}

func TestURLIsKeptSecret(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"postgres://u:hunter2@host:port/db", "postgres://u:hunter2@[::1/db", "postgres://u:hunter2@127.0.0.1:1/db",
		"mysql://u:hunter2@host:port/db", "mysql://u:hunter2@[::1/db", "mysql://u:hunter2@127.0.0.1:1/db",
		"://hunter2", "u:hunter2@tcp(host",
	} {
		errMigrate := engine.Migrate(t.Context(), bad, new(journal).logger())
		var s store.Store
		s, errOpen := engine.Open(t.Context(), engine.Config{URL: bad, MaxConns: 2})
		if errOpen == nil {
			errOpen = s.Ping(t.Context())
			s.Close()
		}
		for _, err := range []error{errOpen, errMigrate} {
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("error of a URL that leads nowhere = %v; want one without the password", err)
			}
		}
	}
}
