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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
)

// proxy stands between the service and PostgreSQL. It reads the protocol, so a
// trap can stop one connection at the very statement a test means.
type proxy struct {
	url string

	network, address string // of the server
	listener         net.Listener
	wg               sync.WaitGroup

	mu     sync.Mutex
	links  map[*link]struct{}
	traps  []*trap
	closed bool // new connections are refused
	counts map[string]int
}

// newProxy starts a proxy to the server of a database; it ends with the test.
func newProxy(t testing.TB, direct string) *proxy {
	t.Helper()
	to, err := pgconn.ParseConfig(direct)
	if err != nil {
		t.Fatalf("ParseConfig = %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("Listen = %v", err)
	}
	p := &proxy{listener: l, links: make(map[*link]struct{}), counts: make(map[string]int)}
	p.network, p.address = pgconn.NetworkAddress(to.Host, to.Port)
	u := url.URL{Scheme: "postgres", User: url.UserPassword(to.User, to.Password), Host: l.Addr().String(), Path: "/" + to.Database, RawQuery: "sslmode=disable"}
	p.url = u.String()
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.shut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial(p.network, p.address)
	if err != nil {
		return // as if the server itself had refused
	}
	l := &link{proxy: p, client: client, server: server, gone: make(chan struct{}), statements: make(map[string]string)}
	p.mu.Lock()
	refused := p.closed
	if !refused {
		p.links[l] = struct{}{}
	}
	p.mu.Unlock()
	if refused {
		l.cut()
		return
	}
	p.wg.Go(l.replies)
	l.requests()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// shut cuts every connection and refuses new ones until open.
func (p *proxy) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for l := range p.links {
		l.cut()
	}
}

// open lets connections through again.
func (p *proxy) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = false
}

// executed is how often a statement was sent to the server.
func (p *proxy) executed(statement string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[statement]
}

// total is how many statements were sent to the server.
func (p *proxy) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.counts {
		n += c
	}
	return n
}

// moment is where a trap stops a statement.
type moment int

const (
	// beforeSend: the server sees nothing of the statement.
	beforeSend moment = iota
	// halfSent: the server has got the first half of its first message.
	halfSent
	// beforeReply: the server has done it, and its answer is held.
	beforeReply
)

// trap stops the first connection that comes to a statement.
type trap struct {
	when moment
	// of are statements of one transaction; the trap is at the last one.
	of     []string
	sprung chan struct{} // closed when a connection is held
	let    chan struct{} // closed by release
	once   sync.Once

	// Set before sprung is closed.
	link *link
	data []byte // what its transaction has sent so far, parameters included
}

// set lays a trap at a statement, by the name of its query or, for what has
// none, by its first word; sooner statements have to come before it in the same
// transaction.
func (p *proxy) set(when moment, of ...string) *trap {
	tr := &trap{when: when, of: of, sprung: make(chan struct{}), let: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traps = append(p.traps, tr)
	return tr
}

// take returns the trap for a statement, the last one of tx, and removes it.
func (p *proxy) take(tx []string) *trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := tx[len(tx)-1]
	p.counts[last]++
	for i, tr := range p.traps {
		n := len(tr.of) - 1
		missing := func(s string) bool { return !slices.Contains(tx, s) }
		if tr.of[n] == last && !slices.ContainsFunc(tr.of[:n], missing) {
			p.traps = slices.Delete(p.traps, i, i+1)
			return tr
		}
	}
	return nil
}

// await waits until a connection is held.
func (tr *trap) await(t testing.TB) {
	t.Helper()
	select {
	case <-tr.sprung:
	case <-time.After(patience):
		t.Fatalf("nothing came to %v within %s", tr.of, patience)
	}
}

// holds reports whether the held transaction has sent s.
func (tr *trap) holds(s string) bool { return bytes.Contains(tr.data, []byte(s)) }

// release lets the held connection go on.
func (tr *trap) release() { tr.once.Do(func() { close(tr.let) }) }

// cut breaks the held connection. What was not sent never will be.
func (tr *trap) cut() { tr.link.cut() }

// stop holds l here, and reports whether it may go on.
func (tr *trap) stop() bool {
	close(tr.sprung)
	select {
	case <-tr.let:
		return true
	case <-tr.link.gone:
		return false
	}
}

// link is one connection through the proxy.
type link struct {
	proxy          *proxy
	client, server net.Conn
	gone           chan struct{}
	once           sync.Once
	armed          atomic.Pointer[trap] // holds the next reply

	statements map[string]string // prepared ones, by the driver's name for them
	tx         []string          // statements of the transaction under way
	data       []byte            // what it has sent
}

func (l *link) cut() {
	l.once.Do(func() {
		close(l.gone)
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// requests carries what the service sends.
func (l *link) requests() {
	defer l.cut()
	in := bufio.NewReader(l.client)
	start, err := readMessage(in, 0) // neither TLS nor a password is asked for
	if err != nil {
		return
	}
	if _, err := l.server.Write(start); err != nil {
		return
	}
	for {
		msg, err := readMessage(in, 1)
		if err != nil {
			return
		}
		if statement := l.begins(msg); statement != "" {
			if len(l.tx) == 0 || l.tx[0] != "begin" || l.ended() || statement == "begin" {
				l.tx, l.data = nil, nil
			}
			l.tx = append(l.tx, statement)
			l.data = append(l.data, msg...)
			if tr := l.proxy.take(l.tx); tr != nil && !l.stopAt(tr, &msg) {
				return
			}
		}
		if _, err := l.server.Write(msg); err != nil {
			return
		}
	}
}

func (l *link) ended() bool {
	last := l.tx[len(l.tx)-1]
	return last == "commit" || last == "rollback"
}

// stopAt springs a trap at msg, which holds the rest of it afterwards, and
// reports whether to go on.
func (l *link) stopAt(tr *trap, msg *[]byte) bool {
	tr.link, tr.data = l, bytes.Clone(l.data)
	switch tr.when {
	case beforeReply:
		l.armed.Store(tr)
		return true
	case halfSent:
		half := len(*msg) / 2
		if _, err := l.server.Write((*msg)[:half]); err != nil {
			return false
		}
		*msg = (*msg)[half:]
	case beforeSend:
	}
	return tr.stop()
}

// replies carries what the server answers.
func (l *link) replies() {
	defer l.cut()
	in := bufio.NewReader(l.server)
	var held []byte
	for {
		msg, err := readMessage(in, 1)
		if err != nil {
			return
		}
		if tr := l.armed.Load(); tr != nil {
			held = append(held, msg...)
			if msg[0] != 'Z' { // until the server is ready for the next statement
				continue
			}
			l.armed.Store(nil)
			if !tr.stop() {
				return
			}
			msg, held = held, nil
		}
		if _, err := l.client.Write(msg); err != nil {
			return
		}
	}
}

// readMessage reads one message: a type of so many bytes, and its length, which
// counts itself.
func readMessage(in *bufio.Reader, kind int) ([]byte, error) {
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

var queryName = regexp.MustCompile(`^-- name: (\w+)`)

// begins returns the name of the statement whose execution msg begins, if any.
func (l *link) begins(msg []byte) string {
	body := msg[5:]
	switch msg[0] {
	case 'P': // Parse: the name to prepare it under, and the text
		name, rest := cString(body)
		text, _ := cString(rest)
		l.statements[name] = text
	case 'B': // Bind: a portal, and what was prepared
		_, rest := cString(body)
		name, _ := cString(rest)
		return nameOf(l.statements[name])
	case 'Q': // Query: the text
		text, _ := cString(body)
		return nameOf(text)
	}
	return ""
}

func nameOf(sql string) string {
	if m := queryName.FindStringSubmatch(sql); m != nil {
		return m[1]
	}
	word, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	return strings.ToLower(word)
}

func cString(b []byte) (s string, rest []byte) {
	before, after, _ := bytes.Cut(b, []byte{0})
	return string(before), after
}

// patience bounds every single wait; none takes a second on a quiet machine.
const patience = time.Minute

// eventually waits with the package's patience.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	harness.Eventually(t, patience, f)
}
