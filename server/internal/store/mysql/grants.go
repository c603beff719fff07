package mysql

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/viewsql"
)

// GrantSQL returns the statements that make users with least rights in the database of a
// URL, for an administrator. It is right before the first migration, after it, and any
// number of times: what is not there yet is left out. It holds no password.
//
// Views follow the rights of who reads them, so the reader needs rights on the tables:
// those on the columns that the views show, never on a table.
func GrantSQL(url string, roles store.Roles) (string, error) {
	database := "mirror"
	if url != "" {
		cfg, err := parseURL(url)
		if err != nil {
			return "", err
		}
		database = cfg.DBName
	}
	owner, service, reader := account(roles.Owner), account(roles.Service), account(roles.Reader)
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`-- Users with least rights for liveblocks-mirror. Run this as an administrator: before the first migrate, again
-- after it, and after each upgrade. It can be repeated.

-- A user that is not there yet is locked, so no password is in here. Unlock it, such as by:
-- alter user NAME identified by '...' account unlock`)
	for _, user := range []string{owner, service, reader} {
		line("create user if not exists %s account lock;", user)
	}
	line(`
-- The owner of the tables and views, for migrate.
grant create, alter, drop, index, create view, show view, select, insert, update, delete on %[1]s.* to %[2]s;

-- The service reads and writes rows, also in tables that later migrations add.
grant select, insert, update, delete on %[1]s.* to %[3]s;

-- The reader reads the views. They follow the rights of who reads them, so it also needs the columns that they show.`,
		quoted(pattern(database)), owner, service)
	grant := func(rights, on, from, where string) {
		line("set @statement = (select if(count(*) = 1, %s, 'do 0') from information_schema.%s\n"+
			"    where table_schema = %s and table_name = '%s'%s);",
			constant("grant "+rights+" on "+quoted(database)+"."+on+" to "+reader), from, constant(database), on, where)
		line("prepare statement from @statement;\nexecute statement;\ndeallocate prepare statement;")
	}
	var definitions []string
	_ = views(func(view, create string) error {
		definitions = append(definitions, create)
		grant("select, show view", view, "views", " and view_definition like '%liveblocks-mirror %'")
		return nil
	})
	columns := viewsql.Columns(definitions...)
	for _, table := range slices.Sorted(maps.Keys(columns)) {
		grant("select ("+strings.Join(columns[table], ", ")+")", table, "tables", "")
	}
	return b.String(), nil
}

// account is a user from any host.
func account(name string) string { return constant(name) + "@'%'" }

// constant is a text as a constant of SQL.
func constant(s string) string {
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(s) + "'"
}

// pattern is the name of a database in a grant on all of its tables, where _ and % match
// any character.
func pattern(name string) string { return strings.NewReplacer("_", `\_`, "%", `\%`).Replace(name) }

func quoted(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
