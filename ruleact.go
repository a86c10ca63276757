// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// apply does what r says with x.m, which meets its conditions.
func (v *ruling) apply(x *meeting, r *Rule) {
	if r.Kind.ends() {
		v.by = r
	}
	switch r.Kind {
	case actAllow:
		v.trace(r, "allow")
	case actDeny:
		v.refuse(x, r, "deny")
	case actRequire:
		if i := slices.IndexFunc(r.Demands, func(d Demand) bool { return !d.all(x.m.Raw) }); i >= 0 {
			v.refuse(x, r, "require: not so: "+r.Demands[i].At.String())
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
		v.trace(r, joined("log", r.Text))
	case actTag:
		v.note(r, "tag "+r.Text)
	}
}

// note traces what r does, and keeps it for the tape, as it does not show in the message.
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

// fail ends the way of a message with e, which r brings about.
func (v *ruling) fail(e *Error, r *Rule, what string) {
	v.note(r, what)
	e.Rule, e.Cause = r.Name, fmt.Errorf("rule %q: %s", r.Name, what)
	v.by, v.err = r, e
}

// edit does what r sets, removes or replaces. Of several paths those that are not odd are followed.
func (v *ruling) edit(x *meeting, r *Rule) {
	text, odd := x.m.Raw, false
	step := func(next string, unclear bool) { text, odd = next, odd || unclear }
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
		v.trace(r, notApplied+unclearText+", or it would add more than 16 MiB")
	}
	if text != x.m.Raw {
		v.become(x, text, r.Kind.String(), r)
	}
}

// become makes text of x.m, which is what rules do, unless that would be no message of its kind.
func (v *ruling) become(x *meeting, text, what string, rules ...*Rule) {
	m, err := Parse(text)
	if err != nil || m.Kind != x.m.Kind {
		what = notApplied + "it would leave no message"
		m = nil
	}
	var names []string
	for _, r := range rules {
		v.trace(r, what)
		names = append(names, r.Name)
	}
	if m != nil {
		v.m = x.m.changed(m, strings.Join(names, ", "))
		if x.call == x.m {
			x.call = v.m
		}
		x.m = v.m
	}
}

// answer puts what r says in the server's stead, or in that of the client if the server asks. A response gets other
// contents, and a notification, which nobody answers, is lost.
func (v *ruling) answer(x *meeting, r *Rule) {
	if x.m.Kind == Notification {
		v.lose(r, "answer", false)
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

// fault breaks something. A notification has no answer that could be an error, so it is lost.
func (v *ruling) fault(x *meeting, r *Rule) {
	what, e := "fault "+r.Fault, &Error{Code: 504, Text: "call took too long"}
	if r.Fault == faultError {
		what, e = fmt.Sprintf("%s:%d", what, r.Code), &Error{Code: r.Code, Status: 200, Text: "injected error"}
	}
	switch {
	case r.Fault == faultDuplicate:
		v.note(r, what)
		v.m = x.m.ruled()
		v.m.Ruled.Twice = true
	case r.Fault == faultMalformed:
		v.note(r, what) // the rest is for conclude, as half a message is none that a list could be found in
	case r.Fault == faultDrop, r.Fault == faultDisconnect, x.m.Kind == Notification:
		v.lose(r, what, r.Fault == faultDisconnect)
	default:
		v.fail(e, r, what)
	}
}

// lose lets a message vanish.
func (v *ruling) lose(r *Rule, what string, cut bool) {
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

// twice reports whether m is to be sent twice.
func (m *Message) twice() bool { return m.Ruled != nil && m.Ruled.Twice }

// broken reports whether m is not whole.
func (m *Message) broken() bool { return m.Ruled != nil && m.Ruled.Broken }

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
	next.own, next.due, next.Refusal = m.own, m.due, m.Refusal
	if m.Event != nil {
		event := *m.Event
		event.Frame = "" // which has the text as it came
		next.Event = &event
	}
	next.Ruled = &Ruled{Was: m, Rule: name}
	if before := m.Ruled; before != nil {
		*next.Ruled = *before
		if next.Ruled.Rule = name; before.Rule != "" {
			next.Ruled.Rule = before.Rule + ", " + name
		}
		next.Ruled.Was = m.came()
	}
	return next
}
