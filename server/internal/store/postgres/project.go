package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// Project reads by key. Deliveries wait for it.
func (s *Store) Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error) {
	row, err := dbq.New(s.names.on(s.accepting)).Project(ctx, string(project))
	if err = classify(ctx, err); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return mirror.Project{ID: project}, nil
		}
		return mirror.Project{}, fmt.Errorf("read project: %w", err)
	}
	return mirror.Project{
		ID: project, LiveblocksID: row.LiveblocksProjectID, PauseReason: row.PauseReason, PauseTime: timeOf(row.PauseTime),
		StopReason: row.StopReason, StopTime: timeOf(row.StopTime),
		Foreign: mirror.ForeignEvents{
			LiveblocksID: row.ForeignProjectID, Count: row.ForeignEvents, Time: timeOf(row.ForeignTime),
		},
		Feed: feedOf(row.Feed), KeyHash: row.KeyHash, KeyConfirmTime: timeOf(row.KeyConfirmTime),
		Confirmed: mirror.Confirmation{
			Rooms: row.ConfirmedRooms, Groups: row.ConfirmedGroups, Time: timeOf(row.ConfirmTime),
		},
	}, nil
}

// PinProject keeps the value of the first writer.
func (s *Store) PinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) (string, error) {
	pinned, err := s.q.PinProject(ctx,
		dbq.PinProjectParams{ProjectID: string(project), LiveblocksProjectID: liveblocksID})
	if err != nil {
		return "", classify(ctx, fmt.Errorf("pin project: %w", err))
	}
	return pinned, nil
}

// IdentifyFeed keeps the value of the first reader.
func (s *Store) IdentifyFeed(ctx context.Context, project mirror.ProjectID, identity [16]byte) ([16]byte, error) {
	var stored []byte
	err := retry(ctx, func() (err error) {
		stored, err = s.q.IdentifyFeed(ctx, dbq.IdentifyFeedParams{ProjectID: string(project), Feed: identity[:]})
		return err
	})
	if err != nil {
		return [16]byte{}, classify(ctx, fmt.Errorf("identify the feed: %w", err))
	}
	return feedOf(stored), nil
}

// ForgetFeeds is one statement.
func (s *Store) ForgetFeeds(ctx context.Context) (n int64, err error) {
	err = s.writeProject(ctx, "forget the identities of the feeds", func() error {
		n, err = s.q.ForgetFeeds(ctx)
		return err
	})
	return n, err
}

// feedOf is the identity of a feed as stored.
func feedOf(column []byte) (identity [16]byte) {
	copy(identity[:], column)
	return identity
}

// RepinProject is one statement.
func (s *Store) RepinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) error {
	return s.writeProject(ctx, "replace the pinned project", func() error {
		return s.q.RepinProject(ctx, dbq.RepinProjectParams{
			ProjectID: string(project), LiveblocksProjectID: liveblocksID,
		})
	})
}

// NoteForeign adds in one statement.
func (s *Store) NoteForeign(ctx context.Context, project mirror.ProjectID, events mirror.ForeignEvents) error {
	return s.writeProject(ctx, "note events of another project", func() error {
		return s.q.NoteForeign(ctx, dbq.NoteForeignParams{
			ProjectID: string(project), ForeignProjectID: events.LiveblocksID, ForeignEvents: events.Count,
			ForeignTime: nullTime(events.Time),
		})
	})
}

// NoteUnannounced adds in one statement.
func (s *Store) NoteUnannounced(ctx context.Context, project mirror.ProjectID, kind mirror.Kind, count int64,
	now time.Time,
) error {
	return s.writeProject(ctx, "note changes without an event", func() error {
		return s.q.NoteUnannounced(ctx, dbq.NoteUnannouncedParams{
			ProjectID: string(project), Kind: int16(kind), Changes: count, Now: nullTime(now),
			Since: nullTime(now.Add(-mirror.UnannouncedLife)),
		})
	})
}

// Unannounced reads a row for each kind.
func (s *Store) Unannounced(ctx context.Context, project mirror.ProjectID) ([]mirror.Unannounced, error) {
	rows, err := s.q.Unannounced(ctx, string(project))
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read changes without an event: %w", err))
	}
	out := make([]mirror.Unannounced, len(rows))
	for i, r := range rows {
		out[i] = mirror.Unannounced{
			Kind: mirror.Kind(r.Kind), Count: r.Changes, FirstTime: timeOf(r.FirstTime), LastTime: timeOf(r.LastTime),
		}
	}
	return out, nil
}

// SaveKeyHash is one statement.
func (s *Store) SaveKeyHash(ctx context.Context, project mirror.ProjectID, hash []byte) error {
	return s.writeProject(ctx, "store the hash of the secret key", func() error {
		return s.q.SaveKeyHash(ctx, dbq.SaveKeyHashParams{ProjectID: string(project), KeyHash: hash})
	})
}

// ConfirmKey is one statement.
func (s *Store) ConfirmKey(ctx context.Context, project mirror.ProjectID, now time.Time) error {
	return s.writeProject(ctx, "confirm the secret key", func() error {
		return s.q.ConfirmKey(ctx, dbq.ConfirmKeyParams{ProjectID: string(project), KeyConfirmTime: nullTime(now)})
	})
}

// Stop is one statement.
func (s *Store) Stop(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error {
	if reason == "" {
		now = time.Time{}
	}
	return s.writeProject(ctx, "stop or resume the project", func() error {
		return s.q.Stop(ctx, dbq.StopParams{
			ProjectID: string(project), StopReason: store.Text(reason), StopTime: nullTime(now),
		})
	})
}

// ConfirmDeletions is one statement.
func (s *Store) ConfirmDeletions(ctx context.Context, project mirror.ProjectID, confirmed mirror.Confirmation) error {
	return s.writeProject(ctx, "confirm deletions", func() error {
		return s.q.ConfirmDeletions(ctx, dbq.ConfirmDeletionsParams{
			ProjectID: string(project), ConfirmedRooms: confirmed.Rooms, ConfirmedGroups: confirmed.Groups,
			ConfirmTime: nullTime(confirmed.Time),
		})
	})
}

func (s *Store) writeProject(ctx context.Context, what string, f func() error) error {
	if err := retry(ctx, f); err != nil {
		return classify(ctx, fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// TakeUp locks the events before the states, as Accept does.
func (s *Store) TakeUp(ctx context.Context, batch []mirror.Delivery) ([]mirror.Pending, error) {
	var pending []mirror.Pending
	err := s.tx(ctx, fmt.Sprintf("take up %d events", len(batch)), func(q, _ *dbq.Queries) error {
		pending = nil
		batch, err := unchanged(ctx, q, batch)
		if err != nil {
			return err
		}
		all, _ := acceptParams(batch, store.StaleByEvent)
		rows, err := q.TakeUpEvents(ctx, dbq.TakeUpEventsParams{
			Bucket: all.Bucket, ProjectID: all.ProjectID, EventID: all.EventID, Outcome: all.Outcome,
			SetAside: string(mirror.OutcomeForeignProject),
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		taken := make(map[eventKey]bool, len(rows))
		for _, r := range rows {
			taken[eventKey{mirror.ProjectID(r.ProjectID), r.EventID}] = true
		}
		var fresh []mirror.Delivery
		for _, d := range batch {
			if taken[eventKey{d.Event.Project, d.Event.ID}] {
				fresh = append(fresh, d)
			}
		}
		pending, err = markRecorded(ctx, q, fresh, store.StaleByEvent)
		return err
	})
	return pending, err
}

// Replay locks the events before the states, as Accept does.
func (s *Store) Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) ([]mirror.Pending, int, error) {
	if len(batch) == 0 {
		return nil, 0, nil
	}
	var pending []mirror.Pending
	replayed := 0
	err := s.tx(ctx, fmt.Sprintf("replay %d events", len(batch)), func(q, _ *dbq.Queries) error {
		batch, err := unchanged(ctx, q, batch)
		if pending, replayed = nil, len(batch); err != nil || replayed == 0 {
			return err
		}
		pending, err = markRecorded(ctx, q, batch, func(e mirror.Event, i mirror.Invalidation) store.Stale {
			return store.StaleByReplay(e, i, now)
		})
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return pending, replayed, nil
}

// unchanged locks recorded events, and returns those that are stored as they are here.
func unchanged(ctx context.Context, q *dbq.Queries, batch []mirror.Delivery) ([]mirror.Delivery, error) {
	var arg dbq.LockBodiesParams
	for _, d := range batch {
		arg.Bucket = append(arg.Bucket, d.Event.Bucket())
		arg.ProjectID = append(arg.ProjectID, string(d.Event.Project))
		arg.EventID = append(arg.EventID, d.Event.ID)
	}
	rows, err := q.LockBodies(ctx, arg)
	hashes := make(map[store.StoredEvent]string, len(rows))
	for _, r := range rows {
		key := store.StoredEvent{Bucket: r.Bucket, Project: mirror.ProjectID(r.ProjectID), ID: r.EventID}
		hashes[key] = string(r.PayloadSha256)
	}
	return store.StillRecorded(batch, hashes), err
}

// markRecorded marks what recorded events make stale, and lets those wait that are folded.
func markRecorded(ctx context.Context, q *dbq.Queries, batch []mirror.Delivery,
	by func(mirror.Event, mirror.Invalidation) store.Stale,
) ([]mirror.Pending, error) {
	rows, err := q.MarkStale(ctx, recordedParams(batch, by))
	pending := make([]mirror.Pending, len(rows))
	for i, row := range rows {
		pending[i] = pendingOf(row)
	}
	return pending, err
}

// recordedParams returns the parameters of MarkStale for events that are recorded
// already. stale says how they make something stale.
func recordedParams(batch []mirror.Delivery, stale func(mirror.Event, mirror.Invalidation) store.Stale,
) dbq.MarkStaleParams {
	p, _ := acceptParams(batch, stale)
	p.Bucket, p.ProjectID, p.EventID, p.Type, p.RoomID, p.UserID, p.LiveblocksProjectID, p.Payload, p.SendTime,
		p.ReceiveTime, p.SourceTime, p.Outcome = nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
	for i := range p.StaleEvent {
		p.StaleEvent[i] = 0
	}
	return p
}
