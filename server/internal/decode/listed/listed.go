// Package listed reads lists of resources as Liveblocks' REST API returns them.
package listed

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The errors of Parse, in addition to [rawjson.ErrSyntax].
var (
	// ErrList means that a response has no list, which is not the same as an empty
	// list.
	ErrList = errors.New("not a list")
	// ErrDepth means that the response is nested deeper than [MaxDepth].
	ErrDepth = errors.New("nested too deeply")
)

// MaxDepth is the maximum nesting of a listed resource; the list itself adds two
// levels. A thread with a link in a comment has 8 levels. The cost of reading grows
// with depth times length.
const MaxDepth = 50

// ErrElement means that one element exceeds the size limit.
var ErrElement = errors.New("an element of the list exceeds the size limit")

// Parse reads a response of the form {"data":[…]}. It leaves out elements without an
// id that can be stored, and keeps the last of those with the same id. The result
// shares memory with raw.
func Parse(raw []byte) ([]mirror.Listed, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	if v.Depth() > MaxDepth+2 {
		return nil, ErrDepth
	}
	data := v.Get("data")
	if !data.IsArray() {
		return nil, ErrList
	}
	l := newList()
	for element := range data.Elements() {
		l.add(element)
	}
	return l.items, nil
}

// Read reads a response like [Parse] while it arrives, however long it is. It keeps
// the sources of the first elements, up to keep bytes; of the others it keeps the
// hash. No element may be longer than keep. An error of r is returned as it is.
func Read(r io.Reader, keep int64) ([]mirror.Listed, error) {
	in := &bounded{r: r, limit: keep}
	d := json.NewDecoder(in)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, in.problem(err, ErrList)
	}
	var l *list
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, in.problem(err, rawjson.ErrSyntax)
		}
		if name != "data" {
			err = d.Decode(new(json.RawMessage))
		} else {
			l = newList()
			err = l.read(d, in, keep)
		}
		if err != nil {
			return nil, in.problem(err, rawjson.ErrSyntax)
		}
		in.taken = 0
	}
	if _, err := d.Token(); err != nil {
		return nil, in.problem(err, rawjson.ErrSyntax)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, in.problem(err, rawjson.ErrSyntax)
	}
	if l == nil {
		return nil, ErrList
	}
	return l.items, nil
}

// bounded is a reader that fails if one element takes too much of it.
type bounded struct {
	r            io.Reader
	limit, taken int64
	err          error // of r
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.taken > b.limit {
		b.err = ErrElement
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.taken += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// problem returns the error of the reader, or else that of what was read.
func (b *bounded) problem(err, otherwise error) error {
	switch {
	case b.err != nil:
		return b.err
	case errors.Is(err, ErrDepth), errors.Is(err, ErrList), errors.Is(err, rawjson.ErrSyntax):
		return err
	default:
		return otherwise
	}
}

// list collects the elements of a list.
type list struct {
	items     []mirror.Listed
	at        map[string]int
	canonical []byte
}

func newList() *list { return &list{items: []mirror.Listed{}, at: make(map[string]int)} }

func (l *list) read(d *json.Decoder, in *bounded, keep int64) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return ErrList
	}
	for d.More() {
		var raw json.RawMessage // of its own, to be let go of alone
		if err := d.Decode(&raw); err != nil {
			return err
		}
		in.taken = 0
		v, err := rawjson.Parse(raw)
		if err != nil {
			return err
		}
		if v.Depth() > MaxDepth {
			return ErrDepth
		}
		l.add(v)
		if keep -= int64(len(raw)); keep < 0 && len(l.items) > 0 {
			l.items[len(l.items)-1].Source = nil
		}
	}
	_, err := d.Token()
	return err
}

func (l *list) add(element rawjson.Value) {
	id := element.Get("id").ID(mirror.MaxResourceID)
	if id == "" {
		return
	}
	l.canonical = element.AppendCanonical(l.canonical[:0])
	item := mirror.Listed{ID: id, SHA256: sha256.Sum256(l.canonical), Source: element}
	if i, ok := l.at[id]; ok {
		l.items[i] = item
		return
	}
	l.at[id] = len(l.items)
	l.items = append(l.items, item)
}
