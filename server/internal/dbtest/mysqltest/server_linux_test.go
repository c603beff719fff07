package mysqltest_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

func TestServerDiesWithItsProcess(t *testing.T) {
	t.Parallel()
	need.Server(t, need.MySQL)
	dir, err := os.MkdirTemp("", "mysqltest-hold-") //nolint:usetesting // another account has to reach it
	if err != nil {
		t.Fatalf("MkdirTemp = %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("RemoveAll = %v", err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatalf("Chmod = %v", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holdDir+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("StdinPipe = %v", err)
	}
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("StdoutPipe = %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("Start = %v", err)
	}
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		t.Fatalf("the other process said nothing: %v, %v", err, cmd.Wait())
	}
	url = strings.TrimSpace(url)
	if got := value[int](t, url, "select 1"); got != 1 {
		t.Fatalf("the held server answers %d; want 1", got)
	}

	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	db := mysqltest.Connect(t, url)
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for db.PingContext(t.Context()) == nil {
		select {
		case <-deadline.C:
			t.Fatal("a minute after its process was killed, the server still answers")
		case <-ticker.C:
		}
	}
}
