package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// Replicas may write through different nodes of a cluster, where a lock taken on
// one is unknown to the others, and a commit may lose.
func TestContractOnGalera(t *testing.T) {
	t.Parallel()
	needServer(t)
	cluster := mysqltest.Galera(t, mysqltest.Options{})
	migrateAtOnce(t, cluster)
	var databases atomic.Int64
	for _, group := range []string{"concurrency", "feed"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			storetest.RunGroup(t, group, func(t testing.TB) storetest.Database {
				name := fmt.Sprintf("contract_%d", databases.Add(1))
				if err := mysql.Migrate(context.Background(), cluster.Node(0).Database(t, name),
					slog.New(slog.DiscardHandler)); err != nil {
					t.Fatalf("Migrate = %v", err)
				}
				node := -1
				return func(t storetest.T) store.Store {
					node++ // the second store of a case is on the second node
					return open(t, mysql.Config{URL: cluster.Node(node % 3).URL(name)})
				}
			})
		})
	}
}

// migrateAtOnce starts four, on all the nodes.
func migrateAtOnce(t *testing.T, cluster *mysqltest.Cluster) {
	t.Helper()
	cluster.Node(0).Database(t, "at_once")
	for i := range 3 {
		s := open(t, mysql.Config{URL: cluster.Node(i).URL("at_once")})
		eventually(t, "the database on every node",
			func() bool { return errors.Is(s.Ping(t.Context()), store.ErrSchemaBehind) })
	}
	var logs [4]journal
	var errs [4]error
	var wg sync.WaitGroup
	for i := range logs {
		wg.Go(func() {
			errs[i] = mysql.Migrate(t.Context(), cluster.Node(i%3).URL("at_once"), logs[i].logger())
		})
	}
	wg.Wait()
	applied := 0
	for i := range logs {
		if errs[i] != nil {
			t.Fatalf("Migrate %d = %v", i, errs[i])
		}
		applied += strings.Count(logs[i].String(), "migration applied")
	}
	if applied != 2 {
		t.Fatalf("four at once applied %d migrations; want 2", applied)
	}
}
