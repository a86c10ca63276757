// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

func dieWithParent(*syscall.SysProcAttr) {}

// awaitEnd returns when the process of cmd has ended and reaps it.
func awaitEnd(cmd *exec.Cmd) { cmd.Wait() }
