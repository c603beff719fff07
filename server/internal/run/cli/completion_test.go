package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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

// smallApp has commands, commands of commands, flags and a hidden command.
func smallApp() *kong.Application {
	return kong.Must(&struct {
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
}

// shell returns where a shell is, and a file with its script.
func shell(t *testing.T, name string) (program, script string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		t.Skip("NOT RUN: " + name + " is not installed; install it before a merge that changes the script")
	}
	script = filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(completion(name, smallApp())), 0o600); err != nil {
		t.Fatal(err)
	}
	return program, script
}

// A real fish completes the same.
func TestCompletionInFish(t *testing.T) {
	t.Parallel()
	fish, script := shell(t, "fish")
	for line, want := range map[string][]string{
		"liveblocks-mirror ":                  {"--help", "status", "tasks"},
		"liveblocks-mirror st":                {"status"},
		"liveblocks-mirror tasks ":            {"--help", "list", "retry"},
		"liveblocks-mirror tasks list --":     {"--help", "--room", "--state"},
		"liveblocks-mirror --help status --w": {"--watch"},
		"liveblocks-mirror secret":            nil,
		"liveblocks-mirror unknown ":          nil,
	} {
		cmd := exec.CommandContext(t.Context(), fish, "--no-config", "-c", "source $argv[1]; complete -C $argv[2]",
			script, line)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if got := strings.Fields(string(out)); err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("%q is completed by %q, %v; want %q", line, got, err, want)
		}
	}
}

// zshKeys types lines and a tab into a zsh at a terminal, and prints what the line has become.
const zshKeys = `zmodload zsh/zpty && zpty z "zsh -f -i" || exit 3
zpty -w z 'PS1=; autoload -Uz compinit && compinit -u -D; source '$1
zpty -w z 'zle-line-init() { print -n "TYPE"NOW }; zle -N zle-line-init'
zpty -w z 'dump() { print -r -- "LI""NE<"$BUFFER">"; BUFFER=; zle .accept-line }; zle -N dump; bindkey "^X^D" dump; :'
shift
for line; do
  zpty -r -m z seen '*TYPENOW*' || exit 4
  zpty -w -n z $line$'\t\C-x\C-d'
  zpty -r -m z seen '*LINE<*>*' || exit 5
  seen=${seen##*LINE<}
  print -r -- "${seen%%>*}"
done
zpty -d z`

// A real zsh completes a line at the tab.
func TestCompletionInZsh(t *testing.T) {
	t.Parallel()
	zsh, script := shell(t, "zsh")
	lines := []string{
		"liveblocks-mirror sta", "liveblocks-mirror tasks lis", "liveblocks-mirror tasks list --sta",
		"liveblocks-mirror --help status --w", "liveblocks-mirror secr", "liveblocks-mirror tasks unkn",
	}
	want := []string{
		"liveblocks-mirror status ", "liveblocks-mirror tasks list ", "liveblocks-mirror tasks list --state ",
		"liveblocks-mirror --help status --watch ", lines[4], lines[5],
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, zsh, append([]string{"-f", "-c", zshKeys, "zsh", script}, lines...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "TERM=vt100")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"); err != nil || !slices.Equal(got, want) {
		t.Errorf("lines become %q, %v; want %q", got, err, want)
	}
}

// A real bash completes commands, their commands and their flags, and leaves its own variables
// alone.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	app := smallApp()
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
