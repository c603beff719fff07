package mysql_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// trouble is what happens to the next commit, or to the next statement with the text at.
type trouble int32

const (
	none       trouble = iota
	cutBefore          // the connection breaks, and the server never gets it
	cutAfter           // the server has done it, and the answer is lost
	loses              // the server rolls back, and answers that another transaction was first
	unanswered         // nothing comes back
)

// proxy stands between a store and its server.
type proxy struct {
	listener net.Listener
	to       string
	next     atomic.Int32
	at       string // empty: a commit
	// swallowed is closed when a commit gets no answer.
	swallowed chan struct{}
	wg        sync.WaitGroup
	mu        sync.Mutex
	conns     []net.Conn
}

// startProxy returns a proxy and the URL that leads through it.
func startProxy(t *testing.T, to string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("Listen = %v", err)
	}
	p := &proxy{listener: l, to: u.Host, swallowed: make(chan struct{})}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(context.Background(), "tcp", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		var now atomic.Int32
		p.wg.Go(func() { p.requests(client, server, &now) })
		p.wg.Go(func() { p.answers(client, server, &now) })
	}
}

func query(text string) []byte {
	b := append([]byte{0, 0, 0, 0, 3}, text...)
	b[0] = byte(len(text) + 1)
	return b
}

// requests passes on what the client sends, packet by packet.
func (p *proxy) requests(client, server net.Conn, now *atomic.Int32) {
	defer client.Close()
	defer server.Close()
	for {
		var head [4]byte // the length in three bytes, and a number
		if _, err := io.ReadFull(client, head[:]); err != nil {
			return
		}
		n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		packet := make([]byte, 4+n)
		copy(packet, head[:])
		if _, err := io.ReadFull(client, packet[4:]); err != nil {
			return
		}
		if p.at == "" && bytes.Equal(packet, query("commit")) || p.at != "" && bytes.Contains(packet, []byte(p.at)) {
			what := trouble(p.next.Swap(int32(none)))
			now.Store(int32(what))
			switch what {
			case cutBefore:
				return
			case loses:
				packet = query("rollback")
			case unanswered:
				close(p.swallowed)
				continue
			default:
			}
		}
		if _, err := server.Write(packet); err != nil {
			return
		}
	}
}

// answers passes on what the server sends.
func (p *proxy) answers(client, server net.Conn, now *atomic.Int32) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		answer := buf[:n]
		switch trouble(now.Swap(int32(none))) {
		case cutAfter:
			return
		case loses:
			answer = binary.LittleEndian.AppendUint16([]byte{0, 0, 0, 1, 0xff}, 1213)
			answer = append(answer, "#40001another was first"...)
			answer[0] = byte(len(answer) - 4)
		default:
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
}

func delivery(id string, now time.Time) mirror.Delivery {
	return mirror.Delivery{
		Event: mirror.Event{Project: "default", ID: id, ReceiveTime: now, SendTime: now},
		Invalidations: []mirror.Invalidation{{Resource: mirror.Resource{
			Project: "default", Room: "room",
			Kind: mirror.KindRoom,
		}}},
	}
}

// A commit whose end is not known is never told as a success, and the sender's
// next attempt finds out what became of it.
func TestCommitCut(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for what, want := range map[trouble]bool{cutBefore: true, cutAfter: false} {
		p, through := startProxy(t, dbtest.MySQL.Database(t))
		s := open(t, mysql.Config{URL: through})
		if err := s.Ping(t.Context()); err != nil {
			t.Fatalf("Ping = %v", err)
		}
		p.next.Store(int32(what))
		_, err := storetest.Accept(t.Context(), s, []mirror.Delivery{delivery("msg", now)})
		if f := fault.Of(err); f.Kind != fault.Unavailable || f.Reason != fault.ReasonStoreUnavailable {
			t.Fatalf("Accept with its commit cut = %v; want the store unavailable", err)
		}
		got, err := s.Accept(t.Context(), []mirror.Delivery{delivery("msg", now)})
		if err != nil || got[0].Fresh != want || len(got[0].Pending) != 1 || got[0].Pending[0].Generation != 1 {
			t.Fatalf("Accept of the same again = %+v, %v; want fresh = %t, and generation 1", got, err, want)
		}
	}
}

// On Galera a transaction loses against one on another node as late as that.
func TestCommitLoses(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p, through := startProxy(t, dbtest.MySQL.Database(t))
	s := open(t, mysql.Config{URL: through})
	p.next.Store(int32(loses))
	got, err := s.Accept(t.Context(), []mirror.Delivery{delivery("msg", now)})
	if err != nil || !got[0].Fresh || got[0].Pending[0].Generation != 1 {
		t.Fatalf("Accept that loses once = %+v, %v; want it run again", got, err)
	}
	lease, err := s.Claim(t.Context(), mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom},
		[16]byte{1}, now, time.Minute)
	if err != nil {
		t.Fatalf("Claim = %v", err)
	}
	p.next.Store(int32(loses))
	applied, err := s.ApplyRoom(t.Context(), lease,
		mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now}, now, 0)
	if err != nil || !applied.Changed || len(applied.AlsoDue) != len(mirror.RoomKinds()) {
		t.Fatalf("ApplyRoom that loses once = %+v, %v; want it run again", applied, err)
	}
	entries, err := s.Changes(t.Context(), []store.ChangeRange{{Bucket: lease.Resource.Bucket(), To: 10}})
	if err != nil || len(entries) != 1 || entries[0].Number != 1 {
		t.Fatalf("Changes = %+v, %v; want one, with number 1", entries, err)
	}
}

// A deadlock has rolled the transaction back, so what follows in it would stay by itself: states
// of items that are not stored, and that the next run would take for known.
func TestNothingFollowsADeadlock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, at := range []string{"insert into mirror_feed_head", "from mirror_feed_head", "insert into mirror_change"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			p, through := startProxy(t, dbtest.MySQL.Database(t))
			p.at = at
			s := open(t, mysql.Config{URL: through})
			groups := mirror.Resource{Project: "default", Kind: mirror.KindGroup} // the list
			_, err := s.Request(t.Context(), []mirror.Request{{Resource: groups}}, now)
			var lease mirror.Lease
			if err == nil {
				lease, err = s.Claim(t.Context(), groups, [16]byte{1}, now, time.Minute)
			}
			if err != nil {
				t.Fatalf("Claim = %v", err)
			}
			p.next.Store(int32(loses))
			var items []store.Item
			var ids []mirror.Resource
			for _, id := range []string{"a", "b"} {
				items = append(items, store.GroupItem(mirror.Group{ID: id, Source: []byte(`{}`)}))
				ids = append(ids, mirror.Resource{Project: "default", Kind: mirror.KindGroup, ID: id})
			}
			changes, err := s.AddItems(t.Context(), lease, items, now, now)
			if err != nil || len(changes) != 2 || p.next.Load() != int32(none) {
				t.Fatalf("AddItems that loses once = %+v, %v; want both added", changes, err)
			}
			stored, err := s.GroupsByID(t.Context(), "default", ids)
			if err != nil || len(stored) != 2 {
				t.Fatalf("GroupsByID = %+v, %v; want both", stored, err)
			}
		})
	}
}

func TestCommitUnanswered(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p, through := startProxy(t, dbtest.MySQL.Database(t))
	s := open(t, mysql.Config{URL: through, MaxConns: 1})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v", err)
	}
	p.next.Store(int32(unanswered))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // if no commit is sent
	defer cancel()
	left := make(chan time.Time, 1)
	go func() {
		select {
		case <-p.swallowed:
			left <- time.Now()
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err := s.Accept(ctx, []mirror.Delivery{delivery("msg", now)})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Accept without an answer to its commit = %v; want it to end with its caller", err)
	}
	if took := time.Since(<-left); took > 9*time.Second { // the server ends the transaction after 10 s at the earliest
		t.Fatalf("Accept without an answer to its commit went on for %v without its caller", took)
	}
	// And the one connection is not lost with it.
	got, err := s.Accept(t.Context(), []mirror.Delivery{delivery("msg", now)})
	if err != nil || !got[0].Fresh {
		t.Fatalf("Accept after that = %+v, %v; want it fresh: the server never got the commit", got, err)
	}
}

// What is too large for one packet ends the connection on which it is sent, so it
// is never sent.
func TestPacketsOfTheServer(t *testing.T) {
	t.Parallel()
	server := mysqltest.Start(t, mysqltest.Options{Settings: map[string]string{"max_allowed_packet": "1M"}})
	to := server.Database(t, "packets")
	if err := mysql.Migrate(t.Context(), to, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	s := open(t, mysql.Config{URL: to, MaxConns: 1})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
	storage := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindStorage}
	db := mysqltest.Connect(t, to)

	claim := func(r mirror.Resource) mirror.Lease {
		t.Helper()
		_, err := s.Request(t.Context(), []mirror.Request{{Resource: r}}, now)
		var lease mirror.Lease
		if err == nil {
			lease, err = s.Claim(t.Context(), r, [16]byte{1}, now, time.Minute)
		}
		if err != nil {
			t.Fatalf("Claim = %v", err)
		}
		return lease
	}
	problem := func(table string) string {
		t.Helper()
		return value[string](t, db, "select if(data is null, data_problem, 'there is data') from "+table)
	}
	if _, err := s.ApplyRoom(t.Context(), claim(room),
		mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now}, now, 0); err != nil {
		t.Fatalf("ApplyRoom = %v", err)
	}
	apply := func(content, data []byte) error {
		t.Helper()
		lease := claim(storage)
		_, err := s.ApplyDocument(t.Context(), lease,
			mirror.DocumentContent{FetchTime: now, Content: content, DeriveVersion: 1, Data: data}, now, 0)
		if err != nil {
			// The lease is still held, and can be given back.
			if _, err := s.Fail(t.Context(), lease, store.Failure{Now: now, Final: true, Cause: "too large"}); err != nil {
				t.Fatalf("Fail = %v", err)
			}
		}
		return err
	}
	noise := make([]byte, 2<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(noise) // never fails

	small, large := []byte(`{"a":"`+strings.Repeat("x", 1000)+`"}`), []byte(`{"a":"`+strings.Repeat("x", 1<<20)+`"}`)
	quotes := []byte(`["` + strings.Repeat(`","`, 300_000) + `"]`) // fits, but for what escapes it
	for _, c := range []struct {
		what          string
		content, data []byte
		problem       string
	}{
		{"small data", small, small, "there is data"},
		{"large data", large, large, "with the document larger than one packet of the database (max_allowed_packet)"},
		{
			"data that escapes make large", noise[:1000], quotes,
			"with the document larger than one packet of the database (max_allowed_packet)",
		},
		{"large content", noise[:900<<10], small, "there is data"},
	} {
		if err := apply(c.content, c.data); err != nil {
			t.Fatalf("ApplyDocument with %s = %v", c.what, err)
		}
		if got := problem("mirror_document"); got != c.problem {
			t.Fatalf("problem with %s = %q; want %q", c.what, got, c.problem)
		}
		doc, err := s.Document(t.Context(), storage, false)
		if err != nil || !bytes.Equal(doc.Content, c.content) {
			t.Fatalf("document with %s = %d bytes, %v; want its content", c.what, len(doc.Content), err)
		}
	}
	err := apply(noise, nil)
	if f := fault.Of(err); f.Kind != fault.Precondition || f.Reason != fault.ReasonDocumentTooLarge {
		t.Fatalf("ApplyDocument of 2 MiB = %v; want it too large", err)
	}
	if task, err := s.Task(t.Context(), storage, now); err != nil || task.State != mirror.TaskFailed {
		t.Fatalf("task = %+v, %v; want it failed", task, err)
	}
	source := mirror.RoomContent{FetchTime: now, Source: quotes[:700_000], CreateTime: now}
	if _, err := s.ApplyRoom(t.Context(), claim(room), source, now,
		0); fault.Of(err).Reason != fault.ReasonDocumentTooLarge {
		t.Fatalf("ApplyRoom of a source that escapes make too large = %v; want it refused", err)
	}

	// Events come as they are: a batch in several packets, and one that would not
	// fit into a statement apart from it.
	var batch []mirror.Delivery
	for i, payload := range [][]byte{
		noise[:600_000], noise[600_000:1_200_000], bytes.Repeat([]byte{0}, 800_000),
		[]byte("small"),
	} {
		a := delivery(fmt.Sprintf("msg_%d", i), now)
		a.Event.Payload = payload
		batch = append(batch, a)
	}
	if _, err := s.Accept(t.Context(), batch); err != nil {
		t.Fatalf("Accept = %v", err)
	}
	for _, a := range batch {
		got, err := s.Event(t.Context(), "default", a.Event.ID)
		if err != nil || !bytes.Equal(got.Payload, a.Event.Payload) {
			t.Fatalf("event %s = %d bytes, %v; want %d", a.Event.ID, len(got.Payload), err, len(a.Event.Payload))
		}
	}
	var name string
	var aborted int
	if err := db.QueryRowContext(t.Context(), "show global status like 'Aborted_clients'").Scan(&name,
		&aborted); err != nil || aborted != 0 {
		t.Fatalf("%s = %d, %v; want no connection ended by the server", name, aborted, err)
	}
}
