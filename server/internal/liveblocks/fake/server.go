// Package fake is a fake of the Liveblocks REST API. It keeps rooms, documents,
// threads, active users and inbox notifications in memory, serves the endpoints and
// responses of the real API, and can be scripted to fail in every way. Tests and
// the demo use it, so it does not import package testing.
package fake

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

// Endpoint names one operation of the API.
type Endpoint string

// The endpoints.
const (
	EndpointListRooms  Endpoint = "list_rooms"
	EndpointCreateRoom Endpoint = "create_room"
	EndpointRoom       Endpoint = "room"
	EndpointDeleteRoom Endpoint = "delete_room"
	EndpointStorage    Endpoint = "storage"
	EndpointYdoc       Endpoint = "ydoc"
	EndpointThreads    Endpoint = "threads"
	EndpointThread     Endpoint = "thread"
	EndpointComment    Endpoint = "comment"
	// EndpointActiveUsers is active_users, under both of its names.
	EndpointActiveUsers Endpoint = "active_users"
	// EndpointInbox is one notification of a user's inbox, EndpointInboxes the list of all.
	EndpointInbox        Endpoint = "inbox_notification"
	EndpointInboxes      Endpoint = "inbox_notifications"
	EndpointUpdateRoomID Endpoint = "update_room_id"
	EndpointGroups       Endpoint = "groups"
	EndpointGroup        Endpoint = "group"
	// EndpointWrite is what changes threads, comments and groups.
	EndpointWrite Endpoint = "write"
	// EndpointUnknown is every path and method that the fake does not have.
	EndpointUnknown Endpoint = "unknown"
)

// Errors of the methods that change rooms.
var (
	ErrNoRoom     = errors.New("the room does not exist")
	ErrRoomExists = errors.New("the room exists already")
	// ErrNoThread is of a thread or comment.
	ErrNoThread = errors.New("the thread or comment does not exist")
	// ErrThreadExists is of a thread or comment.
	ErrThreadExists = errors.New("the thread or comment exists already")
)

// Generated ids end in a number. Tests use others.
const (
	threadPrefix  = "th_fake"
	commentPrefix = "cm_fake"
	inboxPrefix   = "in_fake"
)

// EmptyStorage is the Storage document of a new room.
const EmptyStorage = `{"liveblocksType":"LiveObject","data":{}}`

// EmptyYdoc is an empty Yjs document: that of a new room, and of every guid without
// content.
const EmptyYdoc = "\x00\x00"

// logLimit is how many calls the log holds before the older half is dropped.
const logLimit = 1 << 16

// Server is the fake. It is an [http.Handler] and safe for concurrent use.
type Server struct {
	mu      sync.Mutex
	secret  string
	now     func() time.Time
	rooms   map[string]*room // never shrinks: a deleted room has a past
	order   []*room          // the rooms that exist, oldest first
	nextSeq int
	nextID  int // of threads, comments and notifications
	flat    bool
	foreign bool
	inboxes shelf[inboxKey]
	groups  shelf[string]
	scripts []*script
	delay   func(Call) Delay
	limit   *rate.Limiter // nil: every call is served
	onEvent func(Event)
	counts  map[countKey]int
	log     []*Call
}

type room struct {
	id   string
	seq  int // order of creation, which is the order of listings
	opts RoomOptions
	body past // the room's JSON
	lson past // the Storage document
	ydoc map[string]*past
	// threads holds deleted ones too, for they have a past; live are those that exist,
	// oldest first, and list is what the API serves of them.
	threads map[string]*thread
	live    []*thread
	list    past
	// connections are who is there, users is what the API serves of them.
	connections []Connection
	users       past
}

// past is a resource now and before its last change; nil means not there. The
// bytes are never altered, only replaced.
type past struct{ now, before []byte }

func (p *past) set(b []byte) { p.before, p.now = p.now, b }

// answer is the version now or the one before; ok is false if there is none.
func (p *past) answer(stale bool) (ans answer, ok bool) {
	body := p.now
	if stale {
		body = p.before
	}
	return jsonAnswer(http.StatusOK, body), body != nil
}

// shelf holds what is in no room, by key. s.mu is held.
type shelf[K comparable] map[K]*past

// set replaces what is there byte for byte; nil deletes it.
func (s shelf[K]) set(key K, source []byte) {
	if s[key] == nil {
		s[key] = &past{}
	}
	s[key].set(slices.Clone(source))
}

func (s shelf[K]) get(key K) ([]byte, bool) {
	p := s[key]
	if p == nil || p.now == nil {
		return nil, false
	}
	return slices.Clone(p.now), true
}

// readShelf answers a read; what names it if it is not there.
func (s *Server) readShelf(p *past, stale bool, what string) answer {
	if p != nil && !s.foreign {
		if ans, ok := p.answer(stale); ok {
			return ans
		}
	}
	return errorAnswer(http.StatusNotFound, "RESOURCE_NOT_FOUND", what+" not found")
}

type countKey struct {
	room     string
	endpoint Endpoint
}

// Call is one request as the fake saw it.
type Call struct {
	Method   string
	Endpoint Endpoint
	// Room is the id in the path, decoded; empty if the path names none.
	Room string
	// Path is the path and query as they were sent.
	Path string
	// Begin and End are when the call arrived and when its answer was written.
	// End is zero while it is under way.
	Begin, End time.Time
	// Status is the status of the answer, zero if there was none.
	Status int
}

// RoomOptions are the fields of a room that a caller chooses.
type RoomOptions struct {
	// OrganizationID is "default" if empty.
	OrganizationID string
	Metadata       map[string]any
	// DefaultAccesses is ["room:write"] if nil.
	DefaultAccesses []string
	GroupsAccesses  map[string][]string
	UsersAccesses   map[string][]string
	// CreateTime is now if zero.
	CreateTime time.Time
	// LastConnectionTime is left out of the JSON if zero.
	LastConnectionTime time.Time
	// Storage is [EmptyStorage] if nil.
	Storage []byte
	// Ydoc is [EmptyYdoc] if nil: the room's own Yjs document.
	Ydoc []byte
}

// New returns a fake without rooms that accepts the given secret key.
func New(secret string) *Server {
	return &Server{
		secret: secret,
		now:    time.Now,
		rooms:  make(map[string]*room),
		counts: make(map[countKey]int),

		inboxes: make(shelf[inboxKey]),
		groups:  make(shelf[string]),
	}
}

// SetSecret changes the key that is accepted.
func (s *Server) SetSecret(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = secret
}

// SetRateLimit lets the fake answer 429, with a Retry-After of a second, to calls above
// a number per second and a burst. It uses the clock of package time.
func (s *Server) SetRateLimit(perSecond float64, burst int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = rate.NewLimiter(rate.Limit(perSecond), burst)
}

// SetClock changes the clock of creation times, events and the log.
func (s *Server) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// CreateRoom creates a room.
func (s *Server) CreateRoom(id string, opts RoomOptions) error {
	s.mu.Lock()
	r, err := s.create(id, opts)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.unlockAndTell(Event{Type: RoomCreated, RoomID: id, Time: r.opts.CreateTime})
	return nil
}

// SetStorage replaces a room's Storage document, given as plain-lson. The bytes
// are served as they are, valid or not.
func (s *Server) SetStorage(id string, lson []byte) error {
	s.mu.Lock()
	r, err := s.existing(id)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	r.lson.set(slices.Clone(lson))
	s.unlockAndTell(Event{Type: StorageUpdated, RoomID: id, Time: s.now()})
	return nil
}

// SetYdoc replaces a Yjs document of a room, given as an update in encoding
// version 1: the room's own, or with a guid one inside it.
func (s *Server) SetYdoc(id, guid string, update []byte) error {
	s.mu.Lock()
	r, err := s.existing(id)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	r.yjs(guid).set(slices.Clone(update))
	s.unlockAndTell(Event{Type: YdocUpdated, RoomID: id, Time: s.now()})
	return nil
}

// yjs is a Yjs document of a room that exists. s.mu is held.
func (r *room) yjs(guid string) *past {
	if r.ydoc[guid] == nil {
		r.ydoc[guid] = &past{[]byte(EmptyYdoc), []byte(EmptyYdoc)}
	}
	return r.ydoc[guid]
}

// SetRoomMetadata replaces a room's metadata. As with the real API, no event
// announces it.
func (s *Server) SetRoomMetadata(id string, metadata map[string]any) error {
	return s.alter(id, func(r *room) error {
		r.opts.Metadata = maps.Clone(metadata)
		return r.render()
	})
}

// SetLastConnection changes the time of the last connection to a room. No event
// announces it.
func (s *Server) SetLastConnection(id string, at time.Time) error {
	return s.alter(id, func(r *room) error {
		r.opts.LastConnectionTime = at
		return r.render()
	})
}

// SetRoomSource replaces a room's JSON byte for byte, for what
// [RoomOptions] cannot express. The next change of the room's fields undoes it.
func (s *Server) SetRoomSource(id string, source []byte) error {
	return s.alter(id, func(r *room) error {
		r.body.set(slices.Clone(source))
		return nil
	})
}

// RenameRoom gives a room another id, as update-room-id does: it stays the same
// room, with its creation time and content. No event announces it.
func (s *Server) RenameRoom(id, newID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.existing(id)
	if err != nil {
		return err
	}
	if _, err := s.existing(newID); err == nil {
		return fmt.Errorf("room %q: %w", newID, ErrRoomExists)
	}
	moved := *r
	moved.id = newID
	if err := moved.render(); err != nil {
		return err
	}
	moved.body.before = nil // under its new id it was not there
	for _, t := range moved.live {
		_ = moved.renderThread(t, s.flat) // it could be done before
	}
	moved.renderThreads()
	s.rooms[newID] = &moved
	i, _ := slices.BinarySearchFunc(s.order, r.seq, func(o *room, seq int) int { return o.seq - seq })
	s.order[i] = &moved
	// What the old id leaves behind shares nothing with the room.
	gone := &room{id: id, opts: r.opts, seq: r.seq, body: past{before: r.body.now}, lson: past{before: r.lson.now}}
	s.rooms[id] = gone
	return nil
}

// SetForeign makes the key belong to another project without rooms: listings are
// empty, and no room is found. The rooms are kept.
func (s *Server) SetForeign(foreign bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.foreign = foreign
}

// DeleteRoom deletes a room and everything in it.
func (s *Server) DeleteRoom(id string) error {
	s.mu.Lock()
	if err := s.remove(id); err != nil {
		s.mu.Unlock()
		return err
	}
	s.unlockAndTell(Event{Type: RoomDeleted, RoomID: id, Time: s.now()})
	return nil
}

// RecreateRoom deletes a room, if it exists, and creates it again at once: a
// new incarnation, with a later creation time, under the old id. To [Stale] it
// is one change: what was before is the earlier incarnation.
func (s *Server) RecreateRoom(id string, opts RoomOptions) error {
	s.mu.Lock()
	var events []Event
	var before room
	if old, err := s.existing(id); err == nil {
		before = *old
	}
	if s.remove(id) == nil {
		events = append(events, Event{Type: RoomDeleted, RoomID: id, Time: s.now()})
	}
	r, err := s.create(id, opts)
	if err == nil {
		r.body.before, r.lson.before = before.body.now, before.lson.now
		r.list.before, r.users.before = before.list.now, before.users.now
		for id, t := range before.threads {
			r.threads[id] = &thread{id: id, source: past{before: t.source.before}}
		}
		events = append(events, Event{Type: RoomCreated, RoomID: id, Time: r.opts.CreateTime})
	}
	s.unlockAndTell(events...)
	return err
}

// Rooms returns the ids of the rooms that exist, newest first, as a listing
// has them.
func (s *Server) Rooms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.order))
	for _, r := range slices.Backward(s.order) {
		ids = append(ids, r.id)
	}
	return ids
}

// RoomSource returns a room's JSON as the API serves it, and whether the room
// exists.
func (s *Server) RoomSource(id string) ([]byte, bool) {
	return s.look(id, func(r *room) []byte { return r.body.now })
}

// Storage returns a room's plain-lson as the API serves it, and whether the
// room exists.
func (s *Server) Storage(id string) ([]byte, bool) {
	return s.look(id, func(r *room) []byte { return r.lson.now })
}

// Ydoc returns a Yjs document as the API serves it, and whether its room exists.
func (s *Server) Ydoc(id, guid string) ([]byte, bool) {
	return s.look(id, func(r *room) []byte { return r.yjs(guid).now })
}

// Calls returns how many calls arrived for a room and an endpoint, refused and
// unfinished ones included. An empty room or endpoint means all of them.
func (s *Server) Calls(id string, endpoint Endpoint) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[countKey{id, endpoint}]
}

// Log returns the calls in the order of their delivery. It holds the last
// 32,768 calls at least.
func (s *Server) Log() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make([]Call, 0, len(s.log))
	for _, c := range s.log {
		calls = append(calls, *c)
	}
	return calls
}

func (s *Server) look(id string, part func(*room) []byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.existing(id)
	if err != nil {
		return nil, false
	}
	return slices.Clone(part(r)), true
}

func (s *Server) alter(id string, change func(*room) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.existing(id)
	if err != nil {
		return err
	}
	return change(r)
}

// existing returns a room that exists. s.mu is held.
func (s *Server) existing(id string) (*room, error) {
	r := s.rooms[id]
	if r == nil || r.body.now == nil {
		return nil, fmt.Errorf("room %q: %w", id, ErrNoRoom)
	}
	return r, nil
}

// create adds a room. s.mu is held.
func (s *Server) create(id string, opts RoomOptions) (*room, error) {
	if _, err := s.existing(id); err == nil {
		return nil, fmt.Errorf("room %q: %w", id, ErrRoomExists)
	}
	r := s.rooms[id]
	if r == nil {
		r = &room{id: id}
	}
	earlier := r.opts.CreateTime
	if opts.CreateTime.IsZero() {
		opts.CreateTime = s.now()
		// Liveblocks' times are in milliseconds; an incarnation is told from
		// the one before it by nothing else.
		if opts.CreateTime.Sub(earlier) < time.Millisecond {
			opts.CreateTime = earlier.Add(time.Millisecond)
		}
	}
	if opts.Storage == nil {
		opts.Storage = []byte(EmptyStorage)
	}
	if opts.Ydoc == nil {
		opts.Ydoc = []byte(EmptyYdoc)
	}
	if opts.OrganizationID == "" {
		opts.OrganizationID = "default"
	}
	if opts.DefaultAccesses == nil {
		opts.DefaultAccesses = []string{"room:write"}
	}
	opts.Metadata = maps.Clone(opts.Metadata)
	r.opts = opts
	if err := r.render(); err != nil {
		return nil, err
	}
	r.lson.set(slices.Clone(opts.Storage))
	r.ydoc = make(map[string]*past)
	r.yjs("").set(slices.Clone(opts.Ydoc))
	r.threads, r.live, r.connections = make(map[string]*thread), nil, nil
	r.renderThreads()
	r.renderUsers()
	r.seq = s.nextSeq
	s.nextSeq++
	s.rooms[id] = r
	s.order = append(s.order, r)
	return r, nil
}

// remove deletes a room. s.mu is held.
func (s *Server) remove(id string) error {
	r, err := s.existing(id)
	if err != nil {
		return err
	}
	r.body.set(nil)
	r.lson.set(nil)
	r.list.set(nil)
	r.users.set(nil)
	for _, t := range r.live {
		t.source.set(nil)
	}
	r.live, r.connections = nil, nil
	i, _ := slices.BinarySearchFunc(s.order, r.seq, func(o *room, seq int) int { return o.seq - seq })
	s.order = slices.Delete(s.order, i, i+1)
	return nil
}

// render makes the room's JSON from its fields, in the order of the real one.
func (r *room) render() error {
	lastConnection := ""
	if !r.opts.LastConnectionTime.IsZero() {
		lastConnection = moment(r.opts.LastConnectionTime)
	}
	b, err := marshal(struct {
		Type             string              `json:"type"`
		ID               string              `json:"id"`
		OrganizationID   string              `json:"organizationId"`
		LastConnectionAt string              `json:"lastConnectionAt,omitempty"`
		CreatedAt        string              `json:"createdAt"`
		Metadata         map[string]any      `json:"metadata"`
		DefaultAccesses  []string            `json:"defaultAccesses"`
		GroupsAccesses   map[string][]string `json:"groupsAccesses"`
		UsersAccesses    map[string][]string `json:"usersAccesses"`
	}{
		"room", r.id, r.opts.OrganizationID, lastConnection, moment(r.opts.CreateTime),
		orEmpty(r.opts.Metadata), r.opts.DefaultAccesses, orEmpty(r.opts.GroupsAccesses), orEmpty(r.opts.UsersAccesses),
	})
	if err != nil {
		return fmt.Errorf("room %q: %w", r.id, err)
	}
	r.body.set(b)
	return nil
}

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// marshal encodes v as JavaScript does, without escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

// moment formats a time as JavaScript does.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// answer is what a call gets if nothing goes wrong with it on the way.
type answer struct {
	status      int
	contentType string
	header      map[string]string
	body        []byte
}

func jsonAnswer(status int, body []byte) answer {
	return answer{status: status, contentType: "application/json; charset=utf-8", body: body}
}

// errorAnswer is a refusal in the form of the real API.
func errorAnswer(status int, code, message string) answer {
	// Two strings can always be encoded.
	body, _ := marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message,omitempty"`
	}{code, message})
	return jsonAnswer(status, body)
}

func roomNotFound(id string) answer {
	return errorAnswer(http.StatusNotFound, "ROOM_NOT_FOUND", fmt.Sprintf("Room with id %q not found.", id))
}

// route finds out what a request asks for. It reads the path as it was sent: an
// id may hold encoded slashes and be "..", so nothing may clean it.
func route(r *http.Request) (Endpoint, string) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v2/rooms")
	if !ok {
		if _, id, ok := inboxPath(r); ok && r.Method == http.MethodGet {
			if id == "" {
				return EndpointInboxes, ""
			}
			return EndpointInbox, ""
		}
		if id, ok := groupPath(r); ok && r.Method == http.MethodGet {
			if id == "" {
				return EndpointGroups, ""
			}
			return EndpointGroup, ""
		}
		if isWrite(r) {
			return EndpointWrite, ""
		}
		return EndpointUnknown, ""
	}
	if rest == "" {
		switch r.Method {
		case http.MethodGet:
			return EndpointListRooms, ""
		case http.MethodPost:
			return EndpointCreateRoom, ""
		}
		return EndpointUnknown, ""
	}
	parts := strings.Split(rest, "/") // the first one is empty
	id := ""
	if len(parts) > 1 {
		id, _ = url.PathUnescape(parts[1]) // net/http has refused what cannot be
	}
	switch {
	case parts[0] != "" || id == "":
	case len(parts) == 2 && r.Method == http.MethodGet:
		return EndpointRoom, id
	case len(parts) == 2 && r.Method == http.MethodDelete:
		return EndpointDeleteRoom, id
	case len(parts) == 3 && parts[2] == "storage" && r.Method == http.MethodGet:
		return EndpointStorage, id
	case len(parts) == 3 && parts[2] == "ydoc-binary" && r.Method == http.MethodGet:
		return EndpointYdoc, id
	case len(parts) == 3 && parts[2] == "threads" && r.Method == http.MethodGet:
		return EndpointThreads, id
	case len(parts) == 4 && parts[2] == "threads" && parts[3] != "" && r.Method == http.MethodGet:
		return EndpointThread, id
	case len(parts) == 6 && parts[2] == "threads" && parts[4] == "comments" && r.Method == http.MethodGet:
		return EndpointComment, id
	case len(parts) == 3 && (parts[2] == "active_users" || parts[2] == "active-users") && r.Method == http.MethodGet:
		return EndpointActiveUsers, id
	case len(parts) == 3 && parts[2] == "update-room-id" && r.Method == http.MethodPost:
		return EndpointUpdateRoomID, id
	case isWrite(r):
		return EndpointWrite, id
	}
	return EndpointUnknown, id
}

// ServeHTTP answers as the real API does, unless a script says otherwise.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint, id := route(r)
	call, step, delay := s.begin(r, endpoint, id)
	status := 0
	defer func() { s.end(call, status) }()

	ctx := r.Context()
	if clock.Sleep(ctx, delay.Before) != nil {
		return
	}
	var ans answer
	if step.readLate {
		if !step.wait(ctx) {
			return
		}
		ans = s.answer(r, endpoint, id, step)
	} else {
		ans = s.answer(r, endpoint, id, step)
		if !step.wait(ctx) {
			return
		}
	}
	if clock.Sleep(ctx, delay.After) != nil {
		return
	}
	status = ans.status
	step.write(w, r, ans)
}

// begin records the delivery of a call and takes the step scripted for it.
func (s *Server) begin(r *http.Request, endpoint Endpoint, id string) (*Call, Step, Delay) {
	s.mu.Lock()
	call := &Call{Method: r.Method, Endpoint: endpoint, Room: id, Path: r.URL.RequestURI(), Begin: s.now()}
	if len(s.log) == logLimit {
		s.log = slices.Delete(s.log, 0, logLimit/2)
	}
	s.log = append(s.log, call)
	s.counts[countKey{}]++
	s.counts[countKey{"", endpoint}]++
	if id != "" {
		s.counts[countKey{id, ""}]++
		s.counts[countKey{id, endpoint}]++
	}
	step := s.takeStep(s.describe(r, endpoint, id))
	if s.limit != nil && !s.limit.Allow() {
		step = TooMany("1")
	}
	random, copied := s.delay, *call
	s.mu.Unlock()
	if random == nil {
		return call, step, Delay{}
	}
	return call, step, random(copied)
}

// describe says everything a [Match] may ask about a call. s.mu is held.
func (s *Server) describe(r *http.Request, endpoint Endpoint, id string) Match {
	call := Match{Room: id, Endpoint: endpoint}
	if endpoint == EndpointThread {
		call.Thread = lastSegment(r)
	}
	if endpoint == EndpointListRooms {
		call.Page = 1
		if limit, end, err := s.place(r.URL.Query()); err == nil {
			call.Page += (len(s.order) - end + limit - 1) / limit
		}
	}
	return call
}

func (s *Server) end(call *Call, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.End, call.Status = s.now(), status
}

// answer reads, or changes, the state.
func (s *Server) answer(r *http.Request, endpoint Endpoint, id string, step Step) answer {
	if step.answer != nil {
		return *step.answer
	}
	if refusal, ok := s.authorise(r.Header.Get("Authorization")); !ok {
		return refusal
	}
	switch endpoint {
	case EndpointListRooms:
		return s.list(r.URL.Query())
	case EndpointCreateRoom:
		return s.post(r)
	case EndpointDeleteRoom:
		_ = s.DeleteRoom(id) // deleting what is not there is a success
		return answer{status: http.StatusNoContent}
	case EndpointRoom:
		return s.read(id, step.stale, func(rm *room) *past { return &rm.body })
	case EndpointStorage:
		ans := s.read(id, step.stale, func(rm *room) *past { return &rm.lson })
		if ans.status == http.StatusOK && r.URL.Query().Get("format") == "json" {
			ans.body = plainJSON(ans.body)
		}
		return ans
	case EndpointYdoc:
		ans := s.read(id, step.stale, func(rm *room) *past {
			if rm.body.now == nil {
				return &past{}
			}
			return rm.yjs(r.URL.Query().Get("guid"))
		})
		if ans.status == http.StatusOK {
			ans.contentType = "application/octet-stream"
		}
		return ans
	case EndpointThreads:
		return s.read(id, step.stale, func(rm *room) *past { return &rm.list })
	case EndpointThread:
		return s.readThread(id, lastSegment(r), step.stale)
	case EndpointActiveUsers:
		return s.read(id, step.stale, func(rm *room) *past { return &rm.users })
	case EndpointInbox:
		user, notification, _ := inboxPath(r)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.readShelf(s.inboxes[inboxKey{user, notification}], step.stale, "Inbox notification")
	case EndpointInboxes:
		user, _, _ := inboxPath(r)
		return s.listInbox(user, r.URL.Query())
	case EndpointUpdateRoomID:
		return s.rename(r, id)
	case EndpointGroups:
		return s.listGroups(memberOf(r), r.URL.Query())
	case EndpointGroup:
		group, _ := groupPath(r)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.readShelf(s.groups[group], step.stale, "Group")
	case EndpointComment:
		at := segmentsOf(r)
		return s.readComment(id, at[3], at[5])
	case EndpointWrite:
		return s.write(r)
	case EndpointUnknown:
	}
	return errorAnswer(http.StatusNotFound, "Not Found", "")
}

func (s *Server) authorise(header string) (answer, bool) {
	key, ok := strings.CutPrefix(header, "Bearer ")
	s.mu.Lock()
	secret := s.secret
	s.mu.Unlock()
	switch {
	case !ok || key == "":
		return errorAnswer(http.StatusUnauthorized, "MISSING_SECRET_KEY", "Missing secret key in authentication header"),
			false
	case strings.HasPrefix(key, "pk_"):
		return errorAnswer(http.StatusUnauthorized, "WRONG_KEY_USED", "Public key instead of the secret key."), false
	case key != secret:
		return errorAnswer(http.StatusForbidden, "INVALID_SECRET_KEY", "Invalid secret key."), false
	}
	return answer{}, true
}

func (s *Server) read(id string, stale bool, part func(*room) *past) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[id]
	if r == nil || s.foreign {
		return roomNotFound(id)
	}
	ans, ok := part(r).answer(stale)
	if !ok {
		return roomNotFound(id)
	}
	return ans
}

func unprocessable(message string) answer {
	return errorAnswer(http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY", message)
}

// pageLimit says how long a page is asked for.
func pageLimit(q url.Values) (limit int, err error) { return pageLimitOf(q, 20, 100) }

func pageLimitOf(q url.Values, usual, most int) (limit int, err error) {
	limit = usual
	if v := q.Get("limit"); v != "" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > most {
			return 0, fmt.Errorf("limit must be between 1 and %d", most)
		}
	}
	return limit, nil
}

// pageAnswer answers a page of a list, byte for byte, valid or not. An empty cursor
// ends the list.
func pageAnswer(cursor string, items [][]byte) answer {
	next := []byte("null")
	if cursor != "" {
		next, _ = marshal(cursor) // a string can always be encoded
	}
	return jsonAnswer(http.StatusOK, slices.Concat([]byte(`{"nextCursor":`), next, []byte(`,"data":[`),
		bytes.Join(items, []byte{','}), []byte("]}")))
}

// place says how many rooms are asked for, and before which of s.order the page
// ends. s.mu is held.
func (s *Server) place(q url.Values) (limit, end int, err error) {
	end = len(s.order)
	if limit, err = pageLimit(q); err != nil {
		return 0, 0, err
	}
	if v := q.Get("startingAfter"); v != "" {
		raw, err := base64.RawURLEncoding.DecodeString(v)
		if err != nil {
			return 0, 0, errors.New("startingAfter is not a cursor")
		}
		seq, err := strconv.Atoi(string(raw))
		if err != nil {
			return 0, 0, errors.New("startingAfter is not a cursor")
		}
		end, _ = slices.BinarySearchFunc(s.order, seq, func(o *room, seq int) int { return o.seq - seq })
	}
	return limit, end, nil
}

// list answers a page of rooms, newest first. The cursor is the place in the
// order of creation, so it survives the deletion of the room it was made for.
func (s *Server) list(q url.Values) answer {
	for key := range q {
		if key != "limit" && key != "startingAfter" {
			// Ignoring a filter would answer something else than was asked.
			return unprocessable("the fake does not filter rooms")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, end, err := s.place(q)
	if err != nil {
		return unprocessable(err.Error())
	}
	if s.foreign {
		end = 0
	}
	begin := max(0, end-limit)
	cursor := ""
	if begin > 0 {
		cursor = base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(s.order[begin].seq)))
	}
	var rooms [][]byte
	for _, r := range slices.Backward(s.order[begin:end]) {
		rooms = append(rooms, r.body.now)
	}
	return pageAnswer(cursor, rooms)
}

// rename does update-room-id.
func (s *Server) rename(r *http.Request, id string) answer {
	var req struct {
		NewRoomID string `json:"newRoomId"`
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPost))
	if err != nil || json.Unmarshal(body, &req) != nil || req.NewRoomID == "" {
		return unprocessable("Missing key: 'newRoomId'.")
	}
	switch err := s.RenameRoom(id, req.NewRoomID); {
	case errors.Is(err, ErrNoRoom):
		return roomNotFound(id)
	case err != nil:
		return errorAnswer(http.StatusConflict, "ROOM_ALREADY_EXISTS", "The room already exists.")
	}
	return s.read(req.NewRoomID, false, func(rm *room) *past { return &rm.body })
}

// maxPost bounds the body of a POST; a room's fields are far smaller.
const maxPost = 1 << 20

func (s *Server) post(r *http.Request) answer {
	var req struct {
		ID              string              `json:"id"`
		OrganizationID  string              `json:"organizationId"`
		Metadata        map[string]any      `json:"metadata"`
		DefaultAccesses []string            `json:"defaultAccesses"`
		GroupsAccesses  map[string][]string `json:"groupsAccesses"`
		UsersAccesses   map[string][]string `json:"usersAccesses"`
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPost))
	if err != nil || json.Unmarshal(body, &req) != nil || req.ID == "" {
		return unprocessable("the body must be a JSON object with an id")
	}
	if req.DefaultAccesses == nil {
		return unprocessable("Missing key: 'defaultAccesses'.")
	}
	err = s.CreateRoom(req.ID, RoomOptions{
		OrganizationID:  req.OrganizationID,
		Metadata:        req.Metadata,
		DefaultAccesses: req.DefaultAccesses,
		GroupsAccesses:  req.GroupsAccesses,
		UsersAccesses:   req.UsersAccesses,
	})
	if err != nil && (!errors.Is(err, ErrRoomExists) || !r.URL.Query().Has("idempotent")) {
		return errorAnswer(http.StatusConflict, "ROOM_ALREADY_EXISTS", "The room already exists.")
	}
	return s.read(req.ID, false, func(rm *room) *past { return &rm.body })
}
