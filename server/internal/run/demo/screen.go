package demo

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	plainWidth = 80
	wideWidth  = 100
)

// screen is what the demo prints on: a terminal, a file or a pipe.
type screen struct {
	io.Writer
	// width is the number of columns now.
	width  func() int
	colour bool
}

func newScreen(out io.Writer) screen {
	s := screen{Writer: out, width: func() int { return plainWidth }}
	f, ok := out.(*os.File)
	if !ok {
		return s
	}
	size := func() (*unix.Winsize, error) { return unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ) }
	if _, err := size(); err != nil {
		return s // no terminal
	}
	s.width = func() int {
		if ws, err := size(); err == nil && ws.Col > 0 {
			return int(ws.Col)
		}
		return plainWidth
	}
	term := os.Getenv("TERM")
	s.colour = os.Getenv("NO_COLOR") == "" && term != "" && term != "dumb"
	return s
}

// style is a set of SGR parameters of ECMA-48.
type style string

const (
	bold  style = "1"
	dim   style = "2"
	red   style = "31"
	green style = "32"
)

func (s screen) paint(with style, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + string(with) + "m" + text + "\x1b[0m"
}

// row is what became of one event.
type row struct {
	time        time.Time
	event, room string
	status      int           // of the delivery
	ack         time.Duration // until it was acknowledged
	lag         time.Duration // until the mirror showed it; negative if it did not
	seen        string        // what the mirror shows
}

// header prints the names of the columns.
func (s screen) header() {
	if s.width() < wideWidth {
		s.line(bold, "%-8s %-24s %-15s %4s %6s  %s", "time", "event", "room", "http", "lag", "mirrored")
	} else {
		s.line(bold, "%-8s %-24s %-15s %-13s %7s  %s", "time", "event", "room", "webhook", "lag", "mirrored")
	}
}

func (s screen) line(with style, format string, args ...any) {
	fmt.Fprintln(s, s.paint(with, fmt.Sprintf(format, args...)))
}

// row prints a line that fits into 80 columns, or with more in it into 100.
func (s screen) row(r row) {
	good, lag := green, short(r.lag)
	if r.status/100 != 2 || r.lag < 0 {
		good = red
	}
	if r.lag < 0 {
		lag, r.seen = "-", "not seen yet"
	}
	begin := fmt.Sprintf(" %-24s %-15s ", r.event, r.room)
	if s.width() < wideWidth {
		fmt.Fprint(s, s.paint(dim, r.time.Format(time.TimeOnly)), begin, s.paint(good, fmt.Sprintf("%4d %6s", r.status, lag)),
			"  ", r.seen, "\n")
		return
	}
	fmt.Fprint(s, s.paint(dim, r.time.Format(time.TimeOnly)), begin,
		s.paint(good, fmt.Sprintf("%-13s %7s", fmt.Sprintf("%d in %s", r.status, short(r.ack)), lag)), "  ", r.seen, "\n")
}

// short writes a duration in at most six characters.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	default:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
}

// count writes a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// totals describes the lag of all events.
func totals(rows []row) string {
	var lags []time.Duration
	for _, r := range rows {
		if r.lag >= 0 {
			lags = append(lags, r.lag)
		}
	}
	slices.Sort(lags)
	var text strings.Builder
	text.WriteString(count(len(rows), "event"))
	if len(lags) > 0 {
		fmt.Fprintf(&text, "; from webhook to mirror %s in the median, %s at worst", short(lags[len(lags)/2]),
			short(lags[len(lags)-1]))
	}
	if lost := len(rows) - len(lags); lost > 0 {
		fmt.Fprintf(&text, "; %d not seen within %s", lost, mirrorTimeout)
	}
	return text.String()
}
