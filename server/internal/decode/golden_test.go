// Package decode_test pins what the decoders make of documents, down to every
// stored hash and derived column.
package decode_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/flow"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/notification"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/presence"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/tiptap"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Where the decoders and their test data are, seen from here.
const (
	decoders = "."
	webhooks = "../ingest/webhook"
)

var update = flag.Bool("update", false, "write testdata/golden/*.ndjson")

// TestGolden holds what is made of every document of the corpus to what version
// a1887a4 made of it; see testdata/golden/README.md.
func TestGolden(t *testing.T) {
	t.Parallel()
	c := readCorpus(t)
	for file, observe := range map[string]func(corpus) golden{
		"storage.ndjson":      observeStorage,
		"ydoc.ndjson":         observeYdocs,
		"rawjson.ndjson":      observeValues,
		"thread.ndjson":       observeThreads,
		"presence.ndjson":     observePresence,
		"notification.ndjson": observeNotifications,
		"webhook.ndjson":      observeWebhooks,
		"room.ndjson":         observeRooms,
		"client.ndjson":       observeClient,
		"filter.ndjson":       observeFilters,
	} {
		t.Run(strings.TrimSuffix(file, ".ndjson"), func(t *testing.T) {
			t.Parallel()
			got := observe(c)
			path := filepath.Join("testdata", "golden", file)
			if *update {
				got.write(t, path)
				return
			}
			compare(t, readGolden(t, path), got)
		})
	}
}

// golden maps the name of an input to what was made of it.
type golden map[string]record

// record is what was made of an input: columns and their values. What is absent
// has no member.
type record map[string]string

// refused is the record of what is not taken. What is said of it may change.
func refused() record { return record{"refused": ""} }

func (r record) set(column, value string) {
	if value != "" {
		r[column] = value
	}
}

// bytes tells nil from empty.
func (r record) bytes(column string, value []byte) {
	if value != nil {
		r[column] = string(value)
	}
}

// json is a column beside which there is another for queries, if an engine takes it.
func (r record) json(column string, value []byte) {
	if r.bytes(column, value); value != nil {
		r.set(column+" problem", store.JSONProblem(value))
	}
}

func (r record) flag(column string, value bool) {
	if value {
		r[column] = "true"
	}
}

func (r record) time(column string, value time.Time) {
	if !value.IsZero() {
		r[column] = value.Format(time.RFC3339Nano)
	}
}

// put takes over the columns of another record.
func (r record) put(prefix string, columns record) {
	for column, value := range columns {
		r[prefix+column] = value
	}
}

// short is the form in which a record is kept: a long one as a hash.
func (r record) short() string {
	var columns []string
	for _, column := range slices.Sorted(maps.Keys(r)) {
		columns = append(columns, fmt.Sprintf("%s: %q", column, r[column]))
	}
	all := strings.Join(columns, ", ")
	if len(all) <= 60 {
		return all
	}
	hash := sha256.Sum256([]byte(all))
	return fmt.Sprintf("%d columns, %x", len(columns), hash[:16])
}

// write writes a line for each different record, with the inputs that become it.
func (g golden) write(t *testing.T, path string) {
	t.Helper()
	inputs := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(g)) {
		short := g[name].short()
		inputs[short] = append(inputs[short], name)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	for _, short := range slices.Sorted(maps.Keys(inputs)) {
		if err := encoder.Encode(map[string][]string{short: inputs[short]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readGolden returns what became of each input.
func readGolden(t *testing.T, path string) map[string]string {
	t.Helper()
	was := map[string]string{}
	for line := range bytes.Lines(read(t, path)) {
		var inputs map[string][]string
		unmarshal(t, line, &inputs)
		for short, names := range inputs {
			for _, name := range names {
				was[name] = short
			}
		}
	}
	return was
}

func compare(t *testing.T, want map[string]string, got golden) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		made, ok := got[name]
		switch {
		case !ok:
			t.Errorf("%.200s: the corpus lacks this input", name)
		case made.short() != want[name]:
			var columns strings.Builder
			for _, column := range slices.Sorted(maps.Keys(made)) {
				fmt.Fprintf(&columns, "\n\t%s: %.500q", column, made[column])
			}
			t.Errorf("%.200s becomes%s\nthat is %s; want %s", name, &columns, made.short(), want[name])
		}
	}
}

// corpus is what the decoders are given.
type corpus struct {
	// documents are JSON documents, odd and recorded ones, and what is none.
	documents map[string][]byte
	// values are those of the odd documents that are JSON and short, deep ones those
	// that are nested about as deep as a thread may be.
	values, deep map[string]string
	// updates are Yjs documents.
	updates map[string][]byte
	// deliveries are the bodies of signed webhooks.
	deliveries map[string][]byte
}

func readCorpus(t *testing.T) corpus {
	t.Helper()
	c := corpus{
		documents: map[string][]byte{}, values: map[string]string{}, deep: map[string]string{},
		updates: map[string][]byte{}, deliveries: map[string][]byte{},
	}
	var odd []string
	unmarshal(t, read(t, "testdata/golden/odd.json"), &odd)
	for _, doc := range odd {
		c.documents[doc] = []byte(doc)
		if json.Valid([]byte(doc)) {
			c.values[doc] = doc
		}
	}
	for name, doc := range made() {
		c.documents["made: "+name] = []byte(doc)
		if json.Valid([]byte(doc)) && len(doc) <= 5_000 {
			c.values["made: "+name] = doc
		}
	}
	for n := 40; n <= listed.MaxDepth+1; n++ {
		c.deep[fmt.Sprintf("%d arrays", n)] = strings.Repeat("[", n) + strings.Repeat("]", n)
	}
	for _, decoder := range []string{"flow", "lson", "notification", "presence", "rawjson", "thread", "tiptap", "yjs"} {
		files, errFiles := filepath.Glob(filepath.Join(decoders, decoder, "testdata", "*.*"))
		found, errFound := filepath.Glob(filepath.Join(decoders, decoder, "testdata", "fuzz", "*", "*"))
		if err := errors.Join(errFiles, errFound); err != nil {
			t.Fatal(err)
		}
		for _, path := range append(files, found...) {
			if !slices.Contains([]string{".json", ".bin", ""}, filepath.Ext(path)) {
				continue
			}
			name, err := filepath.Rel(decoders, path)
			if err != nil {
				t.Fatal(err)
			}
			name = strings.NewReplacer("testdata/", "").Replace(filepath.ToSlash(name))
			content := read(t, path)
			if strings.Contains(name, "/fuzz/") {
				content = fuzzed(t, content)
			}
			if strings.HasSuffix(path, ".bin") || strings.HasPrefix(name, "yjs/fuzz/") {
				c.updates[name] = content
			} else {
				c.documents[name] = content
			}
		}
	}
	random := bufio.NewScanner(bytes.NewReader(read(t, filepath.Join(decoders, "yjs/testdata/yjs-fuzz-100.ndjson"))))
	random.Buffer(nil, 1<<20)
	for n := 0; random.Scan(); n++ {
		var line struct {
			U []byte `json:"u"`
		}
		unmarshal(t, random.Bytes(), &line)
		c.updates[fmt.Sprintf("yjs/random %d", n)] = line.U
	}
	for name, doc := range c.values {
		c.updates["value: "+name] = yjsUpdate(doc)
	}
	var vectors []struct{ Name, Body string }
	unmarshal(t, read(t, filepath.Join(webhooks, "testdata/signed-vectors.json")), &vectors)
	for _, v := range vectors {
		c.deliveries[v.Name] = []byte(v.Body)
	}
	return c
}

// made returns what is too long for a file, or not valid UTF-8.
func made() map[string]string {
	docs := map[string]string{
		"byte that is no UTF-8":     "\"\xff\"",
		"byte that is no UTF-8 key": "{\"\xff\":1,\"\xfe\":2}",
		"surrogate in UTF-8":        "\"\xed\xa0\x80\"",
		"overlong UTF-8":            "\"\xc0\x80\"",
		"long number":               strings.Repeat("1234567890", 1_000),
		"long fraction":             "0." + strings.Repeat("0123456789", 1_000),
		"long key":                  `{"` + strings.Repeat("k", 100_000) + `":1}`,
		"long text":                 `"` + strings.Repeat(`ä\u00e4\/`, 20_000) + `"`,
		"many keys":                 "{" + strings.Repeat(`"k":1,`, 5_000) + `"a":2}`,
	}
	for _, n := range []int{64, 65, 128, 129, 512, 513} {
		docs[fmt.Sprintf("id of %d bytes", n)] = `"` + strings.Repeat("i", n) + `"`
	}
	for _, n := range []int{49, 50, 51, 100, 1_000, 9_999, 10_000, 10_001, 20_000} {
		docs[fmt.Sprintf("%d arrays", n)] = strings.Repeat("[", n) + strings.Repeat("]", n)
		if n <= 1_000 {
			docs[fmt.Sprintf("%d objects", n)] = strings.Repeat(`{"o":`, n) + "1" + strings.Repeat("}", n)
			docs[fmt.Sprintf("%d live objects", n)] = strings.Repeat(`{"liveblocksType":"LiveObject","data":{"o":`, n) + "1" + strings.Repeat("}}", n)
		}
	}
	return docs
}

// yjsUpdate is an update that has a value wherever one holds JSON or text: in an
// array a of JSON and of a text, in a text t embedded and as an attribute, and under
// a key of its own in a map m.
func yjsUpdate(value string) []byte {
	text := func(b []byte, s string) []byte {
		n := uint64(len(s))
		for ; n >= 0x80; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		return append(append(b, byte(n)), s...)
	}
	const client, structs = 1, 5
	b := []byte{1, structs, client, 0}
	b = text(append(b, 2, 1), "a")
	b = text(append(b, 1), value)                       // ContentJSON, one value: clock 0
	b = text(append(b, 0x88, client, 0, 1, 119), value) // ContentAny after it, a string: clock 1
	b = text(append(b, 5, 1), "t")
	b = text(b, value) // ContentEmbed: clock 2
	b = text(append(b, 0x86, client, 2), value)
	b = text(b, value) // ContentFormat after it: clock 3
	b = text(append(b, 0x28, 1), "m")
	b = text(b, value)
	b = text(append(b, 1, 119), value) // ContentAny under a key: clock 4
	return append(b, 0)
}

// fuzzed returns the argument of a file of a fuzzing corpus.
func fuzzed(t *testing.T, file []byte) []byte {
	t.Helper()
	_, line, _ := strings.Cut(string(file), "\n")
	quoted := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "[]byte("), ")")
	s, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatalf("corpus of a fuzz test %.100q: %v", file, err)
	}
	return []byte(s)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func unmarshal(t *testing.T, raw []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatalf("read %.100q: %v", raw, err)
	}
}

// of returns the observations of inputs.
func of(inputs map[string][]byte, observe func([]byte) record) golden {
	g := golden{}
	for name, input := range inputs {
		g[name] = observe(input)
	}
	return g
}

// with adds what is made of the values in a template.
func (g golden) with(what string, values map[string]string, template string, observe func([]byte) record) {
	for name, value := range values {
		if r := observe([]byte(strings.ReplaceAll(template, "§", value))); len(r) > 0 {
			g[what+": "+name] = r
		}
	}
}

const maxData = 16 << 20

func document(doc mirror.DocumentContent) record {
	r := record{}
	r.set("content", fmt.Sprintf("%x", sha256.Sum256(doc.Content)))
	r.set("version", strconv.Itoa(doc.DeriveVersion))
	r.bytes("data", doc.Data)
	r.set("problem", doc.DataProblem)
	r.set("text", doc.Text)
	return r
}

func storage(content []byte) record {
	doc := derive.Storage(content, maxData)
	r := document(doc)
	flows, err := flow.Find(doc.Data)
	if err == nil && len(flows) > 0 {
		shown, _ := json.Marshal(flows) // of strings, bytes and finite numbers
		r.bytes("flows", shown)
	}
	if docs := tiptap.Docs(rawjson.Known(doc.Data)); string(docs) != "{}" {
		r.bytes("tiptap", docs)
	}
	return r
}

func observeStorage(c corpus) golden {
	g := of(c.documents, storage)
	g.with("node", c.values, `{"liveblocksType":"LiveObject","data":{"v":§,"w":{"liveblocksType":"LiveText","data":[["x",§]],"version":§},`+
		`"x":{"liveblocksType":"LiveObject","data":§}}}`, storage)
	g.with("tiptap", c.values, `{"_tiptap_docs":{"f":{"type":"doc","content":[{"type":"paragraph","attrs":{"a":§},"content":[`+
		`{"type":"text","text":[[§,{"__liveblocks_tiptap_marks":[{"type":§,"attrs":{"b":§}},§]}],["y"],§]},{"type":"mention","attrs":{"id":§,"label":§}}]},§]}}}`, storage)
	g.with("flow", c.values, `{"f":{"nodes":{"n":{"id":"n","type":§,"position":{"x":1,"y":§},"width":§,"hidden":§,"parentId":§,"data":§}},`+
		`"edges":{"e":{"id":"e","source":§,"target":"n","label":§,"animated":§,"data":§}}},"g":{"nodes":[{"id":§,"position":{"x":§}}],"edges":[]}}`, storage)
	return g
}

func observeYdocs(c corpus) golden {
	return of(c.updates, func(update []byte) record {
		doc, guids := derive.Ydoc(update, maxData)
		r := document(doc)
		r.set("inside", strings.Join(guids, " "))
		return r
	})
}

// observeValues looks at all that is asked of a value.
func observeValues(c corpus) golden {
	return of(c.documents, func(doc []byte) record {
		r := record{}
		v, err := rawjson.Parse(doc)
		if err != nil {
			return refused()
		}
		if v.Depth() <= 1_000 {
			r.bytes("canonical", v.AppendCanonical(nil))
		}
		r.set("depth", strconv.Itoa(v.Depth()))
		r.set("problem", v.Problem())
		r.set("exact", v.Exact())
		r.set("text", v.Text())
		r.set("id", v.ID(mirror.MaxResourceID))
		r.time("time", v.Time())
		if f, ok := v.Float(); ok {
			r.set("float", strconv.FormatFloat(f, 'g', -1, 64))
		}
		if n, ok := v.Int(); ok {
			r.set("int", strconv.FormatInt(n, 10))
		}
		return r
	})
}

func comment(c mirror.Comment) record {
	r := record{}
	r.set("thread", c.Thread)
	r.set("id", c.ID)
	r.set("user", c.UserID)
	r.bytes("source", c.Source)
	r.time("create", c.CreateTime)
	r.time("edit", c.EditTime)
	r.time("delete", c.DeleteTime)
	r.bytes("body", c.Body)
	r.set("text", c.Text)
	r.set("markdown", c.Markdown)
	r.bytes("metadata", c.Metadata)
	for i, reaction := range c.Reactions {
		at := fmt.Sprintf("reaction %d ", i)
		r.set(at+"emoji", reaction.Emoji)
		r.set(at+"user", reaction.UserID)
		r.time(at+"time", reaction.CreateTime)
	}
	for i, a := range c.Attachments {
		r.set(fmt.Sprintf("attachment %d", i), fmt.Sprintf("%s | %s | %s | %d", a.ID, a.Name, a.MIMEType, a.Size))
	}
	for i, m := range c.Mentions {
		r.set(fmt.Sprintf("mention %d", i), strings.Join(append([]string{m.Kind, m.ID}, m.UserIDs...), " | "))
	}
	return r
}

func threadColumns(t mirror.Thread) record {
	r := record{}
	r.set("id", t.ID)
	r.set("source", fmt.Sprintf("%x", sha256.Sum256(t.Source)))
	r.set("hash", fmt.Sprintf("%x", t.SHA256))
	r.time("create", t.CreateTime)
	r.time("update", t.UpdateTime)
	r.flag("resolved", t.Resolved)
	r.set("visibility", t.Visibility)
	r.bytes("metadata", t.Metadata)
	r.set("problem", t.DataProblem)
	for i, c := range t.Comments {
		r.put(fmt.Sprintf("comment %d ", i), comment(c))
	}
	return r
}

// rows are the columns that are written.
func rows(t mirror.Thread) record {
	r := threadColumns(t)
	r.bytes("metadata text", store.MetadataText(t.Metadata))
	r.set("comments", strconv.Itoa(store.CommentCount(t)))
	for i, c := range t.Comments {
		for n, m := range store.MentionRowsOf(c) {
			r.set(fmt.Sprintf("comment %d mention row %d", i, n), strings.Join([]string{m.Kind, m.ID, m.Via}, " | "))
		}
	}
	return r
}

func parsedThread(doc []byte) record {
	t, err := thread.Parse(doc)
	if err != nil {
		return refused()
	}
	return rows(t)
}

func parsedList(doc []byte) record {
	list, err := listed.Parse(doc)
	if err != nil {
		return refused()
	}
	r := record{"threads": strconv.Itoa(len(list))}
	for i, item := range list {
		r.put(fmt.Sprintf("thread %d ", i), parsedThread(item.Source))
	}
	return r
}

// shownThread are the columns of a thread that is shown and not stored.
func shownThread(doc []byte) record {
	t, err := thread.ParseExact(doc)
	if err != nil {
		return refused()
	}
	return threadColumns(t)
}

func shownComment(doc []byte) record {
	c, err := thread.ParseComment(doc)
	if err != nil {
		return refused()
	}
	return comment(c)
}

const (
	// oddComment has a value wherever something is read but its id.
	oddComment = `{"type":"comment","id":"cm_1","threadId":§,"userId":§,"createdAt":§,"editedAt":§,"body":{"version":1,"content":[` +
		`{"type":"paragraph","children":[{"text":§,"bold":§},{"type":"mention","kind":"user","id":§},` +
		`{"type":"mention","kind":"group","id":"g","userIds":[§,"u"]},{"type":"link","url":§,"text":§}]},§]},"metadata":{"k":§,"l":{"m":§}},` +
		`"reactions":[{"emoji":§,"createdAt":§,"users":[{"id":§},{"id":"u"}]},{"emoji":"e","userId":§},§],` +
		`"attachments":[{"id":"at_1","name":§,"size":§,"mimeType":§},{"id":§},§]}`
	oddThread = `{"type":"thread","id":"th_1","createdAt":§,"updatedAt":§,"resolved":§,"visibility":§,"metadata":{"k":§,"n":§},"comments":[` + oddComment + `,§]}`
	// bareThread has one where a thread or a comment would be told by it.
	bareThread = `{"id":"th_1","metadata":§,"comments":[{"id":§,"body":§,"metadata":§,"deletedAt":§},{"id":"cm_2","body":§,"reactions":§,"attachments":§}]}`
)

func observeThreads(c corpus) golden {
	g := of(c.documents, parsedThread)
	for name, doc := range c.documents {
		if strings.HasPrefix(name, "thread/") {
			g["list: "+name], g["shown: "+name], g["comment: "+name] = parsedList(doc), shownThread(doc), shownComment(doc)
		}
	}
	for _, values := range []map[string]string{c.values, c.deep} {
		g.with("odd", values, oddThread, parsedThread)
		g.with("bare", values, bareThread, parsedThread)
		g.with("list", values, `{"data":[{"id":§},{"id":"th_1","metadata":§},§]}`, parsedList)
		g.with("shown", values, `{"id":"th_1","metadata":{"k":§},"comments":[{"id":"cm_1","body":{"content":[§]}}]}`, shownThread)
		g.with("comment", values, oddComment, shownComment)
	}
	g.with("id", c.values, `{"id":§}`, parsedThread)
	g.with("data", c.values, `{"data":§}`, parsedList)
	return g
}

func users(doc []byte) record {
	list, err := presence.ParseUsers(doc)
	if err != nil {
		return refused()
	}
	r := record{}
	for _, u := range list {
		at := fmt.Sprintf("user %d ", u.ConnectionID)
		r.set(at+"id", "= "+u.UserID)
		r.json(at+"info", u.Info)
	}
	return r
}

// received is when the events of the corpus were.
var received = time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)

func event(body []byte) mirror.Event {
	return webhook.Decode("default", "msg_1", body, received, received).Event
}

func sessions(body []byte) record {
	r := record{}
	for i, s := range presence.Fold(nil, []mirror.Event{event(body)}).Upserts {
		at := fmt.Sprintf("session %d ", i)
		r.set(at+"id", s.ID)
		r.set(at+"connection", strconv.FormatInt(s.ConnectionID, 10))
		r.set(at+"user", s.UserID)
		r.json(at+"info", s.Info)
		r.time(at+"enter", s.EnterTime)
		r.time(at+"leave", s.LeaveTime)
		r.set(at+"leave event", s.LeaveEventID)
		r.set(at+"end", string(s.End))
	}
	return r
}

func observePresence(c corpus) golden {
	g := of(c.documents, users)
	g.with("users", c.values, `{"data":[{"type":"user","connectionId":1,"id":§,"info":§},{"connectionId":§,"id":"u","info":{"k":§}},§]}`, users)
	g.with("enter", c.values, `{"type":"userEntered","data":{"roomId":"r","connectionId":1,"userId":§,"userInfo":§,"enteredAt":"2026-01-02T03:04:05Z"}}`, sessions)
	g.with("leave", c.values, `{"type":"userLeft","data":{"roomId":"r","connectionId":§,"userId":"u","userInfo":{"k":§},"leftAt":"2026-01-02T03:04:05Z"}}`, sessions)
	g.with("time", c.values, `{"type":"userEntered","data":{"roomId":"r","connectionId":1,"enteredAt":§}}`, sessions)
	for name, body := range c.deliveries {
		if r := sessions(body); len(r) > 0 {
			g["delivery: "+name] = r
		}
	}
	return g
}

func inbox(doc []byte) record {
	in, err := notification.ParseInbox(doc)
	if err != nil {
		return refused()
	}
	r := record{}
	r.json("source", in.Source)
	r.time("read", in.ReadTime)
	r.time("notify", in.NotifyTime)
	return r
}

func announced(body []byte) record {
	r := record{}
	made, _ := notification.Fold([]mirror.Event{event(body)})
	for _, n := range made {
		r.set("room", string(n.Room))
		r.set("id", n.ID)
		r.set("channel", n.Channel)
		r.set("kind", n.Kind)
		r.set("user", n.UserID)
		r.set("thread", n.ThreadID)
		r.set("mention", n.MentionID)
		r.set("subject", n.SubjectID)
		r.time("create", n.CreateTime)
		r.time("trigger", n.TriggerTime)
	}
	return r
}

func observeNotifications(c corpus) golden {
	g := of(c.documents, inbox)
	g.with("inbox", c.values, `{"id":"in_1","readAt":§,"notifiedAt":§,"activities":[{"data":§}]}`, inbox)
	g.with("event", c.values, `{"type":"notification","data":{"roomId":"r","inboxNotificationId":§,"channel":§,"kind":§,"userId":§,`+
		`"threadId":§,"mentionId":§,"subjectId":§,"createdAt":§,"triggeredAt":§}}`, announced)
	for name, body := range c.deliveries {
		if r := announced(body); len(r) > 0 {
			g["delivery: "+name] = r
		}
	}
	return g
}

func decoded(body []byte) record {
	d := webhook.Decode("default", "msg_1", body, received, received)
	r := record{}
	r.set("outcome", string(d.Event.Outcome))
	r.set("type", d.Event.Type)
	r.set("room", string(d.Event.Room))
	r.set("user", d.Event.User)
	r.set("project", d.Event.LiveblocksProject)
	r.time("source time", d.Event.SourceTime)
	for i, h := range d.Invalidations {
		parts := []string{h.Resource.Kind.String(), string(h.Resource.Room), h.Resource.ID}
		for word, said := range map[string]bool{"if unknown": h.IfUnknown, "deleted": h.Deleted, "fold": h.Fold} {
			if said {
				parts = append(parts, word)
			}
		}
		slices.Sort(parts[3:])
		if h.MinInterval != 0 {
			parts = append(parts, h.MinInterval.String())
		}
		r.set(fmt.Sprintf("stale %d", i), strings.Join(parts, " | "))
	}
	return r
}

func observeWebhooks(c corpus) golden {
	g := of(c.documents, decoded)
	for name, body := range c.deliveries {
		g["delivery: "+name] = decoded(body)
	}
	g.with("type", c.values, `{"type":§,"data":{"roomId":"r"}}`, decoded)
	g.with("room", c.values, `{"type":"storageUpdated","data":{"roomId":§,"projectId":§,"updatedAt":§}}`, decoded)
	g.with("thread", c.values, `{"data":{"userId":§,"deletedBy":"d","roomId":"r","threadId":§,"deletedAt":§,"createdAt":"2026-01-02T03:04:05Z"},"type":"threadDeleted"}`, decoded)
	g.with("notification", c.values, `{"type":"notification","data":{"roomId":null,"inboxNotificationId":§,"appId":§,"triggeredAt":§}}`, decoded)
	g.with("data", c.values, `{"type":"roomCreated","data":§}`, decoded)
	return g
}

// transport answers every call with one document.
type transport []byte

func (body transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)), Request: req,
	}, nil
}

// answered is what the client makes of an answer.
func answered(body []byte, call func(context.Context, *liveblocks.Client, record) error) record {
	key, err := liveblocks.ParseKey("sk_golden")
	if err != nil {
		return refused()
	}
	client := liveblocks.New(liveblocks.Config{
		SecretKey: key, Transport: transport(body), Timeout: time.Minute, MaxBody: 1 << 30,
		RatePerSecond: liveblocks.MaxRatePerSecond,
		Now:           func() time.Time { return received }, Logger: slog.New(slog.DiscardHandler),
	})
	defer client.Close()
	r := record{}
	if err := call(context.Background(), client, r); err != nil {
		return refused()
	}
	return r
}

func room(r record, content mirror.RoomContent) {
	r.bytes("source", content.Source)
	r.time("create", content.CreateTime)
	r.time("last connection", content.LastConnectionTime)
	r.set("organization", content.OrganizationID)
	data, problem := derive.JSON(content.Source)
	r.bytes("data", data)
	r.set("problem", problem)
}

func observeRooms(c corpus) golden {
	one := func(body []byte) record {
		return answered(body, func(ctx context.Context, client *liveblocks.Client, r record) error {
			content, err := client.Room(ctx, "r")
			room(r, content)
			return err
		})
	}
	list := func(body []byte) record {
		return answered(body, func(ctx context.Context, client *liveblocks.Client, r record) error {
			page, err := client.ListRooms(ctx, "c", 10)
			r.set("next", page.Next)
			r.set("rooms", strconv.Itoa(len(page.Rooms)))
			for i, listed := range page.Rooms {
				at := record{"id": string(listed.ID)}
				room(at, listed.Content)
				r.put(fmt.Sprintf("room %d ", i), at)
			}
			return err
		})
	}
	g := golden{}
	g.with("id", c.values, `{"id":§}`, one)
	g.with("odd", c.values, `{"type":"room","id":"r","createdAt":§,"lastConnectionAt":§,"organizationId":§,"tenantId":"t","metadata":{"k":§}}`, one)
	g.with("tenant", c.values, ` {"tenantId":§,"id":"x","id":"r"} `, one)
	g.with("spelling", map[string]string{"escaped": `"\u0072"`, "upper": `"R"`}, `{"id":§,"ID":"r","Id":"r"}`, one)
	g.with("list", c.values, `{"nextCursor":null,"data":[{"id":§},{"id":"r","createdAt":§},§]}`, list)
	g.with("data", c.values, `{"data":§}`, list)
	g.with("cursor", c.values, `{"nextCursor":§,"data":[]}`, list)
	g.with("cursor", map[string]string{"the same": `"c"`}, `{"nextCursor":§,"data":[]}`, list)
	return g
}

// observeClient looks at which answers the client takes.
func observeClient(c corpus) golden {
	calls := map[string]func(context.Context, *liveblocks.Client) (mirror.Fetched, error){
		"storage": func(ctx context.Context, l *liveblocks.Client) (mirror.Fetched, error) { return l.Storage(ctx, "r") },
		"threads": func(ctx context.Context, l *liveblocks.Client) (mirror.Fetched, error) {
			_, err := l.Threads(ctx, "r") // read while it arrives
			if errors.Is(err, listed.ErrDepth) {
				err = nil // the decoder refused it, and the client does now
			}
			return mirror.Fetched{}, err
		},
		"thread": func(ctx context.Context, l *liveblocks.Client) (mirror.Fetched, error) {
			return l.Thread(ctx, "r", "t")
		},
		"users": func(ctx context.Context, l *liveblocks.Client) (mirror.Fetched, error) {
			return l.ActiveUsers(ctx, "r")
		},
		"inbox": func(ctx context.Context, l *liveblocks.Client) (mirror.Fetched, error) {
			return l.InboxNotification(ctx, "u", "n")
		},
	}
	taken := func(body []byte) record {
		var names []string
		for name, call := range calls {
			got := answered(body, func(ctx context.Context, client *liveblocks.Client, r record) error {
				fetched, err := call(ctx, client)
				r.flag("altered", fetched.Body != nil && !bytes.Equal(fetched.Body, body))
				return err
			})
			if !maps.Equal(got, refused()) {
				names = append(names, name+got["altered"])
			}
		}
		slices.Sort(names)
		return record{"taken": strings.Join(names, " ")}
	}
	g := of(c.documents, taken)
	g.with("list", c.values, `{"data":§}`, taken)
	g.with("thread", c.values, `{"id":"t","roomId":§}`, taken)
	g.with("id", c.values, `{"id":§}`, taken)
	g.with("spelling", map[string]string{"t": `"\u0074"`, "n": `"\u006e"`}, `{"id":"x","id":§,"roomId":"\u0072"}`, taken)
	return g
}

// observeFilters looks at what metadata is asked for with.
func observeFilters(c corpus) golden {
	g := golden{}
	for name, value := range c.values {
		r := record{}
		r.bytes("filter", store.MetadataFilter(map[string]string{"k": value, "l\"<": "ä"}))
		g[name] = r
	}
	return g
}
