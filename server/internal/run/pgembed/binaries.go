package pgembed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// minMajor is the oldest supported major version.
const minMajor = 14

// usualPlaces are the folders where packages install PostgreSQL, best first: Debian
// and Alpine, Red Hat, Homebrew, Postgres.app, a build from source, Nix.
var usualPlaces = []string{
	"/usr/lib/postgresql/*/bin", "/usr/libexec/postgresql*", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin",
	"/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin", "/usr/local/pgsql/bin",
	"/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin",
}

// findBinaries returns a folder with PostgreSQL's programs and their major version.
// want is the version of the existing cluster, or 0 for any.
func findBinaries(ctx context.Context, cfg Config, dir string, want int) (bin string, major int, err error) {
	explicit := cfg.BinDir
	if explicit == "" {
		explicit = os.Getenv("MIRROR_PG_BIN")
	}
	if explicit != "" {
		if bin, major, err = pick(ctx, []string{explicit}, want); err != nil {
			err = fmt.Errorf("look in %s: %w", explicit, err)
		}
		return bin, major, err
	}
	cache := cfg.CacheDir
	if cache == "" {
		cache = filepath.Join(dir, "bin")
	}
	if cache, err = filepath.Abs(cache); err != nil {
		return "", 0, err
	}
	candidates := expand(append([]string{filepath.Join(cache, "*", npmBin())}, usualPlaces...))
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			candidates = append(candidates, filepath.Dir(p))
		}
	}
	bin, major, err = pick(ctx, candidates, want)
	if err == nil || (want != 0 && want != npmMajor) {
		return bin, major, err
	}
	bin, npmErr := installNPM(ctx, cache, npmBuilds[runtime.GOOS+"/"+runtime.GOARCH], cfg.Logger)
	if errors.Is(npmErr, errNoNPM) {
		return "", 0, err
	}
	if npmErr != nil {
		return "", 0, fmt.Errorf("%w (installing it through npm: %w)", err, npmErr)
	}
	return pick(ctx, []string{bin}, want)
}

// expand returns the matching folders, pattern by pattern, newest version first.
func expand(patterns []string) []string {
	var dirs []string
	for _, p := range patterns {
		m, _ := filepath.Glob(p) // the patterns are well formed
		slices.Sort(m)           // supported versions have two digits
		slices.Reverse(m)
		dirs = append(dirs, m...)
	}
	return dirs
}

// pick returns the first folder whose programs run and have version want, or any
// supported version if want is 0.
func pick(ctx context.Context, dirs []string, want int) (bin string, major int, err error) {
	var found []string
	for _, dir := range dirs {
		major := version(ctx, dir)
		if major == 0 {
			continue
		}
		if major == want || want == 0 && major >= minMajor {
			return dir, major, nil
		}
		found = append(found, fmt.Sprintf("%d in %s", major, dir))
	}
	switch {
	case want != 0 && len(found) > 0:
		return "", 0, fmt.Errorf(
			"the data was made by PostgreSQL %d and needs that version, found only %s: install PostgreSQL %d or set "+
				"MIRROR_PG_BIN to its folder",
			want, strings.Join(found, ", "), want)
	case want != 0:
		return "", 0, fmt.Errorf("the data was made by PostgreSQL %d: %w", want, ErrNoBinaries)
	case len(found) > 0:
		return "", 0, fmt.Errorf("%w (found only %s)", ErrNoBinaries, strings.Join(found, ", "))
	default:
		return "", 0, ErrNoBinaries
	}
}

// versionWord matches "postgres (PostgreSQL) 15.20 (Debian ...)" and "... 19devel".
var versionWord = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// version returns the major version of the programs in dir, 0 if they do not run.
func version(ctx context.Context, dir string) int {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil { //nolint:gosec // the operator names the folder
		return 0
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "-V") //nolint:gosec // the operator installed it
	out, err := cmd.Output()
	if err != nil {
		return 0
	}
	m := versionWord.FindSubmatch(out)
	if m == nil {
		return 0
	}
	major, _ := strconv.Atoi(string(m[1])) // only digits; an overflow is not a version
	return major
}
