package mysql

import (
	"database/sql"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// The range of a datetime column.
var (
	firstTime = time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

// nullTime converts a time to a column value; the zero time becomes null. A time
// out of range becomes the nearest one in it: an event may contain any time and
// must be recorded.
func nullTime(t time.Time) sql.NullTime {
	switch {
	case t.IsZero():
		return sql.NullTime{}
	case t.Before(firstTime):
		t = firstTime
	case t.After(lastTime):
		t = lastTime
	}
	return sql.NullTime{Time: t.UTC().Truncate(time.Microsecond), Valid: true}
}

// timeOf converts a column value to a time; null becomes the zero time.
func timeOf(t sql.NullTime) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

// rawKey converts an id or a body to a binary value. It is never nil, which would
// be null.
func rawKey[S ~string | ~[]byte](s S) []byte {
	if b := []byte(s); b != nil {
		return b
	}
	return []byte{}
}

func stateOf(r dbq.MirrorResourceState) store.State {
	s := store.State{
		Generation:       r.Generation,
		Applied:          r.AppliedGeneration,
		Due:              timeOf(r.DueTime),
		NotBefore:        timeOf(r.NotBefore),
		Settle:           r.Settle,
		Background:       r.Background,
		DeleteGeneration: r.DeleteGeneration.Int64,
		LeaseUntil:       timeOf(r.LeaseUntil),
		RefetchAt:        timeOf(r.AgainTime),
		Attempts:         int(r.Attempts),
		LastError:        r.LastError,
		FailTime:         timeOf(r.FailTime),
		FetchTime:        timeOf(r.FetchTime),
		SourceUpdateTime: timeOf(r.SourceUpdateTime),
		MissingSince:     timeOf(r.MissingSince),
		EventTime:        timeOf(r.HintTime),
		NoticeTime:       timeOf(r.NoticeTime),
		Deaths:           int(r.Deaths),
	}
	copy(s.LeaseToken[:], r.LeaseToken)
	return s
}

// writeState returns the parameters that store s, with the revision if r has
// changed, and release the lease.
func writeState(r mirror.Resource, s store.State, revision int64) dbq.WriteStateParams {
	return dbq.WriteStateParams{
		Bucket:            r.Bucket(),
		ProjectID:         rawKey(r.Project),
		RoomID:            rawKey(r.Room),
		Kind:              int16(r.Kind),
		ResourceID:        rawKey(r.ID),
		Generation:        s.Generation,
		AppliedGeneration: s.Applied,
		DueTime:           nullTime(s.Due),
		NotBefore:         nullTime(s.NotBefore),
		Settle:            s.Settle,
		Background:        s.Background,
		DeleteGeneration:  sql.NullInt64{Int64: s.DeleteGeneration, Valid: s.DeleteGeneration != 0},
		Attempts:          int32(s.Attempts), //nolint:gosec // bounded by the number of attempts allowed
		Deaths:            int16(s.Deaths),   //nolint:gosec // bounded likewise
		LastError:         store.Text(s.LastError),
		FailTime:          nullTime(s.FailTime),
		FetchTime:         nullTime(s.FetchTime),
		SourceUpdateTime:  nullTime(s.SourceUpdateTime),
		MissingSince:      nullTime(s.MissingSince),
		Revision:          revision,
	}
}

// flag converts a boolean to the server's 0 or 1.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
