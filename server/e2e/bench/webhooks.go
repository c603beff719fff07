package main

import (
	"context"
	"errors"
	"fmt"
)

// webhookSize is the size of the documents behind the webhooks: that of the
// fixtures.
const webhookSize = 2 << 10

// ackAim is the part of the bare handler's speed that the service should reach.
const ackAim = 0.6

// benchWebhooks is part a: deliveries acknowledged per second.
func benchWebhooks(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	// Workers off: one call in a thousand seconds, so that all work waits at the
	// limiter. Workers on: 50 calls a second, the rate at the start. Workers free: as many
	// calls as the machine can make, which no Liveblocks would bear.
	var quiet, busy, group, single string
	for name, u := range map[string]*string{"a_off": &quiet, "a_on": &busy, "a_group": &group, "a_single": &single} {
		if *u, err = b.database(ctx, name); err != nil {
			return err
		}
	}
	if b.profile != "" {
		return b.profileWebhooks(ctx, quiet, upstream)
	}
	job := loadJob{Kind: "webhooks", Warm: b.warm, Timed: b.timed, Size: webhookSize, Rooms: b.rooms}
	off, err := b.startService(ctx, settings(quiet, upstream.addr, callsPerSecond, "0.001"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, off.stop()) }()
	a, err := b.spawnServer(ctx, "baseline", baselineConfig{Mode: "group", DatabaseURL: group, MaxConns: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	s, err := b.spawnServer(ctx, "baseline", baselineConfig{Mode: "single", DatabaseURL: single, MaxConns: 32})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()

	// Every room has been heard of before, at the service with the workers on
	// every room is mirrored.
	for _, p := range []*process{off, a, s} {
		first := loadJob{Kind: "webhooks", Addr: p.addr, Conns: 32, Limit: int64(b.rooms), Size: webhookSize, Rooms: b.rooms}
		if _, err := b.window(ctx, first, nil, nil, nil); err != nil {
			return err
		}
	}
	if err := b.withService(ctx, settings(busy, upstream.addr, callsPerSecond, unbounded, "MIRROR_SETTLE", "0"),
		func(p *process) error {
			return b.fill(ctx, p.addr, busy, webhookSize, b.rooms)
		}); err != nil {
		return err
	}

	w := b.table(fmt.Sprintf("(a) webhooks acknowledged per second: storageUpdated over %d rooms, documents of %s\n"+
		"    A: bare net/http handler that verifies and group-commits the event's row alone; B: the same with a commit "+
		"for each event\n"+
		"    workers off: 0.001 calls a second; on: 50, the rate at the start; free: unbounded, with a fake that answers "+
		"at once",
		b.rooms, sizeName(webhookSize)),
		"workers", "conns", "ours/s", "A/s", "B/s", "ours:A", "aim", "ours:B", "aim", "CPU ours", "CPU A", "CPU B",
		"p99 ms ours", "A", "B", "MiB ours", "A")
	for _, conns := range b.conns {
		job.Conns = conns
		got := map[string][]sample{}
		for range b.rounds {
			for _, side := range []struct {
				name string
				p    *process
			}{{"off", off}, {"A", a}, {"B", s}} {
				job.Addr = side.p.addr
				one, err := b.window(ctx, job, side.p, nil, nil)
				if err != nil {
					return err
				}
				got[side.name] = append(got[side.name], one)
			}
			for _, side := range [][2]string{{"on", "50"}, {"free", unbounded}} {
				if err := b.withService(ctx, settings(busy, upstream.addr, callsPerSecond, side[1]), func(p *process) error {
					job.Addr = p.addr
					one, err := b.window(ctx, job, p, upstream, nil)
					got[side[0]] = append(got[side[0]], one)
					return err
				}); err != nil {
					return err
				}
			}
		}
		for _, workers := range []string{"off", "on", "free"} {
			aimA, aimB := ackAim, 1.0
			if conns < 8 || workers == "free" {
				aimA, aimB = 0, 0
			}
			ours := got[workers]
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", workers, conns,
				perSecondOf(ours), perSecondOf(got["A"]), perSecondOf(got["B"]),
				verdict(ours, got["A"], aimA), verdict(ours, got["B"], aimB),
				cost(ours), cost(got["A"]), cost(got["B"]), p99Of(ours), p99Of(got["A"]), p99Of(got["B"]), peakMiB(ours),
				peakMiB(got["A"]))
		}
	}
	return w.Flush()
}

// withService runs f with a service that ends with it.
func (b *bench) withService(ctx context.Context, env map[string]string, f func(*process) error) error {
	p, err := b.startService(ctx, env)
	if err != nil {
		return err
	}
	return errors.Join(f(p), p.stop())
}
