package rpc

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// fakeAudit remembers what was recorded. err, if set, refuses everything.
type fakeAudit struct {
	mu           sync.Mutex
	err          error
	begun, ended []mirror.AuditEntry
	flushed      int
}

func (a *fakeAudit) Begin(_ context.Context, e *mirror.AuditEntry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = append(a.begun, *e)
	return a.err
}

func (a *fakeAudit) End(_ context.Context, e mirror.AuditEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = append(a.ended, e)
}

func (a *fakeAudit) Flush(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flushed++
	return a.err
}

// take returns what was recorded since.
func (a *fakeAudit) take() (begun, ended []mirror.AuditEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	begun, ended, a.begun, a.ended = a.begun, a.ended, nil, nil
	return begun, ended
}

func (q *fakeQuery) AuditEntries(ctx context.Context, f store.AuditFilter) ([]mirror.AuditEntry, error) {
	unlock, err := q.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	order := func(a, b mirror.AuditEntry) int { return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.ID, b.ID)) }
	return choose(q.audit, q.selected(f.Limit), order, func(e *mirror.AuditEntry) bool {
		return e.Project == f.Project && (f.Method == "" || e.Method == f.Method) &&
			(f.Caller == "" || e.Caller == f.Caller) && (f.Denied == nil || *f.Denied == e.Denied) &&
			(f.From.IsZero() || !e.Time.Before(f.From)) && (f.To.IsZero() || e.Time.Before(f.To)) &&
			(f.AfterTime.IsZero() || order(*e, mirror.AuditEntry{Time: f.AfterTime, ID: f.AfterID}) > 0)
	}), nil
}

// audited starts a server whose guard knows the caller "ops", and which records.
func audited(t *testing.T, caller access.Caller, change ...func(*Config)) (*harness, *fakeAudit, context.Context) {
	t.Helper()
	log := &fakeAudit{}
	h := start(t, append([]func(*Config){func(c *Config) {
		c.Guard, c.Audit, c.Change.Life = callers(map[string]access.Caller{"ops": caller}), log, 1
	}}, change...)...)
	stocked(h.query, "room")
	h.worker.refresh = func(context.Context) error { return nil }
	h.sweeper.verify = func(context.Context, mirror.VerifyOptions, func(mirror.VerifyReport) error) error { return nil }
	return h, log, withMetadata(t.Context(), "authorization", "Bearer ops", "x-request-id", "request-1")
}

// Exactly the calls that change something for operators or erase data are recorded, before
// they are made and when they have ended, those added later included: the scope decides.
func TestCallsAreAudited(t *testing.T) {
	t.Parallel()
	h, log, ctx := audited(t, access.Everything("ops"))
	seen := 0
	for _, m := range methods(t) {
		rule, _ := access.RuleOf(m.full)
		if rule.Open {
			continue
		}
		req := m.input.New()
		aim(req, "room")
		_, err := m.call(ctx, h.conn, req.Interface())
		begun, ended := log.take()
		if !rule.Audited() {
			if len(begun)+len(ended) != 0 {
				t.Errorf("%s is recorded: %+v", m.full, begun)
			}
			continue
		}
		seen++
		name := m.full[strings.LastIndex(m.full, "/")+1:]
		want := mirror.AuditEntry{Project: project, Method: name, Caller: "ops", RequestID: "request-1"}
		if m.input.Descriptor().Fields().ByName("room_id") != nil {
			want.Room = "room"
		}
		if m.input.Descriptor().Fields().ByName("task_id") != nil {
			want.Room, want.Kind = "room", mirror.KindRoom
		}
		if len(begun) != 1 || begun[0] != want {
			t.Errorf("%s begins with %+v; want %+v", m.full, begun, want)
		}
		want.Code = "OK"
		if err != nil {
			want.Code, want.Reason = code.Code(status.Code(err)).String(), reasonOf(err)
		}
		if len(ended) != 1 || ended[0] != want {
			t.Errorf("%s, which returned %v, ends with %+v; want %+v", m.full, err, ended, want)
		}
	}
	if seen < 10 {
		t.Errorf("only %d methods are audited", seen)
	}
}

// What cannot be recorded is not done.
func TestCallThatCannotBeRecordedIsNotMade(t *testing.T) {
	t.Parallel()
	h, log, ctx := audited(t, access.Everything("ops"))
	log.err = fault.Wrap(errors.New("connection refused"), fault.Unavailable, fault.ReasonStoreUnavailable, "not made")
	h.sweeper.verify = func(context.Context, mirror.VerifyOptions, func(mirror.VerifyReport) error) error {
		t.Error("a verification began")
		return nil
	}
	for _, m := range methods(t) {
		rule, _ := access.RuleOf(m.full)
		if rule.Open || strings.HasSuffix(m.full, "/VerifyMirror") { // it reads; see below
			continue
		}
		before := len(h.worker.requested) + h.sweeper.calls
		req := m.input.New()
		aim(req, "room")
		_, err := m.call(ctx, h.conn, req.Interface())
		if !rule.Audited() {
			if status.Code(err) == codes.Unavailable {
				t.Errorf("%s = %v, although it is not recorded", m.full, err)
			}
			continue
		}
		wantStatus(t, err, codes.Unavailable, fault.ReasonStoreUnavailable)
		if n := len(h.worker.requested) + h.sweeper.calls; n != before {
			t.Errorf("%s was made although it cannot be recorded", m.full)
		}
	}
	if p := h.pinner; p.pinned != "" || p.unpinned != "" || p.stopped != "" || p.confirmed != "" ||
		p.replay.Filter.Limit != 0 {
		t.Errorf("%+v was made although it cannot be recorded", p)
	}
	begun, ended := log.take() // some entries may have been written after all
	if len(ended) != len(begun) || len(ended) < 10 {
		t.Errorf("%d ended of %d; want all", len(ended), len(begun))
	}
	for _, e := range ended {
		if e.Code != "UNAVAILABLE" || e.Reason != string(fault.ReasonStoreUnavailable) {
			t.Errorf("ended = %+v; want that it was not made", e)
		}
	}
}

// What only reads is done also where the database takes no writes, and recorded later.
func TestReadsAreMadeWithoutTheAudit(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		call func(h *harness, ctx context.Context) error
		made bool
	}{
		"verify": {func(h *harness, ctx context.Context) error {
			return drain(h.admin.VerifyMirror(ctx, &mirrorv1.VerifyMirrorRequest{}))
		}, true},
		"verify and repair": {func(h *harness, ctx context.Context) error {
			return drain(h.admin.VerifyMirror(ctx, &mirrorv1.VerifyMirrorRequest{Repair: true}))
		}, false},
		"dry run": {func(h *harness, ctx context.Context) error {
			return drain(h.admin.ReplayEvents(ctx, &mirrorv1.ReplayEventsRequest{DryRun: true}))
		}, true},
		"replay": {func(h *harness, ctx context.Context) error {
			return drain(h.admin.ReplayEvents(ctx, &mirrorv1.ReplayEventsRequest{}))
		}, false},
	} {
		h, log, ctx := audited(t, access.Everything("ops"))
		log.err = fault.Wrap(errors.New("read-only"), fault.Unavailable, fault.ReasonStoreUnavailable, "not made")
		verified := false
		h.sweeper.verify = func(context.Context, mirror.VerifyOptions, func(mirror.VerifyReport) error) error {
			verified = true
			return nil
		}
		err := c.call(h, ctx)
		if made := verified || h.pinner.replay.Filter.Limit != 0; made != c.made || (err == nil) != c.made {
			t.Errorf("%s: made = %t, %v; want %t", what, made, err, c.made)
		}
		want := map[bool]string{true: "OK", false: "UNAVAILABLE"}[c.made]
		if _, ended := log.take(); len(ended) != 1 || ended[0].Code != want {
			t.Errorf("%s ended with %+v; want %s", what, ended, want)
		}
	}
}

// drain reads a stream to its end.
func drain[T any](stream grpc.ServerStreamingClient[T], err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Texts of requests stay out of the audit, and a call that was not valid was not made.
func TestAuditHoldsNoTexts(t *testing.T) {
	t.Parallel()
	h, log, ctx := audited(t, access.Everything("ops"))
	_, err := h.admin.PauseProject(ctx, &mirrorv1.PauseProjectRequest{Reason: "because of alice"})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := h.admin.ReplayEvents(ctx, &mirrorv1.ReplayEventsRequest{UserId: "alice", DryRun: true})
	for err == nil {
		_, err = stream.Recv()
	}
	begun, _ := log.take()
	if len(begun) != 2 || begun[0].Options != "" || begun[1].Options != "dry_run" {
		t.Errorf("begun = %+v; want two, one of them dry_run", begun)
	}
	for _, e := range begun {
		if e.Room != "" || strings.Contains(e.Method+e.Options, "alice") {
			t.Errorf("%+v holds a text", e)
		}
	}
	_, err = h.admin.PauseProject(ctx, &mirrorv1.PauseProjectRequest{})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	if begun, ended := log.take(); len(begun)+len(ended) != 0 {
		t.Errorf("%+v, %+v of a call that is not valid", begun, ended)
	}
}

// The entry of a call about a task or a resource names it.
func TestAuditNamesTheResource(t *testing.T) {
	t.Parallel()
	h, log, ctx := audited(t, access.Everything("ops"))
	thread := mirror.Resource{Project: project, Room: "room", Kind: mirror.KindThread, ID: "th_1"}
	_, _ = h.admin.RetryTask(ctx, &mirrorv1.RetryTaskRequest{TaskId: formatTaskID(thread)})
	_, _ = h.admin.DiscardTask(ctx, &mirrorv1.DiscardTaskRequest{TaskId: formatTaskID(thread)})
	_, _ = h.admin.RequestSync(ctx, &mirrorv1.RequestSyncRequest{
		RoomId: "room", Kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, ResourceId: "th_1",
	})
	_, _ = h.admin.RetryTask(ctx, &mirrorv1.RetryTaskRequest{TaskId: "AAAA"})
	begun, _ := log.take()
	if len(begun) != 4 {
		t.Fatalf("begun = %+v; want four", begun)
	}
	for i, want := range []mirror.Resource{thread, thread, thread, {Project: project}} {
		got := mirror.Resource{Project: begun[i].Project, Room: begun[i].Room, Kind: begun[i].Kind, ID: begun[i].ResourceID}
		if got != want {
			t.Errorf("%s is recorded for %+v; want %+v", begun[i].Method, got, want)
		}
	}
}

// A call that a known caller may not make names its method.
func TestRefusedCallsNameTheMethod(t *testing.T) {
	t.Parallel()
	reader, limited := access.Everything("ops"), access.Everything("ops")
	reader.Scopes, limited.Rooms = access.ScopesOf(access.Read), []string{"mine:"}
	for want, caller := range map[fault.Reason]access.Caller{
		fault.ReasonScopeMissing: reader, fault.ReasonRoomsLimited: limited,
	} {
		var mu sync.Mutex
		var denied []access.Denial
		h, _, ctx := audited(t, caller, func(c *Config) {
			c.Guard = access.NewGuard(access.GuardConfig{
				Now: time.Now, Log: c.Log, Denied: func(d access.Denial) {
					mu.Lock()
					defer mu.Unlock()
					denied = append(denied, d)
				},
				Authenticators: []access.Authenticator{func(context.Context, access.Credential) (access.Caller, error) {
					return caller, nil
				}},
			})
		})
		_, err := h.admin.GetStatus(ctx, &mirrorv1.GetStatusRequest{})
		wantStatus(t, err, codes.PermissionDenied, want)
		mu.Lock()
		if len(denied) != 1 || denied[0].Method != "GetStatus" || denied[0].Reason != want {
			t.Errorf("denied = %+v; want GetStatus for %s", denied, want)
		}
		mu.Unlock()
	}
}

// A call that panics has failed.
func TestAuditOfAPanic(t *testing.T) {
	t.Parallel()
	h, log, ctx := audited(t, access.Everything("ops"))
	h.sweeper.verify = func(context.Context, mirror.VerifyOptions, func(mirror.VerifyReport) error) error { panic("x") }
	stream, err := h.admin.VerifyMirror(ctx, &mirrorv1.VerifyMirrorRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	if _, ended := log.take(); len(ended) != 1 || ended[0].Code != "INTERNAL" || status.Code(err) != codes.Internal {
		t.Errorf("ended = %+v, %v; want INTERNAL", ended, err)
	}
}

// An operator that tries another project is refused, and that is counted.
func TestOtherProjectsAreRefusedCalls(t *testing.T) {
	t.Parallel()
	one := access.Everything("ops")
	one.Projects = []mirror.ProjectID{project}
	var mu sync.Mutex
	var denied []access.Denial
	h, log, ctx := audited(t, one, func(c *Config) {
		c.Projects = []mirror.ProjectID{project, "other"}
		c.Guard = access.NewGuard(access.GuardConfig{
			Now: time.Now, Log: c.Log, Denied: func(d access.Denial) {
				mu.Lock()
				defer mu.Unlock()
				denied = append(denied, d)
			},
			Authenticators: []access.Authenticator{func(context.Context, access.Credential) (access.Caller, error) {
				return one, nil
			}},
		})
	})
	for _, id := range []string{"other", "nowhere"} {
		_, err := h.admin.ResumeProject(ctx, &mirrorv1.ResumeProjectRequest{ProjectId: id})
		wantStatus(t, err, codes.InvalidArgument, fault.ReasonProjectUnknown)
	}
	if begun, ended := log.take(); len(begun)+len(ended) != 0 {
		t.Errorf("%+v, %+v of a project that the caller does not see", begun, ended)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(denied) != 2 || denied[0].Reason != fault.ReasonProjectUnknown || denied[0].Caller.Name != "ops" ||
		denied[0].Method != "ResumeProject" {
		t.Errorf("denied = %+v; want both", denied)
	}
}

func TestListAuditEntries(t *testing.T) {
	t.Parallel()
	one := access.Everything("one")
	one.Projects = []mirror.ProjectID{project}
	log := &fakeAudit{}
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{"one": one, "all": access.Everything("all")})
		c.Projects, c.Audit = []mirror.ProjectID{project, "other"}, log
	})
	call := mirror.AuditEntry{
		Project: project, ID: "a", Time: noon, EndTime: noon.Add(time.Second), Method: "PauseProject", Caller: "ops",
		Address: "192.0.2.1", RequestID: "r", Room: "room", Kind: mirror.KindThread, ResourceID: "th_1", Options: "dry_run",
		Code: "NOT_FOUND", Reason: "X", Calls: 1,
	}
	denied := mirror.AuditEntry{
		Denied: true, Project: project, ID: "b", Time: noon.Add(-time.Minute), Reason: "SCOPE_MISSING", Calls: 7,
	}
	none := mirror.AuditEntry{Denied: true, ID: "c", Time: noon, Reason: "CREDENTIAL_INVALID", Calls: 9}
	theirs := mirror.AuditEntry{Project: "other", ID: "d", Time: noon, Method: "PauseProject", Calls: 1}
	h.query.audit = []mirror.AuditEntry{call, denied, none, theirs}
	as := func(name string) context.Context { return withMetadata(t.Context(), "authorization", "Bearer "+name) }
	got, err := h.admin.ListAuditEntries(as("one"), &mirrorv1.ListAuditEntriesRequest{PageSize: 1})
	want := &mirrorv1.AuditEntry{
		ProjectId: "default", AuditEntryId: "a", StartTime: timestamppb.New(noon),
		EndTime: timestamppb.New(noon.Add(time.Second)), Method: "PauseProject", Caller: "ops", Address: "192.0.2.1",
		RequestId: "r", RoomId: "room", Kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, ResourceId: "th_1",
		Options: "dry_run", Code: "NOT_FOUND", Reason: "X", Calls: 1,
	}
	if err != nil || len(got.GetAuditEntries()) != 1 || got.GetNextPageToken() == "" ||
		gocmp.Diff(want, got.GetAuditEntries()[0], protocmp.Transform()) != "" {
		t.Fatalf("ListAuditEntries = %v, %v; want %v", got, err, want)
	}
	for what, c := range map[string]struct {
		as   string
		req  *mirrorv1.ListAuditEntriesRequest
		want string
	}{
		"all":          {"one", &mirrorv1.ListAuditEntriesRequest{}, "ab"},
		"second page":  {"one", &mirrorv1.ListAuditEntriesRequest{PageSize: 1, PageToken: got.GetNextPageToken()}, "b"},
		"method":       {"one", &mirrorv1.ListAuditEntriesRequest{Method: "PauseProject"}, "a"},
		"caller":       {"one", &mirrorv1.ListAuditEntriesRequest{Caller: "ops"}, "a"},
		"refused":      {"one", &mirrorv1.ListAuditEntriesRequest{Denied: proto.Bool(true)}, "b"},
		"performed":    {"one", &mirrorv1.ListAuditEntriesRequest{Denied: proto.Bool(false)}, "a"},
		"from":         {"one", &mirrorv1.ListAuditEntriesRequest{StartTime: timestamppb.New(noon)}, "a"},
		"to":           {"one", &mirrorv1.ListAuditEntriesRequest{EndTime: timestamppb.New(noon)}, "b"},
		"service wide": {"all", &mirrorv1.ListAuditEntriesRequest{ServiceWide: true}, "c"},
		"other":        {"all", &mirrorv1.ListAuditEntriesRequest{ProjectId: "other"}, "d"},
	} {
		got, err := h.admin.ListAuditEntries(as(c.as), c.req)
		ids := ""
		for _, e := range got.GetAuditEntries() {
			ids += e.GetAuditEntryId()
		}
		if err != nil || ids != c.want {
			t.Errorf("%s = %q, %v; want %q", what, ids, err, c.want)
		}
	}
	_, err = h.admin.ListAuditEntries(as("one"), &mirrorv1.ListAuditEntriesRequest{ServiceWide: true})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonProjectUnknown)
	if log.flushed == 0 {
		t.Error("refused calls that wait are not shown")
	}
	if slices.ContainsFunc(log.begun, func(mirror.AuditEntry) bool { return true }) {
		t.Errorf("reading the audit is recorded: %+v", log.begun)
	}
}
