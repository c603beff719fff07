package mysql

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"

	gomysql "github.com/go-sql-driver/mysql"
)

// strict opens connections to a server that refuses statements about more than so
// many rows, as Vitess does: what they return, change or delete, but not what they
// insert.
type strict struct {
	driver.Connector

	rows int
}

// Connect is for package sql.
func (s strict) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c, ok := conn.(serverConn)
	if !ok {
		return nil, fmt.Errorf("the driver's connection is a %T", conn)
	}
	return &strictConn{c, s.rows}, nil
}

type strictConn struct {
	serverConn

	rows int
}

// hostedRows is the default limit of Vitess. That of PlanetScale is ten times higher.
const hostedRows = 10_000

// refuse returns the error of Vitess for n rows of a statement, with the statement for
// the one who has to mend it. Where a caller limits the rows itself, as to a page, and
// within what a server allows, it gets them.
func (c *strictConn) refuse(text string, args []driver.NamedValue, n int64) error {
	allowed := int64(c.rows)
	if strings.Contains(text, "limit ?") {
		for _, arg := range args {
			if limit, ok := arg.Value.(int64); ok && limit <= hostedRows {
				allowed = max(allowed, limit)
			}
		}
	}
	if n <= allowed {
		return nil
	}
	text = leadingComments.ReplaceAllString(text, "")
	return &gomysql.MySQLError{Number: 1317, Message: fmt.Sprintf("target: mirror.0.primary: vttablet: rpc error: "+
		"code = Aborted desc = Row count exceeded %d (CallerID: mirror): %.300s", c.rows, text)}
}

func (c *strictConn) written(text string, args []driver.NamedValue, result driver.Result, err error) (driver.Result,
	error,
) {
	if err != nil {
		return result, err
	}
	if text := leadingComments.ReplaceAllString(text, ""); !strings.HasPrefix(text, "update") &&
		!strings.HasPrefix(text, "delete") {
		return result, nil
	}
	n, err := result.RowsAffected()
	if err == nil {
		err = c.refuse(text, args, n)
	}
	return result, err
}

func (c *strictConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.serverConn.ExecContext(ctx, text, args)
	return c.written(text, args, result, err)
}

func (c *strictConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.serverConn.QueryContext(ctx, text, args)
	if err != nil {
		return nil, err
	}
	return &strictRows{rows, c, text, args, 0}, nil
}

func (c *strictConn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	stmt, err := c.serverConn.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	return &strictStmt{stmt, c, text}, nil
}

type strictStmt struct {
	driver.Stmt

	conn *strictConn
	text string
}

func (s *strictStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	execer, ok := s.Stmt.(driver.StmtExecContext)
	if !ok {
		return nil, fmt.Errorf("the driver's statement is a %T", s.Stmt)
	}
	result, err := execer.ExecContext(ctx, args)
	return s.conn.written(s.text, args, result, err)
}

type strictRows struct {
	driver.Rows

	conn *strictConn
	text string
	args []driver.NamedValue
	n    int64
}

func (r *strictRows) Next(dest []driver.Value) error {
	err := r.Rows.Next(dest)
	if err == nil {
		r.n++
		err = r.conn.refuse(r.text, r.args, r.n)
	}
	return err
}

// OpenStrict opens a store, with pieces of so many rows, whose server refuses statements
// about more than a number of rows.
func OpenStrict(url string, rows, piece int) (*Store, error) {
	c, err := newConnector(url)
	if err != nil {
		return nil, err
	}
	c.Connector = strict{c.Connector, rows}
	return open(c, Config{MaxConns: 16}, piece)
}

// PieceRows and HostedRows are constants for tests.
const (
	PieceRows  = pieceRows
	HostedRows = hostedRows
)
