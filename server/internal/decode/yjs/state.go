package yjs

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// StateSHA256 returns a hash that is the same for updates of the same state, however
// they are encoded: which operations of each client there are, which of them are
// deleted, and what they make, of which json must be the JSON. (By the protocol the
// first two determine the third. A client id that is used twice would not show, and in
// rare documents Yjs itself orders a text by how its items are parted.)
//
// The hash is zero while operations wait: what they are is not part of it.
func (d *Doc) StateSHA256(json []byte) (sum [32]byte) {
	h := d.state()
	if h == nil {
		return sum
	}
	_, _ = h.Write(json) // never fails
	h.Sum(sum[:0])
	return sum
}

// state returns the hash of the state without its JSON, nil while operations wait.
func (d *Doc) state() hash.Hash {
	if len(d.waiting) > 0 {
		return nil
	}
	h := sha256.New()
	var buf []byte
	write := func(values ...uint64) {
		buf = buf[:0]
		for _, v := range values {
			buf = binary.BigEndian.AppendUint64(buf, v)
		}
		_, _ = h.Write(buf) // never fails
	}
	deletions := newDeletions(d)
	for i := range d.clients {
		c := &d.clients[i]
		write(c.id, c.until)
		from, deleted := uint64(0), false
		for j := c.first; j < c.end; j++ {
			it, gone := &d.items[j], deletions.item(j)
			switch {
			case gone && !deleted:
				from = it.clock
			case !gone && deleted:
				write(from, it.clock)
			}
			deleted = gone
		}
		if deleted {
			write(from, c.until)
		}
		write(c.until) // no range begins there
	}
	return h
}

// deletions knows what is deleted as Yjs sees it, which deletes what is in a deleted type
// and the earlier values of a key, whether the update says so or not.
type deletions struct {
	*Doc
	// owners holds, for each shared type, the item that it is; none for roots.
	owners []index
	// known holds what was found out about a type: 0 nothing, 1 it is there, 2 it is gone.
	known []uint8
}

func newDeletions(d *Doc) *deletions {
	x := &deletions{Doc: d, owners: make([]index, len(d.types)), known: make([]uint8, len(d.types))}
	for i := range x.owners {
		x.owners[i] = none
	}
	for i := range d.items {
		if it := &d.items[i]; it.kind == kindType {
			x.owners[it.typ()] = at(i)
		}
	}
	return x
}

// item reports whether an item is deleted.
func (x *deletions) item(i index) bool {
	it := &x.items[i]
	return it.deleted || it.kind == kindGC || it.parent == none ||
		it.entry != none && x.entries[it.entry].last != i || x.typ(it.parent)
}

// typ reports whether a type is deleted. Each type is looked at once, and the depth of
// types is bounded.
func (x *deletions) typ(t index) bool {
	if x.known[t] == 0 {
		x.known[t] = 1
		if x.owners[t] != none && x.item(x.owners[t]) {
			x.known[t] = 2
		}
	}
	return x.known[t] == 2
}
