package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func guard(log *slog.Logger, list ...Authenticator) *Guard {
	return NewGuard(GuardConfig{Authenticators: list, Now: time.Now, Log: log})
}

// reasonOf returns the reason of a failure; empty for none.
func reasonOf(err error) fault.Reason {
	if err == nil {
		return ""
	}
	return fault.Of(err).Reason
}

func TestTokens(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	var none *Guard
	open := guard(quiet)
	two := guard(quiet, Tokens([]string{"old", "new"}))
	empty := guard(quiet, Tokens([]string{""}))
	for _, c := range []struct {
		guard  *Guard
		header string
		want   fault.Reason
	}{
		{open, "", ""},
		{open, "Bearer whatever", ""},
		{two, "Bearer old", ""},
		{two, "bearer new", ""},
		{two, "Bearer  new ", ""},
		{two, "", fault.ReasonCredentialMissing},
		{two, "Bearer", fault.ReasonCredentialMissing},
		{two, "Bearer ", fault.ReasonCredentialMissing},
		{two, "new", fault.ReasonCredentialMissing},
		{two, "Basic new", fault.ReasonCredentialMissing},
		{two, "Bearer newer", fault.ReasonCredentialInvalid},
		{two, "Bearer ne", fault.ReasonCredentialInvalid},
		{two, "Bearer New", fault.ReasonCredentialInvalid},
		{two, "Bearer old new", fault.ReasonCredentialInvalid},
		{empty, "Bearer ", fault.ReasonCredentialMissing},
		{empty, "", fault.ReasonCredentialMissing},
		{empty, "Bearer x", fault.ReasonCredentialInvalid},
		{none, "", fault.ReasonCredentialMissing},
		{none, "Bearer x", fault.ReasonCredentialInvalid},
	} {
		caller, err := c.guard.Identify(t.Context(), Request{Authorization: []string{c.header}})
		if got := reasonOf(err); got != c.want {
			t.Errorf("Identify(%q) = %v; want %q", c.header, err, c.want)
		}
		if err != nil && fault.Of(err).Kind != fault.Unauthentic {
			t.Errorf("Identify(%q) has kind %v; want Unauthentic", c.header, fault.Of(err).Kind)
		}
		if all := Everything(""); (err == nil) != (caller.Scopes == all.Scopes) || err == nil && caller.Limited() {
			t.Errorf("Identify(%q) = %+v, %v; want everything, or nothing", c.header, caller, err)
		}
	}
	if !open.Open() || two.Open() || empty.Open() || none.Open() {
		t.Error("Open is wrong")
	}
}

func TestCallers(t *testing.T) {
	t.Parallel()
	nobody, all := Caller{}, Everything("")
	some := Caller{
		Scopes: ScopesOf(Read, Metrics), Projects: []mirror.ProjectID{"a", "b"}, Rooms: []string{"y", "x:", "x:1", "x:"},
	}
	for scope := Read; scope <= Metrics; scope++ {
		if nobody.Allows(scope) || !all.Allows(scope) || some.Allows(scope) != (scope == Read || scope == Metrics) {
			t.Errorf("%s: nobody %t, all %t, some %t", scope, nobody.Allows(scope), all.Allows(scope), some.Allows(scope))
		}
	}
	if all.Allows(0) || all.Allows(Metrics+1) {
		t.Error("everything includes scopes that do not exist")
	}
	for _, c := range []struct {
		project mirror.ProjectID
		room    mirror.RoomID
		want    bool
	}{
		{"a", "x:", true},
		{"a", "x:2", true},
		{"b", "y", true},
		{"a", "x", false},
		{"a", "X:", false},
		{"a", "", false},
		{"c", "x:", false},
		{"", "x:", false},
		{"*", "x:", false},
	} {
		if got := some.SeesRoom(c.project, c.room); got != c.want {
			t.Errorf("SeesRoom(%q, %q) = %t; want %t", c.project, c.room, got, c.want)
		}
		if nobody.SeesRoom(c.project, c.room) || nobody.SeesProject(c.project) || !all.SeesRoom(c.project, c.room) {
			t.Errorf("SeesRoom(%q, %q): a caller without rights sees it, or one with all rights does not", c.project, c.room)
		}
	}
	if got := some.Prefixes(); !slices.Equal(got, []string{"x:", "y"}) {
		t.Errorf("Prefixes = %q; want those that no other includes, in order", got)
	}
	if nobody.Prefixes() == nil || all.Prefixes() != nil {
		t.Error("lists are unlimited without rights, or limited with all of them")
	}
}

// entry returns an entry for a new key.
func entry(change func(*KeyEntry)) (key string, e KeyEntry) {
	key, _ = NewKey()
	e = NewEntry(key)
	e.Name, e.Scopes, e.Projects = "test", []string{"read"}, []mirror.ProjectID{"default"}
	if change != nil {
		change(&e)
	}
	return key, e
}

func keysOf(t *testing.T, entries ...KeyEntry) *Keys {
	t.Helper()
	k, err := OpenKeys(fileOf(t, entries...), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func textOf(t *testing.T, entries ...KeyEntry) string {
	t.Helper()
	text, err := FormatKeys(entries)
	if err != nil {
		t.Fatal(err)
	}
	return "keys:\n" + text
}

func fileOf(t *testing.T, entries ...KeyEntry) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte(textOf(t, entries...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func identify(g *Guard, key, address string) (Caller, error) {
	r := Request{Authorization: []string{"Bearer " + key}}
	if address != "" {
		r.Address = netip.MustParseAddr(address)
	}
	return g.Identify(context.Background(), r)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	right, e1 := entry(func(e *KeyEntry) { e.Scopes, e.RoomPrefixes = []string{"read", "watch"}, []string{"team:"} })
	expired, e2 := entry(func(e *KeyEntry) { e.Expires = &past })
	lasting, e3 := entry(func(e *KeyEntry) { e.Expires, e.Projects = &future, []mirror.ProjectID{"*"} })
	unknown, _ := entry(nil)
	g := guard(slog.New(slog.DiscardHandler), keysOf(t, e1, e2, e3).Authenticate)
	if len(right) != 62 || !strings.HasPrefix(right, "sk_mirror_"+e1.ID+"_") || !HasKey("x"+right+"y") {
		t.Errorf("a new key is %q", right)
	}
	for key, want := range map[string]fault.Reason{
		right: "", lasting: "", expired: fault.ReasonCredentialExpired,
		unknown:                             fault.ReasonCredentialInvalid,
		right[:len(right)-1]:                fault.ReasonCredentialInvalid, // truncated
		right[:18]:                          fault.ReasonCredentialInvalid,
		right + "A":                         fault.ReasonCredentialInvalid,
		strings.ToUpper(right):              fault.ReasonCredentialInvalid,
		right[:19] + unknown[19:]:           fault.ReasonCredentialInvalid, // the secret of another
		unknown[:19] + right[19:]:           fault.ReasonCredentialInvalid,
		e1.SHA256:                           fault.ReasonCredentialInvalid, // what is stored
		"sk_mirror_" + e1.ID + "_":          fault.ReasonCredentialInvalid,
		"sk_mirror_":                        fault.ReasonCredentialInvalid,
		"sk_dev_" + strings.Repeat("x", 55): fault.ReasonCredentialInvalid,
	} {
		if _, err := identify(g, key, ""); reasonOf(err) != want {
			t.Errorf("Identify(%q) = %v; want %q", key, err, want)
		}
	}
	caller, _ := identify(g, right, "")
	if caller.Name != e1.ID || !caller.Allows(Watch) || caller.Allows(Events) || !caller.SeesRoom("default", "team:1") ||
		caller.SeesRoom("default", "other") || caller.SeesProject("other") {
		t.Errorf("the caller is %+v", caller)
	}
	if caller, _ = identify(g, lasting, ""); caller.Limited() || !caller.SeesProject("any") {
		t.Errorf("the caller is %+v; want all projects and rooms", caller)
	}
}

// The time that a refusal takes says nothing about which ids there are, because both do
// the same: one digest of what was sent, one look-up, one comparison of 32 bytes. What is
// compared with is what differs.
func TestUnknownIDsDoWhatWrongSecretsDo(t *testing.T) { //nolint:paralleltest // it counts allocations
	right, e := entry(nil)
	k := keysOf(t, e)
	other, _ := NewKey()
	ask := func(key string) func() {
		c := Credential{Bearer: key, Digest: sha256.Sum256([]byte(key))}
		return func() {
			if _, err := k.Authenticate(t.Context(), c); !errors.Is(err, ErrUnknown) {
				t.Errorf("Authenticate = %v; want ErrUnknown", err)
			}
		}
	}
	wrong, unknown := ask(right[:19]+other[19:]), ask(other)
	if a, b := testing.AllocsPerRun(100, wrong), testing.AllocsPerRun(100, unknown); a != b {
		t.Errorf("%v allocations for a wrong secret, %v for an unknown id; want as many", a, b)
	}
	// Nothing that anybody can send has the digest that unknown ids are compared with.
	c := Credential{Bearer: other}
	if _, err := k.Authenticate(t.Context(), c); !errors.Is(err, ErrUnknown) {
		t.Errorf("a digest of zeros = %v; want ErrUnknown", err)
	}
}

// A keys file is taken whole or not at all.
func TestKeysFileIsStrict(t *testing.T) {
	t.Parallel()
	key, _ := NewKey()
	sum := strings.Repeat("0", 64)
	for _, c := range [][2]string{
		{"", ""},
		{"# nothing\n", ""},
		{"keys: []\n", ""},
		{"key: []\n", "field key not found"},
		{"keys: {}\n", "cannot unmarshal"},
		{"keys: []\n---\n1", "more than one"},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [a]}]", ""},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: ['*']}]", ""},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [a], rooms: [a]}]", "field rooms"},
		{"keys: [{id: abcdefg, sha256: " + sum + ", scopes: [read], projects: [a]}]", "id of a key"},
		{"keys:\n", ""},
		{
			"keys:\n- id: abcdefgh\n  sha256: " + sum + "\n  scopes: [read]\n  projects: [a]\n  room_prefixes:\n  # - a\n",
			"line 6: room_prefixes has no value",
		},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [a], expires: ~}]", "expires has no value"},
		{"keys: [{id: abcdefgh, sha256: 00, scopes: [read], projects: [a]}]", "sha256"},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", projects: [a]}]", "no scopes"},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [write], projects: [a]}]", "no scope \"write\""},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read]}]", "no projects"},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [A]}]", "project"},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [a], room_prefixes: []}]", "room_prefixes"},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [a], room_prefixes: ['']}]", "room_prefixes"},
		{
			"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [a], room_prefixes: [\"a\\0\"]}]",
			"room prefix",
		},
		{"keys: [{id: abcdefgh, sha256: " + sum + ", scopes: [read], projects: [a], expires: soon}]", "parsing time"},
		{"keys: [{id: " + key + ", sha256: " + sum + ", scopes: [read], projects: [a]}]", "contains a key"},
		{"# " + key + "\nkeys: []\n", "contains a key"},
		{strings.Replace("keys: [X, X]", "X", "{id: abcdefgh, sha256: "+sum+", scopes: [read], projects: [a]}", 2), "twice"},
	} {
		text, want := c[0], c[1]
		_, err := ParseKeys([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n= %v; want %q", text, err, want)
		}
		if err != nil && HasKey(err.Error()) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
	many, e := entry(func(e *KeyEntry) {
		for i := range maxPrefixes + 1 {
			e.RoomPrefixes = append(e.RoomPrefixes, fmt.Sprint(i))
		}
	})
	if _, err := ParseKeys([]byte(textOf(t, e))); err == nil || strings.Contains(err.Error(), many) {
		t.Errorf("too many prefixes = %v; want a refusal", err)
	}
	later := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	_, whole := entry(func(e *KeyEntry) { e.RoomPrefixes, e.Expires = []string{"a:", "# b"}, &later })
	got, err := ParseKeys([]byte(textOf(t, whole)))
	if err != nil || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", whole) && !got[0].Expires.Equal(later) {
		t.Errorf("ParseKeys = %+v, %v; want what was written, %+v", got, err, whole)
	}
}

// syncBuffer can be written, read and reset by several goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *syncBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}

// A changed file counts within ten seconds. One that cannot be used changes nothing, and
// is reported once.
func TestKeysFileIsReadAgain(t *testing.T) {
	t.Parallel()
	one, e1 := entry(nil)
	two, e2 := entry(nil)
	path := fileOf(t, e1)
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		keys, err := OpenKeys(path, logger)
		if err != nil {
			t.Fatal(err)
		}
		g := guard(logger, keys.Authenticate)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- keys.Run(ctx) }()
		valid := func(key string) bool { _, err := identify(g, key, ""); return err == nil }
		for _, c := range []struct {
			text     string
			one, two bool
			log      string
		}{
			{textOf(t, e1), true, false, ""},
			{textOf(t, e1, e2), true, true, "was read again"},
			{"keys: nonsense", true, true, "cannot be used"},
			{"keys: nonsense", true, true, ""},
			{textOf(t, e2), false, true, "was read again"},
			{"-", false, true, "cannot be used"}, // there is no file
			{"-", false, true, ""},
			{textOf(t, e2), false, true, ""},
			{textOf(t, e1), true, false, "was read again"},
			{"", false, false, "was read again"},
		} {
			var err error
			if c.text == "-" {
				_ = os.Remove(path)
			} else {
				err = os.WriteFile(path, []byte(c.text), 0o600)
			}
			log.Reset()
			time.Sleep(keysEvery) //nolint:forbidigo // of the bubble
			synctest.Wait()
			told := log.String()
			if err != nil || valid(one) != c.one || valid(two) != c.two || strings.Count(told, "msg=") != min(len(c.log), 1) ||
				!strings.Contains(told, c.log) {
				t.Errorf("after %q: one %t, two %t, log %q; want %+v", c.text, valid(one), valid(two), told, c)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// While the file is replaced, what is in both versions is never refused.
func TestRotationRefusesNothing(t *testing.T) {
	t.Parallel()
	stays, e := entry(nil)
	texts := []string{textOf(t, e), "keys: nonsense"}
	for range 3 {
		_, other := entry(nil)
		texts = append(texts, textOf(t, other, e))
	}
	keys := keysOf(t, e)
	g := guard(slog.New(slog.DiscardHandler), keys.Authenticate)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if _, err := identify(g, stays, "192.0.2.1"); err != nil {
					t.Errorf("Identify = %v during a rotation", err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 200 {
		if err := os.WriteFile(keys.path, []byte(texts[i%len(texts)]), 0o600); err != nil {
			t.Fatal(err)
		}
		keys.reread(t.Context())
	}
	close(stop)
	wg.Wait()
}

// 10,000 wrong keys from one address: most are refused unseen, and a log line tells of
// them now and then. The right key passes from another address, and from the same if it
// was right there before.
func TestWrongKeysAreLimited(t *testing.T) {
	t.Parallel()
	right, e1 := entry(nil)
	fresh, e2 := entry(nil)
	keys := keysOf(t, e1, e2)
	synctest.Test(t, func(t *testing.T) {
		const bad, good = "198.51.100.7", "192.0.2.1"
		var log syncBuffer
		tried := 0
		g := guard(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), keys.Authenticate,
			func(context.Context, Credential) (Caller, error) { tried++; return Caller{}, ErrUnknown })
		want := func(what string, key, address string, reason fault.Reason) {
			t.Helper()
			if _, err := identify(g, key, address); reasonOf(err) != reason {
				t.Errorf("%s: Identify = %v; want %q", what, err, reason)
			}
		}
		want("right before", right, bad, "")
		for range 2 * failuresPerWindow { // a caller with an old key, which does not limit the address
			want("one again and again", "old", bad, fault.ReasonCredentialInvalid)
		}
		want("new beside it", fresh, bad, "")
		time.Sleep(failureWindow) //nolint:forbidigo // of the bubble
		log.Reset()
		g.failures.right.Clear()
		tried = 0
		before := g.Refused()[fault.ReasonCredentialInvalid]
		want("right before", right, bad, "")
		var secrets []string
		limited := 0
		for range 10_000 {
			key, _ := NewKey()
			secrets = append(secrets, key[19:])
			_, err := identify(g, key, bad)
			if f := fault.Of(err); f.Reason == fault.ReasonCredentialsLimited {
				limited++
				if f.Kind != fault.Busy || f.RetryAfter <= 0 || f.RetryAfter > failureWindow {
					t.Fatalf("Identify = %+v; want when to try again", f)
				}
			}
		}
		if tried != failuresPerWindow || limited != 10_000-failuresPerWindow {
			t.Errorf("%d were tried and %d limited; want %d and the rest", tried, limited, failuresPerWindow)
		}
		want("right from another address", right, good, "")
		want("right and known here", right, bad, "")
		want("right but new here", fresh, bad, fault.ReasonCredentialsLimited)
		want("without any", "", bad, fault.ReasonCredentialMissing)
		if lines := strings.Count(log.String(), "\n"); lines != 1 {
			t.Errorf("%d log lines; want 1:\n%s", lines, &log)
		}
		time.Sleep(failureWindow) //nolint:forbidigo // of the bubble
		want("after the window", fresh, bad, "")
		want("wrong after the window", secrets[0], bad, fault.ReasonCredentialInvalid)
		if !strings.Contains(log.String(), "refused=10001") {
			t.Errorf("the log does not count what it left out:\n%s", &log)
		}
		for _, s := range append(secrets, right, fresh) {
			if strings.Contains(log.String(), s) {
				t.Fatalf("the log shows a credential:\n%s", &log)
			}
		}
		counts := g.Refused()
		if counts[fault.ReasonCredentialInvalid]-before != failuresPerWindow+1 ||
			counts[fault.ReasonCredentialMissing] != 1 ||
			counts[fault.ReasonCredentialsLimited] != 10_000-failuresPerWindow+1 {
			t.Errorf("Refused = %v", counts)
		}
	})
}

// A flood from many addresses takes bounded memory.
func TestAddressesAreBounded(t *testing.T) {
	t.Parallel()
	right, e := entry(nil)
	g := guard(slog.New(slog.DiscardHandler), keysOf(t, e).Authenticate)
	for i := range 2 * maxAddresses {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		_, _ = identify(g, "wrong", a)
		if _, err := identify(g, right, a); err != nil {
			t.Fatalf("Identify = %v", err)
		}
	}
	right2 := 0
	g.failures.right.Range(func(any, any) bool { right2++; return true })
	if len(g.failures.windows) > maxAddresses || right2 > maxPassed {
		t.Errorf("%d addresses and %d right ones are remembered", len(g.failures.windows), right2)
	}
	// Of IPv6, a customer has a whole network.
	for i := range failuresPerWindow {
		_, _ = identify(g, fmt.Sprint("wrong", i), fmt.Sprintf("2001:db8:1:2:%x::1", i))
	}
	if _, err := identify(g, right, "2001:db8:1:2:ffff::1"); reasonOf(err) != fault.ReasonCredentialsLimited {
		t.Errorf("another address of a network that is limited = %v; want limited", err)
	}
	if _, err := identify(g, right, "2001:db8:1:3::1"); err != nil {
		t.Errorf("another network = %v; want nil", err)
	}
}

// X-Forwarded-For counts from the right, as far as those who wrote it are trusted.
func TestClientBehindProxies(t *testing.T) {
	t.Parallel()
	proxies := Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	for _, c := range []struct {
		trusted   Networks
		peer      string
		forwarded []string
		want      string
	}{
		{proxies, "192.0.2.1:1", nil, "192.0.2.1"},
		{proxies, "192.0.2.1:1", []string{"198.51.100.1"}, "192.0.2.1"}, // it is no proxy
		{nil, "10.0.0.1:1", []string{"198.51.100.1"}, "10.0.0.1"},
		{proxies, "10.0.0.1:1", nil, "10.0.0.1"},
		{proxies, "10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{proxies, "10.0.0.1:1", []string{"192.0.2.9, 198.51.100.1"}, "198.51.100.1"}, // the left one is the client's word
		{proxies, "10.0.0.1:1", []string{"192.0.2.9", "198.51.100.1"}, "198.51.100.1"},
		{proxies, "10.0.0.1:1", []string{"192.0.2.9, 198.51.100.1,10.1.1.1 "}, "198.51.100.1"},
		{proxies, "10.0.0.1:1", []string{"10.2.2.2,10.1.1.1"}, "10.2.2.2"},
		{proxies, "10.0.0.1:1", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{proxies, "10.0.0.1:1", []string{""}, "10.0.0.1"},
		{proxies, "[::ffff:10.0.0.1]:1", []string{"198.51.100.1:55"}, "198.51.100.1"},
		{proxies, "[2001:db8::1]:1", []string{"[2001:db9::1]:55"}, "2001:db9::1"},
		{proxies, "inproc", []string{"198.51.100.1"}, "invalid IP"},
	} {
		if got := c.trusted.Client(ParsePeer(c.peer), c.forwarded).String(); got != c.want {
			t.Errorf("Client(%s, %q) = %s; want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}

// The address of a connection equals that of its text.
func TestPeerOf(t *testing.T) {
	t.Parallel()
	for want, peer := range map[string]net.Addr{
		"192.0.2.1":   &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, // as 16 bytes
		"192.0.2.2":   &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2).To4(), Port: 1},
		"2001:db8::1": &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1},
		"fe80::1":     &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1},
		"192.0.2.3":   &net.UDPAddr{IP: net.IPv4(192, 0, 2, 3), Port: 1},
		"invalid IP":  &net.UnixAddr{Name: "@", Net: "unix"},
	} {
		if got, text := PeerOf(peer), ParsePeer(peer.String()); got.String() != want || got != text {
			t.Errorf("PeerOf(%s) = %s, and of its text %s; want %s", peer, got, text, want)
		}
	}
	if got := PeerOf(&net.TCPAddr{}); got.IsValid() {
		t.Errorf("PeerOf(no address) = %s; want none", got)
	}
}

// A credential that is not valid any more counts as a wrong one, and one without rights
// does not exempt its address from the limit.
func TestOldCredentialsAreLimited(t *testing.T) {
	t.Parallel()
	const address = "192.0.2.1"
	scopes := ScopesOf(Read)
	valid := true
	g := guard(slog.New(slog.DiscardHandler), func(_ context.Context, c Credential) (Caller, error) {
		if !valid || c.Bearer != "mine" {
			return Caller{}, ErrUnknown
		}
		return Caller{Scopes: scopes}, nil
	})
	for _, s := range []Scopes{0, scopes} {
		scopes, valid = s, true
		if _, err := identify(g, "mine", address); err != nil {
			t.Fatalf("Identify = %v", err)
		}
		if n := g.failures.rights.Load(); (n == 1) != (s != 0) {
			t.Errorf("with scopes %d, %d credentials are known to be right", s, n)
		}
	}
	valid = false
	if _, err := identify(g, "mine", address); reasonOf(err) != fault.ReasonCredentialInvalid {
		t.Errorf("Identify of a removed key = %v", err)
	}
	for i := range failuresPerWindow {
		_, _ = identify(g, fmt.Sprint("wrong", i), address)
	}
	if _, err := identify(g, "mine", address); reasonOf(err) != fault.ReasonCredentialsLimited {
		t.Errorf("Identify of a removed key from a limited address = %v; want it limited", err)
	}
}

// Each refused call is told, with who and where as far as that is known, and no other call.
func TestDenialsAreTold(t *testing.T) {
	t.Parallel()
	right, e := entry(func(e *KeyEntry) { e.Scopes, e.RoomPrefixes = []string{"read"}, []string{"team:"} })
	keys := keysOf(t, e)
	var told []Denial
	g := NewGuard(GuardConfig{
		Authenticators: []Authenticator{keys.Authenticate}, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Denied: func(d Denial) { told = append(told, d) },
	})
	address := netip.MustParseAddr("192.0.2.1")
	caller, err := identify(g, right, "192.0.2.1")
	if err != nil || caller.Address != address || g.Permit(Rule{Scope: Read}, &caller) != nil || len(told) != 0 {
		t.Fatalf("Identify = %+v, %v, told %+v; want nothing refused", caller, err, told)
	}
	for want, refused := range map[fault.Reason]func() error{
		fault.ReasonCredentialInvalid: func() error { _, err := identify(g, "wrong", "192.0.2.1"); return err },
		fault.ReasonScopeMissing:      func() error { return g.Permit(Rule{Method: "Do", Scope: AdminWrite}, &caller) },
		fault.ReasonRoomsLimited: func() error {
			return g.Permit(Rule{Method: "Do", Scope: Read, Whole: true}, &caller)
		},
		fault.ReasonAddressNotAllowed: func() error {
			return g.Denied(nil, address, "", fault.New(fault.Forbidden, fault.ReasonAddressNotAllowed, "no"))
		},
	} {
		told = nil
		if err := refused(); !fault.Is(err, want) || len(told) != 1 || told[0].Reason != want || told[0].Address != address {
			t.Errorf("%v was told as %+v; want %s", err, told, want)
			continue
		}
		known := want == fault.ReasonScopeMissing || want == fault.ReasonRoomsLimited
		if (told[0].Caller != nil) != known || known && told[0].Caller.Name != caller.Name {
			t.Errorf("%s was told with the caller %+v", want, told[0].Caller)
		}
		if (told[0].Method == "Do") != known {
			t.Errorf("%s was told with the method %q", want, told[0].Method)
		}
	}
}
