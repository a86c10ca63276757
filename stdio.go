// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

var errClosed = errors.New("conversation is over")

// A process is a running server on stdio.
type process struct {
	in     io.WriteCloser
	out    io.Reader
	done   <-chan struct{} // closed once it has ended
	status func() string   // how it ended, for people; after done
	end    func()          // ends it and waits for that; may be called more than once

	owner   atomic.Pointer[Session]      // whose it is; nil for one that sessions share
	before  func() error                 // comes before anything is written to it; nil for nothing
	garbage func(line string)            // hears of lines that are no messages; nil for nobody
	stray   func(m *Message, why string) // hears of messages that belong to nobody; nil for nobody
}

// A commandDialer gives sessions a process each to talk to, except those without a session in the
// protocol: they share one.
type commandDialer struct {
	start  func() (*process, error)
	max    int // bytes of a message
	log    *slog.Logger
	shared *sharedServer

	release func() // of what start needs; called by Close; nil for nothing
}

func newCommandDialer(start func() (*process, error), max int, log *slog.Logger) *commandDialer {
	return &commandDialer{start: start, max: max, log: log, shared: newSharedServer(start, max, log)}
}

func (d *commandDialer) Dial(_ context.Context, s *Session, receive func(*Message, error)) (Server, error) {
	if s.Transient {
		return d.shared.open(receive, s.table.bounds.CallTimeout), nil
	}
	p, err := d.start()
	if err != nil {
		return nil, &Error{Code: 502, Text: "server could not be started", Cause: err}
	}
	p.owner.Store(s)
	c := &commandConn{lineConn: lineConn{w: p.in, before: p.before, patience: s.table.bounds.CallTimeout}, process: p}
	c.reader.Go(func() {
		readServer(p, s, d.max, d.log, receive)
		receive(nil, ended(p))
	})
	return c, nil
}

// Close ends the server that sessions share. All sessions must have ended.
func (d *commandDialer) Close() error {
	d.shared.Close()
	if d.release != nil {
		d.release()
	}
	return nil
}

// ended waits for p, whose output is at its end, and says what became of it.
func ended(p *process) error {
	select {
	case <-p.done:
	case <-time.After(time.Second):
		p.end() // it closed its output and lives on
	}
	return &Error{Code: 502, Text: "server is gone", Exit: p.status()}
}

// A commandConn is the conversation of one session with its process.
type commandConn struct {
	lineConn
	process *process
	reader  sync.WaitGroup // ends with the process's output
}

// Send writes m. MCP, Cancellation: "The initialize request MUST NOT be cancelled by clients".
func (c *commandConn) Send(ctx context.Context, m *Message) error {
	if m.Local && m.Method == methodCancelled && m.Answers.Message.Method == methodInitialize {
		return nil
	}
	err := c.lineConn.Send(ctx, m)
	if err != nil && c.broken() {
		go c.process.end() // which takes 5 s at most, and with which all else ends
	}
	var told *Error
	if err != nil && !errors.As(err, &told) {
		err = &Error{Code: 502, Text: "server is gone", Cause: err}
	}
	return err
}

func (c *commandConn) Listen(context.Context, Stream, *Origin) error { return nil }

// Close ends the process and waits until all it said is carried on.
func (c *commandConn) Close() error {
	c.process.end()
	c.reader.Wait()
	return nil
}

// readServer hands what a server on stdio says to receive, until its output ends. Lines that are
// no messages stay here: MCP, stdio: "The server MUST NOT write anything to its stdout that is not
// a valid MCP message."
func readServer(p *process, s *Session, max int, log *slog.Logger, receive func(*Message, error)) {
	bad := 0
	garbage := func(err error, line string) {
		bad++
		log.Warn("server wrote a line that is no message", "count", bad, "bytes", len(line), "error", err)
		if p.garbage != nil {
			p.garbage(line)
		}
	}
	flush := func(more bool) {
		if !more && s != nil { // the line for which others were kept back may have been dropped
			s.client.Flush()
		}
	}
	err := readLines(p.out, max, func(line string, more bool) {
		defer flush(more)
		m, err := Parse(line)
		switch {
		case err == errBatch && (s == nil || s.Revision() != batchRevision):
			garbage(errors.New("a batch outside a session of "+batchRevision), line)
		case err == errBatch:
			texts, err := splitBatch(line, maxBatch)
			if err != nil {
				garbage(err, line)
			}
			for _, text := range texts {
				if m, err := Parse(text); err != nil {
					garbage(err, text)
				} else {
					receive(m, nil)
				}
			}
		case err != nil:
			garbage(err, line)
		default:
			m.More = more
			receive(m, nil)
		}
	}, func(start string) {
		log.Warn("server wrote a message over the size limit", "limit", max)
		if id, kind := peekID(start); id != "" && kind == Response {
			receive((&Error{Code: 502, Text: "answer is over the size limit"}).answer(id), nil)
		}
		flush(false)
	})
	if err != nil {
		log.Debug("server's output ended", "error", err)
	}
}

const (
	batchRevision = "2025-03-26" // the one revision that has batches
	maxBatch      = 100          // messages in one
)

// A stdioClient is the one client on stdin and stdout.
type stdioClient struct {
	lineConn
	eof    atomic.Bool   // it will say nothing more
	closed chan struct{} // closed by Close
	once   sync.Once
}

// Send refuses what asks for an answer when none can come.
func (c *stdioClient) Send(ctx context.Context, m *Message) error {
	if m.Kind == Call && c.eof.Load() {
		return errClosed
	}
	if m.twice() {
		if err := c.lineConn.Send(ctx, m); err != nil {
			return err
		}
	}
	return c.lineConn.Send(ctx, m)
}

// Close leaves stdout open: what is owed may still be written.
func (c *stdioClient) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Flush()
}

// serveStdio serves the client on in and out. It returns when the client has closed in and all
// answers are written, when the server is gone, or, after at most grace, when ctx ends.
func serveStdio(ctx context.Context, p *Proxy, in io.Reader, out io.WriteCloser, max int, grace time.Duration) error {
	client := &stdioClient{lineConn: lineConn{w: out}, closed: make(chan struct{})}
	s, err := p.Open(ctx, client, "", false)
	if err != nil {
		return err
	}
	eof := make(chan error, 1)
	go readClient(ctx, p, s, client, in, max, eof) // a read of stdin cannot be interrupted: it ends with the program
	var readErr error
	select {
	case readErr = <-eof:
	case <-client.closed:
	case <-ctx.Done():
	}
	client.eof.Store(true)
	for _, c := range s.takeAll(ToClient) {
		p.refuseServer(s, c.Message, errClosed)
	}
	quiet := s.Quiet()
	select {
	case <-quiet:
	case <-client.closed:
	case <-ctx.Done():
		select {
		case <-quiet:
		case <-client.closed:
		case <-time.After(grace):
		}
	}
	serverFirst, reason := s.Ended(), errGone
	if ctx.Err() != nil {
		reason = errShutdown
	}
	s.leave(reason)
	closed := make(chan struct{})
	go func() { // a client that does not read holds this up: it then ends with the program
		defer close(closed)
		s.server.Close() // before the session ends, so that its last words still reach the client
		p.Sessions.End(s, reason)
		p.Close()
		client.Flush()
	}()
	select {
	case <-closed:
	case <-time.After(stdioEnd):
		p.Log.Warn("client does not read: what is owed to it is lost")
	}
	var gone *Error
	if serverFirst && errors.As(s.Reason(), &gone) && gone.Exit == "" {
		return gone
	} else if serverFirst && gone != nil && gone.Exit != "exit status 0" {
		return errors.New("server ended: " + gone.Exit)
	}
	return readErr
}

// stdioEnd is how long the end of a conversation may take. A process has 5 s of it.
const stdioEnd = 15 * time.Second

// readClient carries what the client says until in ends.
func readClient(ctx context.Context, p *Proxy, s *Session, client *stdioClient, in io.Reader, max int, eof chan<- error) {
	err := readLines(in, max, func(line string, more bool) {
		batch, bad := parseClient(s, line)
		for _, m := range batch {
			m.More = more
			p.ToServer(ctx, s, m)
		}
		for _, e := range bad {
			p.reject(s, nil, e)
		}
		if !more {
			s.server.Flush()
			client.Flush()
		}
	}, func(start string) {
		p.reject(s, nil, tooLarge(start))
		s.server.Flush()
	})
	eof <- err
}

// parseClient reads one message, or a batch where the session's revision has those. bad are the
// refusals of what is neither: one if there is no message at all, else of parts of the batch.
func parseClient(s *Session, text string) (batch []*Message, bad []*Error) {
	m, err := Parse(text)
	if err == nil {
		return []*Message{m}, nil
	}
	var texts []string
	if err == errBatch && s.Revision() == batchRevision {
		texts, err = splitBatch(text, maxBatch)
	}
	if err != nil {
		return nil, []*Error{parseRefusal(err)}
	}
	for _, text := range texts {
		if m, err := Parse(text); err != nil {
			bad = append(bad, parseRefusal(err))
		} else {
			batch = append(batch, m)
		}
	}
	return batch, bad
}

// parseRefusal is the answer to bytes that are no message.
func parseRefusal(err error) *Error {
	var e *ParseError
	switch {
	case err == errBatch:
		return &Error{Code: codeInvalid, Status: 400, Text: "batches are not part of this revision"}
	case errors.As(err, &e):
		return &Error{Code: e.Code, Status: 400, Text: e.Error()}
	}
	return &Error{Code: codeParse, Status: 400, Text: "not a JSON-RPC message", Cause: err}
}

// tooLarge refuses a message over the size limit that begins with start.
func tooLarge(start string) *Error {
	e := &Error{Code: 413, Text: "message is over the size limit"}
	if id, kind := peekID(start); kind != Response { // else the id is one of the other side's
		e.ID = id
	}
	return e
}
