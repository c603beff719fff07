package tools_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sandbox is a copy of testdeps.sh on a machine that has only what the test puts there.
type sandbox struct {
	dir string
	env []string
}

func newSandbox(t *testing.T, root bool, programs ...string) *sandbox {
	t.Helper()
	s := &sandbox{dir: t.TempDir()}
	for _, dir := range []string{
		"repo/tools", "repo/server/e2e/lb/node_modules/.bin", "repo/client/typescript/node_modules", "bin", "root/usr/bin",
	} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"testdeps.sh", "npm.sh"} {
		script, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "repo/tools/"+name, string(script))
	}
	s.write(t, "repo/server/e2e/lb/package-lock.json", "{}")
	s.write(t, "repo/client/typescript/package-lock.json", "{}")
	s.write(t, "repo/server/e2e/lb/node_modules/.bin/bun", "#!/bin/sh\n")
	for _, tool := range []string{
		"bash", "dirname", "sed", "cat", "cksum", "cut", "tr", "awk", "paste", "flock", "sh",
	} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(s.dir, "bin", tool)); err != nil {
			t.Fatal(err)
		}
	}
	uid := "1000"
	if root {
		uid = "0"
	}
	s.write(t, "bin/id", "#!/bin/sh\necho "+uid+"\n")
	s.write(t, "bin/node", "#!/bin/sh\necho 20\n")
	for _, program := range append(programs, "npm") {
		s.write(t, "bin/"+program, "#!/bin/sh\necho \"${0##*/} $*\" >>"+s.dir+"/calls\n")
	}
	s.env = []string{
		"PATH=" + filepath.Join(s.dir, "bin"), "TESTDEPS_ROOT=" + filepath.Join(s.dir, "root"), "HOME=" + s.dir,
	}
	return s
}

func (s *sandbox) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, path), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// run runs the script, and returns what it prints.
func (s *sandbox) run(t *testing.T, env ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.dir, "bin", "bash"), filepath.Join(s.dir, "repo/tools/testdeps.sh"))
	cmd.Env = append(s.env, env...)
	b, err := cmd.CombinedOutput()
	return string(b), err == nil
}

// servers are those that a user may name instead of programs.
var servers = []string{"TEST_POSTGRES_URL=postgres://x", "TEST_MYSQL_URL=mysql://x"}

// All that is missing is named at once, with what it costs and how to get it, on a
// machine where the script may not install it.
func TestTestdepsNamesAllThatIsMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		programs []string
		want     []string
	}{
		"Debian without root": {[]string{"apt-get"}, []string{
			"sudo apt-get install postgresql pgbouncer python3-grpcio protobuf-compiler-grpc mariadb-server galera-4 rsync " +
				"prometheus zsh fish chromium nginx-light\n",
		}},
		"no apt-get": {nil, []string{"dnf install postgresql-server pgbouncer ", "brew install postgresql@17 "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, ok := newSandbox(t, false, c.programs...).run(t)
			for _, want := range append(c.want, "PostgreSQL 14", "pgbouncer", "grpcio", "MariaDB", "Galera", "promtool",
				"zsh and fish", "chromium", "nginx", " MB\n", "TEST_POSTGRES_URL", "make check", "make test-fast") {
				if ok || !strings.Contains(out, want) {
					t.Errorf("testdeps.sh succeeded: %t, printed %q; want it to fail, and %q", ok, out, want)
				}
			}
		})
	}
}

// Servers that the user names stand in for their programs, without root.
func TestTestdepsTakesServers(t *testing.T) {
	t.Parallel()
	programs := []string{"protoc", "grpc_python_plugin", "python3", "promtool", "zsh", "fish", "chromium", "nginx"}
	out, ok := newSandbox(t, false, programs...).run(t, servers...)
	if !ok || !strings.Contains(out, "NOT RUN without pgbouncer") || !strings.Contains(out, "NOT RUN without Galera") {
		t.Errorf("testdeps.sh succeeded: %t, printed %q; want what cannot run", ok, out)
	}
	if strings.Contains(out, "missing") {
		t.Errorf("testdeps.sh printed %q; want nothing missing", out)
	}
}

// As root on Debian all of it is installed at once, after its size is told.
func TestTestdepsInstallsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, true, "apt-get", "dpkg")
	if out, ok := s.run(t); ok || !strings.Contains(out, "about 902 MB") || !strings.Contains(out, "still missing") {
		t.Errorf("testdeps.sh succeeded: %t, printed %q; want the sum, and that a stub installs nothing", ok, out)
	}
	calls, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	if n := strings.Count(string(calls), " install "); err != nil || n != 1 {
		t.Errorf("calls = %q, %v; want one installation", calls, err)
	}
}
