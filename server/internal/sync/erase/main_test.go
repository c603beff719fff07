package erase_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// withServers runs the tests around the lives of the shared servers.
type withServers struct{ m *testing.M }

func (s withServers) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServers{m}) }
