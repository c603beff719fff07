package postgres

import (
	"context"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// RecordAudit is one statement.
func (s *Store) RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error {
	var arg dbq.RecordAuditParams
	for _, e := range entries {
		arg.Bucket = append(arg.Bucket, mirror.Bucket(e.Project, ""))
		arg.ProjectID = append(arg.ProjectID, string(e.Project))
		arg.EntryID = append(arg.EntryID, e.ID)
		arg.CallTime = append(arg.CallTime, nullTime(e.Time))
		arg.EndTime = append(arg.EndTime, nullTime(e.EndTime))
		arg.Denied = append(arg.Denied, e.Denied)
		arg.Method = append(arg.Method, e.Method)
		arg.Caller = append(arg.Caller, e.Caller)
		arg.Address = append(arg.Address, e.Address)
		arg.RequestID = append(arg.RequestID, e.RequestID)
		arg.RoomID = append(arg.RoomID, string(e.Room))
		arg.Kind = append(arg.Kind, int16(e.Kind))
		arg.ResourceID = append(arg.ResourceID, e.ResourceID)
		arg.Options = append(arg.Options, e.Options)
		arg.Code = append(arg.Code, e.Code)
		arg.Reason = append(arg.Reason, e.Reason)
		arg.Calls = append(arg.Calls, e.Calls)
	}
	return s.writeProject(ctx, "record calls in the audit", func() error { return s.q.RecordAudit(ctx, arg) })
}
