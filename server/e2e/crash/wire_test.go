package crash_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// wire reads the messages of one connection in the protocol of an engine.
type wire interface {
	// request reads the client's next message. If it begins the execution of a
	// statement, it returns that statement's name.
	request(in *bufio.Reader) (msg []byte, statement string, err error)
	// reply reads the server's next message, and reports whether the server has done
	// what it was asked before.
	reply(in *bufio.Reader) (msg []byte, done bool, err error)
	// plain is a request with its values as they are.
	plain(msg []byte) []byte
}

// words are how an engine says what the tests here look for.
type words struct {
	wire func() wire
	// way returns how to connect to the server of a URL, and the URL that leads to
	// the same database through an address.
	way func(t testing.TB, direct, address string) (dial func() (net.Conn, error), through string)
	// ledger is the statement that writes the events of a batch, for [proxy.set]; alone
	// says that it is the whole transaction.
	ledger string
	alone  bool
	// wroteNothing reports whether the reply to a statement that commits itself says
	// that it has changed no row.
	wroteNothing func(reply []byte) bool
	// runs are the statements of a batch up to the one that waits where nobody can write
	// states or, where that statement does not wait for it, read them.
	runs []string
	// waiting counts the batches that wait for that, open the transactions that have
	// written something.
	waiting, open string
	// migrating is a statement in the midst of the first migration, before which tables
	// of mirror_event and mirror_room are there.
	migrating []string
	tables    int
}

var wordsOf = map[*dbtest.Engine]words{
	dbtest.Postgres: {
		wire:   func() wire { return &postgresWire{statements: make(map[string]string)} },
		way:    postgresWay,
		ledger: "AcceptEvents", alone: true,
		wroteNothing: func(reply []byte) bool { return bytes.Contains(reply, []byte("C\x00\x00\x00\x0dUPDATE 0\x00")) },
		runs:         []string{"AcceptEvents"},
		waiting: `select count(*) from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock' and query like '-- name: AcceptEvents%'`,
		open: "select count(*) from pg_stat_activity where datname = current_database() and backend_xid is not null",
		// All of it is one transaction.
		migrating: []string{"create", "alter"},
		tables:    0,
	},
	dbtest.MySQL: {
		wire:   func() wire { return &mysqlWire{} },
		way:    mysqlWay,
		ledger: "insert into mirror_event",
		// A document is written by a transaction, which its commit ends.
		wroteNothing: func([]byte) bool { return false },
		// The batch locks and writes states without waiting for them. Before, it waits as
		// long as it takes to read the states of resources that an event only mentions.
		runs: []string{"insert into mirror_event", readStates},
		waiting: `select count(*) from {processlist} p
			where db = database() and state like 'Waiting for table%'
				and info like '` + strings.Replace(readStates, " ", "%", 1) + `%'`,
		open: `select count(*) from {transactions} t join {processlist} p on p.id = t.session_id
			where p.db = database() and t.writes`,
		// Each statement is one of its own.
		migrating: []string{"create table if not exists mirror_room"},
		tables:    1,
	},
}

// Statements that engines call differently, or the same one where it can be part of
// a transaction or the whole of it.
const (
	// applyChild is what comes first when the result of fetching something in a room is
	// written.
	applyChild = "LockDocument|LockChild|WriteDocument"
	// writeDocument is what writes a document.
	writeDocument = "UpsertDocument|WriteDocument"
	// readStates reads on MySQL how far resources are.
	readStates = "select project_id, room_id, kind, resource_id, generation, applied_generation,"
)

// is reports whether a statement is one of those that a test means.
func is(name, meant string) bool {
	return slices.ContainsFunc(strings.Split(meant, "|"),
		func(m string) bool { return name == m || strings.HasPrefix(name, m+" ") })
}

// queryName is what sqlc writes before a query.
var queryName = regexp.MustCompile(`^-- name: (\w+)`)

// comments are lines before a statement.
var comments = regexp.MustCompile(`^(\s|--[^\n]*\n)+`)

// directives are comments in a statement by which Vitess runs it.
var directives = regexp.MustCompile(`/\*vt\+.*?\*/ ?`)

// nameOf is the name of a query or, for what has none, its first words.
func nameOf(sql string) string {
	if m := queryName.FindStringSubmatch(sql); m != nil {
		return m[1]
	}
	sql = directives.ReplaceAllString(comments.ReplaceAllString(sql, ""), "")
	name := strings.ToLower(strings.Join(strings.Fields(sql[:min(len(sql), 100)]), " "))
	if is(name, "begin") || is(name, "start transaction") {
		return "begin"
	}
	return name
}

// postgresWire is the protocol of PostgreSQL, without TLS.
type postgresWire struct {
	started    bool
	statements map[string]string // prepared ones, by the driver's name for them
}

func postgresWay(t testing.TB, direct, address string) (dial func() (net.Conn, error), through string) {
	t.Helper()
	to, err := pgconn.ParseConfig(direct)
	if err != nil {
		t.Fatalf("ParseConfig = %v", err)
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(to.User, to.Password), Host: address, Path: "/" + to.Database,
		RawQuery: "sslmode=disable",
	}
	network, server := pgconn.NetworkAddress(to.Host, to.Port)
	return func() (net.Conn, error) { return net.Dial(network, server) }, u.String()
}

func (w *postgresWire) request(in *bufio.Reader) (msg []byte, statement string, err error) {
	if !w.started {
		w.started = true
		msg, err = postgresMessage(in, 0)
		return msg, "", err
	}
	if msg, err = postgresMessage(in, 1); err != nil {
		return nil, "", err
	}
	body := msg[5:]
	switch msg[0] {
	case 'P': // Parse: the name to prepare it under, and the text
		name, rest := cString(body)
		text, _ := cString(rest)
		w.statements[name] = text
	case 'B': // Bind: a portal, and what was prepared
		_, rest := cString(body)
		name, _ := cString(rest)
		statement = nameOf(w.statements[name])
	case 'Q': // Query: the text
		text, _ := cString(body)
		statement = nameOf(text)
	}
	return msg, statement, nil
}

// reply: the server has done all it was sent when it is ready for more.
func (w *postgresWire) reply(in *bufio.Reader) (msg []byte, done bool, err error) {
	msg, err = postgresMessage(in, 1)
	return msg, err == nil && msg[0] == 'Z', err
}

func (w *postgresWire) plain(msg []byte) []byte { return msg }

// postgresMessage reads one message: a type of so many bytes, and its length,
// which counts itself.
func postgresMessage(in *bufio.Reader, kind int) ([]byte, error) {
	head := make([]byte, kind+4)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[kind:])) - 4
	if n < 0 {
		return nil, fmt.Errorf("message of length %d", n)
	}
	msg := make([]byte, len(head)+n)
	copy(msg, head)
	_, err := io.ReadFull(in, msg[len(head):])
	return msg, err
}

func cString(b []byte) (s string, rest []byte) {
	before, after, _ := bytes.Cut(b, []byte{0})
	return string(before), after
}

// mysqlWire is the protocol of MySQL, without TLS and compression.
type mysqlWire struct{ prepared string }

func mysqlWay(t testing.TB, direct, address string) (dial func() (net.Conn, error), through string) {
	t.Helper()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal("the URL of the database cannot be read")
	}
	to := u.Host
	u.Host = address
	return func() (net.Conn, error) { return net.Dial("tcp", to) }, u.String()
}

// Commands of the client.
const (
	comQuery   = 0x03
	comPing    = 0x0e
	comPrepare = 0x16
	comExecute = 0x17
)

// childState is in the statement that locks the state of something in a room.
var childState = regexp.MustCompile(`and kind = ([02-9]|1\d)`)

func (w *mysqlWire) request(in *bufio.Reader) (msg []byte, statement string, err error) {
	msg, err = mysqlPacket(in)
	if err != nil || len(msg) < 5 || msg[3] != 0 {
		return msg, "", err // what is numbered goes on with something, such as the login
	}
	switch text := string(msg[5:]); msg[4] {
	case comQuery:
		statement = nameOf(text)
		if statement == "LockState" && childState.MatchString(text) {
			statement = "LockChild" // as PostgreSQL's statement is called
		}
	case comPrepare:
		w.prepared = text
	case comExecute: // the driver executes what it has just prepared
		statement = nameOf(w.prepared)
	case comPing:
		statement = "ping"
	}
	return msg, statement, nil
}

// reply: the first packet of an answer comes when the server has done it.
func (w *mysqlWire) reply(in *bufio.Reader) (msg []byte, done bool, err error) {
	msg, err = mysqlPacket(in)
	return msg, true, err
}

var unescape = strings.NewReplacer(`\\`, `\`, `\0`, "\x00", `\n`, "\n", `\r`, "\r", `\Z`, "\x1a", `\'`, `'`, `\"`, `"`)

// plain: values stand in the text, escaped.
func (w *mysqlWire) plain(msg []byte) []byte { return []byte(unescape.Replace(string(msg))) }

// mysqlPacket reads what was sent as one: a packet, or several where all but the
// last are as long as can be.
func mysqlPacket(in *bufio.Reader) (msg []byte, err error) {
	const most = 1<<24 - 1
	for n := most; n == most; {
		head := make([]byte, 4) // length and number
		if _, err := io.ReadFull(in, head); err != nil {
			return nil, err
		}
		n = int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		begin := len(msg) + len(head)
		msg = append(append(msg, head...), make([]byte, n)...)
		if _, err := io.ReadFull(in, msg[begin:]); err != nil {
			return nil, err
		}
	}
	return msg, nil
}
