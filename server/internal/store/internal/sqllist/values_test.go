package sqllist_test

import (
	"context"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

// Lists by what some rows have and most do not are planned with their values; the others
// with a plan that stays.
func TestListsPlannedByValues(t *testing.T) {
	t.Parallel()
	const mark = "by values"
	d := sqllist.Dialect{
		ByValues: []any{mark}, Key: func(id string) any { return []byte(id) }, Time: func(at time.Time) any { return at },
	}
	var marked bool
	yes := true
	run := func(_ context.Context, _ string, args []any, _ func(sqllist.Row) error) error {
		marked = args[0] == any(mark)
		return nil
	}
	r := sqllist.NewReader(d, run, func(_ context.Context, err error) error { return err }, nil, 0)
	for name, c := range map[string]struct {
		read func(ctx context.Context) error
		want bool
	}{
		"notifications by kind": {func(ctx context.Context) error {
			_, err := r.Notifications(ctx, store.NotificationFilter{Kind: "thread", Limit: 1})
			return err
		}, true},
		"threads that are resolved": {func(ctx context.Context) error {
			_, err := r.Threads(ctx, store.ThreadFilter{Resolved: &yes, Limit: 1})
			return err
		}, true},
		"threads of a room that are resolved": {func(ctx context.Context) error {
			_, err := r.Threads(ctx, store.ThreadFilter{Room: "r", Resolved: &yes, Limit: 1})
			return err
		}, true},
		"threads of a room": {func(ctx context.Context) error {
			_, err := r.Threads(ctx, store.ThreadFilter{Room: "r", Limit: 1})
			return err
		}, false},
		"notifications by user": {func(ctx context.Context) error {
			_, err := r.Notifications(ctx, store.NotificationFilter{User: "alice", Limit: 1})
			return err
		}, false},
		"audit by method": {func(ctx context.Context) error {
			_, err := r.AuditEntries(ctx, store.AuditFilter{Method: "PauseProject", Limit: 1})
			return err
		}, true},
		"audit": {func(ctx context.Context) error {
			_, err := r.AuditEntries(ctx, store.AuditFilter{Limit: 1})
			return err
		}, false},
	} {
		if err := c.read(t.Context()); err != nil || marked != c.want {
			t.Errorf("%s: planned by values = %t, %v; want %t", name, marked, err, c.want)
		}
	}
}
