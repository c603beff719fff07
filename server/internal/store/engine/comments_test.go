package engine_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Every table says in the database what it holds, in the words of DATABASE.md, and so
// does every view and column where the server has comments on them.
func TestEverythingHasAComment(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../docs/DATABASE.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{
		"mirror_schema_version": "a row for each migration that was applied",
		"mirror_schema_lock":    "who migrates now",
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(mirror_\\w+)` \\| ([^|]*) \\|$").FindAllSubmatch(text, -1) {
		documented[string(row[1])] = "a row for each " + strings.ReplaceAll(string(row[2]), "`", "")
	}
	var kinds []string
	for _, k := range mirror.Kinds() {
		kinds = append(kinds, fmt.Sprint(int(k), " ", k))
	}
	numbers := strings.Join(kinds, ", ")
	if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), numbers) {
		t.Errorf("DATABASE.md does not say what the numbers of kinds mean: %s", numbers)
	}
	// The comments of tables; then what lacks one, and those of the column kind.
	queries := map[*dbtest.Engine][3]string{
		dbtest.Postgres: {
			`select relname, coalesce(obj_description(oid, 'pg_class'), '') from pg_class
where relkind = 'r' and relname like 'mirror\_%' and relnamespace = current_schema()::regnamespace`,
			`select c.relname, coalesce(a.attname, '') from pg_class c
left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = current_schema()::regnamespace
and (c.relkind = 'v' and c.relname like 'liveblocks\_%'
    or c.relkind = 'r' and c.relname like 'mirror\_%' and c.relname not like 'mirror\_schema%')
and (obj_description(c.oid, 'pg_class') is null or col_description(c.oid, a.attnum) is null)`,
			`select c.relname, col_description(c.oid, a.attnum) from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = current_schema()::regnamespace and a.attname = 'kind' and c.relkind = 'r'
and c.relname in ('mirror_resource_state', 'mirror_change')`,
		},
		dbtest.MySQL: {`select table_name, table_comment from information_schema.tables
where table_schema = database() and table_type = 'BASE TABLE' and table_name like 'mirror\_%'`},
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		db := e.Connect(t, e.Database(t))
		read := func(query string) map[string]string {
			t.Helper()
			found := make(map[string]string)
			if query == "" {
				return found
			}
			if err := db.Each(t.Context(), query, func(scan func(dest ...any) error) error {
				var name, value string
				err := scan(&name, &value)
				found[name] = value
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return found
		}
		if d := cmp.Diff(documented, read(queries[e][0])); d != "" {
			t.Errorf("comments on tables (-DATABASE.md +%s):\n%s", e.Name, d)
		}
		for relation, column := range read(queries[e][1]) {
			t.Errorf("%s or its column %s has no comment", relation, column)
		}
		for table, comment := range read(queries[e][2]) {
			if !strings.HasSuffix(comment, numbers) {
				t.Errorf("comment on the kind of %s = %q; want the numbers %s", table, comment, numbers)
			}
		}
	})
}

// On MySQL a comment on a table changes its description and nothing else: MariaDB does it
// at once when it may not do anything slower. MySQL does not call that instant; it keeps
// the table that it has, and no other session waits.
func TestCommentsRewriteNoTable(t *testing.T) {
	t.Parallel()
	db := dbtest.MySQL.Connect(t, dbtest.MySQL.Own(t))
	text, err := os.ReadFile("../mysql/migrations/0012_comments.sql")
	if err != nil {
		t.Fatal(err)
	}
	statements := regexp.MustCompile(`(?m)^alter table .*;$`).FindAllString(string(text), -1)
	if len(statements) < 20 {
		t.Fatalf("statements = %q; want one for each table", statements)
	}
	how, tables := ", algorithm = instant", func() (ids []string) { return nil }
	if !db.IsMariaDB(t) {
		how = ", algorithm = inplace, lock = none"
		tables = func() (ids []string) {
			err := db.Each(t.Context(), "select concat(table_id, name) from information_schema.innodb_tables "+
				"where name like concat(database(), '/%') order by name",
				func(scan func(dest ...any) error) error { ids = append(ids, ""); return scan(&ids[len(ids)-1]) })
			if err != nil || len(ids) < len(statements) {
				t.Fatalf("tables = %q, %v; want all of %d", ids, err, len(statements))
			}
			return ids
		}
	}
	before := tables()
	for _, s := range statements {
		again := strings.Replace(strings.TrimSuffix(s, ";"), "comment = '", "comment = 'once more, ", 1)
		mustExec(t, db, again+how)
	}
	if after := tables(); !slices.Equal(before, after) {
		t.Errorf("tables after comments = %q; want those of before, %q", after, before)
	}
}
