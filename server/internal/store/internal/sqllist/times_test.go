package sqllist

import (
	"strings"
	"testing"
	"time"
)

// Vitess sends times as text while it does not know the type of their column.
func TestTimesInText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"2026-11-30 08:53:20.123456": time.Date(2026, 11, 30, 8, 53, 20, 123456000, time.UTC),
		"2026-11-30 08:53:20":        time.Date(2026, 11, 30, 8, 53, 20, 0, time.UTC),
	} {
		var got time.Time
		if err := at(&got).Scan([]byte(text)); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("Scan(%s) = %v, %v; want %v", text, got, err, want)
		}
	}
	var got time.Time
	if err := at(&got).Scan([]byte("0000-00-00 00:00:00")); err == nil || strings.Contains(err.Error(), "0000") {
		t.Errorf("Scan of no time = %v; want an error without it", err)
	}
}
