package follow_test

import (
	"fmt"
	"slices"
	"testing"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// The copies of the example are those of the mirror: after a first snapshot, after changes, and
// after a snapshot of a database with lower revisions.
func TestCopiesOfTheExample(t *testing.T) {
	t.Parallel()
	const deleted = mirrorv1.ChangeKind_CHANGE_KIND_DELETED
	room := func(id string, revision int64) *mirrorv1.Change {
		return &mirrorv1.Change{
			RoomId: id, ChangeKind: mirrorv1.ChangeKind_CHANGE_KIND_UPSERTED, Revision: revision,
			Resource: &mirrorv1.Change_Room{Room: &mirrorv1.Room{
				RoomId: id, Freshness: &mirrorv1.Freshness{Revision: revision},
			}},
		}
	}
	omitted := func(id string, why mirrorv1.ResourceOmission) *mirrorv1.Change {
		return &mirrorv1.Change{RoomId: id, ChangeKind: mirrorv1.ChangeKind_CHANGE_KIND_UPSERTED, Omission: &why}
	}
	begin := &mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_SnapshotBegin{
		SnapshotBegin: &mirrorv1.SnapshotBegin{},
	}}
	items := func(all ...*mirrorv1.Change) *mirrorv1.WatchChangesResponse {
		return &mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_SnapshotItems{
			SnapshotItems: &mirrorv1.SnapshotItems{Items: all},
		}}
	}
	end := &mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_SnapshotEnd{
		SnapshotEnd: &mirrorv1.SnapshotEnd{},
	}}
	changes := func(all ...*mirrorv1.Change) *mirrorv1.WatchChangesResponse {
		return &mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_Changes{
			Changes: &mirrorv1.ChangeBatch{Changes: all},
		}}
	}
	c := make(copies)
	for i, step := range []struct {
		response *mirrorv1.WatchChangesResponse
		want     string
	}{
		{begin, "[]"},
		{items(room("a", 5), room("b", 6)), "[a5 b6]"},
		{items(room("c", 9)), "[a5 b6 c9]"},
		{end, "[a5 b6 c9]"},
		// c is newer than its change, and a comes back.
		{changes(room("c", 8), &mirrorv1.Change{RoomId: "a", ChangeKind: deleted}), "[b6 c9]"},
		{changes(room("a", 10), omitted("a", mirrorv1.ResourceOmission_RESOURCE_OMISSION_EARLIER)), "[a10 b6 c9]"},
		{changes(omitted("d", mirrorv1.ResourceOmission_RESOURCE_OMISSION_DELETED)), "[a10 b6 c9]"},
		// The database was restored.
		{begin, "[a10 b6 c9]"},
		{items(room("a", 3)), "[a3 b6 c9]"},
		{items(omitted("c", mirrorv1.ResourceOmission_RESOURCE_OMISSION_TOO_LARGE)), "[a3 b6 c9]"},
		{end, "[a3 c9]"},
	} {
		if err := c.handle(t.Context(), step.response); err != nil {
			t.Fatal(err)
		}
		var got []string
		for id, h := range c {
			got = append(got, fmt.Sprint(id, h.room.GetFreshness().GetRevision()))
		}
		if slices.Sort(got); fmt.Sprint(got) != step.want {
			t.Errorf("after response %d: %v; want %s", i+1, got, step.want)
		}
	}
}
