package engine_test

import (
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// Inspect works without a schema, tells who may migrate, and names the columns that take
// different ids for the same, with the statement that mends them.
func TestInspect(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		empty := open(t, engine.Config{URL: e.Empty(t)})
		got, err := empty.Inspect(t.Context())
		if err != nil || got.Schema != 0 || got.Wanted == 0 || !got.MayMigrate || !got.Local || got.Encrypted {
			t.Errorf("Inspect of an empty database = %+v, %v; want one that this user may migrate", got, err)
		}
		if users, err := mysqltest.Has(mysqltest.Users); e == dbtest.Postgres || err == nil && users {
			served := open(t, engine.Config{URL: e.Database(t)})
			if got, err := served.Inspect(t.Context()); err != nil || got.MayMigrate || got.Schema != got.Wanted {
				t.Errorf("Inspect as the service = %+v, %v; want the schema, and a user who may not migrate", got, err)
			}
		}
		url := e.Own(t)
		db, s := e.Connect(t, url), open(t, engine.Config{URL: url})
		alter := "alter table mirror_event modify user_id varchar(500) character set utf8mb4 not null"
		if e == dbtest.Postgres {
			alter = `alter table mirror_event alter column user_id type text collate "default"`
		}
		if _, err := db.Exec(t.Context(), alter); err != nil {
			t.Fatal(err)
		}
		got, err = s.Inspect(t.Context())
		if err != nil || len(got.Inexact) != 1 || got.Inexact[0].Table+"."+got.Inexact[0].Column != "mirror_event.user_id" {
			t.Fatalf("Inspect = %+v, %v; want the column that was altered", got, err)
		}
		if _, err := db.Exec(t.Context(), got.Inexact[0].Mend); err != nil {
			t.Fatalf("%s: %v", got.Inexact[0].Mend, err)
		}
		got, err = s.Inspect(t.Context())
		if err != nil || len(got.Inexact) != 0 || !strings.Contains(got.Engine, " ") {
			t.Errorf("Inspect = %+v, %v; want it mended", got, err)
		}
	})
}
