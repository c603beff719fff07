package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var threadCases = []testCase{
	{"new thread", newThread},
	{"unchanged thread moves its times alone", unchangedThread},
	{"changed thread is written anew with its comments", changedThread},
	{"deleted comment stays in its thread", deletedComment},
	{"thread source is kept byte for byte", threadSource},
	{"thread with JSON that cannot be stored", threadRefused},
	{"JSON that cannot be stored takes no other row's with it", threadRefusedAlone},
	{"thread and comment without a creation time", threadUndated},
	{"thread of 500 comments", longThread},
	{"thread fetched in another incarnation", threadFences},
	{"404 of a thread alone deletes nothing", missingThread},
	{"delete event and 404 make a tombstone of a thread", deletedThread},
	{"thread deleted before anybody heard of it", deletedUnknownThread},
	{"delete event contradicted by a fetch of the thread is void", contradictedThread},
	{"tombstone of a thread is revived", revivedThread},
	{"thread that was missing is back", missingThreadBack},
	{"404 of a thread in another incarnation", missingThreadFences},
	{"list stores threads never heard of", listUnknown},
	{"list leaves alone what it shows as stored", listKnown},
	{"list raises threads that differ", listDiffering},
	{"list raises threads that it lacks", listLacking},
	{"list raises as urgently as it was wanted", listBackground},
	{"list may hold anything", listOdd},
	{"list of another incarnation stores nothing", listFences},
	{"list settles like any fetch", listSettles},
	{"threads by filter", threadsFiltered},
	{"threads by metadata", threadsByMetadata},
	{"threads by metadata follow what is written", threadsByMetadataFollow},
	{"threads by metadata of all pages", threadsByMetadataPages},
	{"threads in pages", threadPages},
	{"comments by filter", commentsFiltered},
	{"comments in pages", commentPages},
	{"threads of deleted rooms and other epochs", threadsDeleted},
	{"odd ids stay apart in threads and comments", oddThreadIDs},
	{"threads show in no other project", threadsOfProject},
	{"what is stored of a thread is told", storedThread},
	{"thread that is not trusted is written anew", distrustThread},
	{"threads are cleaned up with their comments", cleanThreads},
	{"list against events on its threads", listRace},
	{"list in pieces against events between them", listPieces},
	{"list in pieces under a lease that is lost", listPiecesFences},
	{"long thread in pieces", threadPieces},
	{"long thread in pieces of another incarnation", threadPiecesFences},
	{"what is written of a thread is what differs", threadDifference},
}

// canonical is raw with its members in order and no space; engines spell JSON as
// they like.
func canonical(raw []byte) []byte {
	if raw == nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return raw
	}
	b, err := json.Marshal(v)
	if err != nil {
		return raw
	}
	return b
}

// thread is a thread in its n-th version.
func threadIn(id string, n int, comments ...mirror.Comment) mirror.Thread {
	t := mirror.Thread{
		ID: id, Source: fmt.Appendf(nil, `{"id":%q,"n":%d}`, id, n), CreateTime: born,
		UpdateTime: born.Add(time.Duration(n) * time.Second),
		Visibility: "public", Metadata: fmt.Appendf(nil, `{"n":%d}`, n), Comments: comments,
	}
	for i := range comments {
		comments[i].Thread = id
	}
	t.SHA256 = sha256.Sum256(t.Source)
	return t
}

// commentIn is a comment written n seconds after the thread.
func commentIn(id string, n int) mirror.Comment {
	return mirror.Comment{
		ID: id, UserID: "alice", Source: fmt.Appendf(nil, `{"id":%q,"n":%d}`, id, n),
		CreateTime: born.Add(time.Duration(n) * time.Second),
		Body:       fmt.Appendf(nil, `{"version":1,"content":[{"n":%d}]}`, n), Text: "words", Markdown: "*words*",
	}
}

// fullComment has something of everything.
func fullComment(id string, n int) mirror.Comment {
	c := commentIn(id, n)
	c.EditTime = c.CreateTime.Add(time.Minute)
	c.Metadata = []byte(`{"priority":1}`)
	c.Reactions = []mirror.Reaction{
		{Emoji: "👍", UserID: "bob", CreateTime: born},
		{Emoji: "👍", UserID: "carol"},
		{Emoji: "❤️", UserID: "bob", CreateTime: born},
	}
	c.Attachments = []mirror.Attachment{
		{ID: "at_1", Name: "plan \x00.pdf", MIMEType: "application/pdf", Size: 1 << 40},
		{ID: "at_2"},
	}
	c.Mentions = []mirror.Mention{
		{Kind: "user", ID: "bob"},
		{Kind: "group", ID: "design", UserIDs: []string{"u1", "u2", "bob"}},
		{Kind: "group", ID: "empty"},
	}
	return c
}

func (e *env) applyThread(lease mirror.Lease, t mirror.Thread) mirror.Applied {
	e.Helper()
	applied, err := store.WriteItem(e.ctx(), e.Store, lease, store.ThreadItem(t), e.now,
		func() time.Time { return e.now }, 0)
	e.must("ApplyThread", err)
	return e.caughtUp(lease, applied)
}

// mirrorThread has an event raise a thread and applies it.
func (e *env) mirrorThread(room mirror.RoomID, t mirror.Thread) mirror.Applied {
	e.Helper()
	e.raise(threadOf(room, t.ID))
	return e.applyThread(e.claim(threadOf(room, t.ID)), t)
}

func (e *env) missThread(r mirror.Resource) mirror.Applied {
	e.Helper()
	lease := e.claim(r)
	applied, err := e.ApplyItemMissing(e.ctx(), lease, e.now, 0)
	e.must("ApplyThreadMissing", err)
	return e.caughtUp(lease, applied)
}

// deleteThread deletes a mirrored thread: the event, then the 404.
func (e *env) deleteThread(r mirror.Resource) mirror.Applied {
	e.Helper()
	e.accept(e.delivery(mirror.Invalidation{Resource: r, Deleted: true}))
	return e.missThread(r)
}

// listThreads has the list of threads raised and applies it.
func (e *env) listThreads(room mirror.RoomID, threads ...mirror.Thread) mirror.Applied {
	e.Helper()
	e.raise(threadOf(room, ""))
	lease := e.claim(threadOf(room, ""))
	applied, err := applyThreads(e.ctx(), e.Store, lease, e.now, threads, e.now, 0)
	e.must("ApplyThreads", err)
	return e.caughtUp(lease, applied)
}

// added is what a list returns that stores these threads.
func added(room mirror.RoomID, ids ...string) mirror.Applied {
	a := mirror.Applied{Changed: true}
	for _, id := range ids {
		a.Added = append(a.Added, threadOf(room, id))
	}
	return a
}

// applyThreads applies a list of threads as a task does.
func applyThreads(ctx context.Context, s store.Store, lease mirror.Lease, fetchTime time.Time,
	threads []mirror.Thread, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	items := make([]store.Item, len(threads))
	for i, t := range threads {
		items[i] = store.ThreadItem(t)
	}
	return applyList(ctx, s, lease, fetchTime, items, now, settle)
}

// applyList applies a list of items as a task does.
func applyList(ctx context.Context, s store.Store, lease mirror.Lease, fetchTime time.Time, items []store.Item,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	list := mirror.List{FetchTime: fetchTime}
	byID := make(map[string]store.Item)
	for _, item := range items {
		byID[item.ID] = item
		list.Items = append(list.Items, mirror.Listed{ID: item.ID, SHA256: item.SHA256, Source: []byte(item.ID)})
	}
	parse := func(source []byte) (store.Item, error) { return byID[string(source)], nil }
	return store.ApplyList(ctx, s, lease, list, parse, func() time.Time { return now }, settle)
}

func (e *env) readThread(r mirror.Resource, deleted bool) mirror.Thread {
	e.Helper()
	t, err := e.Thread(e.ctx(), r, deleted)
	e.must(fmt.Sprintf("Thread %q of room %q", r.ID, r.Room), err)
	t.Metadata = canonical(t.Metadata)
	return t
}

func (e *env) wantNoThread(r mirror.Resource, deleted bool) {
	e.Helper()
	_, err := e.Thread(e.ctx(), r, deleted)
	e.wantErr(fmt.Sprintf("Thread %q of room %q", r.ID, r.Room), err, store.ErrNotFound)
}

func (e *env) threads(f store.ThreadFilter) []string {
	e.Helper()
	if f.Project == "" {
		f.Project = project
	}
	if f.Limit == 0 {
		f.Limit = 1000
	}
	list, err := e.Threads(e.ctx(), f)
	e.must("Threads", err)
	var ids []string
	for _, t := range list {
		ids = append(ids, string(t.Room)+"/"+t.ID)
	}
	return ids
}

func (e *env) comments(f store.CommentFilter) []string {
	e.Helper()
	if f.Project == "" {
		f.Project = project
	}
	if f.Limit == 0 {
		f.Limit = 1000
	}
	list, err := e.Comments(e.ctx(), f)
	e.must("Comments", err)
	var ids []string
	for _, c := range list {
		ids = append(ids, string(c.Room)+"/"+c.Thread+"/"+c.ID)
	}
	return ids
}

// rows are the rows of an item by table, each by column.
type rows map[string][]map[string]any

// parts are the rows besides the head.
func (r rows) parts() rows {
	out := maps.Clone(r)
	delete(out, "mirror_thread")
	return out
}

// sorted gives the rows an order, as tables have none.
func (r rows) sorted() rows {
	key := func(row map[string]any) string { return fmt.Sprint(row["comment_id"], row) }
	for _, table := range r {
		slices.SortFunc(table, func(a, b map[string]any) int { return strings.Compare(key(a), key(b)) })
	}
	return r
}

// tables reads what the tables hold of an item, its JSON in canonical form.
func (e *env) tables(r mirror.Resource) rows {
	e.Helper()
	item, err := e.StoredItem(e.ctx(), r)
	e.must(fmt.Sprintf("StoredItem %s %q of room %q", r.Kind, r.ID, r.Room), err)
	out := make(rows)
	add := func(table store.ItemTable, values []any) map[string]any {
		row := make(map[string]any)
		for c, column := range table.Columns {
			row[column.Name] = values[c]
			if raw, ok := values[c].([]byte); ok && column.Type == store.ColumnJSON {
				row[column.Name] = canonical(raw)
			}
		}
		out[table.Name] = append(out[table.Name], row)
		return row
	}
	kind := store.ItemKindOf(r)
	add(kind.Head, item.Head)["content_sha256"] = item.SHA256
	for p, part := range kind.Parts {
		for _, row := range item.Parts[p] {
			add(part, row.Values)
		}
	}
	return out.sorted()
}

// storedOf is what the tables should hold of a thread that can all be stored.
func storedOf(t mirror.Thread) rows {
	out := make(rows)
	add := func(table string, row map[string]any) { out[table] = append(out[table], row) }
	add("mirror_thread", map[string]any{
		"content_sha256": t.SHA256, "source_json": t.Source, "create_time": t.CreateTime, "update_time": t.UpdateTime,
		"resolved": t.Resolved, "visibility": t.Visibility, "metadata": canonical(t.Metadata),
		"metadata_text": canonical(store.MetadataText(t.Metadata)), "comment_count": int64(store.CommentCount(t)),
		"data_problem": t.DataProblem, "terms_sha256": t.SHA256[:],
	})
	for _, term := range store.ThreadTerms(store.MetadataText(t.Metadata)) {
		add("mirror_thread_term", map[string]any{"term": term})
	}
	for _, c := range t.Comments {
		add("mirror_comment", map[string]any{
			"comment_id": c.ID, "user_id": c.UserID, "create_time": c.CreateTime, "edit_time": c.EditTime,
			"delete_time": c.DeleteTime, "source_json": c.Source, "body": canonical(c.Body), "plain_text": c.Text,
			"markdown": c.Markdown, "metadata": canonical(c.Metadata),
		})
		for _, r := range c.Reactions {
			add("mirror_comment_reaction", map[string]any{
				"comment_id": c.ID, "emoji": r.Emoji, "user_id": r.UserID, "create_time": r.CreateTime,
			})
		}
		for _, a := range c.Attachments {
			add("mirror_comment_attachment", map[string]any{
				"comment_id": c.ID, "attachment_id": a.ID, "name": strings.ReplaceAll(a.Name, "\x00", "\uFFFD"),
				"mime_type": a.MIMEType, "size": a.Size,
			})
		}
		mention := func(kind, id, via string) {
			add("mirror_comment_mention", map[string]any{
				"comment_id": c.ID, "kind": kind, "mentioned_id": id, "via_group": via,
			})
		}
		for _, m := range c.Mentions {
			mention(m.Kind, m.ID, "")
			for _, user := range m.UserIDs {
				mention("user", user, m.ID)
			}
		}
	}
	return out.sorted()
}

func newThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.wantNoThread(r, true)
	e.raise(r)
	lease := e.claim(r)
	t := threadIn("th_1", 1, fullComment("cm_2", 2), commentIn("cm_1", 1))
	t.Resolved, t.Visibility, t.Metadata = true, "private", []byte(`{"x":10,"color":"blue","open":true}`)
	fetchTime := e.now.Add(-time.Second)
	applied, err := e.ApplyItem(e.ctx(), lease, store.ThreadItem(t), fetchTime, e.now, settle)
	e.must("ApplyThread", err)
	e.want("ApplyThread", e.caughtUp(lease, applied), mirror.Applied{Changed: true, Due: e.now.Add(settle)})
	n := e.lastChange(r.Bucket())
	want := t
	want.Project, want.Room, want.Comments, want.Metadata = project, "room", nil, canonical(t.Metadata)
	want.Freshness = mirror.Freshness{FetchTime: fetchTime, SourceUpdateTime: lease.SourceTime, Revision: n}
	want.CommentCount = store.CommentCount(t)
	e.want("Thread", e.readThread(r, false), want)
	list, err := e.Threads(e.ctx(), store.ThreadFilter{Project: project, Limit: 10})
	e.must("Threads", err)
	if len(list) == 1 {
		list[0].Metadata = canonical(list[0].Metadata)
	}
	e.want("Threads", list, []mirror.Thread{want})
	entries := e.changes(r.Bucket())
	e.want("last change", entries[len(entries)-1], entry(n, r, mirror.ChangeUpserted, 1, e.now))

	var comments []mirror.Comment
	for _, c := range []mirror.Comment{t.Comments[1], t.Comments[0]} {
		comments = append(comments, mirror.Comment{
			Project: project, Room: "room", Thread: "th_1", ID: c.ID, UserID: "alice", Source: c.Source,
			CreateTime: c.CreateTime, EditTime: c.EditTime, Freshness: want.Freshness,
		})
	}
	got, err := e.Comments(e.ctx(), store.CommentFilter{Project: project, Limit: 10})
	e.must("Comments", err)
	e.want("Comments", got, comments)
	one, err := e.Comment(e.ctx(), r, "cm_2", false)
	e.must("Comment", err)
	e.want("Comment", one, comments[1])
	_, err = e.Comment(e.ctx(), r, "cm_3", true)
	e.wantErr("Comment that is not there", err, store.ErrNotFound)
	_, err = e.Comment(e.ctx(), threadOf("room", "th_2"), "cm_1", true)
	e.wantErr("Comment of another thread", err, store.ErrNotFound)
	e.raise(r)
	if !e.readThread(r, false).Freshness.Stale {
		e.Fatalf("Thread with an event = %+v; want it stale", e.readThread(r, false).Freshness)
	}
}

func unchangedThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r, t := threadOf("room", "th_1"), threadIn("th_1", 1, fullComment("cm_1", 1))
	e.mirrorThread("room", t)
	want, rows := e.readThread(r, false), e.tables(r)
	n := e.lastChange(r.Bucket())
	e.pass(time.Hour)
	t.Source = append([]byte(" "), t.Source...) // another spelling of the same, as a list has it
	e.want("ApplyThread", e.mirrorThread("room", t), mirror.Applied{})
	want.Freshness.FetchTime, want.Freshness.SourceUpdateTime = e.now, e.now.Add(-time.Millisecond)
	e.want("Thread", e.readThread(r, false), want)
	e.want("rows", e.tables(r), rows)
	if got := e.lastChange(r.Bucket()); got != n {
		e.Fatalf("last change = %d; want %d, for nothing changed", got, n)
	}
}

func changedThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.mirrorThread("room", threadIn("th_1", 1, fullComment("cm_1", 1), fullComment("cm_2", 2)))
	e.mirrorThread("room", threadIn("th_2", 1, fullComment("cm_1", 1)))
	other := e.tables(threadOf("room", "th_2"))
	before := e.readThread(r, false)
	edited := commentIn("cm_2", 2)
	edited.Text, edited.Markdown, edited.Body = "other words", "_other words_", []byte(`{"version":1,"content":[]}`)
	edited.Reactions = []mirror.Reaction{{Emoji: "👀", UserID: "bob"}}
	t := threadIn("th_1", 2, edited, commentIn("cm_3", 3))
	t.Resolved, t.Visibility, t.Metadata, t.UpdateTime = true, "", nil, time.Time{}
	e.want("ApplyThread", e.mirrorThread("room", t), mirror.Applied{Changed: true})
	after := e.readThread(r, false)
	if !bytes.Equal(after.Source, t.Source) || after.Freshness.Revision <= before.Freshness.Revision || !after.Resolved ||
		after.Visibility != "" || after.Metadata != nil || !after.UpdateTime.IsZero() {
		e.Fatalf("Thread = %+v; want the new one, its revision above %d", after, before.Freshness.Revision)
	}
	e.want("comments", e.tables(r).parts(), storedOf(t).parts())
	e.want("Comments", e.comments(store.CommentFilter{Thread: "th_1"}), []string{"room/th_1/cm_2", "room/th_1/cm_3"})
	e.want("another thread", e.tables(threadOf("room", "th_2")), other)
	t = threadIn("th_1", 3)
	e.mirrorThread("room", t)
	e.want("rows of a thread without comments", e.tables(r).parts(), storedOf(t).parts())
}

func deletedComment(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.mirrorThread("room", threadIn("th_1", 1, fullComment("cm_1", 1), commentIn("cm_2", 2)))
	gone := commentIn("cm_1", 1)
	gone.DeleteTime, gone.Body, gone.Text, gone.Markdown = born.Add(time.Hour), nil, "", ""
	t := threadIn("th_1", 2, gone, commentIn("cm_2", 2))
	e.mirrorThread("room", t)
	e.want("comments", e.tables(r).parts(), storedOf(t).parts())
	e.want("Comments", e.comments(store.CommentFilter{}), []string{"room/th_1/cm_2"})
	e.want("Comments, deleted too", e.comments(store.CommentFilter{Deleted: true}),
		[]string{"room/th_1/cm_1", "room/th_1/cm_2"})
	_, err := e.Comment(e.ctx(), r, "cm_1", false)
	e.wantErr("Comment that was deleted", err, store.ErrNotFound)
	c, err := e.Comment(e.ctx(), r, "cm_1", true)
	e.must("Comment, deleted or not", err)
	if !c.DeleteTime.Equal(gone.DeleteTime) || !c.Freshness.DeleteTime.IsZero() {
		e.Fatalf("Comment = %+v; want it deleted at %v, and its thread not", c, gone.DeleteTime)
	}
}

func threadSource(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	for what, source := range sources() {
		c := commentIn("cm_1", 1)
		c.Source = []byte(source)
		t := threadIn(what, 1, c)
		t.Source, t.SHA256 = []byte(source), sha256.Sum256([]byte(what))
		e.mirrorThread("room", t)
		r := threadOf("room", what)
		if got := e.readThread(r, false); string(got.Source) != source || got.SHA256 != t.SHA256 || got.DataProblem != "" {
			e.Fatalf("thread with %s = %.60q, %x, %q; want %.60q, %x", what, got.Source, got.SHA256, got.DataProblem, source,
				t.SHA256)
		}
		got, err := e.Comment(e.ctx(), r, "cm_1", false)
		e.must("Comment", err)
		if string(got.Source) != source {
			e.Fatalf("comment with %s = %.60q; want %.60q", what, got.Source, source)
		}
	}
}

// Nobody warns the engine of what is in the JSON of a thread. Whatever it cannot
// take, the source is stored, and the queue goes on.
func threadRefused(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	for what, bad := range sources() {
		r := threadOf("room", what)
		good := commentIn("cm_2", 2)
		c := fullComment("cm_1", 1)
		c.Body, c.Metadata, c.Text, c.Markdown = []byte(bad), []byte(bad), bad, bad
		t := threadIn(what, 1, c, good)
		t.Metadata = []byte(bad)
		e.mirrorThread("room", t)
		if got := e.readThread(r, false); !bytes.Equal(got.Source, t.Source) {
			e.Fatalf("thread with %s = %.60q; want its source", what, got.Source)
		}
		got := e.tables(r)
		if comments := got["mirror_comment"]; len(comments) != 2 || len(got["mirror_comment_reaction"]) != 3 ||
			len(got["mirror_comment_mention"]) != 6 || comments[1]["plain_text"] != good.Text {
			e.Fatalf("rows of a thread with %s = %+v; want both comments, with what can be stored", what, got)
		}
		e.wantState(r, mirror.TaskDone)
		if applied := e.mirrorThread("room", t); applied.Changed {
			e.Fatalf("ApplyThread with %s again = %+v; want no change", what, applied)
		}
		e.mirrorThread("room", threadIn(what, 2, good))
		if got := e.readThread(r, false); got.DataProblem != "" || string(got.Metadata) != `{"n":2}` {
			e.Fatalf("Thread = %+v; want its metadata, and no problem once it can be had", got)
		}
	}
	for what, alter := range map[string]func(t *mirror.Thread, bad []byte){
		"metadata of a thread":  func(t *mirror.Thread, bad []byte) { t.Metadata = bad },
		"metadata of a comment": func(t *mirror.Thread, bad []byte) { t.Comments[0].Metadata = bad },
		"body of a comment":     func(t *mirror.Thread, bad []byte) { t.Comments[0].Body = bad },
	} {
		for _, bad := range []string{`secret-word`, `{"a":1e200000,"secret-word":1`} {
			t := threadIn("th_1", 1, fullComment("cm_1", 1))
			alter(&t, []byte(bad))
			t.SHA256 = sha256.Sum256([]byte(what + bad))
			e.mirrorThread("room", t)
			if got := e.readThread(threadOf("room", "th_1"), false).DataProblem; got == "" ||
				strings.Contains(got, "secret-word") {
				e.Fatalf("DataProblem with %s in the %s = %q; want a reason that does not quote it", bad, what, got)
			}
		}
	}
	// What does not fit spoils no other row.
	c := fullComment("cm_1", 1)
	c.Body = []byte(`{"a":`)
	t := threadIn("th_1", 3, c, commentIn("cm_2", 2))
	t.DataProblem = "told by the decoder"
	e.mirrorThread("room", t)
	got := e.readThread(threadOf("room", "th_1"), false)
	if string(got.Metadata) != `{"n":3}` || !strings.HasPrefix(got.DataProblem, "told by the decoder; ") {
		e.Fatalf("Thread = %+v; want its metadata, and both problems told", got)
	}
	t.Comments[0].Body, t.Comments[0].Metadata = nil, nil
	e.want("comments", e.tables(threadOf("room", "th_1")).parts(), storedOf(t).parts())
}

// Whatever an engine makes of the odd row, the others keep their JSON: fetched one
// by one and listed together.
func threadRefusedAlone(e *env) {
	for what, bad := range sources() {
		room := mirror.RoomID(what)
		e.mirrorRoom(room, e.roomContent(`{}`))
		odd, plain := commentIn("cm_1", 1), commentIn("cm_2", 2)
		odd.Body = []byte(bad)
		oddThread := threadIn("th_2", 2, commentIn("cm_1", 1))
		oddThread.Metadata = []byte(bad)
		threads := []mirror.Thread{threadIn("th_1", 1, odd, plain), oddThread, threadIn("th_3", 3, plain)}
		check := func(how string) {
			e.Helper()
			for _, t := range threads {
				stored := e.tables(threadOf(room, t.ID))
				want := storedOf(t)
				if t.ID != "th_2" {
					e.want(fmt.Sprintf("metadata of %s, %s with %s", t.ID, how, what), stored["mirror_thread"][0]["metadata"],
						want["mirror_thread"][0]["metadata"])
				}
				for i, c := range stored["mirror_comment"] {
					if t.ID != "th_1" || c["comment_id"] != "cm_1" {
						e.want(fmt.Sprintf("body of %v in %s, %s with %s", c["comment_id"], t.ID, how, what), c["body"],
							want["mirror_comment"][i]["body"])
					}
				}
			}
		}
		e.want("ApplyThreads", e.listThreads(room, threads...), added(room, "th_1", "th_2", "th_3"))
		check("listed")
		for i := range threads {
			threads[i].SHA256[0]++
			e.mirrorThread(room, threads[i])
		}
		check("fetched")
	}
}

func threadUndated(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	undated := commentIn("cm_1", 1)
	undated.CreateTime = time.Time{}
	t := threadIn("th_2", 1, undated, commentIn("cm_2", 2))
	t.CreateTime, t.UpdateTime = time.Time{}, time.Time{}
	e.mirrorThread("room", t)
	e.want("Comments", e.comments(store.CommentFilter{Thread: "th_2"}), []string{"room/th_2/cm_1", "room/th_2/cm_2"})
}

func longThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	var comments []mirror.Comment
	for i := range 500 {
		c := fullComment(fmt.Sprintf("cm_%03d", i), i)
		c.Text = strings.Repeat("long ", 400)
		comments = append(comments, c)
	}
	t := threadIn("th_1", 1, comments...)
	e.want("ApplyThread", e.mirrorThread("room", t), mirror.Applied{Changed: true})
	e.want("comments", e.tables(threadOf("room", "th_1")).parts(), storedOf(t).parts())
	t = threadIn("th_1", 2, comments[:499]...)
	e.mirrorThread("room", t)
	if n := len(e.comments(store.CommentFilter{Thread: "th_1"})); n != 499 {
		e.Fatalf("comments = %d; want 499", n)
	}
}

func threadFences(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.mirrorThread("room", threadIn("th_1", 1, commentIn("cm_1", 1)))
	e.raise(r)
	lease := e.claim(r)
	refused := func(what string, want error) {
		e.Helper()
		before, task := e.changes(r.Bucket()), e.task(r)
		_, err := e.ApplyItem(e.ctx(), lease, store.ThreadItem(threadIn("th_1", 9)), e.now, e.now, settle)
		e.wantErr("ApplyThread "+what, err, want)
		e.want("changes", e.changes(r.Bucket()), before)
		e.want("task", e.task(r), task)
	}
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	refused("of another incarnation", store.ErrEpochChanged)
	e.wantNoThread(r, true)
	e.want("Comments", e.comments(store.CommentFilter{Deleted: true}), []string(nil))
	e.fail(lease, store.Failure{Now: e.now, Uncounted: true})
	// The same bytes again are news in another epoch.
	if applied := e.applyThread(e.claim(r), threadIn("th_1", 1, commentIn("cm_1", 1))); !applied.Changed {
		e.Fatalf("ApplyThread in a new epoch = %+v; want a change", applied)
	}
	e.readThread(r, false)
	refused("under a lease given back", store.ErrLeaseLost)
	e.raise(r)
	lease = e.claim(r)
	e.deleteRoom("room")
	refused("in a tombstone", store.ErrEpochChanged)
	e.wantNoThread(r, false)

	e.raise(threadOf("nowhere", "th_1"))
	lease = e.claim(threadOf("nowhere", "th_1"))
	_, err := e.ApplyItem(e.ctx(), lease, store.ThreadItem(threadIn("th_1", 1)), e.now, e.now, 0)
	e.wantErr("ApplyThread in a room that is not mirrored", err, store.ErrEpochChanged)
	e.want("Park", e.park(lease), mirror.Applied{AlsoDue: []mirror.Resource{roomOf("nowhere")}})
}

func missingThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.mirrorThread("room", threadIn("th_1", 1, commentIn("cm_1", 1)))
	want, changes := e.readThread(r, false), e.changes(r.Bucket())
	want.Freshness.MissingSince = e.now.Add(time.Minute)
	for range 3 {
		e.pass(time.Minute)
		e.raise(r)
		e.want("ApplyThreadMissing", e.missThread(r), mirror.Applied{})
		e.want("Thread", e.readThread(r, false), want)
		e.want("changes", e.changes(r.Bucket()), changes)
		e.wantState(r, mirror.TaskDone)
	}
	e.want("Comments", e.comments(store.CommentFilter{}), []string{"room/th_1/cm_1"})
	e.raise(r)
	applied, err := e.ApplyItemMissing(e.ctx(), e.claim(r), e.now, settle)
	e.must("ApplyThreadMissing", err)
	e.want("ApplyThreadMissing with a settle fetch to come", applied, mirror.Applied{Due: e.now.Add(settle)})
}

func deletedThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.mirrorThread("room", threadIn("th_1", 1, commentIn("cm_1", 1)))
	e.mirrorThread("room", threadIn("th_2", 1, commentIn("cm_1", 1)))
	want := e.readThread(r, false)
	e.pass(time.Minute)
	e.want("ApplyThreadMissing", e.deleteThread(r), mirror.Applied{Changed: true})
	e.wantNoThread(r, false)
	_, err := e.Comment(e.ctx(), r, "cm_1", false)
	e.wantErr("Comment of a deleted thread", err, store.ErrNotFound)
	e.want("Threads", e.threads(store.ThreadFilter{}), []string{"room/th_2"})
	e.want("Comments", e.comments(store.CommentFilter{}), []string{"room/th_2/cm_1"})
	n := e.lastChange(r.Bucket())
	want.Freshness.DeleteTime, want.Freshness.Revision = e.now, n
	e.want("Thread, deleted or not", e.readThread(r, true), want)
	e.want("Threads, deleted too", e.threads(store.ThreadFilter{Deleted: true}), []string{"room/th_1", "room/th_2"})
	e.want("Comments, deleted too", e.comments(store.CommentFilter{Deleted: true}),
		[]string{"room/th_1/cm_1", "room/th_2/cm_1"})
	c, err := e.Comment(e.ctx(), r, "cm_1", true)
	e.must("Comment, deleted or not", err)
	if !c.Freshness.DeleteTime.Equal(e.now) || !c.DeleteTime.IsZero() {
		e.Fatalf("Comment = %+v; want its thread deleted, and itself not", c)
	}
	entries := e.changes(r.Bucket())
	e.want("last change", entries[len(entries)-1], entry(n, r, mirror.ChangeDeleted, 1, e.now))
	e.wantState(r, mirror.TaskDone)
	// Again, with and without an event.
	e.pass(time.Minute)
	e.raise(r)
	e.want("ApplyThreadMissing of a tombstone", e.missThread(r), mirror.Applied{})
	e.want("ApplyThreadMissing of a tombstone, with an event", e.deleteThread(r), mirror.Applied{})
	e.want("Thread, deleted or not", e.readThread(r, true), want)
	e.want("changes", e.changes(r.Bucket()), entries)
}

func deletedUnknownThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	changes := e.changes(r.Bucket())
	e.want("ApplyThreadMissing", e.deleteThread(r), mirror.Applied{})
	e.wantNoThread(r, true)
	e.raise(r) // threadCreated, late
	e.want("ApplyThreadMissing", e.missThread(r), mirror.Applied{})
	e.wantNoThread(r, true)
	e.want("changes", e.changes(r.Bucket()), changes)
	e.want("ApplyThreads of none", e.listThreads("room"), mirror.Applied{})
	e.wantState(r, mirror.TaskDone)
}

func contradictedThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r, t := threadOf("room", "th_1"), threadIn("th_1", 1)
	e.mirrorThread("room", t)
	e.accept(e.delivery(mirror.Invalidation{Resource: r, Deleted: true}))
	e.applyThread(e.claim(r), t)
	e.raise(r)
	e.want("ApplyThreadMissing", e.missThread(r), mirror.Applied{})
	if e.readThread(r, false).Freshness.MissingSince.IsZero() {
		e.Fatalf("the thread is not missing; want it so, and not deleted")
	}
	// An event during the fetch is not contradicted by it.
	e.raise(r)
	lease := e.claim(r)
	e.accept(e.delivery(mirror.Invalidation{Resource: r, Deleted: true}))
	e.applyThread(lease, t)
	if applied := e.missThread(r); !applied.Changed {
		e.Fatalf("ApplyThreadMissing = %+v; want a tombstone", applied)
	}
}

func revivedThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r, t := threadOf("room", "th_1"), threadIn("th_1", 1, fullComment("cm_1", 1))
	e.mirrorThread("room", t)
	e.deleteThread(r)
	buried := e.readThread(r, true)
	e.pass(time.Hour)
	e.want("ApplyThread of the same", e.mirrorThread("room", t), mirror.Applied{Changed: true})
	got := e.readThread(r, false)
	if !got.Freshness.DeleteTime.IsZero() || got.Freshness.Revision <= buried.Freshness.Revision {
		e.Fatalf("Thread = %+v; want it alive, its revision above %d", got, buried.Freshness.Revision)
	}
	e.want("comments", e.tables(r).parts(), storedOf(t).parts())
	// The delete event of then says nothing about now.
	e.raise(r)
	e.missThread(r)
	e.readThread(r, false)
}

func missingThreadBack(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r, t := threadOf("room", "th_1"), threadIn("th_1", 1)
	e.mirrorThread("room", t)
	e.raise(r)
	e.missThread(r)
	e.want("ApplyThread", e.mirrorThread("room", t), mirror.Applied{})
	if f := e.readThread(r, false).Freshness; !f.MissingSince.IsZero() {
		e.Fatalf("Freshness = %+v; want it no longer missing", f)
	}
}

func missingThreadFences(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.mirrorThread("room", threadIn("th_1", 1))
	e.accept(e.delivery(mirror.Invalidation{Resource: r, Deleted: true}))
	lease := e.claim(r)
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	task := e.task(r)
	_, err := e.ApplyItemMissing(e.ctx(), lease, e.now, settle)
	e.wantErr("ApplyThreadMissing of another incarnation", err, store.ErrEpochChanged)
	e.want("task", e.task(r), task)
	lease.Token = newToken()
	_, err = e.ApplyItemMissing(e.ctx(), lease, e.now, settle)
	e.wantErr("ApplyThreadMissing under another token", err, store.ErrLeaseLost)
	e.want("task", e.task(r), task)
	// What is stored of an earlier epoch is not deleted: it is not there.
	changes := e.changes(r.Bucket())
	e.now = e.task(r).LeaseUntil
	e.want("ApplyThreadMissing", e.missThread(r), mirror.Applied{})
	e.want("changes", e.changes(r.Bucket()), changes)
}

func listUnknown(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	a, b := threadIn("th_a", 1, fullComment("cm_1", 1), commentIn("cm_2", 2)), threadIn("th_b", 1, fullComment("cm_1", 1))
	first := e.lastChange(roomOf("room").Bucket())
	e.want("ApplyThreads", e.listThreads("room", b, a), added("room", "th_a", "th_b"))
	for i, t := range []mirror.Thread{a, b} {
		r := threadOf("room", t.ID)
		want := t
		want.Project, want.Room, want.Comments, want.CommentCount = project, "room", nil, store.CommentCount(t)
		want.Freshness = mirror.Freshness{FetchTime: e.now, Revision: first + int64(i) + 1}
		e.want("Thread", e.readThread(r, false), want)
		e.want("rows", e.tables(r), storedOf(t))
		e.want("task", e.task(r), mirror.Task{
			Resource: r, State: mirror.TaskDone, Generation: 1, Applied: 1,
			FetchTime: e.now,
		})
	}
	e.want("changes", e.changes(roomOf("room").Bucket())[first:], []mirror.Change{
		entry(first+1, threadOf("room", "th_a"), mirror.ChangeUpserted, 1, e.now),
		entry(first+2, threadOf("room", "th_b"), mirror.ChangeUpserted, 1, e.now),
	})
	e.wantState(threadOf("room", ""), mirror.TaskDone)
	e.wantNoThread(threadOf("room", ""), true)
	// And from then on they are threads like any other.
	e.want("ApplyThread", e.mirrorThread("room", a), mirror.Applied{})
	e.want("ApplyThread", e.mirrorThread("room", threadIn("th_a", 2)), mirror.Applied{Changed: true})
	var many []mirror.Thread
	var ids []string
	for i := range 300 {
		ids = append(ids, fmt.Sprintf("th_%03d", i))
		many = append(many, threadIn(ids[i], 1, fullComment("cm_1", 1), commentIn("cm_2", 2)))
	}
	e.mirrorRoom("large", e.roomContent(`{}`))
	e.want("ApplyThreads of 300", e.listThreads("large", many...), added("large", ids...))
	if n, m := len(e.threads(store.ThreadFilter{Room: "large"})),
		len(e.comments(store.CommentFilter{Room: "large"})); n != 300 || m != 600 {
		e.Fatalf("%d threads and %d comments; want 300 and 600", n, m)
	}
}

func listKnown(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	a, b := threadIn("th_a", 1, commentIn("cm_1", 1)), threadIn("th_b", 1)
	e.mirrorThread("room", a)
	e.listThreads("room", a, b)
	tasks := []mirror.Task{e.task(threadOf("room", "th_a")), e.task(threadOf("room", "th_b"))}
	changes := e.changes(roomOf("room").Bucket())
	e.pass(time.Hour)
	e.want("ApplyThreads of the same", e.listThreads("room", a, b), mirror.Applied{})
	e.want("tasks", []mirror.Task{e.task(threadOf("room", "th_a")), e.task(threadOf("room", "th_b"))}, tasks)
	e.want("changes", e.changes(roomOf("room").Bucket()), changes)
	if f := e.task(threadOf("room", "")).FetchTime; !f.Equal(e.now) {
		e.Fatalf("fetch time of the list = %v; want %v", f, e.now)
	}
}

func listDiffering(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	var same, differs, buried, lost, unfetched, leased, backing mirror.Thread
	for id, t := range map[string]*mirror.Thread{
		"same": &same, "differs": &differs, "buried": &buried, "lost": &lost,
		"leased": &leased, "backing": &backing,
	} {
		*t = threadIn(id, 1)
		e.mirrorThread("room", *t)
	}
	unfetched = threadIn("unfetched", 1)
	r := func(t mirror.Thread) mirror.Resource { return threadOf("room", t.ID) }
	e.deleteThread(r(buried))
	e.raise(r(lost))
	e.missThread(r(lost))
	e.raise(r(unfetched), r(leased), r(backing))
	lease := e.claim(r(leased))
	e.fail(e.claim(r(backing)), e.failure())
	task, until := e.task(r(same)), e.now.Add(time.Minute)
	changes := e.changes(roomOf("room").Bucket())

	e.pass(time.Second)
	applied := e.listThreads("room", same, threadIn("differs", 2), buried, lost, unfetched, threadIn("leased", 2),
		threadIn("backing", 2))
	var woken []mirror.Resource
	for _, id := range []string{"backing", "buried", "differs", "leased", "lost", "unfetched"} {
		woken = append(woken, threadOf("room", id))
	}
	e.want("ApplyThreads", applied, mirror.Applied{AlsoDue: woken})
	e.want("task of a thread that is the same", e.task(r(same)), task)
	for _, t := range []mirror.Thread{differs, buried, lost} {
		if task := e.task(r(t)); task.State != mirror.TaskPending || !task.DueTime.Equal(e.now) ||
			task.Generation != task.Applied+1 {
			e.Fatalf("task of thread %q = %+v; want it raised", t.ID, task)
		}
	}
	if got := e.task(r(backing)); !got.DueTime.Equal(until) || got.Attempts != 1 {
		e.Fatalf("task of a thread that backs off = %+v; want it due at %v still", got, until)
	}
	e.want("changes", e.changes(roomOf("room").Bucket()), changes)
	if got := e.readThread(r(differs), false); !bytes.Equal(got.Source, differs.Source) {
		e.Fatalf("Thread = %s; want what its own fetch told", got.Source)
	}
	if applied := e.applyThread(lease, leased); !applied.Due.Equal(e.now) {
		e.Fatalf("ApplyThread fetched before the list = %+v; want another fetch", applied)
	}
	e.want("ApplyThread", e.applyThread(e.claim(r(lost)), lost), mirror.Applied{})
	e.want("ApplyThread", e.applyThread(e.claim(r(buried)), buried), mirror.Applied{Changed: true})
	e.want("ApplyThread", e.applyThread(e.claim(r(differs)), threadIn("differs", 2)), mirror.Applied{Changed: true})
}

func listLacking(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	gone, alive, buried := threadIn("gone", 1), threadIn("alive", 1), threadIn("buried", 1)
	for _, t := range []mirror.Thread{gone, alive, buried} {
		e.mirrorThread("room", t)
	}
	e.deleteThread(threadOf("room", "buried"))
	e.raise(threadOf("room", "never there"))
	e.missThread(threadOf("room", "never there"))
	applied := e.listThreads("room")
	e.want("ApplyThreads", applied,
		mirror.Applied{AlsoDue: []mirror.Resource{threadOf("room", "alive"), threadOf("room", "gone")}})
	e.readThread(threadOf("room", "gone"), false) // nothing is deleted yet
	if applied := e.missThread(threadOf("room", "gone")); !applied.Changed {
		e.Fatalf("ApplyThreadMissing of what the list lacked = %+v; want a tombstone", applied)
	}
	e.wantNoThread(threadOf("room", "gone"), false)
	// Its own fetch contradicts the list, which says no more then.
	e.want("ApplyThread", e.applyThread(e.claim(threadOf("room", "alive")), alive), mirror.Applied{})
	e.raise(threadOf("room", "alive"))
	e.want("ApplyThreadMissing", e.missThread(threadOf("room", "alive")), mirror.Applied{})
	e.readThread(threadOf("room", "alive"), false)
}

func listBackground(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	for _, child := range childrenOf("room") {
		e.fetch(child)
	}
	e.mirrorThread("room", threadIn("idle", 1))
	e.mirrorThread("room", threadIn("wanted", 1))
	e.raise(threadOf("room", "wanted"))
	e.request(mirror.Request{Resource: threadOf("room", ""), Background: true})
	lease := e.claim(threadOf("room", ""))
	_, err := applyThreads(e.ctx(), e.Store, lease, e.now,
		[]mirror.Thread{threadIn("idle", 2), threadIn("wanted", 2)}, e.now, 0)
	e.must("ApplyThreads", err)
	e.want("Due", e.dueList(10), dueList{
		Resources: []mirror.Resource{threadOf("room", "wanted")}, Background: []mirror.Resource{threadOf("room", "idle")},
	})
}

func listOdd(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	bad := threadIn("bad", 1, fullComment("cm_1", 1))
	bad.Metadata = []byte(`{"a":`)
	e.want("ApplyThreads", e.listThreads("room", bad, threadIn("good", 1), threadIn("good", 2)),
		added("room", "bad", "good"))
	e.want("Threads", e.threads(store.ThreadFilter{}), []string{"room/bad", "room/good"})
	if got := e.readThread(threadOf("room", "bad"), false); got.DataProblem == "" || got.Metadata != nil {
		e.Fatalf("Thread = %+v; want no metadata, and why", got)
	}
	if got := e.readThread(threadOf("room", "good"), false); got.DataProblem != "" || string(got.Metadata) != `{"n":2}` {
		e.Fatalf("Thread = %+v; want the one listed last", got)
	}
	// Whatever an engine refuses, each of them arrives in the end.
	for what, source := range sources() {
		id := mirror.RoomID(what)
		e.mirrorRoom(id, e.roomContent(`{}`))
		odd := threadIn("odd", 1, commentIn("cm_1", 1))
		odd.Comments[0].Body = []byte(source)
		list := []mirror.Thread{odd, threadIn("plain", 1)}
		e.listThreads(id, list...)
		for _, t := range list {
			r := threadOf(id, t.ID)
			if task := e.task(r); task.State == mirror.TaskPending {
				e.applyThread(e.claim(r), t)
			}
			if got := e.readThread(r, false); !bytes.Equal(got.Source, t.Source) || t.ID == "plain" && got.DataProblem != "" {
				e.Fatalf("thread %q of a list with %s = %+v; want it as listed", t.ID, what, got)
			}
		}
		e.want("ApplyThreads with "+what+" again", e.listThreads(id, list...), mirror.Applied{})
	}
}

func listFences(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorThread("room", threadIn("known", 1))
	r := threadOf("room", "")
	e.raise(r)
	lease := e.claim(r)
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	list := []mirror.Thread{threadIn("new", 1), threadIn("known", 2)}
	refused := func(lease mirror.Lease, want error) {
		e.Helper()
		tasks, changes := e.taskKeys(store.TaskFilter{}), e.changes(r.Bucket())
		task := e.task(threadOf("room", "known"))
		_, err := applyThreads(e.ctx(), e.Store, lease, e.now, list, e.now, settle)
		e.wantErr("ApplyThreads", err, want)
		e.want("tasks", e.taskKeys(store.TaskFilter{}), tasks)
		e.want("task", e.task(threadOf("room", "known")), task)
		e.want("changes", e.changes(r.Bucket()), changes)
		_, err = e.Task(e.ctx(), threadOf("room", "new"), e.now)
		e.wantErr("Task", err, store.ErrNotFound)
	}
	refused(lease, store.ErrEpochChanged)
	stranger := lease
	stranger.Token = newToken()
	refused(stranger, store.ErrLeaseLost)
	stranger.Token = [16]byte{}
	refused(stranger, store.ErrLeaseLost)
	e.fail(lease, store.Failure{Now: e.now, Uncounted: true})
	refused(stranger, store.ErrLeaseLost)
	refused(mirror.Lease{Resource: threadOf("nowhere", ""), Token: newToken()}, store.ErrLeaseLost)
	lease = e.claim(r)
	e.deleteRoom("room")
	refused(lease, store.ErrEpochChanged)
	e.fail(lease, store.Failure{Now: e.now, Uncounted: true})
	// A copy of an earlier epoch is neither stored nor listed.
	e.mirrorRoom("room", e.roomContent(`{}`))
	applied, err := applyThreads(e.ctx(), e.Store, e.claim(r), e.now, nil, e.now, 0)
	e.must("ApplyThreads", err)
	e.want("ApplyThreads of none", applied, mirror.Applied{})
	e.want("ApplyThreads of one from before", e.listThreads("room", threadIn("known", 1)),
		mirror.Applied{AlsoDue: []mirror.Resource{threadOf("room", "known")}})
}

func listSettles(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "")
	e.raise(r)
	first := e.fetch(r)
	e.want("ApplyThreads", first, mirror.Applied{Due: e.now.Add(settle)})
	e.pass(settle)
	lease := e.claim(r)
	e.raise(r)
	applied, err := applyThreads(e.ctx(), e.Store, lease, e.now, nil, e.now, settle)
	e.must("ApplyThreads", err)
	e.want("ApplyThreads with news", applied, mirror.Applied{Due: e.now})
}

// manyThreads are threads of two rooms, in order.
func (e *env) manyThreads() []mirror.Thread {
	e.Helper()
	var all []mirror.Thread
	for _, room := range []mirror.RoomID{"a", "b"} {
		e.mirrorRoom(room, e.roomContent(`{}`))
		var list []mirror.Thread
		for i, id := range []string{"T", "t1", "t2", "t3"} {
			one, two := commentIn("cm_1", i), commentIn("cm_2", i)
			two.UserID = []string{"bob", "Bob", "carol", ""}[i]
			if i%2 == 0 {
				two.Mentions = []mirror.Mention{
					{Kind: "user", ID: "dave"},
					{Kind: "group", ID: "design", UserIDs: []string{"erin"}},
				}
			}
			if i == 3 {
				two.DeleteTime, two.UserID = born.Add(time.Hour), "frank"
			}
			t := threadIn(id, i, one, two)
			t.Resolved = i == 1
			list = append(list, t)
		}
		e.listThreads(room, list...)
		for _, t := range list {
			t.Room = room
			all = append(all, t)
		}
	}
	return all
}

func threadsFiltered(e *env) {
	all := e.manyThreads()
	yes, no := true, false
	by := func(user string, deleted bool) func(t mirror.Thread) bool {
		return func(t mirror.Thread) bool {
			return slices.ContainsFunc(t.Comments, func(c mirror.Comment) bool {
				return c.UserID == user &&
					(deleted || c.DeleteTime.IsZero())
			})
		}
	}
	mentions := func(t mirror.Thread) bool { return len(t.Comments[1].Mentions) > 0 }
	for what, c := range map[string]struct {
		filter store.ThreadFilter
		keep   func(t mirror.Thread) bool
	}{
		"nothing":              {store.ThreadFilter{}, func(mirror.Thread) bool { return true }},
		"room":                 {store.ThreadFilter{Room: "a"}, func(t mirror.Thread) bool { return t.Room == "a" }},
		"another room":         {store.ThreadFilter{Room: "A"}, func(mirror.Thread) bool { return false }},
		"resolved":             {store.ThreadFilter{Resolved: &yes}, func(t mirror.Thread) bool { return t.Resolved }},
		"not resolved":         {store.ThreadFilter{Resolved: &no}, func(t mirror.Thread) bool { return !t.Resolved }},
		"author":               {store.ThreadFilter{Author: "bob"}, by("bob", false)},
		"author of all":        {store.ThreadFilter{Author: "alice"}, by("alice", false)},
		"author, deleted":      {store.ThreadFilter{Author: "frank"}, by("frank", false)},
		"author, deleted too":  {store.ThreadFilter{Author: "frank", Deleted: true}, by("frank", true)},
		"mentioned":            {store.ThreadFilter{Mentioned: "dave"}, mentions},
		"mentioned in a group": {store.ThreadFilter{Mentioned: "erin"}, mentions},
		"mentioned group":      {store.ThreadFilter{Mentioned: "design"}, func(mirror.Thread) bool { return false }},
		"updated since": {
			store.ThreadFilter{UpdatedSince: born.Add(2 * time.Second)},
			func(t mirror.Thread) bool { return !t.UpdateTime.Before(born.Add(2 * time.Second)) },
		},
		"all of them": {
			store.ThreadFilter{
				Room: "b", Resolved: &no, Author: "carol", Mentioned: "dave", UpdatedSince: born,
				Metadata: map[string]string{"n": "2"},
			},
			func(t mirror.Thread) bool { return t.Room == "b" && t.ID == "t2" },
		},
	} {
		var want []string
		for _, t := range all {
			if c.keep(t) {
				want = append(want, string(t.Room)+"/"+t.ID)
			}
		}
		e.want("Threads by "+what, e.threads(c.filter), want)
		c.filter.Limit = 1
		e.want("Threads by "+what+", at most one", e.threads(c.filter), want[:min(1, len(want))])
	}
	// A thread that was never updated counts from its creation.
	t := threadIn("fresh", 1)
	t.UpdateTime, t.CreateTime = time.Time{}, born.Add(time.Hour)
	e.mirrorThread("a", t)
	e.want("Threads updated since", e.threads(store.ThreadFilter{UpdatedSince: born.Add(time.Hour)}), []string{"a/fresh"})
}

func threadsByMetadata(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	for id, metadata := range map[string]string{
		"number": `{"n":10}`, "string": `{"n":"10"}`, "other": `{"n":1e1}`, "true": `{"b":true,"n":11}`,
		"text true": `{"b":"true"}`,
		"odd":       `{"ключ \"'\\":"% _ \\ ' \" ü","":"","a.b":"c"}`, "none": ``, "null": `{"x":null}`,
		"fraction": `{"f":-0.5}`,
		"case":     `{"B":"TRUE"}`,
	} {
		t := threadIn(id, 1)
		t.Metadata = []byte(metadata)
		e.mirrorThread("room", t)
	}
	for _, c := range []struct {
		metadata map[string]string
		want     []string
	}{
		{map[string]string{"n": "10"}, []string{"number", "string"}},
		{map[string]string{"n": "1e1"}, []string{"other"}},
		{map[string]string{"b": "true"}, []string{"text true", "true"}},
		{map[string]string{"b": "true", "n": "11"}, []string{"true"}},
		{map[string]string{"b": "true", "n": "10"}, nil},
		{map[string]string{"b": "TRUE"}, nil},
		{map[string]string{"B": "TRUE"}, []string{"case"}},
		{map[string]string{`ключ "'\`: `% _ \ ' " ü`}, []string{"odd"}},
		{map[string]string{"": ""}, []string{"odd"}},
		{map[string]string{"a.b": "c"}, []string{"odd"}},
		{map[string]string{"f": "-0.5"}, []string{"fraction"}},
		{map[string]string{"n": "\x00"}, nil},
		{map[string]string{"n": "\xff"}, nil},
		{map[string]string{"n": "\ufffd"}, nil},
	} {
		var want []string
		for _, id := range c.want {
			want = append(want, "room/"+id)
		}
		e.want(fmt.Sprintf("Threads with metadata %q", c.metadata), e.threads(store.ThreadFilter{Metadata: c.metadata}), want)
	}
	if n := len(e.threads(store.ThreadFilter{Metadata: map[string]string{}})); n != 10 {
		e.Fatalf("Threads with no metadata wanted = %d; want all 10", n)
	}
}

// threadsByMetadataFollow changes a thread in every way.
func threadsByMetadataFollow(e *env) {
	by := func(value string, deleted bool) []string {
		e.Helper()
		return e.threads(store.ThreadFilter{Metadata: map[string]string{"n": value, "same": "x"}, Deleted: deleted})
	}
	write := func(id string, version int, n string) {
		e.Helper()
		t := threadIn(id, version)
		t.Metadata = fmt.Appendf(nil, `{"n":%q,"same":"x"}`, n)
		e.mirrorThread("room", t)
	}
	indexed := func(want int) {
		e.Helper()
		if _, n, err := e.IndexThreads(e.ctx(), project, store.IndexPlace{}, 100); n != want || err != nil {
			e.Fatalf("IndexThreads = %d, %v; want %d", n, err, want)
		}
	}
	e.mirrorRoom("room", e.roomContent(`{}`))
	write("other", 1, "1")
	write("th", 1, "1")
	e.want("threads by the value", by("1", false), []string{"room/other", "room/th"})
	write("th", 2, "2")
	e.want("threads by the old value", by("1", false), []string{"room/other"})
	e.want("threads by the new value", by("2", false), []string{"room/th"})
	indexed(0)
	e.must("Invalidate", e.Invalidate(e.ctx(), threadOf("room", "th")))
	e.want("threads that are to be written again", by("2", false), []string{"room/th"})
	indexed(1)
	indexed(0)
	e.want("threads that were indexed", by("2", false), []string{"room/th"})
	write("th", 2, "2")
	e.want("threads that were written again", by("2", false), []string{"room/th"})
	e.deleteThread(threadOf("room", "th"))
	e.want("deleted threads", by("2", false), []string(nil))
	e.want("threads, deleted too", by("2", true), []string{"room/th"})
	write("th", 3, "1")
	e.want("threads that are back", by("1", false), []string{"room/other", "room/th"})
	e.deleteRoom("room")
	e.want("threads of a deleted room", by("1", false), []string(nil))
	e.want("threads, also of a deleted room", by("1", true), []string{"room/other", "room/th"})
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	e.want("threads of a room that was created anew", by("1", true), []string(nil))
	write("th", 3, "2")
	e.want("threads of the room before", by("1", true), []string(nil))
	e.want("threads of the room now", by("2", false), []string{"room/th"})
	for n := 1; n > 0; {
		var err error
		n, err = e.CleanRoom(e.ctx(), roomOf("room"), 1)
		e.must("CleanRoom", err)
	}
	indexed(0)
	e.want("threads after a clean-up", by("2", true), []string{"room/th"})
}

// threadsByMetadataPages compares pages with a plain filter over what was mirrored.
func threadsByMetadataPages(e *env) {
	type fixture struct {
		mirror.Thread

		metadata map[string]string
		deleted  bool
	}
	names := map[string]int{"rare": 60, "half": 2, "some": 8}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var all []fixture
	for _, room := range []mirror.RoomID{"a", "a ", "b", "b-1"} {
		e.mirrorRoom(room, e.roomContent(`{}`))
		var list []mirror.Thread
		for i := range 50 {
			f := fixture{Thread: threadIn(fmt.Sprintf("%02d", i), r.IntN(20)), metadata: map[string]string{}}
			for name, values := range names {
				f.metadata[name] = fmt.Sprint(r.IntN(values))
			}
			var err error
			f.Metadata, err = json.Marshal(f.metadata)
			e.must("Marshal", err)
			f.Room, f.Resolved, f.deleted = room, r.IntN(10) == 0, r.IntN(20) == 0
			list, all = append(list, f.Thread), append(all, f)
		}
		e.listThreads(room, list...)
	}
	for _, f := range all {
		if f.deleted {
			e.deleteThread(threadOf(f.Room, f.ID))
		}
	}
	found := 0
	for range 150 {
		f := store.ThreadFilter{Project: project, Metadata: map[string]string{}, Limit: 1 + r.IntN(30)}
		f.Deleted = r.IntN(2) == 0
		for name, values := range names {
			if r.IntN(2) == 0 {
				f.Metadata[name] = fmt.Sprint(r.IntN(values))
			}
		}
		if r.IntN(2) == 0 {
			resolved := r.IntN(2) == 0
			f.Resolved = &resolved
		}
		if r.IntN(4) == 0 {
			f.UpdatedSince = born.Add(time.Duration(r.IntN(20)) * time.Second)
		}
		f.Rooms = []store.Prefixes{nil, nil, {"a"}, {"b-", "c"}, {"a ", "b"}, {}}[r.IntN(6)]
		f.Room = []mirror.RoomID{"", "", "a", "b"}[r.IntN(4)]
		var want, got []string
		for _, t := range all {
			fits := f.Rooms.Select(t.Room) && (f.Room == "" || t.Room == f.Room) &&
				(f.Deleted || !t.deleted) && !t.UpdateTime.Before(f.UpdatedSince) &&
				(f.Resolved == nil || t.Resolved == *f.Resolved)
			for name, value := range f.Metadata {
				fits = fits && t.metadata[name] == value
			}
			if fits {
				want = append(want, string(t.Room)+"/"+t.ID)
			}
		}
		what := fmt.Sprintf("threads by %+v (seed %d)", f, seed)
		for n := f.Limit; n == f.Limit; {
			list, err := e.Threads(e.ctx(), f)
			e.must("Threads", err)
			if n = len(list); n > f.Limit {
				e.Fatalf("a page of %s has %d; want at most %d", what, n, f.Limit)
			}
			for _, t := range list {
				got = append(got, string(t.Room)+"/"+t.ID)
				f.AfterRoom, f.AfterID = t.Room, t.ID
			}
		}
		found += len(want)
		e.want(what, got, want)
	}
	if found < 150 {
		e.Fatalf("only %d threads were found", found)
	}
}

func threadPages(e *env) {
	key := func(t mirror.Thread) mirror.Resource { return threadOf(t.Room, t.ID) }
	e.manyThreads()
	yes := false
	for what, filter := range map[string]store.ThreadFilter{
		"all": {}, "a room's": {Room: "b"},
		"unresolved": {Resolved: &yes}, "alice's": {Author: "alice"},
	} {
		filter.Project, filter.Limit = project, 100
		list, err := e.Threads(e.ctx(), filter)
		e.must("Threads", err)
		var keys []mirror.Resource
		for _, t := range list {
			keys = append(keys, key(t))
		}
		extra := 0
		insert := func() {
			if extra++; extra > 5 {
				return
			}
			e.mirrorThread([]mirror.RoomID{"a", "b"}[extra%2],
				threadIn(fmt.Sprintf("t1-%s-%d", what, extra), 1, commentIn("cm", 1)))
		}
		pages(e, "Threads, "+what, keys, key, insert, func(last *mirror.Thread, limit int) ([]mirror.Thread, error) {
			f := filter
			f.Limit = limit
			if last != nil {
				f.AfterRoom, f.AfterID = last.Room, last.ID
			}
			return e.Threads(e.ctx(), f)
		})
	}
}

func commentsFiltered(e *env) {
	all := e.manyThreads()
	second := born.Add(2 * time.Second)
	for what, c := range map[string]struct {
		filter store.CommentFilter
		keep   func(c mirror.Comment) bool
	}{
		"nothing": {store.CommentFilter{}, func(mirror.Comment) bool { return true }},
		"room":    {store.CommentFilter{Room: "a"}, func(c mirror.Comment) bool { return c.Room == "a" }},
		"thread": {
			store.CommentFilter{Room: "a", Thread: "t1"},
			func(c mirror.Comment) bool { return c.Room == "a" && c.Thread == "t1" },
		},
		"thread of any room": {store.CommentFilter{Thread: "t1"}, func(c mirror.Comment) bool { return c.Thread == "t1" }},
		"author":             {store.CommentFilter{Author: "Bob"}, func(c mirror.Comment) bool { return c.UserID == "Bob" }},
		"author, deleted": {
			store.CommentFilter{Author: "frank"},
			func(c mirror.Comment) bool { return c.UserID == "frank" },
		},
		"author, deleted too": {
			store.CommentFilter{Author: "frank", Deleted: true},
			func(c mirror.Comment) bool { return c.UserID == "frank" },
		},
		"mentioned": {
			store.CommentFilter{Mentioned: "erin"},
			func(c mirror.Comment) bool { return len(c.Mentions) > 0 },
		},
		"mentioned group": {store.CommentFilter{Mentioned: "design"}, func(mirror.Comment) bool { return false }},
		"updated since": {
			store.CommentFilter{UpdatedSince: second},
			func(c mirror.Comment) bool { return !c.CreateTime.Before(second) },
		},
		"deleted since": {
			store.CommentFilter{UpdatedSince: born.Add(time.Hour), Deleted: true},
			func(c mirror.Comment) bool { return !c.DeleteTime.IsZero() },
		},
	} {
		var want []string
		for _, t := range all {
			for _, comment := range t.Comments {
				comment.Room = t.Room
				if c.keep(comment) && (comment.DeleteTime.IsZero() || c.filter.Deleted) {
					want = append(want, string(t.Room)+"/"+t.ID+"/"+comment.ID)
				}
			}
		}
		e.want("Comments by "+what, e.comments(c.filter), want)
	}
	// Listed by creation, whatever the ids.
	edited := commentIn("cm_a", 9)
	edited.EditTime = born.Add(24 * time.Hour)
	e.mirrorThread("a", threadIn("order", 1, commentIn("cm_z", 1), edited, commentIn("cm_b", 1)))
	e.want("Comments", e.comments(store.CommentFilter{Thread: "order"}),
		[]string{"a/order/cm_b", "a/order/cm_z", "a/order/cm_a"})
	e.want("Comments edited since", e.comments(store.CommentFilter{UpdatedSince: born.Add(24 * time.Hour)}),
		[]string{"a/order/cm_a"})
}

func commentPages(e *env) {
	key := func(c mirror.Comment) [3]string { return [3]string{string(c.Room), c.Thread, c.ID} }
	e.manyThreads()
	for what, filter := range map[string]store.CommentFilter{
		"all": {}, "a room's": {Room: "b"},
		"a thread's": {Thread: "t2"}, "alice's": {Author: "alice"},
	} {
		filter.Project, filter.Limit = project, 100
		list, err := e.Comments(e.ctx(), filter)
		e.must("Comments", err)
		var keys [][3]string
		for _, c := range list {
			keys = append(keys, key(c))
		}
		extra := 0
		insert := func() {
			if extra++; extra > 5 {
				return
			}
			e.mirrorThread([]mirror.RoomID{"a", "b"}[extra%2],
				threadIn(fmt.Sprintf("t1-%s-%d", what, extra), 1, commentIn("cm", 1)))
		}
		pages(e, "Comments, "+what, keys, key, insert, func(last *mirror.Comment, limit int) ([]mirror.Comment, error) {
			f := filter
			f.Limit = limit
			if last != nil {
				f.AfterRoom, f.AfterThread, f.AfterTime, f.AfterID = last.Room, last.Thread, last.CreateTime, last.ID
			}
			return e.Comments(e.ctx(), f)
		})
	}
}

func threadsDeleted(e *env) {
	for _, room := range []mirror.RoomID{"deleted", "living", "reborn", "reborn and deleted"} {
		e.mirrorRoom(room, e.roomContent(`{}`))
		e.mirrorThread(room, threadIn("t", 1, commentIn("c", 1)))
	}
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("reborn", content)
	e.mirrorRoom("reborn and deleted", content)
	e.pass(time.Minute)
	e.deleteRoom("reborn and deleted")
	e.deleteRoom("deleted")
	e.want("Threads", e.threads(store.ThreadFilter{}), []string{"living/t"})
	e.want("Comments", e.comments(store.CommentFilter{}), []string{"living/t/c"})
	e.want("Threads, deleted too", e.threads(store.ThreadFilter{Deleted: true}), []string{"deleted/t", "living/t"})
	e.want("Comments, deleted too", e.comments(store.CommentFilter{Deleted: true}), []string{"deleted/t/c", "living/t/c"})
	if f := e.readThread(threadOf("deleted", "t"), true).Freshness; !f.DeleteTime.Equal(e.now) {
		e.Fatalf("Freshness in a deleted room = %+v; want it deleted at %v", f, e.now)
	}
	_, err := e.Comment(e.ctx(), threadOf("deleted", "t"), "c", false)
	e.wantErr("Comment in a deleted room", err, store.ErrNotFound)
	for _, room := range []mirror.RoomID{"reborn", "reborn and deleted"} {
		e.wantNoThread(threadOf(room, "t"), true)
		_, err := e.Comment(e.ctx(), threadOf(room, "t"), "c", true)
		e.wantErr("Comment of an earlier epoch", err, store.ErrNotFound)
	}
	// Of a thread that was deleted before its room, its own end counts.
	e.deleteThread(threadOf("living", "t"))
	at := e.now
	e.pass(time.Hour)
	e.deleteRoom("living")
	if f := e.readThread(threadOf("living", "t"), true).Freshness; !f.DeleteTime.Equal(at) {
		e.Fatalf("Freshness of a thread deleted before its room = %+v; want %v", f, at)
	}
}

// oddResourceIDs are those of the odd ids that something in a room can have.
func oddResourceIDs() []string {
	var ids []string
	for _, id := range oddIDs() {
		if mirror.ValidID(string(id), mirror.MaxResourceID) {
			ids = append(ids, string(id))
		}
	}
	return append(ids, strings.Repeat("\U0010FFFF", 32))
}

func oddThreadIDs(e *env) {
	rooms := []mirror.RoomID{"room", "room "}
	ids := oddResourceIDs()
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var threads, comments []string
	for _, room := range rooms {
		e.mirrorRoom(room, e.roomContent(`{}`))
		for i, id := range ids {
			t := threadIn(id, i)
			for _, id := range ids {
				c := commentIn(id, 1)
				c.UserID = id
				c.Mentions = []mirror.Mention{{Kind: "user", ID: id}}
				t.Comments = append(t.Comments, c)
				comments = append(comments, string(room)+"/"+t.ID+"/"+c.ID)
			}
			e.mirrorThread(room, t)
			threads = append(threads, string(room)+"/"+id)
		}
	}
	e.want("Threads", e.threads(store.ThreadFilter{}), threads)
	e.want("Comments", e.comments(store.CommentFilter{Limit: 10_000}), comments)
	for i, id := range ids {
		r := threadOf("room", id)
		if got := e.readThread(r, false); got.ID != id || string(got.Metadata) != fmt.Sprintf(`{"n":%d}`, i) {
			e.Fatalf("Thread %q = %q, %s; want number %d", id, got.ID, got.Metadata, i)
		}
		c, err := e.Comment(e.ctx(), r, id, false)
		e.must("Comment", err)
		if c.ID != id || c.UserID != id || c.Thread != id {
			e.Fatalf("Comment %q = %+v", id, c)
		}
		e.want("Comments by author", len(e.comments(store.CommentFilter{Room: "room", Author: id})), len(ids))
		e.want("Comments by mentioned", len(e.comments(store.CommentFilter{Room: "room", Thread: id, Mentioned: id})), 1)
	}
	e.deleteThread(threadOf("room", "room"))
	if n := len(e.threads(store.ThreadFilter{Room: "room"})); n != len(ids)-1 {
		e.Fatalf("threads after deleting one = %d; want %d", n, len(ids)-1)
	}
}

func threadsOfProject(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorThread("room", threadIn("th_1", 1, commentIn("cm_1", 1)))
	for _, p := range []mirror.ProjectID{"other", "Default", "defaul"} {
		e.want("Threads of project "+string(p), e.threads(store.ThreadFilter{Project: p, Deleted: true}), []string(nil))
		e.want("Comments of project "+string(p), e.comments(store.CommentFilter{Project: p, Deleted: true}), []string(nil))
		r := threadOf("room", "th_1")
		r.Project = p
		e.wantNoThread(r, true)
		_, err := e.Comment(e.ctx(), r, "cm_1", true)
		e.wantErr("Comment", err, store.ErrNotFound)
		_, err = e.StoredItem(e.ctx(), r)
		e.wantErr("StoredItem", err, store.ErrNotFound)
	}
	list, err := e.Threads(e.ctx(), store.ThreadFilter{Limit: 10})
	e.must("Threads", err)
	comments, err := e.Comments(e.ctx(), store.CommentFilter{Limit: 10})
	e.must("Comments", err)
	if len(list)+len(comments) != 0 {
		e.Fatalf("Threads and Comments of no project = %+v, %+v; want none", list, comments)
	}
}

func storedThread(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	_, err := e.StoredItem(e.ctx(), r)
	e.wantErr("StoredItem of a thread that is not there", err, store.ErrNotFound)
	gone := commentIn("cm_3", 3)
	gone.DeleteTime, gone.Body, gone.Text, gone.Markdown = born.Add(time.Hour), nil, "", ""
	t := threadIn("th_1", 1, fullComment("cm_2", 2), fullComment("cm_1", 1), gone)
	t.Metadata = []byte(`{"b":[9007199254740993],"a":"ü"}`)
	e.mirrorThread("room", t)
	e.mirrorThread("room", threadIn("th_2", 1, fullComment("cm_1", 1)))
	e.want("StoredItem", e.tables(r), storedOf(t))
	e.deleteThread(r)
	_, err = e.StoredItem(e.ctx(), r)
	e.wantErr("StoredItem of a deleted thread", err, store.ErrNotFound)
	e.mirrorThread("room", t)
	e.tables(r)
	e.deleteRoom("room")
	_, err = e.StoredItem(e.ctx(), r)
	e.wantErr("StoredItem of a thread in a deleted room", err, store.ErrNotFound)
}

func distrustThread(e *env) {
	t := threadIn("th_1", 1, fullComment("cm_1", 1))
	e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	e.mirrorDocument(storageOf("room"), `{"a":1}`)
	e.mirrorThread("room", t)
	e.mirrorThread("room", threadIn("th_2", 1))
	for _, c := range []struct {
		resource mirror.Resource
		apply    func() mirror.Applied
	}{
		{roomOf("room"), func() mirror.Applied { return e.mirrorRoom("room", e.roomContent(`{"id":"r"}`)) }},
		{storageOf("room"), func() mirror.Applied { return e.mirrorDocument(storageOf("room"), `{"a":1}`) }},
		{threadOf("room", "th_1"), func() mirror.Applied { return e.mirrorThread("room", t) }},
	} {
		hash := func(r rows) any { return r["stored"][0]["content_sha256"] }
		content := func(r rows) any { return r["stored"][0]["source_json"] }
		stored := func() rows {
			if store.ItemKindOf(c.resource) != nil {
				r := e.tables(c.resource)
				r["stored"] = r["mirror_thread"]
				return r
			}
			s := e.stored(c.resource)
			return rows{"stored": {{"source_json": s.Content, "content_sha256": s.SHA256, "data": canonical(s.Data)}}}
		}
		want := stored()
		e.want("Apply of the same", c.apply(), mirror.Applied{})
		e.must("Invalidate", e.Invalidate(e.ctx(), c.resource))
		e.want("content of a distrusted "+c.resource.Kind.String(), content(stored()), content(want))
		if c.resource.Kind == mirror.KindStorage {
			// Readers keep what they derive by the hash of the content.
			if got := e.document(c.resource); string(got.Content) != `{"a":1}` || got.SHA256 != hash(want) {
				e.Fatalf("distrusted document = %q, %x; want its hash to be that of its content", got.Content, got.SHA256)
			}
		}
		e.want("Apply of the same, distrusted", c.apply(), mirror.Applied{Changed: true})
		e.want("stored", stored(), want)
		e.want("Apply of the same again", c.apply(), mirror.Applied{})
		e.want("Apply of another thread", e.mirrorThread("room", threadIn("th_2", 1)), mirror.Applied{})
	}
	e.must("Invalidate", e.Invalidate(e.ctx(), threadOf("room", "th_1")))
	e.want("ApplyThreads", e.listThreads("room", t, threadIn("th_2", 1)),
		mirror.Applied{AlsoDue: []mirror.Resource{threadOf("room", "th_1")}})
	// Invalidated between the claim and the apply.
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	e.must("Invalidate", e.Invalidate(e.ctx(), storageOf("room")))
	e.want("ApplyDocument", e.applyDocument(lease, e.documentContent(`{"a":1}`)), mirror.Applied{Changed: true})
}

func cleanThreads(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorRoom("other", e.roomContent(`{}`))
	e.mirrorDocument(storageOf("room"), `{}`)
	t := threadIn("th_0", 1, fullComment("cm_1", 1))
	gone := 1 // the document, and all of four threads
	for i := range 5 {
		old := threadIn(fmt.Sprintf("th_%d", i), 1, fullComment("cm_1", 1), fullComment("cm_2", 1))
		e.mirrorThread("room", old)
		if i > 0 {
			gone += 1 + store.ThreadItem(old).Rows()
		}
	}
	e.mirrorThread("other", t)
	clean := func(limit, want int) {
		e.Helper()
		got, err := e.CleanRoom(e.ctx(), roomOf("room"), limit)
		e.must("CleanRoom", err)
		if got != want {
			e.Fatalf("CleanRoom at most %d = %d; want %d", limit, got, want)
		}
	}
	clean(10, 0)
	e.deleteRoom("room")
	clean(10, 0) // a tombstone keeps what was in it
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorThread("room", t)
	before := e.remains("room")
	clean(2, 2) // the document is one of them
	clean(2, 2)
	clean(2, 1)
	clean(2, 0)
	e.want("rows that were cleaned up", before-e.remains("room"), int64(gone))
	e.want("comments", e.tables(threadOf("room", "th_0")).parts(), storedOf(t).parts())
	e.want("comments in another room", e.tables(threadOf("other", "th_0")).parts(), storedOf(t).parts())
	if task := e.task(threadOf("room", "th_1")); task.Generation < 2 {
		e.Fatalf("task of a thread cleaned up = %+v; want its generation kept", task)
	}
	// Nothing is left behind for a thread of the same id.
	same := threadIn("th_1", 1)
	e.mirrorThread("room", same)
	e.want("rows of a thread of the same id", e.tables(threadOf("room", "th_1")).parts(), storedOf(same).parts())
}

// listRace applies lists while events tell of the same threads and others apply
// them. In the end everything is stored as it was fetched last, or due.
func listRace(e *env) {
	const rounds = 25
	other := e.another()
	for i := range rounds {
		room := mirror.RoomID(fmt.Sprintf("room-%d", i))
		e.mirrorRoom(room, e.roomContent(`{}`))
		var threads []mirror.Thread
		for n := range 8 {
			threads = append(threads, threadIn(fmt.Sprintf("th_%d", n), 1, commentIn("cm_1", 1)))
		}
		var deliveries [2]mirror.Delivery
		for n := range deliveries {
			var invalidations []mirror.Invalidation
			for k := range 4 {
				invalidations = append(invalidations, invalidatedAt(threadOf(room, fmt.Sprintf("th_%d", (k*3+n)%8))))
			}
			deliveries[n] = e.delivery(invalidations...)
		}
		lease := e.claim(threadOf(room, ""))
		parallel(3, func(n int) {
			var err error
			switch n {
			case 0:
				_, err = applyThreads(e.ctx(), e.Store, lease, e.now, threads, e.now, 0)
			case 1:
				_, err = Accept(e.ctx(), other, deliveries[:])
			default:
				e.spend(time.Duration(i%5) * 300 * time.Microsecond)
				for _, t := range threads {
					var lease mirror.Lease
					if lease, err = other.Claim(e.ctx(), threadOf(room, t.ID), newToken(), e.now, leaseTTL); err == nil {
						_, err = other.ApplyItem(e.ctx(), lease, store.ThreadItem(t), e.now, e.now, 0)
					}
					if errors.Is(err, store.ErrNotDue) {
						err = nil
					}
				}
			}
			if err != nil {
				e.Errorf("%d = %v; want no error", n, err)
			}
		})
		for _, t := range threads {
			r := threadOf(room, t.ID)
			if e.task(r).State == mirror.TaskPending {
				e.applyThread(e.claim(r), t)
			}
			e.wantState(r, mirror.TaskDone)
			e.want("comments", e.tables(r).parts(), storedOf(t).parts())
		}
		for i, c := range e.changes(roomOf(room).Bucket()) {
			if c.Number != int64(i+1) {
				e.Fatalf("entry %d has number %d; want no gaps", i, c.Number)
			}
		}
	}
}

// listPieces applies a list piece by piece. Before the first, between the pieces or
// after the last, something happens to a thread of the list. Whatever it is and
// whenever, the thread ends as its own fetch shows it, or due.
func listPieces(e *env) {
	const pieces = 3
	happenings := map[string]func(r mirror.Resource, newer mirror.Thread){
		"an event": func(r mirror.Resource, _ mirror.Thread) { e.raise(r) },
		"an event and its fetch": func(r mirror.Resource, newer mirror.Thread) {
			e.raise(r)
			e.applyThread(e.claim(r), newer)
		},
		"a fetch that goes on": func(r mirror.Resource, _ mirror.Thread) {
			e.raise(r)
			e.claim(r)
		},
		"a deletion": func(r mirror.Resource, newer mirror.Thread) {
			e.raise(r)
			e.applyThread(e.claim(r), newer)
			e.deleteThread(r)
		},
	}
	for what, happens := range happenings {
		for at := range pieces + 1 {
			for victim := range pieces {
				room := mirror.RoomID(fmt.Sprintf("%s at %d to %d", what, at, victim))
				e.mirrorRoom(room, e.roomContent(`{}`))
				lease := e.claim(threadOf(room, ""))
				var before, after mirror.Thread
				var task mirror.Task
				r := threadOf(room, fmt.Sprintf("th_%d", victim))
				happen := func() {
					happens(r, threadIn(r.ID, 2, commentIn("cm_1", 2)))
					task = e.task(r)
					before, _ = e.Thread(e.ctx(), r, true)
				}
				stored := 0
				for piece := range pieces {
					if piece == at {
						happen()
					}
					item := store.ThreadItem(threadIn(fmt.Sprintf("th_%d", piece), 1, commentIn("cm_1", 1)))
					added, err := e.AddItems(e.ctx(), lease, []store.Item{item}, e.now, e.now)
					e.must("AddItems", err)
					stored += len(added)
				}
				late := at > victim
				if want := map[bool]int{true: pieces, false: pieces - 1}[late]; at < pieces && stored != want {
					e.Fatalf("%s: the list stored %d threads; want %d", room, stored, want)
				}
				if at == pieces {
					happen()
				}
				_, err := e.ApplyListed(e.ctx(), lease, e.now, nil, e.now, 0)
				e.must("ApplyListed", err)
				e.want("task of the thread, "+string(room), e.task(r), task)
				after, _ = e.Thread(e.ctx(), r, true)
				e.want("thread, "+string(room), after, before)
				e.wantState(threadOf(room, ""), mirror.TaskDone)
			}
		}
	}
}

// listPiecesFences loses the lease, or the room, between two pieces. What was stored
// stays, nothing is deleted, and the next list goes on from there.
func listPiecesFences(e *env) {
	threads := []mirror.Thread{threadIn("th_1", 1, commentIn("cm_1", 1)), threadIn("th_2", 1, commentIn("cm_1", 1))}
	add := func(lease mirror.Lease, t mirror.Thread) error {
		_, err := e.AddItems(e.ctx(), lease, []store.Item{store.ThreadItem(t)}, e.now, e.now)
		return err
	}
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorThread("room", threadIn("known", 1))
	r := threadOf("room", "")
	lost := e.claim(r)
	e.must("AddItems", add(lost, threads[0]))
	e.now = e.task(r).LeaseUntil
	lease := e.claim(r)
	changes := e.changes(r.Bucket())
	e.wantErr("AddItems", add(lost, threads[1]), store.ErrLeaseLost)
	stale := []store.Stale{{Resource: threadOf("room", "known"), Now: e.now, Deleted: true}}
	e.wantErr("MarkListed", e.MarkListed(e.ctx(), lost, stale), store.ErrLeaseLost)
	_, err := e.ApplyListed(e.ctx(), lost, e.now, stale, e.now, 0)
	e.wantErr("ApplyListed", err, store.ErrLeaseLost)
	e.want("changes", e.changes(r.Bucket()), changes)
	e.want("Threads", e.threads(store.ThreadFilter{}), []string{"room/known", "room/th_1"})
	e.wantState(threadOf("room", "known"), mirror.TaskDone)
	applied, err := applyThreads(e.ctx(), e.Store, lease, e.now, append(threads, threadIn("known", 1)), e.now, 0)
	e.must("ApplyThreads", err)
	e.want("ApplyThreads again", applied, added("room", "th_2"))
	for _, t := range threads {
		e.want("rows", e.tables(threadOf("room", t.ID)), storedOf(t))
	}

	e.raise(r)
	lease = e.claim(r)
	e.must("AddItems", add(lease, threadIn("th_3", 1)))
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	changes = e.changes(r.Bucket())
	task := e.task(threadOf("room", "known"))
	e.wantErr("AddItems", add(lease, threadIn("th_4", 1)), store.ErrEpochChanged)
	e.wantErr("MarkListed", e.MarkListed(e.ctx(), lease, stale), store.ErrEpochChanged)
	_, err = e.ApplyListed(e.ctx(), lease, e.now, stale, e.now, 0)
	e.wantErr("ApplyListed", err, store.ErrEpochChanged)
	_, err = e.Task(e.ctx(), threadOf("room", "th_4"), e.now)
	e.wantErr("Task", err, store.ErrNotFound)
	e.want("task", e.task(threadOf("room", "known")), task)
	e.want("changes", e.changes(r.Bucket()), changes)
	e.want("Threads", e.threads(store.ThreadFilter{Deleted: true}), []string(nil))
}

// piecesOf is a thread that takes several transactions, in its n-th version.
func piecesOf(id string, n int) mirror.Thread {
	var comments []mirror.Comment
	for i := range 100 {
		c := fullComment(fmt.Sprintf("cm_%04d", i), i)
		for user := range store.PieceRows/100 + 1 {
			c.Reactions = append(c.Reactions, mirror.Reaction{
				Emoji: "x", UserID: fmt.Sprintf("user-%03d", user), CreateTime: born.Add(time.Duration(n) * time.Second),
			})
		}
		comments = append(comments, c)
	}
	return threadIn(id, n, comments...)
}

// threadPieces shows what readers see of a long thread between its pieces, and what
// is left if no other piece follows.
func threadPieces(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	e.raise(r)
	lease := e.claim(r)
	prepare := func(lease mirror.Lease, t mirror.Thread, want bool) {
		e.Helper()
		item := store.ThreadItem(t)
		more, err := e.PrepareItem(e.ctx(), lease, &item)
		e.must("PrepareItem", err)
		if more != want {
			e.Fatalf("PrepareItem = %v; want %v", more, want)
		}
	}
	first, second := piecesOf("th_1", 1), piecesOf("th_1", 2)
	changes := e.changes(r.Bucket())
	prepare(lease, first, true)
	e.wantNoThread(r, true)
	e.want("Threads", e.threads(store.ThreadFilter{Deleted: true}), []string(nil))
	e.want("Comments", e.comments(store.CommentFilter{Deleted: true}), []string(nil))
	e.want("changes", e.changes(r.Bucket()), changes)
	// Nobody goes on: the next lease does, with what has changed since.
	e.now = e.task(r).LeaseUntil
	e.want("ApplyThread", e.applyThread(e.claim(r), second), mirror.Applied{Changed: true})
	e.want("rows", e.tables(r), storedOf(second))
	e.want("changes", len(e.changes(r.Bucket())), len(changes)+1)

	// Of one that is mirrored, readers see the copy as stale. It does not count as the
	// copy any more, though the thread is what it was again.
	e.raise(r)
	lease = e.claim(r)
	third := piecesOf("th_1", 3)
	prepare(lease, second, false)
	prepare(lease, third, true)
	e.fail(lease, e.failure())
	e.pass(time.Hour)
	if got := e.readThread(r, false); !bytes.Equal(got.Source, second.Source) || !got.Freshness.Stale {
		e.Fatalf("Thread between two pieces = %.60s, %+v; want the version before, and stale", got.Source, got.Freshness)
	}
	comment, err := e.Comment(e.ctx(), r, "cm_0000", false)
	e.must("Comment", err)
	if !comment.Freshness.Stale {
		e.Fatalf("Comment between two pieces = %+v; want it stale", comment.Freshness)
	}
	e.want("ApplyThread of the version before", e.applyThread(e.claim(r), second), mirror.Applied{Changed: true})
	e.want("rows", e.tables(r), storedOf(second))
	if got := e.readThread(r, false); got.Freshness.Stale {
		e.Fatalf("Thread = %+v; want it fresh", got.Freshness)
	}
	// And of a list, it is left to its own fetch.
	other := piecesOf("th_2", 1)
	e.want("ApplyThreads", e.listThreads("room", second, other),
		mirror.Applied{AlsoDue: []mirror.Resource{threadOf("room", "th_2")}})
}

func threadPiecesFences(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	first := piecesOf("th_1", 1)
	e.mirrorThread("room", first)
	e.raise(r)
	lost := e.claim(r)
	e.now = e.task(r).LeaseUntil
	lease := e.claim(r)
	item := store.ThreadItem(piecesOf("th_1", 2))
	_, err := e.PrepareItem(e.ctx(), lost, &item)
	e.wantErr("PrepareItem", err, store.ErrLeaseLost)
	e.want("rows", e.tables(r), storedOf(first))
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	_, err = e.PrepareItem(e.ctx(), lease, &item)
	e.wantErr("PrepareItem", err, store.ErrEpochChanged)
	e.fail(lease, e.failure())
	e.pass(time.Hour)
	// The rows of the earlier incarnation are cleaned up between two pieces of this one.
	lease = e.claim(r)
	second := piecesOf("th_1", 2)
	item = store.ThreadItem(second)
	more, err := e.PrepareItem(e.ctx(), lease, &item)
	e.must("PrepareItem", err)
	e.want("PrepareItem", more, true)
	e.wantNoThread(r, true)
	n, err := e.CleanRoom(e.ctx(), roomOf("room"), 10)
	e.must("CleanRoom", err)
	e.want("CleanRoom", n, 1)
	e.want("ApplyThread", e.applyThread(lease, second), mirror.Applied{Changed: true})
	e.want("rows", e.tables(r), storedOf(second))
}

// threadDifference changes everything that can change in a thread, one by one and
// all together, and wants the rows as if they had all been written anew.
func threadDifference(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := threadOf("room", "th_1")
	full := func() mirror.Thread {
		return threadIn("th_1", 1, fullComment("cm_1", 1), fullComment("cm_2", 2), fullComment("cm_3", 3))
	}
	changes := map[string]func(c *mirror.Comment){
		"nothing":     func(*mirror.Comment) {},
		"author":      func(c *mirror.Comment) { c.UserID = "zoe" },
		"created":     func(c *mirror.Comment) { c.CreateTime = c.CreateTime.Add(time.Microsecond) },
		"undated":     func(c *mirror.Comment) { c.EditTime = time.Time{} },
		"deleted":     func(c *mirror.Comment) { c.DeleteTime = born; c.Body = nil },
		"source":      func(c *mirror.Comment) { c.Source = append([]byte(" "), c.Source...) },
		"body":        func(c *mirror.Comment) { c.Body = []byte(`{"other":1}`) },
		"text":        func(c *mirror.Comment) { c.Text, c.Markdown = c.Markdown, c.Text },
		"no metadata": func(c *mirror.Comment) { c.Metadata = nil },
		"metadata":    func(c *mirror.Comment) { c.Metadata = []byte(`{"priority":2}`) },
		"reaction": func(c *mirror.Comment) {
			c.Reactions = append(c.Reactions, mirror.Reaction{Emoji: "x", UserID: "y"})
		},
		"reacted at":  func(c *mirror.Comment) { c.Reactions[1].CreateTime = born },
		"reactions":   func(c *mirror.Comment) { c.Reactions = nil },
		"attachment":  func(c *mirror.Comment) { c.Attachments[1].Size = 7 },
		"attachments": func(c *mirror.Comment) { c.Attachments = c.Attachments[1:] },
		"mention":     func(c *mirror.Comment) { c.Mentions[1].UserIDs = []string{"u2", "u3"} },
		"mentions":    func(c *mirror.Comment) { c.Mentions = c.Mentions[2:] },
		"id":          func(c *mirror.Comment) { c.ID = "cm_4" },
	}
	n := 1
	apply := func(what string, t mirror.Thread) {
		e.Helper()
		n++
		t.SHA256 = sha256.Sum256(fmt.Append(nil, what, n))
		e.want("ApplyThread", e.mirrorThread("room", t), mirror.Applied{Changed: true})
		e.want("rows after "+what, e.tables(r), storedOf(t))
	}
	for what, change := range changes {
		apply("all", full())
		t := full()
		change(&t.Comments[1])
		apply(what, t)
	}
	for _, order := range [][]int{{2, 0}, {}, {1}, {0, 1, 2}} {
		t := full()
		t.Comments = nil
		for _, i := range order {
			t.Comments = append(t.Comments, full().Comments[i])
		}
		apply(fmt.Sprint("comments ", order), t)
	}
}
