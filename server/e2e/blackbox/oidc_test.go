package blackbox_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// issuer is an OIDC issuer in the test process.
type issuer struct {
	*httptest.Server

	signer jose.Signer
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	i := &issuer{}
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	must(t, err)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any = map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"}
		if r.URL.Path == "/keys" {
			answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Use: "sig"}}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(i.Close)
	return i
}

// token returns one for members of a group.
func (i *issuer) token(t *testing.T, group string) string {
	t.Helper()
	payload, err := json.Marshal(map[string]any{
		"iss": i.URL, "aud": "liveblocks-mirror", "sub": "alice", "groups": []string{group},
		"exp": time.Now().Add(time.Hour).Unix(),
	})
	must(t, err)
	signed, err := i.signer.Sign(payload)
	must(t, err)
	text, err := signed.CompactSerialize()
	must(t, err)
	return text
}

// The commands on OIDC work as they stand there.
func TestPageOnOIDC(t *testing.T) {
	t.Parallel()
	needServers(t)
	i, dir := newIssuer(t), t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte(i.token(t, "team-a")), 0o600))
	got := runPage(t, dir, blocks(t, "OIDC.md", ""), []string{"https://issuer.example.com", i.URL})
	for _, want := range []string{`"roomId":"team-a:1"`, `"roomId": "team-a:1"`} {
		if !strings.Contains(got, want) {
			t.Errorf("the commands print %s; want %s in it", got, want)
		}
	}
}

// The claims of a token decide, over HTTP and gRPC; an issuer that does not answer is no
// reason to call a token wrong; and no token is in the log, at its most talkative.
func TestOIDC(t *testing.T) {
	t.Parallel()
	needServers(t)
	i, lost := newIssuer(t), newIssuer(t)
	file := filepath.Join(t.TempDir(), "keys.yaml")
	var rules strings.Builder
	rules.WriteString("oidc:\n")
	for _, url := range []string{i.URL, lost.URL} {
		rules.WriteString("  - {issuer: '" + url + "', audience: liveblocks-mirror, rules: [\n" +
			"    {name: a, claims: {groups: team-a}, scopes: [read], projects: ['*'], room_prefixes: ['team-a:']}]}\n")
	}
	must(t, os.WriteFile(file, []byte(rules.String()), 0o600))
	s, _ := start(t, map[string]string{"MIRROR_KEYS_FILE": file, "MIRROR_LOG_LEVEL": "debug"})
	member, stranger, unknown := i.token(t, "team-a"), i.token(t, "team-b"), lost.token(t, "team-a")
	lost.Close()
	for _, c := range []struct {
		what, token, path string
		status            int
		reason            string
	}{
		{"a member", member, "/v1/rooms", 200, ""},
		{"a member without the scope", member, "/v1/events", 403, "SCOPE_MISSING"},
		{"a stranger", stranger, "/v1/rooms", 403, "SCOPE_MISSING"},
		{"a broken token", member[:len(member)-20] + member[len(member)-10:], "/v1/rooms", 401, "CREDENTIAL_INVALID"},
		{"an issuer that is away", unknown, "/v1/rooms", 503, "ISSUER_UNAVAILABLE"},
	} {
		got := send(t, http.MethodGet, s.URL(c.path), bearer(c.token), nil)
		if got.status != c.status || got.reason() != c.reason {
			t.Errorf("%s: %d %s; want %d %s", c.what, got.status, got.body, c.status, c.reason)
		}
		if c.status == 503 && got.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.what)
		}
	}
	for _, token := range []string{member, stranger, unknown} {
		if parts := strings.Split(token, "."); strings.Contains(s.Log(), parts[2]) || strings.Contains(s.Log(), parts[1]) {
			t.Error("the log holds a token, or a part of one")
		}
	}
}
