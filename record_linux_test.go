// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// recordOnFullDisk records more calls than a disk of 64 KiB has room for.
func recordOnFullDisk(t *testing.T, args ...string) (code int, out, errs, path string) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	var input strings.Builder
	input.WriteString(recordHello)
	for id := 2; id < 102; id++ {
		fmt.Fprintf(&input, `{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":%q}}}`+"\n", id, strings.Repeat("x", 1000))
	}
	path = filepath.Join(dir, "full.jsonl")
	code, out, errs = runWith(strings.NewReader(input.String()), append([]string{"-mode=record", "-tape", path, "-demo"}, args...)...)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if tape, _, err := readTape(string(text)); err != nil || tape.Torn || len(text) < 30000 {
		t.Errorf("got %d bytes, %v, want what the disk had room for, in whole lines", len(text), err)
	}
	return code, out, errs, path
}

func TestRecordStopsOnAFullDisk(t *testing.T) {
	code, out, errs, path := recordOnFullDisk(t)
	refused := strings.Count(out, `"code":503`) + strings.Count(out, `"code":502`)
	if code != 1 || !strings.Contains(errs, "mcpproxy: -tape: write "+path) || !strings.Contains(errs, "no space left") || refused == 0 {
		t.Errorf("got status %d, %d refusals, %.300s, want 1, why, and refusals", code, refused, errs)
	}
}

func TestRecordPassesOnAFullDisk(t *testing.T) {
	code, out, errs, _ := recordOnFullDisk(t, "-tape-error", "pass")
	if code != 0 || strings.Count(out, `"result"`) != 101 || !strings.Contains(errs, "messages pass unrecorded") {
		t.Errorf("got status %d, %d results, %.300s, want all answered and a line in the log", code, strings.Count(out, `"result"`), errs)
	}
}
