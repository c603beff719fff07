package engine_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// A read that does not see an entry yet, but one that was committed after it, returns
// neither, or a reader that follows would never see the first.
func TestChangesAfterAGapWait(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		const bucket = 7
		write := func(numbers ...int64) {
			for _, n := range numbers {
				mustExec(t, db, `insert into mirror_change
    (bucket, n, project_id, room_id, kind, resource_id, change_kind, commit_time)
values (?, ?, 'default', 'room', 1, '', 1, '2026-01-02 03:04:05')`, bucket, n)
			}
		}
		want := func(what string, after int64, limit, n int) {
			t.Helper()
			got, err := s.Changes(t.Context(), bucket, after, limit)
			if err != nil || len(got) != n || n > 0 && got[0].Number != after+1 {
				t.Errorf("Changes %s = %v, %v; want %d entries after %d", what, numbers(got), err, n, after)
			}
		}
		write(1, 2, 4, 5)
		want("before the gap", 0, 10, 2)
		want("at the gap", 2, 10, 0)
		want("after the gap", 4, 10, 1)
		write(3)
		want("without a gap", 0, 10, 5)
		want("some", 1, 3, 3)
	})
}

func numbers(changes []mirror.Change) (numbers []int64) {
	for _, c := range changes {
		numbers = append(numbers, c.Number)
	}
	return numbers
}
