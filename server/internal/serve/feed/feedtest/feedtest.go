// Package feedtest is a feed in memory, for tests of what reads it.
package feedtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Database is a feed in memory.
type Database struct {
	mu      sync.Mutex
	entries [mirror.Buckets][]mirror.Change
	trimmed mirror.Position
	queries int
	feeds   map[mirror.ProjectID][16]byte
	err     error
	hangs   bool
	// hangsCopies is as hangs, and hanging is how many lists of copies hang.
	hangsCopies bool
	hanging     int
	after       func()

	// Lag is how many of the last changes of each bucket Changes does not see, as through a
	// server that lags.
	Lag int
}

// Commit adds a change of a room called after its bucket.
func (d *Database) Commit(bucket int) mirror.Change {
	return d.CommitOf(bucket, mirror.Resource{
		Project: "default", Room: mirror.RoomID(fmt.Sprint("room-", bucket)), Kind: mirror.KindRoom,
	})
}

// CommitOf adds a change of a resource, in any bucket.
func (d *Database) CommitOf(bucket int, r mirror.Resource) mirror.Change {
	return d.commit(bucket, r, mirror.ChangeUpserted)
}

// DeletionOf adds the deletion of a resource.
func (d *Database) DeletionOf(bucket int, r mirror.Resource) mirror.Change {
	return d.commit(bucket, r, mirror.ChangeDeleted)
}

func (d *Database) commit(bucket int, r mirror.Resource, kind mirror.ChangeKind) mirror.Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := mirror.Change{
		Bucket: int16(bucket), Number: int64(len(d.entries[bucket])) + 1, CommitTime: time.Now(), //nolint:gosec // a bucket
		Kind: kind, Resource: r,
	}
	d.entries[bucket] = append(d.entries[bucket], c)
	return c
}

// Entries returns all changes of a bucket, trimmed or not.
func (d *Database) Entries(bucket int) []mirror.Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries[bucket])
}

// Restore takes away the last changes of a bucket, as a failover to a replica that lacked
// them does.
func (d *Database) Restore(bucket, lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries[bucket] = d.entries[bucket][:len(d.entries[bucket])-lost]
}

// Fail makes all reads fail until it is called with nil.
func (d *Database) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// AfterHeads has f called each time after the heads were read, before they are returned.
func (d *Database) AfterHeads(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = f
}

// Hang makes reads of the heads hang as long as their context allows.
func (d *Database) Hang(hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hangs = hangs
}

// TrimTo takes away the first changes of a bucket.
func (d *Database) TrimTo(bucket int, through int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trimmed[bucket] = max(d.trimmed[bucket], min(through, int64(len(d.entries[bucket]))))
}

func (d *Database) query() (unlock func(), err error) {
	d.mu.Lock()
	d.queries++
	return d.mu.Unlock, d.err
}

// Asked returns how many reads there were since it was called before.
func (d *Database) Asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.queries
	d.queries = 0
	return n
}

func (d *Database) heads() (p mirror.Position) {
	for bucket := range p {
		p[bucket] = int64(len(d.entries[bucket]))
	}
	return p
}

// Heads is that of [store.Feed].
func (d *Database) Heads(ctx context.Context) (mirror.Position, error) {
	unlock, err := d.query()
	heads, hangs, after := d.heads(), d.hangs, d.after
	unlock()
	if hangs {
		<-ctx.Done()
		return heads, ctx.Err()
	}
	if after != nil {
		after()
	}
	return heads, err
}

// Earliest is that of [store.Feed].
func (d *Database) Earliest(context.Context) (mirror.Position, error) {
	unlock, err := d.query()
	defer unlock()
	return d.trimmed, err
}

// Changes is that of [store.Feed].
func (d *Database) Changes(_ context.Context, ranges []store.ChangeRange) (out []mirror.Change, err error) {
	unlock, err := d.query()
	defer unlock()
	for _, r := range ranges {
		for n := max(r.After, d.trimmed[r.Bucket]); n < min(r.To, int64(len(d.entries[r.Bucket])-d.Lag)); n++ {
			out = append(out, d.entries[r.Bucket][n])
		}
	}
	return out, err
}

// Live returns the last change of each resource that was not deleted since, whatever its room
// is, in the order of keys and without times.
func (d *Database) Live() []mirror.Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(d.last(), func(c mirror.Change) bool { return c.Kind == mirror.ChangeDeleted })
}

func (d *Database) last() []mirror.Change {
	last := make(map[mirror.Resource]mirror.Change)
	for bucket := range d.entries {
		for _, c := range d.entries[bucket] {
			c.CommitTime = time.Time{}
			last[c.Resource] = c
		}
	}
	return slices.SortedFunc(maps.Values(last), func(a, b mirror.Change) int { return compare(a.Resource, b.Resource) })
}

func compare(a, b mirror.Resource) int {
	return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
}

// HangCopies makes the lists of copies hang as long as their context allows.
func (d *Database) HangCopies(hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hangsCopies = hangs
}

// Hanging returns how many lists of copies hang.
func (d *Database) Hanging() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hanging
}

// Copies is that of [store.Feed].
func (d *Database) Copies(ctx context.Context, f store.CopyFilter) (page store.CopyPage, err error) {
	unlock, err := d.query()
	if d.hangsCopies {
		d.hanging++
		unlock()
		<-ctx.Done()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.hanging--
		return page, ctx.Err()
	}
	defer unlock()
	documents := []mirror.Kind{mirror.KindStorage, mirror.KindYdoc}
	looked := 0
	for _, c := range d.last() {
		r := c.Resource
		kind := r.Kind == f.Kind || slices.Contains(documents, r.Kind) && slices.Contains(documents, f.Kind)
		after := f.AfterRoom == "" && f.AfterID == "" ||
			compare(r, mirror.Resource{Room: f.AfterRoom, Kind: f.Kind, ID: f.AfterID}) > 0
		if r.Project != f.Project || !kind || !f.Rooms.Select(r.Room) || f.Room != "" && r.Room != f.Room || !after {
			continue
		}
		if c.Kind == mirror.ChangeUpserted {
			page.Copies = append(page.Copies, c)
		}
		page.Last = r
		if looked++; looked == f.Limit {
			page.More = true
			break
		}
	}
	return page, err
}

// Trim is not used; see [Database.TrimTo].
func (d *Database) Trim(context.Context, int16, int64, int) (int, error) {
	return 0, errors.New("not used")
}

// Project returns a project with the identity of its feed.
func (d *Database) Project(_ context.Context, project mirror.ProjectID) (mirror.Project, error) {
	unlock, err := d.query()
	defer unlock()
	return mirror.Project{ID: project, Feed: d.feeds[project]}, err
}

// Forget takes the identities of all feeds away.
func (d *Database) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.feeds)
}

// IdentifyFeed is that of [store.Projects].
func (d *Database) IdentifyFeed(_ context.Context, project mirror.ProjectID, identity [16]byte) ([16]byte, error) {
	unlock, err := d.query()
	defer unlock()
	if d.feeds == nil {
		d.feeds = make(map[mirror.ProjectID][16]byte)
	}
	if _, ok := d.feeds[project]; !ok {
		d.feeds[project] = identity
	}
	return d.feeds[project], err
}
