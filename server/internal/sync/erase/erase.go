// Package erase removes what the mirror has of a user, and what a deleted room has left.
// Copies of what Liveblocks still has are no part of that: they would come back with the
// next fetch, so they are fetched again, and listed for whoever can delete them there.
package erase

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// pageRows and pageSize are how many rows are searched at once, and about how many bytes
	// these take. What is longer is searched alone. Lengths are read of twice as many rows as
	// have fit before, at first of firstRows: MySQL has to read all of a long value for that.
	firstRows = 32
	pageRows  = 500
	pageSize  = 8 << 20
	// batchRows is how many rows a transaction changes.
	batchRows = 50
	// roomRows is how many rows a transaction deletes of a room.
	roomRows = 1000
	// roomTries is how often a room is erased until nothing is left.
	roomTries = 5
	// requested is how many resources are requested at once, and maxRequested in a run: each
	// is a call to Liveblocks. The sweep fetches the others.
	requested    = 500
	maxRequested = 10_000
)

// Config configures an Eraser. Every field is required.
type Config struct {
	Store Store
	// Committed is told of change entries once they are committed.
	Committed func([]mirror.Change)
	// Pending is told of what has become due in the background.
	Pending func([]mirror.Pending)
	Now     func() time.Time
}

// Store is the part of the store that an erasure uses.
type Store interface {
	store.Erasure
	Room(ctx context.Context, room mirror.Resource, deleted bool) (mirror.Room, error)
	Task(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error)
	store.RoomPurger
	Remains(ctx context.Context, room mirror.Resource) (store.TableRows, error)
	Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error)
}

// Eraser erases.
type Eraser struct {
	cfg Config

	mu  sync.Mutex
	one map[mirror.ProjectID]chan struct{} // holds an element while a user is being erased
}

// New returns an Eraser.
func New(cfg Config) *Eraser {
	return &Eraser{cfg: cfg, one: make(map[mirror.ProjectID]chan struct{})}
}

// User says whom to erase.
type User struct {
	Project mirror.ProjectID

	store.Subject

	// DryRun means to change nothing.
	DryRun bool
}

// Report is how far an erasure is.
type Report struct {
	// Buckets is how many of the mirror.Buckets parts of the database were searched.
	Buckets int
	// Tables counts the rows that were found so far, in the order of [store.Personal]. Those
	// without any are left out.
	Tables []Table
	// Requested is how many resources were requested so far, or would have been: copies that
	// hold the id as one of a user.
	Requested int64
	// Remaining lists what holds the id still, of the parts since the report before: copies,
	// and inboxes of others.
	Remaining []Remaining
}

// Table counts rows of a table.
type Table struct {
	Name string
	// Removed rows were deleted, Rewritten ones have lost the id in columns that can lose it;
	// or would have.
	Removed, Rewritten int64
	// Living rows hold the id and are copies of what Liveblocks has. Other rows hold it too,
	// after what was done: in what others wrote, or as a part of a longer word.
	Living, Other int64
}

// Remaining is something that holds the id of the user still.
type Remaining struct {
	Resource mirror.Resource
	// Columns hold it, as TABLE.COLUMN.
	Columns []string
	// Exact means that it is the whole value somewhere, not only a part of a longer text.
	Exact bool
	// Lives means that Liveblocks has it, as far as is known, and RoomGone that its room was
	// deleted.
	Lives, RoomGone bool
	// Unreadable means that its content is damaged here, so that it may hold anything.
	Unreadable bool
	// known means that it is known to be the id of the user somewhere.
	known bool
}

// User erases a user, bucket by bucket, and calls report after each. Each transaction is
// whole by itself, and what is left is found again: after a failure, it can be repeated. One
// user of a project is erased at a time, because what is read can be long.
func (e *Eraser) User(ctx context.Context, u User, report func(Report) error) error {
	e.mu.Lock()
	one := e.one[u.Project]
	if one == nil {
		one = make(chan struct{}, 1)
		e.one[u.Project] = one
	}
	e.mu.Unlock()
	select {
	case one <- struct{}{}:
		defer func() { <-one }()
	case <-ctx.Done():
		return ctx.Err()
	}
	run := &run{Eraser: e, user: u, counts: make(map[string]*Table)}
	for bucket := range int16(mirror.Buckets) {
		remaining, err := run.bucket(ctx, bucket)
		if err != nil {
			return fmt.Errorf("erase a user: %w", err)
		}
		progress := Report{Buckets: int(bucket) + 1, Requested: run.requested, Remaining: remaining}
		for _, t := range store.Personal {
			if c := run.counts[t.Name]; c != nil && *c != (Table{Name: t.Name}) {
				progress.Tables = append(progress.Tables, *c)
			}
		}
		if err := report(progress); err != nil {
			return err
		}
	}
	return nil
}

// run is one erasure of a user.
type run struct {
	*Eraser

	user      User
	counts    map[string]*Table
	requested int64
	// found is what was found in a bucket that remains.
	found map[mirror.Resource]*Remaining
	// comments are those of a bucket whose attachments go with them, for a dry run, which
	// finds these afterwards.
	comments map[string]bool
}

func (r *run) count(table string) *Table {
	if r.counts[table] == nil {
		r.counts[table] = &Table{Name: table}
	}
	return r.counts[table]
}

// bucket erases what a bucket has of the user, and returns what remains.
func (r *run) bucket(ctx context.Context, bucket int16) ([]Remaining, error) {
	r.found, r.comments = make(map[mirror.Resource]*Remaining), make(map[string]bool)
	for _, table := range store.Personal {
		limit := firstRows
		for after := []any(nil); ; {
			page, err := r.cfg.Store.PersonalRows(ctx, r.user.Project, table, bucket, after, limit, pageSize)
			if err != nil {
				return nil, err
			}
			if len(page) == 0 {
				break
			}
			after, limit = page[len(page)-1].Key, min(2*len(page), pageRows)
			var keys [][]any
			for _, row := range page {
				gone := table.Name == store.AttachmentTable && r.comments[commentOf(row.Key)]
				if !gone && table.Find(row, r.user.User) {
					keys = append(keys, row.Key)
				}
			}
			for batch := range slices.Chunk(keys, batchRows) {
				if err := r.erase(ctx, table, bucket, batch); err != nil {
					return nil, err
				}
			}
		}
	}
	var remaining []Remaining
	var again []mirror.Request
	for _, resource := range slices.SortedFunc(maps.Keys(r.found), mirror.Resource.Compare) {
		f := r.found[resource]
		slices.Sort(f.Columns)
		f.Columns = slices.Compact(f.Columns)
		remaining = append(remaining, *f)
		if f.Lives && f.known && r.requested < maxRequested {
			r.requested++
			again = append(again, mirror.Request{Resource: resource, Background: true})
		}
	}
	return remaining, r.fetch(ctx, again)
}

// erase erases rows of a table, as often as it takes.
func (r *run) erase(ctx context.Context, table *store.PersonalTable, bucket int16, keys [][]any) error {
	count := r.count(table.Name)
	for len(keys) > 0 {
		u := r.user
		erased, err := r.cfg.Store.EraseRows(ctx, u.Project, table, bucket, keys, u.Subject, u.DryRun, r.cfg.Now())
		if err != nil {
			return err
		}
		if len(erased.Changes) > 0 {
			r.cfg.Committed(erased.Changes)
		}
		if erased.Parts > 0 {
			r.count(store.AttachmentTable).Removed += erased.Parts
		}
		for i, j := range erased.Judged {
			if r.user.DryRun && table.HasAttachments(j) {
				r.comments[commentOf(keys[i])] = true
			}
			switch j.Erase {
			case store.EraseDelete:
				count.Removed++
			case store.EraseRewrite:
				count.Rewritten++
			case store.EraseNothing:
			}
			if len(j.Remain) > 0 {
				r.remain(table, table.Resource(r.user.Project, keys[i]), j, count)
			}
		}
		keys = erased.Again
	}
	return nil
}

// commentOf names the comment of a key that begins with its own.
func commentOf(key []any) string { return fmt.Sprintf("%q", key[:3]) }

// remain notes that a row holds the id still.
func (r *run) remain(table *store.PersonalTable, resource mirror.Resource, j store.Judgement, count *Table) {
	lives := j.Lives || table.HoldsInbox(j)
	if lives {
		count.Living++
	} else {
		count.Other++
	}
	if !table.Copy && !lives {
		return
	}
	f := r.found[resource]
	if f == nil {
		f = &Remaining{Resource: resource}
		r.found[resource] = f
	}
	f.Exact, f.Lives, f.RoomGone = f.Exact || j.Exact, f.Lives || lives, f.RoomGone || j.RoomGone
	f.known, f.Unreadable = f.known || j.Known, f.Unreadable || j.Unreadable
	for _, column := range j.Remain {
		if full := table.Name + "." + column; !slices.Contains(f.Columns, full) {
			f.Columns = append(f.Columns, full)
		}
	}
}

// fetch requests resources, in the background: what Liveblocks has no more goes with that.
func (r *run) fetch(ctx context.Context, requests []mirror.Request) error {
	if r.user.DryRun {
		return nil
	}
	for part := range slices.Chunk(requests, requested) {
		pending, err := r.cfg.Store.Request(ctx, part, r.cfg.Now())
		if err != nil {
			return err
		}
		r.cfg.Pending(pending)
	}
	return nil
}

// Room erases what a deleted room has left, as [store.Purge] says, or only counts it. It
// returns how many rows of which tables that are, and store.ErrNotFound for a room that is
// not mirrored. It counts what it removes, because to count all before can take longer than a
// read may.
func (e *Eraser) Room(ctx context.Context, room mirror.Resource, dryRun bool) (store.TableRows, error) {
	done := make(store.TableRows)
	for range roomTries {
		stored, err := e.cfg.Store.Room(ctx, room, true)
		switch {
		case err != nil:
			return nil, fmt.Errorf("erase a room: %w", err)
		case stored.Freshness.DeleteTime.IsZero():
			return nil, roomLives(room)
		case dryRun:
			return e.count(ctx, room)
		}
		// Whoever was folding, or a room that came back and was deleted again, may have written
		// something meanwhile: it is done when nothing was left.
		rows, err := store.PurgeWhole(ctx, e.cfg.Store, room, stored.Freshness.DeleteTime.Add(time.Microsecond), roomRows)
		done.Add(rows)
		switch {
		case err == nil && len(rows) == 0:
			return done, nil
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("erase a room: %w", err)
		}
	}
	return nil, mayBeBack(room)
}

// count counts what would be erased of a room, unless the room is to be fetched: then nothing
// would.
func (e *Eraser) count(ctx context.Context, room mirror.Resource) (store.TableRows, error) {
	task, err := e.cfg.Store.Task(ctx, room, e.cfg.Now())
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return nil, fmt.Errorf("count what is left of a room: %w", err)
	case err == nil && task.State != mirror.TaskDone:
		return nil, mayBeBack(room)
	}
	return e.cfg.Store.Remains(ctx, room)
}

func mayBeBack(room mirror.Resource) error {
	return fault.New(fault.Precondition, fault.ReasonRoomNotDeleted,
		"the room gets events, so it may be back at Liveblocks; a part of it may be erased, call again in a while").
		With("room_id", string(room.Room))
}

func roomLives(room mirror.Resource) error {
	return fault.New(fault.Precondition, fault.ReasonRoomNotDeleted,
		"Liveblocks still has the room, so it would come back; delete it there first").
		With("room_id", string(room.Room))
}
