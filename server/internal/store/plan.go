package store

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Plan is the result of a decision about a resource when its lease ends. The
// functions below make plans from the rows that an engine has loaded and locked.
// The engine writes them: first what becomes stale, then what the function's result
// says, last the state and the change entry.
type Plan struct {
	// State is the resource's new state. Writing it releases the lease.
	State State
	// Change is the change entry to write; 0 for none.
	Change mirror.ChangeKind
	// Epoch is the incarnation of the room that the entry tells of.
	Epoch int64
	// Stale lists other resources that become stale, in key order.
	Stale []Stale
	// AlsoDue lists other resources that are now due, in key order.
	AlsoDue []mirror.Resource
	// Sessions means that the sessions of the room changed too and get their own
	// change entry.
	Sessions bool
}

// Entries returns the change entries to write, in the order of their numbers, which
// they do not have yet; r is the resource of the plan.
func (p Plan) Entries(r mirror.Resource, now time.Time) []mirror.Change {
	var entries []mirror.Change
	if p.Change != 0 {
		entries = Entries([]mirror.Resource{r}, p.Change, p.Epoch, now)
	}
	if p.Sessions {
		sessions := mirror.Resource{Project: r.Project, Room: r.Room, Kind: mirror.KindUserSessions}
		entries = append(entries, Entries([]mirror.Resource{sessions}, mirror.ChangeUpserted, p.Epoch, now)...)
	}
	return entries
}

// Entries returns change entries of resources in one bucket, which have no numbers yet.
// Times are those of columns, to the microsecond.
func Entries(resources []mirror.Resource, change mirror.ChangeKind, epoch int64, now time.Time) []mirror.Change {
	entries := make([]mirror.Change, len(resources))
	for i, r := range resources {
		entries[i] = mirror.Change{
			Bucket: r.Bucket(), Resource: r, Kind: change, CommitTime: now.UTC().Truncate(time.Microsecond),
		}
		if !r.Kind.Traits().OutlivesRoom {
			entries[i].Epoch = epoch
		}
	}
	return entries
}

// Number numbers entries of one bucket from the first number on.
func Number(entries []mirror.Change, first int64) {
	for i := range entries {
		entries[i].Number = first + int64(i)
	}
}

// Applied returns the result of a plan that was written with these change entries.
func (p Plan) Applied(changes []mirror.Change) mirror.Applied {
	return mirror.Applied{
		Generation: p.State.Applied, Changed: len(changes) > 0, Changes: changes, Due: p.State.Due,
		Settles: p.State.Settles(), AlsoDue: p.AlsoDue,
	}
}

// spread adds resources that become stale together with this one.
func (p *Plan) spread(list []Stale) {
	p.Stale = MergeStale(list)
	for _, w := range p.Stale {
		p.AlsoDue = append(p.AlsoDue, w.Resource)
	}
}

// RoomCopy identifies the stored copy of a room; the zero RoomCopy means none.
type RoomCopy struct {
	Epoch                  int64
	SHA256                 [32]byte
	CreateTime, DeleteTime time.Time
}

// Lives reports whether the room is mirrored and not a tombstone.
func (c RoomCopy) Lives() bool { return c.Epoch > 0 && c.DeleteTime.IsZero() }

// Gone reports whether the room is a tombstone.
func (c RoomCopy) Gone() bool { return c.Epoch > 0 && !c.DeleteTime.IsZero() }

// LeaseOf returns the lease on a claimed resource, from its state and the stored
// copy of its room.
func LeaseOf(r mirror.Resource, token [16]byte, until time.Time, s State, room RoomCopy) mirror.Lease {
	return mirror.Lease{
		Resource: r, Token: token, Until: until, Generation: s.Generation, Applied: s.Applied,
		Epoch: room.Epoch, Gone: room.Gone(), Attempts: s.Attempts, SourceTime: s.EventTime, FetchTime: s.FetchTime,
		Background: s.Background, Settle: s.Settle, NoticeTime: s.NoticeTime, Deaths: s.Deaths,
	}
}

// ChildKinds returns the kinds that are deleted with their room, as column values.
func ChildKinds() []int16 { return KindColumns(mirror.ChildKinds()) }

// KindColumns returns kinds as column values.
func KindColumns(kinds []mirror.Kind) []int16 {
	columns := make([]int16, len(kinds))
	for i, k := range kinds {
		columns[i] = int16(k)
	}
	return columns
}

// Add adds a resource, in the order of due times, unless its part of the list is
// complete.
func (l *DueList) Add(look Look, r DueResource, background bool) {
	part, more := &l.Resources, &l.More
	if background {
		part, more = &l.Background, &l.MoreBackground
	}
	if *more = len(*part) >= look.Limit; !*more {
		*part = append(*part, r)
	}
}

// SeenOf returns what a claim has read of a document in addition to its lease.
func SeenOf(s State, stored mirror.DocumentCopy) *mirror.Seen {
	return &mirror.Seen{
		Due: s.Due, DeleteGeneration: s.DeleteGeneration, SourceUpdateTime: s.SourceUpdateTime,
		Copy: stored,
	}
}

// StateSeen returns the parts of the state read by a claim that matter to a
// success.
func StateSeen(lease mirror.Lease) State {
	return State{
		Generation: lease.Generation, Applied: lease.Applied, Due: lease.Seen.Due, Settle: lease.Settle,
		DeleteGeneration: lease.Seen.DeleteGeneration, Background: lease.Background,
		SourceUpdateTime: lease.Seen.SourceUpdateTime, NoticeTime: lease.NoticeTime,
	}
}

// RoomPlan is the plan for a fetched room. Its row is written if there is a Change.
type RoomPlan struct {
	Plan // Epoch is that of the room from now on

	// Children means that everything in the room becomes stale; see
	// [RoomPlan.MarkChildren].
	Children bool
	// Joined lists children that were fetched together with the room.
	Joined []mirror.Resource
}

// WithJoined adds the children that were fetched together with the room to the result.
func (p RoomPlan) WithJoined(applied mirror.Applied) mirror.Applied {
	if len(p.Joined) > 0 {
		applied.Epoch, applied.Joined = p.Epoch, p.Joined
	}
	return applied
}

// Child is a known child of a room, with the token of the lease on it.
type Child struct {
	mirror.Resource

	LeaseToken [16]byte
}

// PlanRoom decides about a fetched room; stored is its previous copy.
func PlanRoom(
	s State, stored, fetched RoomCopy, lease mirror.Lease, fetchTime, now time.Time, settle time.Duration,
) RoomPlan {
	reborn := !stored.Lives() || !stored.CreateTime.Equal(fetched.CreateTime)
	p := RoomPlan{Plan: Plan{Epoch: stored.Epoch}, Children: reborn || !s.MissingSince.IsZero()}
	if reborn {
		p.Epoch++
	}
	if reborn || stored.SHA256 != fetched.SHA256 {
		p.Change = mirror.ChangeUpserted
	}
	p.State = s.Succeed(lease, fetchTime, now, settle)
	if reborn && stored.Epoch > 0 && p.State.Due.IsZero() {
		// Rows of an earlier incarnation remain to be deleted, by the next task.
		p.State.Due = now
	}
	return p
}

// joins reports whether what is fetched under a child's lease, together with the
// room, belongs to the incarnation of the fetched room: it is still fetched, and an
// event that arrived before tells of a change after the room was created.
func joins(child mirror.Lease, known []Child, fetched RoomCopy) bool {
	return !fetched.CreateTime.IsZero() && !child.SourceTime.Before(fetched.CreateTime) &&
		slices.Contains(known, Child{Resource: child.Resource, LeaseToken: child.Token})
}

// MarkChildren adds to the plan that all known children of the room become stale,
// and those that every room has, known or not. They are as urgent as the room. It
// leaves out those that were fetched together with the room, which is as it was
// fetched.
func (p *RoomPlan) MarkChildren(lease mirror.Lease, fetched RoomCopy, known []Child, now time.Time) {
	var stale []Stale
	mark := func(r mirror.Resource) {
		if !slices.Contains(p.Joined, r) {
			stale = append(stale, Stale{Resource: r, Now: now, Background: lease.Background})
		}
	}
	for _, child := range lease.Joined {
		if joins(child, known, fetched) {
			p.Joined = append(p.Joined, child.Resource)
		}
	}
	for _, child := range known {
		mark(child.Resource)
	}
	for _, kind := range mirror.RoomKinds() {
		r := mirror.Resource{Project: lease.Resource.Project, Room: lease.Resource.Room, Kind: kind}
		if !slices.ContainsFunc(known, func(c Child) bool { return c.Resource == r }) {
			mark(r)
		}
	}
	p.spread(stale)
}

// MissingRoomPlan is the plan for a room that does not exist in Liveblocks.
type MissingRoomPlan struct {
	Plan // a Change makes the room a tombstone in the next epoch

	// SettleChildren means that nothing in the room is left to fetch.
	SettleChildren bool
	// EndSessions means that open sessions end, also those in a room that was never
	// mirrored.
	EndSessions bool
}

// PlanMissingRoom decides about the 404 of a room. It proves a deletion only
// together with a delete event that no later fetch has contradicted.
func PlanMissingRoom(
	s State, stored RoomCopy, lease mirror.Lease, now time.Time, settle time.Duration,
) MissingRoomPlan {
	deleted := s.DeleteGeneration != 0 || stored.Gone()
	p := MissingRoomPlan{SettleChildren: deleted || !stored.Lives(), EndSessions: deleted}
	if deleted && stored.Lives() {
		p.Change, p.Epoch = mirror.ChangeDeleted, stored.Epoch+1
	}
	p.State = s.Vanish(lease, now, settle, deleted)
	return p
}

// Parent is the room of a leased resource. Its state is locked before the
// resource's own.
type Parent struct {
	State State
	Copy  RoomCopy
	// Fresh means that the room had no state and got one that is due.
	Fresh bool
}

// wake makes the room due unless it already is, as urgent as the resource that
// waits for it.
func (p *Plan) wake(room Parent, r mirror.Resource, background bool, now time.Time) {
	r = r.RoomResource()
	switch {
	case room.State.Due.IsZero():
		p.Stale = []Stale{{Resource: r, Now: now, Background: background}}
	case room.State.Background && !background:
		// It only becomes more urgent.
		p.Stale = []Stale{{Resource: r, Now: room.State.Due, SameGeneration: true}}
	case !room.Fresh:
		return
	}
	p.AlsoDue = []mirror.Resource{r}
}

// PlanMissingChild decides about a 404 for the room of a resource.
func PlanMissingChild(s State, room Parent, lease mirror.Lease, f Failure) (Plan, error) {
	if room.Copy.Epoch != lease.Epoch {
		return Plan{}, ErrEpochChanged
	}
	if room.Copy.Gone() || !room.State.MissingSince.IsZero() {
		return Plan{State: s.Vanish(lease, f.Now, 0, false)}, nil
	}
	var p Plan
	p.wake(room, lease.Resource, s.Background, f.Now)
	if s.MissingSince.IsZero() {
		s.MissingSince = f.Now
	}
	p.State = s.Fail(lease, f)
	return p, nil
}

// PlanPark decides about a resource whose room was not mirrored when it was claimed.
func PlanPark(s State, room Parent, lease mirror.Lease, now time.Time) Plan {
	if room.Copy.Lives() {
		return Plan{State: s.Unfinished(now)}
	}
	p := Plan{State: s.Park()}
	p.wake(room, lease.Resource, s.Background, now)
	return p
}

// WritesDocument reports whether a fetched document has to be written; stored is its
// previous copy. One that is only encoded differently is not: the stored bytes are those
// that were fetched first. It needs no state, so that a long one is written before the
// state is locked.
func WritesDocument(stored, fetched mirror.DocumentCopy) bool { return !stored.Same(fetched) }

// Unchanged returns a document without derived columns, if the claim has seen a copy of
// the same content, derived by the same version.
func Unchanged(lease mirror.Lease, content []byte, version int) (mirror.DocumentContent, bool) {
	if lease.Seen == nil || lease.Seen.Copy.Epoch != lease.Epoch || lease.Seen.Copy.DeriveVersion != version ||
		lease.Seen.Copy.SHA256 != sha256.Sum256(content) {
		return mirror.DocumentContent{}, false
	}
	return mirror.DocumentContent{
		Content: content, DeriveVersion: version, StateSHA256: lease.Seen.Copy.StateSHA256, Unchanged: true,
	}, true
}

// PlanDocument decides about a fetched document; stored is its previous copy. There is
// a Change if it is written.
func PlanDocument(
	s State, stored, fetched mirror.DocumentCopy, lease mirror.Lease, fetchTime, now time.Time, settle time.Duration,
) Plan {
	p := Plan{State: s.Succeed(lease, fetchTime, now, settle), Epoch: lease.Epoch}
	if WritesDocument(stored, fetched) {
		p.Change = mirror.ChangeUpserted
	}
	return p
}

// StateColumn returns the column value for the state of a document: null if it has
// none.
func StateColumn(c mirror.DocumentCopy) []byte {
	if c.StateSHA256 == [32]byte{} {
		return nil
	}
	return c.StateSHA256[:]
}

// ActiveUsersOf returns the users of a response as stored: in order, without
// duplicates, without ids that cannot be stored. Empty info equals no info.
func ActiveUsersOf(content mirror.ActiveUsersContent) []mirror.ActiveUser {
	users := slices.Clone(content.Users)
	for i := range users {
		if !mirror.ValidID(users[i].UserID, mirror.MaxUserID) {
			users[i].UserID = "" // as if anonymous
		}
		users[i].Info = Present(users[i].Info)
	}
	slices.SortStableFunc(users, mirror.ActiveUser.Compare)
	return slices.CompactFunc(users, func(a, b mirror.ActiveUser) bool { return a.Compare(b) == 0 })
}

// ActiveUsersPlan is the plan for the active users of a room.
type ActiveUsersPlan struct {
	Plan

	// Write means that all rows are rewritten. There are few, and most connections
	// are new each time.
	Write bool
	// Ended lists the ids of open sessions that end with the fetch, in order.
	Ended []string
}

// PlanActiveUsers decides about fetched users, as returned by ActiveUsersOf, given
// the stored ones of each epoch, in order, and the open sessions of the room, by id.
//
// An empty response can be a fault of the upstream that lasts for a moment, and a
// session that has ended stays so. So nobody ends sessions only when it is what the
// response before it said too; until then the users are fetched again.
func PlanActiveUsers(
	s State, stored map[int64][]mirror.ActiveUser, open []mirror.UserSession, lease mirror.Lease,
	users []mirror.ActiveUser, fetchTime, absentBefore, now time.Time, settle time.Duration,
) ActiveUsersPlan {
	p := ActiveUsersPlan{Plan: Plan{State: s.Succeed(lease, fetchTime, now, settle), Epoch: lease.Epoch}}
	same := slices.EqualFunc(stored[lease.Epoch], users, func(a, b mirror.ActiveUser) bool {
		return a.Compare(b) == 0 && bytes.Equal(a.Info, b.Info)
	})
	if !same {
		p.Change = mirror.ChangeUpserted
	}
	// Readers do not see those of an earlier epoch.
	outdated := len(stored) > 1 || len(stored) == 1 && stored[lease.Epoch] == nil
	p.Write = !same || outdated
	for _, o := range open {
		who := mirror.ActiveUser{ConnectionID: o.ConnectionID, UserID: o.UserID}
		_, here := slices.BinarySearchFunc(users, who, mirror.ActiveUser.Compare)
		if !here && o.BeginTime().Before(absentBefore) {
			p.Ended = append(p.Ended, o.ID)
		}
	}
	first := s.FetchTime.IsZero() || len(stored[lease.Epoch]) > 0
	if len(p.Ended) > 0 && len(users) == 0 && first {
		p.Ended = nil
		if p.State.Due.IsZero() {
			p.State.Due, p.State.Background = fetchTime.Add(mirror.ActiveUsersInterval), lease.Background
		}
	}
	p.Sessions = len(p.Ended) > 0
	return p
}

// PlanSessions decides about folded sessions; more means that other events still
// wait.
func PlanSessions(s State, fold mirror.SessionFold, more bool, lease mirror.Lease, now time.Time) Plan {
	p := Plan{State: s.Succeed(lease, now, now, 0)}
	if more {
		p.State = p.State.Unfinished(now)
	}
	if len(fold.Upserts)+len(fold.Deletes) > 0 {
		p.Change = mirror.ChangeUpserted
	}
	return p
}

// NotificationPlan is the plan for a notification.
type NotificationPlan struct {
	Plan

	// Rows lists the rows that are new or differ from the stored ones, in key
	// order.
	Rows []mirror.Notification
	// Inbox means that the inbox entry is written to all rows, including new ones.
	Inbox bool
}

// NotificationColumns returns the notifications of a fold as column values; stored
// converts a time as the engine's columns do. A missing creation time becomes one
// in 1970.
func NotificationColumns(fold mirror.NotificationFold, stored func(time.Time) time.Time) mirror.NotificationFold {
	fold.Rows = slices.Clone(fold.Rows)
	for i := range fold.Rows {
		n := &fold.Rows[i]
		n.Channel, n.Kind = Text(n.Channel), Text(n.Kind)
		if n.CreateTime.IsZero() {
			n.CreateTime = time.Unix(0, 0)
		}
		n.CreateTime, n.TriggerTime = stored(n.CreateTime), stored(n.TriggerTime)
	}
	fold.Inbox.ReadTime, fold.Inbox.NotifyTime = stored(fold.Inbox.ReadTime), stored(fold.Inbox.NotifyTime)
	return fold
}

// PlanNotification decides about a folded notification, given its stored rows,
// whether more events wait, and the fold as column values.
func PlanNotification(
	s State, stored []mirror.Notification, fold mirror.NotificationFold, more bool, lease mirror.Lease, now time.Time,
	settle time.Duration,
) NotificationPlan {
	asked := !fold.FetchTime.IsZero()
	var p NotificationPlan
	before := make(map[string]mirror.Notification, len(stored))
	for _, n := range stored {
		before[n.EventID] = n
		p.Inbox = p.Inbox || asked && !sameInbox(n.Inbox, fold.Inbox)
	}
	for _, n := range slices.SortedFunc(slices.Values(fold.Rows), func(a, b mirror.Notification) int {
		return strings.Compare(a.EventID, b.EventID)
	}) {
		was, ok := before[n.EventID]
		if ok && sameNotification(was, n) {
			continue
		}
		p.Rows = append(p.Rows, n)
		p.Inbox = p.Inbox || asked && !ok && !sameInbox(mirror.Inbox{}, fold.Inbox)
	}
	if len(p.Rows) > 0 || p.Inbox {
		p.Change = mirror.ChangeUpserted
	}
	if asked {
		p.State = s.Succeed(lease, fold.FetchTime, now, settle)
	} else {
		p.State = s.Succeed(lease, s.FetchTime, now, settle)
	}
	if more || !asked {
		p.State = p.State.Unfinished(now)
	}
	return p
}

func sameInbox(a, b mirror.Inbox) bool {
	return bytes.Equal(a.Source, b.Source) && (a.Source == nil) == (b.Source == nil) &&
		a.ReadTime.Equal(b.ReadTime) && a.NotifyTime.Equal(b.NotifyTime)
}

func sameNotification(a, b mirror.Notification) bool {
	return a.Channel == b.Channel && a.Kind == b.Kind && a.UserID == b.UserID && a.ThreadID == b.ThreadID &&
		a.MentionID == b.MentionID && a.SubjectID == b.SubjectID &&
		a.CreateTime.Equal(b.CreateTime) && a.TriggerTime.Equal(b.TriggerTime)
}

// SweepPlan is the plan for a requested sweep.
type SweepPlan struct {
	Sweep mirror.Sweep
	// Begin means that the sweep and State are written, which takes the lease from
	// a running sweep, because that would overwrite the new one. Otherwise a sweep
	// is running, and Stale brings it forward.
	Begin bool
	State State
	Stale Stale
}

// PlanSweep decides about a requested sweep, given the stored one. fresh means that
// the state was just created.
func PlanSweep(s State, fresh bool, stored mirror.Sweep, id string, full bool, now time.Time) SweepPlan {
	stale := Stale{Resource: mirror.Resource{Project: stored.Project, Kind: mirror.KindSweep}, Now: now, Lift: true}
	if stored.ID != "" && !stored.Done && (stored.Full || !full) {
		stale.SameGeneration = true
		return SweepPlan{Sweep: stored, Stale: stale}
	}
	if !fresh {
		s = s.MarkStale(stale)
	}
	next := mirror.Sweep{Project: stored.Project, ID: id, Full: full, BeginTime: now, FullTime: stored.FullTime}
	return SweepPlan{Sweep: next, Begin: true, State: s}
}

// PlanSweepEnd decides when a finished sweep is due again: at next, or immediately
// if it was requested in the meantime.
func PlanSweepEnd(s State, sweep mirror.Sweep, lease mirror.Lease, next, now time.Time) Plan {
	p := Plan{State: s.Succeed(lease, sweep.BeginTime, now, 0)}
	if p.State.Due.IsZero() {
		p.State.Due = next
	}
	return p
}

// PlanRetry decides about a task to retry immediately. It returns ErrNotDue if the
// task is done.
func PlanRetry(s State, r mirror.Resource, now time.Time) (Stale, error) {
	if s.TaskState(now) == mirror.TaskDone {
		return Stale{}, ErrNotDue
	}
	return Stale{Resource: r, Now: now, Lift: true, SameGeneration: true}, nil
}

// PlanDiscard returns the state of a task that is discarded. It returns ErrNotDue if the
// task is done. What it knew of the resource stays: the copy is as stale as it was, and a
// delete event still counts.
func PlanDiscard(s State, now time.Time) (State, error) {
	if s.TaskState(now) == mirror.TaskDone {
		return State{}, ErrNotDue
	}
	s = s.Release().Park()
	s.Settle, s.Background, s.RefetchAt, s.Attempts, s.FailTime = false, false, time.Time{}, 0, time.Time{}
	return s, nil
}
