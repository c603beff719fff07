package rpc

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
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

func TestChangeTokens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := positions().Draw(t, "position")
		token := formatChangeToken(thisFeed, &want)
		if got, err := parseChangeToken(token, thisFeed); err != nil || got != want {
			t.Fatalf("parse = %v, %v; want %v", got, err, want)
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
			if got, err := parseChangeToken(base64.RawURLEncoding.EncodeToString(bad), thisFeed); err == nil {
				t.Fatalf("parse of one that is %s = %v; want an error", what, got)
			}
		}
	})
}

// The longest token fits a header and a column of 4 KiB.
func TestLongestChangeToken(t *testing.T) {
	t.Parallel()
	var p mirror.Position
	for bucket := range p {
		p[bucket] = 1 << 40
	}
	if n := len(formatChangeToken(thisFeed, &p)); n > 3<<10 {
		t.Fatalf("a token has %d bytes; want at most 3 KiB", n)
	}
	if token := formatChangeToken(thisFeed, &mirror.Position{}); token == "" {
		t.Fatal("the token of the beginning is empty")
	}
}

func FuzzChangeToken(f *testing.F) {
	for _, p := range []mirror.Position{{}, {1}, {0: 300, 255: 1 << 50}} {
		f.Add(formatChangeToken(thisFeed, &p))
		f.Add(formatChangeToken(otherFeed, &p))
	}
	f.Add("")
	f.Add("AQ")
	f.Add("\x01\x05")                                 // number 5 of the first bucket
	f.Add("\x01\x85\x00")                             // the same in more bytes
	f.Add("\x80\x02\x01\x01\x01")                     // beyond the last bucket
	f.Add("\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f") // the largest number of nine bytes
	f.Fuzz(func(t *testing.T, text string) {
		// No fuzzer guesses a checksum, so the text is also a position for which one is made.
		raw := append([]byte{changeTokenVersion}, thisFeed[:tokenIdentity]...)
		raw = append(raw, text...)
		raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
		for _, token := range []string{text, base64.RawURLEncoding.EncodeToString(raw)} {
			at, err := parseChangeToken(token, thisFeed)
			if err != nil {
				if at != (mirror.Position{}) {
					t.Fatalf("parse = %v with error %v; want no position", at, err)
				}
				continue
			}
			if again := formatChangeToken(thisFeed, &at); again != token {
				t.Fatalf("token %q = %v, of which the token is %q", token, at, again)
			}
		}
	})
}
