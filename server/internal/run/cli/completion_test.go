package cli

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// In zsh, the variable path is PATH: a script that sets it leaves the shell without commands.
func TestCompletionLeavesThePath(t *testing.T) {
	t.Parallel()
	app := kong.Must(&struct {
		Status struct{} `cmd:""`
	}{}).Model
	for _, shell := range []string{"bash", "zsh"} {
		if found := regexp.MustCompile(`\bpath\+?=`).FindString(completion(shell, app)); found != "" {
			t.Errorf("the script for %s has %q", shell, found)
		}
	}
}

// A real bash completes commands, their commands and their flags, and leaves its own variables
// alone.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	app := kong.Must(&struct {
		Tasks struct {
			List struct {
				Room  string
				State string
			} `cmd:""`
			Retry struct{} `cmd:""`
		} `cmd:""`
		Status struct{ Watch bool } `cmd:""`
		Secret struct{}             `cmd:"" hidden:""`
	}{}, kong.Name("liveblocks-mirror")).Model
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("bash is not on the PATH; install it")
	}
	for line, want := range map[string][]string{
		"liveblocks-mirror ":                     {"--help", "status", "tasks"},
		"liveblocks-mirror st":                   {"status"},
		"liveblocks-mirror tasks ":               {"--help", "list", "retry"},
		"liveblocks-mirror tasks list --":        {"--help", "--room", "--state"},
		"liveblocks-mirror tasks list --room=a ": {"--help", "--room", "--state"},
		"liveblocks-mirror --help status --w":    {"--watch"},
		"liveblocks-mirror secret":               nil,
		"liveblocks-mirror unknown ":             nil,
	} {
		words := strings.Split(line, " ")
		script := `set -u; before=$(compgen -v); ` + completion("bash", app) + `
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
complete -p liveblocks-mirror >&2
_liveblocks_mirror liveblocks-mirror "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
for word in "${COMPREPLY[@]}"; do echo "$word"; done
for name in given words path; do declare -p "$name" 2>/dev/null; done; true`
		cmd := exec.CommandContext(t.Context(), bash, append([]string{"--norc", "-c", script, "bash"}, words...)...)
		var problems strings.Builder
		cmd.Stderr = &problems
		out, err := cmd.Output()
		if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, want) ||
			!strings.Contains(problems.String(), "-F _liveblocks_mirror liveblocks-mirror") ||
			strings.Count(problems.String(), "\n") != 1 {
			t.Errorf("%q is completed by %q, %v, %s; want %q", line, got, err, &problems, want)
		}
	}
}
