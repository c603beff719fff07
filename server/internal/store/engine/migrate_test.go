package engine_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// migrations is how many there are on each engine, latest the version of the last.
var migrations, latest = released()

func released() (n, latest int) {
	files, err := filepath.Glob("../postgres/migrations/*.sql")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprintf("no migrations: %v", err))
	}
	slices.Sort(files)
	number, _, _ := strings.Cut(filepath.Base(files[len(files)-1]), "_")
	if latest, err = strconv.Atoi(number); err != nil {
		panic(err)
	}
	return len(files), latest
}

// A released migration is never edited: databases have run it as it was. When the
// views of MySQL are, their edition is raised, or databases keep the old ones.
func TestReleasedMigrationsAreUnchanged(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"mysql/migrations/0001_mirror.sql":       "37fc831107335c8c33eb4032f64f5858bfe051cac1d2a898fa2da9ba6586ee56",
		"mysql/migrations/0002_everything.sql":   "29a1059cd455bd40f7f040ff7798790940a6718c9aada62e7ad86ff088d8ee9e",
		"mysql/migrations/0003_groups.sql":       "94d3be53a54d5401630a5e28a79c997b847a97d0b71dcd6196d1baaa437564a3",
		"mysql/migrations/0004_project.sql":      "55bc628cd8ae48274831a9d01c59ffae5ea0c31fb8c9a45d413bebdf733efa84",
		"mysql/migrations/0005_queue.sql":        "79bb204c37c360495b77af3b83103b3891bd1ff4aa73c0d3e07f7687bc6cb95d",
		"mysql/migrations/0006_lists.sql":        "7ce385f7e722879faaafd2e280c50292369e42a52ffe1f903161b93763a14e2d",
		"mysql/migrations/0007_threads.sql":      "b6f3bd1e4047b71afd13072221130c732b0ddb8a56c851e0aa781740c148ae24",
		"mysql/migrations/0008_odd.sql":          "f3fa1a48014b902d42cf442c77e9ad793de7476562da58b0473cb6135bf1e4d4",
		"mysql/migrations/0010_status.sql":       "9a64e8df6293f914120771e2c5eb9c0dbc02f879e27454b3967b01178de3c610",
		"mysql/migrations/0012_comments.sql":     "2fcbc32c792f42b5e9121410559c0491123bffa7e4c03a1cf923016b7ac85199",
		"mysql/migrations/0013_shard.sql":        "2ad94fbed75bb097de83ed2ee4059a229f0462e06ff2993a0f1bf8d00f773b24",
		"mysql/migrations/0016_feed.sql":         "1f857067564c0364b3a8f484884384b9dcd39a7887a4c0e1df6cd928712ce0d8",
		"mysql/migrations/0017_stop.sql":         "47b522673abac4a8c39231ff9b3f176460a89560f04ba04ab0b950183be8e4f5",
		"mysql/migrations/0019_audit.sql":        "caef21d9b496695eb24eb8ae753ef6a9b34fa90a2ddb6eaf64c6435d56feabea",
		"mysql/migrations/0020_thread_index.sql": "cd2a29dd0cda74d80a6a828d9012135ac50ecf28880d6f7a2e53185a538c5e01",
		"mysql/migrations/0021_audit_rows.sql":   "6512411402911c8a8597b5042b5a01527297e71ec4bae3238bde8cab2b6a3acd",
		"mysql/migrations/0024_tombstones.sql":   "53dfe7d72b36dc4cf88546b132737c077273331efcc4a16c896e4ba0caf520cc",
		"mysql/migrations/0025_room_terms.sql":   "e48ab6d1506f39acddc0495d4162787e8448022be4648a7616becdc01f190627",
		"mysql/migrations/0026_thread_terms.sql": "4ce036921dca0f6456f52643757469fe3493917b51c6ea1b42e5f273a616eef6",
		// edition 3
		"mysql/views/liveblocks_documents.sql": "26a0b312baec26b4e281082f78c22113db0d32400f3b7b3c9643c128c509e164",
		// edition 1
		"mysql/views/liveblocks_flow_edges.sql":     "cd50aa8c426c789d38ef3bc3f11231139f2344b37929589632eec06820a1b57e",
		"mysql/views/liveblocks_flow_nodes.sql":     "ce6c6799a7b383828c880fab3508fa5480c06d68d3c2d772ac706d76cd578e6a",
		"mysql/views/liveblocks_active_users.sql":   "1b8158ca666280369fa3ed00a8d72be61dbaca65b5ab1db5457e7b7b8fc55636",
		"mysql/views/liveblocks_comments.sql":       "a50ef7fd0d1d20102db2fb3c377c9d4928a932018702dc523a0c606a45772b53",
		"mysql/views/liveblocks_group_members.sql":  "b7a1debd3cfd8bc7df5690322aa4c9f9c84b8788dbc59ceb1b47a436670dd034",
		"mysql/views/liveblocks_groups.sql":         "3baee4519355433c75c176d7229564a837c409e0cdebbffec2e6d51cb1f2ed1b",
		"mysql/views/liveblocks_notifications.sql":  "cdf08526fca8cc63714d695dcb46d169d657bdfaf8364111430199e65f5e62dd",
		"mysql/views/liveblocks_reactions.sql":      "e09067a15d1e747d0cc6642a1926b04c5d6879798bf9fe63d89d1865d7bb58c5",
		"mysql/views/liveblocks_rooms.sql":          "9a72e4890674c71f97da865baa1b1d5405113647505548457ca69476440ae475",
		"mysql/views/liveblocks_threads.sql":        "813d0bfee7e7a00bbaf96b147a616dc7d2d32b2694b0922714b70ff96ee4c029",
		"mysql/views/liveblocks_user_sessions.sql":  "c3074a51d6b0f561e32899d88a5c1313fadf8853c7a5a66e2c8befd596b5df99",
		"mysql/views/liveblocks_ydocs.sql":          "642946f4a16d440ad84d084bc4f977033a402b86019d2286eea557dba52e2cd2",
		"postgres/migrations/0001_mirror.sql":       "59abf87a67b57ab698e5aaa2b9dc7ca57654fd09cf6338d1aa4630a65c475f4f",
		"postgres/migrations/0002_everything.sql":   "23be6f951a82485f533842b89f561dd45c75550a0675d1c025a1fa33933e3c97",
		"postgres/migrations/0003_groups.sql":       "2c0eac3a28aec06bf170b7d2ed8a76e17c9c658d5f9b6642937ff4cea4c85364",
		"postgres/migrations/0004_project.sql":      "07e291a66eb9533499082b3074be0ca10181e0fd375485420a1f6fc961eb2f44",
		"postgres/migrations/0005_queue.sql":        "35ffc2023c5d2edc56039c2d0fd2d173c45ef0ba266c954aa380a08eb4b0ce3f",
		"postgres/migrations/0006_lists.sql":        "cc0b21cede49e9d735df3ac28e9d136987495b2632012ad8e602904ad0025aec",
		"postgres/migrations/0007_threads.sql":      "267f5260a0f050601e1b1229e2b500cd7b3a1f66033ee074d02c9931caeff2b4",
		"postgres/migrations/0008_odd.sql":          "53ec69f9df546d2ca64baa6b0440665b25742a7e06bb4484929c0d26121bc168",
		"postgres/migrations/0010_status.sql":       "7f4d8890358e370bf541e2708464d750a1317a0825d8464543c2b21c7f5e85d7",
		"postgres/migrations/0012_comments.sql":     "75af070693b901de4db1734d9498ec219cf66d80040844242352ea7191754116",
		"postgres/migrations/0013_shard.sql":        "4819b6b44656c529b6b27493e58702a6031bd304aed3282a3a278eecf46d91a8",
		"postgres/migrations/0016_feed.sql":         "6897d8b20b071ec96c3bdcb130f81fddb2b709cb828374bdec58dc557ea7205c",
		"postgres/migrations/0017_stop.sql":         "dc45b972d2d6a93943f65c0eb3364870ec9d9413ae95f4ac0bd6f356893b8b5a",
		"postgres/migrations/0019_audit.sql":        "08099daaab42585f4a7cd682ffafea5039c6754abbd440a08df3eb751066649f",
		"postgres/migrations/0020_thread_index.sql": "aeb6aba63ad6bfdd24e2bf4b1dcd80fd54b44fa4c054c2220cc46fd07d9e6ccb",
		"postgres/migrations/0021_audit_rows.sql":   "f9fe19e2672b8e1ddb6a890237fec58b68c5d8432cd4249dc2bfa75cf7e83c9e",
		"postgres/migrations/0024_tombstones.sql":   "427a9000a0718c57c87e50dc2e5dc27488813bfabea99e85bcd09bb766da4d6b",
		"postgres/migrations/0025_room_terms.sql":   "33715a70566d6a3f2f6a214333e7ef7e7695956d6bac5acb80ca0f3dbfc7ab0f",
		"postgres/migrations/0026_thread_terms.sql": "25ff8b7f8a44d33fc892dc74ecfbeed507d97c889acede5598986f80ea980219",
	}
	var files []string
	for _, pattern := range []string{"*/migrations/*.sql", "mysql/views/*.sql"} {
		found, err := filepath.Glob("../" + pattern)
		if err != nil {
			t.Fatalf("Glob = %v", err)
		}
		files = append(files, found...)
	}
	got := make(map[string]string)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("ReadFile = %v", err)
		}
		sum := sha256.Sum256(b)
		got[strings.TrimPrefix(file, "../")] = hex.EncodeToString(sum[:])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("migrations differ from those that were released (-released +here):\n%s", d)
	}
}

func TestMigrateFromNothing(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Empty(t)
		s := open(t, engine.Config{URL: url})
		if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
			t.Fatalf("Ping without a schema = %v; want %v", err, store.ErrSchemaBehind)
		}
		_, err := s.Rooms(t.Context(), store.RoomFilter{Project: "default", Limit: 1})
		if !errors.Is(err, store.ErrSchemaBehind) || !fault.Is(err, fault.ReasonSchemaBehind) {
			t.Fatalf("Rooms without a schema = %v; want %v", err, store.ErrSchemaBehind)
		}
		if log := migrate(t, url); strings.Count(log, "migration applied") != migrations || strings.Contains(log, "WARN") {
			t.Fatalf("log of the first Migrate = %q; want %d migrations applied", log, migrations)
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Fatalf("Ping = %v; want nil", err)
		}
		if log := migrate(t, url); log != "" {
			t.Fatalf("log of the second Migrate = %q; want nothing done", log)
		}
		db := e.Connect(t, url)
		mustExec(t, db, "delete from mirror_schema_version where version_id = ?", latest)
		if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
			t.Fatalf("Ping with an older schema = %v; want %v", err, store.ErrSchemaBehind)
		}
		mustExec(t, db, "insert into mirror_schema_version (version_id, is_applied) values (9999, true)")
		if err := s.Ping(t.Context()); err != nil {
			t.Fatalf("Ping with a newer schema = %v; want nil", err)
		}
	})
}

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Empty(t)
		startAtOnce(t, 4, func(int) string { return url })
		if err := open(t, engine.Config{URL: url}).Ping(t.Context()); err != nil {
			t.Fatalf("Ping = %v; want nil", err)
		}
	})
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
		doc := mirror.DocumentContent{
			FetchTime: now, Content: []byte(`{"lson":1}`), DeriveVersion: 1,
			Data: []byte(`{"a": "` + string(id) + `"}`),
		}
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
	textOf := map[*dbtest.Engine]string{
		dbtest.Postgres: "text", dbtest.MySQL: "varchar(255) character set utf8mb4 collate utf8mb4_general_ci",
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		now := testTime.Add(123_456 * time.Microsecond)
		fill(t, open(t, engine.Config{URL: url}), now)
		db := e.Connect(t, url)
		type row struct {
			Room, A   string
			UpdatedAt time.Time
			Project   string
		}
		var got []row
		query := "select room_id, " + e.JSON("data", "a") + ", updated_at, project_id from liveblocks_documents"
		err := db.Each(t.Context(), query,
			func(scan func(dest ...any) error) error {
				var r row
				err := scan(&r.Room, &r.A, &r.UpdatedAt, &r.Project)
				r.UpdatedAt = r.UpdatedAt.UTC()
				got = append(got, r)
				return err
			})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]row{{"living ö", "living ö", now, "default"}}, got); d != "" {
			t.Fatalf("liveblocks_documents, where only the living room is (-want +got):\n%s", d)
		}
		in, alike := dbtest.In([]string{"living ö", "LIVING ö", "living o", "living ö "}) // and only the first has a row
		if n := value[int](t, db, "select count(*) from liveblocks_documents where room_id in "+in, alike...); n != 1 {
			t.Fatalf("rows by ids that differ in case, accent or a blank = %d; want 1", n)
		}
		mustExec(t, db, "create table theirs (room "+textOf[e]+")")
		mustExec(t, db, "insert into theirs values (?), (?), (?), (?)", alike...)
		if n := value[int](t, db, "select count(*) from theirs t join liveblocks_documents d on d.room_id = t.room"); n != 1 {
			t.Fatalf("rows of a join by text = %d; want that of the same bytes", n)
		}
	})
}

// What users made by the guides is theirs.
func TestMigrateLeavesRelationsOfOthersAlone(t *testing.T) {
	t.Parallel()
	type relation struct{ create, rename string }
	relations := map[*dbtest.Engine]map[string]relation{
		dbtest.Postgres: {
			"table": {
				"create table liveblocks_documents (room_id text primary key, data jsonb, updated_at timestamptz)",
				"alter table liveblocks_documents rename to old_documents",
			},
			"view": {
				"create view liveblocks_documents as select 'mine'::text collate \"C\" as room_id, null::jsonb as data, " +
					"now() as updated_at, 'p'::text collate \"C\" as project_id",
				"alter view liveblocks_documents rename to old_documents",
			},
		},
		dbtest.MySQL: {
			"table": {
				"create table liveblocks_documents (room_id varchar(255) primary key, data json, updated_at timestamp)",
				"rename table liveblocks_documents to old_documents",
			},
			"view": {
				"create view liveblocks_documents as select 'mine' as room_id, null as data, null as updated_at, 'p' as project_id",
				"rename table liveblocks_documents to old_documents",
			},
		},
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for what, r := range relations[e] {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				url := e.Empty(t)
				db := e.Connect(t, url)
				rooms := func() string {
					t.Helper()
					return value[string](t, db, "select min(room_id) from liveblocks_documents having count(*) = 1")
				}
				mustExec(t, db, r.create)
				if what == "table" {
					mustExec(t, db, "insert into liveblocks_documents (room_id) values ('mine')")
				}
				for range 2 {
					log := migrate(t, url)
					if strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "liveblocks_documents") {
						t.Fatalf("log of Migrate = %q; want one warning that names it", log)
					}
					if got := rooms(); got != "mine" {
						t.Fatalf("rooms in the %s = %q; want it left alone", what, got)
					}
				}
				s := open(t, engine.Config{URL: url})
				fill(t, s, testTime)
				if err := s.Ping(t.Context()); err != nil {
					t.Fatalf("Ping = %v; want nil", err)
				}
				mustExec(t, db, r.rename)
				if log := migrate(t, url); log != "" {
					t.Fatalf("log of Migrate when the name is free = %q; want nothing said", log)
				}
				db = e.Connect(t, url) // sessions remember how relations were
				if got := rooms(); got != "living ö" {
					t.Fatalf("rooms in the view = %q; want ours", got)
				}
			})
		}
	})
}

// user makes a user with rights in the database of a URL and returns the URL as that
// user has it.
func user(t *testing.T, e *dbtest.Engine, admin, rights string) string {
	t.Helper()
	if e == dbtest.MySQL {
		mysqltest.Need(t, mysqltest.Users)
	}
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	db, name := e.Connect(t, admin), "dbtest_"+strings.ToLower(rand.Text()[:12])
	account := name
	if e == dbtest.Postgres {
		mustExec(t, db, "create role "+name+" login password 'x'")
		mustExec(t, db, "revoke create on schema public from public")
	} else {
		account = "'" + name + "'@'%'"
		mustExec(t, db, "create user "+account+" identified by 'x'")
		mustExec(t, db, "grant "+rights+" on `"+strings.TrimPrefix(u.Path, "/")+"`.* to "+account)
	}
	t.Cleanup(func() {
		if _, err := db.DB.Exec("drop user " + account); err != nil {
			t.Errorf("drop user = %v", err)
		}
	})
	to := as(u, name, "x")
	return to.String()
}

func TestMigrateWithoutRights(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for what, prepare := range map[string]string{
			"nothing there": "select 1",
			"lock there": "create table mirror_schema_lock (lock_id bigint primary key, locked boolean, locked_at timestamp, " +
				"locked_by text, lease_expires_at timestamp null, updated_at timestamp null)",
		} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				admin := e.Empty(t)
				mustExec(t, e.Connect(t, admin), prepare)
				begun := time.Now()
				err := engine.Migrate(t.Context(), user(t, e, admin, "select"), new(journal).logger())
				if err == nil || !strings.Contains(err.Error(), "the database role may not create tables") {
					t.Fatalf("Migrate without rights = %v; want it to say so", err)
				}
				if took := time.Since(begun); took > 20*time.Second {
					t.Fatalf("Migrate without rights took %v; want it to say so at once", took)
				}
			})
		}
	})
}

// Rights on the database alone suffice. On MariaDB not for the views of diagrams:
// the rest is there all the same.
func TestMigrateWithRightsOnTheDatabaseAlone(t *testing.T) {
	t.Parallel()
	dbtest.MySQL.Need(t)
	admin := dbtest.MySQL.Empty(t)
	app := user(t, dbtest.MySQL, admin, "all")
	log := migrate(t, app)
	if !strings.Contains(log, "this user cannot create the view") && strings.Contains(log, "WARN") {
		t.Fatalf("log of Migrate = %q", log)
	}
	s := open(t, engine.Config{URL: app})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v", err)
	}
	db := dbtest.MySQL.Connect(t, app)
	if n := value[int](t, db, "select count(*) from liveblocks_documents"); n != 0 {
		t.Fatalf("rows of liveblocks_documents = %d; want 0", n)
	}
}

// What was stored by the version before goes on: its tasks are due, its rooms and
// documents are read, and what they have now is added to them.
func TestMigrateFromTheVersionBefore(t *testing.T) {
	t.Parallel()
	now := testTime
	url := dbtest.Postgres.Own(t)
	s, conn := open(t, engine.Config{URL: url}), dbtest.Postgres.Connect(t, url)
	fill(t, s, now)
	room := mirror.Resource{Project: "default", Room: "living ö", Kind: mirror.KindRoom}
	before, err := s.Room(t.Context(), room, false)
	if err != nil {
		t.Fatalf("Room = %v", err)
	}
	if _, err := s.Request(t.Context(), requestsFor(room), now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	mustExec(t, conn, `do $$
		declare name text;
		begin
			foreach name in array array['unfolded_event', 'thread', 'comment', 'comment_reaction', 'comment_attachment',
				'comment_mention', 'active_user', 'user_session', 'notification', 'sweep', 'group', 'group_member',
				'unannounced', 'room_term']
			loop
				execute format('drop table mirror_%s cascade', name);
			end loop;
		end $$`)
	mustExec(t, conn, "alter table mirror_resource_state drop column background, drop column notice_time, "+
		"drop column deaths") // and an index
	mustExec(t, conn, "create index mirror_resource_state_by_due on mirror_resource_state (project_id, due_time) "+
		"where due_time is not null")
	mustExec(t, conn, "alter table mirror_project drop column key_hash, drop column key_confirm_time, "+
		"drop column foreign_project_id, drop column foreign_events, drop column foreign_time, "+
		"drop column confirmed_rooms, drop column confirmed_groups, drop column confirm_time, drop column feed, "+
		"drop column stop_reason, drop column stop_time")
	mustExec(t, conn, "alter table mirror_change drop column epoch")
	mustExec(t, conn, "alter table mirror_document drop column state_sha256")
	mustExec(t, conn, "alter table mirror_room drop column terms_sha256")
	mustExec(t, conn, "delete from mirror_schema_version where version_id >= 2")
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrSchemaBehind) {
		t.Fatalf("Ping with the schema before = %v; want %v", err, store.ErrSchemaBehind)
	}
	if log := migrate(t, url); strings.Count(log, "migration applied") != migrations-1 {
		t.Fatalf("log of Migrate = %q; want all but the first migration applied", log)
	}
	s = open(t, engine.Config{URL: url}) // sessions remember how tables were
	list, err := s.Due(t.Context(), store.Look{
		Project: "default", Kinds: mirror.Kinds(), Now: now, LeaseTTL: time.Minute, Limit: 100,
	})
	isRoom := func(r store.DueResource) bool { return r.Resource == room }
	if err != nil || !slices.ContainsFunc(list.Resources, isRoom) || len(list.Background) != 0 {
		t.Fatalf("Due = %+v, %v; want the room, and nothing in the background", list, err)
	}
	after, err := s.Room(t.Context(), room, false)
	before.Freshness.Stale = true
	if d := cmp.Diff(before, after); err != nil || d != "" {
		t.Fatalf("Room = %v (-before +after):\n%s", err, d)
	}
	threads := mirror.Resource{Project: "default", Room: "living ö", Kind: mirror.KindThread}
	if _, err := s.Request(t.Context(), requestsFor(threads), now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	lease, err := s.Claim(t.Context(), threads, [16]byte{1}, now, time.Minute)
	if err != nil {
		t.Fatalf("Claim = %v", err)
	}
	th := store.ThreadItem(mirror.Thread{ID: "th_1"})
	added, err := s.AddItems(t.Context(), lease, []store.Item{th}, now, now)
	if err != nil || len(added) != 1 {
		t.Fatalf("AddItems = %v, %v; want the thread stored", added, err)
	}
}

// Versions before 13 kept an event in a bucket of its own, by its id, and sweeps in none.
// They are moved, also after a cut, and no event is forgotten or doubled.
func TestEventsMoveToTheirRooms(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		ctx, now := t.Context(), testTime
		var batch []mirror.Delivery
		for n := range 2500 { // more than one piece
			project, room := mirror.ProjectID("default"), mirror.RoomID(fmt.Sprint("ö ", n%600))
			switch {
			case n%5 == 0:
				project = "other"
			case n%7 == 0:
				room = ""
			}
			batch = append(batch, mirror.Delivery{Event: mirror.Event{
				Project: project, Room: room, ID: fmt.Sprint("msg_", n), Payload: fmt.Append(nil, n), Type: "t", User: "u",
				LiveblocksProject: "l", SendTime: now, ReceiveTime: now.Add(time.Duration(n) * time.Second), SourceTime: now,
				Outcome: mirror.OutcomeQueued,
			}})
		}
		accept := func(fresh bool) {
			t.Helper()
			for piece := range slices.Chunk(batch, 500) {
				answers, err := s.Accept(ctx, piece)
				if err != nil {
					t.Fatalf("Accept = %v", err)
				}
				for i, a := range answers {
					if want := (store.Accepted{Fresh: fresh, Outcome: mirror.OutcomeQueued}); !cmp.Equal(a, want) {
						t.Fatalf("Accept of %+v = %+v; want %+v", piece[i].Event, a, want)
					}
				}
			}
		}
		accept(true)
		var sweeps []mirror.Sweep
		for _, project := range []mirror.ProjectID{"default", "other", "p-160"} { // that of p-160 is in bucket 0
			sweep, err := s.PlanSweep(ctx, project, "sweep of "+string(project), true, now)
			if err != nil {
				t.Fatalf("PlanSweep = %v", err)
			}
			sweeps = append(sweeps, sweep)
		}

		// As it was before, in a few buckets: some events hit the right one.
		mustExec(t, db, "update mirror_event set bucket = 7")
		mustExec(t, db, "update mirror_event set bucket = "+fmt.Sprint(batch[2].Event.Bucket())+" where event_id = 'msg_2'")
		older := map[*dbtest.Engine][]string{
			dbtest.Postgres: {"alter table mirror_sweep drop column bucket, add primary key (project_id)"},
			dbtest.MySQL:    {"alter table mirror_sweep drop primary key, drop column bucket, add primary key (project_id)"},
		}
		for _, text := range older[e] {
			mustExec(t, db, text)
		}
		mustExec(t, db, "delete from mirror_schema_version where version_id >= 13")
		// A cut after some were copied and before they were removed.
		copied := batch[len(batch)-3:]
		for _, d := range copied {
			mustExec(t, db, "update mirror_event set event_id = 'kept' where event_id = ?", d.Event.ID)
			if _, err := s.Accept(ctx, []mirror.Delivery{d}); err != nil {
				t.Fatalf("Accept = %v", err)
			}
			mustExec(t, db, "update mirror_event set event_id = ? where event_id = 'kept'", d.Event.ID)
		}

		if log := migrate(t, url); !strings.Contains(log, "events moved to the buckets of their rooms") {
			t.Fatalf("log of Migrate = %q; want it to tell of the events", log)
		}
		s = open(t, engine.Config{URL: url}) // sessions remember how tables were
		for _, d := range batch {
			if got, err := s.EventOf(ctx, d.Event.Project, d.Event.Room, d.Event.ID); err != nil || !cmp.Equal(got, d.Event) {
				t.Fatalf("EventOf = %+v, %v; want %+v", got, err, d.Event)
			}
		}
		accept(false)
		if n := value[int](t, db, "select count(*) from mirror_event"); n != len(batch) {
			t.Fatalf("there are %d events; want %d", n, len(batch))
		}
		for _, want := range sweeps {
			if got, err := s.Sweep(ctx, want.Project); err != nil || !cmp.Equal(got, want) {
				t.Fatalf("Sweep = %+v, %v; want %+v", got, err, want)
			}
			if _, err := s.PlanSweep(ctx, want.Project, "again", true, now); err != nil {
				t.Fatalf("PlanSweep = %v", err)
			}
		}
		if n := value[int](t, db, "select count(*) from mirror_sweep"); n != len(sweeps) {
			t.Fatalf("there are %d sweeps; want %d", n, len(sweeps))
		}
	})
}

// While somebody reads a table for long, such as a dump does, a migration that needs the
// table for itself lets others write to it, and is done when the reader has ended.
func TestMigrateHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Empty(t)
		db := e.Connect(t, url)
		migrate(t, url)
		drop := "drop index mirror_event_by_thread"
		if e == dbtest.MySQL {
			drop += " on mirror_event"
		}
		for _, query := range []string{
			drop, "alter table mirror_event drop column thread_id", "alter table mirror_event drop column secret_sha",
			"delete from mirror_schema_version where version_id >= 19",
		} {
			mustExec(t, db, query)
		}
		reader, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatalf("BeginTx = %v", err)
		}
		defer func() { _ = reader.Rollback() }() // it has been, unless the test has failed
		var n int
		if err := reader.QueryRowContext(t.Context(), "select count(*) from mirror_event").Scan(&n); err != nil {
			t.Fatalf("count events = %v", err)
		}
		log := new(journal)
		done := make(chan error, 1)
		go func() { done <- engine.Migrate(t.Context(), url, log.logger()) }()
		patience := time.After(time.Minute)
		for !strings.Contains(log.String(), "a migration waits") {
			select {
			case <-patience:
				t.Fatalf("Migrate beside a reader said %q; want it to give way to others, and say that it waits", log.String())
			case err := <-done:
				t.Fatalf("Migrate = %v beside a reader, having said %q; want it to wait", err, log.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
		mustExec(t, db, "delete from mirror_event where project_id = 'none'") // as a webhook, it needs the table
		if err := reader.Rollback(); err != nil {
			t.Fatalf("Rollback = %v", err)
		}
		if err := <-done; err != nil {
			t.Fatalf("Migrate = %v", err)
		}
		value[int](t, db, "select count(*) from mirror_event where thread_id <> '' and secret_sha <> ''")
	})
}

// Every statement commits by itself, so a migration can be cut off after any of
// them. Whatever is there already, the next one brings it to its end.
func TestMigrateAfterACut(t *testing.T) {
	t.Parallel()
	url := dbtest.MySQL.Empty(t)
	db := dbtest.MySQL.Connect(t, url)
	migrate(t, url)
	mustExec(t, db, "insert into mirror_project (project_id, liveblocks_project_id, pause_reason) values ('default', "+
		"'6605', '')")
	for _, cut := range [][]string{
		{"delete from mirror_schema_version where version_id >= 2"},
		{"delete from mirror_schema_version where version_id >= 2", "drop table mirror_sweep", "drop table mirror_comment"},
		{"delete from mirror_schema_version where version_id >= 1"},
		{"delete from mirror_schema_version"},
		{
			"delete from mirror_schema_version where version_id >= 1", "drop table mirror_change",
			"drop table mirror_feed_head", "drop view liveblocks_documents",
		},
		{"drop table mirror_schema_version", "drop table mirror_document"},
		{"drop table mirror_schema_lock"},
	} {
		for _, query := range cut {
			mustExec(t, db, query)
		}
		migrate(t, url)
		s := open(t, engine.Config{URL: url})
		if err := s.Ping(t.Context()); err != nil {
			t.Fatalf("Ping after %q and Migrate = %v", cut, err)
		}
		for _, table := range []string{
			"mirror_change", "mirror_feed_head", "mirror_document", "mirror_sweep",
			"mirror_comment", "liveblocks_documents",
		} {
			value[int](t, db, "select count(*) from "+table)
		}
		if p, err := s.Project(t.Context(), "default"); err != nil || p.LiveblocksID != "6605" {
			t.Fatalf("Project after %q = %+v, %v; want it kept", cut, p, err)
		}
	}
}

// A view of ours that is not of this edition is replaced.
func TestMigrateReplacesItsOldView(t *testing.T) {
	t.Parallel()
	url := dbtest.MySQL.Own(t)
	db := dbtest.MySQL.Connect(t, url)
	mustExec(t, db, "create or replace view liveblocks_documents as select 1 as room_id from mirror_room where "+
		"'liveblocks-mirror 0' <> ''")
	if log := migrate(t, url); log != "" {
		t.Fatalf("log of Migrate = %q; want nothing said", log)
	}
	value[int](t, db, "select count(updated_at) from liveblocks_documents")
}

// Starters make the views one after the other, and find them there.
func TestViewsAtOnceOnMySQL(t *testing.T) {
	t.Parallel()
	url := dbtest.MySQL.Own(t)
	db := dbtest.MySQL.Connect(t, url)
	for range 3 {
		mustExec(t, db, "drop view liveblocks_documents")
		var logs [4]journal
		errs := make([]error, len(logs))
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = engine.Migrate(t.Context(), url, logs[i].logger()) })
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

// Where tables are altered in another way, such as by a deploy request of PlanetScale
// or by a database administrator, the printed statements do all of it: nothing is left
// to migrate, and the tables are those that a migration makes.
func TestMigrationSQLIsAllOfIt(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		admin := e.Empty(t)
		db := e.Connect(t, admin)
		text := engine.Migrations(admin)
		if strings.Contains(text, "+goose") {
			t.Fatalf("the SQL has marks in it that only our own tool reads:\n%s", text)
		}
		for _, statement := range statements(text) {
			mustExec(t, db, statement)
		}
		limited := admin
		if e == dbtest.MySQL {
			limited = user(t, e, admin, "select, insert, update, delete, show view")
		}
		if log := migrate(t, limited); log != "" {
			t.Fatalf("log of Migrate = %q; want nothing done", log)
		}
		s := open(t, engine.Config{URL: limited})
		if err := s.Ping(t.Context()); err != nil {
			t.Fatalf("Ping = %v; want nil", err)
		}
		fill(t, s, testTime)
		if n := value[int](t, e.Connect(t, limited), "select count(*) from liveblocks_documents"); n != 1 {
			t.Fatalf("rows of the view = %d; want 1", n)
		}
		migrated := e.Empty(t)
		migrate(t, migrated)
		columns := "select count(*) from information_schema.columns where table_schema = " + e.Schema
		got, want := value[int](t, db, columns), value[int](t, e.Connect(t, migrated), columns)
		if got != want {
			t.Fatalf("columns = %d; want %d, as after a migration", got, want)
		}
	})
}

// statements divides SQL at the semicolons that end lines outside of dollar quotes.
func statements(text string) (list []string) {
	var one strings.Builder
	quoted := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "--") {
			continue
		}
		one.WriteString(line)
		quoted = quoted != (strings.Count(line, "$$")%2 == 1)
		if !quoted && strings.HasSuffix(line, ";\n") {
			list = append(list, one.String())
			one.Reset()
		}
	}
	return list
}
