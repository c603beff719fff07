package erase_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
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

// plainText are the columns with text that is no JSON.
var plainText = []string{"plain_text", "markdown", "last_error", "subject_id", "name"}

// spellings are the ways in which a column can have the id.
func spellings(t *testing.T, c store.PersonalColumn) map[string]string {
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
	texts := map[string]string{
		"value": `{"userId":` + string(quoted) + `}`, "escaped": `{"userId":` + ascii + `}`,
		"member":           `{"usersAccesses":{` + ascii + `:["room:write"]}}`,
		"JSON in a string": `{"state":` + string(inString) + `}`,
	}
	switch {
	case c.Form == store.PersonalID:
		return map[string]string{"raw": user}
	case slices.Contains(plainText, c.Name):
		return map[string]string{"plain text": "ask @" + user + ", please", "raw": user}
	case c.Form == store.PersonalText:
		texts["in a sentence"] = `{"text":"ask @` + strings.Trim(ascii, `"`) + `, please"}`
	case c.Form == store.PersonalContent:
		texts["Yjs"] = "\x01\x00\x11a" + user + "b\xff\x00"
	}
	return texts
}

// fill puts rows of what is deleted into every table that can name a user, each with the
// id in one column and one spelling. It returns how many.
func fill(t *testing.T, ts tables, db *dbtest.DB, codec *pack.Codec) (n int) {
	t.Helper()
	for _, table := range store.Personal {
		for _, c := range table.Columns {
			if c.Kept {
				continue
			}
			for _, text := range spellings(t, c) {
				n++
				room := mirror.Resource{Project: project, Room: mirror.RoomID(fmt.Sprintf("room-%d", n))}
				if table.Kind == mirror.KindGroup {
					room.Room = ""
				}
				values := map[string]any{"bucket": room.Bucket(), "project_id": string(project)}
				for _, key := range table.Key {
					values[key.Name] = fmt.Sprintf("k-%d", n)
					if key.Number {
						values[key.Name] = 2
					}
				}
				values["room_id"] = string(room.Room)
				if table.Name == "mirror_document" {
					plain := "{}"
					if c.Form == store.PersonalContent {
						plain = text
					}
					values["content"], values["size"] = codec.Pack([]byte(plain)), len(plain)
				}
				if c.Form != store.PersonalContent {
					values[c.Name] = text
				}
				if table.Kind == mirror.KindRoom || table.Name == "mirror_group" {
					values["delete_time"] = at
				}
				ts.insert(t, db, table.Name, values)
				if table.Kind != mirror.KindRoom && room.Room != "" {
					ts.insert(t, db, "mirror_room", map[string]any{
						"bucket": room.Bucket(), "project_id": string(project), "room_id": string(room.Room), "epoch": 2,
						"delete_time": at,
					})
				}
			}
		}
	}
	return n
}

// holding lists the columns of all tables that hold the mark, decompressed if they are
// compressed.
func holding(t *testing.T, ts tables, db *dbtest.DB) map[string]int {
	t.Helper()
	unpack, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unpack.Close()
	found := make(map[string]int)
	for table := range ts {
		search(t, db, table, func(column string, value []byte) {
			plain, err := unpack.DecodeAll(value, nil)
			if bytes.Contains(value, []byte(mark)) || err == nil && bytes.Contains(plain, []byte(mark)) {
				found[table+"."+column]++
			}
		})
	}
	return found
}

// search calls see for each value of a table.
func search(t *testing.T, db *dbtest.DB, table string, see func(column string, value []byte)) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "select * from "+table)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		row, dest := make([]sql.RawBytes, len(names)), make([]any, len(names))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		for i, value := range row {
			see(names[i], value)
		}
	}
}

func open(t *testing.T, url string) store.Store {
	t.Helper()
	s, err := engine.Open(t.Context(), engine.Config{URL: url, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// erased runs an erasure and returns its last report, with all that remains.
func erased(t *testing.T, s store.Store, dryRun bool) (last erase.Report, pending []mirror.Pending, changes int) {
	t.Helper()
	eraser := erase.New(erase.Config{
		Store: s, Now: func() time.Time { return at.Add(time.Hour) },
		Pending:   func(p []mirror.Pending) { pending = append(pending, p...) },
		Committed: func(c []mirror.Change) { changes += len(c) },
	})
	var remaining []erase.Remaining
	err := eraser.User(t.Context(), erase.User{Project: project, ID: user, DryRun: dryRun}, func(r erase.Report) error {
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

func rowsOf(r erase.Report) (erasedRows, remaining int64) {
	for _, table := range r.Tables {
		erasedRows, remaining = erasedRows+table.Erased, remaining+table.Remaining
	}
	return erasedRows, remaining
}

// After an erasure no column of any table has the id, however it was spelled.
func TestNothingHoldsTheID(t *testing.T) {
	t.Parallel()
	codec, err := pack.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(codec.Close)
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		db, s := e.Connect(t, url), open(t, url)
		ts := tablesOf(t, e, db)
		rows := fill(t, ts, db, codec)
		before := holding(t, ts, db)
		for _, table := range store.Personal {
			for _, c := range table.Columns {
				if before[table.Name+"."+c.Name] == 0 && !c.Kept {
					t.Errorf("no row has the id in %s.%s", table.Name, c.Name)
				}
			}
		}
		dry, _, _ := erased(t, s, true)
		if n, remaining := rowsOf(dry); n != int64(rows) || remaining != 0 {
			t.Errorf("a dry run finds %d rows and %d that remain; want %d: %+v", n, remaining, rows, dry.Tables)
		}
		if got := holding(t, ts, db); len(got) != len(before) {
			t.Errorf("after a dry run these have the id: %v; want %v", got, before)
		}
		done, _, _ := erased(t, s, false)
		if n, remaining := rowsOf(done); n != int64(rows) || remaining != 0 || len(done.Remaining) > 0 {
			t.Errorf("erased are %d rows, and %d remain; want %d: %+v", n, remaining, rows, done)
		}
		if got := holding(t, ts, db); len(got) > 0 {
			t.Errorf("these still have the id: %v", got)
		}
		again, pending, changes := erased(t, s, false)
		if n, _ := rowsOf(again); n != 0 || len(pending) > 0 || changes > 0 {
			t.Errorf("a second erasure erases %d rows, requests %v and writes %d changes; want nothing", n, pending, changes)
		}
	})
}

// What lives is fetched again and listed, with the columns that name the user; a dry run
// lists the same.
func TestWhatLivesRemains(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		db, s := e.Connect(t, url), open(t, url)
		ts := tablesOf(t, e, db)
		room := mirror.Resource{Project: project, Room: "room of " + user, Kind: mirror.KindRoom}
		key := map[string]any{
			"bucket": room.Bucket(), "project_id": string(project), "room_id": string(room.Room), "epoch": 1,
		}
		with := func(more map[string]any) map[string]any {
			for name, value := range key {
				more[name] = value
			}
			return more
		}
		ts.insert(t, db, "mirror_room", with(map[string]any{"source_json": `{}`}))
		ts.insert(t, db, "mirror_thread", with(map[string]any{"thread_id": "th_1"}))
		ts.insert(t, db, "mirror_comment", with(map[string]any{"thread_id": "th_1", "comment_id": "cm_1", "user_id": user}))
		ts.insert(t, db, "mirror_comment", with(map[string]any{"thread_id": "th_1", "comment_id": "cm_2", "user_id": user}))
		thread := room
		thread.Kind, thread.ID = mirror.KindThread, "th_1"
		want := []erase.Remaining{
			{Resource: room, Columns: []string{"mirror_room.room_id"}},
			{Resource: thread, Columns: []string{"mirror_comment.user_id"}},
		}
		for _, dryRun := range []bool{true, false} {
			got, pending, _ := erased(t, s, dryRun)
			if fmt.Sprint(got.Remaining) != fmt.Sprint(want) {
				t.Errorf("what remains = %+v; want %+v", got.Remaining, want)
			}
			if n, remaining := rowsOf(got); n != 0 || remaining != 2 {
				t.Errorf("%d rows are erased and %d remain; want 0 and 2", n, remaining)
			}
			if dryRun != (len(pending) == 0) {
				t.Errorf("dry run = %t requests %v", dryRun, pending)
			}
		}
		eraser := erase.New(erase.Config{Store: s, Now: time.Now})
		var refused *fault.Error
		if _, err := eraser.Room(t.Context(), room, false); !errors.As(err, &refused) ||
			refused.Reason != fault.ReasonRoomNotDeleted {
			t.Errorf("Room of a room that lives = %v; want it refused", err)
		}
		nowhere := room
		nowhere.Room = "nowhere"
		if _, err := eraser.Room(t.Context(), nowhere, false); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Room of none = %v", err)
		}
		if _, err := db.Exec(t.Context(), "update mirror_room set delete_time = ?", at); err != nil {
			t.Fatal(err)
		}
		for _, dryRun := range []bool{true, false} {
			rows, err := eraser.Room(t.Context(), room, dryRun)
			if err != nil || rows["mirror_comment"] != 2 || rows["mirror_thread"] != 1 {
				t.Errorf("Room of a deleted room, dry run %t = %v, %v", dryRun, rows, err)
			}
		}
		if rows, err := eraser.Room(t.Context(), room, false); err != nil || len(rows) > 0 {
			t.Errorf("Room once more = %v, %v; want nothing", rows, err)
		}
	})
}

// An erasure that ends early has erased whole rows, and goes on when it is repeated.
func TestErasureEndsEarly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := open(t, e.Database(t))
		ctx, cancel := context.WithCancel(t.Context())
		eraser := erase.New(erase.Config{Store: s, Now: time.Now})
		parts := 0
		err := eraser.User(ctx, erase.User{Project: project, ID: user}, func(erase.Report) error {
			parts++
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) || parts != 1 {
			t.Errorf("User = %v after %d parts; want the end of its context after one", err, parts)
		}
	})
}
