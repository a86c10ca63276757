// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A run that misses nothing leaves the tape as it is; else the handshake goes before what was missing.
func TestReplayRecordsWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.jsonl")
	input := func(says ...string) *strings.Reader { return strings.NewReader(strings.Join(says, "\n") + "\n") }
	says := []string{frontInitialize(`1`, "2025-06-18"), frontNote("initialized"), replayCall(`2`, "echo", `{"text":"on tape"}`)}
	if code, _, stderr := runWith(input(says...), "record", "-tape", path, "-demo"); code != 0 {
		t.Fatal(stderr)
	}
	recorded, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, ended := range []bool{true, false} {
		tape := string(recorded)
		if !ended {
			tape = tape[:strings.LastIndex(tape, `{"seq"`)]
		}
		if err := os.WriteFile(path, []byte(tape), 0o600); err != nil {
			t.Fatal(err)
		}
		replays := func(says ...string) string {
			_, _, stderr := runWith(input(says...), "replay", "-tape", path, "-on-miss", "record", "-demo")
			if got := strings.Contains(stderr, "no end"); got == ended {
				t.Errorf("ended %v: got %s", ended, stderr)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return string(got)
		}
		if got := replays(says...); ended && got != tape || !strings.HasPrefix(got, tape) || strings.Count(got, `"open"`) != 1 {
			t.Errorf("got another tape without a miss:\n%s\nwas\n%s", got, tape)
		}
		ended = true
		got := replays(append(says, `{"jsonrpc":"2.0","id":9,"method":"ping"}`, replayCall(`3`, "echo", `{"text":"new"}`))...)
		recordCheck(t, got)
		added := got[strings.LastIndex(got, `"kind":"open"`):]
		for _, want := range []string{`"initialize"`, `"serverInfo"`, `initialized"`, `"id":3,"method"`, `"id":3,"result"`, `"kind":"close"`} {
			_, rest, ok := strings.Cut(added, want)
			if !ok {
				t.Fatalf("no %s in order in\n%s", want, got)
			}
			added = rest
		}
		if strings.Contains(added, "on tape") {
			t.Errorf("got\n%s", got)
		}
	}
}
