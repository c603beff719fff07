package sqllist

import (
	"context"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var joinThread = joinRoom("left join", "t", literal(mirror.KindThread), "t.thread_id")

// whereShown selects rows of visible threads t, including deleted ones on request.
func (s *statement) whereShown(deleted bool) *statement {
	return s.where(shown("t", " and (t.delete_time is null or ?)", "?"), deleted, deleted)
}

var selectThreads = `select t.room_id, t.thread_id, t.source_json, t.content_sha256, t.create_time, t.update_time,
    t.resolved, t.visibility, t.metadata, t.data_problem, coalesce(t.delete_time, r.delete_time),` +
	stateColumns + "\nfrom mirror_thread t\n" + joinThread

func scanThread(project mirror.ProjectID) func(Row, *mirror.Thread) error {
	return func(row Row, t *mirror.Thread) error {
		t.Project = project
		err := scanWithState(row, &t.Freshness, &t.Room, &t.ID, &t.Source, (*hash)(&t.SHA256), at(&t.CreateTime),
			at(&t.UpdateTime), &t.Resolved, &t.Visibility, &t.Metadata, &t.DataProblem, at(&t.Freshness.DeleteTime))
		t.Freshness.Stale = t.Freshness.Stale || unfinished(t.SHA256)
		return err
	}
}

// unfinished reports whether a thread with this hash is being rewritten, so that some
// of its comments may be newer than the rest.
func unfinished(sum [32]byte) bool { return sum == [32]byte{} }

// Thread reads by key.
func (r *Reader) Thread(ctx context.Context, thread mirror.Resource, deleted bool) (mirror.Thread, error) {
	s := r.query(selectThreads).whereRoom("t", thread).where("t.thread_id = ?", thread.ID).whereShown(deleted)
	return one(ctx, r, "read thread", s, scanThread(thread.Project))
}

// Threads uses the index by room id.
func (r *Reader) Threads(ctx context.Context, f store.ThreadFilter) ([]mirror.Thread, error) {
	metadata := store.MetadataFilter(f.Metadata)
	if len(f.Metadata) > 0 && metadata == nil {
		return nil, nil // no thread matches
	}
	either, or := false, true
	if f.Resolved != nil {
		either, or = *f.Resolved, *f.Resolved
	}
	order := []string{"t.room_id", "t.thread_id"}
	s := r.query(selectThreads).where("t.project_id = ?", f.Project).whereShown(f.Deleted).
		whereIf(f.Room != "", "t.room_id = ?", f.Room).
		after(order, f.AfterRoom, f.AfterID).
		where("t.resolved in (?, ?)", either, or).
		whereIf(len(f.Metadata) > 0, fmt.Sprintf(r.dialect.Contains, "t.metadata_text"), jsonText(metadata)).
		whereIf(!f.UpdatedSince.IsZero(), "coalesce(t.update_time, t.create_time) >= ?", f.UpdatedSince).
		whereIf(f.Author != "", `exists (
        select 1 from mirror_comment c
        where c.bucket = t.bucket and c.project_id = t.project_id and c.room_id = t.room_id
            and c.thread_id = t.thread_id and c.user_id = ? and c.user_id <> '' and (c.delete_time is null or ?)
    )`, f.Author, f.Deleted).
		whereIf(f.Mentioned != "", mentions("t", ""), f.Mentioned).
		page(order, f.Limit)
	return list(ctx, r, "list threads", s, scanThread(f.Project))
}

// mentions is the condition that a comment of a thread mentions a user.
func mentions(of, comment string) string {
	return `exists (
        select 1 from mirror_comment_mention m
        where m.bucket = ` + of + `.bucket and m.project_id = ` + of + `.project_id and m.room_id = ` + of + `.room_id
            and m.thread_id = ` + of + `.thread_id` + comment + ` and m.kind = 'user' and m.mentioned_id = ?
    )`
}

var selectComments = `select c.room_id, c.thread_id, c.comment_id, c.user_id, c.create_time, c.edit_time, c.delete_time,
    c.source_json, t.content_sha256, coalesce(t.delete_time, r.delete_time),` + stateColumns + `
from mirror_comment c
left join mirror_thread t
    on t.bucket = c.bucket and t.project_id = c.project_id and t.room_id = c.room_id and t.thread_id = c.thread_id
` + joinThread

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

// Comment reads by key.
func (r *Reader) Comment(ctx context.Context, thread mirror.Resource, id string, deleted bool) (mirror.Comment,
	error,
) {
	s := r.query(selectComments).whereRoom("c", thread).whereShown(deleted).
		where("c.thread_id = ? and c.comment_id = ?", thread.ID, id).where("(c.delete_time is null or ?)", deleted)
	return one(ctx, r, "read comment", s, scanComment(thread.Project))
}

// Comments uses the index by room id or by author.
func (r *Reader) Comments(ctx context.Context, f store.CommentFilter) ([]mirror.Comment, error) {
	after := f.AfterTime
	if after.IsZero() {
		after = time.Unix(0, 0) // the stored time of comments without one
	}
	order := []string{"c.room_id", "c.thread_id", "c.create_time", "c.comment_id"}
	s := r.query(selectComments).where("c.project_id = ?", f.Project).whereShown(f.Deleted).
		whereIf(f.Room != "", "c.room_id = ?", f.Room).
		whereIf(f.Thread != "", "c.thread_id = ?", f.Thread).
		after(order, f.AfterRoom, f.AfterThread, after, f.AfterID).
		whereID("c.user_id", f.Author).
		where("(c.delete_time is null or ?)", f.Deleted).
		whereIf(!f.UpdatedSince.IsZero(), `greatest(c.create_time, coalesce(c.edit_time, c.create_time),
        coalesce(c.delete_time, c.create_time)) >= ?`, f.UpdatedSince).
		whereIf(f.Mentioned != "", mentions("c", " and m.comment_id = c.comment_id"), f.Mentioned).
		page(order, f.Limit)
	return list(ctx, r, "list comments", s, scanComment(f.Project))
}
