package tools_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needs skips a test of what only Linux with these programs has.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT RUN: %s is not on this machine", program)
		}
	}
}

func run(t *testing.T, dir string, env []string, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s = %v\n%s%s", program, strings.Join(args, " "), err, out, errs.Bytes())
	}
	return string(out)
}

// Two builds of the same sources, in different folders, are the same bytes. Their
// package puts everything into its place.
func TestDistIsReproducible(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out builds; run without it before a merge")
	}
	needs(t, "dpkg-deb", "sha256sum", "git")
	env := []string{"SOURCE_DATE_EPOCH=1796000000", "PLATFORMS=linux/amd64", "GOFLAGS="}
	var sums []string
	var dist string
	for _, name := range []string{"a", "another/folder"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, "..", nil, "bash", "-c",
			`git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -c | tar -C "$0" -x`, dir)
		sums = append(sums, run(t, dir, env, "tools/dist.sh", "v1.2.3"))
		dist = filepath.Join(dir, "dist")
	}
	if sums[0] != sums[1] || strings.Count(sums[0], "\n") != 2 {
		t.Errorf("checksums of two builds =\n%s\n%s\nwant the same, of two files", sums[0], sums[1])
	}

	deb := filepath.Join(dist, "liveblocks-mirror_1.2.3_amd64.deb")
	root := t.TempDir()
	run(t, root, nil, "dpkg-deb", "--extract", deb, root)
	if got := run(t, root, nil, root+"/usr/bin/liveblocks-mirror", "version"); got != "liveblocks-mirror v1.2.3\n" {
		t.Errorf("version = %q; want that of the package", got)
	}
	listed := run(t, root, nil, "dpkg-deb", "--contents", deb)
	for _, want := range []string{
		"-rwxr-xr-x root/root", "./usr/bin/liveblocks-mirror", "./usr/lib/systemd/system/liveblocks-mirror.service",
	} {
		if !strings.Contains(listed, want) {
			t.Errorf("contents =\n%s\nwant %q in them", listed, want)
		}
	}
	conf := "/etc/liveblocks-mirror/liveblocks-mirror.conf"
	if info, err := os.Stat(root + conf); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s = %v, %v; want it readable by root alone", conf, info, err)
	}
	if got := run(t, root, nil, "dpkg-deb", "--info", deb, "conffiles"); strings.TrimSpace(got) != conf {
		t.Errorf("conffiles = %q; want %s, which an upgrade then leaves alone", got, conf)
	}
}

// systemd finds no fault in the unit, and little that the service may do to the machine.
func TestUnit(t *testing.T) {
	t.Parallel()
	needs(t, "systemd-analyze")
	text, err := os.ReadFile("../deploy/liveblocks-mirror.service")
	if err != nil {
		t.Fatal(err)
	}
	// The program need not be installed here.
	text = bytes.Replace(text, []byte("/usr/bin/liveblocks-mirror"), []byte("/bin/sh"), 1)
	unit := filepath.Join(t.TempDir(), "liveblocks-mirror.service")
	if err := os.WriteFile(unit, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", nil, "systemd-analyze", "verify", unit)
	// What PROJECTS.md adds to it for several projects is no fault either.
	page, err := os.ReadFile("../docs/PROJECTS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, lines, _ := strings.Cut(string(page), "```ini\n[Service]\n")
	lines, _, ok := strings.Cut(lines, "```")
	if !ok || !bytes.Contains(text, []byte("[Service]\n")) {
		t.Fatal("PROJECTS.md has no lines for the unit")
	}
	more := filepath.Join(t.TempDir(), "liveblocks-mirror.service")
	text = bytes.Replace(text, []byte("[Service]\n"), []byte("[Service]\n"+lines), 1)
	if err := os.WriteFile(more, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "", nil, "systemd-analyze", "verify", more); strings.TrimSpace(out) != "" {
		t.Errorf("systemd says of the unit with the lines of PROJECTS.md: %s", out)
	}
	run(t, "", nil, "systemd-analyze", "security", "--offline=true", "--threshold=15", unit)
}
