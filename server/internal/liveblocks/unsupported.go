package liveblocks

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// kinds are what operations fetch, of those kinds that a server may lack. Without rooms
// and their list there would be nothing to mirror.
var kinds = map[string]mirror.Kind{
	"get storage":            mirror.KindStorage,
	"get ydoc":               mirror.KindYdoc,
	"get threads":            mirror.KindThread,
	"get thread":             mirror.KindThread,
	"get active users":       mirror.KindActiveUsers,
	"get inbox notification": mirror.KindNotification,
	"list groups":            mirror.KindGroup,
	"get group":              mirror.KindGroup,
}

// askAgain is how long a kind that the server does not have is not asked for. Then one
// call tells whether it has it by now.
const askAgain = time.Hour

// unsupported remembers the kinds that the server does not have, and until when.
type unsupported struct {
	mu    sync.Mutex
	until map[mirror.Kind]time.Time
}

// lacks reports whether the server is known not to have what the operation fetches.
// Once a while it lets one call find out.
func (u *unsupported) lacks(op string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	until, known := u.until[kinds[op]]
	if known && !time.Now().Before(until) {
		u.until[kinds[op]] = time.Now().Add(askAgain)
		return false
	}
	return known
}

// note remembers what a call has shown, and logs it once.
func (u *unsupported) note(ctx context.Context, log *slog.Logger, op string, r result) {
	kind, optional := kinds[op]
	if !optional || !r.answered() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	_, known := u.until[kind]
	switch {
	case r.outcome == outcomeUnsupported:
		if u.until == nil {
			u.until = make(map[mirror.Kind]time.Time)
		}
		u.until[kind] = time.Now().Add(askAgain)
		if !known {
			log.WarnContext(ctx, "this Liveblocks server does not have resources of this kind; they are not mirrored",
				slog.String("kind", kind.String()), slog.Int("status", r.status))
		}
	case known:
		delete(u.until, kind)
		log.InfoContext(ctx, "this Liveblocks server has resources of this kind now", slog.String("kind", kind.String()))
	}
}

// Unsupported returns the kinds that the server does not have.
func (c *Client) Unsupported() []mirror.Kind {
	c.unsupported.mu.Lock()
	defer c.unsupported.mu.Unlock()
	return slices.Sorted(maps.Keys(c.unsupported.until))
}
