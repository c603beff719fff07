// Package sweep reads Liveblocks' list of rooms and requests what no event
// announced. The first sweep is the backfill.
package sweep

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

// Store is the part of the store that a sweep uses.
type Store interface {
	store.Sweeps
	listing.Rooms
	Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error)
	UserSessions(ctx context.Context, filter store.SessionFilter) ([]mirror.UserSession, error)
	Notifications(ctx context.Context, filter store.NotificationFilter) ([]mirror.Notification, error)
	TaskList(ctx context.Context, filter store.TaskFilter) ([]mirror.Task, error)
	Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	ConfirmDeletions(ctx context.Context, project mirror.ProjectID, confirmed mirror.Confirmation) error
	Counts(ctx context.Context, project mirror.ProjectID) (store.Counts, error)
	Task(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)
	store.Indexer
	store.TermCleaner
}

// Pool receives what became due and reports the rate of its work.
type Pool interface {
	PushBackground(pending []mirror.Pending)
	BackgroundRate() float64
}

// Key is the secret key of the project.
type Key interface {
	// Problem returns why the key is probably that of another project; "" if it is
	// not.
	Problem(ctx context.Context) (string, error)
}

// Config configures a Sweeper.
type Config struct {
	Project mirror.ProjectID
	Store   Store
	Lister  listing.Lister
	Pool    Pool
	Key     Key
	// Interval is the time from the end of a sweep to the next one, FullInterval
	// from the start of a full sweep to the next full one; 0 means never.
	Interval, FullInterval time.Duration
	// RetryMin and RetryMax limit the delay after a failed list, which doubles each
	// time.
	RetryMin, RetryMax time.Duration
	// Listed, if set, is called with the number of rooms of each page that was read, and
	// Ended when a sweep has read the whole list.
	Listed func(rooms int)
	Ended  func(at time.Time)
	Now    func() time.Time
	Logger *slog.Logger
}

const (
	// recently is how long after the last connection to a room that was not mirrored
	// the room is assumed to be occupied.
	recently = 24 * time.Hour
	// unreadFor is how long a notification is fetched again while it is unread.
	unreadFor = 7 * 24 * time.Hour
)

// Sweeper runs the sweeps of one project.
type Sweeper struct {
	cfg Config

	mu   sync.Mutex
	list *list
	// ours is the id of the sweep of which a page has shown that the list is that of
	// the mirrored project.
	ours string
	// asked holds the rooms that the latest complete lists lacked, and when they were
	// requested because of that.
	asked    map[listing.Key]time.Time
	failures int
}

// list is the part of the list of rooms that this process has read, from its first
// page on.
type list struct {
	*listing.Listing

	sweep  string // the id of the sweep
	cursor string
}

// New returns a Sweeper.
func New(cfg Config) *Sweeper { return &Sweeper{cfg: cfg} }

func (s *Sweeper) resource() mirror.Resource {
	return mirror.Resource{Project: s.cfg.Project, Kind: mirror.KindSweep}
}

// newID returns a new id for a sweep.
func newID() string { return rand.Text() }

// Begin schedules the next sweep: a full one, the backfill, if there has never been
// one.
func (s *Sweeper) Begin(ctx context.Context) error {
	if s.never() {
		return nil
	}
	task, err := s.cfg.Store.Task(ctx, s.resource(), s.cfg.Now())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	last, err := s.cfg.Store.Sweep(ctx, s.cfg.Project)
	switch {
	case err != nil:
	case !task.DueTime.IsZero():
		// The setting may have become shorter since the last sweep.
		if next := s.next(last, s.past(last.EndTime, s.cfg.Now())); last.Done && next.Before(task.DueTime) {
			_, err = s.cfg.Store.Request(ctx, []mirror.Request{{Resource: s.resource()}}, next)
		}
	default:
		_, err = s.cfg.Store.PlanSweep(ctx, s.cfg.Project, newID(), last.ID == "" || s.fullIsDue(last), s.cfg.Now())
	}
	return err
}

// never reports whether sweeps run only on request.
func (s *Sweeper) never() bool { return s.cfg.Interval == 0 && s.cfg.FullInterval == 0 }

// Start starts a full sweep unless one is running. It does not wait for it.
func (s *Sweeper) Start(ctx context.Context, _ mirror.ProjectID) (mirror.Backfill, error) {
	if _, err := s.cfg.Store.PlanSweep(ctx, s.cfg.Project, newID(), true, s.cfg.Now()); err != nil {
		return mirror.Backfill{}, err
	}
	s.cfg.Pool.PushBackground([]mirror.Pending{{Resource: s.resource()}})
	return s.Status(ctx, s.cfg.Project)
}

// Confirm stores what an operator confirmed to be deleted, and starts a sweep unless
// one is running.
func (s *Sweeper) Confirm(ctx context.Context, project mirror.ProjectID, rooms, groups int64) (mirror.Backfill, error) {
	confirmed := mirror.Confirmation{Rooms: rooms, Groups: groups, Time: s.cfg.Now()}
	if err := s.cfg.Store.ConfirmDeletions(ctx, project, confirmed); err != nil {
		return mirror.Backfill{}, err
	}
	if _, err := s.cfg.Store.PlanSweep(ctx, project, newID(), false, s.cfg.Now()); err != nil {
		return mirror.Backfill{}, err
	}
	s.cfg.Pool.PushBackground([]mirror.Pending{{Resource: s.resource()}})
	return s.Status(ctx, project)
}

// Status returns the progress of the latest sweep.
func (s *Sweeper) Status(ctx context.Context, _ mirror.ProjectID) (mirror.Backfill, error) {
	sweep, err := s.cfg.Store.Sweep(ctx, s.cfg.Project)
	if err != nil {
		return mirror.Backfill{}, err
	}
	counts, err := s.cfg.Store.Counts(ctx, s.cfg.Project)
	if err != nil {
		return mirror.Backfill{}, err
	}
	// New rooms cause fetches of everything in them.
	unborn := min(counts.BackgroundRooms, sweep.Listed-sweep.Known) * int64(len(mirror.RoomKinds()))
	b := mirror.Backfill{Sweep: sweep, Pending: counts.Background + max(unborn, 0)}
	if sweep.ID == "" {
		return b, nil
	}
	b.Done = max(sweep.MarkedStale-b.Pending, 0)
	if b.PerSecond = s.cfg.Pool.BackgroundRate(); b.PerSecond > 0 {
		b.Remaining = time.Duration(float64(b.Pending) / b.PerSecond * float64(time.Second))
	}
	return b, nil
}

// Do continues the project's sweep or starts the next one, and returns when the
// list is complete. It requests what is stale in the background.
//
// It stores its position page by page, so another process can continue.
//
// It never fails for good: it is retried until it succeeds.
func (s *Sweeper) Do(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	applied, err := s.do(ctx, lease)
	if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrLeaseLost) {
		return applied, err
	}
	f := fault.Of(err)
	s.mu.Lock()
	wait := max(min(s.cfg.RetryMin<<min(s.failures, 20), s.cfg.RetryMax), f.RetryAfter)
	s.failures++
	s.mu.Unlock()
	s.cfg.Logger.WarnContext(ctx, "sweep interrupted, will be tried again", slog.Any("error", err),
		slog.Duration("wait", wait))
	return mirror.Applied{}, fault.Wrap(err, fault.Busy, f.Reason, f.Public).After(wait)
}

func (s *Sweeper) do(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	sweep, err := s.cfg.Store.Sweep(ctx, s.cfg.Project)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("read sweep: %w", err)
	}
	if sweep.ID == "" || sweep.Done {
		if s.never() { // any more
			return s.apply(ctx, lease, sweep)
		}
		sweep = mirror.Sweep{Project: s.cfg.Project, ID: newID(), Full: s.fullIsDue(sweep), FullTime: sweep.FullTime}
	}
	if sweep.BeginTime.IsZero() {
		sweep.BeginTime = s.cfg.Now()
	}
	read := s.listOf(sweep)
	for first := true; ; first = false {
		page, err := s.cfg.Lister.ListRooms(ctx, sweep.Cursor, listing.PageSize)
		if err == nil && read != nil {
			// An earlier attempt may have read the first page of this task.
			if _, repeats := read.Add(page); !first {
				err = repeats
			}
		}
		if err != nil {
			return mirror.Applied{}, s.failed(ctx, lease, sweep, err)
		}
		problem, err := s.compare(ctx, &sweep, page.Rooms)
		if err != nil {
			return mirror.Applied{}, err
		}
		if problem != "" {
			return s.stop(ctx, lease, sweep, problem)
		}
		if s.cfg.Listed != nil {
			s.cfg.Listed(len(page.Rooms))
		}
		sweep.Cursor, sweep.Problem = page.Next, ""
		if page.Next == "" {
			return s.end(ctx, lease, sweep, read)
		}
		if err := s.cfg.Store.SaveSweep(ctx, lease, sweep); err != nil {
			return mirror.Applied{}, fmt.Errorf("save sweep: %w", err)
		}
		if read != nil {
			read.cursor = page.Next
		}
		s.mu.Lock()
		s.failures = 0
		s.mu.Unlock()
	}
}

// fullIsDue reports whether the sweep after last must be full.
func (s *Sweeper) fullIsDue(last mirror.Sweep) bool {
	if s.cfg.FullInterval == 0 {
		return false
	}
	return !s.cfg.Now().Before(s.past(last.FullTime, time.Time{}).Add(s.cfg.FullInterval))
}

// past returns the time of something that has happened, or otherwise instead if it is in
// the future: a clock that was ahead has stored it.
func (s *Sweeper) past(t, otherwise time.Time) time.Time {
	if t.After(s.cfg.Now()) {
		return otherwise
	}
	return t
}

// next returns when the sweep after one that ends now is due; zero if there will be
// none.
func (s *Sweeper) next(sweep mirror.Sweep, now time.Time) time.Time {
	var next time.Time
	if s.cfg.Interval > 0 {
		next = now.Add(s.cfg.Interval)
	}
	if s.cfg.FullInterval > 0 {
		if full := s.past(sweep.FullTime, time.Time{}).Add(s.cfg.FullInterval); next.IsZero() || full.Before(next) {
			next = full
		}
		if next.Before(now) {
			next = now
		}
	}
	return next
}

// listOf returns the part of the list that this process has read, or nil if another
// process has read the beginning.
func (s *Sweeper) listOf(sweep mirror.Sweep) *list {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case sweep.Cursor == "":
		s.list = &list{Listing: listing.New(), sweep: sweep.ID}
	case s.list != nil && (s.list.sweep != sweep.ID || s.list.cursor != sweep.Cursor):
		s.list = nil
	}
	return s.list
}

// failed records why the list could not be read, so the status shows it during
// retries. It returns err, or why that could not be recorded.
func (s *Sweeper) failed(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("list rooms: %w", err)
	}
	f := fault.Of(err)
	if f.Reason == fault.ReasonUpstreamCursorInvalid {
		sweep = mirror.Sweep{
			Project: sweep.Project, ID: sweep.ID, Full: sweep.Full, BeginTime: s.cfg.Now(),
			FullTime: sweep.FullTime,
		}
	}
	sweep.Problem = "the list of rooms could not be read: " + f.Public
	if code := f.Meta["code"]; code != "" {
		sweep.Problem += " (" + code + ")"
	}
	if err := s.cfg.Store.SaveSweep(ctx, lease, sweep); err != nil {
		return fmt.Errorf("save sweep: %w", err)
	}
	return err
}

// compare requests what has changed according to a page, unless the page shows the
// rooms of another project.
func (s *Sweeper) compare(ctx context.Context, sweep *mirror.Sweep, listed []mirror.ListedRoom) (problem string,
	err error,
) {
	if len(listed) == 0 {
		return "", nil
	}
	known, err := s.mirroredOf(ctx, listed)
	if err != nil {
		return "", err
	}
	if err := s.readSources(ctx, known, listed); err != nil {
		return "", err
	}
	if problem, err := s.foreign(ctx, sweep.ID, listed, known); err != nil || problem != "" {
		return problem, err
	}
	var wanted []mirror.Resource
	for _, r := range listed {
		room, ok := known[r.ID]
		if ok && room.Freshness.DeleteTime.IsZero() && listing.SameLife(room, r.Content) {
			sweep.Known++
			wanted = append(wanted, changed(room, r.Content, sweep.Full)...)
			continue
		}
		// Applying the room makes everything in it due.
		wanted = append(wanted, swept(s.cfg.Project, r.ID, mirror.SweepListed)...)
		sweep.MarkedStale += int64(len(mirror.RoomKinds()))
		if sweep.BeginTime.Sub(r.Content.LastConnectionTime) < recently {
			wanted = append(wanted, swept(s.cfg.Project, r.ID, mirror.SweepConnected)...)
		}
	}
	sweep.Listed += int64(len(listed))
	return "", s.request(ctx, sweep, wanted, false)
}

// foreign returns why a page is probably not the list of the mirrored project. A
// known room with another creation time was created again, or it is another project's
// room with the same id. If the page has no known room that is the same, and no
// earlier page of this sweep had one, rooms are fetched to tell which.
func (s *Sweeper) foreign(
	ctx context.Context, sweep string, listed []mirror.ListedRoom, known map[mirror.RoomID]mirror.Room,
) (problem string, err error) {
	same, other := false, false
	for _, r := range listed {
		if room, ok := known[r.ID]; ok && room.Freshness.DeleteTime.IsZero() {
			is := listing.SameLife(room, r.Content)
			same, other = same || is, other || !is
		}
	}
	if !same && other && !s.isOurs(sweep) {
		if problem, err = s.cfg.Key.Problem(ctx); err != nil || problem != "" {
			return problem, err
		}
	}
	if same || other {
		s.mu.Lock()
		s.ours = sweep
		s.mu.Unlock()
	}
	return "", nil
}

// isOurs reports whether a page of the sweep has shown that the list is that of the
// mirrored project.
func (s *Sweeper) isOurs(sweep string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ours == sweep
}

// stop ends a sweep that must not go on. The next one is as full as this one.
func (s *Sweeper) stop(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep, problem string) (mirror.Applied,
	error,
) {
	now := s.cfg.Now()
	sweep.Done, sweep.EndTime, sweep.Problem = true, now, problem
	next := now.Add(cmp.Or(s.cfg.Interval, s.cfg.FullInterval))
	if s.never() {
		next = time.Time{}
	}
	applied, err := s.cfg.Store.ApplySweep(ctx, lease, sweep, next, now)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("apply sweep: %w", err)
	}
	s.cfg.Logger.WarnContext(ctx, "sweep stopped", slog.String("problem", problem))
	return applied, nil
}

// mirroredOf returns the listed rooms that are mirrored, including tombstones.
func (s *Sweeper) mirroredOf(ctx context.Context, listed []mirror.ListedRoom) (map[mirror.RoomID]mirror.Room, error) {
	ids := make([]mirror.RoomID, len(listed))
	for i, r := range listed {
		ids[i] = r.ID
	}
	rooms, err := s.cfg.Store.RoomsByID(ctx, s.cfg.Project, ids, false)
	if err != nil {
		return nil, fmt.Errorf("look up listed rooms: %w", err)
	}
	known := make(map[mirror.RoomID]mirror.Room, len(rooms))
	for _, r := range rooms {
		known[r.ID] = r
	}
	return known, nil
}

// readSources adds the JSON of rooms whose bytes are not the listed ones: the list may
// spell it in another way. The hash tells that of most rooms.
func (s *Sweeper) readSources(ctx context.Context, known map[mirror.RoomID]mirror.Room,
	listed []mirror.ListedRoom,
) error {
	var ids []mirror.RoomID
	for _, r := range listed {
		if room, ok := known[r.ID]; ok && !moved(room, r.Content) && room.SHA256 != sha256.Sum256(r.Content.Source) {
			ids = append(ids, r.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rooms, err := s.cfg.Store.RoomsByID(ctx, s.cfg.Project, ids, true)
	if err != nil {
		return fmt.Errorf("read listed rooms: %w", err)
	}
	for _, room := range rooms {
		known[room.ID] = room
	}
	return nil
}

// moved reports whether somebody has connected to the room since its copy was fetched.
func moved(room mirror.Room, listed mirror.RoomContent) bool {
	return !room.LastConnectionTime.Equal(listed.LastConnectionTime.Truncate(time.Microsecond))
}

// changed returns what to fetch of a room that is mirrored and listed.
func changed(room mirror.Room, listed mirror.RoomContent, full bool) (wanted []mirror.Resource) {
	moved := moved(room, listed)
	same := room.SHA256 == sha256.Sum256(listed.Source) || !moved && rawjson.Same(room.Source, listed.Source)
	if !same || !room.Freshness.MissingSince.IsZero() {
		wanted = append(wanted, swept(room.Project, room.ID, mirror.SweepListed)...)
	}
	if full || moved {
		wanted = append(wanted, swept(room.Project, room.ID, mirror.SweepFull)...)
	}
	if moved {
		wanted = append(wanted, swept(room.Project, room.ID, mirror.SweepConnected)...)
	}
	return wanted
}

// swept returns the resources of a room that the rule requests.
func swept(project mirror.ProjectID, room mirror.RoomID, rule mirror.SweepRule) (wanted []mirror.Resource) {
	for _, kind := range mirror.SweptKinds(rule) {
		wanted = append(wanted, mirror.Resource{Project: project, Room: room, Kind: kind})
	}
	return wanted
}

// request marks resources as stale in the background.
func (s *Sweeper) request(ctx context.Context, sweep *mirror.Sweep, wanted []mirror.Resource, unlisted bool) error {
	if len(wanted) == 0 {
		return nil
	}
	requests := make([]mirror.Request, len(wanted))
	for i, r := range wanted {
		requests[i] = mirror.Request{Resource: r, Background: true, Unlisted: unlisted}
	}
	pending, err := s.cfg.Store.Request(ctx, requests, s.cfg.Now())
	if err != nil {
		return fmt.Errorf("request what has changed: %w", err)
	}
	sweep.MarkedStale += int64(len(wanted))
	s.cfg.Pool.PushBackground(pending)
	return nil
}

// end finds the rooms that vanished and stores the sweep as done.
func (s *Sweeper) end(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep, read *list) (mirror.Applied, error) {
	// Before the problems of this sweep are found, which a restart meanwhile would lose.
	if sweep.Full && !sweep.FullTime.IsZero() { // the first one finds a project that is new
		if _, err := store.CleanAllTerms(ctx, s.cfg.Store, s.cfg.Project); ctx.Err() != nil {
			return mirror.Applied{}, fmt.Errorf("delete terms of what is gone: %w", err)
		} else if err != nil { // lists leave them out
			s.cfg.Logger.WarnContext(ctx, "terms of what is gone are deleted by a later sweep", slog.Any("error", err))
		}
	}
	if read != nil {
		if err := s.vanished(ctx, &sweep, read); err != nil {
			return mirror.Applied{}, err
		}
	}
	if err := s.occupied(ctx, &sweep); err != nil {
		return mirror.Applied{}, err
	}
	// During an upgrade, an earlier version of the service may have written or deleted some.
	if _, err := store.IndexAll(ctx, s.cfg.Store, s.cfg.Project, nil); err != nil {
		return mirror.Applied{}, fmt.Errorf("index rooms and threads: %w", err)
	}
	if err := s.failedTasks(ctx, &sweep); err != nil {
		return mirror.Applied{}, err
	}
	if sweep.Full {
		if err := s.unread(ctx, &sweep); err != nil {
			return mirror.Applied{}, err
		}
	}
	if sweep.Problem == "" && (read != nil || sweep.Known > 0) { // else the key may be that of another project
		if err := s.request(ctx, &sweep, swept(s.cfg.Project, "", mirror.SweepProject), false); err != nil {
			return mirror.Applied{}, err
		}
	}
	sweep.Done, sweep.EndTime = true, s.cfg.Now()
	if sweep.Full {
		sweep.FullTime = sweep.BeginTime
	}
	applied, err := s.apply(ctx, lease, sweep)
	if err != nil {
		return applied, err
	}
	s.mu.Lock()
	s.list, s.failures = nil, 0
	s.mu.Unlock()
	if s.cfg.Ended != nil {
		s.cfg.Ended(sweep.EndTime)
	}
	log := s.cfg.Logger.With(slog.Bool("full", sweep.Full), slog.Int64("listed", sweep.Listed),
		slog.Int64("raised", sweep.MarkedStale), slog.Int64("vanished", sweep.Vanished))
	if sweep.Problem != "" {
		log.WarnContext(ctx, "sweep done, with a problem", slog.String("problem", sweep.Problem))
	} else {
		log.InfoContext(ctx, "sweep done")
	}
	return applied, nil
}

// apply stores a finished sweep and makes the next one due.
func (s *Sweeper) apply(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) (mirror.Applied, error) {
	now := s.cfg.Now()
	applied, err := s.cfg.Store.ApplySweep(ctx, lease, sweep, s.next(sweep, now), now)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("apply sweep: %w", err)
	}
	return applied, nil
}

// vanished requests the rooms that the list does not contain, as after a delete
// event: each is fetched, and only its own 404 deletes it.
//
// The list proves that only if one process read it from its first page to its last,
// if it contains mirrored rooms, also when its start is read again, and if few
// rooms are missing.
//
// A room that was there although an earlier list lacked it, as one of another
// organization may be, has not vanished. It is requested by full sweeps only.
func (s *Sweeper) vanished(ctx context.Context, sweep *mirror.Sweep, read *list) error {
	asked := make(map[listing.Key]time.Time)
	lacking := func(do func(rooms, apart []mirror.Room) error) (int64, error) {
		now := s.cfg.Now()
		return read.Lacking(ctx, s.cfg.Store, s.cfg.Project, "", sweep.BeginTime, now, func(rooms []mirror.Room) error {
			var vanished, apart []mirror.Room
			for _, r := range rooms {
				if at, ok := s.asked[listing.KeyOf(r.ID)]; ok && r.Freshness.FetchedBetween(at, now) {
					apart = append(apart, r)
				} else {
					vanished = append(vanished, r)
				}
			}
			return do(vanished, apart)
		})
	}
	apart := 0
	mirrored, err := lacking(func(rooms, alive []mirror.Room) error {
		sweep.Vanished += int64(len(rooms))
		apart += len(alive)
		return nil
	})
	if err != nil || sweep.Vanished == 0 && (apart == 0 || !sweep.Full) {
		return err
	}
	if err := s.implausible(ctx, sweep, mirrored); err != nil {
		return err
	}
	_, err = lacking(func(rooms, alive []mirror.Room) error {
		var gone []mirror.Resource
		if sweep.Full && sweep.Problem == "" {
			rooms = append(rooms, alive...)
		} else {
			for _, r := range alive {
				asked[listing.KeyOf(r.ID)] = s.asked[listing.KeyOf(r.ID)]
			}
		}
		for _, r := range rooms {
			// Readers learn that a room is missing even if its deletion is not believed.
			if sweep.Problem == "" || r.Freshness.MissingSince.IsZero() && sweep.Known > 0 {
				gone = append(gone, mirror.Resource{Project: s.cfg.Project, Room: r.ID, Kind: mirror.KindRoom})
				asked[listing.KeyOf(r.ID)] = s.cfg.Now()
			}
		}
		return s.request(ctx, sweep, gone, sweep.Problem == "")
	})
	if err == nil {
		s.asked = asked
	}
	return err
}

// implausible sets the problem of a sweep that lacks too much, unless an operator has
// confirmed that it is gone.
func (s *Sweeper) implausible(ctx context.Context, sweep *mirror.Sweep, mirrored int64) error {
	project, err := s.cfg.Store.Project(ctx, s.cfg.Project)
	if err != nil {
		return fmt.Errorf("read what an operator has confirmed: %w", err)
	}
	if n := project.Confirmed.At(s.cfg.Now()).Rooms; n > 0 && sweep.Vanished <= n {
		return nil
	}
	known := sweep.Known
	if s.isOurs(sweep.ID) {
		known = max(known, 1) // reborn, but of this project
	}
	sweep.Problem = listing.Implausible(sweep.Listed, known, sweep.Vanished, mirrored)
	if sweep.Problem != "" {
		return nil
	}
	sweep.Problem, err = s.stillOurs(ctx, *sweep, mirrored)
	return err
}

// stillOurs returns why the complete list is not plausible, or "" if it is. If the
// key became that of another project meanwhile, the list would end early, and every
// missing room would get a 404.
func (s *Sweeper) stillOurs(ctx context.Context, sweep mirror.Sweep, mirrored int64) (problem string, err error) {
	page, err := s.cfg.Lister.ListRooms(ctx, "", listing.PageSize)
	if err != nil {
		return "", fmt.Errorf("list rooms once more: %w", err)
	}
	known, err := s.mirroredOf(ctx, page.Rooms)
	if err != nil {
		return "", err
	}
	for _, r := range page.Rooms {
		if room, ok := known[r.ID]; ok && room.Freshness.DeleteTime.IsZero() && listing.SameLife(room, r.Content) {
			return "", nil
		}
	}
	if sweep.Known == 0 && len(page.Rooms) > 0 {
		return s.cfg.Key.Problem(ctx) // as the list was believed before
	}
	return listing.Implausible(int64(len(page.Rooms)), 0, mirrored, mirrored), nil
}

// unread requests the recent notifications that are in an inbox and not read as far as
// is known, because no event tells of reading one.
func (s *Sweeper) unread(ctx context.Context, sweep *mirror.Sweep) error {
	filter := store.NotificationFilter{
		Project: s.cfg.Project, From: sweep.BeginTime.Add(-unreadFor), Limit: listing.Batch,
	}
	for {
		list, err := s.cfg.Store.Notifications(ctx, filter)
		if err != nil {
			return fmt.Errorf("look for unread notifications: %w", err)
		}
		var wanted []mirror.Resource
		for _, n := range list {
			r := mirror.Resource{Project: s.cfg.Project, Room: n.Room, Kind: mirror.KindNotification, ID: n.ID}
			// Channels share a notification.
			if n.Inbox.Source != nil && n.Inbox.ReadTime.IsZero() && !slices.Contains(wanted, r) {
				wanted = append(wanted, r)
			}
		}
		if err := s.request(ctx, sweep, wanted, false); err != nil {
			return err
		}
		if len(list) < filter.Limit {
			return nil
		}
		last := list[len(list)-1]
		filter.AfterTime, filter.AfterID = last.CreateTime, last.EventID
	}
}

// transient are the reasons of failures that do not lie in the resource, so every
// sweep requests it again. What failed for another reason, such as a document that is
// too large, is requested by full sweeps.
var transient = []fault.Reason{
	fault.ReasonUpstreamUnavailable, fault.ReasonUpstreamRateLimited, fault.ReasonProjectPaused,
	fault.ReasonStoreUnavailable,
}

// worthRetrying reports whether a sweep requests a resource that has failed for good.
func worthRetrying(task mirror.Task, full bool) bool {
	t := task.Resource.Kind.Traits()
	if t.Name == "" || t.Apart {
		return false
	}
	if task.State == mirror.TaskWaiting {
		// What needs no room waits for nothing: somebody has discarded the task.
		return full && (store.Unsupported(task.LastError) || !t.NeedsRoom)
	}
	return full || slices.ContainsFunc(transient, func(r fault.Reason) bool {
		return strings.HasPrefix(task.LastError, string(r)+":")
	})
}

// failedTasks requests what has failed for good, whatever its kind. A full sweep also
// requests what Liveblocks did not have, and what was discarded and no list shows, such as
// sessions and notifications.
func (s *Sweeper) failedTasks(ctx context.Context, sweep *mirror.Sweep) error {
	states := []mirror.TaskState{mirror.TaskFailed}
	if sweep.Full {
		states = append(states, mirror.TaskWaiting)
	}
	for _, state := range states {
		if err := s.tasksAgain(ctx, sweep, state); err != nil {
			return err
		}
	}
	return nil
}

// tasksAgain requests the resources of tasks in a state that are worth retrying.
func (s *Sweeper) tasksAgain(ctx context.Context, sweep *mirror.Sweep, state mirror.TaskState) error {
	filter := store.TaskFilter{Project: s.cfg.Project, State: state, Now: s.cfg.Now(), Limit: listing.Batch}
	for {
		tasks, err := s.cfg.Store.TaskList(ctx, filter)
		if err != nil {
			return fmt.Errorf("look for tasks to retry: %w", err)
		}
		var wanted []mirror.Resource
		for _, task := range tasks {
			if worthRetrying(task, sweep.Full) {
				wanted = append(wanted, task.Resource)
			}
		}
		if err := s.request(ctx, sweep, wanted, false); err != nil {
			return err
		}
		if len(tasks) < filter.Limit {
			return nil
		}
		last := tasks[len(tasks)-1].Resource
		filter.AfterRoom, filter.AfterKind, filter.AfterID = last.Room, last.Kind, last.ID
	}
}

// occupied requests the active users of rooms with open sessions, because the
// userLeft event may have been lost.
func (s *Sweeper) occupied(ctx context.Context, sweep *mirror.Sweep) error {
	filter := store.SessionFilter{Project: s.cfg.Project, Open: true, Limit: listing.Batch}
	seen := make(map[mirror.RoomID]bool)
	for {
		sessions, err := s.cfg.Store.UserSessions(ctx, filter)
		if err != nil {
			return fmt.Errorf("look for open sessions: %w", err)
		}
		var wanted []mirror.Resource
		for _, session := range sessions {
			if !seen[session.Room] {
				seen[session.Room] = true
				wanted = append(wanted, mirror.Resource{Project: s.cfg.Project, Room: session.Room, Kind: mirror.KindActiveUsers})
			}
		}
		if err := s.request(ctx, sweep, wanted, false); err != nil {
			return err
		}
		if len(sessions) < filter.Limit {
			return nil
		}
		last := sessions[len(sessions)-1]
		filter.AfterTime, filter.AfterID = last.BeginTime(), last.ID
	}
}
