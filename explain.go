// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// What becomes of a message.
const (
	fatePasses   = "passes"
	fateChanged  = "changed"
	fateAnswered = "answered" // in the stead of whom it was for
	fateRefused  = "refused"
	fateLost     = "lost"   // nobody is told
	fateBroken   = "broken" // a part of it goes on
	fateTwice    = "goes on twice"
)

// An Explanation says what rules and limits do to a message.
type Explanation struct {
	Message string  `json:"message,omitempty"` // its number on stdin; 2.1 is the first in the second array
	Line    int     `json:"line,omitempty"`    // of stdin, where it begins
	Kind    string  `json:"kind"`              // call, notification, response or none
	Dir     string  `json:"dir"`
	Method  string  `json:"method,omitempty"` // of a response: that of its call
	Name    string  `json:"name,omitempty"`   // of the tool or prompt, or the uri
	ID      string  `json:"id,omitempty"`     // JSON text
	Note    string  `json:"note,omitempty"`   // what is to be known about it
	Met     []met   `json:"met,omitempty"`    // in this order
	Outcome string  `json:"outcome"`
	By      string  `json:"by,omitempty"` // rule NAME or limit LIMIT, if it is one of them
	Why     string  `json:"why,omitempty"`
	DelayMS float64 `json:"delayMs,omitempty"`
	Twice   bool    `json:"twice,omitempty"`
	Leaves  string  `json:"leaves,omitempty"` // JSON text that goes on; "" for none
	// Answer is what is sent in the stead of a message that is refused or answered, nil for nothing.
	Answer *Explanation `json:"answer,omitempty"`
}

// A met is a limit or a rule that a message meets, and what comes of that.
type met struct {
	By    string   `json:"by"`             // limit LIMIT or rule NAME
	Line  int      `json:"line,omitempty"` // of the rule file; 0 for a limit and the default
	Did   []string `json:"did,omitempty"`  // nothing if it does not concern the message
	Not   string   `json:"not,omitempty"`  // why it did nothing
	early bool     // for want of the right dir, method or tool, or as it is not reached
}

// An explainer says what rules and limits do to messages that go nowhere. One goroutine may use it at a time.
type explainer struct {
	book    *ruleBook
	limiter *Limiter
	c       *Config // says who sends them

	s     *Session                  // in which they travel
	calls map[string]*explainedCall // without answer yet, by canonical id
	count int
	bad   bool // something was refused or lost
}

// An explainedCall is a call that may yet be answered.
type explainedCall struct {
	PendingCall
	number  string
	stopped bool // it would not get to whom it is for
}

func newExplainer(c *Config, set *RuleSet) *explainer {
	return &explainer{book: newRuleBook(set, nil), limiter: NewLimiter(c.Limits), c: c, s: &Session{User: c.User}, calls: map[string]*explainedCall{}}
}

// runExplain does what -mode=explain asks for.
func runExplain(ctx context.Context, c *Config, std stdio) error {
	set := &RuleSet{}
	if c.Rules != "" {
		var err error
		if set, _, err = readRules(c.Rules); err != nil {
			return fmt.Errorf("-rules: %w", err)
		}
	}
	e := newExplainer(c, set)
	if c.Tape == "" {
		text, err := readAll(ctx, std.in, c.MaxMessage)
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(std.out, lineBuffer)
		err = e.messages(text, w)
		return cmp.Or(w.Flush(), err)
	}
	f, err := openTape(c.Tape)
	if err != nil {
		return err
	}
	defer f.Close()
	defer closeOn(ctx, f)()
	err = tapeTool(e.tape).run(f, c.Tape, std.out, TapeToolOptions{JSON: c.JSON, Max: longestLine(c)})
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// errStdin is misuse that shows on stdin only.
func errStdin(format string, args ...any) error {
	return &UsageError{[]string{"stdin" + fmt.Sprintf(format, args...)}, "see: mcpproxy help explain"}
}

// readAll reads in to its end, unless that is farther than max bytes or ctx ends before.
func readAll(ctx context.Context, in io.Reader, max int) (text string, err error) {
	var data []byte
	done := make(chan error, 1)
	go func() { // a read of stdin cannot be interrupted: at worst it ends with the program
		var err error
		data, err = io.ReadAll(io.LimitReader(in, int64(max)+1))
		done <- err
	}()
	select {
	case <-ctx.Done():
		return "", errInterrupted
	case err = <-done:
	}
	if err == nil && len(data) > max {
		err = errStdin(": more than %d bytes: see -max-message", max)
	}
	return string(data), err
}

// messages explains those in text. The error is a *[UsageError] if some of it is not JSON, and errFound if a message would
// be refused or lost. That w fails shows when it is flushed.
func (e *explainer) messages(text string, w *bufio.Writer) error {
	s := scanner{text: text}
	line, counted := 1, 0
	for i := s.space(0); i < len(text); i = s.space(i) {
		from := i
		if i = s.skip(i); s.fault != nil {
			line, column := lineColumn(text, s.fault.Offset)
			return errStdin(":%d:%d: %s", line, column, s.fault.Reason)
		}
		line, counted = line+strings.Count(text[counted:from], "\n"), from
		e.count++
		e.value(text[from:i], line, w)
	}
	switch {
	case e.count == 0:
		return errStdin(" is empty: want JSON-RPC messages, one after the other")
	case e.bad:
		return errFound
	}
	return nil
}

// value explains a JSON text of stdin: a message, or an array of them.
func (e *explainer) value(text string, line int, w *bufio.Writer) {
	number := strconv.Itoa(e.count)
	if text[0] != '[' {
		e.show(e.message(text, number), number, line, w)
		return
	}
	texts, err := splitBatch(text, maxBatch)
	if err != nil {
		e.show(e.unreadable(err), number, line, w)
	}
	for i, one := range texts {
		inner := number + "." + strconv.Itoa(i+1)
		x := e.message(one, inner)
		if cmp.Or(e.c.Revision, e.s.Revision()) != batchRevision {
			x.Note = strings.TrimPrefix(x.Note+"; it is in an array, which is refused but in "+batchRevision, "; ")
		}
		e.show(x, inner, line, w)
	}
}

// show prints x, the explanation of a message.
func (e *explainer) show(x *Explanation, number string, line int, w *bufio.Writer) {
	x.Message, x.Line = number, line
	e.bad = e.bad || isBad(x.Outcome)
	if e.c.JSON {
		fmt.Fprintln(w, encodeJSON(x))
		return
	}
	if number != "1" && number != "1.1" {
		w.WriteByte('\n')
	}
	x.print(w, "")
}

// isBad reports whether something does not get to whom it is for, nor is there an answer that was asked for.
func isBad(outcome string) bool {
	return outcome == fateRefused || outcome == fateLost || outcome == fateBroken
}

// message explains one message.
func (e *explainer) message(text, number string) *Explanation {
	m, err := Parse(text)
	if err != nil {
		return e.unreadable(err)
	}
	m.Dir, _ = parseDirection(e.c.Dir) // without -dir to the server
	note := ""
	if m.Kind == Response {
		note = e.answers(m)
	}
	x := e.meeting(m)
	out := explanationOf(x)
	out.Note = note
	if !e.limits(x, out) {
		e.rules(x, out)
	}
	if m.Kind == Call && len(e.calls) < maxFollowed {
		e.calls[canonicalID(m.ID)] = &explainedCall{PendingCall{Message: m}, number, out.Outcome != fatePasses && out.Outcome != fateChanged}
	}
	return out
}

// answers finds the call that the response m answers, gives m its direction, and says which call it is.
func (e *explainer) answers(m *Message) (note string) {
	key := canonicalID(m.ID)
	call := e.calls[key]
	if call == nil {
		if e.c.Dir == "" {
			m.Dir = ToClient
		}
		return "it answers no call on stdin, and so is of no method"
	}
	delete(e.calls, key)
	m.Dir, m.Answers = ToServer+ToClient-call.Message.Dir, &call.PendingCall
	e.s.agree(m)
	note = "it answers message " + call.number
	if call.stopped {
		note += ", which would not get there"
	}
	return note
}

// meeting is that of m, from or to the client that the user describes.
func (e *explainer) meeting(m *Message) *meeting {
	m.Revision = cmp.Or(e.c.Revision, m.Revision)
	if e.c.User != "" || e.c.IP.IsValid() {
		m.Origin = &Origin{IP: e.c.IP}
	}
	x := newMeeting(e.s, m)
	x.revision = cmp.Or(x.revision, newestSession)
	return x
}

// unreadable explains what is JSON but no message.
func (e *explainer) unreadable(err error) *Explanation {
	m := &Message{}
	m.Dir, _ = parseDirection(e.c.Dir)
	out := &Explanation{Kind: "unreadable", Dir: m.Dir.String(), Outcome: fateRefused, Why: err.Error()}
	if m.Dir == ToServer {
		refusal := parseRefusal(err)
		out.Answer = e.answer(refusal.answer(refusal.ID), ToClient)
	}
	return out
}

// answer explains what the proxy says to one side in the stead of the other. Only what goes to the client meets rules.
func (e *explainer) answer(m *Message, dir Direction) *Explanation {
	m.Dir = dir
	x := e.meeting(m)
	out := explanationOf(x)
	if dir == ToClient {
		e.rules(x, out)
	} else {
		out.Outcome, out.Leaves = fatePasses, m.Raw
	}
	return out
}

// explanationOf says what x.m is.
func explanationOf(x *meeting) *Explanation {
	kind := [...]string{Call: "call", Notification: "notification", Response: "response"}[x.m.Kind]
	return &Explanation{Kind: kind, Dir: x.dir.String(), Method: x.method(), Name: x.name(), ID: x.m.ID}
}

// traffic is x.m as limits see it.
func (x *meeting) traffic() Traffic {
	return Traffic{IP: x.ip, User: x.user, Session: cmp.Or(x.session, "-"), Method: x.m.Method, Name: x.name()}
}

// limits explains which limits x meets and reports whether one of them refuses it.
func (e *explainer) limits(x *meeting, out *Explanation) (refused bool) {
	if x.dir != ToServer || x.m.Kind == Response {
		return false
	}
	t := x.traffic()
	short, wait := e.limiter.take(time.Time{}, t)
	for i := range e.limiter.tiers {
		r := &e.limiter.tiers[i]
		now := met{By: "limit " + r.String()}
		_, counts := e.limiter.find(i, &t)
		switch {
		case r == short:
			now.Did = []string{"is over, for " + shownDuration(wait)}
			out.Outcome, out.By = fateRefused, now.By
		case counts && short != nil:
			now.Not = "refused calls do not count"
		case counts:
			now.Did = []string{"counts it"}
		case r.Tier == "ip" || r.Tier == "user":
			now.Not = "-" + r.Tier + " is not given"
		default:
			now.Not = "it is for another method or name"
		}
		out.Met = append(out.Met, now)
	}
	if short != nil {
		e.refused(x, out, overLimit(short.Tier, wait))
	}
	return short != nil
}

// refused says what is sent instead of x.m, which err refuses.
func (e *explainer) refused(x *meeting, out *Explanation, err *Error) {
	if x.m.Kind == Notification && (x.dir == ToClient || x.transport == viaStdio) {
		return // nobody waits
	}
	m := err.answer(x.m.ID)
	switch x.m.Kind {
	case Response: // what goes on in its place has met the rules
		m.Dir, m.Answers = x.dir, x.m.Answers
		out.Answer = explanationOf(e.meeting(m))
		out.Answer.Outcome, out.Answer.Leaves = fatePasses, m.Raw
		return
	case Call:
		m.Answers = &PendingCall{Message: x.m}
	}
	out.Answer = e.answer(m, ToServer+ToClient-x.dir)
}

// rules explains which rules x meets, and what comes of it.
func (e *explainer) rules(x *meeting, out *Explanation) {
	came := x.m
	v := e.judge(x, out)
	out.DelayMS, out.Outcome = float64(v.delay)/1e6, v.fate(came)
	switch ruled := v.m.Ruled; {
	case out.Outcome == fateChanged:
		out.By = "rule " + ruled.Rule
	case out.Outcome != fatePasses:
		out.By = "rule " + v.by.Name
	}
	switch failure := v.err.(type) {
	case *Error:
		x.m = came // whose id it is
		e.refused(x, out, failure)
		return
	case *Loss:
		if out.Why = "nobody is told"; failure.Cut {
			out.Why = "the connection to the client breaks"
		}
		return
	}
	if out.Outcome == fateAnswered {
		v.m.Answers = &PendingCall{Message: came}
		out.Answer = e.answer(v.m, v.m.Dir)
	} else {
		out.Leaves = v.m.Raw
	}
}

// judge is [ruleBook.judge], with a word about each rule.
func (e *explainer) judge(x *meeting, out *Explanation) *ruling {
	var now *met
	v := &ruling{m: x.m}
	v.trace = func(r *Rule, what string) {
		if now == nil {
			out.Met = append(out.Met, met{By: "rule " + r.Name, Line: r.Line, Did: []string{what}})
			return
		}
		now.Did, now.Not = append(now.Did, what), ""
	}
	v.missed = func(r *Rule, condition string) {
		now.Not, now.early = "it wants "+condition+" "+r.When.texts[condition], condition == "dir" || condition == "method" || condition == "tool"
		if condition == "dir" && r.When.Dirs == nil {
			now.Not = "it has no dir, and so is not about responses"
		}
	}
	for _, r := range e.book.order[x.dir] {
		next := met{By: "rule " + r.Name, Line: r.Line, Not: "not reached", early: true}
		if v.by == nil {
			next.Not, next.early = "nothing to "+r.Kind.String(), false
			now = &next
			e.book.meet(x, v, r)
		}
		out.Met = append(out.Met, next)
	}
	now = nil
	e.book.conclude(x, v)
	return v
}

// fate is what becomes of came, which v judged.
func (v *ruling) fate(came *Message) string {
	switch v.err.(type) {
	case *Error:
		return fateRefused
	case *Loss:
		return fateLost
	}
	switch {
	case v.m.Dir != came.Dir:
		return fateAnswered
	case v.m.broken():
		return fateBroken
	case v.m.twice():
		return fateTwice
	case v.m.Raw != came.Raw:
		return fateChanged
	}
	return fatePasses
}
