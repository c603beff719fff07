package pgembed

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// needUserNamespace skips t where root may not make a user namespace, as in a chroot, or
// in a container whose seccomp profile forbids it.
func needUserNamespace(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 100, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 100, HostID: os.Getegid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		t.Skipf("NOT RUN: this system refuses user namespaces, which this test needs: %v", err)
	}
}
