package store

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/named"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Subject is a user who is to be erased.
type Subject struct {
	User string
	// Everywhere means that what only the mirror has loses the id also where others wrote it.
	Everywhere bool
}

// PersonalForm says how a column can hold the id of a user.
type PersonalForm int

// The forms of columns.
const (
	// PersonalID is an id.
	PersonalID PersonalForm = iota
	// PersonalSource is JSON as it came, byte for byte.
	PersonalSource
	// PersonalData is JSON for queries; it can be null.
	PersonalData
	// PersonalText is text for people.
	PersonalText
	// PersonalContent is the content of a document, compressed.
	PersonalContent
)

// PersonalColumn is a column that can hold the id of a user.
type PersonalColumn struct {
	Name string
	Form PersonalForm
	// Kept means that an erasure never changes it: it is only told.
	Kept bool
	// Free means that applications define what is in it, names of members too.
	Free bool
}

// PersonalKey is a column of a key, after the bucket and the project.
type PersonalKey struct {
	Name string
	// Number means that it is an integer, not an id.
	Number bool
}

// PersonalTable is a table that can hold the id of a user.
type PersonalTable struct {
	Name    string
	Key     []PersonalKey
	Columns []PersonalColumn
	// Owner is the column, or column of the key, with the user whose row it is; empty if
	// there is none. The rows of a user are deleted, those of a table that is Blanked emptied.
	Owner   string
	Blanked bool
	// Copy means that the rows are copies of what Liveblocks has. As long as it has that,
	// an erasure leaves them alone. HasEpoch means that each row says of which incarnation of
	// the room it is.
	Copy, HasEpoch bool
	// Kind is the kind of the resource that a row belongs to; zero if the key has it, or if
	// there is none. ID is the column of the key with its id; empty if it has none.
	Kind mirror.Kind
	ID   string
	// Hash is the column with a hash of the row, which changes with it, so that what is fetched
	// differs from it; see [PersonalTable.HashOf].
	Hash string
	// Terms is the table with hashes of properties of a row, some of them ids, by its key and
	// the hash. Lists of what lives use them: they go when a row is rewritten.
	Terms string
}

// Personal are the tables that can hold ids of users, in the order in which an erasure works
// them: events go before what a replay of them lets wait to be folded, that before what it would
// be folded into, and comments of the user, with their attachments, before the attachments of
// others. The other columns are in [Impersonal].
var Personal = []*PersonalTable{
	{
		Name: "mirror_event", Key: keyColumns("event_id"), Owner: "user_id", Blanked: true,
		Columns: []PersonalColumn{
			{Name: "room_id", Form: PersonalID, Kept: true},
			{Name: "user_id", Form: PersonalID},
			{Name: "payload", Form: PersonalSource},
		},
	},
	{
		Name: "mirror_unfolded_event", Key: keyColumns("room_id", "kind", "resource_id", "event_id"), ID: "resource_id",
		Columns: []PersonalColumn{{Name: "payload", Form: PersonalSource}},
	},
	{
		Name: "mirror_user_session", Key: keyColumns("room_id", "session_id"), Owner: "user_id",
		Kind: mirror.KindUserSessions,
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID},
			{Name: "info_json", Form: PersonalSource, Free: true},
			{Name: "info", Form: PersonalData, Free: true},
		},
	},
	{
		Name: "mirror_notification", Key: keyColumns("room_id", "notification_id", "event_id"), Owner: "user_id",
		Kind: mirror.KindNotification, ID: "notification_id",
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID},
			{Name: "subject_id", Form: PersonalID},
			// Copies of the inbox at Liveblocks, which the next fetch would bring back.
			{Name: "inbox_json", Form: PersonalSource, Kept: true},
			{Name: "inbox", Form: PersonalData, Kept: true},
		},
	},
	{
		Name: "mirror_comment_reaction", Key: keyColumns("room_id", "thread_id", "comment_id", "emoji", "user_id"),
		Owner: "user_id", Copy: true, Kind: mirror.KindThread, ID: "thread_id", Hash: "digest",
		Columns: []PersonalColumn{{Name: "user_id", Form: PersonalID, Kept: true}},
	},
	{
		Name: "mirror_comment_mention",
		Key: keyColumns("room_id", "thread_id", "comment_id", "kind_of_mention", "mentioned_id",
			"via_group"),
		Owner: "mentioned_id", Copy: true, Kind: mirror.KindThread, ID: "thread_id",
		Columns: []PersonalColumn{{Name: "mentioned_id", Form: PersonalID, Kept: true}},
	},
	{
		Name: "mirror_comment", Key: keyColumns("room_id", "thread_id", "comment_id"), Owner: "user_id", Blanked: true,
		Copy: true, Kind: mirror.KindThread, ID: "thread_id", Hash: "digest",
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID},
			{Name: "source_json", Form: PersonalSource},
			{Name: "body", Form: PersonalData},
			{Name: "plain_text", Form: PersonalText},
			{Name: "markdown", Form: PersonalText},
			{Name: "metadata", Form: PersonalData, Free: true},
		},
	},
	{
		Name: "mirror_comment_attachment", Key: keyColumns("room_id", "thread_id", "comment_id", "attachment_id"),
		Copy: true, Kind: mirror.KindThread, ID: "thread_id", Hash: "digest",
		Columns: []PersonalColumn{{Name: "name", Form: PersonalText}},
	},
	{
		Name: "mirror_thread", Key: keyColumns("room_id", "thread_id"), Copy: true,
		Kind: mirror.KindThread, ID: "thread_id", Hash: "content_sha256", Terms: "mirror_thread_term",
		Columns: []PersonalColumn{
			{Name: "source_json", Form: PersonalSource},
			{Name: "metadata", Form: PersonalData, Free: true},
			{Name: "metadata_text", Form: PersonalData, Free: true},
		},
	},
	{
		Name: "mirror_active_user", Key: keyColumns("room_id", "connection_id", "user_id"), Owner: "user_id",
		Copy: true, HasEpoch: true, Kind: mirror.KindActiveUsers,
		Columns: []PersonalColumn{
			{Name: "user_id", Form: PersonalID, Kept: true},
			{Name: "info_json", Form: PersonalSource, Free: true},
			{Name: "info", Form: PersonalData, Free: true},
		},
	},
	{
		Name: "mirror_document", Key: keyColumns("room_id", "kind", "resource_id"), Copy: true, HasEpoch: true,
		ID: "resource_id",
		Columns: []PersonalColumn{
			// A document belongs to nobody alone: it goes as a whole, or the room is erased.
			{Name: "content", Form: PersonalContent, Kept: true},
			{Name: "data", Form: PersonalData, Kept: true},
			{Name: "plain_text", Form: PersonalText, Kept: true},
		},
	},
	{
		Name: "mirror_room", Key: keyColumns("room_id"), Copy: true, Kind: mirror.KindRoom, Hash: "content_sha256",
		Terms: "mirror_room_term",
		Columns: []PersonalColumn{
			{Name: "room_id", Form: PersonalID, Kept: true},
			{Name: "source_json", Form: PersonalSource},
			{Name: "data", Form: PersonalData},
		},
	},
	{
		Name: "mirror_group_member", Key: keyColumns("group_id", "user_id"), Owner: "user_id", Copy: true,
		Kind: mirror.KindGroup, ID: "group_id",
		Columns: []PersonalColumn{{Name: "user_id", Form: PersonalID, Kept: true}},
	},
	{
		Name: "mirror_group", Key: keyColumns("group_id"), Copy: true, Kind: mirror.KindGroup, ID: "group_id",
		Hash: "content_sha256",
		Columns: []PersonalColumn{
			{Name: "group_id", Form: PersonalID, Kept: true},
			{Name: "source_json", Form: PersonalSource},
		},
	},
	{
		Name: "mirror_audit", Key: keyColumns("entry_id"),
		Columns: []PersonalColumn{
			{Name: "caller", Form: PersonalID, Kept: true},
			{Name: "room_id", Form: PersonalID, Kept: true},
			{Name: "resource_id", Form: PersonalID, Kept: true},
		},
	},
}

// keyColumns lists columns of a key. The numbers among them are called kind or connection_id,
// but the kind of a mention is a word.
func keyColumns(names ...string) []PersonalKey {
	key := make([]PersonalKey, len(names))
	for i, name := range names {
		key[i] = PersonalKey{Name: name, Number: name == "kind" || name == "connection_id"}
		if name == "kind_of_mention" {
			key[i].Name = "kind"
		}
	}
	return key
}

// Impersonal says of the other columns of text, JSON and bytes why an erasure leaves them
// alone: by table and column, or by column for all tables that have it.
var Impersonal = map[string]string{ //nolint:gosec // names of columns, no credentials
	"project_id":    "names a project of this service",
	"room_id":       "names a room; that a room is named after a user, mirror_room and mirror_event tell",
	"event_id":      "is made by Liveblocks; it tells a repeated delivery from a new one",
	"resource_id":   "is the id of a thread, notification or group, or the guid of a Yjs document",
	"thread_id":     "is made by Liveblocks",
	"comment_id":    "is made by Liveblocks",
	"attachment_id": "is made by Liveblocks",
	"group_id":      "names a group; that a group is named after a user, mirror_group tells",

	"content_sha256": "is a hash of the content, and changes with it",
	"state_sha256":   "is a hash of the content, and changes with it",
	"terms_sha256":   "is a hash of the content, and changes with it",
	"digest":         "is a hash of the row, and changes with it",
	"lease_token":    "is random",
	"batch_token":    "is random",

	"data_problem":  "is a reason, without content",
	"info_problem":  "is a reason, without content",
	"inbox_problem": "is a reason, without content",

	"liveblocks_project_id": "names a project of Liveblocks",
	"foreign_project_id":    "names a project of Liveblocks",
	"organization_id":       "names an organization",

	"mirror_room_term.term":      "is a hash of a property of a room, and goes with the JSON of the room",
	"mirror_thread_term.term":    "is a hash of a value in the metadata of a thread, and goes with that",
	"mirror_event.type":          "is the type of the event",
	"mirror_event.outcome":       "is one of a few words",
	"mirror_event.secret_sha":    "is a hash of a secret",
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

	"mirror_audit.entry_id":   "is random, or a hash",
	"mirror_audit.method":     "is the name of a call",
	"mirror_audit.address":    "is an address, of somebody who operates the service or was refused",
	"mirror_audit.request_id": "is random",
	"mirror_audit.options":    "are names of fields",
	"mirror_audit.code":       "is one of a few words",
	"mirror_audit.reason":     "is one of a few words",

	"mirror_resource_state.last_error": "is a sentence of this service, without ids of users",
	"mirror_sweep.sweep_id":            "is random",
	"mirror_sweep.list_cursor":         "is a position in Liveblocks' list of rooms",
	"mirror_sweep.problem":             "is a sentence of this service, without ids of users",
	"mirror_project.pause_reason":      "is a sentence of this service, without ids of users",
	"mirror_project.stop_reason":       "is what an operator wrote for operators",
	"mirror_project.key_hash":          "is a salted hash of the secret key",
	"mirror_project.feed":              "is random",
}

// PersonalRow is a row of a [PersonalTable].
type PersonalRow struct {
	// Key are its values, strings or int64, by column.
	Key []any
	// Values are those of the columns, with content as it was before it was compressed; nil
	// is null.
	Values [][]byte
	// Unreadable means that there is content which cannot be decompressed, whoever it names.
	Unreadable bool
	// Epoch is that of the row, if the table has one.
	Epoch int64
}

// Life says whether a copy is one of what Liveblocks has, as far as is known.
type Life struct {
	// Room and Deleted are those of the room; a zero Epoch means that there is none.
	Room    int64
	Deleted bool
	// Head tells of the thread or group that the row is a part of.
	Head LifeHead
}

// LifeHead is the row of a thread or a group that tells whether it lives.
type LifeHead struct {
	Found   bool
	Epoch   int64
	Deleted bool
}

// Lives reports whether a row of the table is what readers see, or will be: a long item that
// is being written has no epoch yet. What only the mirror has does not live.
func (t *PersonalTable) Lives(row PersonalRow, life Life) bool {
	if !t.Copy {
		return false
	}
	room := life.Room > 0 && !life.Deleted
	head := life.Head.Found && !life.Head.Deleted
	switch t.Kind {
	case mirror.KindRoom:
		return room
	case mirror.KindGroup:
		return head
	case mirror.KindThread:
		return room && head && (life.Head.Epoch == life.Room || life.Head.Epoch == 0)
	default:
		return room && row.Epoch == life.Room
	}
}

// Erase is what an erasure does with a row.
type Erase int

// What an erasure does.
const (
	EraseNothing Erase = iota
	EraseDelete
	EraseRewrite
)

// Judgement is the decision about a row.
type Judgement struct {
	Erase Erase
	// Values are those of the columns afterwards, if the row is rewritten.
	Values [][]byte
	// Own means that the row is the user's.
	Own bool
	// Remain are the columns that hold the id afterwards. Exact means that it is the whole
	// value of one, or of a string in it, Known that it is known to be the id of a user there,
	// and Lives that the row is a copy of what Liveblocks has. RoomGone means that it is of a
	// room that was deleted, and Unreadable that it may hold anything.
	Remain                                    []string
	Exact, Known, Lives, RoomGone, Unreadable bool
}

// HashOf returns what is in the column Hash of a rewritten row: the digests of rows are emptied.
func (t *PersonalTable) HashOf(values [][]byte) []byte {
	for i, c := range t.Columns {
		if t.Hash == "content_sha256" && c.Form == PersonalSource {
			sum := sha256.Sum256(values[i])
			return sum[:]
		}
	}
	return []byte{}
}

// Find reports whether a row concerns an erasure of the user.
func (t *PersonalTable) Find(row PersonalRow, user string) bool {
	return t.owner(row) == user || row.Unreadable || t.names(row, user)
}

// Judge decides what an erasure of the user does with a row. What Liveblocks has stays as it
// is. Otherwise, the user's own rows go, or are emptied; in those of others, an empty value
// takes the place of the id where it is known to be the id of a user; see [named.Replace].
// Everywhere, it takes the place of each text that has the id as a word, and documents go.
func (t *PersonalTable) Judge(row PersonalRow, life Life, subject Subject) Judgement {
	user := subject.User
	j := Judgement{Lives: t.Lives(row, life), Own: t.owner(row) == user, RoomGone: t.Copy && life.Room > 0 && life.Deleted}
	values := row.Values
	switch {
	case j.Lives:
	case j.Own && !t.Blanked, subject.Everywhere && t.HasContent() && t.names(row, user):
		j.Erase = EraseDelete
		return j
	default:
		values = slices.Clone(values)
		for i, c := range t.Columns {
			if c.Kept {
				continue
			}
			if value, changed := t.without(c, values[i], subject, j.Own); changed {
				values[i], j.Erase = value, EraseRewrite
			}
		}
		if j.Erase == EraseRewrite {
			j.Values = values
		}
	}
	for i, c := range t.Columns {
		if named.Occurs(values[i], user) || row.Unreadable && c.Form == PersonalContent {
			j.Remain = append(j.Remain, c.Name)
			whole := string(values[i]) == user
			j.Exact = j.Exact || whole || c.Form != PersonalText && named.Value(values[i], user)
			j.Known = j.Known || whole && c.Form == PersonalID || c.Form != PersonalText && named.Replace(values[i], user) != nil
		}
	}
	j.Unreadable = row.Unreadable
	return j
}

// without returns the value of a column without the user, and whether it differs.
func (t *PersonalTable) without(c PersonalColumn, value []byte, subject Subject, own bool) ([]byte, bool) {
	empty := []byte{}
	switch c.Form {
	case PersonalSource:
		empty = []byte(Purged)
	case PersonalData:
		empty = nil
	case PersonalID, PersonalText, PersonalContent:
	}
	held := subject.Everywhere && named.Holds(value, subject.User)
	var replaced []byte
	switch {
	case own:
		return empty, true
	case value == nil:
		return nil, false
	case c.Form == PersonalID:
		return empty, held && c.Name != t.Owner // that is another user
	case c.Form == PersonalText:
		return empty, held
	case t.Name == "mirror_thread" && c.Form == PersonalSource:
		replaced = named.ReplaceInThread(value, subject.User)
	default:
		replaced = named.Replace(value, subject.User)
	}
	if subject.Everywhere {
		if replaced != nil {
			value = replaced
		}
		switch cleared := named.Clear(value, subject.User, c.Free); {
		case cleared != nil:
			replaced = cleared
		case held && !json.Valid(value):
			replaced = empty
		}
	}
	return replaced, replaced != nil
}

// HasContent reports whether the rows are documents. Who writes one locks it before its state
// and its room.
func (t *PersonalTable) HasContent() bool {
	return slices.ContainsFunc(t.Columns, func(c PersonalColumn) bool { return c.Form == PersonalContent })
}

// names reports whether the id is anywhere in the row.
func (t *PersonalTable) names(row PersonalRow, user string) bool {
	return slices.ContainsFunc(row.Values, func(v []byte) bool { return named.Occurs(v, user) })
}

// owner returns the user whose row it is; empty if it is nobody's. Of what waits to be folded,
// it is who enters, leaves or is notified.
func (t *PersonalTable) owner(row PersonalRow) string {
	if t.Name == "mirror_unfolded_event" {
		event, err := rawjson.Parse(row.Values[0])
		if err != nil {
			return ""
		}
		return event.Get("data").Get("userId").Exact()
	}
	for i, c := range t.Key {
		if c.Name == t.Owner {
			id, _ := row.Key[i].(string)
			if t.Name == "mirror_comment_mention" && row.Key[i-1] != mentionUser {
				return "" // a group
			}
			return id
		}
	}
	for i, c := range t.Columns {
		if c.Name == t.Owner {
			return string(row.Values[i])
		}
	}
	return ""
}

// Resource returns what the row with the key belongs to; the zero Resource if it is nothing of
// its own.
func (t *PersonalTable) Resource(project mirror.ProjectID, key []any) mirror.Resource {
	if t.Kind == 0 && t.ID == "" {
		return mirror.Resource{}
	}
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

// Resources returns what the rows with the keys belong to, in key order.
func (t *PersonalTable) Resources(project mirror.ProjectID, keys [][]any) []mirror.Resource {
	var list []mirror.Resource
	for _, key := range keys {
		if r := t.Resource(project, key); r.Kind != 0 {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, mirror.Resource.Compare)
	return slices.Compact(list)
}

// Changes reports whether an erasure of the subject can change rows of the table. If not,
// nothing is locked: who changes nothing must not have others wait.
func (t *PersonalTable) Changes(subject Subject) bool {
	return t.Owner != "" || t.Rewritable() || t.Folded() || subject.Everywhere && t.HasContent()
}

// Rewritable reports whether rows of the table can stay without the id.
func (t *PersonalTable) Rewritable() bool {
	return slices.ContainsFunc(t.Columns, func(c PersonalColumn) bool { return !c.Kept })
}

// LocksRooms reports whether the life of the rows depends on their room.
func (t *PersonalTable) LocksRooms() bool { return t.Copy && t.Kind != mirror.KindGroup }

// Item returns the kind of the item that the rows are parts of; nil if they are none.
func (t *PersonalTable) Item() *ItemKind {
	if !t.Copy {
		return nil
	}
	return itemKinds[t.Kind]
}

// HasAttachments reports whether the row has attachments that go with it.
func (t *PersonalTable) HasAttachments(j Judgement) bool {
	return t.Name == "mirror_comment" && j.Own && j.Erase != EraseNothing
}

// HoldsInbox reports whether what holds the id in a row that is no copy is one all the same: an
// inbox, which is at Liveblocks.
func (t *PersonalTable) HoldsInbox(j Judgement) bool {
	return t.Kind == mirror.KindNotification && slices.ContainsFunc(t.Columns, func(c PersonalColumn) bool {
		return c.Kept && slices.Contains(j.Remain, c.Name)
	})
}

// Folded reports whether rows of the table are made by folding, or wait for that: whoever
// folds now must not write what it has read before.
func (t *PersonalTable) Folded() bool { return !t.Copy && (t.Kind != 0 || t.ID != "") }

// ErasureEntries returns the change entries of an erasure of rows, without numbers: who has
// read what is folded has to read it again.
func (t *PersonalTable) ErasureEntries(resources []mirror.Resource, now time.Time) []mirror.Change {
	if !t.Folded() || t.Kind == 0 { // what waits is not read
		return nil
	}
	return Entries(resources, mirror.ChangeUpserted, 0, now)
}

// KnownOf returns those of the resources that have a state, in key order.
func KnownOf(resources []mirror.Resource, states map[mirror.Resource]State) []mirror.Resource {
	known := slices.DeleteFunc(slices.Clone(resources), func(r mirror.Resource) bool {
		_, ok := states[r]
		return !ok
	})
	slices.SortFunc(known, mirror.Resource.Compare)
	return slices.Compact(known)
}

// Erased is the result of [Erasure.EraseRows].
type Erased struct {
	// Judged are the decisions, by key; the zero Judgement where there is no such row any more.
	Judged []Judgement
	// Parts is how many rows went with rows of the user: attachments of comments.
	Parts int64
	// Again are the keys of rows that are still there because there are so many of these. They
	// have the zero Judgement; the call is to be repeated with them.
	Again [][]any
	// Changes are the entries that were written.
	Changes []mirror.Change
}

// AttachmentTable is the table of the attachments that go with comments.
const AttachmentTable = "mirror_comment_attachment"

// EraseAttachments is how many attachments of comments a call deletes.
const EraseAttachments = 1000
