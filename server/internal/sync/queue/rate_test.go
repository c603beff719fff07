package queue

import (
	"testing"
	"time"
)

// The rate counts what was done in the background, and nothing else.
func TestBackgroundRate(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		all := resources(200)
		b.background(all[:100]...)
		b.background(sweep)
		pool, _ := b.start(b.taking(100*time.Millisecond), func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		pass(5 * time.Second)
		b.due(pool, all[100:]...) // goes first
		pass(10 * time.Second)
		if got := pool.BackgroundRate(); got < 3 || got > 4 {
			b.Fatalf("rate = %v; want 50 in 15 s", got)
		}
		pass(5 * time.Second)
		b.wantDone(all...)
		pass(time.Minute)
		if got := pool.BackgroundRate(); got != 0 {
			b.Fatalf("rate after a minute of nothing = %v; want 0", got)
		}
	})
}
