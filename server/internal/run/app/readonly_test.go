package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// A service that starts while its database takes no writes, as during a failover,
// lives and is not ready. It goes on by itself once writes are taken, and does then
// what it would have done at the start.
func TestStartOnADatabaseThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		g := e.Guarded(t)
		upstream := fake.New(apiKey)
		api := httptest.NewServer(upstream)
		t.Cleanup(api.Close)
		const document = `{"liveblocksType":"LiveObject","data":{"v":1}}`
		if err := upstream.CreateRoom("room", fake.RoomOptions{Storage: []byte(document)}); err != nil {
			t.Fatal(err)
		}
		cfg := config.Defaults()
		cfg.DatabaseURL, cfg.DatabaseMaxConns, cfg.Migrate = config.NewSecret(g.URL), 8, true
		cfg.HTTPAddr, cfg.GRPCAddr = "127.0.0.1:0", "127.0.0.1:0"
		cfg.ReadyFile = filepath.Join(t.TempDir(), "ready.json")
		cfg.SecretKey, cfg.BaseURL = config.NewSecret(apiKey), api.URL
		cfg.WebhookSecret = []config.Secret{config.NewSecret(secret)}

		g.Refuse(true)
		a, err := app.New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("New on a database that takes no writes = %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Serve(ctx) }() // awaited below
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Errorf("Serve = %v", err)
			}
		}()
		client := &http.Client{Timeout: patience}
		t.Cleanup(client.CloseIdleConnections)
		get := func(path string, status int, contains string) error {
			resp, err := client.Get("http://" + a.Addresses().HTTPAddr + path)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err == nil && (resp.StatusCode != status || !strings.Contains(string(body), contains)) {
				err = fmt.Errorf("%s = %d %s; want %d and %q in it", path, resp.StatusCode, body, status, contains)
			}
			return err
		}
		event := fake.Event{Type: fake.StorageUpdated, RoomID: "room", Time: time.Now()}
		url := "http://" + a.Addresses().HTTPAddr + "/api/liveblocks-webhook"
		eventually(t, func() error {
			return get("/readyz", http.StatusServiceUnavailable, "the database takes no writes")
		})
		if status := deliver(t, client, url, event); status != http.StatusServiceUnavailable {
			t.Fatalf("a delivery was answered %d; want 503", status)
		}
		if err := get("/healthz", http.StatusOK, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(cfg.ReadyFile); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("ready file = %v; want none", err)
		}

		g.Refuse(false)
		eventually(t, func() error { return get("/readyz", http.StatusOK, "") })
		eventually(t, func() error { _, err := os.Stat(cfg.ReadyFile); return err })
		if status := deliver(t, client, url, event); status != http.StatusOK {
			t.Fatalf("a delivery was answered %d; want 200", status)
		}
		eventually(t, func() error {
			return get("/v1/rooms/room/storage:read?format=plain-lson", http.StatusOK, document)
		})
		db := e.Connect(t, g.URL)
		eventually(t, func() error {
			n, err := dbtest.Value[int](t.Context(), db, "select count(*) from mirror_sweep")
			if err == nil && n != 1 {
				err = errors.New("no sweep is planned")
			}
			return err
		})
	})
}

// The command says at once where it has to be run instead.
func TestMigrateOfADatabaseThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		g := e.Guarded(t)
		g.Refuse(true)
		cfg := config.Defaults()
		cfg.DatabaseURL = config.NewSecret(g.URL)
		err := app.Migrate(t.Context(), cfg.Database, cfg.Roles, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "takes no writes") || !strings.Contains(err.Error(), "primary") {
			t.Fatalf("Migrate = %v; want it to name the primary", err)
		}
	})
}
