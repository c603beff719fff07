package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

func threadCopy(epoch int64, sum []byte, deleted bool) store.ThreadCopy {
	c := store.ThreadCopy{Epoch: epoch, Deleted: deleted}
	copy(c.SHA256[:], sum)
	return c
}

// lockThread locks the state of the lease, and its room against a change of epoch,
// and reads the stored copy. The thread itself needs no lock: it is written only
// under the lock of its state.
func lockThread(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (store.State, store.ThreadCopy, error) {
	r := lease.Resource
	row, err := q.LockThread(ctx, dbq.LockThreadParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		Token: lease.Token[:],
	})
	err = fenced(ctx, q, lease, row.RoomEpoch, err)
	return stateOf(row.MirrorResourceState), threadCopy(row.ThreadEpoch, row.ContentSha256, row.DeleteTime.Valid), err
}

// refusal returns why the server refuses some values as JSON; empty if it accepts
// all.
func (s *Store) refusal(ctx context.Context, values ...[]byte) (string, error) {
	for _, v := range values {
		if v == nil {
			continue
		}
		if err := s.q.TakeJSON(ctx, v); refused(err) {
			return problem(err), nil
		} else if err != nil {
			return "", classify(ctx, fmt.Errorf("try JSON: %w", err))
		}
	}
	return "", nil
}

// dropRefused removes each value that the server refuses as JSON, and records why.
func (s *Store) dropRefused(ctx context.Context, values [][]byte, problems []string) error {
	for i, v := range values {
		problem, err := s.refusal(ctx, v)
		if err != nil {
			return err
		}
		if problem != "" {
			values[i], problems[i] = nil, problem
		}
	}
	return nil
}

// withoutRefused removes the JSON of each row whose JSON the server refuses.
func (s *Store) withoutRefused(ctx context.Context, rows store.ThreadRows) (store.ThreadRows, error) {
	return rows.Without(func(values ...[]byte) (string, error) { return s.refusal(ctx, values...) })
}

// ApplyThread rewrites a changed thread with everything in it.
func (s *Store) ApplyThread(ctx context.Context, lease mirror.Lease, content mirror.ThreadContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	rows := store.RowsOf(content.Thread)
	rows.Thread.ID = lease.Resource.ID
	apply := func() (mirror.Applied, error) {
		return s.end(ctx, "apply thread", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
			st, stored, err := lockThread(ctx, q, lease)
			if err != nil {
				return store.Plan{}, err
			}
			plan := store.PlanThread(st, stored, lease, content, now, settle)
			if plan.Change != 0 {
				err = writeThreads(ctx, later, lease.Resource, lease.Epoch, []store.ThreadRows{rows})
			}
			return plan, err
		})
	}
	out, err := apply()
	if refused(err) {
		if rows, err = s.withoutRefused(ctx, rows); err != nil {
			return mirror.Applied{}, err
		}
		out, err = apply()
	}
	return out, err
}

// ApplyThreadMissing applies the 404 of a thread in an existing room.
func (s *Store) ApplyThreadMissing(ctx context.Context, lease mirror.Lease, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	return s.end(ctx, "apply missing thread", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
		st, stored, err := lockThread(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingThread(st, stored, lease, now, settle)
		if plan.Change != 0 {
			r := lease.Resource
			err = later.TombstoneThread(ctx, dbq.TombstoneThreadParams{
				DeleteTime: nullTime(now), Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), ThreadID: r.ID,
			})
		}
		return plan, err
	})
}

// ApplyThreads locks the states of all threads of the room in key order, so they do
// not change until it has written.
func (s *Store) ApplyThreads(ctx context.Context, lease mirror.Lease, list mirror.ThreadList, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	cleaned := make(map[string]store.ThreadRows) // rows whose JSON the server has refused
	var rows []store.ThreadRows
	var out mirror.Applied
	apply := func() error {
		return s.tx(ctx, "apply threads", func(q, later *dbq.Queries) error {
			states, copies, err := lockThreads(ctx, q, lease)
			if err != nil {
				return err
			}
			plan := store.PlanThreads(states, copies, lease, list, true, now, settle)
			added, err := insertThreadStates(ctx, q, r, plan.Unknown, list.FetchTime)
			if err != nil {
				return err
			}
			if err := markStale(ctx, later, plan.Stale); err != nil {
				return err
			}
			epoch, err := q.LockRoomEpoch(ctx, dbq.LockRoomEpochParams{Bucket: bucket, ProjectID: project, RoomID: room})
			if err = fenced(ctx, q, lease, epoch, err); err != nil {
				return err
			}
			rows = nil
			for _, t := range plan.Unknown {
				if !slices.Contains(added, t.ID) {
					continue
				}
				row, ok := cleaned[t.ID]
				if !ok {
					row = store.RowsOf(t)
				}
				rows = append(rows, row)
			}
			out = plan.Applied()
			out.Changed = len(added) > 0
			err = later.WriteState(ctx, writeState(r, plan.State, 0, now))
			if len(rows) == 0 {
				return err
			}
			return errors.Join(err, writeThreads(ctx, later, r, lease.Epoch, rows), later.AnnounceThreads(ctx,
				dbq.AnnounceThreadsParams{
					Bucket: bucket, ProjectID: project, RoomID: room, Kind: int16(r.Kind), ThreadID: added, Now: nullTime(now),
				}))
		})
	}
	err := apply()
	if refused(err) {
		for _, row := range rows {
			if cleaned[row.Thread.ID], err = s.withoutRefused(ctx, row); err != nil {
				return mirror.Applied{}, err
			}
		}
		err = apply()
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// lockStates locks the states of all resources of one kind in a room, and returns
// them by id with the state of the list, whose lease must be held.
func lockStates(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (map[string]store.State, error) {
	r := lease.Resource
	locked, err := q.LockStates(ctx, dbq.LockStatesParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind),
	})
	if err != nil {
		return nil, err
	}
	states := make(map[string]store.State, len(locked))
	for _, row := range locked {
		states[row.ResourceID] = stateOf(row)
	}
	if !states[r.ID].Held(lease) {
		return nil, store.ErrLeaseLost
	}
	return states, nil
}

// lockThreads locks the states of all threads of a room and of their list, and
// returns them and which copies are stored, by thread id.
func lockThreads(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (
	states map[string]store.State, copies map[string]store.ThreadCopy, err error,
) {
	r := lease.Resource
	if states, err = lockStates(ctx, q, lease); err != nil {
		return nil, nil, err
	}
	rows, err := q.ThreadCopies(ctx, dbq.ThreadCopiesParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
	})
	copies = make(map[string]store.ThreadCopy, len(rows))
	for _, row := range rows {
		copies[row.ThreadID] = threadCopy(row.Epoch, row.ContentSha256, row.DeleteTime.Valid)
	}
	return states, copies, err
}

// insertThreadStates inserts states that have applied the list for threads without
// one, and returns the ids of these threads, in order.
func insertThreadStates(ctx context.Context, q *dbq.Queries, r mirror.Resource, threads []mirror.Thread,
	fetchTime time.Time,
) ([]string, error) {
	if len(threads) == 0 {
		return nil, nil
	}
	arg := dbq.InsertThreadStatesParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind),
		FetchTime: nullTime(fetchTime),
	}
	for _, t := range threads {
		arg.ThreadID = append(arg.ThreadID, t.ID)
	}
	added, err := q.InsertThreadStates(ctx, arg)
	slices.Sort(added)
	return added, err
}

// sinceEpoch returns a time for a column that is not null; a zero time becomes
// 1970.
func sinceEpoch(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return nullTime(t)
}

// writeThreads rewrites threads of the room of r with everything in them.
func writeThreads(ctx context.Context, later *dbq.Queries, r mirror.Resource, epoch int64,
	threads []store.ThreadRows,
) error {
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	t := dbq.UpsertThreadsParams{Bucket: bucket, ProjectID: project, RoomID: room, Epoch: epoch}
	c := dbq.InsertCommentsParams{Bucket: bucket, ProjectID: project, RoomID: room}
	re := dbq.InsertReactionsParams{Bucket: bucket, ProjectID: project, RoomID: room}
	a := dbq.InsertAttachmentsParams{Bucket: bucket, ProjectID: project, RoomID: room}
	m := dbq.InsertMentionsParams{Bucket: bucket, ProjectID: project, RoomID: room}
	for i := range threads {
		thread := &threads[i].Thread
		t.ThreadID = append(t.ThreadID, thread.ID)
		t.SourceJson = append(t.SourceJson, notNull(thread.Source))
		t.ContentSha256 = append(t.ContentSha256, thread.SHA256[:])
		t.CreateTime = append(t.CreateTime, nullTime(thread.CreateTime))
		t.UpdateTime = append(t.UpdateTime, nullTime(thread.UpdateTime))
		t.Resolved = append(t.Resolved, thread.Resolved)
		t.Visibility = append(t.Visibility, thread.Visibility)
		t.Metadata = append(t.Metadata, thread.Metadata)
		t.MetadataText = append(t.MetadataText, threads[i].MetadataText)
		t.CommentCount = append(t.CommentCount, int32(threads[i].CommentCount)) //nolint:gosec // an answer is too short
		t.DataProblem = append(t.DataProblem, store.Text(thread.DataProblem))
		for j := range thread.Comments {
			comment := &thread.Comments[j]
			c.ThreadID = append(c.ThreadID, thread.ID)
			c.CommentID = append(c.CommentID, comment.ID)
			c.UserID = append(c.UserID, comment.UserID)
			c.CreateTime = append(c.CreateTime, sinceEpoch(comment.CreateTime))
			c.EditTime = append(c.EditTime, nullTime(comment.EditTime))
			c.DeleteTime = append(c.DeleteTime, nullTime(comment.DeleteTime))
			c.SourceJson = append(c.SourceJson, notNull(comment.Source))
			c.Body = append(c.Body, comment.Body)
			c.PlainText = append(c.PlainText, store.Text(comment.Text))
			c.Markdown = append(c.Markdown, store.Text(comment.Markdown))
			c.Metadata = append(c.Metadata, comment.Metadata)
			for _, reaction := range comment.Reactions {
				re.ThreadID = append(re.ThreadID, thread.ID)
				re.CommentID = append(re.CommentID, comment.ID)
				re.Emoji = append(re.Emoji, reaction.Emoji)
				re.UserID = append(re.UserID, reaction.UserID)
				re.CreateTime = append(re.CreateTime, nullTime(reaction.CreateTime))
			}
			for _, attachment := range comment.Attachments {
				a.ThreadID = append(a.ThreadID, thread.ID)
				a.CommentID = append(a.CommentID, comment.ID)
				a.AttachmentID = append(a.AttachmentID, attachment.ID)
				a.Name = append(a.Name, store.Text(attachment.Name))
				a.MimeType = append(a.MimeType, store.Text(attachment.MIMEType))
				a.Size = append(a.Size, attachment.Size)
			}
			for _, mention := range store.MentionRowsOf(*comment) {
				m.ThreadID = append(m.ThreadID, thread.ID)
				m.CommentID = append(m.CommentID, comment.ID)
				m.Kind = append(m.Kind, mention.Kind)
				m.MentionedID = append(m.MentionedID, mention.ID)
				m.ViaGroup = append(m.ViaGroup, mention.Via)
			}
		}
	}
	err := errors.Join(later.UpsertThreads(ctx, t), later.DeleteComments(ctx, dbq.DeleteCommentsParams{
		Bucket: bucket, ProjectID: project, RoomID: room, ThreadID: t.ThreadID,
	}))
	if len(c.CommentID) > 0 {
		err = errors.Join(err, later.InsertComments(ctx, c))
	}
	if len(re.CommentID) > 0 {
		err = errors.Join(err, later.InsertReactions(ctx, re))
	}
	if len(a.CommentID) > 0 {
		err = errors.Join(err, later.InsertAttachments(ctx, a))
	}
	if len(m.CommentID) > 0 {
		err = errors.Join(err, later.InsertMentions(ctx, m))
	}
	return err
}

// notNull converts nil to an empty value.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// storedThread reads a thread and all its rows as of one point in time.
func (s *Store) storedThread(ctx context.Context, r mirror.Resource) (mirror.Stored, error) {
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	var out mirror.Stored
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			q := dbq.New(tx)
			row, err := q.StoredThread(ctx, dbq.StoredThreadParams{
				Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID,
			})
			if err != nil {
				return err
			}
			out = mirror.Stored{
				Content: row.SourceJson, Data: row.Metadata, DataProblem: row.DataProblem,
				MetadataText: row.MetadataText, CommentCount: int(row.CommentCount),
			}
			copy(out.SHA256[:], row.ContentSha256)
			comments, err := q.StoredComments(ctx, dbq.StoredCommentsParams{
				Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID,
			})
			if err != nil {
				return err
			}
			place := make(map[string]int, len(comments))
			// Rows of comments that do not exist are a difference too.
			at := func(id string) *mirror.Comment {
				i, ok := place[id]
				if !ok {
					i = len(out.Comments)
					place[id] = i
					out.Comments = append(out.Comments, mirror.Comment{Project: r.Project, Room: r.Room, Thread: r.ID, ID: id})
				}
				return &out.Comments[i]
			}
			for _, c := range comments {
				comment := at(c.CommentID)
				comment.UserID, comment.Source, comment.Body, comment.Metadata = c.UserID, c.SourceJson, c.Body, c.Metadata
				comment.CreateTime, comment.EditTime, comment.DeleteTime = timeOf(c.CreateTime), timeOf(c.EditTime),
					timeOf(c.DeleteTime)
				comment.Text, comment.Markdown = c.PlainText, c.Markdown
			}
			reactions, err := q.StoredReactions(ctx, dbq.StoredReactionsParams{
				Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID,
			})
			if err != nil {
				return err
			}
			for _, row := range reactions {
				comment := at(row.CommentID)
				comment.Reactions = append(comment.Reactions,
					mirror.Reaction{Emoji: row.Emoji, UserID: row.UserID, CreateTime: timeOf(row.CreateTime)})
			}
			attachments, err := q.StoredAttachments(ctx, dbq.StoredAttachmentsParams{
				Bucket: bucket, ProjectID: project,
				RoomID: room, ThreadID: r.ID,
			})
			if err != nil {
				return err
			}
			for _, row := range attachments {
				comment := at(row.CommentID)
				comment.Attachments = append(comment.Attachments,
					mirror.Attachment{ID: row.AttachmentID, Name: row.Name, MIMEType: row.MimeType, Size: row.Size})
			}
			mentions, err := q.StoredMentions(ctx, dbq.StoredMentionsParams{
				Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID,
			})
			if err != nil {
				return err
			}
			rows := make(map[string][]store.MentionRow)
			for _, row := range mentions {
				at(row.CommentID)
				rows[row.CommentID] = append(rows[row.CommentID],
					store.MentionRow{Kind: row.Kind, ID: row.MentionedID, Via: row.ViaGroup})
			}
			for id, of := range rows {
				at(id).Mentions = store.MentionsOf(of)
			}
			return nil
		})
	return out, err
}
