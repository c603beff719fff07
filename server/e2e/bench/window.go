package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// sample is what one window showed.
type sample struct {
	rate     float64 // operations per second
	ops      int64   // all of them, those of the warm-up too
	p50, p99 time.Duration
	each     []time.Duration
	answered []time.Duration // those of each that no hanging call has delayed
	alone    []time.Duration // those of each before which the row showed every change
	calls    int             // that the fake got
	hung     int             // of calls
	stalled  stalledEnd
	// cpu is microseconds of processor time for each operation.
	cpu usage
	// peak is the server's, in bytes, and grown what its memory grew by when the load came
	// to be connected.
	peak, grown int64
}

// usage is processor time by process: that of the server that is measured, of
// the database, of the load generator, and of the fake Liveblocks.
type usage struct{ server, database, load, upstream float64 }

// usageNow reads what was used so far, in microseconds. What cannot be read, as
// anywhere but on Linux, is 0. A profile is not to show the reading.
func (b *bench) usageNow(server, load, upstream *process) usage {
	if b.profile != "" {
		return usage{}
	}
	of := func(p *process) float64 {
		if p == nil {
			return 0
		}
		cpu, _ := cpuOf(p.pid(), false)
		return float64(cpu.Microseconds())
	}
	db, _ := cpuOfFamily(b.server.Pid())
	return usage{server: of(server), database: float64(db.Microseconds()), load: of(load), upstream: of(upstream)}
}

// since is the use from before until u, for each of ops.
func (u usage) since(before usage, ops int64) usage {
	n := float64(max(ops, 1))
	return usage{
		server: (u.server - before.server) / n, database: (u.database - before.database) / n,
		load: (u.load - before.load) / n, upstream: (u.upstream - before.upstream) / n,
	}
}

// window runs one job against server, which is nil if the job works by itself.
// Should after be given, the window lasts until it returns.
func (b *bench) window(ctx context.Context, job loadJob, server, upstream *process, after func() error) (_ sample,
	err error,
) {
	var resident int64
	if server != nil {
		resident = residentOf(server.pid())
	}
	load, err := b.spawn(ctx, "load", job)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	var prepared string
	if err := load.hear(&prepared); err != nil {
		return sample{}, fmt.Errorf("prepare the load: %w", err)
	}
	if server != nil {
		resident = residentOf(server.pid()) - resident
		resetPeak(server.pid())
	}
	before := b.usageNow(server, load, upstream)
	begin := time.Now()
	if err := load.tell("go"); err != nil {
		return sample{}, err
	}
	var r loadResult
	if err := load.hear(&r); err != nil {
		return sample{}, fmt.Errorf("run the load: %w", err)
	}
	s := sample{
		rate: r.rate(), ops: r.Ops, p50: r.P50, p99: r.P99, each: r.Each,
		answered: r.Answered, alone: r.Alone, calls: r.Calls, hung: r.Hung, stalled: r.Stalled,
		grown: resident,
	}
	if after != nil {
		if err := after(); err != nil {
			return sample{}, err
		}
		s.rate = float64(r.Ops) / time.Since(begin).Seconds()
	}
	s.cpu = b.usageNow(server, load, upstream).since(before, r.Ops)
	if server != nil {
		s.peak = peakOf(server.pid())
	}
	return s, nil
}

// awaitSQL waits until a query is true.
func awaitSQL(ctx context.Context, db database, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		var done bool
		if err := db.get(ctx, &done, query, args...); err != nil {
			return fmt.Errorf("wait for %s: %w", query, err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", query, ctx.Err())
		case <-ticker.C:
		}
	}
}

// fill lets the service at addr mirror count rooms of a size.
func (b *bench) fill(ctx context.Context, addr, url string, size, count int) error {
	_, err := b.window(ctx, loadJob{
		Kind: "webhooks", Addr: addr, Conns: 8, Limit: int64(count), Size: size,
		Rooms: count,
	}, nil, nil, nil)
	if err != nil {
		return err
	}
	db, err := connect(ctx, url, 1)
	if err != nil {
		return err
	}
	defer db.close()
	return awaitSQL(ctx, db, `select
    (select count(*) from mirror_document where kind = 2 and room_id like $1) >= $2
    and not exists (select 1 from mirror_resource_state where generation > applied_generation)`,
		fmt.Sprintf("bench:%d:%%", size), count)
}

// median of one number of many samples.
func median(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

func rateOf(s sample) float64 { return s.rate }

// ratio compares the rates of ours with those of theirs, window by window and
// by their medians.
func ratio(ours, theirs []sample) (mid, low, high float64) {
	for i := range ours {
		r := ours[i].rate / theirs[i].rate
		low, high = min(cmp.Or(low, r), r), max(high, r)
	}
	return median(ours, rateOf) / median(theirs, rateOf), low, high
}

// verdict is a ratio in words, beside an aim; no aim is 0.
func verdict(ours, theirs []sample, aim float64) string {
	mid, low, high := ratio(ours, theirs)
	s := fmt.Sprintf("%.2f (%.2f-%.2f)", mid, low, high)
	switch {
	case aim == 0:
		return s + "\t-"
	case mid >= aim:
		return s + fmt.Sprintf("\t%s reached", aimOf(aim))
	default:
		return s + fmt.Sprintf("\t%s SHORT", aimOf(aim))
	}
}

// cost is the processor time of the medians in words.
func cost(samples []sample) string {
	return fmt.Sprintf("%.0f+%.0f+%.0f",
		median(samples, func(s sample) float64 { return s.cpu.server }),
		median(samples, func(s sample) float64 { return s.cpu.database }),
		median(samples, func(s sample) float64 { return s.cpu.load }))
}

func perSecondOf(samples []sample) string {
	return fmt.Sprintf("%.0f", median(samples, rateOf))
}

func p99Of(samples []sample) string {
	return fmt.Sprintf("%.1f", median(samples, func(s sample) float64 { return s.p99.Seconds() * 1e3 }))
}

func peakMiB(samples []sample) string {
	return fmt.Sprintf("%.0f", median(samples, func(s sample) float64 { return float64(s.peak) / (1 << 20) }))
}

// aimOf spells an aim with as many digits as it has, at least one.
func aimOf(aim float64) string {
	if s := strconv.FormatFloat(aim, 'f', -1, 64); strings.Contains(s, ".") {
		return s
	}
	return fmt.Sprintf("%.1f", aim)
}

// table aligns what is written to it with tabs.
func (b *bench) table(title string, columns ...string) *tabwriter.Writer {
	fmt.Fprintf(b.out, "\n%s\n", title)
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	return w
}

// sizeName spells a size in bytes.
func sizeName(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
