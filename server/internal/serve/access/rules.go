package access

import (
	"maps"
	"path"
	"slices"
	"strings"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// Rule says who may call a method.
type Rule struct {
	// Method is the name of the method, without its service.
	Method string
	// Open means that no credential is needed.
	Open bool
	// Anyone means that every valid credential will do.
	Anyone bool
	// Scope is the scope that a caller needs otherwise.
	Scope Scope
	// Whole means that the method is about a whole project. Callers that do not see all
	// rooms may not call it. All other methods name a room, or filter by the rooms that
	// the caller sees.
	Whole bool
}

// Audited reports whether calls of the method are recorded in the audit: those that change
// something for operators, or delete data for good.
func (r Rule) Audited() bool { return r.Scope == AdminWrite || r.Scope == Erase }

// rules has every method of the API. A missing method is refused to every caller.
var rules = map[string]Rule{
	// Deliveries carry a signature.
	mirrorv1.EventService_ReceiveWebhook_FullMethodName: {Open: true},
	mirrorv1.EventService_GetEvent_FullMethodName:       {Scope: Events},
	mirrorv1.EventService_ListEvents_FullMethodName:     {Scope: Events},

	mirrorv1.MirrorService_GetRoom_FullMethodName:            {Scope: Read},
	mirrorv1.MirrorService_ListRooms_FullMethodName:          {Scope: Read},
	mirrorv1.MirrorService_GetStorageDocument_FullMethodName: {Scope: Read},
	mirrorv1.MirrorService_GetYjsDocument_FullMethodName:     {Scope: Read},
	mirrorv1.MirrorService_ReadDocument_FullMethodName:       {Scope: Read},
	mirrorv1.MirrorService_ListDocuments_FullMethodName:      {Scope: Read},
	mirrorv1.MirrorService_GetThread_FullMethodName:          {Scope: Read},
	mirrorv1.MirrorService_ListThreads_FullMethodName:        {Scope: Read},
	mirrorv1.MirrorService_GetComment_FullMethodName:         {Scope: Read},
	mirrorv1.MirrorService_ListComments_FullMethodName:       {Scope: Read},
	mirrorv1.MirrorService_ListActiveUsers_FullMethodName:    {Scope: Read},
	mirrorv1.MirrorService_ListUserSessions_FullMethodName:   {Scope: Read},
	mirrorv1.MirrorService_GetFlow_FullMethodName:            {Scope: Read},
	mirrorv1.MirrorService_ListFlows_FullMethodName:          {Scope: Read},
	mirrorv1.MirrorService_ListNotifications_FullMethodName:  {Scope: Read},
	mirrorv1.MirrorService_GetGroup_FullMethodName:           {Scope: Read, Whole: true},
	mirrorv1.MirrorService_ListGroups_FullMethodName:         {Scope: Read, Whole: true},

	// The changes of other rooms are left out.
	mirrorv1.ChangeService_ListChanges_FullMethodName:  {Scope: Watch},
	mirrorv1.ChangeService_WatchChanges_FullMethodName: {Scope: Watch},

	mirrorv1.AdminService_GetStatus_FullMethodName:        {Scope: AdminRead, Whole: true},
	mirrorv1.AdminService_ListTasks_FullMethodName:        {Scope: AdminRead},
	mirrorv1.AdminService_GetTask_FullMethodName:          {Scope: AdminRead},
	mirrorv1.AdminService_GetBackfill_FullMethodName:      {Scope: AdminRead, Whole: true},
	mirrorv1.AdminService_ListAuditEntries_FullMethodName: {Scope: AdminRead, Whole: true},
	mirrorv1.AdminService_RetryTask_FullMethodName:        {Scope: AdminWrite},
	mirrorv1.AdminService_DiscardTask_FullMethodName:      {Scope: AdminWrite},
	mirrorv1.AdminService_RequestSync_FullMethodName:      {Scope: AdminWrite},
	mirrorv1.AdminService_ReplayEvents_FullMethodName:     {Scope: AdminWrite},
	mirrorv1.AdminService_StartBackfill_FullMethodName:    {Scope: AdminWrite, Whole: true},
	mirrorv1.AdminService_PinProject_FullMethodName:       {Scope: AdminWrite, Whole: true},
	mirrorv1.AdminService_UnpinProject_FullMethodName:     {Scope: AdminWrite, Whole: true},
	mirrorv1.AdminService_PauseProject_FullMethodName:     {Scope: AdminWrite, Whole: true},
	mirrorv1.AdminService_ResumeProject_FullMethodName:    {Scope: AdminWrite, Whole: true},
	mirrorv1.AdminService_ConfirmSecretKey_FullMethodName: {Scope: AdminWrite, Whole: true},
	mirrorv1.AdminService_ConfirmDeletions_FullMethodName: {Scope: AdminWrite, Whole: true},
	mirrorv1.AdminService_EraseUser_FullMethodName:        {Scope: Erase, Whole: true},
	mirrorv1.AdminService_EraseRoom_FullMethodName:        {Scope: Erase, Whole: true},
	// It fetches everything from Liveblocks, and repairs on request.
	mirrorv1.AdminService_VerifyMirror_FullMethodName: {Scope: AdminWrite, Whole: true},

	// The metrics are of all rooms. Of projects that the caller does not see, none are shown.
	MetricsPath: {Scope: Metrics, Whole: true},

	// It describes the program and holds no data.
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {Anyone: true},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {Anyone: true},
}

// MetricsPath is the path of the metrics over HTTP, the one route that is no method.
const MetricsPath = "/metrics"

// Permit returns nil if the caller may do what the rule is for. It counts refusals.
func (g *Guard) Permit(rule Rule, caller *Caller) error {
	switch {
	case rule.Anyone && caller.Scopes != 0:
	case !caller.Allows(rule.Scope):
		return g.Denied(caller, caller.Address, rule.Method, fault.New(fault.Forbidden, fault.ReasonScopeMissing,
			"this call needs the scope "+rule.Scope.String()).With("scope", rule.Scope.String()))
	case rule.Whole && caller.Limited():
		return g.Denied(caller, caller.Address, rule.Method, fault.New(fault.Forbidden, fault.ReasonRoomsLimited,
			"this call is about all rooms, and the credential is limited to some"))
	}
	return nil
}

// Methods returns the full names of all methods that have a rule, except those of probes,
// and MetricsPath.
func Methods() []string { return slices.Sorted(maps.Keys(rules)) }

// probes is the prefix of the full names of the methods that probes call.
var probes = "/" + healthv1.Health_ServiceDesc.ServiceName + "/"

// RuleOf returns the rule of a method, by its full name. Probes have no credential.
func RuleOf(method string) (Rule, bool) {
	rule, ok := rules[method]
	if !ok && strings.HasPrefix(method, probes) {
		rule, ok = Rule{Open: true}, true
	}
	rule.Method = path.Base(method)
	return rule, ok
}
