package storetest

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

type firstTerm struct{ base }

func (m *firstTerm) LatestRooms(ctx context.Context, f store.LatestRoomFilter) ([]mirror.Room, error) {
	f.Terms = f.Terms[:min(1, len(f.Terms))]
	return m.Store.LatestRooms(ctx, f)
}

type oldestRooms struct{ base }

func (m *oldestRooms) LatestRooms(ctx context.Context, f store.LatestRoomFilter) ([]mirror.Room, error) {
	rooms, err := m.Store.LatestRooms(ctx, f)
	slices.Reverse(rooms)
	return rooms, err
}

type leavesUnindexed struct{ base }

func (m *leavesUnindexed) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyRoom(ctx, lease, room, now, settle)
	if err == nil {
		_, err = m.d.sql.Exec(ctx, "update mirror_room set terms_sha256 = null")
	}
	return applied, err
}

type firstMetadata struct{ base }

func (m *firstMetadata) Threads(ctx context.Context, f store.ThreadFilter) ([]mirror.Thread, error) {
	if names := slices.Sorted(maps.Keys(f.Metadata)); len(names) > 1 {
		f.Metadata = map[string]string{names[0]: f.Metadata[names[0]]}
	}
	return m.Store.Threads(ctx, f)
}

// afterItem runs a statement after each thread that is applied.
type afterItem struct {
	base

	statement string
}

func (m *afterItem) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
	if err == nil {
		_, err = m.d.sql.Exec(ctx, m.statement)
	}
	return applied, err
}

// cleansAllTerms deletes terms of what is there.
type cleansAllTerms struct{ base }

func (m *cleansAllTerms) CleanTerms(ctx context.Context, project mirror.ProjectID, of mirror.Kind, bucket int16,
	after store.TermPlace, limit int,
) (store.CleanedTerms, error) {
	if _, err := m.d.sql.Exec(ctx, "delete from mirror_room_term"); err != nil {
		return store.CleanedTerms{}, err
	}
	return m.Store.CleanTerms(ctx, project, of, bucket, after, limit)
}

// cleansOnePiece says of each piece of terms that it is the last one.
type cleansOnePiece struct{ base }

func (m *cleansOnePiece) CleanTerms(ctx context.Context, project mirror.ProjectID, of mirror.Kind, bucket int16,
	after store.TermPlace, limit int,
) (store.CleanedTerms, error) {
	out, err := m.Store.CleanTerms(ctx, project, of, bucket, after, limit)
	out.More = false
	return out, err
}
