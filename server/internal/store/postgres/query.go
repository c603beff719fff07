package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// upper is the last id that begins with prefix: no id is longer than
// mirror.MaxRoomID bytes, and none sorts above a run of the last character.
func upper(prefix string) string {
	return prefix + strings.Repeat("\U0010FFFF", mirror.MaxRoomID/4)
}

// Event reads by key.
func (s *Store) Event(ctx context.Context, project mirror.ProjectID, id string) (mirror.Event, error) {
	row, err := s.q.Event(ctx, dbq.EventParams{Bucket: mirror.Bucket(project, id), ProjectID: string(project),
		EventID: id})
	if err != nil {
		return mirror.Event{}, classify(ctx, fmt.Errorf("read event: %w", err))
	}
	return eventOf(dbq.EventsByTimeRow{
		ProjectID: row.ProjectID, EventID: row.EventID, Type: row.Type, RoomID: row.RoomID, UserID: row.UserID,
		LiveblocksProjectID: row.LiveblocksProjectID, SendTime: row.SendTime, ReceiveTime: row.ReceiveTime,
		SourceTime: row.SourceTime,
		Outcome:    row.Outcome, Payload: row.Payload,
	}), nil
}

func eventOf(row dbq.EventsByTimeRow) mirror.Event {
	return mirror.Event{
		Project:           mirror.ProjectID(row.ProjectID),
		ID:                row.EventID,
		Type:              row.Type,
		Room:              mirror.RoomID(row.RoomID),
		User:              row.UserID,
		LiveblocksProject: row.LiveblocksProjectID,
		Payload:           row.Payload,
		SendTime:          timeOf(row.SendTime),
		ReceiveTime:       timeOf(row.ReceiveTime),
		SourceTime:        timeOf(row.SourceTime),
		Outcome:           mirror.Outcome(row.Outcome),
	}
}

// Events walks the index that fits the filter best.
func (s *Store) Events(ctx context.Context, f store.EventFilter) ([]mirror.Event, error) {
	lower, higher := nullTime(f.From), nullTime(f.To)
	if !lower.Valid {
		lower = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	if !higher.Valid {
		higher = pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	}
	after := nullTime(f.AfterTime)
	if !after.Valid {
		after = pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	}
	limit := int32(f.Limit) //nolint:gosec // a page size, bounded by the caller
	var out []mirror.Event
	var err error
	switch {
	case f.Room != "":
		var rows []dbq.EventsByRoomRow
		rows, err = s.q.EventsByRoom(ctx, dbq.EventsByRoomParams{
			NoPayload: f.NoPayload, ProjectID: string(f.Project), RoomID: string(f.Room), Type: f.Type, UserID: f.User,
			FromTime: lower, ToTime: higher, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
		for _, row := range rows {
			out = append(out, eventOf(dbq.EventsByTimeRow(row)))
		}
	case f.User != "":
		var rows []dbq.EventsByUserRow
		rows, err = s.q.EventsByUser(ctx, dbq.EventsByUserParams{
			NoPayload: f.NoPayload, ProjectID: string(f.Project), UserID: f.User, Type: f.Type,
			FromTime: lower, ToTime: higher, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
		for _, row := range rows {
			out = append(out, eventOf(dbq.EventsByTimeRow(row)))
		}
	default:
		var rows []dbq.EventsByTimeRow
		rows, err = s.q.EventsByTime(ctx, dbq.EventsByTimeParams{
			NoPayload: f.NoPayload, ProjectID: string(f.Project), Type: f.Type,
			FromTime: lower, ToTime: higher, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
		for _, row := range rows {
			out = append(out, eventOf(row))
		}
	}
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list events: %w", err))
	}
	return out, nil
}

func roomOf(project mirror.ProjectID, row dbq.RoomsRow) mirror.Room {
	room := mirror.Room{
		Project:            project,
		ID:                 mirror.RoomID(row.RoomID),
		Epoch:              row.Epoch,
		Source:             row.SourceJson,
		CreateTime:         timeOf(row.CreateTime),
		LastConnectionTime: timeOf(row.LastConnectionTime),
		OrganizationID:     row.OrganizationID,
		Freshness: mirror.Freshness{
			FetchTime:        timeOf(row.FetchTime),
			SourceUpdateTime: timeOf(row.SourceUpdateTime),
			DeleteTime:       timeOf(row.DeleteTime),
			MissingSince:     timeOf(row.MissingSince),
			Revision:         row.Revision,
			Stale:            row.Stale,
		},
	}
	copy(room.SHA256[:], row.ContentSha256)
	return room
}

// Room reads by key.
func (s *Store) Room(ctx context.Context, r mirror.Resource, deleted bool) (mirror.Room, error) {
	row, err := s.q.Room(ctx, dbq.RoomParams{Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
		Deleted: deleted})
	if err != nil {
		return mirror.Room{}, classify(ctx, fmt.Errorf("read room: %w", err))
	}
	return roomOf(r.Project, dbq.RoomsRow(row)), nil
}

// Rooms walks the index by room id.
func (s *Store) Rooms(ctx context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	rows, err := s.q.Rooms(ctx, dbq.RoomsParams{
		ProjectID: string(f.Project), After: string(f.After), Lower: f.Prefix, Upper: upper(f.Prefix),
		Deleted: f.Deleted, MaxRows: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list rooms: %w", err))
	}
	out := make([]mirror.Room, 0, len(rows))
	for _, row := range rows {
		out = append(out, roomOf(f.Project, row))
	}
	return out, nil
}

// Document reads by key and unpacks the content.
func (s *Store) Document(ctx context.Context, r mirror.Resource, deleted bool) (mirror.Document, error) {
	row, err := s.q.Document(ctx, dbq.DocumentParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		Deleted: deleted,
	})
	if err != nil {
		return mirror.Document{}, classify(ctx, fmt.Errorf("read document: %w", err))
	}
	doc := documentOf(r, row)
	if doc.Content, err = s.pack.Unpack(row.Content, row.Size); err != nil {
		return mirror.Document{}, err
	}
	return doc, nil
}

// ReadDocuments is one statement for all readers.
func (s *Store) ReadDocuments(ctx context.Context, reads []store.DocumentRead, inline int64) ([]*mirror.Document,
	error) {
	n := len(reads)
	arg := dbq.ReadDocumentsParams{
		InlineBytes: inline,
		N:           make([]int32, 0, n),
		Bucket:      make([]int16, 0, n),
		ProjectID:   make([]string, 0, n),
		RoomID:      make([]string, 0, n),
		Kind:        make([]int16, 0, n),
		ResourceID:  make([]string, 0, n),
		Deleted:     make([]bool, 0, n),
		Have:        make([][]byte, 0, n),
	}
	for i, read := range reads {
		arg.N = append(arg.N, int32(i))
		arg.Bucket = append(arg.Bucket, read.Resource.Bucket())
		arg.ProjectID = append(arg.ProjectID, string(read.Resource.Project))
		arg.RoomID = append(arg.RoomID, string(read.Resource.Room))
		arg.Kind = append(arg.Kind, int16(read.Resource.Kind))
		arg.ResourceID = append(arg.ResourceID, read.Resource.ID)
		arg.Deleted = append(arg.Deleted, read.Deleted)
		arg.Have = append(arg.Have, reads[i].Have[:])
	}
	rows, err := s.q.ReadDocuments(ctx, arg)
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read %d documents: %w", n, err))
	}
	docs := make([]*mirror.Document, n)
	for _, row := range rows {
		doc := documentOf(reads[row.N].Resource, dbq.DocumentRow{
			ContentSha256: row.ContentSha256, Size: row.Size, DeriveVersion: row.DeriveVersion, DataProblem: row.DataProblem,
			DeleteTime: row.DeleteTime, FetchTime: row.FetchTime, SourceUpdateTime: row.SourceUpdateTime,
			MissingSince: row.MissingSince, Revision: row.Revision, Stale: row.Stale,
		})
		if row.Content != nil {
			if doc.Content, err = s.pack.Unpack(row.Content, row.Size); err != nil {
				return nil, err
			}
		}
		docs[row.N] = &doc
	}
	return docs, nil
}

// documentOf is the document without its content.
func documentOf(r mirror.Resource, row dbq.DocumentRow) mirror.Document {
	doc := mirror.Document{
		Project: r.Project, Room: r.Room, Kind: r.Kind, ID: r.ID,
		Size: row.Size, DeriveVersion: int(row.DeriveVersion), DataProblem: row.DataProblem,
		Freshness: mirror.Freshness{
			FetchTime:        timeOf(row.FetchTime),
			SourceUpdateTime: timeOf(row.SourceUpdateTime),
			DeleteTime:       timeOf(row.DeleteTime),
			MissingSince:     timeOf(row.MissingSince),
			Revision:         row.Revision,
			Stale:            row.Stale,
		},
	}
	copy(doc.SHA256[:], row.ContentSha256)
	return doc
}

// Documents walks the index by room id.
func (s *Store) Documents(ctx context.Context, f store.DocumentFilter) ([]mirror.Document, error) {
	rows, err := s.q.Documents(ctx, dbq.DocumentsParams{
		ProjectID: string(f.Project), Lower: f.Prefix, Upper: upper(f.Prefix), Kind: int16(f.Kind),
		AfterRoom: string(f.AfterRoom), AfterKind: int16(f.AfterKind), AfterID: f.AfterID,
		MaxRows: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list documents: %w", err))
	}
	out := make([]mirror.Document, 0, len(rows))
	for _, row := range rows {
		doc := mirror.Document{
			Project: f.Project, Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind), ID: row.ResourceID,
			Size: row.Size, DeriveVersion: int(row.DeriveVersion), DataProblem: row.DataProblem,
			Freshness: mirror.Freshness{
				FetchTime:        timeOf(row.FetchTime),
				SourceUpdateTime: timeOf(row.SourceUpdateTime),
				MissingSince:     timeOf(row.MissingSince),
				Revision:         row.Revision,
				Stale:            row.Stale,
			},
		}
		copy(doc.SHA256[:], row.ContentSha256)
		out = append(out, doc)
	}
	return out, nil
}

// Task reads by key.
func (s *Store) Task(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	states, err := s.states(ctx, []mirror.Resource{r})
	if err != nil {
		return mirror.Task{}, err
	}
	st, ok := states[r]
	if !ok {
		return mirror.Task{}, store.ErrNotFound
	}
	return st.Task(r, now), nil
}

// TaskList walks the index by room id.
func (s *Store) TaskList(ctx context.Context, f store.TaskFilter) ([]mirror.Task, error) {
	rows, err := s.q.TaskList(ctx, dbq.TaskListParams{
		ProjectID: string(f.Project), RoomID: string(f.Room), State: string(f.State), Now: nullTime(f.Now),
		AfterRoom: string(f.AfterRoom), AfterKind: int16(f.AfterKind), AfterID: f.AfterID,
		MaxRows: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list tasks: %w", err))
	}
	out := make([]mirror.Task, 0, len(rows))
	for _, row := range rows {
		out = append(out, stateOf(row).Task(resourceOf(row), f.Now))
	}
	return out, nil
}

// Project reads by key.
func (s *Store) Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error) {
	row, err := s.q.Project(ctx, string(project))
	if err = classify(ctx, err); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return mirror.Project{ID: project}, nil
		}
		return mirror.Project{}, fmt.Errorf("read project: %w", err)
	}
	return mirror.Project{
		ID: project, LiveblocksID: row.LiveblocksProjectID, PauseReason: row.PauseReason, PauseTime: timeOf(row.PauseTime),
	}, nil
}

// Counts counts in the partial indexes.
func (s *Store) Counts(ctx context.Context, project mirror.ProjectID) (store.Counts, error) {
	row, err := s.q.Counts(ctx, string(project))
	if err != nil {
		return store.Counts{}, classify(ctx, fmt.Errorf("count tasks: %w", err))
	}
	return store.Counts{Pending: row.Pending, Background: row.Background, BackgroundRooms: row.BackgroundRooms,
		Failed: row.Failed, OldestDue: timeOf(row.OldestDue)}, nil
}

// Changes reads one bucket's entries.
func (s *Store) Changes(ctx context.Context, bucket int16, after int64, limit int) ([]mirror.Change, error) {
	rows, err := s.q.Changes(ctx,
		dbq.ChangesParams{Bucket: bucket, After: after, MaxRows: int32(limit)}) //nolint:gosec // bounded by the caller
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list changes: %w", err))
	}
	out := make([]mirror.Change, 0, len(rows))
	for _, row := range rows {
		out = append(out, mirror.Change{
			Bucket: row.Bucket,
			Number: row.N,
			Resource: mirror.Resource{
				Project: mirror.ProjectID(row.ProjectID), Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind),
				ID: row.ResourceID,
			},
			Kind:       mirror.ChangeKind(row.ChangeKind),
			CommitTime: timeOf(row.CommitTime),
		})
	}
	return out, nil
}
