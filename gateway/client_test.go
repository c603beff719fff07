package gateway_test

import (
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/liveblocks-mirror/liveblocks-mirror/gen/descriptors"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// The published definition is that of the linked code, complete and with comments.
func TestDescriptorsAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(descriptors.Set, set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatalf("the set is not complete: %v", err)
	}
	service := mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto.Services().Get(0)
	found, err := files.FindDescriptorByName(service.FullName())
	if err != nil {
		t.Fatal(err)
	}
	if found.ParentFile().SourceLocations().ByDescriptor(found).LeadingComments == "" {
		t.Errorf("%s has no comment", service.FullName())
	}
	ours := 0
	for _, file := range set.GetFile() {
		if file.GetPackage() != string(service.ParentFile().Package()) {
			continue
		}
		ours++
		linked, err := protoregistry.GlobalFiles.FindFileByPath(file.GetName())
		if err != nil {
			t.Errorf("%s is not linked: %v", file.GetName(), err)
			continue
		}
		file.SourceCodeInfo = nil
		if !proto.Equal(file, protodesc.ToFileDescriptorProto(linked)) {
			t.Errorf("%s differs from the linked code; run make gen", file.GetName())
		}
	}
	linked := 0
	protoregistry.GlobalFiles.RangeFilesByPackage(service.ParentFile().Package(), func(protoreflect.FileDescriptor) bool {
		linked++
		return true
	})
	if ours != linked {
		t.Errorf("the set has %d files of the API; %d are linked", ours, linked)
	}
}

// A client of the API links gRPC, protobuf and the descriptors that the API's
// definition imports: no gateway, and nothing of the service.
func TestClientsLinkLittle(t *testing.T) {
	t.Parallel()
	const api = "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}",
		api).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	allowed := []string{
		"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/",
		"golang.org/x/net/", "golang.org/x/sys/", "golang.org/x/text/",
		"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate", api,
	}
	linked := strings.Fields(string(out))
	if len(linked) < 50 {
		t.Fatalf("go list names %d packages, so it is not the list of what a client links", len(linked))
	}
next:
	for _, pkg := range linked {
		for _, prefix := range allowed {
			if strings.HasPrefix(pkg, prefix) {
				continue next
			}
		}
		t.Errorf("a client links %s", pkg)
	}
}
