package query

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var languages = map[string]*Language{
	"rooms": Rooms, "threads": Threads, "inbox": {Fields: map[string]Type{"unread": Boolean}},
}

// parts are what queries are put together from.
var parts = []string{
	"roomId", "metadata", "resolved", "visibility", "unread", "other", "_", "null", "And", "true", "false", "and", "AND",
	"or", "OR", "trueish", `["color"]`, `['co"lor']`, `[""]`, `["a\"b"]`, `[ "x" ]`, ":", ":", ":", "^", ">", ">=", "<", "<=",
	"-", "(", ")", `"red"`, `'red'`, `""`, `"a\nb"`, `"a\\nb"`, `"\u0001"`, `"\\"`, `"raw` + "\n" + `line"`, `"\` + "\n" + `"`,
	`"roöm"`, `"😀"`, `"\😀"`, `"open`, "1", "-1", "- 5", ".5", "1.5", "1.", "1..5", "1e3", "007", "3", strings.Repeat("9", 400),
	" ", " ", " ", "\n", "\t", "\r", "\v", "\u00a0", "é", "",
}

// likely are queries that are mostly right.
var likely = []string{
	`roomId^"a"`, `roomId:"a"`, `metadata["color"]:"red"`, `metadata["n"]>1`, `metadata["n"]<=-1.5`, `metadata["x"]:null`,
	`resolved:true`, `resolved : false`, `visibility:"public"`, `unread:true`, `metadata["done"]:true`, `metadata["s"]^"pre"`,
	`metadata["n"]:3`, `roomId^""`, `metadata["color"]^"r"`,
}

func randomQuery(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(4) {
		if r.IntN(3) > 0 {
			b.WriteString(likely[r.IntN(len(likely))])
			b.WriteString([]string{" ", " AND ", "and ", "", "\n"}[r.IntN(5)])
			continue
		}
		for range 1 + r.IntN(5) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
	}
	s := []rune(b.String())
	if len(s) > 0 && r.IntN(4) == 0 { // one character away from right
		at := r.IntN(len(s))
		switch r.IntN(3) {
		case 0:
			s = append(s[:at], s[at+1:]...)
		case 1:
			s[at] = rune(`"'[]:^<>=-\ (.a1n`[r.IntN(17)])
		default:
			s = append(s[:at:at], append([]rune{s[r.IntN(len(s))]}, s[at:]...)...)
		}
	}
	return string(s)
}

type term struct {
	Field string  `json:"field"`
	Key   *string `json:"key"`
	Op    string  `json:"op"`
	Value any     `json:"value"`
}

// Every query is accepted or refused as Liveblocks' own parser does, is read as the same
// terms, and what is wrong with its words is told in the same ones.
func TestQueriesReadAsThePackageReadsThem(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs Node and its packages; run without it before a merge")
	}
	const count = 10_000
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var input bytes.Buffer
	var asked [][2]string
	for range count {
		for name := range languages {
			q := [2]string{name, randomQuery(r)}
			line, err := json.Marshal(q)
			if err != nil {
				t.Fatal(err)
			}
			asked = append(asked, q)
			input.Write(append(line, '\n'))
		}
	}
	script, err := filepath.Abs("testdata/queries.mjs")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", script)
	cmd.Dir = filepath.Join("..", "..", "..", "..", "e2e", "lb")
	cmd.Stdin = &input
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("queries.mjs (tools/testdeps.sh installs what it needs): %v\n%s", err, &stderr)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(asked) {
		t.Fatalf("answers = %d; want %d", len(lines), len(asked))
	}
	accepted, checked := 0, 0
	for i, line := range lines {
		var want struct {
			Terms   []term
			Error   string
			Checked bool
		}
		if err := json.Unmarshal([]byte(line), &want); err != nil {
			t.Fatal(err)
		}
		name, text := asked[i][0], asked[i][1]
		got, err := languages[name].Parse(text)
		if (err != nil) != (want.Error != "") {
			t.Fatalf("%s %q: error = %v; want %q", name, text, err, want.Error)
		}
		if err != nil {
			if want.Checked {
				checked++
				if err.Error() != want.Error {
					t.Fatalf("%s %q: error = %v; want %s", name, text, err, want.Error)
				}
			}
			continue
		}
		accepted++
		var terms []term
		for _, g := range got {
			if n, ok := g.Value.(float64); ok && math.IsInf(n, 0) {
				g.Value = nil // as JSON has it
			}
			terms = append(terms, term{Field: g.Field, Key: g.Key, Op: string(g.Op), Value: g.Value})
		}
		if diff := cmp.Diff(want.Terms, terms); diff != "" {
			t.Fatalf("%s %q (-package +ours):\n%s", name, text, diff)
		}
	}
	if accepted < count/10 || checked < count/10 {
		t.Fatalf("accepted = %d, refused for their meaning = %d; want a tenth of %d each", accepted, checked, count)
	}
}

func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                           "Expected a condition but end of input found (at 1:1)",
		"resolved":                   "Expected an operator but end of input found (at 1:9)",
		"resolved:\n maybe":          `Expected a value but "m" found (at 2:2)`,
		`metadata["😀"]:"x" ;`:        `Expected a condition but ";" found (at 1:20)`,
		`metadata["a"]>"1"`:          `Expected a number but "\"" found (at 1:15)`,
		`resolved:true metadata["a]`: `Expected a string but "\"" found (at 1:24)`,
	} {
		_, err := Threads.Parse(text)
		if e, ok := errors.AsType[*Error](err); !ok || e.Error() != want {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	have := map[string]any{"color": "red", "n": 3.0, "done": true, "list": []any{"red"}}
	for text, want := range map[string]bool{
		`metadata["color"]:"red"`: true, `metadata["color"]:"Red"`: false, `metadata["color"]^"re"`: true,
		`metadata["color"]:null`: false, `metadata["absent"]:null`: true, `metadata["n"]:3`: true, `metadata["n"]:"3"`: false,
		`metadata["n"]>2.5`: true, `metadata["n"]>3`: false, `metadata["n"]>=3`: true, `metadata["n"]<3`: false,
		`metadata["n"]<=3`: true, `metadata["color"]>1`: false, `metadata["done"]:true`: true, `metadata["done"]:false`: false,
		`metadata["list"]:"red"`: false, `metadata["n"]^"3"`: false, `resolved:true metadata["n"]:3`: false,
		`metadata["color"]:"red" metadata["n"]:3`: true,
	} {
		q, err := Threads.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got := q.Match(func(field string, key *string) any {
			if key == nil {
				return false
			}
			return have[*key]
		})
		if got != want {
			t.Errorf("%s = %v; want %v", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, q := range append(likely, parts...) {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range languages {
			if q, err := l.Parse(text); err == nil && len(q) == 0 {
				t.Fatalf("%q: no terms and no error", text)
			}
		}
	})
}
