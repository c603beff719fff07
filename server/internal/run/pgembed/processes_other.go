//go:build unix && !linux

package pgembed

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
)

// commandLines returns the command line of every process by process id, joined by
// spaces.
func commandLines(ctx context.Context) (map[int]string, error) {
	out, err := exec.CommandContext(ctx, "ps", "-axww", "-o", "pid=,command=").Output()
	if err != nil {
		return nil, err
	}
	commands := make(map[int]string)
	for line := range strings.Lines(string(out)) {
		id, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pid, err := strconv.Atoi(id); err == nil {
			commands[pid] = strings.TrimSpace(command)
		}
	}
	return commands, nil
}
