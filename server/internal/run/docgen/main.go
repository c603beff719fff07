// The program docgen prints the document in docs/ that its argument names. The
// document is generated from the code.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

var documents = map[string]func() string{
	"EVENTS.md": events, "CONFIGURATION.md": configuration, "METRICS.md": metricsPage,
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 || documents[args[0]] == nil {
		return errors.New("name one document: EVENTS.md, CONFIGURATION.md or METRICS.md")
	}
	_, err := io.WriteString(out, documents[args[0]]())
	return err
}
