// Package oidc accepts the signed tokens of OIDC issuers, of people and of workloads. It
// verifies them with the keys that the issuer publishes, and says by their claims who
// calls. No token is logged, in whole or in part.
package oidc

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

const (
	// Skew is how far the clock of an issuer may differ from ours: by so much later a token
	// may be used, and earlier.
	Skew = time.Minute
	// maxToken is the longest token, in bytes. It is decoded before its signature is
	// checked.
	maxToken = 16 << 10
)

// algorithms are those of signatures. An issuer has the private key alone, so one who can
// verify cannot sign.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256}

// Config configures [New].
type Config struct {
	// Issuers returns those that are accepted now. It is called for every token.
	Issuers func() []access.Issuer
	Now     func() time.Time
	Log     *slog.Logger
}

// Tokens accepts tokens of the configured issuers.
type Tokens struct {
	cfg    Config
	client *http.Client

	mu   sync.Mutex
	keys map[string]*keySet // by the issuer's URL
}

// New returns Tokens. Issuers are first asked for their keys when a token comes.
func New(cfg Config) *Tokens {
	return &Tokens{cfg: cfg, client: newClient(), keys: make(map[string]*keySet)}
}

// Authenticate says who calls with a token. It is an [access.Authenticator]. What is no
// token of a configured issuer is unknown to it.
func (t *Tokens) Authenticate(ctx context.Context, c access.Credential) (access.Caller, error) {
	issuers := t.cfg.Issuers()
	url := issuerOf(c.Bearer)
	i := slices.IndexFunc(issuers, func(i access.Issuer) bool { return i.URL == url })
	if i < 0 || url == "" {
		return access.Caller{}, access.ErrUnknown
	}
	issuer := issuers[i]
	keys := &asked{keySet: t.keysOf(url)}
	verifier := gooidc.NewVerifier(url, keys, &gooidc.Config{
		ClientID: issuer.Audience, SupportedSigningAlgs: []string{gooidc.RS256, gooidc.ES256},
		SkipExpiryCheck: true, // it allows for no difference of clocks
	})
	token, err := verifier.Verify(ctx, c.Bearer)
	switch {
	case keys.unavailable != nil:
		return access.Caller{}, keys.unavailable
	case err != nil:
		return access.Caller{}, invalid(err)
	}
	var claims map[string]any
	var times struct {
		NotBefore float64 `json:"nbf"`
	}
	if err := cmp.Or(token.Claims(&claims), token.Claims(&times)); err != nil {
		return access.Caller{}, invalid(err)
	}
	now := t.cfg.Now()
	switch end := token.Expiry.Add(Skew); {
	case token.Expiry.IsZero():
		return access.Caller{}, invalid(errors.New("the token has no time at which it expires"))
	case !now.Before(end):
		return access.Caller{}, fault.New(fault.Unauthentic, fault.ReasonCredentialExpired, "the token has expired")
	case float64(now.Add(Skew).Unix()) < times.NotBefore:
		return access.Caller{}, invalid(errors.New("the token is not valid yet"))
	default:
		for _, rule := range issuer.Rules {
			if rule.Matches(claims) {
				caller := rule.Caller
				caller.Expires = end
				return caller, nil
			}
		}
	}
	// The token is right and may do nothing: the issuer knows many who have no business here.
	return access.Caller{Name: "token without a rule"}, nil
}

func invalid(cause error) error {
	return fault.Wrap(cause, fault.Unauthentic, fault.ReasonCredentialInvalid, "the bearer token is not valid")
}

// keysOf returns the keys of an issuer.
func (t *Tokens) keysOf(url string) *keySet {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.keys[url]
	if k == nil {
		k = newKeySet(url, t.client, t.cfg.Now, t.cfg.Log)
		t.keys[url] = k
	}
	return k
}

// issuerOf returns the issuer that a token names. Nothing is verified yet. It is empty for what is no
// token.
func issuerOf(bearer string) string {
	parts := strings.Split(bearer, ".")
	if len(parts) != 3 || len(bearer) > maxToken {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Issuer
}
