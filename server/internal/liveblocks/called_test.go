package liveblocks

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// Every call is told with its route, and with its status or why there is none.
func TestEveryCallIsTold(t *testing.T) {
	t.Parallel()
	for code, answer := range map[string]http.HandlerFunc{
		"200":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"type":"room","id":"r"}`)) },
		"404":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"429":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"invalid":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`nonsense`)) },
		"no_answer": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var told []Call
			mux := http.NewServeMux()
			mux.HandleFunc("/v2/rooms/r", answer)
			mux.HandleFunc("/v2/rooms", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"data":[]}`)) })
			c := newClient(t, serve(t, mux).URL, func(cfg *Config) {
				cfg.Called = func(c Call) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, c)
				}
			})
			_, _ = c.Room(t.Context(), "r")
			mu.Lock()
			defer mu.Unlock()
			at := slices.IndexFunc(told, func(c Call) bool { return c.Route == "get_room" })
			if at < 0 || told[at].Code != code || told[at].Took <= 0 || told[at].Took > time.Hour {
				t.Fatalf("told = %+v; want get_room with the code %s", told, code)
			}
			for _, c := range slices.Delete(told, at, at+1) { // whether the failure is that of the room
				if c.Route != "ping" || c.Code != "200" {
					t.Errorf("told = %+v; want a ping that is answered", c)
				}
			}
		})
	}
}
