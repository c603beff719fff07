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
	address = address.Unmap().WithZone("")
	return slices.ContainsFunc(n, func(network netip.Prefix) bool { return network.Contains(address) })
}

// Client returns the address that a request comes from, if n are the addresses of the
// proxies that can be trusted. peer is the other end of the connection, host and port.
// forwarded are the values of X-Forwarded-For, to which each proxy appends from whom it
// got the request. They are read from the right, as long as those who said so are
// trusted: what stands further to the left anybody may have written. The result is the
// zero address if peer is none.
func (n Networks) Client(peer string, forwarded []string) netip.Addr {
	client, _ := parseAddress(peer)
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

// parseAddress parses an address, with or without a port.
func parseAddress(s string) (netip.Addr, bool) {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap().WithZone(""), err == nil
}
