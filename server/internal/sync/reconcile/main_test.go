package reconcile_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// withServers runs the tests around the lives of the shared servers.
type withServers struct{ m *testing.M }

func (s withServers) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) {
	// A check of the property takes seconds of real time; ask for more of them on
	// the command line.
	for name, value := range map[string]string{"rapid.checks": "5", "rapid.shrinktime": "20s"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	dbtest.Parallel(6)
	goleak.VerifyTestMain(withServers{m})
}
