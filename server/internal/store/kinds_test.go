package store_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TestKindsInSQL holds that no statement spells a kind out: they take kinds as
// parameters from the table of kinds. A view cannot, and is about Storage alone.
func TestKindsInSQL(t *testing.T) {
	t.Parallel()
	spelled := regexp.MustCompile(`(?i)\bkind\s*(?:=|<>|<|>|between|in\s*\()\s*(\d+)`)
	for _, c := range []struct {
		files string
		want  mirror.Kind // 0 for none
	}{
		{"*/sql/*.sql", 0},
		{"mysql/*.go", 0},
		{"postgres/*.go", 0},
		{"internal/*/*.go", 0},
		{"*/views/*.sql", mirror.KindStorage},
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
				if kind, _ := strconv.Atoi(string(m[1])); mirror.Kind(kind) != c.want {
					t.Errorf("%s: %q spells a kind out", file, m[0])
				}
			}
		}
	}
}
