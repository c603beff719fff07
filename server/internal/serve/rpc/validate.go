package rpc

import (
	"errors"
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// validator checks requests against the rules in the API's definition.
type validator struct {
	rules protovalidate.Validator
	// requests are those of the API.
	requests map[protoreflect.MessageDescriptor]requestRules
}

// requestRules is what is to be checked of a request.
type requestRules struct {
	// texts are its fields that are strings, or maps from strings to strings, and times
	// those that are times.
	texts, times []protoreflect.FieldDescriptor
	// ruled are the fields that have a rule, or are messages that may have some. If none of
	// them can break one, and there are no rules about the whole request, as always says, the
	// rules are not evaluated: that takes longer than all other checks of a read, or than to
	// check the signature of a delivery.
	ruled  []ruledField
	always bool
}

// ruledField is a field with rules.
type ruledField struct {
	field protoreflect.FieldDescriptor
	// mayEmpty says that the field breaks no rule if it is not set.
	mayEmpty bool
	// short says that it is a text with rules about its length only: minBytes to maxBytes
	// break none.
	short              bool
	minBytes, maxBytes int
	// defined says that its only rule is to have a defined value.
	defined bool
}

// newValidator compiles the rules of all requests in advance. The rules are part of
// the binary, so an error here is a broken build.
func newValidator() *validator {
	var requests []protoreflect.MessageDescriptor
	for _, file := range []protoreflect.FileDescriptor{
		mirrorv1.File_liveblocks_mirror_v1_event_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_change_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_admin_service_proto,
	} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				requests = append(requests, methods.Get(j).Input())
			}
		}
	}
	rules, err := protovalidate.New(protovalidate.WithMessageDescriptors(requests...), protovalidate.WithDisableLazy())
	if err != nil {
		panic(fmt.Sprintf("rpc: compile the rules of the API: %v", err))
	}
	v := &validator{rules: rules, requests: make(map[protoreflect.MessageDescriptor]requestRules)}
	for _, request := range requests {
		v.requests[request] = requestRules{
			texts: fieldsThat(request, isText), times: fieldsThat(request, isTime), ruled: ruledFields(request, rules),
			always: hasOwnRules(request),
		}
	}
	return v
}

// ruledFields returns the fields of a request that have rules.
func ruledFields(request protoreflect.MessageDescriptor, rules protovalidate.Validator) (ruled []ruledField) {
	broken := make(map[string]bool) // by the request in which nothing is set
	if err := rules.Validate(dynamicpb.NewMessage(request)); err != nil {
		found, ok := errors.AsType[*protovalidate.ValidationError](err)
		if !ok {
			panic(fmt.Sprintf("rpc: evaluate the rules of %s: %v", request.Name(), err))
		}
		for _, violation := range found.Violations {
			if path := violation.Proto.GetField().GetElements(); len(path) > 0 { // or it is about all of it
				broken[path[0].GetFieldName()] = true
			}
		}
	}
	for _, field := range fieldsThat(request, hasRules) {
		f := ruledField{field: field, mayEmpty: !broken[string(field.Name())]}
		own, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
		if text := own.GetString(); text.HasMaxBytes() && field.Kind() == protoreflect.StringKind && !field.IsList() {
			lengths := validate.StringRules_builder{MinBytes: text.MinBytes, MaxBytes: text.MaxBytes}.Build()
			f.short = proto.Equal(own, validate.FieldRules_builder{String: lengths}.Build())
			f.minBytes, f.maxBytes = int(text.GetMinBytes()), int(text.GetMaxBytes()) //nolint:gosec // thousands
		}
		defined := validate.EnumRules_builder{DefinedOnly: proto.Bool(true)}.Build()
		f.defined = proto.Equal(own, validate.FieldRules_builder{Enum: defined}.Build())
		ruled = append(ruled, f)
	}
	return ruled
}

// canBreak reports whether a request can break a rule.
func (r *requestRules) canBreak(request protoreflect.Message) bool {
	for i := range r.ruled {
		if r.ruled[i].canBreak(request) {
			return true
		}
	}
	return r.always
}

func (f *ruledField) canBreak(request protoreflect.Message) bool {
	switch {
	case !request.Has(f.field):
		return !f.mayEmpty
	case f.short:
		n := len(request.Get(f.field).String())
		return n < f.minBytes || n > f.maxBytes
	case f.defined:
		return f.field.Enum().Values().ByNumber(request.Get(f.field).Enum()) == nil
	default:
		return true
	}
}

// hasOwnRules reports whether there is a rule about several fields of a message.
func hasOwnRules(message protoreflect.MessageDescriptor) bool {
	for i := range message.Oneofs().Len() {
		if proto.HasExtension(message.Oneofs().Get(i).Options(), validate.E_Oneof) {
			return true
		}
	}
	return proto.HasExtension(message.Options(), validate.E_Message)
}

// hasRules reports whether there is a rule about a field, or about what is in it.
func hasRules(field protoreflect.FieldDescriptor) bool {
	if proto.HasExtension(field.Options(), validate.E_Field) {
		return true
	}
	message := field.Message()
	// Messages of Google have no rules.
	return message != nil && !strings.HasPrefix(string(message.FullName()), "google.")
}

func fieldsThat(message protoreflect.MessageDescriptor,
	match func(protoreflect.FieldDescriptor) bool,
) []protoreflect.FieldDescriptor {
	var fields []protoreflect.FieldDescriptor
	for i := range message.Fields().Len() {
		if field := message.Fields().Get(i); match(field) {
			fields = append(fields, field)
		}
	}
	return fields
}

func isText(field protoreflect.FieldDescriptor) bool {
	if field.IsMap() {
		return field.MapKey().Kind() == protoreflect.StringKind && field.MapValue().Kind() == protoreflect.StringKind
	}
	return field.Kind() == protoreflect.StringKind && !field.IsList()
}

func isTime(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.MessageKind && !field.IsList() &&
		field.Message() == (*timestamppb.Timestamp)(nil).ProtoReflect().Descriptor()
}

// check refuses a request that violates a rule and names all offending fields. It
// accepts messages of other APIs: health and reflection.
func (v *validator) check(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("validate: %T is no message", message)
	}
	request := m.ProtoReflect()
	rules, ours := v.requests[request.Descriptor()]
	if !ours {
		return nil
	}
	// No string of a request may contain what cannot be stored: the database would
	// refuse a filter on it. Strings from the wire are valid UTF-8; those of
	// in-process calls may not be.
	var bad []string
	for _, field := range rules.texts {
		ok := true
		if field.IsMap() {
			request.Get(field).Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				ok = mirror.Storable(key.String()) && mirror.Storable(value.String())
				return ok
			})
		} else {
			ok = mirror.Storable(request.Get(field).String())
		}
		if !ok {
			bad = append(bad, string(field.Name()))
		}
	}
	if bad != nil {
		return invalidIDs(bad...)
	}
	var wrong []fault.Field
	for _, field := range rules.times {
		if t, ok := request.Get(field).Message().Interface().(*timestamppb.Timestamp); ok && request.Has(field) &&
			!t.IsValid() {
			wrong = append(wrong, fault.Field{Path: string(field.Name()), Problem: "must be a time from year 1 to 9999"})
		}
	}
	var err error
	if rules.canBreak(request) {
		err = v.rules.Validate(m)
	}
	if err != nil {
		broken, ok := errors.AsType[*protovalidate.ValidationError](err)
		if !ok {
			return fmt.Errorf("validate %s: %w", request.Descriptor().Name(), err)
		}
		for _, violation := range broken.Violations {
			wrong = append(wrong, fault.Field{
				Path:    protovalidate.FieldPathString(violation.Proto.GetField()),
				Problem: violation.Proto.GetMessage(),
			})
		}
	}
	if wrong == nil {
		return nil
	}
	f := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "the request is not valid")
	f.Fields = wrong
	return f
}
