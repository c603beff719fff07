// Package feed follows the changes of the mirror. One [Tailer] serves all who follow in this
// process: what the process itself commits reaches them from memory, without a query, and
// what others commit is read while somebody follows.
package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// MaxFollowers is how many may follow at once.
	MaxFollowers = 2000
	// ringSize is how many of the latest changes are kept for followers. Those who are
	// further behind read the database.
	ringSize = 1 << 15
	// readSize is how many changes one query reads, and how many a follower passes by in
	// one step.
	readSize = 1000
	// readers is how many followers may read the database at once.
	readers = 4
	// patience is how long a number that is missing may take to come from memory: two
	// workers tell of their commits in any order.
	patience = 50 * time.Millisecond
	// suspicion is how long a commit of this process may be read before its worker tells of
	// it. What takes longer was committed by another process.
	suspicion = time.Second
	// firstPoll is how soon the database is asked again after another process was found to
	// write, and after a failure.
	firstPoll = time.Second
	// readTimeout is how long one look at the database may take: a connection that hangs must
	// not keep all from following.
	readTimeout = 10 * time.Second
)

// Config configures a [Tailer].
type Config struct {
	Feed store.Feed
	Now  func() time.Time
	// Poll is how often the database is asked for changes of other processes while somebody
	// follows. Zero asks when a number shows that another process has written, and then
	// after growing pauses, as long as it has been silent.
	Poll time.Duration
	// SafetyPoll is the longest pause.
	SafetyPoll time.Duration
	Logger     *slog.Logger
}

// Tailer knows the latest changes while somebody follows. Otherwise it does nothing.
type Tailer struct {
	cfg     Config
	wake    chan struct{}
	readers chan struct{}
	stopped chan struct{}

	mu        sync.Mutex
	followers int
	// started means that known is set.
	started bool
	// ring holds the changes after base, up to known, in the order in which they became
	// known. first counts those before it since the process started.
	ring        []mirror.Change
	first       int64
	base, known mirror.Position
	// early are changes whose predecessors are not known yet, the first of them since
	// earlySince.
	early      map[place]mirror.Change
	earlySince time.Time
	// strange are changes that were read, the first of them at strangeSince, and of which
	// this process has not told.
	strange      map[place]struct{}
	strangeSince time.Time
	// doubt means that something may have been committed of which nobody has told.
	doubt bool
	// lives counts how often the database was found to have gone back, and from is the
	// earliest position from which it went on.
	lives int
	from  mirror.Position
	// readTime is when the database was last asked how far it is.
	readTime time.Time
	// asks wait for the next look at the database.
	asks []chan error
	// moved is closed when there is more in the ring.
	moved chan struct{}
}

type place struct {
	bucket int16
	number int64
}

// New returns a Tailer, which serves nobody until [Tailer.Run].
func New(cfg Config) *Tailer {
	return &Tailer{
		cfg: cfg, wake: make(chan struct{}, 1), readers: make(chan struct{}, readers), stopped: make(chan struct{}),
		early: make(map[place]mirror.Change), strange: make(map[place]struct{}), moved: make(chan struct{}),
	}
}

// ErrStopped is what is told to those who follow when the process ends.
func ErrStopped() error {
	return fault.New(fault.Unavailable, fault.ReasonShuttingDown, "the service is shutting down")
}

// Committed tells of changes that this process has committed, in the order of their numbers.
func (t *Tailer) Committed(changes []mirror.Change) {
	if len(changes) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers == 0 {
		return
	}
	for _, c := range changes {
		if _, read := t.strange[place{c.Bucket, c.Number}]; !read && t.contradicts(c) {
			before := t.known
			before[c.Bucket] = c.Number - 1
			t.goBack(before)
		}
		delete(t.strange, place{c.Bucket, c.Number})
		t.add(c)
	}
	t.tell()
	if len(t.early) > 0 {
		t.signal()
	}
}

// contradicts reports whether another change had the number of this one: then the database
// has gone back since, and given the number again.
func (t *Tailer) contradicts(c mirror.Change) bool {
	if !t.started || c.Number > t.known[c.Bucket] || c.Number <= t.base[c.Bucket] {
		return false
	}
	for i := range t.ring {
		// The time of a change that was read has lost what the database does not keep.
		if o := &t.ring[i]; o.Bucket == c.Bucket && o.Number == c.Number {
			return o.Resource != c.Resource || o.Kind != c.Kind || o.CommitTime.Sub(c.CommitTime).Abs() > time.Millisecond
		}
	}
	return false
}

// goBack goes on from an earlier position. Who has followed beyond it is told; see
// [Follower.Read].
func (t *Tailer) goBack(at mirror.Position) {
	if t.lives++; t.lives == 1 {
		t.from = at
	}
	for bucket := range at {
		t.from[bucket] = min(t.from[bucket], at[bucket])
	}
	t.doubt = true
	t.restart(at)
}

// Doubt says that something may have been committed: the result of a commit is unknown.
func (t *Tailer) Doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers > 0 {
		t.doubt = true
		t.signal()
	}
}

func (t *Tailer) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// add puts a change where it belongs: behind its predecessor, or aside until that is known.
func (t *Tailer) add(c mirror.Change) {
	if !t.started || c.Number > t.known[c.Bucket]+1 {
		if len(t.early) == 0 {
			t.earlySince = t.cfg.Now()
		}
		t.early[place{c.Bucket, c.Number}] = c
		return
	}
	for ok := c.Number == t.known[c.Bucket]+1; ok; {
		t.ring = append(t.ring, c)
		t.known[c.Bucket] = c.Number
		next := place{c.Bucket, c.Number + 1}
		c, ok = t.early[next]
		delete(t.early, next)
	}
	if len(t.ring) > ringSize {
		n := ringSize / 4
		for _, old := range t.ring[:n] {
			t.base[old.Bucket] = old.Number
		}
		t.ring = append(make([]mirror.Change, 0, ringSize+1), t.ring[n:]...)
		t.first += int64(n)
	}
}

// tell wakes those who wait for more.
func (t *Tailer) tell() {
	close(t.moved)
	t.moved = make(chan struct{})
}

// restart begins at a position, with an empty ring. Who followed before it reads the
// database.
func (t *Tailer) restart(at mirror.Position) {
	t.first += int64(len(t.ring)) + 1
	t.ring, t.base, t.known, t.started = nil, at, at, true
	early := t.early
	t.early = make(map[place]mirror.Change)
	for p, c := range early {
		if p.number > at[p.bucket] {
			t.add(c)
		}
	}
}

// Run looks at the database when it is asked to, until ctx ends. Then nobody can follow
// any more.
func (t *Tailer) Run(ctx context.Context) error {
	defer func() {
		close(t.stopped)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.tell() // those who wait see that it is over
	}()
	timer := time.NewTimer(t.cfg.SafetyPoll)
	defer timer.Stop()
	var turn turn
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		case <-timer.C:
		}
		timer.Reset(t.look(ctx, &turn))
	}
}

// turn is what [Tailer.Run] remembers between two looks.
type turn struct {
	// next is when the database is asked without a reason; zero if nobody follows.
	next time.Time
	// foreign is when a change of another process was last found.
	foreign time.Time
}

// look asks the database if there is a reason to, and returns after how long to look again.
func (t *Tailer) look(ctx context.Context, turn *turn) time.Duration {
	t.mu.Lock()
	asks, now := t.asks, t.cfg.Now()
	t.asks = nil
	if t.followers == 0 {
		turn.next = time.Time{}
	} else if turn.next.IsZero() {
		turn.next = now.Add(t.pause(now, turn.foreign))
	}
	missing := len(t.early) > 0 && now.Sub(t.earlySince) >= patience
	if len(t.strange) > 0 && now.Sub(t.strangeSince) >= suspicion {
		clear(t.strange)
		turn.foreign, turn.next = now, now.Add(t.pause(now, now))
	}
	read := t.followers > 0 && (len(asks) > 0 || t.doubt || missing || !now.Before(turn.next))
	t.doubt = false
	t.mu.Unlock()

	if read {
		reading, cancel := context.WithTimeout(ctx, readTimeout)
		err := t.read(reading)
		cancel()
		now = t.cfg.Now()
		turn.next = now.Add(t.pause(now, turn.foreign))
		if err != nil && ctx.Err() == nil {
			t.cfg.Logger.WarnContext(ctx, "cannot read the changes, those who follow wait", slog.Any("error", err))
			turn.next = now.Add(firstPoll)
			t.mu.Lock()
			t.earlySince = turn.next.Add(-patience) // what is missing is not asked for sooner
			t.mu.Unlock()
		}
		for _, ask := range asks {
			ask <- err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := t.cfg.SafetyPoll
	if !turn.next.IsZero() {
		wait = turn.next.Sub(now)
	}
	if len(t.early) > 0 {
		wait = min(wait, max(t.earlySince.Add(patience).Sub(now), time.Millisecond))
	}
	if len(t.strange) > 0 {
		wait = min(wait, t.strangeSince.Add(suspicion).Sub(now))
	}
	return max(wait, 0)
}

// pause is how long the database is not asked without a reason.
func (t *Tailer) pause(now, foreign time.Time) time.Duration {
	switch {
	case t.cfg.Poll > 0:
		return t.cfg.Poll
	case foreign.IsZero():
		return t.cfg.SafetyPoll
	}
	return min(max(now.Sub(foreign), firstPoll), t.cfg.SafetyPoll)
}

// read brings what is known up to what is committed.
func (t *Tailer) read(ctx context.Context) error {
	t.mu.Lock()
	known, started := t.known, t.started
	t.mu.Unlock()
	begun := t.cfg.Now()
	heads, err := t.cfg.Feed.Heads(ctx)
	if err != nil {
		return fmt.Errorf("heads: %w", err)
	}
	// What was known before they were read, not what is known by now.
	back := started && store.Ahead(&known, &heads)
	behind := int64(0)
	for bucket := range heads {
		behind += max(0, heads[bucket]-known[bucket])
	}
	for behind > 0 && started && !back {
		var ranges []store.ChangeRange
		if behind <= ringSize {
			ranges = store.Ranges(known, heads, readSize)
		}
		changes, err := t.cfg.Feed.Changes(ctx, ranges)
		if err != nil {
			return fmt.Errorf("changes: %w", err)
		}
		if changes, err = store.Advance(&known, ranges, changes); ranges == nil || err != nil {
			started = false // they are trimmed, or too many to keep
			break
		}
		t.mu.Lock()
		if len(t.strange) == 0 {
			t.strangeSince = t.cfg.Now()
		}
		for _, c := range changes {
			if c.Number > t.known[c.Bucket] {
				t.strange[place{c.Bucket, c.Number}] = struct{}{}
			}
			t.add(c)
		}
		t.tell()
		t.mu.Unlock()
		behind -= int64(len(changes))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readTime = begun
	switch {
	case back: // those who follow are told
		t.goBack(heads)
		t.doubt = false
		t.tell()
	case !started:
		if t.started { // this process has committed meanwhile
			for bucket := range heads {
				heads[bucket] = max(heads[bucket], t.known[bucket])
			}
		}
		t.restart(heads)
		t.tell()
	}
	if len(t.early) > 0 {
		t.earlySince = t.cfg.Now()
	}
	return nil
}

// Follower is one who follows.
type Follower struct {
	t     *Tailer
	seq   int64
	pos   mirror.Position
	lives int // of the Tailer, as far as pos was compared
	born  int // and when it began
}

// ErrAhead means that a position is beyond what is committed: it is not one of this database
// as it is.
var ErrAhead = errors.New("feed: the position is ahead of the database")

// Follow begins to follow after a position, or now if it is nil. It looks at the database
// once. The Follower must be closed.
func (t *Tailer) Follow(ctx context.Context, after *mirror.Position) (*Follower, error) {
	t.mu.Lock()
	if t.followers >= MaxFollowers {
		t.mu.Unlock()
		return nil, fault.New(fault.Busy, fault.ReasonWatchersLimited,
			fmt.Sprintf("%d follow the changes already, which is the limit of a process", MaxFollowers))
	}
	t.followers++
	t.mu.Unlock()
	f := &Follower{t: t, seq: -1}
	if err := f.Look(ctx); err != nil {
		f.Close()
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.lives, f.born = t.lives, t.lives
	if after == nil {
		f.pos, f.seq = t.known, t.first+int64(len(t.ring))
		return f, nil
	}
	f.pos = *after
	if store.Ahead(&f.pos, &t.known) {
		t.leave()
		return nil, ErrAhead
	}
	return f, nil
}

// Look looks at the database. What was committed before is known afterwards.
func (f *Follower) Look(ctx context.Context) error {
	ask := make(chan error, 1)
	f.t.mu.Lock()
	f.t.asks = append(f.t.asks, ask)
	f.t.signal()
	f.t.mu.Unlock()
	select {
	case err := <-ask:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-f.t.stopped:
		return ErrStopped()
	}
}

// Known is the position after all that is known.
func (f *Follower) Known() mirror.Position {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return f.t.known
}

// Stopped is closed when the process ends.
func (f *Follower) Stopped() <-chan struct{} { return f.t.stopped }

// Close ends it.
func (f *Follower) Close() {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.leave()
}

func (t *Tailer) leave() {
	if t.followers--; t.followers > 0 {
		return
	}
	t.first += int64(len(t.ring)) + 1
	t.ring, t.started, t.doubt = nil, false, false
	clear(t.early)
	clear(t.strange)
}

// Position is after all that was read.
func (f *Follower) Position() mirror.Position { return f.pos }

// Lives counts how often the database was found to have gone back.
func (t *Tailer) Lives() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lives
}

// Outlived reports whether the database has gone back since f began. What f has not read is
// still to come, but the feed may have another identity.
func (f *Follower) Outlived() bool { return f.t.Lives() != f.born }

// Mark is a place of a follower that it can return to.
type Mark struct {
	seq int64
	pos mirror.Position
}

// Mark returns where it is.
func (f *Follower) Mark() Mark { return Mark{f.seq, f.pos} }

// Return returns to a place and goes on behind some changes that were read from there: the
// others are read again.
func (f *Follower) Return(to *Mark, behind []mirror.Change) {
	f.seq, f.pos = to.seq, to.pos
	for i := range behind { // what did not match is passed by with the next of its bucket
		f.pos[behind[i].Bucket] = behind[i].Number
	}
}

// ReadTime is when the database was last asked how far it is. What this process has committed
// since is known as well.
func (f *Follower) ReadTime() time.Time {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return f.t.readTime
}

// Page is the result of a step.
type Page struct {
	Changes []mirror.Change
	// CaughtUp means that there was nothing more.
	CaughtUp bool
	more     <-chan struct{}
}

// More is closed when there may be more after a page that has caught up.
func (p Page) More() <-chan struct{} { return p.more }

// Read returns the next changes that match, at most limit, without waiting for any. It
// passes by others, but not without end. It fails with [store.ErrTrimmed] if there are
// changes that can no longer be read, and with [ErrAhead] if the database has gone back.
func (f *Follower) Read(ctx context.Context, match func(*mirror.Change) bool, limit int) (Page, error) {
	t := f.t
	select {
	case <-t.stopped:
		return Page{}, ErrStopped()
	default:
	}
	t.mu.Lock()
	if f.lives != t.lives {
		if store.Ahead(&f.pos, &t.from) {
			t.mu.Unlock()
			return Page{}, ErrAhead
		}
		f.lives = t.lives
	}
	if f.seq < t.first {
		if store.Ahead(&f.pos, &t.known) {
			t.mu.Unlock()
			return Page{}, ErrAhead
		}
		if !covers(&f.pos, &t.base) {
			to := t.known
			t.mu.Unlock()
			return f.catchUp(ctx, to, match, limit)
		}
		f.seq = t.first
	}
	defer t.mu.Unlock()
	page := Page{more: t.moved}
	for i := 0; i < readSize && len(page.Changes) < limit; i++ {
		at := f.seq - t.first
		if at == int64(len(t.ring)) {
			break
		}
		c := &t.ring[at]
		f.seq++
		if c.Number <= f.pos[c.Bucket] {
			continue
		}
		f.pos[c.Bucket] = c.Number
		if match(c) {
			page.Changes = append(page.Changes, *c)
		}
	}
	page.CaughtUp = f.seq-t.first == int64(len(t.ring))
	return page, nil
}

// covers reports whether a is nowhere before b.
func covers(a, b *mirror.Position) bool {
	for bucket := range a {
		if a[bucket] < b[bucket] {
			return false
		}
	}
	return true
}

// catchUp reads the database on the way to the ring.
func (f *Follower) catchUp(ctx context.Context, to mirror.Position, match func(*mirror.Change) bool, limit int) (Page,
	error,
) {
	select {
	case f.t.readers <- struct{}{}:
	case <-ctx.Done():
		return Page{}, ctx.Err()
	}
	defer func() { <-f.t.readers }()
	ranges := store.Ranges(f.pos, to, min(readSize, limit))
	changes, err := f.t.cfg.Feed.Changes(ctx, ranges)
	if err != nil {
		return Page{}, fmt.Errorf("read changes: %w", err)
	}
	at := f.pos
	if changes, err = store.Advance(&at, ranges, changes); err != nil {
		return Page{}, f.verify(ctx, err)
	}
	f.pos = at
	var page Page
	for i := range changes {
		if match(&changes[i]) {
			page.Changes = append(page.Changes, changes[i])
		}
	}
	return page, nil
}

// verify returns why changes could not be read: they were trimmed, unless the database says
// that it keeps them. Then the heads came from another server than the changes.
func (f *Follower) verify(ctx context.Context, trimmed error) error {
	earliest, err := f.t.cfg.Feed.Earliest(ctx)
	if err != nil {
		return fmt.Errorf("find the first changes: %w", err)
	}
	if covers(&f.pos, &earliest) {
		return ErrLags()
	}
	return trimmed
}

// ErrLags is what is told to those who follow when the database shows less than it has shown.
func ErrLags() error {
	return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database was read through a server that "+
		"lags behind the one that is written to; send all queries of the mirror to the latter")
}

// CaughtUp reports whether everything that is known has been read.
func (f *Follower) CaughtUp() bool {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return covers(&f.pos, &f.t.known)
}

// At returns the position before the changes that were committed at a time or later, by the
// clocks of those who committed them, or before the first that is kept.
func At(ctx context.Context, changes store.Feed, from time.Time) (mirror.Position, error) {
	before, err := changes.Earliest(ctx)
	if err != nil {
		return before, fmt.Errorf("find the first changes: %w", err)
	}
	last, err := changes.Heads(ctx)
	if err != nil {
		return before, fmt.Errorf("find the last changes: %w", err)
	}
	for { // a binary search in all buckets at once
		var probes []store.ChangeRange
		for bucket := range before {
			if before[bucket] < last[bucket] {
				n := before[bucket] + (last[bucket]-before[bucket]+1)/2
				probes = append(probes, store.ChangeRange{Bucket: int16(bucket), After: n - 1, To: n})
			}
		}
		if len(probes) == 0 {
			return before, nil
		}
		found, err := changes.Changes(ctx, probes)
		if err != nil {
			return before, fmt.Errorf("look for a time in the changes: %w", err)
		}
		later := make(map[int16]bool, len(found))
		for _, c := range found {
			later[c.Bucket] = !c.CommitTime.Before(from)
		}
		for _, p := range probes {
			if later[p.Bucket] {
				last[p.Bucket] = p.After
			} else { // it is before the time, or was trimmed meanwhile
				before[p.Bucket] = p.To
			}
		}
	}
}
