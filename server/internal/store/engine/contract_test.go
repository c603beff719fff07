package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		storetest.Run(t, func(t testing.TB) storetest.Database {
			url := e.Database(t)
			// A limit, as the service sets one, is a part of the statements for MySQL.
			return func(t storetest.T) store.Store {
				return open(t, engine.Config{URL: url, ReadTimeout: time.Minute})
			}
		})
	})
}

// On a sharded server no transaction holds several buckets. What the contract says holds
// there too, and on any server.
func TestContractByBucket(t *testing.T) {
	t.Parallel()
	dbtest.MySQL.Need(t)
	for _, group := range []string{"ledger", "project", "presence", "sweep", "concurrency"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			storetest.RunGroup(t, group, func(t testing.TB) storetest.Database {
				url := dbtest.MySQL.Database(t)
				return func(t storetest.T) store.Store { return open(t, engine.Config{URL: url, Sharded: true}) }
			})
		})
	}
}

// A batch that one bucket refuses, or cannot write, is recorded in the others.
func TestBucketsFailApart(t *testing.T) {
	t.Parallel()
	url := dbtest.MySQL.Database(t)
	s := open(t, engine.Config{URL: url, Sharded: true})
	here, there := storageIn("here"), storageIn("there")
	if here.Bucket() == there.Bucket() {
		t.Fatal("the rooms share a bucket")
	}
	bad := deliveryOf("bad", here)
	bad.Event.ReceiveTime = time.Time{}
	batch := []mirror.Delivery{deliveryOf("beside", here), bad, deliveryOf("apart", there)}
	answers, err := s.Accept(t.Context(), batch)
	if err != nil || len(answers) != len(batch) {
		t.Fatalf("Accept = %+v, %v; want an answer to each", answers, err)
	}
	for i, recorded := range []bool{true, false, true} {
		if answers[i].Fresh != recorded || (answers[i].Err == nil) != recorded {
			t.Errorf("answer to %q = %+v; recorded is %t", batch[i].Event.ID, answers[i], recorded)
		}
		_, err := s.Event(t.Context(), "default", batch[i].Event.ID)
		if (err == nil) != recorded {
			t.Errorf("Event %q = %v; recorded is %t", batch[i].Event.ID, err, recorded)
		}
	}
}

func storageIn(room mirror.RoomID) mirror.Resource {
	return mirror.Resource{Project: "default", Room: room, Kind: mirror.KindStorage}
}

// poolerPort is not one that is recognised as a pooler's.
const poolerPort = "16999"

// The tables are in a schema of their own, to which a pooler keeps no search path.
func TestContractThroughPgBouncer(t *testing.T) {
	t.Parallel()
	direct := dbtest.Postgres.Database(t)
	pooler := pgtest.StartPooler(t, direct, poolerPort)
	wantPooled(t, pooler.Through(t, direct))
	storetest.Run(t, func(t testing.TB) storetest.Database {
		pooled := pooler.Through(t, dbtest.InSchema(t))
		return func(t storetest.T) store.Store { return open(t, engine.Config{URL: pooled, Pooled: true}) }
	})
	t.Run("migrate", func(t *testing.T) {
		t.Parallel()
		empty := dbtest.Postgres.Empty(t)
		pooled := pgtest.StartPooler(t, empty, poolerPort).Through(t, empty) // as an administrator
		migrate(t, pooled)
		if err := open(t, engine.Config{URL: pooled, Pooled: true}).Ping(t.Context()); err != nil {
			t.Fatalf("Ping = %v; want nil", err)
		}
	})
}

// wantPooled proves that the pooler hands each transaction another connection, or
// the rest of the test would show nothing.
func wantPooled(t *testing.T, pooled string) {
	t.Helper()
	var conns [2]*pgx.Conn
	for i := range conns {
		conn, err := pgx.Connect(t.Context(), pooled)
		if err != nil {
			t.Fatalf("Connect = %v", err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		conns[i] = conn
	}
	if _, err := conns[0].Prepare(t.Context(), "mine", "select 1"); err != nil {
		t.Fatalf("Prepare = %v", err)
	}
	tx, err := conns[1].Begin(t.Context()) // takes the only connection to the server
	if err != nil {
		t.Fatalf("Begin = %v", err)
	}
	if _, err := conns[0].Exec(t.Context(), "mine"); err == nil {
		t.Fatal("a prepared statement was there in the next transaction; want the pooler to have switched connections")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatalf("Rollback = %v", err)
	}
}

// More callers than the pooler has connections only wait.
func TestManyCallersThroughPgBouncer(t *testing.T) {
	t.Parallel()
	pooler := pgtest.StartPooler(t, dbtest.Postgres.Database(t), poolerPort)
	s := open(t, engine.Config{URL: pooler.URL, Pooled: true, MaxConns: 40})
	errs := make([]error, 40)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for range 5 {
				r := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprintf("room-%d", i%7)), Kind: mirror.KindStorage}
				if _, err := s.Request(t.Context(), requestsFor(r), testTime); err != nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("Request = %v; want no error", err)
	}
}

// Replicas may write through different nodes of a cluster, where a lock taken on
// one is unknown to the others, and a commit may lose.
func TestContractOnGalera(t *testing.T) {
	t.Parallel()
	cluster := mysqltest.Galera(t, mysqltest.Options{})
	migrateAtOnce(t, cluster)
	var databases atomic.Int64
	for _, group := range []string{"concurrency", "feed"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			storetest.RunGroup(t, group, func(t testing.TB) storetest.Database {
				name := fmt.Sprintf("contract_%d", databases.Add(1))
				if err := engine.Migrate(t.Context(), cluster.Node(0).Database(t, name), new(journal).logger()); err != nil {
					t.Fatalf("Migrate = %v", err)
				}
				node := -1
				return func(t storetest.T) store.Store {
					node++ // the second store of a case is on the second node
					return open(t, engine.Config{URL: cluster.Node(node % 3).URL(name)})
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
		s := open(t, engine.Config{URL: cluster.Node(i).URL("at_once")})
		eventually(t, "the database on every node",
			func() bool { return errors.Is(s.Ping(t.Context()), store.ErrSchemaBehind) })
	}
	startAtOnce(t, 4, func(i int) string { return cluster.Node(i % 3).URL("at_once") })
}

// startAtOnce migrates a database from nothing, so many times at once, and wants each
// migration applied by one of them.
func startAtOnce(t *testing.T, n int, url func(i int) string) {
	t.Helper()
	logs, errs := make([]journal, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = engine.Migrate(t.Context(), url(i), logs[i].logger()) })
	}
	wg.Wait()
	applied := 0
	for i := range n {
		if errs[i] != nil {
			t.Fatalf("Migrate %d = %v", i, errs[i])
		}
		applied += strings.Count(logs[i].String(), "migration applied")
	}
	if applied != migrations {
		t.Fatalf("%d at once applied %d migrations; want %d", n, applied, migrations)
	}
}
