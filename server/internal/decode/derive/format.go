package derive

import (
	"strconv"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/tiptap"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// The versions of what is derived. They are stored with each document and are part
// of entity tags: one that changes has every document derived again, and every
// reader fetch its copy again.
const (
	// tiptapVersion changes whenever package tiptap would make other bytes of the
	// same document. It counts from 2 in StorageVersion: documents of version 1 had
	// no text.
	tiptapVersion = 2
	// StorageVersion is that of a Storage document, YdocVersion that of a Yjs document.
	StorageVersion = (tiptapVersion+1)*1000 + lson.Version
	YdocVersion    = yjs.Version
)

// Format is one way to represent a document.
type Format struct {
	// MediaType is the Content-Type of the representation.
	MediaType string
	// Tag tells the representations of one source apart. It holds the version of
	// the code that derives it.
	Tag string
	// Derive makes it from the source; nil if it is the source.
	Derive func(source []byte) ([]byte, error)
}

const (
	jsonType = "application/json"
	textType = "text/plain; charset=utf-8"
)

// The formats of a Storage document. Its source, plain-lson, is JSON with a
// convention, and Liveblocks' own API calls it JSON too.
var (
	StorageSource = Format{MediaType: jsonType, Tag: "lson"}
	StorageJSON   = Format{MediaType: jsonType, Tag: "json-" + strconv.Itoa(lson.Version), Derive: storageJSON}
	StorageText   = storageFormat(textType, "text", func(root rawjson.Value) []byte { return []byte(tiptap.Text(root)) })
	StorageEditor = storageFormat(jsonType, "editor", tiptap.Docs)
)

// The formats of a Yjs document.
var (
	YdocSource = Format{MediaType: "application/octet-stream", Tag: "binary"}
	YdocJSON   = ydocFormat(jsonType, "json", func(d *yjs.Doc) ([]byte, error) { return d.JSON(nil) })
	YdocText   = ydocFormat(textType, "text", func(d *yjs.Doc) ([]byte, error) { return []byte(d.Text()), nil })
	YdocEditor = ydocFormat(jsonType, "editor", func(d *yjs.Doc) ([]byte, error) { return d.Structure(nil) })
)

func storageJSON(source []byte) ([]byte, error) {
	content, _, err := lson.JSON(make([]byte, 0, len(source)), source)
	return content, err
}

func storageFormat(mediaType, name string, fromJSON func(rawjson.Value) []byte) Format {
	tag := name + "-" + strconv.Itoa(lson.Version) + "." + strconv.Itoa(tiptapVersion)
	return Format{mediaType, tag, func(source []byte) ([]byte, error) {
		content, err := storageJSON(source)
		if err != nil {
			return nil, err
		}
		return fromJSON(rawjson.Known(content)), nil
	}}
}

func ydocFormat(mediaType, name string, fromDoc func(*yjs.Doc) ([]byte, error)) Format {
	return Format{mediaType, name + "-" + strconv.Itoa(yjs.Version), func(source []byte) ([]byte, error) {
		d, err := yjs.Decode(source, yjs.Limits{})
		if err != nil {
			return nil, err
		}
		return fromDoc(d)
	}}
}
