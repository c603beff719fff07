package main

import (
	"runtime/debug"
	"testing"
)

// Every command begins with it.
func TestRunTunesMemory(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(77)
	if code := run(t.Context(), []string{"version"}); code != exitOK {
		t.Errorf("version = %d; want %d", code, exitOK)
	}
	if got := debug.SetGCPercent(before); got == 77 {
		t.Error("the garbage collector is set up as Go does it")
	}
}
