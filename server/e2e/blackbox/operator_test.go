package blackbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// A replica whose key is refused says so itself: the database need not know, and cannot
// be told while it does not take writes. The other replica, whose key is good, does not.
func TestStatusShowsTheReplicasOwnPause(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres.Own(t)
	db := dbtest.Postgres.Connect(t, url)
	for _, statement := range []string{
		"create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no pause is written " +
			"here'; end $$",
		"create trigger refuse before insert or update on mirror_project for each row when (new.pause_reason <> '') " +
			"execute function refuse()",
	} {
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	replica := func() (*harness.Service, *harness.Fake) {
		upstream := harness.NewFake(t)
		return harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: map[string]string{
			"MIRROR_MIGRATE": "", "MIRROR_LIVEBLOCKS_PROBE_MIN": "100ms",
		}}), upstream
	}
	refused, upstream := replica()
	good, _ := replica()
	project := func(s *harness.Service) *mirrorv1.ProjectStatus {
		resp, err := s.Admin(t).GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
		if err != nil || len(resp.GetProjects()) != 1 {
			t.Fatalf("GetStatus = %v, %v; want one project", resp, err)
		}
		return resp.GetProjects()[0]
	}
	if p := project(refused); p.GetPauseReason() != "" || p.GetPauseTime() != nil {
		t.Errorf("before anything is refused the status is %v", p)
	}

	upstream.SetSecret("sk_another")
	tell(t, refused, fake.RoomCreated, "room")
	harness.Eventually(t, patience, func() error {
		if p := project(refused); p.GetPauseReason() == "" || p.GetPauseTime() == nil {
			return fmt.Errorf("the status of the replica whose key is refused is %v", p)
		}
		return nil
	})
	harness.Eventually(t, patience, func() error {
		if !strings.Contains(refused.Log(), "no pause is written here") {
			return fmt.Errorf("the log does not say that the pause could not be recorded: %s", refused.Log())
		}
		return nil
	})
	if n := count(t, db, "select count(*) from mirror_project where pause_reason <> ''"); n != 0 {
		t.Fatalf("%d rows say that the project is paused; want none, or this test shows nothing", n)
	}
	if p := project(refused); p.GetPauseReason() == "" {
		t.Errorf("the status lost the pause: %v", p)
	}
	if p := project(good); p.GetPauseReason() != "" || p.GetPauseTime() != nil {
		t.Errorf("the status of the replica whose key is good is %v", p)
	}

	upstream.SetSecret(harness.SecretKey)
	harness.Eventually(t, patience, func() error {
		if p := project(refused); p.GetPauseReason() != "" {
			return fmt.Errorf("the status after the key was accepted again is %v", p)
		}
		return nil
	})
}

// Whatever writes to the log, the libraries included, writes it in the one form.
func TestLogHasOneForm(t *testing.T) {
	t.Parallel()
	s, _ := start(t, map[string]string{
		"MIRROR_LOG_FORMAT": "json", "MIRROR_LOG_LEVEL": "debug",
		// With these, gRPC tells of every server and connection.
		"GRPC_GO_LOG_SEVERITY_LEVEL": "info", "GRPC_GO_LOG_VERBOSITY_LEVEL": "99",
	})
	if _, err := s.Admin(t).GetStatus(t.Context(), &mirrorv1.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	// No HTTP/2, which that port does not like.
	if a, err := client.Get("http://" + s.GRPCAddr); err == nil {
		_ = a.Body.Close()
	}
	if got := send(t, http.MethodGet, s.URL("/v1/rooms?page_size=x"), nil, nil); got.status != http.StatusBadRequest {
		t.Errorf("a page size of x = %d; want 400", got.status)
	}
	if _, err := s.Stop(t); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(s.Log()) {
		var entry struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time == "" || entry.Level == "" ||
			entry.Msg == "" {
			t.Errorf("the log holds %q", line)
		}
	}
}
