package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// busyIndexer has rooms to index, of which others write more all the time.
type busyIndexer struct {
	left    []store.IndexPlace
	calls   int
	threads error
}

func (b *busyIndexer) IndexRooms(_ context.Context, _ mirror.ProjectID, after store.IndexPlace, _ int) (
	last store.IndexPlace, n int, err error,
) {
	b.calls++
	b.left = append(b.left, store.IndexPlace{Room: mirror.RoomID(fmt.Sprint("a", b.calls))}) // before the place
	for i, place := range b.left {
		if place.Room > after.Room && place.Bucket >= after.Bucket {
			b.left = slices.Delete(b.left, i, i+1)
			return place, 1, nil
		}
	}
	return after, 0, nil
}

func (b *busyIndexer) IndexThreads(context.Context, mirror.ProjectID, store.IndexPlace, int) (
	last store.IndexPlace, n int, err error,
) {
	return store.IndexPlace{}, 0, b.threads
}

// Indexing ends, although others write rooms that are to be indexed faster than it goes on.
func TestIndexingEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &busyIndexer{threads: errors.New("away")}
		for i := range 10 {
			b.left = append(b.left, store.IndexPlace{Bucket: 7, Room: mirror.RoomID(fmt.Sprint("r", i))})
		}
		told := 0
		n, err := store.IndexAll(t.Context(), b, "p", func(store.Indexed) { told++ })
		if !errors.Is(err, b.threads) || n.Rooms != 10 || n.Threads != 0 || b.calls != 11 || told != 10 {
			t.Fatalf("IndexAll = %+v, %v with %d calls, told %d times; want the 10 rooms once, then the error of threads", n,
				err, b.calls, told)
		}
	})
}
