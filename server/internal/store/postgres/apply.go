package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// head is what is stored of a room's incarnation.
type head struct {
	epoch      int64 // 0: no row
	sha256     []byte
	createTime time.Time
	deleteTime time.Time
}

func (h head) lives() bool { return h.epoch > 0 && h.deleteTime.IsZero() }

// ApplyRoom locks the room's state, raises what is in the room, and writes the
// room last, which is the order of locks.
func (s *Store) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	sum := sha256.Sum256(room.Source)
	arg := dbq.UpsertRoomParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
		SourceJson: room.Source, ContentSha256: sum[:],
		CreateTime: nullTime(room.CreateTime), LastConnectionTime: nullTime(room.LastConnectionTime),
		OrganizationID: text(room.OrganizationID),
		Data:           room.Source, DataProblem: text(room.DataProblem),
	}
	if room.DataProblem != "" {
		arg.Data = nil
	}
	var out mirror.Applied
	apply := func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		st, h, err := lockLeased(ctx, q, lease)
		if err != nil {
			return err
		}
		reborn := !h.lives() || !h.createTime.Equal(timeOf(arg.CreateTime))
		var change mirror.ChangeKind
		if reborn || !bytes.Equal(h.sha256, sum[:]) {
			change = mirror.ChangeUpserted
		}
		if reborn || !st.MissingSince.IsZero() {
			if out.AlsoDue, err = raiseChildren(ctx, q, r, lease.Background, now); err != nil {
				return err
			}
		}
		if change != 0 {
			arg.Epoch = h.epoch
			if reborn {
				arg.Epoch++
			}
			if err := later.UpsertRoom(ctx, arg); err != nil {
				return err
			}
		}
		st = st.Succeed(lease, room.FetchTime, now, settle)
		out.Generation, out.Due, out.Changed, out.Stale = st.Applied, st.Due, change != 0, reborn && h.epoch > 0
		return later.WriteState(ctx, writeState(r, st, change, now))
	}
	err := s.tx(ctx, "apply room", apply)
	if refused(err) && arg.Data != nil {
		arg.Data, arg.DataProblem = nil, problem(err)
		err = s.tx(ctx, "apply room", apply)
	}
	return out, err
}

// raiseChildren raises everything known to be in the room, and what every room
// has whether it was heard of or not.
func raiseChildren(ctx context.Context, q *dbq.Queries, room mirror.Resource, background bool,
	now time.Time) ([]mirror.Resource, error) {
	rows, err := q.RaiseChildren(ctx, dbq.RaiseChildrenParams{
		Now: nullTime(now), Background: background, Bucket: room.Bucket(), ProjectID: string(room.Project),
		RoomID: string(room.Room),
	})
	if err != nil {
		return nil, err
	}
	var woken []mirror.Resource
	for _, row := range rows {
		woken = append(woken, mirror.Resource{Project: room.Project, Room: room.Room, Kind: mirror.Kind(row.Kind),
			ID: row.ResourceID})
	}
	for _, kind := range mirror.RoomKinds() {
		child := mirror.Resource{Project: room.Project, Room: room.Room, Kind: kind}
		if slices.Contains(woken, child) {
			continue
		}
		n, err := q.InsertState(ctx, dbq.InsertStateParams{
			Now: nullTime(now), Background: background,
			Bucket: child.Bucket(), ProjectID: string(child.Project), RoomID: string(child.Room), Kind: int16(kind),
		})
		if err != nil {
			return nil, err
		}
		if n > 0 {
			woken = append(woken, child)
		}
	}
	slices.SortFunc(woken, mirror.Resource.Compare)
	return woken, nil
}

// problem is what to tell of a refusal: the server's sentence and code. Its
// detail would quote the document.
func problem(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Sprintf("refused by jsonb: %s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	return "refused by jsonb"
}

// copied is what the decision about a document rests on: its state, and which
// copy of it is stored.
type copied struct {
	state         store.State
	epoch         int64 // 0 if there is none
	sha256        []byte
	deriveVersion int32
}

// ApplyDocument hashes before anything is locked, and packs only what is new. It
// decides on what Claim has read, and one statement checks that it still stands
// and writes. If it does not, the decision is made anew under a lock.
func (s *Store) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	sum := sha256.Sum256(doc.Content)
	arg := dbq.WriteDocumentParams{
		Epoch: lease.Epoch, Token: lease.Token[:],
		ContentSha256: sum[:], Size: int64(len(doc.Content)), DeriveVersion: int32(doc.DeriveVersion), //nolint:gosec // a small constant
		Data: doc.Data, DataProblem: text(doc.DataProblem), PlainText: text(doc.Text),
	}
	var out mirror.Applied
	write := func(q *dbq.Queries, c copied) (int64, error) {
		changed := c.epoch != lease.Epoch || c.deriveVersion != arg.DeriveVersion || !bytes.Equal(c.sha256, sum[:])
		var change mirror.ChangeKind
		if changed {
			change = mirror.ChangeUpserted
			if arg.Content == nil {
				arg.Content = s.pack.Pack(doc.Content)
			}
		}
		st := c.state.Succeed(lease, doc.FetchTime, now, settle)
		out = mirror.Applied{Generation: st.Applied, Changed: changed, Due: st.Due}
		return q.WriteDocument(ctx, writeDocument(arg, c, writeState(r, st, change, now)))
	}
	locked := func(q, later *dbq.Queries) error {
		row, err := q.LockChild(ctx, dbq.LockChildParams{
			Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
			Token: lease.Token[:],
		})
		if err = fenced(ctx, q, lease, row.RoomEpoch, err); err != nil {
			return err
		}
		_, err = write(later, copied{stateOf(row.MirrorResourceState), row.DocumentEpoch, row.DocumentSha256,
			row.DocumentDeriveVersion})
		return err
	}
	apply := func() error {
		if c, ok := s.claims.take(lease.Token); ok {
			n, err := write(s.q, c)
			if n > 0 {
				return nil
			}
			if err != nil && !transient(err) {
				return classify(ctx, fmt.Errorf("apply document: %w", err))
			}
		}
		return s.tx(ctx, "apply document", locked)
	}
	err := apply()
	if refused(err) && arg.Data != nil {
		arg.Data, arg.DataProblem = nil, problem(err)
		err = apply()
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// fenced turns what locking a child under its lease gave into an error if the
// room's epoch is not that of the lease. No row means that there is no living room
// or that the lease is lost.
func fenced(ctx context.Context, q *dbq.Queries, lease mirror.Lease, epoch int64, err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		if _, _, err := lockLeased(ctx, q, lease); err != nil {
			return err
		}
		return store.ErrEpochChanged // the lease holds, so it is the room that is not there
	}
	if err == nil && epoch != lease.Epoch {
		return store.ErrEpochChanged
	}
	return err
}

// ApplyMissing settles a 404.
func (s *Store) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration) (mirror.Applied, error) {
	if lease.Resource.Kind == mirror.KindRoom {
		return s.missingRoom(ctx, lease, f.Now, settle)
	}
	return s.missingChild(ctx, lease, f)
}

func (s *Store) missingRoom(ctx context.Context, lease mirror.Lease, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	var out mirror.Applied
	err := s.tx(ctx, "apply missing room", func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		st, h, err := lockLeased(ctx, q, lease)
		if err != nil {
			return err
		}
		// A 404 alone proves nothing. With a delete event that no later fetch has
		// contradicted it does.
		deleted := st.DeleteGeneration != 0 || h.epoch > 0 && !h.lives()
		var change mirror.ChangeKind
		if deleted || !h.lives() {
			if err := later.SettleChildren(ctx, dbq.SettleChildrenParams{Bucket: r.Bucket(), ProjectID: string(r.Project),
				RoomID: string(r.Room)}); err != nil {
				return err
			}
		}
		if deleted && h.lives() {
			change = mirror.ChangeDeleted
			if err := later.TombstoneRoom(ctx, dbq.TombstoneRoomParams{
				DeleteTime: nullTime(now), Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
			}); err != nil {
				return err
			}
		}
		if deleted {
			if err := later.EndSessions(ctx, dbq.EndSessionsParams{
				LeaveTime: nullTime(now), Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
			}); err != nil {
				return err
			}
		}
		st = st.Vanish(lease, now, settle, deleted)
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0, Due: st.Due}
		return later.WriteState(ctx, writeState(r, st, change, now))
	})
	return out, err
}

func (s *Store) missingChild(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	r := lease.Resource
	var out mirror.Applied
	err := s.tx(ctx, "apply missing "+r.Kind.String(), func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		roomState, fresh, err := lockRoom(ctx, q, r.RoomResource(), lease.Background, f.Now)
		if err != nil {
			return err
		}
		st, h, err := lockLeased(ctx, q, lease)
		if err != nil {
			return err
		}
		if h.epoch != lease.Epoch {
			return store.ErrEpochChanged
		}
		if h.epoch > 0 && !h.lives() || !roomState.MissingSince.IsZero() {
			st = st.Vanish(lease, f.Now, 0, false)
		} else {
			if out.AlsoDue, err = wakeRoom(ctx, later, r.RoomResource(), roomState, fresh, st.Background, f.Now); err != nil {
				return err
			}
			if st.MissingSince.IsZero() {
				st.MissingSince = f.Now
			}
			st = st.Fail(lease, f)
		}
		out.Generation, out.Due = st.Applied, st.Due
		return later.WriteState(ctx, writeState(r, st, 0, f.Now))
	})
	return out, err
}

// CleanRoom deletes one bounded batch, of each kind of row what the kinds before
// leave to it.
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
