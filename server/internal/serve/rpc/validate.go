package rpc

import (
	"errors"
	"fmt"
	"slices"
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
	// ruled are the fields that have a rule, or are messages that may have some. A request in
	// which none is set breaks no rule if an empty one breaks none, which mayEmpty says. Then
	// the rules are not evaluated: for a delivery that took longer than to check its signature.
	ruled    []protoreflect.FieldDescriptor
	mayEmpty bool
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
			texts: fieldsThat(request, isText), times: fieldsThat(request, isTime), ruled: fieldsThat(request, hasRules),
			mayEmpty: !proto.HasExtension(request.Options(), validate.E_Message) &&
				rules.Validate(dynamicpb.NewMessage(request)) == nil,
		}
	}
	return v
}

// canBreak reports whether a request can break a rule.
func (r *requestRules) canBreak(request protoreflect.Message) bool {
	return !r.mayEmpty || slices.ContainsFunc(r.ruled, request.Has)
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
