package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

const (
	// refreshAfter is how long keys are used before the issuer is asked again, so that one
	// which it has withdrawn is accepted no longer than that.
	refreshAfter = 10 * time.Minute
	// keepFor is how long keys are used if the issuer does not answer.
	keepFor = time.Hour
	// An unknown key may be new, so the issuer is asked at once. Anybody can name unknown
	// keys, so that is limited.
	askBurst, askEvery = 5, 10 * time.Second
	// askTimeout bounds one question, and maxAnswer each of its two answers, in bytes.
	askTimeout = 5 * time.Second
	maxAnswer  = 1 << 20
	// maxText is how much is kept of an error, which may hold a whole page.
	maxText = 300
	// minRSA is the least size of an RSA key in bits.
	minRSA = 2048
)

// keySet holds the public keys of an issuer.
type keySet struct {
	issuer string
	client *http.Client
	now    func() time.Time
	log    *slog.Logger
	asks   *rate.Limiter

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time     // when the issuer was asked for keys
	failed  error         // why the last question had no answer
	asking  chan struct{} // closed when the question that is being put is answered; nil if none is
}

func newKeySet(issuer string, client *http.Client, now func() time.Time, log *slog.Logger) *keySet {
	return &keySet{
		issuer: issuer, client: client, now: now, log: log, asks: rate.NewLimiter(rate.Every(askEvery), askBurst),
	}
}

// asked is a keySet for one token. It remembers that the keys are not available, which
// the verifier turns to text.
type asked struct {
	*keySet

	unavailable error
}

var _ gooidc.KeySet = (*asked)(nil)

// VerifySignature returns what a key of the issuer has signed.
func (a *asked) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, err
	}
	header := signed.Signatures[0].Protected
	keys, err := a.find(ctx, header.KeyID)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		a.unavailable = f
	}
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := signed.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("no key of the issuer has made this signature")
}

// errUnknownKey means that the issuer has no such key.
var errUnknownKey = errors.New("the issuer does not publish the key that the token names")

// find returns the keys with an id, or all for a token without one. It asks the issuer if that has to
// be. Who finds a usable key never waits for others.
func (s *keySet) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	for fresh := false; ; {
		s.mu.Lock()
		age, found, asking, failed := s.now().Sub(s.fetched), withID(s.keys, id), s.asking, s.failed
		usable := len(found) > 0 && age < keepFor
		mine := asking == nil && !fresh && (!usable || age >= refreshAfter) && s.asks.AllowN(s.now(), 1)
		if mine {
			s.asking = make(chan struct{})
		}
		s.mu.Unlock()
		switch {
		case mine:
			s.ask(ctx)
			fresh = true
		case usable:
			return found, nil
		case asking != nil && !fresh:
			select {
			case <-asking: // which may have begun before the issuer had the key
			case <-ctx.Done():
				return nil, unavailable(ctx.Err())
			}
		case failed != nil:
			return nil, unavailable(failed)
		case fresh:
			return nil, errUnknownKey
		default:
			return nil, unavailable(errors.New("the issuer was asked for unknown keys too often"))
		}
	}
}

func unavailable(cause error) error {
	return fault.Wrap(cause, fault.Unavailable, fault.ReasonIssuerUnavailable,
		"the keys of the token's issuer are not available").After(askEvery)
}

// ask asks the issuer for its keys. The answer is for all, so it does not end with ctx.
func (s *keySet) ask(ctx context.Context) {
	begun := s.now()
	keys, err := s.fetch(ctx)
	if err != nil && len(err.Error()) > maxText {
		err = errors.New(err.Error()[:maxText])
	}
	s.mu.Lock()
	before := s.failed
	s.failed = err
	if err == nil {
		s.keys, s.fetched = keys, begun
	}
	close(s.asking)
	s.asking = nil
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.log.WarnContext(ctx, "the keys of an OIDC issuer cannot be fetched", slog.String("issuer", s.issuer),
			slog.Any("error", err))
	case err == nil && before != nil:
		s.log.InfoContext(ctx, "the keys of an OIDC issuer can be fetched again", slog.String("issuer", s.issuer))
	}
}

func (s *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	provider, err := gooidc.NewProvider(gooidc.ClientContext(ctx, s.client), s.issuer)
	if err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	var configuration struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&configuration); err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	if at, err := url.Parse(configuration.Keys); err != nil || !access.Secure(at) {
		return nil, errors.New("the jwks_uri of its configuration is no https URL")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, configuration.Keys, nil)
	if err != nil {
		return nil, fmt.Errorf("read its keys: %w", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read its keys: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read its keys: %s", resp.Status)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		return nil, fmt.Errorf("read its keys: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, text := range set.Keys {
		var key jose.JSONWebKey
		// Kinds of keys that we do not know are of no use here.
		if json.Unmarshal(text, &key) == nil && verifies(key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it publishes no RSA or P-256 key for signatures")
	}
	return keys, nil
}

// verifies reports whether signatures that we accept can be verified with a key.
func verifies(key jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return public.Curve == elliptic.P256()
	default:
		return false
	}
}

func withID(keys []jose.JSONWebKey, id string) (found []jose.JSONWebKey) {
	for _, key := range keys {
		if id == "" || key.KeyID == id {
			found = append(found, key)
		}
	}
	return found
}

// newClient returns a client that reads short answers. It keeps no connection: it makes
// two requests in ten minutes.
func newClient() *http.Client {
	return &http.Client{Timeout: askTimeout, CheckRedirect: checkRedirect, Transport: limited{&http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}}}
}

// checkRedirect keeps the client from where its answers could be forged.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > 3 || !access.Secure(req.URL) {
		return errors.New("it redirects too often, or to what is no https URL")
	}
	return nil
}

// limited cuts answers off at maxAnswer.
type limited struct{ *http.Transport }

// RoundTrip makes a request.
func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}
