package rpc

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/feed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/feed/feedtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const project = mirror.ProjectID("default")

// noon is the present in tests.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// harness is a real server and a real client with fakes behind them.
type harness struct {
	feed   *feedtest.Database
	tailer *feed.Tailer
	// stopTailing ends the tailer, as when the process ends.
	stopTailing context.CancelFunc
	change      mirrorv1.ChangeServiceClient
	query       *fakeQuery
	receiver    *fakeReceiver
	worker      *fakeWorker
	sweeper     *fakeSweeper
	pinner      *fakePinner
	log         *syncBuffer
	services    *Services
	server      *grpc.Server
	conn        *grpc.ClientConn
	events      mirrorv1.EventServiceClient
	mirror      mirrorv1.MirrorServiceClient
	admin       mirrorv1.AdminServiceClient
}

func start(tb testing.TB, change ...func(*Config)) *harness {
	tb.Helper()
	h := &harness{
		query: &fakeQuery{}, receiver: &fakeReceiver{}, sweeper: &fakeSweeper{}, pinner: &fakePinner{}, log: &syncBuffer{},
	}
	h.worker, h.feed = &fakeWorker{query: h.query}, &feedtest.Database{}
	h.pinner.query = h.query
	deps := Config{
		Log:      slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:      func() time.Time { return noon },
		Projects: []mirror.ProjectID{project},
		Guard:    guardOf(),
		Event:    EventDeps{Query: h.query, Receiver: h.receiver},
		Mirror:   MirrorDeps{Query: h.query, Refresher: h.worker},
		Change:   ChangeDeps{Store: h.feed, Resources: h.query},
		Admin: AdminDeps{
			Query: h.query, Requester: h.worker, Pinner: h.pinner, Replayer: h.pinner, Stopper: h.pinner, Key: h.pinner,
			Eraser:  h.pinner,
			Sweeper: h.sweeper, Verifier: h.sweeper,
			Status:  fakeStatus{},
			Version: "v1.2.3", StartTime: noon.Add(-time.Hour),
		},
	}
	for _, f := range change {
		f(&deps)
	}
	h.tailer = feed.New(feed.Config{Feed: h.feed, Now: time.Now, SafetyPoll: time.Hour, Logger: deps.Log})
	deps.Change.Tailer = h.tailer
	tailing, stopTailing := context.WithCancel(context.Background())
	h.stopTailing = stopTailing
	tailed := make(chan error, 1)
	go func() { tailed <- h.tailer.Run(tailing) }()
	tb.Cleanup(func() {
		stopTailing()
		if err := <-tailed; err != nil {
			tb.Errorf("Run = %v", err)
		}
	})
	h.services = New(deps)
	h.server = NewServer(h.services)
	listener := bufconn.Listen(1 << 20)
	done := make(chan error, 1)
	go func() { done <- h.server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///mirror",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatalf("NewClient: %v", err)
	}
	tb.Cleanup(func() {
		_ = conn.Close()
		h.server.Stop()
		// A test that made no call can be done before Serve began.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			tb.Errorf("Serve = %v; want nil", err)
		}
	})
	h.conn = conn
	h.events = mirrorv1.NewEventServiceClient(conn)
	h.mirror = mirrorv1.NewMirrorServiceClient(conn)
	h.change = mirrorv1.NewChangeServiceClient(conn)
	h.admin = mirrorv1.NewAdminServiceClient(conn)
	return h
}

// guardOf returns a guard that accepts these tokens, and everybody without any.
func guardOf(tokens ...string) *access.Guard {
	cfg := access.GuardConfig{Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if tokens != nil {
		cfg.Authenticators = []access.Authenticator{access.Tokens(tokens)}
	}
	return access.NewGuard(cfg)
}

// syncBuffer is what the server logged.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fakeQuery keeps everything in slices and answers as the contract says. err,
// if set, is the answer to everything.
type fakeQuery struct {
	mu          sync.Mutex
	err         func(ctx context.Context) error
	events      []mirror.Event
	rooms       []mirror.Room
	documents   []mirror.Document
	tasks       []mirror.Task
	projects    []mirror.Project
	threads     []mirror.Thread
	comments    []mirror.Comment
	users       []mirror.ActiveUsers
	sessions    []mirror.UserSession
	notices     []mirror.Notification
	groups      []mirror.Group
	audit       []mirror.AuditEntry
	taskReads   int
	counts      store.Counts
	lastEvents  mirror.LastEvents
	unannounced []mirror.Unannounced
	limits      []int // of every list query
	reads       int
	statements  int // that read many resources
	sources     int // bytes of sources of threads, the most of a statement
	content     int // bytes of documents that were read together

	// What the last query of each list asked for.
	threadFilter  store.ThreadFilter
	commentFilter store.CommentFilter
	sessionFilter store.SessionFilter
	noticeFilter  store.NotificationFilter
	latestFilter  store.LatestRoomFilter
}

func (q *fakeQuery) begin(ctx context.Context) (unlock func(), err error) {
	if q.err != nil {
		err = q.err(ctx)
	}
	q.mu.Lock()
	q.reads++
	return q.mu.Unlock, err
}

// change runs f while nobody reads.
func (q *fakeQuery) change(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

func find[T any](rows []T, match func(*T) bool) (T, error) {
	for i := range rows {
		if match(&rows[i]) {
			return rows[i], nil
		}
	}
	var none T
	return none, store.ErrNotFound
}

// selected returns the first limit rows that match, in order.
func (q *fakeQuery) selected(limit int) func(n int) bool {
	q.limits = append(q.limits, limit)
	return func(n int) bool { return n == limit }
}

func choose[T any](rows []T, full func(int) bool, order func(a, b T) int, match func(*T) bool) []T {
	rows = slices.SortedFunc(slices.Values(rows), order)
	var chosen []T
	for i := range rows {
		if match(&rows[i]) {
			if chosen = append(chosen, rows[i]); full(len(chosen)) {
				break
			}
		}
	}
	return chosen
}

func (q *fakeQuery) Event(ctx context.Context, project mirror.ProjectID, id string) (mirror.Event, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Event{}, err
	}
	return find(q.events, func(e *mirror.Event) bool { return e.Project == project && e.ID == id })
}

func (q *fakeQuery) EventOf(ctx context.Context, p mirror.ProjectID, _ mirror.RoomID, id string) (mirror.Event, error) {
	return q.Event(ctx, p, id)
}

func orderEvents(a, b mirror.Event) int {
	return cmp.Or(b.ReceiveTime.Compare(a.ReceiveTime), cmp.Compare(a.ID, b.ID))
}

func (q *fakeQuery) Events(ctx context.Context, f store.EventFilter) ([]mirror.Event, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	after := mirror.Event{ReceiveTime: f.AfterTime, ID: f.AfterID}
	rows := choose(q.events, q.selected(f.Limit), orderEvents, func(e *mirror.Event) bool {
		return e.Project == f.Project && f.Rooms.Select(e.Room) && (f.Room == "" || e.Room == f.Room) &&
			(f.Type == "" || e.Type == f.Type) &&
			(f.User == "" || e.User == f.User) && (f.Outcome == "" || e.Outcome == f.Outcome) &&
			(f.Thread == "" || e.Thread == f.Thread) &&
			(f.From.IsZero() || !e.ReceiveTime.Before(f.From)) &&
			(f.To.IsZero() || e.ReceiveTime.Before(f.To)) &&
			(f.AfterTime.IsZero() || orderEvents(*e, after) > 0)
	})
	if f.NoPayload {
		for i := range rows {
			rows[i].Payload = nil
		}
	}
	return rows, nil
}

func (q *fakeQuery) Room(ctx context.Context, room mirror.Resource, deleted bool) (mirror.Room, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Room{}, err
	}
	return find(q.rooms, func(r *mirror.Room) bool {
		return r.Project == room.Project && r.ID == room.Room && (deleted || r.Freshness.DeleteTime.IsZero())
	})
}

func (q *fakeQuery) Rooms(ctx context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	order := func(a, b mirror.Room) int { return cmp.Compare(a.ID, b.ID) }
	return choose(q.rooms, q.selected(f.Limit), order, func(r *mirror.Room) bool {
		return r.Project == f.Project && f.Rooms.Select(r.ID) && strings.HasPrefix(string(r.ID), f.Prefix) &&
			(f.Deleted || r.Freshness.DeleteTime.IsZero()) && r.ID > f.After
	}), nil
}

func (q *fakeQuery) LatestRooms(ctx context.Context, f store.LatestRoomFilter) ([]mirror.Room, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.latestFilter = f
	order := func(a, b mirror.Room) int {
		return cmp.Or(store.ListTime(b.CreateTime).Compare(store.ListTime(a.CreateTime)), cmp.Compare(a.ID, b.ID))
	}
	first := f.AfterTime.IsZero() && f.AfterID == ""
	after := mirror.Room{ID: f.AfterID, CreateTime: f.AfterTime}
	return choose(q.rooms, q.selected(f.Limit), order, func(r *mirror.Room) bool {
		return r.Project == f.Project && r.Freshness.DeleteTime.IsZero() && f.Selects(r.ID, r.Source) &&
			(first || order(after, *r) < 0)
	}), nil
}

func (q *fakeQuery) Document(ctx context.Context, document mirror.Resource, deleted bool) (mirror.Document, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Document{}, err
	}
	return find(q.documents, func(d *mirror.Document) bool {
		return d.Project == document.Project && d.Room == document.Room && d.Kind == document.Kind && d.ID == document.ID &&
			(deleted || d.Freshness.DeleteTime.IsZero())
	})
}

func (q *fakeQuery) ReadDocuments(ctx context.Context, reads []store.DocumentRead, inline int64) ([]*mirror.Document,
	error,
) {
	content := 0
	defer func() {
		q.change(func() { q.statements, q.content = q.statements+1, q.content+content })
	}()
	docs := make([]*mirror.Document, len(reads))
	for i, r := range reads {
		doc, err := q.Document(ctx, r.Resource, r.Deleted)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if doc.SHA256 == r.Have || doc.Size > inline {
			doc.Content, doc.Damage = nil, nil
		}
		content += len(doc.Content)
		docs[i] = &doc
	}
	return docs, nil
}

func (q *fakeQuery) Documents(ctx context.Context, f store.DocumentFilter) ([]mirror.Document, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	order := func(a, b mirror.Document) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	}
	after := mirror.Document{Room: f.AfterRoom, Kind: f.AfterKind, ID: f.AfterID}
	rows := choose(q.documents, q.selected(f.Limit), order, func(d *mirror.Document) bool {
		return d.Project == f.Project && f.Rooms.Select(d.Room) && strings.HasPrefix(string(d.Room), f.Prefix) &&
			(f.Kind == 0 || d.Kind == f.Kind) &&
			d.Freshness.DeleteTime.IsZero() && order(*d, after) > 0
	})
	for i := range rows {
		rows[i].Content = nil
	}
	return rows, nil
}

func (q *fakeQuery) Task(ctx context.Context, resource mirror.Resource, _ time.Time) (mirror.Task, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Task{}, err
	}
	return find(q.tasks, func(t *mirror.Task) bool { return t.Resource == resource })
}

func (q *fakeQuery) Tasks(ctx context.Context, resources []mirror.Resource, _ time.Time) ([]mirror.Task, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	q.taskReads++
	return slices.DeleteFunc(slices.Clone(q.tasks), func(t mirror.Task) bool {
		return !slices.Contains(resources, t.Resource)
	}), nil
}

func (q *fakeQuery) TaskList(ctx context.Context, f store.TaskFilter) ([]mirror.Task, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	order := func(a, b mirror.Task) int {
		return cmp.Or(cmp.Compare(a.Resource.Room, b.Resource.Room), cmp.Compare(a.Resource.Kind, b.Resource.Kind),
			cmp.Compare(a.Resource.ID, b.Resource.ID))
	}
	after := mirror.Task{Resource: mirror.Resource{Room: f.AfterRoom, Kind: f.AfterKind, ID: f.AfterID}}
	return choose(q.tasks, q.selected(f.Limit), order, func(t *mirror.Task) bool {
		return t.Resource.Project == f.Project && f.Rooms.Select(t.Resource.Room) &&
			(f.Room == "" || t.Resource.Room == f.Room) &&
			(f.State == t.State || f.State == "" && t.State != mirror.TaskDone) &&
			order(*t, after) > 0
	}), nil
}

// LastEvents leaves out the types that nobody asks for.
func (q *fakeQuery) LastEvents(ctx context.Context, id mirror.ProjectID, types []string) (mirror.LastEvents, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	last := mirror.LastEvents{Time: q.lastEvents.Time, ByType: maps.Clone(q.lastEvents.ByType)}
	maps.DeleteFunc(last.ByType, func(name string, _ time.Time) bool {
		return id != project || !slices.Contains(types, name)
	})
	return last, err
}

func (q *fakeQuery) Unannounced(ctx context.Context, _ mirror.ProjectID) ([]mirror.Unannounced, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	return q.unannounced, err
}

// ProjectIDs are those that the rooms and the projects belong to.
func (q *fakeQuery) ProjectIDs(ctx context.Context) (ids []mirror.ProjectID, err error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	for i := range q.projects {
		ids = append(ids, q.projects[i].ID)
	}
	for i := range q.rooms {
		ids = append(ids, q.rooms[i].Project)
	}
	slices.Sort(ids)
	return slices.Compact(ids), err
}

func (q *fakeQuery) Project(ctx context.Context, id mirror.ProjectID) (mirror.Project, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return mirror.Project{}, err
	}
	p, err := find(q.projects, func(p *mirror.Project) bool { return p.ID == id })
	if err != nil {
		return mirror.Project{ID: id}, nil
	}
	return p, nil
}

func (q *fakeQuery) Counts(ctx context.Context, _ mirror.ProjectID) (store.Counts, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	return q.counts, err
}

// fakeReceiver remembers the delivery and answers as told.
type fakeReceiver struct {
	project  mirror.ProjectID
	headers  webhook.Headers
	body     []byte
	deadline time.Time // of the call; zero if it has none
	receipt  ledger.Receipt
	err      error
	calls    int
	refused  int
}

func (r *fakeReceiver) Receive(ctx context.Context, project mirror.ProjectID, h webhook.Headers,
	body []byte,
) (ledger.Receipt, error) {
	r.calls++
	r.project, r.headers, r.body = project, h, bytes.Clone(body)
	r.deadline, _ = ctx.Deadline()
	return r.receipt, r.err
}

func (r *fakeReceiver) Refused(context.Context, error) { r.refused++ }

// fakeWorker stands for the queue. refresh is what a refresh does, nil that it
// must not be asked for one.
type fakeWorker struct {
	query     *fakeQuery
	refresh   func(ctx context.Context) error
	refreshed [][]mirror.Resource
	deadlines []time.Time // of the refreshes
	requested []mirror.Resource
	retryErr  error
}

func (w *fakeWorker) Refresh(ctx context.Context, resources ...mirror.Resource) error {
	w.refreshed = append(w.refreshed, resources)
	deadline, ok := ctx.Deadline()
	if !ok {
		return errors.New("refresh without a deadline")
	}
	w.deadlines = append(w.deadlines, deadline)
	if w.refresh == nil {
		return errors.New("unexpected refresh")
	}
	return w.refresh(ctx)
}

func (w *fakeWorker) Request(_ context.Context, resources []mirror.Resource) ([]mirror.Pending, error) {
	w.requested = resources
	var pending []mirror.Pending
	w.query.change(func() {
		for _, r := range resources {
			w.query.tasks = append(w.query.tasks, mirror.Task{
				Resource: r, State: mirror.TaskPending, Generation: 1,
				DueTime: noon,
			})
			pending = append(pending, mirror.Pending{Resource: r, Generation: 1})
		}
	})
	return pending, nil
}

func (w *fakeWorker) Retry(ctx context.Context, resource mirror.Resource) (mirror.Task, error) {
	if w.retryErr != nil {
		return mirror.Task{}, w.retryErr
	}
	task, err := w.query.Task(ctx, resource, noon)
	task.State, task.Attempts = mirror.TaskPending, 0
	return task, err
}

func (w *fakeWorker) Discard(ctx context.Context, resource mirror.Resource) (mirror.Task, error) {
	if w.retryErr != nil {
		return mirror.Task{}, w.retryErr
	}
	task, err := w.query.Task(ctx, resource, noon)
	task.State = mirror.TaskWaiting
	return task, err
}

type fakeStatus struct{ err error }

func (f fakeStatus) Status(context.Context) (Status, error) {
	return Status{
		Ready:  true,
		Engine: "FakeSQL 1.0",
		Deliveries: ledger.Counts{
			Accepted: 1, Duplicate: 2, Unauthenticated: 3, Unavailable: 4, UnknownType: 5, Malformed: 6,
			ForeignProject: 7,
		},
		MemoryUsed: 5 << 20, Memory: 1 << 30,
		Limiters: map[mirror.ProjectID]Limiter{project: {CallsPerSecond: 8.5, ThrottledUntil: noon.Add(time.Minute)}},
		Work: map[mirror.ProjectID]Work{project: {
			Lanes:     []queue.Lane{{Name: "live", Queued: 3, Running: 2, More: true}},
			Freshness: queue.Freshness{Count: 7, P50: time.Second, P95: 2 * time.Second, P99: 3 * time.Second},
			Retention: []mirror.Retention{
				{
					Table: "mirror_event", Keep: 72 * time.Hour, RunTime: noon, OldestTime: noon.Add(-98 * time.Hour), Deleted: 11,
					Behind: 26 * time.Hour,
				},
				{Table: "mirror_user_session"},
			},
		}},
		Changes: mirror.Retention{Table: "mirror_change", Problem: "the database refused it"},
	}, f.err
}

// reasonOf returns the reason in a status, empty if it has none.
func reasonOf(err error) string {
	if info := detail[*errdetails.ErrorInfo](err); info != nil && info.GetDomain() == errorDomain {
		return info.GetReason()
	}
	return ""
}

func detail[D any](err error) D {
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(D); ok {
			return d
		}
	}
	var none D
	return none
}

func wantStatus(t *testing.T, err error, code codes.Code, reason fault.Reason) {
	t.Helper()
	if status.Code(err) != code || reasonOf(err) != string(reason) {
		t.Fatalf("got %v with reason %q; want %v with reason %q", err, reasonOf(err), code, reason)
	}
}

func badFields(err error) []string {
	var fields []string
	for _, v := range detail[*errdetails.BadRequest](err).GetFieldViolations() {
		fields = append(fields, v.GetField())
	}
	return fields
}

func withMetadata(ctx context.Context, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

func TestProjectIsResolved(t *testing.T) {
	t.Parallel()
	one := &common{projects: []mirror.ProjectID{"a"}}
	two := &common{projects: []mirror.ProjectID{"a", "b"}}
	all, b := access.Everything(""), access.Caller{Projects: []mirror.ProjectID{"b", "c"}}
	for _, c := range []struct {
		services *common
		caller   access.Caller
		id       string
		want     mirror.ProjectID
	}{
		{one, all, "", "a"},
		{one, all, "a", "a"},
		{one, all, "b", ""},
		{one, all, "A", ""},
		{two, all, "", ""},
		{two, all, "b", "b"},
		{two, b, "", "b"},
		{two, b, "b", "b"},
		{two, b, "a", ""},
		{two, b, "c", ""},
		{one, b, "", ""},
		{one, access.Caller{}, "", ""},
		{one, access.Caller{}, "a", ""},
		{&common{}, all, "", ""},
	} {
		got, err := c.services.project(access.Into(t.Context(), c.caller), c.id)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && !fault.Is(err, fault.ReasonProjectUnknown) {
			t.Errorf("project(%q) of %v = %q, %v; want %q", c.id, c.services.projects, got, err, c.want)
		}
	}
}

// Every call that takes a project resolves it, those added later included: none
// reads another one's rows.
func TestUnknownProjectIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	h := start(t)
	seen := 0
	for _, desc := range serviceDescs() {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
		if err != nil {
			t.Fatal(err)
		}
		service, _ := found.(protoreflect.ServiceDescriptor)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			typ, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			req := typ.New()
			for j := range method.Input().Fields().Len() {
				switch field := method.Input().Fields().Get(j); {
				case field.Name() == "project_id":
					req.Set(field, protoreflect.ValueOfString("other"))
				case proto.HasExtension(field.Options(), annotations.E_FieldBehavior) && field.Kind() == protoreflect.StringKind:
					req.Set(field, protoreflect.ValueOfString(formatTaskID(mirror.Resource{Room: "r", Kind: mirror.KindRoom})))
				}
			}
			if method.Name() == "ReceiveWebhook" { // see TestUnknownProjectIsAnsweredLikeAWrongSignature
				continue
			}
			if method.Input().Fields().ByName("project_id") == nil {
				if method.Name() != "GetStatus" {
					t.Errorf("%s takes no project", method.FullName())
				}
				continue
			}
			seen++
			stream, err := h.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true},
				"/"+desc.ServiceName+"/"+string(method.Name()))
			if err == nil {
				err = errors.Join(stream.SendMsg(req.Interface()), stream.CloseSend())
			}
			if err != nil {
				t.Fatal(err)
			}
			answer, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
			if err != nil {
				t.Fatal(err)
			}
			err = stream.RecvMsg(answer.New().Interface())
			if status.Code(err) != codes.InvalidArgument || reasonOf(err) != string(fault.ReasonProjectUnknown) {
				t.Errorf("%s of an unknown project = %v; want INVALID_ARGUMENT, PROJECT_UNKNOWN", method.Name(), err)
			}
		}
	}
	if seen != 39 {
		t.Errorf("%d calls take a project; want 39", seen)
	}
	if h.query.reads != 0 || h.receiver.calls != 0 || h.worker.requested != nil || h.worker.refreshed != nil ||
		h.sweeper.calls != 0 {
		t.Errorf("the core was asked about an unknown project")
	}
}

var (
	discard     = slog.New(slog.DiscardHandler)
	receiveInfo = &grpc.UnaryServerInfo{FullMethod: mirrorv1.EventService_ReceiveWebhook_FullMethodName}
)
