package mysql

import (
	"context"
	"database/sql"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Statements about lists of keys or rows. sqlc supports one fixed statement for
// each query, but these have as many placeholders as the list is long: MySQL
// supports neither arrays nor row values as parameters. Only placeholders are added
// to the text, never values.

// pieceRows is the maximum number of rows that one statement reads, changes or deletes,
// however many match. Hosted servers refuse statements about more than some number:
// Vitess by default 10,000, PlanetScale 100,000.
const pieceRows = 5000

// maxRows is the maximum number of rows that one statement names.
const maxRows = 500

// maxKeys is the maximum number of keys in one list "(bucket, ...) in ((?, ...),
// ...)". Up to here this is the fastest form, if the statement names the index.
// MariaDB's planning time grows with the square of the length.
const maxKeys = 32

// places returns n groups of width question marks.
func places(n, width int) string {
	return repeat("("+repeat("?", width)+")", n)
}

func repeat(s string, n int) string { return strings.Repeat(s+", ", n-1) + s }

// keyTable returns a table expression k of n rows with the given columns.
func keyTable(n int, columns ...string) string {
	return "(select ? as " + strings.Join(columns, ", ? as ") + strings.Repeat("\n    union all select "+
		repeat("?", len(columns)), n-1) + ") k"
}

func appendKey(args []any, r mirror.Resource) []any {
	return append(args, r.Bucket(), rawKey(r.Project), rawKey(r.Room), int16(r.Kind), rawKey(r.ID))
}

// chunks calls f with consecutive parts of list of at most size elements.
func chunks[E any](list []E, size int, f func(piece []E) error) error {
	for len(list) > 0 {
		n := min(size, len(list))
		if err := f(list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// pages reads the rows of a query in pieces: page reads at most limit rows, those after
// the last one of the piece before.
func pages[R any](limit int, page func(last *R) ([]R, error)) ([]R, error) {
	all, err := page(nil)
	for n := len(all); err == nil && n == limit; {
		var rows []R
		rows, err = page(&all[len(all)-1])
		all, n = append(all, rows...), len(rows)
	}
	return all, err
}

// inPieces changes or deletes rows in pieces: run does so with at most limit rows, which
// it does not find again, and returns how many they were.
func (q *queries) inPieces(run func(limit int32) (int64, error)) error {
	for {
		n, err := run(q.limit())
		if err != nil || n < int64(q.piece) {
			return err
		}
	}
}

// limit is the limit of a piece.
func (q *queries) limit() int32 { return int32(q.piece) } //nolint:gosec // a small number

// exec runs a statement and returns how many rows it changed or deleted.
func (q *queries) exec(ctx context.Context, text string, args ...any) (int64, error) {
	result, err := q.db.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// afterSQL is the condition that a row comes after another in the order of the columns,
// and afterArgs its arguments. Servers use no index for comparisons of row values.
func afterSQL(columns []string) string {
	if len(columns) == 1 {
		return columns[0] + " > ?"
	}
	return columns[0] + " >= ? and (" + columns[0] + " > ? or " + afterSQL(columns[1:]) + ")"
}

func afterArgs(args []any, key []string) []any {
	for i, id := range key {
		args = append(args, rawKey(id))
		if i < len(key)-1 {
			args = append(args, rawKey(id))
		}
	}
	return args
}

// query runs a query and calls scan for each row.
func (q *queries) query(ctx context.Context, text string, args []any, scan func(rows *sql.Rows) error) error {
	rows, err := q.db.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func insertEventsSQL(n int) string {
	// Existing rows stay unchanged and do not count as affected. Not "insert
	// ignore", which would also ignore invalid values.
	return `insert into mirror_event (
    bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id,
    payload, send_time, receive_time, source_time, outcome, batch_token, thread_id, secret_sha
)
values ` + places(n, 15) + `
on duplicate key update bucket = values(bucket)`
}

// insertEvents inserts the events that do not exist yet and returns their number.
func (q *queries) insertEvents(ctx context.Context, events []mirror.Event, token []byte) (int64, error) {
	args := make([]any, 0, 15*len(events))
	for _, e := range events {
		args = append(args, e.Bucket(), rawKey(e.Project), rawKey(e.ID), rawKey(e.Type), rawKey(e.Room),
			rawKey(e.User),
			rawKey(e.LiveblocksProject), rawKey(e.Payload), nullTime(e.SendTime), nullTime(e.ReceiveTime),
			nullTime(e.SourceTime), rawKey(e.Outcome), token, rawKey(e.Thread), rawKey(e.Secret))
	}
	result, err := q.db.ExecContext(ctx, insertEventsSQL(len(events)), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func recordedSQL(n int) string {
	return `select project_id, event_id, outcome, batch_token
from mirror_event force index (primary)
where (bucket, project_id, event_id) in (` + places(n, 3) + `)`
}

// recorded is the stored part of an event.
type recorded struct {
	outcome mirror.Outcome
	token   string
}

// recorded reads stored events.
func (q *queries) recorded(ctx context.Context, events []mirror.Event) (map[eventKey]recorded, error) {
	out := make(map[eventKey]recorded, len(events))
	err := chunks(events, maxKeys, func(events []mirror.Event) error {
		args := make([]any, 0, 3*len(events))
		for _, e := range events {
			args = append(args, e.Bucket(), rawKey(e.Project), rawKey(e.ID))
		}
		return q.query(ctx, recordedSQL(len(events)), args, func(rows *sql.Rows) error {
			var project, id, outcome, token string
			if err := rows.Scan(&project, &id, &outcome, &token); err != nil {
				return err
			}
			out[eventKey{mirror.ProjectID(project), id}] = recorded{mirror.Outcome(outcome), token}
			return nil
		})
	})
	return out, err
}

// markStaleSQL is the only statement that makes resources stale, by the rule of
// State.MarkStale in package store. A new row without again_time clears backoffs
// and failures.
func markStaleSQL(n int) string {
	// When the fetch is due, delayed by a backoff and by the interval since the
	// last one. Assignments are evaluated from left to right, and each sees the
	// earlier ones.
	const wanted = `greatest(
        values(due_time),
        coalesce(if(values(again_time) is null, null, not_before), values(due_time)),
        coalesce(
            if(
                values(again_time) > values(due_time),
                -- A fetch in the future, by a clock that was wrong, counts as one just now.
                timestampadd(
                    microsecond, timestampdiff(microsecond, values(due_time), values(again_time)),
                    least(fetch_time, values(due_time))
                ),
                null
            ),
            values(due_time)
        )
    )`
	const again = `coalesce(values(again_time), values(due_time))`
	return `insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id,
    generation, due_time, again_time, settle, delete_generation, hint_time, notice_time, background, last_error
)
values ` + repeat("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')", n) + `
on duplicate key update
    -- A settle fetch that is brought forward is still owed.
    settle = settle or values(settle) or (due_time is not null and generation = applied_generation),
    -- What is wanted at once does not become less urgent by being wanted again.
    background = values(background) and (due_time is null or background),
    due_time = least(coalesce(due_time, ` + wanted + `), ` + wanted + `),
    not_before = if(values(again_time) is null, null, not_before),
    -- Counts only while leased: a claim clears it.
    again_time = least(coalesce(again_time, ` + again + `), ` + again + `),
    hint_time = greatest(coalesce(hint_time, values(hint_time)), coalesce(values(hint_time), hint_time)),
    notice_time = greatest(
        coalesce(notice_time, values(notice_time)), coalesce(values(notice_time), notice_time)
    ),
    attempts = if(values(again_time) is null or fail_time is not null, 0, attempts),
    fail_time = null,
    delete_generation = if(values(delete_generation) is null, delete_generation, generation + values(generation)),
    generation = generation + values(generation)`
}

// markStale marks resources, which must be in key order.
func (q *queries) markStale(ctx context.Context, list []store.Stale) error {
	_, err := q.markAll(ctx, list)
	return err
}

// markAll is like markStale and returns the number of affected rows: one for each
// new resource, two for each other.
func (q *queries) markAll(ctx context.Context, list []store.Stale) (affected int64, err error) {
	err = chunks(list, maxRows, func(list []store.Stale) error {
		args := make([]any, 0, 13*len(list))
		for _, w := range list {
			args = appendKey(args, w.Resource)
			again := nullTime(w.Now.Add(w.MinInterval))
			again.Valid = again.Valid && !w.Lift
			deleted := sql.NullInt64{Int64: 1, Valid: w.Deleted}
			args = append(args, flag(!w.SameGeneration), nullTime(w.Now), again, w.Event, deleted, nullTime(w.SourceTime),
				nullTime(w.NoticeTime), w.Background)
		}
		result, err := q.db.ExecContext(ctx, markStaleSQL(len(list)), args...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		affected += n
		return err
	})
	return affected, err
}

func lockStatesSQL(n int) string {
	return `select project_id, room_id, kind, resource_id, generation
from mirror_resource_state force index (primary)
where (bucket, project_id, room_id, kind, resource_id) in (` + places(n, 5) + `)
for update nowait`
}

// lockStates locks the states of resources, or fails if another session has locked
// one of them. It returns their generations, without those that have no state.
func (q *queries) lockStates(ctx context.Context, list []store.Stale) (map[mirror.Resource]int64, error) {
	out := make(map[mirror.Resource]int64, len(list))
	err := chunks(list, maxKeys, func(list []store.Stale) error {
		args := make([]any, 0, 5*len(list))
		for _, w := range list {
			args = appendKey(args, w.Resource)
		}
		return q.query(ctx, lockStatesSQL(len(list)), args, func(rows *sql.Rows) error {
			var r mirror.Resource
			var generation int64
			if err := rows.Scan(&r.Project, &r.Room, &r.Kind, &r.ID, &generation); err != nil {
				return err
			}
			out[r] = generation
			return nil
		})
	})
	return out, err
}

func lockEventsSQL(n int) string {
	return `select event_id
from mirror_event force index (primary)
where (bucket, project_id, event_id) in (` + places(n, 3) + `)
for update nowait`
}

// lockEvents locks events, or fails if another session is recording one of them.
func (q *queries) lockEvents(ctx context.Context, events []mirror.Event) error {
	return chunks(events, maxKeys, func(events []mirror.Event) error {
		args := make([]any, 0, 3*len(events))
		for _, e := range events {
			args = append(args, e.Bucket(), rawKey(e.Project), rawKey(e.ID))
		}
		return q.query(ctx, lockEventsSQL(len(events)), args, func(*sql.Rows) error { return nil })
	})
}

func lockBodiesSQL(n int) string {
	return `select bucket, project_id, event_id, unhex(sha2(payload, 256)) as payload_sha256
from mirror_event force index (primary)
where (bucket, project_id, event_id) in (` + places(n, 3) + `)
for update`
}

// unchanged locks recorded events, which must be in key order, and returns those that are
// stored as they are here.
func (q *queries) unchanged(ctx context.Context, batch []mirror.Delivery) ([]mirror.Delivery, error) {
	hashes := make(map[store.StoredEvent]string, len(batch))
	err := chunks(batch, maxKeys, func(batch []mirror.Delivery) error {
		args := make([]any, 0, 3*len(batch))
		for _, d := range batch {
			args = append(args, d.Event.Bucket(), rawKey(d.Event.Project), rawKey(d.Event.ID))
		}
		return q.query(ctx, lockBodiesSQL(len(batch)), args, func(rows *sql.Rows) error {
			var key store.StoredEvent
			var hash string
			err := rows.Scan(&key.Bucket, &key.Project, &key.ID, &hash)
			hashes[key] = hash
			return err
		})
	})
	return store.StillRecorded(batch, hashes), err
}

func progressSQL(n int) string {
	return `select project_id, room_id, kind, resource_id, generation, applied_generation, due_time, fail_time, notice_time,
  last_error
from mirror_resource_state force index (primary)
where (bucket, project_id, room_id, kind, resource_id) in (` + places(n, 5) + `)`
}

// progress reads the progress of resources and leaves out those without a state.
func (q *queries) progress(ctx context.Context, resources []mirror.Resource) (map[mirror.Resource]store.State, error) {
	out := make(map[mirror.Resource]store.State, len(resources))
	err := chunks(resources, maxKeys, func(resources []mirror.Resource) error {
		args := make([]any, 0, 5*len(resources))
		for _, r := range resources {
			args = appendKey(args, r)
		}
		return q.query(ctx, progressSQL(len(resources)), args, func(rows *sql.Rows) error {
			var r mirror.Resource
			var st store.State
			var due, fail, notice sql.NullTime
			if err := rows.Scan(&r.Project, &r.Room, &r.Kind, &r.ID, &st.Generation, &st.Applied, &due, &fail,
				&notice, &st.LastError); err != nil {
				return err
			}
			st.Due, st.FailTime, st.NoticeTime = timeOf(due), timeOf(fail), timeOf(notice)
			out[r] = st
			return nil
		})
	})
	return out, err
}
