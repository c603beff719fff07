package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// inexactColumns lists columns of ids that are text. Organizations only describe rooms.
const inexactColumns = `select table_name, column_name, is_nullable, coalesce(character_octet_length, 0)
from information_schema.columns
where table_schema = database() and table_name like 'mirror\\_%' and column_name like '%\\_id'
    and column_name <> 'organization_id'
    and data_type in ('char', 'varchar', 'tinytext', 'text', 'mediumtext', 'longtext')
order by table_name, column_name`

// Inspect describes the server and the way to it.
func (s *Store) Inspect(ctx context.Context) (store.Server, error) {
	facts := store.Server{Wanted: schemaWanted(), Local: s.connector.local}
	err := retry(ctx, func() error { return s.inspect(ctx, &facts) })
	if err != nil {
		return store.Server{}, classify(ctx, fmt.Errorf("inspect the database: %w", err))
	}
	facts.Engine, err = s.Engine(ctx)
	return facts, err
}

func (s *Store) inspect(ctx context.Context, facts *store.Server) (err error) {
	if facts.Schema, err = schemaVersion(ctx, s.accepting); err != nil {
		return err
	}
	var database string
	if err := s.accepting.QueryRowContext(ctx, "select utc_timestamp(6), database()").
		Scan(&facts.Now, &database); err != nil {
		return err
	}
	facts.MaxPacket = s.connector.maxPacket.Load()
	var name, cipher string
	switch err := s.accepting.QueryRowContext(ctx, "show session status like 'Ssl_cipher'").Scan(&name, &cipher); {
	case err == nil:
		facts.Encrypted = cipher != ""
	case errors.Is(err, sql.ErrNoRows), number(err) != 0: // a proxy that does not tell
		facts.Encrypted = s.connector.tls
	default:
		return err
	}
	grants, err := s.texts(ctx, "show grants")
	if err != nil && number(err) == 0 {
		return err
	}
	facts.MayMigrate = err != nil || mayMigrate(grants, database)
	facts.Inexact, err = s.inexact(ctx)
	return err
}

// inexact lists columns of ids that are text.
func (s *Store) inexact(ctx context.Context) (list []store.InexactColumn, err error) {
	rows, err := s.accepting.QueryContext(ctx, inexactColumns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var c store.InexactColumn
		var nullable string
		var octets int64
		if err := rows.Scan(&c.Table, &c.Column, &nullable, &octets); err != nil {
			return nil, err
		}
		null := " not null"
		if nullable == "YES" {
			null = ""
		}
		c.Mend = fmt.Sprintf("alter table %s modify %s varbinary(%d)%s", quoted(c.Table), quoted(c.Column), octets, null)
		list = append(list, c)
	}
	return list, rows.Err()
}

// texts reads the only column of a query.
func (s *Store) texts(ctx context.Context, query string) (list []string, err error) {
	rows, err := s.accepting.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}

// granted splits a line of "show grants" into rights and the objects that they are on. A
// line without objects grants a role.
var granted = regexp.MustCompile(`(?i)^grant (.+?) on (\S+) to `)

// mayMigrate reports whether the grants let a user create and alter tables in the
// database. Rights that a role may have count as given.
func mayMigrate(grants []string, database string) bool {
	may := map[string]bool{}
	for _, grant := range grants {
		m := granted.FindStringSubmatch(grant)
		if m == nil {
			return true
		}
		switch m[2] {
		case "*.*", quoted(database) + ".*", quoted(pattern(database)) + ".*":
			for right := range strings.SplitSeq(strings.ToLower(m[1]), ",") {
				may[strings.TrimSpace(right)] = true
			}
		}
	}
	return may["all privileges"] || may["create"] && may["alter"] && may["index"] && may["drop"]
}

// wayTo tells whether connections of the settings have TLS, and whether they stay on this
// machine.
func wayTo(cfg *gomysql.Config) (encrypted, local bool) {
	address, err := netip.ParseAddrPort(cfg.Addr)
	local = cfg.Net == "unix" || strings.HasPrefix(cfg.Addr, "localhost:") || err == nil && address.Addr().IsLoopback()
	return cfg.TLS != nil, local
}
