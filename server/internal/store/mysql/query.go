package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// upper is the last id that begins with prefix: no id is longer than
// mirror.MaxRoomID bytes, and none sorts above a run of the last character.
func upper(prefix string) []byte {
	return rawKey(prefix + strings.Repeat("\U0010FFFF", mirror.MaxRoomID/4))
}

// Event reads by key.
func (s *Store) Event(ctx context.Context, project mirror.ProjectID, id string) (mirror.Event, error) {
	row, err := s.q.Event(ctx, dbq.EventParams{Bucket: mirror.Bucket(project, id), ProjectID: rawKey(project),
		EventID: rawKey(id)})
	if err != nil {
		return mirror.Event{}, classify(ctx, fmt.Errorf("read event: %w", err))
	}
	return eventOf(dbq.EventsByTimeRow{
		ProjectID: row.ProjectID, EventID: row.EventID, Type: row.Type, RoomID: row.RoomID, UserID: row.UserID,
		LiveblocksProjectID: row.LiveblocksProjectID, SendTime: row.SendTime, ReceiveTime: row.ReceiveTime,
		SourceTime: row.SourceTime,
		Outcome:    row.Outcome, Payload: string(row.Payload),
	}), nil
}

func eventOf(row dbq.EventsByTimeRow) mirror.Event {
	return mirror.Event{
		Project:           mirror.ProjectID(row.ProjectID),
		ID:                string(row.EventID),
		Type:              string(row.Type),
		Room:              mirror.RoomID(row.RoomID),
		User:              string(row.UserID),
		LiveblocksProject: string(row.LiveblocksProjectID),
		Payload:           []byte(row.Payload),
		SendTime:          row.SendTime.UTC(),
		ReceiveTime:       row.ReceiveTime.UTC(),
		SourceTime:        timeOf(row.SourceTime),
		Outcome:           mirror.Outcome(row.Outcome),
	}
}

// Events walks the index that fits the filter best.
func (s *Store) Events(ctx context.Context, f store.EventFilter) ([]mirror.Event, error) {
	lower, higher, after := firstTime, lastTime, lastTime
	if !f.From.IsZero() {
		lower = nullTime(f.From).Time
	}
	if !f.To.IsZero() {
		higher = nullTime(f.To).Time
	}
	if !f.AfterTime.IsZero() {
		after = nullTime(f.AfterTime).Time
	}
	limit, payload := int32(f.Limit), int32(math.MaxInt32) //nolint:gosec // a page size, bounded by the caller
	if f.NoPayload {
		payload = 0
	}
	var out []mirror.Event
	var err error
	switch {
	case f.Room != "":
		var rows []dbq.EventsByRoomRow
		rows, err = s.q.EventsByRoom(ctx, dbq.EventsByRoomParams{
			PayloadBytes: payload, ProjectID: rawKey(f.Project), RoomID: rawKey(f.Room), Type: rawKey(f.Type),
			UserID:   rawKey(f.User),
			FromTime: lower, ToTime: higher, AfterTime: after, AfterID: rawKey(f.AfterID), Limit: limit,
		})
		for _, row := range rows {
			out = append(out, eventOf(dbq.EventsByTimeRow(row)))
		}
	case f.User != "":
		var rows []dbq.EventsByUserRow
		rows, err = s.q.EventsByUser(ctx, dbq.EventsByUserParams{
			PayloadBytes: payload, ProjectID: rawKey(f.Project), UserID: rawKey(f.User), Type: rawKey(f.Type),
			FromTime: lower, ToTime: higher, AfterTime: after, AfterID: rawKey(f.AfterID), Limit: limit,
		})
		for _, row := range rows {
			out = append(out, eventOf(dbq.EventsByTimeRow(row)))
		}
	default:
		var rows []dbq.EventsByTimeRow
		rows, err = s.q.EventsByTime(ctx, dbq.EventsByTimeParams{
			PayloadBytes: payload, ProjectID: rawKey(f.Project), Type: rawKey(f.Type),
			FromTime: lower, ToTime: higher, AfterTime: after, AfterID: rawKey(f.AfterID), Limit: limit,
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
		Freshness: freshness(row.DeleteTime, row.FetchTime, row.SourceUpdateTime, row.MissingSince,
			row.Revision, row.Generation, row.AppliedGeneration),
	}
	copy(room.SHA256[:], row.ContentSha256)
	return room
}

// Room reads by key.
func (s *Store) Room(ctx context.Context, r mirror.Resource, deleted bool) (mirror.Room, error) {
	row, err := s.q.Room(ctx, dbq.RoomParams{Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
		Deleted: flag(deleted)})
	if err != nil {
		return mirror.Room{}, classify(ctx, fmt.Errorf("read room: %w", err))
	}
	return roomOf(r.Project, dbq.RoomsRow(row)), nil
}

// Rooms walks the index by room id.
func (s *Store) Rooms(ctx context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	rows, err := s.q.Rooms(ctx, dbq.RoomsParams{
		ProjectID: rawKey(f.Project), After: rawKey(f.After), Lower: rawKey(f.Prefix), Upper: upper(f.Prefix),
		Deleted: flag(f.Deleted), Limit: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
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
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID), Deleted: flag(deleted),
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
	docs := make([]*mirror.Document, len(reads))
	if len(reads) == 0 {
		return docs, nil
	}
	args := append(make([]any, 0, 1+8*len(reads)), inline)
	for i, read := range reads {
		args = append(appendKey(append(args, i), read.Resource), flag(read.Deleted), reads[i].Have[:])
	}
	err := s.q.query(ctx, readDocumentsSQL(len(reads)), args, func(rows *sql.Rows) error {
		var n int
		var row dbq.DocumentRow
		if err := rows.Scan(&n, &row.Content, &row.ContentSha256, &row.Size, &row.DeriveVersion, &row.DataProblem,
			&row.DeleteTime,
			&row.FetchTime, &row.SourceUpdateTime, &row.MissingSince, &row.Revision, &row.Generation,
			&row.AppliedGeneration); err != nil {
			return err
		}
		doc := documentOf(reads[n].Resource, row)
		if row.Content != nil {
			var err error
			if doc.Content, err = s.pack.Unpack(row.Content, row.Size); err != nil {
				return err
			}
		}
		docs[n] = &doc
		return nil
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read %d documents: %w", len(reads), err))
	}
	return docs, nil
}

// documentOf is the document without its content.
func documentOf(r mirror.Resource, row dbq.DocumentRow) mirror.Document {
	doc := mirror.Document{
		Project: r.Project, Room: r.Room, Kind: r.Kind, ID: r.ID,
		Size: row.Size, DeriveVersion: int(row.DeriveVersion), DataProblem: row.DataProblem,
		Freshness: freshness(row.DeleteTime, row.FetchTime, row.SourceUpdateTime, row.MissingSince,
			row.Revision, row.Generation, row.AppliedGeneration),
	}
	copy(doc.SHA256[:], row.ContentSha256)
	return doc
}

// Documents walks the index by room id.
func (s *Store) Documents(ctx context.Context, f store.DocumentFilter) ([]mirror.Document, error) {
	rows, err := s.q.Documents(ctx, dbq.DocumentsParams{
		ProjectID: rawKey(f.Project), Lower: rawKey(f.Prefix), Upper: upper(f.Prefix), AnyKind: flag(f.Kind == 0),
		Kind:      int16(f.Kind),
		AfterRoom: rawKey(f.AfterRoom), AfterKind: int16(f.AfterKind), AfterID: rawKey(f.AfterID),
		Limit: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list documents: %w", err))
	}
	out := make([]mirror.Document, 0, len(rows))
	for _, row := range rows {
		r := mirror.Resource{Project: f.Project, Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind),
			ID: string(row.ResourceID)}
		out = append(out, documentOf(r, dbq.DocumentRow{
			ContentSha256: row.ContentSha256, Size: row.Size, DeriveVersion: row.DeriveVersion, DataProblem: row.DataProblem,
			FetchTime: row.FetchTime, SourceUpdateTime: row.SourceUpdateTime, MissingSince: row.MissingSince,
			Revision: row.Revision, Generation: row.Generation, AppliedGeneration: row.AppliedGeneration,
		}))
	}
	return out, nil
}

// Task reads by key.
func (s *Store) Task(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	row, err := s.q.State(ctx, dbq.StateParams(lockParams(r)))
	if err != nil {
		return mirror.Task{}, classify(ctx, fmt.Errorf("read task: %w", err))
	}
	return stateOf(row).Task(r, now), nil
}

// TaskList walks the index by room id.
func (s *Store) TaskList(ctx context.Context, f store.TaskFilter) ([]mirror.Task, error) {
	rows, err := s.q.TaskList(ctx, dbq.TaskListParams{
		ProjectID: rawKey(f.Project), RoomID: rawKey(f.Room), State: string(f.State), Now: nullTime(f.Now),
		AfterRoom: rawKey(f.AfterRoom), AfterKind: int16(f.AfterKind), AfterID: rawKey(f.AfterID),
		Limit: int32(f.Limit), //nolint:gosec // a page size, bounded by the caller
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
	row, err := s.q.Project(ctx, rawKey(project))
	if err = classify(ctx, err); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return mirror.Project{ID: project}, nil
		}
		return mirror.Project{}, fmt.Errorf("read project: %w", err)
	}
	return mirror.Project{
		ID: project, LiveblocksID: string(row.LiveblocksProjectID), PauseReason: row.PauseReason,
		PauseTime: timeOf(row.PauseTime),
	}, nil
}

// Counts counts in the indexes by due and by fail time.
func (s *Store) Counts(ctx context.Context, project mirror.ProjectID) (store.Counts, error) {
	rows, errPending := s.q.CountPending(ctx, rawKey(project))
	rooms, errRooms := s.q.CountBackgroundRooms(ctx, rawKey(project))
	failed, errFailed := s.q.CountFailed(ctx, rawKey(project))
	if err := errors.Join(errPending, errRooms, errFailed); err != nil {
		return store.Counts{}, classify(ctx, fmt.Errorf("count tasks: %w", err))
	}
	counts := store.Counts{Failed: failed, BackgroundRooms: rooms}
	for _, row := range rows {
		counts.Pending += row.N
		if row.Background {
			counts.Background = row.N
		}
		if oldest, _ := row.Oldest.(time.Time); counts.OldestDue.IsZero() || oldest.Before(counts.OldestDue) {
			counts.OldestDue = oldest.UTC()
		}
	}
	return counts, nil
}

// Changes reads one bucket's entries.
func (s *Store) Changes(ctx context.Context, bucket int16, after int64, limit int) ([]mirror.Change, error) {
	rows, err := s.q.Changes(ctx,
		dbq.ChangesParams{Bucket: bucket, After: after, Limit: int32(limit)}) //nolint:gosec // bounded by the caller
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
				ID: string(row.ResourceID),
			},
			Kind:       mirror.ChangeKind(row.ChangeKind),
			CommitTime: row.CommitTime.UTC(),
		})
	}
	return out, nil
}
