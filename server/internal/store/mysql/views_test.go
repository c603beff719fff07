package mysql

import (
	"testing"

	gomysql "github.com/go-sql-driver/mysql"
)

// A server without such views gets a word about them; any other error stops.
func TestViewUnsupported(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		number  uint16
		message string
		want    bool
	}{
		{1064, "You have an error in your SQL syntax", true},
		{1235, "This version doesn't yet support", true},
		{1105, "VT12001: unsupported: json_table expressions", true},
		{1105, "target: mirror.-40.primary: vttablet: rpc error", false},
		{1142, "CREATE VIEW command denied", false},
	} {
		if got := viewUnsupported(&gomysql.MySQLError{Number: c.number, Message: c.message}); got != c.want {
			t.Errorf("viewUnsupported(%d %s) = %t; want %t", c.number, c.message, got, c.want)
		}
	}
}
