package sqllist_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

// userRow is a row of a room with one of its connections.
type userRow struct{ epoch, connection int64 }

func (u userRow) Scan(dest ...any) error {
	user := "user"
	for _, d := range dest {
		switch d := d.(type) {
		case *mirror.RoomID:
			*d = "room"
		case *int64:
			*d = u.epoch
		case **int64:
			*d = &u.connection
		case **string:
			*d = &user
		}
	}
	return nil
}

// The users of a room are read in pieces, and are all of one time.
func TestActiveUsersThatChange(t *testing.T) {
	t.Parallel()
	type piece = []userRow
	for name, c := range map[string]struct {
		pieces []piece
		users  int
		err    error
		reason fault.Reason
	}{
		"no change":          {pieces: []piece{{{1, 1}, {1, 2}}, {{1, 3}}}, users: 3},
		"ends with a piece":  {pieces: []piece{{{1, 1}, {1, 2}}, {{1, 0}}}, users: 3},
		"other users":        {pieces: []piece{{{1, 1}, {1, 2}}, {{2, 3}}, {{2, 1}, {2, 3}}, {{2, 4}}}, users: 3},
		"deleted meanwhile":  {pieces: []piece{{{1, 1}, {1, 2}}, {}, {}}, err: store.ErrNotFound},
		"changes every time": {reason: fault.ReasonStoreUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			run := func(_ context.Context, _ string, _ []any, scan func(sqllist.Row) error) error {
				rows := piece{{int64(asked), 1}, {int64(asked), 2}}
				if c.pieces != nil {
					rows = c.pieces[asked]
				}
				asked++
				for _, row := range rows {
					if err := scan(row); err != nil {
						return err
					}
				}
				return nil
			}
			d := sqllist.Dialect{
				Key: func(id string) any { return id }, Time: func(t time.Time) any { return t }, Piece: 2,
				KeyTable: func([]sqllist.KeyColumn) (string, []any) { return "k", nil },
			}
			r := sqllist.NewReader(d, run, func(_ context.Context, err error) error { return err }, nil, 0)
			got, err := r.ActiveUsers(t.Context(), mirror.Resource{Room: "room", Kind: mirror.KindActiveUsers}, false)
			as := errors.Is(err, c.err)
			if c.reason != "" {
				as = fault.Is(err, c.reason)
			}
			if !as || len(got.Users) != c.users {
				t.Fatalf("ActiveUsers = %d users, %v; want %d, %v%s", len(got.Users), err, c.users, c.err, c.reason)
			}
			if c.pieces != nil && asked != len(c.pieces) || c.pieces == nil && asked > 20 {
				t.Errorf("%d pieces were read; want %d", asked, len(c.pieces))
			}
		})
	}
}
