package fake

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TestServesEveryKind makes each call that the table of kinds names as the source of
// a kind.
func TestServesEveryKind(t *testing.T) {
	t.Parallel()
	server := New("sk_test")
	if err := server.CreateRoom("room", RoomOptions{}); err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile("`GET ([^`]+)`")
	id := regexp.MustCompile(`{[^}]+}`)
	for _, kind := range mirror.Kinds() {
		for _, call := range calls.FindAllStringSubmatch(kind.Traits().Source, -1) {
			path := strings.ReplaceAll(call[1], "…", "/v2/rooms/{roomId}")
			path = id.ReplaceAllString(strings.ReplaceAll(path, "{roomId}", "room"), "other")
			r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
			r.Header.Set("Authorization", "Bearer sk_test")
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			if w.Code != http.StatusOK && !strings.Contains(w.Body.String(), "RESOURCE_NOT_FOUND") {
				t.Errorf("%s: GET %s = %d %s; want it served", kind, path, w.Code, w.Body)
			}
		}
	}
}
