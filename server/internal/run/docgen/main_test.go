package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TestDocumentIsUpToDate fails when docs/EVENTS.md is not what the code says.
func TestDocumentIsUpToDate(t *testing.T) {
	t.Parallel()
	got, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "EVENTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(document(), string(got)); diff != "" {
		t.Fatalf("docs/EVENTS.md is not what the code says; run make gen (-want +got):\n%s", diff)
	}
}

// Tables that hold no copy of anything at Liveblocks.
var own = []string{
	"mirror_project", "mirror_event", "mirror_unfolded_event", "mirror_resource_state", "mirror_feed_head",
	"mirror_change",
}

// TestTablesAreTheSchemas holds the names of the tables to both engines'
// migrations: none that is not there, and none left out.
func TestTablesAreTheSchemas(t *testing.T) {
	t.Parallel()
	want := slices.Clone(own)
	for _, kind := range mirror.Kinds() {
		want = append(want, kind.Traits().Tables...)
	}
	for kind, changed := range deleted {
		for _, table := range changed {
			if !slices.Contains(want, table) {
				t.Errorf("the deletion of a %s is said to change %s, which holds nothing", kind, table)
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	created := regexp.MustCompile(`(?m)^create table (?:if not exists )?(\w+)`)
	for _, engine := range []string{"postgres", "mysql"} {
		files, err := filepath.Glob(filepath.Join("..", "..", "store", engine, "migrations", "*.sql"))
		if err != nil || len(files) == 0 {
			t.Fatalf("migrations of %s = %v, %v; want some", engine, files, err)
		}
		var got []string
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range created.FindAllSubmatch(b, -1) {
				got = append(got, string(m[1]))
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("tables of %s (-said +created):\n%s", engine, diff)
		}
	}
}
