package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// threadCopy says which copy of a thread is stored.
type threadCopy struct {
	epoch   int64 // 0 if there is none
	sha256  []byte
	deleted bool
}

// is reports whether the copy is the thread with the hash sum, alive in the epoch.
func (c threadCopy) is(epoch int64, sum [32]byte) bool {
	return c.lives(epoch) && bytes.Equal(c.sha256, sum[:])
}

func (c threadCopy) lives(epoch int64) bool { return c.epoch == epoch && !c.deleted }

// lockThread locks the state that lease is for, and its room against a change of
// epoch, and reads which copy is stored. The thread itself needs no lock: it is
// written only under that of its state.
func lockThread(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (store.State, threadCopy, error) {
	r := lease.Resource
	row, err := q.LockThread(ctx, dbq.LockThreadParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		Token: lease.Token[:],
	})
	if err = fenced(ctx, q, lease, row.RoomEpoch, err); err != nil {
		return store.State{}, threadCopy{}, err
	}
	return stateOf(row.MirrorResourceState), threadCopy{row.ThreadEpoch, row.ContentSha256, row.DeleteTime.Valid}, nil
}

// ApplyThread writes a thread that changed anew, with everything in it.
func (s *Store) ApplyThread(ctx context.Context, lease mirror.Lease, content mirror.ThreadContent, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	rows := store.RowsOf(content.Thread)
	rows.Thread.ID = r.ID
	var out mirror.Applied
	apply := func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		st, stored, err := lockThread(ctx, q, lease)
		if err != nil {
			return err
		}
		var change mirror.ChangeKind
		if !stored.is(lease.Epoch, rows.Thread.SHA256) {
			change = mirror.ChangeUpserted
			if err := writeThreads(ctx, later, r, lease.Epoch, []store.ThreadRows{rows}); err != nil {
				return err
			}
		}
		st = st.Succeed(lease, content.FetchTime, now, settle)
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0, Due: st.Due}
		return later.WriteState(ctx, writeState(r, st, change, now))
	}
	err := s.tx(ctx, "apply thread", apply)
	if refused(err) {
		rows = rows.WithoutJSON(problem(err))
		err = s.tx(ctx, "apply thread", apply)
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// ApplyThreadMissing settles the 404 of a thread in a room that is there.
func (s *Store) ApplyThreadMissing(ctx context.Context, lease mirror.Lease, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	var out mirror.Applied
	err := s.tx(ctx, "apply missing thread", func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		st, stored, err := lockThread(ctx, q, lease)
		if err != nil {
			return err
		}
		deleted := st.DeleteGeneration != 0 || stored.epoch == lease.Epoch && stored.deleted
		var change mirror.ChangeKind
		if deleted && stored.lives(lease.Epoch) {
			change = mirror.ChangeDeleted
			if err := later.TombstoneThread(ctx, dbq.TombstoneThreadParams{
				DeleteTime: nullTime(now), Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), ThreadID: r.ID,
			}); err != nil {
				return err
			}
		}
		st = st.Vanish(lease, now, settle, deleted)
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0, Due: st.Due}
		return later.WriteState(ctx, writeState(r, st, change, now))
	})
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// ApplyThreads locks the states of all threads of the room in key order, so that
// what it finds stays so until it has written.
//
// If the server refuses what is in a new thread, none of them is stored here, and
// each is fetched by itself.
func (s *Store) ApplyThreads(ctx context.Context, lease mirror.Lease, list mirror.ThreadList, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	listed := make(map[string]mirror.Thread, len(list.Threads))
	for _, t := range list.Threads {
		if mirror.ValidID(t.ID, mirror.MaxResourceID) {
			listed[t.ID] = t
		}
	}
	storing := true
	var out mirror.Applied
	apply := func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		st, known, err := lockThreads(ctx, q, lease)
		if err != nil {
			return err
		}
		arg := dbq.InsertThreadStatesParams{Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
			Background: lease.Background}
		for id := range listed {
			if _, ok := known[id]; !ok {
				arg.ThreadID = append(arg.ThreadID, id)
			}
		}
		if storing {
			arg.AppliedGeneration, arg.FetchTime = 1, nullTime(list.FetchTime)
		} else {
			arg.DueTime = nullTime(now)
		}
		// Those that come into being meanwhile are not inserted: somebody has just
		// heard of them, and will fetch them.
		var added []string
		if len(arg.ThreadID) > 0 {
			if added, err = q.InsertThreadStates(ctx, arg); err != nil {
				return err
			}
		}
		epoch, err := q.LockRoomEpoch(ctx, dbq.LockRoomEpochParams{Bucket: r.Bucket(), ProjectID: string(r.Project),
			RoomID: string(r.Room)})
		if err = fenced(ctx, q, lease, epoch, err); err != nil {
			return err
		}
		pending, err := s.raiseThreads(ctx, q, later, lease, known, listed, now)
		if err != nil {
			return err
		}
		slices.Sort(added)
		if storing && len(added) > 0 {
			rows := make([]store.ThreadRows, len(added))
			for i, id := range added {
				rows[i] = store.RowsOf(listed[id])
			}
			if err := writeThreads(ctx, later, r, lease.Epoch, rows); err != nil {
				return err
			}
		} else {
			pending = append(pending, added...)
		}
		slices.Sort(pending)
		for _, id := range pending {
			out.AlsoDue = append(out.AlsoDue, mirror.Resource{Project: r.Project, Room: r.Room, Kind: r.Kind, ID: id})
		}
		st = st.Succeed(lease, list.FetchTime, now, settle)
		out.Generation, out.Due, out.Changed = st.Applied, st.Due, storing && len(added) > 0
		if err := later.WriteState(ctx, writeState(r, st, 0, now)); err != nil || !out.Changed {
			return err
		}
		return later.AnnounceThreads(ctx, dbq.AnnounceThreadsParams{
			Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), ThreadID: added, Now: nullTime(now),
		})
	}
	err := s.tx(ctx, "apply threads", apply)
	if refused(err) {
		storing = false
		err = s.tx(ctx, "apply threads", apply)
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// lockThreads locks the states of all threads of a room, and returns that of their
// list, which has to be held, and those of the threads.
func lockThreads(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (store.State, map[string]store.State, error) {
	r := lease.Resource
	rows, err := q.LockThreadStates(ctx, dbq.LockThreadStatesParams{Bucket: r.Bucket(), ProjectID: string(r.Project),
		RoomID: string(r.Room)})
	if err != nil {
		return store.State{}, nil, err
	}
	known := make(map[string]store.State, len(rows))
	for _, row := range rows {
		known[row.ResourceID] = stateOf(row)
	}
	st := known[r.ID]
	if st.LeaseToken != lease.Token || lease.Token == [16]byte{} {
		return store.State{}, nil, store.ErrLeaseLost
	}
	delete(known, r.ID)
	return st, known, nil
}

// raiseThreads raises the known threads whose copy is not the one listed, and
// those that the list lacks, and returns them.
func (s *Store) raiseThreads(
	ctx context.Context, q, later *dbq.Queries, lease mirror.Lease, known map[string]store.State,
	listed map[string]mirror.Thread, now time.Time,
) ([]string, error) {
	r := lease.Resource
	rows, err := q.ThreadCopies(ctx, dbq.ThreadCopiesParams{Bucket: r.Bucket(), ProjectID: string(r.Project),
		RoomID: string(r.Room)})
	if err != nil {
		return nil, err
	}
	copies := make(map[string]threadCopy, len(rows))
	for _, row := range rows {
		copies[row.ThreadID] = threadCopy{row.Epoch, row.ContentSha256, row.DeleteTime.Valid}
	}
	arg := dbq.RaiseThreadsParams{
		Now: nullTime(now), Background: lease.Background, Bucket: r.Bucket(), ProjectID: string(r.Project),
		RoomID: string(r.Room),
	}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		t, ok := listed[id]
		if ok && copies[id].is(lease.Epoch, t.SHA256) && known[id].MissingSince.IsZero() || !ok &&
			!copies[id].lives(lease.Epoch) {
			continue
		}
		arg.ThreadID = append(arg.ThreadID, id)
		arg.Unlisted = append(arg.Unlisted, !ok)
	}
	if len(arg.ThreadID) == 0 {
		return nil, nil
	}
	return arg.ThreadID, later.RaiseThreads(ctx, arg)
}

// sinceEpoch is a time that has to be there; without one it is 1970.
func sinceEpoch(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return nullTime(t)
}

// writeThreads writes threads of the room of r, and everything in them, anew.
func writeThreads(ctx context.Context, later *dbq.Queries, r mirror.Resource, epoch int64,
	threads []store.ThreadRows) error {
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
		t.CommentCount = append(t.CommentCount, int32(threads[i].CommentCount)) //nolint:gosec // an answer is too short for more
		t.DataProblem = append(t.DataProblem, text(thread.DataProblem))
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
			c.PlainText = append(c.PlainText, text(comment.Text))
			c.Markdown = append(c.Markdown, text(comment.Markdown))
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
				a.Name = append(a.Name, text(attachment.Name))
				a.MimeType = append(a.MimeType, text(attachment.MIMEType))
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

// notNull makes of nothing an empty value.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func threadOf(project mirror.ProjectID, row dbq.ThreadsRow) mirror.Thread {
	t := mirror.Thread{
		Project: project, Room: mirror.RoomID(row.RoomID), ID: row.ThreadID,
		Source: row.SourceJson, CreateTime: timeOf(row.CreateTime), UpdateTime: timeOf(row.UpdateTime),
		Resolved: row.Resolved, Visibility: row.Visibility, Metadata: row.Metadata, DataProblem: row.DataProblem,
		Freshness: mirror.Freshness{
			FetchTime:        timeOf(row.FetchTime),
			SourceUpdateTime: timeOf(row.SourceUpdateTime),
			DeleteTime:       timeOf(row.GoneTime),
			MissingSince:     timeOf(row.MissingSince),
			Revision:         row.Revision,
			Stale:            row.Stale,
		},
	}
	copy(t.SHA256[:], row.ContentSha256)
	return t
}

// Thread reads by key.
func (s *Store) Thread(ctx context.Context, r mirror.Resource, deleted bool) (mirror.Thread, error) {
	row, err := s.q.Thread(ctx, dbq.ThreadParams{
		Deleted: deleted, Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), ThreadID: r.ID,
	})
	if err != nil {
		return mirror.Thread{}, classify(ctx, fmt.Errorf("read thread: %w", err))
	}
	return threadOf(r.Project, dbq.ThreadsRow(row)), nil
}

// Threads walks the index by room id.
func (s *Store) Threads(ctx context.Context, f store.ThreadFilter) ([]mirror.Thread, error) {
	arg := dbq.ThreadsParams{
		Deleted: f.Deleted, ProjectID: string(f.Project), RoomID: string(f.Room), AfterRoom: string(f.AfterRoom),
		AfterID:      f.AfterID,
		UpdatedSince: nullTime(f.UpdatedSince), Author: f.Author, Mentioned: f.Mentioned,
		MaxRows: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
	}
	if f.Resolved != nil {
		arg.Resolved = pgtype.Bool{Bool: *f.Resolved, Valid: true}
	}
	if len(f.Metadata) > 0 {
		if arg.Metadata = store.MetadataFilter(f.Metadata); arg.Metadata == nil {
			return nil, nil
		}
	}
	rows, err := s.q.Threads(ctx, arg)
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list threads: %w", err))
	}
	out := make([]mirror.Thread, 0, len(rows))
	for _, row := range rows {
		out = append(out, threadOf(f.Project, row))
	}
	return out, nil
}

func commentOf(project mirror.ProjectID, row dbq.CommentsRow) mirror.Comment {
	return mirror.Comment{
		Project: project, Room: mirror.RoomID(row.RoomID), Thread: row.ThreadID, ID: row.CommentID, UserID: row.UserID,
		Source: row.SourceJson, CreateTime: timeOf(row.CreateTime), EditTime: timeOf(row.EditTime),
		DeleteTime: timeOf(row.DeleteTime),
		Freshness: mirror.Freshness{
			FetchTime:        timeOf(row.FetchTime),
			SourceUpdateTime: timeOf(row.SourceUpdateTime),
			DeleteTime:       timeOf(row.GoneTime),
			MissingSince:     timeOf(row.MissingSince),
			Revision:         row.Revision,
			Stale:            row.Stale,
		},
	}
}

// Comment reads by key.
func (s *Store) Comment(ctx context.Context, r mirror.Resource, id string, deleted bool) (mirror.Comment, error) {
	row, err := s.q.Comment(ctx, dbq.CommentParams{
		Deleted: deleted, Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), ThreadID: r.ID,
		CommentID: id,
	})
	if err != nil {
		return mirror.Comment{}, classify(ctx, fmt.Errorf("read comment: %w", err))
	}
	return commentOf(r.Project, dbq.CommentsRow(row)), nil
}

// Comments walks the index by room id.
func (s *Store) Comments(ctx context.Context, f store.CommentFilter) ([]mirror.Comment, error) {
	rows, err := s.q.Comments(ctx, dbq.CommentsParams{
		Deleted: f.Deleted, ProjectID: string(f.Project), RoomID: string(f.Room), ThreadID: f.Thread,
		AfterRoom: string(f.AfterRoom), AfterThread: f.AfterThread, AfterTime: sinceEpoch(f.AfterTime), AfterID: f.AfterID,
		Author: f.Author, Mentioned: f.Mentioned, UpdatedSince: nullTime(f.UpdatedSince),
		MaxRows: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list comments: %w", err))
	}
	out := make([]mirror.Comment, 0, len(rows))
	for _, row := range rows {
		out = append(out, commentOf(f.Project, row))
	}
	return out, nil
}

// storedThread reads a thread and all its rows as of one moment.
func (s *Store) storedThread(ctx context.Context, r mirror.Resource) (mirror.Stored, error) {
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	var out mirror.Stored
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			q := dbq.New(tx)
			row, err := q.StoredThread(ctx, dbq.StoredThreadParams{Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID})
			if err != nil {
				return err
			}
			out = mirror.Stored{
				Content: row.SourceJson, Data: row.Metadata, DataProblem: row.DataProblem,
				MetadataText: row.MetadataText, CommentCount: int(row.CommentCount),
			}
			copy(out.SHA256[:], row.ContentSha256)
			comments, err := q.StoredComments(ctx, dbq.StoredCommentsParams{Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID})
			if err != nil {
				return err
			}
			place := make(map[string]int, len(comments))
			// Rows of comments that are not there are one more thing that is wrong.
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
			reactions, err := q.StoredReactions(ctx, dbq.StoredReactionsParams{Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID})
			if err != nil {
				return err
			}
			for _, row := range reactions {
				comment := at(row.CommentID)
				comment.Reactions = append(comment.Reactions,
					mirror.Reaction{Emoji: row.Emoji, UserID: row.UserID, CreateTime: timeOf(row.CreateTime)})
			}
			attachments, err := q.StoredAttachments(ctx, dbq.StoredAttachmentsParams{Bucket: bucket, ProjectID: project,
				RoomID: room, ThreadID: r.ID})
			if err != nil {
				return err
			}
			for _, row := range attachments {
				comment := at(row.CommentID)
				comment.Attachments = append(comment.Attachments,
					mirror.Attachment{ID: row.AttachmentID, Name: row.Name, MIMEType: row.MimeType, Size: row.Size})
			}
			mentions, err := q.StoredMentions(ctx, dbq.StoredMentionsParams{Bucket: bucket, ProjectID: project, RoomID: room,
				ThreadID: r.ID})
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
