package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"

	"github.com/alecthomas/kong"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// withApp runs f with the service inside this process, where it can be profiled.
// The binary that is shipped has no door for that.
func (b *bench) withApp(ctx context.Context, env map[string]string, f func(app.Ready) error) (err error) {
	resolver, err := config.NewResolver(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, "")
	if err != nil {
		return err
	}
	var cfg config.Serve
	parser, err := kong.New(&cfg, kong.Resolvers(resolver))
	if err != nil {
		return err
	}
	if _, err := parser.Parse(nil); err != nil {
		return err
	}
	a, err := app.New(ctx, cfg, "profile", b.log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx) }() // awaited below
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	return f(a.Addresses())
}

// profiled runs one job with the profiler on, until the function returns if one is given.
func (b *bench) profiled(ctx context.Context, name string, job loadJob, until func() error) (err error) {
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
	}
	path := filepath.Join(b.profile, name+".pprof")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	got, err := b.window(ctx, job, nil, nil, until)
	pprof.StopCPUProfile()
	runtime.ReadMemStats(&after)
	if err != nil {
		return err
	}
	if err := writeAllocations(filepath.Join(b.profile, name+".allocs.pprof")); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%s: %.0f/s, %.0f allocations and %.1f KiB each, %d collections\n", path, got.rate,
		float64(after.Mallocs-before.Mallocs)/float64(got.ops),
		float64(after.TotalAlloc-before.TotalAlloc)/1024/float64(got.ops), after.NumGC-before.NumGC)
	return nil
}

// writeAllocations writes what was allocated since the process began: the
// profile before it is its base.
func writeAllocations(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// profileWebhooks profiles part a with the workers off.
func (b *bench) profileWebhooks(ctx context.Context, database string, upstream *process) error {
	return b.withApp(ctx, settings(database, upstream.addr, callsPerSecond, "0.001"), func(r app.Ready) error {
		job := loadJob{
			Kind: "webhooks", Addr: r.HTTPAddr, Size: webhookSize, Rooms: b.rooms, Warm: b.warm,
			Timed: 4 * b.timed,
		}
		for _, conns := range b.conns {
			job.Conns = conns
			if err := b.profiled(ctx, fmt.Sprintf("webhooks-%d", conns), job, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// profileReads profiles part b.
func (b *bench) profileReads(ctx context.Context, env map[string]string, database string) error {
	return b.withApp(ctx, env, func(r app.Ready) error {
		for _, c := range readCases() {
			if err := b.fill(ctx, r.HTTPAddr, database, c.size, c.count); err != nil {
				return err
			}
			for _, conns := range []int{8, 32} {
				job := loadJob{
					Kind: "grpc", Addr: r.GRPCAddr, Conns: conns, Size: c.size, Rooms: c.count, Warm: b.warm,
					Timed: 4 * b.timed,
				}
				if err := b.profiled(ctx, fmt.Sprintf("read-%d-%d", c.size, conns), job, nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// profileApply profiles part c. Its figures are for each webhook: several of one room can
// share a fetch.
func (b *bench) profileApply(ctx context.Context, upstream *process) error {
	for _, size := range fetchCases() {
		u, err := b.database(ctx, fmt.Sprintf("c_profile_%d", size))
		if err != nil {
			return err
		}
		if err := b.withApp(ctx, settings(u, upstream.addr, callsPerSecond, unbounded, "MIRROR_SETTLE", "0"),
			func(r app.Ready) error { return b.profileAppliesOf(ctx, size, r, u) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) profileAppliesOf(ctx context.Context, size int, r app.Ready, u string) error {
	if err := b.fill(ctx, r.HTTPAddr, u, size, b.applyRooms); err != nil {
		return err
	}
	db, err := connect(ctx, u, 1)
	if err != nil {
		return err
	}
	defer db.close()
	return b.profiled(ctx, fmt.Sprintf("apply-%d", size), loadJob{
		Kind: "webhooks", Addr: r.HTTPAddr, Conns: workers, Limit: 4 * int64(b.applyRooms), Size: size, Rooms: b.applyRooms,
	}, func() error { return awaitSQL(ctx, db, db.idle) })
}
