package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// breaking has three rooms with two rows each, and fails from some step on.
type breaking struct {
	store.Purge

	steps int
	rows  map[mirror.RoomID]int
}

var errBreaks = errors.New("it breaks")

func (b *breaking) step() error {
	if b.steps--; b.steps < 0 {
		return errBreaks
	}
	return nil
}

func (b *breaking) DeletedRooms(_ context.Context, _ mirror.ProjectID, _ time.Time, after mirror.RoomID, _ int) (
	[]mirror.RoomID, error,
) {
	if after != "" {
		return nil, b.step()
	}
	return []mirror.RoomID{"a", "b", "c"}, b.step()
}

func (b *breaking) Remains(_ context.Context, room mirror.Resource) (store.TableRows, error) {
	if err := b.step(); err != nil {
		return nil, err
	}
	return store.TableRows{"mirror_thread": int64(b.rows[room.Room])}, nil
}

func (b *breaking) PurgeRoom(_ context.Context, room mirror.Resource, _ time.Time, _ int) (store.TableRows, error) {
	if err := b.step(); err != nil || b.rows[room.Room] == 0 {
		return nil, err
	}
	b.rows[room.Room]--
	return store.TableRows{"mirror_thread": 1}, nil
}

// A purge of rooms that breaks off tells what it has done, and that this is not all.
func TestPurgeOfRoomsThatBreaksOff(t *testing.T) {
	t.Parallel()
	for steps := range 12 {
		for _, remove := range []bool{true, false} {
			s := &breaking{steps: steps, rows: map[mirror.RoomID]int{"a": 2, "b": 2, "c": 2}}
			done, err := purge(t.Context(), s, Purge{Project: "default", Delete: remove}, time.Now())
			want := PurgedRooms{Project: "default", Purged: remove, Complete: err == nil}
			switch {
			case !remove:
				want.Rooms = min(max(steps-1, 0), 3)
				want.Rows = 2 * int64(want.Rooms)
			default:
				for _, left := range s.rows {
					if want.Rows += int64(2 - left); left < 2 {
						want.Rooms++
					}
				}
			}
			if ends := map[bool]int{true: 11, false: 5}[remove]; done != want || (err == nil) != (steps >= ends) {
				t.Errorf("after %d steps, delete %t: %+v, %v; want %+v", steps, remove, done, err, want)
			}
			var text strings.Builder
			done.Say(&text)
			if says := done.Complete || remove && done.Rows > 0; says != (text.Len() > 0) {
				t.Errorf("after %d steps, delete %t, it says %q", steps, remove, text.String())
			}
		}
	}
}
