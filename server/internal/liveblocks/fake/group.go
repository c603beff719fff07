package fake

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// PutGroup creates the group, or replaces its members. No event reports it.
func (s *Server) PutGroup(id string, members ...string) {
	s.mu.Lock()
	now := moment(s.now())
	s.mu.Unlock()
	list := make([]any, len(members))
	for i, m := range members {
		list[i] = map[string]any{"id": m, "addedAt": now}
	}
	// Strings can always be encoded.
	source, _ := marshal(map[string]any{
		"type": "group", "id": id, "organizationId": "default", "createdAt": now, "updatedAt": now,
		"scopes": map[string]any{"mention": true}, "members": list,
	})
	s.SetGroup(id, source)
}

// SetGroup replaces a group byte for byte; nil deletes it.
func (s *Server) SetGroup(id string, source []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups.set(id, source)
}

// GroupSource returns a group as the API serves it, and whether it exists.
func (s *Server) GroupSource(id string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups.get(id)
}

// memberOf reads the user out of the path of the list of a user's groups; empty if it is
// another path.
func memberOf(r *http.Request) string {
	if at := segmentsOf(r); len(at) == 3 && at[0] == "users" && at[2] == "groups" {
		return at[1]
	}
	return ""
}

// groupPath reads the id out of the path of a group; it is empty for the lists.
func groupPath(r *http.Request) (id string, ok bool) {
	if memberOf(r) != "" {
		return "", true
	}
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v2/groups")
	if !ok || rest == "" {
		return "", ok
	}
	id, err := url.PathUnescape(strings.TrimPrefix(rest, "/"))
	return id, err == nil && rest[0] == '/' && id != "" && !strings.Contains(rest[1:], "/")
}

// listGroups answers a page of groups by id, those of a member if one is named. The cursor is
// the last id of the page before.
func (s *Server) listGroups(member string, q url.Values) answer {
	limit, err := pageLimit(q)
	if err != nil {
		return unprocessable(err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cursor := ""
	var page [][]byte
	for _, id := range slices.Sorted(maps.Keys(s.groups)) {
		source := s.groups[id].now
		if source == nil || id <= q.Get("startingAfter") || s.foreign || member != "" && !has(source, member) {
			continue
		}
		if len(page) == limit {
			return pageAnswer(cursor, page)
		}
		cursor, page = id, append(page, source)
	}
	return pageAnswer("", page)
}

// has reports whether a user is in a group.
func has(source []byte, user string) bool {
	var group struct {
		Members []struct {
			ID string `json:"id"`
		} `json:"members"`
	}
	_ = json.Unmarshal(source, &group) // what is no group has no members
	for _, m := range group.Members {
		if m.ID == user {
			return true
		}
	}
	return false
}
