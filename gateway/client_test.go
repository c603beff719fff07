package gateway_test

import (
	"os/exec"
	"strings"
	"testing"
)

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
