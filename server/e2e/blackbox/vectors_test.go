package blackbox_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// vector is one recorded webhook.
type vector struct {
	Name, ID, Timestamp, Body, Signature string
}

func vectors(t *testing.T) []vector {
	t.Helper()
	var vs []vector
	if err := json.Unmarshal(mustRead(t, "../../internal/ingest/webhook/testdata/signed-vectors.json"), &vs); err != nil {
		t.Fatal(err)
	}
	if len(vs) != 20 {
		t.Fatalf("there are %d recorded webhooks; want 20", len(vs))
	}
	return vs
}

// signature is what a delivery carries besides its body.
func signature(id string, at time.Time, sig string) http.Header {
	return http.Header{
		"Content-Type":      {"application/json"},
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"Webhook-Signature": {sig},
	}
}

// A webhook of every type, recorded and signed long ago, is refused for its age; signed
// anew by Svix' own library and by ours, it is recorded byte for byte.
func TestRecordedWebhooks(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s, upstream := startOn(t, e.Database(t), nil)
		if err := upstream.CreateRoom("mirror:storage", fake.RoomOptions{}); err != nil {
			t.Fatal(err)
		}
		vs := vectors(t)
		for _, v := range vs {
			header := http.Header{"Webhook-Id": {v.ID}, "Webhook-Timestamp": {v.Timestamp}, "Webhook-Signature": {v.Signature}}
			got := send(t, http.MethodPost, s.URL("/api/liveblocks-webhook"), header, strings.NewReader(v.Body))
			if got.status != http.StatusUnauthorized || got.reason() != "TIMESTAMP_OUT_OF_TOLERANCE" {
				t.Errorf("%s as recorded: %d %s; want 401 TIMESTAMP_OUT_OF_TOLERANCE", v.Name, got.status, got.body)
			}
		}

		now := time.Now()
		bySvix := svixSign(t, now, vs)
		events := mirrorv1.NewEventServiceClient(s.Dial(t))
		for i, v := range vs {
			ours := harness.SignAs(t, v.ID, now, []byte(v.Body))
			if theirs := bySvix[i]; ours.Header.Get("Webhook-Signature") != theirs {
				t.Errorf("%s: our signature differs from that of Svix", v.Name)
			}
			// Svix' goes first and is recorded; ours has to be its duplicate.
			for _, d := range []struct {
				header    http.Header
				duplicate bool
			}{{signature(v.ID, now, bySvix[i]), false}, {ours.Header, true}} {
				got := send(t, http.MethodPost, s.URL("/v1/webhooks/liveblocks"), d.header, strings.NewReader(v.Body))
				var receipt struct {
					EventID   string `json:"eventId"`
					Duplicate bool   `json:"duplicate"`
					Outcome   string `json:"outcome"`
				}
				if err := json.Unmarshal(got.body, &receipt); err != nil || got.status != http.StatusOK {
					t.Fatalf("%s: %d %s (%v); want 200", v.Name, got.status, got.body, err)
				}
				if receipt.EventID != v.ID || receipt.Duplicate != d.duplicate {
					t.Errorf("%s: receipt %+v; want duplicate = %v", v.Name, receipt, d.duplicate)
				}
			}
			resp, err := events.GetEvent(t.Context(), &mirrorv1.GetEventRequest{EventId: v.ID})
			if err != nil {
				t.Fatalf("GetEvent of %s: %v", v.Name, err)
			}
			ev := resp.GetEvent()
			kind, _, _ := strings.Cut(v.Name, "-")
			if !bytes.Equal(ev.GetPayload(), []byte(v.Body)) || ev.GetType() != kind ||
				ev.GetSendTime().GetSeconds() != now.Unix() {
				t.Errorf("event %s = %v; want type %s and the payload as posted", v.Name, ev, kind)
			}
		}
		awaitIdle(t, s)
	})
}

// svixSign signs the vectors with Svix' own library.
func svixSign(t *testing.T, at time.Time, vs []vector) []string {
	t.Helper()
	type delivery struct {
		ID   string `json:"id"`
		Body string `json:"body"`
	}
	in := make([]delivery, len(vs))
	for i, v := range vs {
		in[i] = delivery{v.ID, base64.StdEncoding.EncodeToString([]byte(v.Body))}
	}
	stdin, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "sign.mjs")
	cmd.Dir = lbDir
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+harness.WebhookSecret,
		"WEBHOOK_TIMESTAMP="+strconv.FormatInt(at.Unix(), 10))
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sign.mjs (tools/testdeps.sh installs what it needs): %v\n%s", err, &stderr)
	}
	var signatures []string
	if err := json.Unmarshal(out, &signatures); err != nil || len(signatures) != len(vs) {
		t.Fatalf("sign.mjs wrote %q: %v", out, err)
	}
	return signatures
}

// What is asked of a signature, as a sender meets it over HTTP. Package webhook has the
// whole matrix of what the official packages take and refuse.
func TestSignatures(t *testing.T) {
	t.Parallel()
	const (
		oldSecret    = "whsec_b2xkIGtleSB0aGF0IGlzIGJlaW5nIHJvdGF0ZWQ="
		strangerKey  = "whsec_YSBrZXkgdGhhdCBub2JvZHkgY29uZmlndXJlZCE="
		body         = `{"type":"storageUpdated","data":{"projectId":"605a50b01a36d5ea7a2e9104","roomId":"matrix","updatedAt":"2026-01-02T03:04:05.678Z"}}`
		ok           = http.StatusOK
		unauthorized = http.StatusUnauthorized
		invalid      = "SIGNATURE_INVALID"
		missing      = "SIGNATURE_MISSING"
		tolerance    = "TIMESTAMP_OUT_OF_TOLERANCE"
	)
	s, upstream := start(t, map[string]string{"LIVEBLOCKS_WEBHOOK_SECRET": harness.WebhookSecret + "," + oldSecret})
	if err := upstream.CreateRoom("matrix", fake.RoomOptions{}); err != nil {
		t.Fatal(err)
	}

	// spoil spoils the headers of a delivery that was signed.
	type spoil func(h http.Header)
	rename := func(change func(string) string) spoil {
		return func(h http.Header) {
			for name, v := range maps.Clone(h) {
				if strings.HasPrefix(name, "Webhook-") {
					delete(h, name)
					h[change(name)] = v
				}
			}
		}
	}
	svix := func(name string) string { return strings.Replace(name, "Webhook-", "Svix-", 1) }

	for _, row := range []struct {
		name   string
		secret string        // the first configured one if empty
		age    time.Duration // of the timestamp
		body   string        // signed
		sent   string        // instead of what was signed
		spoil  spoil
		status int
		reason string
	}{
		{name: "plain webhook-* headers", status: ok},
		{name: "lower-case header names", spoil: rename(strings.ToLower), status: ok},
		{name: "svix-* header names", spoil: rename(svix), status: ok},
		{name: "one svix-* header among webhook-*", spoil: func(h http.Header) {
			h["Svix-Id"] = h["Webhook-Id"]
			delete(h, "Webhook-Id")
		}, status: unauthorized, reason: invalid},
		{name: "an equal svix-* family besides", spoil: func(h http.Header) {
			for name, v := range maps.Clone(h) {
				h[svix(name)] = v
			}
		}, status: ok},
		{name: "another svix-* family besides", spoil: func(h http.Header) {
			for name, v := range maps.Clone(h) {
				h[svix(name)] = v
			}
			h.Set("Svix-Id", "msg_other")
		}, status: unauthorized, reason: invalid},
		{
			name: "grpc-metadata-webhook-* headers", spoil: rename(func(name string) string { return "Grpc-Metadata-" + name }),
			status: unauthorized, reason: missing,
		},
		{name: "the other configured secret", secret: oldSecret, status: ok},
		{name: "a secret that is not configured", secret: strangerKey, status: unauthorized, reason: invalid},
		{name: "timestamp 310 s old", age: 310 * time.Second, status: unauthorized, reason: tolerance},
		{
			name: "missing signature", spoil: func(h http.Header) { delete(h, "Webhook-Signature") }, status: unauthorized,
			reason: missing,
		},
		{
			name: "a header with two values", spoil: func(h http.Header) { h.Add("Webhook-Id", "msg_other") },
			status: unauthorized, reason: invalid,
		},
		{
			name: "a header twice", spoil: func(h http.Header) { h.Add("Webhook-Id", h.Get("Webhook-Id")) }, status: ok,
		},
		{name: "body re-indented", sent: indent(t, body), status: unauthorized, reason: invalid},
		{name: "not UTF-8", body: "{\"type\":\"storageUpdated\",\"data\":{\"roomId\":\"\xff\xfe\"}}", status: ok},
	} {
		t.Run(row.name, func(t *testing.T) {
			signed := cmp.Or(row.body, body)
			sent := cmp.Or(row.sent, signed)
			id, at := "msg_"+url.QueryEscape(row.name), time.Now().Add(-row.age)
			sign := func(secret, body string) string {
				t.Helper()
				signature, err := webhook.Sign(secret, id, at, []byte(body))
				if err != nil {
					t.Fatal(err)
				}
				return signature
			}
			header := signature(id, at, sign(cmp.Or(row.secret, harness.WebhookSecret), signed))
			if row.spoil != nil {
				row.spoil(header)
			}
			got := send(t, http.MethodPost, s.URL("/api/liveblocks-webhook"), header, strings.NewReader(sent))
			if got.status != row.status || got.reason() != row.reason {
				t.Errorf("answered %d %s; want %d %s", got.status, got.body, row.status, row.reason)
			}
			if got.header.Get("Webhook-Delivery") != "" {
				t.Errorf("webhook-delivery = %q; a wrong secret can be mended", got.header.Get("Webhook-Delivery"))
			}
			if good := sign(harness.WebhookSecret, sent); bytes.Contains(got.body, []byte(good[3:])) {
				t.Errorf("the answer tells the right signature: %s", got.body)
			}
		})
	}

	// What was refused has left nothing behind, what was accepted is there.
	_, _, raw := s.Get(t, "/v1/admin/status")
	var now struct {
		Deliveries map[string]string `json:"deliveries"`
	}
	if err := json.Unmarshal(raw, &now); err != nil {
		t.Fatal(err)
	}
	_, _, raw = s.Get(t, "/v1/events?pageSize=500")
	var list struct {
		Events []struct {
			EventID string `json:"eventId"`
		} `json:"events"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(len(list.Events)) != now.Deliveries["accepted"] || now.Deliveries["unauthenticated"] == "0" {
		t.Errorf("%d events are recorded; the counters say %v", len(list.Events), now.Deliveries)
	}
	if strings.Contains(s.Log(), "storageUpdated") || strings.Contains(s.Log(), "v1,") {
		t.Error("the log holds a payload or a signature")
	}
}

func indent(t *testing.T, body string) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(body), "", " "); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
