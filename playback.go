// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A playback is one call that is being answered from the tape. One goroutine at a time plays it.
type playback struct {
	conn *playerConn
	call *playCall
	m    *Message // the call of the client; the notification that ended the handshake

	line     int32 // what comes next, 0 for nothing; set with conn.mu held, as is answered
	answered bool  // what is left belonged to no call and came after it
	asks     []*ask
	t        int64     // when what was played last was recorded, in microseconds
	due      time.Time // when it was to be played

	running, stopped bool        // guarded by conn.mu, as is timer
	inline           bool        // it is played while the call is sent
	timer            *time.Timer // nil if none is set
}

// play begins b.
func (c *playerConn) play(b *playback) {
	if !b.answered {
		b.line, b.t = b.call.first, c.p.index.lines[b.call.line].t
	} else if b.line != 0 {
		b.t = c.p.index.lines[b.line].t
	}
	if c.p.o.Speed > 0 {
		b.due = time.Now()
	}
	b.inline = true
	c.mu.Lock()
	if c.playing == nil {
		c.playing = map[*playback]struct{}{}
	}
	c.playing[b] = struct{}{}
	b.stopped = c.closed
	c.mu.Unlock()
	b.run()
}

// run plays on until there is something to wait for.
func (b *playback) run() {
	c := b.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.running {
		return // whoever runs it sees what has changed
	}
	b.running = true
	for b.ready() {
		line := b.line
		if b.line = c.p.index.lines[line].next; line == b.call.response { // 0 if there is none
			b.answered, b.line = true, b.after()
		}
		c.mu.Unlock()
		b.step(line)
		c.mu.Lock()
	}
	b.running, b.inline = false, false
	if b.stopped || b.answered && b.line == 0 {
		b.stop()
		delete(c.playing, b)
	}
}

// stop ends b. It requires that conn.mu is held.
func (b *playback) stop() {
	b.stopped = true
	if b.timer != nil && b.timer.Stop() {
		b.timer = nil
		b.conn.timers.Done()
	}
	for _, a := range b.asks {
		delete(b.conn.asks, canonicalID(a.id))
	}
	if !b.running {
		delete(b.conn.playing, b)
	}
}

// after is the first line to be played after the response. What belongs to no call, 2026-07-28 does not have.
func (b *playback) after() int32 {
	if b.conn.live.shared || isStateless(b.m.Revision) {
		return 0
	}
	return b.call.after
}

// ready reports whether what comes next can be played now. Else it sees to it that run is called again. It requires that
// conn.mu is held.
func (b *playback) ready() bool {
	if b.stopped || b.answered && b.line == 0 {
		return false
	}
	if b.line == 0 {
		// A subscription has no end of its own, and a call that the client cancelled will be cancelled again.
		return b.call.status != 0 || b.m.Method != methodListen && !b.call.cancelled
	}
	l := &b.conn.p.index.lines[b.line]
	if l.reply {
		i := slices.IndexFunc(b.asks, func(a *ask) bool { return a.seq == l.re })
		if i >= 0 && b.asks[i].answer == nil {
			return false
		}
		b.t, b.due = l.t, time.Now()
		return true
	}
	return b.dueBy(l.t)
}

// dueBy reports whether it is time for what was recorded at t, and else sets the timer. It requires that conn.mu is held.
func (b *playback) dueBy(t int64) bool {
	speed := b.conn.p.o.Speed
	if speed <= 0 {
		return true
	}
	if b.timer != nil {
		return false
	}
	wait := time.Duration(min(float64(max(t-b.t, 0)*1000)/speed, math.MaxInt64/2))
	if left := time.Until(b.due.Add(wait)); left > 0 {
		b.conn.timers.Add(1)
		b.timer = time.AfterFunc(left, func() { // Close stops it, or waits for it
			defer b.conn.timers.Done()
			b.conn.mu.Lock()
			b.timer = nil
			b.conn.mu.Unlock()
			b.run()
		})
		return false
	}
	b.t, b.due = t, b.due.Add(wait)
	return true
}

// step plays one thing.
func (b *playback) step(line int32) {
	c := b.conn
	switch {
	case line == 0:
		b.unanswered()
	case line == b.call.response:
		b.respond()
	case c.p.index.lines[line].reply:
		b.compareAnswer(line)
	default:
		m, err := c.p.message(line)
		switch {
		case err != nil:
			c.p.o.Log.Error("message not played", "error", err)
		case m.Kind == Call && (c.live.shared || isStateless(b.m.Revision)):
			// MCP 2026-07-28: "Servers MUST NOT send JSON-RPC requests".
			b.end(c.p.missed(b.m, reasonEra, nil))
		default:
			b.pass(m, line)
		}
	}
}

// pass sends the client a call or notification of the server.
func (b *playback) pass(m *Message, line int32) {
	c := b.conn
	raw := m.Raw
	if m.Kind == Call {
		raw = b.ask(m, line)
	}
	if !b.answered {
		switch {
		case m.Method == methodProgress && b.m.Token == "":
			return // nobody asked
		case m.Method == methodProgress:
			raw = replace(raw, b.m.Token, "params", "progressToken")
		case m.Method == methodCancelled:
			raw = replace(raw, b.named(canonicalID(member(m.Params, "requestId"))), "params", "requestId")
		case m.Method == methodLog && isStateless(b.m.Revision) && member(member(b.m.Params, "_meta"), metaLogLevel) == "":
			return // likewise
		}
		if strings.Contains(raw, "subscriptionId") {
			raw = replace(raw, b.m.ID, "params", "_meta", subscriptionID)
		}
	}
	if raw != m.Raw {
		again, err := Parse(raw)
		if err != nil { // cannot be: what was put in is JSON
			return
		}
		m = again
	}
	if !b.answered {
		m.Stream = b.m.Stream
		// "A server MUST send notifications/cancelled referencing a subscriptions/listen request ID when it tears down
		// that subscription stream."
		m.Last = m.Method == methodCancelled && b.m.Method == methodListen && member(m.Params, "requestId") == b.m.ID
	}
	c.receive(m, nil)
}

// named is the id by which the client knows what the server cancels: a request of the server, or the subscription itself.
func (b *playback) named(was string) string {
	for _, a := range b.asks {
		if a.was == was {
			return a.id
		}
	}
	return b.m.ID
}

// ask gives a request of the server an id that no other has, and books it.
func (b *playback) ask(m *Message, line int32) (raw string) {
	c := b.conn
	a := &ask{seq: c.p.index.lines[line].seq, was: canonicalID(m.ID), id: `"tape-` + strconv.FormatInt(c.p.asked.Add(1), 10) + `"`}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asks == nil {
		c.asks = map[string]*ask{}
	}
	if !b.answered {
		a.playback = b
		b.asks = append(b.asks, a)
	}
	if !b.stopped {
		c.asks[a.id] = a
	}
	return replace(m.Raw, a.id, "id")
}

// compareAnswer checks the client's answer to a request of the server against the recorded one.
func (b *playback) compareAnswer(line int32) {
	p := b.conn.p
	i := slices.IndexFunc(b.asks, func(a *ask) bool { return a.seq == p.index.lines[line].re })
	if !p.strict || i < 0 {
		return
	}
	was, err := p.message(line)
	if err != nil {
		p.o.Log.Error("answer not compared", "error", err)
		return
	}
	text := p.redact.Message(b.asks[i].answer.Raw)
	comparer := Comparer{Ignore: p.index.ignore}
	var differs []Difference
	for _, key := range [...]string{"result", "error"} {
		differs = append(differs, comparer.Compare(Pointer{key}, matchedMember(was.Raw, key), matchedMember(text, key))...)
	}
	if len(differs) > 0 {
		near := nearCall{seq: p.index.lines[line].seq, differs: differs}
		b.end(p.missed(b.m, reasonAnswer, []nearCall{near}))
	}
}

func matchedMember(text, key string) any {
	if text = member(text, key); text == "" {
		return absent{}
	}
	return matchedParams(text)
}

// respond sends the recorded response.
func (b *playback) respond() {
	p := b.conn.p
	raw, err := p.response(b.call.response, b.m.ID)
	if err != nil {
		b.fail(&Error{Code: 502, Text: "tape could not be read", Cause: err})
		return
	}
	stateless := isStateless(b.m.Revision)
	if b.m.Method == methodListen || stateless || p.index.stateless { // else nothing in it has to be changed
		result := member(raw, "result")
		if b.m.Method == methodListen {
			result = replace(result, b.m.ID, "_meta", subscriptionID)
		}
		if !stateless && p.index.stateless && asksForInput(result) {
			b.fail(p.missed(b.m, reasonEra, nil))
			return
		}
		if stateless || p.index.stateless {
			result = resultFor(b.m.Method, result, p.info, stateless)
		}
		raw = replace(raw, result, "result")
	}
	b.say(raw)
}

// say sends the client the response.
func (b *playback) say(raw string) {
	m, err := Parse(raw)
	if err != nil || m.Kind != Response {
		b.fail(&Error{Code: 502, Text: "tape could not be read", Cause: errors.Join(errors.New("recorded response is none"), err)})
		return
	}
	m.Stream, m.More = b.m.Stream, b.inline && b.m.More
	b.conn.p.params.note(b.m, m, b.conn.p.o.Log)
	b.conn.receive(m, nil)
}

// unanswered ends a call that has no answer on the tape. Over HTTP its stream ends without one if the server's did.
func (b *playback) unanswered() {
	c, status := b.conn, int(b.call.status)
	c.p.count(func(r *replayReport) { r.unanswered++ })
	e := &Error{Code: 502, Text: "no answer was recorded", Cause: errors.New("seq " + strconv.FormatInt(b.call.seq, 10) + " of the tape has no response")}
	switch {
	case status/100 == 2 && b.call.streamed && b.m.Stream != nil:
		c.s.strike(ToServer, b.m.ID)
		c.receive(&Message{Stream: b.m.Stream, Event: &Event{Retry: streamRetry}, Last: true}, nil)
		return
	case status != 0 && status/100 != 2:
		e.Code, e.Text = status, "server answered "+strconv.Itoa(status)
	}
	b.fail(e)
}

// fail answers the call with e.
func (b *playback) fail(e *Error) {
	m := e.answer(b.m.ID)
	m.Stream = b.m.Stream
	b.conn.receive(m, nil)
}

// end answers the call with e, and plays nothing more.
func (b *playback) end(e *Error) {
	b.conn.mu.Lock()
	stopped := b.stopped
	b.stopped = true
	b.conn.mu.Unlock()
	if !stopped {
		b.fail(e)
	}
}
