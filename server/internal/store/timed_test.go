package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// slowStore takes a second for everything.
type slowStore struct{ store.Store }

func (slowStore) Renew(ctx context.Context, _ mirror.Lease, _ time.Time) error {
	_ = clock.Sleep(ctx, time.Second)
	return store.ErrLeaseLost
}

func (slowStore) Engine(ctx context.Context) (string, error) {
	return "slow", clock.Sleep(ctx, time.Second)
}

// An operation is told with its time, and its result is passed on. Others pass through.
func TestTimed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		told := map[string]time.Duration{}
		s := store.Timed(slowStore{}, func(operation string, took time.Duration) { told[operation] += took })
		if err := s.Renew(t.Context(), mirror.Lease{}, time.Now()); err != store.ErrLeaseLost { //nolint:errorlint // as it is
			t.Errorf("Renew = %v; want what the store returns", err)
		}
		if name, err := s.Engine(t.Context()); name != "slow" || err != nil {
			t.Errorf("Engine = %q, %v", name, err)
		}
		if len(told) != 1 || told["renew"] != time.Second {
			t.Errorf("told = %v; want a second of renew", told)
		}
	})
}
