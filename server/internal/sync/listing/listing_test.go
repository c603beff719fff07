package listing_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

func page(next string, ids ...mirror.RoomID) mirror.RoomPage {
	p := mirror.RoomPage{Next: next}
	for _, id := range ids {
		p.Rooms = append(p.Rooms, mirror.ListedRoom{ID: id})
	}
	return p
}

func TestAddTellsWhatIsNew(t *testing.T) {
	t.Parallel()
	l := listing.New()
	for _, c := range []struct {
		page  mirror.RoomPage
		added int
		ends  bool // with an error
	}{
		{page("1", "a", "b"), 2, false},
		{page("2", "b", "c"), 1, false}, // a room may move while the list is read
		{page("3"), 0, false},
		{page("4", "a", "c"), 0, true},
		{page("", "a", "c"), 0, false},
	} {
		added, err := l.Add(c.page)
		if len(added) != c.added || (err != nil) != c.ends {
			t.Fatalf("Add(%+v) = %v, %v; want %d rooms, failure %t", c.page, added, err, c.added, c.ends)
		}
		if err != nil && !fault.Is(err, fault.ReasonUpstreamCursorInvalid) {
			t.Fatalf("Add = %v; want the cursor blamed", err)
		}
	}
}

// rooms are mirrored.
type rooms []mirror.Room

func (r rooms) RoomIDs(_ context.Context, f store.RoomFilter) (ids []mirror.RoomID, _ error) {
	for _, room := range r {
		if room.ID > f.After && strings.HasPrefix(string(room.ID), f.Prefix) && room.Freshness.DeleteTime.IsZero() {
			ids = append(ids, room.ID)
		}
	}
	slices.Sort(ids)
	return ids[:min(len(ids), f.Limit)], nil
}

// RoomsByID includes tombstones.
func (r rooms) RoomsByID(_ context.Context, _ mirror.ProjectID, ids []mirror.RoomID, _ bool) ([]mirror.Room, error) {
	return slices.DeleteFunc(slices.Clone(r), func(room mirror.Room) bool { return !slices.Contains(ids, room.ID) }), nil
}

func TestLacking(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	var mirrored rooms
	for i := range 2*listing.Batch + 1 {
		mirrored = append(mirrored, mirror.Room{ID: mirror.RoomID(fmt.Sprintf("a-%05d", i))})
	}
	fresh := mirror.Room{ID: "a-new", Freshness: mirror.Freshness{FetchTime: begun}}
	ahead := mirror.Room{ID: "a-ahead", Freshness: mirror.Freshness{FetchTime: begun.AddDate(1, 0, 0)}}
	mirrored = append(mirrored, fresh, ahead, mirror.Room{ID: "other"})
	l := listing.New()
	if _, err := l.Add(page("", "a-00000", "a-01000", "b")); err != nil {
		t.Fatal(err)
	}
	var lacking int
	now := begun.Add(time.Minute)
	n, err := l.Lacking(t.Context(), mirrored, "default", "a-", begun, now, func(rooms []mirror.Room) error {
		lacking += len(rooms)
		return nil
	})
	if err != nil || n != 2*listing.Batch+3 || lacking != 2*listing.Batch {
		t.Fatalf("Lacking = %d of %d, %v; want all but the two listed and the one fetched since", lacking, n, err)
	}
}
