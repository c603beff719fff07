package postgres

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// zip packs documents into zstd frames. The service compresses so that the
// server need not: one pass here costs a fraction of the server's own, and
// reads are served from the packed bytes.
type zip struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newZip() (*zip, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0))
	if err != nil {
		return nil, fmt.Errorf("set up decompression: %w", err)
	}
	return &zip{enc: enc, dec: dec}, nil
}

func (z *zip) pack(b []byte) []byte { return z.enc.EncodeAll(b, make([]byte, 0, len(b)/4+64)) }

// unpack restores size bytes.
func (z *zip) unpack(packed []byte, size int64) ([]byte, error) {
	b, err := z.dec.DecodeAll(packed, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("unpack document: %w", err)
	}
	if int64(len(b)) != size {
		return nil, fmt.Errorf("unpack document: got %d bytes, recorded were %d", len(b), size)
	}
	return b, nil
}

func (z *zip) close() { z.dec.Close() }
