package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// echoConfig is what the process that echoes notifications is told.
type echoConfig struct {
	DatabaseURL string
}

// echo is the least that can tell many of a commit: a bare gRPC stream for each, which
// sends what the database notifies it of.
type echo struct {
	mirrorv1.UnimplementedChangeServiceServer

	mu sync.Mutex
	// watchers have the messages that each stream is to send, and what ends with it.
	watchers map[chan *mirrorv1.WatchChangesResponse]<-chan struct{}
}

// echoTable is what is written to, and echoChannel what is notified.
const echoTable, echoChannel = "create table echoed (at bigint not null)", "echoed"

func runEcho(ctx context.Context, cfg echoConfig) error {
	e := &echo{watchers: make(map[chan *mirrorv1.WatchChangesResponse]<-chan struct{})}
	db, err := connect(ctx, cfg.DatabaseURL, 1)
	if err != nil {
		return err
	}
	defer db.close()
	if db.listen != nil {
		if err := db.listen(ctx, cfg.DatabaseURL, e.notified); err != nil {
			return err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	mirrorv1.RegisterChangeServiceServer(s, e)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is ours
		s.Stop()
	}()
	if err := json.NewEncoder(os.Stdout).Encode(l.Addr().String()); err != nil {
		return err
	}
	return s.Serve(l)
}

// notified tells all of a commit, of which a text says when it began.
func (e *echo) notified(text string) {
	micros, _ := strconv.ParseInt(text, 10, 64) // what is none shows as ages
	message := &mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_Changes{
		Changes: &mirrorv1.ChangeBatch{Changes: []*mirrorv1.Change{{CommitTime: timestamppb.New(time.UnixMicro(micros))}}},
	}}
	e.mu.Lock()
	defer e.mu.Unlock()
	for w, ended := range e.watchers {
		select {
		case w <- message:
		case <-ended: // it waits for the lock, to be removed
		}
	}
}

// ListChanges stands in for a notification where the database has none.
func (e *echo) ListChanges(_ context.Context, req *mirrorv1.ListChangesRequest) (*mirrorv1.ListChangesResponse, error) {
	e.notified(req.GetToken())
	return &mirrorv1.ListChangesResponse{}, nil
}

func (e *echo) WatchChanges(_ *mirrorv1.WatchChangesRequest,
	stream grpc.ServerStreamingServer[mirrorv1.WatchChangesResponse],
) error {
	w := make(chan *mirrorv1.WatchChangesResponse, 100)
	e.mu.Lock()
	e.watchers[w] = stream.Context().Done()
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, w)
	}()
	for message := (&mirrorv1.WatchChangesResponse{}); ; {
		if err := stream.Send(message); err != nil {
			return err
		}
		select {
		case message = <-w:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// watching measures the time from a commit until each of many clients has been told.
type watching struct {
	job     *loadJob
	streams []*watchStream
	stalled *watchStream // one that does not read
	write   func(ctx context.Context, n int64) error
	// cancel ends the streams and says why.
	cancel context.CancelCauseFunc
}

// watchStream is a stream on a connection of its own.
type watchStream struct {
	grpc.ServerStreamingClient[mirrorv1.WatchChangesResponse]

	client mirrorv1.ChangeServiceClient
	// changes is how many it was told of since the beginning, and took how late those were
	// that count.
	changes int64
	took    []time.Duration
}

func watch(ctx context.Context, addr string, options ...grpc.DialOption) (*watchStream, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return nil, err
	}
	w := &watchStream{client: mirrorv1.NewChangeServiceClient(conn)}
	if w.ServerStreamingClient, err = w.client.WatchChanges(ctx, &mirrorv1.WatchChangesRequest{}); err != nil {
		return nil, err
	}
	_, err = w.Recv() // it watches from here on
	return w, err
}

func newWatching(ctx context.Context, job *loadJob) (*watching, error) {
	w := &watching{job: job, streams: make([]*watchStream, job.Watchers)}
	ctx, w.cancel = context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	failed := make(chan error, job.Watchers)
	some := make(chan struct{}, 32)
	for i := range w.streams {
		wg.Go(func() {
			some <- struct{}{}
			defer func() { <-some }()
			var err error
			if w.streams[i], err = watch(ctx, job.Addr); err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return nil, err
	}
	if job.Stalls {
		var err error
		// Windows that do not grow: it is full soon.
		w.stalled, err = watch(ctx, job.Addr, grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16))
		if err != nil {
			return nil, err
		}
	}
	return w, w.writer(ctx)
}

// writer prepares what leads to a commit: a delivery, or a row and its notification.
func (w *watching) writer(ctx context.Context) error {
	if w.job.Events != "" {
		c, err := dialHTTP(ctx, w.job.Events)
		run := strconv.FormatInt(time.Now().UnixNano(), 36)
		w.write = func(_ context.Context, n int64) error {
			room := roomID(w.job.Size, int(n)%w.job.Rooms)
			request, err := delivery(w.job.Events, room, fmt.Sprintf("msg_%s_%d", run, n), time.Now())
			if err != nil {
				return err
			}
			return c.post(request)
		}
		return err
	}
	db, err := connect(ctx, w.job.DatabaseURL, 1)
	if err != nil {
		return err
	}
	w.write = func(ctx context.Context, _ int64) error {
		now := time.Now().UnixMicro()
		if err := db.exec(ctx, db.echo, now); err != nil || db.listen != nil {
			return err
		}
		_, err := w.streams[0].client.ListChanges(ctx, &mirrorv1.ListChangesRequest{
			Start: &mirrorv1.ListChangesRequest_Token{Token: strconv.FormatInt(now, 10)},
		})
		return err
	}
	return nil
}

// run writes at an even rate, and returns when everybody was told of everything.
func (w *watching) run(ctx context.Context) (loadResult, error) {
	defer w.cancel(nil)
	begin := time.Now().Add(w.job.Warm)
	end := begin.Add(w.job.Timed)
	failed := make(chan error, len(w.streams))
	total := int64(float64(w.job.Rate) * (w.job.Warm + w.job.Timed).Seconds())
	for _, s := range w.streams {
		go func() { failed <- s.read(total, begin) }() // all are awaited
	}
	ticker := time.NewTicker(time.Second / time.Duration(w.job.Rate))
	defer ticker.Stop()
	for n := range total {
		if err := w.write(ctx, n); err != nil {
			return loadResult{}, err
		}
		<-ticker.C
	}
	over := time.AfterFunc(time.Until(end)+answerTimeout, func() { w.cancel(nil) }) // streams have no deadline
	defer over.Stop()
	late := 0
	var err error
	for range w.streams {
		if one := <-failed; one != nil {
			late, err = late+1, one
		}
	}
	if err != nil {
		return loadResult{}, fmt.Errorf("load: %d of %d watchers were not told of everything: %w", late, len(w.streams), err)
	}
	r := loadResult{Window: time.Since(begin)}
	for _, s := range w.streams {
		r.Ops += s.changes
		r.Each = append(r.Each, s.took...)
	}
	r.Timed = int64(len(r.Each))
	if w.stalled == nil {
		return r, nil
	}
	r.Stalled, err = w.stalled.resume(ctx, total)
	return r, err
}

// read reads until it was told of so many changes.
func (s *watchStream) read(total int64, begin time.Time) error {
	for s.changes < total {
		message, err := s.Recv()
		if err != nil {
			return fmt.Errorf("%d of %d changes: %w", s.changes, total, err)
		}
		now := time.Now()
		for _, c := range message.GetChanges().GetChanges() {
			s.changes++
			if at := c.GetCommitTime().AsTime(); !at.Before(begin) {
				s.took = append(s.took, now.Sub(at))
			}
		}
	}
	return nil
}

// stalledEnd is how a watcher that did not read has ended.
type stalledEnd struct {
	Reason string
	// Before is how many changes it had been sent, and After how many came when it went on
	// from its last token.
	Before, After int64
}

// resume reads what a watcher that has not read was sent, and goes on from there until it
// was told of all changes.
func (s *watchStream) resume(ctx context.Context, total int64) (end stalledEnd, err error) {
	var token string
	for {
		message, err := s.Recv()
		if err != nil {
			for _, d := range status.Convert(err).Details() {
				if info, ok := d.(*errdetails.ErrorInfo); ok {
					end.Reason = info.GetReason()
				}
			}
			end.Reason = cmp.Or(end.Reason, err.Error())
			break
		}
		end.Before += int64(len(message.GetChanges().GetChanges()))
		token = message.GetToken()
	}
	if end.Reason != "WATCHER_TOO_SLOW" {
		return end, fmt.Errorf("load: the watcher that does not read ended with %s", end.Reason)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	stream, err := s.client.WatchChanges(ctx, &mirrorv1.WatchChangesRequest{
		Start: &mirrorv1.WatchChangesRequest_Token{Token: token},
	})
	for err == nil && end.Before+end.After < total {
		var message *mirrorv1.WatchChangesResponse
		if message, err = stream.Recv(); err == nil {
			end.After += int64(len(message.GetChanges().GetChanges()))
		}
	}
	return end, err
}

const (
	// watchRooms is the number of rooms of part i: most buckets have a number. It is a small
	// one, so tokens are a quarter as long as they get.
	watchRooms = 1000
	watchSize  = 1 << 10
	// watchMessages bounds the messages a second, and watchRate the commits.
	watchMessages, watchRate = 5000, 50
	// stallWatchers is how many watch beside one that does not read.
	stallWatchers, stallRate = 100, 20
	// stallAim is how much later these may be told, at p99.
	stallAim = 1.2
)

// benchWatch is part i: from a commit to all clients that watch, beside the least that
// could tell them.
func benchWatch(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	ours, err := b.database(ctx, "i_ours")
	if err != nil {
		return err
	}
	floor, err := b.emptyDatabase(ctx, "i_floor")
	if err != nil {
		return err
	}
	db, err := connect(ctx, floor, 1)
	if err != nil {
		return err
	}
	defer db.close()
	if err := db.exec(ctx, echoTable); err != nil {
		return err
	}
	env := settings(ours, upstream.addr, callsPerSecond, unbounded, "MIRROR_SETTLE", "0")
	if err := b.withService(ctx, env, func(p *process) error {
		return b.fill(ctx, p.addr, ours, watchSize, watchRooms)
	}); err != nil {
		return err
	}
	echoed := "a notification"
	if db.listen == nil {
		echoed = "a call after the commit"
	}
	w := b.table(fmt.Sprintf("(i) from the commit to the client that watches, each on a connection of its own; a commit "+
		"is a document of %s fetched at once\n"+
		"    floor: a bare gRPC stream that echoes %s of a commit of one row; CPU is for each message, memory for each "+
		"watcher that waits",
		sizeName(watchSize), echoed),
		"watchers", "commits/s", "p50 ms ours", "p99", "p50 ms floor", "p99", "p50 ratio", "p99 ratio", "CPU ours",
		"CPU floor", "KiB a watcher", "floor")
	for _, watchers := range []int{1, 100, 1000} {
		job := loadJob{
			Kind: "watch", Watchers: watchers, Rate: min(watchRate, max(1, watchMessages/watchers)), Size: watchSize,
			Rooms: watchRooms, Warm: b.freshWarm, Timed: b.freshTimed,
		}
		samples, err := b.watchBoth(ctx, job, env, floor)
		if err != nil {
			return err
		}
		var p50, p99 [2]float64
		var kib [2]string
		for i, side := range samples {
			p50[i], p99[i] = pooled(side, 0.5).Seconds()*1e3, pooled(side, 0.99).Seconds()*1e3
			kib[i] = "-"
			if watchers > 1 { // later windows have the memory of the first
				kib[i] = fmt.Sprintf("%d", side[0].grown>>10/int64(watchers))
			}
		}
		fmt.Fprintf(w, "%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%s\t%s\t%s\t%s\n", watchers, job.Rate, p50[0], p99[0],
			p50[1], p99[1], p50[0]/p50[1], p99[0]/p99[1], cost(samples[0]), cost(samples[1]), kib[0], kib[1])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return b.withService(ctx, env, func(p *process) error { return b.watchStalled(ctx, p) })
}

// watchBoth measures the service and the floor in turns, each in a process that has had no
// more watchers than these.
func (b *bench) watchBoth(ctx context.Context, job loadJob, env map[string]string, floor string) (samples [2][]sample,
	err error,
) {
	bare, err := b.spawnServer(ctx, "echo", echoConfig{DatabaseURL: floor})
	if err != nil {
		return samples, err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	return samples, b.withService(ctx, env, func(service *process) error {
		for range b.rounds {
			for i, side := range []*process{service, bare} {
				job.Addr, job.Events, job.DatabaseURL = side.grpcAddr, side.addr, ""
				if side == bare {
					job.Addr, job.Events, job.DatabaseURL = side.addr, "", floor
				}
				one, err := b.window(ctx, job, side, nil, nil)
				if err != nil {
					return err
				}
				samples[i] = append(samples[i], one)
			}
		}
		return nil
	})
}

// watchStalled measures what others see of a watcher that stops reading.
func (b *bench) watchStalled(ctx context.Context, p *process) error {
	job := loadJob{
		Kind: "watch", Addr: p.grpcAddr, Events: p.addr, Watchers: stallWatchers, Rate: stallRate, Size: watchSize,
		Rooms: watchRooms, Warm: b.freshWarm,
	}
	var samples [2][]sample
	for _, stalls := range []bool{false, true, false} {
		job.Stalls, job.Timed = stalls, b.stall/2
		i := 0
		if stalls {
			i, job.Timed = 1, b.stall
		}
		one, err := b.window(ctx, job, p, nil, nil)
		if err != nil {
			return err
		}
		samples[i] = append(samples[i], one)
	}
	end := samples[1][0].stalled
	w := b.table(fmt.Sprintf("(i) %d watchers, %d commits a second, beside one that does not read for %s: that one was "+
		"sent %d changes, then\n    ended with %s, and got the other %d from its last token", stallWatchers, stallRate,
		b.stall, end.Before, end.Reason, end.After), "", "p50 ms", "p99 ms", "p50 ratio", "p99 ratio", "aim", "CPU")
	alone := samples[0]
	for i, name := range []string{"alone", "beside it"} {
		p50, p99 := pooled(samples[i], 0.5).Seconds(), pooled(samples[i], 0.99).Seconds()
		aim := 0.0
		if i == 1 {
			aim = stallAim
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.2f\t%s\t%s\n", name, p50*1e3, p99*1e3, p50/pooled(alone, 0.5).Seconds(),
			within(p99/pooled(alone, 0.99).Seconds(), aim), cost(samples[i]))
	}
	return w.Flush()
}
