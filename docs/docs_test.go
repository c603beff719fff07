// Package docs_test holds the documents to the code.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNamedTestsExist fails when a document promises a test that is not there:
// a promise stands only as long as something holds it.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	caseName := regexp.MustCompile(`(?m)^\s*\{(?:name: )?"([a-z0-9][^"]+)"`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "gen" || strings.HasPrefix(d.Name(), ".") &&
			d.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range declared.FindAllSubmatch(b, -1) {
			have[string(m[1])] = true
		}
		if strings.Contains(path, "storetest") {
			for _, m := range caseName.FindAllSubmatch(b, -1) {
				have[string(m[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`|`contract: ([^`]+)`").FindAllSubmatch(b, -1)
	if len(named) < 16 {
		t.Fatalf("ARCHITECTURE.md names %d tests; every invariant wants one", len(named))
	}
	for _, m := range named {
		if name := string(m[1]) + string(m[2]); !have[name] {
			t.Errorf("ARCHITECTURE.md names %q, and there is no such test", name)
		}
	}
}
