package rpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/feed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	defaultChanges = 100
	maxChanges     = 1000
	// maxSteps is how many steps of the feed without a change that matches one call of
	// ListChanges takes before it returns the place that it has come to.
	maxSteps = 20
	// timeSlack is how much earlier than asked for a start by time is: clocks of replicas
	// differ.
	timeSlack = time.Minute
	// defaultHeartbeat is how often a watcher hears something.
	defaultHeartbeat = 15 * time.Second
	// defaultStall is how long a response to a watcher may take to be sent.
	defaultStall = 30 * time.Second
	// identityLife is how long the identity of a feed is used before it is read again.
	identityLife = time.Minute
	// watchLife is how long a stream lasts, and watchSpread by how much that varies, so
	// that watchers spread over the replicas.
	watchLife, watchSpread = 54 * time.Minute, 12 * time.Minute
)

// ChangeStore is what the change service reads of the database.
type ChangeStore interface {
	store.Feed
	Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	IdentifyFeed(ctx context.Context, project mirror.ProjectID, identity [16]byte) ([16]byte, error)
}

// ChangeDeps holds the dependencies of the change service.
type ChangeDeps struct {
	Store  ChangeStore
	Tailer *feed.Tailer
	// Resources are what can come with changes, and Memory how many bytes of responses with
	// some can be on their way at once; zero means 64 MiB.
	Resources IncludeStore
	Memory    int64
	// Stall is how long a response to a watcher may take to be sent; zero means 30 seconds.
	Stall time.Duration
	// PerCaller is how many calls of one caller may follow at once; zero means any number. Those
	// who may administer the service are not limited.
	PerCaller int
	// Page is how many changes or items a response of a stream has at most; zero means 1000.
	Page int
	// Life is how long a stream lasts; zero means about an hour.
	Life time.Duration
}

// changeService tells of changes.
type changeService struct {
	mirrorv1.UnimplementedChangeServiceServer
	common
	ChangeDeps

	mu         sync.Mutex
	identities map[mirror.ProjectID]knownIdentity
	// callers are who follow, by name.
	callers map[string]*followingCaller
	// pages has room for those who read a page of a snapshot, or resources.
	pages  chan struct{}
	memory *semaphore.Weighted
	guard  *access.Guard
	// documents are those that come with changes.
	documents *documents.Reader
	log       *slog.Logger
}

// followingCaller is one who follows.
type followingCaller struct {
	// calls is how many calls of theirs follow.
	calls int
	// pages has room for those that read a page of a snapshot, or resources.
	pages chan struct{}
	// memory is their share of that for responses with resources.
	memory *semaphore.Weighted
}

// knownIdentity is what was stored at a time, in a life of the database.
type knownIdentity struct {
	feedIdentity

	at    time.Time
	lives int
}

// changeRequest is the common part of the requests.
type changeRequest interface {
	proto.Message
	GetProjectId() string
	GetRoomId() string
	GetRoomIdPrefix() string
	GetKinds() []mirrorv1.ResourceKind
	GetToken() string
	GetPosition() mirrorv1.ChangeStart
	GetStartTime() *timestamppb.Timestamp
	GetInclude() mirrorv1.ChangeInclude
}

// following is a follower for a request.
type following struct {
	*feed.Follower
	selection

	identity feedIdentity
	// in is the place in a snapshot; nil if f is in none.
	in *inSnapshot
	// seen is how far the database was when a page of a snapshot or resources were read last.
	seen mirror.Position
	// include is how much of each resource comes with its change.
	include mirrorv1.ChangeInclude
	// mean is how many bytes the changes of the last response with resources had each.
	mean int
	// caller is who follows.
	*followingCaller
	// leave says that the caller follows no more.
	leave func()
}

// Close ends it.
func (f *following) Close() {
	f.Follower.Close()
	f.leave()
}

func (f *following) token() string {
	p := place{at: f.Position(), in: f.in}
	for bucket, n := range f.seen {
		p.beyond[bucket] = max(0, n-p.at[bucket])
	}
	return formatChangeToken(f.identity, &p)
}

// includes reports whether resources come with the changes.
func (f *following) includes() bool { return f.include > mirrorv1.ChangeInclude_CHANGE_INCLUDE_NONE }

// most is how many changes a response has at most.
func (f *following) most(n int) int {
	if f.includes() {
		return min(n, includeChanges)
	}
	return n
}

// follow begins to follow as a request asks.
func (s *changeService) follow(ctx context.Context, req changeRequest) (*following, error) {
	in, err := s.scope(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	f := &following{selection: selectionOf(in, req), include: req.GetInclude()}
	if f.includes() {
		rule, _ := access.RuleOf(mirrorv1.MirrorService_GetRoom_FullMethodName) // any read
		if err := s.guard.Permit(rule, in.caller); err != nil {
			return nil, err
		}
	}
	// What it costs to find the start counts too.
	if f.followingCaller, f.leave, err = s.enter(in.caller); err != nil {
		return nil, err
	}
	if f.identity, err = s.identity(ctx, in.project, false); err != nil {
		f.leave()
		return nil, err
	}
	var after *mirror.Position // now
	switch {
	case hasToken(req):
		after, err = s.fromToken(ctx, f, req.GetToken())
	case req.GetStartTime() != nil:
		after = new(mirror.Position)
		*after, err = feed.At(ctx, s.Store, req.GetStartTime().AsTime().Add(-timeSlack))
	case req.GetPosition() == mirrorv1.ChangeStart_CHANGE_START_EARLIEST:
		after = new(mirror.Position)
		*after, err = s.Store.Earliest(ctx)
	}
	if err == nil {
		f.Follower, err = s.Tailer.Follow(ctx, after)
	}
	if err != nil {
		f.leave()
		return nil, changesGone(err)
	}
	if known := f.Known(); store.Ahead(&f.seen, &known) {
		f.Close()
		return nil, changesGone(feed.ErrAhead)
	}
	// Only now it shows whether the database has gone back. Then the feed may be another.
	known := f.identity
	if f.identity, err = s.identity(ctx, in.project, false); err == nil && f.identity != known && hasToken(req) {
		err = badChangeToken(errChangeTokenMismatch)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fromToken returns the position of a token, and puts f into its snapshot.
func (s *changeService) fromToken(ctx context.Context, f *following, token string) (*mirror.Position, error) {
	p, err := parseChangeToken(token, f.identity)
	if errors.Is(err, errChangeTokenMismatch) {
		// Another replica may have given it after the feed was reset.
		if f.identity, err = s.identity(ctx, f.scope.project, true); err != nil {
			return nil, err
		}
		p, err = parseChangeToken(token, f.identity)
	}
	if err == nil && p.in != nil && p.in.filters != f.hash() {
		err = errSnapshotMismatch
	}
	if err != nil {
		return nil, badChangeToken(err)
	}
	if p.in != nil { // to read the rest for nothing would be a waste
		earliest, err := s.Store.Earliest(ctx)
		if err == nil && store.Ahead(&earliest, &p.at) {
			err = store.ErrTrimmed
		}
		if err != nil {
			return nil, fmt.Errorf("find the first changes: %w", err)
		}
	}
	f.in, f.seen = p.in, p.seen()
	return &p.at, nil
}

// enter counts a call of a caller, until leave is called. One caller must not take the place
// of all others.
func (s *changeService) enter(caller *access.Caller) (c *followingCaller, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.callers[caller.Name]
	if c == nil {
		c = &followingCaller{
			pages: make(chan struct{}, callerReaders), memory: semaphore.NewWeighted(callerShare(s.Memory)),
		}
		s.callers[caller.Name] = c
	}
	if s.PerCaller > 0 && c.calls >= s.PerCaller && !caller.Allows(access.AdminWrite) {
		return nil, nil, fault.New(fault.Busy, fault.ReasonWatchersLimited, fmt.Sprintf("%d calls with this key follow "+
			"the changes already, which is the limit of a key; let one follow for several, or raise "+
			"MIRROR_FEED_WATCHERS_PER_CALLER", s.PerCaller))
	}
	c.calls++
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.calls--; c.calls == 0 {
			delete(s.callers, caller.Name)
		}
	}, nil
}

// over reports whether the feed is known to have another identity than f began with, or may
// have one: who follows has to start from its token.
func (s *changeService) over(f *following) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.Outlived() || s.identities[f.scope.project].feedIdentity != f.identity
}

// beginsSnapshot reports whether a request asks for a new snapshot.
func beginsSnapshot(req changeRequest) bool {
	return req.GetPosition() == mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT
}

// match reports whether a request selects a change. The scope comes first: what the caller
// does not see does not exist.
func (s *selection) match(c *mirror.Change) bool {
	r := c.Resource
	return r.Project == s.scope.project && s.scope.sees(r.Room) &&
		(s.room == "" || r.Room == s.room) && strings.HasPrefix(string(r.Room), s.prefix) &&
		(len(s.kinds) == 0 || slices.Contains(s.kinds, r.Kind))
}

// identity returns the identity of a project's feed, which stays as it is unless an operator
// resets the feed. It reads it now and then, if the database has gone back, and if asked to.
func (s *changeService) identity(ctx context.Context, project mirror.ProjectID, again bool) (feedIdentity, error) {
	s.mu.Lock()
	old, ok := s.identities[project]
	s.mu.Unlock()
	now, lives := s.now(), s.Tailer.Lives()
	if ok && !again && now.Sub(old.at) < identityLife && old.lives == lives {
		return old.feedIdentity, nil
	}
	p, err := s.Store.Project(ctx, project)
	known := feedIdentity(p.Feed)
	if err == nil && known == (feedIdentity{}) {
		var fresh feedIdentity
		_, _ = rand.Read(fresh[:]) // never fails by its own contract
		known, err = s.Store.IdentifyFeed(ctx, project, fresh)
	}
	if err != nil {
		return known, fmt.Errorf("identity of the feed: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identities[project] = knownIdentity{known, now, lives}
	return known, nil
}

// changesGone returns err, or that the position of a request is not in the feed.
func changesGone(err error) error {
	const again = "; start again, with a snapshot if you hold copies"
	err = fault.Translate(err, store.ErrTrimmed, fault.New(fault.Gone, fault.ReasonChangeTokenExpired,
		"changes from there on are no longer kept"+again))
	return fault.Translate(err, feed.ErrAhead, fault.New(fault.Gone, fault.ReasonChangeTokenAhead,
		"the database is older than the change token, as after a restore"+again))
}

// ListChanges returns changes.
func (s *changeService) ListChanges(ctx context.Context, req *mirrorv1.ListChangesRequest) (
	*mirrorv1.ListChangesResponse, error,
) {
	f, err := s.follow(ctx, req)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := min(cmp.Or(int(req.GetPageSize()), defaultChanges), f.most(maxChanges))
	if beginsSnapshot(req) || f.in != nil {
		return s.listSnapshot(ctx, f, beginsSnapshot(req), size)
	}
	over := time.NewTimer(req.GetWaitDuration().AsDuration())
	defer over.Stop()
	for step := 0; ; {
		before := f.Mark()
		page, err := f.Read(ctx, f.match, size)
		if err != nil {
			return nil, changesGone(err)
		}
		done := len(page.Changes) > 0 || s.over(f)
		if !done && !page.CaughtUp {
			step++
			done = step == maxSteps
		}
		if !done && page.CaughtUp {
			select {
			case <-page.More():
			case <-over.C:
				done = true
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if done {
			brought, err := s.bring(ctx, f, &before, page.Changes, patience{})
			if err != nil && !errors.Is(err, errOver) { // or the same token again tells more
				return nil, err
			}
			// What follows is little more than the encoding of it, for one who has asked for it.
			defer brought.release()
			return &mirrorv1.ListChangesResponse{
				Changes: brought.changes, NextToken: f.token(), ReadTime: timestamp(f.ReadTime()),
				CaughtUp: page.CaughtUp && len(brought.changes) == len(page.Changes),
			}, nil
		}
	}
}

// listSnapshot returns the next part of a snapshot.
func (s *changeService) listSnapshot(ctx context.Context, f *following, begins bool, size int) (
	*mirrorv1.ListChangesResponse, error,
) {
	response := &mirrorv1.ListChangesResponse{ReadTime: timestamp(f.ReadTime())}
	if begins {
		f.begin()
		response.Snapshot = &mirrorv1.ListChangesResponse_SnapshotBegin{SnapshotBegin: &mirrorv1.SnapshotBegin{}}
	} else {
		for range maxSteps {
			items, err := s.nextPage(ctx, f, size, patience{})
			if errors.Is(err, errOver) {
				break // the same token again tells more
			} else if err != nil {
				return nil, err
			}
			items.release()
			if f.in == nil {
				response.Snapshot = &mirrorv1.ListChangesResponse_SnapshotEnd{SnapshotEnd: &mirrorv1.SnapshotEnd{}}
			} else if len(items.changes) > 0 {
				response.Snapshot = &mirrorv1.ListChangesResponse_SnapshotItems{
					SnapshotItems: &mirrorv1.SnapshotItems{Items: items.changes},
				}
			}
			if response.Snapshot != nil {
				break
			}
		}
	}
	response.NextToken = f.token()
	return response, nil
}

// WatchChanges sends changes as they happen.
func (s *changeService) WatchChanges(req *mirrorv1.WatchChangesRequest,
	stream grpc.ServerStreamingServer[mirrorv1.WatchChangesResponse],
) error {
	ctx := stream.Context()
	f, err := s.follow(ctx, req)
	if err != nil {
		return err
	}
	defer f.Close()
	size := f.most(cmp.Or(s.Page, maxChanges))
	life := cmp.Or(s.Life, watchLife+mrand.N(watchSpread))
	if expires := callerOf(ctx).Expires; !expires.IsZero() {
		life = min(life, expires.Sub(s.now()))
	}
	over := time.NewTimer(life)
	defer over.Stop()
	heartbeat := defaultHeartbeat
	if d := req.GetHeartbeatInterval(); d != nil {
		heartbeat = d.AsDuration()
	}
	quiet := time.NewTimer(heartbeat)
	defer quiet.Stop()
	send := func(message *mirrorv1.WatchChangesResponse) error {
		message.Token = f.token()
		quiet.Reset(heartbeat)
		return s.send(stream, message)
	}
	progress := func(caughtUp bool) error {
		return send(&mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_Progress{
			Progress: &mirrorv1.ChangeProgress{CaughtUp: caughtUp, ReadTime: timestamp(f.ReadTime())},
		}})
	}
	waiting := patience{over: over.C, quiet: quiet.C, heartbeat: func() error { return progress(false) }}
	told := f.in == nil && f.CaughtUp()
	if beginsSnapshot(req) {
		f.begin()
		err = send(&mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_SnapshotBegin{
			SnapshotBegin: &mirrorv1.SnapshotBegin{},
		}})
		told = false
	} else {
		err = progress(told)
	}
	for err == nil && f.in != nil {
		items, errPage := s.nextPage(ctx, f, size, waiting)
		switch {
		case errors.Is(errPage, errOver): // it goes on from the token
			return nil
		case errPage != nil:
			return errPage
		case f.in == nil:
			err = send(&mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_SnapshotEnd{
				SnapshotEnd: &mirrorv1.SnapshotEnd{},
			}})
		case len(items.changes) > 0:
			err = send(&mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_SnapshotItems{
				SnapshotItems: &mirrorv1.SnapshotItems{Items: items.changes},
			}})
		}
		items.release()
	}
	for err == nil && !s.over(f) {
		var page feed.Page
		before := f.Mark()
		if page, err = f.Read(ctx, f.match, size); err != nil {
			return changesGone(err)
		}
		switch {
		case len(page.Changes) > 0:
			brought, errBring := s.bring(ctx, f, &before, page.Changes, waiting)
			if errors.Is(errBring, errOver) {
				return nil
			} else if errBring != nil {
				return errBring
			}
			err = send(&mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_Changes{
				Changes: &mirrorv1.ChangeBatch{Changes: brought.changes},
			}})
			brought.release()
			select {
			case <-over.C: // however much more there is to send
				return err
			default:
			}
			continue
		case page.CaughtUp && !told:
			told = true
			err = progress(true)
			continue
		case !page.CaughtUp: // it has passed others by, and there is more at once
			select {
			case <-quiet.C:
				err = progress(false)
			case <-over.C:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			default:
			}
			continue
		}
		select {
		case <-page.More():
		case <-quiet.C:
			err = progress(true)
		case <-over.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// send sends a message. One that the watcher does not take ends the stream: it keeps nobody
// else waiting, and nothing is queued for it.
func (s *changeService) send(stream grpc.ServerStreamingServer[mirrorv1.WatchChangesResponse],
	message *mirrorv1.WatchChangesResponse,
) error {
	sent := make(chan error, 1)
	go func() { sent <- stream.Send(message) }() // ends with the stream
	late := time.NewTimer(cmp.Or(s.Stall, defaultStall))
	defer late.Stop()
	select {
	case err := <-sent:
		return err
	case <-late.C:
		return fault.New(fault.Busy, fault.ReasonWatcherTooSlow,
			"the watcher has not taken a response for too long; the last token that it got is good")
	}
}

func changesToProto(changes []mirror.Change) []*mirrorv1.Change {
	out := make([]*mirrorv1.Change, len(changes))
	for i, c := range changes {
		out[i] = &mirrorv1.Change{
			ProjectId: string(c.Resource.Project), RoomId: string(c.Resource.Room), Kind: kinds[c.Resource.Kind],
			ResourceId: c.Resource.ID, ChangeKind: changeKinds[c.Kind], Revision: c.Number,
			CommitTime: timestamp(c.CommitTime), RoomEpoch: c.Epoch,
		}
	}
	return out
}

var changeKinds = map[mirror.ChangeKind]mirrorv1.ChangeKind{
	mirror.ChangeUpserted: mirrorv1.ChangeKind_CHANGE_KIND_UPSERTED,
	mirror.ChangeDeleted:  mirrorv1.ChangeKind_CHANGE_KIND_DELETED,
}
