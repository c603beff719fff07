package rpc

import (
	"context"
	"crypto/x509"
	"net/netip"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/inproc"
)

// authenticate finds out who calls, and refuses who may not call the method. Deliveries
// carry a signature instead, and probes nothing.
func (s *Services) authenticate(ctx context.Context, method string, next func(context.Context) error) error {
	rule, ok := access.RuleOf(method)
	caller, known := access.From(ctx) // of a call from within the process
	switch {
	case !ok:
		return s.guard.Denied(fault.New(fault.Forbidden, fault.ReasonScopeMissing, "no caller may use this method"))
	case rule.Open:
		if p, ok := peer.FromContext(ctx); method == receiveWebhook && (!ok || p.Addr != inproc.Addr{}) {
			if err := s.Deliver(s.addressOf(ctx)); err != nil {
				return err
			}
		} // the gateway has asked before
		return next(ctx)
	case !known:
		found, err := s.guard.Identify(ctx, access.Request{
			Authorization: metadata.ValueFromIncomingContext(ctx, "authorization"),
			Certificate:   certificateOf(ctx),
			Address:       s.addressOf(ctx),
		})
		if err != nil {
			return err
		}
		caller, ctx = &found, access.Into(ctx, found)
	}
	if err := s.guard.Permit(rule, caller); err != nil {
		return err
	}
	return next(ctx)
}

// Deliver refuses a delivery from an address from which none are accepted.
func (s *Services) Deliver(address netip.Addr) error {
	if s.allow == nil || s.allow.Contain(address) {
		return nil
	}
	return s.guard.Denied(fault.New(fault.Forbidden, fault.ReasonAddressNotAllowed,
		"webhooks are not accepted from this address"))
}

// addressOf returns the address of the client of a call; the zero address for calls from
// within the process.
func (s *Services) addressOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}
	}
	return s.proxies.Client(p.Addr.String(), metadata.ValueFromIncomingContext(ctx, "x-forwarded-for"))
}

// certificateOf returns the client's certificate if the connection has one that was
// verified.
func certificateOf(ctx context.Context) *x509.Certificate {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0]
}
