package rpc

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// callers returns a guard for callers that are named by their bearer tokens.
func callers(list map[string]access.Caller) *access.Guard {
	return access.NewGuard(access.GuardConfig{
		Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Authenticators: []access.Authenticator{func(_ context.Context, c access.Credential) (access.Caller, error) {
			if caller, ok := list[c.Bearer]; ok {
				return caller, nil
			}
			return access.Caller{}, access.ErrUnknown
		}},
	})
}

// method is a method of the API.
type method struct {
	full          string
	input, output protoreflect.MessageType
	streams       bool
}

// methods returns every method of the services of the API.
func methods(t *testing.T) (list []method) {
	t.Helper()
	message := func(d protoreflect.MessageDescriptor) protoreflect.MessageType {
		typ, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
		if err != nil {
			t.Fatal(err)
		}
		return typ
	}
	for _, desc := range serviceDescs() {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
		if err != nil {
			t.Fatal(err)
		}
		service, ok := found.(protoreflect.ServiceDescriptor)
		if !ok {
			t.Fatalf("%s is %T", desc.ServiceName, found)
		}
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			list = append(list, method{
				"/" + desc.ServiceName + "/" + string(m.Name()), message(m.Input()), message(m.Output()), m.IsStreamingServer(),
			})
		}
	}
	return list
}

// call makes a call and returns all answers, without the time of the tailer's clock.
func (m method) call(
	ctx context.Context,
	conn *grpc.ClientConn,
	req proto.Message,
) (answers []proto.Message, err error) {
	defer func() {
		for _, answer := range answers {
			switch answer := answer.(type) {
			case *mirrorv1.ListChangesResponse:
				answer.ReadTime = nil
			case *mirrorv1.WatchChangesResponse:
				if progress := answer.GetProgress(); progress != nil {
					progress.ReadTime = nil
				}
			}
		}
	}()
	if !m.streams {
		answer := m.output.New().Interface()
		if err := conn.Invoke(ctx, m.full, req, answer); err != nil {
			return nil, err
		}
		return []proto.Message{answer}, nil
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, m.full)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil {
		return nil, err
	}
	for {
		answer := m.output.New().Interface()
		switch err := stream.RecvMsg(answer); {
		case errors.Is(err, io.EOF):
			return answers, nil
		case err != nil:
			return nil, err
		}
		answers = append(answers, answer)
	}
}

// Every method has a rule, those added later included, and no rule is left over.
func TestEveryMethodHasARule(t *testing.T) {
	t.Parallel()
	h := start(t)
	seen := []string{access.MetricsPath} // over HTTP
	for service, info := range h.server.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			rule, ok := access.RuleOf(full)
			if !ok {
				t.Errorf("%s has no rule; add one to the table in package access", full)
			}
			ways := 0
			for _, way := range []bool{rule.Open, rule.Anyone, rule.Scope != 0} {
				if way {
					ways++
				}
			}
			if ways != 1 || rule.Whole && rule.Scope == 0 {
				t.Errorf("%s: the rule %+v says not exactly one thing", full, rule)
			}
			seen = append(seen, full)
		}
	}
	for _, full := range access.Methods() {
		if !slices.Contains(seen, full) {
			t.Errorf("there is a rule for %s, which does not exist", full)
		}
	}
}

// A caller may call exactly what its scopes say. What is refused says which scope is
// missing, before anything else.
func TestScopes(t *testing.T) {
	t.Parallel()
	list := map[string]access.Caller{}
	for _, name := range access.ScopeNames() {
		scope, err := access.ParseScope(name)
		if err != nil {
			t.Fatal(err)
		}
		one := access.Everything(name)
		one.Scopes = access.ScopesOf(scope)
		list[name] = one
	}
	h := start(t, func(c *Config) { c.Guard, c.Change.Life = callers(list), 1 })
	for _, m := range methods(t) {
		rule, _ := access.RuleOf(m.full)
		if rule.Open {
			continue
		}
		for name, caller := range list {
			// The request is not valid, so what may be called does nothing.
			_, err := m.call(withMetadata(t.Context(), "authorization", "Bearer "+name), h.conn, m.input.New().Interface())
			switch {
			case caller.Allows(rule.Scope):
				if status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated {
					t.Errorf("%s with the scope %s = %v; want that it is allowed", m.full, name, err)
				}
			default:
				wantStatus(t, err, codes.PermissionDenied, fault.ReasonScopeMissing)
				if !strings.Contains(status.Convert(err).Message(), rule.Scope.String()) {
					t.Errorf("%s with the scope %s = %v; want the name of the scope", m.full, name, err)
				}
			}
		}
	}
}

// stocked fills the mirror with one of everything in each room.
func stocked(q *fakeQuery, rooms ...mirror.RoomID) { stockedIn(project, q, rooms...) }

// stockedIn is stocked for any project. The same rooms have the same ids in all of them.
func stockedIn(project mirror.ProjectID, q *fakeQuery, rooms ...mirror.RoomID) {
	for _, room := range rooms {
		f := mirror.Freshness{FetchTime: noon}
		id := func(kind string) string { return kind + "-" + string(room) }
		q.events = append(q.events, mirror.Event{
			Project: project, ID: id("event"), Room: room, Type: "storageUpdated", ReceiveTime: noon, Payload: []byte(`{}`),
		})
		q.rooms = append(q.rooms, mirror.Room{Project: project, ID: room, Source: []byte(`{}`), Freshness: f})
		for kind, content := range map[mirror.Kind][]byte{
			mirror.KindStorage: []byte(`{"liveblocksType":"LiveObject","data":{}}`), mirror.KindYdoc: {0, 0},
		} {
			q.documents = append(q.documents, mirror.Document{
				Project: project, Room: room, Kind: kind, Content: content, Size: int64(len(content)), SHA256: [32]byte{1},
				Freshness: f,
			})
		}
		for _, kind := range []mirror.Kind{mirror.KindRoom, mirror.KindStorage} {
			q.tasks = append(q.tasks, mirror.Task{
				Resource: mirror.Resource{Project: project, Room: room, Kind: kind}, State: mirror.TaskPending,
			})
		}
		q.threads = append(q.threads, mirror.Thread{
			Project: project, Room: room, ID: "th_1", Source: []byte(`{"id":"th_1"}`), Freshness: f,
		})
		q.comments = append(q.comments, mirror.Comment{
			Project: project, Room: room, Thread: "th_1", ID: "cm_1", Source: []byte(`{"id":"cm_1"}`), CreateTime: noon,
			Freshness: f,
		})
		q.users = append(q.users, mirror.ActiveUsers{
			Project: project, Room: room, Users: []mirror.ActiveUser{{ConnectionID: 1, UserID: id("user")}}, Freshness: f,
		})
		q.audit = append(q.audit, mirror.AuditEntry{
			Project: project, ID: id("entry"), Time: noon, Method: "RequestSync", Room: room, Calls: 1,
		})
		q.sessions = append(q.sessions, mirror.UserSession{Project: project, Room: room, ID: id("session"), EnterTime: noon})
		q.notices = append(q.notices, mirror.Notification{
			Project: project, Room: room, EventID: id("notice"), CreateTime: noon, Freshness: f,
		})
	}
	q.groups = append(
		q.groups,
		mirror.Group{Project: project, ID: "group-others", Freshness: mirror.Freshness{FetchTime: noon}},
	)
}

// aim fills the fields of a request that name something with what is in a room.
func aim(req protoreflect.Message, room string) {
	for i := range req.Descriptor().Fields().Len() {
		field := req.Descriptor().Fields().Get(i)
		var value string
		switch field.Name() {
		case "room_id", "room_id_prefix":
			value = room
		case "thread_id":
			value = "th_1"
		case "comment_id":
			value = "cm_1"
		case "event_id":
			value = "event-" + room
		case "group_id":
			value = "group-" + room
		case "task_id":
			value = formatTaskID(mirror.Resource{Room: mirror.RoomID(room), Kind: mirror.KindRoom})
		case "user_id":
			if req.Descriptor().Name() != "EraseUserRequest" { // of others it is a filter
				continue
			}
			value = "ann"
		case "liveblocks_project_id", "reason":
			value = "p"
		default:
			continue
		}
		req.Set(field, protoreflect.ValueOfString(value))
	}
	fromTheBeginning(req)
}

// fromTheBeginning makes a request for changes one that finds some.
func fromTheBeginning(req protoreflect.Message) {
	if field := req.Descriptor().Fields().ByName("position"); field != nil {
		req.Set(field, protoreflect.ValueOfEnum(mirrorv1.ChangeStart_CHANGE_START_EARLIEST.Number()))
	}
}

// A caller for one prefix learns nothing about other rooms, over any call, those added
// later included: what is not its and what is not there get the same answer.
func TestOtherRoomsDoNotExist(t *testing.T) {
	t.Parallel()
	limited := access.Everything("limited")
	limited.Rooms = []string{"mine:"}
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{"limited": limited, "all": access.Everything("all")})
		c.Change.Life = 1 // over as soon as there is nothing more
	})
	rooms := []mirror.RoomID{"mine:1", "mine:2", "mine", "others", ""}
	stocked(h.query, rooms...)
	for _, room := range rooms {
		r := mirror.Resource{Project: project, Room: room, Kind: mirror.KindRoom}
		h.feed.CommitOf(int(r.Bucket()), r)
	}
	h.worker.refresh = func(context.Context) error { return nil }
	as := func(name string) context.Context { return withMetadata(t.Context(), "authorization", "Bearer "+name) }
	// text is what a call answers, without the name of the room that it asks for.
	text := func(m method, name, room string, change func(protoreflect.Message)) (string, error) {
		req := m.input.New()
		aim(req, room)
		if change != nil {
			change(req)
		}
		answers, err := m.call(as(name), h.conn, req.Interface())
		var b strings.Builder
		for _, a := range answers {
			b.WriteString(prototext.MarshalOptions{}.Format(a) + "\n")
		}
		if err != nil {
			b.WriteString(prototext.MarshalOptions{}.Format(status.Convert(err).Proto()))
		}
		said := strings.Join(strings.Fields(b.String()), " ") // its spaces are random
		task := formatTaskID(mirror.Resource{Room: mirror.RoomID(room), Kind: mirror.KindRoom})
		return strings.NewReplacer(task, "TASK", room, "ROOM").Replace(said), err
	}
	for _, m := range methods(t) {
		rule, _ := access.RuleOf(m.full)
		if rule.Open {
			continue
		}
		if rule.Whole {
			_, err := text(m, "limited", "mine:1", nil)
			wantStatus(t, err, codes.PermissionDenied, fault.ReasonRoomsLimited)
			continue
		}
		// These exist, so that what follows compares something.
		own, err := text(m, "limited", "mine:1", nil)
		if err != nil && m.full != mirrorv1.MirrorService_GetFlow_FullMethodName {
			t.Errorf("%s of an own room = %v", m.full, err)
		}
		if all, err := text(m, "all", "others", nil); err != nil && m.full != mirrorv1.MirrorService_GetFlow_FullMethodName {
			t.Errorf("%s of another room, for who sees all = %s, %v", m.full, all, err)
		}
		for name, change := range map[string]func(protoreflect.Message){
			"as it is": nil,
			"with a maximum age": func(req protoreflect.Message) {
				if field := req.Descriptor().Fields().ByName("max_age"); field != nil {
					req.Mutable(field)
				}
			},
			"with the deleted": func(req protoreflect.Message) {
				if field := req.Descriptor().Fields().ByName("show_deleted"); field != nil {
					req.Set(field, protoreflect.ValueOfBool(true))
				}
			},
		} {
			before := len(h.worker.refreshed) + len(h.worker.requested)
			there, thereErr := text(m, "limited", "others", change)
			nowhere, _ := text(m, "limited", "nowhere", change)
			if there != nowhere {
				t.Errorf("%s %s:\nof a room of others %s\nof none             %s", m.full, name, there, nowhere)
			}
			if there == own && thereErr == nil && !strings.Contains(m.full, "/List") {
				t.Errorf("%s %s of a room of others = %s", m.full, name, there)
			}
			if n := len(h.worker.refreshed) + len(h.worker.requested); n != before {
				t.Errorf("%s %s of a room of others is worked on", m.full, name)
			}
		}
		// Without a filter, lists have what is in the caller's rooms.
		req := m.input.New()
		if !strings.Contains(m.full, "/List") || req.Descriptor().Fields().ByName("page_size") == nil {
			continue
		}
		fromTheBeginning(req)
		answers, err := m.call(as("limited"), h.conn, req.Interface())
		if status.Code(err) == codes.InvalidArgument { // it needs a room
			continue
		}
		said := fmt.Sprint(answers)
		if err != nil || !strings.Contains(said, "mine:1") || !strings.Contains(said, "mine:2") ||
			strings.Contains(said, "others") || strings.Contains(said, `"mine"`) {
			t.Errorf("%s = %s, %v; want what is in the rooms of the caller", m.full, said, err)
		}
		all, _ := m.call(as("all"), h.conn, req.Interface())
		if !strings.Contains(fmt.Sprint(all), "others") {
			t.Errorf("%s for who sees all = %v", m.full, all)
		}
	}
}

// A page token is of no use to a caller that sees other rooms, or another project.
func TestPageTokensAreTheCallers(t *testing.T) {
	t.Parallel()
	a, b, c := access.Everything("a"), access.Everything("b"), access.Everything("c")
	a.Rooms, b.Rooms = []string{"a:"}, []string{"b:"}
	h := start(t, func(cfg *Config) { cfg.Guard = callers(map[string]access.Caller{"a": a, "b": b, "c": c, "a2": a}) })
	stocked(h.query, "a:1", "a:2", "a:3", "b:1", "b:2")
	as := func(name string) context.Context { return withMetadata(t.Context(), "authorization", "Bearer "+name) }
	for _, m := range methods(t) {
		size, token := m.input.Descriptor().Fields().ByName(
			"page_size",
		), m.output.Descriptor().Fields().ByName(
			"next_page_token",
		)
		rule, _ := access.RuleOf(m.full)
		if size == nil || token == nil || rule.Whole || m.input.Descriptor().Fields().ByName("room_id") != nil &&
			strings.Contains(m.full, "ListFlows") || strings.Contains(m.full, "ListActiveUsers") {
			continue // or all of it is in one room
		}
		req := m.input.New()
		req.Set(size, protoreflect.ValueOfInt32(1))
		first, err := m.call(as("a"), h.conn, req.Interface())
		if err != nil {
			t.Errorf("%s = %v", m.full, err)
			continue
		}
		next := first[0].ProtoReflect().Get(token).String()
		if next == "" {
			t.Errorf("%s has one page", m.full)
		}
		req.Set(m.input.Descriptor().Fields().ByName("page_token"), protoreflect.ValueOfString(next))
		for name, want := range map[string]fault.Reason{
			"a": "", "a2": "", "b": fault.ReasonPageTokenMismatch, "c": fault.ReasonPageTokenMismatch,
		} {
			_, err := m.call(as(name), h.conn, req.Interface())
			if want == "" && err != nil {
				t.Errorf("%s with a token of a caller that sees the same = %v", m.full, err)
			}
			if want != "" {
				wantStatus(t, err, codes.InvalidArgument, want)
			}
		}
	}
}

// A caller for one project learns nothing about another one, over any call, those added
// later included: it gets the answers that it would get if the other were not configured.
func TestOtherProjectsDoNotExist(t *testing.T) {
	t.Parallel()
	const other, removed = mirror.ProjectID("other"), mirror.ProjectID("removed")
	one, both := access.Everything("one"), access.Everything("both")
	one.Projects, both.Projects = []mirror.ProjectID{project}, []mirror.ProjectID{project, other}
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{"one": one, "both": both, "all": access.Everything("all")})
		c.Projects = []mirror.ProjectID{project, other}
		c.Change.Life = 1 // over as soon as there is nothing more
	})
	for _, r := range []mirror.Resource{
		{Project: project, Room: "same"},
		{Project: project, Room: "own"},
		{Project: other, Room: "same"},
		{Project: other, Room: "theirs"},
	} {
		r.Kind = mirror.KindRoom
		h.feed.CommitOf(int(r.Bucket()), r)
	}
	stockedIn(project, h.query, "same", "own")
	stockedIn(other, h.query, "same", "theirs")
	stockedIn(removed, h.query, "gone")
	h.worker.refresh = func(context.Context) error { return nil }
	h.sweeper.verify = func(context.Context, mirror.VerifyOptions, func(mirror.VerifyReport) error) error { return nil }
	// text is what a call answers, without the names of what it asks for.
	text := func(m method, name, room string, in mirror.ProjectID) (string, error) {
		req := m.input.New()
		aim(req, room)
		if field := req.Descriptor().Fields().ByName("project_id"); field != nil && in != "" {
			req.Set(field, protoreflect.ValueOfString(string(in)))
		}
		answers, err := m.call(withMetadata(t.Context(), "authorization", "Bearer "+name), h.conn, req.Interface())
		said := fmt.Sprint(answers)
		if err != nil {
			said = prototext.MarshalOptions{}.Format(status.Convert(err).Proto())
		}
		said = strings.Join(strings.Fields(said), " ") // its spaces are random
		names := []string{room, "ROOM"}
		for kind := range mirror.KindSweep {
			names = append(names, formatTaskID(mirror.Resource{Room: mirror.RoomID(room), Kind: kind}), "TASK")
		}
		return strings.NewReplacer(names...).Replace(said), err
	}
	seen := 0
	for _, m := range methods(t) {
		if rule, _ := access.RuleOf(m.full); rule.Open || m.input.Descriptor().Fields().ByName("project_id") == nil {
			continue
		}
		seen++
		before := len(h.worker.refreshed) + len(h.worker.requested) + h.sweeper.calls
		for _, room := range []string{"same", "theirs"} {
			there, err := text(m, "one", room, other)
			wantStatus(t, err, codes.InvalidArgument, fault.ReasonProjectUnknown)
			nowhere, _ := text(m, "one", room, "nowhere")
			gone, _ := text(m, "all", room, removed)
			if there != nowhere || there != gone {
				t.Errorf("%s:\nof another project    %s\nof none               %s\nof one that is removed %s",
					m.full, there, nowhere, gone)
			}
		}
		// Who sees several has to say which.
		for _, name := range []string{"both", "all"} {
			_, err := text(m, name, "same", "")
			wantStatus(t, err, codes.InvalidArgument, fault.ReasonProjectUnknown)
		}
		if n := len(h.worker.refreshed) + len(h.worker.requested) + h.sweeper.calls; n != before {
			t.Errorf("%s of another project is worked on", m.full)
		}
		// Without a project, ids are those of the only one: what another one has is not there.
		there, _ := text(m, "one", "theirs", "")
		nowhere, _ := text(m, "one", "nowhere", "")
		if there != nowhere {
			t.Errorf("%s:\nof another project's id %s\nof none                 %s", m.full, there, nowhere)
		}
		if !strings.Contains(m.full, "/List") {
			continue
		}
		req := m.input.New()
		fromTheBeginning(req)
		answers, err := m.call(withMetadata(t.Context(), "authorization", "Bearer one"), h.conn, req.Interface())
		if status.Code(err) == codes.InvalidArgument { // it needs a room
			continue
		}
		if said := fmt.Sprint(answers); err != nil || strings.Contains(said, "theirs") ||
			!strings.Contains(said, "own") && !strings.Contains(said, "group-others") {
			t.Errorf("%s = %s, %v; want what is in the project of the caller", m.full, said, err)
		}
	}
	if seen < 29 {
		t.Errorf("saw %d calls that take a project", seen)
	}
}

// The status shows a caller its projects, and no number in which others count.
func TestStatusIsOfTheCallersProjects(t *testing.T) {
	t.Parallel()
	const other, removed = mirror.ProjectID("other"), mirror.ProjectID("removed")
	one, both, past := access.Everything("one"), access.Everything("both"), access.Everything("past")
	one.Projects, both.Projects = []mirror.ProjectID{project}, []mirror.ProjectID{project, other}
	past.Projects = []mirror.ProjectID{removed, "nowhere"}
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{
			"one": one, "both": both, "past": past, "all": access.Everything("all"),
		})
		c.Projects = []mirror.ProjectID{project, other}
	})
	stockedIn(project, h.query, "own")
	stockedIn(removed, h.query, "gone")
	for name, want := range map[string]struct {
		projects, removed []string
		counts            bool
	}{
		"one":  {[]string{"default"}, nil, false},
		"both": {[]string{"default", "other"}, nil, true},
		"past": {nil, []string{"removed"}, false},
		"all":  {[]string{"default", "other"}, []string{"removed"}, true},
	} {
		ctx := withMetadata(t.Context(), "authorization", "Bearer "+name)
		got, err := h.admin.GetStatus(ctx, &mirrorv1.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, p := range got.GetProjects() {
			ids = append(ids, p.GetProjectId())
		}
		if !slices.Equal(ids, want.projects) || !slices.Equal(got.GetRemovedProjectIds(), want.removed) {
			t.Errorf("GetStatus for %s has the projects %q and %q; want %q and %q", name, ids, got.GetRemovedProjectIds(),
				want.projects, want.removed)
		}
		if (got.GetDeliveries() != nil) != want.counts || (got.GetDocumentMemoryBytes() != 0) != want.counts {
			t.Errorf("GetStatus for %s = %v; want counts of all projects: %t", name, got, want.counts)
		}
	}
}

// A page token of one project is of no use in another, and says nothing: it is answered
// like one of a project that is nowhere.
func TestPageTokensOfOtherProjects(t *testing.T) {
	t.Parallel()
	const other = mirror.ProjectID("other")
	one := access.Everything("one")
	one.Projects = []mirror.ProjectID{project}
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{"one": one, "all": access.Everything("all")})
		c.Projects = []mirror.ProjectID{project, other}
	})
	stockedIn(project, h.query, "a", "b")
	stockedIn(other, h.query, "a", "b")
	as := func(name string) context.Context { return withMetadata(t.Context(), "authorization", "Bearer "+name) }
	tried := 0
	for _, m := range methods(t) {
		fields := m.input.Descriptor().Fields()
		size, token := fields.ByName("page_size"), m.output.Descriptor().Fields().ByName("next_page_token")
		if size == nil || token == nil {
			continue
		}
		req := m.input.New()
		req.Set(fields.ByName("project_id"), protoreflect.ValueOfString(string(other)))
		req.Set(size, protoreflect.ValueOfInt32(1))
		first, err := m.call(as("all"), h.conn, req.Interface())
		if err != nil || first[0].ProtoReflect().Get(token).String() == "" {
			continue // a list in one room, or one page
		}
		tried++
		theirs := first[0].ProtoReflect().Get(token).String()
		req.Clear(fields.ByName("project_id"))
		req.Set(fields.ByName("page_token"), protoreflect.ValueOfString(theirs))
		_, there := m.call(as("one"), h.conn, req.Interface())
		wantStatus(t, there, codes.InvalidArgument, fault.ReasonPageTokenMismatch)

		// One of a project that is nowhere differs from it in the hash only.
		raw, err := decodeBase64(theirs)
		if err != nil {
			t.Fatal(err)
		}
		req.Clear(fields.ByName("page_token"))
		hash, err := hashFilters(req.Interface(), scope{project: "nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		copy(raw[2:], hash[:]) // behind the version and the list
		req.Set(fields.ByName("page_token"), protoreflect.ValueOfString(base64.RawURLEncoding.EncodeToString(raw)))
		if _, nowhere := m.call(as("one"), h.conn, req.Interface()); nowhere.Error() != there.Error() {
			t.Errorf("%s with a token of another project = %v, of none = %v; want the same", m.full, there, nowhere)
		}
	}
	if tried < 7 {
		t.Errorf("tried %d lists", tried)
	}
}

// Webhooks are accepted from the allowed addresses only, if there are some.
func TestWebhookAllow(t *testing.T) {
	t.Parallel()
	s := New(Config{WebhookAllow: access.Networks{netip.MustParsePrefix("192.0.2.0/24")}, Guard: guardOf("token")})
	for address, ok := range map[string]bool{"192.0.2.9": true, "::ffff:192.0.2.9": true, "198.51.100.1": false} {
		if err := s.Deliver(netip.MustParseAddr(address)); (err == nil) != ok ||
			err != nil && !fault.Is(err, fault.ReasonAddressNotAllowed) {
			t.Errorf("Deliver(%s) = %v; want %t", address, err, ok)
		}
	}
	if err := New(Config{}).Deliver(netip.Addr{}); err != nil {
		t.Errorf("Deliver without a list = %v", err)
	}
	// A call that the gateway has let pass is not asked again; one over the network is.
	h := start(t, func(c *Config) { c.WebhookAllow = access.Networks{netip.MustParsePrefix("192.0.2.0/24")} })
	_, err := h.events.ReceiveWebhook(t.Context(), &mirrorv1.ReceiveWebhookRequest{})
	wantStatus(t, err, codes.PermissionDenied, fault.ReasonAddressNotAllowed)
}

// What has no rule is refused to everybody, and what anybody may call needs some right.
func TestMethodsWithoutARule(t *testing.T) {
	t.Parallel()
	h := start(t)
	called := func(caller access.Caller, method string) error {
		return h.services.authenticate(access.Into(t.Context(), caller), method, func(context.Context) error { return nil })
	}
	anyone := access.Methods()[slices.IndexFunc(access.Methods(), func(m string) bool {
		rule, _ := access.RuleOf(m)
		return rule.Anyone
	})]
	for what, c := range map[string]struct {
		caller access.Caller
		method string
		ok     bool
	}{
		"no rule":                {access.Everything("a"), "/liveblocks.mirror.v1.MirrorService/Invented", false},
		"anyone":                 {access.Caller{Scopes: access.ScopesOf(access.Metrics)}, anyone, true},
		"anyone without a right": {access.Caller{}, anyone, false},
	} {
		err := called(c.caller, c.method)
		if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.ReasonScopeMissing) {
			t.Errorf("%s: %s = %v; want it allowed: %t", what, c.method, err, c.ok)
		}
	}
}
