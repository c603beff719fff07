package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
)

// AdminDeps holds the dependencies of the admin service.
type AdminDeps struct {
	Query     AdminQuery
	Requester Requester
	Pinner    Pinner
	Replayer  Replayer
	Eraser    Eraser
	Stopper   Stopper
	Key       Key
	Sweeper   Sweeper
	Verifier  Verifier
	Status    StatusSource
	// Version is the version of the binary, StartTime when it started.
	Version   string
	StartTime time.Time
}

// AdminQuery reads what the admin service shows.
type AdminQuery interface {
	store.TaskQuery
	store.AuditQuery
	Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	LastEvents(ctx context.Context, project mirror.ProjectID, types []string) (mirror.LastEvents, error)
	Unannounced(ctx context.Context, project mirror.ProjectID) ([]mirror.Unannounced, error)
	ProjectIDs(ctx context.Context) ([]mirror.ProjectID, error)
}

// Pinner replaces the Liveblocks project whose events are worked, and returns how
// many events were set aside before and are worked now. Unpin forgets it, and returns
// which it was.
type Pinner interface {
	Pin(ctx context.Context, project mirror.ProjectID, liveblocksID string) (takenUp int64, err error)
	Unpin(ctx context.Context, project mirror.ProjectID) (was string, err error)
}

// Replayer works recorded events once more. It calls report from one goroutine at a time,
// and returns its error.
type Replayer interface {
	Replay(ctx context.Context, replay ledger.Replay, report func(ledger.Replayed) error) error
}

// Stopper stops calls to Liveblocks by order of an operator, or lets them go on if reason
// is empty.
type Stopper interface {
	Stop(ctx context.Context, project mirror.ProjectID, reason string) error
}

// Key is the project's secret key. Confirm states that an operator vouches for it.
type Key interface {
	Confirm(ctx context.Context, project mirror.ProjectID) error
}

// Requester marks resources as stale, and restarts and ends tasks, as [store.Tasks]
// does, and wakes the workers.
type Requester interface {
	Request(ctx context.Context, resources []mirror.Resource) ([]mirror.Pending, error)
	Retry(ctx context.Context, resource mirror.Resource) (mirror.Task, error)
	Discard(ctx context.Context, resource mirror.Resource) (mirror.Task, error)
}

// Sweeper compares a project's rooms with Liveblocks' list of them.
type Sweeper interface {
	// Start starts a full sweep unless one is running, and wakes the workers. It
	// does not wait for the sweep.
	Start(ctx context.Context, project mirror.ProjectID) (mirror.Backfill, error)
	// Status returns the progress of the project's latest sweep, full or not; a
	// zero Sweep with the project if there has been none.
	Status(ctx context.Context, project mirror.ProjectID) (mirror.Backfill, error)
	// Confirm states that so many rooms and groups are deleted, and starts a sweep
	// unless one is running.
	Confirm(ctx context.Context, project mirror.ProjectID, rooms, groups int64) (mirror.Backfill, error)
}

// Verifier compares the mirror with Liveblocks.
type Verifier interface {
	// Verify passes each difference to report when it finds it, its progress at
	// intervals, and the summary at the end. It calls report from one goroutine at
	// a time. If report fails, Verify returns its error.
	Verify(ctx context.Context, options mirror.VerifyOptions, report func(mirror.VerifyReport) error) error
}

// StatusSource returns the status of the process. Every GetStatus calls it; it may
// query the store for its version.
type StatusSource interface {
	Status(ctx context.Context) (Status, error)
}

// Status is the status of the process.
type Status struct {
	// Ready says whether deliveries and reads are accepted.
	Ready bool
	// Engine is the database's name and version.
	Engine string
	// Deliveries counts deliveries since the process started.
	Deliveries ledger.Counts
	// Refused counts the calls that were refused because of their caller, by reason.
	Refused map[fault.Reason]int64
	// MemoryUsed is what responses and documents in work take of Memory, both in bytes.
	MemoryUsed, Memory int64
	// Limiters holds the state of the call limit by project.
	Limiters map[mirror.ProjectID]Limiter
	// Work holds what the process does for each project.
	Work map[mirror.ProjectID]Work
	// Changes says what became of old entries of the feed.
	Changes mirror.Retention
}

// Work is what the process does for a project.
type Work struct {
	Lanes     []queue.Lane
	Freshness queue.Freshness
	// Retention says what became of the old rows of each table.
	Retention []mirror.Retention
}

// Limiter is the state of a project's limit on calls to Liveblocks.
type Limiter struct {
	// CallsPerSecond is the current limit.
	CallsPerSecond float64
	// MaxCallsPerSecond is the most that CallsPerSecond grows to.
	MaxCallsPerSecond float64
	// ThrottledUntil is when Liveblocks may be called again, as it requested.
	ThrottledUntil time.Time
	// PauseReason and PausedSince describe a pause of this process. If there is
	// none, the store may still have that of another replica.
	PauseReason string
	PausedSince time.Time
	// Unsupported are the kinds that Liveblocks does not have.
	Unsupported []mirror.Kind
}

// adminService implements the admin API.
type adminService struct {
	mirrorv1.UnimplementedAdminServiceServer
	common
	AdminDeps

	audit Auditor
}

// GetStatus returns the status of the service and of the projects that the caller sees.
// What is counted for all projects together is left out if there are others: their
// deliveries are none of its business.
func (a *adminService) GetStatus(ctx context.Context, _ *mirrorv1.GetStatusRequest) (*mirrorv1.GetStatusResponse,
	error,
) {
	now, err := a.Status.Status(ctx)
	if err != nil {
		return nil, err
	}
	resp := &mirrorv1.GetStatusResponse{
		Version:   a.Version,
		StartTime: timestamp(a.StartTime),
		Ready:     now.Ready,
		Store:     now.Engine,
	}
	caller := callerOf(ctx)
	seen := a.seen(caller)
	if len(seen) == len(a.projects) {
		resp.DocumentMemoryUsedBytes, resp.DocumentMemoryBytes = now.MemoryUsed, now.Memory
		resp.RefusedCalls = refusedToProto(now.Refused)
		resp.Deliveries = deliveriesToProto(now.Deliveries)
		resp.ChangeRetention = retentionToProto(now.Changes)
	}
	if resp.RemovedProjectIds, err = a.removed(ctx, caller); err != nil {
		return nil, err
	}
	for _, id := range seen {
		project, err := a.Query.Project(ctx, id)
		if err != nil {
			return nil, err
		}
		counts, err := a.Query.Counts(ctx, id)
		if err != nil {
			return nil, err
		}
		sweep, err := a.Sweeper.Status(ctx, id)
		if err != nil {
			return nil, err
		}
		groups, err := a.Query.Task(ctx, mirror.Resource{Project: id, Kind: mirror.KindGroup}, a.now())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		events, err := a.Query.LastEvents(ctx, id, webhook.Types())
		if err != nil {
			return nil, err
		}
		unannounced, err := a.Query.Unannounced(ctx, id)
		if err != nil {
			return nil, err
		}
		var failed []mirror.Task
		if counts.Failed > 0 {
			if failed, err = a.Query.TaskList(ctx, store.TaskFilter{
				Project: id, State: mirror.TaskFailed, Now: a.now(), Limit: reasonsRead,
			}); err != nil {
				return nil, err
			}
		}
		limiter, work := now.Limiters[id], now.Work[id]
		switch {
		case project.StopReason != "": // whether this replica has heard of it or not
			project.PauseReason, project.PauseTime = project.Stopped(), project.StopTime
		case strings.HasPrefix(limiter.PauseReason, mirror.StoppedByOperator): // and it has not heard of the end
		case limiter.PauseReason != "":
			project.PauseReason, project.PauseTime = limiter.PauseReason, limiter.PausedSince
		}
		is := condition{
			project: project, counts: counts, failed: byReason(failed), sweep: sweep.Sweep, groups: groups, events: events,
			unannounced: unannounced, retention: work.Retention,
		}
		if len(seen) == len(a.projects) {
			is.retention = append(slices.Clone(is.retention), now.Changes)
		}
		resp.Projects = append(resp.Projects, &mirrorv1.ProjectStatus{
			ProjectId:              string(id),
			LiveblocksProjectId:    project.LiveblocksID,
			PauseReason:            project.PauseReason,
			PauseTime:              timestamp(project.PauseTime),
			PendingTasks:           counts.Pending,
			FailedTasks:            counts.Failed,
			OldestDueTime:          timestamp(counts.OldestDue),
			CallsPerSecondLimit:    limiter.CallsPerSecond,
			MaxCallsPerSecondLimit: limiter.MaxCallsPerSecond,
			ThrottledUntilTime:     timestamp(limiter.ThrottledUntil),
			BackgroundTasks:        counts.Background,
			LastSweep:              sweepToProto(&sweep),
			Problems:               append(problems(project, a.now()), listProblems(groups, sweep.Sweep)...),
			ForeignEvents:          foreignToProto(project.Foreign),
			LastEventTime:          timestamp(events.Time),
			EventTypes:             eventTypesToProto(events),
			UnannouncedChanges:     unannouncedToProto(unannounced),
			UnsupportedKinds:       kindsToProto(limiter.Unsupported),
			Freshness:              percentilesToProto(work.Freshness),
			Lanes:                  lanesToProto(work.Lanes),
			FailedTasksByReason:    is.failed,
			Warnings:               is.warnings(a.now()),
			Retention:              retentionsToProto(work.Retention),
		})
	}
	return resp, nil
}

// removed returns the projects that are not configured any more and have rows, of those
// that the caller sees.
func (a *adminService) removed(ctx context.Context, caller *access.Caller) (ids []string, err error) {
	stored, err := a.Query.ProjectIDs(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range stored {
		if !slices.Contains(a.projects, id) && caller.SeesProject(id) {
			ids = append(ids, string(id))
		}
	}
	return ids, nil
}

func retentionsToProto(list []mirror.Retention) (out []*mirrorv1.RetentionStatus) {
	for _, r := range list {
		out = append(out, retentionToProto(r))
	}
	return out
}

func retentionToProto(r mirror.Retention) *mirrorv1.RetentionStatus {
	out := &mirrorv1.RetentionStatus{
		Table: r.Table, RunTime: timestamp(r.RunTime), OldestTime: timestamp(r.OldestTime), DeletedRows: r.Deleted,
		Problem: r.Problem,
	}
	if r.Keep > 0 {
		out.KeepDuration = durationpb.New(r.Keep)
	}
	if r.Behind > 0 {
		out.BehindDuration = durationpb.New(r.Behind)
	}
	return out
}

func deliveriesToProto(d ledger.Counts) *mirrorv1.DeliveryCounts {
	return &mirrorv1.DeliveryCounts{
		Accepted: d.Accepted, Duplicate: d.Duplicate, Unauthenticated: d.Unauthenticated, Unavailable: d.Unavailable,
		UnknownType: d.UnknownType, Malformed: d.Malformed, ForeignProject: d.ForeignProject,
		OutOfTolerance: d.OutOfTolerance, Conflicting: d.Conflicting,
	}
}

// foreignShown is how long after the last event of another project it is a problem.
const foreignShown = 24 * time.Hour

// problems returns what an operator has to look at.
func problems(project mirror.Project, now time.Time) (list []string) {
	f := project.Foreign
	if f.Count > 0 && f.LiveblocksID != project.LiveblocksID && now.Sub(f.Time) < foreignShown {
		list = append(list, fmt.Sprintf("events of the Liveblocks project %q are set aside, because the secret key is "+
			"that of %q; if that is wrong, pin the right one", f.LiveblocksID, project.LiveblocksID))
	}
	return list
}

// listProblems returns why the mirror does not follow Liveblocks' lists.
func listProblems(groups mirror.Task, sweep mirror.Sweep) (list []string) {
	if sweep.Problem != "" {
		list = append(list, sweep.Problem)
	}
	if groups.State != mirror.TaskDone && groups.LastError != "" {
		list = append(list, groups.LastError)
	}
	return list
}

func percentilesToProto(f queue.Freshness) *mirrorv1.FreshnessPercentiles {
	if f.Count == 0 {
		return nil
	}
	return &mirrorv1.FreshnessPercentiles{
		ChangeCount: int64(f.Count), P50Duration: durationpb.New(f.P50), P95Duration: durationpb.New(f.P95),
		P99Duration: durationpb.New(f.P99),
	}
}

func lanesToProto(lanes []queue.Lane) (list []*mirrorv1.LaneStatus) {
	for _, l := range lanes {
		list = append(list, &mirrorv1.LaneStatus{
			Lane: l.Name, QueuedTasks: int64(l.Queued), RunningTasks: int64(l.Running), More: l.More,
		})
	}
	return list
}

func foreignToProto(f mirror.ForeignEvents) *mirrorv1.ForeignEvents {
	if f.Count == 0 {
		return nil
	}
	return &mirrorv1.ForeignEvents{
		LiveblocksProjectId: f.LiveblocksID, EventCount: f.Count, LastReceiveTime: timestamp(f.Time),
	}
}

func eventTypesToProto(events mirror.LastEvents) (list []*mirrorv1.EventTypeStatus) {
	for _, name := range slices.Sorted(maps.Keys(events.ByType)) {
		list = append(list, &mirrorv1.EventTypeStatus{EventType: name, LastReceiveTime: timestamp(events.ByType[name])})
	}
	return list
}

func refusedToProto(calls map[fault.Reason]int64) (list []*mirrorv1.RefusedCalls) {
	for _, reason := range slices.Sorted(maps.Keys(calls)) {
		list = append(list, &mirrorv1.RefusedCalls{
			Reason:    mirrorv1.ErrorReason(mirrorv1.ErrorReason_value["ERROR_REASON_"+string(reason)]),
			CallCount: calls[reason],
		})
	}
	return list
}

func unannouncedToProto(changes []mirror.Unannounced) (list []*mirrorv1.UnannouncedChanges) {
	for _, c := range changes {
		list = append(list, &mirrorv1.UnannouncedChanges{
			Kind: kinds[c.Kind], ChangeCount: c.Count,
			FirstFindTime: timestamp(c.FirstTime), LastFindTime: timestamp(c.LastTime),
		})
	}
	return list
}

// PinProject replaces the Liveblocks project whose events are worked.
func (a *adminService) PinProject(ctx context.Context,
	req *mirrorv1.PinProjectRequest,
) (*mirrorv1.PinProjectResponse, error) {
	project, err := a.project(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	n, err := a.Pinner.Pin(ctx, project, req.GetLiveblocksProjectId())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.PinProjectResponse{EventsTakenUp: n}, nil
}

// UnpinProject forgets the Liveblocks project whose events are worked.
func (a *adminService) UnpinProject(ctx context.Context,
	req *mirrorv1.UnpinProjectRequest,
) (*mirrorv1.UnpinProjectResponse, error) {
	project, err := a.project(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	was, err := a.Pinner.Unpin(ctx, project)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.UnpinProjectResponse{LiveblocksProjectId: was}, nil
}

// PauseProject stops calls to Liveblocks.
func (a *adminService) PauseProject(ctx context.Context,
	req *mirrorv1.PauseProjectRequest,
) (*mirrorv1.PauseProjectResponse, error) {
	if err := a.stop(ctx, req.GetProjectId(), req.GetReason()); err != nil {
		return nil, err
	}
	return &mirrorv1.PauseProjectResponse{}, nil
}

// ResumeProject lets calls to Liveblocks go on.
func (a *adminService) ResumeProject(ctx context.Context,
	req *mirrorv1.ResumeProjectRequest,
) (*mirrorv1.ResumeProjectResponse, error) {
	if err := a.stop(ctx, req.GetProjectId(), ""); err != nil {
		return nil, err
	}
	return &mirrorv1.ResumeProjectResponse{}, nil
}

func (a *adminService) stop(ctx context.Context, projectID, reason string) error {
	project, err := a.project(ctx, projectID)
	if err != nil {
		return err
	}
	return a.Stopper.Stop(ctx, project, reason)
}

// maxReplay is how many events one call replays at most.
const maxReplay = 100_000

// ReplayEvents works recorded events once more.
func (a *adminService) ReplayEvents(req *mirrorv1.ReplayEventsRequest,
	stream grpc.ServerStreamingServer[mirrorv1.ReplayEventsResponse],
) error {
	in, err := a.scope(stream.Context(), req.GetProjectId())
	if err != nil {
		return err
	}
	filters := &mirrorv1.ReplayEventsRequest{
		RoomId: req.GetRoomId(), Type: req.GetType(), UserId: req.GetUserId(), StartTime: req.GetStartTime(),
		EndTime: req.GetEndTime(),
	}
	if len(req.GetEventIds()) > 0 && (proto.Size(filters) > 0 || req.GetPageToken() != "") {
		f := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "events are named by their ids or by filters")
		f.Fields = []fault.Field{{Path: "event_ids", Problem: "exclude every filter"}}
		return f
	}
	hash, err := hashFilters(filters, in)
	if err != nil {
		return err
	}
	var after cursor
	if token := req.GetPageToken(); token != "" {
		if after, err = parseToken(token, listReplay, hash); err != nil {
			return badToken(err)
		}
	}
	replay := ledger.Replay{IDs: req.GetEventIds(), DryRun: req.GetDryRun(), Filter: store.EventFilter{
		Project: in.project, Rooms: in.rooms, Room: mirror.RoomID(req.GetRoomId()), Type: req.GetType(),
		User: req.GetUserId(), From: bound(req.GetStartTime()), To: bound(req.GetEndTime()),
		AfterTime: after.Time, AfterID: after.ID, Limit: cmp.Or(int(req.GetMaxEvents()), maxReplay),
	}}
	resp := &mirrorv1.ReplayEventsResponse{}
	var sent error
	err = a.Replayer.Replay(stream.Context(), replay, func(r ledger.Replayed) error {
		resp = &mirrorv1.ReplayEventsResponse{EventsRead: r.Read, EventsReplayed: r.Replayed, EventsSkipped: r.Skipped}
		if r.Left {
			resp.NextPageToken = formatToken(listReplay, hash, cursor{Time: r.LastTime, ID: r.LastID})
		}
		sent = stream.Send(resp)
		return sent
	})
	switch {
	case sent != nil: // gRPC's own error for the stream
		return sent
	case err != nil:
		return err
	}
	last := proto.CloneOf(resp)
	last.Done = true
	return stream.Send(last)
}

// ConfirmSecretKey states that the key in use is that of the mirrored project.
func (a *adminService) ConfirmSecretKey(ctx context.Context,
	req *mirrorv1.ConfirmSecretKeyRequest,
) (*mirrorv1.ConfirmSecretKeyResponse, error) {
	project, err := a.project(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	if err := a.Key.Confirm(ctx, project); err != nil {
		return nil, err
	}
	return &mirrorv1.ConfirmSecretKeyResponse{}, nil
}

// ConfirmDeletions states that what the lists lack is really deleted.
func (a *adminService) ConfirmDeletions(ctx context.Context,
	req *mirrorv1.ConfirmDeletionsRequest,
) (*mirrorv1.ConfirmDeletionsResponse, error) {
	project, err := a.project(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	b, err := a.Sweeper.Confirm(ctx, project, req.GetRoomsVanished(), req.GetGroupsVanished())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ConfirmDeletionsResponse{Sweep: sweepToProto(&b)}, nil
}

// ListTasks lists tasks, ordered by the bytes of the room id, then by kind.
func (a *adminService) ListTasks(ctx context.Context, req *mirrorv1.ListTasksRequest) (*mirrorv1.ListTasksResponse,
	error,
) {
	now := a.now()
	tasks, next, err := page(ctx, &a.common, req, listing[mirror.Task, *mirrorv1.Task]{
		list: listTasks,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Task, error) {
			return a.Query.TaskList(ctx, store.TaskFilter{
				Project:   in.project,
				Rooms:     in.rooms,
				Room:      mirror.RoomID(req.GetRoomId()),
				State:     wordOf(taskStates, req.GetState()),
				Now:       now,
				AfterRoom: after.Room,
				AfterKind: after.Kind,
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key: func(row *mirror.Task) cursor {
			return cursor{Room: row.Resource.Room, Kind: row.Resource.Kind, ID: row.Resource.ID}
		},
		toProto: taskToProto,
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListTasksResponse{Tasks: tasks, NextPageToken: next}, nil
}

// GetTask returns one task.
func (a *adminService) GetTask(ctx context.Context, req *mirrorv1.GetTaskRequest) (*mirrorv1.GetTaskResponse, error) {
	resource, err := a.resource(ctx, req.GetProjectId(), req.GetTaskId())
	if err != nil {
		return nil, err
	}
	task, err := a.Query.Task(ctx, resource, a.now())
	if err != nil {
		return nil, taskFault(err, req.GetTaskId())
	}
	return &mirrorv1.GetTaskResponse{Task: taskToProto(&task)}, nil
}

// RetryTask makes a task due immediately and resets its attempts.
func (a *adminService) RetryTask(ctx context.Context, req *mirrorv1.RetryTaskRequest) (*mirrorv1.RetryTaskResponse,
	error,
) {
	resource, err := a.resource(ctx, req.GetProjectId(), req.GetTaskId())
	if err != nil {
		return nil, err
	}
	task, err := a.Requester.Retry(ctx, resource)
	if err != nil {
		return nil, taskFault(err, req.GetTaskId())
	}
	return &mirrorv1.RetryTaskResponse{Task: taskToProto(&task)}, nil
}

// DiscardTask ends a task without a fetch.
func (a *adminService) DiscardTask(ctx context.Context,
	req *mirrorv1.DiscardTaskRequest,
) (*mirrorv1.DiscardTaskResponse, error) {
	resource, err := a.resource(ctx, req.GetProjectId(), req.GetTaskId())
	if err != nil {
		return nil, err
	}
	err = store.ErrNotDue // the sweep repeats
	var task mirror.Task
	if resource.Kind != mirror.KindSweep {
		task, err = a.Requester.Discard(ctx, resource)
	}
	if errors.Is(err, store.ErrNotDue) {
		return nil, fault.Wrap(err, fault.Precondition, fault.ReasonTaskNotDiscardable,
			"the task is done or is the sweep, so there is nothing to discard").With("task_id", req.GetTaskId())
	}
	if err != nil {
		return nil, taskFault(err, req.GetTaskId())
	}
	return &mirrorv1.DiscardTaskResponse{Task: taskToProto(&task)}, nil
}

// RequestSync marks a room, or one resource in it, as stale and returns the tasks.
func (a *adminService) RequestSync(ctx context.Context,
	req *mirrorv1.RequestSyncRequest,
) (*mirrorv1.RequestSyncResponse, error) {
	room, err := a.in(ctx, req.GetProjectId(), mirror.Resource{
		Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindRoom,
	})
	if err != nil {
		return nil, roomNotMirrored(err, req.GetRoomId())
	}
	resources := []mirror.Resource{room}
	if req.GetKind() != mirrorv1.ResourceKind_RESOURCE_KIND_UNSPECIFIED {
		resources[0].Kind, resources[0].ID = wordOf(kinds, req.GetKind()), req.GetResourceId()
		if !resources[0].Valid() {
			return nil, badResource("is not that of a resource of this kind in a room")
		}
	} else {
		if req.GetResourceId() != "" {
			return nil, badResource("must be given with a kind")
		}
		for _, kind := range mirror.ChildKinds() {
			resources = append(resources, mirror.Resource{Project: room.Project, Room: room.Room, Kind: kind})
		}
	}
	pending, err := a.Requester.Request(ctx, resources)
	if err != nil {
		return nil, err
	}
	resp := &mirrorv1.RequestSyncResponse{}
	for i := range pending {
		task, err := a.Query.Task(ctx, pending[i].Resource, a.now())
		if err != nil {
			return nil, err
		}
		resp.Tasks = append(resp.Tasks, taskToProto(&task))
	}
	return resp, nil
}

func badResource(problem string) error {
	f := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "there is no such resource in a room")
	f.Fields = []fault.Field{{Path: "resource_id", Problem: problem}}
	return f
}

// resource returns the resource that a task id names in a project.
func (a *adminService) resource(ctx context.Context, projectID, taskID string) (mirror.Resource, error) {
	in, err := a.scope(ctx, projectID)
	if err != nil {
		return mirror.Resource{}, err
	}
	resource, err := parseTaskID(in.project, taskID)
	if err != nil {
		f := fault.Wrap(err, fault.Invalid, fault.ReasonIDInvalid, "the task id is not valid")
		f.Fields = []fault.Field{{Path: "task_id", Problem: "must be a task_id from this service"}}
		return mirror.Resource{}, f
	}
	if !in.sees(resource.Room) {
		return mirror.Resource{}, taskFault(store.ErrNotFound, taskID)
	}
	return resource, nil
}

// taskFault classifies the store's errors about a task and returns others
// unchanged.
func taskFault(err error, taskID string) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fault.Wrap(err, fault.NotFound, fault.ReasonTaskNotFound, "there is no such task").With("task_id", taskID)
	case errors.Is(err, store.ErrNotDue):
		return fault.Wrap(err, fault.Precondition, fault.ReasonTaskNotRetryable,
			"the task is done, so there is nothing to retry").With("task_id", taskID)
	}
	return err
}

// StartBackfill starts a full sweep unless one is running.
func (a *adminService) StartBackfill(ctx context.Context,
	req *mirrorv1.StartBackfillRequest,
) (*mirrorv1.StartBackfillResponse, error) {
	project, err := a.project(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	b, err := a.Sweeper.Start(ctx, project)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.StartBackfillResponse{Sweep: sweepToProto(&b)}, nil
}

// GetBackfill returns the progress of the latest sweep.
func (a *adminService) GetBackfill(ctx context.Context,
	req *mirrorv1.GetBackfillRequest,
) (*mirrorv1.GetBackfillResponse, error) {
	project, err := a.project(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	b, err := a.Sweeper.Status(ctx, project)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.GetBackfillResponse{Sweep: sweepToProto(&b)}, nil
}

// VerifyMirror streams differences from Liveblocks, and a summary at the end.
func (a *adminService) VerifyMirror(req *mirrorv1.VerifyMirrorRequest,
	stream grpc.ServerStreamingServer[mirrorv1.VerifyMirrorResponse],
) error {
	project, err := a.project(stream.Context(), req.GetProjectId())
	if err != nil {
		return err
	}
	options := mirror.VerifyOptions{Project: project, Prefix: req.GetRoomIdPrefix(), Repair: req.GetRepair()}
	var sent error
	err = a.Verifier.Verify(stream.Context(), options, func(report mirror.VerifyReport) error {
		sent = stream.Send(reportToProto(report))
		return sent
	})
	if sent != nil { // gRPC's own error for the stream
		return sent
	}
	return err
}
