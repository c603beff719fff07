package sqllist

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// RoomColumns are the columns of a room r and of its state s, which [RoomState]
// joins. Their argument says whether to read the room's JSON.
const RoomColumns = `r.room_id, r.epoch, case when ? then r.source_json end, r.content_sha256, r.create_time, r.last_connection_time,
    r.organization_id, r.delete_time,` + stateColumns

// RoomState joins the state s of a room r.
var RoomState = "left join mirror_resource_state s on " + onRoomState + "\n"

var onRoomState = onState("r", "r.room_id", literal(mirror.KindRoom), "''")

func (r *Reader) selectRooms() string {
	return "select " + RoomColumns + "\nfrom mirror_room r\n" + r.lookUp("mirror_resource_state", "s", onRoomState)
}

func scanRoom(project mirror.ProjectID) func(Row, *mirror.Room) error {
	return func(row Row, r *mirror.Room) error {
		r.Project = project
		return scanWithState(row, &r.Freshness, &r.ID, &r.Epoch, &r.Source, (*hash)(&r.SHA256), at(&r.CreateTime),
			at(&r.LastConnectionTime), &r.OrganizationID, at(&r.Freshness.DeleteTime))
	}
}

// whereRoom selects the rows of a room, by the key of its table.
func (s *statement) whereRoom(of string, room mirror.Resource) *statement {
	return s.where(of+".bucket = ? and "+of+".project_id = ? and "+of+".room_id = ?", room.Bucket(), room.Project,
		room.Room)
}

// withinRoom selects the rows of a room after the one with some ids, and returns the columns
// that order them. A condition for each column would make Postgres expect a few rows and
// sort all of them.
func (s *statement) withinRoom(of string, ids []string, room mirror.Resource, after ...any) (order []string) {
	if !s.dialect.RowValues {
		s.whereRoom(of, room).after(ids, after...)
		return ids
	}
	key := append([]string{of + ".bucket", of + ".project_id", of + ".room_id"}, ids...)
	in := []any{room.Bucket(), room.Project, room.Room}
	s.after(key, slices.Concat(in, after)...).compare("<=", key[:3], in)
	return key
}

// whereIDs selects ids that start with a prefix.
func (s *statement) whereIDs(column, prefix string) *statement {
	text, args := prefixed(column, prefix)
	return s.where(text, args...)
}

// prefixed is the condition that an id starts with a prefix.
func prefixed(column, prefix string) (text string, args []any) {
	// No id is longer than mirror.MaxRoomID bytes, so none sorts after a run of the
	// last character.
	last := prefix + strings.Repeat("\U0010FFFF", mirror.MaxRoomID/4)
	return column + " >= ? and " + column + " <= ?", []any{prefix, last}
}

// whereWithin selects ids that start with a prefix, if it is not empty. It doubles the
// number of texts.
func (s *statement) whereWithin(column, prefix string) *statement {
	if prefix != "" {
		s.whereIDs(column, prefix)
	}
	return s
}

// Room reads by key.
func (r *Reader) Room(ctx context.Context, room mirror.Resource, deleted bool) (mirror.Room, error) {
	s := r.query(r.selectRooms(), true).whereRoom("r", room).where("(r.delete_time is null or ?)", deleted)
	return one(ctx, r, "read room", s, scanRoom(room.Project))
}

// Rooms uses the index by room id.
func (r *Reader) Rooms(ctx context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	return byRanges(f.Rooms.Within(f.Prefix), f.After, f.Limit, func(prefix string, limit int) ([]mirror.Room, error) {
		f.Prefix = prefix
		s := r.query(r.selectRooms(), true).whereListed(f).page([]string{"r.room_id"}, limit)
		return list(ctx, r, "list rooms", s, scanRoom(f.Project))
	})
}

// RoomIDs uses the same index, and reads no states.
func (r *Reader) RoomIDs(ctx context.Context, f store.RoomFilter) ([]mirror.RoomID, error) {
	return byRanges(
		f.Rooms.Within(f.Prefix),
		f.After,
		f.Limit,
		func(prefix string, limit int) ([]mirror.RoomID, error) {
			f.Prefix = prefix
			s := r.query("select r.room_id\nfrom mirror_room r\n").whereListed(f).page([]string{"r.room_id"}, limit)
			return list(ctx, r, "list ids of rooms", s, func(row Row, id *mirror.RoomID) error { return row.Scan(id) })
		},
	)
}

// whereListed selects the rooms of a list.
func (s *statement) whereListed(f store.RoomFilter) *statement {
	return s.where("r.project_id = ?", f.Project).whereIDs("r.room_id", f.Prefix).after([]string{"r.room_id"}, f.After).
		where("(r.delete_time is null or ?)", f.Deleted)
}

// RoomsBy reads rooms with a statement that selects [RoomColumns].
func (r *Reader) RoomsBy(ctx context.Context, project mirror.ProjectID, text string, args ...any) ([]mirror.Room,
	error,
) {
	return list(ctx, r, "read rooms", r.query(text, args...), scanRoom(project))
}

const documentColumns = "d.room_id, d.kind, d.resource_id, " + copyColumns

// copyColumns are the columns of a document d without its key, of its room r and its
// state s.
const copyColumns = "d.content_sha256, d.size, d.derive_version, d.data_problem, r.delete_time," + stateColumns + "\n"

// copyInto returns what copyColumns are scanned into.
func copyInto(d *mirror.Document) []any {
	return withState(&d.Freshness, (*hash)(&d.SHA256), &d.Size, &d.DeriveVersion, &d.DataProblem,
		at(&d.Freshness.DeleteTime))
}

// roomAndState looks up the room r and the state s of a document or thread.
func (r *Reader) roomAndState(of, kind, id string) string {
	return r.lookUp("mirror_room", "r", onKey("r", of, of+".room_id")) + r.state(of, of+".room_id", kind, id)
}

// shown is the condition that a row of an epoch is visible: while its room lives,
// and if deleted is true also with the room's tombstone, whose epoch is one higher.
func shown(of, living, deleted string) string {
	return `case when r.epoch = ` + of + `.epoch then r.delete_time is null` + living + `
        else ` + deleted + ` and r.epoch = ` + of + `.epoch + 1 and r.delete_time is not null end`
}

func (r *Reader) ofDocument() string { return r.roomAndState("d", "d.kind", "d.resource_id") }

// scanDocument scans leading columns, followed by documentColumns.
func scanDocument(row Row, d *mirror.Document, first ...any) error {
	return row.Scan(append(append(first, &d.Room, &d.Kind, &d.ID), copyInto(d)...)...)
}

// Document reads by key and unpacks the content.
func (r *Reader) Document(ctx context.Context, document mirror.Resource, deleted bool) (mirror.Document, error) {
	s := r.query("select d.content, "+documentColumns+"from mirror_document d\n"+r.ofDocument()).
		whereRoom("d", document).where("d.kind = ? and d.resource_id = ?", document.Kind, document.ID).
		where(shown("d", "", "?"), deleted)
	var packed []byte
	d, err := one(ctx, r, "read document", s, func(row Row, d *mirror.Document) error {
		d.Project = document.Project
		return scanDocument(row, d, &packed)
	})
	if err != nil {
		return d, err
	}
	// Only now, or damage would pass for a failure of the database, which waiting mends.
	r.unpack(&d, packed)
	return d, d.Damage
}

// unpack sets the content of a document, unless it was not read.
func (r *Reader) unpack(d *mirror.Document, packed []byte) {
	if packed == nil {
		return
	}
	var err error
	if d.Content, err = r.pack.Unpack(packed, d.Size); err != nil {
		d.Damage = fmt.Errorf("read document: %w", err)
	}
}

// ReadDocuments uses one statement for all readers. It omits content that a reader
// has or that is too large to send together.
func (r *Reader) ReadDocuments(ctx context.Context, reads []store.DocumentRead, inline int64) ([]*mirror.Document,
	error,
) {
	documents := make([]*mirror.Document, len(reads))
	if len(reads) == 0 {
		return documents, nil
	}
	s := &statement{dialect: &r.dialect}
	s.add(r.readDocuments(len(reads)), append([]any{inline}, r.dialect.DocumentKeys(reads)...)...)
	if r.dialect.Routed {
		for _, read := range reads {
			s.args = append(s.args, read.Resource.Bucket())
		}
	}
	// Every row is scanned into these.
	var n int
	var packed []byte
	var d mirror.Document
	into := append([]any{&n, &packed}, copyInto(&d)...)
	err := r.read(ctx, "read documents", s, func(row Row) error {
		if err := row.Scan(into...); err != nil {
			return err
		}
		document := d
		of := reads[n].Resource
		document.Project, document.Room, document.Kind, document.ID = of.Project, of.Room, of.Kind, of.ID
		r.unpack(&document, packed)
		documents[n] = &document
		return nil
	})
	if err != nil {
		return nil, err
	}
	return documents, nil
}

// readDocuments returns the text of a statement for so many reads. Most reads of a busy
// service wait for one, and the text takes longer to make than to send.
func (r *Reader) readDocuments(reads int) string {
	made, _ := r.documentTexts.Load(reads)
	if text, ok := made.(string); ok {
		return text
	}
	text := "select k.n, case when d.content_sha256 <> k.have and d.size <= ? then d.content end, " + copyColumns +
		"from " + r.dialect.DocumentTable(reads) + `
join mirror_document d
    on d.bucket = k.bucket and d.project_id = k.project_id and d.room_id = k.room_id
    and d.kind = k.kind and d.resource_id = k.resource_id
join mirror_room r on ` + onKey("r", "d", "d.room_id") + `
left join mirror_resource_state s on ` + onState("d", "d.room_id", "d.kind", "d.resource_id") + `
where ` + shown("d", "", "k.deleted")
	if r.dialect.Routed { // by the buckets alone a sharded server finds the shards
		text += "\n    and d.bucket in (?" + strings.Repeat(", ?", reads-1) + ")"
	}
	s := r.query(text)
	r.documentTexts.Store(reads, s.text.String())
	return s.text.String()
}

// Documents uses the index by room id.
func (r *Reader) Documents(ctx context.Context, f store.DocumentFilter) ([]mirror.Document, error) {
	return byRanges(f.Rooms.Within(f.Prefix), f.AfterRoom, f.Limit,
		func(prefix string, limit int) ([]mirror.Document, error) {
			f := f
			f.Prefix, f.Limit = prefix, limit
			return r.documents(ctx, f)
		})
}

func (r *Reader) documents(ctx context.Context, f store.DocumentFilter) ([]mirror.Document, error) {
	if string(f.AfterRoom) < f.Prefix {
		// An index is read from one of two lower bounds, not always from the higher.
		f.AfterRoom, f.AfterKind, f.AfterID = mirror.RoomID(f.Prefix), 0, ""
	}
	order := []string{"d.room_id", "d.kind", "d.resource_id"}
	s := r.query("select "+documentColumns+"from mirror_document d\n"+r.ofDocument()).
		where("d.project_id = ?", f.Project).where(shown("d", "", "?"), false).whereIDs("d.room_id", f.Prefix).
		where("(? = 0 or d.kind = ?)", f.Kind, f.Kind).
		after(order, f.AfterRoom, f.AfterKind, f.AfterID).page(order, f.Limit)
	return list(ctx, r, "list documents", s, func(row Row, d *mirror.Document) error {
		d.Project = f.Project
		return scanDocument(row, d)
	})
}

const taskColumns = `select s.room_id, s.kind, s.resource_id, s.generation, s.applied_generation, s.due_time,
    s.not_before, s.lease_until, s.attempts, s.last_error, s.fail_time, s.fetch_time, s.missing_since
`

func scanTask(project mirror.ProjectID, now time.Time) func(Row, *mirror.Task) error {
	return func(row Row, task *mirror.Task) error {
		r, st := mirror.Resource{Project: project}, store.State{}
		err := row.Scan(&r.Room, &r.Kind, &r.ID, &st.Generation, &st.Applied, at(&st.Due), at(&st.NotBefore),
			at(&st.LeaseUntil), &st.Attempts, &st.LastError, at(&st.FailTime), at(&st.FetchTime), at(&st.MissingSince))
		*task = st.Task(r, now)
		return err
	}
}

// Task reads by key.
func (r *Reader) Task(ctx context.Context, resource mirror.Resource, now time.Time) (mirror.Task, error) {
	tasks, err := r.Tasks(ctx, []mirror.Resource{resource}, now)
	switch {
	case err != nil:
		return mirror.Task{}, err
	case len(tasks) == 0:
		return mirror.Task{}, fmt.Errorf("read task: %w", store.ErrNotFound)
	}
	return tasks[0], nil
}

// Tasks reads by key, whatever the number with one text where the server keeps its plan.
func (r *Reader) Tasks(ctx context.Context, resources []mirror.Resource, now time.Time) ([]mirror.Task, error) {
	if len(resources) == 0 {
		return nil, nil
	}
	first := resources[0]
	var s *statement
	if r.dialect.Routed {
		conditions, args := "", []any(nil)
		for i, of := range resources {
			if i > 0 {
				conditions += " or "
			}
			conditions += "s.kind = ? and s.resource_id = ?"
			args = append(args, of.Kind, of.ID)
		}
		s = r.query(taskColumns+"from mirror_resource_state s\n").whereRoom("s", first).where("("+conditions+")", args...)
	} else {
		keys := make([]rowKey, len(resources))
		for i, of := range resources {
			keys[i] = rowKey{Room: of.Room, Kind: of.Kind, ID: of.ID}
		}
		table, args := r.keyTable(first.Project, keys, "kind", "resource_id")
		s = r.query(taskColumns+"from "+table+`
join mirror_resource_state s
    on s.bucket = k.bucket and s.project_id = ? and s.room_id = k.room_id and s.kind = k.kind
    and s.resource_id = k.resource_id`, append(args, first.Project)...)
	}
	tasks, err := list(ctx, r, "read tasks", s, scanTask(first.Project, now))
	slices.SortFunc(tasks, func(a, b mirror.Task) int { return a.Resource.Compare(b.Resource) })
	return tasks, err
}

// TaskList walks the tasks that are not done, which an index has, or the few that
// failed. Those of a room that are done it walks by key.
func (r *Reader) TaskList(ctx context.Context, f store.TaskFilter) ([]mirror.Task, error) {
	if f.Room != "" {
		if !f.Rooms.Select(f.Room) {
			return nil, nil
		}
		return r.taskList(ctx, f, "")
	}
	return byRanges(f.Rooms.Within(""), f.AfterRoom, f.Limit, func(prefix string, limit int) ([]mirror.Task, error) {
		f := f
		f.Limit = limit
		if string(f.AfterRoom) < prefix {
			f.AfterRoom, f.AfterKind, f.AfterID = mirror.RoomID(prefix), 0, ""
		}
		return r.taskList(ctx, f, prefix)
	})
}

func (r *Reader) taskList(ctx context.Context, f store.TaskFilter, prefix string) ([]mirror.Task, error) {
	const what = "list tasks"
	order := []string{"s.room_id", "s.kind", "s.resource_id"}
	// inState adds the condition of the state, as in store.State.
	inState := func(s *statement) *statement {
		return s.where(`case ?
        when '' then s.due_time is not null or s.fail_time is not null or s.generation > s.applied_generation
        when 'running' then s.due_time is not null and s.lease_until > ?
        when 'pending' then s.due_time is not null and (s.lease_until is null or s.lease_until <= ?)
        when 'failed' then s.due_time is null and s.fail_time is not null
        when 'waiting' then s.due_time is null and s.fail_time is null and s.generation > s.applied_generation
        else s.due_time is null and s.fail_time is null and s.generation = s.applied_generation
    end`, string(f.State), f.Now, f.Now)
	}
	after := func(s *statement) *statement {
		return s.whereWithin("s.room_id", prefix).after(order, f.AfterRoom, f.AfterKind, f.AfterID)
	}
	read := func(ctx context.Context, s *statement) ([]mirror.Task, error) {
		return list(ctx, r, what, s, scanTask(f.Project, f.Now))
	}
	room := mirror.Resource{Project: f.Project, Room: f.Room}
	switch {
	case f.Room != "" && f.State == mirror.TaskDone:
		s := r.query(taskColumns+"from mirror_resource_state s"+r.by("primary")).whereRoom("s", room)
		return read(ctx, inState(after(s)).page(order, f.Limit))
	case f.Room != "":
		s := r.query(taskColumns+"from mirror_resource_state s"+r.by("mirror_resource_state_open")).
			whereRoom("s", room).where(r.dialect.Open)
		return read(ctx, inState(after(s)).page(order, f.Limit))
	case f.State == mirror.TaskDone && r.dialect.EachBucket != "":
		s := r.query(taskColumns+"from "+r.dialect.EachBucket+"(\nselect * from mirror_resource_state s\n").
			where("s.bucket = b.n and s.project_id = ? and "+r.dialect.Done, f.Project)
		after(s).page(order, f.Limit).add("\n) s")
		return read(ctx, s.page(order, f.Limit))
	case f.State == mirror.TaskFailed:
		s := r.query("select s.room_id, s.kind, s.resource_id\nfrom mirror_resource_state s"+
			r.by("mirror_resource_state_by_fail")).
			where("s.project_id = ? and s.fail_time is not null", f.Project)
		s.add("\norder by s.fail_time")
		tasks, few, err := byFewKeys(ctx, r, what, f.Limit, rowKey{Room: f.AfterRoom, Kind: f.AfterKind, ID: f.AfterID},
			prefix, s,
			func(row Row, k *rowKey) error { return row.Scan(&k.Room, &k.Kind, &k.ID) },
			func(ctx context.Context, keys []rowKey) ([]mirror.Task, error) {
				table, args := r.keyTable(f.Project, keys, "kind", "resource_id")
				s := r.query(taskColumns+"from "+table+`
join mirror_resource_state s
    on s.bucket = k.bucket and s.project_id = ? and s.room_id = k.room_id and s.kind = k.kind
    and s.resource_id = k.resource_id
`, append(args, f.Project)...)
				return read(ctx, inState(s).page(order, f.Limit))
			})
		if few || err != nil {
			return tasks, err
		}
	}
	open := r.dialect.Open
	if f.State == mirror.TaskDone {
		open = r.dialect.Done
	}
	s := r.query(taskColumns+"from mirror_resource_state s"+r.by("mirror_resource_state_open")).
		where("s.project_id = ? and "+open, f.Project)
	return read(ctx, inState(after(s)).page(order, f.Limit))
}

// Counts counts in the indexes by due and by fail time.
func (r *Reader) Counts(ctx context.Context, project mirror.ProjectID) (store.Counts, error) {
	// Of a missing partial index MySQL needs to be told that a lane is one of two. The failed
	// tasks are a row of their own: the value of a subquery was seen to come from a sharded
	// Vitess as null.
	s := r.query(`select 0, count(*), coalesce(sum(case when s.background then 1 else 0 end), 0),
    coalesce(sum(case when s.background and s.kind = `+literal(mirror.KindRoom)+` then 1 else 0 end), 0), min(s.due_time),
    min(case when s.background or s.kind = `+literal(mirror.KindSweep)+` then null else s.due_time end)
from mirror_resource_state s`+r.by("mirror_resource_state_by_due")+`where s.project_id = ?
    and s.background in (false, true) and s.due_time is not null
union all
select 1, count(*), 0, 0, min(f.fail_time), min(f.fail_time) from mirror_resource_state f`+
		r.by("mirror_resource_state_by_fail")+`where f.project_id = ? and f.fail_time is not null`, project, project)
	var counts store.Counts
	err := r.read(ctx, "count tasks", s, func(row Row) error {
		var failed int
		var c store.Counts
		err := row.Scan(&failed, &c.Pending, &c.Background, &c.BackgroundRooms, at(&c.OldestDue), at(&c.OldestLive))
		if failed == 1 {
			counts.Failed = c.Pending
		} else {
			c.Failed = counts.Failed
			counts = c
		}
		return err
	})
	return counts, err
}
