package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// What jsonb refuses is null and says why; the rest can be queried.
func TestDerivedColumns(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres.Database(t)
	s, conn := open(t, postgres.Config{URL: url}), connect(t, url)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
	storage := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindStorage}
	for i, c := range []struct {
		data string
		want string // text of the jsonb, empty if null
		code string // of the refusal
	}{
		{data: `{"b":1,"a":[true,null]}`, want: `{"a": [true, null], "b": 1}`},
		{data: `{"a":9007199254740993}`, want: `{"a": 9007199254740993}`},
		{data: `{"a":"\u0000"}`, code: "22P05"},
		{data: `{"a":"\ud800"}`, code: "22P02"},
		{data: `{"a":1e200000}`, code: "22003"},
		{data: `{"a":`, code: "22P02"},
		{data: "{\"a\":\"\xff\"}", code: "22021"},
		{data: strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), code: "54001"},
		{data: `{"a":2}`, want: `{"a": 2}`}, // it heals
	} {
		if _, err := s.Request(t.Context(), []mirror.Request{{Resource: room}, {Resource: storage}}, now); err != nil {
			t.Fatalf("Request = %v", err)
		}
		lease, err := s.Claim(t.Context(), room, [16]byte{1}, now, time.Minute)
		if err == nil {
			_, err = s.ApplyRoom(t.Context(), lease, mirror.RoomContent{
				FetchTime: now, Source: []byte(c.data),
				CreateTime: now,
			}, now, 0)
		}
		if err != nil {
			t.Fatalf("ApplyRoom %d = %v", i, err)
		}
		if lease, err = s.Claim(t.Context(), storage, [16]byte{2}, now, time.Minute); err == nil {
			_, err = s.ApplyDocument(t.Context(), lease, mirror.DocumentContent{
				FetchTime: now, Content: []byte(c.data), DeriveVersion: 1, Data: []byte(c.data), Text: "words",
			}, now, 0)
		}
		if err != nil {
			t.Fatalf("ApplyDocument %d = %v", i, err)
		}
		for _, table := range []string{"mirror_room", "mirror_document"} {
			var data pgtype.Text
			var problem string
			if err := conn.QueryRow(t.Context(), "select data::text, data_problem from "+table).Scan(&data,
				&problem); err != nil {
				t.Fatalf("select from %s = %v", table, err)
			}
			if data.String != c.want || data.Valid != (c.want != "") {
				t.Fatalf("data of %.40q in %s = %+v; want %q", c.data, table, data, c.want)
			}
			if c.code == "" && problem != "" || c.code != "" && !strings.HasSuffix(problem, "(SQLSTATE "+c.code+")") {
				t.Fatalf("problem of %.40q in %s = %q; want one with code %q", c.data, table, problem, c.code)
			}
		}
	}
	if got := value[string](t, conn, "select plain_text from mirror_document"); got != "words" {
		t.Fatalf("plain_text = %q; want the text", got)
	}
	if got := value[string](t, conn,
		"select attstorage::text from pg_attribute "+
			"where attrelid = 'mirror_document'::regclass and attname = 'content'"); got != "e" {
		t.Fatalf("storage of content = %q; want e: it is compressed already", got)
	}
}
