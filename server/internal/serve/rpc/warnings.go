package rpc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Operations is the page whose paragraphs say what to do, up to the name of a paragraph.
const Operations = "https://github.com/liveblocks-mirror/liveblocks-mirror/blob/main/docs/OPERATIONS.md#"

// The paragraphs of it that warnings lead to.
const (
	paragraphPaused      = "fetching-is-paused"
	paragraphEvents      = "events-do-not-arrive"
	paragraphUnannounced = "changes-without-an-event"
	paragraphForeign     = "events-of-another-project"
	paragraphSweep       = "a-sweep-has-a-problem"
	paragraphFailed      = "a-task-has-failed"
	paragraphBehind      = "the-mirror-is-behind"
	paragraphOld         = "old-rows-stay"
)

const (
	// behind is since when a task has to be due for a warning.
	behind = 5 * time.Minute
	// unannouncedShown is how long after the last change without an event they are a warning.
	unannouncedShown = 24 * time.Hour
	// oldBehind is how much longer than they should old rows have to stay for a warning.
	oldBehind = 24 * time.Hour
)

// condition is what the warnings of a project are made of.
type condition struct {
	project     mirror.Project
	counts      store.Counts
	failed      []*mirrorv1.FailedTasks
	sweep       mirror.Sweep
	groups      mirror.Task
	events      mirror.LastEvents
	unannounced []mirror.Unannounced
	retention   []mirror.Retention
}

// warnings returns what is wrong with a project, the most urgent first.
func (c *condition) warnings(now time.Time) (list []*mirrorv1.Warning) {
	warn := func(paragraph, text string, args ...any) {
		list = append(list, &mirrorv1.Warning{Text: fmt.Sprintf(text, args...), Runbook: Operations + paragraph})
	}
	if c.project.PauseReason != "" {
		warn(paragraphPaused, "fetching is paused: %s", c.project.PauseReason)
	}
	c.warnOfSilence(now, warn)
	for _, problem := range problems(c.project, now) {
		warn(paragraphForeign, "%s", problem)
	}
	for _, problem := range listProblems(c.groups, c.sweep) {
		warn(paragraphSweep, "%s", problem)
	}
	if c.counts.Failed > 0 {
		reasons := make([]string, len(c.failed))
		for i, f := range c.failed {
			reasons[i] = fmt.Sprintf("%d %s", f.GetTaskCount(), f.GetReason())
		}
		warn(paragraphFailed, "%d tasks have failed: %s", c.counts.Failed, strings.Join(reasons, ", "))
	}
	if due := c.counts.OldestLive; c.project.PauseReason == "" && !due.IsZero() && now.Sub(due) >= behind {
		warn(paragraphBehind, "the task that waits longest, but for those of sweeps and replays, is due since %s",
			due.UTC().Format(time.RFC3339))
	}
	for _, r := range c.retention {
		switch {
		case r.Problem != "":
			warn(paragraphOld, "old rows of %s could not be deleted: %s", r.Table, r.Problem)
		case r.Behind >= oldBehind:
			warn(paragraphOld, "old rows of %s stay for %s longer than they should", r.Table, r.Behind.Round(time.Hour))
		}
	}
	return list
}

// warnOfSilence warns of changes that no event told of: events have ceased, or those of
// some types do not come.
func (c *condition) warnOfSilence(now time.Time, warn func(paragraph, text string, args ...any)) {
	var kinds []string
	since := now
	for _, u := range c.unannounced {
		if now.Sub(u.LastTime) < unannouncedShown {
			kinds = append(kinds, fmt.Sprintf("%d of kind %s", u.Count, u.Kind))
			if u.FirstTime.Before(since) {
				since = u.FirstTime
			}
		}
	}
	switch {
	case len(kinds) == 0:
	case c.events.Time.IsZero():
		warn(paragraphEvents, "no event has ever come, but sweeps found changes: %s", strings.Join(kinds, ", "))
	case c.events.Time.Before(since):
		warn(paragraphEvents, "no event has come since %s, but sweeps found changes: %s",
			c.events.Time.UTC().Format(time.RFC3339), strings.Join(kinds, ", "))
	default:
		warn(paragraphUnannounced, "sweeps found changes of which no event has come: %s", strings.Join(kinds, ", "))
	}
}

// reasonsRead is how many failed tasks are read for their reasons.
const reasonsRead = 500

// byReason counts failed tasks by reason, the most frequent first.
func byReason(tasks []mirror.Task) (list []*mirrorv1.FailedTasks) {
	for _, t := range tasks {
		reason, _, _ := strings.Cut(t.LastError, ":")
		if _, known := mirrorv1.ErrorReason_value["ERROR_REASON_"+reason]; !known {
			reason = "INTERNAL"
		}
		at := slices.IndexFunc(list, func(f *mirrorv1.FailedTasks) bool { return f.GetReason() == reason })
		if at < 0 {
			at, list = len(list), append(list, &mirrorv1.FailedTasks{Reason: reason})
		}
		list[at].TaskCount++
	}
	slices.SortStableFunc(list, func(a, b *mirrorv1.FailedTasks) int {
		return cmp.Compare(b.GetTaskCount(), a.GetTaskCount())
	})
	return list
}
