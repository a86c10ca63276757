// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

const exampleRules = `{"version": 1, "default": "allow", "rules": [
  {"name": "no deletes",  "when": {"method": "tools/call", "tool": "delete_*"}, "deny": "deletes are off on this host"},
  {"name": "hide them",   "when": {"method": "tools/list", "dir": "to-client"}, "remove": "/result/tools[name=delete_*]"},
  {"name": "sandbox",     "when": {"tool": "read_file"}, "require": {"/params/arguments/path": "^/srv/data/[^.]*$"}},
  {"name": "mask mails",  "when": {"dir": "to-client"}, "replace": {"regex": "[\\w.]+@[\\w.]+", "with": "<mail>"}},
  {"name": "canned",      "when": {"tool": "weather"}, "answer": {"content": [{"type": "text", "text": "sunny"}]}},
  {"name": "slow search", "when": {"tool": "search", "every": 3}, "delay": "2s"},
  {"name": "flaky",       "when": {"tool": "fetch", "chance": 0.1, "seed": 7}, "fault": "disconnect"}
]}
`

func rulePathOf(t *testing.T, s string) rulePath {
	t.Helper()
	p, err := parseRulePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseRulesExample(t *testing.T) {
	toClient, chance, seed := []Direction{ToClient}, 0.1, uint64(7)
	mails, err := newTextReplacer(`[\w.]+@[\w.]+`, "<mail>")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRules(exampleRules)
	if err != nil {
		t.Fatal(err)
	}
	want := &RuleSet{Rules: []*Rule{
		{"no deletes", 2, Condition{Methods: []string{"tools/call"}, Tools: []string{"delete_*"}},
			Action{Kind: actDeny, Text: "deletes are off on this host"}},
		{"hide them", 3, Condition{Methods: []string{"tools/list"}, Dirs: toClient},
			Action{Kind: actRemove, Remove: []rulePath{rulePathOf(t, "/result/tools[name=delete_*]")}}},
		{"sandbox", 4, Condition{Tools: []string{"read_file"}}, Action{Kind: actRequire, Demands: []Demand{
			{At: rulePathOf(t, "/params/arguments/path"), Match: regexp.MustCompile(`^/srv/data/[^.]*$`)}}}},
		{"mask mails", 5, Condition{Dirs: toClient}, Action{Kind: actReplace, Replace: mails}},
		{"canned", 6, Condition{Tools: []string{"weather"}},
			Action{Kind: actAnswer, Result: `{"content": [{"type": "text", "text": "sunny"}]}`}},
		{"slow search", 7, Condition{Tools: []string{"search"}, Every: 3}, Action{Kind: actDelay, Delay: 2 * time.Second}},
		{"flaky", 8, Condition{Tools: []string{"fetch"}, Chance: &chance, Seed: &seed},
			Action{Kind: actFault, Fault: faultDisconnect}},
	}}
	compareRules(t, got, want)
}

func compareRules(t *testing.T, got, want *RuleSet) {
	t.Helper()
	for _, rule := range got.Rules {
		rule.When.texts = nil
	}
	if got.Deny != want.Deny || len(got.Rules) != len(want.Rules) {
		t.Fatalf("got deny %v and %d rules, want %v and %d", got.Deny, len(got.Rules), want.Deny, len(want.Rules))
	}
	for i, rule := range want.Rules {
		if !reflect.DeepEqual(got.Rules[i], rule) {
			t.Errorf("got rule  %+v,\nwant rule %+v", *got.Rules[i], *rule)
		}
	}
}

// TestRulesInDocs reads the rule files in docs/rules.md: each action has an example there.
func TestRulesInDocs(t *testing.T) {
	doc, err := os.ReadFile("docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[actionKind]bool{}
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		set, err := parseRules(block[1])
		if err != nil {
			t.Errorf("%v in\n%s", err, block[1])
			continue
		}
		for _, r := range set.Rules {
			seen[r.Kind] = true
		}
	}
	for k := actAllow; k <= actTag; k++ {
		if !seen[k] {
			t.Errorf("got no example of %s", k)
		}
	}
}

// TestParseRules reads files of one rule, which is given without its name.
func TestParseRules(t *testing.T) {
	zero := 0.0
	log := Action{Kind: actLog}
	when := func(c Condition) Rule { return Rule{When: c, Action: log} }
	act := func(a Action) Rule { return Rule{Action: a} }
	replaces, _ := newTextReplacer("a", "")
	path := func(s string) rulePath { return rulePathOf(t, s) }
	for _, c := range []struct {
		rule string
		want Rule
	}{
		{`"log": true`, act(log)},
		{`"log": "seen"`, act(Action{Kind: actLog, Text: "seen"})},
		{`"when": {}, "log": true`, act(log)},
		{`"when": {"method": ["tools/*", "ping"], "user": "ann", "session": "-", "revision": ["2025-*"]}, "log": true`,
			when(Condition{Methods: []string{"tools/*", "ping"}, Users: []string{"ann"}, Sessions: []string{"-"}, Revisions: []string{"2025-*"}})},
		{`"when": {"prompt": "p\u002a", "uri": "file:///*", "transport": ["stdio", "http"]}, "log": true`,
			when(Condition{Prompts: []string{"p*"}, URIs: []string{"file:///*"}, Transports: []string{"stdio", "http"}})},
		{`"when": {"ip": ["10.1.2.3/8", "::1"]}, "log": true`,
			when(Condition{IPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}})},
		{`"when": {"dir": ["to-server"]}, "log": true`, when(Condition{Dirs: []Direction{ToServer}})},
		{`"when": {"dir": ["to-client", "to-server"]}, "log": true`, when(Condition{Dirs: []Direction{ToClient, ToServer}})},
		{`"when": {"where": {"/method": "^x", "/params/a~1b/*": {"b": 1.0, "a": [true]}, "/id": null}}, "log": true`,
			when(Condition{Where: []Demand{{At: path("/method"), Match: regexp.MustCompile("^x")},
				{At: path("/params/a~1b/*"), Value: `{"a":[true],"b":1}`}, {At: path("/id"), Value: "null"}}})},
		{`"when": {"chance": 0, "first": 9223372036854775807}, "log": true`, when(Condition{Chance: &zero, First: 1<<63 - 1})},
		{`"when": {"tool": "x", "method": "*/call"}, "log": true`, when(Condition{Tools: []string{"x"}, Methods: []string{"*/call"}})},
		{`"when": {"prompt": "x", "method": ["ping", "prompts/list"]}, "log": true`,
			when(Condition{Prompts: []string{"x"}, Methods: []string{"ping", "prompts/list"}})},
		{`"allow": true`, act(Action{Kind: actAllow})},
		{`"require": {"/error/code": -1e0, "/result": "a"}`, act(Action{Kind: actRequire, Demands: []Demand{
			{At: path("/error/code"), Value: "-1"}, {At: path("/result"), Match: regexp.MustCompile("a")}}})},
		{`"set": {"/params": [], "/result/a": {"b" : "\u00e9",` + "\r\n" + ` "n": 1.0e5 } }`, act(Action{Kind: actSet, Set: []Assignment{
			{path("/params"), "[]"}, {path("/result/a"), `{"b" : "\u00e9",   "n": 1.0e5 }`}}})},
		{`"remove": ["/params", "/result/a"]`, act(Action{Kind: actRemove, Remove: []rulePath{path("/params"), path("/result/a")}})},
		{`"replace": {"with": "", "in": "/result", "regex": "a"}`, act(Action{Kind: actReplace, Replace: replaces, In: path("/result")})},
		{`"answer": {"error": {"code": -1, "message": ""}}`, act(Action{Kind: actAnswer, Failure: `{"code": -1, "message": ""}`})},
		{`"answer": {"result": 7}`, act(Action{Kind: actAnswer, Result: "7"})},
		{`"answer": {"result": 7, "error": 8}`, act(Action{Kind: actAnswer, Result: `{"result": 7, "error": 8}`})},
		{`"answer": {}`, act(Action{Kind: actAnswer, Result: "{}"})},
		{`"delay": "1h"`, act(Action{Kind: actDelay, Delay: time.Hour})},
		{`"fault": "error:-32603"`, act(Action{Kind: actFault, Fault: faultError, Code: -32603})},
		{`"fault": "drop"`, act(Action{Kind: actFault, Fault: faultDrop})},
		{`"tag": "A-b_c.9"`, act(Action{Kind: actTag, Text: "A-b_c.9"})},
	} {
		c.want.Name, c.want.Line = "rule 1", 1
		got, err := parseRules(`{"version": 1, "default": "deny", "rules": [{` + c.rule + `}]}`)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		compareRules(t, got, &RuleSet{Deny: true, Rules: []*Rule{&c.want}})
	}
}

func TestParseRulesComments(t *testing.T) {
	got, err := parseRules("\ufeff// Größe // {\n \t// \"\r\n{\"version\": 1,\n//\n\"rules\": [\n  // two\n" +
		"{\"log\": \"// no comment\"},\n{\"name\": \"é\", \"allow\": true}\n]}\n// end")
	if err != nil {
		t.Fatal(err)
	}
	compareRules(t, got, &RuleSet{Rules: []*Rule{
		{Name: "rule 1", Line: 7, Action: Action{Kind: actLog, Text: "// no comment"}},
		{Name: "é", Line: 8, Action: Action{Kind: actAllow}},
	}})
}

func TestParseRulesRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, `1:1: not JSON: the text ends too early`},
		{`[]`, `1:1: want an object`},
		{"// ä\n{\"version\": 1,\n  \"rules\": [],\n}", `4:1: not JSON: expected a key in double quotes`},
		{`{"version": 1, "rules": []} x`, `1:29: data after the end of the value`},
		{"{\"version\": 1, \"rules\": [] // here\n}", `1:28: a comment needs a line of its own`},
		{`{"rules": []}`, `1:1: want "version": 1, which is absent`},
		{`{"version": 1}`, `1:1: want "rules": a list, which is absent and may be empty`},
		{`{"version": "1", "rules": []}`, `1:13: version: want 1`},
		{`{"version": 1, "default": "Deny", "rules": []}`, `1:27: default: want "allow" or "deny"`},
		{`{"version": 1, "rules": {}}`, `1:25: rules: want a list of rules`},
		{`{"version": 1, "rule": []}`, `1:16: unknown field "rule": want version, default or rules`},
		{`{"version": 1, "rules": [], "version": 1}`, `1:29: "version" occurs twice`},
		{`{"version": 1, "rules": [[]]}`, `1:26: rule 1: want an object`},
		{"{\"version\": 1, \"rules\": [{\"name\": \"a\", \"log\": true},\n{\"log\": true},\n {\"name\": \"a\", \"log\": true}]}", `3:11: rule "a": the rule on line 1 has the same name`},
		{"{\"version\": 1, \"rules\": [{\"name\": \"rule 2\", \"log\": true},\n{\"log\": true}]}", `2:1: rule 2: the rule on line 1 has the same name`},
		{`{"version": 1, "rules": [` + strings.Repeat(`{"log":true},`, maxRules) + `{"log":true}]}`, `1:130026: rules: more than 10000`},
	} {
		refuses(t, c.text, c.text, c.want)
	}
}

// refuses checks that parseRules says what is wanted of text.
func refuses(t *testing.T, shown, text, want string) {
	t.Helper()
	_, err := parseRules(text)
	var wrong *RuleFileError
	if !errors.As(err, &wrong) || err.Error() != want {
		t.Errorf("%.80s: got %v, want %s", shown, err, want)
	}
}

// TestParseRulesRefusesRule reads files in which a rule, the second, is wrong. It stands on a line of its own.
func TestParseRulesRefusesRule(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{`{}`, `2:1: rule 2: no action: want allow, deny, require, set, remove, replace, answer, delay, fault, log or tag`},
		{`{"name": "é", "deny": "a", "log": true, "tag": "a"}`, `2:1: rule "é": deny and log and tag: want one action`},
		{`{"log": true, "name": "ééé", "Tag": "a"}`, `2:30: rule "ééé": unknown field "Tag": want name, when, allow, deny, require, set, remove, replace, answer, delay, fault, log or tag`},
		{`{"log": true, "name": "", "x": 1}`, `2:27: rule 2: unknown field "x": want name, when, allow, deny, require, set, remove, replace, answer, delay, fault, log or tag`},
		{`{"log": true, "name": "a\n"}`, `2:23: rule 2: name: want a string of 1 to 100 printable characters`},
		{`{"log": true, "name": "` + strings.Repeat("a", 101) + `"}`, `2:23: rule 2: name: want a string of 1 to 100 printable characters`},
		{`{"log": true, "log": true}`, `2:15: rule 2: "log" occurs twice`},
		{`{"log": false}`, `2:9: rule 2: log: want true or a text for the log`},
		{`{"when": [], "log": true}`, `2:10: rule 2: when: want an object`},
		{`{"when": {"tools": "a"}, "log": true}`, `2:11: rule 2: when: unknown field "tools": want method, tool, prompt, uri, dir, user, session, ip, transport, revision, where, every, chance, seed or first`},
		{`{"when": {"tool": "a", "tool": "b"}, "log": true}`, `2:24: rule 2: when: "tool" occurs twice`},
		{`{"when": {"tool": []}, "log": true}`, `2:19: rule 2: tool: want a string or a list of at least one`},
		{`{"when": {"tool": ["a", 1]}, "log": true}`, `2:25: rule 2: tool: want a string or a list of strings`},
		{`{"when": {"user": null}, "log": true}`, `2:19: rule 2: user: want a string or a list of strings`},
		{`{"when": {"dir": "up"}, "log": true}`, `2:18: rule 2: dir: "up": want to-server or to-client`},
		{`{"when": {"ip": ["10.0.0.0/8", "10.0.0.0/99"]}, "log": true}`, `2:32: rule 2: ip: "10.0.0.0/99": want an address or a range of them, such as 10.0.0.0/8`},
		{`{"when": {"transport": "sse"}, "log": true}`, `2:24: rule 2: transport: "sse": want stdio or http`},
		{`{"when": {"where": {"/params/é": "a", "params": 1}}, "log": true}`, `2:39: rule 2: where: "params": want a JSON pointer that begins with /, such as /params/arguments/path or /result/tools[name=delete_*]`},
		{`{"when": {"where": {"/params/a": "a(b"}}, "log": true}`, "2:34: rule 2: /params/a: regular expression \"a(b\": missing closing ): `a(b`"},
		{`{"when": {"where": {"/params/a": [{"b": 1, "b": 2}]}}, "log": true}`, `2:44: rule 2: /params/a: "b" occurs twice`},
		{`{"when": {"every": 0}, "log": true}`, `2:20: rule 2: every: want a whole number from 1 to 9223372036854775807`},
		{`{"when": {"every": 1.5}, "log": true}`, `2:20: rule 2: every: want a whole number from 1 to 9223372036854775807`},
		{`{"when": {"chance": 1.1}, "log": true}`, `2:21: rule 2: chance: want a number from 0 to 1`},
		{`{"when": {"chance": "1"}, "log": true}`, `2:21: rule 2: chance: want a number from 0 to 1`},
		{`{"when": {"chance": 1, "seed": 9223372036854775808}, "log": true}`, `2:32: rule 2: seed: want a whole number from 0 to 9223372036854775807`},
		{`{"when": {"seed": 7}, "log": true}`, `2:11: rule 2: seed: means nothing without chance`},
		{`{"when": {"first": -1}, "log": true}`, `2:20: rule 2: first: want a whole number from 1 to 9223372036854775807`},
		{`{"when": {"tool": "a", "prompt": "b"}, "log": true}`, `2:10: rule 2: tool and prompt: no message is about both`},
		{`{"when": {"tool": "a", "method": ["prompts/*", "ping"]}, "log": true}`, `2:34: rule 2: method: never tools/call, which is what tool is about`},
		{`{"when": {"prompt": "a", "method": "tools/call"}, "log": true}`, `2:36: rule 2: method: never prompts/get or completion/complete, which is what prompt is about`},
		{`{"allow": 1}`, `2:11: rule 2: allow: want true`},
		{`{"deny": ""}`, `2:10: rule 2: deny: want a text for the client`},
		{`{"deny": true}`, `2:10: rule 2: deny: want a text for the client`},
		{`{"require": {}}`, `2:13: rule 2: require: want at least one path`},
		{`{"require": "/params/a"}`, `2:13: rule 2: require: want an object`},
		{`{"require": {"/method": "a"}}`, `2:14: rule 2: require: "/method": want a path that begins with /params, /result or /error`},
		{`{"set": {}}`, `2:9: rule 2: set: want at least one path`},
		{`{"set": {"/params/a[b]": 1}}`, `2:10: rule 2: set: "/params/a[b]": want NAME[KEY=PATTERN] and then / or the end, such as /result/tools[name=delete_*], not "a[b]"`},
		{`{"set": {"/id": 1}}`, `2:10: rule 2: set: "/id": want a path that begins with /params, /result or /error`},
		{`{"set": {"/result": {}}}`, `2:10: rule 2: set: "/result": want a path to something in /result, not to all of it`},
		{`{"set": {"/params": 1}}`, `2:21: rule 2: /params: want an object or an array, as params must be`},
		{`{"set": {"/params/a": {"b": {"c": 1, "\u0063": 2}}}}`, `2:38: rule 2: b: "c" occurs twice`},
		{`{"remove": []}`, `2:12: rule 2: remove: want a string or a list of at least one`},
		{`{"remove": ["/params/a", "/error"]}`, `2:26: rule 2: remove: "/error": want a path to something in /error, not to all of it`},
		{`{"remove": {}}`, `2:12: rule 2: remove: want a string or a list of strings`},
		{`{"replace": {"regex": "a"}}`, `2:13: rule 2: replace: want regex and with`},
		{`{"replace": {"regex": "a", "with": 1}}`, `2:36: rule 2: with: want a string`},
		{`{"replace": {"regex": "*", "with": ""}}`, "2:23: rule 2: regex: regular expression \"*\": missing argument to repetition operator: `*`"},
		{`{"replace": {"regex": "a", "with": "", "in": "/id"}}`, `2:46: rule 2: in: "/id": want a path that begins with /params, /result or /error`},
		{`{"replace": {"regex": "a", "with": "", "on": "/id"}}`, `2:40: rule 2: replace: unknown field "on": want regex, with or in`},
		{`{"answer": []}`, `2:12: rule 2: answer: want an object`},
		{`{"answer": {"a": [{"b": 1, "b": 2}]}}`, `2:28: rule 2: a: "b" occurs twice`},
		{`{"answer": {"error": {"code": 1.5, "message": "a"}}}`, `2:22: rule 2: error: want code, a whole number, and message, a string`},
		{`{"answer": {"error": "a"}}`, `2:22: rule 2: error: want an object`},
		{`{"delay": 2}`, `2:11: rule 2: delay: want a time such as 2s or 250ms, more than 0 and at most 1h`},
		{`{"delay": "0s"}`, `2:11: rule 2: delay: want a time such as 2s or 250ms, more than 0 and at most 1h`},
		{`{"delay": "61m"}`, `2:11: rule 2: delay: want a time such as 2s or 250ms, more than 0 and at most 1h`},
		{`{"fault": "break"}`, `2:11: rule 2: fault: want drop, timeout, disconnect, malformed, duplicate or error:CODE`},
		{`{"fault": "error:x"}`, `2:11: rule 2: fault: want a whole number behind error:, such as error:-32603`},
		{`{"tag": "a b"}`, `2:9: rule 2: tag: want a word of 1 to 32 letters, digits, hyphens, underscores and dots`},
		{`{"tag": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`, `2:9: rule 2: tag: want a word of 1 to 32 letters, digits, hyphens, underscores and dots`},
	} {
		refuses(t, c.rule, "{\"version\": 1, \"rules\": [{\"name\": \"first\", \"log\": true},\n"+c.rule+"\n]}", c.want)
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add(exampleRules)
	f.Add("\ufeff// a\n{\"version\":1,\"default\":\"deny\",\"rules\":[{\"name\":\"rule 2\",\"log\":true}, {\"tag\":\"a\"}]}")
	for _, action := range []string{`"allow":true`, `"set":{"/params":{}}`, `"answer":{"error":{"code":1,"message":"a"}}`, `"fault":"error:-1"`} {
		f.Add(`{"version":1,"rules":[{"when":{"dir":["to-client"],"ip":"::1","where":{"/a[b=c]/*":1}},` + action + `}]}`)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, err := parseRules(text)
		if err != nil {
			var wrong *RuleFileError
			if !errors.As(err, &wrong) || wrong.Line < 1 || wrong.Line > 1+strings.Count(text, "\n") ||
				wrong.Column < 1 || wrong.Column > 1+len(text) || wrong.Reason == "" {
				t.Fatalf("got %v", err)
			}
			return
		}
		names := map[string]bool{}
		for i, rule := range set.Rules {
			if names[rule.Name] || !isRuleName(rule.Name) || rule.Line < 1 || i > 0 && rule.Line < set.Rules[i-1].Line {
				t.Fatalf("rule %d is called %q and on line %d", i+1, rule.Name, rule.Line)
			}
			names[rule.Name] = true
			values := []string{rule.Result, rule.Failure}
			for _, s := range rule.Set {
				values = append(values, s.Value)
			}
			for _, v := range values {
				if v != "" && (!json.Valid([]byte(v)) || strings.ContainsAny(v, "\r\n")) {
					t.Fatalf("rule %d has the value %q", i+1, v)
				}
			}
		}
	})
}
