package blackbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// deliverAs sends the webhook of an event as a project of Liveblocks and returns the
// outcome.
func deliverAs(t testing.TB, s *harness.Service, project string, ev fake.Event) string {
	t.Helper()
	d := harness.Sign(t, fake.Payload(ev, project))
	if status := s.Post(t, d); status != http.StatusOK {
		t.Fatalf("webhook %s of room %q answered %d; want 200", ev.Type, ev.RoomID, status)
	}
	_, _, body := s.Get(t, "/v1/events/"+d.ID)
	var got struct {
		Event struct {
			Outcome string `json:"outcome"`
		} `json:"event"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("event = %s: %v", body, err)
	}
	return got.Event.Outcome
}

func projectStatus(t testing.TB, s *harness.Service) *mirrorv1.ProjectStatus {
	t.Helper()
	got, err := s.Admin(t).GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
	if err != nil {
		t.Fatalf("GetStatus = %v", err)
	}
	return got.GetProjects()[0]
}

// What people send first is the example event of the dashboard, whose project and room
// are made up. It must not decide whose events are believed.
func TestExampleEventPinsNothing(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		populate(t, upstream, "real-1")
		s := harness.Start(t, harness.Options{
			DatabaseURL: e.Database(t), UpstreamURL: upstream.URL,
			Env: map[string]string{"MIRROR_SWEEP_INTERVAL": "24h", "MIRROR_FULL_SWEEP_INTERVAL": "24h"},
		})
		awaitStorage(t, s, "real-1", storage(`"real-1"`))
		awaitIdle(t, s, mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP)

		deliverAs(t, s, "my-project-id", fake.Event{Type: fake.StorageUpdated, RoomID: "my-room-id", Time: time.Now()})
		if err := upstream.SetStorage("real-1", storage("1")); err != nil {
			t.Fatal(err)
		}
		ours := harness.LiveblocksProject
		for _, ev := range []fake.Event{
			{Type: fake.StorageUpdated, RoomID: "real-1", Time: time.Now()},
			{Type: fake.UserEntered, RoomID: "real-1", UserID: "alice", ConnectionID: 1, Time: time.Now()},
		} {
			if got := deliverAs(t, s, ours, ev); got != "queued" {
				t.Errorf("outcome of %s = %s; want it worked", ev.Type, got)
			}
		}
		awaitStorage(t, s, "real-1", storage("1"))
		harness.Eventually(t, patience, func() error {
			if got := projectStatus(t, s).GetLiveblocksProjectId(); got != ours {
				return fmt.Errorf("pinned project = %q; want %q", got, ours)
			}
			return nil
		})
		// From now on another project's events are set aside, and that is told.
		if got := deliverAs(t, s, "other", fake.Event{
			Type: fake.StorageUpdated, RoomID: "real-1", Time: time.Now(),
		}); got != "foreign-project" {
			t.Errorf("outcome of another project's event = %s; want it set aside", got)
		}
		if n := strings.Count(s.Log(), "level=ERROR"); n != 1 {
			t.Errorf("lines of level ERROR = %d; want one that tells of the other project\n%s", n, s.Log())
		}
		status := projectStatus(t, s)
		if got := status.GetForeignEvents(); got.GetEventCount() != 1 || got.GetLiveblocksProjectId() != "other" ||
			len(status.GetProblems()) != 1 || !strings.Contains(status.GetProblems()[0], `"other"`) {
			t.Errorf("status = %v; want it to tell of the other project", status)
		}
	})
}

// An operator pins another project: what was set aside is worked, sessions included,
// and a second replica follows without a restart.
func TestProjectIsPinnedAnew(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		populate(t, upstream, "real-1", "example")
		url := e.Database(t)
		options := harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL}
		s := harness.Start(t, options)
		other := harness.Start(t, options)
		for _, replica := range []*harness.Service{s, other} {
			// The example names a room that is there.
			deliverAs(t, replica, "my-project-id", fake.Event{Type: fake.RoomCreated, RoomID: "example", Time: time.Now()})
			harness.Eventually(t, patience, func() error {
				if got := projectStatus(t, replica).GetLiveblocksProjectId(); got != "my-project-id" {
					return fmt.Errorf("pinned project = %q; want that of the example", got)
				}
				return nil
			})
		}
		ours := harness.LiveblocksProject
		events := []fake.Event{
			{Type: fake.StorageUpdated, RoomID: "real-1", Time: time.Now()},
			{Type: fake.UserEntered, RoomID: "real-1", UserID: "alice", ConnectionID: 1, Time: time.Now()},
		}
		for _, ev := range events {
			if got := deliverAs(t, other, ours, ev); got != "foreign-project" {
				t.Errorf("outcome of %s = %s; want it set aside", ev.Type, got)
			}
		}

		cmd := harness.Command(t.Context(), t, map[string]string{"MIRROR_SERVER": s.GRPCAddr}, "project", "pin", ours)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "2 events") {
			t.Fatalf("project pin = %v: %s; want two events worked", err, out)
		}
		awaitStorage(t, s, "real-1", storage(`"real-1"`))
		harness.Eventually(t, patience, func() error {
			got, err := s.Mirror(t).ListUserSessions(t.Context(), &mirrorv1.ListUserSessionsRequest{RoomId: "real-1"})
			if err != nil {
				return err
			}
			if all := got.GetUserSessions(); len(all) != 1 || all[0].GetUserId() != "alice" {
				return fmt.Errorf("sessions = %v; want that of alice", all)
			}
			return nil
		})
		if err := upstream.SetStorage("real-1", storage("1")); err != nil {
			t.Fatal(err)
		}
		if got := deliverAs(t, other, ours, events[0]); got != "queued" {
			t.Errorf("outcome at the other replica = %s; want it worked", got)
		}
		awaitStorage(t, s, "real-1", storage("1"))
		if got := projectStatus(t, other); got.GetLiveblocksProjectId() != ours || len(got.GetProblems()) != 0 {
			t.Errorf("status = %v; want the project pinned and no problem", got)
		}
	})
}
