// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// An Interceptor sees a message on its way and returns what is to be carried on: m, a changed
// copy, a message in the other direction (an answer in the server's stead, or the client's), or nil to
// drop a notification. A *[Error] refuses m, a *[Hold] delays it, a *[Loss] lets it vanish.
type Interceptor func(ctx context.Context, s *Session, m *Message) (*Message, error)

// A Proxy carries messages between clients and servers. Whoever read a message calls it, and it
// calls the other side's Conn: it has no goroutines or queues of its own. Make one with NewProxy.
type Proxy struct {
	Sessions *Sessions
	Log      *slog.Logger
	// OnEnd, OnDrop and OnTell, if not nil, hear of what no interceptor sees: the end of each session,
	// after its last message; messages of servers that reach nobody; and what the proxy itself tells a
	// server. They are set before the first session.
	OnEnd  func(s *Session, reason error)
	OnDrop func(s *Session, m *Message, why string)
	OnTell func(s *Session, m *Message)

	dialer Dialer
	chain  []Interceptor // in order towards the server, in reverse towards the client
	wg     sync.WaitGroup
}

// Answers that the proxy itself owes a server are not sent by the goroutine that reads from it:
// a server that does not read while it writes would never be read from again. So many of a session
// may wait.
const maxAside = 64

// answersNoCall is why a response of a server is dropped that answers nothing, or a call that was cancelled.
const answersNoCall = "a response to no call in flight"

var (
	// errDetached is returned by a Server's Send when the stream of a call is over and the call is
	// not, as up to 2025-11-25: "disconnection SHOULD NOT be interpreted as the client cancelling
	// its request". The answer may come on another stream.
	errDetached = errors.New("stream ended before its call")
	// errRelayed is returned by a Server's Send when the server's answer to a call was no message
	// that answers it, and has been passed on as it was.
	errRelayed = errors.New("answer was relayed")
)

// NewProxy makes a proxy to the server that dialer reaches. Messages to the server meet the
// interceptors in the order given.
func NewProxy(dialer Dialer, b Bounds, log *slog.Logger, chain ...Interceptor) *Proxy {
	p := &Proxy{Log: log, dialer: dialer, chain: chain}
	p.Sessions = NewSessions(b, p.settle)
	return p
}

// Open begins a session for client and connects it to a server.
func (p *Proxy) Open(ctx context.Context, client Conn, user string, transient bool) (*Session, error) {
	s, err := p.Sessions.Open(client, user, transient)
	if err != nil {
		return nil, err
	}
	if s.expire = p.expire; transient {
		s.gone = ctx.Done()
	}
	server, err := p.dialer.Dial(ctx, s, func(m *Message, err error) { p.receive(s, m, err) })
	if err != nil {
		p.Sessions.End(s, err)
		return nil, err
	}
	if !s.setServer(server) {
		server.Close()
		return nil, &Error{Code: 502, Text: "server is gone", Cause: s.Reason()}
	}
	return s, nil
}

// Close ends all sessions and waits for what they started.
func (p *Proxy) Close() {
	p.Sessions.EndAll(errShutdown)
	p.Sessions.Wait()
	p.wg.Wait()
}

// ToServer carries m from the client of s to its server. What becomes of it, refusals included,
// reaches the client through its Conn. It returns when the server's Conn has taken m.
func (p *Proxy) ToServer(ctx context.Context, s *Session, m *Message) {
	m.Dir = ToServer
	var call *PendingCall
	switch m.Kind {
	case Call:
		call = &PendingCall{Message: m, Stream: m.Stream}
		m.own = call
		if m.Stream != nil {
			ctx, call.cancel = context.WithCancel(ctx)
		}
		if refusal := s.book(ToServer, call); refusal != nil {
			p.refuse(s, m, call, refusal)
			call.release()
			return
		}
	case Response:
		// Without a session there is no book of what the server asked: it judges by itself.
		if m.Answers = s.strike(ToClient, m.ID); m.Answers == nil && !s.Transient {
			p.Log.Warn("response to no call dropped", "from", "client", "id", m.ID)
			p.finish(m)
			return
		}
	default:
		s.touch(ToClient, progressToken(m))
	}
	p.up(ctx, passage{s: s, m: m, call: call}, m, nil)
}

// A passage is a message of a client on its way to the server.
type passage struct {
	s    *Session
	m    *Message     // as it came
	call *PendingCall // of m, nil if it is none
	next int          // interceptor
}

// up carries what became of a message, out or err, through the interceptors that are left to the server.
func (p *Proxy) up(ctx context.Context, w passage, out *Message, err error) {
	for ; w.next < len(p.chain) && err == nil && out != nil && out.Dir == ToServer; w.next++ {
		out, err = p.chain[w.next](ctx, w.s, out)
	}
	if h, held := err.(*Hold); held {
		p.holdUp(ctx, w, h)
		return
	}
	p.deliver(ctx, w, out, err)
	w.call.release()
}

// deliver passes a message to the server, or does what else is to become of it.
func (p *Proxy) deliver(ctx context.Context, w passage, out *Message, err error) {
	s, m, call := w.s, w.m, w.call
	switch {
	case err != nil:
	case out == nil && call == nil:
		p.Log.Debug("notification dropped by an interceptor", "method", m.Method)
		p.finish(m)
		return
	case out == nil:
		err = &Error{Code: 403, Status: 200, Text: "refused"}
	case out.Dir == ToClient:
		p.answer(s, out, call)
		return
	default:
		if m.Method == methodCancelled {
			p.cancelled(s, m)
		}
		err = s.server.Send(ctx, out)
		if out.twice() && err == nil {
			s.server.Send(ctx, out) // the first one counts
		}
	}
	if err == nil || errors.Is(err, errDetached) {
		return
	}
	if loss, ok := err.(*Loss); ok {
		p.lose(s, m, loss)
		return
	}
	if call != nil && !s.strikeCall(ToServer, call) || err == errRelayed {
		return // answered, cancelled or expired meanwhile
	}
	if m.Stream != nil && ctx.Err() != nil {
		p.Log.Debug("client went away", "method", m.Method, "id", m.ID)
		return
	}
	if ruled := refusalOf(err); m.Kind == Response && m.Answers != nil && ruled.Rule != "" { // the server waits
		p.refuseServer(s, m.Answers.Message, ruled)
		p.finish(m)
		return
	}
	p.refuse(s, m, call, err)
}

// progressToken is the token of a progress notification, in its canonical form as a server may write
// it otherwise than the client did; "" for anything else.
func progressToken(m *Message) string {
	if m.Method != methodProgress {
		return ""
	}
	return canonicalID(member(m.Params, "progressToken"))
}

// cancelled takes the call that the client cancels out of the book, so that a late answer is
// dropped, and ends the stream on which the client waited for it.
func (p *Proxy) cancelled(s *Session, m *Message) {
	id := member(m.Params, "requestId")
	if id == "" {
		return
	}
	if c := s.lookup(ToServer, id); c != nil && s.strikeCall(ToServer, c) {
		p.finish(c.Message)
		c.over()
	}
}

// finish ends the stream of m if it has one.
func (p *Proxy) finish(m *Message) {
	if m.Stream != nil {
		m.Stream.Send(&Message{Dir: ToClient, Local: true, Last: true})
	}
}

// refuse answers m, which came from the client, with err. call is that of m, nil if m is none. A refused
// notification or response is answered over HTTP only, where the request waits.
func (p *Proxy) refuse(s *Session, m *Message, call *PendingCall, err error) {
	e := refusalOf(err)
	p.logRefused(m, e)
	p.answerRefused(s, m, call, e)
}

func (p *Proxy) logRefused(m *Message, e *Error) {
	if m.Kind == Response && m.Answers != nil {
		m = m.Answers.Message // which says what it is about
	}
	p.Log.Warn("message refused", "method", m.Method, "name", m.Name, "id", m.ID, "code", e.Code, "error", e)
}

func (p *Proxy) answerRefused(s *Session, m *Message, call *PendingCall, e *Error) {
	if m.Kind != Call && m.Stream == nil {
		return
	}
	id := m.ID
	if m.Kind != Call || e.Bare {
		id = ""
	}
	answer := e.answer(id)
	answer.Stream, answer.Answers = m.Stream, call
	p.toClient(s, answer)
}

// reject answers bytes that are no message, or one that was not read to its end. e.ID is the id
// if it is known.
func (p *Proxy) reject(s *Session, x Stream, e *Error) {
	p.Log.Warn("message refused", "code", e.Code, "error", e)
	answer := e.answer(e.ID)
	answer.Stream = x
	p.toClient(s, answer)
}

// answer sends the client a response that an interceptor gave in the server's stead.
func (p *Proxy) answer(s *Session, m *Message, call *PendingCall) {
	if call == nil || !s.strikeCall(ToServer, call) {
		return
	}
	m.Answers, m.Stream = call, call.Stream
	s.agree(m)
	p.toClient(s, m)
}

// receive carries m, which the server of s said, to its client. err ends the conversation.
func (p *Proxy) receive(s *Session, m *Message, err error) {
	if err != nil {
		p.Sessions.End(s, err)
		return
	}
	m.Dir = ToClient
	switch m.Kind {
	case Opaque:
		if s.place(m); !m.Last || m.Within == nil || !m.Within.lost.Load() { // else the client waits on for its response
			p.toClient(s, m)
		}
		return
	case Response:
		call := s.answered(m.ID)
		if call == nil && m.Resumed {
			break // the client asked for it; it may have lost it the first time
		}
		if call == nil {
			p.Log.Warn("response to no call dropped", "from", "server", "id", m.ID)
			p.lost(s, m, answersNoCall)
			return
		}
		if m.Refusal != nil { // what became of it is known to its Conn only
			p.logRefused(call.Message, m.Refusal)
		}
		m.Answers, m.due = call, true
		if m.Stream == nil {
			m.Stream = call.Stream
		}
		s.agree(m)
	case Call:
		s.place(m)
		if m.Resumed { // sent again, as the client lost it the first time
			s.strike(ToClient, m.ID)
		}
		m.own = &PendingCall{Message: m}
		if refusal := s.book(ToClient, m.own); refusal != nil {
			p.refuseServer(s, m, refusal)
			return
		}
	case Notification:
		token := progressToken(m)
		s.touch(ToServer, token)
		s.place(m)
		if m.Method == methodCancelled {
			s.strike(ToClient, member(m.Params, "requestId"))
		}
	}
	p.toClient(s, m)
}

// toClient carries m through the interceptors, backwards, to the client.
func (p *Proxy) toClient(s *Session, m *Message) {
	m.Dir = ToClient
	if m.due { // with it ends the stream of what is held
		if held := m.Answers.held.Load(); held != nil {
			p.hold(context.Background(), s, &Hold{}, *held, func(alive bool) { p.goOn(s, m, len(p.chain)-1, m, nil, alive) }, false)
			return
		}
	}
	p.down(s, m, len(p.chain)-1, m, nil)
}

// down carries what became of m, out or err, through the interceptors that are left, next first, to the client.
func (p *Proxy) down(s *Session, m *Message, next int, out *Message, err error) {
	for ; next >= 0 && err == nil && out != nil && out.Dir == ToClient; next-- {
		out, err = p.chain[next](context.Background(), s, out)
	}
	switch failure := err.(type) {
	case *Hold:
		p.holdBack(s, m, next, failure)
		return
	case *Loss:
		p.lose(s, m, failure)
		return
	}
	switch {
	case err != nil && m.Kind == Response:
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: 403, Status: 200, Text: "refused", Cause: err}
		}
		out = e.answer(m.ID)
		out.Dir, out.Stream, out.Answers, out.due = ToClient, m.Stream, m.Answers, m.due
		if e.Rule != "" {
			p.logRefused(m, e)
			out.Ruled = &Ruled{Was: m, Rule: e.Rule}
			if m.Ruled != nil {
				out.Ruled.line = m.Ruled.line
			}
		}
		p.down(s, out, next, out, nil)
		return
	case err != nil && m.Kind == Opaque && m.Within != nil:
		if s.strikeCall(ToServer, m.Within) {
			p.refuse(s, m.Within.Message, m.Within, err)
		}
		return
	case err != nil:
		if m.Kind != Call { // else refuseServer says so
			p.Log.Warn("message refused", "method", m.Method, "error", err)
		}
		p.dropped(s, m, err)
		return
	case out != nil && out.Dir == ToServer && m.Kind == Call: // an answer in the client's stead
		if s.strikeCall(ToClient, m.own) {
			out.Answers = m.own
			p.tellServer(s, out)
		}
		return
	case out == nil || out.Dir != ToClient:
		p.dropped(s, m, errors.New("stopped by an interceptor"))
		return
	}
	if !m.due || s.strikeCall(ToServer, m.Answers) { // else its call is over meanwhile
		p.send(s, out)
	}
}

// send passes m to the client. What could not be passed is logged, and a server that asked hears
// of it.
func (p *Proxy) send(s *Session, m *Message) {
	if err := s.client.Send(context.Background(), m); err != nil && m.Kind != Opaque {
		p.Log.Info("message to the client lost", "method", m.Method, "id", m.ID, "error", err)
		p.dropped(s, m, err)
	}
}

// lost notes that m, which the server sent, reaches nobody.
func (p *Proxy) lost(s *Session, m *Message, why string) {
	if p.OnDrop != nil && !m.Local {
		p.OnDrop(s, m, why)
	}
}

// dropped tells the server, if it waits for an answer to m, that none will come.
func (p *Proxy) dropped(s *Session, m *Message, err error) {
	p.lost(s, m, err.Error())
	if m.Kind == Call && s.strike(ToClient, m.ID) != nil {
		p.refuseServer(s, m, err)
	}
}

// refuseServer answers a call of the server.
func (p *Proxy) refuseServer(s *Session, m *Message, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: 502, Text: "client is gone", Cause: err}
	}
	p.Log.Warn("call of the server refused", "method", m.Method, "name", m.Name, "id", m.ID, "error", e)
	answer := e.answer(m.ID)
	answer.Answers = m.own
	p.tellServer(s, answer)
}

// tellServer sends what the proxy itself has to say to the server, from the side.
func (p *Proxy) tellServer(s *Session, m *Message) {
	m.Dir = ToServer
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	if server == nil {
		return
	}
	if s.aside.Add(1) > maxAside {
		s.aside.Add(-1)
		p.Log.Warn("message to the server lost: it does not read", "id", m.ID)
		return
	}
	if p.OnTell != nil {
		p.OnTell(s, m)
	}
	p.wg.Go(func() { // ends with the server, whose Close unblocks Send
		defer s.aside.Add(-1)
		if err := server.Send(context.Background(), m); err != nil {
			p.Log.Debug("message to the server lost", "id", m.ID, "error", err)
		}
	})
}

// expire refuses a call that took too long. The session has struck it out already.
func (p *Proxy) expire(s *Session, d Direction, c *PendingCall) {
	e := &Error{Code: 504, Text: "call took too long"}
	if d == ToClient {
		p.refuseServer(s, c.Message, e)
		return
	}
	m := cancellation(c.Message.ID, "call took too long")
	m.Answers = c
	p.tellServer(s, m)
	p.refuse(s, c.Message, c, e)
	c.over()
}

// settle answers all that a session still owes its client when it ends.
func (p *Proxy) settle(s *Session, reason error) {
	if p.OnEnd != nil {
		defer p.OnEnd(s, reason)
	}
	if reason == errServed {
		return // its only call is answered
	}
	var e *Error
	switch {
	case errors.As(reason, &e):
	case reason == errShutdown, reason == errGone:
		e = &Error{Code: 503, Text: "shutting down"}
	default:
		e = &Error{Code: 404, Text: "session ended", Cause: reason}
	}
	if !s.Transient {
		p.Log.Info("session ended", "session", s.label(), "reason", reason)
	}
	s.takeAll(ToClient)
	for _, c := range s.takeAll(ToServer) {
		if reason == errShutdown || reason == errGone {
			p.answerRefused(s, c.Message, c, e)
		} else {
			p.refuse(s, c.Message, c, e)
		}
		c.over()
	}
}
