package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// benchAgainst compares this build of the service with another one, in parts a to c. Each
// has databases of its own, with the tables that it makes itself. Windows of the two take
// turns, and what counts is the ratio of two that follow each other: what else happens on
// the machine happens to both.
func benchAgainst(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	var of [2]*contender
	for i, binary := range []string{b.service, b.against} {
		of[i] = &contender{
			bench: b, name: fmt.Sprintf("build%d", i), binary: binary, upstream: upstream, databases: make(map[string]string),
		}
	}
	for _, part := range []struct {
		name, title string
		run         func(context.Context, *bench, [2]*contender, func(what string, got [2][]sample)) error
	}{
		{
			"a", fmt.Sprintf("(a) webhooks acknowledged per second: storageUpdated over %d rooms, documents of %s; workers as "+
				"in part a without -against", b.rooms, sizeName(webhookSize)), againstWebhooks,
		},
		{"b", "(b) documents read per second: GetStorageDocument as JSON over gRPC", againstReads},
		{
			"c", fmt.Sprintf("(c) documents brought up to date per second: %d webhooks, each fetched and applied; "+
				"p99 is that of the acknowledgements", b.applyRooms), againstApply,
		},
	} {
		if !strings.Contains(b.only, part.name) {
			continue
		}
		w := b.table(part.title, "", "this/s", "other/s", "this:other", "", "CPU this", "CPU other", "p99 ms this", "other",
			"MiB this", "other")
		err := part.run(ctx, b, of, func(what string, got [2][]sample) {
			mid, low, high := paired(got[0], got[1])
			fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t(%.2f-%.2f)\t%s\t%s\t%s\t%s\t%s\t%s\n", what, perSecondOf(got[0]),
				perSecondOf(got[1]), mid, low, high, cost(got[0]), cost(got[1]), p99Of(got[0]), p99Of(got[1]),
				peakMiB(got[0]), peakMiB(got[1]))
		})
		if err := errors.Join(err, w.Flush()); err != nil {
			return fmt.Errorf("part %s: %w", part.name, err)
		}
	}
	return nil
}

// contender is one of two builds of the service.
type contender struct {
	*bench

	name, binary string
	upstream     *process
	databases    map[string]string // by what they are for
}

// begin starts the build on its database for a purpose, which it makes the first time.
func (c *contender) begin(ctx context.Context, purpose string, more ...string) (_ *process, err error) {
	if c.databases[purpose] == "" {
		if c.databases[purpose], err = c.emptyDatabase(ctx, c.name+"_"+purpose); err != nil {
			return nil, err
		}
	}
	more = append(more, "MIRROR_MIGRATE", "true")
	return c.startBuild(ctx, c.binary, settings(c.databases[purpose], c.upstream.addr, more...))
}

// during runs f with the build, which ends with it.
func (c *contender) during(ctx context.Context, f func(*process) error, purpose string, more ...string) error {
	p, err := c.begin(ctx, purpose, more...)
	if err != nil {
		return err
	}
	return errors.Join(f(p), p.stop())
}

// inTurns runs the windows of two builds, of which each goes first in turn.
func (b *bench) inTurns(run func(i int) (sample, error)) (got [2][]sample, err error) {
	for round := range b.rounds {
		for n := range 2 {
			i := (n + round) % 2
			one, err := run(i)
			if err != nil {
				return got, err
			}
			got[i] = append(got[i], one)
		}
	}
	return got, nil
}

// paired is the median of the ratios of windows that followed each other, and the lowest
// and the highest of them.
func paired(ours, theirs []sample) (mid, low, high float64) {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i].rate / theirs[i].rate
	}
	slices.Sort(ratios)
	n := len(ratios)
	return (ratios[(n-1)/2] + ratios[n/2]) / 2, ratios[0], ratios[n-1]
}

func againstWebhooks(ctx context.Context, b *bench, of [2]*contender, tell func(string, [2][]sample)) (err error) {
	var off [2]*process
	for i, c := range of {
		if off[i], err = c.begin(ctx, "off", callsPerSecond, "0.001"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, off[i].stop()) }()
		// Every room has been heard of before.
		if _, err := b.window(ctx, loadJob{
			Kind: "webhooks", Addr: off[i].addr, Conns: 32, Limit: int64(b.rooms), Size: webhookSize, Rooms: b.rooms,
		}, nil, nil, nil); err != nil {
			return err
		}
		if err := c.during(ctx, func(p *process) error {
			return b.fill(ctx, p.addr, c.databases["on"], webhookSize, b.rooms)
		}, "on", callsPerSecond, unbounded, "MIRROR_SETTLE", "0"); err != nil {
			return err
		}
	}
	job := loadJob{Kind: "webhooks", Warm: b.warm, Timed: b.timed, Size: webhookSize, Rooms: b.rooms}
	for _, conns := range b.conns {
		job.Conns = conns
		got, err := b.inTurns(func(i int) (sample, error) {
			job.Addr = off[i].addr
			return b.window(ctx, job, off[i], nil, nil)
		})
		if err != nil {
			return err
		}
		tell(fmt.Sprintf("workers off, %d connections", conns), got)
		// Workers that go on would take from the windows of the other build.
		got, err = b.inTurns(func(i int) (one sample, err error) {
			err = of[i].during(ctx, func(p *process) (err error) {
				job := job
				job.Addr, job.Warm = p.addr, max(b.warm, time.Second) // what is done at the start is not meant
				one, err = b.window(ctx, job, p, nil, nil)
				return err
			}, "on", callsPerSecond, "50")
			return one, err
		})
		if err != nil {
			return err
		}
		tell(fmt.Sprintf("workers on, %d connections", conns), got)
	}
	return nil
}

func againstReads(ctx context.Context, b *bench, of [2]*contender, tell func(string, [2][]sample)) (err error) {
	var services [2]*process
	for i, c := range of {
		if services[i], err = c.begin(ctx, "reads", callsPerSecond, unbounded, "MIRROR_SETTLE", "0"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, services[i].stop()) }()
		for _, r := range readCases() {
			if err := b.fill(ctx, services[i].addr, c.databases["reads"], r.size, r.count); err != nil {
				return err
			}
		}
	}
	for _, r := range readCases() {
		for _, conns := range b.conns {
			got, err := b.inTurns(func(i int) (sample, error) {
				return b.window(ctx, loadJob{
					Kind: "grpc", Addr: services[i].grpcAddr, Conns: conns, Shared: b.share, Warm: b.warm,
					Timed: b.timed * 2 / 3, Size: r.size, Rooms: r.count,
				}, services[i], nil, nil)
			})
			if err != nil {
				return err
			}
			tell(fmt.Sprintf("%s, %d connections", sizeName(r.size), conns), got)
		}
	}
	return nil
}

func againstApply(ctx context.Context, b *bench, of [2]*contender, tell func(string, [2][]sample)) error {
	for _, size := range fetchCases() {
		got, err := b.againstApplyOf(ctx, size, of)
		if err != nil {
			return err
		}
		tell(sizeName(size), got)
	}
	return nil
}

func (b *bench) againstApplyOf(ctx context.Context, size int, of [2]*contender) (got [2][]sample, err error) {
	purpose := fmt.Sprintf("apply%d", size)
	var services [2]*process
	var databases [2]database
	for i, c := range of {
		if services[i], err = c.begin(ctx, purpose, callsPerSecond, unbounded, "MIRROR_SETTLE", "0"); err != nil {
			return got, err
		}
		defer func() { err = errors.Join(err, services[i].stop()) }()
		if err := b.fill(ctx, services[i].addr, c.databases[purpose], size, b.applyRooms); err != nil {
			return got, err
		}
		if databases[i], err = connect(ctx, c.databases[purpose], 1); err != nil {
			return got, err
		}
		defer databases[i].close()
	}
	return b.inTurns(func(i int) (sample, error) {
		return b.window(ctx, loadJob{
			Kind: "webhooks", Addr: services[i].addr, Conns: workers, Limit: int64(b.applyRooms), Size: size,
			Rooms: b.applyRooms,
		}, services[i], nil, func() error { return awaitSQL(ctx, databases[i], databases[i].idle) })
	})
}
