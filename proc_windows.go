// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"os"
	"syscall"
	"unsafe"
)

// dumpSignals are the signals on which a recording kept in memory is written: there is none.
func dumpSignals() []os.Signal { return nil }

// reloadSignals are the signals on which a rule file is read again: there is none.
func reloadSignals() []os.Signal { return nil }

// lockFile does nothing.
func lockFile(*os.File) error { return nil }

// procAttr keeps the console's Ctrl-C from a child: the proxy decides when it ends.
func procAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
	dieWithParent(attr)
	return attr
}

// A group is a job object with p and all that p starts. The system kills it with its last handle, that is when the proxy
// ends, however it ends. What p starts before it has been put into the job stays outside.
type group struct {
	p        *os.Process
	kernel32 *syscall.LazyDLL
	job      uintptr // 0: there is none, p stands alone
}

func newGroup(p *os.Process) group {
	const (
		extendedLimit = 9      // JobObjectExtendedLimitInformation
		killOnClose   = 0x2000 // JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
		setQuota      = 0x100  // PROCESS_SET_QUOTA
	)
	g := group{p: p, kernel32: syscall.NewLazyDLL("kernel32.dll")}
	g.job, _, _ = g.kernel32.NewProc("CreateJobObjectW").Call(0, 0)
	if g.job == 0 {
		return g
	}
	// JOBOBJECT_EXTENDED_LIMIT_INFORMATION: 144 bytes, or 112 where pointers have 32 bits; LimitFlags at offset 16.
	info := [18]uint64{2: killOnClose}
	g.kernel32.NewProc("SetInformationJobObject").Call(g.job, extendedLimit,
		uintptr(unsafe.Pointer(&info)), 80+8*unsafe.Sizeof(g.job))
	if h, err := syscall.OpenProcess(setQuota|syscall.PROCESS_TERMINATE, false, uint32(p.Pid)); err == nil {
		g.kernel32.NewProc("AssignProcessToJobObject").Call(g.job, uintptr(h))
		syscall.CloseHandle(h)
	}
	return g
}

// terminate is kill: there is no signal that asks.
func (g group) terminate() { g.kill() }

// kill must not be called after release.
func (g group) kill() {
	if g.job != 0 {
		g.kernel32.NewProc("TerminateJobObject").Call(g.job, 1)
	}
	g.p.Kill()
}

// release kills what is left of the job and gives up its handle.
func (g group) release() { syscall.CloseHandle(syscall.Handle(g.job)) }

// readNow is not called: pipes have no deadlines here.
func readNow(uintptr, []byte) int { return 0 }
