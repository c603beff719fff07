package verify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// withGroups is a store that holds some groups.
type withGroups struct {
	damaged

	groups map[string]store.Item
}

func (w withGroups) KnownItems(context.Context, mirror.Resource) (map[string]store.Known, error) {
	known := map[string]store.Known{"unheard": {HasState: true}, "gone": {Copy: store.ItemCopy{Epoch: 1, Deleted: true}}}
	for id, g := range w.groups {
		known[id] = store.Known{HasState: true, Copy: store.ItemCopy{Epoch: 1, SHA256: g.SHA256}}
	}
	known["of an earlier room"] = store.Known{Copy: store.ItemCopy{Epoch: 1}}
	return known, nil
}

func (w withGroups) StoredItem(_ context.Context, r mirror.Resource) (store.Item, error) {
	g, ok := w.groups[r.ID]
	if !ok {
		return g, store.ErrNotFound
	}
	return g, nil
}

// lister is a Liveblocks that lists some groups.
type lister struct {
	denying

	groups []mirror.Listed
}

func (l lister) Groups(context.Context) (mirror.List, error) {
	return mirror.List{Items: l.groups}, nil
}

// Each way in which an item can differ is told apart, and equal ones are no difference.
func TestItemsAreCompared(t *testing.T) {
	t.Parallel()
	stored := make(map[string]store.Item)
	var groups []mirror.Listed
	for _, id := range []string{"changed", "columns", "hash", "missing", "nonsense", "other", "same", "surplus"} {
		source := fmt.Sprintf(`{"id":%q,"members":[{"id":"a"}]}`, id)
		g := mirror.Group{
			ID: id, Source: []byte(source), SHA256: sha256.Sum256([]byte(source)),
			Members: []mirror.GroupMember{{UserID: "a"}},
		}
		listed := mirror.Listed{ID: id, SHA256: g.SHA256}
		switch id {
		case "changed":
			listed.SHA256[0]++
		case "columns":
			g.Members = nil
		case "hash":
			g.SHA256[0]++
		case "nonsense":
			g.Source = []byte(`no JSON`)
		case "other":
			g.Source = []byte(`{"id":"same"}`)
		}
		if id != "surplus" {
			groups = append(groups, listed)
		}
		if id != "missing" {
			stored[id] = store.GroupItem(g)
		}
	}
	r := &run{
		options: mirror.VerifyOptions{Project: project},
		Verifier: New(Config{
			Store: withGroups{groups: stored}, Fetcher: lister{groups: groups}, Limiter: open{}, Now: time.Now,
		}),
	}
	c := &comparison{run: r}
	found, skipped := c.checkItems(t.Context(), mirror.Resource{Project: project, Kind: mirror.KindGroup})
	got := make(map[string]string)
	for res, f := range found {
		got[res.ID] = f.detail
	}
	const content = "the copy of the group differs from Liveblocks"
	want := map[string]string{
		"changed": content, "nonsense": content, "other": content, "hash": "the hash does not match the copy",
		"columns": "a row of mirror_group_member is missing", "missing": "the group is not mirrored",
		"surplus": "Liveblocks has no such group",
	}
	if diff := cmp.Diff(want, got); diff != "" || c.resources != 8 || len(skipped) > 0 {
		t.Errorf("checkItems compares %d, skipped %+v (-want +got):\n%s", c.resources, skipped, diff)
	}
}
