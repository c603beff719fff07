package yjs

import (
	"encoding/binary"
	"hash"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// JSON appends the document to dst as one object, with a member for each root,
// ordered by name. It leaves out roots of unknown type, which are empty. The same
// update always gives the same bytes.
//
//   - A map is an object, in the order of its keys. An array or an XML fragment
//     is an array.
//   - A text is its delta: an array of {"insert":…} or
//     {"insert":…,"attributes":{…}}, where what is inserted is a string, an
//     embedded object or a shared type. Strings are parted where Yjs parts them.
//   - An XML element is {"t":name,"attrs":{…},"c":[…]}, an XML text
//     {"t":"text","delta":[…],"attrs":{…}}.
//   - A subdocument is {"guid":…}.
//   - Values are as JSON.stringify writes them: no member, or null in an array,
//     for undefined, null for a number that is not finite, an object of indexes
//     for binary data. A BigInt, which it refuses, is a number with all its
//     digits. JSON that the update holds as text is copied without white space.
//   - Binary data of more than [MaxBinary] bytes is null, since JSON takes up to
//     twelve times its length, and so is a weak link.
func (d *Doc) JSON(dst []byte) ([]byte, error) {
	w := newWriter(d, dst)
	w.whole()
	return w.result(dst)
}

// MaxBinary is the maximum length of binary data in JSON.
const MaxBinary = 1024

// Losses says what is missing in the JSON of a document.
type Losses struct {
	// Binaries, Links and Types count the null values for binary data, weak links and
	// shared types of a kind that Yjs does not define.
	Binaries, Links, Types int
}

// Queryable is the JSON of a document for queries.
type Queryable struct {
	// JSON is that of [Doc.JSON], nil if it is too long; Size is its length.
	JSON []byte
	Size int
	// StateSHA256 is that of [Doc.StateSHA256].
	StateSHA256 [32]byte
	Lost        Losses
}

// Queryable returns the JSON of the document if it has at most maxSize bytes. Longer JSON
// is not built. The only error is a [*LimitError].
func (d *Doc) Queryable(maxSize int) (q Queryable, err error) {
	w := newWriter(d, nil)
	w.keep, w.sum = maxSize, d.state()
	w.whole()
	if _, err := w.result(nil); err != nil {
		return Queryable{}, err
	}
	if w.gone == 0 && len(w.dst) <= maxSize {
		q.JSON = w.dst
	}
	q.Size, q.Lost = w.gone+len(w.dst), w.lost
	if w.sum != nil {
		_, _ = w.sum.Write(w.dst) // never fails
		w.sum.Sum(q.StateSHA256[:0])
	}
	return q, nil
}

// whole writes the JSON of the document.
func (w *writer) whole() {
	w.raw("{")
	for _, r := range w.roots {
		if t := &w.types[r.at]; t.kind != Unknown {
			w.key(r.name)
			w.shared(t)
		}
	}
	w.raw("}")
}

// writer writes JSON. It writes a comma before everything that does not start an
// object or array.
type writer struct {
	*Doc
	dst []byte
	// max is the maximum length of dst, minus work that produced no output.
	max  int
	err  error
	lost Losses
	// shown means that it writes what [Doc.Render] does: values without what is not shown.
	shown bool
	// keep is the length from which on dst is only counted and hashed, by sum if that is
	// set; gone is what is not in dst any more.
	keep, gone int
	sum        hash.Hash
	// path is where the writer is; see [Doc.Structure].
	path []byte
	// ended, if set, returns why writing must end. It is asked once in so many turns.
	ended func() error
	turns int
}

// turnsBetween is how many values are written, at least, before ended is asked again.
const turnsBetween = 1024

// spill is the part in which a writer lets go of what is too long.
const spill = 64 << 10

func newWriter(d *Doc, dst []byte) *writer {
	return &writer{
		Doc: d, dst: dst, max: len(dst) + min(d.limits.Output, math.MaxInt-len(dst)), keep: math.MaxInt,
	}
}

// result returns the output, or the original dst.
func (w *writer) result(dst []byte) ([]byte, error) {
	if w.full(); w.err != nil {
		return dst, w.err
	}
	return w.dst, nil
}

// full reports whether writing must stop because the output is too large.
func (w *writer) full() bool {
	if w.gone+len(w.dst) > w.max && w.err == nil {
		w.err = &LimitError{"Output", w.limits.Output}
	}
	if len(w.dst) > w.keep {
		last := len(w.dst) - 1 // next looks at it
		if w.sum != nil {
			_, _ = w.sum.Write(w.dst[:last]) // never fails
		}
		w.gone += last
		w.dst = append(w.dst[:0], w.dst[last])
		w.keep = min(w.keep, spill)
	}
	return w.stopped()
}

// stopped reports whether writing must stop, whatever has been written.
func (w *writer) stopped() bool {
	if w.ended != nil && w.err == nil {
		if w.turns%turnsBetween == 0 {
			w.err = w.ended()
		}
		w.turns++
	}
	return w.err != nil
}

func (w *writer) raw(s string) { w.dst = append(w.dst, s...) }

// next starts a member or an element.
func (w *writer) next() {
	if last := w.dst[len(w.dst)-1]; last != '{' && last != '[' {
		w.dst = append(w.dst, ',')
	}
}

func (w *writer) key(name string) {
	w.next()
	w.string(name)
	w.raw(":")
}

func (w *writer) string(s string) {
	w.raw(`"`)
	w.escape(s)
	w.raw(`"`)
}

// escape writes the content of a string, with the escapes of JSON.stringify.
func (w *writer) escape(s string) {
	const short = "btn\x00fr" // from 8 on
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		w.raw(s[from:i])
		from = i + 1
		switch {
		case c >= ' ':
			w.dst = append(w.dst, '\\', c)
		case '\b' <= c && c <= '\r' && c != '\v':
			w.dst = append(w.dst, '\\', short[c-'\b'])
		default:
			w.dst = append(w.dst, '\\', 'u', '0', '0', "01"[c>>4], "0123456789abcdef"[c&15])
		}
	}
	w.raw(s[from:])
}

func (w *writer) shared(t *sharedType) {
	switch {
	case t.kind == Map, t.kind == XMLHook:
		w.object(t)
	case t.kind == Array, t.kind == XMLFragment && !w.shown:
		w.array(t)
	case w.shown:
		w.string(w.printed(t, t.kind))
	default:
		w.structured(t)
	}
}

// structured writes a type that has more to it than its items.
func (w *writer) structured(t *sharedType) {
	switch t.kind {
	case Text:
		w.delta(t)
	case XMLElement:
		w.raw(`{"t":`)
		w.string(t.name)
		w.raw(`,"attrs":`)
		w.object(t)
		w.raw(`,"c":`)
		w.array(t)
		w.raw("}")
	case XMLText:
		w.raw(`{"t":"text","delta":`)
		w.delta(t)
		w.raw(`,"attrs":`)
		w.object(t)
		w.raw("}")
	case WeakLink:
		w.lost.Links++
		w.raw("null")
	default:
		w.lost.Types++
		w.raw("null")
	}
}

func (w *writer) object(t *sharedType) {
	w.raw("{")
	for _, a := range w.attributes(t) {
		if w.full() {
			return
		}
		if v, ok := w.last(a.item); ok && !v.undefined() {
			w.key(a.key)
			w.value(v)
		}
	}
	w.raw("}")
}

func (w *writer) array(t *sharedType) {
	w.raw("[")
	for it := range w.list(t) {
		for v := range w.values(it) {
			switch {
			case w.full():
				return
			case w.shown && v.kind == kindString:
				w.units(it)
			default:
				w.next()
				w.value(v)
			}
		}
	}
	w.raw("]")
}

func (w *writer) delta(t *sharedType) {
	w.raw("[")
	var format formatting
	open := false
	end := func() {
		if open {
			w.raw(`"`)
			w.format(&format)
		}
		open = false
	}
	for it := range w.list(t) {
		if w.full() {
			return
		}
		switch it.kind {
		case kindString:
			if !open {
				w.next()
				w.raw(`{"insert":"`)
				open = true
			}
			w.text(it)
		case kindFormat:
			end()
			format.apply(w.formatOf(it))
		case kindEmbed, kindType:
			end()
			w.next()
			w.raw(`{"insert":`)
			v, _ := w.last(it)
			w.value(v)
			w.format(&format)
		default: // not text
		}
	}
	end()
	w.raw("]")
}

// format ends an insertion with the attributes of the text.
func (w *writer) format(f *formatting) {
	if len(f.values) > 0 {
		w.raw(`,"attributes":{`)
		for _, key := range f.sorted() {
			w.key(key)
			w.json(f.values[key])
		}
		w.raw("}")
	}
	w.raw("}")
}

// formatting holds the attributes of a text at some position, as JSON.
type formatting struct {
	values map[string]string
	// keys are the sorted keys of values, or nil if they have changed.
	keys []string
}

func (f *formatting) apply(key, value string) {
	_, had := f.values[key]
	remove := strings.Trim(value, " \t\r\n") == "null"
	if had == remove {
		f.keys = nil
	}
	if remove {
		delete(f.values, key)
		return
	}
	if f.values == nil {
		f.values = map[string]string{}
	}
	f.values[key] = value
}

// sorted returns the sorted keys.
func (f *formatting) sorted() []string {
	if f.keys == nil {
		f.keys = slices.Sorted(maps.Keys(f.values))
	}
	return f.keys
}

// formatOf returns the key and the value of a format.
func (d *Doc) formatOf(it *item) (key, value string) {
	r := d.reader(it)
	return r.text(), r.json()
}

// reader returns a reader of the content of it.
func (d *Doc) reader(it *item) reader {
	return reader{src: d.src[:it.end], i: int(it.start), depth: d.limits.Depth, trusted: true}
}

// half replaces half of a surrogate pair.
const half = string(utf8.RuneError)

// text writes the string of it, without quotes.
func (w *writer) text(it *item) {
	for s := range w.strings(it) {
		w.escape(s)
	}
}

// strings yields the parts of the string of it.
func (d *Doc) strings(it *item) iter.Seq[string] {
	return func(yield func(string) bool) {
		if it.edges&halfStart != 0 && !yield(half) || !yield(d.src[it.start:it.end]) {
			return
		}
		if it.edges&halfEnd != 0 {
			yield(half)
		}
	}
}

// value is one value of an item's content.
type value struct {
	kind kind
	// s is the value, encoded according to its kind.
	s string
	// it is the item that contains it.
	it *item
}

func (v value) undefined() bool {
	return v.kind == kindJSON && v.s == undefined || v.kind == kindAny && v.s[0] == tagUndefined
}

// values yields the values that an item adds to an array.
func (d *Doc) values(it *item) iter.Seq[value] {
	return func(yield func(value) bool) {
		switch it.kind {
		case kindJSON, kindAny:
			for r := d.reader(it); r.i < len(r.src); {
				v := value{kind: it.kind, it: it}
				if start := r.i; it.kind == kindAny {
					r.any(1)
					v.s = r.src[start:r.i]
				} else {
					v.s = r.text()
				}
				if !yield(v) {
					return
				}
			}
		case kindType:
			yield(value{it.kind, "", it})
		case kindString, kindBinary, kindEmbed, kindDoc:
			yield(value{it.kind, d.src[it.start:it.end], it})
		default: // nothing to count
		}
	}
}

// last returns the last value of an item, which is the value of its key.
func (d *Doc) last(it *item) (v value, ok bool) {
	for v = range d.values(it) {
		ok = true
	}
	return v, ok
}

func (w *writer) value(v value) {
	switch v.kind {
	case kindType:
		w.shared(&w.types[v.it.typ()])
	case kindString:
		w.raw(`"`)
		w.text(v.it)
		w.raw(`"`)
	case kindBinary:
		w.binary(v.s)
	case kindDoc:
		w.raw("{")
		if !w.shown {
			w.key("guid")
			w.string(v.s)
		}
		w.raw("}")
	case kindAny:
		r := reader{src: v.s, depth: w.limits.Depth, trusted: true}
		w.any(&r)
	default:
		if v.undefined() {
			w.raw("null")
		} else {
			w.json(v.s)
		}
	}
}

// json copies JSON without white space.
func (w *writer) json(s string) {
	from := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			i = stringEnd(s, i)
		case ' ', '\t', '\r', '\n':
			w.raw(s[from:i])
			from = i + 1
		}
	}
	w.raw(s[from:])
}

func (w *writer) any(r *reader) {
	switch tag := r.byte(); tag {
	case tagTrue:
		w.raw("true")
	case tagFalse:
		w.raw("false")
	case tagInteger:
		w.dst = strconv.AppendInt(w.dst, r.int(), 10)
	case tagBigInt:
		bits := binary.BigEndian.Uint64([]byte(r.take(8)))
		w.dst = strconv.AppendInt(w.dst, int64(bits), 10) //nolint:gosec // the sign is in it
	case tagFloat32:
		w.float(float64(math.Float32frombits(binary.BigEndian.Uint32([]byte(r.take(4))))))
	case tagFloat64:
		w.float(math.Float64frombits(binary.BigEndian.Uint64([]byte(r.take(8)))))
	case tagString:
		w.string(r.text())
	case tagBinary:
		w.binary(r.take(r.uint()))
	case tagObject:
		w.raw("{")
		for n := r.count(2); n > 0 && !w.full(); n-- {
			key := r.text()
			if r.src[r.i] == tagUndefined {
				r.byte()
				continue
			}
			w.key(key)
			w.any(r)
		}
		w.raw("}")
	case tagArray:
		w.raw("[")
		for n := r.count(1); n > 0 && !w.full(); n-- {
			w.next()
			w.any(r)
		}
		w.raw("]")
	default: // null and undefined
		w.raw("null")
	}
}

// float writes a number as JavaScript does.
func (w *writer) float(f float64) {
	abs := math.Abs(f)
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		w.raw("null")
	case f == 0:
		w.raw("0")
	case abs >= 1e-6 && abs < 1e21:
		w.dst = strconv.AppendFloat(w.dst, f, 'f', -1, 64)
	default:
		s := strconv.FormatFloat(f, 'e', -1, 64)
		w.raw(strings.Replace(s, "e-0", "e-", 1)) // e+0 does not occur
	}
}

func (w *writer) binary(s string) {
	if len(s) > MaxBinary {
		w.lost.Binaries++
		w.raw("null")
		return
	}
	w.raw("{")
	for i := range len(s) {
		if w.full() {
			return
		}
		w.next()
		w.raw(`"`)
		w.dst = strconv.AppendInt(w.dst, int64(i), 10)
		w.raw(`":`)
		w.dst = strconv.AppendUint(w.dst, uint64(s[i]), 10)
	}
	w.raw("}")
}
