// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"log/slog"
	"net/netip"
	"testing"
)

// TestRuleWho asks of whom rules are: of a call, its answer, what the server asks and says within it, and what belongs to
// no call.
func TestRuleWho(t *testing.T) {
	web := &Session{User: "ann", id: "abc", revision: "2025-06-18"}
	pipe := &Session{revision: "2025-11-25"}
	once := &Session{User: "ann", Transient: true}
	origin := &Origin{IP: netip.MustParseAddr("::ffff:10.1.2.3")}
	modern := replayModern("1", "t", `{}`)
	for _, c := range []struct {
		when                  string
		web, pipe, once, push bool // messages over HTTP, on stdio, over HTTP in 2026-07-28; outside calls over HTTP
	}{
		{`"user": "ann"`, true, false, true, true},
		{`"user": ["bob", "a*"]`, true, false, true, true},
		{`"user": "*"`, true, true, true, true},
		{`"session": "abc"`, true, false, false, true},
		{`"session": "-"`, false, true, false, false},
		{`"ip": "10.0.0.0/8"`, true, false, true, false},
		{`"ip": ["192.0.2.1", "10.1.2.3"]`, true, false, true, false},
		{`"ip": "10.1.2.4"`, false, false, false, false},
		{`"ip": "::/0"`, false, false, false, false},
		{`"transport": "http"`, true, false, true, true},
		{`"transport": "stdio"`, false, true, false, false},
		{`"revision": "2025-*"`, true, true, false, true},
		{`"revision": "2026-07-28"`, false, false, true, false},
		{`"user": "ann", "transport": "stdio"`, false, false, false, false},
	} {
		var b ruleTags
		r := NewRules(ruleSet(t, `{"when": {`+c.when+`}, "tag": "x"}`), slog.New(slog.DiscardHandler))
		r.Noted = b.noted
		for _, x := range []struct {
			name   string
			s      *Session
			text   string
			origin *Origin
			want   bool
		}{
			{"web", web, replayCall("1", "t", `{}`), origin, c.web},
			{"pipe", pipe, replayCall("1", "t", `{}`), nil, c.pipe},
			{"once", once, modern, origin, c.once},
		} {
			call := sessParse(t, x.text)
			call.Origin = x.origin
			if x.name == "once" {
				call.Origin = &Origin{IP: origin.IP, Header: map[string][]string{"Mcp-Method": {"tools/call"}, "Mcp-Name": {"t"}, revisionHeader: {statelessRevision}}}
			}
			own := &PendingCall{Message: call}
			answer, asks, says := sessParse(t, talkResult("1", "{}")), sessParse(t, talkQuestion), sessParse(t, talkProgress("1", "1"))
			answer.Answers, asks.Within, says.Within = own, own, own
			answers := sessParse(t, talkResult("1", "{}"))
			answers.Answers = &PendingCall{Message: asks}
			answers.Origin = x.origin
			for _, m := range []*Message{answer, asks, says} {
				m.Dir = ToClient
			}
			for i, m := range []*Message{call, answer, asks, says, answers} {
				out, err := r.Intercept(t.Context(), x.s, m)
				if err != nil {
					t.Fatal(err)
				}
				if got := b.take() || out.Ruled != nil; got != x.want && !(i == 4 && x.name == "once") { // which has no answers of clients
					t.Errorf("%s: %s, message %d: got %t, want %t", c.when, x.name, i, got, x.want)
				}
			}
		}
		push := sessParse(t, `{"jsonrpc":"2.0","method":"notifications/x"}`)
		push.Dir = ToClient
		r.Intercept(t.Context(), web, push)
		if got := b.take(); got != c.push {
			t.Errorf("%s: outside a call: got %t, want %t", c.when, got, c.push)
		}
	}
}

// ruleTags counts what rules note.
type ruleTags int

func (n *ruleTags) noted(_ *Session, _ *Message, notes []RuleNote) { *n += ruleTags(len(notes)) }

func (n *ruleTags) take() bool {
	had := *n > 0
	*n = 0
	return had
}

// FuzzRules has all that changes a message meet whatever comes: it stays a message of its kind, of its id and method.
func FuzzRules(f *testing.F) {
	for _, text := range []string{
		replayCall("1", "t", ruleArgs), replayModern(`"é"`, "t", ruleArgs), talkResult("1", ruleResult), talkQuestion, talkProgress("1", "1.0"),
		`{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"a@b"}}`, talkResult("1", `{"tools":[{"name":"a"},{"name":"b"}]}`),
		`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[[{"a":"a@b"}]]}`,
	} {
		f.Add(text, false)
		f.Add(text, true)
	}
	list := `{"set": {"/params/arguments/x": 1, "/params/a/b": [], "/result/content/-": {}, "/error/data": null}},
		{"remove": ["/params/arguments/n", "/result/tools[name=a*]", "/result/content/0", "/params/*/*/x"]},
		{"replace": {"regex": "\\w@\\w", "with": "\u0000$0<\"é"}}, {"replace": {"regex": "a*", "with": "", "in": "/result/*"}},
		{"when": {"tool": "b*"}, "deny": "x"}, {"when": {"tool": "t", "where": {"/params/arguments/x": 2}}, "deny": "x"}`
	f.Fuzz(func(t *testing.T, text string, back bool) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		if m.Dir = Direction(btoi(back)); back && m.Kind == Response {
			m.Answers = &PendingCall{Message: sessParse(t, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)}
		}
		out, err := NewRules(ruleSet(t, list), slog.New(slog.DiscardHandler)).Intercept(t.Context(), &Session{}, m)
		if err != nil || out == m {
			return
		}
		again, err := Parse(out.Raw)
		if err != nil || out.Raw != again.Raw {
			t.Fatalf("%q became %q: %v", text, out.Raw, err)
		}
		if again.Kind != m.Kind || again.ID != m.ID || again.Method != m.Method || out.Dir != m.Dir {
			t.Errorf("%q became %q", text, out.Raw)
		}
	})
}
