package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	defaultPageSize = 50
	maxPageSize     = 500
)

// list identifies a list in its page tokens. The values are part of the wire
// format.
type list byte

const (
	listEvents    list = 1
	listRooms     list = 2
	listDocuments list = 3
	listTasks     list = 4

	listThreads       list = 5
	listComments      list = 6
	listActiveUsers   list = 7
	listUserSessions  list = 8
	listFlows         list = 9
	listNotifications list = 10
	listGroups        list = 11
	listReplay        list = 12
	listAudit         list = 13
	listLatestRooms   list = 14
)

var lists = []list{
	listEvents, listRooms, listDocuments, listTasks,
	listThreads, listComments, listActiveUsers, listUserSessions, listFlows, listNotifications,
	listGroups, listReplay, listAudit, listLatestRooms,
}

// cursor is the key of the last item of a page. Each list uses a part of it:
//
//	rooms                                  Room
//	documents, tasks                       Room, Kind, ID
//	threads                                Room, ID
//	comments                               Room, Thread, Time, ID
//	active users, flows, groups            ID
//	events, replays, user sessions,
//	notifications, audit entries           Time, ID
//	rooms, newest first                    Time, Room
//
// The zero cursor is before the first item.
type cursor struct {
	Time   time.Time
	Room   mirror.RoomID
	Kind   mirror.Kind
	Thread string
	ID     string
}

// stored returns Time as stored: items without a time are stored with one in 1970.
func (c cursor) stored() time.Time {
	if c.ID != "" && c.Time.IsZero() {
		return earliest
	}
	return c.Time
}

// fits reports whether c can be a key of the list.
func (c cursor) fits(l list) bool {
	switch l {
	case listEvents, listReplay, listAudit:
		return c == cursor{Time: c.Time, ID: c.ID} && storableTime(c.Time) && mirror.ValidID(c.ID, mirror.MaxEventID)
	case listRooms:
		return c == cursor{Room: c.Room} && mirror.ValidID(string(c.Room), mirror.MaxRoomID)
	case listLatestRooms:
		return c == cursor{Time: c.Time, Room: c.Room} && (c.Time.IsZero() || storableTime(c.Time)) &&
			mirror.ValidID(string(c.Room), mirror.MaxRoomID)
	case listDocuments, listTasks:
		return c == cursor{Room: c.Room, Kind: c.Kind, ID: c.ID} &&
			mirror.Resource{Room: c.Room, Kind: c.Kind, ID: c.ID}.Valid()
	case listThreads:
		return c == cursor{Room: c.Room, ID: c.ID} && mirror.ValidID(string(c.Room), mirror.MaxRoomID) &&
			mirror.ValidID(c.ID, mirror.MaxResourceID)
	case listComments:
		return c.Kind == 0 && (c.Time.IsZero() || storableTime(c.Time)) && mirror.ValidID(string(c.Room), mirror.MaxRoomID) &&
			mirror.ValidID(c.Thread, mirror.MaxResourceID) && mirror.ValidID(c.ID, mirror.MaxResourceID)
	case listActiveUsers:
		u, ok := activeUserOf(c.ID)
		return c == cursor{ID: c.ID} && ok && activeUserKey(u) == c.ID && (u.UserID == "" ||
			mirror.ValidID(u.UserID, mirror.MaxUserID))
	case listUserSessions, listNotifications:
		return c == cursor{Time: c.Time, ID: c.ID} && (c.Time.IsZero() || storableTime(c.Time)) &&
			mirror.ValidID(c.ID, mirror.MaxEventID)
	case listGroups:
		return c == cursor{ID: c.ID} && mirror.ValidID(c.ID, mirror.MaxResourceID)
	case listFlows:
		key, ok := strings.CutPrefix(c.ID, keyMark)
		return c == cursor{ID: c.ID} && ok && len(key) <= maxStorageKey && utf8.ValidString(key)
	default:
		return false
	}
}

// activeUserKey returns the key of an active user in the list of a room.
func activeUserKey(u mirror.ActiveUser) string {
	return strconv.FormatInt(u.ConnectionID, 10) + ":" + u.UserID
}

// activeUserOf returns the user with that key, and whether it is one.
func activeUserOf(key string) (u mirror.ActiveUser, ok bool) {
	connection, user, ok := strings.Cut(key, ":")
	n, err := strconv.ParseInt(connection, 10, 64)
	return mirror.ActiveUser{ConnectionID: n, UserID: user}, ok && err == nil
}

// A page token is a tokenHead, the room id, the thread id and the id. It grants no
// access: every page is limited to what its caller sees. So it is not signed. It is still parsed as untrusted input.
type tokenHead struct {
	Version byte
	List    list
	// Filters is a hash of the list's filters.
	Filters filterHash
	Micros  int64
	Kind    mirror.Kind
	RoomLen uint16
	// ThreadLen is zero if there is no thread.
	ThreadLen uint8
}

const tokenVersion = 2

type filterHash [8]byte

var (
	errTokenInvalid  = errors.New("page token is not one of ours")
	errTokenMismatch = errors.New("page token of another list or other filters")
)

// formatToken returns the token for the page after the cursor.
func formatToken(l list, filters filterHash, after cursor) string {
	head := tokenHead{
		Version: tokenVersion, List: l, Filters: filters, Kind: after.Kind,
		RoomLen:   uint16(len(after.Room)),  //nolint:gosec // at most mirror.MaxRoomID
		ThreadLen: uint8(len(after.Thread)), //nolint:gosec // at most mirror.MaxResourceID
	}
	if !after.Time.IsZero() {
		head.Micros = after.Time.UnixMicro()
	}
	raw, _ := binary.Append(nil, binary.BigEndian, head) // of fixed size, so it cannot fail
	raw = append(raw, after.Room...)
	raw = append(raw, after.Thread...)
	raw = append(raw, after.ID...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseToken parses a page token. It accepts only what formatToken writes for this
// list and these filters, so every cursor has one spelling.
func parseToken(token string, l list, filters filterHash) (cursor, error) {
	raw, err := decodeBase64(token)
	if err != nil {
		return cursor{}, errTokenInvalid
	}
	var head tokenHead
	n, err := binary.Decode(raw, binary.BigEndian, &head)
	if err != nil || head.Version != tokenVersion || !slices.Contains(lists, head.List) {
		return cursor{}, errTokenInvalid
	}
	if head.List != l || head.Filters != filters {
		return cursor{}, errTokenMismatch
	}
	raw = raw[n:]
	room, thread := int(head.RoomLen), int(head.RoomLen)+int(head.ThreadLen)
	if thread > len(raw) {
		return cursor{}, errTokenInvalid
	}
	after := cursor{
		Kind: head.Kind, Room: mirror.RoomID(raw[:room]), Thread: string(raw[room:thread]),
		ID: string(raw[thread:]),
	}
	if head.Micros != 0 {
		after.Time = time.UnixMicro(head.Micros).UTC()
	}
	if !after.fits(l) {
		return cursor{}, errTokenInvalid
	}
	return after, nil
}

// decodeBase64 decodes URL-safe base64 without padding. The standard decoder skips
// line breaks, so one id would have many spellings.
func decodeBase64(s string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	if base64.RawURLEncoding.EncodedLen(len(raw)) != len(s) {
		return nil, errTokenInvalid
	}
	return raw, nil
}

// pageRequest is the common part of all list requests.
type pageRequest interface {
	proto.Message
	GetProjectId() string
	GetPageSize() int32
	GetPageToken() string
}

// hashFilters returns equal hashes for requests that select the same items. It
// includes all fields except those for page size, view, freshness and position, so
// it includes future filters as well, and the project and the rooms that the caller
// sees: a token is of no use to others.
func hashFilters(req proto.Message, in scope) (filterHash, error) {
	filters := req.ProtoReflect().New()
	req.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch field.Name() {
		case "project_id", "page_size", "page_token", "view", "max_age", "require_fresh":
		default:
			filters.Set(field, value)
		}
		return true
	})
	hash := sha256.New()
	hash.Write([]byte(in.project))
	hash.Write([]byte{0})
	for _, prefix := range in.rooms { // ids hold no NUL
		hash.Write([]byte(prefix))
		hash.Write([]byte{0})
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(filters.Interface())
	if err != nil {
		return filterHash{}, err
	}
	hash.Write(raw)
	return filterHash(hash.Sum(nil)), nil
}

// listing describes how to read a list: rows of type R become messages M.
type listing[R any, M proto.Message] struct {
	list list
	// batch is the maximum number of rows of one query if rows can be large; zero
	// reads a page at once.
	batch int
	// in is the scope of the list; nil means the one that its request names.
	in      *scope
	fetch   func(ctx context.Context, in scope, after cursor, limit int) ([]R, error)
	key     func(row *R) cursor
	toProto func(row *R) M
}

// page returns one page and the token of the next, empty on the last page. The
// items fit one message, so a page can be short. It has at least one item unless
// the list has ended.
func page[R any, M proto.Message](ctx context.Context, c *common, req pageRequest, l listing[R, M]) (items []M,
	next string, err error,
) {
	var in scope
	if l.in != nil {
		in = *l.in
	} else if in, err = c.scope(ctx, req.GetProjectId()); err != nil {
		return nil, "", err
	}
	size := defaultPageSize
	if n := int(req.GetPageSize()); n > 0 {
		size = min(n, maxPageSize)
	}
	filters, err := hashFilters(req, in)
	if err != nil {
		return nil, "", err
	}
	var after cursor
	if token := req.GetPageToken(); token != "" {
		if after, err = parseToken(token, l.list, filters); err != nil {
			return nil, "", badToken(err)
		}
	}
	for total := 0; ; {
		// One extra row shows whether there is a next page.
		limit := size - len(items) + 1
		if l.batch > 0 {
			limit = min(limit, l.batch)
		}
		rows, err := l.fetch(ctx, in, after, limit)
		if err != nil {
			return nil, "", err
		}
		for i := range rows {
			if len(items) == size {
				return items, formatToken(l.list, filters, after), nil
			}
			item := l.toProto(&rows[i])
			total += proto.Size(item)
			if total > c.pageBudget() && len(items) > 0 {
				return items, formatToken(l.list, filters, after), nil
			}
			items = append(items, item)
			after = l.key(&rows[i])
		}
		if len(rows) < limit {
			return items, "", nil
		}
	}
}

func badToken(err error) error {
	if errors.Is(err, errTokenMismatch) {
		f := fault.Wrap(err, fault.Invalid, fault.ReasonPageTokenMismatch,
			"the page token belongs to another list or other filters")
		f.Fields = []fault.Field{{Path: "page_token", Problem: "must be used with the filters it was given for"}}
		return f
	}
	f := fault.Wrap(err, fault.Invalid, fault.ReasonPageTokenInvalid, "the page token is not valid")
	f.Fields = []fault.Field{{Path: "page_token", Problem: "must be a next_page_token"}}
	return f
}
