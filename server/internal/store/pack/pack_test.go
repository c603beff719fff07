package pack_test

import (
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/pack"
)

func TestPack(t *testing.T) {
	t.Parallel()
	c, err := pack.New()
	if err != nil {
		t.Fatalf("New = %v", err)
	}
	defer c.Close()
	for _, in := range []string{"", "a", strings.Repeat("liveblocks", 100_000)} {
		packed := c.Pack([]byte(in))
		out, err := c.Unpack(packed, int64(len(in)))
		if err != nil || string(out) != in {
			t.Errorf("Unpack(Pack(%.20q)) = %.20q, %v", in, out, err)
		}
		if packed == nil {
			t.Errorf("Pack(%.20q) = nil, which would be null", in)
		}
		if _, err := c.Unpack(packed, int64(len(in))+1); err == nil {
			t.Errorf("Unpack of %.20q with another size recorded = nil; want an error", in)
		}
		if _, err := c.Unpack(append([]byte("x"), packed...), int64(len(in))); err == nil {
			t.Errorf("Unpack of %.20q, damaged = nil; want an error", in)
		}
	}
}
