// Package apijson is the JSON of the HTTP API. It is proto3 JSON except for four
// rules, which make it what a reader of JSON expects:
//
//   - Bytes that hold JSON are JSON, copied as they are: see [HoldsJSON].
//   - Enums are words, such as plain-lson: see [Word].
//   - Metadata has plain values instead of messages with a member for each type.
//   - Lists that a view leaves out are absent: see [Counted].
//
// As in proto3 JSON, names are lowerCamelCase and int64 is a string. False, zero and
// empty values are written, so clients need not know the defaults; what is absent is
// left out instead of written as null.
package apijson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// ours is the package whose messages follow the rules; others are proto3 JSON.
var ours = mirrorv1.File_liveblocks_mirror_v1_room_proto.Package()

// IsMetadataValue reports whether values of a message are written as what they hold.
func IsMetadataValue(message protoreflect.MessageDescriptor) bool {
	return message.FullName() == ours.Append("MetadataValue")
}

// HoldsJSON reports whether a field of bytes holds JSON: those called *_json, the
// payload of an event, and the content of a document whose media type says so. Bytes
// that are not JSON after all become a string.
func HoldsJSON(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.BytesKind && (strings.HasSuffix(string(field.Name()), "_json") ||
		field.FullName() == ours.Append("Event").Append("payload") || mediaType(field) != nil)
}

// mediaType returns the field with the media type of a field of bytes, or nil. Text
// becomes a string and what is neither text nor JSON is base64.
func mediaType(field protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	if field.Name() != "content" || field.Kind() != protoreflect.BytesKind {
		return nil
	}
	return field.ContainingMessage().Fields().ByName("content_type")
}

// Counted returns the field with the number of a list's members, or nil. If there are
// members, an empty list is one that the view leaves out, so it is not written.
func Counted(field protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	if !field.IsList() {
		return nil
	}
	one := strings.TrimSuffix(string(field.Name()), "s")
	return field.ContainingMessage().Fields().ByName(protoreflect.Name(one + "_count"))
}

// Always reports whether every message has the field in its JSON.
func Always(field protoreflect.FieldDescriptor) bool {
	return !field.HasPresence() && !HoldsJSON(field) && Counted(field) == nil
}

// Marshal returns the JSON of m.
func Marshal(m proto.Message) ([]byte, error) {
	// Nearly all bytes of a large message are those of documents, which stay as they are.
	return Append(make([]byte, 0, proto.Size(m)*9/8+512), m)
}

// Append appends the JSON of m to b.
func Append(b []byte, m proto.Message) ([]byte, error) { return appendMessage(b, m.ProtoReflect()) }

// layout is what is known of a message's fields.
type layout []member

type member struct {
	desc      protoreflect.FieldDescriptor
	name      string // with quotes and colon
	json      bool
	mediaType protoreflect.FieldDescriptor
	count     protoreflect.FieldDescriptor
}

var layouts sync.Map // of protoreflect.FullName to layout

func layoutOf(message protoreflect.MessageDescriptor) layout {
	if known, ok := layouts.Load(message.FullName()); ok {
		l, _ := known.(layout)
		return l
	}
	fields := message.Fields()
	l := make(layout, fields.Len())
	for i := range l {
		field := fields.Get(i)
		l[i] = member{
			desc: field, name: strconv.Quote(field.JSONName()) + ":",
			json: HoldsJSON(field), mediaType: mediaType(field), count: Counted(field),
		}
	}
	layouts.Store(message.FullName(), l)
	return l
}

func appendMessage(b []byte, m protoreflect.Message) ([]byte, error) {
	message := m.Descriptor()
	switch {
	case message.ParentFile().Package() != ours:
		return appendForeign(b, m)
	case IsMetadataValue(message):
		return appendMetadataValue(b, m)
	}
	b = append(b, '{')
	empty := len(b)
	var err error
	for _, field := range layoutOf(message) {
		if !written(m, field) {
			continue
		}
		if len(b) > empty {
			b = append(b, ',')
		}
		b = append(b, field.name...)
		value := m.Get(field.desc)
		switch {
		case field.desc.IsMap():
			b, err = appendMap(b, field.desc, value.Map())
		case field.desc.IsList():
			b, err = appendList(b, field.desc, value.List())
		case field.mediaType != nil && !strings.HasPrefix(m.Get(field.mediaType).String(), "application/json"):
			b = appendContent(b, m.Get(field.mediaType).String(), value.Bytes())
		case field.json:
			b = appendJSON(b, value.Bytes())
		default:
			b, err = appendValue(b, field.desc, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.desc.FullName(), err)
		}
	}
	return append(b, '}'), nil
}

// written reports whether a field of m is not absent.
func written(m protoreflect.Message, field member) bool {
	switch {
	case field.desc.HasPresence():
		return m.Has(field.desc)
	case field.mediaType != nil && m.Get(field.mediaType).String() != "":
		return m.Has(field.desc) || !strings.HasPrefix(m.Get(field.mediaType).String(), "application/json")
	case field.json:
		return m.Has(field.desc)
	case field.count != nil:
		return m.Has(field.desc) || !m.Has(field.count)
	default:
		return true
	}
}

// appendForeign appends a message of another package.
func appendForeign(b []byte, m protoreflect.Message) ([]byte, error) {
	if t, ok := m.Interface().(*timestamppb.Timestamp); ok && t.CheckValid() == nil {
		return appendTime(b, t.AsTime()), nil
	}
	data, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m.Interface())
	if err != nil {
		return nil, err
	}
	to := bytes.NewBuffer(b)
	err = json.Compact(to, data) // protojson randomises its spaces
	return to.Bytes(), err
}

// appendTime appends a time with as many groups of three digits as it needs.
func appendTime(b []byte, t time.Time) []byte {
	b = t.AppendFormat(append(b, '"'), "2006-01-02T15:04:05.000000000")
	b = bytes.TrimSuffix(b, []byte("000"))
	b = bytes.TrimSuffix(b, []byte("000"))
	b = bytes.TrimSuffix(b, []byte(".000"))
	return append(b, `Z"`...)
}

func appendMetadataValue(b []byte, m protoreflect.Message) ([]byte, error) {
	field := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if field == nil {
		return append(b, "null"...), nil
	}
	if field.Message() == nil {
		return appendValue(b, field, m.Get(field))
	}
	list := m.Get(field).Message()
	values := list.Descriptor().Fields().Get(0)
	return appendList(b, values, list.Get(values).List())
}

func appendList(b []byte, field protoreflect.FieldDescriptor, list protoreflect.List) ([]byte, error) {
	b = append(b, '[')
	var err error
	for i := range list.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, field, list.Get(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, field protoreflect.FieldDescriptor, entries protoreflect.Map) ([]byte, error) {
	keys := make([]string, 0, entries.Len())
	values := make(map[string]protoreflect.Value, entries.Len())
	entries.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		keys = append(keys, key.String())
		values[key.String()] = value
		return true
	})
	slices.Sort(keys)
	b = append(b, '{')
	var err error
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, key), ':')
		if b, err = appendValue(b, field.MapValue(), values[key]); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, field protoreflect.FieldDescriptor, value protoreflect.Value) ([]byte, error) {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, value.Bool()), nil
	case protoreflect.StringKind:
		return appendString(b, value.String()), nil
	case protoreflect.BytesKind:
		return appendBase64(b, value.Bytes()), nil
	case protoreflect.EnumKind:
		if word, ok := spellingOf(field.Enum()).words[value.Enum()]; ok {
			return appendString(b, word), nil
		}
		return strconv.AppendInt(b, int64(value.Enum()), 10), nil // of a newer service
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return strconv.AppendInt(b, value.Int(), 10), nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return append(strconv.AppendInt(append(b, '"'), value.Int(), 10), '"'), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.AppendUint(b, value.Uint(), 10), nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return append(strconv.AppendUint(append(b, '"'), value.Uint(), 10), '"'), nil
	case protoreflect.DoubleKind:
		return appendFloat(b, value.Float())
	case protoreflect.MessageKind:
		return appendMessage(b, value.Message())
	default:
		return nil, fmt.Errorf("fields of kind %v have no JSON", field.Kind())
	}
}

func appendFloat(b []byte, f float64) ([]byte, error) {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...), nil
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...), nil
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...), nil
	}
	data, err := json.Marshal(f)
	return append(b, data...), err
}

// appendJSON appends bytes that hold JSON.
func appendJSON(b, data []byte) []byte {
	if valid(data) {
		return append(b, data...)
	}
	return appendString(b, string(data))
}

// appendContent appends the content of a document that is not JSON.
func appendContent(b []byte, mediaType string, data []byte) []byte {
	if strings.HasPrefix(mediaType, "text/") {
		return appendString(b, string(data))
	}
	return appendBase64(b, data)
}

func appendBase64(b, data []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(b, '"'), data), '"')
}

// appendString appends a string. Invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0 // what is behind it and needs no escape
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		escape := []byte{'\\', c}
		switch c {
		case '"', '\\':
		case '\n':
			escape = []byte(`\n`)
		case '\r':
			escape = []byte(`\r`)
		case '\t':
			escape = []byte(`\t`)
		default:
			if c < ' ' {
				escape = []byte{'\\', 'u', '0', '0', hex[c>>4], hex[c&15]}
				break
			}
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			escape = []byte("\ufffd")
		}
		b = append(append(b, s[from:i]...), escape...)
		i += size
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
