// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

const (
	sharedQueue  = 1024     // messages that wait for one client to read
	sharedBytes  = 16 << 20 // and their size, unless it is a single one
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	metaLogLevel = "io.modelcontextprotocol/logLevel"
)

// A sharedServer is one process that serves all clients of revision 2026-07-28: requests are
// independent of each other there, and a subscription hears only of what happens in its own
// process. Ids, progress tokens and subscription ids are renamed on the way in, since two clients
// may use the same ones, and restored on the way out. A process that dies is started again when
// the next request comes, with a growing delay.
type sharedServer struct {
	start  func() (*process, error)
	max    int
	log    *slog.Logger
	params paramTable
	wg     sync.WaitGroup // of readers
	aside  chan struct{}  // bounds what is sent by the side

	mu       sync.Mutex // protects following
	run      *sharedRun // nil while none runs
	failures int
	notUntil time.Time
	closed   bool
}

// A sharedRun is the life of one process.
type sharedRun struct {
	line    lineConn
	process *process
	began   time.Time
	gone    chan struct{} // closed at the end, after err is set
	err     error

	mu    sync.Mutex // protects following
	last  uint64
	calls map[string]*sharedCall // by renamed id; nil after the end
}

// A sharedCall is a call in flight.
type sharedCall struct {
	m       *Message // as the client sent it
	renamed string
	logs    bool          // asked for log messages
	cut     chan struct{} // closed when queue was full
	ready   chan struct{} // holds a value when queue was added to

	mu    sync.Mutex // protects following
	queue []*Message
	bytes int // in queue
}

func newSharedServer(start func() (*process, error), max int, log *slog.Logger) *sharedServer {
	return &sharedServer{start: start, max: max, log: log, aside: make(chan struct{}, maxAside)}
}

// open makes the Server of one transient session.
func (s *sharedServer) open(receive func(*Message, error), patience time.Duration) Server {
	return &sharedHandle{shared: s, receive: receive, patience: patience}
}

// Close ends the process and waits for it.
func (s *sharedServer) Close() {
	s.mu.Lock()
	s.closed = true
	run := s.run
	s.mu.Unlock()
	if run != nil {
		run.process.end()
	}
	s.wg.Wait()
}

// get returns the running process, started if need be.
func (s *sharedServer) get(ctx context.Context, patience time.Duration) (*sharedRun, error) {
	for {
		s.mu.Lock()
		if s.run != nil || s.closed {
			run := s.run
			s.mu.Unlock()
			if run == nil {
				return nil, errShutdown
			}
			return run, nil
		}
		wait := time.Until(s.notUntil)
		if wait <= 0 {
			run, err := s.begin(patience)
			s.mu.Unlock()
			return run, err
		}
		s.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin starts the process. It requires that s.mu is held.
func (s *sharedServer) begin(patience time.Duration) (*sharedRun, error) {
	p, err := s.start()
	if err != nil {
		s.delay()
		return nil, &Error{Code: 502, Text: "server could not be started", Cause: err}
	}
	run := &sharedRun{process: p, began: time.Now(), gone: make(chan struct{}), calls: map[string]*sharedCall{}}
	run.line.w, run.line.before, run.line.patience = p.in, p.before, patience
	s.run = run
	s.wg.Go(func() { // ends with the process's output
		readServer(p, nil, s.max, s.log, func(m *Message, _ error) { s.deliver(run, m) })
		run.err = ended(p)
		run.mu.Lock()
		run.calls = nil
		run.mu.Unlock()
		s.mu.Lock()
		s.run = nil
		if time.Since(run.began) > maxBackoff {
			s.failures = 0
		}
		s.delay()
		closed := s.closed
		s.mu.Unlock()
		if !closed {
			s.log.Warn("shared server ended; it is started again when it is needed", "cause", run.err)
		}
		close(run.gone)
		p.end()
	})
	return run, nil
}

// delay puts off the next start. It requires that s.mu is held.
func (s *sharedServer) delay() {
	s.notUntil = time.Now().Add(min(minBackoff<<min(s.failures, 10), maxBackoff))
	s.failures++
}

// deliver finds whose message m is, gives it back its own names, and queues it for the goroutine
// that waits in Send.
func (s *sharedServer) deliver(run *sharedRun, m *Message) {
	c, m := run.restore(m)
	if c == nil && run.process.stray != nil {
		run.process.stray(m, "it belongs to no call of a client")
	}
	switch {
	case c == nil && m.Kind == Call:
		// MCP 2026-07-28, stdio: "The server MUST NOT write JSON-RPC requests to stdout."
		s.log.Warn("call of a shared server refused", "method", m.Method)
		e := &Error{Code: codeMethodNotFound, Text: "no requests to clients in this revision"}
		s.bySide(run, e.answer(m.ID))
	case c == nil:
		s.log.Debug("message of the shared server belongs to no call", "method", m.Method, "id", m.ID)
	case !c.push(m):
		waits := run.forget(c) // no longer, so that this happens once
		close(c.cut)
		s.wg.Go(c.m.Stream.Abort) // ends when the write that waits has failed
		s.log.Warn("client cut off: it does not read", "method", c.m.Method)
		if waits { // m is not the response
			s.bySide(run, cancellation(c.renamed, "client does not read"))
		}
	}
}

// push queues m for the goroutine that carries it, and reports false when too much waits for it:
// the client does not read.
func (c *sharedCall) push(m *Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) >= sharedQueue || len(c.queue) > 0 && c.bytes+len(m.Raw) > sharedBytes {
		return false
	}
	c.queue, c.bytes = append(c.queue, m), c.bytes+len(m.Raw)
	select {
	case c.ready <- struct{}{}:
	default:
	}
	return true
}

// take empties the queue.
func (c *sharedCall) take() []*Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue := c.queue
	c.queue, c.bytes = nil, 0
	return queue
}

// bySide sends m to the process without waiting for it to read.
func (s *sharedServer) bySide(run *sharedRun, m *Message) {
	s.mu.Lock() // no goroutine begins once Close waits
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	select {
	case s.aside <- struct{}{}:
	default:
		s.log.Warn("message to the server lost: it does not read", "method", m.Method)
		return
	}
	s.wg.Go(func() { // ends when the process reads, or ends
		defer func() { <-s.aside }()
		run.line.Send(context.Background(), m)
	})
}

// book enters a call under a new name. It returns nil after the end.
func (r *sharedRun) book(m *Message) *sharedCall {
	c := &sharedCall{m: m, cut: make(chan struct{}), ready: make(chan struct{}, 1)}
	// "notifications/message continue to flow on the response stream of the request they relate to,
	// not the subscriptions/listen stream."
	c.logs = m.Method != methodListen && member(member(m.Params, "_meta"), metaLogLevel) != ""
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls == nil {
		return nil
	}
	r.last++
	c.renamed = strconv.FormatUint(r.last, 10)
	r.calls[c.renamed] = c
	return c
}

// forget takes c out of the book and reports whether it was there.
func (r *sharedRun) forget(c *sharedCall) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.calls[c.renamed]
	delete(r.calls, c.renamed)
	return ok
}

// rename is the call as the process gets it.
func (c *sharedCall) rename() *Message {
	m := *c.m
	m.Raw, m.ID = replace(m.Raw, c.renamed, "id"), c.renamed
	if m.Token != "" {
		m.Raw, m.Token = replace(m.Raw, c.renamed, "params", "_meta", "progressToken"), c.renamed
	}
	return &m
}

// replace puts text in place of the value at path, if there is one.
func replace(raw, text string, path ...string) string {
	start, end, ok := locate(raw, path...)
	if !ok {
		return raw
	}
	return raw[:start] + text + raw[end:]
}

// restore finds the call that m belongs to, nil if there is none, and returns m as that call's
// client knows it. A log message names no call: it goes to the only one that asked for such, and
// is dropped when there are several.
func (r *sharedRun) restore(m *Message) (*sharedCall, *Message) {
	var name string
	var path []string
	switch {
	case m.Kind == Response:
		name = m.ID
	case m.Kind == Call:
		return nil, m
	case m.Method == methodProgress:
		name, path = member(m.Params, "progressToken"), []string{"params", "progressToken"}
	case m.Method == methodCancelled:
		name, path = member(m.Params, "requestId"), []string{"params", "requestId"}
	default:
		name, path = member(member(m.Params, "_meta"), subscriptionID), []string{"params", "_meta", subscriptionID}
	}
	name = canonicalID(name) // a server may write 1.0 for 1
	r.mu.Lock()
	c := r.calls[name]
	if m.Kind == Response {
		delete(r.calls, name)
	}
	if c == nil && m.Method == methodLog {
		for _, other := range r.calls {
			if other.logs && c != nil {
				c = nil
				break
			} else if other.logs {
				c = other
			}
		}
		path = nil
	}
	r.mu.Unlock()
	if c == nil || m.Method == methodProgress && c.m.Token == "" {
		return nil, m
	}
	back := *m
	back.More = false
	switch {
	case m.Kind == Response:
		back.ID, back.Raw = c.m.ID, replace(m.Raw, c.m.ID, "id")
		if c.m.Method == methodListen {
			back.Raw = replace(back.Raw, c.m.ID, "result", "_meta", subscriptionID)
		}
	case m.Method == methodProgress:
		back.Raw = replace(m.Raw, c.m.Token, path...)
	case path != nil:
		back.Raw = replace(m.Raw, c.m.ID, path...)
		// "A server MUST send notifications/cancelled referencing a subscriptions/listen request
		// ID when it tears down that subscription stream."
		back.Last = m.Method == methodCancelled
	}
	if m.Kind != Response || c.m.Method == methodListen { // else no part but the id has changed
		if again, err := Parse(back.Raw); err == nil {
			again.Last, again.Local, again.Refusal = back.Last, back.Local, back.Refusal
			back = *again
		}
	}
	back.Stream = c.m.Stream
	return c, &back
}

// A sharedHandle is the Server of a transient session, which makes one call.
type sharedHandle struct {
	shared   *sharedServer
	receive  func(*Message, error)
	patience time.Duration // with a process that does not read
}

func (h *sharedHandle) Flush() error                                  { return nil }
func (h *sharedHandle) Listen(context.Context, Stream, *Origin) error { return nil }
func (h *sharedHandle) Close() error                                  { return nil }

// Send passes m to the process and, if it is a call, carries what belongs to it until the
// response. When ctx ends first, the process is told that the call is cancelled.
func (h *sharedHandle) Send(ctx context.Context, m *Message) error {
	if m.Kind != Call && (m.Local || m.Method == methodCancelled) {
		return nil // the end of ctx cancels
	}
	if err := h.shared.params.refusal(m.came()); err != nil {
		return err
	}
	run, err := h.shared.get(ctx, h.patience)
	if err != nil {
		return err
	}
	if m.Kind != Call || m.broken() { // nobody knows what the process makes of that
		return run.line.Send(ctx, m)
	}
	c := run.book(m)
	if c == nil {
		<-run.gone // at once
		return run.err
	}
	var busy *Error
	if err := run.line.Send(ctx, c.rename()); errors.As(err, &busy) {
		run.forget(c)
		return busy
	} else if err != nil {
		run.process.end() // which reads nothing more; the loop tells how it ended
	}
	for {
		select {
		case <-c.ready:
			if h.carry(c) {
				run.forget(c)
				return nil
			}
		case <-c.cut:
			return &Error{Code: 503, Text: "client does not read"}
		case <-ctx.Done():
			if run.forget(c) {
				h.shared.bySide(run, cancellation(c.renamed, "client went away"))
			}
			return context.Cause(ctx)
		case <-run.gone:
			if h.carry(c) {
				return nil
			}
			return run.err
		}
	}
}

// carry passes on what waits and reports whether the last message was among it.
func (h *sharedHandle) carry(c *sharedCall) bool {
	for _, m := range c.take() {
		if m.Kind == Response {
			h.shared.params.note(c.m, m, h.shared.log)
		}
		h.receive(m, nil)
		if m.Kind == Response || m.Last {
			return true
		}
	}
	return false
}
