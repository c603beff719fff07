package listed_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

func TestParse(t *testing.T) {
	t.Parallel()
	list, err := listed.Parse([]byte(`{"data":[{"id":"a","n":1},1,{},null,{"id":"` +
		strings.Repeat("x", 129) + `"},{"id":"b"},{ "n": 2, "id":"a"}],"nextCursor":null}`))
	if err != nil || len(list) != 2 || list[0].ID != "a" || list[1].ID != "b" ||
		string(list[0].Source) != `{ "n": 2, "id":"a"}` {
		t.Errorf("Parse = %+v, %v; want the last a, and b", list, err)
	}
	same, err := listed.Parse([]byte(`{"data":[{"id":"a","n":2}]}`))
	if err != nil || len(same) != 1 || same[0].SHA256 != list[0].SHA256 || same[0].SHA256 == list[1].SHA256 {
		t.Errorf("Parse = %+v, %v; want the hash of a, however it is spelled", same, err)
	}
	if list, err = listed.Parse([]byte(`{"data":[]}`)); err != nil || list == nil || len(list) != 0 {
		t.Errorf("Parse of an empty list = %v, %v; want one that is empty", list, err)
	}
	for raw, want := range map[string]error{
		`{"data":{}}`: listed.ErrList, `{"data":null}`: listed.ErrList, `{}`: listed.ErrList, `[]`: listed.ErrList,
		`{"error":"x"}`: listed.ErrList, `{"data":[`: rawjson.ErrSyntax,
		`{"data":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`: listed.ErrDepth,
	} {
		if list, err := listed.Parse([]byte(raw)); !errors.Is(err, want) {
			t.Errorf("Parse(%.30s) = %v, %v; want %v", raw, list, err, want)
		}
	}
}
