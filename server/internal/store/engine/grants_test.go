package engine_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// granted is a database in which the printed statements have made roles.
type granted struct {
	*dbtest.DB
	// admin, owner, service and reader are its URLs.
	admin, owner, service, reader string
	roles                         store.Roles
	engine                        *dbtest.Engine
	t                             *testing.T
}

// grant makes roles of odd names in an empty database, the tables as their owner, and the
// rights on them. A schema of its own holds the tables on PostgreSQL, unless it is empty.
func grant(t *testing.T, e *dbtest.Engine, schema string) *granted {
	t.Helper()
	if e == dbtest.MySQL {
		mysqltest.Need(t, mysqltest.Users)
	}
	run := strings.ToLower(rand.Text()[:8])
	g := &granted{
		admin: e.Empty(t), engine: e, t: t,
		roles: store.Roles{Owner: "Owner's " + run, Service: "app-" + run, Reader: `read"er ` + run},
	}
	if e == dbtest.MySQL {
		g.roles.Reader = "read`er " + run
	}
	g.DB = e.Connect(t, g.admin)
	if schema != "" {
		g.admin = engine.WithSchema(g.admin, schema)
	}
	t.Cleanup(func() { // PostgreSQL has dropped neither the database nor what is in it
		for _, role := range []string{g.roles.Reader, g.roles.Service, g.roles.Owner} {
			statements := []string{"drop user " + g.name(role)}
			if e == dbtest.Postgres {
				statements = []string{"drop owned by " + g.name(role) + " cascade", "drop role " + g.name(role)}
			}
			for _, statement := range statements {
				if _, err := g.Exec(context.Background(), statement); err != nil {
					t.Error(err)
				}
			}
		}
	})
	g.run()
	u, err := url.Parse(g.admin)
	if err != nil {
		t.Fatal(err)
	}
	const password = "hunter2"
	for role, to := range map[string]*string{
		g.roles.Owner: &g.owner, g.roles.Service: &g.service, g.roles.Reader: &g.reader,
	} {
		if e == dbtest.Postgres {
			mustExec(t, g.DB, "alter role "+g.name(role)+" login password '"+password+"'")
		} else {
			mustExec(t, g.DB, "alter user "+g.name(role)+" identified by '"+password+"' account unlock")
		}
		as := as(u, role, password)
		*to = as.String()
	}
	log := g.migrate(g.owner)
	if e == dbtest.MySQL && strings.Contains(log, "this user cannot create the view") { // MariaDB
		g.migrate(g.admin)
	} else if strings.Contains(log, "WARN") {
		t.Fatalf("log of Migrate as the owner = %s; want no warning", log)
	}
	g.run()
	return g
}

// name is a role as statements have it.
func (g *granted) name(role string) string {
	if g.engine == dbtest.Postgres {
		return `"` + strings.ReplaceAll(role, `"`, `""`) + `"`
	}
	return "'" + strings.ReplaceAll(role, "'", "''") + "'@'%'"
}

// run runs the printed statements as they are, twice.
func (g *granted) run() {
	g.t.Helper()
	text, err := engine.Grants(g.admin, g.roles)
	if err != nil {
		g.t.Fatalf("Grants = %v", err)
	}
	for range 2 {
		dbtest.Script(g.t, g.admin, text)
	}
}

func (g *granted) migrate(as string) string {
	g.t.Helper()
	var log journal
	err := engine.Migrate(g.t.Context(), as, log.logger(), g.roles.Owner, g.roles.Service, g.roles.Reader)
	if err != nil {
		g.t.Fatalf("Migrate = %v", err)
	}
	return log.String()
}

// refused runs statements that must be refused for want of a right.
func (g *granted) refused(as string, statements ...string) {
	g.t.Helper()
	db := g.engine.Connect(g.t, as)
	for _, statement := range statements {
		_, err := db.Exec(g.t.Context(), statement)
		if err == nil || !slices.ContainsFunc([]string{"42501", "1142", "1143", "1044", "1227", "1370"},
			func(code string) bool { return strings.Contains(err.Error(), code) }) {
			g.t.Errorf("%s = %v; want it refused", statement, err)
		}
	}
}

var definitions = map[*dbtest.Engine][]string{
	dbtest.Postgres: {
		"create table mine (id integer)", "create view mine as select 1 as id", "drop table mirror_event",
		"alter table mirror_event add column mine integer", "create index mine on mirror_event (event_id)",
		"truncate mirror_event", "drop view liveblocks_rooms", "create schema mine",
	},
	dbtest.MySQL: {
		"create table mine (id integer)", "create view mine as select 1 as id", "drop table mirror_event",
		"alter table mirror_event add column mine integer", "create index mine on mirror_event (event_id)",
		"truncate table mirror_event", "drop view liveblocks_rooms", "create database mine",
	},
}

// What is printed makes roles that can do what they are for, and nothing else: before the
// first migration, after it, and again.
func TestGrants(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		schemas := []string{""}
		if e == dbtest.Postgres {
			schemas = []string{"", `My "Mirror"`}
		}
		for _, schema := range schemas {
			t.Run("in "+schema, func(t *testing.T) {
				t.Parallel()
				testGrants(t, e, schema)
			})
		}
	})
}

func testGrants(t *testing.T, e *dbtest.Engine, schema string) {
	g := grant(t, e, schema)
	if e == dbtest.Postgres && schema == "" &&
		value[int](t, g.DB, "select current_setting('server_version_num')::integer") < 150000 {
		// Everybody may create tables in public there. DATABASE.md has the statement.
		mustExec(t, g.DB, "revoke create on schema public from public")
	}
	s := open(t, engine.Config{URL: g.service})
	if err := s.Check(t.Context(), new(journal).logger()); err != nil {
		t.Fatalf("Check as the service = %v", err)
	}
	fill(t, s, testTime)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping as the service = %v", err)
	}
	for _, as := range []string{g.service, g.reader} {
		g.refused(as, definitions[e]...)
	}

	// The reader has the views, and of the tables no more than the views show.
	reader := e.Connect(t, g.reader)
	views := names(t, e.Connect(t, g.admin),
		"select table_name from information_schema.views where table_schema = "+e.Schema)
	if len(views) < 12 {
		t.Fatalf("views = %q; want all", views)
	}
	for _, view := range views {
		_, err := reader.ExecContext(t.Context(), "select * from "+view)
		if e == dbtest.MySQL && err != nil && strings.HasPrefix(view, "liveblocks_flow_") && mariaDB(t, g.DB) {
			continue // MariaDB lets only who may read all databases use columns of JSON that is read as a table
		}
		if err != nil {
			t.Errorf("select * from %s as the reader = %v", view, err)
		}
	}
	if n := value[int](t, reader, "select count(*) from liveblocks_documents"); n != 1 {
		t.Errorf("documents that the reader sees = %d; want 1", n)
	}
	g.refused(
		g.reader, "select payload from mirror_event", "select event_id from mirror_event",
		"select payload from mirror_unfolded_event", "select source_json from mirror_room",
		"select content from mirror_document",
		"select source_json from mirror_thread", "select lease_token from mirror_resource_state",
		"select * from mirror_room", "select * from mirror_schema_version",
		"insert into mirror_feed_head (bucket) values (1)",
		"update mirror_room set epoch = 0", "delete from mirror_room", "delete from liveblocks_rooms",
	)

	// Tables that a later migration adds are the service's too, and not the reader's.
	owner, service := e.Connect(t, g.owner), e.Connect(t, g.service)
	mustExec(t, owner, "create table mirror_later (id integer)")
	for _, statement := range []string{
		"insert into mirror_later (id) values (1)", "update mirror_later set id = 2", "delete from mirror_later",
	} {
		mustExec(t, service, statement)
	}
	g.refused(g.reader, "select id from mirror_later")

	if log := g.migrate(g.owner); strings.Contains(log, "WARN") && e == dbtest.Postgres {
		t.Errorf("log of Migrate with roles that are expected = %s; want no warning", log)
	}
}

func mariaDB(t *testing.T, db *dbtest.DB) bool {
	t.Helper()
	return strings.Contains(value[string](t, db, "select version()"), "MariaDB")
}

// names reads a column of names.
func names(t *testing.T, db *dbtest.DB, query string) (list []string) {
	t.Helper()
	err := db.Each(t.Context(), query, func(scan func(dest ...any) error) error {
		var name string
		err := scan(&name)
		list = append(list, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The columns on which the reader gets rights are those that PostgreSQL says the views
// need, not more.
func TestReaderHasTheColumnsOfTheViews(t *testing.T) {
	t.Parallel()
	g := grant(t, dbtest.Postgres, "")
	needed := names(t, g.DB, `select distinct c.relname || '.' || a.attname
		from pg_rewrite r join pg_class v on v.oid = r.ev_class and v.relname like 'liveblocks\_%'
		join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
		join pg_class c on c.oid = d.refobjid and c.relkind = 'r'
		join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid order by 1`)
	given := names(t, g.DB, `select distinct c.relname || '.' || a.attname
		from pg_attribute a join pg_class c on c.oid = a.attrelid
		where a.attacl is not null and c.relname like 'mirror\_%' order by 1`)
	if d := cmp.Diff(needed, given); d != "" || len(given) == 0 {
		t.Fatalf("columns (-that the views need +that the reader has):\n%s", d)
	}
}

// Hosted databases have no superuser for their customers: whoever may create roles and owns
// the database can run what is printed.
func TestGrantsWithoutASuperuser(t *testing.T) {
	t.Parallel()
	admin := dbtest.Postgres.Empty(t)
	db := dbtest.Postgres.Connect(t, admin)
	run := strings.ToLower(rand.Text()[:8])
	boss := "boss_" + run
	roles := store.Roles{Owner: "owner_" + run, Service: "app_" + run, Reader: "reader_" + run}
	mustExec(t, db, "create role "+boss+" login createrole password 'x'")
	t.Cleanup(func() {
		// drop owned leaves the database.
		statements := []string{"reassign owned by " + boss + " to current_user"}
		for _, role := range []string{roles.Reader, roles.Service, roles.Owner, boss} {
			statements = append(statements, "drop owned by "+role+" cascade", "drop role "+role)
		}
		for _, statement := range statements {
			if _, err := db.Exec(context.Background(), statement); err != nil {
				t.Error(err)
			}
		}
	})
	u := mustParse(t, admin)
	mustExec(t, db, "alter database "+strings.TrimPrefix(u.Path, "/")+" owner to "+boss)
	hosted := as(u, boss, "x")
	to := engine.WithSchema(hosted.String(), "liveblocks")
	text, err := engine.Grants(to, roles)
	if err != nil {
		t.Fatalf("Grants = %v", err)
	}
	dbtest.Script(t, to, text)
	mustExec(t, db, "alter role "+roles.Owner+" login password 'x'")
	owner := as(u, roles.Owner, "x")
	migrate(t, engine.WithSchema(owner.String(), "liveblocks"))
	dbtest.Script(t, to, text)
	for _, right := range []string{
		"has_table_privilege('" + roles.Service + "', 'liveblocks.mirror_event', 'insert')",
		"has_table_privilege('" + roles.Reader + "', 'liveblocks.liveblocks_rooms', 'select')",
		"has_column_privilege('" + roles.Reader + "', 'liveblocks.mirror_room', 'room_id', 'select')",
		"not has_table_privilege('" + roles.Reader + "', 'liveblocks.mirror_room', 'select')",
	} {
		if !value[bool](t, db, "select "+right) {
			t.Errorf("%s is not so", right)
		}
	}
}

// No password is in what is printed, and each role cannot log in.
func TestGrantsHoldNoPassword(t *testing.T) {
	t.Parallel()
	roles := store.Roles{Owner: "mirror_owner", Service: "mirror_app", Reader: "mirror_reader"}
	for _, c := range []struct {
		url, locked string
	}{
		{"postgres://u:hunter2@host/db?schema=liveblocks", "nologin"},
		{"mysql://u:hunter2@host/db", "account lock"},
		{"", "account lock"},
	} {
		text, err := engine.Grants(c.url, roles)
		if err != nil {
			t.Fatalf("Grants(%s) = %v", c.url, err)
		}
		if strings.Contains(text, "hunter2") || strings.Count(text, c.locked+";") != 3 {
			t.Errorf("Grants of %q =\n%s\nwant three roles that cannot log in, and no password", c.url, text)
		}
		if c.url == "" && !strings.Contains(text, "`mirror`.*") {
			t.Errorf("Grants without a URL =\n%s\nwant the database called mirror", text)
		}
		fmt.Fprintln(t.Output(), text)
	}
}

// What the user may not do is said at the start, with the statement that allows it.
func TestMySQLRightsAreChecked(t *testing.T) {
	t.Parallel()
	g := grant(t, dbtest.MySQL, "")
	check := func() error { return open(t, engine.Config{URL: g.service}).Check(t.Context(), new(journal).logger()) }
	// In a grant on all tables of a database, _ matches any character.
	database := strings.ReplaceAll(strings.TrimPrefix(mustParse(t, g.admin).Path, "/"), "_", `\_`)
	for _, right := range []string{"select", "insert", "update", "delete"} {
		mustExec(t, g.DB, "revoke "+right+" on `"+database+"`.* from "+g.name(g.roles.Service))
		err := check()
		fix := "grant select, insert, update, delete on `" + database + "`.* to " + g.name(g.roles.Service)
		if err == nil || !strings.Contains(err.Error(), "to "+right+" in mirror_") || !strings.Contains(err.Error(), fix) {
			t.Fatalf("Check without %s = %v; want %q in it", right, err, fix)
		}
		mustExec(t, g.DB, fix)
		if err := check(); err != nil {
			t.Fatalf("Check after %s = %v", fix, err)
		}
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
