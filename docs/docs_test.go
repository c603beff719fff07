// Package docs_test holds the documents to the code.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxWidth is the longest line of a Markdown file, in characters. Code blocks and
// tables, which cannot be wrapped, may be wider.
const maxWidth = 160

func TestMarkdownLineWidth(t *testing.T) {
	t.Parallel()
	checked := 0
	walk(t, ".md", func(path string, text []byte) {
		checked++
		fenced := false
		for i, line := range strings.Split(string(text), "\n") {
			bare := strings.TrimSpace(line)
			if strings.HasPrefix(bare, "```") {
				fenced = !fenced
			}
			wrappable := !fenced && !strings.HasPrefix(bare, "|") && !strings.HasPrefix(line, "    ")
			if n := utf8.RuneCountInString(line); wrappable && n > maxWidth {
				t.Errorf("%s:%d has %d characters; wrap it at %d", path, i+1, n, maxWidth)
			}
		}
	})
	if checked < 5 {
		t.Fatalf("found %d Markdown files; want all of the repository", checked)
	}
}

// walk calls f with each file of the repository that has an extension, but for what
// is generated or installed.
func walk(t *testing.T, extension string, f func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if d.Name() == "node_modules" || d.Name() == "gen" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
				return filepath.SkipDir
			}
			return nil
		case filepath.Ext(path) != extension:
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			f(path, text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNamedTestsExist fails when a document promises a test that is not there:
// a promise stands only as long as something holds it.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	caseName := regexp.MustCompile(`(?m)^\s*\{(?:name: )?"([a-z0-9][^"]+)"`)
	walk(t, ".go", func(path string, text []byte) {
		for _, m := range declared.FindAllSubmatch(text, -1) {
			have[string(m[1])] = true
		}
		if strings.Contains(path, "storetest") {
			for _, m := range caseName.FindAllSubmatch(text, -1) {
				have[string(m[1])] = true
			}
		}
	})
	mark := regexp.MustCompile("`(Test\\w+)`|`contract: ([^`]+)`")
	named := 0
	walk(t, ".md", func(path string, text []byte) {
		for _, m := range mark.FindAllSubmatch(text, -1) {
			named++
			if name := string(m[1]) + string(m[2]); !have[name] {
				t.Errorf("%s names %q, and there is no such test", path, name)
			}
		}
	})
	if named < 16 {
		t.Fatalf("the documents name %d tests; every invariant wants one", named)
	}
}
