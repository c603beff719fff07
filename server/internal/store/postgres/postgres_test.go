package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestBehindPooler(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{
		"postgres://u@ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech/db": true,
		"postgres://u@ep-cool-name-123456.eu-central-1.aws.neon.tech/db":        false,
		"postgres://u@aws-0-eu-west-1.pooler.supabase.com:6543/db":              true,
		"postgres://u@aws-0-eu-west-1.pooler.supabase.com:5432/db":              false, // session mode
		"postgres://u@localhost:6432/db":                                        true,
		"postgres://u@localhost/db":                                             false,
	} {
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatalf("ParseConfig = %v", err)
		}
		if got := behindPooler(cfg); got != want {
			t.Errorf("behindPooler(%s) = %t; want %t", url, got, want)
		}
	}
}

// A connection is quiet as long as nothing comes, whoever waits for that.
func TestQuiet(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("Listen = %v", err)
	}
	defer func() { _ = l.Close() }() // there is nothing to flush
	pair := func() (client, server net.Conn) {
		var d net.Dialer
		client, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err == nil {
			server, err = l.Accept()
		}
		if err != nil {
			t.Fatalf("connect = %v", err)
		}
		t.Cleanup(func() { _, _ = client.Close(), server.Close() }) // may be closed already
		return client, server
	}
	for what, end := range map[string]func(client, server net.Conn) error{
		"the server wrote":  func(_, server net.Conn) error { _, err := server.Write([]byte{1}); return err },
		"the server closed": func(_, server net.Conn) error { return server.Close() },
		"the client closed": func(client, _ net.Conn) error { return client.Close() },
	} {
		client, server := pair()
		if !quiet(client) {
			t.Errorf("quiet = false before %s", what)
		}
		if err := end(client, server); err != nil {
			t.Fatalf("%s = %v", what, err)
		}
		for quiet(client) { // until the system has passed it on
			runtime.Gosched()
		}
	}
	// pgx leaves a Read behind after a slow write.
	client, server := pair()
	begun, reading := make(chan struct{}), make(chan error)
	go func() {
		close(begun)
		_, err := client.Read(make([]byte, 1))
		reading <- err
	}()
	<-begun
	for range 1000 {
		if !quiet(client) {
			t.Fatal("quiet = false while somebody reads")
		}
		runtime.Gosched()
	}
	if _, err := server.Write([]byte{1}); err != nil {
		t.Fatalf("Write = %v", err)
	}
	if err := <-reading; err != nil {
		t.Fatalf("Read = %v", err)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	server := func(code string) error { return fmt.Errorf("do: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		err    error
		reason fault.Reason
	}{
		{server("08006"), fault.ReasonStoreUnavailable},
		{server("25006"), fault.ReasonStoreUnavailable}, // a replica after a failover
		{server("40001"), fault.ReasonStoreUnavailable},
		{server("53300"), fault.ReasonStoreUnavailable},
		{server("57P01"), fault.ReasonStoreUnavailable},
		{server("57P03"), fault.ReasonStoreUnavailable},
		{server("58030"), fault.ReasonStoreUnavailable},
		{server("42P01"), fault.ReasonSchemaBehind},
		{server("42703"), fault.ReasonSchemaBehind},
		{server("42601"), fault.ReasonInternal},
		{server("23502"), fault.ReasonInternal},
		{server(""), fault.ReasonInternal},
		{errors.New("connection reset by peer"), fault.ReasonStoreUnavailable},
	} {
		if got := fault.Of(classify(t.Context(), c.err)).Reason; got != c.reason {
			t.Errorf("classify(%v) has reason %s; want %s", c.err, got, c.reason)
		}
	}
	if err := classify(t.Context(), nil); err != nil {
		t.Errorf("classify(nil) = %v; want nil", err)
	}
	if err := classify(t.Context(), server("42P01")); !errors.Is(err, store.ErrSchemaBehind) ||
		fault.Of(err).Kind != fault.Unavailable {
		t.Errorf("classify of a missing table = %v; want %v", err, store.ErrSchemaBehind)
	}
	if err := classify(t.Context(), fmt.Errorf("do: %w", pgx.ErrNoRows)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("classify of no rows = %v; want %v", err, store.ErrNotFound)
	}
	for _, sentinel := range []error{store.ErrLeaseLost, store.ErrEpochChanged, store.ErrNotDue, store.ErrNotFound} {
		if err := classify(t.Context(), fmt.Errorf("do: %w", sentinel)); !errors.Is(err, sentinel) ||
			fault.Of(err).Kind != fault.Internal {
			t.Errorf("classify(%v) = %v; want it as it was", sentinel, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := classify(ctx, context.Canceled); !errors.Is(err, context.Canceled) ||
		fault.Of(err).Kind == fault.Unavailable {
		t.Errorf("classify of the caller's own cancellation = %v; want it as it was", err)
	}
}

func TestRetryEnds(t *testing.T) {
	t.Parallel()
	deadlock := &pgconn.PgError{Code: "40P01"}
	for _, c := range []struct {
		what  string
		errs  []error
		runs  int
		final error
	}{
		{"success", []error{nil}, 1, nil},
		{"deadlock once", []error{deadlock, nil}, 2, nil},
		{"deadlock for ever", nil, txAttempts, deadlock},
		{"lease lost", []error{store.ErrLeaseLost}, 1, store.ErrLeaseLost},
		{"deadlock, then lease lost", []error{deadlock, store.ErrLeaseLost}, 2, store.ErrLeaseLost},
	} {
		runs := 0
		err := retry(t.Context(), func() error {
			runs++
			if runs > len(c.errs) {
				return deadlock
			}
			return c.errs[runs-1]
		})
		if runs != c.runs || !errors.Is(err, c.final) {
			t.Errorf("%s: %d runs, %v; want %d, %v", c.what, runs, err, c.runs, c.final)
		}
	}
	if n := store.Retries()["40P01"]; n < txAttempts { // two of them once, and one to the last attempt
		t.Errorf("%d retries after deadlocks are counted; want all of them", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	if err := retry(ctx, func() error { runs++; cancel(); return deadlock }); runs != 1 || !errors.Is(err, deadlock) {
		t.Errorf("retry of a cancelled call = %v after %d runs; want 1", err, runs)
	}
}

// Each starter makes the views after it has given the lock of the migrations
// back.
func TestViewsAtOnce(t *testing.T) {
	t.Parallel()
	url, log := pgtest.Database(t), slog.New(slog.DiscardHandler)
	if err := Migrate(t.Context(), url, log); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	conns := make([]*pgx.Conn, 8)
	for i := range conns {
		var err error
		if conns[i], err = pgx.Connect(t.Context(), url); err != nil {
			t.Fatalf("Connect = %v", err)
		}
		t.Cleanup(func() { _ = conns[i].Close(context.Background()) })
	}
	for range 10 {
		if _, err := conns[0].Exec(t.Context(), "drop view liveblocks_documents"); err != nil {
			t.Fatalf("drop view = %v", err)
		}
		errs := make([]error, len(conns))
		var wg sync.WaitGroup
		for i, conn := range conns {
			wg.Go(func() { errs[i] = ensureViews(t.Context(), conn, log) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				t.Fatalf("ensureViews = %v; want no error", err)
			}
		}
	}
}
