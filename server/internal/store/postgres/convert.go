package postgres

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// nullTime converts a time to a column value; the zero time becomes null.
func nullTime(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		return pgtype.Timestamptz{}
	}
	return pgtype.Timestamptz{Time: t.UTC().Truncate(time.Microsecond), Valid: true}
}

// sinceEpoch returns a time for a column that is not null; a zero time becomes
// 1970.
func sinceEpoch(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return nullTime(t)
}

// timeOf converts a column value to a time; null becomes the zero time.
func timeOf(t pgtype.Timestamptz) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

func stateOf(r dbq.MirrorResourceState) store.State {
	s := store.State{
		Generation:       r.Generation,
		Applied:          r.AppliedGeneration,
		Due:              timeOf(r.DueTime),
		NotBefore:        timeOf(r.NotBefore),
		Settle:           r.Settle,
		DeleteGeneration: r.DeleteGeneration.Int64,
		LeaseUntil:       timeOf(r.LeaseUntil),
		RefetchAt:        timeOf(r.AgainTime),
		Attempts:         int(r.Attempts),
		LastError:        r.LastError,
		FailTime:         timeOf(r.FailTime),
		FetchTime:        timeOf(r.FetchTime),
		SourceUpdateTime: timeOf(r.SourceUpdateTime),
		MissingSince:     timeOf(r.MissingSince),
		Background:       r.Background,
		EventTime:        timeOf(r.HintTime),
		NoticeTime:       timeOf(r.NoticeTime),
		Deaths:           int(r.Deaths),
	}
	copy(s.LeaseToken[:], r.LeaseToken)
	return s
}

func resourceOf(r dbq.MirrorResourceState) mirror.Resource {
	return mirror.Resource{
		Project: mirror.ProjectID(r.ProjectID),
		Room:    mirror.RoomID(r.RoomID),
		Kind:    mirror.Kind(r.Kind),
		ID:      r.ResourceID,
	}
}

// writeState returns the parameters that store s and release the lease. A change of
// 0 writes no change entry.
func writeState(r mirror.Resource, p store.Plan, now time.Time) dbq.WriteStateParams {
	s := p.State
	return dbq.WriteStateParams{
		Bucket:            r.Bucket(),
		ProjectID:         string(r.Project),
		RoomID:            string(r.Room),
		Kind:              int16(r.Kind),
		ResourceID:        r.ID,
		Generation:        s.Generation,
		AppliedGeneration: s.Applied,
		DueTime:           nullTime(s.Due),
		NotBefore:         nullTime(s.NotBefore),
		Settle:            s.Settle,
		DeleteGeneration:  pgtype.Int8{Int64: s.DeleteGeneration, Valid: s.DeleteGeneration != 0},
		Attempts:          int32(s.Attempts), //nolint:gosec // bounded by the number of attempts allowed
		Deaths:            int16(s.Deaths),   //nolint:gosec // bounded likewise
		LastError:         store.Text(s.LastError),
		FailTime:          nullTime(s.FailTime),
		FetchTime:         nullTime(s.FetchTime),
		SourceUpdateTime:  nullTime(s.SourceUpdateTime),
		MissingSince:      nullTime(s.MissingSince),
		Background:        s.Background,
		Parked:            s.TaskState(now) == mirror.TaskWaiting,
		ChangeKind:        int16(p.Change),
		Epoch:             p.Epoch,
		Now:               nullTime(now),
	}
}

// stateKey returns the key of a state.
func stateKey(r mirror.Resource) dbq.LockStateParams {
	return dbq.LockStateParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
	}
}

// documentCopy identifies the stored copy of a document.
func documentCopy(epoch int64, sum, state []byte, deriveVersion int32) mirror.DocumentCopy {
	c := mirror.DocumentCopy{Epoch: epoch, DeriveVersion: int(deriveVersion)}
	copy(c.SHA256[:], sum)
	copy(c.StateSHA256[:], state)
	return c
}

// writeDocument returns the parameters that write a document and the new state w of
// its resource, if what the lease has seen is still true.
func writeDocument(doc dbq.UpsertDocumentParams, lease mirror.Lease, w dbq.WriteStateParams) dbq.WriteDocumentParams {
	st, stored := store.StateSeen(lease), lease.Seen.Copy
	d := dbq.WriteDocumentParams{
		Token: lease.Token[:], Epoch: doc.Epoch, Content: doc.Content, ContentSha256: doc.ContentSha256,
		StateSha256: doc.StateSha256, Size: doc.Size, DeriveVersion: doc.DeriveVersion,
		Data: doc.Data, DataProblem: doc.DataProblem, PlainText: doc.PlainText,
	}
	d.SeenGeneration, d.SeenDueTime, d.SeenSettle = st.Generation, nullTime(st.Due), st.Settle
	d.SeenBackground, d.Background, d.Parked = st.Background, w.Background, w.Parked
	d.SeenEpoch, d.SeenDeriveVersion = stored.Epoch, int32(stored.DeriveVersion) //nolint:gosec // from such a column
	if stored.Epoch != 0 {
		d.SeenSha256 = stored.SHA256[:]
	}
	d.Bucket, d.ProjectID, d.RoomID, d.Kind, d.ResourceID = w.Bucket, w.ProjectID, w.RoomID, w.Kind, w.ResourceID
	d.Generation, d.AppliedGeneration = w.Generation, w.AppliedGeneration
	d.DueTime, d.NotBefore, d.Settle, d.DeleteGeneration = w.DueTime, w.NotBefore, w.Settle, w.DeleteGeneration
	d.Attempts, d.Deaths, d.LastError, d.FailTime = w.Attempts, w.Deaths, w.LastError, w.FailTime
	d.FetchTime, d.SourceUpdateTime, d.MissingSince = w.FetchTime, w.SourceUpdateTime, w.MissingSince
	d.ChangeKind, d.Now = w.ChangeKind, w.Now
	if w.ChangeKind == 0 {
		d.Content, d.Data, d.PlainText = nil, nil, "" // do not send what is not written
	}
	return d
}
