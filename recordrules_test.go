// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRecordRules records what rules do, and holds the tape against the tools.
func TestRecordRules(t *testing.T) {
	dir := t.TempDir()
	rules, path := filepath.Join(dir, "rules.json"), filepath.Join(dir, "t.jsonl")
	text := `{"version": 1, "rules": [
		{"name": "mark", "when": {"tool": "add"}, "tag": "sums"},
		{"name": "other", "when": {"tool": "add"}, "set": {"/params/arguments/a": 4}},
		{"name": "no fail", "when": {"tool": "fail"}, "deny": "off"},
		{"name": "canned", "when": {"tool": "weather"}, "answer": {"content": []}},
		{"name": "broken", "when": {"method": "ping"}, "fault": "error:-1"},
		{"name": "mask", "when": {"tool": "echo", "dir": "to-client"}, "replace": {"regex": "a", "with": "b"}}]}`
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in := tapeInitialize + "\n" + tapeReady + "\n" + tapeCallText(2, "add", `{"a":1,"b":2}`) + "\n" + tapeCallText(3, "fail", `{}`) + "\n" +
		tapeCallText(4, "weather", `{}`) + "\n" + tapeCallText(5, "echo", `{"text":"a"}`) + "\n" + `{"jsonrpc":"2.0","id":6,"method":"ping"}` + "\n"
	if code, _, log := runWith(strings.NewReader(in), "-mode=record", "-tape", path, "-rules", rules, "-demo"); code != 0 {
		t.Fatalf("got exit status %d and %s", code, log)
	}
	tape, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var did []string
	lines := map[int64]*Entry{}
	for _, e := range recordCheck(t, string(tape)) {
		lines[e.Seq] = e
		about := lines[e.Re]
		if e.Kind == lineMsg && e.Was > 0 {
			about = lines[e.Was]
		} else if e.Kind != lineRule {
			continue
		}
		if about == nil || about.Dir != e.Dir || about.Session != e.Session {
			t.Fatalf("line %d is about %+v, want a message of its session and direction", e.Seq, about)
		}
		m, _ := Parse(about.Msg)
		did = append(did, fmt.Sprint(m.ID, " ", e.Dir, " ", e.Rule, ": ", e.Text, " ", about.Local))
	}
	slices.Sort(did)
	want := []string{"2 to-client mark: tag sums false", "2 to-server mark: tag sums false", "2 to-server other:  false",
		"3 to-server no fail: deny true", "4 to-server canned: answer true", "5 to-client mask:  false", "6 to-server broken: fault error:-1 true"}
	if !slices.Equal(did, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(did, "\n"), strings.Join(want, "\n"))
	}
	if _, v := useCheck(t, string(tape), TapeToolOptions{}); v.Errors != 0 {
		t.Errorf("got %+v of check", v)
	}
}

// The half of a message that its client is no longer there for is no JSON, and on the tape as the server sent it.
func TestRecordDroppedHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.jsonl")
	rec := recordFile(t, path)
	m := sessParse(t, talkResult("1", `{"a": 1}`))
	half := *m
	half.Raw = half.Raw[:20]
	half.Ruled = &Ruled{Was: m, Broken: true}
	rec.Dropped(&Session{}, &half, "client is gone")
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if list := recordCheck(t, string(text)); len(list) != 3 || list[1].Msg != m.Raw {
		t.Errorf("got %+v, want one line with %s", list, m.Raw)
	}
}
