package access

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

const (
	// failuresPerWindow is how many different wrong credentials an address may send within
	// failureWindow. Repeating one guesses nothing: that is a caller with an old key, or
	// with a new one that is about to be read. A key has 256 random bits and cannot be
	// guessed at any rate; what is limited is what wrong ones cost, and guesses at a token
	// that is not random.
	failuresPerWindow = 100
	failureWindow     = time.Minute
	// maxAddresses is how many addresses are remembered. Beyond it, some are forgotten.
	maxAddresses = 4096
	// maxPassed is how many pairs of an address and its right credential are remembered.
	maxPassed = 4096
	// failureLogEvery is the shortest time between two log lines.
	failureLogEvery = 10 * time.Second
)

// source is where a credential comes from, with the credential itself.
type source struct {
	network netip.Prefix
	digest  [16]byte
}

func sourceOf(address netip.Addr, c Credential) source {
	s := source{network: networkOf(address), digest: [16]byte(c.Digest[:16])}
	if c.Bearer == "" && c.Certificate != nil {
		s.digest = [16]byte{} // the handshake has proven whose certificate it is
	}
	return s
}

// networkOf returns what is limited together: an address, or the part of an IPv6 address
// that one customer gets.
func networkOf(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	p, _ := address.Prefix(bits) // of the zero address: the zero prefix
	return p
}

// failures counts wrong credentials, and limits the addresses that they come from. Right
// ones take no lock.
type failures struct {
	now     func() time.Time
	log     *slog.Logger
	reasons map[fault.Reason]*atomic.Int64
	// blocked says until when an address is limited. It is replaced when it changes.
	blocked atomic.Pointer[map[netip.Prefix]time.Time]
	// right has a source for each credential that was right, rights of them.
	right  sync.Map
	rights atomic.Int64

	mu       sync.Mutex
	windows  map[netip.Prefix]window
	loggedAt time.Time
	// unlogged counts refusals since the last log line.
	unlogged int64
}

// window has the wrong credentials of an address since a time.
type window struct {
	since time.Time
	wrong map[[16]byte]bool
}

func newFailures(now func() time.Time, log *slog.Logger) *failures {
	f := &failures{
		now: now, log: log, windows: make(map[netip.Prefix]window), reasons: make(map[fault.Reason]*atomic.Int64),
	}
	for _, reason := range []fault.Reason{
		fault.ReasonCredentialMissing, fault.ReasonCredentialInvalid, fault.ReasonCredentialExpired,
		fault.ReasonCredentialsLimited, fault.ReasonScopeMissing, fault.ReasonRoomsLimited,
		fault.ReasonAddressNotAllowed, fault.ReasonIssuerUnavailable,
	} {
		f.reasons[reason] = new(atomic.Int64)
	}
	f.blocked.Store(&map[netip.Prefix]time.Time{})
	return f
}

// limited returns how long a credential from this source is refused unseen; zero if it is
// not.
func (f *failures) limited(s source) time.Duration {
	blocked := *f.blocked.Load()
	if len(blocked) == 0 {
		return 0
	}
	until, ok := blocked[s.network]
	if !ok {
		return 0
	}
	if _, known := f.right.Load(s); known {
		return 0
	}
	return max(until.Sub(f.now()), 0)
}

// passed remembers that the credential was right.
func (f *failures) passed(s source) {
	if !s.network.IsValid() {
		return
	}
	if _, known := f.right.Load(s); known {
		return
	}
	if f.rights.Add(1) > maxPassed {
		f.right.Clear()
		f.rights.Store(1)
	}
	f.right.Store(s, nil)
}

// count counts a refusal.
func (f *failures) count(reason fault.Reason) {
	if n := f.reasons[reason]; n != nil {
		n.Add(1)
	}
}

func (f *failures) counts() map[fault.Reason]int64 {
	counts := make(map[fault.Reason]int64, len(f.reasons))
	for reason, n := range f.reasons {
		if n := n.Load(); n > 0 {
			counts[reason] = n
		}
	}
	return counts
}

// add counts a refusal and logs it, and limits its address after too many wrong
// credentials. That a credential is missing guesses nothing, and the world is full of
// such requests.
func (f *failures) add(ctx context.Context, address netip.Addr, from source, reason fault.Reason) {
	f.count(reason)
	if reason != fault.ReasonCredentialInvalid && reason != fault.ReasonCredentialExpired &&
		reason != fault.ReasonCredentialsLimited {
		return
	}
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if reason == fault.ReasonCredentialInvalid && from.network.IsValid() {
		// Its key may have been removed.
		if _, was := f.right.LoadAndDelete(from); was {
			f.rights.Add(-1)
		}
		f.wrong(from, now)
	}
	f.unlogged++
	if !f.loggedAt.IsZero() && now.Sub(f.loggedAt) < failureLogEvery {
		return
	}
	f.log.WarnContext(ctx, "calls are refused because of their credentials", slog.String("reason", string(reason)),
		slog.String("address", address.String()), slog.Int64("refused", f.unlogged))
	f.loggedAt, f.unlogged = now, 0
}

// wrong counts a wrong credential of an address.
func (f *failures) wrong(from source, now time.Time) {
	network := from.network
	w, ok := f.windows[network]
	if !ok {
		makeRoom(f.windows, func(w window) bool { return now.Sub(w.since) >= failureWindow })
	}
	if now.Sub(w.since) >= failureWindow {
		w = window{since: now, wrong: make(map[[16]byte]bool)}
	}
	w.wrong[from.digest] = true
	f.windows[network] = w
	until := w.since.Add(failureWindow)
	if before := *f.blocked.Load(); len(w.wrong) < failuresPerWindow || before[network].Equal(until) {
		return
	}
	blocked := maps.Clone(*f.blocked.Load())
	makeRoom(blocked, func(until time.Time) bool { return !until.After(now) })
	blocked[network] = until
	f.blocked.Store(&blocked)
}

// makeRoom makes room for another address: it forgets those whose time has passed, and
// any one if all others have to stay.
func makeRoom[T any](m map[netip.Prefix]T, passed func(T) bool) {
	if len(m) < maxAddresses {
		return
	}
	maps.DeleteFunc(m, func(_ netip.Prefix, v T) bool { return passed(v) })
	for network := range m {
		if len(m) < maxAddresses {
			return
		}
		delete(m, network)
	}
}
