package yjs

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// index is an index into one of the tables of a document.
type index = int32

// none is the invalid index.
const none index = -1

// at converts an index. Limits keeps it within 32 bits.
func at(i int) index { return index(i) } //nolint:gosec // see above

// item is a run of content of one client that nothing divides: every reference to
// it is to its first or last unit. It is in the list of its parent, or in the
// history of one of its parent's keys.
type item struct {
	clock uint64
	// client is the index of the client in the order of ids.
	client index
	// head is where the struct starts in the update; none for all but the first
	// item of a struct.
	head index
	// start and end delimit the content in the update. The start of a shared type
	// is its index among the types.
	start, end  index
	left, right index
	// origin and rightOrigin are the left and right neighbours when the item was
	// inserted.
	origin, rightOrigin index
	// parent is the type that contains it, none if that has been garbage-collected.
	parent index
	// entry is its key, or none.
	entry   index
	mark    uint32
	kind    kind
	deleted bool
	edges   edges
}

// edges describes the ends of an item. Cuts are prepared before the struct that
// needs them, and become real when that is integrated.
type edges uint8

const (
	// apart means that the cut before the item is real.
	apart edges = 1 << iota
	// pairEnd means that the cut after the item would divide a surrogate pair in
	// UTF-16. The whole character belongs to the item.
	pairEnd
	// halfStart and halfEnd mean that the cut did so. Yjs replaces each half by
	// U+FFFD.
	halfStart
	halfEnd
)

// typ returns the index of the shared type that the item is, if it is one.
func (it *item) typ() index { return it.start }

// sharedType is a map, array, text or XML node. Every type has both a list and
// entries; the type determines which are used.
type sharedType struct {
	name    string
	kind    Type
	start   index
	entries index
	depth   int32
}

// entry is a key of a shared type and the items it was set to. The last one is its
// value, unless it was deleted; earlier ones count as deleted.
type entry struct {
	key         string
	first, last index
	// next is the previously created entry of the type.
	next index
}

// entryKey identifies an entry.
type entryKey struct {
	typ index
	key string
}

// list yields the visible items in the list of t.
func (d *Doc) list(t *sharedType) iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for i := t.start; i != none; {
			it := &d.items[i]
			if !it.deleted && !yield(it) {
				return
			}
			i = it.right
		}
	}
}

// attribute is a key of a type and its visible item.
type attribute struct {
	key  string
	item *item
}

// get returns the visible item of a key of t, or nil.
func (d *Doc) get(t *sharedType, key string) *item {
	for e := t.entries; e != none; e = d.entries[e].next {
		if d.entries[e].key != key {
			continue
		}
		if it := &d.items[d.entries[e].last]; !it.deleted {
			return it
		}
		break
	}
	return nil
}

// attributes returns the visible items of the keys of t, ordered by key.
func (d *Doc) attributes(t *sharedType) []attribute {
	var all []attribute
	for e := t.entries; e != none; e = d.entries[e].next {
		if it := &d.items[d.entries[e].last]; !it.deleted {
			all = append(all, attribute{d.entries[e].key, it})
		}
	}
	slices.SortFunc(all, func(a, b attribute) int { return strings.Compare(a.key, b.key) })
	return all
}

// cut is a position in the content of a client that something refers to: before the
// unit with that clock.
type cut struct{ client, clock uint64 }

// span is a half-open range of clocks of a client.
type span struct{ client, from, to uint64 }

// client is one of the document's authors.
type client struct {
	id uint64
	// structs is where its structs start in the update, and count their number.
	structs, count index
	// first and end delimit its items; until is the clock after them.
	first, end index
	until      uint64
	// next is the first item that has not been integrated.
	next index
	// waited means that another client's next item waits for this one's.
	waited bool
	// stuck means that its next item waits for something missing.
	stuck bool
}

func (c *client) open() bool { return !c.stuck && c.next < c.end }

// decoder builds a document from an update.
//
// It reads the update twice. The first pass checks every byte and records where
// structs must be cut, because something was inserted into them or part of them was
// deleted. The second pass creates the items, already cut, so nothing is ever
// inserted into the middle of a table, and an index identifies a neighbour.
type decoder struct {
	*Doc
	cuts    []cut
	deletes []span
	byID    map[uint64]index
	rootOf  map[string]index
	entryOf map[entryKey]index
	epoch   uint32
	steps   int
}

func (d *decoder) run() error {
	d.byID, d.rootOf, d.entryOf = map[uint64]index{}, map[string]index{}, map[entryKey]index{}
	d.steps = d.limits.Steps
	if err := d.scan(); err != nil {
		return err
	}
	slices.SortFunc(d.clients, func(a, b client) int { return cmp.Compare(a.id, b.id) })
	slices.SortFunc(d.cuts, func(a, b cut) int {
		return cmp.Or(cmp.Compare(a.client, b.client), cmp.Compare(a.clock, b.clock))
	})
	slices.SortFunc(d.deletes, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.client, b.client), cmp.Compare(a.from, b.from))
	})
	for i := range d.clients {
		d.byID[d.clients[i].id] = at(i)
		if err := d.build(at(i)); err != nil {
			return err
		}
	}
	if err := d.integrateAll(); err != nil {
		return err
	}
	for i := range d.clients {
		d.delete(&d.clients[i])
	}
	for _, s := range d.deletes {
		d.wait(s.client, s.from)
	}
	for i := range d.clients {
		if c := &d.clients[i]; c.next < c.end {
			d.wait(c.id, d.items[c.next].clock)
		}
	}
	slices.SortFunc(d.waiting, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Clock, b.Clock))
	})
	d.waiting = slices.CompactFunc(d.waiting, func(a, b Waiting) bool { return a.Client == b.Client })
	return nil
}

// wait notes that an operation waits.
func (d *decoder) wait(client, clock uint64) { d.waiting = append(d.waiting, Waiting{client, clock}) }

// cut records that something refers to the position before a unit.
func (d *decoder) cut(c cut) {
	if n := len(d.cuts); n == 0 || d.cuts[n-1] != c {
		d.cuts = append(d.cuts, c)
	}
}

// scan is the first pass over the update.
func (d *decoder) scan() error {
	r := &reader{src: d.src, depth: d.limits.Depth}
	structs := 0
	for sections := r.count(3); sections > 0 && r.err == nil; sections-- {
		count := r.count(2)
		if structs += count; structs > d.limits.Items {
			return &LimitError{"Items", d.limits.Items}
		}
		d.section(r, count)
	}
	d.items = make([]item, 0, structs)
	for clients := r.count(2); clients > 0 && r.err == nil; clients-- {
		client, n := r.uint(), r.count(2)
		d.deletes = slices.Grow(d.deletes, n)
		d.cuts = slices.Grow(d.cuts, 2*n)
		for ; n > 0 && r.err == nil; n-- {
			from := r.uint()
			to := from + r.uint()
			if r.err == nil && from < to {
				d.deletes = append(d.deletes, span{client, from, to})
				d.cut(cut{client, from})
				d.cut(cut{client, to})
			}
		}
	}
	// An update of version 2 starts with a zero, which here means that there are no
	// clients; but more follows.
	if len(r.src) > 1 && r.src[0] == 0 && (r.err != nil || r.i < len(r.src)) {
		return ErrVersion2
	}
	if r.err == nil && r.i < len(r.src) {
		r.fail("something follows it")
	}
	return r.err
}

// section reads the structs of a client.
func (d *decoder) section(r *reader, count int) {
	c := client{id: r.uint()}
	clock := r.uint()
	c.structs = at(r.i)
	if clock == 0 {
		c.count = at(count)
	} else if count > 0 { // the first ones are missing, and all wait for them
		d.wait(c.id, clock)
	}
	if i, ok := d.byID[c.id]; ok {
		d.clients[i] = c // Yjs also forgets what came before
	} else if c.count > 0 {
		d.byID[c.id] = at(len(d.clients))
		d.clients = append(d.clients, c)
	}
	for ; count > 0 && r.err == nil; count-- {
		h := r.header()
		if h.origin.set {
			d.cut(cut{h.origin.client, h.origin.clock + 1})
		}
		if h.right.set {
			d.cut(cut{h.right.client, h.right.clock})
		}
		if clock += r.content(h.kind).n; clock > maxInteger {
			r.fail("a clock is too large")
		}
	}
}

// build creates the items of a client. Those of clients with lower ids exist
// already.
func (d *decoder) build(owner index) error {
	c := &d.clients[owner]
	r := &reader{src: d.src, i: int(c.structs), depth: d.limits.Depth, trusted: true}
	for len(d.cuts) > 0 && d.cuts[0].client < c.id {
		d.cuts = d.cuts[1:]
	}
	c.first = at(len(d.items))
	skipped := uint64(0)
	for range c.count {
		head := r.i
		h := r.header()
		body := r.content(h.kind)
		if h.kind == kindSkip {
			skipped += body.n // what follows must wait for what is missing here
			continue
		}
		if skipped > 0 {
			d.wait(c.id, c.until+skipped)
			break
		}
		if last := len(d.items) - 1; h.kind == kindGC && last >= int(c.first) && d.items[last].kind == kindGC {
			c.until += body.n
			continue
		}
		whole := item{
			head: at(head), client: owner, start: at(body.start), end: at(body.end), kind: h.kind,
			deleted: h.kind == kindDeleted,
			left:    none, right: none, origin: none, rightOrigin: none, parent: none, entry: none,
		}
		if h.kind == kindType {
			whole.start = at(len(d.types))
			d.types = append(d.types, sharedType{name: body.name, kind: body.typ, start: none, entries: none})
		}
		p := pieces{r: reader{src: d.src, i: body.start, depth: d.limits.Depth, trusted: true}}
		for end := c.until + body.n; c.until < end; {
			for len(d.cuts) > 0 && d.cuts[0].client == c.id && d.cuts[0].clock <= c.until {
				d.cuts = d.cuts[1:]
			}
			to := end
			if len(d.cuts) > 0 && d.cuts[0].client == c.id && h.kind != kindGC {
				to = min(to, d.cuts[0].clock)
			}
			if len(d.items) == d.limits.Items {
				return &LimitError{"Items", d.limits.Items}
			}
			it := whole
			it.clock = c.until
			if to-c.until < body.n {
				p.next(&it, to-c.until)
			}
			d.items = append(d.items, it)
			whole.head, c.until = none, to
		}
	}
	c.next, c.end = c.first, at(len(d.items))
	return r.err
}

// pieces divides the content of a struct.
type pieces struct {
	r reader
	// within means that the last piece ended within a surrogate pair.
	within bool
}

// next assigns the next n units to it.
func (p *pieces) next(it *item, n uint64) {
	switch it.kind {
	case kindString:
		it.start = at(p.r.i)
		if p.within {
			p.within = false
			n--
		}
		for n > 0 {
			size, units := 1, uint64(1)
			switch c := p.r.src[p.r.i]; {
			case c >= 0xf0:
				size, units = 4, 2
			case c >= 0xe0:
				size = 3
			case c >= 0xc0:
				size = 2
			}
			p.r.i += size
			if units > n {
				p.within = true
				it.edges = pairEnd
				units = n
			}
			n -= units
		}
		it.end = at(p.r.i)
	case kindJSON, kindAny:
		it.start = at(p.r.i)
		p.r.values(it.kind, int(n)) //nolint:gosec // at most the length of the update
		it.end = at(p.r.i)
	default: // only a length
	}
}

// integrateAll integrates all structs that can be. Clients with higher ids come
// first, as in Yjs, which is the least work. A struct that refers to a later one
// must wait for it.
func (d *decoder) integrateAll() error {
	var stack []index
	for c := at(len(d.clients)) - 1; c >= 0; c-- {
		stack = append(stack[:0], c)
		for d.clients[c].open() {
			top := &d.clients[stack[len(stack)-1]]
			wait, err := d.integrateNext(top)
			switch {
			case err != nil:
				return err
			case wait == nil:
				if len(stack) > 1 {
					top.waited = false
					stack = stack[:len(stack)-1]
				}
			case wait.open() && !wait.waited && wait != &d.clients[c]:
				wait.waited = true
				stack = append(stack, d.byID[wait.id])
			default:
				// What it waits for is missing, or waits for it in turn.
				for _, s := range stack {
					d.clients[s].stuck, d.clients[s].waited = true, false
				}
				stack = append(stack[:0], c)
			}
		}
	}
	return nil
}

// absent is a client without content.
var absent client

// find returns the item that contains x, or none, and its client.
func (d *decoder) find(x id) (index, *client) {
	i, ok := d.byID[x.client]
	if !ok {
		return none, &absent
	}
	c := &d.clients[i]
	if x.clock >= c.until {
		return none, c
	}
	own := d.items[c.first:c.end]
	n := sort.Search(len(own), func(i int) bool { return own[i].clock > x.clock })
	return c.first + at(n) - 1, c
}

// integrateNext integrates the next struct of c, or returns the client that it
// waits for.
func (d *decoder) integrateNext(c *client) (wait *client, err error) {
	first := c.next
	it := &d.items[first]
	left := none
	if it.kind != kindGC {
		r := reader{src: d.src, i: int(it.head), trusted: true}
		h := r.header()
		parent := none
		for _, ref := range []struct {
			id id
			to *index
		}{{h.origin, &it.origin}, {h.right, &it.rightOrigin}, {h.parent, &parent}} {
			if !ref.id.set {
				continue
			}
			found, owner := d.find(ref.id)
			if owner == c && (found == none || found >= first) {
				return nil, &SyntaxError{Offset: int(it.head), Problem: "a struct refers to itself or to a later one"}
			}
			if found == none || found >= owner.next {
				return owner, nil
			}
			*ref.to = found
		}
		left = d.between(it.origin, it.rightOrigin)
		d.adopt(it, &h, parent)
	}
	for c.next++; c.next < c.end && d.items[c.next].head == none; c.next++ {
		more := &d.items[c.next]
		more.parent, more.entry, more.origin, more.rightOrigin = it.parent, it.entry, c.next-1, it.rightOrigin
	}
	if it.parent == none {
		return nil, nil
	}
	if it.kind == kindType {
		t := &d.types[it.typ()]
		if t.depth = d.types[it.parent].depth + 1; int(t.depth) > d.limits.Depth {
			return nil, &LimitError{"Depth", d.limits.Depth}
		}
	}
	if left, err = d.place(it, left); err != nil {
		return nil, err
	}
	for i := first; i < c.next; i++ {
		d.insert(i, left)
		left = i
	}
	return nil, nil
}

// between makes the cuts at both ends of an insertion real, and returns its left
// neighbour. That is its origin, except in one odd case that occurs in documents:
// the right neighbour is before the origin, in a run that is not cut yet. Yjs keeps
// that run as the left neighbour while it cuts off the right one.
func (d *decoder) between(origin, right index) index {
	if origin != none {
		d.part(origin)
	}
	if right == none {
		return origin
	}
	whole := right <= origin
	for i := right; i <= origin && whole; i++ {
		d.steps--
		whole = d.items[i].head == none && d.items[i].edges&apart == 0 && d.steps >= 0
	}
	d.part(right - 1)
	if whole {
		return right - 1
	}
	return origin
}

// part makes the cut after an item real.
func (d *decoder) part(i index) {
	if i < 0 || int(i+1) == len(d.items) || d.items[i+1].head != none {
		return
	}
	left, right := &d.items[i], &d.items[i+1]
	right.edges |= apart
	if left.edges&pairEnd != 0 {
		left.edges ^= pairEnd | halfEnd
		left.end -= utf8.UTFMax // such a character has this length
		right.edges |= halfStart
	}
}

// adopt finds the parent and the key of an item. It has none if the parent or a
// neighbour has been garbage-collected.
func (d *decoder) adopt(it *item, h *header, parent index) {
	sibling := it.origin
	if sibling == none {
		sibling = it.rightOrigin
	}
	switch {
	case sibling != none:
		if it.rightOrigin != none && d.items[it.rightOrigin].parent == none {
			return
		}
		it.parent, it.entry = d.items[sibling].parent, d.items[sibling].entry
		return
	case h.hasRoot:
		t, ok := d.rootOf[h.root]
		if !ok {
			t = at(len(d.types))
			d.types = append(d.types, sharedType{start: none, entries: none})
			d.roots = append(d.roots, root{name: h.root, at: t})
			d.rootOf[h.root] = t
		}
		it.parent = t
	case d.items[parent].parent == none || d.items[parent].kind != kindType:
		return
	default:
		it.parent = d.items[parent].typ()
	}
	if !h.hasSub {
		return
	}
	key := entryKey{it.parent, h.sub}
	e, ok := d.entryOf[key]
	if !ok {
		e = at(len(d.entries))
		t := &d.types[it.parent]
		d.entries = append(d.entries, entry{key: h.sub, first: none, last: none, next: t.entries})
		t.entries = e
		d.entryOf[key] = e
	}
	it.entry = e
}

// first returns the start of the list that it belongs to.
func (d *decoder) first(it *item) *index {
	if it.entry != none {
		return &d.entries[it.entry].first
	}
	return &d.types[it.parent].start
}

// place finds the left neighbour of it, by the rule that gives all clients the same
// order, whatever the order in which they receive insertions. If others inserted at
// the same position, it compares with each item between the original neighbours.
func (d *decoder) place(it *item, left index) (index, error) {
	right := it.rightOrigin
	if d.steps < 0 {
		return none, &LimitError{"Steps", d.limits.Steps}
	}
	if left == none && right != none && d.items[right].left == none || left != none && d.items[left].right == right {
		return left, nil // no other insertion
	}
	next := *d.first(it)
	if left != none {
		next = d.items[left].right
	}
	// An item has been passed if its mark is at least passed, and is still in
	// conflict if the mark is at least conflict.
	d.epoch++
	passed, conflict := d.epoch, d.epoch
	for i := next; i != none && i != right; i = d.items[i].right {
		if d.steps--; d.steps < 0 {
			return none, &LimitError{"Steps", d.limits.Steps}
		}
		other := &d.items[i]
		other.mark = d.epoch
		var before bool
		switch {
		case other.origin == it.origin:
			// Both were inserted at the same item: the lower client id goes left.
			if before = other.client < it.client; !before && other.rightOrigin == it.rightOrigin {
				return left, nil
			}
		case other.origin == none || d.items[other.origin].mark < passed:
			return left, nil
		default:
			// The other was inserted at an item that was passed, and follows it.
			before = d.items[other.origin].mark < conflict
		}
		if before {
			left = i
			d.epoch++
			conflict = d.epoch
		}
	}
	return left, nil
}

// insert inserts an item to the right of left, or at the start.
func (d *decoder) insert(i, left index) {
	it := &d.items[i]
	to := d.first(it)
	if left != none {
		to = &d.items[left].right
	}
	it.left, it.right, *to = left, *to, i
	if it.right != none {
		d.items[it.right].left = i
	} else if it.entry != none {
		d.entries[it.entry].last = i
	}
}

// delete marks the deleted content of a client, after clients with lower ids.
func (d *decoder) delete(c *client) {
	i := c.first
	for ; len(d.deletes) > 0 && d.deletes[0].client <= c.id; d.deletes = d.deletes[1:] {
		s := d.deletes[0]
		if s.client != c.id {
			d.wait(s.client, s.from)
			continue
		}
		if s.to > c.until {
			d.wait(c.id, max(s.from, c.until))
		}
		for i < c.next && d.items[i].clock < s.from {
			i++
		}
		d.part(i - 1)
		for ; i < c.next && d.items[i].clock < s.to; i++ {
			d.items[i].deleted = true
		}
		d.part(i - 1)
	}
}
