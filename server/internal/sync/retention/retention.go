// Package retention deletes rows by age while the database is awake anyway.
//
// It sends nothing by itself: each time the service has looked for work, a run may begin,
// about one an hour. A run deletes in small batches and pauses after each, so that the
// database works for it a tenth of the time. Replicas do not know of each other: several
// runs at once only share the work.
package retention

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// every is the time between two runs. It is less than an hour, so that each safety poll
	// of a service without work is followed by one.
	every = 55 * time.Minute
	// runTime is the longest time of a run. What is left is for the next one, which then
	// follows after as long.
	runTime = time.Minute
	// batchRows is the maximum number of rows of a statement.
	batchRows = 1000
	// rest is how much longer than a batch the pause after it is. What comes in meanwhile
	// goes on at nine tenths of its rate at least, if the database has no time to spare.
	rest = 9
)

// Changes is the name of the table of the feed.
const Changes = "mirror_change"

// Store is what a Runner needs of the store.
type Store interface {
	store.Retention
	store.Feed
}

// Config configures a Runner. Every field must be set unless stated otherwise.
type Config struct {
	Store    Store
	Projects []Project
	// Changes is how long the entries of the feed stay, which projects share; zero for ever.
	Changes time.Duration
	Now     func() time.Time
	Logger  *slog.Logger
}

// Project says how long the rows of a project stay.
type Project struct {
	ID mirror.ProjectID
	// Keep has the time for each table; without one, or with zero, rows stay for ever.
	Keep map[store.Aging]time.Duration
}

// Runner deletes rows.
type Runner struct {
	cfg  Config
	wake chan struct{}
	jobs []*job
	// first is the job with which the next run begins, next the time before which it
	// does not.
	first int
	next  time.Time

	mu sync.Mutex // for the states of jobs
}

// job is one table of a project, or that of the feed.
type job struct {
	project mirror.ProjectID
	table   store.Aging
	state   mirror.Retention
	run     func(ctx context.Context, j *job, before, end time.Time) (left time.Time, err error)
	// bucket is the one of the feed with which the next run begins, so that each has its turn.
	bucket int16
}

// New returns a Runner.
func New(cfg Config) *Runner {
	r := &Runner{cfg: cfg, wake: make(chan struct{}, 1)}
	add := func(j *job, keep time.Duration) {
		j.state = mirror.Retention{Table: string(j.table), Keep: keep}
		r.jobs = append(r.jobs, j)
	}
	for _, p := range cfg.Projects {
		for _, table := range store.AgingTables {
			add(&job{project: p.ID, table: table, run: r.expire}, p.Keep[table])
		}
	}
	add(&job{table: Changes, run: r.trim}, cfg.Changes)
	return r
}

// Wake tells that the database is awake. It never waits.
func (r *Runner) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Status returns what became of the tables of a project.
func (r *Runner) Status(project mirror.ProjectID) (list []mirror.Retention) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		if j.project == project && j.table != Changes {
			list = append(list, j.state)
		}
	}
	return list
}

// Changes returns what became of the entries of the feed.
func (r *Runner) Changes() mirror.Retention {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs[len(r.jobs)-1].state
}

// Run runs until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		begin := r.cfg.Now()
		if begin.Before(r.next) {
			continue
		}
		if done := r.once(ctx, begin.Add(runTime)); done {
			r.next = begin.Add(every)
		} else {
			now := r.cfg.Now()
			r.next = now.Add(now.Sub(begin))
		}
	}
}

// once does every job, until the end at most, and reports whether all are done. The next
// run begins with the job after the one that was cut off, so that none keeps the others
// from their turn.
func (r *Runner) once(ctx context.Context, end time.Time) (done bool) {
	for i := range r.jobs {
		at := (r.first + i) % len(r.jobs)
		j := r.jobs[at]
		left, ok := r.do(ctx, j, end)
		if ctx.Err() != nil {
			return false
		}
		if ok && !left.IsZero() {
			r.first = (at + 1) % len(r.jobs)
			r.look(ctx)
			return false
		}
	}
	r.first = 0
	r.look(ctx)
	return true
}

// do does a job, and returns the time of the rows at which it was cut off.
func (r *Runner) do(ctx context.Context, j *job, end time.Time) (left time.Time, ok bool) {
	keep := j.state.Keep // never changes
	if keep == 0 && j.table != Changes {
		return time.Time{}, true
	}
	now := r.cfg.Now()
	before := now.Add(-keep)
	left, err := j.run(ctx, j, before, end)
	if ctx.Err() != nil {
		return left, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &j.state
	s.RunTime, s.Behind, s.Problem = now, 0, ""
	if !left.IsZero() {
		s.Behind = max(before.Sub(left), 0)
	}
	if err != nil {
		s.Problem = "the database refused it; see the log"
		r.cfg.Logger.WarnContext(ctx, "old rows could not be deleted, will be tried again",
			slog.String("project", string(j.project)), slog.String("table", s.Table), slog.Any("error", err))
	}
	return left, err == nil
}

// look notes the oldest row of each table.
func (r *Runner) look(ctx context.Context) {
	for _, p := range r.cfg.Projects {
		oldest, err := r.cfg.Store.Oldest(ctx, p.ID)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.cfg.Logger.WarnContext(ctx, "the age of the oldest rows is not known", slog.String("project", string(p.ID)),
				slog.Any("error", err))
			continue
		}
		r.mu.Lock()
		for _, j := range r.jobs {
			if j.project == p.ID && j.table != Changes {
				j.state.OldestTime, j.state.RunTime = oldest[j.table], r.cfg.Now()
			}
		}
		r.mu.Unlock()
	}
}

// deleted counts rows.
func (r *Runner) deleted(j *job, rows int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j.state.Deleted += int64(rows)
}

// pause waits after a batch, and reports whether the run may go on.
func (r *Runner) pause(ctx context.Context, begun, end time.Time) bool {
	now := r.cfg.Now()
	return now.Before(end) && clock.Sleep(ctx, min(rest*now.Sub(begun), end.Sub(now))) == nil && r.cfg.Now().Before(end)
}

// expire deletes the old rows of a table that ages.
func (r *Runner) expire(ctx context.Context, j *job, before, end time.Time) (left time.Time, err error) {
	x := store.Expiry{Project: j.project, Table: j.table, Before: before, Limit: batchRows}
	for {
		begun := r.cfg.Now()
		out, err := r.cfg.Store.Expire(ctx, x)
		if err != nil {
			return time.Time{}, err
		}
		r.deleted(j, out.Deleted)
		if !out.More {
			return time.Time{}, nil
		}
		if x.After = out.Last; !r.pause(ctx, begun, end) {
			return out.Oldest, nil
		}
	}
}

// trim trims the old entries of the feed, bucket by bucket, and notes the oldest that is
// left of those that are not the latest of their bucket.
func (r *Runner) trim(ctx context.Context, j *job, before, end time.Time) (left time.Time, err error) {
	heads, err := r.cfg.Store.Heads(ctx)
	if err != nil {
		return time.Time{}, err
	}
	earliest, err := r.cfg.Store.Earliest(ctx)
	if err != nil {
		return time.Time{}, err
	}
	var ranges []store.ChangeRange
	for bucket := range heads {
		if n := earliest[bucket]; n+1 < heads[bucket] { // the latest stays
			ranges = append(ranges, store.ChangeRange{Bucket: int16(bucket), After: n, To: n + 1})
		}
	}
	firsts, err := r.cfg.Store.Changes(ctx, ranges)
	if err != nil {
		return time.Time{}, err
	}
	var oldest time.Time
	note := func(t time.Time) {
		if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	at, _ := slices.BinarySearchFunc(firsts, j.bucket, func(c mirror.Change, bucket int16) int {
		return cmp.Compare(c.Bucket, bucket)
	})
	for _, first := range slices.Concat(firsts[at:], firsts[:at]) {
		c, more := first, true
		for j.state.Keep > 0 && more && c.CommitTime.Before(before) {
			if !left.IsZero() { // no time for this one
				if c.CommitTime.Before(left) {
					left = c.CommitTime
				}
				break
			}
			begun := r.cfg.Now()
			c, more, err = r.trimSome(ctx, j, c, heads[c.Bucket], before)
			if err != nil {
				return time.Time{}, err
			}
			if !r.pause(ctx, begun, end) {
				left, j.bucket = c.CommitTime, c.Bucket+1
			}
		}
		if c.Number < heads[c.Bucket] {
			note(c.CommitTime)
		}
	}
	r.mu.Lock()
	j.state.OldestTime = oldest
	r.mu.Unlock()
	return left, nil
}

// trimSome trims entries from the first one of a bucket on. It returns the first that is
// left, as far as it is known, and whether more may be old.
func (r *Runner) trimSome(ctx context.Context, j *job, first mirror.Change, head int64, before time.Time) (
	next mirror.Change, more bool, err error,
) {
	page, err := r.cfg.Store.Changes(ctx, []store.ChangeRange{
		{Bucket: first.Bucket, After: first.Number - 1, To: min(first.Number+batchRows, head)},
	})
	through := store.TrimThrough(page, head, before)
	if err != nil || through == 0 {
		return first, false, err
	}
	through = min(through, first.Number-1+batchRows)
	n, err := r.cfg.Store.Trim(ctx, first.Bucket, through, batchRows)
	if err != nil {
		return first, false, err
	}
	r.deleted(j, n)
	for _, c := range page {
		if c.Number > through {
			return c, true, nil
		}
	}
	return first, false, nil // unreachable but after a trim by another replica
}
