// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"

	"log/slog"

	"strings"
	"testing"

	"time"
)

// What becomes of a message: it is no message, it is refused, it goes on as it came, or it goes on changed.
const (
	ruleNoMessage = "no message"
	ruleRefused   = "refused"
	rulePassed    = "passed"
)

// ruleMeets returns what rules make of text from a client, and the log.
func ruleMeets(t *testing.T, file, text string) (became, log string) {
	t.Helper()
	set, err := parseRules(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(text)
	if err != nil {
		return ruleNoMessage, ""
	}
	var b bytes.Buffer
	out, err := NewRules(set, slog.New(slog.NewTextHandler(&b, nil))).Intercept(t.Context(), &Session{}, m)
	var e *Error
	switch {
	case errors.As(err, &e) && e.Code == 403:
		return ruleRefused, b.String()
	case err != nil:
		t.Fatal(err)
	case out == m:
		return rulePassed, b.String()
	}
	return out.Raw, b.String()
}

// TestRuleNames tries to call what is denied under other spellings.
func TestRuleNames(t *testing.T) {
	file := `{"version": 1, "rules": [
		{"when": {"tool": "delete_*"}, "deny": "x"},
		{"when": {"prompt": "secret"}, "deny": "x"},
		{"when": {"uri": "file:///etc/*"}, "deny": "x"}]}`
	call := func(params string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":` + params + `}`
	}
	about := func(method, params string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + params + `}`
	}
	for _, c := range []struct{ text, want string }{
		{call(`{"name":"delete_all"}`), ruleRefused},
		{call(`{"arguments":{},"name" : "delete_"}`), ruleRefused},
		{call(`{"name":"\u0064elete_all"}`), ruleRefused},
		{call(`{"n\u0061me":"delete_all"}`), ruleRefused},
		{call(`{"name":"delete_\u0000"}`), ruleRefused},
		{call(`{"name":"delete_` + strings.Repeat("x", 1<<20) + `"}`), ruleRefused},
		{`{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools\/call","par\u0061ms":{"name":"delete_all"}}`, ruleRefused},
		{`{"params":{"name":"delete_all"},"method":"tools/call","id":1,"jsonrpc":"2.0"}`, ruleRefused},
		{`{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete_all"}}`, ruleRefused}, // a notification
		{call(`{"name":["delete_all"]}`), ruleRefused},                                          // JavaScript takes that for a name
		{call(`{"name":{"toString":"delete_all"}}`), ruleRefused},
		{call(`{"name":null}`), ruleRefused},
		{call(`["delete_all"]`), ruleRefused},
		// What parsers understand differently is no message.
		{call(`{"name":"a","name":"delete_all"}`), ruleNoMessage},
		{call(`{"name":"a","Name":"delete_all"}`), ruleNoMessage},
		{call(`{"NAME":"delete_all"}`), ruleNoMessage},
		{call(`{"name":"a"},"params":{"name":"delete_all"}`), ruleNoMessage},
		{call(`{"name":"a"},"Params":{"name":"delete_all"}`), ruleNoMessage},
		{call(`{"name":"a"},"param\u017f":{"name":"delete_all"}`), ruleNoMessage}, // a long s
		{call(`{"name":"a"},"METHOD":"x"`), ruleNoMessage},
		// Look-alikes are other names: nothing is normalised, nor is case.
		{call(`{"name":"Delete_all"}`), rulePassed},
		{call(`{"name":"DELETE_ALL"}`), rulePassed},
		{call(`{"name":"ｄelete_all"}`), rulePassed},
		{call(`{"name":"dеlete_all"}`), rulePassed}, // Cyrillic
		{call(`{"name":"delete\u200b_all"}`), rulePassed},
		{call(`{"name":"de\u0301lete_all"}`), rulePassed},
		{call(`{"name":" delete_all"}`), rulePassed},
		{call(`{"name":"a","arguments":{"name":"delete_all"}}`), rulePassed},
		{about("tools/calls", `{"name":"delete_all"}`), rulePassed},
		{about("prompts/get", `{"name":"delete_all"}`), rulePassed},

		{about("prompts/get", `{"name":"secret"}`), ruleRefused},
		{about("prompts/get", `{"name":["secret"]}`), ruleRefused},
		{about("completion/complete", `{"ref":{"type":"ref/prompt","name":"secret"},"argument":{}}`), ruleRefused},
		{about("completion/complete", `{"ref":{"n\u0061me":"s\u0065cret"}}`), ruleRefused},
		{about("completion/complete", `{"ref":{"name":"a","name":"secret"}}`), ruleRefused},
		{about("completion/complete", `{"ref":{"name":"a","Name":"secret"}}`), ruleRefused},
		{about("completion/complete", `{"ref":{"name":"a"},"REF":{"name":"secret"}}`), ruleRefused},
		{about("completion/complete", `{"ref":{"name":["secret"]}}`), ruleRefused},
		{about("completion/complete", `{"ref":"secret"}`), ruleRefused},
		{about("completion/complete", `{"ref":{"name":"a"}}`), rulePassed},
		{about("completion/complete", `{"argument":{"name":"secret"}}`), rulePassed},

		{about("resources/read", `{"uri":"file:///etc/passwd"}`), ruleRefused},
		{about("resources/read", `{"uri":"file:\/\/\/\u0065tc/passwd"}`), ruleRefused},
		{about("resources/read", `{"uri":["file:///etc/passwd"]}`), ruleRefused},
		{about("resources/subscribe", `{"uri":"file:///etc/passwd"}`), ruleRefused},
		{about("resources/unsubscribe", `{"uri":"file:///etc/passwd"}`), ruleRefused},
		{about("x/vendor", `{"uri":"file:///etc/passwd"}`), ruleRefused},
		{about("completion/complete", `{"ref":{"type":"ref/resource","uri":"file:///etc/{name}"}}`), ruleRefused},
		{about("resources/read", `{"uri":"file:///ETC/passwd"}`), rulePassed},
		{about("resources/read", `{"uri":"file:///a","URI":"file:///etc/passwd"}`), ruleNoMessage},
	} {
		if got, _ := ruleMeets(t, file, c.text); got != c.want {
			t.Errorf("%.200s: got %.200s, want %s", c.text, got, c.want)
		}
	}
	began := time.Now()
	hard := strings.Repeat("*a", 50) + "*b"
	ruleMeets(t, `{"version": 1, "rules": [{"when": {"tool": "`+hard+`"}, "deny": "x"}]}`, call(`{"name":"`+strings.Repeat("a", 1<<20)+`"}`))
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("matching a huge name took %s", d)
	}
}

// TestRuleUnclear leads paths to what they cannot be judged by: what denies or requires then denies, all else lets pass.
func TestRuleUnclear(t *testing.T) {
	rule := func(rule string) string { return `{"version": 1, "rules": [{"when": {"tool": "run"` + rule + `}]}` }
	where := `, "where": {"/params/arguments/cmd": "^rm"}}, `
	const yes, no, odd = holds, fails, unclear
	for _, c := range []struct {
		params string // behind the name
		found  holding
	}{
		{`,"arguments":{"cmd":"rm x"}`, yes},
		{`,"arguments":{"c\u006dd":"\u0072m x"}`, yes},
		{`,"arguments":{"cmd":"ls"}`, no},
		{`,"arguments":{"cmd":5}`, no},
		{`,"arguments":{}`, no},
		{``, no},
		{`,"arguments":{"cmd":["rm"]}`, odd},
		{`,"arguments":{"cmd":{"a":"rm"}}`, odd},
		{`,"arguments":{"cmd":null}`, odd},
		{`,"arguments":[{"cmd":"rm"}]`, odd},
		{`,"arguments":"rm"`, odd},
		{`,"arguments":null`, odd},
		{`,"arguments":{"cmd":"ls","cmd":"rm"}`, odd},
		{`,"arguments":{"cmd":"rm","cmd":"ls"}`, odd},
		{`,"arguments":{"cmd":"ls","CMD":"rm"}`, odd},
		{`,"arguments":{"CMD":"rm"}`, odd},
		{`,"arguments":{"cmd":"ls","c\u006dd":"rm"}`, odd},
		{`,"arguments":{"cmd":"ls"},"arguments":{"cmd":"rm"}`, odd},
		{`,"arguments":{"cmd":"ls"},"Arguments":{"cmd":"rm"}`, odd},
		{`,"ARGUMENTS":{"cmd":"rm"}`, odd},
	} {
		text := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run"` + c.params + `}}`
		set := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run"` + c.params + `,"x":1}}`
		for _, r := range []struct {
			rule         string
			yes, no, odd string
		}{
			{where + `"deny": "x"`, ruleRefused, rulePassed, ruleRefused},
			{where + `"require": {"/params/name": "z"}`, ruleRefused, rulePassed, ruleRefused},
			{where + `"set": {"/params/x": 1}`, set, rulePassed, rulePassed},
			{where + `"fault": "error:403"`, ruleRefused, rulePassed, rulePassed},
			{`}, "require": {"/params/arguments/cmd": "^rm"}`, rulePassed, ruleRefused, ruleRefused},
		} {
			want := [...]string{r.no, r.yes, r.odd}[c.found]
			got, log := ruleMeets(t, rule(r.rule), text)
			if got != want {
				t.Errorf("%s: %s: got %s, want %s", r.rule, c.params, got, want)
			}
			if logged := strings.Contains(log, unclearText); logged != (c.found == unclear && want == rulePassed) {
				t.Errorf("%s: %s: got log %q", r.rule, c.params, log)
			}
		}
	}
	text := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run","arguments":{"cmd":null,"a":{"b":[]}}}}`
	for _, change := range []string{`"set": {"/params/arguments/cmd/x": 1}`, `"remove": "/params/arguments/a/b/c"`, `"replace": {"regex": "x", "with": "y", "in": "/params/name/x"}`} {
		if got, log := ruleMeets(t, rule(`}, `+change), text); got != rulePassed || !strings.Contains(log, unclearText) {
			t.Errorf("%s: got %s and log %q, want it unchanged and said", change, got, log)
		}
	}
}

// A call that one rule changes meets the next ones as what it is by then.
func TestRuleRenamed(t *testing.T) {
	file := `{"version": 1, "rules": [{"replace": {"regex": "z", "with": ""}}, {"when": {"tool": "delete"}, "deny": "x"},
		{"when": {"uri": "file:///etc/*"}, "deny": "x"}, {"when": {"tool": "dezlete"}, "fault": "error:1"}]}`
	for _, params := range []string{`{"name":"dezlete"}`, `{"uri":"file:///ezztc/passwd"}`} {
		if got, _ := ruleMeets(t, file, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":`+params+`}`); got != ruleRefused {
			t.Errorf("%s: got %s, want it refused", params, got)
		}
	}
}

// Of a value in which a key is there twice nobody knows whether it is the one that is wanted.
func TestRuleValueTwice(t *testing.T) {
	for _, c := range []struct{ arguments, denied, required string }{
		{`{"a": {"b": 1.0, "c:": ":"}}`, ruleRefused, rulePassed},
		{`{"a": {"b": 2, "c:": ":"}}`, rulePassed, ruleRefused},
		{`{"a": {"b": 2, "c:": ":", "b": 1}}`, ruleRefused, ruleRefused},
		{`{"a": {"b": 1, "c:": ":", "\u0062": 2}}`, ruleRefused, ruleRefused},
	} {
		text := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":` + c.arguments + `}}`
		value := `{"/params/arguments": {"a": {"c:": ":", "b": 1}}}`
		denied, _ := ruleMeets(t, `{"version": 1, "rules": [{"when": {"where": `+value+`}, "deny": "x"}]}`, text)
		required, _ := ruleMeets(t, `{"version": 1, "rules": [{"require": `+value+`}]}`, text)
		if denied != c.denied || required != c.required {
			t.Errorf("%s: %s by deny, %s by require, want %s and %s", c.arguments, denied, required, c.denied, c.required)
		}
	}
}
