// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The columns of showTape, all but the last: line, seconds, session, direction, kind, what, id, duration, size, way.
const (
	showColumns = "%6s %9s %3s %2s %-7s %-34s %-8s %8s %6s %-8s"
	showWidth   = 160 // of a line
)

// showTape prints a tape, one line a message, or the tape's own lines with o.JSON. What peers wrote is printed so that a
// terminal takes it as text.
func showTape(tape *TapeReader, w *bufio.Writer, o TapeToolOptions) error {
	tape.All = true
	if !o.JSON {
		fmt.Fprintln(w, shownHeader(tape.name, &tape.Header))
		fmt.Fprintf(w, showColumns+" %s\n", "seq", "seconds", "ses", "", "kind", "method and name", "id", "took", "size", "via", "content")
	}
	err := o.pick(tape, newCallBook(), func(l tapeLine) error {
		if o.JSON {
			_, err := w.Write(tape.line)
			return err
		}
		_, err := w.WriteString(strings.TrimRight(l.shown(), " ") + "\n")
		return err
	})
	if err == nil && !o.JSON {
		printWarnings(w, tape.Warnings())
	}
	return err
}

func printWarnings(w io.Writer, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintln(w, printable(warning, showWidth))
	}
}

func shownHeader(name string, h *TapeHeader) string {
	text := fmt.Sprintf("%s: recorded %s by mcpproxy %s, client on %s, server on %s", name,
		h.Created.UTC().Format("2006-01-02 15:04:05"), h.Program, h.Client, h.Server)
	if len(h.Redact) > 0 {
		text += ", redacted"
	}
	if h.Ring != "" {
		text += ", the last stretch, kept because of " + h.Ring
	}
	if h.Continues != "" {
		text += ", continues " + h.Continues
	}
	return printable(text, showWidth)
}

// shown is the line for people.
func (l tapeLine) shown() string {
	e, m := l.Entry, l.m
	kind, what, content, took := e.Kind, "", e.Text, ""
	size := len(e.Text)
	if e.Kind == lineMsg {
		kind, content = shownMessage(m)
		what, size = joined(m.Method, m.Name+m.URI), len(e.Msg)
	}
	switch {
	case e.Kind == lineDropped && e.Msg != "":
		content, size = e.Text+": "+e.Msg, len(e.Msg)
	case e.Kind == lineRule:
		what, size = "line "+strconv.FormatInt(e.Re, 10), 0
	case e.Kind == lineEnd:
		content = e.Counts
	case m.Kind == Response && l.call != nil:
		what = joined(l.call.method, l.call.name)
		if l.answered {
			took = shownDuration(e.T - l.call.t)
		}
	}
	arrow := map[string]string{dirToServer: "->", dirToClient: "<-"}[e.Dir]
	text := fmt.Sprintf(showColumns+" %s", strconv.FormatInt(e.Seq, 10), strconv.FormatFloat(e.T.Seconds(), 'f', 3, 64), nonZero(e.Session),
		arrow, printable(kind, 7), printable(what, 34), printable(m.ID, 8), took, nonZero(int64(size)),
		printable(strings.TrimSpace(e.Via+" "+nonZero(int64(e.Status))), 8), printable(marks(e), 60))
	// Characters are counted, not columns: one that takes two makes a line longer.
	return text + printable(content, max(showWidth-len([]rune(text)), 20))
}

// marks says what is out of the ordinary with a line.
func marks(e *Entry) string {
	var b strings.Builder
	if e.Local {
		b.WriteString("[local] ")
	}
	if e.Rule != "" {
		b.WriteString("[rule " + e.Rule + "] ")
	}
	if e.Was > 0 {
		fmt.Fprintf(&b, "[was %d] ", e.Was)
	}
	return b.String()
}

// shownMessage says what kind of message m is and what is in it.
func shownMessage(m *Message) (kind, content string) {
	switch {
	case m.Kind == Opaque:
		return "?", m.Raw
	case m.Kind == Notification:
		return "notify", m.Params
	case m.Kind == Call && (m.Name != "" || m.URI != ""):
		return "call", member(m.Params, "arguments")
	case m.Kind == Call:
		return "call", m.Params
	case m.Error != "":
		return "error", m.Error
	case isErrorResult(m):
		return "isError", m.Result
	}
	return "result", m.Result
}

// isErrorResult reports whether m says that a tool has failed.
func isErrorResult(m *Message) bool {
	return member(m.Result, "isError") == "true"
}

func joined(method, name string) string { return strings.TrimSuffix(method+" "+name, " ") }

func nonZero(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// printable returns s on one line of at most width characters, with escapes for all that a terminal might act on.
func printable(s string, width int) string {
	const dots = "..."
	var b strings.Builder
	n, fits := 0, 0 // characters so far; length of b where dots still fit
	for _, r := range s {
		text := string(r)
		if !strconv.IsPrint(r) {
			text = strings.Trim(strconv.QuoteRuneToASCII(r), "'")
		}
		size := 1
		if len(text) > 1 && text[0] == '\\' {
			size = len(text)
		}
		if n+size > width {
			return b.String()[:fits] + dots[:min(width, len(dots))]
		}
		b.WriteString(text)
		if n += size; n <= width-len(dots) {
			fits = b.Len()
		}
	}
	return b.String()
}

// shownDuration is d with three digits or a few more.
func shownDuration(d time.Duration) string {
	unit := 10 * time.Microsecond
	for d >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}
