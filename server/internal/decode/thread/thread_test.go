package thread_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func fixture(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parse(t *testing.T, raw string) mirror.Thread {
	t.Helper()
	got, err := thread.Parse([]byte(raw))
	if err != nil {
		t.Fatalf("Parse(%s) = %v", raw, err)
	}
	return got
}

var when = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

// comments returns what the comments of the fixtures read as.
func comments() []mirror.Comment {
	return []mirror.Comment{
		{
			Thread: "th_1", ID: "cm_1", UserID: "alice", CreateTime: when,
			Text:     "Hello world @bob and @design see this",
			Markdown: "Hello **world** @bob and @design see [this](https://example.org)",
			Reactions: []mirror.Reaction{
				{Emoji: "👍", UserID: "bob", CreateTime: when}, {Emoji: "👍", UserID: "carol", CreateTime: when},
			},
			Attachments: []mirror.Attachment{{ID: "at_1", Name: "plan.pdf", MIMEType: "application/pdf", Size: 12345}},
			Mentions: []mirror.Mention{
				{Kind: "user", ID: "bob"},
				{Kind: "group", ID: "design", UserIDs: []string{"u1", "u2"}},
			},
		},
		{Thread: "th_1", ID: "cm_2", UserID: "bob", CreateTime: when, EditTime: when, DeleteTime: when},
	}
}

// withoutJSON checks that the parts of a comment are where they are in its source,
// and returns it without them.
func withoutJSON(t *testing.T, within []byte, c mirror.Comment) mirror.Comment {
	t.Helper()
	if !bytes.Contains(within, c.Source) {
		t.Errorf("source of %s is not part of what it was read from", c.ID)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(c.Source, &members); err != nil {
		t.Fatalf("source of %s: %v", c.ID, err)
	}
	if !bytes.Equal(c.Body, members["body"]) || !bytes.Equal(c.Metadata, members["metadata"]) {
		t.Errorf("body, metadata of %s = %s, %s; want them as they are written", c.ID, c.Body, c.Metadata)
	}
	c.Source, c.Body, c.Metadata = nil, nil, nil
	return c
}

func TestParse(t *testing.T) {
	t.Parallel()
	raw := fixture(t, "thread.json")
	got, err := thread.Parse(raw)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	if !bytes.Equal(got.Source, bytes.TrimSpace(raw)) || got.SHA256 == ([32]byte{}) {
		t.Errorf("Source = %s, hash %x; want what was read", got.Source, got.SHA256)
	}
	if want := `"color": "blue"`; !strings.Contains(string(got.Metadata), want) || !bytes.Contains(raw, got.Metadata) {
		t.Errorf("Metadata = %s; want it as it is written", got.Metadata)
	}
	for i, c := range got.Comments {
		got.Comments[i] = withoutJSON(t, raw, c)
	}
	got.Source, got.Metadata, got.SHA256 = nil, nil, [32]byte{}
	want := mirror.Thread{ID: "th_1", CreateTime: when, UpdateTime: when, Visibility: "public", Comments: comments()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
}

// A thread has one hash, whether it was fetched alone or in a list.
func TestHashInAList(t *testing.T) {
	t.Parallel()
	one, err := thread.Parse(fixture(t, "thread.json"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := listed.Parse(fixture(t, "threads.json"))
	if err != nil || len(list) != 1 {
		t.Fatalf("Parse = %d threads, %v; want one", len(list), err)
	}
	if bytes.Equal(list[0].Source, one.Source) {
		t.Fatal("the fixtures are spelled alike; that they have one hash would say nothing")
	}
	if list[0].SHA256 != one.SHA256 {
		t.Error("the hash of a thread depends on where it was read")
	}
}

// Both shapes of reactions that are published read alike.
func TestParseComment(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"comment.json", "comment-flat-reactions.json", "comment-deleted.json"} {
		raw := fixture(t, name)
		got, err := thread.ParseComment(raw)
		if err != nil {
			t.Fatalf("ParseComment of %s = %v", name, err)
		}
		want := comments()[0]
		if name == "comment-deleted.json" {
			want = comments()[1]
		}
		if diff := cmp.Diff(want, withoutJSON(t, raw, got)); diff != "" {
			t.Errorf("ParseComment of %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	deep := `{"id":"a","x":` + strings.Repeat("[", listed.MaxDepth) + strings.Repeat("]", listed.MaxDepth) + "}"
	for raw, want := range map[string]error{
		"": rawjson.ErrSyntax, "{": rawjson.ErrSyntax, "1": thread.ErrID, "[]": thread.ErrID, "null": thread.ErrID,
		"{}":       thread.ErrID,
		`{"id":1}`: thread.ErrID, `{"id":""}`: thread.ErrID, `{"id":"a\u0000"}`: thread.ErrID,
		`{"id":"\ud83d"}`: thread.ErrID,
		`{"id":"` + strings.Repeat("x", 129) + `"}`: thread.ErrID, `{"id":"a","id":null}`: thread.ErrID,
		deep: listed.ErrDepth,
	} {
		for name, read := range map[string]func([]byte) error{
			"Parse":        func(b []byte) error { _, err := thread.Parse(b); return err },
			"ParseExact":   func(b []byte) error { _, err := thread.ParseExact(b); return err },
			"ParseComment": func(b []byte) error { _, err := thread.ParseComment(b); return err },
		} {
			if err := read([]byte(raw)); !errors.Is(err, want) || err != nil && len(raw) > 10 &&
				strings.Contains(err.Error(), raw[:8]) {
				t.Errorf("%s(%.40s) = %v; want %v, and nothing of the JSON", name, raw, err, want)
			}
		}
	}
	if _, err := thread.Parse([]byte(strings.Replace(strings.Replace(deep, "[", "", 1), "]", "", 1))); err != nil {
		t.Errorf("Parse at the limit of depth = %v", err)
	}
}

// What is missing or of another kind reads as absent.
func TestParseIsLenient(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		`{"id":"a"}`,
		`{"id":"a","type":7,"createdAt":1767323045678,"updatedAt":"soon","metadata":[],"resolved":"true","visibility":{},"comments":{}}`,
		`{"id":"a","createdAt":null,"metadata":null,"resolved":null,"visibility":null,"comments":null,"appId":"x","new":{"a":[1]}}`,
		`{"id":"b","resolved":true,"metadata":{"x":1},"id":"a","resolved":false,"metadata":7,"comments":[{"id":"c"}],"comments":[]}`,
	} {
		got := parse(t, raw)
		got.Source, got.SHA256 = nil, [32]byte{}
		if diff := cmp.Diff(mirror.Thread{ID: "a"}, got); diff != "" {
			t.Errorf("Parse(%s) (-want +got):\n%s", raw, diff)
		}
	}
	got := parse(t, `{"id":"a","comments":[
		{"id":"c1","threadId":"other","userId":null,"createdAt":0,"body":"x","metadata":"x","reactions":{},"attachments":"x"},
		{"id":"c2","body":{},"reactions":[],"attachments":[{"id":"at","name":7,"size":-1}]},
		{"id":"c3","body":{"content":"x"},"attachments":[{"id":"at","size":1e3},
			{"id":"at","name":"\ud83dx\u0000","size":1.5,"mimeType":"t"}]},
		{"id":"c4","body":{"content":[1,null,{},{"type":"paragraph"},
			{"type":"paragraph","children":[7,{},{"type":"mention"},{"text":3}]}]}},
		{"id":"c5","deletedAt":"2026-01-02T03:04:05.678Z","body":{"content":[{"type":"paragraph",
			"children":[{"text":"x"},{"type":"mention","id":"u"}]}]}},
		{"id":"c1","userId":"u"}
	]}`)
	want := []mirror.Comment{
		{Thread: "a", ID: "c1", UserID: "u"},
		{Thread: "a", ID: "c2", Attachments: []mirror.Attachment{{ID: "at"}}},
		{Thread: "a", ID: "c3", Attachments: []mirror.Attachment{{ID: "at", Name: "\ufffdx\ufffd", MIMEType: "t"}}},
		{Thread: "a", ID: "c4", Text: "\n", Markdown: "\n\n"},
		{Thread: "a", ID: "c5", DeleteTime: when},
	}
	for i := range got.Comments {
		got.Comments[i].Source, got.Comments[i].Body = nil, nil
	}
	if diff := cmp.Diff(want, got.Comments); diff != "" {
		t.Errorf("comments (-want +got):\n%s", diff)
	}
	if got.DataProblem != "a mention has no id that can be stored" {
		t.Errorf("DataProblem = %q", got.DataProblem)
	}
}

func TestParseReactions(t *testing.T) {
	t.Parallel()
	got, err := thread.ParseComment([]byte(`{"id":"c","reactions":[
		{"emoji":"👍","createdAt":"2026-01-02T03:04:05.678Z","users":[{"id":"bob"},{"id":"bob"},{"id":"Bob"}]},
		{"emoji":"👍","createdAt":"2027-01-02T03:04:05.678Z","userId":"bob"},
		{"emoji":"🎉","userId":"bob"},
		{"emoji":"🎉","users":[]},
		{"emoji":"🎉","users":{},"userId":"eve"},
		{"emoji":"","userId":"x"},{"userId":"x"},{"emoji":"👎"},{"emoji":"👎","users":[{},{"id":7},"x"]},null
	]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []mirror.Reaction{
		{Emoji: "👍", UserID: "bob", CreateTime: when},
		{Emoji: "👍", UserID: "Bob", CreateTime: when},
		{Emoji: "🎉", UserID: "bob"},
		{Emoji: "🎉", UserID: "eve"},
	}
	if diff := cmp.Diff(want, got.Reactions); diff != "" {
		t.Errorf("Reactions (-want +got):\n%s", diff)
	}
}

func TestParseMentions(t *testing.T) {
	t.Parallel()
	got, err := thread.ParseComment([]byte(`{"id":"c","body":{"content":[
		{"type":"paragraph","children":[
			{"type":"mention","id":"bob"},
			{"type":"mention","kind":"user","id":"bob"},
			{"type":"mention","kind":"group","id":"bob"},
			{"type":"mention","kind":"group","id":"g","userIds":["u1","u2","u1"]},
			{"type":"mention","kind":"copilot","id":"ai"},
			{"text":"@eve"}
		]},
		{"type":"quote","children":[{"type":"paragraph",
			"children":[{"type":"mention","kind":"group","id":"g","userIds":["u3","u1"]},
			{"type":"mention","kind":null,"id":"eve"}]}]}
	]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []mirror.Mention{
		{Kind: "user", ID: "bob"},
		{Kind: "group", ID: "bob"},
		{Kind: "group", ID: "g", UserIDs: []string{"u1", "u2", "u3"}},
		{Kind: "user", ID: "eve"},
	}
	if diff := cmp.Diff(want, got.Mentions); diff != "" {
		t.Errorf("Mentions (-want +got):\n%s", diff)
	}
}

// What cannot be stored is left out, said, and still in the source.
func TestParseSaysWhatCannotBeStored(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 513)
	for _, c := range []struct {
		raw, problem string
		left         func(mirror.Thread) bool
	}{
		{
			`"metadata":{"a":"\u0000"}`, "the metadata contains the character",
			func(t mirror.Thread) bool { return t.Metadata == nil },
		},
		{
			`"metadata":{"\ud83d":1}`, "the metadata contains half of a surrogate",
			func(t mirror.Thread) bool { return t.Metadata == nil },
		},
		{
			`"comments":[{"id":"` + long + `"}]`, "a comment has no id",
			func(t mirror.Thread) bool { return t.Comments == nil },
		},
		{`"comments":[7]`, "a comment has no id", func(t mirror.Thread) bool { return t.Comments == nil }},
		{
			`"comments":[{"id":"c","userId":"` + long + `"}]`, "the author of a comment",
			func(t mirror.Thread) bool { return t.Comments[0].UserID == "" },
		},
		{
			`"comments":[{"id":"c","metadata":{"a":"\ud83d"}}]`, "the metadata of a comment",
			func(t mirror.Thread) bool { return t.Comments[0].Metadata == nil },
		},
		{
			`"comments":[{"id":"c","body":{"content":[{"type":"paragraph","children":[{"text":"a\u0000b"}]}]}}]`,
			"the body of a comment",
			func(t mirror.Thread) bool { return t.Comments[0].Body == nil && t.Comments[0].Text == "a\ufffdb" },
		},
		{
			`"comments":[{"id":"c","reactions":[{"emoji":"` + long + `","userId":"u"}]}]`, "the emoji of",
			func(t mirror.Thread) bool { return t.Comments[0].Reactions == nil },
		},
		{
			`"comments":[{"id":"c","reactions":[{"emoji":"x","userId":"\ud83d"}]}]`, "the user of a reaction",
			func(t mirror.Thread) bool { return t.Comments[0].Reactions == nil },
		},
		{
			`"comments":[{"id":"c","attachments":[{"id":"a\u0000"}]}]`, "an attachment",
			func(t mirror.Thread) bool { return t.Comments[0].Attachments == nil },
		},
		{
			`"comments":[{"id":"c","body":{"content":[{"type":"paragraph","children":[{"type":"mention","id":"` + long +
				`"}]}]}}]`, "a mention",
			func(t mirror.Thread) bool { return t.Comments[0].Mentions == nil },
		},
		{
			`"comments":[{"id":"c","body":{"content":[{"type":"paragraph","children":[{"type":"mention","kind":"group","id":"g","userIds":["","u"]}]}]}}]`, "a member of a group",
			func(t mirror.Thread) bool { return len(t.Comments[0].Mentions[0].UserIDs) == 1 },
		},
	} {
		raw := `{"id":"a",` + c.raw + "}"
		got := parse(t, raw)
		if !strings.HasPrefix(got.DataProblem, c.problem) || strings.Contains(got.DataProblem, ";") || !c.left(got) ||
			string(got.Source) != raw {
			t.Errorf("Parse(%.90s) = %q, %+v; want only what cannot be stored left out", raw, got.DataProblem, got)
		}
	}

	raw := `{"id":"a","metadata":{"a":"\u0000"},"comments":[{"id":"c","metadata":{"a":"\ud83d"},"body":{"content":["\u0000"]}},{"id":"d","metadata":{"a":"\ud83d"}},{}]}`
	got := parse(t, raw)
	if n := strings.Count(got.DataProblem, ";"); n != 3 {
		t.Errorf("DataProblem = %q; want each of four reasons once", got.DataProblem)
	}
	exact, err := thread.ParseExact([]byte(raw))
	if err != nil || string(exact.Metadata) != `{"a":"\u0000"}` ||
		string(exact.Comments[0].Body) != `{"content":["\u0000"]}` ||
		string(exact.Comments[0].Metadata) != `{"a":"\ud83d"}` || exact.DataProblem != got.DataProblem {
		t.Errorf("ParseExact = %+v, %v; want everything as it is written", exact, err)
	}
	comment, err := thread.ParseComment(got.Comments[0].Source)
	if err != nil || !bytes.Equal(comment.Body, exact.Comments[0].Body) {
		t.Errorf("ParseComment = %+v, %v; want everything as it is written", comment, err)
	}
}

// The hash is of the meaning: it is one for every spelling, and another for every
// other meaning.
func TestHash(t *testing.T) {
	t.Parallel()
	base := parse(t, `{"id":"a","metadata":{"x":1,"y":"\ud83d"}}`).SHA256
	for _, same := range []string{
		`{ "metadata" : {"y":"\uD83D","x":1} , "id" : "\u0061" }`,
		`{"id":"b","metadata":{"x":2,"x":1,"y":"\ud83d"},"id":"a"}`,
	} {
		if parse(t, same).SHA256 != base {
			t.Errorf("hash of %s differs", same)
		}
	}
	for _, other := range []string{
		`{"id":"a","metadata":{"x":1,"y":"\ud83e"}}`, `{"id":"a","metadata":{"x":1,"y":"\ufffd"}}`,
		`{"id":"a","metadata":{"x":1}}`,
		`{"id":"a","metadata":{"x":1,"y":"\ud83d"},"new":1}`,
	} {
		if parse(t, other).SHA256 == base {
			t.Errorf("hash of %s is the same", other)
		}
	}
}

func TestLongThread(t *testing.T) {
	t.Parallel()
	one := string(bytes.TrimSpace(fixture(t, "comment.json")))
	all := make([]string, 500)
	for i := range all {
		all[i] = strings.Replace(one, `"cm_1"`, fmt.Sprintf(`"cm_%d"`, i), 1)
	}
	got := parse(t, `{"id":"th_1","comments":[`+strings.Join(all, ",")+"]}")
	if len(got.Comments) != 500 || got.DataProblem != "" {
		t.Fatalf("Parse = %d comments, %q; want 500", len(got.Comments), got.DataProblem)
	}
	for i, c := range got.Comments {
		if string(c.Source) != all[i] {
			t.Fatalf("comment %d is %s", i, c.ID)
		}
	}
}

// FuzzParse looks for panics, for columns no database takes, and for hashes that
// depend on the spelling.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"thread.json", "threads.json", "comment.json", "comment-flat-reactions.json"} {
		raw, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if list, err := listed.Parse(raw); err == nil {
			for _, item := range list {
				one, err := thread.Parse(item.Source)
				if err != nil || one.ID != item.ID || one.SHA256 != item.SHA256 {
					t.Fatalf("Parse of what is listed as %q, %x = %q, %x, %v", item.ID, item.SHA256, one.ID, one.SHA256, err)
				}
				check(t, one)
			}
		}
		if _, err := thread.ParseComment(raw); err != nil && !errors.Is(err, rawjson.ErrSyntax) &&
			!errors.Is(err, thread.ErrID) && !errors.Is(err, listed.ErrDepth) {
			t.Fatalf("ParseComment = %v", err)
		}
		if one, err := thread.Parse(raw); err == nil {
			check(t, one)
		}
	})
}

func check(t *testing.T, got mirror.Thread) {
	t.Helper()
	if !mirror.ValidID(got.ID, mirror.MaxResourceID) {
		t.Fatalf("id %q cannot be stored", got.ID)
	}
	storable := func(what, s string) {
		if s != rawjson.Clean(s) {
			t.Fatalf("%s %q is no text that can be stored", what, s)
		}
	}
	column := func(what string, v []byte) {
		if len(v) > 0 && (!json.Valid(v) || rawjson.Value(v).Problem() != "" || v[0] != '{') {
			t.Fatalf("%s %s is no JSON that can be stored", what, v)
		}
	}
	column("metadata", got.Metadata)
	seen := map[string]bool{}
	for _, c := range got.Comments {
		if seen[c.ID] || !mirror.ValidID(c.ID, mirror.MaxResourceID) || c.Thread != got.ID {
			t.Fatalf("comment %q of %q cannot be stored, or not twice", c.ID, c.Thread)
		}
		seen[c.ID] = true
		column("metadata of a comment", c.Metadata)
		column("body", c.Body)
		storable("text", c.Text)
		storable("Markdown", c.Markdown)
		if n := len(c.Markdown); n > 20*len(c.Source) {
			t.Fatalf("%d bytes of Markdown come from %d", n, len(c.Source))
		}
		for _, a := range c.Attachments {
			storable("name", a.Name)
			storable("media type", a.MIMEType)
		}
	}
	again, err := thread.Parse(rawjson.Value(got.Source).AppendCanonical(nil))
	if err != nil || again.SHA256 != got.SHA256 {
		t.Fatalf("Parse of the canonical form = hash %x, %v; want %x", again.SHA256, err, got.SHA256)
	}
}

// Whatever a thread holds, its rows fit the tables and have distinct keys.
func TestParsedThreadsFit(t *testing.T) {
	t.Parallel()
	ids := func(limit int) *rapid.Generator[any] {
		return rapid.SampledFrom([]any{
			"a", "b", "A", "a ", strings.Repeat("x", limit), strings.Repeat("x", limit+1), "", "a\x00", 7, nil,
		})
	}
	raw := rapid.SampledFrom([]string{"null", `{"a":1}`, `{"a":"\u0000"}`, `[]`, `{"a":"\ud800"}`})
	type object = map[string]any
	list := func(of func(t *rapid.T) object) *rapid.Generator[[]object] {
		return rapid.SliceOfN(rapid.Custom(of), 0, 4)
	}
	rapid.Check(t, func(t *rapid.T) {
		members := object{
			"id": "t", "visibility": ids(64).Draw(t, "visibility"), "metadata": json.RawMessage(raw.Draw(t, "metadata")),
			"comments": list(func(t *rapid.T) object {
				mentions := list(func(t *rapid.T) object {
					return object{
						"type": "mention", "kind": rapid.SampledFrom([]string{"user", "group", "robot"}).Draw(t, "kind"),
						"id": ids(512).Draw(t, "id"), "userIds": rapid.SliceOfN(ids(512), 0, 4).Draw(t, "users"),
					}
				})
				return object{
					"id": ids(128).Draw(t, "id"), "userId": ids(512).Draw(t, "user"),
					"metadata": json.RawMessage(raw.Draw(t, "metadata")),
					"body":     object{"content": mentions.Draw(t, "mentions")},
					"reactions": list(func(t *rapid.T) object {
						return object{"emoji": ids(64).Draw(t, "emoji"), "userId": ids(512).Draw(t, "user")}
					}).Draw(t, "reactions"),
					"attachments": list(func(t *rapid.T) object {
						return object{"id": ids(128).Draw(t, "id")}
					}).Draw(t, "attachments"),
				}
			}).Draw(t, "comments"),
		}
		source, err := json.Marshal(members)
		if err != nil {
			t.Fatalf("Marshal = %v", err)
		}
		got, err := thread.Parse(source)
		if err != nil || !fits(got) {
			t.Fatalf("Parse(%s) = %+v, %v; want only what fits", source, got, err)
		}
	})
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
		ok = ok && (c.Body == nil || rawjson.Value(c.Body).Problem() == "")
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
