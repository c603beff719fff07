package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var documentCases = []testCase{
	{"new document", newDocument},
	{"unchanged document moves its times alone", unchangedDocument},
	{"unchanged document gives the lease back", unchangedDocumentDone},
	{"changed document writes a change", changedDocument},
	{"document that is encoded differently is unchanged", encodedDifferently},
	{"claim sees the copy of a document", seenCopy},
	{"new derive version rewrites", deriveVersion},
	{"document content is kept byte for byte", documentBytes},
	{"document of 16 MiB", largeDocument},
	{"data of 5 MiB can be queried", largeData},
	{"many reads are answered together", readTogether},
	{"read that begins after a write sees it, beside others", readAfterWrite},
	{"derived data that cannot be stored is left out", refusedData},
	{"reason for missing data is kept", dataProblem},
	{"text may hold anything", documentText},
	{"fetched before the deletion", epochDeleted},
	{"fetched before the room was created anew", epochRecreated},
	{"fetched before the deletion and applied after the rebirth", epochReborn},
	{"fetched in a room that is not mirrored", epochNone},
	{"fetched in a tombstone", epochTombstone},
	{"404 of another epoch", epochMissing},
	{"revisions rise and never restart", revisions},
	{"404 of a child wakes the room", missingChild},
	{"404 of a child leaves a pending room alone", missingChildPending},
	{"404 of a child is a failed attempt", missingChildFails},
	{"404 of a child in a missing room", missingChildInMissing},
	{"404 of a child in a tombstone", missingChildInTombstone},
	{"document that was missing is back", missingChildBack},
}

// Whoever has heard of a change reads what it wrote, or what came after it. Others who read
// the same for long began before the write, and may have what was there.
func readAfterWrite(e *env) {
	const others, writes = 3, 20
	r := storageOf("room")
	rng, padding := rand.NewChaCha8([32]byte{3}), make([]byte, 1<<20) // so that a read takes long
	content := func(n int) string {
		_, _ = rng.Read(padding) // never fails
		return fmt.Sprintf(`{"n":%d,"padding":"%x"}`, n, padding)
	}
	number := func(d mirror.Document) (n int) {
		if _, err := fmt.Sscanf(string(d.Content[:min(len(d.Content), 32)]), `{"n":%d,`, &n); err != nil {
			e.Errorf("content of the document begins with %q", d.Content[:min(len(d.Content), 32)])
		}
		return n
	}
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorDocument(r, content(0))
	reading, stop := context.WithCancel(e.ctx())
	var wg sync.WaitGroup
	defer wg.Wait() // also when the case fails
	defer stop()
	for range others {
		wg.Go(func() {
			for reading.Err() == nil {
				if _, err := e.Document(reading, r, false); err != nil && reading.Err() == nil {
					e.Errorf("Document = %v; want no error", err)
					return
				}
			}
		})
	}
	for n := 1; n <= writes; n++ {
		e.mirrorDocument(r, content(n))
		if got := number(e.document(r)); got != n {
			e.Fatalf("document after write %d is that of write %d", n, got)
		}
	}
}

func newDocument(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := storageOf("room")
	lease := e.claim(r)
	content := mirror.DocumentContent{
		FetchTime: e.now.Add(-time.Second), Content: []byte(`{"liveblocksType":"LiveObject","data":{"a":1}}`),
		DeriveVersion: 7,
		Data:          []byte(`{"a":1}`), Text: "words",
	}
	e.want("ApplyDocument", e.applyDocument(lease, content), mirror.Applied{Changed: true})
	n := e.lastChange(r.Bucket())
	want := mirror.Document{
		Project: project, Room: "room", Kind: mirror.KindStorage, Content: content.Content,
		SHA256: sha256.Sum256(content.Content), Size: int64(len(content.Content)), DeriveVersion: 7,
		Freshness: mirror.Freshness{FetchTime: content.FetchTime, SourceUpdateTime: lease.SourceTime, Revision: n},
	}
	e.want("Document", e.document(r), want)
	want.Content = nil
	e.want("Documents", e.documents(), []mirror.Document{want})
	entries := e.changes(r.Bucket())
	e.want("last change", entries[len(entries)-1], entry(n, r, mirror.ChangeUpserted, 1, e.now))
}

func unchangedDocument(e *env) {
	e.mirrorBoth("room")
	before := e.document(storageOf("room"))
	n := e.lastChange(storageOf("room").Bucket())
	e.pass(time.Hour)
	applied := e.mirrorDocument(storageOf("room"), `{"a":1}`)
	e.want("ApplyDocument", applied, mirror.Applied{})
	want := before
	want.Freshness.FetchTime, want.Freshness.SourceUpdateTime = e.now, e.now.Add(-time.Millisecond)
	e.want("Document", e.document(storageOf("room")), want)
	if got := e.lastChange(storageOf("room").Bucket()); got != n {
		e.Fatalf("last change = %d; want %d, for nothing changed", got, n)
	}
}

// What is written although nothing has changed is the state: the lease is given back, and
// nothing is left to do.
func unchangedDocumentDone(e *env) {
	e.mirrorBoth("room")
	e.mirrorDocument(storageOf("room"), `{"a":1}`)
	e.wantState(storageOf("room"), mirror.TaskDone)
	e.mirrorDocument(storageOf("room"), `{"a":1}`) // without a lease that another claim would wait for
	e.wantState(storageOf("room"), mirror.TaskDone)
}

func changedDocument(e *env) {
	e.mirrorBoth("room")
	before := e.document(storageOf("room"))
	applied := e.mirrorDocument(storageOf("room"), `{"a":2}`)
	e.want("ApplyDocument", applied, mirror.Applied{Changed: true})
	after := e.document(storageOf("room"))
	if string(after.Content) != `{"a":2}` || after.Freshness.Revision <= before.Freshness.Revision ||
		after.Freshness.Revision != e.lastChange(storageOf("room").Bucket()) {
		e.Fatalf("Document = %+v; want the new content, its revision that of the last change", after)
	}
	if applied = e.mirrorDocument(storageOf("room"), `{"a":1}`); !applied.Changed {
		e.Fatalf("ApplyDocument of the content before = %+v; want a change", applied)
	}
}

func deriveVersion(e *env) {
	e.mirrorBoth("room")
	before := e.document(storageOf("room"))
	e.raise(storageOf("room"))
	content := e.documentContent(`{"a":1}`)
	content.DeriveVersion, content.Data, content.DataProblem = 2, nil, "version 2 cannot"
	applied := e.applyDocument(e.claim(storageOf("room")), content)
	e.want("ApplyDocument", applied, mirror.Applied{Changed: true})
	after := e.document(storageOf("room"))
	if after.DeriveVersion != 2 || after.DataProblem != "version 2 cannot" || after.SHA256 != before.SHA256 ||
		after.Freshness.Revision <= before.Freshness.Revision {
		e.Fatalf("Document = %+v; want the same bytes derived by version 2", after)
	}
}

// The bytes that were fetched first stay, and so do their hash and entity tag.
func encodedDifferently(e *env) {
	r := storageOf("room")
	content := func(bytes string, state byte) mirror.DocumentContent {
		c := e.documentContent(`{}`)
		c.Content, c.StateSHA256 = []byte(bytes), [32]byte{state}
		return c
	}
	apply := func(c mirror.DocumentContent) mirror.Applied {
		e.Helper()
		e.raise(r)
		c.FetchTime = e.now
		return e.applyDocument(e.claim(r), c)
	}
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.want("ApplyDocument", apply(content("first", 1)), mirror.Applied{Changed: true})
	before := e.document(r)
	first := e.lastChange(r.Bucket())
	e.pass(time.Second)
	e.want("ApplyDocument of the same", apply(content("other bytes", 1)), mirror.Applied{})
	after := e.document(r)
	if string(after.Content) != "first" || after.SHA256 != before.SHA256 || !after.Freshness.FetchTime.Equal(e.now) {
		e.Fatalf("Document = %q, fetched at %v; want the first bytes, and the time of the last fetch", after.Content,
			after.Freshness.FetchTime)
	}
	if n := e.lastChange(r.Bucket()); n != first {
		e.Fatalf("last change = %d; want %d still", n, first)
	}
	// Under a lease that saw nothing of the document it is the same.
	e.raise(r)
	lease := e.claim(r)
	lease.Seen = nil
	e.want("ApplyDocument of the same", e.applyDocument(lease, content("other bytes", 1)),
		mirror.Applied{})

	newer := content("other bytes", 1)
	newer.DeriveVersion++
	for what, c := range map[string]mirror.DocumentContent{
		"derived anew": newer, "another state": content("other bytes", 2), "no state": content("x", 0),
	} {
		apply(content("first", 1))
		e.want("ApplyDocument of "+what, apply(c), mirror.Applied{Changed: true})
		if got := e.document(r); string(got.Content) != string(c.Content) {
			e.Fatalf("Document with %s = %q; want %q", what, got.Content, c.Content)
		}
	}
	apply(content("x", 0))
	e.want("ApplyDocument without a state, as before", apply(content("y", 0)), mirror.Applied{Changed: true})
}

// What is as the claim has seen it needs not be derived. The claim is not believed if the
// copy has changed since.
func seenCopy(e *env) {
	ydoc := mirror.Resource{Project: project, Room: "room", Kind: mirror.KindYdoc, ID: "x"}
	for _, r := range []mirror.Resource{storageOf("room"), ydoc} {
		e.mirrorRoom("room", e.roomContent(`{}`))
		content := e.documentContent(`{"a":1}`)
		content.StateSHA256 = [32]byte{1}
		e.raise(r)
		if _, same := store.Unchanged(e.claim(r), content.Content, 1); same {
			e.Fatalf("a document that was never fetched is unchanged")
		}
		e.pass(time.Hour) // the lease ends
		e.applyDocument(e.claim(r), content)
		before := e.document(r)

		e.raise(r)
		lease := e.claim(r)
		doc, same := store.Unchanged(lease, content.Content, 1)
		if _, other := store.Unchanged(lease, []byte("other"), 1); !same || other || doc.StateSHA256 != content.StateSHA256 {
			e.Fatalf("Unchanged of the same %s = %v, of another one %v; want true and false", r.Kind, same, other)
		}
		if _, same := store.Unchanged(lease, content.Content, 2); same {
			e.Fatalf("a document of another derive version is unchanged")
		}
		doc.FetchTime = e.now
		e.want("ApplyDocument of the same", e.applyDocument(lease, doc), mirror.Applied{})
		if after := e.document(r); string(after.Content) != string(before.Content) || after.SHA256 != before.SHA256 {
			e.Fatalf("Document = %+v; want it as it was", after)
		}

		e.raise(r)
		lease = e.claim(r)
		doc, _ = store.Unchanged(lease, content.Content, 1)
		e.must("Invalidate", e.Invalidate(e.ctx(), r))
		stored := e.stored(r)
		_, err := e.ApplyDocument(e.ctx(), lease, doc, e.now, 0)
		e.wantErr("ApplyDocument", err, store.ErrCopyChanged)
		e.want("Stored", e.stored(r), stored)
		e.fail(lease, e.failure())
		e.wantState(r, mirror.TaskPending)
	}
}

func documentBytes(e *env) {
	binary := make([]byte, 70_000)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(binary) // never fails
	contents := sources()
	contents["binary"] = string(binary)
	for what, content := range contents {
		id := mirror.RoomID(what)
		e.mirrorRoom(id, e.roomContent(`{}`))
		doc := e.documentContent(content)
		doc.Data = nil
		e.applyDocument(e.claim(storageOf(id)), doc)
		got := e.document(storageOf(id))
		if string(got.Content) != content || got.Size != int64(len(content)) || got.SHA256 != sha256.Sum256([]byte(content)) {
			e.Fatalf("document with %s = %d bytes %.60q; want %d bytes %.60q", what, len(got.Content), got.Content,
				len(content), content)
		}
		if applied := e.mirrorDocument(storageOf(id), content); applied.Changed {
			e.Fatalf("ApplyDocument with %s again = %+v; want no change", what, applied)
		}
	}
}

func largeDocument(e *env) {
	const size = 16 << 20
	content := make([]byte, 0, size+5_000)
	content = append(content, `{"a":[`...)
	rng := rand.NewChaCha8([32]byte{2})
	var noise [2_000]byte
	for len(content) < size {
		_, _ = rng.Read(noise[:]) // never fails
		content = append(hex.AppendEncode(append(content, '"'), noise[:]), `",`...)
	}
	content = append(content, `0]}`...)
	e.mirrorRoom("room", e.roomContent(`{}`))
	doc := e.documentContent("")
	doc.Content, doc.Data = content, content
	e.applyDocument(e.claim(storageOf("room")), doc)
	if got := e.document(storageOf("room")); !bytes.Equal(got.Content, content) || got.Size != int64(len(content)) {
		e.Fatalf("document of %d bytes came back as %d other bytes", len(content), len(got.Content))
	}
}

// A server may get a value of that size in another way than a short one.
func largeData(e *env) {
	const size = 5 << 20
	data := `{"a":["` + strings.Repeat(`it's \\ \" ? `, size/14) + `"]}`
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(data))
	if got := e.document(storageOf("room")); got.DataProblem != "" || string(got.Content) != data {
		e.Fatalf("document of %d bytes came back with %d and the problem %q; want none", len(data), len(got.Content),
			got.DataProblem)
	}
}

// Nobody warns the engine of what is in Data. Whatever it cannot take, the
// content is stored, and the queue goes on.
func refusedData(e *env) {
	for what, data := range sources() {
		id := mirror.RoomID(what)
		e.mirrorRoom(id, e.roomContent(`{}`))
		e.applyDocument(e.claim(storageOf(id)), e.documentContent(data))
		if got := e.document(storageOf(id)); string(got.Content) != data {
			e.Fatalf("document with %s in its data = %.60q; want %.60q", what, got.Content, data)
		}
		e.wantState(storageOf(id), mirror.TaskDone)
		if applied := e.mirrorDocument(storageOf(id), data); applied.Changed {
			e.Fatalf("ApplyDocument with %s again = %+v; want no change", what, applied)
		}
		e.mirrorDocument(storageOf(id), `{"a":2}`)
		if got := e.document(storageOf(id)); got.DataProblem != "" {
			e.Fatalf("DataProblem = %q; want none once the data can be had", got.DataProblem)
		}
	}
	// An engine's own words never quote the document.
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{"secret-word":"\u0000","x":secret-word`))
	doc := e.document(storageOf("room"))
	if doc.DataProblem == "" || bytes.Contains([]byte(doc.DataProblem), []byte("secret-word")) {
		e.Fatalf("DataProblem of what is no JSON = %q; want a reason that does not quote it", doc.DataProblem)
	}
}

func dataProblem(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	content := e.documentContent(`{}`)
	content.Data, content.DataProblem = nil, "larger than 16 MiB"
	e.applyDocument(e.claim(storageOf("room")), content)
	if got := e.document(storageOf("room")).DataProblem; got != "larger than 16 MiB" {
		e.Fatalf("DataProblem = %q; want the reason given", got)
	}
	if docs := e.documents(); len(docs) != 1 || docs[0].DataProblem != "larger than 16 MiB" {
		e.Fatalf("Documents = %+v; want the reason given", docs)
	}
}

func documentText(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	for i, text := range []string{"a\x00b", "\xff\xfe", "e\u0301 \U0001F600 \u2028", "'; --"} {
		e.raise(storageOf("room"))
		content := e.documentContent(fmt.Sprintf(`{"v":%d}`, i))
		content.Text = text
		e.applyDocument(e.claim(storageOf("room")), content)
		if got := e.document(storageOf("room")); got.DataProblem != "" || string(got.Content) != fmt.Sprintf(`{"v":%d}`, i) {
			e.Fatalf("document with text %q = %+v; want its content and data unharmed", text, got)
		}
	}
}

// wantEpochChanged applies under a lease whose incarnation is over, and sees
// that nothing comes of it but the lease given back.
func (e *env) wantEpochChanged(lease mirror.Lease) {
	e.Helper()
	before := e.snapshot(lease.Resource)
	room := e.snapshot(lease.Resource.RoomResource())
	_, err := e.ApplyDocument(e.ctx(), lease, e.documentContent(`{"of":"another life"}`), e.now, settle)
	e.wantErr("ApplyDocument of another incarnation", err, store.ErrEpochChanged)
	e.want("document", e.snapshot(lease.Resource), before)
	e.want("room", e.snapshot(lease.Resource.RoomResource()), room)
	f := store.Failure{Now: e.now, NotBefore: e.now, Uncounted: true, Cause: "the room was created anew"}
	e.fail(lease, f)
}

func (e *env) raisedStorage(id mirror.RoomID) mirror.Lease {
	e.Helper()
	e.mirrorBoth(id)
	e.raise(storageOf(id))
	return e.claim(storageOf(id))
}

func epochDeleted(e *env) {
	lease := e.raisedStorage("room")
	e.deleteRoom("room")
	e.wantEpochChanged(lease)
	e.wantNotDue(storageOf("room"))
	e.wantNoDocument(storageOf("room"))
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.wantNoDocument(storageOf("room"))
}

func epochRecreated(e *env) {
	lease := e.raisedStorage("room")
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	e.wantEpochChanged(lease)
	e.wantNoDocument(storageOf("room"))
	next := e.claim(storageOf("room"))
	if next.Epoch != lease.Epoch+1 {
		e.Fatalf("lease = %+v; want the epoch after %d", next, lease.Epoch)
	}
	e.applyDocument(next, e.documentContent(`{"a":2}`))
	if got := e.document(storageOf("room")); string(got.Content) != `{"a":2}` {
		e.Fatalf("document = %q; want that of the new room", got.Content)
	}
}

func epochReborn(e *env) {
	lease := e.raisedStorage("room")
	e.deleteRoom("room")
	e.mirrorRoom("room", e.roomContent(`{"id":"r"}`)) // not even another creation time
	e.wantEpochChanged(lease)
	e.wantNoDocument(storageOf("room"))
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{"a":2}`))
}

func epochNone(e *env) {
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	_, err := e.ApplyDocument(e.ctx(), lease, e.documentContent(`{}`), e.now, 0)
	e.wantErr("ApplyDocument in a room that is not mirrored", err, store.ErrEpochChanged)
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.wantEpochChanged(lease)
	e.wantNoDocument(storageOf("room"))
}

func epochTombstone(e *env) {
	e.mirrorBoth("room")
	e.deleteRoom("room")
	before, err := e.Document(e.ctx(), storageOf("room"), true)
	e.must("Document, deleted or not", err)
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	if !lease.Gone {
		e.Fatalf("lease = %+v; want its room gone", lease)
	}
	e.wantEpochChanged(lease)
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room"))) // quiets the child
	after, err := e.Document(e.ctx(), storageOf("room"), true)
	e.must("Document, deleted or not", err)
	e.want("document of the tombstone", after, before)
}

func epochMissing(e *env) {
	lease := e.raisedStorage("room")
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	before, room := e.snapshot(storageOf("room")), e.snapshot(roomOf("room"))
	_, err := e.ApplyMissing(e.ctx(), lease, e.failure(), settle)
	e.wantErr("ApplyMissing of another incarnation", err, store.ErrEpochChanged)
	e.want("document", e.snapshot(storageOf("room")), before)
	e.want("room", e.snapshot(roomOf("room")), room)
}

func revisions(e *env) {
	last := int64(0)
	risen := func(what string, got int64) {
		e.Helper()
		if got <= last || got != e.lastChange(roomOf("room").Bucket()) {
			e.Fatalf("revision after %s = %d; want that of the last change, above %d", what, got, last)
		}
		last = got
	}
	for life := range 3 {
		content := e.roomContent(`{"id":"r"}`)
		content.CreateTime = born.Add(time.Duration(life/2) * time.Hour)
		e.mirrorRoom("room", content)
		risen("birth", e.room("room").Freshness.Revision)
		for i := range 3 {
			e.mirrorDocument(storageOf("room"), fmt.Sprintf(`{"a":%d}`, i))
			risen("a document", e.document(storageOf("room")).Freshness.Revision)
			content.Source = fmt.Appendf(nil, `{"a":%d}`, i)
			e.mirrorRoom("room", content)
			risen("a room", e.room("room").Freshness.Revision)
		}
		e.deleteRoom("room")
		risen("death", e.tombstone("room").Freshness.Revision)
		if _, err := e.CleanRoom(e.ctx(), roomOf("room"), 10); err != nil {
			e.Fatalf("CleanRoom = %v; want no error", err)
		}
	}
}

func missingChild(e *env) {
	e.mirrorBoth("room")
	before := e.document(storageOf("room"))
	e.raise(storageOf("room"))
	e.pass(time.Second)
	since := e.now
	f := e.failure()
	applied, err := e.ApplyMissing(e.ctx(), e.claim(storageOf("room")), f, settle)
	e.must("ApplyMissing", err)
	e.want("ApplyMissing", applied, mirror.Applied{Due: f.NotBefore, AlsoDue: []mirror.Resource{roomOf("room")}})
	if task := e.task(roomOf("room")); task.State != mirror.TaskPending || !task.DueTime.Equal(e.now) ||
		task.Generation != 2 {
		e.Fatalf("task of the room = %+v; want it raised and due at once", task)
	}
	after := e.document(storageOf("room"))
	if !after.Freshness.MissingSince.Equal(since) || !bytes.Equal(after.Content, before.Content) {
		e.Fatalf("document = %+v; want its content kept, missing since %v", after, since)
	}
	// The room is there: the child goes on trying.
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{"id":"r"}`))
	e.now = f.NotBefore
	applied, err = e.ApplyMissing(e.ctx(), e.claim(storageOf("room")), e.failure(), settle)
	e.must("ApplyMissing", err)
	if !applied.Due.Equal(e.now.Add(time.Minute)) {
		e.Fatalf("second ApplyMissing = %+v; want another attempt", applied)
	}
	if task := e.task(storageOf("room")); !task.MissingSince.Equal(since) || task.Attempts != 2 {
		e.Fatalf("task = %+v; want two attempts, missing since the first", task)
	}
}

func missingChildPending(e *env) {
	e.mirrorBoth("room")
	e.raise(roomOf("room"), storageOf("room"))
	room := e.claim(roomOf("room"))
	applied := e.applyMissing(e.claim(storageOf("room")))
	e.want("ApplyMissing", applied, mirror.Applied{Due: e.now.Add(time.Minute)})
	if task := e.task(roomOf("room")); task.State != mirror.TaskRunning || task.Generation != room.Generation {
		e.Fatalf("task of the room = %+v; want it as it was", task)
	}
}

func missingChildFails(e *env) {
	e.mirrorBoth("room")
	e.raise(storageOf("room"))
	f := e.failure()
	f.Uncounted = true
	_, err := e.ApplyMissing(e.ctx(), e.claim(storageOf("room")), f, settle)
	e.must("ApplyMissing", err)
	task := e.task(storageOf("room"))
	if task.State != mirror.TaskPending || task.Attempts != 0 || task.LastError != f.Cause {
		e.Fatalf("task = %+v; want it pending, no attempt spent", task)
	}
	e.now = f.NotBefore
	f = e.failure()
	f.Final = true
	applied, err := e.ApplyMissing(e.ctx(), e.claim(storageOf("room")), f, settle)
	e.must("ApplyMissing", err)
	if !applied.Due.IsZero() {
		e.Fatalf("ApplyMissing = %+v; want no further attempt", applied)
	}
	e.wantState(storageOf("room"), mirror.TaskFailed)
	e.document(storageOf("room")) // and nothing is deleted
}

func missingChildInMissing(e *env) {
	e.mirrorBoth("room")
	e.raise(roomOf("room"), storageOf("room"))
	child := e.claim(storageOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	e.want("ApplyMissing", e.applyMissing(child), mirror.Applied{})
	e.wantState(storageOf("room"), mirror.TaskDone)
	e.wantState(roomOf("room"), mirror.TaskDone)
	e.document(storageOf("room"))
}

func missingChildInTombstone(e *env) {
	e.mirrorBoth("room")
	e.deleteRoom("room")
	e.raise(storageOf("room"))
	e.want("ApplyMissing", e.applyMissing(e.claim(storageOf("room"))), mirror.Applied{})
	e.wantState(storageOf("room"), mirror.TaskDone)
	e.wantState(roomOf("room"), mirror.TaskDone)
}

func missingChildBack(e *env) {
	e.mirrorBoth("room")
	e.raise(storageOf("room"))
	e.applyMissing(e.claim(storageOf("room")))
	e.pass(time.Hour)
	applied := e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{"a":1}`))
	e.want("ApplyDocument", applied, mirror.Applied{})
	if f := e.document(storageOf("room")).Freshness; !f.MissingSince.IsZero() {
		e.Fatalf("Freshness = %+v; want it no longer missing", f)
	}
}

func readTogether(e *env) {
	e.mirrorBoth("a")
	e.mirrorBoth("b")
	e.mirrorBoth("gone")
	e.deleteRoom("gone")
	a, b := e.document(storageOf("a")), e.document(storageOf("b"))
	if len(a.Content) == 0 || len(b.Content) == 0 {
		e.Fatalf("Document has no content")
	}
	gone, err := e.Document(e.ctx(), storageOf("gone"), true)
	e.must("Document of a deleted room", err)
	bare := a
	bare.Content = nil
	other := a.SHA256
	other[0]++
	foreign := storageOf("a")
	foreign.Project = "another"
	got, err := e.ReadDocuments(e.ctx(), []store.DocumentRead{
		{Resource: storageOf("b")},
		{Resource: storageOf("a"), Have: a.SHA256},
		{Resource: storageOf("nowhere"), Have: a.SHA256},
		{Resource: storageOf("a"), Have: other},
		{Resource: storageOf("a")},
		{Resource: storageOf("gone")},
		{Resource: storageOf("gone"), Deleted: true},
		{Resource: foreign},
	}, 1<<20)
	e.must("ReadDocuments", err)
	e.want("ReadDocuments", got, []*mirror.Document{&b, &bare, nil, &a, &a, nil, &gone, nil})

	got, err = e.ReadDocuments(e.ctx(), []store.DocumentRead{{Resource: storageOf("a")}}, a.Size)
	e.must("ReadDocuments of just as much as may come along", err)
	e.want("ReadDocuments of just as much as may come along", got, []*mirror.Document{&a})
	got, err = e.ReadDocuments(e.ctx(), []store.DocumentRead{{Resource: storageOf("a")}}, a.Size-1)
	e.must("ReadDocuments of a document too long to come along", err)
	e.want("ReadDocuments of a document too long to come along", got, []*mirror.Document{&bare})

	got, err = e.ReadDocuments(e.ctx(), nil, 1<<20)
	e.must("ReadDocuments of nothing", err)
	e.want("ReadDocuments of nothing", got, []*mirror.Document(nil))
}
