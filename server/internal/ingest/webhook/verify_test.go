package webhook_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	tolerance = 300 * time.Second

	secret      = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret = "whsec_b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="
)

func newVerifier(tb testing.TB, secrets ...webhook.Secret) *webhook.Verifier {
	tb.Helper()
	v, err := webhook.NewVerifier(secrets, tolerance)
	if err != nil {
		tb.Fatalf("NewVerifier: %v", err)
	}
	return v
}

func sign(tb testing.TB, secret, id string, ts time.Time, body string) string {
	tb.Helper()
	s, err := webhook.Sign(secret, id, ts, []byte(body))
	if err != nil {
		tb.Fatalf("Sign: %v", err)
	}
	return s
}

// checkFault holds an error to its kind and reason; without a reason it holds
// it to be nil.
func checkFault(tb testing.TB, call string, err error, kind fault.Kind, reason fault.Reason) {
	tb.Helper()
	if reason == "" {
		if err != nil {
			tb.Errorf("%s = %v; want no error", call, err)
		}
		return
	}
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind || f.Reason != reason {
		tb.Errorf("%s = %v; want kind %d and reason %s", call, err, kind, reason)
	}
}

func TestVerifyVectors(t *testing.T) {
	t.Parallel()
	for _, vec := range readVectors(t) {
		t.Run(vec.Name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, webhook.Secret{Project: "acme", Secret: vec.Secret})
			h := webhook.Headers{ID: vec.ID, Timestamp: vec.Timestamp, Signature: vec.Signature}
			got, err := v.Verify("", h, []byte(vec.Body), receiveTime)
			if err != nil || got.Project != "acme" || !got.SendTime.Equal(sendTime) {
				t.Errorf("Verify = %+v, %v; want acme, %v", got, err, sendTime)
			}
			if got := sign(t, vec.Secret, vec.ID, sendTime, vec.Body); got != vec.Signature {
				t.Error("Sign differs from the vendor's signature")
			}
			// Every byte of the body counts.
			body := []byte(vec.Body)
			for i := range body {
				body[i] ^= 1
				if _, err := v.Verify("", h, body, receiveTime); !fault.Is(err, fault.ReasonSignatureInvalid) {
					t.Fatalf("Verify with byte %d changed = %v; want %s", i, err, fault.ReasonSignatureInvalid)
				}
				body[i] ^= 1
			}
		})
	}
}

// TestVerifyMatrix runs the cases that were put to the vendors' own libraries.
// testdata/verify-matrix.txt says what those do; each of its rows is a case
// here or stands among those that have no meaning in this service.
func TestVerifyMatrix(t *testing.T) {
	t.Parallel()
	const id, body = "msg_1", `{"type":"storageUpdated","data":{"roomId":"r"}}`
	now := sendTime
	stamp := strconv.FormatInt(now.Unix(), 10)
	good := sign(t, secret, id, now, body)
	bad := sign(t, otherSecret, id, now, body)
	headers := func(id, timestamp, signature string) map[string][]string {
		return map[string][]string{"webhook-id": {id}, "webhook-timestamp": {timestamp}, "webhook-signature": {signature}}
	}
	aged := func(age time.Duration) map[string][]string {
		ts := now.Add(-age)
		return headers(id, strconv.FormatInt(ts.Unix(), 10), sign(t, secret, id, ts, body))
	}
	signedAs := func(timestamp string) map[string][]string {
		return headers(id, timestamp, rawSignature(t, secret, id, timestamp, body))
	}
	signedBody := func(body string) map[string][]string {
		return headers(id, stamp, sign(t, secret, id, now, body))
	}
	without := func(h map[string][]string, key string) map[string][]string {
		delete(h, key)
		return h
	}

	type row struct {
		headers map[string][]string
		body    string // body if empty
		want    fault.Reason
		outcome mirror.Outcome
	}
	rows := map[string]row{
		"plain webhook-* headers": {headers: headers(id, stamp, good), outcome: mirror.OutcomeQueued},
		"svix-* header names": {
			headers: map[string][]string{"svix-id": {id}, "svix-timestamp": {stamp}, "svix-signature": {good}},
			outcome: mirror.OutcomeQueued,
		},
		"timestamp -299 s":            {headers: aged(299 * time.Second), outcome: mirror.OutcomeQueued},
		"timestamp -301 s":            {headers: aged(301 * time.Second), want: fault.ReasonTimestampOutOfTolerance},
		"timestamp +299 s":            {headers: aged(-299 * time.Second), outcome: mirror.OutcomeQueued},
		"timestamp +301 s":            {headers: aged(-301 * time.Second), want: fault.ReasonTimestampOutOfTolerance},
		"timestamp in milliseconds":   {headers: signedAs(stamp + "000"), want: fault.ReasonTimestampOutOfTolerance},
		"timestamp not a number":      {headers: signedAs("abc"), want: fault.ReasonSignatureInvalid},
		"timestamp '…junk' suffix":    {headers: signedAs(stamp + "junk"), want: fault.ReasonSignatureInvalid},
		"two signatures, second good": {headers: headers(id, stamp, bad+" "+good), outcome: mirror.OutcomeQueued},
		"good under v2 prefix": {
			headers: headers(id, stamp, "v2,"+good[3:]),
			want:    fault.ReasonSignatureInvalid,
		},
		"good under v1a prefix": {
			headers: headers(id, stamp, "v1a,"+good[3:]),
			want:    fault.ReasonSignatureInvalid,
		},
		"no version prefix": {headers: headers(id, stamp, good[3:]), want: fault.ReasonSignatureInvalid},
		"bad only":          {headers: headers(id, stamp, bad), want: fault.ReasonSignatureInvalid},
		"empty":             {headers: headers(id, stamp, ""), want: fault.ReasonSignatureMissing},
		"missing id": {
			headers: without(headers(id, stamp, good), "webhook-id"),
			want:    fault.ReasonSignatureMissing,
		},
		"body re-serialised with spaces": {
			headers: headers(id, stamp, good), body: strings.ReplaceAll(body, ":", ": "),
			want: fault.ReasonSignatureInvalid,
		},
		"unknown event type": {
			headers: signedBody(`{"type":"x"}`), body: `{"type":"x"}`,
			outcome: mirror.OutcomeUnknownType,
		},
		"unknown type maxConnectionsReached": {
			headers: signedBody(`{"type":"maxConnectionsReached"}`),
			body:    `{"type":"maxConnectionsReached"}`, outcome: mirror.OutcomeUnknownType,
		},
		"notification kind thread": {
			headers: signedBody(`{"type":"notification","data":{"kind":"thread","roomId":"r"}}`),
			body:    `{"type":"notification","data":{"kind":"thread","roomId":"r"}}`, outcome: mirror.OutcomeQueued,
		},
		"notification kind $custom": {
			headers: signedBody(`{"type":"notification","data":{"kind":"$custom","roomId":null}}`),
			body:    `{"type":"notification","data":{"kind":"$custom","roomId":null}}`, outcome: mirror.OutcomeQueued,
		},
		"notification kind other": {
			headers: signedBody(`{"type":"notification","data":{"kind":"foo"}}`),
			body:    `{"type":"notification","data":{"kind":"foo"}}`, outcome: mirror.OutcomeQueued,
		},
		"not JSON":  {headers: signedBody("hello"), body: "hello", outcome: mirror.OutcomeMalformed},
		"JSON null": {headers: signedBody("null"), body: "null", outcome: mirror.OutcomeMalformed},
		"known type, no data": {
			headers: signedBody(`{"type":"userLeft"}`), body: `{"type":"userLeft"}`,
			outcome: mirror.OutcomeMalformed,
		},
	}
	secretRows := map[string]string{
		`secret ""`: "", `secret "abc"`: "abc", `secret "whsec_"`: "whsec_",
		`secret "whsec_!!!"`: "whsec_!!!",
	}
	meaningless := map[string]string{
		"native Headers object":   "a matter of JavaScript's types",
		"upper-case header names": "HTTP and gRPC both hand on lower-case names",
		"header value as array":   "a matter of JavaScript's types; TestHeadersFrom has repeated headers",
		"rawBody is an object":    "a matter of JavaScript's types",
		"rawBody is a Buffer":     "a body is always bytes here",
	}

	v := newVerifier(t, webhook.Secret{Project: "acme", Secret: secret})
	seen := 0
	for _, name := range matrixRows(t) {
		seen++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, ok := meaningless[name]; ok {
				return
			}
			if s, ok := secretRows[name]; ok {
				if _, err := webhook.NewVerifier([]webhook.Secret{{Project: "acme", Secret: s}}, tolerance); err == nil {
					t.Errorf("NewVerifier took the secret")
				}
				return
			}
			row, ok := rows[name]
			if !ok {
				t.Fatal("a row of the matrix has no case")
			}
			if row.body == "" {
				row.body = body
			}
			h, err := webhook.HeadersFrom(func(key string) []string { return row.headers[key] })
			if err == nil {
				_, err = v.Verify("acme", h, []byte(row.body), now)
			}
			checkFault(t, "Verify", err, fault.Unauthentic, row.want)
			if err != nil {
				return
			}
			if a := webhook.Decode("acme", h.ID, []byte(row.body), now, now); a.Event.Outcome != row.outcome {
				t.Errorf("Decode: outcome %s; want %s", a.Event.Outcome, row.outcome)
			}
		})
	}
	if want := len(rows) + len(secretRows) + len(meaningless); seen != want {
		t.Errorf("the matrix has %d rows; want %d", seen, want)
	}
}

// rawSignature signs whatever stands for the timestamp, by the formula and not
// by the code under test.
func rawSignature(tb testing.TB, secret, id, timestamp, body string) string {
	tb.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		tb.Fatal(err)
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(id + "." + timestamp + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// matrixRows returns the names of the rows of the recorded matrix.
func matrixRows(tb testing.TB) []string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "verify-matrix.txt"))
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		name, _, ok := strings.Cut(line, "|")
		if !ok {
			tb.Fatalf("no row: %q", line)
		}
		names = append(names, strings.TrimSpace(name))
	}
	return names
}

func TestVerify(t *testing.T) {
	t.Parallel()
	const id, body = "msg_1", `{"type":"storageUpdated","data":{"roomId":"r"}}`
	now := sendTime.Add(999 * time.Millisecond) // the clock's fraction of a second must not count
	stamp := strconv.FormatInt(sendTime.Unix(), 10)
	good := sign(t, secret, id, sendTime, body)
	other := sign(t, otherSecret, id, sendTime, body)
	third := sign(t, "whsec_dGhpcmQ", id, sendTime, body)
	aged := func(age time.Duration) webhook.Headers {
		ts := sendTime.Add(-age)
		return webhook.Headers{ID: id, Timestamp: strconv.FormatInt(ts.Unix(), 10), Signature: sign(t, secret, id, ts, body)}
	}
	signedAs := func(id, timestamp string) webhook.Headers {
		return webhook.Headers{ID: id, Timestamp: timestamp, Signature: rawSignature(t, secret, id, timestamp, body)}
	}
	signature := func(s string) webhook.Headers {
		return webhook.Headers{ID: id, Timestamp: stamp, Signature: s}
	}
	v := newVerifier(t,
		webhook.Secret{Project: "acme", Secret: secret},
		webhook.Secret{Project: "acme", Secret: otherSecret},
		webhook.Secret{Project: "globex", Secret: "whsec_dGhpcmQ="},
	)
	tests := []struct {
		name    string
		project mirror.ProjectID
		headers webhook.Headers
		owner   mirror.ProjectID
		kind    fault.Kind
		want    fault.Reason
	}{
		{name: "first secret of a project", project: "acme", headers: signature(good), owner: "acme"},
		{name: "second secret of a project", project: "acme", headers: signature(other), owner: "acme"},
		{name: "any project", headers: signature(third), owner: "globex"},
		{
			name: "another project's secret", project: "globex", headers: signature(good), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "unknown project", project: "initech", headers: signature(good), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},

		{name: "several signatures, the first good", headers: signature(good + " " + third + "x v2,x"), owner: "acme"},
		{
			name:    "several signatures, the first good, of equal length",
			headers: signature(good + " v1," + strings.Repeat("A", 44)), owner: "acme",
		},
		{
			name:    "several signatures, the last good",
			headers: signature("v1, v1a," + other[3:] + "  v1," + strings.Repeat("A", 44) + " " + good), owner: "acme",
		},
		{
			name: "good for two projects, the asked one counts", project: "globex", headers: signature(good + " " + third),
			owner: "globex",
		},
		{name: "no version", headers: signature(good[3:]), kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid},
		{
			name: "upper-case version", headers: signature("V1," + good[3:]), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "another separator", headers: signature("v1,x\t" + good), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "cut signature", headers: signature(good[:len(good)-1]), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "unpadded signature", headers: signature(strings.TrimRight(good, "=")), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "longer signature", headers: signature(good + "="), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "more behind the signature", headers: signature(good + ",x"), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},

		{name: "300 s old", headers: aged(300 * time.Second), owner: "acme"},
		{
			name: "301 s old", headers: aged(301 * time.Second), kind: fault.Unauthentic,
			want: fault.ReasonTimestampOutOfTolerance,
		},
		{name: "300 s ahead", headers: aged(-300 * time.Second), owner: "acme"},
		{
			name: "301 s ahead", headers: aged(-301 * time.Second), kind: fault.Unauthentic,
			want: fault.ReasonTimestampOutOfTolerance,
		},
		{name: "1970", headers: signedAs(id, "0"), kind: fault.Unauthentic, want: fault.ReasonTimestampOutOfTolerance},
		{
			name: "milliseconds", headers: signedAs(id, stamp+"678"), kind: fault.Unauthentic,
			want: fault.ReasonTimestampOutOfTolerance,
		},
		{
			name: "18 digits", headers: signedAs(id, "999999999999999999"), kind: fault.Unauthentic,
			want: fault.ReasonTimestampOutOfTolerance,
		},
		{
			name: "2^64 and today", headers: signedAs(id, "18446744075476874661"), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{name: "plus sign", headers: signedAs(id, "+"+stamp), kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid},
		{name: "minus sign", headers: signedAs(id, "-"+stamp), kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid},
		{name: "leading zero", headers: signedAs(id, "0"+stamp), kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid},
		{
			name: "leading space", headers: signedAs(id, " "+stamp), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "trailing space", headers: signedAs(id, stamp+" "), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{name: "junk", headers: signedAs(id, stamp+"junk"), kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid},
		{name: "fraction", headers: signedAs(id, stamp+".5"), kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid},
		{name: "exponent", headers: signedAs(id, "1e9"), kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid},
		{
			name: "underscore", headers: signedAs(id, "1_767_323_045"), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},
		{
			name: "digits of another script", headers: signedAs(id, "١٧٦٧٣٢٣٠٤٥"), kind: fault.Unauthentic,
			want: fault.ReasonSignatureInvalid,
		},

		{name: "no id", headers: signedAs("", stamp), kind: fault.Unauthentic, want: fault.ReasonSignatureMissing},
		{name: "no timestamp", headers: signedAs(id, ""), kind: fault.Unauthentic, want: fault.ReasonSignatureMissing},
		{name: "no signature", headers: signature(""), kind: fault.Unauthentic, want: fault.ReasonSignatureMissing},
		{name: "longest id", headers: signedAs(strings.Repeat("i", 128), stamp), owner: "acme"},
		{
			name: "id too long", headers: signedAs(strings.Repeat("i", 129), stamp), kind: fault.Invalid,
			want: fault.ReasonEventIDInvalid,
		},
		{name: "id beyond ASCII", headers: signedAs("msg_é", stamp), kind: fault.Invalid, want: fault.ReasonEventIDInvalid},
		{
			name: "id with a control character", headers: signedAs("msg\x7f", stamp), kind: fault.Invalid,
			want: fault.ReasonEventIDInvalid,
		},
		{
			name: "bad id without a signature", headers: webhook.Headers{ID: "msg\n", Timestamp: stamp, Signature: good},
			kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid,
		},
		{
			name: "another delivery's signature", headers: webhook.Headers{ID: "msg_2", Timestamp: stamp, Signature: good},
			kind: fault.Unauthentic, want: fault.ReasonSignatureInvalid,
		},
		{
			name:    "another time's signature",
			headers: webhook.Headers{ID: id, Timestamp: strconv.FormatInt(sendTime.Unix()+1, 10), Signature: good},
			kind:    fault.Unauthentic, want: fault.ReasonSignatureInvalid,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := v.Verify(tt.project, tt.headers, []byte(body), now)
			checkFault(t, "Verify", err, tt.kind, tt.want)
			if got.Project != tt.owner || (err == nil) != (got.Secret != "") {
				t.Errorf("Verify = %+v; want %q, and its secret if it succeeds", got, tt.owner)
			}
			if want := tt.headers.Timestamp; err == nil && strconv.FormatInt(got.SendTime.Unix(), 10) != want {
				t.Errorf("Verify: sent at %v; want %s", got.SendTime, want)
			}
		})
	}
}

// TestVerifyKeepsSecrets holds every failure to silence about what would help
// to forge a delivery.
func TestVerifyKeepsSecrets(t *testing.T) {
	t.Parallel()
	const id, body = "msg_1", `{"type":"confidential"}`
	v := newVerifier(t, webhook.Secret{Project: "acme", Secret: secret})
	good := sign(t, secret, id, sendTime, body)
	stamp := strconv.FormatInt(sendTime.Unix(), 10)
	for _, h := range []webhook.Headers{
		{},
		{ID: id, Timestamp: stamp, Signature: "v1,forged"},
		{ID: id, Timestamp: stamp + "x", Signature: good},
		{ID: id, Timestamp: "1", Signature: good},
		{ID: strings.Repeat(id, 99), Timestamp: stamp, Signature: rawSignature(t, secret, strings.Repeat(id, 99), stamp,
			body)},
	} {
		_, err := v.Verify("acme", h, []byte(body), sendTime)
		if err == nil {
			t.Fatalf("Verify(%+v) succeeded", h)
		}
		for _, hidden := range []string{good[3:], secret[6:], "confidential", "forged", id} {
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("Verify = %v; want nothing of the secret, the signature, the id or the payload", err)
			}
		}
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		secrets []webhook.Secret
		want    string
	}{
		{"empty", []webhook.Secret{{"acme", ""}}, `secret 1 of project "acme" does not begin with whsec_`},
		{
			"with the version of a signature",
			[]webhook.Secret{{"acme", "v1," + secret}},
			`secret 1 of project "acme" begins with v1, which is the version of a signature; leave that out, so that it ` +
				`begins with whsec_`,
		},
		{
			"in quotes",
			[]webhook.Secret{{"acme", `"` + secret + `"`}, {"acme", "'" + otherSecret + "'"}},
			`secret 1 of project "acme" is in quotes; leave them out, so that it begins with whsec_` + "\n" +
				`secret 2 of project "acme" is in quotes; leave them out, so that it begins with whsec_`,
		},
		{
			"another prefix",
			[]webhook.Secret{{"acme", "sk_c2VjcmV0"}},
			`secret 1 of project "acme" does not begin with whsec_`,
		},
		{
			"leading space",
			[]webhook.Secret{{"acme", " " + secret}},
			`secret 1 of project "acme" does not begin with whsec_`,
		},
		{"empty key", []webhook.Secret{{"acme", "whsec_"}}, `secret 1 of project "acme" has an empty key`},
		{
			"only padding",
			[]webhook.Secret{{"acme", "whsec_===="}},
			`secret 1 of project "acme" is not base64 after whsec_`,
		},
		{
			"not base64",
			[]webhook.Secret{{"acme", "whsec_c2Vj!mV0"}},
			`secret 1 of project "acme" is not base64 after whsec_`,
		},
		{
			"the alphabet of URLs",
			[]webhook.Secret{{"acme", "whsec_-_-_"}},
			`secret 1 of project "acme" is not base64 after whsec_`,
		},
		{
			"line break",
			[]webhook.Secret{{"acme", secret + "\n"}},
			`secret 1 of project "acme" is not base64 after whsec_`,
		},
		{
			"the second",
			[]webhook.Secret{{"acme", secret}, {"globex", otherSecret}, {"acme", "x"}},
			`secret 2 of project "acme" does not begin with whsec_`,
		},
		{
			"all of them",
			[]webhook.Secret{{"acme", "x"}, {"acme", "whsec_"}},
			"secret 1 of project \"acme\" does not begin with whsec_\nsecret 2 of project \"acme\" has an " +
				"empty key",
		},
		{
			"one secret of two projects",
			[]webhook.Secret{{"acme", secret}, {"globex", secret}},
			`secret 1 of project "globex" is also a secret of project "acme"`,
		},
		{"bad project", []webhook.Secret{{"Acme", secret}}, `secret 1 of project "Acme" does not have a valid project id`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := webhook.NewVerifier(tt.secrets, tolerance)
			if err == nil || err.Error() != tt.want {
				t.Errorf("NewVerifier = %v; want %s", err, tt.want)
			}
		})
	}
	if _, err := webhook.NewVerifier(nil, time.Millisecond); err == nil {
		t.Error("NewVerifier took a tolerance below a second")
	}
}

func TestNewVerifierTakesSecretsPaddedOrNot(t *testing.T) {
	t.Parallel()
	// The same secret twice in one project is harmless.
	v := newVerifier(t, webhook.Secret{Project: "acme", Secret: "whsec_dGhpcmQ="},
		webhook.Secret{Project: "acme", Secret: "whsec_dGhpcmQ"})
	h := webhook.Headers{ID: "a", Timestamp: "1767323045", Signature: rawSignature(t, "whsec_dGhpcmQ=", "a", "1767323045",
		"{}")}
	if _, err := v.Verify("", h, []byte("{}"), sendTime); err != nil {
		t.Errorf("Verify = %v", err)
	}
	if _, err := newVerifier(t).Verify("", h, []byte("{}"), sendTime); !fault.Is(err, fault.ReasonSignatureInvalid) {
		t.Errorf("Verify without secrets = %v; want %s", err, fault.ReasonSignatureInvalid)
	}
}

// TestVerifyTellsTheSecret rotates a secret: each delivery tells which of the two signed it, by
// what an operator can compute: printf %s whsec_... | sha256sum | cut -c1-8.
func TestVerifyTellsTheSecret(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, webhook.Secret{Project: "acme", Secret: secret},
		webhook.Secret{Project: "acme", Secret: otherSecret})
	for text, want := range map[string]string{secret: "96ad2ccd", otherSecret: "7c6b0377"} {
		h := webhook.Headers{
			ID: "msg_1", Timestamp: strconv.FormatInt(sendTime.Unix(), 10), Signature: sign(t, text, "msg_1", sendTime, "{}"),
		}
		got, err := v.Verify("", h, []byte("{}"), sendTime)
		if err != nil || got.Secret != want {
			t.Errorf("Verify = %+v, %v; want the secret %s", got, err, want)
		}
	}
}

func TestSignRefusesBadSecrets(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "whsec_", "c2VjcmV0"} {
		if got, err := webhook.Sign(s, "a", sendTime, nil); err == nil {
			t.Errorf("Sign with %q = %s; want an error", s, got)
		}
	}
}

func TestHeadersFrom(t *testing.T) {
	t.Parallel()
	standard := map[string][]string{"webhook-id": {"a"}, "webhook-timestamp": {"1"}, "webhook-signature": {"v1,x"}}
	svix := map[string][]string{"svix-id": {"b"}, "svix-timestamp": {"2"}, "svix-signature": {"v1,y"}}
	merge := func(maps ...map[string][]string) map[string][]string {
		out := map[string][]string{"content-type": {"application/json"}}
		for _, m := range maps {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	twice := func(in map[string][]string) map[string][]string {
		out := make(map[string][]string)
		for k, v := range in {
			out[k] = append(v[:len(v):len(v)], v...)
		}
		return out
	}
	tests := []struct {
		name string
		in   map[string][]string
		want webhook.Headers
		err  fault.Reason
	}{
		{"standard", merge(standard), webhook.Headers{ID: "a", Timestamp: "1", Signature: "v1,x"}, ""},
		{"svix", merge(svix), webhook.Headers{ID: "b", Timestamp: "2", Signature: "v1,y"}, ""},
		{"none", merge(), webhook.Headers{}, fault.ReasonSignatureMissing},
		{"both", merge(standard, svix), webhook.Headers{}, fault.ReasonSignatureInvalid},
		{
			"one of the other family", merge(standard, map[string][]string{"svix-id": {"a"}}),
			webhook.Headers{},
			fault.ReasonSignatureInvalid,
		},
		{
			"an empty one of the other family", merge(svix, map[string][]string{"webhook-id": {""}}),
			webhook.Headers{},
			fault.ReasonSignatureInvalid,
		},
		{
			"a half of each", merge(map[string][]string{"webhook-id": {"a"}, "svix-timestamp": {"1"}, "svix-signature": {"x"}}),
			webhook.Headers{},
			fault.ReasonSignatureInvalid,
		},
		{"no id", merge(standard, map[string][]string{"webhook-id": nil}), webhook.Headers{}, fault.ReasonSignatureMissing},
		{
			"no timestamp", merge(svix, map[string][]string{"svix-timestamp": {}}),
			webhook.Headers{},
			fault.ReasonSignatureMissing,
		},
		{
			"empty signature", merge(standard, map[string][]string{"webhook-signature": {""}}),
			webhook.Headers{},
			fault.ReasonSignatureMissing,
		},
		{
			"repeated", merge(standard, map[string][]string{"webhook-signature": {"v1,x", "v1,y"}}),
			webhook.Headers{},
			fault.ReasonSignatureInvalid,
		},
		{"the same twice", merge(twice(standard)), webhook.Headers{ID: "a", Timestamp: "1", Signature: "v1,x"}, ""},
		{"the same twice, svix", merge(twice(svix)), webhook.Headers{ID: "b", Timestamp: "2", Signature: "v1,y"}, ""},
		{
			"both, the same", merge(standard, map[string][]string{
				"svix-id": standard["webhook-id"], "svix-timestamp": standard["webhook-timestamp"],
				"svix-signature": standard["webhook-signature"],
			}), webhook.Headers{ID: "a", Timestamp: "1", Signature: "v1,x"}, "",
		},
		{
			"repeated svix", merge(svix, map[string][]string{"svix-id": {"b", "c"}}),
			webhook.Headers{},
			fault.ReasonSignatureInvalid,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := webhook.HeadersFrom(func(key string) []string { return tt.in[key] })
			checkFault(t, "HeadersFrom", err, fault.Unauthentic, tt.err)
			if got != tt.want {
				t.Errorf("HeadersFrom = %+v; want %+v", got, tt.want)
			}
		})
	}
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, webhook.Secret{Project: "acme", Secret: secret},
		webhook.Secret{Project: "globex", Secret: otherSecret})
	vectors := readVectors(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				vec := vectors[(i+n)%len(vectors)]
				h := webhook.Headers{ID: vec.ID, Timestamp: vec.Timestamp, Signature: vec.Signature}
				if n%3 == 0 {
					h.ID += "x"
				}
				if _, err := v.Verify("", h, []byte(vec.Body), sendTime); (err == nil) != (n%3 != 0) {
					t.Errorf("Verify of %s = %v", h.ID, err)
				}
			}
		})
	}
	wg.Wait()
}

// differ compares Verify with the library of the Standard Webhooks project.
// They may differ only where Verify is meant to be stricter.
func differ(t interface{ Fatalf(string, ...any) }, key []byte, h webhook.Headers, body []byte) {
	text := "whsec_" + base64.StdEncoding.EncodeToString(key)
	v, err := webhook.NewVerifier([]webhook.Secret{{Project: "acme", Secret: text}}, tolerance)
	if len(key) == 0 {
		if err == nil {
			t.Fatalf("NewVerifier took an empty key")
		}
		return
	}
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	wh, err := standardwebhooks.NewWebhook(text)
	if err != nil {
		t.Fatalf("NewWebhook: %v", err)
	}
	seconds, numberErr := strconv.ParseInt(h.Timestamp, 10, 64)
	_, got := v.Verify("", h, body, time.Unix(seconds, 0))
	want := wh.VerifyIgnoringTimestamp(body, http.Header{
		"Webhook-Id": {h.ID}, "Webhook-Timestamp": {h.Timestamp}, "Webhook-Signature": {h.Signature},
	})

	// Stricter: the spelling of the timestamp, the id's length and characters,
	// and what follows a second comma in a signature, which the library ignores.
	strict := numberErr != nil || strconv.FormatInt(seconds, 10) != h.Timestamp || seconds < 0 || len(h.Timestamp) > 18 ||
		len(h.ID) > mirror.MaxEventID || strings.ContainsFunc(h.ID, func(r rune) bool { return r < ' ' || r > '~' })
	for part := range strings.SplitSeq(h.Signature, " ") {
		strict = strict || strings.Count(part, ",") > 1
	}
	if got == nil && want != nil {
		t.Fatalf("Verify(%+v, %q) succeeds; the library says %v", h, body, want)
	}
	if got != nil && want == nil && !strict {
		t.Fatalf("Verify(%+v, %q) = %v; the library accepts it", h, body, got)
	}
}

func TestVerifyEqualsTheLibrary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "key")
		id := rapid.OneOf(rapid.StringMatching(`[ -~]{1,40}`), rapid.String()).Draw(t, "id")
		seconds := rapid.Int64Range(-1, 1<<40).Draw(t, "seconds")
		body := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body")
		if len(key) == 0 {
			differ(t, key, webhook.Headers{ID: id, Timestamp: "1", Signature: "v1,x"}, body)
			return
		}
		wh, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			t.Fatalf("NewWebhookRaw: %v", err)
		}
		good, err := wh.Sign(id, time.Unix(seconds, 0), body)
		if err != nil {
			t.Fatalf("library's Sign: %v", err)
		}
		own, err := webhook.Sign("whsec_"+base64.StdEncoding.EncodeToString(key), id, time.Unix(seconds, 0), body)
		if err != nil || own != good {
			t.Fatalf("Sign = %s, %v; the library's is %s", own, err, good)
		}
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{
			good, good, "v2," + good[3:], "v1a," + good[3:], good[3:], good + ",x", good + "x", good[:20], "v1,", "v1", "", ",",
			"v1," + base64.StdEncoding.EncodeToString(make([]byte, 32)), strings.ToLower(good),
		}), 1, 4).Draw(t, "signatures")
		timestamp := rapid.SampledFrom([]string{"", "", "", "", "+", "0", " ", "-"}).Draw(t,
			"sign") + strconv.FormatInt(seconds, 10) +
			rapid.SampledFrom([]string{"", "", "", "", "x", " ", "0"}).Draw(t, "junk")
		sent := bytes.Clone(body)
		if len(sent) > 0 && rapid.IntRange(0, 9).Draw(t, "tampered") == 0 {
			sent[rapid.IntRange(0, len(sent)-1).Draw(t, "at")] ^= 0x20
		}
		differ(t, key, webhook.Headers{ID: id, Timestamp: timestamp, Signature: strings.Join(parts, " ")}, sent)
	})
}

// FuzzVerify compares with the library too. GOOD in the signature stands for
// the right one, which the fuzzer could not find by itself.
func FuzzVerify(f *testing.F) {
	for _, vec := range readVectors(f) {
		f.Add([]byte("key"), vec.ID, vec.Timestamp, vec.Signature+" v1,GOOD", []byte(vec.Body))
	}
	f.Add([]byte{0}, "é", "+1", "v2,GOOD  v1,GOOD,", []byte{0xff})
	f.Fuzz(func(t *testing.T, key []byte, id, timestamp, signature string, body []byte) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		signature = strings.ReplaceAll(signature, "GOOD", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		differ(t, key, webhook.Headers{ID: id, Timestamp: timestamp, Signature: signature}, body)
	})
}

func BenchmarkVerify(b *testing.B) {
	body := []byte(`{"type":"storageUpdated","data":{"roomId":"` + strings.Repeat("r", 300-49) + `"}}`)
	signature, err := webhook.Sign(secret, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", sendTime, body)
	if err != nil {
		b.Fatal(err)
	}
	h := webhook.Headers{ID: "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", Timestamp: "1767323045", Signature: signature}
	v := newVerifier(b, webhook.Secret{Project: "acme", Secret: secret})
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify("", h, body, sendTime); err != nil {
			b.Fatal(err)
		}
	}
}

// Nobody without a secret learns which projects there are.
func TestUnknownProjectIsAnsweredLikeAWrongSignature(t *testing.T) {
	t.Parallel()
	const id, body = "msg_1", `{}`
	secrets := []webhook.Secret{{Project: "a", Secret: secret}, {Project: "b", Secret: otherSecret}}
	v, err := webhook.NewVerifier(secrets, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	// The right signature of one project is a wrong one for another.
	h := webhook.Headers{
		ID: id, Timestamp: strconv.FormatInt(sendTime.Unix(), 10), Signature: sign(t, otherSecret, id, sendTime, body),
	}
	_, known := v.Verify("a", h, []byte(body), sendTime)
	_, unknown := v.Verify("c", h, []byte(body), sendTime)
	if !fault.Is(known, fault.ReasonSignatureInvalid) || !reflect.DeepEqual(known, unknown) {
		t.Errorf("Verify for a project = %v, for one that is not configured = %v; want the same refusal", known, unknown)
	}
	want := webhook.Verified{
		Project: "b", Secret: webhook.Fingerprint(otherSecret), SendTime: sendTime.Truncate(time.Second),
	}
	for _, project := range []mirror.ProjectID{"b", ""} {
		if got, err := v.Verify(project, h, []byte(body), sendTime); got != want || err != nil {
			t.Errorf("Verify for %q = %+v, %v; want %+v", project, got, err, want)
		}
	}
}
