// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets the kernel kill a child when the thread that started it ends, as when the proxy is killed. SIGKILL,
// because a dead proxy cannot follow a gentler signal with a firmer one. Out of its reach: a program that is set-user-ID,
// and children of the child. Those see the end of file on stdin.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// awaitEnd returns when the process of cmd has ended. It leaves it unreaped, so that its number stays taken until its
// group has been killed; where that is not possible, it reaps it.
func awaitEnd(cmd *exec.Cmd) {
	const idTypePid = 1 // P_PID
	err := syscall.EINTR
	for err == syscall.EINTR {
		_, _, err = syscall.Syscall6(syscall.SYS_WAITID, idTypePid, uintptr(cmd.Process.Pid), 0,
			syscall.WEXITED|syscall.WNOWAIT, 0, 0)
	}
	if err != 0 {
		cmd.Wait()
	}
}
