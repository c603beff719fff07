package webhook

import (
	"maps"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ResyncInterval is the minimal time between two fetches of a room because of
// events of unknown types, which may be frequent.
const ResyncInterval = 10 * time.Minute

// maxType bounds the length of an event type in bytes. The longest known type
// has 24.
const maxType = 128

// invalidation is a [mirror.Invalidation] before the room is known.
type invalidation struct {
	kind mirror.Kind
	// id is the field of the event's data that identifies the resource within its
	// room.
	id          idField
	ifUnknown   bool
	deleted     bool
	minInterval time.Duration
	fold        bool
}

// idField is a field that holds an id.
type idField string

const (
	threadField       idField = "threadId"
	notificationField idField = "inboxNotificationId"
)

// eventType describes an event type.
type eventType struct {
	// roomless means that the event may name no room.
	roomless bool
	// stale is what the event makes stale, in the order of kinds.
	stale []invalidation
}

// mention makes an unknown room known.
var mention = invalidation{kind: mirror.KindRoom, ifUnknown: true}

var (
	presence = []invalidation{
		mention,
		{kind: mirror.KindActiveUsers, minInterval: mirror.ActiveUsersInterval},
		{kind: mirror.KindUserSessions, fold: true},
	}
	thread = []invalidation{mention, {kind: mirror.KindThread, id: threadField}}
)

// eventTypes is the table of all known event types.
var eventTypes = map[string]eventType{
	"roomCreated":    {stale: room(mirror.RoomKinds(), 0)},
	"roomDeleted":    {stale: []invalidation{{kind: mirror.KindRoom, deleted: true}}},
	"storageUpdated": {stale: []invalidation{mention, {kind: mirror.KindStorage}}},
	"ydocUpdated":    {stale: []invalidation{mention, {kind: mirror.KindYdoc}}},
	// Liveblocks' guides name roomUpdated, but its API does not send it.
	"roomUpdated": {stale: []invalidation{{kind: mirror.KindRoom}}},

	"userEntered": {stale: presence},
	"userLeft":    {stale: presence},

	"threadCreated": {stale: thread},
	"threadDeleted": {stale: []invalidation{
		mention,
		{kind: mirror.KindThread, id: threadField, deleted: true},
	}},
	"threadMetadataUpdated":    {stale: thread},
	"threadMarkedAsResolved":   {stale: thread},
	"threadMarkedAsUnresolved": {stale: thread},
	"commentCreated":           {stale: thread},
	"commentEdited":            {stale: thread},
	"commentDeleted":           {stale: thread},
	"commentMetadataUpdated":   {stale: thread},
	"commentReactionAdded":     {stale: thread},
	"commentReactionRemoved":   {stale: thread},

	// A notification of a custom kind may belong to no room.
	"notification": {
		roomless: true,
		stale:    []invalidation{mention, {kind: mirror.KindNotification, id: notificationField, fold: true}},
	},
}

// Types returns the known event types in alphabetical order.
func Types() []string { return slices.Sorted(maps.Keys(eventTypes)) }

// everything lists what an event of an unknown type makes stale.
var everything = room(mirror.ChildKinds(), ResyncInterval)

// room returns the room and the resources of the given kinds in it.
func room(kinds []mirror.Kind, minInterval time.Duration) []invalidation {
	stale := []invalidation{{kind: mirror.KindRoom, minInterval: minInterval}}
	for _, kind := range kinds {
		stale = append(stale, invalidation{kind: kind, minInterval: minInterval})
	}
	return stale
}

// Decode reads the event of a verified delivery and returns it with what it makes
// stale, in key order. It never fails: an unreadable body is an event too, and its
// outcome says what is wrong. The event keeps body, which must not be modified.
//
// It requires only a type and a room, because older events lack fields and newer
// ones have more. An event that names a room but no readable type counts as one of
// an unknown type.
func Decode(project mirror.ProjectID, id string, body []byte, sendTime, receiveTime time.Time) mirror.Delivery {
	ev := mirror.Event{
		Project: project, ID: id, Payload: body, SendTime: sendTime, ReceiveTime: receiveTime,
		Outcome: mirror.OutcomeMalformed,
	}
	p, ok := parse(body)
	if !ok {
		return mirror.Delivery{Event: ev}
	}
	ev.Type = p.kind.ID(maxType)
	ev.User = firstOf(p.users[:], func(v rawjson.Value) string { return v.ID(mirror.MaxUserID) })
	ev.Thread = p.thread.ID(mirror.MaxResourceID)
	ev.LiveblocksProject = p.project.ID(mirror.MaxProjectID)
	ev.SourceTime = firstOf(p.times[:], rawjson.Value.Time)

	typ, known := eventTypes[ev.Type]
	stale := typ.stale
	switch {
	case p.room.IsString():
		if ev.Room = mirror.RoomID(p.room.ID(mirror.MaxRoomID)); ev.Room == "" {
			ev.Outcome = mirror.OutcomeIDInvalid
			return mirror.Delivery{Event: ev}
		}
		if !known {
			stale = everything
		}
	case typ.roomless && p.room.IsNull():
	case !known && ev.Type != "":
		ev.Outcome = mirror.OutcomeUnknownType
		return mirror.Delivery{Event: ev}
	default:
		return mirror.Delivery{Event: ev}
	}
	found, ok := invalidations(&ev, &p, stale)
	switch {
	case !ok:
		ev.Outcome = mirror.OutcomeIDInvalid
	case !known:
		ev.Outcome = mirror.OutcomeUnknownType
	default:
		ev.Outcome = mirror.OutcomeQueued
	}
	return mirror.Delivery{Event: ev, Invalidations: found}
}

// invalidations returns the resources that the event makes stale; ok is false if
// the id of one cannot be stored.
func invalidations(ev *mirror.Event, p *payload, stale []invalidation) (out []mirror.Invalidation, ok bool) {
	out = make([]mirror.Invalidation, 0, len(stale))
	for _, h := range stale {
		if ev.Room == "" && h.kind == mirror.KindRoom {
			continue
		}
		var named rawjson.Value
		switch h.id {
		case threadField:
			named = p.thread
		case notificationField:
			named = p.notification
		}
		id := named.ID(mirror.MaxResourceID)
		switch {
		case id == "" && !named.IsNull():
			return nil, false
		case id == "" && h.id == threadField:
			h.deleted = false // without an id, the list of threads is stale
		case id == "" && h.id == notificationField:
			id = ev.ID // it is in no inbox, so its own id identifies it
		}
		out = append(out, mirror.Invalidation{
			Resource:  mirror.Resource{Project: ev.Project, Room: ev.Room, Kind: h.kind, ID: id},
			IfUnknown: h.ifUnknown, Deleted: h.deleted, MinInterval: h.minInterval, Fold: h.fold,
		})
	}
	return out, true
}

// firstOf returns the first result that is not zero.
func firstOf[T comparable](values []rawjson.Value, read func(rawjson.Value) T) T {
	var zero T
	for _, v := range values {
		if got := read(v); got != zero {
			return got
		}
	}
	return zero
}

// Fields with the same meaning, in order of preference.
var (
	// The acting user or, for a notification, the recipient.
	userFields = [...]string{"userId", "deletedBy", "removedBy", "addedBy", "editedBy", "updatedBy", "createdBy"}
	// When it happened. A creation time is the last choice: it says least about a
	// change.
	timeFields = [...]string{
		"enteredAt", "leftAt", "deletedAt", "removedAt", "addedAt", "editedAt", "updatedAt", "createdAt", "triggeredAt",
	}
)

// payload holds the relevant members of an event's JSON.
type payload struct {
	kind         rawjson.Value
	room         rawjson.Value
	thread       rawjson.Value
	notification rawjson.Value
	// project is the projectId. Old events have an appId instead, which is no id of
	// the same kind and so says nothing about the project.
	project rawjson.Value
	users   [len(userFields)]rawjson.Value
	times   [len(timeFields)]rawjson.Value
}

// set stores a member of an event's data. A later member of the same name replaces
// an earlier one, as in JavaScript.
func (p *payload) set(name string, v rawjson.Value) {
	if name == "roomId" {
		p.room = v
	} else if name == string(threadField) {
		p.thread = v
	} else if name == string(notificationField) {
		p.notification = v
	} else if name == "projectId" {
		p.project = v
	} else if i := slices.Index(userFields[:], name); i >= 0 {
		p.users[i] = v
	} else if i := slices.Index(timeFields[:], name); i >= 0 {
		p.times[i] = v
	}
}

// parse reads the payload from body, and reports whether body is a JSON object.
func parse(body []byte) (p payload, ok bool) {
	v, err := rawjson.Parse(body)
	if err != nil || !v.IsObject() {
		return payload{}, false
	}
	var data rawjson.Value
	for name, v := range v.Members() {
		switch name {
		case "type":
			p.kind = v
		case "data":
			data = v
		}
	}
	for name, v := range data.Members() {
		p.set(name, v)
	}
	return p, true
}
