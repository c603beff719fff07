package pgembed

import (
	"os"
	"syscall"
)

// attr makes a child run as id and shut down cleanly if this process dies.
func (id identity) attr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	switch id.mode {
	case asSelf:
	case asOther:
		//nolint:gosec // account ids are not negative
		a.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)}
	case asMapped:
		a.Cloneflags = syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: id.uid, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: id.gid, HostID: os.Getegid(), Size: 1}}
	}
	return a
}
