package blackbox_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// nginx starts nginx in front of a service, and returns its URL. Everything about proxies is
// as nginx has it by default, but for a directive that may be given.
func nginx(t *testing.T, s *harness.Service, directive string) string {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // which is on the PATH of root alone
	}
	dir := harness.Dir(t, nil)
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer listener.Close()
	socket, err := listener.File()
	must(t, err)
	defer socket.Close()
	config := fmt.Sprintf(`
daemon off;
pid pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen %s;
		location / {
			proxy_pass http://%s;
			%s
		}
	}
}
`, listener.Addr(), s.HTTPAddr, directive)
	must(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600))
	cmd := exec.Command(program, "-e", "stderr", "-p", dir, "-c", "nginx.conf")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = append(os.Environ(), "NGINX=3;") // it takes this socket over, so nobody else can have its port
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run(t, cmd)
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // its children too
	return "http://" + listener.Addr().String()
}

// reading is what arrives of an answer, its status and its body, until the end of the test.
func reading(t *testing.T, to string, header http.Header) *printing {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, http.NoBody)
	must(t, err)
	req.Header = header
	p := &printing{}
	go func() { // ends with the test
		resp, err := (&http.Client{}).Do(req) // a stream has no time-out
		if err != nil {
			fmt.Fprint(p, err)
			return
		}
		defer resp.Body.Close()
		fmt.Fprintln(p, resp.Status)
		_, _ = io.Copy(p, resp.Body) // what has arrived is looked at
	}()
	return p
}

// followingNginx follows with what the client does by itself, and tells of it.
const followingNginx = `import { follow } from "@liveblocks-mirror/client";
const changes = follow({
  url: process.argv[2], key: process.env.MIRROR_API_TOKEN, kinds: ["storage"], position: "earliest",
  onRetry: (error) => console.log("-", error.message),
});
for await (const change of changes) console.log(change.roomId);
`

// Streams pass an nginx with default settings at once, because the service asks for that.
// Where a proxy holds them back all the same, asking again and again works, and the client
// changes to it.
func followBehindNginx(t *testing.T, project string) {
	t.Helper()
	s, upstream := start(t, map[string]string{"MIRROR_API_TOKEN": token})
	passing, holding := nginx(t, s, ""), nginx(t, s, "proxy_ignore_headers X-Accel-Buffering;")
	const watch = "/v1/changes:watch?kinds=storage"
	events := bearer(token)
	events.Set("Accept", "text/event-stream")
	must(t, os.WriteFile(filepath.Join(project, "nginx.mjs"), []byte(followingNginx), 0o600))
	room := func(name string) {
		t.Helper()
		create(t, s, upstream, name, fake.RoomOptions{Storage: storage("1")})
	}

	held := node(t, project, "nginx.mjs", holding)
	passed := node(t, project, "nginx.mjs", passing)
	sse, lines := reading(t, passing+watch, events), reading(t, passing+watch, bearer(token))
	heldSSE, heldLines := reading(t, holding+watch, events), reading(t, holding+watch, bearer(token))
	sse.await(t, "event: progress\n") // which is all there is
	lines.await(t, `"progress":{`)
	polled := send(t, http.MethodGet, holding+"/v1/changes?kinds=storage", bearer(token), nil)
	var page struct {
		NextToken string `json:"nextToken"`
	}
	must(t, json.Unmarshal(polled.body, &page))
	poll := reading(t, holding+"/v1/changes?kinds=storage&waitDuration=50s&token="+url.QueryEscape(page.NextToken),
		bearer(token))
	room("a")
	for _, p := range []*printing{sse, lines, poll} {
		p.await(t, `"roomId":"a"`)
	}
	passed.await(t, "a\n")

	ids := regexp.MustCompile(`(?m)^id: (.+)\nevent: changes\n`).FindStringSubmatch(sse.String())
	if ids == nil {
		t.Fatalf("no token came with the change: %s", sse)
	}
	room("b")
	events = events.Clone()
	events.Set("Last-Event-Id", ids[1])
	again := reading(t, passing+watch, events)
	again.await(t, `"roomId":"b"`)
	if text := again.String(); strings.Contains(text, `"roomId":"a"`) {
		t.Errorf("after the event of a came %s", text)
	}

	// Three streams of which nothing arrived, each for 20 seconds, then pages.
	const wait = "- nothing arrived for 20 seconds\n"
	harness.Eventually(t, 3*patience, func() error {
		got := held.String()
		before, _, _ := strings.Cut(got, "a\n")
		if want := "a\nb\n"; withoutRetries(got) != want || strings.Count(before, wait) < 3 {
			return fmt.Errorf("behind the proxy that holds streams back the client printed:\n%s\nwant:\n%s", got,
				strings.Repeat(wait, 3)+want)
		}
		return nil
	})
	room("c")
	held.await(t, "b\nc\n")
	passed.await(t, "b\nc\n")
	if got := passed.String(); withoutRetries(got) != "a\nb\nc\n" || strings.Count(got, wait) >= 3 {
		t.Errorf("behind nginx with default settings the client printed:\n%s", got)
	}
	for _, p := range []*printing{heldSSE, heldLines} {
		if got := p.String(); got != "" {
			t.Errorf("the proxy that holds streams back passed on %q; want nothing", got)
		}
	}
}

// withoutRetries is what a client was told of, without the times when it tried again.
func withoutRetries(printed string) string {
	return regexp.MustCompile(`(?m)^- .*\n`).ReplaceAllString(printed, "")
}
