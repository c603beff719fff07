package sqllist

import (
	"context"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Tx is a transaction of an engine for statements that all engines know. Their placeholders are
// question marks.
type Tx interface {
	// Exec runs a statement, and returns how many rows it changed.
	Exec(ctx context.Context, text string, args ...any) (int64, error)
	// Later runs a statement now, or at the latest with the commit.
	Later(ctx context.Context, text string, args ...any) error
	// Get scans the first row; store.ErrNotFound.
	Get(ctx context.Context, text string, args []any, dest ...any) error
	// LockState locks and reads the state of a resource; store.ErrNotFound.
	LockState(ctx context.Context, r mirror.Resource) (store.State, error)
}

// Released is the state of a resource whose lease ends.
type Released struct {
	Resource mirror.Resource
	State    store.State
}

// eraser erases rows of a table in a transaction.
type eraser struct {
	*Reader

	tx      Tx
	project mirror.ProjectID
	table   *store.PersonalTable
	bucket  int16
	subject store.Subject
	dryRun  bool
	// locks is false if nothing is to be changed.
	locks bool
}

// EraseIn does what [store.Erasure] says of EraseRows. It locks states and rooms before it reads
// the rows. The states that it returns are to be written, each with its change if there are
// changes.
func (r *Reader) EraseIn(ctx context.Context, tx Tx, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, []Released, error) {
	e := &eraser{r, tx, project, table, bucket, subject, dryRun, !dryRun && table.Changes(subject)}
	out, changed, states, err := e.erase(ctx, keys)
	if err != nil || !table.Folded() {
		return out, nil, err
	}
	known := store.KnownOf(changed, states)
	out.Changes = table.ErasureEntries(known, now)
	released := make([]Released, len(known))
	for i, resource := range known {
		released[i] = Released{resource, states[resource].Release()}
	}
	for i, c := range out.Changes {
		gone, err := e.gone(ctx, c.Resource)
		if err != nil {
			return out, nil, err
		}
		if gone {
			out.Changes[i].Kind = mirror.ChangeDeleted
		}
	}
	return out, released, nil
}

// erase returns what the rows belonged to that it changed, too, and the states of all.
func (e *eraser) erase(ctx context.Context, keys [][]any) (
	out store.Erased, changed []mirror.Resource, states map[mirror.Resource]store.State, err error,
) {
	out.Judged = make([]store.Judgement, len(keys))
	resources := e.table.Resources(e.project, keys)
	if states, err = e.lock(ctx, keys, resources); err != nil {
		return out, nil, nil, err
	}
	lives, err := e.lives(ctx, resources)
	if err != nil {
		return out, nil, nil, err
	}
	for i, key := range keys {
		if out.Parts >= store.EraseAttachments && !e.dryRun {
			out.Again = append(out.Again, keys[i:]...)
			break
		}
		args := e.args(key)
		row, err := e.row(ctx, args)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return out, nil, nil, err
		}
		r := e.table.Resource(e.project, key)
		j := e.table.Judge(row, lives[r], e.subject)
		if e.table.HasAttachments(j) {
			parts, err := e.attachments(ctx, args, store.EraseAttachments-out.Parts)
			if err != nil {
				return out, nil, nil, err
			}
			if out.Parts += parts; out.Parts >= store.EraseAttachments && !e.dryRun {
				out.Again = append(out.Again, key)
				continue
			}
		}
		if out.Judged[i] = j; j.Erase == store.EraseNothing || e.dryRun {
			continue
		}
		changed = append(changed, r)
		if err := e.write(ctx, args, j); err != nil {
			return out, nil, nil, err
		}
	}
	return out, changed, states, nil
}

// row reads a row.
func (e *eraser) row(ctx context.Context, args []any) (store.PersonalRow, error) {
	return e.scanPersonal(rowFunc(func(dest ...any) error {
		return e.tx.Get(ctx, Locked(PersonalRowSQL(e.table), e.locks), args, dest...)
	}), personalOf(e.table))
}

type rowFunc func(dest ...any) error

func (f rowFunc) Scan(dest ...any) error { return f(dest...) }

// args are the arguments of a statement about the row with a key.
func (e *eraser) args(key []any) []any {
	args := append([]any{e.bucket, e.project}, key...)
	for i := range args {
		args[i] = e.dialect.argument(args[i])
	}
	return args
}

// lock locks documents and the states of resources, and returns those that are there.
func (e *eraser) lock(ctx context.Context, keys [][]any, resources []mirror.Resource) (
	map[mirror.Resource]store.State, error,
) {
	states := make(map[mirror.Resource]store.State)
	if !e.locks {
		return states, nil
	}
	if e.table.HasContent() {
		for _, key := range keys {
			if _, err := e.exists(ctx, LockPersonalSQL(e.table), e.args(key)); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range resources {
		switch state, err := e.tx.LockState(ctx, r); {
		case err == nil:
			states[r] = state
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
	}
	return states, nil
}

// exists reports whether there is a row.
func (e *eraser) exists(ctx context.Context, text string, args []any) (bool, error) {
	var one int
	err := e.tx.Get(ctx, text, args, &one)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// lives reads whether what the rows are copies of lives.
func (e *eraser) lives(ctx context.Context, resources []mirror.Resource) (map[mirror.Resource]store.Life, error) {
	lives := make(map[mirror.Resource]store.Life)
	rooms := make(map[mirror.RoomID]store.Life)
	item := e.table.Item()
	for _, r := range resources {
		life, read := rooms[r.Room]
		if e.table.LocksRooms() && !read {
			err := e.tx.Get(ctx, Locked(LockRoomSQL, e.locks), e.args([]any{r.Room}), &life.Room, &life.Deleted)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
			rooms[r.Room] = life
		}
		lives[r] = life
	}
	for _, r := range resources { // rooms are locked before what is in them
		if item == nil {
			break
		}
		key := []any{r.ID}
		if item.InRoom() {
			key = []any{r.Room, r.ID}
		}
		life := lives[r]
		err := e.tx.Get(ctx, LifeHeadSQL(item), e.args(key), &life.Head.Epoch, &life.Head.Deleted)
		if life.Head.Found = err == nil; err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		lives[r] = life
	}
	return lives, nil
}

// attachments deletes at most limit attachments of a comment, or only counts all.
func (e *eraser) attachments(ctx context.Context, comment []any, limit int64) (n int64, err error) {
	if e.dryRun {
		err = e.tx.Get(ctx, CountAttachmentsSQL, comment, &n)
		return n, err
	}
	text := e.dialect.DeleteSome(store.AttachmentTable, AttachmentsOfComment)
	return e.tx.Exec(ctx, text, append(comment[:len(comment):len(comment)], limit)...)
}

// write does with a row what was decided.
func (e *eraser) write(ctx context.Context, args []any, j store.Judgement) error {
	if e.table.Terms != "" {
		if err := e.tx.Later(ctx, DeleteTermsSQL(e.table), args...); err != nil {
			return err
		}
	}
	if j.Erase == store.EraseDelete {
		return e.tx.Later(ctx, DeletePersonalSQL(e.table), args...)
	}
	return e.tx.Later(ctx, RewritePersonalSQL(e.table), append(rewritten(e.table, j.Values), args...)...)
}

// rewritten are the arguments for the columns of a row that is rewritten.
func rewritten(table *store.PersonalTable, values [][]byte) (args []any) {
	for i, c := range table.Columns {
		switch {
		case c.Kept:
		case values[i] == nil:
			args = append(args, nil)
		case c.Form == store.PersonalData, c.Form == store.PersonalText:
			args = append(args, string(values[i])) // MySQL takes no bytes for JSON
		default:
			args = append(args, values[i])
		}
	}
	if table.Hash != "" {
		args = append(args, table.HashOf(values))
	}
	return args
}

// gone reports whether no row of what has an id of its own is left. Sessions are those of a
// room, and a list of them is never gone.
func (e *eraser) gone(ctx context.Context, r mirror.Resource) (bool, error) {
	if e.table.ID == "" {
		return false, nil
	}
	left, err := e.exists(ctx, LeftSQL(e.table), e.args([]any{r.Room, r.ID}))
	return !left, err
}
