package main

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/gen/openapi"
)

type schema struct {
	Type       string
	Required   []string
	Properties map[string]map[string]any
	Enum       []string
}

type operation struct {
	OperationID string
	Tags        []string
	Security    *[]any
	Parameters  []struct{ Name, In, Style string }
	Responses   map[string]map[string]any
}

type document struct {
	OpenAPI    string
	Info       struct{ Title, Version, Description string }
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]schema }
}

func committed(t *testing.T) (doc document, text string) {
	t.Helper()
	data, err := openapi.JSON("v1 \"x\"")
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return doc, string(data)
}

func TestDocument(t *testing.T) {
	t.Parallel()
	doc, text := committed(t)
	if doc.OpenAPI != "3.1.0" || doc.Info.Title != "liveblocks-mirror" || doc.Info.Version != "v1 \"x\"" {
		t.Errorf("openapi = %q, info = %+v", doc.OpenAPI, doc.Info)
	}
	// Names and enums are spelled as HTTP has them.
	for _, wrong := range []string{
		"_UNSPECIFIED", "max_age", "room_id", "source_json", "liveblocks.mirror.v1.Room", "swagger",
	} {
		if strings.Contains(text, wrong) {
			t.Errorf("the description has %q", wrong)
		}
	}
	if strings.Contains(text, "_KIND_") || strings.Contains(text, "DOCUMENT_FORMAT") {
		t.Error("the description spells an enum as the .proto files do")
	}
	if !strings.Contains(text, "?metadata[color]=blue, with curl -g") {
		t.Error("the example of a filter with brackets is not that of the README")
	}
}

// Every route of the services is there, and what each operation has in common.
func TestOperations(t *testing.T) {
	t.Parallel()
	doc, _ := committed(t)
	readable := regexp.MustCompile("^[a-z]+[A-Za-z]*[a-z]$")
	ids := map[string]string{}
	for path, verbs := range doc.Paths {
		for verb, op := range verbs {
			what := verb + " " + path
			if !readable.MatchString(op.OperationID) || ids[op.OperationID] != "" {
				t.Errorf("%s is called %q, as is %q", what, op.OperationID, ids[op.OperationID])
			}
			ids[op.OperationID] = what
			for _, code := range []string{"200", "400", "401", "403", "503", "default"} {
				if op.Responses[code] == nil {
					t.Errorf("%s has no response %s", what, code)
				}
			}
			if open := op.Security != nil; open != strings.Contains(path, "webhook") || len(op.Tags) != 1 {
				t.Errorf("%s has security of its own: %v; tags %v", what, open, op.Tags)
			}
			for _, p := range op.Parameters {
				if strings.Contains(p.Name, "_") || (p.Name == "metadata") != (p.Style == "deepObject") {
					t.Errorf("%s has the parameter %+v", what, p)
				}
			}
		}
	}
	for _, id := range []string{"listThreads", "getRoom", "receiveWebhook", "readStorageDocument", "listThreadsOfRoom"} {
		if ids[id] == "" {
			t.Errorf("no operation is called %s: %v", id, slices.Sorted(maps.Keys(ids)))
		}
	}
	routes := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("liveblocks.mirror.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				m := file.Services().Get(i).Methods().Get(j)
				rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
				routes += 1 + len(rule.GetAdditionalBindings())
			}
		}
		return true
	})
	if routes != len(ids) {
		t.Errorf("%d operations; the services have %d routes", len(ids), routes)
	}
}

// Each schema has the members of the message's JSON, requires those that are always
// there, and leaves the type of JSON open.
func TestSchemas(t *testing.T) {
	t.Parallel()
	doc, _ := committed(t)
	checked := 0
	protoregistry.GlobalTypes.RangeMessages(func(kind protoreflect.MessageType) bool {
		message := kind.Descriptor()
		s, ok := doc.Components.Schemas[string(message.Name())]
		if message.ParentFile().Package() != "liveblocks.mirror.v1" || !ok || apijson.IsMetadataValue(message) {
			return true
		}
		checked++
		data, err := apijson.Marshal(kind.Zero().Interface())
		var members map[string]any
		if err == nil {
			err = json.Unmarshal(data, &members)
		}
		if err != nil {
			t.Fatal(err)
		}
		required := map[string]bool{}
		for _, name := range s.Required {
			required[name] = true
		}
		var fields []string
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			name := field.JSONName()
			fields = append(fields, name)
			_, always := members[name]
			if optional := apijson.Counted(field) != nil; required[name] != (always && !optional) {
				t.Errorf("%s is required: %v; an empty message has it: %v", field.FullName(), required[name], always)
			}
			if _, typed := s.Properties[name]["type"]; apijson.HoldsJSON(field) && typed {
				t.Errorf("%s has a type, although it may be any JSON", field.FullName())
			}
		}
		slices.Sort(fields)
		if diff := cmp.Diff(fields, slices.Sorted(maps.Keys(s.Properties))); diff != "" {
			t.Errorf("%s (-message +schema):\n%s", message.FullName(), diff)
		}
		return true
	})
	for name, enum := range doc.Components.Schemas {
		if enum.Enum == nil || name == "ErrorReason" {
			continue
		}
		kind, err := protoregistry.GlobalTypes.FindEnumByName(protoreflect.FullName("liveblocks.mirror.v1." + name))
		if err != nil {
			t.Fatal(err)
		}
		checked++
		words := append(slices.Clone(apijson.Words(kind.Descriptor())), "unspecified")
		slices.Sort(words)
		slices.Sort(enum.Enum)
		if diff := cmp.Diff(words, enum.Enum); diff != "" {
			t.Errorf("%s (-words +schema):\n%s", name, diff)
		}
	}
	if reasons := doc.Components.Schemas["ErrorReason"].Enum; len(reasons) != len(mirrorv1.ErrorReason_name)-1 {
		t.Errorf("%d reasons of errors; want %d", len(reasons), len(mirrorv1.ErrorReason_name)-1)
	}
	if checked < 40 {
		t.Errorf("%d schemas checked; want all of the API", checked)
	}
}
