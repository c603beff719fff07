package sweep

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// A full sweep revives discarded tasks that no list of Liveblocks would. What waits for its
// room goes on waiting.
func TestDiscardedTasksAreRevivedByFullSweeps(t *testing.T) {
	t.Parallel()
	for kind, revived := range map[mirror.Kind]bool{
		mirror.KindNotification: true, mirror.KindUserSessions: true, mirror.KindGroup: true,
		mirror.KindStorage: false, mirror.KindThread: false, mirror.KindSweep: false,
	} {
		task := mirror.Task{Resource: mirror.Resource{Kind: kind}, State: mirror.TaskWaiting}
		if worthRetrying(task, false) || worthRetrying(task, true) != revived {
			t.Errorf("%s is requested by sweeps: %t, by full ones: %t; want only by full ones: %t", kind,
				worthRetrying(task, false), worthRetrying(task, true), revived)
		}
	}
}
