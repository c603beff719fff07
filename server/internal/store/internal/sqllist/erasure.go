package sqllist

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// PersonalRows reads by the primary key.
func (r *Reader) PersonalRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	after []any, limit int,
) ([]store.PersonalRow, error) {
	s := r.personalRows(table, project, bucket, after, limit)
	return list(ctx, r, "search "+table.Name, s, func(row Row, out *store.PersonalRow) error {
		return r.scanPersonal(row, table, out)
	})
}

func (r *Reader) personalRows(table *store.PersonalTable, project mirror.ProjectID, bucket int16, after []any,
	limit int,
) *statement {
	var key, columns []string
	content := false
	for _, c := range table.Key {
		key = append(key, c.Name)
	}
	for _, c := range table.Columns {
		columns = append(columns, c.Name)
		content = content || c.Form == store.PersonalContent
	}
	columns = append(slices.Clone(key), columns...)
	if content {
		columns = append(columns, "size")
	}
	s := r.query("select "+strings.Join(columns, ", ")+"\nfrom "+table.Name+r.by("primary")).
		where("bucket = ?", bucket).
		where("project_id = ?", project)
	if after != nil {
		s.after(key, after...)
	}
	return s.page(key, limit)
}

func (r *Reader) scanPersonal(row Row, table *store.PersonalTable, out *store.PersonalRow) error {
	ids, numbers := make([]string, len(table.Key)), make([]int64, len(table.Key))
	out.Values = make([][]byte, len(table.Columns))
	var dest []any
	for i, c := range table.Key {
		if c.Number {
			dest = append(dest, &numbers[i])
		} else {
			dest = append(dest, &ids[i])
		}
	}
	packed := -1
	for i, c := range table.Columns {
		dest = append(dest, &out.Values[i])
		if c.Form == store.PersonalContent {
			packed = i
		}
	}
	var size int64
	if packed >= 0 {
		dest = append(dest, &size)
	}
	if err := row.Scan(dest...); err != nil {
		return err
	}
	for i, c := range table.Key {
		if c.Number {
			out.Key = append(out.Key, numbers[i])
		} else {
			out.Key = append(out.Key, ids[i])
		}
	}
	if packed >= 0 && out.Values[packed] != nil {
		// What is damaged names nobody. Verification finds it.
		out.Values[packed], _ = r.pack.Unpack(out.Values[packed], size)
	}
	return nil
}

// EraseRowSQL deletes a row of a table, or blanks its columns, by its key. Like the other
// statements of erasures, which are the same for all engines, its placeholders are question
// marks; see [Numbered].
func EraseRowSQL(table *store.PersonalTable, whole bool) string {
	do := "delete from " + table.Name
	if !whole {
		var set []string
		for _, c := range table.Blanks() {
			set = append(set, c.Name+" = "+c.Blank)
		}
		do = "update " + table.Name + " set " + strings.Join(set, ", ")
	}
	text := do + "\nwhere bucket = ? and project_id = ?"
	for _, c := range table.Key {
		text += " and " + c.Name + " = ?"
	}
	return text
}

// LockRoomSQL reads whether a room lives, and keeps that so until the transaction ends.
const LockRoomSQL = `select epoch, delete_time from mirror_room
where bucket = ? and project_id = ? and room_id = ?
for update`

// BlankRoomSQL takes the JSON of a deleted room.
const BlankRoomSQL = `update mirror_room
set source_json = '` + store.Purged + `', content_sha256 = '', data = '` + store.Purged + `', data_problem = ''
where bucket = ? and project_id = ? and room_id = ? and source_json <> '` + store.Purged + `'`

// DeadHeadSQL reads the row that tells whether a resource lives.
func DeadHeadSQL(kind mirror.Kind) string {
	tables, key := store.DeadTables(kind)
	epoch, deleted := "epoch", "0 = 1"
	if of := store.ItemKindOf(mirror.Resource{Kind: kind}); of != nil {
		deleted = "delete_time is not null"
		if !of.InRoom() {
			epoch = "0"
		}
	}
	return "select " + epoch + ", " + deleted + "\nfrom " + tables[len(tables)-1] + "\nwhere " +
		strings.Join(key, " = ? and ") + " = ?\nlimit 1"
}

// Numbered returns a statement with the placeholders $1, $2 and so on.
func Numbered(text string) string {
	var out strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(text, "?")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString("$" + strconv.Itoa(n))
		text = after
	}
}

// DeadKey returns the arguments for the key of a resource, as [store.DeadTables] lists it;
// key converts an id.
func DeadKey(r mirror.Resource, key func(id string) any) []any {
	args := []any{r.Bucket(), key(string(r.Project))}
	switch of := store.ItemKindOf(r); {
	case of != nil && of.InRoom():
		return append(args, key(string(r.Room)), key(r.ID))
	case of != nil:
		return append(args, key(r.ID))
	case r.Kind == mirror.KindRoom, r.Kind == mirror.KindActiveUsers:
		return append(args, key(string(r.Room)))
	default:
		return append(args, key(string(r.Room)), int16(r.Kind), key(r.ID))
	}
}
