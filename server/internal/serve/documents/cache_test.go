package documents

import (
	"strconv"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func cached(room string, version byte, size int) entry {
	return entry{
		key: key{
			mirror.Resource{Project: "default", Room: mirror.RoomID(room), Kind: mirror.KindStorage},
			"json-1",
		},
		sha256: [32]byte{version},
		body:   make([]byte, size),
	}
}

func TestCacheKeepsTheLastVersion(t *testing.T) {
	t.Parallel()
	c := newCache()
	if got := c.get(cached("a", 1, 0).key); got.body != nil || got.sha256 != [32]byte{} {
		t.Fatalf("get of nothing = %+v; want the zero value", got)
	}
	c.put(cached("a", 1, 10))
	c.put(cached("a", 2, 20))
	if got := c.get(cached("a", 0, 0).key); got.sha256 != [32]byte{2} || len(got.body) != 20 {
		t.Fatalf("get = version %d, %d bytes; want the second version", got.sha256[0], len(got.body))
	}
	if c.bytes != 20 {
		t.Fatalf("bytes = %d; want those of the one kept", c.bytes)
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache()
	c.put(cached("huge", 1, cacheEntryBytes+1))
	if got := c.get(cached("huge", 0, 0).key); got.body != nil {
		t.Fatal("a document over the limit of one entry is kept")
	}
	const size = cacheEntryBytes
	fit := cacheBytes / size
	for i := range fit {
		c.put(cached(strconv.Itoa(i), 1, size))
	}
	c.get(cached("0", 0, 0).key) // read again, so not the one to go
	c.put(cached("one more", 1, size))
	if got := c.get(cached("0", 0, 0).key); got.body == nil {
		t.Error("what was read last is gone")
	}
	if got := c.get(cached("1", 0, 0).key); got.body != nil {
		t.Error("what was not read for longest is still there")
	}
	if c.bytes > cacheBytes || c.recent.Len() != len(c.entries) {
		t.Errorf("holds %d bytes in %d of %d entries; want at most %d bytes", c.bytes, c.recent.Len(), len(c.entries),
			cacheBytes)
	}
}
