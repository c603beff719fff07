package rpc

import (
	linked "container/list"
	"sync"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// cacheBytes bounds what was derived and is kept for the next read of the same
	// document in the same form. Deriving it is most of what a read costs.
	cacheBytes = 64 << 20
	// cacheEntryBytes keeps a few large documents from driving out all others.
	cacheEntryBytes = 8 << 20
)

// documentCache keeps what was derived of the documents read last. Every read still
// asks the store, which leaves the content out if the hash is the one at hand,
// so what comes out of the cache is never older than what is stored.
type documentCache struct {
	mu      sync.Mutex
	bytes   int
	recent  *linked.List // of *derived, the last one read in front
	entries map[derivedKey]*linked.Element
}

// derivedKey names a document in a form.
type derivedKey struct {
	resource mirror.Resource
	form     string
}

// derived is what was made of the document whose source has the hash sha256.
type derived struct {
	derivedKey

	sha256  [32]byte
	content []byte
}

func newDocumentCache() *documentCache {
	return &documentCache{recent: linked.New(), entries: make(map[derivedKey]*linked.Element)}
}

// get returns what is kept of the document; the zero derived if nothing is.
func (c *documentCache) get(key derivedKey) derived {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
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
	c.drop(c.entries[d.derivedKey])
	if cap(d.content) > cacheEntryBytes {
		return
	}
	c.entries[d.derivedKey] = c.recent.PushFront(&d)
	c.bytes += cap(d.content)
	for c.bytes > cacheBytes {
		c.drop(c.recent.Back())
	}
}

func (c *documentCache) drop(e *linked.Element) {
	if e == nil {
		return
	}
	d, _ := c.recent.Remove(e).(*derived)
	delete(c.entries, d.derivedKey)
	c.bytes -= cap(d.content)
}
