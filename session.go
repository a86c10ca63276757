// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds keep sessions finite. A duration of 0 means no bound; the counts must be positive.
type Bounds struct {
	Sessions    int           // open at the same time
	Calls       int           // in flight per session and direction
	Idle        time.Duration // without a message; never while a call or a stream is open
	Lifetime    time.Duration // from the first message
	CallTimeout time.Duration // for a call; each progress notification starts it anew
}

// A PendingCall is a call in flight. It is immutable but for what the session guards.
type PendingCall struct {
	Message *Message           // as it came
	Stream  Stream             // where the client waits for the answer; nil over stdio
	key     string             // canonical id
	cancel  context.CancelFunc // ends what carries the call; may be nil

	deadline time.Duration // since the session was opened; guarded by that; 0 means none
	struck   time.Duration // likewise, when its answer came; for who got it from strike or answered

	seq, x atomic.Int64                       // of its line on the tape, and of that line's exchange; see [Entry]
	waits  atomic.Pointer[context.CancelFunc] // ends what holds it or its response; nil for nothing
	held   atomic.Pointer[chan struct{}]      // closed when what was held last of its exchange has gone on; nil for nothing
	lost   atomic.Bool                        // it or its response was, by a rule: who asked waits on
	answer bool                               // it has come and not gone on yet; guarded by the session
}

// release ends what carries the call, if there is something. c may be nil.
func (c *PendingCall) release() {
	if c != nil && c.cancel != nil {
		c.cancel()
	}
}

// over ends that, and what holds the call or its response.
func (c *PendingCall) over() {
	if c.release(); c.waits.Load() != nil {
		(*c.waits.Load())()
	}
}

// A Session ties a client's Conn to a server's. Up to 2025-11-25 it is what Mcp-Session-Id names,
// or one conversation over stdio. A transient session serves one HTTP request: in 2026-07-28, and
// in front of HTTP servers that give no session id.
type Session struct {
	Transient bool
	User      string // who opened it, "" if nobody was authenticated
	table     *Sessions
	client    Conn
	server    Server
	expire    func(*Session, Direction, *PendingCall) // a call took too long
	gone      <-chan struct{}                         // closed when the client of a transient session goes away, else nil
	aside     atomic.Int32                            // what the proxy is telling the server by itself
	secret    atomic.Pointer[knownSecret]             // the last Mcp-Session-Id of the server; nil if there is none
	tape      atomic.Int64                            // number on the tape, negative if it is there without one; 0 if it is not

	mu       sync.Mutex                 // protects following
	id       string                     // towards the client; "" if it has none
	revision string                     // agreed in initialize; "" before
	calls    [2]map[string]*PendingCall // by canonical id
	opened   time.Time
	used     time.Time
	streams  int // open GET streams
	held     int // messages that wait to go on
	timer    *time.Timer
	quiet    chan struct{} // closed once nothing is owed to the client; nil if nobody asks
	over     chan struct{} // closed when the session ends; nil if nobody asks
	ended    bool
	reason   error // why it ended, or is about to
}

var (
	errIdle     = errors.New("session was idle too long")
	errLifetime = errors.New("session reached its lifetime")
	errDeleted  = errors.New("client ended the session")
	errShutdown = errors.New("proxy is shutting down")
	errServed   = errors.New("request was served")
	errGone     = errors.New("client is gone")
)

// ID is the id of the session towards the client, "" if it has none.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Revision is what initialize agreed on, "" before that and in 2026-07-28.
func (s *Session) Revision() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}

// agree notes the revision that m, a response to the client, agrees on if it answers initialize.
func (s *Session) agree(m *Message) {
	if m.Answers.Message.Method != methodInitialize || m.Result == "" {
		return
	}
	revision, _ := unquote(member(m.Result, "protocolVersion"))
	s.mu.Lock()
	s.revision = revision
	s.mu.Unlock()
}

// Ended reports whether the session is over.
func (s *Session) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Reason is why the session ended, nil before.
func (s *Session) Reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		return nil
	}
	return s.reason
}

// leave says why the session is about to end, whatever End is told then.
func (s *Session) leave(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.reason = reason
	}
}

// label names the session in the log: its id is a secret, so only the start of it.
func (s *Session) label() string {
	if id := s.ID(); id != "" {
		return id[:6]
	}
	return "-"
}

// setServer ties the session to its server. It reports false when the session has ended meanwhile;
// the caller then closes the server.
func (s *Session) setServer(server Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = server
	return !s.ended
}

// book enters a call that goes in direction d. An id that is in use is refused, as JSON-RPC has no
// way to tell the answers apart. A call whose response was lost is entered again, unless it is there, however many there
// are, with the time that it has left.
func (s *Session) book(d Direction, c *PendingCall) *Error {
	c.key = canonicalID(c.Message.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.used = now
	if s.ended {
		var gone *Error
		if s.id == "" && errors.As(s.reason, &gone) {
			return gone
		}
		return &Error{Code: 404, Text: "session not found", Bare: s.id != ""}
	}
	if s.calls[d][c.key] != nil {
		return &Error{Code: codeInvalid, Status: 400, Text: "a call with this id is in flight"}
	}
	if len(s.calls[d]) >= s.table.bounds.Calls && c.struck == 0 {
		return &Error{Code: 503, Text: "too many calls in flight", RetryAfter: time.Second}
	}
	// A subscription is a call without an end.
	if t := s.table.bounds.CallTimeout; t > 0 && c.deadline == 0 && c.Message.Method != methodListen {
		c.deadline = now.Sub(s.opened) + t
	}
	if s.calls[d] == nil {
		s.calls[d] = map[string]*PendingCall{}
	}
	s.calls[d][c.key] = c
	if c.deadline != 0 {
		s.arm(now) // after c is entered, or the timer does not know of it
	}
	return nil
}

// answered finds the call of the client that a response with this id answers, nil if there is none. It stays in the book,
// as what carries the response may take its time, or lose it: see strikeCall and abandon.
func (s *Session) answered(id string) *PendingCall {
	key := canonicalID(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	c := s.calls[ToServer][key]
	if c == nil || c.answer {
		return nil
	}
	c.answer, c.struck = true, s.used.Sub(s.opened)
	return c
}

// strike takes the call with this id out of the book, and returns nil if there is none.
func (s *Session) strike(d Direction, id string) *PendingCall {
	key := canonicalID(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	c := s.calls[d][key]
	if c != nil {
		c.struck = s.used.Sub(s.opened)
		s.remove(d, c)
	}
	return c
}

// strikeCall takes c out of the book and reports whether it was there.
func (s *Session) strikeCall(d Direction, c *PendingCall) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[d][c.key] != c {
		return false
	}
	s.remove(d, c)
	return true
}

// remove requires that s.mu is held.
func (s *Session) remove(d Direction, c *PendingCall) {
	delete(s.calls[d], c.key)
	s.settled()
}

// settled tells whoever waits for that if nothing is owed any more. It requires that s.mu is held.
func (s *Session) settled() {
	if s.quiet != nil && !s.owes() {
		close(s.quiet)
		s.quiet = nil
	}
}

// hold counts a message that waits, until release is called. over is closed when the session ends. ok is false if many
// wait already.
func (s *Session) hold() (over <-chan struct{}, release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = make(chan struct{})
		if s.ended {
			close(s.over)
		}
	}
	s.held++
	return s.over, func() {
		s.mu.Lock()
		s.held--
		s.used = time.Now()
		s.settled()
		s.mu.Unlock()
	}, s.held <= maxHeld
}

// whenOver has cancel called when c, a call of the client, is over unanswered.
func (s *Session) whenOver(c *PendingCall, cancel context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[ToServer][c.key] == c {
		c.waits.Store(&cancel) // for who takes c out of the book
	} else {
		cancel()
	}
}

// owes reports whether a client waits for an answer, or a message waits. It requires that s.mu is held.
func (s *Session) owes() bool {
	if s.held > 0 {
		return true
	}
	for _, c := range s.calls[ToServer] {
		if c.Message.Method != methodListen && !c.lost.Load() {
			return true
		}
	}
	return false
}

// abandon notes that no answer to c will come, for which nobody but who asked waits from then on.
func (s *Session) abandon(c *PendingCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.lost.Store(true)
	c.answer = false
	s.settled()
}

// Quiet returns a channel that is closed once no call of the client waits for its answer, and no message to go on.
// Subscriptions do not count: they have no end of their own.
func (s *Session) Quiet() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && s.owes() {
		if s.quiet == nil {
			s.quiet = make(chan struct{})
		}
		return s.quiet
	}
	done := make(chan struct{})
	close(done)
	return done
}

// takeAll empties the book of one direction.
func (s *Session) takeAll(d Direction) map[string]*PendingCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls[d]
	s.calls[d] = nil
	s.settled()
	return calls
}

// touch notes that the session is in use. With progress it also starts anew the time of the call
// that has this progress token.
func (s *Session) touch(d Direction, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	if token == "" {
		return
	}
	for _, c := range s.calls[d] {
		if canonicalID(c.Message.Token) == token && c.deadline != 0 {
			c.deadline = s.used.Sub(s.opened) + s.table.bounds.CallTimeout
		}
	}
}

// lookup returns the call with this id that is in flight in direction d, or nil.
func (s *Session) lookup(d Direction, id string) *PendingCall {
	key := canonicalID(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[d][key]
}

// place finds the exchange of a message of the server, unless its Conn has said which it is, and the stream of that.
func (s *Session) place(m *Message) {
	if m.Within == nil {
		m.Within = s.within(m)
	}
	if m.Stream == nil && m.Within != nil {
		m.Stream = m.Within.Stream
	}
}

// within finds the client's call in whose exchange a message of the server travels, nil for none: by its stream, or
// else, as on stdio, by its progress token or subscription id, or, if it may belong to a call, by being sent while just
// one is in flight.
func (s *Session) within(m *Message) *PendingCall {
	token := progressToken(m)
	subscription := ""
	if m.Stream == nil && m.Kind == Notification && token == "" {
		subscription = canonicalID(member(member(m.Params, "_meta"), subscriptionID))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls[ToServer]
	if subscription != "" {
		return calls[subscription]
	}
	n, last := 0, (*PendingCall)(nil) // of those that are not answered
	for _, c := range calls {
		if m.Stream != nil && c.Stream == m.Stream || token != "" && canonicalID(c.Message.Token) == token {
			return c
		}
		if !c.answer {
			n, last = n+1, c
		}
	}
	if n == 1 && m.Stream == nil && (m.Kind == Call || m.Method == methodLog || token != "") {
		return last
	}
	return nil
}

// holdStream counts an open GET stream; release ends that.
func (s *Session) holdStream() (release func()) {
	s.mu.Lock()
	s.streams++
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.streams--
		s.used = time.Now()
		s.mu.Unlock()
	}
}

// arm sets the timer for the first thing that can expire, unless it is set. It requires that s.mu
// is held.
func (s *Session) arm(now time.Time) {
	if s.timer != nil || s.ended {
		return
	}
	next := s.next(now)
	if next.IsZero() {
		return
	}
	s.timer = time.AfterFunc(next.Sub(now), s.tick)
}

// next is when to look again, zero for never. It requires that s.mu is held. Calls that are
// answered leave the timer as it is: one timer serves thousands of them.
func (s *Session) next(now time.Time) time.Time {
	b := s.table.bounds
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for d := range s.calls {
		for _, c := range s.calls[d] {
			if c.deadline != 0 {
				sooner(s.opened.Add(c.deadline))
			}
		}
	}
	if s.id == "" { // one on stdio, or transient, lives as long as its client
		return next
	}
	if b.CallTimeout > 0 { // calls that come before the timer fires must find it early enough
		sooner(now.Add(b.CallTimeout))
	}
	if b.Lifetime > 0 {
		sooner(s.opened.Add(b.Lifetime))
	}
	if b.Idle > 0 {
		if s.busy() {
			sooner(now.Add(b.Idle))
		} else {
			sooner(s.used.Add(b.Idle))
		}
	}
	return next
}

func (s *Session) busy() bool {
	return s.streams > 0 || s.held > 0 || len(s.calls[ToServer]) > 0 || len(s.calls[ToClient]) > 0
}

// tick expires what is due.
func (s *Session) tick() {
	type late struct {
		d Direction
		c *PendingCall
	}
	var due []late
	b := s.table.bounds
	s.mu.Lock()
	now := time.Now()
	var reason error
	switch {
	case s.ended:
	case s.id != "" && b.Lifetime > 0 && !now.Before(s.opened.Add(b.Lifetime)):
		reason = errLifetime
	case s.id != "" && b.Idle > 0 && !s.busy() && !now.Before(s.used.Add(b.Idle)):
		reason = errIdle
	default:
		for d := range s.calls {
			for _, c := range s.calls[d] {
				if c.deadline != 0 && now.Sub(s.opened) >= c.deadline {
					due = append(due, late{Direction(d), c})
					s.remove(Direction(d), c)
				}
			}
		}
		s.timer = nil
		s.arm(now)
	}
	s.mu.Unlock()
	if reason != nil {
		s.table.End(s, reason)
	}
	for _, l := range due {
		s.expire(s, l.d, l.c)
	}
}
