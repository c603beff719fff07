package gatewaytest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var routeCases = []testCase{
	{"EveryRouteIsServed", everyRouteIsServed},
	{"EveryRouteNeedsACredential", everyRouteIsClosed},
	{"EveryIDIsTried", everyIDIsTried},
	{"EveryQueryParameter", everyQueryParameter},
	{"Metadata", metadataFilter},
}

// apiRoute is one HTTP binding of a call in the API's definition.
type apiRoute struct {
	method, path string
	call         protoreflect.MethodDescriptor
	inBody       bool
}

var pathField = regexp.MustCompile(`\{([a-z_]+)\}`)

// apiRoutes returns all routes except deliveries, which are routed separately.
func apiRoutes(t testing.TB) []apiRoute {
	t.Helper()
	var all []apiRoute
	protoregistry.GlobalFiles.RangeFilesByPackage("liveblocks.mirror.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			calls := file.Services().Get(i).Methods()
			for j := range calls.Len() {
				call := calls.Get(j)
				rule, ok := proto.GetExtension(call.Options(), annotations.E_Http).(*annotations.HttpRule)
				if !ok || rule == nil {
					t.Errorf("%s has no route", call.FullName())
					continue
				}
				if call.Input() == (*mirrorv1.ReceiveWebhookRequest)(nil).ProtoReflect().Descriptor() {
					continue
				}
				for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					route := apiRoute{method: http.MethodGet, path: binding.GetGet(), call: call, inBody: binding.GetBody() == "*"}
					if route.path == "" {
						route.method, route.path = http.MethodPost, binding.GetPost()
					}
					all = append(all, route)
				}
			}
		}
		return true
	})
	if len(all) < 25 {
		t.Fatalf("found %d routes; want more", len(all))
	}
	return all
}

// fill puts ids in the path, and returns the path and the corresponding request.
func (ar apiRoute) fill(id func(field string) string) (path string, req proto.Message) {
	msg := newRequest(ar.call)
	path = pathField.ReplaceAllStringFunc(ar.path, func(name string) string {
		name = strings.Trim(name, "{}")
		value := id(name)
		msg.Set(msg.Descriptor().Fields().ByName(protoreflect.Name(name)), protoreflect.ValueOfString(value))
		return url.PathEscape(value)
	})
	// The one thing that a path says and no field of it: which document to read.
	if r, ok := msg.Interface().(*mirrorv1.ReadDocumentRequest); ok {
		r.Kind = mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE
		if strings.Contains(path, "/ydoc:") {
			r.Kind = mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC
		}
	}
	return path, msg.Interface()
}

func newRequest(call protoreflect.MethodDescriptor) protoreflect.Message {
	typ, err := protoregistry.GlobalTypes.FindMessageByName(call.Input().FullName())
	if err != nil {
		panic(err)
	}
	return typ.New()
}

func everyRouteIsServed(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, route := range apiRoutes(t) {
		path, want := route.fill(func(field string) string { return "a/b:c?d#e%f " + field })
		r.do(t, route.method, r.url+path, nil).accepted(t, nil)
		if diff := cmp.Diff(want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", route.method, path, diff)
		}
		// The listener for webhooks does not know it.
		r.do(t, route.method, r.webhookURL+path, nil).refused(t, http.StatusNotFound, "ROUTE_NOT_FOUND")
	}
	r.noCall(t)
}

// everyRouteIsClosed checks that every route requires a credential, including later
// ones.
func everyRouteIsClosed(t *testing.T, dial Dial) {
	r := newRig(t, dial, secured)
	for _, route := range apiRoutes(t) {
		path, _ := route.fill(func(string) string { return "x" })
		r.do(t, route.method, r.url+path, nil).refused(t, http.StatusUnauthorized, "CREDENTIAL_MISSING")
		r.do(t, route.method, r.url+path, nil, "Authorization", "Bearer wrong").refused(t, http.StatusUnauthorized,
			"CREDENTIAL_INVALID")
	}
	r.noCall(t)
}

// everyIDIsTried checks that idRoutes is complete.
func everyIDIsTried(t *testing.T, _ Dial) {
	for _, route := range apiRoutes(t) {
		for _, name := range pathField.FindAllString(route.path, -1) {
			// What else is in the path is of no matter here.
			pattern := regexp.QuoteMeta(route.path)
			for _, other := range pathField.FindAllString(route.path, -1) {
				stand := "[a-z0-9_]+"
				if other == name {
					stand = "%s"
				}
				pattern = strings.Replace(pattern, regexp.QuoteMeta(other), stand, 1)
			}
			match := regexp.MustCompile("^" + route.method + " " + pattern + "$")
			if !slices.ContainsFunc(idRoutes, func(c idRoute) bool { return match.MatchString(c.method + " " + c.path) }) {
				t.Errorf("%s of %s %s is not among the ids that are tried", name, route.method, route.path)
			}
		}
	}
}

// everyQueryParameter checks that each field of each request can be set by both
// spellings of its name, and that nothing else can.
func everyQueryParameter(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, route := range apiRoutes(t) {
		if _, ok := newRequest(route.call).Interface().(*mirrorv1.ReadDocumentRequest); ok || route.inBody {
			continue // documents have tests of their own
		}
		bare, base := route.fill(func(string) string { return "x" })
		fields := base.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			path := bare
			for _, name := range []string{field.TextName(), field.JSONName()} {
				if strings.Contains(route.path, "{"+field.TextName()+"}") {
					r.get(t, path+"?"+name+"=x").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
					continue
				}
				want := proto.Clone(base).ProtoReflect()
				value := "v"
				switch {
				case field.IsMap():
					name += "[k]"
					want.Mutable(field).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString(value))
				case field.IsList() && field.Kind() == protoreflect.StringKind:
					want.Mutable(field).List().Append(protoreflect.ValueOfString(value))
				case field.Kind() == protoreflect.StringKind:
					want.Set(field, protoreflect.ValueOfString(value))
				case field.Kind() == protoreflect.BoolKind:
					value = "true"
					want.Set(field, protoreflect.ValueOfBool(true))
				case field.Kind() == protoreflect.Int32Kind:
					value = "7"
					want.Set(field, protoreflect.ValueOfInt32(7))
				case field.IsList(): // of enums
					value = string(field.Enum().Values().Get(1).Name())
					want.Mutable(field).List().Append(protoreflect.ValueOfEnum(1))
				case field.Kind() == protoreflect.EnumKind:
					value = string(field.Enum().Values().Get(1).Name())
					want.Set(field, protoreflect.ValueOfEnum(1))
				case field.Message().FullName() == "google.protobuf.Timestamp":
					value = at.Format(time.RFC3339)
					want.Set(field, protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()))
				case field.Message().FullName() == "google.protobuf.Duration":
					value = "1.5s"
					want.Set(field, protoreflect.ValueOfMessage(durationpb.New(1500*time.Millisecond).ProtoReflect()))
				default:
					t.Fatalf("%s is of a type this test does not know", field.FullName())
				}
				r.get(t, path+"?"+url.QueryEscape(name)+"="+url.QueryEscape(value)).accepted(t, nil)
				if diff := cmp.Diff(want.Interface(), r.onlyCall(t).req, protocmp.Transform()); diff != "" {
					t.Errorf("GET %s with %s=%s (-want +got):\n%s", path, name, value, diff)
				}
			}
		}
		for _, stranger := range []string{"nonsense=1", "project_id[x]=1", "metadata.x=1", "page_token[]=1"} {
			r.get(t, bare+"?"+stranger).refused(t, http.StatusBadRequest, "REQUEST_INVALID")
		}
	}
	r.noCall(t)
}

func metadataFilter(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, path := range []string{"/v1/threads", "/v1/rooms/r/threads"} {
		want := map[string]string{"color": "blue", "a.b": "", "x y]": "&=/ü", "": "empty", "n": "1"}
		query := url.Values{}
		for key, value := range want {
			query.Set(fmt.Sprintf("metadata[%s]", key), value)
		}
		query.Set("resolved", "false")
		r.get(t, path+"?"+query.Encode()).accepted(t, nil)
		req, ok := r.onlyCall(t).req.(*mirrorv1.ListThreadsRequest)
		if !ok || req.Resolved == nil || req.GetResolved() {
			t.Fatalf("request = %v; want threads that are not resolved", req)
		}
		if diff := cmp.Diff(want, req.GetMetadata()); diff != "" {
			t.Errorf("metadata (-want +got):\n%s", diff)
		}
		r.get(t, path).accepted(t, nil)
		if req, ok := r.onlyCall(t).req.(*mirrorv1.ListThreadsRequest); !ok || req.Resolved != nil || req.Metadata != nil {
			t.Errorf("request = %v; want all threads", req)
		}
		// None of these may be ignored: the answer would be every thread.
		for _, bad := range []string{
			"metadata=blue", "metadata[color=blue", "metadata]color[=blue", "metadata[a][b]=1", "metadata[a[b]=1",
			"metadata[a%0Ab]=1",
			"metadata[k]=1&metadata[k]=2", "[metadata]=1", "metadata[k]x=1", "meta[k]=1", "thread.metadata[k]=1",
			"resolved=maybe", "resolved[x]=true",
		} {
			r.get(t, path+"?"+bad).refused(t, http.StatusBadRequest, "REQUEST_INVALID")
		}
	}
	r.noCall(t)
}
