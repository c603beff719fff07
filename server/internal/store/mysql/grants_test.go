package mysql

import (
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// In a grant on a whole database, _ matches any character.
func TestGrantsNameOneDatabase(t *testing.T) {
	t.Parallel()
	text, err := GrantSQL("mysql://root@127.0.0.1/mirror_app", store.Roles{Owner: "o", Service: "s", Reader: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "`mirror_app`.*") || strings.Count(text, "`mirror\\_app`.*") != 2 ||
		!strings.Contains(text, "`mirror_app`.mirror_") {
		t.Errorf("grants = %s", text)
	}
}
