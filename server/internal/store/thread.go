package store

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// threadKind is how threads are stored, with the rows of their comments.
var threadKind = &ItemKind{
	Kind: mirror.KindThread, ID: "thread_id", FromList: true,
	Head: ItemTable{Name: "mirror_thread", Refused: "metadata ", Columns: []Column{
		{sourceColumn, ColumnBytes},
		{"create_time", ColumnTime},
		{"update_time", ColumnTime},
		{"resolved", ColumnBool},
		{"visibility", ColumnID},
		{"metadata", ColumnJSON},
		{"metadata_text", ColumnJSON},
		{"comment_count", ColumnInt},
		{problemColumn, ColumnText},
		{indexedColumn, ColumnBytes},
	}},
	Parts: []ItemTable{
		{Name: "mirror_comment", Key: 1, Refused: "JSON of a comment is ", Columns: []Column{
			{"comment_id", ColumnID},
			{"user_id", ColumnID},
			{"create_time", ColumnTime},
			{"edit_time", ColumnTime},
			{"delete_time", ColumnTime},
			{"source_json", ColumnBytes},
			{"body", ColumnJSON},
			{"plain_text", ColumnText},
			{"markdown", ColumnText},
			{"metadata", ColumnJSON},
		}},
		{Name: "mirror_comment_reaction", Key: 3, Columns: []Column{
			{"comment_id", ColumnID}, {"emoji", ColumnID}, {"user_id", ColumnID}, {"create_time", ColumnTime},
		}},
		{Name: "mirror_comment_attachment", Key: 2, Columns: []Column{
			{"comment_id", ColumnID},
			{"attachment_id", ColumnID},
			{"name", ColumnText},
			{"mime_type", ColumnText},
			{"size", ColumnInt},
		}},
		{Name: "mirror_comment_mention", Key: 4, Columns: []Column{
			{"comment_id", ColumnID}, {"kind", ColumnID}, {"mentioned_id", ColumnID}, {"via_group", ColumnID},
		}},
		{Name: "mirror_thread_term", Key: 1, Index: true, Columns: []Column{{"term", ColumnID}}},
	},
}

// ThreadItem returns a thread, as package thread reads it, as it is stored.
func ThreadItem(t mirror.Thread) Item {
	text := MetadataText(t.Metadata)
	head := []any{
		t.Source, t.CreateTime, t.UpdateTime, t.Resolved, t.Visibility, t.Metadata, text, int64(CommentCount(t)),
		Text(t.DataProblem), t.SHA256[:],
	}
	var comments, reactions, attachments, mentions, terms [][]any
	for _, c := range t.Comments {
		created := c.CreateTime
		if created.IsZero() {
			created = time.Unix(0, 0) // comments are listed by it
		}
		comments = append(comments, []any{
			c.ID, c.UserID, created, c.EditTime, c.DeleteTime, c.Source, c.Body, Text(c.Text), Text(c.Markdown), c.Metadata,
		})
		for _, r := range c.Reactions {
			reactions = append(reactions, []any{c.ID, r.Emoji, r.UserID, r.CreateTime})
		}
		for _, a := range c.Attachments {
			attachments = append(attachments, []any{c.ID, a.ID, Text(a.Name), Text(a.MIMEType), a.Size})
		}
		for _, m := range MentionRowsOf(c) {
			mentions = append(mentions, []any{c.ID, m.Kind, m.ID, m.Via})
		}
	}
	for _, term := range ThreadTerms(text) {
		terms = append(terms, []any{term})
	}
	return newItem(t.ID, t.SHA256, head, comments, reactions, attachments, mentions, terms)
}

// CommentCount returns how many comments of the thread are not deleted.
func CommentCount(t mirror.Thread) (n int) {
	for _, c := range t.Comments {
		if c.DeleteTime.IsZero() {
			n++
		}
	}
	return n
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

// MentionRowsOf returns the mention rows of a comment.
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

// MetadataText returns a JSON object with the same members as strings, for
// comparison with a filter; nil if metadata is not an object.
func MetadataText(metadata []byte) []byte {
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
