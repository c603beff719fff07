package blackbox_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// senders is how many connections deliver at once.
const senders = 32

// grace is what the harness gives the service to stop in.
const grace = 10 * time.Second

// attempt is one delivery and what became of it.
type attempt struct {
	id      string
	written time.Time // when the request was out, zero if it never was
	status  int       // zero if there was no answer
	err     error
}

// post delivers d and tells when the request was out.
func post(ctx context.Context, c *http.Client, url string, d harness.Delivery) attempt {
	a := attempt{id: d.ID}
	var written atomic.Pointer[time.Time] // the trace may call after the answer
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		if now := time.Now(); info.Err == nil {
			written.Store(&now)
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(d.Body))
	if err != nil {
		a.err = err
		return a
	}
	req.Header = d.Header
	resp, err := c.Do(req)
	if w := written.Load(); w != nil {
		a.written = *w
	}
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	a.status = resp.StatusCode
	_, a.err = io.Copy(io.Discard, resp.Body)
	return a
}

// Told to stop under load, the service loses nothing it has acknowledged and answers
// what had reached it. What it can do nothing about is a request that is written to an
// idle connection in the instant it is closed: a sender that gets no answer for one of
// those, as for one it sends later, tries again.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, upstream := startOn(t, url, nil)
		for n := range 8 {
			if err := upstream.CreateRoom(fmt.Sprint("room ", n), fake.RoomOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		transport := &http.Transport{MaxIdleConnsPerHost: senders}
		defer transport.CloseIdleConnections()
		c := &http.Client{Transport: transport, Timeout: patience}

		var acknowledged atomic.Int64
		results := make(chan []attempt, senders)
		for n := range senders {
			go func() { // ends with the service; collected below
				var mine []attempt
				for i := 0; ; i++ {
					ev := fake.Event{Type: fake.StorageUpdated, RoomID: fmt.Sprint("room ", (n+i)%8), Time: time.Now()}
					a := post(t.Context(), c, s.URL("/api/liveblocks-webhook"), harness.SignEvent(t, ev))
					mine = append(mine, a)
					if a.status == http.StatusOK {
						acknowledged.Add(1)
					}
					if a.err != nil {
						results <- mine
						return
					}
				}
			}()
		}
		harness.Eventually(t, patience, func() error {
			if n := acknowledged.Load(); n < 20*senders {
				return fmt.Errorf("%d deliveries are acknowledged", n)
			}
			return nil
		})
		told := time.Now()
		took, err := s.Stop(t)
		if err != nil || took > grace {
			t.Errorf("stopped after %s with %v; want exit code 0 within %s", took, err, grace)
		}

		recorded := make(map[string]bool)
		err = e.Connect(t, url).Each(t.Context(), "select event_id from mirror_event",
			func(scan func(dest ...any) error) error {
				var id string
				err := scan(&id)
				recorded[id] = true
				return err
			})
		if err != nil {
			t.Fatal(err)
		}
		statuses := make(map[int]int)
		for range senders {
			for _, a := range <-results {
				statuses[a.status]++
				switch {
				case a.status == http.StatusOK && !recorded[a.id]:
					t.Errorf("delivery %s was acknowledged and is not recorded", a.id)
				case a.status != 0 && a.status != http.StatusOK && a.status != http.StatusServiceUnavailable:
					t.Errorf("delivery %s was answered %d; want 200 or 503", a.id, a.status)
				case a.status == 0 && !a.written.IsZero() && told.Sub(a.written) > time.Second:
					t.Errorf("delivery %s was sent %s before the service was told to stop and never answered: %v", a.id,
						told.Sub(a.written), a.err)
				}
			}
		}
		t.Logf("stopped in %s; answers by status, 0 for none: %v; %d events recorded", took, statuses, len(recorded))

		// What was recorded and not yet fetched is not lost either.
		again := harness.Start(t, harness.Options{
			DatabaseURL: url, UpstreamURL: upstream.URL,
			Env: map[string]string{"MIRROR_MIGRATE": ""},
		})
		awaitIdle(t, again)
	})
}

// Calls that are under way when the service is told to stop are finished: here each
// waits in the service for an answer of Liveblocks that comes after the signal.
func TestStopFinishesCalls(t *testing.T) {
	t.Parallel()
	for range 3 {
		if stopFinishesCalls(t) {
			return
		}
	}
	t.Fatal("three times, the calls had too little time left to be finished; want them to have half of it")
}

// stopFinishesCalls reports false if it has shown nothing: the service gives each call 10 s,
// also when it does not stop, and on a slow machine less than half of it was left when
// Liveblocks answered.
func stopFinishesCalls(t *testing.T) bool {
	t.Helper()
	const callTime = 10 * time.Second
	const grace = time.Minute // half of it is for the calls, which is more than each of them has
	s, upstream := start(t, map[string]string{
		"MIRROR_ACK": "synced", "MIRROR_WORKERS": "64", "MIRROR_STOP_GRACE": grace.String(),
	})
	hold := fake.NewHold()
	t.Cleanup(hold.Release)
	upstream.Script(fake.Match{Endpoint: fake.EndpointRoom}, hold.Step().Always())
	for n := range senders {
		if err := upstream.CreateRoom(fmt.Sprint("room ", n), fake.RoomOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: senders}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: patience}
	results := make(chan attempt, senders)
	begun := time.Now()
	for n := range senders {
		ev := fake.Event{Type: fake.RoomCreated, RoomID: fmt.Sprint("room ", n), Time: time.Now()}
		d := harness.SignEvent(t, ev)
		go func() { results <- post(t.Context(), c, s.URL("/api/liveblocks-webhook"), d) }() // collected below
	}
	read := make(chan error, 1)
	for range senders {
		select {
		case <-hold.Arrived():
		case <-time.After(patience):
			t.Fatal("not all deliveries are being fetched")
		}
	}
	mirror := s.Mirror(t)
	go func() { // a gRPC call that waits for a fetch as well; collected below
		_, err := mirror.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{
			RoomId: "room 0", MaxAge: durationpb.New(0),
			RequireFresh: true,
		})
		read <- err
	}()
	admin := s.Admin(t)
	harness.Eventually(t, patience, func() error {
		resp, err := admin.ListTasks(t.Context(), &mirrorv1.ListTasksRequest{RoomId: "room 0"})
		if err != nil {
			return err
		}
		for _, task := range resp.GetTasks() {
			if task.GetKind() == mirrorv1.ResourceKind_RESOURCE_KIND_ROOM && task.GetGeneration() > 1 {
				return nil
			}
		}
		return fmt.Errorf("the gRPC call has asked for no fetch yet: %v", resp.GetTasks())
	})

	stopped := make(chan struct{})
	var took time.Duration
	var err error
	go func() { defer close(stopped); took, err = s.Stop(t) }() // awaited below
	// The door is shut, which shows that the signal has arrived, and nobody was thrown out.
	harness.Eventually(t, patience, func() error {
		a := post(t.Context(), &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
			s.URL("/healthz"), harness.Delivery{})
		if a.err == nil {
			return fmt.Errorf("a new connection is still served: %d", a.status)
		}
		return nil
	})
	ended := len(results)
	inTime := time.Since(begun) < callTime/2
	if ended > 0 && inTime {
		t.Fatalf("a call was ended by the signal: %+v", <-results)
	}
	hold.Release()
	for range senders {
		if a := <-results; inTime && (a.err != nil || a.status != http.StatusOK) {
			t.Errorf("delivery under way at the signal ended with %d, %v; want 200", a.status, a.err)
		}
	}
	if err := <-read; inTime && err != nil {
		t.Errorf("gRPC call under way at the signal = %v", err)
	}
	<-stopped
	if err != nil || took > grace {
		t.Errorf("stopped after %s with %v; want exit code 0 within %s", took, err, grace)
	}
	return inTime
}

// A call that cannot end by itself does not keep the service from stopping in time.
func TestStopCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, map[string]string{"MIRROR_ACK": "synced", "MIRROR_STOP_GRACE": "3s"})
	hold := fake.NewHold()
	t.Cleanup(hold.Release)
	upstream.Script(fake.Match{Endpoint: fake.EndpointRoom}, hold.Step().Always())
	if err := upstream.CreateRoom("stuck", fake.RoomOptions{}); err != nil {
		t.Fatal(err)
	}
	d := harness.SignEvent(t, fake.Event{Type: fake.RoomCreated, RoomID: "stuck", Time: time.Now()})
	ended := make(chan attempt, 1)
	go func() { ended <- post(t.Context(), client, s.URL("/api/liveblocks-webhook"), d) }() // collected below
	<-hold.Arrived()
	took, err := s.Stop(t)
	if err != nil || took > 3*time.Second+5*time.Second {
		t.Errorf("stopped after %s with %v; want exit code 0 in about 3 s", took, err)
	}
	if a := <-ended; a.status == http.StatusOK {
		t.Error("a delivery whose room was never fetched was answered 200 with ack=synced")
	}
}

// A download that its reader takes slowly goes on for half of the grace period, and the
// service stops in time all the same.
func TestStopCutsSlowDownload(t *testing.T) {
	t.Parallel()
	// The download is cut after half of it. To stop takes far less than the other half, also on a
	// machine that does much else.
	const grace, size = 20 * time.Second, 16 << 20
	s, upstream := start(t, map[string]string{"MIRROR_STOP_GRACE": grace.String()})
	doc := storage(`"` + strings.Repeat("x", size) + `"`)
	create(t, s, upstream, "large", fake.RoomOptions{Storage: doc})
	awaitStorage(t, s, "large", doc)
	awaitIdle(t, s)

	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.HTTPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); !ok || tcp.SetReadBuffer(16<<10) != nil { // what waits there has left the service
		t.Fatal("the client's buffer cannot be made small")
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n",
		roomPath("large", "/storage:read?format=plain-lson")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 8<<10)); err != nil { // the header, and that it has begun
		t.Fatal(err)
	}
	var got atomic.Int64
	ended := make(chan struct{})
	go func() { // ends with the connection; awaited below
		defer close(ended)
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for range pace.C {
			n, err := conn.Read(make([]byte, 1<<10))
			got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	before := got.Load()
	took, err := s.Stop(t)
	if err != nil || took > grace {
		t.Errorf("stopped after %s with %v; want exit code 0 within %s", took, err, grace)
	}
	if took < grace/2 {
		t.Errorf("stopped after %s; want the download to have had %s", took, grace/2)
	}
	if n := got.Load(); n <= before || n >= int64(len(doc)) {
		t.Errorf("the reader has got %d bytes, %d of them before the stop; want more, and not all %d", n, before, len(doc))
	}
	_ = conn.Close()
	<-ended
}
