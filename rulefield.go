// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxTag   = 32 // bytes
	maxDelay = time.Hour
)

// condition reads when.
func (f *ruleFile) condition(n ruleNode) (c Condition) {
	c.texts = map[string]string{}
	nodes := map[string]ruleNode{}
	patterns := map[string]*[]string{"method": &c.Methods, "tool": &c.Tools, "prompt": &c.Prompts, "uri": &c.URIs, "user": &c.Users,
		"session": &c.Sessions, "revision": &c.Revisions}
	for _, m := range f.members(n, "method", "tool", "prompt", "uri", "dir", "user", "session", "ip", "transport", "revision",
		"where", "every", "chance", "seed", "first") {
		nodes[m.key], c.texts[m.key] = m, f.source(m)
		switch m.key {
		case "dir":
			c.Dirs = listOf(f, m, parseDirection)
		case "ip":
			c.IPs = listOf(f, m, parsePrefix)
		case "transport":
			c.Transports = listOf(f, m, oneOf(viaStdio, "http"))
		case "where":
			c.Where = byPath(f, m, parseRulePath, f.demand)
		case "every":
			c.Every = f.number(m, 1)
		case "chance":
			part, err := strconv.ParseFloat(f.source(m), 64)
			f.expect(m, err == nil && part >= 0 && part <= 1, "a number from 0 to 1")
			c.Chance = &part
		case "seed":
			seed := uint64(f.number(m, 0))
			c.Seed = &seed
		case "first":
			c.First = f.number(m, 1)
		default:
			*patterns[m.key] = listOf(f, m, parseText)
		}
	}
	if c.Seed != nil && c.Chance == nil {
		f.fail(nodes["seed"].at, "seed: means nothing without chance")
	}
	if c.Tools != nil && c.Prompts != nil {
		f.fail(n.from, "tool and prompt: no message is about both")
	}
	if c.Tools != nil && !canMatch(c.Methods, methodCallTool) {
		f.fail(nodes["method"].from, "method: never tools/call, which is what tool is about")
	}
	if c.Prompts != nil && !canMatch(c.Methods, methodGetPrompt, methodComplete, "prompts/list") {
		f.fail(nodes["method"].from, "method: never prompts/get or completion/complete, which is what prompt is about")
	}
	return c
}

// canMatch reports whether one of the patterns matches one of the names, or there are no patterns.
func canMatch(patterns []string, names ...string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return matchesName(pattern, name) })
	})
}

// parseDirection reads a direction. Anything else than a word for one is ToServer, with an error.
func parseDirection(s string) (Direction, error) {
	if s == dirToClient {
		return ToClient, nil
	}
	_, err := oneOf(dirToServer, dirToClient)(s)
	return ToServer, err
}

// demand reads what the value at p must be.
func (f *ruleFile) demand(p rulePath, n ruleNode) Demand {
	s, ok := unquote(f.source(n))
	if !ok {
		return Demand{At: p, Value: encodeJSON(decodeJSON(f.kept(n)))}
	}
	match, err := regexp.Compile(s)
	f.pattern(n, s, err)
	return Demand{At: p, Match: match}
}

// pattern fails if there was an error with the regular expression s.
func (f *ruleFile) pattern(n ruleNode, s string, err error) {
	if err != nil {
		f.fail(n.from, "%sregular expression %q: %s", n.label(), s, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
}

// action reads the member of a rule that kind is the key of.
func (f *ruleFile) action(n ruleNode, kind actionKind) Action {
	a := Action{Kind: kind}
	s, isString := unquote(f.source(n))
	switch kind {
	case actAllow:
		f.expect(n, f.source(n) == "true", "true")
	case actDeny:
		a.Text = s
		f.expect(n, s != "", "a text for the client")
	case actRequire:
		a.Demands = byPath(f, n, parsePartPath, f.demand)
		f.expect(n, a.Demands != nil, "at least one path")
	case actSet:
		a.Set = byPath(f, n, parseChangePath, f.assignment)
		f.expect(n, a.Set != nil, "at least one path")
	case actRemove:
		a.Remove = listOf(f, n, parseChangePath)
	case actReplace:
		f.replacement(n, &a)
	case actAnswer:
		f.answer(n, &a)
	case actDelay:
		var err error
		a.Delay, err = time.ParseDuration(s)
		f.expect(n, err == nil && a.Delay > 0 && a.Delay <= maxDelay, "a time such as 2s or 250ms, more than 0 and at most 1h")
	case actFault:
		var err error
		if a.Fault, a.Code, err = parseFault(s); err != nil {
			f.fail(n.from, "fault: %v", err)
		}
	case actLog:
		a.Text = s
		f.expect(n, isString || f.source(n) == "true", "true or a text for the log")
	case actTag:
		a.Text = s
		f.expect(n, isMadeOf(s, nameLetters) && len(s) <= maxTag,
			fmt.Sprintf("a word of 1 to %d letters, digits, hyphens, underscores and dots", maxTag))
	}
	return a
}

// parsePartPath reads a path to what rules may judge and change. What else is in a message is not theirs.
func parsePartPath(s string) (rulePath, error) {
	p, err := parseRulePath(s)
	if err != nil {
		return nil, err
	}
	return valid(p, slices.Contains([]string{"params", "result", "error"}, p[0].token),
		"a path that begins with /params, /result or /error")
}

// parseChangePath reads a path to what may be absent or have any value.
func parseChangePath(s string) (rulePath, error) {
	p, err := parsePartPath(s)
	if err != nil {
		return nil, err
	}
	return valid(p, len(p) > 1 || p[0].token == "params", fmt.Sprintf("a path to something in %s, not to all of it", s))
}

// assignment reads the value to be put at p.
func (f *ruleFile) assignment(p rulePath, n ruleNode) Assignment {
	c := f.text[n.from]
	f.expect(n, len(p) > 1 || c == '{' || c == '[', "an object or an array, as params must be")
	return Assignment{At: p, Value: f.kept(n)}
}

// replacement reads what is replaced, and where.
func (f *ruleFile) replacement(n ruleNode, a *Action) {
	var match ruleNode
	var regex, with string
	both := 0
	for _, m := range f.members(n, "regex", "with", "in") {
		s, ok := unquote(f.source(m))
		f.expect(m, ok, "a string")
		switch m.key {
		case "regex":
			match, regex = m, s
			both++
		case "with":
			with = s
			both++
		case "in":
			var err error
			if a.In, err = parsePartPath(s); err != nil {
				f.fail(m.from, "in: %q: %v", s, err)
			}
		}
	}
	f.expect(n, both == 2, "regex and with")
	var err error
	a.Replace, err = newTextReplacer(regex, with)
	f.pattern(match, regex, err)
}

// answer reads a result, or an object that is {"result": …} or {"error": …}.
func (f *ruleFile) answer(n ruleNode, a *Action) {
	members := f.members(n)
	if len(members) != 1 || members[0].key != "result" && members[0].key != "error" {
		a.Result = f.kept(n)
		return
	}
	m := members[0]
	if m.key == "result" {
		a.Result = f.kept(m)
		return
	}
	a.Failure = f.kept(m)
	var code, text bool
	for _, e := range f.members(m, "code", "message", "data") {
		switch e.key {
		case "code":
			_, err := strconv.ParseInt(f.source(e), 10, 64)
			code = err == nil
		case "message":
			_, text = unquote(f.source(e))
		}
	}
	f.expect(m, code && text, "code, a whole number, and message, a string")
}

// parseFault reads what goes wrong, and the code if it is an error.
func parseFault(s string) (fault string, code int, err error) {
	if digits, ok := strings.CutPrefix(s, faultError+":"); ok {
		code, err = strconv.Atoi(digits)
		code, err = valid(code, err == nil, "a whole number behind error:, such as error:-32603")
		return faultError, code, err
	}
	fault, err = oneOf(faultDrop, faultTimeout, faultDisconnect, faultMalformed, faultDuplicate, "error:CODE")(s)
	return fault, 0, err
}
