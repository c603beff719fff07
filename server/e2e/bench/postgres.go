package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/pgembed"
)

var postgres = dialect{
	name: "PostgreSQL", driver: "pgx", document: "jsonb",
	start: func(ctx context.Context, dir string) (server, error) {
		return pgembed.Start(ctx, pgembed.Config{
			DataDir: filepath.Join(dir, "postgres"), Settings: map[string]string{"max_connections": "300"},
		})
	},
	connect: connectPostgres,
	listen:  listenPostgres,

	version:     "show server_version",
	insertEvent: insertEventSQL + `values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict do nothing`,
	upsert: `insert into mirror_document
    (bucket, project_id, room_id, kind, resource_id, epoch, content, content_sha256, size, derive_version, data)
values ($1, $2, $3, 2, '', 1, '', '', $4, 1, $5)
on conflict (bucket, project_id, room_id, kind, resource_id) do update set data = excluded.data, size = excluded.size`,
	guideTable: `create table liveblocks_documents (room_id text primary key, data jsonb not null, updated_at timestamptz not null)`,
	guideUpsert: `insert into liveblocks_documents (room_id, data, updated_at) values ($1, $2, now())
on conflict (room_id) do update set data = excluded.data, updated_at = excluded.updated_at`,
	revision:  "select data->>'revision' from liveblocks_documents where room_id = $1",
	revisions: "select coalesce(string_agg(room_id || '=' || (data->>'revision'), ' '), '')" + revisionsOf,
	length:    "select octet_length($1::jsonb::text)",
	idle:      "select not exists (select 1 from mirror_resource_state where due_time is not null)",
	tidy:      func(table string) string { return "vacuum analyze " + table },
	size:      func(table string) string { return "select pg_total_relation_size('" + table + "')" },
	series:    func(n int) string { return fmt.Sprintf("generate_series(1, %d) s(n)", n) },
	echo: "with r as (insert into echoed values ($1) returning at) select pg_notify('" + echoChannel +
		"', at::text) from r",
}

const (
	insertEventSQL = `insert into mirror_event (
    bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id,
    payload, send_time, receive_time, source_time, outcome)
`
	insertEventsSQL = insertEventSQL + `select
    unnest($1::smallint[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]),
    unnest($5::text[]), unnest($6::text[]),
    unnest($7::text[]), unnest($8::bytea[]), unnest($9::timestamptz[]), unnest($10::timestamptz[]),
    unnest($11::timestamptz[]), unnest($12::text[])
on conflict do nothing`
)

// pgxConn is a connection of pgx or a pool of them.
type pgxConn interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

type postgresConn struct {
	pgxConn

	end func()
}

func connectPostgres(ctx context.Context, url string, conns int) (conn, error) {
	if conns == 1 {
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			return nil, err
		}
		return postgresConn{c, func() { _ = c.Close(context.WithoutCancel(ctx)) }}, nil // nothing is lost with it
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(conns)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return postgresConn{pool, pool.Close}, nil
}

func listenPostgres(ctx context.Context, url string, told func(string)) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	if _, err := c.Exec(ctx, "listen "+echoChannel); err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			n, err := c.WaitForNotification(ctx)
			if err != nil {
				return
			}
			told(n.Payload)
		}
	}()
	return nil
}

func (c postgresConn) close() { c.end() }

func (c postgresConn) exec(ctx context.Context, query string, args ...any) error {
	_, err := c.Exec(ctx, query, args...)
	return err
}

func (c postgresConn) get(ctx context.Context, value any, query string, args ...any) error {
	return c.QueryRow(ctx, query, args...).Scan(value)
}

func (c postgresConn) record(ctx context.Context, events []*mirror.Event) error {
	n := len(events)
	var (
		bucket                                                     = make([]int16, n)
		projects, id, typ, room, user, liveblocksProjects, outcome = make([]string, n), make([]string, n), make([]string, n),
			make([]string, n), make([]string, n), make([]string, n), make([]string, n)
		payload                = make([][]byte, n)
		sent, received, source = make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
	)
	for i, ev := range events {
		bucket[i] = ev.Bucket()
		projects[i], id[i], typ[i], room[i], user[i] = string(ev.Project), ev.ID, ev.Type, string(ev.Room), ev.User
		liveblocksProjects[i], payload[i], outcome[i] = ev.LiveblocksProject, ev.Payload, string(ev.Outcome)
		sent[i], received[i], source[i] = ev.SendTime, ev.ReceiveTime, ev.SourceTime
	}
	return c.exec(ctx, insertEventsSQL, bucket, projects, id, typ, room, user, liveblocksProjects, payload, sent,
		received, source, outcome)
}
