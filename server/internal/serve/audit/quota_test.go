package audit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// What could not be written waits unchanged, whatever came meanwhile: with its caller, its
// address and its number of calls.
func TestFailedFlushChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		ops := access.Everything("ops")
		for i := range 100 { // as many as a minute has room for
			l.Denied(denial(nil, fmt.Sprintf("192.0.2.%d", i)))
			l.Denied(denial(&ops, fmt.Sprintf("192.0.2.%d", i)))
		}
		r.fail(errors.New("away"))
		for range 3 {
			if l.Flush(t.Context()) == nil {
				t.Error("Flush succeeds")
			}
		}
		r.fail(nil)
		l.Denied(denial(nil, "192.0.2.1"))
		flush(t, l)
		for _, e := range r.all() {
			want := int64(1)
			if e.Caller == "" && e.Address == "192.0.2.1" {
				want = 2
			}
			if e.Address == "" || e.Calls != want {
				t.Errorf("entry = %+v; want an address and %d calls", e, want)
			}
		}
		if n := len(r.all()); n != 200 {
			t.Errorf("entries = %d; want 200", n)
		}
	})
}

// Strangers cannot hide what a caller tried: known callers have entries of their own. An
// IPv6 network counts as one address, because who has one has all of it.
func TestStrangersHideNoCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		for i := range 1000 {
			l.Denied(denial(nil, fmt.Sprintf("2001:db8::%x", i)))
		}
		for i := range 1000 {
			l.Denied(denial(nil, fmt.Sprintf("10.0.%d.%d", i/250, i%250)))
		}
		ops := access.Everything("ops")
		l.Denied(denial(&ops, "192.0.2.1"))
		l.Denied(denial(&ops, "::ffff:192.0.2.1"))
		l.Denied(denial(&ops, "fe80::1%eth0"))
		flush(t, l)
		got := make(map[string]int64)
		for _, e := range r.all() {
			if e.Caller != "" || strings.Contains(e.Address, ":") {
				got[e.Caller+" "+e.Address] += e.Calls
			}
		}
		want := map[string]int64{" 2001:db8::/64": 1000, "ops 192.0.2.1": 2, "ops fe80::/64": 1}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("entries = %v; want %v", got, want)
		}
	})
}

// A flood that lasts for days becomes a bounded number of rows a day, in which every call
// counts.
func TestDayIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		pass(t, time.Until(time.Now().UTC().Truncate(24*time.Hour).Add(24*time.Hour)))
		const each, days = 50, 2
		ops := access.Everything("ops")
		for m := range days * 24 * 60 {
			for i := range each {
				l.Denied(denial(nil, fmt.Sprintf("10.%d.%d.%d", m/250, m%250, i)))
				l.Denied(denial(&ops, fmt.Sprintf("10.%d.%d.%d", m/250, m%250, i)))
			}
			pass(t, time.Minute)
			flush(t, l)
		}
		if n := len(r.all()); n > days*(2*2000+24) || n < days*2*2000 {
			t.Errorf("%d days of a flood wrote %d rows; want 4,024 a day at most", days, n)
		}
		if n := r.calls(); n != days*24*60*each*2 {
			t.Errorf("entries count %d calls; want %d", n, days*24*60*each*2)
		}
	})
}

// Who asks for the audit does not wait for a database that hangs, nor for others who do.
func TestFlushIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := rows{held: make(chan struct{})}
		var log logs
		l := newLog(&r, &log, project)
		l.Denied(denial(nil, "192.0.2.1"))
		begin := time.Now()
		ended := make(chan error, 3)
		for range 3 {
			go func() { ended <- l.Flush(context.Background()) }()
		}
		for range 3 {
			if err := <-ended; err == nil {
				t.Error("Flush succeeds")
			}
		}
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("Flush took %v", d)
		}
		close(r.held)
		gone, cancel := context.WithCancel(t.Context())
		cancel() // a client that is gone does not interrupt the statement
		if err := l.Flush(gone); err != nil || r.calls() != 1 {
			t.Errorf("Flush = %v, %d calls; want one", err, r.calls())
		}
	})
}

// What waits is written in few statements.
func TestFlushWritesBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, "a", "b")
		caller := access.Everything("ops")
		caller.Projects = []mirror.ProjectID{"a", "b"}
		const minutes = 20
		for m := range minutes {
			for i := range 50 {
				l.Denied(denial(&caller, fmt.Sprintf("10.0.%d.%d", m, i)))
			}
			pass(t, time.Minute)
		}
		flush(t, l)
		if n := len(r.all()); n != minutes*50*2 || r.calls() != minutes*50*2 {
			t.Errorf("entries = %d, with %d calls; want %d", n, r.calls(), minutes*50*2)
		}
		if n := r.written(); n > 4 {
			t.Errorf("%d statements; want two for each project", n)
		}
	})
}

// A token that fits no rule is one that anybody may have: what comes with it hides nothing
// of those that may do something.
func TestTokensWithoutARuleHideNoCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		anybody, ops := access.Caller{Name: "token without a rule"}, access.Everything("ops")
		for i := range 500 {
			l.Denied(denial(&anybody, fmt.Sprintf("10.0.%d.%d", i/250, i%250)))
		}
		l.Denied(denial(&ops, "192.0.2.1"))
		flush(t, l)
		if n := callsOf(&r, "ops"); n != 1 {
			t.Errorf("calls of ops = %d; want 1, with its name", n)
		}
	})
}

// Who reads the audit again and again, and who has a key for many projects, takes no more of
// the quota than others.
func TestPlaceInTheQuotaIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		many := make([]mirror.ProjectID, 50)
		for i := range many {
			many[i] = mirror.ProjectID(fmt.Sprint("p", i))
		}
		l := newLog(&r, &log, many...)
		ops := access.Everything("ops")
		ops.Projects = many
		const minutes = 40
		for range minutes * 60 {
			l.Denied(denial(&ops, "192.0.2.1"))
			flush(t, l)
			pass(t, time.Second)
		}
		if n := callsOf(&r, "ops"); n != minutes*60*int64(len(many)) {
			t.Errorf("calls of ops = %d of %d; want all with its name", n, r.calls())
		}
	})
}

func callsOf(r *rows, caller string) (n int64) {
	for _, e := range r.all() {
		if e.Caller == caller {
			n += e.Calls
		}
	}
	return n
}

// While entries of one project cannot be written, such as on a shard that is away, those of
// others are.
func TestFlushGoesOnWithOtherProjects(t *testing.T) {
	t.Parallel()
	r := rows{refuses: "a"}
	var log logs
	l := newLog(&r, &log, "a", "b")
	ops := access.Everything("ops")
	ops.Projects = []mirror.ProjectID{"a", "b"}
	l.Denied(denial(&ops, "192.0.2.1"))
	if err := l.Flush(t.Context()); err == nil {
		t.Error("Flush succeeds; want the error of a")
	}
	if got := r.all(); len(got) != 1 || got[0].Project != "b" {
		t.Errorf("entries = %+v; want that of b", got)
	}
	r.refuses = "none"
	flush(t, l)
	if n := r.calls(); n != 2 {
		t.Errorf("entries count %d calls; want 2", n)
	}
}
