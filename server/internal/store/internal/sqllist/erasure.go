package sqllist

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// personalRow is the shape of a row of a personal table, by the columns that are read.
type personalRow struct {
	table   *store.PersonalTable
	columns []string
	content bool
}

func personalOf(t *store.PersonalTable) personalRow {
	p := personalRow{table: t}
	for _, c := range t.Key {
		p.columns = append(p.columns, c.Name)
	}
	for _, c := range t.Columns {
		p.columns = append(p.columns, c.Name)
		p.content = p.content || c.Form == store.PersonalContent
	}
	if t.HasEpoch {
		p.columns = append(p.columns, "epoch")
	}
	if p.content {
		p.columns = append(p.columns, "size")
	}
	return p
}

// lengthOf is how many bytes a row takes, about: JSON for queries is as long as its source.
func lengthOf(t *store.PersonalTable) string {
	var parts []string
	for _, c := range t.Columns {
		switch c.Form {
		case store.PersonalSource:
			parts = append(parts, "2 * coalesce(octet_length("+c.Name+"), 0)")
		case store.PersonalText:
			parts = append(parts, "coalesce(octet_length("+c.Name+"), 0)")
		case store.PersonalContent:
			parts = append(parts, "3 * size") // its length would have to be read
		case store.PersonalID, store.PersonalData:
		}
	}
	if parts == nil {
		return "0"
	}
	return strings.Join(parts, " + ")
}

// PersonalRows reads the lengths of the rows first, and then those that fit.
func (r *Reader) PersonalRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	after []any, limit int, size int64,
) ([]store.PersonalRow, error) {
	if limit == 0 {
		return nil, nil
	}
	lengths, err := list(ctx, r, "measure "+table.Name, r.personalPage(table, project, bucket, after, limit, true),
		func(row Row, n *int64) error { return row.Scan(n) })
	if err != nil {
		return nil, err
	}
	fit := 0
	for total := int64(0); fit < len(lengths); fit++ {
		if total += lengths[fit]; total > size && fit > 0 {
			break
		}
	}
	if fit == 0 {
		return nil, nil
	}
	shape := personalOf(table)
	return list(ctx, r, "search "+table.Name, r.personalPage(table, project, bucket, after, fit, false),
		func(row Row, out *store.PersonalRow) (err error) {
			*out, err = r.scanPersonal(row, shape)
			return err
		})
}

func (r *Reader) personalPage(table *store.PersonalTable, project mirror.ProjectID, bucket int16, after []any,
	limit int, lengths bool,
) *statement {
	var key []string
	for _, c := range table.Key {
		key = append(key, c.Name)
	}
	what := strings.Join(personalOf(table).columns, ", ")
	if lengths {
		what = lengthOf(table)
	}
	s := r.query("select "+what+"\nfrom "+table.Name+r.by("primary")).
		where("bucket = ?", bucket).
		where("project_id = ?", project)
	if after != nil {
		s.after(key, after...)
	}
	return s.page(key, limit)
}

func (r *Reader) scanPersonal(row Row, shape personalRow) (out store.PersonalRow, err error) {
	t := shape.table
	ids, numbers := make([]string, len(t.Key)), make([]int64, len(t.Key))
	out.Values = make([][]byte, len(t.Columns))
	var dest []any
	for i, c := range t.Key {
		if c.Number {
			dest = append(dest, &numbers[i])
		} else {
			dest = append(dest, &ids[i])
		}
	}
	for i := range t.Columns {
		dest = append(dest, &out.Values[i])
	}
	if t.HasEpoch {
		dest = append(dest, &out.Epoch)
	}
	var size int64
	if shape.content {
		dest = append(dest, &size)
	}
	if err := row.Scan(dest...); err != nil {
		return out, err
	}
	for i, c := range t.Key {
		if c.Number {
			out.Key = append(out.Key, numbers[i])
		} else {
			out.Key = append(out.Key, ids[i])
		}
	}
	for i, c := range t.Columns {
		if c.Form == store.PersonalContent && out.Values[i] != nil {
			if out.Values[i], err = r.pack.Unpack(out.Values[i], size); err != nil {
				out.Values[i], out.Unreadable = nil, true
			}
		}
	}
	return out, nil
}

// The statements of erasures are the same for all engines. Their placeholders are question
// marks; see [Numbered].

func personalKeySQL(table *store.PersonalTable) string {
	text := "\nwhere bucket = ? and project_id = ?"
	for _, c := range table.Key {
		text += " and " + c.Name + " = ?"
	}
	return text
}

const forUpdate = "\nfor update"

// PersonalRowSQL reads a row by its key, and locks it: rows such as events belong to no state
// or room that is locked before.
func PersonalRowSQL(table *store.PersonalTable) string {
	return "select " + strings.Join(personalOf(table).columns, ", ") + "\nfrom " + table.Name + personalKeySQL(table) +
		forUpdate
}

// LockPersonalSQL locks a row by its key.
func LockPersonalSQL(table *store.PersonalTable) string {
	return "select 1\nfrom " + table.Name + personalKeySQL(table) + forUpdate
}

// Locked returns a statement that locks what it reads as it is, or without that.
func Locked(text string, locks bool) string {
	if locks {
		return text
	}
	return strings.TrimSuffix(text, forUpdate)
}

// DeleteTermsSQL deletes the terms of a row by its key.
func DeleteTermsSQL(table *store.PersonalTable) string {
	return "delete from " + table.Terms + personalKeySQL(table)
}

// DeletePersonalSQL deletes a row by its key.
func DeletePersonalSQL(table *store.PersonalTable) string {
	return "delete from " + table.Name + personalKeySQL(table)
}

// RewritePersonalSQL writes the columns of a row that an erasure can change, and then its hash
// if it has one, by its key.
func RewritePersonalSQL(table *store.PersonalTable) string {
	var set []string
	for _, c := range table.Columns {
		if !c.Kept {
			set = append(set, c.Name+" = ?")
		}
	}
	if table.Hash != "" {
		set = append(set, table.Hash+" = ?")
	}
	return "update " + table.Name + "\nset " + strings.Join(set, ", ") + personalKeySQL(table)
}

// LeftSQL finds a row of what is folded into several, by its room and id.
func LeftSQL(table *store.PersonalTable) string {
	return "select 1\nfrom " + table.Name + "\nwhere bucket = ? and project_id = ? and room_id = ? and " + table.ID +
		" = ?\nlimit 1"
}

// WaitingRoomSQL reads whether something is to be fetched of a room, which may be there after
// all, and keeps that so until the transaction ends.
var WaitingRoomSQL = fmt.Sprintf(`select due_time is not null or generation > applied_generation
from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = %d and resource_id = ''`, mirror.KindRoom) + forUpdate

// LockTombstoneSQL keeps a room that was deleted before a time from coming back until the
// transaction ends.
const LockTombstoneSQL = `select 1
from mirror_room
where bucket = ? and project_id = ? and room_id = ? and delete_time < ?` + forUpdate

// LockRoomSQL reads whether a room lives, and keeps that so until the transaction ends.
const LockRoomSQL = `select epoch, delete_time is not null
from mirror_room
where bucket = ? and project_id = ? and room_id = ?` + forUpdate

// ReleaseFoldsSQL ends the leases on what is folded in a room, as [store.State.Release] does:
// who has them could write what it has read before, without a lock of the room.
var ReleaseFoldsSQL = fmt.Sprintf(`update mirror_resource_state
set lease_token = null, lease_until = null, again_time = null, deaths = least(deaths, %d)
where bucket = ? and project_id = ? and room_id = ? and kind in (%d, %d) and lease_token is not null`,
	store.MaxDeaths, mirror.KindUserSessions, mirror.KindNotification)

// LifeHeadSQL reads the row that tells whether an item lives; its epoch is 1 if it is in no
// room.
func LifeHeadSQL(kind *store.ItemKind) string {
	epoch := "epoch"
	if !kind.InRoom() {
		epoch = "1"
	}
	return "select " + epoch + ", delete_time is not null\nfrom " + kind.Head.Name + "\nwhere " +
		strings.Join(append(kind.Scope(), kind.ID), " = ? and ") + " = ?"
}

// AttachmentsOfComment is the condition for the attachments of a comment, by its key.
const AttachmentsOfComment = `
where bucket = ? and project_id = ? and room_id = ? and thread_id = ? and comment_id = ?`

// CountAttachmentsSQL counts the attachments of a comment.
const CountAttachmentsSQL = "select count(*)\nfrom mirror_comment_attachment" + AttachmentsOfComment

// Numbered returns a statement with the placeholders $1, $2 and so on.
func Numbered(text string) string {
	var out strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(text, "?")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString("$" + strconv.Itoa(n))
		text = after
	}
}
