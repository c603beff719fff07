package clock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

func TestSleep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d, end, want time.Duration // end is when the context ends
		err          error
	}{
		{time.Minute, time.Hour, time.Minute, nil},
		{time.Hour, time.Minute, time.Minute, context.DeadlineExceeded},
		{0, time.Minute, 0, nil},
		{-time.Minute, time.Minute, 0, nil},
		{0, 0, 0, context.DeadlineExceeded},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), c.end)
			defer cancel()
			if err := clock.Sleep(ctx, c.d); !errors.Is(err, c.err) {
				t.Errorf("Sleep(%s) with a context of %s = %v; want %v", c.d, c.end, err, c.err)
			}
			if took := time.Since(begin); took != c.want {
				t.Errorf("Sleep(%s) with a context of %s took %s; want %s", c.d, c.end, took, c.want)
			}
		})
	}
}
