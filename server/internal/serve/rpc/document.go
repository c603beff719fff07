package rpc

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/tiptap"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// timeFormat spells times in metadata, to the microsecond as they are stored.
const timeFormat = time.RFC3339Nano

// form is one way to represent a document.
type form struct {
	mediaType string
	// tag tells the representations of one source apart. It has the version of
	// the code that derives it: other code may make other bytes.
	tag string
	// derive makes it from the source; nil if it is the source.
	derive func(source []byte) ([]byte, error)
}

// forms are the formats each kind of document can be had in. plain-lson is JSON
// with a convention, and Liveblocks' own API calls it JSON too.
var forms = map[mirror.Kind]map[mirrorv1.DocumentFormat]form{
	mirror.KindStorage: {
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON: {"application/json", "json-" + strconv.Itoa(lson.Version),
			storageJSON},
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON: {"application/json", "lson", nil},
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT: {"text/plain; charset=utf-8", tiptapTag("text"),
			fromStorage(func(json []byte) ([]byte, error) {
				return []byte(tiptap.Text(json)), nil
			})},
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR: {"application/json", tiptapTag("editor"), fromStorage(tiptap.Docs)},
	},
	mirror.KindYdoc: {
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON: {"application/json", yjsTag("json"),
			fromYdoc(func(d *yjs.Doc) ([]byte, error) {
				return d.JSON(nil)
			})},
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY: {"application/octet-stream", "binary", nil},
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT: {"text/plain; charset=utf-8", yjsTag("text"),
			fromYdoc(func(d *yjs.Doc) ([]byte, error) {
				return []byte(d.Text()), nil
			})},
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR: {"application/json", yjsTag("editor"),
			fromYdoc(func(d *yjs.Doc) ([]byte, error) {
				return d.Structure(nil)
			})},
	},
}

// tiptapVersion changes whenever package tiptap would make other bytes of the same
// document.
const tiptapVersion = 1

func tiptapTag(name string) string {
	return name + "-" + strconv.Itoa(lson.Version) + "." + strconv.Itoa(tiptapVersion)
}

func storageJSON(source []byte) ([]byte, error) {
	content, _, err := lson.JSON(make([]byte, 0, len(source)), source)
	return content, err
}

func fromStorage(derive func(json []byte) ([]byte, error)) func([]byte) ([]byte, error) {
	return func(source []byte) ([]byte, error) {
		content, err := storageJSON(source)
		if err != nil {
			return nil, err
		}
		return derive(content)
	}
}

func yjsTag(name string) string { return name + "-" + strconv.Itoa(yjs.Version) }

func fromYdoc(derive func(*yjs.Doc) ([]byte, error)) func([]byte) ([]byte, error) {
	return func(source []byte) ([]byte, error) {
		d, err := yjs.Decode(source, yjs.Limits{})
		if err != nil {
			return nil, err
		}
		return derive(d)
	}
}

// formOf returns how the format asked for, or the default, represents documents
// of the kind.
func formOf(kind mirror.Kind, format mirrorv1.DocumentFormat) (mirrorv1.DocumentFormat, form, error) {
	if format == mirrorv1.DocumentFormat_DOCUMENT_FORMAT_UNSPECIFIED {
		format = mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON
	}
	f, ok := forms[kind][format]
	if !ok {
		bad := fault.New(fault.Invalid, fault.ReasonRequestInvalid,
			"a "+kind.String()+" document cannot be had in this format")
		bad.Fields = []fault.Field{{Path: "format", Problem: "is not a format of this kind of document"}}
		return format, form{}, bad
	}
	return format, f, nil
}

// etag returns a strong entity tag: the same source in the same format, derived
// by the same code, is the same bytes. Half of the hash is enough to tell the
// versions of one document apart.
func (f form) etag(doc *mirror.Document) string {
	return `"` + hex.EncodeToString(doc.SHA256[:16]) + "-" + f.tag + `"`
}

// matches reports whether If-None-Match names the tag. Its comparison is the
// weak one: a proxy that compressed the body may have weakened the tag.
func matches(ifNoneMatch []string, tag string) bool {
	for _, line := range ifNoneMatch {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.Trim(part, " \t")
			if part == "*" || strings.TrimPrefix(part, "W/") == tag {
				return true
			}
		}
	}
	return false
}
