package queue

import (
	"math/rand/v2"
	"time"
)

// backoff doubles with each attempt. Half of it is random, so tasks that failed
// together do not retry together.
func (p Policy) backoff(attempts int) time.Duration {
	d := p.BackoffMin
	for range attempts {
		if d *= 2; d >= p.BackoffMax {
			d = p.BackoffMax
			break
		}
	}
	return d/2 + rand.N(d/2+1)
}
