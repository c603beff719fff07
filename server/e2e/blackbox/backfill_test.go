package blackbox_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

const (
	// backfillRooms are listed on twenty pages, and bring four fetches each.
	backfillRooms = 2000
	perRoom       = 4
	// backfillRate is the set limit of calls a second; a burst of one is allowed.
	backfillRate = 400
	// backfillPatience is several times what the limit allows it to take.
	backfillPatience = 5 * time.Minute
)

// freeAddr is an address that no other process gets until the end of the test, for a service
// that has to come back at the same one.
func freeAddr(t *testing.T) string {
	t.Helper()
	return mysqltest.ReserveAddr(t)
}

// resident is the memory of a process in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(mustRead(t, fmt.Sprintf("/proc/%d/status", pid)))
	if m == nil {
		t.Fatal("no VmRSS")
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// TestBackfill brings 2,000 rooms that were there before, through a kill, beside live
// work, at the set rate and in flat memory.
func TestBackfill(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		rooms := numbered("room-", backfillRooms)
		populate(t, upstream, rooms...)
		fetched := func() int {
			return upstream.Calls("", fake.EndpointRoom) + upstream.Calls("", fake.EndpointStorage) +
				upstream.Calls("", fake.EndpointYdoc) + upstream.Calls("", fake.EndpointThreads)
		}
		// The kill comes while page 13 is on its way.
		hold := fake.NewHold()
		upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms, Page: 13}, hold.Step())

		o := harness.Options{DatabaseURL: e.Database(t), UpstreamURL: upstream.URL, Env: map[string]string{
			"MIRROR_SWEEP_INTERVAL": "1h", "MIRROR_FULL_SWEEP_INTERVAL": "24h", "MIRROR_GRPC_ADDR": freeAddr(t),
			// The new process waits for the leases of the one that is killed, and renews its own in
			// time, also on a machine that does much else.
			"MIRROR_LEASE_TTL":                   "10s",
			"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND": strconv.Itoa(backfillRate), "MIRROR_WORKERS": "8", "MIRROR_MIGRATE": "",
			"MIRROR_FETCHES":                 "16",
			"MIRROR_LIVEBLOCKS_CALL_TIMEOUT": "5m",
			// A query for due work also finds what is live. If one came soon, the room would be
			// fetched soon even if webhooks had no priority.
			"MIRROR_BUSY_POLL": "30s",
		}}
		s := harness.Start(t, o)

		// The command sees all of it, the restart included.
		ctx, cancel := context.WithTimeout(t.Context(), 2*backfillPatience)
		defer cancel()
		watch := harness.Command(ctx, t, map[string]string{"MIRROR_SERVER": s.GRPCAddr}, "backfill")
		var told terminal
		watch.Stdout, watch.Stderr = &told, &told
		if err := watch.Start(); err != nil {
			t.Fatal(err)
		}

		await := func(want int) {
			t.Helper()
			harness.Eventually(t, backfillPatience, func() error {
				if n := fetched(); n < want {
					return fmt.Errorf("fetches = %d; want %d", n, want)
				}
				return nil
			})
		}
		await(backfillRooms * perRoom / 4)
		liveFirst(t, s, upstream, "live before the kill")
		select {
		case <-hold.Arrived():
		case <-time.After(backfillPatience):
			t.Fatal("page 13 of the rooms is not asked for")
		}
		await(backfillRooms * perRoom / 3)
		harness.Eventually(t, patience, func() error { // only a command that was answered waits for the restart
			if text := told.String(); !strings.Contains(text, "fetched (") {
				return fmt.Errorf("backfill told %q; want it to have seen the service", text)
			}
			return nil
		})
		s.Kill()
		atKill, pagesAtKill := fetched(), upstream.Calls("", fake.EndpointListRooms)
		hold.Release()
		harness.Eventually(t, patience, func() error {
			if text := told.String(); !strings.Contains(text, "the service does not respond") {
				return fmt.Errorf("backfill told %q; want it to notice that the service is away", text)
			}
			return nil
		})

		s = harness.Start(t, o)
		await(backfillRooms * perRoom * 6 / 10)
		early := resident(t, s.Pid())
		liveFirst(t, s, upstream, "live after the restart")
		admin := s.Admin(t)
		harness.Eventually(t, backfillPatience, func() error {
			if sweep := sweepOf(t, admin); sweep.GetEndTime() == nil || sweep.GetResourcesPending() > 0 {
				return fmt.Errorf("sweep = %v; want it done", sweep)
			}
			return nil
		})
		late := resident(t, s.Pid())
		awaitCommand(t, watch, &told)

		// Not from the beginning: what was done before the kill was not done again.
		const inFlight = 16 + 8 // calls, and results in the hands of workers
		again := 0
		for _, room := range rooms {
			calls := 0
			for _, endpoint := range []fake.Endpoint{
				fake.EndpointRoom, fake.EndpointStorage, fake.EndpointYdoc, fake.EndpointThreads,
			} {
				calls += upstream.Calls(room, endpoint)
			}
			if calls < perRoom {
				t.Fatalf("calls for room %s = %d; want %d at least", room, calls, perRoom)
			}
			again += calls - perRoom
		}
		pages := upstream.Calls("", fake.EndpointListRooms)
		if again > inFlight || pages > backfillRooms/100+1 {
			t.Errorf("after a kill at %d fetches and %d pages, %d fetches were made again and %d pages read; want at most "+
				"%d and %d",
				atKill, pagesAtKill, again, pages, inFlight, backfillRooms/100+1)
		}
		db := e.Connect(t, o.DatabaseURL)
		if n := count(t, db, "select count(*) from mirror_document d join mirror_room r on r.bucket = d.bucket and "+
			"r.project_id = d.project_id and r.room_id = d.room_id and r.epoch = d.epoch "+
			"where r.delete_time is null"); n != 2*(backfillRooms+2) {
			t.Errorf("documents = %d; want two of each room", n)
		}
		if sweep := latestSweep(t, s); sweep.GetRoomsListed() < backfillRooms ||
			sweep.GetRoomsListed() > backfillRooms+100 || !sweep.GetFull() || sweep.GetProblem() != "" {
			t.Errorf("sweep = %v; want a full one of %d rooms without a problem", sweep, backfillRooms)
		}
		if late > early+early/2+32<<20 {
			t.Errorf("resident memory = %d MB early and %d MB at the end; want it flat", early>>20, late>>20)
		}
		const seconds = 5 // in a single one, calls that were held up on the way come with others
		rate := busiest(upstream.Log(), seconds*time.Second) / seconds
		if rate > backfillRate*105/100 {
			t.Errorf("calls a second in the busiest %d = %d; want the set limit of %d", seconds, rate, backfillRate)
		}
		t.Logf("busiest seconds: %d calls of %d; fetched again after the kill: %d; memory: %d MB, then %d MB", rate,
			backfillRate, again, early>>20, late>>20)
	})
}

// liveFirst tells of a new room and checks that it goes before what is done in the
// background.
func liveFirst(t *testing.T, s *harness.Service, upstream *harness.Fake, room string) {
	t.Helper()
	if err := upstream.CreateRoom(room, fake.RoomOptions{Storage: storage(`"live"`)}); err != nil {
		t.Fatal(err)
	}
	// The order of the calls tells. All others are answered slowly meanwhile, so that few can begin
	// until the room is claimed. There are so many that behind them the room would not be mirrored
	// in time.
	upstream.SetDelay(func(c fake.Call) fake.Delay {
		if c.Room == room || c.Endpoint == fake.EndpointListRooms { // a page that is held must get there
			return fake.Delay{}
		}
		return fake.Delay{Before: time.Second}
	})
	begin := time.Now()
	tell(t, s, fake.RoomCreated, room)
	acknowledged := time.Now()
	awaitStorage(t, s, room, storage(`"live"`))
	mirrored := time.Now()
	upstream.SetDelay(nil)

	// Each of the eight workers may have been at something, and eight more may have
	// been let through the limiter; then comes the room, and then its document.
	before := 0
	for _, c := range upstream.Log() {
		if c.Room == room && c.Endpoint == fake.EndpointStorage {
			break
		}
		if c.Begin.After(acknowledged) && c.Room != room {
			before++
		}
	}
	if before > 64 {
		t.Errorf("background fetches between the webhook of %q and its document = %d; want no more than were under way",
			room, before)
	}
	t.Logf("%s: acknowledged in %s, mirrored %s after that, behind %d other calls", room, acknowledged.Sub(begin),
		mirrored.Sub(acknowledged), before)
}

// busiest is the most calls that began within any time of a length.
func busiest(calls []fake.Call, length time.Duration) (most int) {
	slices.SortFunc(calls, func(a, b fake.Call) int { return a.Begin.Compare(b.Begin) })
	first := 0
	for i, c := range calls {
		for c.Begin.Sub(calls[first].Begin) >= length {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// terminal keeps what a running command writes.
type terminal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *terminal) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *terminal) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// awaitCommand waits until the backfill command has ended, and checks what it told.
func awaitCommand(t *testing.T, cmd *exec.Cmd, told *terminal) {
	t.Helper()
	err := cmd.Wait()
	text := told.String()
	if code := exitCode(err); code != 0 {
		t.Errorf("backfill ended with %d: %s", code, text)
	}
	for _, want := range []string{"fetched (", "listing rooms", "per second", " left", "done: "} {
		if !strings.Contains(text, want) {
			t.Errorf("backfill told %q; want %q in it", text, want)
		}
	}
	if strings.Contains(text, "\r") {
		t.Error("backfill draws where there is no terminal")
	}
}
