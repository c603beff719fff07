package fake

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// segmentsOf returns the decoded segments of a path below /v2.
func segmentsOf(r *http.Request) []string {
	segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/v2/"), "/")
	for i, s := range segments {
		segments[i], _ = url.PathUnescape(s) // net/http has refused what cannot be
	}
	return segments
}

// isWrite reports whether a call changes a thread, a comment or a group.
func isWrite(r *http.Request) bool {
	at := segmentsOf(r)
	if r.Method != http.MethodPost && r.Method != http.MethodDelete {
		return false
	}
	return at[0] == "groups" || len(at) > 2 && at[0] == "rooms" && at[2] == "threads"
}

// written is the body of a write.
type written struct {
	ID         string          `json:"id"`
	MemberIDs  []string        `json:"memberIds"`
	UserID     string          `json:"userId"`
	Emoji      string          `json:"emoji"`
	Visibility string          `json:"visibility"`
	Metadata   map[string]any  `json:"metadata"`
	Body       json.RawMessage `json:"body"`
	Comment    struct {
		UserID   string          `json:"userId"`
		Body     json.RawMessage `json:"body"`
		Metadata map[string]any  `json:"metadata"`
	} `json:"comment"`
}

// write changes a thread, a comment or a group.
func (s *Server) write(r *http.Request) answer {
	var in written
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPost))
	if err != nil || len(body) > 0 && json.Unmarshal(body, &in) != nil {
		return unprocessable("the body must be a JSON object")
	}
	at := segmentsOf(r)
	if at[0] == "groups" {
		return s.writeGroup(r.Method, at[1:], in)
	}
	return s.writeThread(r.Method, at[1], at[3:], in)
}

// writeGroup does what is below /groups.
func (s *Server) writeGroup(method string, at []string, in written) answer {
	if method == http.MethodPost && len(at) == 0 {
		at = []string{in.ID, "add-members"}
	}
	source, exists := s.GroupSource(at[0])
	switch {
	case len(at) > 1 && method == http.MethodPost && (exists || at[0] == in.ID):
		var group struct {
			Members []struct {
				ID string `json:"id"`
			} `json:"members"`
		}
		_ = json.Unmarshal(source, &group) // it is of PutGroup, or there is none
		var members []string
		for _, m := range group.Members {
			members = append(members, m.ID)
		}
		if at[1] == "remove-members" {
			members = slices.DeleteFunc(members, func(id string) bool { return slices.Contains(in.MemberIDs, id) })
		} else {
			members = append(members, in.MemberIDs...)
		}
		s.PutGroup(at[0], members...)
		source, _ = s.GroupSource(at[0])
		return jsonAnswer(http.StatusOK, source)
	case method == http.MethodDelete && exists:
		s.SetGroup(at[0], nil)
		return answer{status: http.StatusNoContent}
	}
	return errorAnswer(http.StatusNotFound, "RESOURCE_NOT_FOUND", "Group not found")
}

// writeThread does what is below /threads of a room.
func (s *Server) writeThread(method, room string, at []string, in written) answer {
	var err error
	made := func() answer { return answer{status: http.StatusNoContent} }
	thread, comment, verb := "", "", method
	if len(at) > 0 {
		thread, at = at[0], at[1:]
		if verb += " thread"; len(at) > 0 && at[0] == "comments" {
			if verb += " comments"; len(at) > 1 {
				comment, verb, at = at[1], method+" comment", at[1:]
			}
			at = at[1:]
		}
		verb = strings.Join(append([]string{verb}, at...), " ")
	}
	theThread := func() answer { return s.readThread(room, thread, false) }
	theComment := func() answer { return s.readComment(room, thread, comment) }
	switch verb {
	case "POST":
		made = theThread
		thread, err = s.CreateThread(room, ThreadOptions{
			Metadata: in.Metadata, Visibility: in.Visibility,
			Comment: Comment{UserID: in.Comment.UserID, Body: in.Comment.Body, Metadata: in.Comment.Metadata},
		})
	case "DELETE thread":
		err = s.DeleteThread(room, thread)
	case "POST thread metadata":
		made = theThread
		err = s.SetThreadMetadata(room, thread, in.Metadata, in.UserID)
	case "POST thread mark-as-resolved", "POST thread mark-as-unresolved":
		made = theThread
		err = s.SetResolved(room, thread, verb == "POST thread mark-as-resolved", in.UserID)
	case "POST thread comments":
		made = theComment
		comment, err = s.CreateComment(room, thread, Comment{UserID: in.UserID, Body: in.Body, Metadata: in.Metadata})
	case "POST comment":
		made = theComment
		err = s.SetCommentBody(room, thread, comment, in.Body)
	case "DELETE comment":
		err = s.DeleteComment(room, thread, comment)
	case "POST comment metadata":
		made = theComment
		err = s.SetCommentMetadata(room, thread, comment, in.Metadata, in.UserID)
	case "POST comment add-reaction":
		made = func() answer {
			b, _ := marshal(map[string]any{"emoji": in.Emoji, "userId": in.UserID, "createdAt": moment(s.now())})
			return jsonAnswer(http.StatusOK, b)
		}
		err = s.AddReaction(room, thread, comment, in.Emoji, in.UserID)
	case "POST comment remove-reaction":
		err = s.RemoveReaction(room, thread, comment, in.Emoji, in.UserID)
	default:
		return errorAnswer(http.StatusNotFound, "Not Found", "")
	}
	switch {
	case errors.Is(err, ErrNoRoom):
		return roomNotFound(room)
	case errors.Is(err, ErrNoThread):
		return errorAnswer(http.StatusNotFound, "RESOURCE_NOT_FOUND", "Thread not found")
	case err != nil:
		return unprocessable(err.Error())
	}
	return made()
}

// readComment answers a comment as it is in its thread.
func (s *Server) readComment(room, threadID, id string) answer {
	source, _ := s.ThreadSource(room, threadID)
	var thread struct {
		Comments []json.RawMessage `json:"comments"`
	}
	_ = json.Unmarshal(source, &thread) // it was rendered here, or it is gone
	for _, c := range thread.Comments {
		var named struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(c, &named) == nil && named.ID == id {
			return jsonAnswer(http.StatusOK, c)
		}
	}
	return errorAnswer(http.StatusNotFound, "RESOURCE_NOT_FOUND", "Comment not found")
}
