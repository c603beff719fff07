package app

import (
	"context"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
)

// shownFetcher tells what a fetch with the project's key has shown. That proves that
// an event which names it is from the project of the key.
type shownFetcher struct {
	reconcile.Fetcher

	project mirror.ProjectID
	shown   func(ctx context.Context, shown mirror.Resource)
}

// room tells that a room was shown, unless its fetch failed.
func (f *shownFetcher) room(ctx context.Context, id mirror.RoomID, err error) {
	if err == nil {
		f.shown(ctx, mirror.Resource{Project: f.project, Room: id, Kind: mirror.KindRoom})
	}
}

func (f *shownFetcher) Room(ctx context.Context, id mirror.RoomID) (mirror.RoomContent, error) {
	got, err := f.Fetcher.Room(ctx, id)
	f.room(ctx, id, err)
	return got, err
}

func (f *shownFetcher) Storage(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error) {
	got, err := f.Fetcher.Storage(ctx, id)
	f.room(ctx, id, err)
	return got, err
}

func (f *shownFetcher) Ydoc(ctx context.Context, id mirror.RoomID, guid string) (mirror.Fetched, error) {
	got, err := f.Fetcher.Ydoc(ctx, id, guid)
	f.room(ctx, id, err)
	return got, err
}

func (f *shownFetcher) Thread(ctx context.Context, id mirror.RoomID, thread string) (mirror.Fetched, error) {
	got, err := f.Fetcher.Thread(ctx, id, thread)
	f.room(ctx, id, err)
	return got, err
}

func (f *shownFetcher) InboxNotification(ctx context.Context, user, id string) (mirror.Fetched, error) {
	got, err := f.Fetcher.InboxNotification(ctx, user, id)
	if err == nil {
		f.shown(ctx, mirror.Resource{Project: f.project, Kind: mirror.KindNotification, ID: id})
	}
	return got, err
}
