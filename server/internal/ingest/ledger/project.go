package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// pinAge is how long the pinned project is used before it is read again: another
	// replica may have pinned or replaced it.
	pinAge = time.Minute
	// maxUnproven bounds the number of things that are remembered because a fetch of
	// them would pin the project.
	maxUnproven = 10_000
	// scanPage and takeUpBatch bound the events of one query and of one transaction
	// when a project is pinned anew.
	scanPage    = 1000
	takeUpBatch = 100
)

// projects is what this process knows about the Liveblocks projects behind the
// configured ones.
type projects struct {
	mu     sync.Mutex
	pinned map[mirror.ProjectID]*pinned
}

// pinned is what this process knows about the Liveblocks project behind one.
type pinned struct {
	// id is Liveblocks' id; empty if none is pinned.
	id       string
	readTime time.Time
	// unproven holds what events name while no project is pinned, with the Liveblocks
	// project of the event.
	unproven map[mirror.Resource]string
	// told is the pinned id for which the log has told of other projects.
	told string
}

// of returns the knowledge about a project. p.mu is held.
func (p *projects) of(project mirror.ProjectID) *pinned {
	if p.pinned == nil {
		p.pinned = make(map[mirror.ProjectID]*pinned)
	}
	if p.pinned[project] == nil {
		p.pinned[project] = &pinned{unproven: make(map[mirror.Resource]string)}
	}
	return p.pinned[project]
}

// set stores what was read or pinned at now. p.mu is held.
func (p *pinned) set(id string, now time.Time) {
	p.id, p.readTime = id, now
	if id != "" {
		clear(p.unproven)
	}
}

// checkProject sets an event aside if another Liveblocks project than its own is
// pinned: it is recorded and makes nothing stale. While none is pinned, the event is
// worked, and a fetch of what it names pins its project; see [Ledger.Shown].
func (l *Ledger) checkProject(ctx context.Context, d *mirror.Delivery) error {
	id := d.Event.LiveblocksProject
	if id == "" {
		return nil
	}
	now := d.Event.ReceiveTime
	l.projects.mu.Lock()
	p := l.projects.of(d.Event.Project)
	first := p.readTime.IsZero()
	stale := now.Sub(p.readTime) >= pinAge
	if !first && stale {
		p.readTime = now // the others go on with what is known
	}
	l.projects.mu.Unlock()
	if stale {
		// Without the lock: callers must not queue here while the database is down.
		if _, err := l.readPin(ctx, d.Event.Project, now); err != nil {
			l.failed(err)
			return err
		}
	}
	l.projects.mu.Lock()
	defer l.projects.mu.Unlock()
	switch p.id {
	case id:
	case "":
		if len(p.unproven) >= maxUnproven {
			clear(p.unproven)
		}
		for _, r := range namedBy(d) {
			p.unproven[r] = id
		}
	default:
		d.Event.Outcome, d.Invalidations = mirror.OutcomeForeignProject, nil
	}
	return nil
}

// namedBy returns what a fetch has to show to prove that an event is from the
// project of the key: the event's room, or a notification that is in none.
func namedBy(d *mirror.Delivery) (named []mirror.Resource) {
	if d.Event.Room != "" {
		return []mirror.Resource{{Project: d.Event.Project, Room: d.Event.Room, Kind: mirror.KindRoom}}
	}
	for _, i := range d.Invalidations {
		named = append(named, i.Resource)
	}
	return named
}

// readPin reads the pinned project.
func (l *Ledger) readPin(ctx context.Context, project mirror.ProjectID, now time.Time) (mirror.Project, error) {
	stored, err := l.cfg.Store.Project(ctx, project)
	if err != nil {
		return stored, err
	}
	l.projects.mu.Lock()
	defer l.projects.mu.Unlock()
	l.projects.of(project).set(stored.LiveblocksID, now)
	return stored, nil
}

// Shown states that a fetch with the project's key has returned a room, or something
// that is in no room. If an event named it while no project was pinned, the event's
// project is pinned.
func (l *Ledger) Shown(ctx context.Context, shown mirror.Resource) {
	l.projects.mu.Lock()
	p := l.projects.of(shown.Project)
	id, named := p.unproven[shown]
	l.projects.mu.Unlock()
	if !named {
		return
	}
	stored, err := l.cfg.Store.PinProject(ctx, shown.Project, id)
	if err != nil {
		l.cfg.Logger.WarnContext(ctx, "project not pinned; the next fetch tries again", inProject(shown.Project),
			slog.Any("error", err))
		return
	}
	l.projects.mu.Lock()
	p.set(stored, l.cfg.Now())
	l.projects.mu.Unlock()
	l.cfg.Logger.InfoContext(ctx, "project pinned: its key has shown what an event names",
		inProject(shown.Project), slog.String("liveblocks_project", stored))
}

// setAside completes the answer to a recorded event of another project. The project
// may have been pinned anew since the event was checked, or since its first
// delivery: read after the commit, the pin decides, because whoever replaces it
// looks for recorded events afterwards.
func (l *Ledger) setAside(ctx context.Context, e mirror.Event, a store.Accepted) (store.Accepted, error) {
	stored, err := l.readPin(ctx, e.Project, e.ReceiveTime)
	if err != nil {
		l.failed(err)
		return a, err
	}
	if stored.LiveblocksID == "" || stored.LiveblocksID == e.LiveblocksProject {
		if !a.Fresh { // it may have been erased meanwhile
			if e, err = l.whole(ctx, e); err != nil {
				l.failed(err)
				return a, err
			}
			if string(e.Payload) == store.Purged {
				return a, nil
			}
		}
		d := webhook.Decode(e.Project, e.ID, e.Payload, e.SendTime, e.ReceiveTime)
		a.Outcome = d.Event.Outcome
		a.Pending, err = l.takeUp(ctx, []mirror.Delivery{d})
		return a, err
	}
	if !a.Fresh {
		return a, nil
	}
	l.projects.mu.Lock()
	p := l.projects.of(e.Project)
	told := p.told == stored.LiveblocksID
	p.told = stored.LiveblocksID
	l.projects.mu.Unlock()
	if !told {
		l.cfg.Logger.ErrorContext(ctx, "events of another Liveblocks project are set aside",
			inProject(e.Project), slog.String("liveblocks_project", e.LiveblocksProject),
			slog.String("pinned", stored.LiveblocksID))
	}
	foreign := mirror.ForeignEvents{LiveblocksID: e.LiveblocksProject, Count: 1, Time: e.ReceiveTime}
	if err := l.cfg.Store.NoteForeign(ctx, e.Project, foreign); err != nil {
		l.failed(err)
		return a, err
	}
	return a, nil
}

// takeUp works recorded events like new ones.
func (l *Ledger) takeUp(ctx context.Context, batch []mirror.Delivery) ([]mirror.Pending, error) {
	pending, err := l.cfg.Store.TakeUp(ctx, batch)
	if len(pending) > 0 {
		l.cfg.Pending(pending)
	}
	if err != nil {
		l.failed(err)
	}
	return pending, err
}

// Unpin forgets the pinned Liveblocks project, and returns which it was. Other replicas
// learn of it as of a new one.
func (l *Ledger) Unpin(ctx context.Context, project mirror.ProjectID) (was string, err error) {
	stored, err := l.cfg.Store.Project(ctx, project)
	if err != nil {
		return "", err
	}
	if err := l.cfg.Store.RepinProject(ctx, project, ""); err != nil {
		return "", err
	}
	l.projects.mu.Lock()
	l.projects.of(project).set("", l.cfg.Now())
	l.projects.mu.Unlock()
	l.cfg.Logger.InfoContext(ctx, "project unpinned by an operator", inProject(project),
		slog.String("liveblocks_project", stored.LiveblocksID))
	return stored.LiveblocksID, nil
}

// Pin replaces the pinned Liveblocks project, and works the events that were set
// aside although they are from it. It returns their number. It may be repeated after
// a failure. Other replicas learn of it with their next delivery of another project,
// at the latest after a minute.
func (l *Ledger) Pin(ctx context.Context, project mirror.ProjectID, id string) (takenUp int64, err error) {
	if err := l.cfg.Store.RepinProject(ctx, project, id); err != nil {
		return 0, err
	}
	l.projects.mu.Lock()
	l.projects.of(project).set(id, l.cfg.Now())
	l.projects.mu.Unlock()
	l.cfg.Logger.InfoContext(ctx, "project pinned by an operator", inProject(project),
		slog.String("liveblocks_project", id))
	filter := store.EventFilter{Project: project, NoPayload: true, Limit: scanPage}
	for {
		events, err := l.cfg.Store.Events(ctx, filter)
		if err != nil {
			return takenUp, fmt.Errorf("look for events that were set aside: %w", err)
		}
		var batch []mirror.Delivery
		for i, e := range events {
			if e.Outcome == mirror.OutcomeForeignProject && e.LiveblocksProject == id {
				if e, err = l.whole(ctx, e); err != nil {
					return takenUp, fmt.Errorf("read an event that was set aside: %w", err)
				}
			}
			// What was erased says no more what has changed.
			if e.Outcome == mirror.OutcomeForeignProject && e.LiveblocksProject == id && string(e.Payload) != store.Purged {
				batch = append(batch, webhook.Decode(project, e.ID, e.Payload, e.SendTime, e.ReceiveTime))
			}
			if len(batch) == takeUpBatch || i == len(events)-1 && len(batch) > 0 {
				if _, err := l.takeUp(ctx, batch); err != nil {
					return takenUp, err
				}
				takenUp += int64(len(batch))
				batch = nil
			}
		}
		if len(events) < filter.Limit {
			return takenUp, nil
		}
		last := events[len(events)-1]
		filter.AfterTime, filter.AfterID = last.ReceiveTime, last.ID
	}
}

// whole reads an event of a list with its body.
func (l *Ledger) whole(ctx context.Context, e mirror.Event) (mirror.Event, error) {
	found, err := l.cfg.Store.EventOf(ctx, e.Project, e.Room, e.ID)
	if errors.Is(err, store.ErrNotFound) { // an older version has written it to another bucket
		found, err = l.cfg.Store.Event(ctx, e.Project, e.ID)
	}
	return found, err
}
