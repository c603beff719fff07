package mysqltest

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// Pair is a primary with a replica that has every transaction which the primary has
// acknowledged.
type Pair struct {
	Primary, Replica *Server

	words replication
}

// replication is how a server calls what makes pairs.
type replication struct {
	settings map[string]string
	// reset forgets what the server has done so far; follow begins to follow a port with an
	// account and its password.
	reset, follow, start, stop string
	// position asks a server how far it is; wait waits on a replica for that, for so many
	// seconds, and returns 0 once it is there.
	position, wait string
	// status tells in the column doing what a replica does.
	status, doing string
}

// A commit is acknowledged once the replica has it, however long that takes.
var (
	mariaDBReplication = replication{
		settings: map[string]string{
			"log_bin": "binlog", "log_slave_updates": "on", "gtid_strict_mode": "on",
			"rpl_semi_sync_master_enabled": "on", "rpl_semi_sync_slave_enabled": "on",
			"rpl_semi_sync_master_wait_point": "AFTER_SYNC", "rpl_semi_sync_master_timeout": "3600000",
			"rpl_semi_sync_master_wait_no_slave": "off",
		},
		reset: "reset master",
		follow: "change master to master_host = '127.0.0.1', master_port = %s, master_user = '%s', " +
			"master_password = '%s', master_use_gtid = slave_pos",
		start: "start slave", stop: "stop slave",
		position: "select @@global.gtid_binlog_pos", wait: "select master_gtid_wait('%s', %d)",
		status: "show slave status", doing: "Slave_SQL_Running_State",
	}
	mysqlReplication = replication{
		settings: map[string]string{
			"log_bin": "binlog", "gtid_mode": "on", "enforce_gtid_consistency": "on",
			"plugin_load": "semisync_source.so;semisync_replica.so",
			// Loose, because the server that makes the data folder loads no plugins.
			"loose_rpl_semi_sync_source_enabled": "on", "loose_rpl_semi_sync_replica_enabled": "on",
			"loose_rpl_semi_sync_source_wait_point": "AFTER_SYNC", "loose_rpl_semi_sync_source_timeout": "3600000",
			"loose_rpl_semi_sync_source_wait_no_replica": "off",
		},
		reset: "reset binary logs and gtids",
		follow: "change replication source to source_host = '127.0.0.1', source_port = %s, source_user = '%s', " +
			"source_password = '%s', source_auto_position = 1, get_source_public_key = 1",
		start: "start replica", stop: "stop replica",
		position: "select @@global.gtid_executed", wait: "select wait_for_executed_gtid_set('%s', %d)",
		status: "show replica status", doing: "Replica_SQL_Running_State",
	}
)

// StartPair starts a pair for tb alone and stops it when tb ends. Both have an empty
// database of the given name.
func StartPair(tb testing.TB, database string) *Pair {
	tb.Helper()
	Need(tb, Own)
	programs, err := findPrograms()
	if err != nil {
		need.Own(tb, need.MySQL, err)
	}
	words := mariaDBReplication
	if !programs.mariaDB() {
		words = mysqlReplication
	}
	server := func(id string) *Server {
		settings := maps.Clone(words.settings)
		settings["server_id"] = id
		return Start(tb, Options{Settings: settings})
	}
	p := &Pair{Primary: server("1"), Replica: server("2"), words: words}
	p.exec(tb, p.Replica, "set global read_only = on")
	// Its own first steps, such as creating the accounts, are not the primary's.
	p.exec(tb, p.Replica, words.reset)
	p.exec(tb, p.Primary, words.reset)
	p.exec(tb, p.Replica, fmt.Sprintf(words.follow, p.Primary.port, userName, p.Primary.password))
	p.exec(tb, p.Replica, words.start)
	p.exec(tb, p.Primary, "create database "+database)
	p.catchUp(tb)
	return p
}

func (p *Pair) exec(tb testing.TB, on *Server, statement string) {
	tb.Helper()
	p.do(tb, on, func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, statement)
		return err
	})
}

func (p *Pair) do(tb testing.TB, on *Server, f func(ctx context.Context, db *sql.DB) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	db, err := open(on.URL(""))
	if err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	if err := f(ctx, db); err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
}

// catchUp waits until the replica has applied all that it has received.
func (p *Pair) catchUp(tb testing.TB) {
	tb.Helper()
	p.do(tb, p.Replica, func(ctx context.Context, db *sql.DB) error {
		var have int
		// What the primary, which may be dead, has sent stands in the relay log.
		if p.Primary.Pid() == 0 {
			return p.awaitRelayLog(ctx, db)
		}
		primary, err := open(p.Primary.URL(""))
		if err != nil {
			return err
		}
		defer func() { _ = primary.Close() }() // there is nothing to flush
		var position string
		if err := primary.QueryRowContext(ctx, p.words.position).Scan(&position); err != nil {
			return err
		}
		wait := fmt.Sprintf(p.words.wait, position, int(patience.Seconds()))
		if err := db.QueryRowContext(ctx, wait).Scan(&have); err != nil || have != 0 {
			return fmt.Errorf("wait for the replica: %d, %w", have, err)
		}
		return nil
	})
}

// awaitRelayLog waits until a replica has applied its relay log.
func (p *Pair) awaitRelayLog(ctx context.Context, db *sql.DB) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		state, err := p.status(ctx, db)
		if err != nil || strings.Contains(state[p.words.doing], "has read all relay log") {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the relay log: %w: %v", ctx.Err(), state)
		case <-ticker.C:
		}
	}
}

func (p *Pair) status(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, p.words.status)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // read as far as it matters
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values := make([]sql.NullString, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	state := map[string]string{}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		for i, name := range names {
			state[name] = values[i].String
		}
	}
	return state, rows.Err()
}

// Kill ends the primary at once and for good.
func (p *Pair) Kill(tb testing.TB) {
	tb.Helper()
	p.Primary.Kill()
	p.catchUp(tb)
}

// Demote lets the primary live and take no more writes, in sessions that are open
// too.
func (p *Pair) Demote(tb testing.TB) {
	tb.Helper()
	p.exec(tb, p.Primary, "set global read_only = on")
	p.catchUp(tb)
}

// Promote makes the replica a primary.
func (p *Pair) Promote(tb testing.TB) {
	tb.Helper()
	p.exec(tb, p.Replica, p.words.stop)
	p.exec(tb, p.Replica, "set global read_only = off")
}
