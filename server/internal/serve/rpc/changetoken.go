package rpc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// feedIdentity identifies the feed of one project in one database.
type feedIdentity [16]byte

// place is what a change token names: a position, or a place in a snapshot that was begun
// there.
type place struct {
	at mirror.Position
	// beyond is by how much the database was beyond that when a page of the snapshot, or
	// resources that came with changes, were read last. What is held by then is as new, so the
	// database must not be older.
	beyond mirror.Position
	// in is the place in a snapshot; nil behind it.
	in *inSnapshot
}

// seen is how far the database was.
func (p *place) seen() mirror.Position {
	seen := p.at
	for bucket, n := range p.beyond {
		seen[bucket] += n
	}
	return seen
}

// inSnapshot is a place in a snapshot.
type inSnapshot struct {
	// filters is a hash of what the snapshot selects.
	filters [4]byte
	// after is the last item that came; its kind alone if none of the kind did.
	after mirror.Resource
}

// A change token is a version, an identifier of the feed, a check sum, a place that is
// masked, and a CRC of all that, which tells a damaged token from that of another feed.
//
// The mask keeps from a caller who sees few rooms how much happens in all others. Its key
// comes from the identity of the feed, which nobody outside of the database knows, and its
// nonce is the check sum, which is one of what it masks: so a place has one token. A token
// grants no access: every call is limited to what its caller sees.
const (
	changeTokenVersion = 2
	tokenIdentity      = 8
	tokenSum           = aes.BlockSize
	tokenHeadSize      = 1 + tokenIdentity + tokenSum
)

// Tokens of version 1 are a version, the first bytes of the identity, a position and a CRC.
// They stay valid: followers have stored them.
const oldChangeTokenVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errChangeTokenMismatch = errors.New("change token of another feed")
	errSnapshotMismatch    = errors.New("change token of a snapshot with other filters")
)

// secret returns what only who knows the identity knows, for a purpose.
func (f feedIdentity) secret(purpose string, message ...[]byte) []byte {
	mac := hmac.New(sha256.New, f[:])
	mac.Write([]byte(purpose))
	for _, m := range message {
		mac.Write([]byte{0})
		mac.Write(m)
	}
	return mac.Sum(nil)
}

// mask masks a place in a token, or takes the mask off.
func (f feedIdentity) mask(body, sum []byte) {
	block, err := aes.NewCipher(f.secret("mask of a change token"))
	if err != nil {
		panic(err) // the key has the size of a hash
	}
	cipher.NewCTR(block, sum).XORKeyStream(body, body)
}

// formatChangeToken returns the token of a place.
func formatChangeToken(of feedIdentity, p *place) string {
	body := encodePlace(p)
	sum := of.secret("check sum of a change token", body)[:tokenSum]
	of.mask(body, sum)
	raw := append([]byte{changeTokenVersion}, of.secret("identifier of a feed")[:tokenIdentity]...)
	raw = append(append(raw, sum...), body...)
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseChangeToken returns the place of a token. It accepts only what formatChangeToken
// writes for this feed, so every place has one spelling, and what it wrote before.
func parseChangeToken(token string, of feedIdentity) (p place, err error) {
	raw, err := decodeBase64(token)
	if err != nil || len(raw) < 1+tokenIdentity+crc32.Size {
		return p, errTokenInvalid
	}
	raw, crc := raw[:len(raw)-crc32.Size], raw[len(raw)-crc32.Size:]
	if crc32.Checksum(raw, castagnoli) != binary.BigEndian.Uint32(crc) {
		return p, errTokenInvalid
	}
	identity := of.secret("identifier of a feed")
	switch {
	case raw[0] == oldChangeTokenVersion:
		identity = of[:]
	case raw[0] != changeTokenVersion || len(raw) <= tokenHeadSize:
		return p, errTokenInvalid
	}
	if !hmac.Equal(raw[1:1+tokenIdentity], identity[:tokenIdentity]) {
		return p, errChangeTokenMismatch
	}
	if raw[0] == oldChangeTokenVersion {
		p.at, err = parsePosition(raw[1+tokenIdentity:])
		return p, err
	}
	sum, body := raw[1+tokenIdentity:tokenHeadSize], raw[tokenHeadSize:]
	of.mask(body, sum)
	if !hmac.Equal(sum, of.secret("check sum of a change token", body)[:tokenSum]) {
		return p, errTokenInvalid
	}
	return parsePlace(body)
}

// What a place begins with.
const (
	placeInFeed = iota
	placeInSnapshot
	// placeBehindSnapshot has how far the database was as well.
	placeBehindSnapshot
)

// encodePlace returns a place as bytes: what it is; where in a snapshot, if it is in one; how
// far the database was, unless it is a mere position; and the position.
func encodePlace(p *place) []byte {
	var raw []byte
	switch {
	case p.in != nil:
		raw = append([]byte{placeInSnapshot}, p.in.filters[:]...)
		raw = binary.AppendUvarint(raw, uint64(p.in.after.Kind)) //nolint:gosec // positive
		raw = appendBytes(raw, []byte(p.in.after.Room))
		raw = appendBytes(raw, []byte(p.in.after.ID))
	case p.beyond != mirror.Position{}:
		raw = []byte{placeBehindSnapshot}
	default:
		return appendPosition([]byte{placeInFeed}, &p.at)
	}
	raw = appendBytes(raw, appendPosition(nil, &p.beyond))
	return appendPosition(raw, &p.at)
}

// appendBytes adds bytes behind their number.
func appendBytes(raw, bytes []byte) []byte {
	return append(binary.AppendUvarint(raw, uint64(len(bytes))), bytes...)
}

// cutBytes takes away what appendBytes has added.
func cutBytes(raw []byte) (bytes, rest []byte, err error) {
	size, n := binary.Uvarint(raw)
	if n <= 0 || size > uint64(len(raw)-n) { //nolint:gosec // positive
		return nil, nil, errTokenInvalid
	}
	return raw[n : n+int(size)], raw[n+int(size):], nil //nolint:gosec // at most the length
}

// parsePlace reads what encodePlace writes.
func parsePlace(body []byte) (place, error) {
	var p place
	var err error
	rest := body[1:]
	if body[0] == placeInSnapshot {
		p.in = &inSnapshot{}
		if rest, err = parseInSnapshot(p.in, rest); err != nil {
			return place{}, err
		}
	}
	if body[0] != placeInFeed {
		var beyond []byte
		if beyond, rest, err = cutBytes(rest); err != nil {
			return place{}, err
		}
		if p.beyond, err = parsePosition(beyond); err != nil {
			return place{}, err
		}
	}
	if p.at, err = parsePosition(rest); err != nil {
		return place{}, err
	}
	for bucket := range p.at {
		if p.at[bucket] > maxNumber-p.beyond[bucket] {
			return place{}, errTokenInvalid
		}
	}
	if !bytes.Equal(encodePlace(&p), body) {
		return place{}, errTokenInvalid
	}
	return p, nil
}

func parseInSnapshot(in *inSnapshot, rest []byte) ([]byte, error) {
	rest = rest[copy(in.filters[:], rest):]
	kind, n := binary.Uvarint(rest)
	if n <= 0 || kind > math.MaxInt16 {
		return nil, errTokenInvalid
	}
	room, rest, err := cutBytes(rest[n:])
	if err != nil {
		return nil, err
	}
	id, rest, err := cutBytes(rest)
	in.after = mirror.Resource{Kind: mirror.Kind(kind), Room: mirror.RoomID(room), ID: string(id)}
	return rest, err
}

// maxNumber is more than the number of any change.
const maxNumber = 1 << 62

// appendPosition adds a position: the numbers of the buckets that have one, each as the
// distance from the bucket before it and the number, both as varints.
func appendPosition(raw []byte, at *mirror.Position) []byte {
	last := -1
	for bucket, n := range at {
		if n > 0 {
			raw = binary.AppendUvarint(raw, uint64(bucket-last)) //nolint:gosec // positive
			raw = binary.AppendUvarint(raw, uint64(n))
			last = bucket
		}
	}
	return raw
}

// parsePosition reads what appendPosition writes, and nothing else.
func parsePosition(raw []byte) (at mirror.Position, err error) {
	last := -1
	for rest := raw; len(rest) > 0; {
		distance, i := binary.Uvarint(rest)
		n, j := uint64(0), 0
		if i > 0 {
			n, j = binary.Uvarint(rest[i:])
		}
		if i <= 0 || j <= 0 || n == 0 || n > maxNumber ||
			distance == 0 || distance > uint64(len(at)-1-last) {
			return mirror.Position{}, errTokenInvalid
		}
		last += int(distance) //nolint:gosec // at most the number of buckets
		at[last] = int64(n)
		rest = rest[i+j:]
	}
	if !bytes.Equal(appendPosition(nil, &at), raw) { // a varint that is longer than it needs to be
		return mirror.Position{}, errTokenInvalid
	}
	return at, nil
}

func badChangeToken(err error) error {
	reason, public := fault.ReasonChangeTokenInvalid, "the change token is not valid"
	switch {
	case errors.Is(err, errChangeTokenMismatch):
		reason, public = fault.ReasonChangeTokenMismatch, "the change token belongs to another project or another database"
	case errors.Is(err, errSnapshotMismatch):
		reason, public = fault.ReasonChangeTokenMismatch, "the change token is of a place in a snapshot that "+
			"was begun with other filters, or that a caller began who sees other rooms; go on with the same, or start again"
	}
	f := fault.Wrap(err, fault.Invalid, reason, public)
	f.Fields = []fault.Field{{Path: "token", Problem: "must be a token of this feed"}}
	return f
}
