// The program docgen prints the document in docs/ that its argument names. The
// document is generated from the code.
package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

var documents = map[string]func() (string, error){
	"EVENTS.md": always(events), "CONFIGURATION.md": always(configuration), "METRICS.md": always(metricsPage),
	"API.md": func() (string, error) { return apiPage(examples) },
}

func always(page func() string) func() (string, error) {
	return func() (string, error) { return page(), nil }
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 || documents[args[0]] == nil {
		return errors.New("name one document: " + strings.Join(slices.Sorted(maps.Keys(documents)), ", "))
	}
	page, err := documents[args[0]]()
	if err != nil {
		return fmt.Errorf("docs/%s: %w", args[0], err)
	}
	_, err = io.WriteString(out, page)
	return err
}
