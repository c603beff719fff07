// Package crash_test kills the service, its replicas and its database at every
// step, and checks the promises for that case: acknowledged events are stored
// exactly once, and the mirror becomes equal to Liveblocks.
//
// The service is the real binary on a real server of each SQL engine. It is stopped
// at a step only from outside: by a proxy that holds a statement or its reply, by
// locks of another session, and by a Liveblocks that holds its responses.
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
