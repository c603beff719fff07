// Command openapi writes the OpenAPI description of the HTTP API: what
// protoc-gen-openapiv3 makes of the services, changed to what the gateway really does.
// It takes the folder with the generator's files and the descriptors with comments.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

// run writes the description to w.
func run(w io.Writer, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%d arguments; want the folder of the generator and the file of descriptors", len(args))
	}
	files, err := readFiles(args[1])
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(args[0], "liveblocks", "mirror", "v1", "*.openapi.json"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("the generator has written nothing to %s", args[0])
	}
	a := api{files: files, paths: map[string]map[string]object{}, schemas: object{}, short: map[string]string{}}
	for _, path := range paths {
		if err := a.read(path); err != nil {
			return err
		}
	}
	if err := a.change(); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(a.document()); err != nil {
		return err
	}
	return out.Flush()
}

// readFiles reads descriptors with comments.
func readFiles(path string) (*protoregistry.Files, error) {
	data, err := os.ReadFile(path) //nolint:gosec // named by the Makefile
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return protodesc.NewFiles(&set)
}

const ours = "liveblocks.mirror.v1."

type object = map[string]any

// api is the description while it is made.
type api struct {
	files   *protoregistry.Files
	paths   map[string]map[string]object // the operations by path and method
	schemas object                       // by short name
	tags    []any
	short   map[string]string // names in snake_case as HTTP spells them
}

// read adds a file of the generator.
func (a *api) read(path string) error {
	data, err := os.ReadFile(path) //nolint:gosec // named by the Makefile
	if err != nil {
		return err
	}
	// Within one package, names need no package.
	text := strings.NewReplacer("#/components/schemas/"+ours, "#/components/schemas/",
		"#/components/schemas/google.rpc.", "#/components/schemas/").Replace(string(data))
	var file struct {
		Paths      map[string]map[string]object
		Tags       []any
		Components struct{ Schemas object }
	}
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	maps.Copy(a.paths, file.Paths)
	for name, schema := range file.Components.Schemas {
		if name, ok := strings.CutPrefix(name, ours); ok {
			a.schemas[name] = schema
		}
	}
	a.tags = append(a.tags, file.Tags...)
	return nil
}

func (a *api) document() object {
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "liveblocks-mirror", "version": "unknown", // the binary puts its own here
			"description": "Reads the SQL mirror of a Liveblocks project, takes Liveblocks' webhooks, and shows and steers " +
				"the service.\n\nInt64 values are strings. Members with bytes that hold JSON are JSON: numbers may exceed what a " +
				"client's parser keeps exactly. Enums are words; requests may also use the names of the .proto files, and query " +
				"parameters in snake_case. Errors are a google.rpc.Status whose ErrorInfo names the reason.",
		},
		"servers": []any{object{"url": "/", "description": "The service that serves this description."}},
		"tags":    a.tags,
		// Without a configured token, requests from this machine need none.
		"security": []any{object{"token": []any{}}},
		"paths":    a.paths,
		"components": object{
			"schemas": a.schemas,
			"securitySchemes": object{"token": object{
				"type": "http", "scheme": "bearer",
				"description": "A token of MIRROR_API_TOKEN, a key of MIRROR_KEYS_FILE, or a token of an OIDC issuer which that " +
					"file names; a client certificate with a name in that file will do instead. Not needed if none is configured.",
			}},
			"responses": errorResponses(),
		},
	}
}

// failures are those of an operation by HTTP status.
var failures = map[string]struct{ name, description string }{
	"400":     {"Invalid", "The request is not valid, or cannot be answered in this form."},
	"401":     {"Unauthenticated", "The credential or, for webhooks, the signature is missing or not valid."},
	"403":     {"Forbidden", "The caller may not do this."},
	"404":     {"NotFound", "The mirror does not have it."},
	"413":     {"TooLarge", "The body exceeds the limit and will never be accepted."},
	"429":     {"Limited", "Too many wrong credentials came from this address. Retry-After says when to try again."},
	"503":     {"Unavailable", "It cannot be done now. Retry-After says when to try again, if that is known."},
	"default": {"Failed", "Another failure."},
}

func errorResponses() object {
	responses := object{}
	for _, f := range failures {
		responses[f.name] = object{
			"description": f.description, "content": object{"application/json": object{"schema": ref("Status")}},
		}
	}
	return responses
}

func ref(schema string) object { return object{"$ref": "#/components/schemas/" + schema} }

// change makes the generator's description that of the gateway.
func (a *api) change() error {
	var messages []protoreflect.MessageDescriptor
	methods := map[string]protoreflect.MethodDescriptor{}
	a.files.RangeFilesByPackage(protoreflect.FullName(strings.TrimSuffix(ours, ".")),
		func(file protoreflect.FileDescriptor) bool {
			for i := range file.Messages().Len() {
				messages = append(messages, file.Messages().Get(i))
			}
			for i := range file.Enums().Len() {
				a.enum(file.Enums().Get(i))
			}
			for i := range file.Services().Len() {
				service := file.Services().Get(i)
				for j := range service.Methods().Len() {
					m := service.Methods().Get(j)
					methods[string(service.Name())+"_"+string(m.Name())] = m
				}
			}
			return true
		})
	for _, m := range messages {
		for i := range m.Fields().Len() {
			a.short[m.Fields().Get(i).TextName()] = m.Fields().Get(i).JSONName()
		}
		if err := a.message(m); err != nil {
			return err
		}
	}
	a.errors()
	paths := map[string]map[string]object{}
	for path, operations := range a.paths {
		for verb, op := range operations {
			id, _ := op["operationId"].(string)
			m := methods[numbered.ReplaceAllString(id, "")]
			if m == nil {
				return fmt.Errorf("%s %s: there is no method %s", verb, path, id)
			}
			a.operation(path, op, m)
			a.spell(op)
		}
		paths[variable.ReplaceAllStringFunc(path, a.camel)] = operations
	}
	a.paths = paths
	a.spell(a.schemas)
	a.spell(a.tags)
	return nil
}

var (
	numbered = regexp.MustCompile(`_\d+$`)
	variable = regexp.MustCompile(`\w+`)
	snake    = regexp.MustCompile(`\b[a-z]+(_[a-z0-9]+)+\b`)
)

// camel returns a name in snake_case as HTTP spells it, and other words unchanged.
func (a *api) camel(name string) string {
	if short, ok := a.short[name]; ok {
		return short
	}
	return name
}

// spell writes names in descriptions as HTTP spells them, and joins their lines.
func (a *api) spell(v any) {
	switch v := v.(type) {
	case []any:
		for _, member := range v {
			a.spell(member)
		}
	case object:
		for name, member := range v {
			text, ok := member.(string)
			if !ok || name != "description" && name != "summary" {
				a.spell(member)
				continue
			}
			paragraphs := strings.Split(text, "\n\n")
			for i, p := range paragraphs {
				if !strings.HasPrefix(p, "- ") {
					paragraphs[i] = strings.ReplaceAll(p, "\n", " ")
				}
			}
			v[name] = snake.ReplaceAllStringFunc(strings.Join(paragraphs, "\n\n"), a.camel)
		}
	}
}

// comment returns the comment of d.
func comment(d protoreflect.Descriptor) string {
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	return strings.Join(strings.Fields(text), " ")
}

// enum describes an enum by its words.
func (a *api) enum(enum protoreflect.EnumDescriptor) {
	schema, ok := a.schemas[string(enum.Name())].(object)
	if !ok {
		return // not part of the API's messages
	}
	words, lines := []any{}, []string{}
	for i := range enum.Values().Len() {
		value := enum.Values().Get(i)
		words = append(words, apijson.Word(value))
		lines = append(lines, "- "+apijson.Word(value)+": "+comment(value))
	}
	schema["enum"] = words
	schema["description"] = comment(enum) + "\n\n" + strings.Join(lines, "\n")
}

// message describes a message as package apijson writes it.
func (a *api) message(m protoreflect.MessageDescriptor) error {
	name := string(m.Name())
	schema, ok := a.schemas[name].(object)
	switch {
	case !ok || name == "StringList":
		delete(a.schemas, name) // part of another one, or a request
		return nil
	case apijson.IsMetadataValue(m):
		text := object{"type": "string"}
		list := object{"type": "array", "items": text}
		a.schemas[name] = object{
			"description": comment(m),
			"oneOf":       []any{text, list, object{"type": "number"}, object{"type": "boolean"}},
		}
		return nil
	}
	delete(schema, "oneOf") // that at most one member is there, in a form that few tools read
	properties, _ := schema["properties"].(object)
	var required []any
	for i := range m.Fields().Len() {
		field := m.Fields().Get(i)
		property, ok := properties[field.JSONName()].(object)
		if !ok {
			return fmt.Errorf("%s is not in the generator's description", field.FullName())
		}
		if apijson.HoldsJSON(field) {
			properties[field.JSONName()] = object{"description": property["description"]} // of any type
		}
		if isDuration(field) {
			duration(property)
		}
		if apijson.Always(field) {
			required = append(required, field.JSONName())
		}
	}
	if len(required) > 0 {
		schema["required"] = required
	}
	return nil
}

func isDuration(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && field.Message().FullName() == "google.protobuf.Duration"
}

func duration(schema object) {
	schema["pattern"] = `^-?[0-9]+(\.[0-9]{1,9})?s$`
	schema["examples"] = []any{"5s"}
}

// errors describes the body of errors.
func (a *api) errors() {
	d, err := a.files.FindDescriptorByName(ours + "ErrorReason")
	enum, ok := d.(protoreflect.EnumDescriptor)
	if err != nil || !ok {
		return
	}
	reasons, lines := []any{}, []string{}
	for i := 1; i < enum.Values().Len(); i++ {
		value := enum.Values().Get(i)
		reason := strings.TrimPrefix(string(value.Name()), "ERROR_REASON_")
		reasons = append(reasons, reason)
		lines = append(lines, "- "+reason+": "+comment(value))
	}
	a.schemas["ErrorReason"] = object{
		"type": "string", "enum": reasons,
		"description": "Why a call failed. New values may be added.\n\n" + strings.Join(lines, "\n"),
	}
	text := object{"type": "string"}
	a.schemas["Status"] = object{
		"type": "object", "description": "A failure, as google.rpc.Status.",
		"required": []any{"code", "message"},
		"properties": object{
			"code":    object{"type": "integer", "description": "The gRPC status code."},
			"message": object{"type": "string", "description": "What is wrong, and what to do about it."},
			"details": object{"type": "array", "items": ref("ErrorDetail")},
		},
	}
	a.schemas["ErrorDetail"] = object{
		"type": "object", "required": []any{"@type"}, "additionalProperties": true,
		"description": "A google.rpc.ErrorInfo with the reason, or another detail of google.rpc, such as RetryInfo.",
		"properties": object{
			"@type":      object{"type": "string", "examples": []any{"type.googleapis.com/google.rpc.ErrorInfo"}},
			"reason":     ref("ErrorReason"),
			"domain":     object{"type": "string", "examples": []any{strings.TrimSuffix(ours, ".")}},
			"metadata":   object{"type": "object", "additionalProperties": text},
			"retryDelay": object{"type": "string"},
		},
	}
}

// names are those of operations that a method's name and the path do not give.
var names = map[string]string{
	"/v1/rooms/{room_id}/storage:read": "readStorageDocument",
	"/v1/rooms/{room_id}/ydoc:read":    "readYjsDocument",
	"/v1/storage:read":                 "readStorageDocumentByQuery",
	"/v1/ydoc:read":                    "readYjsDocumentByQuery",
	"/api/liveblocks-webhook":          "receiveWebhookAtGuidesPath",
}

// operationID names the operation of a method at a path. The first path of a method has
// its name.
func operationID(m protoreflect.MethodDescriptor, id, path string) string {
	name := strings.ToLower(string(m.Name()[:1])) + string(m.Name()[1:])
	if special, ok := names[path]; ok {
		return special
	}
	if !numbered.MatchString(id) {
		return name
	}
	switch last := strings.LastIndex(path, "{"); {
	case last >= 0:
		owner, _, _ := strings.Cut(path[last+1:], "_id}")
		return name + "Of" + strings.ToUpper(owner[:1]) + owner[1:]
	case strings.HasPrefix(path, "/v1/admin/"):
		return name + "ByBody"
	default:
		return name + "ByQuery"
	}
}

// operation describes a method at a path.
func (a *api) operation(path string, op object, m protoreflect.MethodDescriptor) {
	webhook := m.Name() == "ReceiveWebhook"
	id, _ := op["operationId"].(string)
	op["operationId"] = operationID(m, id, path)
	given, _ := op["parameters"].([]any)
	var parameters []any
	for _, p := range given {
		p, _ := p.(object)
		name, _ := p["name"].(string)
		name, isMap := strings.CutSuffix(a.camel(name), "[string]")
		if m.Name() == "ReadDocument" && name == "kind" {
			continue // the path says it
		}
		p["name"] = name
		if isMap {
			p["style"], p["explode"] = "deepObject", true
			p["schema"] = object{"type": "object", "additionalProperties": object{"type": "string"}}
		}
		if schema, ok := p["schema"].(object); ok && isDuration(m.Input().Fields().ByJSONName(name)) {
			duration(schema)
		}
		parameters = append(parameters, p)
	}
	responses, _ := op["responses"].(object)
	codes := []string{"400", "401", "403", "503", "default"}
	if !webhook { // deliveries have no credential
		codes = append(codes, "429")
	}
	for i := range m.Input().Fields().Len() {
		behavior, _ := proto.GetExtension(m.Input().Fields().Get(i).Options(),
			annotations.E_FieldBehavior).([]annotations.FieldBehavior)
		if slices.Contains(behavior, annotations.FieldBehavior_REQUIRED) { // it names something
			codes = append(codes, "404")
		}
	}
	switch {
	case webhook:
		op["security"] = []any{}
		codes = append(codes, "413")
		for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			parameters = append(parameters, header(name, "As Svix sets it. The prefix svix- is taken too."))
		}
		op["requestBody"] = object{
			"required": true, "description": "The event, exactly as it was signed.",
			"content": object{"application/json": object{"schema": object{}}},
		}
	case m.Name() == "ReadDocument":
		parameters = append(parameters, header("If-None-Match", "Entity tags of the copies that the client has."))
		responses["200"] = object{
			"description": "The document.",
			"headers": object{
				"ETag":              textHeader("The entity tag of this form of the document."),
				"Mirror-Revision":   textHeader("The number of the change that last altered the copy."),
				"Mirror-Fetch-Time": textHeader("When the fetch that produced the copy began."),
				"Mirror-Stale":      textHeader("1 if a newer version is known and not fetched yet. Absent otherwise."),
				"Mirror-Refresh-Error": textHeader("Why the copy is older than maxAge allows, as in Freshness. " +
					"Absent if it is not."),
			},
			"content": object{
				"application/json":         object{"schema": object{}},
				"text/plain":               object{"schema": object{"type": "string"}},
				"application/octet-stream": object{"schema": object{"type": "string", "format": "binary"}},
			},
		}
		responses["304"] = object{"description": "The client's copy is current."}
	case m.IsStreamingServer():
		responses["200"] = object{
			"description": "A stream of messages, one per line. An error ends it.",
			"content": object{"application/json": object{"schema": object{
				"type": "object", "properties": object{"result": ref(string(m.Output().Name())), "error": ref("Status")},
			}}},
		}
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	for _, code := range codes {
		responses[code] = object{"$ref": "#/components/responses/" + failures[code].name}
	}
}

func header(name, description string) object {
	return object{
		"name": name, "in": "header", "description": description, "schema": object{"type": "string"},
		"required": strings.HasPrefix(name, "webhook-"),
	}
}

func textHeader(description string) object {
	return object{"description": description, "schema": object{"type": "string"}}
}
