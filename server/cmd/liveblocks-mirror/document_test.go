package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// docs/CLI.md has every command and every exit code.
func TestCommandsAreDocumented(t *testing.T) {
	t.Parallel()
	const path = "../../../docs/CLI.md"
	want := document(kong.Must(&commands{}, kong.Name("liveblocks-mirror")).Model.Node)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("docs/CLI.md is not what the commands say (%v); run `go test ./server/cmd/liveblocks-mirror -update`", err)
	}
}

// Every command that has a result prints it as JSON, if asked to.
func TestEveryCommandPrintsJSON(t *testing.T) {
	t.Parallel()
	// Those that run until they are ended, and those whose result has a form of its own.
	without := []string{"serve", "demo", "completion", "call"}
	for _, leaf := range kong.Must(&commands{}, kong.Name("liveblocks-mirror")).Model.Leaves(true) {
		found := slices.ContainsFunc(leaf.Flags, func(f *kong.Flag) bool { return f.Name == "json" })
		if name := strings.TrimPrefix(leaf.FullPath(), "liveblocks-mirror "); found == slices.Contains(without, name) {
			t.Errorf("%s has --json: %t", name, found)
		}
	}
}

// What is printed as SQL or as a VSchema is no JSON.
func TestMigratePrintsNoSQLAsJSON(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://mirror@127.0.0.1:1/mirror")
	for _, flag := range []string{"--print-sql", "--print-grants", "--print-vschema"} {
		if code := run(t.Context(), []string{"migrate", flag, "--json"}); code != exitUsage {
			t.Errorf("migrate %s --json = %d; want %d", flag, code, exitUsage)
		}
	}
}

// document describes the commands. The settings of the service are in a document of their
// own.
func document(app *kong.Node) string {
	var out strings.Builder
	out.WriteString("# Commands\n\n" +
		"Written by `go test ./server/cmd/liveblocks-mirror -update`; do not edit. `liveblocks-mirror COMMAND --help` says the same.\n\n" +
		"Results go to standard output, and progress, logs and errors to standard error: an error is one line that says " +
		"what to do.\n" +
		"On a terminal, progress is one line that is replaced; elsewhere a line every few seconds. With `--json` the result is JSON\n" +
		"instead of text, in the form of the [HTTP API](../README.md#read) where a call has one: one message a line.\n\n" +
		"| exit code | meaning |\n|---|---|\n")
	for code, meaning := range []string{
		exitOK:      "done, or everything is well",
		exitFailure: "failed, or something is wrong: the last line says what",
		exitUsage:   "an argument or a setting is wrong",
		exitDrift:   "of `verify`: the mirror differs from Liveblocks",
	} {
		fmt.Fprintf(&out, "| %d | %s |\n", code, meaning)
	}
	var service []*kong.Flag
	for _, leaf := range app.Leaves(true) {
		for _, f := range leaf.Flags {
			if f.Group != nil && f.Group.Title == "Service" && len(service) < 6 {
				service = append(service, f)
			}
		}
		if len(service) > 0 {
			break
		}
	}
	out.WriteString("\nCommands that call the running service take these flags besides their own:\n\n")
	flagTable(&out, service)
	for _, leaf := range app.Leaves(true) {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n", strings.TrimPrefix(leaf.FullPath(), "liveblocks-mirror "), leaf.Help)
		var own []*kong.Flag
		calls := ""
		for _, f := range leaf.Flags {
			switch {
			case f.Group == nil:
				own = append(own, f)
			case f.Group.Title == "Service":
				calls = "\nIt calls the running service.\n"
			}
		}
		var usage strings.Builder
		for _, arg := range leaf.Positional {
			usage.WriteString(" " + arg.Summary())
		}
		fmt.Fprintf(&out, "%s\n    %s%s\n", calls, leaf.FullPath(), usage.String())
		if len(own) > 0 || len(leaf.Positional) > 0 {
			out.WriteString("\n")
			flagTable(&out, own, leaf.Positional...)
		}
	}
	return out.String()
}

func flagTable(out *strings.Builder, flags []*kong.Flag, positional ...*kong.Positional) {
	out.WriteString("| argument | meaning |\n|---|---|\n")
	for _, arg := range positional {
		fmt.Fprintf(out, "| `%s` | %s |\n", arg.Summary(), escape(arg.Help))
	}
	for _, f := range flags {
		env, standard := "", ""
		if len(f.Envs) > 0 {
			env = " (`" + f.Envs[0] + "`)"
		}
		if f.Default != "" {
			standard = " Default: `" + f.Default + "`."
		}
		fmt.Fprintf(out, "| `%s`%s | %s%s |\n", f.Summary(), env, escape(f.Help), standard)
	}
}

func escape(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
