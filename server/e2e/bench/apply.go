package main

import (
	"context"
	"errors"
	"fmt"
)

// fetchCases are the sizes of part c.
func fetchCases() []int { return []int{10 << 10, 100 << 10} }

// workers is the service's default number of workers.
const workers = 8

// benchApply is part c: documents fetched and applied per second.
func benchApply(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	if b.profile != "" {
		return b.profileApply(ctx, upstream)
	}
	w := b.table(fmt.Sprintf("(c) documents brought up to date per second: %d webhooks, each fetched from a fake that "+
		"answers at once and applied by %d workers,\n"+
		"    without settle fetches, against plain %s upserts of the %s by as many workers into the same table; CPU ours "+
		"is with the fake's last",
		b.applyRooms, workers, b.admin.driver, b.admin.document),
		"size", "ours/s", "plain/s", "ours:plain", "aim", "CPU ours", "CPU plain", "MiB ours")
	for _, size := range fetchCases() {
		ours, err := b.database(ctx, fmt.Sprintf("c_ours_%d", size))
		if err != nil {
			return err
		}
		plain, err := b.database(ctx, fmt.Sprintf("c_plain_%d", size))
		if err != nil {
			return err
		}
		if err := b.withService(ctx, settings(ours, upstream.addr, callsPerSecond, unbounded, "MIRROR_SETTLE", "0"),
			func(p *process) error {
				fetched, upserted, err := b.applySize(ctx, size, p, upstream, ours, plain)
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s+%.0f\t%s\t%s\n", sizeName(size), perSecondOf(fetched), perSecondOf(upserted),
					verdict(fetched, upserted, 0),
					cost(fetched), median(fetched, func(s sample) float64 { return s.cpu.upstream }), cost(upserted), peakMiB(fetched))
				return nil
			}); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (b *bench) applySize(ctx context.Context, size int, service, upstream *process, ours, plain string) (fetched,
	upserted []sample, err error,
) {
	if err := b.fill(ctx, service.addr, ours, size, b.applyRooms); err != nil {
		return nil, nil, err
	}
	db, err := connect(ctx, ours, 1)
	if err != nil {
		return nil, nil, err
	}
	defer db.close()
	applied := func() error {
		return awaitSQL(ctx, db, db.idle)
	}
	upsert := loadJob{Kind: "upsert", DatabaseURL: plain, Conns: workers, Limit: int64(b.applyRooms), Size: size}
	if _, err := b.window(ctx, upsert, nil, nil, nil); err != nil { // the first one inserts
		return nil, nil, err
	}
	for range b.rounds {
		raise := loadJob{
			Kind: "webhooks", Addr: service.addr, Conns: 8, Limit: int64(b.applyRooms), Size: size,
			Rooms: b.applyRooms,
		}
		one, err := b.window(ctx, raise, service, upstream, applied)
		if err != nil {
			return nil, nil, err
		}
		fetched = append(fetched, one)
		if one, err = b.window(ctx, upsert, nil, nil, nil); err != nil {
			return nil, nil, err
		}
		upserted = append(upserted, one)
	}
	return fetched, upserted, nil
}
