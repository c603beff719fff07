package rpc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/flow"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/group"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The values of the domain and their equivalents in the API. A test checks that the
// tables are complete.
var (
	outcomes = map[mirror.Outcome]mirrorv1.EventOutcome{
		mirror.OutcomeQueued:         mirrorv1.EventOutcome_EVENT_OUTCOME_QUEUED,
		mirror.OutcomeRecorded:       mirrorv1.EventOutcome_EVENT_OUTCOME_RECORDED,
		mirror.OutcomeUnknownType:    mirrorv1.EventOutcome_EVENT_OUTCOME_UNKNOWN_TYPE,
		mirror.OutcomeMalformed:      mirrorv1.EventOutcome_EVENT_OUTCOME_MALFORMED,
		mirror.OutcomeIDInvalid:      mirrorv1.EventOutcome_EVENT_OUTCOME_ID_INVALID,
		mirror.OutcomeForeignProject: mirrorv1.EventOutcome_EVENT_OUTCOME_FOREIGN_PROJECT,
	}
	documentKinds = map[mirror.Kind]mirrorv1.DocumentKind{
		mirror.KindStorage: mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE,
		mirror.KindYdoc:    mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC,
	}
	taskStates = map[mirror.TaskState]mirrorv1.TaskState{
		mirror.TaskPending: mirrorv1.TaskState_TASK_STATE_PENDING,
		mirror.TaskRunning: mirrorv1.TaskState_TASK_STATE_RUNNING,
		mirror.TaskWaiting: mirrorv1.TaskState_TASK_STATE_WAITING,
		mirror.TaskFailed:  mirrorv1.TaskState_TASK_STATE_FAILED,
		mirror.TaskDone:    mirrorv1.TaskState_TASK_STATE_DONE,
	}
	mentionKinds = map[string]mirrorv1.MentionKind{
		"user":  mirrorv1.MentionKind_MENTION_KIND_USER,
		"group": mirrorv1.MentionKind_MENTION_KIND_GROUP,
	}
	sessionEnds = map[mirror.SessionEnd]mirrorv1.SessionEndCause{
		mirror.SessionOpen:        mirrorv1.SessionEndCause_SESSION_END_CAUSE_OPEN,
		mirror.SessionLeft:        mirrorv1.SessionEndCause_SESSION_END_CAUSE_LEFT,
		mirror.SessionAbsent:      mirrorv1.SessionEndCause_SESSION_END_CAUSE_ABSENT,
		mirror.SessionRoomDeleted: mirrorv1.SessionEndCause_SESSION_END_CAUSE_ROOM_DELETED,
	}
	differenceKinds = map[mirror.DifferenceKind]mirrorv1.DriftKind{
		mirror.DifferenceMissing: mirrorv1.DriftKind_DRIFT_KIND_MISSING,
		mirror.DifferenceSurplus: mirrorv1.DriftKind_DRIFT_KIND_SURPLUS,
		mirror.DifferenceContent: mirrorv1.DriftKind_DRIFT_KIND_CONTENT,
		mirror.DifferenceDerived: mirrorv1.DriftKind_DRIFT_KIND_DERIVED,
	}
)

// kinds maps kinds of the domain to kinds of the API.
var kinds = func() map[mirror.Kind]mirrorv1.ResourceKind {
	words := make(map[mirror.Kind]mirrorv1.ResourceKind)
	for _, kind := range mirror.Kinds() {
		name := "RESOURCE_KIND_" + strings.ToUpper(kind.String())
		words[kind] = mirrorv1.ResourceKind(mirrorv1.ResourceKind_value[name])
	}
	return words
}()

// wordOf returns the value of the domain for one of the API, or zero.
func wordOf[W, V comparable](words map[W]V, value V) W {
	for word, v := range words {
		if v == value {
			return word
		}
	}
	var none W
	return none
}

// timestamp returns nil for the zero time: an absent field instead of the year 1.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// The range of times that every engine can store and compare.
var (
	earliest = time.Unix(0, 0).UTC()
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func storableTime(t time.Time) bool { return t.After(earliest) && !t.After(latest) }

// bound returns the time that a filter compares with, or zero if there is no
// filter. Stored times are whole microseconds, so a bound between two of them is
// rounded up. A bound outside the range that can be stored becomes the nearest one
// in it.
func bound(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	at := t.AsTime()
	if whole := at.Truncate(time.Microsecond); whole.Before(at) {
		at = whole.Add(time.Microsecond)
	}
	switch {
	case at.Before(earliest):
		return earliest
	case at.After(latest):
		return latest
	}
	return at
}

// outcomeOf is the outcome that a filter names; empty for none.
func outcomeOf(shown mirrorv1.EventOutcome) mirror.Outcome {
	for outcome, s := range outcomes {
		if s == shown {
			return outcome
		}
	}
	return ""
}

func eventToProto(e *mirror.Event) *mirrorv1.Event {
	return &mirrorv1.Event{
		ProjectId:           string(e.Project),
		EventId:             e.ID,
		Type:                e.Type,
		RoomId:              string(e.Room),
		UserId:              e.User,
		LiveblocksProjectId: e.LiveblocksProject,
		Payload:             e.Payload,
		SendTime:            timestamp(e.SendTime),
		ReceiveTime:         timestamp(e.ReceiveTime),
		SourceTime:          timestamp(e.SourceTime),
		Outcome:             outcomes[e.Outcome],
		ThreadId:            e.Thread,
		SecretFingerprint:   e.Secret,
	}
}

// freshnessToProto converts the freshness of a copy; hash is that of its source,
// nil if it has none.
func freshnessToProto(f mirror.Freshness, hash *[32]byte) *mirrorv1.Freshness {
	shown := &mirrorv1.Freshness{
		FetchTime:        timestamp(f.FetchTime),
		SourceUpdateTime: timestamp(f.SourceUpdateTime),
		Revision:         f.Revision,
		DeleteTime:       timestamp(f.DeleteTime),
		Stale:            f.Stale,
		MissingSinceTime: timestamp(f.MissingSince),
		RefreshError:     f.RefreshError,
	}
	if hash != nil {
		shown.ContentSha256 = hex.EncodeToString(hash[:])
	}
	return shown
}

func taskToProto(t *mirror.Task) *mirrorv1.Task {
	return &mirrorv1.Task{
		TaskId:            formatTaskID(t.Resource),
		ProjectId:         string(t.Resource.Project),
		Kind:              kinds[t.Resource.Kind],
		RoomId:            string(t.Resource.Room),
		ResourceId:        t.Resource.ID,
		State:             taskStates[t.State],
		Generation:        t.Generation,
		AppliedGeneration: t.Applied,
		DueTime:           timestamp(t.DueTime),
		NotBeforeTime:     timestamp(t.NotBefore),
		LeaseUntilTime:    timestamp(t.LeaseUntil),
		Attempts:          int32(min(t.Attempts, 1<<31-1)), //nolint:gosec // bounded
		LastError:         t.LastError,
		FailTime:          timestamp(t.FailTime),
		FetchTime:         timestamp(t.FetchTime),
		MissingSinceTime:  timestamp(t.MissingSince),
	}
}

// documentToProto converts a document without its content, which the caller adds.
func documentToProto(d *mirror.Document) *mirrorv1.Document {
	return &mirrorv1.Document{
		ProjectId:   string(d.Project),
		RoomId:      string(d.Room),
		Kind:        documentKinds[d.Kind],
		Guid:        d.ID,
		SourceSize:  d.Size,
		DataProblem: d.DataProblem,
		Freshness:   freshnessToProto(d.Freshness, &d.SHA256),
	}
}

// roomToProto converts a room. It reads the typed fields from the room's JSON and
// leaves out values of an undocumented type, which the source still has.
func roomToProto(r *mirror.Room, full bool) *mirrorv1.Room {
	room := &mirrorv1.Room{
		ProjectId:          string(r.Project),
		RoomId:             string(r.ID),
		OrganizationId:     r.OrganizationID,
		CreateTime:         timestamp(r.CreateTime),
		LastConnectionTime: timestamp(r.LastConnectionTime),
		Freshness:          freshnessToProto(r.Freshness, &r.SHA256),
	}
	if full {
		room.SourceJson = r.Source
	}
	// A map instead of a struct: encoding/json matches field names
	// case-insensitively.
	source, _ := parse[map[string]json.RawMessage](r.Source)
	room.Metadata = metadataToProto(source["metadata"])
	room.DefaultAccesses, _ = parseStrings(source["defaultAccesses"])
	room.UsersAccesses = accesses(source["usersAccesses"])
	room.GroupsAccesses = accesses(source["groupsAccesses"])
	return room
}

// parse decodes raw and reports whether it is of type T.
func parse[T any](raw json.RawMessage) (v T, ok bool) {
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		var none T
		return none, false
	}
	return v, true
}

// parseStrings decodes a list of strings. encoding/json would read null in it as
// "".
func parseStrings(raw json.RawMessage) ([]string, bool) {
	items, ok := parse[[]*string](raw)
	if !ok || items == nil {
		return nil, false
	}
	texts := make([]string, len(items))
	for i, item := range items {
		if item == nil {
			return nil, false
		}
		texts[i] = *item
	}
	return texts, true
}

// metadataToProto reads the members of raw that have a type Liveblocks allows.
func metadataToProto(raw json.RawMessage) map[string]*mirrorv1.MetadataValue {
	members, ok := parse[map[string]json.RawMessage](raw)
	if !ok {
		return nil
	}
	shown := make(map[string]*mirrorv1.MetadataValue, len(members))
	for key, raw := range members {
		if value := metadataValue(raw); value != nil {
			shown[key] = value
		}
	}
	return shown
}

func metadataValue(raw json.RawMessage) *mirrorv1.MetadataValue {
	if texts, ok := parseStrings(raw); ok {
		list := &mirrorv1.StringList{Values: texts}
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringList{StringList: list}}
	}
	value, _ := parse[any](raw)
	switch v := value.(type) {
	case string:
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringValue{StringValue: v}}
	case float64:
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: v}}
	case bool:
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_BoolValue{BoolValue: v}}
	}
	return nil
}

func accesses(raw json.RawMessage) map[string]*mirrorv1.AccessList {
	lists, ok := parse[map[string]json.RawMessage](raw)
	if !ok {
		return nil
	}
	shown := make(map[string]*mirrorv1.AccessList, len(lists))
	for id, raw := range lists {
		if scopes, ok := parseStrings(raw); ok {
			shown[id] = &mirrorv1.AccessList{Scopes: scopes}
		}
	}
	return shown
}

func flowToProto(doc *mirror.Document, f *flow.Flow) *mirrorv1.Flow {
	return &mirrorv1.Flow{
		ProjectId:  string(doc.Project),
		RoomId:     string(doc.Room),
		StorageKey: f.StorageKey,
		NodeCount:  int32(min(len(f.Nodes), math.MaxInt32)),
		EdgeCount:  int32(min(len(f.Edges), math.MaxInt32)),
		Freshness:  freshnessToProto(doc.Freshness, &doc.SHA256),
	}
}

func nodeToProto(n *flow.Node) *mirrorv1.FlowNode {
	return &mirrorv1.FlowNode{
		NodeId:         n.ID,
		Type:           n.Type,
		Position:       &mirrorv1.FlowPosition{X: n.X, Y: n.Y},
		Width:          n.Width,
		Height:         n.Height,
		ParentNodeId:   n.ParentID,
		SourcePosition: n.SourcePosition,
		TargetPosition: n.TargetPosition,
		DataJson:       n.Data,
		Hidden:         n.Hidden,
	}
}

func edgeToProto(e *flow.Edge) *mirrorv1.FlowEdge {
	return &mirrorv1.FlowEdge{
		EdgeId:       e.ID,
		Type:         e.Type,
		SourceNodeId: e.Source,
		TargetNodeId: e.Target,
		SourceHandle: e.SourceHandle,
		TargetHandle: e.TargetHandle,
		Animated:     e.Animated,
		Label:        e.Label,
		DataJson:     e.Data,
		Hidden:       e.Hidden,
	}
}

// threadToProto converts a thread without its comments. It reads the metadata from
// the source if it is present: not all metadata can be stored as queryable JSON.
func threadToProto(t *mirror.Thread) *mirrorv1.Thread {
	metadata := t.Metadata
	if t.Source != nil {
		source, _ := parse[map[string]json.RawMessage](t.Source)
		metadata = source["metadata"]
	}
	return &mirrorv1.Thread{
		ProjectId:    string(t.Project),
		RoomId:       string(t.Room),
		ThreadId:     t.ID,
		CreateTime:   timestamp(t.CreateTime),
		UpdateTime:   timestamp(t.UpdateTime),
		Resolved:     t.Resolved,
		Visibility:   t.Visibility,
		Metadata:     metadataToProto(metadata),
		CommentCount: int32(max(0, min(t.CommentCount, math.MaxInt32))),
		DataProblem:  t.DataProblem,
		Freshness:    freshnessToProto(t.Freshness, &t.SHA256),
	}
}

// commentToProto converts a comment without its source.
func commentToProto(c *mirror.Comment) *mirrorv1.Comment {
	hash := sha256.Sum256(c.Source)
	shown := &mirrorv1.Comment{
		ProjectId:  string(c.Project),
		RoomId:     string(c.Room),
		ThreadId:   c.Thread,
		CommentId:  c.ID,
		UserId:     c.UserID,
		CreateTime: timestamp(c.CreateTime),
		EditTime:   timestamp(c.EditTime),
		DeleteTime: timestamp(c.DeleteTime),
		BodyJson:   c.Body,
		Text:       c.Text,
		Markdown:   c.Markdown,
		Metadata:   metadataToProto(c.Metadata),
		Freshness:  freshnessToProto(c.Freshness, &hash),
	}
	for _, r := range c.Reactions {
		shown.Reactions = append(shown.Reactions, &mirrorv1.CommentReaction{
			Emoji: r.Emoji, UserId: r.UserID, CreateTime: timestamp(r.CreateTime),
		})
	}
	for _, a := range c.Attachments {
		shown.Attachments = append(shown.Attachments, &mirrorv1.CommentAttachment{
			AttachmentId: a.ID, Name: a.Name, MimeType: a.MIMEType, Size: a.Size,
		})
	}
	for _, m := range c.Mentions {
		shown.Mentions = append(shown.Mentions, &mirrorv1.CommentMention{
			Kind: mentionKinds[m.Kind], MentionedId: m.ID, UserIds: m.UserIDs,
		})
	}
	return shown
}

// withSource reads the typed fields of a stored comment from its source. If that
// cannot be read, the stored columns are used.
func withSource(row *mirror.Comment) *mirror.Comment {
	parsed, err := thread.ParseComment(row.Source)
	if err != nil {
		return row
	}
	parsed.Project, parsed.Room, parsed.Thread, parsed.ID = row.Project, row.Room, row.Thread, row.ID
	parsed.Source, parsed.Freshness = row.Source, row.Freshness
	return &parsed
}

func sessionToProto(s *mirror.UserSession) *mirrorv1.UserSession {
	shown := &mirrorv1.UserSession{
		ProjectId:    string(s.Project),
		RoomId:       string(s.Room),
		SessionId:    s.ID,
		ConnectionId: s.ConnectionID,
		UserId:       s.UserID,
		InfoJson:     s.Info,
		EnterTime:    timestamp(s.EnterTime),
		LeaveTime:    timestamp(s.LeaveTime),
		EndCause:     sessionEnds[s.End],
		LeaveEventId: s.LeaveEventID,
	}
	if !s.EnterTime.IsZero() && !s.LeaveTime.IsZero() {
		// An inferred end is a time of this service; the others are Liveblocks'
		// times.
		shown.Duration = durationpb.New(max(0, s.LeaveTime.Sub(s.EnterTime)))
	}
	return shown
}

func notificationToProto(n *mirror.Notification) *mirrorv1.Notification {
	var hash *[32]byte
	if n.Inbox.Source != nil {
		sum := sha256.Sum256(n.Inbox.Source)
		hash = &sum
	}
	return &mirrorv1.Notification{
		ProjectId:      string(n.Project),
		RoomId:         string(n.Room),
		EventId:        n.EventID,
		NotificationId: n.ID,
		Channel:        n.Channel,
		Kind:           n.Kind,
		UserId:         n.UserID,
		ThreadId:       n.ThreadID,
		MentionId:      n.MentionID,
		SubjectId:      n.SubjectID,
		CreateTime:     timestamp(n.CreateTime),
		TriggerTime:    timestamp(n.TriggerTime),
		InboxJson:      n.Inbox.Source,
		ReadTime:       timestamp(n.Inbox.ReadTime),
		NotifyTime:     timestamp(n.Inbox.NotifyTime),
		Freshness:      freshnessToProto(n.Freshness, hash),
	}
}

func sweepToProto(b *mirror.Backfill) *mirrorv1.Sweep {
	s := &b.Sweep
	shown := &mirrorv1.Sweep{
		ProjectId:          string(s.Project),
		SweepId:            s.ID,
		Full:               s.Full,
		RoomsListed:        s.Listed,
		RoomsKnown:         s.Known,
		RoomsVanished:      s.Vanished,
		ResourcesRaised:    s.MarkedStale,
		ResourcesPending:   b.Pending,
		ResourcesDone:      b.Done,
		ResourcesPerSecond: b.PerSecond,
		BeginTime:          timestamp(s.BeginTime),
		EndTime:            timestamp(s.EndTime),
		FullBeginTime:      timestamp(s.FullTime),
		Problem:            s.Problem,
	}
	if b.Remaining > 0 {
		shown.RemainingDuration = durationpb.New(b.Remaining)
	}
	switch {
	case s.ID == "":
	case !s.Done:
		shown.State = mirrorv1.SweepState_SWEEP_STATE_LISTING
	case b.Pending > 0:
		shown.State = mirrorv1.SweepState_SWEEP_STATE_FETCHING
	default:
		shown.State = mirrorv1.SweepState_SWEEP_STATE_DONE
	}
	return shown
}

func kindsToProto(list []mirror.Kind) (out []mirrorv1.ResourceKind) {
	for _, kind := range list {
		out = append(out, kinds[kind])
	}
	return out
}

func reportToProto(r mirror.VerifyReport) *mirrorv1.VerifyMirrorResponse {
	message := &mirrorv1.VerifyMirrorResponse{}
	switch {
	case r.Difference != nil:
		message.Report = &mirrorv1.VerifyMirrorResponse_Drift{Drift: &mirrorv1.Drift{
			ResourceKind:    kinds[r.Difference.Resource.Kind],
			RoomId:          string(r.Difference.Resource.Room),
			ResourceId:      r.Difference.Resource.ID,
			Kind:            differenceKinds[r.Difference.Kind],
			Detail:          r.Difference.Detail,
			RepairRequested: r.Difference.Repair,
		}}
	case r.Progress != nil:
		message.Report = &mirrorv1.VerifyMirrorResponse_Progress{Progress: &mirrorv1.VerifyProgress{
			RoomsChecked:     r.Progress.Rooms,
			RoomsListed:      r.Progress.Listed,
			ResourcesChecked: r.Progress.Resources,
			Drifts:           r.Progress.Differences,
			Waiting:          r.Progress.Waiting,
		}}
	case r.Skip != nil:
		message.Report = &mirrorv1.VerifyMirrorResponse_Skip{Skip: &mirrorv1.VerifySkip{
			ResourceKind: kinds[r.Skip.Resource.Kind],
			RoomId:       string(r.Skip.Resource.Room),
			ResourceId:   r.Skip.Resource.ID,
			Reason:       r.Skip.Reason,
			HttpStatus:   int32(r.Skip.Status), //nolint:gosec // a status has three digits
		}}
	case r.Summary != nil:
		message.Report = &mirrorv1.VerifyMirrorResponse_Summary{Summary: &mirrorv1.VerifySummary{
			RoomsChecked:     r.Summary.Rooms,
			ResourcesChecked: r.Summary.Resources,
			Drifts:           r.Summary.Differences,
			RepairsRequested: r.Summary.Repairs,
			ResourcesSkipped: r.Summary.Skipped,
			SkipReason:       r.Summary.SkipReason,
			ResourcesPending: r.Summary.Pending,
			UnsupportedKinds: kindsToProto(r.Summary.Unsupported),
		}}
	}
	return message
}

// groupToProto reads scopes and members from the source, which has them in order.
func groupToProto(g *mirror.Group) *mirrorv1.Group {
	source, _ := group.Parse(g.Source) // as it was when the group was stored
	shown := &mirrorv1.Group{
		ProjectId: string(g.Project), GroupId: g.ID, OrganizationId: g.OrganizationID,
		CreateTime: timestamp(g.CreateTime), UpdateTime: timestamp(g.UpdateTime), Scopes: source.Scopes,
		SourceJson: g.Source, Freshness: freshnessToProto(g.Freshness, &g.SHA256),
	}
	for _, member := range source.Members {
		shown.Members = append(shown.Members,
			&mirrorv1.GroupMember{UserId: member.UserID, AddTime: timestamp(member.AddTime)})
	}
	return shown
}
