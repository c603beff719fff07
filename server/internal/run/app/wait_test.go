package app

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// A database that cannot be reached is waited for as long as the setting says, which is
// told once; any other failure ends the start at once.
func TestDatabaseIsWaitedFor(t *testing.T) {
	t.Parallel()
	away := fmt.Errorf("ping: %w", &net.OpError{Op: "dial", Err: errors.New("connection refused")})
	for name, c := range map[string]struct {
		err   error
		lasts time.Duration // how long an attempt does
		wait  time.Duration
		after time.Duration // when it answers
		took  time.Duration
		fails bool
	}{
		"there":              {nil, 0, time.Minute, 0, 0, false},
		"comes in time":      {away, 0, time.Minute, 10 * time.Second, 10 * time.Second, false},
		"does not come":      {away, 0, 30 * time.Second, time.Hour, 30 * time.Second, true},
		"attempt takes long": {away, 40 * time.Second, 30 * time.Second, time.Hour, 40 * time.Second, true},
		"nobody waits":       {away, 0, 0, time.Second, 0, true},
		"starting":           {store.ErrStarting, 0, 0, 5 * time.Second, 5 * time.Second, false},
		"password is wrong":  {errors.New("password authentication failed"), 0, time.Minute, time.Second, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var logged bytes.Buffer
				begin := time.Now()
				err := onceStarted(t.Context(), c.wait, slog.New(slog.NewTextHandler(&logged, nil)), func() error {
					time.Sleep(c.lasts) //nolint:forbidigo // of the bubble
					if time.Since(begin) >= c.after {
						return nil
					}
					return c.err
				})
				if took := time.Since(begin); (err != nil) != c.fails || took != c.took {
					t.Errorf("onceStarted = %v after %v; want a failure: %t, after %v", err, took, c.fails, c.took)
				}
				n := strings.Count(logged.String(), "waiting for the database")
				if (n == 1) != (errors.Is(c.err, away) && c.wait > 0) {
					t.Errorf("told %d times: %s", n, &logged)
				}
			})
		})
	}
}
