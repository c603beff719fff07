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
		return s.guard.Denied(caller, netip.Addr{}, "",
			fault.New(fault.Forbidden, fault.ReasonScopeMissing, "no caller may use this method"))
	case rule.Open:
		if p, ok := peer.FromContext(ctx); method == receiveWebhook && (!ok || p.Addr != inproc.Addr{}) {
			address, _ := s.source(ctx)
			if err := s.Deliver(address); err != nil {
				return err
			}
		} // the gateway has asked before
		return next(ctx)
	case !known:
		address, certificate := s.source(ctx)
		found, err := s.guard.Identify(ctx, access.Request{
			Authorization: metadata.ValueFromIncomingContext(ctx, "authorization"),
			Certificate:   certificate,
			Address:       address,
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
	return s.guard.Denied(nil, address, "", fault.New(fault.Forbidden, fault.ReasonAddressNotAllowed,
		"webhooks are not accepted from this address"))
}

// AddressOf returns the address of the client of a call. peer is the other end of its
// connection, and forwarded are the values of X-Forwarded-For.
func (s *Services) AddressOf(peer netip.Addr, forwarded []string) netip.Addr {
	return s.proxies.Client(peer, forwarded)
}

// source returns the address of the client of a call and its certificate; neither for
// calls from within the process.
func (s *Services) source(ctx context.Context) (netip.Addr, *x509.Certificate) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}, nil
	}
	address := s.AddressOf(access.PeerOf(p.Addr), metadata.ValueFromIncomingContext(ctx, "x-forwarded-for"))
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		return address, access.CertificateOf(&info.State)
	}
	return address, nil
}
