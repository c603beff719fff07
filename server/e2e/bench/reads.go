package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// readCase is one size of documents to read.
type readCase struct {
	size, count int
	aim         float64
}

func readCases() []readCase {
	return []readCase{{1 << 10, 2000, 0.4}, {10 << 10, 1000, 1.0}, {100 << 10, 200, 2.5}, {1 << 20, 32, 3.0}}
}

// benchReads is part b: documents read per second.
func benchReads(ctx context.Context, b *bench) (err error) {
	ours, err := b.database(ctx, "b_ours")
	if err != nil {
		return err
	}
	plain, err := b.database(ctx, "b_plain")
	if err != nil {
		return err
	}
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	env := settings(ours, upstream.addr, callsPerSecond, unbounded, "MIRROR_SETTLE", "0")
	if b.profile != "" {
		return b.profileReads(ctx, env, ours)
	}
	service, err := b.startService(ctx, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.stop()) }()
	if err := b.fillReads(ctx, service.addr, ours, plain); err != nil {
		return err
	}

	w := b.table(fmt.Sprintf("(b) documents read per second: GetStorageDocument as JSON over gRPC against `select "+
		"data` of %s over %s, as many bytes delivered",
		b.admin.document, b.admin.driver),
		"size", "conns", "ours/s", "plain/s", "ours:plain", "aim", "CPU ours", "CPU plain", "p99 ms ours", "plain",
		"MiB ours")
	for _, c := range readCases() {
		for _, conns := range b.conns {
			var grpc, sql []sample
			for range b.rounds {
				job := loadJob{
					Kind: "grpc", Addr: service.grpcAddr, Conns: conns, Shared: b.share, Warm: b.warm,
					Timed: b.timed * 2 / 3, Size: c.size, Rooms: c.count,
				}
				one, err := b.window(ctx, job, service, nil, nil)
				if err != nil {
					return err
				}
				grpc = append(grpc, one)
				job.Kind, job.DatabaseURL = "read", plain
				if one, err = b.window(ctx, job, nil, nil, nil); err != nil {
					return err
				}
				sql = append(sql, one)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", sizeName(c.size), conns, perSecondOf(grpc),
				perSecondOf(sql),
				verdict(grpc, sql, c.aim), cost(grpc), cost(sql), p99Of(grpc), p99Of(sql), peakMiB(grpc))
		}
	}
	return w.Flush()
}

// fillReads puts the documents in place: by way of the service, and as plain
// rows.
func (b *bench) fillReads(ctx context.Context, addr, ours, plain string) error {
	db, err := connect(ctx, plain, 1)
	if err != nil {
		return err
	}
	defer db.close()
	for _, c := range readCases() {
		if err := b.fill(ctx, addr, ours, c.size, c.count); err != nil {
			return err
		}
		twins := make([][]byte, variants(c.size))
		for i := range twins {
			if twins[i], err = twin(ctx, db, c.size, uint64(i)); err != nil {
				return err
			}
		}
		for n := range c.count {
			room := roomID(c.size, n)
			if err := db.exec(ctx, db.upsert, mirror.Bucket(project, room), project, room, c.size,
				twins[n%len(twins)]); err != nil {
				return err
			}
		}
	}
	return db.exec(ctx, db.tidy("mirror_document"))
}

// twin makes a document that has size bytes once the database has added its
// blanks, so that both sides deliver as much. Its content is the same but at its
// end.
func twin(ctx context.Context, db database, size int, seed uint64) ([]byte, error) {
	for length, tries := size, 0; tries < 2; tries++ {
		d, err := newDocumentOf(size, length, seed)
		if err != nil {
			return nil, err
		}
		data := d.json(firstRevision)
		var got int
		if err := db.get(ctx, &got, db.length, data); err != nil {
			return nil, err
		}
		if got == size {
			return data, nil
		}
		length += size - got
	}
	return nil, fmt.Errorf("no document has exactly %d bytes in %s", size, db.name)
}
