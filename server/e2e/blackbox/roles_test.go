package blackbox_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The commands of DATABASE.md make the three roles, with which everything works.
func TestRolesAsDocumented(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		doc := string(mustRead(t, "../../../docs/DATABASE.md"))
		home := t.TempDir()
		var admin, script, view string
		if e == dbtest.Postgres {
			admin, view = pgtest.Start(t).URL(), "liveblocks.liveblocks_rooms" // its roles are the server's
			script = block(t, doc, `    export MIRROR_DATABASE_SCHEMA=liveblocks`)
		} else {
			admin, view = mysqltest.Start(t, mysqltest.Options{}).Database(t, "mirror"), "liveblocks_rooms"
			script = block(t, doc,
				`    DATABASE_URL="\$ADMIN_URL" liveblocks-mirror migrate --print-grants > grants.sql\n    mysql`)
			u, err := url.Parse(admin)
			must(t, err)
			password, _ := u.User.Password()
			must(t, os.WriteFile(filepath.Join(home, ".my.cnf"), fmt.Appendf(nil,
				"[client]\nhost=%s\nport=%s\nuser=%s\npassword=%s\nprotocol=tcp\n", u.Hostname(), u.Port(), u.User.Username(),
				password), 0o600))
		}
		as := func(role, password string) string {
			u, err := url.Parse(admin)
			must(t, err)
			if u.User != nil {
				u.User = url.UserPassword(role, password)
				return u.String()
			}
			q := u.Query()
			q.Set("user", role)
			q.Set("password", password)
			u.RawQuery = q.Encode()
			return u.String()
		}
		bin := harness.Binary(t)
		must(t, os.Symlink(bin, filepath.Join(home, "liveblocks-mirror")))
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-e", "-u", "-c", script)
		cmd.Dir = home
		cmd.Env = []string{
			"PATH=" + home + ":" + os.Getenv("PATH"), "HOME=" + home, "ADMIN_URL=" + admin,
			"OWNER_URL=" + as("mirror_owner", "secret-1"), "READER_URL=" + as("mirror_reader", "secret-3"),
		}
		out, err := cmd.CombinedOutput()
		t.Logf("%s%s", script, out)
		if err != nil {
			t.Fatalf("the commands of DATABASE.md = %v", err)
		}

		schema := ""
		if e == dbtest.Postgres {
			schema = "liveblocks"
		}
		s, upstream := startOn(t, as("mirror_app", "secret-2"), map[string]string{"MIRROR_DATABASE_SCHEMA": schema})
		follow(t, s, upstream)
		must(t, upstream.CreateRoom("plan", fake.RoomOptions{}))
		awaitIdle(t, s)
		if n := count(t, e.Connect(t, as("mirror_reader", "secret-3")), "select count(*) from "+view+
			" where room_id = 'plan'"); n != 1 {
			t.Errorf("rooms that the reader sees = %d; want 1", n)
		}
		purged := command(t, map[string]string{
			"DATABASE_URL": as("mirror_app", "secret-2"), "MIRROR_DATABASE_SCHEMA": schema,
		}, "purge", "rooms", "--deleted-before=0s", "--yes")
		if purged.code != 0 {
			t.Errorf("purge as the service = %+v; want exit code 0", purged)
		}
		for _, args := range [][]string{{"migrate"}, {"serve", "--migrate"}} {
			refused := command(t, map[string]string{
				"DATABASE_URL": as("mirror_reader", "secret-3"), "MIRROR_DATABASE_SCHEMA": schema,
				"LIVEBLOCKS_SECRET_KEY": "sk_test", "LIVEBLOCKS_WEBHOOK_SECRET": harness.WebhookSecret,
			}, args...)
			if refused.code == 0 || !strings.Contains(refused.told, "may not create tables") {
				t.Errorf("%q as the reader = %+v; want it refused", args, refused)
			}
		}
	})
}

// block returns the indented block of a document that begins so, as a script.
func block(t *testing.T, doc, begin string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + begin + `.*\n(?:    .*\n)*`).FindString(doc)
	if found == "" {
		t.Fatalf("DATABASE.md has no block that begins with %s", begin)
	}
	return strings.ReplaceAll("\n"+found, "\n    ", "\n")
}
