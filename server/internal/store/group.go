package store

import (
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// groupEpoch is the only incarnation of a group: it is in no room. Otherwise groups
// follow the rules of threads.
const groupEpoch = 1

// GroupCopy says which copy of a group is stored, given its hash, nil if none is.
func GroupCopy(sum []byte, deleted bool) ThreadCopy {
	if sum == nil {
		return ThreadCopy{}
	}
	c := ThreadCopy{Epoch: groupEpoch, Deleted: deleted}
	copy(c.SHA256[:], sum)
	return c
}

// PlanGroup decides about a group that was fetched. It is written if there is a
// Change.
func PlanGroup(
	s State, stored ThreadCopy, lease mirror.Lease, content mirror.GroupContent, now time.Time, settle time.Duration,
) Plan {
	lease.Epoch = groupEpoch
	fetched := mirror.Thread{SHA256: content.Group.SHA256}
	return PlanThread(s, stored, lease, mirror.ThreadContent{FetchTime: content.FetchTime, Thread: fetched}, now, settle)
}

// PlanMissingGroup decides about the 404 of a group. A Change makes it a tombstone.
func PlanMissingGroup(s State, stored ThreadCopy, lease mirror.Lease, now time.Time, settle time.Duration) Plan {
	lease.Epoch = groupEpoch
	return PlanMissingThread(s, stored, lease, now, settle)
}

// PlanGroups decides about the list of all groups, given the states of all of them
// and of the list itself, and which copies are stored, by group id. ErrImplausible
// if the list lacks too many of them.
func PlanGroups(
	states map[string]State, copies map[string]ThreadCopy, lease mirror.Lease, list mirror.GroupList, now time.Time,
) (Plan, error) {
	lease.Epoch = groupEpoch
	listed := mirror.ThreadList{FetchTime: list.FetchTime}
	for _, g := range list.Groups {
		listed.Threads = append(listed.Threads, mirror.Thread{ID: g.ID, SHA256: g.SHA256})
	}
	p := PlanThreads(states, copies, lease, listed, false, now, 0).Plan
	var vanished, mirrored int64
	for _, w := range p.Stale {
		if w.Deleted {
			vanished++
		}
	}
	for _, c := range copies {
		if c.lives(groupEpoch) {
			mirrored++
		}
	}
	if TooManyVanished(vanished, mirrored) {
		return Plan{}, ErrImplausible
	}
	return p, nil
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
