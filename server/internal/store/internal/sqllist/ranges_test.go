package sqllist

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"
)

type item struct {
	at time.Time
	id string
}

// A list of many ranges takes as much memory as a page and what is read of one range.
func TestLatestOfHoldsOnePage(t *testing.T) {
	t.Parallel()
	const limit, parts = 10, 50
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var read []weak.Pointer[item]
	names := make([]int, parts)
	for i := range names {
		names[i] = i
	}
	got, err := latestOf(names, limit, func(e **item) (time.Time, string) { return (*e).at, (*e).id },
		func(part int) (rows []*item, _ error) {
			runtime.GC()
			held := 0
			for _, p := range read {
				if p.Value() != nil {
					held++
				}
			}
			if held > 2*limit {
				t.Errorf("%d rows are held before part %d is read; want a page", held, part)
			}
			for i := range limit {
				row := &item{start.Add(-time.Duration(i*parts+part) * time.Second), fmt.Sprint(part)}
				rows, read = append(rows, row), append(read, weak.Make(row))
			}
			return rows, nil
		})
	if err != nil || len(got) != limit {
		t.Fatalf("latestOf = %d rows, %v; want %d", len(got), err, limit)
	}
	for i, row := range got {
		if row.id != fmt.Sprint(i) {
			t.Errorf("row %d is of part %s; want the latest of all", i, row.id)
		}
	}
}
