package erase_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/pack"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/erase"
)

const (
	project = mirror.ProjectID("default")
	// user is an id that forms of text spell in different ways; mark is in all of them.
	user = "zoë \"q\" " + mark
	mark = "zanzibar7"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var zoe = erase.User{Project: project, Subject: store.Subject{User: user}}

// tables are tables of a database, by name, with the types of their columns by name.
type tables map[string]map[string]string

func tablesOf(t *testing.T, e *dbtest.Engine, db *dbtest.DB) tables {
	t.Helper()
	all := make(tables)
	// Computed columns take no values.
	err := db.Each(t.Context(), "select table_name, column_name, data_type from information_schema.columns "+
		"where table_name like 'mirror%' and table_schema = "+e.Schema+" and coalesce(generation_expression, '') = ''",
		func(scan func(dest ...any) error) error {
			var table, name, data string
			if err := scan(&table, &name, &data); err != nil {
				return err
			}
			if all[table] == nil {
				all[table] = make(map[string]string)
			}
			all[table][name] = data
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// insert inserts a row with these values, and something without a user elsewhere.
func (ts tables) insert(t *testing.T, db *dbtest.DB, table string, values map[string]any) {
	t.Helper()
	var names []string
	var args []any
	for name, data := range ts[table] {
		value, given := values[name]
		switch {
		case given:
		case data == "smallint", data == "integer", data == "int", data == "bigint", data == "tinyint":
			value = 0
		case data == "boolean":
			value = false
		case name == "delete_time", name == "lease_until", name == "due_time", name == "lease_token":
			value = nil
		case data == "datetime", strings.HasPrefix(data, "timestamp"):
			value = at
		case strings.HasSuffix(name, "sha256"):
			value = strings.Repeat("\x01", 32)
		case name == "batch_token", name == "digest":
			value = strings.Repeat("\x01", 16)
		case name == "secret_sha":
			value = "\x01"
		case data == "json", data == "jsonb", data == "longtext": // which JSON is on MariaDB
			value = "{}"
		default:
			value = "other"
		}
		binary := data == "bytea" || strings.HasSuffix(data, "blob") || strings.HasSuffix(data, "binary")
		if text, ok := value.(string); ok && binary {
			value = []byte(text)
		}
		names, args = append(names, name), append(args, value)
	}
	if _, err := db.Exec(t.Context(), "insert into "+table+" ("+strings.Join(names, ", ")+") values (?"+
		strings.Repeat(", ?", len(names)-1)+")", args...); err != nil {
		t.Fatalf("%s: %v", table, err)
	}
}

// spelling is a way in which a column can have the id. It is erased where it is known to be the
// id of a user, and everywhere where it is a word.
type spelling struct {
	text         string
	erased, word bool
}

func spellings(t *testing.T, table *store.PersonalTable, c store.PersonalColumn) (list []spelling) {
	t.Helper()
	quoted, err := json.Marshal(user)
	if err != nil {
		t.Fatal(err)
	}
	ascii := strings.ReplaceAll(string(quoted), "ë", `\u00EB`)
	inString, err := json.Marshal(`{"by":` + ascii + `}`)
	if err != nil {
		t.Fatal(err)
	}
	switch c.Form {
	case store.PersonalID:
		own := c.Name == table.Owner
		list = append(list, spelling{user, own, true})
		if !own {
			list = append(list, spelling{"notes-" + user, false, true})
		}
	case store.PersonalText:
		list = append(list, spelling{"ask @" + user + ", please", false, true}, spelling{"pre" + user, false, false})
	default:
		for _, id := range []string{string(quoted), ascii} {
			list = append(list, spelling{`{"userId":` + id + `,"n":[2]}`, true, true},
				spelling{`{"list":["x",` + id + `]}`, false, true},
				spelling{`{"type":"mention","id":` + id + `}`, true, true},
				spelling{`{"info":{"role":` + id + `}}`, false, true},
				spelling{`{"metadata":{` + id + `:{"x":1}}}`, false, true},
				spelling{`{"usersAccesses":{` + id + `:["room:write"]}}`, true, true},
				spelling{`{"text":"ask @` + strings.Trim(id, `"`) + `, please"}`, false, true})
		}
		list = append(list, spelling{`{"state":` + string(inString) + `}`, false, true},
			spelling{`{"w":"pre` + strings.TrimPrefix(ascii, `"`) + `}`, false, false})
		if c.Form == store.PersonalSource {
			list = append(list, spelling{"no JSON of " + user, false, true})
		}
		if c.Form == store.PersonalContent {
			list = append(list, spelling{"\x01\x00\x11a" + user + "b\xff\x00", false, true})
		}
	}
	for i := range list {
		list[i].erased, list[i].word = list[i].erased && !c.Kept || c.Name == table.Owner, list[i].word && !c.Kept
		// A document that has it in any way goes as a whole.
		list[i].word = list[i].word || table.Name == "mirror_document"
	}
	return list
}

func personal(name string) *store.PersonalTable {
	return store.Personal[slices.IndexFunc(store.Personal, func(t *store.PersonalTable) bool { return t.Name == name })]
}

// filler puts rows into all tables that can hold the id.
type filler struct {
	*testing.T

	tables tables
	db     *dbtest.DB
	codec  *pack.Codec
	n      int
}

// row inserts a row with some values. What it is in is deleted, unless it lives.
func (f *filler) row(table *store.PersonalTable, values map[string]any, lives bool) mirror.Resource {
	f.Helper()
	f.n++
	r := mirror.Resource{Project: project, Room: mirror.RoomID(fmt.Sprintf("room-%d", f.n)), Kind: mirror.KindRoom}
	if room, ok := values["room_id"].(string); ok && table.Kind == mirror.KindRoom {
		r.Room = mirror.RoomID(room)
	}
	grouped := table.Kind == mirror.KindGroup
	if grouped {
		r.Room = ""
	}
	deleted := any(at)
	if lives {
		deleted = nil
	}
	all := map[string]any{"bucket": r.Bucket(), "project_id": string(project)}
	for _, key := range table.Key {
		all[key.Name] = fmt.Sprintf("k-%d", f.n)
		if key.Number {
			all[key.Name] = 2
		}
	}
	all["room_id"] = string(r.Room)
	if table.Name == "mirror_comment_mention" {
		all["kind"] = "user"
	}
	plain := "{}"
	if content, ok := values["content"].(string); ok {
		plain = content
	}
	maps.Copy(all, values)
	if table.Name == "mirror_document" {
		all["content"], all["size"] = f.codec.Pack([]byte(plain)), len(plain)
	}
	if table.Kind == mirror.KindRoom || table.Name == "mirror_group" {
		all["delete_time"] = deleted
	}
	all["epoch"] = 3
	f.tables.insert(f.T, f.db, table.Name, all)
	if table.Copy && table.Kind != mirror.KindRoom && !grouped {
		f.in(r, "mirror_room", map[string]any{"epoch": 3, "delete_time": deleted})
	}
	head := map[string]any{"bucket": r.Bucket(), "project_id": string(project), "epoch": 3}
	switch {
	case !lives:
	case table.Kind == mirror.KindThread && table.Name != "mirror_thread":
		head["room_id"], head["thread_id"] = string(r.Room), all["thread_id"]
		f.tables.insert(f.T, f.db, "mirror_thread", head)
	case grouped && table.Name != "mirror_group":
		head["group_id"] = all["group_id"]
		f.tables.insert(f.T, f.db, "mirror_group", head)
	}
	var key []any
	for _, c := range table.Key {
		if number, ok := all[c.Name].(int); ok {
			key = append(key, int64(number))
			continue
		}
		key = append(key, all[c.Name])
	}
	return table.Resource(project, key)
}

// in inserts a row in the room of a resource.
func (f *filler) in(r mirror.Resource, table string, values map[string]any) {
	f.Helper()
	all := map[string]any{"bucket": r.Bucket(), "project_id": string(project), "room_id": string(r.Room)}
	maps.Copy(all, values)
	f.tables.insert(f.T, f.db, table, all)
}

// holding counts the rows of all tables that hold the mark, by column, decompressed if they
// are compressed.
func (f *filler) holding() map[string]int64 {
	f.Helper()
	unpack, err := zstd.NewReader(nil)
	if err != nil {
		f.Fatal(err)
	}
	defer unpack.Close()
	found := make(map[string]int64)
	for table := range f.tables {
		rows, err := f.db.QueryContext(f.Context(), "select * from "+table)
		if err != nil {
			f.Fatal(err)
		}
		names, err := rows.Columns()
		if err != nil {
			f.Fatal(err)
		}
		for rows.Next() {
			row, dest := make([]sql.RawBytes, len(names)), make([]any, len(names))
			for i := range row {
				dest[i] = &row[i]
			}
			if err := rows.Scan(dest...); err != nil {
				f.Fatal(err)
			}
			for i, value := range row {
				plain, err := unpack.DecodeAll(value, nil)
				if bytes.Contains(value, []byte(mark)) || err == nil && bytes.Contains(plain, []byte(mark)) {
					found[table+"."+names[i]]++
				}
			}
		}
		err = errors.Join(rows.Err(), rows.Close()) //nolint:sqlclosecheck // one of many
		if err != nil {
			f.Fatal(err)
		}
	}
	return found
}

func fill(t *testing.T, e *dbtest.Engine) (*filler, store.Store) {
	t.Helper()
	codec, err := pack.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(codec.Close)
	url := e.Database(t)
	db := e.Connect(t, url)
	s, err := engine.Open(t.Context(), engine.Config{URL: url, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &filler{T: t, tables: tablesOf(t, e, db), db: db, codec: codec}, s
}

// erased runs an erasure and returns its last report, with all that remains.
func erased(t *testing.T, s erase.Store, dryRun bool) (last erase.Report, pending []mirror.Pending, changes int) {
	t.Helper()
	return erasedAs(t, s, erase.User{Project: project, Subject: store.Subject{User: user}, DryRun: dryRun})
}

func erasedAs(t *testing.T, s erase.Store, who erase.User) (last erase.Report, pending []mirror.Pending, changes int) {
	t.Helper()
	eraser := erase.New(erase.Config{
		Store: s, Now: func() time.Time { return at.Add(time.Hour) },
		Pending:   func(p []mirror.Pending) { pending = append(pending, p...) },
		Committed: func(c []mirror.Change) { changes += len(c) },
	})
	var remaining []erase.Remaining
	err := eraser.User(t.Context(), who, func(r erase.Report) error {
		if r.Buckets != last.Buckets+1 {
			t.Errorf("%d buckets are done after %d", r.Buckets, last.Buckets)
		}
		last, remaining = r, append(remaining, r.Remaining...)
		return nil
	})
	if err != nil || last.Buckets != mirror.Buckets {
		t.Fatalf("User = %v after %d buckets", err, last.Buckets)
	}
	last.Remaining = remaining
	return last, pending, changes
}

// After an erasure, no column of any table has the id as one of a user, however it was spelled,
// and what holds it in other ways is told. A dry run tells the same and changes nothing.
func TestNothingHoldsTheID(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) { nothingHolds(t, e, false) })
}

// After an erasure everywhere, no column of any table has the id as a word, however it was
// spelled, but these: names of rooms and groups, entries of the audit, and inboxes of others,
// which are at Liveblocks. They are told.
func TestNothingHoldsTheIDEverywhere(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		got := slices.Sorted(maps.Keys(nothingHolds(t, e, true)))
		if want := []string{
			"mirror_audit.caller", "mirror_audit.resource_id", "mirror_audit.room_id", "mirror_event.room_id",
			"mirror_group.group_id", "mirror_notification.inbox", "mirror_notification.inbox_json", "mirror_room.room_id",
		}; !slices.Equal(got, want) {
			t.Errorf("these have the id as a word: %q; want %q", got, want)
		}
	})
}

// nothingHolds fills all tables, erases the user, and returns which columns have the id as a
// word then.
func nothingHolds(t *testing.T, e *dbtest.Engine, everywhere bool) map[string]bool {
	words := make(map[string]bool)
	f, s := fill(t, e)
	want, remain := make(map[string]*erase.Table), make(map[string]int64)
	total := func(table string) *erase.Table {
		if want[table] == nil {
			want[table] = &erase.Table{Name: table}
		}
		return want[table]
	}
	for _, table := range store.Personal {
		for _, c := range table.Columns {
			for _, how := range spellings(t, table, c) {
				f.row(table, map[string]any{c.Name: how.text}, false)
				switch own := c.Name == table.Owner && how.text == user; {
				case own && !table.Blanked, everywhere && table.Name == "mirror_document":
					total(table.Name).Removed++
				case own || how.erased || everywhere && how.word:
					total(table.Name).Rewritten++
				default:
					if !strings.Contains(how.text, "pre") {
						words[table.Name+"."+c.Name] = true
					}
					remain[table.Name+"."+c.Name]++
					if total(table.Name); table.Name == "mirror_notification" && c.Kept {
						want[table.Name].Living++
					} else {
						want[table.Name].Other++
					}
				}
			}
		}
		if table.Owner == "" {
			continue
		}
		// A row of the user, with the id everywhere.
		all := map[string]any{}
		for _, c := range table.Columns {
			list := spellings(t, table, c)
			if all[c.Name] = list[len(list)-1].text; c.Name == "room_id" {
				delete(all, "room_id")
			}
		}
		all[table.Owner] = user
		f.row(table, all, false)
		if table.Blanked {
			total(table.Name).Rewritten++
		} else {
			total(table.Name).Removed++
		}
	}
	waiting := personal("mirror_unfolded_event")
	f.row(waiting, map[string]any{"payload": `{"data":{"text":"` + mark + `","userId":"zo\u00EB \"q\" ` + mark + `"}}`}, false)
	total(waiting.Name).Removed++
	var tables []erase.Table
	for _, table := range store.Personal {
		tables = append(tables, *total(table.Name))
	}
	before := f.holding()
	for _, table := range store.Personal {
		for _, c := range table.Columns {
			if before[table.Name+"."+c.Name] == 0 {
				t.Errorf("no row has the id in %s.%s", table.Name, c.Name)
			}
		}
	}

	who := erase.User{Project: project, Subject: store.Subject{User: user, Everywhere: everywhere}, DryRun: true}
	dry, pending, _ := erasedAs(t, s, who)
	who.DryRun = false
	if !reflect.DeepEqual(dry.Tables, tables) {
		t.Errorf("a dry run tells %+v; want %+v", dry.Tables, tables)
	}
	if got := f.holding(); !maps.Equal(got, before) || len(pending) > 0 {
		t.Errorf("after a dry run these have the id: %v; want %v, and no requests but %v", got, before, pending)
	}
	done, _, changes := erasedAs(t, s, who)
	if !reflect.DeepEqual(done, dry) {
		t.Errorf("erased is %+v; want what the dry run told: %+v", done, dry)
	}
	if changes != 0 {
		t.Errorf("%d changes of resources without a state", changes)
	}
	got := f.holding()
	if !maps.Equal(got, remain) {
		t.Errorf("these still have the id: %v; want what is told: %v", got, remain)
	}
	again, _, _ := erasedAs(t, s, who)
	for i := range tables {
		tables[i].Removed, tables[i].Rewritten = 0, 0
	}
	tables = slices.DeleteFunc(tables, func(x erase.Table) bool { return x.Living+x.Other == 0 })
	if !reflect.DeepEqual(again.Tables, tables) || !reflect.DeepEqual(again.Remaining, done.Remaining) {
		t.Errorf("a second erasure tells %+v; want %+v", again.Tables, tables)
	}
	return words
}

// What lives stays as it is, is told, and fetched again if it has the id as one of a user.
func TestWhatLivesRemains(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f, s := fill(t, e)
		type holds struct{ exact, known bool }
		want, rows := make(map[mirror.Resource]holds), make(map[string]int64)
		requests := int64(0)
		for _, table := range store.Personal {
			if !table.Copy {
				continue
			}
			for _, c := range table.Columns {
				for _, how := range spellings(t, table, c) {
					r := f.row(table, map[string]any{c.Name: how.text}, true)
					has := func(some ...string) bool {
						return json.Valid([]byte(how.text)) && slices.ContainsFunc(some, func(member string) bool {
							return strings.Contains(how.text, member)
						})
					}
					known := how.text == user || has(`"userId"`, `"mention"`, `"usersAccesses"`)
					want[r] = holds{known || has(`"list"`, `"role"`), known}
					if rows[table.Name]++; known {
						requests++
					}
				}
			}
		}
		before := f.holding()
		for _, dryRun := range []bool{true, false} {
			got, pending, changes := erased(t, s, dryRun)
			for _, table := range got.Tables {
				if (table != erase.Table{Name: table.Name, Living: rows[table.Name]}) {
					t.Errorf("table = %+v; want %d living rows", table, rows[table.Name])
				}
			}
			if len(got.Tables) != len(rows) || len(got.Remaining) != len(want) || changes != 0 || got.Requested != requests {
				t.Errorf("%d tables, %d resources, %d of them requested, and %d changes; want %d, %d, %d and none",
					len(got.Tables), len(got.Remaining), got.Requested, changes, len(rows), len(want), requests)
			}
			requested := make(map[mirror.Resource]bool)
			for _, p := range pending {
				requested[p.Resource] = true
			}
			for _, left := range got.Remaining {
				holds, ok := want[left.Resource]
				if !ok || !left.Lives || left.RoomGone || left.Exact != holds.exact || len(left.Columns) != 1 {
					t.Errorf("remaining = %+v; want it living, %+v", left, holds)
				}
				if requested[left.Resource] != (holds.known && !dryRun) {
					t.Errorf("%+v is requested: %t", left, requested[left.Resource])
				}
			}
			if !dryRun { // what is fetched again has a state, and that is named as it is: a room and a group
				before["mirror_resource_state.room_id"], before["mirror_resource_state.resource_id"] = 1, 1
			}
			if held := f.holding(); !maps.Equal(held, before) {
				t.Errorf("these hold the id: %v; want %v", held, before)
			}
		}
	})
}

// uncounted is a store in which counts take too long.
type uncounted struct{ store.Store }

func (uncounted) Remains(context.Context, mirror.Resource) (store.TableRows, error) {
	return nil, errors.New("it takes too long")
}

// crowded is a store with 100 rooms in each bucket that name the user, and live.
type crowded struct {
	store.Store

	requested int64
}

func (*crowded) PersonalRows(_ context.Context, _ mirror.ProjectID, table *store.PersonalTable, _ int16, after []any,
	_ int, _ int64,
) (rows []store.PersonalRow, _ error) {
	if table.Name != "mirror_room" || after != nil {
		return nil, nil
	}
	for i := range 100 {
		rows = append(rows, store.PersonalRow{
			Key: []any{fmt.Sprint(i)}, Values: [][]byte{nil, fmt.Appendf(nil, "%q", user), nil},
		})
	}
	return rows, nil
}

func (*crowded) EraseRows(_ context.Context, _ mirror.ProjectID, _ *store.PersonalTable, _ int16,
	keys [][]any, _ store.Subject, _ bool, _ time.Time,
) (out store.Erased, _ error) {
	for range keys {
		out.Judged = append(out.Judged, store.Judgement{Lives: true, Known: true, Remain: []string{"source_json"}})
	}
	return out, nil
}

func (s *crowded) Request(_ context.Context, requests []mirror.Request, _ time.Time) ([]mirror.Pending, error) {
	s.requested += int64(len(requests))
	return nil, nil
}

// Each resource that is fetched again is a call to Liveblocks, so a run asks for few of many,
// and a dry run tells how many.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	for _, dryRun := range []bool{true, false} {
		s := &crowded{}
		got, _, _ := erased(t, s, dryRun)
		want := int64(10_000)
		if got.Requested != want || len(got.Remaining) != 100*mirror.Buckets {
			t.Errorf("dry run %t: %d requested of %d; want %d of all", dryRun, got.Requested, len(got.Remaining), want)
		}
		if dryRun {
			want = 0
		}
		if s.requested != want {
			t.Errorf("dry run %t: %d requests; want %d", dryRun, s.requested, want)
		}
	}
}

func TestEraseRoom(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f, s := fill(t, e)
		r := f.row(personal("mirror_comment"), map[string]any{"plain_text": mark}, true)
		room := mirror.Resource{Project: project, Room: r.Room, Kind: mirror.KindRoom}
		eraser := erase.New(erase.Config{Store: s, Now: time.Now})
		var refused *fault.Error
		for _, dryRun := range []bool{true, false} {
			if _, err := eraser.Room(t.Context(), room, dryRun); !errors.As(err, &refused) ||
				refused.Reason != fault.ReasonRoomNotDeleted {
				t.Errorf("Room of a room that lives = %v; want it refused", err)
			}
		}
		nowhere := room
		nowhere.Room = "nowhere"
		if _, err := eraser.Room(t.Context(), nowhere, false); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Room of none = %v", err)
		}
		if f.holding()["mirror_comment.plain_text"] != 1 {
			t.Error("a room that lives was erased")
		}
		if _, err := f.db.Exec(t.Context(), "update mirror_room set delete_time = ?, source_json = ?", at,
			[]byte(mark)); err != nil {
			t.Fatal(err)
		}
		f.in(room, "mirror_event", map[string]any{"user_id": user})
		pending, err := s.Request(t.Context(), []mirror.Request{{Resource: room}}, at)
		if err != nil || len(pending) != 1 {
			t.Fatalf("Request = %v, %v", pending, err)
		}
		for _, dryRun := range []bool{true, false} {
			if _, err := eraser.Room(t.Context(), room, dryRun); !errors.As(err, &refused) ||
				refused.Reason != fault.ReasonRoomNotDeleted {
				t.Errorf("Room of one that may be back, dry run %t = %v; want it refused", dryRun, err)
			}
		}
		if _, err := f.db.Exec(t.Context(), "update mirror_resource_state set due_time = null, "+
			"applied_generation = generation"); err != nil {
			t.Fatal(err)
		}
		want := store.TableRows{"mirror_comment": 1, "mirror_thread": 1, "mirror_room": 1, "mirror_event": 1}
		for _, dryRun := range []bool{true, false} {
			if !dryRun { // it counts what it removes
				eraser = erase.New(erase.Config{Store: uncounted{s}, Now: time.Now})
			}
			if rows, err := eraser.Room(t.Context(), room, dryRun); err != nil || !maps.Equal(rows, want) {
				t.Errorf("Room of a deleted room, dry run %t = %v, %v; want %v", dryRun, rows, err, want)
			}
		}
		if got := f.holding(); len(got) > 0 {
			t.Errorf("these still hold the id: %v", got)
		}
		if rows, err := eraser.Room(t.Context(), room, false); err != nil || len(rows) > 0 {
			t.Errorf("Room once more = %v, %v; want nothing", rows, err)
		}
		if stored, err := s.Room(t.Context(), room, true); err != nil || stored.Freshness.DeleteTime.IsZero() {
			t.Errorf("the room = %+v, %v; want its tombstone", stored, err)
		}
	})
}

// returning is a store to which somebody writes after a purge, some times.
type returning struct {
	store.Store

	times int
	write func()
}

func (s *returning) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (store.TableRows,
	error,
) {
	rows, err := s.Store.PurgeRoom(ctx, room, before, limit)
	if len(rows) == 0 && s.times > 0 {
		s.times--
		s.write()
	}
	return rows, err
}

// What is written while a room is erased goes too, or the erasure fails.
func TestErasedRoomIsEmpty(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f, s := fill(t, e)
		r := f.row(personal("mirror_user_session"), map[string]any{"user_id": user}, false)
		room := mirror.Resource{Project: project, Room: r.Room, Kind: mirror.KindRoom}
		f.in(room, "mirror_room", map[string]any{"delete_time": at})
		back := &returning{s, 1, func() {
			f.in(r, "mirror_user_session", map[string]any{"session_id": "back", "user_id": user})
		}}
		eraser := erase.New(erase.Config{Store: back, Now: time.Now})
		rows, err := eraser.Room(t.Context(), room, false)
		if want := (store.TableRows{"mirror_user_session": 2}); err != nil || rows["mirror_user_session"] != 2 {
			t.Errorf("Room = %v, %v; want %v", rows, err, want)
		}
		if got := f.holding(); len(got) > 0 {
			t.Errorf("these still hold the id: %v", got)
		}
		back.times = 1000
		back.write()
		var refused *fault.Error
		if rows, err := eraser.Room(t.Context(), room, false); !errors.As(err, &refused) ||
			refused.Reason != fault.ReasonRoomNotDeleted {
			t.Errorf("Room to which somebody always writes = %v, %v; want it to fail", rows, err)
		}
	})
}

// A document that cannot be read may name anybody, and is told.
func TestUnreadableDocumentsAreTold(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f, s := fill(t, e)
		f.row(personal("mirror_document"), map[string]any{"content": `{"by":"nobody"}`}, false)
		dead := f.row(personal("mirror_document"), map[string]any{"content": `{"by":"` + mark + `"}`}, false)
		living := f.row(personal("mirror_document"), map[string]any{"content": `{"by":"` + mark + `"}`}, true)
		for _, r := range []mirror.Resource{dead, living} {
			if _, err := f.db.Exec(t.Context(), "update mirror_document set content = ? where room_id = ?", []byte("damaged"),
				[]byte(r.Room)); err != nil {
				t.Fatal(err)
			}
		}
		for _, dryRun := range []bool{true, false} {
			got, pending, _ := erased(t, s, dryRun)
			if want := []erase.Table{{Name: "mirror_document", Living: 1, Other: 1}}; !slices.Equal(got.Tables, want) ||
				len(got.Remaining) != 2 || len(pending) > 0 {
				t.Fatalf("erased = %+v, %d requests; want %+v", got, len(pending), want)
			}
			for _, left := range got.Remaining {
				if left.Exact || !left.Unreadable || !slices.Equal(left.Columns, []string{"mirror_document.content"}) {
					t.Errorf("remaining = %+v; want its content", left)
				}
			}
		}
	})
}

// What goes with the comments of the user is not told as what remains, not by a dry run either.
func TestAttachmentsGoWithTheirComments(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f, s := fill(t, e)
		r := f.row(personal("mirror_comment"), map[string]any{"user_id": user}, false)
		for id, comment := range map[string]string{"of the user": fmt.Sprintf("k-%d", f.n), "of another": "other"} {
			f.in(r, "mirror_comment_attachment", map[string]any{
				"thread_id": r.ID, "comment_id": comment, "attachment_id": id, "name": "cv of " + user,
			})
		}
		for _, dryRun := range []bool{true, false} {
			got, _, _ := erased(t, s, dryRun)
			want := []erase.Table{
				{Name: "mirror_comment", Rewritten: 1}, {Name: "mirror_comment_attachment", Removed: 1, Other: 1},
			}
			if !slices.Equal(got.Tables, want) {
				t.Errorf("dry run %t: %+v; want %+v", dryRun, got.Tables, want)
			}
		}
	})
}

// Terms are hashes of what the JSON of a room or a thread says, ids of users among it. They go
// with that, and stay as long as it lives.
func TestTermsGoWithTheirJSON(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f, s := fill(t, e)
		named := map[string]any{"source_json": `{"usersAccesses":{"zo\u00EB \"q\" ` + mark + `":[]}}`}
		dead, living := f.row(personal("mirror_room"), named, false), f.row(personal("mirror_room"), named, true)
		another := f.row(personal("mirror_room"), map[string]any{"source_json": `{"usersAccesses":{"bob":[]}}`}, false)
		for _, r := range []mirror.Resource{dead, living, another} {
			for _, term := range []string{"1", "2"} {
				f.in(r, "mirror_room_term", map[string]any{"term": strings.Repeat(term, 16)})
			}
		}
		thread := f.row(personal("mirror_thread"), map[string]any{"source_json": `{"metadata":{"createdBy":"zoë \"q\" ` + mark + `"}}`}, false)
		for id, of := range map[string]string{"its": thread.ID, "of another": "other"} {
			f.in(thread, "mirror_thread_term", map[string]any{"thread_id": of, "term": id})
		}
		for _, dryRun := range []bool{true, false} {
			erased(t, s, dryRun)
			left, want := 0, 1
			if dryRun {
				want = 2
			}
			if err := f.db.QueryRowContext(t.Context(), "select count(*) from mirror_thread_term").Scan(&left); err != nil ||
				left != want {
				t.Errorf("dry run %t: threads have %d terms, %v; want %d", dryRun, left, err, want)
			}
			for r, want := range map[mirror.Resource]int{dead: 0, living: 2, another: 2} {
				if dryRun {
					want = 2
				}
				got, query := 0, "select count(*) from mirror_room_term where room_id = '"+string(r.Room)+"'"
				if err := f.db.QueryRowContext(t.Context(), query).Scan(&got); err != nil || got != want {
					t.Errorf("dry run %t: %s has %d terms, %v; want %d", dryRun, r.Room, got, err, want)
				}
			}
		}
	})
}

// failing ends after some calls.
type failing struct {
	store.Store

	left int
	// at has the calls at which it ended.
	at map[string]bool
}

var errEnded = errors.New("ended")

func (s *failing) step(call string) error {
	if s.left--; s.left >= 0 {
		return nil
	}
	s.at[call] = true
	return errEnded
}

func (s *failing) PersonalRows(ctx context.Context, p mirror.ProjectID, table *store.PersonalTable, bucket int16,
	after []any, limit int, size int64,
) ([]store.PersonalRow, error) {
	rows, err := s.Store.PersonalRows(ctx, p, table, bucket, after, limit, size)
	if err == nil && len(rows) > 0 { // nothing can be left where nothing is found
		err = s.step("PersonalRows")
	}
	return rows, err
}

func (s *failing) EraseRows(ctx context.Context, p mirror.ProjectID, table *store.PersonalTable, bucket int16,
	keys [][]any, who store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	if err := s.step("EraseRows"); err != nil {
		return store.Erased{}, err
	}
	return s.Store.EraseRows(ctx, p, table, bucket, keys, who, dryRun, now)
}

func (s *failing) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	if err := s.step("Request"); err != nil {
		return nil, err
	}
	return s.Store.Request(ctx, requests, now)
}

// An erasure that ends anywhere leaves nothing that the next one does not find.
func TestErasureEndsEarly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f, s := fill(t, e)
		r := f.row(personal("mirror_comment"), map[string]any{"user_id": user, "plain_text": mark, "source_json": `{"userId":"` + mark + `"}`}, false)
		for table, more := range map[string]map[string]any{
			"mirror_comment_attachment": {
				"thread_id": r.ID, "comment_id": fmt.Sprintf("k-%d", f.n), "attachment_id": "at",
				"name": mark,
			},
			"mirror_comment_reaction": {"thread_id": r.ID, "comment_id": "x", "user_id": user},
			"mirror_user_session":     {"session_id": "s", "user_id": user},
			"mirror_event":            {"event_id": "e", "user_id": user, "payload": mark},
			"mirror_notification":     {"notification_id": "n", "event_id": "e", "user_id": user, "inbox_json": mark},
		} {
			f.in(r, table, more)
		}
		living := f.row(personal("mirror_room"), map[string]any{"source_json": `{"createdBy":"zo\u00EB \"q\" ` + mark + `"}`}, true)
		ended, requested := make(map[string]bool), []mirror.Pending(nil)
		run := func(left int) (calls int, err error) {
			broken := &failing{s, left, ended}
			requested = nil
			eraser := erase.New(erase.Config{
				Store: broken, Now: time.Now, Committed: func([]mirror.Change) {},
				Pending: func(p []mirror.Pending) { requested = append(requested, p...) },
			})
			if err = eraser.User(t.Context(), zoe, func(erase.Report) error { return nil }); err != nil &&
				!errors.Is(err, errEnded) {
				t.Fatalf("User = %v", err)
			}
			return left - broken.left, err
		}
		left, calls, err := 0, 0, errEnded
		for ; err != nil; left++ {
			calls, err = run(left)
		}
		if _, err := run(calls - 1); err == nil { // the last one requests what lives
			t.Error("User has ended although its last call failed")
		}
		if _, err := run(calls); err != nil {
			t.Fatalf("User = %v", err)
		}
		got := f.holding()
		if !maps.Equal(got, map[string]int64{"mirror_room.source_json": 1}) || len(ended) < 3 {
			t.Errorf("after ends at %v these hold the id: %v; want what lives, and an end at each call", ended, got)
		}
		if len(requested) != 1 || requested[0].Resource != living {
			t.Errorf("requested = %v; want what lives", requested)
		}
		ctx, cancel := context.WithCancel(t.Context())
		parts := 0
		err = erase.New(erase.Config{Store: s, Now: time.Now}).User(ctx, zoe,
			func(erase.Report) error {
				parts++
				cancel()
				return nil
			})
		if !errors.Is(err, context.Canceled) || parts != 1 {
			t.Errorf("User = %v after %d parts; want the end of its context after one", err, parts)
		}
	})
}
