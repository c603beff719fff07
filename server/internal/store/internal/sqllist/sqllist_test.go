package sqllist_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// onlyReads is a store that has nothing but what a Reader reads.
type onlyReads struct {
	*sqllist.Reader

	rest
}

type rest struct{ store.Store }

// value marks an argument that a dialect made.
type value string

// emptyRow is a row of zero values.
type emptyRow struct{}

func (emptyRow) Scan(...any) error { return nil }

// Values are arguments, whatever the filter and the dialect: none gets into a text,
// and a text has as many places as there are arguments.
func TestValuesAreArguments(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]sqllist.Dialect{
		"numbered": {Numbered: true, RowValues: true},
		"plain":    {},
	} {
		d.Contains = "contains(%s, ?)"
		d.Key = func(id string) any { return value(id) }
		d.Time = func(at time.Time) any { return at }
		d.First, d.Last = value("first"), value("last")
		d.DocumentTable = func(int) string { return "(select ? as n) k" }
		d.DocumentKeys = func([]store.DocumentRead) []any { return []any{0} }
		d.KeyTable = func([]sqllist.KeyColumn) (string, []any) { return "(select ? as room_id) k", []any{value("room")} }
		d.ThreadChanged, d.CommentChanged, d.Open, d.Done = "t.changed", "c.changed", "s.open", "s.done"
		d.RoomUnindexed, d.ThreadUnindexed = "r.unindexed", "t.unindexed"
		d.EachBucket, d.Routed = "each ", !d.Numbered
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			place := regexp.MustCompile(`\?`)
			if d.Numbered {
				place = regexp.MustCompile(`\$\d+`)
			}
			seen := 0
			// One row, so that the second statement of a list follows.
			run := func(_ context.Context, text string, args []any, scan func(sqllist.Row) error) error {
				seen++
				if n := len(place.FindAllString(text, -1)); n != len(args) || strings.Contains(text, "r-8") ||
					d.Numbered && strings.Contains(text, "?") {
					t.Errorf("a text has %d places for %d arguments: %s", n, len(args), text)
				}
				for _, arg := range args {
					if s, ok := arg.(string); ok && !strings.HasPrefix(s, "{") {
						t.Errorf("%q is no argument that the dialect made: %s", s, text)
					}
				}
				return scan(emptyRow{})
			}
			classify := func(_ context.Context, err error) error { return err }
			s := onlyReads{sqllist.NewReader(d, run, classify, nil, 0), rest{}}
			for _, read := range storetest.Reads() {
				switch read.Name {
				case "RoomsByID", "SessionsOf": // of the engines
				case "LatestRooms": // in part
					f, ok := read.Filter.(store.LatestRoomFilter)
					if !ok {
						t.Fatalf("filter of LatestRooms = %T", read.Filter)
					}
					_, _ = s.LatestRoomsBy(t.Context(), f,
						func(context.Context, mirror.ProjectID, []mirror.RoomID, bool) ([]mirror.Room, error) { return nil, nil })
				default:
					read.Call(t.Context(), s)
				}
			}
			if seen < 800 {
				t.Fatalf("only %d statements were seen", seen)
			}
		})
	}
}
