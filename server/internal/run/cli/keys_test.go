package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A key can be added to a file of any form, or the command says that it cannot; what the
// file had is kept.
func TestKeysAreAdded(t *testing.T) {
	t.Parallel()
	_, other := access.NewKey()
	sum := strings.Repeat("0", 64)
	for what, c := range map[string]struct {
		text string
		ok   bool
	}{
		"no file":       {"-", true},
		"an empty file": {"", true},
		"comments":      {"# nothing yet", true},
		"an indented one": {
			"# mine\nkeys:\n  - id: " + other + "\n    sha256: " + sum + "\n    scopes: [read]\n    projects: [a]\n",
			true,
		},
		"a flush one": {"keys:\n- id: " + other + "\n  sha256: " + sum + "\n  scopes: [read]\n  projects: [a]", true},
		"a flow one":  {"keys: [{id: " + other + ", sha256: " + sum + ", scopes: [read], projects: [a]}]\n", false},
		"a wrong one": {"keys: nonsense\n", false},
	} {
		file := filepath.Join(t.TempDir(), "keys.yaml")
		if c.text != "-" {
			if err := os.WriteFile(file, []byte(c.text), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		var out, notes bytes.Buffer
		o := KeyOptions{
			Name:         "a: #b",
			Scopes:       []string{"read", "events"},
			Projects:     []string{"a"},
			RoomPrefixes: []string{"x:"},
			Expires:      "24h",
		}
		err := NewKey(o, file, true, now, Format{}, &out, &notes)
		after, _ := os.ReadFile(file)
		if (err == nil) != c.ok {
			t.Errorf("%s: NewKey = %v; want %t\n%s", what, err, c.ok, after)
			continue
		}
		if !c.ok {
			if string(after) != c.text || out.Len() > 0 {
				t.Errorf("%s: the file is %q and the output %q; want that nothing changes", what, after, &out)
			}
			continue
		}
		key := strings.TrimSpace(out.String())
		entries, err := access.ParseKeys(after)
		if err != nil || !strings.HasPrefix(string(after), strings.Trim(c.text, "-")) ||
			strings.Contains(string(after), key) {
			t.Errorf("%s: the file is %v:\n%s", what, err, after)
			continue
		}
		last := entries[len(entries)-1]
		if !last.Matches(key) || last.Name != o.Name || len(last.Scopes) != 2 || !last.Expires.Equal(now.Add(24*time.Hour)) {
			t.Errorf("%s: the entry is %+v", what, last)
		}
		if info, err := os.Stat(file); err != nil || c.text != "-" && info.Mode().Perm() != 0o640 ||
			c.text == "-" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the mode is %v, %v", what, info.Mode(), err)
		}
		out.Reset()
		if err := CheckKeys(file, key, now, Format{}, &out); err != nil || !strings.Contains(out.String(), "read, events") {
			t.Errorf("%s: CheckKeys = %v: %s", what, err, &out)
		}
		if err := CheckKeys(file, key, now.Add(24*time.Hour), Format{}, &out); err == nil {
			t.Errorf("%s: CheckKeys accepts a key that has expired", what)
		}
		if err := CheckKeys(file, key[:len(key)-1], now, Format{}, &out); err == nil ||
			strings.Contains(err.Error(), key[:30]) {
			t.Errorf("%s: CheckKeys of a truncated key = %v", what, err)
		}
		out.Reset()
		if err := ListKeys(file, now.Add(48*time.Hour), Format{}, &out); err != nil ||
			!strings.Contains(out.String(), "(expired)") {
			t.Errorf("%s: ListKeys = %v: %s", what, err, &out)
		}
		out.Reset()
		if err := ListKeys(file, now, Format{JSON: true}, &out); err != nil ||
			!strings.Contains(out.String(), `"roomPrefixes":[`) || strings.Contains(out.String(), last.SHA256) {
			t.Errorf("%s: ListKeys as JSON = %v: %s", what, err, &out)
		}
	}
}

// Without a file, the key and the lines for it are printed, and these are the entry.
func TestKeysArePrinted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := KeyOptions{Name: "n", Scopes: []string{"read"}, Projects: []string{"*"}}
	if err := NewKey(o, "", false, now, Format{}, &out, &out); err != nil {
		t.Fatal(err)
	}
	key, rest, _ := strings.Cut(out.String(), "\n")
	entries, err := access.ParseKeys([]byte("keys:\n" + rest))
	if err != nil || len(entries) != 1 || !entries[0].Matches(key) || entries[0].Expires != nil {
		t.Errorf("NewKey prints\n%s\n= %v, %v", &out, entries, err)
	}
	for _, wrong := range []KeyOptions{
		{Name: "n", Scopes: []string{"all"}, Projects: []string{"*"}},
		{Name: "n", Scopes: []string{"read"}, Projects: []string{"A"}},
		{Name: "n", Scopes: []string{"read"}, Projects: []string{"*"}, RoomPrefixes: []string{""}},
		{Name: "n", Scopes: []string{"read"}, Projects: []string{"*"}, Expires: "yesterday"},
		{Name: "n", Scopes: []string{"read"}, Projects: []string{"*"}, Expires: "2020-01-01"},
		{Name: "n", Scopes: []string{"read"}, Projects: []string{"*"}, Expires: "-1h"},
	} {
		out.Reset()
		if err := NewKey(wrong, "", false, now, Format{}, &out, &out); err == nil || out.Len() > 0 {
			t.Errorf("NewKey of %+v = %v and prints %q; want a refusal", wrong, err, &out)
		}
	}
}
