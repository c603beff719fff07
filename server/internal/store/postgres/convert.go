package postgres

import (
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// nullTime turns a time into a column's value; the zero time is null.
func nullTime(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		return pgtype.Timestamptz{}
	}
	return pgtype.Timestamptz{Time: t.UTC().Truncate(time.Microsecond), Valid: true}
}

// timeOf turns a column's value into a time; null is the zero time.
func timeOf(t pgtype.Timestamptz) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

// text makes s fit for a text column, which takes neither NUL nor what is not
// UTF-8. It is for words about things; ids and content are never altered.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
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

// writeState is the row that gives the lease back and holds s. A change of 0
// writes no change entry.
func writeState(r mirror.Resource, s store.State, change mirror.ChangeKind, now time.Time) dbq.WriteStateParams {
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
		LastError:         text(s.LastError),
		FailTime:          nullTime(s.FailTime),
		FetchTime:         nullTime(s.FetchTime),
		SourceUpdateTime:  nullTime(s.SourceUpdateTime),
		MissingSince:      nullTime(s.MissingSince),
		Background:        s.Background,
		ChangeKind:        int16(change),
		Now:               nullTime(now),
	}
}

// writeDocument adds to a document the state w that was decided on what was seen.
func writeDocument(d dbq.WriteDocumentParams, seen copied, w dbq.WriteStateParams) dbq.WriteDocumentParams {
	d.SeenGeneration, d.SeenDueTime, d.SeenSettle = seen.state.Generation, nullTime(seen.state.Due), seen.state.Settle
	d.SeenBackground, d.Background = seen.state.Background, w.Background
	d.SeenEpoch, d.SeenSha256, d.SeenDeriveVersion = seen.epoch, seen.sha256, seen.deriveVersion
	d.Bucket, d.ProjectID, d.RoomID, d.Kind, d.ResourceID = w.Bucket, w.ProjectID, w.RoomID, w.Kind, w.ResourceID
	d.Generation, d.AppliedGeneration = w.Generation, w.AppliedGeneration
	d.DueTime, d.NotBefore, d.Settle, d.DeleteGeneration = w.DueTime, w.NotBefore, w.Settle, w.DeleteGeneration
	d.Attempts, d.LastError, d.FailTime = w.Attempts, w.LastError, w.FailTime
	d.FetchTime, d.SourceUpdateTime, d.MissingSince = w.FetchTime, w.SourceUpdateTime, w.MissingSince
	d.ChangeKind, d.Now = w.ChangeKind, w.Now
	if w.ChangeKind == 0 {
		d.Content, d.Data, d.PlainText = nil, nil, "" // what is not written need not be sent
	}
	return d
}
