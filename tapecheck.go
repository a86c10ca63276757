// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A TapeVerdict is what checkTape has found. Calls without answer that are nobody's fault are counted by their reason.
type TapeVerdict struct {
	Lines, Messages  int64
	Errors, Warnings int64
	Cancelled        int64 // by the client or the proxy
	Listening        int64 // subscriptions/listen, which may go on for ever
	Left             int64 // of a session that the client ended
}

// A tapeFinding is one thing that is wrong with a tape.
type tapeFinding struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Seq      int64  `json:"seq,omitempty"`
	Severity string `json:"severity"`
	What     string `json:"what"`
}

const (
	severityError   = "error"
	severityWarning = "warning"
)

// How far the handshake of a session is.
const (
	stageNew = iota
	stageAsked
	stageAnswered
	stageReady // or nothing to be said about it
)

// A checkedSession is a session of the tape that is open.
type checkedSession struct {
	stage     int
	stateless bool
	calls     map[int64]*tapeCall // in flight, by Seq
}

// A checkKey names an id or a progress token: the hash of its canonical form, in its session and the direction of its
// call.
type checkKey struct {
	session int64
	dir     string
	hash    uint64
}

// A tapeChecker holds what is in flight while it goes through a tape.
type tapeChecker struct {
	json     bool
	out      *bufio.Writer
	tape     *TapeReader
	verdict  TapeVerdict
	book     *callBook
	sessions map[int64]*checkedSession // 0 is there from the start
	ids      map[checkKey]*tapeCall    // of calls in flight, and of those in the book that may be answered late
	tokens   map[checkKey]*tapeCall
	first    int64 // Seq
	gaps     bool  // messages passed that are not on the tape: what seems to be wrong may have a reason there
	faults   bool  // a rule broke something, which may be the reason
}

// checkTape prints what is wrong with a tape, one line each, and a summary unless o.JSON: with the tape as a file
// (checksum, end), with its messages as JSON-RPC, and with what client and server did as MCP. An error is what the
// protocol forbids or the format excludes, a warning what has an innocent explanation.
func checkTape(tape *TapeReader, w *bufio.Writer, o TapeToolOptions) (TapeVerdict, error) {
	c := &tapeChecker{json: o.JSON, out: w, tape: tape, book: newCallBook(),
		sessions: map[int64]*checkedSession{0: {stage: stageReady, calls: map[int64]*tapeCall{}}},
		ids:      map[checkKey]*tapeCall{}, tokens: map[checkKey]*tapeCall{},
		gaps: tape.Header.Ring != "" || tape.Header.Continues != ""}
	err := tape.Each(c.line)
	if err == nil {
		c.end()
	}
	return c.verdict, err
}

// report prints a finding about the line that was read last.
func (c *tapeChecker) report(e *Entry, severity, format string, args ...any) {
	c.finding(tapeFinding{c.tape.name, c.tape.Line, e.Seq, severity, fmt.Sprintf(format, args...)})
}

func (c *tapeChecker) finding(f tapeFinding) {
	if f.Severity == severityError && (c.gaps || c.faults) {
		f.Severity = severityWarning
		f.What += " (perhaps because not all that passed is on the tape, or because of a fault that a rule made)"
	}
	if f.Severity == severityError {
		c.verdict.Errors++
	} else {
		c.verdict.Warnings++
	}
	if c.json {
		json.NewEncoder(c.out).Encode(f)
		return
	}
	seq := ""
	if f.Seq > 0 {
		seq = fmt.Sprintf("seq %d: ", f.Seq)
	}
	fmt.Fprintf(c.out, "%s:%d: %s%s: %s\n", f.File, f.Line, seq, f.Severity, f.What)
}

func (c *tapeChecker) line(e *Entry) error {
	if c.first == 0 {
		c.first = e.Seq
	}
	if e.Kind != lineEnd {
		c.verdict.Lines++
	}
	if max(e.X, e.Re, e.Was) >= e.Seq {
		c.report(e, severityError, "x, re or was is not the seq of an earlier line")
	}
	switch e.Kind {
	case lineOpen:
		c.open(e)
	case lineClose:
		c.close(e)
	case lineBlind:
		c.gaps = true
	case lineRule:
		if e.Re == 0 {
			c.report(e, severityError, "a rule line without re")
		}
		c.faults = c.faults || strings.HasPrefix(e.Text, actFault.String()+" ")
	case lineDropped:
		if m, err := Parse(e.Msg); err == nil && m.Kind == Response && e.Text == answersNoCall { // others have a line before
			c.response(e, m, c.session(e))
		}
	case lineMsg:
		c.verdict.Messages++
		m, err := Parse(e.Msg)
		if err != nil {
			c.report(e, severityError, "no message of JSON-RPC: %s", printable(err.Error(), showWidth))
			return nil
		}
		c.message(e, m)
	}
	return nil
}

func (c *tapeChecker) open(e *Entry) {
	if e.Session == 0 {
		c.report(e, severityError, "an open without session")
	} else if c.sessions[e.Session] != nil {
		c.report(e, severityError, "session %d is open already", e.Session)
	} else {
		c.addSession(e.Session, stageNew)
	}
}

// addSession returns the new session n, or that of all without one if there are too many.
func (c *tapeChecker) addSession(n int64, stage int) *checkedSession {
	if len(c.sessions) >= maxFollowed {
		c.book.full = true
		return c.sessions[0]
	}
	s := &checkedSession{stage: stage, calls: map[int64]*tapeCall{}}
	c.sessions[n] = s
	return s
}

// session returns the session of e.
func (c *tapeChecker) session(e *Entry) *checkedSession {
	if s := c.sessions[e.Session]; s != nil {
		return s
	}
	if !c.gaps && !c.book.full {
		c.report(e, severityWarning, "a message of session %d, which is not open", e.Session)
	}
	return c.addSession(e.Session, stageReady)
}

func (c *tapeChecker) close(e *Entry) {
	s := c.sessions[e.Session]
	if s == nil || e.Session == 0 {
		if !c.gaps && !c.book.full {
			c.report(e, severityError, "a close of session %d, which is not open", e.Session)
		}
		return
	}
	for _, call := range inOrder(s.calls) {
		switch e.Text {
		case errGone.Error(), errDeleted.Error():
			c.excuse(call, &c.verdict.Left, 1)
		case errShutdown.Error(), errIdle.Error(), errLifetime.Error():
			c.unanswered(call, severityWarning, ": "+e.Text)
		default:
			c.unanswered(call, severityError, " before its session ended: "+printable(e.Text, maxShown))
		}
		c.retire(call)
	}
	delete(c.sessions, e.Session)
}

// inOrder returns calls by Seq.
func inOrder(calls map[int64]*tapeCall) []*tapeCall {
	return slices.SortedFunc(maps.Values(calls), func(a, b *tapeCall) int { return cmp.Compare(a.seq, b.seq) })
}

func (c *tapeChecker) unanswered(call *tapeCall, severity, why string) {
	if call.method == methodListen {
		c.verdict.Listening++
		return
	}
	c.finding(tapeFinding{c.tape.name, call.line, call.seq, severity, call.String() + " was never answered" + why})
}

// excuse adds n to the calls whose answer nobody waits for.
func (c *tapeChecker) excuse(call *tapeCall, reason *int64, n int64) {
	if call.method == methodListen {
		reason = &c.verdict.Listening
	}
	*reason += n
}

// String names a call for people.
func (t *tapeCall) String() string {
	return printable(joined(t.method, t.name), 60) + " id " + printable(t.id, 24)
}

// retire takes a call out of the books. What may still refer to it, its Seq, and the id of one that the server did not
// answer, stays for a while.
func (c *tapeChecker) retire(call *tapeCall) {
	if s := c.sessions[call.session]; s != nil {
		delete(s.calls, call.seq)
	}
	if !call.cancelled && !call.local {
		c.forget(c.ids, call, call.idHash)
	}
	c.forget(c.tokens, call, call.token)
	if old := c.book.retire(call); old != nil {
		c.forget(c.ids, old, old.idHash)
	}
}

// forget deletes what stands in names for call.
func (c *tapeChecker) forget(names map[checkKey]*tapeCall, call *tapeCall, hash uint64) {
	if key := (checkKey{call.session, call.dir, hash}); names[key] == call {
		delete(names, key)
	}
}

// end judges the tape as a whole.
func (c *tapeChecker) end() {
	last := cmp.Or(c.tape.Ended, &Entry{})
	for _, n := range slices.Sorted(maps.Keys(c.sessions)) {
		for _, call := range inOrder(c.sessions[n].calls) {
			switch { // the end of a tape that another continues comes while sessions are open
			case c.tape.Ended == nil:
				c.unanswered(call, severityWarning, " before the tape broke off")
			case call.stateless && n == 0:
				c.unanswered(call, severityWarning, " on this tape; its client may have gone, which cancels it")
			default:
				c.unanswered(call, severityWarning, " on this tape")
			}
		}
		if n > 0 && c.tape.Ended != nil {
			c.report(last, severityWarning, "session %d was not closed", n)
		}
	}
	if c.book.full {
		c.report(last, severityWarning, "more than %d calls in flight, or open sessions, at once: not all could be checked", maxFollowed)
	}
	c.gaps, c.faults = false, false
	switch {
	case c.tape.Torn:
		c.report(last, severityWarning, "the next line broke off and does not count: the recording was ended by force, or goes on")
	case c.tape.Ended == nil:
		c.report(last, severityWarning, "no end: the recording was cut short, or goes on")
	case c.tape.Altered:
		c.report(last, severityError, "the checksum differs: the tape was changed after it was recorded")
	}
	if !c.json {
		fmt.Fprintln(c.out, c.tape.name+": "+c.verdict.String())
	}
}

// String is a summary for people.
func (v TapeVerdict) String() string {
	text := fmt.Sprintf("%d lines, %d messages: %d errors, %d warnings", v.Lines, v.Messages, v.Errors, v.Warnings)
	if v.Cancelled+v.Listening+v.Left > 0 {
		text += fmt.Sprintf("; without answer, as they may be: %d cancelled, %d %s, %d of a session that the client ended",
			v.Cancelled, v.Listening, methodListen, v.Left)
	}
	return text
}
