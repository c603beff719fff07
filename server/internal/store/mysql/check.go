package mysql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// Check finds out whether the user may read and write the tables, and says which
// statement allows it. There is nothing to adapt to: what statements depend on is set in
// each session.
//
// Rights can come from roles and patterns, so the tables that list them do not tell. The
// server does, when it is sent statements that alter nothing. Where it does not answer
// soon, because a table is locked, the service starts nevertheless.
func (s *Store) Check(ctx context.Context, _ *slog.Logger) error {
	if err := retry(ctx, func() error { return s.accepting.PingContext(ctx) }); err != nil {
		return classify(ctx, fmt.Errorf("check the database: %w", err)) // after the time that a connection may take
	}
	for _, table := range written() {
		column := "project_id"
		if table == "mirror_feed_head" { // the only one without
			column = "n"
		}
		for _, statement := range []string{
			"select 1 from " + table + " where 1 = 0",
			"insert into " + table + " select * from " + table + " where 1 = 0",
			"update " + table + " set " + column + " = " + column + " where 1 = 0",
			"delete from " + table + " where 1 = 0",
		} {
			err := s.try(ctx, statement)
			switch {
			case denied(err):
				return s.denied(ctx, statement, table)
			case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
				return nil
			case err != nil && number(err) == 0:
				return classify(ctx, fmt.Errorf("check the database: %w", err))
			}
			// What else the server has to say, Ping says as well, or it concerns no statement of
			// the service.
		}
	}
	return nil
}

// probeTimeout limits the wait for a statement that alters nothing.
const probeTimeout = 5 * time.Second

func (s *Store) try(ctx context.Context, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return retry(ctx, func() error {
		_, err := s.accepting.ExecContext(ctx, statement)
		return err
	})
}

// denied says what has to be changed.
func (s *Store) denied(ctx context.Context, statement, table string) error {
	var user, database string
	if err := s.accepting.QueryRowContext(ctx, "select current_user(), database()").Scan(&user, &database); err != nil {
		return classify(ctx, fmt.Errorf("check the database: %w", err))
	}
	name, host := user, "%"
	if at := strings.LastIndex(user, "@"); at >= 0 {
		name, host = user[:at], user[at+1:]
	}
	user = constant(name) + "@" + constant(host)
	verb, _, _ := strings.Cut(statement, " ")
	return fmt.Errorf("the user %s lacks the right to %s in %s; as an administrator, run: grant select, insert, update, "+
		"delete on %s.* to %s", user, verb, table, quoted(pattern(database)), user)
}

var created = regexp.MustCompile(`create table if not exists (mirror_\w+)`)

// written are the tables of the service, without those of migrations.
func written() (list []string) {
	entries, _ := migrationFiles.ReadDir("migrations") // embedded: cannot fail
	for _, e := range entries {
		text, _ := migrationFiles.ReadFile("migrations/" + e.Name())
		for _, m := range created.FindAllStringSubmatch(string(text), -1) {
			list = append(list, m[1])
		}
	}
	return list
}
