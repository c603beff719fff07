package rpc

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Each condition leads to its paragraph, and each paragraph exists.
func TestWarnings(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	var anchors []string
	for _, heading := range regexp.MustCompile("(?m)^#+ (.*)$").FindAllSubmatch(text, -1) {
		anchors = append(anchors, strings.ReplaceAll(strings.ToLower(string(heading[1])), " ", "-"))
	}
	found := func(kind mirror.Kind, first, last time.Duration) []mirror.Unannounced {
		return []mirror.Unannounced{{Kind: kind, Count: 3, FirstTime: noon.Add(-first), LastTime: noon.Add(-last)}}
	}
	eventAt := func(age time.Duration) mirror.LastEvents { return mirror.LastEvents{Time: noon.Add(-age)} }
	for name, c := range map[string]struct {
		is   condition
		want []string // paragraphs, each with the beginning of the text
	}{
		"nothing": {condition{}, nil},
		"paused": {
			condition{project: mirror.Project{PauseReason: "refused"}, counts: store.Counts{OldestLive: noon.Add(-time.Hour)}},
			[]string{"fetching-is-paused fetching is paused: refused"},
		},
		"one type does not come": {
			condition{unannounced: found(mirror.KindYdoc, 3*time.Hour, time.Hour), events: eventAt(time.Minute)},
			[]string{"changes-without-an-event sweeps found changes of which no event has come: 3 of kind ydoc"},
		},
		"events have ceased": {
			condition{unannounced: found(mirror.KindYdoc, 3*time.Hour, time.Hour), events: eventAt(4 * time.Hour)},
			[]string{"events-do-not-arrive no event has come since 2026-"},
		},
		"events never came": {
			condition{unannounced: found(mirror.KindRoom, 3*time.Hour, time.Hour)},
			[]string{"events-do-not-arrive no event has ever come"},
		},
		"found long ago": {
			condition{unannounced: found(mirror.KindYdoc, 30*time.Hour, unannouncedShown), events: eventAt(time.Minute)}, nil,
		},
		"another project": {
			condition{project: mirror.Project{
				LiveblocksID: "lb", Foreign: mirror.ForeignEvents{LiveblocksID: "theirs", Count: 1, Time: noon},
			}},
			[]string{"events-of-another-project events of the Liveblocks project"},
		},
		"problem of a sweep": {
			condition{sweep: mirror.Sweep{Problem: "20 of 21 rooms vanished"}},
			[]string{"a-sweep-has-a-problem 20 of 21"},
		},
		"failed tasks": {
			condition{counts: store.Counts{Failed: 3}, failed: byReason([]mirror.Task{
				{LastError: "UPSTREAM_ANSWER_TOO_LARGE: too large"},
				{LastError: "odd"},
				{LastError: "UPSTREAM_ANSWER_TOO_LARGE: too large (HTTP status 200)"},
			})},
			[]string{"a-task-has-failed 3 tasks have failed: 2 UPSTREAM_ANSWER_TOO_LARGE, 1 INTERNAL"},
		},
		"behind": {
			condition{counts: store.Counts{OldestLive: noon.Add(-behind)}}, []string{"the-mirror-is-behind the task"},
		},
		"a long sweep": {condition{counts: store.Counts{OldestDue: noon.Add(-time.Hour), Background: 9}}, nil},
		"not yet late": {condition{counts: store.Counts{OldestLive: noon.Add(time.Second - behind)}}, nil},
	} {
		var got []string
		for i, w := range c.is.warnings(noon) {
			anchor, ok := strings.CutPrefix(w.GetRunbook(), Operations)
			if !ok || !slices.Contains(anchors, anchor) {
				t.Errorf("%s: OPERATIONS.md has no paragraph %s", name, w.GetRunbook())
			}
			text := anchor + " " + w.GetText()
			if i < len(c.want) && strings.HasPrefix(text, c.want[i]) {
				text = c.want[i]
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
