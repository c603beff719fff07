// Package keycheck finds out whether the secret key is that of the project whose
// rooms are mirrored. The key of another project would mirror that project's rooms,
// and make this project's rooms look deleted.
package keycheck

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

const (
	// sampleSize is the maximum number of rooms of each kind that are compared: those
	// of the latest events, which probably exist, and the first by id.
	sampleSize = 10
	// recentEvents is how many of the latest events are looked at for rooms.
	recentEvents = 200
	// saltSize is the length of the salt before the hash of a key.
	saltSize = 16
)

// Store is the part of the store that a Checker uses.
type Store interface {
	Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	SaveKeyHash(ctx context.Context, project mirror.ProjectID, hash []byte) error
	ConfirmKey(ctx context.Context, project mirror.ProjectID, now time.Time) error
	Events(ctx context.Context, filter store.EventFilter) ([]mirror.Event, error)
	Rooms(ctx context.Context, filter store.RoomFilter) ([]mirror.Room, error)
	RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, source bool) ([]mirror.Room, error)
}

// Fetcher reads from Liveblocks with the key, whatever the check finds.
type Fetcher interface {
	Room(ctx context.Context, id mirror.RoomID) (mirror.RoomContent, error)
	listing.Lister
}

// Config configures a Checker.
type Config struct {
	Project mirror.ProjectID
	// Key is the secret key. It is only hashed.
	Key   string
	Store Store
	// Fetcher returns a new Fetcher for a check, so that nothing is left of the one
	// before.
	Fetcher func() Fetcher
	Now     func() time.Time
}

// Checker compares mirrored rooms with those that the key shows.
type Checker struct {
	cfg   Config
	again chan struct{}
}

// New returns a Checker.
func New(cfg Config) *Checker { return &Checker{cfg: cfg, again: make(chan struct{}, 1)} }

// hash returns the salted hash of a key.
func hash(salt []byte, key string) []byte {
	mac := hmac.New(sha256.New, salt)
	mac.Write([]byte(key))
	return mac.Sum(bytes.Clone(salt))
}

// Changed reports whether the key is another one than the one that was shown to be
// right last. A key of which nothing is known is believed: see [Checker.Remember].
func (c *Checker) Changed(ctx context.Context) (bool, error) {
	project, err := c.cfg.Store.Project(ctx, c.cfg.Project)
	if err != nil {
		return false, fmt.Errorf("read the hash of the secret key: %w", err)
	}
	known := project.KeyHash
	return known != nil && (len(known) <= saltSize || !hmac.Equal(hash(known[:saltSize], c.cfg.Key), known)), nil
}

// Remember stores the hash of the key if none is stored: that of a new database, or of
// one that an earlier version has written.
func (c *Checker) Remember(ctx context.Context) error {
	project, err := c.cfg.Store.Project(ctx, c.cfg.Project)
	if err != nil || project.KeyHash != nil {
		return err
	}
	return c.save(ctx)
}

// vouched reports whether an operator vouches for the key.
func (c *Checker) vouched(project mirror.Project) bool {
	return !project.KeyConfirmTime.IsZero() && c.cfg.Now().Sub(project.KeyConfirmTime) < mirror.ConfirmationLife
}

func (c *Checker) save(ctx context.Context) error {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails by its own contract
	return c.cfg.Store.SaveKeyHash(ctx, c.cfg.Project, hash(salt, c.cfg.Key))
}

// Check returns why the key must not be used, or "" and stores its hash if it may.
func (c *Checker) Check(ctx context.Context) (problem string, err error) {
	if problem, err = c.Problem(ctx); err != nil || problem != "" {
		return problem, err
	}
	return "", c.save(ctx)
}

// Again receives when a failed check may succeed now.
func (c *Checker) Again() <-chan struct{} { return c.again }

// Confirm stores that an operator vouches for the key.
func (c *Checker) Confirm(ctx context.Context, project mirror.ProjectID) error {
	if err := c.cfg.Store.ConfirmKey(ctx, project, c.cfg.Now()); err != nil {
		return err
	}
	select {
	case c.again <- struct{}{}:
	default:
	}
	return nil
}

// Problem returns why the key is probably that of another project: of some mirrored
// rooms, it shows none with the known creation time. It is "" if it shows one, if
// no room is mirrored, or if an operator vouches for the key.
func (c *Checker) Problem(ctx context.Context) (string, error) {
	project, err := c.cfg.Store.Project(ctx, c.cfg.Project)
	if err != nil {
		return "", fmt.Errorf("read whether the key is confirmed: %w", err)
	}
	if c.vouched(project) {
		return "", nil
	}
	sample, err := c.sample(ctx)
	if err != nil || len(sample) == 0 {
		return "", err
	}
	fetcher := c.cfg.Fetcher()
	for _, room := range sample {
		shown, err := fetcher.Room(ctx, room.ID)
		switch {
		case fault.Is(err, fault.ReasonUpstreamNotFound), fault.Is(err, fault.ReasonUpstreamAccessDenied):
		case err != nil:
			return "", err
		case listing.SameLife(room, shown):
			return "", nil
		}
	}
	if shown, err := c.listed(ctx, fetcher); err != nil || shown {
		return "", err
	}
	return fmt.Sprintf("Liveblocks shows none of %d mirrored rooms with their creation time, so the secret key is "+
		"probably that of another project; nothing is fetched or deleted; set the right key (LIVEBLOCKS_SECRET_KEY, or that "+
		"of the projects file) and restart, or confirm that this one is right with `liveblocks-mirror project confirm-key "+
		"--project-id=%s`", len(sample), c.cfg.Project), nil
}

// sample returns some rooms that are mirrored and not deleted.
func (c *Checker) sample(ctx context.Context) ([]mirror.Room, error) {
	events, err := c.cfg.Store.Events(ctx, store.EventFilter{Project: c.cfg.Project, NoPayload: true, Limit: recentEvents})
	if err != nil {
		return nil, fmt.Errorf("read the latest events: %w", err)
	}
	seen := make(map[mirror.RoomID]bool)
	var ids []mirror.RoomID
	for _, e := range events {
		if e.Room != "" && !seen[e.Room] {
			seen[e.Room] = true
			ids = append(ids, e.Room)
		}
	}
	recent, err := c.cfg.Store.RoomsByID(ctx, c.cfg.Project, ids, false)
	if err != nil {
		return nil, fmt.Errorf("look up the rooms of the latest events: %w", err)
	}
	first, err := c.cfg.Store.Rooms(ctx, store.RoomFilter{Project: c.cfg.Project, Limit: sampleSize})
	if err != nil {
		return nil, fmt.Errorf("list mirrored rooms: %w", err)
	}
	var sample []mirror.Room
	clear(seen)
	for _, list := range [][]mirror.Room{recent, first} {
		n := 0
		for _, room := range list {
			if n < sampleSize && room.Freshness.DeleteTime.IsZero() && !seen[room.ID] {
				seen[room.ID] = true
				sample = append(sample, room)
				n++
			}
		}
	}
	return sample, nil
}

// listed reports whether the first page of the list has a mirrored room with its
// creation time.
func (c *Checker) listed(ctx context.Context, fetcher Fetcher) (bool, error) {
	page, err := fetcher.ListRooms(ctx, "", listing.PageSize)
	if err != nil {
		return false, err
	}
	content := make(map[mirror.RoomID]mirror.RoomContent, len(page.Rooms))
	ids := make([]mirror.RoomID, 0, len(page.Rooms))
	for _, r := range page.Rooms {
		content[r.ID] = r.Content
		ids = append(ids, r.ID)
	}
	rooms, err := c.cfg.Store.RoomsByID(ctx, c.cfg.Project, ids, false)
	if err != nil {
		return false, fmt.Errorf("look up listed rooms: %w", err)
	}
	for _, room := range rooms {
		if room.Freshness.DeleteTime.IsZero() && listing.SameLife(room, content[room.ID]) {
			return true, nil
		}
	}
	return false, nil
}
