package rpc

import (
	"context"
	"log/slog"
	"path"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Auditor records what operators do.
type Auditor interface {
	// Begin records that a call begins. If that fails, the call is not made, unless it only
	// reads. End follows in any case.
	Begin(ctx context.Context, entry *mirror.AuditEntry) error
	// End has it recorded how it has ended, without waiting for that.
	End(ctx context.Context, entry mirror.AuditEntry)
	// Flush records the refused calls so far.
	Flush(ctx context.Context) error
}

// auditedCall is a call that is recorded once its request is there.
type auditedCall struct {
	method string
	begun  bool
	entry  mirror.AuditEntry
}

type auditedCallKey struct{}

// audited records how a call has ended that [Services.record] has recorded.
func (s *Services) audited(ctx context.Context, method string, next func(context.Context) error) error {
	rule, _ := access.RuleOf(method)
	if s.audit == nil || !rule.Audited() {
		return next(ctx)
	}
	call := &auditedCall{method: path.Base(method)}
	ended := func(c codes.Code, reason fault.Reason) {
		if call.begun {
			call.entry.Code, call.entry.Reason = code.Code(c).String(), string(reason) //nolint:gosec // the same numbers
			s.audit.End(ctx, call.entry)
		}
	}
	panics := true
	defer func() {
		if panics {
			ended(codes.Internal, fault.Of(nil).Reason)
		}
	}()
	err := next(context.WithValue(ctx, auditedCallKey{}, call))
	panics = false
	caller := callerOf(ctx)
	switch {
	case err == nil:
		ended(codes.OK, "")
	case !call.begun && fault.Is(err, fault.ReasonProjectUnknown): // of others, perhaps
		_ = s.guard.Denied(caller, caller.Address, call.method, fault.Of(err))
	default:
		ended(status.Code(toStatus(ctx, err)), fault.Of(err).Reason.Public())
	}
	return err
}

// record records a call with its first request, before anything is done.
func (s *Services) record(ctx context.Context, message any) error {
	call, ok := ctx.Value(auditedCallKey{}).(*auditedCall)
	if !ok || call.begun {
		return nil
	}
	req, ok := message.(interface {
		proto.Message
		GetProjectId() string
	})
	if !ok {
		return fault.New(fault.Internal, "", "a request of an audited method names no project")
	}
	caller := callerOf(ctx)
	project, err := s.admin.visible(caller, req.GetProjectId())
	if err != nil {
		return err
	}
	entry := mirror.AuditEntry{
		Project: project, Method: call.method, Caller: caller.Name, RequestID: requestID(ctx), Options: options(req),
	}
	if caller.Address.IsValid() {
		entry.Address = caller.Address.WithZone("").String()
	}
	r := target(project, req)
	entry.Room, entry.Kind, entry.ResourceID = r.Room, r.Kind, r.ID
	err = s.audit.Begin(ctx, &entry)
	call.begun, call.entry = true, entry
	if err != nil && reads(req) {
		s.logger.WarnContext(ctx, "a call that changes nothing is made although it cannot be recorded in the audit yet",
			slog.String("method", call.method), slog.Any("error", err))
		return nil
	}
	return err
}

// RecordREST records that a call of Liveblocks' REST API is made, and with ended how it has
// ended. If it fails, with a gRPC status, the call must not be made.
func (s *Services) RecordREST(ctx context.Context, project, call string, room *string,
) (ended func(code string), err error) {
	if s.audit == nil {
		return func(string) {}, nil
	}
	caller := callerOf(ctx)
	entry := mirror.AuditEntry{
		Project: mirror.ProjectID(project), Method: call, Caller: caller.Name, RequestID: requestID(ctx),
	}
	if caller.Address.IsValid() {
		entry.Address = caller.Address.WithZone("").String()
	}
	if room != nil && mirror.ValidID(*room, mirror.MaxRoomID) {
		entry.Room = mirror.RoomID(*room)
	}
	ended = func(code string) {
		entry.Code = code
		s.audit.End(ctx, entry)
	}
	if err := s.audit.Begin(ctx, &entry); err != nil {
		entry.Reason = string(fault.Of(err).Reason.Public())
		ended(code.Code_UNAVAILABLE.String())
		return nil, Refusal(ctx, err)
	}
	return ended, nil
}

// reads reports whether a request of an audited method changes nothing. Such a call is made
// also where the database takes no writes, as on a standby that is to be looked at.
func reads(req proto.Message) bool {
	switch req := req.(type) {
	case interface{ GetDryRun() bool }:
		return req.GetDryRun()
	case interface{ GetRepair() bool }:
		return !req.GetRepair()
	}
	return false
}

// target returns what a request is about: the resource of its task, or the room and what
// else it names. Fields that are not set stay zero.
func target(project mirror.ProjectID, req proto.Message) (r mirror.Resource) {
	if of, ok := req.(interface{ GetTaskId() string }); ok {
		r, _ = parseTaskID(project, of.GetTaskId()) // the call fails with an id that is not valid
		return r
	}
	if of, ok := req.(interface{ GetRoomId() string }); ok {
		r.Room = mirror.RoomID(of.GetRoomId())
	}
	if of, ok := req.(interface{ GetKind() mirrorv1.ResourceKind }); ok {
		r.Kind = wordOf(kinds, of.GetKind())
	}
	if of, ok := req.(interface{ GetResourceId() string }); ok {
		r.ID = of.GetResourceId()
	}
	return r
}

// options returns the names of the fields that a request sets to true. Other values can be
// texts, and the ids of users, which an erasure would not find in the audit.
func options(req proto.Message) string {
	var names []string
	fields := req.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); f.Kind() == protoreflect.BoolKind && !f.IsList() && req.ProtoReflect().Get(f).Bool() {
			names = append(names, string(f.Name()))
		}
	}
	return strings.Join(names, ",")
}

// ListAuditEntries lists entries of the audit, newest first.
func (a *adminService) ListAuditEntries(ctx context.Context, req *mirrorv1.ListAuditEntriesRequest) (
	*mirrorv1.ListAuditEntriesResponse, error,
) {
	if a.audit != nil {
		_ = a.audit.Flush(ctx) // what cannot be written now waits on
	}
	var in *scope
	if req.GetServiceWide() {
		caller := callerOf(ctx)
		if !caller.SeesProject(access.AnyProject) {
			return nil, unknownProject("what belongs to no project is shown to callers that see all projects")
		}
		in = &scope{caller: caller}
	}
	entries, next, err := page(ctx, &a.common, req, listing[mirror.AuditEntry, *mirrorv1.AuditEntry]{
		list: listAudit,
		in:   in,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.AuditEntry, error) {
			return a.Query.AuditEntries(ctx, store.AuditFilter{
				Project:   in.project,
				Method:    req.GetMethod(),
				Caller:    req.GetCaller(),
				Denied:    req.Denied, //nolint:protogetter // unset is not false
				From:      bound(req.GetStartTime()),
				To:        bound(req.GetEndTime()),
				AfterTime: after.Time,
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key:     func(e *mirror.AuditEntry) cursor { return cursor{Time: e.Time, ID: e.ID} },
		toProto: auditToProto,
	})
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListAuditEntriesResponse{AuditEntries: entries, NextPageToken: next}, nil
}

func auditToProto(e *mirror.AuditEntry) *mirrorv1.AuditEntry {
	return &mirrorv1.AuditEntry{
		ProjectId:    string(e.Project),
		AuditEntryId: e.ID,
		StartTime:    timestamp(e.Time),
		EndTime:      timestamp(e.EndTime),
		Method:       e.Method,
		Caller:       e.Caller,
		Address:      e.Address,
		RequestId:    e.RequestID,
		RoomId:       string(e.Room),
		Options:      e.Options,
		Code:         e.Code,
		Reason:       e.Reason,
		Calls:        e.Calls,
		Denied:       e.Denied,
		Kind:         kinds[e.Kind],
		ResourceId:   e.ResourceID,
	}
}
