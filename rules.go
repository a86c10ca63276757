// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Rules apply the rules of a file to messages: their Intercept is an interceptor. Towards the server the rules are met in
// the order of the file, towards the client in reverse. The exported fields are set before the first message. Make them
// with NewRules or OpenRules; they may be used concurrently, also while other rules are put in place.
type Rules struct {
	Log    *slog.Logger
	Report bool // log what rules would do, and do nothing
	// Noted, if not nil, hears of what rules did with m that does not show in what becomes of it.
	Noted func(s *Session, m *Message, notes []RuleNote)

	book atomic.Pointer[ruleBook]
}

// A RuleNote is what a rule did with a message.
type RuleNote struct {
	Rule string // its name
	What string // the word of its action, and what comes to it: fault drop, tag slow
}

// Ruled is what rules did with a message that goes on, for those who see it after them.
type Ruled struct {
	Was    *Message   // as it came, or as a rule made it; nil if it is not changed
	Rule   string     // names of the rules that changed or made it
	Notes  []RuleNote // of a message to the server: those that do not show otherwise
	Twice  bool       // it is to be sent twice
	Broken bool       // Raw is not whole, and so no JSON
	line   int64      // of a message to the client on the tape, as it came; 0 if it is not there
}

// A ruleBook is a rule file in use. It is not changed.
type ruleBook struct {
	*RuleSet
	order  [2][]*Rule            // by direction: as a message that goes there meets them
	last   *Rule                 // behind all others, which counts where the default is to deny
	counts map[string]*ruleCount // by the names of rules
	hides  bool                  // a list may have to be shortened
	guards bool                  // something may be denied on its way to the client
	byCall bool                  // what becomes of a response may depend on its call
}

// newRuleBook counts on from last, which may be nil, where names of rules are the same.
func newRuleBook(set *RuleSet, last *ruleBook) *ruleBook {
	b := &ruleBook{RuleSet: set, counts: map[string]*ruleCount{}, hides: set.Deny}
	b.last = &Rule{Name: "default", Action: Action{Kind: actDeny, Text: "not allowed"}}
	b.order = [2][]*Rule{ToServer: set.Rules, ToClient: slices.Clone(set.Rules)}
	slices.Reverse(b.order[ToClient])
	for _, r := range set.Rules {
		b.hides = b.hides || r.Kind == actDeny
		if c := &r.When; c.Dirs == nil || slices.Contains(c.Dirs, ToClient) {
			b.guards = b.guards || r.Kind == actDeny || r.Kind == actRequire
			b.byCall = b.byCall || c.Methods != nil || c.Tools != nil || c.Prompts != nil || c.URIs != nil
		}
		if last != nil && last.counts[r.Name] != nil {
			b.counts[r.Name] = last.counts[r.Name]
			continue
		}
		b.counts[r.Name] = &ruleCount{seed: rand.Uint64()}
		if r.When.Seed != nil {
			b.counts[r.Name].seed = *r.When.Seed
		}
	}
	return b
}

// NewRules returns the rules of a file that has been read.
func NewRules(set *RuleSet, log *slog.Logger) *Rules {
	r := &Rules{Log: log}
	r.Put(set)
	return r
}

// Put puts other rules in place of those that are there. Rules of the same name go on counting. It may not be called
// concurrently with itself.
func (r *Rules) Put(set *RuleSet) { r.book.Store(newRuleBook(set, r.book.Load())) }

// A ruling is what rules make of a message.
type ruling struct {
	m     *Message      // what goes on
	err   error         // why it does not
	delay time.Duration // until either
	notes []RuleNote    // that do not show in m or err
	by    *Rule         // the one that ended it, so that m meets no other; nil if none did
	// trace hears what a rule does; if that begins with notApplied, why it does nothing although it concerns m.
	trace  func(rule *Rule, what string)
	missed func(rule *Rule, condition string) // if not nil, hears of which condition m did not meet
}

// Intercept applies the rules to m.
func (r *Rules) Intercept(_ context.Context, s *Session, m *Message) (*Message, error) {
	book := r.book.Load()
	if m.Refusal != nil || len(book.Rules) == 0 && !book.Deny {
		return m, nil // a rule that loses responses must not lose the proxy's own word that one is late
	}
	if m.Kind == Opaque || m.Resumed && m.Kind == Response && m.Answers == nil && (book.hides || book.byCall) {
		return r.unknown(book, m)
	}
	if m.Dir == ToServer && m.Origin != nil && isStateless(revisionOf(m, m.Origin.Header)) {
		// A server, or what stands before it, may go by the headers.
		if err := new(paramTable).check(m.Origin.Header, m); err != nil && !r.Report {
			return nil, &Error{Code: codeHeader, Status: 400, Text: err.Error()}
		}
	}
	x := newMeeting(s, m)
	v := ruling{m: m, trace: func(rule *Rule, what string) { r.logged(x, rule, what) }}
	book.judge(x, &v)
	if r.Report {
		return m, nil
	}
	if len(v.notes) > 0 {
		if m.Dir == ToServer && v.err == nil && v.m.Dir == ToServer { // what records messages is yet to see it
			v.m = v.m.ruled()
			v.m.Ruled.Notes = v.notes
		} else if r.Noted != nil {
			r.Noted(s, m, v.notes)
		}
	}
	if v.delay > 0 {
		return nil, &Hold{v.delay, v.m, v.err}
	}
	return v.m, v.err
}

// unknown passes what no rule can judge: bytes that are no message, and a response that comes again after its call is over,
// of which rules ask. Where a rule might deny it, it is refused.
func (r *Rules) unknown(b *ruleBook, m *Message) (*Message, error) {
	empty := m.Kind == Opaque && m.Raw == "" && (m.Event == nil || m.Event.Data == "") ||
		m.Reply != nil && m.Reply.Status/100 != 2 // no client takes that for an answer
	if empty {
		return m, nil
	}
	refuses := !r.Report && (m.Kind == Response || b.guards || b.hides)
	r.Log.Warn("rules cannot judge what the server sent", "refused", refuses)
	if refuses {
		return nil, &Error{Code: 502, Text: "the answer cannot be judged", Rule: "default"}
	}
	return m, nil
}

// logged says what a rule did, or would do.
func (r *Rules) logged(x *meeting, rule *Rule, what string) {
	level, text := slog.LevelDebug, "rule applied"
	why, not := strings.CutPrefix(what, notApplied)
	switch {
	case r.Report:
		level, text = slog.LevelInfo, "rule would apply"
	case not:
		level, text, what = slog.LevelWarn, "rule not applied", why
	case rule.Kind == actFault || rule.Kind == actLog || rule.Kind == actTag:
		level = slog.LevelInfo
	}
	if !r.Log.Enabled(context.Background(), level) {
		return
	}
	r.Log.Log(context.Background(), level, text, "rule", rule.Name, "what", what, "method", x.method(), "name", x.name(), "dir", x.dir.String(),
		"session", x.session[:min(6, len(x.session))], "user", x.user) // the id is a secret, so only its start
}

const (
	notApplied  = "not applied: "
	unclearText = "a path meets what it cannot lead through, or a key that is there twice or in another case"
)

// judge applies the rules to x.m, from where v begins.
func (b *ruleBook) judge(x *meeting, v *ruling) {
	for _, r := range b.order[x.dir] {
		if b.meet(x, v, r); v.by != nil {
			break
		}
	}
	b.conclude(x, v)
}

// meet applies one rule to x.m.
func (b *ruleBook) meet(x *meeting, v *ruling, r *Rule) {
	if !r.concerns(x) {
		v.miss(r, "dir")
		return
	}
	found, missed := r.When.holds(x)
	if found == holds {
		found, missed = r.When.where(x), "where"
	}
	if found == holds {
		if missed = b.counts[r.Name].takes(&r.When); missed != "" {
			found = fails
		}
	}
	switch {
	case found == fails:
		v.miss(r, missed)
	case found == holds:
		v.apply(x, r)
	case r.Kind == actDeny || r.Kind == actRequire:
		v.refuse(x, r, r.Kind.String()+": cannot be judged: "+unclearText)
	default:
		v.trace(r, notApplied+unclearText)
	}
}

// miss says why r does not concern a message.
func (v *ruling) miss(r *Rule, condition string) {
	if v.missed != nil {
		v.missed(r, condition)
	}
}

// conclude does to x.m what is the matter of no single rule: it denies what none has ended, shortens
// lists, and last cuts in half what is to be malformed.
func (b *ruleBook) conclude(x *meeting, v *ruling) {
	if b.Deny && v.by == nil && x.m.Kind != Response {
		v.refuse(x, b.last, "deny")
	}
	if b.hides && v.err == nil && x.dir == ToClient && x.m.Kind == Response {
		b.hide(x, v)
	}
	if v.by != nil && v.err == nil && v.by.Fault == faultMalformed {
		half := *v.m
		half.Raw = half.Raw[:len(half.Raw)/2]
		v.m = v.m.changed(&half, v.by.Name)
		v.m.Ruled.Broken = true
	}
}
