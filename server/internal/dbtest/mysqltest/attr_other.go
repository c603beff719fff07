//go:build unix && !linux

package mysqltest

import "syscall"

// attr makes a child run as account, or as ourselves if that is nil, in a group of
// its own, which a terminal's Ctrl-C does not reach. Nothing ends it should we be
// killed.
func attr(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true}
}
