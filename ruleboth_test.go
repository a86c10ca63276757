// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ruleTalks holds f under rules on each way between clients and servers for which when reports true.
func ruleTalks(t *testing.T, rules string, when func(*talk) bool, f func(*talk)) {
	t.Helper()
	for _, w := range ruleWays() {
		if w.server == "tape" || w.accept != "" || !when(w) {
			continue
		}
		w.rules, w.bounds.CallTimeout = rules, 10*time.Second
		t.Run(fmt.Sprintf("%s-%s,modern=%t", w.client, w.server, w.modern), func(t *testing.T) { talkTest(t, w, f) })
	}
}

func ruleEverywhere(*talk) bool { return true }

// What becomes of half a call is up to the server.
func TestRuleMalformedCall(t *testing.T) {
	ruleTalks(t, `{"when": {"tool": "t"}, "fault": "malformed"}`, ruleEverywhere, func(w *talk) {
		c, call := w.dial(), w.call("1", ruleArgs, "")
		post := c.say(call)
		w.gets(call[:len(call)/2])
		switch {
		case !w.overHTTP(): // no server knows of which call that is half
			c.hears(leaveRefuses(504, "call took too long")(w, "")[0])
			for _, text := range leaveCancelled(w, "") {
				w.gets(text)
			}
		case post == nil:
			c.hears(`{"jsonrpc":"2.0","id":1,"error":{"code":-32700,"message":"half"}}`)
		default:
			c.hears(talkHalf)
			if post.wait(c); post.status != 400 {
				t.Errorf("got status %d, want the server's", post.status)
			}
		}
	})
}

// TestRuleServerAsks has rules meet what a server asks, and what the client answers.
func TestRuleServerAsks(t *testing.T) {
	sampling := `"when": {"method": "sampling/createMessage"`
	answer := talkResult("1", `{"role":"assistant","n":1.0}`)
	refused := func(code int, text string) string { return leaveRefuses(code, text)(nil, "")[0] }
	for _, c := range []struct {
		name, rules    string
		client, server string // what the client hears, "" for nothing, and what the server gets in the end
		takes          time.Duration
	}{
		{name: "none", rules: `{"when": {"tool": "x"}, "deny": "x"}`, client: talkQuestion, server: answer},
		{name: "denied", rules: `{` + sampling + `}, "deny": "off"}`, server: refused(403, "off")},
		{name: "required", rules: `{` + sampling + `}, "require": {"/params/z": 2}}`, server: refused(403, "refused by a rule")},
		{name: "answered", rules: `{` + sampling + `}, "answer": {"role":"x"}}`, server: talkResult("1", `{"role":"x"}`)},
		{name: "answered with an error", rules: `{` + sampling + `}, "answer": {"error":{"code":-1,"message":"no"}}}`,
			server: `{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}`},
		{name: "dropped", rules: `{` + sampling + `}, "fault": "drop"}`, server: refused(504, "call took too long"), takes: 10 * time.Second},
		{name: "timeout", rules: `{` + sampling + `}, "fault": "timeout"}`, server: refused(504, "call took too long")},
		{name: "error", rules: `{` + sampling + `}, "fault": "error:-5"}`, server: refused(-5, "injected error")},
		{name: "late", rules: `{` + sampling + `}, "delay": "2s"}`, client: talkQuestion, server: answer, takes: 2 * time.Second},
		{name: "changed", rules: `{` + sampling + `, "dir": "to-client"}, "set": {"/params/a": "b"}}`,
			client: strings.Replace(talkQuestion, `"é"`, `"b"`, 1), server: answer},
		{name: "answer changed", rules: `{` + sampling + `, "dir": "to-server"}, "remove": "/result/n"}`, client: talkQuestion, server: talkResult("1", `{"role":"assistant"}`)},
		{name: "answer replaced", rules: `{` + sampling + `, "dir": "to-server"}, "answer": {"role":"x"}}`, client: talkQuestion, server: talkResult("1", `{"role":"x"}`)},
		{name: "answer denied", rules: `{` + sampling + `, "dir": "to-server"}, "deny": "off"}`, client: talkQuestion, server: refused(403, "off")},
		{name: "answer dropped", rules: `{` + sampling + `, "dir": "to-server"}, "fault": "drop"}`, client: talkQuestion, server: refused(504, "call took too long"), takes: 10 * time.Second},
		{name: "answer late", rules: `{` + sampling + `, "dir": "to-server"}, "delay": "1s"}`, client: talkQuestion, server: answer, takes: time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			ruleTalks(t, c.rules, talkLegacy, func(w *talk) {
				for _, within := range []bool{true, false} {
					if within && c.takes == 10*time.Second { // the call around it would not take longer
						continue
					}
					x := w.dial()
					var h *talkHeard
					if call := w.call(`1`, `{}`, ""); within {
						x.say(call)
						h = w.gets(call)
					}
					began := time.Now()
					if within {
						h.say(talkQuestion)
					} else {
						w.push(talkQuestion)
					}
					if c.client != "" {
						x.hears(c.client)
						x.say(answer)
					}
					w.gets(c.server)
					if d := time.Since(began).Truncate(100 * time.Millisecond); d != c.takes {
						t.Errorf("within %t: got it after %s, want %s", within, d, c.takes)
					}
					if within {
						h.result(`{}`)
						x.hears(talkResult(`1`, `{}`))
					}
					x.silent()
				}
			})
		})
	}
}

// TestRuleNotifications has rules meet what nobody answers, in both directions.
func TestRuleNotifications(t *testing.T) {
	note := `{"jsonrpc":"2.0","method":"notifications/x","params":{"b":1.0}}`
	for _, c := range []struct {
		action string
		leaves ruleLeaving
		takes  time.Duration
		answer string // to a client on HTTP, with status 403
	}{
		{`"allow": true`, leaveSame, 0, ""},
		{`"deny": "x"`, leaveNone, 0, `{"jsonrpc":"2.0","error":{"code":403,"message":"x","data":{"proxy":"mcpproxy"}}}`},
		{`"require": {"/params/b": 2}`, leaveNone, 0, `{"jsonrpc":"2.0","error":{"code":403,"message":"refused by a rule","data":{"proxy":"mcpproxy"}}}`},
		{`"answer": {}`, leaveNone, 0, ``},
		{`"set": {"/params/b": 2}`, leaveBecomes(`1.0`, `2`), 0, ``},
		{`"delay": "1s"`, leaveSame, time.Second, ``},
		{`"fault": "drop"`, leaveNone, 0, ``},
		{`"fault": "timeout"`, leaveNone, 0, ``},
		{`"fault": "error:1"`, leaveNone, 0, ``},
		{`"fault": "duplicate"`, leaveTwice, 0, ``},
		{`"fault": "malformed"`, leaveHalf, 0, ``},
		{`"tag": "x"`, leaveSame, 0, ``},
	} {
		t.Run(c.action, func(t *testing.T) {
			ruleTalks(t, `{"when": {"method": "notifications/x"}, `+c.action+`}`, talkLegacy, func(w *talk) {
				x, began := w.dial(), time.Now()
				post := x.say(note)
				status := 202
				if c.answer != "" && post != nil {
					status = 403
					x.hears(c.answer)
				}
				if strings.Contains(c.action, faultMalformed) && post != nil && w.overHTTP() {
					status = 400
					x.hears(talkHalf)
				}
				if post != nil && post.status != status {
					t.Errorf("got status %d, want %d", post.status, status)
				}
				for _, text := range c.leaves(w, note) {
					w.gets(text)
				}
				w.push(note)
				for _, text := range c.leaves(w, note) {
					x.hears(text)
				}
				if d := time.Since(began).Truncate(100 * time.Millisecond); d != 2*c.takes {
					t.Errorf("got them after %s, want %s", d, 2*c.takes)
				}
				w.silent()
				x.silent()
				x.works()
			})
		})
	}
}

// What is around a message in a relayed stream stays as it came, and so do messages that no rule changes.
func TestRuleRelayedEvents(t *testing.T) {
	progress, result := talkProgress(`1`, `0.5`), frontResult("1", `{"s":"a@b","n":1.0}`)
	around := func(result string) string {
		return ": hi\n\nid: a\r\nevent: message\r\ndata: " + progress + "\r\n\r\n" + result + ": bye\n\n"
	}
	came := "retry: 5\nid:b\ndata:" + result + "\n\n"
	changed := func(result string) string { return "id: b\nretry: 5\ndata: " + result + "\n\n" }
	serve := relayed(nil, func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "text/event-stream")
		relayFlush(w, around(came))
	})
	for _, c := range []struct{ action, want string }{
		{`"replace": {"regex": "x@", "with": ""}`, came},
		{`"replace": {"regex": "a@", "with": "€"}`, changed(strings.Replace(result, "a@", "€", 1))},
		{`"set": {"/result/n": 2}`, changed(strings.Replace(result, "1.0", "2", 1))},
		{`"fault": "malformed"`, changed(result[:len(result)/2])},
		{`"fault": "duplicate"`, came + came},
		{`"answer": {"x": 1}`, changed(frontResult("1", `{"x": 1}`))},
		{`"tag": "x"`, came},
	} {
		inFrontOf(t, serve, nil, func(g *frontRig) {
			rules := NewRules(ruleSet(t, `{"when": {"method": "tools/call", "dir": "to-client"}, `+c.action+`}`), g.front.Log)
			g.front.Proxy.chain = []Interceptor{rules.Intercept}
			got := frontBody(t, g.do("POST", strings.Replace(replayCall("1", "t", `{}`), `{"name"`, `{"_meta":{"progressToken":1},"name"`, 1)))
			if want := around(c.want); got != want {
				t.Errorf("%s: got  %q\nwant %q", c.action, got, want)
			}
		})
	}
}
