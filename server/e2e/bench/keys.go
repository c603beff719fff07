package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// keysAim is the least that a service with many keys may do of what it does with one
// token.
const keysAim = 0.97

// manyKeys is how many keys there are, with as many prefixes.
const manyKeys = 100

// benchKeys is part g: acknowledged deliveries and reads with many keys, each limited to
// prefixes, against one token that may do everything.
func benchKeys(ctx context.Context, b *bench) (err error) {
	if b.profile != "" {
		return nil
	}
	const size, token = 1 << 10, "one token for everything"
	url, err := b.database(ctx, "g_keys")
	if err != nil {
		return err
	}
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	rooms := min(b.rooms, 2000)
	if err := b.withService(ctx, settings(url, upstream.addr, callsPerSecond, unbounded, "MIRROR_SETTLE", "0"),
		func(p *process) error { return b.fill(ctx, p.addr, url, size, rooms) }); err != nil {
		return err
	}
	file, keys, err := keysFile(b.dir, roomID(size, 0))
	if err != nil {
		return err
	}
	one, err := b.startService(ctx, settings(url, upstream.addr, callsPerSecond, "0.001", "MIRROR_API_TOKEN", token))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, one.stop()) }()
	many, err := b.startService(ctx, settings(url, upstream.addr, callsPerSecond, "0.001", "MIRROR_KEYS_FILE", file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, many.stop()) }()

	w := b.table(fmt.Sprintf("(g) a second with %d keys, each limited to two prefixes, against one token: webhooks "+
		"acknowledged, and documents of %s read over gRPC", manyKeys, sizeName(size)),
		"what", "conns", "keys/s", "token/s", "keys:token", "aim", "CPU keys", "CPU token", "p99 ms keys", "token")
	for _, what := range []string{"webhooks", "grpc"} {
		for _, conns := range b.conns {
			var with, without []sample
			job := loadJob{
				Kind: what, Conns: conns, Shared: b.share, Warm: b.warm, Timed: b.timed, Size: size, Rooms: rooms,
			}
			for range b.rounds {
				for _, side := range []struct {
					p      *process
					tokens []string
					into   *[]sample
				}{{many, keys, &with}, {one, []string{token}, &without}} {
					job.Addr, job.Tokens = side.p.addr, side.tokens
					if what == "grpc" {
						job.Addr = side.p.grpcAddr
					}
					s, err := b.window(ctx, job, side.p, nil, nil)
					if err != nil {
						return err
					}
					*side.into = append(*side.into, s)
				}
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", what, conns, perSecondOf(with), perSecondOf(without),
				verdict(with, without, keysAim), cost(with), cost(without), p99Of(with), p99Of(without))
		}
	}
	return w.Flush()
}

// keysFile writes keys for rooms that begin as this one does, each with another prefix
// too.
func keysFile(dir, room string) (file string, keys []string, err error) {
	var entries []access.KeyEntry
	for n := range manyKeys {
		key, _ := access.NewKey()
		e := access.NewEntry(key)
		e.Name, e.Scopes, e.Projects = "bench", []string{"read"}, []mirror.ProjectID{project}
		e.RoomPrefixes = []string{fmt.Sprintf("team-%d:", n), room[:len(room)/2]}
		keys, entries = append(keys, key), append(entries, e)
	}
	text, err := access.FormatKeys(entries)
	if err != nil {
		return "", nil, err
	}
	file = filepath.Join(dir, "keys.yaml")
	return file, keys, os.WriteFile(file, []byte("keys:\n"+text), 0o600)
}
