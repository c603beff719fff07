package mysql

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"slices"
)

// longValue is the size from which a value is sent separately from the text of its
// statement. In the text it would be escaped byte by byte and read three times by
// the server.
const longValue = 4 << 10

// maxKeptArgs is the maximum number of values of a statement that is kept prepared.
// Statements for lists of rows have more, and a different text for each length.
const maxKeptArgs = 20

// serverConn is the part of a driver connection that database/sql uses.
type serverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// session is a connection that prepares statements with long values and keeps them
// prepared, so they cost the extra round trip only once.
type session struct {
	serverConn

	kept map[string]driver.Stmt
}

func newSession(conn driver.Conn) (*session, error) {
	c, ok := conn.(serverConn)
	if !ok {
		return nil, errors.New("the driver lacks a required method")
	}
	return &session{serverConn: c, kept: make(map[string]driver.Stmt)}, nil
}

func isLong(arg driver.NamedValue) bool {
	switch v := arg.Value.(type) {
	case []byte:
		return len(v) >= longValue
	case json.RawMessage:
		return len(v) >= longValue
	case string:
		return len(v) >= longValue
	}
	return false
}

// ExecContext runs a statement. A failed one is not kept, because a server or proxy
// may have forgotten it.
func (s *session) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) > maxKeptArgs || !slices.ContainsFunc(args, isLong) {
		return s.serverConn.ExecContext(ctx, text, args)
	}
	stmt, ok := s.kept[text]
	if !ok {
		var err error
		if stmt, err = s.PrepareContext(ctx, text); err != nil {
			return nil, err
		}
		s.kept[text] = stmt
	}
	execer, ok := stmt.(driver.StmtExecContext)
	if !ok {
		return nil, errors.New("the driver cannot run prepared statements")
	}
	result, err := execer.ExecContext(ctx, args)
	if err != nil {
		delete(s.kept, text)
		return nil, errors.Join(err, stmt.Close())
	}
	return result, nil
}
