package access

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// certificateNames returns the names in a certificate, each with its kind before it, as OpenSSL
// writes them. The kind is a part of the name: who may have one may not have the other.
func certificateNames(c *x509.Certificate) (names []string) {
	for _, uri := range c.URIs {
		names = append(names, "URI:"+uri.String())
	}
	for _, name := range c.DNSNames {
		names = append(names, "DNS:"+name)
	}
	for _, address := range c.EmailAddresses {
		names = append(names, "email:"+address)
	}
	return names
}

func checkCertificateName(name string) error {
	for _, kind := range []string{"URI:", "DNS:", "email:"} {
		if rest, ok := strings.CutPrefix(name, kind); ok && rest != "" {
			return nil
		}
	}
	return fmt.Errorf("the certificate %q does not begin with URI:, DNS: or email:, as in DNS:reports.example.com", name)
}

func newCertificates(entries []KeyEntry, keys keySet) (map[string]*storedKey, error) {
	names := map[string]*storedKey{}
	for i := range entries {
		for _, name := range entries[i].Certificates {
			if names[name] != nil {
				return nil, fmt.Errorf("the certificate %s is there twice", name)
			}
			names[name] = keys[entries[i].ID]
		}
	}
	return names, nil
}

// Certificates returns an [Authenticator] for client certificates that have the name of a
// key. A bearer token goes first: who passes calls on with a certificate of its own says
// with the token for whom.
func (k *Keys) Certificates(now func() time.Time) Authenticator {
	return func(_ context.Context, c Credential) (Caller, error) {
		if c.Bearer != "" || c.Certificate == nil {
			return Caller{}, ErrUnknown
		}
		// The connection may be older than that.
		if now().After(c.Certificate.NotAfter) {
			return Caller{}, fault.New(fault.Unauthentic, fault.ReasonCredentialExpired, "the client certificate has expired")
		}
		var found *storedKey
		keys := k.all.Load().certificates
		for _, name := range certificateNames(c.Certificate) {
			key := keys[name]
			switch {
			case key == nil:
			case found != nil && found != key:
				return Caller{}, fault.New(fault.Unauthentic, fault.ReasonCredentialInvalid,
					"the client certificate has the names of several keys")
			default:
				found = key
			}
		}
		if found == nil {
			return Caller{}, ErrUnknown
		}
		return found.caller, nil
	}
}

// IssuerEntry is an OIDC issuer in the keys file.
type IssuerEntry struct {
	// Issuer is its URL, as in its tokens.
	Issuer string `yaml:"issuer"`
	// Audience must be among those of a token.
	Audience string `yaml:"audience"`
	// Rules are tried in order.
	Rules []struct {
		// Name is in the log.
		Name string `yaml:"name"`
		// Claims are what a token must have, all of them.
		Claims map[string]string `yaml:"claims"`
		// What such a token may do, as in a [KeyEntry].
		Scopes       []string           `yaml:"scopes"`
		Projects     []mirror.ProjectID `yaml:"projects"`
		RoomPrefixes []string           `yaml:"room_prefixes"`
	} `yaml:"rules"`
}

// Issuer is an OIDC issuer whose tokens are accepted.
type Issuer struct {
	// URL is the issuer as in its tokens. Its configuration is at
	// /.well-known/openid-configuration below.
	URL string
	// Audience must be among those of a token: it is meant for this service.
	Audience string
	// Rules are tried in order; the first that matches counts.
	Rules []IssuerRule
}

// IssuerRule says who calls with a token that has certain claims.
type IssuerRule struct {
	// Claims are those that a token must have, all of them. A claim is this text, or a list
	// with this text in it.
	Claims map[string]string
	// Caller is who calls.
	Caller Caller
}

// Issuers returns those whose tokens are accepted now.
func (k *Keys) Issuers() []Issuer { return k.all.Load().issuers }

func newIssuers(entries []IssuerEntry) (issuers []Issuer, err error) {
	for _, e := range entries {
		u, err := url.Parse(e.Issuer)
		switch {
		case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !Secure(u):
			return nil, fmt.Errorf("the issuer %q is not an https URL without user, query and fragment", e.Issuer)
		case e.Audience == "":
			return nil, fmt.Errorf("the issuer %s has no audience; without one, tokens for others would do", e.Issuer)
		case len(e.Rules) == 0:
			return nil, fmt.Errorf("the issuer %s has no rules", e.Issuer)
		case slices.ContainsFunc(issuers, func(i Issuer) bool { return i.URL == e.Issuer }):
			return nil, fmt.Errorf("the issuer %s is there twice", e.Issuer)
		}
		issuer := Issuer{URL: e.Issuer, Audience: e.Audience}
		for _, r := range e.Rules {
			if r.Name == "" || len(r.Claims) == 0 || slices.Contains(slices.Collect(maps.Values(r.Claims)), "") {
				return nil, fmt.Errorf("a rule of the issuer %s has no name, no claims, or an empty claim; without claims, every "+
					"token of the issuer would do", e.Issuer)
			}
			allowed := KeyEntry{ID: "oidc:" + r.Name, Scopes: r.Scopes, Projects: r.Projects, RoomPrefixes: r.RoomPrefixes}
			caller, err := allowed.permissions("rule " + r.Name)
			if err != nil {
				return nil, err
			}
			issuer.Rules = append(issuer.Rules, IssuerRule{Claims: r.Claims, Caller: caller})
		}
		issuers = append(issuers, issuer)
	}
	return issuers, nil
}

// Secure reports whether u is fetched over TLS, or from this machine.
func Secure(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback())
}

// Matches reports whether a token with these claims falls under the rule. An address that the issuer
// has not verified may be anybody's.
func (r IssuerRule) Matches(claims map[string]any) bool {
	for name, want := range r.Claims {
		switch got := claims[name].(type) {
		case string:
			if got != want {
				return false
			}
		case []any:
			if !slices.Contains(got, any(want)) {
				return false
			}
		default:
			return false
		}
		if name == "email" && claims["email_verified"] != true {
			return false
		}
	}
	return len(r.Claims) > 0
}
