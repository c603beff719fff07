package verify

import "testing"

// Entering a room is no difference; everything else is.
func TestSameRoom(t *testing.T) {
	t.Parallel()
	room := func(connected, meta, more string) string {
		return `{"id":"r",` + connected + `"metadata":{"lastConnectionAt":"` + meta + `"}` + more + `}`
	}
	const before, after = `"lastConnectionAt":"2026-01-02T03:04:05.678Z",`, `"lastConnectionAt":"2026-01-03T00:00:00Z",`
	was := room(before, "x", "")
	for name, c := range map[string]struct {
		other string
		want  bool
	}{
		"the same":              {was, true},
		"a later connection":    {room(after, "x", ""), true},
		"no connection yet":     {room("", "x", ""), true},
		"metadata of this name": {room(before, "y", ""), false},
		"a member more":         {room(after, "x", `,"a":1`), false},
		"no object":             {`[]`, false},
	} {
		if got := sameRoom([]byte(was), []byte(c.other)); got != c.want {
			t.Errorf("%s: sameRoom = %t; want %t", name, got, c.want)
		}
	}
}
