package mysql_test

import (
	stdflag "flag"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// openStrict opens stores on a server that limits the rows of statements.
func openStrict(rows, piece int) storetest.Opener {
	return func(t testing.TB) storetest.Database {
		url := dbtest.MySQL.Database(t)
		return func(t storetest.T) store.Store {
			s, err := mysql.OpenStrict(url, rows, piece)
			if err != nil {
				t.Fatalf("OpenStrict = %v", err)
			}
			t.Cleanup(s.Close)
			return s
		}
	}
}

var largest = stdflag.Int("largest", 1_200, "rows of everything in the rooms of TestLargestRooms")

// No room is too large for a server that limits the rows of a statement. Limit
// and pieces are smaller than in production, in proportion; with -largest=12000 they are
// not.
func TestLargestRooms(t *testing.T) {
	t.Parallel()
	limit := *largest / 6 * 5
	storetest.RunLarge(t, *largest, openStrict(limit, mysql.PieceRows*limit/mysql.HostedRows))
}

// Nor does any other statement of the contract concern more rows than it may.
func TestContractInPieces(t *testing.T) {
	t.Parallel()
	storetest.Run(t, openStrict(64, 32))
}
