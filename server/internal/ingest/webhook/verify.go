// Package webhook interprets deliveries: it verifies the signature over the
// received bytes, reads the event, and names the resources that the event makes
// stale. It does no I/O; the clock is a parameter.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Secret is a signing secret of an endpoint, as shown in the Liveblocks dashboard:
// "whsec_" and the key in base64.
type Secret struct {
	Project mirror.ProjectID
	Secret  string
}

// Verifier verifies deliveries against the secrets of all projects. It is safe for
// concurrent use.
type Verifier struct {
	keys      []*key
	tolerance int64 // seconds
}

// NewVerifier returns a Verifier that accepts timestamps within tolerance of the
// clock; tolerance is truncated to seconds. A project can have several secrets, for
// rotation. The error names every invalid secret by project and position, never by
// content. Without secrets the Verifier refuses every delivery.
func NewVerifier(secrets []Secret, tolerance time.Duration) (*Verifier, error) {
	v := &Verifier{tolerance: int64(tolerance / time.Second)}
	var problems []error
	if v.tolerance < 1 {
		problems = append(problems, errors.New("webhook tolerance is shorter than a second"))
	}
	owners := make(map[string]mirror.ProjectID, len(secrets))
	places := make(map[mirror.ProjectID]int)
	for _, s := range secrets {
		places[s.Project]++
		bad := func(err error) {
			problems = append(problems, fmt.Errorf("secret %d of project %q %w", places[s.Project], s.Project, err))
		}
		if !mirror.ValidProjectID(string(s.Project)) {
			bad(errors.New("does not have a valid project id"))
			continue
		}
		raw, err := parseSecret(s.Secret)
		if err != nil {
			bad(err)
			continue
		}
		owner, known := owners[string(raw)]
		switch {
		case !known:
			owners[string(raw)] = s.Project
			v.keys = append(v.keys, &key{project: s.Project, raw: raw, fingerprint: Fingerprint(s.Secret)})
		case owner != s.Project:
			// A delivery could not be attributed to one of the two projects.
			bad(fmt.Errorf("is also a secret of project %q", owner))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return v, nil
}

// Fingerprint tells secrets apart without giving them away: the first eight digits of the
// SHA-256 of the secret as it is shown in the dashboard.
func Fingerprint(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:4])
}

// minKey is the minimum size in bytes of the keys that Svix issues.
const minKey = 24

// CutOff reports whether a secret is shorter than those of Liveblocks, as one that was
// not copied whole.
func CutOff(secret string) bool {
	raw, err := parseSecret(secret)
	return err == nil && len(raw) < minKey
}

// parseSecret returns the key in a secret. Its errors do not quote the secret.
func parseSecret(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		switch {
		case secret != "" && strings.IndexByte("\"'`", secret[0]) >= 0:
			return nil, errors.New("is in quotes; leave them out, so that it begins with whsec_")
		case strings.HasPrefix(secret, version):
			return nil, errors.New("begins with " + version + " which is the version of a signature; leave that out, " +
				"so that it begins with whsec_")
		}
		return nil, errors.New("does not begin with whsec_")
	}
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(text, "=") {
		encoding = base64.StdEncoding
	}
	// The decoder skips line breaks; in a secret they are a mistake.
	raw, err := encoding.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("is not base64 after whsec_")
	}
	// Anyone can sign with an empty key.
	if len(raw) == 0 {
		return nil, errors.New("has an empty key")
	}
	return raw, nil
}

// Headers are the headers that sign a delivery.
type Headers struct {
	ID        string
	Timestamp string
	Signature string
}

// HeadersFrom reads the signature headers through get, which takes lower-case keys:
// webhook-id, webhook-timestamp and webhook-signature, or the same with the prefix
// svix-. One family must be complete. A header that is repeated and a second family
// must say the same, as proxies that copy headers make them: otherwise it would be
// open which headers were signed.
func HeadersFrom(get func(key string) []string) (Headers, error) {
	standard, standardCount, err := family(get, [3]string{"webhook-id", "webhook-timestamp", "webhook-signature"})
	if err != nil {
		return Headers{}, err
	}
	svix, svixCount, err := family(get, [3]string{"svix-id", "svix-timestamp", "svix-signature"})
	if err != nil {
		return Headers{}, err
	}
	switch {
	case standardCount > 0 && svixCount > 0 && standard != svix:
		return Headers{}, unauthentic(fault.ReasonSignatureInvalid, "webhook- and svix- headers are mixed and differ")
	case svixCount > 0:
		standard = svix
	}
	if err := standard.complete(); err != nil {
		return Headers{}, err
	}
	return standard, nil
}

// family reads one family of headers and counts those present. keys are those of
// id, timestamp and signature.
func family(get func(key string) []string, keys [3]string) (h Headers, count int, err error) {
	for i, field := range [3]*string{&h.ID, &h.Timestamp, &h.Signature} {
		values := get(keys[i])
		if len(values) == 0 {
			continue
		}
		*field = values[0]
		count++
		if slices.ContainsFunc(values, func(v string) bool { return v != values[0] }) {
			return Headers{}, 0, unauthentic(fault.ReasonSignatureInvalid,
				"header "+keys[i]+" is repeated with different values")
		}
	}
	return h, count, nil
}

// complete reports whether no header is missing or empty.
func (h Headers) complete() error {
	if h.ID == "" || h.Timestamp == "" || h.Signature == "" {
		return unauthentic(fault.ReasonSignatureMissing, "the id, timestamp or signature header is missing")
	}
	return nil
}

// Verified says who signed a delivery, and when.
type Verified struct {
	// Project is the one whose secret signed it, and Secret the [Fingerprint] of that.
	Project mirror.ProjectID
	Secret  string
	// SendTime is the delivery's timestamp.
	SendTime time.Time
}

// Verify returns whose secret signed the delivery, and the delivery's timestamp. It tries
// the secrets of project, or all secrets if project is empty. A project without secrets is
// answered like one with others.
// Every failure is a [*fault.Error] that reveals nothing of the delivery except its
// age.
//
// body must be the raw bytes as received: parsing and re-encoding changes them and
// so invalidates the signature.
func (v *Verifier) Verify(project mirror.ProjectID, h Headers, body []byte, now time.Time) (Verified, error) {
	if err := h.complete(); err != nil {
		return Verified{}, err
	}
	seconds, ok := parseTimestamp(h.Timestamp)
	if !ok {
		return Verified{}, unauthentic(fault.ReasonSignatureInvalid, "the timestamp is not a whole number of seconds")
	}
	tried := false
	for _, k := range v.keys {
		if project != "" && k.project != project {
			continue
		}
		if tried = true; !k.signed(h, body) {
			continue
		}
		// Reported only to a sender with a valid signature. Others learn only that
		// theirs is invalid, so a time that is out of tolerance means that one of the
		// clocks is wrong, or that an old delivery is replayed.
		if age := now.Unix() - seconds; age > v.tolerance || age < -v.tolerance {
			return Verified{}, unauthentic(fault.ReasonTimestampOutOfTolerance,
				"the timestamp differs from the clock by "+strconv.FormatInt(age, 10)+" s; at most "+
					strconv.FormatInt(v.tolerance, 10)+" s are allowed")
		}
		if !validEventID(h.ID) {
			return Verified{}, fault.New(fault.Invalid, fault.ReasonEventIDInvalid,
				"the event id is longer than "+strconv.Itoa(mirror.MaxEventID)+" bytes or not printable ASCII")
		}
		return Verified{Project: k.project, Secret: k.fingerprint, SendTime: time.Unix(seconds, 0).UTC()}, nil
	}
	if project == "" {
		return Verified{}, unauthentic(fault.ReasonSignatureInvalid,
			"the signature matches none of the configured secrets")
	}
	if !tried && len(v.keys) > 0 {
		// How long it takes must not tell either that the project is not configured: it takes as
		// long as for one that has one secret.
		v.keys[0].signed(h, body)
	}
	return Verified{}, unauthentic(fault.ReasonSignatureInvalid,
		"the signature matches no secret of a configured project with the id in the URL")
}

func unauthentic(reason fault.Reason, public string) error {
	return fault.New(fault.Unauthentic, reason, public)
}

// parseTimestamp reads Unix seconds in the only spelling that senders use: digits,
// without a sign or leading zero. It refuses other spellings of the same number,
// because the vendors' libraries disagree about which spelling is signed.
func parseTimestamp(s string) (int64, bool) {
	const longest = 18 // digits that always fit; milliseconds have 13
	if s == "" || len(s) > longest || s[0] == '0' && s != "0" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

func validEventID(id string) bool {
	if id == "" || len(id) > mirror.MaxEventID {
		return false
	}
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// Sign returns the value of the signature header for a delivery.
func Sign(secret, id string, ts time.Time, body []byte) (string, error) {
	raw, err := parseSecret(secret)
	if err != nil {
		return "", fmt.Errorf("sign a webhook: secret %w", err)
	}
	m := newMAC(raw)
	m.compute(id, strconv.FormatInt(ts.Unix(), 10), body)
	return version + string(m.want[:]), nil
}

// version marks a signature with a shared secret. The format has other versions,
// for which there is no key here.
const version = "v1,"

// signatureLen is the length of an HMAC-SHA256 in base64.
const signatureLen = (sha256.Size + 2) / 3 * 4

// key is the key of one secret, with reusable hash states.
type key struct {
	project     mirror.ProjectID
	fingerprint string
	raw         []byte
	macs        sync.Pool // of *mac
}

// mac is the state of one computation. Reusing it saves the key set-up and all
// allocations.
type mac struct {
	hash      hash.Hash
	prefix    []byte
	sum       [sha256.Size]byte
	want, got [signatureLen]byte
}

func newMAC(raw []byte) *mac { return &mac{hash: hmac.New(sha256.New, raw)} }

// compute sets want to the signature of a delivery.
func (m *mac) compute(id, timestamp string, body []byte) {
	m.prefix = append(m.prefix[:0], id...)
	m.prefix = append(m.prefix, '.')
	m.prefix = append(m.prefix, timestamp...)
	m.prefix = append(m.prefix, '.')
	m.hash.Reset()
	m.hash.Write(m.prefix) // a hash never returns an error
	m.hash.Write(body)
	base64.StdEncoding.Encode(m.want[:], m.hash.Sum(m.sum[:0]))
}

// signed reports whether one of the signatures in h was made with k. Its duration
// depends on how many there are, not on how much of one matches.
func (k *key) signed(h Headers, body []byte) bool {
	m, ok := k.macs.Get().(*mac)
	if !ok {
		m = newMAC(k.raw)
	}
	defer k.macs.Put(m)
	m.compute(h.ID, h.Timestamp, body)
	found := false
	for signature := range strings.SplitSeq(h.Signature, " ") {
		text, ok := strings.CutPrefix(signature, version)
		if !ok || len(text) != signatureLen {
			continue
		}
		copy(m.got[:], text)
		found = hmac.Equal(m.got[:], m.want[:]) || found
	}
	return found
}
