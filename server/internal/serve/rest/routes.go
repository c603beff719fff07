package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// class is what becomes of a call.
type class string

// The classes.
const (
	// served calls are answered from the mirror.
	served class = "served"
	// passed are reads of what the mirror does not hold, which Liveblocks can answer.
	passed class = "passed"
	// forwarded calls change something at Liveblocks, or let users in.
	forwarded class = "forwarded"
)

// route is one call of Liveblocks' REST API.
type route struct {
	method string
	// path is below /v2, split by slashes; "*" stands for an id.
	path  []string
	class class
	// serve answers the call from the mirror; nil if nothing here can.
	serve func(*Handler, http.ResponseWriter, *request) error
	// changes returns what of the mirror a write has changed; nil stands for nothing.
	changes func(change) []mirror.Request
	// sent and answered are the members of the body of a write, and of its answer, that name
	// what it makes; empty if there are none.
	sent, answered string
	// whole means that a write is about more than the room of its path.
	whole bool
	// seldom means that Liveblocks answers the call only now and then, which the mirror heeds:
	// it is not passed on.
	seldom bool
	// routine means that a write changes nothing for others, though it is about all rooms.
	routine bool
}

// audited reports whether calls are recorded in the audit: those that delete something, and
// writes about more than one room.
func (r *route) audited() bool {
	return r.class == forwarded && !r.routine && (r.method == http.MethodDelete || r.whole || r.path[0] != "rooms")
}

// name names the route.
func (r *route) name() string { return r.method + " " + Prefix + strings.Join(r.path, "/") }

func read(path string, serve func(*Handler, http.ResponseWriter, *request) error) route {
	return route{method: http.MethodGet, path: strings.Split(path, "/"), class: served, serve: serve}
}

func absent(path string) route {
	return route{method: http.MethodGet, path: strings.Split(path, "/"), class: passed}
}

func write(method, path string, changes ...func(change) []mirror.Request) route {
	r := route{method: method, path: strings.Split(path, "/"), class: forwarded}
	if len(changes) > 0 {
		r.changes = changes[0]
	}
	return r
}

func seldom(r route) route {
	r.seldom = true
	return r
}

func routine(r route) route {
	r.routine = true
	return r
}

// making is a write that makes something, which its body or its answer names.
func making(r route, sent, answered string) route {
	r.sent, r.answered = sent, answered
	return r
}

// room returns the room that a call is about, nil for all rooms.
func (r *route) room(ids []string) *string {
	if r.whole || r.path[0] != "rooms" || len(ids) == 0 {
		return nil
	}
	return &ids[0]
}

// change is what a write says of what it changes.
type change struct {
	ids []string
	// named is the name of what it makes, guid that of the Yjs document.
	named, guid string
}

// inRoom names a resource in the room of the path.
func (c change) inRoom(kind mirror.Kind, id string) mirror.Request {
	return mirror.Request{Resource: mirror.Resource{Room: mirror.RoomID(c.ids[0]), Kind: kind, ID: id}}
}

func theRoom(c change) []mirror.Request { return []mirror.Request{c.inRoom(mirror.KindRoom, "")} }

func theStorage(c change) []mirror.Request { return []mirror.Request{c.inRoom(mirror.KindStorage, "")} }

func theYdoc(c change) []mirror.Request { return []mirror.Request{c.inRoom(mirror.KindYdoc, c.guid)} }

func theThread(c change) []mirror.Request {
	return []mirror.Request{c.inRoom(mirror.KindThread, c.ids[1])}
}

func theGroup(c change) []mirror.Request {
	return []mirror.Request{{Resource: mirror.Resource{Kind: mirror.KindGroup, ID: c.ids[0]}}}
}

// newRoom is a room with what every room has.
func newRoom(c change) []mirror.Request {
	c.ids = []string{c.named}
	all := theRoom(c)
	for _, kind := range mirror.RoomKinds() {
		all = append(all, c.inRoom(kind, ""))
	}
	return all
}

// renamed is a room that is gone, and another.
func renamed(c change) []mirror.Request { return append(gone(theRoom)(c), newRoom(c)...) }

// newThread is a thread, or the list of all if it is not known which.
func newThread(c change) []mirror.Request {
	return []mirror.Request{c.inRoom(mirror.KindThread, c.named)}
}

// newGroup is a group, or the list of all if it is not known which.
func newGroup(c change) []mirror.Request {
	c.ids = []string{c.named}
	return theGroup(c)
}

// gone says that what is named was deleted.
func gone(what func(change) []mirror.Request) func(change) []mirror.Request {
	return func(c change) []mirror.Request {
		list := what(c)
		for i := range list {
			list[i].Unlisted = true
		}
		return list
	}
}

// table has every call of Liveblocks' packages for servers. Other paths do not exist.
type table []route

func newTable() table {
	return table{
		read("rooms", (*Handler).rooms),
		// It changes nothing if the room exists.
		{
			method: http.MethodPost, path: []string{"rooms"}, class: forwarded, serve: (*Handler).existingRoom,
			changes: newRoom, sent: "id",
		},
		read("rooms/*", (*Handler).room),
		write(http.MethodPost, "rooms/*", theRoom),
		write(http.MethodDelete, "rooms/*", gone(theRoom)),
		write(http.MethodPost, "rooms/*/upsert", theRoom),
		{
			method: http.MethodPost, path: []string{"rooms", "*", "update-room-id"}, class: forwarded, changes: renamed,
			sent: "newRoomId", whole: true,
		},
		write(http.MethodPost, "rooms/*/update-organization-id", theRoom),
		read("rooms/*/prewarm", (*Handler).prewarm),
		// Python and the documentation spell it in two ways.
		seldom(read("rooms/*/active-users", (*Handler).activeUsers)),
		seldom(read("rooms/*/active_users", (*Handler).activeUsers)),
		write(http.MethodPost, "rooms/*/broadcast-event"),
		write(http.MethodPost, "rooms/*/broadcast_event"),
		write(http.MethodPost, "rooms/*/presence"),
		write(http.MethodPost, "rooms/*/send-message", theStorage),

		read("rooms/*/storage", (*Handler).storage),
		write(http.MethodPost, "rooms/*/storage", theStorage),
		write(http.MethodDelete, "rooms/*/storage", theStorage),
		write(http.MethodPatch, "rooms/*/storage/json-patch", theStorage),
		write(http.MethodPost, "rooms/*/request-storage-mutation"),
		absent("rooms/*/storage/files/*"),
		write(http.MethodPut, "rooms/*/storage/files/*/upload/*"),
		write(http.MethodPost, "rooms/*/storage/files/*/multipart/*"),
		write(http.MethodDelete, "rooms/*/storage/files/*/multipart/*"),
		write(http.MethodPut, "rooms/*/storage/files/*/multipart/*/*"),
		write(http.MethodPost, "rooms/*/storage/files/*/multipart/*/complete"),

		read("rooms/*/ydoc", (*Handler).ydoc),
		write(http.MethodPut, "rooms/*/ydoc", theYdoc),
		read("rooms/*/ydoc-binary", (*Handler).ydocBinary),
		absent("rooms/*/versions"),
		write(http.MethodPost, "rooms/*/versions"),
		absent("rooms/*/versions/*/yjs"),
		absent("rooms/*/version/*"),
		write(http.MethodDelete, "rooms/*/versions/*"),

		read("rooms/*/threads", (*Handler).threads),
		making(write(http.MethodPost, "rooms/*/threads", newThread), "", "id"),
		read("rooms/*/threads/*", (*Handler).thread),
		write(http.MethodDelete, "rooms/*/threads/*", gone(theThread)),
		read("rooms/*/threads/*/participants", (*Handler).participants),
		absent("rooms/*/threads/*/subscriptions"),
		absent("rooms/*/threads/*/inbox-notifications"),
		write(http.MethodPost, "rooms/*/threads/*/metadata", theThread),
		write(http.MethodPost, "rooms/*/threads/*/mark-as-resolved", theThread),
		write(http.MethodPost, "rooms/*/threads/*/mark-as-unresolved", theThread),
		write(http.MethodPost, "rooms/*/threads/*/subscribe"),
		write(http.MethodPost, "rooms/*/threads/*/unsubscribe"),
		write(http.MethodPost, "rooms/*/threads/*/comments", theThread),
		read("rooms/*/threads/*/comments/*", (*Handler).comment),
		write(http.MethodPost, "rooms/*/threads/*/comments/*", theThread),
		// With its last comment a thread is gone.
		write(http.MethodDelete, "rooms/*/threads/*/comments/*", gone(theThread)),
		write(http.MethodPost, "rooms/*/threads/*/comments/*/metadata", theThread),
		write(http.MethodPost, "rooms/*/threads/*/comments/*/add-reaction", theThread),
		write(http.MethodPost, "rooms/*/threads/*/comments/*/remove-reaction", theThread),
		absent("rooms/*/attachments/*"),
		write(http.MethodPut, "rooms/*/attachments/*/upload/*"),
		write(http.MethodPost, "rooms/*/attachments/*/multipart/*"),
		write(http.MethodDelete, "rooms/*/attachments/*/multipart/*"),
		write(http.MethodPut, "rooms/*/attachments/*/multipart/*/*"),
		write(http.MethodPost, "rooms/*/attachments/*/multipart/*/complete"),

		absent("rooms/*/users/*/subscription-settings"),
		write(http.MethodPost, "rooms/*/users/*/subscription-settings"),
		write(http.MethodDelete, "rooms/*/users/*/subscription-settings"),
		absent("rooms/*/users/*/notification-settings"),
		write(http.MethodPost, "rooms/*/users/*/notification-settings"),
		write(http.MethodDelete, "rooms/*/users/*/notification-settings"),
		absent("rooms/*/feeds"),
		write(http.MethodPost, "rooms/*/feeds"),
		absent("rooms/*/feeds/*"),
		write(http.MethodPatch, "rooms/*/feeds/*"),
		write(http.MethodDelete, "rooms/*/feeds/*"),
		absent("rooms/*/feeds/*/messages"),
		write(http.MethodPost, "rooms/*/feeds/*/messages"),
		write(http.MethodPatch, "rooms/*/feeds/*/messages/*"),
		write(http.MethodDelete, "rooms/*/feeds/*/messages/*"),

		absent("users/*/inbox-notifications"),
		write(http.MethodDelete, "users/*/inbox-notifications"),
		read("users/*/inbox-notifications/*", (*Handler).inboxNotification),
		write(http.MethodDelete, "users/*/inbox-notifications/*"),
		write(http.MethodPost, "inbox-notifications/trigger"),
		absent("users/*/room-subscription-settings"),
		absent("users/*/notification-settings"),
		write(http.MethodPost, "users/*/notification-settings"),
		write(http.MethodDelete, "users/*/notification-settings"),

		read("groups", (*Handler).groups),
		making(write(http.MethodPost, "groups", newGroup), "", "id"),
		read("groups/*", (*Handler).group),
		write(http.MethodDelete, "groups/*", gone(theGroup)),
		write(http.MethodPost, "groups/*/add-members", theGroup),
		write(http.MethodPost, "groups/*/remove-members", theGroup),
		read("users/*/groups", (*Handler).userGroups),

		absent("ai/copilots"),
		write(http.MethodPost, "ai/copilots"),
		absent("ai/copilots/*"),
		write(http.MethodPost, "ai/copilots/*"),
		write(http.MethodDelete, "ai/copilots/*"),
		absent("ai/copilots/*/knowledge"),
		absent("ai/copilots/*/knowledge/*"),
		write(http.MethodPost, "ai/copilots/*/knowledge/web"),
		write(http.MethodDelete, "ai/copilots/*/knowledge/web/*"),
		absent("ai/copilots/*/knowledge/web/*/links"),
		absent("ai/copilots/*/knowledge/file/*"),
		write(http.MethodPut, "ai/copilots/*/knowledge/file/*"),
		write(http.MethodDelete, "ai/copilots/*/knowledge/file/*"),

		routine(write(http.MethodPost, "authorize-user")),
		routine(write(http.MethodPost, "identify-user")),
	}
}

// match returns the route of a request and the ids in its path. Without a route, allow
// has the methods that the path has; if there are none, there is no such path.
//
// The path is split before it is unescaped, because ids may contain slashes.
func (t table) match(method, escaped string) (rt *route, ids []string, allow []string) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	path, ok := strings.CutPrefix(escaped, Prefix)
	if !ok {
		return nil, nil, nil
	}
	segments := strings.Split(path, "/")
	for i := range t {
		r := &t[i]
		ids, ok := r.fits(segments)
		switch {
		case !ok:
		case r.method == method:
			return r, ids, nil
		default:
			allow = append(allow, r.method)
		}
	}
	return nil, nil, allow
}

// fits returns the ids in a path, and whether it is one of the route.
func (r *route) fits(segments []string) (ids []string, ok bool) {
	if len(segments) != len(r.path) {
		return nil, false
	}
	for i, want := range r.path {
		if want != "*" {
			if segments[i] != want {
				return nil, false
			}
			continue
		}
		id, err := url.PathUnescape(segments[i])
		if err != nil || id == "" || !mirror.Storable(id) {
			return nil, false
		}
		ids = append(ids, id)
	}
	return ids, true
}

// reads returns the methods with which a path can be called here.
func (t table) reads(path []string) (methods []string) {
	for i := range t {
		if t[i].class != forwarded && slices.Equal(t[i].path, path) {
			methods = append(methods, t[i].method)
		}
	}
	return methods
}
