package sqllist

import (
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// A list for a caller that sees the rooms with some prefixes reads one range of an index
// for each of them. What is outside of the ranges is not read.

// byRanges reads a page of a list that is ordered by room first: the ranges one after the
// other. read reads one of them, behind where the page begins.
func byRanges[T any](prefixes []string, after mirror.RoomID, limit int,
	read func(prefix string, limit int) ([]T, error),
) ([]T, error) {
	var all []T
	for i, prefix := range prefixes {
		if i > 0 && len(all) >= limit {
			break
		}
		if string(after) > prefix && !strings.HasPrefix(string(after), prefix) {
			continue // the range is before the page
		}
		rows, err := read(prefix, limit-len(all))
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// latestOfRanges reads a page of a list that begins with the latest: as much of each
// range, of which the latest count.
func latestOfRanges[T any](rooms store.Prefixes, room mirror.RoomID, limit int, key func(*T) (time.Time, string),
	read func(prefix string) ([]T, error),
) ([]T, error) {
	switch {
	case !rooms.Select(room) && room != "":
		return nil, nil
	case rooms == nil || room != "":
		return read("")
	}
	return latestOf(rooms, limit, key, read)
}

// latestOf reads a page of a list that begins with the latest: as much of each part, of which
// the latest count. It holds no more than those and what it has read of one part.
func latestOf[P, T any](parts []P, limit int, key func(*T) (time.Time, string), read func(part P) ([]T, error)) (
	[]T, error,
) {
	var all []T
	for _, part := range parts {
		rows, err := read(part)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if len(parts) > 1 {
			slices.SortFunc(all, func(a, b T) int {
				at, aid := key(&a)
				bt, bid := key(&b)
				if c := bt.Compare(at); c != 0 {
					return c
				}
				return strings.Compare(aid, bid)
			})
		}
		if len(all) > limit {
			clear(all[limit:])
			all = all[:limit]
		}
	}
	return all, nil
}

// latestList is a list of the rows of a table that begins with the latest.
type latestList struct {
	// columns are what is selected, with their arguments, of the table, which is called as.
	columns string
	args    []any
	table   string
	as      string
	// room is that of all rows, if the list is about one.
	room mirror.RoomID
	// joins follow the table.
	joins string
	// at and id are the columns that order the rows.
	at, id string
	// first are the ids that are few rows each, in the order of preference, then those
	// that are not.
	first, others []idFilter
	// also adds further conditions.
	also func(*statement)
	// Of the range of times, from is inclusive and to exclusive. Zero times mean no limit.
	// The page is behind the row with afterTime and afterID.
	from, to, afterTime time.Time
	afterID             string
	limit               int
}

// latest returns the statement for the rows of a project, in rooms with a prefix if it is
// not empty.
//
// With a prefix and none of the first ids it reads the range of the index by room, and
// sorts it. The order is hidden from the planner, which would otherwise read the latest
// rows of all rooms until enough of them match.
func (r *Reader) latest(l latestList, project mirror.ProjectID, prefix string) *statement {
	order, room := []string{l.at + " desc", l.id}, l.as+".room_id"
	ids := slices.Concat(l.first, l.others)
	start := slices.IndexFunc(l.first, func(f idFilter) bool { return f.id != "" })
	few := start >= 0
	where := func(s *statement) {
		s.where(l.as+".project_id = ?", project)
		s.inBucket(l.as, project, l.room)
		switch {
		case prefix == "" && few:
			s.whereFirst(l.first...)
			ids = l.others
		case prefix == "":
			s.whereFirst(ids...)
			ids = nil
		case few:
			text, args := prefixed(room, prefix)
			s.whereFirst(ids[start]).where(unindexed(text), args...)
			ids = slices.Delete(ids, start, start+1)
		default:
			text, args := prefixed(room, prefix)
			s.where(room+" <> ''").where(text, args...)
		}
		// One text for all of them: each has a place in the cache of each connection.
		for _, f := range ids {
			if f.column != room {
				s.where("(? = '' or "+f.column+" = ?)", f.id, f.id)
			}
		}
		if l.also != nil {
			l.also(s)
		}
		s.between(l.at, l.id, l.from, l.to, l.afterTime, l.afterID)
	}
	head := "select " + l.columns + "\nfrom "
	if prefix == "" || few || r.dialect.ForceIndex {
		index := "\n"
		switch {
		case prefix != "" && !few:
			index = r.by(l.table + "_by_room")
		case l.room != "": // the primary key, which the bucket is a part of, has another order
			id := strings.TrimPrefix(l.first[start].column, l.as+".")
			index = r.by(l.table + "_by_" + strings.TrimSuffix(id, "_id"))
		}
		s := r.query(head+l.table+" "+l.as+index+l.joins, l.args...)
		where(s)
		s.byValues = !few && slices.ContainsFunc(l.others, func(f idFilter) bool { return f.id != "" })
		return s.page(order, l.limit)
	}
	s := r.query(head+"(select * from (\nselect * from "+l.table+" "+l.as+"\n", l.args...)
	where(s)
	s.add("\noffset 0\n) " + l.as)
	s.page(order, l.limit).add("\n) " + l.as + "\n" + l.joins + "order by " + strings.Join(order, ", "))
	return s
}
