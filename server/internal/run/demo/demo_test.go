package demo

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
)

// longest are the longest rows that the demo can make.
func longest() []row {
	now, long := time.Now(), 12345*time.Millisecond
	return []row{
		{now, fake.ThreadMarkedAsUnresolved, firstRoom, 200, long, 14999 * time.Millisecond, "12345 bytes"},
		{now, fake.UserLeft, "doc:123456", 200, time.Millisecond, 999 * time.Millisecond, "carol for 59m59s"},
		{now, fake.NotificationSent, firstRoom, 503, time.Millisecond, -1, ""},
	}
}

// The table fits the terminal: the usual width, and more in it on a wider one.
func TestTableFits(t *testing.T) {
	t.Parallel()
	colours := regexp.MustCompile("\x1b\\[[0-9]+m")
	for _, c := range []struct {
		width, most int
		acks        bool
	}{
		{20, 80, false},
		{80, 80, false},
		{99, 80, false},
		{100, 100, true},
		{300, 100, true},
	} {
		for _, colour := range []bool{false, true} {
			var out bytes.Buffer
			s := screen{Writer: &out, width: func() int { return c.width }, colour: colour}
			s.header()
			for _, r := range longest() {
				s.row(r)
			}
			if got := strings.Contains(out.String(), "\x1b["); got != colour {
				t.Errorf("colours = %t; want %t: %q", got, colour, &out)
			}
			plain := colours.ReplaceAllString(out.String(), "")
			if strings.Contains(plain, " in 12.3s ") != c.acks {
				t.Errorf("on %d columns: %s", c.width, plain)
			}
			lines := strings.Split(strings.TrimSuffix(plain, "\n"), "\n")
			column := strings.Index(lines[0], "mirrored")
			for _, line := range lines {
				if len(line) > c.most {
					t.Errorf("on %d columns a line has %d: %s", c.width, len(line), line)
				}
				if line[column-1] != ' ' || line[column] == ' ' {
					t.Errorf("on %d columns the last column is not aligned: %s", c.width, plain)
				}
			}
		}
	}
}

func TestTotals(t *testing.T) {
	t.Parallel()
	lags := func(ms ...int) (rows []row) {
		for _, v := range ms {
			rows = append(rows, row{lag: time.Duration(v) * time.Millisecond})
		}
		return rows
	}
	for _, c := range []struct {
		rows []row
		want string
	}{
		{nil, "0 events"},
		{lags(7), "1 event; from webhook to mirror 7.0ms in the median, 7.0ms at worst"},
		{lags(900, 20, 40), "3 events; from webhook to mirror 40ms in the median, 900ms at worst"},
		{lags(20, -1), "2 events; from webhook to mirror 20ms in the median, 20ms at worst; 1 not seen within 15s"},
		{lags(-1), "1 event; 1 not seen within 15s"},
	} {
		if got := totals(c.rows); got != c.want {
			t.Errorf("totals = %q; want %q", got, c.want)
		}
	}
}

// No line needs a program that is not there, or shows the password of a database.
func TestCommandsThatAreThere(t *testing.T) {
	t.Parallel()
	addrs := app.Ready{HTTPAddr: "127.0.0.1:8080", GRPCAddr: "127.0.0.1:9090"}
	const embedded = "postgres:///mirror?host=%2Ftmp%2Fan+odd%27s+dir%2Fsock&port=5432&sslmode=disable&user=postgres"
	for _, c := range []struct {
		programs, database, dir string
		want                    map[string]int
	}{
		{"", embedded, "/", map[string]int{}},
		{"curl", embedded, "/", map[string]int{"curl": 7}},
		{"psql", embedded, "/", map[string]int{"psql": 1, "select": 2}},
		{"grpcurl", embedded, "/", map[string]int{"grpcurl": 2}},
		{"go", embedded, "/", map[string]int{}},
		{"go", embedded, "../../../..", map[string]int{"grpcurl": 2, "grpcurl()": 1}},
		{"go grpcurl", embedded, "../../../..", map[string]int{"grpcurl": 2}},
		{"psql", "", "/", map[string]int{"select": 2}},
		{"", "", "/", map[string]int{"select": 2}},
	} {
		text := commands(addrs, c.database, c.dir, func(p string) bool {
			return strings.Contains(" "+c.programs+" ", " "+p+" ")
		})
		got := map[string]int{}
		for line := range strings.Lines(text) {
			if command, ok := strings.CutPrefix(line, "  "); ok && command[0] != ' ' {
				word, _, _ := strings.Cut(command, " ")
				got[word]++
			}
		}
		for _, word := range []string{"curl", "grpcurl", "grpcurl()", "psql", "select"} {
			if got[word] != c.want[word] {
				t.Errorf("with %q there are %d lines of %s; want %d:\n%s", c.programs, got[word], word, c.want[word], text)
			}
		}
		if want := `  psql -h '/tmp/an odd'\''s dir/sock' -p 5432 -U postgres mirror`; got["psql"] > 0 && !strings.Contains(text, want) {
			t.Errorf("commands =\n%s\nwant %s", text, want)
		}
		if !strings.Contains(text, "http://127.0.0.1:8080/ in a browser") {
			t.Errorf("no address for a browser:\n%s", text)
		}
	}
}
