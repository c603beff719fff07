package pgembed

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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

// Two processes that start at once on a machine without PostgreSQL both install it,
// and one of the two wins.
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
	if left, err := filepath.Glob(filepath.Join(cache, "*")); err != nil || len(left) != 1 {
		t.Fatalf("cache = %v, %v; want the one installation", left, err)
	}
	s := mustStart(t, Config{DataDir: openDir(t), CacheDir: cache})
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
	if left, err := filepath.Glob(filepath.Join(cache, "*")); err != nil || len(left) != 0 {
		t.Fatalf("cache = %v, %v; want it empty", left, err)
	}
}
