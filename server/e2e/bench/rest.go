package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	// restSize is the size of the documents in part j, restRooms the number of them.
	restSize  = 10 << 10
	restRooms = 200
	// restAim is the share of the calls of a bare server that the mirror has to answer.
	restAim = 0.8
)

// restPackages is where the packages of Liveblocks are, seen from the root of the module.
var restPackages = filepath.Join("server", "e2e", "lb")

// benchREST is part j: documents read by Liveblocks' package for Node.
func benchREST(ctx context.Context, b *bench) (err error) {
	ours, err := b.database(ctx, "j_ours")
	if err != nil {
		return err
	}
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	service, err := b.startService(ctx, settings(ours, upstream.addr, callsPerSecond, unbounded, "MIRROR_SETTLE", "0",
		"MIRROR_REST", "read"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.stop()) }()
	if err := b.fill(ctx, service.addr, ours, restSize, restRooms); err != nil {
		return err
	}
	rooms := make([]string, restRooms)
	for n := range rooms {
		rooms[n] = roomID(restSize, n)
	}
	plan, err := json.Marshal(map[string]any{
		"url": "http://" + service.addr, "rooms": rooms, "conns": b.conns, "rounds": b.rounds,
		"warm": b.warm.Milliseconds(), "timed": b.timed.Milliseconds(),
	})
	if err != nil {
		return err
	}
	module, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	cmd := exec.CommandContext(ctx, "node", "rest-bench.mjs")
	cmd.Dir = filepath.Join(filepath.Dir(string(bytes.TrimSpace(module))), restPackages)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(plan), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("rest-bench.mjs (tools/testdeps.sh installs what it needs): %w", err)
	}
	var found struct {
		Size    int
		Windows []struct {
			Callers      int
			Mirror, Bare []float64
		}
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return fmt.Errorf("rest-bench.mjs wrote %q: %w", out, err)
	}
	w := b.table(fmt.Sprintf("(j) documents of %d bytes read per second by Liveblocks' package for Node: "+
		"getStorageDocument from the REST API against a bare server of Node that answers the same bytes", found.Size),
		"callers", "ours/s", "bare/s", "ours:bare", "aim")
	for _, c := range found.Windows {
		var mirrored, bare []sample
		for n := range c.Mirror {
			mirrored, bare = append(mirrored, sample{rate: c.Mirror[n]}), append(bare, sample{rate: c.Bare[n]})
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", c.Callers, perSecondOf(mirrored), perSecondOf(bare),
			verdict(mirrored, bare, restAim))
	}
	return w.Flush()
}
