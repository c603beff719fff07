package store

import (
	"sync"
	"sync/atomic"
)

// retries counts by code; the values are *atomic.Int64.
var retries sync.Map

// CountRetry counts that a transaction runs again because of an error with the server's
// code, such as "40001". Engines call it.
func CountRetry(code string) {
	n, ok := retries.Load(code)
	if !ok {
		n, _ = retries.LoadOrStore(code, new(atomic.Int64))
	}
	if n, ok := n.(*atomic.Int64); ok {
		n.Add(1)
	}
}

// Retries returns how many transactions ran again since the process started, by the
// server's code of the error.
func Retries() map[string]int64 {
	counts := make(map[string]int64)
	retries.Range(func(code, n any) bool {
		if code, ok := code.(string); ok {
			if n, ok := n.(*atomic.Int64); ok {
				counts[code] = n.Load()
			}
		}
		return true
	})
	return counts
}
