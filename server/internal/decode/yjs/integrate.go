package yjs

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// index is a place in one of the tables of a document.
type index = int32

// none is no place.
const none index = -1

// at converts a place. Limits keep it below what 32 bits hold.
func at(i int) index { return index(i) } //nolint:gosec // see above

// item is a run of content that one client made and that nothing divides: all
// that refers to it refers to its first or last unit. It lies in the list of
// its parent, or in the history of one of its parent's keys.
type item struct {
	clock uint64
	// client is a place in the order of the clients' ids.
	client index
	// head is where the struct begins in the update; none for what follows the
	// first item of a struct.
	head index
	// start and end enclose the content in the update. The start of a shared type
	// is its place among the types.
	start, end  index
	left, right index
	// origin and rightOrigin are what was left and right of it when it was made.
	origin, rightOrigin index
	// parent is the type that holds it, none if that has been collected.
	parent index
	// entry is the key it lies under, or none.
	entry   index
	mark    uint32
	kind    kind
	deleted bool
	edges   edges
}

// edges says what has become of the ends of an item. Cuts are made ahead of what
// asks for them, and become real when that is integrated.
type edges uint8

const (
	// apart says that the cut before the item is real.
	apart edges = 1 << iota
	// pairEnd says that the cut behind the item would go through a character
	// that is a pair of surrogates in UTF-16. All of it belongs to the item.
	pairEnd
	// halfStart and halfEnd say that the cut did. Yjs puts U+FFFD in place of
	// either half.
	halfStart
	halfEnd
)

// typ returns which shared type it is, if it is one.
func (it *item) typ() index { return it.start }

// sharedType is a map, array, text or XML node. Every type has both a list and
// entries; which of them is used is up to the type.
type sharedType struct {
	name    string
	kind    Type
	start   index
	entries index
	depth   int32
}

// entry is a key of a shared type and what it was set to. The last one is its
// value, or it has none if that was deleted; those before count as deleted.
type entry struct {
	key         string
	first, last index
	// next is the entry of the type that was made before.
	next index
}

// entryKey finds an entry.
type entryKey struct {
	typ index
	key string
}

// list yields the items that show in the list of t.
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

// attribute is a key of a type and the item that shows under it.
type attribute struct {
	key  string
	item *item
}

// get returns what shows under a key of t, or nil.
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

// attributes returns what shows under the keys of t, in their order.
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

// cut is a place in the content of a client that something refers to: before
// the unit of that clock.
type cut struct{ client, clock uint64 }

// span is a range of clocks of a client, without its end.
type span struct{ client, from, to uint64 }

// client is one who wrote the document.
type client struct {
	id uint64
	// structs is where its structs begin in the update, and count how many they are.
	structs, count index
	// first and end enclose its items, and until is the clock behind them.
	first, end index
	until      uint64
	// next is the first item that has not been integrated.
	next index
	// waited says that another client's next item waits for this one's.
	waited bool
	// stuck says that its next item waits for something that is not there.
	stuck bool
}

func (c *client) open() bool { return !c.stuck && c.next < c.end }

// decoder makes a document from an update.
//
// It reads the update twice. The first time it checks every byte and notes
// where structs have to be cut, because something was inserted into them or
// part of them was deleted. The second time it makes the items, already cut, so
// that tables never have to be opened in the middle and one number says all
// there is to know about a neighbour.
type decoder struct {
	*Doc
	clients []client
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
	return nil
}

// cut notes that something refers to the place before a unit.
func (d *decoder) cut(c cut) {
	if n := len(d.cuts); n == 0 || d.cuts[n-1] != c {
		d.cuts = append(d.cuts, c)
	}
}

// scan reads the update for the first time.
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
	// An update of version 2 begins with a zero, which here means that nobody
	// wrote anything; but more follows.
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
	if clock == 0 { // otherwise the first ones are missing, and all have to wait for them
		c.count = at(count)
	}
	if i, ok := d.byID[c.id]; ok {
		d.clients[i] = c // Yjs forgets what came before, too
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

// build makes the items of a client. Those of clients with lower ids are made.
func (d *decoder) build(owner index) error {
	c := &d.clients[owner]
	r := &reader{src: d.src, i: int(c.structs), depth: d.limits.Depth, trusted: true}
	for len(d.cuts) > 0 && d.cuts[0].client < c.id {
		d.cuts = d.cuts[1:]
	}
	c.first = at(len(d.items))
	for range c.count {
		head := r.i
		h := r.header()
		body := r.content(h.kind)
		if h.kind == kindSkip {
			break // what follows has to wait for what is missing here
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
	// within says that the last piece ended within a pair of surrogates.
	within bool
}

// next gives the next n units to it.
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
	default: // a length is all there is
	}
}

// integrateAll puts all structs in their place that can be. Clients with higher
// ids come first, as in Yjs: that makes the least work. A struct that refers
// to one that is still to come has to wait for it.
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
				// What it waits for is not in the update, or waits for it in turn.
				for _, s := range stack {
					d.clients[s].stuck, d.clients[s].waited = true, false
				}
				stack = append(stack[:0], c)
			}
		}
	}
	return nil
}

// absent is a client that wrote nothing.
var absent client

// find returns the item that holds x, none if there is none, and its client.
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

// integrateNext integrates the next struct of c, or returns whom it waits for.
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

// between makes the cuts real between which an item was made, and returns its
// neighbour on the left. That is its origin, but in one odd case that documents
// do have: the right one lies before the origin, in a run that is still whole.
// Yjs holds on to that run as the neighbour while it cuts the right one off.
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

// part makes the cut behind an item real.
func (d *decoder) part(i index) {
	if i < 0 || int(i+1) == len(d.items) || d.items[i+1].head != none {
		return
	}
	left, right := &d.items[i], &d.items[i+1]
	right.edges |= apart
	if left.edges&pairEnd != 0 {
		left.edges ^= pairEnd | halfEnd
		left.end -= utf8.UTFMax // such a character takes as many bytes
		right.edges |= halfStart
	}
}

// adopt finds the parent of an item, and the key it lies under. It has none if
// the parent or a neighbour has been collected.
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

// first returns where the list begins that it is to lie in.
func (d *decoder) first(it *item) *index {
	if it.entry != none {
		return &d.entries[it.entry].first
	}
	return &d.types[it.parent].start
}

// place finds what goes to the left of it, by the rule with which all clients
// arrive at the same order whatever order they learn of insertions in. If others
// inserted in the same place, it looks at each item between the neighbours
// that it was made with.
func (d *decoder) place(it *item, left index) (index, error) {
	right := it.rightOrigin
	if d.steps < 0 {
		return none, &LimitError{"Steps", d.limits.Steps}
	}
	if left == none && right != none && d.items[right].left == none || left != none && d.items[left].right == right {
		return left, nil // nobody did
	}
	next := *d.first(it)
	if left != none {
		next = d.items[left].right
	}
	// An item has been passed if its mark is not below passed, and is still in
	// conflict with it if the mark is not below conflict.
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
			// Both were inserted at the same item: the lower client goes left.
			if before = other.client < it.client; !before && other.rightOrigin == it.rightOrigin {
				return left, nil
			}
		case other.origin == none || d.items[other.origin].mark < passed:
			return left, nil
		default:
			// The other was inserted at one that was passed; it goes where that went.
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

// insert puts an item to the right of left, or first.
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

// delete marks what has been deleted of a client, after clients with lower ids.
func (d *decoder) delete(c *client) {
	i := c.first
	for ; len(d.deletes) > 0 && d.deletes[0].client <= c.id; d.deletes = d.deletes[1:] {
		s := d.deletes[0]
		if s.client != c.id {
			continue
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
