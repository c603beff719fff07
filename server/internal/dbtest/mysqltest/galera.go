package mysqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// clusterSize is the number of nodes: the smallest at which a majority remains when
// one dies.
const clusterSize = 3

// providerOptions is the variable with the settings of Galera itself.
const providerOptions = "wsrep_provider_options"

// Cluster is a Galera cluster of three MariaDB servers on this machine. All of them
// accept writes.
//
// Quorum and failure detection are as they are by default: when a node is killed,
// commits on the others wait for about five seconds, until they agree that it is gone.
// Then small ones go on; a large one, already under way, may fail (1180, "not connected
// to primary component") though the rest has a majority.
//
// wsrep_sync_wait is left at its default, 0: a node answers from what it has applied,
// which may lag behind what another has acknowledged. A conditional update needs no
// more than that where it finds its row: of two nodes that write one row at once,
// certification lets the first through, and the other gets a deadlock (1213). A read,
// or an update that finds no row, may miss what was written through another node. Who
// cannot bear that sets wsrep_sync_wait for the session (1 for reads, 7 for updates
// and inserts too) or stays on one node; tests see whether the store does.
type Cluster struct{ nodes [clusterSize]*Node }

// Node is a server of a cluster. It can be killed, stopped and restarted
// separately.
type Node struct {
	*Server
	replication, ist, sst port
}

// Galera starts a cluster for tb alone and removes it when tb ends. opt applies to
// every node.
func Galera(tb testing.TB, opt Options) *Cluster {
	tb.Helper()
	need.Server(tb, need.MySQL)
	Need(tb, Clusters)
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	c := new(Cluster)
	tb.Cleanup(func() {
		if err := c.close(); err != nil {
			tb.Errorf("mysqltest: %v", err)
		}
	})
	if err := c.start(ctx, opt); err != nil {
		need.Own(tb, need.MySQL, err)
	}
	return c
}

// Node is the node of that number, from 0 to 2.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// WaitSize waits until the running nodes are synced and agree that there are n of
// them.
func (c *Cluster) WaitSize(tb testing.TB, n int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for _, node := range c.nodes {
		if node.Pid() == 0 {
			continue
		}
		if err := node.awaitSynced(ctx, n); err != nil {
			tb.Fatalf("mysqltest: %v", err)
		}
	}
}

// start makes three nodes out of one installation and one history, so that none has
// to be sent all the data of another to begin with.
func (c *Cluster) start(ctx context.Context, opt Options) error {
	provider, err := findProvider()
	if err != nil {
		return err
	}
	var addresses []string
	for i := range c.nodes {
		if c.nodes[i], err = newNode(opt.Dir); err != nil {
			return err
		}
		addresses = append(addresses, "127.0.0.1:"+c.nodes[i].replication.String())
	}
	common := map[string]string{
		"wsrep_on":              "on",
		"wsrep_provider":        provider,
		"wsrep_cluster_name":    "mysqltest",
		"wsrep_cluster_address": "gcomm://" + strings.Join(addresses, ","),
		"wsrep_sst_method":      "rsync",
		// What Galera demands.
		"binlog_format":            "row",
		"default_storage_engine":   "innodb",
		"innodb_autoinc_lock_mode": "2",

		"innodb_buffer_pool_size": "64M",
		"wsrep_slave_threads":     "4",
	}
	maps.Copy(common, opt.Settings)
	for _, n := range c.nodes {
		if err := n.configure(common); err != nil {
			return err
		}
	}
	first := c.nodes[0]
	if err := first.install(ctx); err != nil {
		return err
	}
	// A founder makes the history, and the nodes get a copy of it and of the membership of a cluster
	// that had stopped. Together again, with the same data, they go on at once, without a state transfer.
	if err := first.boot(ctx, "--wsrep-new-cluster"); err != nil {
		return err
	}
	if err := first.awaitSynced(ctx, 1); err != nil {
		return err
	}
	if err := first.Stop(ctx); err != nil {
		return err
	}
	for i, n := range c.nodes {
		if n != first {
			n.password = first.password
			if err := n.runToEnd(ctx, n.command("cp", "-a", first.data(), n.data())); err != nil {
				return fmt.Errorf("copy the first node: %w", err)
			}
		}
		if err := n.writeFile(filepath.Join(n.data(), "gvwstate.dat"), lastView(i)); err != nil {
			return fmt.Errorf("write the membership: %w", err)
		}
	}
	return c.each(func(n *Node) error {
		if err := n.boot(ctx); err != nil {
			return err
		}
		return n.awaitSynced(ctx, clusterSize)
	})
}

// Kill ends all nodes by SIGKILL, one right after the other.
func (c *Cluster) Kill() {
	for _, n := range c.nodes {
		n.Kill()
	}
}

// Restart starts all nodes again after Kill, each with what it has of the last
// commits, and returns when they are in step.
func (c *Cluster) Restart(ctx context.Context) error {
	return c.each(func(n *Node) error { return n.Restart(ctx) })
}

// each does something with all nodes at once.
func (c *Cluster) each(do func(*Node) error) error {
	var wg sync.WaitGroup
	errs := make([]error, clusterSize)
	for i, n := range c.nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// lastView is what node i of a cluster in step keeps on disk of who was in it, so that
// all of them can come back from a crash.
func lastView(i int) string {
	id := func(n int) string { return fmt.Sprintf("0000000%d-0000-11f0-8000-000000000000", n+1) }
	var b strings.Builder
	fmt.Fprintf(&b, "my_uuid: %s\n#vwbeg\nview_id: 3 %s %d\nbootstrap: 0\n", id(i), id(0), clusterSize)
	for n := range clusterSize {
		fmt.Fprintf(&b, "member: %s 0\n", id(n))
	}
	b.WriteString("#vwend\n")
	return b.String()
}

func (c *Cluster) close() error {
	var errs []error
	for _, n := range c.nodes {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// newNode is a server that has not been configured.
func newNode(parent string) (*Node, error) {
	s, err := newServer(parent)
	if err != nil {
		return nil, err
	}
	n := &Node{Server: s}
	for _, p := range []*port{&n.replication, &n.ist, &n.sst} {
		if *p, err = s.reserve(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return n, nil
}

// configure writes the node's configuration file: what all have in common, and its
// addresses.
func (n *Node) configure(common map[string]string) error {
	const host = "127.0.0.1:"
	settings := map[string]string{
		"wsrep_node_name":             "node" + n.port.String(),
		"wsrep_node_address":          host + n.replication.String(),
		"wsrep_node_incoming_address": host + n.port.String(),
		"wsrep_sst_receive_address":   host + n.sst.String(),
	}
	maps.Copy(settings, common)
	// A read that has to see other nodes' writes waits for them as long as tests wait
	// for anything: three nodes on a machine that is busy with more fall behind.
	settings[providerOptions] = fmt.Sprintf("base_port=%[1]s;gmcast.listen_addr=tcp://127.0.0.1:%[1]s;"+
		"ist.recv_addr=127.0.0.1:%[2]s;gcache.size=64M;repl.causal_read_timeout=PT1M",
		n.replication, n.ist) + common[providerOptions]
	return n.Server.configure(settings)
}

// recoveredAt is what a node says after a recovery: the history, and how far it got.
var recoveredAt = regexp.MustCompile(`WSREP: Recovered position: (\S+:-?\d+)`)

// Restart starts the node again after Kill or Stop and returns when it has caught up
// with the others. A majority has to be there: where none is, its nodes have to be
// restarted at once.
func (n *Node) Restart(ctx context.Context) error {
	position, err := n.recoverPosition(ctx)
	if err != nil {
		return fmt.Errorf("recover the node's position: %w", err)
	}
	if err := n.boot(ctx, "--wsrep-start-position="+position); err != nil {
		return err
	}
	return n.awaitSynced(ctx, 0)
}

// recoverPosition asks the data of the node how far the node got, which it does not know
// itself after a crash. MariaDB 10.11 now and then crashes once more in this recovery, so it
// is asked again.
func (n *Node) recoverPosition(ctx context.Context) (string, error) {
	const tries = 3
	for try := 1; ; try++ {
		logged := len(n.Log())
		err := n.runToEnd(ctx, n.command(n.programs.server, "--defaults-file="+n.configFile(), "--wsrep-recover"))
		var ended *exec.ExitError
		if errors.As(err, &ended) && !ended.Exited() && try < tries { // by a signal
			continue
		}
		if err != nil {
			return "", err
		}
		position := recoveredAt.FindStringSubmatch(n.Log()[logged:])
		if position == nil {
			return "", errors.New("it did not say")
		}
		return position[1], nil
	}
}

// awaitSynced waits until the node is synced with its cluster, and until that has
// the given size, if any.
func (n *Node) awaitSynced(ctx context.Context, size int) error {
	n.mu.Lock()
	r := n.run
	n.mu.Unlock()
	db, err := open(n.URL(""))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	return until(ctx, r, "the node to be in step", func() error {
		status, err := wsrepStatus(ctx, db)
		if err != nil {
			return err
		}
		if status["wsrep_ready"] != "ON" || status["wsrep_local_state_comment"] != "Synced" || size > 0 &&
			status["wsrep_cluster_size"] != strconv.Itoa(size) {
			return fmt.Errorf("its status is %v; want it synced, in a cluster of %d (0: any)", status, size)
		}
		return nil
	})
}

// wsrepStatus is the status that a node reports of itself and its cluster.
func wsrepStatus(ctx context.Context, db *sql.DB) (status map[string]string, err error) {
	rows, err := db.QueryContext(ctx,
		"show global status where variable_name in ('wsrep_ready', 'wsrep_local_state_comment', 'wsrep_cluster_size')")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	status = make(map[string]string)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		status[name] = value
	}
	return status, rows.Err()
}

// findProvider looks for the library that makes a cluster of servers.
func findProvider() (string, error) {
	places := []string{"/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so"}
	if explicit := os.Getenv("GALERA_LIB"); explicit != "" {
		places = []string{explicit}
	}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: none of %q is there: install Galera (Debian: galera-4 and rsync), or set GALERA_LIB to "+
		"its file libgalera_smm.so", need.ErrNotInstalled, places)
}
