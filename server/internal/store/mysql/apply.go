package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// roomCopy reads the stored copy of a room.
func roomCopy(ctx context.Context, q *queries, r mirror.Resource) (store.RoomCopy, error) {
	row, err := q.RoomHead(ctx, dbq.RoomHeadParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
	})
	if errors.Is(err, sql.ErrNoRows) {
		return store.RoomCopy{}, nil
	}
	c := store.RoomCopy{Epoch: row.Epoch, CreateTime: timeOf(row.CreateTime), DeleteTime: timeOf(row.DeleteTime)}
	copy(c.SHA256[:], row.ContentSha256)
	return c, err
}

// packetSlack is the space for the rest of a statement with long values.
const packetSlack = 32 << 10

// escaped returns the length of b in the text of a statement.
func escaped[B ~[]byte | ~string](b B) int64 {
	n := int64(len(b))
	for i := range len(b) {
		switch b[i] {
		case 0, '\n', '\r', '\x1a', '\'', '"', '\\':
			n++
		}
	}
	return n
}

// fit removes derived data that would make the statement too large for one packet,
// and refuses content that is too large by itself: the server would close the
// connection on every attempt. Values count as if they were in the text of the
// statement. They are sent separately, but Vitess puts them into the text.
func (s *Store) fit(content, data []byte, words string) (without bool, err error) {
	limit := s.connector.maxPacket.Load() - packetSlack
	if 2*int64(len(content)+len(data)+len(words)) <= limit {
		return false, nil // even if everything is escaped
	}
	base := escaped(content) + escaped(words)
	if base > limit {
		return false, fault.New(fault.Precondition, fault.ReasonDocumentTooLarge,
			fmt.Sprintf("the document needs %d bytes in one packet but the database accepts %d; raise its "+
				"max_allowed_packet", base,
				limit))
	}
	return data != nil && base+escaped(data) > limit, nil
}

// tooLargeData is the reason for data removed by fit.
const tooLargeData = "with the document larger than one packet of the database (max_allowed_packet)"

// ApplyRoom locks the room's state, marks the children, and writes the room last,
// in lock order.
func (s *Store) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	fetched := store.RoomCopy{SHA256: sha256.Sum256(room.Source), CreateTime: timeOf(nullTime(room.CreateTime))}
	arg := dbq.UpsertRoomParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
		SourceJson: rawKey(room.Source), ContentSha256: fetched.SHA256[:],
		CreateTime: nullTime(room.CreateTime), LastConnectionTime: nullTime(room.LastConnectionTime),
		OrganizationID: store.Text(room.OrganizationID),
		Data:           room.Source, DataProblem: store.Text(room.DataProblem),
		TermsSha256: fetched.SHA256[:],
	}
	if room.DataProblem != "" {
		arg.Data = nil
	}
	var plan store.RoomPlan
	apply := func() (mirror.Applied, error) {
		return s.end(ctx, "apply room", lease, now, func(q *queries) (store.Plan, error) {
			st, stored, err := lockRoom(ctx, q, lease)
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
			if err := q.markStale(ctx, plan.Stale); err != nil || plan.Change == 0 {
				return plan.Plan, err
			}
			arg.Epoch = plan.Epoch
			without, err := s.fit(arg.SourceJson, arg.Data, arg.OrganizationID)
			if err != nil {
				return store.Plan{}, err
			}
			if without {
				arg.Data, arg.DataProblem = nil, tooLargeData
			}
			if err := q.UpsertRoom(ctx, arg); err != nil {
				return store.Plan{}, err
			}
			terms := []termsOf{{r.Room, arg.SourceJson, fetched.CreateTime}}
			return plan.Plan, s.writeTerms(ctx, q, r.Bucket(), r.Project, terms)
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
func lockChildren(ctx context.Context, q *queries, room mirror.Resource) ([]store.Child, error) {
	arg := dbq.LockChildrenParams{
		Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room), Kinds: store.ChildKinds(),
		AfterID: []byte{}, Limit: q.limit(),
	}
	rows, err := pages(q.piece, func(last *dbq.LockChildrenRow) ([]dbq.LockChildrenRow, error) {
		if last != nil {
			arg.AfterKind, arg.AfterID = last.Kind, last.ResourceID
		}
		return q.LockChildren(ctx, arg)
	})
	known := make([]store.Child, len(rows))
	for i, row := range rows {
		known[i].Resource = mirror.Resource{
			Project: room.Project, Room: room.Room, Kind: mirror.Kind(row.Kind), ID: string(row.ResourceID),
		}
		copy(known[i].LeaseToken[:], row.LeaseToken)
	}
	return known, err
}

// ApplyDocument hashes before the transaction, and packs only new content. It writes
// the content before it locks the state, so that no event on the document waits for
// that. It is the only method that locks a document before its state; what else locks
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
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID),
		Epoch:      lease.Epoch, ContentSha256: fetched.SHA256[:], StateSha256: store.StateColumn(fetched),
		Size:          int64(len(doc.Content)),
		DeriveVersion: int32(doc.DeriveVersion), //nolint:gosec // a small constant
		Data:          doc.Data, DataProblem: store.Text(doc.DataProblem), PlainText: store.Text(doc.Text),
	}
	if lease.Seen != nil && store.WritesDocument(lease.Seen.Copy, fetched) {
		arg.Content = s.pack.Pack(doc.Content) // before a connection is taken
	}
	apply := func() (mirror.Applied, error) {
		return s.end(ctx, "apply document", lease, now, func(q *queries) (store.Plan, error) {
			row, err := q.LockDocument(ctx, dbq.LockDocumentParams{
				Bucket: arg.Bucket, ProjectID: arg.ProjectID, RoomID: arg.RoomID, Kind: arg.Kind, ResourceID: arg.ResourceID,
			})
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return store.Plan{}, err
			}
			stored := documentCopy(row.Epoch, row.ContentSha256, row.StateSha256, row.DeriveVersion)
			if store.WritesDocument(stored, fetched) {
				if doc.Unchanged {
					return store.Plan{}, store.ErrCopyChanged
				}
				if arg.Content == nil {
					arg.Content = s.pack.Pack(doc.Content)
				}
				without, err := s.fit(arg.Content, arg.Data, arg.PlainText)
				if err != nil {
					return store.Plan{}, err
				}
				if without {
					arg.Data, arg.DataProblem = nil, tooLargeData
				}
				if err := q.UpsertDocument(ctx, arg); err != nil {
					return store.Plan{}, err
				}
			}
			st, err := lockState(ctx, q, lease)
			if err != nil {
				return store.Plan{}, err
			}
			if err := shareRoom(ctx, q, lease); err != nil {
				return store.Plan{}, err
			}
			return store.PlanDocument(st, stored, fetched, lease, doc.FetchTime, now, settle), nil
		})
	}
	out, err := apply()
	if refused(err) && arg.Data != nil {
		arg.Data, arg.DataProblem = nil, problem(err)
		out, err = apply()
	}
	return out, err
}

// documentCopy identifies a stored copy by its columns.
func documentCopy(epoch int64, sha256, state []byte, version int32) mirror.DocumentCopy {
	c := mirror.DocumentCopy{Epoch: epoch, DeriveVersion: int(version)}
	copy(c.SHA256[:], sha256)
	copy(c.StateSHA256[:], state)
	return c
}

// shareRoom locks the room against a change of epoch, if it lives in the lease's
// epoch.
func shareRoom(ctx context.Context, q *queries, lease mirror.Lease) error {
	r := lease.Resource
	epoch, err := q.ShareRoom(ctx, dbq.ShareRoomParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
	})
	if errors.Is(err, sql.ErrNoRows) || err == nil && epoch != lease.Epoch {
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
		return s.end(ctx, "apply missing "+r.Kind.String(), lease, f.Now, func(q *queries) (store.Plan, error) {
			st, room, err := lockChild(ctx, q, lease, f.Now)
			if err != nil {
				return store.Plan{}, err
			}
			plan, err := store.PlanMissingChild(st, room, lease, f)
			if err != nil {
				return store.Plan{}, err
			}
			return plan, q.markStale(ctx, plan.Stale)
		})
	}
	return s.end(ctx, "apply missing room", lease, f.Now, func(q *queries) (store.Plan, error) {
		st, stored, err := lockRoom(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingRoom(st, stored, lease, f.Now, settle)
		if plan.SettleChildren {
			if err := q.inPieces(func(limit int32) (int64, error) {
				return q.SettleChildren(ctx, dbq.SettleChildrenParams{
					Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kinds: store.ChildKinds(),
					Limit: limit,
				})
			}); err != nil {
				return store.Plan{}, err
			}
		}
		if plan.Change != 0 {
			if err := q.TombstoneRoom(ctx, dbq.TombstoneRoomParams{
				DeleteTime: nullTime(f.Now), Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
			}); err != nil {
				return store.Plan{}, err
			}
			if err := q.inPieces(func(limit int32) (int64, error) {
				return q.ForgetRoomTerms(ctx, dbq.ForgetRoomTermsParams{
					Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Limit: limit,
				})
			}); err != nil {
				return store.Plan{}, err
			}
		}
		if plan.EndSessions {
			err = endSessions(ctx, q, r, f.Now)
		}
		return plan.Plan, err
	})
}

// endSessions ends the open sessions in a deleted room.
func endSessions(ctx context.Context, q *queries, room mirror.Resource, at time.Time) error {
	return q.inPieces(func(limit int32) (int64, error) {
		return q.EndSessionsOfRoom(ctx, dbq.EndSessionsOfRoomParams{
			LeaveTime: nullTime(at), Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room),
			Limit: limit,
		})
	})
}

// CleanRoom deletes one bounded batch. Epochs only increase, so older rows stay
// older.
func (s *Store) CleanRoom(ctx context.Context, room mirror.Resource, limit int) (int, error) {
	n, err := s.clean(ctx, room, limit)
	if err != nil {
		return 0, classify(ctx, fmt.Errorf("clean room: %w", err))
	}
	return n, nil
}

func (s *Store) clean(ctx context.Context, room mirror.Resource, limit int) (int, error) {
	var h store.RoomCopy
	err := retry(ctx, func() (err error) {
		h, err = roomCopy(ctx, s.q, room)
		return err
	})
	if err != nil || !h.Lives() {
		return 0, err
	}
	documents := dbq.CleanDocumentsParams{
		Bucket: room.Bucket(), ProjectID: rawKey(room.Project),
		RoomID: rawKey(room.Room), Epoch: h.Epoch,
	}
	n := 0
	for _, remove := range []func(limit int) (int64, error){
		func(limit int) (int64, error) {
			documents.Limit = int32(limit) //nolint:gosec // a small constant of the caller
			return s.q.CleanDocuments(ctx, documents)
		},
		func(limit int) (int64, error) {
			documents.Limit = int32(limit) //nolint:gosec // a small constant of the caller
			return s.q.CleanActiveUsers(ctx, dbq.CleanActiveUsersParams(documents))
		},
	} {
		if n == limit {
			return n, nil
		}
		var gone int64
		if err := retry(ctx, func() (err error) {
			gone, err = remove(limit - n)
			return err
		}); err != nil {
			return n, err
		}
		n += int(gone)
	}
	if n == limit {
		return n, nil
	}
	threads, err := s.cleanThreads(ctx, room, h.Epoch, limit-n)
	return n + threads, err
}
