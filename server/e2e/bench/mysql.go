package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

var mysql = dialect{
	name: "MariaDB", driver: "go-sql-driver", document: "json",
	start: func(ctx context.Context, dir string) (server, error) {
		// It reads past the system's cache of files. PostgreSQL does not, so this one
		// is given room for all data, as a machine of its own would be set up.
		s, err := mysqltest.Launch(ctx,
			mysqltest.Options{Dir: dir, Settings: map[string]string{"innodb_buffer_pool_size": "1G"}})
		return mariadb{s}, err
	},
	connect: connectMySQL,

	version:     "select substring_index(version(), '-', 1)",
	insertEvent: insertEventMySQL + eventPlaces + keepEvent,
	upsert: `insert into mirror_document
    (bucket, project_id, room_id, kind, resource_id, epoch, content, content_sha256, size, derive_version,
    data, data_problem, plain_text)
values ($1, $2, $3, 2, '', 1, '', '', $4, 1, $5, '', '')
on duplicate key update data = values(data), size = values(size)`,
	guideTable: `create table liveblocks_documents (room_id varbinary(512) primary key, data json not null, updated_at datetime(6) not null)`,
	guideUpsert: `insert into liveblocks_documents (room_id, data, updated_at) values ($1, $2, now(6))
on duplicate key update data = values(data), updated_at = values(updated_at)`,
	revision: "select json_value(data, '$.revision') from liveblocks_documents where room_id = $1",
	revisions: "select coalesce(group_concat(concat(room_id, '=', json_value(data, '$.revision')) separator ' '), '')" +
		revisionsOf,
	length: "select octet_length($1)", // MariaDB keeps JSON as it came
	// Without the project no index would serve.
	idle: "select not exists (select 1 from mirror_resource_state where project_id = '" + project +
		"' and due_time is not null)",
	tidy: func(table string) string { return "analyze table " + table },
	size: func(table string) string {
		return "select file_size from information_schema.innodb_sys_tablespaces where name = concat(database(), '/" +
			table + "')"
	},
	series: func(n int) string { return fmt.Sprintf("(select seq as n from seq_1_to_%d) s", n) },
	echo:   "insert into echoed values ($1)",
}

const (
	insertEventMySQL = `insert into mirror_event (
    bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id,
    payload, send_time, receive_time, source_time, outcome, batch_token)
values `
	eventPlaces = `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')`
	keepEvent   = ` on duplicate key update bucket = values(bucket)`
)

type mariadb struct{ *mysqltest.Server }

func (s mariadb) URL() string                { return s.Server.URL("mysql") }
func (s mariadb) Stop(context.Context) error { return s.Close() }

type mysqlConn struct {
	db *sql.DB

	mu       sync.Mutex
	prepared map[string]*sql.Stmt // by query
}

func connectMySQL(_ context.Context, to string, conns int) (conn, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	cfg := gomysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	connector, err := gomysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return &mysqlConn{db: db, prepared: make(map[string]*sql.Stmt)}, nil
}

func (c *mysqlConn) close() { _ = c.db.Close() } // nothing is lost with it

var places = regexp.MustCompile(`\$\d+`)

// statement prepares a query when it is first seen, as pgx does by itself: the
// driver would prepare it each time, or else put the values into its text,
// which takes longer for documents.
func (c *mysqlConn) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.prepared[query]; ok {
		return s, nil
	}
	//nolint:sqlclosecheck // it is kept, and ends with the connections
	s, err := c.db.PrepareContext(ctx, places.ReplaceAllString(query, "?"))
	if err == nil {
		c.prepared[query] = s
	}
	return s, err
}

func (c *mysqlConn) exec(ctx context.Context, query string, args ...any) error {
	if len(args) == 0 { // not all statements can be prepared
		_, err := c.db.ExecContext(ctx, query)
		return err
	}
	s, err := c.statement(ctx, query) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx, args...)
	return err
}

func (c *mysqlConn) get(ctx context.Context, value any, query string, args ...any) error {
	s, err := c.statement(ctx, query) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(value)
}

func (c *mysqlConn) record(ctx context.Context, events []*mirror.Event) error {
	args := make([]any, 0, 12*len(events))
	for _, ev := range events {
		args = append(args, eventRow(ev)...)
	}
	return c.exec(ctx, insertEventMySQL+strings.Repeat(eventPlaces+", ", len(events)-1)+eventPlaces+keepEvent, args...)
}
