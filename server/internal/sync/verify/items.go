package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/items"
)

// project compares the items of a kind that are in no room, and reports lasting
// differences.
func (r *run) project(ctx context.Context, kind mirror.Kind) {
	list := mirror.Resource{Project: r.options.Project, Kind: kind}
	first := &comparison{run: r}
	check := func(ctx context.Context) (map[mirror.Resource]finding, []skipped) { return first.checkItems(ctx, list) }
	r.confirm(ctx, check, r.checkOf(list))
	r.compared(0, first.resources)
}

// checkItems compares the items of a list that is in no room.
func (c *comparison) checkItems(ctx context.Context, list mirror.Resource) (map[mirror.Resource]finding, []skipped) {
	c.found = make(map[mirror.Resource]finding)
	if err := c.compareItems(ctx, list); err != nil {
		c.skip(list, err)
	}
	return c.found, append(c.skipped, c.tasks(ctx, c.found)...)
}

// compareItems compares the items that Liveblocks lists with those that are mirrored.
func (c *comparison) compareItems(ctx context.Context, list mirror.Resource) error {
	ctx, end := c.cfg.Memory.Begin(ctx)
	defer end()
	source := items.Sources[list.Kind]
	var fetched mirror.List
	err := c.fetch(ctx, list, func() (err error) {
		fetched, err = source.List(ctx, c.cfg.Fetcher, list)
		return err
	})
	if err != nil {
		return err
	}
	item := func(id string) mirror.Resource {
		list.ID = id
		return list
	}
	listed := make(map[string]bool, len(fetched.Items))
	for _, one := range fetched.Items {
		listed[one.ID] = true
		c.resources++
		if err := c.compareItem(ctx, item(one.ID), one.SHA256, source); err != nil {
			return err
		}
	}
	known, err := c.cfg.Store.KnownItems(ctx, item(""))
	if err != nil {
		return fmt.Errorf("list mirrored %ss: %w", list.Kind, err)
	}
	var lacks store.ImplausibleError
	for id, k := range known {
		if k.Copy == (store.ItemCopy{}) || k.Copy.Deleted {
			continue
		}
		if lacks.Mirrored++; listed[id] {
			continue
		}
		// Reading it tells whether it is of the room's present incarnation.
		switch _, err := c.cfg.Store.StoredItem(ctx, item(id)); {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		default:
			c.resources++
			lacks.Vanished++
			c.add(item(id), mirror.DifferenceSurplus, "Liveblocks has no such "+list.Kind.String())
		}
	}
	if !store.ItemKindOf(list).Guarded || !store.TooManyVanished(lacks.Vanished, lacks.Mirrored) {
		return nil
	}
	confirmed, err := c.confirmed(ctx)
	if err == nil && lacks.Vanished > confirmed.Groups {
		c.disbelieve(list.Kind, items.Implausible(list.Kind, &lacks))
	}
	return err
}

// compareItem compares an item with the hash of its JSON, and its rows with its copy.
func (c *comparison) compareItem(ctx context.Context, res mirror.Resource, sum [32]byte, source items.Source) error {
	stored, err := c.cfg.Store.StoredItem(ctx, res)
	if errors.Is(err, store.ErrNotFound) {
		c.addMissing(res)
		return nil
	}
	if err != nil {
		return err
	}
	kind := store.ItemKindOf(res)
	want, err := source.Parse(stored.Source(kind))
	switch {
	case err != nil, want.ID != res.ID, want.SHA256 != sum:
		c.add(res, mirror.DifferenceContent, "the copy of the "+res.Kind.String()+" differs from Liveblocks")
	case stored.SHA256 != want.SHA256:
		c.add(res, mirror.DifferenceDerived, "the hash does not match the copy")
	default:
		if what := store.Differs(kind, want, stored); what != "" {
			c.add(res, mirror.DifferenceDerived, what)
		}
	}
	return nil
}
