// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"log/slog"
	"os"
	"os/exec"
	"syscall"
)

// procAttr puts a child into a process group of its own and lets the kernel kill it when the thread that started it
// ends, which is what happens when the proxy is killed. The signal is SIGKILL because a dead proxy cannot follow a
// gentler one with a firmer one; a server that wants to clean up must not depend on it. Two things it does not reach: a
// program that is set-user-ID, and children of the child. Those see the end of file on stdin.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitEnd returns when the process of cmd has ended. It leaves it unreaped, so that its number stays taken until its
// group has been killed; where that is not possible, it reaps it.
func awaitEnd(cmd *exec.Cmd) {
	const idTypePid = 1 // P_PID
	for {
		_, _, err := syscall.Syscall6(syscall.SYS_WAITID, idTypePid, uintptr(cmd.Process.Pid), 0,
			syscall.WEXITED|syscall.WNOWAIT, 0, 0)
		if err == 0 {
			return
		}
		if err != syscall.EINTR {
			cmd.Wait()
			return
		}
	}
}

// A group is a process group that p leads. terminate and kill may be called until p has been reaped.
type group struct{ p *os.Process }

func newGroup(p *os.Process, _ *slog.Logger) group { return group{p} }

func (g group) terminate() { syscall.Kill(-g.p.Pid, syscall.SIGTERM) }

// kill kills p also if it has left its group.
func (g group) kill() {
	g.release()
	g.p.Kill()
}

// release kills what is left of the group.
func (g group) release() { syscall.Kill(-g.p.Pid, syscall.SIGKILL) }

// readNow reads from fd, which does not block. It returns 0 or less if there is nothing.
func readNow(fd uintptr, p []byte) int {
	for {
		if n, err := syscall.Read(int(fd), p); err != syscall.EINTR {
			return n
		}
	}
}
