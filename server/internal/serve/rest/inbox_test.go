package rest

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// A notification is shown as it was just now, or says that it is not. One that no event has
// announced is not said to be missing.
func TestInboxNotification(t *testing.T) {
	t.Parallel()
	const old, now = `{"id":"in_a" ,"readAt":null}`, `{"id":"in_a","readAt":"2026-11-22T12:00:00.000Z"}`
	copied := func(ago time.Duration, change ...func(*mirrorv1.Notification)) []*mirrorv1.Notification {
		n := &mirrorv1.Notification{
			RoomId: "r /", EventId: "msg_1", NotificationId: "in_a", UserId: "alice", InboxJson: []byte(old),
			Freshness: &mirrorv1.Freshness{FetchTime: timestamppb.New(noon.Add(-ago)), Revision: 7},
		}
		for _, f := range change {
			f(n)
		}
		return []*mirrorv1.Notification{n}
	}
	writes := func(c *Config) { c.Mode.Writes = true }
	failing := func(c *Config) { c.Failing = func(string) time.Time { return noon.Add(-time.Second) } }
	limited := func(c *Config) {
		c.Authorize = func(r *http.Request) (context.Context, error) {
			caller := access.Everything("somebody")
			caller.Rooms = []string{"team:"}
			return access.Into(r.Context(), caller), nil
		}
	}
	for name, c := range map[string]struct {
		have   []*mirrorv1.Notification
		change func(*Config)
		gone   bool // from the inbox
		fails  bool // the fetch
		status int
		body   string // empty for a failure
		code   string
		asked  int
		stale  string
	}{
		"fresh":         {have: copied(9 * time.Second), status: 200, body: old},
		"old":           {have: copied(11 * time.Second), status: 200, body: now, asked: 1},
		"of the future": {have: copied(-time.Hour), status: 200, body: now, asked: 1},
		"known to be old": {have: copied(0, func(n *mirrorv1.Notification) {
			n.Freshness.Stale = true
		}), status: 200, body: now, asked: 1},
		"after a write":   {have: copied(0), change: writes, status: 200, body: now, asked: 1},
		"not fetched":     {have: copied(time.Hour), fails: true, status: 200, body: old, asked: 1, stale: "1"},
		"without answers": {have: copied(time.Hour), change: failing, status: 200, body: old, stale: "1"},
		"gone":            {have: copied(time.Hour), gone: true, status: 404, code: "RESOURCE_NOT_FOUND", asked: 1},
		"never there": {have: copied(0, func(n *mirrorv1.Notification) {
			n.InboxJson = nil
		}), status: 404, code: "RESOURCE_NOT_FOUND"},
		"never fetched": {have: copied(0, func(n *mirrorv1.Notification) {
			n.Freshness.FetchTime, n.InboxJson = nil, nil
		}), fails: true, status: 503, code: "NOT_MIRRORED_YET", asked: 1},
		"of another user": {have: copied(0, func(n *mirrorv1.Notification) {
			n.UserId = "bob"
		}), status: 501, code: "NOT_MIRRORED"},
		"not announced": {status: 501, code: "NOT_MIRRORED"},
		"not seen":      {change: limited, status: 404, code: "RESOURCE_NOT_FOUND"},
		"event without id": {have: copied(0, func(n *mirrorv1.Notification) {
			n.EventId = "in_a"
		}), status: 501, code: "NOT_MIRRORED"},
	} {
		s := &stub{notified: c.have}
		asked := 0
		h := serve(s, func(cfg *Config) {
			cfg.Refresh = func(ctx context.Context, of mirror.Resource) error {
				asked++
				if of != (mirror.Resource{Project: "p", Room: "r /", Kind: mirror.KindNotification, ID: "in_a"}) {
					t.Errorf("%s: %+v was asked for", name, of)
				}
				if until, ok := ctx.Deadline(); !ok || time.Until(until) > changedWait {
					t.Errorf("%s: waits until %v", name, until)
				}
				if c.fails {
					return errors.New("too late")
				}
				n := s.notified[0]
				n.Freshness = &mirrorv1.Freshness{FetchTime: timestamppb.New(noon), Revision: 8}
				if n.InboxJson = []byte(now); c.gone {
					n.InboxJson = nil
				}
				return nil
			}
			if c.change != nil {
				c.change(cfg)
			}
		})
		w := call(h, http.MethodGet, "/v2/users/alice/inbox-notifications/in_a", "")
		if w.Code != c.status || c.body != "" && w.Body.String() != c.body ||
			c.code != "" && member(w.Body.Bytes(), "error") != c.code ||
			asked != c.asked || w.Header().Get("Mirror-Stale") != c.stale {
			t.Errorf("%s = %d %s %v, asked %d times; want %d %s%s, asked %d times, stale %q", name, w.Code, w.Body, w.Header(),
				asked, c.status, c.body, c.code, c.asked, c.stale)
		}
	}
}
