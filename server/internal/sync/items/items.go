// Package items says how the items of each kind, such as threads and groups, are
// fetched and read.
package items

import (
	"context"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/group"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Lister reads lists of items from Liveblocks.
type Lister interface {
	// Threads reads all threads of a room, with their comments.
	Threads(ctx context.Context, id mirror.RoomID) (mirror.List, error)
	// Groups reads every group of the project.
	Groups(ctx context.Context) (mirror.List, error)
}

// Fetcher reads items from Liveblocks.
type Fetcher interface {
	Lister
	Thread(ctx context.Context, id mirror.RoomID, thread string) (mirror.Fetched, error)
	Group(ctx context.Context, id string) (mirror.Fetched, error)
}

// Source fetches and reads the items of a kind.
type Source struct {
	One  func(ctx context.Context, f Fetcher, r mirror.Resource) (mirror.Fetched, error)
	List func(ctx context.Context, l Lister, r mirror.Resource) (mirror.List, error)
	// Parse reads an item as it is to be stored.
	Parse func(source []byte) (store.Item, error)
}

// Sources are the sources by kind: one for each of [store.ItemKinds].
var Sources = map[mirror.Kind]Source{
	mirror.KindThread: {
		One: func(ctx context.Context, f Fetcher, r mirror.Resource) (mirror.Fetched, error) {
			return f.Thread(ctx, r.Room, r.ID)
		},
		List: func(ctx context.Context, l Lister, r mirror.Resource) (mirror.List, error) {
			return l.Threads(ctx, r.Room)
		},
		Parse: func(source []byte) (store.Item, error) {
			t, err := thread.Parse(source)
			return store.ThreadItem(t), err
		},
	},
	mirror.KindGroup: {
		One: func(ctx context.Context, f Fetcher, r mirror.Resource) (mirror.Fetched, error) {
			return f.Group(ctx, r.ID)
		},
		List: func(ctx context.Context, l Lister, _ mirror.Resource) (mirror.List, error) {
			return l.Groups(ctx)
		},
		Parse: func(source []byte) (store.Item, error) {
			g, err := group.Parse(source)
			return store.GroupItem(g), err
		},
	},
}

// Implausible returns why so many items are unlikely to have vanished, and how an
// operator confirms that they have.
func Implausible(kind mirror.Kind, lacks *store.ImplausibleError) string {
	return fmt.Sprintf("the list of %ss lacks %d of the %d mirrored ones, more than is believed at once; nothing was "+
		"deleted; if they are really deleted, confirm it with `liveblocks-mirror project confirm-deletions --%ss %d`",
		kind, lacks.Vanished, lacks.Mirrored, kind, lacks.Vanished)
}
