// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

const explainRules = `{"version": 1, "rules": [
	{"name": "no deletes", "when": {"method": "tools/call", "tool": "delete_*"}, "deny": "deletes are off"},
	{"name": "hide them", "when": {"method": "tools/list", "dir": "to-client"}, "remove": "/result/tools[name=delete_*]"},
	{"name": "sandbox", "when": {"tool": "read"}, "require": {"/params/arguments/path": "^/srv/"}},
	{"name": "mask", "when": {"dir": "to-client"}, "replace": {"regex": "[a-z]+@[a-z.]+", "with": "<mail>"}},
	{"name": "canned", "when": {"tool": "weather"}, "answer": {"content": [{"type": "text", "text": "ask me@x.org"}]}},
	{"name": "slow", "when": {"tool": "search", "every": 2}, "delay": "2s"},
	{"name": "deep", "when": {"where": {"/params/arguments/n/x": 5}}, "tag": "deep"},
	{"name": "lost", "when": {"method": "notifications/gone"}, "fault": "drop"}
]}`

// explainText returns what is printed for in, and how that ends.
func explainText(t *testing.T, c *Config, rules, in string) (string, error) {
	t.Helper()
	set, err := parseRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	err = newExplainer(c, set).messages(in, w)
	w.Flush()
	return out.String(), err
}

// TestExplainArrayFirst wants an empty line between messages, and none before them, also when they begin with an array.
func TestExplainArrayFirst(t *testing.T) {
	note := `{"jsonrpc":"2.0","method":"notifications/x"}`
	got, err := explainText(t, &Config{}, `{"version": 1, "rules": []}`, "["+note+","+note+"]")
	if err != nil || !strings.HasPrefix(got, "message 1.1 ") || !strings.Contains(got, "\n\nmessage 1.2 ") {
		t.Errorf("got %v and\n%s", err, got)
	}
}

// TestExplainWords wants no word that says nothing: not for what is no message, nor behind a log without a text.
func TestExplainWords(t *testing.T) {
	got, _ := explainText(t, &Config{}, `{"version": 1, "rules": [{"log": true}]}`, `3 {"jsonrpc":"2.0","method":"notifications/x"}`)
	for _, want := range []string{"message 1 (line 1): unreadable, to-server\n", "  rule rule 1  log\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %s", got, want)
		}
	}
}

func explainLimits(t *testing.T, list ...string) (limits []Limit) {
	t.Helper()
	for _, s := range list {
		l, err := ParseLimit(s)
		if err != nil {
			t.Fatal(err)
		}
		limits = append(limits, l)
	}
	return limits
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		name string
		c    *Config
		in   string
		err  error
		want string
	}{
		{"denied", &Config{Limits: explainLimits(t, "ip=10/m", "tools/call=100/m:7", "ping=1/s")}, `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"delete_it"}}`, errFound, `
message 1 (line 1): call tools/call delete_it, id 7, to-server
  limit ip=10/m             no: -ip is not given
  limit tools/call=100/m:7  counts it
  limit ping=1/s            no: it is for another method or name
  rule no deletes           deny
  rule hide them            no: not reached
  rule sandbox              no: not reached
  rule mask                 no: not reached
  rule canned               no: not reached
  rule slow                 no: not reached
  rule deep                 no: not reached
  rule lost                 no: not reached
  => refused by rule no deletes
     the client gets:
     {"jsonrpc":"2.0","id":7,"error":{"code":403,"message":"deletes are off","data":{"proxy":"mcpproxy"}}}`},
		{"a list", &Config{}, `{"jsonrpc":"2.0","id":"a","method":"tools/list"}{"jsonrpc":"2.0","id":"\u0061","result":{"tools": [{"name":"delete_it"}, {"name":"b"}]}}`, nil, `
message 1 (line 1): call tools/list, id "a", to-server
  rule no deletes  no: it wants method "tools/call"
  rule hide them   no: it wants dir "to-client"
  rule sandbox     no: it wants tool "read"
  rule mask        no: it wants dir "to-client"
  rule canned      no: it wants tool "weather"
  rule slow        no: it wants tool "search"
  rule deep        no: it wants where {"/params/arguments/n/x": 5}
  rule lost        no: it wants method "notifications/gone"
  => passes
     {"jsonrpc":"2.0","id":"a","method":"tools/list"}

message 2 (line 1): response tools/list, id "\u0061", to-client
  it answers message 1
  rule lost        no: it has no dir, and so is not about responses
  rule deep        no: it wants where {"/params/arguments/n/x": 5}
  rule slow        no: it has no dir, and so is not about responses
  rule canned      no: it has no dir, and so is not about responses
  rule mask        no: nothing to replace
  rule sandbox     no: it has no dir, and so is not about responses
  rule hide them   remove
  rule no deletes  no: it has no dir, and so is not about responses
  => changed by rule hide them
     {"jsonrpc":"2.0","id":"\u0061","result":{"tools": [{"name":"b"}]}}`},
		{"required", &Config{}, "\n\n" + `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{"path":"/etc/x"}}}`, errFound, `
message 1 (line 3): call tools/call read, id 1, to-server
  rule no deletes  no: it wants tool "delete_*"
  rule hide them   no: it wants dir "to-client"
  rule sandbox     require: not so: /params/arguments/path
  rule mask        no: not reached
  rule canned      no: not reached
  rule slow        no: not reached
  rule deep        no: not reached
  rule lost        no: not reached
  => refused by rule sandbox
     the client gets:
     {"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"refused by a rule","data":{"proxy":"mcpproxy"}}}`},
		{"answered, and the answer changed", &Config{}, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"weather"}}`, nil, `
message 1 (line 1): call tools/call weather, id 1, to-server
  rule no deletes  no: it wants tool "delete_*"
  rule hide them   no: it wants dir "to-client"
  rule sandbox     no: it wants tool "read"
  rule mask        no: it wants dir "to-client"
  rule canned      answer
  rule slow        no: not reached
  rule deep        no: not reached
  rule lost        no: not reached
  => answered by rule canned
     the client gets:
     rule mask  replace
     => changed by rule canned, mask
        {"jsonrpc":"2.0","id":1,"result":{"content": [{"type": "text", "text": "ask <mail>"}]}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := explainText(t, test.c, explainRules, test.in)
			wantText(t, got, test.want)
			if err != test.err {
				t.Errorf("got %v, want %v", err, test.err)
			}
		})
	}
}

// Of many rules only those are shown that a message of this kind may meet.
func TestExplainManyRules(t *testing.T) {
	rules := strings.Replace(explainRules, "\n]", strings.Repeat(`,{"when": {"tool": "other"}, "log": "x"}`, 20)+"]", 1)
	c := &Config{IP: netip.MustParseAddr("10.0.0.7"), Limits: explainLimits(t, "ip=1/m", "user=1/m")}
	call := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"n":3}}}`
	note := "[" + `{"jsonrpc":"2.0","method":"notifications/x"}` + "]"
	got, err := explainText(t, c, rules, call+note)
	wantText(t, got, `
message 1 (line 1): call tools/call search, id 1, to-server
  limit ip=1/m    counts it
  limit user=1/m  no: -user is not given
  rule slow       no: it wants every 2
  rule deep       not applied: a path meets what it cannot lead through, or a key that is there twice or in another case
  other rules: 26, not reached or for another dir, method or tool
  => passes
     {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"n":3}}}

message 2.1 (line 1): notification notifications/x, to-server
  it is in an array, which is refused but in 2025-03-26
  limit ip=1/m    is over, for 1m0s
  limit user=1/m  no: -user is not given
  => refused by limit ip=1/m
     the client gets:
     {"jsonrpc":"2.0","error":{"code":429,"message":"rate limit exceeded","data":{"proxy":"mcpproxy","tier":"ip","retryAfterMs":60000}}}`)
	if err != errFound {
		t.Errorf("got %v, want %v", err, errFound)
	}
}

// What becomes of messages, in short.
func TestExplainOutcomes(t *testing.T) {
	const (
		call     = `{"jsonrpc":"2.0","id":1,"method":"x/y","params":{"a":1}}`
		response = `{"jsonrpc":"2.0","id":1,"result":{"a":1}}`
		note     = `{"jsonrpc":"2.0","method":"x/y","params":{"a":1}}`
	)
	for _, test := range []struct {
		name, dir, rule, in, want string
	}{
		{"delay", "", `"delay": "2s"`, call, `passes after 2000 ms: ` + call},
		{"duplicate", "", `"fault": "duplicate"`, call, `goes on twice by rule 1: ` + call},
		{"malformed", "", `"fault": "malformed"`, note, `broken by rule 1: {"jsonrpc":"2.0","method`},
		{"drop", "", `"fault": "drop"`, call, `lost by rule 1 (nobody is told)`},
		{"disconnect", "", `"fault": "disconnect"`, call, `lost by rule 1 (the connection to the client breaks)`},
		{"fault error", "", `"fault": "error:-5"`, call, `refused by rule 1 -> to-client {"jsonrpc":"2.0","id":1,"error":{"code":-5,"message":"injected error","data":{"proxy":"mcpproxy"}}}`},
		{"notification denied", "", `"deny": "no"`, note, `refused by rule 1`},
		{"notification answered", "", `"answer": {}`, note, `lost by rule 1 (nobody is told)`},
		{"response set", "", `"set": {"/result/a": 2}`, call + response, "passes: " + call + "\nchanged by rule 1: " + `{"jsonrpc":"2.0","id":1,"result":{"a":2}}`},
		{"response not on stdin", "", `"when": {"method": "x/y"}, "set": {"/result/a": 2}`, response, "passes: " + response},
		{"response denied", "", `"when": {"dir": "to-client"}, "deny": "no"`, response, `refused by rule 1 -> to-client {"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"no","data":{"proxy":"mcpproxy"}}}`},
		{"the server's call denied", dirToClient, `"when": {"dir": "to-client"}, "deny": "no"`, call + response, `refused by rule 1 -> to-server {"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"no","data":{"proxy":"mcpproxy"}}}` + "\npasses: " + response},
		{"the server's call answered", dirToClient, `"answer": {"b":2}`, call, `answered by rule 1 -> to-server {"jsonrpc":"2.0","id":1,"result":{"b":2}}`},
		{"a response to the server", dirToServer, `"when": {"dir": "to-server"}, "set": {"/result/a": 2}`, response, `changed by rule 1: {"jsonrpc":"2.0","id":1,"result":{"a":2}}`},
		{"revision", "", `"when": {"revision": "2026-07-28"}, "deny": "no"`, `{"jsonrpc":"2.0","method":"x/y","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`, `refused by rule 1`},
		{"revision agreed on", "", `"when": {"revision": "2025-06-18", "method": "x/y"}, "deny": "no"`, `{"jsonrpc":"2.0","id":1,"method":"initialize"} {"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}} ` + note,
			"passes: " + `{"jsonrpc":"2.0","id":1,"method":"initialize"}` + "\npasses: " + `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}` + "\nrefused by rule 1"},
		{"no message", "", `"deny": "no"`, `{"jsonrpc":"2.0","ID":1}`, `refused (message byte 17: key "ID" is a known key in another case) -> to-client {"jsonrpc":"2.0","error":{"code":-32600,"message":"message byte 17: key \"ID\" is a known key in another case","data":{"proxy":"mcpproxy"}}}`},
		{"list without what is denied", "", `"when": {"tool": "a"}, "deny": "no"`, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}]}}`,
			"passes: " + `{"jsonrpc":"2.0","id":1,"method":"tools/list"}` + "\nchanged by rule 1: " + `{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, _ := explainText(t, &Config{Dir: test.dir, JSON: true}, `{"version": 1, "rules": [{`+test.rule+`}]}`, test.in)
			var lines []string
			for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
				var x Explanation
				if err := d.Decode(&x); err != nil {
					t.Fatal(err)
				}
				lines = append(lines, shortExplanation(&x))
			}
			if got := strings.Join(lines, "\n"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func shortExplanation(x *Explanation) string {
	text := x.Outcome
	if x.By != "" {
		text += " by " + strings.TrimPrefix(x.By, "rule ")
	}
	if x.Why != "" {
		text += " (" + x.Why + ")"
	}
	if x.DelayMS > 0 {
		text += " after 2000 ms"
	}
	if x.Leaves != "" {
		text += ": " + x.Leaves
	}
	if x.Answer != nil {
		text += " -> " + x.Answer.Dir + " " + x.Answer.Leaves
	}
	return text
}

// How the program ends, and what it says then.
func TestExplainRuns(t *testing.T) {
	dir := configFiles(t, map[string]string{"rules.json": explainRules, "tape": testTape(goodTape()...), "torn": "{}\n"})
	for _, test := range []struct {
		args, in string
		code     int
		stderr   string
	}{
		{"-rules=DIR/rules.json", `{"jsonrpc":"2.0","method":"x"}`, 0, ""},
		{"-rules=DIR/rules.json", `{"jsonrpc":"2.0","method":"notifications/gone"}`, 1, ""},
		{"-rules=DIR/rules.json", " \n", 2, "mcpproxy: stdin is empty: want JSON-RPC messages, one after the other\nsee: mcpproxy help explain\n"},
		{"-rules=DIR/rules.json", "{}\n{\"é\":x}", 2, "mcpproxy: stdin:2:6: not JSON: unexpected character\nsee: mcpproxy help explain\n"},
		{"-rules=DIR/rules.json", `{"jsonrpc":`, 2, "mcpproxy: stdin:1:12: not JSON: the text ends too early\nsee: mcpproxy help explain\n"},
		{"-rules=DIR/rules.json|-max-message=10", `{"jsonrpc":`, 2, "mcpproxy: stdin: more than 10 bytes: see -max-message\nsee: mcpproxy help explain\n"},
		{"-ip=10.0.0.7|-tape=x|-dir=to-client", "", 2, "mcpproxy: -mode=explain: want -rules FILE, -limit TIER=RATE, or both\nmcpproxy: -dir: means nothing with -tape, which has it\nsee: mcpproxy help explain\n"},
		{"-limit=user=1/m|-tape=DIR/none", "", 4, "mcpproxy: tape cannot be read: open DIR/none: no such file or directory\n"},
		{"-limit=user=1/m|-tape=DIR/torn", "", 4, "mcpproxy: DIR/torn:1: this is no tape: want a header that begins with {\"tape\":\"mcpproxy\"\n"},
		{"-limit=ping=1/m|-tape=DIR/tape", "", 0, ""},
		{"-limit=ip=1/m|-tape=DIR/tape", "", 1, ""},
	} {
		var stderr bytes.Buffer
		args := strings.Split("explain|"+strings.ReplaceAll(test.args, "DIR", dir), "|")
		none := func(string) (string, bool) { return "", false }
		code := run(context.Background(), args, none, stdio{strings.NewReader(test.in), discard{}, &stderr})
		if got := strings.ReplaceAll(stderr.String(), dir, "DIR"); code != test.code || got != test.stderr {
			t.Errorf("%s: got %d, %q, want %d, %q", test.args, code, got, test.code, test.stderr)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	in, out := io.Pipe()
	defer out.Close()
	if _, err := readAll(ctx, in, 1); err != errInterrupted {
		t.Errorf("got %v, want %v", err, errInterrupted)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Close() error                { return nil }

func TestLimitString(t *testing.T) {
	for _, s := range []string{"ip=10/m", "ip=100/m:20", "user=60/m", "global=1/s", "tools/call:a=b=7/d:1", "global=24/d", "ping=1000000000/s"} {
		limit := explainLimits(t, s)[0]
		if got := limit.String(); got != s || explainLimits(t, got)[0] != limit {
			t.Errorf("got %s, want %s", got, s)
		}
	}
	if got := explainLimits(t, "ip=120/m:5")[0].String(); got != "ip=2/s:5" {
		t.Errorf("got %s, want ip=2/s:5", got)
	}
}

// TestExplainAgrees has each two rules explained, and wants them to do the same with the messages.
func TestExplainAgrees(t *testing.T) {
	actions := []string{`"allow": true`, `"deny": "x"`, `"require": {"/params/arguments/a": 1}`, `"set": {"/params/arguments/a": 1, "/result/a": 1}`,
		`"remove": "/result/tools/0"`, `"replace": {"regex": "a", "with": "b"}`, `"answer": {"tools": [{"name":"c"}]}`, `"delay": "1s"`, `"tag": "x"`,
		`"fault": "drop"`, `"fault": "disconnect"`, `"fault": "timeout"`, `"fault": "malformed"`, `"fault": "duplicate"`, `"fault": "error:5"`}
	call := `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"arguments":{"a":1}}}`
	for _, first := range actions {
		for _, second := range actions {
			for _, answer := range []string{``, talkResult("1", `{"tools":[{"name":"a"},{"name":"b"}]}`), talkResult("1", `[]`), `{"jsonrpc":"2.0","method":"a"}`} {
				set := ruleSet(t, `{"when": {"tool": "b"}, "deny": "x"}, {`+first+`}, {"when": {"dir": "to-client"}, `+second+`}`)
				m := sessParse(t, call)
				e := newExplainer(&Config{}, set)
				x := e.message(call, "1")
				if answer != "" {
					m = sessParse(t, answer)
					if x = e.message(answer, "2"); m.Kind == Response {
						m.Dir, m.Answers = ToClient, &PendingCall{Message: sessParse(t, call)}
					}
				}
				out, err := NewRules(set, slog.New(slog.DiscardHandler)).Intercept(t.Context(), &Session{revision: newestSession}, m)
				v := ruling{m: out, err: err}
				if hold, is := err.(*Hold); is {
					v = ruling{m: hold.Message, err: hold.Err, delay: hold.For}
				}
				fate, leaves := v.fate(m), ""
				if v.err == nil && fate != fateAnswered {
					leaves = v.m.Raw
				}
				if x.Outcome != fate || x.Leaves != leaves || x.DelayMS != float64(v.delay)/1e6 {
					t.Errorf("%s and %s: %s: explained %+v, did %s, %v, %s", first, second, m.Raw, x, fate, v.err, leaves)
				}
			}
		}
	}
}

// Whatever is on stdin, what is explained is what a proxy would take for messages, and nothing is printed that a terminal
// would act on.
func FuzzExplain(f *testing.F) {
	f.Add(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"weather"}} {"jsonrpc":"2.0","id":1,"result":{}}`, true)
	f.Add(`[{"jsonrpc":"2.0","method":"notifications/gone"},5,[]] [] "x"`, false)
	f.Add("{\"jsonrpc\":\"2.0\",\n\"method\":\"\u009b\"}", false)
	set, err := parseRules(explainRules)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in string, asJSON bool) {
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		err := newExplainer(&Config{JSON: asJSON}, set).messages(in, w)
		w.Flush()
		var misuse *UsageError
		if err != nil && err != errFound && !errors.As(err, &misuse) {
			t.Errorf("got %v, want another error", err)
		}
		if _, bad := Parse(in); bad == nil && misuse != nil {
			t.Errorf("got %v for a message", err)
		}
		if asJSON {
			for d := json.NewDecoder(&out); d.More(); {
				var x Explanation
				if err := d.Decode(&x); err != nil || x.Outcome == "" {
					t.Fatalf("got %v, %+v", err, x)
				}
			}
		} else if i := strings.IndexFunc(out.String(), func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e }); i >= 0 {
			t.Errorf("got %q, want what can be printed", out.String()[i:])
		}
	})
}
