package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rest/query"
)

// pageSize is how many rows a list reads at a time: the most that there may be.
const pageSize = 500

// room answers with a room, byte for byte.
func (h *Handler) room(w http.ResponseWriter, r *request) error {
	room, err := h.getRoom(r, r.ids[0])
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, ageOf(room.GetFreshness()), room.GetSourceJson())
}

func ageOf(f *mirrorv1.Freshness) (a age) {
	a.of(f)
	return a
}

func (h *Handler) getRoom(r *request, id string) (*mirrorv1.Room, error) {
	got, err := h.mirror.GetRoom(r.ctx, &mirrorv1.GetRoomRequest{ProjectId: r.project, RoomId: id})
	if err != nil {
		if absentHere(err) {
			return nil, roomMissing(id)
		}
		return nil, err
	}
	return got.GetRoom(), nil
}

// absent returns what is missing: the room, or what was looked for in it.
func (h *Handler) absent(r *request, room string, otherwise *problem) error {
	if _, err := h.getRoom(r, room); err != nil {
		return err
	}
	return otherwise
}

// existingRoom answers getOrCreateRoom if the room exists. Nothing else creates rooms here. If
// it fails, the body can be read again.
func (h *Handler) existingRoom(w http.ResponseWriter, r *request) error {
	refused := readOnly(r.Request, []string{http.MethodGet})
	if !r.params.Has("idempotent") {
		return refused
	}
	body, err := h.ahead(r, http.MaxBytesReader(w, r.Body, maxNaming), maxNaming)
	switch _, tooLong := errors.AsType[*http.MaxBytesError](err); {
	case tooLong:
		return bodyTooLong()
	case errors.Is(err, errNoMemory):
		return busy()
	case err != nil:
		return bodyBroken()
	}
	r.Body, r.ContentLength, r.arrived = io.NopCloser(bytes.NewReader(body)), int64(len(body)), true
	id := member(body, "id")
	if id == "" {
		return refused
	}
	room, err := h.getRoom(r, id)
	if p, ok := err.(*problem); ok && p.status == http.StatusNotFound { //nolint:errorlint // it is never wrapped
		return refused
	}
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, ageOf(room.GetFreshness()), room.GetSourceJson())
}

// prewarm does nothing, because there is nothing to warm.
func (h *Handler) prewarm(w http.ResponseWriter, r *request) error {
	room, err := h.getRoom(r, r.ids[0])
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, ageOf(room.GetFreshness()), []byte(`{}`))
}

// activeUsers answers with who is in a room. Clients need both members of users without an
// id, too.
func (h *Handler) activeUsers(w http.ResponseWriter, r *request) error {
	type user struct {
		Type         string          `json:"type"`
		ConnectionID int64           `json:"connectionId"`
		ID           *string         `json:"id"`
		Info         json.RawMessage `json:"info"`
	}
	list := struct {
		Data []user `json:"data"`
	}{[]user{}}
	var a age
	for token := ""; ; {
		got, err := h.mirror.ListActiveUsers(r.ctx, &mirrorv1.ListActiveUsersRequest{
			ProjectId: r.project, RoomId: r.ids[0], PageSize: pageSize, PageToken: token,
		})
		if absentHere(err) {
			return roomMissing(r.ids[0])
		}
		if err != nil {
			return err
		}
		if got.GetFreshness().GetFetchTime() == nil {
			if a, err = h.neverEntered(r); err != nil {
				return err
			}
			break
		}
		a.of(got.GetFreshness())
		for _, u := range got.GetActiveUsers() {
			one := user{Type: "user", ConnectionID: u.GetConnectionId(), Info: json.RawMessage(`{}`)}
			if id := u.GetUserId(); id != "" {
				one.ID = &id
			}
			if info := u.GetInfoJson(); len(info) > 0 && json.Valid(info) {
				one.Info = info
			}
			list.Data = append(list.Data, one)
		}
		if token = got.GetNextPageToken(); token == "" {
			break
		}
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(list); err != nil {
		return err
	}
	return h.sendJSON(w, r, a, bytes.TrimSuffix(body.Bytes(), []byte("\n")))
}

// neverEntered returns the age of a room that nobody has entered, as far as events tell.
// Whoever is in another room has to be fetched.
func (h *Handler) neverEntered(r *request) (a age, err error) {
	room, err := h.getRoom(r, r.ids[0])
	if err != nil {
		return a, err
	}
	of := mirror.Resource{Room: mirror.RoomID(r.ids[0]), Kind: mirror.KindActiveUsers}
	if _, known, err := h.state(r, of); err != nil {
		return a, err
	} else if known {
		return a, h.unfetched(r, of, "who is in the room")
	}
	return ageOf(room.GetFreshness()), nil
}

// storage answers with a Storage document. Liveblocks takes every other format for the
// default.
func (h *Handler) storage(w http.ResponseWriter, r *request) error {
	req := &mirrorv1.ReadDocumentRequest{
		ProjectId: r.project, RoomId: r.ids[0], Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE,
		Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON,
	}
	if r.params.Get("format") == "json" {
		req.Format = mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON
	}
	err := h.sendDocument(w, r, req)
	if !absentHere(err) {
		return err
	}
	if _, err := h.getRoom(r, r.ids[0]); err != nil {
		return err
	}
	return h.unfetched(r, mirror.Resource{Room: mirror.RoomID(r.ids[0]), Kind: mirror.KindStorage}, "the Storage document")
}

// sendDocument answers with a document. It fails before anything is sent.
func (h *Handler) sendDocument(w http.ResponseWriter, r *request, req *mirrorv1.ReadDocumentRequest) error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	if tags := strings.Join(r.Header["If-None-Match"], ", "); tags != "" { // several lines are one list
		ctx = metadata.AppendToOutgoingContext(ctx, "if-none-match", ascii(tags))
	}
	stream, err := h.mirror.ReadDocument(ctx, req)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	meta, herr := stream.Header()
	if herr != nil {
		return herr
	}
	one := only(meta)
	h.head(w, r.project, ageOfDocument(one))
	w.Header().Set("ETag", one("mirror-etag"))
	if err != nil { // there is no chunk
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", first.GetContentType())
	w.Header().Set("Content-Length", one("mirror-content-length"))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		h.sendChunks(w, first, stream)
	}
	return nil
}

// sendChunks sends what follows the header. What is too short is broken off by the server,
// which knows the length.
func (h *Handler) sendChunks(w io.Writer, chunk *httpbody.HttpBody,
	stream grpc.ServerStreamingClient[httpbody.HttpBody],
) {
	for {
		if _, err := w.Write(chunk.GetData()); err != nil {
			return
		}
		var err error
		if chunk, err = stream.Recv(); err != nil {
			return
		}
	}
}

// only returns values of metadata that occur once.
func only(meta metadata.MD) func(key string) string {
	return func(key string) string {
		if v := meta.Get(key); len(v) == 1 {
			return v[0]
		}
		return ""
	}
}

// ageOfDocument reads the metadata of a document.
func ageOfDocument(one func(key string) string) (a age) {
	a.fetched, _ = time.Parse(time.RFC3339Nano, one("mirror-fetch-time"))
	a.revision, _ = strconv.ParseInt(one("mirror-revision"), 10, 64)
	a.stale = one("mirror-stale") == "1"
	return a
}

// thread answers with a thread, byte for byte. Deleted comments are in it.
func (h *Handler) thread(w http.ResponseWriter, r *request) error {
	t, err := h.getThread(r, mirrorv1.ThreadView_THREAD_VIEW_SOURCE)
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, ageOf(t.GetFreshness()), t.GetSourceJson())
}

func (h *Handler) getThread(r *request, view mirrorv1.ThreadView) (*mirrorv1.Thread, error) {
	got, err := h.mirror.GetThread(r.ctx, &mirrorv1.GetThreadRequest{
		ProjectId: r.project, RoomId: r.ids[0], ThreadId: r.ids[1], View: view,
	})
	if err != nil {
		if absentHere(err) {
			return nil, h.absent(r, r.ids[0], resourceMissing("Thread"))
		}
		return nil, err
	}
	return got.GetThread(), nil
}

// participants answers with who has written in a thread, and who is mentioned there.
func (h *Handler) participants(w http.ResponseWriter, r *request) error {
	t, err := h.getThread(r, mirrorv1.ThreadView_THREAD_VIEW_FULL)
	if err != nil {
		return err
	}
	list := struct {
		IDs []string `json:"participantIds"`
	}{[]string{}}
	add := func(id string) {
		if id != "" && !slices.Contains(list.IDs, id) {
			list.IDs = append(list.IDs, id)
		}
	}
	for _, c := range t.GetComments() {
		if c.GetDeleteTime() != nil {
			continue
		}
		add(c.GetUserId())
		for _, m := range c.GetMentions() {
			if m.GetKind() == mirrorv1.MentionKind_MENTION_KIND_USER {
				add(m.GetMentionedId())
			}
		}
	}
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, ageOf(t.GetFreshness()), body)
}

// comment answers with a comment, byte for byte, also with what is left of a deleted one
// while its thread exists.
func (h *Handler) comment(w http.ResponseWriter, r *request) error {
	got, err := h.mirror.GetComment(r.ctx, &mirrorv1.GetCommentRequest{
		ProjectId: r.project, RoomId: r.ids[0], ThreadId: r.ids[1], CommentId: r.ids[2], ShowDeleted: true,
	})
	c := got.GetComment()
	if absentHere(err) || err == nil && c.GetFreshness().GetDeleteTime() != nil {
		return h.absent(r, r.ids[0], resourceMissing("Comment"))
	}
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, ageOf(c.GetFreshness()), c.GetSourceJson())
}

// threads answers with the threads of a room, oldest first, each byte for byte. There are
// no pages.
func (h *Handler) threads(w http.ResponseWriter, r *request) error {
	var wanted query.Query
	if text := r.params.Get("query"); text != "" {
		var err error
		if wanted, err = query.Threads.Parse(text); err != nil {
			return queryInvalid(err)
		}
	}
	room, err := h.getRoom(r, r.ids[0])
	if err != nil {
		return err
	}
	const what = "the room's threads"
	of := mirror.Resource{Room: mirror.RoomID(r.ids[0]), Kind: mirror.KindThread}
	a, err := h.ageOfList(r, of, what)
	if err != nil {
		return err
	}
	if a.stale && a.fetched.Before(room.GetCreateTime().AsTime()) { // in a room of that id that was deleted
		return h.unfetched(r, of, what)
	}
	// What was announced before the list is read and is not in it makes it stale.
	lacks, err := h.cfg.Unfetched(r.ctx, h.of(r, of))
	if err != nil {
		return err
	}
	a.stale = a.stale || lacks
	held := h.long.begin()
	defer held.end()
	list, size, err := h.listThreads(r, wanted, held)
	if errors.Is(err, errLong) {
		list = nil
		if err = held.grow(r.ctx, freeAnswer+1); err == nil {
			list, size, err = h.listThreads(r, wanted, held)
		}
	}
	if err != nil {
		return err
	}
	held.shrink(size)
	slices.SortFunc(list.found, func(a, b foundThread) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id))
	})
	sources := make([][]byte, len(list.found))
	for i, t := range list.found {
		sources[i] = t.source
	}
	a.and(list.age)
	return h.sendJSON(w, r, a, listOf(`{"data":[`, sources, `]}`)...)
}

// foundThreads are the threads of a room that match a query, and the age of all.
type foundThreads struct {
	found []foundThread
	age   age
}

type foundThread struct {
	id      string
	created time.Time
	source  []byte
}

// listThreads reads the threads of a room that match a query, and returns their size. It
// fails with errLong if they take more than is held.
func (h *Handler) listThreads(r *request, wanted query.Query, held *held) (list *foundThreads, size int64, err error) {
	list = &foundThreads{}
	for token := ""; ; {
		got, err := h.mirror.ListThreads(r.ctx, &mirrorv1.ListThreadsRequest{
			ProjectId: r.project, RoomId: r.ids[0], View: mirrorv1.ThreadView_THREAD_VIEW_SOURCE,
			PageSize: pageSize, PageToken: token,
		})
		if err != nil {
			return nil, 0, err
		}
		for _, t := range got.GetThreads() {
			list.age.of(t.GetFreshness()) // of one that does not match, too: its newest version may
			if wanted.Match(valueIn(t)) {
				list.found = append(list.found, foundThread{t.GetThreadId(), t.GetCreateTime().AsTime(), t.GetSourceJson()})
				size += int64(len(t.GetSourceJson())) + perItem
			}
		}
		if err := held.fits(size); err != nil {
			return nil, 0, err
		}
		if token = got.GetNextPageToken(); token == "" {
			return list, size, nil
		}
	}
}

// ageOfList returns the age of a list, and fails if it has not been fetched even once. It
// has to be asked before the list is read.
func (h *Handler) ageOfList(r *request, list mirror.Resource, what string) (age, error) {
	task, known, err := h.state(r, list)
	if err != nil {
		return age{}, err
	}
	if !known || task.FetchTime.IsZero() {
		return age{}, h.unfetched(r, list, what)
	}
	return age{fetched: task.FetchTime, stale: task.State != mirror.TaskDone}, nil
}

// queryInvalid refuses a query, with the place of what is wrong.
func queryInvalid(err error) *problem {
	return &problem{status: http.StatusUnprocessableEntity, Code: "INVALID_QUERY", Message: err.Error()}
}

// valueIn returns the fields of a thread by which a query selects.
func valueIn(t *mirrorv1.Thread) func(field string, key *string) any {
	return func(field string, key *string) any {
		switch {
		case field == "resolved":
			return t.GetResolved()
		case field == "visibility":
			return t.GetVisibility()
		case key == nil:
			return nil
		}
		switch v := t.GetMetadata()[*key].GetValue().(type) {
		case *mirrorv1.MetadataValue_StringValue:
			return v.StringValue
		case *mirrorv1.MetadataValue_NumberValue:
			return v.NumberValue
		case *mirrorv1.MetadataValue_BoolValue:
			return v.BoolValue
		default:
			return nil
		}
	}
}

// listOf returns the parts of a list of JSON between a beginning and an end.
func listOf(begin string, items [][]byte, end string) [][]byte {
	parts := make([][]byte, 0, 2*len(items)+2)
	parts = append(parts, []byte(begin))
	for i, item := range items {
		if i > 0 {
			parts = append(parts, []byte(","))
		}
		parts = append(parts, item)
	}
	return append(parts, []byte(end))
}

// group answers with a group, byte for byte.
func (h *Handler) group(w http.ResponseWriter, r *request) error {
	got, err := h.mirror.GetGroup(r.ctx, &mirrorv1.GetGroupRequest{ProjectId: r.project, GroupId: r.ids[0]})
	if absentHere(err) {
		return resourceMissing("Group")
	}
	if err != nil {
		return err
	}
	return h.sendJSON(w, r, ageOf(got.GetGroup().GetFreshness()), got.GetGroup().GetSourceJson())
}

// groups answers with a page of all groups, by id.
func (h *Handler) groups(w http.ResponseWriter, r *request) error { return h.listGroups(w, r, "") }

// userGroups answers with a page of the groups of a user, by id.
func (h *Handler) userGroups(w http.ResponseWriter, r *request) error {
	return h.listGroups(w, r, r.ids[0])
}

// The size of a page of groups is limit, within what Liveblocks allows.
const (
	defaultLimit = 20
	maxLimit     = 100
)

func (h *Handler) listGroups(w http.ResponseWriter, r *request, user string) error {
	limit, err := strconv.Atoi(r.params.Get("limit"))
	if err != nil || limit <= 0 {
		limit = defaultLimit
	}
	// It is asked for before the list is read, but is only told to who may read the list.
	of := mirror.Resource{Kind: mirror.KindGroup}
	a, unfetched := h.ageOfList(r, of, "the groups")
	lacks, failed := h.cfg.Unfetched(r.ctx, h.of(r, of))
	a.stale = a.stale || lacks
	got, err := h.mirror.ListGroups(r.ctx, &mirrorv1.ListGroupsRequest{
		ProjectId: r.project, UserId: user, PageSize: int32(min(limit, maxLimit)),
		PageToken: r.params.Get("startingAfter"),
	})
	if len(user) > mirror.MaxUserID && absentHere(err) { // such a user is in no group
		got, err = &mirrorv1.ListGroupsResponse{}, nil
	}
	if err = cmp.Or(err, unfetched, failed); err != nil {
		return err
	}
	sources := make([][]byte, len(got.GetGroups()))
	for i, g := range got.GetGroups() {
		a.of(g.GetFreshness())
		sources[i] = g.GetSourceJson()
	}
	next := []byte("null")
	if token := got.GetNextPageToken(); token != "" {
		next, _ = json.Marshal(token) // of letters and digits
	}
	return h.sendJSON(w, r, a, listOf(`{"nextCursor":`+string(next)+`,"data":[`, sources, `]}`)...)
}
