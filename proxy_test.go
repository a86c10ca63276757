// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"maps"
	"os"
	"testing"
)

// TestMain lets the test binary be the processes that the tests need.
func TestMain(m *testing.M) {
	roles := procRoles()
	maps.Copy(roles, proxyRoles())
	if role := roles[os.Getenv("MCPPROXY_TEST_CHILD")]; role != nil {
		role()
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=10") // or each child lingers for a second under -race
	os.Exit(m.Run())
}

func proxyRoles() map[string]func() { return map[string]func(){} }
