package demo

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
)

// firstRoom is in the printed commands. The demo never deletes it.
const firstRoom = "team:whiteboard"

// statements are worth a look in SQL.
var statements = []string{
	"select room_id, updated_at, data->>'title' from liveblocks_documents;",
	"select room_id, user_id, text from liveblocks_comments;",
}

// commands are what can be tried while the demo runs. has reports whether a program is
// on this machine: no line needs one that is not. database is the URL of the embedded
// PostgreSQL, empty if there is none. dir is the current directory.
func commands(addrs app.Ready, database, dir string, has func(program string) bool) string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	base := "http://" + addrs.HTTPAddr
	line("Open %s/ in a browser, or try in another terminal:", base)
	line("")
	if has("curl") {
		room := base + "/v1/rooms/" + url.PathEscape(firstRoom)
		for _, path := range []string{
			room + "/storage:read", room + "/flows/flow", room + "/threads", room + "/user-sessions",
			base + "/v1/rooms", base + "/v1/notifications",
		} {
			line("  curl -s %s", path)
		}
		line("  curl -s '%s/v1/events?page_size=3'", base)
	}
	grpcurl := has("grpcurl")
	if module := filepath.Join(dir, "tools", "grpcurl", "go.mod"); !grpcurl && has("go") && exists(module) {
		grpcurl = true
		line("  grpcurl() { go -C %s tool -modfile=%s grpcurl \"$@\"; }", quote(dir), "tools/grpcurl/go.mod")
	}
	if grpcurl {
		line("  grpcurl -plaintext %s list", addrs.GRPCAddr)
		line("  grpcurl -plaintext -d '{\"room_id\":\"%s\"}' %s \\", firstRoom, addrs.GRPCAddr)
		line("    liveblocks.mirror.v1.MirrorService/GetRoom")
	}
	switch u, err := url.Parse(database); {
	case err != nil || database == "":
		line("\nand in your database, in SQL:\n")
	case has("psql"):
		q := u.Query()
		line("  psql -h %s -p %s -U %s %s", quote(q.Get("host")), q.Get("port"), q.Get("user"),
			strings.TrimPrefix(u.Path, "/"))
		line("\nand there, in SQL:\n")
	default:
		return text.String()
	}
	for _, s := range statements {
		line("  %s", s)
	}
	return text.String()
}

// quote makes a path one word of a shell, if it would be several.
func quote(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !strings.ContainsRune("/-_.+", r) && !alphanumeric(r) }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func onPath(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}
