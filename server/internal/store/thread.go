package store

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ThreadRows is a thread, as package thread reads it, with the additional columns
// of its row.
type ThreadRows struct {
	Thread mirror.Thread
	// MetadataText is the metadata with every value as a string; nil if Metadata is
	// nil.
	MetadataText []byte
	// CommentCount counts the comments that are not deleted.
	CommentCount int
}

// RowsOf returns the rows of a thread.
func RowsOf(t mirror.Thread) ThreadRows {
	rows := ThreadRows{Thread: t, MetadataText: metadataText(t.Metadata)}
	for _, c := range t.Comments {
		if c.DeleteTime.IsZero() {
			rows.CommentCount++
		}
	}
	return rows
}

// Without removes the JSON of each row for which refusal returns a reason, and
// records it in DataProblem.
func (r ThreadRows) Without(refusal func(values ...[]byte) (string, error)) (ThreadRows, error) {
	lost := func(what string, values ...*[]byte) error {
		list := make([][]byte, len(values))
		for i, v := range values {
			list[i] = *v
		}
		problem, err := refusal(list...)
		if err != nil || problem == "" {
			return err
		}
		for _, v := range values {
			*v = nil
		}
		if problem = what + problem; !strings.Contains(r.Thread.DataProblem, problem) {
			r.Thread.DataProblem = strings.TrimPrefix(r.Thread.DataProblem+"; "+problem, "; ")
		}
		return nil
	}
	err := lost("metadata ", &r.Thread.Metadata, &r.MetadataText)
	r.Thread.Comments = slices.Clone(r.Thread.Comments)
	for i := range r.Thread.Comments {
		c := &r.Thread.Comments[i]
		err = errors.Join(err, lost("JSON of a comment is ", &c.Body, &c.Metadata))
	}
	return r, err
}

// The kinds of mention.
const (
	mentionUser  = "user"
	mentionGroup = "group"
)

// MentionRow is one row of a mention in a comment.
type MentionRow struct {
	// Kind and ID are those of the user or group.
	Kind, ID string
	// Via is the group through which a user is mentioned; empty if directly.
	Via string
}

// MentionRowsOf returns the mention rows of a comment of [ThreadRows].
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

// MentionsOf returns the mentions in the rows of one comment, by kind and id.
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
		if i < 0 { // the row of the group is missing
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

// JSONProblem returns why an engine would refuse raw as JSON; empty if no reason is
// known.
func JSONProblem(raw []byte) string {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return "is not JSON"
	}
	return v.Problem()
}

// Present returns the column value for bytes that may be missing: null if they are.
func Present(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// Queryable returns JSON for a column and, if an engine is known to refuse it, nil
// and why. Without JSON there is neither.
func Queryable(raw []byte) (data []byte, problem string) {
	if len(raw) == 0 {
		return nil, ""
	}
	if problem = JSONProblem(raw); problem != "" {
		return nil, problem
	}
	return raw, ""
}

// metadataText returns a JSON object with the same members as strings, for
// comparison with a filter; nil if metadata is not an object.
func metadataText(metadata []byte) []byte {
	v, err := rawjson.Parse(metadata)
	if err != nil || !v.IsObject() {
		return nil
	}
	texts := make(map[string]string)
	for name, value := range v.Members() {
		texts[name] = string(value)
		if value.IsString() {
			texts[name] = value.Exact()
		}
	}
	return MetadataFilter(texts)
}

// MetadataFilter returns the JSON object that a thread's metadata, as text, must
// contain; nil if no metadata can.
func MetadataFilter(members map[string]string) []byte {
	for name, value := range members {
		if !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(name+value, 0) {
			return nil
		}
	}
	b, err := json.Marshal(members)
	if err != nil {
		return nil // not strings
	}
	return b
}

// Text makes s valid for a text column, which accepts neither NUL nor invalid
// UTF-8. It is for descriptions; ids and content are never altered.
func Text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
