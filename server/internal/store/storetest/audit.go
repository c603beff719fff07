package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var auditCases = []testCase{
	{"call is recorded, and its end", auditCall},
	{"refused calls of a minute add up", auditDenied},
	{"audit by filter", auditFiltered},
	{"audit of another project does not show", auditOfOthers},
	{"audit expires by age", auditExpires},
}

func (e *env) record(entries ...mirror.AuditEntry) {
	e.Helper()
	for _, entry := range entries {
		e.must("RecordAudit", e.RecordAudit(e.ctx(), entry))
	}
}

func (e *env) audit(f store.AuditFilter) []mirror.AuditEntry {
	e.Helper()
	f.Limit = cmp.Or(f.Limit, 100)
	list, err := e.AuditEntries(e.ctx(), f)
	e.must("AuditEntries", err)
	return list
}

func auditCall(e *env) {
	long := strings.Repeat("é", 256)
	call := mirror.AuditEntry{
		Project: project, ID: "one", Time: e.now, Method: "PauseProject", Caller: long, Address: "2001:db8::1",
		RequestID: "r-1", Room: mirror.RoomID(long), Kind: mirror.KindThread, ResourceID: long, Options: "confirm", Calls: 1,
	}
	e.record(call)
	e.want("audit of a call that goes on", e.audit(store.AuditFilter{Project: project}), []mirror.AuditEntry{call})
	ended := call
	ended.EndTime, ended.Code, ended.Reason = e.now.Add(time.Minute), "NOT_FOUND", "TASK_NOT_FOUND"
	e.record(ended, ended) // it is counted once, however often it is written
	e.want("audit of a call that has ended", e.audit(store.AuditFilter{Project: project}), []mirror.AuditEntry{ended})
	e.record(call) // its first try was taken for lost, and comes after the end
	e.want("audit of a call that has begun late", e.audit(store.AuditFilter{Project: project}), []mirror.AuditEntry{ended})

	// Whether its beginning was recorded may be unknown.
	lost := call
	lost.ID, lost.Time, lost.Code = "three", e.now.Add(-time.Minute), "UNAVAILABLE"
	e.record(lost)
	bare := mirror.AuditEntry{Project: project, ID: "two", Time: e.now.Add(-time.Second)}
	e.record(bare)
	e.want("audit, newest first", e.audit(store.AuditFilter{Project: project}), []mirror.AuditEntry{ended, bare, lost})
}

func auditDenied(e *env) {
	denied := mirror.AuditEntry{
		Project: project, ID: "minute", Time: e.now, EndTime: e.now.Add(20 * time.Second), Denied: true,
		Method: "PauseProject", Address: "192.0.2.1",
		Code: "UNAUTHENTICATED", Reason: "CREDENTIAL_INVALID", Calls: 3,
	}
	e.record(denied)
	other := e.another() // by another replica, whose last one was earlier
	earlier := denied
	earlier.EndTime, earlier.Calls = e.now.Add(10*time.Second), 1<<40
	e.must("RecordAudit", other.RecordAudit(e.ctx(), earlier))
	denied.Calls += 1 << 40
	e.want("audit of refused calls", e.audit(store.AuditFilter{Project: project}), []mirror.AuditEntry{denied})
	parallel(8, func(int) {
		one := denied
		one.Calls = 1
		e.must("RecordAudit", e.RecordAudit(e.ctx(), one))
	})
	denied.Calls += 8
	e.want("audit of refused calls at once", e.audit(store.AuditFilter{Project: project}), []mirror.AuditEntry{denied})

	// Replicas write theirs in one statement each, whatever the order, and new ones with them.
	const many = 500
	batch := make([]mirror.AuditEntry, many)
	for i := range batch {
		batch[i] = denied
		batch[i].ID, batch[i].Calls = fmt.Sprintf("of-%03d", i), int64(i+1)
	}
	backwards := slices.Clone(batch)
	slices.Reverse(backwards)
	parallel(4, func(i int) {
		e.must("RecordAudit", e.RecordAudit(e.ctx(), [][]mirror.AuditEntry{batch, backwards}[i%2]...))
	})
	for i := range batch {
		batch[i].Calls *= 4
	}
	e.want("audit of batches", e.audit(store.AuditFilter{Project: project, Limit: many + 1}),
		append([]mirror.AuditEntry{denied}, batch...))
}

// manyCalls records calls and returns them in the order of the list.
func (e *env) manyCalls() (all []mirror.AuditEntry) {
	e.Helper()
	methods, callers := []string{"PauseProject", "", "ResumeProject"}, []string{"ann", "Ann", "", "bob"}
	for i := range 24 {
		all = append(all, mirror.AuditEntry{
			Project: project, ID: fmt.Sprintf("entry-%02d", (i*7)%24), Time: e.now.Add(time.Duration(i/4) * time.Second),
			Denied: i%5 < 2, Method: methods[i%3], Caller: callers[i/3%4], Calls: int64(i + 1),
		})
	}
	e.record(all...)
	slices.SortFunc(all, func(a, b mirror.AuditEntry) int {
		return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.ID, b.ID))
	})
	return all
}

func auditFiltered(e *env) {
	all := e.manyCalls()
	second := e.now.Add(time.Second)
	yes, no := true, false
	for what, c := range map[string]struct {
		filter store.AuditFilter
		keep   func(a *mirror.AuditEntry) bool
	}{
		"nothing": {store.AuditFilter{}, func(*mirror.AuditEntry) bool { return true }},
		"method": {
			store.AuditFilter{Method: "PauseProject"},
			func(a *mirror.AuditEntry) bool { return a.Method == "PauseProject" },
		},
		"caller":      {store.AuditFilter{Caller: "Ann"}, func(a *mirror.AuditEntry) bool { return a.Caller == "Ann" }},
		"refused":     {store.AuditFilter{Denied: &yes}, func(a *mirror.AuditEntry) bool { return a.Denied }},
		"not refused": {store.AuditFilter{Denied: &no}, func(a *mirror.AuditEntry) bool { return !a.Denied }},
		"not refused and method": {
			store.AuditFilter{Denied: &no, Method: "PauseProject"},
			func(a *mirror.AuditEntry) bool { return !a.Denied && a.Method == "PauseProject" },
		},
		"method and caller": {
			store.AuditFilter{Method: "PauseProject", Caller: "ann"},
			func(a *mirror.AuditEntry) bool { return a.Method == "PauseProject" && a.Caller == "ann" },
		},
		"refused and caller": {
			store.AuditFilter{Denied: &yes, Caller: "bob"},
			func(a *mirror.AuditEntry) bool { return a.Denied && a.Caller == "bob" },
		},
		"from": {store.AuditFilter{From: second}, func(a *mirror.AuditEntry) bool { return !a.Time.Before(second) }},
		"to":   {store.AuditFilter{To: second}, func(a *mirror.AuditEntry) bool { return a.Time.Before(second) }},
		"method, from and to": {
			store.AuditFilter{Method: "ResumeProject", From: second, To: second.Add(time.Microsecond)},
			func(a *mirror.AuditEntry) bool { return a.Method == "ResumeProject" && a.Time.Equal(second) },
		},
	} {
		c.filter.Project = project
		want := slices.DeleteFunc(slices.Clone(all), func(a mirror.AuditEntry) bool { return !c.keep(&a) })
		e.want("audit by "+what, e.audit(c.filter), want)
		for _, size := range []int{1, 3, 5} {
			var got []mirror.AuditEntry
			page := c.filter
			for page.Limit = size; ; {
				rows := e.audit(page)
				if got = append(got, rows...); len(rows) < size {
					break
				}
				page.AfterTime, page.AfterID = rows[size-1].Time, rows[size-1].ID
			}
			e.want(fmt.Sprintf("audit by %s, %d at a time", what, size), got, want)
		}
	}
}

func auditOfOthers(e *env) {
	own := mirror.AuditEntry{Project: project, ID: "same", Time: e.now, Method: "PauseProject", Calls: 1}
	theirs, none := own, own
	theirs.Project, theirs.Calls = "other", 2
	none.Project, none.Calls = "", 3
	e.record(own, theirs, none)
	for _, entry := range []mirror.AuditEntry{own, theirs, none} {
		e.want(fmt.Sprintf("audit of project %q", entry.Project), e.audit(store.AuditFilter{Project: entry.Project}),
			[]mirror.AuditEntry{entry})
	}
	for more := 1; more > 0; {
		var err error
		more, err = e.PurgeProject(e.ctx(), "other", mirror.Bucket("other", ""), 100)
		e.must("PurgeProject", err)
	}
	e.want("audit of a project that was purged", e.audit(store.AuditFilter{Project: "other"}), []mirror.AuditEntry(nil))
	e.want("audit of the other", e.audit(store.AuditFilter{Project: project}), []mirror.AuditEntry{own})
}

func auditExpires(e *env) {
	all := e.manyCalls()
	foreign := mirror.AuditEntry{Time: e.now, ID: "of none", Calls: 1}
	e.record(foreign)
	bound := e.now.Add(3 * time.Second)
	e.want("Oldest", e.oldest(project)[store.AgingAudit], e.now)
	young := slices.DeleteFunc(slices.Clone(all), func(a mirror.AuditEntry) bool { return a.Time.Before(bound) })
	e.want("expired", e.expire(store.AgingAudit, bound), len(all)-len(young))
	e.want("audit left", e.audit(store.AuditFilter{Project: project}), young)
	e.want("audit of no project", e.audit(store.AuditFilter{}), []mirror.AuditEntry{foreign})
}
