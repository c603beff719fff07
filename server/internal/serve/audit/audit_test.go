package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const project = mirror.ProjectID("default")

// rows is the table of the audit. A statement waits for held, if it is set, and those of a
// project fail if it is refused, and take for ever if it hangs.
type rows struct {
	held    chan struct{}
	refuses mirror.ProjectID
	hangs   mirror.ProjectID
	mu      sync.Mutex
	err     error
	stored  map[string]mirror.AuditEntry // by project and id
	writes  int
}

func (r *rows) RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error {
	if r.held != nil {
		select {
		case <-r.held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if r.hangs != "" && entries[0].Project == r.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	switch {
	case r.err != nil:
		return r.err
	case r.refuses != "" && entries[0].Project == r.refuses:
		return errors.New("the shard is away")
	}
	if r.stored == nil {
		r.stored = make(map[string]mirror.AuditEntry)
	}
	for _, e := range entries {
		key := string(e.Project) + " " + e.ID
		if was, ok := r.stored[key]; ok && e.Denied {
			e.Calls += was.Calls
		} else if ok {
			e.Calls = was.Calls
		}
		r.stored[key] = e
	}
	return nil
}

func (r *rows) all() (list []mirror.AuditEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.stored {
		list = append(list, e)
	}
	return list
}

func (r *rows) written() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

func (r *rows) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *rows) calls() (n int64) {
	for _, e := range r.all() {
		n += e.Calls
	}
	return n
}

// pass lets time pass, in a bubble, and what others do then.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := clock.Sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// logs are the lines of a log, to be read while others are written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}

func newLog(r *rows, log *logs, projects ...mirror.ProjectID) *audit.Log {
	return audit.New(audit.Config{
		Store: r, Projects: projects, Now: time.Now, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
}

func denial(caller *access.Caller, address string) access.Denial {
	return access.Denial{Caller: caller, Address: netip.MustParseAddr(address), Reason: fault.ReasonCredentialInvalid}
}

func flush(t *testing.T, l *audit.Log) {
	t.Helper()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatalf("Flush = %v", err)
	}
}

// Refused calls with the same reason, caller and address are one entry a minute, of all
// replicas together.
func TestRefusedCallsAddUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		one, two := newLog(&r, &log, project), newLog(&r, &log, project)
		minute := time.Now().UTC().Truncate(time.Minute)
		ops := access.Everything("ops")
		for range 3 {
			one.Denied(denial(nil, "192.0.2.1"))
			two.Denied(denial(nil, "192.0.2.1"))
			one.Denied(denial(&ops, "192.0.2.1"))
			pass(t, time.Second)
		}
		flush(t, one)
		flush(t, two)
		one.Denied(denial(nil, "192.0.2.1"))
		flush(t, one)
		flush(t, one) // nothing waits
		got := make(map[string]mirror.AuditEntry)
		for _, e := range r.all() {
			got[e.Caller] = e
		}
		unknown := got[""]
		if len(got) != 2 || len(r.all()) != 2 || unknown.Calls != 7 || got["ops"].Calls != 3 {
			t.Fatalf("entries = %+v; want 7 of nobody and 3 of ops", r.all())
		}
		if !unknown.Time.Equal(minute) || !unknown.EndTime.Equal(time.Now()) || unknown.Address != "192.0.2.1" ||
			unknown.Reason != "CREDENTIAL_INVALID" || unknown.Project != project || !unknown.Denied {
			t.Errorf("entry = %+v; want that of the minute", unknown)
		}
		pass(t, time.Minute)
		one.Denied(denial(nil, "192.0.2.1"))
		flush(t, one)
		if n := len(r.all()); n != 3 {
			t.Errorf("entries in the next minute = %d; want one more", n)
		}
	})
}

// A flood from a million addresses becomes a bounded number of rows, in which every call
// counts, and nothing waits for the database.
func TestFloodIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		r.held = make(chan struct{}) // the database does not answer
		l.Denied(denial(nil, "192.0.2.1"))
		writing := make(chan error, 1)
		go func() { writing <- l.Flush(context.Background()) }()
		synctest.Wait()
		const each, minutes = 20_000, 5
		for m := range minutes {
			for i := range each {
				l.Denied(denial(nil, netip.AddrFrom4([4]byte{10, byte(m), byte(i >> 8), byte(i)}).String()))
			}
			pass(t, time.Minute)
		}
		close(r.held)
		if err := <-writing; err == nil {
			t.Error("Flush succeeds although the database does not answer")
		}
		flush(t, l)
		if n := len(r.all()); n > minutes*101 || n < minutes*100 {
			t.Errorf("a flood of %d calls wrote %d rows; want 101 a minute at most", minutes*each, n)
		}
		if n := r.calls(); n != minutes*each+1 {
			t.Errorf("entries count %d calls; want %d", n, minutes*each+1)
		}
	})
}

// What waits while the database is away for days is bounded too.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		r.fail(errors.New("away"))
		const minutes, each = 500, 100
		for m := range minutes {
			for i := range each {
				l.Denied(denial(nil, fmt.Sprintf("10.%d.%d.%d", m/250, m%250, i)))
			}
			if m%50 == 0 && l.Flush(t.Context()) == nil {
				t.Error("Flush succeeds")
			}
			pass(t, time.Minute)
		}
		r.fail(nil)
		flush(t, l)
		if n := len(r.all()); n > 20_000+minutes/60+2 {
			t.Errorf("%d rows wait; want no more than are kept", n)
		}
		if n := r.calls(); n != minutes*each {
			t.Errorf("entries count %d calls; want %d", n, minutes*each)
		}
	})
}

// Refused calls are written when the database is awake, once their minute is over, and at
// the end. What cannot be written waits.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		l.Wake()
		synctest.Wait()
		l.Denied(denial(nil, "192.0.2.1"))
		pass(t, 24*time.Hour)
		synctest.Wait()
		if r.written() != 0 {
			t.Fatalf("%d statements while the database sleeps; want none", r.written())
		}
		r.fail(errors.New("away"))
		l.Wake()
		synctest.Wait()
		r.fail(nil)
		l.Denied(denial(nil, "192.0.2.1"))
		l.Wake()
		synctest.Wait()
		if n := r.calls(); n != 1 || len(r.all()) != 1 {
			t.Errorf("entries = %+v; want that of the minute that is over", r.all())
		}
		stop()
		if err := <-done; err != nil || r.calls() != 2 {
			t.Errorf("Run = %v, entries = %+v; want both at the end", err, r.all())
		}
		if text := log.String(); strings.Count(text, "will be tried again") != 1 {
			t.Errorf("log = %s; want that it could not be written", text)
		}
	})
}

// Of several projects, a refused call belongs to those that its caller sees, if these are
// named. Nothing of an unknown caller shows in a project.
func TestRefusedCallsOfProjects(t *testing.T) {
	t.Parallel()
	all, ab, c := access.Everything("all"), access.Everything("ab"), access.Everything("c")
	ab.Projects, c.Projects = []mirror.ProjectID{"a", "b"}, []mirror.ProjectID{"c", "removed"}
	for _, x := range []struct {
		projects []mirror.ProjectID
		caller   *access.Caller
		want     string
	}{
		{[]mirror.ProjectID{"a"}, nil, "a"},
		{[]mirror.ProjectID{"a"}, &all, "a"},
		{[]mirror.ProjectID{"a"}, &c, "a"},
		{[]mirror.ProjectID{"a", "b", "c"}, nil, ""},
		{[]mirror.ProjectID{"a", "b", "c"}, &all, ""},
		{[]mirror.ProjectID{"a", "b", "c"}, &ab, "ab"},
		{[]mirror.ProjectID{"a", "b", "c"}, &c, "c"},
		{[]mirror.ProjectID{"a", "b", "d"}, &c, ""},
		{[]mirror.ProjectID{"a", "b", "c"}, &access.Caller{Name: "token without a rule"}, ""},
	} {
		var r rows
		var log logs
		l := newLog(&r, &log, x.projects...)
		l.Denied(denial(x.caller, "192.0.2.1"))
		flush(t, l)
		got := r.all()
		if len(got) != max(1, len(x.want)) {
			t.Errorf("entries of %+v = %+v; want those of %q", x.caller, got, x.want)
		}
		for _, e := range got {
			if !strings.Contains(x.want, string(e.Project)) || (e.Project == "") != (x.want == "") {
				t.Errorf("entry of %+v = %+v; want it in %q", x.caller, e, x.want)
			}
		}
	}
}

// runs runs a log, and returns what stops it.
func runs(t *testing.T, l *audit.Log) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v; want no error", err)
		}
	}
}

// Nobody waits for the record of how a call ended. It is tried until the database takes it.
func TestEndsWaitForTheDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		stop := runs(t, l)
		var calls [3]mirror.AuditEntry
		for i := range calls {
			calls[i] = mirror.AuditEntry{Project: project, Method: "PauseProject"}
			if err := l.Begin(t.Context(), &calls[i]); err != nil {
				t.Fatalf("Begin = %v", err)
			}
		}
		r.held = make(chan struct{}) // the database hangs
		begun := time.Now()
		for _, e := range calls {
			e.Code = "OK"
			l.End(t.Context(), e)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("End waits %v for a database that hangs", took)
		}
		pass(t, time.Minute)
		for _, e := range r.all() {
			if e.Code != "" {
				t.Errorf("entry = %+v; want no end yet", e)
			}
		}
		close(r.held)
		pass(t, time.Minute)
		for _, e := range r.all() {
			if e.Code != "OK" || e.Calls != 1 || !e.EndTime.Equal(begun) {
				t.Errorf("entry = %+v; want that it ended well at %v", e, begun)
			}
		}
		if n := r.written(); len(r.all()) != 3 || n != 4 {
			t.Errorf("%d entries by %d statements; want 3 calls, and their ends together", len(r.all()), n)
		}
		if text := log.String(); !strings.Contains(text, "how calls ended could not be recorded in the audit, will be") {
			t.Errorf("log = %s; want that ends wait", text)
		}
		// With nothing to write there is no statement.
		pass(t, time.Hour)
		if n := r.written(); n != 4 {
			t.Errorf("statements within an idle hour = %d; want none", n-4)
		}
		stop()
	})
}

// Those who read the audit see how calls ended that wait, and what is left at the end is told.
// A database that refuses for long, as a standby does, is asked less and less, and the log
// does not fill.
func TestEndsAreTriedLessAndLess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		stop := runs(t, l)
		r.fail(errors.New("read only"))
		for i := range 100 {
			l.End(t.Context(), mirror.AuditEntry{Project: project, ID: fmt.Sprint(i), Method: "VerifyMirror", Code: "OK"})
			pass(t, 100*time.Millisecond)
		}
		if n := strings.Count(log.String(), "will be tried again"); n != 1 {
			t.Errorf("%d lines about 100 ends within ten seconds; want one", n)
		}
		pass(t, 24*time.Hour)
		if n := r.written(); n > 100+40 {
			t.Errorf("%d statements; want about one an hour", n)
		}
		if n := strings.Count(log.String(), "will be tried again"); n > 40 {
			t.Errorf("%d lines of a day; want about one an hour", n)
		}
		r.fail(nil)
		pass(t, 2*time.Hour)
		if n := len(r.all()); n != 100 {
			t.Errorf("%d ends are recorded; want all 100", n)
		}
		stop()
	})
}

// A project whose shard takes all the time does not keep the ends of others waiting.
func TestEndsOfOtherProjectsDoNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := rows{hangs: "a"}
		var log logs
		l := newLog(&r, &log, "a", "b", "c")
		stop := runs(t, l)
		for _, p := range []mirror.ProjectID{"a", "b", "c"} {
			l.End(t.Context(), mirror.AuditEntry{Project: p, ID: string(p), Method: "PauseProject", Code: "OK"})
		}
		pass(t, time.Minute)
		if got := r.all(); len(got) != 2 {
			t.Errorf("entries = %+v; want those of b and c", got)
		}
		// Neither does a wake of the database wait for it for good.
		l.Wake()
		pass(t, time.Minute)
		l.End(t.Context(), mirror.AuditEntry{Project: "b", ID: "late", Method: "PauseProject", Code: "OK"})
		pass(t, time.Minute)
		if got := r.all(); len(got) != 3 {
			t.Errorf("entries = %+v; want the late one of b as well", got)
		}
		stop()
	})
}

func TestEndsAreNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		end := func(method string) {
			t.Helper()
			e := mirror.AuditEntry{Project: project, Method: method}
			if err := l.Begin(t.Context(), &e); err != nil {
				t.Fatalf("Begin = %v", err)
			}
			e.Code = "OK"
			l.End(t.Context(), e)
		}
		end("PauseProject")
		flush(t, l)
		if got := r.all(); len(got) != 1 || got[0].Code != "OK" {
			t.Errorf("entries = %+v; want the end of the call", got)
		}
		stop := runs(t, l)
		synctest.Wait()
		r.fail(errors.New("away"))
		l.End(t.Context(), mirror.AuditEntry{Project: project, ID: "x", Method: "ResumeProject", Code: "INTERNAL"})
		pass(t, time.Minute)
		stop()
		if text := log.String(); !strings.Contains(text, "how a call ended could not be recorded") ||
			!strings.Contains(text, "method=ResumeProject code=INTERNAL") {
			t.Errorf("log = %s; want that the end is missing", text)
		}
		// What ends later is written at once.
		r.fail(nil)
		end("RetryTask")
		for _, e := range r.all() {
			if e.Code != "OK" {
				t.Errorf("entry = %+v; want its end", e)
			}
		}
		// Without a bound, a database that is away for long would fill the memory.
		log.Reset()
		r.fail(errors.New("away"))
		l = newLog(&r, &log, project)
		for i := range 10_001 {
			l.End(t.Context(), mirror.AuditEntry{Project: project, ID: fmt.Sprint(i), Method: "RequestSync", Code: "OK"})
		}
		if n := strings.Count(log.String(), "how a call ended could not be recorded"); n != 1 {
			t.Errorf("%d ends are told; want the one beyond the bound", n)
		}
	})
}

// A call that cannot be recorded fails, and does not stand as one that goes on.
func TestCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rows
		var log logs
		l := newLog(&r, &log, project)
		defer runs(t, l)()
		e := mirror.AuditEntry{Project: project, Method: "PauseProject", Caller: strings.Repeat("é", 400)}
		if err := l.Begin(t.Context(), &e); err != nil {
			t.Fatalf("Begin = %v", err)
		}
		begun := r.all()[0]
		if len(e.ID) != 32 || begun.Calls != 1 || !begun.Time.Equal(time.Now()) || !begun.EndTime.IsZero() ||
			len(begun.Caller) != 512 {
			t.Errorf("begun = %+v", begun)
		}
		pass(t, time.Second)
		e.Code = "OK"
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // its client is gone
		l.End(ctx, e)
		synctest.Wait()
		if got := r.all(); len(got) != 1 || got[0].Calls != 1 || got[0].Code != "OK" ||
			got[0].EndTime.Sub(got[0].Time) != time.Second {
			t.Errorf("ended = %+v", got)
		}
		r.fail(errors.New("away"))
		again := mirror.AuditEntry{Project: project, Method: "PauseProject"}
		if err := l.Begin(t.Context(), &again); fault.Of(err).Kind != fault.Unavailable ||
			fault.Of(err).Reason != fault.ReasonStoreUnavailable {
			t.Errorf("Begin = %v; want UNAVAILABLE", err)
		}
		again.Code = "UNAVAILABLE"
		l.End(t.Context(), again)
		r.fail(nil)
		pass(t, time.Minute)
		if n := len(r.all()); n != 2 {
			t.Errorf("entries = %d; want that of the call that was not made too", n)
		}
	})
}
