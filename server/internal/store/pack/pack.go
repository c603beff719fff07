// Package pack compresses documents for every engine, as zstd frames. Compressing
// in the service costs a fraction of the server's own compression, and reads use
// the packed bytes.
package pack

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Codec packs and unpacks. It is safe for concurrent use.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// New returns a Codec; Close it after use.
func New() (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0))
	if err != nil {
		return nil, fmt.Errorf("set up decompression: %w", err)
	}
	return &Codec{enc: enc, dec: dec}, nil
}

// Pack returns b as a zstd frame.
func (c *Codec) Pack(b []byte) []byte { return c.enc.EncodeAll(b, make([]byte, 0, len(b)/4+64)) }

// Unpack restores the size bytes that were packed.
func (c *Codec) Unpack(packed []byte, size int64) ([]byte, error) {
	b, err := c.dec.DecodeAll(packed, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("unpack document: %w", err)
	}
	if int64(len(b)) != size {
		return nil, fmt.Errorf("unpack document: got %d bytes, recorded were %d", len(b), size)
	}
	return b, nil
}

// Close ends the goroutines of the decoder.
func (c *Codec) Close() { c.dec.Close() }
