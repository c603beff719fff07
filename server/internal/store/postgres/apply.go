package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// ApplyRoom locks the room's state, marks the children, and writes the room last,
// in lock order.
func (s *Store) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	fetched := store.RoomCopy{SHA256: sha256.Sum256(room.Source), CreateTime: timeOf(nullTime(room.CreateTime))}
	arg := dbq.UpsertRoomParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
		SourceJson: room.Source, ContentSha256: fetched.SHA256[:],
		CreateTime: nullTime(room.CreateTime), LastConnectionTime: nullTime(room.LastConnectionTime),
		OrganizationID: store.Text(room.OrganizationID),
		Data:           room.Source, DataProblem: store.Text(room.DataProblem),
	}
	if room.DataProblem != "" {
		arg.Data = nil
	}
	var plan store.RoomPlan
	apply := func() (mirror.Applied, error) {
		return s.end(ctx, "apply room", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
			st, stored, err := lockLeased(ctx, q, lease)
			if err != nil {
				return store.Plan{}, err
			}
			plan = store.PlanRoom(st, stored, fetched, lease, room.FetchTime, now, settle)
			if plan.Children {
				known, err := lockChildren(ctx, q, r)
				if err != nil {
					return store.Plan{}, err
				}
				plan.MarkChildren(lease, fetched, known, now)
			}
			err = markStale(ctx, later, plan.Stale)
			if plan.Change != 0 {
				arg.Epoch = plan.Epoch
				err = errors.Join(err, later.UpsertRoom(ctx, arg), writeTerms(ctx, later, r, arg.SourceJson, fetched.CreateTime))
			}
			return plan.Plan, err
		})
	}
	out, err := apply()
	if refused(err) && arg.Data != nil {
		arg.Data, arg.DataProblem = nil, problem(err)
		out, err = apply()
	}
	return plan.WithJoined(out), err
}

// lockChildren locks the states of all known children of a room.
func lockChildren(ctx context.Context, q *dbq.Queries, room mirror.Resource) ([]store.Child, error) {
	rows, err := q.LockChildren(ctx, dbq.LockChildrenParams{
		Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room), Kinds: store.ChildKinds(),
	})
	known := make([]store.Child, len(rows))
	for i, row := range rows {
		known[i].Resource = mirror.Resource{
			Project: room.Project, Room: room.Room, Kind: mirror.Kind(row.Kind), ID: row.ResourceID,
		}
		copy(known[i].LeaseToken[:], row.LeaseToken)
	}
	return known, err
}

// problem returns the server's message and code for a refusal. The detail would
// quote the document.
func problem(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Sprintf("refused by jsonb: %s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	return "refused by jsonb"
}

// maxAtOnce is the size up to which a document is written by one statement, which
// keeps the state locked meanwhile.
const maxAtOnce = 256 << 10

// ApplyDocument hashes before it locks anything, and packs only new content. It
// decides based on what Claim has read; one statement checks that this is still
// true and writes.
//
// If it is not, or the document is long, a transaction first sends and writes the
// content and only then locks the state, so that no event on the document waits for
// that. It is the only one that locks a document before its state; what else locks
// documents locks no states.
func (s *Store) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	fetched := mirror.DocumentCopy{
		Epoch: lease.Epoch, SHA256: sha256.Sum256(doc.Content), StateSHA256: doc.StateSHA256,
		DeriveVersion: doc.DeriveVersion,
	}
	arg := dbq.UpsertDocumentParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		Epoch: lease.Epoch, ContentSha256: fetched.SHA256[:], StateSha256: store.StateColumn(fetched),
		Size:          int64(len(doc.Content)),
		DeriveVersion: int32(doc.DeriveVersion), //nolint:gosec // a small constant
		Data:          doc.Data, DataProblem: store.Text(doc.DataProblem), PlainText: store.Text(doc.Text),
	}
	pack := func(stored mirror.DocumentCopy) bool {
		writes := store.WritesDocument(stored, fetched)
		if writes && arg.Content == nil {
			arg.Content = s.pack.Pack(doc.Content)
		}
		return writes
	}
	apart := func() (mirror.Applied, error) {
		return s.end(ctx, "apply document", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
			row, err := q.LockDocument(ctx, dbq.LockDocumentParams{
				Bucket: arg.Bucket, ProjectID: arg.ProjectID, RoomID: arg.RoomID, Kind: arg.Kind, ResourceID: arg.ResourceID,
			})
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return store.Plan{}, err
			}
			stored := documentCopy(row.Epoch, row.ContentSha256, row.StateSha256, row.DeriveVersion)
			if pack(stored) {
				if doc.Unchanged {
					return store.Plan{}, store.ErrCopyChanged
				}
				if err := later.UpsertDocument(ctx, arg); err != nil {
					return store.Plan{}, err
				}
			}
			child, err := q.LockChild(ctx, dbq.LockChildParams{
				Bucket: arg.Bucket, ProjectID: arg.ProjectID, RoomID: arg.RoomID, Kind: arg.Kind, ResourceID: arg.ResourceID,
				Token: lease.Token[:],
			})
			if err = fenced(ctx, q, lease, child.RoomEpoch, err); err != nil {
				return store.Plan{}, err
			}
			st := stateOf(child.MirrorResourceState)
			return store.PlanDocument(st, stored, fetched, lease, doc.FetchTime, now, settle), nil
		})
	}
	apply := func() (mirror.Applied, error) {
		if lease.Seen == nil {
			return apart()
		}
		st, stored := store.StateSeen(lease), lease.Seen.Copy
		if pack(stored) && (doc.Unchanged || len(doc.Content)+len(arg.Data) > maxAtOnce) {
			return apart()
		}
		plan := store.PlanDocument(st, stored, fetched, lease, doc.FetchTime, now, settle)
		n, err := s.q.WriteDocument(ctx, writeDocument(arg, lease, writeState(r, plan, now)))
		switch {
		case err == nil:
			changes := plan.Entries(r, now)
			store.Number(changes, n)
			return plan.Applied(changes), nil
		case !errors.Is(err, pgx.ErrNoRows) && !transient(err):
			return mirror.Applied{}, classify(ctx, fmt.Errorf("apply document: %w", err))
		}
		return apart()
	}
	out, err := apply()
	if refused(err) && arg.Data != nil {
		arg.Data, arg.DataProblem = nil, problem(err)
		out, err = apply()
	}
	return out, err
}

// fenced returns an error if the room's epoch is not that of the lease, given the
// result of locking a child under its lease. No row means that the room is missing
// or deleted, or that the lease is lost.
func fenced(ctx context.Context, q *dbq.Queries, lease mirror.Lease, epoch int64, err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		if _, _, err := lockLeased(ctx, q, lease); err != nil {
			return err
		}
		return store.ErrEpochChanged // the lease is held, so the room is missing
	}
	if err == nil && epoch != lease.Epoch {
		return store.ErrEpochChanged
	}
	return err
}

// ApplyMissing applies a 404.
func (s *Store) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	if r.Kind != mirror.KindRoom {
		return s.end(ctx, "apply missing "+r.Kind.String(), lease, f.Now, func(q, later *dbq.Queries) (store.Plan, error) {
			st, room, err := lockChild(ctx, q, lease, f.Now)
			if err != nil {
				return store.Plan{}, err
			}
			plan, err := store.PlanMissingChild(st, room, lease, f)
			return plan, errors.Join(err, markStale(ctx, later, plan.Stale))
		})
	}
	return s.end(ctx, "apply missing room", lease, f.Now, func(q, later *dbq.Queries) (store.Plan, error) {
		st, stored, err := lockLeased(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingRoom(st, stored, lease, f.Now, settle)
		if plan.SettleChildren {
			err = later.SettleChildren(ctx, dbq.SettleChildrenParams{
				Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kinds: store.ChildKinds(),
			})
		}
		if plan.Change != 0 {
			err = errors.Join(err, later.TombstoneRoom(ctx, dbq.TombstoneRoomParams{
				DeleteTime: nullTime(f.Now), Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
			}), later.ForgetRoomTerms(ctx, dbq.ForgetRoomTermsParams{
				Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
			}))
		}
		if plan.EndSessions {
			err = errors.Join(err, endSessions(ctx, later, r, f.Now))
		}
		return plan.Plan, err
	})
}

// endSessions ends the open sessions in a deleted room.
func endSessions(ctx context.Context, later *dbq.Queries, room mirror.Resource, at time.Time) error {
	return later.EndSessions(ctx, dbq.EndSessionsParams{
		LeaveTime: nullTime(at), Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room),
	})
}

// CleanRoom deletes one bounded batch, kind by kind of rows.
func (s *Store) CleanRoom(ctx context.Context, room mirror.Resource, limit int) (int, error) {
	cleaned := 0
	for _, clean := range []func(limit int32) (int, error){
		func(limit int32) (int, error) {
			n, err := s.q.CleanDocuments(ctx, dbq.CleanDocumentsParams{
				Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room), MaxRows: limit,
			})
			return int(n), err
		},
		func(limit int32) (int, error) {
			threads, err := s.q.CleanThreads(ctx, dbq.CleanThreadsParams{
				Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room), MaxRows: limit,
			})
			return len(threads), err
		},
		func(limit int32) (int, error) {
			n, err := s.q.CleanActiveUsers(ctx, dbq.CleanActiveUsersParams{
				Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room), MaxRows: limit,
			})
			return int(n), err
		},
	} {
		n, err := clean(int32(limit - cleaned)) //nolint:gosec // a small constant of the caller
		if err != nil {
			return 0, classify(ctx, fmt.Errorf("clean room: %w", err))
		}
		if cleaned += n; cleaned >= limit {
			break
		}
	}
	return cleaned, nil
}
