package mysql

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// table says how rows of a table are written. A row that is there already is
// overwritten in the columns that may change.
type table struct {
	name    string
	columns string // with commas
	// keep says what becomes of a column of a row that is there, where it is not
	// just that of the new one. Columns of the key have no say in it.
	key  int // how many of the columns, the first, are the key
	keep map[string]string
}

func (t table) width() int { return strings.Count(t.columns, ",") + 1 }

// sql is the statement for n rows.
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

// maxStatement bounds the bytes of the rows in one statement, long before any
// server's packet is full: the next may begin with a row that is as long again.
const maxStatement = 1 << 20

// write inserts rows, which are in key order, in statements that fit into a packet
// each. JSON (a json.RawMessage) that the server refuses is left out of its row,
// and lost is told of each.
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

// maxValues bounds the values of one statement; some servers take 65,535.
const maxValues = 8000

// sizeOf bounds what a row takes in the text of a statement from above: every byte
// may be escaped by another.
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
	lost func(row []any, why string)) error {
	if len(rows) == 1 && sizeOf(rows[0]) > s.connector.maxPacket.Load()-packetSlack {
		// The server would end the connection over it, time and again; see fit.
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
	// One by one: the statement has been undone, and nothing else.
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

// written is the JSON that a column holds; none reads as empty text, since what
// database/sql makes of null does not go into a json.RawMessage.
func written(data json.RawMessage) []byte {
	if len(data) == 0 {
		return nil
	}
	return data
}

func roomArgs(r mirror.Resource) []any {
	return []any{r.Bucket(), rawKey(r.Project), rawKey(r.Room)}
}
