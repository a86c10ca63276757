// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// ruleDo are rules that do with a call what its argument do says.
const ruleDo = `
	{"name": "no", "when": {"where": {"/params/arguments/do": "^deny$"}}, "deny": "off"},
	{"name": "mock", "when": {"where": {"/params/arguments/do": "^answer$"}}, "answer": {"error": {"code": -1, "message": "m"}}},
	{"name": "broken", "when": {"where": {"/params/arguments/do": "^fault$"}}, "fault": "error:-5"},
	{"name": "word", "when": {"where": {"/params/arguments/do": "^tag$"}}, "tag": "w"},
	{"name": "in", "when": {"where": {"/params/arguments/do": "^change$"}}, "set": {"/params/arguments/n": 2}},
	{"name": "out", "when": {"dir": "to-client", "where": {"/result/do": "^change$"}}, "set": {"/result/n": 2}},
	{"name": "late", "when": {"dir": "to-client", "where": {"/result/do": "^(change|timeout)$"}}, "tag": "back"},
	{"name": "never", "when": {"dir": "to-client", "where": {"/result/do": "^timeout$"}}, "fault": "timeout"}`

// ruleDone makes a call for each of those, and returns what the client hears.
func ruleDone(w *talk) (heard []string) {
	c := w.dial()
	for i, do := range []string{"deny", "answer", "fault", "tag", "change", "nothing", "timeout"} {
		call := w.call(fmt.Sprint(i), `{"do":"`+do+`","n":1.0}`, "")
		c.say(call)
		if i > 2 && w.server != "tape" {
			if do == "change" {
				call = strings.Replace(call, "1.0", "2", 1)
			}
			w.gets(call).result(`{` + strings.Repeat(ruleInfo, btoi(w.modern)) + `"do":"` + do + `","n":1.0}`)
		}
		heard = append(heard, c.next())
	}
	return heard
}

// What rules did is on the tape: both forms of what they changed, and what they stopped. Played under the same rules it
// says the same to the client, byte for byte.
func TestRulesOnTape(t *testing.T) {
	for _, w := range ruleWays() {
		if w.server == "tape" || w.accept != "" {
			continue
		}
		t.Run(fmt.Sprintf("%s-%s,modern=%t", w.client, w.server, w.modern), func(t *testing.T) {
			var heard []string
			w.rules = ruleDo
			talkTest(t, w, func(w *talk) { heard = ruleDone(w) })
			if out, v := useCheck(t, w.tape, TapeToolOptions{}); v.Errors+v.Warnings != 0 {
				t.Errorf("%s", out)
			}
			if w.client == "stdio" && w.server == "stdio" && !w.modern {
				ruleTapeLines(t, w.tape)
			}
			again := &talk{client: w.client, server: "tape", modern: w.modern, rules: ruleDo, tape: w.tape}
			talkTest(t, again, func(w *talk) {
				if got := ruleDone(w); !slices.Equal(got, heard) {
					t.Errorf("got  %q\nwant %q", got, heard)
				}
			})
		})
	}
}

func ruleTapeLines(t *testing.T, tape string) {
	t.Helper()
	var got []string
	number := map[int64]string{} // what lines refer to
	for _, e := range recordCheck(t, tape) {
		if e.Kind != lineMsg && e.Kind != lineRule {
			continue
		}
		m, _ := Parse(cmp.Or(e.Msg, talkResult("0", "0")))
		if e.Kind == lineMsg && (m.ID == `"init"` || m.Method == methodInitialized) {
			continue
		}
		line := map[string]string{dirToServer: "> ", dirToClient: "< "}[e.Dir]
		if e.Kind == lineRule {
			line += "rule " + number[e.Re] + ": " + e.Rule + ": " + e.Text
		} else {
			number[e.Seq] = m.ID + map[Kind]string{Call: " call", Response: " response"}[m.Kind]
			line += number[e.Seq] + strings.Repeat(" local", btoi(e.Local))
			if e.Was != 0 {
				line += ", was " + number[e.Was]
				number[e.Seq] += " changed"
			}
			if e.Re != 0 {
				line += " to " + number[e.Re]
			}
			if e.Rule != "" {
				line += ", by " + e.Rule
			}
			line += " " + member(member(e.Msg, "params"), "arguments") + member(e.Msg, "result") + member(member(e.Msg, "error"), "code")
		}
		got = append(got, line)
	}
	want := []string{
		`> 0 call local {"do":"deny","n":1.0}`,
		`> rule 0 call: no: deny`,
		`< 0 response local to 0 call, by no 403`,
		`> 1 call local {"do":"answer","n":1.0}`,
		`> rule 1 call: mock: answer`,
		`< 1 response local to 1 call, by mock -1`,
		`> 2 call local {"do":"fault","n":1.0}`,
		`> rule 2 call: broken: fault error:-5`,
		`< 2 response local to 2 call, by broken -5`,
		`> 3 call {"do":"tag","n":1.0}`,
		`> rule 3 call: word: tag w`,
		`< 3 response to 3 call {"do":"tag","n":1.0}`,
		`> 4 call {"do":"change","n":1.0}`,
		`> 4 call, was 4 call, by in {"do":"change","n":2}`,
		`< 4 response to 4 call changed {"do":"change","n":1.0}`,
		`< rule 4 response: late: tag back`,
		`< 4 response, was 4 response to 4 call changed, by out {"do":"change","n":2}`,
		`> 5 call {"do":"nothing","n":1.0}`,
		`< 5 response to 5 call {"do":"nothing","n":1.0}`,
		`> 6 call {"do":"timeout","n":1.0}`,
		`< 6 response to 6 call {"do":"timeout","n":1.0}`,
		`< rule 6 response: never: fault timeout`,
		`< 6 response local, was 6 response to 6 call, by never 504`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What a rule answers and another changes is on the tape as the client gets it.
func TestRuleAnswerChangedOnTape(t *testing.T) {
	rules := `{"name": "mask", "when": {"tool": "t", "dir": "to-client"}, "set": {"/result/a": 2}},
		{"name": "mock", "when": {"tool": "t", "dir": "to-server"}, "answer": {"a": 1}}`
	for _, w := range ruleWays() {
		if w.server != "stdio" || w.modern {
			continue
		}
		var heard string
		w.rules = rules
		talkTest(t, w, func(w *talk) {
			c := w.dial()
			c.say(w.call("1", `{}`, ""))
			heard = c.next()
		})
		on := ""
		for _, e := range recordCheck(t, w.tape) {
			if e.Msg == heard {
				on = e.Rule
			}
		}
		if on != "mock, mask" || heard != talkResult("1", `{"a": 2}`) {
			t.Errorf("got %s at the client, on the tape by %q", heard, on)
		}
	}
}
