package mysql

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"slices"
)

// longValue is from how many bytes on a value is sent apart from the text of its
// statement. To put it there costs both sides: it is escaped byte by byte, and the
// server reads it three times before it stores it.
const longValue = 4 << 10

// maxKeptArgs is how many values a prepared statement has at most. Those for lists
// of rows have more, and another text for each length of the list.
const maxKeptArgs = 20

// serverConn is what the driver's connections can do and database/sql uses.
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

// session is a connection that prepares the statements with long values, and
// keeps them prepared for as long as it lives: they cost a round trip once.
type session struct {
	serverConn

	kept map[string]driver.Stmt
}

func newSession(conn driver.Conn) (*session, error) {
	c, ok := conn.(serverConn)
	if !ok {
		return nil, errors.New("the driver cannot do what is needed of it")
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

// ExecContext runs a statement. One that fails is not kept, since a server or a
// proxy may have forgotten it.
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
		return nil, errors.New("the driver cannot run what it has prepared")
	}
	result, err := execer.ExecContext(ctx, args)
	if err != nil {
		delete(s.kept, text)
		return nil, errors.Join(err, stmt.Close())
	}
	return result, nil
}
