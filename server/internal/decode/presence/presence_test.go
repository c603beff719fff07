package presence_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/presence"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func TestParseUsers(t *testing.T) {
	t.Parallel()
	recorded, err := os.ReadFile("testdata/active-users-live.json")
	if err != nil {
		t.Fatal(err)
	}
	agents, err := os.ReadFile("testdata/active-users-agents.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		raw  string
		want []mirror.ActiveUser
	}{
		{string(agents), []mirror.ActiveUser{
			{ConnectionID: mirror.NoConnection, UserID: "agent-a", Info: []byte(`{}`)},
			{ConnectionID: mirror.NoConnection, UserID: "agent-b", Info: []byte(`{}`)},
			{ConnectionID: mirror.NoConnection, UserID: "agent-c", Info: []byte(`{}`)},
		}},
		{string(recorded), []mirror.ActiveUser{
			{ConnectionID: 2, UserID: "alice", Info: []byte(`{"name":"Alice","color":"#f00"}`)},
			{ConnectionID: 3, UserID: "bob", Info: []byte(`{"name":"Bob"}`)},
		}},
		{`{"data":[]}`, []mirror.ActiveUser{}},
		{ // two tabs of one user, and anonymous users in each spelling, out of order
			`{"data":[{"connectionId":11,"id":"a"},{"connectionId":-1,"id":null,"info":null},{"connectionId":2},{"connectionId":1,"id":"a","info":{"x": "\ud83d"}}],"x":1}`,
			[]mirror.ActiveUser{
				{ConnectionID: -1},
				{ConnectionID: 1, UserID: "a", Info: []byte(`{"x": "\ud83d"}`)},
				{ConnectionID: 2},
				{ConnectionID: 11, UserID: "a"},
			},
		},
		{ // what is no connection, an id that cannot be stored, one connection twice
			`{"data":[7,{},{"connectionId":"1"},{"connectionId":1.5,"id":"a"},{"connectionId":null,"id":"\ud800"},{"connectionId":4,"id":"\u0000"},{"connectionId":5,"id":"a","info":1},{"connectionId":5.0,"id":"a","info":2},{"connectionId":5,"id":"B"}]}`,
			[]mirror.ActiveUser{
				{ConnectionID: 4}, {ConnectionID: 5, UserID: "B"}, {ConnectionID: 5, UserID: "a", Info: []byte("2")},
			},
		},
	} {
		got, err := presence.ParseUsers([]byte(c.raw))
		if err != nil {
			t.Errorf("ParseUsers(%s) = %v", c.raw, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("ParseUsers(%s) (-want +got):\n%s", c.raw, diff)
		}
	}
	for raw, want := range map[string]error{
		"": rawjson.ErrSyntax, `{"data":[`: rawjson.ErrSyntax, "{}": presence.ErrList, "[]": presence.ErrList,
		`{"data":{}}`: presence.ErrList, `{"data":null}`: presence.ErrList,
	} {
		if got, err := presence.ParseUsers([]byte(raw)); !errors.Is(err, want) {
			t.Errorf("ParseUsers(%s) = %v, %v; want %v", raw, got, err, want)
		}
	}
}
