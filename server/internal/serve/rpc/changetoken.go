package rpc

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// feedIdentity identifies the feed of one project in one database.
type feedIdentity [16]byte

// A change token is a version, the first bytes of the identity of the feed, a position, and a
// checksum of all that. A position is the numbers of the buckets that have one, each as
// the distance from the bucket before it and the number, both as varints. It grants no
// access: every call is limited to what its caller sees. So it is not signed.
const (
	changeTokenVersion = 1
	tokenIdentity      = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChangeTokenMismatch = errors.New("change token of another feed")

// formatChangeToken returns the token of a position.
func formatChangeToken(of feedIdentity, at *mirror.Position) string {
	raw := append([]byte{changeTokenVersion}, of[:tokenIdentity]...)
	last := -1
	for bucket, n := range at {
		if n > 0 {
			raw = binary.AppendUvarint(raw, uint64(bucket-last)) //nolint:gosec // positive
			raw = binary.AppendUvarint(raw, uint64(n))
			last = bucket
		}
	}
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseChangeToken returns the position of a token. It accepts only what formatChangeToken
// writes for this feed, so every position has one spelling.
func parseChangeToken(token string, of feedIdentity) (at mirror.Position, err error) {
	raw, err := decodeBase64(token)
	if err != nil || len(raw) < 1+tokenIdentity+crc32.Size || raw[0] != changeTokenVersion {
		return at, errTokenInvalid
	}
	body, sum := raw[:len(raw)-crc32.Size], raw[len(raw)-crc32.Size:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(sum) {
		return at, errTokenInvalid
	}
	last := -1
	for rest := body[1+tokenIdentity:]; len(rest) > 0; {
		distance, i := binary.Uvarint(rest)
		n, j := uint64(0), 0
		if i > 0 {
			n, j = binary.Uvarint(rest[i:])
		}
		if i <= 0 || j <= 0 || n == 0 || n > 1<<62 ||
			distance == 0 || distance > uint64(len(at)-1-last) {
			return mirror.Position{}, errTokenInvalid
		}
		last += int(distance) //nolint:gosec // at most the number of buckets
		at[last] = int64(n)
		rest = rest[i+j:]
	}
	if !bytes.Equal(body[1:1+tokenIdentity], of[:tokenIdentity]) {
		return mirror.Position{}, errChangeTokenMismatch
	}
	if formatChangeToken(of, &at) != token { // a varint that is longer than it needs to be
		return mirror.Position{}, errTokenInvalid
	}
	return at, nil
}

func badChangeToken(err error) error {
	reason, public := fault.ReasonChangeTokenInvalid, "the change token is not valid"
	if errors.Is(err, errChangeTokenMismatch) {
		reason, public = fault.ReasonChangeTokenMismatch, "the change token belongs to another project or another database"
	}
	f := fault.Wrap(err, fault.Invalid, reason, public)
	f.Fields = []fault.Field{{Path: "token", Problem: "must be a token of this feed"}}
	return f
}
