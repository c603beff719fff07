package rpc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/erase"
)

func (q *fakeQuery) Thread(ctx context.Context, thread mirror.Resource, deleted bool) (mirror.Thread, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Thread{}, err
	}
	return find(q.threads, func(t *mirror.Thread) bool {
		return t.Project == thread.Project && t.Room == thread.Room && t.ID == thread.ID &&
			(deleted || t.Freshness.DeleteTime.IsZero())
	})
}

// Threads selects by what of the filter a test can see in the answer; of the rest
// the filter itself is kept.
func (q *fakeQuery) Threads(ctx context.Context, f store.ThreadFilter) ([]mirror.Thread, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.threadFilter = f
	order := func(a, b mirror.Thread) int { return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.ID, b.ID)) }
	return choose(q.threads, q.selected(f.Limit), order, func(t *mirror.Thread) bool {
		return t.Project == f.Project && f.Rooms.Select(t.Room) && (f.Room == "" || t.Room == f.Room) &&
			(f.Deleted || t.Freshness.DeleteTime.IsZero()) &&
			order(*t, mirror.Thread{Room: f.AfterRoom, ID: f.AfterID}) > 0
	}), nil
}

func (q *fakeQuery) Comment(ctx context.Context, thread mirror.Resource, id string, deleted bool) (mirror.Comment,
	error,
) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Comment{}, err
	}
	return find(q.comments, func(c *mirror.Comment) bool {
		return c.Project == thread.Project && c.Room == thread.Room && c.Thread == thread.ID && c.ID == id &&
			(deleted || c.DeleteTime.IsZero())
	})
}

func (q *fakeQuery) Comments(ctx context.Context, f store.CommentFilter) ([]mirror.Comment, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.commentFilter = f
	order := func(a, b mirror.Comment) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Thread, b.Thread), a.CreateTime.Compare(b.CreateTime),
			cmp.Compare(a.ID, b.ID))
	}
	// A database keeps the time of a comment that has none as the first it knows.
	rows := slices.Clone(q.comments)
	for i := range rows {
		if rows[i].CreateTime.IsZero() {
			rows[i].CreateTime = time.Unix(0, 0)
		}
	}
	after := mirror.Comment{Room: f.AfterRoom, Thread: f.AfterThread, CreateTime: f.AfterTime, ID: f.AfterID}
	chosen := choose(rows, q.selected(f.Limit), order, func(c *mirror.Comment) bool {
		return c.Project == f.Project && f.Rooms.Select(c.Room) && (f.Room == "" || c.Room == f.Room) &&
			(f.Thread == "" || c.Thread == f.Thread) &&
			(f.Deleted || c.DeleteTime.IsZero()) && order(*c, after) > 0
	})
	for i := range chosen {
		if chosen[i].CreateTime.Unix() == 0 {
			chosen[i].CreateTime = time.Time{}
		}
	}
	return chosen, nil
}

func (q *fakeQuery) ActiveUsers(ctx context.Context, users mirror.Resource, deleted bool) (mirror.ActiveUsers, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.ActiveUsers{}, err
	}
	return find(q.users, func(u *mirror.ActiveUsers) bool {
		return u.Project == users.Project && u.Room == users.Room && (deleted || u.Freshness.DeleteTime.IsZero())
	})
}

func (q *fakeQuery) UserSessions(ctx context.Context, f store.SessionFilter) ([]mirror.UserSession, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.sessionFilter = f
	order := func(a, b mirror.UserSession) int {
		return cmp.Or(b.BeginTime().Compare(a.BeginTime()), cmp.Compare(a.ID, b.ID))
	}
	return choose(q.sessions, q.selected(f.Limit), order, func(s *mirror.UserSession) bool {
		return s.Project == f.Project && f.Rooms.Select(s.Room) &&
			(f.AfterTime.IsZero() || order(*s, mirror.UserSession{EnterTime: f.AfterTime, ID: f.AfterID}) > 0)
	}), nil
}

func (q *fakeQuery) Notifications(ctx context.Context, f store.NotificationFilter) ([]mirror.Notification, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.noticeFilter = f
	order := func(a, b mirror.Notification) int {
		return cmp.Or(b.CreateTime.Compare(a.CreateTime), cmp.Compare(a.EventID, b.EventID))
	}
	return choose(q.notices, q.selected(f.Limit), order, func(n *mirror.Notification) bool {
		return n.Project == f.Project && f.Rooms.Select(n.Room) &&
			(f.AfterTime.IsZero() || order(*n, mirror.Notification{CreateTime: f.AfterTime, EventID: f.AfterID}) > 0)
	}), nil
}

// fakeSweeper answers as told.
type fakeSweeper struct {
	backfill mirror.Backfill
	err      error
	verify   func(ctx context.Context, options mirror.VerifyOptions, report func(mirror.VerifyReport) error) error
	started  []mirror.ProjectID
	// confirmed are the rooms and groups of the latest confirmation.
	confirmed [2]int64
	calls     int
}

func (s *fakeSweeper) Start(_ context.Context, project mirror.ProjectID) (mirror.Backfill, error) {
	s.calls++
	s.started = append(s.started, project)
	return s.backfill, s.err
}

func (s *fakeSweeper) Status(context.Context, mirror.ProjectID) (mirror.Backfill, error) {
	s.calls++
	return s.backfill, s.err
}

func (s *fakeSweeper) Confirm(_ context.Context, _ mirror.ProjectID, rooms, groups int64) (mirror.Backfill, error) {
	s.calls++
	s.confirmed = [2]int64{rooms, groups}
	return s.backfill, s.err
}

func (s *fakeSweeper) Verify(ctx context.Context, options mirror.VerifyOptions,
	report func(mirror.VerifyReport) error,
) error {
	s.calls++
	return s.verify(ctx, options, report)
}

func (q *fakeQuery) Group(ctx context.Context, group mirror.Resource, deleted bool) (mirror.Group, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Group{}, err
	}
	return find(q.groups, func(g *mirror.Group) bool {
		return g.Project == group.Project && g.ID == group.ID && (deleted || g.Freshness.DeleteTime.IsZero())
	})
}

func (q *fakeQuery) Groups(ctx context.Context, f store.GroupFilter) ([]mirror.Group, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	order := func(a, b mirror.Group) int { return cmp.Compare(a.ID, b.ID) }
	return choose(q.groups, q.selected(f.Limit), order, func(g *mirror.Group) bool {
		member := slices.ContainsFunc(g.Members, func(m mirror.GroupMember) bool { return m.UserID == f.User })
		return g.Project == f.Project && (f.User == "" || member) && (f.Deleted || g.Freshness.DeleteTime.IsZero()) &&
			g.ID > f.After
	}), nil
}

// fakePinner remembers what it was told to pin, to confirm, to stop and to replay.
type fakePinner struct {
	query     *fakeQuery
	pinned    string
	unpinned  mirror.ProjectID
	takenUp   int64
	confirmed mirror.ProjectID
	stopped   string
	replay    ledger.Replay
	user      erase.User
	erased    mirror.Resource
	dryRun    bool
	err       error
}

func (p *fakePinner) Unpin(_ context.Context, project mirror.ProjectID) (string, error) {
	p.unpinned = project
	return "lb", p.err
}

func (p *fakePinner) Stop(_ context.Context, project mirror.ProjectID, reason string) error {
	p.stopped = string(project) + " " + reason
	return p.err
}

// User reports an erasure in two parts.
func (p *fakePinner) User(_ context.Context, u erase.User, report func(erase.Report) error) error {
	p.user = u
	of := func(kind mirror.Kind, room mirror.RoomID, id string) mirror.Resource {
		return mirror.Resource{Project: u.Project, Room: room, Kind: kind, ID: id}
	}
	tables := []erase.Table{
		{Name: "mirror_event", Rewritten: 2}, {Name: "mirror_comment", Removed: 1, Rewritten: 2, Living: 3, Other: 4},
	}
	if err := report(erase.Report{Buckets: 1, Tables: tables[:1]}); err != nil {
		return err
	}
	named, room := []string{"mirror_room.room_id"}, of(mirror.KindRoom, "a/b", "")
	return report(erase.Report{Buckets: mirror.Buckets, Tables: tables, Requested: 5, Remaining: []erase.Remaining{
		{Resource: room, Columns: named, Lives: true, Exact: true},
		{Resource: room, Lives: true},
		{Resource: of(mirror.KindThread, "a/b", "th_1"), Lives: true, Exact: true},
		{Resource: of(mirror.KindThread, "a/b", "th_1"), Lives: true},
		{Resource: of(mirror.KindGroup, "", "g/h"), Lives: true, Exact: true},
		{Resource: of(mirror.KindStorage, "a/b", ""), Lives: true, Exact: true},
		{Resource: of(mirror.KindActiveUsers, "a/b", ""), Lives: true, Exact: true},
		{Resource: of(mirror.KindNotification, "a/b", "in_1"), Lives: true, Exact: true},
		{Resource: of(mirror.KindYdoc, "a/b", ""), RoomGone: true, Exact: true},
		{Resource: of(mirror.KindThread, "a/b", "th_2")},
		{Resource: of(mirror.KindStorage, "a/b", ""), Lives: true, Unreadable: true},
	}})
}

// Room counts, unless no such room is mirrored.
func (p *fakePinner) Room(ctx context.Context, room mirror.Resource, dryRun bool) (store.TableRows, error) {
	if _, err := p.query.Room(ctx, room, true); err != nil {
		return nil, err
	}
	p.erased, p.dryRun = room, dryRun
	return store.TableRows{"mirror_room": 1, "mirror_event": 4, "mirror_thread": 2}, nil
}

// Replay counts the events of a page.
func (p *fakePinner) Replay(ctx context.Context, r ledger.Replay, report func(ledger.Replayed) error) error {
	p.replay = r
	events, err := p.query.Events(ctx, r.Filter)
	if err = errors.Join(err, p.err); err != nil {
		return err
	}
	done := ledger.Replayed{Read: int64(len(events)), Replayed: 2, Skipped: 1, Left: len(events) == r.Filter.Limit}
	if len(events) > 0 {
		done.LastTime, done.LastID = events[len(events)-1].ReceiveTime, events[len(events)-1].ID
	}
	return report(done)
}

func (p *fakePinner) Pin(_ context.Context, project mirror.ProjectID, id string) (int64, error) {
	p.pinned = string(project) + " " + id
	return p.takenUp, p.err
}

func (p *fakePinner) Confirm(_ context.Context, project mirror.ProjectID) error {
	p.confirmed = project
	return p.err
}

// many reads the rows of some resources with one statement.
func many[T any](ctx context.Context, q *fakeQuery, rows []T, resources []mirror.Resource,
	of func(*T) (mirror.Resource, *mirror.Freshness),
) (found []T, err error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.statements++
	for i := range rows {
		r, f := of(&rows[i])
		if f.DeleteTime.IsZero() && slices.Contains(resources, r) {
			found = append(found, rows[i])
		}
	}
	return found, nil
}

func (q *fakeQuery) RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, _ bool) (
	rooms []mirror.Room, err error,
) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.statements++
	for _, r := range q.rooms { // also deleted ones
		if r.Project == project && slices.Contains(ids, r.ID) {
			rooms = append(rooms, r)
		}
	}
	return rooms, nil
}

func (q *fakeQuery) ThreadsByID(ctx context.Context, _ mirror.ProjectID, threads []mirror.Resource, inline int64) (
	[]mirror.Thread, error,
) {
	found, err := many(ctx, q, q.threads, threads, func(t *mirror.Thread) (mirror.Resource, *mirror.Freshness) {
		return mirror.Resource{Project: t.Project, Room: t.Room, Kind: mirror.KindThread, ID: t.ID}, &t.Freshness
	})
	read := 0
	for i := range found {
		if int64(len(found[i].Source)) > inline {
			found[i].Source = nil
		}
		read += len(found[i].Source)
	}
	q.change(func() { q.sources = max(q.sources, read) })
	return found, err
}

func (q *fakeQuery) GroupsByID(ctx context.Context, _ mirror.ProjectID, groups []mirror.Resource) ([]mirror.Group,
	error,
) {
	return many(ctx, q, q.groups, groups, func(g *mirror.Group) (mirror.Resource, *mirror.Freshness) {
		return mirror.Resource{Project: g.Project, Kind: mirror.KindGroup, ID: g.ID}, &g.Freshness
	})
}

func (q *fakeQuery) ActiveUsersByRoom(ctx context.Context, _ mirror.ProjectID, rooms []mirror.Resource) (
	[]mirror.ActiveUsers, error,
) {
	return many(ctx, q, q.users, rooms, func(u *mirror.ActiveUsers) (mirror.Resource, *mirror.Freshness) {
		return mirror.Resource{Project: u.Project, Room: u.Room, Kind: mirror.KindActiveUsers}, &u.Freshness
	})
}
