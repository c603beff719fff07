package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// await polls the mirror until it equals the fake, and describes the result. It
// returns false if that took too long.
func (d *demo) await(ctx context.Context, id string, ev fake.Event) (seen string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	look := d.room
	switch {
	case ev.Type == fake.UserEntered || ev.Type == fake.UserLeft:
		look = d.session
	case ev.Type == fake.NotificationSent:
		look = func(ctx context.Context, ev fake.Event) (string, bool) { return d.notification(ctx, id, ev) }
	case ev.ThreadID != "":
		look = d.thread
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if seen, ok := look(ctx, ev); ok {
			return seen, true
		}
		select {
		case <-ctx.Done():
			return "", false
		case <-ticker.C:
		}
	}
}

// room compares a room's Storage document.
func (d *demo) room(ctx context.Context, ev fake.Event) (string, bool) {
	want, lives := d.upstream.Storage(ev.RoomID)
	status, body := d.get(ctx, "/v1/rooms/"+url.PathEscape(ev.RoomID)+"/storage:read?format=plain-lson")
	switch {
	case !lives && status == http.StatusNotFound:
		return "deleted", true
	case lives && status == http.StatusOK && bytes.Equal(body, want):
		return count(len(body), "byte"), true
	default:
		return "", false
	}
}

func (d *demo) thread(ctx context.Context, ev fake.Event) (string, bool) {
	want, lives := d.upstream.ThreadSource(ev.RoomID, ev.ThreadID)
	var got struct {
		Thread struct {
			SourceJSON json.RawMessage `json:"sourceJson"`
		}
	}
	path := "/v1/rooms/" + url.PathEscape(ev.RoomID) + "/threads/" + url.PathEscape(ev.ThreadID) +
		"?view=source"
	status, body := d.get(ctx, path)
	switch {
	case !lives && status == http.StatusNotFound:
		return "deleted", true
	case lives && json.Unmarshal(body, &got) == nil && bytes.Equal(got.Thread.SourceJSON, want):
		return count(len(d.upstream.Comments(ev.RoomID, ev.ThreadID)), "comment"), true
	default:
		return "", false
	}
}

// session looks for a session that begins or ends as the event says.
func (d *demo) session(ctx context.Context, ev fake.Event) (string, bool) {
	var got struct {
		UserSessions []struct {
			UserID    string
			EnterTime time.Time
			LeaveTime time.Time
		}
	}
	_, body := d.get(ctx, "/v1/rooms/"+url.PathEscape(ev.RoomID)+"/user-sessions")
	if json.Unmarshal(body, &got) != nil {
		return "", false
	}
	for _, s := range got.UserSessions {
		switch at := ev.Time.Truncate(time.Millisecond); { // the precision of webhooks
		case s.UserID != ev.UserID:
		case ev.Type == fake.UserEntered && s.EnterTime.Equal(at):
			return ev.UserID + " entered", true
		case ev.Type == fake.UserLeft && s.LeaveTime.Equal(at):
			return fmt.Sprintf("%s for %s", ev.UserID, s.LeaveTime.Sub(s.EnterTime).Round(time.Second)), true
		}
	}
	return "", false
}

func (d *demo) notification(ctx context.Context, id string, ev fake.Event) (string, bool) {
	var got struct {
		Notifications []struct {
			EventID string
		}
	}
	_, body := d.get(ctx, "/v1/notifications?user_id="+url.QueryEscape(ev.UserID))
	if json.Unmarshal(body, &got) != nil {
		return "", false
	}
	for _, n := range got.Notifications {
		if n.EventID == id {
			return fmt.Sprintf("for %s", ev.UserID), true
		}
	}
	return "", false
}

// get reads from the service. The status is 0 if the request failed.
func (d *demo) get(ctx context.Context, path string) (status int, body []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
	if err != nil {
		return 0, nil
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil
	}
	return resp.StatusCode, body
}
