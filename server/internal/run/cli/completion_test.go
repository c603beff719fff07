package cli

import (
	"regexp"
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
