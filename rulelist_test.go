// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

// listed asks for a list and wants the client to hear want of what the server lists.
func (c *talkClient) listed(id, method, listed, want string) {
	c.w.t.Helper()
	call := `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{"cursor":"é"` + c.w.meta("") + `}}`
	c.say(call)
	c.w.gets(call).result(listed)
	if strings.HasPrefix(want, "{\"code\"") {
		c.hears(`{"jsonrpc":"2.0","id":` + id + `,"error":` + want + `}`)
		return
	}
	c.hears(talkResult(id, want))
}

// TestRuleLists has lists without what cannot be called, each page for itself, whatever their elements look like.
func TestRuleLists(t *testing.T) {
	rules := `{"when": {"tool": "delete_*"}, "deny": "x"}, {"when": {"prompt": "secret"}, "deny": "x"}, {"when": {"uri": "file:///etc/*"}, "deny": "x"},
		{"when": {"tool": "perhaps", "where": {"/params/arguments/x": "y"}}, "deny": "x"}, {"when": {"tool": "often", "every": 2}, "deny": "x"}`
	refused := `{"code":403,"message":"not allowed","data":{"proxy":"mcpproxy"}}`
	ruleTalks(t, rules, ruleEverywhere, func(w *talk) {
		c := w.dial()
		for _, x := range []struct{ method, listed, want string }{
			{"tools/list", `{"tools":[{"name":"delete_a"}, {"name":"b","n":1.0}],"nextCursor":"2"}`, `{"tools":[{"name":"b","n":1.0}],"nextCursor":"2"}`},
			{"tools/list", `{"tools":[{"name":"c"},{"name":"delete_b"} ,{"name":"d"}]}`, `{"tools":[{"name":"c"} ,{"name":"d"}]}`},
			{"tools/list", `{ "tools" : [ {"name":"b"} ] }`, `{ "tools" : [ {"name":"b"} ] }`},
			{"tools/list", `{"tools":[{"n\u0061me":"\u0064elete_a"}]}`, `{"tools":[]}`},
			{"tools/list", `{"tools":[{"name":"b","name":"delete_a"},{"name":"c"}]}`, `{"tools":[{"name":"c"}]}`},
			{"tools/list", `{"tools":[{"name":"delete_a","name":"b"},{"name":"c"}]}`, `{"tools":[{"name":"c"}]}`},
			{"tools/list", `{"tools":[{"name":"b","Name":"delete_a"},{"name":"c"}]}`, `{"tools":[{"name":"c"}]}`},
			{"tools/list", `{"tools":[{"name":"perhaps"},{"name":"often"},{"name":"Delete_a"},{"name":"ｄelete_a"}]}`, `{"tools":[{"name":"perhaps"},{"name":"often"},{"name":"Delete_a"},{"name":"ｄelete_a"}]}`},
			{"tools/list", `{"tools":[{"name":"b"}],"tools":[{"name":"delete_a"}]}`, refused},
			{"tools/list", `{"tools":[{"name":"b"}],"Tools":[{"name":"delete_a"}]}`, refused},
			{"tools/list", `{"tools":{"delete_a":{"name":"delete_a"}}}`, refused},
			{"prompts/list", `{"prompts":[{"name":"secret"},{"name":"delete_a"}]}`, `{"prompts":[{"name":"delete_a"}]}`},
			{"resources/list", `{"resources":[{"uri":"file:///etc/x","name":"a"},{"uri":"file:///a","name":"b"}]}`, `{"resources":[{"uri":"file:///a","name":"b"}]}`},
			{"x/list", `{"tools":[{"name":"delete_a"}]}`, `{"tools":[{"name":"delete_a"}]}`},
		} {
			c.listed("1", x.method, x.listed, x.want)
		}
	})
}

// TestRuleDefaultDeny allows two tools for some and no more.
func TestRuleDefaultDeny(t *testing.T) {
	set, err := parseRules(`{"version": 1, "default": "deny", "rules": [
		{"when": {"method": ["initialize", "notifications/*", "*/list"]}, "allow": true},
		{"when": {"tool": "t"}, "allow": true},
		{"when": {"tool": "u"}, "require": {"/params/arguments/x": 1}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	ruleTalks(t, `{"allow": true}`, ruleEverywhere, func(w *talk) {
		w.policy = NewRules(set, w.log)
		c := w.dial()
		c.listed("1", "tools/list", `{"tools":[{"name":"a"},{"name":"t"},{"name":"u"}]}`, `{"tools":[{"name":"t"},{"name":"u"}]}`)
		c.listed("2", "resources/list", `{"resources":[{"uri":"a:b"}]}`, `{"resources":[]}`)
		c.works()
		if !w.modern {
			c.say(replayCall("3", "a", `{}`))
			c.hears(strings.Replace(leaveRefuses(403, "not allowed")(w, "")[0], `"id":1`, `"id":3`, 1))
			w.push(talkQuestion) // what the server asks, no rule allows either
			w.gets(leaveRefuses(403, "not allowed")(w, "")[0])
		}
	})
}

// TestRuleIDs has ids used again, at the same time and later, and asks whose answer a rule meets.
func TestRuleIDs(t *testing.T) {
	rules := `{"when": {"tool": "secret"}, "replace": {"regex": "a@b", "with": "-"}}, {"when": {"tool": "delete"}, "deny": "x"}`
	refused := func(id string) string {
		return strings.Replace(leaveRefuses(403, "x")(nil, "")[0], `"id":1`, `"id":`+id, 1)
	}
	ruleTalks(t, rules, talkLegacy, func(w *talk) {
		c := w.dial()
		for _, id := range []string{`1`, `"1"`, `1.0`} {
			c.say(replayCall(id, "open", `{}`))
			w.gets(replayCall(id, "open", `{}`)).result(`"a@b"`)
			c.hears(talkResult(id, `"a@b"`))
			c.say(replayCall(id, "delete", `{}`))
			c.hears(refused(id))
			c.say(replayCall(id, "secret", `{}`))
			w.gets(replayCall(id, "secret", `{}`)).result(`"a@b"`)
			c.hears(talkResult(id, `"-"`))
		}
		c.say(replayCall(`1`, "secret", `{}`))
		secret := w.gets(replayCall(`1`, "secret", `{}`))
		c.say(replayCall(`"1"`, "open", `{}`))
		open := w.gets(replayCall(`"1"`, "open", `{}`))
		c.say(replayCall(`1.0`, "open", `{}`)) // 1 is in flight
		c.refused(`1.0`, codeInvalid)
		open.result(`"a@b"`)
		c.hears(talkResult(`"1"`, `"a@b"`))
		secret.answer(`{"jsonrpc":"2.0","id":1.0,"result":"a@b"}`)
		c.hears(`{"jsonrpc":"2.0","id":1.0,"result":"-"}`)
	})
}

// TestRuleBatch has one call of a batch denied, and the others answered.
func TestRuleBatch(t *testing.T) {
	ruleTalks(t, `{"when": {"tool": "delete"}, "deny": "x"}, {"when": {"tool": "gone"}, "fault": "error:-5"}`, talkLegacy, func(w *talk) {
		if w.client == "http" && w.overHTTP() {
			return // each message of a batch is a POST of its own there, see TestConversations
		}
		w.revision = batchRevision
		c := w.dial()
		one, two := replayCall("1", "a", `{}`), replayCall("4", "b", `{}`)
		c.do1("[" + one + "," + replayCall("2", "delete", `{}`) + "," + replayCall("3", "gone", `{}`) + "," + two + `,{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete"}}]`)
		for range 2 { // over HTTP in any order
			h := w.next()
			if h.raw != one && h.raw != two {
				t.Errorf("got %s at the server", h.raw)
			}
			h.result(`{}`)
		}
		want := map[string]bool{talkResult("1", `{}`): true, talkResult("4", `{}`): true,
			strings.Replace(leaveRefuses(403, "x")(w, "")[0], `"id":1`, `"id":2`, 1):             true,
			strings.Replace(leaveRefuses(-5, "injected error")(w, "")[0], `"id":1`, `"id":3`, 1): true}
		for range 4 {
			if got := c.next(); !want[got] {
				t.Errorf("got %s, want one of %v", got, want)
			} else {
				delete(want, got)
			}
		}
		c.silent()
		w.silent()
	})
}

// TestRuleHeaders has headers of 2026-07-28 that name another tool than the body, in front of a server that goes by them.
func TestRuleHeaders(t *testing.T) {
	got := make(chan *http.Request, 100)
	serve := relayed(got, func(w http.ResponseWriter, _ *http.Request, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(frontResult("1", `{}`)))
	})
	for _, report := range []bool{false, true} {
		inFrontOf(t, serve, nil, func(g *frontRig) {
			rules := NewRules(ruleSet(t, `{"when": {"tool": "delete"}, "deny": "x"}`), g.front.Log)
			rules.Report = report
			g.front.Proxy.chain = []Interceptor{rules.Intercept}
			for _, c := range []struct {
				body, method, name string
				status             int
				says               string
			}{
				{"a", "tools/call", "a", 200, `"result"`},
				{"a", "tools/call", "=?base64?YQ==?=", 200, `"result"`},
				{"a", "tools/call", "delete", 400, `-32020`},
				{"a", "tools/list", "a", 400, `-32020`},
				{"a", "tools/call", "", 400, `-32020`},
				{"delete", "tools/call", "delete", 200, `403`},
				{"delete", "tools/call", "a", 400, `-32020`},
				{"delete", "tools/call", "=?base64?YQ==?=", 400, `-32020`},
			} {
				headers := []string{"MCP-Protocol-Version: 2026-07-28", "Mcp-Method: " + c.method}
				if c.name != "" {
					headers = append(headers, "Mcp-Name: "+c.name)
				}
				resp := g.do("POST", replayModern("1", c.body, `{}`), headers...)
				if body := frontBody(t, resp); report {
					if resp.StatusCode != 200 || !strings.Contains(body, `"result"`) {
						t.Errorf("%v: got %d %s under a report, want the server's answer", c, resp.StatusCode, body)
					}
				} else if resp.StatusCode != c.status || !strings.Contains(body, c.says) {
					t.Errorf("%v: got %d %s", c, resp.StatusCode, body)
				}
				if reached := len(got) > 0; reached != (report || c.says == `"result"`) {
					t.Errorf("%v: the server got it: %t", c, reached)
				} else if reached {
					<-got
				}
			}
		})
	}
}

// TestRuleHandshake has rules meet initialize.
func TestRuleHandshake(t *testing.T) {
	for _, rules := range []string{
		`{"when": {"method": "initialize"}, "delay": "1s"}`,
		`{"when": {"method": "initialize", "dir": "to-client"}, "delay": "1s"}`,
		`{"when": {"method": "notifications/initialized"}, "delay": "1s"}`,
		`{"when": {"method": "notifications/initialized"}, "fault": "drop"}`,
		`{"when": {"method": "initialize"}, "set": {"/params/clientInfo/name": "x"}}`,
		`{"when": {"method": "initialize", "dir": "to-server"}, "answer": {"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"talk","version":"1"}}}`,
	} {
		ruleTalks(t, rules, func(w *talk) bool { return talkLegacy(w) && !(strings.Contains(rules, `"answer"`) && w.overHTTP()) }, func(w *talk) {
			c := w.dial()
			<-time.After(2 * time.Second)
			c.works()
			if !strings.Contains(rules, `"answer"`) && !strings.Contains(rules, faultDrop) { // after which no GET is made

				w.push(talkQuestion)
				c.hears(talkQuestion)
				c.say(talkResult("1", `{}`))
				w.gets(talkResult("1", `{}`))
			}
		})
	}
}

// An HTTP server finds in the headers of 2026-07-28 what rules left of a call.
func TestRuleHeadersFollow(t *testing.T) {
	got := make(chan *http.Request, 100)
	serve := relayed(got, func(w http.ResponseWriter, _ *http.Request, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(frontResult("1", `{}`)))
	})
	for _, c := range []struct{ action, name string }{
		{`"tag": "x"`, "a"},
		{`"set": {"/params/arguments": {}}`, "a"},
		{`"set": {"/params/name": "é"}`, "=?base64?w6k=?="},
		{`"remove": "/params/name"`, ""},
	} {
		inFrontOf(t, serve, nil, func(g *frontRig) {
			rules := NewRules(ruleSet(t, `{"when": {"tool": "a"}, `+c.action+`}`), g.front.Log)
			g.front.Proxy.chain = []Interceptor{rules.Intercept}
			frontBody(t, g.do("POST", replayModern("1", "a", `{"x":1}`), "MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: a"))
			if r := <-got; r.Header.Get("Mcp-Name") != c.name {
				t.Errorf("%s: got Mcp-Name %q, want %q", c.action, r.Header.Get("Mcp-Name"), c.name)
			}
		})
	}
}

// What a fault or an answer leaves of a list has nothing in it either that cannot be called.
func TestRuleListFaults(t *testing.T) {
	for _, c := range []struct{ action, leaves string }{
		{`"fault": "malformed"`, `{"jsonrpc":"2.0","id":1,"resu`},
		{`"fault": "duplicate"`, talkResult("1", `{"tools":[{"name":"b"}]}`) + " twice"},
		{`"answer": {"tools": [{"name":"a"},{"name":"c"}]}`, talkResult("1", `{"tools": [{"name":"c"}]}`)},
	} {
		rules := NewRules(ruleSet(t, `{"when": {"method": "tools/list", "dir": "to-client"}, `+c.action+`}, {"name": "hides", "when": {"tool": "a"}, "deny": "x"}`), slog.New(slog.DiscardHandler))
		m := sessParse(t, talkResult("1", `{"tools":[{"name":"a"},{"name":"b"}]}`))
		m.Dir, m.Answers = ToClient, &PendingCall{Message: sessParse(t, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)}
		out, err := rules.Intercept(t.Context(), &Session{}, m)
		if err != nil {
			t.Fatal(err)
		}
		got := out.Raw
		if out.Ruled.Twice {
			got += " twice"
		}
		if got != c.leaves || out.Ruled.Was.Raw != m.Raw || !strings.Contains(out.Ruled.Rule, "hides") {
			t.Errorf("%s: got %s by %q, want %s", c.action, got, out.Ruled.Rule, c.leaves)
		}
	}
}

// What a client asks for again with its last event id meets the rules for which it does not matter what it answers.
func TestRuleResumed(t *testing.T) {
	came := talkResult("1", `"a@b"`)
	for _, c := range []struct{ rule, leaves string }{
		{`{"when": {"dir": "to-client"}, "replace": {"regex": "a@b", "with": "-"}}`, talkResult("1", `"-"`)},
		{`{"remove": "/result/x"}`, came},
		{`{"when": {"dir": "to-client"}, "require": {"/result": "^c"}}`, ""},
		{`{"when": {"tool": "x"}, "replace": {"regex": "a@b", "with": "-"}}`, ""},
	} {
		m := sessParse(t, came)
		m.Dir, m.Resumed = ToClient, true
		out, err := NewRules(ruleSet(t, c.rule), slog.New(slog.DiscardHandler)).Intercept(t.Context(), &Session{}, m)
		if (err != nil) != (c.leaves == "") || err == nil && out.Raw != c.leaves {
			t.Errorf("%s: got %v, %v, want %q", c.rule, out, err, c.leaves)
		} else if err != nil && refusalOf(err).Rule == "" { // as if the server's stream had broken off
			t.Errorf("%s: got %v, want it refused by a rule", c.rule, err)
		}
	}
}
