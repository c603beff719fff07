package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/pgembed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/webhook"
)

func cpu(pid int) time.Duration {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/schedstat")
	n, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
	return time.Duration(n)
}

func main() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "zexp")
	os.Chmod(dir, 0o711)
	defer os.RemoveAll(dir)
	pg, err := pgembed.Start(ctx, pgembed.Config{DataDir: dir + "/pg"})
	if err != nil { panic(err) }
	defer pg.Stop(ctx)
	log := slog.New(slog.DiscardHandler)
	if err := postgres.Migrate(ctx, pg.URL(), log); err != nil { panic(err) }
	for _, mode := range []string{"auto", "force_generic_plan", "auto", "force_generic_plan"} {
		c, _ := pgx.Connect(ctx, pg.URL())
		c.Exec(ctx, "alter database mirror set plan_cache_mode = "+mode)
		c.Exec(ctx, "alter database mirror set jit = off")
		c.Close(ctx)
		s, err := postgres.Open(ctx, postgres.Config{URL: pg.URL()+"&pool_max_conns=1", MaxConns: 1, Logger: log})
		if err != nil { panic(err) }
		pcfg, _ := pgxpool.ParseConfig(pg.URL())
		_ = pcfg
		var pid int
		mk := func(n int) []mirror.Arrival {
			var out []mirror.Arrival
			for range n {
				now := time.Now()
				body := []byte(fmt.Sprintf(`{"type":"storageUpdated","data":{"projectId":"605a50b01a36d5ea7a2e9104","roomId":"bench:2048:%05d","updatedAt":"2026-11-22T08:00:00.000Z"}}`, rand.IntN(10000)))
				out = append(out, webhook.Decode("default", "msg_"+strconv.FormatUint(rand.Uint64(), 36), body, now, now))
			}
			return out
		}
		s.Accept(ctx, mk(5))
		cc, _ := pgx.Connect(ctx, pg.URL())
		cc.QueryRow(ctx, "select pid from pg_stat_activity where application_name='liveblocks-mirror' limit 1").Scan(&pid)
		for range 40 { s.Accept(ctx, mk(256)) }
		for _, n := range []int{1, 4, 16, 64, 256} {
			iters := 2000 / n
			if iters < 40 { iters = 40 }
			if iters > 400 { iters = 400 }
			c0 := cpu(pid); t0 := time.Now()
			for range iters { if _, err := s.Accept(ctx, mk(n)); err != nil { panic(err) } }
			d := cpu(pid) - c0
			fmt.Printf("%s batch %d: backend CPU %.0f us/stmt, %.1f us/event, wall %.0f us/stmt\n", mode, n, float64(d.Microseconds())/float64(iters), float64(d.Microseconds())/float64(iters*n), float64(time.Since(t0).Microseconds())/float64(iters))
		}
		s.Close()
		cc.Close(ctx)
	}
}
