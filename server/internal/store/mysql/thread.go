package mysql

import (
	"context"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

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
			of := items[mirror.KindThread]
			for p := range of.parts {
				if _, err := q.db.ExecContext(ctx, of.deleteAllSQL(p), of.scope(room, id)...); err != nil {
					return err
				}
			}
			return nil
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
