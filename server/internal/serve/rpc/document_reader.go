package rpc

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/batch"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// inlineBytes is the longest document that comes along with its description.
	// Longer ones are read one by one, when there is memory for them.
	inlineBytes = 128 << 10
	// readMemory bounds what the long documents that are being read and sent take
	// together. Of one document it has room for the longest a setting can allow.
	readMemory = 512 << 20

	// readBatch bounds the documents that one statement reads, readTimeout the time
	// it may take.
	readBatch   = 64
	readTimeout = 10 * time.Second
	// readLanes bounds the statements under way at once. Another one begins only if
	// the last one takes longer than readPatience.
	readLanes    = 4
	readPatience = 3 * time.Millisecond
)

// documentReader reads documents for both ways in, the network and the gateway.
type documentReader struct {
	query  store.Query
	heads  *batch.Batcher[store.DocumentRead, *mirror.Document]
	cache  *documentCache
	memory *semaphore.Weighted
}

func newDocumentReader(query store.Query) *documentReader {
	return &documentReader{
		query: query,
		heads: batch.New(batch.Config[store.DocumentRead, *mirror.Document]{
			Do: func(ctx context.Context, reads []store.DocumentRead) ([]*mirror.Document, error) {
				return query.ReadDocuments(ctx, reads, inlineBytes)
			},
			Size: readBatch, Timeout: readTimeout, Lanes: readLanes, Patience: readPatience,
		}),
		cache:  newDocumentCache(),
		memory: semaphore.NewWeighted(readMemory),
	}
}

// describe returns the document, with its content only if it came along.
func (r *documentReader) describe(ctx context.Context, read store.DocumentRead) (mirror.Document, error) {
	doc, err := r.heads.Do(ctx, read)
	if err != nil {
		return mirror.Document{}, err
	}
	if doc == nil {
		return mirror.Document{}, fmt.Errorf("read document: %w", store.ErrNotFound)
	}
	return *doc, nil
}

// represent returns the bytes of the document in a form; kept is what the cache
// had of it in this form before it was described. If the content had to be read, doc becomes what was read
// then. What is returned belongs to others too and must not be written to; release tells that it was sent.
func (r *documentReader) represent(ctx context.Context, doc *mirror.Document, deleted bool, f form,
	kept derived) (content []byte, release func(), err error) {
	if f.derive != nil && doc.Content == nil && doc.SHA256 == kept.sha256 {
		return kept.content, func() {}, nil
	}
	release = func() {}
	resource := mirror.Resource{Project: doc.Project, Room: doc.Room, Kind: doc.Kind, ID: doc.ID}
	if doc.Content == nil {
		// The source and, derived from it, at most as much again.
		weight := min(2*doc.Size, readMemory)
		if err := r.memory.Acquire(ctx, weight); err != nil {
			return nil, nil, fmt.Errorf("wait for memory: %w", err)
		}
		release = func() { r.memory.Release(weight) }
		if *doc, err = r.query.Document(ctx, resource, deleted); err != nil {
			release()
			return nil, nil, err
		}
	}
	if f.derive == nil {
		return doc.Content, release, nil
	}
	content, err = f.derive(doc.Content)
	if err != nil {
		release()
		return nil, nil, fault.Wrap(err, fault.Precondition, fault.ReasonDocumentUnreadable,
			"the document was fetched and is kept, but cannot be turned into this format")
	}
	r.cache.put(derived{derivedKey{resource, f.tag}, doc.SHA256, content})
	return content, release, nil
}
