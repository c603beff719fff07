package pgembed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestStartTwice(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := mustStart(t, Config{DataDir: dir})
	if want := asOther; os.Geteuid() == 0 && s.cluster.id.mode != want {
		t.Fatalf("started by root, runs as %s; want another account", s.cluster.id)
	}
	mustExec(t, s.URL(), createNotes)
	mustStop(t, s)
	select {
	case <-s.Done():
	default:
		t.Fatal("Done after Stop is open; want closed")
	}
	if s.Err() != nil || s.Pid() != 0 {
		t.Fatalf("Err, Pid after Stop = %v, %d; want nil, 0", s.Err(), s.Pid())
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatalf("second Stop = %v", err)
	}

	again := mustStart(t, Config{DataDir: dir})
	if again.URL() != s.URL() {
		t.Fatalf("URL of second start = %s; want %s", again.URL(), s.URL())
	}
	wantText(t, again.URL(), sumNotes, "3")
	mustStop(t, again)
}

func TestPrivateAndSafeByDefault(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: openDir(t), Database: `Mirror "one"/2`, Settings: map[string]string{
		"work_mem": "5MB", "max_wal_size": "1GB", "listen_addresses": "127.0.0.1", "port": "5433",
	}})
	for setting, want := range map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on",
		"server_encoding": "UTF8", "TimeZone": "UTC", "jit": "off", "shared_buffers": "256MB",
		"work_mem": "5MB", "max_wal_size": "1GB", // the caller's outrank ours
		"listen_addresses": "", "port": socketPort, // but the server stays private
	} {
		wantText(t, s.URL(), "show "+setting, want)
	}
	wantText(t, s.URL(), "select current_database()", `Mirror "one"/2`)
	st, err := os.Stat(s.cluster.sock)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("mode of socket folder = %v, %v; want 0700", st.Mode(), err)
	}
}

func TestLogHasNoValues(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := mustStart(t, Config{DataDir: dir})
	conn := connect(t, s.URL())
	for _, sql := range []string{
		"select 'sesame'::int", "create table t (v text primary key check (v <> 'open sesame'))",
		"insert into t values ('open sesame')",
	} {
		_, err := conn.Exec(t.Context(), sql)
		if fails := !strings.HasPrefix(sql, "create"); (err != nil) != fails {
			t.Fatalf("%s = %v; want an error: %v", sql, err, fails)
		}
	}
	mustStop(t, s)
	log, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil || !strings.Contains(string(log), "database system is ready") {
		t.Fatalf("log = %q, %v; want the server's messages", log, err)
	}
	if strings.Contains(string(log), "sesame") {
		t.Fatalf("log = %q; want no values of statements", log)
	}
}

func TestLogIsRotated(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postgres.log")
	for _, size := range []int64{maxLog, maxLog + 1} {
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatalf("WriteFile = %v", err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatalf("Truncate = %v", err)
		}
		l, err := openLog(path)
		if err != nil {
			t.Fatalf("openLog = %v", err)
		}
		_, err = os.Stat(path + ".1")
		if rotated := err == nil; rotated != (size > maxLog) || rotated != (l.size() == 0) {
			t.Fatalf("log of %d bytes: rotated = %v, then holds %d bytes; want a new one above %d", size, rotated, l.size(),
				maxLog)
		}
		_ = l.file.Close()
	}
}

func TestStartErrorQuotesLog(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	bad := map[string]string{"fsync": "off", "shared_buffers": "plenty"}
	s, err := Start(t.Context(), Config{DataDir: dir, Settings: bad})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers": "plenty"`) ||
		strings.Contains(err.Error(), "\n") {
		t.Fatalf("Start = %v, %v; want one line with the server's reason", s, err)
	}
	mustStop(t, mustStart(t, Config{DataDir: dir})) // nothing of the failed start is in the way
}

func TestStartCancelled(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	mustStop(t, mustStart(t, Config{DataDir: dir}))
	ctx, cancel := context.WithCancelCause(t.Context())
	hasty := errors.New("changed my mind")
	// The log is opened last before the server is launched.
	log := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(log, 0o600); err != nil {
		t.Fatalf("Mkfifo = %v", err)
	}
	go func() {
		if f, err := os.OpenFile(log, os.O_RDONLY, 0); err == nil {
			cancel(hasty)
			_ = f.Close()
		}
	}()
	_, err := Start(ctx, Config{DataDir: dir, LogPath: log, Settings: fast})
	if !errors.Is(err, hasty) && !errors.Is(err, context.Canceled) {
		t.Fatalf("Start = %v; want %v", err, hasty)
	}
	mustStop(t, mustStart(t, Config{DataDir: dir}))
}

func TestSocketOfLongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), strings.Repeat("long-", 20))
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatalf("MkdirAll = %v", err)
	}
	s := mustStart(t, Config{DataDir: dir})
	wantText(t, s.URL(), "select 'here'", "here")
	tmp := s.cluster.sockTmp
	if _, err := os.Stat(tmp); err != nil {
		t.Fatalf("Stat of socket folder = %v", err)
	}
	mustStop(t, s)
	if _, err := os.Stat(tmp); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("Stat of socket folder after Stop = %v; want it gone", err)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	h := startHolder(t, dir, nil)
	if _, err := Start(t.Context(), Config{DataDir: dir}); !errors.Is(err, ErrInUse) ||
		!strings.Contains(err.Error(), dir) {
		t.Fatalf("Start beside another process = %v; want ErrInUse, naming the folder", err)
	}
	wantText(t, h.URL, "select 'unharmed'", "unharmed")
	h.stop(t)
	s := mustStart(t, Config{DataDir: dir})
	if _, err := Start(t.Context(), Config{DataDir: dir}); !errors.Is(err, ErrInUse) {
		t.Fatalf("Start beside our own = %v; want ErrInUse", err)
	}
	mustStop(t, s)
}

func TestStopCutOff(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := mustStart(t, Config{DataDir: dir})
	mustExec(t, s.URL(), createNotes)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// A server that has stopped listening to signals can only be cut off.
	if err := syscall.Kill(s.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatalf("SIGSTOP = %v", err)
	}
	begun := time.Now()
	if err := s.Stop(ctx); err == nil || !strings.Contains(err.Error(), "stopped before it had written its data") {
		t.Fatalf("Stop without time = %v; want an error that says so", err)
	}
	if took := time.Since(begun); took > 2*killAfter {
		t.Fatalf("Stop took %v; want about %v", took, killAfter)
	}
	again := mustStart(t, Config{DataDir: dir})
	wantText(t, again.URL(), sumNotes, "3")
	mustStop(t, again)
}

// connectable is for eventually.
func connectable(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// Data of the demo and real data never come into one folder.
func TestFolderOfTheDemo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files []string
		demo  bool
		want  string // what is said of the folder; empty if it is taken
	}{
		{nil, true, ""},
		{[]string{"lost+found"}, true, ""},
		{[]string{"demo"}, true, ""},
		{[]string{"demo", "lock", "pgdata"}, true, ""},
		{[]string{"lock"}, true, "was not made by the demo, which never touches real data; set --data-dir to "},
		{[]string{"bin", "lock", "pgdata"}, true, "was not made by the demo"},
		{[]string{"other"}, true, "holds files of others; set --data-dir to "},
		{[]string{"bin", "lock", "pgdata"}, false, ""},
		{[]string{"lost+found", "pgdata"}, false, ""},
		{[]string{"demo", "lock", "pgdata"}, false, "holds the data of a demo; set MIRROR_DATA_DIR to "},
		{[]string{"demo"}, false, "holds the data of a demo"},
		{[]string{"other"}, false, "holds files of others; set MIRROR_DATA_DIR to "},
	} {
		dir := t.TempDir()
		for _, name := range c.files {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		err := ours(dir, c.demo)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("a folder with %v, demo = %t: %v; want %q", c.files, c.demo, err, c.want)
		}
	}
	dir := openDir(t)
	mustStop(t, mustStart(t, Config{DataDir: dir, Demo: true}))
	_, err := Start(t.Context(), Config{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "holds the data of a demo") {
		t.Errorf("Start in the folder of a demo = %v; want a refusal", err)
	}
	mustStop(t, mustStart(t, Config{DataDir: dir, Demo: true}))
}
