// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	maxMetShown = 20 // else only those that a message of this dir, method and tool may meet
	metWidth    = 38 // of a limit or the name of a rule
)

// print writes x for people, each line behind indent.
func (x *Explanation) print(w io.Writer, indent string) {
	if x.Message != "" {
		what := joined(x.Kind, joined(x.Method, x.Name))
		if x.ID != "" {
			what += ", id " + x.ID
		}
		fmt.Fprintf(w, "%smessage %s (line %d): %s, %s\n", indent, x.Message, x.Line, printable(what, showWidth), x.Dir)
		indent += "  "
	}
	if x.Note != "" {
		fmt.Fprintf(w, "%s%s\n", indent, x.Note)
	}
	x.printMet(w, indent)
	leaves := printable(onOneLine(&Message{Raw: x.Leaves, Newlines: true}), math.MaxInt)
	if x.Message == "" && x.Outcome == fatePasses {
		fmt.Fprintf(w, "%s%s\n", indent, leaves)
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
	fmt.Fprintf(w, "%s=> %s\n", indent, printable(text, showWidth))
	if x.Leaves != "" {
		fmt.Fprintf(w, "%s   %s\n", indent, leaves)
	}
	if x.Answer != nil {
		fmt.Fprintf(w, "%s   the %s gets:\n", indent, strings.TrimPrefix(x.Answer.Dir, "to-"))
		x.Answer.print(w, indent+"   ")
	} else if x.Outcome == fateRefused {
		fmt.Fprintf(w, "%s   nobody is told, as nobody waits for an answer\n", indent)
	}
}

// printMet writes the limits and rules that x meets. Of what the proxy says itself those that have no effect are left out,
// and of many those that cannot have one.
func (x *Explanation) printMet(w io.Writer, indent string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	others := 0
	for _, m := range x.Met {
		switch {
		case m.Did == nil && x.Message == "":
		case m.Did == nil && m.early && len(x.Met) > maxMetShown:
			others++
		default:
			text := cmp.Or(strings.Join(m.Did, "; "), "no: "+m.Not)
			fmt.Fprintf(t, "%s%s\t%s\n", indent, printable(m.By, metWidth), printable(text, showWidth))
		}
	}
	t.Flush()
	if others > 0 {
		fmt.Fprintf(w, "%sother rules: %d, not reached or for another dir, method or tool\n", indent, others)
	}
}
