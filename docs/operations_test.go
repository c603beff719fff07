package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// TestOperationsIsComplete holds OPERATIONS.md to the code: it explains every failure
// reason, every status field and every log line of level WARN or above, and no other.
func TestOperationsIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	values := mirrorv1.ErrorReason(0).Descriptor().Values()
	reasons := map[string]bool{}
	for i := range values.Len() {
		if v := values.Get(i); v.Number() != 0 {
			reasons[strings.TrimPrefix(string(v.Name()), "ERROR_REASON_")] = true
		}
	}
	for heading, want := range map[string]map[string]bool{
		"Status fields":   fields((&mirrorv1.GetStatusResponse{}).ProtoReflect().Descriptor()),
		"Failure reasons": reasons,
		"Log lines":       logged(t),
	} {
		_, section, _ := strings.Cut(string(text), "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		got := map[string]bool{}
		for _, row := range regexp.MustCompile("(?m)^\\|(?: [A-Z, ]+ \\|)? `([^`]+)` \\|.*$").FindAllStringSubmatch(section, -1) {
			got[row[1]] = true
		}
		diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
		if diff != "" || len(want) < 20 {
			t.Errorf("%s (-in the code +explained):\n%s", heading, diff)
		}
	}
}

// fields are the names of the fields of a message and of the messages in it.
func fields(m protoreflect.MessageDescriptor) map[string]bool {
	names := map[string]bool{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		names[string(f.Name())] = true
		if sub := f.Message(); sub != nil && sub.ParentFile().Package() == m.ParentFile().Package() {
			maps.Copy(names, fields(sub))
		}
	}
	return names
}

// logged are the messages of level WARN or above, and those whose level varies.
func logged(t *testing.T) map[string]bool {
	t.Helper()
	messages := map[string]bool{}
	testOnly := regexp.MustCompile(`_test\.go$|/(e2e|dbtest|fake|gatewaytest|storetest)/`)
	walk(t, ".go", func(path string, text []byte) {
		if testOnly.MatchString(path) {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok {
				switch f.Sel.Name {
				case "Warn", "Error", "WarnContext", "ErrorContext", "LogAttrs":
					for _, arg := range call.Args[:min(3, len(call.Args))] {
						if message := literal(arg); message != "" && isLogger(f.X) {
							messages[message] = true
							break
						}
					}
				}
			}
			return true
		})
	})
	return messages
}

// isLogger tells a logger from what else has a method of such a name.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.HasSuffix(strings.ToLower(x.Name), "log") || strings.HasSuffix(strings.ToLower(x.Name), "logger")
	case *ast.SelectorExpr:
		return isLogger(x.Sel)
	default:
		return false
	}
}

// literal is the text of a string literal, joined if it is in parts; empty if e is
// something else.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	default:
		return ""
	}
}
