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
	var by []*Rule
	pick := func(element string) bool {
		names, odd := rulePath{{token: l.key}}.find(element)
		name, _ := unquote(strings.Join(names, "")) // there is one at most
		rule := b.denied(x, l.method, name)
		if odd { // whoever reads it may take it for a name that is denied
			rule = b.last
		}
		if rule != nil && !slices.Contains(by, rule) {
			by = append(by, rule)
		}
		return rule != nil
	}
	x.m = v.m
	text, odd := rulePath{{token: "result"}, {token: l.list}, {pick: pick}}.remove(x.m.Raw)
	switch {
	case odd:
		v.refuse(x, b.last, "deny: "+unclearText)
	case text != x.m.Raw:
		v.become(x, text, "hide what is denied", by...)
	}
}

// denied returns the rule that denies the client of x each call of method about name, whatever else the call says; nil if
// some such call may pass.
func (b *ruleBook) denied(x *meeting, method, name string) *Rule {
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
		denies, always := r.Kind == actDeny, !r.When.perCall()
		switch {
		case denies && always && !perhaps:
			return r
		case always:
			return nil
		}
		perhaps = perhaps || !denies
	}
	if b.Deny && !perhaps {
		return b.last
	}
	return nil
}
