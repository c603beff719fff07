package postgres

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

var (
	manyRooms = flag.Int("rooms", 20_000, "rooms in the project of TestPagesReadWhatTheyReturn")
	manyURL   = flag.String("rooms-url", "", "database that has this project already")
)

// A page of a list costs what it returns, in a project of any size and whatever the
// filter selects. With -rooms=1000000 -v it prints what each page costs there.
func TestPagesReadWhatTheyReturn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url := *manyURL
	if url == "" {
		url = pgtest.Database(t)
		if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatalf("Migrate = %v", err)
		}
		text, err := os.ReadFile("testdata/many_rooms.sql")
		if err != nil {
			t.Fatalf("ReadFile = %v", err)
		}
		conn := connect(t, url)
		made := strings.ReplaceAll(string(text), ":rooms", strconv.Itoa(*manyRooms))
		if _, err := conn.Exec(t.Context(), made); err != nil {
			t.Fatalf("make a project of many rooms = %v", err)
		}
		if _, err := conn.Exec(t.Context(), "vacuum analyze"); err != nil {
			t.Fatalf("vacuum = %v", err)
		}
	}
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		conn := connect(t, url)
		if _, err := conn.Exec(t.Context(), "set plan_cache_mode = "+mode); err != nil {
			t.Fatalf("set plan_cache_mode = %v", err)
		}
		measure := &measuring{tb: t, conn: conn, prepared: make(map[string]string)}
		reader := &Store{Reader: sqllist.NewReader(lists, measure.rows, classify, nil, 0)}
		for _, read := range storetest.Pages(*manyRooms) {
			measure.blocks, measure.took, measure.plan = 0, 0, ""
			read.Call(t.Context(), reader)
			t.Logf("%7d blocks %9.1f ms  %s, %s", measure.blocks, measure.took, read.Name, mode)
			if measure.blocks > most(read) {
				t.Errorf("%s reads %d blocks with %s: %s", read.Name, measure.blocks, mode, measure.plan)
			}
		}
	}
}

// most is the number of blocks that a page may read. Each row is looked up in up to four
// tables.
func most(read storetest.Read) int {
	const page = 1200
	if strings.HasPrefix(read.Name, "RoomIDs") {
		return 70 // their index and each room once
	}
	switch f := read.Filter.(type) {
	case store.LatestRoomFilter:
		if f.Prefix != "" {
			return page + 2*5000 // each in the index and in its row, until they are no longer few
		}
	case store.TaskFilter:
		if f.State == mirror.TaskDone && f.Room == "" {
			return 256 * 120 // a page of each bucket
		}
	case store.ThreadFilter:
		if f.Room != "" && f.Resolved != nil {
			return 50 // of a room with many threads, of which few are
		}
		if f.Room == "" && !f.UpdatedSince.IsZero() {
			return page + 5000 // which are no longer few
		}
	case store.CommentFilter:
		if !f.UpdatedSince.IsZero() {
			return page + 5000
		}
	case store.SessionFilter:
		if f.Room != "" && f.Open {
			return 100 // of a room with many sessions, of which few are
		}
	case store.NotificationFilter:
		return 1600 // the table, which is that small
	}
	return page
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// measuring runs the statements of a reader and adds up what they read.
type measuring struct {
	tb       testing.TB
	conn     *pgx.Conn
	prepared map[string]string
	blocks   int
	took     float64
	plan     string
}

func (m *measuring) rows(ctx context.Context, text string, args []any, scan func(sqllist.Row) error) error {
	name, ok := m.prepared[text]
	if !ok {
		name = fmt.Sprintf("read_%d", len(m.prepared))
		m.prepared[text] = name
		if _, err := m.conn.Prepare(ctx, name, text); err != nil {
			m.tb.Fatalf("Prepare %s = %v", text, err)
		}
	}
	given := placed(args)
	if len(given) < len(args) { // it is planned with the values, whatever else is
		defer m.planned(ctx, "force_custom_plan")()
	}
	values := make([]string, len(given))
	for i, arg := range given {
		values[i] = literal(arg)
	}
	explain := "explain (analyze, buffers, format json) execute " + name + "(" + strings.Join(values, ", ") + ")"
	var raw []byte
	began := time.Now()
	if err := m.conn.QueryRow(ctx, explain).Scan(&raw); err != nil {
		m.tb.Fatalf("%s = %v", explain, err)
	}
	m.took += float64(time.Since(began).Microseconds()) / 1000
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(raw, &plans); err != nil {
		m.tb.Fatalf("Unmarshal = %v", err)
	}
	m.blocks += plans[0].Plan.Hit + plans[0].Plan.Read
	m.plan += string(raw)
	return rowsOf(m.conn)(ctx, text, args, scan)
}

// planned sets how statements are planned until the result is called.
func (m *measuring) planned(ctx context.Context, mode string) (back func()) {
	var before string
	if err := m.conn.QueryRow(ctx, "show plan_cache_mode").Scan(&before); err != nil {
		m.tb.Fatalf("show plan_cache_mode = %v", err)
	}
	set := func(mode string) {
		if _, err := m.conn.Exec(ctx, "set plan_cache_mode = "+mode); err != nil {
			m.tb.Fatalf("set plan_cache_mode = %v", err)
		}
	}
	set(mode)
	return func() { set(before) }
}

// placed returns the arguments that have placeholders.
func placed(args []any) []any {
	if len(args) > 0 {
		if _, ok := args[0].(pgx.QueryExecMode); ok {
			return args[1:]
		}
	}
	return args
}

func quoted[T string | int16](list []T) (all []string) {
	for _, v := range list {
		all = append(all, literal(any(v)))
	}
	return all
}

// literal is an argument of a list in SQL.
func literal(arg any) string {
	switch arg := arg.(type) {
	case string:
		return "'" + strings.ReplaceAll(arg, "'", "''") + "'"
	case pgtype.Timestamptz:
		switch {
		case arg.InfinityModifier != pgtype.Finite:
			return "'" + arg.InfinityModifier.String() + "'"
		case !arg.Valid:
			return "null"
		}
		return "'" + arg.Time.Format(time.RFC3339Nano) + "'"
	case []byte:
		return fmt.Sprintf("'\\x%x'", arg)
	case []string:
		return "array[" + strings.Join(quoted(arg), ", ") + "]::text[]"
	case []int16:
		return "array[" + strings.Join(quoted(arg), ", ") + "]::smallint[]"
	}
	return fmt.Sprint(arg)
}
