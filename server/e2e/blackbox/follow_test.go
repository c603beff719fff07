package blackbox_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feed "github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// printing is a program that runs and what it prints.
type printing struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *printing) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *printing) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// run starts a program, which ends with the test at the latest.
func run(t *testing.T, cmd *exec.Cmd) *printing {
	t.Helper()
	p := &printing{cmd: cmd}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.WaitDelay = time.Second // what a shell has started may keep its output open
	must(t, cmd.Start())
	t.Cleanup(func() { _ = p.end(os.Kill) })
	return p
}

// end sends a signal and waits for the end.
func (p *printing) end(signal os.Signal) error {
	_ = p.cmd.Process.Signal(signal) // it may have ended
	return p.cmd.Wait()
}

// await waits until a text was printed.
func (p *printing) await(t *testing.T, text string) {
	t.Helper()
	harness.Eventually(t, patience, func() error {
		if got := p.String(); !strings.Contains(got, text) {
			return fmt.Errorf("%q was not printed, only:\n%s", text, got)
		}
		return nil
	})
}

// The command prints changes, outlives the service, and says where to go on.
func TestFollowCommand(t *testing.T) {
	t.Parallel()
	needServers(t)
	url := database(t)
	s, upstream := startOn(t, url, map[string]string{"MIRROR_GRPC_ADDR": freeAddr(t)})
	env := map[string]string{"MIRROR_SERVER": s.GRPCAddr}
	create(t, s, upstream, "first", fake.RoomOptions{})
	p := run(t, harness.Command(t.Context(), t, env, "follow", "--from", "earliest", "--kind", "room"))
	p.await(t, `upserted  room of room "first"`)

	s.Kill()
	p.await(t, "the stream broke, trying again")
	s = harness.Start(t, harness.Options{
		DatabaseURL: url, UpstreamURL: upstream.URL,
		Env: map[string]string{"MIRROR_GRPC_ADDR": s.GRPCAddr, "MIRROR_MIGRATE": ""},
	})
	create(t, s, upstream, "second", fake.RoomOptions{})
	p.await(t, `upserted  room of room "second"`)
	if err := p.end(os.Interrupt); err != nil {
		t.Errorf("an interrupt ends it with %v; want exit code 0", err)
	}
	goOn := regexp.MustCompile(`go on with --from (\S+)\n`).FindStringSubmatch(p.String())
	if goOn == nil || strings.Contains(p.String(), "storage") {
		t.Fatalf("it printed %s; want rooms alone, and a token at the end", p.String())
	}

	create(t, s, upstream, "third", fake.RoomOptions{})
	p = run(t, harness.Command(t.Context(), t, env, "follow", "--from", goOn[1], "--room-prefix", "th", "--json",
		"--include", "full"))
	p.await(t, `"roomId":"third"`)
	p.await(t, `"room":{"projectId":"default","roomId":"third"`)
	p.await(t, `"sourceJson":{`)
	if text := p.String(); strings.Contains(text, "first") || strings.Contains(text, "second") {
		t.Errorf("from the token it printed %s", text)
	}

	s.Kill()
	for _, args := range [][]string{{"--from", "now"}, {"--from", goOn[1]}} {
		got := command(t, env, append([]string{"follow"}, args...)...)
		if got.code != 1 || !strings.Contains(got.told, "no service answers at") {
			t.Errorf("follow without a service = %+v; want exit code 1 and why", got)
		}
	}
	got := command(t, env, "follow", "--include", "full")
	if got.code != 2 || !strings.Contains(got.told, "needs --json") {
		t.Errorf("follow that prints no resources = %+v; want exit code 2 and why", got)
	}
	got = command(t, env, "follow", "--kind", "unknown")
	if got.code != 2 || !strings.Contains(got.told, "must be one of") {
		t.Errorf("follow of an unknown kind = %+v; want exit code 2 and why", got)
	}
}

// What the README says about following works as it stands there.
func TestFollowOfTheReadme(t *testing.T) {
	t.Parallel()
	needServers(t)
	tool := grpcurl(t)
	s, upstream := start(t, nil)
	create(t, s, upstream, "plan", fake.RoomOptions{})
	root, err := filepath.Abs("../../..")
	must(t, err)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	must(t, err)
	_, section, _ := strings.Cut(string(readme), "\n## Follow what changes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	section = strings.NewReplacer("127.0.0.1:9090", s.GRPCAddr, "127.0.0.1:8080", s.HTTPAddr).Replace(section)

	commands := regexp.MustCompile(`(?m)^    (mirror|curl|grpcurl) (.*)$`).FindAllStringSubmatch(section, -1)
	if len(commands) != 3 {
		t.Fatalf("README has %d commands to follow; want 3", len(commands))
	}
	programs := map[string]string{"mirror": harness.Binary(t), "curl": "curl", "grpcurl": tool}
	for _, c := range commands {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "exec "+programs[c[1]]+" "+c[2])
		cmd.Env = append(os.Environ(), "MIRROR_SERVER="+s.GRPCAddr)
		run(t, cmd).await(t, "plan")
	}

	code := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(section)
	if code == nil {
		t.Fatal("README has no Go code to follow")
	}
	dir := t.TempDir()
	main := filepath.Join(dir, "main.go")
	must(t, os.WriteFile(main, []byte(code[1]), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), clientBuild)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "program"), main)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for n := range 2 { // the second time it goes on from its file
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "program"))
		cmd.Dir = dir
		if n == 1 {
			create(t, s, upstream, "while it is away", fake.RoomOptions{})
			awaitIdle(t, s)
		}
		p := run(t, cmd)
		if n == 1 {
			p.await(t, "RESOURCE_KIND_ROOM while it is away")
			continue
		}
		harness.Eventually(t, patience, func() error {
			_, err := os.Stat(filepath.Join(dir, "token"))
			return err
		})
		create(t, s, upstream, "now", fake.RoomOptions{})
		p.await(t, "RESOURCE_KIND_ROOM now")
		_ = p.end(os.Kill)
	}
}

// A replica is killed under its watcher. The client goes on at another one, and nothing is
// lost of what either of them wrote.
func TestReplicaDiesUnderItsWatcher(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		o := harness.Options{DatabaseURL: e.Database(t), UpstreamURL: upstream.URL, Env: map[string]string{
			"MIRROR_FEED_POLL": "1s",
		}}
		replicas := []*harness.Service{harness.Start(t, o), harness.Start(t, o)}
		conn, err := grpc.NewClient("passthrough:///mirror", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (conn net.Conn, err error) {
				for _, s := range replicas { // as a proxy does: the first that answers
					if conn, err = new(net.Dialer).DialContext(ctx, "tcp", s.GRPCAddr); err == nil {
						break
					}
				}
				return conn, err
			}))
		must(t, err)
		defer conn.Close()

		var mu sync.Mutex
		seen := make(map[string]time.Time)
		ctx, cancel := context.WithCancel(t.Context())
		began, ended := make(chan struct{}), make(chan error, 1)
		var once sync.Once
		go func() {
			ended <- feed.Run(ctx, mirrorv1.NewChangeServiceClient(conn), feed.Config{Store: &feed.Memory{}},
				func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
					mu.Lock()
					defer mu.Unlock()
					for _, c := range response.GetChanges().GetChanges() {
						if _, ok := seen[c.GetRoomId()]; !ok {
							seen[c.GetRoomId()] = time.Now()
						}
					}
					once.Do(func() { close(began) })
					return nil
				})
		}()
		<-began
		const rooms = 60
		var killed, told time.Time
		for n := range rooms {
			if n == rooms/2 {
				replicas[0].Kill()
				killed = time.Now()
			}
			writer := replicas[1]
			if n < rooms/2 {
				writer = replicas[n%2]
			}
			create(t, writer, upstream, fmt.Sprint("room ", n), fake.RoomOptions{})
			if n == rooms/2 {
				told = time.Now()
			}
		}
		harness.Eventually(t, patience, func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) < rooms {
				return fmt.Errorf("the watcher saw changes of %d rooms; want %d", len(seen), rooms)
			}
			return nil
		})
		cancel()
		if err := <-ended; ctx.Err() == nil || err == nil {
			t.Errorf("Run = %v; want the end of its context", err)
		}
		next := seen[fmt.Sprint("room ", rooms/2)]
		t.Logf("%s: the next change was seen %s after the kill, %s after its webhook was answered", served(e),
			next.Sub(killed), next.Sub(told))
	})
}
