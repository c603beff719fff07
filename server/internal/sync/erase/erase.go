// Package erase removes what the mirror has of a user, and what a deleted room has left.
// Copies of what Liveblocks still has are no part of that: they would come back with the
// next fetch, so they are fetched again, and listed for whoever can delete them there.
package erase

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// erasedRows is how many rows a transaction deletes of something that is deleted.
const erasedRows = 1000

// requested is how many resources are requested at once.
const requested = 500

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
	Remains(ctx context.Context, room mirror.Resource) (store.TableRows, error)
	PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (int, error)
	Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error)
}

// Eraser erases.
type Eraser struct{ cfg Config }

// New returns an Eraser.
func New(cfg Config) *Eraser { return &Eraser{cfg} }

// User says whom to erase.
type User struct {
	Project mirror.ProjectID
	ID      string
	// DryRun means to erase nothing.
	DryRun bool
}

// Report is how far an erasure is.
type Report struct {
	// Buckets is how many of the mirror.Buckets parts of the database were searched.
	Buckets int
	// Tables counts the rows that were found so far, in the order of [store.Personal]. Those
	// without any are left out.
	Tables []Table
	// Remaining lists what Liveblocks still has, of the parts since the report before.
	Remaining []Remaining
}

// Table counts the rows of a table that name the user.
type Table struct {
	Name string
	// Erased rows were erased, or would be. Remaining ones are copies of what Liveblocks
	// still has.
	Erased, Remaining int64
}

// Remaining is a copy of something that names the user and that Liveblocks still has.
type Remaining struct {
	Resource mirror.Resource
	// Columns name him, as TABLE.COLUMN.
	Columns []string
}

// User erases a user, bucket by bucket, and calls report after each. Each transaction is
// whole by itself: after a failure, it can be repeated.
func (e *Eraser) User(ctx context.Context, u User, report func(Report) error) error {
	run := &run{Eraser: e, user: u, counts: make(map[string]Table)}
	for bucket := range int16(mirror.Buckets) {
		remaining, err := run.bucket(ctx, bucket)
		if err != nil {
			return fmt.Errorf("erase a user: %w", err)
		}
		progress := Report{Buckets: int(bucket) + 1, Remaining: remaining}
		for _, t := range store.Personal {
			if c, ok := run.counts[t.Name]; ok {
				progress.Tables = append(progress.Tables, c)
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

	user   User
	counts map[string]Table
}

func (r *run) count(table string, erased, remaining int64) {
	c := r.counts[table]
	r.counts[table] = Table{Name: table, Erased: c.Erased + erased, Remaining: c.Remaining + remaining}
}

// found is what a bucket has of a resource.
type found struct {
	rows    map[string]int64 // by table
	columns map[string]bool
	// kept means that a column names the user that nothing erases.
	kept bool
}

// bucket searches a bucket. What only the mirror has goes page by page; copies are
// collected, because a resource has rows in several tables.
func (r *run) bucket(ctx context.Context, bucket int16) ([]Remaining, error) {
	copies := make(map[mirror.Resource]*found)
	var again []mirror.Request
	for _, table := range store.Personal {
		err := r.pages(ctx, table, bucket, func(rows []store.PersonalRow, columns [][]store.PersonalColumn) error {
			if table.Fate == store.FateFetch {
				for i, row := range rows {
					note(copies, table, table.Resource(r.user.Project, row.Key), columns[i])
				}
				return nil
			}
			requests, err := r.erase(ctx, table, bucket, rows, columns)
			again = append(again, requests...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	var remaining []Remaining
	for _, resource := range slices.SortedFunc(maps.Keys(copies), mirror.Resource.Compare) {
		lives, err := r.eraseDead(ctx, resource)
		if err != nil {
			return nil, err
		}
		f := copies[resource]
		for table, rows := range f.rows {
			if lives {
				r.count(table, 0, rows)
			} else {
				r.count(table, rows, 0)
			}
		}
		if lives {
			again = append(again, mirror.Request{Resource: resource, Background: true})
		}
		if lives || f.kept {
			remaining = append(remaining, Remaining{Resource: resource, Columns: slices.Sorted(maps.Keys(f.columns))})
		}
	}
	return remaining, r.fetch(ctx, again)
}

// pages calls do with the rows of a table and a bucket that name the user, and the columns
// that do.
func (r *run) pages(ctx context.Context, table *store.PersonalTable, bucket int16,
	do func(rows []store.PersonalRow, columns [][]store.PersonalColumn) error,
) error {
	for after := []any(nil); ; {
		page, err := r.cfg.Store.PersonalRows(ctx, r.user.Project, table, bucket, after, table.Page)
		if err != nil {
			return err
		}
		var rows []store.PersonalRow
		var columns [][]store.PersonalColumn
		for _, row := range page {
			if named := table.Find(row, r.user.ID); len(named) > 0 {
				rows, columns = append(rows, row), append(columns, named)
			}
		}
		if len(rows) > 0 {
			if err := do(rows, columns); err != nil {
				return err
			}
		}
		if len(page) < table.Page {
			return nil
		}
		after = page[len(page)-1].Key
	}
}

// note adds a row to what is found of its resource.
func note(copies map[mirror.Resource]*found, table *store.PersonalTable, r mirror.Resource,
	columns []store.PersonalColumn,
) {
	f := copies[r]
	if f == nil {
		f = &found{rows: make(map[string]int64), columns: make(map[string]bool)}
		copies[r] = f
	}
	erasable := false
	for _, c := range columns {
		f.columns[table.Name+"."+c.Name] = true
		f.kept = f.kept || c.Kept
		erasable = erasable || !c.Kept
	}
	if erasable {
		f.rows[table.Name]++
	}
}

// erase erases rows that only the mirror has. It returns what is to be fetched then.
func (r *run) erase(ctx context.Context, table *store.PersonalTable, bucket int16, rows []store.PersonalRow,
	columns [][]store.PersonalColumn,
) (again []mirror.Request, err error) {
	r.count(table.Name, int64(len(rows)), 0)
	if r.user.DryRun {
		return nil, nil
	}
	erased := make([]store.ErasedRow, len(rows))
	for i, row := range rows {
		whole := slices.ContainsFunc(columns[i], func(c store.PersonalColumn) bool { return c.Whole })
		erased[i] = store.ErasedRow{Key: row.Key, Whole: whole}
		if !whole && table.Kind == mirror.KindNotification {
			again = append(again, mirror.Request{Resource: table.Resource(r.user.Project, row.Key), Background: true})
		}
	}
	changes, err := r.cfg.Store.EraseRows(ctx, r.user.Project, table, bucket, erased, r.cfg.Now())
	if len(changes) > 0 {
		r.cfg.Committed(changes)
	}
	return again, err
}

// eraseDead erases a resource unless Liveblocks has it.
func (r *run) eraseDead(ctx context.Context, resource mirror.Resource) (lives bool, err error) {
	if r.user.DryRun {
		_, lives, err = r.cfg.Store.EraseDead(ctx, resource, 0)
		return lives, err
	}
	for {
		n, lives, err := r.cfg.Store.EraseDead(ctx, resource, erasedRows)
		if err != nil || lives || n < erasedRows {
			return lives, err
		}
	}
}

// fetch requests resources, in the background.
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
// not mirrored.
func (e *Eraser) Room(ctx context.Context, room mirror.Resource, dryRun bool) (store.TableRows, error) {
	stored, err := e.cfg.Store.Room(ctx, room, true)
	switch {
	case err != nil:
		return nil, fmt.Errorf("erase a room: %w", err)
	case stored.Freshness.DeleteTime.IsZero():
		return nil, fault.New(fault.Precondition, fault.ReasonRoomNotDeleted,
			"Liveblocks still has the room, so it would come back; delete it there first").
			With("room_id", string(room.Room))
	}
	rows, err := e.cfg.Store.Remains(ctx, room)
	if err != nil || dryRun {
		return rows, err
	}
	for {
		n, err := e.cfg.Store.PurgeRoom(ctx, room, stored.Freshness.DeleteTime.Add(time.Microsecond), erasedRows)
		if err != nil || n == 0 {
			return rows, err
		}
	}
}
