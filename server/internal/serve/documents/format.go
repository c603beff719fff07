package documents

import (
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// formats are the formats of each kind of document.
var formats = map[mirror.Kind]map[mirrorv1.DocumentFormat]derive.Format{
	mirror.KindStorage: {
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON:       derive.StorageJSON,
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON: derive.StorageSource,
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT:       derive.StorageText,
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR:     derive.StorageEditor,
	},
	mirror.KindYdoc: {
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON:   derive.YdocJSON,
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY: derive.YdocSource,
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT:   derive.YdocText,
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR: derive.YdocEditor,
	},
}

// FormatOf returns the requested format, by default JSON, for documents of the
// kind.
func FormatOf(kind mirror.Kind, name mirrorv1.DocumentFormat) (mirrorv1.DocumentFormat, derive.Format, error) {
	if name == mirrorv1.DocumentFormat_DOCUMENT_FORMAT_UNSPECIFIED {
		name = mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON
	}
	f, ok := formats[kind][name]
	if !ok {
		bad := fault.New(fault.Invalid, fault.ReasonRequestInvalid,
			"a "+kind.String()+" document cannot be had in this format")
		bad.Fields = []fault.Field{{Path: "format", Problem: "is not a format of this kind of document"}}
		return name, f, bad
	}
	return name, f, nil
}
