package queue

import (
	"sync"
	"time"
)

// rateWindow is the number of seconds over which a rate is measured.
const rateWindow = 20

// rate counts completions in the last seconds.
type rate struct {
	mu     sync.Mutex
	second [rateWindow]int64 // Unix time
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

// perSecond returns the rate over the completed seconds of the window, or since the
// first completion.
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
