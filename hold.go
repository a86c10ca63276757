// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"time"
)

// A Hold is the error of an interceptor that delays a message: after For it is to go on as the other two say, which are
// what the interceptor would return else.
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

// alone is m as one behind which nothing follows for which its Conn would wait.
func (h *Hold) alone() *Message {
	if h.Message == nil || !h.Message.More {
		return h.Message
	}
	m := *h.Message
	m.More = false
	return &m
}

// maxHeld is how many messages of a session are held at a time; one more holds up those behind it.
const maxHeld = 1000

// hold calls on when the time of h is over and after, if not nil, is closed; with false if ctx or the session ends
// before. It returns at once unless inPlace is set, as by those who have nothing else to carry.
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

// holdUp carries the message of w on when the time of h is over. A request over HTTP has a goroutine of its own, which ends
// what belongs to it; on stdio the call does, and nothing else while the session lasts.
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

// holdBack carries m on when the time of h is over. A response over HTTP that is relayed has a goroutine of its own, and ends
// with its last message; else the stream of a call ends with the response, which waits for what is held.
func (p *Proxy) holdBack(s *Session, m *Message, next int, h *Hold) {
	var before *chan struct{}
	done := make(chan struct{})
	if m.Within != nil && m.Stream != nil && m.Reply == nil {
		before = m.Within.held.Swap(&done)
	}
	if before == nil {
		before = new(chan struct{})
	}
	p.hold(context.Background(), s, h, *before, func(alive bool) {
		defer close(done)
		if alive {
			p.down(s, m, next, h.alone(), h.Err)
		} else {
			p.Log.Info("message to the client lost", "method", m.Method, "id", m.ID, "error", s.Reason())
		}
	}, m.Reply != nil && m.Stream != nil && !m.Reply.Listens)
}

// lose does what is to be done about m, which a Loss let vanish.
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
	if m.own != nil {
		s.strikeCall(m.Dir, m.own)
	}
	if m.Stream != nil {
		m.Stream.Abort()
		return
	}
	s.takeAll(ToClient)
	s.takeAll(ToServer)
	p.Sessions.End(s, &Error{Code: 502, Text: "connection was cut", Cause: l})
}
