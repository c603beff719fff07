package documents

import (
	linked "container/list"
	"sync"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// cacheBytes is the maximum size of the cache of derived documents. Deriving is
	// the largest part of the cost of a read.
	cacheBytes = 64 << 20
	// cacheEntryBytes keeps a few large documents from evicting all others.
	cacheEntryBytes = 8 << 20
)

// cache holds the derived forms of recently read documents. Every read still asks
// the store, which omits the content if the hash is the cached one, so the cache
// never returns anything older than the store.
type cache struct {
	mu      sync.Mutex
	bytes   int
	recent  *linked.List // of *entry, most recently read first
	entries map[key]*linked.Element
}

// key identifies a document in a format.
type key struct {
	resource mirror.Resource
	format   string
}

// entry is the derived form of the document whose source has the hash sha256.
type entry struct {
	key

	sha256 [32]byte
	body   []byte
}

func newCache() *cache {
	return &cache{recent: linked.New(), entries: make(map[key]*linked.Element)}
}

// get returns the entry of the document, or the zero entry.
func (c *cache) get(key key) entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return entry{}
	}
	c.recent.MoveToFront(e)
	d, _ := e.Value.(*entry) // the list contains nothing else
	return *d
}

// put stores d and replaces an earlier entry of the same document.
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
