// Package crash_test kills the service, its replicas and its database at every
// step of the way, and checks what is promised for that case: what was
// acknowledged is there exactly once, and the mirror ends up equal to Liveblocks.
//
// The service is the real binary on a real server of each SQL engine. It is stopped
// at a step from outside alone: by a proxy that holds a statement or its reply, by
// locks of another session, and by a Liveblocks that holds its answers.
package crash_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

func TestMain(m *testing.M) {
	dbtest.Parallel(4)
	dbtest.Run(m)
	harness.Clean()
}
