package blackbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The two projects of docs/PROJECTS.md.
const (
	prod, dev                 = "acme-prod", "acme-dev"
	productionKey, stagingKey = "sk_prod_acme", "sk_dev_acme"
	prodSecret, devSecret     = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

// twoProjects is a service with two projects, each with a Liveblocks of its own.
type twoProjects struct {
	dir       string // of the file of projects
	env       map[string]string
	database  string
	upstreams map[string]*fake.Server // by key
	address   string                  // of both
	*harness.Service
}

// projectsDoc returns the file of projects in docs/PROJECTS.md, and the commands there.
func projectsDoc(t *testing.T) (file string, commands []string) {
	t.Helper()
	text := string(mustRead(t, "../../../docs/PROJECTS.md"))
	_, text, _ = strings.Cut(text, "```yaml\n")
	file, text, _ = strings.Cut(text, "```")
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			command, _, _ = strings.Cut(strings.TrimSpace(command), "  #")
			commands = append(commands, command)
		}
	}
	if file == "" || len(commands) != 7 {
		t.Fatalf("docs/PROJECTS.md has the file %q and the commands %q", file, commands)
	}
	return file, commands
}

func startTwoProjects(t *testing.T, database string) *twoProjects {
	t.Helper()
	file, _ := projectsDoc(t)
	w := &twoProjects{
		dir: t.TempDir(), database: database,
		upstreams: map[string]*fake.Server{productionKey: fake.New(productionKey), stagingKey: fake.New(stagingKey)},
	}
	must(t, os.Mkdir(filepath.Join(w.dir, "secrets"), 0o700))
	for name, text := range map[string]string{
		"projects.yaml": file, "secrets/acme-prod-webhook": prodSecret + "\n", "secrets/acme-dev-key": stagingKey + "\n",
	} {
		must(t, os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600))
	}
	for _, secret := range []string{productionKey, stagingKey, prodSecret[len("whsec_"):], devSecret[len("whsec_"):]} {
		harness.Secret(secret)
	}
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		upstream := w.upstreams[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if upstream == nil {
			http.Error(rw, "no such key", http.StatusForbidden)
			return
		}
		upstream.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	w.address = front.URL
	w.env = map[string]string{
		"LIVEBLOCKS_SECRET_KEY": "", "LIVEBLOCKS_WEBHOOK_SECRET": "",
		"MIRROR_PROJECTS_FILE": filepath.Join(w.dir, "projects.yaml"),
		"ACME_PROD_KEY":        productionKey, "ACME_DEV_WEBHOOK": devSecret, "ACME_DEV_WEBHOOK_OLD": devSecret,
		"MIRROR_LIVEBLOCKS_PROBE_MIN": "1h",
	}
	w.start(t)
	return w
}

func (w *twoProjects) start(t *testing.T) {
	t.Helper()
	w.Service = harness.Start(t, harness.Options{DatabaseURL: w.database, UpstreamURL: w.address, Env: w.env})
}

// post delivers an event signed with a secret, under an id, to a path.
func (w *twoProjects) post(t *testing.T, path, secret, id string, ev fake.Event) (status int, body string) {
	t.Helper()
	d := harness.SignWith(t, secret, id, time.Now(), fake.Payload(ev, "liveblocks-"+secret[6:10]))
	status, answer, err := d.Do(t.Context(), w.URL(path))
	must(t, err)
	return status, string(answer)
}

// awaitDocument waits until a room of a project has a document.
func (w *twoProjects) awaitDocument(t *testing.T, project, room string, want []byte) {
	t.Helper()
	harness.Eventually(t, patience, func() error {
		status, _, got := w.Get(t, roomPath(room, "/storage:read?format=plain-lson&projectId="+project))
		if status != http.StatusOK || !bytes.Equal(got, want) {
			return fmt.Errorf("document of %s in %s = %d %s; want %s", room, project, status, got, want)
		}
		return nil
	})
}

func storageUpdated(room string) fake.Event {
	return fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: time.Now()}
}

// rows are all rows of a project, by table, but for what a claim leaves behind.
func rowsOf(t *testing.T, db *dbtest.DB, project string) map[string]string {
	t.Helper()
	var tables []string
	must(t, db.Each(t.Context(), "select table_name from information_schema.columns where column_name = 'project_id' "+
		"and table_name like 'mirror%' and table_schema in (select table_schema from information_schema.tables "+
		"where table_name = 'mirror_room') group by table_name", func(scan func(dest ...any) error) error {
		tables = append(tables, "")
		return scan(&tables[len(tables)-1])
	}))
	all := make(map[string]string)
	for _, table := range tables {
		if got := dump(t, db, "select * from "+table+" where project_id = '"+project+"'"); len(got) > 0 {
			all[table] = string(got)
		}
	}
	return all
}

func TestTwoProjects(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		w := startTwoProjects(t, e.Database(t))
		a, b := w.upstreams[productionKey], w.upstreams[stagingKey]
		must(t, a.CreateRoom("plan", fake.RoomOptions{Storage: storage(`"of prod"`)}))
		must(t, b.CreateRoom("plan", fake.RoomOptions{Storage: storage(`"of dev"`)}))
		must(t, b.CreateRoom("own", fake.RoomOptions{Storage: storage(`"own"`)}))
		thread, err := b.CreateThread("own", fake.ThreadOptions{Comment: fake.Comment{UserID: "alice", Text: "hello"}})
		must(t, err)
		created := func(room string) fake.Event {
			return fake.Event{Type: fake.RoomCreated, RoomID: room, Time: time.Now()}
		}

		// The same webhook id in both, once by path and once by the secret that verifies.
		prodPath, anyPath := "/v1/projects/"+prod+"/webhooks/liveblocks", "/api/liveblocks-webhook"
		for _, c := range []struct {
			path, secret string
			ev           fake.Event
			want         int
		}{
			{prodPath, prodSecret, created("plan"), http.StatusOK},
			{anyPath, devSecret, created("plan"), http.StatusOK},
			{anyPath, prodSecret, created("plan"), http.StatusOK}, // a duplicate
			{prodPath, devSecret, created("plan"), http.StatusUnauthorized},
		} {
			if status, body := w.post(t, c.path, c.secret, "msg_same", c.ev); status != c.want {
				t.Errorf("delivery to %s = %d %s; want %d", c.path, status, body, c.want)
			}
		}
		if status, body := w.post(t, anyPath, devSecret, "msg_own", created("own")); status != http.StatusOK {
			t.Errorf("delivery = %d %s", status, body)
		}
		w.awaitDocument(t, prod, "plan", storage(`"of prod"`))
		w.awaitDocument(t, dev, "plan", storage(`"of dev"`))
		w.awaitDocument(t, dev, "own", storage(`"own"`))
		for project, secret := range map[string]string{prod: prodSecret, dev: devSecret} {
			status, _, body := w.Get(t, "/v1/events/msg_same?projectId="+project)
			if status != http.StatusOK || !strings.Contains(string(body), "liveblocks-"+secret[6:10]) {
				t.Errorf("event of %s = %d %s; want its own", project, status, body)
			}
		}

		// A project that is not there is answered like one whose signature is wrong, and reads
		// name a project.
		_, wrong := w.post(t, prodPath, devSecret, "msg_x", created("x"))
		if status, unknown := w.post(t, "/v1/projects/nowhere/webhooks/liveblocks", devSecret, "msg_x",
			created("x")); status != http.StatusUnauthorized || unknown != wrong {
			t.Errorf("delivery to an unknown project = %d %s; want %s", status, unknown, wrong)
		}
		for path, want := range map[string]string{
			"/v1/rooms":                   "several projects are configured: name one in project_id",
			"/v1/rooms?projectId=nowhere": "no such project is configured",
		} {
			if status, _, body := w.Get(t, path); status != http.StatusBadRequest || !strings.Contains(string(body), want) {
				t.Errorf("%s = %d %s; want 400 and %q", path, status, body, want)
			}
		}
		if status, _, body := w.Get(t, "/v1/rooms/own?projectId="+prod); status != http.StatusNotFound {
			t.Errorf("room of another project = %d %s; want 404", status, body)
		}
		awaitQuiet(t, w, prod, dev)
		w.isolated(t, e.Connect(t, w.database), thread)

		// The key of one is refused: it is paused, and the other goes on.
		a.Script(fake.Match{}, fake.Status(http.StatusUnauthorized, "UNAUTHORIZED").Always())
		must(t, a.SetStorage("plan", storage("1")))
		w.post(t, anyPath, prodSecret, "msg_1", storageUpdated("plan"))
		harness.Eventually(t, patience, func() error {
			paused := make(map[string]bool)
			got, err := w.Admin(t).GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
			must(t, err)
			for _, p := range got.GetProjects() {
				paused[p.GetProjectId()] = p.GetPauseReason() != ""
			}
			if len(paused) != 2 || !paused[prod] || paused[dev] {
				return fmt.Errorf("paused projects = %v; want the one whose key is refused", paused)
			}
			return nil
		})
		must(t, b.SetStorage("plan", storage("2")))
		w.post(t, anyPath, devSecret, "msg_2", storageUpdated("plan"))
		w.awaitDocument(t, dev, "plan", storage("2"))
		w.awaitDocument(t, prod, "plan", storage(`"of prod"`))
		if !strings.Contains(w.Log(), "project="+prod+" ") {
			t.Error("the log does not name the project that is paused")
		}
		a.ClearScripts()

		w.documented(t, e)
	})
}

// awaitQuiet waits until the projects have nothing left to do but their next sweep.
func awaitQuiet(t *testing.T, w *twoProjects, projects ...string) {
	t.Helper()
	admin := w.Admin(t)
	harness.Eventually(t, patience, func() error {
		for _, project := range projects {
			got, err := admin.ListTasks(t.Context(), &mirrorv1.ListTasksRequest{ProjectId: project, PageSize: 500})
			must(t, err)
			for _, task := range got.GetTasks() {
				later := task.GetKind() == mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP && task.GetDueTime().AsTime().After(time.Now())
				if task.GetState() != mirrorv1.TaskState_TASK_STATE_DONE && !later {
					return fmt.Errorf("project %s has %v to do", project, task)
				}
			}
		}
		return nil
	})
}

// isolated calls everything for one project with the ids of the other, and with made-up
// ones: the answers are the same, and the other project stays as it was.
func (w *twoProjects) isolated(t *testing.T, db *dbtest.DB, thread string) {
	t.Helper()
	conn := w.Dial(t)
	ctx := t.Context()
	dial := mirrorv1.NewMirrorServiceClient(conn)
	comments, err := dial.ListComments(ctx, &mirrorv1.ListCommentsRequest{ProjectId: dev})
	must(t, err)
	tasks, err := mirrorv1.NewAdminServiceClient(conn).ListTasks(ctx, &mirrorv1.ListTasksRequest{
		ProjectId: dev, RoomId: "own", State: mirrorv1.TaskState_TASK_STATE_DONE,
	})
	must(t, err)
	if len(comments.GetComments()) != 1 || len(tasks.GetTasks()) < 3 {
		t.Fatalf("comments = %v, tasks = %v; want some", comments, tasks)
	}
	theirs := map[string]string{
		"room_id": "own", "thread_id": thread, "comment_id": comments.GetComments()[0].GetCommentId(),
		"event_id": "msg_own", "task_id": tasks.GetTasks()[0].GetTaskId(), "user_id": "alice",
	}
	keyed, key := w.startWithKey(t)
	awaitQuiet(t, w, prod, dev)
	before, tokens := rowsOf(t, db, dev), 0
	for _, method := range methodsOfProjects(t) {
		if method.Name() != "VerifyMirror" { // which tells of rooms by listing them upstream
			with, named := callFor(ctx, t, conn, method, prod, theirs)
			without, _ := callFor(ctx, t, conn, method, prod, madeUp)
			if named && with != without {
				t.Errorf("%s with ids of another project = %s\nwith made-up ones = %s", method.Name(), with, without)
			}
		}
		field, size := method.Input().Fields().ByName("page_token"), method.Input().Fields().ByName("page_size")
		if field != nil && size != nil { // without a size, it is ReplayEvents, which changes rows
			req := dynamicRequest(t, method, dev)
			req.Set(size, protoreflect.ValueOfInt32(1))
			_, token, _ := strings.Cut(invoke(ctx, t, conn, method, req), `"nextPageToken":`)
			token = strings.Trim(token, ` "}`)
			if token == "" {
				continue
			}
			tokens++
			req.Set(method.Input().Fields().ByName("project_id"), protoreflect.ValueOfString(prod))
			req.Set(field, protoreflect.ValueOfString(token))
			if got := invoke(ctx, t, conn, method, req); !strings.HasSuffix(got, "PAGE_TOKEN_MISMATCH") {
				t.Errorf("%s with a page token of another project = %s; want it refused", method.Name(), got)
			}
		}
	}
	w.unseen(t, keyed, key, theirs)
	if tokens < 3 {
		t.Errorf("page tokens tried = %d; want those of events, rooms and documents at least", tokens)
	}
	awaitQuiet(t, w, prod, dev)
	after := rowsOf(t, db, dev)
	for table, rows := range before {
		if after[table] != rows {
			t.Errorf("rows of the other project in %s changed", table)
		}
	}
	// The same over HTTP: the entity tag of one project is none of the other.
	_, header, _ := w.Get(t, "/v1/rooms/plan/storage:read?projectId="+dev)
	got := send(t, http.MethodGet, w.URL("/v1/rooms/plan/storage:read?projectId="+prod),
		http.Header{"If-None-Match": {header.Get("ETag")}}, nil)
	if got.status != http.StatusOK || !strings.Contains(string(got.body), "of prod") || header.Get("ETag") == "" {
		t.Errorf("read with the entity tag of another project = %d %s; want the document", got.status, got.body)
	}
	spec := send(t, http.MethodGet, w.URL("/openapi.json"), nil, nil)
	guarded, _ := apiRoutes(t, spec.body)
	for _, r := range guarded {
		if r.method != http.MethodGet || strings.HasSuffix(r.path, ":watch") { // that has no end; callFor reads its beginning
			continue
		}
		var answers []string
		for _, ids := range []map[string]string{theirs, nil} {
			path := strings.ReplaceAll(r.path, "default", "nowhere")
			if ids != nil {
				path = strings.ReplaceAll(r.path, "default", "own")
			}
			query := url.Values{"projectId": {prod}}
			a := send(t, http.MethodGet, w.URL(path+"?"+query.Encode()), nil, nil)
			body := readTimes.ReplaceAllString(string(a.body), "")
			answers = append(answers, fmt.Sprintf("%d %s", a.status, strings.ReplaceAll(body, "nowhere", "own")))
		}
		if answers[0] != answers[1] && !strings.Contains(r.path, "status") {
			t.Errorf("%s of another project's id = %s\nof a made-up one = %s", r.path, answers[0], answers[1])
		}
	}
}

// readTimes are when answers were made.
var readTimes = regexp.MustCompile(`"readTime":"[^"]*"`)

// startWithKey starts another process for the same projects, which knows its callers by
// keys, and returns a key for all calls about one project.
func (w *twoProjects) startWithKey(t *testing.T) (s *harness.Service, key string) {
	t.Helper()
	f := newKeyFile(t)
	key = f.add(t, "--scope", "read,watch,search,events,admin.read,admin.write,erase,metrics", "--project", prod)
	return harness.Start(t, harness.Options{
		DatabaseURL: w.database, UpstreamURL: w.address, Env: with(w.env, "MIRROR_KEYS_FILE", string(f)),
	}), key
}

// unseen calls everything with the key of one project, for the other and with its ids: the
// answers are those about a project that is nowhere. Its own status shows nothing of what
// happens in the other.
func (w *twoProjects) unseen(t *testing.T, s *harness.Service, key string, theirs map[string]string) {
	t.Helper()
	conn, refused := s.Dial(t), 0
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key)
	for _, method := range methodsOfProjects(t) {
		there, _ := callFor(ctx, t, conn, method, dev, theirs)
		nowhere, _ := callFor(ctx, t, conn, method, "nowhere", madeUp)
		if there != nowhere {
			t.Errorf("%s of a project of others = %s\nof none                  = %s", method.Name(), there, nowhere)
		}
		if strings.HasSuffix(there, "PROJECT_UNKNOWN") {
			refused++
		}
	}
	if refused < 26 { // the others need more than ids
		t.Errorf("calls refused for their project = %d", refused)
	}

	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	must(t, json.Unmarshal(send(t, http.MethodGet, s.URL("/openapi.json"), nil, nil).body, &doc))
	routes := 0
	for path, methods := range doc.Paths {
		if strings.Contains(path, "webhook") { // senders have no keys; see TestTwoProjects
			continue
		}
		for name := range methods {
			method := strings.ToUpper(name)
			ask := func(project string, ids map[string]string) string {
				names := []string{"{storage_key}", "flow", "{group_id}", "g"}
				var ours []string
				for name, id := range ids {
					names, ours = append(names, "{"+name+"}", id), append(ours, id, "ID")
				}
				where, body := strings.NewReplacer(names...).Replace(path), ""
				if method == http.MethodGet {
					where += "?project_id=" + project
				} else {
					body = `{"projectId":"` + project + `"}`
				}
				got := send(t, method, s.URL(where), bearer(key), strings.NewReader(body))
				return fmt.Sprintf("%d %v %s", got.status, got.header["Content-Type"],
					strings.NewReplacer(ours...).Replace(string(got.body)))
			}
			if there, nowhere := ask(dev, theirs), ask("nowhere", madeUp); there != nowhere {
				t.Errorf("%s %s of a project of others = %s\nof none                      = %s", method, path, there, nowhere)
			}
			routes++
		}
	}
	if routes < 30 {
		t.Errorf("saw %d routes", routes)
	}

	status := func() string {
		got, err := mirrorv1.NewAdminServiceClient(conn).GetStatus(ctx, &mirrorv1.GetStatusRequest{})
		must(t, err)
		return withoutTimes(got)
	}
	awaitQuiet(t, w, prod, dev)
	before := status()
	if !strings.Contains(before, prod) || strings.Contains(before, dev) {
		t.Errorf("the status for one project = %s; want that project alone", before)
	}
	again := fake.Event{Type: fake.RoomCreated, RoomID: "plan", Time: time.Now()}
	d := harness.SignWith(t, devSecret, "msg_same", time.Now(), fake.Payload(again, "liveblocks-"+devSecret[6:10]))
	if code, body, err := d.Do(t.Context(), s.URL("/v1/webhooks/liveblocks")); err != nil || code != http.StatusOK {
		t.Errorf("delivery to the other project = %d %s, %v", code, body, err)
	}
	if got := send(t, http.MethodGet, s.URL("/v1/rooms"), bearer("wrong"), nil); got.status != http.StatusUnauthorized {
		t.Errorf("call with a wrong key = %d", got.status)
	}
	if after := status(); after != before {
		t.Errorf("the status changed with what happened in the other project:\n%s\n%s", before, after)
	}
	own := send(t, http.MethodGet, s.URL("/v1/rooms"), bearer(key), nil)
	if own.status != http.StatusOK || !strings.Contains(string(own.body), `"plan"`) ||
		strings.Contains(string(own.body), `"own"`) {
		t.Errorf("rooms without a project = %d %s; want those of the only one", own.status, own.body)
	}
}

// methodsOfProjects are all methods that take a project, but the one that takes deliveries.
func methodsOfProjects(t *testing.T) (list []protoreflect.MethodDescriptor) {
	t.Helper()
	for _, name := range []string{"EventService", "MirrorService", "ChangeService", "AdminService"} {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName("liveblocks.mirror.v1." + protoreflect.FullName(name))
		must(t, err)
		service, _ := found.(protoreflect.ServiceDescriptor)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			if method.Input().Fields().ByName("project_id") != nil && method.Name() != "ReceiveWebhook" {
				list = append(list, method)
			}
		}
	}
	return list
}

func dynamicRequest(t *testing.T, method protoreflect.MethodDescriptor, project string) protoreflect.Message {
	t.Helper()
	typ, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	must(t, err)
	req := typ.New()
	req.Set(method.Input().Fields().ByName("project_id"), protoreflect.ValueOfString(project))
	return req
}

// madeUp are ids of nothing. The task is that of a room that is nowhere.
var madeUp = map[string]string{
	"room_id": "nothing", "thread_id": "nothing", "comment_id": "nothing", "event_id": "nothing",
	"task_id": "AQABAAdub3doZXJl", "user_id": "nothing",
}

// callFor calls a method for a project with ids. It returns the answer, in which the ids are
// replaced, and whether there were any.
func callFor(ctx context.Context, t *testing.T, conn *grpc.ClientConn, method protoreflect.MethodDescriptor,
	project string, ids map[string]string,
) (answer string, named bool) {
	t.Helper()
	req := dynamicRequest(t, method, project)
	var replace []string
	for name, id := range ids {
		field := method.Input().Fields().ByName(protoreflect.Name(name))
		if field == nil || field.Kind() != protoreflect.StringKind {
			continue
		}
		req.Set(field, protoreflect.ValueOfString(id))
		replace = append(replace, id, "ID")
	}
	return strings.NewReplacer(replace...).Replace(invoke(ctx, t, conn, method, req)), len(replace) > 0
}

func invoke(ctx context.Context, t *testing.T, conn *grpc.ClientConn, method protoreflect.MethodDescriptor,
	req protoreflect.Message,
) string {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		"/"+string(method.Parent().FullName())+"/"+string(method.Name()))
	must(t, err)
	must(t, stream.SendMsg(req.Interface()))
	must(t, stream.CloseSend())
	typ, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	must(t, err)
	answer := typ.New().Interface()
	if err := stream.RecvMsg(answer); err != nil {
		s := status.Convert(err)
		return fmt.Sprintf("%s %s %s", s.Code(), s.Message(), reasonOf(err))
	}
	return withoutTimes(answer)
}

// withoutTimes is a message as text, without times, which differ between two calls, and
// without what tells how often it was called.
func withoutTimes(m proto.Message) string {
	var strip func(m protoreflect.Message)
	strip = func(m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case strings.HasSuffix(string(f.Name()), "_time"), strings.HasSuffix(string(f.Name()), "generation"),
				slices.Contains([]string{"sweep_id", "task_id", "state"}, string(f.Name())):
				m.Clear(f)
			case f.IsList() && f.Message() != nil:
				for i := range v.List().Len() {
					strip(v.List().Get(i).Message())
				}
			case f.Message() != nil && !f.IsMap():
				strip(v.Message())
			}
			return true
		})
	}
	m = proto.Clone(m)
	strip(m.ProtoReflect())
	return protojson.MarshalOptions{}.Format(m)
}

// documented runs the commands of docs/PROJECTS.md, the last ones with one project
// removed.
func (w *twoProjects) documented(t *testing.T, e *dbtest.Engine) {
	t.Helper()
	_, commands := projectsDoc(t)
	run := func(line string) string {
		t.Helper()
		if to, ok := strings.CutPrefix(line, "curl -s 'http://127.0.0.1:8080"); ok {
			status, _, body := w.Get(t, strings.TrimSuffix(to, "'"))
			if status != http.StatusOK {
				t.Errorf("%s = %d %s", line, status, body)
			}
			return string(body)
		}
		words := strings.Fields(line)
		got := command(t, map[string]string{
			"MIRROR_SERVER": w.GRPCAddr, "DATABASE_URL": w.database, "MIRROR_PROJECTS_FILE": w.env["MIRROR_PROJECTS_FILE"],
		}, words[1:]...)
		if words[0] != "liveblocks-mirror" || got.code != 0 {
			t.Errorf("%s = %+v", line, got)
		}
		return got.stdout
	}
	w.Kill()
	w.start(t)                                                         // it is paused
	for i, want := range []string{`"plan"`, `{"v":2}`, "done: ", ""} { // what verify says is no difference
		if out := run(commands[i]); !strings.Contains(out, want) {
			t.Errorf("%s printed %q; want %q", commands[i], out, want)
		}
	}
	if out := run(commands[4]); out != prod+"  configured\n"+dev+"   configured\n" {
		t.Errorf("%s printed %q", commands[4], out)
	}
	refused := command(t, map[string]string{
		"DATABASE_URL": w.database, "MIRROR_PROJECTS_FILE": w.env["MIRROR_PROJECTS_FILE"],
	}, "projects", "purge", dev, "--yes")
	if refused.code != 1 || !strings.Contains(refused.told, `project "acme-dev" is configured; remove it`) {
		t.Errorf("purge of a configured project = %+v; want it refused", refused)
	}
	unsure := command(t, map[string]string{"DATABASE_URL": w.database}, "projects", "purge", dev, "--yes")
	if unsure.code != 2 || !strings.Contains(unsure.told, "MIRROR_PROJECTS_FILE and MIRROR_PROJECT_ID are not set") {
		t.Errorf("purge without the settings = %+v; want it refused", unsure)
	}

	// One is removed.
	file, _ := projectsDoc(t)
	first, _, _ := strings.Cut(file, "  - id: "+dev)
	must(t, os.WriteFile(w.env["MIRROR_PROJECTS_FILE"], []byte(first), 0o600))
	w.Kill()
	w.start(t)
	if !strings.Contains(w.Log(), "the database has rows of projects that are not configured") ||
		!strings.Contains(w.Log(), "projects=["+dev+"]") {
		t.Errorf("the log does not name the project that was removed:\n%s", w.Log())
	}
	if status, _ := w.post(t, "/api/liveblocks-webhook", devSecret, "msg_3", storageUpdated("plan")); status !=
		http.StatusUnauthorized {
		t.Errorf("delivery to a removed project = %d; want 401", status)
	}
	_, _, gone := w.Get(t, "/v1/rooms?projectId="+dev)
	if _, _, unknown := w.Get(t, "/v1/rooms?projectId=nowhere"); !bytes.Equal(gone, unknown) {
		t.Errorf("read of a removed project = %s, of an unknown one = %s; want the same", gone, unknown)
	}
	if status, _, body := w.Get(t, "/v1/rooms/plan"); status != http.StatusOK { // the only one
		t.Errorf("read without a project = %d %s", status, body)
	}
	db := e.Connect(t, w.database)
	awaitQuiet(t, w, prod)
	ours, theirs := rowsOf(t, db, prod), rowsOf(t, db, dev)
	if len(theirs) < 8 {
		t.Errorf("tables with rows of the removed project = %d; want them all", len(theirs))
	}
	if out := run(commands[4]); !strings.Contains(out, dev+"   removed; ") {
		t.Errorf("%s printed %q", commands[4], out)
	}
	if out := run(commands[5]); !strings.Contains(out, "rows of project acme-dev\nnothing was changed") {
		t.Errorf("%s printed %q", commands[5], out)
	}
	if out := run(commands[6]); strings.Count(out, "\n") != 8 || !strings.Contains(out, " rows of project acme-dev\n") {
		t.Errorf("%s printed %q", commands[6], out)
	}
	if left := rowsOf(t, db, dev); len(left) != 0 {
		t.Errorf("rows after the purge = %v; want none", left)
	}
	for table, rows := range rowsOf(t, db, prod) {
		if rows != ours[table] {
			t.Errorf("the purge changed rows of another project in %s", table)
		}
	}
	out := run(commands[4])
	if strings.Contains(out, dev) || !slices.Contains(commands, "liveblocks-mirror projects list") {
		t.Errorf("%s printed %q after the purge", commands[4], out)
	}
}

// load delivers events of a project one after the other, signed with the secret of the
// time, to the process of the time.
type load struct {
	path       string
	secret, to atomic.Value // strings
	recorded   atomic.Int64
}

// run delivers until ctx ends. Like Svix, it delivers again what was not answered or got
// 503. Anything else but 200 is a failure.
func (l *load) run(ctx context.Context, t *testing.T) error {
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("msg%s_%d", strings.ReplaceAll(l.path, "/", "_"), n)
		secret, _ := l.secret.Load().(string)
		d := harness.SignWith(t, secret, id, time.Now(), fake.Payload(storageUpdated("plan"), "liveblocks-"+l.path))
		for {
			to, _ := l.to.Load().(string)
			code, body, err := d.Do(context.WithoutCancel(ctx), to+l.path)
			if err == nil && code == http.StatusOK {
				break
			}
			if err == nil && code != http.StatusServiceUnavailable {
				return fmt.Errorf("delivery %s to %s = %d %s", id, l.path, code, body)
			}
		}
		l.recorded.Add(1)
	}
	return nil
}

// The signing secret of one project is replaced while deliveries of all arrive: none that
// is rightly signed is refused, and in the end the old one is.
func TestSigningSecretRotatesUnderLoad(t *testing.T) {
	t.Parallel()
	needServers(t)
	const newSecret = "whsec_dGhlIHNlY3JldCB0aGF0IGlzIG5ldyEh"
	harness.Secret(newSecret[len("whsec_"):])
	w := startTwoProjects(t, dbtest.Postgres.Database(t))
	loads := []*load{{path: "/v1/projects/" + prod + "/webhooks/liveblocks"}, {path: "/api/liveblocks-webhook"}}
	ctx, cancel := context.WithCancel(t.Context())
	group, running := errgroup.WithContext(ctx)
	for i, l := range loads {
		l.secret.Store([]string{prodSecret, devSecret}[i])
		l.to.Store(w.URL(""))
		group.Go(func() error { return l.run(running, t) })
	}
	// more waits until each project has delivered some more.
	more := func() {
		t.Helper()
		for _, l := range loads {
			from := l.recorded.Load()
			harness.Eventually(t, patience, func() error {
				if n := l.recorded.Load() - from; n < 20 && running.Err() == nil {
					return fmt.Errorf("%d deliveries to %s", n, l.path)
				}
				return nil
			})
		}
	}
	// restart replaces the process by one with these secrets of dev.
	restart := func(secret, old string) {
		t.Helper()
		w.env["ACME_DEV_WEBHOOK"], w.env["ACME_DEV_WEBHOOK_OLD"] = secret, old
		before := w.Service
		w.start(t)
		for _, l := range loads {
			l.to.Store(w.URL(""))
		}
		if _, err := before.Stop(t); err != nil {
			t.Errorf("Stop = %v", err)
		}
	}
	more()
	restart(newSecret, devSecret)
	more() // still with the old one
	loads[1].secret.Store(newSecret)
	more()
	restart(newSecret, newSecret)
	more()
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if code, body := w.post(t, "/api/liveblocks-webhook", devSecret, "msg_old", storageUpdated("plan")); code !=
		http.StatusUnauthorized {
		t.Errorf("delivery signed with the old secret = %d %s", code, body)
	}
	db := dbtest.Postgres.Connect(t, w.database)
	for i, project := range []string{prod, dev} {
		want := int(loads[i].recorded.Load())
		if n := count(t, db, "select count(*) from mirror_event where project_id = '"+project+"'"); n != want || n < 80 {
			t.Errorf("recorded events of %s = %d; want the %d that were delivered", project, n, want)
		}
	}
}
