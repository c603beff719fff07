package mysqltest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// namesVariable lists the names of databases, separated by commas, that tests take
// turns with. It is for a server where no statement creates a database as it has to be,
// such as a sharded keyspace of Vitess.
const namesVariable = "TEST_MYSQL_DATABASES"

// Turn is how long a test waits for one of these databases, and for its tables where it
// has none. Others may take minutes, and to make tables in many shards too.
const Turn = 15 * time.Minute

// Named reports whether tests take turns with databases instead of creating some.
func Named() bool { return os.Getenv(namesVariable) != "" }

// Session returns the session variables of the tests' own connections to a URL. Where
// databases have names, the server may refuse transactions that span shards, to prove that
// the service makes none; statements of tests may alter rows wherever they are.
func Session(to *url.URL) map[string]string {
	if server, err := url.Parse(os.Getenv("TEST_MYSQL_URL")); Named() && err == nil && server.Host == to.Host {
		return map[string]string{"transaction_mode": "'multi'"}
	}
	return map[string]string{}
}

// Take returns the URL of one of the named databases, which tb has to itself until it
// ends, also among the tests of other processes. It is as the last test has left it,
// which may have been killed. Tests that alter tables take one from the end of the list,
// so that later tests seldom have to create them again.
func Take(tb testing.TB, alter bool) string {
	tb.Helper()
	admin, names := URL(tb), strings.Split(os.Getenv(namesVariable), ",")
	if alter {
		slices.Reverse(names)
	}
	deadline, ticker := time.After(Turn), time.NewTicker(20*time.Millisecond)
	defer ticker.Stop()
	for {
		for _, name := range names {
			to, err := at(admin, name)
			var unlock func()
			if err == nil {
				unlock, err = tryLock(to)
			}
			if err != nil {
				tb.Fatalf("mysqltest: %v", err)
			}
			if unlock != nil {
				tb.Cleanup(unlock)
				return to
			}
		}
		select {
		case <-deadline:
			tb.Fatalf("mysqltest: other tests have all databases of %s for %v; name more than tests run at once",
				namesVariable, Turn)
		case <-ticker.C:
		}
	}
}

// tryLock locks a database for this test among all processes of this machine, and
// returns nil if another one has it. A process that dies loses its locks.
func tryLock(database string) (unlock func(), err error) {
	_, place, _ := strings.Cut(database, "@") // without the password
	name := filepath.Join(os.TempDir(), "mysqltest-"+strings.NewReplacer("/", "-", ":", "-").Replace(place))
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock a database: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return func() { _ = file.Close() }, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock a database: %w", err)
}

// Clear drops all tables and views of a database.
func Clear(ctx context.Context, to string) error {
	db, err := open(to)
	if err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	const list = "select table_name from information_schema.tables where table_schema = database() and table_type = "
	views, err := column(ctx, db, list+"'VIEW'")
	if err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	parts := []string{to}
	if len(views) > 0 && Named() {
		if parts, err = shards(ctx, db, to); err != nil {
			return fmt.Errorf("clear: %w", err)
		}
	}
	for _, view := range views {
		for _, part := range parts {
			if err := runAt(ctx, part, "drop view if exists "+quote(view)); err != nil {
				return fmt.Errorf("clear: drop %s: %w", view, err)
			}
		}
	}
	tables, err := column(ctx, db, list+"'BASE TABLE'")
	if err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	for _, table := range tables {
		if _, err := db.ExecContext(ctx, "drop table "+quote(table)); err != nil {
			return fmt.Errorf("clear: drop %s: %w", table, err)
		}
	}
	return nil
}

// shards returns the URLs of the shards of a database of Vitess, each by itself, or its
// own URL if it is none. Vitess creates a view in all shards, and drops it nowhere.
func shards(ctx context.Context, db *sql.DB, to string) (urls []string, err error) {
	if p, err := productOf(ctx, db); p != Vitess {
		return []string{to}, err
	}
	u, err := url.Parse(to)
	if err != nil {
		return nil, errors.New("the URL of the database cannot be read") // without its text: it holds a password
	}
	names, err := column(ctx, db, "show vitess_shards like '"+strings.TrimPrefix(u.Path, "/")+"/%'")
	for _, name := range names {
		u.Path = "/" + strings.Replace(name, "/", ":", 1)
		urls = append(urls, u.String())
	}
	return urls, err
}

// Below returns the URLs of the shards of a database of Vitess in the MySQL server below it.
func Below(tb testing.TB, database string) []string {
	tb.Helper()
	urls, err := shardsBelow(tb.Context(), database)
	if err != nil || len(urls) == 0 {
		tb.Fatalf("mysqltest: the shards below a database are %d, %v; want some", len(urls), err)
	}
	return urls
}

// shardsBelow returns the URLs of the shards of a database of Vitess in the MySQL server below
// it, or none if the tests are not told where that is.
func shardsBelow(ctx context.Context, to string) (urls []string, err error) {
	server := os.Getenv(belowVariable)
	if server == "" {
		return nil, nil
	}
	db, err := open(to)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	parts, err := shards(ctx, db, to)
	if err != nil {
		return nil, fmt.Errorf("list the shards of a database: %w", err)
	}
	for _, part := range parts {
		u, err := url.Parse(part)
		if err != nil {
			return nil, errors.New("the URL of a shard cannot be read") // without its text: it holds a password
		}
		part, err = at(server, "vt_"+strings.Replace(strings.TrimPrefix(u.Path, "/"), ":", "_", 1))
		if err != nil {
			return nil, err
		}
		urls = append(urls, part)
	}
	return urls, nil
}

// Create makes the tables of an empty database of Vitess with the statements of a text in
// the MySQL server below, which takes a hundredth of the time, and waits until Vitess serves
// them; on other servers it does nothing. Rows are inserted through Vitess, each into its
// shard.
func Create(ctx context.Context, to, text string) error {
	parts, err := shardsBelow(ctx, to)
	if err != nil || len(parts) == 0 {
		return err
	}
	s, err := schemaOf(ctx, os.Getenv(belowVariable), text)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	for _, part := range parts {
		if err := Script(ctx, part, s.structure); err != nil {
			return fmt.Errorf("create: %w", err)
		}
	}
	if err := awaitTables(ctx, to, parts[0]); err != nil {
		return err
	}
	for _, insert := range s.inserts {
		if err := runAt(ctx, to, insert); err != nil {
			return fmt.Errorf("create: %w", err)
		}
	}
	return nil
}

// schema is what makes tables and views, each by one statement, and the rows.
type schema struct {
	structure string
	inserts   []string
}

var schemas struct {
	sync.Mutex
	of map[string]schema // by the text
}

// schemaOf runs the statements of a text in a database that is dropped then, and reads
// there how the tables are in the end. Vitess has to find each as it stays: a column that
// is added a moment after it has read the table it may never learn of.
func schemaOf(ctx context.Context, server, text string) (schema, error) {
	schemas.Lock()
	defer schemas.Unlock()
	if s, ok := schemas.of[text]; ok {
		return s, nil
	}
	name := "mysqltest_" + strings.ToLower(rand.Text())
	to, err := at(server, name)
	if err == nil {
		err = create(ctx, server, name)
	}
	if err != nil {
		return schema{}, err
	}
	defer func() { _ = runAt(ctx, server, "drop database "+name) }() // it goes with its server otherwise
	var s schema
	var tables, views strings.Builder
	for statement := range strings.SplitSeq(text, ";\n") {
		bare := comments.ReplaceAllString(statement, "")
		switch {
		case bare == "":
		case strings.HasPrefix(strings.ToLower(bare), "insert"):
			s.inserts = append(s.inserts, bare)
		case aboutView.MatchString(bare):
			views.WriteString(bare + ";\n")
		default:
			tables.WriteString(bare + ";\n")
		}
	}
	if err := Script(ctx, to, tables.String()); err != nil {
		return schema{}, err
	}
	db, err := open(to)
	if err != nil {
		return schema{}, err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	names, err := column(ctx, db, "show tables")
	for _, name := range names {
		var made string
		if err := db.QueryRowContext(ctx, "show create table "+quote(name)).Scan(&name, &made); err != nil {
			return schema{}, err
		}
		s.structure += made + ";\n"
	}
	s.structure += views.String()
	if schemas.of == nil {
		schemas.of = make(map[string]schema)
	}
	schemas.of[text] = s
	return s, err
}

// awaitTables waits until the gateway serves all columns of the tables that a shard has.
func awaitTables(ctx context.Context, to, shard string) error {
	db, err := open(shard)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	reads, err := column(ctx, db, "select /*+ set_var(group_concat_max_len = 100000) */ "+
		"concat('select `', group_concat(column_name separator '`, `'), '` from `', table_name, '` limit 1') from information_schema.columns join "+
		"information_schema.tables using (table_schema, table_name) "+
		"where table_schema = database() and table_type = 'BASE TABLE' group by table_name")
	if err != nil {
		return fmt.Errorf("list the tables of a shard: %w", err)
	}
	for _, read := range reads {
		if err := runOnceKnown(ctx, to, read); err != nil {
			return fmt.Errorf("await the tables: %w", err)
		}
	}
	return nil
}

// runOnceKnown runs a statement as soon as the gateway knows its tables and columns, of
// which it learns a moment after they were made.
func runOnceKnown(ctx context.Context, to, statement string) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := runAt(ctx, to, statement)
		var refused *mysql.MySQLError
		if !errors.As(err, &refused) || refused.Number != 1054 && refused.Number != 1146 {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// aboutView is how statements about views begin, also in a dump, where they are comments with
// a version.
var aboutView = regexp.MustCompile(`(?i)^(/\*!\d+ )?(create|drop)\b[^(]* view\b`)

// comments are whole lines of SQL.
var comments = regexp.MustCompile(`(?m)^\s*(--.*)?\n`)

// runAt runs a statement where a URL leads.
func runAt(ctx context.Context, at, statement string) error {
	db, err := open(at)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	_, err = db.ExecContext(ctx, statement)
	return err
}
