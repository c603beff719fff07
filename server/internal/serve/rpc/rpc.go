// Package rpc serves the gRPC API: it turns requests into calls of the core,
// answers of the core into messages, and failures into statuses. Protobuf and
// status codes are known here and in the gateway, nowhere else.
package rpc

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// DefaultMaxMessage is gRPC's own limit for what a client takes in one
	// message, unless the client raises it.
	DefaultMaxMessage = 4 << 20
	// DefaultMaxWebhook bounds the body of a delivery.
	DefaultMaxWebhook = 1 << 20

	// envelope is room for what a message holds beside its one large field: ids
	// of at most 512 bytes, times, a sentence.
	envelope = 64 << 10
	// receiveTimeout ends a delivery that cannot be recorded. Svix waits 15 s, and
	// an answer that it still hears tells more than silence.
	receiveTimeout = 10 * time.Second
	// maxStreams bounds the calls in flight on one connection; a client waits
	// with the rest. At 20,000 deliveries a second and 20 ms each, 400 are.
	maxStreams = 1024
	// streamWorkers is how many goroutines stay to handle one call after another.
	// Handlers wait for the database on a deep stack; a goroutine made for one call
	// spends a sixth of its time growing it. Calls beyond these get their own.
	streamWorkers = 256
)

// Receiver verifies and records a webhook delivery. It returns after the event
// is durable. An empty project leaves it to the secret that verifies.
type Receiver interface {
	Receive(ctx context.Context, project mirror.ProjectID, h webhook.Headers, body []byte) (ledger.Receipt, error)
}

// Refresher brings copies up to date: it raises the resources, lets the workers
// fetch and waits until the result is applied. It fails with REFRESH_FAILED,
// PROJECT_PAUSED or the context's error.
type Refresher interface {
	Refresh(ctx context.Context, resources ...mirror.Resource) error
}

// Requester raises resources and starts failed tasks again, as
// [store.Tasks] does, and wakes the workers.
type Requester interface {
	Request(ctx context.Context, resources []mirror.Resource) ([]mirror.Pending, error)
	Retry(ctx context.Context, resource mirror.Resource) (mirror.Task, error)
}

// Sweeper compares a project's rooms with Liveblocks' list of them.
type Sweeper interface {
	// Start begins a full sweep, unless one is under way, and wakes the workers. It
	// returns without waiting for it.
	Start(ctx context.Context, project mirror.ProjectID) (mirror.Backfill, error)
	// Status tells how far the project's latest sweep is, full or not; the zero Sweep
	// with the project if there has been none.
	Status(ctx context.Context, project mirror.ProjectID) (mirror.Backfill, error)
}

// Verifier compares what is mirrored with Liveblocks.
type Verifier interface {
	// Verify hands each difference to report as it is found, its progress now and
	// then, and at the end the summary. It calls report from one goroutine at a time,
	// and ends with the error of a report that fails.
	Verify(ctx context.Context, options mirror.VerifyOptions, report func(mirror.VerifyReport) error) error
}

// StatusSource tells how the process is doing. It is asked for every GetStatus
// and may ask the store for its version.
type StatusSource interface {
	Status(ctx context.Context) (Status, error)
}

// Status is what the process knows of itself.
type Status struct {
	// Ready says whether deliveries and reads are taken.
	Ready bool
	// Engine is the database's name and version.
	Engine string
	// Deliveries counts deliveries since the process started.
	Deliveries Deliveries
	// Gates tells, by project, how freely Liveblocks may be called.
	Limiters map[mirror.ProjectID]Limiter
}

// Deliveries counts webhook deliveries; the fields are those of DeliveryCounts
// in the API.
type Deliveries struct {
	Accepted, Duplicate, Unauthenticated, Unavailable int64
	UnknownType, Malformed, ForeignProject            int64
}

// limiter is what stands between a project's workers and Liveblocks.
type Limiter struct {
	// CallsPerSecond is the present limit.
	CallsPerSecond float64
	// ThrottledUntil is until when Liveblocks asked not to be called.
	ThrottledUntil time.Time
	// PauseReason and PausedSince tell of a pause of this process. Without one,
	// what is stored may still tell of another replica's.
	PauseReason string
	PausedSince time.Time
}

// Deps is what the services are made of. Everything is required unless it says
// otherwise.
type Deps struct {
	Log *slog.Logger
	Now func() time.Time
	// Projects are the configured projects.
	Projects  []mirror.ProjectID
	Query     store.Query
	Receiver  Receiver
	Refresher Refresher
	Requester Requester
	Sweeper   Sweeper
	Verifier  Verifier
	Status    StatusSource
	// Auth decides who may call; nil lets nobody in.
	Auth *Authenticator
	// Observe is told of every finished call, for counters. May be nil.
	Observe func(method string, code codes.Code, took time.Duration)
	// Version is the version of the binary, StartTime when it started.
	Version   string
	StartTime time.Time
	// MaxMessage bounds unary answers; zero means [DefaultMaxMessage].
	MaxMessage int
	// MaxWebhook bounds the body of a delivery; zero means [DefaultMaxWebhook].
	MaxWebhook int
}

// Services are the gRPC services and what every call to them passes through.
type Services struct {
	Deps

	validate  *validator
	health    *health.Server
	documents *documentReader
}

// New returns the services. They report NOT_SERVING until [Services.SetServing].
func New(deps Deps) *Services {
	deps.MaxMessage = cmp.Or(deps.MaxMessage, DefaultMaxMessage)
	deps.MaxWebhook = cmp.Or(deps.MaxWebhook, DefaultMaxWebhook)
	s := &Services{Deps: deps, validate: newValidator(), health: health.NewServer(),
		documents: newDocumentReader(deps.Query)}
	s.SetServing(false)
	return s
}

// serviceDescs are the services of the API.
func serviceDescs() []*grpc.ServiceDesc {
	return []*grpc.ServiceDesc{
		&mirrorv1.EventService_ServiceDesc,
		&mirrorv1.MirrorService_ServiceDesc,
		&mirrorv1.AdminService_ServiceDesc,
	}
}

// Register adds the services of the API to r, which has to put every call
// through [Services.UnaryInterceptor] or [Services.StreamInterceptor].
func (s *Services) Register(r grpc.ServiceRegistrar) {
	mirrorv1.RegisterEventServiceServer(r, &eventService{s: s})
	mirrorv1.RegisterMirrorServiceServer(r, &mirrorService{s: s})
	mirrorv1.RegisterAdminServiceServer(r, &adminService{s: s})
}

// SetServing sets what the standard health service says of every service.
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

// NewServer returns a gRPC server with the services, health and reflection.
// The options are for what surrounds it: transport credentials and telemetry.
func NewServer(s *Services, options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append([]grpc.ServerOption{
		grpc.UnaryInterceptor(s.UnaryInterceptor()),
		grpc.StreamInterceptor(s.StreamInterceptor()),
		grpc.ForceServerCodecV2(newCodec()),
		// A body slightly over the limit still reaches the handler, whose refusal
		// names the reason; gRPC's own would look like a full queue.
		grpc.MaxRecvMsgSize(s.MaxWebhook + envelope),
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

// project returns the configured project that a request means.
func (s *Services) project(id string) (mirror.ProjectID, error) {
	if id == "" {
		if len(s.Projects) == 1 {
			return s.Projects[0], nil
		}
		return "", unknownProject("several projects are configured: name one in project_id")
	}
	if project := mirror.ProjectID(id); slices.Contains(s.Projects, project) {
		return project, nil
	}
	return "", unknownProject("no such project is configured")
}

func unknownProject(public string) error {
	f := fault.New(fault.Invalid, fault.ReasonProjectUnknown, public)
	f.Fields = []fault.Field{{Path: "project_id", Problem: public}}
	return f
}
