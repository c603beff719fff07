package reconcile_test

import (
	"fmt"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// A list of threads that exceeds the size limit fails nothing: beyond the limit each
// thread is fetched by itself, and once all are known, the list asks for nothing.
func TestListBeyondTheLimit(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const threads = 30
		b := newBench(t, e)
		b.create("r", lson("1"))
		for i := range threads {
			b.startThread("r", fmt.Sprintf("th_%02d", i))
		}
		r := b.start(func(p *parts) { p.client.MaxBody = 5000 })
		b.deliver(r, event(fake.RoomCreated, "r"))
		b.quiet()
		for i := range threads {
			b.wantThread("r", fmt.Sprintf("th_%02d", i))
		}
		single := b.upstream.Calls("r", fake.EndpointThread)
		if single == 0 || single >= threads {
			t.Fatalf("%d of %d threads were fetched by themselves; want those beyond the limit", single, threads)
		}
		b.refresh(r, threadOf("r", ""))
		b.quiet()
		if n := b.upstream.Calls("r", fake.EndpointThread); n != single {
			t.Errorf("the list again costs %d fetches of threads; want none", n-single)
		}
	})
}
