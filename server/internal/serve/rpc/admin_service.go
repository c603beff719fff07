package rpc

import (
	"context"
	"errors"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

type adminService struct {
	mirrorv1.UnimplementedAdminServiceServer

	s *Services
}

// GetStatus tells how the service and its projects are doing.
func (a *adminService) GetStatus(ctx context.Context, _ *mirrorv1.GetStatusRequest) (*mirrorv1.GetStatusResponse,
	error) {
	now, err := a.s.Status.Status(ctx)
	if err != nil {
		return nil, err
	}
	resp := &mirrorv1.GetStatusResponse{
		Version:   a.s.Version,
		StartTime: timestamp(a.s.StartTime),
		Ready:     now.Ready,
		Store:     now.Engine,
		Deliveries: &mirrorv1.DeliveryCounts{
			Accepted:        now.Deliveries.Accepted,
			Duplicate:       now.Deliveries.Duplicate,
			Unauthenticated: now.Deliveries.Unauthenticated,
			Unavailable:     now.Deliveries.Unavailable,
			UnknownType:     now.Deliveries.UnknownType,
			Malformed:       now.Deliveries.Malformed,
			ForeignProject:  now.Deliveries.ForeignProject,
		},
	}
	for _, id := range a.s.Projects {
		project, err := a.s.Query.Project(ctx, id)
		if err != nil {
			return nil, err
		}
		counts, err := a.s.Query.Counts(ctx, id)
		if err != nil {
			return nil, err
		}
		sweep, err := a.s.Sweeper.Status(ctx, id)
		if err != nil {
			return nil, err
		}
		limiter := now.Limiters[id]
		if limiter.PauseReason != "" {
			project.PauseReason, project.PauseTime = limiter.PauseReason, limiter.PausedSince
		}
		resp.Projects = append(resp.Projects, &mirrorv1.ProjectStatus{
			ProjectId:           string(id),
			LiveblocksProjectId: project.LiveblocksID,
			PauseReason:         project.PauseReason,
			PauseTime:           timestamp(project.PauseTime),
			PendingTasks:        counts.Pending,
			FailedTasks:         counts.Failed,
			OldestDueTime:       timestamp(counts.OldestDue),
			CallsPerSecondLimit: limiter.CallsPerSecond,
			ThrottledUntilTime:  timestamp(limiter.ThrottledUntil),
			BackgroundTasks:     counts.Background,
			LastSweep:           showSweep(&sweep),
		})
	}
	return resp, nil
}

// ListTasks lists tasks by room id, in byte order, then by kind.
func (a *adminService) ListTasks(ctx context.Context, req *mirrorv1.ListTasksRequest) (*mirrorv1.ListTasksResponse,
	error) {
	project, err := a.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	now := a.s.Now()
	tasks, next, err := page(ctx, req, listing[mirror.Task, *mirrorv1.Task]{
		list:    listTasks,
		project: project,
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.Task, error) {
			return a.s.Query.TaskList(ctx, store.TaskFilter{
				Project:   project,
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
		show: showTask,
	}, a.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListTasksResponse{Tasks: tasks, NextPageToken: next}, nil
}

// GetTask returns one task.
func (a *adminService) GetTask(ctx context.Context, req *mirrorv1.GetTaskRequest) (*mirrorv1.GetTaskResponse, error) {
	resource, err := a.resource(req.GetProjectId(), req.GetTaskId())
	if err != nil {
		return nil, err
	}
	task, err := a.s.Query.Task(ctx, resource, a.s.Now())
	if err != nil {
		return nil, taskFault(err, req.GetTaskId())
	}
	return &mirrorv1.GetTaskResponse{Task: showTask(&task)}, nil
}

// RetryTask makes a task due at once, with all its attempts.
func (a *adminService) RetryTask(ctx context.Context, req *mirrorv1.RetryTaskRequest) (*mirrorv1.RetryTaskResponse,
	error) {
	resource, err := a.resource(req.GetProjectId(), req.GetTaskId())
	if err != nil {
		return nil, err
	}
	task, err := a.s.Requester.Retry(ctx, resource)
	if err != nil {
		return nil, taskFault(err, req.GetTaskId())
	}
	return &mirrorv1.RetryTaskResponse{Task: showTask(&task)}, nil
}

// RequestSync raises a room, or one resource in it, and returns the tasks.
func (a *adminService) RequestSync(ctx context.Context,
	req *mirrorv1.RequestSyncRequest) (*mirrorv1.RequestSyncResponse, error) {
	project, err := a.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	room := mirror.Resource{Project: project, Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindRoom}
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
			resources = append(resources, mirror.Resource{Project: project, Room: room.Room, Kind: kind})
		}
	}
	pending, err := a.s.Requester.Request(ctx, resources)
	if err != nil {
		return nil, err
	}
	resp := &mirrorv1.RequestSyncResponse{}
	for i := range pending {
		task, err := a.s.Query.Task(ctx, pending[i].Resource, a.s.Now())
		if err != nil {
			return nil, err
		}
		resp.Tasks = append(resp.Tasks, showTask(&task))
	}
	return resp, nil
}

func badResource(problem string) error {
	f := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "there is no such resource in a room")
	f.Fields = []fault.Field{{Path: "resource_id", Problem: problem}}
	return f
}

// resource returns what a task id names in a project.
func (a *adminService) resource(projectID, taskID string) (mirror.Resource, error) {
	project, err := a.s.project(projectID)
	if err != nil {
		return mirror.Resource{}, err
	}
	resource, err := parseTaskID(project, taskID)
	if err != nil {
		f := fault.Wrap(err, fault.Invalid, fault.ReasonIDInvalid, "the task id is not valid")
		f.Fields = []fault.Field{{Path: "task_id", Problem: "must be a task_id from this service"}}
		return mirror.Resource{}, f
	}
	return resource, nil
}

// taskFault classifies what the store says of a task; other errors stay.
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
