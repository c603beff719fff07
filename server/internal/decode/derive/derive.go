// Package derive computes the queryable columns of a fetched document. Reconciling
// writes them, and verifying compares them with a fresh computation.
package derive

import (
	"fmt"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/tiptap"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The memory that a document takes while it is derived and written, in bytes for each
// byte of its source.
const (
	// StorageWeight counts the source, its JSON, the compressed source, and what is sent to
	// the database twice, because it is gathered there.
	StorageWeight = 4
	// YdocWeight is mostly for the operations: documents of many short ones take 14 bytes
	// at a time, and leave others behind.
	YdocWeight = 24
)

// JSON converts plain-lson or JSON to queryable JSON, or returns why it cannot be
// stored.
func JSON(content []byte) (data []byte, problem string) {
	data, properties, err := lson.JSON(make([]byte, 0, len(content)), content)
	if err != nil {
		return nil, err.Error()
	}
	return queryable(data, properties)
}

// queryable returns data, or why SQL databases refuse it.
func queryable(data []byte, properties lson.Properties) ([]byte, string) {
	switch {
	case properties.HasNUL:
		return nil, rawjson.ProblemNUL
	case properties.HasLoneSurrogate:
		return nil, rawjson.ProblemSurrogate
	default:
		return data, ""
	}
}

// Storage derives the columns of a Storage document. It leaves out Data of more
// than maxData bytes.
func Storage(content []byte, maxData int) mirror.DocumentContent {
	doc := mirror.DocumentContent{Content: content, DeriveVersion: StorageVersion}
	if len(content) > maxData { // the JSON is never longer than the source
		switch size, properties, err := lson.Size(content); {
		case err != nil:
			doc.DataProblem = err.Error()
			return doc
		case size > maxData:
			doc.Text = textOf(content)
			if _, doc.DataProblem = queryable(nil, properties); doc.DataProblem == "" {
				doc.DataProblem = tooLong(size, maxData)
			}
			return doc
		}
	}
	data, properties, err := lson.JSON(make([]byte, 0, len(content)), content)
	if err != nil {
		doc.DataProblem = err.Error()
		return doc
	}
	doc.Text = tiptap.Text(rawjson.Known(data))
	doc.Data, doc.DataProblem = queryable(data, properties)
	return doc
}

// textOf returns the text of a Storage document of which no JSON is built, but for that
// of the editor's documents.
func textOf(content []byte) string {
	json, _, err := lson.JSON(nil, tiptap.Part(content))
	if err != nil {
		return ""
	}
	return tiptap.Text(rawjson.Known(json))
}

// Ydoc derives the columns of a Yjs document, as [Storage] does, and returns the
// guids of its subdocuments. DataProblem also says what a document with Data lacks.
func Ydoc(content []byte, maxData int) (doc mirror.DocumentContent, inside []string) {
	doc = mirror.DocumentContent{Content: content, DeriveVersion: YdocVersion}
	decoded, err := yjs.Decode(content, yjs.Limits{})
	var notes []string
	if err == nil {
		inside = decoded.Subdocuments()
		doc.Text = decoded.Text()
		var q yjs.Queryable
		q, err = decoded.Queryable(maxData)
		notes = notesOf(decoded, q.Lost)
		doc.Data, doc.StateSHA256 = q.JSON, q.StateSHA256
		if q.Size > maxData {
			doc.DataProblem = tooLong(q.Size, maxData)
		}
	}
	switch {
	case err != nil:
		doc.DataProblem = err.Error()
	case rawjson.Value(doc.Data).HasNUL():
		doc.Data, doc.DataProblem = nil, rawjson.ProblemNUL
	}
	if doc.DataProblem != "" {
		notes = append([]string{doc.DataProblem}, notes...)
	}
	doc.DataProblem = strings.Join(notes, "; ")
	return doc, inside
}

// notesOf returns what the columns of a document do not show.
func notesOf(d *yjs.Doc, lost yjs.Losses) (notes []string) {
	const shown = 3
	waiting := d.Waiting()
	for _, w := range waiting[:min(shown, len(waiting))] {
		notes = append(notes, fmt.Sprintf("operations of client %d from clock %d wait for others that are missing",
			w.Client, w.Clock))
	}
	for _, more := range []struct {
		n    int
		what string
	}{
		{len(waiting) - shown, "more clients have operations that wait"},
		{lost.Binaries, fmt.Sprintf("binary values of more than %d bytes are null", yjs.MaxBinary)},
		{lost.Links, "weak links are null"},
		{lost.Types, "shared types of no known kind are null"},
		{d.Foreign(), "rich texts are of no known editor and have no editor form"},
	} {
		if more.n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", more.n, more.what))
		}
	}
	return notes
}

// tooLong is the problem of a document of so many bytes of JSON.
func tooLong(size, maxData int) string {
	return fmt.Sprintf("the document has %d bytes of JSON; kept as data are at most %d", size, maxData)
}
