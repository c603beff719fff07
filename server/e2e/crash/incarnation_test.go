package crash_test

import (
	"bytes"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// awaitRoom waits until the mirror has the incarnation that the fake has, or
// the tombstone of none.
func (s *site) awaitRoom(id string) {
	s.t.Helper()
	s.senders.Wait()
	eventually(s.t, func() error {
		have, err := queryOne[[]byte](s,
			"select case when delete_time is null then source_json else '' end from mirror_room where room_id = ?", id)
		if err != nil {
			return err
		}
		source, _ := s.upstream.RoomSource(id)
		return unless(bytes.Equal(have, source), "room = %s; want %s", have, source)
	})
}

// Invariant 6: what was fetched from a room's earlier incarnation never applies
// to a later one, nor to the tombstone in between. The answer to a fetch is held
// until the room has changed its incarnation in the mirror as well.
func TestEarlierIncarnation(t *testing.T) {
	t.Parallel()
	const room = "room"
	first, old, later := document(1), document(2), document(3)
	remove := func(s *site) {
		s.t.Helper()
		if err := s.upstream.DeleteRoom(room); err != nil {
			s.t.Fatalf("DeleteRoom = %v", err)
		}
		s.awaitRoom(room)
	}
	create := func(s *site) {
		s.t.Helper()
		if err := s.upstream.RecreateRoom(room, fake.RoomOptions{Storage: later}); err != nil {
			s.t.Fatalf("RecreateRoom = %v", err)
		}
		s.awaitRoom(room)
	}
	release := func(s *site) {
		s.t.Helper()
		begun := s.proxy.executed("LockChild")
		s.released = time.Now()
		s.held.Release()
		// It is not the fetch that fails: its result comes to be written.
		eventually(s.t, func() error {
			return unless(s.proxy.executed("LockChild") > begun, "the old answer is not applied yet")
		})
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, c := range []struct {
			name  string
			steps []func(*site)
		}{
			{"created anew", []func(*site){create, release}},
			{"deleted and created anew", []func(*site){remove, create, release}},
			{"deleted, and created anew afterwards", []func(*site){remove, release, create}},
			{"deleted", []func(*site){remove, release}},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				service := s.start()
				s.create(room, first)
				s.converge(service)

				s.held = s.hold(room)
				next := s.hold(room) // nothing newer covers up what the old answer may do
				// Nor is the Yjs document's result taken for it, which is written in the same way.
				ydocs := fake.NewHold()
				t.Cleanup(ydocs.Release)
				s.upstream.Script(fake.Match{Room: room, Endpoint: fake.EndpointYdoc}, ydocs.Step().Times(4))
				if err := s.upstream.SetStorage(room, old); err != nil {
					t.Fatalf("SetStorage = %v", err)
				}
				s.awaitHeld(s.held, 1)
				client := service.Mirror(t)
				read := func(deleted bool) ([]byte, error) {
					resp, err := client.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{
						RoomId: room, ShowDeleted: deleted,
						Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON, View: mirrorv1.DocumentView_DOCUMENT_VIEW_FULL,
					})
					return resp.GetDocument().GetContent(), err
				}
				for _, step := range c.steps {
					step(s)
					if got, err := read(false); status.Code(err) != codes.NotFound {
						t.Fatalf("document = %s, %v; want none before that of the later incarnation", got, err)
					}
				}
				if _, exists := s.upstream.RoomSource(room); exists {
					s.awaitHeld(next, 1)
					if got, err := read(false); status.Code(err) != codes.NotFound {
						t.Fatalf("document = %s, %v; want none before that of the later incarnation", got, err)
					}
					next.Release()
				} else if got, err := read(true); err != nil || !bytes.Equal(got, first) {
					t.Fatalf("document of the tombstone = %s, %v; want the last one mirrored, %s", got, err, first)
				}
				ydocs.Release()
				s.converge(service)
				calls := s.fetches(room, fake.EndpointStorage)
				if !slices.ContainsFunc(calls, func(c fake.Call) bool {
					return c.Status == http.StatusOK && c.Begin.Before(s.released) && c.End.After(s.released)
				}) {
					t.Fatalf("fetches = %+v; want one that was held and then answered", calls)
				}
			})
		}
	})
}

// Rows of earlier incarnations are hidden, and deleted even if the process dies before
// it comes to that.
func TestKilledBeforeTheCleanUp(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const room = "room"
		s := newSite(t, e)
		service := s.start()
		s.create(room, document(1))
		if _, err := s.upstream.CreateThread(room,
			fake.ThreadOptions{ID: "th", Comment: fake.Comment{UserID: "u", Text: "of the earlier room"}}); err != nil {
			t.Fatalf("CreateThread = %v", err)
		}
		s.converge(service)
		old := func() int {
			return one[int](s, "select count(*) from mirror_thread t join mirror_room r "+
				"on r.bucket = t.bucket and r.project_id = t.project_id and r.room_id = t.room_id where t.epoch < r.epoch")
		}

		tr := s.proxy.set(beforeSend, "CleanDocuments")
		if err := s.upstream.RecreateRoom(room, fake.RoomOptions{Storage: document(2)}); err != nil {
			t.Fatalf("RecreateRoom = %v", err)
		}
		tr.await(t)
		if n := old(); n == 0 {
			t.Fatal("no row of the earlier incarnation is left before the clean-up")
		}
		s.kill(service)
		tr.cut()
		service = s.start()
		s.converge(service)
		if n := old(); n != 0 {
			t.Errorf("rows of the earlier incarnation = %d; want none", n)
		}
	})
}
