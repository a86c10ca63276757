// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// What becomes of a message.
const (
	fatePasses   = "passes"
	fateChanged  = "changed"
	fateAnswered = "answered" // in the stead of whom it was for
	fateRefused  = "refused"
	fateLost     = "lost"   // nobody is told
	fateBroken   = "broken" // a part of it goes on
)

// An Explanation says what rules and limits do to a message.
type Explanation struct {
	Message string     `json:"message,omitempty"` // its number on stdin; 2.1 is the first in the second array
	Line    int        `json:"line,omitempty"`    // of stdin, where it begins
	Kind    string     `json:"kind"`              // call, notification, response or none
	Dir     string     `json:"dir"`
	Method  string     `json:"method,omitempty"` // of a response: that of its call
	Name    string     `json:"name,omitempty"`   // of the tool or prompt, or the uri
	ID      string     `json:"id,omitempty"`     // JSON text
	Note    string     `json:"note,omitempty"`   // what is to be known about it
	Limits  []limitMet `json:"limits,omitempty"`
	Rules   []ruleMet  `json:"rules,omitempty"` // in the order in which they are met
	Outcome string     `json:"outcome"`
	By      string     `json:"by,omitempty"` // rule NAME or limit LIMIT, if it is one of them
	Why     string     `json:"why,omitempty"`
	DelayMS float64    `json:"delayMs,omitempty"`
	Twice   bool       `json:"twice,omitempty"`
	Leaves  string     `json:"leaves,omitempty"` // JSON text that goes on; "" for none
	// Answer is what is sent in the stead of a message that is refused or answered, nil for nothing.
	Answer *Explanation `json:"answer,omitempty"`

	ended string // name of the rule that was the last to be met, as it ends
}

// A limitMet is a limit that a message meets.
type limitMet struct {
	Limit  string  `json:"limit"`
	Counts bool    `json:"counts"` // it counts the message
	Over   bool    `json:"over,omitempty"`
	WaitMS float64 `json:"waitMs,omitempty"` // if Over: until the message would pass
	Note   string  `json:"note,omitempty"`   // why it does not count
}

// A ruleMet is a rule that a message meets.
type ruleMet struct {
	Rule   string   `json:"rule"`
	Line   int      `json:"line,omitempty"`   // of the rule file; 0 for what the rules do together
	Did    []string `json:"did,omitempty"`    // nothing if it does not concern the message
	Missed string   `json:"missed,omitempty"` // the condition that is not met
	Note   string   `json:"note,omitempty"`   // why else it did nothing
	early  bool     // for want of the right dir, method or tool, or as it is not reached
}

// An explainer says what rules and limits do to messages that go nowhere. One goroutine may use it at a time.
type explainer struct {
	book    *ruleBook
	limiter *Limiter
	c       *Config // says who sends them

	calls    map[string]*explainedCall // without answer yet, by canonical id
	revision string                    // that initialize agreed on
	count    int
	bad      bool // something was refused or lost
}

// An explainedCall is a call that may yet be answered.
type explainedCall struct {
	*Message
	number  string
	stopped bool // it would not get to whom it is for
}

func newExplainer(c *Config, set *RuleSet) *explainer {
	return &explainer{book: newRuleBook(set, nil), limiter: NewLimiter(c.Limits), c: c, calls: map[string]*explainedCall{}}
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
// be refused or lost.
func (e *explainer) messages(text string, w *bufio.Writer) error {
	s := scanner{text: text}
	line, counted := 1, 0
	i := s.space(0)
	for ; i < len(text); i = s.space(i) {
		end := s.value(i, -1, fieldNone)
		if s.fault != nil {
			break
		}
		line, counted = line+strings.Count(text[counted:i], "\n"), i
		e.count++
		if err := e.value(text[i:end], line, w); err != nil {
			return err
		}
		i = end
	}
	switch {
	case s.fault != nil:
		before := text[:s.fault.Offset]
		start := strings.LastIndexByte(before, '\n') + 1
		return errStdin(":%d:%d: %s", 1+strings.Count(before, "\n"), 1+utf8.RuneCountInString(before[start:]), s.fault.Reason)
	case e.count == 0:
		return errStdin(" is empty: want JSON-RPC messages, one after the other")
	case e.bad:
		return errFound
	}
	return nil
}

// value explains a JSON text of stdin: a message, or an array of them.
func (e *explainer) value(text string, line int, w *bufio.Writer) error {
	number := strconv.Itoa(e.count)
	texts := []string{text}
	batch := text[0] == '['
	if batch {
		var err error
		if texts, err = splitBatch(text, maxBatch); err != nil {
			return e.show(e.unreadable(err), number, line, w)
		}
	}
	for i, one := range texts {
		n := number
		if batch {
			n += "." + strconv.Itoa(i+1)
		}
		x := e.message(one, n)
		if batch && cmp.Or(e.c.Revision, e.revision) != batchRevision {
			x.Note = strings.TrimPrefix(x.Note+"; it is in an array, which is refused but in "+batchRevision, "; ")
		}
		if err := e.show(x, n, line, w); err != nil {
			return err
		}
	}
	return nil
}

// show prints x, the explanation of a message.
func (e *explainer) show(x *Explanation, number string, line int, w *bufio.Writer) error {
	if x.Message, x.Line = number, line; !e.c.JSON && number != "1" {
		w.WriteByte('\n')
	}
	e.bad = e.bad || isBad(x.Outcome)
	if e.c.JSON {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(x)
	}
	x.print(w, "")
	return nil
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
	m.Dir = e.direction()
	var call *explainedCall
	note := ""
	if m.Kind == Response {
		if e.c.Dir == "" {
			m.Dir = ToClient
		}
		key := canonicalID(m.ID)
		if call = e.calls[key]; call != nil {
			delete(e.calls, key)
			m.Dir, m.Answers = ToServer+ToClient-call.Dir, &PendingCall{Message: call.Message}
			if note = "it answers message " + call.number; call.stopped {
				note += ", which would not get there"
			}
			e.agree(m)
		} else {
			note = "it answers no call on stdin, and so is of no method"
		}
	}
	x := e.meeting(m)
	out := explanationOf(x)
	out.Note = note
	if !e.limits(x, out) {
		e.rules(x, out)
	}
	if m.Kind == Call && len(e.calls) < maxFollowed {
		e.calls[canonicalID(m.ID)] = &explainedCall{m, number, out.Outcome != fatePasses && out.Outcome != fateChanged}
	}
	return out
}

// direction is where calls and notifications go.
func (e *explainer) direction() Direction {
	if e.c.Dir == dirToClient {
		return ToClient
	}
	return ToServer
}

// agree notes the revision that m agrees on if it answers initialize.
func (e *explainer) agree(m *Message) {
	if revision, _ := unquote(member(m.Result, "protocolVersion")); m.Answers.Message.Method == methodInitialize {
		e.revision = revision
	}
}

// meeting is that of m, from or to the client that the user describes.
func (e *explainer) meeting(m *Message) *meeting {
	x := &meeting{m: m, call: m, dir: m.Dir, user: e.c.User, ip: e.c.IP, session: "-", transport: viaStdio, revision: e.c.Revision}
	if m.Kind == Response {
		if x.call = nil; m.Answers != nil {
			x.call = m.Answers.Message
		}
	}
	if x.user != "" || x.ip.IsValid() {
		x.session, x.transport = "", "http"
	}
	x.revision = cmp.Or(x.revision, m.Revision)
	if x.call != nil {
		x.revision = cmp.Or(x.revision, x.call.Revision)
	}
	x.revision = cmp.Or(x.revision, e.revision, newestSession)
	return x
}

// unreadable explains what is JSON but no message.
func (e *explainer) unreadable(err error) *Explanation {
	out := &Explanation{Kind: "none", Dir: e.direction().String(), Outcome: fateRefused, Why: err.Error()}
	if e.direction() == ToServer {
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
	out := &Explanation{Kind: kind, Dir: x.dir.String(), Method: x.method(), ID: x.m.ID}
	if x.call != nil {
		out.Name = cmp.Or(x.call.Name, x.call.URI)
	}
	return out
}

// limits explains which limits x meets and reports whether one of them refuses it.
func (e *explainer) limits(x *meeting, out *Explanation) (refused bool) {
	if x.dir != ToServer || x.m.Kind == Response {
		return false
	}
	t := Traffic{IP: x.ip, User: x.user, Session: "-", Method: x.m.Method, Name: cmp.Or(x.m.Name, x.m.URI)}
	short, wait := e.limiter.take(time.Time{}, t)
	for i := range e.limiter.tiers {
		r := &e.limiter.tiers[i]
		_, counts := e.limiter.find(i, &t)
		met := limitMet{Limit: r.String(), Counts: counts, Over: r == short}
		switch {
		case met.Over:
			met.WaitMS = float64(wait) / 1e6
			out.Outcome, out.By = fateRefused, "limit "+met.Limit
		case !counts && (r.Tier == "ip" || r.Tier == "user"):
			met.Note = "-" + r.Tier + " is not given"
		case !counts:
			met.Note = "another method or name"
		}
		out.Limits = append(out.Limits, met)
	}
	if short != nil {
		e.refused(x, out, overLimit(short.Tier, wait))
	}
	return short != nil
}

// refused says what is sent instead of x.m, which err refuses.
func (e *explainer) refused(x *meeting, out *Explanation, err *Error) {
	id, dir := x.m.ID, ToServer+ToClient-x.dir
	switch {
	case x.m.Kind == Response:
		m := err.answer(id)
		m.Dir = x.dir
		out.Answer = explanationOf(&meeting{m: m, call: x.call, dir: x.dir})
		out.Answer.Outcome, out.Answer.Leaves = fatePasses, m.Raw
		return
	case x.m.Kind == Notification && (x.dir == ToClient || x.transport == viaStdio):
		return // nobody waits
	}
	m := err.answer(id)
	if x.m.Kind == Call {
		m.Answers = &PendingCall{Message: x.m}
	}
	out.Answer = e.answer(m, dir)
}

// rules explains which rules x meets, and what comes of it.
func (e *explainer) rules(x *meeting, out *Explanation) {
	came := x.m
	v := ruling{m: x.m, trace: func(r *Rule, what string) { out.did(r, x, what) }}
	v.missed = func(r *Rule, condition string, d *Demand) {
		met := ruleMet{Rule: r.Name, Line: r.Line, early: condition == "dir" || condition == "method" || condition == "tool"}
		if condition == "dir" && r.When.Dir == nil {
			met.Note = "it has no dir, and so is not about responses"
		} else {
			met.Missed = r.wants(condition, d)
		}
		out.Rules = append(out.Rules, met)
	}
	e.book.judge(x, &v)
	out.fill(e.book, x.dir)
	out.DelayMS, out.Outcome = float64(v.delay)/1e6, v.fate(came)
	out.Twice = v.twice()
	if out.ended != "" && (isBad(out.Outcome) || out.Outcome == fateAnswered || out.Twice) {
		out.By = "rule " + out.ended
	}
	var refusal *Error
	switch errors.As(v.err, &refusal); {
	case refusal != nil:
		x.m = came // whose id it is
		e.refused(x, out, refusal)
	case v.err != nil:
		if out.Why = "nobody is told"; v.err.(*Loss).Cut {
			out.Why = "the connection to the client breaks"
		}
	case out.Outcome == fateAnswered:
		v.m.Answers = &PendingCall{Message: came}
		out.Answer = e.answer(v.m, v.m.Dir)
	default:
		out.Leaves = v.m.Raw
		if ruled := v.m.Ruled; ruled != nil && ruled.Rule != "" {
			out.By = "rule " + ruled.Rule
		}
	}
}

// twice reports whether what v judged goes on twice.
func (v *ruling) twice() bool { return v.err == nil && v.m.Ruled != nil && v.m.Ruled.Twice }

// fate is what becomes of came, which v judged.
func (v *ruling) fate(came *Message) string {
	var refusal *Error
	switch {
	case errors.As(v.err, &refusal):
		return fateRefused
	case v.err != nil:
		return fateLost
	case v.m.Dir != came.Dir:
		return fateAnswered
	case v.m.Ruled != nil && v.m.Ruled.Broken:
		return fateBroken
	case v.m.Raw != came.Raw:
		return fateChanged
	}
	return fatePasses
}

// fill adds the rules that left no trace: those that found nothing to change, and those that were not reached.
func (out *Explanation) fill(book *ruleBook, dir Direction) {
	met := out.Rules
	out.Rules = nil
	ended := false
	for i := range book.Rules {
		if dir == ToClient {
			i = len(book.Rules) - 1 - i
		}
		r := book.Rules[i]
		next := ruleMet{Rule: r.Name, Line: r.Line, Note: "nothing to " + r.Kind.String()}
		if ended {
			next.Note, next.early = "not reached", true
		} else if len(met) > 0 && met[0].Line > 0 && met[0].Rule == r.Name {
			next, met = met[0], met[1:]
			ended = next.Rule == out.ended
		}
		out.Rules = append(out.Rules, next)
	}
	out.Rules = append(out.Rules, met...) // what all of them do together
}

// did notes what a rule did with x.m.
func (out *Explanation) did(r *Rule, x *meeting, what string) {
	if r.Kind.ends() && what != unclearText {
		out.ended = r.Name
	}
	switch {
	case what == unclearText:
		what = "not applied: " + what
	case what == "require":
		for i := range r.Demands {
			if !r.Demands[i].all(x.m.Raw) {
				what += ": not so: " + r.Demands[i].String()
				break
			}
		}
	case r.Line == 0 && r.Kind == actRemove:
		what = "taken out of the list, as it may not be asked for"
	}
	if n := len(out.Rules); n > 0 && out.Rules[n-1].Rule == r.Name && out.Rules[n-1].Line == r.Line {
		out.Rules[n-1].Did = append(out.Rules[n-1].Did, what)
		return
	}
	out.Rules = append(out.Rules, ruleMet{Rule: r.Name, Line: r.Line, Did: []string{what}})
}
