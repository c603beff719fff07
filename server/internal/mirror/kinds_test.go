package mirror_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TestEveryKindIsInTheTable compares the constants with the table: a kind without
// a row is not mirrored, listed or shown anywhere.
func TestEveryKindIsInTheTable(t *testing.T) {
	t.Parallel()
	names := make(map[string]mirror.Kind)
	for _, kind := range mirror.Kinds() {
		traits := kind.Traits()
		if traits.Name == "" || traits.Title == "" || traits.Source == "" || len(traits.Tables) == 0 {
			t.Errorf("the row of kind %d has gaps: %+v", kind, traits)
		}
		if other, twice := names[traits.Name]; twice {
			t.Errorf("kinds %d and %d are both named %s", other, kind, traits.Name)
		}
		names[traits.Name] = kind
	}
	file, err := parser.ParseFile(token.NewFileSet(), "kinds.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []mirror.Kind
	for spec := range ast.Preorder(file) {
		c, ok := spec.(*ast.ValueSpec)
		if !ok || len(c.Values) != 1 {
			continue
		}
		if of, ok := c.Type.(*ast.Ident); !ok || of.Name != "Kind" {
			continue
		}
		literal, ok := c.Values[0].(*ast.BasicLit)
		if !ok {
			t.Fatalf("%s is no number", c.Names[0])
		}
		number, err := strconv.Atoi(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		declared = append(declared, mirror.Kind(number))
	}
	slices.Sort(declared)
	if diff := cmp.Diff(declared, mirror.Kinds()); diff != "" {
		t.Errorf("kinds (-declared +in the table):\n%s", diff)
	}
}

// TestTraitsFit holds the rules between traits.
func TestTraitsFit(t *testing.T) {
	t.Parallel()
	for _, kind := range mirror.Kinds() {
		traits := kind.Traits()
		inRoom := traits.Scope == mirror.ScopeRoom
		if traits.NeedsRoom && (!inRoom || traits.OutlivesRoom) {
			t.Errorf("%s needs its room, and is not in one or outlives it", kind)
		}
		if traits.WithRoom && (!traits.NeedsRoom || traits.ID == mirror.IDRequired) {
			t.Errorf("%s comes with every room without an id, and cannot", kind)
		}
		if !inRoom && !traits.OutlivesRoom {
			t.Errorf("%s is not in a room, and goes with one", kind)
		}
		if kind.String() != traits.Name {
			t.Errorf("String of %s = %q", traits.Name, kind)
		}
	}
	if got := mirror.Kind(99); got.String() != "unknown" || mirror.Kind(-1).String() != "unknown" {
		t.Errorf("String of an unknown kind = %q", got)
	}
}

// TestKindsByTrait pins what the store's statements and the decoder of events go by.
func TestKindsByTrait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		got  []mirror.Kind
		want []mirror.Kind
	}{
		{"RoomKinds", mirror.RoomKinds(), []mirror.Kind{mirror.KindStorage, mirror.KindYdoc, mirror.KindThread}},
		{"ChildKinds", mirror.ChildKinds(), []mirror.Kind{
			mirror.KindStorage, mirror.KindYdoc, mirror.KindThread, mirror.KindActiveUsers,
		}},
		{"SweptKinds(SweepListed)", mirror.SweptKinds(mirror.SweepListed), []mirror.Kind{mirror.KindRoom}},
		{"SweptKinds(SweepConnected)", mirror.SweptKinds(mirror.SweepConnected), []mirror.Kind{mirror.KindActiveUsers}},
		{"SweptKinds(SweepFull)", mirror.SweptKinds(mirror.SweepFull), mirror.RoomKinds()},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestValidResource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind mirror.Kind
		room mirror.RoomID
		id   string
		want bool
	}{
		{mirror.KindRoom, "r", "", true},
		{mirror.KindRoom, "", "", false},
		{mirror.KindRoom, "r", "x", false},
		{mirror.KindYdoc, "r", "", true},
		{mirror.KindYdoc, "r", "guid", true},
		{mirror.KindYdoc, "r", "\x00", false},
		{mirror.KindNotification, "", "in_1", true},
		{mirror.KindNotification, "r", "in_1", true},
		{mirror.KindNotification, "r", "", false},
		{mirror.KindSweep, "", "", true},
		{mirror.KindSweep, "r", "", false},
		{99, "r", "", false},
		{0, "", "", false},
	} {
		r := mirror.Resource{Room: c.room, Kind: c.kind, ID: c.id}
		if got := r.Valid(); got != c.want {
			t.Errorf("Valid of %+v = %t; want %t", r, got, c.want)
		}
	}
}
