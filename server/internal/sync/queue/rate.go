package queue

import (
	"sync"
	"time"
)

// rateWindow is over how many seconds a rate is taken.
const rateWindow = 20

// rate counts what was done in the last seconds.
type rate struct {
	mu     sync.Mutex
	second [rateWindow]int64 // which second, since 1970
	counts [rateWindow]int64
}

func (r *rate) count(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := now.Unix()
	i := t % rateWindow
	if r.second[i] != t {
		r.second[i], r.counts[i] = t, 0
	}
	r.counts[i]++
}

// perSecond is the rate over the window's seconds that are over, or over those
// since the first.
func (r *rate) perSecond(now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := now.Unix()
	total, oldest := int64(0), t
	for i, second := range r.second {
		if second < t && second > t-rateWindow {
			total += r.counts[i]
			oldest = min(oldest, second)
		}
	}
	if total == 0 {
		return 0
	}
	return float64(total) / float64(t-oldest)
}
