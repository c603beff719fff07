// Package verify compares the mirror with Liveblocks, and the derived columns with
// the copies. It writes nothing unless repairs are requested.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/items"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

// Fetcher reads from Liveblocks; see reconcile.Fetcher.
type Fetcher interface {
	listing.Lister
	items.Lister
	Room(ctx context.Context, id mirror.RoomID) (mirror.RoomContent, error)
	Storage(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error)
	Ydoc(ctx context.Context, id mirror.RoomID, guid string) (mirror.Fetched, error)
}

// Limiter tells when calls to Liveblocks are paused; see queue.Limiter.
type Limiter interface {
	UntilPaused(ctx context.Context) (pausable context.Context, release func())
}

// Store is the part of the store that a verification uses.
type Store interface {
	listing.Rooms
	Stored(ctx context.Context, resource mirror.Resource) (mirror.Stored, error)
	StoredItem(ctx context.Context, resource mirror.Resource) (store.Item, error)
	Invalidate(ctx context.Context, resource mirror.Resource) error
	Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error)
	Task(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)
	Room(ctx context.Context, room mirror.Resource, deleted bool) (mirror.Room, error)
	Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	Documents(ctx context.Context, filter store.DocumentFilter) ([]mirror.Document, error)
	KnownItems(ctx context.Context, list mirror.Resource) (map[string]store.Known, error)
}

// Workers fetch and rewrite what is repaired.
type Workers interface {
	Push(pending []mirror.Pending)
	Wait(ctx context.Context, pending []mirror.Pending) error
}

// Config configures a Verifier.
type Config struct {
	Store   Store
	Fetcher Fetcher
	Limiter Limiter
	Workers Workers
	// Memory bounds what is read and decoded at once; nil is without limit.
	Memory *memory.Budget
	// MaxData is the same as the reconciler's.
	MaxData int
	Now     func() time.Time
}

const (
	// abreast is the number of rooms compared concurrently, which bounds the
	// documents in memory. It does not raise the call rate, which the limiter
	// controls.
	abreast = 4
	// grace is how long a difference must last: its event may be on the way.
	grace = time.Second
	// checks is the maximum number of checks of a room that keeps changing.
	checks = 3
	// attempts is the number of attempts of a call, with patience between them.
	attempts = 4
	patience = 500 * time.Millisecond
	// repairTimeout limits the wait for one repair.
	repairTimeout = 30 * time.Second
	// progressEvery is the minimal time between two progress reports.
	progressEvery = time.Second
)

// Verifier compares the mirror with Liveblocks, and the derived columns with the
// copies. It leaves out active users, which change before they can be compared, and
// sessions and notifications, which come from events.
type Verifier struct{ cfg Config }

// New returns a Verifier.
func New(cfg Config) *Verifier { return &Verifier{cfg: cfg} }

// Verify passes each difference to report when it finds it, its progress at
// intervals, and the summary at the end. It calls report from one goroutine at a
// time. If report fails, Verify returns its error.
//
// A difference counts if it persists for a while during which nothing happens to
// the resource here. A resource that waits for its fetch is skipped.
func (v *Verifier) Verify(ctx context.Context, options mirror.VerifyOptions,
	report func(mirror.VerifyReport) error,
) error {
	ctx, release := v.cfg.Limiter.UntilPaused(ctx)
	defer release()
	r := &run{
		Verifier: v, options: options, report: report, begin: v.cfg.Now(), list: listing.New(),
		implausible: make(map[mirror.Kind]string),
	}
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	err := r.compareListed(ctx)
	if err == nil {
		err = r.compareUnlisted(ctx)
	}
	if err == nil && options.Prefix == "" {
		for _, kind := range mirror.Kinds() {
			if t := kind.Traits(); t.Verified && t.Scope == mirror.ScopeProject {
				r.project(ctx, kind)
			}
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	return report(mirror.VerifyReport{Summary: &r.summary})
}

// run is one verification.
type run struct {
	*Verifier
	options mirror.VerifyOptions
	begin   time.Time
	cancel  context.CancelCauseFunc
	list    *listing.Listing

	mu      sync.Mutex
	report  func(mirror.VerifyReport) error
	told    time.Time
	summary mirror.VerifySummary
	// listed counts the rooms to compare, known the listed rooms that are mirrored.
	listed, known int64
	// implausible says, for each kind of which Liveblocks' list lacks too much, why
	// that is not believed.
	implausible map[mirror.Kind]string
}

// compareListed compares the listed rooms.
func (r *run) compareListed(ctx context.Context) error {
	for cursor := ""; ; {
		var page mirror.RoomPage
		err := r.call(ctx, "the list of rooms", func() (err error) {
			page, err = r.cfg.Fetcher.ListRooms(ctx, cursor, listing.PageSize)
			return err
		})
		if err != nil {
			return fmt.Errorf("list rooms: %w", err)
		}
		rooms, err := r.list.Add(page)
		if err != nil {
			return err
		}
		rooms = slices.DeleteFunc(rooms, func(room mirror.ListedRoom) bool {
			return !strings.HasPrefix(string(room.ID), r.options.Prefix)
		})
		r.mu.Lock()
		r.listed += int64(len(rooms))
		r.mu.Unlock()
		each(ctx, rooms, func(room mirror.ListedRoom) { r.room(ctx, room.ID, &room.Content) })
		if err := ctx.Err(); err != nil {
			return err
		}
		if cursor = page.Next; cursor == "" {
			return nil
		}
	}
}

// compareUnlisted compares the mirrored rooms that were not listed.
func (r *run) compareUnlisted(ctx context.Context) error {
	lacking := func(do func([]mirror.Room) error) (int64, error) {
		return r.list.Lacking(ctx, r.cfg.Store, r.options.Project, r.options.Prefix, r.begin, r.cfg.Now(), do)
	}
	var surplus int64
	mirrored, err := lacking(func(rooms []mirror.Room) error {
		surplus += int64(len(rooms))
		return nil
	})
	if err != nil || surplus == 0 {
		return err
	}
	confirmed, err := r.confirmed(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	problem := listing.Implausible(r.listed, r.known, surplus, mirrored)
	r.listed += surplus
	r.mu.Unlock()
	if surplus > confirmed.Rooms {
		r.disbelieve(mirror.KindRoom, problem)
	}
	_, err = lacking(func(rooms []mirror.Room) error {
		each(ctx, rooms, func(room mirror.Room) { r.room(ctx, room.ID, nil) })
		return ctx.Err()
	})
	return err
}

// confirmed returns the deletions that an operator has confirmed, as sweeps take them.
func (r *run) confirmed(ctx context.Context) (mirror.Confirmation, error) {
	project, err := r.cfg.Store.Project(ctx, r.options.Project)
	if err != nil {
		return mirror.Confirmation{}, fmt.Errorf("read what an operator has confirmed: %w", err)
	}
	return project.Confirmed.At(r.cfg.Now()), nil
}

// disbelieve keeps repairs from deleting what a list lacks, if there is a problem.
func (r *run) disbelieve(kind mirror.Kind, problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if problem != "" {
		r.implausible[kind] = problem
	}
}

// disbelieved returns why what a list lacks is not believed to be deleted.
func (r *run) disbelieved(f finding) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.kind != mirror.DifferenceSurplus {
		return ""
	}
	return r.implausible[f.resource.Kind]
}

// each calls a function for every element, a few at a time, and waits for all.
func each[T any](ctx context.Context, all []T, do func(T)) {
	var wg sync.WaitGroup
	free := make(chan struct{}, abreast)
	for _, one := range all {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() { // each waits for it
			defer func() { <-free }()
			do(one)
		})
	}
	wg.Wait()
}

// call makes one call to Liveblocks for what, and retries if that can help. Meanwhile it
// says what hangs.
func (r *run) call(ctx context.Context, what string, call func() error) error {
	begin := r.cfg.Now()
	for n := 1; ; n++ {
		err := call()
		if err == nil {
			return nil
		}
		f := fault.Of(err)
		// Waiting for the limiter does not count as an attempt.
		again := f.Kind == fault.Busy && f.Reason != fault.ReasonProjectPaused || f.Kind == fault.Unavailable && n < attempts
		if !again || ctx.Err() != nil {
			return err
		}
		r.hangs(fmt.Sprintf("%s, since %s: %s", what, begin.UTC().Format(time.TimeOnly+"Z"), reasonOf(err)))
		if err := clock.Sleep(ctx, max(patience, min(f.RetryAfter, time.Minute))); err != nil {
			return err
		}
	}
}

// tell passes a report on.
func (r *run) tell(report mirror.VerifyReport) {
	if err := r.report(report); err != nil {
		r.cancel(err)
	}
}

// tellDifference counts and reports a difference.
func (r *run) tellDifference(f finding, detail string, repair bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.summary.Differences++
	if repair {
		r.summary.Repairs++
	}
	r.tell(mirror.VerifyReport{Difference: &mirror.Difference{
		Resource: f.resource, Kind: f.kind, Detail: detail, Repair: repair,
	}})
}

// skip reports a resource that could not be compared, and counts it. A kind that
// Liveblocks does not have is reported once.
func (r *run) skip(s skipped) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.unsupported {
		if slices.Contains(r.summary.Unsupported, s.Resource.Kind) {
			return
		}
		r.summary.Unsupported = append(r.summary.Unsupported, s.Resource.Kind)
		s.Resource = mirror.Resource{Project: s.Resource.Project, Kind: s.Resource.Kind}
	} else if r.summary.Skipped++; r.summary.SkipReason == "" {
		r.summary.SkipReason = s.Reason
	}
	r.tell(mirror.VerifyReport{Skip: &s.VerifySkip})
}

// hangs tells what the verification waits for.
func (r *run) hangs(waiting string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellProgress(waiting)
}

// tellProgress reports the progress if the last report is old enough. r.mu is held.
func (r *run) tellProgress(waiting string) {
	if now := r.cfg.Now(); now.Sub(r.told) >= progressEvery {
		r.told = now
		r.tell(mirror.VerifyReport{Progress: &mirror.VerifyProgress{
			Rooms: r.summary.Rooms, Listed: r.listed, Resources: r.summary.Resources, Differences: r.summary.Differences,
			Waiting: waiting,
		}})
	}
}

// compared counts rooms and resources.
func (r *run) compared(rooms, resources int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.summary.Rooms += int64(rooms)
	r.summary.Resources += int64(resources)
	r.tellProgress("")
}

// skipped is a resource that could not be compared.
type skipped struct {
	mirror.VerifySkip

	// unsupported means that Liveblocks does not have resources of its kind.
	unsupported bool
}

// skippedFor returns that the resource could not be compared because of err.
func skippedFor(res mirror.Resource, err error) skipped {
	status, _ := strconv.Atoi(fault.Of(err).Meta["status"]) // 0 if there is none
	return skipped{
		VerifySkip:  mirror.VerifySkip{Resource: res, Reason: fault.Of(err).Public, Status: status},
		unsupported: fault.Is(err, fault.ReasonUpstreamUnsupported),
	}
}

// reasonOf describes a failed call in one sentence.
func reasonOf(err error) string {
	f := fault.Of(err)
	if status := f.Meta["status"]; status != "" {
		return f.Public + " (HTTP status " + status + ")"
	}
	return f.Public
}

// finding is a difference found by one check.
type finding struct {
	resource mirror.Resource
	kind     mirror.DifferenceKind
	detail   string
	// task is the resource's task after the check.
	task mirror.Task
}

// pending reports whether a fetch of the resource is pending.
func (f finding) pending() bool {
	switch f.task.State {
	case mirror.TaskPending, mirror.TaskRunning, mirror.TaskWaiting:
		return true
	case mirror.TaskFailed, mirror.TaskDone:
	}
	return false
}

// confirms reports whether nothing happened to the resource since an earlier check
// with the same result.
func (f finding) confirms(earlier finding) bool {
	return f.task.Generation == earlier.task.Generation && f.task.FetchTime.Equal(earlier.task.FetchTime) &&
		f.task.State == earlier.task.State && !f.pending()
}

// errGone means that Liveblocks no longer has the room.
var errGone = errors.New("verify: the room is gone")

// comparison compares something once.
type comparison struct {
	*run
	found map[mirror.Resource]finding
	// resources counts what was compared.
	resources int
	// skipped are the resources that could not be compared.
	skipped []skipped
}

// tasks adds to each finding its task, and leaves out and returns those whose task
// cannot be read.
func (r *run) tasks(ctx context.Context, found map[mirror.Resource]finding) (unread []skipped) {
	for res, f := range found {
		task, err := r.cfg.Store.Task(ctx, res, r.cfg.Now())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			delete(found, res)
			unread = append(unread, skippedFor(res, err))
			continue
		}
		f.task = task
		found[res] = f
	}
	return unread
}

func (c *comparison) add(res mirror.Resource, kind mirror.DifferenceKind, detail string) {
	if _, ok := c.found[res]; !ok {
		c.found[res] = finding{resource: res, kind: kind, detail: detail}
	}
}

// skip records that a resource could not be compared.
func (c *comparison) skip(res mirror.Resource, err error) {
	c.skipped = append(c.skipped, skippedFor(res, err))
}

// addMissing adds that a resource is not mirrored.
func (c *comparison) addMissing(res mirror.Resource) {
	c.add(res, mirror.DifferenceMissing, "the "+res.Kind.String()+" is not mirrored")
}

// fetch makes a call about a resource. It returns errGone if its room does not exist.
func (c *comparison) fetch(ctx context.Context, res mirror.Resource, call func() error) error {
	err := c.call(ctx, describe(res), call)
	if fault.Is(err, fault.ReasonUpstreamRoomNotFound) {
		return errGone
	}
	return err
}

// describe names a resource. Ids are quoted: they may contain line breaks.
func describe(res mirror.Resource) string {
	text := res.Kind.String()
	if res.ID != "" {
		text += fmt.Sprintf(" %q", res.ID)
	}
	if res.Room != "" {
		text += fmt.Sprintf(" of room %q", res.Room)
	}
	return text
}

// check compares something once. It returns the differences, at most one for each
// resource, and the resources that could not be compared.
type check func(ctx context.Context) (found map[mirror.Resource]finding, unseen []skipped)

// room compares a room and everything in it, and reports lasting differences.
// listed is nil if the list does not contain the room.
func (r *run) room(ctx context.Context, id mirror.RoomID, listed *mirror.RoomContent) {
	room := mirror.Resource{Project: r.options.Project, Room: id, Kind: mirror.KindRoom}
	first := &roomCheck{comparison: comparison{run: r}, room: room, listed: listed}
	r.confirm(ctx, first.check, r.checkOf(room))
	if ctx.Err() != nil {
		return
	}
	if listed != nil && first.known {
		r.mu.Lock()
		r.known++
		r.mu.Unlock()
	}
	r.compared(1, first.resources)
}

// checkOf returns what compares the resource again.
func (r *run) checkOf(resource mirror.Resource) check {
	return func(ctx context.Context) (map[mirror.Resource]finding, []skipped) {
		c := comparison{run: r}
		if resource.Kind.Traits().Scope == mirror.ScopeProject {
			resource.ID = ""
			return c.checkItems(ctx, resource)
		}
		return (&roomCheck{comparison: c, room: resource.RoomResource()}).check(ctx)
	}
}

// confirm reports the differences that first finds and that again finds too, and
// counts what could not be compared.
func (r *run) confirm(ctx context.Context, first, again check) {
	open, left := first(ctx)
	dealt := make(map[mirror.Resource]bool)
	for n := 2; len(open) > 0; n++ {
		if clock.Sleep(ctx, grace) != nil {
			return
		}
		still := make(map[mirror.Resource]finding)
		found, unseen := again(ctx)
		for res := range open {
			// A difference that could not be checked again may persist.
			i := slices.IndexFunc(unseen, func(s skipped) bool { return !s.unsupported || s.Resource.Kind == res.Kind })
			if _, ok := found[res]; !ok && !dealt[res] && i >= 0 {
				again := unseen[i]
				again.Resource = res
				left = append(left, again)
			}
		}
		for res, f := range found {
			earlier, ok := open[res]
			switch {
			case dealt[res]:
			case ok && f.confirms(earlier):
				dealt[res] = true
				r.difference(ctx, f)
			case n < checks:
				still[res] = f
			default:
				r.mu.Lock()
				r.summary.Pending++
				r.mu.Unlock()
			}
		}
		open = still
	}
	if ctx.Err() != nil {
		return
	}
	for _, s := range left {
		r.skip(s)
	}
}

// difference reports a confirmed difference, and repairs it on request.
func (r *run) difference(ctx context.Context, f finding) {
	problem := r.disbelieved(f)
	switch {
	case !r.options.Repair:
		r.tellDifference(f, f.detail, false)
	case problem != "":
		r.tellDifference(f, f.detail+"; not repaired: "+problem, false)
	default:
		if err := r.repair(ctx, f); err != nil {
			r.tellDifference(f, f.detail+"; the repair did not finish: "+fault.Of(err).Public, true)
			return
		}
		r.tellDifference(f, f.detail, true)
	}
}

// repair requests a fetch and rewrite of a resource, and returns when the
// difference is gone.
func (r *run) repair(ctx context.Context, f finding) error {
	ctx, cancel := context.WithTimeoutCause(ctx, repairTimeout,
		fault.New(fault.Unavailable, fault.ReasonRefreshFailed, "it takes longer than expected"))
	defer cancel()
	wanted := []mirror.Resource{f.resource}
	if f.resource.Kind == mirror.KindRoom && f.kind == mirror.DifferenceMissing {
		for _, kind := range mirror.RoomKinds() {
			wanted = append(wanted, mirror.Resource{Project: f.resource.Project, Room: f.resource.Room, Kind: kind})
		}
	}
	requests := make([]mirror.Request, len(wanted))
	for i, res := range wanted {
		requests[i] = mirror.Request{Resource: res, Unlisted: f.kind == mirror.DifferenceSurplus}
		if f.kind == mirror.DifferenceSurplus {
			continue
		}
		if err := r.cfg.Store.Invalidate(ctx, res); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("invalidate: %w", err)
		}
	}
	pending, err := r.cfg.Store.Request(ctx, requests, r.cfg.Now())
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	r.cfg.Workers.Push(pending)
	if err := r.cfg.Workers.Wait(ctx, pending); err != nil {
		return err
	}
	after, _ := r.checkOf(f.resource)(ctx)
	if left, ok := after[f.resource]; ok && !left.pending() {
		return fault.New(fault.Unavailable, fault.ReasonRefreshFailed, "the difference persists")
	}
	return nil
}
