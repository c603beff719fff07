package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// routes describes the paths of the API: the methods and query parameters that each
// accepts. It is built from the same annotations as the generated handlers and
// matches with the same code.
type routes struct {
	mux     *runtime.ServeMux
	methods []string
}

// route is one HTTP binding of a call: its query parameters, by both of their names,
// and which of them are maps.
type route struct {
	query, members map[string]protoreflect.FieldDescriptor
}

// check returns what is wrong with a query, and writes the words of enums as
// grpc-gateway reads them. grpc-gateway would ignore an unknown parameter and, for
// example, return all events for ?room=x. Nested fields are not parameters, because a
// time is written as one value. Members of maps are, as in ?metadata[color]=blue.
func (rt *route) check(query url.Values) error {
	for name, values := range query {
		if field, key, ok := strings.Cut(name, "["); ok {
			// grpc-gateway finds no field for names with more brackets or with a
			// line break.
			key, ok = strings.CutSuffix(key, "]")
			if !ok || rt.members[field] == nil || strings.ContainsAny(key, "[\n") {
				return unknownParameter(name)
			}
			continue
		}
		field := rt.query[name]
		if field == nil {
			return unknownParameter(name)
		}
		if field.Enum() == nil {
			continue
		}
		for i, word := range values {
			if value, ok := apijson.ParseEnum(field.Enum(), word); ok {
				values[i] = string(value.Name())
			} else if _, err := strconv.ParseInt(word, 10, 32); err != nil {
				return apijson.UnknownWord(name, apijson.Words(field.Enum()))
			}
		}
	}
	return nil
}

func unknownParameter(name string) error {
	return fmt.Errorf("there is no query parameter %q here", name)
}

// newRoutes reads the routes of the services in files, except webhooks, which are
// routed separately.
func newRoutes(files []protoreflect.FileDescriptor) (*routes, error) {
	rs := &routes{mux: runtime.NewServeMux(
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithErrorHandler(func(context.Context, *runtime.ServeMux, runtime.Marshaler, http.ResponseWriter,
			*http.Request, error) {
		}),
		runtime.WithRoutingErrorHandler(func(context.Context, *runtime.ServeMux, runtime.Marshaler, http.ResponseWriter,
			*http.Request, int) {
		}),
	)}
	webhook := (*mirrorv1.ReceiveWebhookRequest)(nil).ProtoReflect().Descriptor()
	for _, file := range files {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
				if !ok || rule == nil || m.Input() == webhook {
					continue
				}
				for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					if err := rs.add(binding, m.Input()); err != nil {
						return nil, fmt.Errorf("route %s: %w", m.FullName(), err)
					}
				}
			}
		}
	}
	slices.Sort(rs.methods)
	return rs, nil
}

func (rs *routes) add(rule *annotations.HttpRule, input protoreflect.MessageDescriptor) error {
	var method, path string
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		method, path = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		method, path = http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		method, path = http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		method, path = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		method, path = http.MethodDelete, p.Delete
	default:
		return fmt.Errorf("pattern %T is not supported", p)
	}
	rt := &route{
		query:   make(map[string]protoreflect.FieldDescriptor),
		members: make(map[string]protoreflect.FieldDescriptor),
	}
	for i := range input.Fields().Len() {
		field := input.Fields().Get(i)
		inBody := rule.GetBody() == "*" || rule.GetBody() == string(field.Name())
		if !inBody && !strings.Contains(path, "{"+string(field.Name())+"}") {
			names := rt.query
			if field.IsMap() {
				names = rt.members
			}
			names[field.TextName()] = field
			names[field.JSONName()] = field
		}
	}
	if !slices.Contains(rs.methods, method) {
		rs.methods = append(rs.methods, method)
	}
	return rs.mux.HandlePath(method, path, func(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
		if m, ok := w.(*matcher); ok {
			m.found = rt
		}
	})
}

// matcher records the route that a request matches. Nothing is written to it.
type matcher struct {
	http.ResponseWriter
	found *route
}

// match returns the route of r, or nil.
func (rs *routes) match(r *http.Request) *route {
	var m matcher
	rs.mux.ServeHTTP(&m, r)
	return m.found
}

// allowed returns the methods of r's path, in the form of an Allow header, or "" if
// the path does not exist.
func (rs *routes) allowed(r *http.Request) string {
	var allow []string
	for _, method := range rs.methods {
		other := r.WithContext(r.Context()) // a shallow copy
		other.Method = method
		if rs.match(other) == nil {
			continue
		}
		allow = append(allow, method)
		if method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	return strings.Join(allow, ", ")
}
