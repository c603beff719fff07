package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// loadJob is what the process that makes the load is told: one closed loop for
// each connection, an operation at a time, until time or operations are up.
type loadJob struct {
	Kind  string // a key of loads
	Conns int
	// Warm comes before Timed and does not count.
	Warm, Timed time.Duration
	// Limit bounds the operations; 0 means only the time does.
	Limit int64
	// Addr is the server's address, DatabaseURL the database's.
	Addr, DatabaseURL string
	// Size is that of the documents' plain JSON, Rooms how many rooms there are.
	Size, Rooms int
	// Rate is how many events a second freshness and watching are measured at, First the
	// number of the first of the Rooms, and Upstream the address of the fake.
	Rate, First int
	Upstream    string
	// Watchers is how many watch the changes at Addr. Stalls adds one that does not read, and
	// Events is where deliveries go that lead to commits; empty commits rows.
	Watchers int
	Stalls   bool
	Events   string
	// Hangs is the share of the fake's calls that hang.
	Hangs float64
	// Shared is how many gRPC connections the callers share; 0 gives each its own.
	Shared int
	// Tokens are the credentials of reads, one for each connection as clients have it, in
	// turn; none sends none. A connection that changes its credential with each call pays
	// for sending and decoding it: HTTP/2 compresses what repeats.
	Tokens []string
}

// loadResult is what came of it.
type loadResult struct {
	// Ops is the number of all operations, Timed that of those which ended in
	// Window.
	Ops, Timed int64
	Window     time.Duration
	P50, P99   time.Duration
	// Each is every latency, where they are few.
	Each []time.Duration
	// Answered are those of Each that no call about the room which hung has delayed.
	Answered []time.Duration
	// Alone are those of Each before which the row showed every change.
	Alone []time.Duration
	// Stalled is the end of the watcher that did not read.
	Stalled stalledEnd
	// Calls is the number of calls that the fake got, Hung how many of them hung.
	Calls, Hung int
}

// rate is operations per second.
func (r loadResult) rate() float64 { return float64(r.Timed) / r.Window.Seconds() }

// operation is one operation on one connection; n is its number.
type operation func(ctx context.Context, n int64) error

// loads prepare the connections of a job.
var loads = map[string]func(context.Context, *loadJob) ([]operation, error){
	"webhooks": deliveries,
	"grpc":     grpcReads,
	"read":     plainReads,
	"upsert":   plainUpserts,
}

// runLoad prepares everything, says so, waits for the word and runs the job.
// The connections die with the process.
func runLoad(ctx context.Context, job loadJob) error {
	var run func() (loadResult, error)
	switch job.Kind {
	case "latency":
		m, err := newLatencies(ctx, &job)
		if err != nil {
			return err
		}
		run = func() (loadResult, error) { return m.run(ctx) }
	case "freshness":
		f, err := newFreshness(ctx, &job)
		if err != nil {
			return err
		}
		run = func() (loadResult, error) { return f.run(ctx) }
	case "watch":
		w, err := newWatching(ctx, &job)
		if err != nil {
			return err
		}
		run = func() (loadResult, error) { return w.run(ctx) }
	default:
		prepare, ok := loads[job.Kind]
		if !ok {
			return fmt.Errorf("no load is called %q", job.Kind)
		}
		operations, err := prepare(ctx, &job)
		if err != nil {
			return err
		}
		run = func() (loadResult, error) { return drive(ctx, operations, &job) }
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode("prepared"); err != nil {
		return err
	}
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		return err
	}
	result, err := run()
	if err != nil {
		return err
	}
	if err := out.Encode(result); err != nil {
		return err
	}
	// Being measured, the process has to be there when the result is.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// drive runs the operations, each in a loop of its own.
func drive(ctx context.Context, operations []operation, job *loadJob) (loadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now().Add(job.Warm)
	end := begin.Add(job.Timed)
	if job.Timed == 0 {
		end = begin.Add(10 * time.Minute) // the number is the bound
	}
	// A window too short for what is slow goes on until everybody has done
	// something twice.
	enough := int64(2 * len(operations))
	longest := end.Add(answerTimeout)
	var next, timed atomic.Int64
	over := func(now time.Time) bool {
		return now.After(end) && (timed.Load() >= enough || now.After(longest))
	}
	var mu sync.Mutex
	var all []time.Duration
	last := begin
	var wg sync.WaitGroup
	for _, operate := range operations {
		wg.Go(func() {
			took := make([]time.Duration, 0, 1<<14)
			var mine time.Time
			for now := time.Now(); !over(now) && ctx.Err() == nil; {
				n := next.Add(1) - 1
				if job.Limit > 0 && n >= job.Limit {
					break
				}
				if err := operate(ctx, n); err != nil {
					cancel(err)
					return
				}
				done := time.Now()
				if done.After(begin) && !over(done) {
					timed.Add(1)
					took = append(took, done.Sub(now))
					mine = done
				}
				now = done
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if mine.After(last) {
				last = mine
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return loadResult{}, fmt.Errorf("load: %w", err)
	}
	if len(all) == 0 {
		return loadResult{}, errors.New("load: nothing was done in time")
	}
	ops := next.Load()
	if job.Limit > 0 {
		ops = min(ops, job.Limit)
	}
	slices.Sort(all)
	return loadResult{
		Ops: ops, Timed: int64(len(all)), Window: last.Sub(begin), P50: quantile(all, 0.5), P99: quantile(all, 0.99),
	}, nil
}

// quantile reads from sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// secret signs the deliveries of this program.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// liveblocksProject is how the deliveries name their Liveblocks project.
const liveblocksProject = "605a50b01a36d5ea7a2e9104"

// perSecond is for how many deliveries a second requests are prepared. Should
// more be acknowledged, the window is over sooner.
const perSecond = 30_000

// delivery returns the bytes of a signed request that says a room's document
// changed.
func delivery(addr, room, eventID string, now time.Time) ([]byte, error) {
	return deliveryWith(secret, addr, room, eventID, now)
}

// deliveryWith is delivery with another secret.
func deliveryWith(secret, addr, room, eventID string, now time.Time) ([]byte, error) {
	body := fake.Payload(fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: now}, liveblocksProject)
	signature, err := webhook.Sign(secret, eventID, now, body)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil,
		"POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Svix-Webhooks/1.62.0\r\nContent-Type: application/json\r\n"+
			"Content-Length: %d\r\nWebhook-Id: %s\r\nWebhook-Timestamp: %d\r\nWebhook-Signature: %s\r\n\r\n%s",
		webhookPath, addr, len(body), eventID, now.Unix(), signature, body), nil
}

// webhookPath is the same at the service and at the baselines.
const webhookPath = "/v1/webhooks/liveblocks"

// deliveries sign and lay out every request beforehand: what is measured is to
// be the server.
func deliveries(ctx context.Context, job *loadJob) ([]operation, error) {
	count := int64((job.Warm + job.Timed).Seconds() * perSecond)
	if job.Limit == 0 || job.Timed > 0 && count < job.Limit {
		job.Limit = count
	}
	run := strconv.FormatUint(rand.Uint64(), 36)
	requests := make([][]byte, job.Limit)
	now := time.Now()
	order := rand.Perm(job.Rooms)
	for i := range requests {
		var err error
		room := roomID(job.Size, order[i%job.Rooms])
		if requests[i], err = delivery(job.Addr, room, fmt.Sprintf("msg_%s%015d", run, i), now); err != nil {
			return nil, err
		}
	}
	operations := make([]operation, job.Conns)
	for i := range operations {
		c, err := dialHTTP(ctx, job.Addr)
		if err != nil {
			return nil, err
		}
		operations[i] = func(_ context.Context, n int64) error { return c.post(requests[n]) }
	}
	return operations, nil
}

// httpConn is a connection that is kept for many requests. Of the answers it
// reads only what it must, since net/http's client would need as much processor
// time as the server.
type httpConn struct {
	conn net.Conn
	buf  []byte
}

func dialHTTP(ctx context.Context, addr string) (*httpConn, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &httpConn{conn: conn, buf: make([]byte, 16<<10)}, nil
}

// answerTimeout bounds one answer.
const answerTimeout = 30 * time.Second

func (c *httpConn) post(request []byte) error {
	if err := c.send(request); err != nil {
		return err
	}
	return c.receive()
}

func (c *httpConn) send(request []byte) error {
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(request)
	return err
}

var (
	blankLine     = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
	lastChunk     = []byte("\r\n0\r\n\r\n")
)

// receive reads one answer, which has to be a 200.
func (c *httpConn) receive() error {
	have, want := 0, -1
	for want < 0 || have < want {
		n, err := c.conn.Read(c.buf[have:])
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		have += n
		if want >= 0 {
			continue
		}
		head := bytes.Index(c.buf[:have], blankLine)
		if head < 0 {
			continue
		}
		length := bytes.Index(c.buf[:head], contentLength)
		if length < 0 {
			if bytes.HasSuffix(c.buf[:have], lastChunk) {
				break
			}
			continue
		}
		digits, _, _ := bytes.Cut(c.buf[length+len(contentLength):head+2], []byte("\r"))
		size, err := strconv.Atoi(string(digits))
		if want = head + len(blankLine) + size; err != nil || want > len(c.buf) {
			return errors.New("read an answer: its length is odd")
		}
	}
	if !bytes.HasPrefix(c.buf[:have], []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("not acknowledged: %s", c.buf[:have])
	}
	return nil
}

// project is the service's only one.
const project = "default"

// grpcReads read documents as JSON over gRPC.
func grpcReads(ctx context.Context, job *loadJob) ([]operation, error) {
	clients := make([]mirrorv1.MirrorServiceClient, min(cmp.Or(job.Shared, job.Conns), job.Conns))
	for i := range clients {
		conn, err := grpc.NewClient("passthrough:///"+job.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		clients[i] = mirrorv1.NewMirrorServiceClient(conn)
	}
	operations := make([]operation, job.Conns)
	for i := range operations {
		client := clients[i%len(clients)]
		var token string
		if k := len(job.Tokens); k > 0 {
			token = "Bearer " + job.Tokens[i%len(clients)%k]
		}
		operations[i] = func(ctx context.Context, n int64) error {
			if token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
			}
			resp, err := client.GetStorageDocument(ctx,
				&mirrorv1.GetStorageDocumentRequest{RoomId: roomID(job.Size, int(n%int64(job.Rooms)))})
			if err != nil {
				return err
			}
			return wantLength(resp.GetDocument().GetContent(), job.Size)
		}
	}
	return operations, warmUp(ctx, operations)
}

func wantLength(b []byte, want int) error {
	if len(b) != want {
		return fmt.Errorf("a document of %d bytes, not of %d", len(b), want)
	}
	return nil
}

// warmUp runs each operation once, so that connections stand and statements are
// prepared.
func warmUp(ctx context.Context, operations []operation) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for _, operate := range operations {
		if err := operate(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// plainReads read documents as they are in the database.
func plainReads(ctx context.Context, job *loadJob) ([]operation, error) {
	operations := make([]operation, job.Conns)
	for i := range operations {
		db, err := connect(ctx, job.DatabaseURL, 1)
		if err != nil {
			return nil, err
		}
		operations[i] = func(ctx context.Context, n int64) error {
			room := roomID(job.Size, int(n%int64(job.Rooms)))
			var data []byte
			if err := db.get(ctx, &data, readSQL, mirror.Bucket(project, room), project, room); err != nil {
				return err
			}
			return wantLength(data, job.Size)
		}
	}
	return operations, warmUp(ctx, operations)
}

// plainUpserts write documents, each in a version that differs from the stored one.
func plainUpserts(ctx context.Context, job *loadJob) ([]operation, error) {
	documents := make([]*document, variants(job.Size))
	for i := range documents {
		var err error
		if documents[i], err = newDocument(job.Size, uint64(i)); err != nil {
			return nil, err
		}
	}
	base := firstRevision + rand.Int64N(8*firstRevision)
	operations := make([]operation, job.Conns)
	for i := range operations {
		db, err := connect(ctx, job.DatabaseURL, 1)
		if err != nil {
			return nil, err
		}
		operations[i] = func(ctx context.Context, n int64) error {
			room := roomID(job.Size, int(n))
			data := documents[int(n)%len(documents)].json(base + n)
			return db.exec(ctx, db.upsert, mirror.Bucket(project, room), project, room, len(data), data)
		}
	}
	return operations, nil
}

// pollEvery is how often a row is looked at that is to change: often against
// the tens of milliseconds that it takes, seldom against the processor.
const pollEvery = 500 * time.Microsecond

// latencies measure the time from the first byte of a webhook until the row can
// be read with another revision, one delivery at a time.
type latencies struct {
	job  *loadJob
	http *httpConn
	db   database
}

func newLatencies(ctx context.Context, job *loadJob) (*latencies, error) {
	c, err := dialHTTP(ctx, job.Addr)
	if err != nil {
		return nil, err
	}
	db, err := connect(ctx, job.DatabaseURL, 1)
	if err != nil {
		return nil, err
	}
	return &latencies{job: job, http: c, db: db}, nil
}

func (l *latencies) run(ctx context.Context) (loadResult, error) {
	var result loadResult
	for n := range int(l.job.Limit) {
		took, err := l.one(ctx, roomID(l.job.Size, n%l.job.Rooms))
		if err != nil {
			return result, err
		}
		result.Each = append(result.Each, took)
		result.Window += took
	}
	result.Ops = int64(len(result.Each))
	result.Timed = result.Ops
	sorted := slices.Sorted(slices.Values(result.Each))
	result.P50, result.P99 = quantile(sorted, 0.5), quantile(sorted, 0.99)
	return result, nil
}

func (l *latencies) one(ctx context.Context, room string) (time.Duration, error) {
	before, err := l.revision(ctx, room)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	request, err := delivery(l.job.Addr, room, "msg_"+strconv.FormatUint(rand.Uint64(), 36), begin)
	if err != nil {
		return 0, err
	}
	if err := l.http.send(request); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		now, err := l.revision(ctx, room)
		if err != nil {
			return 0, err
		}
		if now != before {
			took := time.Since(begin)
			return took, l.http.receive()
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("room %s does not change: %w", room, ctx.Err())
		case <-ticker.C:
		}
	}
}

func (l *latencies) revision(ctx context.Context, room string) (revision string, err error) {
	err = l.db.get(ctx, &revision, l.db.revision, room)
	return revision, err
}
