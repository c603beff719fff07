package queue

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Liveblocks takes 100 calls a second of a service that does not know that. All of 1,000
// rooms are fresh within half as long again as that requires, and few calls are refused.
// Hardly any is spent on what is fresh already: only what has waited for ten seconds for
// its settle fetch may come before what was refused.
func TestLiveblocksTakesFewerCalls(t *testing.T) {
	t.Parallel()
	const rooms, perSecond, settle = 1000, 100, 2 * time.Second
	bubble(t, func(b *bench) {
		upstream := fake.New("sk_test_outage")
		client := b.client(&inMemory{h: upstream}, 200)
		b.Cleanup(client.Close)
		for i := range rooms {
			if err := upstream.CreateRoom(string(resource(i).Room), fake.RoomOptions{}); err != nil {
				b.Fatal(err)
			}
		}
		upstream.SetDelay(func(fake.Call) fake.Delay { return fake.Delay{After: 50 * time.Millisecond} })
		upstream.SetRateLimit(perSecond, perSecond/10+1)
		stale, settling, last := rooms, 0, time.Time{}
		fetch := func(ctx context.Context, lease mirror.Lease) (Apply, error) {
			begun, news := time.Now(), lease.Generation > lease.Applied
			_, err := client.Storage(ctx, lease.Resource.Room)
			return func(_ context.Context, lease mirror.Lease) (mirror.Applied, error) {
				b.tasks.mu.Lock()
				defer b.tasks.mu.Unlock()
				if news {
					stale--
					last = time.Now()
				} else if stale > 0 {
					settling++
				}
				return b.tasks.write(lease, func(s store.State) store.State {
					s.Settle = news
					return s.Succeed(lease, begun, time.Now(), settle)
				})
			}, err
		}
		pool := New(b.config(func(c *Config) {
			c.Limiter, c.Fetches, c.Workers, c.LeaseTTL = client, 64, 8, 6*time.Second
		}))
		b.run(pool, map[mirror.Kind]Handler{mirror.KindStorage: fetch})
		begun, calls := time.Now(), upstream.Calls("", "")
		for i := range rooms {
			b.due(pool, resource(i))
			pass(3 * time.Second / rooms)
		}
		pass(time.Minute)
		b.wantDone(resources(rooms)...)
		refused := 0
		for _, c := range upstream.Log() {
			if c.Status == http.StatusTooManyRequests {
				refused++
			}
		}
		took, most := last.Sub(begun), rooms*time.Second/perSecond*3/2
		b.Logf("fresh after %v, %d settle fetches before, %d of %d calls refused", took, settling, refused,
			upstream.Calls("", "")-calls)
		if stale != 0 || took > most {
			b.Errorf("all but %d rooms are fresh after %v; want all after at most %v", stale, took, most)
		}
		if settling > rooms/20 {
			b.Errorf("%d settle fetches were made before all was fresh; want hardly any", settling)
		}
		if refused*50 > rooms {
			b.Errorf("%d calls were refused; want at most one in 50", refused)
		}
	})
}
