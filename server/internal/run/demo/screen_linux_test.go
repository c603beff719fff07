package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// pty opens a terminal of some width.
func pty(t *testing.T, columns uint16) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return terminal
}

// Only a terminal has a width and colours.
func TestScreenOfATerminal(t *testing.T) { //nolint:paralleltest // the environment is the process's
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	for _, c := range []struct {
		out           *os.File
		term, noColor string
		width         int
		colour        bool
	}{
		{pty(t, 80), "xterm", "", 80, true},
		{pty(t, 132), "xterm", "", 132, true},
		{pty(t, 0), "xterm", "", 80, true},
		{pty(t, 100), "xterm", "1", 100, false},
		{pty(t, 100), "dumb", "", 100, false},
		{pty(t, 100), "", "", 100, false},
		{file, "xterm", "", 80, false},
	} {
		t.Setenv("TERM", c.term)
		t.Setenv("NO_COLOR", c.noColor)
		if s := newScreen(c.out); s.width() != c.width || s.colour != c.colour {
			t.Errorf("screen of %s with %+v: %d columns, colour %t", c.out.Name(), c, s.width(), s.colour)
		}
	}
	terminal := pty(t, 80)
	s := newScreen(terminal)
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 120}); err != nil {
		t.Fatal(err)
	}
	if s.width() != 120 {
		t.Errorf("after the window was made wider it has %d columns; want 120", s.width())
	}
}
