package mysql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

func threadCopy(epoch int64, sum []byte, deleted bool) store.ThreadCopy {
	c := store.ThreadCopy{Epoch: epoch, Deleted: deleted}
	copy(c.SHA256[:], sum)
	return c
}

// lockThread locks the state of the lease, and its room against a change of epoch,
// and reads the stored copy. The thread itself is written only under the lock of
// its state.
func lockThread(ctx context.Context, q *queries, lease mirror.Lease) (store.State, store.ThreadCopy, error) {
	r := lease.Resource
	st, err := lockState(ctx, q, lease)
	if err != nil {
		return store.State{}, store.ThreadCopy{}, err
	}
	row, err := q.ShareThread(ctx, dbq.ShareThreadParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), ThreadID: rawKey(r.ID),
	})
	if errors.Is(err, sql.ErrNoRows) || err == nil && row.RoomEpoch != lease.Epoch {
		return store.State{}, store.ThreadCopy{}, store.ErrEpochChanged
	}
	return st, threadCopy(row.ThreadEpoch.Int64, row.ContentSha256, row.DeleteTime.Valid), err
}

// ApplyThread rewrites a changed thread with everything in it.
func (s *Store) ApplyThread(ctx context.Context, lease mirror.Lease, content mirror.ThreadContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	rows := store.RowsOf(content.Thread)
	rows.Thread.ID = lease.Resource.ID
	return s.end(ctx, "apply thread", lease, now, func(q *queries) (store.Plan, error) {
		st, stored, err := lockThread(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanThread(st, stored, lease, content, now, settle)
		if plan.Change != 0 {
			err = s.writeThreads(ctx, q, lease.Resource, lease.Epoch, []store.ThreadRows{rows})
		}
		return plan, err
	})
}

// ApplyThreadMissing applies the 404 of a thread in an existing room.
func (s *Store) ApplyThreadMissing(ctx context.Context, lease mirror.Lease, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	return s.end(ctx, "apply missing thread", lease, now, func(q *queries) (store.Plan, error) {
		st, stored, err := lockThread(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingThread(st, stored, lease, now, settle)
		if plan.Change != 0 {
			r := lease.Resource
			err = q.TombstoneThread(ctx, dbq.TombstoneThreadParams{
				DeleteTime: nullTime(now), Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
				ThreadID: rawKey(r.ID),
			})
		}
		return plan, err
	})
}

// ApplyThreads locks the states of all threads of the room in key order, so they do
// not change until it has written.
//
// If the content of a new thread does not fit, none is stored here, and each is
// fetched separately.
func (s *Store) ApplyThreads(ctx context.Context, lease mirror.Lease, list mirror.ThreadList, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	apply := func(storing bool) (mirror.Applied, error) {
		added := 0
		out, err := s.end(ctx, "apply threads", lease, now, func(q *queries) (store.Plan, error) {
			states, copies, err := lockThreads(ctx, q, lease)
			if err != nil {
				return store.Plan{}, err
			}
			plan := store.PlanThreads(states, copies, lease, list, storing, now, settle)
			threads, err := q.insertListed(ctx, lease.Resource, plan.Unknown, list.FetchTime)
			if err != nil {
				return store.Plan{}, err
			}
			if err := q.markStale(ctx, plan.Stale); err != nil {
				return store.Plan{}, err
			}
			if _, err := shareRoom(ctx, q, lease); err != nil {
				return store.Plan{}, err
			}
			added = len(threads)
			return plan.Plan, errors.Join(
				s.writeThreads(ctx, q, lease.Resource, lease.Epoch, threads), q.announce(ctx, lease.Resource, threads, now))
		})
		out.Changed = err == nil && added > 0
		return out, err
	}
	out, err := apply(true)
	if refused(err) || fault.Is(err, fault.ReasonDocumentTooLarge) {
		out, err = apply(false)
	}
	return out, err
}

// lockStates locks the states of all resources of one kind in a room, and returns
// them by id with the state of the list, whose lease must be held.
func lockStates(ctx context.Context, q *queries, lease mirror.Lease) (map[string]store.State, error) {
	r := lease.Resource
	locked, err := q.LockStates(ctx, dbq.LockStatesParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
	})
	if err != nil {
		return nil, err
	}
	states := make(map[string]store.State, len(locked))
	for _, row := range locked {
		states[string(row.ResourceID)] = stateOf(row)
	}
	if !states[r.ID].Held(lease) {
		return nil, store.ErrLeaseLost
	}
	return states, nil
}

// lockThreads locks the states of all threads of a room and of their list, and
// returns them and which copies are stored, by thread id.
func lockThreads(ctx context.Context, q *queries, lease mirror.Lease) (
	states map[string]store.State, copies map[string]store.ThreadCopy, err error,
) {
	r := lease.Resource
	if states, err = lockStates(ctx, q, lease); err != nil {
		return nil, nil, err
	}
	rows, err := q.ThreadCopies(ctx, dbq.ThreadCopiesParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
	})
	copies = make(map[string]store.ThreadCopy, len(rows))
	for _, row := range rows {
		copies[string(row.ThreadID)] = threadCopy(row.Epoch, row.ContentSha256, row.DeleteTime.Valid)
	}
	return states, copies, err
}

func insertListedSQL(n int) string {
	return `insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id,
    generation, applied_generation, fetch_time, lease_token, last_error
)
values ` + repeat("(?, ?, ?, ?, ?, 1, 1, ?, ?, '')", n) + `
on duplicate key update bucket = values(bucket)`
}

// insertedListedSQL finds the rows of an insert, which MySQL does not report. The
// token only marks them; it is no lease.
const insertedListedSQL = `select resource_id
from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ? and lease_token = ?
order by resource_id`

// insertListed inserts states that have applied the list for threads of the room of
// r without one, and returns these threads, in key order.
func (q *queries) insertListed(ctx context.Context, r mirror.Resource, threads []mirror.Thread,
	fetchTime time.Time,
) ([]store.ThreadRows, error) {
	if len(threads) == 0 {
		return nil, nil
	}
	token := make([]byte, 16)
	rand.Read(token)
	err := chunks(threads, maxRows, func(threads []mirror.Thread) error {
		args := make([]any, 0, 7*len(threads))
		for _, t := range threads {
			r.ID = t.ID
			args = append(appendKey(args, r), nullTime(fetchTime), token)
		}
		_, err := q.db.ExecContext(ctx, insertListedSQL(len(threads)), args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	inserted := make(map[string]bool)
	err = q.query(ctx, insertedListedSQL, append(roomArgs(r), int16(r.Kind), token), func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		inserted[id] = true
		return err
	})
	var out []store.ThreadRows
	for _, t := range threads {
		if inserted[t.ID] {
			out = append(out, store.RowsOf(t))
		}
	}
	return out, err
}

func insertChangesSQL(n int) string {
	return `insert into mirror_change (bucket, n, project_id, room_id, kind, resource_id, change_kind, commit_time)
values ` + places(n, 8)
}

// reviseSQL writes revisions to existing states.
func reviseSQL(n int) string {
	return `insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id, generation, revision, last_error
)
values ` + repeat("(?, ?, ?, ?, ?, 1, ?, '')", n) + `
on duplicate key update revision = values(revision), lease_token = null`
}

// announce writes a change entry for each of the threads of the room of r, and the
// numbers to their states. It takes all numbers together.
func (q *queries) announce(ctx context.Context, r mirror.Resource, threads []store.ThreadRows, now time.Time) error {
	if len(threads) == 0 {
		return nil
	}
	bucket := r.Bucket()
	if err := q.RaiseFeedHeadBy(ctx, dbq.RaiseFeedHeadByParams{Bucket: bucket, N: int64(len(threads))}); err != nil {
		return err
	}
	last, err := q.FeedHead(ctx, bucket)
	if err != nil {
		return err
	}
	n := last - int64(len(threads))
	return chunks(threads, maxRows, func(threads []store.ThreadRows) error {
		changes, revisions := make([]any, 0, 8*len(threads)), make([]any, 0, 6*len(threads))
		for _, t := range threads {
			n++
			r.ID = t.Thread.ID
			changes = append(changes, bucket, n, rawKey(r.Project), rawKey(r.Room), int16(r.Kind), rawKey(r.ID),
				int16(mirror.ChangeUpserted), nullTime(now))
			revisions = append(appendKey(revisions, r), n)
		}
		if _, err := q.db.ExecContext(ctx, insertChangesSQL(len(threads)), changes...); err != nil {
			return err
		}
		_, err := q.db.ExecContext(ctx, reviseSQL(len(threads)), revisions...)
		return err
	})
}

var threadTable = table{
	name: "mirror_thread",
	columns: "bucket, project_id, room_id, thread_id, epoch, source_json, content_sha256, create_time, update_time, " +
		"resolved, visibility, metadata, metadata_text, comment_count, data_problem, delete_time",
	key: 4,
}

// problemColumn is the index of data_problem in threadTable.
const problemColumn = 14

var commentTable = table{
	name: "mirror_comment",
	columns: "bucket, project_id, room_id, thread_id, comment_id, user_id, create_time, edit_time, delete_time, " +
		"source_json, body, plain_text, markdown, metadata",
	key: 5,
}

var reactionTable = table{
	name:    "mirror_comment_reaction",
	columns: "bucket, project_id, room_id, thread_id, comment_id, emoji, user_id, create_time",
	key:     7,
}

var attachmentTable = table{
	name:    "mirror_comment_attachment",
	columns: "bucket, project_id, room_id, thread_id, comment_id, attachment_id, name, mime_type, size",
	key:     6,
}

var mentionTable = table{
	name:    "mirror_comment_mention",
	columns: "bucket, project_id, room_id, thread_id, comment_id, kind, mentioned_id, via_group",
	key:     8,
}

// deleteOfThreadsSQL are the statements that delete the rows of threads' comments.
func deleteOfThreadsSQL(table string) func(n int) string {
	return func(n int) string {
		return "delete from " + table + "\nwhere bucket = ? and project_id = ? and room_id = ? and thread_id in (" +
			repeat("?", n) + ")"
	}
}

func deleteComments(ctx context.Context, q *queries, r mirror.Resource, threads []string) error {
	for _, t := range []table{commentTable, reactionTable, attachmentTable, mentionTable} {
		if err := q.byIDs(ctx, deleteOfThreadsSQL(t.name), roomArgs(r), threads); err != nil {
			return err
		}
	}
	return nil
}

// sinceEpoch returns a time for a column that is not null; a zero time becomes
// 1970.
func sinceEpoch(t time.Time) sql.NullTime {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return nullTime(t)
}

// writeThreads rewrites threads of the room of r with everything in them.
func (s *Store) writeThreads(ctx context.Context, q *queries, r mirror.Resource, epoch int64,
	threads []store.ThreadRows,
) error {
	var rows, comments, reactions, attachments, mentions [][]any
	var ids []string
	for i := range threads {
		t := &threads[i].Thread
		ids = append(ids, t.ID)
		rows = append(rows, append(roomArgs(r), rawKey(t.ID), epoch, rawKey(t.Source), t.SHA256[:], nullTime(t.CreateTime),
			nullTime(t.UpdateTime),
			t.Resolved, rawKey(t.Visibility), json.RawMessage(t.Metadata), json.RawMessage(threads[i].MetadataText),
			threads[i].CommentCount, store.Text(t.DataProblem), sql.NullTime{}))
		for j := range t.Comments {
			c := &t.Comments[j]
			key := func(more ...any) []any { return append(append(roomArgs(r), rawKey(t.ID), rawKey(c.ID)), more...) }
			comments = append(comments, key(rawKey(c.UserID), sinceEpoch(c.CreateTime), nullTime(c.EditTime),
				nullTime(c.DeleteTime), rawKey(c.Source),
				json.RawMessage(c.Body), store.Text(c.Text), store.Text(c.Markdown), json.RawMessage(c.Metadata)))
			for _, re := range c.Reactions {
				reactions = append(reactions, key(rawKey(re.Emoji), rawKey(re.UserID), nullTime(re.CreateTime)))
			}
			for _, a := range c.Attachments {
				attachments = append(attachments, key(rawKey(a.ID), store.Text(a.Name), store.Text(a.MIMEType), a.Size))
			}
			for _, m := range store.MentionRowsOf(*c) {
				mentions = append(mentions, key(rawKey(m.Kind), rawKey(m.ID), rawKey(m.Via)))
			}
		}
	}
	if err := s.write(ctx, q, threadTable, rows, func(row []any, why string) {
		row[problemColumn] = strings.TrimPrefix(fmt.Sprintf("%s; metadata %s", row[problemColumn], why), "; ")
	}); err != nil {
		return err
	}
	if err := deleteComments(ctx, q, r, ids); err != nil {
		return err
	}
	problems := make(map[string]string)
	if err := s.write(ctx, q, commentTable, comments, func(row []any, why string) {
		if id, ok := row[3].([]byte); ok {
			problems[string(id)] = "JSON of a comment is " + why
		}
	}); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(problems)) {
		if err := q.NoteThreadProblem(ctx, dbq.NoteThreadProblemParams{
			Problem: problems[id], Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
			ThreadID: rawKey(id),
		}); err != nil {
			return err
		}
	}
	if err := s.write(ctx, q, reactionTable, reactions, nil); err != nil {
		return err
	}
	if err := s.write(ctx, q, attachmentTable, attachments, nil); err != nil {
		return err
	}
	return s.write(ctx, q, mentionTable, mentions, nil)
}

// cleanThreads deletes at most limit threads of epochs before the given one, each
// with everything in it and in its own transaction.
func (s *Store) cleanThreads(ctx context.Context, room mirror.Resource, epoch int64, limit int) (n int, err error) {
	ids, err := s.q.OldThreads(ctx, dbq.OldThreadsParams{
		Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room), Epoch: epoch,
		Limit: int32(limit), //nolint:gosec // a small constant of the caller
	})
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		var gone int64
		err := s.tx(ctx, "clean thread", func(q *queries) error {
			gone, err = q.CleanThread(ctx, dbq.CleanThreadParams{
				Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room), ThreadID: id, Epoch: epoch,
			})
			if err != nil || gone == 0 {
				return err // a new incarnation has overwritten it
			}
			return deleteComments(ctx, q, room, []string{string(id)})
		})
		if err != nil {
			return n, err
		}
		n += int(gone)
	}
	return n, nil
}

// storedThread reads a thread and all its rows in a consistent state.
func (s *Store) storedThread(ctx context.Context, r mirror.Resource) (out mirror.Stored, sum []byte, err error) {
	key := dbq.StoredThreadParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
		ThreadID: rawKey(r.ID),
	}
	err = s.tx(ctx, "read a thread", func(q *queries) error {
		row, err := q.StoredThread(ctx, key)
		if err != nil {
			return err
		}
		sum = row.ContentSha256
		out = mirror.Stored{
			Content: row.SourceJson, Data: written(row.Metadata), DataProblem: row.DataProblem,
			MetadataText: written(row.MetadataText), CommentCount: int(row.CommentCount),
		}
		out.Comments, err = storedComments(ctx, q, r, key)
		return err
	})
	return out, sum, err
}

func storedComments(ctx context.Context, q *queries, r mirror.Resource, key dbq.StoredThreadParams) ([]mirror.Comment,
	error,
) {
	var out []mirror.Comment
	place := make(map[string]int)
	// Rows of comments that do not exist are a difference too.
	at := func(id []byte) *mirror.Comment {
		i, ok := place[string(id)]
		if !ok {
			i = len(out)
			place[string(id)] = i
			out = append(out, mirror.Comment{Project: r.Project, Room: r.Room, Thread: r.ID, ID: string(id)})
		}
		return &out[i]
	}
	comments, err := q.StoredComments(ctx, dbq.StoredCommentsParams(key))
	if err != nil {
		return nil, err
	}
	for _, row := range comments {
		c := at(row.CommentID)
		c.UserID, c.Source, c.Body, c.Metadata = string(row.UserID), row.SourceJson, written(row.Body), written(row.Metadata)
		c.CreateTime, c.EditTime, c.DeleteTime = row.CreateTime.UTC(), timeOf(row.EditTime), timeOf(row.DeleteTime)
		c.Text, c.Markdown = row.PlainText, row.Markdown
	}
	reactions, err := q.StoredReactions(ctx, dbq.StoredReactionsParams(key))
	if err != nil {
		return nil, err
	}
	for _, row := range reactions {
		c := at(row.CommentID)
		c.Reactions = append(c.Reactions, mirror.Reaction{
			Emoji: string(row.Emoji), UserID: string(row.UserID),
			CreateTime: timeOf(row.CreateTime),
		})
	}
	attachments, err := q.StoredAttachments(ctx, dbq.StoredAttachmentsParams(key))
	if err != nil {
		return nil, err
	}
	for _, row := range attachments {
		c := at(row.CommentID)
		c.Attachments = append(c.Attachments, mirror.Attachment{
			ID: string(row.AttachmentID), Name: row.Name,
			MIMEType: row.MimeType, Size: row.Size,
		})
	}
	mentions, err := q.StoredMentions(ctx, dbq.StoredMentionsParams(key))
	if err != nil {
		return nil, err
	}
	rows := make(map[string][]store.MentionRow)
	for _, row := range mentions {
		at(row.CommentID)
		id := string(row.CommentID)
		rows[id] = append(rows[id], store.MentionRow{
			Kind: string(row.Kind), ID: string(row.MentionedID),
			Via: string(row.ViaGroup),
		})
	}
	for id, of := range rows {
		out[place[id]].Mentions = store.MentionsOf(of)
	}
	return out, nil
}
