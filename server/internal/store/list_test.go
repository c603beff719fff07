package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// slowMirror takes a time for each transaction and remembers when each began.
type slowMirror struct {
	store.Mirror
	took   time.Duration
	begun  []time.Time
	pieces [][]store.Item
	marked []int
	parts  int // of a long item that are still to be written
}

func (m *slowMirror) transaction(ctx context.Context) error {
	m.begun = append(m.begun, time.Now())
	return clock.Sleep(ctx, m.took)
}

func (m *slowMirror) KnownItems(context.Context, mirror.Resource) (map[string]store.Known, error) {
	return nil, nil
}

func (m *slowMirror) AddItems(ctx context.Context, _ mirror.Lease, items []store.Item, _, _ time.Time) (
	[]mirror.Change, error,
) {
	m.pieces = append(m.pieces, items)
	return make([]mirror.Change, len(items)), m.transaction(ctx)
}

func (m *slowMirror) MarkListed(ctx context.Context, _ mirror.Lease, stale []store.Stale) error {
	m.marked = append(m.marked, len(stale))
	return m.transaction(ctx)
}

func (m *slowMirror) ApplyListed(
	ctx context.Context, _ mirror.Lease, _ time.Time, stale []store.Stale, _ time.Time, _ time.Duration,
) (mirror.Applied, error) {
	m.marked = append(m.marked, len(stale))
	return mirror.Applied{}, m.transaction(ctx)
}

func (m *slowMirror) PrepareItem(ctx context.Context, _ mirror.Lease, _ *store.Item) (bool, error) {
	m.parts--
	return m.parts > 0, m.transaction(ctx)
}

func (m *slowMirror) ApplyItem(
	ctx context.Context, _ mirror.Lease, _ store.Item, _, _ time.Time, _ time.Duration,
) (mirror.Applied, error) {
	return mirror.Applied{}, m.transaction(ctx)
}

// checkPauses checks that each transaction but the last began as long after the one
// before as that took, but at most a second.
func (m *slowMirror) checkPauses(t *testing.T) {
	t.Helper()
	for i := 1; i < len(m.begun); i++ {
		want := m.took
		if i < len(m.begun)-1 {
			want += min(m.took, time.Second)
		}
		if got := m.begun[i].Sub(m.begun[i-1]); got != want {
			t.Errorf("transaction %d of %d began %s after the one before; want %s", i, len(m.begun), got, want)
		}
	}
}

// threadOfRows is a thread with so many rows beside its head.
func threadOfRows(id string, n int) mirror.Thread {
	t := mirror.Thread{ID: id, Source: []byte("{}")}
	for i := range n {
		t.Comments = append(t.Comments, mirror.Comment{ID: fmt.Sprintf("cm_%05d", i)})
	}
	return t
}

var listLease = mirror.Lease{Epoch: 1, Resource: mirror.Resource{Project: "p", Room: "room", Kind: mirror.KindThread}}

func applyListTo(ctx context.Context, m store.Mirror, threads, rows, unreadable int) (mirror.Applied, error) {
	list := mirror.List{}
	for i := range threads + unreadable {
		item := mirror.Listed{ID: fmt.Sprintf("th_%05d", i)}
		if i < threads {
			item.Source = []byte(item.ID)
		}
		list.Items = append(list.Items, item)
	}
	return store.ApplyList(ctx, m, listLease, list, func(source []byte) (store.Item, error) {
		return store.ThreadItem(threadOfRows(string(source), rows)), nil
	}, time.Now, 0)
}

// A list is written in small transactions, and in half of the time nothing is.
func TestListLeavesTimeToOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		took                      time.Duration
		threads, rows, unreadable int
		pieces, marks             int
	}{
		"threads":                 {10 * time.Millisecond, 300, 30, 0, 100, 1},
		"threads of few rows":     {10 * time.Millisecond, 1000, 1, 0, 40, 1},
		"threads of many rows":    {10 * time.Millisecond, 10, 700, 0, 10, 1},
		"a transaction is locked": {time.Minute, 15, 30, 0, 5, 1},
		"marks":                   {10 * time.Millisecond, 0, 0, 220, 0, 3},
		"one piece":               {10 * time.Millisecond, 3, 30, 0, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &slowMirror{took: c.took}
				if _, err := applyListTo(t.Context(), m, c.threads, c.rows, c.unreadable); err != nil {
					t.Fatalf("ApplyList = %v", err)
				}
				if len(m.pieces) != c.pieces || len(m.marked) != c.marks {
					t.Errorf("%d transactions with threads, %d with marks; want %d, %d", len(m.pieces), len(m.marked), c.pieces,
						c.marks)
				}
				m.checkPauses(t)
			})
		})
	}
}

func TestLongItemLeavesTimeToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &slowMirror{took: 10 * time.Millisecond, parts: 3}
		item := store.ThreadItem(threadOfRows("th", 4*store.PieceRows))
		if _, err := store.WriteItem(t.Context(), m, listLease, item, time.Now(), time.Now, 0); err != nil {
			t.Fatalf("WriteItem = %v", err)
		}
		if len(m.begun) != 4 {
			t.Errorf("%d transactions; want 4", len(m.begun))
		}
		m.checkPauses(t)
	})
}

// A pause ends with the task.
func TestPauseEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &slowMirror{took: 100 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := applyListTo(ctx, m, 1000, 30, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ApplyList = %v; want %v", err, context.DeadlineExceeded)
		}
		if took := time.Since(begin); took != 150*time.Millisecond || len(m.begun) != 1 {
			t.Errorf("ApplyList took %s and %d transactions; want 150ms and 1", took, len(m.begun))
		}
	})
}
