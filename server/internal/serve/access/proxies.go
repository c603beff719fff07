package access

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Networks are ranges of addresses.
type Networks []netip.Prefix

// Contain reports whether an address is in one of the ranges.
func (n Networks) Contain(address netip.Addr) bool {
	address = plain(address)
	return slices.ContainsFunc(n, func(network netip.Prefix) bool { return network.Contains(address) })
}

// Client returns the address that a request comes from, if n are the addresses of the
// proxies that can be trusted. peer is the other end of the connection, as PeerOf returns it.
// forwarded are the values of X-Forwarded-For, to which each proxy appends from whom it
// got the request. They are read from the right, as long as those who said so are
// trusted: what stands further to the left anybody may have written.
func (n Networks) Client(peer netip.Addr, forwarded []string) netip.Addr {
	client := peer
	if len(n) == 0 || len(forwarded) == 0 {
		return client
	}
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !n.Contain(client) {
			break
		}
		next, ok := parseAddress(strings.TrimSpace(hop))
		if !ok {
			break
		}
		client = next
	}
	return client
}

// PeerOf returns the address of the other end of a connection; the zero address if it has
// none, as within the process.
func PeerOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return plain(tcp.AddrPort().Addr())
	}
	return ParsePeer(a.String())
}

// ParsePeer is PeerOf for the text of an address, host and port.
func ParsePeer(s string) netip.Addr {
	address, _ := parseAddress(s)
	return address
}

// plain returns an address as they are compared: without a zone, and one of IPv4 as such.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// parseAddress parses an address, with or without a port.
func parseAddress(s string) (netip.Addr, bool) {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return plain(a), err == nil
}
