package rpc

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// documentType is the media type of both formats: plain-lson is JSON with a
	// convention, and Liveblocks' own API calls it this too.
	documentType = "application/json"
	// timeFormat spells times in metadata, to the microsecond as they are stored.
	timeFormat = time.RFC3339Nano
)

// formatOf returns the format asked for, or the default.
func formatOf(format mirrorv1.DocumentFormat) mirrorv1.DocumentFormat {
	if format == mirrorv1.DocumentFormat_DOCUMENT_FORMAT_UNSPECIFIED {
		return mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON
	}
	return format
}

// etag returns a strong entity tag: the same source in the same format, derived
// by the same code, is the same bytes. Half of the hash is enough to tell the
// versions of one document apart.
func etag(doc *mirror.Document, format mirrorv1.DocumentFormat) string {
	source := hex.EncodeToString(doc.SHA256[:16])
	if format == mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON {
		return `"` + source + `-lson"`
	}
	return `"` + source + `-json-` + strconv.Itoa(lson.Version) + `"`
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
