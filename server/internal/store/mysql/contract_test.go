package mysql_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	needServer(t)
	all := &databases{parent: t}
	storetest.Run(t, func(t testing.TB) storetest.Database {
		url := all.lend(t)
		return func(t storetest.T) store.Store { return open(t, mysql.Config{URL: url}) }
	})
}
