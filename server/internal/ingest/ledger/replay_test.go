package ledger

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// replay replays and returns the last report.
func (b *bench) replay(l *Ledger, r Replay) (last Replayed, reports int) {
	b.Helper()
	r.Filter.Project = project
	traced := trace.ContextWithSpanContext(b.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	err := l.Replay(traced, r, func(d Replayed) error { last, reports = d, reports+1; return nil })
	if err != nil {
		b.Fatalf("Replay = %v", err)
	}
	last.LastTime, last.LastID = time.Time{}, ""
	return last, reports
}

func TestReplay(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.prove(l)
		const n = 2*replayBatch + 5
		for i := range n {
			time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock, moved by hand
			b.wantOutcome(l, fmt.Sprintf("msg_%d", i), eventOf("6605", i), mirror.OutcomeQueued)
		}
		b.wantOutcome(l, "msg_other", eventOf("other", 1), mirror.OutcomeForeignProject)
		b.wantOutcome(l, "msg_malformed", []byte(`{`), mirror.OutcomeMalformed)
		b.events.mu.Lock()
		purged := b.events.stored["msg_0"]
		purged.Event.Payload = []byte(store.Purged)
		b.events.stored["msg_0"] = purged
		b.events.mu.Unlock()

		whole := Replay{Filter: store.EventFilter{Limit: 1000}, DryRun: true}
		want := Replayed{Read: n + 3, Replayed: n, Skipped: 2} // with that of prove
		if got, _ := b.replay(l, whole); got != want || b.events.replays != nil || b.replayed != nil {
			b.Fatalf("dry run = %+v, replays %v; want %+v and none", got, b.events.replays, want)
		}
		whole.DryRun = false
		got, reports := b.replay(l, whole)
		if got != want || reports != 3 || len(b.replayed) != 2*n || slices.Max(b.events.replays) > replayBatch {
			b.Fatalf("Replay = %+v in %d parts, replays %v, %d pending; want %+v", got, reports, b.events.replays,
				len(b.replayed), want)
		}
		// A part of them, and the rest after it.
		part := Replay{Filter: store.EventFilter{Limit: replayBatch + 1}}
		part.Filter.Project = project
		if err := l.Replay(b.Context(), part, func(d Replayed) error { got = d; return nil }); err != nil ||
			got.Read != replayBatch+1 || !got.Left {
			b.Fatalf("Replay of a part = %+v, %v; want %d events, and more left", got, err, replayBatch+1)
		}
		whole.Filter.AfterTime, whole.Filter.AfterID = got.LastTime, got.LastID
		if got, _ := b.replay(l, whole); got.Read != n+3-replayBatch-1 {
			b.Fatalf("Replay of the rest = %+v", got)
		}
		// Of some rooms all are looked for at once: each look reads all that are in them.
		ofRooms := Replay{Filter: store.EventFilter{Limit: 1000, Rooms: store.Prefixes{
			"room-1", "room-2", "room-3", "room-4", "room-5",
		}}}
		seen := int64(0)
		for _, d := range b.events.stored {
			if ofRooms.Filter.Rooms.Select(d.Event.Room) {
				seen++
			}
		}
		looks := b.events.looks
		want = Replayed{Read: seen, Replayed: seen - 1, Skipped: 1}
		if got, reports := b.replay(l, ofRooms); got != want || seen <= replayBatch || reports < 2 ||
			b.events.looks != looks+1 {
			b.Fatalf("Replay of some rooms = %+v in %d parts and %d looks; want %d events by one look", got, reports,
				b.events.looks-looks, seen)
		}
		ofRooms.Filter.Limit = replayBatch + 1
		if got, _ := b.replay(l, ofRooms); got.Read != replayBatch+1 || !got.Left {
			b.Fatalf("Replay of a part of some rooms = %+v; want %d events, and more left", got, replayBatch+1)
		}
		ofRooms.Filter.Rooms = store.Prefixes{}
		if got, reports := b.replay(l, ofRooms); got != (Replayed{}) || reports != 1 {
			b.Fatalf("Replay of no room = %+v in %d parts; want nothing", got, reports)
		}
		// Each by its id, of the rooms that are seen.
		byID := Replay{IDs: []string{"msg_1", "msg_2", "msg_other"}}
		if got, _ := b.replay(l, byID); got != (Replayed{Read: 3, Replayed: 2, Skipped: 1}) {
			b.Fatalf("Replay by id = %+v", got)
		}
		b.events.erasing = "msg_1"
		if got, _ := b.replay(l, byID); got != (Replayed{Read: 3, Replayed: 1, Skipped: 2}) {
			b.Fatalf("Replay of an event that is erased meanwhile = %+v", got)
		}
		before := len(b.events.replays)
		for _, bad := range []Replay{
			{IDs: []string{"msg_1", "msg_unknown"}},
			{IDs: []string{"msg_1", "msg_2"}, Filter: store.EventFilter{Rooms: store.Prefixes{"room-1"}}},
		} {
			err := l.Replay(b.Context(), bad, func(Replayed) error { return errors.New("reported") })
			if !fault.Is(err, fault.ReasonEventNotFound) {
				b.Fatalf("Replay(%v) = %v; want EVENT_NOT_FOUND", bad.IDs, err)
			}
		}
		if len(b.events.replays) != before {
			b.Fatal("something was replayed although an event is not there")
		}
	})
}

func TestUnpin(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.prove(l)
		b.wantOutcome(l, "msg_1", eventOf("other", 1), mirror.OutcomeForeignProject)
		if was, err := l.Unpin(b.Context(), project); err != nil || was != "6605" {
			b.Fatalf("Unpin = %q, %v; want what was pinned", was, err)
		}
		b.wantOutcome(l, "msg_2", eventOf("other", 2), mirror.OutcomeQueued)
		b.wantOutcome(l, "msg_3", eventOf("6605", 3), mirror.OutcomeQueued)
		l.Shown(b.Context(), roomNamed(2))
		if got := b.events.pinned[project]; got != "other" {
			b.Fatalf("pinned = %q; want the project of what was shown", got)
		}
	})
}
