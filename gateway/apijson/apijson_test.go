package apijson_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// eachFile calls f for every file of the API.
func eachFile(f func(protoreflect.FileDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage(mirrorv1.File_liveblocks_mirror_v1_room_proto.Package(),
		func(file protoreflect.FileDescriptor) bool {
			f(file)
			return true
		})
}

// eachMessage calls f for every message of the API.
func eachMessage(f func(protoreflect.MessageDescriptor)) {
	var walk func(protoreflect.MessageDescriptors)
	walk = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			if !messages.Get(i).IsMapEntry() {
				f(messages.Get(i))
			}
			walk(messages.Get(i).Messages())
		}
	}
	eachFile(func(file protoreflect.FileDescriptor) { walk(file.Messages()) })
}

// eachEnum calls f for every enum of the API.
func eachEnum(f func(protoreflect.EnumDescriptor)) {
	eachFile(func(file protoreflect.FileDescriptor) {
		for i := range file.Enums().Len() {
			f(file.Enums().Get(i))
		}
	})
}

// holdsJSON reports whether a message or one in it has bytes with JSON.
func holdsJSON(message protoreflect.MessageDescriptor) bool {
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if apijson.HoldsJSON(field) || field.Message() != nil && holdsJSON(field.Message()) {
			return true
		}
	}
	return false
}

// Somebody who adds a field of bytes decides how HTTP writes it.
func TestFieldsOfBytesAreJSON(t *testing.T) {
	t.Parallel()
	found := 0
	eachMessage(func(message protoreflect.MessageDescriptor) {
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			if field.Kind() != protoreflect.BytesKind {
				continue
			}
			found++
			if !apijson.HoldsJSON(field) {
				t.Errorf("%s would be base64: call it *_json if it holds JSON, or name it here", field.FullName())
			}
			if field.IsList() || field.IsMap() {
				t.Errorf("%s is not a single value: only those are written as JSON", field.FullName())
			}
		}
	})
	if found < 10 {
		t.Errorf("%d fields of bytes; want all of the API", found)
	}
	eachFile(func(file protoreflect.FileDescriptor) {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				if holdsJSON(m.Input()) {
					t.Errorf("the request of %s has JSON, which Unmarshal reads as base64", m.FullName())
				}
				// The gateway's own handler of WatchChanges writes its JSON without breaks: ResourcesFitALine.
				inLines := m.Output().FullName() == "google.api.HttpBody" || m.Name() == "WatchChanges"
				if m.IsStreamingServer() && !inLines && holdsJSON(m.Output()) {
					t.Errorf("a message of %s has JSON, which may have a line break: messages are lines", m.FullName())
				}
			}
		}
	})
}

// The words are one for each value, and both spellings are read.
func TestEnums(t *testing.T) {
	t.Parallel()
	found := 0
	eachEnum(func(enum protoreflect.EnumDescriptor) {
		seen := map[string]bool{}
		for i := range enum.Values().Len() {
			found++
			value := enum.Values().Get(i)
			word := apijson.Word(value)
			// ERROR_REASON_INTERNAL of ErrorReason is internal: the prefix is the enum's name.
			letters := strings.ReplaceAll(string(enum.Name())+"-"+word, "-", "")
			if word != strings.ToLower(word) || strings.Contains(word, "_") || seen[word] ||
				!strings.EqualFold(letters, strings.ReplaceAll(string(value.Name()), "_", "")) {
				t.Errorf("%s is called %q", value.FullName(), word)
			}
			seen[word] = true
			for _, name := range []string{word, string(value.Name())} {
				if got, ok := apijson.ParseEnum(enum, name); !ok || got.Number() != value.Number() {
					t.Errorf("%s does not read %q as %s", enum.FullName(), name, value.Name())
				}
			}
			if listed := slices.Contains(apijson.Words(enum), word); listed != (value.Number() != 0) {
				t.Errorf("%q is listed as a word of %s: %v", word, enum.FullName(), listed)
			}
		}
		for _, name := range []string{"", "nope", "FAILED", "Failed", "task_state_failed"} {
			if got, ok := apijson.ParseEnum(enum, name); ok {
				t.Errorf("%s reads %q as %s", enum.FullName(), name, got.Name())
			}
		}
	})
	if found < 50 {
		t.Errorf("%d values of enums; want all of the API", found)
	}
}

// Requests may name enums in both ways, and each enum in a body is found.
func TestUnmarshal(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]*mirrorv1.RequestSyncRequest{
		`{}`:                {},
		`{"kind":"thread"}`: {Kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD},
		`{"roomId":"kind","kind" : "active-users" ,"resource_id":"\"kind\":"}`: {
			RoomId: "kind", Kind: mirrorv1.ResourceKind_RESOURCE_KIND_ACTIVE_USERS, ResourceId: `"kind":`,
		},
		`{"kind":"RESOURCE_KIND_YDOC"}`: {Kind: mirrorv1.ResourceKind_RESOURCE_KIND_YDOC},
		`{"kind":"\u0072oom"}`:          {Kind: mirrorv1.ResourceKind_RESOURCE_KIND_ROOM},
		`{"kind":2}`:                    {Kind: mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE},
		`{"kind":null,"roomId":"r"}`:    {RoomId: "r"},
	} {
		got := new(mirrorv1.RequestSyncRequest)
		if err := apijson.Unmarshal([]byte(body), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("Unmarshal(%s) = %v, %v; want %v", body, got, err, want)
		}
	}
	for _, body := range []string{
		"", "{", "[]", "null", `"room"`, `{"kind"}`, `{"kind":"room"`, `{"kind":"room"} {}`, `{"kind":"Room"}`, `{"kind":""}`,
		`{"kind":["room"]}`, `{"kind":true}`, `{"kind":"room","kind":"room"}`, `{"kinds":"room"}`, `{"kind":"room",}`,
	} {
		if got := new(mirrorv1.RequestSyncRequest); apijson.Unmarshal([]byte(body), got) == nil {
			t.Errorf("Unmarshal(%s) = %v; want an error", body, got)
		}
	}
	kinds := func(kinds ...mirrorv1.ResourceKind) *mirrorv1.WatchChangesRequest {
		return &mirrorv1.WatchChangesRequest{Kinds: kinds, RoomId: "r"}
	}
	const thread, room = mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, mirrorv1.ResourceKind_RESOURCE_KIND_ROOM
	for body, want := range map[string]*mirrorv1.WatchChangesRequest{
		`{"kinds":["thread"],"roomId":"r"}`:                                      kinds(thread),
		`{"kinds" : [ "thread" , "RESOURCE_KIND_ROOM", 4, "room"],"roomId":"r"}`: kinds(thread, room, thread, room),
		`{"kinds":[],"roomId":"r"}`:                                              kinds(),
		`{"kinds":null,"roomId":"r"}`:                                            kinds(),
	} {
		got := new(mirrorv1.WatchChangesRequest)
		if err := apijson.Unmarshal([]byte(body), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("Unmarshal(%s) = %v, %v; want %v", body, got, err, want)
		}
	}
	for _, body := range []string{
		`{"kinds":"room"}`, `{"kinds":["rooms"]}`, `{"kinds":[["room"]]}`, `{"kinds":[null]}`, `{"kinds":["room",]}`,
	} {
		if got := new(mirrorv1.WatchChangesRequest); apijson.Unmarshal([]byte(body), got) == nil {
			t.Errorf("Unmarshal(%s) = %v; want an error", body, got)
		}
	}
	err := apijson.Unmarshal([]byte(`{"kind":"rooms"}`), new(mirrorv1.RequestSyncRequest))
	const want = "kind is one of active-users, group, notification, room, storage, sweep, thread, user-sessions, ydoc"
	if err == nil || err.Error() != want {
		t.Errorf("error of an unknown word = %v; want %s", err, want)
	}
	eachFile(func(file protoreflect.FileDescriptor) {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				input := methods.Get(j).Input()
				for k := range input.Fields().Len() {
					field := input.Fields().Get(k)
					if m := field.Message(); m != nil && !field.IsMap() && m.ParentFile().Package() == file.Package() {
						t.Errorf("%s has messages: Unmarshal finds no words in them", input.FullName())
					}
				}
			}
		}
	})
}

func TestJSONIsCopied(t *testing.T) {
	t.Parallel()
	const odd = `{"n":9007199254740993, "e" : 1e400,"s":"\u0000\ud800 é"}`
	for in, want := range map[string]string{
		odd:           odd,
		"[\n 1,\t2 ]": "[\n 1,\t2 ]",
		`null`:        `null`, `"a"`: `"a"`, ` 1 `: ` 1 `,
		// What is not JSON breaks no answer.
		`{"a":`: `"{\"a\":"`, `{} {}`: `"{} {}"`, `01`: `"01"`, "\x00": `"\u0000"`, "{\xff}": `"{` + "\ufffd" + `}"`,
		"\"\xff\"": `"\"` + "\ufffd" + `\""`, `","evil":"`: `"\",\"evil\":\""`, ` `: `" "`,
		strings.Repeat("[", 1e5): `"` + strings.Repeat("[", 1e5) + `"`,
	} {
		for _, m := range []proto.Message{
			&mirrorv1.ActiveUser{InfoJson: []byte(in)}, &mirrorv1.Event{Payload: []byte(in)},
			&mirrorv1.Document{Content: []byte(in), ContentType: "application/json"},
		} {
			got, err := apijson.Marshal(m)
			if err != nil || !json.Valid(got) || !utf8.Valid(got) || !bytes.Contains(got, []byte(`":`+want)) {
				t.Errorf("Marshal(%T of %.50q) = %.200s, %v; want %.50s", m, in, got, err, want)
			}
		}
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	text := func(s string) *mirrorv1.MetadataValue {
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringValue{StringValue: s}}
	}
	when := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 60e6, time.UTC))
	for _, c := range []struct {
		name string
		m    proto.Message
		want string
	}{
		{"no JSON", &mirrorv1.ActiveUser{ConnectionId: -1}, `{"connectionId":"-1","userId":""}`},
		{"metadata", &mirrorv1.Comment{Metadata: map[string]*mirrorv1.MetadataValue{
			"s": text("x\n\"é\u2028<"), "e": text(""), "none": {},
			"l": {Value: &mirrorv1.MetadataValue_StringList{StringList: &mirrorv1.StringList{Values: []string{"a", ""}}}},
			"m": {Value: &mirrorv1.MetadataValue_StringList{}},
			"n": {Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: 1.5}},
			"N": {Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: math.NaN()}},
			"b": {Value: &mirrorv1.MetadataValue_BoolValue{}},
		}}, `"metadata":{"N":"NaN","b":false,"e":"","l":["a",""],"m":[],"n":1.5,"none":null,"s":"x\n\"é` + "\u2028" + `<"}`},
		{"a list left out", &mirrorv1.Flow{NodeCount: 2}, `"storageKey":"","edges":[],"nodeCount":2,"edgeCount":0}`},
		{"a list that it shows", &mirrorv1.Flow{Nodes: []*mirrorv1.FlowNode{}, NodeCount: 0}, `"nodes":[],"edges":[],`},
		{"words", &mirrorv1.Drift{
			ResourceKind: mirrorv1.ResourceKind_RESOURCE_KIND_ACTIVE_USERS, Kind: 77,
		}, `{"resourceKind":"active-users","roomId":"","resourceId":"","kind":77,`},
		{"times", &mirrorv1.Freshness{FetchTime: when}, `{"fetchTime":"2026-01-02T03:04:05.060Z","revision":"0",`},
		{
			"binary", &mirrorv1.Document{Content: []byte("\x00\xff"), ContentType: "application/octet-stream"},
			`"content":"AP8=",`,
		},
		{"text", &mirrorv1.Document{Content: []byte("a\nb"), ContentType: "text/plain; charset=utf-8"}, `"content":"a\nb",`},
		{"empty text", &mirrorv1.Document{ContentType: "text/plain; charset=utf-8"}, `"content":"",`},
		{"of no type", &mirrorv1.Document{Content: []byte("{}")}, `"content":"e30=",`},
		{"basic view", &mirrorv1.Document{ProjectId: "p"}, `"kind":"unspecified","format":"unspecified",`},
		{"invalid UTF-8", &mirrorv1.ActiveUser{UserId: "a\xffb"}, `"userId":"a` + "\ufffd" + `b"}`},
	} {
		got, err := apijson.Marshal(c.m)
		if err != nil || !json.Valid(got) || !strings.Contains(string(got), c.want) {
			t.Errorf("%s: %s, %v; want %s", c.name, got, err, c.want)
		}
	}
}

// Everything else is as protojson writes it: for messages of every kind with random
// content, the answers are the same once the rules are applied to those of protojson.
func TestEqualsProtoJSON(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	eachMessage(func(message protoreflect.MessageDescriptor) {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(message.FullName())
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			m := kind.New()
			fill(random, m, 3)
			got, err := apijson.Marshal(m.Interface())
			if err != nil {
				t.Fatalf("Marshal(%v): %v", m, err)
			}
			plain, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m.Interface())
			if err != nil {
				t.Fatalf("protojson of %v: %v", m, err)
			}
			want := rules(t, message, parse(t, plain))
			if diff := cmp.Diff(want, parse(t, got)); diff != "" {
				t.Errorf("%s (-by the rules +got):\n%s", message.FullName(), diff)
				return
			}
			checkAlways(t, message, parse(t, got))
		}
	})
}

// checkAlways compares the members of an object with those that Always promises.
func checkAlways(t *testing.T, message protoreflect.MessageDescriptor, got any) {
	t.Helper()
	members, ok := got.(map[string]any)
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if _, has := members[field.JSONName()]; ok && !has && apijson.Always(field) && !apijson.IsMetadataValue(message) {
			t.Errorf("%s is not in %v", field.FullName(), got)
		}
	}
}

func parse(t *testing.T, data []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return v
}

// rules applies the rules to proto3 JSON.
func rules(t *testing.T, message protoreflect.MessageDescriptor, v any) any {
	t.Helper()
	object, ok := v.(map[string]any)
	if !ok || message.ParentFile().Package() != mirrorv1.File_liveblocks_mirror_v1_room_proto.Package() {
		return v
	}
	if apijson.IsMetadataValue(message) {
		for name, value := range object {
			if name == "stringList" {
				list, _ := value.(map[string]any)
				return list["values"]
			}
			return value
		}
		return nil
	}
	mediaType := fmt.Sprint(object["contentType"])
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		name := field.JSONName()
		value, ok := object[name]
		if !ok {
			continue
		}
		each := func(change func(any) any) {
			switch value := value.(type) {
			case []any:
				for i := range value {
					value[i] = change(value[i])
				}
			case map[string]any:
				if !field.IsMap() {
					object[name] = change(value)
					return
				}
				for key := range value {
					value[key] = change(value[key])
				}
			default:
				object[name] = change(value)
			}
		}
		element := field
		if field.IsMap() {
			element = field.MapValue()
		}
		switch {
		case element.Message() != nil:
			each(func(v any) any { return rules(t, element.Message(), v) })
			if counted := apijson.Counted(field); counted != nil {
				if list, _ := object[name].([]any); len(list) == 0 && object[counted.JSONName()] != json.Number("0") {
					delete(object, name)
				}
			}
		case element.Enum() != nil:
			each(func(v any) any {
				word, _ := strings.CutPrefix(fmt.Sprint(v), strings.TrimSuffix(
					string(element.Enum().Values().Get(0).Name()), "UNSPECIFIED"))
				return strings.ToLower(strings.ReplaceAll(word, "_", "-"))
			})
		case element.Kind() == protoreflect.BytesKind:
			data, err := base64.StdEncoding.DecodeString(fmt.Sprint(value))
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case name == "content" && strings.HasPrefix(mediaType, "text/"):
				object[name] = string(data)
			case name == "content" && mediaType != "application/json":
				if len(data) == 0 && mediaType == "" {
					delete(object, name)
				}
			case len(data) == 0:
				delete(object, name)
			default:
				object[name] = parse(t, data)
			}
		}
	}
	return object
}

// fill sets random fields of m.
func fill(random *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case random.IntN(3) == 0 || field.Message() != nil && depth == 0:
		case field.IsList():
			list := m.Mutable(field).List()
			for range random.IntN(3) {
				list.Append(value(random, m, field, list.NewElement, depth))
			}
		case field.IsMap():
			entries := m.Mutable(field).Map()
			for range random.IntN(3) {
				entries.Set(protoreflect.ValueOfString(words[random.IntN(len(words))]).MapKey(),
					value(random, m, field.MapValue(), entries.NewValue, depth))
			}
		default:
			m.Set(field, value(random, m, field, func() protoreflect.Value { return m.NewField(field) }, depth))
		}
	}
}

var words = []string{
	"", "a", "b\x01\u007f\u2028\"\\/<>&", "\t\n\r\b\f", "é 日本 \U0001f469 \ufffd", strings.Repeat("x", 300),
}

func value(random *rand.Rand, m protoreflect.Message, field protoreflect.FieldDescriptor,
	empty func() protoreflect.Value, depth int,
) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		if field.Name() == "content_type" {
			types := []string{"", "application/json", "text/plain; charset=utf-8", "application/octet-stream"}
			return protoreflect.ValueOfString(types[random.IntN(len(types))])
		}
		return protoreflect.ValueOfString(words[random.IntN(len(words))])
	case protoreflect.BytesKind:
		docs := []string{"", `{"a":[1.50,null]}`, "123456789012345678901234567890", `"é\u0000"`}
		return protoreflect.ValueOfBytes([]byte(docs[random.IntN(len(docs))]))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(random.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(field.Enum().Values().Get(random.IntN(field.Enum().Values().Len())).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(random.Int32() - math.MaxInt32/2)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(random.Int64() - math.MaxInt64/2)
	case protoreflect.DoubleKind:
		numbers := []float64{0, 1, -0.1, 1e20, 1e21, 1e-6, 1e-7, math.MaxFloat64, math.Inf(1), math.Inf(-1), 1.0 / 3}
		return protoreflect.ValueOfFloat64(numbers[random.IntN(len(numbers))])
	case protoreflect.MessageKind:
		v := empty()
		switch to := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			to.Seconds = random.Int64N(253402300799)
			to.Nanos = []int32{0, 5e8, 123e6, 123456e3, 123456789, 1}[random.IntN(6)]
		default:
			if v.Message().Descriptor().ParentFile().Package() == m.Descriptor().ParentFile().Package() {
				fill(random, v.Message(), depth-1)
			}
		}
		return v
	default:
		panic(fmt.Sprintf("%s has a kind that the test does not know", field.FullName()))
	}
}

func FuzzString(f *testing.F) {
	for _, s := range append(words, "\xff", "a\xc3", "\xed\xa0\x80", "\u2029") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		data, err := apijson.Marshal(&mirrorv1.GetRoomRequest{RoomId: s})
		var got struct{ RoomID string }
		if err != nil || json.Unmarshal(data, &got) != nil || got.RoomID != string([]rune(s)) || !utf8.Valid(data) {
			t.Errorf("%q is written as %s, %v", s, data, err)
		}
	})
}

// document returns a Storage document of about size bytes.
func document(size int) *mirrorv1.GetStorageDocumentResponse {
	var b bytes.Buffer
	b.WriteString(`{"title":"Plan"`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,"node %d":{"position":{"x":%d.5,"y":-12},"label":"Überschrift der Aufgabe","done":false}`, i, i)
	}
	b.WriteString("}")
	return &mirrorv1.GetStorageDocumentResponse{Document: &mirrorv1.Document{
		ProjectId: "default", RoomId: "team:whiteboard", Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE,
		Content: b.Bytes(), Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON, ContentType: "application/json",
		SourceSize: 12345, Freshness: &mirrorv1.Freshness{
			FetchTime: timestamppb.New(time.Unix(1.7e9, 123456000)), Revision: 17, ContentSha256: strings.Repeat("a", 64),
		},
	}}
}

// threads returns a page of threads.
func threads() *mirrorv1.ListThreadsResponse {
	page := new(mirrorv1.ListThreadsResponse)
	for i := range 50 {
		now := timestamppb.New(time.Unix(1.7e9+int64(i), 0))
		page.Threads = append(page.Threads, &mirrorv1.Thread{
			ProjectId: "default", RoomId: "team:whiteboard", ThreadId: fmt.Sprintf("th_%d", i), CreateTime: now,
			UpdateTime: now, Visibility: "public", Metadata: map[string]*mirrorv1.MetadataValue{
				"color": {Value: &mirrorv1.MetadataValue_StringValue{StringValue: "blue"}},
			},
			Freshness: &mirrorv1.Freshness{FetchTime: now, Revision: int64(i), ContentSha256: strings.Repeat("b", 64)},
		})
	}
	return page
}

// BenchmarkMarshal compares with protojson, which writes documents as base64.
func BenchmarkMarshal(b *testing.B) {
	for _, c := range []struct {
		name string
		m    proto.Message
	}{
		{"1KiB", document(1 << 10)}, {"10KiB", document(10 << 10)}, {"1MiB", document(1 << 20)}, {"50threads", threads()},
	} {
		for _, writer := range []struct {
			name    string
			marshal func(proto.Message) ([]byte, error)
		}{{"protojson", protojson.MarshalOptions{EmitDefaultValues: true}.Marshal}, {"apijson", apijson.Marshal}} {
			b.Run(c.name+"/"+writer.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := writer.marshal(c.m); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
