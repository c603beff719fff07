package store

import "strings"

// StatementName returns the name of a statement for traces: the one that sqlc's comment
// gives it, otherwise its first word. It contains no value.
func StatementName(sql string) string {
	if rest, ok := strings.CutPrefix(sql, "-- name: "); ok {
		name, _, _ := strings.Cut(rest, " ")
		return name
	}
	first, _, _ := strings.Cut(strings.TrimLeft(sql, " \t\n("), " ")
	first, _, _ = strings.Cut(first, "\n")
	return strings.ToLower(first)
}
