package yjs

import "unsafe"

// MayHaveSubdocuments reports whether an update may contain subdocuments, without
// decoding it: it contains one, which may be deleted, or cannot be read.
func MayHaveSubdocuments(update []byte) bool {
	r := &reader{
		// The bytes are not kept, and so need not be copied.
		src:   unsafe.String(unsafe.SliceData(update), len(update)),
		depth: Limits{}.withDefaults().Depth,
	}
	for sections := r.count(3); sections > 0 && r.err == nil; sections-- {
		count := r.count(2)
		r.uint() // the client
		r.uint() // its first clock
		for ; count > 0 && r.err == nil; count-- {
			h := r.header()
			if h.kind == kindDoc {
				return true
			}
			r.content(h.kind)
		}
	}
	return r.err != nil
}
