package main

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TestDocumentsAreUpToDate fails when a document is not what the code says.
func TestDocumentsAreUpToDate(t *testing.T) {
	t.Parallel()
	for name := range documents {
		want, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := run([]string{name}, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got.String(), string(want)); diff != "" {
			t.Errorf("docs/%s is not what the code says; run make gen (-want +got):\n%s", name, diff)
		}
	}
	for _, args := range [][]string{nil, {"README.md"}, {"EVENTS.md", "CONFIGURATION.md"}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("run with %q = nil; want an error", args)
		}
	}
}

// A call without an example is named, with what to do, and so is an example of no call or
// with the request of another one.
func TestEveryCallNeedsAnExample(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(map[protoreflect.Name]example){
		"there is no example of liveblocks.mirror.v1.MirrorService.GetRoom; add one": func(e map[protoreflect.Name]example) {
			delete(e, "GetRoom")
		},
		"there is an example of GetNothing": func(e map[protoreflect.Name]example) { e["GetNothing"] = e["GetRoom"] },
		"its request is a liveblocks.mirror.v1.GetGroupRequest": func(e map[protoreflect.Name]example) {
			e["GetRoom"] = e["GetGroup"]
		},
		"its path needs room_id": func(e map[protoreflect.Name]example) {
			e["GetRoom"] = example{request: &mirrorv1.GetRoomRequest{}}
		},
	} {
		changed := maps.Clone(examples)
		change(changed)
		if _, err := apiPage(changed); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("apiPage = %v; want %q", err, want)
		}
	}
}

// Tables that hold no copy of anything at Liveblocks.
var own = []string{
	"mirror_project", "mirror_unannounced", "mirror_audit", "mirror_event", "mirror_unfolded_event",
	"mirror_resource_state", "mirror_feed_head", "mirror_change",
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
