package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/viewsql"
)

// GrantSQL returns the statements that make roles with least rights, for whoever may
// create roles. It is right before the first migration, after it, and any number of
// times: what is not there yet is left out. It holds no password.
//
// Views follow the rights of who reads them, so whoever may read all tables of the
// schema, as hosted databases let roles of theirs, gains nothing by the views. The price
// is that the reader needs rights on the tables: those on the columns that the views
// show, never on a table.
func GrantSQL(url string, roles store.Roles) (string, error) {
	to, err := parseURL(url)
	if err != nil {
		return "", err
	}
	schema := to.schema
	if schema == "" {
		schema = "public"
	}
	name := func(of string) string { return pgx.Identifier{of}.Sanitize() }
	owner, service, reader, in := name(roles.Owner), name(roles.Service), name(roles.Reader), name(schema)
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`-- Roles with least rights for liveblocks-mirror. Run this with psql, in its database, as a role that may create
-- roles: before the first migrate, again after it, and after each upgrade. It can be repeated.

-- A role that is not there yet cannot log in, so no password is in here. Let it log in as your server has it, such as
-- by: alter role NAME login password '...'`)
	for _, role := range []string{roles.Owner, roles.Service, roles.Reader} {
		line("do $$ begin create role %s nologin; exception when duplicate_object or unique_violation then null; end $$;",
			name(role))
		line("do $$ begin execute format('grant connect on database %%I to %%I', current_database(), %s); end $$;",
			constant(role))
	}
	line(`
-- Whoever runs this acts for the owner below.
do $$ begin
  if %s <> current_user and not (select rolsuper from pg_roles where rolname = current_user) then
    grant %s to current_user;
  end if;
end $$;`, constant(roles.Owner), owner)
	line(`
-- The owner of the tables and views, for migrate.`)
	if schema != "public" {
		line("create schema if not exists %s authorization %s;", in, owner)
	}
	line(`grant usage, create on schema %s to %s;

-- The service reads and writes rows, also in tables that later migrations add.
grant usage on schema %[1]s to %[3]s;
alter default privileges for role %[2]s in schema %[1]s grant select, insert, update, delete on tables to %[3]s;
do $$ declare name text; begin
  for name in select tablename from pg_tables where schemaname = %[4]s and tablename like 'mirror\_%%' loop
    execute format('grant select, insert, update, delete on %%I.%%I to %%I', %[4]s, name, %[5]s);
  end loop;
end $$;

-- The reader reads the views. They follow the rights of who reads them, so it also needs the columns that they show.
grant usage on schema %[1]s to %[6]s;
do $$ declare name text; begin
  for name in select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = %[4]s and c.relkind = 'v' and obj_description(c.oid, 'pg_class') like '%[7]s%%' loop
    execute format('grant select on %%I.%%I to %%I', %[4]s, name, %[8]s);
  end loop;
  if to_regclass(%[9]s) is not null then`, in, owner, service, constant(schema), constant(roles.Service), reader,
		viewMark, constant(roles.Reader), constant(in+"."+schemaTable))
	columns := viewsql.Columns(definitions()...)
	for _, table := range slices.Sorted(maps.Keys(columns)) {
		line("    grant select (%s) on %s.%s to %s;", strings.Join(columns[table], ", "), in, table, reader)
	}
	line("  end if;\nend $$;")
	return b.String(), nil
}

// constant is a text as a constant of SQL.
func constant(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
