package storetest

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Pages are first pages and later ones of every list, in a project of many rooms as
// testdata/many_rooms.sql of the engines makes it. A value of a filter is common, rare
// or unknown there. Two filters are together where one is common and the other rare,
// since a list that begins with the common one would read most of the project.
func Pages(rooms int) []Read {
	yes, no := true, false
	late := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rooms-10) * time.Second)
	early := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	deep := mirror.RoomID("r-5")
	var all []Read
	all = append(all, pagesOf("Rooms", store.Store.Rooms,
		store.RoomFilter{}, store.RoomFilter{Prefix: "r-77"}, store.RoomFilter{Prefix: "x"}, store.RoomFilter{After: deep},
		store.RoomFilter{Deleted: true, After: deep, Prefix: "r-"},
	)...)
	selected := func(status, half, user string) [][]store.Term {
		metadata := map[string]string{}
		for name, value := range map[string]string{"status": status, "half": half} {
			if value != "" {
				metadata[name] = value
			}
		}
		return store.SelectedBy(metadata, "", user, nil)
	}
	all = append(all, pagesOf("LatestRooms", store.Store.LatestRooms,
		store.LatestRoomFilter{}, store.LatestRoomFilter{AfterTime: late, AfterID: deep},
		store.LatestRoomFilter{Terms: selected("rare", "", "")}, store.LatestRoomFilter{Terms: selected("common", "", "")},
		store.LatestRoomFilter{Terms: selected("unknown", "", "")},
		store.LatestRoomFilter{Terms: selected("common", "1", "")},
		store.LatestRoomFilter{Terms: selected("common", "1", "rare")},
		store.LatestRoomFilter{Terms: selected("common", "1", "busy"), AfterTime: late, AfterID: deep},
		store.LatestRoomFilter{Terms: selected("", "", "busy")}, store.LatestRoomFilter{Terms: selected("", "", "u-7")},
		store.LatestRoomFilter{Prefix: "r-77"}, store.LatestRoomFilter{Prefix: "r-"}, store.LatestRoomFilter{Prefix: "x"},
		store.LatestRoomFilter{Prefix: "r-77", Terms: selected("common", "", "")},
		store.LatestRoomFilter{Prefix: "r-", Terms: selected("rare", "", "")},
	)...)
	all = append(all, pagesOf("RoomIDs", store.Store.RoomIDs,
		store.RoomFilter{}, store.RoomFilter{Prefix: "r-77"}, store.RoomFilter{After: deep},
	)...)
	all = append(all, pagesOf("Documents", store.Store.Documents,
		store.DocumentFilter{}, store.DocumentFilter{Kind: mirror.KindStorage}, store.DocumentFilter{AfterRoom: deep},
		store.DocumentFilter{AfterRoom: deep, Kind: mirror.KindYdoc, Prefix: "r-"}, store.DocumentFilter{Prefix: "x"},
	)...)
	threads := []store.ThreadFilter{
		{},
		{AfterRoom: deep},
		{Room: "r-8"},
		{Room: "r-9"},
		{Resolved: &yes},
		{Resolved: &no},
		{Resolved: &yes, AfterRoom: deep},
		{UpdatedSince: late},
		{UpdatedSince: early},
		{UpdatedSince: late, AfterRoom: deep},
		{Resolved: &no, UpdatedSince: late},
		{Metadata: map[string]string{"status": "common"}},
		{Metadata: map[string]string{"status": "rare"}},
		{Metadata: map[string]string{"status": "unknown"}},
		{Metadata: map[string]string{"status": "common", "n": "7"}, AfterRoom: deep},
		{Metadata: map[string]string{"status": "rare"}, Resolved: &no},
		{Metadata: map[string]string{"status": "rare"}, AfterRoom: deep},
		{Metadata: map[string]string{"status": "rare"}, UpdatedSince: early},
		{Metadata: map[string]string{"status": "common"}, UpdatedSince: late},
		{Metadata: map[string]string{"status": "common"}, Resolved: &yes},
		{Metadata: map[string]string{"status": "rare"}, Rooms: store.Prefixes{"r-1", "r-77"}},
		{Metadata: map[string]string{"status": "common"}, Rooms: store.Prefixes{"r-1", "r-77"}},
		{Room: "r-8", Metadata: map[string]string{"n": "7"}},
		{Room: "r-8", Metadata: map[string]string{"status": "common"}},
		{Room: "r-8", Resolved: &yes},
		{Room: "r-8", Metadata: map[string]string{"status": "common"}, Resolved: &yes},
		{Author: "busy", Resolved: &no},
	}
	comments := []store.CommentFilter{
		{},
		{AfterRoom: deep},
		{Room: "r-8"},
		{Room: "r-9", Thread: "t-9"},
		{UpdatedSince: late},
		{UpdatedSince: early},
		{UpdatedSince: late, AfterRoom: deep},
	}
	var events []store.EventFilter
	var sessions []store.SessionFilter
	var notifications []store.NotificationFilter
	for _, user := range []string{"busy", "rare", "u-7", "unknown"} {
		threads = append(threads, store.ThreadFilter{Author: user}, store.ThreadFilter{Mentioned: user},
			store.ThreadFilter{Author: user, AfterRoom: deep}, store.ThreadFilter{Mentioned: user, AfterRoom: deep},
			store.ThreadFilter{Author: user, Mentioned: user}, store.ThreadFilter{Room: "r-8", Author: user},
			store.ThreadFilter{Room: "r-8", Mentioned: user})
		comments = append(comments, store.CommentFilter{Author: user}, store.CommentFilter{Mentioned: user},
			store.CommentFilter{Author: user, AfterRoom: deep}, store.CommentFilter{Mentioned: user, AfterRoom: deep},
			store.CommentFilter{Author: user, Mentioned: user}, store.CommentFilter{Room: "r-8", Author: user},
			store.CommentFilter{Room: "r-8", Mentioned: user})
		events = append(events, store.EventFilter{User: user}, store.EventFilter{User: user, Type: "ydocUpdated"})
		sessions = append(sessions, store.SessionFilter{User: user})
		notifications = append(notifications, store.NotificationFilter{User: user},
			store.NotificationFilter{User: user, Kind: "thread"})
	}
	all = append(all, pagesOf("AuditEntries", store.Store.AuditEntries,
		store.AuditFilter{}, store.AuditFilter{Denied: &no}, store.AuditFilter{Denied: &yes},
		store.AuditFilter{Method: "PauseProject"}, store.AuditFilter{Method: "PauseProject", Denied: &no},
		store.AuditFilter{Method: "RequestSync"}, store.AuditFilter{Method: "unknown"}, store.AuditFilter{Caller: "rare"},
		store.AuditFilter{Caller: "busy", Denied: &no}, store.AuditFilter{Caller: "unknown"},
		store.AuditFilter{Caller: "busy", Method: "PauseProject"}, store.AuditFilter{Caller: "busy", From: early, To: late},
	)...)
	all = append(all, pagesOf("Threads", store.Store.Threads, threads...)...)
	all = append(all, pagesOf("Comments", store.Store.Comments, comments...)...)
	for _, outcome := range []mirror.Outcome{mirror.OutcomeQueued, mirror.OutcomeMalformed, mirror.OutcomeIDInvalid} {
		events = append(events, store.EventFilter{Outcome: outcome}, store.EventFilter{Outcome: outcome, Type: "ydocUpdated"},
			store.EventFilter{Outcome: outcome, From: early, To: late})
	}
	for _, event := range []string{"storageUpdated", "rare", "unknown"} {
		events = append(events, store.EventFilter{Type: event}, store.EventFilter{Type: event, From: early, To: late})
	}
	for _, room := range []mirror.RoomID{"r-8", "r-9", "unknown"} {
		events = append(events, store.EventFilter{Room: room}, store.EventFilter{Room: room, Type: "storageUpdated"})
		sessions = append(sessions, store.SessionFilter{Room: room}, store.SessionFilter{Room: room, Open: true})
		notifications = append(notifications, store.NotificationFilter{Room: room})
	}
	sessions = append(sessions, store.SessionFilter{Room: "r-8", User: "busy", Open: true})
	all = append(all, pagesOf("Events", store.Store.Events, append(events, store.EventFilter{},
		store.EventFilter{From: early, To: late}, store.EventFilter{AfterTime: late, AfterID: "e"})...)...)
	all = append(all, pagesOf("UserSessions", store.Store.UserSessions, append(sessions, store.SessionFilter{},
		store.SessionFilter{Open: true}, store.SessionFilter{From: early, To: late})...)...)
	for _, value := range []string{"email", "rare", "unknown"} {
		notifications = append(notifications, store.NotificationFilter{Channel: value})
	}
	for _, value := range []string{"thread", "rare", "unknown"} {
		notifications = append(notifications, store.NotificationFilter{Kind: value})
	}
	for _, value := range []string{"t-9", "rare", "unknown"} {
		notifications = append(notifications, store.NotificationFilter{Thread: value})
	}
	all = append(all, pagesOf("Notifications", store.Store.Notifications, append(notifications,
		store.NotificationFilter{}, store.NotificationFilter{From: early, To: late})...)...)
	var groups []store.GroupFilter
	for _, user := range []string{"", "busy", "rare", "unknown"} {
		groups = append(groups, store.GroupFilter{User: user}, store.GroupFilter{User: user, After: "g-5"})
	}
	all = append(all, pagesOf("Groups", store.Store.Groups, groups...)...)
	var tasks []store.TaskFilter
	for _, state := range []mirror.TaskState{
		"", mirror.TaskPending, mirror.TaskRunning, mirror.TaskFailed, mirror.TaskWaiting, mirror.TaskDone,
	} {
		tasks = append(tasks, store.TaskFilter{State: state}, store.TaskFilter{State: state, AfterRoom: deep},
			store.TaskFilter{State: state, Room: "r-8"})
	}
	all = append(all, pagesOf("TaskList", store.Store.TaskList, tasks...)...)
	return all
}

// pagesOf are pages of one list. Their names are the list's and what its filter selects.
func pagesOf[F, R any](name string, list func(store.Store, context.Context, F) ([]R, error), filters ...F) []Read {
	var all []Read
	for _, f := range filters {
		v := reflect.ValueOf(&f).Elem()
		named := name
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				named += fmt.Sprintf(" %s=%v", v.Type().Field(i).Name, reflect.Indirect(v.Field(i)))
			}
		}
		v.FieldByName("Project").SetString(string(project))
		v.FieldByName("Limit").SetInt(51)
		if now := v.FieldByName("Now"); now.IsValid() {
			now.Set(reflect.ValueOf(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)))
		}
		all = append(all, Read{named, f, false, func(ctx context.Context, s store.Store) { _, _ = list(s, ctx, f) }})
	}
	return all
}
