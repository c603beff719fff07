package pgembed

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// An ordinary user runs the server as itself. Run by root, the test becomes one; run
// by anyone else, it is one.
func TestStartAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	accounts := map[string]*syscall.Credential{"own": nil}
	if os.Geteuid() == 0 {
		uid, gid, err := unprivileged()
		if err != nil {
			t.Fatalf("unprivileged = %v", err)
		}
		accounts = map[string]*syscall.Credential{
			"named":  {Uid: uint32(uid), Gid: uint32(gid)},
			"nobody": {Uid: 65534, Gid: 65534},
		}
		if runtime.GOOS == "linux" {
			accounts["nameless"] = &syscall.Credential{Uid: 54321, Gid: 54321} // as in many a container
		}
	}
	for name, account := range accounts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "nameless" {
				needUserNamespace(t)
			}
			dir := openDir(t)
			if account != nil {
				if err := os.Chown(filepath.Dir(dir), int(account.Uid), int(account.Gid)); err != nil {
					t.Fatalf("Chown = %v", err)
				}
			}
			h := startHolder(t, dir, account)
			mustExec(t, h.URL, createNotes)
			h.stop(t)
			h = startHolder(t, dir, account)
			wantText(t, h.URL, sumNotes, "3")
			var st syscall.Stat_t
			if err := syscall.Stat(filepath.Join(dir, "pgdata"), &st); err != nil || account != nil && st.Uid != account.Uid {
				t.Fatalf("owner of the data = %d, %v; want %v", st.Uid, err, account)
			}
			h.stop(t)
		})
	}
}

// In a folder that is root's alone, root has to run the server itself.
func TestStartInClosedFolder(t *testing.T) {
	t.Parallel()
	needUserNamespace(t)
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatalf("Chmod = %v", err)
	}
	s := mustStart(t, Config{DataDir: dir})
	if os.Geteuid() == 0 && s.cluster.id.mode != asMapped {
		t.Fatalf("started by root in a closed folder, runs as %s; want it mapped", s.cluster.id)
	}
	mustExec(t, s.URL(), createNotes)
	mustStop(t, s)
	var st syscall.Stat_t
	if err := syscall.Stat(s.cluster.pgdata, &st); err != nil || int(st.Uid) != os.Geteuid() {
		t.Fatalf("owner of the data = %d, %v; want our own account", st.Uid, err)
	}

	// The owner of existing data is kept, even where another account could reach it now.
	for _, d := range []string{filepath.Dir(filepath.Dir(dir)), filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatalf("Chmod = %v", err)
		}
	}
	again := mustStart(t, Config{DataDir: dir})
	wantText(t, again.URL(), sumNotes, "3")
	if again.cluster.id != s.cluster.id {
		t.Fatalf("now runs as %s; want as before, %s", again.cluster.id, s.cluster.id)
	}
	mustStop(t, again)
}

// A folder that was open when the data was made and is closed now.
func TestFolderClosedLater(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	mustStop(t, mustStart(t, Config{DataDir: dir}))
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatalf("Chmod = %v", err)
	}
	s, err := Start(t.Context(), Config{DataDir: dir, Settings: fast})
	if os.Geteuid() != 0 {
		if err != nil {
			t.Fatalf("Start by the owner = %v", err)
		}
		mustStop(t, s)
		return
	}
	if err == nil || !strings.Contains(err.Error(), dir) ||
		!strings.Contains(err.Error(), "choose a data folder that every account may pass through") {
		t.Fatalf("Start = %v; want an error that names the folder and says what to do", err)
	}
}

// A server that stops ends the thread it was supervised on; a program that another
// start has running must not end with it.
func TestProgramOutlivesThreads(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var programs, threads sync.WaitGroup
	for range 4 {
		threads.Go(func() {
			for ctx.Err() == nil {
				var one sync.WaitGroup
				one.Go(runtime.LockOSThread) // and never unlocks it
				one.Wait()
			}
		})
	}
	for range 64 {
		programs.Go(func() {
			if out, err := (identity{}).output(ctx, "/", "sleep", "0.3"); err != nil {
				t.Errorf("sleep = %v: %s", err, out)
			}
		})
	}
	programs.Wait()
	cancel()
	threads.Wait()
}
