package postgres_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// A hosted database grants rights on new tables to roles that anybody can take.
// migrate says so, and what closes the tables closes the views too.
func TestRightsOfOthers(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres.Empty(t)
	admin := connect(t, url)
	role := "anon_" + strings.ToLower(rand.Text()[:12])
	mustExec(t, admin, "create role "+role)
	t.Cleanup(func() {
		for _, statement := range []string{"reset role", "drop owned by " + role, "drop role " + role} {
			if _, err := admin.Exec(context.Background(), statement); err != nil {
				t.Errorf("%s = %v", statement, err)
			}
		}
	})
	migrate := func() string {
		t.Helper()
		var log bytes.Buffer
		if err := postgres.Migrate(t.Context(), url, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatalf("Migrate = %v", err)
		}
		return log.String()
	}
	mustExec(t, admin, "alter default privileges in schema public grant all on tables to "+role)
	mustExec(t, admin, "grant usage on schema public to "+role)
	if log := migrate(); strings.Count(log, "role="+role) != 1 || !strings.Contains(log, "select") {
		t.Fatalf("log of Migrate = %s; want one warning of the role", log)
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
		if log := migrate(); strings.Contains(log, "WARN") {
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
