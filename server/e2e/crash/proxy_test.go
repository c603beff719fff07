package crash_test

import (
	"bufio"
	"bytes"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
)

// proxy stands between the service and the database server. It reads the
// protocol, so a trap can stop one connection at the very statement a test means.
// In front of several servers it does what a load balancer would: it sends
// connections to one for as long as that takes them, and then to the next.
type proxy struct {
	t      testing.TB
	url    string
	pooled bool // there is a pooler behind it

	newWire  func() wire
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	servers []func() (net.Conn, error) // ways to them; the first is the one in use
	links   map[*link]struct{}
	traps   []*trap
	closed  bool // new connections are refused
	counts  map[string]int
}

// newProxy starts a proxy to the server of a database, or to several that have
// the same one; it ends with the test.
func newProxy(t testing.TB, e *dbtest.Engine, direct ...string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("Listen = %v", err)
	}
	p := &proxy{t: t, newWire: wordsOf[e].wire, listener: l, links: make(map[*link]struct{}), counts: make(map[string]int)}
	for _, to := range direct {
		if e == dbtest.Postgres && len(direct) == 1 { // a pooler takes connections while its server is dead
			to, p.pooled = pgtest.Front(t, to)
		}
		dial, through := wordsOf[e].way(t, to, l.Addr().String())
		if p.pooled {
			through += "&pgbouncer=true"
		}
		p.servers, p.url = append(p.servers, dial), through
	}
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
	server, err := p.dial()
	if err != nil {
		p.t.Logf("no server takes a connection: %v", err)
		return // as if the server itself had refused
	}
	l := &link{proxy: p, client: client, server: server, wire: p.newWire(), gone: make(chan struct{})}
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

// dial connects to the first server that takes connections, which becomes the one
// in use.
func (p *proxy) dial() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for range p.servers {
		var conn net.Conn
		if conn, err = p.servers[0](); err == nil {
			return conn, nil
		}
		p.servers = append(p.servers[1:], p.servers[0])
	}
	return nil, err
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
	n := 0
	for name, c := range p.counts {
		if is(name, statement) {
			n += c
		}
	}
	return n
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
	tx   []string // what its transaction has sent so far
	data []byte   // the same, parameters included
	// reply is the held one.
	reply []byte
}

// set lays a trap at a statement, by the name of its query or, for what has
// none, by its first words; sooner statements have to come before it in the same
// transaction. A statement that is a transaction by itself is its own commit.
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
		of := tr.of
		if n := len(of) - 1; n > 0 && of[n] == "commit" && tx[0] != "begin" {
			of = of[:n]
		}
		n := len(of) - 1
		missing := func(of string) bool {
			return !slices.ContainsFunc(tx, func(name string) bool { return is(name, of) })
		}
		if is(last, of[n]) && !slices.ContainsFunc(of[:n], missing) {
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
	wire           wire
	gone           chan struct{}
	once           sync.Once
	armed          atomic.Pointer[trap] // holds the next reply

	tx   []string // statements of the transaction under way
	data []byte   // what it has sent
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
	for {
		msg, statement, err := l.wire.request(in)
		if err != nil {
			return
		}
		if statement != "" {
			if len(l.tx) == 0 || l.tx[0] != "begin" || l.ended() || statement == "begin" {
				l.tx, l.data = nil, nil
			}
			l.tx = append(l.tx, statement)
			l.data = append(l.data, l.wire.plain(msg)...)
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
	tr.link, tr.tx, tr.data = l, slices.Clone(l.tx), bytes.Clone(l.data)
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
		msg, done, err := l.wire.reply(in)
		if err != nil {
			return
		}
		if tr := l.armed.Load(); tr != nil {
			held = append(held, msg...)
			if !done {
				continue
			}
			l.armed.Store(nil)
			tr.reply = held
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

// patience bounds every single wait; none takes a second on a quiet machine.
const patience = time.Minute

// eventually waits with the package's patience.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	harness.Eventually(t, patience, f)
}
