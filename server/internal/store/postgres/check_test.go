package postgres_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"regexp"
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

// The schema that is asked for is created and used, by migrate and by the store, whatever
// the search path and through a pooler.
func TestSchema(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Empty(t)
	to := query(t, direct, "schema", "My Mirror", "connection_limit", "1")
	pooler := pgtest.StartPooler(t, direct, poolerPort)
	pooled := pooler.Through(t, to)
	admin := connect(t, direct)
	tables := func(where string) int {
		t.Helper()
		return value[int](t, admin, "select count(*) from pg_tables where tablename like 'mirror%' and schemaname "+where)
	}
	for _, known := range []string{"", "&pgbouncer=true"} {
		err := postgres.Migrate(t.Context(), pooled+known, quiet)
		if err == nil || !strings.Contains(err.Error(), "DATABASE_DIRECT_URL") {
			t.Fatalf("Migrate through a pooler = %v; want the setting named", err)
		}
	}
	if n := tables("<> ''"); n != 0 {
		t.Fatalf("tables after that = %d; want none", n)
	}
	for range 2 {
		if err := postgres.Migrate(t.Context(), to, quiet); err != nil {
			t.Fatalf("Migrate = %v", err)
		}
	}
	if in, out := tables("= 'My Mirror'"), tables("<> 'My Mirror'"); in < 20 || out != 0 {
		t.Fatalf("tables in the schema = %d, outside = %d; want all, none", in, out)
	}
	for _, cfg := range []postgres.Config{
		{URL: to}, {URL: query(t, to, "search_path", "pg_temp")}, {URL: pooled, Pooled: true}, {URL: pooled},
	} {
		s := open(t, cfg)
		if err := s.Check(t.Context(), quiet); err != nil {
			t.Fatalf("Check = %v", err)
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Fatalf("Ping = %v", err)
		}
		works(t, s)
	}
	for schema, want := range map[string]string{
		"": "MIRROR_DATABASE_SCHEMA to My Mirror", "other": "not in other; set MIRROR_DATABASE_SCHEMA to My Mirror",
	} {
		url := direct
		if schema != "" {
			url = query(t, direct, "schema", schema)
		}
		if err := open(t, postgres.Config{URL: url}).Check(t.Context(), quiet); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Fatalf("Check in %q = %v; want %q in it", schema, err, want)
		}
	}
	if err := postgres.CheckURL(postgres.WithSchema(to, "other")); err == nil ||
		!strings.Contains(err.Error(), "two schemas, My Mirror and other") {
		t.Fatalf("CheckURL with two schemas = %v; want both named", err)
	}
	if err := postgres.CheckURL(postgres.WithSchema(to, "My Mirror")); err != nil {
		t.Fatalf("CheckURL with a schema twice = %v", err)
	}
}

// The statements of DATABASE.md move the tables into a schema, and all goes on.
func TestMoveIntoASchema(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../../docs/DATABASE.md")
	if err != nil {
		t.Fatal(err)
	}
	statements := regexp.MustCompile(`(?m)^    create schema liveblocks;\n(?:    .*\n)+`).FindString(string(doc))
	direct := dbtest.Postgres.Own(t)
	storeDocument(t, open(t, postgres.Config{URL: direct}))
	admin := connect(t, direct)
	if statements == "" {
		t.Fatal("DATABASE.md does not say how to move the tables")
	}
	mustExec(t, admin, "create table liveblocks_other (id integer)")
	if err := admin.PgConn().Exec(t.Context(), statements).Close(); err != nil {
		t.Fatalf("%s = %v", statements, err)
	}
	to := postgres.WithSchema(direct, "liveblocks")
	if log := logOf(t, to); log != "" {
		t.Errorf("log of Migrate = %s; want nothing done", log)
	}
	s := open(t, postgres.Config{URL: to})
	if err := s.Check(t.Context(), quiet); err != nil {
		t.Fatalf("Check = %v", err)
	}
	works(t, s)
	if n := value[int](t, admin, "select count(*) from liveblocks.liveblocks_documents"); n != 1 {
		t.Errorf("documents in the view = %d; want 1", n)
	}
	if left := value[string](t, admin, "select string_agg(relname, ' ') from pg_class where relkind in ('r', 'v') and "+
		"relnamespace = 'public'::regnamespace"); left != "liveblocks_other" {
		t.Errorf("left in public = %s; want what is not ours", left)
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
