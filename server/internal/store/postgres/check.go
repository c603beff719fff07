package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// probeTimeout limits the wait for a second connection of a pooler, which may have
// only one.
const probeTimeout = 2 * time.Second

// Check finds out what the way to the database, the database and the role allow. It
// adapts to a pooler, and returns an error that says what to do about anything else
// that would fail later.
func (s *Store) Check(ctx context.Context, log *slog.Logger) error {
	s.sessions.log.Store(log)
	if err := s.checkPooler(ctx); err != nil {
		return err
	}
	var f facts
	err := retry(ctx, func() (err error) {
		f, err = readFacts(ctx, s.accepting, s.schema)
		return err
	})
	if err != nil {
		return classify(ctx, fmt.Errorf("check the database: %w", err))
	}
	return f.problem(s.searchPath, s.schema)
}

// checkPooler detects poolers that its URL does not tell of.
func (s *Store) checkPooler(ctx context.Context) error {
	cfg := s.accepting.Config().ConnConfig
	// What goes wrong here is what is asked for: it resets nothing.
	cfg.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool { return !fatal(err) }
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // leaves nothing on the server
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return classify(ctx, fmt.Errorf("check the database: %w", err))
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it may be broken
	backend, err := probeTransaction(ctx, conn)
	switch {
	case errors.Is(err, errStatementMode):
		return err
	case err != nil:
		return classify(ctx, fmt.Errorf("check the database: %w", err))
	case backend == conn.PgConn().PID() || s.sessions.pooled.Load():
		return nil // no pooler, or one that is known
	}
	second, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return classify(ctx, fmt.Errorf("check the database: %w", err))
	}
	defer func() { _ = second.Close(context.WithoutCancel(ctx)) }() // it may be broken
	if forgets(ctx, conn, second) {
		s.sessions.switchMode()
	}
	return nil
}

// errStatementMode: the database cannot be used this way.
var errStatementMode = errors.New("the pooler before the database runs every statement by itself (statement " +
	"mode), which this service cannot use; set its pool_mode to transaction and MIRROR_DATABASE_POOLED=true, or let " +
	"DATABASE_URL lead to the database directly")

// probeTransaction runs a transaction and returns the process that served it.
func probeTransaction(ctx context.Context, conn *pgx.Conn) (backend uint32, err error) {
	_, err = conn.Exec(ctx, "begin")
	var again uint32
	for _, pid := range []*uint32{&backend, &again} {
		if err == nil {
			err = conn.QueryRow(ctx, "select pg_backend_pid()").Scan(pid)
		}
	}
	if err == nil {
		_, err = conn.Exec(ctx, "commit")
	}
	// PgBouncer has no code of its own for it.
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "08P01" || err == nil && backend != again {
		return 0, errStatementMode
	}
	return backend, err
}

// forgets reports whether a statement that conn has prepared is unknown in a later
// transaction, after other has had one.
func forgets(ctx context.Context, conn, other *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	const name = "mirror_probe"
	known := func() bool {
		_, err := conn.PgConn().ExecPrepared(ctx, name, nil, nil, nil).Close()
		return err == nil
	}
	if _, err := conn.PgConn().Prepare(ctx, name, "select 1", nil); err != nil {
		return true // somebody's statement of this name is there
	}
	tx, err := other.Begin(ctx) // takes the connection that conn has just had
	if err != nil {
		return true
	}
	first := known()
	if tx.Rollback(ctx) != nil || !first || !known() {
		return true
	}
	_ = conn.PgConn().Deallocate(ctx, name) // it ends with the session otherwise
	return false
}

// facts are what statements depend on.
type facts struct {
	Role, Path, Schema, Encoding, Isolation, Commit string

	// Tables says whether our tables are where they are looked for, and can be reached.
	// Holder is the schema that holds them, or others like them; empty if none does. Usable
	// says whether the role may use it.
	Tables, Usable bool
	Holder         string
	// Denied are tables that the role may not read and write, Hidden those whose rows a
	// policy may hide from it.
	Denied, Hidden []string
}

// factsSQL has one parameter: the schema in which the tables are looked for, or an empty
// text for the search path.
const factsSQL = `with holders as (
    select n.oid, n.nspname::text as name, has_schema_privilege(n.oid, 'usage') as usable,
        case when $1::text = '' then c.oid = to_regclass('mirror_schema_version') else n.nspname = $1::text end as home
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relname = 'mirror_schema_version' and c.relkind = 'r'
), holder as (
    select oid, name, usable, coalesce(home, false) as home from holders
    order by coalesce(home, false) desc, name limit 1
), tables as (
    select c.oid, c.relname from pg_class c join holder on holder.oid = c.relnamespace
    where holder.home and holder.usable and c.relname like 'mirror\_%' and c.relkind in ('r', 'p')
)
select current_user::text, current_setting('search_path'), coalesce(current_schema()::text, ''),
    current_setting('server_encoding'), current_setting('transaction_isolation'), current_setting('synchronous_commit'),
    coalesce((select home and usable from holder), false), coalesce((select name from holder), ''),
    coalesce((select usable from holder), true),
    array(select relname::text from tables
        where relname not in ('mirror_schema_version', 'mirror_schema_lock')
        and not (has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
            and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete')) order by 1),
    array(select relname::text from tables where row_security_active(oid) order by 1)`

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readFacts(ctx context.Context, q rowQuerier, schema string) (f facts, err error) {
	err = q.QueryRow(ctx, factsSQL, schema).Scan(&f.Role, &f.Path, &f.Schema, &f.Encoding, &f.Isolation, &f.Commit,
		&f.Tables, &f.Holder, &f.Usable, &f.Denied, &f.Hidden)
	return f, err
}

// problem says what has to be changed, and how. path and schema are the search path and
// the schema that the settings ask for.
func (f facts) problem(path, schema string) error {
	role := pgx.Identifier{f.Role}.Sanitize()
	holder := pgx.Identifier{f.Holder}.Sanitize()
	switch {
	case f.Encoding != "UTF8":
		return f.encodingProblem()
	case !f.inPath(path):
		return fmt.Errorf("the database URL asks for the search path %s, which cannot be set through a pooler; run: alter "+
			"role %s set search_path = %s", path, role, path)
	case !f.Tables && f.Holder != "" && schema != "" && schema != f.Holder:
		return fmt.Errorf("the tables are in the schema %s, not in %s; set MIRROR_DATABASE_SCHEMA to %s, or run "+
			"liveblocks-mirror migrate to start from nothing in %s", f.Holder, schema, f.Holder, schema)
	case !f.Tables && f.Holder != "" && !f.Usable:
		return fmt.Errorf("the role %s may not use the schema that holds the tables; as its owner, run: grant usage on "+
			"schema %s to %s", role, holder, role)
	case !f.Tables && f.Holder != "":
		return fmt.Errorf("the tables are in the schema %s, which is not in the search path (%s) of the role %s; set "+
			"MIRROR_DATABASE_SCHEMA to %s", f.Holder, f.Path, role, f.Holder)
	case len(f.Hidden) > 0:
		return fmt.Errorf("row-level security hides rows of %s from the role %s; connect as the owner of the tables, or run "+
			"as a superuser: alter role %s bypassrls", some(f.Hidden), role, role)
	case len(f.Denied) > 0:
		return fmt.Errorf("the role %s may not read and write %s; as the owner of the tables, run: grant select, insert, "+
			"update, delete on all tables in schema %s to %s", role, some(f.Denied), holder, role)
	case f.Isolation != "read committed":
		return fmt.Errorf("transactions are %s by default, and that cannot be set through a pooler; run: alter role %s set "+
			"default_transaction_isolation = 'read committed'", f.Isolation, role)
	case f.Commit == "off":
		return fmt.Errorf("synchronous_commit is off, so acknowledged webhooks could be lost, and that cannot be set "+
			"through a pooler; run: alter role %s set synchronous_commit = on", role)
	}
	return nil
}

// inPath reports whether tables are looked up where the URL asks for, if it does.
func (f facts) inPath(wanted string) bool {
	bare := strings.NewReplacer(`"`, "", " ", "")
	return wanted == "" || bare.Replace(f.Path) == bare.Replace(wanted) || bare.Replace(f.Schema) == bare.Replace(wanted)
}

func (f facts) encodingProblem() error {
	return fmt.Errorf("the encoding of the database is %s, which cannot hold what Liveblocks sends; create one with: "+
		"create database NAME encoding 'UTF8' template template0", f.Encoding)
}

// some names the first of some tables.
func some(tables []string) string {
	if len(tables) == 1 {
		return tables[0]
	}
	return fmt.Sprintf("%s and %d more tables", tables[0], len(tables)-1)
}

// sessionSQL pins what statements depend on and the defaults of the role, the database
// or the server could alter. A pooler in transaction mode would keep it for others.
func sessionSQL(searchPath string) string {
	sql := "set default_transaction_isolation = 'read committed'; " +
		// The rows that a process locked before its host was lost would stay locked until
		// the operating system gives its connections up, which takes hours.
		"set idle_in_transaction_session_timeout = '10s'; " +
		"select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"
	if searchPath != "" {
		sql += "; set search_path = " + searchPath
	}
	return sql
}
