// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"slices"
	"strings"
)

// A listing says what a result lists, and how what is in it is asked for.
type listing struct {
	list   string // member of the result
	key    string // of an element: its name
	method string // that asks for one
}

// listingOf returns what a result of method lists. Templates are no names: what they lead to is judged when it is asked for.
func listingOf(method string) (l listing, ok bool) {
	switch method {
	case "tools/list":
		return listing{"tools", "name", methodCallTool}, true
	case "prompts/list":
		return listing{"prompts", "name", methodGetPrompt}, true
	case "resources/list":
		return listing{"resources", "uri", "resources/read"}, true
	}
	return l, false
}

// hide takes out of the list that v.m, which became of the response x.m, brings what the client could not ask for anyway.
func (b *ruleBook) hide(x *meeting, v *ruling) {
	l, ok := listingOf(x.method())
	if !ok {
		return
	}
	var by []string // names of rules
	pick := func(element string) bool {
		names, odd := rulePath{{token: l.key}}.find(element)
		name := ""
		if len(names) == 1 {
			name, _ = unquote(names[0])
		}
		rule, hidden := b.denied(x, l.method, name)
		if odd { // whoever reads it may take it for a name that is denied
			rule, hidden = "default", true
		}
		if hidden && !slices.Contains(by, rule) {
			by = append(by, rule)
		}
		return hidden
	}
	x.m = v.m
	text, n, odd := rulePath{{token: "result"}, {token: l.list}, {pick: pick}}.remove(x.m.Raw)
	r := &Rule{Name: strings.Join(by, ", "), Action: Action{Kind: actRemove}}
	switch {
	case odd:
		v.refuse(x, &Rule{Name: "default", Action: Action{Kind: actDeny, Text: "not allowed"}}, "deny: "+unclearText)
	case n > 0:
		v.become(x, r, text)
	}
}

// denied reports whether the client of x would be denied whatever it asked of what method calls name, and by which rule.
func (b *ruleBook) denied(x *meeting, method, name string) (rule string, denied bool) {
	call := &Message{Kind: Call, Dir: ToServer, Method: method, Name: name}
	if method == "resources/read" {
		call.Name, call.URI = "", name
	}
	asks := *x
	asks.m, asks.call, asks.dir = call, call, ToServer
	perhaps := false // some call of it may pass
	for _, r := range b.Rules {
		if found, _ := r.When.holds(&asks); found != holds || !r.Kind.ends() {
			continue
		}
		certain := !r.When.perCall()
		switch {
		case r.Kind == actDeny && certain:
			return r.Name, !perhaps
		case r.Kind == actDeny:
		case certain:
			return "", false
		default:
			perhaps = true
		}
	}
	return "default", b.Deny && !perhaps
}
