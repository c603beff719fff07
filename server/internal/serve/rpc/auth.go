package rpc

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// Authenticator decides by bearer tokens who may call. Several are valid at a
// time so that they can be rotated. The nil Authenticator lets nobody in.
type Authenticator struct {
	// digests of the tokens: equal lengths make a comparison in constant time
	// possible, and a dump of the memory does not show the tokens.
	digests [][sha256.Size]byte
}

// NewAuthenticator returns an Authenticator for the tokens. Without any,
// everybody may call. An empty token is never valid, and a list of nothing else
// lets nobody in: it is a setting gone wrong, not a wish to be open.
func NewAuthenticator(tokens []string) *Authenticator {
	a := &Authenticator{}
	for _, token := range tokens {
		a.digests = append(a.digests, sha256.Sum256([]byte(token)))
	}
	return a
}

// Open reports whether everybody may call.
func (a *Authenticator) Open() bool { return a != nil && len(a.digests) == 0 }

// Check judges the value of an Authorization header, empty if there is none.
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
		// Every token is compared, so that the time tells nothing of which matched.
		for i := range a.digests {
			valid |= subtle.ConstantTimeCompare(a.digests[i][:], digest[:])
		}
	}
	if valid == 0 {
		return fault.New(fault.Unauthentic, fault.ReasonCredentialInvalid, "the bearer token is not valid")
	}
	return nil
}
