package sqllist

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func (r *Reader) ofThread() string {
	return r.roomAndState("t", literal(mirror.KindThread), "t.thread_id")
}

// whereShown selects rows of visible threads t, including deleted ones on request.
func (s *statement) whereShown(deleted bool) *statement {
	return s.where(shown("t", " and (t.delete_time is null or ?)", "?"), deleted, deleted)
}

const (
	threadColumns = "select t.room_id, t.thread_id, t.source_json, " + otherThreadColumns
	// inlineThreadColumns have no source that is longer than so many bytes.
	inlineThreadColumns = "select t.room_id, t.thread_id, " +
		"case when octet_length(t.source_json) <= ? then t.source_json end, " + otherThreadColumns
	otherThreadColumns = `t.content_sha256, t.create_time, t.update_time,
    t.resolved, t.visibility, t.metadata, t.comment_count, t.data_problem, coalesce(t.delete_time, r.delete_time),` + stateColumns + "\n"
)

// anySize is longer than any source: PostgreSQL compares lengths of 32 bits.
const anySize = math.MaxInt32

func scanThread(project mirror.ProjectID) func(Row, *mirror.Thread) error {
	return func(row Row, t *mirror.Thread) error {
		t.Project = project
		err := scanWithState(row, &t.Freshness, &t.Room, &t.ID, &t.Source, (*hash)(&t.SHA256), at(&t.CreateTime),
			at(&t.UpdateTime), &t.Resolved, &t.Visibility, &t.Metadata, &t.CommentCount,
			&t.DataProblem, at(&t.Freshness.DeleteTime))
		t.Freshness.Stale = t.Freshness.Stale || unfinished(t.SHA256)
		return err
	}
}

// unfinished reports whether a thread with this hash is being rewritten, so that some
// of its comments may be newer than the rest.
func unfinished(sum [32]byte) bool { return sum == [32]byte{} }

// scanThreadKey scans the room and the id of a thread.
func scanThreadKey(row Row, k *rowKey) error { return row.Scan(&k.Room, &k.Thread) }

// Thread reads by key.
func (r *Reader) Thread(ctx context.Context, thread mirror.Resource, deleted bool) (mirror.Thread, error) {
	return only(r.threadsByKey(ctx, thread.Project, []mirror.Resource{thread}, deleted, anySize))
}

// ThreadsByID uses one statement for all of them.
func (r *Reader) ThreadsByID(ctx context.Context, project mirror.ProjectID, threads []mirror.Resource,
	inline int64,
) ([]mirror.Thread, error) {
	return r.threadsByKey(ctx, project, threads, false, min(inline, anySize))
}

func (r *Reader) threadsByKey(ctx context.Context, project mirror.ProjectID, threads []mirror.Resource, deleted bool,
	inline int64,
) ([]mirror.Thread, error) {
	return byDistinctKeys(threads, func(keys []rowKey) ([]mirror.Thread, error) {
		s := r.selectThreads(project, keys, inline).whereShown(deleted).inBuckets("t", project, keys)
		return list(ctx, r, "read threads", s, scanThread(project))
	})
}

// selectThreads begins a statement for the threads with some keys, with sources of at most
// inline bytes.
func (r *Reader) selectThreads(project mirror.ProjectID, keys []rowKey, inline int64) *statement {
	table, args := r.keyTable(project, keys, "thread_id")
	return r.query(inlineThreadColumns+"from "+table+`
join mirror_thread t
    on t.bucket = k.bucket and t.project_id = ? and t.room_id = k.room_id and t.thread_id = k.thread_id
`+r.ofThread(), slices.Concat([]any{inline}, args, []any{project})...)
}

// Threads starts from the mentions of a user, the comments of an author, or, in one room,
// from the metadata, those that are resolved or its threads. Otherwise it starts from what
// changed since a time, if that is little, or from the metadata, or from those that are
// resolved, or reads all threads in order.
func (r *Reader) Threads(ctx context.Context, f store.ThreadFilter) ([]mirror.Thread, error) {
	if f.Room != "" {
		if !f.Rooms.Select(f.Room) {
			return nil, nil
		}
		return r.threads(ctx, f, "")
	}
	return byRanges(f.Rooms.Within(""), f.AfterRoom, f.Limit, func(prefix string, limit int) ([]mirror.Thread, error) {
		f := f
		f.Limit = limit
		if string(f.AfterRoom) < prefix {
			f.AfterRoom, f.AfterID = mirror.RoomID(prefix), ""
		}
		return r.threads(ctx, f, prefix)
	})
}

// threads reads threads in rooms with a prefix. If the filter names a room, it is empty.
func (r *Reader) threads(ctx context.Context, f store.ThreadFilter, prefix string) ([]mirror.Thread, error) {
	metadata := store.MetadataFilter(f.Metadata)
	if len(f.Metadata) > 0 && metadata == nil {
		return nil, nil // no thread matches
	}
	const what = "list threads"
	contains := unindexed(fmt.Sprintf(r.dialect.Contains, "t.metadata_text"))
	changed := unindexed(r.dialect.ThreadChanged + " >= ?")
	either, or := false, true
	if f.Resolved != nil {
		either, or = *f.Resolved, *f.Resolved
	}
	// narrow adds the conditions that no index is to serve.
	narrow := func(s *statement) *statement {
		return s.whereShown(f.Deleted).
			whereIf(len(f.Metadata) > 0, contains, jsonText(metadata)).
			whereIf(!f.UpdatedSince.IsZero(), changed, f.UpdatedSince)
	}
	rows := func(ctx context.Context, keys []rowKey) ([]mirror.Thread, error) {
		s := r.selectThreads(f.Project, keys, anySize)
		narrow(s).where("t.resolved in (?, ?)", either, or).
			// A scalar subquery can only be a look-up by key.
			whereIf(f.Author != "" && f.Mentioned != "", `(
        select 1 from mirror_comment c
        where c.bucket = t.bucket and c.project_id = t.project_id and c.room_id = t.room_id
            and c.thread_id = t.thread_id and c.user_id = ? and c.user_id <> '' and (c.delete_time is null or ?)
        limit 1
    ) = 1`, f.Author, f.Deleted)
		s.add("\norder by t.room_id, t.thread_id")
		return list(ctx, r, what, s, scanThread(f.Project))
	}
	after := rowKey{Room: f.AfterRoom, Thread: f.AfterID}
	order := []string{"t.room_id", "t.thread_id"}
	byResolved := func() ([]mirror.Thread, error) {
		return byKeys(ctx, f.Limit, after, false, func(ctx context.Context, key rowKey, _ bool, limit int) ([]rowKey, error) {
			s := r.resolvedThreads(f).whereWithin("t.room_id", prefix).after(order, key.Room, key.Thread).page(order, limit)
			return list(ctx, r, what, s, scanThreadKey)
		}, rows)
	}
	switch {
	case f.Mentioned != "":
		of := store.CommentFilter{Project: f.Project, Room: f.Room, Mentioned: f.Mentioned}
		return byKeys(ctx, f.Limit, after, false, func(ctx context.Context, key rowKey, _ bool, limit int) ([]rowKey, error) {
			keys, err := r.mentions(ctx, of, prefix, key, false, limit)
			for i := range keys {
				keys[i].ID = ""
			}
			return keys, err
		}, rows)
	case f.Author != "":
		return byKeys(ctx, f.Limit, after, false, func(ctx context.Context, key rowKey, _ bool, limit int) ([]rowKey, error) {
			s := r.query("select c.room_id, c.thread_id\nfrom mirror_comment c"+r.by("mirror_comment_by_user")).
				where("c.project_id = ?", f.Project).whereID("c.user_id", f.Author).
				whereIf(f.Room != "", "c.room_id = ?", f.Room).inBucket("c", f.Project, f.Room).whereWithin("c.room_id", prefix).
				after([]string{"c.room_id", "c.thread_id"}, key.Room, key.Thread).
				where("(c.delete_time is null or ?)", f.Deleted)
			// The order within a thread is that of the index.
			s.page([]string{"c.room_id", "c.thread_id", "c.create_time", "c.comment_id"}, limit)
			return list(ctx, r, what, s, scanThreadKey)
		}, rows)
	case f.Room != "":
		first := ""
		switch strings.Compare(string(f.AfterRoom), string(f.Room)) {
		case 0:
			first = f.AfterID
		case 1:
			return nil, nil
		}
		if len(f.Metadata) > 0 {
			if page, ok, err := r.threadsByTerms(ctx, what, f, string(f.Room), after, rows); ok || err != nil {
				return page, err
			}
		}
		if f.Resolved != nil {
			return byResolved()
		}
		room := mirror.Resource{Project: f.Project, Room: f.Room}
		s := r.query(threadColumns + "from mirror_thread t" + r.by("primary") + r.ofThread())
		order := s.withinRoom("t", []string{"t.thread_id"}, room, first)
		return list(ctx, r, what, narrow(s).page(order, f.Limit), scanThread(f.Project))
	}
	if !f.UpdatedSince.IsZero() {
		s := r.query("select t.room_id, t.thread_id\nfrom mirror_thread t\n").
			where("t.project_id = ? and "+r.dialect.ThreadChanged+" >= ?", f.Project, f.UpdatedSince)
		s.add("\norder by " + r.dialect.ThreadChanged)
		if page, few, err := byFewKeys(ctx, r, what, f.Limit, after, prefix, s, scanThreadKey, rows); few || err != nil {
			return page, err
		}
	}
	if len(f.Metadata) > 0 {
		if page, ok, err := r.threadsByTerms(ctx, what, f, prefix, after, rows); ok || err != nil {
			return page, err
		}
	}
	if f.Resolved != nil {
		return byResolved()
	}
	s := r.query(threadColumns+"from mirror_thread t"+r.by("mirror_thread_by_id")+r.ofThread()).
		where("t.project_id = ?", f.Project).whereWithin("t.room_id", prefix).after(order, f.AfterRoom, f.AfterID)
	return list(ctx, r, what, narrow(s).page(order, f.Limit), scanThread(f.Project))
}

// resolvedThreads selects the keys of all threads, or those of a room, that are resolved, or
// that are not. Postgres would read all threads in their order, as long as it does not know
// which of both values it is: one of them may be rare.
func (r *Reader) resolvedThreads(f store.ThreadFilter) *statement {
	s := r.query("select t.room_id, t.thread_id\nfrom mirror_thread t"+r.by("mirror_thread_by_resolved")).
		where("t.project_id = ? and t.resolved = ?", f.Project, *f.Resolved).
		whereIf(f.Room != "", "t.room_id = ?", f.Room).inBucket("t", f.Project, f.Room)
	s.byValues = true
	return s
}

// threadsByTerms reads a page of the threads in rooms with a prefix, or in one room, that
// have some metadata, and are resolved or not. If too many threads are not indexed to look at
// each of them, it reads nothing and returns false.
func (r *Reader) threadsByTerms(ctx context.Context, what string, f store.ThreadFilter, prefix string, after rowKey,
	rows func(ctx context.Context, keys []rowKey) ([]mirror.Thread, error),
) (page []mirror.Thread, ok bool, err error) {
	keysOf := func(table, index, condition string, args ...any) *statement {
		return r.query("select t.room_id, t.thread_id\nfrom "+table+" t"+r.by(index)).where(condition, args...).
			whereIf(f.Room != "", "t.room_id = ?", f.Room)
	}
	// What is indexed meanwhile is in both.
	s := keysOf("mirror_thread", "mirror_thread_unindexed", r.dialect.ThreadUnindexed).
		where("t.project_id = ?", f.Project).
		whereIf(f.Room != "", "t.bucket = ?", mirror.Bucket(f.Project, string(f.Room)))
	s.add("\nlimit ?", manyMatches+1)
	unindexed, err := list(ctx, r, what, s, scanThreadKey)
	if err != nil || len(unindexed) > manyMatches {
		return nil, false, err
	}
	outside := func(k rowKey) bool { return !strings.HasPrefix(string(k.Room), prefix) }
	unindexed = slices.DeleteFunc(unindexed, outside)
	slices.SortFunc(unindexed, rowKey.compare)
	read := func(ctx context.Context, after rowKey, most int) (ranges []keyRange[rowKey], err error) {
		var statements []*statement
		for _, name := range slices.Sorted(maps.Keys(f.Metadata)) {
			statements = append(statements, keysOf("mirror_thread_term", "mirror_thread_term_by_term",
				"t.project_id = ? and t.term = ?", f.Project, store.ThreadTerm(name, f.Metadata[name])).
				inBucket("t", f.Project, f.Room))
		}
		if f.Resolved != nil {
			statements = append(statements, r.resolvedThreads(f))
		}
		order := []string{"t.room_id", "t.thread_id"}
		for _, s := range statements {
			keys, err := list(ctx, r, what, s.after(order, after.Room, after.Thread).page(order, most), scanThreadKey)
			if err != nil {
				return nil, err
			}
			found := rangeOf(keys, most)
			// Those of the prefix come first.
			if n := slices.IndexFunc(keys, outside); n >= 0 {
				found = rangeOf(keys[:n], most)
			}
			ranges = append(ranges, found)
		}
		return ranges, nil
	}
	page, err = byTerms(ctx, r, what, f.Limit, after, rangeOf(unindexed, len(unindexed)+1), read, rows)
	return page, true, err
}

// mentions reads where comments mention a user, after a thread or from it on, and after
// the comment of the key if it names one: one key for each mention, with the id of the
// comment.
func (r *Reader) mentions(ctx context.Context, f store.CommentFilter, prefix string, after rowKey, inclusive bool,
	limit int,
) ([]rowKey, error) {
	thread := []string{"m.room_id", "m.thread_id"}
	s := r.query("select m.room_id, m.thread_id, m.comment_id\nfrom mirror_comment_mention m"+
		r.by("mirror_comment_mention_by_user")).
		where("m.kind = 'user' and m.project_id = ? and m.mentioned_id = ?", f.Project, f.Mentioned).
		whereIf(f.Room != "", "m.room_id = ?", f.Room).inBucket("m", f.Project, f.Room).
		whereIf(f.Thread != "", "m.thread_id = ?", f.Thread).whereWithin("m.room_id", prefix).
		whereIf(after.ID != "", "m.comment_id > ?", after.ID)
	if inclusive {
		s.from(thread, after.Room, after.Thread)
	} else {
		s.after(thread, after.Room, after.Thread)
	}
	return list(ctx, r, "list mentions", s.page(append(thread, "m.comment_id"), limit),
		func(row Row, k *rowKey) error { return row.Scan(&k.Room, &k.Thread, &k.ID) })
}

const commentColumns = `select c.room_id, c.thread_id, c.comment_id, c.user_id, c.create_time, c.edit_time, c.delete_time,
    c.source_json, t.content_sha256, coalesce(t.delete_time, r.delete_time),` + stateColumns + "\n"

func (r *Reader) ofComment() string {
	return r.lookUp("mirror_thread", "t", onKey("t", "c", "c.room_id")+" and t.thread_id = c.thread_id") + r.ofThread()
}

func scanComment(project mirror.ProjectID) func(Row, *mirror.Comment) error {
	return func(row Row, c *mirror.Comment) error {
		c.Project = project
		var sum [32]byte
		err := scanWithState(row, &c.Freshness, &c.Room, &c.Thread, &c.ID, &c.UserID, at(&c.CreateTime), at(&c.EditTime),
			at(&c.DeleteTime), &c.Source, (*hash)(&sum), at(&c.Freshness.DeleteTime))
		c.Freshness.Stale = c.Freshness.Stale || unfinished(sum)
		return err
	}
}

func keyOfComment(c mirror.Comment) rowKey {
	return rowKey{Room: c.Room, Thread: c.Thread, Micros: c.CreateTime.UnixMicro(), ID: c.ID}
}

// Comment reads by key.
func (r *Reader) Comment(ctx context.Context, thread mirror.Resource, id string, deleted bool) (mirror.Comment,
	error,
) {
	s := r.query(commentColumns+"from mirror_comment c\n"+r.ofComment()).whereRoom("c", thread).whereShown(deleted).
		where("c.thread_id = ? and c.comment_id = ?", thread.ID, id).where("(c.delete_time is null or ?)", deleted)
	return one(ctx, r, "read comment", s, scanComment(thread.Project))
}

// Comments starts from the mentions of a user, the comments of an author, or those of
// a room if the filter names one. Otherwise it reads all comments in order, unless few
// match the time.
func (r *Reader) Comments(ctx context.Context, f store.CommentFilter) ([]mirror.Comment, error) {
	if f.Room != "" {
		if !f.Rooms.Select(f.Room) {
			return nil, nil
		}
		return r.comments(ctx, f, "")
	}
	return byRanges(f.Rooms.Within(""), f.AfterRoom, f.Limit, func(prefix string, limit int) ([]mirror.Comment, error) {
		f := f
		f.Limit = limit
		if string(f.AfterRoom) < prefix {
			f.AfterRoom, f.AfterThread, f.AfterTime, f.AfterID = mirror.RoomID(prefix), "", time.Time{}, ""
		}
		return r.comments(ctx, f, prefix)
	})
}

// comments reads comments in rooms with a prefix. If the filter names a room, it is empty.
func (r *Reader) comments(ctx context.Context, f store.CommentFilter, prefix string) ([]mirror.Comment, error) {
	const what = "list comments"
	afterTime := f.AfterTime
	if afterTime.IsZero() {
		afterTime = time.Unix(0, 0) // the stored time of comments without one
	}
	order := []string{"c.room_id", "c.thread_id", "c.create_time", "c.comment_id"}
	since := r.dialect.First // one text with and without
	if !f.UpdatedSince.IsZero() {
		since = r.dialect.Time(f.UpdatedSince)
	}
	// page adds the conditions that no index is to serve, and the end of the page.
	page := func(ctx context.Context, s *statement) ([]mirror.Comment, error) {
		s.whereShown(f.Deleted).where("(c.delete_time is null or ?)", f.Deleted).
			where(unindexed(r.dialect.CommentChanged+" >= ?"), since).
			after(order, f.AfterRoom, f.AfterThread, afterTime, f.AfterID).page(order, f.Limit)
		return list(ctx, r, what, s, scanComment(f.Project))
	}
	// rows reads comments by their keys. They are sorted, because keys of mentions have
	// no time.
	rows := func(ctx context.Context, keys []rowKey) ([]mirror.Comment, error) {
		var all []mirror.Comment
		for some := range slices.Chunk(keys, maxKeys) {
			table, args := r.keyTable(f.Project, some, "thread_id", "comment_id")
			found, err := page(ctx, r.query(commentColumns+"from "+table+`
join mirror_comment c
    on c.bucket = k.bucket and c.project_id = ? and c.room_id = k.room_id and c.thread_id = k.thread_id
    and c.comment_id = k.comment_id
`+r.ofComment(), append(args, f.Project)...).where("(? = '' or c.user_id = ?)", f.Author, f.Author))
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		slices.SortFunc(all, func(a, b mirror.Comment) int { return keyOfComment(a).compare(keyOfComment(b)) })
		return all[:min(len(all), f.Limit)], nil
	}
	switch {
	case f.Mentioned != "":
		after := rowKey{Room: f.AfterRoom, Thread: f.AfterThread}
		return byKeys(ctx, f.Limit, after, true,
			func(ctx context.Context, key rowKey, inclusive bool, limit int) ([]rowKey, error) {
				keys, err := r.mentions(ctx, f, prefix, rowKey{Room: key.Room, Thread: key.Thread}, inclusive, limit)
				if err != nil || len(keys) < limit {
					return keys, err
				}
				// The last thread can have more, which can be earlier.
				last := keys[len(keys)-1]
				of := f
				of.Room, of.Thread = last.Room, last.Thread
				rest, err := inPieces(r, func(last *rowKey) ([]rowKey, error) {
					var after rowKey
					if last != nil {
						after.ID = last.ID
					}
					return r.mentions(ctx, of, "", after, true, cmp.Or(r.dialect.Piece, math.MaxInt32))
				})
				keys = slices.DeleteFunc(keys, func(k rowKey) bool { return k.Room == last.Room && k.Thread == last.Thread })
				return append(keys, rest...), err
			}, rows)
	case f.Room == "" && f.Thread == "" && f.Author == "" && !f.UpdatedSince.IsZero():
		s := r.query("select c.room_id, c.thread_id, c.create_time, c.comment_id\nfrom mirror_comment c"+
			r.by("mirror_comment_by_change")).
			where("c.project_id = ? and "+r.dialect.CommentChanged+" >= ?", f.Project, f.UpdatedSince)
		s.add("\norder by " + r.dialect.CommentChanged)
		after := rowKey{Room: f.AfterRoom, Thread: f.AfterThread, Micros: afterTime.UnixMicro(), ID: f.AfterID}
		comments, few, err := byFewKeys(ctx, r, what, f.Limit, after, prefix, s, func(row Row, k *rowKey) error {
			var created time.Time
			err := row.Scan(&k.Room, &k.Thread, at(&created), &k.ID)
			k.Micros = created.UnixMicro()
			return err
		}, rows)
		if few || err != nil {
			return comments, err
		}
	}
	index := "mirror_comment_by_id"
	if f.Author != "" {
		index = "mirror_comment_by_user"
	}
	s := r.query(commentColumns+"from mirror_comment c"+r.by(index)+r.ofComment()).where("c.project_id = ?", f.Project).
		whereID("c.user_id", f.Author).
		whereIf(f.Room != "", "c.room_id = ?", f.Room).inBucket("c", f.Project, f.Room).
		whereIf(f.Thread != "", "c.thread_id = ?", f.Thread).whereWithin("c.room_id", prefix)
	return page(ctx, s)
}
