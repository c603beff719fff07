package sqllist

import (
	"context"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Stored reads by key.
func (r *Reader) Stored(ctx context.Context, of mirror.Resource) (mirror.Stored, error) {
	what := "read what is stored of a " + of.Kind.String()
	if of.Kind == mirror.KindRoom {
		s := r.query("select t.source_json, t.content_sha256, t.data, t.data_problem\nfrom mirror_room t\n").
			whereRoom("t", of).where("t.delete_time is null")
		return one(ctx, r, what, s, func(row Row, out *mirror.Stored) error {
			return row.Scan(&out.Content, (*hash)(&out.SHA256), &out.Data, &out.DataProblem)
		})
	}
	s := r.query("select t.content, t.size, t.content_sha256, t.derive_version, t.data, t.data_problem, t.plain_text\n"+
		"from mirror_document t\n"+livingRoom).
		whereRoom("t", of).where("t.kind = ? and t.resource_id = ?", of.Kind, of.ID)
	return one(ctx, r, what, s, func(row Row, out *mirror.Stored) error {
		var packed []byte
		var size int64
		err := row.Scan(&packed, &size, (*hash)(&out.SHA256), &out.DeriveVersion, &out.Data, &out.DataProblem, &out.Text)
		if out.Content, _ = r.pack.Unpack(packed, size); out.Content == nil {
			out.Content = packed // damaged; the hash will show it
		}
		return err
	})
}

// livingRoom joins a row t with its room, if that lives in the same incarnation.
const livingRoom = `join mirror_room r
    on r.bucket = t.bucket and r.project_id = t.project_id and r.room_id = t.room_id
    and r.epoch = t.epoch and r.delete_time is null
`

// StoredItem reads the row of an item by key, and then its other rows, table by table.
func (r *Reader) StoredItem(ctx context.Context, of mirror.Resource) (store.Item, error) {
	kind := store.ItemKindOf(of)
	what := "read the rows of a " + of.Kind.String()
	query := func(table store.ItemTable, first, join string) *statement {
		names := make([]string, len(table.Columns))
		for i, c := range table.Columns {
			names[i] = "t." + c.Name
		}
		return r.query("select "+first+strings.Join(names, ", ")+"\nfrom "+table.Name+" t\n"+join).
			where("t.bucket = ? and t.project_id = ? and t."+kind.ID+" = ?", of.Bucket(), of.Project, of.ID).
			whereIf(kind.InRoom(), "t.room_id = ?", of.Room)
	}
	room := ""
	if kind.InRoom() {
		room = livingRoom
	}
	head := query(kind.Head, "t.content_sha256, ", room).where("t.delete_time is null")
	item, err := one(ctx, r, what, head, func(row Row, item *store.Item) (err error) {
		item.Head, err = scanColumns(row, kind.Head.Columns, (*hash)(&item.SHA256))
		return err
	})
	if err != nil {
		return store.Item{}, err
	}
	item.ID, item.Parts = of.ID, make([][]store.Row, len(kind.Parts))
	for i, part := range kind.Parts {
		key, after := make([]string, part.Key), make([]any, part.Key)
		for c := range key {
			key[c], after[c] = "t."+part.Columns[c].Name, "" // no id is empty
		}
		item.Parts[i], err = inPieces(r, func(last *store.Row) ([]store.Row, error) {
			s := query(part, "", "")
			if r.dialect.Piece > 0 {
				if last != nil {
					copy(after, last.Values)
				}
				s.after(key, after...).page(key, r.dialect.Piece)
			}
			return list(ctx, r, what, s, func(row Row, out *store.Row) (err error) {
				out.Values, err = scanColumns(row, part.Columns)
				return err
			})
		})
		if err != nil {
			return store.Item{}, err
		}
	}
	return item, nil
}

// scanColumns scans leading columns, and returns the values of the others.
func scanColumns(row Row, columns []store.Column, into ...any) ([]any, error) {
	values := make([]func() any, len(columns))
	for i, c := range columns {
		switch c.Type {
		case store.ColumnBytes, store.ColumnJSON:
			into, values[i] = column(into, new([]byte))
		case store.ColumnInt:
			into, values[i] = column(into, new(int64))
		case store.ColumnBool:
			into, values[i] = column(into, new(bool))
		case store.ColumnTime:
			t := new(time.Time)
			into, values[i] = append(into, at(t)), func() any { return *t }
		default:
			into, values[i] = column(into, new(string))
		}
	}
	if err := row.Scan(into...); err != nil {
		return nil, err
	}
	out := make([]any, len(columns))
	for i := range out {
		out[i] = values[i]()
	}
	return out, nil
}

// column adds a place for a column, and returns what was scanned into it.
func column[T any](into []any, place *T) ([]any, func() any) {
	return append(into, place), func() any { return *place }
}
