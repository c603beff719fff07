// Package rpc serves the gRPC API. It translates requests to calls of the other
// packages, their results to messages, and failures to statuses. Only this package
// and the gateway know protobuf and status codes.
package rpc

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/fresh"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

const (
	// DefaultMaxMessage is gRPC's default limit of a message that a client
	// receives.
	DefaultMaxMessage = 4 << 20

	// envelope is the space for the rest of a message with one large field: ids of
	// up to 512 bytes, times, a sentence.
	envelope = 64 << 10
	// maxStreams is the maximum number of concurrent calls on one connection;
	// further calls wait in the client. 20,000 deliveries per second of 20 ms each
	// are 400 calls.
	maxStreams = 1024
	// streamWorkers is the number of permanent goroutines that handle calls.
	// Handlers wait for the database with a deep stack; a new goroutine for each
	// call would spend a sixth of its time growing it. Further calls get their own
	// goroutines.
	streamWorkers = 256
)

// Config configures the services. Every field is required unless stated otherwise.
type Config struct {
	// Projects are the configured projects.
	Projects []mirror.ProjectID
	// Guard finds out who calls; nil refuses all.
	Guard *access.Guard
	// Audit records what operators do; nil records nothing.
	Audit Auditor
	// Proxies are the addresses of the proxies that say truly for whom they forward.
	Proxies access.Networks
	// WebhookAllow are the addresses from which webhooks are accepted; nil means all.
	WebhookAllow access.Networks
	Log          *slog.Logger
	Now          func() time.Time
	// Calls, if set, is told of each call.
	Calls CallWatcher
	// Tracer begins a span for each call; nil begins none.
	Tracer *tracing.Tracer
	// MaxMessage is the maximum size of a unary response; zero means
	// [DefaultMaxMessage].
	MaxMessage int

	Event  EventDeps
	Mirror MirrorDeps
	Change ChangeDeps
	Admin  AdminDeps
}

// Services holds the gRPC services and their interceptors.
type Services struct {
	guard    *access.Guard
	audit    Auditor
	proxies  access.Networks
	allow    access.Networks
	logger   *slog.Logger
	validate *validator
	health   *health.Server
	calls    CallWatcher
	tracer   *tracing.Tracer
	types    map[string]string        // of the methods, by full name
	watchers map[string]MethodWatcher // of the same, if calls is set

	event  *eventService
	mirror *mirrorService
	change *changeService
	admin  *adminService
}

// common is shared by the services.
type common struct {
	projects   []mirror.ProjectID
	now        func() time.Time
	maxMessage int
}

// New returns the services. They report NOT_SERVING until [Services.SetServing].
func New(cfg Config) *Services {
	c := common{projects: cfg.Projects, now: cfg.Now, maxMessage: cmp.Or(cfg.MaxMessage, DefaultMaxMessage)}
	freshness := &fresh.Reader{
		Refresher: cfg.Mirror.Refresher, Now: cfg.Now,
		NotRefreshed: func(ctx context.Context, err error) {
			cfg.Log.DebugContext(ctx, "not refreshed, the copy at hand is the answer",
				slog.String("request_id", requestID(ctx)), slog.Any("error", err))
		},
	}
	reader := documents.New(cfg.Mirror.Query, freshness, cfg.Mirror.Documents)
	cfg.Change.Memory = cmp.Or(cfg.Change.Memory, defaultChangeMemory)
	s := &Services{
		guard:    cfg.Guard,
		audit:    cfg.Audit,
		proxies:  cfg.Proxies,
		allow:    cfg.WebhookAllow,
		logger:   cfg.Log,
		validate: newValidator(),
		health:   health.NewServer(),
		calls:    cfg.Calls,
		tracer:   cfg.Tracer,
		types:    methodTypes(),
		event:    &eventService{common: c, EventDeps: cfg.Event},
		mirror: &mirrorService{
			common: c, MirrorDeps: cfg.Mirror, fresh: freshness, documents: reader,
		},
		change: &changeService{
			common: c, ChangeDeps: cfg.Change, identities: make(map[mirror.ProjectID]knownIdentity),
			callers: make(map[string]*followingCaller), pages: make(chan struct{}, pageReaders),
			memory: semaphore.NewWeighted(cfg.Change.Memory), guard: cfg.Guard, documents: reader,
			log: cfg.Log,
		},
		admin: &adminService{common: c, AdminDeps: cfg.Admin, audit: cfg.Audit},
	}
	if s.calls != nil {
		s.watchers = make(map[string]MethodWatcher, len(s.types))
		for full := range s.types {
			s.watchers[full] = s.watcherOf(full)
		}
	}
	s.SetServing(false)
	return s
}

// Project returns the project of the reads of a context that name none: the only one that
// its caller sees. It refuses who may not read.
func (s *Services) Project(ctx context.Context) (string, error) {
	rule, _ := access.RuleOf(mirrorv1.MirrorService_GetRoom_FullMethodName)
	if err := s.guard.Permit(rule, callerOf(ctx)); err != nil {
		return "", Refusal(ctx, err)
	}
	project, err := s.mirror.project(ctx, "")
	if err != nil {
		return "", Refusal(ctx, err)
	}
	return string(project), nil
}

// Permit returns the project of a call of Liveblocks' REST API that needs the scope, as
// Project does. Without a room it is about all rooms. A caller that does not see the room gets
// the answer for one that is not there.
func (s *Services) Permit(ctx context.Context, scope access.Scope, room *string) (string, error) {
	caller := callerOf(ctx)
	rule := access.Rule{Method: scope.String(), Scope: scope, Whole: room == nil}
	if err := s.guard.Permit(rule, caller); err != nil {
		return "", Refusal(ctx, err)
	}
	project, err := s.mirror.project(ctx, "")
	if err == nil && room != nil && !caller.SeesRoom(project, mirror.RoomID(*room)) {
		err = roomNotMirrored(store.ErrNotFound, *room)
	}
	if err != nil {
		return "", Refusal(ctx, err)
	}
	return string(project), nil
}

// serviceDescs are the services of the API.
func serviceDescs() []*grpc.ServiceDesc {
	return []*grpc.ServiceDesc{
		&mirrorv1.EventService_ServiceDesc,
		&mirrorv1.MirrorService_ServiceDesc,
		&mirrorv1.ChangeService_ServiceDesc,
		&mirrorv1.AdminService_ServiceDesc,
	}
}

// Register adds the services of the API to r. r must pass every call through
// [Services.UnaryInterceptor] or [Services.StreamInterceptor].
func (s *Services) Register(r grpc.ServiceRegistrar) {
	mirrorv1.RegisterEventServiceServer(r, s.event)
	mirrorv1.RegisterMirrorServiceServer(r, s.mirror)
	mirrorv1.RegisterChangeServiceServer(r, s.change)
	mirrorv1.RegisterAdminServiceServer(r, s.admin)
}

// SetServing sets the status of every service in the standard health service.
func (s *Services) SetServing(serving bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
	for _, desc := range serviceDescs() {
		s.health.SetServingStatus(desc.ServiceName, state)
	}
}

// NewServer returns a gRPC server with the services, health and reflection. The
// options are for transport credentials and telemetry.
func NewServer(s *Services, options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append([]grpc.ServerOption{
		grpc.UnaryInterceptor(s.UnaryInterceptor()),
		grpc.StreamInterceptor(s.StreamInterceptor()),
		grpc.ForceServerCodecV2(newCodec()),
		// A body slightly over the limit must reach the handler, which returns the
		// right reason; gRPC's own error would look like a full queue.
		grpc.MaxRecvMsgSize(MaxWebhook + envelope),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}, options...)...)
	s.Register(server)
	healthv1.RegisterHealthServer(server, s.health)
	reflection.Register(server)
	return server
}

// scope is what a call can see: one project, and the rooms in it that its caller sees.
// Every request is resolved to one, and nothing is read that is not in it: resources by
// [scope.sees], lists by [scope.rooms]. What the caller does not see is for it as what
// does not exist.
type scope struct {
	project mirror.ProjectID
	caller  *access.Caller
	// rooms are the prefixes that lists are limited to; nil for all rooms.
	rooms []string
}

// sees reports whether the room is in the scope.
func (s scope) sees(room mirror.RoomID) bool { return s.caller.SeesRoom(s.project, room) }

// scope returns the scope of a call for the project that its request names or implies.
func (c *common) scope(ctx context.Context, id string) (scope, error) {
	caller := callerOf(ctx)
	project, err := c.visible(caller, id)
	if err != nil {
		return scope{}, err
	}
	return scope{project: project, caller: caller, rooms: caller.Prefixes()}, nil
}

// project returns the project that a request names or implies.
func (c *common) project(ctx context.Context, id string) (mirror.ProjectID, error) {
	return c.visible(callerOf(ctx), id)
}

// visible is the one place that decides which project a call is for. What its caller does
// not see and what is not configured get the same answer.
func (c *common) visible(caller *access.Caller, id string) (mirror.ProjectID, error) {
	if id == "" {
		switch all := c.seen(caller); len(all) {
		case 0:
		case 1:
			return all[0], nil
		default:
			return "", unknownProject("several projects are configured: name one in project_id")
		}
	} else if project := mirror.ProjectID(id); caller.SeesProject(project) && slices.Contains(c.projects, project) {
		return project, nil
	}
	return "", unknownProject("no such project is configured")
}

// seen returns the configured projects that a caller sees.
func (c *common) seen(caller *access.Caller) []mirror.ProjectID {
	return slices.DeleteFunc(slices.Clone(c.projects), func(id mirror.ProjectID) bool { return !caller.SeesProject(id) })
}

// callerOf returns who calls. Without one, it returns a caller who sees nothing.
func callerOf(ctx context.Context) *access.Caller {
	if caller, ok := access.From(ctx); ok {
		return caller
	}
	return &access.Caller{}
}

func unknownProject(public string) error {
	f := fault.New(fault.Invalid, fault.ReasonProjectUnknown, public)
	f.Fields = []fault.Field{{Path: "project_id", Problem: public}}
	return f
}

// pageBudget is the maximum size of a page's items in bytes. A quarter of the
// message stays free for clients that count differently.
func (c *common) pageBudget() int { return c.maxMessage / 4 * 3 }

// fits refuses a response that does not fit in one message; public names another
// way to read it.
func (c *common) fits(answer proto.Message, public string) error {
	size, limit := proto.Size(answer), c.maxMessage-envelope
	if size <= limit {
		return nil
	}
	return tooLarge(public, size, limit)
}

func tooLarge(public string, size, limit int) error {
	return fault.New(fault.Precondition, fault.ReasonDocumentTooLarge, public).
		With("size", strconv.Itoa(size)).With("limit", strconv.Itoa(limit))
}
