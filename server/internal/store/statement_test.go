package store

import "testing"

func TestStatementName(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"-- name: MarkStale :many\nselect 'value'": "MarkStale",
		"\n  (SELECT a\nfrom b)":                   "select",
		"commit":                                   "commit",
		"begin isolation level read committed":     "begin",
		"":                                         "",
	} {
		if got := StatementName(sql); got != want {
			t.Errorf("StatementName(%q) = %q; want %q", sql, got, want)
		}
	}
}
