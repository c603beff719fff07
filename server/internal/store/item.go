package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ColumnType says which values a column of an [ItemTable] holds.
type ColumnType int

// The types of column.
const (
	// ColumnID holds a string that is compared by its bytes.
	ColumnID ColumnType = iota
	// ColumnText holds a string for people.
	ColumnText
	// ColumnBytes holds bytes.
	ColumnBytes
	// ColumnJSON holds JSON for queries as []byte; nil is null.
	ColumnJSON
	// ColumnTime holds a time.Time; the zero time is null.
	ColumnTime
	// ColumnInt holds an int64.
	ColumnInt
	// ColumnBool holds a bool.
	ColumnBool
)

// Column is a column of an [ItemTable].
type Column struct {
	Name string
	Type ColumnType
}

const (
	// sourceColumn is the column of a head that the others are made from.
	sourceColumn = "source_json"
	// problemColumn is the column of a head that says which JSON is not stored.
	problemColumn = "data_problem"
	// indexedColumn is the column of a head with its hash as of the rows of tables that are
	// an Index.
	indexedColumn = "terms_sha256"
)

// ItemTable is a table with rows of items.
type ItemTable struct {
	Name string
	// Columns follow the columns of the item's key.
	Columns []Column
	// Key is how many of the Columns complete the primary key. They are ids.
	Key int
	// Refused precedes the reason why the JSON of a row is not stored.
	Refused string
	// Index means that only lists read the rows. Versions of the service that do not know
	// the table leave them as they are, so they are those of the item only if its head has
	// the same hash in the indexedColumn.
	Index bool
}

// HasDigest reports whether rows can change without changing their key.
func (t ItemTable) HasDigest() bool { return t.Key < len(t.Columns) }

// ProblemColumn returns the index of the column for what is not stored; -1 if there
// is none.
func (t ItemTable) ProblemColumn() int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == problemColumn })
}

// ItemKind describes how the resources of a kind are stored if each has a hash of
// its own: one row in Head, and any number in each of Parts. It is all that an
// engine knows of such a kind.
type ItemKind struct {
	Kind mirror.Kind
	// ID is the name of the column for the id. It is the last one of the item's key.
	ID    string
	Head  ItemTable
	Parts []ItemTable
	// FromList means that a list stores items that are not known yet. Otherwise each
	// is fetched on its own.
	FromList bool
	// Guarded means that a list that lacks too many items is not believed.
	Guarded bool
}

// InRoom reports whether the items belong to one incarnation of their room.
func (k *ItemKind) InRoom() bool { return k.Kind.Traits().NeedsRoom }

// Scope lists the columns before the id in the key of the item's tables.
func (k *ItemKind) Scope() []string {
	if k.InRoom() {
		return []string{"bucket", "project_id", "room_id"}
	}
	return []string{"bucket", "project_id"}
}

// noEpoch is the only incarnation of an item that is in no room.
const noEpoch = 1

// Epoch returns the incarnation in which items are stored under the lease.
func (k *ItemKind) Epoch(lease mirror.Lease) int64 {
	if k.InRoom() {
		return lease.Epoch
	}
	return noEpoch
}

var itemKinds = map[mirror.Kind]*ItemKind{mirror.KindThread: threadKind, mirror.KindGroup: groupKind}

// ItemKinds lists the kinds of items, in key order.
func ItemKinds() []*ItemKind {
	var out []*ItemKind
	for _, k := range mirror.Kinds() {
		if kind := itemKinds[k]; kind != nil {
			out = append(out, kind)
		}
	}
	return out
}

// ItemKindOf returns the kind of an item or a list of items, nil if the resource is
// neither.
func ItemKindOf(r mirror.Resource) *ItemKind { return itemKinds[r.Kind] }

// Item is a resource as it is to be stored.
type Item struct {
	ID string
	// SHA256 decides whether a stored copy is the same.
	SHA256 [32]byte
	// Head are the values of its row, by column.
	Head []any
	// Parts are its other rows, by table.
	Parts [][]Row
}

// Row is a row of one of an item's Parts.
type Row struct {
	// Values are by column.
	Values []any
	// Digest is stored with the row and changes with it.
	Digest string
}

// newItem returns an item whose parts hold the given values.
func newItem(id string, sum [32]byte, head []any, parts ...[][]any) Item {
	item := Item{ID: id, SHA256: sum, Head: head, Parts: make([][]Row, len(parts))}
	for i, rows := range parts {
		for _, values := range rows {
			item.Parts[i] = append(item.Parts[i], Row{Values: values, Digest: digest(values)})
		}
	}
	return item
}

// Rows returns the number of rows besides the head.
func (i Item) Rows() (n int) {
	for _, rows := range i.Parts {
		n += len(rows)
	}
	return n
}

// digestLength is the length of a digest in bytes.
const digestLength = 16

// digest returns a hash of values. Two versions of a row never have the same one.
func digest(values []any) string {
	h := sha256.New()
	var head [9]byte
	put := func(kind byte, n int64, content string) {
		head[0] = kind
		binary.BigEndian.PutUint64(head[1:], uint64(n)) //nolint:gosec // the bits are enough
		h.Write(head[:])
		h.Write([]byte(content))
	}
	for _, v := range values {
		switch v := v.(type) {
		case string:
			put('s', int64(len(v)), v)
		case []byte:
			if v == nil {
				put('n', 0, "")
			} else {
				put('b', int64(len(v)), string(v))
			}
		case time.Time:
			if v.IsZero() {
				put('n', 0, "")
			} else {
				put('t', v.UnixMicro(), "")
			}
		case int64:
			put('i', v, "")
		case bool:
			put('f', map[bool]int64{true: 1}[v], "")
		}
	}
	return string(h.Sum(nil)[:digestLength])
}

// Without returns the item without the JSON of each row for which refusal returns a
// reason. The row of the item says so.
func (i Item) Without(kind *ItemKind, refusal func(values ...[]byte) (string, error)) (Item, error) {
	problem := kind.Head.ProblemColumn()
	i.Head, i.Parts = slices.Clone(i.Head), slices.Clone(i.Parts)
	clean := func(table ItemTable, values []any) ([]any, error) {
		var list [][]byte
		for c, column := range table.Columns {
			if raw, _ := values[c].([]byte); column.Type == ColumnJSON && raw != nil {
				list = append(list, raw)
			}
		}
		if len(list) == 0 {
			return values, nil
		}
		why, err := refusal(list...)
		if err != nil || why == "" {
			return values, err
		}
		values = slices.Clone(values)
		for c, column := range table.Columns {
			if column.Type == ColumnJSON {
				values[c] = []byte(nil)
			}
		}
		if problem >= 0 {
			if table.Name == kind.Head.Name {
				i.Head = values
			}
			problems, _ := i.Head[problem].(string)
			i.Head[problem] = AddProblem(problems, table.Refused+why)
		}
		return values, nil
	}
	var err error
	if i.Head, err = clean(kind.Head, i.Head); err != nil {
		return i, err
	}
	for p, table := range kind.Parts {
		i.Parts[p] = slices.Clone(i.Parts[p])
		for n, row := range i.Parts[p] {
			values, err := clean(table, row.Values)
			if err != nil {
				return i, err
			}
			i.Parts[p][n] = Row{Values: values, Digest: digest(values)}
		}
	}
	return i, nil
}

// AddProblem adds a problem to those of a row, unless it is among them.
func AddProblem(problems, problem string) string {
	if strings.Contains(problems, problem) {
		return problems
	}
	return strings.TrimPrefix(problems+"; "+problem, "; ")
}

// ItemCopy identifies the stored copy of an item; the zero ItemCopy means none.
type ItemCopy struct {
	Epoch   int64
	SHA256  [32]byte
	Deleted bool
}

// CopyOf returns the copy with the given columns.
func CopyOf(epoch int64, sum []byte, deleted bool) ItemCopy {
	c := ItemCopy{Epoch: epoch, Deleted: deleted}
	copy(c.SHA256[:], sum)
	return c
}

// lives reports whether the item exists in the epoch.
func (c ItemCopy) lives(epoch int64) bool { return c.Epoch == epoch && !c.Deleted }

// SameItem reports whether the stored copy is the fetched item.
func SameItem(kind *ItemKind, stored ItemCopy, lease mirror.Lease, sum [32]byte) bool {
	return stored == ItemCopy{Epoch: kind.Epoch(lease), SHA256: sum}
}

// PlanItem decides about a fetched item, given its hash. It is written if there is a
// Change.
func PlanItem(kind *ItemKind, s State, stored ItemCopy, lease mirror.Lease, sum [32]byte, fetchTime, now time.Time,
	settle time.Duration,
) Plan {
	p := Plan{State: s.Succeed(lease, fetchTime, now, settle), Epoch: lease.Epoch}
	if !SameItem(kind, stored, lease, sum) {
		p.Change = mirror.ChangeUpserted
	}
	return p
}

// PlanMissingItem decides about the 404 of an item whose room exists. A Change makes
// it a tombstone.
func PlanMissingItem(kind *ItemKind, s State, stored ItemCopy, lease mirror.Lease, now time.Time,
	settle time.Duration,
) Plan {
	epoch := kind.Epoch(lease)
	deleted := s.DeleteGeneration != 0 || stored.Epoch == epoch && stored.Deleted
	p := Plan{State: s.Vanish(lease, now, settle, deleted), Epoch: lease.Epoch}
	if deleted && stored.lives(epoch) {
		p.Change = mirror.ChangeDeleted
	}
	return p
}

// Source returns the copy of the item that its other columns are made from.
func (i Item) Source(kind *ItemKind) []byte {
	source, _ := i.Head[slices.Index(kind.Head.Columns, Column{sourceColumn, ColumnBytes})].([]byte)
	return source
}

// Differs returns how an item as stored differs from what is made of its source, or ""
// if it does not. JSON that the database refused is no difference.
func Differs(kind *ItemKind, want, stored Item) string {
	problems := ""
	if c := kind.Head.ProblemColumn(); c >= 0 {
		problems, _ = stored.Head[c].(string)
	}
	if what := kind.Head.differs(want.Head, stored.Head, problems); what != "" {
		return what
	}
	for p, table := range kind.Parts {
		if table.Index && !stored.indexed(kind, problems) {
			continue
		}
		rows, wanted := make(map[string][]any), make(map[string]bool)
		for _, row := range stored.Parts[p] {
			rows[table.keyOf(row)] = row.Values
		}
		for _, row := range want.Parts[p] {
			key := table.keyOf(row)
			wanted[key] = true
			if rows[key] == nil {
				return "a row of " + table.Name + " is missing"
			}
			if what := table.differs(row.Values, rows[key], problems); what != "" {
				return what
			}
		}
		if len(rows) > len(wanted) {
			return "a row of " + table.Name + " is surplus"
		}
	}
	return ""
}

// indexed reports whether rows of an index have to be those of the item. They need not if an
// earlier version of the service has written it, which lists know, or if the JSON that they
// are made from is not stored: then lists do not find it.
func (i Item) indexed(kind *ItemKind, problems string) bool {
	as, _ := i.Head[slices.Index(kind.Head.Columns, Column{indexedColumn, ColumnBytes})].([]byte)
	return bytes.Equal(as, i.SHA256[:]) && !strings.Contains(problems, kind.Head.Refused)
}

// keyOf returns the key of a row among those of its item.
func (t ItemTable) keyOf(row Row) string {
	key := make([]string, t.Key)
	for c := range key {
		key[c], _ = row.Values[c].(string)
	}
	return joinKey(key...)
}

// differs returns how a row as stored differs, or "". JSON may be missing if problems,
// which are those of the item, have a reason. They are not compared, and neither is what
// tells whether the item is indexed.
func (t ItemTable) differs(want, stored []any, problems string) string {
	for c, column := range t.Columns {
		data, isBytes := stored[c].([]byte)
		refused := isBytes && data == nil && t.Refused != "" && strings.Contains(problems, t.Refused)
		told := column.Name == problemColumn || column.Name == indexedColumn
		if !told && !refused && !column.same(want[c], stored[c]) {
			return "the column " + column.Name + " of " + t.Name + " does not match the copy"
		}
	}
	return ""
}

// same reports whether a value is as stored. The database may spell JSON in another way.
func (c Column) same(want, stored any) bool {
	switch w := want.(type) {
	case []byte:
		s, _ := stored.([]byte)
		return bytes.Equal(w, s) || c.Type == ColumnJSON && len(w) > 0 && len(s) > 0 && rawjson.SameStored(w, s)
	case time.Time:
		s, _ := stored.(time.Time)
		return w.Truncate(time.Microsecond).Equal(s.Truncate(time.Microsecond))
	default:
		return want == stored
	}
}

// StoredRows are the digests of the stored rows of some items, by table and key.
type StoredRows []map[string]string

// NewStoredRows returns an empty StoredRows.
func NewStoredRows(kind *ItemKind) StoredRows {
	s := make(StoredRows, len(kind.Parts))
	for i := range s {
		s[i] = make(map[string]string)
	}
	return s
}

// Add adds a row of a table, by its key with the item's id in front.
func (s StoredRows) Add(table int, key []string, digest string) { s[table][joinKey(key...)] = digest }

// joinKey joins ids, which hold no NUL.
func joinKey(ids ...string) string { return strings.Join(ids, "\x00") }

// ItemRow is a row of an item.
type ItemRow struct {
	Item string
	Row
}

// Difference is what turns stored rows into those of some items, by table.
type Difference struct {
	// Write are rows that are new or changed.
	Write [][]ItemRow
	// Delete are the keys of surplus rows, with the item's id in front.
	Delete [][][]string
}

// Diff compares the rows of items with all that is stored of them.
func Diff(kind *ItemKind, stored StoredRows, items []Item) Difference {
	d := Difference{Write: make([][]ItemRow, len(kind.Parts)), Delete: make([][][]string, len(kind.Parts))}
	for p, table := range kind.Parts {
		wanted := make(map[string]bool)
		for _, item := range items {
			for _, row := range item.Parts[p] {
				id := joinKey(item.ID, table.keyOf(row))
				wanted[id] = true
				if was, ok := stored[p][id]; !ok || table.HasDigest() && was != row.Digest {
					d.Write[p] = append(d.Write[p], ItemRow{Item: item.ID, Row: row})
				}
			}
		}
		for id := range stored[p] {
			if !wanted[id] {
				d.Delete[p] = append(d.Delete[p], strings.Split(id, "\x00"))
			}
		}
		slices.SortFunc(d.Delete[p], slices.Compare)
	}
	return d
}

// Rows returns the number of rows that differ.
func (d Difference) Rows() (n int) {
	for p := range d.Write {
		n += len(d.Write[p]) + len(d.Delete[p])
	}
	return n
}

// First returns at most n rows of the difference.
func (d Difference) First(n int) Difference {
	out := Difference{Write: make([][]ItemRow, len(d.Write)), Delete: make([][][]string, len(d.Delete))}
	for p := range d.Write {
		w := min(n, len(d.Write[p]))
		out.Write[p], n = d.Write[p][:w], n-w
		r := min(n, len(d.Delete[p]))
		out.Delete[p], n = d.Delete[p][:r], n-r
	}
	return out
}
