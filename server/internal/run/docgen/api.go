package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	"github.com/liveblocks-mirror/liveblocks-mirror/gen/descriptors"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// example shows a call.
type example struct {
	request proto.Message
	// command is what follows liveblocks-mirror in a command that makes the call, if there
	// is a better one than call.
	command string
	// headers are HTTP headers and gRPC metadata, in the quotes of the shell. Over HTTP
	// they stand instead of the credential.
	headers []string
	// before are lines of the shell that the others need.
	before []string
	// note is for people.
	note string
}

const (
	// exampleTask is the id of the task of room plan's Storage, and exampleEvent that of a
	// recorded event.
	exampleTask  = "AQACAARwbGFu"
	exampleEvent = "msg_example"
	// The body of a webhook is in a variable of the shell.
	exampleBody = "$body"
)

// examples has one for every call of the API. A test runs each on a service that mirrors a
// room "plan" with a document of each kind, a thread and a user; see
// TestEveryCallOfTheDocuments.
var examples = map[protoreflect.Name]example{
	"GetStatus": {request: &mirrorv1.GetStatusRequest{}, command: "status"},
	"ListTasks": {
		request: &mirrorv1.ListTasksRequest{RoomId: "plan", State: mirrorv1.TaskState_TASK_STATE_DONE},
		command: "tasks list --room plan --state done",
	},
	"GetTask":     {request: &mirrorv1.GetTaskRequest{TaskId: exampleTask}, command: "tasks show " + exampleTask},
	"RetryTask":   {request: &mirrorv1.RetryTaskRequest{TaskId: exampleTask}, command: "tasks retry " + exampleTask},
	"DiscardTask": {request: &mirrorv1.DiscardTaskRequest{TaskId: exampleTask}, command: "tasks discard " + exampleTask},
	"RequestSync": {
		request: &mirrorv1.RequestSyncRequest{RoomId: "plan", Kind: mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE},
		command: "resync plan --kind storage",
	},
	"StartBackfill": {request: &mirrorv1.StartBackfillRequest{}, command: "backfill"},
	"GetBackfill":   {request: &mirrorv1.GetBackfillRequest{}, command: "backfill --watch"},
	"PinProject": {
		request: &mirrorv1.PinProjectRequest{LiveblocksProjectId: "605a50b01a36d5ea7a2e9104"},
		command: "project pin 605a50b01a36d5ea7a2e9104",
	},
	"UnpinProject": {request: &mirrorv1.UnpinProjectRequest{}, command: "project unpin"},
	"PauseProject": {
		request: &mirrorv1.PauseProjectRequest{Reason: "the database is moved"},
		command: "pause 'the database is moved'",
	},
	"ResumeProject": {request: &mirrorv1.ResumeProjectRequest{}, command: "resume"},
	"ReplayEvents": {
		request: &mirrorv1.ReplayEventsRequest{RoomId: "plan", DryRun: true}, command: "events replay --room plan",
	},
	"EraseUser": {
		request: &mirrorv1.EraseUserRequest{UserId: "mallory", Confirm: true}, command: "erase user mallory --yes",
		note: "[DATABASE.md](DATABASE.md#erasing-a-user-or-a-room) says what is erased, and what remains.",
	},
	"EraseRoom":        {request: &mirrorv1.EraseRoomRequest{RoomId: "gone"}, command: "erase room gone"},
	"ConfirmSecretKey": {request: &mirrorv1.ConfirmSecretKeyRequest{}, command: "project confirm-key"},
	"ConfirmDeletions": {
		request: &mirrorv1.ConfirmDeletionsRequest{RoomsVanished: 12},
		command: "project confirm-deletions --rooms 12",
	},
	"ListAuditEntries": {
		request: &mirrorv1.ListAuditEntriesRequest{Method: "PauseProject"},
		command: "audit list --method PauseProject",
	},
	"VerifyMirror": {request: &mirrorv1.VerifyMirrorRequest{RoomIdPrefix: "pl"}, command: "verify --room-prefix pl"},

	"ListChanges": {request: &mirrorv1.ListChangesRequest{
		RoomId: "plan",
		Start:  &mirrorv1.ListChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST},
	}},
	"WatchChanges": {
		request: &mirrorv1.WatchChangesRequest{
			RoomId: "plan",
			Start:  &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST},
		},
		command: "follow --room plan --from earliest",
		note: "It has no end. [CHANGES.md](CHANGES.md) says how to go on after an interruption, and how to have " +
			"server-sent events.",
	},

	"ReceiveWebhook": {
		headers: []string{"webhook-id: $id", "webhook-timestamp: $at", "webhook-signature: $signature"},
		before: []string{
			"id=msg_$RANDOM$RANDOM at=$(date +%s) time=$(date -u +%Y-%m-%dT%H:%M:%SZ)",
			`body='{"type":"storageUpdated","data":{"projectId":"605a50b01a36d5ea7a2e9104","roomId":"plan","updatedAt":"'$time'"}}'`,
			`secret=${LIVEBLOCKS_WEBHOOK_SECRET%%,*}`,
			`key=$(printf %s "${secret#whsec_}" | base64 -d | od -An -v -tx1 | tr -d ' \n')`,
			`signature=v1,$(printf %s "$id.$at.$body" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)`,
		},
		note: "Liveblocks makes this call. For a test, the first lines sign a webhook as Liveblocks does, with the secret " +
			"in LIVEBLOCKS_WEBHOOK_SECRET, which openssl shows to the other users of the machine while it runs. The " +
			"signature is the credential. A second delivery of an id is a duplicate.",
	},
	"GetEvent":   {request: &mirrorv1.GetEventRequest{EventId: exampleEvent}, command: "events show " + exampleEvent},
	"ListEvents": {request: &mirrorv1.ListEventsRequest{RoomId: "plan"}, command: "events list --room plan"},

	"GetRoom":            {request: &mirrorv1.GetRoomRequest{RoomId: "plan"}},
	"ListRooms":          {request: &mirrorv1.ListRoomsRequest{RoomIdPrefix: "pl"}},
	"GetStorageDocument": {request: &mirrorv1.GetStorageDocumentRequest{RoomId: "plan"}},
	"GetYjsDocument":     {request: &mirrorv1.GetYjsDocumentRequest{RoomId: "plan"}},
	"ReadDocument": {request: &mirrorv1.ReadDocumentRequest{
		RoomId: "plan", Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON,
	}},
	"ListDocuments": {request: &mirrorv1.ListDocumentsRequest{RoomIdPrefix: "pl"}},
	"GetThread":     {request: &mirrorv1.GetThreadRequest{RoomId: "plan", ThreadId: "th_example"}},
	"ListThreads": {request: &mirrorv1.ListThreadsRequest{
		Resolved: proto.Bool(false), Metadata: map[string]string{"color": "blue"},
	}},
	"GetComment": {
		request: &mirrorv1.GetCommentRequest{RoomId: "plan", ThreadId: "th_example", CommentId: "cm_example"},
	},
	"ListComments":      {request: &mirrorv1.ListCommentsRequest{AuthorUserId: "alice"}},
	"ListActiveUsers":   {request: &mirrorv1.ListActiveUsersRequest{RoomId: "plan"}},
	"ListUserSessions":  {request: &mirrorv1.ListUserSessionsRequest{UserId: "alice", OpenOnly: true}},
	"GetFlow":           {request: &mirrorv1.GetFlowRequest{RoomId: "plan", StorageKey: "flow"}},
	"ListFlows":         {request: &mirrorv1.ListFlowsRequest{RoomId: "plan"}},
	"ListNotifications": {request: &mirrorv1.ListNotificationsRequest{UserId: "alice"}},
	"GetGroup":          {request: &mirrorv1.GetGroupRequest{GroupId: "marketing"}},
	"ListGroups":        {request: &mirrorv1.ListGroupsRequest{}},
}

// apiPage is docs/API.md with some examples. It fails for a call that has no example, and
// for an example of no call.
func apiPage(examples map[protoreflect.Name]example) (string, error) {
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(descriptors.Set, set); err != nil {
		return "", err
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return "", err
	}
	pkg := mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto.Package()
	var services []protoreflect.ServiceDescriptor
	files.RangeFilesByPackage(pkg, func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			services = append(services, file.Services().Get(i))
		}
		return true
	})
	slices.SortFunc(services, func(a, b protoreflect.ServiceDescriptor) int {
		return strings.Compare(string(a.Name()), string(b.Name()))
	})
	var out strings.Builder
	out.WriteString(apiIntroduction)
	left := make(map[protoreflect.Name]bool, len(examples))
	for name := range examples {
		left[name] = true
	}
	for _, service := range services {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n", service.Name(), wrap(firstSentence(service)))
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			ex, ok := examples[method.Name()]
			if !ok {
				return "", fmt.Errorf("there is no example of %s; add one to the examples in docgen/api.go, and what it needs "+
					"to TestEveryCallOfTheDocuments", method.FullName())
			}
			delete(left, method.Name())
			if err := writeCall(&out, method, ex); err != nil {
				return "", fmt.Errorf("the example of %s: %w", method.FullName(), err)
			}
		}
	}
	for name := range left {
		return "", fmt.Errorf("there is an example of %s in docgen/api.go, and no such call", name)
	}
	return out.String(), nil
}

const apiIntroduction = "# Calls\n\nGenerated by `make gen`; do not edit.\n" + `
Every call of the API: with grpcurl, over HTTP and as a command. A test runs each line. What the fields mean is in the
[.proto files](../proto/liveblocks/mirror/v1) and in ` + "`/openapi.json`" + ` of a running service; [CLI.md](CLI.md) has all
commands. The lines need bash, curl, [grpcurl](https://github.com/fullstorydev/grpcurl) and the program itself on
the PATH, and this before them, with a [token or a key](ACCESS.md) if the service has any:

    export MIRROR_API_TOKEN=...
    auth="authorization: Bearer $MIRROR_API_TOKEN"

Rooms, users and threads are made up. The ids of tasks are in the answer of ListTasks, those of events in that of
ListEvents. ` + "`call`" + ` makes any call; where another command does more for people, it is the one shown. With ` + "`--json`" + `
it prints what the call answers.
`

// writeCall writes the lines that make a call.
func writeCall(out *strings.Builder, method protoreflect.MethodDescriptor, ex example) error {
	fmt.Fprintf(out, "\n### %s\n\n%s\n\n", method.Name(), wrap(strings.TrimSpace(firstSentence(method)+" "+ex.note)))
	for _, line := range ex.before {
		fmt.Fprintf(out, "    %s\n", line)
	}
	text := `{"body":{"contentType":"application/json","data":"'$(printf %s "` + exampleBody + `" | base64 | tr -d '\n')'"}}`
	if ex.request != nil {
		if got, want := ex.request.ProtoReflect().Descriptor().FullName(), method.Input().FullName(); got != want {
			return fmt.Errorf("its request is a %s; want a %s", got, want)
		}
		data, err := protojson.Marshal(ex.request)
		if err != nil {
			return err
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, data); err != nil { // protojson varies its spaces
			return err
		}
		text = compact.String()
	}
	headers, given := "", ""
	for _, header := range ex.headers {
		headers += ` -H "` + header + `"`
	}
	if text != "{}" {
		given = " -d '" + text + "'"
	}
	curl, err := curlLine(method, ex, text)
	if err != nil {
		return err
	}
	flags := "-s"
	if method.IsStreamingServer() { // show each message when it comes
		flags = "-sN"
	}
	caller := cmp.Or(headers, ` -H "$auth"`)
	fmt.Fprintf(out, "    grpcurl -plaintext -H \"$auth\"%s%s 127.0.0.1:9090 %s/%s\n", headers, given,
		method.Parent().FullName(), method.Name()) // it asks which methods there are, which needs the credential
	fmt.Fprintf(out, "    curl %s%s%s\n", flags, caller, curl)
	command := ex.command
	if command == "" {
		command = fmt.Sprintf("call%s %s", headers, method.Name())
		if given != "" {
			request, err := worded(method.Input(), text)
			if err != nil {
				return err
			}
			command += " '" + request + "'"
		}
	}
	fmt.Fprintf(out, "    liveblocks-mirror %s\n", command)
	return nil
}

// curlLine is what follows the headers in a call over HTTP.
func curlLine(method protoreflect.MethodDescriptor, ex example, text string) (string, error) {
	rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	verb, path := "GET", rule.GetGet()
	if path == "" {
		verb, path = "POST", rule.GetPost()
	}
	if path == "" {
		return "", errors.New("it has no HTTP route")
	}
	const address, media = "http://127.0.0.1:8080", "-H 'content-type: application/json' -d"
	if ex.request == nil { // the body is that of Liveblocks
		return fmt.Sprintf(` %s "%s" %s%s`, media, exampleBody, address, path), nil
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return "", err
	}
	message := method.Input()
	var missing error
	path = regexp.MustCompile(`\{(\w+)\}`).ReplaceAllStringFunc(path, func(variable string) string {
		field := message.Fields().ByName(protoreflect.Name(strings.Trim(variable, "{}")))
		value, ok := fields[field.JSONName()].(string)
		if !ok {
			missing = fmt.Errorf("its path needs %s", field.Name())
		}
		delete(fields, field.JSONName())
		return url.PathEscape(value)
	})
	if missing != nil {
		return "", missing
	}
	if verb == "POST" {
		rest, err := json.Marshal(fields)
		if err != nil {
			return "", err
		}
		body, err := worded(message, string(rest))
		return fmt.Sprintf(" %s '%s' %s%s", media, body, address, path), err
	}
	var query []string
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		value, ok := fields[field.JSONName()]
		if !ok {
			continue
		}
		name := field.JSONName()
		switch value := value.(type) {
		case map[string]any:
			for key, member := range value {
				query = append(query, fmt.Sprintf("%s[%s]=%s", name, url.QueryEscape(key), url.QueryEscape(fmt.Sprint(member))))
			}
		default:
			if field.Enum() != nil {
				value = wordOf(field, value)
			}
			query = append(query, name+"="+url.QueryEscape(fmt.Sprint(value)))
		}
	}
	if len(query) > 0 {
		slices.Sort(query)
		path = fmt.Sprintf("%s?%s", path, strings.Join(query, "&"))
	}
	globbed := ""
	if strings.Contains(path, "[") {
		globbed = " -g"
	}
	return fmt.Sprintf("%s '%s%s'", globbed, address, path), nil
}

// worded is a request with the words that the HTTP API and the command have for enums.
func worded(message protoreflect.MessageDescriptor, request string) (string, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(request), &fields); err != nil {
		return request, nil //nolint:nilerr // parts of it are variables of the shell, and it has no enum
	}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if value, ok := fields[field.JSONName()]; ok && field.Enum() != nil {
			fields[field.JSONName()] = json.RawMessage(strconv.Quote(wordOf(field, strings.Trim(string(value), `"`))))
		}
	}
	body, err := json.Marshal(fields)
	return string(body), err
}

// wordOf is the word that the HTTP API has for a value of an enum.
func wordOf(field protoreflect.FieldDescriptor, value any) string {
	named, _ := apijson.ParseEnum(field.Enum(), fmt.Sprint(value)) // it was marshalled from a message
	return apijson.Word(named)
}

// firstSentence is the first sentence of a comment in the .proto files.
func firstSentence(of protoreflect.Descriptor) string {
	text := strings.TrimSpace(of.ParentFile().SourceLocations().ByDescriptor(of).LeadingComments)
	text = strings.Join(strings.Fields(text), " ")
	if end := strings.Index(text, ". "); end >= 0 {
		text = text[:end+1]
	}
	return text
}

// wrap breaks a paragraph into lines.
func wrap(text string) string {
	const width = 120
	var out strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			out.WriteByte('\n')
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += len(word)
	}
	return out.String()
}
