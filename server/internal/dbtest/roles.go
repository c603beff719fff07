package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// roles are the accounts of this test binary, as `migrate --print-grants` makes them.
// Their password is rolePassword.
var roles = func() store.Roles {
	run := strings.ToLower(rand.Text()[:10])
	return store.Roles{Owner: "dbtest_owner_" + run, Service: "dbtest_app_" + run, Reader: "dbtest_reader_" + run}
}()

const rolePassword = "x"

// admins are the URLs of administrators, by those of the service's role in the same
// database.
var admins sync.Map

// Admin returns the URL of a database as its administrator has it, for a test that needs
// more rights than the service has.
func Admin(url string) string {
	if admin, ok := admins.Load(url); ok {
		url, _ = admin.(string) // nothing else is stored
	}
	return url
}

// service returns the URL of an administrator's database as the service has it.
func service(admin string) string {
	if has, err := rolesAt(admin); err != nil || !has {
		return admin
	}
	to := as(admin, roles.Service)
	admins.Store(to, admin)
	return to
}

// rolesAt reports whether roles can be made where a URL leads.
func rolesAt(admin string) (bool, error) {
	if engine.IsPostgres(admin) {
		return true, nil
	}
	return mysqltest.Has(mysqltest.Users)
}

// as returns a URL with another user.
func as(to, user string) string {
	u, err := url.Parse(to)
	if err != nil {
		panic("dbtest: the URL of a database cannot be read") // without its text: it holds a password
	}
	if u.User != nil {
		u.User = url.UserPassword(user, rolePassword)
		return u.String()
	}
	q := u.Query()
	q.Set("user", user)
	q.Set("password", rolePassword)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// migrateAsOwner makes the roles, and the tables as their owner. Where no users are
// created, the service is the administrator.
func migrateAsOwner(ctx context.Context, admin string) error {
	if hasRoles, err := rolesAt(admin); err != nil || !hasRoles {
		return errors.Join(err, migrate(ctx, admin))
	}
	if err := grant(ctx, admin); err != nil {
		return err
	}
	logins := ""
	for _, role := range []string{roles.Owner, roles.Service, roles.Reader} {
		if engine.IsPostgres(admin) {
			logins += "alter role " + role + " login password '" + rolePassword + "';"
		} else {
			logins += "alter user " + role + " identified by '" + rolePassword + "' account unlock;\n"
		}
	}
	if err := script(ctx, admin, logins); err != nil {
		return err
	}
	if err := migrate(ctx, as(admin, roles.Owner)); err != nil {
		return err
	}
	if !engine.IsPostgres(admin) { // MariaDB lets only an administrator make views of the tables that JSON is read as
		if err := migrate(ctx, admin); err != nil {
			return err
		}
	}
	return grant(ctx, admin)
}

// grant runs what `migrate --print-grants` prints.
func grant(ctx context.Context, admin string) error {
	text, err := engine.Grants(admin, roles)
	if err != nil {
		return fmt.Errorf("print grants: %w", err)
	}
	return script(ctx, admin, text)
}

// script runs several statements.
func script(ctx context.Context, admin, text string) error {
	if !engine.IsPostgres(admin) {
		return mysqltest.Script(ctx, admin, text)
	}
	admin, _ = takeSchema(admin)
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // there is nothing to flush
	if err := conn.PgConn().Exec(ctx, text).Close(); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// Script runs several statements in a database, as its administrator.
func Script(tb testing.TB, url, text string) {
	tb.Helper()
	if err := script(tb.Context(), Admin(url), text); err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
}

// dropRoles drops the roles where TEST_POSTGRES_URL and TEST_MYSQL_URL lead; else they
// have gone with their servers.
func dropRoles() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	for variable, drop := range map[string]string{
		"TEST_POSTGRES_URL": "drop role if exists ", "TEST_MYSQL_URL": "drop user if exists ",
	} {
		admin := os.Getenv(variable)
		if admin == "" {
			continue
		}
		has, err := rolesAt(admin)
		errs = append(errs, err)
		for _, role := range []string{roles.Owner, roles.Service, roles.Reader} {
			if has {
				errs = append(errs, script(ctx, admin, drop+role))
			}
		}
	}
	return errors.Join(errs...)
}
