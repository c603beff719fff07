package postgres_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

func migrate(t *testing.T, url string) string {
	t.Helper()
	var log journal
	if err := postgres.Migrate(t.Context(), url, log.logger()); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	return log.String()
}

// A released file is never edited: databases have run it as it was.
func TestReleasedMigrationsAreUnchanged(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"0001_mirror.sql":     "59abf87a67b57ab698e5aaa2b9dc7ca57654fd09cf6338d1aa4630a65c475f4f",
		"0002_everything.sql": "23be6f951a82485f533842b89f561dd45c75550a0675d1c025a1fa33933e3c97",
	}
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil {
		t.Fatalf("Glob = %v", err)
	}
	got := make(map[string]string)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("ReadFile = %v", err)
		}
		sum := sha256.Sum256(b)
		got[filepath.Base(file)] = hex.EncodeToString(sum[:])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("migrations differ from those that were released (-released +here):\n%s", d)
	}
}

// migrations is how many there are.
const migrations = 2

func TestMigrateFromNothing(t *testing.T) {
	t.Parallel()
	url := emptyDatabase(t)
	s := open(t, postgres.Config{URL: url})
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
		t.Fatalf("Ping without a schema = %v; want %v", err, store.ErrSchemaBehind)
	}
	_, err := s.Rooms(t.Context(), store.RoomFilter{Project: "default", Limit: 1})
	if !errors.Is(err, store.ErrSchemaBehind) || !fault.Is(err, fault.ReasonSchemaBehind) {
		t.Fatalf("Rooms without a schema = %v; want %v", err, store.ErrSchemaBehind)
	}
	if log := migrate(t, url); strings.Count(log, "migration applied") != migrations {
		t.Fatalf("log of the first Migrate = %q; want %d migrations applied", log, migrations)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v; want nil", err)
	}
	if log := migrate(t, url); log != "" {
		t.Fatalf("log of the second Migrate = %q; want nothing done", log)
	}
	conn := connect(t, url)
	mustExec(t, conn, "delete from mirror_schema_version where version_id = (select max(version_id) from "+
		"mirror_schema_version)")
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
		t.Fatalf("Ping with an older schema = %v; want %v", err, store.ErrSchemaBehind)
	}
	mustExec(t, conn, "insert into mirror_schema_version (version_id, is_applied) values (9999, true)")
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping with a newer schema = %v; want nil", err)
	}
}

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	url := emptyDatabase(t)
	var logs [4]journal
	var errs [4]error
	var wg sync.WaitGroup
	for i := range logs {
		wg.Go(func() { errs[i] = postgres.Migrate(t.Context(), url, logs[i].logger()) })
	}
	wg.Wait()
	applied := 0
	for i := range logs {
		if errs[i] != nil {
			t.Fatalf("Migrate %d = %v", i, errs[i])
		}
		applied += strings.Count(logs[i].String(), "migration applied")
	}
	if applied != migrations {
		t.Fatalf("four at once applied %d migrations; want %d", applied, migrations)
	}
	if err := open(t, postgres.Config{URL: url}).Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v; want nil", err)
	}
}

// What was stored by the version before goes on: its tasks are due, its rooms and
// documents are read, and what they have now is added to them.
func TestMigrateFromTheVersionBefore(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	url := migratedDatabase(t)
	s, conn := open(t, postgres.Config{URL: url}), connect(t, url)
	fill(t, s, now)
	room := mirror.Resource{Project: "default", Room: "living", Kind: mirror.KindRoom}
	before, err := s.Room(t.Context(), room, false)
	if err != nil {
		t.Fatalf("Room = %v", err)
	}
	if _, err := s.Request(t.Context(), []mirror.Request{{Resource: room}}, now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	mustExec(t, conn, `do $$
		declare name text;
		begin
			foreach name in array array['unfolded_event', 'thread', 'comment', 'comment_reaction', 'comment_attachment', 'comment_mention',
				'active_user', 'user_session', 'notification', 'sweep']
			loop
				execute format('drop table mirror_%s', name);
			end loop;
		end $$`)
	mustExec(t, conn, "alter table mirror_resource_state drop column background") // and its index
	mustExec(t, conn, "create index mirror_resource_state_by_due on mirror_resource_state (project_id, due_time) "+
		"where due_time is not null")
	mustExec(t, conn, "delete from mirror_schema_version where version_id = 2")
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
		t.Fatalf("Ping with the schema before = %v; want %v", err, store.ErrSchemaBehind)
	}
	if log := migrate(t, url); strings.Count(log, "migration applied") != 1 {
		t.Fatalf("log of Migrate = %q; want one migration applied", log)
	}
	s = open(t, postgres.Config{URL: url}) // sessions remember how tables were
	list, err := s.Due(t.Context(), "default", now, 100)
	if err != nil || !slices.Contains(list.Resources, room) || len(list.Background) != 0 {
		t.Fatalf("Due = %+v, %v; want the room, and nothing in the background", list, err)
	}
	after, err := s.Room(t.Context(), room, false)
	before.Freshness.Stale = true
	if d := cmp.Diff(before, after); err != nil || d != "" {
		t.Fatalf("Room = %v (-before +after):\n%s", err, d)
	}
	threads := mirror.Resource{Project: "default", Room: "living", Kind: mirror.KindThread}
	if _, err := s.Request(t.Context(), []mirror.Request{{Resource: threads}}, now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	lease, err := s.Claim(t.Context(), threads, [16]byte{1}, now, time.Minute)
	if err != nil {
		t.Fatalf("Claim = %v", err)
	}
	applied, err := s.ApplyThreads(t.Context(), lease,
		mirror.ThreadList{FetchTime: now, Threads: []mirror.Thread{{ID: "th_1"}}}, now, 0)
	if err != nil || !applied.Changed {
		t.Fatalf("ApplyThreads = %+v, %v; want the thread stored", applied, err)
	}
}

// fill mirrors rooms called living, dead, null and reborn, each with storage.
func fill(t *testing.T, s store.Store, now time.Time) {
	t.Helper()
	ctx := t.Context()
	fetch := func(r mirror.Resource, apply func(lease mirror.Lease) error) {
		t.Helper()
		_, err := s.Request(ctx, []mirror.Request{{Resource: r}}, now)
		if err != nil {
			t.Fatalf("Request = %v", err)
		}
		var token [16]byte
		rand.Read(token[:])
		lease, err := s.Claim(ctx, r, token, now, time.Minute)
		if err == nil {
			err = apply(lease)
		}
		if err != nil {
			t.Fatalf("fetch of %+v = %v", r, err)
		}
	}
	applyRoom := func(created time.Time) func(mirror.Lease) error {
		return func(lease mirror.Lease) error {
			_, err := s.ApplyRoom(ctx, lease, mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: created},
				now, 0)
			return err
		}
	}
	for _, id := range []mirror.RoomID{"living", "dead", "null", "reborn"} {
		room := mirror.Resource{Project: "default", Room: id, Kind: mirror.KindRoom}
		storage := mirror.Resource{Project: "default", Room: id, Kind: mirror.KindStorage}
		fetch(room, applyRoom(now))
		doc := mirror.DocumentContent{FetchTime: now, Content: []byte(`{"lson":1}`), DeriveVersion: 1,
			Data: []byte(`{"a": "` + string(id) + `"}`)}
		if id == "null" {
			doc.Data, doc.DataProblem = nil, "too large"
		}
		fetch(storage, func(lease mirror.Lease) error {
			_, err := s.ApplyDocument(ctx, lease, doc, now, 0)
			return err
		})
		switch id {
		case "dead":
			_, err := s.Accept(ctx, []mirror.Delivery{{
				Event:         mirror.Event{Project: "default", ID: "bye", Room: id, ReceiveTime: now, SendTime: now},
				Invalidations: []mirror.Invalidation{{Resource: room, Deleted: true}},
			}})
			if err != nil {
				t.Fatalf("Accept = %v", err)
			}
			fetch(room, func(lease mirror.Lease) error {
				_, err := s.ApplyMissing(ctx, lease, store.Failure{Now: now}, 0)
				return err
			})
		case "reborn":
			fetch(room, applyRoom(now.Add(time.Hour)))
		}
	}
}

func TestViewOfTheGuides(t *testing.T) {
	t.Parallel()
	url := migratedDatabase(t)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fill(t, open(t, postgres.Config{URL: url}), now)
	rows, err := connect(t, url).Query(t.Context(),
		"select room_id, data->>'a', updated_at, project_id from liveblocks_documents order by room_id")
	if err != nil {
		t.Fatalf("Query = %v", err)
	}
	type row struct {
		Room, A   string
		UpdatedAt time.Time
		Project   string
	}
	var got []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.Room, &r.A, &r.UpdatedAt, &r.Project); err != nil {
			t.Fatalf("Scan = %v", err)
		}
		got = append(got, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("rows = %v", err)
	}
	if d := cmp.Diff([]row{{"living", "living", now, "default"}}, got); d != "" {
		t.Fatalf("liveblocks_documents (-want +got):\n%s", d)
	}
}

// What users made by the guides is theirs.
func TestMigrateLeavesRelationsOfOthersAlone(t *testing.T) {
	t.Parallel()
	for what, create := range map[string]string{
		"table": "create table liveblocks_documents (room_id text primary key, data jsonb, updated_at timestamptz)",
		"view": "create view liveblocks_documents as select 'mine'::text collate \"C\" as room_id, null::jsonb as data, " +
			"now() as updated_at, 'p'::text collate \"C\" as project_id",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			url := emptyDatabase(t)
			conn := connect(t, url)
			mustExec(t, conn, create)
			if what == "table" {
				mustExec(t, conn, "insert into liveblocks_documents (room_id) values ('mine')")
			}
			for range 2 {
				if log := migrate(t, url); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "liveblocks_documents") {
					t.Fatalf("log of Migrate = %q; want one warning that names it", log)
				}
				if got := value[string](t, conn, "select string_agg(room_id, ' ') from liveblocks_documents"); got != "mine" {
					t.Fatalf("rooms in the %s = %q; want it left alone", what, got)
				}
			}
			s := open(t, postgres.Config{URL: url})
			fill(t, s, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
			if err := s.Ping(t.Context()); err != nil {
				t.Fatalf("Ping = %v; want nil", err)
			}
			mustExec(t, conn, "alter "+what+" liveblocks_documents rename to old_documents")
			if log := migrate(t, url); log != "" {
				t.Fatalf("log of Migrate when the name is free = %q; want nothing said", log)
			}
			if got := value[string](t, connect(t, url),
				"select string_agg(room_id, ' ') from liveblocks_documents"); got != "living" {
				t.Fatalf("rooms in the view = %q; want ours", got)
			}
		})
	}
}

func TestMigrateWithoutRights(t *testing.T) {
	t.Parallel()
	admin := emptyDatabase(t)
	conn := connect(t, admin)
	role := "pgtest_role_" + strings.ToLower(rand.Text())
	mustExec(t, conn, "create role "+role+" login password 'x'")
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), "drop role "+role); err != nil {
			t.Errorf("drop role = %v", err)
		}
	})
	mustExec(t, conn, "revoke create on schema public from public")
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	if u.User != nil {
		u.User = url.UserPassword(role, "x")
	} else {
		q := u.Query()
		q.Set("user", role)
		u.RawQuery = q.Encode()
	}
	begun := time.Now()
	err = postgres.Migrate(t.Context(), u.String(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "the database role may not create tables") {
		t.Fatalf("Migrate without rights = %v; want it to say so", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Fatalf("Migrate without rights took %v; want it to say so at once", took)
	}
}

func TestMigrateKeepsTheURLSecret(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"postgres://u:hunter2@host:port/db", "postgres://u:hunter2@[::1/db", "://hunter2"} {
		_, errOpen := postgres.Open(t.Context(), postgres.Config{URL: bad})
		errMigrate := postgres.Migrate(t.Context(), bad, slog.New(slog.DiscardHandler))
		for _, err := range []error{errOpen, errMigrate} {
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("error of a URL that cannot be read = %v; want one without the password", err)
			}
		}
	}
}

// A server that refuses the connection is away, whatever its reason: no
// statement is at fault, and waiting may mend it.
func TestRefusedConnectionIsAnOutage(t *testing.T) {
	t.Parallel()
	needServer(t)
	there, err := url.Parse(migratedDatabase(t))
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	there.Path = "/no_such_database"
	s := open(t, postgres.Config{URL: there.String()})
	for what, call := range map[string]func() error{
		"Ping":   func() error { return s.Ping(t.Context()) },
		"Accept": func() error { _, err := s.Accept(t.Context(), []mirror.Delivery{{}}); return err },
	} {
		if f := fault.Of(call()); f.Kind != fault.Unavailable || f.Reason != fault.ReasonStoreUnavailable {
			t.Errorf("%s = %v; want the store unavailable", what, f)
		}
	}
}
