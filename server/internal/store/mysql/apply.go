package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// head is what is stored of a room's incarnation.
type head struct {
	epoch      int64 // 0: no row
	sha256     [32]byte
	createTime time.Time
	deleteTime time.Time
}

func (h head) lives() bool { return h.epoch > 0 && h.deleteTime.IsZero() }

func roomHead(ctx context.Context, q *queries, r mirror.Resource) (head, error) {
	row, err := q.RoomHead(ctx, dbq.RoomHeadParams{Bucket: r.Bucket(), ProjectID: rawKey(r.Project),
		RoomID: rawKey(r.Room)})
	if errors.Is(err, sql.ErrNoRows) {
		return head{}, nil
	}
	if err != nil {
		return head{}, err
	}
	h := head{epoch: row.Epoch, createTime: timeOf(row.CreateTime), deleteTime: timeOf(row.DeleteTime)}
	copy(h.sha256[:], row.ContentSha256)
	return h, nil
}

// packetSlack is what a statement may take beside its long values.
const packetSlack = 32 << 10

// escaped is the number of bytes that b takes in the text of a statement.
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

// fit leaves out derived data that would make a statement with content too large
// for one packet, and refuses content that is too large by itself: the server
// would end the connection over it, time and again. Values are counted as if they
// stood in the text of the statement. They are sent apart from it, but a Vitess on
// the way puts them there.
func (s *Store) fit(content, data []byte, words string) (without bool, err error) {
	limit := s.connector.maxPacket.Load() - packetSlack
	if 2*int64(len(content)+len(data)+len(words)) <= limit {
		return false, nil // whatever is to be escaped
	}
	base := escaped(content) + escaped(words)
	if base > limit {
		return false, fault.New(fault.Precondition, fault.ReasonDocumentTooLarge,
			fmt.Sprintf("this needs %d bytes in one packet and the database takes %d; raise its max_allowed_packet", base,
				limit))
	}
	return data != nil && base+escaped(data) > limit, nil
}

// tooLargeData says why data was left out by fit.
const tooLargeData = "with the document larger than the database takes in one packet (max_allowed_packet)"

// ApplyRoom locks the room's state, raises what is in the room, and writes the
// room last, which is the order of locks.
func (s *Store) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	sum := sha256.Sum256(room.Source)
	arg := dbq.UpsertRoomParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
		SourceJson: rawKey(room.Source), ContentSha256: sum[:],
		CreateTime: nullTime(room.CreateTime), LastConnectionTime: nullTime(room.LastConnectionTime),
		OrganizationID: text(room.OrganizationID),
		Data:           room.Source, DataProblem: text(room.DataProblem),
	}
	if room.DataProblem != "" {
		arg.Data = nil
	}
	var out mirror.Applied
	apply := func(q *queries) error {
		out = mirror.Applied{}
		st, err := lockState(ctx, q, r, lease.Token)
		if err != nil {
			return err
		}
		h, err := roomHead(ctx, q, r)
		if err != nil {
			return err
		}
		reborn := !h.lives() || !h.createTime.Equal(timeOf(arg.CreateTime))
		var change mirror.ChangeKind
		if reborn || h.sha256 != sum {
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
			without, err := s.fit(arg.SourceJson, arg.Data, arg.OrganizationID)
			if err != nil {
				return err
			}
			if without {
				arg.Data, arg.DataProblem = nil, tooLargeData
			}
			if err := q.UpsertRoom(ctx, arg); err != nil {
				return err
			}
		}
		st = st.Succeed(lease, room.FetchTime, now, settle)
		out.Generation, out.Due, out.Changed, out.Stale = st.Applied, st.Due, change != 0, reborn && h.epoch > 0
		return finish(ctx, q, r, st, change, now)
	}
	err := s.tx(ctx, "apply room", apply)
	if refused(err) && arg.Data != nil {
		arg.Data, arg.DataProblem = nil, problem(err)
		err = s.tx(ctx, "apply room", apply)
	}
	return out, err
}

// raiseChildren raises everything known to be in the room, and what every room
// has whether it was heard of or not. It is as urgent as the room.
func raiseChildren(ctx context.Context, q *queries, room mirror.Resource, background bool,
	now time.Time) ([]mirror.Resource, error) {
	if err := q.RaiseChildren(ctx, dbq.RaiseChildrenParams{
		Background: background, Now: nullTime(now), Bucket: room.Bucket(), ProjectID: rawKey(room.Project),
		RoomID: rawKey(room.Room),
	}); err != nil {
		return nil, err
	}
	// Whatever has come in since then is due as well.
	rows, err := q.Children(ctx, dbq.ChildrenParams{Bucket: room.Bucket(), ProjectID: rawKey(room.Project),
		RoomID: rawKey(room.Room)})
	if err != nil {
		return nil, err
	}
	var woken []mirror.Resource
	for _, row := range rows {
		woken = append(woken, mirror.Resource{Project: room.Project, Room: room.Room, Kind: mirror.Kind(row.Kind),
			ID: string(row.ResourceID)})
	}
	for _, kind := range mirror.RoomKinds() {
		child := mirror.Resource{Project: room.Project, Room: room.Room, Kind: kind}
		if slices.Contains(woken, child) {
			continue
		}
		fresh, err := insertState(ctx, q, child, background, now)
		if err != nil {
			return nil, err
		}
		if fresh {
			woken = append(woken, child)
		}
	}
	return woken, nil
}

// ApplyDocument hashes before the transaction begins, and packs only what is
// new.
func (s *Store) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	sum := sha256.Sum256(doc.Content)
	arg := dbq.UpsertDocumentParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID),
		Epoch:      lease.Epoch, ContentSha256: sum[:], Size: int64(len(doc.Content)),
		DeriveVersion: int32(doc.DeriveVersion), //nolint:gosec // a small constant
		Data:          doc.Data, DataProblem: text(doc.DataProblem), PlainText: text(doc.Text),
	}
	var out mirror.Applied
	apply := func(q *queries) error {
		out = mirror.Applied{}
		st, err := lockState(ctx, q, r, lease.Token)
		if err != nil {
			return err
		}
		row, err := q.ShareRoom(ctx, dbq.ShareRoomParams{
			Bucket: arg.Bucket, ProjectID: arg.ProjectID, RoomID: arg.RoomID, Kind: arg.Kind, ResourceID: arg.ResourceID,
		})
		if errors.Is(err, sql.ErrNoRows) || err == nil && row.RoomEpoch != lease.Epoch {
			return store.ErrEpochChanged
		}
		if err != nil {
			return err
		}
		changed := row.DocumentEpoch.Int64 != lease.Epoch || row.DeriveVersion.Int32 != arg.DeriveVersion ||
			string(row.ContentSha256) != string(sum[:])
		var change mirror.ChangeKind
		if changed {
			change = mirror.ChangeUpserted
			if arg.Content == nil {
				arg.Content = s.pack.Pack(doc.Content)
			}
			without, err := s.fit(arg.Content, arg.Data, arg.PlainText)
			if err != nil {
				return err
			}
			if without {
				arg.Data, arg.DataProblem = nil, tooLargeData
			}
			if err := q.UpsertDocument(ctx, arg); err != nil {
				return err
			}
		}
		st = st.Succeed(lease, doc.FetchTime, now, settle)
		out = mirror.Applied{Generation: st.Applied, Changed: changed, Due: st.Due}
		return finish(ctx, q, r, st, change, now)
	}
	err := s.tx(ctx, "apply document", apply)
	if refused(err) && arg.Data != nil {
		arg.Data, arg.DataProblem = nil, problem(err)
		err = s.tx(ctx, "apply document", apply)
	}
	return out, err
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
	err := s.tx(ctx, "apply missing room", func(q *queries) error {
		out = mirror.Applied{}
		st, err := lockState(ctx, q, r, lease.Token)
		if err != nil {
			return err
		}
		h, err := roomHead(ctx, q, r)
		if err != nil {
			return err
		}
		// A 404 alone proves nothing. With a delete event that no later fetch has
		// contradicted it does.
		deleted := st.DeleteGeneration != 0 || h.epoch > 0 && !h.lives()
		var change mirror.ChangeKind
		if deleted || !h.lives() {
			if err := q.SettleChildren(ctx, dbq.SettleChildrenParams{Bucket: r.Bucket(), ProjectID: rawKey(r.Project),
				RoomID: rawKey(r.Room)}); err != nil {
				return err
			}
		}
		if deleted && h.lives() {
			change = mirror.ChangeDeleted
			if err := q.TombstoneRoom(ctx, dbq.TombstoneRoomParams{
				DeleteTime: nullTime(now), Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
			}); err != nil {
				return err
			}
		}
		if deleted {
			// Those, too, that were entered in a room nobody had mirrored.
			if _, err := q.EndSessionsOfRoom(ctx, dbq.EndSessionsOfRoomParams{
				LeaveTime: nullTime(now), Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
			}); err != nil {
				return err
			}
		}
		st = st.Vanish(lease, now, settle, deleted)
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0, Due: st.Due}
		return finish(ctx, q, r, st, change, now)
	})
	return out, err
}

func (s *Store) missingChild(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	r := lease.Resource
	var out mirror.Applied
	err := s.tx(ctx, "apply missing "+r.Kind.String(), func(q *queries) error {
		out = mirror.Applied{}
		roomState, h, fresh, err := lockRoom(ctx, q, r.RoomResource(), lease.Background, f.Now)
		if err != nil {
			return err
		}
		gone := h.epoch > 0 && !h.lives() || !roomState.MissingSince.IsZero()
		if !gone {
			if out.AlsoDue, err = wakeRoom(ctx, q, r.RoomResource(), fresh, lease.Background, f.Now); err != nil {
				return err
			}
		}
		st, err := lockState(ctx, q, r, lease.Token)
		if err != nil {
			return err
		}
		if h.epoch != lease.Epoch {
			return store.ErrEpochChanged
		}
		if gone {
			st = st.Vanish(lease, f.Now, 0, false)
		} else {
			if st.MissingSince.IsZero() {
				st.MissingSince = f.Now
			}
			st = st.Fail(lease, f)
		}
		out.Generation, out.Due = st.Applied, st.Due
		return finish(ctx, q, r, st, 0, f.Now)
	})
	return out, err
}

// CleanRoom deletes one bounded batch. Epochs only rise, so what is older than
// the one read here stays so.
func (s *Store) CleanRoom(ctx context.Context, room mirror.Resource, limit int) (int, error) {
	n, err := s.clean(ctx, room, limit)
	if err != nil {
		return 0, classify(ctx, fmt.Errorf("clean room: %w", err))
	}
	return n, nil
}

func (s *Store) clean(ctx context.Context, room mirror.Resource, limit int) (int, error) {
	var h head
	err := retry(ctx, func() (err error) {
		h, err = roomHead(ctx, s.q, room)
		return err
	})
	if err != nil || !h.lives() {
		return 0, err
	}
	documents := dbq.CleanDocumentsParams{Bucket: room.Bucket(), ProjectID: rawKey(room.Project),
		RoomID: rawKey(room.Room), Epoch: h.epoch}
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
	threads, err := s.cleanThreads(ctx, room, h.epoch, limit-n)
	return n + threads, err
}
