package rpc

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// Authenticator authenticates callers by bearer tokens. Several can be valid at a
// time, for rotation. The nil Authenticator refuses all callers.
type Authenticator struct {
	// digests of the tokens: equal lengths allow comparison in constant time, and a
	// memory dump does not reveal the tokens.
	digests [][sha256.Size]byte
}

// NewAuthenticator returns an Authenticator for the tokens. Without tokens it
// accepts every caller. An empty token is never valid, and a list of only empty
// tokens refuses all callers: it is a mistake, not a wish to be open.
func NewAuthenticator(tokens []string) *Authenticator {
	a := &Authenticator{}
	for _, token := range tokens {
		a.digests = append(a.digests, sha256.Sum256([]byte(token)))
	}
	return a
}

// Open reports whether every caller is accepted.
func (a *Authenticator) Open() bool { return a != nil && len(a.digests) == 0 }

// Check checks the value of an Authorization header, empty if absent.
func (a *Authenticator) Check(header string) error {
	if a.Open() {
		return nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return fault.New(fault.Unauthentic, fault.ReasonCredentialMissing, "a bearer token is needed")
	}
	valid := 0
	if a != nil {
		digest := sha256.Sum256([]byte(token))
		// Compare with every token, so the duration does not reveal which one
		// matched.
		for i := range a.digests {
			valid |= subtle.ConstantTimeCompare(a.digests[i][:], digest[:])
		}
	}
	if valid == 0 {
		return fault.New(fault.Unauthentic, fault.ReasonCredentialInvalid, "the bearer token is not valid")
	}
	return nil
}
