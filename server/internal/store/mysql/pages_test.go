package mysql

import (
	"context"
	"database/sql"
	stdflag "flag"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

var manyRooms = stdflag.Int("rooms", 20_000, "rooms in the project of TestPagesReadWhatTheyReturn")

// A page of a list costs what it returns, in a project of any size and whatever the
// filter selects. With -rooms=200000 -v it prints what each page costs there.
func TestPagesReadWhatTheyReturn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a MariaDB server; run without it before a merge")
	}
	mysqltest.Need(t, mysqltest.Counters)
	url := mysqltest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	c, err := newConnector(url)
	if err != nil {
		t.Fatalf("newConnector = %v", err)
	}
	db := sql.OpenDB(c)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatalf("Conn = %v", err)
	}
	defer conn.Close()
	exec := func(text string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s = %v", text, err)
		}
	}
	made, err := os.ReadFile("testdata/many_rooms.sql")
	if err != nil {
		t.Fatalf("ReadFile = %v", err)
	}
	for text := range strings.SplitSeq(strings.ReplaceAll(string(made), ":rooms", strconv.Itoa(*manyRooms)), ";\n") {
		if strings.TrimSpace(text) != "" {
			exec(text)
		}
	}
	exec("analyze table mirror_room, mirror_document, mirror_resource_state, mirror_event, mirror_thread, " +
		"mirror_room_term, mirror_thread_term, mirror_comment, mirror_comment_mention, mirror_user_session, " +
		"mirror_notification, mirror_group, mirror_group_member, mirror_audit")

	read := func() int64 { t.Helper(); return rowsRead(t, conn) }
	q := &queries{db: conn}
	var texts []string
	reader := &Store{Reader: sqllist.NewReader(lists, func(ctx context.Context, text string, args []any,
		scan func(sqllist.Row) error,
	) error {
		texts = append(texts, text)
		return q.rows(ctx, text, args, scan)
	}, classify, nil, 0)}
	for _, page := range storetest.Pages(*manyRooms) {
		before := read()
		texts = nil
		began := time.Now()
		page.Call(t.Context(), reader)
		took := time.Since(began)
		rows := read() - before
		t.Logf("%7d rows %9.1f ms  %s", rows, float64(took.Microseconds())/1000, page.Name)
		if rows > most(page) {
			t.Errorf("%s reads %d rows: %s", page.Name, rows, strings.Join(texts, "\n\n"))
		}
	}
}

// most is the number of rows that a page may read. Each is looked up in up to four
// tables.
func most(read storetest.Read) int64 {
	const page = 1200
	switch f := read.Filter.(type) {
	case store.LatestRoomFilter:
		if f.Prefix != "" {
			return page + 2*5000 // each in the index and in its row, until they are no longer few
		}
	case store.ThreadFilter:
		if f.Room != "" && f.Resolved != nil {
			return 150 // of a room with many threads, of which few are
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
	case store.GroupFilter:
		return page / 2
	case store.TaskFilter:
		if f.Room != "" && f.State != mirror.TaskDone {
			return 100 // of a room with many threads
		}
		if f.State == mirror.TaskFailed {
			return page + 5000
		}
	}
	return page
}

// rowsRead is how many rows of tables and indexes the session has read.
func rowsRead(t *testing.T, conn interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
},
) (rows int64) {
	t.Helper()
	list, err := conn.QueryContext(t.Context(), "show session status like 'Handler_read%'")
	if err != nil {
		t.Fatalf("show status = %v", err)
	}
	defer list.Close()
	for list.Next() {
		var name string
		var n int64
		if err := list.Scan(&name, &n); err != nil {
			t.Fatalf("Scan = %v", err)
		}
		rows += n
	}
	if err := list.Err(); err != nil {
		t.Fatalf("show status = %v", err)
	}
	return rows
}
