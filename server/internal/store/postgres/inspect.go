package postgres

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// mayMigrateSQL has one parameter: the schema of the tables, or an empty text for the
// search path. Tables can be altered by their owner only.
const mayMigrateSQL = `with home as (
    select coalesce(nullif($1::text, ''), current_schema()::text) as name
), tables as (
    select c.relowner from pg_class c join pg_namespace n on n.oid = c.relnamespace join home on home.name = n.nspname
    where c.relname = 'mirror_schema_version' and c.relkind = 'r'
)
select clock_timestamp(), coalesce(
    (select has_schema_privilege(n.oid, 'create') from pg_namespace n join home on home.name = n.nspname),
    has_database_privilege(current_database(), 'create')
) and coalesce((select pg_has_role(relowner, 'usage') from tables), true)`

// inexactSQL has the same parameter. Organizations only describe rooms.
const inexactSQL = `select c.relname::text, a.attname::text,
    format('alter table %I.%I alter column %I type text collate "C"', n.nspname, c.relname, a.attname)
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
join pg_collation o on o.oid = a.attcollation
where n.nspname = coalesce(nullif($1::text, ''), current_schema()::text) and c.relname like 'mirror\_%'
    and c.relkind in ('r', 'p') and a.attname like '%\_id' and a.attname <> 'organization_id' and not a.attisdropped
    and o.collname not in ('C', 'POSIX')
order by c.relname, a.attnum`

// Inspect describes the server and the way to it.
func (s *Store) Inspect(ctx context.Context) (store.Server, error) {
	facts := store.Server{Pooled: s.sessions.pooled.Load(), Wanted: schemaWanted()}
	err := retry(ctx, func() error {
		conn, err := s.accepting.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		facts.Encrypted, facts.Local = wayOf(conn.Conn().PgConn().Conn())
		if facts.Schema, _, err = schemaState(ctx, s.names.on(conn)); err != nil {
			return err
		}
		var now time.Time
		if err := conn.QueryRow(ctx, mayMigrateSQL, s.schema).Scan(&now, &facts.MayMigrate); err != nil {
			return err
		}
		facts.Now = now.UTC()
		rows, err := conn.Query(ctx, inexactSQL, s.schema)
		if err != nil {
			return err
		}
		facts.Inexact, err = pgx.CollectRows(rows, pgx.RowToStructByPos[store.InexactColumn])
		return err
	})
	if err != nil {
		return store.Server{}, classify(ctx, fmt.Errorf("inspect the database: %w", err))
	}
	facts.Engine, err = s.Engine(ctx)
	return facts, err
}

// wayOf tells whether a connection has TLS, and whether it stays on this machine.
func wayOf(conn net.Conn) (encrypted, local bool) {
	_, encrypted = conn.(*tls.Conn)
	switch remote := conn.RemoteAddr().(type) {
	case *net.UnixAddr:
		local = true
	case *net.TCPAddr:
		local = remote.IP.IsLoopback()
	}
	return encrypted, local
}
