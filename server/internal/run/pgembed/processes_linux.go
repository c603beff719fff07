package pgembed

import (
	"bytes"
	"context"
	"os"
	"strconv"
)

// commandLines returns the command line of every process by process id, joined by
// spaces. Zombies have none. It does not need ps, which slim containers lack.
func commandLines(context.Context) (map[int]string, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	commands := make(map[int]string)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + name + "/cmdline")
		if err != nil || len(b) == 0 {
			continue // it has exited, or belongs to another account
		}
		commands[pid] = string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
	}
	return commands, nil
}
