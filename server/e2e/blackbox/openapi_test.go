package blackbox_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The description that the service serves passes a linter, becomes types in
// TypeScript, and a program that is checked by them reads the service.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, map[string]string{"MIRROR_API_TOKEN": token})
	must(t, upstream.CreateRoom("a room", fake.RoomOptions{
		Metadata: map[string]any{"name": "Plan", "tags": []string{"a", "b"}}, Storage: storage("9007199254740993"),
	}))
	tell(t, s, fake.RoomCreated, "a room")
	for _, part := range []string{"", "/storage"} {
		harness.Eventually(t, patience, func() error {
			got := send(t, http.MethodGet, s.URL(roomPath("a room", part)), bearer(token), nil)
			if got.status != http.StatusOK {
				return fmt.Errorf("%s answered %d %s", part, got.status, got.body)
			}
			return nil
		})
	}
	spec := send(t, http.MethodGet, s.URL("/openapi.json"), nil, nil)
	if spec.status != http.StatusOK {
		t.Fatalf("/openapi.json without a token = %d %s", spec.status, spec.body)
	}
	packages, err := filepath.Abs(lbDir)
	must(t, err)
	rules, err := filepath.Abs("../../../tools/openapi/redocly.yaml")
	must(t, err)
	program, err := os.ReadFile(filepath.Join(packages, "openapi.mts"))
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "openapi.json"), spec.body, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "client.mts"), program, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type":"module"}`), 0o600))
	must(t, os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")))

	run := func(name string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), clientBuild)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(packages, "node_modules", ".bin", name), args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "MIRROR_API_TOKEN="+token, "REDOCLY_TELEMETRY=off",
			"REDOCLY_SUPPRESS_UPDATE_NOTICE=true")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	if out := run("redocly", "lint", "--config="+rules, "openapi.json"); !strings.Contains(out, "is valid") {
		t.Errorf("the linter says:\n%s", out)
	}
	run("openapi-typescript", "openapi.json", "--output=api.d.mts")
	run("tsc", "--noEmit", "--strict", "--target", "esnext", "--module", "nodenext", "--skipLibCheck", "client.mts")
	const want = `a room is called Plan, with the tags a, b
its storage is {"liveblocksType":"LiveObject","data":{"v":9007199254740993}}
0 tasks failed
ROOM_NOT_MIRRORED
`
	if got := run("tsx", "client.mts", "http://"+s.HTTPAddr); got != want {
		t.Errorf("the program printed:\n%s\nwant:\n%s", got, want)
	}
}
