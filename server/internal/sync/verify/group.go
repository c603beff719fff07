package verify

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/group"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

// projectComparisons compare the resources of each verified kind that is in no room.
var projectComparisons = map[mirror.Kind]func(*run, context.Context){mirror.KindGroup: (*run).groups}

// groups compares the project's groups, and reports what differs and stays so.
func (r *run) groups(ctx context.Context) {
	resources := 0
	r.confirm(ctx, func(ctx context.Context) (found map[mirror.Resource]finding, skipped []string) {
		found, resources, skipped = r.compareGroups(ctx)
		return found, skipped
	}, r.checkGroups)
	r.compared(0, resources)
}

func (r *run) checkGroups(ctx context.Context) (map[mirror.Resource]finding, []string) {
	found, _, skipped := r.compareGroups(ctx)
	return found, skipped
}

// compareGroups compares the list of groups with the mirrored ones, once.
func (r *run) compareGroups(ctx context.Context) (found map[mirror.Resource]finding, listed int, skipped []string) {
	found = make(map[mirror.Resource]finding)
	add := func(id string, kind mirror.DifferenceKind, detail string) {
		res := mirror.Resource{Project: r.options.Project, Kind: mirror.KindGroup, ID: id}
		found[res] = finding{resource: res, kind: kind, detail: detail}
	}
	groups, mirrored, err := r.bothGroups(ctx)
	if err != nil {
		return nil, 0, []string{fault.Of(err).Public}
	}
	for _, g := range groups {
		switch stored, ok := mirrored[g.ID]; {
		case !ok:
			add(g.ID, mirror.DifferenceMissing, "the group is not mirrored")
		case stored.SHA256 != g.SHA256:
			add(g.ID, mirror.DifferenceContent, "the group is not as Liveblocks has it")
		case !sameGroup(stored, g):
			add(g.ID, mirror.DifferenceDerived, "the columns are not those of the copy")
		}
		delete(mirrored, g.ID)
	}
	for id := range mirrored {
		add(id, mirror.DifferenceSurplus, "Liveblocks does not have the group")
	}
	return found, len(groups), r.tasks(ctx, found)
}

// bothGroups returns the groups that Liveblocks lists and those that are mirrored.
func (r *run) bothGroups(ctx context.Context) (groups []mirror.Group, mirrored map[string]mirror.Group, err error) {
	var fetched mirror.Fetched
	if err = r.call(ctx, func() (err error) {
		fetched, err = r.cfg.Fetcher.Groups(ctx)
		return err
	}); err != nil {
		return nil, nil, err
	}
	items, err := listed.Parse(fetched.Body)
	if err != nil {
		return nil, nil, err
	}
	for _, item := range items {
		g, err := group.Parse(item.Source)
		if err != nil {
			return nil, nil, err
		}
		groups = append(groups, g)
	}
	mirrored = make(map[string]mirror.Group)
	filter := store.GroupFilter{Project: r.options.Project, Limit: listing.Batch}
	for {
		page, err := r.cfg.Store.Groups(ctx, filter)
		if err != nil {
			return nil, nil, fmt.Errorf("list mirrored groups: %w", err)
		}
		for _, g := range page {
			mirrored[g.ID] = g
		}
		if len(page) < filter.Limit {
			return groups, mirrored, nil
		}
		filter.After = page[len(page)-1].ID
	}
}

// sameGroup compares the columns that are made from the source.
func sameGroup(stored, listed mirror.Group) bool {
	return stored.OrganizationID == listed.OrganizationID && sameTime(stored.CreateTime, listed.CreateTime) &&
		sameTime(stored.UpdateTime, listed.UpdateTime) && sameSet(stored.Members, listed.Members, compareMembers)
}

func compareMembers(a, b mirror.GroupMember) int {
	return cmp.Or(cmp.Compare(a.UserID, b.UserID),
		a.AddTime.Truncate(time.Microsecond).Compare(b.AddTime.Truncate(time.Microsecond)))
}
