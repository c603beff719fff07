package sqllist

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// A list by a filter whose index has another order, or is that of another table, has
// two steps: the keys of what matches, from the index alone, and the rows of a page of
// them. A join would be planned by an estimate of how many rows match, and a bad one
// reads or sorts the whole project.

// manyMatches is the number of matches from which a filter is not selective: reading
// the list in order and leaving out what does not match finds a page soon.
const manyMatches = 5_000

// maxKeys is the maximum number of keys of one statement.
const maxKeys = 500

// KeyColumn is a column of a table of keys: numbers or ids.
type KeyColumn struct {
	Name string
	Ints []int16
	IDs  []string
}

// rowKey is the key of a thread, a comment or a state. Comments have no kind, and only
// they have a time.
type rowKey struct {
	Room   mirror.RoomID
	Kind   mirror.Kind
	Thread string
	Micros int64
	ID     string
}

// compare is the order of lists.
func (k rowKey) compare(other rowKey) int {
	return cmp.Or(cmp.Compare(k.Room, other.Room), cmp.Compare(k.Kind, other.Kind),
		cmp.Compare(k.Thread, other.Thread), cmp.Compare(k.Micros, other.Micros), cmp.Compare(k.ID, other.ID))
}

// end is behind every key: no id has this byte.
func (rowKey) end() rowKey { return rowKey{Room: "\xff"} }

// keyTable is a table expression k of keys, with the bucket, the room and the given
// columns.
func (r *Reader) keyTable(project mirror.ProjectID, keys []rowKey, columns ...string) (table string, args []any) {
	all := []KeyColumn{{Name: "bucket"}, {Name: "room_id"}}
	for _, k := range keys {
		all[0].Ints = append(all[0].Ints, mirror.Bucket(project, string(k.Room)))
		all[1].IDs = append(all[1].IDs, string(k.Room))
	}
	for _, name := range columns {
		c := KeyColumn{Name: name}
		for _, k := range keys {
			switch name {
			case "kind":
				c.Ints = append(c.Ints, int16(k.Kind))
			case "thread_id":
				c.IDs = append(c.IDs, k.Thread)
			default:
				c.IDs = append(c.IDs, k.ID)
			}
		}
		all = append(all, c)
	}
	return r.dialect.KeyTable(all)
}

// byDistinctKeys reads the rows of some resources, of each one once.
func byDistinctKeys[T any](resources []mirror.Resource, rows func(keys []rowKey) ([]T, error)) ([]T, error) {
	keys := make([]rowKey, len(resources))
	for i, r := range resources {
		keys[i] = rowKey{Room: r.Room, Thread: r.ID, ID: r.ID}
	}
	slices.SortFunc(keys, rowKey.compare)
	var all []T
	for some := range slices.Chunk(slices.Compact(keys), maxKeys) {
		found, err := rows(some)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// only returns the only row of a read by key, or store.ErrNotFound.
func only[T any](rows []T, err error) (T, error) {
	switch {
	case err != nil:
		return *new(T), err
	case len(rows) == 0:
		return *new(T), store.ErrNotFound
	}
	return rows[0], nil
}

// inBuckets names the buckets of some keys; see Dialect.Routed.
func (s *statement) inBuckets(of string, project mirror.ProjectID, keys []rowKey) *statement {
	if !s.dialect.Routed {
		return s
	}
	buckets := make([]any, len(keys))
	for i, k := range keys {
		buckets[i] = mirror.Bucket(project, string(k.Room))
	}
	return s.where(of+".bucket in (?"+strings.Repeat(", ?", len(keys)-1)+")", buckets...)
}

// keyReader reads at most limit keys in the order of the list: those after a key, or
// from it on.
type keyReader func(ctx context.Context, key rowKey, inclusive bool, limit int) ([]rowKey, error)

// byKeys reads a page of a list whose keys another index has in the order of the list.
// Several equal keys count once. rows reads those rows of the keys that the list shows,
// in order.
func byKeys[T any](ctx context.Context, limit int, after rowKey, inclusive bool, keys keyReader,
	rows func(ctx context.Context, keys []rowKey) ([]T, error),
) ([]T, error) {
	var out []T
	// Each round reads more keys: many can be equal, or of what is not shown.
	for most := min(limit, maxKeys); len(out) < limit; most = min(2*most, maxKeys) {
		found, err := keys(ctx, after, inclusive, most)
		if err != nil || len(found) == 0 {
			return out, err
		}
		last := len(found) < most
		found = slices.Compact(found)
		page, err := rows(ctx, found)
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
		if last {
			break
		}
		after, inclusive = found[len(found)-1], false
	}
	return out[:min(len(out), limit)], nil
}

// byFewKeys is [byKeys] for the keys of a statement, in any order, that are in rooms with
// a prefix. If there are too many to sort, it reads nothing and returns false.
func byFewKeys[T any](ctx context.Context, r *Reader, what string, limit int, after rowKey, prefix string,
	matches *statement, scan func(Row, *rowKey) error, rows func(ctx context.Context, keys []rowKey) ([]T, error),
) (page []T, few bool, err error) {
	matches.add("\nlimit ?", manyMatches+1)
	all, err := list(ctx, r, what, matches, scan)
	if err != nil || len(all) > manyMatches {
		return nil, false, err
	}
	all = slices.DeleteFunc(all, func(k rowKey) bool { return !strings.HasPrefix(string(k.Room), prefix) })
	slices.SortFunc(all, rowKey.compare)
	page, err = byKeys(ctx, limit, after, false, func(_ context.Context, key rowKey, _ bool, most int) ([]rowKey, error) {
		n, found := slices.BinarySearchFunc(all, key, rowKey.compare)
		if found {
			n++
		}
		return all[n:min(n+most, len(all))], nil
	}, rows)
	return page, true, err
}
