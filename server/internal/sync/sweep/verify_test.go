package sweep

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// damaged is a mirror of one room whose copy is not what Liveblocks has.
type damaged struct {
	Mirrored // what is not used here
	*world
}

func (d damaged) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	return d.world.Request(ctx, requests, now)
}

func (d damaged) Rooms(ctx context.Context, filter store.RoomFilter) ([]mirror.Room, error) {
	return d.world.Rooms(ctx, filter)
}

func (d damaged) Room(context.Context, mirror.Resource, bool) (mirror.Room, error) {
	return d.rooms["room"], nil
}

func (d damaged) Stored(context.Context, mirror.Resource) (mirror.Stored, error) {
	return mirror.Stored{Content: []byte(`{}`)}, nil
}

func (d damaged) Documents(context.Context, store.DocumentFilter) ([]mirror.Document, error) {
	return nil, nil
}

func (d damaged) Task(context.Context, mirror.Resource, time.Time) (mirror.Task, error) {
	return mirror.Task{State: mirror.TaskDone}, nil
}

func (d damaged) Invalidate(context.Context, mirror.Resource) error { return nil }

// denying is a Liveblocks that lists a room, and denies what is in it.
type denying struct {
	*world
	room error // how it answers when it is asked for the room
}

func (d denying) Room(context.Context, mirror.RoomID) (mirror.RoomContent, error) {
	return content("room"), d.room
}

func (d denying) Storage(context.Context, mirror.RoomID) (mirror.Fetched, error) {
	return mirror.Fetched{}, denied()
}

func (d denying) Ydoc(context.Context, mirror.RoomID, string) (mirror.Fetched, error) {
	return mirror.Fetched{}, denied()
}

func (d denying) Threads(context.Context, mirror.RoomID) (mirror.Fetched, error) {
	return mirror.Fetched{}, denied()
}

func denied() error {
	return fault.New(fault.Precondition, fault.ReasonUpstreamAccessDenied, "Liveblocks denies access to the room")
}

// A difference that could be looked at but once is no difference, and not none
// either: a verification that tells of nothing has compared everything.
func TestVerifyTellsWhatItCouldNotLookAtAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		room error
		want mirror.VerifySummary
	}{
		// Storage, Yjs and threads are skipped by the first look.
		"it is looked at again": {nil, mirror.VerifySummary{Drifts: 1, Skipped: 3}},
		"it is denied":          {denied(), mirror.VerifySummary{Skipped: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				w.listed("room")
				w.mirrored("room")
				v := NewVerifier(VerifierConfig{Store: damaged{world: w}, Fetcher: denying{w, c.room}, Limiter: w, Now: time.Now})
				var got mirror.VerifySummary
				err := v.Verify(t.Context(), mirror.VerifyOptions{Project: project}, func(report mirror.VerifyReport) error {
					if report.Summary != nil {
						got = *report.Summary
					}
					return nil
				})
				if err != nil || got.Drifts != c.want.Drifts || got.Skipped != c.want.Skipped {
					t.Fatalf("Verify = %v, %+v; want %+v", err, got, c.want)
				}
			})
		})
	}
}
