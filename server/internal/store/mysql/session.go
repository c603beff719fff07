package mysql

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"sync/atomic"
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
	// vitess means that a gateway of Vitess is in between. It takes a value that is sent in
	// pieces for bytes, which no JSON column accepts, so statements with long JSON are sent as
	// text there.
	vitess bool
	// era is the connector's era in which the session was opened.
	era     uint64
	current *atomic.Uint64
}

func newSession(conn driver.Conn, era uint64, current *atomic.Uint64) (*session, error) {
	c, ok := conn.(serverConn)
	if !ok {
		return nil, errors.New("the driver lacks a required method")
	}
	return &session{serverConn: c, kept: make(map[string]driver.Stmt), era: era, current: current}, nil
}

// observe returns the error of a statement, without values. If it says that the server is the wrong
// one or shuts down, a new era begins: all sessions of the one before are closed, so
// the next statement opens a new one, which may lead to another server. Where only a shard
// behind a gateway says so, the next session leads to the same shards.
func (s *session) observe(err error) error {
	if wrongServer(number(err)) && !ofShard(err) {
		s.current.CompareAndSwap(s.era, s.era+1)
	}
	return withoutValues(err)
}

// IsValid reports whether the session can be used again.
func (s *session) IsValid() bool { return s.era == s.current.Load() && s.serverConn.IsValid() }

// ResetSession prepares the session for its next use.
func (s *session) ResetSession(ctx context.Context) error {
	if s.era != s.current.Load() {
		return driver.ErrBadConn
	}
	return s.serverConn.ResetSession(ctx)
}

// beginning is the text of a read up to where Vitess looks for directives: in the first select
// of a union, behind the hints, which MySQL finds only right behind that word.
var beginning = regexp.MustCompile(
	`(?is)^(\s|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*\(*\s*select\b(\s*/\*\+([^*]|\*+[^*/])*\*+/)?`)

// alone returns a read with the directive by which a tablet of Vitess runs it, even if an equal
// one runs already. By default its result is that of the other, which may have begun before a
// change that the reader knows of.
func alone(text string) string {
	end := len(beginning.FindString(text))
	if end == 0 {
		return text
	}
	return text[:end] + " /*vt+ CONSOLIDATOR=disabled */" + text[end:]
}

// PrepareContext prepares a statement, such as a query that the driver does not send as text.
func (s *session) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	if s.vitess {
		text = alone(text)
	}
	return s.serverConn.PrepareContext(ctx, text)
}

// QueryContext runs a query.
func (s *session) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	ctx, span := begin(ctx, text)
	if s.vitess {
		text = alone(text)
	}
	rows, err := s.serverConn.QueryContext(ctx, text, args)
	end(span, err)
	return rows, s.observe(err)
}

// separately reports whether the values of a statement are sent apart from its text.
func (s *session) separately(args []driver.NamedValue) bool {
	return len(args) <= maxKeptArgs && slices.ContainsFunc(args, isLong) &&
		(!s.vitess || !slices.ContainsFunc(args, isLongJSON))
}

func isLongJSON(arg driver.NamedValue) bool {
	_, ok := arg.Value.(json.RawMessage)
	return ok && isLong(arg)
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
	ctx, span := begin(ctx, text)
	result, err := s.exec(ctx, text, args)
	end(span, err)
	return result, err
}

func (s *session) exec(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	if !s.separately(args) {
		result, err := s.serverConn.ExecContext(ctx, text, args)
		return result, s.observe(err)
	}
	stmt, ok := s.kept[text]
	if !ok {
		var err error
		if stmt, err = s.PrepareContext(ctx, text); err != nil {
			return nil, s.observe(err)
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
		return nil, errors.Join(s.observe(err), stmt.Close())
	}
	return result, nil
}
