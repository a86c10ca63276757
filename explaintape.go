// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxSeqs      = 20   // of lines, shown for each effect
	maxCallBytes = 1024 // of what is remembered of a call: what it asks for by name
)

// A TapeTrial says what rules and limits would have done to the traffic on a tape.
type TapeTrial struct {
	Tape     string        `json:"tape"`
	Messages int           `json:"messages"` // that were judged: those of clients and servers
	Calls    int           `json:"calls"`    // of clients, among them
	ByRules  int           `json:"refusedByRules"`
	ByLimits int           `json:"refusedByLimits"`
	Answered int           `json:"answered"` // in the stead of whom the message was for
	Changed  int           `json:"changed"`
	Delayed  int           `json:"delayed"`
	DelayMS  float64       `json:"delayMs"` // of all together
	Faults   int           `json:"faults"`
	Unmade   int           `json:"unmade"`  // messages of calls that would not have been made, not judged
	Effects  []*tapeEffect `json:"effects"` // of the limits and then the rules, in their order
	Unmet    []string      `json:"unmet"`   // names of rules without effect
	Notes    []string      `json:"notes,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`

	by        *explainer
	header    *TapeHeader
	calls     map[int64]*tapedCall // in flight, by the numbers of their lines
	full      bool                 // some did not find room there
	revisions map[int64]string     // that sessions agreed on
	effects   map[effectKey]*tapeEffect
	met       map[*Rule]bool
}

// A tapeEffect is what a rule or a limit would have done to messages.
type tapeEffect struct {
	effectKey
	Count int       `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Seqs  []int64   `json:"seqs"` // of the first lines on the tape
	place int       // of the limit or rule
}

// An effectKey says which messages count together.
type effectKey struct {
	By     string `json:"by"` // rule NAME or limit LIMIT
	Did    string `json:"did"`
	Method string `json:"method"` // of a response: that of its call
	Name   string `json:"name,omitempty"`
}

// A tapedCall is what is remembered of a call.
type tapedCall struct {
	PendingCall
	seqs    [2]int64 // of its lines
	stopped bool     // it would not have got to whom it is for
}

// tape is a [tapeTool] that says what rules and limits would have done.
func (e *explainer) tape(t *TapeReader, w *bufio.Writer, _ TapeToolOptions) error {
	r := &TapeTrial{
		Tape: t.name, Effects: []*tapeEffect{}, Unmet: []string{}, by: e, header: &t.Header, calls: map[int64]*tapedCall{},
		revisions: map[int64]string{}, effects: map[effectKey]*tapeEffect{}, met: map[*Rule]bool{},
	}
	if err := t.Each(func(entry *Entry) error { r.line(entry); return nil }); err != nil {
		return err
	}
	r.finish()
	r.Warnings = t.Warnings()
	if e.c.JSON {
		fmt.Fprintln(w, encodeJSON(r))
	} else {
		fmt.Fprintln(w, shownHeader(t.name, &t.Header))
		r.print(w)
	}
	if e.bad {
		return errFound
	}
	return nil
}

// line judges what the line e says that a client or a server sent. What rules made of that when it was recorded, and what
// the proxy said itself, is no part of it.
func (r *TapeTrial) line(e *Entry) {
	switch {
	case e.Kind == lineClose:
		delete(r.revisions, e.Session)
		return
	case e.Kind != lineMsg:
		return
	case e.Was != 0:
		if call := r.calls[e.Was]; call != nil && call.seqs[1] == 0 {
			call.seqs[1] = e.Seq
			r.calls[e.Seq] = call
		}
		return
	}
	m := tapeMessage(e)
	if e.Dir == dirToClient {
		m.Dir = ToClient
	}
	var call *tapedCall
	within := r.calls[e.X]
	if m.Kind == Response {
		call = r.calls[e.Re]
		r.retire(call)
	} else if m.Method == methodCancelled && m.Dir == ToServer {
		r.retire(within)
	}
	switch {
	case m.Kind == Opaque, e.Local && (m.Kind == Response || m.Dir == ToClient || m.Method == methodCancelled):
		return
	case call != nil && call.stopped, within != nil && within.stopped:
		r.Unmade++
		return
	}
	stopped := r.judge(e, r.tapeMeeting(e, m, call, within))
	if m.Kind == Call {
		r.book(e, m, stopped)
	}
}

// book remembers the call m until it is answered. What is kept shares no memory with the line.
func (r *TapeTrial) book(e *Entry, m *Message, stopped bool) {
	kept := &Message{Kind: Call, Dir: m.Dir, Method: strings.Clone(m.Method), Name: strings.Clone(m.Name), URI: strings.Clone(m.URI),
		Revision: strings.Clone(m.Revision)}
	if m.Method == methodComplete { // its params say what it is about
		kept.Raw = strings.Clone(m.Raw)
	}
	if len(r.calls) >= maxFollowed || len(kept.Method)+len(kept.Name)+len(kept.URI)+len(kept.Revision)+len(kept.Raw) > maxCallBytes {
		r.full = true
		return
	}
	r.calls[e.Seq] = &tapedCall{PendingCall: PendingCall{Message: kept}, seqs: [2]int64{e.Seq}, stopped: stopped}
}

// retire forgets call, which is over. It may be nil.
func (r *TapeTrial) retire(call *tapedCall) {
	if call != nil {
		delete(r.calls, call.seqs[0])
		delete(r.calls, call.seqs[1])
	}
}

// tapeMeeting is that of m, the message of the line e. call is the one that it answers, within the one in whose exchange
// it came; nil for none.
func (r *TapeTrial) tapeMeeting(e *Entry, m *Message, call, within *tapedCall) *meeting {
	if within != nil {
		m.Within = &within.PendingCall
	}
	if call != nil {
		m.Answers = &call.PendingCall
		if revision, ok := unquote(member(m.Result, "protocolVersion")); ok && call.Message.Method == methodInitialize && len(r.revisions) < maxFollowed {
			r.revisions[e.Session] = shorten(revision)
		}
	}
	s := &Session{User: r.by.c.User, revision: r.revisions[e.Session], Transient: r.header.Client == "http"}
	if s.Transient {
		s.id = nonZero(e.Session)
	}
	x := newMeeting(s, m)
	x.ip = r.by.c.IP
	return x
}

// judge counts what limits and rules would have done to x.m, and reports whether it would not have got to whom it is for.
func (r *TapeTrial) judge(e *Entry, x *meeting) (stopped bool) {
	came := x.m
	r.Messages++
	if came.Dir == ToServer && came.Kind != Response {
		r.Calls += btoi(came.Kind == Call)
		t := x.traffic()
		t.User = cmp.Or(t.User, "-")
		if !t.IP.IsValid() {
			t.IP = netip.IPv4Unspecified()
		}
		if short, _ := r.by.limiter.take(r.header.Created.Add(e.T), t); short != nil {
			place := slices.IndexFunc(r.by.limiter.tiers, func(one tier) bool { return one.Limit == short.Limit })
			r.effect(e, x, place, "limit "+short.String(), "refuses")
			r.ByLimits++
			r.by.bad = true
			return true
		}
	}
	v := ruling{m: came, trace: func(rule *Rule, what string) { r.ruled(e, x, rule, what) }}
	r.by.book.judge(x, &v)
	fate := v.fate(came)
	switch {
	case fate == fateTwice, isBad(fate) && v.by.Kind == actFault:
		r.Faults++
	case isBad(fate):
		r.ByRules++
	case fate == fateAnswered:
		r.Answered++
	case fate == fateChanged:
		r.Changed++
	}
	if v.delay > 0 {
		r.Delayed++
		r.DelayMS += float64(v.delay) / 1e6
	}
	r.by.bad = r.by.bad || isBad(fate)
	return isBad(fate) || fate == fateAnswered
}

// ruled counts what a rule would have done to x.m.
func (r *TapeTrial) ruled(e *Entry, x *meeting, rule *Rule, what string) {
	place := slices.Index(r.by.book.Rules, rule)
	if place < 0 {
		place = len(r.by.book.Rules) // the default
	}
	r.met[rule] = r.met[rule] || !strings.HasPrefix(what, notApplied)
	r.effect(e, x, len(r.by.limiter.tiers)+place, "rule "+rule.Name, what)
}

// effect counts one. Behind the first maxStatRows those of a limit or rule are summed up.
func (r *TapeTrial) effect(e *Entry, x *meeting, place int, by, did string) {
	key := effectKey{by, did, shorten(x.method()), shorten(x.name())}
	f := r.effects[key]
	if f == nil && len(r.effects) >= maxStatRows {
		key.Method, key.Name = otherNames, ""
		f = r.effects[key]
	}
	at := r.header.Created.Add(e.T)
	if f == nil {
		f = &tapeEffect{effectKey: key, First: at, place: place}
		r.effects[key] = f
		r.Effects = append(r.Effects, f)
	}
	f.Count++
	f.Last = at
	if len(f.Seqs) < maxSeqs {
		f.Seqs = append(f.Seqs, e.Seq)
	}
}

// finish brings in order what was counted, and says what is to be known about it.
func (r *TapeTrial) finish() {
	slices.SortStableFunc(r.Effects, func(a, b *tapeEffect) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.Did, b.Did), cmp.Compare(b.Count, a.Count))
	})
	note := func(is bool, text string) {
		if is {
			r.Notes = append(r.Notes, text)
		}
	}
	var user, ip, session, values bool
	for _, rule := range r.by.book.Rules {
		user, ip, session = user || rule.When.Users != nil, ip || rule.When.IPs != nil, session || rule.When.Sessions != nil
		values = values || rule.When.Where != nil || rule.Kind == actRequire || rule.Kind == actReplace
		if !r.met[rule] {
			r.Unmet = append(r.Unmet, rule.Name)
		}
	}
	asks := func(name string) bool {
		return slices.ContainsFunc(r.by.limiter.tiers, func(t tier) bool { return t.Tier == name })
	}
	note(r.by.c.User == "" && (user || asks("user")), "the tape does not tell who called: all count as one user, whom no rule names; see -user")
	note(!r.by.c.IP.IsValid() && (ip || asks("ip")), "the tape does not tell from where calls came: all count as one address, which no rule names; see -ip")
	note(session && r.header.Client == "http", "sessions are named by their numbers on the tape")
	note(values && len(r.header.Redact) > 0, "the tape is redacted: rules saw placeholders where values were taken out")
	note(r.full, "too many calls were in flight at once, or one had too long a name: rules took the answers to some for answers to none")
}

// print writes r for people.
func (r *TapeTrial) print(w io.Writer) {
	for _, text := range r.Notes {
		fmt.Fprintln(w, text)
	}
	totals := map[string]int{}
	for _, f := range r.Effects {
		totals[f.By+": "+f.Did] += f.Count
	}
	const stamp = "2006-01-02 15:04:05.000"
	last := ""
	for _, f := range r.Effects {
		if what := f.By + ": " + f.Did; what != last {
			fmt.Fprintf(w, "\n%s: %d\n", printable(what, showWidth), totals[what])
			last = what
		}
		fmt.Fprintf(w, "  %8d  %s\n", f.Count, printable(cmp.Or(joined(f.Method, f.Name), "(answers to no call)"), showWidth))
		fmt.Fprintf(w, "            from %s to %s UTC, seq", f.First.UTC().Format(stamp), f.Last.UTC().Format(stamp))
		for _, seq := range f.Seqs {
			fmt.Fprintf(w, " %d", seq)
		}
		if more := f.Count - len(f.Seqs); more > 0 {
			fmt.Fprintf(w, " and %d more", more)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	if len(r.Unmet) > 0 {
		fmt.Fprintf(w, "rules without effect: %s\n", printable(strings.Join(r.Unmet, ", "), showWidth))
	}
	if r.Unmade > 0 {
		fmt.Fprintf(w, "messages of calls that would not have been made, and were not judged: %d\n", r.Unmade)
	}
	printWarnings(w, r.Warnings)
	delay := strconv.FormatFloat(r.DelayMS/1000, 'f', -1, 64)
	fmt.Fprintf(w, "%d messages, %d calls: %d would be refused by rules, %d by limits, %d answered, %d changed, %d delayed (%s s), %d faults\n",
		r.Messages, r.Calls, r.ByRules, r.ByLimits, r.Answered, r.Changed, r.Delayed, delay, r.Faults)
}
