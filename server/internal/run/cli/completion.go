package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Completion is the command that prints what a shell needs to complete command lines.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// Run prints the script.
func (c *Completion) Run(app *kong.Application, std Streams) error {
	_, err := io.WriteString(std.Out, completion(c.Shell, app))
	return err
}

// completion returns a script that completes commands and flags. It holds a table of what
// may follow the words of a command, so completing runs no program.
func completion(shell string, app *kong.Application) string {
	var cases strings.Builder
	walk(app.Node, "", func(path string, node *kong.Node) {
		words := words(node)
		if shell == "fish" {
			for _, word := range words {
				fmt.Fprintf(&cases, "complete -c %s -n 'test \"$(__mirror_path)\" = %q' -a %q\n", app.Name, path, word)
			}
			return
		}
		fmt.Fprintf(&cases, "    %q) words=%q ;;\n", path, strings.Join(words, " "))
	})
	switch shell {
	case "fish":
		return `function __mirror_path
    string join ' ' (string match -v -- '-*' (commandline -opc)[2..])
end
complete -c ` + app.Name + ` -f
` + cases.String()
	case "zsh":
		return "autoload -U +X bashcompinit && bashcompinit\n" + completion("bash", app)
	}
	return `_liveblocks_mirror() {
  local given= words= word # not path, which is PATH in zsh
  for word in "${COMP_WORDS[@]:1:$((COMP_CWORD - 1))}"; do # zsh takes ":C" for a modifier
    [[ $word == -* ]] || given="${given:+$given }$word"
  done
  case "$given" in
` + cases.String() + `  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _liveblocks_mirror ` + app.Name + "\n"
}

// walk calls f with each command that is shown, by the words that name it.
func walk(node *kong.Node, path string, f func(path string, node *kong.Node)) {
	f(path, node)
	for _, child := range node.Children {
		if child.Type == kong.CommandNode && !child.Hidden {
			walk(child, strings.TrimSpace(path+" "+child.Name), f)
		}
	}
}

// words are what may follow a command: its own commands and its flags.
func words(node *kong.Node) (list []string) {
	for _, child := range node.Children {
		if child.Type == kong.CommandNode && !child.Hidden {
			list = append(list, child.Name)
		}
	}
	for _, group := range node.AllFlags(true) {
		for _, flag := range group {
			list = append(list, "--"+flag.Name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
