// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"time"
)

// A Hold is the error of an interceptor that delays a message. When the time For is over, the message goes on as if the
// interceptor had returned Message and Err only then.
type Hold struct {
	For     time.Duration
	Message *Message
	Err     error
}

func (h *Hold) Error() string { return "message is held for " + h.For.String() }

// A Loss is the error of an interceptor that lets a message vanish: nobody is told, as if it had been lost on its way. A
// call stays in the book until its time is over.
type Loss struct {
	Cut   bool // the connection to the client breaks too
	Cause error
}

func (l *Loss) Error() string { return l.Cause.Error() }

// alone is the held message without its More: what followed it has gone on meanwhile, so its Conn must not wait for that.
func (h *Hold) alone() *Message {
	if h.Message == nil || !h.Message.More {
		return h.Message
	}
	m := *h.Message
	m.More = false
	return &m
}

// maxHeld is how many messages of a session are held at a time. One more is waited for in place, and so holds up those
// behind it.
const maxHeld = 1000

// hold calls on(true) when the time of h is over and after, if not nil, is closed; or on(false) if ctx or the session ends
// before that. It does not wait for this, unless inPlace is set by a caller that has nothing else to carry.
func (p *Proxy) hold(ctx context.Context, s *Session, h *Hold, after <-chan struct{}, on func(alive bool), inPlace bool) {
	over, release, ok := s.hold()
	wait := func() {
		defer release()
		t := time.NewTimer(h.For)
		defer t.Stop()
		alive := true
		select {
		case <-t.C:
		case <-ctx.Done():
			alive = false
		case <-over:
			alive = false
		case <-s.gone:
			alive = false
		}
		if alive && after != nil {
			select {
			case <-after:
			case <-over:
				alive = false
			}
		}
		on(alive)
	}
	if inPlace || !ok {
		wait()
		return
	}
	p.wg.Go(wait) // ends with the session at the latest
}

// holdUp carries the message of w on to the server when the time of h is over. A request over HTTP is waited for in place:
// it has a goroutine of its own, and what belongs to the request ends with that. On stdio it is given up if its call is
// over before, and for nothing else while the session lasts.
func (p *Proxy) holdUp(ctx context.Context, w passage, h *Hold) {
	if w.m.Stream == nil {
		ctx = context.WithoutCancel(ctx)
	}
	wanted, cancel := context.WithCancel(ctx)
	if w.call != nil && w.m.Stream == nil {
		w.s.whenOver(w.call, cancel)
	}
	p.hold(wanted, w.s, h, nil, func(alive bool) {
		defer cancel()
		switch {
		case alive && (w.call == nil || w.s.lookup(ToServer, w.m.ID) == w.call):
			p.up(ctx, w, h.alone(), h.Err)
		case w.call != nil:
			if !w.s.Ended() { // whose end answers it
				w.s.strikeCall(ToServer, w.call)
			}
			w.call.release()
		}
	}, w.m.Origin != nil && !w.m.Origin.Batch)
}

// holdBack carries m on to the client when the time of h is over. What comes in a server's HTTP response that answers a POST
// is waited for in place: whoever reads that response has nothing else to do, and its end ends the client's. Otherwise the
// stream of a call ends with the response to it, which therefore waits for what was held last within the call.
func (p *Proxy) holdBack(s *Session, m *Message, next int, h *Hold) {
	var before *chan struct{}
	done := make(chan struct{})
	if m.Within != nil && m.Stream != nil && m.Reply == nil {
		before = m.Within.held.Swap(&done)
	}
	if before == nil {
		before = new(chan struct{})
	}
	ctx, cancel := context.WithCancel(context.Background())
	if m.due {
		s.whenOver(m.Answers, cancel)
	}
	p.hold(ctx, s, h, *before, func(alive bool) {
		defer close(done)
		defer cancel()
		p.goOn(s, m, next, h.alone(), h.Err, alive)
	}, m.Reply != nil && m.Stream != nil && !m.Reply.Listens)
}

// goOn carries m, which was held, on to the client. A response whose call is over meanwhile, or the session, goes nowhere.
func (p *Proxy) goOn(s *Session, m *Message, next int, out *Message, err error, alive bool) {
	if alive && (!m.due || s.lookup(ToServer, m.ID) == m.Answers) {
		p.down(s, m, next, out, err)
		return
	}
	p.Log.Info("message to the client lost", "method", m.Method, "id", m.ID, "error", s.Reason())
}

// lose lets m vanish, but for what must be known of that: a call whose response is lost is in flight as before.
func (p *Proxy) lose(s *Session, m *Message, l *Loss) {
	p.Log.Debug("message lost", "method", m.Method, "id", m.ID, "cause", l)
	if l.Cut {
		p.cut(s, m, l)
		return
	}
	switch {
	case m.Kind == Response && m.Answers != nil: // whoever asked waits on
		s.book(ToServer+ToClient-m.Dir, m.Answers)
		s.abandon(m.Answers)
	case m.own != nil:
		s.abandon(m.own)
	case m.Kind != Call && m.Dir == ToServer:
		p.finish(m)
	}
}

// cut breaks off the HTTP response that m belongs to, or the whole conversation if it belongs to none.
func (p *Proxy) cut(s *Session, m *Message, l *Loss) {
	switch {
	case m.due:
		s.strikeCall(ToServer, m.Answers)
	case m.Dir == ToServer && m.own != nil:
		s.strikeCall(ToServer, m.own)
	case m.Dir == ToServer && m.Answers != nil: // the server waits on, and may hear it the next time
		s.book(ToClient, m.Answers)
	}
	if m.Stream != nil {
		m.Stream.Abort()
		return
	}
	s.takeAll(ToClient)
	s.takeAll(ToServer)
	p.Sessions.End(s, &Error{Code: 502, Text: "connection was cut", Cause: l})
}
