package app_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// insertUnindexed writes a room as versions before schema 25 do.
func insertUnindexed(t *testing.T, db *dbtest.DB, room string) {
	t.Helper()
	_, err := db.Exec(t.Context(), "insert into mirror_room (bucket, project_id, room_id, epoch, source_json, "+
		"content_sha256, organization_id, data_problem) values (?, 'default', ?, 1, '{}', ?, '', '')",
		mirror.Bucket("default", room), []byte(room), []byte(strings.Repeat("h", 32)))
	if err != nil {
		t.Fatal(err)
	}
}

func wantTerms(t *testing.T, db *dbtest.DB, want int) error {
	t.Helper()
	n, err := dbtest.Value[int](t.Context(), db, "select count(*) from mirror_room_term")
	if err == nil && n != want {
		err = fmt.Errorf("terms = %d; want %d", n, want)
	}
	return err
}

// A service that migrates is up before what earlier versions have written is indexed, which
// may take minutes, and although that fails. The command waits for it.
func TestServiceDoesNotWaitForTheIndex(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		db := e.Connect(t, url)
		insertUnindexed(t, db, "r")
		holder, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = holder.Rollback() }() // it has ended, unless the test has failed
		const hold = "select epoch from mirror_room where room_id = 'r' for update"
		if _, err := holder.ExecContext(t.Context(), hold); err != nil {
			t.Fatal(err)
		}
		var logs [2]lockedLog
		start := func(n int) *service {
			t.Helper()
			return serveWith(t, func(cfg *config.Serve) {
				cfg.DatabaseURL, cfg.DatabaseMaxConns, cfg.Migrate = config.NewSecret(url), 8, true
			}, func(ctx context.Context, cfg config.Serve) error {
				return app.Run(ctx, cfg, "test", slog.New(slog.NewTextHandler(&logs[n], nil)))
			})
		}
		tells := func(n int, text string) {
			t.Helper()
			eventually(t, func() error {
				if !strings.Contains(logs[n].String(), text) {
					return errors.New("the log does not tell of the index")
				}
				return nil
			})
		}
		s := start(0)
		if status, body := s.get(t, s.HTTPAddr, "/readyz", ""); status != http.StatusOK {
			t.Fatalf("/readyz = %d %s while a room cannot be indexed; want 200", status, body)
		}
		if err := wantTerms(t, db, 0); err != nil {
			t.Fatal(err)
		}
		if err := holder.Rollback(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return wantTerms(t, db, 1) })
		tells(0, "rooms and threads indexed for lists")
		s.stop()

		insertUnindexed(t, db, "r2")
		cfg := config.Defaults()
		cfg.DatabaseURL = config.NewSecret(url)
		if err := app.Migrate(t.Context(), cfg.Database, cfg.Roles, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatalf("Migrate = %v", err)
		}
		if err := wantTerms(t, db, 2); err != nil {
			t.Fatal(err)
		}

		// Nobody can write terms: the service is up, and says so.
		insertUnindexed(t, db, "r3")
		if _, err := db.Exec(t.Context(), "alter table mirror_room_term rename to gone"); err != nil {
			t.Fatal(err)
		}
		s = start(1)
		tells(1, "cannot index rooms and threads for lists; the next sweep goes on")
		if status, body := s.get(t, s.HTTPAddr, "/readyz", ""); status != http.StatusOK {
			t.Fatalf("/readyz = %d %s where rooms cannot be indexed; want 200", status, body)
		}
	})
}
