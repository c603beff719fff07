// Package viewsql reads the definitions of our own views.
package viewsql

import (
	"regexp"
	"slices"
)

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	source  = regexp.MustCompile(`\b(?:from|join) (mirror_\w+) (\w+)`)
	column  = regexp.MustCompile(`\b(\w+)\.(\w+)`)
)

// Columns returns the columns of each table that views read, sorted. In our views each
// table has an alias, and each column is written after one.
func Columns(views ...string) map[string][]string {
	columns := map[string][]string{}
	for _, view := range views {
		view = comment.ReplaceAllString(view, "")
		tables := map[string]string{}
		for _, m := range source.FindAllStringSubmatch(view, -1) {
			tables[m[2]] = m[1]
		}
		for _, m := range column.FindAllStringSubmatch(view, -1) {
			if table, ok := tables[m[1]]; ok && !slices.Contains(columns[table], m[2]) {
				columns[table] = append(columns[table], m[2])
			}
		}
	}
	for _, list := range columns {
		slices.Sort(list)
	}
	return columns
}
