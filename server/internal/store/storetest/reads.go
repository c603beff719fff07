package storetest

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Read is one read of a store, for tests of the statement that it sends.
type Read struct {
	// Name is that of the method.
	Name string
	// Filter is that of a list; nil for all others.
	Filter any
	// InOrder says that an index has the list in its order. It need not have the tasks of
	// a project that are done, the latest rows of all rooms with a prefix, or the open
	// sessions of a room, of which there are as many as connections.
	InOrder bool
	// Call reads. What it answers does not matter.
	Call func(ctx context.Context, s store.Store)
}

// several is a resource and another one like it.
func several(r mirror.Resource) []mirror.Resource {
	other := r
	if r.ID == "" {
		other.Room = "r-9"
	} else {
		other.ID = "r-9"
	}
	return []mirror.Resource{r, other}
}

// Reads are the reads of a store: those by key, and each list with every combination
// of its filters.
func Reads() []Read {
	now, yes := time.Date(2026, 3, 1, 0, 10, 0, 0, time.UTC), true
	const id, limit = "r-8", 20
	room := mirror.Resource{Project: project, Room: id, Kind: mirror.KindRoom}
	document := mirror.Resource{Project: project, Room: id, Kind: mirror.KindStorage}
	thread := mirror.Resource{Project: project, Room: id, Kind: mirror.KindThread, ID: id}
	rooms := store.Prefixes{"r-8"}
	byKey := func(name string, read func(ctx context.Context, s store.Store) error) []Read {
		return []Read{{name, nil, false, func(ctx context.Context, s store.Store) { _ = read(ctx, s) }}}
	}
	return slices.Concat(
		byKey("Event", func(ctx context.Context, s store.Store) error { _, err := s.Event(ctx, project, id); return err }),
		byKey("EventOf", func(ctx context.Context, s store.Store) error {
			_, err := s.EventOf(ctx, project, id, id)
			return err
		}),
		byKey("Room", func(ctx context.Context, s store.Store) error { _, err := s.Room(ctx, room, true); return err }),
		byKey("RoomsByID", func(ctx context.Context, s store.Store) error {
			_, err := s.RoomsByID(ctx, project, []mirror.RoomID{id, "r-9"}, true)
			return err
		}),
		byKey("Document", func(ctx context.Context, s store.Store) error {
			_, err := s.Document(ctx, document, true)
			return err
		}),
		byKey("ReadDocuments", func(ctx context.Context, s store.Store) error {
			_, err := s.ReadDocuments(ctx, slices.Repeat([]store.DocumentRead{{Resource: document}}, 500), 1<<20)
			return err
		}),
		byKey("Thread", func(ctx context.Context, s store.Store) error { _, err := s.Thread(ctx, thread, true); return err }),
		byKey("ThreadsByID", func(ctx context.Context, s store.Store) error {
			_, err := s.ThreadsByID(ctx, project, several(thread), 1<<20)
			return err
		}),
		byKey("Comment", func(ctx context.Context, s store.Store) error {
			_, err := s.Comment(ctx, thread, id, true)
			return err
		}),
		byKey("ActiveUsers", func(ctx context.Context, s store.Store) error {
			_, err := s.ActiveUsers(ctx, room, true)
			return err
		}),
		byKey("ActiveUsersByRoom", func(ctx context.Context, s store.Store) error {
			_, err := s.ActiveUsersByRoom(ctx, project, several(room))
			return err
		}),
		byKey("SessionsOf", func(ctx context.Context, s store.Store) error {
			_, err := s.SessionsOf(ctx, room, []int64{1, 2}, limit)
			return err
		}),
		byKey("Group", func(ctx context.Context, s store.Store) error {
			_, err := s.Group(ctx, mirror.Resource{Project: project, Kind: mirror.KindGroup, ID: id}, true)
			return err
		}),
		byKey("GroupsByID", func(ctx context.Context, s store.Store) error {
			_, err := s.GroupsByID(ctx, project, several(mirror.Resource{Project: project, Kind: mirror.KindGroup, ID: id}))
			return err
		}),
		byKey("Counts", func(ctx context.Context, s store.Store) error { _, err := s.Counts(ctx, project); return err }),
		byKey("Task", func(ctx context.Context, s store.Store) error { _, err := s.Task(ctx, document, now); return err }),
		byKey("Tasks", func(ctx context.Context, s store.Store) error {
			_, err := s.Tasks(ctx, []mirror.Resource{document, document.RoomResource()}, now)
			return err
		}),
		byKey("LastEvents", func(ctx context.Context, s store.Store) error {
			_, err := s.LastEvents(ctx, project, []string{id, "r-9"})
			return err
		}),
		byKey("Oldest", func(ctx context.Context, s store.Store) error { _, err := s.Oldest(ctx, project); return err }),
		copies(store.CopyFilter{
			Project: project, Rooms: rooms, Room: id, AfterRoom: id, AfterID: id, Limit: limit,
		}),
		lists("Events", store.Store.Events, store.EventFilter{
			Project:   project,
			Rooms:     rooms,
			Room:      id,
			Type:      id,
			User:      id,
			Thread:    id,
			Outcome:   mirror.OutcomeMalformed,
			From:      now,
			To:        now,
			AfterTime: now,
			AfterID:   id,
			NoPayload: true,
			Limit:     limit,
		}),
		lists("Rooms", store.Store.Rooms, store.RoomFilter{
			Project: project, Rooms: rooms, Prefix: id, Deleted: true, After: id, Limit: limit,
		}),
		lists("LatestRooms", store.Store.LatestRooms, store.LatestRoomFilter{
			Project: project, Rooms: rooms, Prefix: id, Terms: [][]store.Term{{{Kind: store.TermUser, Value: id}}},
			AfterTime: now, AfterID: id, Limit: limit,
		}),
		lists("RoomIDs", store.Store.RoomIDs, store.RoomFilter{
			Project: project, Rooms: rooms, Prefix: id, Deleted: true, After: id, Limit: limit,
		}),
		lists("Documents", store.Store.Documents, store.DocumentFilter{
			Project:   project,
			Rooms:     rooms,
			Prefix:    id,
			Kind:      mirror.KindStorage,
			AfterRoom: id,
			AfterKind: mirror.KindStorage,
			AfterID:   id,
			Limit:     limit,
		}),
		lists("Threads", store.Store.Threads, store.ThreadFilter{
			Project:      project,
			Rooms:        rooms,
			Room:         id,
			Resolved:     &yes,
			Metadata:     map[string]string{"n": "1"},
			Author:       id,
			Mentioned:    id,
			UpdatedSince: now,
			Deleted:      true,
			AfterRoom:    id,
			AfterID:      id,
			Limit:        limit,
		}),
		lists("Comments", store.Store.Comments, store.CommentFilter{
			Project: project, Rooms: rooms, Room: id, Thread: id, Author: id, Mentioned: id, UpdatedSince: now, Deleted: true,
			AfterRoom: id, AfterThread: id, AfterTime: now, AfterID: id, Limit: limit,
		}),
		lists("UserSessions", store.Store.UserSessions, store.SessionFilter{
			Project:   project,
			Rooms:     rooms,
			Room:      id,
			User:      id,
			Open:      true,
			From:      now,
			To:        now,
			AfterTime: now,
			AfterID:   id,
			Limit:     limit,
		}),
		lists("Notifications", store.Store.Notifications, store.NotificationFilter{
			Project:   project,
			Rooms:     rooms,
			Room:      id,
			User:      id,
			ID:        id,
			Channel:   id,
			Kind:      id,
			Thread:    id,
			From:      now,
			To:        now,
			AfterTime: now,
			AfterID:   id,
			Limit:     limit,
		}),
		lists("AuditEntries", store.Store.AuditEntries, store.AuditFilter{
			Project: project, Method: id, Caller: id, Denied: &yes, From: now, To: now, AfterTime: now, AfterID: id,
			Limit: limit,
		}),
		lists("Groups", store.Store.Groups, store.GroupFilter{
			Project: project, User: id, Deleted: true, After: id, Limit: limit,
		}),
		lists("TaskList", store.Store.TaskList, store.TaskFilter{
			Project:   project,
			Rooms:     rooms,
			Room:      id,
			State:     mirror.TaskPending,
			Now:       now,
			AfterRoom: id,
			AfterKind: mirror.KindStorage,
			AfterID:   id,
			Limit:     limit,
		}),
	)
}

// copies are the lists of the copies of kinds, those of groups in all rooms.
func copies(full store.CopyFilter) (all []Read) {
	for _, kind := range []mirror.Kind{
		mirror.KindRoom, mirror.KindStorage, mirror.KindThread, mirror.KindActiveUsers, mirror.KindGroup,
	} {
		full.Kind = kind
		for _, f := range combinations(full, "Kind") {
			if kind != mirror.KindGroup || f.Rooms == nil && f.Room == "" {
				all = append(all, Read{"Copies", f, true, func(ctx context.Context, s store.Store) { _, _ = s.Copies(ctx, f) }})
			}
		}
	}
	return all
}

// lists are one list with every combination of its filters.
func lists[F, R any](name string, list func(store.Store, context.Context, F) ([]R, error), full F) []Read {
	var all []Read
	for _, f := range combinations(full) {
		inOrder := true
		switch f := any(f).(type) {
		case store.TaskFilter:
			inOrder = f.State != mirror.TaskDone || f.Room != ""
		case store.EventFilter:
			inOrder = f.Rooms == nil || f.Room != "" || f.User != "" || f.Thread != ""
		case store.SessionFilter:
			inOrder = (f.Rooms == nil || f.Room != "" || f.User != "") && (f.Room == "" || !f.Open)
		case store.NotificationFilter:
			inOrder = f.Rooms == nil || f.Room != "" || f.User != "" || f.Thread != ""
		}
		all = append(all, Read{name, f, inOrder, func(ctx context.Context, s store.Store) { _, _ = list(s, ctx, f) }})
	}
	return all
}

// combinations yields a filter with every combination of its fields set, as they are
// in full, and a number that has one bit for each that is. Fields named in fixed,
// project, limit and the time that it is always are as in full. Those of a cursor
// are set together. A field that full does not set is a mistake of the test.
func combinations[F any](full F, fixed ...string) iter.Seq2[int, F] {
	var fields [][]int
	cursor := -1
	fixed = append(fixed, "Project", "Limit", "Now")
	all := reflect.ValueOf(full)
	for i := range all.NumField() {
		switch name := all.Type().Field(i).Name; {
		case slices.Contains(fixed, name):
		case all.Field(i).IsZero():
			panic(fmt.Sprintf("%s of %T is not set", name, full))
		case !strings.HasPrefix(name, "After"):
			fields = append(fields, []int{i})
		case cursor < 0:
			cursor = len(fields)
			fields = append(fields, []int{i})
		default:
			fields[cursor] = append(fields[cursor], i)
		}
	}
	return func(yield func(int, F) bool) {
		for set := range 1 << len(fields) {
			f := full
			v := reflect.ValueOf(&f).Elem()
			for n, together := range fields {
				for _, i := range together {
					if set&(1<<n) == 0 {
						v.Field(i).SetZero()
					}
				}
			}
			if !yield(set, f) {
				return
			}
		}
	}
}
