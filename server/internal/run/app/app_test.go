package app

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/sweep"
)

// A kind without a handler would fail each of its tasks.
func TestEveryKindHasAHandler(t *testing.T) {
	t.Parallel()
	registered := handlers(reconcile.New(reconcile.Config{}), sweep.New(sweep.Config{}))
	for _, kind := range mirror.Kinds() {
		if registered[kind] == nil {
			t.Errorf("no handler does the tasks of %s", kind)
		}
	}
}
