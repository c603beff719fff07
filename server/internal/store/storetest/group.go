package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var groupCases = []testCase{
	{"new group", newGroup},
	{"unchanged group moves its times alone", unchangedGroup},
	{"changed group has its new members only", changedGroup},
	{"404 of a group alone deletes nothing", missingGroup},
	{"group that a list lacks is deleted by its 404", deletedGroup},
	{"list marks stale what it shows as new or changed", listedGroups},
	{"list that lacks too much is not believed", implausibleGroups},
	{"list of groups under another lease", groupFences},
	{"groups by member, in pages", groupsFiltered},
	{"odd ids stay apart in groups", oddGroupIDs},
	{"group that is not trusted is written again", invalidatedGroup},
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

// mirrorGroup has a group fetched as it is.
func (e *env) mirrorGroup(g mirror.Group) mirror.Applied {
	e.Helper()
	r := groupOf(g.ID)
	e.request(mirror.Request{Resource: r})
	lease := e.claim(r)
	applied, err := e.ApplyItem(e.ctx(), lease, store.GroupItem(g), e.now, e.now, settle)
	e.must("ApplyGroup", err)
	return e.caughtUp(lease, applied)
}

// missGroup has a group fetched that is not there.
func (e *env) missGroup(id string) mirror.Applied {
	e.Helper()
	lease := e.claim(groupOf(id))
	applied, err := e.ApplyItemMissing(e.ctx(), lease, e.now, settle)
	e.must("ApplyGroupMissing", err)
	return e.caughtUp(lease, applied)
}

func (e *env) listGroups(groups ...mirror.Group) (mirror.Applied, error) {
	e.Helper()
	e.request(mirror.Request{Resource: groupOf(""), Background: true})
	lease := e.claim(groupOf(""))
	applied, err := applyGroups(e.ctx(), e.Store, lease, groups, e.now)
	if err != nil {
		e.fail(lease, e.failure())
		return applied, err
	}
	return e.caughtUp(lease, applied), nil
}

func applyGroups(ctx context.Context, s store.Store, lease mirror.Lease, groups []mirror.Group, now time.Time) (
	mirror.Applied, error,
) {
	items := make([]store.Item, len(groups))
	for i, g := range groups {
		items[i] = store.GroupItem(g)
	}
	return applyList(ctx, s, lease, now, items, now, 0)
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
		entry(e.lastChange(bucket), groupOf("design"), mirror.ChangeUpserted, e.now),
	})
	_, err = e.Group(e.ctx(), groupOf("Design"), true)
	e.wantErr("Group of another id", err, store.ErrNotFound)
}

func unchangedGroup(e *env) {
	g := groupIn("design", 1, "alice")
	e.mirrorGroup(g)
	before := e.changes(groupOf("design").Bucket())
	e.pass(time.Hour)
	e.want("ApplyGroup of the same", e.mirrorGroup(g), mirror.Applied{})
	e.want("changes", e.changes(groupOf("design").Bucket()), before)
	e.want("fetch time", e.groups(store.GroupFilter{})[0].Freshness.FetchTime, e.now)
}

func changedGroup(e *env) {
	e.mirrorGroup(groupIn("design", 1, "alice", "bob"))
	e.mirrorGroup(groupIn("other", 1, "bob"))
	g := groupIn("design", 2, "carol")
	e.want("ApplyGroup", e.mirrorGroup(g), mirror.Applied{Changed: true})
	e.want("members", e.tables(groupOf("design"))["mirror_group_member"],
		[]map[string]any{{"user_id": "carol", "add_time": born}})
	e.want("groups of bob", e.groupIDs(store.GroupFilter{User: "bob"}), []string{"other"})
	e.want("groups of carol", e.groupIDs(store.GroupFilter{User: "carol"}), []string{"design"})
}

func missingGroup(e *env) {
	e.mirrorGroup(groupIn("design", 1, "alice"))
	e.request(mirror.Request{Resource: groupOf("design")})
	e.want("ApplyGroupMissing", e.missGroup("design"), mirror.Applied{})
	got := e.groups(store.GroupFilter{})
	if len(got) != 1 || got[0].Freshness.MissingSince.IsZero() || !got[0].Freshness.DeleteTime.IsZero() {
		e.Fatalf("Groups = %+v; want the group, missing and not deleted", got)
	}
	e.want("ApplyGroup", e.mirrorGroup(groupIn("design", 1, "alice")), mirror.Applied{})
	if f := e.groups(store.GroupFilter{})[0].Freshness; !f.MissingSince.IsZero() {
		e.Fatalf("Freshness = %+v; want it no longer missing", f)
	}
}

func deletedGroup(e *env) {
	r := groupOf("design")
	e.mirrorGroup(groupIn("design", 1, "alice"))
	e.mirrorGroup(groupIn("other", 1))
	applied, err := e.listGroups(groupIn("other", 1))
	e.must("ApplyGroups", err)
	e.want("ApplyGroups", applied, mirror.Applied{AlsoDue: []mirror.Resource{r}})
	e.want("groups before the 404", e.groupIDs(store.GroupFilter{}), []string{"design", "other"})
	e.want("ApplyGroupMissing", e.missGroup("design"), mirror.Applied{Changed: true})
	e.want("groups", e.groupIDs(store.GroupFilter{}), []string{"other"})
	e.want("groups of alice", e.groupIDs(store.GroupFilter{User: "alice"}), []string(nil))
	_, err = e.Group(e.ctx(), r, false)
	e.wantErr("Group", err, store.ErrNotFound)
	buried, err := e.Group(e.ctx(), r, true)
	e.must("Group", err)
	e.want("delete time", buried.Freshness.DeleteTime, e.now)
	e.want("groups with the deleted", e.groupIDs(store.GroupFilter{Deleted: true}), []string{"design", "other"})
	last := e.changes(r.Bucket())
	e.want("change", last[len(last)-1].Kind, mirror.ChangeDeleted)
	// A tombstone is not announced twice, and can be revived.
	applied, err = e.listGroups(groupIn("other", 1))
	e.must("ApplyGroups", err)
	e.want("ApplyGroups without the tombstone", applied, mirror.Applied{})
	e.want("ApplyGroup", e.mirrorGroup(groupIn("design", 1, "alice")), mirror.Applied{Changed: true})
	e.want("groups of alice", e.groupIDs(store.GroupFilter{User: "alice"}), []string{"design"})
}

func listedGroups(e *env) {
	e.mirrorGroup(groupIn("a", 1))
	e.mirrorGroup(groupIn("b", 1))
	before := e.changes(groupOf("").Bucket())
	applied, err := e.listGroups(groupIn("c", 1), groupIn("b", 2), groupIn("a", 1))
	e.must("ApplyGroups", err)
	e.want("ApplyGroups", applied, mirror.Applied{AlsoDue: []mirror.Resource{groupOf("b"), groupOf("c")}})
	e.want("changes", e.changes(groupOf("").Bucket()), before)
	e.wantBackground("listed", groupOf("c"), true)
	e.wantState(groupOf("a"), mirror.TaskDone)
	e.wantState(groupOf("b"), mirror.TaskPending)
	e.wantState(groupOf(""), mirror.TaskDone)
}

func implausibleGroups(e *env) {
	var all []mirror.Group
	for i := range 30 {
		all = append(all, groupIn(fmt.Sprintf("g%02d", i), 1))
		e.mirrorGroup(all[i])
	}
	if _, err := e.listGroups(all[21:]...); !errors.Is(err, store.ErrImplausible) {
		e.Fatalf("ApplyGroups lacking 21 of 30 = %v; want %v", err, store.ErrImplausible)
	}
	e.wantState(groupOf("g00"), mirror.TaskDone)
	e.pass(time.Hour)
	e.request(mirror.Request{Resource: groupOf("")})
	lease := e.claim(groupOf(""))
	list, items := mirror.List{FetchTime: e.now, Confirmed: 20}, []store.Item(nil)
	for _, g := range all[21:] {
		items = append(items, store.GroupItem(g))
		list.Items = append(list.Items, mirror.Listed{ID: g.ID, SHA256: items[len(items)-1].SHA256})
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
	applied, err := e.listGroups(all[20:]...)
	e.must("ApplyGroups lacking 20 of 30", err)
	e.want("due", len(applied.AlsoDue), 20)
}

func groupFences(e *env) {
	e.mirrorGroup(groupIn("a", 1))
	e.request(mirror.Request{Resource: groupOf("")}, mirror.Request{Resource: groupOf("a")})
	list, one := e.claim(groupOf("")), e.claim(groupOf("a"))
	list.Token, one.Token = newToken(), newToken()
	before := e.task(groupOf("a"))
	_, err := applyGroups(e.ctx(), e.Store, list, nil, e.now)
	e.wantErr("ApplyGroups", err, store.ErrLeaseLost)
	_, err = e.ApplyItem(e.ctx(), one, store.GroupItem(groupIn("a", 2)), e.now, e.now, settle)
	e.wantErr("ApplyGroup", err, store.ErrLeaseLost)
	_, err = e.ApplyItemMissing(e.ctx(), one, e.now, settle)
	e.wantErr("ApplyGroupMissing", err, store.ErrLeaseLost)
	e.want("task", e.task(groupOf("a")), before)
	e.want("copy", e.groups(store.GroupFilter{})[0].SHA256, groupIn("a", 1).SHA256)
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
}

func oddGroupIDs(e *env) {
	ids := []string{" a", "A", "a", "a ", "a/b:c?d#e%f", "roo\u0308m", "ro\u00f6m"}
	for _, id := range ids {
		e.mirrorGroup(groupIn(id, 1, id))
	}
	e.want("Groups", e.groupIDs(store.GroupFilter{}), ids)
	for _, id := range ids {
		e.want("groups of "+id, e.groupIDs(store.GroupFilter{User: id}), []string{id})
	}
}

func invalidatedGroup(e *env) {
	g := groupIn("design", 1, "alice")
	e.mirrorGroup(g)
	e.must("Invalidate", e.Invalidate(e.ctx(), groupOf("design")))
	e.want("ApplyGroup of the same", e.mirrorGroup(g), mirror.Applied{Changed: true})
	e.want("ApplyGroup of the same again", e.mirrorGroup(g), mirror.Applied{})
}
