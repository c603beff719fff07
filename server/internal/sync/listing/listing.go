// Package listing compares the list of all rooms that Liveblocks gives with the
// rooms that are mirrored: for sweeps, which fetch what differs, and for
// verifications, which report it.
package listing

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// PageSize is the most that Liveblocks lists at once.
const PageSize = 100

// Batch bounds one look at what is mirrored.
const Batch = 500

// Lister reads the list of all rooms, page by page; an empty cursor is that of the
// first. Failures are faults: UPSTREAM_CURSOR_INVALID if the list does not go on
// from the cursor.
type Lister interface {
	ListRooms(ctx context.Context, cursor string, limit int) (mirror.RoomPage, error)
}

// Rooms reads the rooms that are mirrored.
type Rooms interface {
	Rooms(ctx context.Context, filter store.RoomFilter) ([]mirror.Room, error)
}

// Listing is what was read of the list so far, from its first page on.
type Listing struct {
	// seen holds the ids of all rooms that were listed, by their hash.
	seen map[[16]byte]struct{}
}

// New returns a Listing of which nothing was read.
func New() *Listing { return &Listing{seen: make(map[[16]byte]struct{})} }

func key(room mirror.RoomID) [16]byte {
	sum := sha256.Sum256([]byte(room))
	return [16]byte(sum[:16])
}

// Add notes what a page lists and returns what no page before it did. It fails if
// that is nothing and the list goes on: it repeats instead of ending.
func (l *Listing) Add(page mirror.RoomPage) (added []mirror.ListedRoom, err error) {
	for _, r := range page.Rooms {
		if _, twice := l.seen[key(r.ID)]; !twice {
			l.seen[key(r.ID)] = struct{}{}
			added = append(added, r)
		}
	}
	if len(page.Rooms) > 0 && len(added) == 0 && page.Next != "" {
		return nil, fault.New(fault.Unavailable, fault.ReasonUpstreamCursorInvalid,
			"the list of rooms repeats instead of ending")
	}
	return added, nil
}

// Lacking goes through the mirrored rooms whose id begins with prefix. It hands
// over, batch by batch, those that the list lacks and that were not fetched since
// the list was begun, and returns how many rooms are mirrored.
func (l *Listing) Lacking(ctx context.Context, s Rooms, project mirror.ProjectID, prefix string, begun time.Time,
	do func([]mirror.Room) error) (mirrored int64, err error) {
	filter := store.RoomFilter{Project: project, Prefix: prefix, Limit: Batch}
	for {
		rooms, err := s.Rooms(ctx, filter)
		if err != nil {
			return 0, fmt.Errorf("list mirrored rooms: %w", err)
		}
		mirrored += int64(len(rooms))
		var lacking []mirror.Room
		for _, room := range rooms {
			if _, listed := l.seen[key(room.ID)]; !listed && room.Freshness.FetchTime.Before(begun) {
				lacking = append(lacking, room)
			}
		}
		if err := do(lacking); err != nil {
			return 0, err
		}
		if len(rooms) < filter.Limit {
			return mirrored, nil
		}
		filter.After = rooms[len(rooms)-1].ID
	}
}

// The rooms that one list lacks are believed to have vanished up to a share of the
// mirrored rooms, or a number where that is more. Beyond it, a wrong key or a broken
// list is likelier than a deletion of which every event was lost.
const (
	vanishedShare = 5 // one in so many
	vanishedLeast = 20
)

// Implausible tells why a list must not be believed that so many rooms vanished;
// empty if it may be. Known are those of the listed rooms that are mirrored.
func Implausible(listed, known, vanished, mirrored int64) string {
	switch {
	case known == 0 && listed == 0:
		return fmt.Sprintf("the list of rooms is empty, and %d are mirrored; the secret key may be that of another "+
			"project, and nothing was deleted", mirrored)
	case known == 0:
		return fmt.Sprintf("the list of rooms holds none of the %d that are mirrored; the secret key may be that of "+
			"another project, and nothing was deleted", mirrored)
	case vanished > max(vanishedLeast, mirrored/vanishedShare):
		return fmt.Sprintf("the list of rooms lacks %d of the %d that are mirrored, which is more than is believed at "+
			"once; nothing was deleted", vanished, mirrored)
	default:
		return ""
	}
}
