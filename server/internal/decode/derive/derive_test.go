package derive

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// recorded returns the files of a pattern below the decoders.
func recorded(t *testing.T, pattern string, least int) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", pattern))
	if err != nil || len(names) < least {
		t.Fatalf("%s: %d files, %v; want at least %d", pattern, len(names), err, least)
	}
	files := make(map[string][]byte)
	for _, name := range names {
		if files[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// A document with more JSON than is kept differs only in that.
func TestLongDocumentsLackDataOnly(t *testing.T) {
	t.Parallel()
	storage := recorded(t, "*/testdata/*storage*.json", 5)
	storage["editor"] = []byte(`{"liveblocksType":"LiveObject","data":{"a":[1],"_tiptap_docs":{"liveblocksType":"LiveMap",` +
		`"data":{"f":{"type":"doc","content":[{"type":"paragraph","content":[{"type":"text","text":[["Hello"]]}]}]}}}}}`)
	storage["NUL"] = []byte(`{"liveblocksType":"LiveObject","data":{"a":"\\u0000"}}`)
	storage["no JSON"] = []byte(`{"liveblocksType":"LiveObject","data":{"a"}}`)
	ydocs := recorded(t, "yjs/testdata/ydoc-*-binary.bin", 5)
	ydocs["unreadable"] = []byte{1, 1, 1}
	texts := 0
	for kind, c := range map[string]struct {
		of   map[string][]byte
		from func(content []byte, maxData int) mirror.DocumentContent
	}{
		"storage": {storage, Storage},
		"ydoc":    {ydocs, func(b []byte, n int) mirror.DocumentContent { doc, _ := Ydoc(b, n); return doc }},
	} {
		for name, content := range c.of {
			whole := c.from(content, 1<<30)
			if len(whole.Data) == 0 {
				continue
			}
			if kept := c.from(content, len(whole.Data)); !bytes.Equal(kept.Data, whole.Data) || kept.Text != whole.Text ||
				kept.StateSHA256 != whole.StateSHA256 || kept.DataProblem != whole.DataProblem {
				t.Errorf("%s %s, just short enough = %+v; want %+v", kind, name, kept, whole)
			}
			if whole.Text != "" {
				texts++
			}
			long := c.from(content, len(whole.Data)-1)
			problem := fmt.Sprintf("the document has %d bytes of JSON; kept as data are at most %d",
				len(whole.Data), len(whole.Data)-1)
			if long.Data != nil || !strings.HasPrefix(long.DataProblem, problem) || long.Text != whole.Text ||
				long.StateSHA256 != whole.StateSHA256 || long.DeriveVersion != whole.DeriveVersion {
				t.Errorf("%s %s, too long = %+v; want no data, and the rest of %+v", kind, name, long, whole)
			}
		}
	}
	if texts < 5 {
		t.Errorf("%d documents have a text; want some of each kind", texts)
	}
}

// JSON that is not kept is not built.
func TestLongJSONTakesNoMemory(t *testing.T) { //nolint:paralleltest // others would count
	content := []byte(`{"liveblocksType":"LiveObject","data":{"x":"` + strings.Repeat("x", 8<<20) + `"}}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	doc := Storage(content, 1<<20)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; doc.Data != nil || took > 1<<20 {
		t.Errorf("a Storage document of %d bytes takes %d; want next to nothing", len(content), took)
	}
}
