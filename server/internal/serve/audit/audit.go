// Package audit records who has changed something for operators, and who was refused.
//
// A call is recorded before it does anything, and again when it has ended. One that changes
// something and cannot be recorded is not made. Nobody waits for the record of an end: it
// waits in memory, and is tried until the database takes it or the service stops.
//
// Refused calls are counted in memory, by reason, caller, address and minute, because
// anybody can make any number of them: they cost no statement each, and do not wake a
// database that sleeps. They are written when the service has looked for work anyway, when
// somebody asks for the audit, and at the end.
package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// maxPerMinute is how many entries the refused calls of a minute can become, those of
	// known callers and those of others each. Further ones are counted without caller,
	// address and method.
	maxPerMinute = 100
	// maxPerDay is the same of a day. Further ones are counted by the hour.
	maxPerDay = 2000
	// maxWaiting is how many entries wait to be written. Beyond it, calls are counted like
	// those beyond maxPerDay.
	maxWaiting = 20_000
	// maxEnds is how many ends of calls wait to be written. Further ones are in the log only.
	maxEnds = 10_000
	// retryEnds is the time until ends that could not be written are tried again. It doubles
	// with each failure up to maxRetryEnds: a standby refuses them as long as it is one.
	retryEnds    = 10 * time.Second
	maxRetryEnds = time.Hour
	// tellInterval is the shortest time between two log lines about ends that wait.
	tellInterval = time.Minute
	// maxName is the longest name of a caller that is stored, in bytes.
	maxName = 512
	// batchRows is the maximum number of entries of a statement.
	batchRows = 500
	// writeTimeout ends the record of a call.
	writeTimeout = 5 * time.Second
	// flushTimeout is the longest that [Log.Flush] takes.
	flushTimeout = 2 * time.Second
	// network6 is how many bits of an IPv6 address tell who has it.
	network6 = 64
)

// Config configures a Log. Every field must be set.
type Config struct {
	Store store.Audit
	// Projects are the configured projects.
	Projects []mirror.ProjectID
	Now      func() time.Time
	Logger   *slog.Logger
}

// Log records calls.
type Log struct {
	cfg   Config
	wake  chan struct{}
	ended chan struct{} // tells Run of new ends

	flushing chan struct{} // holds an element while somebody writes
	mu       sync.Mutex
	waiting  map[refusal]tally
	// ends are the ends of calls that wait to be written; stopped means that Run has ended.
	ends    []mirror.AuditEntry
	stopped bool
	// failed is the project whose ends failed first the last time. Others come first the next
	// time, so that one that takes all the time does not stop them.
	failed mirror.ProjectID
	// Strangers have a quota of their own, so that they do not hide what callers tried.
	callers, strangers quota
	// named are the refusals of a minute, without their projects, that have their place in a
	// quota: they keep it when they are written and come again.
	minute time.Time
	named  map[refusal]bool
}

// quota is how many entries the refused calls of a minute and of a day have become.
type quota struct {
	minute, day     time.Time
	ofMinute, ofDay int
}

// take reports whether there is room for an entry of the minute, and of its day, and takes it.
func (q *quota) take(minute time.Time) (inMinute, inDay bool) {
	if minute.After(q.minute) {
		q.minute, q.ofMinute = minute, 0
	}
	if day := minute.Truncate(24 * time.Hour); day.After(q.day) {
		q.day, q.ofDay = day, 0
	}
	inMinute, inDay = q.ofMinute < maxPerMinute, q.ofDay < maxPerDay
	if inMinute && inDay {
		q.ofMinute++
		q.ofDay++
	}
	return inMinute, inDay
}

// refusal is what refused calls of a minute have in common.
type refusal struct {
	project mirror.ProjectID
	reason  fault.Reason
	caller  string
	address string
	method  string
	minute  time.Time
}

// tally counts refused calls.
type tally struct {
	calls int64
	last  time.Time
}

// New returns a Log.
func New(cfg Config) *Log {
	return &Log{
		cfg: cfg, wake: make(chan struct{}, 1), ended: make(chan struct{}, 1), flushing: make(chan struct{}, 1),
		waiting: make(map[refusal]tally), named: make(map[refusal]bool),
	}
}

// Denied counts a refused call. It never waits for the database.
func (l *Log) Denied(d access.Denial) {
	now := l.cfg.Now()
	r := refusal{
		reason: d.Reason, address: origin(d.Address), method: d.Method, minute: now.UTC().Truncate(time.Minute),
	}
	of := &l.strangers
	if d.Caller != nil {
		r.caller = d.Caller.Name
		if d.Caller.Scopes != 0 { // or it is a token of an issuer that anybody may have
			of = &l.callers
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r = l.bounded(r, of)
	for _, r.project = range l.whose(d.Caller) {
		was := l.waiting[r]
		l.waiting[r] = tally{was.calls + 1, latest(was.last, now)}
	}
}

// origin names where refused calls come from: an address, or of IPv6 its network, because
// who has one address of it has all.
func origin(address netip.Addr) string {
	switch address = address.Unmap().WithZone(""); {
	case !address.IsValid():
		return ""
	case address.Is6():
		return netip.PrefixFrom(address, network6).Masked().String()
	}
	return address.String()
}

// whose returns the projects that a refused call belongs to. Until a call is allowed, which
// project it names is not known: so it belongs to all that its caller sees, if these are
// named. The others belong to none, and only who sees all projects sees them; if one
// project is configured, all belong to it.
func (l *Log) whose(caller *access.Caller) []mirror.ProjectID {
	all := l.cfg.Projects
	switch {
	case len(all) == 1:
		return all
	case caller == nil || slices.Contains(caller.Projects, access.AnyProject):
		return []mirror.ProjectID{""}
	}
	seen := slices.DeleteFunc(slices.Clone(all), func(id mirror.ProjectID) bool { return !caller.SeesProject(id) })
	if len(seen) == 0 { // those that its key names are not configured any more, or it names none
		return []mirror.ProjectID{""}
	}
	return seen
}

// bounded returns as what a refusal is counted: with its names as long as the quota has
// room for it. The caller holds the lock.
func (l *Log) bounded(r refusal, of *quota) refusal {
	if r.minute.After(l.minute) {
		l.minute = r.minute
		clear(l.named)
	}
	full := len(l.waiting) >= maxWaiting
	inMinute, inDay := true, true
	if !l.named[r] {
		inMinute, inDay = of.take(r.minute)
		if inMinute && inDay {
			l.named[r] = true
		}
	}
	if full || !inMinute || !inDay {
		r.caller, r.address, r.method = "", "", ""
	}
	if full || !inDay {
		r.minute = r.minute.Truncate(time.Hour)
	}
	return r
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Begin records that a call begins, and sets the id of the entry. If that fails, a call that
// changes something must not be made. Whether there is an entry then is not known, so
// [Log.End] must follow in any case: otherwise it could stand as that of a call that goes on.
func (l *Log) Begin(ctx context.Context, e *mirror.AuditEntry) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	e.ID, e.Time, e.Calls = hex.EncodeToString(id[:]), l.cfg.Now(), 1
	e.Caller = cut(e.Caller)
	if err := l.cfg.Store.RecordAudit(ctx, *e); err != nil {
		return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
			"the call was not made, because it cannot be recorded in the audit")
	}
	return nil
}

// End has it recorded how a call has ended, and does not wait for that.
func (l *Log) End(ctx context.Context, e mirror.AuditEntry) {
	e.EndTime, e.Calls = l.cfg.Now(), 1
	l.mu.Lock()
	stopped, full := l.stopped, len(l.ends) >= maxEnds
	if !stopped && !full {
		l.ends = append(l.ends, e)
	}
	l.mu.Unlock()
	switch {
	case stopped: // nobody else writes any more
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
		defer cancel()
		if err := l.cfg.Store.RecordAudit(ctx, e); err != nil {
			l.lost(ctx, e, err)
		}
	case full:
		l.lost(ctx, e, errTooMany)
	default:
		select {
		case l.ended <- struct{}{}:
		default:
		}
	}
}

var errTooMany = errors.New("too many wait to be recorded")

// lost tells of an end that will not be recorded.
func (l *Log) lost(ctx context.Context, e mirror.AuditEntry, err error) {
	l.cfg.Logger.WarnContext(ctx, "how a call ended could not be recorded in the audit",
		slog.String("method", e.Method), slog.String("code", e.Code), slog.String("request_id", e.RequestID),
		slog.Any("error", err))
}

// writeEnds writes the ends that wait. What cannot be written waits on.
func (l *Log) writeEnds(ctx context.Context) error {
	l.mu.Lock()
	due := slices.Clone(l.ends)
	l.mu.Unlock()
	var failed error
	written := make(map[string]bool)
	slices.SortStableFunc(due, func(a, b mirror.AuditEntry) int { return cmp.Compare(a.Project, b.Project) })
	behind, _ := slices.BinarySearchFunc(due, l.failed, func(e mirror.AuditEntry, failed mirror.ProjectID) int {
		if e.Project <= failed {
			return -1
		}
		return 1
	})
	due = slices.Concat(due[behind:], due[:behind])
	for len(due) > 0 {
		n := 0 // entries of one project, so of one shard
		for n < len(due) && n < batchRows && due[n].Project == due[0].Project {
			n++
		}
		if err := l.cfg.Store.RecordAudit(ctx, due[:n]...); err != nil {
			if failed == nil {
				l.failed = due[0].Project
			}
			failed = errors.Join(failed, err)
			for n < len(due) && due[n].Project == due[0].Project { // the shard of another may be there
				n++
			}
		} else {
			for _, e := range due[:n] {
				written[e.ID] = true
			}
		}
		due = due[n:]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = slices.DeleteFunc(l.ends, func(e mirror.AuditEntry) bool { return written[e.ID] })
	return failed
}

// cut shortens a name to what is stored.
func cut(name string) string { return strings.ToValidUTF8(name[:min(len(name), maxName)], "") }

// Wake tells that the database is awake. It never waits.
func (l *Log) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run writes the ends of calls, the refused calls of past minutes when the database is awake,
// and at the end all of them.
func (l *Log) Run(ctx context.Context) error {
	retry := &retry{Timer: time.NewTimer(0)}
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			l.stop(context.WithoutCancel(ctx))
			return nil
		case <-l.wake:
			within, cancel := context.WithTimeout(ctx, writeTimeout)
			l.tell(ctx, l.flush(within, l.cfg.Now().UTC().Truncate(time.Minute)))
			cancel()
		case <-l.ended:
			l.runEnds(ctx, retry, false)
		case <-retry.C:
			l.runEnds(ctx, retry, true)
		}
	}
}

// retry says when ends that could not be written are tried again, and when that was told.
type retry struct {
	*time.Timer

	pause time.Duration
	told  time.Time
}

// runEnds writes the ends that wait, and has it tried again later if that fails: again, if it
// was tried again.
func (l *Log) runEnds(ctx context.Context, r *retry, again bool) {
	within, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := l.writing(within, l.writeEnds)
	switch now := l.cfg.Now(); {
	case err == nil:
		r.pause = 0
		return
	case ctx.Err() != nil:
		return
	case now.Sub(r.told) >= tellInterval:
		r.told = now
		l.cfg.Logger.WarnContext(ctx, "how calls ended could not be recorded in the audit, will be tried again",
			slog.Any("error", err))
	}
	if again || r.pause == 0 { // otherwise it is due already
		r.pause = min(max(2*r.pause, retryEnds), maxRetryEnds)
		r.Reset(r.pause)
	}
}

// stop writes what waits, and tells what it could not write of calls that were made.
func (l *Log) stop(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	err := l.flush(within, l.cfg.Now().Add(time.Hour))
	l.tell(ctx, err)
	l.mu.Lock()
	left := l.ends
	l.ends = nil
	l.mu.Unlock()
	for _, e := range left {
		l.lost(ctx, e, err)
	}
}

func (l *Log) tell(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		l.cfg.Logger.WarnContext(ctx, "refused calls could not be recorded in the audit, will be tried again",
			slog.Any("error", err))
	}
}

// Flush writes all ends and refused calls that wait, for a short time at most: it is for those who
// read the audit, and they can do without. That the caller goes away does not end it, because
// whether a statement that was cut off has counted is not known.
func (l *Log) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return l.flush(ctx, l.cfg.Now().Add(time.Hour))
}

// waits is what waits to be written.
type waits struct {
	refusal
	tally
	entry mirror.AuditEntry
}

// writing has only one write at a time.
func (l *Log) writing(ctx context.Context, write func(ctx context.Context) error) error {
	select {
	case l.flushing <- struct{}{}:
		defer func() { <-l.flushing }()
		return write(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flush writes the ends of calls, and the refused calls of the minutes before a time. What
// cannot be written waits on, as it is.
func (l *Log) flush(ctx context.Context, before time.Time) error {
	return l.writing(ctx, func(ctx context.Context) error {
		return errors.Join(l.writeEnds(ctx), l.writeDenied(ctx, before))
	})
}

func (l *Log) writeDenied(ctx context.Context, before time.Time) error {
	var failed error
	for due := l.due(before); len(due) > 0; {
		n := 0
		var entries []mirror.AuditEntry // of one project, so of one shard
		for n < len(due) && n < batchRows && due[n].project == due[0].project {
			entries = append(entries, due[n].entry)
			n++
		}
		if err := l.cfg.Store.RecordAudit(ctx, entries...); err != nil {
			failed = errors.Join(failed, err)
			for n < len(due) && due[n].project == due[0].project { // the shard of another may be there
				n++
			}
		} else {
			l.written(due[:n])
		}
		due = due[n:]
	}
	return failed
}

// due returns the refused calls of the minutes before a time. All replicas write them in
// the same order.
func (l *Log) due(before time.Time) (due []waits) {
	l.mu.Lock()
	for r, t := range l.waiting {
		if r.minute.Before(before) {
			due = append(due, waits{refusal: r, tally: t})
		}
	}
	l.mu.Unlock()
	for i := range due {
		due[i].entry = due[i].toEntry(due[i].tally)
	}
	slices.SortFunc(due, func(a, b waits) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.entry.ID, b.entry.ID))
	})
	return due
}

// written takes what was written from what waits.
func (l *Log) written(list []waits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range list {
		now := l.waiting[w.refusal]
		if now.calls -= w.calls; now.calls == 0 {
			delete(l.waiting, w.refusal)
		} else {
			l.waiting[w.refusal] = now
		}
	}
}

// toEntry is the entry of refused calls. Those of all replicas have the same id.
func (r refusal) toEntry(t tally) mirror.AuditEntry {
	sum := sha256.Sum256([]byte(strings.Join([]string{
		r.minute.Format(time.RFC3339), string(r.reason), r.caller, r.address, r.method,
	}, "\x00")))
	return mirror.AuditEntry{
		Project: r.project, ID: hex.EncodeToString(sum[:16]), Time: r.minute, EndTime: t.last, Denied: true,
		Method: r.method, Caller: cut(r.caller), Address: r.address, Reason: string(r.reason.Public()), Calls: t.calls,
	}
}
