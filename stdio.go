// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// lineBuffer is how much is read and written at a time.
const lineBuffer = 64 << 10

var errClosed = errors.New("conversation is over")

// A lineConn writes messages to a byte stream, one a line. It owns w.
//
// MCP, stdio: "Messages are delimited by newlines, and MUST NOT contain embedded newlines."
type lineConn struct {
	w       io.WriteCloser
	waiting atomic.Int32 // senders that have yet to get mu

	mu  sync.Mutex // protects following, and is held while writing to w
	buf []byte
	err error // of an earlier write
}

// Send writes m. It leaves the writing to the next sender if one is waiting already.
func (c *lineConn) Send(_ context.Context, m *Message) error {
	if m.Kind == Opaque {
		return nil
	}
	c.waiting.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	follows := c.waiting.Add(-1) > 0 || m.More
	if c.err != nil {
		return c.err
	}
	switch {
	case m.Newlines:
		start := len(c.buf)
		c.buf = append(c.buf, m.Raw...)
		for i, b := range c.buf[start:] {
			if b == '\n' || b == '\r' {
				c.buf[start+i] = ' '
			}
		}
	case len(m.Raw) > lineBuffer:
		if err := c.flush(); err != nil {
			return err
		}
		if _, c.err = io.WriteString(c.w, m.Raw); c.err != nil {
			return c.err
		}
	default:
		c.buf = append(c.buf, m.Raw...)
	}
	c.buf = append(c.buf, '\n')
	if follows && len(c.buf) < lineBuffer {
		return nil
	}
	return c.flush()
}

// Flush writes what is left.
func (c *lineConn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush()
}

// flush requires that c.mu is held.
func (c *lineConn) flush() error {
	if len(c.buf) > 0 && c.err == nil {
		_, c.err = c.w.Write(c.buf)
		if cap(c.buf) > 4*lineBuffer {
			c.buf = nil
		}
		c.buf = c.buf[:0]
	}
	return c.err
}

// Close closes the stream, which also unblocks a Send that waits for its reader.
func (c *lineConn) Close() error { return c.w.Close() }

// readLines hands each line of r that is not blank to handle until r ends, and returns nil at its
// end. more says that the next line that is not blank has arrived whole. A line over max bytes is skipped; its
// first bytes go to tooLong. A last line without newline counts.
func readLines(r io.Reader, max int, handle func(line string, more bool), tooLong func(start string)) error {
	l := lineReader{r: r, max: max, buf: make([]byte, lineBuffer)}
	for {
		line, whole, err := l.next()
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case !whole || len(line) > max:
			tooLong(string(line[:min(len(line), peekBytes)]))
		case len(line) > 0 && (line[0] > ' ' || len(bytes.TrimSpace(line)) > 0):
			text := string(line)
			l.shrink()
			handle(text, l.follows())
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// peekBytes is how much of a message that is too long is looked at for its id.
const peekBytes = 1 << 10

const maxIdleReads = 100 // without a byte or an error

// A lineReader cuts bytes into lines, the newline included. Its buffer grows for a long line and
// shrinks after it; the collector takes what stays unused.
type lineReader struct {
	r          io.Reader
	max        int
	buf        []byte
	start, end int // what was read and not handed out
	large      sync.Pool
}

// next returns the next line, which is good until the next call. whole is false for the beginning
// of a line over max bytes; the rest of it is skipped. With an error comes what was left.
func (l *lineReader) next() (line []byte, whole bool, err error) {
	for searched, idle := 0, 0; ; {
		if i := bytes.IndexByte(l.buf[l.start+searched:l.end], '\n'); i >= 0 {
			line = l.buf[l.start : l.start+searched+i+1]
			l.start += len(line)
			return line, true, nil
		}
		searched = l.end - l.start
		if searched > l.max+len("\r\n") {
			line = bytes.Clone(l.buf[l.start : l.start+peekBytes])
			return line, false, l.skip()
		}
		if l.end == len(l.buf) {
			l.room()
		}
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		if idle++; n > 0 {
			idle = 0
		} else if err == nil && idle > maxIdleReads {
			err = io.ErrNoProgress
		}
		if err != nil && n == 0 {
			line = l.buf[l.start:l.end]
			l.start = l.end
			return line, true, err
		}
	}
}

// follows reports whether the next line has arrived whole. A blank one is none: nobody hears of it.
func (l *lineReader) follows() bool {
	return bytes.IndexByte(bytes.TrimLeft(l.buf[l.start:l.end], " \t\r\n"), '\n') >= 0
}

// room makes place for more, by moving what is there or by growing.
func (l *lineReader) room() {
	to := l.buf
	if l.start == 0 {
		large, _ := l.large.Get().(*[]byte)
		if large == nil || len(*large) <= len(l.buf) {
			b := make([]byte, 2*len(l.buf))
			large = &b
		}
		to = *large
	}
	l.end = copy(to, l.buf[l.start:l.end])
	l.start, l.buf = 0, to
}

// shrink goes back to a small buffer if what is left fits.
func (l *lineReader) shrink() {
	if len(l.buf) > lineBuffer && l.end-l.start <= lineBuffer {
		large := l.buf
		l.buf = make([]byte, lineBuffer)
		l.end = copy(l.buf, large[l.start:l.end])
		l.start = 0
		l.large.Put(&large)
	}
}

// skip throws away the rest of a line.
func (l *lineReader) skip() error {
	for {
		if i := bytes.IndexByte(l.buf[l.start:l.end], '\n'); i >= 0 {
			l.start += i + 1
			return nil
		}
		n, err := l.r.Read(l.buf)
		l.start, l.end = 0, n
		if err != nil && n == 0 {
			return err
		}
	}
}

// peekID finds the id at the start of a message that is not there as a whole, "" if it is not in
// what there is.
func peekID(start string) string {
	d := json.NewDecoder(strings.NewReader(start))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	for {
		key, err := d.Token()
		if err != nil {
			return ""
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return ""
		}
		if id := string(value); key == "id" && id != "null" && id[0] != '{' && id[0] != '[' {
			return id
		}
	}
}

// A process is a running server on stdio.
type process struct {
	in     io.WriteCloser
	out    io.Reader
	done   <-chan struct{}       // closed once it has ended
	status func() (string, bool) // how it ended, for people, and whether well; after done
	end    func()                // ends it and waits for that; may be called more than once
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
		return d.shared.open(receive), nil
	}
	p, err := d.start()
	if err != nil {
		return nil, &Error{Code: 502, Text: "server could not be started", Cause: err}
	}
	c := &commandConn{lineConn: lineConn{w: p.in}, process: p}
	c.reader.Go(func() {
		readServer(p, s, d.max, d.log, receive)
		receive(nil, ended(p))
	})
	return c, nil
}

// Close ends the server that sessions share. All sessions must have ended.
func (d *commandDialer) Close() {
	d.shared.Close()
	if d.release != nil {
		d.release()
	}
}

// ended waits for p, whose output is at its end, and says what became of it.
func ended(p *process) error {
	select {
	case <-p.done:
	case <-time.After(time.Second):
		p.end() // it closed its output and lives on
	}
	status, _ := p.status()
	return &Error{Code: 502, Text: "server is gone", Exit: status}
}

// A commandConn is the conversation of one session with its process.
type commandConn struct {
	lineConn
	process *process
	reader  sync.WaitGroup // ends with the process's output
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
	}
	flush := func(more bool) {
		if !more && s != nil { // the line for which others were kept back may have gone no further
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
				return
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
		if id := peekID(start); id != "" {
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
	wait, cancel := context.WithCancel(ctx)
	if ctx.Err() != nil {
		wait, cancel = context.WithTimeout(context.WithoutCancel(ctx), grace)
	}
	defer cancel()
	select {
	case <-s.Quiet():
	case <-client.closed:
	case <-wait.Done():
	}
	serverFirst := s.Ended()
	s.server.Close() // before the session ends, so that its last words still reach the client
	p.Sessions.End(s, errShutdown)
	p.Close()
	client.Flush()
	var gone *Error
	if serverFirst && errors.As(s.Reason(), &gone) && gone.Exit != "exit status 0" {
		return errors.New("server ended: " + gone.Exit)
	}
	return readErr
}

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
		p.reject(s, nil, &Error{Code: 413, Text: "message is over the size limit", ID: peekID(start)})
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
