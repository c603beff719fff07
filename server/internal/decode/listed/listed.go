// Package listed reads lists of resources as Liveblocks' REST API returns them.
package listed

import (
	"crypto/sha256"
	"errors"

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
	items := []mirror.Listed{}
	at := map[string]int{}
	var canonical []byte
	for element := range data.Elements() {
		id := element.Get("id").ID(mirror.MaxResourceID)
		if id == "" {
			continue
		}
		canonical = element.AppendCanonical(canonical[:0])
		item := mirror.Listed{ID: id, SHA256: sha256.Sum256(canonical), Source: element}
		if i, ok := at[id]; ok {
			items[i] = item
			continue
		}
		at[id] = len(items)
		items = append(items, item)
	}
	return items, nil
}
