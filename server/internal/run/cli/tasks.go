package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// Tasks are the commands about tasks.
type Tasks struct {
	List    taskList    `cmd:"" help:"List the tasks that are not done, or those in one state."`
	Show    taskShow    `cmd:"" help:"Show a task."`
	Retry   taskRetry   `cmd:"" help:"Make tasks due at once, with all their attempts."`
	Discard taskDiscard `cmd:"" help:"End tasks without a fetch. Their copies stay stale until an event or a full sweep."`
}

type taskList struct {
	Room  string `name:"room" placeholder:"ID" help:"Only tasks of this room."`
	State string `name:"state" placeholder:"STATE" help:"Only tasks in this state: pending, running, waiting, failed or done."`
	Limit int    `name:"limit" default:"50" help:"Maximum number of tasks. 0 lists all."`

	Call
}

// Run lists tasks.
func (c *taskList) Run(ctx context.Context, std Streams) error {
	state, err := enumOf("--state", mirrorv1.TaskState_TASK_STATE_UNSPECIFIED, c.State)
	if err != nil {
		return err
	}
	return within(ctx, &c.Call, std, 0, func(ctx context.Context, s *service) (*mirrorv1.ListTasksResponse, error) {
		return collect(ctx, c.Limit, func(p *mirrorv1.ListTasksResponse) int { return len(p.GetTasks()) },
			func(ctx context.Context, size int32, token string) (*mirrorv1.ListTasksResponse, error) {
				return s.ListTasks(ctx, &mirrorv1.ListTasksRequest{
					ProjectId: s.project, RoomId: c.Room, State: state, PageSize: size, PageToken: token,
				})
			})
	}, func(w io.Writer, list *mirrorv1.ListTasksResponse) {
		taskTable(w, list.GetTasks())
		more(std, list)
	})
}

func taskTable(w io.Writer, tasks []*mirrorv1.Task) {
	rows := make([][]string, len(tasks))
	for i, t := range tasks {
		rows[i] = []string{
			word(t.GetState().String(), "TASK_STATE_"), word(t.GetKind().String(), "RESOURCE_KIND_"), t.GetRoomId(),
			t.GetResourceId(), strconv.Itoa(int(t.GetAttempts())), at(cmp.Or(t.GetNotBeforeTime(), t.GetDueTime())),
			t.GetTaskId(), t.GetLastError(),
		}
	}
	table(w, "STATE | KIND | ROOM | RESOURCE | ATTEMPTS | DUE | TASK | LAST ERROR", rows)
}

func showTask(w io.Writer, t *mirrorv1.Task) {
	table(w, "TASK | "+t.GetTaskId(), [][]string{
		{"state", word(t.GetState().String(), "TASK_STATE_")},
		{"resource", describe(t.GetKind(), t.GetRoomId(), t.GetResourceId())},
		{"generation", fmt.Sprintf("%d, of which %d is mirrored", t.GetGeneration(), t.GetAppliedGeneration())},
		{"due", at(t.GetDueTime())},
		{"not before", at(t.GetNotBeforeTime())},
		{"leased until", at(t.GetLeaseUntilTime())},
		{"attempts", strconv.Itoa(int(t.GetAttempts()))},
		{"last error", t.GetLastError()},
		{"failed", at(t.GetFailTime())},
		{"fetched", at(t.GetFetchTime())},
		{"missing since", at(t.GetMissingSinceTime())},
	})
}

type taskShow struct {
	TaskID string `arg:"" name:"task-id" help:"Id of the task, as tasks list shows it."`

	Call
}

// Run shows a task.
func (c *taskShow) Run(ctx context.Context, std Streams) error {
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.GetTaskResponse, error) {
		return s.GetTask(ctx, &mirrorv1.GetTaskRequest{ProjectId: s.project, TaskId: c.TaskID})
	}, func(w io.Writer, got *mirrorv1.GetTaskResponse) { showTask(w, got.GetTask()) })
}

type taskRetry struct {
	TaskID []string `arg:"" name:"task-id" help:"Ids of the tasks."`

	Call
}

// Run retries tasks.
func (c *taskRetry) Run(ctx context.Context, std Streams) error {
	return change(ctx, &c.Call, std, c.TaskID, func(ctx context.Context, s *service, id string) (changed, error) {
		return s.RetryTask(ctx, &mirrorv1.RetryTaskRequest{ProjectId: s.project, TaskId: id})
	})
}

type taskDiscard struct {
	TaskID []string `arg:"" name:"task-id" help:"Ids of the tasks."`

	Call
}

// Run discards tasks.
func (c *taskDiscard) Run(ctx context.Context, std Streams) error {
	return change(ctx, &c.Call, std, c.TaskID, func(ctx context.Context, s *service, id string) (changed, error) {
		return s.DiscardTask(ctx, &mirrorv1.DiscardTaskRequest{ProjectId: s.project, TaskId: id})
	})
}

// changed is an answer with a task in its new state.
type changed interface {
	proto.Message
	GetTask() *mirrorv1.Task
}

// change changes tasks one after the other, until one cannot be.
func change(ctx context.Context, c *Call, std Streams, ids []string,
	call func(context.Context, *service, string) (changed, error),
) error {
	return c.run(ctx, 0, func(ctx context.Context, s *service) error {
		for _, id := range ids {
			answer, err := call(ctx, s, id)
			if err != nil {
				return err
			}
			t := answer.GetTask()
			if err := c.Print(std.Out, answer, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s is %s\n", describe(t.GetKind(), t.GetRoomId(), t.GetResourceId()),
					word(t.GetState().String(), "TASK_STATE_"))
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Resync is the command that has a room fetched.
type Resync struct {
	RoomID string `arg:"" name:"room-id" help:"Id of the room."`
	Kind   string `name:"kind" placeholder:"KIND" help:"Only this kind of resource: room, storage, ydoc, thread, active-users."`
	ID     string `name:"id" placeholder:"ID" help:"Only this thread, or the Yjs document with this guid."`

	Call
}

// Run has a room fetched.
func (c *Resync) Run(ctx context.Context, std Streams) error {
	kind, err := enumOf("--kind", mirrorv1.ResourceKind_RESOURCE_KIND_UNSPECIFIED, c.Kind)
	if err != nil {
		return err
	}
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.RequestSyncResponse, error) {
		return s.RequestSync(ctx, &mirrorv1.RequestSyncRequest{
			ProjectId: s.project, RoomId: c.RoomID, Kind: kind, ResourceId: c.ID,
		})
	}, func(w io.Writer, got *mirrorv1.RequestSyncResponse) { taskTable(w, got.GetTasks()) })
}
