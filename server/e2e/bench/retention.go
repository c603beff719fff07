package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/retention"
)

// retentionAim is the least that is acknowledged while old rows are deleted, of what is
// acknowledged otherwise.
const retentionAim = 0.9

// oldTime is when the first of the old rows was written, and keptTime how long rows stay.
var oldTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

const keptTime = 48 * time.Hour

// agedTable is what a run of retention deletes, with all that goes with it.
type agedTable struct {
	name string
	// table is the one that ages, tables are all that shrink.
	table  store.Aging
	tables []string
	// fill writes about so many old rows.
	fill func(f *filling, rows int) error
}

var ofThreads = []string{"mirror_thread", "mirror_comment", "mirror_comment_reaction"}

var agedTables = []agedTable{
	{"events", store.AgingEvents, []string{"mirror_event"}, (*filling).events},
	{"changes", retention.Changes, []string{"mirror_change"}, (*filling).changes},
	{"deleted rooms", store.AgingRooms, append(ofThreads, "mirror_room", "mirror_document"), (*filling).rooms},
	{"deleted threads", store.AgingThreads, ofThreads, (*filling).threads},
}

// benchRetention is part k: deliveries acknowledged beside a run of retention on tables with
// many old rows. The run is that of the service, but in this process, which measures its
// transactions: their longest time bounds that of each statement and of each lock.
func benchRetention(ctx context.Context, b *bench) (err error) {
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	w := b.table(fmt.Sprintf("(k) acknowledgements while old rows are deleted, of tables with %d: 8 connections, "+
		"windows of %s, in turns with windows without\n"+
		"    beside: rows that were deleted in these windows; rest: what was left then, deleted without pauses\n"+
		"    transactions: their number, median and longest time in ms; no lock is held longer\n"+
		"    missing: acknowledged events that are not there in the end",
		b.oldRows, b.aging),
		"old rows of", "filled in", "acks/s", "without", "ratio", "aim", "p99 ms", "without", "beside", "transactions",
		"rest", "transactions", "MiB before", "after", "missing")
	for i, aged := range agedTables {
		if err := b.besideRetention(ctx, w, upstream, aged, fmt.Sprintf("k_%d", i)); err != nil {
			return fmt.Errorf("%s: %w", aged.name, err)
		}
	}
	return w.Flush()
}

// besideRetention measures one table, in a database of its own.
func (b *bench) besideRetention(ctx context.Context, w io.Writer, upstream *process, aged agedTable, name string) (
	err error,
) {
	url, err := b.database(ctx, name)
	if err != nil {
		return err
	}
	db, err := connect(ctx, url, 1)
	if err != nil {
		return err
	}
	defer db.close()
	begin := time.Now()
	fill := &filling{db.dialect, func(text string) error { return db.exec(ctx, text) }}
	if err := aged.fill(fill, b.oldRows); err != nil {
		return err
	}
	filled := time.Since(begin)
	for _, table := range aged.tables {
		if err := db.exec(ctx, db.tidy(table)); err != nil {
			return err
		}
	}
	before, err := db.sizes(ctx, aged.tables)
	if err != nil {
		return err
	}
	opened, err := engine.Open(ctx, engine.Config{URL: url, MaxConns: 4})
	if err != nil {
		return err
	}
	defer opened.Close()

	var with, without []sample
	var acked int64
	beside := &timedStore{Store: opened}
	// Without workers the most is acknowledged. Its own retention has nothing to do.
	err = b.withService(ctx, settings(url, upstream.addr, callsPerSecond, "0.001", "MIRROR_RETENTION_CHANGES", "0"),
		func(p *process) error {
			job := loadJob{
				Kind: "webhooks", Addr: p.addr, Conns: 8, Limit: int64(b.rooms), Size: webhookSize, Rooms: b.rooms,
			}
			first, err := b.window(ctx, job, nil, nil, nil) // every room has been heard of
			if err != nil {
				return err
			}
			acked = first.ops
			job.Limit, job.Warm, job.Timed = 0, b.warm, b.aging
			for range b.rounds {
				off, err := b.window(ctx, job, p, nil, nil)
				if err != nil {
					return err
				}
				stop := expiring(ctx, b, beside, aged.table)
				on, err := b.window(ctx, job, p, nil, nil)
				stop()
				if err != nil {
					return err
				}
				without, with, acked = append(without, off), append(with, on), acked+off.ops+on.ops
			}
			return nil
		})
	if err != nil {
		return err
	}
	rest := &timedStore{Store: opened}
	if err := rest.drain(ctx, aged.table); err != nil {
		return err
	}
	after, err := db.sizes(ctx, aged.tables)
	if err != nil {
		return err
	}
	var kept int64
	if err := db.get(ctx, &kept, "select count(*) from mirror_event"); err != nil {
		return err
	}
	verdict := verdict(with, without, retentionAim)
	if rest.rows == 0 {
		verdict += ", nothing was left to delete: name more -rows"
	}
	_, err = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\t%s\t%.0f\t%.0f\t%d\n", aged.name,
		filled.Round(time.Second), perSecondOf(with), perSecondOf(without), verdict, p99Of(with), p99Of(without),
		beside.rows, beside.times(), rest.rows, rest.times(), before, after, acked-kept)
	return err
}

// expiring deletes the old rows of a table as the service does until stop is called.
func expiring(ctx context.Context, b *bench, s *timedStore, table store.Aging) (stop func()) {
	cfg := retention.Config{Store: s, Now: time.Now, Logger: b.log}
	if table == retention.Changes {
		cfg.Changes = keptTime
	} else {
		cfg.Projects = []retention.Project{{ID: project, Keep: map[store.Aging]time.Duration{table: keptTime}}}
	}
	runner := retention.New(cfg)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = runner.Run(ctx) // it returns nil
	}()
	runner.Wake()
	return func() {
		cancel()
		<-ended
	}
}

// timedStore measures the transactions that delete rows.
type timedStore struct {
	store.Store

	mu   sync.Mutex
	took []time.Duration
	rows int64
}

func (s *timedStore) note(begin time.Time, rows int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows += int64(rows); err == nil {
		s.took = append(s.took, time.Since(begin))
	}
}

func (s *timedStore) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	begin := time.Now()
	out, err := s.Store.Expire(ctx, x)
	s.note(begin, out.Deleted, err)
	return out, err
}

func (s *timedStore) Trim(ctx context.Context, bucket int16, through int64, limit int) (int, error) {
	begin := time.Now()
	n, err := s.Store.Trim(ctx, bucket, through, limit)
	s.note(begin, n, err)
	return n, err
}

// times are the number of transactions, and the median and longest time in milliseconds.
func (s *timedStore) times() string {
	if len(s.took) == 0 {
		return "0"
	}
	slices.Sort(s.took)
	return fmt.Sprintf("%d %.0f %.0f", len(s.took), quantile(s.took, 0.5).Seconds()*1e3, quantile(s.took, 1).Seconds()*1e3)
}

// drain deletes all old rows of a table without pauses, as many at once as the service does.
func (s *timedStore) drain(ctx context.Context, table store.Aging) error {
	const limit = 1000
	if table != retention.Changes {
		x := store.Expiry{Project: project, Table: table, Before: time.Now().Add(-keptTime), Limit: limit}
		for {
			out, err := s.Expire(ctx, x)
			if x.After = out.Last; err != nil || !out.More {
				return err
			}
		}
	}
	heads, err := s.Heads(ctx)
	if err != nil {
		return err
	}
	for bucket, head := range heads {
		for n := limit; n == limit; {
			if n, err = s.Trim(ctx, int16(bucket), head-1, limit); err != nil {
				return err
			}
		}
	}
	return nil
}

// sizes is how much of the disk tables take, in MiB.
func (db database) sizes(ctx context.Context, tables []string) (mib float64, err error) {
	for _, table := range tables {
		var size int64
		if err := db.get(ctx, &size, db.size(table)); err != nil {
			return 0, err
		}
		mib += float64(size) / (1 << 20)
	}
	return mib, nil
}

// filling fills tables with old rows.
type filling struct {
	*dialect

	exec func(text string) error
}

// insert inserts rows with the numbers n from 1 on: columns and values are lists, and what says
// %s among the values is the time.
func (f *filling) insert(table, columns, values string, rows, minutes int) error {
	at := oldTime.Add(time.Duration(minutes) * time.Minute).Format("'2006-01-02 15:04:05'")
	return f.exec("insert into " + table + " (" + columns + ") select " + strings.ReplaceAll(values, "%s", at) + " from " +
		f.series(rows))
}

// in inserts rows of a room.
func (f *filling) in(room mirror.RoomID, table, columns, values string, rows, minutes int) error {
	return f.insert(table, "bucket, project_id, room_id, "+columns, fmt.Sprintf("%d, '%s', '%s', ",
		mirror.Bucket(project, string(room)), project, room)+values, rows, minutes)
}

// Long values are as long as those of rooms with something in them.
var (
	oldPayload = `'{"type":"storageUpdated","data":{"projectId":"` + liveblocksProject +
		`","roomId":"old","updatedAt":"2020-01-01T00:00:00.000Z"}}'`
	oldJSON    = `'{"id":"` + strings.Repeat("x", 300) + `"}'`
	oldContent = "'" + strings.Repeat("x", 2048) + "'"
)

func (f *filling) events(rows int) error {
	const rooms = 100
	for i := range rooms {
		values := fmt.Sprintf("concat('old_%d_', n), 'storageUpdated', '', '%s', %s, %%s, %%s, 'queued'", i,
			liveblocksProject, oldPayload)
		columns := "event_id, type, user_id, liveblocks_project_id, payload, send_time, receive_time, outcome"
		if f.dialect == &mysql {
			columns, values = columns+", batch_token", values+", ''"
		}
		if err := f.in(mirror.RoomID(fmt.Sprintf("old-%d", i)), "mirror_event", columns, values, rows/rooms, i); err != nil {
			return err
		}
	}
	return nil
}

func (f *filling) changes(rows int) error {
	n := max(rows/mirror.Buckets, 1)
	for bucket := range mirror.Buckets {
		err := f.insert("mirror_change", "bucket, n, project_id, room_id, kind, resource_id, change_kind, commit_time",
			fmt.Sprintf("%d, n, '%s', 'old', %d, '', %d, %%s", bucket, project, mirror.KindStorage, mirror.ChangeUpserted), n, 0)
		if err == nil {
			err = f.exec(fmt.Sprintf("delete from mirror_feed_head where bucket = %d", bucket))
		}
		if err == nil {
			err = f.exec(fmt.Sprintf("insert into mirror_feed_head (bucket, n) values (%d, %d)", bucket, n))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// room inserts a room, deleted or not, with its state.
func (f *filling) room(room mirror.RoomID, deleted bool, minutes int) error {
	at := "null"
	if deleted {
		at = "%s"
	}
	return errors.Join(
		f.in(room, "mirror_room", "epoch, source_json, content_sha256, organization_id, data_problem, delete_time",
			"1, "+oldJSON+", '', '', '', "+at, 1, minutes),
		f.state(room, mirror.KindRoom, "''", 1))
}

// state inserts the states of what is at rest.
func (f *filling) state(room mirror.RoomID, kind mirror.Kind, id string, rows int) error {
	return f.in(room, "mirror_resource_state", "kind, resource_id, generation, applied_generation, last_error",
		fmt.Sprintf("%d, %s, 1, 1, ''", kind, id), rows, 0)
}

// thread inserts threads with comments and reactions, which are spread over them.
func (f *filling) thread(room mirror.RoomID, deleted bool, threads, comments, reactions, minutes int) error {
	at := "null"
	if deleted {
		at = "%s"
	}
	of := fmt.Sprintf("concat('th_', n %% %d + 1)", threads)
	return errors.Join(
		f.in(room, "mirror_thread", "thread_id, epoch, source_json, content_sha256, resolved, visibility, comment_count, "+
			"data_problem, delete_time", "concat('th_', n), 1, "+oldJSON+", '', false, 'public', 1, '', "+at, threads, minutes),
		f.state(room, mirror.KindThread, "concat('th_', n)", threads),
		f.in(room, "mirror_comment", "thread_id, comment_id, user_id, create_time, source_json, plain_text, markdown",
			of+", concat('cm_', n), 'alice', %s, "+oldJSON+", 'a few words', 'a few words'", comments, minutes),
		f.in(room, "mirror_comment_reaction", "thread_id, comment_id, emoji, user_id",
			of+", concat('cm_', n), '+1', 'bob'", reactions, minutes))
}

// rooms have 400 rows each.
func (f *filling) rooms(rows int) error {
	for i := range max(rows/400, 1) {
		room := mirror.RoomID(fmt.Sprintf("old-%d", i))
		if err := errors.Join(
			f.room(room, true, i),
			f.in(room, "mirror_document", "kind, resource_id, epoch, content, content_sha256, size, derive_version, "+
				"data_problem, plain_text", "n + 1, '', 1, "+oldContent+", '', 2048, 1, '', ''", 2, i),
			f.thread(room, false, 37, 240, 120, i)); err != nil {
			return err
		}
	}
	return nil
}

// threads have 20 rows each, and are in 50 rooms that live.
func (f *filling) threads(rows int) error {
	const rooms = 50
	each := max(rows/20/rooms, 1)
	for i := range rooms {
		room := mirror.RoomID(fmt.Sprintf("old-%d", i))
		if err := errors.Join(f.room(room, false, i), f.thread(room, true, each, 15*each, 4*each, i)); err != nil {
			return err
		}
	}
	return nil
}
