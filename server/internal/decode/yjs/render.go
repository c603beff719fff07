package yjs

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Rendering says what [Doc.Render] writes.
type Rendering struct {
	// Key is the name of the only root that is written; nil for all of them.
	Key *string
	// Type is the type that the root is read as, and its bare value is written. [Unknown]
	// stands for what the root looks like.
	Type Type
	// Formatting writes texts that are roots as lists, with what begins and ends formats,
	// unless Type is given.
	Formatting bool
}

// Render appends the document to dst as Liveblocks' REST API writes it, which is made to
// be looked at: texts without formats and embeds, XML as a string in which nothing is
// escaped, and a root that is read as what its first item suggests. The order of the roots
// is by name. It fails with a [*LimitError], or with the error of ctx once that has ended.
//
// The work is linear in the update and in what is written: what is written again and again,
// such as the value of a format, is read once.
func (d *Doc) Render(ctx context.Context, dst []byte, as Rendering) ([]byte, error) {
	w := newWriter(d, dst)
	w.shown, w.ended = true, ctx.Err
	if as.Key == nil {
		w.raw("{")
		for _, r := range d.roots {
			if t := &d.types[r.at]; w.looks(t) != Unknown {
				w.key(r.name)
				w.rendered(t, w.looks(t), as.Formatting)
			}
		}
		w.raw("}")
		return w.result(dst)
	}
	i := slices.IndexFunc(d.roots, func(r root) bool { return r.name == *as.Key })
	if i >= 0 && as.Type != Unknown {
		w.rendered(&d.types[d.roots[i].at], as.Type, false)
		return w.result(dst)
	}
	w.raw("{")
	w.key(*as.Key)
	if i >= 0 && w.looks(&d.types[d.roots[i].at]) != Unknown {
		t := &d.types[d.roots[i].at]
		w.rendered(t, w.looks(t), as.Formatting)
	} else {
		w.raw(`""`)
	}
	w.raw("}")
	return w.result(dst)
}

// looks returns what a root is taken for, by its first visible item alone.
func (d *Doc) looks(t *sharedType) Type {
	for it := range d.list(t) {
		switch it.kind {
		case kindString, kindFormat, kindEmbed:
			return Text
		case kindJSON, kindAny:
			return Array
		default:
			return XMLFragment
		}
	}
	if t.entries != none {
		return Map
	}
	return Unknown
}

// rendered writes a root as a type.
func (w *writer) rendered(t *sharedType, as Type, formatting bool) {
	switch {
	case as == Map:
		w.object(t)
	case as == Array:
		w.array(t)
	case as == Text && formatting:
		w.formatted(t)
	default:
		w.string(w.printed(t, as))
	}
}

// units writes a text in an array as JavaScript has it: one string for each unit.
func (w *writer) units(it *item) {
	for s := range w.strings(it) {
		for _, r := range s {
			if w.full() {
				return
			}
			if utf16.RuneLen(r) == 1 {
				w.next()
				w.string(string(r))
				continue
			}
			for _, unit := range utf16.AppendRune(nil, r) {
				w.next()
				w.raw(`"\u` + strconv.FormatUint(uint64(unit), 16) + `"`)
			}
		}
	}
}

// formatted writes a text as a list.
func (w *writer) formatted(t *sharedType) {
	w.raw("[")
	for it := range w.list(t) {
		if w.full() {
			return
		}
		switch it.kind {
		case kindFormat:
			key, value := w.formatOf(it)
			w.next()
			w.raw(`{"key":`)
			w.string(key)
			w.raw(`,"value":`)
			w.json(value)
			w.raw("}")
		default:
			for v := range w.values(it) {
				if w.full() {
					return
				}
				w.next()
				w.value(v)
			}
		}
	}
	w.raw("]")
}

// printed returns a type as a string, as JavaScript makes one of it.
func (w *writer) printed(t *sharedType, as Type) string {
	p := printer{writer: w}
	p.shared(t, as)
	return string(p.dst)
}

// printer writes strings.
type printer struct {
	*writer
	dst []byte
}

func (p *printer) add(parts ...string) {
	for _, s := range parts {
		p.dst = append(p.dst, s...)
	}
}

// full reports whether there is too much already.
func (p *printer) full() bool {
	if len(p.writer.dst)+len(p.dst) > p.max && p.err == nil {
		p.err = &LimitError{"Output", p.limits.Output}
	}
	return p.stopped()
}

const objectString = "[object Object]"

func (p *printer) shared(t *sharedType, as Type) {
	switch as {
	case Text:
		for it := range p.list(t) {
			if it.kind == kindString {
				for s := range p.strings(it) {
					p.add(s)
				}
			}
			if p.full() {
				return
			}
		}
	case XMLText:
		p.marked(t)
	case XMLElement:
		name := strings.ToLower(t.name)
		p.add("<", name)
		for _, a := range p.byUTF16(t) {
			v, _ := p.last(a.item)
			p.add(" ", a.key, `="`)
			p.printValue(v)
			p.add(`"`)
		}
		p.add(">")
		p.children(t)
		p.add("</", name, ">")
	case XMLFragment:
		p.children(t)
	default:
		p.add(objectString)
	}
}

// byUTF16 returns the attributes in the order in which JavaScript sorts their keys.
func (p *printer) byUTF16(t *sharedType) []attribute {
	list := slices.Clone(p.attributes(t))
	slices.SortFunc(list, func(a, b attribute) int { return compareUTF16(a.key, b.key) })
	return list
}

// compareUTF16 compares texts by their units in UTF-16, as JavaScript does.
func compareUTF16(a, b string) int {
	for a != "" && b != "" {
		x, n := utf8.DecodeRuneInString(a)
		y, m := utf8.DecodeRuneInString(b)
		if x != y {
			return cmp.Or(cmp.Compare(firstUnit(x), firstUnit(y)), cmp.Compare(x, y))
		}
		a, b = a[n:], b[m:]
	}
	return cmp.Compare(len(a), len(b))
}

// firstUnit returns the first unit of a rune in UTF-16.
func firstUnit(r rune) rune {
	if high, _ := utf16.EncodeRune(r); utf16.RuneLen(r) == 2 {
		return high
	}
	return r
}

func (p *printer) children(t *sharedType) {
	for it := range p.list(t) {
		for v := range p.values(it) {
			if p.full() {
				return
			}
			p.printValue(v)
		}
	}
}

// marked writes an XML text, with an element for each format.
func (p *printer) marked(t *sharedType) {
	var format formatting
	open := false
	var names []string          // of the formats, in order
	tags := map[string]string{} // those that were written once, by name
	begin := func() {
		if open {
			return
		}
		for _, name := range names {
			tag, known := tags[name]
			if !known {
				tag = p.tag(name, format.values[name])
				tags[name] = tag
			}
			if p.add(tag); p.full() {
				return
			}
		}
		open = true
	}
	end := func() {
		if !open {
			return
		}
		for _, name := range slices.Backward(names) {
			p.add("</", name, ">")
		}
		open = false
	}
	apply := func(key, value string) {
		format.apply(key, value)
		delete(tags, key)
		_, set := format.values[key]
		at, had := slices.BinarySearchFunc(names, key, compareUTF16)
		switch {
		case set && !had:
			names = slices.Insert(names, at, key)
		case had && !set:
			names = slices.Delete(names, at, at+1)
		}
	}
	for it := range p.list(t) {
		if p.full() {
			return
		}
		switch it.kind {
		case kindString:
			begin()
			for s := range p.strings(it) {
				p.add(s)
			}
		case kindFormat:
			end()
			apply(p.formatOf(it))
		case kindEmbed, kindType:
			end()
			begin()
			v, _ := p.last(it)
			p.printValue(v)
			end()
		default: // not text
		}
	}
	end()
}

// tag returns what begins a format, with the members of its value as attributes: those of
// an object, a list, or the units of a text.
func (p *printer) tag(name, value string) string {
	t := printer{writer: p.writer}
	t.add("<", name)
	attribute := func(key string, write func()) bool {
		t.add(" ", key, `="`)
		write()
		t.add(`"`)
		return !t.full()
	}
	var members map[string]json.RawMessage
	var list []json.RawMessage
	var text string
	switch begin := strings.TrimLeft(value, " \t\r\n"); {
	case strings.HasPrefix(begin, "{") && json.Unmarshal([]byte(begin), &members) == nil:
		for _, key := range slices.SortedFunc(maps.Keys(members), compareUTF16) {
			if !attribute(key, func() { t.printJSON(members[key]) }) {
				break
			}
		}
	case strings.HasPrefix(begin, "[") && json.Unmarshal([]byte(begin), &list) == nil:
		for i := range asTexts(len(list)) {
			if !attribute(strconv.Itoa(i), func() { t.printJSON(list[i]) }) {
				break
			}
		}
	case strings.HasPrefix(begin, `"`) && json.Unmarshal([]byte(begin), &text) == nil:
		units := utf16.Encode([]rune(text))
		for i := range asTexts(len(units)) {
			// Half a pair is no character.
			if !attribute(strconv.Itoa(i), func() { t.add(string(utf16.Decode(units[i : i+1]))) }) {
				break
			}
		}
	}
	t.add(">")
	return string(t.dst)
}

// asTexts yields the numbers below n in the order of their texts: 0, 1, 10, 11, 2.
func asTexts(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		var from func(i int) bool
		from = func(i int) bool {
			if i >= n {
				return true
			}
			if !yield(i) {
				return false
			}
			for digit := range 10 {
				if next := 10*i + digit; next > i && !from(next) {
					return false
				}
			}
			return true
		}
		from(0)
	}
}

// printJSON writes a JSON value as JavaScript makes a string of it.
func (p *printer) printJSON(raw json.RawMessage) {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return
	}
	p.print(v)
}

// print writes a value as JavaScript makes a string of it.
func (p *printer) print(v any) {
	switch v := v.(type) {
	case nil:
		p.add("null")
	case bool:
		p.add(strconv.FormatBool(v))
	case string:
		p.add(v)
	case float64:
		p.number(v)
	case []any:
		for i, item := range v {
			if p.full() {
				return
			}
			if i > 0 {
				p.add(",")
			}
			if item != nil {
				p.print(item)
			}
		}
	default:
		p.add(objectString)
	}
}

func (p *printer) number(f float64) {
	switch {
	case math.IsNaN(f):
		p.add("NaN")
	case math.IsInf(f, 1):
		p.add("Infinity")
	case math.IsInf(f, -1):
		p.add("-Infinity")
	default:
		w := writer{Doc: p.Doc}
		w.float(f)
		p.add(string(w.dst))
	}
}

// printValue writes a value of the document as JavaScript makes a string of it.
func (p *printer) printValue(v value) {
	switch v.kind {
	case kindType:
		t := &p.types[v.it.typ()]
		p.shared(t, t.kind)
	case kindString:
		for s := range p.strings(v.it) {
			p.add(s)
		}
	case kindBinary:
		p.bytes(v.s)
	case kindDoc:
		p.add(objectString)
	case kindAny:
		r := reader{src: v.s, depth: p.limits.Depth, trusted: true}
		p.any(&r)
	default:
		if v.undefined() {
			p.add("undefined")
		} else {
			p.printJSON(json.RawMessage(v.s))
		}
	}
}

func (p *printer) bytes(s string) {
	for i := range len(s) {
		if p.full() {
			return
		}
		if i > 0 {
			p.add(",")
		}
		p.dst = strconv.AppendUint(p.dst, uint64(s[i]), 10)
	}
}

// any writes an encoded value. null and undefined are empty within a list.
func (p *printer) any(r *reader) {
	switch tag := r.byte(); tag {
	case tagTrue:
		p.add("true")
	case tagFalse:
		p.add("false")
	case tagInteger:
		p.add(strconv.FormatInt(r.int(), 10))
	case tagBigInt:
		bits := binary.BigEndian.Uint64([]byte(r.take(8)))
		p.add(strconv.FormatInt(int64(bits), 10)) //nolint:gosec // the sign is in it
	case tagFloat32:
		p.number(float64(math.Float32frombits(binary.BigEndian.Uint32([]byte(r.take(4))))))
	case tagFloat64:
		p.number(math.Float64frombits(binary.BigEndian.Uint64([]byte(r.take(8)))))
	case tagString:
		p.add(r.text())
	case tagBinary:
		p.bytes(r.take(r.uint()))
	case tagObject:
		r.i-- // the whole of it is read, and nothing is shown
		r.any(1)
		p.add(objectString)
	case tagArray:
		for i, n := 0, r.count(1); i < n && !p.full(); i++ {
			if i > 0 {
				p.add(",")
			}
			if tag := r.src[r.i]; tag == tagUndefined || tag == tagNull {
				r.byte()
				continue
			}
			p.any(r)
		}
	case tagUndefined:
		p.add("undefined")
	default:
		p.add("null")
	}
}
