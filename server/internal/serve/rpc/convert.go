package rpc

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// These are the spellings of the same words in the domain and in the API; a test
// holds them complete.
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
	driftKinds = map[mirror.DriftKind]mirrorv1.DriftKind{
		mirror.DriftMissing: mirrorv1.DriftKind_DRIFT_KIND_MISSING,
		mirror.DriftSurplus: mirrorv1.DriftKind_DRIFT_KIND_SURPLUS,
		mirror.DriftContent: mirrorv1.DriftKind_DRIFT_KIND_CONTENT,
		mirror.DriftDerived: mirrorv1.DriftKind_DRIFT_KIND_DERIVED,
	}
)

// kinds are the kinds of the domain as the API spells them.
var kinds = func() map[mirror.Kind]mirrorv1.ResourceKind {
	words := make(map[mirror.Kind]mirrorv1.ResourceKind)
	for _, kind := range mirror.Kinds() {
		name := "RESOURCE_KIND_" + strings.ToUpper(kind.String())
		words[kind] = mirrorv1.ResourceKind(mirrorv1.ResourceKind_value[name])
	}
	return words
}()

// wordOf returns the domain's word for a value of the API, zero for none.
func wordOf[W, V comparable](words map[W]V, value V) W {
	for word, v := range words {
		if v == value {
			return word
		}
	}
	var none W
	return none
}

// timestamp returns nil for the zero time: an absent field, not the year 1.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// The times every engine can store and compare.
var (
	earliest = time.Unix(0, 0).UTC()
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func storableTime(t time.Time) bool { return t.After(earliest) && !t.After(latest) }

// bound returns the time a filter compares with, zero if it does not. Stored
// times are whole microseconds, so a bound between two of them means the later
// one; bounds outside of what can be stored mean the nearest that can.
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

func showEvent(e *mirror.Event) *mirrorv1.Event {
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
	}
}

// showFreshness shows how current a copy is; hash is that of its source, nil if it
// has none.
func showFreshness(f mirror.Freshness, hash *[32]byte) *mirrorv1.Freshness {
	shown := &mirrorv1.Freshness{
		FetchTime:        timestamp(f.FetchTime),
		SourceUpdateTime: timestamp(f.SourceUpdateTime),
		Revision:         f.Revision,
		DeleteTime:       timestamp(f.DeleteTime),
		Stale:            f.Stale,
		MissingSinceTime: timestamp(f.MissingSince),
	}
	if hash != nil {
		shown.ContentSha256 = hex.EncodeToString(hash[:])
	}
	return shown
}

func showTask(t *mirror.Task) *mirrorv1.Task {
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

// showDocument describes a document; its content is for the caller to add.
func showDocument(d *mirror.Document) *mirrorv1.Document {
	return &mirrorv1.Document{
		ProjectId:   string(d.Project),
		RoomId:      string(d.Room),
		Kind:        documentKinds[d.Kind],
		Guid:        d.ID,
		SourceSize:  d.Size,
		DataProblem: d.DataProblem,
		Freshness:   showFreshness(d.Freshness, &d.SHA256),
	}
}

// showRoom reads the typed fields from the room's JSON. What is not of the type
// Liveblocks documents is left out of them: the source has it in any case.
func showRoom(r *mirror.Room, full bool) *mirrorv1.Room {
	room := &mirrorv1.Room{
		ProjectId:          string(r.Project),
		RoomId:             string(r.ID),
		OrganizationId:     r.OrganizationID,
		CreateTime:         timestamp(r.CreateTime),
		LastConnectionTime: timestamp(r.LastConnectionTime),
		Freshness:          showFreshness(r.Freshness, &r.SHA256),
	}
	if full {
		room.SourceJson = r.Source
	}
	// A map and not a struct: encoding/json would match field names in any case.
	source, _ := parse[map[string]json.RawMessage](r.Source)
	room.Metadata = showMetadata(source["metadata"])
	room.DefaultAccesses, _ = parseStrings(source["defaultAccesses"])
	room.UsersAccesses = accesses(source["usersAccesses"])
	room.GroupsAccesses = accesses(source["groupsAccesses"])
	return room
}

// parse decodes raw and reports whether it is a T.
func parse[T any](raw json.RawMessage) (v T, ok bool) {
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		var none T
		return none, false
	}
	return v, true
}

// parseStrings decodes a list of strings. Go would take null for "" in it.
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

// showMetadata reads the members of raw that have a type Liveblocks allows.
func showMetadata(raw json.RawMessage) map[string]*mirrorv1.MetadataValue {
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
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringList{StringList: &mirrorv1.StringList{Values: texts}}}
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
