package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// freshness measures the time from a change until the row shows it, for events at an
// even rate, each about a room of its own choice. The fake's documents tell when they
// were fetched, so a row shows a change if its revision is not before it.
type freshness struct {
	job *loadJob
	db  database
	// idle are connections that wait for a delivery.
	idle chan *httpConn

	mu      sync.Mutex
	waiting map[string][]change // changes that the row does not show yet, by room
	shown   []change
}

// change is one that a row is to show.
type change struct {
	room        string
	from, until time.Time
	// alone means that the row showed everything before.
	alone bool
}

// newFreshness opens as many connections as deliveries may be under way: the plain
// handler answers one after it has fetched.
func newFreshness(ctx context.Context, job *loadJob) (*freshness, error) {
	db, err := connect(ctx, job.DatabaseURL, 1)
	if err != nil {
		return nil, err
	}
	f := &freshness{
		job: job, db: db, idle: make(chan *httpConn, job.Conns), waiting: make(map[string][]change),
	}
	for range job.Conns {
		c, err := dialHTTP(ctx, job.Addr)
		if err != nil {
			return nil, err
		}
		f.idle <- c
	}
	_, err = f.db.lookUp(ctx, []string{roomID(job.Size, job.First)}) // prepares the statement
	return f, err
}

func (f *freshness) run(ctx context.Context) (loadResult, error) {
	if _, err := callsOf(ctx, f.job.Upstream, f.job.Hangs); err != nil {
		return loadResult{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sent, looked := make(chan struct{}), make(chan error, 1)
	go func() { looked <- f.look(ctx, sent) }() // run waits for it
	begin := time.Now().Add(f.job.Warm)
	ops := f.send(ctx, cancel, begin.Add(f.job.Timed))
	close(sent)
	if err := errors.Join(<-looked, context.Cause(ctx)); err != nil {
		return loadResult{}, fmt.Errorf("load: %w", err)
	}
	made, err := callsOf(ctx, f.job.Upstream, 0)
	if err != nil {
		return loadResult{}, err
	}
	return f.result(begin, ops, made), nil
}

// send delivers events until end, and returns how many when all are acknowledged.
func (f *freshness) send(ctx context.Context, failed context.CancelCauseFunc, end time.Time) int64 {
	var wg sync.WaitGroup
	defer wg.Wait()
	ticker := time.NewTicker(time.Second / time.Duration(f.job.Rate))
	defer ticker.Stop()
	for n := int64(0); ; n++ {
		if ctx.Err() != nil || f.job.Limit > 0 && n >= f.job.Limit || f.job.Limit == 0 && !time.Now().Before(end) {
			return n
		}
		room := roomID(f.job.Size, f.job.First+rand.IntN(f.job.Rooms))
		if f.job.Limit > 0 { // each in turn
			room = roomID(f.job.Size, f.job.First+int(n)%f.job.Rooms)
		}
		c := <-f.idle
		wg.Go(func() {
			if err := f.deliver(c, room); err != nil {
				failed(err)
			}
			f.idle <- c
		})
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (f *freshness) deliver(c *httpConn, room string) error {
	now := time.Now()
	request, err := delivery(f.job.Addr, room, "msg_"+strconv.FormatUint(rand.Uint64(), 36), now)
	if err != nil {
		return err
	}
	f.mu.Lock()
	waiting := f.waiting[room]
	f.waiting[room] = append(waiting, change{room: room, from: now, alone: len(waiting) == 0})
	f.mu.Unlock()
	return c.post(request)
}

// look reads the rows that do not show everything yet, until all are sent and shown.
// What is not shown within answerTimeout counts as if it were then.
func (f *freshness) look(ctx context.Context, sent <-chan struct{}) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var last <-chan time.Time
	for {
		var over bool
		select {
		case <-ctx.Done():
			return nil
		case <-sent:
			last, sent = time.After(answerTimeout), nil
		case <-last:
			over = true
		case <-ticker.C:
		}
		f.mu.Lock()
		rooms := make([]string, 0, len(f.waiting))
		for room, changes := range f.waiting {
			// Before that no answer can have come, and looking costs processor time.
			if over || time.Since(changes[0].from) > apiDelay {
				rooms = append(rooms, room)
			}
		}
		all := len(f.waiting) == 0
		f.mu.Unlock()
		if all && last != nil {
			return nil
		}
		revisions, err := f.db.lookUp(ctx, rooms)
		if err != nil {
			return err
		}
		f.show(revisions, over)
		if over {
			return nil
		}
	}
}

// lookEvery is the time between two looks at the rows.
const lookEvery = 5 * time.Millisecond

// show notes which changes the rows show by now.
func (f *freshness) show(revisions map[string]int64, all bool) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for room, changes := range f.waiting {
		left := changes[:0]
		for _, c := range changes {
			if revision, ok := revisions[room]; !all && (!ok || revision < c.from.UnixMicro()) {
				left = append(left, c)
			} else {
				c.until = now
				f.shown = append(f.shown, c)
			}
		}
		if f.waiting[room] = left; len(left) == 0 {
			delete(f.waiting, room)
		}
	}
}

// hangAfter is how long a call that hung concerns its room after it was given up: its
// task is tried again a second later.
const hangAfter = 2 * time.Second

// result is that of the changes from begin on.
func (f *freshness) result(begin time.Time, ops int64, made callsMade) loadResult {
	r := loadResult{Ops: ops, Window: time.Since(begin), Calls: made.Calls, Hung: len(made.Hung)}
	for _, c := range f.shown {
		if c.from.Before(begin) {
			continue
		}
		took := c.until.Sub(c.from)
		r.Each = append(r.Each, took)
		if c.alone {
			r.Alone = append(r.Alone, took)
		}
		if !slices.ContainsFunc(made.Hung, func(h hang) bool {
			return h.Room == c.room && h.From < c.until.UnixMicro() && h.Until > c.from.Add(-hangAfter).UnixMicro()
		}) {
			r.Answered = append(r.Answered, took)
		}
	}
	r.Timed = int64(len(r.Each))
	return r
}

// callsOf sets the share of calls that hang, and returns the calls since that was last
// done.
func callsOf(ctx context.Context, addr string, share float64) (made callsMade, err error) {
	to := fmt.Sprintf("http://%s%s?share=%g", addr, hangPath, share)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, http.NoBody)
	if err != nil {
		return made, err
	}
	resp, err := (&http.Client{Timeout: answerTimeout}).Do(req)
	if err != nil {
		return made, err
	}
	defer resp.Body.Close()
	return made, json.NewDecoder(resp.Body).Decode(&made)
}

const (
	// freshRooms is the number of rooms of part e, freshSize the size of their
	// documents.
	freshRooms = 500
	freshSize  = 10 << 10
	// hangShare is the share of the calls that hang, where some do.
	hangShare = 0.05
)

// The aims of part e: by how much the service may be later than the plain handler, by
// how much with calls that hang than without, and how many times the API's delay a room
// may take that was never seen.
const (
	freshMedianAim = 1.2
	freshTailAim   = 1.5
	hangAim        = 1.5
	firstAim       = 1.4
)

// benchFreshness is part e: how soon rows show a change, while many rooms change.
func benchFreshness(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{Delay: apiDelay})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	ours, err := b.database(ctx, "e_ours")
	if err != nil {
		return err
	}
	guide, err := b.guideDatabase(ctx, "e_guide", freshSize, freshRooms)
	if err != nil {
		return err
	}
	plain, err := b.spawnServer(ctx, "baseline", baselineConfig{
		Mode: "recipe", DatabaseURL: guide, MaxConns: 16, Upstream: "http://" + upstream.addr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	// The rate begins at 50 calls a second and grows in steps of a share of the
	// ceiling: it is far above what is measured after a second of the filling.
	service, err := b.startService(ctx, settings(ours, upstream.addr, callsPerSecond, unbounded))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.stop()) }()
	if err := b.fill(ctx, service.addr, ours, freshSize, freshRooms); err != nil {
		return err
	}

	job := loadJob{
		Kind: "freshness", Rate: b.rate, Conns: 128, Warm: b.freshWarm, Timed: b.freshTimed,
		Size: freshSize, Rooms: freshRooms, Upstream: upstream.addr,
	}
	var undisturbed, baseline, hanging, first []sample
	for round := range b.rounds {
		for _, side := range []struct {
			p        *process
			database string
			hangs    float64
			first    bool
			samples  *[]sample
		}{
			{service, ours, 0, false, &undisturbed},
			{plain, guide, 0, false, &baseline},
			{service, ours, hangShare, false, &hanging},
			{service, ours, 0, true, &first},
		} {
			if err := b.calm(ctx, ours); err != nil {
				return err
			}
			job := job
			job.Addr, job.DatabaseURL, job.Hangs = side.p.addr, side.database, side.hangs
			if side.first {
				job.First, job.Rooms = freshRooms+round*b.samples, b.samples
				job.Limit, job.Rate, job.Warm = int64(b.samples), 5, 0
				job.Conns = 8 // servers close connections that are not used for long
			}
			one, err := b.window(ctx, job, side.p, upstream, nil)
			if err != nil {
				return err
			}
			*side.samples = append(*side.samples, one)
		}
	}
	return b.printFreshness(undisturbed, baseline, hanging, first)
}

func (b *bench) printFreshness(undisturbed, baseline, hanging, first []sample) error {
	calls, hung := 0, 0
	for _, s := range hanging {
		calls, hung = calls+s.calls, hung+s.hung
	}
	w := b.table(fmt.Sprintf("(e) from the change to the row that shows it: %d events a second over %d known rooms, "+
		"documents of %s, an API that takes %s; all of each side together\n"+
		"    plain: a handler that fetches in the request and writes the row; hanging: %.0f %% of the calls are never "+
		"answered (%d of %d);\n"+
		"    first seen: %d rooms, one after the other, in milliseconds and in the API's delay",
		b.rate, freshRooms, sizeName(freshSize), apiDelay, hangShare*100, hung, calls, b.samples*b.rounds),
		"", "p50 ms", "p99 ms", "p50 ratio", "aim", "p99 ratio", "aim", "calls an event", "CPU")
	row := func(name string, samples []sample, each []time.Duration, to []time.Duration, p50, p99 float64) {
		middle, tail := quantile(each, 0.5).Seconds(), quantile(each, 0.99).Seconds()
		calls := func(s sample) float64 { return float64(s.calls) / float64(s.ops) }
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\t%s\t%.2f\t%s\n", name, middle*1e3, tail*1e3,
			within(middle/quantile(to, 0.5).Seconds(), p50), within(tail/quantile(to, 0.99).Seconds(), p99),
			median(samples, calls), cost(samples))
	}
	all := func(s sample) []time.Duration { return s.each }
	plain, ours := sorted(baseline, all), sorted(undisturbed, all)
	row("plain", baseline, plain, plain, 0, 0)
	row("ours, of plain", undisturbed, ours, plain, freshMedianAim, freshTailAim)
	alone := func(s sample) []time.Duration { return s.alone }
	row("ours, one change at a time, of plain", undisturbed, sorted(undisturbed, alone), sorted(baseline, alone), 0, 0)
	answered := func(s sample) []time.Duration { return s.answered }
	row("hanging, rooms whose calls are answered, of ours", hanging, sorted(hanging, answered), ours, 0, hangAim)
	row("hanging, all rooms, of ours", hanging, sorted(hanging, all), ours, 0, 0)
	row("first seen, of the API", first, sorted(first, all), []time.Duration{apiDelay}, firstAim, 0)
	return w.Flush()
}

// calm waits until the service has nothing left to do.
func (b *bench) calm(ctx context.Context, url string) error {
	db, err := connect(ctx, url, 1)
	if err != nil {
		return err
	}
	defer db.close()
	return awaitSQL(ctx, db, db.idle)
}

// within is a ratio in words, beside an aim that it should not exceed; no aim is 0.
func within(ratio, aim float64) string {
	s := fmt.Sprintf("%.2f", ratio)
	switch {
	case aim == 0:
		return s + "\t-"
	case ratio <= aim:
		return s + fmt.Sprintf("\t%.1f reached", aim)
	default:
		return s + fmt.Sprintf("\t%.1f MISSED", aim)
	}
}
