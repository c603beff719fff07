// Package thread reads comment threads as returned by Liveblocks' REST API.
//
// It is lenient: a thread must have an id; anything else that is missing or
// malformed reads as absent. What cannot be stored is left out and named in the
// thread's DataProblem. Its Source is complete.
package thread

import (
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The errors of Parse and ParseComment, in addition to [rawjson.ErrSyntax].
var (
	// ErrID means that a thread or comment has no id that can be stored, or is not
	// a JSON object.
	ErrID = errors.New("not an object with an id that can be stored")
)

// maxVisibility bounds what is stored as a thread's visibility, in bytes.
const maxVisibility = 64

// Parse reads a thread to be stored. The caller sets Project, Room and Freshness.
// The result shares memory with raw.
//
// Metadata, and the Body and Metadata of comments, are nil if SQL databases refuse
// them as JSON. The errors are [rawjson.ErrSyntax], [ErrID] and [listed.ErrDepth]; none
// quotes raw.
func Parse(raw []byte) (mirror.Thread, error) {
	t, err := ParseExact(raw)
	storable(&t)
	return t, err
}

// ParseExact is like [Parse], for a thread to be shown: it always sets Metadata and
// Body.
func ParseExact(raw []byte) (mirror.Thread, error) {
	v, err := parse(raw)
	if err != nil {
		return mirror.Thread{}, err
	}
	t, ok := thread(v)
	if !ok {
		return mirror.Thread{}, ErrID
	}
	return t, nil
}

// ParseComment reads a comment to be shown, as [ParseExact] does. It does not
// report what it leaves out.
func ParseComment(raw []byte) (mirror.Comment, error) {
	v, err := parse(raw)
	if err != nil {
		return mirror.Comment{}, err
	}
	c, ok := comment(v, &problems{})
	if !ok {
		return mirror.Comment{}, ErrID
	}
	return c, nil
}

// parse returns the value of raw if its nesting is bounded, and so later recursion.
func parse(raw []byte) (rawjson.Value, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	if v.Depth() > listed.MaxDepth {
		return nil, listed.ErrDepth
	}
	return v, nil
}

// put adds v to list, or replaces the element with the same id.
func put[T any](list []T, at map[string]int, id string, v T) []T {
	if i, ok := at[id]; ok {
		list[i] = v
		return list
	}
	at[id] = len(list)
	return append(list, v)
}

// problems collects the reasons why something is not stored, without duplicates.
type problems struct{ list []string }

func (p *problems) add(problem string) {
	if !slices.Contains(p.list, problem) {
		p.list = append(p.list, problem)
	}
}

// id returns the id in v, or records that the element is left out.
func (p *problems) id(v rawjson.Value, limit int, what string) (string, bool) {
	id := v.ID(limit)
	if id == "" {
		p.add(what + " has no id that can be stored")
	}
	return id, id != ""
}

// column records a problem if SQL databases refuse v as JSON.
func (p *problems) column(v rawjson.Value, what string) {
	if problem := v.Problem(); problem != "" {
		p.add(what + " " + problem)
	}
}

// storable removes from t what SQL databases refuse as JSON.
func storable(t *mirror.Thread) {
	if t.DataProblem == "" {
		return
	}
	leave := func(v *[]byte) {
		if rawjson.Value(*v).Problem() != "" {
			*v = nil
		}
	}
	leave(&t.Metadata)
	for i := range t.Comments {
		leave(&t.Comments[i].Body)
		leave(&t.Comments[i].Metadata)
	}
}

func thread(v rawjson.Value) (mirror.Thread, bool) {
	t := mirror.Thread{Source: v}
	var p problems
	var comments rawjson.Value
	for name, value := range v.Members() {
		switch name {
		case "id":
			t.ID = value.ID(mirror.MaxResourceID)
		case "createdAt":
			t.CreateTime = value.Time()
		case "updatedAt":
			t.UpdateTime = value.Time()
		case "resolved":
			t.Resolved = value.IsTrue()
		case "visibility":
			t.Visibility = value.ID(maxVisibility)
		case "metadata":
			t.Metadata = value.Object()
		case "comments":
			comments = value
		}
	}
	if t.ID == "" {
		return mirror.Thread{}, false
	}
	t.SHA256 = sha256.Sum256(v.AppendCanonical(make([]byte, 0, len(v))))
	p.column(t.Metadata, "the metadata")
	at := map[string]int{}
	for element := range comments.Elements() {
		c, ok := comment(element, &p)
		if !ok {
			continue
		}
		c.Thread = t.ID
		p.column(c.Body, "the body of a comment")
		p.column(c.Metadata, "the metadata of a comment")
		t.Comments = put(t.Comments, at, c.ID, c)
	}
	t.DataProblem = strings.Join(p.list, "; ")
	return t, true
}

func comment(v rawjson.Value, p *problems) (mirror.Comment, bool) {
	c := mirror.Comment{Source: v}
	var id, user, body, reactions, attachments rawjson.Value
	for name, value := range v.Members() {
		switch name {
		case "id":
			id = value
		case "threadId":
			c.Thread = value.ID(mirror.MaxResourceID)
		case "userId":
			user = value
		case "createdAt":
			c.CreateTime = value.Time()
		case "editedAt":
			c.EditTime = value.Time()
		case "deletedAt":
			c.DeleteTime = value.Time()
		case "body":
			body = value.Object()
		case "metadata":
			c.Metadata = value.Object()
		case "reactions":
			reactions = value
		case "attachments":
			attachments = value
		}
	}
	var ok bool
	if c.ID, ok = p.id(id, mirror.MaxResourceID, "a comment"); !ok {
		return mirror.Comment{}, false
	}
	if !user.IsNull() {
		c.UserID, _ = p.id(user, mirror.MaxUserID, "the author of a comment")
	}
	if c.DeleteTime.IsZero() {
		c.Body = body
		c.Text, c.Markdown = render(body)
		c.Mentions = mentions(body, p)
	}
	c.Reactions = parseReactions(reactions, p)
	c.Attachments = parseAttachments(attachments, p)
	return c, true
}

// parseReactions reads reactions in both published forms: one for each emoji with
// its users, and one for each user.
func parseReactions(v rawjson.Value, p *problems) []mirror.Reaction {
	var out []mirror.Reaction
	type key struct{ emoji, user string }
	seen := map[key]bool{}
	for element := range v.Elements() {
		emoji, ok := p.id(element.Get("emoji"), mirror.MaxEmoji, "the emoji of a reaction")
		if !ok {
			continue
		}
		add := func(id rawjson.Value) {
			user, ok := p.id(id, mirror.MaxUserID, "the user of a reaction")
			if k := (key{emoji, user}); ok && !seen[k] {
				seen[k] = true
				out = append(out, mirror.Reaction{Emoji: emoji, UserID: user, CreateTime: element.Get("createdAt").Time()})
			}
		}
		if users := element.Get("users"); users.IsArray() {
			for user := range users.Elements() {
				add(user.Get("id"))
			}
		} else {
			add(element.Get("userId"))
		}
	}
	return out
}

func parseAttachments(v rawjson.Value, p *problems) []mirror.Attachment {
	var out []mirror.Attachment
	at := map[string]int{}
	for element := range v.Elements() {
		id, ok := p.id(element.Get("id"), mirror.MaxResourceID, "an attachment")
		if !ok {
			continue
		}
		size, _ := element.Get("size").Int()
		out = put(out, at, id, mirror.Attachment{
			ID: id, Name: element.Get("name").Text(), MIMEType: element.Get("mimeType").Text(), Size: max(size, 0),
		})
	}
	return out
}

// mentions returns the users and groups that a body mentions, without duplicates.
func mentions(body rawjson.Value, p *problems) []mirror.Mention {
	var out []mirror.Mention
	type key struct{ kind, id, member string }
	at := map[key]int{}
	var walk func(rawjson.Value)
	walk = func(list rawjson.Value) {
		for element := range list.Elements() {
			if element.Get("type").Exact() != "mention" {
				walk(element.Get("children"))
				continue
			}
			k := key{kind: "user"} // older mentions have no kind
			if kind := element.Get("kind"); !kind.IsNull() {
				k.kind = kind.Exact()
			}
			if k.kind != "user" && k.kind != "group" {
				continue
			}
			var ok bool
			if k.id, ok = p.id(element.Get("id"), mirror.MaxUserID, "a mention"); !ok {
				continue
			}
			i, known := at[k]
			if !known {
				i = len(out)
				at[k] = i
				out = append(out, mirror.Mention{Kind: k.kind, ID: k.id})
			}
			if k.kind != "group" {
				continue
			}
			for user := range element.Get("userIds").Elements() {
				var ok bool
				if k.member, ok = p.id(user, mirror.MaxUserID, "a member of a group that is mentioned"); !ok {
					continue
				}
				if _, known := at[k]; !known {
					at[k] = i
					out[i].UserIDs = append(out[i].UserIDs, k.member)
				}
			}
		}
	}
	walk(body.Get("content"))
	return out
}
