package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// itemSQL holds the statements about items of a kind, which follow from its tables.
// Their first parameters are the columns of kind.Scope.
type itemSQL struct {
	kind *store.ItemKind

	copyOf, copies, write, begin, distrust, tombstone, stored string
	// writePart and deletePart are by table of parts; distrustPart only where rows have
	// a digest.
	writePart, deletePart, distrustPart []string
}

var items = itemStatements()

func itemStatements() map[mirror.Kind]*itemSQL {
	out := make(map[mirror.Kind]*itemSQL)
	for _, kind := range store.ItemKinds() {
		out[kind.Kind] = newItemSQL(kind)
	}
	return out
}

// columnTypes are the server's names of the types of column.
var columnTypes = map[store.ColumnType]string{
	store.ColumnID: "text", store.ColumnText: "text", store.ColumnBytes: "bytea", store.ColumnJSON: "jsonb",
	store.ColumnTime: "timestamptz", store.ColumnInt: "bigint", store.ColumnBool: "boolean",
}

func newItemSQL(kind *store.ItemKind) *itemSQL {
	var scope, conditions []string
	for i, column := range kind.Scope() {
		scope = append(scope, column)
		conditions = append(conditions, fmt.Sprintf("%s = $%d", column, i+1))
	}
	in := strings.Join(conditions, " and ")
	next := len(scope) + 1
	parameter := func(offset int) string { return "$" + strconv.Itoa(next+offset) }
	one := in + " and " + kind.ID + " = " + parameter(0)
	epoch := strconv.FormatInt(kind.Epoch(mirror.Lease{}), 10) + "::bigint"
	keys, values := "", "" // of the head, with its epoch
	if kind.InRoom() {
		epoch, keys, values = "epoch", "epoch, ", parameter(0)+"::bigint, "
	}
	head := kind.Head.Name
	copyColumns := epoch + ", content_sha256, delete_time is not null\nfrom " + head + "\nwhere "
	s := &itemSQL{
		kind:      kind,
		copyOf:    "select " + copyColumns + one,
		copies:    "select " + kind.ID + ", " + copyColumns + in,
		distrust:  "update " + head + " set content_sha256 = ''\nwhere " + one + " and content_sha256 <> ''",
		tombstone: "update " + head + " set delete_time = " + parameter(1) + "\nwhere " + one,
	}
	// write takes the epoch, the ids, the hashes, and then the other columns.
	first := next
	if kind.InRoom() {
		first++
	}
	columns := append([]store.Column{
		{Name: kind.ID, Type: store.ColumnID}, {Name: "content_sha256", Type: store.ColumnBytes},
	}, kind.Head.Columns...)
	names, unnested := unnest(columns, first)
	set := []string{"delete_time = null"}
	for _, column := range append([]string{strings.TrimSuffix(keys, ", ")}, strings.Split(names, ", ")[1:]...) {
		if column != "" {
			set = append(set, column+" = excluded."+column)
		}
	}
	into := "insert into " + head + " (" + strings.Join(scope, ", ") + ", " + keys + names + ")\n"
	conflict := "\non conflict (" + strings.Join(append(scope, kind.ID), ", ") + ") "
	scoped := ""
	for i, column := range scope {
		scoped += fmt.Sprintf("$%d::%s, ", i+1, map[bool]string{true: "smallint", false: "text"}[column == "bucket"])
	}
	s.write = into + "select " + scoped + values + "k.*\nfrom " + unnested + " k (" + names + ")\norder by k." +
		kind.ID + conflict + "do update set " + strings.Join(set, ", ")
	if kind.InRoom() {
		s.begin = into + "values (" + scoped + "0, " + parameter(0) + ", ''" + emptyValues(kind.Head.Columns) + ")" +
			conflict + "do nothing"
	}

	var stored []string
	for i, table := range kind.Parts {
		digest := "''::bytea" // of a row that is its key
		columns := append([]store.Column{{Name: kind.ID, Type: store.ColumnID}}, table.Columns...)
		key := []string{kind.ID}
		for _, column := range table.Columns[:table.Key] {
			key = append(key, column.Name)
		}
		do := "do nothing"
		distrust := ""
		if table.HasDigest() {
			digest = "c.digest"
			columns = append(columns, store.Column{Name: "digest", Type: store.ColumnBytes})
			var set []string
			for _, column := range columns[table.Key+1:] {
				set = append(set, column.Name+" = excluded."+column.Name)
			}
			do = "do update set " + strings.Join(set, ", ")
			distrust = "update " + table.Name + " set digest = ''\nwhere " + one
		}
		// Item by item: the planner expects so few rows of a room that it would read all
		// of them and compare the ids. The limit is for the estimate, as in MarkStale: else it
		// would plan each time, which takes longer than to read the rows of a few items.
		keys := "c." + strings.Join(key, ", c.")
		stored = append(stored, fmt.Sprintf("select %d, array[%s], %s\n"+
			"from (select unnest(%s::text[]) as id limit cardinality(%[4]s::text[])) i\n"+
			"cross join lateral (select * from %s where %s and %s = i.id offset 0) c", i, keys, digest, parameter(0),
			table.Name, in, kind.ID))
		names, unnested := unnest(columns, next)
		s.writePart = append(s.writePart, "insert into "+table.Name+" ("+strings.Join(scope, ", ")+", "+names+")\nselect "+
			scoped+"k.*\nfrom "+unnested+" k\non conflict ("+strings.Join(append(slices.Clone(scope), key...), ", ")+") "+do)
		same := in
		for _, column := range key {
			same += " and " + column + " = k." + column
		}
		names, unnested = unnest(columns[:table.Key+1], next)
		s.deletePart = append(s.deletePart, "delete from "+table.Name+"\nwhere ctid = any(array(\n"+
			"    select d.ctid from "+unnested+" k ("+prefixed("k_", names)+")\n"+
			"    cross join lateral (select ctid from "+table.Name+" where "+
			strings.ReplaceAll(same, "k.", "k.k_")+" offset 0) d\n))")
		s.distrustPart = append(s.distrustPart, distrust)
	}
	s.stored = strings.Join(stored, "\nunion all\n")
	return s
}

// emptyValues are the values of columns of a head that is not written yet.
func emptyValues(columns []store.Column) string {
	values := ""
	for _, column := range columns {
		switch column.Type {
		case store.ColumnJSON, store.ColumnTime:
			values += ", null"
		case store.ColumnInt:
			values += ", 0"
		case store.ColumnBool:
			values += ", false"
		default:
			values += ", ''"
		}
	}
	return values
}

// prefixed returns names with a prefix, so that they are not those of a table.
func prefixed(prefix, names string) string {
	return prefix + strings.ReplaceAll(names, ", ", ", "+prefix)
}

// unnest returns the names of columns, and an expression for rows made of arrays,
// which are parameters from first on.
func unnest(columns []store.Column, first int) (names, rows string) {
	var all, arrays []string
	for i, column := range columns {
		all = append(all, column.Name)
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", first+i, columnTypes[column.Type]))
	}
	return strings.Join(all, ", "), "unnest(" + strings.Join(arrays, ", ") + ")"
}

// array returns the values of a column as a parameter.
func array(t store.ColumnType, n int, value func(i int) any) any {
	switch t {
	case store.ColumnBytes, store.ColumnJSON:
		return collect(n, value, func(b []byte) []byte {
			if b == nil && t == store.ColumnBytes {
				return []byte{}
			}
			return b
		})
	case store.ColumnTime:
		return collect(n, value, nullTime)
	case store.ColumnInt:
		return collect(n, value, func(i int64) int64 { return i })
	case store.ColumnBool:
		return collect(n, value, func(b bool) bool { return b })
	default:
		return collect(n, value, func(s string) string { return s })
	}
}

func collect[V, P any](n int, value func(i int) any, convert func(V) P) []P {
	out := make([]P, n)
	for i := range out {
		v, _ := value(i).(V)
		out[i] = convert(v)
	}
	return out
}

// scope returns the values of kind.Scope.
func (s *itemSQL) scope(r mirror.Resource, more ...any) []any {
	args := []any{r.Bucket(), string(r.Project)}
	if s.kind.InRoom() {
		args = append(args, string(r.Room))
	}
	return append(args, more...)
}

// readCopy reads a row of copyOf.
func readCopy(into *store.ItemCopy) func(pgx.Row) error {
	return func(row pgx.Row) error {
		var epoch int64
		var sum []byte
		var deleted bool
		err := row.Scan(&epoch, &sum, &deleted)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		*into = store.CopyOf(epoch, sum, deleted)
		return err
	}
}

// readStored reads the digests of the rows of some items.
func (s *itemSQL) readStored(ctx context.Context, q querier, r mirror.Resource, ids []string) (store.StoredRows,
	error,
) {
	rows, err := q.Query(ctx, s.stored, s.scope(r, ids)...)
	if err != nil {
		return nil, err
	}
	stored := store.NewStoredRows(s.kind)
	var table int
	var key []string
	var digest []byte
	_, err = pgx.ForEachRow(rows, []any{&table, &key, &digest}, func() error {
		stored.Add(table, key, string(digest))
		return nil
	})
	return stored, err
}

// writeAll makes the stored rows those of the items. The heads come first: their
// locks keep a clean-up of earlier incarnations away from the rows that are compared.
func (s *itemSQL) writeAll(ctx context.Context, t *transaction, lease mirror.Lease, items []store.Item) error {
	r := lease.Resource
	args := s.scope(r)
	if s.kind.InRoom() {
		args = append(args, lease.Epoch)
	}
	ids := make([]string, len(items))
	sums := make([][]byte, len(items))
	for i := range items {
		ids[i], sums[i] = items[i].ID, items[i].SHA256[:]
	}
	args = append(args, ids, sums)
	for c, column := range s.kind.Head.Columns {
		args = append(args, array(column.Type, len(items), func(i int) any { return items[i].Head[c] }))
	}
	t.queue(s.write, args...)
	stored, err := s.readStored(ctx, t, r, ids)
	if err != nil {
		return err
	}
	s.writeDifference(t, r, store.Diff(s.kind, stored, items))
	return nil
}

func (s *itemSQL) writeDifference(t *transaction, r mirror.Resource, d store.Difference) {
	for p, table := range s.kind.Parts {
		if gone := d.Delete[p]; len(gone) > 0 {
			args := s.scope(r)
			for c := range table.Key + 1 {
				args = append(args, array(store.ColumnID, len(gone), func(i int) any { return gone[i][c] }))
			}
			t.queue(s.deletePart[p], args...)
		}
		rows := d.Write[p]
		if len(rows) == 0 {
			continue
		}
		args := append(s.scope(r), array(store.ColumnID, len(rows), func(i int) any { return rows[i].Item }))
		for c, column := range table.Columns {
			args = append(args, array(column.Type, len(rows), func(i int) any { return rows[i].Values[c] }))
		}
		if table.HasDigest() {
			args = append(args, array(store.ColumnBytes, len(rows), func(i int) any { return []byte(rows[i].Digest) }))
		}
		t.queue(s.writePart[p], args...)
	}
}

// lock locks the state of the lease and, for an item in a room, the room against a
// change of epoch. It reads the stored copy before: only the holder of the lease
// writes the item in this epoch.
func (s *itemSQL) lock(ctx context.Context, t *transaction, q *dbq.Queries, lease mirror.Lease) (st store.State,
	stored store.ItemCopy, err error,
) {
	r := lease.Resource
	t.ahead(s.copyOf, s.scope(r, r.ID), readCopy(&stored))
	if !s.kind.InRoom() {
		st, _, err = lockLeased(ctx, q, lease)
		return st, stored, err
	}
	row, err := q.LockInRoom(ctx, dbq.LockInRoomParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		Token: lease.Token[:],
	})
	err = fenced(ctx, q, lease, row.RoomEpoch, err)
	return stateOf(row.MirrorResourceState), stored, err
}

// refusal returns why the server refuses some values as JSON; empty if it accepts
// all.
func (s *Store) refusal(ctx context.Context, values ...[]byte) (string, error) {
	for _, v := range values {
		if v == nil {
			continue
		}
		if err := s.q.TakeJSON(ctx, v); refused(err) {
			return problem(err), nil
		} else if err != nil {
			return "", classify(ctx, fmt.Errorf("try JSON: %w", err))
		}
	}
	return "", nil
}

// dropRefused removes each value that the server refuses as JSON, and records why.
func (s *Store) dropRefused(ctx context.Context, values [][]byte, problems []string) error {
	for i, v := range values {
		problem, err := s.refusal(ctx, v)
		if err != nil {
			return err
		}
		if problem != "" {
			values[i], problems[i] = nil, problem
		}
	}
	return nil
}

// storing calls write with the items. If the server refuses some of their JSON, it
// calls it again with the items without that.
func (s *Store) storing(ctx context.Context, kind *store.ItemKind, items []store.Item, write func() error) error {
	err := write()
	if !refused(err) {
		return err
	}
	for i := range items {
		if items[i], err = items[i].Without(kind, func(values ...[]byte) (string, error) {
			return s.refusal(ctx, values...)
		}); err != nil {
			return err
		}
	}
	return write()
}

// ApplyItem writes the rows of a changed item that differ.
func (s *Store) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (out mirror.Applied, err error) {
	of := items[lease.Resource.Kind]
	item.ID = lease.Resource.ID
	written := []store.Item{item}
	what := "apply " + lease.Resource.Kind.String()
	err = s.storing(ctx, of.kind, written, func() (err error) {
		out, err = s.endTx(ctx, what, lease, now, func(t *transaction, q, _ *dbq.Queries) (store.Plan, error) {
			st, stored, err := of.lock(ctx, t, q, lease)
			if err != nil {
				return store.Plan{}, err
			}
			plan := store.PlanItem(of.kind, st, stored, lease, item.SHA256, fetchTime, now, settle)
			if plan.Change != 0 {
				err = of.writeAll(ctx, t, lease, written)
			}
			return plan, err
		})
		return err
	})
	return out, err
}

// PrepareItem compares without locks: only the holder of the lease writes the item,
// and ApplyItem compares again.
func (s *Store) PrepareItem(ctx context.Context, lease mirror.Lease, item *store.Item) (bool, error) {
	r := lease.Resource
	of := items[r.Kind]
	item.ID = r.ID
	var rows store.StoredRows
	prepared := []store.Item{*item}
	compare := func() error {
		var stored store.ItemCopy
		err := readCopy(&stored)(s.names.on(s.pool).QueryRow(ctx, of.copyOf, of.scope(r, r.ID)...))
		if err == nil && !store.SameItem(of.kind, stored, lease, item.SHA256) {
			rows, err = of.readStored(ctx, s.names.on(s.pool), r, []string{r.ID})
		}
		return err
	}
	if err := retry(ctx, compare); err != nil {
		return false, classify(ctx, fmt.Errorf("compare %s: %w", r.Kind, err))
	}
	if rows == nil || store.Diff(of.kind, rows, prepared).Rows() <= store.PieceRows {
		return false, nil
	}
	err := s.storing(ctx, of.kind, prepared, func() error {
		piece := store.Diff(of.kind, rows, prepared).First(store.PieceRows)
		return s.itemTx(ctx, "prepare "+r.Kind.String(), func(t *transaction, q, _ *dbq.Queries) error {
			_, stored, err := of.lock(ctx, t, q, lease)
			if err != nil {
				return err
			}
			switch {
			case stored.Epoch == of.kind.Epoch(lease):
				t.queue(of.distrust, of.scope(r, r.ID)...)
			case of.kind.InRoom():
				t.queue(of.begin, of.scope(r, r.ID)...)
			}
			of.writeDifference(t, r, piece)
			return nil
		})
	})
	*item = prepared[0]
	return err == nil, err
}

// ApplyItemMissing writes a tombstone.
func (s *Store) ApplyItemMissing(ctx context.Context, lease mirror.Lease, now time.Time, settle time.Duration) (
	mirror.Applied, error,
) {
	r := lease.Resource
	of := items[r.Kind]
	return s.endTx(ctx, "apply missing "+r.Kind.String(), lease, now, func(t *transaction, q, _ *dbq.Queries) (
		store.Plan, error,
	) {
		st, stored, err := of.lock(ctx, t, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingItem(of.kind, st, stored, lease, now, settle)
		if plan.Change != 0 {
			t.queue(of.tombstone, of.scope(r, r.ID, nullTime(now))...)
		}
		return plan, nil
	})
}

// KnownItems reads the states before the copies: an item is known by its state.
func (s *Store) KnownItems(ctx context.Context, list mirror.Resource) (map[string]store.Known, error) {
	var known map[string]store.Known
	err := retry(ctx, func() error {
		states, err := s.q.ListStates(ctx, dbq.ListStatesParams{
			Bucket: list.Bucket(), ProjectID: string(list.Project), RoomID: string(list.Room), Kind: int16(list.Kind),
		})
		if err != nil {
			return err
		}
		known = make(map[string]store.Known, len(states))
		for _, row := range states {
			known[row.ResourceID] = store.Known{HasState: true, Missing: row.MissingSince.Valid}
		}
		of := items[list.Kind]
		rows, err := s.names.on(s.pool).Query(ctx, of.copies, of.scope(list)...)
		if err != nil {
			return err
		}
		var id string
		var epoch int64
		var sum []byte
		var deleted bool
		_, err = pgx.ForEachRow(rows, []any{&id, &epoch, &sum, &deleted}, func() error {
			k := known[id]
			k.Copy = store.CopyOf(epoch, sum, deleted)
			known[id] = k
			return nil
		})
		return err
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read what is known of a list: %w", err))
	}
	return known, nil
}

// lockList locks the state of a list under its lease.
func lockList(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (store.State, error) {
	st, _, err := lockLeased(ctx, q, lease)
	return st, err
}

// lockEpoch locks the room of a list against a change of epoch.
func (s *itemSQL) lockEpoch(ctx context.Context, q *dbq.Queries, lease mirror.Lease) error {
	if !s.kind.InRoom() {
		return nil
	}
	r := lease.Resource
	epoch, err := q.LockRoomEpoch(ctx, dbq.LockRoomEpochParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
	})
	return fenced(ctx, q, lease, epoch, err)
}

// AddItems inserts the states first. Who gets one that is there already, or inserts
// one at the same time, is left alone.
func (s *Store) AddItems(ctx context.Context, lease mirror.Lease, list []store.Item, fetchTime, now time.Time) (
	changes []mirror.Change, err error,
) {
	var before int64
	r := lease.Resource
	of := items[r.Kind]
	list = slices.SortedFunc(slices.Values(list), func(a, b store.Item) int { return strings.Compare(a.ID, b.ID) })
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	err = s.storing(ctx, of.kind, list, func() error {
		return s.itemTx(ctx, "add to "+r.Kind.String(), func(t *transaction, q, later *dbq.Queries) error {
			if _, err := lockList(ctx, q, lease); err != nil {
				return err
			}
			added, err := q.InsertListedStates(ctx, dbq.InsertListedStatesParams{
				Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind),
				FetchTime: nullTime(fetchTime), ResourceID: ids,
			})
			if err != nil {
				return err
			}
			if err := of.lockEpoch(ctx, q, lease); err != nil {
				return err
			}
			slices.Sort(added)
			resources := make([]mirror.Resource, len(added))
			for i, id := range added {
				resources[i] = r
				resources[i].ID = id
			}
			if changes = store.Entries(resources, mirror.ChangeUpserted, lease.Epoch, now); len(changes) == 0 {
				return nil
			}
			fresh := slices.DeleteFunc(slices.Clone(list), func(item store.Item) bool {
				_, ok := slices.BinarySearch(added, item.ID)
				return !ok
			})
			if err := of.writeAll(ctx, t, lease, fresh); err != nil {
				return err
			}
			_, err = t.later(&before).AnnounceListed(ctx, dbq.AnnounceListedParams{
				Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind),
				ResourceID: added, Epoch: changes[0].Epoch, Now: nullTime(now),
			})
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	store.Number(changes, before+1)
	return changes, nil
}

// MarkListed keeps the lease.
func (s *Store) MarkListed(ctx context.Context, lease mirror.Lease, stale []store.Stale) error {
	of := items[lease.Resource.Kind]
	return s.tx(ctx, "mark "+lease.Resource.Kind.String(), func(q, later *dbq.Queries) error {
		if _, err := lockList(ctx, q, lease); err != nil {
			return err
		}
		return errors.Join(markStale(ctx, later, stale), of.lockEpoch(ctx, q, lease))
	})
}

// ApplyListed ends the lease.
func (s *Store) ApplyListed(ctx context.Context, lease mirror.Lease, fetchTime time.Time, stale []store.Stale,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	of := items[lease.Resource.Kind]
	what := "apply list of " + lease.Resource.Kind.String()
	return s.end(ctx, what, lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
		st, err := lockList(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanListed(st, lease, fetchTime, stale, now, settle)
		return plan, errors.Join(markStale(ctx, later, plan.Stale), of.lockEpoch(ctx, q, lease))
	})
}

// invalidate makes the stored copy of an item and its rows differ from every fetched
// one.
func (s *itemSQL) invalidate(ctx context.Context, store *Store, r mirror.Resource) error {
	return store.itemTx(ctx, "invalidate "+r.Kind.String(), func(t *transaction, _, _ *dbq.Queries) error {
		t.queue(s.distrust, s.scope(r, r.ID)...)
		for _, distrust := range s.distrustPart {
			if distrust != "" {
				t.queue(distrust, s.scope(r, r.ID)...)
			}
		}
		return nil
	})
}
