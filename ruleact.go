// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// apply does what r says with x.m, whose conditions it meets.
func (v *ruling) apply(x *meeting, r *Rule) {
	switch r.Kind {
	case actAllow:
		v.trace(r, "allow")
	case actDeny:
		v.refuse(x, r, "deny")
	case actRequire:
		if slices.ContainsFunc(r.Demands, func(d Demand) bool { return !d.all(x.m.Raw) }) {
			v.refuse(x, r, "require")
		} else {
			v.trace(r, "require: fulfilled")
		}
	case actSet, actRemove, actReplace:
		v.edit(x, r)
	case actAnswer:
		v.answer(x, r)
	case actDelay:
		v.delay += r.Delay
		v.trace(r, "delay "+r.Delay.String())
	case actFault:
		v.fault(x, r)
	case actLog:
		v.trace(r, "log "+r.Text)
	case actTag:
		v.note(r, "tag "+r.Text)
	}
}

// note keeps what does not show in the message.
func (v *ruling) note(r *Rule, what string) {
	v.trace(r, what)
	v.notes = append(v.notes, RuleNote{r.Name, what})
}

// refuse ends the way of x.m with an error that has the text of the rule.
func (v *ruling) refuse(x *meeting, r *Rule, what string) {
	e := &Error{Code: 403, Status: 200, Text: cmp.Or(r.Text, "refused by a rule")}
	if x.m.Kind != Call && x.dir == ToServer { // "If the server cannot accept the input, it MUST return an HTTP error status code"
		e.Status = 403
	}
	v.fail(e, r, what)
}

func (v *ruling) fail(e *Error, r *Rule, what string) {
	v.note(r, what)
	e.Rule, e.Cause = r.Name, fmt.Errorf("rule %q: %s", r.Name, what)
	v.err = e
}

// edit changes x.m.
func (v *ruling) edit(x *meeting, r *Rule) {
	text, count, odd := x.m.Raw, 0, false
	step := func(next string, n int, unclear bool) {
		text, count, odd = next, count+n, odd || unclear
	}
	for _, a := range r.Set {
		step(a.At.set(text, a.Value))
	}
	for _, at := range r.Remove {
		step(at.remove(text))
	}
	if r.Replace != nil {
		step(r.Replace.replace(text, r.In))
	}
	if odd {
		v.trace(r, unclearText)
	}
	if text != x.m.Raw {
		v.become(x, r, text)
	}
}

// become makes text of x.m, unless that would be no message of its kind.
func (v *ruling) become(x *meeting, r *Rule, text string) {
	m, err := Parse(text)
	if err != nil || m.Kind != x.m.Kind {
		v.trace(r, "not applied: it would leave no message: "+fmt.Sprint(err))
		return
	}
	v.trace(r, r.Kind.String())
	v.m = x.m.changed(m, r.Name)
	if x.call == x.m {
		x.call = v.m
	}
	x.m = v.m
}

// answer puts what r says in the server's stead, or in that of the client if the server asks. A response gets other
// contents, and a notification, which nobody answers, is lost.
func (v *ruling) answer(x *meeting, r *Rule) {
	if x.m.Kind == Notification {
		v.lose(x, r, "answer", false)
		return
	}
	body := `"error":` + r.Failure
	if r.Failure == "" {
		result := r.Result
		if x.call == x.m && x.dir == ToServer || x.m.Kind == Response && x.dir == ToClient && x.call != nil {
			info := `{"name":"mcpproxy","version":"` + version + `"}`
			result = resultFor(x.call.Method, result, info, isStateless(x.revision))
		}
		body = `"result":` + result
	}
	m, err := Parse(`{"jsonrpc":"2.0","id":` + x.m.ID + "," + body + "}")
	if err != nil { // the file was checked, and ids too
		v.fail(&Error{Code: 500, Status: 200, Text: "refused by a rule"}, r, "answer")
		return
	}
	if x.m.Kind == Response {
		v.trace(r, "answer")
		v.m = x.m.changed(m, r.Name)
		return
	}
	v.note(r, "answer")
	m.Dir, m.Local, m.Ruled = ToServer+ToClient-x.dir, true, &Ruled{Rule: r.Name}
	v.m = m
}

// fault breaks something.
func (v *ruling) fault(x *meeting, r *Rule) {
	what := "fault " + r.Fault
	switch r.Fault {
	case faultDrop, faultDisconnect:
		v.lose(x, r, what, r.Fault == faultDisconnect)
	case faultTimeout:
		v.failOrLose(x, r, what, &Error{Code: 504, Text: "call took too long"})
	case faultError:
		what += ":" + strconv.Itoa(r.Code)
		v.failOrLose(x, r, what, &Error{Code: r.Code, Status: 200, Text: "injected error"})
	case faultDuplicate:
		v.note(r, what)
		v.m = x.m.ruled()
		v.m.Ruled.Twice = true
	case faultMalformed:
		v.note(r, what)
		v.cuts = r
	}
}

// failOrLose refuses what can be refused.
func (v *ruling) failOrLose(x *meeting, r *Rule, what string, e *Error) {
	if x.m.Kind == Notification {
		v.lose(x, r, what, false)
		return
	}
	v.fail(e, r, what)
}

// lose lets x.m vanish.
func (v *ruling) lose(x *meeting, r *Rule, what string, cut bool) {
	v.note(r, what)
	v.err = &Loss{Cut: cut, Cause: fmt.Errorf("rule %q: %s", r.Name, what)}
}

// ruled returns a copy of m with a Ruled of its own.
func (m *Message) ruled() *Message {
	copied := *m
	copied.Ruled = &Ruled{}
	if m.Ruled != nil {
		*copied.Ruled = *m.Ruled
	}
	return &copied
}

// came is m as its peer sent it.
func (m *Message) came() *Message {
	if m.Ruled != nil && m.Ruled.Was != nil {
		return m.Ruled.Was
	}
	return m
}

// changed returns next, which the rule called name made of m, with all that m has beside its JSON.
func (m *Message) changed(next *Message, name string) *Message {
	next.Dir, next.More, next.Last, next.Local, next.Resumed = m.Dir, m.More, m.Last, m.Local, m.Resumed
	next.Stream, next.Origin, next.Reply, next.Answers, next.Within = m.Stream, m.Origin, m.Reply, m.Answers, m.Within
	next.own, next.Refusal = m.own, m.Refusal
	if m.Event != nil {
		event := *m.Event
		event.Frame = "" // which has the text as it came
		next.Event = &event
	}
	next.Ruled = &Ruled{Was: m, Rule: name}
	if before := m.Ruled; before != nil {
		*next.Ruled = *before
		next.Ruled.Rule = before.Rule + ", " + name
		if before.Was == nil && before.Rule == "" {
			next.Ruled.Was, next.Ruled.Rule = m, name
		}
	}
	return next
}
