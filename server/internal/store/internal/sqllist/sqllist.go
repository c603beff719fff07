// Package sqllist implements the lists of the store, and reads of single rows with
// the same columns, for every engine. An engine provides a [Dialect] and a function
// to run a statement, and embeds the [Reader].
//
// A list costs what it returns, whatever the server's statistics say. Each filter
// that an index serves has its own text, which starts from that index: see
// [statement.whereFirst]. A filter whose matches have another order
// than the list first reads their keys, see keys.go. Texts consist of constants of
// this package and the names in [store.ItemKind]; values are always arguments.
package sqllist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/pack"
)

// Dialect describes the differences between engines.
type Dialect struct {
	// Numbered means that placeholders are $1, $2 and so on, instead of question
	// marks.
	Numbered bool
	// RowValues means that the server uses an index for comparisons of row values.
	RowValues bool
	// Lateral means that the server knows lateral subqueries.
	Lateral bool
	// Contains is the condition that a JSON object has all members of an argument.
	// It contains one formatting verb, for the column.
	Contains string
	// Key converts an id to an argument, and Time a time that is not zero.
	Key  func(id string) any
	Time func(t time.Time) any
	// ByValues goes before the arguments of a statement that has to be planned with their
	// values. Otherwise the server may make one plan for all values, rare ones and others.
	ByValues []any
	// No time in the database is before First or after Last.
	First, Last any
	// DocumentTable is a table expression k with the columns n, bucket, project_id,
	// room_id, kind, resource_id, deleted and have: one row for each read, numbered
	// from 0. DocumentKeys are its arguments.
	DocumentTable func(reads int) string
	DocumentKeys  func(reads []store.DocumentRead) (args []any)
	// KeyTable is a table expression k with the given columns.
	KeyTable func(columns []KeyColumn) (table string, args []any)
	// ThreadChanged and CommentChanged are when a thread t or a comment c changed, as
	// an index has it.
	ThreadChanged, CommentChanged string
	// RoomDeleted is when a room t was deleted, and RoomUnpurged a condition that it has
	// content, as the index of deleted rooms has them.
	RoomDeleted, RoomUnpurged string
	// Piece is the maximum number of rows that a statement returns where any number may
	// match; zero means no limit.
	Piece int
	// ForceIndex means that a statement can name the index that it uses.
	ForceIndex bool
	// Routed means that a statement about one room names its bucket too, although no index
	// needs it: on a sharded server only that says which shard has the room. A server that
	// plans by estimates would expect too few rows.
	Routed bool
	// Open is the condition that a state s is not at rest, as an index has it, and
	// Done the opposite.
	Open, Done string
	// RoomUnindexed is the condition that a room r is not deleted and has no terms yet, or
	// those of an earlier version, as an index has it, and ThreadUnindexed the same of a
	// thread t, deleted or not.
	RoomUnindexed, ThreadUnindexed string
	// DeleteLimit means that a delete can have a limit.
	DeleteLimit bool
	// TimedOut reports that the server ended a statement because of its time.
	TimedOut func(err error) bool
	// Unsupported reports that the server cannot plan a statement.
	Unsupported func(err error) bool
	// EachBucket precedes a subquery that is run for each bucket b.n; empty if an
	// index has all states that are done in the order of a list.
	EachBucket string
}

// DeleteSome returns a statement that deletes rows by a condition, at most as many as its last
// argument says.
func (d *Dialect) DeleteSome(table, where string) string {
	if d.DeleteLimit {
		return "delete from " + table + where + "\nlimit ?"
	}
	return "delete from " + table + "\nwhere ctid = any(array(select ctid from " + table + where + "\nlimit ?::bigint))"
}

// Row is the current row of a result.
type Row interface {
	Scan(dest ...any) error
}

// Reader reads from one engine.
type Reader struct {
	dialect  Dialect
	run      func(ctx context.Context, text string, args []any, scan func(Row) error) error
	classify func(ctx context.Context, err error) error
	pack     *pack.Codec
	timeout  time.Duration
	// documentTexts are the texts of ReadDocuments, by the number of reads.
	documentTexts sync.Map
}

// NewReader returns a Reader. run calls scan for each row of a query, and ends it on
// the server when its context ends; classify converts an error of the driver to one of
// the contract. No statement runs for longer than timeout, if it is not zero.
func NewReader(
	dialect Dialect, run func(ctx context.Context, text string, args []any, scan func(Row) error) error,
	classify func(ctx context.Context, err error) error, codec *pack.Codec, timeout time.Duration,
) *Reader {
	return &Reader{dialect: dialect, run: run, classify: classify, pack: codec, timeout: timeout}
}

// read runs a statement within the time limit.
func (r *Reader) read(ctx context.Context, what string, s *statement, scan func(Row) error) error {
	return r.within(ctx, what, func(limited context.Context) error {
		args := s.args
		if s.byValues {
			args = slices.Concat(r.dialect.ByValues, args)
		}
		err := r.run(limited, s.text.String(), args, scan)
		if err == nil || limited.Err() != nil || r.timedOut(err) {
			return err
		}
		return r.classify(ctx, fmt.Errorf("%s: %w", what, err))
	})
}

// part is a statement with its arguments.
type part struct {
	text string
	args []any
}

// together reads the rows of statements as those of one, or one by one where the server cannot
// plan that: a gateway of Vitess cannot while it does not know the types of all columns, as for
// a while after the tables were made.
func (r *Reader) together(ctx context.Context, what string, parts []part, scan func(Row) error) error {
	return r.within(ctx, what, func(ctx context.Context) error {
		s := r.query("")
		for i, p := range parts {
			if i > 0 {
				s.add("\nunion all ")
			}
			s.add("("+p.text+")", p.args...)
		}
		err := r.read(ctx, what, s, scan)
		if err == nil || r.dialect.Unsupported == nil || !r.dialect.Unsupported(err) {
			return err
		}
		for _, p := range parts {
			if err := r.read(ctx, what, r.query(p.text, p.args...), scan); err != nil {
				return err
			}
		}
		return nil
	})
}

// within does what takes one statement or several within the time limit.
func (r *Reader) within(ctx context.Context, what string, do func(ctx context.Context) error) error {
	limited := ctx // an earlier deadline is limit enough
	deadline, ok := ctx.Deadline()
	ours := r.timeout > 0 && (!ok || time.Until(deadline) > r.timeout)
	if ours {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	err := do(limited)
	switch timedOut := r.timedOut(err); {
	case err == nil || limited.Err() == nil && !timedOut:
		return err
	case ours && ctx.Err() == nil:
		return r.tooLong(what, err)
	case timedOut && ok && ctx.Err() == nil: // the server noticed the caller's deadline first
		return fmt.Errorf("%s: %w: %w", what, context.DeadlineExceeded, err)
	default:
		return r.classify(ctx, fmt.Errorf("%s: %w", what, err))
	}
}

// timedOut reports that the server ended a statement because of its time.
func (r *Reader) timedOut(err error) bool {
	return r.dialect.TimedOut != nil && r.dialect.TimedOut(err)
}

func (r *Reader) tooLong(what string, err error) error {
	return fault.Wrap(fmt.Errorf("%s: %w", what, err), fault.Unavailable, fault.ReasonStoreUnavailable,
		fmt.Sprintf("the database took longer than %v for this read; name a narrower filter, or raise "+
			"MIRROR_READ_TIMEOUT", r.timeout))
}

// list reads all rows of a statement.
func list[T any](ctx context.Context, r *Reader, what string, s *statement, scan func(Row, *T) error) ([]T, error) {
	var out []T
	err := r.read(ctx, what, s, func(row Row) error {
		out = append(out, *new(T))
		return scan(row, &out[len(out)-1])
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// inPieces reads all rows of a list: piece reads those after the last one of the piece
// before, at most as many as the dialect allows.
func inPieces[T any](r *Reader, piece func(last *T) ([]T, error)) ([]T, error) {
	all, err := piece(nil)
	for n := len(all); err == nil && n > 0 && n == r.dialect.Piece; {
		var more []T
		more, err = piece(&all[len(all)-1])
		all, n = append(all, more...), len(more)
	}
	return all, err
}

// one reads the only row of a statement, or returns store.ErrNotFound.
func one[T any](ctx context.Context, r *Reader, what string, s *statement, scan func(Row, *T) error) (T, error) {
	rows, err := list(ctx, r, what, s, scan)
	switch {
	case err != nil:
		return *new(T), err
	case len(rows) == 0:
		return *new(T), fmt.Errorf("%s: %w", what, store.ErrNotFound)
	}
	return rows[0], nil
}

// statement is the text of a query with its arguments in the order of the
// placeholders.
type statement struct {
	dialect *Dialect
	text    strings.Builder
	args    []any
	// places counts the placeholders, conditions the conditions of the where
	// clause.
	places, conditions int
	// byValues means that the best index depends on the arguments.
	byValues bool
}

// query starts a statement. Placeholders are question marks in every dialect.
func (r *Reader) query(text string, args ...any) *statement {
	s := &statement{dialect: &r.dialect}
	s.add(text, args...)
	return s
}

func (s *statement) add(text string, args ...any) {
	for _, arg := range args {
		s.args = append(s.args, s.dialect.argument(arg))
	}
	if !s.dialect.Numbered {
		s.text.WriteString(text)
		return
	}
	for {
		before, after, found := strings.Cut(text, "?")
		s.text.WriteString(before)
		if !found {
			return
		}
		s.places++
		s.text.WriteString("$" + strconv.Itoa(s.places))
		text = after
	}
}

// jsonText is an argument for a JSON column, in contrast to an id.
type jsonText string

func (d *Dialect) argument(v any) any {
	switch v := v.(type) {
	case string:
		return d.Key(v)
	case mirror.ProjectID:
		return d.Key(string(v))
	case mirror.RoomID:
		return d.Key(string(v))
	case mirror.Kind:
		return int16(v)
	case time.Time:
		return d.Time(v)
	case jsonText:
		return string(v)
	}
	return v
}

// where adds a condition.
func (s *statement) where(text string, args ...any) *statement {
	clause := "\n    and "
	if s.conditions == 0 {
		clause = "where "
	}
	s.conditions++
	s.add(clause+text, args...)
	return s
}

// whereIf adds a condition if enabled. It doubles the number of texts.
func (s *statement) whereIf(asked bool, text string, args ...any) *statement {
	if asked {
		s.where(text, args...)
	}
	return s
}

// whereID selects by an id if it is not empty. It uses the index that starts with
// the id, which has no rows without one. It doubles the number of texts.
func (s *statement) whereID(column, id string) *statement {
	return s.whereIf(id != "", column+" = ? and "+column+" <> ''", id)
}

// narrow selects by an id if it is not empty, and uses no index for it.
func (s *statement) narrow(column, id string) *statement {
	return s.whereIf(id != "", "("+column+" = ?) is true", id)
}

// idFilter selects by an id.
type idFilter struct{ column, id string }

// whereFirst selects by all ids that are not empty. It uses the index that starts with
// the first of them: a server that chose by its statistics would read what all others
// select, too.
func (s *statement) whereFirst(filters ...idFilter) *statement {
	first := true
	for _, f := range filters {
		switch {
		case f.id == "":
		case first:
			s.whereID(f.column, f.id)
			first = false
		default:
			s.narrow(f.column, f.id)
		}
	}
	return s
}

// inBucket selects the bucket of a room, unless a filter names none; see Dialect.Routed.
func (s *statement) inBucket(of string, project mirror.ProjectID, room mirror.RoomID) *statement {
	return s.whereIf(s.dialect.Routed && room != "", of+".bucket = ?", mirror.Bucket(project, string(room)))
}

// by ends the name of a table with the index that a list uses, where a statement can
// say so.
func (r *Reader) by(index string) string {
	if !r.dialect.ForceIndex {
		return "\n"
	}
	return " force index (" + index + ")\n"
}

// after selects the rows after the one with these values, in the order of the
// columns. Values lower than all others select everything.
func (s *statement) after(columns []string, values ...any) *statement {
	return s.compare(">", columns, values)
}

// from selects the rows from the one with these values on.
func (s *statement) from(columns []string, values ...any) *statement {
	return s.compare(">=", columns, values)
}

func (s *statement) compare(operator string, columns []string, values []any) *statement {
	if s.dialect.RowValues {
		return s.where("("+strings.Join(columns, ", ")+") "+operator+" (?"+strings.Repeat(", ?", len(columns)-1)+")",
			values...)
	}
	text, args := compareColumns(operator, columns, values)
	return s.where(text, args...)
}

// compareColumns compares rows column by column, for servers that do not use an index
// for comparisons of row values.
func compareColumns(operator string, columns []string, values []any) (string, []any) {
	c, v := columns[0], values[0]
	if len(columns) == 1 {
		return c + " " + operator + " ?", []any{v}
	}
	text, args := compareColumns(operator, columns[1:], values[1:])
	return c + " >= ? and (" + c + " > ? or " + text + ")", append([]any{v, v}, args...)
}

// unindexed is a condition that no index serves, and of which Postgres expects every
// second row to match: if it expected few, it would sort instead of reading in order.
func unindexed(condition string) string {
	return "case when " + condition + " then true else false end"
}

// page orders a list and ends it.
func (s *statement) page(columns []string, limit int) *statement {
	s.add("\norder by "+strings.Join(columns, ", ")+"\nlimit ?", limit)
	return s
}

// between limits a list that begins with the latest to a range of times, from inclusive
// to exclusive, and to the page after a row. Zero times mean no limit.
func (s *statement) between(at, id string, from, to, afterTime time.Time, afterID string) {
	first, last, after := s.dialect.First, s.dialect.Last, s.dialect.Last
	if !from.IsZero() {
		first = s.dialect.Time(from)
	}
	if !to.IsZero() {
		last = s.dialect.Time(to.Truncate(time.Microsecond).Add(-time.Microsecond))
	}
	if !afterTime.IsZero() {
		after = s.dialect.Time(afterTime)
	}
	s.where(at+" >= ? and "+at+" <= ?", first, last)
	// Its two columns have opposite directions, which comparisons of row values do
	// not support.
	s.where(at+" <= ? and ("+at+" < ? or "+id+" > ?)", after, after, afterID)
}

// moment scans a column into a time in UTC; null is the zero time.
type moment time.Time

func at(t *time.Time) *moment { return (*moment)(t) }

// Scan accepts the drivers' representations of a time. Text is that of Vitess, which sends a
// time so while it does not know the type of its column, as for a while after the table was
// made.
func (m *moment) Scan(src any) error {
	switch src := src.(type) {
	case nil:
		*m = moment{}
	case time.Time:
		*m = moment(src.UTC())
	case []byte:
		t, err := time.Parse(time.DateTime, string(src)) // also with a fraction
		if err != nil {
			return errors.New("a time is stored as text that is no time")
		}
		*m = moment(t)
	default:
		return fmt.Errorf("a time is stored as %T", src)
	}
	return nil
}

// SetTime sets the time without boxing it, where a driver can; the zero time is null.
func (m *moment) SetTime(t time.Time) { *m = moment(t.UTC()) }

// hash scans a column into a hash. An empty column gives zero: the row will be
// rewritten.
type hash [32]byte

// Scan accepts the drivers' representations of bytes.
func (h *hash) Scan(src any) error {
	sum, ok := src.([]byte)
	if !ok {
		return fmt.Errorf("a hash is stored as %T", src)
	}
	return h.ScanBytes(sum)
}

// ScanBytes sets the hash without boxing it, where a driver can.
func (h *hash) ScanBytes(sum []byte) error {
	if sum == nil {
		return errors.New("a hash is stored as null")
	}
	*h = hash{}
	copy(h[:], sum)
	return nil
}

// stateColumns are the columns of a resource's state s about its copy.
const stateColumns = `
    s.fetch_time, s.source_update_time, s.missing_since, coalesce(s.revision, 0),
    coalesce(s.generation > s.applied_generation, false)`

// scanWithState scans columns, followed by stateColumns.
func scanWithState(row Row, f *mirror.Freshness, columns ...any) error {
	return row.Scan(withState(f, columns...)...)
}

// withState adds what stateColumns are scanned into.
func withState(f *mirror.Freshness, columns ...any) []any {
	return append(columns, at(&f.FetchTime), at(&f.SourceUpdateTime), at(&f.MissingSince), &f.Revision, &f.Stale)
}

// lookUp joins each row with the one of a table whose key is given, or with nulls.
//
// Plans of joins depend on how many rows the server expects. One that assumes the columns
// of a key to be independent expects few, and would sort or merge a whole table instead of
// looking up a page. So Postgres gets no join: it cannot run a lateral subquery with a limit
// otherwise than by key, once for each row.
func (r *Reader) lookUp(table, as, on string) string {
	if r.dialect.Lateral {
		return "left join lateral (select * from " + table + " " + as + " where " + on + " limit 1) " + as + " on true\n"
	}
	return "left join " + table + " " + as + " on " + on + "\n"
}

// state looks up the state s of a resource. A missing state does not hide the copy.
func (r *Reader) state(of, room, kind, id string) string {
	return r.lookUp("mirror_resource_state", "s", onState(of, room, kind, id))
}

func onState(of, room, kind, id string) string {
	return onKey("s", of, room) + ` and s.kind = ` + kind + ` and s.resource_id = ` + id
}

// onKey is the condition that two rows are of one room.
func onKey(row, of, room string) string {
	return row + ".bucket = " + of + ".bucket and " + row + ".project_id = " + of + ".project_id and " + row +
		".room_id = " + room
}

func literal(kind mirror.Kind) string { return strconv.Itoa(int(kind)) }
