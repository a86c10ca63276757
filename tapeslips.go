// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

// message checks what client and server did by sending m.
func (c *tapeChecker) message(e *Entry, m *Message) {
	s := c.session(e)
	if e.Was != 0 { // the same message again, as a rule changed it
		if m.Kind == Call {
			c.book.book(e, m)
		}
		return
	}
	if !e.Local {
		c.handshake(e, m, s)
	}
	switch m.Kind {
	case Call:
		c.call(e, m, s)
	case Response:
		c.response(e, m, s)
	case Notification:
		switch m.Method {
		case methodCancelled:
			c.cancel(e, m)
		case methodProgress:
			c.progress(e, m)
		}
	}
}

// handshake checks that a session of up to 2025-11-25 begins as it must, and notes how far it is.
func (c *tapeChecker) handshake(e *Entry, m *Message, s *checkedSession) {
	toServer := e.Dir == dirToServer
	switch {
	case s == c.sessions[0]:
	case toServer && m.Kind == Call && isStateless(m.Revision):
		s.stage, s.stateless = stageReady, true
	case toServer && m.Method == methodInitialize && m.Kind == Call:
		if s.stage != stageNew && !s.stateless {
			c.report(e, severityError, "a second initialize in session %d", e.Session)
			return
		}
		s.stage, s.stateless = stageAsked, false
	case m.Kind == Response || m.Method == "ping" || s.stage == stageReady:
	case s.stage == stageNew && m.Method == methodDiscover:
	case s.stage == stageNew:
		c.report(e, severityError, "%s before initialize", printable(m.Method, 60))
		s.stage = stageReady
	case toServer && m.Method == methodInitialized && s.stage == stageAnswered:
		s.stage = stageReady
	case toServer && s.stage == stageAsked && (m.Kind == Call || m.Method == methodInitialized):
		if m.Method == methodInitialized {
			s.stage = stageReady
		}
		c.report(e, severityWarning, "%s before the answer to initialize", printable(m.Method, 60))
	case !toServer && m.Kind == Call:
		c.report(e, severityWarning, "server asks for %s before %s", printable(m.Method, 60), methodInitialized)
	}
}

// call enters a call in the books.
func (c *tapeChecker) call(e *Entry, m *Message, s *checkedSession) {
	if exchange := c.book.calls[e.X]; e.Dir == dirToClient && !e.Local && (s.stateless || exchange != nil && exchange.stateless) {
		c.report(e, severityError, "server asks for %s, and since %s no server asks", printable(m.Method, 60), statelessRevision)
	}
	call := c.book.book(e, m)
	if call == nil {
		return
	}
	call.line = c.tape.Line
	s.calls[call.seq] = call
	if s == c.sessions[0] {
		call.session = 0
	}
	// Without a session, several clients may use the same id. What the proxy refused, it may have refused for its id.
	if call.session == 0 || e.Local {
		return
	}
	for _, x := range []struct {
		names map[checkKey]*tapeCall
		hash  uint64
		what  string
	}{{c.ids, call.idHash, "id"}, {c.tokens, call.token, "progress token"}} {
		key := checkKey{call.session, call.dir, x.hash}
		if other := x.names[key]; other != nil && !other.retired {
			c.report(e, severityError, "%s has the %s of the call seq %d, which is in flight", call, x.what, other.seq)
		}
		if x.hash != 0 {
			x.names[key] = call
		}
	}
}

// response finds the call that m answers, by e.Re alone: ids are reused.
func (c *tapeChecker) response(e *Entry, m *Message, s *checkedSession) {
	call := c.book.calls[e.Re]
	id := c.book.hash(m.ID)
	if call == nil && e.Re == 0 { // the proxy has forgotten a call that was cancelled
		if late := c.ids[checkKey{e.Session, opposite(e.Dir), id}]; late != nil && late.retired {
			call = late
		}
	}
	switch {
	case call == nil && (c.book.full || e.Local || e.Re > 0 && e.Re < c.first):
	case call == nil && e.Re == 0 && m.ID == "":
		c.report(e, severityWarning, "an error without id, which answers no call")
	case call == nil && e.Re == 0 && e.Session == 0:
		c.report(e, severityWarning, "a response with id %s to no call, or a late one", printable(m.ID, 24))
	case call == nil && e.Re == 0:
		c.report(e, severityError, "a response to no call, with id %s", printable(m.ID, 24))
	case call == nil:
		c.report(e, severityError, "re is %d, which is no call in flight", e.Re)
	case call.dir == e.Dir:
		c.report(e, severityError, "a response that goes the way of its call seq %d", call.seq)
	case call.session != e.Session && call.session != 0 && e.Session != 0:
		c.report(e, severityError, "a response in session %d to the call seq %d of session %d", e.Session, call.seq, call.session)
	case call.idHash != id && m.ID != "":
		c.report(e, severityError, "a response with id %s to the call seq %d with id %s", printable(m.ID, 24), call.seq, printable(call.id, 24))
	case call.cancelled && !e.Local && call.method != methodListen:
		c.report(e, severityWarning, "a late answer: the call seq %d was cancelled", call.seq)
	case call.local && !e.Local:
		c.report(e, severityWarning, "a late answer: the proxy had answered the call seq %d", call.seq)
	case call.retired && !e.Local:
		c.report(e, severityError, "a second response to the call seq %d", call.seq)
	}
	if call == nil || call.dir == e.Dir {
		return
	}
	if call.method == methodInitialize && !call.retired && s.stage == stageAsked {
		if s.stage = stageAnswered; m.Error != "" {
			s.stage = stageNew
		}
	}
	if call.cancelled {
		call.cancelled = false
		c.excuse(call, &c.verdict.Cancelled, -1)
	}
	if call.local = call.local || e.Local; !call.local {
		c.forget(c.ids, call, call.idHash)
	}
	c.retireAnswered(call, m)
}

// retireAnswered takes an answered call out of the books. Its progress token stays if the answer is a task: up to
// 2025-11-25 that goes on reporting its progress by it.
func (c *tapeChecker) retireAnswered(call *tapeCall, m *Message) {
	if call.token != 0 && member(m.Result, "task") != "" && len(c.tokens) < maxFollowed {
		call.token = 0
	}
	c.retire(call)
}

// cancel notes that a call is cancelled. One that is unknown, or answered, is none of a peer's fault: the two crossed.
func (c *tapeChecker) cancel(e *Entry, m *Message) {
	id := c.book.hash(member(m.Params, "requestId"))
	call := c.ids[checkKey{e.Session, e.Dir, id}]
	if x := c.book.calls[e.X]; call == nil && x != nil && x.idHash == id && x.dir == e.Dir {
		call = x
	}
	if id == 0 || call == nil || call.retired {
		return
	}
	if call.method == methodInitialize {
		c.report(e, severityError, "%s is cancelled, which it must not be", call)
	}
	call.cancelled = true
	c.excuse(call, &c.verdict.Cancelled, 1)
	c.retire(call)
}

// progress checks that a call in flight has asked for it.
func (c *tapeChecker) progress(e *Entry, m *Message) {
	text := member(m.Params, "progressToken")
	key := checkKey{e.Session, opposite(e.Dir), c.book.hash(text)}
	call := c.book.calls[e.X]
	switch {
	case c.book.full || e.Local || c.tokens[key] != nil || key.session == 0 && e.Dir == dirToServer:
	case call != nil && call.token == key.hash && !call.retired:
	case call != nil && call.token == key.hash && call.cancelled:
		c.report(e, severityWarning, "progress of the call seq %d, which was cancelled", call.seq)
	default:
		c.report(e, severityError, "progress for the token %s, which no call in flight has given", printable(text, 24))
	}
}

// opposite is the other direction.
func opposite(dir string) string {
	if dir == dirToServer {
		return dirToClient
	}
	return dirToServer
}
