package rpc

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// validator holds requests to the rules written in the API's definition.
type validator struct {
	rules protovalidate.Validator
	// texts are the string fields of each request of the API.
	texts map[protoreflect.MessageDescriptor][]protoreflect.FieldDescriptor
}

// newValidator compiles the rules of every request at once, so that no caller
// waits for it. The rules are part of the binary: that they do not compile is a
// broken build, not a state of the world.
func newValidator() *validator {
	v := &validator{texts: make(map[protoreflect.MessageDescriptor][]protoreflect.FieldDescriptor)}
	var requests []protoreflect.MessageDescriptor
	for _, file := range []protoreflect.FileDescriptor{
		mirrorv1.File_liveblocks_mirror_v1_event_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_admin_service_proto,
	} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				request := methods.Get(j).Input()
				requests = append(requests, request)
				v.texts[request] = textFields(request)
			}
		}
	}
	rules, err := protovalidate.New(protovalidate.WithMessageDescriptors(requests...), protovalidate.WithDisableLazy())
	if err != nil {
		panic(fmt.Sprintf("rpc: compile the rules of the API: %v", err))
	}
	v.rules = rules
	return v
}

func textFields(message protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	var texts []protoreflect.FieldDescriptor
	for i := range message.Fields().Len() {
		if field := message.Fields().Get(i); field.Kind() == protoreflect.StringKind && !field.IsList() {
			texts = append(texts, field)
		}
	}
	return texts
}

// check refuses a request that breaks a rule, naming every field that does.
// Messages that are not of this API, those of health and reflection, pass.
func (v *validator) check(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("validate: %T is no message", message)
	}
	request := m.ProtoReflect()
	texts, ours := v.texts[request.Descriptor()]
	if !ours {
		return nil
	}
	// No string of a request may hold what cannot be stored: a filter on it could
	// only upset the database. Strings from the wire are valid UTF-8 already,
	// those from within the process need not be.
	var bad []string
	for _, field := range texts {
		if s := request.Get(field).String(); strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
			bad = append(bad, string(field.Name()))
		}
	}
	if bad != nil {
		return invalidIDs(bad...)
	}
	err := v.rules.Validate(m)
	if err == nil {
		return nil
	}
	broken, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok {
		return fmt.Errorf("validate %s: %w", request.Descriptor().Name(), err)
	}
	f := fault.New(fault.Invalid, fault.ReasonRequestInvalid, "the request is not valid")
	for _, violation := range broken.Violations {
		f.Fields = append(f.Fields, fault.Field{
			Path:    protovalidate.FieldPathString(violation.Proto.GetField()),
			Problem: violation.Proto.GetMessage(),
		})
	}
	return f
}
