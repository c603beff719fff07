package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestShareConns(t *testing.T) {
	t.Parallel()
	for conns, want := range map[int]store.Shares{
		1:  {Work: 1},
		2:  {Accept: 1, Work: 1},
		3:  {Accept: 1, Read: 1, Work: 1},
		4:  {Accept: 1, Renew: 1, Read: 1, Work: 1},
		8:  {Accept: 2, Renew: 1, Read: 2, Work: 3},
		16: {Accept: 2, Renew: 1, Read: 6, Work: 7},
	} {
		if d := cmp.Diff(want, store.ShareConns(conns)); d != "" {
			t.Errorf("ShareConns(%d) (-want +got):\n%s", conns, d)
		}
	}
	for conns := 1; conns < 200; conns++ {
		if s := store.ShareConns(conns); s.Accept+s.Renew+s.Read+s.Work != conns || s.Work < s.Read || s.Work < 1 {
			t.Errorf("ShareConns(%d) = %+v; want all of them, and no more for reads than for work", conns, s)
		}
	}
}
