package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/pgembed"
)

// Pair is a primary with a hot standby that has every commit which the primary has
// acknowledged.
type Pair struct {
	Primary, Standby *pgembed.Server

	killed bool
}

// StartPair starts a pair for tb alone and stops it when tb ends.
func StartPair(tb testing.TB) *Pair {
	tb.Helper()
	need.Server(tb, need.Postgres)
	var dirs [2]string
	for i := range dirs {
		dir, err := openDir()
		if err != nil {
			tb.Fatalf("pgtest: %v", err)
		}
		tb.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				tb.Errorf("pgtest: %v", err)
			}
		})
		dirs[i] = dir
	}
	p, err := startPair(tb.Context(), dirs[0], dirs[1])
	for _, server := range []*pgembed.Server{p.Primary, p.Standby} {
		if server == nil {
			continue
		}
		tb.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := server.Stop(ctx); err != nil && (!p.killed || server != p.Primary) {
				tb.Errorf("pgtest: %v", err)
			}
		})
	}
	if err != nil {
		tb.Fatalf("pgtest: start a pair: %v", err)
	}
	return p
}

func startPair(ctx context.Context, primary, standby string) (*Pair, error) {
	p := &Pair{}
	// The standby begins as a copy of the primary at rest.
	server, err := start(primary, nil) //nolint:contextcheck // it has a limit of its own
	if err == nil {
		err = server.Stop(ctx)
	}
	if err != nil {
		return p, err
	}
	data := filepath.Join(standby, "pgdata")
	cp := exec.CommandContext(ctx, "cp", "-a", filepath.Join(primary, "pgdata"), data)
	if out, err := cp.CombinedOutput(); err != nil {
		return p, fmt.Errorf("copy the primary: %w: %s", err, out)
	}
	if err := signal(data); err != nil {
		return p, err
	}
	if p.Primary, err = start(primary, nil); err != nil { //nolint:contextcheck // it has a limit of its own
		return p, err
	}
	from, err := pgx.ParseConfig(p.Primary.URL())
	if err != nil {
		return p, err
	}
	p.Standby, err = start(standby, map[string]string{ //nolint:contextcheck // it has a limit of its own
		"primary_conninfo": fmt.Sprintf("host=%s port=%d user=%s", from.Host, from.Port, from.User),
	})
	if err != nil {
		return p, err
	}
	if err := run(ctx, p.Primary.URL(), "alter system set synchronous_standby_names = '*'"); err != nil {
		return p, err
	}
	if err := run(ctx, p.Primary.URL(), "select pg_reload_conf()"); err != nil {
		return p, err
	}
	return p, awaitSync(ctx, p.Primary.URL())
}

// signal makes the server of a data folder start as a standby.
func signal(data string) error {
	file := filepath.Join(data, "standby.signal")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(data, &st); err != nil {
		return err
	}
	return os.Chown(file, int(st.Uid), int(st.Gid))
}

// awaitSync waits until commits of a server wait for a standby.
func awaitSync(ctx context.Context, to string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, to)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		var states string
		err := conn.QueryRow(ctx, "select coalesce(string_agg(sync_state, ','), '') from pg_stat_replication").Scan(&states)
		if err != nil || strings.Contains(states, "sync") && !strings.Contains(states, "async") {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the standby, which is %q: %w", states, ctx.Err())
		case <-ticker.C:
		}
	}
}

// Kill ends the primary at once and for good.
func (p *Pair) Kill(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	cancel() // no time for an orderly end, which is what the error says
	p.killed = true
	_ = p.Primary.Stop(ctx)
}

// Demote lets the primary live and take no more writes, in sessions that are open
// too.
func (p *Pair) Demote(tb testing.TB) {
	tb.Helper()
	for _, statement := range []string{
		"alter system set default_transaction_read_only = on", "select pg_reload_conf()",
	} {
		if err := run(tb.Context(), p.Primary.URL(), statement); err != nil {
			tb.Fatalf("pgtest: demote the primary: %v", err)
		}
	}
}

// Promote makes the standby a primary.
func (p *Pair) Promote(tb testing.TB) {
	tb.Helper()
	if err := run(tb.Context(), p.Standby.URL(), "select pg_promote()"); err != nil {
		tb.Fatalf("pgtest: promote the standby: %v", err)
	}
}
