package postgres_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// poolerPort is not one that is recognised as a pooler's.
const poolerPort = "16998"

var quiet = slog.New(slog.DiscardHandler)

// query adds parameters to a URL.
func query(t *testing.T, to string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// works accepts an event and claims what it made stale, several at once, as a service
// does.
func works(t *testing.T, s *postgres.Store) {
	t.Helper()
	var wg sync.WaitGroup
	run := rand.Text()
	for i := range 8 {
		wg.Go(func() {
			now := time.Now()
			r := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprint(run, i)), Kind: mirror.KindRoom}
			for j := range 5 {
				_, err := s.Accept(t.Context(), arrivalOf(fmt.Sprint(run, i, j), r, now))
				if err == nil && j == 0 {
					_, err = s.Claim(t.Context(), r, [16]byte{byte(i + 1)}, now, time.Minute)
				}
				if err != nil {
					t.Errorf("call %d of %d = %v", j, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A pooler that nothing tells of is recognised at the start, or by the first answer
// that only it can give. Then everything works as if it had been known.
func TestUnknownPooler(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Database(t)
	pooler := pgtest.StartPooler(t, direct, poolerPort)
	for _, c := range []struct {
		name  string
		check bool
	}{{"at the start", true}, {"later on", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			logger := slog.New(slog.NewTextHandler(&log, nil))
			s := open(t, postgres.Config{URL: pooler.Through(t, direct)})
			if c.check {
				if err := s.Check(t.Context(), logger); err != nil {
					t.Fatalf("Check = %v", err)
				}
				if strings.Count(log.String(), "MIRROR_DATABASE_POOLED=true") != 1 {
					t.Fatalf("log = %q; want one line that names the setting", log.String())
				}
			}
			works(t, s)
		})
	}
	t.Run("known", func(t *testing.T) {
		t.Parallel()
		var log bytes.Buffer
		s := open(t, postgres.Config{URL: pooler.Through(t, direct), Pooled: true})
		if err := s.Check(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil || log.Len() > 0 {
			t.Fatalf("Check = %v, log %q; want nothing", err, log.String())
		}
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		var log bytes.Buffer
		s := open(t, postgres.Config{URL: direct})
		if err := s.Check(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil || log.Len() > 0 {
			t.Fatalf("Check = %v, log %q; want nothing", err, log.String())
		}
	})
}

func TestPoolerInAnotherMode(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Database(t)
	t.Run("session", func(t *testing.T) {
		t.Parallel()
		var log bytes.Buffer
		pooled := pgtest.StartPoolerIn(t, "session", direct, poolerPort).Through(t, direct)
		s := open(t, postgres.Config{URL: pooled, MaxConns: 3})
		if err := s.Check(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil || log.Len() > 0 {
			t.Fatalf("Check = %v, log %q; want nothing: sessions are kept", err, log.String())
		}
	})
	t.Run("statement", func(t *testing.T) {
		t.Parallel()
		pooled := pgtest.StartPoolerIn(t, "statement", direct, poolerPort).Through(t, direct)
		for _, known := range []bool{true, false} {
			err := open(t, postgres.Config{URL: pooled, Pooled: known}).Check(t.Context(), quiet)
			if err == nil || !strings.Contains(err.Error(), "MIRROR_DATABASE_POOLED") {
				t.Fatalf("Check = %v; want the setting named", err)
			}
		}
		err := postgres.Migrate(t.Context(), pooled, quiet)
		if err == nil || !strings.Contains(err.Error(), "MIRROR_DATABASE_POOLED") {
			t.Fatalf("Migrate = %v; want the setting named", err)
		}
	})
}

// What the role, the database or the server are set to does not alter what statements
// mean, or it is said at the start.
func TestSettingsAreOurs(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Own(t)
	admin := connect(t, direct)
	name := strings.TrimPrefix(mustParse(t, direct).Path, "/")
	alter := func(setting string) { t.Helper(); mustExec(t, admin, "alter database "+name+" set "+setting) }
	alter("default_transaction_isolation = 'serializable'")
	alter("synchronous_commit = off")
	alter("client_encoding = 'LATIN1'")
	s := open(t, postgres.Config{URL: direct})
	if err := s.Check(t.Context(), quiet); err != nil {
		t.Fatalf("Check = %v", err)
	}
	works(t, s)

	pooler := pgtest.StartPooler(t, direct, poolerPort)
	check := func() error {
		return open(t, postgres.Config{URL: pooler.Through(t, direct), Pooled: true}).Check(t.Context(), quiet)
	}
	if err := check(); err == nil || !strings.Contains(err.Error(), "default_transaction_isolation = 'read committed'") {
		t.Fatalf("Check through a pooler = %v; want the isolation named", err)
	}
	alter("default_transaction_isolation = 'read committed'")
	pooler = pgtest.StartPooler(t, direct, poolerPort)
	if err := check(); err == nil || !strings.Contains(err.Error(), "synchronous_commit = on") {
		t.Fatalf("Check through a pooler = %v; want synchronous_commit named", err)
	}
}

func mustParse(t *testing.T, to string) *url.URL {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// The schema that the URL asks for is used, by migrate and by the store.
func TestSchemaOfTheURL(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Empty(t)
	to := query(t, direct, "schema", "My Mirror", "connection_limit", "1")
	if err := postgres.Migrate(t.Context(), to, quiet); err == nil ||
		!strings.Contains(err.Error(), `create schema "My Mirror"`) {
		t.Fatalf("Migrate without the schema = %v; want the statement that creates it", err)
	}
	admin := connect(t, direct)
	mustExec(t, admin, `create schema "My Mirror"`)
	if err := postgres.Migrate(t.Context(), to, quiet); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	if n := value[int](t, admin,
		"select count(*) from pg_tables where tablename like 'mirror%' and schemaname <> 'My Mirror'"); n != 0 {
		t.Fatalf("tables outside the schema = %d; want none", n)
	}
	s := open(t, postgres.Config{URL: to})
	if err := s.Check(t.Context(), quiet); err != nil {
		t.Fatalf("Check = %v", err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v", err)
	}
	works(t, s)

	err := open(t, postgres.Config{URL: direct}).Check(t.Context(), quiet)
	if err == nil || !strings.Contains(err.Error(), "schema=My Mirror") {
		t.Fatalf("Check without the schema = %v; want it named", err)
	}
	pooled := query(t, pgtest.StartPooler(t, direct, poolerPort).Through(t, direct), "schema", "My Mirror")
	err = open(t, postgres.Config{URL: pooled, Pooled: true}).Check(t.Context(), quiet)
	if err == nil || !strings.Contains(err.Error(), `set search_path = "My Mirror"`) {
		t.Fatalf("Check through a pooler = %v; want the statement that sets it", err)
	}
}

// public is where tables are without being asked for.
func TestSchemaPublicThroughAPooler(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Database(t)
	pooled := pgtest.StartPooler(t, direct, poolerPort).Through(t, direct)
	pooled = query(t, pooled, "schema", "public", "pgbouncer", "true")
	s := open(t, postgres.Config{URL: pooled})
	if err := s.Check(t.Context(), quiet); err != nil {
		t.Fatalf("Check = %v", err)
	}
	works(t, s)
}

func TestEncodingIsChecked(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Empty(t)
	name := "latin_" + strings.ToLower(rand.Text()[:10])
	admin := connect(t, direct)
	mustExec(t, admin, "create database "+name+" encoding 'LATIN1' locale 'C' template template0")
	t.Cleanup(func() {
		if _, err := admin.Exec(context.Background(), "drop database "+name+" with (force)"); err != nil {
			t.Errorf("drop database = %v", err)
		}
	})
	u := mustParse(t, direct)
	u.Path = "/" + name
	if err := postgres.Migrate(t.Context(), u.String(), quiet); err == nil || !strings.Contains(err.Error(), "LATIN1") {
		t.Fatalf("Migrate = %v; want the encoding named", err)
	}
	if err := open(t, postgres.Config{URL: u.String()}).Check(t.Context(), quiet); err == nil ||
		!strings.Contains(err.Error(), "LATIN1") {
		t.Fatalf("Check = %v; want the encoding named", err)
	}
}

// What the role may not do is said at the start, with the statement that allows it.
func TestRightsAreChecked(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Own(t)
	admin := connect(t, direct)
	role := "dbtest_" + strings.ToLower(rand.Text()[:12])
	mustExec(t, admin, "create role "+role+" login")
	t.Cleanup(func() {
		for _, statement := range []string{"drop owned by " + role, "drop role " + role} {
			if _, err := admin.Exec(context.Background(), statement); err != nil {
				t.Errorf("%s = %v", statement, err)
			}
		}
	})
	mustExec(t, admin, "revoke usage on schema public from public")
	to := query(t, direct, "user", role)
	want := func(parts ...string) {
		t.Helper()
		err := open(t, postgres.Config{URL: to}).Check(t.Context(), quiet)
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Fatalf("Check = %v; want %q in it", err, part)
			}
		}
	}
	want("grant usage on schema")
	mustExec(t, admin, "grant usage on schema public to "+role)
	want("grant select, insert, update, delete on all tables")
	mustExec(t, admin, "grant select, insert, update, delete on all tables in schema public to "+role)
	s := open(t, postgres.Config{URL: to})
	if err := s.Check(t.Context(), quiet); err != nil {
		t.Fatalf("Check = %v", err)
	}
	mustExec(t, admin, "revoke insert on mirror_event from "+role)
	_, err := s.Accept(t.Context(), arrivalOf("denied", mirror.Resource{
		Project: "default", Room: "room", Kind: mirror.KindRoom,
	}, time.Now()))
	if fault.Of(err).Kind != fault.Unavailable || !strings.Contains(err.Error(), "lacks a right") {
		t.Fatalf("Accept without the right = %v; want it to be tried again", err)
	}
	want("mirror_event;")
	mustExec(t, admin, "grant insert on mirror_event to "+role)
	mustExec(t, admin, "alter table mirror_schema_version enable row level security")
	want("mirror_schema_version", "bypassrls")
}
