package crash_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// project is the state of the only project, as GetStatus shows it.
func (s *site) project(service *harness.Service) *mirrorv1.ProjectStatus {
	s.t.Helper()
	resp, err := service.Admin(s.t).GetStatus(s.t.Context(), &mirrorv1.GetStatusRequest{})
	if err != nil || len(resp.GetProjects()) != 1 {
		s.t.Fatalf("GetStatus = %v, %v; want one project", resp, err)
	}
	return resp.GetProjects()[0]
}

// Liveblocks says how long to wait, and that is how long nothing is fetched.
func TestRateLimited(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		// GetStatus shows the pause only until it is over, so it is longer than a call of GetStatus may
		// take on a machine that does much else.
		const wait = 20 * time.Second
		s := newSite(t, e)
		service := s.start()
		s.populate(service)
		rate := s.project(service).GetCallsPerSecondLimit()

		s.upstream.Script(fake.Match{Room: "plan"}, fake.TooMany("20"))
		s.setStorage(1000, "plan")
		var until time.Time
		eventually(t, func() error {
			p := s.project(service)
			until = p.GetThrottledUntilTime().AsTime()
			return unless(p.GetThrottledUntilTime() != nil, "GetStatus shows no throttling: %v", p)
		})
		calls := s.fetches("plan", fake.EndpointStorage)
		at := slices.IndexFunc(calls, func(c fake.Call) bool { return c.Status == http.StatusTooManyRequests })
		if at < 0 {
			t.Fatalf("throttled until %v after %+v; want one of them to be refused", until, calls)
		}
		refused := calls[at]
		if until.Before(refused.Begin.Add(wait)) || until.After(time.Now().Add(wait)) {
			t.Fatalf("throttled until %v after %+v; want %s later", until, refused, wait)
		}
		if now := s.project(service).GetCallsPerSecondLimit(); now >= rate {
			t.Errorf("calls per second = %v after a refusal, %v before; want less", now, rate)
		}
		// Webhooks are recorded as ever.
		s.setStorage(2000, "Plan", "plan ", "room-08")
		s.senders.Wait()
		if n := one[int](s, "select coalesce(max(attempts), 0) from mirror_resource_state"); n != 0 {
			t.Errorf("attempts = %d; want none burned by 429", n)
		}
		s.converge(service)
		for _, c := range s.upstream.Log() {
			if c.Begin.After(refused.End) && c.Begin.Before(refused.Begin.Add(wait)) {
				t.Errorf("call %+v in the time that Liveblocks asked for", c)
			}
		}
	})
}

// A key that is refused stops the fetching, not the recording, and that shows.
// When it works again everything goes on by itself.
func TestKeyRefused(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, c := range []struct {
			name           string
			refuse, accept func(s *site)
		}{
			{
				"401", func(s *site) {
					s.upstream.Script(fake.Match{}, fake.Status(http.StatusUnauthorized, "UNAUTHORIZED").Always())
				}, func(s *site) { s.upstream.ClearScripts() },
			},
			{
				"key revoked", func(s *site) { s.upstream.SetSecret("sk_another") },
				func(s *site) { s.upstream.SetSecret(harness.SecretKey) },
			},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				s.env["MIRROR_LIVEBLOCKS_PROBE_MIN"] = "200ms"
				service := s.start()
				s.populate(service)
				c.refuse(s)
				s.setStorage(1000, "plan")
				paused := s.awaitPause(service)
				s.senders.Wait()
				fetched := s.upstream.Calls("", fake.EndpointStorage)
				probed := s.upstream.Calls("", fake.EndpointListRooms)
				s.setStorage(2000, "Plan", "plan ", "room-08", "room-09")
				s.senders.Wait() // they are accepted
				eventually(t, func() error {
					n := s.upstream.Calls("", fake.EndpointListRooms) - probed
					return unless(n >= 2, "%d probes", n)
				})
				if n := s.upstream.Calls("", fake.EndpointStorage); n != fetched {
					t.Errorf("%d fetches while the key is refused; want none", n-fetched)
				}
				eventually(t, func() error { // a slow count is shown for a while
					n := s.project(service).GetPendingTasks()
					return unless(n > 0, "%d tasks are pending while nothing is fetched", n)
				})
				c.accept(s)
				s.awaitResume(service)
				s.converge(service)

				// The usual remedy is a restart with another key. What the one before
				// said of the old key is over then.
				c.refuse(s)
				s.setStorage(3000, "plan")
				if again := s.awaitPause(service); !again.GetPauseTime().AsTime().After(paused.GetPauseTime().AsTime()) {
					t.Errorf("second pause since %v; want it after the first, since %v", again.GetPauseTime().AsTime(),
						paused.GetPauseTime().AsTime())
				}
				s.kill(service)
				c.accept(s)
				service = s.start()
				s.awaitResume(service)
				s.converge(service)
			})
		}
	})
}

func (s *site) awaitPause(service *harness.Service) *mirrorv1.ProjectStatus {
	s.t.Helper()
	var p *mirrorv1.ProjectStatus
	eventually(s.t, func() error {
		p = s.project(service)
		return unless(p.GetPauseReason() != "" && p.GetPauseTime() != nil, "GetStatus shows no pause: %v", p)
	})
	return p
}

func (s *site) awaitResume(service *harness.Service) {
	s.t.Helper()
	eventually(s.t, func() error {
		p := s.project(service)
		return unless(p.GetPauseReason() == "" && p.GetPauseTime() == nil, "GetStatus still shows a pause: %v", p)
	})
}
