package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// writeTerms writes the terms of a room, whose row the transaction has locked or written.
func writeTerms(ctx context.Context, q *dbq.Queries, room mirror.Resource, source []byte, created time.Time) error {
	terms := store.RoomTermHashes(source)
	arg := dbq.UpsertRoomTermsParams{
		Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room), Terms: terms,
		CreateTime: nullTime(store.ListTime(created)),
	}
	return errors.Join(q.DeleteRoomTerms(ctx, dbq.DeleteRoomTermsParams{
		Bucket: arg.Bucket, ProjectID: arg.ProjectID, RoomID: arg.RoomID, Terms: terms,
	}), q.UpsertRoomTerms(ctx, arg))
}

// unindexed is the key of a room or thread that is to be indexed.
type unindexed struct {
	bucket                int16
	project, room, thread string
}

// index is one transaction about rows of one project in one bucket. find returns their keys
// in order, and write locks rows in that order and writes the terms of those that are still
// to be indexed.
func (s *Store) index(ctx context.Context, what string, find func(q *dbq.Queries) ([]unindexed, error),
	write func(q, later *dbq.Queries, bucket int16, project string, rooms, threads []string) error,
) (last store.IndexPlace, n int, err error) {
	err = s.tx(ctx, what, func(q, later *dbq.Queries) error {
		all, err := find(q)
		n = 0
		if err != nil || len(all) == 0 {
			return err
		}
		var rooms, threads []string
		for _, key := range all {
			if key.bucket == all[0].bucket && key.project == all[0].project {
				rooms, threads = append(rooms, key.room), append(threads, key.thread)
			}
		}
		n = len(rooms)
		last = store.IndexPlace{
			Bucket: all[0].bucket, Project: mirror.ProjectID(all[0].project), Room: mirror.RoomID(rooms[n-1]),
			Thread: threads[n-1],
		}
		return write(q, later, all[0].bucket, all[0].project, rooms, threads)
	})
	return last, n, err
}

// IndexRooms locks rooms in one statement.
func (s *Store) IndexRooms(ctx context.Context, project mirror.ProjectID, after store.IndexPlace, limit int) (
	last store.IndexPlace, n int, err error,
) {
	return s.index(ctx, "index rooms", func(q *dbq.Queries) (keys []unindexed, err error) {
		rows, err := q.UnindexedRooms(ctx, dbq.UnindexedRoomsParams{
			AfterBucket: after.Bucket, AfterProject: string(after.Project), AfterRoom: string(after.Room),
			ProjectID: string(project), MaxRows: int32(limit), //nolint:gosec // a small constant of the caller
		})
		for _, row := range rows {
			keys = append(keys, unindexed{bucket: row.Bucket, project: row.ProjectID, room: row.RoomID})
		}
		return keys, err
	}, func(q, later *dbq.Queries, bucket int16, project string, ids, _ []string) error {
		rooms, err := q.LockUnindexedRooms(ctx, dbq.LockUnindexedRoomsParams{
			Bucket: bucket, ProjectID: project, RoomIds: ids,
		})
		if err != nil {
			return err
		}
		ids = nil
		for _, row := range rooms {
			room := mirror.Resource{Project: mirror.ProjectID(project), Room: mirror.RoomID(row.RoomID)}
			if err := writeTerms(ctx, later, room, row.SourceJson, timeOf(row.CreateTime)); err != nil {
				return err
			}
			ids = append(ids, row.RoomID)
		}
		return later.MarkRoomsIndexed(ctx, dbq.MarkRoomsIndexedParams{Bucket: bucket, ProjectID: project, RoomIds: ids})
	})
}

// IndexThreads deletes what terms they have, which are few, and inserts theirs.
func (s *Store) IndexThreads(ctx context.Context, project mirror.ProjectID, after store.IndexPlace, limit int) (
	last store.IndexPlace, n int, err error,
) {
	return s.index(ctx, "index threads", func(q *dbq.Queries) (keys []unindexed, err error) {
		rows, err := q.UnindexedThreads(ctx, dbq.UnindexedThreadsParams{
			AfterBucket: after.Bucket, AfterProject: string(after.Project), AfterRoom: string(after.Room),
			AfterThread: after.Thread, ProjectID: string(project),
			MaxRows: int32(limit), //nolint:gosec // a small constant of the caller
		})
		for _, row := range rows {
			keys = append(keys, unindexed{row.Bucket, row.ProjectID, row.RoomID, row.ThreadID})
		}
		return keys, err
	}, func(q, later *dbq.Queries, bucket int16, project string, rooms, threads []string) error {
		locked, err := q.LockUnindexedThreads(ctx, dbq.LockUnindexedThreadsParams{
			Bucket: bucket, ProjectID: project, RoomIds: rooms, ThreadIds: threads,
		})
		if err != nil {
			return err
		}
		of := dbq.MarkThreadsIndexedParams{Bucket: bucket, ProjectID: project}
		terms := dbq.InsertThreadTermsParams{Bucket: bucket, ProjectID: project}
		for _, row := range locked {
			of.RoomIds, of.ThreadIds = append(of.RoomIds, row.RoomID), append(of.ThreadIds, row.ThreadID)
			for _, term := range store.ThreadTerms(row.MetadataText) {
				terms.RoomIds, terms.ThreadIds = append(terms.RoomIds, row.RoomID), append(terms.ThreadIds, row.ThreadID)
				terms.Terms = append(terms.Terms, term)
			}
		}
		return errors.Join(later.DeleteThreadTerms(ctx, dbq.DeleteThreadTermsParams(of)),
			later.InsertThreadTerms(ctx, terms), later.MarkThreadsIndexed(ctx, of))
	})
}

// goneTerms are terms of what is gone, column by column, in order.
type goneTerms struct{ rooms, threads, terms []string }

// CleanTerms reads the terms without a lock. Where it finds some of what is gone, it locks the
// rooms, also those that are missing, so that nothing of that comes back meanwhile.
func (s *Store) CleanTerms(ctx context.Context, project mirror.ProjectID, of mirror.Kind, bucket int16,
	after store.TermPlace, limit int,
) (out store.CleanedTerms, err error) {
	var gone goneTerms
	if err := retry(ctx, func() (err error) {
		out, gone, err = s.termsAfter(ctx, project, of, bucket, after, limit)
		return err
	}); err != nil {
		return store.CleanedTerms{}, classify(ctx, fmt.Errorf("read terms: %w", err))
	}
	if len(gone.terms) == 0 {
		return out, nil
	}
	err = s.tx(ctx, "delete terms of what is gone", func(q, later *dbq.Queries) error {
		held := dbq.HoldRoomsParams{
			Bucket: bucket, ProjectID: string(project), RoomIds: slices.Compact(slices.Clone(gone.rooms)),
		}
		if err := q.HoldRooms(ctx, held); err != nil {
			return err
		}
		locked, err := q.LockHeldRooms(ctx, dbq.LockHeldRoomsParams(held))
		if err != nil {
			return err
		}
		var deleted int64
		if of == mirror.KindThread {
			deleted, err = q.DeleteGoneThreadTerms(ctx, dbq.DeleteGoneThreadTermsParams{
				Bucket: bucket, ProjectID: string(project), RoomIds: gone.rooms, ThreadIds: gone.threads, Terms: gone.terms,
			})
		} else {
			deleted, err = deleteGoneRoomTerms(ctx, q, later, held, locked, gone)
		}
		out.Deleted = int(deleted)
		return errors.Join(err, later.DropHeldRooms(ctx, dbq.DropHeldRoomsParams(held)))
	})
	if err != nil {
		return store.CleanedTerms{}, err
	}
	return out, nil
}

// termsAfter reads terms behind one, and returns those of what is gone.
func (s *Store) termsAfter(ctx context.Context, project mirror.ProjectID, of mirror.Kind, bucket int16,
	after store.TermPlace, limit int,
) (out store.CleanedTerms, gone goneTerms, err error) {
	out.Last = after
	seen := 0
	see := func(room, thread, term string, kept bool) {
		seen++
		out.Last = store.TermPlace{Room: mirror.RoomID(room), Thread: thread, Term: term}
		if !kept {
			gone.rooms, gone.threads = append(gone.rooms, room), append(gone.threads, thread)
			gone.terms = append(gone.terms, term)
		}
	}
	if of == mirror.KindThread {
		rows, err := s.q.ThreadTermsAfter(ctx, dbq.ThreadTermsAfterParams{
			Bucket: bucket, ProjectID: string(project), AfterRoom: string(after.Room), AfterThread: after.Thread,
			AfterTerm: after.Term, MaxRows: int32(limit), //nolint:gosec // a small constant of the caller
		})
		if err != nil {
			return out, gone, err
		}
		for _, row := range rows {
			see(row.RoomID, row.ThreadID, row.Term, row.Kept)
		}
	} else {
		rows, err := s.q.RoomTermsAfter(ctx, dbq.RoomTermsAfterParams{
			Bucket: bucket, ProjectID: string(project), AfterRoom: string(after.Room), AfterTerm: []byte(after.Term),
			MaxRows: int32(limit), //nolint:gosec // a small constant of the caller
		})
		if err != nil {
			return out, gone, err
		}
		for _, row := range rows {
			see(row.RoomID, "", string(row.Term), row.Kept)
		}
	}
	out.More = seen == limit
	return out, gone, nil
}

// deleteGoneRoomTerms deletes those terms whose room is still gone.
func deleteGoneRoomTerms(ctx context.Context, q, later *dbq.Queries, held dbq.HoldRoomsParams,
	locked []dbq.LockHeldRoomsRow, terms goneTerms,
) (int64, error) {
	gone := make(map[string]bool)
	for _, row := range locked {
		gone[row.RoomID] = row.Gone
	}
	arg := dbq.DeleteGoneRoomTermsParams{Bucket: held.Bucket, ProjectID: held.ProjectID}
	for i, room := range terms.rooms {
		if gone[room] {
			arg.RoomIds, arg.Terms = append(arg.RoomIds, room), append(arg.Terms, []byte(terms.terms[i]))
		}
	}
	unmarked := later.UnmarkIndexed(ctx, dbq.UnmarkIndexedParams{
		Bucket: held.Bucket, ProjectID: held.ProjectID, RoomIds: slices.Compact(slices.Clone(arg.RoomIds)),
	})
	deleted, err := q.DeleteGoneRoomTerms(ctx, arg)
	return deleted, errors.Join(unmarked, err)
}
