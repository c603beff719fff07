package mysql

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

const deleteAttachmentsSQL = "delete from mirror_comment_attachment" + sqllist.AttachmentsOfComment + "\nlimit ?"

// EraseRows locks states and rooms before it reads the rows.
func (s *Store) EraseRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	var out store.Erased
	locks := !dryRun && table.Changes(subject)
	err := s.tx(ctx, "erase rows of "+table.Name, func(q *queries) error {
		out = store.Erased{Judged: make([]store.Judgement, len(keys))}
		resources := table.Resources(project, keys)
		for _, key := range keys {
			if locks && table.HasContent() {
				var one int
				err := q.db.QueryRowContext(ctx, sqllist.LockPersonalSQL(table), personalKey(bucket, project, key)...).Scan(&one)
				if err != nil && !errors.Is(err, sql.ErrNoRows) {
					return err
				}
			}
		}
		states, err := q.lockErased(ctx, resources, locks)
		if err != nil {
			return err
		}
		lives, err := q.lifeOf(ctx, table, resources, locks)
		if err != nil {
			return err
		}
		var changed []mirror.Resource
		for i, key := range keys {
			if out.Parts >= store.EraseAttachments && !dryRun {
				out.Again = append(out.Again, keys[i:]...)
				break
			}
			args := personalKey(bucket, project, key)
			read := sqllist.Locked(sqllist.PersonalRowSQL(table), locks)
			row, err := s.PersonalRow(q.db.QueryRowContext(ctx, read, args...), table)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			r := table.Resource(project, key)
			j := table.Judge(row, lives[r], subject)
			if table.HasAttachments(j) {
				parts, err := q.eraseAttachments(ctx, args, store.EraseAttachments-out.Parts, dryRun)
				if err != nil {
					return err
				}
				if out.Parts += parts; out.Parts >= store.EraseAttachments && !dryRun {
					out.Again = append(out.Again, key)
					continue
				}
			}
			if out.Judged[i] = j; j.Erase == store.EraseNothing || dryRun {
				continue
			}
			changed = append(changed, r)
			if table.Terms != "" {
				if _, err := q.exec(ctx, sqllist.DeleteTermsSQL(table), args...); err != nil {
					return err
				}
			}
			text := sqllist.DeletePersonalSQL(table)
			if j.Erase == store.EraseRewrite {
				text, args = sqllist.RewritePersonalSQL(table), append(rewritten(table, j.Values), args...)
			}
			if _, err := q.exec(ctx, text, args...); err != nil {
				return err
			}
		}
		if !table.Folded() {
			return nil
		}
		known := store.KnownOf(changed, states)
		out.Changes = table.ErasureEntries(known, now)
		if err := q.announce(ctx, out.Changes); err != nil {
			return err
		}
		for i, r := range known {
			revision := int64(0)
			if len(out.Changes) > 0 {
				revision = out.Changes[i].Number
			}
			if err := q.WriteState(ctx, writeState(r, states[r].Release(), revision)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store.Erased{}, err
	}
	return out, nil
}

func personalKey(bucket int16, project mirror.ProjectID, key []any) []any {
	args := []any{bucket, rawKey(project)}
	for _, id := range key {
		if text, ok := id.(string); ok {
			id = rawKey(text)
		}
		args = append(args, id)
	}
	return args
}

// lockErased locks the states of resources whose rows may be changed, and returns those that
// are there.
func (q *queries) lockErased(ctx context.Context, resources []mirror.Resource, locks bool) (
	map[mirror.Resource]store.State, error,
) {
	states := make(map[mirror.Resource]store.State)
	if !locks {
		return states, nil
	}
	for _, r := range resources {
		row, err := q.LockState(ctx, lockParams(r))
		switch {
		case err == nil:
			states[r] = stateOf(row)
		case !errors.Is(err, sql.ErrNoRows):
			return nil, err
		}
	}
	return states, nil
}

// lifeOf reads whether what the rows are copies of lives.
func (q *queries) lifeOf(ctx context.Context, table *store.PersonalTable, resources []mirror.Resource, locks bool) (
	map[mirror.Resource]store.Life, error,
) {
	room := sqllist.Locked(sqllist.LockRoomSQL, locks)
	lives := make(map[mirror.Resource]store.Life)
	rooms := make(map[mirror.RoomID]store.Life)
	for _, r := range resources {
		life, read := rooms[r.Room]
		if table.LocksRooms() && !read {
			err := q.db.QueryRowContext(ctx, room, r.Bucket(), rawKey(r.Project), rawKey(r.Room)).
				Scan(&life.Room, &life.Deleted)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return nil, err
			}
			rooms[r.Room] = life
		}
		lives[r] = life
	}
	item := table.Item()
	if item == nil {
		return lives, nil
	}
	for _, r := range resources {
		args := []any{r.Bucket(), rawKey(r.Project)}
		if item.InRoom() {
			args = append(args, rawKey(r.Room))
		}
		life := lives[r]
		err := q.db.QueryRowContext(ctx, sqllist.LifeHeadSQL(item), append(args, rawKey(r.ID))...).
			Scan(&life.Head.Epoch, &life.Head.Deleted)
		if life.Head.Found = err == nil; err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		lives[r] = life
	}
	return lives, nil
}

// eraseAttachments deletes at most limit attachments of a comment, or only counts all.
func (q *queries) eraseAttachments(ctx context.Context, comment []any, limit int64, dryRun bool) (n int64, err error) {
	if dryRun {
		err = q.db.QueryRowContext(ctx, sqllist.CountAttachmentsSQL, comment...).Scan(&n)
		return n, err
	}
	return q.exec(ctx, deleteAttachmentsSQL, append(comment[:len(comment):len(comment)], limit)...)
}

// rewritten are the arguments for the columns of a row that is rewritten.
func rewritten(table *store.PersonalTable, values [][]byte) (args []any) {
	for i, c := range table.Columns {
		switch {
		case c.Kept:
		case values[i] == nil:
			args = append(args, nil)
		case c.Form == store.PersonalData, c.Form == store.PersonalText:
			args = append(args, string(values[i])) // bytes would be no JSON
		default:
			args = append(args, values[i])
		}
	}
	if table.Hash != "" {
		args = append(args, table.HashOf(values))
	}
	return args
}
