package oidc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

const audience = "liveblocks-mirror"

// issuer is an OIDC issuer in the test process.
type issuer struct {
	*httptest.Server

	asked atomic.Int64 // for its keys

	mu     sync.Mutex
	keys   []jose.JSONWebKey
	answer func(w http.ResponseWriter, r *http.Request) bool // instead, if it says so
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

// ServeHTTP answers with the configuration or the keys.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.answer != nil && i.answer(w, r) {
		return
	}
	if r.URL.Path == "/.well-known/openid-configuration" {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
		return
	}
	i.asked.Add(1)
	_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: i.keys})
}

// publish sets the keys that are published.
func (i *issuer) publish(keys ...signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = nil
	for _, k := range keys {
		i.keys = append(i.keys, jose.JSONWebKey{Key: k.Public(), KeyID: k.id, Use: "sig"})
	}
}

// fail makes the issuer answer by f, until it is nil.
func (i *issuer) fail(f func(w http.ResponseWriter, r *http.Request) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = f
}

// signer is a private key of an issuer.
type signer struct {
	crypto.Signer

	id string
}

func newRSA(t *testing.T, id string, bits int) signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, id}
}

func newEC(t *testing.T, id string, curve elliptic.Curve) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, id}
}

// sign returns a token with the claims.
func (s signer) sign(t *testing.T, algorithm jose.SignatureAlgorithm, claims map[string]any) string {
	t.Helper()
	key := jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: s.Signer, KeyID: s.id}}
	with, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := with.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// rig is an authenticator with an issuer, at a time that the test sets.
type rig struct {
	*issuer
	tokens *Tokens
	log    bytes.Buffer
	rules  []access.IssuerRule
	now    atomic.Int64 // seconds
}

var (
	editors = access.Caller{
		Name: "oidc:editors", Scopes: access.ScopesOf(access.Read), Projects: []mirror.ProjectID{"a"}, Rooms: []string{"a:"},
	}
	operators = access.Caller{
		Name: "oidc:operators", Scopes: access.AllScopes, Projects: []mirror.ProjectID{"*"}, Rooms: []string{""},
	}
)

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{issuer: newIssuer(t), rules: []access.IssuerRule{
		{Claims: map[string]string{"groups": "operators"}, Caller: operators},
		{Claims: map[string]string{"groups": "editors", "sub": "alice"}, Caller: editors},
		{Claims: map[string]string{"email": "bob@example.com"}, Caller: editors},
	}}
	r.now.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	r.tokens = New(Config{
		Issuers: func() []access.Issuer {
			return []access.Issuer{{URL: r.URL, Audience: audience, Rules: r.rules}}
		},
		Now: r.time, Log: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return r
}

func (r *rig) time() time.Time { return time.Unix(r.now.Load(), 0) }

func (r *rig) pass(d time.Duration) { r.now.Add(int64(d / time.Second)) }

// claims are those of a valid token of alice, with some replaced; nil leaves one out.
func (r *rig) claims(more map[string]any) map[string]any {
	now := r.now.Load()
	claims := map[string]any{
		"iss": r.URL, "aud": audience, "sub": "alice", "groups": []string{"staff", "editors"},
		"iat": now, "nbf": now, "exp": now + 300,
	}
	maps.Copy(claims, more)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

func (r *rig) authenticate(t *testing.T, token string) (access.Caller, error) {
	t.Helper()
	caller, err := r.tokens.Authenticate(t.Context(), access.Credential{Bearer: token})
	if parts := strings.Split(token, "."); err != nil && len(parts) == 3 && len(token) > 100 &&
		(strings.Contains(err.Error(), parts[1]) || len(parts[2]) > 0 && strings.Contains(err.Error(), parts[2])) {
		t.Errorf("the error shows the token: %v", err)
	}
	return caller, err
}

// accepts checks that a token is that of a caller.
func (r *rig) accepts(t *testing.T, token, want string) {
	t.Helper()
	got, err := r.authenticate(t, token)
	if err != nil || got.Name != want {
		t.Fatalf("Authenticate = %+v, %v; want %s", got, err, want)
	}
}

// refuses checks that a token is refused for a reason.
func (r *rig) refuses(t *testing.T, what, token string, want fault.Reason) {
	t.Helper()
	got, err := r.authenticate(t, token)
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Reason != want ||
		(f.Kind == fault.Unavailable) != (want == fault.ReasonIssuerUnavailable) {
		t.Errorf("%s: Authenticate = %+v, %v; want %s", what, got, err, want)
	}
	if got.Scopes != 0 || got.Name != "" {
		t.Errorf("%s: Authenticate = %+v with an error; want no caller", what, got)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rs, es := newRSA(t, "rs", 2048), newEC(t, "es", elliptic.P256())
	r.publish(rs, es)
	for _, token := range []string{
		rs.sign(t, jose.RS256, r.claims(nil)), es.sign(t, jose.ES256, r.claims(nil)),
		rs.sign(t, jose.RS256, r.claims(map[string]any{"aud": []string{"other", audience}})),
		rs.sign(t, jose.RS256, r.claims(map[string]any{"nbf": nil, "iat": nil})),
		signer{rs.Signer, ""}.sign(t, jose.RS256, r.claims(nil)), // which names no key
	} {
		got, err := r.authenticate(t, token)
		if err != nil || got.Name != editors.Name || got.Scopes != editors.Scopes || len(got.Rooms) != 1 {
			t.Errorf("Authenticate = %+v, %v; want editors", got, err)
		}
		if want := r.time().Add(300*time.Second + Skew); !got.Expires.Equal(want) {
			t.Errorf("it expires at %v; want %v", got.Expires, want)
		}
	}
	if n := r.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times; want once", n)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := newEC(t, "es", elliptic.P256())
	r.publish(key)
	for _, c := range []struct {
		claims map[string]any
		want   string
	}{
		{map[string]any{"groups": []string{"editors", "operators"}}, "oidc:operators"},
		{map[string]any{"groups": "editors"}, "oidc:editors"},
		{map[string]any{"sub": "carol"}, "token without a rule"},
		{map[string]any{"groups": nil}, "token without a rule"},
		{map[string]any{"groups": []any{1, true, nil}}, "token without a rule"},
		{map[string]any{"groups": map[string]any{"editors": true}}, "token without a rule"},
		{map[string]any{"groups": "editors,staff"}, "token without a rule"},
		{map[string]any{"sub": "b", "email": "bob@example.com"}, "token without a rule"},
		{map[string]any{"sub": "b", "email": "bob@example.com", "email_verified": false}, "token without a rule"},
		{map[string]any{"sub": "b", "email": "bob@example.com", "email_verified": true}, "oidc:editors"},
	} {
		token := key.sign(t, jose.ES256, r.claims(c.claims))
		r.accepts(t, token, c.want)
		if got, _ := r.authenticate(t, token); c.want == "token without a rule" && (got.Scopes != 0 || got.Projects != nil) {
			t.Errorf("%v: %+v; want a caller who may do nothing", c.claims, got)
		}
	}
}

// forged returns a token whose header is replaced and whose signature is made by sign.
func forged(t *testing.T, header string, claims map[string]any, sign func(text []byte) []byte) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(text)))
}

func TestAttacks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rs, es := newRSA(t, "rs", 2048), newEC(t, "es", elliptic.P256())
	weak, p384 := newRSA(t, "weak", 1024), newEC(t, "p384", elliptic.P384())
	r.publish(rs, es, weak, p384)
	now := r.now.Load()
	right := rs.sign(t, jose.RS256, r.claims(nil))
	r.accepts(t, right, "oidc:editors")

	none := func([]byte) []byte { return nil }
	der, err := x509.MarshalPKIXPublicKey(rs.Public())
	if err != nil {
		t.Fatal(err)
	}
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	hs := func(key []byte) func([]byte) []byte {
		return func(text []byte) []byte {
			mac := hmac.New(sha256.New, key)
			mac.Write(text)
			return mac.Sum(nil)
		}
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: newRSA(t, "rs", 2048).Public(), KeyID: "rs"})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(right, ".")
	with := func(more map[string]any) string { return rs.sign(t, jose.RS256, r.claims(more)) }
	for what, token := range map[string]string{
		"alg none":          forged(t, `{"alg":"none","kid":"rs"}`, r.claims(nil), none),
		"alg None":          forged(t, `{"alg":"None","kid":"rs"}`, r.claims(nil), none),
		"alg missing":       forged(t, `{"kid":"rs"}`, r.claims(nil), none),
		"no signature":      parts[0] + "." + parts[1] + ".",
		"HS256 with DER":    forged(t, `{"alg":"HS256","kid":"rs"}`, r.claims(nil), hs(der)),
		"HS256 with PEM":    forged(t, `{"alg":"HS256","kid":"rs"}`, r.claims(nil), hs(inPEM)),
		"HS256 said RS256":  forged(t, `{"alg":"RS256","kid":"rs"}`, r.claims(nil), hs(der)),
		"PS256":             rs.sign(t, jose.PS256, r.claims(nil)),
		"RS512":             rs.sign(t, jose.RS512, r.claims(nil)),
		"ES384":             p384.sign(t, jose.ES384, r.claims(nil)),
		"a key of its own":  forged(t, `{"alg":"RS256","kid":"rs","jwk":`+string(jwk)+`}`, r.claims(nil), none),
		"a weak key":        weak.sign(t, jose.RS256, r.claims(nil)),
		"another's key":     newRSA(t, "rs", 2048).sign(t, jose.RS256, r.claims(nil)),
		"key of other kind": newEC(t, "rs", elliptic.P256()).sign(t, jose.ES256, r.claims(nil)),
		"crit":              forged(t, `{"alg":"RS256","kid":"rs","crit":["x"],"x":1}`, r.claims(nil), none),
		"wrong audience":    with(map[string]any{"aud": "other"}),
		"no audience":       with(map[string]any{"aud": nil}),
		"audience within":   with(map[string]any{"aud": "the " + audience}),
		"not yet valid":     with(map[string]any{"nbf": now + 61, "exp": now + 900}),
		"no expiry":         with(map[string]any{"exp": nil}),
		"other payload":     parts[0] + "." + strings.Split(with(map[string]any{"sub": "root"}), ".")[1] + "." + parts[2],
		"other signature":   parts[0] + "." + parts[1] + "." + strings.Split(with(map[string]any{"sub": "x"}), ".")[2],
	} {
		r.refuses(t, what, token, fault.ReasonCredentialInvalid)
	}
	for _, ago := range []int64{61, 3600, 1 << 31} {
		r.refuses(t, "expired", with(map[string]any{"exp": now - ago, "nbf": nil}), fault.ReasonCredentialExpired)
	}
	// Clocks differ.
	r.accepts(t, with(map[string]any{"exp": now - 59}), "oidc:editors")
	r.accepts(t, with(map[string]any{"nbf": now + 60}), "oidc:editors")

	// What is no token of a known issuer is left to others.
	long := with(map[string]any{"x": strings.Repeat("x", maxToken)})
	for _, bearer := range []string{
		"", "a", "a.b.c", "...", "sk_mirror_abcdefgh_x", parts[0] + "." + parts[1], right + ".x", long,
		with(map[string]any{"iss": r.URL + "/"}), with(map[string]any{"iss": "https://example.com"}),
		with(map[string]any{"iss": nil}), with(map[string]any{"iss": 1}),
	} {
		if got, err := r.authenticate(t, bearer); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("Authenticate(%.20q) = %+v, %v; want ErrUnknown", bearer, got, err)
		}
	}
	if n := r.asked.Load(); n > askBurst {
		t.Errorf("the issuer was asked %d times", n)
	}
	if log := r.log.String(); strings.Contains(log, "eyJ") {
		t.Errorf("the log shows a token: %s", log)
	}
}

// An issuer that does not answer says nothing about a token.
func TestIssuerUnavailable(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"an error": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, strings.Repeat("out of order ", 1000), http.StatusInternalServerError)
			return true
		},
		"nothing": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"no JSON": func(w http.ResponseWriter, _ *http.Request) bool { _, _ = fmt.Fprint(w, "<html>"); return true },
		"too much": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = fmt.Fprintf(w, `{"a":"%s"}`, strings.Repeat("x", 2*maxAnswer))
			return true
		},
		"no keys": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/keys" {
				_, _ = fmt.Fprint(w, `{"keys":[{"kty":"oct","k":"AA","kid":"es"}]}`)
			}
			return r.URL.Path == "/keys"
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = fmt.Fprint(w, `{"issuer":"https://example.com","jwks_uri":"/"}`)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			key := newEC(t, "es", elliptic.P256())
			r.publish(key)
			r.fail(answer)
			token := key.sign(t, jose.ES256, r.claims(map[string]any{"exp": r.now.Load() + 1e6}))
			for range 20 {
				r.refuses(t, name, token, fault.ReasonIssuerUnavailable)
			}
			// What is wrong without the issuer's word is not unavailable.
			r.refuses(t, "alg none", forged(t, `{"alg":"none"}`, r.claims(nil), func([]byte) []byte { return nil }),
				fault.ReasonCredentialInvalid)
			if log := r.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "level=WARN") || len(log) > 1000 {
				t.Errorf("log = %s; want one short warning", log)
			}
			r.fail(nil)
			r.pass(askEvery)
			r.accepts(t, token, "oidc:editors")
			if log := r.log.String(); !strings.Contains(log, "can be fetched again") {
				t.Errorf("log = %s; want that it is over", log)
			}

			// Known keys serve for an hour.
			r.fail(answer)
			for range 5 {
				r.pass(keepFor / 6)
				r.accepts(t, token, "oidc:editors")
			}
			r.pass(keepFor / 6)
			r.refuses(t, "an hour later", token, fault.ReasonIssuerUnavailable)
		})
	}
}

// A new key is used at once, and one that is withdrawn for no longer than it takes to ask
// again.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := []signer{newEC(t, "1", elliptic.P256()), newEC(t, "2", elliptic.P256())}
	token := func(k signer) string {
		return k.sign(t, jose.ES256, r.claims(map[string]any{"exp": r.now.Load() + 1e6}))
	}
	r.publish(keys[0])
	old := token(keys[0])
	r.accepts(t, old, "oidc:editors")
	r.publish(keys[1], keys[0])
	r.accepts(t, token(keys[1]), "oidc:editors")
	r.accepts(t, old, "oidc:editors")
	r.publish(keys[1])
	r.accepts(t, old, "oidc:editors")
	r.pass(refreshAfter)
	r.refuses(t, "withdrawn", old, fault.ReasonCredentialInvalid)
	r.accepts(t, token(keys[1]), "oidc:editors")
}

// Keys are rotated under load, and nothing is refused that should pass.
func TestKeyRotationUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var current atomic.Pointer[string]
	var keys []signer
	next := func() {
		k := newEC(t, fmt.Sprint(len(keys)), elliptic.P256())
		keys = append(keys, k)
		r.publish(keys...)
		token := k.sign(t, jose.ES256, r.claims(map[string]any{"exp": r.now.Load() + 1e6}))
		current.Store(&token)
	}
	next()
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var calls atomic.Int64
	for range 8 {
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := r.tokens.Authenticate(ctx, access.Credential{Bearer: *current.Load()}); err != nil &&
					ctx.Err() == nil {
					t.Errorf("Authenticate = %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for range 20 {
		for want := calls.Load() + 50; calls.Load() < want && !t.Failed(); {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
		r.pass(askEvery)
		next()
	}
	stop()
	load.Wait()
	if n := r.asked.Load(); n > 25 {
		t.Errorf("the issuer was asked %d times for 21 keys", n)
	}
}

// Tokens signed with unknown keys do not make the service ask the issuer without end.
func TestUnknownKeysAskSeldom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := newEC(t, "right", elliptic.P256())
	r.publish(key)
	right := key.sign(t, jose.ES256, r.claims(nil))
	r.accepts(t, right, "oidc:editors")
	stranger := newEC(t, "", elliptic.P256())
	for n := range 200 {
		stranger.id = fmt.Sprint("unknown ", n)
		got, err := r.authenticate(t, stranger.sign(t, jose.ES256, r.claims(nil)))
		if err == nil {
			t.Fatalf("Authenticate = %+v", got)
		}
	}
	if n := r.asked.Load(); n > askBurst {
		t.Errorf("the issuer was asked %d times; want at most %d", n, askBurst)
	}
	r.accepts(t, right, "oidc:editors")
	r.pass(askEvery)
	r.refuses(t, "unknown", stranger.sign(t, jose.ES256, r.claims(nil)), fault.ReasonCredentialInvalid)
}

// Keys never come over a way on which they could be forged.
func TestKeysComeSafely(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := newRSA(t, "rs", 2048)
	r.publish(key)
	token := key.sign(t, jose.RS256, r.claims(nil))
	r.fail(func(w http.ResponseWriter, _ *http.Request) bool {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": r.URL, "jwks_uri": "http://issuer.invalid/keys"})
		return true
	})
	r.refuses(t, "keys elsewhere", token, fault.ReasonIssuerUnavailable)
	if !strings.Contains(r.log.String(), "jwks_uri of its configuration is no https URL") {
		t.Errorf("log = %s; want it to name the address of the keys", &r.log)
	}
	check := newClient().CheckRedirect
	for url, safe := range map[string]bool{
		"https://issuer.invalid/keys": true, "http://127.0.0.1:1/keys": true, "http://issuer.invalid/keys": false,
	} {
		req := httptest.NewRequest(http.MethodGet, url, http.NoBody)
		if err := check(req, nil); (err == nil) != safe {
			t.Errorf("a redirect to %s = %v; want it followed: %t", url, err, safe)
		}
		if err := check(req, make([]*http.Request, 4)); err == nil {
			t.Errorf("a fifth redirect, to %s, is followed", url)
		}
	}
}

// A key for something else signs no token.
func TestKeysForOtherUses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	right, enc, other := newRSA(t, "rs", 2048), newRSA(t, "enc", 2048), newRSA(t, "other", 2048)
	r.publish(right)
	r.mu.Lock()
	r.keys = append(r.keys, jose.JSONWebKey{Key: enc.Public(), KeyID: "enc", Use: "enc"},
		jose.JSONWebKey{Key: other.Public(), KeyID: "other", Algorithm: string(jose.RS512)})
	r.mu.Unlock()
	r.accepts(t, right.sign(t, jose.RS256, r.claims(nil)), "oidc:editors")
	r.refuses(t, "a key for encryption", enc.sign(t, jose.RS256, r.claims(nil)), fault.ReasonCredentialInvalid)
	r.refuses(t, "a key for RS512", other.sign(t, jose.RS256, r.claims(nil)), fault.ReasonCredentialInvalid)
}
