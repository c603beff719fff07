package mysql

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// inViews is a form that views may use: a server that does not know it goes without
// them.
const inViews = "table made of JSON"

// forbidden are forms that MySQL 8, MariaDB and Vitess do not all know, or do not
// all mean the same by, and what a sharded or replicated server cannot do.
var forbidden = map[string]*regexp.Regexp{
	"returning":              regexp.MustCompile(`\breturning\b`),
	"row alias":              regexp.MustCompile(`\)\s*as\s+\w+\s*(\(|on\s+duplicate)`),
	"arrow of JSON":          regexp.MustCompile(`->`),
	"JSON made by MySQL":     regexp.MustCompile(`\bas\s+json\b|\bmember\s+of\b`),
	inViews:                  regexp.MustCompile(`\bjson_table\b`),
	"lock of a session":      regexp.MustCompile(`\b(get_lock|release_lock|is_free_lock)\b|\block\s+tables?\b`),
	"number by the server":   regexp.MustCompile(`\bauto_increment\b|\bserial\b|\bsequence\b|\blast_insert_id\b`),
	"foreign key":            regexp.MustCompile(`\bforeign\s+key\b|\breferences\b`),
	"index on an expression": regexp.MustCompile(`\b(key|index)\s+\w*\s*\(\s*\(`),
	// A virtual one is known to all, and adding it rewrites no row.
	"stored computed column": regexp.MustCompile(`\)\s*(stored|persistent)\b`),
	"user variable":          regexp.MustCompile(`(^|[^@\w])@\w`),
	// "nowait" is known to all of them.
	"lock words of MySQL": regexp.MustCompile(`\bskip\s+locked\b|\bfor\s+share\b|\bfor\s+update\s+of\b`),
	"clock of the server": regexp.MustCompile(
		`\b(now|sysdate|curdate|curtime|unix_timestamp|utc_timestamp)\s*\(|\bas\s+of\b`),
	"chance of the server":   regexp.MustCompile(`\b(uuid|rand)\s*\(`),
	"blind insert":           regexp.MustCompile(`\binsert\s+ignore\b|\breplace\s+into\b`),
	"time with a zone":       regexp.MustCompile(`\btimestamp\b(\s*\(\d\))?\s*(not|null|default|,)`),
	"time without fractions": regexp.MustCompile(`\bdatetime\b\s*([^(]|$)`),
	"id with a collation":    regexp.MustCompile(`\b\w+_id\s+(var)?(char|text)`),
	"limit in a subquery":    regexp.MustCompile(`\bin\s*\(\s*select\b[^)]*\blimit\b`),
	"collation of MySQL":     regexp.MustCompile(`utf8mb4_0900|utf8mb4_nopad`),
	// Vitess plans it as a statement that touches no row, and says nothing.
	"bucket that may be null": regexp.MustCompile(`\bbucket\s*=\s*(sqlc\.narg|null\b)`),
	"set operation":           regexp.MustCompile(`\b(intersect|except)\b`),
	"temporary or partitions": regexp.MustCompile(`\btemporary\s+table\b|\bpartition\s+by\b`),
	"trigger or procedure":    regexp.MustCompile(`\bcreate\s+(trigger|procedure|function|event)\b`),
}

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	literal = regexp.MustCompile(`'[^']*'`)
	// leadingComments precede a statement of sqlc.
	leadingComments = regexp.MustCompile(`\A(\s*--[^\n]*\n|\s+)*`)
)

// offences lists the forbidden forms in a text of SQL.
func offences(text string) []string {
	text = literal.ReplaceAllString(comment.ReplaceAllString(strings.ToLower(text), ""), "''")
	var found []string
	for what, form := range forbidden {
		if form.MatchString(text) {
			found = append(found, what)
		}
	}
	return found
}

// statements are all texts of SQL that this package sends, by where they stand.
func statements(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{
		"MigrationSQL":    MigrationSQL(),
		"insertEventsSQL": insertEventsSQL(2), "recordAuditSQL": recordAuditSQL(2), "recordedSQL": recordedSQL(2),
		"markStaleSQL": markStaleSQL(2),
		"progressSQL":  progressSQL(2), "lockStatesSQL": lockStatesSQL(2), "lockEventsSQL": lockEventsSQL(2),
		"lockBodiesSQL":   lockBodiesSQL(2),
		"deleteFoldedSQL": deleteFoldedSQL(2), "deleteSessionsSQL": deleteSessionsSQL(2), "endSessionsSQL": endSessionsSQL(2),
		"insertListedSQL": insertListedSQL(2), "insertedListedSQL": insertedListedSQL,
		"insertChangesSQL": insertChangesSQL(2), "reviseSQL": reviseSQL(2), "changesSQL": changesSQL(2),
		"purgeRoomSQL": purgeRoomSQL, "eventsOfRoomSQL": eventsOfRoomSQL,
		"eventsOfRoomInSQL": eventsOfRoomInSQL,
		"purgeTableSQL":     purgeTableSQL("mirror_thread"), "purgeEventsSQL": purgeEventsSQL(2),
		"roomsByIDSQL": roomsByIDSQL(2), "sessionsOfSQL": sessionsOfSQL(2), "pingShardSQL": pingShardSQL,
		"deleteTermsSQL": deleteTermsSQL(2), "deleteThreadTermsSQL": deleteThreadTermsSQL(2),
		"purgeProjectSQL":   "delete from mirror_room" + purgeProjectSQL,
		"forgetProjectsSQL": "delete from mirror_unannounced" + forgetProjectsSQL, "forgetChangesSQL": forgetChangesSQL,
	}
	for _, t := range store.Personal {
		all["personal row of "+t.Name] = sqllist.PersonalRowSQL(t)
		if t.HasContent() {
			all["lock personal "+t.Name] = sqllist.LockPersonalSQL(t)
		}
		if t.Changes(store.Subject{Everywhere: true}) {
			all["delete of personal "+t.Name] = sqllist.DeletePersonalSQL(t)
		}
		if t.Rewritable() {
			all["rewrite of personal "+t.Name] = sqllist.RewritePersonalSQL(t)
		}
		if t.Kind == mirror.KindNotification {
			all["left of "+t.Name] = sqllist.LeftSQL(t)
		}
		if t.Terms != "" {
			all["delete terms of "+t.Name] = sqllist.DeleteTermsSQL(t)
		}
		if item := t.Item(); item != nil {
			all["LifeHeadSQL of "+item.Head.Name] = sqllist.LifeHeadSQL(item)
		}
		eachPersonalRead(t, func(what, text string, _ []any) { all[what] = text })
	}
	all["WaitingRoomSQL"] = sqllist.WaitingRoomSQL
	all["LockRoomSQL"], all["CountAttachmentsSQL"] = sqllist.LockRoomSQL, sqllist.CountAttachmentsSQL
	all["delete attachments"] = lists.DeleteSome(store.AttachmentTable, sqllist.AttachmentsOfComment)
	all["ReleaseFoldsSQL"], all["LockTombstoneSQL"] = sqllist.ReleaseFoldsSQL, sqllist.LockTombstoneSQL
	for _, s := range items {
		for what, text := range map[string]string{
			"copyOf": s.copyOf, "copies": s.copies, "distrust": s.distrust, "tombstone": s.tombstone, "note": s.note,
		} {
			all[what+" of "+s.head.name] = text
		}
		all["write SQL of "+s.head.name] = s.head.sql(2)
		for p, part := range s.parts {
			all["write SQL of "+part.name] = part.sql(2)
			all["storedSQL of "+part.name], all["deleteSQL of "+part.name] = s.storedSQL(p, 2), s.deleteSQL(p, 2)
			all["restSQL of "+part.name] = s.restSQL(p)
			all["deleteAllSQL of "+part.name], all["distrustSQL of "+part.name] = s.deleteAllSQL(p), s.distrustSQL(p)
		}
	}
	for _, t := range tables {
		all["write SQL of "+t.name] = t.sql(2)
	}
	for _, t := range []indexed{indexedRooms, indexedThreads} {
		all["unindexedSQL of "+t.table], all["markIndexedSQL of "+t.table] = t.unindexedSQL(), t.markIndexedSQL(2)
		all["lockUnindexedSQL of "+t.table] = t.lockUnindexedSQL(2)
	}
	for _, t := range []termed{termedRooms, termedThreads} {
		all["termsAfterSQL of "+t.terms], all["deleteGoneSQL of "+t.terms] = t.termsAfterSQL(), t.deleteGoneSQL(2)
	}
	all["dropHeldSQL"], all["unmarkIndexedSQL"] = dropHeldSQL(2), unmarkIndexedSQL(2)
	for _, t := range store.AgingTables {
		all["agedSQL of "+string(t)] = agedSQL(t)
		all["lockAgedSQL of "+string(t)], all["deleteAgedSQL of "+string(t)] = lockAgedSQL(t, 2), deleteAgedSQL(t, 2)
		if t.Columns().Waits != "" {
			all["waitingAgedSQL of "+string(t)] = waitingAgedSQL(t, 2)
		}
		for _, part := range t.Columns().Parts {
			all["deletePartSQL of "+part+" of "+string(t)] = deletePartSQL(t, part)
			if store.Weights[part] != "" {
				all["weighPartSQL of "+part+" of "+string(t)] = weighPartSQL(t, part)
			}
		}
	}
	for _, read := range storetest.Reads() {
		all[fmt.Sprintf("read %s by %+v", read.Name, read.Filter)] = readOf(t, read).text
	}
	for i, text := range mover.Statements() {
		all[fmt.Sprintf("mover SQL %d", i)] = text
	}
	v := versionQueries{}
	for _, text := range []string{
		v.CreateTable("t"), v.InsertVersion("t"), v.DeleteVersion("t"), v.GetMigrationByVersion("t"), v.ListMigrations("t"),
		v.GetLatestVersion("t"),
	} {
		all[text] = text
	}
	files, err := filepath.Glob("*/*.sql")
	if err != nil || len(files) < 6 {
		t.Fatalf("Glob = %q, %v; want the files of sql and migrations", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("ReadFile = %v", err)
		}
		all[file] = string(b)
	}
	return all
}

// eachPersonalRead hands out the statements that search a table for a user.
func eachPersonalRead(table *store.PersonalTable, f func(what, text string, args []any)) {
	var after []any
	for _, c := range table.Key {
		if c.Number {
			after = append(after, int64(2))
		} else {
			after = append(after, "r-8")
		}
	}
	n := 0
	run := func(_ context.Context, text string, args []any, scan func(sqllist.Row) error) error {
		f([]string{"measure", "search"}[n]+" personal "+table.Name, text, args)
		n++
		return scan(oneRow{})
	}
	same := func(_ context.Context, err error) error { return err }
	_, _ = sqllist.NewReader(lists, run, same, nil, 0).
		PersonalRows(context.Background(), "default", table, 7, after, 20, 1<<20)
}

// tables are those whose rows are written by lists.
var tables = []table{
	unfoldedTable, sessionTable, activeUserTable, notificationTable, roomTerms, heldRooms,
}

func TestPortableSQL(t *testing.T) {
	t.Parallel()
	for where, text := range statements(t) {
		for _, what := range offences(text) {
			if what == inViews && (where == "MigrationSQL" || strings.HasPrefix(where, "views/")) {
				continue
			}
			t.Errorf("%s has a form that not every server knows: %s", where, what)
		}
	}
	// The test would be worth nothing if it let these pass.
	for text, want := range map[string]string{
		"insert into t (a) values (1) returning a":                              "returning",
		"insert into t (a) values (1) as new on duplicate key update a = new.a": "row alias",
		"select data->>'$.a' from t":                                            "arrow of JSON",
		"select cast(a as json) from t":                                         "JSON made by MySQL",
		"select a from json_table('[1]', '$[*]' columns (a int path '$')) t":    inViews,
		"select get_lock('a', 1)":                                               "lock of a session",
		"create table t (id bigint auto_increment primary key)":                 "number by the server",
		"update h set n = last_insert_id(n + 1)":                                "number by the server",
		"create table t (a int, foreign key (a) references u (a))":              "foreign key",
		"create table t (a json, key k ((cast(a as char))))":                    "index on an expression",
		"create table t (a int, b int generated always as (a) stored)":          "stored computed column",
		"select @a := 1":                                                                  "user variable",
		"select a from t for update skip locked":                                          "lock words of MySQL",
		"select a from t for share":                                                       "lock words of MySQL",
		"update t set a = now(6)":                                                         "clock of the server",
		"insert ignore into t values (1)":                                                 "blind insert",
		"create table t (a timestamp not null)":                                           "time with a zone",
		"create table t (a datetime not null)":                                            "time without fractions",
		"create table t (room_id varchar(128) not null)":                                  "id with a collation",
		"delete from t where a in (select a from t limit 1)":                              "limit in a subquery",
		"create table t (a int) collate utf8mb4_0900_ai_ci":                               "collation of MySQL",
		"-- a comment\nselect a from t -- another\nwhere b = 'returning' for update of t": "lock words of MySQL",
	} {
		if got := strings.Join(offences(text), ", "); got != want {
			t.Errorf("offences(%s) = %q; want %q", text, got, want)
		}
	}
	if got := offences("select a from t -- returning\nwhere b = 'x -> @y'"); len(got) != 0 {
		t.Errorf("offences in comments and literals = %q; want none", got)
	}
}

// What runs often has to find its rows in one shard: by the bucket that every key
// begins with. The rest are lists and looks over a project or the feed, and its two small
// tables.
func TestHotStatementsNameTheirBucket(t *testing.T) {
	t.Parallel()
	overProject := map[string]bool{
		"Events": true, "Rooms": true, "Documents": true, "Threads": true, "Comments": true, "UserSessions": true,
		"Copies": true, "Notifications": true, "TaskList": true, "RoomIDs": true, "LastEvents": true,
		"Due": true, "NextDue": true, "NextLeaseEnd": true, "Counts": true,
		"Project": true, "PinProject": true, "RepinProject": true, "NoteForeign": true, "SaveKeyHash": true,
		"ConfirmKey": true, "ConfirmDeletions": true, "Pause": true, "Stop": true, "Event": true,
		"CountBackgroundRooms": true, "Unannounced": true, "NoteUnannounced": true,
		"forgetProjectsSQL": true, "eventsOfRoomSQL": true, "IdentifyFeed": true, "FeedProjects": true,
		"ForgetFeed": true, "Heads": true, "Earliest": true, "Oldest": true, "LatestRooms": true,
		"unindexedSQL of mirror_room": true, "unindexedSQL of mirror_thread": true,
	}
	for _, t := range store.AgingTables {
		overProject["agedSQL of "+string(t)] = true
	}
	named := regexp.MustCompile(`(?s)-- name: (\w+) :\w+\n(.*?)(\n\n|\z)`)
	byBucket := regexp.MustCompile(`(?s)\bwhere\s+(\w\.)?bucket (= (\?|sqlc)|in \(\?)|\bwhere \((\w\.)?bucket, |` +
		`\bon\s+\w\.bucket = k\.bucket\b|\binsert into \w+ \(\s*bucket, `)
	seen := 0
	over := make(map[string]bool) // a list may have statements of both sorts, by its filters
	check := func(name, text string) {
		seen++
		over[name] = over[name] || !byBucket.MatchString(comment.ReplaceAllString(text, ""))
	}
	for where, text := range statements(t) {
		switch {
		case strings.HasPrefix(where, "sql/"):
			for _, m := range named.FindAllStringSubmatch(text, -1) {
				check(m[1], m[2])
			}
		case strings.HasPrefix(where, "read "):
			check(strings.Fields(where)[1], text)
		case strings.Contains(where, "SQL") && where != "MigrationSQL":
			check(where, text)
		}
	}
	for name, is := range over {
		if is != overProject[name] {
			t.Errorf("statement %s over a project = %t; want %t", name, is, overProject[name])
		}
	}
	if seen < 40 {
		t.Fatalf("only %d statements were found", seen)
	}
}

func TestTablesBeginWithTheirBucket(t *testing.T) {
	t.Parallel()
	tables := regexp.MustCompile(
		`(?s)create table if not exists (\w+) \((.*?)\n\) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;`)
	text := comment.ReplaceAllString(MigrationSQL(), "")
	found := tables.FindAllStringSubmatch(text, -1)
	if got := strings.Count(text, "create table"); len(found) != got || got < 9 {
		t.Fatalf("%d of %d tables are written as they should be", len(found), got)
	}
	for _, m := range found {
		switch m[1] {
		case "mirror_schema_version", "mirror_schema_lock", "mirror_project", "mirror_sweep",
			"mirror_unannounced": // sharded by another column, or by a later migration
		default:
			if !strings.Contains(m[2], "primary key (bucket") {
				t.Errorf("the key of %s does not begin with its bucket", m[1])
			}
		}
	}
}
