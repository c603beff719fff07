package postgres_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// anon is a role that anybody can take, as hosted databases have one.
func anon(t *testing.T, admin *pgx.Conn) string {
	t.Helper()
	role := "anon_" + strings.ToLower(rand.Text()[:12])
	mustExec(t, admin, "create role "+role)
	t.Cleanup(func() {
		for _, statement := range []string{"reset role", "drop owned by " + role, "drop role " + role} {
			if _, err := admin.Exec(context.Background(), statement); err != nil {
				t.Errorf("%s = %v", statement, err)
			}
		}
	})
	return role
}

// logOf migrates a database and returns what is logged.
func logOf(t *testing.T, url string, expected ...string) string {
	t.Helper()
	var log bytes.Buffer
	if err := postgres.Migrate(t.Context(), url, slog.New(slog.NewJSONHandler(&log, nil)), expected...); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	return log.String()
}

// readable are the tables and views of ours that a role can read from.
func readable(t *testing.T, admin *pgx.Conn, role string) (list []string) {
	t.Helper()
	rows, err := admin.Query(t.Context(), `select format('%I.%I', n.nspname, c.relname)
		from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where (c.relname like 'mirror\_%' or c.relname like 'liveblocks\_%') and c.relkind in ('r', 'v')`)
	if err != nil {
		t.Fatalf("list relations = %v", err)
	}
	relations, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(relations) < 30 {
		t.Fatalf("relations = %q, %v; want all tables and views", relations, err)
	}
	mustExec(t, admin, "set role "+role)
	defer mustExec(t, admin, "reset role")
	for _, relation := range relations {
		if _, err := admin.Exec(t.Context(), "select from "+relation); err == nil {
			list = append(list, relation)
		}
	}
	return list
}

// A hosted database grants rights on new tables to roles that anybody can take. migrate
// says so, with the statement that shuts them out, also from tables to come. What closes
// the tables otherwise closes the views too.
func TestRightsOfOthers(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"a role", "everybody"} {
		for _, of := range []string{"", " in schema public"} {
			t.Run(who+of, func(t *testing.T) {
				t.Parallel()
				url := dbtest.Postgres.Empty(t)
				admin := connect(t, url)
				role := anon(t, admin)
				grantee, name := role, role
				if who == "everybody" {
					grantee, name = "public", "PUBLIC"
				}
				mustExec(t, admin, "grant usage on schema public to "+grantee)
				mustExec(t, admin, "alter default privileges"+of+" grant all on tables to "+grantee)
				if log := logOf(t, url, name); strings.Contains(log, "WARN") {
					t.Errorf("log of Migrate where the role is expected = %s; want no warning", log)
				}
				if n := len(readable(t, admin, role)); n < 30 {
					t.Fatalf("relations that the role can read = %d; want all, or the rest shows nothing", n)
				}
				var warning struct{ Level, Role, Rights, Statement string }
				for line := range strings.Lines(logOf(t, url)) {
					if warning.Role != "" {
						t.Fatalf("a second line is logged: %s", line)
					}
					if err := json.Unmarshal([]byte(line), &warning); err != nil {
						t.Fatal(err)
					}
				}
				if warning.Level != "WARN" || warning.Role != name || !strings.Contains(warning.Rights, "select") {
					t.Fatalf("warning = %+v; want one of the role", warning)
				}
				mustExec(t, admin, "create table theirs (id integer)")
				for statement := range strings.SplitSeq(strings.TrimSuffix(warning.Statement, ";"), ";") {
					mustExec(t, admin, statement)
				}
				if list := readable(t, admin, role); len(list) > 0 {
					t.Errorf("relations that the role can read after %s = %q; want none", warning.Statement, list)
				}
				if log := logOf(t, url); log != "" {
					t.Errorf("log of Migrate after that = %s; want nothing", log)
				}
				mustExec(t, admin, "create table mirror_later (id integer)")
				if list := readable(t, admin, role); len(list) > 0 {
					t.Errorf("tables made later that the role can read = %q; want none", list)
				}
				if !value[bool](t, admin, "select has_table_privilege('"+role+"', 'theirs', 'select')") {
					t.Error("the role has lost its rights on a table that is not ours")
				}
			})
		}
	}
}

// In a schema of its own, no right has to be revoked: no other role may use the schema.
func TestRightsOfOthersInASchema(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres.Empty(t)
	admin := connect(t, url)
	role := anon(t, admin)
	mustExec(t, admin, "alter default privileges grant all on tables to "+role)
	to := postgres.WithSchema(url, "liveblocks")
	if log := logOf(t, to); strings.Contains(log, "WARN") {
		t.Errorf("log of Migrate = %s; want no warning", log)
	}
	if list := readable(t, admin, role); len(list) > 0 {
		t.Errorf("relations that the role can read = %q; want none", list)
	}
	mustExec(t, admin, "grant usage on schema liveblocks to "+role)
	if log := logOf(t, to); strings.Count(log, "WARN") != 1 {
		t.Errorf("log of Migrate where the role may use the schema = %s; want a warning", log)
	}
}

// What closes the tables by row-level security closes the views too.
func TestRowSecurity(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres.Empty(t)
	admin := connect(t, url)
	role := anon(t, admin)
	mustExec(t, admin, "alter default privileges in schema public grant all on tables to "+role)
	mustExec(t, admin, "grant usage on schema public to "+role)
	if log := logOf(t, url); strings.Count(log, role) == 0 {
		t.Fatalf("log of Migrate = %s; want a warning of the role", log)
	}
	storeDocument(t, open(t, postgres.Config{URL: url}))
	seen := func() int {
		t.Helper()
		mustExec(t, admin, "set role "+role)
		defer mustExec(t, admin, "reset role")
		return value[int](t, admin, "select count(*) from liveblocks_documents")
	}
	if n := seen(); n != 1 {
		t.Fatalf("documents that the role sees = %d; want 1, or the rest shows nothing", n)
	}
	mustExec(t, admin, `do $$ declare t text; begin
      for t in select tablename from pg_tables where schemaname = current_schema() and tablename like 'mirror\_%' loop
        execute format('alter table %I enable row level security', t);
      end loop;
    end $$`)
	if value[int](t, admin, "select current_setting('server_version_num')::integer") >= 150000 {
		if n := seen(); n != 0 {
			t.Errorf("documents that the role sees through the view = %d; want none: the tables are closed", n)
		}
		if log := logOf(t, url); strings.Contains(log, "WARN") {
			t.Errorf("log of Migrate with closed tables = %s; want no warning", log)
		}
	}
	if n := value[int](t, admin, "select count(*) from liveblocks_documents"); n != 1 {
		t.Errorf("documents that the owner sees = %d; want 1", n)
	}
	if err := open(t, postgres.Config{URL: url}).Check(t.Context(), quiet); err != nil {
		t.Errorf("Check as the owner = %v", err)
	}
}

// storeDocument mirrors a room with a document.
func storeDocument(t *testing.T, s *postgres.Store) {
	t.Helper()
	now := time.Now()
	apply := func(kind mirror.Kind, write func(lease mirror.Lease) error) {
		t.Helper()
		r := mirror.Resource{Project: "default", Room: "room", Kind: kind}
		_, err := s.Request(t.Context(), []mirror.Request{{Resource: r}}, now)
		var lease mirror.Lease
		if err == nil {
			lease, err = s.Claim(t.Context(), r, [16]byte{1}, now, time.Minute)
		}
		if err == nil {
			err = write(lease)
		}
		if err != nil {
			t.Fatalf("mirror kind %d = %v", kind, err)
		}
	}
	apply(mirror.KindRoom, func(lease mirror.Lease) error {
		_, err := s.ApplyRoom(t.Context(), lease,
			mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now}, now, 0)
		return err
	})
	apply(mirror.KindStorage, func(lease mirror.Lease) error {
		_, err := s.ApplyDocument(t.Context(), lease, mirror.DocumentContent{
			FetchTime: now, Content: []byte(`{}`), DeriveVersion: 1, Data: []byte(`{"a": 1}`),
		}, now, 0)
		return err
	})
	if _, err := s.Document(t.Context(), mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindStorage},
		false); err != nil {
		t.Fatalf("Document = %v", err)
	}
}
