package sqllist

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// A list of rooms that begins with the newest reads the keys of rooms from the index of
// terms, which has those of each term in the order of the list. SQL narrows: what is
// selected, the filter decides by the source of each room.

// latestKey is the place of a room in the list.
type latestKey struct {
	micros int64
	room   mirror.RoomID
}

func keyOfRoom(r mirror.Room) latestKey {
	return latestKey{store.ListTime(r.CreateTime).UnixMicro(), r.ID}
}

func (k latestKey) compare(other latestKey) int {
	return cmp.Or(cmp.Compare(other.micros, k.micros), cmp.Compare(k.room, other.room))
}

// end is behind every key.
var end = latestKey{micros: math.MinInt64}

// keyRange is what was read of some keys in order: all of them up to last, inclusive.
type keyRange struct {
	keys []latestKey
	last latestKey
}

func (r keyRange) mayHave(k latestKey) bool {
	_, found := slices.BinarySearchFunc(r.keys, k, latestKey.compare)
	return found || k.compare(r.last) > 0
}

// union returns what is in one of several ranges, up to where all of them were read.
func union(ranges []keyRange) keyRange {
	all := keyRange{last: end}
	for _, r := range ranges {
		all.keys = append(all.keys, r.keys...)
		if r.last.compare(all.last) < 0 {
			all.last = r.last
		}
	}
	slices.SortFunc(all.keys, latestKey.compare)
	all.keys = slices.Compact(all.keys)
	return all.upTo(all.last)
}

func (r keyRange) upTo(last latestKey) keyRange {
	n, found := slices.BinarySearchFunc(r.keys, last, latestKey.compare)
	if found {
		n++
	}
	return keyRange{keys: r.keys[:n], last: last}
}

func (r keyRange) after(k latestKey) keyRange {
	n, found := slices.BinarySearchFunc(r.keys, k, latestKey.compare)
	if found {
		n++
	}
	return keyRange{keys: r.keys[n:], last: r.last}
}

// RoomsByID reads rooms, also deleted ones, in any order.
type RoomsByID func(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, source bool) ([]mirror.Room,
	error)

// LatestRoomsBy reads the keys of each list of terms, some at a time, and then the rooms of
// that list which gets furthest with them: fewest rooms have its terms there. Rooms that are
// not indexed are looked at beside them, wherever they are in the list.
func (r *Reader) LatestRoomsBy(ctx context.Context, f store.LatestRoomFilter, byID RoomsByID) ([]mirror.Room, error) {
	const what = "list the latest rooms"
	unindexed, all, err := r.sortedKeys(ctx, what, f.Project, nil)
	if err != nil {
		return nil, err
	}
	if !all {
		return nil, fmt.Errorf("%s: %w", what, store.ErrNotIndexed)
	}
	of := f.Terms
	var prefixed *keyRange
	if f.Rooms != nil || f.Prefix != "" {
		if keys, few, err := r.sortedKeys(ctx, what, f.Project, f.Rooms.Within(f.Prefix)); err != nil {
			return nil, err
		} else if few {
			prefixed = &keys
		}
	}
	if prefixed == nil && len(of) == 0 {
		of = [][]store.RoomTerm{{{Kind: store.TermRoom}}}
	}
	after := latestKey{math.MaxInt64, ""}
	if !f.AfterTime.IsZero() || f.AfterID != "" {
		after = latestKey{store.ListTime(f.AfterTime).UnixMicro(), f.AfterID}
	}
	var out []mirror.Room
	for most := min(2*f.Limit, maxKeys); len(out) < f.Limit && after != end; most = maxKeys {
		var ranges []keyRange
		if prefixed != nil {
			ranges = append(ranges, prefixed.after(after))
		}
		for _, some := range of {
			var parts []keyRange
			for _, term := range some {
				part, err := r.termKeys(ctx, f.Project, term, after, most)
				if err != nil {
					return nil, err
				}
				parts = append(parts, part)
			}
			ranges = append(ranges, union(parts))
		}
		first := slices.MaxFunc(ranges, func(a, b keyRange) int {
			return cmp.Or(a.last.compare(b.last), cmp.Compare(len(b.keys), len(a.keys)))
		})
		keys := slices.DeleteFunc(slices.Clone(first.keys), func(k latestKey) bool {
			return !f.Within(k.room) || slices.ContainsFunc(ranges, func(r keyRange) bool { return !r.mayHave(k) })
		})
		here := union([]keyRange{{keys, end}, unindexed.after(after).upTo(first.last)})
		if out, err = latestRooms(ctx, f, here.keys, out, byID); err != nil {
			return nil, err
		}
		after = first.last
	}
	return out[:min(len(out), f.Limit)], nil
}

// latestRooms adds the rooms of keys, which are in order, that are selected, until there are
// enough.
func latestRooms(ctx context.Context, f store.LatestRoomFilter, keys []latestKey, out []mirror.Room, byID RoomsByID) (
	[]mirror.Room, error,
) {
	for len(keys) > 0 && len(out) < f.Limit {
		some := keys[:min(len(keys), max(20, f.Limit-len(out)))]
		keys = keys[len(some):]
		ids := make([]mirror.RoomID, len(some))
		for i, k := range some {
			ids[i] = k.room
		}
		rooms, err := byID(ctx, f.Project, ids, true)
		if err != nil {
			return nil, err
		}
		for _, room := range rooms {
			// Of one that was created anew, the index has another time until it is written.
			_, here := slices.BinarySearchFunc(some, keyOfRoom(room), latestKey.compare)
			if here && room.Freshness.DeleteTime.IsZero() && f.Selects(room.ID, room.Source) {
				out = append(out, room)
			}
		}
		slices.SortFunc(out, func(a, b mirror.Room) int { return keyOfRoom(a).compare(keyOfRoom(b)) })
	}
	return out, nil
}

// termKeys reads the keys of rooms with a term after one, at most so many.
func (r *Reader) termKeys(ctx context.Context, project mirror.ProjectID, term store.RoomTerm, after latestKey,
	most int,
) (keyRange, error) {
	s := r.query("select t.create_time, t.room_id\nfrom mirror_room_term t"+r.by("mirror_room_term_by_term")).
		where("t.project_id = ? and t.term = ?", project, term.Hash())
	var from time.Time
	if after.micros != math.MaxInt64 {
		from = time.UnixMicro(after.micros)
	}
	s.between("t.create_time", "t.room_id", time.Time{}, time.Time{}, from, string(after.room))
	keys, err := list(ctx, r, "list rooms by term", s.page([]string{"t.create_time desc", "t.room_id"}, most),
		scanLatestKey)
	found := keyRange{keys, end}
	if len(keys) == most {
		found.last = keys[most-1]
	}
	return found, err
}

func scanLatestKey(row Row, k *latestKey) error {
	var created time.Time
	err := row.Scan(at(&created), &k.room)
	k.micros = store.ListTime(created).UnixMicro()
	return err
}

// sortedKeys returns the keys of rooms that are not indexed, or of those with one of the
// prefixes, which may be deleted, and false if there are too many to sort.
func (r *Reader) sortedKeys(ctx context.Context, what string, project mirror.ProjectID, prefixes []string) (
	found keyRange, all bool, err error,
) {
	read := func(s *statement) bool {
		s.add("\nlimit ?", manyMatches+1-len(found.keys))
		var keys []latestKey
		keys, err = list(ctx, r, what, s, scanLatestKey)
		found.keys = append(found.keys, keys...)
		return err == nil && len(found.keys) <= manyMatches
	}
	found.last = end
	if prefixes == nil {
		all = read(r.query("select r.create_time, r.room_id\nfrom mirror_room r"+r.by("mirror_room_unindexed")).
			where(r.dialect.Unindexed).where("r.project_id = ?", project))
	} else {
		all = !slices.ContainsFunc(prefixes, func(prefix string) bool {
			return !read(r.query("select r.create_time, r.room_id\nfrom mirror_room r"+r.by("mirror_room_by_id")).
				where("r.project_id = ?", project).whereIDs("r.room_id", prefix))
		})
	}
	slices.SortFunc(found.keys, latestKey.compare)
	return found, all, err
}
