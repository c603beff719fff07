package rest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	methodRow  = regexp.MustCompile("^\\| (`.*`) \\| (served|passed|forwarded) \\|")
	methodName = regexp.MustCompile("`([a-zA-Z]+)`")
)

// documented returns what REST.md says about each method.
func documented(t *testing.T) map[string]class {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "REST.md"))
	if err != nil {
		t.Fatal(err)
	}
	says := make(map[string]class)
	for line := range strings.SplitSeq(string(text), "\n") {
		row := methodRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		for _, name := range methodName.FindAllStringSubmatch(row[1], -1) {
			if says[name[1]] != "" {
				t.Errorf("REST.md has %s twice", name[1])
			}
			says[name[1]] = class(row[2])
		}
	}
	return says
}

// Somebody has decided what becomes of each method of Liveblocks' package for Node: a new
// version with a new one fails.
func TestEveryMethodIsClassified(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs Node and its packages; run without it before a merge")
	}
	script, err := filepath.Abs("testdata/methods.mjs")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", script)
	cmd.Dir = filepath.Join("..", "..", "..", "e2e", "lb")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("methods.mjs (tools/testdeps.sh installs what it needs): %v\n%s", err, &stderr)
	}
	says, calls := documented(t), newTable()
	for line := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		var method struct {
			Name  string
			Calls []struct{ Method, Path string }
		}
		if err := json.Unmarshal([]byte(line), &method); err != nil {
			t.Fatal(err)
		}
		want, known := says[method.Name]
		if !known {
			t.Errorf("REST.md does not say what becomes of %s", method.Name)
		}
		delete(says, method.Name)
		if len(method.Calls) == 0 {
			t.Errorf("%s made no request", method.Name)
		}
		for _, c := range method.Calls {
			rt, _, _ := calls.match(c.Method, c.Path)
			if rt == nil {
				t.Errorf("%s: no route has %s %s", method.Name, c.Method, c.Path)
			} else if rt.class != want {
				t.Errorf("%s: %s %s is %q, but REST.md says %q", method.Name, c.Method, c.Path, rt.class, want)
			}
		}
	}
	for name := range says {
		t.Errorf("REST.md has %s, which the package does not", name)
	}
}

// Ids are whole segments, whatever they contain.
func TestPaths(t *testing.T) {
	t.Parallel()
	calls := newTable()
	for _, c := range []struct {
		method, path string
		want         string // path of the route
		ids          []string
		allow        string
	}{
		{"GET", "/v2/rooms/a", "rooms/*", []string{"a"}, ""},
		{"HEAD", "/v2/rooms/a", "rooms/*", []string{"a"}, ""},
		{"GET", "/v2/rooms/a%2Fb%3F%23%25%20%C3%B6", "rooms/*", []string{"a/b?#% ö"}, ""},
		{"GET", "/v2/rooms/a:b!'()*~", "rooms/*", []string{"a:b!'()*~"}, ""},
		{"GET", "/v2/rooms/%2E%2E/threads/%2e", "rooms/*/threads/*", []string{"..", "."}, ""},
		{"GET", "/v2/rooms/storage/storage", "rooms/*/storage", []string{"storage"}, ""},
		{"POST", "/v2/groups", "groups", nil, ""},
		{"PUT", "/v2/groups", "", nil, "GET, HEAD, POST"},
		{"PUT", "/v2/rooms/a/storage", "", nil, "DELETE, GET, HEAD, POST"},
		{"GET", "/v2/rooms/", "", nil, ""},
		{"GET", "/v2/rooms//storage", "", nil, ""},
		{"GET", "/v2/rooms/a/", "", nil, ""},
		{"GET", "/v2/rooms/%00", "", nil, ""},
		{"GET", "/v2/rooms/%ff", "", nil, ""},
		{"GET", "/v2/rooms/%zz", "", nil, ""},
		{"GET", "/v2/", "", nil, ""},
		{"GET", "/v2/c/rooms/a", "", nil, ""},
		{"GET", "/v1/rooms/a", "", nil, ""},
	} {
		rt, ids, allow := calls.match(c.method, c.path)
		got := ""
		if rt != nil {
			got = strings.Join(rt.path, "/")
		}
		if got != c.want || strings.Join(ids, "\x00") != strings.Join(c.ids, "\x00") || allowed(allow) != c.allow {
			t.Errorf("%s %s = %q %q, allow %q; want %q %q, %q", c.method, c.path, got, ids, allowed(allow), c.want, c.ids,
				c.allow)
		}
	}
}
