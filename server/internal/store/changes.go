package store

import "github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"

// WithoutGaps returns the entries of a bucket up to the first number that is missing
// after the number after. The rest waits for a later read.
//
// Numbers are given in commit order, but a read need not see commits in that order:
// MariaDB collects the transactions that are running one by one. If two commit meanwhile,
// the second after waiting for the first, it can take the first for running and the
// second for committed.
func WithoutGaps(after int64, entries []mirror.Change) []mirror.Change {
	for i, entry := range entries {
		if entry.Number != after+1 {
			return entries[:i]
		}
		after = entry.Number
	}
	return entries
}
