package mysqltest

import "syscall"

// attr makes a child run as account, or as ourselves if that is nil, in a group of
// its own, which a terminal's Ctrl-C does not reach, and die when we die.
func attr(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
