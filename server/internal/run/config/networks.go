package config

import (
	"errors"
	"net/netip"
	"strings"
)

// Networks are ranges of addresses.
type Networks struct{ Ranges []netip.Prefix }

const networksForm = "addresses or ranges of them, separated by commas, such as 10.0.0.0/8,2001:db8::1"

// UnmarshalText takes ranges, or single addresses, separated by commas.
func (n *Networks) UnmarshalText(text []byte) error {
	n.Ranges = nil
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		network, err := netip.ParsePrefix(part)
		if address, single := netip.ParseAddr(part); single == nil {
			network, err = netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()), nil
		}
		if err != nil || network.Addr().Is4In6() {
			return errors.New("must be " + networksForm)
		}
		n.Ranges = append(n.Ranges, network.Masked())
	}
	if len(text) > 0 && n.Ranges == nil { // which would mean all addresses, or none
		return errors.New("must be " + networksForm)
	}
	return nil
}

// MarshalText returns the ranges as they are written.
func (n Networks) MarshalText() ([]byte, error) {
	words := make([]string, len(n.Ranges))
	for i, network := range n.Ranges {
		words[i] = network.String()
	}
	return []byte(strings.Join(words, ",")), nil
}
