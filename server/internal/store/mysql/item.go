package mysql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// itemSQL holds the statements about items of a kind, which follow from its tables.
// Their first parameters are the columns of kind.Scope, unless they set something.
type itemSQL struct {
	kind *store.ItemKind
	head table
	// parts are by table of kind.Parts.
	parts []table
	// problem is the index of the head's column for what is not stored; -1 if there is
	// none.
	problem int

	copyOf, copies, distrust, tombstone, note string
}

var items = itemStatements()

func itemStatements() map[mirror.Kind]*itemSQL {
	out := make(map[mirror.Kind]*itemSQL)
	for _, kind := range store.ItemKinds() {
		out[kind.Kind] = newItemSQL(kind)
	}
	return out
}

func newItemSQL(kind *store.ItemKind) *itemSQL {
	scope := kind.Scope()
	in := strings.Join(scope, " = ? and ") + " = ?"
	one := in + " and " + kind.ID + " = ?"
	columns := append(slices.Clone(scope), kind.ID)
	epoch, shared := "1", " lock in share mode"
	from := "mirror_room r\nleft join " + kind.Head.Name + " h\n" +
		"    on h.bucket = r.bucket and h.project_id = r.project_id and h.room_id = r.room_id and h." +
		kind.ID + " = ?\nwhere r.bucket = ? and r.project_id = ? and r.room_id = ? and r.delete_time is null"
	if kind.InRoom() {
		columns = append(columns, "epoch")
		epoch = "epoch"
	} else {
		from, shared = kind.Head.Name+"\nwhere "+one, ""
	}
	columns = append(columns, "content_sha256")
	for _, column := range kind.Head.Columns {
		columns = append(columns, column.Name)
	}
	problem := kind.Head.ProblemColumn()
	if problem >= 0 {
		problem += len(columns) - len(kind.Head.Columns)
	}
	s := &itemSQL{
		kind: kind, problem: problem,
		head: table{
			name: kind.Head.Name, columns: strings.Join(append(columns, "delete_time"), ", "), key: len(scope) + 1,
		},
		copies: "select " + kind.ID + ", " + epoch + ", content_sha256, delete_time is not null\nfrom " + kind.Head.Name +
			"\nwhere " + in + " and " + kind.ID + " > ?\norder by " + kind.ID + "\nlimit ?",
		copyOf:    "select 1, 1, content_sha256, delete_time is not null\nfrom " + from + shared,
		distrust:  "update " + kind.Head.Name + " set content_sha256 = ''\nwhere " + one,
		tombstone: "update " + kind.Head.Name + " set delete_time = ?\nwhere " + one,
		note: "update " + kind.Head.Name + "\nset data_problem = if(data_problem = '', ?, concat(data_problem, '; ', ?))" +
			"\nwhere " + one,
	}
	if kind.InRoom() {
		s.copyOf = "select r.epoch, h.epoch, h.content_sha256, h.delete_time is not null\nfrom " + from + shared
	}
	for _, part := range kind.Parts {
		columns := append(slices.Clone(scope), kind.ID)
		for _, column := range part.Columns {
			columns = append(columns, column.Name)
		}
		if part.HasDigest() {
			columns = append(columns, "digest")
		}
		s.parts = append(s.parts, table{
			name: part.Name, columns: strings.Join(columns, ", "), key: len(scope) + 1 + part.Key,
		})
	}
	return s
}

// keyOf lists the columns that are the key of a row of a part within its scope.
func (s *itemSQL) keyOf(part int) []string {
	t := s.kind.Parts[part]
	columns := []string{s.kind.ID}
	for _, column := range t.Columns[:t.Key] {
		columns = append(columns, column.Name)
	}
	return columns
}

// piece ends a statement about a piece of the rows of a part, in key order.
func (s *itemSQL) piece(part int) string {
	return "\norder by " + strings.Join(s.keyOf(part), ", ") + "\nlimit ?"
}

// selectSQL reads the keys and digests of the rows of a part that match a condition.
func (s *itemSQL) selectSQL(part int, condition string) string {
	t, columns := s.kind.Parts[part], s.keyOf(part)
	if t.HasDigest() {
		columns = append(columns, "digest")
	}
	return "select " + strings.Join(columns, ", ") + "\nfrom " + t.Name + "\nwhere " +
		strings.Join(s.kind.Scope(), " = ? and ") + " = ? and " + condition + s.piece(part)
}

// storedSQL reads the keys and digests of the rows of n items.
func (s *itemSQL) storedSQL(part, n int) string {
	return s.selectSQL(part, s.kind.ID+" in ("+repeat("?", n)+")")
}

// restSQL reads those of one item after one of its rows.
func (s *itemSQL) restSQL(part int) string {
	key := s.keyOf(part)
	return s.selectSQL(part, key[0]+" = ? and "+afterSQL(key[1:]))
}

// deleteSQL deletes n rows of one item.
func (s *itemSQL) deleteSQL(part, n int) string {
	t := s.kind.Parts[part]
	return "delete from " + t.Name + "\nwhere " + strings.Join(s.kind.Scope(), " = ? and ") + " = ? and " + s.kind.ID +
		" = ? and (" + strings.Join(s.keyOf(part)[1:], ", ") + ") in (" + places(n, t.Key) + ")"
}

// deleteAllSQL deletes rows of an item.
func (s *itemSQL) deleteAllSQL(part int) string {
	return "delete from " + s.kind.Parts[part].Name + "\nwhere " + strings.Join(s.kind.Scope(), " = ? and ") +
		" = ? and " + s.kind.ID + " = ?" + s.piece(part)
}

// distrustSQL empties the digests of rows of an item that have one.
func (s *itemSQL) distrustSQL(part int) string {
	return "update " + s.kind.Parts[part].Name + " set digest = ''\nwhere " + strings.Join(s.kind.Scope(), " = ? and ") +
		" = ? and " + s.kind.ID + " = ? and digest <> ''" + s.piece(part)
}

// scope returns the values of kind.Scope.
func (s *itemSQL) scope(r mirror.Resource, more ...any) []any {
	args := []any{r.Bucket(), rawKey(r.Project)}
	if s.kind.InRoom() {
		args = append(args, rawKey(r.Room))
	}
	return append(args, more...)
}

// column converts a value of a column.
func column(t store.ColumnType, value any) any {
	switch v := value.(type) {
	case string:
		if t == store.ColumnID {
			return rawKey(v)
		}
	case []byte:
		if t == store.ColumnJSON {
			return json.RawMessage(v)
		}
		return rawKey(v)
	case time.Time:
		return nullTime(v)
	}
	return value
}

// readCopy locks the room of an item, if it lives in the epoch of the lease, against
// a change of epoch, and reads the stored copy.
func (s *itemSQL) readCopy(ctx context.Context, q *queries, lease mirror.Lease) (stored store.ItemCopy, err error) {
	r := lease.Resource
	args := s.scope(r, rawKey(r.ID))
	if s.kind.InRoom() {
		args = append([]any{rawKey(r.ID)}, s.scope(r)...)
	}
	found := false
	err = q.query(ctx, s.copyOf, args, func(rows *sql.Rows) error {
		var room int64
		var epoch sql.NullInt64
		var sum []byte
		var deleted bool
		err := rows.Scan(&room, &epoch, &sum, &deleted)
		found = !s.kind.InRoom() || room == lease.Epoch
		stored = store.CopyOf(epoch.Int64, sum, deleted)
		return err
	})
	if err == nil && s.kind.InRoom() && !found {
		err = store.ErrEpochChanged
	}
	return stored, err
}

// lock locks the state of the lease and, for an item in a room, the room. The item is
// written only under the lock of its state.
func (s *itemSQL) lock(ctx context.Context, q *queries, lease mirror.Lease) (store.State, store.ItemCopy, error) {
	st, err := lockState(ctx, q, lease)
	if err != nil {
		return store.State{}, store.ItemCopy{}, err
	}
	stored, err := s.readCopy(ctx, q, lease)
	return st, stored, err
}

// readStored reads the digests of the rows of some items, whose ids must be in order.
func (s *itemSQL) readStored(ctx context.Context, q *queries, r mirror.Resource, ids []string) (store.StoredRows,
	error,
) {
	stored := store.NewStoredRows(s.kind)
	for p, t := range s.kind.Parts {
		values := make([]sql.RawBytes, t.Key+1, t.Key+2)
		if t.HasDigest() {
			values = values[:t.Key+2]
		}
		into := make([]any, len(values))
		for i := range values {
			into[i] = &values[i]
		}
		n, key := 0, make([]string, t.Key+1) // the rows of the last piece, and the key of the last row
		read := func(text string, args []any) error {
			n = 0
			return q.query(ctx, text, append(args, q.piece), func(rows *sql.Rows) error {
				if err := rows.Scan(into...); err != nil {
					return err
				}
				for i := range key {
					key[i] = string(values[i])
				}
				stored.Add(p, key, string(values[len(values)-1]))
				n++
				return nil
			})
		}
		for rest := ids; len(rest) > 0; {
			some := rest[:min(len(rest), maxRows)]
			args := s.scope(r)
			for _, id := range some {
				args = append(args, rawKey(id))
			}
			if err := read(s.storedSQL(p, len(some)), args); err != nil {
				return nil, err
			}
			if n < q.piece {
				rest = rest[len(some):]
				continue
			}
			// The piece ends among the rows of an item.
			for n == q.piece {
				if err := read(s.restSQL(p), afterArgs(s.scope(r, rawKey(key[0])), key[1:])); err != nil {
					return nil, err
				}
			}
			at, found := slices.BinarySearch(some, key[0])
			if !found {
				return nil, fmt.Errorf("a row of %s is of none of the items that were asked for", t.Name)
			}
			rest = rest[at+1:]
		}
	}
	return stored, nil
}

// writeAll makes the stored rows those of the items, which must be in key order. The
// heads come first: their locks keep a clean-up of earlier incarnations away from the
// rows that are compared.
func (s *Store) writeAll(ctx context.Context, q *queries, of *itemSQL, lease mirror.Lease, items []store.Item) error {
	r := lease.Resource
	ids := make([]string, len(items))
	heads := make([][]any, len(items))
	for i, item := range items {
		ids[i] = item.ID
		row := of.scope(r, rawKey(item.ID))
		if of.kind.InRoom() {
			row = append(row, lease.Epoch)
		}
		row = append(row, item.SHA256[:])
		for c, t := range of.kind.Head.Columns {
			row = append(row, column(t.Type, item.Head[c]))
		}
		heads[i] = append(row, sql.NullTime{})
	}
	if err := s.write(ctx, q, of.head, heads, func(row []any, why string) {
		if of.problem >= 0 {
			row[of.problem] = store.AddProblem(fmt.Sprint(row[of.problem]), of.kind.Head.Refused+why)
		}
	}); err != nil {
		return err
	}
	stored, err := of.readStored(ctx, q, r, ids)
	if err != nil {
		return err
	}
	problems, err := s.writeDifference(ctx, q, of, r, store.Diff(of.kind, stored, items))
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(problems)) {
		args := append([]any{problems[id], problems[id]}, of.scope(r, rawKey(id))...)
		if _, err := q.db.ExecContext(ctx, of.note, args...); err != nil {
			return err
		}
	}
	return nil
}

// writeDifference returns why JSON of some items was not stored, by item.
func (s *Store) writeDifference(ctx context.Context, q *queries, of *itemSQL, r mirror.Resource, d store.Difference) (
	map[string]string, error,
) {
	problems := make(map[string]string)
	for p, part := range of.kind.Parts {
		if err := of.deleteRows(ctx, q, r, p, d.Delete[p]); err != nil {
			return nil, err
		}
		rows := make([][]any, len(d.Write[p]))
		for i, row := range d.Write[p] {
			rows[i] = of.scope(r, rawKey(row.Item))
			for c, t := range part.Columns {
				rows[i] = append(rows[i], column(t.Type, row.Values[c]))
			}
			if part.HasDigest() {
				rows[i] = append(rows[i], rawKey(row.Digest))
			}
		}
		if err := s.write(ctx, q, of.parts[p], rows, func(row []any, why string) {
			row[len(row)-1] = []byte{} // no digest, so the problem is found again
			if id, ok := row[len(of.kind.Scope())].([]byte); ok {
				problems[string(id)] = part.Refused + why
			}
		}); err != nil {
			return nil, err
		}
	}
	return problems, nil
}

// deleteRows deletes rows of a part by their keys, which are in order.
func (s *itemSQL) deleteRows(ctx context.Context, q *queries, r mirror.Resource, part int, keys [][]string) error {
	for len(keys) > 0 {
		item := keys[0][0]
		n := 0
		for n < len(keys) && keys[n][0] == item {
			n++
		}
		if err := chunks(keys[:n], maxKeys, func(keys [][]string) error {
			args := s.scope(r, rawKey(item))
			for _, key := range keys {
				for _, id := range key[1:] {
					args = append(args, rawKey(id))
				}
			}
			_, err := q.db.ExecContext(ctx, s.deleteSQL(part, len(keys)), args...)
			return err
		}); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// ApplyItem writes the rows of a changed item that differ.
func (s *Store) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	of := items[lease.Resource.Kind]
	item.ID = lease.Resource.ID
	return s.end(ctx, "apply "+lease.Resource.Kind.String(), lease, now, func(q *queries) (store.Plan, error) {
		st, stored, err := of.lock(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanItem(of.kind, st, stored, lease, item.SHA256, fetchTime, now, settle)
		if plan.Change != 0 {
			err = s.writeAll(ctx, q, of, lease, []store.Item{item})
		}
		return plan, err
	})
}

// PrepareItem compares without locks: only the holder of the lease writes the item,
// and ApplyItem compares again. It leaves JSON in the item: a row without it has no
// digest, so ApplyItem writes it once more and notes why.
func (s *Store) PrepareItem(ctx context.Context, lease mirror.Lease, item *store.Item) (bool, error) {
	r := lease.Resource
	of := items[r.Kind]
	item.ID = r.ID
	var piece store.Difference
	more := false
	if err := retry(ctx, func() error {
		stored, err := of.readCopy(ctx, s.q, lease)
		if err != nil || store.SameItem(of.kind, stored, lease, item.SHA256) {
			return err
		}
		rows, err := of.readStored(ctx, s.q, r, []string{r.ID})
		if err == nil {
			piece = store.Diff(of.kind, rows, []store.Item{*item})
			more = piece.Rows() > store.PieceRows
		}
		return err
	}); err != nil {
		return false, classify(ctx, fmt.Errorf("compare %s: %w", r.Kind, err))
	}
	if !more {
		return false, nil
	}
	return true, s.tx(ctx, "prepare "+r.Kind.String(), func(q *queries) error {
		_, stored, err := of.lock(ctx, q, lease)
		switch {
		case err != nil:
		case stored.Epoch == of.kind.Epoch(lease):
			_, err = q.db.ExecContext(ctx, of.distrust, of.scope(r, rawKey(r.ID))...)
		case of.kind.InRoom() && stored.Epoch == 0:
			err = s.write(ctx, q, of.head, [][]any{of.begun(r)}, nil)
		}
		if err != nil {
			return err
		}
		_, err = s.writeDifference(ctx, q, of, r, piece.First(store.PieceRows))
		return err
	})
}

// begun is the head of an item that is not written yet. It is in no epoch.
func (s *itemSQL) begun(r mirror.Resource) []any {
	row := s.scope(r, rawKey(r.ID), int64(0), []byte{})
	for _, c := range s.kind.Head.Columns {
		row = append(row, map[store.ColumnType]any{
			store.ColumnID: []byte{}, store.ColumnText: "", store.ColumnBytes: []byte{}, store.ColumnJSON: json.RawMessage(nil),
			store.ColumnTime: sql.NullTime{}, store.ColumnInt: int64(0), store.ColumnBool: false,
		}[c.Type])
	}
	return append(row, sql.NullTime{})
}

// ApplyItemMissing writes a tombstone.
func (s *Store) ApplyItemMissing(ctx context.Context, lease mirror.Lease, now time.Time, settle time.Duration) (
	mirror.Applied, error,
) {
	r := lease.Resource
	of := items[r.Kind]
	return s.end(ctx, "apply missing "+r.Kind.String(), lease, now, func(q *queries) (store.Plan, error) {
		st, stored, err := of.lock(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingItem(of.kind, st, stored, lease, now, settle)
		if plan.Change != 0 {
			_, err = q.db.ExecContext(ctx, of.tombstone, append([]any{nullTime(now)}, of.scope(r, rawKey(r.ID))...)...)
		}
		return plan, err
	})
}

// KnownItems reads the states before the copies: an item is known by its state.
func (s *Store) KnownItems(ctx context.Context, list mirror.Resource) (map[string]store.Known, error) {
	var known map[string]store.Known
	arg := dbq.ListStatesParams{
		Bucket: list.Bucket(), ProjectID: rawKey(list.Project), RoomID: rawKey(list.Room), Kind: int16(list.Kind),
		Limit: s.q.limit(),
	}
	err := retry(ctx, func() error {
		arg.After = []byte{}
		states, err := pages(s.piece, func(last *dbq.ListStatesRow) ([]dbq.ListStatesRow, error) {
			if last != nil {
				arg.After = last.ResourceID
			}
			return s.q.ListStates(ctx, arg)
		})
		if err != nil {
			return err
		}
		known = make(map[string]store.Known, len(states))
		for _, row := range states {
			known[string(row.ResourceID)] = store.Known{HasState: true, Missing: row.MissingSince.Valid}
		}
		of, last := items[list.Kind], ""
		for n := s.piece; n == s.piece && err == nil; {
			n = 0
			err = s.q.query(ctx, of.copies, of.scope(list, rawKey(last), s.piece), func(rows *sql.Rows) error {
				var epoch int64
				var sum []byte
				var deleted bool
				err := rows.Scan(&last, &epoch, &sum, &deleted)
				k := known[last]
				k.Copy = store.CopyOf(epoch, sum, deleted)
				known[last] = k
				n++
				return err
			})
		}
		return err
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read what is known of a list: %w", err))
	}
	return known, nil
}

// lockEpoch locks the room of a list against a change of epoch.
func (s *itemSQL) lockEpoch(ctx context.Context, q *queries, lease mirror.Lease) error {
	if !s.kind.InRoom() {
		return nil
	}
	return shareRoom(ctx, q, lease)
}

// AddItems inserts the states first. Who gets one that is there already, or inserts
// one at the same time, is left alone.
//
// If the content of one does not fit, none is stored here, and each is fetched
// separately.
func (s *Store) AddItems(ctx context.Context, lease mirror.Lease, list []store.Item, fetchTime, now time.Time) (
	changes []mirror.Change, err error,
) {
	r := lease.Resource
	of := items[r.Kind]
	list = slices.SortedFunc(slices.Values(list), func(a, b store.Item) int { return strings.Compare(a.ID, b.ID) })
	err = s.tx(ctx, "add to "+r.Kind.String(), func(q *queries) error {
		if _, err := lockState(ctx, q, lease); err != nil {
			return err
		}
		added, err := q.insertListed(ctx, r, list, fetchTime)
		if err != nil {
			return err
		}
		if err := of.lockEpoch(ctx, q, lease); err != nil {
			return err
		}
		resources := make([]mirror.Resource, len(added))
		for i, item := range added {
			resources[i] = r
			resources[i].ID = item.ID
		}
		if changes = store.Entries(resources, mirror.ChangeUpserted, lease.Epoch, now); len(changes) == 0 {
			return nil
		}
		if err := s.writeAll(ctx, q, of, lease, added); err != nil {
			return err
		}
		if err := q.announce(ctx, changes); err != nil {
			return err
		}
		return q.revise(ctx, changes)
	})
	if refused(err) || fault.Is(err, fault.ReasonDocumentTooLarge) {
		stale := make([]store.Stale, len(list))
		for i := range list {
			stale[i] = store.Stale{Resource: r, Now: now, Background: lease.Background}
			stale[i].Resource.ID = list[i].ID
		}
		return nil, s.MarkListed(ctx, lease, stale)
	}
	if err != nil {
		return nil, err
	}
	return changes, nil
}

// MarkListed keeps the lease.
func (s *Store) MarkListed(ctx context.Context, lease mirror.Lease, stale []store.Stale) error {
	of := items[lease.Resource.Kind]
	return s.tx(ctx, "mark "+lease.Resource.Kind.String(), func(q *queries) error {
		_, err := lockState(ctx, q, lease)
		if err == nil {
			err = q.markStale(ctx, stale)
		}
		if err == nil {
			err = of.lockEpoch(ctx, q, lease)
		}
		return err
	})
}

// ApplyListed ends the lease.
func (s *Store) ApplyListed(ctx context.Context, lease mirror.Lease, fetchTime time.Time, stale []store.Stale,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	of := items[lease.Resource.Kind]
	return s.end(ctx, "apply list of "+lease.Resource.Kind.String(), lease, now, func(q *queries) (store.Plan, error) {
		st, err := lockState(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanListed(st, lease, fetchTime, stale, now, settle)
		if err := q.markStale(ctx, plan.Stale); err != nil {
			return store.Plan{}, err
		}
		return plan, of.lockEpoch(ctx, q, lease)
	})
}

// invalidate makes the stored copy of an item and its rows differ from every fetched
// one.
func (s *itemSQL) invalidate(ctx context.Context, store *Store, r mirror.Resource) error {
	return store.tx(ctx, "invalidate "+r.Kind.String(), func(q *queries) error {
		_, err := q.db.ExecContext(ctx, s.distrust, s.scope(r, rawKey(r.ID))...)
		for p, part := range s.kind.Parts {
			if err == nil && part.HasDigest() {
				err = q.inPieces(func(limit int32) (int64, error) {
					return q.exec(ctx, s.distrustSQL(p), s.scope(r, rawKey(r.ID), limit)...)
				})
			}
		}
		return err
	})
}

func insertListedSQL(n int) string {
	return `insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id,
    generation, applied_generation, fetch_time, lease_token, last_error
)
values ` + repeat("(?, ?, ?, ?, ?, 1, 1, ?, ?, '')", n) + `
on duplicate key update bucket = values(bucket)`
}

// insertedListedSQL finds the rows of an insert, from the first to the last of them,
// which MySQL does not report. The token only marks them; it is no lease.
const insertedListedSQL = `select resource_id
from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ?
    and resource_id >= ? and resource_id <= ? and lease_token = ?`

// insertListed inserts states that have applied the list of r for items without one,
// and returns these items. Both lists are in key order.
func (q *queries) insertListed(ctx context.Context, r mirror.Resource, items []store.Item,
	fetchTime time.Time,
) ([]store.Item, error) {
	token := make([]byte, 16)
	rand.Read(token)
	inserted := make(map[string]bool)
	err := chunks(items, min(maxRows, q.piece), func(items []store.Item) error {
		args := make([]any, 0, 7*len(items))
		for _, item := range items {
			r.ID = item.ID
			args = append(appendKey(args, r), nullTime(fetchTime), token)
		}
		if _, err := q.db.ExecContext(ctx, insertListedSQL(len(items)), args...); err != nil {
			return err
		}
		args = append(roomArgs(r), int16(r.Kind), rawKey(items[0].ID), rawKey(items[len(items)-1].ID), token)
		return q.query(ctx, insertedListedSQL, args, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			inserted[id] = true
			return err
		})
	})
	var out []store.Item
	for _, item := range items {
		if inserted[item.ID] {
			out = append(out, item)
		}
	}
	return out, err
}

func insertChangesSQL(n int) string {
	return `insert into mirror_change (bucket, n, project_id, room_id, kind, resource_id, change_kind, epoch, commit_time)
values ` + places(n, 9)
}

// reviseSQL writes revisions to existing states.
func reviseSQL(n int) string {
	return `insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id, generation, revision, last_error
)
values ` + repeat("(?, ?, ?, ?, ?, 1, ?, '')", n) + `
on duplicate key update revision = values(revision), lease_token = null`
}

// announce numbers and writes change entries of one bucket. The numbers are incremented
// and then read: last_insert_id with an argument would return the last, but not every
// Vitess supports that.
func (q *queries) announce(ctx context.Context, changes []mirror.Change) error {
	if len(changes) == 0 {
		return nil
	}
	bucket, n := changes[0].Bucket, int64(len(changes))
	if err := q.RaiseFeedHead(ctx, dbq.RaiseFeedHeadParams{Bucket: bucket, N: n}); err != nil {
		return err
	}
	last, err := q.FeedHead(ctx, bucket)
	if err != nil {
		return err
	}
	store.Number(changes, last-n+1)
	return chunks(changes, maxRows, func(changes []mirror.Change) error {
		args := make([]any, 0, 9*len(changes))
		for _, c := range changes {
			r := c.Resource
			args = append(args, c.Bucket, c.Number, rawKey(r.Project), rawKey(r.Room), int16(r.Kind), rawKey(r.ID),
				int16(c.Kind), c.Epoch, nullTime(c.CommitTime))
		}
		_, err := q.db.ExecContext(ctx, insertChangesSQL(len(changes)), args...)
		return err
	})
}

// revise writes the numbers of changes to the states of their resources.
func (q *queries) revise(ctx context.Context, changes []mirror.Change) error {
	return chunks(changes, maxRows, func(changes []mirror.Change) error {
		args := make([]any, 0, 6*len(changes))
		for _, c := range changes {
			args = append(appendKey(args, c.Resource), c.Number)
		}
		_, err := q.db.ExecContext(ctx, reviseSQL(len(changes)), args...)
		return err
	})
}
