package store_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestRowsOfMetadata(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		metadata, want, text, problem string
	}{
		{`{"s":"a\"b","n":10,"f":-0.50,"e":1E2,"b":true}`, `{"s":"a\"b","n":10,"f":-0.50,"e":1E2,"b":true}`,
			`{"b":"true","e":"1E2","f":"-0.50","n":"10","s":"a\"b"}`, ""},
		{`{}`, `{}`, `{}`, ""},
		{``, ``, ``, ""},
		{`null`, ``, ``, ""},
		{`[1]`, `[1]`, ``, ""},
		{`{"o":{"a":1},"z":null}`, `{"o":{"a":1},"z":null}`, `{"o":"{\"a\":1}","z":"null"}`, ""},
		{`{"a":"\u0000"}`, ``, ``, `\u0000`},
		{`{"a\ud83d":1}`, ``, ``, "surrogate"},
		{`{"a":"\ud83d\ude00"}`, `{"a":"\ud83d\ude00"}`, `{"a":"😀"}`, ""},
		{`{"a":`, ``, ``, "not JSON"},
		{"{\"a\":\"\xff\"}", ``, ``, "UTF-8"},
	} {
		rows := store.RowsOf(mirror.Thread{Metadata: []byte(c.metadata)})
		if got := string(rows.Thread.Metadata); got != c.want {
			t.Errorf("metadata of %q = %q; want %q", c.metadata, got, c.want)
		}
		if got := string(rows.MetadataText); got != c.text {
			t.Errorf("metadata of %q as text = %q; want %q", c.metadata, got, c.text)
		}
		if got := rows.Thread.DataProblem; (got == "") != (c.problem == "") || !strings.Contains(got, c.problem) {
			t.Errorf("problem of %q = %q; want %q in it", c.metadata, got, c.problem)
		}
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

// ids are some that can be stored and some that cannot, often the same.
func ids(limit int) *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"a", "b", "A", "a ", strings.Repeat("x", limit), strings.Repeat("x", limit+1), "",
		"a\x00", "\xff"})
}

// Whatever a thread holds, its rows fit the tables and have distinct keys; what
// could be stored all along is as it was.
func TestRowsOfFit(t *testing.T) {
	t.Parallel()
	raw := rapid.SampledFrom([]string{"", "null", `{"a":1}`, `{"a":"\u0000"}`, `{`, `"\ud800"`})
	rapid.Check(t, func(t *rapid.T) {
		thread := rapid.Custom(func(t *rapid.T) mirror.Thread {
			return mirror.Thread{
				ID: "t", Visibility: ids(128).Draw(t, "visibility"), Metadata: []byte(raw.Draw(t, "metadata")),
				Comments: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mirror.Comment {
					return mirror.Comment{
						ID: ids(128).Draw(t, "id"), UserID: ids(512).Draw(t, "user"), Body: []byte(raw.Draw(t, "body")),
						Metadata: []byte(raw.Draw(t, "metadata")),
						Reactions: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mirror.Reaction {
							return mirror.Reaction{Emoji: ids(64).Draw(t, "emoji"), UserID: ids(512).Draw(t, "user")}
						}), 0, 4).Draw(t, "reactions"),
						Attachments: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mirror.Attachment {
							return mirror.Attachment{ID: ids(128).Draw(t, "id")}
						}), 0, 4).Draw(t, "attachments"),
						Mentions: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mirror.Mention {
							return mirror.Mention{
								Kind: rapid.SampledFrom([]string{"user", "group", "robot", ""}).Draw(t, "kind"), ID: ids(128).Draw(t, "id"),
								UserIDs: rapid.SliceOfN(ids(512), 0, 4).Draw(t, "users"),
							}
						}), 0, 4).Draw(t, "mentions"),
					}
				}), 0, 5).Draw(t, "comments"),
			}
		}).Draw(t, "thread")
		before, err := json.Marshal(thread)
		if err != nil {
			t.Fatalf("Marshal = %v", err)
		}
		rows := store.RowsOf(thread)
		if after, err := json.Marshal(thread); err != nil || string(after) != string(before) {
			t.Fatalf("RowsOf altered what it was given")
		}
		if !fits(rows.Thread) {
			t.Fatalf("RowsOf = %+v; want only what fits", rows.Thread)
		}
		again := store.RowsOf(rows.Thread)
		if d := cmp.Diff(rows, again, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("RowsOf of what fits (-before +after):\n%s", d)
		}
		bare := rows.WithoutJSON("refused")
		if bare.Thread.Metadata != nil || bare.MetadataText != nil ||
			!strings.Contains(bare.Thread.DataProblem, "refused") || len(bare.Thread.Comments) != len(rows.Thread.Comments) {
			t.Fatalf("WithoutJSON = %+v; want the rest, and why", bare)
		}
		for i, c := range bare.Thread.Comments {
			if c.Body != nil || c.Metadata != nil {
				t.Fatalf("comment WithoutJSON = %+v", c)
			}
			mentions := store.MentionRowsOf(c)
			if d := cmp.Diff(mentionSet(rows.Thread.Comments[i].Mentions), mentionSet(store.MentionsOf(mentions)),
				cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("mentions read back (-before +after):\n%s", d)
			}
			slices.SortFunc(mentions, func(a, b store.MentionRow) int {
				return strings.Compare(a.Kind+a.ID+"\x00"+a.Via, b.Kind+b.ID+"\x00"+b.Via)
			})
			if n := len(mentions); len(slices.Compact(mentions)) != n {
				t.Fatalf("rows of mentions = %+v; want each once", mentions)
			}
		}
	})
}

// mentionSet is what mentions tell, whatever their order.
func mentionSet(mentions []mirror.Mention) map[string]map[string]bool {
	set := make(map[string]map[string]bool)
	for _, m := range mentions {
		users := make(map[string]bool)
		if m.Kind == "group" {
			for _, u := range m.UserIDs {
				users[u] = true
			}
		}
		set[m.Kind+"/"+m.ID] = users
	}
	return set
}

func fits(t mirror.Thread) bool {
	ok := t.Visibility == "" || mirror.ValidID(t.Visibility, mirror.MaxResourceID)
	column := func(raw []byte) { ok = ok && (raw == nil || string(raw) == `{"a":1}`) }
	id := func(s string, limit int) { ok = ok && mirror.ValidID(s, limit) }
	unique := func(seen map[any]bool, key any) {
		ok = ok && !seen[key]
		seen[key] = true
	}
	column(t.Metadata)
	comments := make(map[any]bool)
	for _, c := range t.Comments {
		id(c.ID, 128)
		unique(comments, c.ID)
		if c.UserID != "" {
			id(c.UserID, 512)
		}
		column(c.Body)
		column(c.Metadata)
		seen := make(map[any]bool)
		for _, r := range c.Reactions {
			id(r.Emoji, 64)
			id(r.UserID, 512)
			unique(seen, [2]string{r.Emoji, r.UserID})
		}
		for _, a := range c.Attachments {
			id(a.ID, 128)
			unique(seen, a.ID)
		}
		for _, m := range c.Mentions {
			id(m.ID, 512)
			unique(seen, [3]string{"mention", m.Kind, m.ID})
			for _, u := range m.UserIDs {
				id(u, 512)
			}
		}
	}
	return ok
}
