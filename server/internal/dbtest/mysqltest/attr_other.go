//go:build unix && !linux

package mysqltest

import "syscall"

// attr makes a child run as account, or as the current account if that is nil, in
// its own process group, which Ctrl-C does not reach. If this process is killed,
// the child keeps running.
func attr(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true}
}
