package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// emptyYdoc is a document without content: that of every guid that has none.
	emptyYdoc = "\x00\x00"
	// rootGUID is Liveblocks' guid of the room's own document.
	rootGUID = "root"
)

// ydocBinary answers with a Yjs document, byte for byte.
func (h *Handler) ydocBinary(w http.ResponseWriter, r *request) error {
	if r.params.Get("encoder") == "v2" {
		return notMirrored(r.Request)
	}
	req := ydocRequest(r)
	if validGUID(req.GetGuid()) {
		if err := h.sendDocument(w, r, req); !absentHere(err) {
			return err
		}
	}
	a, err := h.emptyYdoc(r)
	if err != nil {
		return err
	}
	return h.send(w, r, a, derive.YdocSource.MediaType, [][]byte{[]byte(emptyYdoc)})
}

func ydocRequest(r *request) *mirrorv1.ReadDocumentRequest {
	guid := r.params.Get("guid")
	if guid == rootGUID {
		guid = ""
	}
	return &mirrorv1.ReadDocumentRequest{
		ProjectId: r.project, RoomId: r.ids[0], Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC,
		Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY, Guid: guid,
	}
}

// validGUID reports whether a subdocument may have the guid.
func validGUID(guid string) bool {
	return guid == "" || mirror.ValidID(guid, mirror.MaxResourceID)
}

// emptyYdoc returns the age of the room if a document that is not mirrored is one without
// content: Liveblocks has one for every guid. It is not if a document of the room names
// it or may do so now.
func (h *Handler) emptyYdoc(r *request) (a age, err error) {
	const what = "this Yjs document"
	req := ydocRequest(r)
	guid, of := req.GetGuid(), mirror.Resource{Room: mirror.RoomID(r.ids[0]), Kind: mirror.KindYdoc}
	req.Guid = ""
	named := false
	err = errNoDocument
	if guid != "" {
		named, a, err = h.names(r, req, guid)
	}
	if absentHere(err) || errors.Is(err, errNoDocument) {
		if _, err := h.getRoom(r, r.ids[0]); err != nil {
			return a, err
		}
		return a, h.unfetched(r, of, "the room's Yjs document")
	}
	if err != nil {
		return a, err
	}
	stale, full, guids, err := h.staleYdocs(r)
	if err != nil {
		return a, err
	}
	if named { // its own fetch is requested by the one of the room's document that comes last
		root, known, err := h.state(r, of)
		if err != nil {
			return a, err
		}
		stale = stale || known && root.State != mirror.TaskDone && root.State != mirror.TaskFailed
	}
	known := false
	if of.ID = guid; validGUID(guid) {
		// What a document named when it was fetched first has a task, also inside another.
		var task mirror.Task
		if task, known, err = h.state(r, of); err != nil {
			return a, err
		}
		if known && task.State == mirror.TaskDone { // the room's documents do not name it any more
			return a, never(what)
		}
	}
	switch {
	case known:
		return a, h.unfetched(r, of, what)
	case a.stale, stale: // the newer version may name it
		return a, notYet(what)
	case named, full: // beyond what is mirrored
		return a, never(what)
	}
	for _, req.Guid = range guids { // a subdocument that is mirrored may have come to name it
		named, _, err := h.names(r, req, guid)
		switch {
		case absentHere(err): // it was deleted meanwhile
		case err != nil:
			return a, err
		case named:
			return a, never(what)
		}
	}
	return a, nil
}

// names reports whether a document names a subdocument, and its age.
func (h *Handler) names(r *request, req *mirrorv1.ReadDocumentRequest, guid string) (named bool, a age, err error) {
	held := h.long.begin()
	defer held.end()
	skip := func(of age, _ string) bool {
		a = of
		return false
	}
	err = h.decodeYdoc(r, req, held, skip, func(doc *yjs.Doc) error {
		named = slices.Contains(doc.Subdocuments(), guid)
		return nil
	})
	return named, a, err
}

// errNoDocument stands for what is known to be absent.
var errNoDocument = errors.New("no such document")

// staleYdocs reports whether a newer version of a Yjs document of the room is known, and
// whether there are so many of them that some may be left out. It returns the guids of its
// subdocuments.
func (h *Handler) staleYdocs(r *request) (stale, full bool, guids []string, err error) {
	for token := ""; ; {
		got, err := h.mirror.ListDocuments(r.ctx, &mirrorv1.ListDocumentsRequest{
			ProjectId: r.project, RoomIdPrefix: r.ids[0], Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC,
			PageSize: pageSize, PageToken: token,
		})
		if err != nil {
			return false, false, nil, err
		}
		for _, d := range got.GetDocuments() {
			if d.GetRoomId() != r.ids[0] { // the room comes before those whose ids begin with its id
				return stale, len(guids) >= mirror.MaxSubdocuments, guids, nil
			}
			if d.GetGuid() != "" {
				guids = append(guids, d.GetGuid())
			}
			stale = stale || d.GetFreshness().GetStale()
		}
		if token = got.GetNextPageToken(); token == "" {
			return stale, len(guids) >= mirror.MaxSubdocuments, guids, nil
		}
	}
}

// decodeYdoc decodes a Yjs document, for as long as use runs. Once it is known which document
// it is, by its age and the hash of its source, skip is asked whether the caller has it
// already, and nothing more is done if so. Its memory is reserved in held before it is read,
// and skip is asked again about what was read, which may be newer.
func (h *Handler) decodeYdoc(r *request, req *mirrorv1.ReadDocumentRequest, held *held,
	skip func(a age, source string) bool, use func(*yjs.Doc) error,
) error {
	head, err := h.mirror.GetYjsDocument(r.ctx, &mirrorv1.GetYjsDocumentRequest{
		ProjectId: req.GetProjectId(), RoomId: req.GetRoomId(), Guid: req.GetGuid(),
		View: mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC,
	})
	if err != nil {
		return err
	}
	if f := head.GetDocument().GetFreshness(); skip(ageOf(f), f.GetContentSha256()) {
		return nil
	}
	if err := held.grow(r.ctx, ydocShare*head.GetDocument().GetSourceSize()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	stream, err := h.mirror.ReadDocument(ctx, req)
	if err != nil {
		return err
	}
	chunk, err := stream.Recv()
	if err != nil {
		return err
	}
	meta, err := stream.Header()
	if err != nil {
		return err
	}
	one := only(meta)
	length, err := strconv.Atoi(one("mirror-content-length"))
	if err != nil {
		return fmt.Errorf("length of a document: %w", err)
	}
	if skip(ageOfDocument(one), one("mirror-etag")) {
		return nil
	}
	room := int(max(freeAnswer, held.bytes))
	if ydocShare*length > room {
		return notYet("a document that changes at this moment")
	}
	update := bytes.NewBuffer(make([]byte, 0, length))
	for ; err == nil; chunk, err = stream.Recv() {
		update.Write(chunk.GetData())
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	work, end := h.cfg.Decoding.Begin(ctx)
	defer end()
	if memory.ForDecoding(work, derive.YdocWeight*int64(length)) != nil {
		return ended()
	}
	doc, err := yjs.Decode(update.Bytes(), yjs.Limits{Output: room - length})
	if err != nil {
		return unreadable()
	}
	return use(doc)
}

// ydocShare is how often the source has room in what is reserved for its answer.
const ydocShare = 2

// ydocTypes are the types that a root can be read as.
var ydocTypes = map[string]yjs.Type{
	"ymap": yjs.Map, "ytext": yjs.Text, "yxmltext": yjs.XMLText, "yxmlfragment": yjs.XMLFragment, "yarray": yjs.Array,
}

// ydoc answers with a Yjs document as Liveblocks writes it.
func (h *Handler) ydoc(w http.ResponseWriter, r *request) error {
	as := yjs.Rendering{Type: ydocTypes[r.params.Get("type")], Formatting: r.params.Has("formatting")}
	if key := r.params.Get("key"); key != "" {
		as.Key = &key
	}
	req := ydocRequest(r)
	if validGUID(req.GetGuid()) {
		if err := h.mirroredYdoc(w, r, req, as); !absentHere(err) {
			return err
		}
	}
	a, err := h.emptyYdoc(r)
	if err != nil {
		return err
	}
	empty, err := yjs.Decode([]byte(emptyYdoc), yjs.Limits{})
	if err != nil {
		return err
	}
	body, err := empty.Render(r.ctx, nil, as)
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, a, body)
}

// mirroredYdoc answers with the rendering of a mirrored document. Its tag is of the source,
// the rendering and the code, so that nothing is decoded for who has it already.
func (h *Handler) mirroredYdoc(w http.ResponseWriter, r *request, req *mirrorv1.ReadDocumentRequest,
	as yjs.Rendering,
) error {
	held := h.long.begin()
	defer held.end()
	done := false
	skip := func(a age, source string) bool {
		form := fmt.Sprintf("%d %d %t", yjs.Version, as.Type, as.Formatting)
		if as.Key != nil {
			form += " " + *as.Key
		}
		sum := sha256.Sum256([]byte(form))
		// A tag of the document begins with half of the hash.
		source = strings.TrimPrefix(source, `"`)
		tag := `"` + source[:min(len(source), sha256.Size)] + "-" + hex.EncodeToString(sum[:8]) + `"`
		done = h.unmodified(w, r, a, tag)
		return done
	}
	for {
		var body []byte
		err := h.decodeYdoc(r, req, held, skip, func(doc *yjs.Doc) (err error) {
			body, err = doc.Render(r.ctx, nil, as)
			return err
		})
		var limit *yjs.LimitError
		switch {
		case r.ctx.Err() != nil:
			return ended()
		case errors.As(err, &limit) && held.bytes > 0:
			return tooLong(h.long.most)
		case errors.As(err, &limit): // it is longer than small answers are
			if err := held.grow(r.ctx, freeAnswer+1); err != nil {
				return err
			}
			continue
		case err != nil || done:
			return err
		}
		held.shrink(int64(len(body)))
		header := w.Header()
		header.Set("Content-Type", jsonType)
		header.Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body) // a failed write: the reader is gone
		return nil
	}
}
