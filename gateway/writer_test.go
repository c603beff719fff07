package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// deadlines records the deadlines of writes and how much was written with each.
type deadlines struct {
	http.ResponseWriter

	set   int
	sizes []int
	most  int // of bytes that are taken
}

func (d *deadlines) SetWriteDeadline(time.Time) error {
	d.set++
	d.sizes = append(d.sizes, 0)
	return nil
}

func (d *deadlines) Write(p []byte) (int, error) {
	n := min(len(p), d.most)
	d.most -= n
	d.sizes[len(d.sizes)-1] += n
	if n < len(p) {
		return n, http.ErrHandlerTimeout
	}
	return n, nil
}

// A long answer has a deadline for each of its parts, so that a slow reader gets it too.
func TestLongWritesHaveManyDeadlines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ size, takes, deadlines, n int }{
		{0, 1 << 30, 1, 0},
		{10, 1 << 30, 1, 10},
		{256 << 10, 1 << 30, 1, 256 << 10},
		{1<<20 + 1, 1 << 30, 5, 1<<20 + 1},
		{1 << 20, 300 << 10, 2, 300 << 10},
	} {
		to := &deadlines{ResponseWriter: httptest.NewRecorder(), most: c.takes}
		n, err := newWriter(to, time.Minute).Write(make([]byte, c.size))
		if n != c.n || to.set != c.deadlines || (err != nil) != (c.n < c.size) {
			t.Errorf("Write of %d bytes = %d, %v with %d deadlines; want %d with %d", c.size, n, err, to.set, c.n, c.deadlines)
		}
		for _, size := range to.sizes {
			if size > 256<<10 {
				t.Errorf("%d bytes were written with one deadline", size)
			}
		}
	}
}
