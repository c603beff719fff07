package store_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestRetriesAreCountedByCode(t *testing.T) {
	t.Parallel()
	for range 3 {
		store.CountRetry("deadlock of the test")
	}
	store.CountRetry("conflict of the test")
	got := store.Retries()
	if got["deadlock of the test"] != 3 || got["conflict of the test"] != 1 {
		t.Errorf("Retries = %v; want 3 and 1", got)
	}
}
