package blackbox_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// clientBuild bounds the build of a client from nothing.
const clientBuild = 10 * time.Minute

// The clients of the README work as they stand there, against a service that is closed.
func TestClientsOfTheReadme(t *testing.T) {
	t.Parallel()
	needServers(t)
	s, upstream := start(t, map[string]string{"MIRROR_API_TOKEN": token})
	for _, room := range []string{"a room", "another"} {
		must(t, upstream.CreateRoom(room, fake.RoomOptions{Metadata: map[string]any{"name": "Plan"}, Storage: storage("1")}))
		tell(t, s, fake.RoomCreated, room)
		// With max_age a read waits for the first fetch, as long as the service lets it wait.
		path := "/v1/rooms/" + url.PathEscape(room) + "?max_age=3600s"
		harness.Eventually(t, patience, func() error {
			if got := send(t, http.MethodGet, s.URL(path), bearer(token), nil); got.status != http.StatusOK {
				return fmt.Errorf("%s = %d %s", path, got.status, got.body)
			}
			return nil
		})
	}
	root, err := filepath.Abs("../../..")
	must(t, err)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	must(t, err)
	_, section, ok := strings.Cut(string(readme), "\n## A client in your language\n")
	if !ok {
		t.Fatal("README has no section on clients")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	section = strings.NewReplacer("127.0.0.1:9090", s.GRPCAddr, "127.0.0.1:8080", s.HTTPAddr, "/PATH/TO/CLONE", root).
		Replace(section)
	packages := filepath.Join(root, "server/e2e/lb")
	pinned, err := os.ReadFile(filepath.Join(packages, "package.json"))
	must(t, err)
	testdeps, err := os.ReadFile(filepath.Join(root, "tools/testdeps.sh"))
	must(t, err)
	// What a client needs is installed already, in pinned versions.
	installed := map[string][]byte{"npm install": pinned, "apt-get install": testdeps}

	for _, language := range []struct{ name, fence, file string }{
		{"Go", "go", "main.go"}, {"TypeScript", "ts", "client.mts"}, {"Python", "python", "client.py"},
	} {
		t.Run(language.name, func(t *testing.T) {
			t.Parallel()
			_, of, _ := strings.Cut(section, "\n**"+language.name+"**")
			found := regexp.MustCompile("(?s)```sh\n(.*?)```\n\n```" + language.fence + "\n(.*?)```").FindStringSubmatch(of)
			if found == nil {
				t.Fatalf("README has no commands and code for %s", language.name)
			}
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, language.file), []byte(found[2]), 0o600))
			must(t, os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")))
			// The sums of all modules, so that none is looked up.
			sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))

			commands := slices.DeleteFunc(strings.SplitAfter(found[1], "\n"), func(line string) bool {
				for command, list := range installed {
					if names, ok := strings.CutPrefix(line, command+" "); ok {
						for _, name := range strings.Fields(names) {
							if !strings.Contains(string(list), name) {
								t.Errorf("%s is not among what the tests install", name)
							}
						}
						return true
					}
				}
				return false
			})
			ctx, cancel := context.WithTimeout(t.Context(), clientBuild)
			defer cancel()
			cmd := exec.CommandContext(ctx, "bash", "-euc", strings.Join(commands, ""))
			cmd.Dir = dir
			// Debian's Python finds Debian's packages, whatever other Python there is.
			cmd.Env = append(os.Environ(), "MIRROR_API_TOKEN="+token, "PATH=/usr/bin:"+os.Getenv("PATH"))
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, stderr.String())
			}
			if got := string(out); got != "a room\nanother\n" {
				t.Errorf("the client printed %q\n%s", got, stderr.String())
			}
		})
	}
}
