package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ThreadRows is a thread with everything taken out that no engine can store. What
// was taken out is still in the sources.
type ThreadRows struct {
	// Thread has comments with distinct ids, each with distinct reactions,
	// attachments and mentions. JSON that cannot be stored is nil. DataProblem says
	// what is missing.
	Thread mirror.Thread
	// MetadataText is the metadata with every value as a string; nil where Metadata
	// is.
	MetadataText []byte
	// CommentCount counts the comments that are not deleted.
	CommentCount int
}

// RowsOf makes the rows of a thread.
func RowsOf(t mirror.Thread) ThreadRows {
	var problems []string
	note := func(format string, args ...any) {
		if p := fmt.Sprintf(format, args...); !slices.Contains(problems, p) {
			problems = append(problems, p)
		}
	}
	if t.DataProblem != "" {
		note("%s", t.DataProblem)
	}
	columnOf := func(what string, raw []byte) []byte {
		if len(raw) == 0 || string(raw) == "null" {
			return nil
		}
		if problem := JSONProblem(raw); problem != "" {
			note("%s %s", what, problem)
			return nil
		}
		return raw
	}
	valid := func(what, id string, limit int) bool {
		if mirror.ValidID(id, limit) {
			return true
		}
		note("%s has an id that cannot be stored", what)
		return false
	}

	rows := ThreadRows{Thread: t}
	rows.Thread.Metadata = columnOf("metadata", t.Metadata)
	rows.MetadataText = metadataText(rows.Thread.Metadata)
	if !mirror.ValidID(t.Visibility, mirror.MaxResourceID) {
		rows.Thread.Visibility = ""
	}
	rows.Thread.Comments = nil
	seen := make(map[string]bool, len(t.Comments))
	for _, c := range t.Comments {
		if !valid("a comment", c.ID, mirror.MaxResourceID) || seen[c.ID] {
			continue
		}
		seen[c.ID] = true
		if c.UserID != "" && !valid("the author of a comment", c.UserID, mirror.MaxUserID) {
			c.UserID = ""
		}
		c.Body, c.Metadata = columnOf("the body of a comment", c.Body), columnOf("the metadata of a comment", c.Metadata)
		c.Reactions = distinct(c.Reactions, func(r mirror.Reaction) ([2]string, bool) {
			return [2]string{r.Emoji, r.UserID}, valid("a reaction", r.Emoji, mirror.MaxEmoji) &&
				valid("a reaction", r.UserID, mirror.MaxUserID)
		})
		c.Attachments = distinct(c.Attachments, func(a mirror.Attachment) (string, bool) {
			return a.ID, valid("an attachment", a.ID, mirror.MaxResourceID)
		})
		c.Mentions = distinct(c.Mentions, func(m mirror.Mention) ([2]string, bool) {
			limit := mirror.MaxUserID
			if m.Kind == mentionGroup {
				limit = mirror.MaxResourceID
			}
			return [2]string{m.Kind, m.ID}, (m.Kind == mentionUser || m.Kind == mentionGroup) && valid("a mention", m.ID, limit)
		})
		for i := range c.Mentions {
			c.Mentions[i].UserIDs = distinct(c.Mentions[i].UserIDs, func(id string) (string, bool) {
				return id, valid("a mention", id, mirror.MaxUserID)
			})
		}
		if c.DeleteTime.IsZero() {
			rows.CommentCount++
		}
		rows.Thread.Comments = append(rows.Thread.Comments, c)
	}
	rows.Thread.DataProblem = strings.Join(problems, "; ")
	return rows
}

// WithoutJSON leaves out all JSON, since an engine refused some of it.
func (r ThreadRows) WithoutJSON(problem string) ThreadRows {
	if r.Thread.DataProblem != "" {
		problem = r.Thread.DataProblem + "; " + problem
	}
	r.MetadataText, r.Thread.Metadata, r.Thread.DataProblem = nil, nil, problem
	r.Thread.Comments = slices.Clone(r.Thread.Comments)
	for i := range r.Thread.Comments {
		r.Thread.Comments[i].Body, r.Thread.Comments[i].Metadata = nil, nil
	}
	return r
}

// The kinds of mention.
const (
	mentionUser  = "user"
	mentionGroup = "group"
)

// MentionRow is one row about whom a comment mentions.
type MentionRow struct {
	// Kind and ID are those of the user or group.
	Kind, ID string
	// Via is the group that a user is mentioned as one of; empty if he is himself.
	Via string
}

// MentionRowsOf makes the rows of a comment of [ThreadRows].
func MentionRowsOf(c mirror.Comment) []MentionRow {
	var rows []MentionRow
	for _, m := range c.Mentions {
		rows = append(rows, MentionRow{Kind: m.Kind, ID: m.ID})
		if m.Kind != mentionGroup {
			continue
		}
		for _, user := range m.UserIDs {
			rows = append(rows, MentionRow{Kind: mentionUser, ID: user, Via: m.ID})
		}
	}
	return rows
}

// MentionsOf is what rows of one comment tell, by kind and id.
func MentionsOf(rows []MentionRow) []mirror.Mention {
	var mentions []mirror.Mention
	for _, row := range rows {
		if row.Via == "" {
			mentions = append(mentions, mirror.Mention{Kind: row.Kind, ID: row.ID})
		}
	}
	for _, row := range rows {
		if row.Via == "" {
			continue
		}
		i := slices.IndexFunc(mentions, func(m mirror.Mention) bool { return m.Kind == mentionGroup && m.ID == row.Via })
		if i < 0 { // the row of the group is gone
			i = len(mentions)
			mentions = append(mentions, mirror.Mention{Kind: mentionGroup, ID: row.Via})
		}
		mentions[i].UserIDs = append(mentions[i].UserIDs, row.ID)
	}
	slices.SortFunc(mentions, func(a, b mirror.Mention) int {
		return strings.Compare(a.Kind+"\x00"+a.ID, b.Kind+"\x00"+b.ID)
	})
	return mentions
}

// distinct returns those of list that can be kept, the first of each key.
func distinct[V any, K comparable](list []V, key func(V) (K, bool)) []V {
	var out []V
	seen := make(map[K]bool, len(list))
	for _, v := range list {
		if k, ok := key(v); ok && !seen[k] {
			seen[k] = true
			out = append(out, v)
		}
	}
	return out
}

// JSONProblem says why an engine would refuse raw as JSON; empty if nothing is
// known against it.
func JSONProblem(raw []byte) string {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return "is not JSON"
	}
	return v.Problem()
}

// metadataText is a JSON object with the same members as strings, as they are
// compared with those of a filter; nil if metadata is no object.
func metadataText(metadata []byte) []byte {
	var members map[string]json.RawMessage
	if metadata == nil || json.Unmarshal(metadata, &members) != nil {
		return nil
	}
	texts := make(map[string]string, len(members))
	for name, raw := range members {
		var s string
		if json.Unmarshal(raw, &s) != nil || raw[0] != '"' {
			s = string(raw)
		}
		texts[name] = s
	}
	return MetadataFilter(texts)
}

// MetadataFilter is the JSON object that a thread's metadata, as text, has to
// contain; nil if no metadata can.
func MetadataFilter(members map[string]string) []byte {
	for name, value := range members {
		if !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(name+value, 0) {
			return nil
		}
	}
	b, err := json.Marshal(members)
	if err != nil {
		return nil // not of strings
	}
	return b
}
