package mysql

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// table describes how to write rows of a table. An existing row is overwritten in
// the columns that may change.
type table struct {
	name    string
	columns string // separated by commas
	// keep is the expression for a column of an existing row, if it is not simply
	// the new value. It does not apply to key columns.
	key  int // the number of leading columns that are the key
	keep map[string]string
}

// note returns a function for [Store.write] that records in a column of the row why
// its JSON was left out.
func (t table) note(column string) func(row []any, why string) {
	at := slices.Index(strings.Split(t.columns, ", "), column)
	return func(row []any, why string) { row[at] = why }
}

func (t table) width() int { return strings.Count(t.columns, ",") + 1 }

// sql returns the statement for n rows.
func (t table) sql(n int) string {
	var set []string
	for i, column := range strings.Split(t.columns, ", ") {
		switch how, ok := t.keep[column]; {
		case ok:
			set = append(set, column+" = "+how)
		case i >= t.key:
			set = append(set, column+" = values("+column+")")
		}
	}
	if len(set) == 0 {
		set = []string{"bucket = values(bucket)"} // not "insert ignore", see insertEventsSQL
	}
	return "insert into " + t.name + " (\n    " + t.columns + "\n)\nvalues " + places(n, t.width()) +
		"\non duplicate key update " + strings.Join(set, ", ")
}

// maxStatement is the maximum size of the rows in one statement in bytes, well
// below any server's packet: one more row may be as long again.
const maxStatement = 1 << 20

// write inserts rows, which must be in key order, in statements that fit into a
// packet. It leaves out JSON (a json.RawMessage) that the server refuses and calls
// lost for each such row.
func (s *Store) write(ctx context.Context, q *queries, t table, rows [][]any, lost func(row []any, why string)) error {
	limit := min(maxStatement, s.connector.maxPacket.Load()-packetSlack)
	begin, size := 0, int64(0)
	flush := func(end int) error {
		piece := rows[begin:end]
		begin, size = end, 0
		if len(piece) == 0 {
			return nil
		}
		return s.writePiece(ctx, q, t, piece, lost)
	}
	for i, row := range rows {
		n := sizeOf(row)
		if i > begin && (size+n > limit || (i-begin+1)*t.width() > maxValues) {
			if err := flush(i); err != nil {
				return err
			}
		}
		size += n
	}
	return flush(len(rows))
}

// maxValues is the maximum number of values of one statement; some servers accept
// 65,535.
const maxValues = 8000

// sizeOf returns an upper bound of a row's length in the text of a statement: every
// byte may need an escape.
func sizeOf(row []any) int64 {
	n := int64(32 * len(row))
	for _, v := range row {
		switch v := v.(type) {
		case []byte:
			n += 2 * int64(len(v))
		case json.RawMessage:
			n += 2 * int64(len(v))
		case string:
			n += 2 * int64(len(v))
		}
	}
	return n
}

func (s *Store) writePiece(ctx context.Context, q *queries, t table, rows [][]any,
	lost func(row []any, why string),
) error {
	if len(rows) == 1 && sizeOf(rows[0]) > s.connector.maxPacket.Load()-packetSlack {
		// The server would close the connection on every attempt; see fit.
		var content []byte
		var data json.RawMessage
		for _, v := range rows[0] {
			switch v := v.(type) {
			case []byte:
				content = append(content, v...)
			case string:
				content = append(content, v...)
			case json.RawMessage:
				data = append(data, v...)
			}
		}
		without, err := s.fit(content, data, "")
		if err != nil {
			return err
		}
		if without {
			withoutJSON(rows[0], tooLargeData, lost)
		}
	}
	args := make([]any, 0, len(rows)*t.width())
	for _, row := range rows {
		args = append(args, row...)
	}
	_, err := q.db.ExecContext(ctx, t.sql(len(rows)), args...)
	switch {
	case err == nil || !refused(err) || !slices.ContainsFunc(rows, hasJSON):
		return err
	case len(rows) == 1:
		withoutJSON(rows[0], problem(err), lost)
		return s.writePiece(ctx, q, t, rows, lost)
	}
	// Row by row: only the statement has been undone.
	for i := range rows {
		if err := s.writePiece(ctx, q, t, rows[i:i+1], lost); err != nil {
			return err
		}
	}
	return nil
}

func hasJSON(row []any) bool {
	return slices.ContainsFunc(row, func(v any) bool { data, ok := v.(json.RawMessage); return ok && data != nil })
}

func withoutJSON(row []any, why string, lost func(row []any, why string)) {
	for i, v := range row {
		if _, ok := v.(json.RawMessage); ok {
			row[i] = json.RawMessage(nil)
		}
	}
	if lost != nil {
		lost(row, why)
	}
}

func roomArgs(r mirror.Resource) []any {
	return []any{r.Bucket(), rawKey(r.Project), rawKey(r.Room)}
}
