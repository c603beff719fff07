package blackbox_test

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// With ack=synced a delivery is answered after what it changed is in the database; if
// that cannot be had from Liveblocks, the answer is 503 and the event recorded.
func TestAckSynced(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, upstream := startOn(t, url, map[string]string{"MIRROR_ACK": "synced", "MIRROR_MAX_ATTEMPTS": "3"})
		db := e.Connect(t, url)
		// value is what the table of the guides has.
		value := func(room string) int {
			t.Helper()
			return count(t, db, "select "+e.JSON("data", "v")+" from "+guides(t, db)+" where room_id = ?", room)
		}
		if err := upstream.CreateRoom("room", fake.RoomOptions{Storage: storage("0")}); err != nil {
			t.Fatal(err)
		}
		tell(t, s, fake.RoomCreated, "room")
		for n := range 10 {
			if err := upstream.SetStorage("room", storage(strconv.Itoa(n))); err != nil {
				t.Fatal(err)
			}
			tell(t, s, fake.StorageUpdated, "room")
			// No waiting: the answer has said that it is there.
			if got := value("room"); got != n {
				t.Errorf("after the answer to edit %d the table has edit %d", n, got)
			}
		}

		// A delivery that overtook the room's creation is as good as one in order.
		if err := upstream.CreateRoom("new", fake.RoomOptions{Storage: storage("7")}); err != nil {
			t.Fatal(err)
		}
		tell(t, s, fake.StorageUpdated, "new")
		if got := value("new"); got != 7 {
			t.Errorf("after the answer the new room's document has %d; want 7", got)
		}

		// Liveblocks fails, for this room only.
		upstream.Script(fake.Match{Room: "room", Endpoint: fake.EndpointStorage},
			fake.Status(http.StatusInternalServerError, "BROKEN").Always())
		if err := upstream.SetStorage("room", storage("100")); err != nil {
			t.Fatal(err)
		}
		ev := fake.Event{Type: fake.StorageUpdated, RoomID: "room", Time: time.Now()}
		d := harness.SignEvent(t, ev)
		failed := send(t, http.MethodPost, s.URL("/api/liveblocks-webhook"), d.Header, bytes.NewReader(d.Body))
		if failed.status != http.StatusServiceUnavailable || failed.reason() != "SYNC_FAILED" ||
			failed.header.Get("Retry-After") == "" {
			t.Errorf("delivery whose fetch fails: %d %v %s; want 503 SYNC_FAILED with Retry-After", failed.status,
				failed.header, failed.body)
		}
		if n := count(t, db, "select count(*) from mirror_event where event_id = ?", d.ID); n != 1 {
			t.Errorf("the delivery answered 503 was recorded %d times; want once", n)
		}
		tell(t, s, fake.StorageUpdated, "new") // nobody else is held up

		// The sender tries the same delivery again, as it does after a 503; that has to
		// start the failed task again, since no other event may ever come.
		again := send(t, http.MethodPost, s.URL("/api/liveblocks-webhook"), d.Header, bytes.NewReader(d.Body))
		if again.status != http.StatusServiceUnavailable {
			t.Errorf("the same delivery while Liveblocks still fails: %d %s; want 503", again.status, again.body)
		}
		upstream.ClearScripts()
		again = send(t, http.MethodPost, s.URL("/api/liveblocks-webhook"), d.Header, bytes.NewReader(d.Body))
		if again.status != http.StatusOK || !bytes.Contains(again.body, []byte(`"duplicate":true`)) {
			t.Errorf("the same delivery after Liveblocks is back: %d %s; want 200 for a duplicate", again.status, again.body)
		}
		if got := value("room"); got != 100 {
			t.Errorf("after the second answer the table has %d; want 100", got)
		}
	})
}

// With ack=durable a delivery is answered whatever Liveblocks does, and soon.
func TestAckDurable(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, nil)
	hold := fake.NewHold()
	t.Cleanup(hold.Release)
	upstream.Script(fake.Match{}, hold.Step().Always())
	if err := upstream.CreateRoom("held", fake.RoomOptions{Storage: storage("1")}); err != nil {
		t.Fatal(err)
	}
	tell(t, s, fake.RoomCreated, "held")
	<-hold.Arrived() // the fetch is under way, and the answer did not wait for it
	tell(t, s, fake.StorageUpdated, "held")
	if status, _, _ := s.Get(t, roomPath("held", "")); status != http.StatusNotFound {
		t.Errorf("a room that is being fetched answers %d; want 404", status)
	}
	hold.Release()
	awaitStorage(t, s, "held", storage("1"))
}

// How old an answer may be is the caller's choice, and what cannot be had is told.
func TestFreshReads(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, map[string]string{"MIRROR_MAX_ATTEMPTS": "2", "MIRROR_LIVEBLOCKS_PROBE_MIN": "100ms"})
	create(t, s, upstream, "room", fake.RoomOptions{Storage: storage("1")})
	awaitStorage(t, s, "room", storage("1"))
	awaitIdle(t, s)
	mirror := s.Mirror(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	read := func(age time.Duration, require bool) (*mirrorv1.Document, error) {
		resp, err := mirror.GetStorageDocument(ctx, &mirrorv1.GetStorageDocumentRequest{
			RoomId: "room", Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON,
			MaxAge: durationpb.New(age), RequireFresh: require,
		})
		return resp.GetDocument(), err
	}
	fetches := func() int { return upstream.Calls("room", fake.EndpointStorage) }

	// It changes at Liveblocks, and no webhook tells of it.
	if err := upstream.SetStorage("room", storage("2")); err != nil {
		t.Fatal(err)
	}
	before := fetches()
	if doc, err := read(time.Hour, true); err != nil || string(doc.GetContent()) != string(storage("1")) ||
		fetches() != before {
		t.Errorf("read that takes an hour old = %v, %v after %d fetches; want the copy and no fetch", doc, err,
			fetches()-before)
	}
	asked := time.Now()
	doc, err := read(0, true)
	if err != nil || string(doc.GetContent()) != string(storage("2")) || doc.GetFreshness().GetStale() {
		t.Errorf("read that takes nothing old = %v, %v; want the new document", doc, err)
	}
	if at := doc.GetFreshness().GetFetchTime().AsTime(); at.Before(asked.Truncate(time.Microsecond)) {
		t.Errorf("the fresh copy was fetched at %s, before it was asked for at %s", at, asked)
	}
	// A room that was never heard of can be read as well.
	if err := upstream.CreateRoom("unheard", fake.RoomOptions{Storage: storage("3")}); err != nil {
		t.Fatal(err)
	}
	if _, err := mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{
		RoomId: "unheard", MaxAge: durationpb.New(0),
		RequireFresh: true,
	}); err != nil {
		t.Errorf("read of a room without any event = %v", err)
	}
	// The same over HTTP.
	if err := upstream.SetStorage("room", storage("4")); err != nil {
		t.Fatal(err)
	}
	if code, _, body := s.Get(t,
		roomPath("room", "/storage:read?format=plain-lson&maxAge=0s&requireFresh=true")); code != http.StatusOK ||
		string(body) != string(storage("4")) {
		t.Errorf("fresh read over HTTP = %d %s", code, body)
	}

	// Liveblocks fails: the copy says that it is stale, or there is no answer.
	upstream.Script(fake.Match{Endpoint: fake.EndpointStorage},
		fake.Status(http.StatusInternalServerError, "BROKEN").Always())
	if err := upstream.SetStorage("room", storage("5")); err != nil {
		t.Fatal(err)
	}
	tell(t, s, fake.StorageUpdated, "room")
	if doc, err := read(time.Hour, false); err != nil || string(doc.GetContent()) != string(storage("4")) ||
		!doc.GetFreshness().GetStale() {
		t.Errorf("read while Liveblocks fails = %v, %v; want the old copy, marked stale", doc, err)
	}
	if _, err := read(time.Hour, true); status.Code(err) != codes.Unavailable || reasonOf(err) != "REFRESH_FAILED" {
		t.Errorf("read that insists while Liveblocks fails = %v; want UNAVAILABLE REFRESH_FAILED", err)
	}
	if code, header, body := s.Get(t,
		roomPath("room", "/storage:read?maxAge=0s&requireFresh=true")); code != http.StatusServiceUnavailable ||
		header.Get("Retry-After") == "" {
		t.Errorf("read that insists over HTTP = %d %v %s; want 503 with Retry-After", code, header, body)
	}

	// It works again.
	upstream.ClearScripts()
	if doc, err := read(0, true); err != nil || string(doc.GetContent()) != string(storage("5")) ||
		doc.GetFreshness().GetStale() {
		t.Errorf("read after Liveblocks is back = %v, %v; want the new document", doc, err)
	}

	// The key is refused: the project is paused, and that is what is told, without
	// waiting for the deadline.
	upstream.SetSecret("sk_another")
	asked = time.Now()
	if doc, err := read(0, false); err != nil || string(doc.GetContent()) != string(storage("5")) {
		t.Errorf("read while paused = %v, %v; want the copy", doc, err)
	}
	if _, err := read(0, true); status.Code(err) != codes.Unavailable || reasonOf(err) != "PROJECT_PAUSED" {
		t.Errorf("read that insists while paused = %v; want UNAVAILABLE PROJECT_PAUSED", err)
	}
	if took := time.Since(asked); took > patience/2 {
		t.Errorf("the reads while paused took %s; want them to give up at once", took)
	}
	upstream.SetSecret(harness.SecretKey)
	harness.Eventually(t, patience, func() error {
		_, err := read(0, true)
		return err
	})
}
