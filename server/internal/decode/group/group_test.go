package group_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/group"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func TestParseReadsThePublishedShape(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/groups.json")
	if err != nil {
		t.Fatal(err)
	}
	list, err := listed.Parse(raw)
	if err != nil || len(list) != 1 {
		t.Fatalf("Parse = %d groups, %v; want one", len(list), err)
	}
	got, err := group.Parse(list[0].Source)
	if err != nil || got.SHA256 != list[0].SHA256 {
		t.Fatalf("Parse = %+v, %v; want the hash of the list, %x", got, err, list[0].SHA256)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	want := mirror.Group{
		ID: "design", OrganizationID: "default", CreateTime: at, UpdateTime: at, Scopes: []string{"mention"},
		Members: []mirror.GroupMember{{UserID: "alice", AddTime: at}},
		Source:  got.Source, SHA256: got.SHA256,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	alone, err := group.Parse([]byte(strings.ReplaceAll(string(got.Source), "\n", "")))
	if err != nil || alone.SHA256 != want.SHA256 {
		t.Errorf("Parse of the group without line breaks: hash %x, %v; want %x", alone.SHA256, err, want.SHA256)
	}
}

func TestParseIsLenient(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		raw  string
		want mirror.Group
		err  error
	}{
		"an id alone":      {raw: `{"id":"g"}`, want: mirror.Group{ID: "g"}},
		"bytes of the id":  {raw: `{"id":" G\u00f6 "}`, want: mirror.Group{ID: " Gö "}},
		"odd fields":       {raw: `{"id":"g","createdAt":5,"scopes":[],"members":{}}`, want: mirror.Group{ID: "g"}},
		"a scope withheld": {raw: `{"id":"g","scopes":{"mention":false}}`, want: mirror.Group{ID: "g"}},
		"scopes in order": {
			raw: `{"id":"g","scopes":{"b":true,"a":true}}`, want: mirror.Group{ID: "g", Scopes: []string{"a", "b"}},
		},
		"members": {
			raw:  `{"id":"g","members":[{"id":"a"},{"id":""},{},null,{"id":"a"},{"id":"A"}]}`,
			want: mirror.Group{ID: "g", Members: []mirror.GroupMember{{UserID: "a"}, {UserID: "A"}}},
		},
		"no id":         {raw: `{"members":[]}`, err: group.ErrID},
		"an id with 0":  {raw: `{"id":"a\u0000"}`, err: group.ErrID},
		"a list":        {raw: `[]`, err: group.ErrID},
		"broken syntax": {raw: `{"id":`, err: rawjson.ErrSyntax},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := group.Parse([]byte(c.raw))
			got.Source, got.SHA256 = nil, [32]byte{}
			if diff := cmp.Diff(c.want, got); diff != "" || !errors.Is(err, c.err) {
				t.Errorf("Parse = %v\n%s", err, diff)
			}
		})
	}
}
