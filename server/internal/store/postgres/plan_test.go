package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// recorder takes the place of a database and keeps the statement.
type recorder struct {
	sql  string
	args []any
}

var errRecorded = errors.New("recorded")

func (r *recorder) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	r.sql, r.args = sql, args
	return pgconn.CommandTag{}, errRecorded
}

func (r *recorder) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	r.sql, r.args = sql, args
	return nil, errRecorded
}

func (r *recorder) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	r.sql, r.args = sql, args
	return oneRow{err: errRecorded}
}

// Planning MarkStale takes longer than running it, so the server keeps one plan for
// any arrays, whatever was marked first.
func TestMarkStaleIsPlannedOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url, now := pgtest.Database(t), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	for name, batch := range map[string]int{"children of a room": 0, "one event": 1, "a batch": 32} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatalf("Connect = %v", err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			for n := range 20 {
				var arg dbq.MarkStaleParams
				if batch == 0 {
					var list []store.Stale
					for kind := mirror.KindRoom; len(list) < 4; kind++ {
						r := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprint("room", n)), Kind: kind}
						list = append(list, store.Stale{Resource: r, Now: now})
					}
					arg = staleParams(list)
				} else {
					var deliveries []mirror.Delivery
					for i := range batch {
						id := fmt.Sprintf("%s %d %d", name, n, i)
						r := mirror.Resource{Project: "default", Room: mirror.RoomID(id), Kind: mirror.KindStorage}
						deliveries = append(deliveries, mirror.Delivery{
							Event:         mirror.Event{Project: "default", ID: id, ReceiveTime: now, SendTime: now},
							Invalidations: []mirror.Invalidation{{Resource: r}},
						})
					}
					arg, _ = acceptParams(deliveries, store.StaleByEvent)
					arg.LockTimeout = "1s"
				}
				if _, err := dbq.New(conn).MarkStale(t.Context(), arg); err != nil {
					t.Fatalf("MarkStale = %v", err)
				}
			}
			var custom, generic int
			if err := conn.QueryRow(t.Context(), "select custom_plans, generic_plans from pg_prepared_statements "+
				"where statement like '-- name: MarkStale%'").Scan(&custom, &generic); err != nil {
				t.Fatalf("read pg_prepared_statements = %v", err)
			}
			if custom > 5 || generic < 15 { // the server tries five before it compares
				t.Fatalf("planned %d times of %d; want at most 5", custom, custom+generic)
			}
		})
	}
}

// The statements that write lists of items are planned once too, however many items and
// rows there are: of a small piece of a list, planning would take longer than writing.
func TestListsArePlannedOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, comments := range map[string]int{"few rows": 1, "many rows": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, url := t.Context(), pgtest.Database(t)
			if err := Migrate(ctx, url, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatalf("Migrate = %v", err)
			}
			s, err := Open(ctx, Config{URL: url, MaxConns: 8})
			if err != nil {
				t.Fatalf("Open = %v", err)
			}
			defer s.Close()
			room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
			lease := func(r mirror.Resource) mirror.Lease {
				t.Helper()
				if _, err := s.Request(ctx, []mirror.Request{{Resource: r}}, now); err != nil {
					t.Fatalf("Request = %v", err)
				}
				lease, err := s.Claim(ctx, r, [16]byte{1}, now, time.Hour)
				if err != nil {
					t.Fatalf("Claim = %v", err)
				}
				return lease
			}
			content := mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now}
			if _, err := s.ApplyRoom(ctx, lease(room), content, now, 0); err != nil {
				t.Fatalf("ApplyRoom = %v", err)
			}
			room.Kind = mirror.KindThread
			list := lease(room)
			const pieces = 20
			for n := range pieces {
				var items []store.Item
				for i := range 3 {
					thread := mirror.Thread{ID: fmt.Sprintf("th_%d_%d", n, i), Source: []byte(`{}`), CreateTime: now}
					for c := range comments {
						thread.Comments = append(thread.Comments, mirror.Comment{
							ID: fmt.Sprintf("cm_%d", c), UserID: "alice", Source: []byte(`{}`), Body: []byte(`{}`), CreateTime: now,
							Reactions: []mirror.Reaction{{Emoji: "+1", UserID: "bob", CreateTime: now}},
							Mentions:  []mirror.Mention{{Kind: "user", ID: "bob"}},
						})
					}
					items = append(items, store.ThreadItem(thread))
				}
				if changes, err := s.AddItems(ctx, list, items, now, now); err != nil || len(changes) != 3 {
					t.Fatalf("AddItems = %v, %v; want three changes", changes, err)
				}
			}
			rows, err := s.pool.Query(ctx, "select custom_plans, generic_plans, statement from pg_prepared_statements "+
				"where custom_plans + generic_plans >= $1", pieces)
			if err != nil {
				t.Fatalf("read pg_prepared_statements = %v", err)
			}
			seen, custom, generic, statement := 0, 0, 0, ""
			if _, err := pgx.ForEachRow(rows, []any{&custom, &generic, &statement}, func() error {
				if seen++; custom > 5 { // the server tries five before it compares
					t.Errorf("planned %d times of %d:\n%s", custom, custom+generic, statement)
				}
				return nil
			}); err != nil {
				t.Fatalf("read pg_prepared_statements = %v", err)
			}
			if seen < 8 {
				t.Errorf("%d statements were run for each piece; want all of AddItems", seen)
			}
		})
	}
}

// The changes of a piece of a list cost what they write, however many states the room
// has by then: a session keeps the plan that it made when there were few.
func TestAnnounceReadsWhatItWrites(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url := pgtest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s = %v", sql, err)
		}
	}
	r := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindThread}
	list := func(from, to int) {
		t.Helper()
		exec(fmt.Sprintf("insert into mirror_resource_state (bucket, project_id, room_id, kind, resource_id, generation, "+
			"applied_generation) select %d, 'default', 'room', %d, 'th_' || n, 1, 1 from generate_series(%d, %d) n",
			r.Bucket(), r.Kind, from, to))
	}
	record := &recorder{}
	if _, err := dbq.New(record).AnnounceListed(t.Context(), dbq.AnnounceListedParams{}); !errors.Is(err, errRecorded) {
		t.Fatalf("AnnounceListed = %v", err)
	}
	exec("prepare announce (text[], smallint, text, text, smallint, bigint, timestamptz) as " + record.sql)
	exec("set plan_cache_mode = force_generic_plan")
	announce := func() (blocks int, plan []byte) {
		t.Helper()
		sql := fmt.Sprintf("explain (analyze, buffers, format json) execute announce("+
			"array['th_1', 'th_2', 'th_3'], %d, 'default', 'room', %d, 1, now())", r.Bucket(), r.Kind)
		if err := conn.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&plan); err != nil {
			t.Fatalf("explain = %v", err)
		}
		var out []struct {
			Plan struct {
				Plans []struct {
					Hit  int `json:"Shared Hit Blocks"`
					Read int `json:"Shared Read Blocks"`
				}
			}
		}
		if err := json.Unmarshal(plan, &out); err != nil {
			t.Fatalf("Unmarshal = %v", err)
		}
		for _, part := range out[0].Plan.Plans {
			blocks = max(blocks, part.Hit+part.Read)
		}
		return blocks, plan
	}
	list(1, 5)
	announce()
	list(6, 20_000)
	if blocks, plan := announce(); blocks > 100 {
		t.Errorf("AnnounceListed of 3 of 20,000 threads takes %d blocks; want some for each: %.3000s", blocks, plan)
	}
	var revised int
	if err := conn.QueryRow(t.Context(), "select count(*) from mirror_resource_state where revision > 0").Scan(
		&revised); err != nil || revised != 3 {
		t.Fatalf("states with a revision = %d, %v; want 3", revised, err)
	}
}

// sample fills in a value that the tables below can be asked for.
func sample(name string, v reflect.Value) {
	now := pgtype.Timestamptz{Time: time.Date(2026, 3, 1, 0, 10, 0, 0, time.UTC), Valid: true}
	switch into := v.Addr().Interface().(type) {
	case *pgtype.Timestamptz:
		*into = now
		return
	case *[]byte:
		*into = []byte(`{"n":"1"}`)
		return
	}
	switch v.Kind() { //nolint:exhaustive // the others stay zero, as most filters do
	case reflect.Slice:
		one := reflect.New(v.Type().Elem()).Elem()
		sample(name, one)
		v.Set(reflect.Append(v, one))
	case reflect.Struct:
		for i := range v.NumField() {
			sample(v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.String:
		switch name {
		case "ProjectID":
			v.SetString("default")
		case "Prefix", "Lower", "Upper", "RoomID", "ThreadID", "ResourceID", "UserID", "EventID":
			v.SetString("r-8")
		}
	case reflect.Int16, reflect.Int32, reflect.Int64:
		switch name {
		case "Kind":
			v.SetInt(2)
		case "MaxRows":
			v.SetInt(20)
		}
	}
}

// planNode is what matters of a step of a plan.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Index    string     `json:"Index Name"`
	Cond     string     `json:"Index Cond"`
	Plans    []planNode `json:"Plans"`
}

// walk hands out all steps of a plan.
func (p planNode) walk(f func(planNode)) {
	f(p)
	for _, child := range p.Plans {
		child.walk(f)
	}
}

// anyRow is a row of which nothing is read.
type anyRow struct{}

func (anyRow) Scan(...any) error { return nil }

// No statement reads a whole table. What is done with every event and task finds
// its rows by all of their key.
func TestStatementsUseTheirKeys(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url := pgtest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	// As wide as rows are in truth, or reading all of them would be the quickest.
	const when, wide = "timestamptz '2026-03-01' + n * interval '1 second'", "convert_to(repeat('x', 1500), 'UTF8')"
	// Few threads and comments changed after the time of the filters.
	const early = "timestamptz '2026-03-01' + n * interval '0.1 second'"
	for table, columns := range map[string]string{
		"mirror_room": "'r-' || n, 1, " + wide + ", '', null, null, '', null, '', " +
			"case when n % 10 = 0 then " + when + " end, ''",
		"mirror_document": "'r-' || n, 2, '', 1, " + wide + ", '', 0, 1",
		"mirror_resource_state": "'r-' || n % 1000, n % 8 + 1, case when n % 8 > 2 then 'r-' || n else '' end, 1, 0, " +
			"case when n % 50 = 0 then " + when + " end",
		"mirror_event": "'r-' || n, 'r-8', 'r-' || n % 500, 'r-' || n % 500, '', " + wide + ", " + when + ", " + when +
			", null, ''",
		"mirror_unfolded_event": "'r-' || n % 500, 6, '', 'r-' || n, '', '', null, " + when,
		"mirror_thread": "'r-' || n % 500, 'r-' || n, 1, " + wide + ", '', " + early + ", " + early +
			", n % 2 = 0, '', null, jsonb_build_object('n', n::text), 0, '', null, ''",
		"mirror_comment": "'r-' || n % 500, 'r-' || n % 1000, 'r-' || n, 'r-' || n % 100, " + early +
			", null, null, " + wide + ", null, '', '', null",
		"mirror_comment_reaction":   "'r-' || n % 500, 'r-' || n % 1000, 'r-' || n, 'x', 'r-' || n, null",
		"mirror_comment_attachment": "'r-' || n % 500, 'r-' || n % 1000, 'r-' || n, 'x', '', '', 0",
		"mirror_comment_mention":    "'r-' || n % 500, 'r-' || n % 1000, 'r-' || n, 'user', 'r-' || n % 100, ''",
		"mirror_active_user":        "'r-' || n % 500, n, 1, 'r-' || n, null, null",
		"mirror_user_session": "'r-' || n % 500, 'r-' || n, n % 50, 'r-' || n % 100, null, null, " + when +
			", null, null, '', case when n % 10 = 0 then '' else 'left' end",
		"mirror_notification": "'r-' || n % 500, 'r-' || n % 2000, 'r-' || n, 'r-8', 'r-8', 'r-' || n % 100, 'r-8', '', " +
			"'', " + when + ", null, " + wide + ", null, null, null",
		"mirror_group":        "'r-' || n, '', " + wide + ", '', null, null, null",
		"mirror_group_member": "'r-' || n % 500, 'r-' || n % 100, null",
		"mirror_audit":        "'r-' || n, " + when + ", null, true, 'r-8', 'r-8', '', '', '', 0, '', '', '', '', 1",
		"mirror_change":       "",
		"mirror_room_term":    "'r-' || n, '', " + when,
		"mirror_thread_term":  "'r-' || n % 500, 'r-' || n, md5((n % 100)::text)",
	} {
		insert := "insert into " + table + " select n % 256, case when n % 8 = 0 then 'other' else 'default' end, " +
			columns + " from generate_series(1, 6000) n"
		if table == "mirror_change" {
			insert = "insert into mirror_change select n % 4, n, 'default', 'r', 2, '', 1, now(), 0 " +
				"from generate_series(1, 6000) n"
		}
		if table == "mirror_resource_state" {
			insert = strings.Replace(insert, table,
				table+" (bucket, project_id, room_id, kind, resource_id, generation, applied_generation, due_time)", 1)
			insert = strings.Replace(insert, "6000", "30000", 1)
		}
		if _, err := conn.Exec(t.Context(), insert); err != nil {
			t.Fatalf("%s = %v", insert, err)
		}
	}
	if _, err := conn.Exec(t.Context(), "vacuum analyze"); err != nil {
		t.Fatalf("vacuum = %v", err)
	}

	// The small tables, of which a page is read whatever the plan.
	small := []string{"mirror_project", "mirror_feed_head", "mirror_sweep", "mirror_unannounced"}
	// Those that touch the state of a resource at every step of its life.
	hot := []string{
		"MarkStale", "Claim", "Renew", "LockState", "LockLeased", "LockChild", "LockInRoom", "WriteState", "WriteDocument",
		"States",
	}
	record := &recorder{}
	// plan returns the steps of a statement's plan, and complains about those that read a
	// whole table.
	plan := func(name, explain string, args ...any) (steps []planNode) {
		var raw []byte
		if err := conn.QueryRow(t.Context(), "explain (format json) "+explain, args...).Scan(&raw); err != nil {
			t.Errorf("explain %s = %v", name, err)
			return nil
		}
		var plans []struct{ Plan planNode }
		if err := json.Unmarshal(raw, &plans); err != nil {
			t.Fatalf("Unmarshal = %v", err)
		}
		plans[0].Plan.walk(func(node planNode) {
			steps = append(steps, node)
			if node.Type == "Seq Scan" && strings.HasPrefix(node.Relation, "mirror_") && !slices.Contains(small, node.Relation) {
				t.Errorf("%s reads all of %s: %.40s", name, node.Relation, explain)
			}
		})
		return steps
	}
	queries := reflect.ValueOf(dbq.New(record))
	seen := 0
	for i := range queries.NumMethod() {
		name, method := queries.Type().Method(i).Name, queries.Method(i)
		if name == "WithTx" {
			continue
		}
		args := []reflect.Value{reflect.ValueOf(t.Context())}
		if method.Type().NumIn() == 2 {
			arg := reflect.New(method.Type().In(1)).Elem()
			sample("ProjectID", arg)
			args = append(args, arg)
		}
		method.Call(args)
		used := make(map[string]bool)
		for _, node := range plan(name, record.sql, record.args...) {
			used[node.Index] = true
			if node.Type == "Sort" && strings.HasSuffix(name, "TermsAfter") {
				t.Errorf("%s sorts the terms of a bucket", name)
			}
			if !slices.Contains(hot, name) || node.Cond == "" || node.Relation != "" &&
				node.Relation != "mirror_resource_state" {
				continue
			}
			// The bucket follows from the rest.
			for _, part := range []string{"(project_id = ", "(room_id = ", "(kind = ", "(resource_id = "} {
				if strings.HasPrefix(node.Index, "mirror_resource_state") && !strings.Contains(node.Cond, part) {
					t.Errorf("%s looks for states by %s %s; want all of the key", name, node.Index, node.Cond)
				}
			}
		}
		if (name == "Due" || name == "NextDue") && !used["mirror_resource_state_by_due"] {
			t.Errorf("%s does not use the index by due time: %v", name, used)
		}
		seen++
	}
	if seen < 40 {
		t.Fatalf("only %d statements were seen", seen)
	}

	for _, s := range items {
		scope := []any{int16(8), "default"}
		if s.kind.InRoom() {
			scope = append(scope, "r-8")
		}
		ids := array(store.ColumnID, 3, func(int) any { return "r-8" })
		one := append(slices.Clone(scope), "r-8")
		plan("copyOf", s.copyOf, one...)
		plan("copies", s.copies, scope...)
		plan("distrust", s.distrust, one...)
		plan("tombstone", s.tombstone, append(slices.Clone(one), nullTime(time.Unix(0, 0)))...)
		plan("stored", s.stored, append(slices.Clone(scope), ids)...)
		if s.kind.InRoom() {
			plan("begin", s.begin, one...)
		}
		for p, part := range s.kind.Parts {
			key := slices.Clone(scope)
			for range part.Key + 1 {
				key = append(key, ids)
			}
			plan("deletePart of "+part.Name, s.deletePart[p], key...)
			if part.HasDigest() {
				plan("distrustPart of "+part.Name, s.distrustPart[p], one...)
			}
		}
	}

	for _, table := range store.AgingTables {
		steps := plan("aged of "+string(table), agedSQL(table), "default", time.Time{}, time.Unix(2e9, 0), "", 20)
		for _, node := range steps {
			if node.Type == "Sort" || node.Relation == string(table) && node.Index != table.Columns().Index {
				t.Errorf("aged rows of %s are read by %q, with a step %s; want its index, in order", table, node.Index, node.Type)
			}
		}
		tids := []pgtype.TID{{BlockNumber: 1, OffsetNumber: 1, Valid: true}}
		plan("delete aged of "+string(table), deleteAgedSQL(table), tids)
		if table.Columns().Empties {
			plan("unmark aged of "+string(table), unmarkAgedSQL, tids)
		}
		for _, part := range table.Columns().Parts {
			var keys agedKeys
			keys.add(8, slices.Repeat([]string{"r-8"}, len(table.Columns().Key)))
			plan("delete "+part+" of "+string(table), deletePartsSQL(table, part), keys.args("default", 20)...)
		}
	}

	for _, table := range store.Personal {
		key := []any{int16(8), "default"}
		for _, c := range table.Key {
			if c.Number {
				key = append(key, int64(2))
			} else {
				key = append(key, "r-8")
			}
		}
		run := func(_ context.Context, text string, args []any, scan func(sqllist.Row) error) error {
			for _, node := range plan("search "+table.Name, text, args...) {
				if node.Type == "Sort" {
					t.Errorf("the search of %s sorts: %s", table.Name, text)
				}
			}
			return scan(anyRow{})
		}
		if _, err := sqllist.NewReader(lists, run, classify, nil, 0).PersonalRows(t.Context(), "default", table, 8, key[2:],
			20, 1<<20); err != nil {
			t.Errorf("PersonalRows = %v", err)
		}
		plan("personal row of "+table.Name, sqllist.Numbered(sqllist.PersonalRowSQL(table)), key...)
		plan("delete of personal "+table.Name, sqllist.Numbered(sqllist.DeletePersonalSQL(table)), key...)
		if table.HasContent() {
			plan("lock personal "+table.Name, sqllist.Numbered(sqllist.LockPersonalSQL(table)), key...)
		}
		if table.Rewritable() {
			text := sqllist.RewritePersonalSQL(table)
			plan("rewrite of personal "+table.Name, sqllist.Numbered(text),
				append(make([]any, strings.Count(text, "?")-len(key)), key...)...)
		}
		if table.Kind == mirror.KindNotification {
			plan("left of "+table.Name, sqllist.Numbered(sqllist.LeftSQL(table)), key[:4]...)
		}
		if table.Terms != "" {
			plan("delete terms of "+table.Name, sqllist.Numbered(sqllist.DeleteTermsSQL(table)), key...)
		}
		if item := table.Item(); item != nil {
			plan("life of "+table.Name, sqllist.Numbered(sqllist.LifeHeadSQL(item)), key[:len(item.Scope())+1]...)
		}
	}
	plan("waiting room", sqllist.Numbered(sqllist.WaitingRoomSQL), int16(8), "default", "r-8")
	plan("lock room", sqllist.Numbered(sqllist.LockRoomSQL), int16(8), "default", "r-8")
	plan("release folds", sqllist.Numbered(sqllist.ReleaseFoldsSQL), int16(8), "default", "r-8")
	plan("lock tombstone", sqllist.Numbered(sqllist.LockTombstoneSQL), int16(8), "default", "r-8", time.Unix(0, 0))
	comment := []any{int16(8), "default", "r-8", "r-8", "r-8"}
	plan("count attachments", sqllist.Numbered(sqllist.CountAttachmentsSQL), comment...)
	plan("delete attachments", sqllist.Numbered(lists.DeleteSome(store.AttachmentTable, sqllist.AttachmentsOfComment)),
		append(comment, 10)...)

	// What reads send depends on the filter. The server plans the first uses of a text
	// with the arguments, and then makes one plan for any.
	if _, err := conn.Exec(t.Context(), "set plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatalf("set plan_cache_mode = %v", err)
	}
	reader := &Store{Reader: sqllist.NewReader(lists, rowsOf(record), classify, nil, 0)}
	prepared := make(map[string]bool)
	texts := make(map[string]int)
	for _, read := range storetest.Reads() {
		read.Call(t.Context(), reader)
		what := fmt.Sprintf("%s by %+v", read.Name, read.Filter)
		plan(what, record.sql, record.args...)
		if prepared[record.sql] {
			continue
		}
		prepared[record.sql] = true
		texts[read.Name]++
		name := fmt.Sprintf("read_%d", len(prepared))
		if _, err := conn.Prepare(t.Context(), name, record.sql); err != nil {
			t.Fatalf("Prepare %s = %v", record.sql, err)
		}
		steps := plan(what+", whatever the arguments",
			"execute "+name+"(null"+strings.Repeat(", null", len(placed(record.args))-1)+")")
		if read.InOrder && slices.ContainsFunc(steps, func(n planNode) bool { return n.Type == "Sort" }) {
			t.Errorf("%s sorts more than a page", what)
		}
	}
	for _, text := range termTexts(t) {
		prepared[text.sql] = true
		for _, node := range plan("a list by terms", text.sql, text.args...) {
			if node.Type == "Sort" {
				t.Errorf("a list by terms sorts: %s", text.sql)
			}
		}
	}
	// Each has a place in the cache of each connection.
	for name, n := range texts {
		if n > 32 {
			t.Errorf("%s has %d texts; want at most 32", name, n)
		}
	}
	if len(prepared) > 128 {
		t.Errorf("reads have %d texts; want at most 128", len(prepared))
	}
}

// emptyRow is a row of zero values.
type emptyRow struct{}

func (emptyRow) Scan(...any) error { return nil }

// termTexts are the statements of lists by terms that read keys.
func termTexts(t *testing.T) (all []recorder) {
	t.Helper()
	run := func(_ context.Context, text string, args []any, scan func(sqllist.Row) error) error {
		all = append(all, recorder{text, args})
		return scan(emptyRow{})
	}
	r := sqllist.NewReader(lists, run, classify, nil, 0)
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

// What is due in the background is found behind any number of tasks that are not
// due yet, and the other way round.
func TestDueReadsWhatItReturns(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url := pgtest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range []string{
		`insert into mirror_resource_state (bucket, project_id, room_id, kind, resource_id, generation, due_time, background)
			select n % 256, 'default', 'r-' || n, 2, '', 1, timestamptz '2026-03-01' + n * interval '1 second', n % 2 = 0
			from generate_series(1, 20000) n`,
		"vacuum analyze mirror_resource_state",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s = %v", sql, err)
		}
	}
	record := &recorder{}
	_, err = dbq.New(record).Due(t.Context(), dbq.DueParams{
		ProjectID: "default", Now: nullTime(time.Date(2026, 3, 1, 0, 0, 10, 0, time.UTC)), MaxRows: 100,
		Kinds: store.KindColumns(mirror.Kinds()),
	})
	if !errors.Is(err, errRecorded) {
		t.Fatalf("Due = %v", err)
	}
	var raw []byte
	if err := conn.QueryRow(t.Context(), "explain (analyze, buffers, format json) "+record.sql,
		record.args...).Scan(&raw); err != nil {
		t.Fatalf("explain = %v", err)
	}
	var plan []struct {
		Plan struct {
			Rows float64 `json:"Actual Rows"` // PostgreSQL 18 tells hundredths
			Hit  int     `json:"Shared Hit Blocks"`
			Read int     `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(raw, &plan); err != nil {
		t.Fatalf("Unmarshal = %v", err)
	}
	// Ten rows and the way to them in the index, twice.
	if got := plan[0].Plan; got.Rows != 10 || got.Hit+got.Read > 40 {
		t.Fatalf("Due returns %.2f rows and reads %d blocks; want 10, and no more than a few each: %s", got.Rows,
			got.Hit+got.Read, fmt.Sprintf("%.2000s", raw))
	}
}

// When something is due next is one step in the index, however many tasks are open and
// whatever the statistics say.
func TestNextDueReadsWhatItReturns(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url := pgtest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	record := &recorder{}
	now := nullTime(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	if _, err := dbq.New(record).NextDue(t.Context(), dbq.NextDueParams{
		ProjectID: "default", Now: now, TooFar: now, Kinds: store.KindColumns(mirror.Kinds()),
	}); !errors.Is(err, errRecorded) {
		t.Fatalf("NextDue = %v", err)
	}
	for _, sql := range []string{
		`insert into mirror_resource_state (bucket, project_id, room_id, kind, resource_id, generation)
			select n % 256, 'default', 'r-' || n, 2, '', 1 from generate_series(1, 20000) n`,
		"vacuum analyze mirror_resource_state", // nothing is open
		"update mirror_resource_state set due_time = '2026-04-01'",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s = %v", sql, err)
		}
	}
	for _, prepare := range []string{"", "vacuum analyze mirror_resource_state"} {
		if _, err := conn.Exec(t.Context(), prepare); err != nil {
			t.Fatalf("%s = %v", prepare, err)
		}
		var raw []byte
		if err := conn.QueryRow(t.Context(), "explain (analyze, buffers, format json) "+record.sql,
			record.args...).Scan(&raw); err != nil {
			t.Fatalf("explain = %v", err)
		}
		var plan []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
		}
		if err := json.Unmarshal(raw, &plan); err != nil {
			t.Fatalf("Unmarshal = %v", err)
		}
		if got := plan[0].Plan; got.Hit+got.Read > 40 {
			t.Errorf("NextDue after %q reads %d blocks; want a few: %.3000s", prepare, got.Hit+got.Read, raw)
		}
	}
}

// A fold reads and deletes the events that it takes up, however many wait behind them.
func TestFoldReadsWhatItTakes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url := pgtest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s = %v", sql, err)
		}
	}
	// Ids do not tell the order of events.
	r := mirror.Resource{Project: "default", Room: "lobby", Kind: mirror.KindUserSessions}
	exec(fmt.Sprintf(`insert into mirror_unfolded_event
		select %d, 'default', 'lobby', 6, '', md5(n::text), 'userEntered', convert_to(repeat('x', 300), 'UTF8'),
			case when mod(n, 2) = 0 then timestamptz '2026-03-01' + n * interval '1 second' end,
			timestamptz '2026-03-01' + n * interval '1 second'
		from generate_series(1, 40000) n`, r.Bucket()))
	explain := func(sql string, args []any) (rows float64, blocks int, plan []byte) {
		t.Helper()
		sql = "explain (analyze, buffers, format json) " + sql
		if err := conn.QueryRow(t.Context(), sql, args...).Scan(&plan); err != nil {
			t.Fatalf("explain = %v", err)
		}
		type node struct {
			Rows  float64 `json:"Actual Rows"` // PostgreSQL 18 tells hundredths
			Hit   int     `json:"Shared Hit Blocks"`
			Read  int     `json:"Shared Read Blocks"`
			Lost  int     `json:"Rows Removed by Filter"`
			Plans []node
		}
		var out []struct{ Plan node }
		if err := json.Unmarshal(plan, &out); err != nil {
			t.Fatalf("Unmarshal = %v", err)
		}
		top := out[0].Plan
		for n := []node{top}; len(n) > 0; n = n[0].Plans {
			rows = max(rows, n[0].Rows) // a deletion itself returns none
			if n[0].Lost > 0 {
				t.Errorf("%d rows are read in vain: %.2000s", n[0].Lost, plan)
			}
		}
		return rows, top.Hit + top.Read, plan
	}
	// The server may know nothing of the table, which is empty most of the time, or all.
	for _, prepare := range []string{"", "vacuum analyze mirror_unfolded_event"} {
		exec(prepare)
		record := &recorder{}
		if _, err := dbq.New(record).Unfolded(t.Context(), dbq.UnfoldedParams{
			Bucket: r.Bucket(), ProjectID: "default", RoomID: "lobby", Kind: int16(r.Kind), MaxRows: 100,
		}); !errors.Is(err, errRecorded) {
			t.Fatalf("Unfolded = %v", err)
		}
		// A row may be in a block of its own.
		if rows, blocks, plan := explain(record.sql, record.args); rows != 100 || blocks > 150 {
			t.Errorf("Unfolded after %q returns %.2f rows and reads %d blocks; want 100, and about as many: %.2000s", prepare,
				rows, blocks, plan)
		}
		s := &Store{q: dbq.New(conn)}
		events, err := s.Unfolded(t.Context(), r, 100)
		if err != nil || len(events) != 100 {
			t.Fatalf("Unfolded = %d events, %v; want 100", len(events), err)
		}
		var ids []string
		for _, e := range events {
			ids = append(ids, e.ID)
		}
		record = &recorder{}
		until := events[99].HappenTime()
		if _, err := deleteFolded(t.Context(), nil, dbq.New(record), r, ids, until); !errors.Is(err, errRecorded) {
			t.Fatalf("deleteFolded = %v", err)
		}
		// Each row is found by an index, read and deleted.
		if rows, blocks, plan := explain(record.sql, record.args); rows != 100 || blocks > 1000 {
			t.Errorf("Deletion after %q takes %.2f rows and %d blocks; want 100, and a few for each: %.3000s", prepare, rows,
				blocks, plan)
		}
	}
}

// What expires is found behind nothing else, whatever the server knows of the table.
func TestExpireReadsWhatItDeletes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
	url := pgtest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s = %v", sql, err)
		}
	}
	exec(`insert into mirror_event select n % 256, 'default', md5(n::text), '', 'r', 'u', '', convert_to(repeat('x', 300), 'UTF8'),
		timestamptz '2026-03-01', timestamptz '2026-03-01' + n * interval '1 second', null, ''
		from generate_series(1, 40000) n`)
	for _, prepare := range []string{"", "vacuum analyze mirror_event"} {
		exec(prepare)
		for _, setting := range expireSettings {
			exec(strings.Replace(setting, "local ", "", 1))
		}
		var raw []byte
		if err := conn.QueryRow(t.Context(), "explain (analyze, buffers, format json) "+agedSQL(store.AgingEvents), "default",
			time.Time{}, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), "", 100).Scan(&raw); err != nil {
			t.Fatalf("explain = %v", err)
		}
		var plan []struct {
			Plan struct {
				Rows float64 `json:"Actual Rows"`
				Hit  int     `json:"Shared Hit Blocks"`
				Read int     `json:"Shared Read Blocks"`
			}
		}
		if err := json.Unmarshal(raw, &plan); err != nil {
			t.Fatalf("Unmarshal = %v", err)
		}
		// Each row is read, locked and looked for among those that wait.
		if got := plan[0].Plan; got.Rows != 100 || got.Hit+got.Read > 1000 {
			t.Errorf("the look for 100 rows after %q finds %.0f and reads %d blocks; want a few for each: %.3000s", prepare,
				got.Rows, got.Hit+got.Read, raw)
		}
	}
}
