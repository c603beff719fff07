//go:build !linux

package pgembed

import "testing"

// needUserNamespace skips nothing: there are no user namespaces here, and no need of one.
func needUserNamespace(*testing.T) {}
