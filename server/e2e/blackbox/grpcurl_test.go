package blackbox_test

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// grpcurlBuild bounds the build of grpcurl from nothing; from the build cache it takes
// a few seconds.
const grpcurlBuild = 10 * time.Minute

// grpcurl builds the real grpcurl and returns its path.
func grpcurl(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "grpcurl")
	ctx, cancel := context.WithTimeout(t.Context(), grpcurlBuild)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-modfile=tools/grpcurl/go.mod", "-o", bin,
		"github.com/fullstorydev/grpcurl/cmd/grpcurl")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}
	return bin
}

// The tool that users have at hand needs nothing but the address and a token.
func TestGrpcurl(t *testing.T) {
	t.Parallel()
	needServers(t)
	bin := grpcurl(t)
	s, upstream := start(t, map[string]string{"MIRROR_API_TOKEN": token})
	if err := upstream.CreateRoom("a room", fake.RoomOptions{
		Metadata: map[string]any{"name": "Plan"},
		Storage:  storage("1"),
	}); err != nil {
		t.Fatal(err)
	}
	tell(t, s, fake.RoomCreated, "a room")

	run := func(args ...string) (stdout, stderr string, code int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, bin, append([]string{"-plaintext"}, args...)...)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		err := cmd.Run()
		return out.String(), errOut.String(), exitCode(err)
	}
	authorization := "authorization: Bearer " + token
	const getRoom = "liveblocks.mirror.v1.MirrorService/GetRoom"
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"list", []string{"-H", authorization, s.GRPCAddr, "list"}, 0, []string{
			"grpc.health.v1.Health", "liveblocks.mirror.v1.AdminService", "liveblocks.mirror.v1.EventService",
			"liveblocks.mirror.v1.MirrorService",
		}},
		{
			"list a service",
			[]string{"-H", authorization, s.GRPCAddr, "list", "liveblocks.mirror.v1.AdminService"},
			0,
			[]string{"RequestSync", "GetStatus"},
		},
		{
			"describe a service",
			[]string{"-H", authorization, s.GRPCAddr, "describe", "liveblocks.mirror.v1.MirrorService"},
			0,
			[]string{
				"rpc ReadDocument ( .liveblocks.mirror.v1.ReadDocumentRequest ) returns ( stream .google.api.HttpBody )",
				`get: "/v1/rooms/{room_id}/storage:read"`,
			},
		},
		{
			"describe a message",
			[]string{"-H", authorization, s.GRPCAddr, "describe", "liveblocks.mirror.v1.Room"},
			0,
			[]string{"string room_id = 2", "bytes source_json = 10"},
		},
		// With max_age a read waits for the first fetch.
		{
			"read",
			[]string{"-H", authorization, "-d", `{"room_id":"a room","max_age":"3600s"}`, s.GRPCAddr, getRoom},
			0,
			[]string{`"roomId": "a room"`, `"stringValue": "Plan"`, `"fetchTime"`},
		},
		{
			"stream",
			[]string{
				"-H", authorization, "-d", `{"room_id":"a room","max_age":"3600s"}`, s.GRPCAddr,
				"liveblocks.mirror.v1.MirrorService/ReadDocument",
			},
			0,
			[]string{`"contentType": "application/json"`, `"data": "eyJ2IjoxfQ=="`},
		},
		{"health", []string{"-H", authorization, s.GRPCAddr, "grpc.health.v1.Health/Check"}, 0, []string{"SERVING"}},
		{
			"an error with its details",
			[]string{"-H", authorization, "-d", `{"room_id":"no room"}`, s.GRPCAddr, getRoom},
			64 + 5,
			[]string{
				"Code: NotFound", `"reason": "ROOM_NOT_MIRRORED"`, `"domain": "liveblocks.mirror.v1"`, `"room_id": "no room"`,
			},
		},
		{"a bad request with its fields", []string{
			"-H", authorization, "-d", `{"page_size":-1}`, s.GRPCAddr,
			"liveblocks.mirror.v1.MirrorService/ListRooms",
		}, 64 + 3, []string{
			"Code: InvalidArgument", `"field": "page_size"`, `"reason": "REQUEST_INVALID"`,
		}},
		{"without the token", []string{s.GRPCAddr, "list"}, 1, []string{"Unauthenticated"}},
	} {
		stdout, stderr, code := run(c.args...)
		if code != c.code {
			t.Errorf("%s: exit code %d; want %d\n%s%s", c.name, code, c.code, stdout, stderr)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%s: no %s in\n%s%s", c.name, want, stdout, stderr)
			}
		}
	}
}
