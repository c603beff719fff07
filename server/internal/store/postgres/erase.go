package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

var deleteAttachmentsSQL = sqllist.Numbered("delete from mirror_comment_attachment\nwhere ctid = any(array(\n"+
	"    select ctid from mirror_comment_attachment"+sqllist.AttachmentsOfComment) + " limit $6::bigint\n))"

// EraseRows locks states and rooms before it reads the rows.
func (s *Store) EraseRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	var out store.Erased
	numbers := make([]int64, len(keys))
	locks := !dryRun && table.Changes(subject)
	err := s.itemTx(ctx, "erase rows of "+table.Name, func(t *transaction, q, _ *dbq.Queries) error {
		out = store.Erased{Judged: make([]store.Judgement, len(keys))}
		resources := table.Resources(project, keys)
		for _, key := range keys {
			if locks && table.HasContent() {
				args := append([]any{bucket, string(project)}, key...)
				if _, err := t.Exec(ctx, sqllist.Numbered(sqllist.LockPersonalSQL(table)), args...); err != nil {
					return err
				}
			}
		}
		states, err := lockErased(ctx, q, resources, locks)
		if err != nil {
			return err
		}
		lives, err := lifeOf(ctx, t, table, resources, locks)
		if err != nil {
			return err
		}
		var changed []mirror.Resource
		for i, key := range keys {
			if out.Parts >= store.EraseAttachments && !dryRun {
				out.Again = append(out.Again, keys[i:]...)
				break
			}
			row, err := personalRow(ctx, s.Reader, t, table, bucket, project, key, locks)
			if errors.Is(err, pgx.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			r := table.Resource(project, key)
			j := table.Judge(row, lives[r], subject)
			if table.HasAttachments(j) {
				parts, err := eraseAttachments(ctx, t, bucket, project, key, store.EraseAttachments-out.Parts, dryRun)
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
			args := append([]any{bucket, string(project)}, key...)
			if table.Terms != "" {
				t.queue(sqllist.Numbered(sqllist.DeleteTermsSQL(table)), args...)
			}
			if j.Erase == store.EraseDelete {
				t.queue(sqllist.Numbered(sqllist.DeletePersonalSQL(table)), args...)
				continue
			}
			t.queue(sqllist.Numbered(sqllist.RewritePersonalSQL(table)), append(rewritten(table, j.Values), args...)...)
		}
		if !table.Folded() {
			return nil
		}
		known := store.KnownOf(changed, states)
		out.Changes = table.ErasureEntries(known, now)
		for i, r := range known {
			plan := store.Plan{State: states[r].Release()}
			if len(out.Changes) > 0 {
				plan.Change = out.Changes[i].Kind
			}
			if _, err := t.later(&numbers[i]).WriteState(ctx, writeState(r, plan, now)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store.Erased{}, err
	}
	for i := range out.Changes {
		out.Changes[i].Number = numbers[i]
	}
	return out, nil
}

// lockErased locks the states of resources whose rows may be changed, and returns those that
// are there.
func lockErased(ctx context.Context, q *dbq.Queries, resources []mirror.Resource, locks bool) (
	map[mirror.Resource]store.State, error,
) {
	states := make(map[mirror.Resource]store.State)
	if !locks {
		return states, nil
	}
	for _, r := range resources {
		row, err := q.LockState(ctx, stateKey(r))
		switch {
		case err == nil:
			states[r] = stateOf(row)
		case !errors.Is(err, pgx.ErrNoRows):
			return nil, err
		}
	}
	return states, nil
}

// lifeOf reads whether what the rows are copies of lives.
func lifeOf(ctx context.Context, t *transaction, table *store.PersonalTable, resources []mirror.Resource,
	locks bool,
) (map[mirror.Resource]store.Life, error) {
	room := sqllist.Numbered(sqllist.Locked(sqllist.LockRoomSQL, locks))
	lives := make(map[mirror.Resource]store.Life)
	rooms := make(map[mirror.RoomID]store.Life)
	for _, r := range resources {
		life, read := rooms[r.Room]
		if table.LocksRooms() && !read {
			err := t.QueryRow(ctx, room, r.Bucket(), string(r.Project), string(r.Room)).Scan(&life.Room, &life.Deleted)
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
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
		args := []any{r.Bucket(), string(r.Project)}
		if item.InRoom() {
			args = append(args, string(r.Room))
		}
		life := lives[r]
		err := t.QueryRow(ctx, sqllist.Numbered(sqllist.LifeHeadSQL(item)), append(args, r.ID)...).
			Scan(&life.Head.Epoch, &life.Head.Deleted)
		if life.Head.Found = err == nil; err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, err
		}
		lives[r] = life
	}
	return lives, nil
}

func personalRow(ctx context.Context, reader *sqllist.Reader, t *transaction, table *store.PersonalTable, bucket int16,
	project mirror.ProjectID, key []any, locks bool,
) (store.PersonalRow, error) {
	args := append([]any{bucket, string(project)}, key...)
	row := t.QueryRow(ctx, sqllist.Numbered(sqllist.Locked(sqllist.PersonalRowSQL(table), locks)), args...)
	return reader.PersonalRow(row, table)
}

// eraseAttachments deletes at most limit attachments of a comment, or only counts all.
func eraseAttachments(ctx context.Context, t *transaction, bucket int16, project mirror.ProjectID, comment []any,
	limit int64, dryRun bool,
) (n int64, err error) {
	args := append([]any{bucket, string(project)}, comment...)
	if dryRun {
		err = t.QueryRow(ctx, sqllist.Numbered(sqllist.CountAttachmentsSQL), args...).Scan(&n)
		return n, err
	}
	tag, err := t.Exec(ctx, deleteAttachmentsSQL, append(args, limit)...)
	return tag.RowsAffected(), err
}

// rewritten are the arguments for the columns of a row that is rewritten.
func rewritten(table *store.PersonalTable, values [][]byte) (args []any) {
	for i, c := range table.Columns {
		if !c.Kept {
			args = append(args, values[i])
		}
	}
	if table.Hash != "" {
		args = append(args, table.HashOf(values))
	}
	return args
}
