package ledger

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/named"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// hintInterval is the shortest time between two log lines of one kind about
// deliveries that are refused: anybody can send any number of them.
const hintInterval = time.Minute

// hints keeps log lines of one kind apart in time.
type hints struct {
	mu sync.Mutex
	// last is the time of the latest line about a reason.
	last map[fault.Reason]time.Time
}

// due reports whether another line may be written at now.
func (h *hints) due(reason fault.Reason, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last, ok := h.last[reason]; ok && now.Sub(last) < hintInterval {
		return false
	}
	if h.last == nil {
		h.last = make(map[fault.Reason]time.Time)
	}
	h.last[reason] = now
	return true
}

// Refused counts a delivery that is refused before Receive, and tells why.
func (l *Ledger) Refused(ctx context.Context, err error) { l.countFailure(ctx, err) }

// refused tells of a delivery that is not authentic. Only its sender sees the
// response, and a proxy or a wrong clock refuses all of them.
func (l *Ledger) refused(ctx context.Context, f *fault.Error) {
	late := f.Reason == fault.ReasonTimestampOutOfTolerance
	if late {
		l.counts.outOfTolerance.Add(1)
	}
	if !l.hints.due(f.Reason, l.cfg.Now()) {
		return
	}
	if late {
		l.cfg.Logger.ErrorContext(ctx, "rightly signed deliveries are refused because of their time; check the clock of "+
			"this machine", slog.String("problem", f.Public))
		return
	}
	l.cfg.Logger.WarnContext(ctx, "deliveries are refused", slog.String("reason", string(f.Reason)),
		slog.String("problem", f.Public), slog.Int64("refused_since_start", l.counts.unauthenticated.Load()))
}

// tellFirst tells that deliveries of a project arrive: whoever sets it up waits for that.
func (l *Ledger) tellFirst(ctx context.Context, project mirror.ProjectID) {
	if _, told := l.told.LoadOrStore(project, true); !told {
		l.cfg.Logger.InfoContext(ctx, "the first delivery since the start is recorded", inProject(project))
	}
}

// inProject names the project in the log.
func inProject(id mirror.ProjectID) slog.Attr { return slog.String("project", string(id)) }

// compare tells of a delivery that has the id of a recorded event and another body.
// Senders repeat an event byte for byte, so two different ones share an id. The one
// that was recorded stays.
func (l *Ledger) compare(ctx context.Context, sent mirror.Event) {
	recorded, err := l.cfg.Store.EventOf(ctx, sent.Project, sent.Room, sent.ID)
	if err != nil || string(recorded.Payload) == store.Purged || named.Replaced(sent.Payload, recorded.Payload) {
		return // that it is recorded is all that matters to the sender; some of it may be erased
	}
	l.counts.conflicting.Add(1)
	if l.hints.due(fault.ReasonEventIDInvalid, l.cfg.Now()) {
		l.cfg.Logger.WarnContext(ctx, "a delivery has the id of a recorded event but another body, and is not recorded",
			inProject(sent.Project), slog.String("event_id", sent.ID))
	}
}
