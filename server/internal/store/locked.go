package store

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// How long Accept waits for a row that another session has locked: first with the
// whole batch, which covers every commit that is about to end, and then with each
// part of it, only to find out which deliveries need the row.
const (
	LockWait = 100 * time.Millisecond
	lockPeek = 10 * time.Millisecond
)

// Errors of the function that AcceptUnlocked calls.
var (
	// ErrLocked: another session has locked a row that the deliveries need. Nothing
	// was written, and nothing stays locked.
	ErrLocked = errors.New("store: a row is locked")
	// ErrEventLocked: the row is not that of a state but that of an event, which
	// another session is recording.
	ErrEventLocked = errors.New("store: an event is locked")
)

// AcceptUnlocked records those deliveries of a batch that need no locked row, and
// reports the others as [Accepted.Locked]. accept records deliveries in one
// transaction, or fails with ErrLocked or ErrEventLocked after it has waited for a
// row for about as long as it is told.
//
// It divides a batch that meets a locked row until it knows the deliveries that need
// it. Those that invalidate the same resources stay together: if a state is locked,
// they need it as well.
func AcceptUnlocked(
	batch []mirror.Delivery, accept func(part []mirror.Delivery, wait time.Duration) ([]Accepted, error),
) ([]Accepted, error) {
	answers, err := accept(batch, LockWait)
	if err == nil || !locked(err) {
		return answers, err
	}
	places := make([]int, len(batch))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return compareNeeds(&batch[a], &batch[b]) })
	answers = make([]Accepted, len(batch))
	var divide func(places []int, err error) error
	try := func(places []int) error {
		part := make([]mirror.Delivery, len(places))
		for i, place := range places {
			part[i] = batch[place]
		}
		got, err := accept(part, lockPeek)
		if err != nil {
			return divide(places, err)
		}
		for i, place := range places {
			answers[place] = got[i]
		}
		return nil
	}
	divide = func(places []int, err error) error {
		alike := compareNeeds(&batch[places[0]], &batch[places[len(places)-1]]) == 0 // they are sorted
		switch {
		case !locked(err):
			return err
		case len(places) == 1, alike && errors.Is(err, ErrLocked):
			for _, place := range places {
				answers[place] = Accepted{Locked: true}
			}
			return nil
		}
		half := len(places) / 2
		if err := try(places[:half]); err != nil {
			return err
		}
		return try(places[half:])
	}
	if err := divide(places, err); err != nil {
		return nil, err
	}
	return answers, nil
}

func locked(err error) bool { return errors.Is(err, ErrLocked) || errors.Is(err, ErrEventLocked) }

// compareNeeds orders deliveries by the resources that they invalidate.
func compareNeeds(a, b *mirror.Delivery) int {
	return slices.CompareFunc(a.Invalidations, b.Invalidations, func(a, b mirror.Invalidation) int {
		return cmp.Or(a.Resource.Compare(b.Resource), cmp.Compare(flag(a.IfUnknown), flag(b.IfUnknown)))
	})
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
