package blackbox_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// Groups have no webhook: sweeps find new, changed and deleted ones.
func TestGroups(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		populate(t, upstream, "room")
		for i := range 101 { // more than a page of the list
			upstream.PutGroup(fmt.Sprintf("group-%03d", i), "alice")
		}
		upstream.PutGroup("Ö/ %", "bob", "carol")
		url := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: often})
		client := s.Mirror(t)
		list := func(req *mirrorv1.ListGroupsRequest) (ids []string) {
			req.PageSize = 60
			for {
				got, err := client.ListGroups(t.Context(), req)
				if err != nil {
					t.Fatalf("ListGroups = %v", err)
				}
				for _, g := range got.GetGroups() {
					ids = append(ids, g.GetGroupId())
				}
				if req.PageToken = got.GetNextPageToken(); req.GetPageToken() == "" {
					return ids
				}
			}
		}
		await := func(what string, user string, want int) {
			t.Helper()
			harness.Eventually(t, patience, func() error {
				if got := list(&mirrorv1.ListGroupsRequest{UserId: user}); len(got) != want || !slices.IsSorted(got) {
					return fmt.Errorf("groups %s = %q; want %d in order", what, got, want)
				}
				return nil
			})
		}
		await("at first", "", 102)
		await("of carol", "carol", 1)

		got, err := client.GetGroup(t.Context(), &mirrorv1.GetGroupRequest{GroupId: "Ö/ %"})
		source, _ := upstream.GroupSource("Ö/ %")
		group := got.GetGroup()
		if err != nil || string(group.GetSourceJson()) != string(source) || len(group.GetMembers()) != 2 ||
			!slices.Equal(group.GetScopes(), []string{"mention"}) || group.GetCreateTime() == nil {
			t.Errorf("GetGroup = %v, %v; want %s", got, err, source)
		}
		for _, path := range []string{"/v1/groups/%C3%96%2F%20%25", "/v1/users/carol/groups", "/v1/groups?userId=carol"} {
			if status, _, body := s.Get(t, path); status != http.StatusOK {
				t.Errorf("GET %s = %d %s", path, status, body)
			}
		}
		if status, _, body := s.Get(t, "/v1/groups/none"); status != http.StatusNotFound {
			t.Errorf("GET of an unknown group = %d %s; want 404", status, body)
		}

		upstream.PutGroup("Ö/ %", "dave")
		upstream.PutGroup("new", "dave")
		upstream.SetGroup("group-000", nil)
		await("of dave", "dave", 2)
		await("of carol, who left", "carol", 0)
		await("after a deletion", "alice", 100)
		awaitSwept(t, s)
		wantVerified(t, s, "of groups")

		db := e.Connect(t, url)
		for _, statement := range []string{
			"update mirror_group set organization_id = 'x' where group_id = 'group-001'",
			"delete from mirror_group_member where group_id = 'group-002'",
		} {
			if n, err := db.Exec(t.Context(), statement); err != nil || n != 1 {
				t.Fatalf("%s = %d, %v", statement, n, err)
			}
		}
		if found := verify(t, s, "--repair"); found.code != 3 {
			t.Errorf("verify --repair of two damaged groups = %+v; want exit code 3", found)
		}
		wantVerified(t, s, "after the repair")
		await("after the repair", "alice", 100)
	})
}
