package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

const (
	apiKey = "sk_test_app"
	secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	// patience bounds what takes milliseconds on a quiet machine.
	patience = time.Minute
)

// eventually calls f until it returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	within(t, patience, f)
}

// within calls f until it returns nil, and fails the test after the limit.
func within(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.After(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %s: %v", limit, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Run leaves no goroutine behind. The end-to-end tests run the service as a process,
// without the race detector; here it is watched while it does something of everything.
func TestRunLeavesNoGoroutine(t *testing.T) { //nolint:paralleltest // other tests' goroutines come and go
	for _, e := range dbtest.Engines() { //nolint:paralleltest // so do those of another service
		t.Run(e.Name, func(t *testing.T) {
			upstream := fake.New(apiKey)
			api := httptest.NewServer(upstream)
			t.Cleanup(api.Close)
			cfg := config.Defaults()
			cfg.DatabaseURL, cfg.DatabaseMaxConns = config.NewSecret(e.Database(t)), 8
			cfg.HTTPAddr, cfg.GRPCAddr, cfg.WebhookAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
			cfg.ReadyFile = filepath.Join(t.TempDir(), "ready.json")
			cfg.SecretKey, cfg.BaseURL = config.NewSecret(apiKey), api.URL
			cfg.WebhookSecret = []config.Secret{config.NewSecret(secret)}
			cfg.Ack, cfg.Settle, cfg.Sweep, cfg.FullSweep = "synced", 50*time.Millisecond, 0, 0
			cfg.StopGrace = 10 * time.Second
			before := goleak.IgnoreCurrent()

			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- app.Run(ctx, cfg, "test", slog.New(slog.DiscardHandler)) }() // awaited below
			var addrs app.Ready
			eventually(t, func() error {
				b, err := os.ReadFile(cfg.ReadyFile)
				if err != nil {
					return err
				}
				return json.Unmarshal(b, &addrs)
			})

			// A delivery and its fetch, a read over HTTP and two over gRPC.
			const document = `{"liveblocksType":"LiveObject","data":{"v":1}}`
			if err := upstream.CreateRoom("room", fake.RoomOptions{Storage: []byte(document)}); err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{}
			client := &http.Client{Transport: transport, Timeout: patience}
			if status := deliver(t, client, "http://"+addrs.WebhookAddr+"/api/liveblocks-webhook",
				fake.Event{Type: fake.RoomCreated, RoomID: "room", Time: time.Now()}); status != http.StatusOK {
				t.Fatalf("the delivery was answered with %d; want 200", status)
			}
			resp, err := client.Get("http://" + addrs.HTTPAddr + "/v1/rooms/room/storage:read?format=plain-lson")
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != document {
				t.Errorf("document = %s, %v", body, err)
			}
			_ = resp.Body.Close()
			conn, err := grpc.NewClient(addrs.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			mirror := mirrorv1.NewMirrorServiceClient(conn)
			if _, err := mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{
				RoomId: "room", MaxAge: durationpb.New(0),
				RequireFresh: true,
			}); err != nil {
				t.Error(err)
			}
			stream, err := mirror.ReadDocument(ctx, &mirrorv1.ReadDocumentRequest{RoomId: "room"})
			for err == nil {
				_, err = stream.Recv()
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("ReadDocument = %v", err)
			}

			stop()
			if err := <-ended; err != nil {
				t.Errorf("Run = %v; want nil", err)
			}
			// Ours, not the service's.
			transport.CloseIdleConnections()
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			// None is known to stay. The fake's side of a connection ends when it reads that the
			// service's has, so there may be a moment to wait.
			eventually(t, func() error { return goleak.Find(before) })
		})
	}
}

// deliver posts the signed webhook of an event and returns the status of the answer.
func deliver(t *testing.T, client *http.Client, url string, ev fake.Event) int {
	t.Helper()
	return deliverAs(t, client, url, "msg_1", ev)
}

// deliverAs is deliver with an id for the delivery.
func deliverAs(t *testing.T, client *http.Client, url, id string, ev fake.Event) int {
	t.Helper()
	now, body := time.Now(), fake.Payload(ev, "605a50b01a36d5ea7a2e9104")
	signature, err := webhook.Sign(secret, id, now, body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)}, "Webhook-Signature": {signature},
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
