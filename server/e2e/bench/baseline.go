package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// baselineConfig is what the process of a baseline is told.
type baselineConfig struct {
	// Mode says what is done with a verified delivery: "group" records it in a
	// commit that many share, "single" in one of its own, and "recipe" fetches and
	// writes the document as the Liveblocks guides do.
	Mode        string
	DatabaseURL string
	// MaxConns bounds the connections to the database.
	MaxConns int
	// Upstream is where the fake Liveblocks is.
	Upstream string
}

// baseline is the least that can be done with a webhook: net/http's server with
// one handler, which verifies and writes.
type baseline struct {
	verifier *webhook.Verifier
	db       database
	take     func(context.Context, *mirror.Event) error

	queue    chan *waiting // of mode group
	upstream string        // of mode recipe
	client   *http.Client
}

func runBaseline(ctx context.Context, cfg baselineConfig) error {
	verifier, err := webhook.NewVerifier([]webhook.Secret{{Project: project, Secret: secret}}, 5*time.Minute)
	if err != nil {
		return err
	}
	db, err := connect(ctx, cfg.DatabaseURL, cfg.MaxConns)
	if err != nil {
		return err
	}
	defer db.close()
	b := &baseline{
		verifier: verifier, db: db, upstream: cfg.Upstream,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 128}},
	}
	switch cfg.Mode {
	case "group":
		b.queue = make(chan *waiting, maxBatch)
		b.take = b.group
		go b.commit(ctx) // ends with the process
	case "single":
		b.take = b.single
	case "recipe":
		b.take = b.recipe
	default:
		return fmt.Errorf("no baseline is called %q", cfg.Mode)
	}
	return serve(ctx, b)
}

func (b *baseline) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "cannot read the body", http.StatusBadRequest)
		return
	}
	now := time.Now()
	h := webhook.Headers{
		ID:        r.Header.Get("Webhook-Id"),
		Timestamp: r.Header.Get("Webhook-Timestamp"),
		Signature: r.Header.Get("Webhook-Signature"),
	}
	verified, err := b.verifier.Verify(project, h, body, now)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	a := webhook.Decode(project, h.ID, body, verified.SendTime, now)
	if err := b.take(r.Context(), &a.Event); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (b *baseline) single(ctx context.Context, ev *mirror.Event) error {
	return b.db.exec(ctx, b.db.insertEvent, eventRow(ev)...)
}

// maxBatch is the service's, so that commits are of one size.
const maxBatch = 512

// waiting is a delivery that waits for its commit.
type waiting struct {
	event *mirror.Event
	done  chan error
}

func (b *baseline) group(_ context.Context, ev *mirror.Event) error {
	w := &waiting{event: ev, done: make(chan error, 1)}
	b.queue <- w
	return <-w.done
}

// commit writes whatever has gathered while the commit before was under way.
func (b *baseline) commit(ctx context.Context) {
	var batch []*waiting
	var events []*mirror.Event
	for first := range b.queue {
		batch, events = append(batch[:0], first), append(events[:0], first.event)
	gather:
		for len(batch) < maxBatch {
			select {
			case w := <-b.queue:
				batch, events = append(batch, w), append(events, w.event)
			default:
				break gather
			}
		}
		err := b.db.record(ctx, events)
		for _, w := range batch {
			w.done <- err
		}
	}
}

// recipe is what the guides do: fetch the document, write it, answer.
func (b *baseline) recipe(ctx context.Context, ev *mirror.Event) error {
	var payload struct {
		Type string
		Data struct{ RoomID string }
	}
	if err := json.Unmarshal(ev.Payload, &payload); err != nil {
		return err
	}
	if payload.Type != "storageUpdated" {
		return nil
	}
	u := b.upstream + "/v2/rooms/" + url.PathEscape(payload.Data.RoomID) + "/storage?format=json"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer sk_bench")
	resp, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	document, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New("fetch: " + resp.Status)
	}
	return b.db.exec(ctx, b.db.guideUpsert, payload.Data.RoomID, document)
}
