// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// rulesForNone are n rules that apply to no message of a test.
func rulesForNone(n int) string {
	kinds := []string{
		`{"when": {"tool": "none_%d"}, "deny": "x"}`,
		`{"when": {"tool": ["none_%d", "no*ne"], "where": {"/params/arguments/path": "^/etc/"}}, "deny": "x"}`,
		`{"when": {"method": "none/%d", "dir": "to-client"}, "remove": "/result/tools[name=delete_*]"}`,
		`{"when": {"uri": "none:///%d/*"}, "require": {"/params/uri": "^none"}}`,
		`{"when": {"user": "none-%d"}, "replace": {"regex": "[\\w.]+@[\\w.]+", "with": "<mail>"}}`,
		`{"when": {"tool": "none_%d", "every": 3}, "delay": "2s"}`,
		`{"when": {"prompt": "none-%d"}, "answer": {"messages": []}}`,
		`{"when": {"method": "tools/call", "tool": "none-%d", "chance": 0.5}, "fault": "disconnect"}`,
		`{"when": {"ip": "192.0.2.%d"}, "tag": "x"}`,
		`{"when": {"method": "none/%d", "transport": "http", "revision": "2024-*"}, "set": {"/params/a": 1}}`,
	}
	var rules []string
	for i := range n {
		rules = append(rules, fmt.Sprintf(kinds[i%len(kinds)], i))
	}
	return strings.Join(rules, ",\n")
}

// BenchmarkRules100 is a small call and its answer under 100 rules of which none applies: two messages each time.
func BenchmarkRules100(b *testing.B) {
	r := NewRules(ruleSet(b, rulesForNone(100)), slog.New(slog.DiscardHandler))
	call, _ := Parse(benchCall)
	answer, _ := Parse(benchAnswer)
	answer.Dir, answer.Answers = ToClient, &PendingCall{Message: call}
	s := &Session{}
	b.ReportAllocs()
	for b.Loop() {
		for _, m := range []*Message{call, answer} {
			if out, err := r.Intercept(b.Context(), s, m); out != m || err != nil {
				b.Fatal(out, err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*b.N), "ns/message")
}

// BenchmarkRulesReplace1MB is one replace on an answer of 1 MB, in which there is little to replace, and much.
func BenchmarkRulesReplace1MB(b *testing.B) {
	few := "The quick brown fox jumps over the lazy dog. " + strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipiscing elit. ", 60) + `Mail a.b@example.org.\n`
	for _, c := range []struct{ name, text string }{{"few", few}, {"many", `Mail a.b@example.org or the other one.\n`}, {"none", strings.ReplaceAll(few, "@", " at ")}} {
		b.Run(c.name, func(b *testing.B) {
			r := NewRules(ruleSet(b, `{"when": {"dir": "to-client"}, "replace": {"regex": "[\\w.]+@[\\w.]+", "with": "<mail>"}}`), slog.New(slog.DiscardHandler))
			m, err := Parse(talkResult("7", `{"content":[{"type":"text","text":"`+strings.Repeat(c.text, 1<<20/len(c.text))+`"}]}`))
			if err != nil {
				b.Fatal(err)
			}
			m.Dir = ToClient
			b.SetBytes(int64(len(m.Raw)))
			for b.Loop() {
				if out, err := r.Intercept(b.Context(), &Session{}, m); err != nil || (out == m) != (c.name == "none") {
					b.Fatal(err)
				}
			}
		})
	}
}
