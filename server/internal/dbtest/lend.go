package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
)

// lent are the databases of MySQL that tests hand on. To make one with its tables
// takes many times as long as to empty one.
var lent struct {
	sync.Mutex
	free  []string // URLs of those that nobody has
	names []string // of all
}

// lend lends a database to tb, which hands it on unless it fails.
func lend(tb testing.TB) string {
	tb.Helper()
	lent.Lock()
	var to string
	if n := len(lent.free); n > 0 {
		to, lent.free = lent.free[n-1], lent.free[:n-1]
	}
	lent.Unlock()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if to == "" {
		var err error
		if to, err = add(ctx, mysqltest.URL(tb)); err != nil {
			tb.Fatalf("dbtest: %v", err)
		}
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := clean(ctx, to); err != nil {
			tb.Errorf("dbtest: clean a database: %v", err)
			return
		}
		lent.Lock()
		defer lent.Unlock()
		lent.free = append(lent.free, to)
	})
	return to
}

// add makes one more database on the server of admin, with the current schema.
func add(ctx context.Context, admin string) (string, error) {
	u, err := url.Parse(admin)
	if err != nil {
		return "", errors.New("the URL of the MySQL server cannot be read") // without its text: it holds a password
	}
	name := "dbtest_" + strings.ToLower(rand.Text())
	if err := run(ctx, admin, "create database "+name); err != nil {
		return "", err
	}
	lent.Lock()
	lent.names = append(lent.names, name)
	lent.Unlock()
	u.Path = "/" + name
	return u.String(), migrate(ctx, u.String())
}

// dropLent drops all that was made where TEST_MYSQL_URL leads.
func dropLent() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lent.Lock()
	defer lent.Unlock()
	var errs []error
	for _, name := range lent.names {
		errs = append(errs, run(ctx, os.Getenv("TEST_MYSQL_URL"), "drop database "+name))
	}
	return errors.Join(errs...)
}

// run runs a statement on a server of MySQL.
func run(ctx context.Context, at, statement string) error {
	db, err := openMySQL(at)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// clean removes from a database all that was written since it was made. Whoever is
// still connected has been killed, and the server may not have noticed: what it does
// for the dead must not come after this.
func clean(ctx context.Context, to string) error {
	db, err := openMySQL(to)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for ; ; <-ticker.C {
		var id int64
		err := db.QueryRowContext(ctx,
			"select id from information_schema.processlist where db = database() and id <> connection_id() limit 1").Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return err
		}
		_, _ = db.ExecContext(ctx, fmt.Sprint("kill ", id)) // it may have gone by itself
	}
	return mysqltest.Empty(ctx, to, "mirror_schema_version", "mirror_schema_lock")
}
