package store

import (
	"context"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// RoomTables are the tables whose rows belong to one room each, besides mirror_room,
// in the order in which their rows are locked. What they hold of a room that is
// deleted is needed no more: the states stay, so that no late event takes the room for
// a new one, and so do the events, without their bodies and users, because their ids tell
// repeated deliveries from new ones.
var RoomTables = slices.Concat([]string{"mirror_unfolded_event"}, contentTables,
	[]string{"mirror_user_session", "mirror_notification"})

// contentTables are those of them with what is deleted with its room. The others have what
// was told by events. Threads come after their comments and terms, which have no epoch: if the
// room comes back meanwhile, the threads that are left tell which of these are to go.
var contentTables = []string{
	"mirror_document", "mirror_comment_reaction", "mirror_comment_attachment", "mirror_comment_mention",
	"mirror_comment", "mirror_thread_term", "mirror_thread", "mirror_active_user", "mirror_room_term",
}

// Purged is what takes the place of the JSON of a room and the bodies of its events.
const Purged = "{}"

// TableRows are numbers of rows, by table; tables without any are left out.
type TableRows map[string]int64

// All is the number of rows in all tables.
func (t TableRows) All() (all int64) {
	for _, n := range t {
		all += n
	}
	return all
}

// Add adds others.
func (t TableRows) Add(others TableRows) {
	for table, n := range others {
		t[table] += n
	}
}

// ProjectTables are the tables with a bucket whose rows belong to one project each, in
// the order in which their rows are locked. So do those of mirror_change, which stay: see
// [Purge.PurgeProject].
var ProjectTables = slices.Concat([]string{"mirror_event", "mirror_resource_state", "mirror_room"}, RoomTables,
	[]string{"mirror_group", "mirror_group_member", "mirror_sweep", "mirror_audit"})

// ProjectRows are the tables with rows of a project that are in no bucket. That a project
// was there is known by its row of the last.
var ProjectRows = []string{"mirror_unannounced", "mirror_project"}

// RoomPurger is the part of [Purge] that purges one room.
type RoomPurger interface {
	PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (TableRows, error)
}

// PurgeWhole removes all that is left of a room, at most limit rows at once, and returns how
// many rows of which tables that were, also with an error.
func PurgeWhole(ctx context.Context, s RoomPurger, room mirror.Resource, before time.Time, limit int) (
	TableRows, error,
) {
	all := make(TableRows)
	for {
		rows, err := s.PurgeRoom(ctx, room, before, limit)
		all.Add(rows)
		if err != nil || len(rows) == 0 {
			return all, err
		}
	}
}
