package rest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rest/query"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// maxGroups is the maximum number of groups by which rooms are selected.
const maxGroups = 100

// roomQuery is what a list of rooms is asked for.
type roomQuery struct {
	// id is that of the only room, if the query names one, prefix the longest that ids
	// must begin with.
	id, prefix string
	metadata   map[string]string
	// never means that nothing can match, such as one key with two values.
	never bool

	organization, user string
	groups             []string
}

// roomQueryOf reads the parameters of a list of rooms. Metadata of its own parameters, which
// is older than the language, counts only without a query.
func roomQueryOf(params url.Values) (roomQuery, error) {
	q := roomQuery{
		metadata: make(map[string]string), organization: params.Get("organizationId"), user: params.Get("userId"),
	}
	for _, id := range strings.Split(params.Get("groupIds"), ",") {
		if id != "" && !slices.Contains(q.groups, id) {
			q.groups = append(q.groups, id)
		}
	}
	if len(q.groups) > maxGroups {
		return q, parameterInvalid("groupIds may name " + strconv.Itoa(maxGroups) + " groups.")
	}
	text := params.Get("query")
	if text == "" {
		for name, values := range params {
			if key, ok := strings.CutPrefix(name, "metadata."); ok {
				q.metadata[key] = values[len(values)-1]
			}
		}
		return q, nil
	}
	terms, err := query.Rooms.Parse(text)
	if err != nil {
		return q, queryInvalid(err)
	}
	for _, t := range terms {
		value, _ := t.Value.(string) // the language allows nothing else
		switch {
		case t.Key != nil:
			have, twice := q.metadata[*t.Key]
			q.never = q.never || twice && have != value
			q.metadata[*t.Key] = value
		case t.Op == query.Prefix:
			q.never = q.never || !strings.HasPrefix(value, q.prefix) && !strings.HasPrefix(q.prefix, value)
			q.prefix = max(q.prefix, value) // of two that agree, the longer one sorts behind
		default:
			q.never = q.never || q.id != "" && q.id != value || value == ""
			q.id = value
		}
	}
	q.never = q.never || q.id != "" && !strings.HasPrefix(q.id, q.prefix)
	return q, nil
}

// selects reports whether a room is selected, whose id is.
func (q roomQuery) selects(source []byte) bool {
	f := store.LatestRoomFilter{Terms: store.SelectedBy(q.metadata, q.organization, q.user, q.groups)}
	return f.Selects("", source)
}

// rooms answers with a page of rooms, newest first, each byte for byte.
func (h *Handler) rooms(w http.ResponseWriter, r *request) error {
	wanted, err := roomQueryOf(r.params)
	if err != nil {
		return err
	}
	limit, err := strconv.Atoi(r.params.Get("limit"))
	if err != nil || limit <= 0 {
		limit = defaultLimit
	}
	limit, err = min(limit, maxLimit), nil
	a, unfetched := h.ageOfRooms(r)
	if unfetched != nil && r.params.Get("startingAfter") == "" {
		return unfetched // otherwise, whose cursor it is counts first
	}
	var sources [][]byte
	var next string
	held := h.long.begin()
	defer held.end()
	var size int64
	add := func(room *mirrorv1.Room) error {
		a.of(room.GetFreshness())
		sources = append(sources, room.GetSourceJson())
		size += int64(len(room.GetSourceJson())) + perItem
		return held.grow(r.ctx, size)
	}
	switch {
	case wanted.never:
	case wanted.id != "":
		var got *mirrorv1.GetRoomResponse
		got, err = h.mirror.GetRoom(r.ctx, &mirrorv1.GetRoomRequest{ProjectId: r.project, RoomId: wanted.id})
		switch {
		case absentHere(err):
			err = nil
		case err == nil && r.params.Get("startingAfter") == "" && wanted.selects(got.GetRoom().GetSourceJson()):
			err = add(got.GetRoom())
		}
	default:
		next = r.params.Get("startingAfter")
		for more := true; err == nil && more; more = next != "" && len(sources) < limit {
			var got *mirrorv1.ListRoomsResponse
			got, err = h.mirror.ListRooms(r.ctx, &mirrorv1.ListRoomsRequest{
				ProjectId: r.project, RoomIdPrefix: wanted.prefix, View: mirrorv1.RoomView_ROOM_VIEW_FULL,
				OrderBy: "create_time desc", Metadata: wanted.metadata, OrganizationId: wanted.organization,
				UserId: wanted.user, GroupIds: wanted.groups,
				PageSize: int32(limit - len(sources)), PageToken: next, //nolint:gosec // at most maxLimit
			})
			for _, room := range got.GetRooms() {
				if err == nil {
					err = add(room)
				}
			}
			next = got.GetNextPageToken()
		}
	}
	if err = cmp.Or(err, unfetched); err != nil {
		return err
	}
	held.shrink(size)
	cursor, page := []byte("null"), []byte("null")
	if next != "" {
		cursor, _ = json.Marshal(next) // of letters and digits
		page, _ = json.Marshal(pageAfter(r, limit, next))
	}
	return h.sendJSON(w, r, a, listOf(`{"nextPage":`+string(page)+`,"nextCursor":`+string(cursor)+`,"data":[`, sources,
		`]}`)...)
}

// pageAfter is the path of the next page, which clients of before the cursor read.
func pageAfter(r *request, limit int, cursor string) string {
	params := url.Values{}
	for name, values := range r.params {
		params[name] = values
	}
	params.Set("limit", strconv.Itoa(limit))
	params.Set("startingAfter", cursor)
	return Prefix + "rooms?" + params.Encode()
}

// ageOfRooms returns the age of the list of rooms, which a sweep reads, and fails if none
// has yet: until then, rooms are known of events only.
func (h *Handler) ageOfRooms(r *request) (age, error) {
	const what = "the list of rooms"
	list := mirror.Resource{Kind: mirror.KindSweep}
	task, known, err := h.state(r, list)
	if err != nil {
		return age{}, err
	}
	if !known || task.FetchTime.IsZero() {
		return age{}, h.unfetched(r, list, what)
	}
	return age{fetched: task.FetchTime}, nil
}
