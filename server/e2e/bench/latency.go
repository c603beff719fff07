package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// apiDelay is how long a call to Liveblocks takes in part d.
const apiDelay = 50 * time.Millisecond

// latencySize is the size of the documents in part d.
const latencySize = 10 << 10

// benchLatency is part d: from a webhook to a row that can be read.
func benchLatency(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{Delay: apiDelay})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	ours, err := b.database(ctx, "d_ours")
	if err != nil {
		return err
	}
	guide, err := b.guideDatabase(ctx, "d_guide", latencySize, b.samples)
	if err != nil {
		return err
	}
	recipe, err := b.spawnServer(ctx, "baseline", baselineConfig{
		Mode: "recipe", DatabaseURL: guide, MaxConns: 16,
		Upstream: "http://" + upstream.addr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, recipe.stop()) }()
	service, err := b.startService(ctx, settings(ours, upstream.addr))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.stop()) }()
	if err := b.fill(ctx, service.addr, ours, latencySize, b.samples); err != nil {
		return err
	}
	// The settle fetches of the filling would be in the way.
	mirrored, err := connect(ctx, ours, 1)
	if err != nil {
		return err
	}
	defer mirrored.close()

	var direct, synced []sample
	for range b.rounds {
		for _, side := range []struct {
			p        *process
			database string
			samples  *[]sample
		}{{service, ours, &direct}, {recipe, guide, &synced}} {
			if err := awaitSQL(ctx, mirrored, mirrored.idle); err != nil {
				return err
			}
			one, err := b.window(ctx, loadJob{
				Kind: "latency", Addr: side.p.addr, DatabaseURL: side.database, Limit: int64(b.samples), Size: latencySize,
				Rooms: b.samples,
			}, side.p, nil, nil)
			if err != nil {
				return err
			}
			*side.samples = append(*side.samples, one)
		}
	}
	w := b.table(fmt.Sprintf("(d) from the webhook to the row that can be read, idle, documents of %s, an API that "+
		"takes %s; all %d of each side together",
		sizeName(latencySize), apiDelay, b.samples*b.rounds),
		"", "ours ms", "guides' recipe ms", "ours:recipe")
	for _, q := range []struct {
		name string
		at   float64
	}{{"median", 0.5}, {"p99", 0.99}} {
		o, r := pooled(direct, q.at), pooled(synced, q.at)
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.2f\n", q.name, o.Seconds()*1e3, r.Seconds()*1e3, o.Seconds()/r.Seconds())
	}
	fmt.Fprintf(w, "CPU\t%s\t%s\t\n", cost(direct), cost(synced))
	return w.Flush()
}

// guideDatabase makes a database with the guides' table and as many rooms of a size in
// it.
func (b *bench) guideDatabase(ctx context.Context, name string, size, rooms int) (string, error) {
	u, err := b.emptyDatabase(ctx, name)
	if err != nil {
		return "", err
	}
	db, err := connect(ctx, u, 1)
	if err != nil {
		return "", err
	}
	defer db.close()
	if err := db.exec(ctx, db.guideTable); err != nil {
		return "", err
	}
	for n := range rooms {
		if err := db.exec(ctx, db.guideUpsert, roomID(size, n), `{"revision": 0}`); err != nil {
			return "", err
		}
	}
	return u, nil
}

// pooled is a quantile over the latencies of all windows.
func pooled(samples []sample, q float64) time.Duration {
	return quantile(sorted(samples, func(s sample) []time.Duration { return s.each }), q)
}

// sorted returns the latencies of all windows, sorted.
func sorted(samples []sample, of func(sample) []time.Duration) []time.Duration {
	var all []time.Duration
	for _, s := range samples {
		all = append(all, of(s)...)
	}
	slices.Sort(all)
	return all
}
