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

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/webhook"
)

// baselineConfig is what the process of a baseline is told.
type baselineConfig struct {
	// Mode says what is done with a verified delivery: "group" records it in a
	// commit that many share, "single" in one of its own, and "recipe" fetches and
	// writes the document as the Liveblocks guides do.
	Mode        string
	DatabaseURL string
	// MaxConns bounds the connections to the database.
	MaxConns int32
	// Upstream is where the fake Liveblocks is.
	Upstream string
}

// baseline is the least that can be done with a webhook: net/http's server with
// one handler, which verifies and writes.
type baseline struct {
	verifier *webhook.Verifier
	db       *pgxpool.Pool
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
	pc, err := pgxpool.ParseConfig(cfg.DatabaseURL)
	if err != nil {
		return err
	}
	pc.MaxConns = cfg.MaxConns
	db, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return err
	}
	defer db.Close()
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
	_, sent, err := b.verifier.Verify(project, h, body, now)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	a := webhook.Decode(project, h.ID, body, sent, now)
	if err := b.take(r.Context(), &a.Event); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// The row of the ledger that the service writes, and no other.
const (
	insertSQL = `insert into mirror_event (
    bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id,
    payload, send_time, receive_time, source_time, outcome)
`
	singleSQL = insertSQL + `values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict do nothing`
	recordSQL = insertSQL + `select
    unnest($1::smallint[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]), unnest($6::text[]),
    unnest($7::text[]), unnest($8::bytea[]), unnest($9::timestamptz[]), unnest($10::timestamptz[]), unnest($11::timestamptz[]), unnest($12::text[])
on conflict do nothing`
)

func (b *baseline) single(ctx context.Context, ev *mirror.Event) error {
	_, err := b.db.Exec(ctx, singleSQL, mirror.Bucket(ev.Project, ev.ID), string(ev.Project), ev.ID, ev.Type, string(ev.Room), ev.User,
		ev.LiveblocksProject, ev.Payload, ev.SendTime, ev.ReceiveTime, ev.SourceTime, string(ev.Outcome))
	return err
}

func (b *baseline) record(ctx context.Context, events []*mirror.Event) error {
	n := len(events)
	var (
		bucket                                                     = make([]int16, n)
		projects, id, typ, room, user, liveblocksProjects, outcome = make([]string, n), make([]string, n), make([]string, n),
			make([]string, n), make([]string, n), make([]string, n), make([]string, n)
		payload                = make([][]byte, n)
		sent, received, source = make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
	)
	for i, ev := range events {
		bucket[i] = mirror.Bucket(ev.Project, ev.ID)
		projects[i], id[i], typ[i], room[i], user[i] = string(ev.Project), ev.ID, ev.Type, string(ev.Room), ev.User
		liveblocksProjects[i], payload[i], outcome[i] = ev.LiveblocksProject, ev.Payload, string(ev.Outcome)
		sent[i], received[i], source[i] = ev.SendTime, ev.ReceiveTime, ev.SourceTime
	}
	_, err := b.db.Exec(ctx, recordSQL, bucket, projects, id, typ, room, user, liveblocksProjects, payload, sent, received, source, outcome)
	return err
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
		err := b.record(ctx, events)
		for _, w := range batch {
			w.done <- err
		}
	}
}

// guideTable is the table of the Liveblocks guides.
const guideTable = `create table liveblocks_documents (room_id text primary key, data jsonb not null, updated_at timestamptz not null)`

const guideUpsert = `insert into liveblocks_documents (room_id, data, updated_at) values ($1, $2, now())
on conflict (room_id) do update set data = excluded.data, updated_at = excluded.updated_at`

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
	_, err = b.db.Exec(ctx, guideUpsert, payload.Data.RoomID, document)
	return err
}
