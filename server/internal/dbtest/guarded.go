package dbtest

import (
	"crypto/rand"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
)

// Guarded is a database with the current schema that can refuse the writes of one
// user.
type Guarded struct {
	// URL is the URL as that user has it.
	URL string
	// User is the user, who may read and write rows.
	User string

	tb     testing.TB
	db     *DB
	engine *Engine
}

// Guarded returns such a database.
func (e *Engine) Guarded(tb testing.TB) *Guarded {
	tb.Helper()
	g := &Guarded{User: "dbtest_" + strings.ToLower(rand.Text()[:12]), tb: tb, engine: e}
	var admin string
	if e == MySQL { // the refusal concerns a whole server
		admin = mysqltest.Start(tb, mysqltest.Options{}).Database(tb, "mirror")
		if err := migrate(tb.Context(), admin); err != nil {
			tb.Fatalf("dbtest: %v", err)
		}
	} else {
		admin = e.Own(tb)
	}
	u, err := url.Parse(admin)
	if err != nil {
		tb.Fatal("dbtest: the URL of the database cannot be read")
	}
	g.db = e.Connect(tb, admin)
	const password = "x"
	if e == MySQL {
		g.exec("create user '" + g.User + "'@'%' identified by '" + password + "'")
		g.exec("grant all on mirror.* to '" + g.User + "'@'%'") // without READ_ONLY ADMIN
		u.User = url.UserPassword(g.User, password)
	} else {
		g.exec("create role " + g.User + " login password '" + password + "'")
		g.exec("grant select, insert, update, delete on all tables in schema public to " + g.User)
		tb.Cleanup(func() {
			for _, statement := range []string{"drop owned by " + g.User, "drop role " + g.User} {
				if _, err := g.db.DB.Exec(statement); err != nil {
					tb.Errorf("dbtest: %s: %v", statement, err)
				}
			}
		})
		q := u.Query()
		q.Set("user", g.User)
		q.Set("password", password)
		u.User, u.RawQuery = nil, q.Encode()
	}
	g.URL = u.String()
	return g
}

func (g *Guarded) exec(statement string, args ...any) {
	g.tb.Helper()
	if _, err := g.db.Exec(g.tb.Context(), statement, args...); err != nil {
		g.tb.Fatalf("dbtest: %v", err)
	}
}

// Refuse starts or ends the refusal of the user's writes. On PostgreSQL it is a
// property of the sessions that are opened from then on, as of those that are opened
// on a standby; those that are open when it starts are terminated.
func (g *Guarded) Refuse(on bool) {
	g.tb.Helper()
	if g.engine == MySQL {
		g.exec("set global read_only = " + strconv.FormatBool(on))
		return
	}
	g.exec("alter role " + g.User + " set default_transaction_read_only = " + strconv.FormatBool(on))
	if !on {
		return
	}
	g.exec("select pg_terminate_backend(pid) from pg_stat_activity where usename = ?", g.User)
	g.AwaitEnd(g.Sessions())
}

// Sessions are the user's sessions.
func (g *Guarded) Sessions() (ids []int64) {
	g.tb.Helper()
	query := "select pid from pg_stat_activity where usename = ?"
	if g.engine == MySQL {
		query = g.db.OfServer(g.tb, "select id from {processlist} where user = ?")
	}
	err := g.db.Each(g.tb.Context(), query, func(scan func(dest ...any) error) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, g.User)
	if err != nil {
		g.tb.Fatalf("dbtest: %v", err)
	}
	return ids
}

// AwaitEnd waits until sessions have ended.
func (g *Guarded) AwaitEnd(ids []int64) {
	g.tb.Helper()
	deadline := time.After(patience)
	for slices.ContainsFunc(g.Sessions(), func(id int64) bool { return slices.Contains(ids, id) }) {
		select {
		case <-deadline:
			g.tb.Fatalf("dbtest: sessions %v have not ended", ids)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
