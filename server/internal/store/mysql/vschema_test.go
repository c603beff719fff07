package mysql_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
)

// The VSchema has every table, and shards it by a column that its primary key begins with:
// by bucket unless the table is a small one of no room.
func TestVSchemaHasEveryTable(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a MariaDB server; run without it before a merge")
	}
	var vschema struct {
		Sharded  bool
		Vindexes map[string]struct{ Type string }
		Tables   map[string]struct {
			ColumnVindexes []struct{ Column, Name string } `json:"column_vindexes"`
		}
	}
	if err := json.Unmarshal([]byte(mysql.VSchema()), &vschema); err != nil {
		t.Fatal(err)
	}
	url := mysqltest.Database(t)
	if err := mysql.Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	rows, err := mysqltest.Connect(t, url).QueryContext(t.Context(), "select t.table_name, coalesce(s.column_name, '') "+
		"from information_schema.tables t left join information_schema.statistics s on s.table_schema = t.table_schema "+
		"and s.table_name = t.table_name and s.index_name = 'PRIMARY' and s.seq_in_index = 1 "+
		"where t.table_schema = database() and t.table_type = 'BASE TABLE'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	first := make(map[string]string)
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		first[table] = column
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(vschema.Tables))); d != "" {
		t.Errorf("tables (-of the migrations +of the VSchema):\n%s", d)
	}
	small := map[string]string{
		"mirror_project": "project_id", "mirror_unannounced": "project_id", "mirror_schema_version": "version_id",
		"mirror_schema_lock": "lock_id",
	}
	for table, t2 := range vschema.Tables {
		want, ok := small[table]
		if !ok {
			want = "bucket"
		}
		if len(t2.ColumnVindexes) != 1 || t2.ColumnVindexes[0].Column != want || first[table] != want {
			t.Errorf("%s is sharded by %v, its key begins with %s; want both to be %s", table, t2.ColumnVindexes, first[table],
				want)
			continue
		}
		if name := t2.ColumnVindexes[0].Name; vschema.Vindexes[name].Type == "" {
			t.Errorf("%s has the vindex %q, which is not defined", table, name)
		}
	}
	if !vschema.Sharded || vschema.Vindexes["bucket"].Type != "reverse_bits" {
		t.Errorf("sharded is %t, buckets by %q; want them spread evenly by reverse_bits", vschema.Sharded,
			vschema.Vindexes["bucket"].Type)
	}
}
