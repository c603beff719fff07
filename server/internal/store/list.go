package store

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The bounds of one transaction that writes items. The states of what it writes are
// locked meanwhile, and events about them wait. All others share the database with it.
const (
	// PieceRows is how many rows besides the head one transaction writes of one item,
	// if it can be more than one.
	PieceRows = 5000
	// listRows, listItems and listBytes bound what it writes of several items. Deliveries
	// are acknowledged later by up to as long as it takes.
	listRows  = 100
	listItems = 25
	listBytes = 256 << 10
	// PieceMarks is how many resources one transaction of a list marks stale.
	PieceMarks = 100
	// maxPause is the longest time between two transactions: one that has waited for a
	// lock has not used the database meanwhile.
	maxPause = time.Second
)

// pace leaves time to others between the transactions of one task: a long list takes
// longer, so that its webhooks and those of other rooms do not.
type pace struct{ since time.Time }

// pause waits as long as what was done since the last pause has taken. The first one
// does not wait.
func (p *pace) pause(ctx context.Context) error {
	var err error
	if !p.since.IsZero() {
		err = clock.Sleep(ctx, min(time.Since(p.since), maxPause))
	}
	p.since = time.Now()
	return err
}

// ImplausibleError is ErrImplausible with the numbers behind it.
type ImplausibleError struct {
	// Vanished counts the mirrored items that the list lacks, of Mirrored ones.
	Vanished, Mirrored int64
}

func (e *ImplausibleError) Error() string {
	return fmt.Sprintf("%v: %d of %d", ErrImplausible, e.Vanished, e.Mirrored)
}

// Is reports whether target is ErrImplausible.
func (e *ImplausibleError) Is(target error) bool { return target == ErrImplausible }

// Known is what is stored of an item before a list is applied.
type Known struct {
	// HasState means that the item has ever been heard of.
	HasState bool
	// Missing means that Liveblocks did not have it at its last fetch.
	Missing bool
	Copy    ItemCopy
}

// ListPlan is the plan for a list of items.
type ListPlan struct {
	// Unknown are the listed items without a state that the list stores, in key
	// order.
	Unknown []mirror.Listed
	// Stale are the resources that become stale, in key order.
	Stale []Stale
}

// PlanList decides about a list, given what is stored of the items, by id.
// ErrImplausible if the list lacks too many of a guarded kind.
func PlanList(kind *ItemKind, known map[string]Known, lease mirror.Lease, list mirror.List, now time.Time,
) (ListPlan, error) {
	listed := make(map[string]mirror.Listed, len(list.Items))
	for _, item := range list.Items {
		listed[item.ID] = item
	}
	var p ListPlan
	epoch := kind.Epoch(lease)
	var vanished, mirrored int64
	for _, id := range slices.Sorted(maps.Keys(known)) {
		k := known[id]
		if k.Copy.lives(epoch) {
			mirrored++
		}
		item, ok := listed[id]
		switch {
		case !k.HasState:
			continue
		case !ok && k.Copy.lives(epoch):
			vanished++
			p.mark(lease, id, true, now)
		case ok && (k.Missing || !SameItem(kind, k.Copy, lease, item.SHA256)):
			p.mark(lease, id, false, now)
		}
	}
	if kind.Guarded && vanished > list.Confirmed && TooManyVanished(vanished, mirrored) {
		return ListPlan{}, &ImplausibleError{Vanished: vanished, Mirrored: mirrored}
	}
	for _, id := range slices.Sorted(maps.Keys(listed)) {
		switch item := listed[id]; {
		case known[id].HasState:
		case kind.FromList && item.Source != nil:
			p.Unknown = append(p.Unknown, item)
		default:
			p.mark(lease, id, false, now)
		}
	}
	p.Stale = MergeStale(p.Stale)
	return p, nil
}

// mark adds that an item becomes stale, as urgently as the list.
func (p *ListPlan) mark(lease mirror.Lease, id string, unlisted bool, now time.Time) {
	r := lease.Resource
	r.ID = id
	p.Stale = append(p.Stale, Stale{Resource: r, Now: now, Deleted: unlisted, Background: lease.Background})
}

// PlanListed decides about the end of a list, with the last resources that it makes
// stale.
func PlanListed(s State, lease mirror.Lease, fetchTime time.Time, stale []Stale, now time.Time,
	settle time.Duration,
) Plan {
	return Plan{State: s.Succeed(lease, fetchTime, now, settle), Stale: stale}
}

// pieces collects items until one transaction has enough to write.
func pieces(items iter.Seq2[Item, error]) iter.Seq2[[]Item, error] {
	return func(yield func([]Item, error) bool) {
		var piece []Item
		var rows, size int
		for item, err := range items {
			if err != nil {
				yield(nil, err)
				return
			}
			n := item.size()
			if len(piece) > 0 && (len(piece) == listItems || rows+item.Rows() > listRows || size+n > listBytes) {
				if !yield(piece, nil) {
					return
				}
				piece, rows, size = nil, 0, 0
			}
			piece, rows, size = append(piece, item), rows+item.Rows(), size+n
		}
		if len(piece) > 0 {
			yield(piece, nil)
		}
	}
}

// size returns the length of the item's head in bytes.
func (i Item) size() (n int) {
	for _, v := range i.Head {
		if b, ok := v.([]byte); ok {
			n += len(b)
		}
	}
	return n
}

// ApplyList applies a list of items in pieces, each in its own transaction, with
// pauses, so that no event waits for a whole list. Items without a state are stored as
// listed; parse reads one from its source. An item whose copy differs becomes stale,
// and so does one that the list lacks, as after a delete event: only its own fetch
// shows its current state. An item that got a state since the list was fetched is left
// alone: it is about to be fetched.
//
// After a failure between two pieces the list is still due. What was stored stays.
func ApplyList(ctx context.Context, m Mirror, lease mirror.Lease, list mirror.List,
	parse func(source []byte) (Item, error), now func() time.Time, settle time.Duration,
) (mirror.Applied, error) {
	kind := ItemKindOf(lease.Resource)
	known, err := m.KnownItems(ctx, lease.Resource)
	if err != nil {
		return mirror.Applied{}, err
	}
	plan, err := PlanList(kind, known, lease, list, now())
	if err != nil {
		return mirror.Applied{}, err
	}
	clear(list.Items) // the plan holds what is still needed
	items := func(yield func(Item, error) bool) {
		for i := range plan.Unknown {
			source := plan.Unknown[i].Source
			plan.Unknown[i].Source = nil // let go of it once it is written
			item, err := parse(source)
			if err == nil && item.Rows() > PieceRows {
				plan.mark(lease, item.ID, false, now()) // too long to be stored with others
				continue
			}
			if !yield(item, err) {
				return
			}
		}
	}
	var added []mirror.Change
	var pace pace
	for piece, err := range pieces(items) {
		var changes []mirror.Change
		if err == nil {
			err = pace.pause(ctx)
		}
		if err == nil {
			changes, err = m.AddItems(ctx, lease, piece, list.FetchTime, now())
		}
		if err != nil {
			return mirror.Applied{}, err
		}
		added = append(added, changes...)
	}
	stale := MergeStale(plan.Stale)
	marked := 0
	for ; len(stale)-marked > PieceMarks; marked += PieceMarks {
		err := pace.pause(ctx)
		if err == nil {
			err = m.MarkListed(ctx, lease, stale[marked:marked+PieceMarks])
		}
		if err != nil {
			return mirror.Applied{}, err
		}
	}
	applied, err := m.ApplyListed(ctx, lease, list.FetchTime, stale[marked:], now(), settle)
	if err != nil {
		return mirror.Applied{}, err
	}
	applied.Changes = added
	if applied.Changed = len(added) > 0; applied.Changed {
		for _, item := range plan.Unknown {
			r := lease.Resource
			r.ID = item.ID
			applied.Added = append(applied.Added, r)
		}
	}
	for _, w := range stale {
		applied.AlsoDue = append(applied.AlsoDue, w.Resource)
	}
	return applied, nil
}

// WriteItem applies a fetched item. Of a long one it first writes what differs in
// pieces, each in its own transaction, with pauses, so that no event waits for all of
// it. Readers see the copy as stale until the last one.
func WriteItem(ctx context.Context, m Mirror, lease mirror.Lease, item Item, fetchTime time.Time,
	now func() time.Time, settle time.Duration,
) (mirror.Applied, error) {
	var pace pace
	for range item.Rows() / PieceRows {
		err, more := pace.pause(ctx), false
		if err == nil {
			more, err = m.PrepareItem(ctx, lease, &item)
		}
		if err != nil {
			return mirror.Applied{}, err
		}
		if !more {
			break
		}
	}
	return m.ApplyItem(ctx, lease, item, fetchTime, now(), settle)
}

// What one list lacks is believed to have vanished up to a share of what is
// mirrored, or a number where that is more. Beyond it, a wrong key or a broken list
// is likelier than that many deletions.
const (
	vanishedShare = 5 // one in so many
	vanishedLeast = 20
)

// TooManyVanished reports whether a list lacks more of what is mirrored than is
// believed at once.
func TooManyVanished(vanished, mirrored int64) bool {
	return vanished > max(vanishedLeast, mirrored/vanishedShare)
}
