package fresh_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/fresh"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// refusing fails every refresh.
type refusing struct{}

func (refusing) Refresh(context.Context, ...mirror.Resource) error { return errors.New("no refresh") }

// A room that is mirrored while a reader looks for its tombstone is found; a tombstone is not.
func TestMirroredBetweenTwoLooks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := &fresh.Reader{
		Refresher: refusing{}, Now: func() time.Time { return now }, NotRefreshed: func(context.Context, error) {},
	}
	age := time.Hour
	for _, c := range []struct {
		second mirror.Freshness
		want   error
	}{
		{mirror.Freshness{FetchTime: now}, nil},
		{mirror.Freshness{FetchTime: now.Add(-time.Minute), DeleteTime: now}, store.ErrNotFound},
	} {
		room, err := fresh.Read(t.Context(), r, fresh.Options{MaxAge: &age}, fresh.Spec[mirror.Room]{
			Resource: mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom},
			Get: func(_ context.Context, _ mirror.Resource, deleted bool) (mirror.Room, error) {
				if !deleted {
					return mirror.Room{}, store.ErrNotFound
				}
				return mirror.Room{ID: "room", Freshness: c.second}, nil
			},
			Freshness: func(room *mirror.Room) *mirror.Freshness { return &room.Freshness },
		})
		if !errors.Is(err, c.want) || c.want == nil && room.ID != "room" {
			t.Errorf("Read of a room that is %+v at the second look = %+v, %v; want %v", c.second, room, err, c.want)
		}
	}
}
