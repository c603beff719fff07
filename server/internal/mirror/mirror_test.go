package mirror_test

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TestBucketIsFrozen pins the bucket of known keys for ever: every stored
// primary key begins with it.
func TestBucketIsFrozen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		project mirror.ProjectID
		key     string
		want    int16
	}{
		{"default", "", 187},
		{"default", "Room", 251},
		{"default", "room", 175},
		{"default", "room ", 150},
		{"default", "roöm", 114},
		{"default", "a/b:c?d#e%f", 0},
		{"other", "room", 219},
		{"default", "msg_userEntered", 249},
	} {
		if got := mirror.Bucket(c.project, c.key); got != c.want {
			t.Errorf("Bucket(%q, %q) = %d; want %d", c.project, c.key, got, c.want)
		}
	}
}

func TestBucketIsTheFirstByteOfTheHash(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		project, key := rapid.StringMatching(`[a-z0-9-]{1,64}`).Draw(t, "project"), rapid.String().Draw(t, "key")
		sum := sha256.Sum256([]byte(project + "\x00" + key))
		if got := mirror.Bucket(mirror.ProjectID(project), key); got != int16(sum[0]) || got < 0 || got >= mirror.Buckets {
			t.Fatalf("Bucket = %d; want %d", got, sum[0])
		}
	})
}

// TestRoomAndChildrenShareABucket holds what keeps the rows of one room together
// on a sharded engine.
func TestRoomAndChildrenShareABucket(t *testing.T) {
	t.Parallel()
	for _, kind := range mirror.Kinds() {
		r := mirror.Resource{Project: "default", Room: "board", Kind: kind, ID: "x"}
		if got, want := r.Bucket(), r.RoomResource().Bucket(); got != want {
			t.Errorf("bucket of a %s = %d; want its room's, %d", kind, got, want)
		}
	}
}

func TestCompareIsKeyOrder(t *testing.T) {
	t.Parallel()
	room := mirror.Resource{Project: "default", Room: "board", Kind: mirror.KindRoom}
	storage := mirror.Resource{Project: "default", Room: "board", Kind: mirror.KindStorage}
	if storage.Compare(room) <= 0 {
		t.Error("a child sorts before its room; locks would be taken in the wrong order")
	}
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mirror.Resource {
			return mirror.Resource{
				Project: "default",
				Room:    mirror.RoomID(rapid.StringMatching(`[ab]{1,2}`).Draw(t, "room")),
				Kind:    rapid.SampledFrom(mirror.Kinds()).Draw(t, "kind"),
				ID:      rapid.StringMatching(`[xy]?`).Draw(t, "id"),
			}
		}), 2, 20).Draw(t, "resources")
		slices.SortFunc(all, mirror.Resource.Compare)
		for i := 1; i < len(all); i++ {
			a, b := all[i-1], all[i]
			if a.Bucket() > b.Bucket() || a.Bucket() == b.Bucket() && a.Room > b.Room {
				t.Fatalf("%v sorts before %v", a, b)
			}
			if (a.Compare(b) == 0) != (a == b) {
				t.Fatalf("Compare(%v, %v) = 0 does not mean equal", a, b)
			}
		}
	})
}

func TestValidID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"room": true, "room ": true, " ": true, "a/b:c?d#e%f": true, "roöm": true,
		strings.Repeat("\U00010348", 128): true,
		"":                                false,
		"a\x00b":                          false,
		"a\xffb":                          false,
		"\xed\xa0\xbd":                    false, // half of a surrogate pair in UTF-8's clothes
		strings.Repeat("a", 513):          false,
	} {
		if got := mirror.ValidID(id, mirror.MaxRoomID); got != want {
			t.Errorf("ValidID(%q) = %t; want %t", id, got, want)
		}
	}
}

func TestValidProjectID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"default": true, "a-1": true, strings.Repeat("a", 64): true,
		"": false, "Default": false, "a b": false, "ä": false, strings.Repeat("a", 65): false,
	} {
		if got := mirror.ValidProjectID(id); got != want {
			t.Errorf("ValidProjectID(%q) = %t; want %t", id, got, want)
		}
	}
}
