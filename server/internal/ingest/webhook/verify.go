// Package webhook turns a delivery into what it means: it checks the signature
// over the bytes as they were received, reads the event they hold and names
// the resources the event makes stale. It is pure; the clock is passed in.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Secret is a signing secret of an endpoint, in the form the Liveblocks
// dashboard shows: "whsec_" and the key in base64.
type Secret struct {
	Project mirror.ProjectID
	Secret  string
}

// Verifier checks deliveries against the secrets of all projects. It is safe
// for concurrent use.
type Verifier struct {
	keys      []*key
	tolerance int64 // seconds
}

// NewVerifier returns a Verifier that lets a delivery's timestamp differ from
// the clock by up to tolerance, which is cut to whole seconds. A project may
// have several secrets, old and new while one is rotated. The error names
// every bad secret by its project and place, never by its content. Without
// secrets the Verifier refuses everything.
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
			problems = append(problems, fmt.Errorf("webhook secret %d of project %q: %w", places[s.Project], s.Project, err))
		}
		if !mirror.ValidProjectID(string(s.Project)) {
			bad(errors.New("not a project id"))
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
			v.keys = append(v.keys, &key{project: s.Project, raw: raw})
		case owner != s.Project:
			// A delivery could not be told to belong to the one or the other.
			bad(fmt.Errorf("is a secret of project %q too", owner))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return v, nil
}

// parseSecret returns the key in a secret. Its errors do not quote the secret.
func parseSecret(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return nil, errors.New("does not begin with whsec_")
	}
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(text, "=") {
		encoding = base64.StdEncoding
	}
	// The decoder passes over line breaks; in a secret they are a mistake.
	raw, err := encoding.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("is not base64 behind whsec_")
	}
	// Anybody can sign with an empty key.
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

// HeadersFrom picks the signature headers from what get returns for lower-case
// keys: webhook-id, webhook-timestamp and webhook-signature, or the same with
// svix-. A family has to be complete, without a header of the other family or
// a second value: with a mix it would be unclear which one was signed.
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
	case standardCount > 0 && svixCount > 0:
		return Headers{}, unauthentic(fault.ReasonSignatureInvalid, "webhook- and svix- headers are mixed")
	case svixCount > 0:
		standard = svix
	}
	if err := standard.complete(); err != nil {
		return Headers{}, err
	}
	return standard, nil
}

// family reads one family of headers, keys being those of id, timestamp and
// signature, and counts those that are present.
func family(get func(key string) []string, keys [3]string) (h Headers, count int, err error) {
	for i, field := range [3]*string{&h.ID, &h.Timestamp, &h.Signature} {
		switch values := get(keys[i]); len(values) {
		case 0:
		case 1:
			*field = values[0]
			count++
		default:
			return Headers{}, 0, unauthentic(fault.ReasonSignatureInvalid, "header "+keys[i]+" is repeated")
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

// Verify reports which project's secret signed a delivery, and its timestamp.
// Only the secrets of project are tried, or all if project is empty. Every
// failure is a [*fault.Error] that holds nothing of the delivery but its age.
//
// It reads body as raw bytes, exactly as they came off the wire. Parsing and
// re-encoding first, even with the same fields, changes the bytes and so the
// signature; callers keep the body as they received it.
func (v *Verifier) Verify(project mirror.ProjectID, h Headers, body []byte, now time.Time) (mirror.ProjectID,
	time.Time, error) {
	if err := h.complete(); err != nil {
		return "", time.Time{}, err
	}
	seconds, ok := parseTimestamp(h.Timestamp)
	if !ok {
		return "", time.Time{}, unauthentic(fault.ReasonSignatureInvalid, "the timestamp is not a whole number of seconds")
	}
	if age := now.Unix() - seconds; age > v.tolerance || age < -v.tolerance {
		return "", time.Time{}, unauthentic(fault.ReasonTimestampOutOfTolerance,
			"the timestamp differs from the clock by "+strconv.FormatInt(age, 10)+" s; at most "+strconv.FormatInt(v.tolerance,
				10)+" s are allowed")
	}
	for _, k := range v.keys {
		if project != "" && k.project != project || !k.signed(h, body) {
			continue
		}
		// Said only to who could sign: others learn nothing but that they could not.
		if !validEventID(h.ID) {
			return "", time.Time{}, fault.New(fault.Invalid, fault.ReasonEventIDInvalid,
				"the event id is longer than "+strconv.Itoa(mirror.MaxEventID)+" bytes or not printable ASCII")
		}
		return k.project, time.Unix(seconds, 0).UTC(), nil
	}
	return "", time.Time{}, unauthentic(fault.ReasonSignatureInvalid, "no signature is made with a known secret")
}

func unauthentic(reason fault.Reason, public string) error {
	return fault.New(fault.Unauthentic, reason, public)
}

// parseTimestamp reads Unix seconds in the only spelling that is signed by
// anybody: digits without a sign, a leading zero or anything else. Other
// spellings of the same number are refused, since the vendors' own libraries
// disagree about which of the two they sign.
func parseTimestamp(s string) (int64, bool) {
	const longest = 18 // digits that surely fit; milliseconds have 13
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

// version marks a signature made with a shared secret; the format knows
// others, which we have no key for.
const version = "v1,"

// signatureLen is the length of an HMAC-SHA256 in base64.
const signatureLen = (sha256.Size + 2) / 3 * 4

// key is one secret's key, with hash states that are ready to use.
type key struct {
	project mirror.ProjectID
	raw     []byte
	macs    sync.Pool // of *mac
}

// mac is the state of one computation. Kept, it spares the set-up of the key
// and every allocation.
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

// signed reports whether one of the signatures in h is made with k. The time
// it takes tells how many there are, not how much of one is right.
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
