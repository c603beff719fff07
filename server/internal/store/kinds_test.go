package store_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TestKindsInSQL holds that no statement spells a kind out: they take kinds as
// parameters from the table of kinds. A view cannot, and is about documents of one kind.
func TestKindsInSQL(t *testing.T) {
	t.Parallel()
	spelled := regexp.MustCompile(`(?i)\bkind\s*(?:=|<>|<|>|between|in\s*\()\s*(\d+)`)
	for _, c := range []struct {
		files string
		want  []mirror.Kind
	}{
		{"*/sql/*.sql", nil},
		{"mysql/*.go", nil},
		{"postgres/*.go", nil},
		{"internal/*/*.go", nil},
		{"*/views/liveblocks_[df]*.sql", []mirror.Kind{mirror.KindStorage}},
		{"*/views/liveblocks_ydocs.sql", []mirror.Kind{mirror.KindYdoc}},
		{"*/views/liveblocks_[^dfy]*.sql", nil},
	} {
		files, err := filepath.Glob(c.files)
		if err != nil || len(files) == 0 {
			t.Fatalf("files %s = %v, %v; want some", c.files, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range spelled.FindAllSubmatch(text, -1) {
				if kind, _ := strconv.Atoi(string(m[1])); !slices.Contains(c.want, mirror.Kind(kind)) {
					t.Errorf("%s: %q spells a kind out", file, m[0])
				}
			}
		}
	}
}
