// Package move applies migrations, and brings rows that older versions wrote to where this
// version looks for them.
package move

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3/lock"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Version is the schema version from which on an event is in the bucket of its room.
// Before, it was in one of its own, by its id.
const Version = 13

// piece is the number of events that are moved together, and progressInterval the time
// between two lines about it.
const (
	piece            = 1000
	progressInterval = 10 * time.Second
)

// Dialect describes the differences between engines.
type Dialect struct {
	// Numbered means that placeholders are $1, $2 and so on, instead of question marks.
	Numbered bool
	// Key converts an id to an argument.
	Key func(id string) any
	// Bucket is the bucket of an event e, that of its room, as the server computes it.
	Bucket string
	// Columns are those of mirror_event but for bucket.
	Columns string
	// OnConflict ends an insert that leaves existing rows as they are.
	OnConflict string
}

// Run moves the events of a database that an older version has written, unless another
// process does so. version reads the version of the schema; 0 if there is none.
func (d Dialect) Run(
	ctx context.Context, db *sql.DB, locker lock.Locker, version func(context.Context, *sql.DB) (int64, error),
	log *slog.Logger,
) error {
	old := func() (bool, error) {
		v, err := version(ctx, db)
		return err == nil && v != 0 && v < Version, err
	}
	if ok, err := old(); err != nil || !ok {
		return err
	}
	if err := locker.Lock(ctx, db); err != nil {
		return fmt.Errorf("lock the events, which another process may be moving: %w", err)
	}
	ok, err := old() // it may have been done meanwhile
	if ok {
		err = d.Events(ctx, db, log)
	}
	return errors.Join(err, locker.Unlock(context.WithoutCancel(ctx), db))
}

// Events moves the events. It takes a few at a time and can be run again after a cut:
// an event is copied before it is removed, so it is never forgotten.
func (d Dialect) Events(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	m := mover{Dialect: d, db: db, log: log, begun: time.Now()}
	m.told = m.begun
	for bucket := range mirror.Buckets {
		if err := m.bucket(ctx, bucket); err != nil {
			return fmt.Errorf("move the events of bucket %d: %w", bucket, err)
		}
	}
	if m.moved > 0 {
		log.InfoContext(ctx, "events moved to the buckets of their rooms", slog.Int64("events", m.moved),
			slog.Duration("took", time.Since(m.begun)))
	}
	return nil
}

type mover struct {
	Dialect

	db          *sql.DB
	log         *slog.Logger
	begun, told time.Time
	moved       int64
}

// The statements of a move. Each names one bucket.
const (
	nextProjectSQL = `select e.project_id from mirror_event e
where e.bucket = ? and e.project_id > ?
order by e.project_id
limit 1`
	pieceEndSQL = `select e.event_id from mirror_event e
where e.bucket = ? and e.project_id = ? and e.event_id > ?
order by e.event_id
limit 1 offset ?`
)

// inPiece selects the events of a piece that are in the wrong bucket.
func (d Dialect) inPiece(of string) string {
	return `
where ` + of + `bucket = ? and ` + of + `project_id = ? and ` + of + `event_id > ? and ` + of + `event_id <= ?
    and ` + of + `bucket <> ` + strings.ReplaceAll(d.Bucket, "e.", of)
}

func (d Dialect) copySQL() string {
	return `insert into mirror_event (bucket, ` + d.Columns + `)
select ` + d.Bucket + `, e.` + strings.ReplaceAll(d.Columns, ", ", ", e.") + `
from mirror_event e` + d.inPiece("e.") + `
` + d.OnConflict
}

func (d Dialect) removeSQL() string { return `delete from mirror_event` + d.inPiece("") }

// Statements are all texts that are sent.
func (d Dialect) Statements() []string {
	all := []string{nextProjectSQL, pieceEndSQL, d.copySQL(), d.removeSQL()}
	for i := range all {
		all[i] = d.numbered(all[i])
	}
	return all
}

func (d Dialect) numbered(text string) string {
	for n := 1; d.Numbered && strings.Contains(text, "?"); n++ {
		text = strings.Replace(text, "?", "$"+strconv.Itoa(n), 1)
	}
	return text
}

// bucket moves what is in a bucket and belongs to another.
func (m *mover) bucket(ctx context.Context, bucket int) error {
	for project := ""; ; {
		err := m.db.QueryRowContext(ctx, m.numbered(nextProjectSQL), bucket, m.Key(project)).Scan(&project)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err == nil {
			err = m.project(ctx, bucket, project)
		}
		if err != nil {
			return err
		}
	}
}

func (m *mover) project(ctx context.Context, bucket int, project string) error {
	// No id is longer, so none sorts after a run of the last character.
	last := strings.Repeat("\U0010FFFF", mirror.MaxEventID/4)
	for after := ""; after != last; {
		end := last
		err := m.db.QueryRowContext(ctx, m.numbered(pieceEndSQL), bucket, m.Key(project), m.Key(after), piece-1).Scan(&end)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		args := []any{bucket, m.Key(project), m.Key(after), m.Key(end)}
		if _, err = m.db.ExecContext(ctx, m.numbered(m.copySQL()), args...); err != nil {
			return err
		}
		removed, err := m.db.ExecContext(ctx, m.numbered(m.removeSQL()), args...)
		if err != nil {
			return err
		}
		n, err := removed.RowsAffected()
		if err != nil {
			return err
		}
		m.tell(ctx, n)
		after = end
	}
	return nil
}

// tell counts events, and tells now and then how many were moved.
func (m *mover) tell(ctx context.Context, n int64) {
	if m.moved += n; time.Since(m.told) < progressInterval {
		return
	}
	m.told = time.Now()
	m.log.InfoContext(ctx, "moving events to the buckets of their rooms", slog.Int64("events", m.moved))
}
