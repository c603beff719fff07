package rpc

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

func TestRequestsAreHeldToTheRules(t *testing.T) {
	t.Parallel()
	v := newValidator()
	long := strings.Repeat("x", 513)
	for _, c := range []struct {
		name   string
		req    proto.Message
		reason fault.Reason
		fields []string
	}{
		{"empty id", &mirrorv1.GetRoomRequest{}, fault.ReasonRequestInvalid, []string{"room_id"}},
		{"longest id", &mirrorv1.GetRoomRequest{RoomId: long[1:]}, "", nil},
		{
			"every field", &mirrorv1.GetRoomRequest{ProjectId: long, RoomId: long, MaxAge: durationpb.New(-1)},
			fault.ReasonRequestInvalid,
			[]string{"project_id", "room_id", "max_age"},
		},
		{
			"bytes are counted", &mirrorv1.GetRoomRequest{RoomId: strings.Repeat("ö", 257)}, fault.ReasonRequestInvalid,
			[]string{"room_id"},
		},
		{"odd ids", &mirrorv1.GetRoomRequest{RoomId: " a/b:c?d#e%20\t\uFFFD "}, "", nil},
		{"NUL", &mirrorv1.GetRoomRequest{RoomId: "a\x00"}, fault.ReasonIDInvalid, []string{"room_id"}},
		{"not UTF-8", &mirrorv1.GetRoomRequest{RoomId: "\xff"}, fault.ReasonIDInvalid, []string{"room_id"}},
		{
			"NUL in filters", &mirrorv1.ListEventsRequest{RoomId: "\x00", Type: "\x00", UserId: "\x00"}, fault.ReasonIDInvalid,
			[]string{"room_id", "type", "user_id"},
		},
		{
			"NUL in a prefix", &mirrorv1.ListRoomsRequest{RoomIdPrefix: "\x00"}, fault.ReasonIDInvalid,
			[]string{"room_id_prefix"},
		},
		{"negative page", &mirrorv1.ListTasksRequest{PageSize: -1}, fault.ReasonRequestInvalid, []string{"page_size"}},
		{"unknown enum", &mirrorv1.ListTasksRequest{State: 99}, fault.ReasonRequestInvalid, []string{"state"}},
		{"age zero", &mirrorv1.GetRoomRequest{RoomId: "r", MaxAge: &durationpb.Duration{}}, "", nil},
		{"delivery", &mirrorv1.ReceiveWebhookRequest{Body: &httpbody.HttpBody{Data: []byte("\x00\xff")}}, "", nil},
		{
			"delivery for too long a project", &mirrorv1.ReceiveWebhookRequest{ProjectId: long}, fault.ReasonRequestInvalid,
			[]string{"project_id"},
		},
		{"nothing to check", &mirrorv1.GetStatusRequest{}, "", nil},
		{"not ours", &healthv1.HealthCheckRequest{Service: "\x00"}, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := v.check(c.req)
			if c.reason == "" {
				if err != nil {
					t.Fatalf("check = %v; want nil", err)
				}
				return
			}
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Kind != fault.Invalid || f.Reason != c.reason {
				t.Fatalf("check = %v; want Invalid, %s", err, c.reason)
			}
			var fields []string
			for _, field := range f.Fields {
				fields = append(fields, field.Path)
				if field.Problem == "" {
					t.Errorf("nothing is said about %s", field.Path)
				}
			}
			slices.Sort(fields)
			slices.Sort(c.fields)
			if !slices.Equal(fields, c.fields) {
				t.Errorf("fields = %v; want %v", fields, c.fields)
			}
		})
	}
}

// A request nobody compiled the rules of would pass unchecked.
func TestEveryRequestOfTheAPIIsChecked(t *testing.T) {
	t.Parallel()
	v := newValidator()
	seen := 0
	api := mirrorv1.File_liveblocks_mirror_v1_error_reason_proto.Package()
	protoregistry.GlobalFiles.RangeFilesByPackage(api, func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				seen++
				if _, ok := v.requests[methods.Get(j).Input()]; !ok {
					t.Errorf("%s is not checked", methods.Get(j).Input().FullName())
				}
			}
		}
		return true
	})
	if seen == 0 {
		t.Errorf("no method found")
	}
}

// What is let through without evaluating the rules must break none of them.
func TestRulesAreEvaluatedWhereOneCanBreak(t *testing.T) {
	t.Parallel()
	v := newValidator()
	skipped := 0
	for request, rules := range v.requests {
		for i := -1; i < 2*request.Fields().Len(); i++ {
			m := dynamicpb.NewMessage(request)
			for _, f := range rules.ruled { // first alone, then beside what must be set
				if i >= request.Fields().Len() && !f.mayEmpty && f.short {
					m.Set(f.field, protoreflect.ValueOfString("x"))
				}
			}
			if i >= 0 {
				setExtreme(m, request.Fields().Get(i%request.Fields().Len()))
			}
			if rules.canBreak(m) {
				continue
			}
			skipped++
			if err := v.rules.Validate(m); err != nil {
				t.Errorf("%s{%.100s} is not evaluated, and breaks %v", request.Name(), m, err)
			}
		}
	}
	atAGlance := 0
	for request, rules := range v.requests {
		for _, f := range rules.ruled {
			var good, bad []protoreflect.Value
			text := func(n int) protoreflect.Value { return protoreflect.ValueOfString(strings.Repeat("x", n)) }
			switch {
			case f.short:
				good = append(good, text(max(f.minBytes, 1)), text(f.maxBytes))
				bad = append(bad, text(f.maxBytes+1))
				if f.minBytes > 1 {
					bad = append(bad, text(f.minBytes-1))
				}
			case f.defined:
				good = append(good, protoreflect.ValueOfEnum(1))
				bad = append(bad, protoreflect.ValueOfEnum(999))
			default:
				continue
			}
			atAGlance++
			for i, value := range append(good, bad...) {
				breaks := i >= len(good)
				m := dynamicpb.NewMessage(request)
				m.Set(f.field, value)
				err, _ := errors.AsType[*protovalidate.ValidationError](v.rules.Validate(m))
				ofField := func(violation *protovalidate.Violation) bool {
					return protovalidate.FieldPathString(violation.Proto.GetField()) == string(f.field.Name())
				}
				broken := err != nil && slices.ContainsFunc(err.Violations, ofField)
				if broken != breaks || f.canBreak(m) != breaks {
					t.Errorf("%s{%.100s} breaks a rule: %t, can: %t; want %t", request.Name(), m, broken, f.canBreak(m), breaks)
				}
			}
		}
	}
	if atAGlance < 80 {
		t.Errorf("the rules of %d fields are checked at a glance; want 80 at least", atAGlance)
	}
	read := (&mirrorv1.GetStorageDocumentRequest{
		RoomId: "room", ProjectId: "project", Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON,
	}).ProtoReflect()
	if rules := v.requests[read.Descriptor()]; rules.canBreak(read) {
		t.Errorf("the rules are evaluated for every read of a document")
	}
	delivery := (&mirrorv1.ReceiveWebhookRequest{Body: &httpbody.HttpBody{Data: []byte("{}")}}).ProtoReflect()
	if rules := v.requests[delivery.Descriptor()]; rules.canBreak(delivery) {
		t.Errorf("the rules are evaluated for every delivery")
	}
	if skipped < 20 {
		t.Errorf("%d requests were let through; want 20 at least", skipped)
	}
}

// setExtreme sets a field to a value that breaks most rules.
func setExtreme(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	switch {
	case field.IsList():
		list := m.Mutable(field).List()
		element := extreme(field, list.NewElement)
		for range 2000 {
			list.Append(element)
		}
	case field.IsMap():
		pairs := m.Mutable(field).Map()
		key := extreme(field.MapKey(), nil)
		pairs.Set(key.MapKey(), extreme(field.MapValue(), pairs.NewValue))
	default:
		m.Set(field, extreme(field, func() protoreflect.Value { return m.NewField(field) }))
	}
}

func extreme(field protoreflect.FieldDescriptor, empty func() protoreflect.Value) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.Repeat("\u00f6", 10_000))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(make([]byte, 5000))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(999)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(-1)
	default:
		v := empty()
		if seconds := field.Message().Fields().ByName("seconds"); seconds != nil {
			v.Message().Set(seconds, protoreflect.ValueOfInt64(-1))
		}
		return v
	}
}

func TestBadRequestsNameEveryField(t *testing.T) {
	t.Parallel()
	h := start(t)
	_, err := h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{PageSize: -1, View: 77})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	if got := badFields(err); !slices.Equal(got, []string{"page_size", "view"}) {
		t.Errorf("bad fields = %v; want page_size and view", got)
	}
	_, _, err = readDocument(t.Context(), h, &mirrorv1.ReadDocumentRequest{Kind: 9, Format: 9})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	if got := badFields(err); !slices.Equal(got, []string{"room_id", "kind", "format"}) {
		t.Errorf("bad fields = %v; want room_id, kind and format", got)
	}
	if h.query.reads != 0 {
		t.Errorf("a bad request reached the store")
	}
}

func BenchmarkValidate(b *testing.B) {
	v := newValidator()
	for name, req := range map[string]proto.Message{
		"ReceiveWebhook": &mirrorv1.ReceiveWebhookRequest{Body: &httpbody.HttpBody{
			ContentType: "application/json",
			Data:        make([]byte, 500),
		}},
		"GetRoom": &mirrorv1.GetRoomRequest{RoomId: "room"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := v.check(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
