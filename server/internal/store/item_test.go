package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// storedOf is what a writer finds stored of items.
func storedOf(kind *store.ItemKind, items ...store.Item) store.StoredRows {
	stored := store.NewStoredRows(kind)
	for _, item := range items {
		for p, rows := range item.Parts {
			for _, row := range rows {
				key := []string{item.ID}
				for _, v := range row.Values[:kind.Parts[p].Key] {
					id, _ := v.(string)
					key = append(key, id)
				}
				stored.Add(p, key, row.Digest)
			}
		}
	}
	return stored
}

func TestDiff(t *testing.T) {
	t.Parallel()
	kind := store.ItemKindOf(mirror.Resource{Kind: mirror.KindGroup})
	group := func(id string, members ...mirror.GroupMember) store.Item {
		return store.GroupItem(mirror.Group{ID: id, Members: members})
	}
	a, c := mirror.GroupMember{UserID: "a"}, mirror.GroupMember{UserID: "c"}
	b := mirror.GroupMember{UserID: "b", AddTime: now}
	before := storedOf(kind, group("g", a, b), group("h", a, b))
	if d := store.Diff(kind, before, []store.Item{group("g", b, a), group("h", a, b)}); d.Rows() != 0 {
		t.Fatalf("Diff of the same = %+v; want nothing", d)
	}
	later := b
	later.AddTime = now.Add(time.Microsecond)
	g := group("g", a, later, c)
	got := store.Diff(kind, before, []store.Item{g, group("h", b)})
	want := store.Difference{
		Write:  [][]store.ItemRow{{{Item: "g", Row: g.Parts[0][1]}, {Item: "g", Row: g.Parts[0][2]}}},
		Delete: [][][]string{{{"h", "a"}}},
	}
	if d := cmp.Diff(want, got); d != "" || got.Rows() != 3 {
		t.Fatalf("Diff has %d rows (-want +got):\n%s", got.Rows(), d)
	}
	for n := range 4 {
		if rows := got.First(n).Rows(); rows != n {
			t.Errorf("First(%d) = %d rows", n, rows)
		}
	}
	// A row that is to be written again has no digest.
	before.Add(0, []string{"h", "a"}, "")
	if d := store.Diff(kind, before, []store.Item{group("g", a, b), group("h", a, b)}); d.Rows() != 1 {
		t.Fatalf("Diff = %+v; want the row without a digest", d)
	}
}

// Each part of a row changes its digest.
func TestDigest(t *testing.T) {
	t.Parallel()
	seen := make(map[string]string)
	for what, c := range map[string]mirror.Comment{
		"nothing": {}, "id": {ID: "a"}, "author": {UserID: "a"}, "text": {Text: "a"}, "markdown": {Markdown: "a"},
		"body": {Body: []byte("a")}, "metadata": {Metadata: []byte("a")}, "source": {Source: []byte("a")},
		"empty source": {Source: []byte{}}, "created": {CreateTime: now}, "edited": {EditTime: now},
		"deleted": {DeleteTime: now}, "a microsecond": {EditTime: now.Add(time.Microsecond)},
	} {
		d := store.ThreadItem(mirror.Thread{Comments: []mirror.Comment{c}}).Parts[0][0].Digest
		if other, ok := seen[d]; ok || len(d) != 16 {
			t.Errorf("digest of %s = %x; that of %s is the same", what, d, other)
		}
		seen[d] = what
	}
	// What a column does not keep does not count.
	times := [2]mirror.Thread{
		{Comments: []mirror.Comment{{EditTime: now.Truncate(time.Microsecond)}}},
		{Comments: []mirror.Comment{{EditTime: now.Truncate(time.Microsecond).Add(999).In(time.FixedZone("", 3600))}}},
	}
	if a, b := store.ThreadItem(times[0]).Parts[0][0].Digest, store.ThreadItem(times[1]).Parts[0][0].Digest; a != b {
		t.Errorf("digests = %x, %x; want one", a, b)
	}
}

// Differs names what is not as the source has it: a column, or a row that is missing or
// surplus. JSON may be spelled in another way, and may be missing if a reason is told.
func TestDiffers(t *testing.T) {
	t.Parallel()
	kind := store.ItemKindOf(mirror.Resource{Kind: mirror.KindThread})
	thread := func(change func(t *mirror.Thread)) store.Item {
		t := mirror.Thread{
			ID: "th", Source: []byte(`{}`), CreateTime: now, Visibility: "public", Metadata: []byte(`{"a":1}`),
			Comments: []mirror.Comment{
				{
					ID: "cm_1", UserID: "u", CreateTime: now, Body: []byte(`{"b":1}`), Text: "words",
					Reactions: []mirror.Reaction{{Emoji: "x", UserID: "u", CreateTime: now}},
				},
				{ID: "cm_2"},
			},
		}
		change(&t)
		return store.ThreadItem(t)
	}
	column := func(name string) string { return "the column " + name + " does not match the copy" }
	for name, c := range map[string]struct {
		change func(t *mirror.Thread)
		want   string
	}{
		"nothing":  {func(*mirror.Thread) {}, ""},
		"spelling": {func(t *mirror.Thread) { t.Metadata = []byte(` {"a" : 1}`) }, ""},
		"nanosecond": {
			func(t *mirror.Thread) { t.CreateTime = t.CreateTime.Truncate(time.Microsecond) }, "",
		},
		"order":        {func(t *mirror.Thread) { slices.Reverse(t.Comments) }, ""},
		"told problem": {func(t *mirror.Thread) { t.DataProblem = "something else" }, ""},
		"refused metadata": {
			func(t *mirror.Thread) { t.Metadata, t.DataProblem = nil, "metadata is too deep" }, "",
		},
		"refused body": {
			func(t *mirror.Thread) { t.Comments[0].Body, t.DataProblem = nil, "JSON of a comment is too deep" }, "",
		},
		"metadata refused, not the body": {
			func(t *mirror.Thread) { t.Comments[0].Body, t.DataProblem = nil, "metadata is too deep" },
			column("body of mirror_comment"),
		},
		"id":           {func(t *mirror.Thread) { t.Visibility = "" }, column("visibility of mirror_thread")},
		"bool":         {func(t *mirror.Thread) { t.Resolved = true }, column("resolved of mirror_thread")},
		"time":         {func(t *mirror.Thread) { t.CreateTime = time.Time{} }, column("create_time of mirror_thread")},
		"JSON":         {func(t *mirror.Thread) { t.Metadata = []byte(`{"a":2}`) }, column("metadata of mirror_thread")},
		"missing JSON": {func(t *mirror.Thread) { t.Metadata = nil }, column("metadata of mirror_thread")},
		"surplus JSON": {
			func(t *mirror.Thread) { t.Comments[1].Metadata = []byte(`{}`) }, column("metadata of mirror_comment"),
		},
		"number": {func(t *mirror.Thread) { t.Comments[1].DeleteTime = now }, column("comment_count of mirror_thread")},
		"text":   {func(t *mirror.Thread) { t.Comments[0].Text = "other" }, column("plain_text of mirror_comment")},
		"bytes": {
			func(t *mirror.Thread) { t.Comments[0].Source = []byte("x") }, column("source_json of mirror_comment"),
		},
		"other row": {
			func(t *mirror.Thread) { t.Comments[0].Reactions[0].Emoji = "y" },
			"a row of mirror_comment_reaction is missing",
		},
		"surplus row": {
			func(t *mirror.Thread) { t.Comments[0].Attachments = []mirror.Attachment{{ID: "at"}} },
			"a row of mirror_comment_attachment is surplus",
		},
	} {
		if got := store.Differs(kind, thread(func(*mirror.Thread) {}), thread(c.change)); got != c.want {
			t.Errorf("%s: Differs = %q; want %q", name, got, c.want)
		}
	}
	// The rows of an index count if the thread says that they are its own.
	terms, head := len(kind.Parts)-1, len(kind.Head.Columns)-1
	stored := thread(func(*mirror.Thread) {})
	stored.Parts[terms] = nil
	want := "a row of mirror_thread_term is missing"
	if got := store.Differs(kind, thread(func(*mirror.Thread) {}), stored); got != want {
		t.Errorf("Differs without terms = %q; want %q", got, want)
	}
	stored.Head[head] = []byte(nil)
	if got := store.Differs(kind, thread(func(*mirror.Thread) {}), stored); got != "" {
		t.Errorf("Differs of a thread that is not indexed = %q; want nothing", got)
	}
}
