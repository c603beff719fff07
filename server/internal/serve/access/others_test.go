package access

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// certified is a keys file with two keys that certificates stand for.
const certified = `
keys:
  - id: reports1
    certificates: ["DNS:reports", "URI:spiffe://example.com/reports"]
    scopes: [read]
    projects: [a]
    room_prefixes: ["a:"]
  - id: peoplexx
    certificates: ["email:alice@example.com"]
    scopes: [read, events]
    projects: ["*"]
    expires: 2030-01-31T00:00:00Z
`

func openText(t *testing.T, text string) *Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	now := time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := openText(t, certified)
	authenticate := keys.Certificates(func() time.Time { return now })
	uri := func(text string) []*url.URL {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{u}
	}
	for what, c := range map[string]struct {
		certificate x509.Certificate
		name        string
		reason      fault.Reason
	}{
		"DNS":   {certificate: x509.Certificate{DNSNames: []string{"other", "reports"}}, name: "reports1"},
		"URI":   {certificate: x509.Certificate{URIs: uri("spiffe://example.com/reports")}, name: "reports1"},
		"email": {certificate: x509.Certificate{EmailAddresses: []string{"alice@example.com"}}, name: "peoplexx"},
		"two names of one": {
			certificate: x509.Certificate{DNSNames: []string{"reports"}, URIs: uri("spiffe://example.com/reports")},
			name:        "reports1",
		},
		"names of two": {
			certificate: x509.Certificate{DNSNames: []string{"reports"}, EmailAddresses: []string{"alice@example.com"}},
			reason:      fault.ReasonCredentialInvalid,
		},
		"no name":      {},
		"another kind": {certificate: x509.Certificate{EmailAddresses: []string{"reports"}}},
		"a kind in name": {certificate: x509.Certificate{
			DNSNames: []string{"email:alice@example.com", "URI:spiffe://example.com/reports"},
		}},
		"a longer name": {certificate: x509.Certificate{DNSNames: []string{"reports.example.com"}}},
		"another case":  {certificate: x509.Certificate{EmailAddresses: []string{"Alice@example.com"}}},
		"expired": {
			certificate: x509.Certificate{DNSNames: []string{"reports"}, NotAfter: now.Add(-time.Second)},
			reason:      fault.ReasonCredentialExpired,
		},
	} {
		if c.certificate.NotAfter.IsZero() {
			c.certificate.NotAfter = now.Add(time.Hour)
		}
		got, err := authenticate(t.Context(), Credential{Certificate: &c.certificate})
		if got.Name != c.name || c.reason != "" && reasonOf(err) != c.reason ||
			c.reason == "" && c.name == "" && !errors.Is(err, ErrUnknown) || c.name != "" && err != nil {
			t.Errorf("%s: %+v, %v; want %q %s", what, got, err, c.name, c.reason)
		}
	}
	right := &x509.Certificate{DNSNames: []string{"reports"}, NotAfter: now.Add(time.Hour)}
	if got, err := authenticate(t.Context(), Credential{Bearer: "x", Certificate: right}); !errors.Is(err, ErrUnknown) {
		t.Errorf("with a token: %+v, %v; want that the token counts", got, err)
	}
	got, err := authenticate(t.Context(), Credential{Certificate: right})
	if err != nil || !slices.Equal(got.Rooms, []string{"a:"}) || got.Scopes != ScopesOf(Read) {
		t.Errorf("its caller: %+v, %v", got, err)
	}
	// Such a key has no secret, so there is no key with its id.
	key := "sk_mirror_reports1_" + strings.Repeat("A", 43)
	if got, err := keys.Authenticate(t.Context(), Credential{Bearer: key}); !errors.Is(err, ErrUnknown) {
		t.Errorf("a key with the id: %+v, %v; want ErrUnknown", got, err)
	}
	guarded := NewGuard(GuardConfig{
		Authenticators: []Authenticator{
			keys.Authenticate,
			authenticate,
		},
		Now: func() time.Time { return now.AddDate(2, 0, 0) },
		Log: slog.New(slog.DiscardHandler),
	})
	people := &x509.Certificate{EmailAddresses: []string{"alice@example.com"}, NotAfter: now.AddDate(10, 0, 0)}
	if got, err := guarded.Identify(t.Context(), Request{Certificate: people}); reasonOf(err) !=
		fault.ReasonCredentialExpired {
		t.Errorf("after the entry has expired: %+v, %v", got, err)
	}
}

func TestCertificatesAndIssuersAreChecked(t *testing.T) {
	t.Parallel()
	entry := func(id, certificates string) string {
		return "{id: " + id + ", certificates: [" + certificates + "], scopes: [read], projects: ['*']}"
	}
	issuer := func(url, rest string) string { return "oidc: [{issuer: '" + url + "', " + rest + "}]" }
	const rule = "{name: a, claims: {sub: a}, scopes: [read], projects: ['*']}"
	for _, c := range [][2]string{
		{"keys: [" + entry("abcdefgh", "reports") + "]", "does not begin with URI:, DNS: or email:"},
		{"keys: [" + entry("abcdefgh", "'DNS:'") + "]", "does not begin with"},
		{"keys: [" + entry("abcdefgh", "") + "]", "sha256 is not 64"},
		{"keys: [" + entry("abcdefgh", "'DNS:a'") + ", " + entry("abcdefgi", "'DNS:a'") + "]", "DNS:a is there twice"},
		{issuer("http://example.com", "audience: a, rules: ["+rule+"]"), "is not an https URL"},
		{issuer("https://user@example.com", "audience: a, rules: ["+rule+"]"), "is not an https URL"},
		{issuer("example.com", "audience: a, rules: ["+rule+"]"), "is not an https URL"},
		{issuer("https://example.com", "rules: ["+rule+"]"), "has no audience"},
		{issuer("https://example.com", "audience: a"), "has no rules"},
		{issuer("https://example.com", "audience: a, rules: [{name: a, scopes: [read], projects: [a]}]"), "no claims"},
		{issuer("https://example.com", "audience: a, rules: [{claims: {sub: a}, scopes: [read]}]"), "has no name"},
		{
			issuer("https://example.com", "audience: a, rules: [{name: a, claims: {sub: ''}, scopes: [read]}]"),
			"an empty claim",
		},
		{issuer("https://example.com", "audience: a, rules: [{name: a, claims: {sub: a}, scopes: [all]}]"), `no scope "all"`},
		{
			issuer("https://example.com", "audience: a, rules: [{name: a, claims: {sub: a}, projects: ['*']}]"),
			"rule a has no scopes",
		},
		{
			issuer("https://example.com", "audience: a, rules: [{name: a, claims: {sub: a}, scopes: [read]}]"),
			"rule a has no projects",
		},
		{issuer("https://example.com", "audience: a, algorithms: [none], rules: ["+rule+"]"), "algorithms"},
		{
			issuer("https://example.com", "audience: a, rules: [{name: a, claims: {sub: a}, scopes: [read], projects: [a], "+
				"room_prefixes: }]"),
			"room_prefixes has no value",
		},
		{
			"oidc: [{issuer: 'https://a.b', audience: a, rules: [" + rule + "]}, " +
				"{issuer: 'https://a.b', audience: b, rules: [" + rule + "]}]",
			"is there twice",
		},
	} {
		text, want := c[0], c[1]
		if _, err := ParseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseKeys(%s) = %v; want %q", text, err, want)
		}
	}
	for _, text := range []string{
		issuer("https://example.com/realms/a", "audience: a, rules: ["+rule+"]"),
		issuer("http://127.0.0.1:1", "audience: a, rules: ["+rule+"]"),
		issuer("http://localhost:1", "audience: a, rules: ["+rule+"]") + "\n" + strings.TrimSpace(certified),
	} {
		if _, err := ParseKeys([]byte(text)); err != nil {
			t.Errorf("ParseKeys(%s) = %v", text, err)
		}
	}
	keys := openText(t, issuer("https://example.com", "audience: a, rules: ["+rule+"]"))
	if got := keys.Issuers(); len(got) != 1 || got[0].Rules[0].Caller.Name != "oidc:a" {
		t.Errorf("Issuers = %+v", got)
	}
}
