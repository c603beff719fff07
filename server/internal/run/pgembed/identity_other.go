//go:build unix && !linux

package pgembed

import "syscall"

// attr makes a child run as id. There are no user namespaces here, so asMapped is
// the account of this process, which postgres may refuse. If this process dies, the
// child keeps running until the next start ends it.
func (id identity) attr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{}
	if id.mode == asOther {
		a.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)} //nolint:gosec // account ids are not negative
	}
	return a
}
