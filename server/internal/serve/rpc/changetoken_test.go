package rpc

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

var (
	thisFeed  = feedIdentity{1, 2, 3}
	otherFeed = feedIdentity{3, 2, 1}
)

func positions() *rapid.Generator[mirror.Position] {
	return rapid.Custom(func(t *rapid.T) (p mirror.Position) {
		numbers := rapid.MapOf(rapid.IntRange(0, len(p)-1), rapid.Int64Range(1, 1<<62)).Draw(t, "numbers")
		for bucket, n := range numbers {
			p[bucket] = n
		}
		return p
	})
}

// places are positions, some of them in a snapshot.
func places() *rapid.Generator[place] {
	return rapid.Custom(func(t *rapid.T) place {
		p := place{at: positions().Draw(t, "position")}
		if rapid.Bool().Draw(t, "in a snapshot") {
			p.in = &inSnapshot{after: mirror.Resource{
				Kind: rapid.SampledFrom(mirror.Kinds()).Draw(t, "kind"),
				Room: mirror.RoomID(rapid.String().Draw(t, "room")), ID: rapid.String().Draw(t, "id"),
			}}
			copy(p.in.filters[:], rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "filters"))
		}
		if rapid.Bool().Draw(t, "behind pages of a snapshot") {
			p.beyond = positions().Draw(t, "beyond")
			for bucket, n := range p.at {
				p.beyond[bucket] = min(p.beyond[bucket], maxNumber-n)
			}
		}
		return p
	})
}

func TestChangeTokens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := places().Draw(t, "place")
		token := formatChangeToken(thisFeed, &want)
		if got, err := parseChangeToken(token, thisFeed); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("parse = %v, %v; want %v", got, err, want)
		}
		if again := formatChangeToken(thisFeed, &want); again != token {
			t.Fatalf("two tokens of a place: %s and %s", token, again)
		}
		if got, err := parseChangeToken(token, otherFeed); !errors.Is(err, errChangeTokenMismatch) {
			t.Fatalf("parse for another feed = %v, %v; want %v", got, err, errChangeTokenMismatch)
		}
		// Any byte that changes or is lost is noticed.
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, len(raw)-1).Draw(t, "at")
		damaged := append([]byte(nil), raw...)
		damaged[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		for what, bad := range map[string][]byte{"damaged": damaged, "cut off": raw[:at]} {
			if got, err := parseChangeToken(base64.RawURLEncoding.EncodeToString(bad), thisFeed); !errors.Is(err,
				errTokenInvalid) {
				t.Fatalf("parse of one that is %s = %v, %v; want %v", what, got, err, errTokenInvalid)
			}
		}
	})
}

// Tokens that the first version has given are good as long as what they name is kept.
func TestOldChangeTokens(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]mirror.Position{
		"AQECAwAAAAAA4l1Rhg":                  {},
		"AQECAwAAAAAAAawC_wGAgICAgICAAgUrURM": {0: 300, 255: 1 << 50},
	} {
		if got, err := parseChangeToken(token, thisFeed); err != nil || got.at != want || got.in != nil {
			t.Errorf("parse of %s = %v, %v; want %v", token, got, err, want)
		}
		if got, err := parseChangeToken(token, otherFeed); !errors.Is(err, errChangeTokenMismatch) {
			t.Errorf("parse of %s for another feed = %v, %v; want %v", token, got, err, errChangeTokenMismatch)
		}
	}
}

// What a token is made of does not show in it: tokens of places that differ in one number
// have nothing in common behind what names the feed.
func TestChangeTokensTellNothing(t *testing.T) {
	t.Parallel()
	raw := func(n int64) []byte {
		p := place{at: mirror.Position{7: n, 9: 1000}}
		raw, err := base64.RawURLEncoding.DecodeString(formatChangeToken(thisFeed, &p))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	a, b := raw(500), raw(501)
	if len(a) != len(b) || !bytes.Equal(a[:1+tokenIdentity], b[:1+tokenIdentity]) {
		t.Fatalf("tokens of one feed: %x and %x; want one size and one beginning", a, b)
	}
	same := 0
	for i := tokenHeadSize; i < len(a); i++ {
		if a[i] == b[i] {
			same++
		}
	}
	if body := len(a) - tokenHeadSize; same > body/2 || bytes.Contains(a, thisFeed[:3]) {
		t.Errorf("%d of %d bytes of %x and %x are the same; want few, and nothing of the identity", same, body, a, b)
	}
}

// The longest token fits a header and a column of 4 KiB.
func TestLongestChangeToken(t *testing.T) {
	t.Parallel()
	var p place
	for bucket := range p.at {
		p.at[bucket] = 1 << 40
	}
	if n := len(formatChangeToken(thisFeed, &p)); n > 3<<10 {
		t.Fatalf("a token has %d bytes; want at most 3 KiB", n)
	}
	p.in = &inSnapshot{after: mirror.Resource{
		Kind: mirror.KindThread, Room: mirror.RoomID(strings.Repeat("r", mirror.MaxRoomID)),
		ID: strings.Repeat("t", mirror.MaxResourceID),
	}}
	if n := len(formatChangeToken(thisFeed, &p)); n > 4<<10 {
		t.Fatalf("a token in a snapshot has %d bytes; want at most 4 KiB", n)
	}
	if token := formatChangeToken(thisFeed, &place{}); token == "" {
		t.Fatal("the token of the beginning is empty")
	}
}

func FuzzChangeToken(f *testing.F) {
	for _, at := range []mirror.Position{{}, {1}, {0: 300, 255: 1 << 50}} {
		f.Add(formatChangeToken(thisFeed, &place{at: at}))
		f.Add(formatChangeToken(otherFeed, &place{at: at}))
	}
	f.Add("AQECAwAAAAAAAawC_wGAgICAgICAAgUrURM")
	f.Add("")
	f.Add("AQ")
	f.Add("\x01\x05")                                 // number 5 of the first bucket
	f.Add("\x01\x85\x00")                             // the same in more bytes
	f.Add("\x80\x02\x01\x01\x01")                     // beyond the last bucket
	f.Add("\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f") // the largest number of nine bytes
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parseChangeToken(text, thisFeed); err != nil && p != (place{}) {
			t.Fatalf("parse = %v with error %v; want no place", p, err)
		}
		// No fuzzer guesses a checksum, so the text is also a position for which one is made.
		raw := append([]byte{oldChangeTokenVersion}, thisFeed[:tokenIdentity]...)
		raw = append(raw, text...)
		raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
		p, err := parseChangeToken(base64.RawURLEncoding.EncodeToString(raw), thisFeed)
		if err != nil && p != (place{}) || err == nil && (p.in != nil || string(appendPosition(nil, &p.at)) != text) {
			t.Fatalf("position %x = %v, %v, which is written %x", text, p, err, appendPosition(nil, &p.at))
		}
		if again, err := parseChangeToken(formatChangeToken(thisFeed, &p), thisFeed); err != nil ||
			!reflect.DeepEqual(again, p) {
			t.Fatalf("token of %v = %v, %v", p, again, err)
		}
	})
}

// What is behind the mask is read as strictly: a place has one spelling.
func FuzzPlace(f *testing.F) {
	f.Add(encodePlace(&place{at: mirror.Position{0: 300, 255: 1 << 50}}))
	f.Add(encodePlace(&place{at: mirror.Position{3: 7}, beyond: mirror.Position{3: 2, 4: 1}}))
	f.Add(encodePlace(&place{in: &inSnapshot{after: mirror.Resource{Kind: mirror.KindThread, Room: "r", ID: "t"}}}))
	f.Add([]byte{1, 0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return // no token has that
		}
		p, err := parsePlace(body)
		if err == nil && !bytes.Equal(encodePlace(&p), body) || err != nil && p != (place{}) {
			t.Fatalf("place of %x = %v, %v, which is written %x", body, p, err, encodePlace(&p))
		}
	})
}
