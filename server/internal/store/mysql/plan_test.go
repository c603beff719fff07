package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// recorder takes the place of a database and keeps the statement.
type recorder struct {
	dbq.DBTX
	text string
	args []any
}

var errRecorded = fmt.Errorf("recorded")

func (r *recorder) ExecContext(_ context.Context, text string, args ...any) (sql.Result, error) {
	r.text, r.args = text, args
	return nil, errRecorded
}

func (r *recorder) QueryContext(_ context.Context, text string, args ...any) (*sql.Rows, error) {
	r.text, r.args = text, args
	return nil, errRecorded
}

func (r *recorder) QueryRowContext(_ context.Context, text string, args ...any) *sql.Row {
	r.text, r.args = text, args
	return nil
}

// readOf keeps the statement of a read.
func readOf(t *testing.T, read storetest.Read) *recorder {
	t.Helper()
	r := &recorder{}
	q := &queries{db: r}
	read.Call(t.Context(), &Store{Reader: sqllist.NewReader(lists, q.rows, classify, nil, 0)})
	return r
}

// sample fills in a value that the tables below can be asked for.
func sample(v reflect.Value) {
	now := time.Date(2026, 3, 1, 0, 10, 0, 0, time.UTC)
	switch v.Interface().(type) {
	case []byte:
		v.SetBytes([]byte("default"))
		return
	case time.Time:
		v.Set(reflect.ValueOf(now))
		return
	case sql.NullTime:
		v.Set(reflect.ValueOf(sql.NullTime{Time: now, Valid: true}))
		return
	}
	switch {
	case v.CanInt():
		v.SetInt(20)
	case v.Kind() == reflect.Interface:
		v.Set(reflect.ValueOf(int64(1)))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			sample(v.Field(i))
		}
	}
}

// No statement reads a whole table, and what is looked up by keys is looked up by
// all of them.
func TestStatementsUseTheirKeys(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a MariaDB server; run without it before a merge")
	}
	mysqltest.Need(t, mysqltest.OneShard)
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
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatalf("%s = %v", text, err)
		}
	}
	exec("insert into mirror_room values (0, 'default', 'r', 1, '', '', null, null, '', null, '', '2026-03-01', " +
		"default, null, default)")
	exec("insert into mirror_room_term values (0, 'default', 'r', 't', '2026-03-01')")
	exec("insert into mirror_document values (0, 'default', 'r', 2, '', 1, '', '', 0, 1, null, '', '', null)")
	exec("insert into mirror_resource_state (bucket, project_id, room_id, kind, resource_id, generation, due_time, " +
		"fail_time, last_error) values (0, 'default', 'r', 2, '', 1, '2026-03-01', '2026-03-01', '')")
	exec("insert into mirror_event values (0, 'default', 'e', '', 'r', 'u', '', '', '2026-03-01', '2026-03-01', null, " +
		"'', '', 't', '')")
	exec("insert into mirror_change values (0, 1, 'default', 'r', 2, '', 1, '2026-03-01', 0)")
	exec("insert into mirror_thread values (0, 'default', 'r', 't', 1, '', '', '2026-03-01', '2026-03-01', false, '', " +
		"null, null, 1, '', null, default, null, default)")
	exec("insert into mirror_thread_term values (0, 'default', 'r', 't', 'term')")
	exec("insert into mirror_comment values (0, 'default', 'r', 't', 'c', 'u', '2026-03-01', null, null, '', null, " +
		"'', '', null, default, '')")
	exec("insert into mirror_comment_reaction values (0, 'default', 'r', 't', 'c', 'e', 'u', '2026-03-01', '')")
	exec("insert into mirror_comment_attachment values (0, 'default', 'r', 't', 'c', 'a', '', '', 1, '')")
	exec("insert into mirror_comment_mention values (0, 'default', 'r', 't', 'c', 'user', 'u', '')")
	exec("insert into mirror_active_user values (0, 'default', 'r', 1, 1, 'u', null, null, '')")
	exec("insert into mirror_unfolded_event values (0, 'default', 'r', 6, '', 'e', '', '', '2026-03-01', '2026-03-01', " +
		"'2026-03-01')")
	exec("insert into mirror_user_session values (0, 'default', 'r', 's', 1, 'u', null, null, '2026-03-01', " +
		"'2026-03-01', null, '', '', '')")
	exec("insert into mirror_notification values (0, 'default', 'r', 'n', 'e', '', '', 'u', '', '', '', '2026-03-01', " +
		"'2026-03-01', null, null, null, null, '')")
	exec("insert into mirror_sweep values (0, 'default', 's', true, false, '', 0, 0, 0, 0, null, null, null, '')")
	exec("insert into mirror_group values (0, 'default', 'g', '', '', '', null, null, null)")
	exec("insert into mirror_group_member values (0, 'default', 'g', 'u', null, '')")
	exec("insert into mirror_audit values (0, 'default', 'a', '2026-03-01', null, true, 'm', 'c', '', '', '', 0, '', " +
		"'', '', '', 1)")
	for n := 1; n < 4096; n *= 2 {
		exec("insert into mirror_audit select bucket, project_id, concat(entry_id, '-', ?), call_time + interval ? second, "+
			"end_time, denied, method, caller, address, request_id, room_id, kind, resource_id, options, code, reason, "+
			"calls from mirror_audit", n, n)
		for _, table := range []string{"mirror_group", "mirror_group_member"} {
			columns := map[string]string{
				"mirror_group":        "organization_id, source_json, content_sha256, create_time, update_time, delete_time",
				"mirror_group_member": "user_id, add_time, digest",
			}[table]
			exec("insert into "+table+" select (bucket + ?) mod 256, project_id, concat(group_id, '-', ?), "+columns+
				" from "+table, n, n)
		}
		for table, columns := range map[string]string{
			"mirror_thread": "thread_id, epoch, source_json, content_sha256, create_time, update_time, " +
				"resolved, visibility, metadata, metadata_text, comment_count, data_problem, delete_time",
			"mirror_comment": "thread_id, comment_id, user_id, create_time, edit_time, delete_time, source_json, " +
				"body, plain_text, markdown, metadata, digest",
			"mirror_comment_reaction":   "thread_id, comment_id, emoji, user_id, create_time, digest",
			"mirror_comment_attachment": "thread_id, comment_id, attachment_id, name, mime_type, size, digest",
			"mirror_comment_mention":    "thread_id, comment_id, kind, mentioned_id, via_group",
			"mirror_room_term":          "term, create_time",
			"mirror_thread_term":        "thread_id, term",
			"mirror_active_user":        "connection_id, epoch, user_id, info_json, info",
			"mirror_unfolded_event":     "kind, resource_id, event_id, type, payload, source_time, receive_time, happen_time",
			"mirror_user_session": "session_id, connection_id, user_id, info_json, info, begin_time, enter_time, " +
				"leave_time, leave_event_id, end_cause",
			"mirror_notification": "notification_id, event_id, channel, kind, user_id, thread_id, mention_id, " +
				"subject_id, create_time, trigger_time, inbox_json, inbox, read_time, notify_time",
			"mirror_room": "epoch, source_json, content_sha256, create_time, last_connection_time, " +
				"organization_id, data, data_problem, delete_time",
			"mirror_document": "kind, resource_id, epoch, content, content_sha256, size, derive_version, data, " +
				"data_problem, plain_text",
			"mirror_resource_state": "kind, resource_id, generation, fail_time, last_error",
		} {
			// Rooms have some threads each, and these have their states.
			if ids := map[string]string{"mirror_thread": "thread_id", "mirror_resource_state": "resource_id"}; n > 32 &&
				ids[table] != "" {
				exec("insert into "+table+" (bucket, project_id, room_id, "+columns+") select bucket, project_id, room_id, "+
					strings.NewReplacer(ids[table], "concat("+ids[table]+", '-', ?)", "kind", "4").Replace(columns)+" from "+table, n)
				continue
			}
			exec("insert into "+table+" (bucket, project_id, room_id, "+columns+
				") select (bucket + ?) mod 256, if(room_id like '%8', 'other', project_id), concat(room_id, '-', ?), "+columns+
				" from "+table, n, n)
		}
		exec(`insert into mirror_event select (bucket + ?) mod 256, project_id, concat(event_id, '-', ?), type, concat(room_id, ?), concat(user_id, ?), '', '',
			send_time, receive_time + interval ? second, source_time, outcome, batch_token, concat(thread_id, ?), '' from mirror_event`,
			n, n, n, n, n, n)
		exec("insert into mirror_change select bucket, n + ?, project_id, room_id, kind, resource_id, change_kind, "+
			"commit_time, epoch from mirror_change", n)
	}
	for n := 1; n < 4096; n *= 2 {
		exec(`insert into mirror_sweep select bucket, concat(project_id, '-', ?), sweep_id, is_full, is_done, list_cursor,
			listed, known, raised, vanished, begin_time, end_time, full_time, problem from mirror_sweep`, n)
	}
	// Users have some of it each, as they do.
	for table, column := range map[string]string{
		"mirror_comment": "user_id", "mirror_comment_mention": "mentioned_id",
		"mirror_user_session": "user_id", "mirror_notification": "user_id",
	} {
		exec("update " + table + " set " + column + " = concat('u-', bucket)")
	}
	exec("analyze table mirror_room, mirror_document, mirror_resource_state, mirror_event, mirror_change")
	exec("analyze table mirror_thread, mirror_comment, mirror_comment_reaction, mirror_comment_attachment, " +
		"mirror_comment_mention")
	exec("analyze table mirror_active_user, mirror_unfolded_event, mirror_user_session, mirror_notification, " +
		"mirror_sweep, mirror_room_term, mirror_thread_term, " +
		"mirror_group, mirror_group_member, mirror_audit")

	explain := func(name, text string, args []any) (sorted bool) {
		t.Helper()
		rows, err := db.QueryContext(t.Context(), "explain "+text, args...)
		if err != nil {
			t.Errorf("explain %s = %v", name, err)
			return false
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			t.Fatalf("Columns = %v", err)
		}
		for rows.Next() {
			values := make([]sql.NullString, len(columns))
			into := make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatalf("Scan = %v", err)
			}
			plan := make(map[string]string)
			for i, column := range columns {
				plan[strings.ToLower(column)] = values[i].String
			}
			sorted = sorted || strings.Contains(plan["extra"], "filesort")
			if strings.HasPrefix(text, "insert") || plan["table"] == "" || strings.HasPrefix(plan["table"], "<") {
				continue // it reads nothing, or what was made of a list
			}
			if plan["type"] == "ALL" || plan["type"] == "index" || plan["key"] == "" {
				t.Errorf("%s reads all of %s: %v", name, plan["table"], plan)
			}
		}
		if err := rows.Err(); err != nil {
			t.Errorf("explain %s = %v", name, err)
		}
		return sorted
	}
	record := &recorder{}
	queries := reflect.ValueOf(dbq.New(record))
	seen := 0
	for i := range queries.NumMethod() {
		name, method := queries.Type().Method(i).Name, queries.Method(i)
		if method.Type().NumIn() != 2 {
			continue
		}
		arg := reflect.New(method.Type().In(1)).Elem()
		sample(arg)
		func() {
			defer func() { _ = recover() }() // of a scan of the row that is not there
			method.Call([]reflect.Value{reflect.ValueOf(t.Context()), arg})
		}()
		_, text, _ := strings.Cut(record.text, "\n") // what comes before is its name
		for strings.HasPrefix(text, "--") || strings.HasPrefix(text, "\n") {
			_, text, _ = strings.Cut(text, "\n")
		}
		explain(name, text, record.args)
		seen++
	}
	if seen < 30 {
		t.Fatalf("only %d statements were seen", seen)
	}
	// And what users ask of the view.
	explain("view by room", "select data from liveblocks_documents where room_id = ?", []any{"r-8"})
	explain("view by list", "select data from liveblocks_documents where room_id in ('r-8', 'r-16-2')", nil)
	exec("create table theirs (id int primary key, room varchar(255) character set utf8mb4 collate utf8mb4_general_ci)")
	exec("insert into theirs select n, concat('r-', n) from mirror_change")
	exec("analyze table theirs")
	explain("join with the view",
		"select t.id, d.data from theirs t join liveblocks_documents d on d.room_id = t.room where t.id between 5 and 9", nil)

	ranges := func(n int) []store.ChangeRange {
		list := make([]store.ChangeRange, n)
		for i := range list {
			list[i] = store.ChangeRange{Bucket: int16(i), After: 10, To: 20}
		}
		return list
	}
	keys := func(n int, key ...any) (args []any) {
		for i := range n {
			for _, k := range key {
				if k == "#" {
					k = fmt.Appendf(nil, "r-%d", i)
				}
				args = append(args, k)
			}
		}
		return args
	}
	resource := []any{7, []byte("default"), "#", int(mirror.KindStorage), []byte{}}
	for _, n := range []int{1, maxKeys} {
		explain("recorded", recordedSQL(n), keys(n, 7, []byte("default"), "#"))
		explain("progress", progressSQL(n), keys(n, resource...))
		explain("lock states", lockStatesSQL(n), keys(n, resource...))
		explain("lock events", lockEventsSQL(n), keys(n, 7, []byte("default"), "#"))
		explain("lock bodies", lockBodiesSQL(n), keys(n, 7, []byte("default"), "#"))
		explain("roomsByID", roomsByIDSQL(n), slices.Concat([]any{false}, keys(n, 7), keys(n, 7, []byte("default"), "#")))
		explain("changes", changesSQL(n), changesArgs(ranges(n)))
		explain("sessionsOf", sessionsOfSQL(n), keys(n, 7, []byte("default"), "#", 1, 10))
	}
	for _, read := range storetest.Reads() {
		r := readOf(t, read)
		what := fmt.Sprintf("%s by %+v", read.Name, read.Filter)
		if explain(what, r.text, r.args) && read.InOrder {
			t.Errorf("%s sorts more than a page", what)
		}
	}
	room, now := []any{7, []byte("default"), []byte("r-7")}, "2026-03-01 00:10:00"
	for _, n := range []int{1, maxRows} {
		explain("deleteFolded", deleteFoldedSQL(n), append(slices.Concat(room, []any{6, []byte{}}), keys(n, "#")...))
		explain("deleteSessions", deleteSessionsSQL(n), append(slices.Clone(room), keys(n, "#")...))
		explain("endSessions", endSessionsSQL(n), append(append([]any{"2026-03-01"}, room...), keys(n, "#")...))
	}
	for _, table := range store.AgingTables {
		explain("aged of "+string(table), agedSQL(table), []any{[]byte("default"), now, now, now, []byte("r-8"), 20})
		var key []any
		for range table.Columns().Key {
			key = append(key, "#")
		}
		for _, n := range []int{1, maxKeys} {
			args := keys(n, append([]any{7, []byte("default")}, key...)...)
			explain("lock aged of "+string(table), lockAgedSQL(table, n), args)
			if table.Columns().Waits != "" {
				explain("waiting aged of "+string(table), waitingAgedSQL(table, n), args)
			}
			args = slices.Concat(keys(n, 7), []any{[]byte("default")}, keys(n, append([]any{7}, key...)...))
			if table.Columns().Empties {
				args = append([]any{purgedSum()}, args...)
			}
			explain("delete aged of "+string(table), deleteAgedSQL(table, n), args)
		}
		for _, part := range table.Columns().Parts {
			args := append(keys(1, append([]any{7, []byte("default")}, key...)...), 20)
			if store.Weights[part] != "" {
				explain("weigh "+part+" of "+string(table), weighPartSQL(table, part), args)
			}
			explain("delete "+part+" of "+string(table), deletePartSQL(table, part), args)
		}
	}
	for _, n := range []int{1, maxRows} {
		explain("delete terms", deleteTermsSQL(n), append(slices.Clone(room), keys(n, "#")...))
	}
	for _, of := range []indexed{indexedRooms, indexedThreads} {
		explain("unindexed of "+of.table, of.unindexedSQL(), of.unindexedArgs("default", store.IndexPlace{Bucket: 7}, 10))
		for _, n := range []int{1, maxKeys} {
			args := append([]any{7, []byte("default")}, keys(n, slices.Repeat([]any{"#"}, len(of.key))...)...)
			explain("lock unindexed of "+of.table, of.lockUnindexedSQL(n), args)
			explain("mark indexed of "+of.table, of.markIndexedSQL(n), args)
			if of.table == indexedThreads.table {
				explain("delete terms of threads", deleteThreadTermsSQL(n), args)
			}
		}
	}
	for _, n := range []int{1, maxKeys} {
		rooms := append([]any{7, []byte("default")}, keys(n, "#")...)
		explain("drop held rooms", dropHeldSQL(n), rooms)
		explain("unmark rooms", unmarkIndexedSQL(n), rooms)
		for _, of := range []termed{termedRooms, termedThreads} {
			args := append([]any{7, []byte("default")}, keys(n, slices.Repeat([]any{"#"}, len(of.termKey()))...)...)
			explain("delete terms in "+of.terms, of.deleteGoneSQL(n), args)
			after := append(afterArgs([]any{7, []byte("default")}, slices.Repeat([]string{"r-8"}, len(of.termKey()))), 10)
			if explain("terms in "+of.terms, of.termsAfterSQL(), after) {
				t.Errorf("a look at %s sorts", of.terms)
			}
		}
	}
	for _, text := range termTexts(t) {
		if explain("a list by terms", text.text, text.args) {
			t.Errorf("a list by terms sorts: %s", text.text)
		}
	}
	for _, table := range store.Personal {
		eachPersonalRead(table, func(what, text string, args []any) {
			if explain(what, text, args) {
				t.Errorf("%s sorts", what)
			}
		})
		key := []any{7, []byte("default")}
		for _, c := range table.Key {
			if c.Number {
				key = append(key, 2)
			} else {
				key = append(key, []byte("r-8"))
			}
		}
		explain("personal row of "+table.Name, sqllist.PersonalRowSQL(table), key)
		explain("delete of personal "+table.Name, sqllist.DeletePersonalSQL(table), key)
		if table.HasContent() {
			explain("lock personal "+table.Name, sqllist.LockPersonalSQL(table), key)
		}
		if table.Rewritable() {
			text := sqllist.RewritePersonalSQL(table)
			values := make([]any, strings.Count(text, "?")-len(key))
			for i := range values {
				values[i] = ""
			}
			explain("rewrite of personal "+table.Name, text, slices.Concat(values, key))
		}
		if table.Kind == mirror.KindNotification {
			explain("left of "+table.Name, sqllist.LeftSQL(table), key[:4])
		}
		if table.Terms != "" {
			explain("delete terms of "+table.Name, sqllist.DeleteTermsSQL(table), key)
		}
		if item := table.Item(); item != nil {
			explain("life of "+table.Name, sqllist.LifeHeadSQL(item), key[:len(item.Scope())+1])
		}
	}
	explain("lock room", sqllist.LockRoomSQL, room)
	explain("waiting room", sqllist.WaitingRoomSQL, room)
	explain("release folds", sqllist.ReleaseFoldsSQL, room)
	explain("lock tombstone", sqllist.LockTombstoneSQL, append(slices.Clone(room), now))
	comment := append(slices.Clone(room), []byte("t"), []byte("c"))
	explain("count attachments", sqllist.CountAttachmentsSQL, comment)
	explain("delete attachments", lists.DeleteSome(store.AttachmentTable, sqllist.AttachmentsOfComment),
		append(slices.Clone(comment), 10))
	for _, s := range items {
		scope := []any{7, []byte("default")}
		if s.kind.InRoom() {
			scope = room
		}
		one := append(slices.Clone(scope), []byte("t"))
		if s.kind.InRoom() {
			explain("copy of "+s.head.name, s.copyOf, append([]any{[]byte("t")}, scope...))
			explain("note in "+s.head.name, s.note, append([]any{"", ""}, one...))
		} else {
			explain("copy of "+s.head.name, s.copyOf, one)
		}
		explain("copies of "+s.head.name, s.copies, append(slices.Clone(scope), []byte("s"), pieceRows))
		explain("distrust "+s.head.name, s.distrust, one)
		explain("tombstone in "+s.head.name, s.tombstone, append([]any{"2026-03-01"}, one...))
		for p, part := range s.kind.Parts {
			for _, n := range []int{1, maxKeys} {
				var key []any
				for range part.Key {
					key = append(key, "#")
				}
				explain("stored rows of "+part.Name, s.storedSQL(p, n), append(append(slices.Clone(scope), keys(n, "#")...),
					pieceRows))
				explain("delete from "+part.Name, s.deleteSQL(p, n), append(slices.Clone(one), keys(n, key...)...))
			}
			piece := append(slices.Clone(one), pieceRows)
			explain("rest of the rows of "+part.Name, s.restSQL(p), append(afterArgs(slices.Clone(one),
				slices.Repeat([]string{"k"}, part.Key)), pieceRows))
			explain("delete all from "+part.Name, s.deleteAllSQL(p), piece)
			if part.HasDigest() {
				explain("distrust "+part.Name, s.distrustSQL(p), piece)
			}
		}
	}
	explain("insertedListed", insertedListedSQL, append(slices.Clone(room), int16(mirror.KindThread), []byte("a"),
		[]byte("z"), make([]byte, 16)))
}

// termTexts are the statements of lists by terms that read keys.
func termTexts(t *testing.T) (all []recorder) {
	t.Helper()
	run := func(_ context.Context, text string, args []any, scan func(sqllist.Row) error) error {
		all = append(all, recorder{text: text, args: args})
		return scan(oneRow{})
	}
	same := func(_ context.Context, err error) error { return err }
	r := sqllist.NewReader(lists, run, same, nil, 0)
	_, err := r.LatestRoomsBy(t.Context(), store.LatestRoomFilter{
		Project: "default", Prefix: "r-8", Terms: store.SelectedBy(map[string]string{"a": "b"}, "", "", nil), Limit: 20,
	}, func(context.Context, mirror.ProjectID, []mirror.RoomID, bool) ([]mirror.Room, error) { return nil, nil })
	if err != nil || len(all) != 3 {
		t.Fatalf("LatestRooms = %v with %d statements; want 3", err, len(all))
	}
	yes := true
	_, err = r.Threads(t.Context(), store.ThreadFilter{
		Project: "default", Resolved: &yes, Metadata: map[string]string{"a": "b"}, Limit: 20,
	})
	if err != nil || len(all) != 3+4 {
		t.Fatalf("Threads = %v with %d statements; want 4", err, len(all)-3)
	}
	return all[:6]
}

// What statements mean depends on these, whatever the server's defaults and the
// URL say.
func TestSessionIsOurs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a MariaDB server; run without it before a merge")
	}
	c, err := newConnector(mysqltest.Database(t) + "?sql_mode=''&time_zone='%2B09:00'&charset=latin1&autocommit=0")
	if err != nil {
		t.Fatalf("newConnector = %v", err)
	}
	db := sql.OpenDB(c)
	defer db.Close()
	// The gateway of Vitess ignores the collation, and has a word of its own for autocommit.
	// What counts are ids, which are bytes.
	collation, on := "utf8mb4_bin", "ON"
	var bytes bool
	if err := db.QueryRowContext(t.Context(), "select cast('a' as binary) <> 'A'").Scan(&bytes); err != nil || !bytes {
		t.Errorf("bytes differ as bytes = %t, %v; want it", bytes, err)
	}
	if vitess, err := mysqltest.IsVitess(t.Context(), db); err != nil {
		t.Fatal(err)
	} else if vitess {
		collation, on = "utf8mb4_0900_ai_ci", "1"
	}
	for want, names := range map[string][]string{
		"READ-COMMITTED":           {"tx_isolation", "transaction_isolation"}, // on MariaDB, on MySQL
		"+00:00":                   {"time_zone"},
		"utf8mb4":                  {"character_set_client", "character_set_connection", "character_set_results"},
		collation:                  {"collation_connection"},
		on:                         {"autocommit"},
		strings.Trim(sqlMode, "'"): {"sql_mode"},
	} {
		seen := 0
		for _, name := range names {
			var variable, got string
			err := db.QueryRowContext(t.Context(), "show session variables like ?", name).Scan(&variable, &got)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil || got != want {
				t.Errorf("%s = %q, %v; want %s", name, got, err, want)
			}
			seen++
		}
		if seen == 0 {
			t.Errorf("no variable of %v is known", names)
		}
	}
	if got := c.maxPacket.Load(); got < 1<<20 {
		t.Errorf("max_allowed_packet = %d; want that of the server", got)
	}
}

// A fold reads and deletes the events that it takes up, however many wait behind them.
func TestFoldReadsWhatItTakes(t *testing.T) {
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
	db.SetMaxOpenConns(1) // what is counted is the session's
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatalf("%s = %v", text, err)
		}
	}
	const columns = "bucket, project_id, room_id, kind, resource_id, event_id, type, payload, source_time, " +
		"receive_time, happen_time"
	r := mirror.Resource{Project: "default", Room: "lobby", Kind: mirror.KindUserSessions}
	exec("insert into mirror_unfolded_event ("+columns+") values (?, 'default', 'lobby', 6, '', sha2(0, 256), "+
		"'userEntered', repeat('x', 300), null, '2026-03-01', '2026-03-01')", r.Bucket())
	for n := 1; n < 1<<15; n *= 2 { // ids do not tell the order of events
		exec("insert into mirror_unfolded_event ("+columns+") select bucket, project_id, room_id, kind, resource_id, "+
			"sha2(concat(event_id, ?), 256), type, payload, if(? mod 4 = 0, null, receive_time + interval ? second), "+
			"receive_time + interval ? second, happen_time + interval ? second from mirror_unfolded_event", n, n, n, n, n)
	}
	for _, prepare := range []string{"", "analyze table mirror_unfolded_event"} {
		if prepare != "" {
			exec(prepare)
		}
		exec("flush status")
		rows, err := dbq.New(db).Unfolded(t.Context(), dbq.UnfoldedParams{
			Bucket: r.Bucket(), ProjectID: []byte("default"), RoomID: []byte("lobby"), Kind: int16(r.Kind), ResourceID: []byte{},
			Limit: 100,
		})
		if err != nil || len(rows) != 100 {
			t.Fatalf("Unfolded = %d rows, %v; want 100", len(rows), err)
		}
		read := rowsRead(t, db)
		if read > 150 {
			t.Errorf("Unfolded after %q returns 100 rows and reads %d; want about as many", prepare, read)
		}
		var ids []string
		for _, row := range rows {
			ids = append(ids, string(row.EventID))
		}
		exec("flush status")
		if more, err := deleteFolded(t.Context(), newQueries(db, pieceRows), r, ids); !more || err != nil {
			t.Fatalf("deleteFolded = %v, %v; want more", more, err)
		}
		if read := rowsRead(t, db); read > 150 {
			t.Errorf("Deletion after %q takes 100 rows and reads %d; want about as many", prepare, read)
		}
	}
}

// What expires is found behind nothing else, whatever the server knows of the table.
func TestExpireReadsWhatItDeletes(t *testing.T) {
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
	db.SetMaxOpenConns(1) // what is counted is the session's
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatalf("%s = %v", text, err)
		}
	}
	exec("insert into mirror_event values (0, 'default', 'e', '', 'r', 'u', '', '', '2026-03-01', '2026-03-01', null, " +
		"'', '', 't', '')")
	for n := 1; n < 1<<14; n *= 2 {
		exec("insert into mirror_event select (bucket + ?) mod 256, project_id, sha2(concat(event_id, ?), 256), type, "+
			"room_id, user_id, '', repeat('x', 300), send_time, receive_time + interval ? second, null, outcome, batch_token, "+
			"thread_id, secret_sha from mirror_event", n, n, n)
	}
	x := store.Expiry{
		Project: "default", Table: store.AgingEvents, Before: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), Limit: 100,
	}
	x.After.Time = firstTime
	for _, prepare := range []string{"", "analyze table mirror_event"} {
		if prepare != "" {
			exec(prepare)
		}
		exec("flush status")
		q := newQueries(db, pieceRows)
		var keys []agedKey
		err := q.query(t.Context(), agedSQL(x.Table), []any{
			rawKey(x.Project), nullTime(x.After.Time), nullTime(x.Before), nullTime(x.After.Time), []byte{}, x.Limit,
		}, func(rows *sql.Rows) error {
			var key agedKey
			var at sql.NullTime
			err := rows.Scan(append([]any{&at}, key.scan(1)...)...)
			keys = append(keys, key)
			return err
		})
		if err != nil || len(keys) != x.Limit {
			t.Fatalf("rows = %d, %v; want %d", len(keys), err, x.Limit)
		}
		if read := rowsRead(t, db); read > 150 {
			t.Errorf("The look for 100 rows after %q reads %d; want about as many", prepare, read)
		}
		slices.SortFunc(keys, agedKey.compare)
		exec("flush status")
		if n, _, err := q.expire(t.Context(), x, keys); n != x.Limit || err != nil {
			t.Fatalf("expire = %d, %v; want %d", n, err, x.Limit)
		}
		// Each is read to be locked, read again and looked for among those that wait, which is a
		// statement of its own because of Vitess, and read to be deleted.
		if read := rowsRead(t, db); read > 550 {
			t.Errorf("The deletion of 100 rows after %q reads %d; want a few for each", prepare, read)
		}
	}
}
