package sqllist

import (
	"cmp"
	"context"
	"slices"
)

// A list by several properties, each of which has an index in the order of the list, reads
// the keys of each, some at a time, and then the rows of those that may have all of them.

// listKey is the key of a row, with its place in a list.
type listKey[K any] interface {
	comparable
	compare(other K) int
	// end is behind every key.
	end() K
}

// keyRange is what was read of some keys in order: all of them up to last, inclusive.
type keyRange[K listKey[K]] struct {
	keys []K
	last K
}

// rangeOf returns what a statement has read that returns at most so many keys.
func rangeOf[K listKey[K]](keys []K, most int) keyRange[K] {
	r := keyRange[K]{keys: keys}
	r.last = r.last.end()
	if len(keys) == most {
		r.last = keys[most-1]
	}
	return r
}

func (r keyRange[K]) mayHave(k K) bool {
	_, found := slices.BinarySearchFunc(r.keys, k, K.compare)
	return found || k.compare(r.last) > 0
}

func (r keyRange[K]) upTo(last K) keyRange[K] {
	return keyRange[K]{keys: r.keys[:r.behind(last)], last: last}
}

func (r keyRange[K]) after(k K) keyRange[K] {
	return keyRange[K]{keys: r.keys[r.behind(k):], last: r.last}
}

// behind returns the index of the first key behind k.
func (r keyRange[K]) behind(k K) int {
	n, found := slices.BinarySearchFunc(r.keys, k, K.compare)
	if found {
		n++
	}
	return n
}

// union returns what is in one of several ranges, up to where all of them were read.
func union[K listKey[K]](ranges ...keyRange[K]) keyRange[K] {
	all := rangeOf[K](nil, 1)
	for _, r := range ranges {
		all.keys = append(all.keys, r.keys...)
		if r.last.compare(all.last) < 0 {
			all.last = r.last
		}
	}
	slices.SortFunc(all.keys, K.compare)
	all.keys = slices.Compact(all.keys)
	return all.upTo(all.last)
}

// byTerms reads a page of a list, behind a key. read reads some keys of each property, at
// least one, after a key. Of those that get furthest there are fewest, and rows reads those
// rows of them that the list shows, in order. Keys that are beside are looked at too, wherever
// they are in the list. The time limit is that of one statement.
func byTerms[K listKey[K], T any](ctx context.Context, r *Reader, what string, limit int, after K, beside keyRange[K],
	read func(ctx context.Context, after K, most int) ([]keyRange[K], error),
	rows func(ctx context.Context, keys []K) ([]T, error),
) (page []T, err error) {
	// Where all have properties that none has together, there is no end of statements.
	err = r.within(ctx, what, func(ctx context.Context) (err error) {
		page, err = byTermsOf(ctx, limit, after, beside, read, rows)
		return err
	})
	return page, err
}

func byTermsOf[K listKey[K], T any](ctx context.Context, limit int, after K, beside keyRange[K],
	read func(ctx context.Context, after K, most int) ([]keyRange[K], error),
	rows func(ctx context.Context, keys []K) ([]T, error),
) (out []T, err error) {
	// As many rows as are looked at; more if the list shows few of them, or many may be beside.
	least := max(20, min(len(beside.keys)/4, maxKeys))
	for most := min(2*limit, maxKeys); len(out) < limit && after != after.end(); most = maxKeys {
		ranges, err := read(ctx, after, most)
		if err != nil {
			return nil, err
		}
		first := slices.MaxFunc(ranges, func(a, b keyRange[K]) int {
			return cmp.Or(a.last.compare(b.last), cmp.Compare(len(b.keys), len(a.keys)))
		})
		keys := slices.DeleteFunc(slices.Clone(first.keys), func(k K) bool {
			return slices.ContainsFunc(ranges, func(r keyRange[K]) bool { return !r.mayHave(k) })
		})
		here := union(rangeOf(keys, len(keys)+1), beside.after(after).upTo(first.last))
		for keys = here.keys; len(keys) > 0 && len(out) < limit; {
			some := keys[:min(len(keys), maxKeys, max(least, limit-len(out)))]
			keys, least = keys[len(some):], min(2*least, maxKeys)
			found, err := rows(ctx, some)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
		after = first.last
	}
	return out[:min(len(out), limit)], nil
}
