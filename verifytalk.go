// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A verifyTalk is a live conversation that goes as a recorded session did.
type verifyTalk struct {
	v    *verifier
	plan *verifySession
	live string // era of the server

	s     *Session // nil while there is none
	conn  *verifyConn
	hello *running // its handshake
	ids   int64
	gone  string // why there is none and will be none; "" if that is not known

	came     map[string]int  // what the server said in its own time, by awaited method, less what it said on the tape until now
	strays   map[string]bool // methods of what it asked in addition in its own time
	patience time.Duration   // for that
	skipped  bool            // a call was not made: what it would have changed does not change
	open     []*running      // subscriptions
	carried  *carriedValues
	checks   []*VerifyCheck
}

// running is a live call.
type running struct {
	id       string // JSON text
	check    *VerifyCheck
	exchange *verifyExchange // on the tape
	heard    []string        // methods of what the server said during it
	size     int             // bytes of those that are not as on the tape
	flooded  bool            // the server said more than is kept
	response *Message        // once it has come
	told     int             // what the client said during it
}

// outside is what is running while no call of the tape is.
func outside() *running { return &running{check: &VerifyCheck{}, exchange: &verifyExchange{}} }

// hear notes that the server said something during the call, as far as that is kept.
func (r *running) hear(method string) {
	said := r.exchange.said
	if i := len(r.heard); i < len(said) && said[i] == method {
		r.heard = append(r.heard, said[i])
		return
	}
	if r.size += len(method); len(r.heard) >= len(said)+maxHeard || r.size > maxHeardBytes {
		r.flooded = true
		return
	}
	r.heard = append(r.heard, strings.Clone(method)) // it is a part of the message
}

// ownTimePatience is how long a client waits in a session for what belongs to no call.
const ownTimePatience = 5 * time.Second

// talk makes a conversation for a session on the tape. It is not begun.
func (v *verifier) talk(s *verifySession) *verifyTalk {
	t := &verifyTalk{
		v: v, plan: s, came: map[string]int{}, strays: map[string]bool{}, patience: ownTimePatience, carried: newCarriedValues(v.same),
	}
	for _, step := range s.steps {
		if step.await != "" {
			t.came[step.await] = 0
		}
	}
	return t
}

// bridged reports whether the server speaks another era than the tape.
func (t *verifyTalk) bridged() bool { return t.live != t.plan.era }

// connect begins a conversation with a handshake, if there is none, in the era that the server speaks: that of the tape if
// it accepts or has accepted that, else the other one. If it refuses both, what it says in that of the tape is compared.
// If no server ever answered, the verification ends.
func (t *verifyTalk) connect(ctx context.Context) {
	if t.s != nil || t.gone != "" {
		return
	}
	own, other := eraSession, eraStateless
	if t.plan.era == eraStateless {
		own, other = other, own
	}
	tries := []string{own, other, own}
	if known := t.v.spoken[own]; known != "" {
		tries = []string{known}
	}
	var failed error
	for i := 0; i < len(tries); i++ {
		live := tries[i]
		err := t.shake(ctx, live)
		failed = cmp.Or(failed, err)
		switch last := i == len(tries)-1; {
		case ctx.Err() != nil:
			return
		case err == nil && (last || t.hello.response.Result != ""):
			t.v.spoken[own] = live
			if live == eraSession && t.hello.response.Result != "" {
				t.send(ctx, `"method":"`+methodInitialized+`"`)
			}
			return
		case last && len(t.v.spoken) == 0:
			t.v.stop(&VerifyServerError{failed})
			return
		case last:
			t.gone = failed.Error()
		case err != nil && i == 0:
			tries = tries[:2] // it says nothing in this one
		}
		t.close()
	}
}

// shake begins a conversation with the handshake of an era. The error says why there is no answer.
func (t *verifyTalk) shake(ctx context.Context, live string) error {
	t.live = live
	if err := t.dial(ctx); err != nil {
		return err
	}
	run := outside()
	t.hello = run
	method, params := t.plan.handshake(live)
	t.begin(ctx, method, params, run)
	patience := min(handshakeTimeout, t.v.o.Timeout)
	t.patiently(ctx, patience, run, func() bool { return run.response != nil })
	switch {
	case run.response == nil:
		return fmt.Errorf("no answer to %s within %v", method, patience)
	case run.response.Refusal != nil:
		return run.response.Refusal
	}
	return nil
}

func (t *verifyTalk) dial(ctx context.Context) (err error) {
	t.conn = &verifyConn{queue: make(chan *Message, maxHeard+maxTalkCalls)}
	t.s, err = t.v.proxy.Open(ctx, t.conn, "", false)
	return err
}

// hangUp ends the conversation when all has come that is to come.
func (t *verifyTalk) hangUp(ctx context.Context) {
	for len(t.open) > 0 && ctx.Err() == nil {
		t.unsubscribe(ctx, t.open[0].exchange)
	}
	t.close()
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
	t.send(ctx, `"id":`+run.id+`,`+methodMembers(method, params))
}

// methodMembers are the members that calls and notifications have.
func methodMembers(method, params string) string {
	if params == "" {
		return `"method":` + quote(method)
	}
	return `"method":` + quote(method) + `,"params":` + params
}

// send passes a message with these members to the server, unless ctx has ended. What becomes of it comes back as a message.
func (t *verifyTalk) send(ctx context.Context, members string) {
	if ctx.Err() != nil {
		return
	}
	m, err := Parse(`{"jsonrpc":"2.0",` + members + `}`)
	if err != nil {
		t.v.o.Log.Warn("message not sent", "error", err)
		return
	}
	t.v.proxy.ToServer(ctx, t.s, m)
}

// cancel ends a live call as its client ended the recorded one.
func (t *verifyTalk) cancel(ctx context.Context, run *running) {
	t.send(ctx, methodMembers(methodCancelled, `{"requestId":`+run.id+`}`))
}

// await takes in what the server says until enough reports true, or the client cancels the call as on the tape, and sends
// meanwhile what the client said during the recorded exchange.
func (t *verifyTalk) await(ctx context.Context, run *running, enough func() bool) {
	for ctx.Err() == nil { // when it has ended, what comes says only that
		for x := run.exchange; run.told < len(x.told) && len(run.heard) >= x.told[run.told].after; {
			told := x.told[run.told].at
			run.told++
			if told == (messageAt{}) {
				t.cancel(ctx, run)
				return
			}
			t.tell(ctx, told)
		}
		if enough() {
			return
		}
		select {
		case m := <-t.conn.queue:
			t.conn.size.Add(-int64(len(m.Raw)))
			t.take(ctx, m, run)
			run.flooded = t.conn.lost.Swap(false) || run.flooded
		case <-ctx.Done():
		}
	}
}

// patiently is await for as long as patience.
func (t *verifyTalk) patiently(ctx context.Context, patience time.Duration, run *running, enough func() bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t.await(ctx, run, enough)
}

// take takes in one message of the server, while current is the call in flight.
func (t *verifyTalk) take(ctx context.Context, m *Message, current *running) {
	id := ""
	if m.Kind == Response {
		id = m.ID
	} else if m.Within != nil {
		id = m.Within.Message.ID
	}
	var owner *running
	for _, run := range append(t.open[:len(t.open):len(t.open)], current) {
		if id != "" && run.id == id {
			owner = run
		}
	}
	switch {
	case m.Kind == Response && owner != nil:
		owner.response = m
	case m.Kind == Response:
	case m.Method == methodPing:
		t.send(ctx, `"id":`+m.ID+`,"result":{}`)
	default:
		if owner == nil || m.Method == methodRoots {
			if n, awaited := t.came[m.Method]; awaited {
				t.came[strings.Clone(m.Method)] = n + 1
			}
		} else {
			owner.hear(m.Method)
		}
		if m.Kind == Call {
			t.question(ctx, m, owner)
		}
	}
}

// question answers a request of the server as the recorded client answered one like it.
func (t *verifyTalk) question(ctx context.Context, m *Message, owner *running) {
	q := t.recorded(m.Method, owner)
	if q == nil {
		if owner == nil || owner.exchange.together {
			t.extra(m.Method)
		}
		t.send(ctx, `"id":`+m.ID+`,"error":{"code":`+strconv.Itoa(codeMethodNotFound)+`,"message":"no answer to this is on the tape"}`)
		return
	}
	q.used = true
	params, answer := t.v.question(q)
	if owner != nil && owner.exchange == q.exchange && !t.bridged() {
		at := Pointer{"requests", strconv.Itoa(q.place), "params"}
		t.compare(owner.check, at, decodeJSON(params), decodeJSON(redactedBy(t.v.o.Redact, m).Params))
	}
	if answer != "" { // else the recorded client gave none either
		t.send(ctx, `"id":`+m.ID+`,`+strings.TrimPrefix(strings.TrimSuffix(t.carried.apply(answer), "}"), "{"))
	}
}

// question reads the params of a question, and an object with the result or error that is the answer; "" for none.
func (v *verifier) question(q *verifyQuestion) (params, answer string) {
	params = v.message(q.at).Params
	if q.answer.size == 0 {
		return params, ""
	}
	switch told := v.message(q.answer); {
	case q.key != "":
		return "", `{"result":` + cmp.Or(member(member(told.Params, "inputResponses"), q.key), "{}") + `}`
	case told.Error != "":
		return params, `{"error":` + told.Error + `}`
	default:
		return params, `{"result":` + told.Result + `}`
	}
}

// recorded finds a question on the tape that has not come again yet, and that may be the one that came during owner: one
// of the same exchange, else one whose exchange is not certain. It returns nil if there is none.
func (t *verifyTalk) recorded(method string, owner *running) (other *verifyQuestion) {
	for _, q := range t.plan.questions {
		switch {
		case q.used || q.method != method || q.key != "" && q.answer.size == 0:
		case owner != nil && q.exchange == owner.exchange:
			return q
		case other != nil:
		case owner == nil || q.exchange == nil || owner.exchange.together || method == methodRoots:
			other = q
		}
	}
	return other
}

// extra notes that the server asked something that it did not ask on the tape, during which call nobody knows. What it
// asked in another session, it asks in its own time: the recorded client may have been gone by then.
func (t *verifyTalk) extra(method string) {
	if own := t.v.ownTime[method]; own || len(t.strays) == maxExtra {
		return
	}
	if method = shorten(method); !t.strays[method] {
		t.strays[method] = true
		t.checks = append(t.checks, &VerifyCheck{Session: t.plan.number, Method: method, Extra: []string{"a request of the server"}})
	}
}

// expect waits until the server says what it said on the tape, outside of any call, before the client went on.
func (t *verifyTalk) expect(ctx context.Context, method string) {
	t.came[method]--
	if t.s == nil || t.s.Ended() || t.patience <= 0 || t.skipped && strings.HasSuffix(method, "/list_changed") {
		return
	}
	began := time.Now()
	t.patiently(ctx, t.patience, outside(), func() bool { return t.came[method] >= 0 })
	t.patience -= time.Since(began)
}

// tell sends a notification of the client, as far as the server's era has it.
func (t *verifyTalk) tell(ctx context.Context, at messageAt) {
	m := t.v.message(at)
	t.connect(ctx)
	if t.gone == "" && m.Method != methodInitialized && (!t.bridged() || m.Method != "notifications/roots/list_changed") {
		t.send(ctx, methodMembers(m.Method, t.carried.apply(m.Params))) // else it is part of the handshake; not in that era
	}
}

const (
	maxHeard      = 10000    // messages that may wait to be looked at, and that an exchange may have beside those on the tape
	maxHeardBytes = 16 << 20 // of those that wait, and of the names of those methods
	heardTooMuch  = "more than 10000 messages, or 16 MiB, that are not on the tape"
)

// A verifyConn is the client's end of a conversation: it keeps what comes until it is asked for, so that no server waits
// for a client that writes. When the conversation ends, each call in flight is refused, so that nobody waits for ever.
type verifyConn struct {
	queue chan *Message
	size  atomic.Int64 // bytes of what is in it
	lost  atomic.Bool  // there was no room for something
}

func (c *verifyConn) Send(_ context.Context, m *Message) error {
	if m.Kind == Response || len(c.queue) < maxHeard && c.size.Load() < maxHeardBytes {
		select {
		case c.queue <- m:
			c.size.Add(int64(len(m.Raw)))
			return nil
		default: // it has room for all responses
		}
	}
	c.lost.Store(true)
	return errClosed
}

func (c *verifyConn) Flush() error { return nil }
func (c *verifyConn) Close() error { return nil }
