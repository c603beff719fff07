package verify

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// withGroups is a store that holds some groups.
type withGroups struct {
	damaged

	groups []mirror.Group
}

func (w withGroups) Groups(context.Context, store.GroupFilter) ([]mirror.Group, error) {
	return w.groups, nil
}

// lister is a Liveblocks that lists some groups.
type lister struct {
	denying

	body string
}

func (l lister) Groups(context.Context) (mirror.Fetched, error) {
	return mirror.Fetched{Body: []byte(l.body)}, nil
}

// Each way in which a group can differ is told apart, and equal groups are no
// difference.
func TestGroupsAreCompared(t *testing.T) {
	t.Parallel()
	group := func(id, canonical string, members ...string) mirror.Group {
		g := mirror.Group{Project: project, ID: id, SHA256: sha256.Sum256([]byte(canonical))}
		for _, m := range members {
			g.Members = append(g.Members, mirror.GroupMember{UserID: m})
		}
		return g
	}
	r := &run{
		options: mirror.VerifyOptions{Project: project},
		Verifier: New(Config{
			Store: withGroups{groups: []mirror.Group{
				group("changed", `{"id":"changed","n":1}`), group("columns", `{"id":"columns","members":[{"id":"a"}]}`),
				group("same", `{"id":"same","members":[{"id":"a"}]}`, "a"), group("surplus", `{"id":"surplus"}`),
			}},
			Fetcher: lister{body: `{"data":[{"id":"changed","n":2},{"id":"columns","members":[{"id":"a"}]},` +
				`{"id":"missing"},{"id":"same","members":[{"id":"a"}]}]}`},
			Limiter: open{}, Now: time.Now,
		}),
	}
	found, listed, skipped := r.compareGroups(t.Context())
	got := make(map[string]mirror.DifferenceKind)
	for res, f := range found {
		got[res.ID] = f.kind
	}
	want := map[string]mirror.DifferenceKind{
		"changed": mirror.DifferenceContent, "columns": mirror.DifferenceDerived, "missing": mirror.DifferenceMissing,
		"surplus": mirror.DifferenceSurplus,
	}
	if diff := cmp.Diff(want, got); diff != "" || listed != 4 || len(skipped) > 0 {
		t.Errorf("compareGroups = %d listed, skipped %q (-want +got):\n%s", listed, skipped, diff)
	}
}
