// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxRules    = 10_000 // in a file
	maxRuleName = 100    // characters
)

// A RuleFileError says what is wrong with a rule file, and where.
type RuleFileError struct {
	Line, Column int // from 1; columns are characters
	Reason       string
}

// Error is behind the name of the file and a colon what compilers print.
func (e *RuleFileError) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Reason) }

// A ruleFile is a rule file that is being read. What is read after err is set does not count.
type ruleFile struct {
	scanner
	in    string         // the rule that is being read, for errors
	lines map[string]int // of the rules, by name
	err   *RuleFileError // the first
}

// A ruleNode is a value in a rule file.
type ruleNode struct {
	key      string     // decoded, of a member; an element has that of the array
	at       int        // offset of the key, or of the element
	from, to int        // the value is text[from:to]
	inner    []ruleNode // members or elements
}

// parseRules reads a rule file. Lines that begin with // are comments. The caller bounds the text. The error is a
// *[RuleFileError].
func parseRules(text string) (*RuleSet, error) {
	text = strings.TrimPrefix(text, "\ufeff") // some editors begin a file with it, and do not show it
	f := &ruleFile{scanner: scanner{text: blankComments(text)}, lines: map[string]int{}}
	set := &RuleSet{}
	switch start := f.space(0); {
	case f.whole(start, 0, fieldNone) >= 0:
		f.file(f.node("", start, start), set)
	case strings.HasPrefix(f.text[f.fault.Offset:], "//"):
		f.fail(f.fault.Offset, "a comment needs a line of its own")
	default:
		f.fail(f.fault.Offset, "%s", f.fault.Reason)
	}
	if f.err != nil {
		return nil, f.err
	}
	return set, nil
}

// blankComments puts spaces in place of lines that begin with //, so that all else stays where it is. No string can
// hold such a line, as JSON has no line ends in strings.
func blankComments(text string) string {
	b := []byte(text)
	blank, begins := false, true
	for i, c := range b {
		switch {
		case c == '\n' || c == '\r':
			blank, begins = false, true
		case begins && strings.HasPrefix(text[i:], "//"):
			blank = true
			fallthrough
		case blank:
			b[i] = ' '
		}
		begins = begins && strings.IndexByte(whiteSpace, c) >= 0
	}
	return string(b)
}

// node takes apart the value at i. All of the text is valid JSON.
func (f *ruleFile) node(key string, at, i int) ruleNode {
	n := ruleNode{key: key, at: at, from: i}
	opening := f.text[i]
	if opening != '{' && opening != '[' {
		n.to = f.skip(i)
		return n
	}
	for i = f.space(i + 1); f.text[i] != opening+2; i = f.next(i) { // ASCII: "{|}" and "[\\]"
		if at = i; opening == '{' {
			key, i = f.memberKey(i)
		}
		n.inner = append(n.inner, f.node(key, at, i))
		i = n.inner[len(n.inner)-1].to
	}
	n.to = i + 1
	return n
}

// fail notes what is wrong at an offset, unless something is already.
func (f *ruleFile) fail(at int, format string, args ...any) {
	if f.err != nil {
		return
	}
	reason := fmt.Sprintf(format, args...)
	if f.in != "" {
		reason = f.in + ": " + reason
	}
	line, column := lineColumn(f.text, at)
	f.err = &RuleFileError{line, column, reason}
}

// lineColumn returns where text[at] is for people, who count from 1 and in characters.
func lineColumn(text string, at int) (line, column int) {
	start := strings.LastIndexByte(text[:at], '\n') + 1
	return 1 + strings.Count(text[:start], "\n"), 1 + utf8.RuneCountInString(text[start:at])
}

// expect fails unless ok.
func (f *ruleFile) expect(n ruleNode, ok bool, wanted string) {
	if !ok {
		f.fail(n.from, "%swant %s", n.label(), wanted)
	}
}

// label begins a reason.
func (n ruleNode) label() string {
	if n.key == "" {
		return ""
	}
	return n.key + ": "
}

// source is the JSON text of a value.
func (f *ruleFile) source(n ruleNode) string { return f.text[n.from:n.to] }

// members returns the members of an object. Their keys are some of fields, if there are any, and no two are the same.
func (f *ruleFile) members(n ruleNode, fields ...string) []ruleNode {
	f.expect(n, f.text[n.from] == '{', "an object")
	seen := make(map[string]bool, len(n.inner))
	for _, m := range n.inner {
		if fields != nil && !slices.Contains(fields, m.key) {
			_, err := oneOf(fields...)(m.key)
			f.fail(m.at, "%sunknown field %q: %v", n.label(), m.key, err)
		} else if seen[m.key] {
			f.fail(m.at, "%s%q occurs twice", n.label(), m.key)
		}
		seen[m.key] = true
	}
	if f.err != nil {
		return nil
	}
	return n.inner
}

// kept returns the JSON text of a value that may go into a message, without line ends.
func (f *ruleFile) kept(n ruleNode) string {
	f.unique(n)
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(f.source(n))
}

// unique fails if in a value a key occurs twice.
func (f *ruleFile) unique(n ruleNode) {
	if f.text[n.from] == '{' {
		f.members(n)
	}
	for _, m := range n.inner {
		f.unique(m)
	}
}

// listOf returns what parse makes of a string or of each string of a list.
func listOf[T any](f *ruleFile, n ruleNode, parse func(string) (T, error)) (list []T) {
	elements := n.inner
	if f.text[n.from] != '[' {
		elements = []ruleNode{n}
	}
	f.expect(n, len(elements) > 0, "a string or a list of at least one")
	for _, e := range elements {
		s, ok := unquote(f.source(e))
		f.expect(e, ok, "a string or a list of strings")
		x, err := parse(s)
		if err != nil {
			f.fail(e.from, "%s%q: %v", n.label(), s, err)
		}
		list = append(list, x)
	}
	return list
}

// byPath returns what read makes of each member of an object whose keys are paths.
func byPath[T any](f *ruleFile, n ruleNode, parse func(string) (rulePath, error), read func(rulePath, ruleNode) T) (list []T) {
	for _, m := range f.members(n) {
		p, err := parse(m.key)
		if err != nil {
			f.fail(m.at, "%s%q: %v", n.label(), m.key, err)
			return nil
		}
		list = append(list, read(p, m))
	}
	return list
}

// number returns a whole number that is not less than least.
func (f *ruleFile) number(n ruleNode, least int64) int64 {
	v, err := strconv.ParseInt(f.source(n), 10, 64)
	f.expect(n, err == nil && v >= least, fmt.Sprintf("a whole number from %d to %d", least, int64(math.MaxInt64)))
	return v
}

// file reads the value that is all of the file.
func (f *ruleFile) file(n ruleNode, set *RuleSet) {
	var versions, lists int
	for _, m := range f.members(n, "version", "default", "rules") {
		switch m.key {
		case "version":
			versions++
			f.expect(m, f.source(m) == "1", "1")
		case "default":
			s, _ := unquote(f.source(m))
			set.Deny = s == "deny"
			f.expect(m, set.Deny || s == "allow", `"allow" or "deny"`)
		case "rules":
			lists++
			f.expect(m, f.text[m.from] == '[', "a list of rules")
			f.rules(m, set)
		}
	}
	f.expect(n, versions > 0, `"version": 1, which is absent`)
	f.expect(n, lists > 0, `"rules": a list, which is absent and may be empty`)
}

// rules reads the list of rules.
func (f *ruleFile) rules(n ruleNode, set *RuleSet) {
	if len(n.inner) > maxRules {
		f.fail(n.inner[maxRules].from, "rules: more than %d", maxRules)
	}
	line, counted := 1, 0
	for i, r := range n.inner {
		if f.err != nil {
			return
		}
		line += strings.Count(f.text[counted:r.from], "\n")
		counted = r.from
		r.key = ""
		rule := &Rule{Line: line}
		f.rule(r, i+1, rule)
		set.Rules = append(set.Rules, rule)
	}
	f.in = ""
}

// rule reads n, the rule that is the number-th of the file.
func (f *ruleFile) rule(n ruleNode, number int, rule *Rule) {
	rule.Name = fmt.Sprintf("rule %d", number)
	f.in = rule.Name
	named, at := false, n.from
	for _, m := range n.inner {
		if name, _ := unquote(f.source(m)); m.key == "name" && isRuleName(name) {
			rule.Name, f.in = name, fmt.Sprintf("rule %q", name)
			named, at = true, m.from
		}
	}
	words := actionWords()
	var found []string
	for _, m := range f.members(n, append([]string{"name", "when"}, words...)...) {
		switch m.key {
		case "name":
			f.expect(m, named, fmt.Sprintf("a string of 1 to %d printable characters", maxRuleName))
		case "when":
			rule.When = f.condition(m)
		default:
			if found = append(found, m.key); len(found) == 1 {
				rule.Action = f.action(m, actionKind(slices.Index(words, m.key)))
			}
		}
	}
	if len(found) == 0 {
		_, err := oneOf(words...)("")
		f.fail(n.from, "no action: %v", err)
	} else if len(found) > 1 {
		f.fail(n.from, "%s: want one action", strings.Join(found, " and "))
	}
	if other, ok := f.lines[rule.Name]; ok {
		f.fail(at, "the rule on line %d has the same name", other)
	}
	f.lines[rule.Name] = rule.Line
}

// isRuleName reports whether a rule may have the name s.
func isRuleName(s string) bool {
	notPrintable := func(r rune) bool { return !unicode.IsPrint(r) }
	return s != "" && utf8.RuneCountInString(s) <= maxRuleName && !strings.ContainsFunc(s, notPrintable)
}
