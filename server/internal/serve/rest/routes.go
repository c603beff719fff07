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
	// lacking are reads of what the mirror does not hold.
	lacking class = "not mirrored"
	// writing calls change something at Liveblocks, or let users in.
	writing class = "write"
)

// route is one call of Liveblocks' REST API.
type route struct {
	method string
	// path is below /v2, split by slashes; "*" stands for an id.
	path  []string
	class class
	// serve answers the call; nil if it is refused.
	serve func(*Handler, http.ResponseWriter, *request) error
}

func read(path string, serve func(*Handler, http.ResponseWriter, *request) error) route {
	return route{http.MethodGet, strings.Split(path, "/"), served, serve}
}

func absent(path string) route {
	return route{http.MethodGet, strings.Split(path, "/"), lacking, nil}
}

func write(method, path string) route {
	return route{method, strings.Split(path, "/"), writing, nil}
}

// table has every call of Liveblocks' packages for servers. Other paths do not exist.
type table []route

func newTable() table {
	return table{
		read("rooms", (*Handler).rooms),
		// It changes nothing if the room exists.
		{http.MethodPost, []string{"rooms"}, writing, (*Handler).existingRoom},
		read("rooms/*", (*Handler).room),
		write(http.MethodPost, "rooms/*"),
		write(http.MethodDelete, "rooms/*"),
		write(http.MethodPost, "rooms/*/upsert"),
		write(http.MethodPost, "rooms/*/update-room-id"),
		write(http.MethodPost, "rooms/*/update-organization-id"),
		read("rooms/*/prewarm", (*Handler).prewarm),
		// Python and the documentation spell it in two ways.
		read("rooms/*/active-users", (*Handler).activeUsers),
		read("rooms/*/active_users", (*Handler).activeUsers),
		write(http.MethodPost, "rooms/*/broadcast-event"),
		write(http.MethodPost, "rooms/*/broadcast_event"),
		write(http.MethodPost, "rooms/*/presence"),
		write(http.MethodPost, "rooms/*/send-message"),

		read("rooms/*/storage", (*Handler).storage),
		write(http.MethodPost, "rooms/*/storage"),
		write(http.MethodDelete, "rooms/*/storage"),
		write(http.MethodPatch, "rooms/*/storage/json-patch"),
		write(http.MethodPost, "rooms/*/request-storage-mutation"),
		absent("rooms/*/storage/files/*"),
		write(http.MethodPut, "rooms/*/storage/files/*/upload/*"),
		write(http.MethodPost, "rooms/*/storage/files/*/multipart/*"),
		write(http.MethodDelete, "rooms/*/storage/files/*/multipart/*"),
		write(http.MethodPut, "rooms/*/storage/files/*/multipart/*/*"),
		write(http.MethodPost, "rooms/*/storage/files/*/multipart/*/complete"),

		read("rooms/*/ydoc", (*Handler).ydoc),
		write(http.MethodPut, "rooms/*/ydoc"),
		read("rooms/*/ydoc-binary", (*Handler).ydocBinary),
		absent("rooms/*/versions"),
		write(http.MethodPost, "rooms/*/versions"),
		absent("rooms/*/versions/*/yjs"),
		absent("rooms/*/version/*"),
		write(http.MethodDelete, "rooms/*/versions/*"),

		read("rooms/*/threads", (*Handler).threads),
		write(http.MethodPost, "rooms/*/threads"),
		read("rooms/*/threads/*", (*Handler).thread),
		write(http.MethodDelete, "rooms/*/threads/*"),
		read("rooms/*/threads/*/participants", (*Handler).participants),
		absent("rooms/*/threads/*/subscriptions"),
		absent("rooms/*/threads/*/inbox-notifications"),
		write(http.MethodPost, "rooms/*/threads/*/metadata"),
		write(http.MethodPost, "rooms/*/threads/*/mark-as-resolved"),
		write(http.MethodPost, "rooms/*/threads/*/mark-as-unresolved"),
		write(http.MethodPost, "rooms/*/threads/*/subscribe"),
		write(http.MethodPost, "rooms/*/threads/*/unsubscribe"),
		write(http.MethodPost, "rooms/*/threads/*/comments"),
		read("rooms/*/threads/*/comments/*", (*Handler).comment),
		write(http.MethodPost, "rooms/*/threads/*/comments/*"),
		write(http.MethodDelete, "rooms/*/threads/*/comments/*"),
		write(http.MethodPost, "rooms/*/threads/*/comments/*/metadata"),
		write(http.MethodPost, "rooms/*/threads/*/comments/*/add-reaction"),
		write(http.MethodPost, "rooms/*/threads/*/comments/*/remove-reaction"),
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
		absent("users/*/inbox-notifications/*"),
		write(http.MethodDelete, "users/*/inbox-notifications/*"),
		write(http.MethodPost, "inbox-notifications/trigger"),
		absent("users/*/room-subscription-settings"),
		absent("users/*/notification-settings"),
		write(http.MethodPost, "users/*/notification-settings"),
		write(http.MethodDelete, "users/*/notification-settings"),

		read("groups", (*Handler).groups),
		write(http.MethodPost, "groups"),
		read("groups/*", (*Handler).group),
		write(http.MethodDelete, "groups/*"),
		write(http.MethodPost, "groups/*/add-members"),
		write(http.MethodPost, "groups/*/remove-members"),
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

		write(http.MethodPost, "authorize-user"),
		write(http.MethodPost, "identify-user"),
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
		if t[i].class != writing && slices.Equal(t[i].path, path) {
			methods = append(methods, t[i].method)
		}
	}
	return methods
}
