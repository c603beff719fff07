// Package listing compares Liveblocks' list of rooms with the mirrored rooms.
// Sweeps fetch what differs, and verifications report it.
package listing

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// PageSize is the maximum page size of Liveblocks' list.
const PageSize = 100

// Batch is the maximum number of mirrored rooms of one query.
const Batch = 500

// Lister reads the list of rooms page by page; an empty cursor means the first
// page. Failures are faults: UPSTREAM_CURSOR_INVALID if the list does not continue
// from the cursor.
type Lister interface {
	ListRooms(ctx context.Context, cursor string, limit int) (mirror.RoomPage, error)
}

// Rooms reads the mirrored rooms.
type Rooms interface {
	RoomIDs(ctx context.Context, filter store.RoomFilter) ([]mirror.RoomID, error)
	RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, source bool) ([]mirror.Room, error)
}

// Key is the hash by which a listed room is remembered.
type Key [16]byte

// KeyOf returns the key of a room.
func KeyOf(room mirror.RoomID) Key {
	sum := sha256.Sum256([]byte(room))
	return Key(sum[:16])
}

// Listing is the part of the list read so far, from its first page on.
type Listing struct {
	// seen holds the hashes of all listed room ids.
	seen map[Key]struct{}
}

// New returns an empty Listing.
func New() *Listing { return &Listing{seen: make(map[Key]struct{})} }

// Add adds a page and returns the rooms that no earlier page listed. It fails if
// there are none and the list continues: then it repeats instead of ending.
func (l *Listing) Add(page mirror.RoomPage) (added []mirror.ListedRoom, err error) {
	for _, r := range page.Rooms {
		if _, twice := l.seen[KeyOf(r.ID)]; !twice {
			l.seen[KeyOf(r.ID)] = struct{}{}
			added = append(added, r)
		}
	}
	if len(page.Rooms) > 0 && len(added) == 0 && page.Next != "" {
		return nil, fault.New(fault.Unavailable, fault.ReasonUpstreamCursorInvalid,
			"the list of rooms repeats instead of ending")
	}
	return added, nil
}

// Lacking reads the ids of the mirrored rooms whose id starts with prefix. It passes
// on, batch by batch, those rooms that the list does not contain and that were not
// fetched since the list was begun, without their JSON. It returns the number of
// mirrored rooms.
func (l *Listing) Lacking(ctx context.Context, s Rooms, project mirror.ProjectID, prefix string, begun, now time.Time,
	do func([]mirror.Room) error,
) (mirrored int64, err error) {
	filter := store.RoomFilter{Project: project, Prefix: prefix, Limit: Batch}
	for {
		ids, err := s.RoomIDs(ctx, filter)
		if err != nil {
			return 0, fmt.Errorf("list mirrored rooms: %w", err)
		}
		mirrored += int64(len(ids))
		var lacking []mirror.RoomID
		for _, id := range ids {
			if _, listed := l.seen[KeyOf(id)]; !listed {
				lacking = append(lacking, id)
			}
		}
		if len(lacking) > 0 {
			rooms, err := s.RoomsByID(ctx, project, lacking, false)
			if err != nil {
				return 0, fmt.Errorf("read mirrored rooms that the list lacks: %w", err)
			}
			if err := do(slices.DeleteFunc(rooms, func(r mirror.Room) bool {
				return !r.Freshness.DeleteTime.IsZero() || r.Freshness.FetchedBetween(begun, now)
			})); err != nil {
				return 0, err
			}
		}
		if len(ids) < filter.Limit {
			return mirrored, nil
		}
		filter.After = ids[len(ids)-1]
	}
}

// SameLife reports whether a mirrored room and one that Liveblocks shows under its
// id are the same incarnation.
func SameLife(mirrored mirror.Room, shown mirror.RoomContent) bool {
	return mirrored.CreateTime.Equal(shown.CreateTime.Truncate(time.Microsecond))
}

// Implausible returns why so many rooms are unlikely to have vanished, or "" if it
// is plausible. known counts the listed rooms that are mirrored.
func Implausible(listed, known, vanished, mirrored int64) string {
	problem := implausible(listed, known, vanished, mirrored)
	if problem != "" {
		problem += fmt.Sprintf("; if %d rooms are really deleted, confirm it with `liveblocks-mirror project "+
			"confirm-deletions --rooms %d`", vanished, vanished)
	}
	return problem
}

func implausible(listed, known, vanished, mirrored int64) string {
	switch {
	case known == 0 && listed == 0:
		return fmt.Sprintf("the list of rooms is empty, but %d rooms are mirrored; the secret key may belong to another "+
			"project; nothing was deleted", mirrored)
	case known == 0:
		return fmt.Sprintf("the list of rooms contains none of the %d mirrored rooms; the secret key may belong to "+
			"another project; nothing was deleted", mirrored)
	case store.TooManyVanished(vanished, mirrored):
		return fmt.Sprintf("the list of rooms lacks %d of the %d mirrored rooms, more than is accepted at once; nothing "+
			"was deleted", vanished, mirrored)
	default:
		return ""
	}
}
