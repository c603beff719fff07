package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// hangsAfter is how long a sweep makes no progress before its watcher asks why, and
	// how often it asks again.
	hangsAfter = 5 * time.Second
	// taskPages bounds the pages of tasks that are read for that.
	taskPages, taskPage = 10, 500
	// keyHint says how a pause ends.
	keyHint = "if the key is wrong, set the right one (LIVEBLOCKS_SECRET_KEY, or that of the projects file) and " +
		"restart the service"
)

// hanging says why nothing is fetched: a pause, a wait that Liveblocks asked for, or the
// task that fails; empty if nothing is known to hang.
func (s *service) hanging(ctx context.Context) string {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := s.GetStatus(callCtx, &mirrorv1.GetStatusRequest{})
	if err != nil {
		return "" // the next poll says what is wrong with the service
	}
	for _, p := range got.GetProjects() {
		if s.project != "" && p.GetProjectId() != s.project {
			continue
		}
		if p.GetPauseReason() != "" {
			line := fmt.Sprintf("fetching is paused since %s: %s", clockOf(p.GetPauseTime()), p.GetPauseReason())
			if !strings.HasPrefix(p.GetPauseReason(), mirror.StoppedByOperator) {
				line += "; " + keyHint
			}
			return line
		}
		if until := p.GetThrottledUntilTime(); until != nil {
			return fmt.Sprintf("no call to Liveblocks is made until %s: it asked for that, or is not available", clockOf(until))
		}
	}
	tasks := s.tasks(callCtx, mirrorv1.TaskState_TASK_STATE_PENDING, func(t *mirrorv1.Task) bool {
		return t.GetLastError() != ""
	})
	if len(tasks) == 0 {
		return ""
	}
	t := tasks[0]
	since := "never fetched"
	if t.GetFetchTime() != nil {
		since = "last fetched at " + clockOf(t.GetFetchTime())
	}
	line := fmt.Sprintf("waiting for %s, %s: %s", describe(t.GetKind(), t.GetRoomId(), t.GetResourceId()), since,
		t.GetLastError())
	if n := t.GetAttempts(); n > 0 {
		line += fmt.Sprintf("; failed attempts: %d", n)
	}
	if next := cmp.Or(t.GetNotBeforeTime(), t.GetDueTime()); next != nil {
		line += ", next at " + clockOf(next)
	}
	if len(tasks) > 1 {
		line += fmt.Sprintf("; %d more fail", len(tasks)-1)
	}
	return line
}

// leftOut says what a finished sweep did not bring: what failed for good, and kinds that
// Liveblocks does not have.
func (s *service) leftOut(ctx context.Context) (lines []string) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all := func(*mirrorv1.Task) bool { return true }
	if failed := s.tasks(callCtx, mirrorv1.TaskState_TASK_STATE_FAILED, all); len(failed) > 0 {
		t := failed[0]
		lines = append(lines, fmt.Sprintf("%d resources failed for good, the first at %s: %s: %s", len(failed),
			clockOf(t.GetFailTime()), describe(t.GetKind(), t.GetRoomId(), t.GetResourceId()), t.GetLastError()))
	}
	waiting := s.tasks(callCtx, mirrorv1.TaskState_TASK_STATE_WAITING, func(t *mirrorv1.Task) bool {
		return strings.HasPrefix(t.GetLastError(), unsupportedReason+":")
	})
	var kinds []mirrorv1.ResourceKind
	for _, t := range waiting {
		kinds = append(kinds, t.GetKind())
	}
	if len(kinds) > 0 {
		lines = append(lines, "not fetched: "+unsupportedKinds(kinds))
	}
	return lines
}

// unsupportedReason begins the last error of tasks whose kind Liveblocks does not have.
var unsupportedReason = strings.TrimPrefix(mirrorv1.ErrorReason_ERROR_REASON_UPSTREAM_UNSUPPORTED.String(),
	"ERROR_REASON_")

// unsupportedKinds says which kinds the Liveblocks server does not have.
func unsupportedKinds(kinds []mirrorv1.ResourceKind) string {
	var names []string
	for _, kind := range kinds {
		if name := word(kind.String(), "RESOURCE_KIND_"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return "this Liveblocks server does not support " + strings.Join(names, ", ") + " (HTTP status 501)"
}

// tasks returns the tasks in a state that a function selects, of the first pages.
func (s *service) tasks(ctx context.Context, state mirrorv1.TaskState, wanted func(*mirrorv1.Task) bool) (
	tasks []*mirrorv1.Task,
) {
	req := &mirrorv1.ListTasksRequest{ProjectId: s.project, State: state, PageSize: taskPage}
	for range taskPages {
		got, err := s.ListTasks(ctx, req)
		if err != nil {
			return tasks
		}
		for _, t := range got.GetTasks() {
			if t.GetKind() != mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP && wanted(t) {
				tasks = append(tasks, t)
			}
		}
		if req.PageToken = got.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	return tasks
}

// describe names a resource. Ids are quoted: they may contain line breaks.
func describe(kind mirrorv1.ResourceKind, room, id string) string {
	text := word(kind.String(), "RESOURCE_KIND_")
	if id != "" {
		text += fmt.Sprintf(" %q", id)
	}
	if room != "" {
		text += fmt.Sprintf(" of room %q", room)
	}
	return text
}

// word is the name of a value of an enum as people write it.
func word(s, prefix string) string { return strings.ToLower(strings.TrimPrefix(s, prefix)) }

// clockOf is a time of the near past or future, in this machine's zone.
func clockOf(t *timestamppb.Timestamp) string { return t.AsTime().Local().Format(time.TimeOnly) }
