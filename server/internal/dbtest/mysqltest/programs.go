package mysqltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// programs holds the paths of a server's programs. MySQL installs its data itself.
type programs struct{ base, server, install string }

func (p programs) mariaDB() bool { return p.install != "" }

// mysqlBin names the folder of MySQL's mysqld, to run the tests with that instead of MariaDB.
const mysqlBin = "MYSQL_BIN"

// ServerName is what the servers are that tests use.
func ServerName() string {
	if os.Getenv(galera) != "" && os.Getenv(mysqlBin) == "" {
		return "Galera"
	}
	p, err := configured()
	if err != nil {
		return "MySQL" // which the first test finds out
	}
	return string(p)
}

// findPrograms looks in the folder MYSQL_BIN or MARIADB_BIN if one is set, otherwise where
// packages install MariaDB and on the PATH.
func findPrograms() (programs, error) {
	if dir := os.Getenv(mysqlBin); dir != "" {
		server, err := exec.LookPath(filepath.Join(dir, "mysqld"))
		if err != nil {
			return programs{}, fmt.Errorf("%s: %w", mysqlBin, err)
		}
		return programs{base: filepath.Join(dir, ".."), server: server}, nil
	}
	const advice = "install MariaDB's server (Debian: mariadb-server), or set MARIADB_BIN to the folder of its programs"
	dirs := []string{"/usr/sbin", "/usr/libexec", "/opt/homebrew/bin", "/usr/local/mysql/bin"}
	if explicit := os.Getenv("MARIADB_BIN"); explicit != "" {
		dirs = []string{explicit}
	} else if p, err := exec.LookPath("mariadbd"); err == nil {
		dirs = append([]string{filepath.Dir(p)}, dirs...)
	}
	for _, dir := range dirs {
		server, err := exec.LookPath(filepath.Join(dir, "mariadbd"))
		if err != nil {
			continue
		}
		base, err := filepath.Abs(filepath.Join(dir, ".."))
		if err != nil {
			return programs{}, fmt.Errorf("look for mariadbd: %w", err)
		}
		for _, other := range []string{dir, filepath.Join(base, "bin"), filepath.Join(base, "scripts")} {
			if install, err := exec.LookPath(filepath.Join(other, "mariadb-install-db")); err == nil {
				return programs{base, server, install}, nil
			}
		}
		return programs{}, fmt.Errorf("%s is there, but no mariadb-install-db: %s", server, advice)
	}
	return programs{}, fmt.Errorf("%w: mariadbd is not in any of %q: %s", need.ErrNotInstalled, dirs, advice)
}

// chooseAccount returns the account of the servers. The servers refuse root. Nil
// means the current account.
func chooseAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"mysql", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.ParseUint(u.Uid, 10, 32)
		gid, errG := strconv.ParseUint(u.Gid, 10, 32)
		if errU == nil && errG == nil && uid > 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("the server needs an unprivileged account, and this machine has neither mysql nor nobody")
}

// port is a reserved TCP port of the loopback interface. The socket is bound but
// not listening: a server that sets SO_REUSEADDR can listen on the port, and no
// other process gets it while the server is down.
type port struct{ socket, number int }

func reservePort() (port, error) {
	// Held while a child may be forked, the lock keeps the socket from leaking into it.
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return port{}, fmt.Errorf("reserve a port: %w", err)
	}
	p := port{socket: fd}
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	if err == nil {
		var bound syscall.Sockaddr
		if bound, err = syscall.Getsockname(fd); err == nil {
			if v4, ok := bound.(*syscall.SockaddrInet4); ok {
				p.number = v4.Port
				return p, nil
			}
			err = errors.New("not an IPv4 socket")
		}
	}
	return port{}, fmt.Errorf("reserve a port: %w", errors.Join(err, syscall.Close(fd)))
}

// ReserveAddr reserves an address of the loopback interface until the end of tb. A server
// that sets SO_REUSEADDR, as all of Go's do, can listen there, also again and again.
func ReserveAddr(tb testing.TB) string {
	tb.Helper()
	p, err := reservePort()
	if err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
	tb.Cleanup(func() {
		if err := p.release(); err != nil {
			tb.Errorf("mysqltest: %v", err)
		}
	})
	return "127.0.0.1:" + p.String()
}

func (p port) String() string { return strconv.Itoa(p.number) }

func (p port) release() error { return syscall.Close(p.socket) }
