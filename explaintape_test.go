// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// explainedTape returns what is printed for the tape.
func explainedTape(t *testing.T, c *Config, rules, tape string) (string, error) {
	t.Helper()
	set, err := parseRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = tapeTool(newExplainer(c, set).tape).run(strings.NewReader(tape), "t.jsonl", &out, TapeToolOptions{Max: 1 << 20})
	return out.String(), err
}

func TestExplainTape(t *testing.T) {
	lines := append(handshake(),
		toServer(0, 0, tapeCallText(2, "search", `{}`)), // 5
		toClient(5, 0, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t2","progress":1}}`),
		toClient(0, 5, textResult(2, "from a@b.org")),              // 7, changed then:
		toClient(0, 5, textResult(2, "from c@d.org")),              // 8
		toServer(0, 0, tapeCallText(3, "delete_x", `{}`)),          // 9: the proxy refused it then
		toClient(0, 9, textResult(3, "by the proxy")),              // 10
		toServer(0, 0, tapeCallText(4, "delete_y", `{}`)),          // 11, answered then
		toClient(11, 0, `{"jsonrpc":"2.0","method":"x@y.org"}`),    // 12
		toClient(0, 11, textResult(4, "a@b.org")),                  // 13
		toServer(0, 0, tapeCallText(5, "read", `{"path":"/x"}`)),   // 14, as the client sent it
		toServer(0, 0, tapeCallText(5, "read", `{"path":"/srv"}`)), // 15, as rules made it
		toClient(0, 15, textResult(5, "a@b.org")),                  // 16
		toServer(0, 0, tapeCallText(6, "search", `{}`)),            // 17
		toServer(0, 0, tapeCallText(7, "search", `{}`)),            // 18
		toServer(18, 0, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`),
		toServer(0, 0, `{"jsonrpc":"2.0","method":"notifications/gone"}`), // 20
		toServer(0, 0, tapeCallText(8, "weather", `{}`)),
	)
	// The judged are 2 to 5, 6, 7, 9, 11, 14, 17, 18, 20 and 21.
	lines[7].Was, lines[7].Rule = 7, "then"
	lines[8].Local, lines[9].Local = true, true
	lines[14].Was, lines[14].Rule = 14, "then"
	lines[18].Local = true // the call took too long
	for i := range lines {
		lines[i].T = time.Duration(i) * 500 * time.Millisecond
	}
	c := &Config{Limits: explainLimits(t, "ip=100/s", "tools/call:search=1/m")}
	got, err := explainedTape(t, c, explainRules, testTape(lines...))
	wantText(t, got, `
t.jsonl: recorded 2026-01-02 03:04:05 by mcpproxy 0.1.0, client on stdio, server on stdio
the tape does not tell from where calls came: all count as one address, which no rule names; see -ip

limit tools/call:search=1/m: refuses: 2
         2  tools/call search
            from 2026-01-02 03:04:13.000 to 2026-01-02 03:04:13.500 UTC, seq 17 18

rule no deletes: deny: 2
         1  tools/call delete_x
            from 2026-01-02 03:04:09.000 to 2026-01-02 03:04:09.000 UTC, seq 9
         1  tools/call delete_y
            from 2026-01-02 03:04:10.000 to 2026-01-02 03:04:10.000 UTC, seq 11

rule sandbox: require: not so: /params/arguments/path: 1
         1  tools/call read
            from 2026-01-02 03:04:11.500 to 2026-01-02 03:04:11.500 UTC, seq 14

rule mask: replace: 1
         1  tools/call search
            from 2026-01-02 03:04:08.000 to 2026-01-02 03:04:08.000 UTC, seq 7

rule canned: answer: 1
         1  tools/call weather
            from 2026-01-02 03:04:15.000 to 2026-01-02 03:04:15.000 UTC, seq 21

rule lost: fault drop: 1
         1  notifications/gone
            from 2026-01-02 03:04:14.500 to 2026-01-02 03:04:14.500 UTC, seq 20

rules without effect: hide them, slow, deep
messages of calls that would not have been made, and were not judged: 3
13 messages, 8 calls: 3 would be refused by rules, 2 by limits, 1 answered, 1 changed, 0 delayed (0 s), 1 faults`)
	if err != errFound {
		t.Errorf("got %v, want %v", err, errFound)
	}
}

// Of an effect the first lines are named, of names so many, and the rest is summed up.
func TestExplainTapeSumsUp(t *testing.T) {
	lines := handshake()
	for i := range maxStatRows + 30 {
		lines = append(lines, toServer(0, 0, fmt.Sprintf(`{"jsonrpc":"2.0","method":"x/%04d"}`, i)))
	}
	rules := `{"version": 1, "rules": [{"name": "wait", "when": {"method": "x/*"}, "delay": "1ms"}, {"name": "not", "when": {"user": "joe", "session": "1"}, "deny": "no"}]}`
	tape := strings.Replace(testTape(lines...), `"client":"stdio"`, `"client":"http"`, 1)
	got, err := explainedTape(t, &Config{JSON: true}, rules, tape)
	if err != nil {
		t.Fatal(err)
	}
	var r TapeTrial
	if err := json.Unmarshal([]byte(got), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Effects) != maxStatRows+1 || r.Effects[0].effectKey != (effectKey{"rule wait", "delay 1ms", otherNames, ""}) ||
		r.Effects[0].Count != 30 || len(r.Effects[0].Seqs) != maxSeqs || r.Delayed != maxStatRows+30 || r.DelayMS != maxStatRows+30 {
		t.Errorf("got %+v", r)
	}
	wantText(t, strings.Join(append(r.Notes, r.Unmet...), "\n"), `
the tape does not tell who called: all count as one user, whom no rule names; see -user
sessions are named by their numbers on the tape
not`)
	for _, test := range []struct {
		user string
		want error
	}{{"joe", errFound}, {"ann", nil}} {
		if _, err := explainedTape(t, &Config{User: test.user}, rules, tape); err != test.want {
			t.Errorf("%s: got %v, want %v", test.user, err, test.want)
		}
	}
}

// What a rule says of a response depends on the call as it was made, however long its name, and on what the session
// agreed on; and what is denied is taken out of lists.
func TestExplainTapeResponses(t *testing.T) {
	long := strings.Repeat("long", 100)
	lines := append(handshake(),
		toServer(0, 0, tapeCallText(2, long, `{}`)), // 5
		toClient(0, 5, textResult(2, "x")),
		toServer(0, 0, `{"jsonrpc":"2.0","id":3,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}`), // 7
		toClient(0, 7, textResult(3, "x")),
		toServer(0, 0, `{"jsonrpc":"2.0","id":4,"method":"tools/list"}`), // 9
		toClient(0, 9, `{"jsonrpc":"2.0","id":4,"result":{"tools":[{"name":"a"},{"name":"b"},{"name":"c"}]}}`),
		toClient(0, 9, textResult(4, "again, which answers none")),
	)
	rules := `{"version": 1, "rules": [
		{"name": "long", "when": {"tool": "` + long + `", "dir": "to-client"}, "tag": "t"},
		{"name": "prompt", "when": {"prompt": "p", "dir": "to-client", "revision": "2025-11-25"}, "tag": "t"},
		{"name": "a", "when": {"tool": "a"}, "deny": "no"}, {"name": "b", "when": {"tool": "b"}, "deny": "no"},
		{"name": "none", "when": {"dir": "to-client", "where": {"/result/content/0/text": "again"}}, "log": "x"}]}`
	got, err := explainedTape(t, &Config{}, rules, testTape(lines...))
	if err != nil {
		t.Error(err)
	}
	var short []string
	for line := range strings.Lines(got) {
		if _, seq, ok := strings.Cut(line, " UTC, "); ok {
			line = "            " + seq
		}
		if !strings.Contains(line, "recorded") {
			short = append(short, strings.TrimRight(line, "\n"))
		}
	}
	wantText(t, strings.Join(short, "\n"), `
rule long: tag t: 1
         1  tools/call `+long[:maxShown]+`
            seq 6

rule prompt: tag t: 1
         1  completion/complete
            seq 8

rule a: hide what is denied: 1
         1  tools/list
            seq 10

rule b: hide what is denied: 1
         1  tools/list
            seq 10

rule none: log x: 1
         1  (answers to no call)
            seq 11

10 messages, 4 calls: 0 would be refused by rules, 0 by limits, 0 answered, 1 changed, 0 delayed (0 s), 0 faults`)
}

func FuzzExplainTape(f *testing.F) {
	for _, tape := range []string{testTape(goodTape()...), testTapeHeader} {
		f.Add(tape)
	}
	set, err := parseRules(explainRules)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tape string) {
		var out bytes.Buffer
		limit, _ := ParseLimit("global=1/s")
		e := newExplainer(&Config{JSON: true, Limits: []Limit{limit}}, set)
		if err := tapeTool(e.tape).run(strings.NewReader(tape), "t", &out, TapeToolOptions{Max: 1 << 20}); err != nil && err != errFound {
			return
		}
		var r TapeTrial
		if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Calls > r.Messages || r.ByLimits+r.ByRules+r.Changed > r.Messages {
			t.Errorf("got %v, %+v", err, r)
		}
	})
}
