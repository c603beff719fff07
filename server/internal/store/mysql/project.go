package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// Project reads by key. Deliveries wait for it.
func (s *Store) Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error) {
	row, err := dbq.New(s.accepting).Project(ctx, rawKey(project))
	if err = classify(ctx, err); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return mirror.Project{ID: project}, nil
		}
		return mirror.Project{}, fmt.Errorf("read project: %w", err)
	}
	return mirror.Project{
		ID: project, LiveblocksID: string(row.LiveblocksProjectID), PauseReason: row.PauseReason,
		PauseTime: timeOf(row.PauseTime), StopReason: row.StopReason.String, StopTime: timeOf(row.StopTime),
		Foreign: mirror.ForeignEvents{
			LiveblocksID: string(row.ForeignProjectID), Count: row.ForeignEvents, Time: timeOf(row.ForeignTime),
		},
		Feed: feedOf(row.Feed), KeyHash: keyHash(row.KeyHash), KeyConfirmTime: timeOf(row.KeyConfirmTime),
		Confirmed: mirror.Confirmation{
			Rooms: row.ConfirmedRooms, Groups: row.ConfirmedGroups, Time: timeOf(row.ConfirmTime),
		},
	}, nil
}

// PinProject keeps the value of the first writer.
func (s *Store) PinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) (string, error) {
	err := s.writeProject(ctx, "pin project", func() error {
		return s.q.PinProject(ctx,
			dbq.PinProjectParams{ProjectID: rawKey(project), LiveblocksProjectID: rawKey(liveblocksID)})
	})
	if err != nil {
		return "", err
	}
	p, err := s.Project(ctx, project)
	return p.LiveblocksID, err
}

func keyHash(v sql.NullString) []byte {
	if !v.Valid {
		return nil
	}
	return []byte(v.String)
}

// IdentifyFeed keeps the value of the first reader.
func (s *Store) IdentifyFeed(ctx context.Context, project mirror.ProjectID, identity [16]byte) ([16]byte, error) {
	err := s.writeProject(ctx, "identify the feed", func() error {
		return s.q.IdentifyFeed(ctx, dbq.IdentifyFeedParams{ProjectID: rawKey(project), Feed: identity[:]})
	})
	if err != nil {
		return [16]byte{}, err
	}
	p, err := s.Project(ctx, project)
	return p.Feed, err
}

// ForgetFeeds is one statement for each project, since projects may be in several shards.
// What one attempt has done counts if the next one goes on.
func (s *Store) ForgetFeeds(ctx context.Context) (n int64, err error) {
	err = s.writeProject(ctx, "forget the identities of the feeds", func() error {
		projects, err := s.q.FeedProjects(ctx)
		for _, project := range projects {
			forgotten, err := s.q.ForgetFeed(ctx, project)
			if err != nil {
				return err
			}
			n += forgotten
		}
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
			ProjectID: rawKey(project), LiveblocksProjectID: rawKey(liveblocksID),
		})
	})
}

// NoteForeign adds in one statement.
func (s *Store) NoteForeign(ctx context.Context, project mirror.ProjectID, events mirror.ForeignEvents) error {
	return s.writeProject(ctx, "note events of another project", func() error {
		return s.q.NoteForeign(ctx, dbq.NoteForeignParams{
			ProjectID: rawKey(project), ForeignProjectID: rawKey(events.LiveblocksID), ForeignEvents: events.Count,
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
			ProjectID: rawKey(project), Kind: int16(kind), Changes: count, Now: nullTime(now).Time,
			Since: nullTime(now.Add(-mirror.UnannouncedLife)).Time,
		})
	})
}

// Unannounced reads a row for each kind.
func (s *Store) Unannounced(ctx context.Context, project mirror.ProjectID) ([]mirror.Unannounced, error) {
	rows, err := s.q.Unannounced(ctx, rawKey(project))
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read changes without an event: %w", err))
	}
	out := make([]mirror.Unannounced, len(rows))
	for i, r := range rows {
		out[i] = mirror.Unannounced{
			Kind: mirror.Kind(r.Kind), Count: r.Changes, FirstTime: r.FirstTime.UTC(), LastTime: r.LastTime.UTC(),
		}
	}
	return out, nil
}

// SaveKeyHash is one statement.
func (s *Store) SaveKeyHash(ctx context.Context, project mirror.ProjectID, hash []byte) error {
	return s.writeProject(ctx, "store the hash of the secret key", func() error {
		return s.q.SaveKeyHash(ctx, dbq.SaveKeyHashParams{
			ProjectID: rawKey(project), KeyHash: sql.NullString{String: string(hash), Valid: hash != nil},
		})
	})
}

// ConfirmKey is one statement.
func (s *Store) ConfirmKey(ctx context.Context, project mirror.ProjectID, now time.Time) error {
	return s.writeProject(ctx, "confirm the secret key", func() error {
		return s.q.ConfirmKey(ctx, dbq.ConfirmKeyParams{ProjectID: rawKey(project), KeyConfirmTime: nullTime(now)})
	})
}

// Stop is one statement.
func (s *Store) Stop(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error {
	if reason == "" {
		now = time.Time{}
	}
	return s.writeProject(ctx, "stop or resume the project", func() error {
		return s.q.Stop(ctx, dbq.StopParams{
			ProjectID: rawKey(project), StopReason: sql.NullString{String: store.Text(reason), Valid: reason != ""},
			StopTime: nullTime(now),
		})
	})
}

// ConfirmDeletions is one statement.
func (s *Store) ConfirmDeletions(ctx context.Context, project mirror.ProjectID, confirmed mirror.Confirmation) error {
	return s.writeProject(ctx, "confirm deletions", func() error {
		return s.q.ConfirmDeletions(ctx, dbq.ConfirmDeletionsParams{
			ProjectID: rawKey(project), ConfirmedRooms: confirmed.Rooms, ConfirmedGroups: confirmed.Groups,
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
	batch = slices.SortedFunc(slices.Values(batch), func(a, b mirror.Delivery) int {
		return compareEvents(a.Event, b.Event)
	})
	parts, err := transactions(ctx, s, batch, func(d mirror.Delivery) int16 { return d.Event.Bucket() })
	if err != nil {
		return nil, err
	}
	var pending []mirror.Pending
	for _, part := range parts {
		marked, err := s.takeUp(ctx, part)
		if err != nil {
			return pending, err
		}
		pending = append(pending, marked...)
	}
	return pending, nil
}

// takeUp is one transaction.
func (s *Store) takeUp(ctx context.Context, batch []mirror.Delivery) ([]mirror.Pending, error) {
	var pending []mirror.Pending
	err := s.tx(ctx, fmt.Sprintf("take up %d events", len(batch)), func(q *queries) error {
		pending = nil
		batch, err := q.unchanged(ctx, batch)
		if err != nil {
			return err
		}
		var taken []mirror.Delivery
		for _, d := range batch {
			e := d.Event
			n, err := q.TakeUpEvent(ctx, dbq.TakeUpEventParams{
				Outcome: rawKey(e.Outcome), Bucket: e.Bucket(), ProjectID: rawKey(e.Project),
				EventID: rawKey(e.ID), SetAside: rawKey(mirror.OutcomeForeignProject),
			})
			if err != nil {
				return err
			}
			if n > 0 {
				taken = append(taken, d)
			}
		}
		pending, err = s.markRecorded(ctx, q, taken, store.StaleByEvent)
		return err
	})
	return pending, err
}

// markRecorded marks what recorded events make stale, and lets those wait that are folded.
func (s *Store) markRecorded(ctx context.Context, q *queries, batch []mirror.Delivery,
	by func(mirror.Event, mirror.Invalidation) store.Stale,
) ([]mirror.Pending, error) {
	answers := slices.Repeat([]store.Accepted{{Fresh: true}}, len(batch))
	stale, err := staleBy(ctx, q, batch, answers, by)
	if err != nil {
		return nil, err
	}
	if err := q.markStale(ctx, stale); err != nil {
		return nil, err
	}
	if err := s.hold(ctx, q, batch, answers); err != nil {
		return nil, err
	}
	resources := make([]mirror.Resource, len(stale))
	for i, w := range stale {
		resources[i] = w.Resource
	}
	states, err := q.progress(ctx, resources)
	pending := make([]mirror.Pending, len(resources))
	for i, r := range resources {
		pending[i] = mirror.Pending{Resource: r, Generation: states[r].Generation}
	}
	return pending, err
}

// Replay uses one transaction, on a sharded server one for each bucket.
func (s *Store) Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) (
	pending []mirror.Pending, replayed int, err error,
) {
	batch = slices.SortedFunc(slices.Values(batch), func(a, b mirror.Delivery) int {
		return compareEvents(a.Event, b.Event)
	})
	parts, err := transactions(ctx, s, batch, func(d mirror.Delivery) int16 { return d.Event.Bucket() })
	if err != nil {
		return nil, 0, err
	}
	by := func(e mirror.Event, i mirror.Invalidation) store.Stale { return store.StaleByReplay(e, i, now) }
	for _, part := range parts {
		var marked []mirror.Pending
		n := 0
		err := s.tx(ctx, fmt.Sprintf("replay %d events", len(part)), func(q *queries) error {
			part, err := q.unchanged(ctx, part)
			if err != nil {
				return err
			}
			n = len(part)
			marked, err = s.markRecorded(ctx, q, part, by)
			return err
		})
		if err != nil {
			return pending, replayed, err
		}
		pending, replayed = append(pending, marked...), replayed+n
	}
	return pending, replayed, nil
}
