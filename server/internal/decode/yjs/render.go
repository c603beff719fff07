package yjs

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
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
// is by name. The only error is a [*LimitError].
func (d *Doc) Render(dst []byte, as Rendering) ([]byte, error) {
	w := newWriter(d, dst)
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
		w.plainObject(t)
	case as == Array:
		w.plainArray(t)
	case as == Text && formatting:
		w.formatted(t)
	default:
		w.string(w.printed(t, as))
	}
}

// plain writes a nested type.
func (w *writer) plain(t *sharedType) {
	switch t.kind {
	case Map, XMLHook:
		w.plainObject(t)
	case Array:
		w.plainArray(t)
	default:
		w.string(w.printed(t, t.kind))
	}
}

func (w *writer) plainObject(t *sharedType) {
	w.raw("{")
	for _, a := range w.attributes(t) {
		if w.full() {
			return
		}
		if v, ok := w.last(a.item); ok && !v.undefined() {
			w.key(a.key)
			w.plainValue(v)
		}
	}
	w.raw("}")
}

func (w *writer) plainArray(t *sharedType) {
	w.raw("[")
	for it := range w.list(t) {
		for v := range w.values(it) {
			if w.full() {
				return
			}
			if v.kind == kindString {
				w.units(it)
				continue
			}
			w.next()
			w.plainValue(v)
		}
	}
	w.raw("]")
}

// units writes a text in an array as JavaScript has it: one string for each unit.
func (w *writer) units(it *item) {
	for s := range w.strings(it) {
		for _, unit := range utf16.Encode([]rune(s)) {
			w.next()
			if utf16.IsSurrogate(rune(unit)) {
				w.raw(`"\u` + strconv.FormatUint(uint64(unit), 16) + `"`)
				continue
			}
			w.string(string(rune(unit)))
		}
	}
}

func (w *writer) plainValue(v value) {
	switch v.kind {
	case kindType:
		w.plain(&w.types[v.it.typ()])
	case kindDoc:
		w.raw("{}")
	default:
		w.value(v)
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
				w.next()
				w.plainValue(v)
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
	return p.err != nil
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

func compareUTF16(a, b string) int {
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
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
	var tags []string
	begin := func() {
		if open {
			return
		}
		tags = tags[:0]
		names := slices.SortedFunc(slices.Values(format.sorted()), compareUTF16)
		for _, name := range names {
			tags = append(tags, name)
			p.add("<", name)
			p.tag(format.values[name])
			p.add(">")
		}
		open = true
	}
	end := func() {
		if !open {
			return
		}
		for _, name := range slices.Backward(tags) {
			p.add("</", name, ">")
		}
		open = false
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
			format.apply(p.formatOf(it))
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

// tag writes the members of the value of a format as attributes: of an object, a list, or
// the units of a text.
func (p *printer) tag(value string) {
	var members map[string]json.RawMessage
	var list []json.RawMessage
	var text string
	switch {
	case json.Unmarshal([]byte(value), &members) == nil:
	case json.Unmarshal([]byte(value), &list) == nil:
		members = make(map[string]json.RawMessage, len(list))
		for i, v := range list {
			members[strconv.Itoa(i)] = v
		}
	case json.Unmarshal([]byte(value), &text) == nil:
		units := utf16.Encode([]rune(text))
		members = make(map[string]json.RawMessage, len(units))
		for i, unit := range units {
			members[strconv.Itoa(i)], _ = json.Marshal(string(utf16.Decode([]uint16{unit}))) // a string
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(members), compareUTF16) {
		p.add(" ", key, `="`)
		p.printJSON(members[key])
		p.add(`"`)
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
		if i > 0 {
			p.add(",")
		}
		p.add(strconv.Itoa(int(s[i])))
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
		for i, n := 0, r.count(1); i < n; i++ {
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
