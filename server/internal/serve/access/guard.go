package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// Request is what a call shows of its caller.
type Request struct {
	// Authorization holds the values of the header; one is expected.
	Authorization []string
	// Certificate is the client's certificate if the connection has one that was
	// verified.
	Certificate *x509.Certificate
	// Address is that of the client; see [Networks.Client]. The zero address is that of a
	// caller within the process, which is not limited.
	Address netip.Addr
}

// CertificateOf returns the client's certificate if the connection has one that was
// verified. The state is nil for connections without TLS.
func CertificateOf(connection *tls.ConnectionState) *x509.Certificate {
	if connection == nil || len(connection.VerifiedChains) == 0 {
		return nil
	}
	return connection.PeerCertificates[0]
}

// Credential is what an [Authenticator] looks at.
type Credential struct {
	// Bearer is the token, empty if there is none.
	Bearer string
	// Digest is the SHA-256 of Bearer.
	Digest [sha256.Size]byte
	// Certificate is nil if there is none.
	Certificate *x509.Certificate
}

// Authenticator returns whose credential it is, or [ErrUnknown] if it does not know. It
// fails with a [fault.Error] if no other one shall be asked, for example because it
// cannot find out now.
type Authenticator func(ctx context.Context, c Credential) (Caller, error)

// ErrUnknown means that an [Authenticator] does not know the credential.
var ErrUnknown = errors.New("the credential is unknown")

// Tokens returns an Authenticator for tokens that may do everything. Several can be
// valid at a time, for rotation. An empty token is never valid.
func Tokens(tokens []string) Authenticator {
	digests := make([][sha256.Size]byte, len(tokens))
	for i, token := range tokens {
		digests[i] = sha256.Sum256([]byte(token))
	}
	return func(_ context.Context, c Credential) (Caller, error) {
		valid := 0
		// Compare with every token, so the duration does not reveal which one matched.
		for i := range digests {
			valid |= subtle.ConstantTimeCompare(digests[i][:], c.Digest[:])
		}
		if valid == 0 || c.Bearer == "" {
			return Caller{}, ErrUnknown
		}
		return Everything("token"), nil
	}
}

// Guard finds out who calls. The nil Guard refuses everybody.
type Guard struct {
	open           bool
	authenticators []Authenticator
	now            func() time.Time
	failures       *failures
	denied         func(Denial)
}

// GuardConfig configures a [Guard].
type GuardConfig struct {
	// Authenticators are asked in turn. Without any, everybody may do everything.
	Authenticators []Authenticator
	Now            func() time.Time
	Log            *slog.Logger
	// Denied, if set, is told of each refused call. It must not wait.
	Denied func(Denial)
}

// Denial is a call that was refused.
type Denial struct {
	// Caller is nil if it is unknown.
	Caller  *Caller
	Address netip.Addr
	// Method is the name of the method; empty if the caller is unknown.
	Method string
	Reason fault.Reason
}

// NewGuard returns a Guard.
func NewGuard(cfg GuardConfig) *Guard {
	return &Guard{
		open: len(cfg.Authenticators) == 0, authenticators: cfg.Authenticators, now: cfg.Now,
		failures: newFailures(cfg.Now, cfg.Log), denied: cfg.Denied,
	}
}

// Open reports whether everybody may do everything.
func (g *Guard) Open() bool { return g != nil && g.open }

// Identify returns who sent a request. An address that has sent too many wrong
// credentials is refused for a while, except with those that were right from it before.
func (g *Guard) Identify(ctx context.Context, r Request) (Caller, error) {
	if g.Open() {
		caller := Everything("anybody")
		caller.Address = r.Address
		return caller, nil
	}
	c, err := credentialOf(r)
	id := sourceOf(r.Address, c)
	if err != nil {
		return Caller{}, g.refuse(ctx, r.Address, id, err)
	}
	if g == nil {
		return Caller{}, fault.New(fault.Unauthentic, fault.ReasonCredentialInvalid, notValid)
	}
	if wait := g.failures.limited(id); wait > 0 {
		err := fault.New(fault.Busy, fault.ReasonCredentialsLimited,
			"too many wrong credentials came from this address; wait before you try again").After(wait)
		return Caller{}, g.refuse(ctx, r.Address, id, err)
	}
	for _, authenticate := range g.authenticators {
		caller, err := authenticate(ctx, c)
		switch {
		case errors.Is(err, ErrUnknown):
			continue
		case err != nil:
			return Caller{}, g.refuse(ctx, r.Address, id, err)
		case !caller.Expires.IsZero() && !g.now().Before(caller.Expires):
			return Caller{}, g.refuse(ctx, r.Address, id, fault.New(fault.Unauthentic, fault.ReasonCredentialExpired,
				"the credential has expired"))
		}
		if caller.Scopes != 0 { // or it is a token of an issuer that anybody may have
			g.failures.passed(id)
		}
		caller.Address = r.Address
		return caller, nil
	}
	return Caller{}, g.refuse(ctx, r.Address, id, fault.New(fault.Unauthentic, fault.ReasonCredentialInvalid,
		notValid))
}

// notValid is said of every credential that is not accepted, whatever the cause.
const notValid = "the credential is not valid"

// Denied counts and returns the refusal of a call whose caller is known but may not do this,
// or that needs no caller, but another address. The caller may be nil, and the method empty.
func (g *Guard) Denied(caller *Caller, address netip.Addr, method string, err *fault.Error) error {
	if g != nil {
		g.failures.count(err.Reason)
		g.tell(Denial{caller, address, method, err.Reason})
	}
	return err
}

func (g *Guard) tell(d Denial) {
	if g.denied != nil {
		g.denied(d)
	}
}

// Refused returns how many calls were refused because of their credential since the
// process started, by reason.
func (g *Guard) Refused() map[fault.Reason]int64 { return g.failures.counts() }

// refuse counts and logs a refusal, and returns it.
func (g *Guard) refuse(ctx context.Context, address netip.Addr, from source, err error) error {
	if g != nil {
		g.failures.add(ctx, address, from, fault.Of(err).Reason)
		g.tell(Denial{Address: address, Reason: fault.Of(err).Reason})
	}
	return err
}

// credentialOf returns the credential of a request.
func credentialOf(r Request) (Credential, error) {
	c := Credential{Certificate: r.Certificate}
	switch len(r.Authorization) {
	case 0:
	case 1:
		scheme, token, _ := strings.Cut(r.Authorization[0], " ")
		if strings.EqualFold(scheme, "Bearer") {
			c.Bearer = strings.Trim(token, " ")
		}
	default: // it is unclear which one counts
		return c, fault.New(fault.Unauthentic, fault.ReasonCredentialInvalid, "more than one credential was given")
	}
	if c.Bearer == "" && c.Certificate == nil {
		return c, fault.New(fault.Unauthentic, fault.ReasonCredentialMissing,
			"a credential is needed: a bearer token, or a client certificate")
	}
	c.Digest = sha256.Sum256([]byte(c.Bearer))
	return c, nil
}
