package webhook

import (
	"bytes"
	"encoding/json"
	"iter"
	"slices"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ResyncInterval is how often at most an event of an unknown type makes the
// room it names be fetched again. Nobody knows how chatty such a type is.
const ResyncInterval = 10 * time.Minute

// maxType bounds the length of an event type in bytes. The longest known type
// has 24.
const maxType = 128

// hint is a [mirror.Hint] before the room is known.
type hint struct {
	kind        mirror.Kind
	ifUnknown   bool
	deleted     bool
	minInterval time.Duration
}

// eventType is what is known of a type of event.
type eventType struct {
	// roomless says that the event may name no room.
	roomless bool
	// stale is what the event makes stale, in the order of kinds.
	stale []hint
}

// mention makes the room known if it is not yet.
var mention = []hint{{kind: mirror.KindRoom, ifUnknown: true}}

// eventTypes is the table of all known types. A kind of resource that is to be
// mirrored gets its hints here and nowhere else.
var eventTypes = map[string]eventType{
	"roomCreated":    {stale: []hint{{kind: mirror.KindRoom}, {kind: mirror.KindStorage}, {kind: mirror.KindYdoc}}},
	"roomDeleted":    {stale: []hint{{kind: mirror.KindRoom, deleted: true}}},
	"storageUpdated": {stale: []hint{{kind: mirror.KindRoom, ifUnknown: true}, {kind: mirror.KindStorage}}},
	"ydocUpdated":    {stale: []hint{{kind: mirror.KindRoom, ifUnknown: true}, {kind: mirror.KindYdoc}}},
	// Liveblocks' guides name roomUpdated, but its API does not send it.
	"roomUpdated": {stale: []hint{{kind: mirror.KindRoom}}},

	"userEntered":              {stale: mention},
	"userLeft":                 {stale: mention},
	"threadCreated":            {stale: mention},
	"threadDeleted":            {stale: mention},
	"threadMetadataUpdated":    {stale: mention},
	"threadMarkedAsResolved":   {stale: mention},
	"threadMarkedAsUnresolved": {stale: mention},
	"commentCreated":           {stale: mention},
	"commentEdited":            {stale: mention},
	"commentDeleted":           {stale: mention},
	"commentMetadataUpdated":   {stale: mention},
	"commentReactionAdded":     {stale: mention},
	"commentReactionRemoved":   {stale: mention},
	// A notification of a custom kind need not belong to a room.
	"notification": {roomless: true, stale: mention},
}

// everything is what an event of an unknown type makes stale.
var everything = []hint{
	{kind: mirror.KindRoom, minInterval: ResyncInterval},
	{kind: mirror.KindStorage, minInterval: ResyncInterval},
	{kind: mirror.KindYdoc, minInterval: ResyncInterval},
}

// Decode reads the event of a verified delivery and names what it makes stale,
// in key order. It never fails: what cannot be read is an event too, and its
// outcome says what is wrong. The event keeps body, which must not change.
//
// It asks for no more than a type and a room, since old events lack fields and
// new ones have more. An event that names a room but no type that can be read
// counts as one of an unknown type.
func Decode(project mirror.ProjectID, id string, body []byte, sendTime, receiveTime time.Time) mirror.Arrival {
	ev := mirror.Event{
		Project: project, ID: id, Payload: body, SendTime: sendTime, ReceiveTime: receiveTime,
		Outcome: mirror.OutcomeMalformed,
	}
	p, ok := parse(body)
	if !ok {
		return mirror.Arrival{Event: ev}
	}
	ev.Type = p.kind.id(maxType)
	ev.User = firstOf(p.users[:], func(v value) string { return v.id(mirror.MaxUserID) })
	ev.LiveblocksProject = firstOf(p.projects[:], func(v value) string { return v.id(mirror.MaxProjectID) })
	ev.SourceTime = firstOf(p.times[:], value.time)

	typ, known := eventTypes[ev.Type]
	switch {
	case p.room.isString():
		ev.Room = mirror.RoomID(p.room.id(mirror.MaxRoomID))
		switch {
		case ev.Room == "":
			ev.Outcome = mirror.OutcomeIDInvalid
			return mirror.Arrival{Event: ev}
		case !known:
			ev.Outcome = mirror.OutcomeUnknownType
			return mirror.Arrival{Event: ev, Hints: hints(project, ev.Room, everything)}
		}
		ev.Outcome = mirror.OutcomeQueued
		return mirror.Arrival{Event: ev, Hints: hints(project, ev.Room, typ.stale)}
	case typ.roomless && p.room.isNull():
		ev.Outcome = mirror.OutcomeRecorded
	case !known && ev.Type != "":
		ev.Outcome = mirror.OutcomeUnknownType
	}
	return mirror.Arrival{Event: ev}
}

// hints says of which resources in room the stale ones are.
func hints(project mirror.ProjectID, room mirror.RoomID, stale []hint) []mirror.Hint {
	out := make([]mirror.Hint, len(stale))
	for i, h := range stale {
		out[i] = mirror.Hint{
			Resource:  mirror.Resource{Project: project, Room: room, Kind: h.kind},
			IfUnknown: h.ifUnknown, Deleted: h.deleted, MinInterval: h.minInterval,
		}
	}
	return out
}

// firstOf returns the first result that is not zero.
func firstOf[T comparable](values []value, read func(value) T) T {
	var zero T
	for _, v := range values {
		if got := read(v); got != zero {
			return got
		}
	}
	return zero
}

// Fields that answer the same question, in the order in which they are asked.
var (
	projectFields = [...]string{"projectId", "appId"} // appId in old events
	// Who did it, or for a notification who is told.
	userFields = [...]string{"userId", "deletedBy", "removedBy", "addedBy", "editedBy", "updatedBy", "createdBy"}
	// When it happened. The time at which a thing was made says least of what
	// happened to it now.
	timeFields = [...]string{
		"enteredAt", "leftAt", "deletedAt", "removedAt", "addedAt", "editedAt", "updatedAt", "createdAt", "triggeredAt",
	}
)

// payload holds what matters of an event's JSON.
type payload struct {
	kind     value
	room     value
	projects [len(projectFields)]value
	users    [len(userFields)]value
	times    [len(timeFields)]value
}

// set keeps a member of an event's data. A later member of the same name
// replaces an earlier one, as in JavaScript.
func (p *payload) set(name string, v value) {
	if name == "roomId" {
		p.room = v
	} else if i := slices.Index(projectFields[:], name); i >= 0 {
		p.projects[i] = v
	} else if i := slices.Index(userFields[:], name); i >= 0 {
		p.users[i] = v
	} else if i := slices.Index(timeFields[:], name); i >= 0 {
		p.times[i] = v
	}
}

// parse picks the payload out of body, or reports that body is no JSON object.
func parse(body []byte) (p payload, ok bool) {
	if !json.Valid(body) {
		return payload{}, false
	}
	body = body[skipSpace(body, 0):]
	if body[0] != '{' {
		return payload{}, false
	}
	var data value
	for name, v := range members(body) {
		switch string(name) {
		case "type":
			p.kind = v
		case "data":
			data = v
		}
	}
	if len(data) > 0 && data[0] == '{' {
		for name, v := range members(data) {
			p.set(string(name), v)
		}
	}
	return p, true
}

// value is a JSON value as it is written; empty if there is none.
type value []byte

func (v value) isString() bool { return len(v) > 0 && v[0] == '"' }

// isNull reports whether v is null or missing.
func (v value) isNull() bool { return len(v) == 0 || v[0] == 'n' }

// id returns the string in v if it can be stored as an id of at most limit
// bytes, else nothing.
//
// The bytes are looked at before encoding/json decodes them: it replaces what
// is no character, and so would make one id of two.
func (v value) id(limit int) string {
	if !v.isString() || !utf8.Valid(v) || hasLoneSurrogate(v) {
		return ""
	}
	s := string(unquote(v))
	if !mirror.ValidID(s, limit) {
		return ""
	}
	return s
}

// time returns the time in v, zero if it is none or none that every engine can
// store. Events carry milliseconds, the store keeps microseconds.
func (v value) time() time.Time {
	if !v.isString() {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, string(unquote(v)))
	if t = t.UTC(); err != nil || t.Year() < 1970 || t.Year() > 9998 {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
}

// unquote returns the content of a valid JSON string.
func unquote(v value) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		return nil
	}
	return []byte(s)
}

// hasLoneSurrogate reports whether a valid JSON string holds an escaped
// surrogate without its other half.
func hasLoneSurrogate(v value) bool {
	for {
		i := bytes.IndexByte(v, '\\')
		if i < 0 {
			return false
		}
		v = v[i:]
		if v[1] != 'u' {
			v = v[2:]
			continue
		}
		if r := codeUnit(v); !utf16.IsSurrogate(r) {
			v = v[6:]
		} else if v[6] == '\\' && v[7] == 'u' && utf16.DecodeRune(r, codeUnit(v[6:])) != utf8.RuneError {
			v = v[12:]
		} else {
			return true
		}
	}
}

// codeUnit reads the \uXXXX that v begins with.
func codeUnit(v value) rune {
	var r rune
	for _, c := range v[2:6] {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c&^0x20 - 'A' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}

// members iterates over the names and values of a JSON object. It relies on
// the JSON being valid and only looks for the bounds of values.
func members(object value) iter.Seq2[[]byte, value] {
	return func(yield func([]byte, value) bool) {
		i := skipSpace(object, 1)
		for object[i] != '}' {
			if object[i] == ',' {
				i = skipSpace(object, i+1)
			}
			name := object[i:skipValue(object, i)]
			i = skipSpace(object, i+len(name)) // the colon
			i = skipSpace(object, i+1)
			v := object[i:skipValue(object, i)]
			if !yield(unquote(name), v) {
				return
			}
			i = skipSpace(object, i+len(v))
		}
	}
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t' {
		i++
	}
	return i
}

// skipValue returns the end of the value at i.
func skipValue(b []byte, i int) int {
	for depth := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 { // a scalar ends where its object does
				return i
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i
			}
		}
	}
}
