// Package sqllist reads what is mirrored: each list of the store, and each single
// row with the same columns, once for every engine. An engine gives a [Dialect]
// and a way to run a statement; the methods of the [Reader] are then its own.
//
// A list has few texts, because a server plans each text by itself. A condition is
// left out of the text only where another index serves the rest. All others are
// in every text, and an argument says whether they select. Texts are constants of
// this package; values are always arguments.
package sqllist

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/pack"
)

// Dialect is what statements and arguments depend on.
type Dialect struct {
	// Numbered says that placeholders are $1, $2 and so on, and not question marks.
	Numbered bool
	// RowValues says that the server looks up a comparison of row values in an index.
	RowValues bool
	// Contains is the condition that a JSON object has all members of an argument.
	// It has one verb, for the column.
	Contains string
	// Key makes an argument of an id, and Time of a time that is not zero.
	Key  func(id string) any
	Time func(t time.Time) any
	// No time in the database is before First or after Last.
	First, Last any
	// DocumentKeys is a table k with the columns n, bucket, project_id, room_id, kind,
	// resource_id, deleted and have: one row for each read, numbered from 0.
	DocumentKeys func(reads []store.DocumentRead) (table string, args []any)
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
}

// NewReader returns a Reader. run calls scan for each row of a query, and classify
// turns an error of the driver into one of the contract.
func NewReader(
	dialect Dialect, run func(ctx context.Context, text string, args []any, scan func(Row) error) error,
	classify func(ctx context.Context, err error) error, codec *pack.Codec,
) *Reader {
	return &Reader{dialect: dialect, run: run, classify: classify, pack: codec}
}

// list reads all rows of a statement.
func list[T any](ctx context.Context, r *Reader, what string, s *statement, scan func(Row, *T) error) ([]T, error) {
	var out []T
	err := r.run(ctx, s.text.String(), s.args, func(row Row) error {
		out = append(out, *new(T))
		return scan(row, &out[len(out)-1])
	})
	if err != nil {
		return nil, r.classify(ctx, fmt.Errorf("%s: %w", what, err))
	}
	return out, nil
}

// one reads the only row of a statement; store.ErrNotFound without one.
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

// statement is the text of a query, and its arguments in the order of their
// placeholders.
type statement struct {
	dialect *Dialect
	text    strings.Builder
	args    []any
	// places counts the placeholders, and conditions those of the where clause.
	places, conditions int
}

// query begins a statement. Placeholders are question marks, whatever the dialect.
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

// jsonText is an argument for a JSON column, and not an id.
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

// whereIf adds a condition if it is asked for. It doubles the number of texts.
func (s *statement) whereIf(asked bool, text string, args ...any) *statement {
	if asked {
		s.where(text, args...)
	}
	return s
}

// whereID selects by an id if there is one, and walks the index that begins with
// it, which does not have rows without one. It doubles the number of texts.
func (s *statement) whereID(column, id string) *statement {
	return s.whereIf(id != "", column+" = ? and "+column+" <> ''", id)
}

// narrow selects by a value unless it is empty, with one text for both.
func (s *statement) narrow(column, value string) *statement {
	return s.where("(? = '' or "+column+" = ?)", value, value)
}

// after selects what comes behind the row with the values in the order of the
// columns. Values that are less than all others select everything.
func (s *statement) after(columns []string, values ...any) *statement {
	if s.dialect.RowValues {
		return s.where("("+strings.Join(columns, ", ")+") > (?"+strings.Repeat(", ?", len(columns)-1)+")", values...)
	}
	text, args := behind(columns, values)
	return s.where(text, args...)
}

// behind compares rows column by column, as those servers can look it up that do
// not look up a comparison of row values.
func behind(columns []string, values []any) (string, []any) {
	c, v := columns[0], values[0]
	if len(columns) == 1 {
		return c + " > ?", []any{v}
	}
	text, args := behind(columns[1:], values[1:])
	return c + " >= ? and (" + c + " > ? or " + text + ")", append([]any{v, v}, args...)
}

// page orders a list and ends it.
func (s *statement) page(columns []string, limit int) *statement {
	s.add("\norder by "+strings.Join(columns, ", ")+"\nlimit ?", limit)
	return s
}

// latestFirst bounds a list of what happened from one time, inclusive, to another,
// exclusive, and gives the page behind a row. Zero times are no bounds.
func (s *statement) latestFirst(at, id string, from, to, afterTime time.Time, afterID string, limit int) *statement {
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
	// Its two halves go in opposite directions, which no comparison of row values does.
	s.where(at+" <= ? and ("+at+" < ? or "+id+" > ?)", after, after, afterID)
	return s.page([]string{at + " desc", id}, limit)
}

// moment scans a column into a time in UTC; null is the zero time.
type moment time.Time

func at(t *time.Time) *moment { return (*moment)(t) }

// Scan takes what the drivers make of a time.
func (m *moment) Scan(src any) error {
	switch src := src.(type) {
	case nil:
		*m = moment{}
	case time.Time:
		*m = moment(src.UTC())
	default:
		return fmt.Errorf("a time is stored as %T", src)
	}
	return nil
}

// hash scans a column into a hash. An empty one is zero: it is to be written anew.
type hash [32]byte

// Scan takes what the drivers make of bytes.
func (h *hash) Scan(src any) error {
	sum, ok := src.([]byte)
	if !ok {
		return fmt.Errorf("a hash is stored as %T", src)
	}
	*h = hash{}
	copy(h[:], sum)
	return nil
}

// stateColumns are what the state s of a resource tells about its copy.
const stateColumns = `
    s.fetch_time, s.source_update_time, s.missing_since, coalesce(s.revision, 0),
    coalesce(s.generation > s.applied_generation, false)`

// scanWithState scans columns, and stateColumns behind them.
func scanWithState(row Row, f *mirror.Freshness, columns ...any) error {
	return row.Scan(append(columns, at(&f.FetchTime), at(&f.SourceUpdateTime), at(&f.MissingSince), &f.Revision,
		&f.Stale)...)
}

// joinState joins the state of a resource. It does so from the left, for a copy
// must not hide behind its state.
func joinState(of, kind, id string) string {
	return `left join mirror_resource_state s
    on s.bucket = ` + of + `.bucket and s.project_id = ` + of + `.project_id and s.room_id = ` + of + `.room_id
    and s.kind = ` + kind + ` and s.resource_id = ` + id + "\n"
}

func literal(kind mirror.Kind) string { return strconv.Itoa(int(kind)) }
