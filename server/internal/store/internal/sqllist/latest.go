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

func (latestKey) end() latestKey { return latestKey{micros: math.MinInt64} }

// RoomsByID reads rooms, also deleted ones, in any order.
type RoomsByID func(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, source bool) ([]mirror.Room,
	error)

// LatestRoomsBy reads the keys of each list of terms, see [byTerms].
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
	var prefixed *keyRange[latestKey]
	if f.Rooms != nil || f.Prefix != "" {
		if keys, few, err := r.sortedKeys(ctx, what, f.Project, f.Rooms.Within(f.Prefix)); err != nil {
			return nil, err
		} else if few {
			prefixed = &keys
		}
	}
	if prefixed == nil && len(of) == 0 {
		of = [][]store.Term{{{Kind: store.TermRoom}}}
	}
	after := latestKey{math.MaxInt64, ""}
	if !f.AfterTime.IsZero() || f.AfterID != "" {
		after = latestKey{store.ListTime(f.AfterTime).UnixMicro(), f.AfterID}
	}
	read := func(ctx context.Context, after latestKey, most int) ([]keyRange[latestKey], error) {
		var ranges []keyRange[latestKey]
		if prefixed != nil {
			ranges = append(ranges, prefixed.after(after))
		}
		for _, some := range of {
			var parts []keyRange[latestKey]
			for _, term := range some {
				part, err := r.termKeys(ctx, f.Project, term, after, most)
				if err != nil {
					return nil, err
				}
				parts = append(parts, part)
			}
			ranges = append(ranges, union(parts...))
		}
		return ranges, nil
	}
	return byTerms(ctx, r, what, f.Limit, after, unindexed, read,
		func(ctx context.Context, keys []latestKey) ([]mirror.Room, error) {
			return latestRooms(ctx, f, keys, byID)
		})
}

// latestRooms returns the rooms of keys, which are in order, that are selected.
func latestRooms(ctx context.Context, f store.LatestRoomFilter, keys []latestKey, byID RoomsByID) (out []mirror.Room,
	err error,
) {
	var ids []mirror.RoomID
	for _, k := range keys {
		if f.Within(k.room) {
			ids = append(ids, k.room)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rooms, err := byID(ctx, f.Project, ids, true)
	for _, room := range rooms {
		// Of one that was created anew, the index has another time until it is written.
		_, here := slices.BinarySearchFunc(keys, keyOfRoom(room), latestKey.compare)
		if here && room.Freshness.DeleteTime.IsZero() && f.Selects(room.ID, room.Source) {
			out = append(out, room)
		}
	}
	slices.SortFunc(out, func(a, b mirror.Room) int { return keyOfRoom(a).compare(keyOfRoom(b)) })
	return out, err
}

// termKeys reads the keys of rooms with a term after one, at most so many.
func (r *Reader) termKeys(ctx context.Context, project mirror.ProjectID, term store.Term, after latestKey,
	most int,
) (keyRange[latestKey], error) {
	s := r.query("select t.create_time, t.room_id\nfrom mirror_room_term t"+r.by("mirror_room_term_by_term")).
		where("t.project_id = ? and t.term = ?", project, term.Hash())
	var from time.Time
	if after.micros != math.MaxInt64 {
		from = time.UnixMicro(after.micros)
	}
	s.between("t.create_time", "t.room_id", time.Time{}, time.Time{}, from, string(after.room))
	keys, err := list(ctx, r, "list rooms by term", s.page([]string{"t.create_time desc", "t.room_id"}, most),
		scanLatestKey)
	return rangeOf(keys, most), err
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
	found keyRange[latestKey], all bool, err error,
) {
	read := func(s *statement) bool {
		s.add("\nlimit ?", manyMatches+1-len(found.keys))
		var keys []latestKey
		keys, err = list(ctx, r, what, s, scanLatestKey)
		found.keys = append(found.keys, keys...)
		return err == nil && len(found.keys) <= manyMatches
	}
	found.last = found.last.end()
	if prefixes == nil {
		all = read(r.query("select r.create_time, r.room_id\nfrom mirror_room r"+r.by("mirror_room_unindexed")).
			where(r.dialect.RoomUnindexed).where("r.project_id = ?", project))
	} else {
		all = !slices.ContainsFunc(prefixes, func(prefix string) bool {
			return !read(r.query("select r.create_time, r.room_id\nfrom mirror_room r"+r.by("mirror_room_by_id")).
				where("r.project_id = ?", project).whereIDs("r.room_id", prefix))
		})
	}
	slices.SortFunc(found.keys, latestKey.compare)
	return found, all, err
}
