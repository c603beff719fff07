package store

import (
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/named"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// PersonalForm says how a column can hold the id of a user.
type PersonalForm int

// The forms of columns.
const (
	// PersonalID is the id of a user.
	PersonalID PersonalForm = iota
	// PersonalValues is JSON whose strings are ids and names.
	PersonalValues
	// PersonalText is text for people, or JSON that may hold such text.
	PersonalText
	// PersonalContent is the content of a document, compressed.
	PersonalContent
)

// holds reports whether a value of the column names the user.
func (f PersonalForm) holds(value []byte, user string) bool {
	switch f {
	case PersonalID:
		return string(value) == user
	case PersonalValues:
		return named.Value(value, user)
	case PersonalText:
		return named.Word(value, user)
	default:
		return named.Bytes(value, user)
	}
}

// PersonalColumn is a column that can hold the id of a user.
type PersonalColumn struct {
	Name string
	Form PersonalForm
	// Whole means that the row goes with the id. Otherwise Blank, a literal of SQL, takes
	// the place of the value.
	Whole bool
	Blank string
	// Kept means that nothing erases it: it is only shown.
	Kept bool
}

// PersonalFate says what an erasure does with the rows that name a user.
type PersonalFate int

// The fates of rows.
const (
	// FateErase: only the mirror has them. They are deleted, or their columns blanked.
	FateErase PersonalFate = iota
	// FateFetch: they are copies of what Liveblocks has. If it has that still, it is
	// fetched again; otherwise it is deleted, see [Erasure.EraseDead].
	FateFetch
)

// PersonalKey is a column of a key, after the bucket and the project.
type PersonalKey struct {
	Name string
	// Number means that it is an integer, not an id.
	Number bool
}

// PersonalTable is a table that can name users.
type PersonalTable struct {
	Name    string
	Key     []PersonalKey
	Columns []PersonalColumn
	Fate    PersonalFate
	// Kind is the kind of the resource that a row belongs to; zero if the key has it, or if
	// there is none.
	Kind mirror.Kind
	// ID is the key column with the id of the resource; empty if it has none.
	ID string
	// Page is how many rows are read at once, by how long they can be.
	Page int
}

// Personal are the tables that can name users, in the order in which an erasure works
// them: an event that waits to be folded goes before what it would be folded into. What
// they have besides is listed in [Impersonal], so that every column is in one of the two.
var Personal = []*PersonalTable{
	{
		Name: "mirror_event", Key: keyColumns("event_id"), Page: 200,
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID, Blank: "''"},
			{Name: "payload", Form: PersonalValues, Blank: "'" + Purged + "'"},
		},
	},
	{
		Name: "mirror_unfolded_event", Key: keyColumns("room_id", "kind", "resource_id", "event_id"), ID: "resource_id",
		Page:    200,
		Columns: []PersonalColumn{{Name: "payload", Form: PersonalValues, Whole: true}},
	},
	{
		Name: "mirror_user_session", Key: keyColumns("room_id", "session_id"), Kind: mirror.KindUserSessions, Page: 500,
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID, Whole: true},
			{Name: "info_json", Form: PersonalValues, Blank: "null"},
			{Name: "info", Form: PersonalValues, Blank: "null"},
		},
	},
	{
		Name: "mirror_notification", Key: keyColumns("room_id", "notification_id", "event_id"),
		Kind: mirror.KindNotification, ID: "notification_id", Page: 500,
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID, Whole: true},
			{Name: "subject_id", Form: PersonalText, Whole: true},
			{Name: "inbox_json", Form: PersonalText, Blank: "null"},
			{Name: "inbox", Form: PersonalText, Blank: "null"},
		},
	},
	{
		Name: "mirror_resource_state", Key: keyColumns("room_id", "kind", "resource_id"), Page: 1000,
		Columns: []PersonalColumn{{Name: "last_error", Form: PersonalText, Blank: "''"}},
	},
	{
		Name: "mirror_room", Key: keyColumns("room_id"), Fate: FateFetch, Kind: mirror.KindRoom, Page: 200,
		Columns: []PersonalColumn{
			{Name: "room_id", Form: PersonalText, Kept: true},
			{Name: "source_json", Form: PersonalText},
			{Name: "data", Form: PersonalText},
		},
	},
	{
		Name: "mirror_document", Key: keyColumns("room_id", "kind", "resource_id"), Fate: FateFetch, ID: "resource_id",
		Page: 2,
		Columns: []PersonalColumn{
			{Name: "content", Form: PersonalContent},
			{Name: "data", Form: PersonalText},
			{Name: "plain_text", Form: PersonalText},
		},
	},
	{
		Name: "mirror_thread", Key: keyColumns("room_id", "thread_id"), Fate: FateFetch,
		Kind: mirror.KindThread, ID: "thread_id", Page: 20,
		Columns: []PersonalColumn{
			{Name: "source_json", Form: PersonalText},
			{Name: "metadata", Form: PersonalText},
			{Name: "metadata_text", Form: PersonalText},
		},
	},
	{
		Name: "mirror_comment", Key: keyColumns("room_id", "thread_id", "comment_id"), Fate: FateFetch,
		Kind: mirror.KindThread, ID: "thread_id", Page: 200,
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID},
			{Name: "source_json", Form: PersonalText},
			{Name: "body", Form: PersonalText},
			{Name: "plain_text", Form: PersonalText},
			{Name: "markdown", Form: PersonalText},
			{Name: "metadata", Form: PersonalText},
		},
	},
	{
		Name: "mirror_comment_reaction", Key: keyColumns("room_id", "thread_id", "comment_id", "emoji", "user_id"),
		Fate: FateFetch, Kind: mirror.KindThread, ID: "thread_id", Page: 1000,
		Columns: []PersonalColumn{{Name: "user_id", Form: PersonalID}},
	},
	{
		Name: "mirror_comment_attachment", Key: keyColumns("room_id", "thread_id", "comment_id", "attachment_id"),
		Fate: FateFetch, Kind: mirror.KindThread, ID: "thread_id", Page: 1000,
		Columns: []PersonalColumn{{Name: "name", Form: PersonalText}},
	},
	{
		Name: "mirror_comment_mention",
		Key: []PersonalKey{
			{Name: "room_id"},
			{Name: "thread_id"},
			{Name: "comment_id"},
			{Name: "kind"},
			{Name: "mentioned_id"},
			{Name: "via_group"},
		},
		Fate: FateFetch, Kind: mirror.KindThread, ID: "thread_id", Page: 1000,
		Columns: []PersonalColumn{{Name: "mentioned_id", Form: PersonalID}},
	},
	{
		Name: "mirror_active_user", Key: keyColumns("room_id", "connection_id", "user_id"), Fate: FateFetch,
		Kind: mirror.KindActiveUsers, Page: 500,
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID},
			{Name: "info_json", Form: PersonalText},
			{Name: "info", Form: PersonalText},
		},
	},
	{
		Name: "mirror_group", Key: keyColumns("group_id"), Fate: FateFetch, Kind: mirror.KindGroup, ID: "group_id", Page: 200,
		Columns: []PersonalColumn{{Name: "source_json", Form: PersonalText}},
	},
	{
		Name: "mirror_group_member", Key: keyColumns("group_id", "user_id"), Fate: FateFetch,
		Kind: mirror.KindGroup, ID: "group_id", Page: 1000,
		Columns: []PersonalColumn{{Name: "user_id", Form: PersonalID}},
	},
}

// keyColumns lists columns of a key. The numbers among them are called kind or connection_id.
func keyColumns(names ...string) []PersonalKey {
	key := make([]PersonalKey, len(names))
	for i, name := range names {
		key[i] = PersonalKey{Name: name, Number: name == "kind" || name == "connection_id"}
	}
	return key
}

// Impersonal says of the other columns of text, JSON and bytes why an erasure leaves them
// alone: by table and column, or by column for all tables that have it.
var Impersonal = map[string]string{
	"project_id":    "names a project of this service",
	"room_id":       "names a room; where it names a user too, mirror_room shows it, and only deleting the room ends it",
	"event_id":      "is made by Liveblocks; it tells a repeated delivery from a new one",
	"resource_id":   "is the id of a thread, notification or group, or the guid of a Yjs document",
	"thread_id":     "is made by Liveblocks",
	"comment_id":    "is made by Liveblocks",
	"attachment_id": "is made by Liveblocks",
	"group_id":      "names a group",

	"content_sha256": "is a hash of the content, and changes with it",
	"state_sha256":   "is a hash of the content, and changes with it",
	"digest":         "is a hash of the row, and changes with it",
	"lease_token":    "is random",
	"batch_token":    "is random",

	"data_problem":  "is a reason, without content",
	"info_problem":  "is a reason, without content",
	"inbox_problem": "is a reason, without content",

	"liveblocks_project_id": "names a project of Liveblocks",
	"foreign_project_id":    "names a project of Liveblocks",
	"organization_id":       "names an organization",

	"mirror_event.type":          "is the type of the event",
	"mirror_event.outcome":       "is one of a few words",
	"mirror_unfolded_event.type": "is the type of the event",

	"mirror_user_session.session_id":     "is the id of an event",
	"mirror_user_session.leave_event_id": "is the id of an event",
	"mirror_user_session.end_cause":      "is one of a few words",

	"mirror_notification.notification_id": "is made by Liveblocks",
	"mirror_notification.channel":         "is the name of a channel",
	"mirror_notification.kind":            "is the name of a kind",
	"mirror_notification.mention_id":      "is made by Liveblocks",

	"mirror_thread.visibility":            "is one of a few words",
	"mirror_comment_reaction.emoji":       "is an emoji",
	"mirror_comment_attachment.mime_type": "is the type of a file",
	"mirror_comment_mention.kind":         "is one of a few words",
	"mirror_comment_mention.via_group":    "names a group",

	"mirror_sweep.sweep_id":       "is random",
	"mirror_sweep.list_cursor":    "is a position in Liveblocks' list of rooms",
	"mirror_sweep.problem":        "is a sentence of this service, without ids of users",
	"mirror_project.pause_reason": "is a sentence of this service, without ids of users",
	"mirror_project.stop_reason":  "is what an operator wrote for operators",
	"mirror_project.key_hash":     "is a salted hash of the secret key",
	"mirror_project.feed":         "is random",
}

// PersonalRow is a row of a [PersonalTable].
type PersonalRow struct {
	// Key are its values, strings or int64, by column.
	Key []any
	// Values are those of the columns, with content as it was before it was compressed; nil
	// is null.
	Values [][]byte
}

// Find returns the columns of a row that name a user.
func (t *PersonalTable) Find(row PersonalRow, user string) (found []PersonalColumn) {
	for i, c := range t.Columns {
		if row.Values[i] != nil && c.Form.holds(row.Values[i], user) {
			found = append(found, c)
		}
	}
	return found
}

// Resource returns what the row with the key belongs to.
func (t *PersonalTable) Resource(project mirror.ProjectID, key []any) mirror.Resource {
	r := mirror.Resource{Project: project, Kind: t.Kind}
	for i, c := range t.Key {
		id, _ := key[i].(string)
		number, _ := key[i].(int64)
		switch {
		case c.Name == "room_id":
			r.Room = mirror.RoomID(id)
		case c.Name == "kind" && c.Number:
			r.Kind = mirror.Kind(number) //nolint:gosec // as stored
		case c.Name == t.ID:
			r.ID = id
		}
	}
	return r
}

// Blanks lists the columns that are blanked where a row stays.
func (t *PersonalTable) Blanks() (columns []PersonalColumn) {
	for _, c := range t.Columns {
		if c.Blank != "" {
			columns = append(columns, c)
		}
	}
	return columns
}

// Folded reports whether rows of the table are made by folding, or wait for that: whoever
// folds now must not write what it has read before.
func (t *PersonalTable) Folded() bool {
	return t.Name == "mirror_unfolded_event" || t.Kind == mirror.KindUserSessions || t.Kind == mirror.KindNotification
}

// ErasedRow is a row to erase.
type ErasedRow struct {
	Key []any
	// Whole means to delete it. Otherwise its columns are blanked.
	Whole bool
}

// FoldedResources returns what the rows belong to if that is folded, in key order.
func (t *PersonalTable) FoldedResources(project mirror.ProjectID, rows []ErasedRow) []mirror.Resource {
	if !t.Folded() {
		return nil
	}
	list := make([]mirror.Resource, len(rows))
	for i, row := range rows {
		list[i] = t.Resource(project, row.Key)
	}
	slices.SortFunc(list, mirror.Resource.Compare)
	return slices.Compact(list)
}

// ErasureEntries returns the change entries of an erasure of rows, without numbers: their
// readers have to read the resource again.
func (t *PersonalTable) ErasureEntries(resources []mirror.Resource, now time.Time) []mirror.Change {
	if t.Kind == 0 {
		return nil // what waits is not read
	}
	return Entries(resources, mirror.ChangeUpserted, 0, now)
}

// DeadTables lists the tables of a resource that goes as a whole, its head last, and the
// columns of its key. It is for all kinds but rooms.
func DeadTables(kind mirror.Kind) (tables, key []string) {
	if of := itemKinds[kind]; of != nil {
		for _, part := range of.Parts {
			tables = append(tables, part.Name)
		}
		return append(tables, of.Head.Name), append(of.Scope(), of.ID)
	}
	key = []string{"bucket", "project_id", "room_id"}
	if kind == mirror.KindActiveUsers {
		return []string{"mirror_active_user"}, key
	}
	return []string{"mirror_document"}, append(key, "kind", "resource_id")
}

// DeadHead is the row of a resource that tells whether it lives.
type DeadHead struct {
	// Found is false if there is none.
	Found   bool
	Epoch   int64
	Deleted bool
}

// Lives reports whether a resource of a room, or of none, is what readers see, or will be:
// a long item that is being written has no epoch yet.
func (h DeadHead) Lives(kind mirror.Kind, room RoomCopy) bool {
	switch {
	case kind == mirror.KindRoom:
		return room.Lives()
	case !kind.Traits().NeedsRoom:
		return h.Found && !h.Deleted
	}
	return h.Found && !h.Deleted && room.Lives() && (h.Epoch == room.Epoch || h.Epoch == 0)
}
