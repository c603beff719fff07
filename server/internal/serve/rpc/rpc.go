// Package rpc serves the gRPC API: it turns requests into calls of the core,
// answers of the core into messages, and failures into statuses. Protobuf and
// status codes are known here and in the gateway, nowhere else.
package rpc

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/fresh"
)

const (
	// DefaultMaxMessage is gRPC's own limit for what a client takes in one
	// message, unless the client raises it.
	DefaultMaxMessage = 4 << 20

	// envelope is room for what a message holds beside its one large field: ids
	// of at most 512 bytes, times, a sentence.
	envelope = 64 << 10
	// maxStreams bounds the calls in flight on one connection; a client waits
	// with the rest. At 20,000 deliveries a second and 20 ms each, 400 are.
	maxStreams = 1024
	// streamWorkers is how many goroutines stay to handle one call after another.
	// Handlers wait for the database on a deep stack; a goroutine made for one call
	// spends a sixth of its time growing it. Calls beyond these get their own.
	streamWorkers = 256
)

// Config is what the services are made of. Everything is required unless it says
// otherwise.
type Config struct {
	// Projects are the configured projects.
	Projects []mirror.ProjectID
	// Auth decides who may call; nil lets nobody in.
	Auth *Authenticator
	Log  *slog.Logger
	Now  func() time.Time
	// MaxMessage bounds unary answers; zero means [DefaultMaxMessage].
	MaxMessage int

	Event  EventDeps
	Mirror MirrorDeps
	Admin  AdminDeps
}

// Services are the gRPC services and what every call to them passes through.
type Services struct {
	auth     *Authenticator
	logger   *slog.Logger
	validate *validator
	health   *health.Server

	event  *eventService
	mirror *mirrorService
	admin  *adminService
}

// common is what the services share.
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
	s := &Services{
		auth: cfg.Auth, logger: cfg.Log, validate: newValidator(), health: health.NewServer(),
		event: &eventService{common: c, EventDeps: cfg.Event},
		mirror: &mirrorService{
			common: c, MirrorDeps: cfg.Mirror, fresh: freshness, documents: documents.New(cfg.Mirror.Query, freshness),
		},
		admin: &adminService{common: c, AdminDeps: cfg.Admin},
	}
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
	mirrorv1.RegisterEventServiceServer(r, s.event)
	mirrorv1.RegisterMirrorServiceServer(r, s.mirror)
	mirrorv1.RegisterAdminServiceServer(r, s.admin)
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

// project returns the configured project that a request means.
func (c *common) project(id string) (mirror.ProjectID, error) {
	if id == "" {
		if len(c.projects) == 1 {
			return c.projects[0], nil
		}
		return "", unknownProject("several projects are configured: name one in project_id")
	}
	if project := mirror.ProjectID(id); slices.Contains(c.projects, project) {
		return project, nil
	}
	return "", unknownProject("no such project is configured")
}

func unknownProject(public string) error {
	f := fault.New(fault.Invalid, fault.ReasonProjectUnknown, public)
	f.Fields = []fault.Field{{Path: "project_id", Problem: public}}
	return f
}

// pageBudget bounds the items of a page in bytes, with a quarter of the message
// to spare for clients that count otherwise.
func (c *common) pageBudget() int { return c.maxMessage / 4 * 3 }

// fits refuses an answer that does not fit one message; public says how else it
// can be read.
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
