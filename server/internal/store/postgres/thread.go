package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// storedThread reads a thread and all its rows as of one point in time.
func (s *Store) storedThread(ctx context.Context, r mirror.Resource) (mirror.Stored, error) {
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	var out mirror.Stored
	err := pgx.BeginTxFunc(ctx, s.reading, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
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
