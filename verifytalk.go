// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A verifyTalk is a live conversation that goes as a recorded session did.
type verifyTalk struct {
	v      *verifier
	number int64 // of the session
	plan   *verifyPlan
	era    string // of the recorded session
	live   string // of the server
	meta   string // JSON text of the members of _meta that each call has in the stateless era, if it is not that of the tape

	s      *Session // nil while there is none
	conn   *verifyConn
	shaken bool     // the handshake was made
	hello  *Message // the answer to one that is not on the tape
	ids    int64
	level  string // of log messages, that a call in another era asked for
	gone   string // why the rest of the session is not sent; "" if it is

	used     map[*verifyLine]bool // requests of the server that came again
	changes  map[string]int       // how often the server said outside of any call that a list changed, less how often on the tape
	patience time.Duration        // for that
	skipped  bool                 // a call was not made, and what it would have changed does not change
	open     []*verifyExchange    // subscriptions
	carried  *carriedValues
	lost     map[string]bool    // opaque values from answers to calls that were not made
	pending  map[int64]*Message // live answers to recorded calls that another one took part of; by seq
	checks   []*VerifyCheck
}

// running is a live call.
type running struct {
	id       string // JSON text
	check    *VerifyCheck
	exchange *verifyExchange
	heard    []heardMessage
	response *Message            // once it has come
	told     int                 // what the client said during it
	asked    map[string][]string // recorded answers by method, for a server that asks during the call what it asked in its answer
}

// heardMessage is what the server said during a call.
type heardMessage struct {
	method string
	known  bool // it is a request that is on the tape
}

// talk makes a conversation for what is on the tape in era. It is not begun.
func (v *verifier) talk(plan *verifyPlan, era string) *verifyTalk {
	return &verifyTalk{
		v: v, plan: plan, era: era, used: map[*verifyLine]bool{}, changes: map[string]int{}, patience: strayPatience,
		carried: newCarriedValues(v.same), lost: map[string]bool{}, pending: map[int64]*Message{},
	}
}

// session plays one recorded session.
func (v *verifier) session(ctx context.Context, s *verifySession) error {
	t := v.talk(v.plan(s), s.era)
	t.number = s.number
	var err error
	for _, step := range t.plan.steps {
		switch {
		case err != nil:
		case step.exchange == nil && step.line.dir == ToServer:
			err = t.tell(ctx, step.line)
		case step.exchange == nil:
			err = t.expect(ctx, step.line)
		case step.line == nil:
			err = t.call(ctx, step.exchange)
		case step.exchange.run != nil:
			err = t.unsubscribe(ctx, step.exchange)
		}
	}
	if err == nil {
		err = t.hangUp(ctx)
	}
	t.close()
	for _, c := range t.checks {
		t.finish(c)
	}
	v.report.Carried += t.carried.count()
	return err
}

// connect begins a conversation, if there is none, in the era that the server speaks.
func (t *verifyTalk) connect(ctx context.Context) (err error) {
	if t.s != nil || t.gone != "" {
		return nil
	}
	if t.live, err = t.v.speaks(ctx, t.era); err != nil {
		return err
	}
	if err := t.dial(ctx); err != nil {
		t.gone = err.Error()
	}
	return nil
}

func (t *verifyTalk) dial(ctx context.Context) error {
	t.conn = &verifyConn{wake: make(chan struct{}, 1)}
	s, err := t.v.proxy.Open(ctx, t.conn, "", false)
	t.s, t.shaken = s, false
	return err
}

// hangUp ends the conversation when all has come that is to come.
func (t *verifyTalk) hangUp(ctx context.Context) error {
	for _, x := range slices.Clone(t.open) {
		if err := t.unsubscribe(ctx, x); err != nil {
			return err
		}
	}
	t.close()
	return nil
}

// close ends the conversation and waits for that.
func (t *verifyTalk) close() {
	if t.s == nil {
		return
	}
	t.s.leave(errGone)
	t.s.server.Close()
	t.v.proxy.Sessions.End(t.s, errGone)
	t.v.proxy.Sessions.Wait()
	t.s = nil
}

// begin sends a call. The answer comes by await.
func (t *verifyTalk) begin(ctx context.Context, method, params string, run *running) {
	t.ids++
	run.id = strconv.FormatInt(t.ids, 10)
	text := `{"jsonrpc":"2.0","id":` + run.id + `,"method":` + quote(method)
	if params != "" {
		text += `,"params":` + params
	}
	t.send(ctx, text+"}")
}

// send passes a message to the server. What becomes of it comes back as a message.
func (t *verifyTalk) send(ctx context.Context, text string) {
	m, err := Parse(text)
	if err != nil {
		t.v.o.Log.Warn("message not sent", "error", err)
		return
	}
	t.v.proxy.ToServer(ctx, t.s, m)
}

// await takes in what the server says until enough reports true, and sends meanwhile what the client said during the
// recorded exchange. The error is that of ctx; errClosed when nothing can come any more.
func (t *verifyTalk) await(ctx context.Context, run *running, enough func() bool) error {
	for {
		for x := run.exchange; x != nil && run.told < len(x.told) && len(run.heard) >= x.told[run.told].after; {
			line := x.told[run.told].line
			run.told++
			if line.method == methodCancelled && x.run == nil { // else it ends later
				t.cancel(ctx, run)
				return nil
			}
			if err := t.tell(ctx, line); err != nil {
				return err
			}
		}
		if enough() {
			return nil
		}
		m, err := t.conn.next(ctx)
		if err != nil {
			return err
		}
		if err := t.take(ctx, m, run); err != nil {
			return err
		}
	}
}

// cancel ends a live call as its client ended the recorded one.
func (t *verifyTalk) cancel(ctx context.Context, run *running) {
	t.send(ctx, `{"jsonrpc":"2.0","method":"`+methodCancelled+`","params":{"requestId":`+run.id+`}}`)
}

// take takes in one message of the server, while current is the call in flight.
func (t *verifyTalk) take(ctx context.Context, m *Message, current *running) error {
	owner := (*running)(nil)
	of := func(id string) {
		if id == current.id {
			owner = current
		}
		for _, x := range t.open {
			if x.run.id == id {
				owner = x.run
			}
		}
	}
	switch {
	case m.Kind == Response:
		if of(m.ID); owner != nil {
			owner.response = m
		}
		return nil
	case m.Within != nil:
		of(m.Within.Message.ID)
	}
	if m.Kind == Call {
		return t.question(ctx, m, owner)
	}
	if owner != nil {
		owner.heard = append(owner.heard, heardMessage{m.Method, true})
	} else if isListChange(m.Method) {
		t.changes[m.Method]++
	}
	return nil
}

// question answers a request of the server as the recorded client answered one like it: one in the same exchange, else
// any other that has not come again yet.
func (t *verifyTalk) question(ctx context.Context, m *Message, owner *running) error {
	if m.Method == methodPing {
		t.send(ctx, `{"jsonrpc":"2.0","id":`+m.ID+`,"result":{}}`)
		return nil
	}
	if owner != nil && len(owner.asked[m.Method]) > 0 {
		owner.heard = append(owner.heard, heardMessage{m.Method, true})
		t.send(ctx, `{"jsonrpc":"2.0","id":`+m.ID+`,"result":`+owner.asked[m.Method][0]+`}`)
		owner.asked[m.Method] = owner.asked[m.Method][1:]
		return nil
	}
	line, was, err := t.recorded(m.Method, owner)
	if err != nil {
		return err
	}
	if owner != nil {
		owner.heard = append(owner.heard, heardMessage{m.Method, line != nil})
	}
	if line == nil {
		if owner == nil {
			t.extra(m.Method)
		}
		t.send(ctx, (&Error{Code: codeMethodNotFound, Text: "no answer to this is on the tape"}).answer(m.ID).Raw)
		return nil
	}
	t.used[line] = true
	if owner != nil && owner.exchange != nil && slices.Contains(owner.exchange.said, line) {
		at := Pointer{"requests", strconv.Itoa(slices.Index(owner.exchange.said, line)), "params"}
		t.compare(owner.check, at, decodeJSON(was.Params), decodeJSON(t.v.redacted(m).Params))
	}
	answer := t.plan.answers[line.seq]
	if answer == nil {
		return nil // the recorded client gave none either
	}
	a, err := t.v.message(answer)
	if err != nil {
		return err
	}
	member, value := `,"result":`, a.Result
	if a.Error != "" {
		member, value = `,"error":`, a.Error
	}
	t.send(ctx, `{"jsonrpc":"2.0","id":`+m.ID+member+t.carried.apply(value)+`}`)
	return nil
}

// recorded finds a request of the server on the tape that has not come again yet, and that may be the one that came during
// owner: one of the same exchange, else one whose exchange is not certain.
func (t *verifyTalk) recorded(method string, owner *running) (found *verifyLine, was *Message, err error) {
	var own *verifyExchange
	lists := [][]*verifyLine{t.plan.questions}
	if owner != nil && owner.exchange != nil {
		own = owner.exchange
		lists = [][]*verifyLine{own.said, t.plan.questions}
	}
	for i, list := range lists {
		for _, l := range list {
			certain := i == len(lists)-1 && own != nil && l.x != 0 && !own.together && method != "roots/list"
			if l.kind != Call || certain || t.used[l] {
				continue
			}
			if was, err = t.v.message(l); err != nil || was.Method == method {
				return l, was, err
			}
		}
	}
	return nil, nil, nil
}

// extra notes that the server asked something, outside of any call, that it did not ask so on the tape. What it asked in
// another session, it asks in its own time: the recorded client may have been gone by then.
func (t *verifyTalk) extra(method string) {
	if !t.v.stray[method] && !slices.ContainsFunc(t.checks, func(c *VerifyCheck) bool { return c.Seq == 0 && c.Method == method }) {
		t.checks = append(t.checks, &VerifyCheck{Session: t.number, Method: method, extra: []string{"a request of the server outside of any call"}})
	}
}

// strayPatience is how long a client waits in a session for what belongs to no call.
const strayPatience = 5 * time.Second

// expect waits until the server says what it said on the tape, outside of any call, before the client went on.
func (t *verifyTalk) expect(ctx context.Context, l *verifyLine) error {
	t.changes[l.method]--
	if t.s == nil || t.gone != "" || t.patience <= 0 || t.skipped && l.kind != Call {
		return nil
	}
	began := time.Now()
	patient, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	err := t.await(patient, &running{check: &VerifyCheck{}}, func() bool {
		if l.kind == Call {
			return t.used[l]
		}
		return t.changes[l.method] >= 0
	})
	t.patience -= time.Since(began)
	if err == errClosed || patient.Err() != nil {
		return ctx.Err()
	}
	return err
}

// tell sends what the client said, as far as the server's era has it. A cancellation of a call that is not on the tape
// cancels nothing.
func (t *verifyTalk) tell(ctx context.Context, l *verifyLine) error {
	if l.kind != Notification || l.local || l.method == methodCancelled {
		return nil
	}
	m, err := t.v.message(l)
	if err == nil {
		err = t.connect(ctx)
	}
	if err != nil || t.gone != "" {
		return err
	}
	if t.live != t.era {
		switch m.Method {
		case methodInitialized, "notifications/roots/list_changed":
			return nil // part of the handshake, or not in that era
		}
	}
	if err := t.shake(ctx); err != nil || t.gone != "" {
		return err
	}
	text := `{"jsonrpc":"2.0","method":` + quote(m.Method)
	if m.Params != "" {
		text += `,"params":` + t.carried.apply(m.Params)
	}
	t.send(ctx, text+"}")
	return nil
}

// call makes a recorded call again and compares the answer.
func (t *verifyTalk) call(ctx context.Context, x *verifyExchange) error {
	m, err := t.v.message(x.call)
	if err != nil {
		return err
	}
	check := &VerifyCheck{Seq: x.call.seq, Session: t.number, Method: t.v.report.word(m.Method), Name: t.v.report.word(selectorOf(m))}
	t.checks = append(t.checks, check)
	if err := t.skips(x, m, check); err != nil || check.failed != "" {
		return err
	}
	if t.live == eraSession && m.Method == methodInitialize && t.shaken { // another client's, without a session id
		if err := t.hangUp(ctx); err != nil {
			return err
		}
	}
	if err := t.connect(ctx); err != nil {
		return err
	}
	began := time.Now()
	defer func() { check.Took = time.Since(began) }()
	if t.gone == "" && m.Method != methodInitialize {
		if err := t.shake(ctx); err != nil {
			return err
		}
	}
	if t.gone != "" {
		check.failed, check.Reason = outcomeMissing, t.gone
		return nil
	}
	run := &running{check: check, exchange: x}
	if t.era != t.live {
		return t.bridged(ctx, m, run)
	}
	if m.Method == methodInitialize {
		t.shaken = true
	}
	if err := t.exchange(ctx, m.Method, t.carried.apply(m.Params), run); err != nil || m.Method == methodListen {
		return err
	}
	return t.answered(m, run, x)
}

// exchange makes a call and waits for the answer; of a subscription only for the first that it says.
func (t *verifyTalk) exchange(ctx context.Context, method, params string, run *running) error {
	x := run.exchange
	if method == methodListen {
		x.run = run
		t.open = append(t.open, x)
		t.begin(ctx, method, params, run)
		return t.patiently(ctx, func(ctx context.Context) error {
			return t.await(ctx, run, func() bool { return run.response != nil || len(run.heard) >= min(1, len(x.said)) })
		})
	}
	t.begin(ctx, method, params, run)
	err := t.await(ctx, run, func() bool { return run.response != nil })
	if err == errClosed {
		err = nil
	}
	if t.s.Ended() {
		t.gone = "server is gone"
		var e *Error
		if errors.As(t.s.Reason(), &e) && e.Exit != "" {
			t.gone += ": " + e.Exit
		}
	}
	return err
}

// patiently runs f for as long as a call may take. It is no error if that is over.
func (t *verifyTalk) patiently(ctx context.Context, f func(context.Context) error) error {
	patient, cancel := ctx, context.CancelFunc(func() {})
	if t.v.o.Timeout > 0 {
		patient, cancel = context.WithTimeout(ctx, t.v.o.Timeout)
	}
	defer cancel()
	if err := f(patient); err != nil && err != errClosed && patient.Err() == nil {
		return err
	}
	return ctx.Err()
}

// unsubscribe waits until as much came on a subscription as is on the tape, and ends it.
func (t *verifyTalk) unsubscribe(ctx context.Context, x *verifyExchange) error {
	run := x.run
	err := t.patiently(ctx, func(ctx context.Context) error {
		return t.await(ctx, run, func() bool { return run.response != nil || len(run.heard) >= len(x.said) })
	})
	if err == nil && run.response == nil {
		t.cancel(ctx, run)
	}
	t.open = slices.DeleteFunc(t.open, func(other *verifyExchange) bool { return other == x })
	if err == nil {
		err = t.sequence(run)
	}
	if r := run.response; r != nil && r.Refusal != nil {
		run.check.failed, run.check.Reason = outcomeMissing, r.Refusal.Text
	} else if r != nil && r.Error != "" {
		run.check.diffs = append(run.check.diffs, Difference{Pointer{"error"}, absent{}, decodeJSON(t.v.redacted(r).Error)})
	}
	x.run = nil
	return err
}

// answered compares the answer to run with the recorded one of the exchange x.
func (t *verifyTalk) answered(m *Message, run *running, x *verifyExchange) error {
	check, live := run.check, run.response
	if err := t.sequence(run); err != nil {
		return err
	}
	switch {
	case x.ended && live == nil:
		return nil // as then: nobody waits for an answer
	case live == nil:
		check.failed, check.Reason = outcomeMissing, "no answer"
	case live.Refusal != nil && live.Refusal.Code == 504:
		check.failed, check.Reason = outcomeTimeout, fmt.Sprintf("no answer and no progress within %v", t.v.o.Timeout)
	case live.Refusal != nil:
		check.failed, check.Reason = outcomeMissing, live.Refusal.Text
		if live.Refusal.Exit != "" {
			check.Reason += ": " + live.Refusal.Exit
		}
	case x.response == nil:
		check.diffs = append(check.diffs, Difference{Pointer{"result"}, absent{}, "an answer, before the client cancelled the call"})
	default:
		was, err := t.v.message(x.response)
		if err != nil {
			return err
		}
		t.contrast(m, check, was, live)
	}
	if check.failed != "" {
		return t.lose(x)
	}
	return nil
}
