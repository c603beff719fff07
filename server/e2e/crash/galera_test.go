package crash_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
)

// Invariant 1 on a cluster: a node is killed, and the way to the database leads to
// another one from then on. That has all that was committed on the first, the last of
// it as well, whose acknowledgement went down with the node; and what was about to be
// committed there is not taken for done.
func TestGaleraNodeKilled(t *testing.T) {
	t.Parallel()
	s := newSiteAt(t, dbtest.MySQL, "")
	cluster := mysqltest.Galera(t, mysqltest.Options{})
	cluster.Node(0).Database(t, "mirror")
	s.through(newProxy(t, dbtest.MySQL, cluster.Node(0).URL("mirror"), cluster.Node(1).URL("mirror"),
		cluster.Node(2).URL("mirror")))
	// The test reads on the node that lives through it all, in step with the others.
	s.db = dbtest.MySQL.Connect(t, cluster.Node(2).URL("mirror")+"?wsrep_sync_wait=7")
	s.env["MIRROR_MIGRATE"] = "true"
	service := s.start()
	s.populate(service)
	stop := s.load()
	s.more(20)

	for i, c := range []struct {
		when      moment
		committed bool
	}{{beforeSend, false}, {beforeReply, true}} {
		if i > 0 { // the one before is back, so that there is a majority without this one
			if err := cluster.Node(i - 1).Restart(t.Context()); err != nil {
				t.Fatalf("Restart = %v", err)
			}
			cluster.WaitSize(t, 3)
		}
		tr := s.proxy.set(c.when, s.words.ledger, "commit")
		tr.await(t)
		ids := s.caught(tr)
		cluster.Node(i).Kill()
		var n int
		eventually(t, func() (err error) { // the others have to agree first that it is gone
			in, args := dbtest.In(ids)
			n, err = queryOne[int](s, "select count(*) from mirror_event where event_id in "+in, args...)
			return err
		})
		if want := map[bool]int{true: len(ids)}[c.committed]; n != want {
			t.Fatalf("%d of %d events are on another node, committed: %v; want %d", n, len(ids), c.committed, want)
		}
		tr.cut()
		s.more(50)
	}
	stop()
	s.converge(service)
}
