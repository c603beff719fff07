package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
)

// DB is a test's direct access to a database, without the service. Statements are
// the same on every engine, with question marks for values.
type DB struct {
	*sql.DB

	engine *Engine
}

// Connect opens connections to the database of a URL, as its administrator, and closes
// them when tb ends.
func (e *Engine) Connect(tb testing.TB, url string) *DB {
	tb.Helper()
	db, err := e.open(Admin(url))
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	tb.Cleanup(func() { _ = db.Close() }) // the server may have died
	return &DB{db, e}
}

// Restore runs the statements of a dump in an empty database. No string in it has a semicolon
// before a new line. With Vitess, the server below makes the tables and views, since the
// gateway drops no view.
func (db *DB) Restore(tb testing.TB, url, dump string) {
	tb.Helper()
	if db.engine == MySQL {
		vitess, err := mysqltest.IsVitess(tb.Context(), db.DB)
		if err == nil && vitess {
			err = mysqltest.Create(tb.Context(), url, dump)
		}
		if err != nil {
			tb.Fatalf("dbtest: %v", err)
		}
		if vitess {
			return
		}
	}
	for statement := range strings.SplitSeq(strings.TrimSuffix(dump, ";\n"), ";\n") {
		if _, err := db.ExecContext(tb.Context(), statement); err != nil {
			tb.Fatalf("dbtest: %.200s: %v", statement, err)
		}
	}
}

// HasViews reports whether the database has views, which it lacks where it is sharded.
func (db *DB) HasViews(tb testing.TB) bool {
	tb.Helper()
	if db.engine == Postgres {
		return true
	}
	has, err := mysqltest.Has(mysqltest.Views)
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	return has
}

// OfServer puts into a query the tables of the server that MySQL, MariaDB and Vitess have
// under different names: {processlist} is [mysqltest.Processlist], {transactions} is
// [mysqltest.Transactions].
func (db *DB) OfServer(tb testing.TB, query string) string {
	tb.Helper()
	for name, ask := range map[string]func(context.Context, *sql.DB) (string, error){
		"{processlist}": mysqltest.Processlist, "{transactions}": mysqltest.Transactions,
	} {
		if !strings.Contains(query, name) {
			continue
		}
		table, err := ask(tb.Context(), db.DB)
		if err != nil {
			tb.Fatalf("dbtest: %v", err)
		}
		query = strings.ReplaceAll(query, name, table)
	}
	return query
}

// LockTable locks a table, on PostgreSQL in a mode of its, on MySQL so that nobody else can
// read or write it. The returned function unlocks it, at the latest when tb ends.
func (db *DB) LockTable(tb testing.TB, table, mode string) (unlock func()) {
	tb.Helper()
	if db.engine == MySQL {
		return mysqltest.LockTable(tb, db.DB, table)
	}
	tx, err := db.BeginTx(tb.Context(), nil)
	if err == nil {
		_, err = tx.ExecContext(tb.Context(), "lock table "+table+" in "+mode+" mode")
	}
	if err != nil {
		tb.Fatalf("dbtest: lock %s: %v", table, err)
	}
	unlock = func() { _ = tx.Rollback() } // nothing was written
	tb.Cleanup(unlock)
	return unlock
}

// IsMariaDB reports whether a server of MySQL's protocol is MariaDB's.
func (db *DB) IsMariaDB(tb testing.TB) bool {
	tb.Helper()
	maria, err := mysqltest.IsMariaDB(tb.Context(), db.DB)
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	return maria
}

// Exec runs a statement and returns the number of affected rows.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := db.ExecContext(ctx, db.engine.places(query), args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", query, err)
	}
	return result.RowsAffected()
}

// Each runs a query with values and calls row to scan each row.
func (db *DB) Each(ctx context.Context, query string, row func(scan func(dest ...any) error) error,
	args ...any,
) (err error) {
	rows, err := db.QueryContext(ctx, db.engine.places(query), args...)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return rows.Err()
}

// Value is the one value that a query returns.
func Value[V any](ctx context.Context, db *DB, query string, args ...any) (v V, err error) {
	if err = db.QueryRowContext(ctx, db.engine.places(query), args...).Scan(&v); err != nil {
		err = fmt.Errorf("%s: %w", query, err)
	}
	return v, err
}

// In returns a list of values for a statement: the question marks and the values.
func In[V any](values []V) (places string, args []any) {
	for _, v := range values {
		args = append(args, v)
	}
	return "(" + strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", ") + ")", args
}

// JSON returns the SQL expression for a member of a JSON column, as text.
func (e *Engine) JSON(column, member string) string {
	if e == Postgres {
		return "(" + column + "->>'" + member + "')"
	}
	return "json_unquote(json_extract(" + column + ", '$." + member + "'))"
}

// places converts question marks to the engine's placeholders. Tests do not use
// question marks for anything else.
func (e *Engine) places(query string) string {
	if e != Postgres {
		return query
	}
	var b strings.Builder
	for i, part := range strings.Split(query, "?") {
		if i > 0 {
			b.WriteString("$" + strconv.Itoa(i))
		}
		b.WriteString(part)
	}
	return b.String()
}

func openPostgres(to string) (*sql.DB, error) {
	to, schema := takeSchema(to)
	cfg, err := pgx.ParseConfig(to)
	if err != nil {
		return nil, errors.New("the URL of the PostgreSQL database cannot be read") // without its text: it holds a password
	}
	if schema != "" {
		cfg.RuntimeParams["search_path"] = pgx.Identifier{schema}.Sanitize()
	}
	return stdlib.OpenDB(*cfg), nil
}

// takeSchema takes from a URL the schema that the service puts its tables into, which the
// driver does not know.
func takeSchema(to string) (rest, schema string) {
	u, err := url.Parse(to)
	if err != nil || !u.Query().Has("schema") {
		return to, ""
	}
	q := u.Query()
	schema = q.Get("schema")
	q.Del("schema")
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String(), schema
}

// openMySQL uses the parameters of the URL as session variables.
func openMySQL(to string) (*sql.DB, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, errors.New("the URL of the MySQL database cannot be read") // without its text: it holds a password
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.ParseTime, cfg.Loc, cfg.InterpolateParams = true, time.UTC, true
	cfg.Logger = &mysql.NopLogger{} // what goes wrong is returned
	cfg.Params = mysqltest.Session(u)
	cfg.Params["time_zone"] = "'+00:00'"
	for name, values := range u.Query() {
		if name == "tls" {
			cfg.TLSConfig = values[0]
			continue
		}
		cfg.Params[name] = values[0]
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return sql.OpenDB(connector), nil
}
