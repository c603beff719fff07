package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// taken keeps the time that was set.
type taken struct{ at time.Time }

func (s *taken) SetTime(t time.Time) { s.at = t }

func (s *taken) Scan(any) error { panic("a time was boxed") }

func TestTimesAreSet(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 5000, time.UTC)
	m := pgtype.NewMap()
	readTimes(m)
	for _, format := range []int16{pgtype.BinaryFormatCode, pgtype.TextFormatCode} {
		scan := func(value pgtype.Timestamptz, into any) error {
			t.Helper()
			b, err := m.Encode(pgtype.TimestamptzOID, format, value, nil)
			if err != nil {
				t.Fatalf("Encode(%v) = %v", value, err)
			}
			return m.Scan(pgtype.TimestamptzOID, format, b, into)
		}
		got := &taken{noon}
		if err := scan(pgtype.Timestamptz{}, got); err != nil || !got.at.IsZero() {
			t.Errorf("null = %v, %v; want the zero time", got.at, err)
		}
		if err := scan(pgtype.Timestamptz{Time: noon, Valid: true}, got); err != nil || !got.at.Equal(noon) {
			t.Errorf("noon = %v, %v", got.at, err)
		}
		infinity := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
		if err := scan(infinity, got); err == nil || !got.at.Equal(noon) {
			t.Errorf("infinity = %v, %v; want an error, and the time as it was", got.at, err)
		}
		var plain time.Time
		if err := scan(pgtype.Timestamptz{Time: noon, Valid: true}, &plain); err != nil || !plain.Equal(noon) {
			t.Errorf("noon into a time = %v, %v", plain, err)
		}
	}
}
