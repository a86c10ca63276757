// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lineBuffer = 64 << 10 // how much is read and written at a time
	maxWaiting = 1000     // senders
)

// A lineConn writes messages to a byte stream, one a line. It owns w.
//
// MCP, stdio: "Messages are delimited by newlines, and MUST NOT contain embedded newlines."
type lineConn struct {
	w io.WriteCloser
	// patience is how long the reader may leave a write waiting before it counts as gone; 0 is for
	// ever. Only files have that, as the pipes of a child are.
	patience time.Duration
	before   func() error // comes before anything is written to w; nil for nothing
	waiting  atomic.Int32 // senders that have yet to get mu

	mu  sync.Mutex // protects following, and is held while writing to w
	buf []byte
	err error // of an earlier write

	extended time.Time // when patience last began
}

// Send writes m. It leaves the writing to the next sender if one is waiting already.
func (c *lineConn) Send(_ context.Context, m *Message) error {
	if m.Kind == Opaque {
		return nil
	}
	if c.waiting.Add(1) > maxWaiting {
		c.waiting.Add(-1)
		return &Error{Code: 503, Text: "server does not read", RetryAfter: time.Second}
	}
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
		if err := c.prepare(); err != nil {
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

// broken reports whether nothing can be written any more.
func (c *lineConn) broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// flush requires that c.mu is held.
func (c *lineConn) flush() error {
	if len(c.buf) > 0 && c.err == nil {
		if err := c.prepare(); err != nil {
			return err
		}
		_, c.err = c.w.Write(c.buf)
		if cap(c.buf) > 4*lineBuffer {
			c.buf = nil
		}
		c.buf = c.buf[:0]
	}
	return c.err
}

// prepare gives the reader time for what is written next. If that must not be written, nothing is from then on. It
// requires that c.mu is held.
func (c *lineConn) prepare() error {
	if c.before != nil {
		if c.err = c.before(); c.err != nil {
			return c.err
		}
	}
	if c.patience == 0 {
		return nil
	}
	if now := time.Now(); now.Sub(c.extended) > c.patience/2 {
		c.extended = now
		if f, ok := c.w.(*os.File); ok {
			f.SetWriteDeadline(now.Add(c.patience))
		}
	}
	return nil
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
	length     int // of the line at start if follows has found it, else 0
	large      sync.Pool
}

// next returns the next line, which is good until the next call. whole is false for the beginning
// of a line over max bytes; the rest of it is skipped. With an error comes what was left.
func (l *lineReader) next() (line []byte, whole bool, err error) {
	if n := l.length; n > 0 {
		line = l.buf[l.start : l.start+n]
		l.start, l.length = l.start+n, 0
		return line, true, nil
	}
	for searched, idle := 0, 0; ; {
		if i := bytes.IndexByte(l.buf[l.start+searched:l.end], '\n'); i >= 0 {
			line = l.buf[l.start : l.start+searched+i+1]
			l.start += len(line)
			return line, true, nil
		}
		searched = l.end - l.start
		if searched > l.max+len("\r\n") {
			line = bytes.Clone(l.buf[l.start:min(l.start+peekBytes, l.end)])
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

// follows reports whether another line is there whole that is neither blank nor too long. It may miss
// one that begins with white space.
func (l *lineReader) follows() bool {
	i := bytes.IndexByte(l.buf[l.start:l.end], '\n')
	l.length = i + 1
	return i > 0 && i <= l.max && l.buf[l.start] > ' '
}

// room makes place for more, by moving what is there or by growing.
func (l *lineReader) room() {
	to := l.buf
	if l.start == 0 {
		large, _ := l.large.Get().(*[]byte)
		if large == nil || len(*large) <= len(l.buf) {
			b := make([]byte, 4*len(l.buf))
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

// peekID reads the start of a message that is not there as a whole: its id, "" if it is not in what
// there is, and what kind of message it is, Opaque if that cannot be told.
func peekID(start string) (id string, kind Kind) {
	d := json.NewDecoder(strings.NewReader(start))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", Opaque
	}
	for {
		key, err := d.Token()
		if err != nil {
			return id, kind
		}
		switch key {
		case "method":
			kind = Call
		case "result", "error":
			kind = Response
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return id, kind
		}
		// A number at the end of what there is may go on.
		if key == "id" && (value[0] == '"' || isNumber(value[0])) && d.InputOffset() < int64(len(start)) {
			id = string(value)
		}
	}
}
