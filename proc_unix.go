// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// dumpSignals are the signals on which a recording kept in memory is written.
func dumpSignals() []os.Signal { return []os.Signal{syscall.SIGUSR1} }

// reloadSignals are the signals on which a rule file is read again.
func reloadSignals() []os.Signal { return []os.Signal{syscall.SIGHUP} }

// lockFile fails if another program has locked f, until that ends or closes it. Where files cannot be locked nothing is.
func lockFile(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
		return errors.New("another program writes to it")
	}
	return nil
}

// procAttr puts a child into a process group of its own. Where nothing ends it when the proxy is killed, the end of file
// on its stdin does, on which a server "SHOULD exit promptly" (2026-07-28, basic/transports/stdio, Shutdown).
func procAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(attr)
	return attr
}

// A group is a process group that p leads. terminate and kill may be called until p has been reaped.
type group struct{ p *os.Process }

func newGroup(p *os.Process) group { return group{p} }

func (g group) terminate() { syscall.Kill(-g.p.Pid, syscall.SIGTERM) }

// kill kills p also if it has left its group.
func (g group) kill() {
	g.release()
	g.p.Kill()
}

// release kills what is left of the group. It is called before p is reaped or right after, before its number comes
// round again.
func (g group) release() { syscall.Kill(-g.p.Pid, syscall.SIGKILL) }

// readNow reads from fd, which does not block. It returns 0 or less if there is nothing.
func readNow(fd uintptr, p []byte) int {
	for {
		if n, err := syscall.Read(int(fd), p); err != syscall.EINTR {
			return n
		}
	}
}
