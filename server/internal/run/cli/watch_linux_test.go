package cli

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// terminalOf is a real terminal of some size, and what a person sees on it.
type terminalOf struct {
	*os.File // what a program writes to

	columns, rows int

	mu     sync.Mutex
	screen [][]rune
	row    int
	column int
}

func openTerminal(t *testing.T, columns, rows int) *terminalOf {
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
	file, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	size := &unix.Winsize{Row: uint16(rows), Col: uint16(columns)}
	if err := unix.IoctlSetWinsize(int(file.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
	term := &terminalOf{File: file, columns: columns, rows: rows, screen: make([][]rune, rows)}
	go func() { // until the test closes it
		buf := make([]byte, 1<<12)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			term.show(string(buf[:n]))
		}
	}()
	return term
}

var escape = regexp.MustCompile("^\x1b\\[([0-9;]*)([A-Za-z])")

// show does what a terminal does with the few sequences that are used here.
func (s *terminalOf) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text != "" {
		if m := escape.FindStringSubmatch(text); m != nil {
			text = text[len(m[0]):]
			n, _ := strconv.Atoi(m[1])
			switch m[2] {
			case "A":
				s.row = max(s.row-max(n, 1), 0)
			case "H":
				s.row, s.column = 0, 0
			case "J":
				s.screen[s.row] = s.screen[s.row][:min(s.column, len(s.screen[s.row]))]
				for i := s.row + 1; i < s.rows; i++ {
					s.screen[i] = nil
				}
			}
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch r {
		case '\r':
			s.column = 0
		case '\n':
			s.down()
		default:
			if s.column == s.columns {
				s.column = 0
				s.down()
			}
			for len(s.screen[s.row]) <= s.column {
				s.screen[s.row] = append(s.screen[s.row], ' ')
			}
			s.screen[s.row][s.column] = r
			s.column++
		}
	}
}

func (s *terminalOf) down() {
	if s.row++; s.row == s.rows {
		s.row--
		copy(s.screen, s.screen[1:])
		s.screen[s.row] = nil
	}
}

func (s *terminalOf) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	for _, row := range s.screen {
		out.WriteString(string(row) + "\n")
	}
	return out.String()
}

// admin answers each look at the status with the next of its starts.
type admin struct {
	mirrorv1.UnimplementedAdminServiceServer

	looks atomic.Int64
}

func (a *admin) GetStatus(context.Context, *mirrorv1.GetStatusRequest) (*mirrorv1.GetStatusResponse, error) {
	return &mirrorv1.GetStatusResponse{
		Version: fmt.Sprint("look-", a.looks.Add(1)), Ready: true, Store: "postgres",
		Projects: []*mirrorv1.ProjectStatus{{ProjectId: "default"}},
	}, nil
}

// A watched status replaces itself, whether or not its lines fit into the terminal.
func TestWatchReplacesWhatItShowed(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for _, columns := range []int{200, 20} {
		a := &admin{}
		term := openTerminal(t, columns, 60)
		command := &Status{Watch: true, pause: time.Millisecond}
		command.Server = serveGRPC(t, func(s *grpc.Server) { mirrorv1.RegisterAdminServiceServer(s, a) })
		term.show("$ liveblocks-mirror status --watch\r\n")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- command.Run(ctx, Streams{Out: term.File, Err: term.File}) }()
		await(t, func() bool { return a.looks.Load() >= 5 })
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v; want nil after an interrupt", err)
		}
		last := ""
		await(t, func() bool { // until all that was written is shown
			before := last
			last = term.String()
			return before == last && strings.Contains(last, "last sweep")
		})
		if n := strings.Count(last, "look-"); n != 1 {
			t.Errorf("on %d columns %d statuses are seen at once:\n%s", columns, n, last)
		}
	}
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-deadline:
			t.Fatal("not within a minute")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
