package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestColumnsOfAThread(t *testing.T) {
	t.Parallel()
	for metadata, want := range map[string]string{
		`{"s":"a\"b","n":10,"f":-0.50,"e":1E2,"b":true}`: `{"b":"true","e":"1E2","f":"-0.50","n":"10","s":"a\"b"}`,
		`{}`:                     `{}`,
		``:                       ``,
		`[1]`:                    ``,
		`{"o":{"a":1},"z":null}`: `{"o":"{\"a\":1}","z":"null"}`,
		`{"a":"\ud83d\ude00"}`:   `{"a":"😀"}`,
		`{"a":`:                  ``,
	} {
		thread := mirror.Thread{Comments: []mirror.Comment{{ID: "a"}, {ID: "b", DeleteTime: now}, {ID: "c"}}}
		if metadata != "" {
			thread.Metadata = []byte(metadata)
		}
		if got := string(store.MetadataText(thread.Metadata)); got != want || store.CommentCount(thread) != 2 {
			t.Errorf("metadata of %q as text = %q, %d comments; want %q, 2", metadata, got, store.CommentCount(thread), want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "plain": "plain", "a\x00b": "a\uFFFDb", "\xff\xfe": "\uFFFD", "e\u0301": "e\u0301",
	} {
		if got := store.Text(in); got != want {
			t.Errorf("Text(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestQueryable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", `{"a":1}`: `{"a":1}`, `{"a":"\u0000"}`: "", `"\ud800"`: "", "{": ""} {
		got, problem := store.Queryable([]byte(in))
		if string(got) != want || (got == nil) != (want == "") || (problem != "") != (want == "" && in != "") {
			t.Errorf("Queryable(%q) = %q, %q; want %q, or why not", in, got, problem, want)
		}
	}
}

// A row loses its JSON if an engine refuses some of it, and no other row does.
func TestRowsWithout(t *testing.T) {
	t.Parallel()
	bad := func(values ...[]byte) (string, error) {
		for _, v := range values {
			if string(v) == "bad" {
				return "is bad", nil
			}
		}
		return "", nil
	}
	good := []byte("good")
	thread := mirror.Thread{Metadata: []byte(`{"a":1}`), DataProblem: "told", Comments: []mirror.Comment{
		{ID: "a", Body: good, Metadata: []byte("bad")}, {ID: "b", Body: good}, {ID: "c", Body: []byte("bad")},
	}}
	kind := store.ItemKindOf(mirror.Resource{Kind: mirror.KindThread})
	item, err := store.ThreadItem(thread).Without(kind, bad)
	want := thread
	want.DataProblem = "told; JSON of a comment is is bad"
	want.Comments = []mirror.Comment{{ID: "a"}, {ID: "b", Body: good}, {ID: "c"}}
	if d := cmp.Diff(store.ThreadItem(want), item); d != "" || err != nil {
		t.Errorf("Without = %v (-want +got):\n%s", err, d)
	}
	if string(thread.Comments[2].Body) != "bad" {
		t.Error("Without altered what it was given")
	}
	item, err = store.ThreadItem(mirror.Thread{Metadata: []byte("bad")}).Without(kind, bad)
	alone := store.ThreadItem(mirror.Thread{DataProblem: "metadata is bad"})
	if d := cmp.Diff(alone, item, cmpopts.EquateEmpty()); d != "" || err != nil {
		t.Errorf("Without = %v; want no metadata, and why (-want +got):\n%s", err, d)
	}
	failed := errors.New("down")
	refuse := func(...[]byte) (string, error) { return "", failed }
	if _, err := store.ThreadItem(thread).Without(kind, refuse); !errors.Is(err, failed) {
		t.Errorf("Without = %v; want %v", err, failed)
	}
}

func TestMetadataFilter(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{"a": `{"k":"a"}`, `"\`: `{"k":"\"\\"}`, "a\x00": "", "\xff": ""} {
		if got := string(store.MetadataFilter(map[string]string{"k": value})); got != want {
			t.Errorf("MetadataFilter of %q = %q; want %q", value, got, want)
		}
		if got := store.MetadataFilter(map[string]string{value: "k"}); (got == nil) != (want == "") {
			t.Errorf("MetadataFilter of the name %q = %q", value, got)
		}
	}
}

// Each mention has a row, and no two are the same.
func TestMentionRows(t *testing.T) {
	t.Parallel()
	ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "A", "a "}), 0, 4, rapid.ID[string])
	rapid.Check(t, func(t *rapid.T) {
		var comment mirror.Comment
		want := 0
		for _, kind := range []string{"user", "group"} {
			for _, id := range ids.Draw(t, "ids") {
				m := mirror.Mention{Kind: kind, ID: id}
				if kind == "group" {
					m.UserIDs = ids.Draw(t, "users")
				}
				want += 1 + len(m.UserIDs)
				comment.Mentions = append(comment.Mentions, m)
			}
		}
		rows := store.MentionRowsOf(comment)
		slices.SortFunc(rows, func(a, b store.MentionRow) int {
			return strings.Compare(a.Kind+a.ID+"\x00"+a.Via, b.Kind+b.ID+"\x00"+b.Via)
		})
		if n := len(slices.Compact(slices.Clone(rows))); n != want || len(rows) != want {
			t.Fatalf("rows of mentions = %+v; want %d, each once", rows, want)
		}
	})
}
