package blackbox_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// typescript is where the package of the TypeScript client is made.
const typescript = "../../../client/typescript"

// npmDir makes a folder with npm packages that are installed elsewhere.
func npmDir(t *testing.T, packages string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")))
	return dir
}

// inDir runs a program in a folder, and returns what it prints.
func inDir(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientBuild)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// installTypeScript makes the package as "npm pack" does, tests what is in it, and
// installs it into an empty project, whose folder it returns. Nothing is downloaded.
func installTypeScript(t *testing.T) (project string) {
	t.Helper()
	source, err := filepath.Abs(typescript)
	must(t, err)
	work := npmDir(t, source)
	for _, name := range []string{"package.json", "README.md", "tsconfig.json", "src", "test"} {
		inDir(t, work, "cp", "-R", filepath.Join(source, name), ".")
	}
	project = t.TempDir()
	inDir(t, work, "npm", "pack", "--silent", "--pack-destination", project)
	tarballs, err := filepath.Glob(filepath.Join(project, "*.tgz"))
	must(t, err)
	if len(tarballs) != 1 {
		t.Fatalf("npm pack made %v; want one tarball", tarballs)
	}
	inDir(t, work, "npm", "test", "--silent")
	must(t, os.WriteFile(filepath.Join(project, "package.json"), []byte(`{"type":"module"}`), 0o600))
	inDir(t, project, "npm", "install", "--offline", "--no-audit", "--no-fund", tarballs[0])
	installed, err := filepath.Glob(filepath.Join(project, "node_modules", "[^.]*"))
	must(t, err)
	if want := filepath.Join(project, "node_modules", "@liveblocks-mirror"); !slices.Equal(installed, []string{want}) {
		t.Errorf("installed %v; want the package alone", installed)
	}
	return project
}

// startAgain starts the service that has ended, at the address that clients know.
func startAgain(t *testing.T, ended *harness.Service, db string, upstream *harness.Fake) *harness.Service {
	t.Helper()
	return harness.Start(t, harness.Options{DatabaseURL: db, UpstreamURL: upstream.URL, Env: map[string]string{
		"MIRROR_API_TOKEN": token, "MIRROR_MIGRATE": "", "MIRROR_HTTP_ADDR": ended.HTTPAddr,
	}})
}

// node runs a program of a project, until the end of the test at the latest.
func node(t *testing.T, project, program string, args ...string) *printing {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{filepath.Join(project, program)}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "MIRROR_API_TOKEN="+token)
	return run(t, cmd)
}

// tokenLines are those that say which token was saved.
var tokenLines = regexp.MustCompile(`(?m)^token .*\n`)

// nodeTypes is what the examples use of Node.
const nodeTypes = `declare const process: { argv: string[]; env: Record<string, string | undefined> };
declare module "node:fs/promises" {
  export function readFile(path: string, encoding: "utf8"): Promise<string>;
  export function rename(from: string, to: string): Promise<void>;
  export function writeFile(path: string, data: string): Promise<void>;
}
`

// The TypeScript client, installed from its tarball into an empty project, works in Node
// and in a browser, also behind a proxy.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	needServers(t)
	project := installTypeScript(t)
	t.Run("Node", func(t *testing.T) { t.Parallel(); followInNode(t, project) })
	t.Run("browser", func(t *testing.T) { t.Parallel(); followInBrowser(t, project) })
	t.Run("behind nginx", func(t *testing.T) { t.Parallel(); followBehindNginx(t, project) })
}

// A program reads a room, follows what changes while the service is killed and restarted,
// and goes on from its token in another process.
func followInNode(t *testing.T, project string) {
	t.Helper()
	db := database(t)
	s, upstream := startOn(t, db, map[string]string{"MIRROR_API_TOKEN": token, "MIRROR_HTTP_ADDR": freeAddr(t)})
	restart := func() { s = startAgain(t, s, db, upstream) }
	room := func(name string) {
		t.Helper()
		create(t, s, upstream, name, fake.RoomOptions{
			Metadata: map[string]any{"name": "Plan"}, Storage: storage("9007199254740993"),
		})
	}
	room("a room")
	thread, err := upstream.CreateThread("a room", fake.ThreadOptions{
		Metadata: map[string]any{"color": "blue"}, Comment: fake.Comment{UserID: "alice", Text: "hello"},
	})
	must(t, err)
	deliver(t, s, fake.Event{Type: fake.ThreadCreated, RoomID: "a room", ThreadID: thread, Time: time.Now()})
	mirrored := func(room, part string) {
		t.Helper()
		harness.Eventually(t, patience, func() error {
			got := send(t, http.MethodGet, s.URL(roomPath(room, part)), bearer(token), nil)
			if got.status != http.StatusOK {
				return fmt.Errorf("%s of %s answered %d %s", part, room, got.status, got.body)
			}
			return nil
		})
	}
	for _, part := range []string{"", "/storage", "/threads/" + thread} {
		mirrored("a room", part)
	}

	program, err := os.ReadFile(filepath.Join(lbDir, "follow.mts"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(project, "follow.mts"), program, 0o600))
	examples := []string{"follow.mts"}
	for name, readme := range map[string][]byte{
		"package.mts": mustRead(t, filepath.Join(typescript, "README.md")), "readme.mts": mustRead(t, "../../../README.md"),
	} {
		_, example, _ := strings.Cut(string(readme), "```ts\nimport { readFile,")
		example, _, ok := strings.Cut(example, "```\n")
		if !ok {
			t.Fatalf("no example for %s", name)
		}
		example = "import { readFile," + strings.ReplaceAll(example, "http://127.0.0.1:8080", s.URL(""))
		must(t, os.WriteFile(filepath.Join(project, name), []byte(example), 0o600))
		examples = append(examples, name)
	}
	must(t, os.WriteFile(filepath.Join(project, "node.d.ts"), []byte(nodeTypes), 0o600))
	compiler, err := filepath.Abs(filepath.Join(typescript, "node_modules", ".bin", "tsc"))
	must(t, err)
	inDir(t, project, compiler, append(examples, "--strict", "--exactOptionalPropertyTypes", "--target", "es2022",
		"--module", "nodenext", "--lib", "es2022,dom", "node.d.ts")...)
	example := node(t, project, "package.mjs")
	example.await(t, "upserted "+thread+" in a room\n{ color: 'blue' }\n")
	example = node(t, project, "readme.mjs")
	for _, line := range []string{"room a room \n", "storage a room \n", "thread a room " + thread + "\n"} {
		example.await(t, line)
	}

	p := node(t, project, "follow.mjs", s.URL(""))
	p.await(t, "storage of a room was upserted\n")
	s.Kill()
	restart()
	room("b")
	p.await(t, "storage of b was upserted\n")
	_, err = s.Stop(t)
	must(t, err)
	restart()
	room("c")
	p.await(t, "storage of c was upserted\ntoken ")
	const want = `a room is called Plan
the rooms are a room
its storage is application/json of revision N
{"liveblocksType":"LiveObject","data":{"v":9007199254740993}}
a thread is resolved: false, and says hello
there are 0 users
ROOM_NOT_MIRRORED
storage of a room was upserted
storage of b was upserted
storage of c was upserted
`
	_ = p.end(os.Kill)
	if got := tokenLines.ReplaceAllString(p.String(), ""); got != want {
		t.Errorf("the program printed:\n%s\nwant:\n%s", got, want)
	}
	saves := tokenLines.FindAllString(p.String(), -1)
	saved := strings.TrimSpace(strings.TrimPrefix(saves[len(saves)-1], "token "))

	room("d")
	mirrored("d", "/storage")
	p = node(t, project, "follow.mjs", s.URL(""), saved)
	p.await(t, "storage of d was upserted\n")
	room("last")
	p.await(t, "ended: enough\n")
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	const rest = "storage of d was upserted\nstorage of last was upserted\nended: enough\n"
	if got := tokenLines.ReplaceAllString(p.String(), ""); got != rest {
		t.Errorf("from its token the program printed:\n%s\nwant:\n%s", got, rest)
	}

	p = node(t, project, "follow.mjs", s.URL(""), saved+"x")
	p.await(t, "CHANGE_TOKEN_INVALID: the change token is not valid, for good: true\n")
}

// followingPage follows in two ways, and reports what each is told.
const followingPage = `<!doctype html><script type="module">
import { follow } from "/client/index.js";
const report = (line) => fetch("/report", { method: "POST", body: line });
const native = new EventSource("/v1/changes:watch?kinds=storage&position=earliest");
native.addEventListener("changes", (event) => {
  for (const change of JSON.parse(event.data).changes.changes) report("EventSource: " + change.roomId);
});
try {
  const changes = follow({ url: "", kinds: ["storage"], position: "earliest" });
  for await (const change of changes) report("follow: " + change.roomId);
} catch (error) {
  report("follow failed: " + error);
}
</script>`

// browse opens a page in a browser, which ends with the test. A browser can hang or crash
// before it asks for its first page, which says nothing about the page: it gets three attempts.
func browse(t *testing.T, page string, opened <-chan struct{}) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
			"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
			"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--user-data-dir="+harness.Dir(t, nil), page)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		browser := run(t, cmd)
		end := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its children too
		t.Cleanup(end)
		select {
		case <-opened:
			return
		case <-time.After(patience):
		}
		end()
		if attempt == 3 {
			t.Fatalf("the browser has not opened the page within %v; it printed:\n%s", patience, browser)
		}
		select {
		case <-opened: // by the browser that has ended
		default:
		}
		t.Logf("the browser is started again: it has not opened the page within %v, and printed:\n%s", patience, browser)
	}
}

// A page in a browser follows what changes, with the TypeScript client and with the
// browser's own EventSource, while the service is killed and restarted.
func followInBrowser(t *testing.T, project string) {
	t.Helper()
	db := database(t)
	s, upstream := startOn(t, db, map[string]string{"MIRROR_API_TOKEN": token, "MIRROR_HTTP_ADDR": freeAddr(t)})
	service, err := url.Parse(s.URL(""))
	must(t, err)
	lines := make(chan string, 1000)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(service)
			r.Out.Header.Set("Authorization", "Bearer "+token) // EventSource cannot
		},
		FlushInterval: -1,
		// As if the page had called the service: an answer of the proxy would end an EventSource for good.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	mux := http.NewServeMux()
	opened := make(chan struct{}, 1)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case opened <- struct{}{}:
		default: // it is known
		}
		_, _ = io.WriteString(w, followingPage)
	})
	mux.Handle("/v1/", proxy)
	mux.HandleFunc("POST /report", func(_ http.ResponseWriter, r *http.Request) {
		line, _ := io.ReadAll(r.Body)
		lines <- string(line)
	})
	modules := filepath.Join(project, "node_modules", "@liveblocks-mirror", "client", "dist")
	mux.Handle("/client/", http.StripPrefix("/client/", http.FileServer(http.Dir(modules))))
	site := httptest.NewUnstartedServer(mux)
	site.Config.ErrorLog = proxy.ErrorLog
	site.Start()
	t.Cleanup(site.Close)
	t.Cleanup(site.CloseClientConnections) // once the browser has ended
	browse(t, site.URL, opened)
	// Each change is reported twice: once in each way, and not again after a reconnect.
	changed := func(room string) {
		t.Helper()
		create(t, s, upstream, room, fake.RoomOptions{Storage: storage("1")})
		got := make([]string, 2)
		for i := range got {
			select {
			case got[i] = <-lines:
			case <-time.After(2 * patience):
				t.Fatalf("the page has reported %q of %s; want two lines", got[:i], room)
			}
		}
		slices.Sort(got)
		if want := []string{"EventSource: " + room, "follow: " + room}; !slices.Equal(got, want) {
			t.Fatalf("the page reported %q; want %q", got, want)
		}
	}
	restart := func() { s = startAgain(t, s, db, upstream) }
	changed("a")
	s.Kill()
	restart()
	changed("b")
	_, err = s.Stop(t)
	must(t, err)
	restart()
	changed("c")
}
