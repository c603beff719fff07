// Package documents reads documents in the requested format and freshness.
// Concurrent reads share statements, and memory is bounded.
package documents

import (
	"context"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/batch"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/fresh"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// inlineBytes is the longest document that is read together with its
	// description. Longer ones are read one by one, within the memory budget.
	inlineBytes = 128 << 10
	// readBatch is the maximum number of documents that one statement reads,
	// readTimeout its maximum duration.
	readBatch   = 64
	readTimeout = 10 * time.Second
	// readLanes is the maximum number of concurrent statements. Another one starts
	// only if the last one takes longer than readPatience.
	readLanes    = 4
	readPatience = 3 * time.Millisecond
)

// Store is the part of the store that reads documents.
type Store interface {
	Document(ctx context.Context, document mirror.Resource, deleted bool) (mirror.Document, error)
	ReadDocuments(ctx context.Context, reads []store.DocumentRead, inline int64) ([]*mirror.Document, error)
}

// Reader reads documents.
type Reader struct {
	store  Store
	fresh  *fresh.Reader
	reads  *batch.Batcher[store.DocumentRead, *mirror.Document]
	cache  *cache
	memory Memory
	long   *semaphore.Weighted
}

// Memory is the memory for documents that are read.
type Memory struct {
	// Long is the number of bytes for all long documents that are being read and sent,
	// above 0. One that takes more is read alone. It is not part of the budget, because a
	// slow reader holds it.
	Long int64
	// Decoding is the memory for decoding, which others share; nil is without limit.
	Decoding *memory.Budget
}

// New returns a Reader.
func New(db Store, freshness *fresh.Reader, memory Memory) *Reader {
	return &Reader{
		store: db,
		fresh: freshness,
		reads: batch.New(batch.Config[store.DocumentRead, *mirror.Document]{
			Do: func(ctx context.Context, reads []store.DocumentRead) ([]*mirror.Document, error) {
				return db.ReadDocuments(ctx, reads, inlineBytes)
			},
			Size: readBatch, Timeout: readTimeout, Lanes: readLanes, Patience: readPatience, Gather: true,
		}),
		cache:  newCache(),
		memory: memory, long: semaphore.NewWeighted(memory.Long),
	}
}

// Request says what to read.
type Request struct {
	Resource  mirror.Resource
	Format    derive.Format
	Freshness fresh.Options
	// HeadOnly omits the body.
	HeadOnly bool
	// IfNoneMatch holds the reader's If-None-Match fields. A body whose tag they
	// name is omitted.
	IfNoneMatch []string
}

// Document is a document in one format.
type Document struct {
	mirror.Document

	// Body is the document in the requested format; nil if omitted. It is shared:
	// do not modify it.
	Body []byte
	// ETag is a strong entity tag: the same source in the same format, derived by
	// the same code, is the same bytes.
	ETag string
	// NotModified means that the reader already has the body.
	NotModified bool

	memory *semaphore.Weighted
	weight int64 // in the memory budget
}

// Release returns the body's memory to the budget. Call it once the body is sent.
func (d *Document) Release() {
	if d.weight > 0 {
		d.memory.Release(d.weight)
		d.weight = 0
	}
}

// Read returns a document, which the caller must release. It returns
// [store.ErrNotFound] if there is none.
func (r *Reader) Read(ctx context.Context, req Request) (doc *Document, err error) {
	doc = &Document{memory: r.long}
	defer func() {
		if err != nil {
			doc.Release()
			doc = nil
		}
	}()
	var cached entry
	if req.Format.Derive != nil {
		cached = r.cache.get(key{req.Resource, req.Format.Tag})
	}
	doc.Document, err = fresh.Read(ctx, r.fresh, req.Freshness, fresh.Spec[mirror.Document]{
		Resource: req.Resource,
		Get: func(ctx context.Context, resource mirror.Resource, deleted bool) (mirror.Document, error) {
			head, err := r.reads.Do(ctx, store.DocumentRead{Resource: resource, Deleted: deleted, Have: cached.sha256})
			switch {
			case err != nil:
				return mirror.Document{}, err
			case head == nil:
				return mirror.Document{}, fmt.Errorf("read document: %w", store.ErrNotFound)
			}
			return *head, nil
		},
		Freshness: func(d *mirror.Document) *mirror.Freshness { return &d.Freshness },
	})
	if err != nil {
		return doc, err
	}
	doc.tag(req.Format)
	doc.NotModified = Matches(req.IfNoneMatch, doc.ETag)
	switch {
	case req.HeadOnly || doc.NotModified:
		return doc, nil
	case doc.Damage != nil:
		return doc, doc.Damage
	case doc.Content == nil && doc.SHA256 == cached.sha256:
		doc.Body = cached.body
		return doc, nil
	case doc.Content == nil:
		// The source and the derived form, which is at most as long.
		weight := min(2*doc.Size, r.memory.Long)
		if err := r.long.Acquire(ctx, weight); err != nil {
			return doc, fmt.Errorf("wait for memory: %w", err)
		}
		doc.weight = weight
		if doc.Document, err = r.store.Document(ctx, req.Resource, req.Freshness.Deleted); err != nil {
			return doc, err
		}
		doc.tag(req.Format) // of the document that was read, which may be newer
	}
	if req.Format.Derive == nil {
		doc.Body = doc.Content
		return doc, nil
	}
	if doc.Body, err = r.derive(ctx, req, doc.Content); err != nil {
		if ctx.Err() != nil {
			return doc, err
		}
		return doc, fault.Wrap(err, fault.Precondition, fault.ReasonDocumentUnreadable,
			"the document was fetched and is kept, but cannot be turned into this format")
	}
	r.cache.put(entry{key{req.Resource, req.Format.Tag}, doc.SHA256, doc.Body})
	return doc, nil
}

// Found is a document that was read together with others.
type Found struct {
	mirror.Document

	// Body is the document as JSON; nil if the document is longer than was asked for. It is
	// shared: do not modify it.
	Body []byte
	// Err says why the document cannot be turned into JSON. If that is a defect, of what is
	// stored or of the decoder, so does Damage.
	Err error
}

// ReadMany returns the copies of some documents, in order, without a refresh; nil for one that
// there is not. Those of at most limit bytes come with their body if that is no longer either,
// none if limit is negative.
func (r *Reader) ReadMany(ctx context.Context, resources []mirror.Resource, limit int64) ([]*Found, error) {
	reads, cached := make([]store.DocumentRead, len(resources)), make([]entry, len(resources))
	for i, resource := range resources {
		if limit >= 0 {
			cached[i] = r.cache.get(key{resource, jsonOf(resource.Kind).Tag})
		}
		reads[i] = store.DocumentRead{Resource: resource, Have: cached[i].sha256}
	}
	documents, err := r.store.ReadDocuments(ctx, reads, limit)
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	found := make([]*Found, len(resources))
	for i, doc := range documents {
		if doc == nil {
			continue
		}
		f := &Found{Document: *doc}
		found[i] = f
		switch format := jsonOf(resources[i].Kind); {
		case f.Damage != nil:
			f.Err = f.Damage
		case f.Content != nil:
			r.deriveOne(ctx, f, Request{Resource: resources[i], Format: format})
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if f.Content = nil; f.Err == nil {
				r.cache.put(entry{key{resources[i], format.Tag}, f.SHA256, f.Body})
			}
		case cached[i].body != nil && f.SHA256 == cached[i].sha256 && f.Size <= limit:
			f.Body = cached[i].body
		}
		if int64(len(f.Body)) > limit { // many of these at once are more than the caller counts with
			f.Body = nil
		}
	}
	return found, nil
}

// deriveOne converts a document that was read with others. A panic of the decoder is its own.
func (r *Reader) deriveOne(ctx context.Context, f *Found, req Request) {
	defer func() {
		if v := recover(); v != nil {
			f.Damage = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			f.Body, f.Err = nil, f.Damage
		}
	}()
	f.Body, f.Err = r.derive(ctx, req, f.Content)
}

// jsonOf is the format JSON of a kind of documents.
func jsonOf(kind mirror.Kind) derive.Format {
	return formats[kind][mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON]
}

// derive converts a document once there is memory for it.
func (r *Reader) derive(ctx context.Context, req Request, source []byte) ([]byte, error) {
	weight := int64(derive.StorageWeight)
	if req.Resource.Kind == mirror.KindYdoc {
		weight = derive.YdocWeight
	}
	ctx, end := r.memory.Decoding.Begin(ctx)
	defer end()
	if err := memory.ForDecoding(ctx, weight*int64(len(source))); err != nil {
		return nil, err
	}
	return req.Format.Derive(source)
}

// tag sets the entity tag. Half of the hash is enough to distinguish versions of
// one document.
func (d *Document) tag(f derive.Format) {
	d.ETag = `"` + hex.EncodeToString(d.SHA256[:16]) + "-" + f.Tag + `"`
}

// Matches reports whether If-None-Match names the tag. The comparison is weak,
// because a proxy that compresses the body may weaken the tag.
func Matches(ifNoneMatch []string, tag string) bool {
	for _, line := range ifNoneMatch {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.Trim(part, " \t")
			if part == "*" || strings.TrimPrefix(part, "W/") == tag {
				return true
			}
		}
	}
	return false
}
