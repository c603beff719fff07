// Package selects compares what the REST API selects, from databases, with what Liveblocks'
// published parser selects with a plain filter.
package selects

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/inproc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

type withServers struct{ m *testing.M }

func (s withServers) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) {
	dbtest.Parallel(2)
	goleak.VerifyTestMain(withServers{m})
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const project = mirror.ProjectID("default")

// The words that fixtures and queries are made of.
var (
	keys   = []string{"color", "Color", "n", `co"lor`, "é", "list"}
	values = []string{"red", "Red", "blue", "", `r"ed`, "roöm", "1", "line\nbreak", `back\slash`}
	users  = []string{"alice", "bob", "é", "a b"}
	groups = []string{"team", "ops", "Team"}
	orgs   = []string{"default", "acme", "Acme"}
)

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

type room struct {
	Type           string              `json:"type"`
	ID             string              `json:"id"`
	OrganizationID string              `json:"organizationId"`
	CreatedAt      string              `json:"createdAt"`
	Metadata       map[string]any      `json:"metadata"`
	Default        []string            `json:"defaultAccesses"`
	Users          map[string][]string `json:"usersAccesses"`
	Groups         map[string][]string `json:"groupsAccesses"`
}

type comments = []map[string]any

type thread1 struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	RoomID     string         `json:"roomId"`
	CreatedAt  string         `json:"createdAt"`
	UpdatedAt  string         `json:"updatedAt"`
	Metadata   map[string]any `json:"metadata"`
	Resolved   bool           `json:"resolved"`
	Visibility string         `json:"visibility"`
	Comments   comments       `json:"comments"`
}

const roomOfThreads = "room of threads"

func timeOf(r *rand.Rand) string {
	return noon.Add(-time.Duration(r.IntN(30)) * time.Minute).Format("2006-01-02T15:04:05.000Z")
}

func randomRooms(r *rand.Rand) (all []room) {
	scopes := func() []string {
		return [][]string{{"room:write"}, {"room:read", "room:presence:write"}, {}}[r.IntN(3)]
	}
	for i := range 90 {
		one := room{
			Type: "room", ID: fmt.Sprintf("%s%d", pick(r, []string{"a", "a:", "A", "á", "ab", "b "}), i), CreatedAt: timeOf(r),
			OrganizationID: pick(r, orgs), Metadata: map[string]any{}, Default: scopes(),
			Users: map[string][]string{}, Groups: map[string][]string{},
		}
		for range r.IntN(4) {
			one.Metadata[pick(r, keys)] = pick(r, values)
		}
		if r.IntN(4) == 0 {
			one.Metadata["list"] = []string{pick(r, values), pick(r, values)}
		}
		for range r.IntN(3) {
			one.Users[pick(r, users)] = scopes()
			one.Groups[pick(r, groups)] = scopes()
		}
		all = append(all, one)
	}
	return append(all, room{
		Type: "room", ID: roomOfThreads, CreatedAt: timeOf(r), OrganizationID: "default", Metadata: map[string]any{},
		Default: scopes(), Users: map[string][]string{}, Groups: map[string][]string{},
	})
}

func randomThreads(r *rand.Rand) (all []thread1) {
	for i := range 60 {
		one := thread1{
			Type: "thread", ID: fmt.Sprintf("th_%d", i), RoomID: roomOfThreads, CreatedAt: timeOf(r), Metadata: map[string]any{},
			Resolved: r.IntN(2) == 0, Visibility: pick(r, []string{"public", "private"}), Comments: comments{},
		}
		one.UpdatedAt = one.CreatedAt
		for range r.IntN(4) {
			one.Metadata[pick(r, keys)] = pick(r, []any{pick(r, values), float64(r.IntN(5) - 2), 1.5, r.IntN(2) == 0})
		}
		all = append(all, one)
	}
	return all
}

// quoted writes a string as a query has it.
func quoted(r *rand.Rand, s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
	if r.IntN(3) == 0 && !strings.ContainsAny(s, `'\`) {
		return "'" + s + "'"
	}
	return `"` + s + `"`
}

// randomQuery is a query that is mostly right, for what the fixtures have.
func randomQuery(r *rand.Rand, list string, ids []string) string {
	field := func() string { return "metadata[" + quoted(r, pick(r, keys)) + "]" }
	var parts []string
	for range 1 + r.IntN(3) {
		kinds := []string{"equal", "equal", "id", "prefix"}
		if list == "threads" {
			kinds = []string{"equal", "bool", "number", "prefix", "null", "resolved", "visibility", "equal"}
		}
		switch pick(r, kinds) {
		case "equal":
			parts = append(parts, field()+":"+quoted(r, pick(r, values)))
		case "id":
			parts = append(parts, "roomId:"+quoted(r, pick(r, ids)))
		case "prefix":
			if list == "rooms" {
				parts = append(parts, "roomId^"+quoted(r, pick(r, []string{"a", "a:", "A", "á", "ab", "b ", "x", "ab1", "a:2"})))
			} else {
				parts = append(parts, field()+"^"+quoted(r, pick(r, []string{"r", "re", "R", "b", "1", `r"`})))
			}
		case "bool":
			parts = append(parts, field()+":"+pick(r, []string{"true", "false"}))
		case "number":
			op, n := pick(r, []string{":", ">", ">=", "<", "<="}), pick(r, []string{"1", "-1", "- 2", "1.5", ".5", "0"})
			parts = append(parts, field()+op+n)
		case "null":
			parts = append(parts, field()+":null")
		case "resolved":
			parts = append(parts, "resolved:"+pick(r, []string{"true", "false"}))
		case "visibility":
			op, value := pick(r, []string{":", "^"}), pick(r, []string{"public", "private", "p", "pu"})
			parts = append(parts, "visibility"+op+quoted(r, value))
		}
	}
	q := []rune(strings.Join(parts, pick(r, []string{" ", " AND ", " and ", "\n", "  "})))
	if r.IntN(5) == 0 { // one character away from right
		at := r.IntN(len(q))
		if r.IntN(2) == 0 {
			q = slices.Delete(q, at, at+1)
		} else {
			q[at] = []rune(`"'[]:^<>=-\ (.a1n`)[r.IntN(17)]
		}
	}
	return string(q)
}

// asked is a list with its parameters.
type asked struct {
	list   string
	params map[string]string
}

func randomAsked(r *rand.Rand, ids []string, n int) (all []asked) {
	for i := range n {
		a := asked{[]string{"rooms", "threads"}[i%2], map[string]string{}}
		if r.IntN(20) > 0 {
			a.params["query"] = randomQuery(r, a.list, ids)
		}
		if a.list == "rooms" {
			if r.IntN(4) == 0 {
				a.params["userId"] = pick(r, users)
			}
			if r.IntN(4) == 0 {
				a.params["groupIds"] = pick(r, groups) + pick(r, []string{"", ",", "," + pick(r, groups)})
			}
			if r.IntN(5) == 0 {
				a.params["organizationId"] = pick(r, orgs)
			}
		}
		all = append(all, a)
	}
	return all
}

// answer is the ids of what was selected, or that the query was refused.
type answer struct {
	IDs   []string `json:"ids"`
	Error string   `json:"error"`
}

// selected asks the published parser.
func selected(t *testing.T, rooms []room, threads []thread1, all []asked) []answer {
	t.Helper()
	var input bytes.Buffer
	e := json.NewEncoder(&input)
	if err := e.Encode(map[string]any{"rooms": rooms, "threads": threads}); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if err := e.Encode([]any{a.list, a.params}); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("testdata/select.mjs")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", script)
	cmd.Dir = filepath.Join("..", "..", "..", "..", "e2e", "lb")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = &input, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("select.mjs (tools/testdeps.sh installs what it needs): %v\n%s", err, &stderr)
	}
	answers := make([]answer, 0, len(all))
	for line := range strings.Lines(string(out)) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(all) {
		t.Fatalf("answers = %d; want %d", len(answers), len(all))
	}
	return answers
}

// mirrored writes the fixtures as fetches do.
func mirrored(t *testing.T, s store.Store, rooms []room, threads []thread1) {
	t.Helper()
	claim := func(r mirror.Resource) mirror.Lease {
		t.Helper()
		if _, err := s.Request(t.Context(), []mirror.Request{{Resource: r}}, noon); err != nil {
			t.Fatalf("Request = %v", err)
		}
		lease, err := s.Claim(t.Context(), r, [16]byte{1}, noon, time.Minute)
		if err != nil {
			t.Fatalf("Claim = %v", err)
		}
		return lease
	}
	source := func(v any) []byte {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, one := range rooms {
		created, err := time.Parse(time.RFC3339, one.CreatedAt)
		if err != nil {
			t.Fatal(err)
		}
		lease := claim(mirror.Resource{Project: project, Room: mirror.RoomID(one.ID), Kind: mirror.KindRoom})
		if _, err := s.ApplyRoom(t.Context(), lease, mirror.RoomContent{
			FetchTime: noon, Source: source(one), CreateTime: created,
		}, noon, 0); err != nil {
			t.Fatalf("ApplyRoom = %v", err)
		}
	}
	lease := claim(mirror.Resource{Project: project, Room: roomOfThreads, Kind: mirror.KindThread})
	var items []store.Item
	for _, one := range threads {
		parsed, err := thread.Parse(source(one))
		if err != nil {
			t.Fatalf("Parse = %v", err)
		}
		items = append(items, store.ThreadItem(parsed))
	}
	if _, err := s.AddItems(t.Context(), lease, items, noon, noon); err != nil {
		t.Fatalf("AddItems = %v", err)
	}
	if _, err := s.ApplyListed(t.Context(), lease, noon, nil, noon, 0); err != nil {
		t.Fatalf("ApplyListed = %v", err)
	}
}

// serve answers the REST API from a store.
func serve(s store.Store) http.Handler {
	services := rpc.New(rpc.Config{
		Projects: []mirror.ProjectID{project},
		Guard:    access.NewGuard(access.GuardConfig{Now: time.Now, Log: slog.New(slog.DiscardHandler)}),
		Mirror:   rpc.MirrorDeps{Query: s}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	channel := inproc.New(services.UnaryInterceptor(), services.StreamInterceptor())
	services.Register(channel)
	return rest.New(rest.Config{
		Conn:      channel,
		Authorize: func(r *http.Request) (context.Context, error) { return r.Context(), nil },
		Project:   func(context.Context) (string, error) { return string(project), nil },
		Paused:    func(string) (time.Time, bool) { return time.Time{}, false },
		Failing:   func(string) time.Time { return time.Time{} },
		State: func(context.Context, mirror.Resource) (mirror.Task, bool, error) {
			return mirror.Task{State: mirror.TaskDone, FetchTime: noon}, true, nil
		},
		Unfetched: func(context.Context, mirror.Resource) (bool, error) { return false, nil },
		WarnAfter: time.Hour, Memory: 64 << 20, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
}

// ask reads all pages of a list.
func ask(t *testing.T, h http.Handler, a asked, limit int) (got answer) {
	t.Helper()
	params := url.Values{}
	for name, value := range a.params {
		params.Set(name, value)
	}
	path := "/v2/rooms/" + url.PathEscape(roomOfThreads) + "/threads?"
	if a.list == "rooms" {
		path = "/v2/rooms?"
		params.Set("limit", fmt.Sprint(limit))
	}
	got.IDs = []string{}
	for {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path+params.Encode(), nil))
		var page struct {
			Data []struct {
				ID string `json:"id"`
			} `json:"data"`
			NextCursor *string `json:"nextCursor"`
			Error      string  `json:"error"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatalf("GET %s = %d, %v: %.300s", path+params.Encode(), w.Code, err, w.Body)
		}
		if w.Code == http.StatusUnprocessableEntity && page.Error == "INVALID_QUERY" {
			return answer{Error: page.Error}
		}
		if w.Code != http.StatusOK {
			t.Fatalf("GET %s = %d: %.300s", path+params.Encode(), w.Code, w.Body)
		}
		for _, one := range page.Data {
			got.IDs = append(got.IDs, one.ID)
		}
		if page.NextCursor == nil {
			return got
		}
		params.Set("startingAfter", *page.NextCursor)
	}
}

// 10,000 queries select the rooms and threads, in order, that Liveblocks' published parser
// selects with a plain filter over the same fixtures, or are refused as it refuses them.
func TestQueriesSelectAsThePackageDoes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs servers and Node; run without it before a merge")
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		rooms, threads := randomRooms(r), randomThreads(r)
		var ids []string
		for _, one := range rooms {
			ids = append(ids, one.ID)
		}
		all := randomAsked(r, ids, 10_000)
		want := selected(t, rooms, threads, all)
		s, err := engine.Open(t.Context(), engine.Config{URL: e.Database(t), MaxConns: 8})
		if err != nil {
			t.Fatalf("Open = %v", err)
		}
		t.Cleanup(s.Close)
		mirrored(t, s, rooms, threads)
		h := serve(s)
		refused, found := map[string]int{}, map[string]int{}
		for i, a := range all {
			limit := 100
			if i%10 < 2 {
				limit = 1 + r.IntN(20)
			}
			got := ask(t, h, a, limit)
			if want[i].Error != "" {
				refused[a.list]++
				if got.Error == "" {
					t.Fatalf("%s by %q = %q; want it refused: %s", a.list, a.params, got.IDs, want[i].Error)
				}
				continue
			}
			if d := cmp.Diff(want[i].IDs, got.IDs); d != "" || got.Error != "" {
				t.Fatalf("%s by %q: error %q (-package +mirror):\n%s", a.list, a.params, got.Error, d)
			}
			if len(got.IDs) > 0 {
				found[a.list]++
			}
		}
		t.Logf("refused: %v, with results: %v", refused, found)
		for _, list := range []string{"rooms", "threads"} {
			if refused[list] < 300 || found[list] < 300 {
				t.Errorf("of the %s, %d queries were refused and %d found some; want 300 of each", list, refused[list], found[list])
			}
		}
	})
}
