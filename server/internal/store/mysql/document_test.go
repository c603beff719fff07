package mysql_test

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
)

// What the server's JSON refuses is null and says why; the rest can be queried.
// Servers differ in what they refuse.
func TestDerivedColumns(t *testing.T) {
	t.Parallel()
	url := dbtest.MySQL.Database(t)
	s, db := open(t, mysql.Config{URL: url}), mysqltest.Connect(t, url)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
	storage := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindStorage}
	const refused, either = "(refused)", "(either)"
	type derived struct {
		data string
		want string // what is read at $.a, or whether it is refused
	}
	cases := []derived{
		{`{"b":1,"a":[true,null]}`, `[true,null]`},
		{`{"a":9007199254740993}`, `9007199254740993`},
		{`{"a":"'; drop table mirror_room; -- \\ \" ? /* é 😀"}`, `"'; drop table mirror_room; -- \\ \" ? /* é 😀"`},
		{`{"a":`, refused},
		{``, refused},
		{"{\"a\":\"\xff\"}", either}, // MySQL warns and keeps it; the service sends no such text
		{strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), refused},
		{`{"a":"\u0000"}`, either},
		{`{"a":"\ud800"}`, either},
		{`{"a":1e400}`, either},
		{`{"a":2}`, `2`}, // it heals
	}
	// Once more with what makes the statements long, which go another way then.
	words := ""
	for i, c := range append(cases, cases...) {
		if i == len(cases) {
			words = strings.Repeat("words ", 1000)
		}
		if _, err := s.Request(t.Context(), []mirror.Request{{Resource: room}, {Resource: storage}}, now); err != nil {
			t.Fatalf("Request = %v", err)
		}
		lease, err := s.Claim(t.Context(), room, [16]byte{1}, now, time.Minute)
		if err == nil {
			_, err = s.ApplyRoom(t.Context(), lease, mirror.RoomContent{
				FetchTime: now, Source: []byte(c.data), CreateTime: now,
				OrganizationID: words,
			}, now, 0)
		}
		if err != nil {
			t.Fatalf("ApplyRoom %d = %v", i, err)
		}
		if lease, err = s.Claim(t.Context(), storage, [16]byte{2}, now, time.Minute); err == nil {
			_, err = s.ApplyDocument(t.Context(), lease, mirror.DocumentContent{
				FetchTime: now, Content: []byte(c.data), DeriveVersion: 1, Data: []byte(c.data), Text: words,
			}, now, 0)
		}
		if err != nil {
			t.Fatalf("ApplyDocument %d = %v", i, err)
		}
		for _, table := range []string{"mirror_room", "mirror_document"} {
			var got sql.NullString
			var problem string
			if err := db.QueryRowContext(t.Context(), "select json_extract(data, '$.a'), data_problem from "+table).Scan(&got,
				&problem); err != nil {
				t.Fatalf("select from %s = %v", table, err)
			}
			if got.Valid == (problem != "") {
				t.Fatalf("data of %.40q in %s = %+v, problem %q; want one of them", c.data, table, got, problem)
			}
			switch c.want {
			case either:
			case refused:
				if !strings.HasPrefix(problem, "refused by the json column (error ") {
					t.Fatalf("problem of %.40q in %s = %q; want it refused", c.data, table, problem)
				}
			default:
				if strings.ReplaceAll(got.String, ", ", ",") != c.want {
					t.Fatalf("data of %.40q in %s = %s; want %s", c.data, table, got.String, c.want)
				}
			}
		}
	}
	if got := value[string](t, db, "select plain_text from mirror_document"); got != words {
		t.Fatalf("plain_text = %d bytes; want the text", len(got))
	}
}

// Escapes are what stands between a value and the statement it is put into. Here a
// server asks for the other way to escape, and the store does not let it.
func TestValuesStayValues(t *testing.T) {
	t.Parallel()
	url := dbtest.MySQL.Database(t)
	s := open(t, mysql.Config{URL: url + "?sql_mode='NO_BACKSLASH_ESCAPES,ANSI_QUOTES'"})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var every []byte
	for b := range 256 {
		every = append(every, byte(b), '\\', '\'', byte(b), '"', '\\')
	}
	for i, evil := range []string{
		`\`, `'`, `\'`, `\\'`, `"`, `?`, `' or '1'='1`, `\' or 1=1 -- `, "/*", "--", "#", "`",
		"\x00\x1a\r\n", "0x41", "_binary'a'", string(every),
	} {
		a := delivery("msg", now)
		a.Event.ID, a.Event.Payload = "msg_"+string(rune('a'+i)), []byte(evil)
		if i < 15 {
			a.Event.Room, a.Event.User, a.Event.Type = mirror.RoomID(evil), evil, evil
			a.Invalidations[0].Resource.Room = mirror.RoomID(evil)
		}
		got, err := s.Accept(t.Context(), []mirror.Delivery{a})
		if err != nil || !got[0].Fresh || len(got[0].Pending) != 1 ||
			got[0].Pending[0].Resource != a.Invalidations[0].Resource {
			t.Fatalf("Accept of %q = %+v, %v", evil, got, err)
		}
		ev, err := s.Event(t.Context(), "default", a.Event.ID)
		if err != nil || string(ev.Payload) != evil || ev.Room != a.Event.Room || ev.User != a.Event.User ||
			ev.Type != a.Event.Type {
			t.Fatalf("Event with %q = %+v, %v", evil, ev, err)
		}
		if err := s.Pause(t.Context(), "default", evil, now); err != nil {
			t.Fatalf("Pause because of %q = %v", evil, err)
		}
	}
}

// Long lists of keys are another thing to some servers than short ones.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	url := dbtest.MySQL.Database(t)
	s := open(t, mysql.Config{URL: url})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const n = 450
	var rooms, storages []mirror.Resource
	var reads []store.DocumentRead
	for i := range n {
		// Of one byte to 512, and some that begin alike.
		id := mirror.RoomID(strings.Repeat("é", i%256) + string(rune('A'+i)))
		rooms = append(rooms, mirror.Resource{Project: "default", Room: id, Kind: mirror.KindRoom})
		storages = append(storages, mirror.Resource{Project: "default", Room: id, Kind: mirror.KindStorage})
	}
	if _, err := s.Request(t.Context(), requestsFor(append(rooms, storages...)...), now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	for i := range n {
		lease, err := s.Claim(t.Context(), rooms[i], [16]byte{1}, now, time.Minute)
		if err == nil {
			_, err = s.ApplyRoom(t.Context(), lease, mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now},
				now, 0)
		}
		if err == nil {
			lease, err = s.Claim(t.Context(), storages[i], [16]byte{2}, now, time.Minute)
		}
		content := fmt.Appendf(nil, `{"n":%d}`, i)
		if err == nil {
			_, err = s.ApplyDocument(t.Context(), lease,
				mirror.DocumentContent{FetchTime: now, Content: content, DeriveVersion: 1}, now, 0)
		}
		if err != nil {
			t.Fatalf("mirror room %d = %v", i, err)
		}
		read := store.DocumentRead{Resource: storages[i]}
		if i%3 == 0 {
			read.Have = sha256.Sum256(content)
		}
		reads = append(reads, read)
	}
	docs, err := s.ReadDocuments(t.Context(), reads, 1<<20)
	if err != nil {
		t.Fatalf("ReadDocuments = %v", err)
	}
	progress, err := s.Generations(t.Context(), storages)
	if err != nil {
		t.Fatalf("Generations = %v", err)
	}
	for i := range n {
		want := fmt.Sprintf(`{"n":%d}`, i)
		if i%3 == 0 {
			want = ""
		}
		if docs[i] == nil || docs[i].Room != rooms[i].Room || string(docs[i].Content) != want || progress[i].Applied != 2 {
			t.Fatalf("document %d = %+v, progress %+v; want %s, applied twice raised", i, docs[i], progress[i], want)
		}
	}
	var batch []mirror.Delivery
	for i := range n {
		a := delivery(fmt.Sprintf("msg_%d", i), now)
		a.Event.Room, a.Invalidations[0].Resource = storages[i].Room, storages[i]
		batch = append(batch, a)
	}
	for _, fresh := range []bool{true, false} {
		got, err := s.Accept(t.Context(), batch)
		if err != nil {
			t.Fatalf("Accept = %v", err)
		}
		for i := range n {
			if got[i].Fresh != fresh || len(got[i].Pending) != 1 || got[i].Pending[0].Generation != 3 {
				t.Fatalf("answer %d = %+v; want fresh = %t, generation 3", i, got[i], fresh)
			}
		}
	}
}

// Where servers are lenient they cut off what is too long, and two ids are one.
func TestWhatDoesNotFitIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t, mysql.Config{URL: dbtest.MySQL.Database(t) + "?sql_mode=''"})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat("x", 128)
	if _, err := s.Accept(t.Context(), []mirror.Delivery{delivery(long, now)}); err != nil {
		t.Fatalf("Accept of an id of 128 bytes = %v", err)
	}
	if got, err := s.Accept(t.Context(), []mirror.Delivery{delivery(long+"y", now)}); err == nil {
		t.Fatalf("Accept of an id of 129 bytes = %+v; want an error", got)
	}
	room := mirror.Resource{Project: "default", Room: mirror.RoomID(strings.Repeat("x", 513)), Kind: mirror.KindRoom}
	if got, err := s.Request(t.Context(), []mirror.Request{{Resource: room}}, now); err == nil {
		t.Fatalf("Request of a room id of 513 bytes = %+v; want an error", got)
	}
}
