package engine_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Every column that could hold the id of a user is one that an erasure searches, or one of
// which somebody has said why it need not. A new one fails here until somebody decides.
func TestErasureKnowsEveryColumn(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		db := e.Connect(t, e.Database(t))
		type column struct{ table, name, data string }
		var columns []column
		if err := db.Each(t.Context(), "select table_name, column_name, data_type from information_schema.columns "+
			"where table_name like 'mirror%' and table_schema = "+e.Schema+" order by table_name, column_name",
			func(scan func(dest ...any) error) error {
				var c column
				err := scan(&c.table, &c.name, &c.data)
				columns = append(columns, c)
				return err
			}); err != nil {
			t.Fatal(err)
		}
		numbers := []string{
			"smallint", "integer", "int", "bigint", "tinyint", "boolean", "datetime", "timestamp with time zone",
			"timestamp without time zone", "timestamp",
		}
		searched, unused := make(map[string]bool), make(map[string]bool)
		for _, table := range store.Personal {
			for _, c := range table.Columns {
				searched[table.Name+"."+c.Name] = true
			}
		}
		for name := range store.Impersonal {
			unused[name] = true
		}
		seen := 0
		for _, c := range columns {
			if slices.Contains(numbers, c.data) || c.table == "mirror_schema_version" || c.table == "mirror_schema_lock" {
				continue
			}
			seen++
			full := c.table + "." + c.name
			_, here := store.Impersonal[full]
			_, everywhere := store.Impersonal[c.name]
			delete(unused, full)
			delete(unused, c.name)
			// A column of its own table goes before what is said of all tables.
			if !searched[full] && !here && !everywhere {
				t.Errorf("%s (%s) can hold the id of a user: add it to store.Personal, or to store.Impersonal with the reason "+
					"why it cannot", full, c.data)
			}
			if searched[full] && here {
				t.Errorf("%s is both searched and not", full)
			}
			delete(searched, full)
		}
		for name := range searched {
			t.Errorf("store.Personal has %s, which is no column", name)
		}
		for name := range unused {
			if e == dbtest.MySQL { // it has them all
				t.Errorf("store.Impersonal has %s, which is no column", name)
			}
		}
		if seen < 80 {
			t.Fatalf("only %d columns were seen: %s", seen, fmt.Sprint(columns))
		}
	})
}
