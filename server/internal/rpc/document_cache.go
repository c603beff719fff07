package rpc

import (
	linked "container/list"
	"sync"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// cacheBytes bounds the derived JSON that is kept for the next read of the
	// same document. Deriving it is most of what a read costs.
	cacheBytes = 64 << 20
	// cacheEntryBytes keeps a few large documents from driving out all others.
	cacheEntryBytes = 8 << 20
)

// documentCache keeps the JSON of the documents read last. Every read still
// asks the store, which leaves the content out if the hash is the one at hand,
// so what comes out of the cache is never older than what is stored.
type documentCache struct {
	mu      sync.Mutex
	bytes   int
	recent  *linked.List // of *derived, the last one read in front
	entries map[mirror.Resource]*linked.Element
}

// derived is the JSON of the document whose source has the hash sha256.
type derived struct {
	resource mirror.Resource
	sha256   [32]byte
	json     []byte
}

func newDocumentCache() *documentCache {
	return &documentCache{recent: linked.New(), entries: make(map[mirror.Resource]*linked.Element)}
}

// get returns what is kept of the document; the zero derived if nothing is.
func (c *documentCache) get(r mirror.Resource) derived {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[r]
	if !ok {
		return derived{}
	}
	c.recent.MoveToFront(e)
	d, _ := e.Value.(*derived) // the list holds nothing else
	return *d
}

// put keeps d in the place of what was kept of the same document.
func (c *documentCache) put(d derived) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(c.entries[d.resource])
	if cap(d.json) > cacheEntryBytes {
		return
	}
	c.entries[d.resource] = c.recent.PushFront(&d)
	c.bytes += cap(d.json)
	for c.bytes > cacheBytes {
		c.drop(c.recent.Back())
	}
}

func (c *documentCache) drop(e *linked.Element) {
	if e == nil {
		return
	}
	d, _ := c.recent.Remove(e).(*derived)
	delete(c.entries, d.resource)
	c.bytes -= cap(d.json)
}
