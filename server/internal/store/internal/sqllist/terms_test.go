package sqllist

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// place is a key by its number.
type place int

func (p place) compare(other place) int { return int(p - other) }
func (place) end() place                { return 1 << 40 }

// Two common properties that no row has together are read for as long as one statement may
// take.
func TestListsByTermsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 10 * time.Second
		r := NewReader(Dialect{}, nil, func(_ context.Context, err error) error { return err }, nil, limit)
		begun := time.Now()
		_, err := byTerms(t.Context(), r, "list rooms", 20, 0, rangeOf[place](nil, 1),
			func(ctx context.Context, after place, most int) ([]keyRange[place], error) {
				err := clock.Sleep(ctx, 100*time.Millisecond)
				odd, even := make([]place, most), make([]place, most)
				for i := range most {
					odd[i], even[i] = after+place(2*i+1), after+place(2*i+2)
				}
				return []keyRange[place]{rangeOf(odd, most), rangeOf(even, most)}, err
			},
			func(context.Context, []place) ([]place, error) { return nil, nil })
		if took := time.Since(begun); fault.Of(err).Kind != fault.Unavailable || took < limit || took > limit+time.Second {
			t.Fatalf("byTerms = %v after %v; want it unavailable after %v", err, took, limit)
		}
	})
}

// Where a list shows none of the rows that it looks at, it soon looks at many at once.
func TestListsByTermsLookAtMoreRows(t *testing.T) {
	t.Parallel()
	const all = 5000
	r := NewReader(Dialect{}, nil, func(_ context.Context, err error) error { return err }, nil, 0)
	looks, looked := 0, 0
	page, err := byTerms(t.Context(), r, "list rooms", 20, 0, rangeOf[place](nil, 1),
		func(_ context.Context, after place, most int) ([]keyRange[place], error) {
			var keys []place
			for k := after + 1; k <= all && len(keys) < most; k++ {
				keys = append(keys, k)
			}
			return []keyRange[place]{rangeOf(keys, most)}, nil
		},
		func(_ context.Context, keys []place) (shown []place, _ error) {
			looks, looked = looks+1, looked+len(keys)
			return shown, nil
		})
	if err != nil || len(page) != 0 || looked != all || looks > 2*all/maxKeys {
		t.Fatalf("byTerms = %v, %v with %d looks at %d rows; want at most %d looks at all", page, err, looks, looked,
			2*all/maxKeys)
	}
}

// Rows that are not indexed are looked at for every page, many at once.
func TestListsByTermsLookBeside(t *testing.T) {
	t.Parallel()
	r := NewReader(Dialect{}, nil, func(_ context.Context, err error) error { return err }, nil, 0)
	for beside, most := range map[int]int{1: 1, 20: 1, 100: 3, 1000: 4, manyMatches: 10} {
		keys := make([]place, beside)
		for i := range keys {
			keys[i] = place(i + 1)
		}
		looks, looked := 0, 0
		page, err := byTerms(t.Context(), r, "list rooms", 20, 0, rangeOf(keys, beside+1),
			func(context.Context, place, int) ([]keyRange[place], error) {
				return []keyRange[place]{rangeOf[place](nil, 1)}, nil
			},
			func(_ context.Context, keys []place) ([]place, error) {
				looks, looked = looks+1, looked+len(keys)
				return nil, nil
			})
		if err != nil || len(page) != 0 || looked != beside || looks > most {
			t.Errorf("a page beside %d rows = %v, %v with %d looks at %d rows; want at most %d looks at all", beside, page, err,
				looks, looked, most)
		}
	}
}
