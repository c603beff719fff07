package blackbox_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// bigStorage returns a Storage document of about size bytes with many nodes and long texts.
func bigStorage(size int) []byte {
	b := bytes.NewBufferString(`{"liveblocksType":"LiveObject","data":{"shapes":{"liveblocksType":"LiveList","data":[`)
	label := strings.Repeat("of no meaning ", 100)
	for i := 0; b.Len() < size; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"liveblocksType":"LiveObject","data":{"id":"shape-%d","x":%d,"y":%d.5,"label":%q}}`,
			i, i*7919%10007, i*104729%10007, label)
	}
	b.WriteString("]}}}")
	return b.Bytes()
}

// bigYdoc returns a Yjs document of about size bytes: a text whose letters were each
// typed before the last one, which is the form that takes most memory to decode.
func bigYdoc(size int) []byte {
	b := append([]byte{}, 4, 1, 1, 't', 1, 'a') // a string in the root "t"
	n := uint64(1)
	for ; len(b) < size; n++ {
		b = append(b, 4|0x40, 1) // a string left of a letter of client 1
		b = append(binary.AppendUvarint(b, n-1), 1, 'a')
	}
	head := append(binary.AppendUvarint([]byte{1}, n), 1, 0)
	return append(append(head, b...), 0)
}

// peakMemory returns the most memory that a process has had.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(mustRead(t, fmt.Sprintf("/proc/%d/status", pid)))
	if m == nil {
		t.Fatal("no VmHWM")
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// Many large documents that change at once take no more memory than there is. They are
// fetched and decoded one after the other.
func TestLargeDocumentsAtOnce(t *testing.T) {
	t.Parallel()
	const limit, each = 192 << 20, 10
	url := database(t)
	s, upstream := startOn(t, url, map[string]string{"GOMEMLIMIT": strconv.Itoa(limit), "MIRROR_SETTLE": "1s"})
	storage, ydoc := bigStorage(12<<20), bigYdoc(1_000_000)
	for i := range each {
		create(t, s, upstream, fmt.Sprint("storage", i), fake.RoomOptions{Storage: storage})
		create(t, s, upstream, fmt.Sprint("ydoc", i), fake.RoomOptions{})
		if err := upstream.SetYdoc(fmt.Sprint("ydoc", i), "", ydoc); err != nil {
			t.Fatal(err)
		}
		tell(t, s, fake.YdocUpdated, fmt.Sprint("ydoc", i))
	}
	used := func(want func(used int64) bool) {
		harness.Eventually(t, patience, func() error {
			status, err := s.Admin(t).GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			if n := status.GetDocumentMemoryUsedBytes(); !want(n) {
				return fmt.Errorf("documents take %d bytes", n)
			}
			if n := status.GetDocumentMemoryBytes(); n != limit/2 {
				t.Fatalf("the memory for documents is %d bytes; want half of %d", n, limit)
			}
			return nil
		})
	}
	used(func(used int64) bool { return used > 0 })
	awaitIdle(t, s)
	used(func(used int64) bool { return used == 0 })
	db := dbtest.Postgres.Connect(t, url)
	if n := count(t, db, "select count(*) from mirror_document where size in (?, ?) and data is not null",
		len(storage), len(ydoc)); n != 2*each {
		t.Errorf("%d documents are mirrored; want all %d", n, 2*each)
	}
	peak := peakMemory(t, s.Pid())
	t.Logf("at most %d MiB, of %d", peak>>20, limit>>20)
	// The rest is the program itself.
	if peak > limit+limit/4 {
		t.Errorf("the service has taken %d MiB; want about %d", peak>>20, limit>>20)
	}
}
