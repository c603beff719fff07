package ledger

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func eventOf(project string, room int) []byte {
	return fmt.Appendf(nil, `{"type":"storageUpdated","data":{"projectId":%q,"roomId":"room-%d"}}`, project, room)
}

func roomNamed(room int) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(fmt.Sprintf("room-%d", room)), Kind: mirror.KindRoom}
}

// outcome delivers an event and returns what became of it.
func (b *bench) outcome(l *Ledger, id string, body []byte) mirror.Outcome {
	b.Helper()
	got := <-b.receive(b.Context(), l, id, body)
	if got.err != nil {
		b.Fatalf("answer to %s = %v", id, got.err)
	}
	return got.receipt.Outcome
}

func (b *bench) wantOutcome(l *Ledger, id string, body []byte, want mirror.Outcome) {
	b.Helper()
	if got := b.outcome(l, id, body); got != want {
		b.Fatalf("outcome of %s = %s; want %s", id, got, want)
	}
}

// prove delivers an event of project 6605 and has a fetch show its room.
func (b *bench) prove(l *Ledger) {
	b.Helper()
	b.wantOutcome(l, "msg_proof", eventOf("6605", 0), mirror.OutcomeQueued)
	l.Shown(b.Context(), roomNamed(0))
	if got := b.events.pinned[project]; got != "6605" {
		b.Fatalf("pinned = %q; want the project of the event", got)
	}
}

// Until a fetch has shown what an event names, events of every project are worked.
func TestOnlyAFetchPinsTheProject(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.wantOutcome(l, "msg_example", eventOf("my-project-id", 99), mirror.OutcomeQueued)
		b.wantOutcome(l, "msg_1", eventOf("6605", 1), mirror.OutcomeQueued)
		b.wantOutcome(l, "msg_2", eventOf("6605", 2), mirror.OutcomeQueued)
		// Neither is what was not named, nor something else of that name.
		notification := roomNamed(1)
		notification.Kind = mirror.KindNotification
		for _, r := range []mirror.Resource{roomNamed(3), notification} {
			l.Shown(b.Context(), r)
		}
		if got := b.events.pinned[project]; got != "" {
			b.Fatalf("pinned = %q; want none yet", got)
		}
		l.Shown(b.Context(), roomNamed(2))
		l.Shown(b.Context(), roomNamed(1))
		if got := b.events.pinned[project]; got != "6605" {
			b.Fatalf("pinned = %q; want the project of the room that was shown", got)
		}
		b.wantOutcome(l, "msg_3", eventOf("6605", 3), mirror.OutcomeQueued)
		b.wantOutcome(l, "msg_4", eventOf("my-project-id", 99), mirror.OutcomeForeignProject)
	})
}

// A notification that is in no room proves the project too.
func TestNotificationPinsTheProject(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		body := []byte(`{"type":"notification","data":{"projectId":"6605","roomId":null,"kind":"$x","channel":"email",` +
			`"userId":"u","inboxNotificationId":"in_1"}}`)
		b.wantOutcome(l, "msg_1", body, mirror.OutcomeQueued)
		l.Shown(b.Context(), mirror.Resource{Project: project, Kind: mirror.KindNotification, ID: "in_1"})
		if got := b.events.pinned[project]; got != "6605" {
			b.Fatalf("pinned = %q; want the project of the notification", got)
		}
	})
}

func TestForeignProjectIsRecordedAndLeadsToNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.prove(l)
		foreign := eventOf("other", 1)
		for i := range 2 {
			got := <-b.receive(b.Context(), l, "msg_foreign", foreign)
			if got.err != nil || got.receipt.Outcome != mirror.OutcomeForeignProject || got.receipt.Duplicate != (i == 1) {
				b.Fatalf("answer to a foreign event = %+v, %v; want it recorded as foreign", got.receipt, got.err)
			}
		}
		b.wantOutcome(l, "msg_foreign_2", eventOf("third", 1), mirror.OutcomeForeignProject)
		// Events without a project are worked, old ones that have an appId too.
		b.wantOutcome(l, "msg_silent", []byte(`{"type":"storageUpdated","data":{"roomId":"room-1"}}`), mirror.OutcomeQueued)
		b.wantOutcome(l, "msg_old", []byte(`{"type":"storageUpdated","data":{"appId":"a","roomId":"room-1"}}`),
			mirror.OutcomeQueued)
		if a := b.events.stored["msg_foreign"]; len(a.Invalidations) != 0 || a.Event.LiveblocksProject != "other" ||
			!bytes.Equal(a.Event.Payload, foreign) {
			b.Fatalf("foreign event = %+v; want all of it and no invalidations", a)
		}
		want := Counts{Accepted: 5, Duplicate: 1, ForeignProject: 2}
		if got := l.Counts(); got != want {
			b.Fatalf("Counts = %+v; want %+v", got, want)
		}
		if got := strings.Join(b.events.foreign, ","); got != "other,third" {
			b.Fatalf("noted = %s; want each event once", got)
		}
		if n := strings.Count(b.log.String(), `"level":"ERROR"`); n != 1 {
			b.Fatalf("lines of level ERROR = %d; want one\n%s", n, &b.log)
		}
	})
}

// The pin of another replica, or of an earlier run, holds too.
func TestPinOfTheStoreHolds(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.events.pinned[project] = "pinned before"
		l, _ := b.start()
		b.wantOutcome(l, "msg_1", storageUpdated(1), mirror.OutcomeForeignProject)
	})
}

// The pin costs no query for each delivery, and is read again once in a while.
func TestPinIsReadSeldom(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.prove(l)
		b.wantAll(b.receiveMany(l, 0, 100), false)
		if b.events.pins != 1 {
			b.Fatalf("reads of the pin = %d; want one", b.events.pins)
		}
		time.Sleep(pinAge) //nolint:forbidigo // the bubble's clock, moved by hand
		b.wantAll(b.receiveMany(l, 100, 200), false)
		if b.events.pins != 2 {
			b.Fatalf("reads of the pin after a minute = %d; want one more", b.events.pins)
		}
	})
}

// An operator pins another project while a replica still knows the earlier one.
func TestReplicaFollowsANewPin(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.prove(l)
		b.events.pinned[project] = "other" // as another replica does
		b.wantOutcome(l, "msg_1", eventOf("other", 1), mirror.OutcomeQueued)
		if a := b.events.stored["msg_1"]; a.Event.Outcome != mirror.OutcomeQueued || len(b.pending) == 0 {
			b.Fatalf("event = %+v, pending %v; want it worked", a, b.pending)
		}
		b.wantOutcome(l, "msg_2", eventOf("6605", 1), mirror.OutcomeForeignProject)
	})
}

// What was erased of an event says no more what has changed, nor does its repeated delivery.
func TestErasedEventsAreNotTakenUp(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.prove(l)
		for i, id := range []string{"msg_erased", "msg_whole"} {
			b.wantOutcome(l, id, eventOf("other", i), mirror.OutcomeForeignProject)
		}
		b.events.erase("msg_erased", store.Purged)
		b.mu.Lock()
		b.pending = nil
		b.mu.Unlock()
		if got, err := l.Pin(b.Context(), project, "other"); err != nil || got != 1 {
			b.Fatalf("Pin = %d, %v; want one event taken up", got, err)
		}
		for _, p := range b.pending {
			if p.Resource.Room != "room-1" {
				b.Errorf("%+v is pending; want only what the other event names", p)
			}
		}
		if len(b.pending) == 0 {
			b.Error("nothing is pending; want what the other event names")
		}
		b.wantOutcome(l, "msg_erased", eventOf("other", 0), mirror.OutcomeForeignProject)
		if got := b.events.stored["msg_erased"].Event; string(got.Payload) != store.Purged ||
			got.Outcome != mirror.OutcomeForeignProject {
			b.Errorf("the repeated event = %+v; want it as it was", got)
		}
	})
}

func TestPinTakesUpWhatWasSetAside(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.prove(l)
		const n = 2*takeUpBatch + 5
		for i := range n {
			b.wantOutcome(l, fmt.Sprintf("msg_other_%d", i), eventOf("other", i), mirror.OutcomeForeignProject)
		}
		b.wantOutcome(l, "msg_third", eventOf("third", 1), mirror.OutcomeForeignProject)
		b.mu.Lock()
		b.pending = nil
		b.mu.Unlock()
		for _, want := range []int64{n, 0} { // it may be repeated
			if got, err := l.Pin(b.Context(), project, "other"); err != nil || got != want {
				b.Fatalf("Pin = %d, %v; want %d events taken up", got, err, want)
			}
		}
		if got := len(b.pending); got != 2*n { // each names its room and the document
			b.Fatalf("pending = %d; want what %d events name", got, n)
		}
		for id, d := range b.events.stored {
			foreign := strings.HasPrefix(id, "msg_third")
			if (d.Event.Outcome == mirror.OutcomeForeignProject) != foreign {
				b.Errorf("outcome of %s = %s", id, d.Event.Outcome)
			}
		}
		b.wantOutcome(l, "msg_late", eventOf("other", 1), mirror.OutcomeQueued)
		b.wantOutcome(l, "msg_early", eventOf("6605", 1), mirror.OutcomeForeignProject)
	})
}
