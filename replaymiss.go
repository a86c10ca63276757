// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// missHandshake is the id of the handshake with the server of a session.
const missHandshake = `"mcpproxy-replay-handshake"`

// A missServer is the server that answers what is not on the tape, from the first such call of a session on. The zero
// value is ready.
type missServer struct {
	dialling sync.Mutex // held while the server is reached, one call waiting for the other
	saying   sync.Mutex // held while the handshake is recorded, likewise

	mu     sync.Mutex // protects following
	server Server     // nil before
	params string     // of the client's initialize
	closed bool
	unsaid []*Message    // the handshake, as far as it is not recorded: a call, its answer and what the client said to that
	gone   error         // why the server ended; nil if it did not
	shook  chan *Message // for the answer to the handshake; nil before
}

// initialize notes what the client said of itself.
func (s *missServer) initialize(m *Message) {
	s.mu.Lock()
	s.params = m.Params
	s.mu.Unlock()
}

// get is the server, nil if none was needed yet.
func (s *missServer) get() Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

func (s *missServer) close() error {
	s.mu.Lock()
	server := s.server
	s.closed = true
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	return server.Close()
}

// pass lets the server have m, which nothing on the tape answers. Only a call is a reason to connect to it.
func (c *playerConn) pass(ctx context.Context, m *Message) error {
	server := c.real.get()
	if server == nil && m.Kind != Call {
		return nil
	}
	if c.p.o.Record != nil {
		if err := c.recordHandshake(ctx); err != nil {
			return err
		}
		out, err := c.p.o.Record(ctx, c.s, m)
		if err != nil {
			return err
		}
		if m = out; m == nil || m.Dir != ToServer {
			return &Error{Code: 403, Status: 200, Text: "refused"}
		}
	}
	if server == nil {
		var err error
		if server, err = c.reach(ctx, m); err != nil {
			return err
		}
	}
	err := server.Send(ctx, m)
	if err == errRelayed || err == errDetached {
		err = &Error{Code: 502, Text: "server's answer has no response"}
	}
	return err
}

// reach connects to the server and, if the client began with a handshake, repeats that.
func (c *playerConn) reach(ctx context.Context, m *Message) (Server, error) {
	c.real.dialling.Lock()
	defer c.real.dialling.Unlock()
	if server := c.real.get(); server != nil {
		return server, nil
	}
	c.real.mu.Lock()
	c.real.gone, c.real.shook = nil, make(chan *Message, 1)
	c.real.mu.Unlock()
	server, err := c.p.o.Server.Dial(ctx, c.s, c.heard)
	if err != nil {
		return nil, err
	}
	if err = c.shake(ctx, server, m); err == nil {
		c.real.mu.Lock()
		if err = c.real.gone; err == nil && c.real.closed {
			err = errClosed
		}
		if err == nil {
			c.real.server = server
		}
		c.real.mu.Unlock()
	}
	if err != nil {
		server.Close()
		return nil, err
	}
	return server, nil
}

// shake is the handshake before m, which is passed on.
func (c *playerConn) shake(ctx context.Context, server Server, m *Message) error {
	c.real.mu.Lock()
	params, shook := c.real.params, c.real.shook
	c.real.mu.Unlock()
	if params == "" || isStateless(m.Revision) {
		return nil
	}
	params = replace(params, quote(c.s.Revision()), "protocolVersion")
	raw := `{"jsonrpc":"2.0","id":` + missHandshake + `,"method":"` + methodInitialize + `","params":` + params + `}`
	if err := server.Send(ctx, &Message{Raw: raw, Kind: Call, ID: missHandshake, Method: methodInitialize, Params: params}); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	select {
	case answer := <-shook:
		if answer == nil { // it is gone, and reach knows why
			return nil
		}
		if answer.Error != "" {
			return &Error{Code: 502, Text: "server refused the handshake"}
		}
	case <-limit.Done():
		return &Error{Code: 504, Text: "server did not answer the handshake"}
	}
	return server.Send(ctx, &Message{Raw: `{"jsonrpc":"2.0","method":"` + methodInitialized + `"}`, Kind: Notification, Method: methodInitialized})
}

// heard carries what the server says to the client. Its HTTP responses end here: the front answers in its own way.
func (c *playerConn) heard(m *Message, err error) {
	c.real.mu.Lock()
	shook, used := c.real.shook, c.real.server != nil
	if err != nil {
		c.real.gone = err
	}
	c.real.mu.Unlock()
	switch {
	case err != nil && used:
		c.receive(nil, err)
		return
	case err != nil || m.Kind == Response && m.ID == missHandshake:
		select {
		case shook <- m:
		default:
		}
		return
	case m.Kind == Opaque:
		return
	}
	out := *m
	if m.Reply != nil {
		out.Reply, out.Event, out.Last = nil, nil, false
	}
	c.recordedReceive(&out)
}

// recordedReceive carries m to the client, and on the tape.
func (c *playerConn) recordedReceive(m *Message) {
	if c.p.o.Record != nil {
		m.Dir = ToClient
		if m.Kind == Response {
			m.Answers = c.s.lookup(ToServer, m.ID)
		}
		if out, err := c.p.o.Record(context.Background(), c.s, m); err != nil || out == nil {
			c.p.o.Log.Error("message not recorded", "method", m.Method, "id", m.ID, "error", err)
		}
	}
	c.receive(m, nil)
}

// answer answers m with result. The handshake is recorded before the first call that is not on the tape, so that the tape
// of what is missing has one, and none is added where nothing is missing.
func (c *playerConn) answer(ctx context.Context, m *Message, result string) error {
	out, err := Parse(`{"jsonrpc":"2.0","id":` + m.ID + `,"result":` + result + `}`)
	if err != nil {
		return &Error{Code: 502, Text: "tape could not be read", Cause: err}
	}
	out.Dir, out.Stream, out.More, out.Answers = ToClient, m.Stream, m.More, m.own
	if c.p.o.Record != nil && isHandshake(m.Method) {
		c.real.mu.Lock()
		c.real.unsaid = []*Message{m, out}
		c.real.mu.Unlock()
		if c.real.get() != nil {
			if err := c.recordHandshake(ctx); err != nil {
				return err
			}
		}
	}
	c.receive(out, nil)
	return nil
}

// initialized notes that the client said so, for the tape.
func (s *missServer) initialized(m *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unsaid) == 2 {
		s.unsaid = append(s.unsaid, m)
	}
}

// recordHandshake records what is not recorded of the handshake.
func (c *playerConn) recordHandshake(ctx context.Context) error {
	c.real.saying.Lock()
	defer c.real.saying.Unlock()
	c.real.mu.Lock()
	unsaid := c.real.unsaid
	c.real.unsaid = nil
	c.real.mu.Unlock()
	for _, m := range unsaid {
		if _, err := c.p.o.Record(ctx, c.s, m); err != nil {
			return err
		}
	}
	return nil
}

// A replayReport counts what became of a run.
type replayReport struct {
	played, passed, unanswered int
	unmatched, loosened        reportList
}

// reportShown is how many things of one kind a report names.
const reportShown = 20

// A reportList counts things and names the first ones.
type reportList struct {
	count int
	names []string
}

func (l *reportList) add(format string, args ...any) {
	if l.count++; l.count <= reportShown {
		l.names = append(l.names, fmt.Sprintf(format, args...))
	}
}

// write writes the list under a heading, if there is anything in it.
func (l *reportList) write(b *strings.Builder, heading string) {
	if l.count == 0 {
		return
	}
	fmt.Fprintf(b, "%s: %d\n", heading, l.count)
	for _, name := range l.names {
		fmt.Fprintf(b, "  %s\n", name)
	}
	if more := l.count - len(l.names); more > 0 {
		fmt.Fprintf(b, "  and %d more\n", more)
	}
}

func (p *Player) count(f func(r *replayReport)) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	f(&p.report)
}

// Report says what became of the run, for people. ok is false if a call matched nothing, or, with FailUnused, if one that
// was recorded was not made.
func (p *Player) Report() (text string, ok bool) {
	p.reporting.Lock()
	r := p.report
	p.reporting.Unlock()
	var unused reportList
	list := p.unused()
	for _, i := range list[:min(len(list), reportShown)] {
		call := &p.index.calls[i]
		what := "cannot be read"
		if m, err := p.message(call.line); err == nil {
			what = strings.TrimSpace(m.Method + " " + selectorOf(m))
		}
		unused.add("seq %d: %s", call.seq, what)
	}
	unused.count = len(list)
	var b strings.Builder
	fmt.Fprintf(&b, "replay: %d calls played, %d unmatched, %d loosened, %d of %d recorded calls unused", r.played, r.unmatched.count,
		r.loosened.count, unused.count, p.index.plain)
	if r.unanswered > 0 {
		fmt.Fprintf(&b, ", %d played had no answer on the tape", r.unanswered)
	}
	if r.passed > 0 {
		fmt.Fprintf(&b, ", %d passed to the server", r.passed)
	}
	b.WriteByte('\n')
	r.unmatched.write(&b, "unmatched")
	r.loosened.write(&b, "loosened")
	if p.o.FailUnused {
		unused.write(&b, "unused")
	}
	return b.String(), r.unmatched.count == 0 && (!p.o.FailUnused || unused.count == 0)
}
