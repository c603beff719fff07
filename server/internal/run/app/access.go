package app

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/oidc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
)

// newGuard returns what finds out who calls. Without any credential in the settings
// everybody on this machine may do everything.
func (a *App) newGuard() (*access.Guard, error) {
	cfg := access.GuardConfig{Now: time.Now, Log: a.log, Denied: func(d access.Denial) { a.audit.Denied(d) }}
	if len(a.cfg.APIToken) > 0 {
		cfg.Authenticators = append(cfg.Authenticators, access.Tokens(config.Reveal(a.cfg.APIToken)))
	}
	if a.cfg.KeysFile != "" {
		keys, err := access.OpenKeys(a.cfg.KeysFile, a.log)
		if err != nil {
			return nil, &config.Error{Setting: "MIRROR_KEYS_FILE", Problem: fmt.Sprintf(
				"cannot be used: %v; `liveblocks-mirror keys new` prints entries for it", err)}
		}
		tokens := oidc.New(oidc.Config{Issuers: keys.Issuers, Now: time.Now, Log: a.log})
		cfg.Authenticators = append(cfg.Authenticators, keys.Authenticate, keys.Certificates(time.Now), tokens.Authenticate)
		a.background = append(a.background, component{"keys file", keys.Run})
	}
	return access.NewGuard(cfg), nil
}

// entrance decides about HTTP requests before they become calls.
type entrance struct {
	guard    *access.Guard
	services *rpc.Services
}

// authorize finds out who sent a request, and tells the call.
func (e *entrance) authorize(r *http.Request) (context.Context, error) {
	ctx := r.Context()
	if keyInURL(r.URL) {
		return nil, rpc.Refusal(ctx, fault.New(fault.Invalid, fault.ReasonRequestInvalid, "the URL contains a key: URLs "+
			"end up in logs; send it as a bearer token in the Authorization header, and replace the key"))
	}
	caller, err := e.guard.Identify(ctx, access.Request{
		Authorization: r.Header["Authorization"], Certificate: access.CertificateOf(r.TLS), Address: e.address(r),
	})
	if err != nil {
		return nil, rpc.Refusal(ctx, err)
	}
	return access.Into(ctx, caller), nil
}

// deliver refuses webhooks from addresses from which none are accepted.
func (e *entrance) deliver(r *http.Request) error {
	if err := e.services.Deliver(e.address(r)); err != nil {
		return rpc.Refusal(r.Context(), err)
	}
	return nil
}

func (e *entrance) address(r *http.Request) netip.Addr {
	return e.services.AddressOf(access.ParsePeer(r.RemoteAddr), r.Header["X-Forwarded-For"])
}

// keyInURL reports whether a key is in a path or a query, escaped or not.
func keyInURL(u *url.URL) bool {
	if access.HasKey(u.Path) || access.HasKey(u.RawQuery) {
		return true
	}
	query, err := url.QueryUnescape(u.RawQuery)
	return err == nil && access.HasKey(query)
}
