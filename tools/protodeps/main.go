// Command protodeps writes the third-party .proto files that our own import,
// printed from the descriptors in the linked Go modules. Buf resolves them as a
// module of the workspace: without network, without copies in the repository, with
// go.sum as the only place for versions.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path"
	"path/filepath"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/desc"
	"github.com/jhump/protoreflect/desc/protoprint"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// roots are the files that ours may import; what they import themselves follows.
var roots = []string{
	"buf/validate/validate.proto",
	"google/api/annotations.proto",
	"google/api/field_behavior.proto",
	"google/api/httpbody.proto",
	"google/api/resource.proto",
	"google/rpc/error_details.proto",
	"google/rpc/status.proto",
}

func main() {
	log.SetFlags(0)
	out := flag.String("o", ".protodeps", "folder to write; what it held before is removed")
	flag.Parse()
	n, err := write(*out)
	if err != nil {
		log.Fatal("protodeps: ", err)
	}
	log.Printf("protodeps: wrote %d files to %s", n, *out)
}

// write fills a new folder beside out and then puts it in the place of out, so
// that a run cut short never leaves half a set behind. It returns the number of files.
func write(out string) (int, error) {
	next, err := os.MkdirTemp(filepath.Dir(out), filepath.Base(out)+".")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(next) }() // nothing is left of it when all went well

	seen := map[string]bool{}
	for _, root := range roots {
		file, err := protoregistry.GlobalFiles.FindFileByPath(root)
		if err != nil {
			return 0, fmt.Errorf("find %s: %w", root, err)
		}
		if err := writeFile(next, file, seen); err != nil {
			return 0, err
		}
	}
	if err := os.Chmod(next, 0o755); err != nil {
		return 0, err
	}
	if err := os.RemoveAll(out); err != nil {
		return 0, err
	}
	return len(seen), os.Rename(next, out)
}

// writeFile prints file and everything it imports below dir, each of them once.
func writeFile(dir string, file protoreflect.FileDescriptor, seen map[string]bool) error {
	name := file.Path()
	// Buf brings google/protobuf/*.proto itself.
	if seen[name] || path.Dir(name) == "google/protobuf" {
		return nil
	}
	seen[name] = true
	for i := range file.Imports().Len() {
		if err := writeFile(dir, file.Imports().Get(i).FileDescriptor, seen); err != nil {
			return err
		}
	}

	wrapped, err := desc.WrapFile(file)
	if err != nil {
		return fmt.Errorf("wrap %s: %w", name, err)
	}
	printer := protoprint.Printer{Compact: true}
	source, err := printer.PrintProtoToString(wrapped)
	if err != nil {
		return fmt.Errorf("print %s: %w", name, err)
	}
	target := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, []byte(source), 0o644)
}
