// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxRulesShown = 20 // else only those that a message of this dir, method and tool may meet
	ruleNameWidth = 32
)

// print writes x for people, each line behind indent.
func (x *Explanation) print(w io.Writer, indent string) {
	what := joined(x.Kind, joined(x.Method, x.Name))
	if x.ID != "" {
		what += ", id " + x.ID
	}
	if x.Message != "" {
		fmt.Fprintf(w, "%smessage %s (line %d): %s, %s\n", indent, x.Message, x.Line, printable(what, showWidth), x.Dir)
	}
	if x.Message != "" {
		indent += "  "
	}
	if x.Note != "" {
		fmt.Fprintf(w, "%s%s\n", indent, x.Note)
	}
	x.printMet(w, indent)
	if x.Message == "" && x.Outcome == fatePasses {
		fmt.Fprintf(w, "%s%s\n", indent, printable(oneLine(x.Leaves), math.MaxInt))
		return
	}
	text := x.Outcome
	if x.By != "" {
		text += " by " + x.By
	}
	if x.DelayMS > 0 {
		text += " after " + time.Duration(x.DelayMS*1e6).String()
	}
	if x.Why != "" {
		text += ": " + x.Why
	}
	if x.Twice {
		text += ", and goes on twice"
	}
	fmt.Fprintf(w, "%s=> %s\n", indent, printable(text, showWidth))
	if x.Leaves != "" {
		fmt.Fprintf(w, "%s   %s\n", indent, printable(oneLine(x.Leaves), math.MaxInt))
	}
	if x.Answer != nil {
		to := strings.TrimPrefix(x.Answer.Dir, "to-")
		fmt.Fprintf(w, "%s   the %s gets:\n", indent, to)
		x.Answer.print(w, indent+"   ")
	} else if x.Outcome == fateRefused {
		fmt.Fprintf(w, "%s   nobody is told, as nobody waits for an answer\n", indent)
	}
}

// noteOf says why r did nothing.
func noteOf(r ruleMet) string {
	if r.Missed != "" {
		return "no: it wants " + r.Missed
	}
	return "no: " + r.Note
}

// oneLine is a JSON text without line ends.
func oneLine(text string) string { return onOneLine(&Message{Raw: text, Newlines: true}) }

// printMet writes the limits and rules that x meets. Of what the proxy says itself those that have no effect are left out,
// and of many rules those that cannot have one.
func (x *Explanation) printMet(w io.Writer, indent string) {
	type row struct{ kind, name, text string }
	var rows []row
	for _, l := range x.Limits {
		text := "counts it"
		switch {
		case l.Over:
			text = "is over, for " + shownDuration(time.Duration(l.WaitMS*1e6))
		case !l.Counts:
			text = "does not count it: " + l.Note
		case x.Outcome == fateRefused && strings.HasPrefix(x.By, "limit "):
			text = "would count it"
		}
		rows = append(rows, row{"limit", l.Limit, text})
	}
	others := 0
	for _, r := range x.Rules {
		switch {
		case r.Did == nil && (x.Message == "" || r.early && len(x.Rules) > maxRulesShown):
			others += btoi(x.Message != "")
		case r.Did == nil:
			rows = append(rows, row{"rule", r.Rule, noteOf(r)})
		default:
			rows = append(rows, row{"rule", r.Rule, strings.Join(r.Did, "; ")})
		}
	}
	width := 0
	for i := range rows {
		rows[i].name = printable(rows[i].name, ruleNameWidth)
		width = max(width, utf8.RuneCountInString(rows[i].name))
	}
	for _, r := range rows {
		fmt.Fprintf(w, "%s%-5s %-*s  %s\n", indent, r.kind, width, r.name, printable(r.text, showWidth))
	}
	if others > 0 {
		fmt.Fprintf(w, "%sother rules: %d, not reached or for another dir, method or tool\n", indent, others)
	}
}

// String is d as in a rule file, nearly.
func (d *Demand) String() string {
	if d.Match != nil {
		return d.At.String() + " " + quote(d.Match.String())
	}
	return d.At.String() + " " + d.Value
}

// wants is what the condition of r demands.
func (r *Rule) wants(condition string, d *Demand) string {
	c := &r.When
	var list []string
	switch condition {
	case "dir":
		list = []string{c.Dir.String()}
	case "where":
		list = []string{d.String()}
	case "every":
		list = []string{strconv.FormatInt(c.Every, 10)}
	case "chance":
		list = []string{strconv.FormatFloat(*c.Chance, 'g', -1, 64)}
	case "first":
		list = []string{strconv.FormatInt(c.First, 10)}
	case "ip":
		for _, p := range c.IPs {
			list = append(list, p.String())
		}
	default:
		list = map[string][]string{"method": c.Methods, "tool": c.Tools, "prompt": c.Prompts, "uri": c.URIs, "user": c.Users,
			"session": c.Sessions, "transport": c.Transports, "revision": c.Revisions}[condition]
	}
	return condition + " " + strings.Join(list, ", ")
}
