package mysql_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
)

func migrate(t *testing.T, url string) string {
	t.Helper()
	var log journal
	if err := mysql.Migrate(t.Context(), url, log.logger()); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	return log.String()
}

// A released migration is never edited: databases have run it as it was. When the
// views are, their edition is raised, or databases keep the old ones.
func TestReleasedMigrationsAreUnchanged(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"migrations/0001_mirror.sql":      "37fc831107335c8c33eb4032f64f5858bfe051cac1d2a898fa2da9ba6586ee56",
		"migrations/0002_everything.sql":  "29a1059cd455bd40f7f040ff7798790940a6718c9aada62e7ad86ff088d8ee9e",
		"views/liveblocks_documents.sql":  "26a0b312baec26b4e281082f78c22113db0d32400f3b7b3c9643c128c509e164", // edition 3
		"views/liveblocks_flow_edges.sql": "cd50aa8c426c789d38ef3bc3f11231139f2344b37929589632eec06820a1b57e", // edition 1
		"views/liveblocks_flow_nodes.sql": "ce6c6799a7b383828c880fab3508fa5480c06d68d3c2d772ac706d76cd578e6a", // edition 1
	}
	migrations, err := filepath.Glob("migrations/*.sql")
	if err != nil {
		t.Fatalf("Glob = %v", err)
	}
	views, err := filepath.Glob("views/*.sql")
	if err != nil {
		t.Fatalf("Glob = %v", err)
	}
	got := make(map[string]string)
	for _, file := range append(migrations, views...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("ReadFile = %v", err)
		}
		sum := sha256.Sum256(b)
		got[file] = hex.EncodeToString(sum[:])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("migrations differ from those that were released (-released +here):\n%s", d)
	}
}

func TestMigrateFromNothing(t *testing.T) {
	t.Parallel()
	url := emptyDatabase(t)
	s := open(t, mysql.Config{URL: url})
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
		t.Fatalf("Ping without a schema = %v; want %v", err, store.ErrSchemaBehind)
	}
	_, err := s.Rooms(t.Context(), store.RoomFilter{Project: "default", Limit: 1})
	if !errors.Is(err, store.ErrSchemaBehind) || !fault.Is(err, fault.ReasonSchemaBehind) {
		t.Fatalf("Rooms without a schema = %v; want %v", err, store.ErrSchemaBehind)
	}
	if log := migrate(t, url); strings.Count(log, "migration applied") != 2 || strings.Contains(log, "WARN") {
		t.Fatalf("log of the first Migrate = %q; want two migrations applied", log)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v; want nil", err)
	}
	if log := migrate(t, url); log != "" {
		t.Fatalf("log of the second Migrate = %q; want nothing done", log)
	}
	db := mysqltest.Connect(t, url)
	mustExec(t, db, "delete from mirror_schema_version where version_id = 2")
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
		t.Fatalf("Ping with an older schema = %v; want %v", err, store.ErrSchemaBehind)
	}
	mustExec(t, db, "insert into mirror_schema_version (version_id, is_applied) values (9999, true)")
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
		wg.Go(func() { errs[i] = mysql.Migrate(t.Context(), url, logs[i].logger()) })
	}
	wg.Wait()
	applied := 0
	for i := range logs {
		if errs[i] != nil {
			t.Fatalf("Migrate %d = %v", i, errs[i])
		}
		applied += strings.Count(logs[i].String(), "migration applied")
	}
	if applied != 2 {
		t.Fatalf("four at once applied %d migrations; want 2", applied)
	}
	if err := open(t, mysql.Config{URL: url}).Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v; want nil", err)
	}
}

// Every statement commits by itself, so a migration can be cut off after any of
// them. Whatever is there already, the next one brings it to its end.
func TestMigrateAfterACut(t *testing.T) {
	t.Parallel()
	url := emptyDatabase(t)
	db := mysqltest.Connect(t, url)
	migrate(t, url)
	mustExec(t, db, "insert into mirror_project (project_id, liveblocks_project_id, pause_reason) values ('default', "+
		"'6605', '')")
	for _, cut := range [][]string{
		{"delete from mirror_schema_version where version_id = 2"},
		{"delete from mirror_schema_version where version_id = 2", "drop table mirror_sweep", "drop table mirror_comment"},
		{"delete from mirror_schema_version where version_id >= 1"},
		{"delete from mirror_schema_version"},
		{"delete from mirror_schema_version where version_id >= 1", "drop table mirror_change",
			"drop table mirror_feed_head", "drop view liveblocks_documents"},
		{"drop table mirror_schema_version", "drop table mirror_document"},
		{"drop table mirror_schema_lock"},
	} {
		for _, query := range cut {
			mustExec(t, db, query)
		}
		migrate(t, url)
		s := open(t, mysql.Config{URL: url})
		if err := s.Ping(t.Context()); err != nil {
			t.Fatalf("Ping after %q and Migrate = %v", cut, err)
		}
		for _, table := range []string{"mirror_change", "mirror_feed_head", "mirror_document", "mirror_sweep",
			"mirror_comment", "liveblocks_documents"} {
			value[int](t, db, "select count(*) from "+table)
		}
		if p, err := s.Project(t.Context(), "default"); err != nil || p.LiveblocksID != "6605" {
			t.Fatalf("Project after %q = %+v, %v; want it kept", cut, p, err)
		}
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
	for _, id := range []mirror.RoomID{"living ö", "dead", "null", "reborn"} {
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
	now := time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC)
	fill(t, open(t, mysql.Config{URL: url}), now)
	db := mysqltest.Connect(t, url)
	type row struct {
		Room, A, UpdatedAt, Project string
	}
	var got row
	if err := db.QueryRowContext(t.Context(),
		`select room_id, json_unquote(json_extract(data, '$.a')), cast(updated_at as char), project_id
		from liveblocks_documents where room_id = 'living ö'`).Scan(&got.Room, &got.A, &got.UpdatedAt, &got.Project); err != nil {
		t.Fatalf("select = %v", err)
	}
	if d := cmp.Diff(row{"living ö", "living ö", "2026-03-01 12:00:00.123456", "default"}, got); d != "" {
		t.Fatalf("liveblocks_documents (-want +got):\n%s", d)
	}
	if n := value[int](t, db,
		"select count(*) from liveblocks_documents where room_id in ('LIVING ö', 'living o', 'living ö ')"); n != 0 {
		t.Fatalf("rows of a room that differs by case, accent or a blank = %d; want none", n)
	}
	mustExec(t, db, "create table theirs (room varchar(255) character set utf8mb4 collate utf8mb4_general_ci)")
	mustExec(t, db, "insert into theirs values ('living ö'), ('LIVING ö'), ('living o'), ('living ö ')")
	if n := value[int](t, db, "select count(*) from theirs t join liveblocks_documents d on d.room_id = t.room"); n != 1 {
		t.Fatalf("rows of a join by text = %d; want that of the same bytes", n)
	}
	if n := value[int](t, db, "select count(*) from liveblocks_documents"); n != 1 {
		t.Fatalf("rows = %d; want that of the living room alone", n)
	}
}

// What users made by the guides is theirs.
func TestMigrateLeavesRelationsOfOthersAlone(t *testing.T) {
	t.Parallel()
	for what, create := range map[string]string{
		"table": "create table liveblocks_documents (room_id varchar(255) primary key, data json, updated_at timestamp)",
		"view": "create view liveblocks_documents as select 'mine' as room_id, null as data, null as updated_at, 'p' as " +
			"project_id",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			url := emptyDatabase(t)
			db := mysqltest.Connect(t, url)
			mustExec(t, db, create)
			if what == "table" {
				mustExec(t, db, "insert into liveblocks_documents (room_id) values ('mine')")
			}
			for range 2 {
				if log := migrate(t, url); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "liveblocks_documents") {
					t.Fatalf("log of Migrate = %q; want one warning that names it", log)
				}
				if got := value[string](t, db, "select group_concat(room_id) from liveblocks_documents"); got != "mine" {
					t.Fatalf("rooms in the %s = %q; want it left alone", what, got)
				}
			}
			s := open(t, mysql.Config{URL: url})
			fill(t, s, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
			if err := s.Ping(t.Context()); err != nil {
				t.Fatalf("Ping = %v; want nil", err)
			}
			mustExec(t, db, "rename table liveblocks_documents to old_documents")
			if log := migrate(t, url); log != "" {
				t.Fatalf("log of Migrate when the name is free = %q; want nothing said", log)
			}
			if got := value[string](t, db, "select group_concat(room_id) from liveblocks_documents"); got != "living ö" {
				t.Fatalf("rooms in the view = %q; want ours", got)
			}
		})
	}
}

// A view of ours that is not of this edition is replaced.
func TestMigrateReplacesItsOldView(t *testing.T) {
	t.Parallel()
	url := migratedDatabase(t)
	db := mysqltest.Connect(t, url)
	mustExec(t, db, "create or replace view liveblocks_documents as select 1 as room_id from mirror_room where "+
		"'liveblocks-mirror 0' <> ''")
	if log := migrate(t, url); log != "" {
		t.Fatalf("log of Migrate = %q; want nothing said", log)
	}
	value[int](t, db, "select count(updated_at) from liveblocks_documents")
}

// Each starter makes the views after it has given the lock of the migrations back.
func TestViewsAtOnce(t *testing.T) {
	t.Parallel()
	url := migratedDatabase(t)
	db := mysqltest.Connect(t, url)
	for range 3 {
		mustExec(t, db, "drop view liveblocks_documents")
		var logs [4]journal
		errs := make([]error, len(logs))
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = mysql.Migrate(t.Context(), url, logs[i].logger()) })
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil || logs[i].String() != "" {
				t.Fatalf("Migrate = %v, having said %q; want no error", err, logs[i].String())
			}
		}
		value[int](t, db, "select count(*) from liveblocks_documents")
	}
}

// role makes a role with rights in the database of a URL and returns the URL as
// that role has it.
func role(t *testing.T, admin, rights string) string {
	t.Helper()
	db := mysqltest.Connect(t, admin)
	name := "mysqltest_" + strings.ToLower(rand.Text()[:12])
	mustExec(t, db, "create user '"+name+"'@'%' identified by 'x'")
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "drop user '"+name+"'@'%'"); err != nil {
			t.Errorf("drop user = %v", err)
		}
	})
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	mustExec(t, db, "grant "+rights+" on `"+strings.TrimPrefix(u.Path, "/")+"`.* to '"+name+"'@'%'")
	u.User = url.UserPassword(name, "x")
	return u.String()
}

func TestMigrateWithoutRights(t *testing.T) {
	t.Parallel()
	for what, prepare := range map[string]func(db *sql.DB){
		"nothing there": func(*sql.DB) {},
		"lock there": func(db *sql.DB) {
			mustExec(t, db, "create table mirror_schema_lock (lock_id bigint primary key, locked boolean, locked_at "+
				"datetime(6), locked_by text, lease_expires_at datetime(6), updated_at datetime(6))")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			admin := emptyDatabase(t)
			prepare(mysqltest.Connect(t, admin))
			begun := time.Now()
			err := mysql.Migrate(t.Context(), role(t, admin, "select"), slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), "the database role may not create tables") {
				t.Fatalf("Migrate without rights = %v; want it to say so", err)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Fatalf("Migrate without rights took %v; want it to say so at once", took)
			}
		})
	}
}

// Where tables are altered in another way, such as by a deploy request of
// PlanetScale, the printed statements do all of it: what is left needs no right to
// alter anything.
func TestMigrationSQLIsAllOfIt(t *testing.T) {
	t.Parallel()
	admin := emptyDatabase(t)
	db := mysqltest.Connect(t, admin)
	text := mysql.MigrationSQL()
	if strings.Contains(text, "+goose") {
		t.Fatalf("MigrationSQL has marks in it that only our own tool reads:\n%s", text)
	}
	for _, statement := range strings.Split(text, ";\n") {
		if strings.TrimSpace(statement) != "" {
			mustExec(t, db, statement)
		}
	}
	user := role(t, admin, "select, insert, update, delete, show view")
	if log := migrate(t, user); log != "" {
		t.Fatalf("log of Migrate = %q; want nothing done", log)
	}
	s := open(t, mysql.Config{URL: user})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v; want nil", err)
	}
	fill(t, s, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	if n := value[int](t, mysqltest.Connect(t, user), "select count(*) from liveblocks_documents"); n != 1 {
		t.Fatalf("rows of the view = %d; want 1", n)
	}
}

func TestMigrateKeepsTheURLSecret(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"mysql://u:hunter2@host:port/db", "mysql://u:hunter2@[::1/db", "://hunter2", "u:hunter2@tcp(host",
		"mysql://u:hunter2@127.0.0.1:1/db",
	} {
		errMigrate := mysql.Migrate(t.Context(), bad, slog.New(slog.DiscardHandler))
		s, errOpen := mysql.Open(t.Context(), mysql.Config{URL: bad})
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

// A server that refuses the connection is away, whatever its reason: no
// statement is at fault, and waiting may mend it.
func TestRefusedConnectionIsAnOutage(t *testing.T) {
	t.Parallel()
	needServer(t)
	there, err := url.Parse(mysqltest.URL(t))
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	nowhere, stranger := *there, *there
	nowhere.Path = "/no_such_database"
	stranger.User, stranger.Path = url.UserPassword("nobody-known", "hunter2"), "/mysql"
	for _, u := range []url.URL{nowhere, stranger} {
		s := open(t, mysql.Config{URL: u.String()})
		for what, call := range map[string]func() error{
			"Ping":   func() error { return s.Ping(t.Context()) },
			"Accept": func() error { _, err := s.Accept(t.Context(), []mirror.Delivery{{}}); return err },
		} {
			err := call()
			if f := fault.Of(err); f.Kind != fault.Unavailable || f.Reason != fault.ReasonStoreUnavailable ||
				strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s = %v; want the store unavailable", what, err)
			}
		}
	}
}
