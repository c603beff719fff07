package pgembed

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// maxLog is the size above which a start rotates the log. One older log is kept.
const maxLog = 10 << 20

// serverLog is the log file of the server. The server writes to it directly, so its
// last messages survive this process.
type serverLog struct{ file *os.File }

func openLog(path string) (*serverLog, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("rotate server log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open server log: %w", err)
	}
	return &serverLog{f}, nil
}

// size returns the current size of the log.
func (l *serverLog) size() int64 {
	st, err := l.file.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// explain appends to err the last lines logged since the log had the given size.
func (l *serverLog) explain(err error, since int64) error {
	from := max(since, l.size()-4096)
	b := make([]byte, max(0, l.size()-from))
	n, _ := l.file.ReadAt(b, from)
	lines := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	last := oneLine([]byte(strings.Join(lines[max(0, len(lines)-6):], "\n")))
	if last == "" {
		return err
	}
	return fmt.Errorf("%w; %s ends with: %s", err, l.file.Name(), last)
}

// oneLine joins the lines of a program's output, for errors.
func oneLine(out []byte) string {
	return strings.Join(strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' || r == '\r' }), " | ")
}

// failure matches what a program of PostgreSQL says of its failure, which may stand
// behind what it said of its progress.
var failure = regexp.MustCompile(`(?:FATAL|PANIC|ERROR|initdb: error): .*`)

// cause returns the first failure in the output of a program, or else all of it: the
// others follow from it.
func cause(out []byte) string {
	if found := failure.Find(out); found != nil {
		return strings.Join(strings.Fields(string(found)), " ")
	}
	return oneLine(out)
}
