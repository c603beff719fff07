package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// upsertBefore25 is how versions before schema 25 write a room.
const upsertBefore25 = `insert into mirror_room (
    bucket, project_id, room_id, epoch, source_json, content_sha256,
    create_time, last_connection_time, organization_id, data, data_problem
)
values (?, ?, ?, 1, ?, ?, ?, null, '', null, '') `

var onConflict22 = map[*dbtest.Engine]string{
	dbtest.Postgres: `on conflict (bucket, project_id, room_id) do update set
    epoch = excluded.epoch, source_json = excluded.source_json, content_sha256 = excluded.content_sha256,
    create_time = excluded.create_time, delete_time = null`,
	dbtest.MySQL: `on duplicate key update
    epoch = values(epoch), source_json = values(source_json), content_sha256 = values(content_sha256),
    create_time = values(create_time), delete_time = null`,
}

// latestBy returns the ids of the rooms with a value in their metadata, newest first.
func latestBy(t *testing.T, s store.Store, value string) (ids []string) {
	t.Helper()
	rooms, err := s.LatestRooms(t.Context(), store.LatestRoomFilter{
		Project: "default", Terms: store.SelectedBy(map[string]string{"n": value}, "", "", nil), Limit: 100,
	})
	if err != nil {
		t.Fatalf("LatestRooms = %v", err)
	}
	for _, r := range rooms {
		ids = append(ids, string(r.ID))
	}
	return ids
}

// A replica of the version before may write rooms while a new one reads them, in any way.
// Lists have what is in the rooms, before and after they are indexed.
func TestRoomsOfAnEarlierVersionAreListed(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		source := func(value string) []byte { return fmt.Appendf(nil, `{"metadata":{"n":"%s"}}`, value) }
		before := func(id mirror.RoomID, value string, created time.Time) {
			t.Helper()
			r := mirror.Resource{Project: "default", Room: id}
			mustExec(t, db, upsertBefore25+onConflict22[e], r.Bucket(), []byte("default"), []byte(id), source(value),
				[]byte(strings.Repeat(value, 32)), created)
		}
		now := func(id mirror.RoomID, value string, created time.Time) {
			t.Helper()
			r := mirror.Resource{Project: "default", Room: id, Kind: mirror.KindRoom}
			if _, err := s.Request(t.Context(), requestsFor(r), testTime); err != nil {
				t.Fatalf("Request = %v", err)
			}
			lease, err := s.Claim(t.Context(), r, [16]byte{1}, testTime, time.Minute)
			if err == nil {
				_, err = s.ApplyRoom(t.Context(), lease, mirror.RoomContent{
					FetchTime: testTime, Source: source(value), CreateTime: created,
				}, testTime, 0)
			}
			if err != nil {
				t.Fatalf("ApplyRoom = %v", err)
			}
		}
		want := func(when, value string, ids ...string) {
			t.Helper()
			if d := cmp.Diff(ids, latestBy(t, s, value)); d != "" {
				t.Errorf("rooms with %q %s (-want +got):\n%s", value, when, d)
			}
		}
		now("changed", "1", testTime)
		now("kept", "1", testTime)
		now("anew", "1", testTime)
		before("changed", "2", testTime)
		before("new", "1", testTime.Add(-time.Second))
		before("anew", "1", testTime.Add(time.Second)) // it was deleted, and has another time
		for _, when := range []string{"written by the version before", "indexed"} {
			want(when, "1", "anew", "kept", "new")
			want(when, "2", "changed")
			n, err := store.IndexAll(t.Context(), s, "", nil)
			if left := map[bool]int{true: 3, false: 0}[when != "indexed"]; err != nil || n.Rooms != left {
				t.Fatalf("IndexAll = %+v, %v; want %d rooms", n, err, left)
			}
		}
		// The index by itself has it all now: nothing is looked at beside it.
		stored := value[int](t, db, "select count(*) from mirror_room where terms_sha256 = content_sha256")
		terms := value[int](t, db, "select count(*) from mirror_room_term")
		if stored != 4 || terms != 8 {
			t.Errorf("rooms that are indexed = %d, terms = %d; want 4 of two each", stored, terms)
		}
		// Deleted by this version, and back by the version before with the same bytes.
		r := mirror.Resource{Project: "default", Room: "kept"}
		mustExec(t, db, "update mirror_room set terms_sha256 = null, delete_time = ? where room_id = ?", testTime,
			[]byte("kept"))
		mustExec(t, db, "delete from mirror_room_term where room_id = ?", []byte("kept"))
		mustExec(t, db, "update mirror_room set delete_time = null where bucket = ? and room_id = ?", r.Bucket(),
			[]byte("kept"))
		want("that are back", "1", "anew", "kept", "new")
	})
}

// indexed returns what is logged while all is indexed that is not.
func indexed(t *testing.T, s store.Store) string {
	t.Helper()
	var log journal
	if err := engine.Index(t.Context(), s, log.logger()); err != nil {
		t.Fatalf("Index = %v", err)
	}
	return log.String()
}

// The rooms that are there are indexed in pieces, which can be cut off: the next time goes on.
// A list of too many that are not indexed says so.
func TestRoomsAreIndexed(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		db := e.Connect(t, url)
		s := open(t, engine.Config{URL: url})
		const rooms = 5100
		var rest []string
		var args []any
		insert := func() {
			t.Helper()
			mustExec(t, db, "insert into mirror_room (bucket, project_id, room_id, epoch, source_json, content_sha256, "+
				"create_time, organization_id, data_problem) values "+strings.Join(rest, ", "), args...)
			rest, args = nil, nil
		}
		for n := range rooms {
			id := mirror.RoomID(fmt.Sprint("room ", n))
			r := mirror.Resource{Project: "default", Room: id}
			rest = append(rest, "(?, 'default', ?, 1, ?, ?, ?, '', '')")
			args = append(args, r.Bucket(), []byte(id), fmt.Appendf(nil, `{"metadata":{"n":"%d"}}`, n),
				[]byte(strings.Repeat("h", 32)), testTime)
			if len(rest) == 500 {
				insert()
			}
		}
		insert()
		_, err := s.LatestRooms(t.Context(), store.LatestRoomFilter{Project: "default", Limit: 1})
		if err == nil || !strings.Contains(err.Error(), store.ErrNotIndexed.Error()) {
			t.Fatalf("LatestRooms of what is not indexed = %v; want %v", err, store.ErrNotIndexed)
		}
		// A few more and the process was cut off.
		if _, n, err := s.IndexRooms(t.Context(), "default", store.IndexPlace{}, 200); err != nil || n == 0 {
			t.Fatalf("IndexRooms = %d, %v; want some", n, err)
		}
		if log := indexed(t, s); !strings.Contains(log, "rooms and threads indexed for lists") {
			t.Fatalf("log of Index = %q; want it to tell of the rooms", log)
		}
		if log := indexed(t, s); strings.Contains(log, "indexed") {
			t.Fatalf("log of the second Index = %q; want nothing done", log)
		}
		if n := value[int](t, db, "select count(*) from mirror_room_term"); n != 2*rooms {
			t.Fatalf("terms = %d; want 2 of each room", n)
		}
		if got := latestBy(t, s, "4711"); !cmp.Equal(got, []string{"room 4711"}) {
			t.Fatalf("LatestRooms = %q; want one", got)
		}
	})
}

// upsertBefore26 is how versions before schema 26 write a thread.
const upsertBefore26 = `insert into mirror_thread (
    bucket, project_id, room_id, thread_id, epoch, source_json, content_sha256, create_time, resolved, visibility,
    metadata_text, comment_count, data_problem
)
values (?, 'default', ?, ?, 1, '', ?, ?, false, '', ?, 0, '') `

var onConflict26 = map[*dbtest.Engine]string{
	dbtest.Postgres: `on conflict (bucket, project_id, room_id, thread_id) do update set
    content_sha256 = excluded.content_sha256, metadata_text = excluded.metadata_text, delete_time = null`,
	dbtest.MySQL: `on duplicate key update
    content_sha256 = values(content_sha256), metadata_text = values(metadata_text), delete_time = null`,
}

// threadsBy returns the keys of the threads with a value in their metadata.
func threadsBy(t *testing.T, s store.Store, value string) (ids []string) {
	t.Helper()
	threads, err := s.Threads(t.Context(), store.ThreadFilter{
		Project: "default", Metadata: map[string]string{"n": value}, Limit: 100,
	})
	if err != nil {
		t.Fatalf("Threads = %v", err)
	}
	for _, r := range threads {
		ids = append(ids, string(r.Room)+"/"+r.ID)
	}
	return ids
}

// Threads as [TestRoomsOfAnEarlierVersionAreListed] has it of rooms.
func TestThreadsOfAnEarlierVersionAreListed(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		claim := func(r mirror.Resource) mirror.Lease {
			t.Helper()
			if _, err := s.Request(t.Context(), requestsFor(r), testTime); err != nil {
				t.Fatalf("Request = %v", err)
			}
			lease, err := s.Claim(t.Context(), r, [16]byte{1}, testTime, time.Minute)
			if err != nil {
				t.Fatalf("Claim = %v", err)
			}
			return lease
		}
		metadata := func(value string) []byte { return fmt.Appendf(nil, `{"n":"%s"}`, value) }
		sum := func(value string) (sum [32]byte) { copy(sum[:], strings.Repeat(value, 32)); return sum }
		before := func(room mirror.RoomID, id, value string) {
			t.Helper()
			r := mirror.Resource{Project: "default", Room: room}
			hash := sum(value)
			mustExec(t, db, upsertBefore26+onConflict26[e], r.Bucket(), []byte(room), []byte(id), hash[:], testTime,
				string(metadata(value)))
		}
		now := func(room mirror.RoomID, id, value string) {
			t.Helper()
			lease := claim(mirror.Resource{Project: "default", Room: room, Kind: mirror.KindThread, ID: id})
			item := store.ThreadItem(mirror.Thread{ID: id, CreateTime: testTime, Metadata: metadata(value), SHA256: sum(value)})
			if _, err := s.ApplyItem(t.Context(), lease, item, testTime, testTime, 0); err != nil {
				t.Fatalf("ApplyItem = %v", err)
			}
		}
		want := func(when, value string, ids ...string) {
			t.Helper()
			if d := cmp.Diff(ids, threadsBy(t, s, value)); d != "" {
				t.Errorf("threads with %q %s (-want +got):\n%s", value, when, d)
			}
		}
		for _, room := range []mirror.RoomID{"a", "b"} {
			r := mirror.Resource{Project: "default", Room: room, Kind: mirror.KindRoom}
			content := mirror.RoomContent{FetchTime: testTime, Source: []byte(`{}`), CreateTime: testTime}
			if _, err := s.ApplyRoom(t.Context(), claim(r), content, testTime, 0); err != nil {
				t.Fatalf("ApplyRoom = %v", err)
			}
		}
		now("a", "changed", "1")
		now("a", "kept", "1")
		now("b", "kept", "1")
		before("a", "changed", "2")
		before("a", "new", "1")
		before("b", "new", "2")
		for _, when := range []string{"written by the version before", "indexed"} {
			want(when, "1", "a/kept", "a/new", "b/kept")
			want(when, "2", "a/changed", "b/new")
			n, err := store.IndexAll(t.Context(), s, "", nil)
			if left := map[bool]int{true: 3, false: 0}[when != "indexed"]; err != nil || n.Threads != left {
				t.Fatalf("IndexAll = %+v, %v; want %d threads", n, err, left)
			}
		}
		// The index by itself has it all now: nothing is looked at beside it.
		stored := value[int](t, db, "select count(*) from mirror_thread where terms_sha256 = content_sha256")
		terms := value[int](t, db, "select count(*) from mirror_thread_term")
		if stored != 5 || terms != 5 {
			t.Errorf("threads that are indexed = %d, terms = %d; want 5 of one each", stored, terms)
		}
		// This version finds its way from what the version before has written.
		before("a", "kept", "2")
		now("a", "kept", "3")
		want("written by both", "1", "a/new", "b/kept")
		want("written by both", "3", "a/kept")
		if n := value[int](t, db, "select count(*) from mirror_thread_term"); n != 5 {
			t.Errorf("terms of what both have written = %d; want 5", n)
		}
	})
}

// The threads that are there are indexed in pieces, which can be cut off: the next time goes
// on. A list of too many that are not indexed reads them all.
func TestThreadsAreIndexed(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		db := e.Connect(t, url)
		s := open(t, engine.Config{URL: url})
		const threads, rooms = 5100, 60
		var rest []string
		var args []any
		insert := func(into string) {
			t.Helper()
			mustExec(t, db, "insert into "+into+" values "+strings.Join(rest, ", "), args...)
			rest, args = nil, nil
		}
		room := func(n int) (id mirror.RoomID, bucket int16) {
			r := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprint("room ", n%rooms))}
			return r.Room, r.Bucket()
		}
		hash := []byte(strings.Repeat("h", 32))
		for n := range rooms {
			id, bucket := room(n)
			rest = append(rest, "(?, 'default', ?, 1, ?, ?, ?, '', '')")
			args = append(args, bucket, []byte(id), []byte(`{}`), hash, testTime)
		}
		insert("mirror_room (bucket, project_id, room_id, epoch, source_json, content_sha256, create_time, " +
			"organization_id, data_problem)")
		for n := range threads {
			id, bucket := room(n)
			rest = append(rest, "(?, 'default', ?, ?, 1, '', ?, ?, false, '', ?, 0, '')")
			args = append(args, bucket, []byte(id), fmt.Append(nil, "th ", n), hash, testTime,
				fmt.Sprintf(`{"n":"%d","m":"%d"}`, n, n%7))
			if len(rest) == 500 || n == threads-1 {
				insert("mirror_thread (bucket, project_id, room_id, thread_id, epoch, source_json, content_sha256, create_time, " +
					"resolved, visibility, metadata_text, comment_count, data_problem)")
			}
		}
		found := []string{fmt.Sprintf("room %d/th 4711", 4711%rooms)}
		if got := threadsBy(t, s, "4711"); !cmp.Equal(got, found) {
			t.Fatalf("Threads of what is not indexed = %q; want %q", got, found)
		}
		// A few more and the process was cut off.
		if _, n, err := s.IndexThreads(t.Context(), "default", store.IndexPlace{}, 200); err != nil || n == 0 {
			t.Fatalf("IndexThreads = %d, %v; want some", n, err)
		}
		if log := indexed(t, s); !strings.Contains(log, "rooms and threads indexed for lists") {
			t.Fatalf("log of Index = %q; want it to tell of the threads", log)
		}
		if log := indexed(t, s); strings.Contains(log, "indexed") {
			t.Fatalf("log of the second Index = %q; want nothing done", log)
		}
		if n := value[int](t, db, "select count(*) from mirror_thread_term"); n != 2*threads {
			t.Fatalf("terms = %d; want 2 of each thread", n)
		}
		if got := threadsBy(t, s, "4711"); !cmp.Equal(got, found) {
			t.Fatalf("Threads = %q; want %q", got, found)
		}
	})
}

// A project is indexed without those of others, and all of them together.
func TestProjectIsIndexedAlone(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		for n := range 20 {
			for _, project := range []mirror.ProjectID{"default", "other"} {
				id := mirror.RoomID(fmt.Sprint("room ", n))
				bucket := mirror.Bucket(project, string(id))
				mustExec(t, db, upsertBefore25, bucket, []byte(project), []byte(id), []byte(`{}`),
					[]byte(strings.Repeat("h", 32)), testTime)
				mustExec(t, db, strings.Replace(upsertBefore26, "'default'", "?", 1), bucket, []byte(project), []byte(id),
					[]byte("th"), []byte(strings.Repeat("h", 32)), testTime, `{"n":"1"}`)
			}
		}
		for _, project := range []mirror.ProjectID{"default", ""} {
			n, err := store.IndexAll(t.Context(), s, project, nil)
			if want := (store.Indexed{Rooms: 20, Threads: 20}); err != nil || n != want {
				t.Fatalf("IndexAll of %q = %+v, %v; want %+v", project, n, err, want)
			}
		}
	})
}

// earlier has a room with a term of its own, and a thread in it, as an earlier version of the
// service leaves them when this one has indexed them.
type earlier struct {
	s  store.Store
	db *dbtest.DB
}

func (b earlier) write(t *testing.T, rooms ...mirror.RoomID) {
	t.Helper()
	for _, id := range rooms {
		r := mirror.Resource{Project: "default", Room: id, Kind: mirror.KindRoom}
		content := mirror.RoomContent{FetchTime: testTime, Source: []byte(`{"metadata":{"n":"1"}}`), CreateTime: testTime}
		if _, err := b.s.ApplyRoom(t.Context(), b.claim(t, r), content, testTime, 0); err != nil {
			t.Fatalf("ApplyRoom = %v", err)
		}
		r.Kind, r.ID = mirror.KindThread, "th"
		item := store.ThreadItem(mirror.Thread{ID: r.ID, CreateTime: testTime, Metadata: []byte(`{"n":"1"}`)})
		if _, err := b.s.ApplyItem(t.Context(), b.claim(t, r), item, testTime, testTime, 0); err != nil {
			t.Fatalf("ApplyItem = %v", err)
		}
	}
}

func (b earlier) claim(t *testing.T, r mirror.Resource) mirror.Lease {
	t.Helper()
	if _, err := b.s.Request(t.Context(), requestsFor(r), testTime); err != nil {
		t.Fatalf("Request = %v", err)
	}
	lease, err := b.s.Claim(t.Context(), r, [16]byte{1}, testTime, time.Minute)
	if err != nil {
		t.Fatalf("Claim = %v", err)
	}
	return lease
}

// tombstone does not touch the terms, and neither does revive.
func (b earlier) tombstone(t *testing.T, room string) {
	t.Helper()
	mustExec(t, b.db, "update mirror_room set delete_time = ? where room_id = ?", testTime, []byte(room))
}

func (b earlier) revive(t *testing.T, room string) {
	t.Helper()
	mustExec(t, b.db, "update mirror_room set delete_time = null where room_id = ?", []byte(room))
}

func (b earlier) terms(t *testing.T) (rooms, threads int) {
	t.Helper()
	return value[int](t, b.db, "select count(*) from mirror_room_term"),
		value[int](t, b.db, "select count(*) from mirror_thread_term")
}

// Terms of what an earlier version has deleted are deleted, and no others.
func TestTermsOfWhatIsGoneAreDeleted(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		b := earlier{open(t, engine.Config{URL: url}), e.Connect(t, url)}
		b.write(t, "kept", "purged", "tombstoned", "cleaned")
		b.tombstone(t, "tombstoned")
		mustExec(t, b.db, "delete from mirror_room where room_id = ?", []byte("purged"))
		mustExec(t, b.db, "delete from mirror_thread where room_id = ? or room_id = ?", []byte("purged"), []byte("cleaned"))
		// Of another project, which has its own turn.
		mustExec(t, b.db, "insert into mirror_thread_term (bucket, project_id, room_id, thread_id, term) values "+
			"(1, 'other', 'r', 't', 'x')")
		for _, want := range []int{2*2 + 2, 0} {
			if n, err := store.CleanAllTerms(t.Context(), b.s, "default"); n != want || err != nil {
				t.Fatalf("CleanAllTerms = %d, %v; want %d", n, err, want)
			}
			rooms, threads := b.terms(t)
			if rooms != 2*2 || threads != 2+1 {
				t.Errorf("terms = %d of rooms and %d of threads; want 4 and 3", rooms, threads)
			}
			if n := value[int](t, b.db, "select count(*) from mirror_room"); n != 3 {
				t.Errorf("rooms = %d; want the three that were there", n)
			}
		}
		b.revive(t, "tombstoned")
		if got := latestBy(t, b.s, "1"); !cmp.Equal(got, []string{"cleaned", "kept", "tombstoned"}) {
			t.Errorf("LatestRooms = %q; want also the one that is back", got)
		}
		if got := threadsBy(t, b.s, "1"); !cmp.Equal(got, []string{"kept/th", "tombstoned/th"}) {
			t.Errorf("Threads = %q; want both that are there", got)
		}
	})
}

// What is written while terms are deleted keeps its terms, also those that had been left
// behind: who writes it finds them there.
func TestTermsOfWhatIsWrittenStay(t *testing.T) {
	t.Parallel()
	const sums = "'hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh', 'hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh'"
	bucket := mirror.Bucket("default", "r")
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for table, write := range map[string][]string{
			"mirror_room": {fmt.Sprintf("insert into mirror_room (bucket, project_id, room_id, epoch, source_json, "+
				"content_sha256, terms_sha256, create_time, organization_id, data_problem) values (%d, 'default', 'r', 1, "+
				`'{"metadata":{"n":"1"}}', `+sums+", (select max(create_time) from mirror_room_term), '', '')", bucket)},
			"mirror_thread": {
				"select epoch from mirror_room where room_id = 'r' for update",
				fmt.Sprintf("insert into mirror_thread (bucket, project_id, room_id, thread_id, epoch, source_json, "+
					"content_sha256, terms_sha256, create_time, resolved, visibility, metadata_text, comment_count, data_problem) "+
					"values (%d, 'default', 'r', 'th', 1, '', "+sums+`, '2026-01-01 00:00:00', false, '', '{"n":"1"}', 0, '')`, bucket),
			},
		} {
			t.Run(table, func(t *testing.T) {
				t.Parallel()
				url := e.Own(t)
				b := earlier{open(t, engine.Config{URL: url}), e.Connect(t, url)}
				b.write(t, "r")
				mustExec(t, b.db, "delete from "+table)
				rooms, threads := b.terms(t)
				writer, err := b.db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatalf("BeginTx = %v", err)
				}
				defer func() { _ = writer.Rollback() }() // it has ended, unless the test has failed
				for _, query := range write {
					if _, err := writer.ExecContext(t.Context(), query); err != nil {
						t.Fatalf("%s = %v", query, err)
					}
				}
				done := make(chan error, 1)
				go func() { // it is received below
					_, err := store.CleanAllTerms(t.Context(), b.s, "default")
					done <- err
				}()
				select {
				case err := <-done:
					t.Fatalf("CleanAllTerms = %v beside a writer; want it to wait", err)
				case <-time.After(2 * time.Second):
				}
				if err := writer.Commit(); err != nil {
					t.Fatalf("Commit = %v", err)
				}
				if err := <-done; err != nil {
					t.Fatalf("CleanAllTerms = %v", err)
				}
				if r, th := b.terms(t); r != rooms || th != threads {
					t.Errorf("terms = %d of rooms and %d of threads; want the %d and %d from before", r, th, rooms, threads)
				}
				if got := latestBy(t, b.s, "1"); !cmp.Equal(got, []string{"r"}) {
					t.Errorf("LatestRooms = %q; want the room", got)
				}
				if got := threadsBy(t, b.s, "1"); table == "mirror_thread" && !cmp.Equal(got, []string{"r/th"}) {
					t.Errorf("Threads = %q; want the thread", got)
				}
			})
		}
	})
}

// Who writes a room while its terms are being deleted waits until they are, and writes them
// again.
func TestTermsOfWhatComesBackMeanwhile(t *testing.T) {
	t.Parallel()
	back, other := "r", ""
	for n := 0; other == ""; n++ { // a later one in the same bucket
		if id := fmt.Sprint("r", n); mirror.Bucket("default", id) == mirror.Bucket("default", back) {
			other = id
		}
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		b := earlier{open(t, engine.Config{URL: url}), e.Connect(t, url)}
		b.write(t, mirror.RoomID(back), mirror.RoomID(other))
		lease := b.claim(t, mirror.Resource{Project: "default", Room: mirror.RoomID(back), Kind: mirror.KindRoom})
		lease.Epoch = 0
		b.tombstone(t, other)
		mustExec(t, b.db, "delete from mirror_room where room_id = ?", []byte(back))
		holder, err := b.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatalf("BeginTx = %v", err)
		}
		defer func() { _ = holder.Rollback() }() // it has ended, unless the test has failed
		hold := "select epoch from mirror_room where room_id = '" + other + "' for update"
		if _, err := holder.ExecContext(t.Context(), hold); err != nil {
			t.Fatalf("%s = %v", hold, err)
		}
		cleaned, written := make(chan error, 1), make(chan error, 1)
		go func() { // received below
			_, err := store.CleanAllTerms(t.Context(), b.s, "default")
			cleaned <- err
		}()
		wait := func(d time.Duration) {
			t.Helper()
			select {
			case err := <-cleaned:
				t.Fatalf("CleanAllTerms = %v beside who holds a room; want it to wait", err)
			case <-time.After(d):
			}
		}
		wait(2 * time.Second)
		go func() { // received below
			_, err := b.s.ApplyRoom(t.Context(), lease, mirror.RoomContent{
				FetchTime: testTime, Source: []byte(`{"metadata":{"n":"1"}}`), CreateTime: testTime,
			}, testTime, 0)
			written <- err
		}()
		wait(2 * time.Second)
		if err := holder.Rollback(); err != nil {
			t.Fatalf("Rollback = %v", err)
		}
		if err := <-cleaned; err != nil {
			t.Fatalf("CleanAllTerms = %v", err)
		}
		if err := <-written; err != nil {
			t.Fatalf("ApplyRoom = %v", err)
		}
		if got := latestBy(t, b.s, "1"); !cmp.Equal(got, []string{back}) {
			t.Errorf("LatestRooms = %q; want the room that is back", got)
		}
		if rooms, _ := b.terms(t); rooms != 2 {
			t.Errorf("terms of rooms = %d; want the two of the room that is back", rooms)
		}
	})
}

// A room that has lost some of its terms, but not all of its content, is found if an earlier
// version brings it back as it was.
func TestRoomsThatAreEmptiedInPiecesComeBack(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		b := earlier{open(t, engine.Config{URL: url}), e.Connect(t, url)}
		b.write(t, "r")
		mustExec(t, b.db, "delete from mirror_thread_term")
		mustExec(t, b.db, "delete from mirror_thread")
		later := testTime.Add(time.Hour)
		for what, empty := range map[string]func() (int, error){
			"expiry": func() (int, error) {
				done, err := b.s.Expire(t.Context(), store.Expiry{
					Project: "default", Table: store.AgingRooms, Before: later, Limit: 1,
				})
				return done.Deleted, err
			},
			"purge": func() (int, error) {
				rows, err := b.s.PurgeRoom(t.Context(), mirror.Resource{Project: "default", Room: "r"}, later, 1)
				return int(rows.All()), err
			},
		} {
			b.tombstone(t, "r")
			if n, err := empty(); n != 1 || err != nil {
				t.Fatalf("%s = %d, %v; want one of the terms deleted", what, n, err)
			}
			if rooms, _ := b.terms(t); rooms != 1 {
				t.Fatalf("terms after a piece of the %s = %d; want one of two", what, rooms)
			}
			b.revive(t, "r")
			for _, f := range []store.LatestRoomFilter{
				{}, {Terms: store.SelectedBy(map[string]string{"n": "1"}, "", "", nil)},
			} {
				f.Project, f.Limit = "default", 10
				if rooms, err := b.s.LatestRooms(t.Context(), f); len(rooms) != 1 || err != nil {
					t.Errorf("LatestRooms by %v after a piece of the %s = %+v, %v; want the room", f.Terms, what, rooms, err)
				}
			}
			if n, err := store.IndexAll(t.Context(), b.s, "default", nil); n.Rooms != 1 || err != nil {
				t.Fatalf("IndexAll = %+v, %v; want the room indexed again", n, err)
			}
		}
	})
}

// While somebody reads a table for long, the migrations that index its rows let others write
// to it.
func TestMigrationOfTermsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for table, migration := range map[string]int{"mirror_room": 25, "mirror_thread": 26} {
			t.Run(table, func(t *testing.T) {
				t.Parallel()
				migratesBesideAReader(t, e, table, migration)
			})
		}
	})
}

// migratesBesideAReader undoes the migrations from one on, and runs them again.
func migratesBesideAReader(t *testing.T, e *dbtest.Engine, table string, migration int) {
	t.Helper()
	url := e.Own(t)
	db := e.Connect(t, url)
	undo := []string{fmt.Sprint("delete from mirror_schema_version where version_id >= ", migration)}
	for n, name := range map[int]string{25: "mirror_room", 26: "mirror_thread"} {
		if n < migration {
			continue
		}
		drop := "drop index " + name + "_unindexed"
		if e == dbtest.MySQL {
			drop = "alter table " + name + " drop key " + name + "_unindexed, drop column is_indexed"
		}
		undo = append(undo, drop, "alter table "+name+" drop column terms_sha256", "drop table "+name+"_term")
	}
	for _, query := range undo {
		mustExec(t, db, query)
	}
	reader, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatalf("BeginTx = %v", err)
	}
	defer func() { _ = reader.Rollback() }() // it has been, unless the test has failed
	var n int
	if err := reader.QueryRowContext(t.Context(), "select count(*) from "+table).Scan(&n); err != nil {
		t.Fatalf("count rows = %v", err)
	}
	log := new(journal)
	done := make(chan error, 1)
	go func() { done <- engine.Migrate(t.Context(), url, log.logger()) }()
	patience := time.After(time.Minute)
	for !strings.Contains(log.String(), "a migration waits") {
		select {
		case <-patience:
			t.Fatalf("Migrate beside a reader said %q; want it to give way to others, and say that it waits", log.String())
		case err := <-done:
			t.Fatalf("Migrate = %v beside a reader, having said %q; want it to wait", err, log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	mustExec(t, db, "delete from "+table+" where project_id = 'none'") // as an apply, it needs the table
	if err := reader.Rollback(); err != nil {
		t.Fatalf("Rollback = %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("Migrate = %v", err)
	}
}
