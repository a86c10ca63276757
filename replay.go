// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// demoTape is a conversation with the demo server.
//
//go:embed demo.jsonl
var demoTape string

// PlayerOptions say how a tape is played. A string that is "" stands for the first of its values.
type PlayerOptions struct {
	Order       string    // any, strict: the calls of a session come as recorded
	Ignore      []Pointer // what need not be as recorded: in params, or in a message if it begins with params or result
	OnExhausted string    // error, last, cycle: what a call gets that was made more often than recorded
	// Server gets the calls that are not on the tape; with nil they are refused. Whoever made it closes it.
	Server Dialer
	// Record sees what is exchanged with Server, and the handshake, which is all that is to be recorded. It may be nil.
	Record     Interceptor
	Speed      float64 // 0 waits for nothing, 1 is as recorded
	FailUnused bool
	RedactKey  []byte // for a tape that was redacted with a key of the user's; nil if there is none
	Max        int    // bytes of a line of the tape
	Log        *slog.Logger
}

// A Player is a Dialer that plays a tape in place of a server. Its messages carry no Reply: before it stands a front for
// commands. Make one with OpenPlayer.
type Player struct {
	*matcher
	o      PlayerOptions
	tape   namedTape
	redact *Redactor // as the tape was redacted
	params paramTable
	lone   *liveSession // the calls without session
	asked  atomic.Int64 // requests to clients

	buffers sync.Pool // for reading

	initialize              *playCall // the first that was answered with a result; nil if there is none
	initialized, discovered string    // the first results of initialize and of server/discover; "" if there is none
	info                    string    // JSON text of the server's name and version

	reporting sync.Mutex // protects following
	report    replayReport
}

// OpenPlayer reads the tape once, which errors call name, and notes where its messages are; they are read again when they
// are played. The Player owns tape and closes it if it is an io.Closer. The error is a *[TapeError] or that of tape.
func OpenPlayer(tape io.ReaderAt, name string, o PlayerOptions) (*Player, error) {
	named := namedTape{name, tape}
	r, err := named.reader(o.Max)
	if err != nil {
		return nil, err
	}
	redact, err := newTapeRedactor(&r.Header, o.RedactKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	o.Ignore = slices.Clone(o.Ignore)
	for i, at := range o.Ignore {
		if first := at[0]; first != "params" && first != "result" && first != "error" {
			o.Ignore[i] = append(Pointer{"params"}, at...)
		}
	}
	x := newPlayIndex(o.Ignore)
	if err := r.Each(x.add); err != nil {
		return nil, err
	}
	x.finish()
	for _, warning := range r.Warnings() {
		o.Log.Warn(warning)
	}
	if x.skipped > 0 {
		o.Log.Warn("messages on the tape are not played: they are no messages, or answer no call", "tape", name, "count", x.skipped)
	}
	p := &Player{o: o, tape: named, redact: redact, lone: &liveSession{shared: true, at: map[uint64]int{}}}
	p.matcher = &matcher{
		index: x, strict: o.Order == orderStrict, exhausted: o.OnExhausted, taken: map[int64]int{}, played: make([]int32, len(x.calls)),
	}
	return p, p.handshakes()
}

// Close gives up the tape. All sessions must have ended.
func (p *Player) Close() error {
	if c, ok := p.tape.ReaderAt.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// message reads the message at an index of lines.
func (p *Player) message(line int32) (*Message, error) {
	return p.tape.message(p.index.lines[line].messageAt)
}

// response reads the text of a response and puts id in the place of its own.
func (p *Player) response(line int32, id string) (string, error) {
	l := &p.index.lines[line]
	buf, _ := p.buffers.Get().(*[]byte)
	if buf == nil || len(*buf) < int(l.size) {
		b := make([]byte, max(int(l.size), 16<<10))
		buf = &b
	}
	defer p.buffers.Put(buf)
	text := (*buf)[:l.size]
	if _, err := p.tape.ReadAt(text, l.offset); err != nil {
		return "", fmt.Errorf("%s: %w", p.tape.Name, err)
	}
	var b strings.Builder
	b.Grow(len(text) - int(l.idTo-l.idFrom) + len(id))
	b.Write(text[:l.idFrom])
	b.WriteString(id)
	b.Write(text[l.idTo:])
	return b.String(), nil
}

// Dial begins a conversation with the tape.
func (p *Player) Dial(_ context.Context, s *Session, receive func(*Message, error)) (Server, error) {
	c := &playerConn{p: p, s: s, receive: receive, live: p.lone}
	if !s.Transient {
		c.live = &liveSession{at: map[uint64]int{}}
	}
	return c, nil
}

// A playerConn is the conversation of one session with the tape. What is played goes to the client on the goroutine that
// brought the call, or the answer that it waited for; only what waits for its time has one of its own.
type playerConn struct {
	p       *Player
	s       *Session
	receive func(*Message, error)
	live    *liveSession
	real    missServer
	timers  sync.WaitGroup // that have been set, and what they run

	mu      sync.Mutex // protects following, and what playbacks say that it does
	closed  bool
	playing map[*playback]struct{}
	asks    map[string]*ask // by id
}

// An ask is a request of the server that the client has yet to answer.
type ask struct {
	playback *playback // nil if it belongs to no call
	seq      int64     // of the recorded request
	was      string    // its recorded id, in its canonical form
	id       string    // JSON text
	answer   *Message  // nil before it has come
}

func (c *playerConn) Flush() error                                  { return nil }
func (c *playerConn) Listen(context.Context, Stream, *Origin) error { return nil }

// Send plays what was recorded for m.
func (c *playerConn) Send(ctx context.Context, m *Message) error {
	if m.Kind == Notification && (m.Local || m.Method == methodCancelled) {
		return c.cancelled(ctx, m)
	}
	if c.s.Transient {
		if err := c.p.params.refusal(m.came()); err != nil {
			return err
		}
	}
	if m.broken() {
		return &Error{Code: codeParse, Status: 400, Text: "not a JSON-RPC message"}
	}
	switch m.Kind {
	case Notification:
		return c.noted(ctx, m)
	case Response:
		return c.answered(ctx, m)
	case Call:
		return c.call(ctx, m)
	}
	return nil
}

// Close stops what is played and waits for that.
func (c *playerConn) Close() error {
	c.mu.Lock()
	c.closed = true
	for b := range c.playing {
		b.stop()
	}
	c.asks = nil
	c.mu.Unlock()
	c.timers.Wait()
	return c.real.close()
}

func (c *playerConn) call(ctx context.Context, m *Message) error {
	p := c.p
	if m.Revision != "" && m.Revision != statelessRevision && !p.index.revisions[m.Revision] {
		return &Error{Code: codeVersion, Status: 400, Text: "Unsupported protocol version",
			Data: `"supported":["` + statelessRevision + `"],"requested":` + quote(m.Revision)}
	}
	matched := redactedBy(p.redact.Message, m)
	if answeredByRule(m.Method) {
		return c.rule(ctx, m, matched)
	}
	found := p.find(c.live, matched)
	if found.reason != "" {
		return c.miss(ctx, m, matched, found)
	}
	call := &p.index.calls[found.call]
	p.count(func(r *replayReport) {
		r.played++
		if found.loosened {
			r.loosened.add("%s %s: played seq %d, which is not equal in what may be ignored", m.Method, selectorOf(matched), call.seq)
		}
	})
	c.play(&playback{conn: c, call: call, m: m})
	return nil
}

// redactedBy returns m with what redact replaces in its text, as on the tape.
func redactedBy(redact func(text string) string, m *Message) *Message {
	if text := redact(m.Raw); text != m.Raw {
		if r, err := Parse(text); err == nil {
			return r
		}
	}
	return m
}

// miss answers a call that is not on the tape, or lets the server do that.
func (c *playerConn) miss(ctx context.Context, m, matched *Message, found foundCall) error {
	if c.p.o.Server != nil {
		c.p.count(func(r *replayReport) { r.passed++ })
		return c.pass(ctx, m)
	}
	var near []nearCall
	if found.reason != reasonOrder {
		near = c.p.nearest(matched)
	} else if n, ok := c.p.compare(&c.p.index.calls[found.call], matched); ok {
		near = append(near, n)
	}
	return c.p.missed(matched, found.reason, near)
}

// noted takes a notification of the client. They change nothing, but some messages of the server come after the one that
// ends the handshake.
func (c *playerConn) noted(ctx context.Context, m *Message) error {
	if m.Method == methodInitialized && !c.live.shared {
		if call := c.p.handshakeOf(c.live); call != nil {
			c.play(&playback{conn: c, call: call, m: m, answered: true, line: call.after})
		}
	}
	if m.Method == methodInitialized && c.real.get() == nil {
		c.real.initialized(m)
	}
	return c.pass(ctx, m)
}

// cancelled drops what is left of a call.
func (c *playerConn) cancelled(ctx context.Context, m *Message) error {
	id := canonicalID(member(m.Params, "requestId"))
	c.mu.Lock()
	for b := range c.playing {
		if b.m.Kind == Call && canonicalID(b.m.ID) == id && !b.answered {
			b.stop()
			c.mu.Unlock()
			return nil
		}
	}
	c.mu.Unlock()
	return c.pass(ctx, m)
}

// answered takes the client's answer to a request of the server.
func (c *playerConn) answered(ctx context.Context, m *Message) error {
	id := canonicalID(m.ID)
	c.mu.Lock()
	a := c.asks[id]
	delete(c.asks, id)
	if a != nil {
		a.answer = m
	}
	c.mu.Unlock()
	if a == nil {
		return c.pass(ctx, m)
	}
	if a.playback != nil {
		a.playback.run()
	}
	return nil
}
