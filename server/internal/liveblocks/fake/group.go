package fake

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
	if s.groups == nil {
		s.groups = make(map[string]*past)
	}
	if s.groups[id] == nil {
		s.groups[id] = &past{}
	}
	s.groups[id].set(slices.Clone(source))
}

// GroupSource returns a group as the API serves it, and whether it exists.
func (s *Server) GroupSource(id string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.groups[id]
	if p == nil || p.now == nil {
		return nil, false
	}
	return slices.Clone(p.now), true
}

// groupPath reads the id out of the path of a group; it is empty for the list.
func groupPath(r *http.Request) (id string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v2/groups")
	if !ok || rest == "" {
		return "", ok
	}
	id, err := url.PathUnescape(strings.TrimPrefix(rest, "/"))
	return id, err == nil && rest[0] == '/' && id != "" && !strings.Contains(rest[1:], "/")
}

func (s *Server) readGroup(id string, stale bool) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.groups[id]; p != nil && !s.foreign {
		body := p.now
		if stale {
			body = p.before
		}
		if body != nil {
			return jsonAnswer(http.StatusOK, body)
		}
	}
	return errorAnswer(http.StatusNotFound, "RESOURCE_NOT_FOUND", "Group not found")
}

// listGroups answers a page of groups by id. The cursor is the last id of the
// page before.
func (s *Server) listGroups(q url.Values) answer {
	limit := 20
	if v := q.Get("limit"); v != "" {
		var err error
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > 100 {
			return unprocessable("limit must be between 1 and 100")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id, p := range s.groups {
		if p.now != nil && id > q.Get("startingAfter") && !s.foreign {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	page := struct {
		NextCursor *string           `json:"nextCursor"`
		Data       []json.RawMessage `json:"data"`
	}{Data: []json.RawMessage{}}
	if len(ids) > limit {
		ids = ids[:limit]
		page.NextCursor = &ids[limit-1]
	}
	for _, id := range ids {
		page.Data = append(page.Data, s.groups[id].now)
	}
	body, err := marshal(page)
	if err != nil { // SetGroup was given something that is not JSON
		return errorAnswer(http.StatusInternalServerError, "INTERNAL_ERROR", "a group has no valid source")
	}
	return jsonAnswer(http.StatusOK, body)
}
