package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// statementsSent keeps the values of each statement.
type statementsSent struct {
	dbq.DBTX
	args [][]any
}

func (s *statementsSent) ExecContext(_ context.Context, _ string, args ...any) (sql.Result, error) {
	s.args = append(s.args, args)
	return driver.RowsAffected(1), nil
}

// The driver would send what is too much for a packet in another way, and a proxy
// between would not.
func TestRowsFitIntoPackets(t *testing.T) {
	t.Parallel()
	for _, packet := range []int64{256 << 10, 64 << 20} {
		s := &Store{connector: &connector{}}
		s.connector.maxPacket.Store(packet)
		sent := &statementsSent{}
		var rows [][]any
		for i := range 3000 {
			info := fmt.Appendf(nil, `"%s"`, strings.Repeat("x", i%5*500))
			rows = append(rows, []any{
				int16(1), []byte("p"), []byte("r"), int64(i), int64(1), []byte("u"), info,
				json.RawMessage(info), "",
			})
		}
		if err := s.write(t.Context(), &queries{db: sent}, activeUserTable, rows, nil); err != nil {
			t.Fatalf("write = %v", err)
		}
		n := 0
		for _, args := range sent.args {
			if size, most := sizeOf(args), min(packet-packetSlack, 1<<20); size > most || len(args) > maxValues {
				t.Fatalf("a statement has %d values and up to %d bytes; want at most %d and %d", len(args), size, maxValues, most)
			}
			for i := 3; i < len(args); i += activeUserTable.width() {
				if args[i] != int64(n) {
					t.Fatalf("row %d is that of %v", n, args[i])
				}
				n++
			}
		}
		if n != len(rows) || len(sent.args) < 3 || len(sent.args) > 200 {
			t.Fatalf("%d statements have %d rows; want a few with all %d", len(sent.args), n, len(rows))
		}
	}
}

func TestRowThatDoesNotFit(t *testing.T) {
	t.Parallel()
	s := &Store{connector: &connector{}}
	s.connector.maxPacket.Store(256 << 10)
	row := func(content, data int) []any {
		return []any{
			int16(1), []byte("p"), []byte("r"), int64(1), int64(1), []byte("u"),
			[]byte(strings.Repeat("x", content)), json.RawMessage(strings.Repeat("1", data)),
		}
	}
	var why string
	lost := func(_ []any, w string) { why = w }
	sent := &statementsSent{}
	if err := s.write(t.Context(), &queries{db: sent}, activeUserTable, [][]any{row(200<<10, 200<<10)}, lost); err != nil {
		t.Fatalf("write = %v", err)
	}
	if data, ok := sent.args[0][7].(json.RawMessage); !ok || data != nil || why != tooLargeData {
		t.Fatalf("JSON of %d bytes is sent, problem %q; want it left out", len(data), why)
	}
	err := s.write(t.Context(), &queries{db: sent}, activeUserTable, [][]any{row(400<<10, 1)}, lost)
	if !fault.Is(err, fault.ReasonDocumentTooLarge) || len(sent.args) != 1 {
		t.Fatalf("write of too much = %v, %d statements; want it refused before it is sent", err, len(sent.args))
	}
}

// One thread that does not fit must not keep the list of all from being settled.
func TestListWithAThreadThatDoesNotFit(t *testing.T) {
	t.Parallel()
	ctx, now := t.Context(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	url := mysqltest.Database(t)
	if err := Migrate(ctx, url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	s, err := Open(ctx, Config{URL: url, MaxConns: 1})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(s.Close)
	room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
	list := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindThread}
	thread := func(id string) mirror.Resource { r := list; r.ID = id; return r }
	claim := func(r mirror.Resource) mirror.Lease {
		t.Helper()
		lease, err := s.Claim(ctx, r, [16]byte{1}, now, time.Minute)
		if err != nil {
			t.Fatalf("Claim %+v = %v", r, err)
		}
		return lease
	}
	if _, err := s.Request(ctx, []mirror.Request{{Resource: room}}, now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	if _, err := s.ApplyRoom(ctx, claim(room), mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now},
		now, 0); err != nil {
		t.Fatalf("ApplyRoom = %v", err)
	}
	s.connector.maxPacket.Store(256 << 10)
	small := mirror.Thread{ID: "small", Source: []byte(`{}`), SHA256: [32]byte{1}}
	large := mirror.Thread{ID: "large", Source: []byte(strings.Repeat("x", 1<<20)), SHA256: [32]byte{2}}
	lease := claim(list)
	added, err := s.AddItems(ctx, lease, []store.Item{store.ThreadItem(small), store.ThreadItem(large)}, now, now)
	if err != nil || len(added) != 0 {
		t.Fatalf("AddItems = %v, %v; want both to be fetched by themselves", added, err)
	}
	if _, err := s.ApplyListed(ctx, lease, now, nil, now, 0); err != nil {
		t.Fatalf("ApplyListed = %v", err)
	}
	if _, err := s.ApplyItem(ctx, claim(thread("small")), store.ThreadItem(small), now, now, 0); err != nil {
		t.Fatalf("ApplyItem = %v", err)
	}
	_, err = s.ApplyItem(ctx, claim(thread("large")), store.ThreadItem(large), now, now, 0)
	if !fault.Is(err, fault.ReasonDocumentTooLarge) {
		t.Fatalf("ApplyItem of a large one = %v; want reason %s", err, fault.ReasonDocumentTooLarge)
	}
	threads, err := s.Threads(ctx, store.ThreadFilter{Project: "default", Limit: 10})
	if err != nil || len(threads) != 1 || threads[0].ID != "small" {
		t.Fatalf("Threads = %+v, %v; want the small one", threads, err)
	}
}
