package mysqltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// vitessBin names the folder of Vitess' programs and etcd's.
const vitessBin = "VITESS_BIN"

// Shards is Vitess with one sharded database, whose shards have a MySQL server each, so
// that tests can kill one of them. All of it is processes of their own, as in production:
// vtgate, a vttablet for each shard, and etcd, where they learn of each other.
type Shards struct {
	// Servers are those of MySQL, in the order of the shards.
	Servers []*Server

	names  []string // of the shards
	keeper *Server  // of the folder, the account and the log of Vitess' programs
	runs   []*run
	etcd   string // its address
	port   port   // of vtgate
	web    port   // of its counters
}

const (
	keyspace = "mirror"
	cell     = "test"
)

// StartShards starts it for tb alone and removes it when tb ends. The database has that
// VSchema.
func StartShards(tb testing.TB, n int, vschema string) *Shards {
	tb.Helper()
	Need(tb, Sharding)
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	c := &Shards{}
	tb.Cleanup(func() {
		if err := c.close(); err != nil {
			tb.Errorf("mysqltest: %v", err)
		}
	})
	if err := c.start(ctx, n, vschema); err != nil {
		tb.Fatalf("mysqltest: start Vitess with %d shards: %v", n, err)
	}
	return c
}

func (c *Shards) start(ctx context.Context, n int, vschema string) (err error) {
	if c.keeper, err = newServer(""); err != nil {
		return err
	}
	if err := os.Chmod(c.keeper.dir, 0o711); err != nil { // for the file that follows
		return err
	}
	for i := range n {
		c.names = append(c.names, shardName(i, n))
	}
	if err := errors.Join(c.startEtcd(ctx), c.startServers(ctx)); err != nil {
		return err
	}
	if err := c.keeper.writeFile(c.keeper.path("vschema.json"), vschema); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"AddCellInfo", "--root", "/vitess/" + cell, "--server-address", c.etcd, cell},
		{"CreateKeyspace", "--durability-policy", "none", keyspace},
		{"ApplyVSchema", "--vschema-file", c.keeper.path("vschema.json"), keyspace},
	} {
		if err := c.control(ctx, args...); err != nil {
			return err
		}
	}
	for i := range c.Servers {
		if err := c.startTablet(ctx, i); err != nil {
			return err
		}
	}
	return c.startGate(ctx)
}

// shardName is a range of the first byte of keyspace ids, in hexadecimal.
func shardName(i, n int) string {
	edge := func(i int) string {
		if i == 0 || i == n {
			return ""
		}
		return fmt.Sprintf("%02x", i*256/n)
	}
	return edge(i) + "-" + edge(i+1)
}

func (c *Shards) address() (string, port, error) {
	p, err := c.keeper.reserve()
	return "127.0.0.1:" + p.String(), p, err
}

// program prepares a program of Vitess.
func (c *Shards) program(name string, args ...string) *exec.Cmd {
	cmd := c.keeper.command(filepath.Join(os.Getenv(vitessBin), name), args...)
	cmd.Env = append(cmd.Env, "VTDATAROOT="+c.keeper.dir, "VTROOT="+filepath.Dir(os.Getenv(vitessBin)))
	return cmd
}

// topology are the flags by which programs find etcd.
func (c *Shards) topology() []string {
	return []string{
		"--topo-implementation", "etcd2", "--topo-global-server-address", c.etcd, "--topo-global-root", "/vitess/global",
	}
}

// control runs a command of the cluster.
func (c *Shards) control(ctx context.Context, args ...string) error {
	args = append(append(c.topology(), "--server", "internal"), args...)
	return c.keeper.runToEnd(ctx, c.program("vtctldclient", args...))
}

// keep runs a program until c is closed.
func (c *Shards) keep(cmd *exec.Cmd) (*run, error) {
	r, err := c.keeper.launch(cmd)
	if err == nil {
		c.runs = append(c.runs, r)
	}
	return r, err
}

func (c *Shards) startEtcd(ctx context.Context) error {
	client, _, err1 := c.address()
	peer, _, err2 := c.address()
	c.etcd = client
	r, err := c.keep(c.program("server", "--data-dir", c.keeper.path("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer))
	if err := errors.Join(err1, err2, err); err != nil {
		return err
	}
	return until(ctx, r, "etcd", func() error { return c.control(ctx, "GetCellInfoNames") })
}

func (c *Shards) startServers(ctx context.Context) error {
	c.Servers = make([]*Server, len(c.names))
	errs := make([]error, len(c.names))
	var wg sync.WaitGroup
	for i, name := range c.names {
		wg.Go(func() {
			s, err := Launch(ctx, Options{Settings: map[string]string{"innodb_buffer_pool_size": "64M"}})
			if err == nil {
				err = create(ctx, s.URL(""), "vt_"+keyspace)
			}
			if err != nil {
				errs[i] = fmt.Errorf("server of shard %s: %w", name, err)
			}
			c.Servers[i] = s
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// startTablet starts the vttablet of a shard and makes it the primary, which waits for
// nobody: its server replicates to none.
func (c *Shards) startTablet(ctx context.Context, i int) error {
	_, web, err1 := c.address()
	_, grpc, err2 := c.address()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	alias := fmt.Sprintf("%s-%010d", cell, 100+i)
	args := append(c.topology(), "--tablet-path", alias, "--tablet-hostname", "127.0.0.1", "--bind-address", "127.0.0.1",
		"--port", web.String(), "--grpc-bind-address", "127.0.0.1", "--grpc-port", grpc.String(),
		"--service-map", "grpc-queryservice,grpc-tabletmanager", "--init-keyspace", keyspace, "--init-shard", c.names[i],
		"--init-tablet-type", "replica", "--health-check-interval", "1s",
		"--db-socket", c.Servers[i].Socket(), "--queryserver-config-transaction-cap", "100")
	for _, role := range []string{"app", "dba", "allprivs", "appdebug", "filtered", "repl"} {
		args = append(args, "--db-"+role+"-user", userName, "--db-"+role+"-password", c.Servers[i].password)
	}
	r, err := c.keep(c.program("vttablet", args...))
	if err != nil {
		return err
	}
	return until(ctx, r, "the tablet of shard "+c.names[i],
		func() error { return c.control(ctx, "TabletExternallyReparented", alias) })
}

func (c *Shards) startGate(ctx context.Context) error {
	_, web, err1 := c.address()
	_, grpc, err2 := c.address()
	_, sql, err3 := c.address()
	c.port, c.web = sql, web
	r, err := c.keep(c.program("vtgate", append(c.topology(), "--cell", cell, "--cells-to-watch", cell,
		"--bind-address", "127.0.0.1", "--port", web.String(),
		"--grpc-bind-address", "127.0.0.1", "--grpc-port", grpc.String(),
		"--mysql-server-bind-address", "127.0.0.1", "--mysql-server-port", sql.String(), "--mysql-auth-server-impl", "none",
		"--tablet-types-to-wait", "PRIMARY", "--tablet-refresh-interval", "1s")...))
	if err := errors.Join(err1, err2, err3, err); err != nil {
		return err
	}
	for i := range c.names { // until the last one serves
		db, err := open(c.Shard(i))
		if err != nil {
			return err
		}
		err = until(ctx, r, "vtgate", func() error {
			_, err := db.ExecContext(ctx, "select 1 from information_schema.tables limit 1")
			return err
		})
		if err := cmp.Or(err, db.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (c *Shards) at(database string) string {
	return (&url.URL{
		Scheme: "mysql", User: url.UserPassword(userName, "x"), Host: "127.0.0.1:" + c.port.String(), Path: "/" + database,
	}).String()
}

// URL returns the URL of the database.
func (c *Shards) URL() string { return c.at(keyspace) }

// Shard returns the URL of one shard of it, also through vtgate.
func (c *Shards) Shard(i int) string { return c.at(keyspace + ":" + c.names[i]) }

// Direct returns the URL of a shard in its server, without Vitess.
func (c *Shards) Direct(i int) string { return c.Servers[i].URL("vt_" + keyspace) }

// Debug returns the URL of the counters of vtgate.
func (c *Shards) Debug() string { return "http://127.0.0.1:" + c.web.String() + "/debug/vars" }

func (c *Shards) close() error {
	for i := len(c.runs) - 1; i >= 0; i-- {
		c.runs[i].kill()
	}
	var errs []error
	for _, s := range c.Servers {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if c.keeper != nil {
		errs = append(errs, c.keeper.Close())
	}
	return errors.Join(errs...)
}
