package sqllist

import (
	"context"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// AuditEntries reads an index from the latest entry on, one that has only what the filter
// selects: refused calls can be many more than others, and so can the calls of a method.
func (r *Reader) AuditEntries(ctx context.Context, f store.AuditFilter) ([]mirror.AuditEntry, error) {
	sorts := []bool{false, true}
	if f.Denied != nil {
		sorts = []bool{*f.Denied}
	}
	return latestOf(sorts, f.Limit, func(e *mirror.AuditEntry) (time.Time, string) {
		return e.Time, e.ID
	}, func(denied bool) ([]mirror.AuditEntry, error) {
		return list(ctx, r, "list audit entries", r.auditEntries(f, denied), func(row Row, e *mirror.AuditEntry) error {
			e.Project = f.Project
			return row.Scan(&e.ID, at(&e.Time), at(&e.EndTime), &e.Denied, &e.Method, &e.Caller, &e.Address, &e.RequestID,
				&e.Room, &e.Kind, &e.ResourceID, &e.Options, &e.Code, &e.Reason, &e.Calls)
		})
	})
}

func (r *Reader) auditEntries(f store.AuditFilter, denied bool) *statement {
	index := "mirror_audit_by_sort"
	switch {
	case f.Caller != "" && f.Method != "":
		index = "mirror_audit_by_caller_method"
	case f.Caller != "":
		index = "mirror_audit_by_caller"
	case f.Method != "":
		index = "mirror_audit_by_method"
	}
	s := r.query(`select a.entry_id, a.call_time, a.end_time, a.denied, a.method, a.caller, a.address, a.request_id,
    a.room_id, a.kind, a.resource_id, a.options, a.code, a.reason, a.calls
from mirror_audit a` + r.by(index))
	s.whereIf(r.dialect.Routed, "a.bucket = ?", mirror.Bucket(f.Project, "")).
		where("a.project_id = ?", f.Project).
		where("a.denied = ?", denied).
		whereIf(f.Caller != "", "a.caller = ?", f.Caller).
		whereIf(f.Method != "", "a.method = ?", f.Method)
	s.byValues = f.Caller != "" || f.Method != ""
	s.between("a.call_time", "a.entry_id", f.From, f.To, f.AfterTime, f.AfterID)
	return s.page([]string{"a.call_time desc", "a.entry_id"}, f.Limit)
}
