package store_test

import (
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestExpired(t *testing.T) {
	t.Parallel()
	before := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	old, young := before.Add(-time.Microsecond), before.Add(time.Hour)
	for _, c := range []struct {
		table store.Aging
		row   store.AgedRow
		want  bool
	}{
		{store.AgingEvents, store.AgedRow{Time: old}, true},
		{store.AgingEvents, store.AgedRow{Time: before}, false},
		{store.AgingEvents, store.AgedRow{Time: young}, false},
		{store.AgingEvents, store.AgedRow{Time: old, Waits: true}, false},
		{store.AgingEvents, store.AgedRow{}, false},
		{store.AgingNotifications, store.AgedRow{Time: old}, true},
		{store.AgingNotifications, store.AgedRow{Time: before}, false},
		{store.AgingSessions, store.AgedRow{Time: old}, false},
		{store.AgingSessions, store.AgedRow{Time: old, End: old}, true},
		{store.AgingSessions, store.AgedRow{Time: old, End: before}, false},
		{store.AgingSessions, store.AgedRow{Time: old, End: young}, false},
		{store.AgingRooms, store.AgedRow{Time: old}, true},
		{store.AgingRooms, store.AgedRow{Time: old, Waits: true}, false},
		{store.AgingThreads, store.AgedRow{Time: before}, false},
		{store.AgingThreads, store.AgedRow{}, false}, // it lives
		{store.AgingGroups, store.AgedRow{Time: old}, true},
	} {
		if got := c.table.Expired(c.row, before); got != c.want {
			t.Errorf("%s: %+v expired = %t; want %t", c.table, c.row, got, c.want)
		}
	}
}

func TestTrimThrough(t *testing.T) {
	t.Parallel()
	before := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(number int64, age time.Duration) mirror.Change {
		return mirror.Change{Number: number, CommitTime: before.Add(-age)}
	}
	for name, c := range map[string]struct {
		entries []mirror.Change
		head    int64
		want    int64
	}{
		"nothing":                     {nil, 7, 0},
		"all old":                     {[]mirror.Change{at(3, time.Hour), at(4, time.Hour), at(5, 1)}, 9, 5},
		"some old":                    {[]mirror.Change{at(3, time.Hour), at(4, 0), at(5, -time.Hour)}, 9, 3},
		"none old":                    {[]mirror.Change{at(3, 0)}, 9, 0},
		"a clock that was behind":     {[]mirror.Change{at(3, time.Hour), at(4, -1), at(5, time.Hour)}, 9, 3},
		"the latest stays":            {[]mirror.Change{at(3, time.Hour), at(4, time.Hour)}, 4, 3},
		"only the latest":             {[]mirror.Change{at(4, time.Hour)}, 4, 0},
		"an entry not yet to be seen": {[]mirror.Change{at(3, time.Hour), at(5, time.Hour)}, 9, 3},
	} {
		if got := store.TrimThrough(c.entries, c.head, before); got != c.want {
			t.Errorf("%s: TrimThrough = %d; want %d", name, got, c.want)
		}
	}
}
