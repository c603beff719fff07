package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var groupCases = []testCase{
	{"new group", newGroup},
	{"list that lacks too much is not believed", implausibleGroups},
	{"groups by member, in pages", groupsFiltered},
	{"deleted groups", deletedGroups},
}

func groupOf(id string) mirror.Resource {
	return mirror.Resource{Project: project, Kind: mirror.KindGroup, ID: id}
}

// groupIn is a group in its n-th version.
func groupIn(id string, n int, members ...string) mirror.Group {
	g := mirror.Group{
		ID: id, Source: fmt.Appendf(nil, `{"id":%q,"n":%d}`, id, n), OrganizationID: "acme", CreateTime: born,
		UpdateTime: born.Add(time.Duration(n) * time.Second),
	}
	g.SHA256 = sha256.Sum256(g.Source)
	for i, m := range members {
		g.Members = append(g.Members, mirror.GroupMember{UserID: m})
		if i%2 == 0 {
			g.Members[i].AddTime = born
		}
	}
	return g
}

func (e *env) mirrorGroup(g mirror.Group) mirror.Applied {
	e.Helper()
	return e.mirrorItem(itemKits[mirror.KindGroup], store.GroupItem(g))
}

func (e *env) groups(f store.GroupFilter) []mirror.Group {
	e.Helper()
	if f.Project == "" {
		f.Project = project
	}
	if f.Limit == 0 {
		f.Limit = 100
	}
	groups, err := e.Groups(e.ctx(), f)
	e.must("Groups", err)
	return groups
}

func (e *env) groupIDs(f store.GroupFilter) (ids []string) {
	e.Helper()
	for _, g := range e.groups(f) {
		ids = append(ids, g.ID)
	}
	return ids
}

func newGroup(e *env) {
	bucket := groupOf("design").Bucket()
	g := groupIn("design", 1, "alice", "bob")
	e.want("ApplyGroup", e.mirrorGroup(g), mirror.Applied{Changed: true})
	want := g
	want.Project, want.Freshness = project, mirror.Freshness{FetchTime: e.now, Revision: e.lastChange(bucket)}
	want.Members = nil
	got, err := e.Group(e.ctx(), groupOf("design"), false)
	e.must("Group", err)
	e.want("Group", got, want)
	e.want("Groups", e.groups(store.GroupFilter{}), []mirror.Group{want})
	e.want("StoredItem", e.tables(groupOf("design")), rows{
		"mirror_group": {{
			"organization_id": "acme", "source_json": g.Source, "content_sha256": g.SHA256, "create_time": born,
			"update_time": g.UpdateTime,
		}},
		"mirror_group_member": {{"user_id": "alice", "add_time": born}, {"user_id": "bob", "add_time": time.Time{}}},
	}.sorted())
	e.want("changes", e.changes(bucket), []mirror.Change{
		entry(e.lastChange(bucket), groupOf("design"), mirror.ChangeUpserted, 0, e.now),
	})
	_, err = e.Group(e.ctx(), groupOf("Design"), true)
	e.wantErr("Group of another id", err, store.ErrNotFound)
}

func implausibleGroups(e *env) {
	var all []mirror.Group
	for i := range 30 {
		all = append(all, groupIn(fmt.Sprintf("g%02d", i), 1))
		e.mirrorGroup(all[i])
	}
	kit := itemKits[mirror.KindGroup]
	itemsFrom := func(n int) (items []store.Item) {
		for _, g := range all[n:] {
			items = append(items, store.GroupItem(g))
		}
		return items
	}
	if _, err := e.listItems(kit, itemsFrom(21)...); !errors.Is(err, store.ErrImplausible) {
		e.Fatalf("ApplyGroups lacking 21 of 30 = %v; want %v", err, store.ErrImplausible)
	}
	e.wantState(groupOf("g00"), mirror.TaskDone)
	e.pass(time.Hour)
	e.request(mirror.Request{Resource: groupOf("")})
	lease := e.claim(groupOf(""))
	list := mirror.List{FetchTime: e.now, Confirmed: 20}
	for _, item := range itemsFrom(21) {
		list.Items = append(list.Items, mirror.Listed{ID: item.ID, SHA256: item.SHA256})
	}
	parse := func([]byte) (store.Item, error) { return store.Item{}, nil }
	now := func() time.Time { return e.now }
	_, err := store.ApplyList(e.ctx(), e.Store, lease, list, parse, now, 0)
	lacks, ok := errors.AsType[*store.ImplausibleError](err)
	if !ok || *lacks != (store.ImplausibleError{Vanished: 21, Mirrored: 30}) {
		e.Fatalf("ApplyList lacking 21 of 30 of which 20 are confirmed = %v; want the numbers", err)
	}
	list.Confirmed = 21
	confirmed, err := store.ApplyList(e.ctx(), e.Store, lease, list, parse, now, 0)
	e.must("ApplyList lacking 21 of 30 that are confirmed", err)
	e.want("due", len(confirmed.AlsoDue), 21)
	for _, g := range all[:21] {
		e.mirrorGroup(g)
	}
	applied, err := e.listItems(kit, itemsFrom(20)...)
	e.must("ApplyGroups lacking 20 of 30", err)
	e.want("due", len(applied.AlsoDue), 20)
}

func groupsFiltered(e *env) {
	for i := range 5 {
		e.mirrorGroup(groupIn(fmt.Sprintf("g%d", i), 1, "alice", fmt.Sprintf("u%d", i%2)))
	}
	e.want("first page", e.groupIDs(store.GroupFilter{Limit: 2}), []string{"g0", "g1"})
	e.want("next page", e.groupIDs(store.GroupFilter{After: "g1", Limit: 2}), []string{"g2", "g3"})
	e.want("last page", e.groupIDs(store.GroupFilter{After: "g3", Limit: 2}), []string{"g4"})
	e.want("of u1", e.groupIDs(store.GroupFilter{User: "u1"}), []string{"g1", "g3"})
	e.want("of alice after g2", e.groupIDs(store.GroupFilter{User: "alice", After: "g2"}), []string{"g3", "g4"})
	e.want("of U1", e.groupIDs(store.GroupFilter{User: "U1"}), []string(nil))
	e.want("of another project", e.groupIDs(store.GroupFilter{Project: "other"}), []string(nil))
	e.mirrorGroup(groupIn("g1", 2, "carol"))
	e.want("of u1, who left g1", e.groupIDs(store.GroupFilter{User: "u1"}), []string{"g3"})
	e.want("of carol", e.groupIDs(store.GroupFilter{User: "carol"}), []string{"g1"})
	e.mirrorGroup(groupIn("G ", 1, "u1 "))
	e.want("with an odd id", e.groupIDs(store.GroupFilter{}), []string{"G ", "g0", "g1", "g2", "g3", "g4"})
	e.want("of an odd user", e.groupIDs(store.GroupFilter{User: "u1 "}), []string{"G "})
}

func deletedGroups(e *env) {
	e.mirrorGroup(groupIn("design", 1, "alice"))
	e.mirrorGroup(groupIn("other", 1, "bob"))
	r, kit := groupOf("design"), itemKits[mirror.KindGroup]
	e.request(mirror.Request{Resource: r})
	e.missItem(r)
	if got := e.groups(store.GroupFilter{User: "alice"}); len(got) != 1 || got[0].Freshness.MissingSince.IsZero() {
		e.Fatalf("Groups of alice = %+v; want the group, missing", got)
	}
	_, err := e.listItems(kit, store.GroupItem(groupIn("other", 1, "bob")))
	e.must("ApplyList", err)
	e.missItem(r)
	e.want("groups", e.groupIDs(store.GroupFilter{}), []string{"other"})
	e.want("groups of alice", e.groupIDs(store.GroupFilter{User: "alice"}), []string(nil))
	e.want("groups with the deleted", e.groupIDs(store.GroupFilter{Deleted: true}), []string{"design", "other"})
	e.want("groups of alice, deleted too", e.groupIDs(store.GroupFilter{User: "alice", Deleted: true}), []string{"design"})
	_, err = e.Group(e.ctx(), r, false)
	e.wantErr("Group", err, store.ErrNotFound)
	buried, err := e.Group(e.ctx(), r, true)
	e.must("Group", err)
	e.want("delete time", buried.Freshness.DeleteTime, e.now)
}
