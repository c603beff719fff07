package documents

import (
	linked "container/list"
	"sync"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// cacheBytes bounds what was derived and is kept for the next read of the same
	// document in the same format. Deriving it is most of what a read costs.
	cacheBytes = 64 << 20
	// cacheEntryBytes keeps a few large documents from driving out all others.
	cacheEntryBytes = 8 << 20
)

// cache keeps what was derived of the documents read last. Every read still
// asks the store, which leaves the content out if the hash is the one at hand,
// so what comes out of the cache is never older than what is stored.
type cache struct {
	mu      sync.Mutex
	bytes   int
	recent  *linked.List // of *entry, the last one read in front
	entries map[key]*linked.Element
}

// key names a document in a format.
type key struct {
	resource mirror.Resource
	format   string
}

// entry is what was derived of the document whose source has the hash sha256.
type entry struct {
	key

	sha256 [32]byte
	body   []byte
}

func newCache() *cache {
	return &cache{recent: linked.New(), entries: make(map[key]*linked.Element)}
}

// get returns what is kept of the document; the zero entry if nothing is.
func (c *cache) get(key key) entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return entry{}
	}
	c.recent.MoveToFront(e)
	d, _ := e.Value.(*entry) // the list holds nothing else
	return *d
}

// put keeps d in the place of what was kept of the same document.
func (c *cache) put(d entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(c.entries[d.key])
	if cap(d.body) > cacheEntryBytes {
		return
	}
	c.entries[d.key] = c.recent.PushFront(&d)
	c.bytes += cap(d.body)
	for c.bytes > cacheBytes {
		c.drop(c.recent.Back())
	}
}

func (c *cache) drop(e *linked.Element) {
	if e == nil {
		return
	}
	d, _ := c.recent.Remove(e).(*entry)
	delete(c.entries, d.key)
	c.bytes -= cap(d.body)
}
