package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	// hungSecret signs the deliveries of the project whose calls hang.
	hungSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	// hungRate is the events a second of that project, each about another one of hungRooms.
	hungRate, hungRooms = 50, 2000
	// fairAim is how much later the rows of a project may be while another hangs, at p99.
	fairAim = 1.2
)

// benchFairness is part h: how soon the rows of one project show a change while all calls
// of another one hang, of the time without that one.
func benchFairness(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{Delay: apiDelay})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	hung, err := b.spawnServer(ctx, "fake", fakeConfig{Delay: apiDelay})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hung.stop()) }()
	if _, err := callsOf(ctx, hung.addr, 1); err != nil {
		return err
	}
	one := fmt.Sprintf("projects:\n"+
		"- {id: %s, base_url: 'http://%s', secret_key: {env: KEY}, webhook_secrets: [{env: SIGNING}]}\n",
		project, upstream.addr)
	two := one + fmt.Sprintf(
		"- {id: hung, base_url: 'http://%s', secret_key: {env: HUNG_KEY}, webhook_secrets: [{env: HUNG_SIGNING}]}\n",
		hung.addr)
	var services [2]*process
	var databases [2]string
	for i, file := range []string{one, two} {
		if databases[i], err = b.database(ctx, "h_"+strconv.Itoa(i)); err != nil {
			return err
		}
		path := filepath.Join(b.dir, "projects-"+strconv.Itoa(i)+".yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			return err
		}
		env := settings(databases[i], upstream.addr, callsPerSecond, unbounded, "MIRROR_PROJECTS_FILE", path,
			"KEY", "sk_bench", "SIGNING", secret, "HUNG_KEY", "sk_hung", "HUNG_SIGNING", hungSecret)
		delete(env, "LIVEBLOCKS_SECRET_KEY")
		delete(env, "LIVEBLOCKS_WEBHOOK_SECRET")
		service, err := b.startService(ctx, env)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, service.stop()) }()
		services[i] = service
		if err := b.fill(ctx, service.addr, databases[i], freshSize, freshRooms); err != nil {
			return err
		}
	}
	flooding, stop := context.WithCancel(ctx)
	flooded := make(chan error, 1)
	go func() { flooded <- flood(flooding, services[1].addr) }() // awaited below
	defer func() { stop(); err = errors.Join(err, <-flooded) }()

	var samples [2][]sample
	for range b.rounds {
		for i, service := range services {
			one, err := b.window(ctx, loadJob{
				Kind: "freshness", Rate: b.rate, Conns: 128, Warm: b.freshWarm, Timed: b.freshTimed, Size: freshSize,
				Rooms: freshRooms, Upstream: upstream.addr, Addr: service.addr, DatabaseURL: databases[i],
			}, service, upstream, nil)
			if err != nil {
				return err
			}
			samples[i] = append(samples[i], one)
		}
	}
	made, err := callsOf(ctx, hung.addr, 1)
	if err != nil {
		return err
	}
	if made.Calls == 0 {
		return errors.New("no call of the other project hung: nothing was measured")
	}
	return b.printFairness(samples[0], samples[1], made.Calls)
}

func (b *bench) printFairness(alone, beside []sample, hung int) error {
	w := b.table(fmt.Sprintf("(h) as (e), of a project alone, and beside one all of whose calls hang (%d did) while %d "+
		"events a second come for it", hung, hungRate), "", "p50 ms", "p99 ms", "p50 ratio", "aim", "p99 ratio", "aim", "CPU")
	all := func(s sample) []time.Duration { return s.each }
	to := sorted(alone, all)
	for _, side := range []struct {
		name    string
		samples []sample
		aim     float64
	}{{"alone", alone, 0}, {"beside one that hangs", beside, fairAim}} {
		each := sorted(side.samples, all)
		middle, tail := quantile(each, 0.5).Seconds(), quantile(each, 0.99).Seconds()
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\t%s\t%s\n", side.name, middle*1e3, tail*1e3,
			within(middle/quantile(to, 0.5).Seconds(), 0), within(tail/quantile(to, 0.99).Seconds(), side.aim),
			cost(side.samples))
	}
	return w.Flush()
}

// flood delivers events of the project whose calls hang until ctx ends.
func flood(ctx context.Context, addr string) error {
	conn, err := dialHTTP(ctx, addr)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(time.Second / hungRate)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return conn.conn.Close()
		case <-ticker.C:
		}
		request, err := deliveryWith(hungSecret, addr, roomID(freshSize, n%hungRooms), fmt.Sprintf("hung_%d", n), time.Now())
		if err != nil {
			return err
		}
		if err := conn.post(request); err != nil {
			return err
		}
	}
}
