package crash_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
)

// Invariant 1 where one of several shards dies under load. Nothing that was acknowledged
// is lost, the rooms of the other shards are mirrored meanwhile, and those of the dead one
// when it is back.
func TestShardKilled(t *testing.T) {
	t.Parallel()
	cluster := mysqltest.StartShards(t, 4, mysql.VSchema())
	s := newSiteAt(t, dbtest.MySQL, cluster.URL())
	s.env["MIRROR_MIGRATE"] = "true"
	service := s.start()
	s.populate(service)
	rooms := make([][]string, len(cluster.Servers)) // by shard
	for i := range rooms {
		db := dbtest.MySQL.Connect(t, cluster.Shard(i))
		err := db.Each(t.Context(), "select room_id from mirror_room", func(scan func(dest ...any) error) error {
			var id string
			err := scan(&id)
			rooms[i] = append(rooms[i], id)
			return err
		})
		if err != nil || len(rooms[i]) < 2 {
			t.Fatalf("rooms of shard %d = %q, %v; want some of the %d in each", i, rooms[i], err, initialRooms)
		}
	}
	const dead = 1

	// Both kinds of rooms change all the time, those of the dead shard until it dies: their
	// deliveries are repeated until it is back.
	var changers sync.WaitGroup
	change := func(ids []string) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		seed := rand.Uint64()
		changers.Go(func() { s.change(ctx, rand.New(rand.NewPCG(seed, 0)), ids) })
		return cancel
	}
	var alive []string
	for i, ids := range rooms {
		if i != dead {
			alive = append(alive, ids[1:]...) // the first one is changed below
		}
	}
	stopDead, stopAlive := change(rooms[dead][1:]), change(alive)
	s.more(50)
	cluster.Servers[dead].Kill()
	stopDead()
	refused := s.refusals()
	s.setStorage(1<<22, rooms[dead][0])
	eventually(t, func() error {
		return unless(refused.Load() > 0, "no delivery for the dead shard is refused")
	})
	s.proxy.shut() // what is needed to connect does not depend on the dead one
	s.proxy.open()

	began := time.Now()
	for i, ids := range rooms {
		if i == dead {
			continue
		}
		db := dbtest.MySQL.Connect(t, cluster.Shard(i))
		for n := range 5 {
			lson := document(1<<21 + n)
			_, exists := s.upstream.RoomSource(ids[0])
			if !exists {
				t.Fatalf("room %q is gone; want it changed here alone", ids[0])
			}
			if err := s.upstream.SetStorage(ids[0], lson); err != nil {
				t.Fatalf("SetStorage = %v", err)
			}
			s.awaitDocumentIn(db, ids[0], lson)
		}
	}
	t.Logf("15 documents of living shards are mirrored in %v beside the dead one", time.Since(began))
	// What no delivery tells this process of is found by a search of all shards.
	for i, ids := range rooms {
		if i == dead {
			continue
		}
		const stale = "mirror_resource_state set generation = generation + 1, due_time = utc_timestamp(6) "
		db, where := dbtest.MySQL.Connect(t, cluster.Shard(i)), "where kind = 2 and resource_id = '' and room_id = ?"
		if n, err := db.Exec(t.Context(), "update "+stale+where, ids[0]); err != nil || n != 1 {
			t.Fatalf("documents made stale = %d, %v; want one", n, err)
		}
		eventually(t, func() error {
			left, err := dbtest.Value[int](t.Context(), db,
				"select generation - applied_generation from mirror_resource_state "+where, ids[0])
			if err != nil {
				return err
			}
			return unless(left == 0, "the document of %q is not fetched beside the dead shard", ids[0])
		})
	}
	s.wantReady(service, http.StatusOK) // for their deliveries
	if err := cluster.Servers[dead].Restart(t.Context()); err != nil {
		t.Fatalf("Restart = %v", err)
	}
	stopAlive()
	changers.Wait()
	s.converge(service)
}
