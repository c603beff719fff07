package fake

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Comment is a comment as its author writes it.
type Comment struct {
	// ID is made up if empty.
	ID     string
	UserID string
	// Body is JSON; a paragraph with Text if nil.
	Body json.RawMessage
	Text string
	// CreateTime is now if zero.
	CreateTime  time.Time
	Metadata    map[string]any
	Attachments []Attachment
}

// Attachment is a file attached to a comment.
type Attachment struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	MIMEType string `json:"mimeType"`
}

// ThreadOptions are the fields of a thread that a caller chooses.
type ThreadOptions struct {
	// ID is made up if empty.
	ID       string
	Metadata map[string]any
	// Visibility is left out of the JSON if empty.
	Visibility string
	// Comment is the first one.
	Comment Comment
}

type thread struct {
	id               string
	created, updated time.Time
	metadata         map[string]any
	resolved         bool
	visibility       string
	comments         []*comment
	source           past
}

type comment struct {
	opts      Comment
	edited    time.Time
	deleted   time.Time
	reactions []reaction
}

type reaction struct {
	emoji, user string
	created     time.Time
}

// SetFlatReactions chooses between the two published shapes of reactions: one
// entry for each user, or one for each emoji with its users, which is the usual
// one. It is a change of every thread with reactions, and no event tells of it.
func (s *Server) SetFlatReactions(flat bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flat = flat
	for _, r := range s.order {
		for _, t := range r.live {
			_ = r.renderThread(t, flat) // it could be done before
		}
		r.renderThreads()
	}
}

// CreateThread creates a thread with its first comment and returns its id.
func (s *Server) CreateThread(id string, opts ThreadOptions) (string, error) {
	s.mu.Lock()
	r, err := s.existing(id)
	if err == nil && opts.ID != "" && slices.ContainsFunc(r.live, func(t *thread) bool { return t.id == opts.ID }) {
		err = fmt.Errorf("thread %q: %w", opts.ID, ErrThreadExists)
	}
	if err != nil {
		s.mu.Unlock()
		return "", err
	}
	if opts.ID == "" {
		opts.ID = s.newID(threadPrefix)
	}
	first := s.newComment(opts.Comment)
	t := &thread{
		id: opts.ID, created: first.opts.CreateTime, updated: first.opts.CreateTime,
		metadata: maps.Clone(opts.Metadata), visibility: opts.Visibility, comments: []*comment{first},
	}
	if old := r.threads[t.id]; old != nil {
		t.source = old.source
	}
	if err := r.renderThread(t, s.flat); err != nil {
		s.mu.Unlock()
		return "", err
	}
	r.threads[t.id], r.live = t, append(r.live, t)
	r.renderThreads()
	ev := Event{RoomID: id, ThreadID: t.id, UserID: first.opts.UserID, Time: t.created}
	threadCreated, commentCreated := ev, ev
	threadCreated.Type = ThreadCreated
	commentCreated.Type, commentCreated.CommentID = CommentCreated, first.opts.ID
	s.unlockAndTell(threadCreated, commentCreated)
	return t.id, nil
}

// CreateComment adds a comment to a thread and returns its id.
func (s *Server) CreateComment(id, threadID string, c Comment) (string, error) {
	err := s.change(id, threadID, func(t *thread, ev *Event) error {
		if c.ID != "" && t.comment(c.ID) != nil {
			return fmt.Errorf("comment %q: %w", c.ID, ErrThreadExists)
		}
		added := s.newComment(c)
		c.ID = added.opts.ID
		t.comments = append(t.comments, added)
		ev.Type, ev.CommentID, ev.UserID, ev.Time = CommentCreated, c.ID, c.UserID, added.opts.CreateTime
		return nil
	})
	return c.ID, err
}

// EditComment replaces the body of a comment by a paragraph with text.
func (s *Server) EditComment(id, threadID, commentID, text string) error {
	return s.changeComment(id, threadID, commentID, func(c *comment, ev *Event) {
		c.opts.Body, c.opts.Text, c.edited = nil, text, ev.Time
		ev.Type = CommentEdited
	})
}

// SetCommentBody replaces the body of a comment by any JSON.
func (s *Server) SetCommentBody(id, threadID, commentID string, body json.RawMessage) error {
	return s.changeComment(id, threadID, commentID, func(c *comment, ev *Event) {
		c.opts.Body, c.edited = slices.Clone(body), ev.Time
		ev.Type = CommentEdited
	})
}

// SetCommentMetadata replaces the metadata of a comment.
func (s *Server) SetCommentMetadata(id, threadID, commentID string, metadata map[string]any, user string) error {
	return s.changeComment(id, threadID, commentID, func(c *comment, ev *Event) {
		c.opts.Metadata = maps.Clone(metadata)
		ev.Type, ev.UserID = CommentMetadataUpdated, user
	})
}

// AddReaction adds a user's reaction to a comment.
func (s *Server) AddReaction(id, threadID, commentID, emoji, user string) error {
	return s.changeComment(id, threadID, commentID, func(c *comment, ev *Event) {
		c.reactions = append(c.reactions, reaction{emoji, user, ev.Time})
		ev.Type, ev.Emoji, ev.UserID = CommentReactionAdded, emoji, user
	})
}

// RemoveReaction removes a user's reaction from a comment.
func (s *Server) RemoveReaction(id, threadID, commentID, emoji, user string) error {
	return s.changeComment(id, threadID, commentID, func(c *comment, ev *Event) {
		c.reactions = slices.DeleteFunc(c.reactions, func(r reaction) bool { return r.emoji == emoji && r.user == user })
		ev.Type, ev.Emoji, ev.UserID = CommentReactionRemoved, emoji, user
	})
}

// DeleteComment deletes a comment. It stays in its thread without a body; with
// the last of them the thread goes too.
func (s *Server) DeleteComment(id, threadID, commentID string) error {
	return s.changeComment(id, threadID, commentID, func(c *comment, ev *Event) {
		c.deleted, c.reactions, c.opts.Attachments, c.opts.Metadata = ev.Time, nil, nil, nil
		ev.Type = CommentDeleted
	})
}

// SetThreadMetadata replaces the metadata of a thread.
func (s *Server) SetThreadMetadata(id, threadID string, metadata map[string]any, user string) error {
	return s.change(id, threadID, func(t *thread, ev *Event) error {
		t.metadata = maps.Clone(metadata)
		ev.Type, ev.UserID = ThreadMetadataUpdated, user
		return nil
	})
}

// SetResolved marks a thread as resolved, or as not.
func (s *Server) SetResolved(id, threadID string, resolved bool, user string) error {
	return s.change(id, threadID, func(t *thread, ev *Event) error {
		t.resolved = resolved
		ev.Type, ev.UserID = ThreadMarkedAsUnresolved, user
		if resolved {
			ev.Type = ThreadMarkedAsResolved
		}
		return nil
	})
}

// SetThreadSource replaces a thread's JSON byte for byte, for what
// [ThreadOptions] cannot express. The next change of the thread undoes it. No
// event tells of it.
func (s *Server) SetThreadSource(id, threadID string, source []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, t, err := s.existingThread(id, threadID)
	if err != nil {
		return err
	}
	t.source.set(slices.Clone(source))
	r.renderThreads()
	return nil
}

// DeleteThread deletes a thread.
func (s *Server) DeleteThread(id, threadID string) error {
	s.mu.Lock()
	r, t, err := s.existingThread(id, threadID)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	r.removeThread(t)
	s.unlockAndTell(Event{Type: ThreadDeleted, RoomID: id, ThreadID: threadID, Time: s.now()})
	return nil
}

// Threads returns the ids of a room's threads, oldest first.
func (s *Server) Threads(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.existing(id)
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(r.live))
	for _, t := range r.live {
		ids = append(ids, t.id)
	}
	return ids
}

// Comments returns the ids of a thread's comments that are not deleted, in order.
func (s *Server) Comments(id, threadID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, t, err := s.existingThread(id, threadID)
	if err != nil {
		return nil
	}
	var ids []string
	for _, c := range t.comments {
		if c.deleted.IsZero() {
			ids = append(ids, c.opts.ID)
		}
	}
	return ids
}

// ThreadSource returns a thread's JSON as the API serves it, and whether the
// thread exists.
func (s *Server) ThreadSource(id, threadID string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, t, err := s.existingThread(id, threadID)
	if err != nil {
		return nil, false
	}
	return slices.Clone(t.source.now), true
}

func (s *Server) newID(prefix string) string {
	s.nextID++
	return prefix + strconv.Itoa(s.nextID)
}

// newComment fills the gaps of a comment. s.mu is held.
func (s *Server) newComment(opts Comment) *comment {
	if opts.ID == "" {
		opts.ID = s.newID(commentPrefix)
	}
	if opts.CreateTime.IsZero() {
		opts.CreateTime = s.now()
	}
	opts.Body, opts.Metadata, opts.Attachments = slices.Clone(opts.Body), maps.Clone(opts.Metadata),
		slices.Clone(opts.Attachments)
	return &comment{opts: opts}
}

// existingThread returns a thread that exists. s.mu is held.
func (s *Server) existingThread(id, threadID string) (*room, *thread, error) {
	r, err := s.existing(id)
	if err != nil {
		return nil, nil, err
	}
	t := r.threads[threadID]
	if t == nil || t.source.now == nil {
		return nil, nil, fmt.Errorf("thread %q: %w", threadID, ErrNoThread)
	}
	return r, t, nil
}

// comment returns a comment that is not deleted.
func (t *thread) comment(id string) *comment {
	i := slices.IndexFunc(t.comments, func(c *comment) bool { return c.opts.ID == id && c.deleted.IsZero() })
	if i < 0 {
		return nil
	}
	return t.comments[i]
}

// change alters a thread and tells of the event that f describes.
func (s *Server) change(id, threadID string, f func(*thread, *Event) error) error {
	s.mu.Lock()
	r, t, err := s.existingThread(id, threadID)
	ev := Event{RoomID: id, ThreadID: threadID, Time: s.now()}
	if err == nil {
		err = f(t, &ev)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	events := []Event{ev}
	if slices.ContainsFunc(t.comments, func(c *comment) bool { return c.deleted.IsZero() }) {
		t.updated = ev.Time
		if err := r.renderThread(t, s.flat); err != nil {
			s.mu.Unlock()
			return err
		}
		r.renderThreads()
	} else {
		r.removeThread(t)
		events = append(events, Event{Type: ThreadDeleted, RoomID: id, ThreadID: threadID, Time: ev.Time})
	}
	s.unlockAndTell(events...)
	return nil
}

func (s *Server) changeComment(id, threadID, commentID string, f func(*comment, *Event)) error {
	return s.change(id, threadID, func(t *thread, ev *Event) error {
		c := t.comment(commentID)
		if c == nil {
			return fmt.Errorf("comment %q: %w", commentID, ErrNoThread)
		}
		ev.CommentID = commentID
		f(c, ev)
		return nil
	})
}

// removeThread deletes a thread. s.mu is held.
func (r *room) removeThread(t *thread) {
	t.source.set(nil)
	r.live = slices.DeleteFunc(r.live, func(o *thread) bool { return o == t })
	r.renderThreads()
}

// renderThreads makes the list of a room's threads. s.mu is held.
func (r *room) renderThreads() {
	body := []byte(`{"data":[`)
	for i, t := range r.live {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, t.source.now...)
	}
	r.list.set(append(body, "]}"...))
}

// renderThread makes a thread's JSON in the published form. s.mu is held.
func (r *room) renderThread(t *thread, flat bool) error {
	comments := make([]any, 0, len(t.comments))
	for _, c := range t.comments {
		comments = append(comments, c.render(r.id, t.id, flat))
	}
	b, err := marshal(struct {
		Type       string         `json:"type"`
		ID         string         `json:"id"`
		RoomID     string         `json:"roomId"`
		CreatedAt  string         `json:"createdAt"`
		UpdatedAt  string         `json:"updatedAt"`
		Metadata   map[string]any `json:"metadata"`
		Resolved   bool           `json:"resolved"`
		Visibility string         `json:"visibility,omitempty"`
		Comments   []any          `json:"comments"`
	}{"thread", t.id, r.id, moment(t.created), moment(t.updated), orEmpty(t.metadata), t.resolved, t.visibility, comments})
	if err != nil { // metadata or a body that is not JSON
		return fmt.Errorf("thread %q: %w", t.id, err)
	}
	t.source.set(b)
	return nil
}

func (c *comment) render(roomID, threadID string, flat bool) any {
	type attachment struct {
		Type string `json:"type"`
		Attachment
	}
	attachments := make([]attachment, 0, len(c.opts.Attachments))
	for _, a := range c.opts.Attachments {
		attachments = append(attachments, attachment{"attachment", a})
	}
	out := struct {
		Type        string          `json:"type"`
		ID          string          `json:"id"`
		ThreadID    string          `json:"threadId"`
		RoomID      string          `json:"roomId"`
		UserID      string          `json:"userId"`
		CreatedAt   string          `json:"createdAt"`
		EditedAt    string          `json:"editedAt,omitempty"`
		DeletedAt   string          `json:"deletedAt,omitempty"`
		Body        json.RawMessage `json:"body,omitempty"`
		Metadata    map[string]any  `json:"metadata"`
		Reactions   []any           `json:"reactions"`
		Attachments []attachment    `json:"attachments"`
	}{
		Type: "comment", ID: c.opts.ID, ThreadID: threadID, RoomID: roomID, UserID: c.opts.UserID,
		CreatedAt: moment(c.opts.CreateTime),
		Metadata:  orEmpty(c.opts.Metadata), Reactions: renderReactions(c.reactions, flat), Attachments: attachments,
	}
	if !c.edited.IsZero() {
		out.EditedAt = moment(c.edited)
	}
	switch {
	case !c.deleted.IsZero():
		out.DeletedAt = moment(c.deleted)
	case c.opts.Body != nil:
		out.Body = c.opts.Body
	default:
		// A string can always be encoded.
		text, _ := marshal(c.opts.Text)
		out.Body = fmt.Appendf(nil, `{"version":1,"content":[{"type":"paragraph","children":[{"text":%s}]}]}`, text)
	}
	return out
}

// renderReactions lists one entry for each user if flat, else one for each emoji.
func renderReactions(reactions []reaction, flat bool) []any {
	type user struct {
		ID string `json:"id"`
	}
	type grouped struct {
		Emoji     string `json:"emoji"`
		CreatedAt string `json:"createdAt"`
		Users     []user `json:"users"`
	}
	out := []any{}
	groups := make(map[string]*grouped)
	for _, r := range reactions {
		if flat {
			out = append(out, struct {
				Emoji     string `json:"emoji"`
				CreatedAt string `json:"createdAt"`
				UserID    string `json:"userId"`
			}{r.emoji, moment(r.created), r.user})
			continue
		}
		g := groups[r.emoji]
		if g == nil {
			g = &grouped{Emoji: r.emoji, CreatedAt: moment(r.created)}
			groups[r.emoji] = g
			out = append(out, g)
		}
		g.Users = append(g.Users, user{r.user})
	}
	return out
}

// readThread answers a thread. What it is denied with tells whether the room is
// there.
func (s *Server) readThread(id, threadID string, stale bool) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[id]
	if r == nil || s.foreign {
		return roomNotFound(id)
	}
	var source past
	if t := r.threads[threadID]; t != nil {
		source = t.source
	}
	if ans := s.readShelf(&source, stale, "Thread"); ans.status == http.StatusOK || r.body.now != nil {
		return ans
	}
	return roomNotFound(id)
}

// lastSegment is the last segment of the path, decoded.
func lastSegment(r *http.Request) string {
	path := r.URL.EscapedPath()
	id, _ := url.PathUnescape(path[strings.LastIndexByte(path, '/')+1:]) // net/http has refused what cannot be
	return id
}
