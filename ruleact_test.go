// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// ruleSet reads the rules of a list.
func ruleSet(t testing.TB, list string) *RuleSet {
	t.Helper()
	set, err := parseRules(`{"version": 1, "rules": [` + list + "\n]}")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const (
	ruleArgs   = `{"text":"mail a@b.c", "n":9007199254740993,"x":1.0}`
	ruleResult = `{"content":[{"type":"text","text":"mail \u0061@b.c"}], "n":9007199254740993,"x":1.0}`
	ruleInfo   = `"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"talk","version":"1"}},` // as 2026-07-28 demands
)

// ruleResult is a result of the server with nothing to be added.
func (w *talk) ruleResult() string {
	if w.modern {
		return "{" + ruleInfo + ruleResult[1:]
	}
	return ruleResult
}

// A ruleLeaving says which texts leave the proxy for a message that comes to it.
type ruleLeaving func(w *talk, text string) []string

func leaveSame(_ *talk, text string) []string { return []string{text} }
func leaveNone(*talk, string) []string        { return nil }
func leaveCancelled(w *talk, _ string) []string {
	if w.modern && w.client+w.server != "stdiostdio" { // there it is not told, or each call is one's own
		return nil
	}
	return []string{`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"call took too long"}}`}
}
func leaveThen(a, b ruleLeaving) ruleLeaving {
	return func(w *talk, text string) []string { return append(a(w, text), b(w, text)...) }
}
func leaveTwice(_ *talk, text string) []string { return []string{text, text} }
func leaveHalf(_ *talk, text string) []string  { return []string{text[:len(text)/2]} }

// leaveBecomes has each old text replaced by the new one behind it.
func leaveBecomes(oldnew ...string) ruleLeaving {
	return func(_ *talk, text string) []string { return []string{strings.NewReplacer(oldnew...).Replace(text)} }
}

// leaveRefuses is an error of the proxy in place of a response.
func leaveRefuses(code int, text string) ruleLeaving {
	return func(*talk, string) []string {
		return []string{fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"%s","data":{"proxy":"mcpproxy"}}}`, code, text)}
	}
}

// leaveAnswers is a result with the members given.
func leaveAnswers(members string) ruleLeaving {
	return func(w *talk, _ string) []string {
		members := members
		if w.modern {
			members = `"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"mcpproxy","version":"` + version + `"}},"resultType":"complete",` + members
		}
		return []string{talkResult("1", "{"+members+"}")}
	}
}

// A ruleAction is what becomes of a call of the tool t, or of the response to it.
type ruleAction struct {
	name, rules    string
	server, client ruleLeaving
	status         int // 0 is 200
	takes          time.Duration
	cut            bool // the client's connection breaks
}

func ruleActions() []ruleAction {
	toClient := `"when": {"tool": "t", "dir": "to-client"}, `
	toServer := `"when": {"tool": "t", "dir": "to-server"}, `
	return []ruleAction{
		{name: "allow", rules: `{"when": {"tool": "t"}, "allow": true}, {"when": {"tool": "t"}, "deny": "no"}`, server: leaveSame, client: leaveSame},
		{name: "deny", rules: `{"when": {"tool": "t"}, "deny": "off"}`, server: leaveNone, client: leaveRefuses(403, "off")},
		{name: "require", rules: `{"when": {"tool": "t"}, "require": {"/params/arguments/x": 1.0}}, {"when": {"tool": "t"}, "deny": "no"}`, server: leaveSame, client: leaveSame},
		{name: "require more", rules: `{"when": {"tool": "t"}, "require": {"/params/arguments/text": "^x"}}`, server: leaveNone, client: leaveRefuses(403, "refused by a rule")},
		{name: "set", rules: `{` + toServer + `"set": {"/params/arguments/n": 1e400, "/params/arguments/y": {"é": []}}}`,
			server: leaveBecomes(`9007199254740993`, `1e400`, `"x":1.0}`, `"x":1.0,"y":{"é": []}}`), client: leaveSame},
		{name: "remove", rules: `{` + toServer + `"remove": "/params/arguments/n"}`, server: leaveBecomes(`, "n":9007199254740993`, ``), client: leaveSame},
		{name: "replace", rules: `{` + toServer + `"replace": {"regex": "\\w@[\\w.]+", "with": "<é>"}}`, server: leaveBecomes(`a@b.c`, `<é>`), client: leaveSame},
		{name: "answer", rules: `{"when": {"tool": "t"}, "answer": {"content":[],"n":1.0}}`, server: leaveNone, client: leaveAnswers(`"content":[],"n":1.0`)},
		{name: "answer an error", rules: `{"when": {"tool": "t"}, "answer": {"error": {"code":-5,"message":"é"}}}`, server: leaveNone,
			client: func(*talk, string) []string {
				return []string{`{"jsonrpc":"2.0","id":1,"error":{"code":-5,"message":"é"}}`}
			}},
		{name: "delay", rules: `{"when": {"tool": "t"}, "delay": "2s"}`, server: leaveSame, client: leaveSame, takes: 2 * time.Second},
		{name: "drop", rules: `{"when": {"tool": "t"}, "fault": "drop"}`, server: leaveCancelled, client: leaveRefuses(504, "call took too long"), status: 504, takes: 10 * time.Second},
		{name: "timeout", rules: `{"when": {"tool": "t"}, "fault": "timeout"}`, server: leaveNone, client: leaveRefuses(504, "call took too long"), status: 504},
		{name: "disconnect", rules: `{"when": {"tool": "t"}, "fault": "disconnect"}`, server: leaveNone, client: leaveNone, cut: true},
		{name: "duplicate", rules: `{"when": {"tool": "t"}, "fault": "duplicate"}`, server: leaveTwice, client: leaveSame},
		{name: "error", rules: `{"when": {"tool": "t"}, "fault": "error:-32603"}`, server: leaveNone, client: leaveRefuses(-32603, "injected error")},
		{name: "log", rules: `{"log": true}, {"log": "é"}`, server: leaveSame, client: leaveSame},
		{name: "tag", rules: `{"tag": "w"}`, server: leaveSame, client: leaveSame},

		{name: "allow back", rules: `{` + toClient + `"deny": "no"}, {` + toClient + `"allow": true}`, server: leaveSame, client: leaveSame},
		{name: "deny back", rules: `{` + toClient + `"deny": "off"}`, server: leaveSame, client: leaveRefuses(403, "off")},
		{name: "require back", rules: `{` + toClient + `"require": {"/result/content/*/text": "b.c$"}}`, server: leaveSame, client: leaveSame},
		{name: "deny both ways", rules: `{"when": {"dir": ["to-client", "to-server"], "where": {"/result/content/*/text": "b"}}, "deny": "no"}`, server: leaveSame, client: leaveRefuses(403, "no")},
		{name: "require more back", rules: `{` + toClient + `"require": {"/result/content/*/text": "^b"}}`, server: leaveSame, client: leaveRefuses(403, "refused by a rule")},
		{name: "set back", rules: `{` + toClient + `"set": {"/result/content/-": null}}`, server: leaveSame, client: leaveBecomes(`}], "n"`, `},null], "n"`)},
		{name: "remove back", rules: `{` + toClient + `"remove": "/result/content[type=te*]"}`, server: leaveSame, client: leaveBecomes(`{"type":"text","text":"mail \u0061@b.c"}`, ``)},
		{name: "replace back", rules: `{` + toClient + `"replace": {"regex": "\\w@[\\w.]+", "with": "<m>"}}`, server: leaveSame, client: leaveBecomes(`\u0061@b.c`, `<m>`)},
		{name: "answer back", rules: `{` + toClient + `"answer": {"content":[],"n":1.0}}`, server: leaveSame, client: leaveAnswers(`"content":[],"n":1.0`)},
		{name: "delay back", rules: `{` + toClient + `"delay": "2s"}`, server: leaveSame, client: leaveSame, takes: 2 * time.Second},
		{name: "drop back", rules: `{` + toClient + `"fault": "drop"}`, server: leaveThen(leaveSame, leaveCancelled), client: leaveRefuses(504, "call took too long"), status: 504, takes: 10 * time.Second},
		{name: "timeout back", rules: `{` + toClient + `"fault": "timeout"}`, server: leaveSame, client: leaveRefuses(504, "call took too long"), status: 504},
		{name: "disconnect back", rules: `{` + toClient + `"fault": "disconnect"}`, server: leaveSame, client: leaveNone, cut: true},
		{name: "malformed back", rules: `{` + toClient + `"fault": "malformed"}`, server: leaveSame, client: leaveHalf},
		{name: "duplicate back", rules: `{` + toClient + `"fault": "duplicate"}`, server: leaveSame, client: leaveTwice},
		{name: "error back", rules: `{` + toClient + `"fault": "error:-32603"}`, server: leaveSame, client: leaveRefuses(-32603, "injected error")},
		{name: "log back", rules: `{` + toClient + `"log": "x"}`, server: leaveSame, client: leaveSame},
		{name: "tag back", rules: `{` + toClient + `"tag": "w"}`, server: leaveSame, client: leaveSame},
		{name: "all", rules: `{"tag": "a"}, {` + toServer + `"set": {"/params/arguments/n": 1}}, {"delay": "1s"}, {` + toClient + `"remove": "/result/n"},
			{` + toClient + `"set": {"/result/x": 2.0}}, {` + toServer + `"require": {"/params/arguments/n": "^1$"}}`, takes: time.Second,
			server: leaveBecomes(`9007199254740993`, `1`), client: leaveBecomes(` "n":9007199254740993,"x":1.0`, `"x":2.0`)},
	}
}

// TestRuleActions has one call answered under each action, towards the server and towards the client, on each way that
// there is, and compares the bytes that leave on both sides, and when they do.
func TestRuleActions(t *testing.T) {
	for _, c := range ruleActions() {
		t.Run(c.name, func(t *testing.T) {
			for _, w := range ruleWays() {
				t.Run(fmt.Sprintf("%s-%s%s,modern=%t", w.client, w.server, w.accept, w.modern), func(t *testing.T) {
					w.rules, w.bounds.CallTimeout = c.rules, 10*time.Second
					call := w.call("1", ruleArgs, "")
					toServer, toClient := c.server(w, call), c.client(w, talkResult("1", w.ruleResult()))
					if w.server == "tape" {
						w.tape = ruleTape(w, toServer)
					}
					talkTest(t, w, func(w *talk) {
						x := w.dial()
						began := time.Now()
						post := x.say(call)
						w.ruleAnswered(toServer)
						x.ruleHears(post, toClient, c.status, c.cut)
						if d := time.Since(began).Truncate(100 * time.Millisecond); d != c.takes {
							t.Errorf("got it after %s, want %s", d, c.takes)
						}
					})
				})
			}
		})
	}
}

// ruleWays are the ways of a call on which rules are met.
func ruleWays() (ways []*talk) {
	for _, client := range []string{"stdio", "http"} {
		for _, server := range []string{"stdio", "json", "events", "tape"} {
			for _, modern := range []bool{false, true} {
				ways = append(ways, &talk{client: client, server: server, modern: modern})
				if client == "http" && (server == "stdio" || server == "tape") {
					ways = append(ways, &talk{client: client, server: server, modern: modern, accept: "text/event-stream, application/json"})
				}
			}
		}
	}
	return ways
}

// ruleTape is a tape on which each of calls has its answer.
func ruleTape(w *talk, calls []string) string {
	k := &tapeScript{session: int64(btoi(!w.modern))}
	if !w.modern {
		k.exchange(frontInitialize("0", "2025-11-25"),
			`{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"talk","version":"1"}}}`)
	}
	for _, call := range calls {
		if strings.Contains(call, methodCancelled) {
			continue
		}
		k.exchange(call, talkResult("1", w.ruleResult()))
	}
	return k.tape()
}

// ruleAnswered is the server, which gets calls and answers what it can read of them.
func (w *talk) ruleAnswered(calls []string) {
	w.t.Helper()
	for _, call := range calls {
		if w.server == "tape" {
			return
		}
		if h := w.gets(call); h.Method == methodCallTool { // else it is half a call
			h.result(w.ruleResult())
		}
	}
}

// ruleHears wants c to hear texts in answer to its post, which is nil on stdio.
func (c *talkClient) ruleHears(post *talkPost, texts []string, status int, cut bool) {
	c.w.t.Helper()
	if post == nil {
		for _, text := range texts {
			c.hears(text)
		}
		if cut {
			if err := <-c.exit; err == nil {
				c.w.t.Error("got a conversation that ended well, want one that was cut")
			}
		}
		return
	}
	post.wait(c)
	if status == 504 && c.w.server == "events" && post.status == 200 { // it is too late for another head
		status, cut = 200, post.err != nil
		if cut {
			defer c.hears(texts[0])
		}
	}
	if cut != (post.err != nil) {
		c.w.t.Fatalf("got error %v with %d %q", post.err, post.status, &post.body)
	}
	if cut {
		return
	}
	if want := max(status, 200); post.status != want {
		c.w.t.Errorf("got status %d, want %d", post.status, want)
	}
	if post.header.Get("Content-Type") == "application/json" {
		texts = []string{strings.Join(texts, "\n")}
		if n := post.header.Get("Content-Length"); n != fmt.Sprint(len(texts[0])) {
			c.w.t.Errorf("got Content-Length %s, want %d", n, len(texts[0]))
		}
	}
	for _, text := range texts {
		c.hears(text)
	}
}

// TestRulesReport has the same rules only say what they would do: all passes as it came, at once.
func TestRulesReport(t *testing.T) {
	for _, c := range ruleActions() {
		t.Run(c.name, func(t *testing.T) {
			log := &frontLog{}
			rules := NewRules(ruleSet(t, c.rules), slog.New(slog.NewTextHandler(log, nil)))
			rules.Report = true
			ruleTalks(t, "", ruleEverywhere, func(w *talk) {
				w.policy = rules
				x, began, call := w.dial(), time.Now(), w.call("1", ruleArgs, "")
				post := x.say(call)
				w.gets(call).result(w.ruleResult())
				x.ruleHears(post, []string{talkResult("1", w.ruleResult())}, 0, false)
				if d := time.Since(began).Truncate(100 * time.Millisecond); d != 0 {
					t.Errorf("got it after %s", d)
				}
			})
			word := strings.Fields(c.name)[0]
			if slices.Contains([]string{"drop", "timeout", "disconnect", "malformed", "duplicate", "error"}, word) {
				word = "fault " + word
			}
			if !strings.Contains(log.String(), "rule would apply") || word != "all" && !strings.Contains(log.String(), word) {
				t.Errorf("got log %s, want that %s would apply", log, word)
			}
		})
	}
}
