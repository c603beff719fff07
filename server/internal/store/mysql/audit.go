package mysql

import (
	"cmp"
	"context"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// recordAuditSQL writes the end of a call, and further refused ones, over the entry of the
// same id.
func recordAuditSQL(n int) string {
	return `insert into mirror_audit (
    bucket, project_id, entry_id, call_time, end_time, denied, method, caller, address, request_id, room_id, kind,
    resource_id, options, code, reason, calls
)
values ` + places(n, 17) + `
on duplicate key update
    end_time = coalesce(greatest(end_time, values(end_time)), end_time, values(end_time)),
    code = if(values(end_time) is null, code, values(code)),
    reason = if(values(end_time) is null, reason, values(reason)),
    calls = if(denied, calls + values(calls), calls)`
}

// RecordAudit is one statement.
func (s *Store) RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error {
	entries = slices.SortedFunc(slices.Values(entries), func(a, b mirror.AuditEntry) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.ID, b.ID))
	})
	args := make([]any, 0, 17*len(entries))
	for _, e := range entries {
		args = append(args, mirror.Bucket(e.Project, ""), rawKey(e.Project), rawKey(e.ID), nullTime(e.Time),
			nullTime(e.EndTime), e.Denied, rawKey(e.Method), rawKey(e.Caller), rawKey(e.Address), rawKey(e.RequestID),
			rawKey(e.Room), int16(e.Kind), rawKey(e.ResourceID), rawKey(e.Options), rawKey(e.Code), rawKey(e.Reason),
			e.Calls)
	}
	return s.writeProject(ctx, "record calls in the audit", func() error {
		_, err := s.q.exec(ctx, recordAuditSQL(len(entries)), args...)
		return err
	})
}
