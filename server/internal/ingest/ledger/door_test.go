package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// lines counts the log lines with a text.
func (b *bench) lines(text string) int {
	return strings.Count(b.log.String(), text)
}

// When the clock is wrong, every delivery is refused, and only senders would see it.
func TestWrongClockIsTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.cfg.Now = func() time.Time { return time.Now().Add(10 * time.Minute) }
		l, _ := b.start()
		const told = `"level":"ERROR","msg":"rightly signed deliveries are refused because of their time`
		for i := range 3 {
			body := storageUpdated(i)
			if _, err := l.Receive(b.Context(), "", signed(t, "msg_1", body), body); !fault.Is(err,
				fault.ReasonTimestampOutOfTolerance) {
				t.Fatalf("Receive = %v; want %s", err, fault.ReasonTimestampOutOfTolerance)
			}
		}
		if n := b.lines(told); n != 1 || !strings.Contains(b.log.String(), "600 s") {
			t.Errorf("log = %s; want the difference told once", b.log.String())
		}
		// Who cannot sign learns and causes nothing of it.
		forged := signed(t, "msg_1", storageUpdated(1))
		if _, err := l.Receive(b.Context(), "", forged, storageUpdated(2)); !fault.Is(err, fault.ReasonSignatureInvalid) {
			t.Errorf("Receive of a forged delivery = %v; want %s", err, fault.ReasonSignatureInvalid)
		}
		if c := l.Counts(); c.OutOfTolerance != 3 || c.Unauthenticated != 4 {
			t.Errorf("Counts = %+v; want 3 of 4 refused for their time", c)
		}
		time.Sleep(hintInterval) //nolint:forbidigo // the bubble's clock, moved by hand
		body := storageUpdated(1)
		if _, err := l.Receive(b.Context(), "", signed(t, "msg_2", body), body); err == nil {
			t.Error("Receive = nil; want an error")
		}
		if n := b.lines(told); n != 2 {
			t.Errorf("told %d times in two minutes; want 2", n)
		}
	})
}

// Whoever sets the service up waits for the first delivery.
func TestFirstDeliveryIsTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		for i := range 3 {
			body := storageUpdated(i)
			if _, err := l.Receive(b.Context(), "", signed(t, fmt.Sprint("msg_", i), body), body); err != nil {
				t.Fatalf("Receive = %v", err)
			}
		}
		const told = `"level":"INFO","msg":"the first delivery since the start is recorded"`
		if n := b.lines(told); n != 1 {
			t.Errorf("log = %s; want the first delivery told once", b.log.String())
		}
	})
}

func TestRefusalsAreTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		_, err := webhook.HeadersFrom(func(key string) []string {
			return map[string][]string{
				"webhook-id": {"a", "b"}, "webhook-timestamp": {"1"}, "webhook-signature": {"v1,x"},
			}[key]
		})
		for range 3 {
			l.Refused(b.Context(), err)
		}
		if n := b.lines(`"msg":"deliveries are refused"`); n != 1 || b.lines(`"refused_since_start":1`) != 1 || b.lines("header webhook-id is repeated") != 1 {
			t.Errorf("log = %s; want the reason once", b.log.String())
		}
		if c := l.Counts(); c.Unauthenticated != 3 {
			t.Errorf("Counts = %+v; want all counted", c)
		}
	})
}

// A delivery of which something was erased is the same, when it comes again.
func TestErasedBodies(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		body := []byte(`{"type":"storageUpdated","data":{"roomId":"room","updatedBy":"ann"}}`)
		for _, recorded := range []string{store.Purged, `{"type":"storageUpdated","data":{"roomId":"room","updatedBy":""}}`} {
			id := fmt.Sprint("msg_", len(recorded))
			for range 2 {
				if _, err := l.Receive(b.Context(), "", signed(t, id, body), body); err != nil {
					t.Fatalf("Receive = %v", err)
				}
				b.events.erase(id, recorded)
			}
		}
		if c := l.Counts(); c.Duplicate != 2 || c.Conflicting != 0 {
			t.Errorf("Counts = %+v; want two duplicates, none with another body", c)
		}
	})
}

// Two events with one id are told apart by their bodies. The first one stays.
func TestOneIDTwoBodies(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		for i, body := range [][]byte{storageUpdated(1), storageUpdated(1), storageUpdated(2), storageUpdated(2)} {
			receipt, err := l.Receive(b.Context(), "", signed(t, "msg_1", body), body)
			if err != nil || receipt.Duplicate != (i > 0) {
				t.Fatalf("Receive = %+v, %v; want a duplicate but for the first", receipt, err)
			}
		}
		if c := l.Counts(); c.Accepted != 1 || c.Duplicate != 3 || c.Conflicting != 2 {
			t.Errorf("Counts = %+v; want one accepted, and two of three duplicates with another body", c)
		}
		if n := b.lines("has the id of a recorded event but another body"); n != 1 || b.lines("room-2") != 0 {
			t.Errorf("log = %s; want it told once, without the body", b.log.String())
		}
		ev, err := b.events.Event(b.Context(), project, "msg_1")
		if err != nil || string(ev.Payload) != string(storageUpdated(1)) {
			t.Errorf("recorded = %s, %v; want the first", ev.Payload, err)
		}
	})
}
